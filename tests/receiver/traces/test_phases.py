"""Phases: they sum to the duration, both evaluations say the same, and every release has the right ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.store.chunk import APISERVER, COMPONENT_NAMES, FACT, FLAG_REQUEST, SPAN, Chunk, Resource
from receiver.store.index import Index
from receiver.traces.phases import GROUPS, PHASES, Phase, Phases, breakdown, durations, phases_of
from receiver.traces.reader import load
from tests.receiver.traces import shapes
from tests.receiver.traces.conftest import RECORDINGS, Recordings
from tests.receiver.traces.shapes import CLIENT, FILTER, GRPC, HTTP, MS, SERVER, T0, Recorder
from tests.work import calls_of


def both(index: Index, trace_id: str) -> Phases:
    """The phases of a trace, after a look that both evaluations agree."""
    slot = index.slot_of(trace_id)
    assert slot is not None
    row = breakdown(index, [slot]).phases(index)[0]
    trace = load(index, trace_id, T0, live=False)
    assert trace is not None
    assert phases_of(trace, names={hook.span_id: hook.name for hook in row.hooks}) == row
    assert sum(row.ns) == row.duration == sum(row.to_json().values())
    return row


def in_ms(phases: Phases) -> dict[str, float]:
    return {phase.name: round(phases.ns[phase] / MS, 3) for phase in Phase if phases.ns[phase]}


def test_webhooks_are_named_and_their_time_is_theirs() -> None:
    rec = Recorder()
    shapes.release_1_34(rec, privileged=True)
    found = both(rec.index(), rec.trace_id())
    assert [(h.phase, h.name, h.ns) for h in found.hooks] == [(Phase.VALIDATING, "name-policy.example.com", 8 * MS)]


def test_what_is_inside_a_call_is_the_call() -> None:
    """A webhook that asks the API server, an aggregated one that asks etcd."""
    rec = Recorder()
    server = rec.span("POST", SERVER, scope=HTTP, ms=100)
    hook = rec.span("Call mutating webhook", parent=server, at=10, ms=30)
    post = rec.span("HTTP POST", CLIENT, hook, at=12, ms=26)
    nested = rec.span("GET", SERVER, post, scope=HTTP, at=14, ms=20)
    rec.span("etcdserverpb.KV/Range", CLIENT, nested, at=15, ms=10)
    away = rec.span("HTTP GET", CLIENT, server, at=50, ms=40)
    there = rec.span("GET", SERVER, away, instance="aggregated", scope=HTTP, at=55, ms=30)
    rec.span("etcdserverpb.KV/Range", CLIENT, there, scope=GRPC, at=60, ms=10)
    assert in_ms(both(rec.index(), rec.trace_id())) == {"MUTATING": 30, "AGGREGATION": 40, "OTHER": 30}


@pytest.mark.parametrize(("code", "phase"), [(403, "AUTHORIZATION"), (200, "OTHER")])
def test_authorization_with_nothing_below(code: int, phase: str) -> None:
    rec = Recorder()
    values = {"http.target": "/livez", "http.request.method": "GET", "http.response.status_code": code}
    server = rec.span("GET", SERVER, scope=HTTP, ms=10, values=values)
    rec.span("authorization", parent=server, scope=FILTER, ms=10)
    assert in_ms(both(rec.index(), rec.trace_id())) == {phase: 10}


def test_a_call_without_etcds_side_is_one_whole() -> None:
    rec = Recorder()
    server = rec.span("GET", SERVER, scope=HTTP, ms=10)
    rec.span("etcdserverpb.KV/Range", CLIENT, server, scope=GRPC, at=2, ms=5)
    assert in_ms(both(rec.index(), rec.trace_id())) == {"ETCD_CALL": 5, "OTHER": 5}


def test_a_lone_authentication_root_accuses_nobody() -> None:
    rec = Recorder()
    rec.span("authentication", scope=FILTER, ms=900)
    assert in_ms(both(rec.index(), rec.trace_id())) == {"OTHER": 900}


# --- any trace ------------------------------------------------------------------------------------
NAMES = (
    "GET", "POST", "authentication", "audit", "priorityandfairness", "authorization", "Create", "Get", "HTTP POST",
    "Call mutating webhook", "Call validating webhook", "cacher.GetList", "List(recursive=true) etcd3", "Create etcd3",
    "etcdserverpb.KV/Txn", "etcdserverpb.Watch/Watch", "TransformToStorage with x", "SerializeObject", "runtime.v1.X/Y",
)  # fmt: skip
SPANS = st.tuples(
    st.integers(0, 2),  # trace
    st.integers(0, 14),  # parent
    st.integers(0, 30),
    st.integers(0, 40),
    st.integers(0, len(NAMES) - 1),
    st.integers(0, 5),  # kind
    st.integers(0, len(COMPONENT_NAMES)),
    st.booleans(),
)


def drawn_index(drawn: list[tuple[int, int, int, int, int, int, int, bool]]) -> Index:
    """Parents come before their children, so that there are no circles; those are cut elsewhere."""
    rows = np.zeros(len(drawn), SPAN)
    for at, (trace, parent, start, end, name, kind, component, request) in enumerate(drawn):
        flags = APISERVER | FLAG_REQUEST if request else component
        rows[at] = (
            0, trace + 1, at + 1, parent if parent <= at else 99, T0 + start if start else 0, T0 + end, name + 1, 0,
            2 if request else kind, flags,
        )  # fmt: skip
    index = Index()
    chunk = Chunk(1, "s", "", T0, ["", *NAMES], [Resource("apiserver", "a")], rows, np.zeros(0, FACT), b"")
    index.extend([chunk])
    return index


@given(st.lists(SPANS, min_size=1, max_size=15))
@settings(deadline=None, max_examples=400)
def test_both_evaluations_agree_on_anything(drawn: list[tuple[int, int, int, int, int, int, int, bool]]) -> None:
    index = drawn_index(drawn)
    together = breakdown(index, range(index.traces))
    assert (together.ns >= 0).all()
    assert (together.ns.sum(axis=1) == together.duration).all()
    rows = together.phases(index)
    for slot in range(index.traces):
        trace = load(index, index.trace_id(slot), T0, live=False)
        assert trace is not None
        one = phases_of(trace)
        head = f"{int(index.span[index.head_row[slot]]):016x}"
        if trace.headline is None or trace.headline.span.span_id != head:
            continue  # without a root the index takes the earliest span, the tree the earliest without a parent
        if one is None:
            assert rows[slot].duration == 0
        else:
            assert one == rows[slot]


def test_no_trace_at_all() -> None:
    found = breakdown(Index(), [])
    assert found.ns.shape == (0, PHASES)
    assert found.phases(Index()) == []


def test_a_trace_that_somebody_built_to_cost_time() -> None:
    """Deep, wide, and with siblings that all overlap."""
    spans = [(0, min(n, 14), 1, 40 - n % 7, n % len(NAMES), 1, 1, False) for n in range(20_000)]
    index = drawn_index(spans)
    found, calls = calls_of(lambda: breakdown(index, [0]))
    assert calls < 10 * len(spans), "linear in the spans"
    assert (found.ns.sum(axis=1) == found.duration).all()


# --- recordings -----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", RECORDINGS)
def test_phases_of_a_recording(recorded: Recordings, name: str) -> None:
    """They sum to the duration, and both evaluations say the same."""
    recording = recorded(name)
    index = recording.index
    found = breakdown(index, range(index.traces))
    assert (found.ns >= 0).all()
    assert (found.ns.sum(axis=1) == index.head_duration).all()  # 1.36: no release that ends its span early
    assert (durations(index, range(index.traces)) == index.head_duration).all()
    rows = found.phases(index)
    for slot, trace in recording.some():
        phases = phases_of(trace, names={hook.span_id: hook.name for hook in rows[slot].hooks})
        assert phases == rows[slot]
        assert sum(phases.ns) == sum(phases.to_json().values()) == phases.duration


def test_the_webhooks_of_a_recording(recorded: Recordings) -> None:
    index = recorded("create-pod-webhooks").index
    slow = max(breakdown(index, range(index.traces)).phases(index), key=lambda phases: phases.duration)
    assert [(h.phase, h.name, round(h.ns / MS)) for h in slow.hooks] == [
        (Phase.MUTATING, "label-injector.example.com", 1514),
        (Phase.VALIDATING, "name-policy.example.com", 1001),
    ]
    assert slow.group("admission") == sum(hook.ns for hook in slow.hooks)


def test_every_phase_is_in_one_group() -> None:
    assert sorted(phase for those in GROUPS.values() for phase in those) == list(Phase)
