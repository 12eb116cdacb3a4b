"""Latency over time, as a picture's data: how many traces fall on each dot of a grid of time and log duration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.index import Index
from receiver.traces.facets import reading
from receiver.traces.hotspots import understood

Array = npt.NDArray[Any]

ACROSS: Final = 2
DOWN: Final = 4
"""Dots of a cell, as braille has them."""
MOST: Final = 2_000
"""Cells of a side, at most."""
_LOWEST: Final = 4  # powers of ten of ns: 10 us to 3 h
_HIGHEST: Final = 13
_DECADES: Final = 2
# bits of braille (U+2800 and on) by dot: down, across
_BITS: Final = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Dots:
    """`counts` and `errors` (of `View.errors_only`) have a row for each dot down, the longest on top, and a column for
    each dot across, the oldest left. `start` to `end` are ns since the epoch, `low` to `high` ns of duration: shorter
    and longer ones lie on the border."""

    width: int
    height: int
    start: int
    end: int
    low: int
    high: int
    counts: Array
    errors: Array

    def braille(self) -> list[str]:
        """A line of text for each row of cells."""
        lit = (self.counts > 0).reshape(self.height, DOWN, self.width, ACROSS)
        bits = (lit * _BITS[None, :, None, :]).sum(axis=(1, 3), dtype=np.uint16)
        return ["".join(chr(0x2800 + cell) for cell in row) for row in bits.tolist()]

    def cells(self) -> Array:
        """How many traces fall on each cell."""
        found: Array = self.counts.reshape(self.height, DOWN, self.width, ACROSS).sum(axis=(1, 3))
        return found

    def error_cells(self) -> Array:
        """How many failed ones fall on each cell."""
        found: Array = self.errors.reshape(self.height, DOWN, self.width, ACROSS).sum(axis=(1, 3))
        return found

    def time_at(self, cell: int) -> int:
        """When the column of a cell begins, in ns since the epoch; `width` gives the end."""
        return self.start + cell * ACROSS * _step(self.start, self.end, self.width * ACROSS)

    def duration_at(self, cell: int) -> int:
        """The duration at the upper edge of a row of cells, in ns; `height` gives the lower end."""
        span = math.log(self.high) - math.log(self.low)
        return round(math.exp(math.log(self.high) - span * cell / self.height))


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """What lies within some columns of cells: exactly these `slots`. A list that is to show them takes `window_ns`,
    which reaches from there until now, and `filter` besides, which ends it; "" where the filter language has no age,
    or where the window ends now."""

    slots: Array
    start: int
    end: int
    window_ns: int
    filter: str


def dots(
    index: Index, slots: Array, width: int, height: int, start: int, end: int, scale: tuple[int, int] | None = None
) -> Dots:
    """The picture of these traces in so many cells, without those that are asked to last. For any thread, not under the
    index's lock; some 5 ms for 100,000 traces.

    Args:
        start, end: when it begins and ends, in ns since the epoch; what began before or after is left out.
        scale: lowest and highest duration; None takes powers of ten around what is there.
    """
    width, height = min(max(1, width), MOST), min(max(1, height), MOST)
    end = max(end, start + 1)
    when, duration, wrong, _ = _shown(index, np.asarray(slots, np.int64), start, end)
    low, high = scale if scale is not None else _decades(duration)
    low, high = max(1, low), max(2, low + 1, high)
    across, down = width * ACROSS, height * DOWN
    column = _columns(when, start, end, across)
    part = (np.log(high) - np.log(np.maximum(duration, 1))) / (np.log(high) - np.log(low))
    row = np.clip((part * down).astype(np.int64), 0, down - 1)
    place = row * across + column
    counts = np.bincount(place, minlength=down * across).reshape(down, across)
    errors = np.bincount(place[wrong], minlength=down * across).reshape(down, across)
    return Dots(width, height, start, end, low, high, counts, errors)


def extent(index: Index, slots: Array) -> tuple[int, int] | None:
    """When these traces began, from the first to the last, in ns since the epoch; None where there are none. Few that
    lie far before all others (one in a hundred, from a host whose clock is wrong) are left out."""
    with reading(index) as facets:
        when = facets.column("when")[facets.rows(np.asarray(slots, np.int64))]
    if not len(when):
        return None
    first, early, last = int(when.min()), int(np.percentile(when, 1)), int(when.max())
    if last - first > 2 * (last - early):
        first = early
    return first, max(last + 1, first + 1_000_000_000)


def chosen(index: Index, slots: Array, picture: Dots, first: int, last: int, now: int) -> Chosen:
    """What of these traces lies in the columns of cells `first` to `last`, both included."""
    first, last = min(first, last), max(first, last)
    first, last = max(0, first), min(picture.width - 1, last)
    when, _, _, shown = _shown(index, np.asarray(slots, np.int64), picture.start, picture.end)
    cell = _columns(when, picture.start, picture.end, picture.width * ACROSS) // ACROSS
    start, end = picture.time_at(first), picture.time_at(last + 1)
    words = f"age>={max(0, now - end) // 1_000_000_000}s"
    needed = last + 1 < picture.width and understood(words)
    inside = (cell >= first) & (cell <= last)
    return Chosen(shown[inside], start, end, max(1, now - start), words if needed else "")


def _columns(when: Array, start: int, end: int, across: int) -> Array:
    """The column of each. In whole numbers: nanoseconds of today need 61 bits, a float has 53."""
    found: Array = (when - start) // _step(start, end, across)
    return found


def _step(start: int, end: int, across: int) -> int:
    """Nanoseconds of a column of dots."""
    return -(-(end - start) // across)


def _shown(index: Index, slots: Array, start: int, end: int) -> tuple[Array, Array, Array, Array]:
    """(when, duration, whether it failed, slot) of the traces that a picture shows."""
    with reading(index) as facets:
        rows = facets.rows(slots)
        when, shape = facets.column("when")[rows], facets.column("shape")[rows]
        kept = (when >= start) & (when < end)
        if len(facets.lasting()):
            kept &= ~((shape >= 0) & facets.lasting()[shape])
        rows = rows[kept]
        return when[kept], facets.column("duration")[rows], facets.column("wrong")[rows], slots[kept]


def _decades(duration: Array) -> tuple[int, int]:
    if not len(duration):
        return 10**5, 10**9
    low = min(max(math.floor(math.log10(max(1, int(duration.min())))), _LOWEST), _HIGHEST - _DECADES)
    high = min(max(math.ceil(math.log10(max(1, int(duration.max())))), low + _DECADES), _HIGHEST)
    return 10**low, 10**high
