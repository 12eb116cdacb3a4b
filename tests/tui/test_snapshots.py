"""Pictures of the screens: few and small, with data, clock and time zone fixed.

`pytest tests/tui/test_snapshots.py --snapshot-update` makes them anew; look at them before they are committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from receiver.store.database import Database
from tests.tui.fixed_requests import NOON, fixed_database
from tests.tui.still_feed import SECOND, StillFeed
from tests.tui.test_receiver_screen import STATUS
from tui.app import TraceApp
from tui.config import Settings
from tui.glyphs import ASCII, UNICODE, Glyphs

Compare = Callable[..., bool]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "TEXTUAL_COLOR_SYSTEM", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("TZ", "UTC")


def app_of(feed: StillFeed | None = None, theme: str = "dark", glyphs: Glyphs = UNICODE) -> TraceApp:
    return TraceApp(
        feed or StillFeed(fixed_database()), Settings(theme=theme, utc=True), title="prod-eu", glyphs=glyphs
    )


def quiet_receiver() -> StillFeed:
    feed = StillFeed(Database.memory(), live=True)
    feed.status = {
        **STATUS,
        "started": NOON,
        "accepted": 0,
        "requests": 0,
        "bytes_in": 0,
        "live_bytes": 0,
        "senders": [],
    }
    feed.clock = NOON + 125 * SECOND
    return feed


def busy_receiver() -> StillFeed:
    feed = StillFeed(fixed_database(), live=True)
    senders = [
        {**one, "last": NOON + 309 * SECOND, "agent": "OTel OTLP Exporter Go/1.40.0"} for one in STATUS["senders"]
    ]
    feed.status = {**STATUS, "started": NOON, "senders": senders}
    feed.clock = NOON + 310 * SECOND
    feed.rates = (412.0, 37.4)
    return feed


def turned(keys: Iterable[str] = ()) -> Callable[[Any], Any]:
    """Press keys once the feed has read, and let the screens take it up."""

    async def before(pilot: Any) -> None:
        while pilot.app.feed._database is None:  # the app starts to read after its first frame
            await pilot.pause(0.01)
        pilot.app._tick()
        for key in keys:
            await pilot.press(key)
            await pilot.pause()
            pilot.app._tick()
        await pilot.pause()
        requests = pilot.app.requests
        for _ in range(500):  # what verdicts say comes a little later
            pilot.app._tick()
            await pilot.pause(0.01)
            if pilot.app.screen is not requests or not requests._verdicts.waiting:
                break
        pilot.app._tick()
        await pilot.pause()

    return before


@pytest.mark.parametrize(
    ("size", "theme", "keys"),
    [
        ((160, 45), "dark", ("down", "down")),
        ((80, 24), "dark", ("down", "D")),
        ((80, 24), "light", ("slash", "p", "o", "d", "s", "space", "x", "equals_sign", "1")),
        ((80, 24), "sixteen", ("ctrl+z", "down")),
    ],
    ids=["wide", "narrow", "light-filter", "sixteen"],
)
def test_requests(snap_compare: Compare, size: tuple[int, int], theme: str, keys: tuple[str, ...]) -> None:
    assert snap_compare(app_of(theme=theme), terminal_size=size, run_before=turned(keys))


def test_requests_ascii_and_tiny(snap_compare: Compare) -> None:
    app = app_of(glyphs=ASCII)
    assert snap_compare(app, terminal_size=(60, 15), run_before=turned(("down", "down", "down", "down")))


def test_receiver_wide(snap_compare: Compare) -> None:
    assert snap_compare(app_of(busy_receiver()), terminal_size=(160, 45), run_before=turned(("tab", "tab", "tab")))


def test_receiver_when_nothing_arrives(snap_compare: Compare) -> None:
    assert snap_compare(app_of(quiet_receiver()), terminal_size=(80, 24), run_before=turned(("tab", "tab", "tab")))


def test_help(snap_compare: Compare) -> None:
    assert snap_compare(app_of(), terminal_size=(80, 24), run_before=turned(("question_mark",)))
