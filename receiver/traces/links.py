"""Links between traces, in both directions.

A span names the traces it links to in its body. The index knows which spans link to which trace, so the other
direction is found without reading bodies; those of the few spans found then say which span is meant.

Who makes them in Kubernetes (docs/facts.md 2.2, 2.5): the API server, for a caller whose traceparent it
does not trust, which is everybody up to 1.32 and everybody outside system:masters and system:monitoring since: kubelet,
a webhook that calls back, an operator's own header. The kubelet's server does so for all. The link leads to the
caller's own span, which nobody need have sent here: the id may be invented.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from receiver.store.index import Index
from receiver.traces.model import Body, Component, Kind, Span, TraceSummary
from receiver.traces.reader import spans_at, summaries

if TYPE_CHECKING:
    from receiver.traces.bodies import Bodies

MOST: Final = 64
"""Spans that link from or to a trace that are looked at, each way; of more the last arrived are left out."""


@dataclass(frozen=True, slots=True)
class Relation:
    """A link, seen from the trace at one of its ends."""

    outgoing: bool
    """It starts at this trace; else it leads here."""
    here: str
    """The id of the span of this trace at its end; "" where the other side does not say."""
    trace_id: str
    span_id: str
    """Of the other end: which may be in the same trace, and need not be held."""
    caller: bool
    """Outgoing from the span that serves a call: the other end is the caller's own trace."""
    other: TraceSummary | None
    """The other trace, None where it is not held."""


def count(index: Index, trace_id: str) -> int:
    """How many links there are from or to a trace, several between one span and one trace counted once. Cheap: no body
    is read."""
    with index.lock:
        slot = index.slot_of(trace_id)
        if slot is None:
            return 0
        return len(np.union1d(index.links_from(slot), index.links_to(slot)))


def relations(
    index: Index, bodies: Bodies, trace_id: str, now: int, *, span: Span | None = None, live: bool = True
) -> list[Relation]:
    """The links of a trace: first those of one span, then those to it, then to other spans, then of other spans.

    Args:
        trace_id: 32 hex digits; where it is not held there is nothing.
        now, live: as for `reader.summaries`.
        span: the one asked about; its own links are read even where they were stored before the index knew of links.

    Raises:
        StoreError: bodies cannot be read.
    """
    with index.lock:
        slot = index.slot_of(trace_id)
        if slot is None:
            return []
        starting, leading = (
            spans_at(index, np.unique(index.fact_row[facts])[:MOST])
            for facts in (index.links_from(slot), index.links_to(slot))
        )
    asked = span.span_id if span is not None else ""
    if span is not None:
        starting = [span, *(one for one in starting if one.span_id != asked)]
    bodies_of = bodies.bodies([*starting, *leading])
    away = _outgoing(starting, bodies_of[: len(starting)])
    toward = _incoming(leading, bodies_of[len(starting) :], trace_id)
    # A link within the trace is told once: from its start, unless its end is asked about.
    away = [one for one in away if one[1] == asked or one[2:4] != (trace_id, asked)]
    toward = [one for one in toward if one[2] != trace_id or one[1] == asked != one[3]]
    found = list(
        dict.fromkeys(
            [
                *(one for one in away if one[1] == asked),
                *(one for one in toward if one[1] == asked),
                *(one for one in toward if one[1] != asked),
                *(one for one in away if one[1] != asked),
            ]
        )
    )
    others = _others(index, [one[2] for one in found], now, live)
    return [
        Relation(outgoing, here, there, span_id, caller, others.get(there))
        for outgoing, here, there, span_id, caller in found
    ]


_End = tuple[bool, str, str, str, bool]


def _outgoing(spans: Sequence[Span], bodies: Sequence[Body | None]) -> list[_End]:
    return [
        (True, span.span_id, link.trace_id, link.span_id, _serves(span))
        for span, body in zip(spans, bodies, strict=True)
        for link in (body.links if body is not None else ())[:MOST]
    ]


def _incoming(spans: Sequence[Span], bodies: Sequence[Body | None], trace_id: str) -> list[_End]:
    found: list[_End] = []
    for span, body in zip(spans, bodies, strict=True):
        ends = [link.span_id for link in body.links if link.trace_id == trace_id] if body is not None else []
        found += [(False, end, span.trace_id, span.span_id, False) for end in (ends or [""])[:MOST]]
    return found


def _serves(span: Span) -> bool:
    return span.kind is Kind.SERVER and span.component in (Component.APISERVER, Component.KUBELET)


def _others(index: Index, trace_ids: Sequence[str], now: int, live: bool) -> dict[str, TraceSummary]:
    with index.lock:
        slots = [slot for id in dict.fromkeys(trace_ids) if (slot := index.slot_of(id)) is not None]
        return {row.trace_id: row for row in summaries(index, slots, now, live=live)}
