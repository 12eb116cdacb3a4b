"""The question before anything is changed: all that will happen, and Cancel in front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.events import Key
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widgets import Input

from tui.keys import bindings, key_name, quit_binding
from tui.screens.help import Lines
from tui.terminal_text import count, printable
from tui.widgets.field import Field
from tui.widgets.line import LineWidget, OneLine, Part, Rule, strip
from tui.widgets.table import Sheet

Line = Sequence[Part]
_MOST_NAME: Final = 253


class Buttons(LineWidget, can_focus=True):
    """Cancel, and what is asked; with a name to be typed before that can be taken."""

    DEFAULT_CSS = """
    Buttons { height: 1; width: 100%; }
    """

    def __init__(self, go: str) -> None:
        super().__init__()
        self.go = go
        self.on_go = False
        self.open = True
        """Whether `go` can be taken."""

    def draw(self, y: int, width: int) -> Strip:
        """Both of them; the one that Enter takes is marked by more than its colour."""
        p = self.palette
        parts: list[Part] = [(" ", p.base)]
        for chosen, text in ((not self.on_go, "Cancel"), (self.on_go, self.go)):
            chosen = chosen and self.has_focus
            mark = self.glyphs.cursor if chosen else " "
            plain = p.base if text == "Cancel" or self.open else p.dim
            style = p.on_cursor(p.title) if chosen else plain
            parts += [(mark, p.on_cursor(p.key) if chosen else plain), (f" {text} ", style), ("   ", p.base)]
        return strip(parts, width, p.base)

    def on_focus(self) -> None:
        """Textual's event."""
        self.refresh()

    def on_blur(self) -> None:
        """Textual's event."""
        self.refresh()


class ConfirmScreen(ModalScreen[str | None]):
    """Gives what was typed as the name ("" where none is asked for) when it is agreed to, None else."""

    DEFAULT_CSS = """
    ConfirmScreen { layout: vertical; background: $background; color: $foreground; overflow: hidden; }
    ConfirmScreen Input, ConfirmScreen Input:focus {
        width: 100%; height: 1; background: $background; color: $foreground; background-tint: $background 0%;
    }
    ConfirmScreen Input:nocolor > .input--cursor { text-style: reverse; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("list"), *bindings("change"), quit_binding()]
    AUTO_FOCUS = ""

    def __init__(self, title: str, make: Callable[[int], Sequence[Line]], go: str, type_name: str = "") -> None:
        """
        Args:
            title: what is asked, on one line.
            make: the lines between title and buttons, for a width; printable.
            go: the word of the button that agrees.
            type_name: what has to be typed before; "" for nothing.
        """
        super().__init__()
        self._title_text = printable(title, 300)
        self._make = make
        self._type_name = type_name
        self._buttons = Buttons(printable(go, 60))
        self._buttons.open = not type_name
        self._made = 0

    def compose(self) -> ComposeResult:
        """Textual's."""
        yield Rule(id="title")
        yield Sheet()
        if self._type_name:
            yield OneLine(id="ask")
            line = Field(compact=True, max_length=_MOST_NAME, select_on_focus=False)
            line.cursor_blink = False
            yield line
        yield self._buttons
        yield OneLine(id="keys")

    def on_mount(self) -> None:
        """Textual's event."""
        for sheet in self.query(Sheet):
            sheet.can_focus = False
        self._go_to(1 if self._type_name else 0)

    def on_key(self, event: Key) -> None:
        """Textual's event: where a name is asked for, what is typed goes there, wherever the keys are."""
        if not self._type_name or isinstance(self.focused, Input) or not event.is_printable or not event.character:
            return
        event.stop()
        event.prevent_default()
        self._go_to(1)
        self.query_one(Input).insert_text_at_cursor(event.character)

    def on_resize(self) -> None:
        """Textual's event: other line breaks."""
        self.call_after_refresh(self._fill)

    def _fill(self) -> None:
        if not self.is_mounted or not self.query(Sheet):
            return
        p = self._buttons.palette
        self._made += 1
        self.query_one("#title", Rule).show([(self._title_text, p.title)])
        sheet = self.query_one(Sheet)
        sheet.source = Lines(list(self._make(self.size.width)), self._made)
        sheet.sync()
        for ask in self.query("#ask").results(OneLine):
            name = printable(self._type_name, _MOST_NAME)
            ask.show([(" Type ", p.base), (name, p.title), (" to go on:", p.base)])
        self._say_keys()

    def _say_keys(self) -> None:
        p, unicode = self._buttons.palette, not self._buttons.glyphs.ascii
        parts: list[Part] = [(" ", p.base)]
        at = self._at()
        if at == 1 and not self._buttons.open:
            parts += [("type the name  ", p.base)]
        turn = "to the buttons" if at == 1 else "other button"
        if at == 1 and self._buttons.open:  # the field's own key
            parts += [(key_name("enter", unicode), p.key), (f" {self._buttons.go}  ", p.dim)]
        takes = [("change.take", "take")] if at == 0 or self._buttons.open else []
        words = [("change.next", turn), *takes, ("change.cancel", "cancel")]
        for name, word in words:
            bound = (active.binding for active in self.active_bindings.values() if active.binding.id == name)
            if (binding := next(bound, None)) is not None:
                parts += [(key_name(binding.key, unicode), p.key), (f" {word}  ", p.dim)]
        below = self.query_one(Sheet).below
        more = f"{count(below)} more line{'s' if below > 1 else ''} (pgdn) " if below else ""
        self.query_one("#keys", OneLine).show(parts, [(more, p.warning if below else p.dim)] if more else [])

    # -- keys -------------------------------------------------------------------------------------------
    @property
    def _typed(self) -> str:
        return next((line.value.strip() for line in self.query(Input)), "")

    def on_input_changed(self, event: Input.Changed) -> None:
        """Textual's event."""
        event.stop()
        self._buttons.open = self._typed == self._type_name
        self._buttons.refresh()
        self._say_keys()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Textual's event: the name itself is the answer; another one is none."""
        event.stop()
        self.action_take()

    def _at(self) -> int:
        if isinstance(self.focused, Input):
            return 1
        return 2 if self._buttons.on_go else 0

    def _go_to(self, stop: int) -> None:
        """0 is Cancel, 1 the name, 2 to agree."""
        self._buttons.on_go = stop == 2
        self.set_focus(self.query_one(Input) if stop == 1 else self._buttons)
        self._buttons.refresh()
        self._say_keys()

    def action_turn(self, step: int) -> None:
        """To the other button, by way of the name where one is asked for."""
        stops = [0, 1, 2] if self._type_name else [0, 2]
        self._go_to(stops[(stops.index(self._at()) + step) % len(stops)])

    def action_take(self) -> None:
        """Enter."""
        if self._at() == 0:
            self.dismiss(None)
        elif self._buttons.open:
            self.dismiss(self._typed)
        elif self._type_name:
            self._go_to(1)

    def action_cancel(self) -> None:
        """Escape."""
        self.dismiss(None)

    def action_move(self, step: int) -> None:
        """The lines, further down or up."""
        self._scroll(lambda sheet: sheet.action_move(step))

    def action_page(self, step: int) -> None:
        """A page of them."""
        self._scroll(lambda sheet: sheet.action_page(step))

    def action_edge(self, end: int) -> None:
        """To an end of them."""
        self._scroll(lambda sheet: sheet.action_edge(end))

    def _scroll(self, how: Callable[[Sheet], None]) -> None:
        how(self.query_one(Sheet))
        self._say_keys()
