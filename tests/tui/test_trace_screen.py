"""The Trace screen, driven by keys, on a real index and real bodies."""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len
from textual.pilot import Pilot

from receiver.store.database import Database, StoreError
from receiver.traces.model import Component, Event, Kind, Link
from tests.tui.still_feed import RECEIVED, SECOND, StillFeed, chunks_of
from tests.tui.traces_for_tests import MS, T0, Made, body, slow_pod
from tests.work import calls_of
from tui import terminal_text
from tui.app import TraceApp
from tui.config import Settings
from tui.glyphs import ASCII, UNICODE, Glyphs
from tui.screens.choice import ChoiceScreen
from tui.screens.raw import RawScreen, TextLines, json_lines
from tui.screens.trace import TraceScreen

OTHER = "0af7651916cd43dd8448eb211c80319c"


class Driver:
    """An app with a trace open, and what can be seen of it."""

    def __init__(self, app: TraceApp, feed: StillFeed, pilot: Pilot[int]) -> None:
        self.app, self.feed, self.pilot = app, feed, pilot
        self.said: list[str] = []

    @property
    def screen(self) -> TraceScreen:
        screen = self.app.screen
        assert isinstance(screen, TraceScreen)
        return screen

    async def settle(self) -> None:
        """Until nothing is being read."""
        for _ in range(100):
            await self.pilot.pause(0.01)
            screen = self.app.screen
            if not isinstance(screen, TraceScreen):
                return
            jobs = (
                screen._loads, screen._notes, screen._details, screen._alignings,
                screen._relations, screen._explained, screen._pivots,
            )  # fmt: skip
            if not any(job.busy for job in jobs):
                await self.pilot.pause()
                return

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.settle()

    async def tick(self) -> None:
        """As if time had passed: the app's tick with nothing to wait for."""
        if isinstance(self.app.screen, TraceScreen):
            self.screen._look_again = 0.0
        self.app._tick()
        await self.settle()

    def lines(self) -> list[str]:
        """The text on the screen."""
        return [strip.text for strip in self.app.screen._compositor.render_strips()]

    def text(self) -> str:
        return "\n".join(self.lines())

    def cursor_line(self) -> str:
        """The line under the cursor."""
        return next(line for line in self.lines() if line.startswith(self.app.glyphs.cursor))


@asynccontextmanager
async def opened(
    *made: Made | bytes,
    size: tuple[int, int] = (80, 24),
    glyphs: Glyphs = UNICODE,
    live: bool = False,
    since: int = 1_000 * SECOND,
    trace_id: str = slow_pod().trace_id,
    theme: str = "dark",
    **more: Any,
) -> AsyncIterator[Driver]:
    """The trace screen on these traces; each is one export request."""
    database = Database.memory()
    requests = [each if isinstance(each, bytes) else each.export() for each in made]
    if requests:
        database.append(chunks_of(requests))
    feed = StillFeed(database, live=live)
    feed.clock = RECEIVED + since
    app = TraceApp(feed, Settings(theme=theme, utc=True), title="test", glyphs=glyphs)
    async with app.run_test(size=size, notifications=True) as pilot:
        driver = Driver(app, feed, pilot)
        app.say = lambda sentence, *, wrong=False: driver.said.append(sentence)  # type: ignore[method-assign]
        app.go("trace", trace_id, **more)
        await driver.settle()
        yield driver
    terminal_text.use_ascii(False)


# --- what is seen ------------------------------------------------------------------------------------
EIGHTY = """\
 create pods default/slow-one   201   2.53 s   ✗ 2 failed   kubectl     settled
 Mutating webhook label-injector took 1.51 s (60 %), all of it inside the
 webhook itself. Validating webhook name-policy did not answer within its 1 s
 timeout (40 % of the request); failurePolicy Ignore let the request through.
 etcd took 12.1 ms.
 admission 2.52 s ████████▓▓▓▓▓  etcd 12.1 ms  apiserver 1.85 ms  rest 0.54 ms
─ Spans ───────────────────────────────────────── 0 ────── 1 s ───── 2 s ───────
  ▾ authentication                  api    2.53 s ├───────────────────────┤
▌┃  ▾ POST …/{:namespace}/pods      api    2.53 s ├───────────────────────┤
 ┃    ▸ filters ×4  own time        api   0.28 ms ▏
 ┃    ▾ Create                      api    2.53 s ├───────────────────────┤
 ┃      ▾ mutating  label-injector  hook   1.51 s ██████████████▉
 ┃        ▾ HTTP POST  127.0.0.1:9… hook   1.51 s ██████████████▉
 ┃          ▾ POST /mutate          hook   1.51 s ██████████████▉
 ┃              decide              hook   1.51 s ██████████████▉
 ┃      ▾ validating  name-policy   hook   1.00 s                ▓▓▓▓▓▓▓▓▓▊
 ┃        ▾ ✗ HTTP POST  deadline … hook   1.00 s                ▓▓▓▓▓▓▓▓▓▊
 ┃          ▾ ✗ POST /validate      hook   1.53 s                ▓▓▓▓▓▓▓▓▓▓▒▒▒▒›
 ┃              decide              hook   1.52 s                ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓
 ┃      ▾ Create etcd3  slow-one    api   12.2 ms                         ▕
 ┃        ▾ etcdserverpb.KV/Txn     api   12.1 ms                         ▕
 ┃            etcdserverpb.KV/Txn   etcd  0.96 ms                         ▉
 ┃        SerializeObject  applica… api   0.10 ms                         ▉"""


