"""The Requests screen: one line an API request, newest first until told otherwise."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from textual import events
from textual.widget import Widget

from receiver.traces.listing import Row
from receiver.traces.model import Settled, TraceSummary
from receiver.traces.query import Group, Query, QueryError, View
from tui.commands import SORTS, WINDOWS, CommandError
from tui.feed import EVERYTHING, Snapshot
from tui.keys import bindings
from tui.latest import Latest
from tui.screens.filtering import FilteringScreen
from tui.screens.frame import FrameScreen
from tui.screens.pivot import PivotChoice
from tui.screens.request_lines import Read, RequestLines, RowKey, layout, legend, style_of
from tui.terminal_text import clock, count, date_and_clock, duration, printable
from tui.verdicts import Verdicts
from tui.widgets.line import OneLine, Part
from tui.widgets.table import VirtualTable
from tui.widgets.timepicture import ROWS, TimePicture
from tui.wording import Told, client_of, phrase, place_of, state_text

if TYPE_CHECKING:
    from receiver.traces.dots import Dots

_WAYS_BACK: Final = 50
AT_FIRST: Final = replace(EVERYTHING, hide_noise=True, hide_paired=True)
"""The view at the start: everything but noise, newest first. An authentication whose request is in the list is a part
of that, and never a row of its own."""
_CATCH_UP: Final = 0.5
"""Seconds that a key may wait for the list that the key before it asked for."""
_ROOMY: Final = 30
"""Lines from which there is room for a legend of the bars."""

_PICTURE_FROM: Final = 16
"""Lines from which there is room for latency over time."""
_PICTURE_EVERY: Final = 1.0
"""Seconds between two pictures while spans arrive."""


class RequestsScreen(FilteringScreen):
    """The list, and everything that chooses what is in it."""

    PLACE = "requests"
    BINDINGS = bindings("requests")

    def __init__(self, group: Group | None = None) -> None:
        """`group`: the list begins with the traces of a group alone."""
        super().__init__()
        self._filter = ""
        self._before_group: tuple[str, str, View] | None = None  # filter, window and view
        self._ways_back: list[tuple[str, str, str]] = []  # a filter, what it was narrowed from, and on which view
        self._view: View = replace(AT_FIRST, group=group)
        self._window = "all"
        self._shown: Snapshot | None = None
        self._pivots = PivotChoice(self)
        self._read = Read()
        self._bars: tuple[object, ...] = ()  # what the legend is about
        self._legend: list[Part] = []
        self._why = Latest["tuple[object, str]"](self, "why-nothing", self._explained, self._not_explained)
        self._why_of: object = None
        self._why_text = ""
        self._dots = Latest["Dots"](self, "time-picture", self._drawn, self._not_drawn)
        self._pictured: object = None
        self._next_picture = 0.0
        self._verdicts = Verdicts(self, lambda: self.feed, self._judged)

    def body(self) -> Iterable[Widget]:
        """The table, and what the glyphs in its bars mean."""
        yield TimePicture()
        yield VirtualTable(id="rows")
        yield OneLine(id="legend")

    @property
    def table(self) -> VirtualTable:
        """The list."""
        return self.query_one(VirtualTable)

    def on_mount(self) -> None:
        """Textual's event."""
        super().on_mount()
        self.feed.set_view(self._view)
        self.set_focus(self.table)
        self._arrange()

    def on_resize(self, event: events.Resize) -> None:
        """Textual's event."""
        self._arrange()

    def _arrange(self) -> None:
        """The legend needs a line, and bars to be about."""
        width, height = self.app.size
        self.query_one("#legend", OneLine).display = height >= _ROOMY and layout(width).bar > 0
        if self._shown is not None:
            self._hint(self._shown)

    def words(self) -> dict[str, str]:
        """Escape is for the filter here, q leaves."""
        chosen = self._filter or self._view.between or self._view.group
        return {"app.escape": "back" if self._way_back() else "all" if chosen else "", "app.back": "quit"}

    # -- what is seen -----------------------------------------------------------------------------------
    def update(self, snapshot: Snapshot) -> None:
        """Take the newest snapshot."""
        table = self.table
        if snapshot is not self._shown:
            self._shown = snapshot
            table.source = RequestLines(
                self.feed,
                snapshot,
                self.palette,
                self.glyphs,
                utc=self.trace_app.utc,
                read=self._read,
                told=self._told,
                marked=self.trace_app.marked,
            )
            table.sync()
            self._title(snapshot)
            self._hint(snapshot)
        elif isinstance(table.source, RequestLines):
            table.source.pass_time()
            table.sync()
        self._look_at_rows(snapshot)
        self._look_at_times(snapshot)

    # -- latency over time --------------------------------------------------------------------------------
    @property
    def picture(self) -> TimePicture:
        """Latency over time."""
        return self.query_one(TimePicture)

    def _look_at_times(self, snapshot: Snapshot) -> None:
        picture = self.picture
        if not picture.display:
            return
        picture.utc = self.trace_app.utc
        wanted = (snapshot.selection, picture.size, snapshot.view)
        now = time.monotonic()
        if wanted == self._pictured or self._dots.busy or now < self._next_picture:
            return
        self._pictured, self._next_picture = wanted, now + _PICTURE_EVERY
        width = picture.room
        self._dots.ask(lambda: self.feed.dots(snapshot, width, ROWS))

    def _drawn(self, dots: Dots) -> None:
        self.picture.show(dots)

    def _not_drawn(self, problem: str) -> None:
        self.trace_app.say(problem, wrong=True)

    def action_picture(self) -> None:
        """Show latency over time and choose a range of it; hide it while the list has the focus."""
        picture = self.picture
        if picture.display and not picture.has_focus and picture.dots is not None:
            picture.display = False
            self.set_focus(self.table)
            return
        if self.size.height < _PICTURE_FROM:
            self.trace_app.say(f"Latency over time needs {_PICTURE_FROM} lines.", wrong=True)
            return
        picture.display = True
        self._pictured, self._next_picture = None, 0.0
        self.set_focus(picture)

    def on_time_picture_left(self, event: TimePicture.Left) -> None:
        """The picture's message."""
        event.stop()
        self.set_focus(self.table)

    def on_time_picture_chosen(self, event: TimePicture.Chosen) -> None:
        """The picture's message."""
        event.stop()
        self.set_between((event.start, event.end))
        self.set_focus(self.table)

    def set_between(self, between: tuple[int, int] | None) -> None:
        """Only what began in a range of time, in ns since the epoch; None: whenever."""
        self._window = "all"
        self._look(replace(self._view, window_ns=None, between=between))
        self.update_keys()

    def _told(self, key: RowKey) -> tuple[int, Told] | None:
        return self._verdicts.get(key[:3])

    def _judged(self) -> None:
        """There are new verdicts."""
        self.table.sync()
        if self._shown is not None:
            self._hint(self._shown)

    def _look_at_rows(self, snapshot: Snapshot) -> None:
        """What is painted by now: its legend, and what a verdict may say about it."""
        source = self.table.source
        painted: dict[RowKey, Row] = {}
        if isinstance(source, RequestLines):
            keys = (source.row_key(index) for index in self.table.on_screen)
            painted = {key: row for key in keys if (row := self._read.get(key)) is not None}
        self._verdicts.look([(key[:3], row) for key, row in painted.items()])
        line, bars = self.query_one("#legend", OneLine), (self.size.width, *painted)
        if line.display and bars != self._bars:
            self._bars = bars
            self._legend = legend(painted.values(), self.size.width, self.palette, self.glyphs)
        line.show(self._legend, self._hidden(snapshot))

    def repaint(self) -> None:
        """Other colours or another time zone."""
        self._shown, self._bars = None, ()
        self.table.repaint()

    def on_virtual_table_moved(self, event: VirtualTable.Moved) -> None:
        """The table's message."""
        event.stop()
        if self._shown is not None:
            self._title(self._shown)
            self._hint(self._shown)

    def _title(self, snapshot: Snapshot) -> None:
        p, view, g = self.palette, snapshot.view, self.glyphs
        selection = snapshot.selection
        narrow = self.size.width < 100
        parts: list[Part] = [("Requests", p.title)]
        if self._view.group is not None:
            parts.append((f"  {printable(self._view.group.name, 60 if not narrow else 36)}", p.base))
            if progress := self.trace_app.traced.progress(self._view.group):
                parts.append((f"  {progress}", p.warning))
        if self._filter:
            parts.append((f"  {printable(self._filter, 60 if not narrow else 24)}", p.base))
        parts.append((f"  [{count(len(selection.slots))} of {count(selection.total)}]", p.base))
        scan = snapshot.scan
        if scan is not None and scan.cancelled and not scan.done:
            parts.append((f"  {g.suspicious} searched {scan.share:.0%} of the attributes", p.warning))
        elif scan is not None and not scan.done:
            escape = self.trace_app.key_of("app.escape")
            parts.append((f"  searching attributes, {scan.share:.0%} ({escape} ends it)", p.warning))
        if snapshot.frozen:  # before what a narrow screen may cut
            parts.append((f"  frozen, {count(snapshot.meanwhile)} came meanwhile", p.warning))
        if self._window != "all":
            parts.append((f"  {'' if narrow else 'last '}{_window_words(self._window)}", p.base))
        if view.between is not None:
            begun, ended = (clock(at, self.trace_app.utc)[: 8 if narrow else 12] for at in view.between)
            parts.append((f"  {begun} to {ended}", p.base))
        if view.errors_only:
            parts.append((f"  {g.failed} errors only", p.error))
        falling, rising = SORTS[view.sort]
        if view.sort != "start" or view.reverse or not narrow:
            parts.append((f"  {rising if view.reverse else falling}", p.dim))
        right: list[Part] = []
        table = self.table
        if not table.following and len(table.source):
            newer = table.newer
            if newer:
                right.append((f"{g.up} {count(newer)} new  ", p.warning))
            right.append((f"row {count(table.cursor + 1)}", p.dim))
        self.title_parts(parts, right)

    def _hint(self, snapshot: Snapshot) -> None:
        table = self.table
        rows = len(table.source)
        right = [] if self.query_one("#legend", OneLine).display else self._hidden(snapshot)
        table.say_instead("" if rows else self._nothing(snapshot))
        if not rows or not isinstance(table.source, RequestLines):
            self.hint_parts([], right)
            return
        self.hint_parts(self._about(table.source.rows([table.cursor])[0], table.source.told(table.cursor)), right)

    def _hidden(self, snapshot: Snapshot) -> list[Part]:
        """How many rows are hidden as noise."""
        hidden = snapshot.selection.hidden_noise
        key = self.trace_app.key_of("requests.noise")
        return [(f"{count(hidden)} hidden as noise ({key} shows) ", self.palette.dim)] if hidden else []

    def _about(self, row: Row, told: Told) -> list[Part]:
        """The chosen row in words: its verdict where there is one, and what the columns had no room for."""
        p, g, summary = self.palette, self.glyphs, row.summary
        columns = layout(self.size.width)
        said = told.phrase if told.sentence else phrase(row)
        parts: list[Part] = []
        text = told.sentence or (said.text if said.mark or not columns.phrase else "")
        if text:
            mark = {"failed": f" {g.failed}", "suspicious": f" {g.suspicious}"}.get(said.mark, "")
            style = style_of(p, said.mark)
            parts = [(mark, style), (f" {printable(text)}", p.base if told.sentence else style)]
        if state := state_text(summary):
            mark = f"{g.unseen} " if summary.settled is Settled.MISSING else ""
            parts.append((f" {' ' if parts else ''}{mark}{state}", p.dim))
        who = client_of(summary.request.user_agent) if summary.request and not columns.client else ""
        source = summary.source if len(self.feed.snapshot.index.sources) > 1 else ""
        facts = [printable(fact, 40) for fact in (who, *summary.services, source) if fact]
        parts.append((f" {' ' if parts else ''}{f' {g.separator} '.join(facts)}", p.dim))
        return parts

    def _nothing(self, snapshot: Snapshot) -> str:
        if snapshot.loading is not None and not snapshot.spans:
            return "reading …" if not self.glyphs.ascii else "reading ..."
        escape, key = self.trace_app.key_of("app.escape"), self.trace_app.key_of
        group = self._view.group
        if group is not None:
            of = printable(group.name, 40)
            if self._filter:
                return f"Nothing of {of} matches {printable(self._filter, 40)}. {escape} clears the filter."
            if why := self.trace_app.traced.nothing(group):
                return f"{why} {escape} shows all others."
            return f"No trace of {of} is here; {escape} shows all others."
        if not snapshot.spans:
            if not self.feed.live:
                return "No spans have been read from the recording yet."
            return (
                f"No span has arrived yet; {self.trace_app.key_of('app.next')} shows what is listening and what to do."
            )
        if self._filter:
            scan = snapshot.scan
            if scan is not None and not scan.done and not scan.cancelled:
                return f"Nothing so far; {scan.share:.0%} of the attributes are read. {escape} ends the search."
            return f"{self._why_nothing(snapshot)} {escape} clears the filter."
        if self._view.errors_only:
            return f"Nothing failed here; {key('requests.errors')} shows all."
        if self._window != "all":
            return f"Nothing in the last {_window_words(self._window)}; {key('requests.window-6')} shows all."
        return f"Nothing but noise here; {key('requests.noise')} shows it."

    def _why_nothing(self, snapshot: Snapshot) -> str:
        """Which part of the filter matches nothing, as soon as that is known."""
        query = snapshot.view.query
        if self._why_of is not query:
            self._why_of, self._why_text = query, ""
            self._why.ask(lambda: (query, self.feed.why_nothing(query)))
        return printable(self._why_text, 200) or f"Nothing matches {printable(self._filter, 40)}."

    def _explained(self, found: tuple[object, str]) -> None:
        if found[0] is self._why_of:
            self._why_text = found[1]
            if self._shown is not None:
                self._hint(self._shown)

    def _not_explained(self, problem: str) -> None:
        """The plain sentence stays."""

    # -- what is chosen ---------------------------------------------------------------------------------
    def _look(self, view: View) -> None:
        self._view = view
        self.feed.set_view(view)

    def _home(self) -> None:
        """Commands may come from other screens; those that show the same are not left."""
        screen = self.app.screen
        if screen is not self and not (isinstance(screen, FrameScreen) and screen.SHARES_VIEW):
            self.trace_app.go("requests")

    def set_filter(self, text: str) -> None:
        """Show only what matches.

        Raises:
            CommandError: the text is not a filter.
        """
        try:
            query = Query.parse(text)
        except QueryError as error:
            raise CommandError(str(error)) from error
        self._home()
        self.try_filter(text, query)
        self.update_keys()

    def try_filter(self, text: str, query: Query) -> None:
        """Show what matches while it is being written, on whichever screen that is."""
        self._filter = text.strip()
        self._look(replace(self._view, query=query))

    @property
    def filter_text(self) -> str:
        """What is filtered by now."""
        return self._filter

    @property
    def window_words(self) -> str:
        """`last 15 min`, or `all`."""
        return "all" if self._window == "all" else f"last {_window_words(self._window)}"

    def narrow(self, text: str, *, back: str) -> None:
        """Show, here, what matches this beside the filter that stands; Escape leads back to that one and to a view."""
        before = self._filter
        self.trace_app.go("requests")
        self._try(lambda: self.set_filter(f"{before} {text}".strip()))
        self._ways_back = [*self._ways_back[-_WAYS_BACK:], (self._filter, before, back)]
        self.update_keys()

    def _way_back(self) -> tuple[str, str] | None:
        """The filter and the view that this filter was narrowed from; None where it came about in another way."""
        if self._ways_back and self._ways_back[-1][0] == self._filter:
            return self._ways_back[-1][1:]
        return None

    def set_errors(self, on: bool | None) -> None:
        """Only what failed; None: the other way round."""
        self._home()
        self._look(replace(self._view, errors_only=not self._view.errors_only if on is None else on))

    def set_noise(self, on: bool | None) -> None:
        """Show noise; None: the other way round."""
        self._home()
        self._look(replace(self._view, hide_noise=not self._view.hide_noise if on is None else not on))

    def set_window(self, name: str) -> None:
        """Only what came in the last so many minutes.

        Raises:
            CommandError: there is no such window.
        """
        name = name.strip().lower() or "all"
        if name not in WINDOWS:
            raise CommandError(f"A window is one of {', '.join(WINDOWS)}, not {name[:20]!r}.")
        self._home()
        self._window = name
        seconds = WINDOWS[name]
        self._look(replace(self._view, window_ns=None if seconds is None else seconds * 1_000_000_000, between=None))

    def set_sort(self, text: str) -> None:
        """Another order: `duration`, `duration reverse`.

        Raises:
            CommandError: there is no such order.
        """
        words = text.lower().split()
        name = words[0] if words else "start"
        if name not in SORTS or words[1:] not in ([], ["reverse"]):
            raise CommandError(f"An order is one of {', '.join(SORTS)}, with or without reverse after it.")
        self.trace_app.go("requests")
        self._look(replace(self._view, sort=name, reverse=bool(words[1:])))

    def follow(self) -> None:
        """To the newest, and stay there."""
        self.trace_app.go("requests")
        if self._view.sort != "start" or self._view.reverse:
            self._look(replace(self._view, sort="start", reverse=False))
        if self.feed.snapshot.frozen:
            self.trace_app.freeze(False)
        self.table.move_to(0)

    def visible_ids(self) -> list[str]:
        """Trace ids on the screen, for completion."""
        source = self.table.source
        if not isinstance(source, RequestLines):
            return []
        return [row.trace_id for row in source.summaries(list(self.table.on_screen))]

    def chosen(self) -> TraceSummary | None:
        """The row that the cursor is on."""
        source = self.table.source
        if not isinstance(source, RequestLines) or not len(source):
            return None
        return source.summaries([self.table.cursor])[0]

    def copy(self, what: str) -> None:
        """Send something of the chosen row to the clipboard.

        Raises:
            CommandError: it has no such thing.
        """
        row = self.chosen()
        if row is None:
            raise CommandError("There is no row to copy from.")
        request = row.request
        what = what.strip().lower() or "id"
        namespace, name = place_of(row)
        texts = {
            "id": ("trace id", row.trace_id),
            "name": ("name", namespace + name or row.headline),
            "audit": ("audit id", request.audit_id if request else ""),
            "client": ("user agent", request.user_agent if request else ""),
            "line": ("line", self._plain_line()),
        }
        if what not in texts:
            raise CommandError(f"Copy one of {', '.join(texts)}, not {what[:20]!r}.")
        label, text = texts[what]
        if not text:
            raise CommandError(f"This row has no {label}.")
        self.trace_app.copy(text, label)

    def _plain_line(self) -> str:
        source = self.table.source
        if not isinstance(source, RequestLines) or not len(source):
            return ""
        row, told = source.rows([self.table.cursor])[0], source.told(self.table.cursor)
        summary, request = row.summary, row.summary.request
        when = date_and_clock(summary.start, self.trace_app.utc)
        took = duration(summary.duration_ns)
        if request is None:
            return f"{when} {summary.headline} {took} trace {summary.trace_id}"
        namespace, name = place_of(summary)
        about = request.resource + (f"/{request.subresource}" if request.subresource else "") or request.path
        why = (told.sentence or phrase(row).text).rstrip(".")
        words = [
            when,
            request.verb,
            about,
            namespace + name,
            str(request.code or ""),
            took,
            why,
            f"trace {summary.trace_id}",
        ]
        return " ".join(word for word in words if word)

    # -- keys -------------------------------------------------------------------------------------------
    async def _caught_up(self) -> None:
        """Until what was asked for is on the screen, or has taken too long. Keys come in bundles over a slow line, and
        the next ones are meant for the rows that this one brings."""
        until = time.monotonic() + _CATCH_UP
        while self.is_current and time.monotonic() < until:
            if self.feed.snapshot.view == self._view:
                self.tick()
                return
            await asyncio.sleep(_CATCH_UP / 50)

    async def _row(self) -> TraceSummary | None:
        await self._caught_up()
        return self.chosen()

    async def action_open(self) -> None:
        """Open the trace."""
        if (row := await self._row()) is not None:
            self.trace_app.open_trace(row.trace_id)

    async def action_detail(self) -> None:
        """Open the trace with its detail pane."""
        if (row := await self._row()) is not None:
            self.trace_app.open_trace(row.trace_id, detail=True)

    async def action_raw(self) -> None:
        """The trace as OTLP JSON."""
        if (row := await self._row()) is not None:
            self.trace_app.open_raw(row.trace_id)

    async def action_pivot(self) -> None:
        """A choice of what the chosen row shares with others."""
        if (row := await self._row()) is not None:
            self._pivots.ask(row.trace_id)

    async def action_repeat(self) -> None:
        """Make the chosen request again, traced."""
        if (row := await self._row()) is not None:
            self.trace_app.traced.repeat(row.trace_id)

    def action_outcome(self) -> None:
        """What became of what was traced on demand."""
        self.trace_app.traced.outcome()

    def action_stop(self) -> None:
        """Interrupt what is being traced."""
        self.trace_app.traced.stop()

    async def action_mark(self) -> None:
        """Mark the chosen row, or take the mark off."""
        if (row := await self._row()) is not None:
            self.trace_app.mark(row.trace_id)

    async def action_compare(self) -> None:
        """The chosen row beside the marked one, or what is usual."""
        if (row := await self._row()) is not None:
            self.trace_app.compare(row.trace_id)

    async def action_copy(self) -> None:
        """Copy the trace id."""
        await self._caught_up()
        self._try(lambda: self.copy("id"))

    def action_freeze(self) -> None:
        """Freeze or let run."""
        self.trace_app.freeze(None)

    async def action_errors(self) -> None:
        """Only what failed, or all."""
        self.set_errors(None)
        await self._caught_up()

    async def action_noise(self) -> None:
        """Hide noise, or show it."""
        self.set_noise(None)
        await self._caught_up()

    async def action_window(self, number: int) -> None:
        """A time window by the number of its key."""
        self.set_window(list(WINDOWS)[number - 1])
        await self._caught_up()

    async def action_sort(self, name: str) -> None:
        """Another order; the same again reverses it. A cursor on the first row stays there, others with theirs."""
        again = self._view.sort == name
        self._look(replace(self._view, sort=name, reverse=again and not self._view.reverse))
        await self._caught_up()

    def clear_filter(self) -> bool:
        """Escape: show all again, first beyond the range of time, then without the filter, then beyond the group; False
        when there was none of them."""
        scan = self.feed.snapshot.scan
        if scan is not None and not scan.done and not scan.cancelled:
            self.feed.cancel_scan()
            return True
        if self._view.between is not None:
            self.set_between(None)
            return True
        if (way := self._way_back()) is not None:
            self._ways_back.pop()
            text, place = way
            self.set_filter(text)
            self.trace_app.go(place)
            return True
        self._ways_back.clear()
        if self._filter:
            self.set_filter("")
            return True
        if self._view.group is None:
            return False
        before, self._before_group = self._before_group, None
        if before is None:
            self.set_group(None)
        else:
            self._filter, self._window, view = before
            self._look(replace(view, sort=self._view.sort, reverse=self._view.reverse))
            self.table.move_to(0)
            self.update_keys()
        return True

    def show_group(self, group: Group) -> None:
        """All of a group, whatever was filtered before; that comes back when the group is left."""
        self.trace_app.go("requests")
        if self.feed.snapshot.frozen:
            self.trace_app.freeze(False)  # nothing of it would come
        if self._view.group is None:
            self._before_group = self._filter, self._window, self._view
        self._filter, self._window = "", "all"
        view = replace(self._view, query=Query(), errors_only=False, window_ns=None, between=None, group=group)
        self._look(view)
        self.table.move_to(0)
        self.update_keys()

    def set_group(self, group: Group | None) -> None:
        """Only the traces of a group; None: all."""
        self._home()
        self._look(replace(self._view, group=group))
        self.table.move_to(0)
        self.update_keys()

    def follow_group(self, before: Group, now: Group | None) -> None:
        """A group has more traces, or is further; where the list has been turned to something else, nothing happens."""
        if self._view.group is not before:
            return
        if now is not before:
            self._look(replace(self._view, group=now))
        if self._shown is not None and self.is_mounted:
            self._title(self._shown)
            self._hint(self._shown)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except CommandError as error:
            self.trace_app.say(str(error), wrong=True)


def _window_words(name: str) -> str:
    number, unit = name[:-1], name[-1]
    return f"{number} {'min' if unit == 'm' else 'h'}"
