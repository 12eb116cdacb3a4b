"""The Hot spots screen: what takes the time, and from whom; Enter shows the traces behind it."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Final

from textual import events
from textual.widget import Widget

from receiver.traces.hotspots import HotShape, HotSpots, HotWebhook, Storm
from tui.commands import WINDOWS, CommandError
from tui.feed import Snapshot
from tui.keys import bindings
from tui.latest import Latest
from tui.screens.filtering import FilteringScreen
from tui.screens.hot_lines import BY_NAME, TABLES, Hot, HotLines, HotTable, Pen, legend, sorted_rows, what_of
from tui.terminal_text import clock, count, counted, duration, printable
from tui.widgets.line import OneLine, Part
from tui.widgets.table import VirtualTable

_EVERY: Final = 1.0
"""Seconds between two looks while spans arrive."""
_ROOMY: Final = 20
"""Lines from which the legend has one."""


@dataclass
class HotPlace:
    """Where the operator was, for the next time: the table, the orders of all of them, the row of the cursor."""

    table: HotTable = TABLES[0]
    sorts: dict[str, tuple[str, bool]] = field(default_factory=dict)
    row: Hashable = None


class HotSpotsScreen(FilteringScreen):
    """Tables over what the Requests list shows: the same filter, window and noise."""

    PLACE = "hotspots"
    SHARES_VIEW = True
    BINDINGS = bindings("hotspots")

    def __init__(self, left: HotPlace | None = None) -> None:
        """`left`: where it was left; it is kept up to date."""
        super().__init__()
        self._left = left or HotPlace()
        self._return_to = self._left.row
        self._hot: HotSpots | None = None
        self._looks = Latest[HotSpots](self, "hot-spots", self._found, self._failed)
        self._asked: object = None
        self._next = 0.0
        self._made: object = None
        self._version = 0
        self._problem = ""

    def body(self) -> Iterable[Widget]:
        """The table, and what the glyphs in its bars mean."""
        yield VirtualTable(id="rows")
        yield OneLine(id="legend")

    @property
    def table(self) -> VirtualTable:
        """The list."""
        return self.query_one(VirtualTable)

    def on_mount(self) -> None:
        """Textual's event."""
        super().on_mount()
        self.set_focus(self.table)
        self._arrange()

    def on_resize(self, event: events.Resize) -> None:
        """Textual's event."""
        self._arrange()
        self._made = None

    def _arrange(self) -> None:
        self.query_one("#legend", OneLine).display = self.app.size.height >= _ROOMY

    def repaint(self) -> None:
        """Other colours, another time zone."""
        self._made = None
        self._version += 1
        self.table.repaint()

    # -- looking ------------------------------------------------------------------------------------------
    def update(self, snapshot: Snapshot) -> None:
        """Ask for the numbers of what is selected now, and draw those that are there."""
        wanted = (id(snapshot.index), snapshot.spans, snapshot.view, snapshot.frozen, len(snapshot.selection.slots))
        now = time.monotonic()
        if wanted != self._asked and not self._looks.busy and (now >= self._next or self._other_view(snapshot)):
            self._asked, self._next = wanted, now + _EVERY
            self._looks.ask(lambda: self.feed.hot_spots(snapshot))
        self._draw(snapshot)

    def _other_view(self, snapshot: Snapshot) -> bool:
        return not isinstance(self._asked, tuple) or self._asked[2] != snapshot.view

    def _found(self, hot: HotSpots) -> None:
        self._hot, self._problem = hot, ""
        self._made = None
        self._draw(self.feed.snapshot)

    def _failed(self, problem: str) -> None:
        self._problem = problem
        self._made = None

    @property
    def _table(self) -> HotTable:
        return self._left.table

    @property
    def _sort(self) -> tuple[str, bool]:
        return self._left.sorts.get(self._table.name, (self._table.first, False))

    # -- drawing ------------------------------------------------------------------------------------------
    def _draw(self, snapshot: Snapshot) -> None:
        hot = self._hot
        made = (id(hot), self._table.name, self._sort, self._version, snapshot.view, snapshot.frozen, self.size)
        if made == self._made:
            return
        self._made = made
        table, pen = self.table, self._pen
        rows = sorted_rows(self._table, self._table.rows(hot), *self._sort) if hot is not None else []
        table.say_instead(self._problem or ("Looking at all traces." if hot is None else self._table.none))
        table.source = lines = HotLines(self._table, rows, *self._sort, pen, self._version)
        if hot is not None and self._return_to is not None:
            at, self._return_to = lines.find(self._return_to), None
            table.move_to(at or 0)
        table.sync()
        self._title(snapshot)
        self._hint()

    @property
    def _pen(self) -> Pen:
        return Pen(self.palette, self.glyphs, self.trace_app.utc)

    def _title(self, snapshot: Snapshot) -> None:
        p, view = self.palette, snapshot.view
        narrow = self.size.width < 110
        left: list[Part] = [("Hot spots ", p.title)]
        for table in TABLES:
            here = table is self._table
            if narrow and not here:
                continue
            left.append((f" {table.title}", p.cursor if here else p.dim))
            left.append((" ", p.base))
        if narrow:
            at = TABLES.index(self._table) + 1
            left.append((f"{at} of {len(TABLES)}", p.dim))
        right: list[Part] = []
        words = self.trace_app.requests.filter_text
        if words:
            right.append((f"{printable(words, 24 if narrow else 50)}  ", p.base))
        if view.errors_only:
            right.append((f"{self.glyphs.failed} errors only  ", p.error))
        if self._hot is not None:
            right.append((f"{counted(self._hot.requests, 'request')}", p.base))
        if not narrow:
            right.append((f"  {self.trace_app.requests.window_words}", p.dim))
        if snapshot.frozen:
            right.append(("  frozen", p.warning))
        self.title_parts(left, right)

    def on_virtual_table_moved(self, event: VirtualTable.Moved) -> None:
        """The list's message."""
        event.stop()
        table = self.table
        if self._return_to is None and len(table.source):
            self._left.row = None if table.following else table.source.identity(table.cursor)
        self._hint()

    def chosen(self) -> Hot | None:
        """The row that the cursor is on."""
        source = self.table.source
        if not isinstance(source, HotLines) or not len(source):
            return None
        row: Hot = source.rows[self.table.cursor]
        return row

    def _hint(self) -> None:
        row, p = self.chosen(), self.palette
        line = self.query_one("#legend", OneLine)
        if line.display and isinstance(self.table.source, HotLines):
            line.show(legend((self.table.source.rows[at] for at in self.table.on_screen), self._pen))
        right: list[Part] = []
        if self._hot is not None and (out := self._hot.left_out.get(_LEFT_OUT.get(self._table.name, ""), 0)):
            right = [(f"{count(out)} more are left out ", p.dim)]
        self.hint_parts([(f" {printable(self._about(row))}", p.base)] if row is not None else [], right)

    def _about(self, row: Hot) -> str:
        """The chosen row in words: what columns have no room for."""
        if isinstance(row, HotShape):
            wrong = f", {count(row.refused)} refused and {count(row.failed)} failed" if row.refused + row.failed else ""
            lasting = "; they last as long as their client likes" if row.lasting else ""
            lists = f", {count(row.from_etcd)} read from etcd" if row.from_etcd else ""
            others = "" if row.exact else "; Enter shows their siblings, too"
            spread = row.durations
            return (
                f"{row.verb} {what_of(row)}, {row.scope}: {counted(row.count, 'request')}{wrong}{lists}, half within "
                f"{duration(spread.p50)}, 99 of 100 within {duration(spread.p99)}{lasting}{others}"
            )
        if isinstance(row, HotWebhook):
            denied = f", {count(row.denials)} denied" if row.denials else ""
            maybe = f", {count(row.may_have_denied)} may have been denied by it" if row.may_have_denied else ""
            return (
                f"{row.name} of {row.configuration or 'no configuration'}: took {duration(row.taken)} from "
                f"{counted(row.requests, 'request')}{denied}{maybe}"
            )
        if isinstance(row, Storm):
            begun, ended = (clock(at, self.trace_app.utc)[:8] for at in (row.start, row.end))
            return (
                f"{row.agent or 'somebody'} asked {count(row.count)} times and got {row.code}, from {begun} to {ended}"
            )
        return row.name if hasattr(row, "name") else f"{row.method}: {row.purpose}"

    # -- keys -------------------------------------------------------------------------------------------
    def action_turn(self, step: int) -> None:
        """The next table, or the one before."""
        self.show_table(TABLES[(TABLES.index(self._table) + step) % len(TABLES)].name)

    def show_table(self, name: str) -> None:
        """Another table.

        Raises:
            CommandError: there is none of that name.
        """
        if name not in BY_NAME:
            raise CommandError(f"A table is one of {', '.join(BY_NAME)}, not {name[:20]!r}.")
        self._left.table, self._left.row, self._return_to = BY_NAME[name], None, None
        self.table.move_to(0)
        self._draw(self.feed.snapshot)
        self.table.repaint()

    def action_open(self) -> None:
        """The traces behind a number: its filter, beside the one that stands."""
        row = self.chosen()
        if row is None:
            return
        if not row.filter:
            self.trace_app.say("No filter finds just these: they are too many of too many kinds.", wrong=True)
            return
        self.trace_app.requests.narrow(row.filter, back="hotspots")

    def action_sort(self, name: str) -> None:
        """Another order; the same again reverses it. A cursor on the first row stays there, others with theirs."""
        column = next((one for one in self._table.columns if one.name == name and one.order is not None), None)
        if column is None:
            titles = ", ".join(one.title.lower() for one in self._table.columns if one.order is not None)
            self.trace_app.say(f"This table is sorted by {titles}.", wrong=True)
            return
        before, reverse = self._sort
        self._left.sorts[self._table.name] = (name, before == name and not reverse)
        self._draw(self.feed.snapshot)

    def action_window(self, number: int) -> None:
        """A time window by the number of its key."""
        self.trace_app.requests.set_window(list(WINDOWS)[number - 1])

    def action_errors(self) -> None:
        """Only what failed, or all."""
        self.trace_app.requests.set_errors(None)

    def action_noise(self) -> None:
        """Hide noise, or show it."""
        self.trace_app.requests.set_noise(None)

    def action_freeze(self) -> None:
        """Freeze or let run."""
        self.trace_app.freeze(None)

    def action_copy(self) -> None:
        """The filter of the chosen row."""
        row = self.chosen()
        if row is not None and row.filter:
            self.trace_app.copy(row.filter, "filter")


_LEFT_OUT: Final = {
    "requests": "shapes",
    "webhooks": "webhooks",
    "clients": "agents",
    "objects": "objects",
    "retries": "storms",
    "etcd": "etcd",
}