@pytest.mark.parametrize("width", [60, 70, 80, 100])
async def test_a_long_name_gives_way_to_code_and_duration(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.screens.trace._title", lambda *_: "create pods default/" + "a-long-name-" * 20)
    async with opened(slow_pod(), size=(width, 24)) as driver:
        title = driver.lines()[0]
        assert "…   201   2.53 s" in title
        assert len(title) <= width


async def test_the_picture_at_80x24() -> None:
    async with opened(slow_pod()) as driver:
        seen = [line.rstrip() for line in driver.lines()]
        assert "\n".join(seen[: len(EIGHTY.splitlines())]) == EIGHTY


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (100, 30), (119, 24), (120, 24), (150, 34), (160, 45), (220, 50)])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
async def test_every_size_is_exact(size: tuple[int, int], glyphs: Glyphs) -> None:
    async with opened(slow_pod(), size=size, glyphs=glyphs) as driver:
        for keys in ((), ("d",), ("j", "j", "d"), ("plus", "d")):
            await driver.press(*keys)
            lines = driver.lines()
            assert len(lines) == size[1]
            assert {cell_len(line) for line in lines} == {size[0]}
            assert "create pods default" in lines[0]
            assert "settled" in lines[0]
            if glyphs.ascii:
                assert driver.text().isascii()


async def test_terminals_smaller_than_anything() -> None:
    async with opened(slow_pod()) as driver:
        for size in ((20, 5), (8, 3), (1, 1), (60, 15)):
            await driver.pilot.resize_terminal(*size)
            await driver.press("d", "j")
        assert "Create" in driver.text()


async def test_a_trace_that_is_not_an_api_request() -> None:
    made = Made(OTHER)
    made("", "syncPod", 0, 12, service="kubelet", component=Component.KUBELET)
    async with opened(made, trace_id=OTHER) as driver:
        assert re.search(r"^ syncPod +12.0 ms", driver.lines()[0])
        assert "1 span " in driver.lines()[0]


async def test_a_trace_that_is_not_there() -> None:
    async with opened(trace_id=OTHER) as driver:
        assert "is not in the store" in driver.lines()[0]
        await driver.press("j", "enter", "left", "d", "plus", "o", "F", "c", "l", "y", "z", "e", "K")


async def test_state_is_said() -> None:
    made = slow_pod()
    early = replace(made, spans=made.spans[2:])
    async with opened(early) as driver:
        assert driver.lines()[0].rstrip().endswith("? 1 parent missing")
        assert "▸ ? filters ×4" in driver.cursor_line()
    async with opened(early, live=True, since=SECOND, size=(120, 30)) as driver:
        assert "still arriving" in driver.lines()[0]
        driver.feed.clock = RECEIVED + 60 * SECOND
        driver.feed.arrive(chunks_of([made.export(0, 2)], RECEIVED + 2 * SECOND))
        await driver.tick()
        assert driver.lines()[0].rstrip().endswith("settled")


async def test_more_spans_than_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(slow_pod()) as driver:
        whole = driver.feed.trace(slow_pod().trace_id)
        assert whole is not None
        whole.left_out = 12_345
        monkeypatch.setattr(driver.feed, "trace", lambda trace_id: whole)
        monkeypatch.setattr(driver.feed, "version", lambda trace_id: 99)
        await driver.tick()
        await driver.press("G")
        assert "12,345 more spans not shown" in driver.text()


# --- moving and folding ------------------------------------------------------------------------------
async def test_folding_one_and_its_levels() -> None:
    async with opened(slow_pod()) as driver:
        fall = driver.screen.waterfall
        shown = len(fall._shown)
        await driver.press("j", "enter")
        assert "audit" in driver.text()
        assert "▾ filters ×4" in driver.cursor_line()
        await driver.press("left")
        assert len(fall._shown) == shown
        await driver.press("left")
        assert "POST" in driver.cursor_line(), "nothing to fold: to the parent"
        await driver.press("left")
        assert "Create" not in driver.text()
        await driver.press("right")
        assert len(fall._shown) == shown
        await driver.press("right", "right")
        assert "filters" in driver.cursor_line() or "audit" in driver.cursor_line()
        await driver.press("F")
        assert len(fall._shown) == 2
        await driver.press("o")
        assert "Create" in driver.text()
        assert "Call" not in driver.text()
        await driver.press("U")
        assert len(fall._shown) == 20
        await driver.press("O")
        assert max(driver.screen.lines.depth[i] for i in fall._shown) < 7  # type: ignore[union-attr]


async def test_the_cursor_reaches_every_line_and_no_further() -> None:
    async with opened(slow_pod(), size=(80, 12)) as driver:
        fall = driver.screen.waterfall
        for key, row in (("G", 15), ("j", 15), ("pageup", 9), ("g", 0), ("k", 0), ("pagedown", 6)):
            await driver.press(key)
            assert fall.cursor == row
            assert fall.top <= fall.cursor < fall.top + fall.body
            driver.cursor_line()


