r"""Patterns of `=~`: whatever is written, and whatever they are matched with, they cannot explode.

They are RE2's (google-re2): an automaton in C++ that takes time linear in the text and memory up to a cap, so there is
nothing to interrupt. The others were tried and are not safe. Python's `re` backtracks and cannot be stopped; a ban on
nested quantifiers leaves `(a|aa)+$` and products of stars, which explode as well. The `regex` package can time out a
match but not the making of a pattern: `(((a{1000}){1000}){1000})` took all memory of the machine. What RE2 lacks for
it are look-around and references back.
"""

from __future__ import annotations

import re2

MAX_PATTERN = 512
"""Longest pattern in characters."""
MAX_TEXT = 64 * 1024
"""Bytes of a text that are looked at."""
_MEMORY = 4 << 20


class PatternError(ValueError):
    """Not a pattern; str() says what is wrong, without a full stop."""


class Pattern:
    """Looks for a pattern anywhere in a text, letter case does not matter. `^` and `$` are the ends of the text."""

    def __init__(self, text: str) -> None:
        """
        Raises:
            PatternError: it is too long, or none.
        """
        if len(text) > MAX_PATTERN:
            raise PatternError(f"it is longer than {MAX_PATTERN} characters")
        options = re2.Options()
        options.case_sensitive = False
        options.log_errors = False
        options.never_capture = True
        options.dot_nl = True
        options.max_mem = _MEMORY
        try:
            self._found = re2.compile(text.encode(errors="replace"), options).search
        except re2.error as error:
            said = error.args[0] if error.args else ""
            raise PatternError(said.decode(errors="replace") if isinstance(said, bytes) else str(said)) from None

    def holds(self, text: str) -> bool:
        """Whether the text contains the pattern."""
        return self._found(text.encode(errors="replace")[:MAX_TEXT]) is not None
