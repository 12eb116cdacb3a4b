"""The verdict's lines: broken between words, never between a number and its unit."""

from __future__ import annotations

import re

import pytest

from tui.widgets.verdict import wrap

SENTENCES = (
    "Mutating webhook label-injector took 1.51 s (60 %), all of it inside the webhook itself.",
    "Validating webhook name-policy did not answer within its 1 s timeout (40 % of the request).",
    "etcd took 12.1 ms of 3.2 MB.",
)


@pytest.mark.parametrize("width", range(19, 160, 7))
def test_a_number_keeps_its_unit(width: int) -> None:
    lines = wrap(SENTENCES, width, 50, "…")
    assert " ".join(lines) == " ".join(SENTENCES)
    assert all(len(line) <= width for line in lines)
    assert not [line for line in lines[1:] if re.match(r"(s|ms|MB|%)\b|%", line)]


def test_what_has_no_room_is_marked() -> None:
    (line,) = wrap(SENTENCES, 40, 1, "…")
    assert line.endswith(" …")