async def test_to_the_spans_that_failed() -> None:
    async with opened(slow_pod()) as driver:
        await driver.press("e")
        assert "✗ HTTP POST" in driver.cursor_line()
        await driver.press("e")
        assert "✗ POST /validate" in driver.cursor_line()
        await driver.press("E")
        assert "✗ HTTP POST" in driver.cursor_line()
    quiet = Made()
    quiet("", "x", 0, 1)
    async with opened(quiet) as driver:
        await driver.press("e")
        assert driver.said == ["No span of this trace failed."]


async def test_zoom_and_pan_stay_in_the_trace() -> None:
    async with opened(slow_pod()) as driver:
        fall = driver.screen.waterfall
        whole = fall.window
        await driver.press("plus", "plus")
        begin, end = fall.window
        assert (end - begin) * 4 == pytest.approx(whole[1] - whole[0], rel=0.01)
        await driver.press("full_stop")
        for _ in range(30):
            driver.screen.action_pan(1)
        await driver.settle()
        assert fall.window[1] == whole[1]
        assert fall.window[1] - fall.window[0] == end - begin
        assert "‹" in driver.text()
        await driver.press("comma")
        for _ in range(30):
            driver.screen.action_pan(-1)
        assert fall.window[0] == whole[0]
        await driver.press("0")
        assert fall.window == whole
        await driver.press("G", "z")
        serialize = driver.screen.lines.nodes[fall.line].span  # type: ignore[union-attr]
        assert fall.window[0] < serialize.start < serialize.end <= fall.window[1]
        for _ in range(60):
            driver.screen.action_zoom(1)
        assert fall.window[1] - fall.window[0] == 1_000
        await driver.settle()
        for _ in range(60):
            driver.screen.action_zoom(-1)
        assert fall.window == whole
        assert fall.fitted


# --- phases and the critical path --------------------------------------------------------------------
async def test_phases_have_a_line_where_there_is_room() -> None:
    async with opened(slow_pod(), size=(80, 20)) as driver:
        assert driver.lines()[4].startswith(" admission 2.52 s ███")
        await driver.pilot.resize_terminal(80, 19)
        await driver.settle()
        assert "admission" not in driver.text()
    made = Made(OTHER)
    made("", "syncPod", 0, 12, service="kubelet", component=Component.KUBELET)
    async with opened(made, trace_id=OTHER) as driver:
        assert driver.lines()[3].startswith(" kubelet 12.0 ms ───")


async def test_along_the_critical_path_and_back() -> None:
    async with opened(slow_pod(), size=(120, 40)) as driver:
        fall = driver.screen.waterfall
        lines = driver.screen.lines
        assert lines is not None
        assert lines.path is not None
        intervals = lines.path.intervals
        assert "▸ filters" in driver.text()
        for at in range(1, len(intervals)):
            await driver.pilot.press("greater_than_sign")
            assert fall.node is intervals[at].node
            assert fall.step == (intervals[at].start, intervals[at].end)
        await driver.settle()
        assert "▾ filters" in driver.text(), "what hides a step is opened"
        assert f"path {len(intervals)} of {len(intervals)}" in driver.text()
        await driver.press("greater_than_sign")
        assert driver.said == ["The critical path ends here."]
        for at in reversed(range(len(intervals) - 1)):
            await driver.pilot.press("less_than_sign")
            assert fall.node is intervals[at].node
        await driver.press("less_than_sign")
        assert driver.said[1:] == ["The critical path begins here."]
        await driver.press("j")
        assert fall.step is None
        assert "path" not in driver.lines()[5]


async def test_a_step_is_seen_on_its_bar_and_on_the_axis() -> None:
    async with opened(slow_pod(), size=(120, 40)) as driver:
        fall = driver.screen.waterfall
        while not (fall.node and fall.node.span.name == "decide"):
            await driver.pilot.press("greater_than_sign")
        await driver.press("less_than_sign")
        assert "POST /mutate" in driver.cursor_line()
        assert re.search(r"▌──────+┤ *$", driver.cursor_line()) or re.search(r"█──────+┤ *$", driver.cursor_line())
        await driver.press("greater_than_sign")
        assert re.search(r"0 ━+ 0\.5 s ━+ 1\.0 s ━+ 1\.5 s ─", driver.lines()[5]), (
            "where the time went, in heavy dashes"
        )
        driver.screen.action_zoom_span()
        driver.screen.action_pan(1)
        for _ in range(5):
            driver.screen.action_zoom(1)
        await driver.press("less_than_sign", "less_than_sign", "less_than_sign")
        step = fall.step
        assert step is not None
        assert fall.window[0] <= step[0] < fall.window[1], "the axis follows"


async def test_a_trace_without_a_path_says_so() -> None:
    made = Made(OTHER)
    made("", "x", 0, 0)
    async with opened(made, trace_id=OTHER) as driver:
        await driver.press("greater_than_sign", "less_than_sign")
        assert driver.said == ["This trace has no critical path."] * 2


# --- runs of like siblings ---------------------------------------------------------------------------
def polling(many: int = 6) -> Made:
    made = Made()
    root = made("", "sync", 0, 100, of=body())
    for at in range(many):
        made(root, "poll", 10 * at, 30 if at == 2 else 2, of=body({"key": "x"}))
    return made


