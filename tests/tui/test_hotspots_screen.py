"""The Hot spots screen by its keys, over the demo's cluster."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from receiver.traces.hotspots import hot_spots
from receiver.traces.query import Query, select
from tests.tui.driver import Driven
from tests.tui.still_feed import StillFeed
from tui.app import TraceApp
from tui.config import Settings
from tui.feed import EVERYTHING
from tui.glyphs import ASCII, UNICODE
from tui.screens.hot_lines import TABLES, HotLines, columns_for, trend
from tui.screens.hotspots import HotSpotsScreen
from tui.terminal_text import width_of

Hot = Callable[..., AbstractAsyncContextManager[Driven]]


@pytest.fixture
def hot() -> Hot:
    @asynccontextmanager
    async def start(size: tuple[int, int] = (150, 40), **more: Any) -> AsyncIterator[Driven]:
        feed = StillFeed()
        app = TraceApp(feed, Settings(utc=True), title="demo", glyphs=more.pop("glyphs", UNICODE))
        async with app.run_test(size=size, notifications=True) as pilot:
            driven = Driven(app, pilot, feed)
            await driven.until(lambda: feed.snapshot.loading is None)
            await driven.press("tab")
            await looked(driven)
            yield driven

    return start


async def looked(driven: Driven) -> None:
    screen = driven.app.screen
    assert isinstance(screen, HotSpotsScreen)
    await driven.until(lambda: screen._hot is not None and not screen._looks.busy)
    await driven.settle()


def source(driven: Driven) -> HotLines:
    screen = driven.app.screen
    assert isinstance(screen, HotSpotsScreen)
    found = screen.table.source
    assert isinstance(found, HotLines)
    return found


async def test_every_row_leads_to_the_traces_behind_it(hot: Hot) -> None:
    async with hot() as d:
        rows = list(source(d).rows)[:6]
        for place, row in enumerate(rows):
            await d.press("home", *["down"] * place, "enter")
            assert d.place == "requests"
            assert d.count == row.count, row
            await d.press("escape")
            assert d.place == "hotspots"
            await looked(d)


async def test_escape_from_the_traces_behind_a_row_leads_back_to_it(hot: Hot) -> None:
    async with hot() as d:
        await d.press("slash", *"verb=create,get", "enter")
        await looked(d)
        assert d.place == "hotspots"
        assert {row.verb for row in source(d).rows} == {"create", "get"}
        await d.press("right", "right", "N", "down", "down")
        screen = d.app.screen
        assert isinstance(screen, HotSpotsScreen)
        row = screen.chosen()
        assert row is not None
        await d.press("enter")
        assert d.place == "requests"
        assert d.app.requests.filter_text == f"verb=create,get {row.filter}"
        await d.press("escape")
        await looked(d)
        back = d.app.screen
        assert isinstance(back, HotSpotsScreen)
        assert (d.app.requests.filter_text, source(d).table.name) == ("verb=create,get", "clients")
        assert "CLIENT↑" in d.lines[2]
        again = back.chosen()
        assert again is not None
        assert again.filter == row.filter
        await d.press("escape", "escape")
        assert (d.place, d.app.requests.filter_text) == ("requests", "")


async def test_a_filter_written_over_hot_spots_is_taken_back_by_escape(hot: Hot) -> None:
    async with hot() as d:
        await d.press("slash", *"vreb=x")
        assert "vreb is no field" in d.screen
        await d.press("ctrl+u", *"verb=list")
        await looked(d)
        assert {row.verb for row in source(d).rows} == {"list"}
        await d.press("escape")
        await looked(d)
        assert (d.place, d.app.requests.filter_text) == ("hotspots", "")
        assert len({row.verb for row in source(d).rows}) > 1


async def test_what_lasts_by_its_nature_hides_nothing_in_any_order(hot: Hot) -> None:
    async with hot() as d:
        rows = source(d).rows
        assert {row.lasting for row in rows} == {True, False}
        for key in "TDDPPQQMMTT":
            await d.press(key)
            lasting = [row.lasting for row in source(d).rows]
            assert lasting == sorted(lasting), key


async def test_tables_turn_and_are_named(hot: Hot) -> None:
    async with hot() as d:
        for table in (*TABLES[1:], TABLES[0]):
            await d.press("right")
            assert source(d).table is table
            assert len(source(d)) or table.none in d.screen
        await d.press("left")
        assert source(d).table is TABLES[-1]
        await d.command("hotspots webhooks")
        assert source(d).table.name == "webhooks"
        await d.command("hotspots nothing")
        assert "A table is one of requests, webhooks" in d.toasts[-1]


async def test_sorted_by_each_column_and_back(hot: Hot) -> None:
    async with hot() as d:
        for key, of in (("C", lambda row: row.count), ("E", lambda row: row.errors / row.count)):
            await d.press(key)
            found = [of(row) for row in source(d).rows]
            assert found == sorted(found, reverse=True)
            await d.press(key)
            assert [of(row) for row in source(d).rows] == sorted(found)
        await d.press("K")
        assert "This table is sorted by" in d.toasts[-1]


async def test_filter_window_and_noise_are_those_of_the_list(hot: Hot) -> None:
    async with hot() as d:
        every = sum(row.count for row in source(d).rows)
        await d.command("filter verb=create")
        await looked(d)
        assert d.place == "hotspots"
        assert {row.verb for row in source(d).rows} == {"create"}
        assert "verb=create" in d.title
        await d.command("filter")
        await d.press("h")
        await looked(d)
        assert sum(row.count for row in source(d).rows) > every
        await d.press("tab")
        await d.command("requests")
        assert not d.app.requests._view.hide_noise


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (110, 30), (200, 50)])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
async def test_every_table_fits(hot: Hot, size: tuple[int, int], glyphs: Any) -> None:
    async with hot(size, glyphs=glyphs) as d:
        for table in TABLES:
            assert sum(room + 2 for _, room in columns_for(table, size[0])) <= size[0]
            assert all(width_of(line) <= size[0] for line in d.lines)
            header = source(d).header(size[0])[0][0]
            assert width_of(header) <= size[0]
            await d.press("right")


def test_filters_of_webhooks_and_talkers_find_as_many_as_they_say() -> None:
    feed = StillFeed()
    feed.start()
    index = feed.snapshot.index
    found = hot_spots(index, EVERYTHING, feed.now())
    for row, number in [
        *((one, one.requests) for one in found.webhooks),
        *((one, one.count) for one in (*found.agents, *found.objects)),
    ]:
        slots = select(index, replace(EVERYTHING, query=Query.parse(row.filter)), feed.now()).slots
        assert len(slots) >= number, row


def test_a_trend_has_its_highest_value_whole_and_nothing_where_nothing_was() -> None:
    assert trend([0, 0, 1, 8], 4, UNICODE) == "  ▁█"
    assert trend([0, 4, 0, 8, 2, 0], 3, UNICODE) == "▄█▂"
    assert re.fullmatch(r" {5}", trend([0] * 40, 5, ASCII))
