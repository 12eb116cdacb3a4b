"""Lines of a log, which is looked at on a terminal and searched by lines."""

from __future__ import annotations

import logging
from typing import Any

from receiver.plain_text import one_line


class LogLines(logging.Formatter):
    """A record is one line, whatever is named in it; a traceback follows it as lines of its own, the same way."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Logging's: the line."""
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        """Logging's: the traceback."""
        return "\n".join(map(one_line, super().formatException(ei).split("\n")))