async def test_a_run_is_one_line_until_it_is_opened_and_stays_open() -> None:
    made = polling()
    async with opened(made, size=(150, 30)) as driver:
        fall = driver.screen.waterfall
        run = next(line for line in driver.lines() if "×6 poll" in line)
        assert re.search(r"▸ ×6 poll  total, p50 2\.00 ms, max 30\.0 ms +apiserver +40\.0 ms +├.*━.*┤", run)
        assert len(fall.folds.shown) == 3, "the one that stands out stays"
        await driver.press("j", "right")
        assert len(fall.folds.shown) == 8
        assert "▾ ×6 poll" in driver.cursor_line()
        made("0000000000000001", "poll", 70, 1)
        driver.feed.arrive(chunks_of([made.export(7)], RECEIVED + 10 * SECOND))
        await driver.tick()
        assert "▾ ×7 poll" in driver.cursor_line(), "the cursor, too, stays"
        assert len(fall.folds.shown) == 9
        await driver.press("enter")
        assert "▸ ×7 poll" in driver.cursor_line()
        await driver.press("U")
        assert len(fall.folds.shown) == 9
        await driver.press("F", "o", "o")
        assert len(fall.folds.shown) == 9


async def test_a_run_does_not_close_around_the_cursor() -> None:
    made = polling(3)
    async with opened(made, size=(120, 24)) as driver:
        await driver.press("j")
        cursor = driver.screen.waterfall.line_id
        for _ in range(3):
            made("0000000000000001", "poll", 70, 1)
        driver.feed.arrive(chunks_of([made.export(4)], RECEIVED + 10 * SECOND))
        await driver.tick()
        assert driver.screen.waterfall.line_id == cursor
        assert "▾ ×6 poll" in driver.text()


async def test_the_detail_of_a_run_and_a_span_in_it_by_its_id() -> None:
    async with opened(polling(), size=(150, 40)) as driver:
        await driver.press("j")
        pane = "\n".join(driver.lines()[20:])
        assert "─ ×6 poll, 40.0 ms" in pane
        assert re.search(r"max +30\.0 ms, span 0000000000000004", pane)
        assert "15 times the median" in pane
        driver.screen.put_cursor(f"{6:016x}")
        await driver.settle()
        assert driver.screen.waterfall.line_id == f"{6:016x}"
    async with opened(polling(), span_id=f"{6:016x}") as driver:
        assert driver.screen.waterfall.line_id == f"{6:016x}"
        assert "▾ ×6 poll" in driver.text()


# --- clocks ------------------------------------------------------------------------------------------
def skewed() -> Made:
    """A call to etcd, whose clock is 90 ms behind; one to another host that is 20 s off."""
    made = Made()
    root = made("", "GET /api/v1/nodes", 0, 100, kind=Kind.SERVER, request=True)
    call = made(root, "etcdserverpb.KV/Range", 10, 20, kind=Kind.CLIENT)
    etcd = {"service": "etcd", "component": Component.ETCD}
    there = made(
        call, "etcdserverpb.KV/Range", -75, 10, kind=Kind.SERVER, **etcd,
        of=body(events=(Event(T0 - 70 * MS, "halfway", {}),), resource={"service.instance.id": "etcd-x4"}),
    )  # fmt: skip
    made(there, "range", -74, 5, **etcd, of=body(resource={"service.instance.id": "etcd-x4"}))
    far = made(root, "HTTP GET", 40, 20, kind=Kind.CLIENT)
    made(
        far, "GET", 20_045, 10, kind=Kind.SERVER, service="else", component=Component.OTHER,
        of=body(resource={"service.instance.id": "else-x4"}),
    )  # fmt: skip
    return made


async def test_aligned_times_are_marked_told_and_taken_back() -> None:
    async with opened(skewed(), size=(100, 45)) as driver:
        fall = driver.screen.waterfall
        before, whole = driver.text(), fall.window
        assert "aligned" not in before
        assert "≈" not in before
        await driver.press("a")
        assert driver.said == ["Moved 1 server side, by up to 90.0 ms. 1 off by more than 10.0 s stays as sent."]
        assert driver.lines()[0].rstrip().endswith("aligned   settled")
        assert [line for line in driver.lines() if "≈ etcdserverpb.KV/Range" in line]
        assert [line for line in driver.lines() if "≈ range" in line]
        assert len([line for line in driver.lines() if "≈" in line]) == 2
        assert fall.window[0] == T0, "the axis begins with the request"
        driver.screen.put_cursor(f"{3:016x}")
        await driver.settle()
        pane = "\n".join(driver.lines()[20:])
        assert "shown 90.0 ms later than it was sent: in the middle of its call" in " ".join(pane.split())
        assert re.search(r"\+5\.0 ms +halfway", pane), "events are told from the span's own clock"
        driver.screen.put_cursor(f"{2:016x}")
        await driver.settle()
        assert "its other side is shown 90.0 ms later than it was sent" in driver.text()
        driver.screen.put_cursor(f"{6:016x}")
        await driver.settle()
        assert "ahead of its caller's: more than 10 s is not aligned" in " ".join(driver.text().split())
        driver.screen.put_cursor(f"{1:016x}")
        await driver.press("a")
        assert fall.window == whole
        assert driver.text() == before


