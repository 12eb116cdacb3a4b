"""The verdict above the tree of a trace: a few lines of prose, whole words a line."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Any

from textual import events
from textual.strip import Strip

from tui.terminal_text import printable
from tui.widgets.line import LineWidget, strip

MAX_CHARACTERS = 1_024
LOW = 20
"""Lines of a screen below which a verdict is one line or two."""
_UNIT = re.compile(r"(\d) (%|(?:ns|µs|ms|s|B|kB|MB|KiB|MiB)\b)")
"""A number and its unit, which stay on one line."""


def wrap(sentences: Sequence[str], width: int, most: int, ellipsis: str) -> list[str]:
    """Sentences as at most `most` lines of about `width` cells; names, numbers with their units stay whole."""
    text = " ".join(printable(sentence, MAX_CHARACTERS) for sentence in sentences)
    text = _UNIT.sub("\\1\N{NO-BREAK SPACE}\\2", text)  # lines are broken at plain spaces only
    lines = textwrap.wrap(
        text, max(10, width), max_lines=max(1, most), placeholder=f" {ellipsis}", break_on_hyphens=False
    )
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


class VerdictLines(LineWidget):
    """One to three sentences in as many lines as they need: at least two, of a low screen one, and at most a sixth of
    the screen's; painted again only when they differ."""

    DEFAULT_CSS = """
    VerdictLines { height: 2; width: 100%; }
    """

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._sentences: Sequence[str] = ()

    @property
    def text(self) -> str:
        """The sentences as one text."""
        return " ".join(self._sentences)

    def show(self, sentences: Sequence[str]) -> None:
        """Put these sentences on the screen."""
        if tuple(sentences) != tuple(self._sentences):
            self._sentences = tuple(sentences)
            self._fit()
            self.refresh()

    def on_resize(self, event: events.Resize) -> None:
        """Textual's event."""
        self._fit()

    def _fit(self) -> None:
        width, height = self.app.size
        needed = len(wrap(self._sentences, width - 2, height, self.glyphs.ellipsis))
        wanted = min(max(needed, 1 if height < LOW else 2), max(2, height // 6))
        if self.size.height != wanted:
            self.styles.height = wanted

    def draw(self, y: int, width: int) -> Strip:
        """A line; the last one ends with an ellipsis where the sentences go on."""
        lines = wrap(self._sentences, width - 2, self.size.height, self.glyphs.ellipsis)
        line = lines[y] if y < len(lines) else ""
        return strip([(f" {line}", self.palette.title if y == 0 else self.palette.base)], width, self.palette.base)
