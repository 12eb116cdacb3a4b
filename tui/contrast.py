"""How well a colour is seen on another, and colours for a theme that has none of ours.

The measure is WCAG 2's contrast ratio, from 1 (the same) to 21 (black on white): text needs 4.5, large text and marks
need 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from textual.color import Color

READABLE: Final = 4.5
"""The ratio that derived colours have on their theme's ground; on its cursor line at least `SEEN`."""
SEEN: Final = 3.0
"""The ratio below which a colour is not offered."""
_STEPS: Final = 20
_CURSOR: Final = 1.4
"""The ratio of a cursor line to the ground, at least: that of our light theme."""
_FIRST_STEP: Final = 5


def luminance(colour: Color) -> float:
    """Relative luminance, 0 (black) to 1 (white), as WCAG 2 defines it."""

    def linear(value: int) -> float:
        share = value / 255
        return share / 12.92 if share <= 0.04045 else float(((share + 0.055) / 1.055) ** 2.4)

    return 0.2126 * linear(colour.r) + 0.7152 * linear(colour.g) + 0.0722 * linear(colour.b)


def contrast(one: Color, other: Color) -> float:
    """The contrast ratio of two opaque colours."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def legible(colour: Color, *grounds: tuple[Color, float]) -> Color:
    """The colour, or the nearest on its way to white or to black that has the ratio asked for on each ground."""
    ends = sorted((Color(0, 0, 0), Color(255, 255, 255)), key=lambda end: -contrast(end, grounds[0][0]))
    for end in ends:
        for step in range(_STEPS + 1):
            found = colour.blend(end, step / _STEPS)
            if all(contrast(found, ground) >= ratio for ground, ratio in grounds):
                return found
    return ends[0]


def derived(generated: Mapping[str, str], hues: Mapping[str, str]) -> dict[str, str]:
    """Our variables for a theme of Textual's own, seen on its background and on its cursor line.

    Args:
        generated: the variables that Textual makes of the theme; `background`, `foreground`, `primary`, `error`,
            `warning` and `success` are looked at, and are colours that are not the terminal's own.
        hues: our variables in a theme of ours as light or as dark as this one: what is not the theme's is from there.
    """
    ground, text, first = (Color.parse(generated[name]) for name in ("background", "foreground", "primary"))
    tints = (ground.blend(first, step / _STEPS) for step in range(_FIRST_STEP, _STEPS + 1))
    cursor = next((tint for tint in tints if contrast(tint, ground) >= _CURSOR), first)
    front = legible(text, (cursor, READABLE))
    on_both = ((ground, READABLE), (cursor, SEEN))
    own = {"state-error": generated["error"], "state-warning": generated["warning"], "state-ok": generated["success"]}
    found = {
        name: legible(Color.parse(own.get(name, hue)), *on_both)
        for name, hue in hues.items()
        if name.startswith(("component-", "state-"))
    }
    found["state-dim"] = legible(text.blend(ground, 0.4), (ground, SEEN + 0.5))
    found["key"] = legible(first, (ground, READABLE))
    found["rule"] = text.blend(ground, 0.75)
    found["cursor-background"], found["cursor-foreground"] = cursor, front
    return {name: colour.hex6.lower() for name, colour in found.items()}