async def test_a_growing_trace_stays_aligned_and_a_frozen_one_can_be() -> None:
    made = skewed()
    async with opened(made.export(0, 5), size=(120, 40)) as driver:
        await driver.press("a", "space")
        assert "≈" in driver.text()
        await driver.press("a")
        assert "≈" not in driver.text()
        await driver.press("a", "space")
        driver.feed.arrive(chunks_of([made.export(5)], RECEIVED + 10 * SECOND))
        await driver.tick()
        assert driver.screen.lines is not None
        assert len(driver.screen.lines) == 6
        assert "≈ range" in driver.text()


async def test_clocks_that_agree_are_left_alone() -> None:
    async with opened(polling()) as driver:
        await driver.press("a")
        assert driver.said == ["Every server side lies within its call: nothing to align."]
        assert "aligned" in driver.lines()[0]


# --- growing -----------------------------------------------------------------------------------------
async def test_a_growing_trace_keeps_the_cursor_the_folds_and_the_zoom() -> None:
    made = slow_pod()
    late = replace(made, spans=[*made.spans[1:8], *made.spans[12:]])
    async with opened(late, size=(120, 40)) as driver:
        fall = driver.screen.waterfall
        on = made.spans[12].span_id
        driver.screen.put_cursor(on)
        await driver.press("enter")
        await driver.press("G", "plus")
        window, row, cursor = fall.window, fall.cursor - fall.top, fall.line_id
        driver.feed.arrive(chunks_of([made.export(0, 1), made.export(8, 12)], RECEIVED + 10 * SECOND))
        await driver.tick()
        assert driver.screen.lines is not None
        assert len(driver.screen.lines) == 20
        assert fall.line_id == cursor
        assert fall.cursor - fall.top == row or fall.top == 0
        assert driver.screen.lines.line_of[on] in fall.folds.folded
        assert fall.window == window
        await driver.press("0")
        made("", "later", 4_000, 1)
        driver.feed.arrive(chunks_of([made.export(19)], RECEIVED + 20 * SECOND))
        await driver.tick()
        assert fall.window[1] > window[1], "a fitted window grows with the trace"


async def test_an_untouched_cursor_follows_the_headline() -> None:
    made = slow_pod()
    async with opened(replace(made, spans=made.spans[7:])) as driver:
        assert "POST" not in driver.cursor_line()
        driver.feed.arrive(chunks_of([made.export(0, 7)], RECEIVED + 10 * SECOND))
        await driver.tick()
        assert "POST …/{:namespace}/pods" in driver.cursor_line()


async def test_nothing_is_read_again_while_nothing_comes() -> None:
    async with opened(slow_pod()) as driver:
        reads = []
        trace = driver.feed.trace
        driver.feed.trace = lambda trace_id: (reads.append(trace_id), trace(trace_id))[1]  # type: ignore[method-assign]
        for _ in range(5):
            await driver.tick()
        assert reads == []


async def test_freezing_and_going_on() -> None:
    made = slow_pod()
    async with opened(made.export(0, 8)) as driver:
        await driver.press("space")
        driver.feed.arrive(chunks_of([made.export(8)], RECEIVED + 10 * SECOND))
        await driver.tick()
        assert "frozen" in driver.lines()[0]
        assert "etcd3" not in driver.text()
        await driver.press("space")
        await driver.tick()
        assert "etcd3" in driver.text()


async def test_an_evicted_trace_stays_on_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(slow_pod()) as driver:
        monkeypatch.setattr(driver.feed, "trace", lambda trace_id: None)
        monkeypatch.setattr(driver.feed, "version", lambda trace_id: -1)
        await driver.tick()
        assert driver.lines()[0].rstrip().endswith("evicted")
        assert "Create" in driver.text()


async def test_what_is_open_is_held() -> None:
    async with opened(slow_pod()) as driver:
        assert driver.feed.held[-1] == (slow_pod().trace_id,)
        await driver.pilot.press("escape")
        await driver.pilot.pause(0.2)
        assert driver.feed.held[-1] == ()


# --- off the event loop ------------------------------------------------------------------------------
async def test_bodies_are_read_in_a_thread_and_only_those_on_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made()
    root = made("", "Create", 0, 1_000)
    for at in range(2_000):
        made(root, "Create etcd3", at / 10, 1, of=body({"key": f"/pods/default/x{at}"}))
    async with opened() as driver:
        asked: list[str] = []
        threads: set[threading.Thread] = set()
        bodies = driver.feed.bodies
        several, one = bodies.bodies, bodies.body

        def count(spans: Any) -> Any:
            threads.add(threading.current_thread())
            asked.extend(span.span_id for span in spans)
            return several(spans)

        monkeypatch.setattr(bodies, "bodies", count)
        monkeypatch.setattr(bodies, "body", lambda span: (threads.add(threading.current_thread()), one(span))[1])
        driver.feed.arrive(chunks_of([made.export()], RECEIVED + SECOND))
        await driver.tick()
        await driver.press("U", "j", "d")
        assert "x3" in driver.text()
        assert 0 < len(asked) < 60
        await driver.press("G")
        assert "x1999" in driver.text()
        assert len(asked) < 120
        assert threads
        assert threading.main_thread() not in threads


