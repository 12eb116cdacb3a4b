"""The prompt: what is pasted into it."""

from __future__ import annotations

import pytest
from textual import events

from tests.tui.driver import Open
from tui.widgets.prompt import MAX_LENGTH


@pytest.mark.parametrize("key", ["slash", "colon"])
@pytest.mark.parametrize(
    ("pasted", "becomes"),
    [
        ("verb=get\n  ns=default\r\n", "verb=get ns=default"),
        ("a\x1b[31mred\x07\x9b2J\u202eb\u200bc\0d", "a[31mred2Jbcd"),
        ("\n", ""),
        ("", ""),
        ("x" * 3_000, "x" * MAX_LENGTH),
        ("\u0000" * 200_000, ""),
    ],
)
async def test_what_is_pasted_is_one_printable_line_of_what_fits(
    drive: Open,
    key: str,
    pasted: str,
    becomes: str,
) -> None:
    async with drive((80, 24)) as d:
        await d.press(key)
        d.app.post_message(events.Paste(pasted))
        await d.settle()
        assert d.app.requests.prompt.is_open, "a line end in it is no Enter"
        assert d.app.requests.prompt.line.value == becomes
        assert "\x1b" not in d.screen
        await d.press("a", "b")
        assert d.app.requests.prompt.line.value == (becomes + "ab")[:MAX_LENGTH]
        await d.press("escape")
        assert d.place == "requests"


async def test_what_is_pasted_takes_the_place_of_what_is_selected(drive: Open) -> None:
    async with drive((80, 24)) as d:
        await d.press("slash", "a", "b", "c", "shift+left", "shift+left")
        d.app.post_message(events.Paste("xyz"))
        await d.settle()
        assert d.app.requests.prompt.line.value == "axyz"


async def test_a_paste_without_a_prompt_does_nothing(drive: Open) -> None:
    async with drive((80, 24)) as d:
        before = d.lines
        d.app.post_message(events.Paste("q\nq\n"))
        await d.settle()
        assert d.lines == before
