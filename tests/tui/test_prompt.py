"""The prompt: what is pasted into it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from textual import events

import tui
from receiver.plain_text import MAX_COMBINING
from receiver.store.database import Database
from tests.receiver.traces.shapes import HTTP, PODS, SERVER, Recorder
from tests.tui.driver import Open
from tests.tui.still_feed import StillFeed, chunks_of
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


EVIL = "x\x1b[31m\x9b2J\u202e\u200b\x07"
MARKED = "web\u0301" + "\u0308" * 40


def _stacked(text: str) -> int:
    """Marks that sit on one character, at most."""
    runs = re.findall("[\u0300-\u036f]+", text)
    return max(map(len, runs), default=0)


@pytest.mark.parametrize("way", ["pasted", "typed", "set", "copied in here", "recalled"])
async def test_no_more_marks_sit_on_a_character_than_in_a_table(drive: Open, way: str) -> None:
    async with drive((80, 24)) as d:
        prompt = d.app.requests.prompt
        if way == "recalled":
            prompt.remember("/", MARKED)
        await d.press("slash")
        if way == "pasted":
            d.app.post_message(events.Paste(MARKED))
        elif way == "typed":
            for character in MARKED:
                prompt.line.post_message(events.Key(character, character))
        elif way == "set":
            prompt.line.value = MARKED
        elif way == "recalled":
            await d.press("up")
        else:
            d.app.copy_to_clipboard(MARKED)
            prompt.line.action_paste()
        await d.settle()
        assert prompt.line.value.startswith("web\u0301")
        assert _stacked(d.screen) <= MAX_COMBINING
        assert "web" in d.lines[-2]
        await d.press("left", "left", "shift+left")  # the cursor and what is selected are segments of their own
        assert _stacked(d.screen) <= MAX_COMBINING


async def test_what_is_completed_is_found_and_drawn_like_everything_else(drive: Open) -> None:
    recorder = Recorder()
    for number in range(3):
        recorder.span(f"GET {PODS}", SERVER, scope=HTTP, trace=str(number), values=_url(MARKED if number else EVIL))
    database = Database.memory()
    database.append(chunks_of(recorder.requests()))
    async with drive((150, 24), feed=StillFeed(database)) as d:
        await d.press("slash")
        await d.type("ua=")
        for _ in range(4):
            await d.until(lambda: bool(d.app.requests._offers[1].offers) or d.app.requests.prompt.line.value != "ua=")
            await d.press("tab")
            assert _stacked(d.screen) <= MAX_COMBINING
            assert not [one for one in EVIL if one in d.screen and not one.isprintable() and one != "\n"]
        assert d.app.requests.prompt.line.value != "ua="


def _url(agent: str) -> dict[str, Any]:
    return {"http.target": PODS, "http.method": "GET", "http.user_agent": agent, "http.status_code": 200}


def test_there_is_no_other_place_to_write_in() -> None:
    others = [
        path.name
        for path in Path(tui.__file__).parent.rglob("*.py")
        if path.name != "field.py" and re.search(r"\bInput\(\w|\((Input|TextArea)\b.*\):$", path.read_text(), re.M)
    ]
    assert others == []
