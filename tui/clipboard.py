"""Text to the operator's clipboard, through the terminal itself.

OSC 52 is the only way that also works over ssh. The terminal never answers, so nobody can say "copied": tmux drops
it unless `set -s set-clipboard on`, macOS Terminal and GNU screen never take it. The words used say what is known.
"""

from __future__ import annotations

from typing import Final, Protocol

from tui.terminal_text import count, printable, size

LIMIT: Final = 74_994
"""Bytes sent at most: xterm and many others drop longer OSC 52 strings (100,000 bytes once in base64)."""


class Clipboard(Protocol):
    """What is needed of a Textual app."""

    def copy_to_clipboard(self, text: str) -> None: ...


def copy(app: Clipboard, text: str, what: str) -> str:
    """Send `text` to the clipboard and return the sentence for a toast.

    Control characters other than line ends and tabs are left out, so that a paste into a shell is only text.

    Args:
        app: the app whose terminal gets it.
        text: any text; more than `LIMIT` bytes are not sent.
        what: what it is, for the sentence: "trace id", "raw span".
    """
    text = "".join(c for c in text if c in "\n\t" or (c.isprintable()))
    length = len(text.encode("utf-8", "replace"))
    if length > LIMIT:
        return (
            f"The {what} is {size(length)}, more than terminals take by OSC 52 ({count(LIMIT)} bytes); "
            "`k8s-trace-tui show --raw` prints it."
        )
    app.copy_to_clipboard(text)
    return f"{what[:1].upper()}{what[1:]} sent to the clipboard (OSC 52): {printable(text, 48)}"
