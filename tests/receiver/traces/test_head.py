"""The first spans of a large trace stand as they stand in the tree of all of them."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from receiver.store.index import Index
from receiver.traces import reader
from receiver.traces.model import Node, Trace
from receiver.traces.reader import load
from receiver.traces.tree import walk
from tests.receiver.traces.shapes import T0, index_of

TRACE = bytes(range(16))
Made = tuple[int, int, int, int]  # id, parent, start and length

spans = st.lists(
    st.tuples(st.integers(1, 12), st.integers(0, 14), st.sampled_from([0, *range(100, 140)]), st.integers(-5, 40)),
    min_size=1,
    max_size=14,
)


def index_with(made: list[Made]) -> Index:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number, parent, start, length in made:
        span = scope.spans.add(trace_id=TRACE, span_id=number.to_bytes(8, "big"), name="n")
        span.parent_span_id = parent.to_bytes(8, "big") if parent else b""
        span.start_time_unix_nano = T0 + start if start else 0
        span.end_time_unix_nano = max(0, T0 + start + length)
        span.status.code = number % 3  # type: ignore[assignment]
    return index_of([request.SerializeToString()])


def loaded(index: Index, cap: int, first: bool = True) -> Trace:
    trace = load(index, TRACE.hex(), T0, cap, first=first)
    assert trace is not None
    return trace


def stands(node: Node) -> tuple[object, ...]:
    return node.span.row, node.span.span_id, node.span.parent_id, node.depth, node.self_ns


def has_later_siblings(trace: Trace, node: Node) -> bool:
    siblings = next((one.children for one in walk(trace) if node in one.children), trace.roots)
    return siblings[-1] is not node


@given(spans, st.integers(1, 16))
@example([(1, 2, 100, 5), (2, 3, 101, 5), (3, 1, 102, 5), (4, 3, 103, 5)], 2)  # a circle, cut in two
@example([(1, 0, 100, 5), (1, 0, 100, 9), (2, 1, 100, 9), (1, 1, 90, 9)], 2)  # one id several times
@example([(1, 0, 100, 30), (2, 1, 110, -5), (3, 1, 0, 9), (4, 1, 120, 90), (5, 1, 101, 3), (6, 1, 102, 3)], 1)
@example([(1, 0, 0, 5), (2, 1, 0, 5)], 1)
@settings(deadline=None, max_examples=300)
def test_the_head_of_a_tree_is_that_of_the_whole(made: list[Made], most: int) -> None:
    index = index_with(made)
    whole, head = loaded(index, 1_000), loaded(index, most)
    all_, some = list(walk(whole)), list(walk(head))
    shown = min(most, len(all_))
    assert [stands(node) for node in some[:shown]] == [stands(node) for node in all_[:shown]]
    assert [has_later_siblings(head, node) for node in some[:shown]] == [
        has_later_siblings(whole, node) for node in all_[:shown]
    ]
    assert (head.spans, head.errors, head.start, head.end) == (whole.spans, whole.errors, whole.start, whole.end)
    assert (head.missing, head.settled, head.request) == (whole.missing, whole.settled, whole.request)
    assert head.left_out == len(all_) - len(some)


@pytest.mark.parametrize("shape", ["wide", "deep", "roots", "circle"])
def test_objects_are_made_of_what_is_asked_for_and_no_more(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 30_000
    parents = {
        "wide": lambda n: min(n - 1, 1),
        "deep": lambda n: n - 1,
        "roots": lambda n: 0,
        "circle": lambda n: n - 1 or count,
    }[shape]
    index = index_with([(number, parents(number), 100 + number, 1_000_000) for number in range(1, count + 1)])
    asked: list[int] = []
    spans_at = reader.spans_at
    monkeypatch.setattr(reader, "spans_at", lambda index, rows: asked.append(len(rows)) or spans_at(index, rows))
    head = loaded(index, 100)
    assert sum(asked) <= 100 + 100
    assert head.left_out >= count - 200
    assert len(list(walk(head))) >= 100
    assert [node.span.span_id for node in walk(head)][:3] == [f"{n:016x}" for n in (1, 2, 3)]
