"""Driving the application in a test: keys in, the screen's text out, and no waiting by the clock.

Textual's own pilot takes an application for idle when the process used less than 1 ms of CPU in the last 20 ms
(textual/_wait.py, 8.2), asks that twice a key, and gives up after a second. Most of a key's time was that, and on a
busy machine it was no answer. `quiet` asks what is really left to do.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

from textual._context import active_app
from textual.pilot import Pilot
from textual.worker import WorkerState

from receiver.traces.listing import Row
from receiver.traces.model import TraceSummary
from tests.tui.still_feed import StillFeed
from tui.app import TraceApp
from tui.config import Settings
from tui.glyphs import UNICODE
from tui.screens.request_lines import RequestLines
from tui.wording import Told

_CALM_LOOKS: Final = 3
_PAUSE_SECONDS: Final = 0.002
_SOON_SECONDS: Final = 0.02
_KEY_NAMES: Final = {
    " ": "space",
    "=": "equals_sign",
    '"': "quotation_mark",
    "-": "minus",
    ".": "full_stop",
    "/": "slash",
}


async def quiet(min_sleep: float = 0.0, max_sleep: float = 1.0) -> None:
    """Until no callback of the event loop is due, nor a timer within 20 ms, and no worker of the application runs;
    `max_sleep` seconds at most.

    Takes the place of Textual's `wait_for_idle`, whose arguments it has.
    """
    loop: Any = asyncio.get_running_loop()
    until = time.monotonic() + max_sleep
    calm = 0
    while calm < _CALM_LOOKS and time.monotonic() < until:
        await asyncio.sleep(0)
        soon = loop.time() + _SOON_SECONDS
        if loop._ready:  # asyncio tells it in no other way
            calm = 0
        elif due := [timer.when() for timer in loop._scheduled if not timer.cancelled() and timer.when() <= soon]:
            calm = 0
            await asyncio.sleep(max(0.0, min(due) - loop.time()))
        elif _workers_run():
            calm = 0
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            calm += 1
            if calm == 1:  # what a thread hands over comes through the selector
                await asyncio.sleep(_PAUSE_SECONDS / 2)


def _workers_run() -> bool:
    app = active_app.get(None)
    return app is not None and any(one.state in (WorkerState.PENDING, WorkerState.RUNNING) for one in app.workers)


class Driven:
    """An app under test, its text and its toasts."""

    def __init__(self, app: TraceApp, pilot: Pilot[Any], feed: StillFeed) -> None:
        self.app, self.pilot, self.feed = app, pilot, feed

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.settle()

    async def type(self, text: str) -> None:
        await self.press(*(_KEY_NAMES.get(character, character) for character in text))

    async def settle(self) -> None:
        await self.pilot.pause()
        self.app._tick()
        await self.pilot.pause()

    async def command(self, text: str) -> None:
        self.app.run_command(text)
        await self.settle()

    @property
    def lines(self) -> list[str]:
        return [strip.text.rstrip() for strip in self.app.screen._compositor.render_strips()]

    @property
    def screen(self) -> str:
        return "\n".join(self.lines)

    @property
    def title(self) -> str:
        return self.lines[1]

    @property
    def toasts(self) -> list[str]:
        return [toast.text for toast in self.app.toasts.told]

    @property
    def count(self) -> int:
        found = re.search(r"\[([\d,]+) of", self.title)
        assert found, self.title
        return int(found[1].replace(",", ""))

    @property
    def listed(self) -> list[Row]:
        """The rows on the screen."""
        source = self.app.requests.table.source
        assert isinstance(source, RequestLines)
        return source.rows(list(self.app.requests.table.on_screen))

    @property
    def rows(self) -> list[TraceSummary]:
        """What those say."""
        return [row.summary for row in self.listed]

    @property
    def all_rows(self) -> list[TraceSummary]:
        """All rows of the list."""
        return self.feed.rows(self.feed.snapshot, range(len(self.feed.snapshot.selection.slots)))

    def told(self, row: Row) -> tuple[int, Told] | None:
        """What the list knows of a row's verdict."""
        number = int(row.summary.trace_id, 16)
        return self.app.requests._verdicts.get((number >> 64, number & 0xFFFFFFFFFFFFFFFF, row.summary.spans))

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for what a worker does; half a minute at most."""
        end = time.monotonic() + 30
        while not holds():
            assert time.monotonic() < end, self.screen
            await self.pilot.pause(0.005)
            self.app._tick()

    @property
    def place(self) -> str:
        return str(getattr(self.app.screen, "PLACE", ""))


Open = Callable[..., AbstractAsyncContextManager[Driven]]


@asynccontextmanager
async def open_app(
    size: tuple[int, int] = (150, 40), feed: StillFeed | None = None, **settings: Any
) -> AsyncIterator[Driven]:
    """The application on a feed of a demo's requests, its first list read; `settings` are those of config.yaml."""
    feed = feed or StillFeed()
    glyphs = settings.pop("glyphs", UNICODE)
    app = TraceApp(feed, Settings(utc=True, **settings), title="demo", glyphs=glyphs)
    async with app.run_test(size=size, notifications=True) as pilot:
        driven = Driven(app, pilot, feed)
        while feed.snapshot.loading is not None:  # the app starts to read after its first frame
            await pilot.pause(0.01)
        await driven.settle()
        yield driven
