"""Which spans of a trace a filter speaks of: what is marked in a trace that was opened from a filtered list."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from receiver.store.index import Index
from receiver.traces.filter.columns import Traces
from receiver.traces.filter.evaluate import Evaluation, Found, prepare
from receiver.traces.filter.fields import FIELDS, Level
from receiver.traces.filter.strings import strings_of
from receiver.traces.filter.syntax import All, Condition, Either, Node, OneSpan, Word
from receiver.traces.query import Query


def parts(node: Node) -> Iterator[Node]:
    """The parts of a filter that are about single spans; what is behind a `!` marks nothing."""
    if isinstance(node, (All, Either)):
        for part in node.parts:
            yield from parts(part)
    elif isinstance(node, (OneSpan, Word)) or (
        isinstance(node, Condition)
        and (node.attribute is not None or (node.name in FIELDS and FIELDS[node.name].level is not Level.TRACE))
    ):
        yield node


def matching(query: Query, index: Index, trace_id: str, now: int, *, live: bool, found: Found | None) -> frozenset[str]:
    """Ids of the spans of a trace that a part of the filter holds for. For any thread, not under the index's lock.

    Args:
        now, live, found: as for `query.select`.
    """
    wanted = list(parts(query.root))
    if not wanted:
        return frozenset()
    prepare(index, query.root)
    strings = strings_of(index)
    with index.lock, strings.lock:
        slot = index.slot_of(trace_id)
        if slot is None:
            return frozenset()
        evaluation = Evaluation(Traces(index, strings), now, live, found)
        rows = index.rows_of(slot)
        hit = np.zeros(index.spans, bool)
        for part in wanted:
            hit |= evaluation.spans(part)
        return frozenset(f"{span:016x}" for span in index.span[rows[hit[rows]]].tolist())
