"""Folds: whatever is folded and opened, lines agree, and what was opened stays open while a trace grows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.traces.tree import walk
from tests.tui.test_outline import SPANS, Spans, line_of, made_of, polls
from tests.tui.traces_for_tests import Made, slow_pod, tree
from tui.widgets.folds import Folds
from tui.widgets.outline import GROUP, Outline, outline


def folds_of(made: Made) -> tuple[Folds, Outline]:
    folds, lines = Folds(), outline(made.trace())
    folds.take(lines)
    return folds, lines


def consistent(folds: Folds) -> None:
    """Each line is shown unless a folded one above hides it; what failed, stands out or is the headline is no part of
    a run that hides it by itself."""
    lines = folds.outline
    assert lines is not None
    assert list(folds.shown) == list(lines.visible(folds.folded))
    for line in range(len(lines)):
        assert folds.is_shown(line) == (line in folds.shown)
        assert folds.shown[folds.index(line)] <= line
    assert all(lines.size[line] > 1 for line in folds.folded)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["fold", "open", "show"]), st.integers(0, 40)),
        st.tuples(st.sampled_from(["level", "all"]), st.sampled_from([0, 1])),
        st.tuples(st.just("grow"), st.integers(1, 30)),
    ),
    max_size=12,
)


@given(SPANS.filter(len), OPERATIONS)
def test_in_any_order_lines_agree_and_all_opened_shows_each_span_once(
    spans: Spans, operations: list[tuple[str, int]]
) -> None:
    made = made_of(spans)
    there = max(1, len(spans) // 2)
    folds = Folds()
    folds.take(outline(tree(made.spans[:there])))
    for what, value in operations:
        lines = folds.outline
        assert lines is not None
        if what == "grow":
            # By span: a line may stand elsewhere when the trace has grown.
            opened = {
                node.span.span_id
                for line in (*lines.chains, *lines.runs)
                if line not in folds.folded
                for node in lines.members(line)
            }
            plain = {lines.id(line) for line in folds.folded if not lines.flags[line] & GROUP}
            there = min(len(spans), there + value)
            lines = outline(tree(made.spans[:there]))
            folds.take(lines)
            for line in (*lines.chains, *lines.runs):
                if any(node.span.span_id in opened for node in lines.members(line)):
                    assert line not in folds.folded, "it was opened"
            for line_id in plain:
                found = lines.find(line_id)
                assert found is not None
                assert found in folds.folded or lines.size[found] == 1, "it was folded"
        elif what == "level":
            folds.level(1 if value else -1)
        elif what == "all":
            folds.all(bool(value))
        elif value < len(lines):
            if what == "show":
                folds.show(value)
                assert folds.is_shown(value)
            else:
                folds.set(value, what == "fold")
                assert (value in folds.folded) == (what == "fold") or lines.size[value] == 1
        consistent(folds)
    folds.all(False)
    lines = folds.outline
    assert lines is not None
    assert list(folds.shown) == list(range(len(lines)))
    shown = [lines.nodes[line].span.span_id for line in folds.shown if not lines.flags[line] & GROUP]
    assert sorted(shown) == sorted(node.span.span_id for node in walk(lines.trace))


def test_chains_and_runs_are_folded_until_they_are_opened() -> None:
    folds, lines = folds_of(polls())
    first, second = lines.runs
    assert folds.folded == {first, second}
    assert folds.show(lines.runs[first].kept) is False, "the outlier is there anyway"
    assert folds.show(first + 1)
    assert folds.folded == {second}
    folds.set(first, True)
    assert folds.folded == {first, second}
    assert folds.index(lines.runs[first].kept + 2) == 1, "what is hidden is found at the line that hides it"


def test_levels_open_chains_and_runs_last_and_fold_past_what_stays() -> None:
    folds, lines = folds_of(polls())
    everything = len(folds.shown)
    folds.level(1)
    assert not folds.folded
    depths = []
    for _ in range(4):
        folds.level(-1)
        depths.append(max(lines.depth[i] for i in folds.shown if not lines.flags[i] & GROUP))
    assert list(folds.shown) == [0]
    folds.all(False)
    assert len(folds.shown) > everything


def test_folding_all_leaves_the_headline() -> None:
    folds, lines = folds_of(slow_pod())
    folds.all(True)
    assert list(folds.shown) == [0, 1]
    folds.level(1)
    assert max(lines.depth[i] for i in folds.shown) == 2
    assert line_of(lines, "Create") in folds.shown


@pytest.mark.parametrize("opened", [True, False])
def test_a_run_that_grows_stays_as_it_was(opened: bool) -> None:
    made = Made()
    root = made("", "sync", 0, 100)
    for at in range(5):
        made(root, "poll", 10 + at, 1)
    folds, lines = folds_of(made)
    if opened:
        folds.set(1, False)
    made(root, "poll", 1, 50)  # before the others, and the longest now
    made(root, "poll", 30, 1)
    lines = outline(made.trace())
    folds.take(lines)
    assert len(lines.members(1)) == 7
    assert (1 in folds.folded) is not opened
    assert lines.find(lines.id(1)) == 1
