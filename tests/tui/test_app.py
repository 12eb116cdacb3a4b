"""The application around the screens: slow terminals, colours, ticks, memory."""

from __future__ import annotations

import gc
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from textual import events
from textual.drivers._writer_thread import MAX_QUEUED_WRITES, WriterThread

from tests.tui.driver import Open
from tests.tui.still_feed import StillFeed
from tui.app import BEHIND, SLOW_TICKS, TraceApp, few_colours, frames_waiting
from tui.config import Settings


class StuckTerminal:
    """A terminal whose other end does not read until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def write(self, text: str) -> int:
        self.go.wait(10)
        return len(text)

    def flush(self) -> None:
        """Nothing to do."""

    def fileno(self) -> int:
        return 2


def test_frames_that_wait_are_counted_in_the_driver_of_this_textual() -> None:
    """Textual's internals: when this fails after an upgrade, `frames_waiting` must be looked at."""
    terminal = StuckTerminal()
    writer = WriterThread(terminal)  # type: ignore[arg-type]
    app: Any = SimpleNamespace(_driver=SimpleNamespace(_writer_thread=writer))
    assert frames_waiting(app) == 0
    writer.start()
    for _ in range(BEHIND + 3):
        writer.write("frame")
    assert frames_waiting(app) > BEHIND
    assert BEHIND + 3 < MAX_QUEUED_WRITES
    terminal.go.set()
    writer.stop()
    assert frames_waiting(app) == 0


@pytest.mark.parametrize("app", [SimpleNamespace(), SimpleNamespace(_driver=None), SimpleNamespace(_driver=object())])
def test_another_driver_counts_as_one_that_keeps_up(app: Any) -> None:
    assert frames_waiting(app) == 0


async def test_a_terminal_that_is_behind_gets_no_frames_and_is_told_of(
    drive: Open,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with drive() as d:
        painted: list[int] = []
        monkeypatch.setattr(d.app.requests, "tick", lambda: painted.append(1))
        monkeypatch.setattr("tui.app.frames_waiting", lambda app: BEHIND + 1)
        d.app._left_out = 0
        for _ in range(SLOW_TICKS):
            d.app._tick()
        assert painted == []
        assert d.app.slow_terminal
        monkeypatch.undo()
        await d.settle()
        assert "! slow terminal" in d.lines[0]
        d.app._slow_until = 0.0
        await d.settle()
        assert "slow terminal" not in d.lines[0]


async def test_only_the_screen_in_front_is_looked_after(drive: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    async with drive() as d:
        await d.press("tab")
        ticks: list[int] = []
        monkeypatch.setattr(d.app.requests, "tick", lambda: ticks.append(1))
        d.app._tick()
        assert ticks == []


async def test_a_quiet_tick_paints_nothing(drive: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    async with drive() as d:
        await d.settle()
        painted: list[object] = []
        for widget in d.app.screen.walk_children():
            monkeypatch.setattr(widget, "refresh", lambda *a, widget=widget, **k: painted.append(widget))
        for _ in range(5):
            d.app._tick()
        assert painted == []


async def test_no_color_sends_none(drive: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with drive() as d:
        await d.press("ctrl+z", "down", "slash", "a")
        seen: set[bool] = set()
        for strip in d.app.screen._compositor.render_strips():
            for segment in strip:
                style = segment.style
                if style is not None:
                    assert style.color is None or style.color.is_default
                    assert style.bgcolor is None or style.bgcolor.is_default
                    seen.add(bool(style.reverse))
        assert seen == {True, False}, "the cursor is seen by reverse video"


@pytest.mark.parametrize(
    ("env", "few"),
    [
        ({"TERM": "xterm-256color"}, False),
        ({"TERM": "xterm"}, True),
        ({"TERM": "linux"}, True),
        ({"TERM": "xterm", "COLORTERM": "truecolor"}, False),
        ({"TERM": "xterm-kitty"}, False),
        ({}, True),
        ({"TERM": "xterm-256color", "TEXTUAL_COLOR_SYSTEM": "standard"}, True),
    ],
)
def test_few_colours(env: dict[str, str], few: bool) -> None:
    assert few_colours(env) is few


@pytest.mark.parametrize(("term", "theme"), [("xterm-256color", "dark"), ("linux", "sixteen")])
def test_the_theme_suits_the_terminal(monkeypatch: pytest.MonkeyPatch, term: str, theme: str) -> None:
    for name in ("COLORTERM", "TEXTUAL_COLOR_SYSTEM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", term)
    assert TraceApp(StillFeed()).theme == theme
    assert TraceApp(StillFeed(), Settings(theme="light")).theme == "light"


async def test_times_in_utc_or_in_the_local_zone(drive: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        async with drive() as d:
            assert d.lines[3].startswith(" 22:13:")
            await d.command("utc off")
            assert d.lines[3].startswith(" 03:43:")
    finally:
        monkeypatch.undo()
        time.tzset()


async def test_nothing_that_lives_long_is_looked_through_by_the_collector(drive: Open) -> None:
    async with drive() as d:
        await d.pilot.pause()
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0


async def test_nothing_moves_by_itself(drive: Open) -> None:
    async with drive() as d:
        assert d.app.animation_level == "none"
        await d.press("slash")
        assert not d.app.screen.query_one("Prompt").line.cursor_blink  # type: ignore[attr-defined]


async def test_keys_pressed_at_once_are_done_in_their_order(drive: Open) -> None:
    """None may be lost with the widgets of a screen that an earlier one closes, nor go to the list below."""
    async with drive() as d:
        for turn in range(5):
            for key in ("question_mark", "escape", "tab", "q", "down", "enter", "q", "colon"):
                d.app.post_message(events.Key(key, ":" if key == "colon" else None))
            for letter in "utc":
                d.app.post_message(events.Key(letter, letter))
            d.app.post_message(events.Key("enter", "\r"))
            await d.settle()
            await d.settle()
            assert d.app.is_running
            assert d.place == "requests"
            assert d.app.utc is (turn % 2 == 1)
            assert d.app.requests.table.cursor == turn + 1


async def test_keys_and_ticks_while_the_app_ends_do_nothing(drive: Open) -> None:
    async with drive() as d:
        for key in ("q", "q", "down", "question_mark"):
            d.app.post_message(events.Key(key, None))
        await d.pilot.pause()
        d.app._tick()
    assert d.app.return_code == 0
    d.app._tick()
