"""OTLP JSON on the screen, and the choice at its foot: what they say of their keys."""

from __future__ import annotations

from tests.tui.driver import Open
from tui.screens.raw import TextLines


async def test_json_says_what_is_below_and_what_goes_on_to_the_right(drive: Open) -> None:
    async with drive((60, 15)) as d:
        await d.press("y")
        while "reading" in d.title:
            await d.settle()
        text = d.app.screen.query_one(TextLines)
        longest = max(map(len, text.lines))
        assert "more lines (pgdn)" in d.lines[-2]
        while not text.wider:
            await d.press("pagedown")
        assert d.lines[-2].startswith(" → goes on to the right")
        for _ in range(longest // 16 + 5):
            await d.press("right")
        assert not text.wider
        assert text.left < longest, "there is an end to it"
        assert "to the right" not in d.lines[-2]
        await d.press("G")
        assert "more line" not in d.lines[-2]


async def test_a_choice_says_how_to_take_one_or_none(drive: Open) -> None:
    async with drive((60, 15), keymap={"choice.cancel": "x,escape"}) as d:
        await d.press("enter", "c")
        assert d.lines[-1] == " ⏎ take  x back  or its letter"
        await d.press("x")
        assert d.place == "trace"
        assert "or its letter" not in d.screen
