"""Trees of every release, and of whatever else may be sent."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.store.chunk import NANOSECOND_MAX
from receiver.traces.model import Component, Kind, Node, Oddity, Settled, Span, Trace
from receiver.traces.reader import load
from receiver.traces.timing import covered, self_times
from receiver.traces.tree import build, walk
from tests.receiver.traces import shapes
from tests.receiver.traces.shapes import T0, Recorder

LATER = T0 + 60_000_000_000
MARKS = {
    Oddity.ORPHAN: "?",
    Oddity.OUTLIVES: ">",
    Oddity.BEFORE_PARENT: "<",
    Oddity.BACKWARDS: "b",
    Oddity.ZERO_TIME: "0",
    Oddity.FAR_TIME: "f",
    Oddity.SELF_PARENT: "s",
    Oddity.CYCLE: "c",
    Oddity.DUPLICATE: "d",
}


def drawn(trace: Trace) -> str:
    """The tree as text: indentation, `*` for the headline, the name, the component, marks of oddities."""
    lines = []
    for node in walk(trace):
        head = "*" if node is trace.headline else " "
        marks = "".join(sorted(MARKS[oddity] for oddity in node.oddities))
        lines.append(f"{'  ' * node.depth}{head}{node.span.name} {node.span.component.value} {marks}".rstrip())
    return "\n".join(lines)


def trace_of(rec: Recorder, name: str = "trace", order: list[int] | None = None) -> Trace:
    trace = load(rec.index(order), rec.trace_id(name), LATER)
    assert trace is not None
    return trace


R22 = """\
*KubernetesAPI apiserver
   POST apiserver
     POST /mutate webhook
   etcdserverpb.KV/Txn apiserver
     etcdserverpb.KV/Txn etcd"""
R26 = """\
*KubernetesAPI apiserver
   authentication apiserver
     Create apiserver >
       Call mutating webhook apiserver
         HTTP POST apiserver
           POST /mutate webhook >
             decide webhook
       Create etcd3 apiserver
         etcdserverpb.KV/Txn apiserver
           etcdserverpb.KV/Txn etcd
     SerializeObject apiserver >"""
R33 = """\
*POST /api/v1/namespaces/{:namespace}/pods apiserver
   Create apiserver >
     Create etcd3 apiserver
       etcdserverpb.KV/Txn apiserver
         etcdserverpb.KV/Txn etcd
     SerializeObject apiserver"""
R33_PRIVILEGED = " authentication apiserver\n" + "\n".join(
    "  " + line + " >" * (line[0] == "*") for line in R33.splitlines()
)
R34 = """\
*POST /api/v1/namespaces/{:namespace}/pods apiserver
   audit apiserver
     impersonation apiserver
       priorityandfairness apiserver
         authorization apiserver
           Create apiserver
             Call validating webhook apiserver
               HTTP POST apiserver
                 POST webhook >
             Create etcd3 apiserver
               etcdserverpb.KV/Txn apiserver
                 etcdserverpb.KV/Txn etcd
             SerializeObject apiserver"""
R34_PRIVILEGED = " authentication apiserver\n" + "\n".join("  " + line for line in R34.splitlines())
WATCH = """\
*WatchList apiserver ?
   cacher.Watch apiserver
   WatchServer.HandleHTTP apiserver"""
FORCED = """\
*GET /api/v1/nodes apiserver ?
   audit apiserver"""


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        (shapes.release_1_22, R22),
        (shapes.release_1_26, R26),
        (shapes.release_1_33, R33),
        (partial(shapes.release_1_33, privileged=True), R33_PRIVILEGED),
        (partial(shapes.release_1_34, privileged=False), R34),
        (partial(shapes.release_1_34, privileged=True), R34_PRIVILEGED),
        (shapes.watch_1_36, WATCH),
        (shapes.forced, FORCED),
    ],
    ids=["1.22", "1.26", "1.33", "1.33 privileged", "1.34", "1.34 privileged", "open watch", "forced"],
)
def test_shape_of_release(release: Callable[[Recorder], None], expected: str) -> None:
    rec = Recorder()
    release(rec)
    assert drawn(trace_of(rec)) == expected
    order = list(range(len(rec.spans)))
    for seed in range(5):
        random.Random(seed).shuffle(order)
        assert drawn(trace_of(rec, order=order)) == expected
    assert drawn(trace_of(rec, order=order + order)) == expected  # all sent twice


@pytest.mark.parametrize("release", [shapes.release_1_33, partial(shapes.release_1_34, privileged=False)])
def test_lone_authentication_is_a_trace_of_its_own(release: Callable[[Recorder], None]) -> None:
    rec = Recorder()
    release(rec)
    assert drawn(trace_of(rec, "lone")) == "*authentication apiserver"


def test_late_parents_take_their_children_back() -> None:
    rec = Recorder()
    shapes.release_1_34(rec, privileged=True)
    count = len(rec.spans)
    for known in range(1, count + 1):  # exporters send children first
        trace = trace_of(rec, order=list(range(count))[::-1][:known])
        assert len(list(walk(trace))) == known
        orphans = [root for root in trace.roots if Oddity.ORPHAN in root.oddities]
        assert trace.missing == len({root.span.parent_id for root in orphans})
    assert drawn(trace) == R34_PRIVILEGED


def test_a_webhook_is_known_before_its_call_has_come() -> None:
    rec = Recorder()
    shapes.release_1_26(rec)
    names = [span.name for *_, span in rec.spans]
    order = [i for i, name in enumerate(names) if name not in ("Call mutating webhook", "Create")]
    trace = trace_of(rec, order=order)
    assert [n.span.name for n in walk(trace) if n.span.component is Component.WEBHOOK] == ["POST /mutate", "decide"]


def test_an_aggregated_api_is_no_webhook_and_its_request_not_the_headline() -> None:
    rec = Recorder()
    server = rec.span("GET", shapes.SERVER, scope=shapes.HTTP, ms=9)
    proxy = rec.span("HTTP GET", shapes.CLIENT, server, scope=shapes.HTTP, at=1, ms=7)
    rec.span("GET", shapes.SERVER, proxy, instance="apiserver-b", scope=shapes.HTTP, at=2, ms=5)
    post = rec.span("HTTP POST", shapes.CLIENT, server, scope=shapes.HTTP, at=8, ms=0.5)
    rec.span("POST", shapes.SERVER, post, service="metrics", at=8, ms=0.5, scope="")
    assert drawn(trace_of(rec)) == (
        "*GET apiserver\n   HTTP GET apiserver\n     GET apiserver\n   HTTP POST apiserver\n     POST other"
    )


def test_a_webhook_that_calls_back_is_recognised_wherever_it_appears() -> None:
    rec = Recorder()
    create = rec.span("Create", ms=20)
    hook = rec.span("Call mutating webhook", parent=create, at=1, ms=9)
    post = rec.span("HTTP POST", shapes.CLIENT, hook, scope=shapes.HTTP, at=1, ms=9)
    rec.span("POST", shapes.SERVER, post, service="injector", scope="", at=2, ms=7)
    rec.span("audit log", parent=create, service="injector", instance="other", scope="", at=12, ms=1)
    rec.span("unrelated", parent=create, service="app", scope="", at=13, ms=1)
    found = {n.span.name: n.span.component for n in walk(trace_of(rec))}
    assert found["POST"] is found["audit log"] is Component.WEBHOOK
    assert found["unrelated"] is Component.OTHER


def test_a_webhook_without_a_service_name_ends_with_its_resource() -> None:
    rec = Recorder()
    hook = rec.span("Call mutating webhook", ms=9)
    post = rec.span("HTTP POST", shapes.CLIENT, hook, scope=shapes.HTTP, ms=9)
    served = rec.span("POST", shapes.SERVER, post, service="", instance="x", scope="", at=2, ms=7)
    inner = rec.span("decide", parent=served, service="", instance="x", scope="", at=3, ms=2)
    rec.span("elsewhere", parent=inner, service="", instance="y", scope="", at=3, ms=1)
    found = {n.span.name: n.span.component for n in walk(trace_of(rec))}
    assert found["POST"] is found["decide"] is Component.WEBHOOK
    assert found["elsewhere"] is Component.OTHER


# --- anything -------------------------------------------------------------------------------------
def span(
    number: int, parent: int | None, start: int, end: int, *, request: bool = False, status: int = 0, row: int = 0
) -> Span:
    return Span(
        trace_id="0" * 31 + "1",
        span_id=f"{number:016x}",
        parent_id="" if parent is None else f"{parent:016x}",
        name=f"span {number}",
        kind=Kind.SERVER if request else Kind.INTERNAL,
        start=start,
        end=end,
        status=status,
        service="apiserver",
        instance="a",
        component=Component.APISERVER,
        source="local",
        chunk=1,
        row=row,
        request=request,
    )


def built(spans: list[Span]) -> Trace:
    trace = build(spans, settled=Settled.SETTLED, missing=0)
    self_times(trace)
    return trace


TIMES = st.sampled_from([0, 1, 2, 5, 9, 10, 11, 50, (1 << 63) - 1])
SPANS = st.lists(
    st.builds(
        span,
        st.integers(1, 12),
        st.none() | st.integers(1, 16),
        TIMES,
        TIMES,
        request=st.booleans(),
        status=st.integers(0, 2),
        row=st.integers(0, 3),
    ),
    max_size=24,
)


def outline(node: Node) -> object:
    return (node.span, node.depth, node.oddities, node.self_ns, [outline(child) for child in node.children])


@given(SPANS, st.randoms(use_true_random=False))
def test_every_span_is_in_the_tree_once_whatever_is_sent(spans: list[Span], chance: random.Random) -> None:
    trace = built(spans)
    nodes = list(walk(trace))
    assert sorted(map(repr, (node.span for node in nodes))) == sorted(map(repr, spans))
    assert trace.spans == len(spans)
    assert trace.errors == sum(s.status == 2 for s in spans)

    ids = {s.span_id for s in spans}
    for node in nodes:
        parent = node.span.parent_id
        starts = [child.span.start for child in node.children]
        assert starts == sorted(starts)
        assert all(child.depth == node.depth + 1 for child in node.children)
        assert all(child.span.parent_id == node.span.span_id for child in node.children)
        assert (Oddity.ORPHAN in node.oddities) == (parent != "" and parent not in ids)
        assert (Oddity.SELF_PARENT in node.oddities) == (parent == node.span.span_id)
        assert (Oddity.BACKWARDS in node.oddities) == (node.span.end < node.span.start)
        assert (Oddity.ZERO_TIME in node.oddities) == (node.span.start == 0)
        assert (Oddity.FAR_TIME in node.oddities) == (NANOSECOND_MAX in (node.span.start, node.span.end))
        assert 0 <= node.self_ns <= node.span.duration
    for root in trace.roots:
        assert root.depth == 0
        odd = root.oddities & {Oddity.ORPHAN, Oddity.SELF_PARENT, Oddity.CYCLE}
        assert len(odd) == (root.span.parent_id != "")
    assert [r.span.start for r in trace.roots] == sorted(r.span.start for r in trace.roots)
    assert sum(Oddity.DUPLICATE in n.oddities for n in nodes) == len(spans) - len(ids)

    if spans:
        assert trace.headline is not None
        assert any(node is trace.headline for node in nodes)
        assert trace.headline.span.request == any(s.request for s in spans)
        assert trace.end == max(s.end for s in spans)
    shuffled = list(spans)
    chance.shuffle(shuffled)
    again = built(shuffled)
    assert [outline(root) for root in again.roots] == [outline(root) for root in trace.roots]


@given(SPANS)
def test_self_time_is_what_no_child_covers(spans: list[Span]) -> None:
    """Against counting: short times, so that each nanosecond can be looked at."""
    spans = [replace(s, start=min(s.start, 60), end=min(s.end, 60)) for s in spans]
    for node in walk(built(spans)):
        inside = set(range(node.span.start, node.span.end)) if node.span.start else set()
        for child in node.children:
            if child.span.start:
                inside -= set(range(child.span.start, child.span.end))
        assert node.self_ns == len(inside)
        assert covered(node) == node.span.duration - node.self_ns


def test_a_circle_is_cut_at_its_earliest_member() -> None:
    circle = [span(1, 3, 30, 40), span(2, 1, 10, 20), span(3, 2, 20, 30)]
    trace = built([*circle, span(4, 3, 50, 60)])
    assert drawn(trace) == (
        "*span 2 apiserver c\n   span 3 apiserver >\n     span 1 apiserver >\n     span 4 apiserver >"
    )
    trace = built([*circle, span(4, 3, 5, 25)])  # not a member, though it starts before them
    assert [root.span.span_id for root in trace.roots] == [f"{2:016x}"]


def test_the_headline_is_the_outermost_request() -> None:
    inner_first = [span(1, None, 5, 50), span(2, 1, 10, 40, request=True), span(3, 2, 2, 90, request=True)]
    trace = built(inner_first)
    assert trace.headline is not None
    assert trace.headline.span.span_id == f"{2:016x}"
    beside = built([span(1, None, 5, 50), span(2, 1, 10, 40, request=True), span(3, 1, 10, 45, request=True)])
    assert beside.headline is not None
    assert beside.headline.span.span_id == f"{3:016x}"  # the longer of two that start together
    no_time = built([span(1, None, 0, 50, request=True), span(2, None, 10, 45, request=True)])
    assert no_time.headline is not None
    assert no_time.headline.span.span_id == f"{2:016x}"


def test_without_a_request_the_root_is_the_headline_else_the_earliest_orphan() -> None:
    trace = built([span(1, 9, 1, 50), span(2, None, 10, 40), span(3, None, 12, 90)])
    assert trace.headline is not None
    assert trace.headline.span.span_id == f"{2:016x}"
    trace = built([span(1, 9, 5, 50), span(2, 1, 3, 40), span(3, 8, 7, 90)])
    assert trace.headline is not None
    assert trace.headline.span.span_id == f"{1:016x}"


def test_nothing_has_no_headline() -> None:
    trace = built([])
    assert (trace.headline, trace.roots, trace.spans, trace.start, trace.end) == (None, [], 0, 0, 0)


@pytest.mark.parametrize("shape", ["chain", "star", "circle"])
def test_forty_thousand_spans_need_no_recursion_and_no_square(shape: str) -> None:
    count = 40_000
    parent: Callable[[int], int | None] = {
        "chain": lambda i: i - 1 or None,
        "star": lambda i: None if i == 1 else 1,
        "circle": lambda i: i - 1 or count,
    }[shape]
    spans = [span(i, parent(i), i, i + 5, request=True) for i in range(1, count + 1)]
    random.Random(1).shuffle(spans)
    trace = built(spans)
    assert len(list(walk(trace))) == count
    assert len(trace.roots) == 1


def test_times_beyond_what_can_be_shown_are_marked() -> None:
    trace = built(
        [
            span(1, None, 5, 10),
            span(2, 1, 6, NANOSECOND_MAX),
            span(3, 1, NANOSECOND_MAX, NANOSECOND_MAX),
            span(4, 1, 7, NANOSECOND_MAX - 1),
        ]
    )
    assert [int(node.span.span_id, 16) for node in walk(trace) if Oddity.FAR_TIME in node.oddities] == [2, 3]
