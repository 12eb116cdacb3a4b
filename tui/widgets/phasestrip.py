"""Where a request's time went, as one line: its phases by time, the large ones with a bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from textual.strip import Strip

from receiver.traces.model import Component
from receiver.traces.phases import GROUPS, Phases
from tui.glyphs import Glyphs
from tui.shares import SHARES
from tui.terminal_text import duration, fit, width_of
from tui.theming import Palette
from tui.widgets.line import LineWidget, Part, strip

_LARGE: Final = 0.1
"""Share of the whole from which a group has a bar."""
_PART_BEFORE: Final = 10
"""What went by before the request is told when it is at least one of so many parts of it."""
_SHARE: Final = {phase: share for share in SHARES for phase in share.phases}


@dataclass(frozen=True, slots=True)
class Group:
    """A group of phases: what is said and drawn of it. Times in ns; `parts` are names of shares and their time."""

    name: str
    ns: int
    component: Component
    parts: Sequence[tuple[str, int]] = ()


def groups_of(phases: Phases, own: str, component: Component) -> list[Group]:
    """The groups that took time, the largest first; they sum to the duration.

    Args:
        own: what the time is called that no other group explains, and `component` whose it is.
    """
    groups = []
    for name, members in GROUPS.items():
        ns = phases.group(name)
        if ns <= 0:
            continue
        parts = [(_SHARE[phase].name, phases.ns[phase]) for phase in members if phases.ns[phase]]
        if name == "admission" and phases.hooks:  # as they were called
            parts = [(_SHARE[hook.phase].name, hook.ns) for hook in phases.hooks if hook.phase in members]
        whose = _SHARE[members[0]].component
        whose = component if name == "other" else Component.RUNTIME if name == "runtime" else whose
        groups.append(Group(own if name == "other" else name, ns, whose, parts))
    return sorted(groups, key=lambda group: -group.ns)


def phase_parts(groups: Sequence[Group], width: int, palette: Palette, glyphs: Glyphs, before: int = 0) -> list[Part]:
    """The strip's text, at most `width` cells. What has no room is left out, the smallest first, and summed as `rest`
    as long as that has.

    Args:
        before: nanoseconds of authentication before the request, which are no part of it.
    """
    room = width - 2
    if room < 8 or not groups:
        return []
    total = sum(group.ns for group in groups)
    told = f"  + authentication before {duration(before)}" if before * _PART_BEFORE >= total and before else ""
    if room >= 3 * len(told):
        room -= len(told)
    else:
        told = ""
    least = max(6, room // 6)  # cells of all bars together
    for many in range(len(groups), 0, -1):
        shown = list(groups[:many])
        rest = total - sum(group.ns for group in shown)
        if rest:
            shown.append(Group("rest", rest, Component.OTHER))
        bars = [bool(group.parts) and group.ns >= _LARGE * total for group in shown]
        free = room - sum(width_of(_text(group)) for group in shown) - 2 * (len(shown) - 1) - sum(bars)
        if free >= least or many == 1:
            break
    if free < 2:  # hardly a word
        bars = [False] * len(shown)
        if sum(width_of(_text(group)) for group in shown) + 2 * (len(shown) - 1) > room:
            return [(" ", palette.base), (fit(_text(groups[0]), room), palette.base)]
    out: list[Part] = [(" ", palette.base)]
    for at, (group, bar) in enumerate(zip(shown, bars, strict=True)):
        if at:
            out.append(("  ", palette.base))
        out += [(f"{group.name} ", palette.dim), (duration(group.ns), palette.base if bar else palette.dim)]
        if bar:
            cells = int(free * group.ns / total)
            out += [(" ", palette.base), (_bar(group, cells, glyphs), palette.component[group.component])]
    return [*out, (told, palette.dim)]


def _text(group: Group) -> str:
    return f"{group.name} {duration(group.ns)}"


def _bar(group: Group, cells: int, glyphs: Glyphs) -> str:
    """A group's parts side by side, `cells` in all: each ends where its share of the time does."""
    text, reached = "", 0
    for name, ns in group.parts:
        reached += ns
        text += glyphs.share[name] * (round(cells * reached / group.ns) - len(text))
    return text


class PhaseStrip(LineWidget):
    """The phases of the trace on the screen."""

    DEFAULT_CSS = """
    PhaseStrip { height: 1; width: 100%; }
    """

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._groups: Sequence[Group] = ()
        self._before = 0

    def show(self, groups: Sequence[Group], before: int = 0) -> None:
        """Put these groups on the screen, and how long authentication took before them."""
        if (list(groups), before) != (list(self._groups), self._before):
            self._groups, self._before = groups, before
            self.refresh()

    def draw(self, y: int, width: int) -> Strip:
        """The line."""
        parts = phase_parts(self._groups, width, self.palette, self.glyphs, self._before)
        return strip(parts, width, self.palette.base)
