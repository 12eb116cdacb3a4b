"""Folding hides no time, no failure, no headline and no outlier, and loses no span."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from receiver.traces.folding import MIN_RUN, Chain, Folding, Run
from receiver.traces.model import Node, Trace
from receiver.traces.reader import load
from tests.receiver.traces import shapes
from tests.receiver.traces.shapes import MS, SERVER, T0, Recorder


def tree(rec: Recorder) -> Trace:
    trace = load(rec.index(), rec.trace_id(), T0, live=False)
    assert trace is not None
    return trace


def test_the_filter_chain_is_one_line_with_its_own_time_and_the_work_stands_beside_it() -> None:
    rec = Recorder()
    shapes.release_1_34(rec, privileged=False)
    trace = tree(rec)
    chain, create = Folding(trace).lines(trace.roots[0].children)
    assert isinstance(chain, Chain)
    assert isinstance(create, Node)
    assert [node.span.name for node in chain.members] == [
        "audit", "impersonation", "priorityandfairness", "authorization",
    ]  # fmt: skip
    assert create.span.name == "Create"
    assert chain.end == create.span.start
    assert all(0 < own <= node.self_ns for own, node in zip(chain.own, chain.members, strict=True))


def of(*lengths: float, failed: int = -1, name: str = "poll") -> list[Node | Chain | Run]:
    rec = Recorder()
    root = rec.span("syncPod", SERVER, ms=10_000)
    for number, length in enumerate(lengths):
        below = rec.span(name, parent=root, at=number, ms=length)
        rec.span("inner", parent=below, at=number, ms=length / 2, status=2 if number == failed else 0)
    trace = tree(rec)
    return Folding(trace).lines(trace.roots[0].children)


def test_like_siblings_are_one_line_and_the_outlier_is_known() -> None:
    (run,) = of(1, 2, 3, 40, 2)
    assert isinstance(run, Run)
    assert (len(run.members), run.total, run.median) == (5, 48 * MS, 2 * MS)
    assert run.outlier is run.longest is run.members[3]
    (even,) = of(1, 2, 3, 2)
    assert isinstance(even, Run)
    assert even.outlier is None
    assert even.longest is even.members[2]


def test_few_siblings_stay_as_they_are_and_neither_a_failure_nor_a_webhook_is_folded() -> None:
    assert all(isinstance(line, Node) for line in of(1, 2, 3))
    first, apart, second = of(*[1] * 9, failed=4)
    assert isinstance(first, Run)
    assert isinstance(apart, Node), "it holds a span that failed"
    assert isinstance(second, Run)
    assert len(of(*[1] * 9, name="Call mutating webhook")) == 9, "which webhook is what matters"


def test_the_headline_is_no_member_of_a_run() -> None:
    rec = Recorder()
    for at in range(10):
        rec.span("GET", SERVER, at=at, ms=1, scope=shapes.HTTP, parent=b"12345678")  # one traceparent, many requests
    trace = tree(rec)
    assert trace.headline is not None
    head, run = Folding(trace).lines(trace.roots)
    assert head is trace.headline
    assert isinstance(run, Run)
    assert len(run.members) == 9


@given(st.lists(st.sampled_from(["a", "b", "c", "audit"]), min_size=1, max_size=30), st.integers(0, 40))
def test_a_run_is_a_row_of_neighbours_and_every_span_is_in_one_line(names: list[str], failed: int) -> None:
    rec = Recorder()
    root = rec.span("x", SERVER, ms=100)
    for at, name in enumerate(names):
        rec.span(name, parent=root, at=at, ms=1, status=2 if at == failed else 0)
    trace = tree(rec)
    siblings = trace.roots[0].children
    seen: list[Node] = []
    for line in Folding(trace).lines(siblings):
        assert not isinstance(line, Chain), "no filter is below another"
        if isinstance(line, Run):
            assert len(line.members) >= MIN_RUN
            assert len({node.span.name for node in line.members}) == 1
            assert all(node.span.status != 2 for node in line.members)
            assert line.members[0].span.name != "audit"
            seen += line.members
        else:
            seen.append(line)
    assert seen == siblings
