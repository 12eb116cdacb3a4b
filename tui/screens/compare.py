"""The Compare screen: one request beside another, or beside what is usual for its like, and what explains it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from textual.widget import Widget

from receiver.traces.comparing import Comparison
from receiver.traces.usual import LEAST
from tui.feed import Snapshot
from tui.keys import bindings
from tui.latest import Latest
from tui.screens.frame import FrameScreen
from tui.screens.help import Lines
from tui.terminal_text import count, duration, fit, printable
from tui.widgets.line import Part
from tui.widgets.status import wrap_words
from tui.widgets.table import Sheet, VirtualTable
from tui.wording import title_of

if TYPE_CHECKING:
    from tui.feed import Compared

_MOST_SPANS: Final = 200
_BAR: Final = 24


class CompareScreen(FrameScreen):
    """Parts and spans side by side, those that explain the difference first."""

    PLACE = "compare"
    BINDINGS = bindings("compare")

    def __init__(self, one: str, other: str = "") -> None:
        """
        Args:
            one: id of the trace in question.
            other: of the one that it is compared with; "" for what is usual.
        """
        super().__init__()
        self._one, self._other = one, other
        self._compared: Compared | None = None
        self._said = "Looking at both of them."
        self._looks = Latest["Compared | None"](self, "compare", self._found, self._failed)
        self._made: object = None
        self._version = 0

    def body(self) -> Iterable[Widget]:
        """Lines to read."""
        yield Sheet()

    def on_mount(self) -> None:
        """Textual's event."""
        super().on_mount()
        self.query_one(Sheet).focus()
        self._looks.ask(lambda: self.feed.compare(self._one, self._other))

    def _found(self, compared: Compared | None) -> None:
        self._compared = compared
        if compared is None:
            self._said = (
                "There is nothing to compare with: one of the traces is not held any more, or holds no request."
                if self._other
                else f"What is usual is not known: fewer than {LEAST} others of its kind are held in this window."
            )
        self._made = None
        self.update(self.feed.snapshot)

    def _failed(self, problem: str) -> None:
        self._said = problem
        self._made = None

    def repaint(self) -> None:
        """Other colours."""
        self._version += 1
        self._made = None
        self.query_one(Sheet).repaint()

    def update(self, snapshot: Snapshot) -> None:
        """Draw again when the width or what is known is another."""
        made = (self.size, self._version, id(self._compared), self._said)
        if made == self._made:
            return
        self._made = made
        sheet = self.query_one(Sheet)
        sheet.source = Lines(self._lines(), self._version)
        sheet.sync()
        self._title()
        self._hint()

    def on_virtual_table_moved(self, event: VirtualTable.Moved) -> None:
        """The list's message."""
        event.stop()
        self._hint()

    def _hint(self) -> None:
        self.hint_parts([], self.more_lines(self.query_one(Sheet).below))

    def _title(self) -> None:
        p, found = self.palette, self._compared
        left: list[Part] = [("Compare", p.title)]
        if found is not None:
            left.append((f"  {printable(title_of(found.one), 60)}", p.base))
            left.append((f"  {duration(found.comparison.one)}", p.base))
            left.append(("  with  ", p.dim))
            if found.usual is not None:
                left.append((f"what is usual (the median of {count(found.usual.count)})", p.base))
            else:
                left.append((printable(title_of(found.other), 60), p.base))
            left.append((f"  {duration(found.comparison.other)}", p.base))
        self.title_parts(left)

    # -- lines ------------------------------------------------------------------------------------------
    def _lines(self) -> list[list[Part]]:
        p, width = self.palette, self.size.width
        found = self._compared
        if found is None:
            return [[], *([(f" {line}", p.base)] for line in wrap_words(printable(self._said), max(20, width - 2), 4))]
        comparison = found.comparison
        lines: list[list[Part]] = [[]]
        lines += [[(f" {line}", p.title)] for line in wrap_words(printable(comparison.sentence), max(20, width - 2), 4)]
        lines += [[], self._head("WHAT THE TIME WAS SPENT ON")]
        largest = max((abs(part.delta) for part in comparison.parts), default=0)
        lines += [self._line(part.name, part.one, part.other, largest) for part in comparison.parts]
        lines += [[], self._head("SPANS, BY WHAT THE REQUEST WAITED FOR EACH ITSELF")]
        lines += self._spans(comparison)
        return lines

    def _spans(self, comparison: Comparison) -> list[list[Part]]:
        p = self.palette
        pairs = comparison.spans[:_MOST_SPANS]
        largest = max((abs(pair.one - pair.other) for pair in pairs), default=0)
        lines = []
        for pair in pairs:
            only = "" if pair.one_id and pair.other_id else " (only here)" if pair.one_id else " (only there)"
            inside = f" in {pair.path[-1]}" if pair.path else ""  # in this order the lines above it say nothing
            lines.append(self._line(pair.name + only, pair.one, pair.other, largest, inside))
        rest = comparison.left_out + len(comparison.spans) - len(pairs)
        if rest:
            lines.append([(f" {count(rest)} more differ less", p.dim)])
        return lines

    def _widths(self) -> tuple[int, int]:
        """Cells for the name and for the bar."""
        rest = self.size.width - 2 - 3 * 12
        bar = _BAR if rest >= 70 else 12 if rest >= 48 else 0
        return max(12, rest - bar - (2 if bar else 0)), bar

    def _head(self, title: str) -> list[Part]:
        name, _ = self._widths()
        other = "USUAL" if self._compared is not None and self._compared.usual is not None else "THE OTHER"
        cells = "".join(fit(text, 12, True) for text in ("THIS", other, "DIFFERENCE"))
        return [(f" {fit(title, name)}{cells}", self.palette.header)]

    def _line(self, name: str, one: int, other: int, largest: int, inside: str = "") -> list[Part]:
        p, g = self.palette, self.glyphs
        room, bar = self._widths()
        delta = one - other
        telling = largest and abs(delta) * 10 >= largest
        style = p.base if telling else p.dim
        sign = "+" if delta > 0 else "-" if delta < 0 else ""
        said = fit(name + inside, room)
        parts: list[Part] = [(f" {said[: len(printable(name))]}", style), (said[len(printable(name)) :], p.dim)]
        for value in (one, other):
            parts.append((fit(duration(value) if value else g.none, 12, True), style if value else p.dim))
        parts.append(
            (fit(f"{sign}{duration(abs(delta))}" if delta else g.none, 12, True), p.title if telling else p.dim)
        )
        if bar and largest:
            filled = round(abs(delta) / largest * bar)
            fill = (g.eighths[-1] if delta > 0 else g.outlives_tail) * filled
            parts.append((f"  {fill}", p.warning if delta > 0 else p.dim))
        return parts

    # -- keys -------------------------------------------------------------------------------------------
    def action_open(self) -> None:
        """The trace in question."""
        self.trace_app.open_trace(self._one)

    def action_other(self) -> None:
        """The one that it is compared with: a typical one where that is what is usual."""
        found = self._compared
        other = self._other or (found.other.trace_id if found is not None else "")
        if other:
            self.trace_app.open_trace(other)
