"""A bar on the time axis, and the axis itself, in cells. Pure functions: no widget, no colour.

A bar ends on an eighth of a cell: its right end is one of the left blocks U+258F..U+2589 in the bar's colour; its
left end is the complementary block with the colours swapped, because Unicode has no full set of right blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tui.glyphs import Glyphs

PAPER, INK, SWAP, DIM, TAIL = range(5)
"""What a cell of a bar is painted with: nothing, the component's colour, the same with the colours swapped, the dim
style of marks outside a bar, and the part of a bar after its parent's end."""

_RIGHT_SLIVERS: Final = "▐▕"
"""Half and an eighth of a cell at its right edge; there is nothing between."""
_LONGEST: Final = 1 << 20
"""Cells to either side of the window after which a bar's end is no longer looked at."""


@dataclass(frozen=True, slots=True)
class Bar:
    """Where a span is on the axis, in cells from the left end of the window; an end may lie outside."""

    start: float
    end: float
    tail: float | None = None  # where its parent ended, when the span outlives it
    thin: bool = False  # a line: its time passes in the spans below it
    own: Sequence[tuple[float, float]] = ()  # parts of a thin bar that are its own time
    ticks: Iterable[float] = ()  # events
    part: tuple[float, float] | None = None  # what of it is looked at: solid, and all else is a thin line


def draw(bar: Bar, width: int, fill: str, glyphs: Glyphs) -> tuple[list[str], bytearray]:
    """The `width` cells of a bar and what each is painted with.

    A bar in the window is never invisible: it takes at least an eighth of a cell. One that is wholly outside is an
    arrow at that end.
    """
    cells = [" "] * width
    paint = bytearray(width)
    if width <= 0:
        return cells, paint
    start = min(max(bar.start, -_LONGEST), _LONGEST)
    end = min(max(bar.end, start), _LONGEST)
    if end < 0 or start >= width + 1e-9:
        at = 0 if end < 0 else width - 1
        cells[at] = glyphs.before if end < 0 else glyphs.after
        paint[at] = DIM
        return cells, paint
    first, last = min(max(int(start), 0), width - 1), min(max(_ceiling(end) - 1, 0), width - 1)
    last = max(first, last)
    if (bar.thin or bar.part is not None) and last > first:
        _line(bar, cells, paint, first, last, glyphs)
        if bar.part is not None:
            _part(*bar.part, cells, first, last, fill)
    elif glyphs.ascii:
        for at in range(first, last + 1):
            cells[at], paint[at] = fill, INK
    else:
        _blocks(start, end, cells, paint, fill, glyphs)
    if start < 0 and last > first:
        cells[0], paint[0] = glyphs.before, INK
    if end > width + 1e-9 and last > first:
        cells[-1], paint[-1] = glyphs.after, INK
    if bar.tail is not None:
        _tail(bar.tail, cells, paint, first, last, glyphs)
    for tick in bar.ticks:
        at = int(tick)
        # An end keeps its own glyph, so that the length of a bar can still be read.
        if tick >= 0 and first < at < last and paint[at] == INK:
            on_line = cells[at] in (glyphs.line, glyphs.line_own)
            cells[at], paint[at] = (glyphs.event_on_line, INK) if on_line else (glyphs.event, SWAP)
    return cells, paint


def _blocks(start: float, end: float, cells: list[str], paint: bytearray, fill: str, glyphs: Glyphs) -> None:
    """A solid bar, its ends to an eighth of a cell."""
    width = len(cells)
    eighths = glyphs.eighths
    a = min(max(round(start * 8), 0), width * 8)
    b = min(max(round(end * 8), 0), width * 8)
    if b <= a:
        b = min(a + 1, width * 8)
        a = b - 1
    first, skip = divmod(a, 8)
    last, rest = divmod(b, 8)
    if first == last:
        # A sliver that does not touch the left edge cannot be exact: the nearest glyph it is.
        sliver = eighths[max(1, rest - skip)] if skip < 4 else _RIGHT_SLIVERS[0 if rest - skip > 2 else 1]
        cells[first], paint[first] = sliver, INK
        return
    at = first
    if skip:
        cells[at], paint[at] = eighths[skip], SWAP
        at += 1
    for cell in range(at, last):
        cells[cell], paint[cell] = fill, INK
    if rest:
        cells[last], paint[last] = eighths[rest], INK


