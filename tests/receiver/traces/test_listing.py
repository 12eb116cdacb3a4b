"""Lines of the list: summary, phases and waiting belong to the same trace, and big traces are not asked again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from receiver.store.chunk import FACT, SPAN, Chunk, Resource
from receiver.store.index import Index
from receiver.traces import listing
from receiver.traces.listing import BIG, rows
from receiver.traces.pairing import catch_up, pairs
from receiver.traces.phases import Breakdown, breakdown
from receiver.traces.reader import SETTLE_NS, summaries
from tests.receiver.traces.conftest import Recordings
from tests.receiver.traces.shapes import FILTER, HTTP, MS, SERVER, T0, Recorder, authenticated_above

LATER = T0 + 60_000_000_000


@pytest.mark.parametrize("name", ["create-pod-webhooks.otlp.jsonl", "kubeadm-node.otlp.jsonl.gz"])
def test_each_line_is_of_one_trace(recorded: Recordings, name: str) -> None:
    index = recorded(name).index
    slots = list(range(index.traces))[:: max(1, index.traces // 300)]
    before = pairs(index).before_requests(index.traces)
    found = rows(index, slots, LATER)
    assert [row.summary for row in found] == summaries(index, slots, LATER)
    assert [row.waited for row in found] == [int(before[slot]) or authenticated_above(index, slot) for slot in slots]
    for row, phases in zip(found, breakdown(index, slots).phases(index), strict=True):
        assert row.phases == (phases if row.summary.request is not None else None)
        assert phases.duration == row.summary.duration_ns


def test_how_long_authentication_took_is_known_once_it_came() -> None:
    rec = Recorder()
    values = {"http.request.method": "GET", "http.target": "/livez"}
    rec.span("GET", SERVER, trace="request", scope=HTTP, at=900, ms=10, values=values)
    rec.span("authentication", trace="lone", scope=FILTER, at=0, ms=910.2)
    rec.span("authentication", trace="another", instance="b", scope=FILTER, at=0, ms=10.01)
    rec.span("GET", SERVER, trace="its request", instance="b", scope=HTTP, at=0.1, ms=9.9, values=values)
    index = rec.index()
    assert [row.waited for row in rows(index, [0, 3], LATER)] == [0, 0]
    catch_up(index)
    assert [row.waited for row in rows(index, [0, 3], LATER)] == [0, 100_000]  # one of two ends too late to believe it


def test_how_long_authentication_took_in_the_same_trace() -> None:
    rec = Recorder()
    top = rec.span("authentication", scope=FILTER, ms=2_003.01)
    rec.span("POST", SERVER, top, scope=HTTP, at=2_000, ms=3, values={"http.target": "/api/v1/namespaces"})
    index = rec.index()
    catch_up(index)
    row = rows(index, [0], LATER)[0]
    assert row.waited == 2_000 * MS
    assert row.summary.duration_ns == 3 * MS


def test_a_trace_id_that_is_reused_is_not_broken_down_while_it_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(index: Index, slots: Any) -> Breakdown:
        asked.append(len(slots))
        return breakdown(index, slots)

    monkeypatch.setattr(listing, "breakdown", counted)
    rec = Recorder()
    rec.span("GET", SERVER, scope=HTTP, values={"http.request.method": "GET", "http.target": "/livez"})
    index = rec.index()
    for number in range(2, 12):
        spans = np.zeros(BIG, SPAN)
        spans["trace_hi"], spans["trace_lo"], spans["span"] = (
            index.id_hi[0],
            index.id_lo[0],
            np.arange(BIG) + BIG * number,
        )
        spans["start"] = spans["end"] = T0
        sender = [Resource("apiserver", "a")]
        index.extend([Chunk(number, "local", "", T0 + number, ["", "Get"], sender, spans, np.zeros(0, FACT), b"")])
        (row,) = rows(index, [0], T0 + SETTLE_NS)
        assert row.phases is not None
        assert row.phases.duration == MS
    assert sum(asked) == 1
    rows(index, [0], T0 + 2 * SETTLE_NS)
    assert sum(asked) == 2
