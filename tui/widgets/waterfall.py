"""The tree of a trace and its bars on the time axis, one line a span, under a ruler.

Draws what is visible and nothing else: a frame costs the same for ten spans and for fifty thousand. Everything that
grows with the trace was done before, in a worker (`outline`).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, Final

from textual import events
from textual.cache import LRUCache
from textual.message import Message
from textual.strip import Strip

from receiver.traces.model import Node
from tui.keys import bindings
from tui.terminal_text import count, duration, printable
from tui.theming import Palette
from tui.widgets import bars
from tui.widgets.folds import Folds
from tui.widgets.line import LineWidget, Part, strip
from tui.widgets.notes import NO_NOTE, Note
from tui.widgets.outline import GROUP, Outline, following_failure, following_match, following_step
from tui.widgets.spanline import Columns, SpanLine

_SHORTEST_WINDOW: Final = 1_000
"""Nanoseconds of the axis at the deepest zoom."""


class Waterfall(LineWidget, can_focus=True):
    """Lines of an `Outline`, a cursor on one of them, and a window of the time axis."""

    DEFAULT_CSS = """
    Waterfall { height: 1fr; width: 1fr; }
    """
    BINDINGS = bindings("list")

    class Moved(Message):
        """The cursor is on another span."""

    class Scrolled(Message):
        """Other lines are on the screen: their notes may be wanted."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.outline: Outline | None = None
        self.cursor = 0
        """Index of the cursor's line among the lines shown."""
        self.top = 0
        self.fitted = True
        """The window is the whole trace, and grows with it."""
        self._window = (0, 1)
        self.folds = Folds()
        self._touched = False
        self._step: int | None = None  # of the intervals of the critical path the one that is looked at
        self._wanted = ""
        self._notes: dict[str, Note] = {}
        self.matches: frozenset[str] = frozenset()
        """Ids of the spans that are underlined."""
        self._strips: LRUCache[tuple[int, bool], Strip] = LRUCache(1024)
        self._drawn_with: Palette | None = None

    # --- what is shown -------------------------------------------------------------------------------

    def show(self, outline: Outline, span_id: str = "") -> None:
        """Show a trace, or what it has grown to: cursor, folds and zoom stay with their spans.

        Args:
            outline: the lines.
            span_id: put the cursor here once, as soon as that span is there.
        """
        before, step = self.line_id, self.step
        row = self.cursor - self.top
        self.outline = outline
        self._wanted = span_id or self._wanted
        self.folds.take(outline)
        line = outline.find(before) if before and self._touched else None
        if self._wanted and (found := outline.find(self._wanted)) is not None:
            line, self._wanted, self._touched = found, "", True
            row = self.body // 3
        if line is not None:
            self.folds.show(line)  # a run that has formed around the cursor, too
        else:
            head = outline.trace.headline
            line = outline.line_of.get(head.span.span_id, 0) if head is not None and not self._touched else 0
            row = min(line, self.body // 3)
        self.cursor = self.folds.index(line) if len(outline) else 0
        self.top = self.cursor - row
        if self.fitted:
            self._window = self._whole()
        self._step = None
        if step is not None and outline.path is not None:  # of what is now the path the same part
            at = bisect_left(outline.step_start, step[0])
            self._step = at if at < len(outline.steps) and outline.steps[at] == line else None
        self._strips.clear()
        self._place()
        self.refresh()
        self.post_message(self.Moved())
        self.post_message(self.Scrolled())

    @property
    def _shown(self) -> array[int]:
        return self.folds.shown

    @property
    def line(self) -> int:
        """The cursor's line in the outline; 0 while there is none."""
        return self._shown[self.cursor] if self.cursor < len(self._shown) else 0

    @property
    def line_id(self) -> str:
        """What the cursor is on."""
        return self.outline.id(self.line) if self.outline is not None and len(self.outline) else ""

    @property
    def node(self) -> Node | None:
        """The span under the cursor; of a filter chain the outermost, of a run the longest."""
        return self.outline.nodes[self.line] if self.outline is not None and len(self.outline) else None

    @property
    def body(self) -> int:
        """Lines under the ruler."""
        return max(1, self.size.height - 1)

    @property
    def _rows(self) -> int:
        extra = self.outline is not None and self.outline.trace.left_out > 0
        return len(self._shown) + extra

    # --- notes: what lines take from the bodies of their spans ----------------------------------------

    def without_note(self, most: int = 200) -> list[Node]:
        """Spans on the screen whose notes are not here yet."""
        if self.outline is None:
            return []
        lines = [line for line in self._shown[self.top : self.top + self.body] if not self.outline.flags[line] & GROUP]
        nodes = [self.outline.nodes[line] for line in lines]
        return [node for node in nodes if node.span.span_id not in self._notes][:most]

    def add_notes(self, notes: Mapping[str, Note]) -> None:
        """Take notes by span id, and paint the lines on the screen that they belong to."""
        if len(self._notes) + len(notes) > 5_000:
            self._notes.clear()  # what is on the screen is asked for again
        self._notes.update(notes)
        if self.outline is None:
            return
        for row in range(self.top, min(self.top + self.body, len(self._shown))):
            line = self._shown[row]
            note = notes.get(self.outline.nodes[line].span.span_id)
            if note is not None and note.shows:
                for selected in (False, True):
                    self._strips.discard((line, selected))
                self.refresh_line(row - self.top + 1)

    # --- moving ---------------------------------------------------------------------------------------

    def _place(self) -> bool:
        """Keep the cursor within the lines and on the screen; True if that scrolled."""
        top, body = self.top, self.body
        self.cursor = max(0, min(self.cursor, len(self._shown) - 1))
        if self.cursor < self.top:
            self.top = self.cursor
        elif self.cursor >= self.top + body:
            self.top = self.cursor - body + 1
        if self.cursor == len(self._shown) - 1 and self._rows > len(self._shown):
            self.top = max(self.top, self._rows - body)  # the last span brings the line after it along
        self.top = max(0, min(self.top, self._rows - body))
        return self.top != top

    def _go(self, row: int) -> None:
        before, self.cursor = self.cursor, max(0, min(row, len(self._shown) - 1))
        self._touched = True
        if before != self.cursor and self._step is not None:
            self._step = None
            self._strips.discard((self._shown[before], True))
            self.refresh_line(0)
        if self._place():
            self.refresh()
            self.post_message(self.Scrolled())
        elif before != self.cursor:
            self.refresh_line(before - self.top + 1)
            self.refresh_line(self.cursor - self.top + 1)
        if before != self.cursor:
            self.post_message(self.Moved())

    def go_to(self, line: int) -> None:
        """Put the cursor on a line of the outline, opening what hides it."""
        self.folds.show(line)
        self._strips.clear()
        self.cursor = self.folds.index(line)
        self._touched, self._step = True, None
        self._place()
        self.refresh()
        self.post_message(self.Moved())
        self.post_message(self.Scrolled())

    def action_move(self, step: int) -> None:
        """The cursor `step` lines down."""
        self._go(self.cursor + step)

    def action_page(self, step: int) -> None:
        """The cursor `step` pages down."""
        self._go(self.cursor + step * max(1, self.body - 1))

    def action_edge(self, end: int) -> None:
        """To the first (-1) or last (1) line."""
        self._go(0 if end < 0 else len(self._shown) - 1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Where a mouse is allowed: three lines down."""
        event.stop()
        self._go(self.cursor + 3)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Three lines up."""
        event.stop()
        self._go(self.cursor - 3)

    def on_click(self, event: events.Click) -> None:
        """To the span under the pointer; on the one that has the cursor: fold or unfold it."""
        row = self.top + event.y - 1
        if event.y < 1 or row >= len(self._shown):
            return
        if row == self.cursor:
            self.fold()
        else:
            self._go(row)

    def next_failure(self, step: int) -> bool:
        """To the next (1) or previous (-1) failed span; False when none failed."""
        found = None if self.outline is None else following_failure(self.outline, self.line, step)
        if found is not None:
            self.go_to(found)
        return found is not None

    def mark_matches(self, matches: frozenset[str]) -> None:
        """Underline the names of the spans with these ids."""
        if matches != self.matches:
            self.matches = matches
            self._strips.clear()
            self.refresh()

    def next_match(self, step: int) -> bool:
        """To the next (1) or previous (-1) span that is marked; False when none is."""
        found = None if self.outline is None else following_match(self.outline, self.line, step, self.matches)
        if found is not None:
            self.go_to(found)
        return found is not None

    # --- the critical path ----------------------------------------------------------------------------

    @property
    def step(self) -> tuple[int, int] | None:
        """The interval of the critical path that is looked at: start and end, ns since the epoch."""
        outline = self.outline
        if self._step is None or outline is None or outline.path is None:
            return None
        interval = outline.path.intervals[self._step]
        return interval.start, interval.end

    def next_step(self, step: int) -> bool:
        """To what is next (1) or was before (-1) on the critical path, as the time went; False at its end."""
        outline = self.outline
        at = None if outline is None else following_step(outline, self.line, self._step, step)
        if outline is None or outline.path is None or at is None:
            return False
        self.go_to(outline.steps[at])
        self._step = at
        begin, end = self._window
        interval = outline.path.intervals[at]
        if interval.end <= begin or interval.start >= end:
            self._look((interval.start + interval.end - end + begin) // 2, end - begin)
        return True

    # --- folding --------------------------------------------------------------------------------------

    def _after_folding(self, line: int) -> None:
        row = self.cursor - self.top
        self._touched = True
        self.cursor = self.folds.index(line)
        self.top = self.cursor - row
        if self.line != line:
            self._step = None
        self._strips.clear()
        self._place()
        self.refresh()
        self.post_message(self.Moved())
        self.post_message(self.Scrolled())

    def fold(self) -> None:
        """Fold the cursor's line, or unfold it."""
        line = self.line
        if self.folds.set(line, line not in self.folds.folded):
            self._after_folding(line)

    def close(self) -> None:
        """Fold the cursor's line; where there is nothing to fold, go to its parent."""
        if self.outline is None or not len(self.outline):
            return
        line = self.line
        if self.folds.set(line, True):
            self._after_folding(line)
        elif (above := self.outline.parent[line]) >= 0:
            self._go(self.folds.index(above))

    def open(self) -> None:
        """Unfold the cursor's line; where it is open, go to its first child."""
        if self.outline is None or not len(self.outline):
            return
        line = self.line
        if self.folds.set(line, False):
            self._after_folding(line)
        elif self.outline.size[line] > 1:
            self._go(self.cursor + 1)

    def fold_level(self, step: int) -> None:
        """Fold the deepest level that is shown (-1), or unfold the topmost one that is folded (1)."""
        if self.outline is None or not len(self.outline):
            return
        line = self.line
        self.folds.level(step)
        self._after_folding(line)

    def fold_all(self, fold: bool) -> None:
        """Fold everything down to the headline, or unfold everything, filter chains and runs too."""
        if self.outline is None or not len(self.outline):
            return
        line = self.line
        self.folds.all(fold)
        self._after_folding(line)

    # --- the time axis --------------------------------------------------------------------------------

    def _whole(self) -> tuple[int, int]:
        if self.outline is None:
            return (0, 1)
        trace = self.outline.trace
        return trace.start, max(trace.end, trace.start + 1)

    @property
    def window(self) -> tuple[int, int]:
        """The part of the axis on the screen, ns since the epoch."""
        return self._window

    def _look(self, begin: int, length: int) -> None:
        first, last = self._whole()
        self.fitted = length >= last - first
        if self.fitted:
            window = (first, last)
        else:
            length = max(_SHORTEST_WINDOW, length)
            begin = max(first, min(begin, last - length))
            window = (begin, begin + length)
        if window != self._window:
            self._window = window
            self._strips.clear()
            self.refresh()

    def zoom(self, step: int) -> None:
        """Twice as close (1) or half (-1), towards the middle of the cursor's span."""
        if self.outline is None or not len(self.outline):
            return
        begin, end = self._window
        low, high = max(begin, self.outline.start[self.line]), min(end, self.outline.end[self.line])
        middle = (low + high) // 2 if low <= high else (begin + end) // 2
        length = (end - begin) // 2 if step > 0 else (end - begin) * 2
        # The middle keeps its place on the screen.
        self._look(middle - (middle - begin) * length // max(1, end - begin), length)

    def zoom_span(self) -> None:
        """The cursor's span from edge to edge, with a little room on both sides."""
        if self.outline is None or not len(self.outline) or not self.outline.start[self.line]:
            return
        begin, end = self.outline.start[self.line], self.outline.end[self.line]
        room = (end - begin) // 20
        self._look(begin - room, max(_SHORTEST_WINDOW, end - begin + 2 * room))

    def pan(self, step: int) -> None:
        """A quarter of the window to the right (1) or left (-1)."""
        begin, end = self._window
        self._look(begin + step * (end - begin) // 4, end - begin)

    def zoom_reset(self) -> None:
        """The whole trace."""
        first, last = self._whole()
        self._look(first, last - first)

    # --- drawing --------------------------------------------------------------------------------------

    def on_resize(self, event: events.Resize) -> None:
        """Called when the widget has another size."""
        self._strips.clear()
        self._place()
        self.post_message(self.Scrolled())

    def notify_style_update(self) -> None:
        """Called when the theme changed."""
        super().notify_style_update()
        self._strips.clear()

    def draw(self, y: int, width: int) -> Strip:
        """The ruler, a span, or the line that says how many are not here."""
        palette = self.palette
        if palette is not self._drawn_with:
            self._strips.clear()
            self._drawn_with = palette
        columns = Columns.of(width)
        if y == 0:
            return self._ruler(columns, width, palette)
        row = self.top + y - 1
        if row >= len(self._shown):
            if row < self._rows and self.outline is not None:
                text = f"   {count(self.outline.trace.left_out)} more spans not shown"
                return strip([(text, palette.warning)], width, palette.base)
            return Strip.blank(width, palette.base)
        line, selected = self._shown[row], row == self.cursor
        found = self._strips.get((line, selected))
        if found is None:
            found = self._strips[line, selected] = self._draw_line(line, selected, columns, width, palette)
        return found

    def _ruler(self, columns: Columns, width: int, palette: Palette) -> Strip:
        glyphs = self.glyphs
        dash = glyphs.rule
        title = f"{dash} Spans"
        step = self.step
        if step is not None and self.outline is not None:
            title += f"  path {count((self._step or 0) + 1)} of {count(len(self.outline.steps))}"
            title += f" {duration(step[1] - step[0])}"
        if self._rows > self.body:
            title += f"  {count(self.top + 1)}-{count(min(self.top + self.body, len(self._shown)))}"
            title += f" of {count(len(self._shown))}"
        before = width - columns.bar - columns.gap + 1
        title = printable(title)[: max(0, before - 2)] + " "
        origin = self._whole()[0]
        begin, end = self._window
        cells = [dash] * (width - before)
        styles = [palette.rule] * len(cells)
        if step is not None:  # where the step of the path is in the whole
            scale = columns.bar / max(1, end - begin)
            low = min(max(0, int((step[0] - begin) * scale)), columns.bar - 1)
            for cell in range(low, min(max(low, int((step[1] - begin) * scale) - 1), columns.bar - 1) + 1):
                cells[cell], styles[cell] = self.glyphs.line_own, palette.key
        lead = dash
        for cell, text in bars.ruler(begin - origin, end - origin, columns.bar):
            cells[cell : cell + len(text)] = text
            styles[cell : cell + len(text)] = [palette.dim] * len(text)
            if cell:
                cells[cell - 1] = " "
            else:
                lead = " "
            if cell + len(text) < len(cells):
                cells[cell + len(text)] = " "
        parts: list[Part] = [(title[:1], palette.rule), (title[1:], palette.title)]
        parts.append((dash * max(0, before - len(title) - 1) + lead, palette.rule))
        parts += list(zip(cells, styles, strict=True))
        return strip(parts, width, palette.base)

    def _draw_line(self, line: int, selected: bool, columns: Columns, width: int, palette: Palette) -> Strip:
        """One line of the outline."""
        outline = self.outline
        assert outline is not None
        note = self._notes.get(outline.nodes[line].span.span_id, NO_NOTE)
        part = self.step if selected else None
        drawn = SpanLine(
            outline,
            line,
            self._window,
            line in self.folds.folded,
            selected,
            part,
            note,
            palette,
            self.glyphs,
            outline.nodes[line].span.span_id in self.matches,
        )
        return drawn.draw(columns, width)
