"""What the cursor's span is, in two lines (of a wide terminal) under a rule with its name."""

from __future__ import annotations

import textwrap
from typing import Any, Final

from textual import events
from textual.strip import Strip

from receiver.traces.explain import Explanation
from tui.terminal_text import fit, printable, width_of
from tui.widgets.line import LineWidget, Part, strip

_MOST: Final = 3
"""Terminal lines of either line: two hold it at 80 columns."""


class ExplainPanel(LineWidget):
    """As high as what it says; hidden until it is told something."""

    DEFAULT_CSS = """
    ExplainPanel { display: none; width: 100%; height: 5; }
    """

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._title = ""
        self._said = Explanation("", "")
        self._lines: list[tuple[str, bool]] = []

    def show(self, title: str, said: Explanation) -> None:
        """Explain this span."""
        self._title, self._said = printable(title, 80), said
        self.display = True
        self._set()

    def hide(self) -> None:
        """Take no room any more."""
        self.display = False

    def on_resize(self, event: events.Resize) -> None:
        """Textual's event."""
        self._set()

    def _set(self) -> None:
        width = max(10, (self.size.width or self.app.size.width) - 2)
        self._lines = [
            (line, text is self._said.what)
            for text in (self._said.what, self._said.origin)
            for line in textwrap.wrap(printable(text, 400), width, max_lines=_MOST, placeholder=self.glyphs.ellipsis)
        ]
        height = 1 + len(self._lines)
        if self.styles.height is None or self.styles.height.value != height:
            self.styles.height = height
        self.refresh()

    def draw(self, y: int, width: int) -> Strip:
        """The rule, or a line."""
        p, dash = self.palette, self.glyphs.rule
        if y == 0:
            title = fit(self._title, max(0, min(width_of(self._title), width - 4)))
            parts: list[Part] = [(f"{dash} ", p.rule), (title, p.title)]
            return strip([*parts, (f" {dash * max(0, width - width_of(title) - 3)}", p.rule)], width, p.base)
        if y > len(self._lines):
            return Strip.blank(width, p.base)
        text, first = self._lines[y - 1]
        return strip([(f" {text}", p.base if first else p.dim)], width, p.base)
