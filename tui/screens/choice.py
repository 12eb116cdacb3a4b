"""A small choice at the bottom of the screen: which of several things to copy, which linked trace to open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import ModalScreen
from textual.strip import Strip

from tui.keys import bindings, key_name, quit_binding
from tui.terminal_text import fit
from tui.widgets.line import LineWidget, Part, strip

MOST_OPTIONS: Final = 9
"""Options of one choice; more are left out."""


@dataclass(frozen=True, slots=True)
class Option:
    """One thing to choose: its letter, what it is, and what it looks like."""

    letter: str
    what: str
    preview: str


class ChoiceLines(LineWidget, can_focus=True):
    """The options, one a line, under a rule with the question."""

    DEFAULT_CSS = """
    ChoiceLines { dock: bottom; width: 100%; }
    """

    def __init__(self, question: str, options: Sequence[Option]) -> None:
        super().__init__()
        self.question = question
        self.options = options
        self.cursor = 0

    def on_mount(self) -> None:
        """Textual's event."""
        self.styles.height = len(self.options) + 2

    def draw(self, y: int, width: int) -> Strip:
        """The question, an option, or the keys."""
        palette, glyphs = self.palette, self.glyphs
        if y == 0:
            rest = glyphs.rule * max(0, width - len(self.question) - 3)
            parts: list[Part] = [(f"{glyphs.rule} ", palette.rule), (self.question, palette.title)]
            return strip([*parts, (f" {rest}", palette.rule)], width, palette.base)
        if y > len(self.options):
            return strip(self._keys(), width, palette.base)
        option, selected = self.options[y - 1], y - 1 == self.cursor
        look = palette.on_cursor if selected else (lambda style: style)
        base = look(palette.base)
        what = max(len(each.what) for each in self.options)
        lead = [(glyphs.cursor if selected else " ", look(palette.key)), (f" {option.letter}  ", look(palette.key))]
        parts = [*lead, (fit(option.what, what), base), ("  ", base)]
        room = max(0, width - what - 8)
        parts.append((fit(option.preview, room), look(palette.dim)))
        return strip(parts, width, base)

    def _keys(self) -> list[Part]:
        """How to take one of them, or none."""
        palette, unicode = self.palette, not self.glyphs.ascii
        parts: list[Part] = [(" ", palette.base)]
        for name, word in (("choice.pick", "take"), ("choice.cancel", "back")):
            bound = (active.binding for active in self.screen.active_bindings.values() if active.binding.id == name)
            if (binding := next(bound, None)) is not None:
                parts += [(key_name(binding.key, unicode), palette.key), (f" {word}  ", palette.dim)]
        return [*parts, ("or its letter", palette.dim)]


class ChoiceScreen(ModalScreen[int | None]):
    """Gives the index of the option chosen; by its letter, or by Enter on its line."""

    DEFAULT_CSS = """
    ChoiceScreen { background: transparent; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("list"), *bindings("choice"), quit_binding()]

    def __init__(self, question: str, options: Sequence[Option]) -> None:
        super().__init__()
        self._lines = ChoiceLines(question, options[:MOST_OPTIONS])

    def compose(self) -> ComposeResult:
        """Textual's."""
        yield self._lines

    def on_key(self, event: events.Key) -> None:
        """An option's letter."""
        for at, option in enumerate(self._lines.options):
            if event.character == option.letter:
                event.stop()
                event.prevent_default()
                self.dismiss(at)
                return

    def action_pick(self) -> None:
        """Enter."""
        self.dismiss(self._lines.cursor)

    def action_cancel(self) -> None:
        """Escape."""
        self.dismiss(None)

    def action_move(self, step: int) -> None:
        """The cursor a line up or down."""
        self._go(self._lines.cursor + step)

    def action_page(self, step: int) -> None:
        """To an end."""
        self.action_edge(step)

    def action_edge(self, end: int) -> None:
        """To an end."""
        self._go(0 if end < 0 else len(self._lines.options) - 1)

    def _go(self, row: int) -> None:
        self._lines.cursor = max(0, min(row, len(self._lines.options) - 1))
        self._lines.refresh()
