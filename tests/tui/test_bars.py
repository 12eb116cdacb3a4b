"""Bars and the axis: cell-exact, never invisible, round ticks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tui.glyphs import ASCII, UNICODE, Glyphs
from tui.widgets.bars import DIM, INK, PAPER, SWAP, TAIL, Bar, draw, label, ruler

GLYPHS = st.sampled_from([UNICODE, ASCII])
PLACES = st.floats(-1e30, 1e30)
NEAR = st.floats(-50, 250)


def text(bar: Bar, width: int = 10, glyphs: Glyphs = UNICODE, fill: str = "█") -> str:
    return "".join(draw(bar, width, fill, glyphs)[0])


@pytest.mark.parametrize(
    ("start", "end", "shown"),
    [
        (0, 10, "██████████"),
        (0, 1.5, "█▌        "),
        (0, 0.125, "▏         "),
        (2, 2, "  ▏       "),  # no duration is still a span
        (2.5, 4, "  ▌█      "),  # the left end is the complement with the colours swapped
        (9.99, 10, "         ▉"),  # swapped: the last eighth
        (2.5, 2.75, "  ▕       "),  # a quarter in its right half: an eighth is nearer than a half
        (2.5, 2.9, "  ▐       "),
        (-5, -1, "‹         "),
        (11, 12, "         ›"),
        (-5, 20, "‹████████›"),
        (10, 10, "         ▉"),  # the last instant is in the window
    ],
)
def test_ends_to_an_eighth(start: float, end: float, shown: str) -> None:
    assert text(Bar(start, end)) == shown


def test_the_left_end_is_swapped() -> None:
    _, paint = draw(Bar(2.5, 4), 6, "█", UNICODE)
    assert list(paint) == [PAPER, PAPER, SWAP, INK, PAPER, PAPER]


@given(
    PLACES, PLACES, st.integers(1, 120), GLYPHS, st.booleans(), st.none() | PLACES, st.lists(NEAR, max_size=5),
    st.none() | st.tuples(PLACES, PLACES),
)  # fmt: skip
def test_always_as_many_cells_as_asked_and_never_invisible(
    start: float, end: float, width: int, glyphs: Glyphs, thin: bool, tail: float | None, ticks: list[float],
    part: tuple[float, float] | None,
) -> None:  # fmt: skip
    bar = Bar(start, max(start, end), tail, thin, [(start, end)], ticks, part)
    cells, paint = draw(bar, width, "#" if glyphs.ascii else "█", glyphs)
    assert len(cells) == len(paint) == width
    assert all(cell_len(cell) == 1 for cell in cells)
    assert any(paint)
    if glyphs.ascii:
        assert "".join(cells).isascii()


@given(NEAR, st.floats(0, 300), st.integers(1, 120), GLYPHS)
def test_a_bar_covers_its_time_and_no_more(start: float, length: float, width: int, glyphs: Glyphs) -> None:
    _, paint = draw(Bar(start, start + length), width, "#", glyphs)
    for at, painted in enumerate(paint):
        if painted in (INK, SWAP):
            assert at + 1 >= start - 0.13
            assert at <= max(start + length, start + 0.13) + 0.13
        elif painted == PAPER:
            assert at + 1 <= start + 0.13 or at + 0.13 >= start + length - 0.13


def test_thin_lines_tails_and_events() -> None:
    assert text(Bar(0, 10, thin=True)) == "├────────┤"
    assert text(Bar(0, 10, thin=True, own=[(4, 7)])) == "├───━━━──┤"
    assert text(Bar(3, 3.5, thin=True)) == "   ▌      "
    assert text(Bar(0, 10, tail=6)) == "██████▒▒▒›"
    assert draw(Bar(0, 10, tail=6), 10, "█", UNICODE)[1][6:] == bytes([TAIL] * 4)
    assert text(Bar(2, 2.4, tail=2.1)) == "  ▍›      "
    assert text(Bar(0, 10, ticks=[0, 3, 3.9, 5, 9.9, 40])) == "███╵█╵████"
    assert text(Bar(0, 10, thin=True, ticks=[3])) == "├──┴─────┤"
    assert text(Bar(-9, -1))[0] == "‹"
    assert draw(Bar(-9, -1), 4, "█", UNICODE)[1][0] == DIM
    assert text(Bar(0, 10, tail=6, ticks=[3]), glyphs=ASCII, fill="#") == "###'##%%%>"
    assert text(Bar(0, 10, thin=True, own=[(4, 7)]), glyphs=ASCII) == "|---===--|"


def test_the_part_that_is_looked_at_is_solid_and_the_rest_thin() -> None:
    assert text(Bar(0, 10, part=(4, 7))) == "├───███──┤"
    assert text(Bar(0, 10, thin=True, own=[(0, 4)], part=(8, 8.01))) == "├━━━────█┤"
    assert text(Bar(0, 10, part=(10, 10))) == "├────────█", "at least a cell"
    assert text(Bar(0, 10, tail=6, part=(0, 6))) == "██████▒▒▒›"
    assert text(Bar(-20, 10, part=(-9, -3))) == "‹────────┤", "it is not in the window"
    assert text(Bar(3, 3.5, part=(3, 3.5))) == "   ▌      "
    assert text(Bar(0, 10, part=(4, 7)), glyphs=ASCII, fill="#") == "|---###--|"


@given(st.integers(0, 1 << 62), st.integers(1, 1 << 62), st.integers(1, 200))
def test_ticks_are_in_order_and_apart(begin: int, span: int, width: int) -> None:
    free = 0
    for cell, words in ruler(begin, begin + span, width):
        assert cell >= free
        free = cell + len(words) + 2
        assert cell + len(words) <= width


@pytest.mark.parametrize(
    ("begin", "end", "width", "labels"),
    [
        (0, 2_530_000_000, 80, ["0", "0.5 s", "1.0 s", "1.5 s", "2.0 s"]),
        (0, 2_700_000_000, 80, ["0", "0.5 s", "1.0 s", "1.5 s", "2.0 s", "2.5 s"]),
        (0, 4_000_000, 30, ["0", "1 ms", "2 ms", "3 ms"]),
        (1_516_000_000, 1_517_000_000, 80, ["1,516.0 ms", "1,516.2 ms", "1,516.4 ms", "1,516.6 ms", "1,516.8 ms"]),
        (0, 3_600_000_000_000, 60, ["0", "1,000 s", "2,000 s", "3,000 s"]),
        (0, 1, 40, ["0"]),
    ],
)
def test_round_labels(begin: int, end: int, width: int, labels: list[str]) -> None:
    assert [words for _, words in ruler(begin, end, width)] == labels


def test_a_label_has_the_decimals_of_its_step() -> None:
    assert label(500_000_000, 500_000_000, 2_500_000_000) == "0.5 s"
    assert label(20_000, 5_000, 900_000) == "0.020 ms"
