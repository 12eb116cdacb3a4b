"""One line of the waterfall: marks, name, whose work, duration, bar. What it says is worked out here, when it is drawn.

The parts of a line are cell-exact, whatever a span holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from receiver.traces.model import Component, Node, Oddity
from receiver.traces.tree import is_webhook_call
from tui.glyphs import Glyphs
from tui.terminal_text import count, duration, fit, printable, width_of
from tui.theming import Palette
from tui.widgets import bars
from tui.widgets.line import Part
from tui.widgets.notes import Note, gap_text, oddity_words, run_words, short_name
from tui.widgets.outline import COMPONENTS, FILTER, GROUP, MIXED, RUN, VALIDATING, Outline

_SHORT: Final = {
    Component.APISERVER: "api",
    Component.ETCD: "etcd",
    Component.WEBHOOK: "hook",
    Component.KUBELET: "klet",
    Component.RUNTIME: "cri",
}
_AGGREGATED: Final = ("aggregated apiserver", "aggr. apiserver", "aggregated", "aggr")
_LEAST: Final = 8
"""Cells of a note that is cut."""
_WEIGHTY: Final = 100
"""A span whose own time is a smaller part of the critical path than one of these has a dim mark."""
_MARKED: Final = (
    Oddity.ZERO_TIME,
    Oddity.FAR_TIME,
    Oddity.BACKWARDS,
    Oddity.DUPLICATE,
    Oddity.CYCLE,
    Oddity.SELF_PARENT,
)


UNDERLINE: Final = Style(underline=True)


@dataclass(frozen=True, slots=True)
class Columns:
    """Cells of each part of a line; a component column of 4 has short names, one of 0 is not there."""

    name: int
    component: int
    bar: int
    gap: int  # between duration and bar, and after the bar less one

    @classmethod
    def of(cls, width: int) -> Columns:
        """The parts for a widget `width` cells wide: margin, mark of the critical path, name, component, duration (8),
        bar."""
        gap = 1 if width < 104 else 2
        if width < 72:
            name = max(12, width * 2 // 5) - 1
            component = 0
        elif width < 104:
            name = 33 + max(0, width - 80) // 3
            component = 4
        else:
            name = min(64, max(36, width * 3 // 10))
            component = 10 if width < 130 else 15
        used = 2 + name + 1 + (component + 1 if component else 0) + 8 + gap + gap - 1
        return cls(name, component, max(0, width - used), gap)


@dataclass(frozen=True, slots=True)
class SpanLine:
    """How a line of an outline looks at the moment."""

    outline: Outline
    line: int
    window: tuple[int, int]
    """The part of the axis that bars are drawn on, ns since the epoch."""
    folded: bool
    selected: bool
    part: tuple[int, int] | None
    """Of a span that is looked at as a step of the critical path, when that is; ns since the epoch."""
    note: Note
    palette: Palette
    glyphs: Glyphs
    matched: bool = False
    """The filter of the list is about it."""

    @property
    def _look(self) -> Callable[[Style], Style]:
        return self.palette.on_cursor if self.selected else _as_it_is

    @property
    def _node(self) -> Node:
        return self.outline.nodes[self.line]

    @property
    def _flags(self) -> int:
        return self.outline.flags[self.line]

    def draw(self, columns: Columns, width: int) -> Strip:
        """The whole line, `width` cells."""
        outline, line, palette, look, glyphs = self.outline, self.line, self.palette, self._look, self.glyphs
        base, dim = look(palette.base), look(palette.dim)
        begin, end = self.window
        shown_ns = outline.shown_ns[line]
        brief = shown_ns * 100 < end - begin
        parts: list[Part] = [
            (glyphs.cursor if self.selected else " ", look(palette.key) if self.selected else base),
            self._path_mark(),
            *self._label(columns.name),
            (" ", base),
        ]
        if columns.component:
            parts += [self._who(columns.component), (" ", base)]
        parts.append((fit(duration(shown_ns), 8, right=True), dim if brief else base))
        parts.append((" " * columns.gap, base))
        segments = [Segment(text, style) for text, style in parts if text]
        segments += self._bar(columns.bar)
        if columns.gap > 1:
            segments.append(Segment(" " * (columns.gap - 1), base))
        return Strip(segments, width)

    def _path_mark(self) -> Part:
        """Whether the span is on the critical path, or something that the line hides is."""
        outline, palette = self.outline, self.palette
        own = outline.critical.get(self.line, 0)
        hides = self.folded and outline.hides_path(self.line)
        if not own and not hides:
            return (" ", self._look(palette.base))
        path = outline.path
        weighty = hides or path is None or own * _WEIGHTY >= path.end - path.start
        return (self.glyphs.path, self._look(palette.key if weighty else palette.dim))

    # --- name ---------------------------------------------------------------------------------------------
    def _label(self, width: int) -> list[Part]:
        """Indent, fold mark, marks, name and what goes with it: exactly `width` cells."""
        outline, line, glyphs, palette, look = self.outline, self.line, self.glyphs, self.palette, self._look
        base, dim = look(palette.base), look(palette.dim)
        level = outline.depth[line]
        step = 2 if width >= 30 else 1
        most = max(0, (width - 14) // step)
        if level > most:  # so deep that the name would have no room: the depth as a number
            lead = fit(f"{glyphs.after}{count(level)}", step * most, right=True)
        else:
            lead = " " * (step * level)
        mark = " " if outline.size[line] == 1 else glyphs.folded if self.folded else glyphs.open
        parts: list[Part] = [(f"{lead}{mark} ", dim)]
        room = width - width_of(lead) - 2
        words = oddity_words(outline, line)
        for text, style in self._marks(words):
            if room > 4:
                parts.append((f"{text} ", look(style)))
                room -= 2
        times = "x" if glyphs.ascii else "×"
        if self._flags & RUN:
            how_many = fit(f"{times}{count(len(outline.members(line)))} ", min(room, 8)).rstrip() + " "
            parts.append((how_many, dim))
            room -= width_of(how_many)
        name, style, notes, note_style = self._words(words)
        text = short_name(name, room, glyphs.ellipsis)
        if notes and self._flags & RUN:
            # How long they took matters more than whose method it is.
            texts: tuple[str, ...] = (text, short_name(name, 0, glyphs.ellipsis))
            text = next((each for each in texts if width_of(each) + 2 + width_of(notes[-1]) <= room), text)
        elif notes and not self._flags & GROUP and is_webhook_call(text):
            # Which webhook matters more than the words around it.
            brief = text.removeprefix("Call ")
            need = 2 + width_of(printable(notes[-1]))
            texts = (text, brief, brief.removesuffix(" webhook"))
            text = next((each for each in texts if len(each) + need <= room), text)
        cells = width_of(text)
        if cells > room:
            text, cells = fit(text, room), room
        parts.append((text, look(style)))
        room -= cells
        if room > 2 and notes:
            parts += _fitting(notes, room, look(note_style), base)
        elif room:
            parts.append((" " * room, base))
        return parts

    def _marks(self, words: str) -> list[Part]:
        """What colour alone must not say."""
        outline, line, glyphs, palette = self.outline, self.line, self.glyphs, self.palette
        nodes = outline.members(line) if line in outline.chains else ()
        odd = outline.runs[line].oddities if self._flags & RUN else self._node.oddities
        marks: list[Part] = []
        if any(node.span.status == 2 for node in nodes or (self._node,)):
            marks.append((glyphs.failed, palette.error))
        if Oddity.ORPHAN in odd and not self._flags & FILTER:
            marks.append((glyphs.unseen, palette.warning))
        elif (words or self._flags & RUN) and any(oddity in odd for oddity in _MARKED):
            marks.append((glyphs.odd, palette.warning))
        if not self._flags & GROUP and outline.moved(line):
            marks.append((glyphs.moved, palette.warning))
        return marks

    def _words(self, words: str) -> tuple[str, Style, tuple[str, ...], Style]:
        """Name and its style, what is said beside it (longest first) and the style of that."""
        outline, line, palette = self.outline, self.line, self.palette
        base, dim = palette.base, palette.dim
        span = self._node.span
        name = printable(span.name) or "(no name)"
        times = "x" if self.glyphs.ascii else "×"
        if line in outline.chains:
            return f"filters {times}{len(outline.chains[line])}", dim, ("own time",), dim
        if self._flags & RUN:
            return name, base, run_words(outline.runs[line].run), dim
        style = palette.title if outline.trace.headline is self._node else dim if self._flags & FILTER else base
        if self.matched:
            style += UNDERLINE
        if words:
            return name, style, (words,), palette.warning
        return name, style, self.note.texts, palette.error if self.note.failed else dim

    # --- whose work ---------------------------------------------------------------------------------------
    def _who(self, width: int) -> Part:
        """Whose work it was; beside a call with both its sides the time that neither explains."""
        outline, palette, look = self.outline, self.palette, self._look
        span = self._node.span
        place = outline.places.get(span.span_id)
        component = span.component
        if place is not None and place.webhook and place.webhook.partition(".")[0] == place.label:
            component = Component.WEBHOOK  # the call to it
        style = palette.component[component]
        if place is not None and place.aggregated:
            return (fit(next((text for text in _AGGREGATED if len(text) <= width), ""), width), look(style))
        if width <= 4:
            return (fit(_SHORT.get(component) or span.service or component.value, width), look(style))
        hop = outline.hop(self.line)
        if hop is not None:
            brief = hop.gap * 100 < self.window[1] - self.window[0]
            return (fit(gap_text(hop.gap, self.glyphs.gap), width), look(palette.dim if brief else style))
        return (fit(place.label if place is not None else span.component.value, width), look(style))

    # --- when ---------------------------------------------------------------------------------------------
    def _bar(self, width: int) -> list[Segment]:
        """The span on the axis: `width` cells."""
        outline, line, flags, palette, look = self.outline, self.line, self._flags, self.palette, self._look
        begin, end = self.window
        scale = width / max(1, end - begin)
        if not outline.start[line]:
            return [Segment(" " * width, look(palette.base))]

        def cells_of(parts: Sequence[tuple[int, int]]) -> list[tuple[float, float]]:
            return [((low - begin) * scale, (high - begin) * scale) for low, high in parts]

        own: Sequence[tuple[int, int]] = ()
        if flags & RUN:
            own = outline.ran(line, begin, end, int(0.5 / scale) if scale else 0)
        elif flags & MIXED:
            own = outline.own(line)
        tail = outline.tail_from(line)
        ticks: Sequence[float] = ()
        if self.note.ticks is not None and not flags & (GROUP | FILTER):
            ticks = ((self.note.ticks + outline.moved(line) - begin) * scale).tolist()
        bar = bars.Bar(
            (outline.start[line] - begin) * scale,
            (outline.end[line] - begin) * scale,
            None if tail is None or (outline.end[line] - tail) * scale < 0.5 else (tail - begin) * scale,
            bool(flags & (MIXED | RUN)),
            cells_of(own),
            ticks,
            cells_of([self.part])[0] if self.part is not None else None,
        )
        glyphs = self.glyphs
        component = COMPONENTS[outline.ink[line]]
        fill = glyphs.validating if flags & VALIDATING else glyphs.fill[component]
        cells, paint = bars.draw(bar, width, fill, glyphs)
        ink = look(palette.component[component])
        swap = ink + Style(reverse=not ink.reverse)
        styles = (look(palette.base), ink, swap, look(palette.dim), look(palette.warning))
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
