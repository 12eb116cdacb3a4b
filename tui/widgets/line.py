"""What all our own widgets share: they hand finished strips to the compositor, without Textual's per-line CSS pass.

Measured at 200x50: 5.6 ms a scrolled frame through Textual's own painting, 1.5 ms so. The price: no border, padding
or opacity on these widgets, and every style carries its own background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.segment import Segment
from rich.style import Style
from textual.app import App
from textual.containers import Container
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from tui.glyphs import UNICODE, Glyphs
from tui.terminal_text import fit, printable, width_of
from tui.theming import FALLBACK, Palette, palette

Part = tuple[str, Style]
"""Text and how it looks. The text must be `printable`."""


def palette_of(app: App[Any]) -> Palette:
    """The palette of our app, or one of Textual's own theme in any other app."""
    found = getattr(app, "palette", None)
    if isinstance(found, Palette):
        return found
    return palette({**FALLBACK, **app.theme_variables}, ansi=app.current_theme.ansi, colours=not app.no_color)


def glyphs_of(app: App[Any]) -> Glyphs:
    """The glyphs of our app, Unicode in any other."""
    found = getattr(app, "glyphs", None)
    return found if isinstance(found, Glyphs) else UNICODE


def strip(parts: Sequence[Part], width: int, fill: Style) -> Strip:
    """One line exactly `width` cells wide; what does not fit is cut, what is left is filled."""
    segments: list[Segment] = []
    left = width
    for text, style in parts:
        cells = width_of(text)
        if cells > left:
            text, cells = fit(text, left), left
        if text:
            segments.append(Segment(text, style))
        left -= cells
        if left <= 0:
            break
    if left > 0:
        segments.append(Segment(" " * left, fill))
    return Strip(segments, width)


def two_sides(left: Sequence[Part], right: Sequence[Part], width: int, fill: Style) -> Strip:
    """A line with one part at its left end and one at its right; the right one goes where both do not fit."""
    room = width - sum(width_of(text) for text, _ in left) - sum(width_of(text) for text, _ in right)
    if room < 1:
        return strip(left, width, fill)
    return strip([*left, (" " * room, fill), *right], width, fill)


def blank_lines(widget: Widget, crop: Region) -> list[Strip]:
    """The theme's plain ground."""
    line = Strip.blank(crop.width, palette_of(widget.app).base)
    filters = widget.get_line_filters()
    background = widget.background_colors[1] if filters else None
    for line_filter in filters:
        assert background is not None
        line = line.apply_filter(line_filter, background)
    return [line] * crop.height


class LineWidget(Widget):
    """Draws itself line by line. Subclasses define `draw`."""

    DEFAULT_CSS = """
    LineWidget { background: $background; color: $foreground; }
    """
    ALLOW_SELECT = False

    def draw(self, y: int, width: int) -> Strip:
        """Line `y` of the widget (0 is its top), `width` cells wide."""
        raise NotImplementedError

    @property
    def palette(self) -> Palette:
        """Styles of the theme in use."""
        return palette_of(self.app)

    @property
    def glyphs(self) -> Glyphs:
        """Marks that this terminal can show."""
        return glyphs_of(self.app)

    def render_lines(self, crop: Region) -> list[Strip]:
        """Called by the compositor with the lines that it wants."""
        width, height = self.size
        filters = self.get_line_filters()
        background = self.background_colors[1] if filters else None
        strips = []
        for y in crop.line_range:
            line = self.draw(y, width) if y < height else Strip.blank(width, self.palette.base)
            for line_filter in filters:
                assert background is not None
                line = line.apply_filter(line_filter, background)
            strips.append(line)
        if crop.column_span != (0, width):
            strips = [line.crop(*crop.column_span) for line in strips]
        return strips

    def refresh_line(self, y: int) -> None:
        """Paint line `y` of the widget again."""
        self.refresh(Region(0, y, self.size.width, 1))


class Ground(Container):
    """A container that paints itself as plain ground: Textual would take 5 ms for a screen of it, to be covered."""

    def render_lines(self, crop: Region) -> list[Strip]:
        """Called by the compositor with the lines that it wants."""
        return blank_lines(self, crop)


class OneLine(LineWidget):
    """One line with a left and a right side; painted again only when it differs."""

    DEFAULT_CSS = """
    OneLine { height: 1; width: 100%; }
    """

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._left: Sequence[Part] = ()
        self._right: Sequence[Part] = ()

    def show(self, left: Sequence[Part], right: Sequence[Part] = ()) -> None:
        """Put this on the line."""
        if (left, right) != (self._left, self._right):
            self._left, self._right = left, right
            self.refresh()

    def say(self, text: str, style: Style | None = None) -> None:
        """Put one text on the line, made printable, with a space before it."""
        self.show([(f" {printable(text)}", style or self.palette.base)])

    def draw(self, y: int, width: int) -> Strip:
        """The line."""
        return two_sides(self._left, self._right, width, self.palette.base)


class Rule(OneLine):
    """A section line with its title in it: `─ Requests  [1,204] ─────`."""

    def show(self, left: Sequence[Part], right: Sequence[Part] = ()) -> None:
        """`left` is the title after the first dash, `right` stands at the far end."""
        super().show(left, right)

    def draw(self, y: int, width: int) -> Strip:
        """The line, filled up with dashes."""
        dash, style = self.glyphs.rule, self.palette.rule
        left: list[Part] = [(f"{dash} ", style), *self._left, (" ", style)]
        right: list[Part] = [(" ", style), *self._right, (f" {dash}", style)] if self._right else []
        used = sum(width_of(text) for text, _ in [*left, *right])
        if used > width:
            right, used = [], sum(width_of(text) for text, _ in left)
        middle = [(dash * max(0, width - used), style)]
        return strip([*left, *middle, *right], width, self.palette.base)
