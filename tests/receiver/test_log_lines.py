"""A log's lines: one a record, and nothing in them that a terminal acts on."""

from __future__ import annotations

import logging
import sys

from receiver.log_lines import LogLines


def test_a_record_is_one_line_of_text_and_its_traceback_follows() -> None:
    try:
        raise ValueError("in a\x1b[2Jpath\rx")
    except ValueError:
        record = logging.LogRecord(
            "x", logging.ERROR, __file__, 1, "binding %s", ("/a\nk8s-trace-tui: owned\x07",), sys.exc_info()
        )
    text = LogLines("%(levelname)s %(message)s").format(record)
    first, *more = text.split("\n")
    assert first == r"ERROR binding /a\nk8s-trace-tui: owned\x07"
    assert more[0] == "Traceback (most recent call last):"
    assert more[-1] == r"ValueError: in a\x1b[2Jpath\rx"
    assert all(line.isprintable() for line in (first, *more))
