"""The critical path: whole, without gaps, and through the tree of every release."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.traces.model import Component, Kind, Oddity, Settled, Span, Trace
from receiver.traces.reader import load
from receiver.traces.timing import STREAMS, CriticalPath, covered, critical_path, followers, self_times
from receiver.traces.tree import build, walk
from tests.receiver.traces import shapes
from tests.receiver.traces.conftest import RECORDINGS, Recordings
from tests.receiver.traces.shapes import MS, T0, Recorder

NAMES = ("audit", "authentication", "authorization", "Create", "etcdserverpb.KV/Txn", "etcdserverpb.Watch/Watch", "x")


def span(number: int, parent: int, start: int, end: int, name: str = "x", **other: object) -> Span:
    made = Span(
        "t", f"{number:016x}", f"{parent:016x}" if parent else "", name, Kind.INTERNAL, T0 + start if start >= 0 else 0,
        T0 + end, 0, "apiserver", "a", Component.APISERVER, "local", 1, number,
    )  # fmt: skip
    return replace(made, **other)  # type: ignore[arg-type]


def path_of(*spans: Span) -> tuple[Trace, CriticalPath]:
    trace = build(spans, settled=Settled.SETTLED, missing=0)
    path = critical_path(trace)
    assert path is not None
    return trace, path


def pieces(path: CriticalPath) -> list[tuple[int, int, int]]:
    return [(int(i.node.span.span_id, 16), i.start - T0, i.end - T0) for i in path.intervals]


def whole(path: CriticalPath, trace: Trace) -> None:
    """Disjoint, contiguous, inside the headline, and the same by node."""
    reached = path.start
    for interval in path.intervals:
        assert interval.start == reached < interval.end
        reached = interval.end
    assert reached == path.end
    assert sum(node.critical_ns for node in walk(trace)) == path.end - path.start
    assert sum(step.lead + step.rest for step in path.steps) == path.end - path.start
    for step in path.steps:
        assert 0 <= step.node.critical_ns == step.lead + step.rest


def nobody_was_waited_for_meanwhile(path: CriticalPath) -> None:
    """What is a span's own time is so because none of its children ended during it; how a path is found does not
    matter to that."""
    steps = {id(step.node): step for step in path.steps}
    for interval in path.intervals:
        step = steps[id(interval.node)]
        for child in followers(interval.node):
            span = child.span
            first, last = max(span.start, step.start), min(span.end, step.end)
            waited_for = span.start and span.name not in STREAMS and first < last
            assert not (waited_for and interval.start < last <= interval.end)


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        # of siblings that overlap only the last to finish counts
        ([(1, 0, 100, 200), (2, 1, 110, 170), (3, 1, 150, 190)], [(1, 100, 150), (3, 150, 190), (1, 190, 200)]),
        # a span that ends exactly where the next begins counts
        ([(1, 0, 100, 200), (2, 1, 100, 150), (3, 1, 150, 200)], [(2, 100, 150), (3, 150, 200)]),
        # a time of 0 within the trace is a time, and one that outlives its parent counts up to its end
        ([(1, 0, 0, 100), (2, 1, 60, 300), (3, 2, 70, 250)], [(1, 0, 60), (2, 60, 70), (3, 70, 100)]),
        # one that starts before its parent (another clock) counts from its start
        ([(1, 0, 50, 100), (2, 1, 10, 80)], [(2, 50, 80), (1, 80, 100)]),
        # what lies outside its parent was not waited for; nor was what has no start or ends before it
        ([(1, 0, 50, 100), (2, 1, 100, 180), (3, 1, 10, 50), (4, 1, -1, 70), (5, 1, 80, 60)], [(1, 50, 100)]),
        # an orphan headline has a path like any other
        ([(1, 9, 0, 100), (2, 1, 20, 60)], [(1, 0, 20), (2, 20, 60), (1, 60, 100)]),
    ],
)
def test_what_was_waited_for(spans: list[tuple[int, int, int, int]], expected: list[tuple[int, int, int]]) -> None:
    trace, path = path_of(*(span(*each) for each in spans))
    assert pieces(path) == expected
    whole(path, trace)


def test_nobody_waits_for_a_stream_or_a_consumer() -> None:
    trace, path = path_of(
        span(1, 0, 0, 100, kind=Kind.PRODUCER),
        span(2, 1, 10, 90, "etcdserverpb.Watch/Watch", kind=Kind.CLIENT),
        span(3, 1, 10, 90, kind=Kind.CONSUMER),
        span(4, 3, 20, 80),
    )
    assert pieces(path) == [(1, 0, 100)]
    assert [node.critical_ns for node in walk(trace)] == [100, 0, 0, 0]


def test_what_outlives_its_parent_is_marked() -> None:
    trace, _ = path_of(span(1, 0, 0, 100), span(2, 1, 60, 300))
    assert Oddity.OUTLIVES in trace.roots[0].children[0].oddities


def test_a_chain_as_deep_as_anybody_sends_it() -> None:
    trace, path = path_of(*(span(n, n - 1, n, 10_000 - n) for n in range(1, 4_000)))
    assert len(path.steps) == 1_001
    whole(path, trace)


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(-1, 40), st.integers(0, 40), st.sampled_from(NAMES), st.booleans()),
        min_size=1,
        max_size=12,
    )
)
@settings(deadline=None, max_examples=300)
def test_every_path_is_whole(drawn: list[tuple[int, int, int, str, bool]]) -> None:
    spans = [
        span(number, parent, start, end, name, request=server, kind=Kind.SERVER if server else Kind.INTERNAL)
        for number, (parent, start, end, name, server) in enumerate(drawn, 1)
    ]
    trace = build(spans, settled=Settled.SETTLED, missing=0)
    path = critical_path(trace)
    if path is not None:
        whole(path, trace)
        nobody_was_waited_for_meanwhile(path)
        assert path.extended or path.end == max(path.start, trace.headline.span.end)  # type: ignore[union-attr]


# --- releases -------------------------------------------------------------------------------------
def release(record: object, **how: bool) -> tuple[Trace, CriticalPath]:
    rec = Recorder()
    record(rec, **how)  # type: ignore[operator]
    trace = load(rec.index(), rec.trace_id(), T0)
    assert trace is not None
    path = critical_path(trace)
    assert path is not None
    whole(path, trace)
    return trace, path


def critical(trace: Trace) -> dict[str, float]:
    return {f"{n.span.name} {n.span.kind.name[0]}": n.critical_ns / MS for n in walk(trace) if n.critical_ns}


def test_from_1_26_to_1_32_work_is_below_a_filter_that_has_ended() -> None:
    trace, path = release(shapes.release_1_26)
    assert (path.end - path.start, path.extended) == (20 * MS, False)
    found = critical(trace)
    assert found["authentication I"] == pytest.approx(0.4)
    assert found["Create I"] == pytest.approx(3)  # before the webhook, between it and etcd, after it
    assert found["POST /mutate S"] == pytest.approx(7 - 2)  # it outlives its call by 2
    assert found["decide I"] == pytest.approx(2)
    assert found["SerializeObject I"] == pytest.approx(1)  # beside Create there


def test_in_1_33_the_server_span_ends_at_once_and_the_request_does_not() -> None:
    trace, path = release(shapes.release_1_33)
    assert (path.end - path.start, path.extended) == (int(17.6 * MS), True)
    assert trace.headline is not None
    assert trace.headline.span.duration == MS // 10


def test_since_1_34_the_filters_are_on_the_path() -> None:
    trace, path = release(shapes.release_1_34, privileged=True)
    assert (path.end - path.start, path.extended) == (20 * MS, False)
    assert "priorityandfairness I" in critical(trace)


@pytest.mark.parametrize("record", [shapes.release_1_22, shapes.watch_1_36, shapes.forced])
def test_the_other_shapes(record: object) -> None:
    trace, path = release(record)
    assert trace.headline is not None
    assert (path.end - path.start, path.extended) == (trace.headline.span.duration, False)


# --- recordings -----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", RECORDINGS)
def test_paths_of_a_recording_are_whole_and_self_times_right(recorded: Recordings, name: str) -> None:
    recording = recorded(name)
    index = recording.index
    for slot, trace in recording.some():
        self_times(trace)
        path = critical_path(trace)
        assert path is not None
        whole(path, trace)
        nobody_was_waited_for_meanwhile(path)
        assert (path.start, path.end - path.start) == (index.head_start[slot], index.head_duration[slot])
        for node in walk(trace):
            assert 0 <= node.self_ns == node.span.duration - covered(node)


def test_a_large_trace_has_its_path_soon() -> None:
    spans = [span(n, max(1, n // 3) if n > 1 else 0, n, 200_000 - n) for n in range(1, 40_001)]
    trace = build(spans, settled=Settled.SETTLED, missing=0)
    self_times(trace)
    path = critical_path(trace)
    assert path is not None
    whole(path, trace)