async def test_forty_thousand_spans_cost_what_is_on_the_screen() -> None:
    made = Made()
    above = made("", "Create", 0, 1_000)
    for at in range(39_999):
        child = made(above, f"x{at}", at / 100, 1)
        above = child if at % 7 else above
    requests = [made.export(at, at + 5_000) for at in range(0, 40_000, 5_000)]
    async with opened(*requests, size=(160, 45)) as driver:
        await driver.press("escape")
        driver.app.go("trace", made.trace_id)
        while not (isinstance(driver.app.screen, TraceScreen) and driver.screen.is_mounted and driver.screen.lines):
            await driver.pilot.pause(0.005)
        await driver.settle()
        assert "40,000" in driver.text()
        fall = driver.screen.waterfall
        drawn = []
        draw = fall._draw_line
        fall._draw_line = lambda *args: (drawn.append(1), draw(*args))[1]  # type: ignore[method-assign]
        await driver.press("pagedown")
        await driver.press("plus")
        assert len(drawn) < 4 * 45, "a frame costs what is on the screen"


async def test_a_store_that_cannot_be_read_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(slow_pod()) as driver:

        def broken(*_: object) -> None:
            raise StoreError("The database x is damaged.")

        monkeypatch.setattr(driver.feed.bodies, "body", broken)
        await driver.press("d", "j")
        assert "The database x is damaged." in driver.said
        assert "Create" in driver.text()


# --- the detail --------------------------------------------------------------------------------------
async def test_the_detail_follows_the_cursor() -> None:
    async with opened(slow_pod(), size=(160, 45)) as driver:
        await driver.press("j", "j", "j")
        pane = "\n".join(driver.lines()[20:])
        assert "label-injector.example.com" in pane
        assert "Request completed" in pane
        await driver.press("k", "k")
        pane = "\n".join(driver.lines()[20:])
        assert "constrainedimpersonation" in pane
        await driver.press("d")
        assert "constrainedimpersonation" not in driver.text()


async def test_the_detail_scrolls_and_says_how_much_more_there_is() -> None:
    async with opened(slow_pod(), detail=True) as driver:
        pane = driver.screen.pane
        assert "more lines" in driver.text()
        for _ in range(20):
            await driver.pilot.press("J")
        assert pane.top == pane.lines - pane.body > 0
        await driver.press("j")
        assert pane.top == 0, "another span from its top"
        await driver.press("J", "K", "K")
        assert pane.top == 0


async def test_a_slow_body_never_stands_under_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(slow_pod(), detail=True) as driver:
        one = driver.feed.bodies.body
        go_on = threading.Event()

        def slow(span: Any) -> Any:
            go_on.wait(5)
            return one(span)

        monkeypatch.setattr(driver.feed.bodies, "body", slow)
        await driver.pilot.press("j", "j", "j")
        await driver.pilot.pause(0.3)
        assert driver.screen.pane.description.title == "Call mutating webhook"
        assert "reading ..." in driver.text()
        go_on.set()
        await driver.settle()
        await driver.pilot.pause(0.1)
        assert "configuration" in driver.text()


# --- copy, raw, links --------------------------------------------------------------------------------
async def test_copying_says_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(slow_pod()) as driver:
        copied: list[str] = []
        monkeypatch.setattr(driver.app, "copy_to_clipboard", copied.append)
        await driver.press("C")
        assert copied == [slow_pod().trace_id]
        assert "sent to the clipboard (OSC 52)" in driver.said[-1]
        for letter, expected in (("i", f"{2:016x}"), ("t", slow_pod().trace_id), ("n", slow_pod().spans[1].name)):
            await driver.press("c")
            assert isinstance(driver.app.screen, ChoiceScreen)
            await driver.press(letter)
            assert copied[-1] == expected
        await driver.press("c", "enter")
        assert copied[-1].startswith("POST /api/v1/namespaces/{:namespace}/pods  apiserver  2.53 s")
        await driver.press("c", "a")
        await driver.pilot.pause(0.2)
        assert "audit-id=e1b1ced3-bf05-45ba-82e1-69846ad85b4a" in copied[-1]
        before = len(copied)
        await driver.press("c", "escape")
        assert isinstance(driver.app.screen, TraceScreen)
        assert len(copied) == before


async def test_raw_json_of_a_span_and_of_the_trace() -> None:
    async with opened(slow_pod()) as driver:
        for key, spans in (("y", 1), ("Y", 19)):
            await driver.press(key)
            for _ in range(50):
                await driver.pilot.pause(0.02)
                if isinstance(driver.app.screen, RawScreen) and driver.app.screen._text.spans:
                    break
            screen = driver.app.screen
            assert isinstance(screen, RawScreen)
            assert screen._text.spans == spans
            assert "OTLP JSON of" in driver.text()
            assert '"resourceSpans"' in driver.text()
            await driver.press("G", "right", "left", "pageup", "escape")
        assert isinstance(driver.app.screen, TraceScreen)


def test_json_lines_are_the_same_json() -> None:
    import json

    value = {"a": [{"key": "x", "value": {"stringValue": "y" * 90}}, {"key": "b", "value": {"intValue": "1"}}], "c": {}}
    lines = json_lines(value)
    assert json.loads("\n".join(lines)) == value
    assert '    {"key": "b", "value": {"intValue": "1"}}' in lines


async def test_a_raw_line_of_a_megabyte() -> None:
    text = TextLines()
    async with opened(slow_pod()) as driver:
        await driver.app.screen.mount(text)
        await driver.pilot.pause()
        text.show(('"k": "' + "\x1b[2J" * 250_000,))
        drawn, calls = calls_of(lambda: text.draw(0, 80).text)
        assert "\x1b" not in drawn
        assert calls < 2_000, "what is on the screen is looked at, not all of it"


