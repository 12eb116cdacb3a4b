"""A line of the waterfall: as wide as it should be whatever it says, and its marks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from receiver.traces.model import Kind
from tests.tui.test_outline import SPANS, Spans, line_of, made_of, polls
from tests.tui.traces_for_tests import Made, slow_pod, tree
from tui import terminal_text
from tui.glyphs import ASCII, UNICODE, Glyphs
from tui.theming import FALLBACK, palette
from tui.widgets.notes import Note
from tui.widgets.outline import Outline, outline
from tui.widgets.spanline import Columns, SpanLine

PALETTE = palette({**FALLBACK, "foreground": "#ffffff", "background": "#000000", "primary": "#00ffff"})


def drawn(
    lines: Outline,
    line: int,
    width: int = 120,
    glyphs: Glyphs = UNICODE,
    folded: bool = False,
    note: Note | None = None,
    part: tuple[int, int] | None = None,
) -> str:
    window = (lines.trace.start, max(lines.trace.end, lines.trace.start + 1))
    span_line = SpanLine(lines, line, window, folded, False, part, note or Note(), PALETTE, glyphs)
    terminal_text.use_ascii(glyphs.ascii)
    try:
        return span_line.draw(Columns.of(width), width).text
    finally:
        terminal_text.use_ascii(False)


@given(SPANS, st.integers(40, 240), st.sampled_from([UNICODE, ASCII]), st.text(max_size=60), st.booleans())
def test_exactly_as_wide_as_asked(spans: Spans, width: int, glyphs: Glyphs, words: str, folded: bool) -> None:
    lines = outline(made_of(spans).trace())
    part = None
    if lines.path is not None and lines.path.intervals:
        part = (lines.path.intervals[0].start, lines.path.intervals[0].end)
    for line in range(len(lines)):
        text = drawn(lines, line, width, glyphs, folded, Note((words,)), part)
        assert cell_len(text) == width
        if glyphs.ascii:
            assert text.isascii()


def test_what_is_on_the_path_or_hides_some_of_it_is_marked() -> None:
    lines = outline(slow_pod().trace())
    chain = next(iter(lines.chains))
    assert drawn(lines, 0)[1] == " ", "authentication is above the headline"
    assert drawn(lines, 1)[1] == "┃"
    assert drawn(lines, chain, folded=True)[1] == "┃"
    assert drawn(lines, chain)[1] == " ", "opened it hides nothing"
    assert drawn(lines, chain, folded=True, glyphs=ASCII)[1] == "#"
    made = Made()
    root = made("", "Create", 0, 100)
    made(root, "early", 0, 100)
    made(root, "beside", 10, 20)
    lines = outline(made.trace())
    assert [drawn(lines, line)[1] for line in range(3)] == [" ", "┃", " "]


def test_a_run_says_how_long_its_spans_took_before_whose_method_it_is() -> None:
    lines = outline(polls().trace())
    run = next(iter(lines.runs))
    assert "▾ ×5 poll  total, p50 2.00 ms, max 20.0 ms " in drawn(lines, run, 160)
    assert "▾ ×5 poll  max 20.0 ms " in drawn(lines, run, 104)
    assert "- x5 poll  total" in drawn(lines, run, 160, ASCII)
    made = polls()
    name = "runtime.v1.RuntimeService/ContainerStatus"
    lines = outline(tree([replace(span, name=name) if span.name == "poll" else span for span in made.spans]))
    assert f"×5 {name}  max 20.0 ms" in drawn(lines, next(iter(lines.runs)), 220)
    assert "×5 …/ContainerStatus  max 20.0 ms" in drawn(lines, next(iter(lines.runs)), 124)


@pytest.mark.parametrize(("width", "label"), [(220, "aggr. apiserver"), (120, "aggregated"), (80, "aggr"), (60, "")])
def test_whose_work_it_was(width: int, label: str) -> None:
    made = Made()
    root = made("", "GET /apis/metrics.k8s.io/v1beta1/nodes", 0, 10, kind=Kind.SERVER, request=True)
    away = made(root, "HTTP GET", 1, 8, kind=Kind.CLIENT)
    made(away, "GET", 2, 5, kind=Kind.SERVER, request=True)
    lines = outline(tree([*made.spans[:2], replace(made.spans[2], instance="metrics-server")]))
    assert label in drawn(lines, 2, width)
    if width >= 104:
        assert " ⇄ 3.00 ms " in drawn(lines, 1, width)


def test_the_call_and_the_process_of_a_webhook_bear_its_name() -> None:
    made = slow_pod()
    call = next(span for span in made.spans if span.name == "Call mutating webhook")
    lines = outline(made.trace(), {call.span_id: ("label-injector.example.com", "injectors")})
    at = line_of(lines, "Call mutating webhook")
    assert " label-injector " in drawn(lines, at, 160)
    assert " label-injector " in drawn(lines, line_of(lines, "POST /mutate"), 160)
    assert " hook " in drawn(lines, at, 80)
    assert " api " in drawn(lines, line_of(lines, "Call validating webhook"), 80), "not known which"
    assert " label-injector… " in drawn(lines, line_of(lines, "POST /validate"), 160), "its service then, cut"
