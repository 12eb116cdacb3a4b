"""The Compare screen by its keys, over the demo's cluster."""

from __future__ import annotations

from tests.tui.driver import Driven, Open
from tui.screens.compare import CompareScreen
from tui.terminal_text import width_of


async def compared(d: Driven) -> None:
    screen = d.app.screen
    assert isinstance(screen, CompareScreen)
    await d.until(lambda: not screen._looks.busy)
    await d.settle()


async def test_a_row_beside_the_marked_one_and_beside_what_is_usual(drive: Open) -> None:
    async with drive() as d:
        await d.command("filter verb=create resource=pods")
        await d.press("D", "m")
        slowest = d.rows[0]
        assert d.app.marked == slowest.trace_id
        assert d.lines[3].startswith(d.app.glyphs.marked)
        await d.press("down", "equals_sign")
        await compared(d)
        assert "less than the other" in d.screen
        assert "THE OTHER" in d.screen
        assert "etcdserverpb.KV/Txn in Create etcd3 " in d.screen
        await d.press("o")
        assert d.place == "trace"
        assert d.app.screen.trace_id == slowest.trace_id  # type: ignore[attr-defined]
        await d.press("equals_sign")  # of the marked one itself
        await compared(d)
        assert "USUAL" in d.screen
        assert "more than usual" in d.screen
        await d.press("enter")
        assert d.place == "trace"
        await d.press("m")
        assert not d.app.marked
        assert d.toasts[-1] == "The mark is off."


async def test_what_has_no_like_says_so(drive: Open) -> None:
    async with drive(size=(60, 15)) as d:
        await d.command("noise on")
        rows = {row.trace_id: row for row in d.all_rows}
        alone = next(row for row in rows.values() if row.request is None)
        d.app.compare(alone.trace_id)
        await d.settle()
        await compared(d)
        assert "What is usual is not known" in d.screen
        assert all(width_of(line) <= 60 for line in d.lines)


async def test_the_marked_trace_is_not_evicted(drive: Open) -> None:
    async with drive() as d:
        first = d.rows[0].trace_id
        await d.press("m", "down", "enter")
        second = d.app.screen.trace_id  # type: ignore[attr-defined]
        assert d.feed._held == tuple(sorted((first, second)))
        await d.press("q")
        assert d.feed._held == (first,)
