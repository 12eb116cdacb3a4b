"""Which lines of a trace are folded, and which of them are therefore shown.

Remembered by span, so that a trace may grow: what was folded stays folded, and what was opened is never folded again
behind the operator's back. No Textual here.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left

from tui.widgets.outline import GROUP, Outline, nearest


class Folds:
    """The folds of one trace. A filter chain and a run of like siblings are folded until they are opened, any other
    line is open until it is folded."""

    def __init__(self) -> None:
        self.outline: Outline | None = None
        self.shown: array[int] = array("i")
        """Lines that are shown, ascending."""
        self.folded: set[int] = set()
        """Lines that are folded."""
        self._folded: set[str] = set()  # spans whose lines the operator folded
        self._opened: set[str] = set()  # spans of chains and runs that the operator opened

    def take(self, outline: Outline) -> None:
        """Another outline of the same trace: it has grown, or its spans were moved."""
        self.outline = outline
        self._apply()

    def _apply(self) -> None:
        """Lines that are folded now, from the spans that were."""
        outline = self.outline
        if outline is None:
            return
        find = outline.line_of.get
        folded = {line for span_id in self._folded if (line := find(span_id)) is not None}
        opened = self._opened
        for line in (*outline.chains, *outline.runs):
            if not (opened and any(node.span.span_id in opened for node in outline.members(line))):
                folded.add(line)
        self.folded = {line for line in folded if outline.size[line] > 1}
        self.shown = outline.visible(self.folded)

    def set(self, line: int, fold: bool) -> bool:
        """Fold a line or open it; False where that is nothing new."""
        changed = self._set(line, fold)
        if changed:
            self._apply()
        return changed

    def _set(self, line: int, fold: bool) -> bool:
        outline = self.outline
        if outline is None or (line in self.folded) == fold or outline.size[line] <= 1:
            return False
        if outline.flags[line] & GROUP:
            ids = {node.span.span_id for node in outline.members(line)}
            self._opened = self._opened - ids if fold else self._opened | ids
        elif fold:
            self._folded.add(outline.nodes[line].span.span_id)
        else:
            self._folded.discard(outline.nodes[line].span.span_id)
        return True

    def show(self, line: int) -> bool:
        """Open whatever hides a line; False where nothing does."""
        outline = self.outline
        assert outline is not None
        changed = False
        above = outline.parent[line]
        while above >= 0:
            if above in self.folded and any(low <= line < high for low, high in outline.hidden(above)):
                changed |= self._set(above, False)
            above = outline.parent[above]
        if changed:
            self._apply()
        return changed

    def is_shown(self, line: int) -> bool:
        """Whether nothing hides a line."""
        at = bisect_left(self.shown, line)
        return at < len(self.shown) and self.shown[at] == line

    def index(self, line: int) -> int:
        """Where a line is among those shown, or the one that hides it."""
        outline = self.outline
        while outline is not None and line >= 0 and not self.is_shown(line):
            line = outline.parent[line]
        return nearest(self.shown, max(0, line))

    def level(self, step: int) -> None:
        """Fold the deepest level that is shown (-1), or open the topmost one that is folded (1): chains and runs when
        nothing else is left."""
        outline = self.outline
        if outline is None:
            return
        if step < 0:
            lines = [i for i in self.shown if outline.size[i] > 1 and i not in self.folded]
            edge = max((outline.depth[i] for i in lines), default=0)
        else:
            hidden = [i for i in self.shown if i in self.folded]
            lines = [i for i in hidden if not outline.flags[i] & GROUP] or hidden
            edge = min((outline.depth[i] for i in lines), default=0)
        changed = [self._set(i, step < 0) for i in lines if outline.depth[i] == edge]
        if any(changed):
            self._apply()

    def all(self, fold: bool) -> None:
        """Fold everything down to the headline, or open everything, chains and runs too."""
        outline = self.outline
        if outline is None:
            return
        self._folded.clear()
        self._opened.clear()
        if fold:
            head = outline.trace.headline
            level = outline.depth[outline.line_of[head.span.span_id]] if head is not None else 0
            depth, size, flags = outline.depth, outline.size, outline.flags
            self._folded = {
                outline.nodes[i].span.span_id
                for i in range(len(depth))
                if size[i] > 1 and depth[i] >= level and not flags[i] & GROUP
            }
        else:
            lines = (*outline.chains, *outline.runs)
            self._opened = {node.span.span_id for line in lines for node in outline.members(line)}
        self._apply()
