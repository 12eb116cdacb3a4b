"""Lines to read on a screen of their own: a node whole, or a diff."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from textual.widget import Widget

from tui.feed import Snapshot
from tui.screens.frame import FrameScreen
from tui.screens.help import Lines
from tui.terminal_text import printable
from tui.widgets.line import Part
from tui.widgets.table import Sheet, VirtualTable


class SheetScreen(FrameScreen):
    """A title and lines that scroll."""

    PLACE = "sheet"

    def __init__(self, title: str, what: str, make: Callable[[int], Sequence[Sequence[Part]]]) -> None:
        """
        Args:
            title: its name.
            what: a few words on what it shows.
            make: the lines for a width; printable.
        """
        super().__init__()
        self._heading, self._what = printable(title, 200), printable(what, 200)
        self._make = make
        self._made: object = None
        self._version = 0

    def body(self) -> Iterable[Widget]:
        """The lines."""
        yield Sheet()

    def on_mount(self) -> None:
        """Textual's event."""
        super().on_mount()
        for sheet in self.query(Sheet):
            sheet.focus()

    def update(self, snapshot: Snapshot) -> None:
        """Nothing here changes by itself, but the width may."""
        made = (self.size.width, self._version)
        if made == self._made:
            return
        self._made = made
        self.title_parts([(self._heading, self.palette.title), (f"  {self._what}", self.palette.dim)])
        sheet = self.query_one(Sheet)
        sheet.source = Lines(list(self._make(self.size.width)), self._version)
        sheet.sync()
        self._hint()

    def repaint(self) -> None:
        """Other colours."""
        self._version += 1
        self.query_one(Sheet).repaint()

    def on_virtual_table_moved(self, event: VirtualTable.Moved) -> None:
        """The list's message."""
        event.stop()
        self._hint()

    def _hint(self) -> None:
        self.hint_parts([], self.more_lines(self.query_one(Sheet).below))
