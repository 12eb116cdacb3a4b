"""The list of lines that every screen with many rows is made of: draws what is visible and nothing else.

The widget asks a `LineSource` for the lines on the screen, so a frame costs the same with a hundred rows and with ten
million. It keeps its own scroll offset: Textual's `virtual_size` would ask for a new layout whenever a row arrives.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

from textual import events
from textual.cache import LRUCache
from textual.message import Message
from textual.strip import Strip

from tui.keys import bindings
from tui.terminal_text import printable
from tui.widgets.line import LineWidget, Part, strip
from tui.widgets.status import wrap_words

_NOT_PAINTED = object()


class LineSource(Protocol):
    """Rows by index, 0 is the first. Asked for visible rows only; must be cheap."""

    def __len__(self) -> int: ...

    def identity(self, index: int) -> Hashable:
        """What the row is, whatever its place and content: the cursor stays with it."""

    def key(self, index: int) -> Hashable:
        """Identity and version: equal keys promise an equal picture."""

    def find(self, identity: Hashable) -> int | None:
        """Where the row is now, None when it is gone."""

    def lines(self, indexes: Sequence[int], width: int) -> Sequence[Sequence[Part]]:
        """The rows as text and style, without regard to the cursor."""

    def header(self, width: int) -> Sequence[Part]:
        """The line above the rows; empty for none."""


class Empty:
    """A source without rows."""

    def __len__(self) -> int:
        return 0

    def identity(self, index: int) -> Hashable:
        raise IndexError(index)

    def key(self, index: int) -> Hashable:
        raise IndexError(index)

    def find(self, identity: Hashable) -> int | None:
        return None

    def lines(self, indexes: Sequence[int], width: int) -> Sequence[Sequence[Part]]:
        return []

    def header(self, width: int) -> Sequence[Part]:
        return ()


class VirtualTable(LineWidget, can_focus=True):
    """Rows, a cursor on one of them, and a header that stays."""

    DEFAULT_CSS = """
    VirtualTable { height: 1fr; width: 1fr; }
    """
    BINDINGS = bindings("list")

    class Moved(Message):
        """The cursor is on another row, or its row has another place or content."""

    def __init__(self, source: LineSource | None = None, *, head: bool = True, **keywords: Any) -> None:
        """`head` False: the source has no header line."""
        super().__init__(**keywords)
        self.source: LineSource = Empty() if source is None else source
        self.cursor = 0
        self.top = 0
        """Index of the first row on the screen."""
        self.following = True
        """At the top, new rows push the others down; elsewhere the rows on the screen stay where they are."""
        self._head = 1 if head else 0
        self._identity: Hashable = None
        self._strips: LRUCache[Hashable, Strip] = LRUCache(512)
        self._painted: list[object] = []
        self._told: object = None
        self._left_behind: Hashable = None
        self._instead = ""

    # -- data -------------------------------------------------------------------------------------------
    @property
    def body(self) -> int:
        """Rows that have room."""
        return max(0, self.size.height - self._head)

    @property
    def on_screen(self) -> range:
        """Indexes of the rows on the screen."""
        return range(self.top, min(self.top + self.body, len(self.source)))

    @property
    def newer(self) -> int:
        """Rows that came in above since the top was left."""
        if self.following or self._left_behind is None:
            return 0
        return self.source.find(self._left_behind) or 0

    def show(self, source: LineSource) -> None:
        """Other rows: after a sort or a filter. The cursor stays with its row if that is still there."""
        self.source = source
        self.sync()

    def say_instead(self, sentence: str) -> None:
        """What stands where the rows would be, while there are none."""
        if sentence != self._instead:
            self._instead = sentence
            self.refresh()

    def sync(self) -> int:
        """Take up what changed in the source; called ten times a second. Paints only lines that differ.

        Returns:
            Lines that will be painted.
        """
        rows = len(self.source)
        if self.following:
            self.cursor = self.top = 0
        else:
            place = self.source.find(self._identity) if self._identity is not None else None
            if place is None:
                place = min(self.cursor, max(0, rows - 1))
            self.top += place - self.cursor
            self.cursor = place
        self._clamp(rows)
        self._identity = self.source.identity(self.cursor) if rows else None
        return self._paint_changes(rows)

    def _clamp(self, rows: int) -> None:
        body = max(1, self.body)
        self.cursor = max(0, min(self.cursor, rows - 1))
        self.top = max(0, min(self.top, rows - body))
        if self.cursor < self.top:
            self.top = self.cursor
        elif self.cursor >= self.top + body:
            self.top = self.cursor - body + 1

    def _paint_changes(self, rows: int) -> int:
        self._tell(rows)
        if len(self._painted) != self.size.height:
            self.refresh()
            return self.size.height
        dirty = [
            y
            for y in range(self._head, self.size.height)
            if self._painted[y] != self._line_key(self.top + y - self._head, rows)
        ]
        if self._head and self._painted and self._painted[0] != self._header_key():
            dirty.insert(0, 0)  # another order, or the first rows after a start
        if len(dirty) > self.size.height // 2:
            self.refresh()
        else:
            for y in dirty:
                self.refresh_line(y)
        return len(dirty)

    def _tell(self, rows: int) -> None:
        now = self._line_key(self.cursor, rows)
        if now != self._told:
            self._told = now
            self.post_message(self.Moved())

    def _header_key(self) -> Hashable:
        return tuple(text for text, _ in self.source.header(self.size.width))

    def _line_key(self, index: int, rows: int) -> Hashable:
        if index >= rows:
            return None
        return (self.source.key(index), index == self.cursor)

    def repaint(self) -> None:
        """Everything looks different: theme, columns, time zone."""
        self._strips.clear()
        self._painted = []
        self.refresh()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self.repaint()

    def on_resize(self) -> None:
        """Textual's event: another size means other columns."""
        self._strips.clear()
        self._painted = []
        self._clamp(len(self.source))

    # -- drawing ----------------------------------------------------------------------------------------
    def draw(self, y: int, width: int) -> Strip:
        """A line of the widget."""
        if len(self._painted) != self.size.height:
            self._painted = [_NOT_PAINTED] * self.size.height
        if y < self._head:
            self._painted[y] = self._header_key()
            return strip(self.source.header(width), width, self.palette.header)
        rows, index = len(self.source), self.top + y - self._head
        key = self._line_key(index, rows)
        if y < len(self._painted):
            self._painted[y] = key
        if key is None:
            said = self._said_instead(width) if not rows and self._instead else []
            at = y - self._head - 1
            if 0 <= at < len(said):
                return strip([(f" {said[at]}", self.palette.base)], width, self.palette.base)
            return Strip.blank(width, self.palette.base)
        found = self._strips.get(key)
        if found is None:
            self._draw_missing(index, rows, width)
            found = self._strips.get(key)
        return found if found is not None else Strip.blank(width, self.palette.base)

    def _said_instead(self, width: int) -> list[str]:
        return wrap_words(printable(self._instead), max(20, width - 2), 3)

    def _draw_missing(self, index: int, rows: int, width: int) -> None:
        """Draw all rows from `index` on that are on the screen and not drawn yet: one question to the source."""
        missing: list[tuple[int, Hashable]] = []
        for one in range(index, min(self.top + max(1, self.body), rows)):
            key = self._line_key(one, rows)
            if self._strips.get(key) is None:
                missing.append((one, key))
        for (one, key), parts in zip(missing, self.source.lines([one for one, _ in missing], width), strict=True):
            if key == (self.source.key(one), True):
                on_cursor = self.palette.on_cursor
                self._strips[key] = strip(
                    [(text, on_cursor(style)) for text, style in parts], width, self.palette.cursor
                )
            else:
                self._strips[key] = strip(parts, width, self.palette.base)

    # -- movement ---------------------------------------------------------------------------------------
    def move_to(self, index: int) -> None:
        """Put the cursor on a row; a row other than the first stops following."""
        rows = len(self.source)
        index = max(0, min(index, rows - 1))
        if self.following and index > 0:
            self._left_behind = self.source.identity(0)
        self.following = index <= 0
        self.cursor = index
        self._clamp(rows)
        self._identity = self.source.identity(index) if rows else None
        self._paint_changes(rows)

    def action_move(self, step: int) -> None:
        """Cursor by `step` rows."""
        self.move_to(self.cursor + step)

    def action_page(self, step: int) -> None:
        """Cursor by `step` pages."""
        page = max(1, self.body - 1)
        self.top += step * page
        self.move_to(self.cursor + step * page)

    def action_edge(self, side: int) -> None:
        """Cursor to the first (-1) or last (1) row."""
        self.move_to(0 if side < 0 else len(self.source) - 1)

    # with the mouse on
    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Textual's event."""
        event.stop()
        self.move_to(self.cursor + 3)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Textual's event."""
        event.stop()
        self.move_to(self.cursor - 3)

    def on_click(self, event: events.Click) -> None:
        """Textual's event: the cursor goes where the mouse points."""
        index = self.top + event.y - self._head
        if event.y >= self._head and index < len(self.source):
            self.move_to(index)


class Sheet(VirtualTable):
    """Lines to read: they scroll, and there is no cursor."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(head=False, **keywords)
        self.following = False

    @property
    def below(self) -> int:
        """Lines under those on the screen."""
        return max(0, len(self.source) - self.top - self.body)

    def _line_key(self, index: int, rows: int) -> Hashable:
        return (self.source.key(index), False) if index < rows else None

    def sync(self) -> int:
        """Take up what changed; the place stays."""
        rows = len(self.source)
        self._clamp(rows)
        return self._paint_changes(rows)

    def _clamp(self, rows: int) -> None:
        self.top = self.cursor = max(0, min(self.top, rows - max(1, self.body)))

    def move_to(self, index: int) -> None:
        """Put a line at the top, as far as there are lines below."""
        self.top = index
        self.sync()

    def action_page(self, step: int) -> None:
        """Scroll by pages."""
        self.move_to(self.top + step * max(1, self.body - 1))

    def on_click(self, event: events.Click) -> None:
        """There is nothing to point at."""
