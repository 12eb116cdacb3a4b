"""Which spans of one trace a filter is about: those that a screen marks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from receiver.store.index import Index
from receiver.traces.filter.columns import Traces
from receiver.traces.filter.evaluate import Evaluation, Found, is_of_spans, prepare
from receiver.traces.filter.strings import strings_of
from receiver.traces.filter.syntax import All, Condition, Either, Node, OneSpan, Word
from receiver.traces.query import Query


def marked(
    index: Index, query: Query, trace_id: str, now: int, *, live: bool = True, found: Found | None = None
) -> list[str]:
    """Ids of the spans of a trace that fulfil a part of the filter which is about spans, in order of arrival: a word, a
    condition on spans, all that stands in an any(...). What is behind a `!` marks nothing. For any thread, some ms a
    part.

    Args:
        trace_id: 32 hex digits; nothing is marked in one that is not held.
        now, live, found: as for `query.select`.
    """
    parts = list(_parts(query.root))
    prepare(index, query.root)
    strings = strings_of(index)
    with index.lock, strings.lock:
        slot = index.slot_of(trace_id)
        if slot is None or not parts:
            return []
        evaluation = Evaluation(Traces(index, strings), now, live, found)
        rows = index.rows_of(slot)
        hit = np.zeros(len(rows), bool)
        for part in parts:
            hit |= evaluation.spans(part)[rows]
        return [f"{span:016x}" for span in index.span[rows[hit]].tolist()]


def _parts(node: Node) -> Iterator[Node]:
    if isinstance(node, (All, Either)):
        for part in node.parts:
            yield from _parts(part)
    elif isinstance(node, OneSpan):
        yield node.of
    elif isinstance(node, Word):
        if node.text:
            yield node
    elif isinstance(node, Condition) and is_of_spans(node):
        yield node
