"""Text from outside as one line that is only text, wherever it goes: to a terminal, a log, a clipboard, a shell.

What cannot be seen, or does something instead of being shown, becomes its escape (`\\n`, `\\x1b`, `\\u202e`), so that
it is seen that it was there and what it was: control characters (C0, C1, DEL), line and paragraph separators, bidi and
zero-width characters, tags, lone surrogates, private and unassigned code points, blanks other than a space.
"""

from __future__ import annotations

import shlex
import unicodedata
from functools import lru_cache
from typing import Final

MAX_COMBINING: Final = 3
"""Combining marks kept on one character. Living scripts use up to three; stacks of hundreds are an attack on the
lines above and below."""
INVISIBLE: Final = frozenset(
    {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2800, 0x3164, 0xFFA0}
    | set(range(0xFE00, 0xFE10))  # variation selectors: they change the width of the character before
    | set(range(0xE0000, 0xE1000))
)
"""Letters and marks that show nothing: Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties, as far as
`str.isprintable` takes them for printable."""
_WHITE: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def one_line(text: str) -> str:
    """`text` as one line of text and nothing else; what is none is escaped. Backslashes of the text stay as they are.

    Can be encoded as UTF-8, and is as long as `text` where that is a line of ordinary text already.
    """
    if text.isascii() and text.isprintable():
        return text
    out: list[str] = []
    marks = MAX_COMBINING  # one at the very start would sit on what stands before
    for character in text:
        shown, combining = _shown(character)
        if combining and marks >= MAX_COMBINING:
            shown = _escape(character)
        marks = marks + 1 if combining else 0
        out.append(shown)
    return "".join(out)


def shell_word(text: str) -> str:
    """`text` as one word of a command line that is said to an operator, who pastes it into a shell: quoted as a POSIX
    shell wants it, and with nothing in it that a shell or a terminal would act on.

    A word with control characters in it does not mean the same to the shell any more; nothing that is named rightly
    has any.
    """
    return shlex.quote(one_line(text))


def shell_operand(text: str) -> str:
    """As `shell_word`, for a word that stands where options may stand, too: a name that looks like one
    (`-oProxyCommand=...`) is taken for a name."""
    return f"-- {shell_word(text)}" if text.startswith("-") else shell_word(text)


def few_marks(text: str) -> str:
    """`text` without the combining marks beyond `MAX_COMBINING` on one character."""
    if text.isascii():
        return text
    out: list[str] = []
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        if marks <= MAX_COMBINING:
            out.append(character)
    return "".join(out)


@lru_cache(maxsize=8192)
def _shown(character: str) -> tuple[str, bool]:
    """What stands for one character, and whether it goes on top of the one before."""
    if not character.isprintable() or ord(character) in INVISIBLE or unicodedata.category(character) == "Me":
        return _escape(character), False
    return character, unicodedata.category(character) == "Mn"


def _escape(character: str) -> str:
    code = ord(character)
    short = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return _WHITE.get(character, short)
