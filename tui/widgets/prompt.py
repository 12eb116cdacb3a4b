"""The line where a command or a filter is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from rich.highlighter import Highlighter
from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.suggester import Suggester
from textual.widgets import Input

from tui.widgets.field import Field
from tui.widgets.line import OneLine, palette_of

MAX_LENGTH = 500
REMEMBERED = 100

Complete = Callable[[str], Sequence[str]]
"""Whole lines that a beginning may become, best first."""


class _Suggest(Suggester):
    def __init__(self, complete: Complete) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self.complete = complete

    async def get_suggestion(self, value: str) -> str | None:
        if not value:
            return None
        return next((line for line in self.complete(value) if line.startswith(value) and line != value), None)


class Underline(Highlighter):
    """Marks what is wrong in the text, from one character to another."""

    def __init__(self) -> None:
        self.at = (0, 0)
        self.style = Style(underline=True)

    def highlight(self, text: Text) -> None:
        """Rich's hook."""
        start, end = self.at
        if end > start:
            text.stylize(self.style, start, min(end, len(text)))


class _Line(Field):
    """A field without what blinks, and with Tab and the arrows as a shell has them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "older", "older", show=False),
        Binding("down", "newer", "newer", show=False),
        Binding("tab", "complete", "complete", show=False),
        Binding("escape,ctrl+c", "cancel", "cancel", show=False),
    ]

    def action_older(self) -> None:
        self._prompt.step(1)

    def action_newer(self) -> None:
        self._prompt.step(-1)

    def action_complete(self) -> None:
        self._prompt.complete()

    def action_cancel(self) -> None:
        self._prompt.cancel()

    @property
    def _prompt(self) -> Prompt:
        found = self.parent
        assert isinstance(found, Prompt)
        return found


class Prompt(Horizontal):
    """Hidden until `ask`."""

    DEFAULT_CSS = """
    Prompt { height: 1; width: 100%; display: none; background: $background; }
    Prompt OneLine { width: 3; }
    Prompt Input, Prompt Input:focus {
        width: 1fr; background: $background; color: $foreground; background-tint: $background 0%;
    }
    Prompt Input > .input--suggestion { color: $state-dim; }
    Prompt Input:nocolor > .input--cursor { text-style: reverse; }
    Prompt Input:nocolor > .input--suggestion { text-style: dim; }
    """

    class Changed(Message):
        """The text is another one now."""

        def __init__(self, mark: str, text: str) -> None:
            super().__init__()
            self.mark, self.text = mark, text

    class Submitted(Changed):
        """Enter was pressed."""

    class Cancelled(Message):
        """Escape was pressed."""

        def __init__(self, mark: str) -> None:
            super().__init__()
            self.mark = mark

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.mark = ""
        """What is asked for: ":" or "/"; "" while hidden."""
        self._complete: Complete = lambda text: ()
        self._history: dict[str, list[str]] = {}
        self._back = 0
        self._draft = ""
        self._offered: tuple[str, list[str], int] = ("", [], 0)
        self._setting = False
        self._wrong = Underline()

    def compose(self) -> ComposeResult:
        """Textual's: mark and line."""
        yield OneLine()
        line = _Line(compact=True, max_length=MAX_LENGTH, select_on_focus=False)
        line.cursor_blink = False
        line.highlighter = self._wrong
        yield line

    @property
    def line(self) -> Input:
        """Where the text is."""
        return self.query_one(_Line)

    @property
    def is_open(self) -> bool:
        """Whether something is being written."""
        return bool(self.mark)

    def ask(self, mark: str, text: str = "", complete: Complete | None = None) -> None:
        """Open with a text to begin with."""
        self.mark, self._back, self._draft = mark, 0, text
        self._complete = complete or (lambda text: ())
        self._offered = ("", [], 0)
        self._wrong.at = (0, 0)
        line = self.line
        line.suggester = _Suggest(self._complete)
        self.query_one(OneLine).show([(f" {mark} ", palette_of(self.app).key)])
        self.display = True
        self._set(text)
        self.screen.set_focus(line)  # at once: `focus()` comes later than keys that were typed ahead

    def underline(self, start: int, end: int) -> None:
        """Mark a part of the text as wrong; an empty one marks nothing. What is wrong at the end is marked there."""
        length = len(self.line.value)
        at = (max(0, min(start, length - 1)), min(max(end, start + 1), length)) if end >= start and end else (0, 0)
        if at != self._wrong.at:
            self._wrong.at = at
            self._wrong.style = palette_of(self.app).error + Style(underline=True)
            self.line.refresh()

    def close(self) -> None:
        """Hide."""
        self.mark = ""
        self.display = False

    def cancel(self) -> None:
        """Escape."""
        mark = self.mark
        self.close()
        self.post_message(self.Cancelled(mark))

    def remember(self, mark: str, text: str) -> None:
        """Put a text into the history that Up and Down go through."""
        history = self._history.setdefault(mark, [])
        if text and (not history or history[-1] != text):
            history.append(text)
            del history[:-REMEMBERED]

    def step(self, back: int) -> None:
        """An older (1) or newer (-1) text of the history."""
        history = self._history.get(self.mark, [])
        place = max(0, min(len(history), self._back + back))
        if place == self._back:
            return
        if self._back == 0:
            self._draft = self.line.value
        self._back = place
        self._set(history[-place] if place else self._draft)

    def complete(self) -> None:
        """Tab: the next completion."""
        value = self.line.value
        start, offers, place = self._offered
        if len(offers) < 2 or value != offers[place]:  # the only offer was taken: what may follow it?
            start, offers, place = value, list(self._complete(value)), -1
            offers = [offer for offer in offers if offer != value]
        if offers:
            place = (place + 1) % len(offers)
            self._offered = (start, offers, place)
            self._set(offers[place])

    def _set(self, text: str) -> None:
        line = self.line
        line.value = text
        line.cursor_position = len(text)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Textual's event."""
        event.stop()
        if self.mark:
            self.post_message(self.Changed(self.mark, event.value))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Textual's event."""
        event.stop()
        if not self.mark:
            return
        mark, text = self.mark, event.value.strip()
        self.remember(mark, text)
        self.close()
        self.post_message(self.Submitted(mark, text))
