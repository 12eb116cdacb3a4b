"""The doctor's steps as lines of a screen: what is well side by side, what is wrong with its way out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from tui.clusters.doctor import PLAIN_SIGNS, SIGNS, WAY_OUT, Mark, Step
from tui.glyphs import Glyphs
from tui.terminal_text import printable, width_of
from tui.theming import Palette
from tui.widgets.line import Part
from tui.widgets.status import wrap_words

_INDENT: Final = "  "
_BESIDE: Final = 100
"""Cells from which two things that are well stand beside each other."""
_LONGEST: Final = 600
_MOST_LINES: Final = 6
_MOST_STEPS: Final = 200

Line = list[Part]


def needs_recipe(steps: Sequence[Step]) -> bool:
    """Whether the operator has to know how tracing is turned on by hand: that it is off is a reason why nothing arrives
    (etcd's alone is none), or no control plane could be looked at."""
    return any(step.off and step.mark is Mark.BAD for step in steps) or not any(step.part for step in steps)


def doctor_lines(
    steps: Sequence[Step], width: int, palette: Palette, glyphs: Glyphs, key_for: Callable[[str], str]
) -> list[Line]:
    """All of them in their order.

    Args:
        steps: as the doctor gives them; their text comes from hosts and is made printable here.
        width: of the screen, in cells.
        key_for: how the Clusters screen is told to do what `Step.mended_by` says, "" where it cannot.
    """
    signs = PLAIN_SIGNS if glyphs.ascii else SIGNS
    arrow = "->" if glyphs.ascii else WAY_OUT
    styles = {Mark.GOOD: palette.ok, Mark.BAD: palette.error, Mark.UNKNOWN: palette.dim}
    lines: list[Line] = []
    beside = ""  # what is well and stands alone on the last line
    half = (width - len(_INDENT)) // 2
    for step in steps[:_MOST_STEPS]:
        text, sign, style = printable(step.text, _LONGEST), signs[step.mark], styles[step.mark]
        body = palette.dim if step.mark is Mark.UNKNOWN else palette.base
        cells = len(_INDENT) + 2 + width_of(text)
        if step.mark is Mark.GOOD and not step.way_out and width >= _BESIDE:
            if beside and width_of(beside) <= half - 2 and cells <= half:
                lines[-1] += [(" " * (half - width_of(beside)), palette.base), (f"{sign} ", style), (text, body)]
                beside = ""
                continue
            beside = f"{_INDENT}{sign} {text}"
        else:
            beside = ""
        way_out = _way_out(step, key_for)
        first, *more = wrap_words(text, max(20, width - 5), _MOST_LINES)
        lines.append([(_INDENT, palette.base), (f"{sign} ", style), (first, body)])
        lines += [[(f"    {part.strip()}", body)] for part in more]
        if not way_out:
            continue
        style = palette.dim if step.mark is Mark.UNKNOWN else palette.title
        if not more and cells + 2 + width_of(f"{arrow} {way_out}") < width:
            lines[-1].append((f"  {arrow} {way_out}", style))
            continue
        first, *more = wrap_words(way_out, max(20, width - 7), _MOST_LINES)
        lines.append([(f"    {arrow} {first}", style)])
        lines += [[(f"      {part.strip()}", style)] for part in more]
    if len(steps) > _MOST_STEPS:
        lines.append([(f"{_INDENT}and {len(steps) - _MOST_STEPS} more: k8s-trace-tui doctor", palette.dim)])
    return lines


def _way_out(step: Step, key_for: Callable[[str], str]) -> str:
    """What to do, as the doctor says it, and by a key where there is one: `KEYS: arm it (one restart), or COMMAND`."""
    way_out = printable(step.way_out, _LONGEST)
    here = key_for(step.mended_by) if step.mended_by else ""
    if not here or not way_out:
        return here or way_out
    what, colon, command = way_out.partition(": ")
    return f"{here}: {what}, or {command}" if colon else f"{here}, or {way_out}"
