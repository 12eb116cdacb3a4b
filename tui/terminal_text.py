"""Text as a terminal may show it: safe, and exactly as wide as it claims to be.

Everything that came from a span, a file or a peer passes through `printable` (or `fit`, which calls it) before
it is drawn. What must never reach a terminal: control characters (C0, C1, DEL), so no escape sequence; bidi
embeddings, overrides, isolates and marks; line and paragraph separators; zero-width and other invisible format
characters; lone surrogates; private-use and unassigned code points, whose width nobody knows. Each becomes one
visible cell, so that it is seen that something was there.

Widths are Rich's (`rich.cells`), since Textual lays out by them. Joiners and variation selectors are replaced, so
the width of a text is the sum of the widths of its characters.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from datetime import datetime, timezone
from functools import lru_cache
from typing import Final

from rich.cells import cell_len, get_character_cell_size

from receiver.plain_text import INVISIBLE, MAX_COMBINING

LIMIT: Final = 512
"""Characters of a text that are looked at unless the caller asks for more: wider than any line on a screen."""
REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
_DOTTED_CIRCLE: Final = "\N{DOTTED CIRCLE}"
_ELLIPSIS: Final = "…"

# The skin tone modifiers and regional indicators join their neighbours in some terminals and not in others.
_UNSTABLE: Final = INVISIBLE | set(range(0x1F1E6, 0x1F200)) | set(range(0x1F3FB, 0x1F400))

_ascii_only = False


def use_ascii(on: bool) -> None:
    """Say once, at the start, that this terminal can show nothing but ASCII: `printable` then replaces the rest
    by `?` and `fit` marks a cut with `~`."""
    global _ascii_only
    _ascii_only = on
    _shown.cache_clear()


def printable(text: str, limit: int = LIMIT) -> str:
    """`text` made safe for one line of a terminal, cut to `limit` characters (an ellipsis marks the cut).

    Never raises and never returns a control, format, separator, surrogate, private or unassigned character; a space
    is the only blank in it.
    """
    cut = len(text) > limit
    if cut:
        text = text[: max(0, limit)]
    if not (text.isascii() and text.isprintable()):
        text = _clean(text)
    if cut:
        text += "~" if _ascii_only else _ELLIPSIS
    return text


def printable_parts(texts: Iterable[str]) -> list[str]:
    """Parts of one line, each made `printable`. Marks are counted across them: they sit on the same character."""
    made: list[str] = []
    marks, begun = 0, False
    for text in texts:
        if text.isascii() and text.isprintable():
            marks = 0 if text else marks
        else:
            text, marks = _cleaned(text, marks, begun)
        begun = begun or bool(text)
        made.append(text)
    return made


def _clean(text: str) -> str:
    return _cleaned(text, 0, False)[0]


def _cleaned(text: str, marks: int, begun: bool) -> tuple[str, int]:
    """The text, and how many marks sit on its last character. Before it: `marks` of them, on something if `begun`."""
    out: list[str] = []
    for character in text:
        shown, combining = _shown(character)
        if combining:
            if not out and not begun:
                out.append("?" if _ascii_only else _DOTTED_CIRCLE)  # else it would sit on the cell before this text
            marks += 1
            if marks > MAX_COMBINING:
                continue
        else:
            marks = 0
        out.append(shown)
    return "".join(out), marks


@lru_cache(maxsize=8192)
def _shown(character: str) -> tuple[str, bool]:
    """What stands for one character, and whether it goes on top of the one before."""
    code = ord(character)
    if 0x20 <= code < 0x7F:
        return character, False
    category = unicodedata.category(character)
    if category == "Zs":
        return " ", False
    if _ascii_only:
        return "?", False
    if code < 0x20:
        return chr(0x2400 + code), False  # ␀ ... ␟
    if code == 0x7F:
        return "\u2421", False  # ␡
    if category in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Me") or code in _UNSTABLE:
        return REPLACEMENT, False
    if get_character_cell_size(character) == 0:
        # Anything of no width that is not a combining mark would be invisible.
        return (character, True) if category == "Mn" else (REPLACEMENT, False)
    return character, False


def width_of(text: str) -> int:
    """Cells that a `printable` text takes."""
    return len(text) if text.isascii() else cell_len(text)


def fit(text: str, width: int, right: bool = False) -> str:
    """`text`, made printable and exactly `width` cells wide: padded with spaces, or cut with an ellipsis.

    Args:
        text: any text; it is cleaned here.
        width: cells; 0 and less give "".
        right: align to the right (the start of a long text is what stays either way).
    """
    if width <= 0:
        return ""
    text = printable(text, max(LIMIT, 4 * width))
    cells = width_of(text)
    if cells > width:
        text, cells = _cut(text, width)
    if cells == width:
        return text
    pad = " " * (width - cells)
    return pad + text if right else text + pad


def _cut(text: str, width: int) -> tuple[str, int]:
    """The longest start of `text` that leaves a cell for the ellipsis, with it; and its cells."""
    ellipsis = "~" if _ascii_only else _ELLIPSIS
    room = width - 1
    if text.isascii():
        return text[:room] + ellipsis, width
    cells = 0
    end = 0
    for end, character in enumerate(text):  # noqa: B007
        size = get_character_cell_size(character)
        if cells + size > room:  # marks of no width stay with the character that they sit on
            break
        cells += size
    return text[:end] + ellipsis, cells + 1


def wrap(text: str, width: int, most: int) -> tuple[list[str], bool]:
    """`text` as printable lines of at most `width` cells, broken at line ends of the text and where they are full.

    Args:
        text: any text; only as much of it is looked at as the lines can hold.
        width: cells a line, at least 2 so that a wide character has room.
        most: lines to return.

    Returns:
        The lines (unpadded), and whether some of the text was left out.
    """
    width = max(2, width)
    budget = most * width * 2
    head = text[:budget]
    lines: list[str] = []
    for line in head.replace("\r\n", "\n").split("\n"):
        line = printable(line.replace("\t", "    "), budget * 4)
        while width_of(line) > width:
            taken = _prefix(line, width)
            lines.append(line[:taken])
            line = line[taken:]
            if len(lines) > most:
                return lines[:most], True
        lines.append(line)
        if len(lines) > most:
            return lines[:most], True
    return lines, len(text) > budget


def _prefix(text: str, width: int) -> int:
    """How many characters of `text` take at most `width` cells, marks on the last one included."""
    if text.isascii():
        return min(width, len(text))
    cells = 0
    for at, character in enumerate(text):
        cells += get_character_cell_size(character)
        if cells > width:
            return max(1, at)
    return len(text)


def duration(ns: int) -> str:
    """Nanoseconds as at most three significant digits in one unit style: `2.53 s`, `41.2 ms`, `0.96 ms`.

    Never wider than 8 cells. Negative ones (clocks differ) keep their sign and may be 9 wide.
    """
    if ns < 0:
        return "-" + duration(-ns)
    if ns == 0:
        return "0 ms"
    if ns < 1_000:
        return f"{ns} ns"
    if ns < 9_995:
        return f"{ns / 1e6:.3f} ms"
    if ns < 999_500_000:
        return f"{_three(ns / 1e6)} ms"
    if ns < 999_500_000_000:
        return f"{_three(ns / 1e9)} s"
    if ns < 5_997_000_000_000:
        return f"{_three(ns / 60e9)} min"
    if ns < 359_820_000_000_000:
        return f"{_three(ns / 3600e9)} h"
    days = ns / 86400e9
    return f"{_three(days)} d" if days < 999.5 else f"{_three(days / 365.25)} y"


def _three(value: float) -> str:
    """Three significant digits, at most two of them after the point; the caller keeps `value` under 999.5."""
    if value < 9.995:
        return f"{value:.2f}"
    if value < 99.95:
        return f"{value:.1f}"
    return f"{value:,.0f}"


def offset(ns: int) -> str:
    """A time relative to another, in milliseconds with a sign: `+1,513.9 ms`, `+0.02 ms`, `-3.1 ms`.

    From 1,000 s on in whole seconds.
    """
    sign = "-" if ns < 0 else "+"
    size = abs(ns)
    if size >= 1_000_000_000_000:
        return f"{sign}{size / 1e9:,.0f} s"
    if size < 100_000:
        return f"{sign}{size / 1e6:.2f} ms"
    return f"{sign}{size / 1e6:,.1f} ms"


def clock(ns: int, utc: bool = False) -> str:
    """The time of day of nanoseconds since the epoch, to the millisecond: `12:04:41.118`. 0 means none was sent."""
    if ns <= 0:
        return "--:--:--.---"
    return f"{_moment(ns, utc):%H:%M:%S}.{ns // 1_000_000 % 1000:03d}"


def date_and_clock(ns: int, utc: bool = False) -> str:
    """Like `clock`, with the date before it: `2026-11-22 12:04:41.118`."""
    if ns <= 0:
        return "no time"
    return f"{_moment(ns, utc):%Y-%m-%d %H:%M:%S}.{ns // 1_000_000 % 1000:03d}"


def _moment(ns: int, utc: bool) -> datetime:
    # Clamped to the year 2500, so that no sender's clock makes datetime raise.
    return datetime.fromtimestamp(min(ns // 1_000_000_000, 16_725_225_600), tz=timezone.utc if utc else None)


def count(n: int) -> str:
    """An integer with thousands separators: `6,547`."""
    return f"{n:,}"


def counted(n: int, noun: str) -> str:
    """So many of something: `1 span`, `6,547 spans`."""
    return f"1 {noun}" if n == 1 else f"{count(n)} {noun}s"


def size(n: int) -> str:
    """Bytes in binary units, two significant digits below ten: `812 B`, `3.4 MiB`, `38 MiB`."""
    if n < 1024:
        return f"{n} B"
    value = float(n)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 9.95:
            return f"{value:.1f} {unit}"
        if value < 1023.5 or unit == "TiB":
            return f"{value:,.0f} {unit}"
    return f"{value:,.0f} TiB"
