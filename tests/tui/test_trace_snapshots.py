"""Pictures of the Trace screen; `pytest --snapshot-update` makes them anew, look at them before committing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from textual.pilot import Pilot

from receiver.store.database import Database
from tests.tui.still_feed import RECEIVED, SECOND, StillFeed, chunks_of
from tests.tui.traces_for_tests import slow_pod
from tui.app import TraceApp
from tui.config import Settings
from tui.glyphs import UNICODE
from tui.screens.trace import TraceScreen


@pytest.mark.parametrize(("size", "keys"), [((80, 24), ()), ((160, 45), ("j", "j", "j"))], ids=["80x24", "160x45"])
def test_trace(
    snap_compare: Callable[..., bool], monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], keys: tuple[str, ...]
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    database = Database.memory()
    database.append(chunks_of([slow_pod().export()]))
    feed = StillFeed(database)
    feed.clock = RECEIVED + 1_000 * SECOND
    app = TraceApp(feed, Settings(theme="dark", utc=True), title="prod-eu", glyphs=UNICODE)

    async def ready(pilot: Pilot[int]) -> None:
        app.go("trace", slow_pod().trace_id)
        await pilot.pause()
        await pilot.press(*keys)
        screen = app.screen
        assert isinstance(screen, TraceScreen)
        for _ in range(200):
            await pilot.pause(0.02)
            if not any(job.busy for job in (screen._loads, screen._notes, screen._details)):
                break
        await pilot.pause()

    assert snap_compare(app, terminal_size=size, run_before=ready)
