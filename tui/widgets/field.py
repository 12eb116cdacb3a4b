"""Where text is written: Textual's input, in which whatever is pasted, completed or recalled is one line that is safe
to look at."""

from __future__ import annotations

from rich.segment import Segment
from textual import events
from textual.strip import Strip
from textual.widgets import Input

from receiver.plain_text import few_marks
from tui.terminal_text import printable_parts

_LOOKED_AT = 100
"""A paste is looked at up to so many times the characters that there is room for."""


class Field(Input):
    """One line to write in. `max_length` must be given.

    What is completed may be a value of a span, with anything in it: it stays in the text as it is, for else it would
    not be found, and is drawn as everywhere else (`terminal_text`).
    """

    def render_line(self, y: int) -> Strip:
        """Textual's hook. Marks without a bound would be drawn over the lines above and below."""
        drawn = super().render_line(y)
        if drawn.text.isascii() and drawn.text.isprintable():
            return drawn
        segments = list(drawn)
        texts = printable_parts(segment.text for segment in segments)
        made = [Segment(text, style, control) for text, (_, style, control) in zip(texts, segments, strict=True)]
        return Strip(made).adjust_cell_length(drawn.cell_length)

    def insert_text_at_cursor(self, text: str) -> None:
        """Textual's, for what is typed."""
        before = self.value[: self.cursor_position]
        super().insert_text_at_cursor(few_marks(before + text)[len(few_marks(before)) :])

    def _on_paste(self, event: events.Paste) -> None:
        """What is pasted becomes one line of printable text, as much of it as fits: Textual would take the first line
        as it is, and nothing at all where it is too long."""
        event.prevent_default()
        event.stop()
        self._take(event.text)

    def action_paste(self) -> None:
        """Ctrl-V: what was copied in here."""
        self._take(self.app.clipboard)

    def _take(self, text: str) -> None:
        most = self.max_length or 0
        line = " ".join(text[: _LOOKED_AT * most].split())
        start, end = sorted(self.selection)
        room = max(0, most - len(self.value) + end - start)
        self.replace(few_marks("".join(filter(str.isprintable, line)))[:room], start, end)
