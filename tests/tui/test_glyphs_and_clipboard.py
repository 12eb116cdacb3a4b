"""Glyph sets and the clipboard's words."""

from __future__ import annotations

from dataclasses import fields

import pytest
from rich.cells import cell_len

from receiver.traces.model import Component
from tui import clipboard
from tui.glyphs import ASCII, UNICODE, Glyphs, choose


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_every_glyph_is_one_cell(glyphs: Glyphs) -> None:
    for field in fields(Glyphs):
        value = getattr(glyphs, field.name)
        if field.name in ("name", "ascii", "fill", "share"):
            continue
        assert cell_len(value) == (9 if field.name == "eighths" else 1), field.name
    assert set(glyphs.fill) == set(Component)
    assert all(cell_len(fill) == 1 for fill in (*glyphs.fill.values(), *glyphs.share.values()))
    if glyphs.ascii:
        assert all(str(getattr(glyphs, f.name)).isascii() for f in fields(Glyphs))


@pytest.mark.parametrize(
    ("env", "encoding", "expected"),
    [
        ({"TERM": "xterm-256color"}, "utf-8", UNICODE),
        ({"TERM": "screen"}, "UTF-8", UNICODE),
        ({"TERM": "xterm"}, "iso8859-1", ASCII),
        ({"TERM": "xterm"}, "ascii", ASCII),
        ({"TERM": "xterm"}, None, ASCII),
        ({"TERM": "linux"}, "utf-8", ASCII),
        ({"TERM": "vt220"}, "utf-8", ASCII),
    ],
)
def test_choice(env: dict[str, str], encoding: str | None, expected: Glyphs) -> None:
    assert choose(env, encoding) is expected


class FakeApp:
    def __init__(self) -> None:
        self.sent: list[str] = []

    def copy_to_clipboard(self, text: str) -> None:
        self.sent.append(text)


def test_copy_says_what_is_known() -> None:
    app = FakeApp()
    assert clipboard.copy(app, "0af7", "trace id") == "Trace id sent to the clipboard (OSC 52): 0af7"
    assert app.sent == ["0af7"]


def test_a_paste_is_only_text() -> None:
    app = FakeApp()
    clipboard.copy(app, "rm\x1b[201~\x07\ud800 -rf\u202e\n", "value")
    assert app.sent == ["rm[201~ -rf\n"]


def test_more_than_a_terminal_takes_is_not_sent() -> None:
    app = FakeApp()
    assert "more than terminals take" in clipboard.copy(app, "x" * 80_000, "raw trace")
    assert app.sent == []


@pytest.mark.parametrize(
    ("locale", "glyphs"),
    [
        ({}, UNICODE),
        ({"LC_ALL": "C"}, ASCII),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, ASCII),  # as Python leaves LANG=C
        ({"LC_CTYPE": "C.UTF-8"}, UNICODE),  # as Python leaves no locale at all
        ({"LANG": "POSIX"}, ASCII),
        ({"LC_ALL": "de_DE.ISO-8859-15@euro", "LANG": "C.UTF-8"}, ASCII),
        ({"LANG": "de_DE.utf8@euro"}, UNICODE),
        ({"LANG": "en_US"}, UNICODE),
        ({"LC_CTYPE": "en_US.UTF-8", "LANG": "C"}, UNICODE),
        ({"LC_ALL": "", "LC_CTYPE": "", "LANG": "en_US.UTF-8"}, UNICODE),
    ],
)
def test_the_operators_locale_counts_not_what_python_makes_of_it(locale: dict[str, str], glyphs: Glyphs) -> None:
    assert choose({"TERM": "xterm-256color", **locale}, "utf-8") is glyphs
