"""One trace beside another, and beside what is usual."""

from __future__ import annotations

import random
import statistics
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.store.index import Index
from receiver.traces.comparing import Comparison, compare, webhook_names
from receiver.traces.listing import rows
from receiver.traces.phases import Phase
from receiver.traces.query import Query, View
from receiver.traces.reader import load
from receiver.traces.semantics import long_running
from receiver.traces.usual import LEAST, usual
from tests.receiver.traces.conftest import Recordings
from tests.receiver.traces.shapes import CLIENT, FILTER, GRPC, HTTP, MS, SERVER, T0, Recorder, chunks_of
from tests.receiver.traces.test_hotspots import Plain, make

ALL = View(Query(), None, False, False, "start", False)
SECOND = 1_000_000_000


def beside(index: Index, one: str, other: str) -> Comparison:
    traces = [load(index, trace_id, 0, live=False) for trace_id in (one, other)]
    assert traces[0] is not None
    assert traces[1] is not None
    found = compare(traces[0], traces[1], (webhook_names(index, one), webhook_names(index, other)))
    assert found is not None
    return found


@given(st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_the_differences_add_up(chance: random.Random) -> None:
    """Of parts and of spans, to that of the requests; every span is in one pair."""
    rec = Recorder()
    for number in range(2):
        make(rec, chance, f"trace {number}")
    index = rec.index()
    ids = [rec.trace_id(f"trace {number}") for number in range(2)]
    found = beside(index, *ids)
    assert sum(part.delta for part in found.parts) == found.one - found.other
    assert sum(pair.delta for pair in found.spans) == found.one - found.other
    for at, trace_id in enumerate(ids):
        expected = sorted(span.span_id.hex() for *_, span in rec.spans if span.trace_id.hex() == trace_id)
        told = sorted((pair.one_id, pair.other_id)[at] for pair in found.spans)
        assert [span_id for span_id in told if span_id] == expected
    way = 1 if found.one >= found.other else -1
    for deltas in ([part.delta for part in found.parts], [pair.delta for pair in found.spans]):
        assert deltas == sorted(deltas, reverse=way > 0)
    back = beside(index, *reversed(ids))
    assert {(pair.one_id, pair.other_id) for pair in back.spans} == {(p.other_id, p.one_id) for p in found.spans}
    same = beside(index, ids[0], ids[0])
    assert all(pair.one_id == pair.other_id and not pair.delta for pair in same.spans)
    assert "about as long as the other (" in same.sentence


def test_a_slow_create_beside_a_quick_one(recorded: Recordings) -> None:
    one = recorded("create-pod-webhooks")
    told = sorted(rows(one.index, range(one.index.traces), 0, live=False), key=lambda row: row.summary.duration_ns)
    quick = next(row for row in told if row.summary.request and row.summary.request.code == 201)
    found = beside(one.index, told[-1].summary.trace_id, quick.summary.trace_id)
    assert [part.name for part in found.parts[:2]] == [
        "mutating webhook label-injector.example.com",
        "validating webhook name-policy.example.com",
    ]
    # the webhooks' own spans are where it was
    assert found.spans[0].path[-1].startswith("POST")
    assert found.spans[0].delta > SECOND
    assert found.sentence.startswith("It took 2.53 s, 2.")
    assert found.sentence.endswith(" ms more in validating webhook name-policy.example.com.")
    back = beside(one.index, quick.summary.trace_id, told[-1].summary.trace_id)
    assert " s less than the other (2.53 s)" in back.sentence


def test_a_stalled_write_beside_the_usual(recorded: Recordings) -> None:
    """The write that waited for etcd, compared with the others of its shape."""
    index = recorded("incident").index
    listed = rows(index, range(index.traces), 0, live=False)
    slot = next(at for at, row in enumerate(listed) if row.summary.created == "during-stall")
    found = usual(index, ALL, slot, 0)
    assert found is not None
    assert (found.count, found.went_well) == (3, False)
    one, other = (load(index, trace_id, 0, live=False) for trace_id in (index.trace_id(slot), found.typical))
    assert one is not None
    assert other is not None
    beside_it = compare(one, other, usual=found)
    assert beside_it is not None
    assert beside_it.other == found.median
    assert beside_it.parts[0].name in ("the way to etcd", "calls to etcd")
    assert "more than usual (15.3 ms, the median of 3): 2.63 s more in the way to etcd" in beside_it.sentence
    assert "KV/Txn" in beside_it.spans[0].name


def test_answers_that_differ_are_said() -> None:
    rec = Recorder()
    for number, code in enumerate((500, 201)):
        values = {"http.target": "/api/v1/pods", "http.method": "GET", "http.response.status_code": code}
        rec.span("GET", SERVER, trace=f"{number}", scope=HTTP, ms=10, values=values)
    found = beside(rec.index(), rec.trace_id("0"), rec.trace_id("1"))
    assert found.sentence.endswith("; it was answered with 500, the other with 201.")


def test_traces_that_are_hostile() -> None:
    """Thousands of levels, thousands of siblings, no time at all."""
    rec = Recorder()
    for trace, wide in (("deep", False), ("wide", True)):
        above = server = rec.span("GET", SERVER, trace=trace, scope=HTTP, ms=50)
        for number in range(3_000):
            made = rec.span(f"{number % 7}", parent=server if wide else above, trace=trace, at=number / 1_000, ms=0.001)
            above = made
    rec.span("GET", SERVER, trace="timeless", scope=HTTP, at=-T0 / MS, ms=0)
    index = rec.index()
    found = beside(index, rec.trace_id("deep"), rec.trace_id("wide"))
    assert len(found.spans) == 500
    assert len(found.spans) + found.left_out > 5_000
    assert max(len(pair.path) for pair in found.spans) <= 64
    traces = [load(index, rec.trace_id(name), 0, live=False) for name in ("deep", "timeless")]
    assert traces[0] is not None
    assert traces[1] is not None
    assert compare(traces[0], traces[1]) is None


# --- what is usual --------------------------------------------------------------------------------
@given(st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_the_usual_is_the_median_of_the_others(chance: random.Random) -> None:
    rec = Recorder()
    for number in range(chance.randrange(1, 40)):
        make(rec, chance, f"trace {number}")
    index = rec.index()
    listed = rows(index, range(index.traces), 0, live=False)

    def shape(row: Any) -> Any:
        request = row.summary.request
        if request is None:
            return None
        scope = (bool(request.name) or request.verb == "create", bool(request.namespace) and not request.name)
        return request.verb, request.group, request.resource, request.subresource, scope if request.resource else ""

    for slot, row in enumerate(listed):
        found = usual(index, ALL, slot, 0)
        others = [one for at, one in enumerate(listed) if at != slot and shape(one) == shape(row)]
        well = [one for one in others if not Plain.wrong(one)]
        request = row.summary.request
        if request is None or long_running(request) or len(others) < LEAST:
            assert found is None
            continue
        assert found is not None
        others, went_well = (well, True) if len(well) >= LEAST else (others, False)
        durations = sorted(one.summary.duration_ns for one in others)
        assert (found.count, found.went_well) == (len(others), went_well)
        assert found.median == statistics.median_low(durations)
        assert found.p95 == durations[-(-len(durations) * 95 // 100) - 1]
        for phase in Phase:
            assert found.phases[phase] == statistics.median_low(one.phases.ns[phase] for one in others if one.phases)
        typical = next(one for one in others if one.summary.trace_id == found.typical)
        assert typical.summary.duration_ns == found.median


def test_it_is_kept_until_spans_come() -> None:
    rec = Recorder()
    for number in range(8):
        values = {"http.target": "/api/v1/pods", "http.method": "GET"}
        server = rec.span("GET", SERVER, trace=f"{number}", scope=HTTP, ms=number + 1, values=values)
        rec.span("priorityandfairness", parent=server, trace=f"{number}", scope=FILTER, ms=1)
        rec.span("etcdserverpb.KV/Range", CLIENT, server, trace=f"{number}", scope=GRPC, ms=1)
    index = rec.index(range(21))
    first = usual(index, ALL, 0, 0)
    assert first is not None
    assert (first.count, first.median) == (6, 4 * MS)
    assert usual(index, ALL, 0, 0) is first
    index.extend([chunk for chunk in chunks_of(rec.requests()) if chunk.id > 21])
    second = usual(index, ALL, 0, 0)
    assert second is not None
    assert second.count == 7
