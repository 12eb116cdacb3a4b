"""Help: every key that is live on the screen it was called from, and every command."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from textual.binding import ActiveBinding
from textual.widget import Widget

from receiver.traces.query import NOISE
from tui.commands import Command
from tui.feed import Snapshot
from tui.keys import key_name
from tui.screens.frame import FrameScreen
from tui.terminal_text import fit, width_of
from tui.widgets.keyline import Live, live_keys
from tui.widgets.line import Part
from tui.widgets.status import wrap_words
from tui.widgets.table import Sheet, VirtualTable

_AREAS = {
    "requests": "Requests",
    "trace": "Trace",
    "receiver": "Receiver",
    "hotspots": "Hot spots",
    "picture": "Latency over time",
    "compare": "Compare",
    "clusters": "Clusters",
    "raw": "OTLP JSON",
    "list": "Moving",
    "app": "Everywhere",
}
_SAYS = 56
"""Cells of the column that says what a key does, where there is room: ids stand close enough to be read with it."""


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
        self._made: object = None
        self._version = 0

    def body(self) -> Iterable[Widget]:
        """The list of keys."""
        yield Sheet()

    def on_mount(self) -> None:
        """Textual's event."""
        super().on_mount()
        for sheet in self.query(Sheet):  # none when the app ends while the screen opens
            sheet.focus()

    def update(self, snapshot: Snapshot) -> None:
        """Nothing here changes by itself, but the width may."""
        made = (self.size.width, self._version)
        if made == self._made:
            return
        self._made = made
        self.title_parts(
            [("Help", self.palette.title), ("  keys here with their ids for keymap, and commands", self.palette.dim)]
        )
        table = self.query_one(Sheet)
        table.source = Lines(self._lines(), self._version)
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
        self._version += 1
        self.query_one(Sheet).repaint()

    def _lines(self) -> list[list[Part]]:
        p = self.palette
        areas: dict[str, list[Live]] = {}
        for live in self._keys:
            areas.setdefault(live.id.partition(".")[0], []).append(live)
        left = max((width_of(self._written(live)) for live in self._keys), default=8)
        right = max((width_of(live.id) for live in self._keys), default=8)
        lines: list[list[Part]] = []
        for area in sorted(areas, key=_rank):
            lines.append([(f" {_AREAS.get(area, area.capitalize())}", p.title)])
            for live in areas[area]:
                lines += self._entry(self._written(live), left, live.says, live.id, right)
            lines.append([])
        lines.append([(" Commands", p.title)])
        said = "Behind : with Tab to complete. Every key above is one too, by the last part of its id."
        lines += [[(f"   {line}", p.dim)] for line in wrap_words(said, self.size.width - 4, 4)]
        written = [f"{command.name} {command.argument}".rstrip() for command in self._commands]
        also = [f"also {', '.join(command.aliases)}" if command.aliases else "" for command in self._commands]
        third = self.size.width // 3
        left = max((cells for cells in map(width_of, written) if cells <= third), default=0)
        right = max(map(width_of, also), default=0)
        for command, name, others in zip(self._commands, written, also, strict=True):
            lines += self._entry(name, left, command.says, others, right)
        lines += [[], [(" Noise", p.title)]]
        said = "Hidden in Requests until it is asked for; never what failed, or was answered with 5xx."
        lines += [[(f"   {line}", p.dim)] for line in wrap_words(said, self.size.width - 4, 4)]
        for kind in NOISE:
            lines += self._entry(kind.name, left, kind.says, "", 0)
        return lines

    def _entry(self, key: str, left: int, says: str, tail: str, right: int) -> list[list[Part]]:
        """A key or command, what it does, and an id or aliases in a column of their own; on lines of their own where
        there is no room beside each other, so that nothing is ever cut."""
        p = self.palette
        left = min(left, self.size.width // 3)
        room = max(16, self.size.width - left - 6)
        column = min(_SAYS, max(0, room - right - 2))
        first, *more = (line.strip() for line in wrap_words(says, room, 4))
        lines: list[list[Part]] = []
        if width_of(key) > left:
            lines += [[(f"   {line}", p.key)] for line in wrap_words(key, self.size.width - 4, 4)]
            key = ""
        lines.append([(f"   {fit(key, left)}  ", p.key), (first, p.base)])
        lines += [[(" " * (left + 5), p.base), (line, p.base)] for line in more]
        if tail and not more and width_of(first) + 2 + width_of(tail) <= room:
            lines[-1] += [(" " * (max(column, width_of(first)) - width_of(first) + 2), p.base), (tail, p.dim)]
        elif tail:
            indent = max(0, min(left + column + 7, self.size.width - width_of(tail) - 1))
            lines.append([(" " * indent, p.base), (tail, p.dim)])
        return lines

    def _written(self, live: Live) -> str:
        return " ".join(key_name(key, not self.glyphs.ascii) for key in live.keys)


def _rank(area: str) -> int:
    """The screen in front comes first, what works everywhere last."""
    return ("list", "app").index(area) if area in ("list", "app") else -1
