"""Why a filter finds nothing: which part of it does, or which switch of the list hides what it finds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from receiver.store.index import Index
from receiver.traces.filter.evaluate import Found
from receiver.traces.filter.fields import FIELDS, Kind, nearest_attribute, resolve
from receiver.traces.filter.syntax import All, Condition, Node, Place, Word, nodes
from receiver.traces.query import Query, View, counts


@dataclass(frozen=True, slots=True)
class Nothing:
    """`says` is one sentence; `at` is the part of the filter that it is about, None where that is none."""

    says: str
    at: Place | None = None


def explain_nothing(
    query: Query, index: Index, view: View, now: int, *, live: bool = True, found: Found | None = None
) -> Nothing | None:
    """Why a view with this filter lists nothing; None when it does list something. For any thread, some ms a part.

    Args:
        view: its switches count, its own filter does not.
        now, live, found: as for `query.select`.
    """

    def tried(*parts: Node) -> tuple[int, int]:
        root = parts[0] if len(parts) == 1 else All(parts)
        return counts(index, [Query(root)], view, now, live=live, found=found)[0]

    if not index.traces:
        return Nothing("No trace has arrived.")
    everything, visible = tried(query.root)
    if visible:
        return None
    if everything:
        return Nothing(_hidden(query, index, view, now, everything, live, found))
    parts = query.root.parts if isinstance(query.root, All) else (query.root,)

    def wrote(part: Node) -> str:
        return query.text[part.at[0] : part.at[1]][:60]

    if len(parts) == 1:
        return Nothing(f"Nothing matches {wrote(parts[0])}{_meant(parts[0])}.", parts[0].at) if query.text else None
    alone = [tried(part)[0] for part in parts]
    for part, number in zip(parts, alone, strict=True):
        if not number:
            meant = _meant(part) or ", whatever the rest says"
            return Nothing(f"Nothing matches {wrote(part)}{meant}.", part.at)
    for place, part in enumerate(parts):
        others = tried(*parts[:place], *parts[place + 1 :])[0]
        if others:
            return Nothing(
                f"{others:,} match without {wrote(part)}, and {alone[place]:,} match it alone; none matches both.",
                part.at,
            )
    for place in range(2, len(parts) + 1):
        if not tried(*parts[:place])[0]:
            last = parts[place - 1]
            return Nothing(f"Each part matches something, but from {wrote(last)} on nothing is left.", last.at)
    return None


def _meant(root: Node) -> str:
    """What may have been meant by a part that nothing matches, "" where it seems to be what it says."""
    for node in nodes(root):
        if isinstance(node, Condition) and node.attribute is not None and node.name not in FIELDS:
            if near := nearest_attribute(node.wrote):
                return f": no attribute of that name is known, {near} is"
        elif isinstance(node, Word):
            if node.text in FIELDS and FIELDS[node.text].kind is Kind.FLAG:
                return f", which is searched as a word: {node.text}=yes asks for the field"
            name, colon, value = node.text.partition(":")
            if colon and value and resolve(name) is not None:
                return f", which is searched as a word: {name}={value[:40]} asks for the field"
            if node.text in _IN_WORDS:
                return f", which is searched as a word: {_IN_WORDS[node.text]}"
    return ""


_IN_WORDS: Final = {"and": "for that nothing is written", "or": "|| stands for that", "not": "! stands for that"}


def _hidden(query: Query, index: Index, view: View, now: int, everything: int, live: bool, found: Found | None) -> str:
    """Which switch hides all that matches."""
    switches = (
        ("the time window", replace(view, window_ns=None)),
        ("the time marked in the picture", replace(view, between=None)),
        ("the errors-only key", replace(view, errors_only=False)),
        ("the noise key", replace(view, hide_noise=False)),
    )
    for name, without in switches:
        if without != view and counts(index, [query], without, now, live=live, found=found)[0][1]:
            return f"{everything:,} match, but {name} hides them."
    return f"{everything:,} match, but the time window and the other switches of the list hide them."
