"""What a line says beside its span's name: a few words from its body, what is odd about it, names cut to their end.

No Textual here: notes are made in a worker thread, from bodies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from receiver.traces.folding import Run
from receiver.traces.model import Body, Kind, Oddity, Span, Trace, Value
from receiver.traces.semantics import ALIASES
from receiver.traces.tree import is_webhook_call
from tui.terminal_text import duration
from tui.widgets.outline import Outline

_NOTABLE: Final = 0.02
"""Part of its parent's duration by which a span must outlive or precede it to be worth words on its line; a few
microseconds are ordinary, and the detail says them."""
_MOST_TICKS: Final = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Note:
    """What a line takes from its span's body: small, so that thousands can be kept."""

    texts: tuple[str, ...] = ()  # the same thing, longest first; not yet printable
    failed: bool = False  # the text is an error message
    ticks: npt.NDArray[np.int64] | None = None  # times of events, ascending
    links: int = 0

    @property
    def shows(self) -> bool:
        """Whether the line looks different with it."""
        return bool(self.texts) or self.ticks is not None


NO_NOTE: Final = Note()


def note(span: Span, body: Body) -> Note:
    """What a span's body adds to its line. Bounded: at most `_MOST_TICKS` events are marked."""
    ticks = None
    if body.events:
        stride = -(-len(body.events) // _MOST_TICKS)
        times = sorted(min(max(event.time, 0), (1 << 63) - 1) for event in body.events[::stride])
        ticks = np.array(times, np.int64)
    if span.status == 2 and body.status_message:
        message = body.status_message[:400]
        shorter = message.removeprefix("context ")
        return Note((message, shorter) if shorter != message else (message,), True, ticks, len(body.links))
    return Note(_words(span, body), False, ticks, len(body.links))


def _words(span: Span, body: Body) -> tuple[str, ...]:
    name, attributes = span.name, body.attributes
    if is_webhook_call(name):
        for key in (*ALIASES["webhook"], *ALIASES["definition"]):
            if text := _text(attributes.get(key)):
                return (text, text.partition(".")[0]) if "." in text else (text,)
    elif span.kind is Kind.CLIENT and (url := _first(attributes, "url")):
        rest = url.partition("://")[2] or url
        rest = rest.partition("?")[0]
        return (rest, rest.partition("/")[0])
    elif name.endswith(" etcd3") or name.startswith("cacher."):
        if key := _text(attributes.get("key")):
            return (key, key.rpartition("/")[2])
    elif name == "SerializeObject":
        if media := _text(attributes.get("mediaType")):
            return (media, media.partition(";")[0])
    elif name.startswith(("TransformToStorage", "TransformFromStorage")):
        return tuple(filter(None, (_text(attributes.get("transformer.provider.name")),)))
    return ()


def _first(attributes: Mapping[str, Value], concept: str) -> str:
    for key in ALIASES[concept]:
        if text := _text(attributes.get(key)):
            return text
    return ""


def _text(value: object) -> str:
    return value[:400] if isinstance(value, str) else ""


def oddity_words(lines: Outline, line: int) -> str:
    """What is unusual about a line's place, in words; "" when nothing that deserves room on the line."""
    node = lines.nodes[line]
    odd = node.oddities
    if not odd:
        return ""
    span = node.span
    for oddity in (
        Oddity.ZERO_TIME,
        Oddity.FAR_TIME,
        Oddity.BACKWARDS,
        Oddity.DUPLICATE,
        Oddity.CYCLE,
        Oddity.SELF_PARENT,
    ):
        if oddity in odd:
            return str(oddity.value)
    if Oddity.ORPHAN in odd:
        return oddity_text(Oddity.ORPHAN, lines.trace)
    above = lines.above(line)
    if above is None:
        return ""
    parent = above.span
    notable = max(1_000_000, int(parent.duration * _NOTABLE))
    if Oddity.OUTLIVES in odd and span.end - parent.end >= notable:
        return "outlives its call" if parent.kind is Kind.CLIENT else Oddity.OUTLIVES.value
    if Oddity.BEFORE_PARENT in odd and parent.start - span.start >= notable:
        return Oddity.BEFORE_PARENT.value
    return ""


def oddity_text(oddity: Oddity, trace: Trace) -> str:
    """An oddity in words; a parent that is missing may still come while the trace arrives."""
    if oddity is Oddity.ORPHAN:
        return "parent not seen yet" if trace.settled.name == "ARRIVING" else "parent not seen"
    return str(oddity.value)


def short_name(name: str, width: int, ellipsis: str) -> str:
    """A span's name for `width` cells. Of `METHOD /long/path` and `package.Service/Method` the end is what tells."""
    if len(name) <= width:
        return name
    method, space, path = name.partition(" /")
    if space and len(method) <= 10:
        room = width - len(method) - 2
        tail = ""
        for part in reversed(path.split("/")):
            if len(part) + 1 + len(tail) > room:
                break
            tail = f"/{part}{tail}"
        return f"{method} {ellipsis}{tail}" if tail else name
    service, slash, method = name.partition("/")
    if slash and " " not in name and "." in service:
        brief = f"{service.rpartition('.')[2]}/{method}"
        return brief if len(brief) <= width else f"{ellipsis}/{method}"
    return name


def gap_text(ns: int, mark: str) -> str:
    """`⇄ 5.82 ms`."""
    return f"{mark} {duration(ns)}"


def run_words(run: Run) -> tuple[str, ...]:
    """What is said of a run beside its name, the longest text first; the column of durations has its total."""
    median, longest = duration(run.median), duration(run.longest.span.duration)
    return (f"total, p50 {median}, max {longest}", f"p50 {median}, max {longest}", f"max {longest}")