def _line(bar: Bar, cells: list[str], paint: bytearray, first: int, last: int, glyphs: Glyphs) -> None:
    """A thin bar; what of it is its own time is drawn heavier."""
    for at in range(first, last + 1):
        cells[at], paint[at] = glyphs.line, INK
    for begin, end in bar.own:
        # A cell counts as own time when most of it is.
        for at in range(max(first, int(begin + 0.5)), min(last, int(end + 0.5) - 1) + 1):
            cells[at] = glyphs.line_own
    cells[first], cells[last] = glyphs.line_start, glyphs.line_end


def _part(begin: float, end: float, cells: list[str], first: int, last: int, fill: str) -> None:
    """The solid part of a thin bar: at least a cell of it, if it is in the window."""
    if end < first or begin > last + 1:
        return
    low = min(max(first, int(begin + 0.5)), last)
    high = max(low, min(last, int(end + 0.5) - 1))
    cells[low : high + 1] = fill * (high - low + 1)


def _tail(tail: float, cells: list[str], paint: bytearray, first: int, last: int, glyphs: Glyphs) -> None:
    """The part of a bar after its parent's end, and the mark at the end of that."""
    width = len(cells)
    if last == first:
        if last + 1 < width:
            cells[last + 1], paint[last + 1] = glyphs.outlives, TAIL
        return
    for at in range(max(first, min(last, int(tail + 0.5))), last):
        cells[at], paint[at] = glyphs.outlives_tail, TAIL
    cells[last], paint[last] = glyphs.outlives, TAIL


def _ceiling(value: float) -> int:
    whole = int(value)
    return whole + (1 if value > whole + 1e-9 else 0)


# --- the axis --------------------------------------------------------------------------------------


def step_for(span: int, width: int, apart: int) -> int:
    """The smallest of 1, 2, 5, 10, ... ns such that ticks over `span` ns in `width` cells are `apart` cells apart."""
    least = max(1, span) * max(1, apart) / max(1, width)
    unit = 1
    while unit * 10 <= least:
        unit *= 10
    for times in (1, 2, 5):
        if unit * times >= least:
            return unit * times
    return unit * 10


def label(at: int, step: int, largest: int) -> str:
    """A tick's label: `0`, `0.5 s`, `1,516.2 ms`, with as many decimals as the step needs.

    Args:
        at: the tick, ns from the start of the trace.
        step: ns between two ticks.
        largest: the largest tick in the window: one unit for all of them.
    """
    if at == 0:
        return "0"
    seconds = abs(largest) >= 1_000_000_000 and step >= 10_000_000
    unit = 1_000_000_000 if seconds else 1_000_000
    decimals = 0
    while step * 10**decimals < unit and (step * 10**decimals) % unit:
        decimals += 1
    return f"{at / unit:,.{decimals}f} {'s' if seconds else 'ms'}"


def ruler(begin: int, end: int, width: int) -> list[tuple[int, str]]:
    """Round ticks for a window of the axis: (cell, label), in order, never overlapping, wholly inside.

    Args:
        begin, end: the window, ns from the start of the trace.
        width: its cells.
    """
    span = max(1, end - begin)
    apart = 6
    # Labels far from the start of a long trace are long: look again when they are.
    for _ in range(2):
        step = step_for(span, width, apart)
        apart = max(apart, len(label(end - end % step or step, step, end)) + 3)
    step = step_for(span, width, apart)
    ticks: list[tuple[int, str]] = []
    free = 0
    at = -(-begin // step) * step
    while at <= end:
        cell = int((at - begin) * width / span)
        text = label(at, step, end)
        if cell >= free and cell + len(text) <= width:
            ticks.append((cell, text))
            free = cell + len(text) + 2
        at += step
    return ticks
