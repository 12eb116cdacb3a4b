"""A folding plan hides no time, no failure and no outlier."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from receiver.traces.folding import MIN_RUN, Plan, plan
from receiver.traces.model import Trace
from receiver.traces.reader import load
from tests.receiver.traces import shapes
from tests.receiver.traces.shapes import MS, SERVER, T0, Recorder


def tree(rec: Recorder) -> Trace:
    trace = load(rec.index(), rec.trace_id(), T0, live=False)
    assert trace is not None
    return trace


def test_the_filter_chain_is_one_line_with_its_own_time() -> None:
    rec = Recorder()
    shapes.release_1_34(rec, privileged=False)
    (chain,) = plan(tree(rec)).chains
    assert [node.span.name for node in chain.members] == [
        "audit", "impersonation", "priorityandfairness", "authorization",
    ]  # fmt: skip
    assert [node.span.name for node in chain.inner] == ["Create"]
    assert chain.own == sum(node.self_ns for node in chain.members) > 0


def of(*lengths: float, failed: int = -1) -> Plan:
    rec = Recorder()
    root = rec.span("syncPod", SERVER, ms=10_000)
    for number, length in enumerate(lengths):
        rec.span("poll", parent=root, at=number, ms=length, status=2 if number == failed else 0)
    return plan(tree(rec))


def test_like_siblings_are_one_line_and_the_outlier_stays() -> None:
    (run,) = of(1, 2, 3, 40, 2).runs
    assert (len(run.members), run.total, run.median, run.longest) == (5, 48 * MS, 2 * MS, 40 * MS)
    assert run.outlier is run.members[3]
    (even,) = of(1, 2, 3, 2).runs
    assert even.outlier is None


def test_few_siblings_stay_as_they_are_and_a_failure_is_never_folded() -> None:
    assert of(1, 2, 3).runs == ()
    runs = of(*[1] * 9, failed=4).runs
    assert [len(run.members) for run in runs] == [4, 4]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30))
def test_a_run_is_a_row_of_neighbours(names: list[str]) -> None:
    rec = Recorder()
    root = rec.span("x", SERVER, ms=100)
    for at, name in enumerate(names):
        rec.span(name, parent=root, at=at, ms=1)
    trace = tree(rec)
    siblings = trace.roots[0].children
    for run in plan(trace).runs:
        first = siblings.index(run.members[0])
        assert tuple(siblings[first : first + len(run.members)]) == run.members
        assert len(run.members) >= MIN_RUN
        assert len({node.span.name for node in run.members}) == 1