async def test_a_linked_trace_and_back() -> None:
    made = slow_pod()
    span = made.spans[7].span_id
    made.bodies[span] = replace(made.bodies[span], links=(Link(OTHER, f"{2:016x}", {}),))
    other = Made(OTHER)
    root = other("", "first", 0, 5)
    other(root, "second", 1, 2)
    async with opened(made, other) as driver:
        await driver.press("plus", "j", "j", "j", "l")
        await driver.pilot.pause(0.2)
        assert driver.screen.trace_id == OTHER
        assert "second" in driver.cursor_line()
        await driver.press("escape")
        assert driver.screen.trace_id == made.trace_id
        assert "mutating" in driver.cursor_line()
        assert not driver.screen.waterfall.fitted
        await driver.press("l")
        await driver.pilot.pause(0.2)
        await driver.press("left_square_bracket")
        assert driver.screen.trace_id == made.trace_id


async def test_a_link_to_nowhere_says_whose_trace_it_is() -> None:
    nowhere = (Link("d" * 32, "b" * 16, {}),)
    causes = "not sampled, not sent here, or evicted."
    for at, whose in ((1, "caller's own"), (0, "linked")):
        made = slow_pod()
        made.bodies[made.spans[at].span_id] = replace(made.bodies[made.spans[at].span_id], links=nowhere)
        async with opened(made) as driver:
            assert "1 link (l)" in driver.lines()[0]
            await driver.press("j", "j", "l")  # from any span of the trace
            made_up = "its id made up, " if at else ""
            assert driver.said == [f"The {whose} trace {'d' * 32} was not received: {made_up}{causes}"]
    async with opened(slow_pod()) as driver:
        assert "link" not in driver.lines()[0]
        await driver.press("l")
        assert driver.said == ["No link leads from this trace to another, and none that is here leads to it."]


async def test_a_choice_of_links_in_both_directions() -> None:
    made = slow_pod()
    ids = [span.span_id for span in made.spans]
    links = (Link(made.trace_id, ids[-1], {}), Link("c" * 32, "b" * 16, {}))
    made.bodies[ids[1]] = replace(made.bodies[ids[1]], links=links)
    node = Made(OTHER)
    node(
        "", "PATCH /api/v1/nodes/{:name}/status", 0, 12.3, kind=Kind.SERVER, request=True,
        of=body({"http.request.method": "PATCH", "http.target": "/api/v1/nodes/n1/status",
                 "user_agent.original": "kubelet/v1.36.2 (linux/amd64)"}, links=(Link(made.trace_id, ids[6], {}),)),
    )  # fmt: skip
    async with opened(made, node) as driver:
        assert "3 links (l)" in driver.lines()[0]
        await driver.press("l")
        assert isinstance(driver.app.screen, ChoiceScreen)
        text = driver.text()
        assert "3 links" in text
        assert re.search(r"1  links to +SerializeObject, in this trace", text)
        assert re.search(r"2  links to +the caller's own trace c{8}…c{4} was not received ", text)
        assert re.search(r"3  linked from +patch nodes/status n1  12.3 ms  by kubelet  to Create", text)
        await driver.press("1")
        assert "SerializeObject" in driver.cursor_line()
        await driver.press("l")
        assert re.search(r"1  linked from +POST /api/v1/namespaces/\S+, in this trace", driver.text())
        await driver.press("1")
        assert "POST" in driver.cursor_line()
        await driver.press("l", "3")
        assert driver.screen.trace_id == OTHER
        await driver.press("l")  # the way back is the other trace's only link
        assert driver.screen.trace_id == made.trace_id
        assert "Create" in driver.cursor_line()


# --- explain and pivots ------------------------------------------------------------------------------
async def test_explain_says_two_lines_and_follows_the_cursor() -> None:
    async with opened(slow_pod()) as driver:
        rows = driver.screen.waterfall.body
        await driver.press("x")
        assert "─ POST /api/v1/namespaces/{:namespace}/pods ─" in driver.text()
        assert "One API request, from when its caller is known" in driver.text()
        assert "kube-apiserver 1.31 and later" in driver.text()
        assert driver.screen.waterfall.body == rows - 5
        assert not driver.screen.pane.display, "it needs no detail pane"
        await driver.press("j")
        assert "What a request passes before it is handled" in driver.text()
        await driver.press("j", "j")
        assert "Asks a mutating admission webhook" in driver.text()
        assert "Call mutating webhook" in driver.text()
        await driver.press("j", "j")
        assert "The webhook's own span, sent by its program" in driver.text()
        assert "(label-injector-webhook)" in driver.text()
        await driver.press("x")
        assert "The webhook's own span" not in driver.text()
        assert driver.screen.waterfall.body == rows
        await driver.press("x", "G")
        assert "Encodes the answer" in driver.text()


async def test_explaining_what_nobody_knows_names_its_sender() -> None:
    made = Made(OTHER)
    made("", NASTY, 0, 10, service="sim", component=Component.OTHER, of=body(scope_name="city"))
    async with opened(made, trace_id=OTHER, size=(160, 40)) as driver:
        await driver.press("x")
        assert "Not a span of Kubernetes that this program knows: service sim, scope city sent it." in driver.text()
        assert "\x1b" not in driver.text()


