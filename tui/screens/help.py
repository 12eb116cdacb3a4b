"""Help: every key that is live on the screen it was called from, and every command."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from textual.binding import ActiveBinding
from textual.widget import Widget

from tui.commands import Command
from tui.feed import Snapshot
from tui.keys import key_name
from tui.screens.frame import FrameScreen
from tui.terminal_text import fit
from tui.widgets.keyline import Live, live_keys
from tui.widgets.line import Part
from tui.widgets.table import Sheet, VirtualTable

_AREAS = {
    "requests": "Requests",
    "trace": "Trace",
    "receiver": "Receiver",
    "raw": "OTLP JSON",
    "list": "Moving",
    "app": "Everywhere",
}


class Lines:
    """Finished lines as a source for the table."""

    def __init__(self, lines: Sequence[Sequence[Part]], version: int = 0) -> None:
        self._lines, self._version = lines, version

    def __len__(self) -> int:
        return len(self._lines)

    def identity(self, index: int) -> Hashable:
        """The place: these lines do not move."""
        return index

    def key(self, index: int) -> Hashable:
        """Place, text and looks."""
        return index, self._version, tuple(self._lines[index])

    def find(self, identity: Hashable) -> int | None:
        """The place again."""
        return identity if isinstance(identity, int) and identity < len(self._lines) else None

    def lines(self, indexes: Sequence[int], width: int) -> Sequence[Sequence[Part]]:
        """The lines."""
        return [self._lines[index] for index in indexes]

    def header(self, width: int) -> Sequence[Part]:
        """None."""
        return ()


class HelpScreen(FrameScreen):
    """`?`."""

    PLACE = "help"

    def __init__(self, bindings: Sequence[ActiveBinding], commands: Sequence[Command]) -> None:
        """Keys as they are now, so that a remapped one is shown as it is."""
        super().__init__()
        self._keys = live_keys(active.binding for active in bindings if active.enabled)
        self._commands = commands

    def body(self) -> Iterable[Widget]:
        """The list of keys."""
        yield Sheet()

    def on_mount(self) -> None:
        """Textual's event."""
        super().on_mount()
        for sheet in self.query(Sheet):  # none when the app ends while the screen opens
            sheet.focus()

    def update(self, snapshot: Snapshot) -> None:
        """Nothing here changes by itself."""
        self.title_parts([("Help", self.palette.title), ("  keys that work here, and commands", self.palette.dim)])
        table = self.query_one(Sheet)
        table.source = Lines(self._lines())
        table.sync()
        self._hint()

    def on_virtual_table_moved(self, event: VirtualTable.Moved) -> None:
        """The list's message."""
        event.stop()
        self._hint()

    def _hint(self) -> None:
        self.hint_parts([], self.more_lines(self.query_one(Sheet).below))

    def repaint(self) -> None:
        """Other colours."""
        self.query_one(Sheet).repaint()

    def _lines(self) -> list[list[Part]]:
        p = self.palette
        width = max((len(self._written(live)) for live in self._keys), default=8) + 2
        lines: list[list[Part]] = []
        areas: dict[str, list[Live]] = {}
        for live in self._keys:
            areas.setdefault(live.id.partition(".")[0], []).append(live)
        for area in sorted(areas, key=lambda area: list(_AREAS).index(area)):
            lines.append([(f" {_AREAS[area]}", p.title)])
            for live in areas[area]:
                name = live.id if self.size.width >= 100 else ""
                lines.append(
                    [
                        ("   " + fit(self._written(live), width), p.key),
                        (fit(live.says, 56) if name else live.says, p.base),
                        (name, p.dim),
                    ]
                )
            lines.append([])
        said = "  behind : with Tab to complete; and every key above by the last part of its id"
        lines.append([(" Commands", p.title), (said, p.dim)])
        for command in self._commands:
            written = f"{command.name} {command.argument}".strip()
            also = f"  also {', '.join(command.aliases)}" if command.aliases else ""
            lines.append([("   " + fit(written, 30), p.key), (command.says, p.base), (also, p.dim)])
        return lines

    def _written(self, live: Live) -> str:
        return " ".join(key_name(key, not self.glyphs.ascii) for key in live.keys)
