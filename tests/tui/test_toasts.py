"""Toasts: one at a time, above the keys, over nothing."""

from __future__ import annotations

import pytest

from tests.tui.driver import Open
from tui.toasts import Toast, Toasts


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_newest_replaces_the_one_before_and_goes_by_itself() -> None:
    clock = Clock()
    toasts = Toasts(clock)
    toasts.say(Toast("one"))
    toasts.say(Toast("two", wrong=True))
    assert toasts.current == Toast("two", wrong=True)
    clock.now += Toast("two").seconds
    assert toasts.current is None
    assert [toast.text for toast in toasts.told] == ["one", "two"]


def test_the_same_is_told_once_and_stays_for_longer() -> None:
    clock = Clock()
    toasts = Toasts(clock)
    toasts.say(Toast("copied"))
    clock.now += 3
    toasts.say(Toast("copied"))
    clock.now += 3
    assert toasts.current == Toast("copied")
    assert len(toasts.told) == 1


def test_what_was_lined_up_is_shown_in_its_time_whatever_comes_between() -> None:
    clock = Clock()
    toasts = Toasts(clock)
    toasts.line_up([Toast("first", True), Toast("second", True)])
    assert toasts.current == Toast("first", True)
    toasts.say(Toast("copied"))
    assert toasts.current == Toast("copied")
    seen = []
    while (toast := toasts.current) is not None:
        seen.append(toast.text)
        clock.now += toast.seconds
    assert seen == ["copied", "first", "second"]


def test_a_long_sentence_stays_long_enough_to_be_read_and_no_longer() -> None:
    assert Toast("x").seconds < Toast("x" * 100).seconds < Toast("x" * 400).seconds <= 12


LONG = (
    "The file somewhere/quite/far/away.yaml has a key that is none: "
    + "it may be one of these " * 5
    + "or this last one."
)


@pytest.mark.parametrize("size", [(80, 24), (60, 15), (150, 40)])
@pytest.mark.parametrize("sentence", ["Trace id sent to the clipboard", LONG])
async def test_it_is_above_the_keys_and_covers_neither_them_nor_the_cursor(
    drive: Open,
    size: tuple[int, int],
    sentence: str,
) -> None:
    async with drive(size) as d:
        await d.press("G")  # the cursor on the last line: where a toast would be
        cursor, keys, hint = d.app.requests.table.cursor, d.lines[-1], d.lines[-2]
        for _ in range(3):
            d.app.say("Another one")
            d.app.say(sentence, wrong=True)
        await d.settle()
        assert d.lines[-1] == keys
        text = " ".join(line.strip() for line in d.lines)
        assert text.count(sentence.strip()[:30]) == 1, "said once"
        assert "Another one" not in text, "one at a time"
        assert sentence.strip()[-20:] in text, "all of it"
        table = d.app.requests.table
        assert table.cursor == cursor
        assert cursor in table.on_screen, "the row that one looks at stays in sight"
        if sentence != LONG:
            assert sentence in d.lines[-2], "a short one takes the hint's line and no other"
        d.app.toasts.dismiss()
        await d.settle()
        assert d.lines[-2] == hint
        assert cursor in table.on_screen


async def test_the_prompt_is_never_hidden(drive: Open) -> None:
    async with drive((80, 24)) as d:
        d.app.say("Something was copied")
        await d.settle()
        await d.press("slash", "a")
        assert d.lines[-2].startswith(" / a")
        assert "copied" not in d.screen, "who goes on has seen it"
        d.app.say("Something failed meanwhile", wrong=True)
        await d.settle()
        assert d.lines[-2].startswith(" / a")
        assert d.lines[-3] == " ! Something failed meanwhile"
        await d.press("escape")
        assert d.lines[-2] == " ! Something failed meanwhile"


async def test_on_a_trace_too_and_the_line_is_given_back(drive: Open) -> None:
    async with drive((80, 24)) as d:
        await d.press("enter")
        before = d.lines
        await d.press("colon", "escape")
        assert d.lines == before, "the prompt gives back what it took"
        d.app.say("The trace id was sent")
        await d.settle()
        assert d.lines[-2] == " The trace id was sent"
        assert d.lines[-1] == before[-1]
        d.app.toasts.dismiss()
        await d.settle()
        assert d.lines == before


async def test_what_was_done_here_is_not_told_on_the_next_view_but_what_failed_is(drive: Open) -> None:
    async with drive() as d:
        d.app.say("Done")
        await d.press("tab")
        assert "Done" not in d.lines[-2]
        d.app.say("Not done", wrong=True)
        await d.press("q")
        assert d.lines[-2] == " ! Not done"


async def test_what_a_toast_quotes_is_printable(drive: Open) -> None:
    async with drive() as d:
        d.app.say("The name is \x1b]0;evil\x07 [bold]x[/bold] \u202ebad")
        await d.settle()
        assert "\x1b" not in d.screen
        assert "\u202e" not in d.screen
        assert "[bold]x[/bold]" in d.lines[-2]