async def test_a_pivot_fills_the_list_with_what_is_shared() -> None:
    other = slow_pod()
    other = Made(OTHER, [replace(span, trace_id=OTHER) for span in other.spans[:7]], other.bodies)
    async with opened(slow_pod(), other) as driver:
        await driver.press("p")
        text = driver.text()
        assert "Other traces with the" in text
        assert re.search(r"n  same namespace +2 traces +default", text)
        assert re.search(r"o  same object +only this one +pods default/slow-one", text), "the other one made nothing"
        await driver.press("escape", "j", "j", "j", "j", "j", "j", "j", "p")  # inside the validating webhook
        hooks = [line.split()[-1] for line in driver.lines() if "same webhook" in line]
        assert hooks == ["name-policy.example.com", "label-injector.example.com"]
        await driver.press("a")
        assert driver.app.screen is driver.app.requests
        await driver.pilot.pause()
        driver.app._tick()
        await driver.pilot.pause()
        assert re.search(r"audit=e1b1ced3-bf05-45b\S+ +\[2 of 2\]", driver.text())
    async with opened(trace_id=OTHER) as driver:
        await driver.press("p")
        assert "no API request" in driver.said[-1]


# --- hostile spans -----------------------------------------------------------------------------------
NASTY = "\x1b]0;x\x07\x9b2J\u202eevil\u2066\u2028\u200b\ufeff[bold red]markup[/]\n\t界e\u0301"


def nasty() -> Made:
    """Every text of a span is an attack."""
    made = Made()
    evil = body(
        {NASTY: NASTY, "key": NASTY, "url.full": NASTY, "webhook": NASTY},
        events=(Event(0, NASTY, {NASTY: NASTY}), Event((1 << 63) - 1, NASTY, {})),
        links=(Link(OTHER, "b" * 16, {}),),
        status_message=NASTY,
        resource={NASTY: NASTY, "service.name": NASTY},
        scope_name=NASTY,
    )
    root = made("", NASTY, 0, 10, service=NASTY, of=evil, kind=Kind.SERVER, component=Component.OTHER)
    for name in ("Call mutating webhook", "HTTP POST", "Create etcd3", NASTY, NASTY * 500):
        made(root, name, 1, 2, status=2, of=evil, kind=Kind.CLIENT, service=NASTY, component=Component.OTHER)
    made("f" * 16, NASTY, -100_000_000, 1e12, of=evil)
    made.spans[1] = replace(made.spans[1], start=0)
    made.spans[2] = replace(made.spans[2], end=0)
    made.spans[3] = replace(made.spans[3], end=(1 << 63) - 1)
    return made


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
async def test_nothing_a_sender_wrote_reaches_the_terminal_raw(glyphs: Glyphs) -> None:
    bad: Callable[[str], bool] = lambda c: unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # noqa: E731
    async with opened(nasty(), size=(120, 40), glyphs=glyphs) as driver:
        for keys in ((), ("d",), ("j",), ("j",), ("j", "j"), ("G",), ("z",), ("U",), ("c",), ("escape", "x"), ("y",)):
            await driver.press(*keys)
            await driver.pilot.pause(0.05)
            lines = driver.lines()
            assert not [c for c in "".join(lines) if bad(c)]
            assert {cell_len(line) for line in lines} == {120}
            if glyphs.ascii and not isinstance(driver.app.screen, ChoiceScreen):
                assert "".join(lines).isascii()


@pytest.mark.parametrize("theme", ["dark", "light", "sixteen"])
async def test_themes(theme: str) -> None:
    async with opened(slow_pod(), size=(120, 40), theme=theme) as driver:
        before = driver.text()
        await driver.press("j")
        driver.app.set_theme("dark")
        await driver.press("k")
        assert driver.text() == before, "only colours differ"


async def test_without_colours_marks_say_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with opened(slow_pod()) as driver:
        assert driver.app.no_color
        assert "✗ HTTP POST" in driver.text()
        assert "▒▒›" in driver.text()
        driver.cursor_line()


async def test_a_fault_while_reading_does_not_stop_the_next_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(slow_pod(), detail=True) as driver:
        one = driver.feed.bodies.body

        def fault(span: Any) -> Any:
            raise ValueError("not expected")

        monkeypatch.setattr(driver.feed.bodies, "body", fault)
        await driver.press("j")
        assert driver.said == ["This could not be shown: a fault in detail."]
        monkeypatch.setattr(driver.feed.bodies, "body", one)
        await driver.press("j")
        await driver.settle()
        assert "api-version" in driver.text() or "resource" in driver.text()


async def test_with_a_mouse() -> None:
    async with opened(slow_pod()) as driver:
        fall = driver.screen.waterfall
        await driver.pilot.click(fall, offset=(30, 5))
        await driver.settle()
        assert "label-injector" in driver.cursor_line()
        shown = len(fall._shown)
        await driver.pilot.pause(0.6)
        await driver.pilot.click(fall, offset=(30, 5))
        await driver.settle()
        assert len(fall._shown) == shown - 3
        await driver.pilot.click(fall, offset=(30, 0))
        assert "label-injector" in driver.cursor_line(), "the ruler is no line"
