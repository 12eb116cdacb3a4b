"""Command lines of the processes here."""

from __future__ import annotations

import argparse
from typing import Final, NoReturn

from receiver.plain_text import one_line

_LONGEST: Final = 4_096


class CommandLine(argparse.ArgumentParser):
    """Complains without doing to a terminal what an argument that it repeats would do there."""

    def error(self, message: str) -> NoReturn:
        """Argparse's: usage and one line on standard error, exit code 2."""
        super().error(one_line(message[:_LONGEST]))
