"""Text to the operator's clipboard, through the terminal itself.

OSC 52 is the only way that also works over ssh. The terminal never answers, so nobody can say "copied": tmux drops
it unless `set -s set-clipboard on`, macOS Terminal and GNU screen never take it. The words used say what is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from receiver.plain_text import one_line
from tui.terminal_text import count, printable, size

LIMIT: Final = 74_994
"""Bytes sent at most: xterm and many others drop longer OSC 52 strings (100,000 bytes once in base64)."""


class Clipboard(Protocol):
    """What is needed of a Textual app: the two ways to the clipboard."""

    def copy_to_clipboard(self, text: str) -> None:
        """One line, whatever is in `text`."""

    def copy_lines_to_clipboard(self, lines: Sequence[str]) -> None:
        """Several lines, none of which is more than one."""


def copy(app: Clipboard, text: str, what: str) -> str:
    """Send `text` to the clipboard as one line, and return the sentence for a toast.

    A shell runs what is pasted at each line end. So there is none in it, nor another control character: they are shown
    escaped (`receiver.plain_text`), and a paste is only text.

    Args:
        app: the app whose terminal gets it.
        text: any text, a span's or somebody else's; more than `LIMIT` bytes are not sent.
        what: what it is, for the sentence: "trace id", "raw span".
    """
    length = len(text)
    if length <= LIMIT:
        text = one_line(text)
        length = _bytes(text)
    if length > LIMIT:
        return _too_large(what, length)
    app.copy_to_clipboard(text)
    return f"{_capital(what)} sent to the clipboard (OSC 52): {printable(text, 48)}"


def copy_lines(app: Clipboard, lines: Sequence[str], what: str) -> str:
    """As `copy`, for a text that has to be several lines; the sentence says how many.

    The line ends between them are ours; those within one of them are escaped.
    """
    length = sum(map(len, lines)) + len(lines)
    if length <= LIMIT:
        lines = [one_line(line) for line in lines]
        length = sum(map(_bytes, lines)) + len(lines)
    if length > LIMIT:
        return _too_large(what, length)
    app.copy_lines_to_clipboard(lines)
    first = printable(lines[0] if lines else "", 48)
    how_many = "1 line" if len(lines) == 1 else f"{count(len(lines))} lines"
    return f"{_capital(what)} sent to the clipboard (OSC 52), {how_many}: {first}"


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _capital(what: str) -> str:
    return f"{what[:1].upper()}{what[1:]}"


def _too_large(what: str, length: int) -> str:
    return (
        f"The {what} is {size(length)}, more than terminals take by OSC 52 ({count(LIMIT)} bytes); "
        "`k8s-trace-tui show --raw` prints it."
    )
