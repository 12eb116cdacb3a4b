"""Glyph sets and the clipboard's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st
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
        self.lines: list[list[str]] = []

    def copy_to_clipboard(self, text: str) -> None:
        self.sent.append(text)

    def copy_lines_to_clipboard(self, lines: Sequence[str]) -> None:
        self.lines.append(list(lines))


def test_copy_says_what_is_known() -> None:
    app = FakeApp()
    assert clipboard.copy(app, "0af7", "trace id") == "Trace id sent to the clipboard (OSC 52): 0af7"
    assert app.sent == ["0af7"]


def test_a_paste_is_only_text() -> None:
    app = FakeApp()
    clipboard.copy(app, "rm\x1b[201~\x07\ud800 -rf\u202e\n\t\r\u2028x\U000e0041\ufe0f", "value")
    assert app.sent == [r"rm\x1b[201~\x07\ud800 -rf\u202e\n\t\r\u2028x\U000e0041\ufe0f"]


def test_several_lines_are_said_to_be_several_and_none_of_them_is_more_than_one() -> None:
    app = FakeApp()
    said = clipboard.copy_lines(app, ["# a", "endpoint: x\nreboot\r", "\x1b[201~ü"], "recipe")
    assert said == "Recipe sent to the clipboard (OSC 52), 3 lines: # a"
    assert app.lines == [["# a", r"endpoint: x\nreboot\r", r"\x1b[201~ü"]]
    assert app.sent == []
    assert ", 1 line: a" in clipboard.copy_lines(app, ["a"], "recipe")


@given(st.lists(st.text()))
def test_whatever_is_copied_is_one_line_of_text_or_the_lines_that_were_meant(texts: list[str]) -> None:
    app = FakeApp()
    for text in texts:
        clipboard.copy(app, text, "value")
    clipboard.copy_lines(app, texts, "values")
    assert app.lines == [app.sent]
    for text, sent in zip(texts, app.sent, strict=True):
        assert sent.isprintable(), "no line end, no control, format or separator character, no surrogate"
        assert len(sent.splitlines()) <= 1
        sent.encode()
        if text.isascii() and text.isprintable():
            assert sent == text


def test_more_than_a_terminal_takes_is_not_sent() -> None:
    app = FakeApp()
    for size in (80_000, 10_000_000):
        assert "more than terminals take" in clipboard.copy(app, "x" * size, "raw trace")
        assert "more than terminals take" in clipboard.copy_lines(app, ["x" * (size // 2)] * 2, "raw trace")
    for text in ("\n" * 50_000, "ü" * 50_000):
        assert "more than terminals take" in clipboard.copy(app, text, "raw trace")
    assert app.sent == app.lines == []


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
