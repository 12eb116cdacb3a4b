"""Latency over time: a dot a request, by when it began and how long it took on a logarithmic scale.

Since when something is slow is seen here and not read. A range of time is chosen with the cursor keys.
"""

from __future__ import annotations

from typing import Final

from rich.segment import Segment
from textual.message import Message
from textual.strip import Strip

from receiver.traces.dots import Dots
from tui.keys import bindings
from tui.terminal_text import clock, duration, fit
from tui.widgets.line import LineWidget, Part, strip

LABEL: Final = 9
"""Cells of the scale at the left."""
ROWS: Final = 6
"""Lines of dots; one more holds the times."""


class TimePicture(LineWidget, can_focus=True):
    """The picture of what a list shows. It has the focus while a range is chosen."""

    DEFAULT_CSS = """
    TimePicture { height: 7; width: 1fr; display: none; }
    """
    BINDINGS = bindings("picture")

    class Chosen(Message):
        """Enter: this range of time is wanted, in ns since the epoch."""

        def __init__(self, start: int, end: int) -> None:
            super().__init__()
            self.start, self.end = start, end

    class Left(Message):
        """Escape: no range."""

    def __init__(self, *, utc: bool = False) -> None:
        super().__init__(id="picture")
        self.utc = utc
        self._dots: Dots | None = None
        self._lines: list[str] = []
        self._wrong: list[list[bool]] = []
        self._from = self._to = 0
        """The chosen columns of cells; `_to` is where the cursor is."""

    @property
    def room(self) -> int:
        """Cells across for dots."""
        return max(1, self.size.width - LABEL - 1)

    @property
    def dots(self) -> Dots | None:
        """What is drawn."""
        return self._dots

    def show(self, dots: Dots) -> None:
        """Draw these. The chosen range stays where it is in time, at the right end when there is none yet."""
        old = self._dots
        if old is None:
            self._from = self._to = dots.width - 1
        elif (old.start, old.end, old.width) != (dots.start, dots.end, dots.width):
            step = max(1, dots.time_at(1) - dots.start)
            self._from, self._to = (
                min(max((old.time_at(cell) - dots.start) // step, 0), dots.width - 1) for cell in (self._from, self._to)
            )
        self._dots = dots
        cells = dots.cells()
        if self.glyphs.ascii:
            signs = " .:*#"
            steps = (cells > 0).astype(int) + (cells > 1) + (cells > 4) + (cells > 16)
            self._lines = ["".join(signs[step] for step in row) for row in steps.tolist()]
        else:
            self._lines = dots.braille()
        self._wrong = (dots.error_cells() > 0).tolist()
        self.refresh()

    def draw(self, y: int, width: int) -> Strip:
        """A line of dots, or under them the times."""
        p, dots = self.palette, self._dots
        if dots is None or y > ROWS:
            return Strip.blank(width, p.base)
        if y >= len(self._lines):
            return strip(self._times(dots, width), width, p.base)
        label = duration(dots.duration_at(y)) if y % 2 == 0 else ""
        segments = [Segment(fit(label, LABEL - 1, True) + " ", p.dim)]
        low, high = sorted((self._from, self._to))
        chosen = self.has_focus
        for at, sign in enumerate(self._lines[y]):
            style = p.error if self._wrong[y][at] else p.base
            if chosen and low <= at <= high:
                style = p.on_cursor(style)
                sign = " " if sign == chr(0x2800) else sign
            segments.append(Segment(sign, style))
        used = LABEL + len(self._lines[y])
        return Strip([*segments, Segment(" " * max(0, width - used), p.base)]).adjust_cell_length(width, p.base)

    def _times(self, dots: Dots, width: int) -> list[Part]:
        p = self.palette
        if self.has_focus:
            low, high = sorted((self._from, self._to))
            start, end = dots.time_at(low), dots.time_at(high + 1)
            chosen, hint = (
                f"{clock(start, self.utc)} to {clock(end, self.utc)}",
                "   cursor keys move, with shift widen",
            )
            more = "; enter shows just these"
            hint += more if LABEL + len(chosen + hint + more) < width else ""
            return [(" " * LABEL, p.base), (chosen, p.title), (hint, p.dim)]
        first, last = clock(dots.start, self.utc)[:8], clock(dots.end, self.utc)[:8]
        gap = max(1, width - LABEL - len(first) - len(last) - 1)
        return [(f"{' ' * LABEL}{first}{' ' * gap}{last}", p.dim)]

    def on_focus(self) -> None:
        """Textual's event."""
        self.refresh()

    def on_blur(self) -> None:
        """Textual's event."""
        self.refresh()

    # -- keys -------------------------------------------------------------------------------------------
    def action_move(self, step: int) -> None:
        """The cursor, and with it the range."""
        if self._dots is not None:
            low, high = min(self._from, self._to), max(self._from, self._to)
            step = max(-low, min(step, self._dots.width - 1 - high))
            self._from, self._to = self._from + step, self._to + step
            self.refresh()

    def action_widen(self, step: int) -> None:
        """One end of the range."""
        if self._dots is not None:
            self._to = max(0, min(self._to + step, self._dots.width - 1))
            self.refresh()

    def action_take(self) -> None:
        """Show just these."""
        if self._dots is not None:
            low, high = min(self._from, self._to), max(self._from, self._to)
            self.post_message(self.Chosen(self._dots.time_at(low), self._dots.time_at(high + 1)))

    def action_leave(self) -> None:
        """Back to the list."""
        self.post_message(self.Left())
