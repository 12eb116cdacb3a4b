"""The tree of a trace and its bars on the time axis, one line a span, under a ruler.

Draws what is visible and nothing else: a frame costs the same for ten spans and for fifty thousand. Everything that
grows with the trace was done before, in a worker (`outline`).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.cache import LRUCache
from textual.message import Message
from textual.strip import Strip

from receiver.traces.model import Component, Node, Oddity
from receiver.traces.tree import is_webhook_call
from tui.keys import bindings
from tui.terminal_text import count, duration, fit, printable, width_of
from tui.theming import Palette
from tui.widgets import bars
from tui.widgets.line import LineWidget, Part, strip
from tui.widgets.outline import (
    CHAIN,
    COMPONENTS,
    FILTER,
    MIXED,
    NO_NOTE,
    VALIDATING,
    Note,
    Outline,
    fold_to,
    following_failure,
    gap_text,
    nearest,
    oddity_words,
    short_name,
)

_SHORT: Final = {
    Component.APISERVER: "api",
    Component.ETCD: "etcd",
    Component.WEBHOOK: "hook",
    Component.KUBELET: "klet",
    Component.RUNTIME: "cri",
}
_SHORTEST_WINDOW: Final = 1_000
"""Nanoseconds of the axis at the deepest zoom."""
_LEAST: Final = 8
"""Cells of a note that is cut."""
_MARKED: Final = (
    Oddity.ZERO_TIME,
    Oddity.FAR_TIME,
    Oddity.BACKWARDS,
    Oddity.DUPLICATE,
    Oddity.CYCLE,
    Oddity.SELF_PARENT,
)


@dataclass(frozen=True, slots=True)
class Columns:
    """Cells of each part of a line; a component column of 4 has short names, one of 0 is not there."""

    name: int
    component: int
    bar: int
    gap: int  # between duration and bar, and after the bar less one

    @classmethod
    def of(cls, width: int) -> Columns:
        """The parts for a widget `width` cells wide: margin, name, component, duration (8), bar."""
        gap = 1 if width < 104 else 2
        if width < 72:
            name = max(12, width * 2 // 5)
            component = 0
        elif width < 104:
            name = 34 + max(0, width - 80) // 3
            component = 4
        else:
            name = min(64, max(36, width * 3 // 10))
            component = 10 if width < 130 else 15
        used = 1 + name + 1 + (component + 1 if component else 0) + 8 + gap + gap - 1
        return cls(name, component, max(0, width - used), gap)


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
        self._shown: array[int] = array("i")
        self._folded: set[int] = set()
        self._folded_ids: set[str] = set()
        self._opened_chains: set[str] = set()
        self._touched = False
        self._wanted = ""
        self._notes: dict[str, Note] = {}
        self._strips: LRUCache[tuple[int, bool], Strip] = LRUCache(1024)
        self._drawn_with: Palette | None = None

    # --- what is shown -------------------------------------------------------------------------------

    def show(self, outline: Outline, span_id: str = "") -> None:
        """Show a trace, or what it has grown to: cursor, folds and zoom stay with their spans.

        Args:
            outline: the lines.
            span_id: put the cursor here once, as soon as that span is there.
        """
        before = self.line_id
        row = self.cursor - self.top
        self.outline = outline
        self._wanted = span_id or self._wanted
        self._refold()
        line = outline.find(before) if before and self._touched else None
        if self._wanted and (found := outline.find(self._wanted)) is not None:
            line, self._wanted, self._touched = found, "", True
            self._unhide(line)
            row = self.body // 3
        if line is None:
            head = outline.trace.headline
            line = outline.line_of.get(head.span.span_id, 0) if head is not None and not self._touched else 0
            row = min(line, self.body // 3)
        self.cursor = nearest(self._shown, line) if self._shown else 0
        self.top = self.cursor - row
        if self.fitted:
            self._window = self._whole()
        self._strips.clear()
        self._place()
        self.refresh()
        self.post_message(self.Moved())
        self.post_message(self.Scrolled())

    def _refold(self) -> None:
        """Lines that are folded now, from the ids that were folded."""
        outline = self.outline
        if outline is None:
            return
        find = outline.line_of.get
        folded = {line for span_id in self._folded_ids if (line := find(span_id)) is not None}
        for line, chain in outline.chains.items():
            if not any(member.span.span_id in self._opened_chains for member in chain):
                folded.add(line)
        self._folded = {line for line in folded if outline.size[line] > 1}
        self._shown = outline.visible(self._folded)

    def _unhide(self, line: int) -> None:
        """Open whatever hides a line."""
        outline = self.outline
        assert outline is not None
        above = outline.parent[line]
        changed = False
        while above >= 0:
            changed |= self._set_fold(above, False)
            above = outline.parent[above]
        if changed:
            self._refold()

    def _set_fold(self, line: int, fold: bool) -> bool:
        """Remember that a line is folded or not; True if that is new."""
        outline = self.outline
        assert outline is not None
        if (line in self._folded) == fold or outline.size[line] <= 1:
            return False
        if outline.flags[line] & CHAIN:
            ids = {member.span.span_id for member in outline.chains[line]}
            self._opened_chains = self._opened_chains - ids if fold else self._opened_chains | ids
        elif fold:
            self._folded_ids.add(outline.nodes[line].span.span_id)
        else:
            self._folded_ids.discard(outline.nodes[line].span.span_id)
        return True

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
        """The span under the cursor; the outermost one of a folded filter chain."""
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
        nodes = [self.outline.nodes[line] for line in self._shown[self.top : self.top + self.body]]
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
        self._unhide(line)
        self._strips.clear()
        self.cursor = nearest(self._shown, line)
        self._touched = True
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

    # --- folding --------------------------------------------------------------------------------------

    def _after_folding(self, line: int) -> None:
        row = self.cursor - self.top
        self._refold()
        self._touched = True
        self.cursor = nearest(self._shown, line)
        self.top = self.cursor - row
        self._strips.clear()
        self._place()
        self.refresh()
        self.post_message(self.Moved())
        self.post_message(self.Scrolled())

    def fold(self) -> None:
        """Fold the cursor's line, or unfold it."""
        line = self.line
        if self.outline is not None and self._set_fold(line, line not in self._folded):
            self._after_folding(line)

    def close(self) -> None:
        """Fold the cursor's line; where there is nothing to fold, go to its parent."""
        if self.outline is None or not len(self.outline):
            return
        line = self.line
        if self._set_fold(line, True):
            self._after_folding(line)
        elif (above := self.outline.parent[line]) >= 0:
            self._go(nearest(self._shown, above))

    def open(self) -> None:
        """Unfold the cursor's line; where it is open, go to its first child."""
        if self.outline is None or not len(self.outline):
            return
        line = self.line
        if self._set_fold(line, False):
            self._after_folding(line)
        elif self.outline.size[line] > 1:
            self._go(self.cursor + 1)

    def fold_level(self, step: int) -> None:
        """Fold the deepest level that is shown (-1), or unfold the topmost one that is folded (1)."""
        outline = self.outline
        if outline is None or not len(outline):
            return
        line = self.line
        if step < 0:
            deepest = max(outline.depth[shown] for shown in self._shown)
            lines = [i for i in self._shown if outline.depth[i] == deepest - 1 and outline.size[i] > 1]
        else:
            hidden = [i for i in self._shown if i in self._folded and not outline.flags[i] & CHAIN]
            hidden = hidden or [i for i in self._shown if i in self._folded]
            topmost = min((outline.depth[i] for i in hidden), default=0)
            lines = [i for i in hidden if outline.depth[i] == topmost]
        for i in lines:
            self._set_fold(i, step < 0)
        self._after_folding(line)

    def fold_all(self, fold: bool) -> None:
        """Fold everything down to the headline, or unfold everything, filter chains too."""
        outline = self.outline
        if outline is None:
            return
        line = self.line
        self._folded_ids.clear()
        self._opened_chains.clear()
        if fold:
            head = outline.trace.headline
            level = outline.depth[outline.line_of[head.span.span_id]] if head is not None else 0
            for i in fold_to(outline, level):
                if not outline.flags[i] & CHAIN:
                    self._folded_ids.add(outline.nodes[i].span.span_id)
        else:
            for chain in outline.chains.values():
                self._opened_chains.add(chain[0].span.span_id)
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
        if self._rows > self.body:
            title += f"  {count(self.top + 1)}-{count(min(self.top + self.body, len(self._shown)))}"
            title += f" of {count(len(self._shown))}"
        before = width - columns.bar - columns.gap + 1
        title = printable(title)[: max(0, before - 2)] + " "
        origin = self._whole()[0]
        begin, end = self._window
        cells = [dash] * (width - before)
        labels = []
        for cell, text in bars.ruler(begin - origin, end - origin, columns.bar):
            cells[cell : cell + len(text)] = text
            if cell:
                cells[cell - 1] = " "
            if cell + len(text) < len(cells):
                cells[cell + len(text)] = " "
            labels.append((cell, text))
        parts: list[Part] = [(title[:1], palette.rule), (title[1:], palette.title)]
        lead = dash * max(0, before - len(title) - 1) + (" " if labels and labels[0][0] == 0 else dash)
        parts.append((lead, palette.rule))
        at = 0
        for cell, text in labels:
            parts += [("".join(cells[at:cell]), palette.rule), (text, palette.dim)]
            at = cell + len(text)
        parts.append(("".join(cells[at:]), palette.rule))
        return strip(parts, width, palette.base)

    def _draw_line(self, line: int, selected: bool, columns: Columns, width: int, palette: Palette) -> Strip:
        """One span."""
        outline = self.outline
        assert outline is not None
        look = palette.on_cursor if selected else _as_it_is
        base, dim = look(palette.base), look(palette.dim)
        node = outline.nodes[line]
        glyphs = self.glyphs
        ink = look(palette.component[COMPONENTS[outline.ink[line]]])
        begin, end = self._window
        shown_ns = outline.shown_ns[line]
        brief = shown_ns * 100 < end - begin
        parts: list[Part] = [(glyphs.cursor if selected else " ", look(palette.key) if selected else base)]
        parts += self._label(line, node, columns.name, palette, selected)
        parts.append((" ", base))
        if columns.component:
            parts += self._who(line, node, columns.component, palette, look, end - begin)
            parts.append((" ", base))
        parts.append((fit(duration(shown_ns), 8, right=True), dim if brief else base))
        parts.append((" " * columns.gap, base))
        segments = [Segment(text, style) for text, style in parts if text]
        segments += self._bar(line, node, columns.bar, ink, base, dim, look(palette.warning))
        if columns.gap > 1:
            segments.append(Segment(" " * (columns.gap - 1), base))
        return Strip(segments, width)

    def _who(
        self, line: int, node: Node, width: int, palette: Palette, look: Callable[[Style], Style], window: int
    ) -> list[Part]:
        """Whose work it was; beside a call with both its sides the time between them."""
        outline = self.outline
        assert outline is not None
        component = node.span.component
        style = look(palette.component[component])
        if width <= 4:
            return [(fit(_SHORT.get(component) or node.span.service or component.value, width), style)]
        gap = outline.gap_ns(line)
        if gap is not None:
            style = style if gap * 100 >= window else look(palette.dim)
            return [(fit(gap_text(gap, self.glyphs.gap), width), style)]
        return [(fit(node.span.service or component.value, width), style)]

    def _label(self, line: int, node: Node, width: int, palette: Palette, selected: bool) -> list[Part]:
        """Indent, fold mark, marks, name and what goes with it: exactly `width` cells."""
        outline = self.outline
        assert outline is not None
        look = palette.on_cursor if selected else _as_it_is
        base, dim, error, warning = (
            look(style) for style in (palette.base, palette.dim, palette.error, palette.warning)
        )
        glyphs = self.glyphs
        level = outline.depth[line]
        step = 2 if width >= 30 else 1
        most = max(0, (width - 14) // step)
        if level > most:  # so deep that the name would have no room: the depth as a number
            lead = fit(f"{glyphs.after}{count(level)}", step * most, right=True)
        else:
            lead = " " * (step * level)
        mark = " " if outline.size[line] == 1 else glyphs.folded if line in self._folded else glyphs.open
        parts: list[Part] = [(f"{lead}{mark} ", dim)]
        room = width - width_of(lead) - 2
        chain = outline.chains.get(line)
        failed = node.span.status == 2 if chain is None else any(member.span.status == 2 for member in chain)
        words = oddity_words(outline, line)
        if failed and room > 4:
            parts.append((f"{glyphs.failed} ", error))
            room -= 2
        if Oddity.ORPHAN in node.oddities and not outline.flags[line] & FILTER and room > 4:
            parts.append((f"{glyphs.unseen} ", warning))
            room -= 2
        elif words and room > 4 and any(oddity in node.oddities for oddity in _MARKED):
            parts.append((f"{glyphs.odd} ", warning))
            room -= 2
        if chain is not None:
            text, style = f"filters ×{len(chain)}", dim
            notes: tuple[str, ...] = ("own time",)
            note_style = dim
            if glyphs.ascii:
                text = f"filters x{len(chain)}"
        else:
            text = printable(node.span.name) or "(no name)"
            headline = outline.trace.headline
            style = look(palette.title) if headline is node else base
            note = self._notes.get(node.span.span_id, NO_NOTE)
            notes, note_style = note.texts, (error if note.failed else dim)
            if words:
                notes, note_style = (words,), warning
            if outline.flags[line] & FILTER:
                style = dim
        text = short_name(text, room, glyphs.ellipsis)
        if chain is None and notes and is_webhook_call(text):
            # Which webhook matters more than the words around it.
            brief = text.removeprefix("Call ")
            texts = (text, brief, brief.removesuffix(" webhook"))
            need = 2 + width_of(printable(notes[-1]))
            text = next((each for each in texts if len(each) + need <= room), text)
        cells = width_of(text)
        if cells > room:
            text, cells = fit(text, room), room
        parts.append((text, style))
        room -= cells
        if room > 2 and notes:
            parts += _fitting(notes, room, note_style, base)
        elif room:
            parts.append((" " * room, base))
        return parts

    def _bar(
        self, line: int, node: Node, width: int, ink: Style, base: Style, dim: Style, warning: Style
    ) -> list[Segment]:
        """The span on the axis: `width` cells."""
        outline = self.outline
        assert outline is not None
        begin, end = self._window
        scale = width / max(1, end - begin)
        if not outline.start[line]:
            return [Segment(" " * width, base)]
        flags = outline.flags[line]
        thin = bool(flags & MIXED)
        own: Sequence[tuple[float, float]] = ()
        if thin:
            own = [((low - begin) * scale, (high - begin) * scale) for low, high in outline.own(line)]
        tail = outline.tail_from(line)
        note = self._notes.get(node.span.span_id, NO_NOTE)
        ticks: Sequence[float] = ()
        if note.ticks is not None and not flags & (CHAIN | FILTER):
            ticks = ((note.ticks - begin) * scale).tolist()
        bar = bars.Bar(
            (outline.start[line] - begin) * scale,
            (outline.end[line] - begin) * scale,
            None if tail is None or (outline.end[line] - tail) * scale < 0.5 else (tail - begin) * scale,
            thin,
            own,
            ticks,
        )
        glyphs = self.glyphs
        fill = glyphs.validating if flags & VALIDATING else glyphs.fill[COMPONENTS[outline.ink[line]]]
        cells, paint = bars.draw(bar, width, fill, glyphs)
        swap = ink + Style(reverse=not ink.reverse)
        styles = (base, ink, swap, dim, warning)
        segments = []
        at = 0
        while at < width:
            to = at + 1
            while to < width and paint[to] == paint[at]:
                to += 1
            segments.append(Segment("".join(cells[at:to]), styles[paint[at]]))
            at = to
        return segments


def _as_it_is(style: Style) -> Style:
    return style


def _fitting(texts: Sequence[str], room: int, style: Style, base: Style) -> list[Part]:
    """Two spaces and the longest of these texts that fits whole, else the shortest one cut: exactly `room` cells."""
    for text in texts:
        text = printable(text)
        cells = width_of(text)
        if cells <= room - 2:
            return [("  ", base), (text, style), (" " * (room - 2 - cells), base)]
    if room - 2 < _LEAST:  # a few letters tell nothing
        return [(" " * room, base)]
    return [("  ", base), (fit(texts[-1], room - 2), style)]
