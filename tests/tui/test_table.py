"""The list: paints what is visible and changed, keeps the cursor on its row, follows at the top only."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.style import Style
from textual.app import App, ComposeResult

from tui.widgets.line import Part
from tui.widgets.table import VirtualTable


class Rows:
    """Rows by name, the newest first; each has a version."""

    def __init__(self, names: Sequence[int]) -> None:
        self.names = list(names)
        self.versions: dict[int, int] = {}
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.names)

    def identity(self, index: int) -> Hashable:
        return self.names[index]

    def key(self, index: int) -> Hashable:
        return self.names[index], self.versions.get(self.names[index], 0)

    def find(self, identity: Hashable) -> int | None:
        return self.names.index(identity) if identity in self.names else None  # type: ignore[arg-type]

    def lines(self, indexes: Sequence[int], width: int) -> Sequence[Sequence[Part]]:
        self.asked += indexes
        return [[(f"row {self.names[index]} v{self.versions.get(self.names[index], 0)}", Style())] for index in indexes]

    def header(self, width: int) -> Sequence[Part]:
        return [("HEAD", Style())]


class Big(Rows):
    """A million rows that nobody could look at one by one."""

    def __init__(self) -> None:
        super().__init__([])

    def __len__(self) -> int:
        return 1_000_000

    def identity(self, index: int) -> Hashable:
        return index

    def key(self, index: int) -> Hashable:
        self.asked.append(index)
        return index

    def find(self, identity: Hashable) -> int | None:
        return identity if isinstance(identity, int) else None

    def lines(self, indexes: Sequence[int], width: int) -> Sequence[Sequence[Part]]:
        return [[(f"row {index}", Style())] for index in indexes]


class Bench(App[None]):
    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self.table = VirtualTable(rows)
        self.rows = rows

    def compose(self) -> ComposeResult:
        yield self.table

    def on_mount(self) -> None:
        self.table.focus()
        self.table.sync()

    def text(self) -> list[str]:
        return [self.table.draw(y, self.table.size.width).text.rstrip() for y in range(self.table.size.height)]


async def test_rows_come_in_at_the_top_and_push_the_others_down() -> None:
    app = Bench(Rows(range(10, 0, -1)))
    async with app.run_test(size=(20, 6)):
        app.rows.names.insert(0, 11)
        app.table.sync()
        assert app.text()[:3] == ["HEAD", "row 11 v0", "row 10 v0"]
        assert app.table.cursor == 0
        assert app.table.following


async def test_off_the_top_the_rows_on_the_screen_stay_where_they_are() -> None:
    app = Bench(Rows(range(50, 0, -1)))
    async with app.run_test(size=(20, 6)) as pilot:
        await pilot.press("down", "down")
        before = app.text()
        assert not app.table.following
        for new in (51, 52, 53):
            app.rows.names.insert(0, new)
            app.table.sync()
        assert app.text() == before
        assert app.table.newer == 3
        assert app.rows.identity(app.table.cursor) == 48
        await pilot.press("g")
        assert app.text()[1] == "row 53 v0"
        assert app.table.following
        assert app.table.newer == 0


async def test_back_up_to_the_first_row_follows_again() -> None:
    app = Bench(Rows(range(9, 0, -1)))
    async with app.run_test(size=(20, 6)) as pilot:
        await pilot.press("j", "k")
        assert app.table.following


async def test_a_row_that_is_gone_leaves_the_cursor_in_its_place() -> None:
    app = Bench(Rows(range(9, 0, -1)))
    async with app.run_test(size=(20, 6)) as pilot:
        await pilot.press("down", "down")
        app.rows.names.remove(7)
        app.table.sync()
        assert app.table.cursor == 2
        assert app.rows.identity(2) == 6
        app.rows.names.clear()
        app.table.sync()
        assert app.text()[1:] == [""] * 5
        await pilot.press("down", "up", "pagedown", "pageup", "end", "home", "g", "G")


async def test_moving_keys_and_the_edges() -> None:
    app = Bench(Rows(range(100, 0, -1)))
    async with app.run_test(size=(20, 11)) as pilot:
        await pilot.press("pagedown")
        assert app.table.cursor == 9
        await pilot.press("end")
        assert app.table.cursor == 99
        assert app.text()[-1] == "row 1 v0"
        await pilot.press("pageup")
        assert app.table.cursor == 90
        await pilot.press("home")
        assert app.table.cursor == 0
        await pilot.resize_terminal(20, 4)
        await pilot.press("G")
        assert app.text() == ["HEAD", "row 3 v0", "row 2 v0", "row 1 v0"]


async def test_only_lines_that_differ_are_painted() -> None:
    app = Bench(Rows(range(100, 0, -1)))
    async with app.run_test(size=(20, 31)) as pilot:
        await pilot.pause()
        app.rows.asked.clear()
        assert app.table.sync() == 0
        app.rows.versions[95] = 1
        app.rows.versions[1] = 1  # not on the screen
        assert app.table.sync() == 1
        await pilot.pause()
        assert app.rows.asked == [5]
        assert app.text()[6] == "row 95 v1"


async def test_a_million_rows_cost_what_is_on_the_screen() -> None:
    rows = Big()
    app = Bench(rows)
    async with app.run_test(size=(80, 50)) as pilot:
        await pilot.press("end")
        await pilot.pause()
        rows.asked.clear()
        app.table.sync()
        assert len(rows.asked) <= 3 * 50
        assert min(rows.asked) >= 1_000_000 - 50
        rows.asked.clear()
        await pilot.press("up")
        await pilot.pause()
        assert len(rows.asked) <= 6 * 50


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from(["new", "gone", "down", "up", "page", "end", "home", "sync", "grow"]), max_size=40),
    st.integers(0, 30),
    st.integers(1, 12),
)
def test_whatever_happens_the_cursor_is_on_a_row_and_on_the_screen(steps: list[str], rows: int, height: int) -> None:
    async def run() -> None:
        app = Bench(Rows(range(rows, 0, -1)))
        fresh = rows + 1
        async with app.run_test(size=(20, height)):
            table = app.table
            for step in steps:
                match step:
                    case "new":
                        app.rows.names.insert(0, fresh)
                        fresh += 1
                    case "gone" if app.rows.names:
                        app.rows.names.pop()
                    case "grow" if app.rows.names:
                        app.rows.versions[app.rows.names[-1]] = fresh
                    case "down" | "up":
                        table.action_move(1 if step == "down" else -1)
                    case "page":
                        table.action_page(1)
                    case "end" | "home":
                        table.action_edge(1 if step == "end" else -1)
                table.sync()
                assert 0 <= table.cursor <= max(0, len(app.rows) - 1)
                assert 0 <= table.top <= max(0, len(app.rows) - 1)
                if table.body and len(app.rows):
                    assert table.cursor in table.on_screen
                assert len(app.text()) == height

    import asyncio

    asyncio.run(run())
