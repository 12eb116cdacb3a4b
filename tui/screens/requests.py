"""The Requests screen: one line an API request, newest first until told otherwise."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np
from rich.style import Style
from textual.widget import Widget

from receiver.traces.model import Component, Settled, TraceSummary
from receiver.traces.query import FIELDS, Query, QueryError, View
from receiver.traces.reader import SETTLE_NS
from tui.commands import SORTS, WINDOWS, CommandError
from tui.feed import EVERYTHING, Feed, Snapshot
from tui.glyphs import Glyphs
from tui.keys import bindings
from tui.screens.frame import FrameScreen
from tui.screens.pivot import PivotChoice
from tui.terminal_text import clock, count, date_and_clock, duration, fit, printable, width_of
from tui.theming import Palette
from tui.widgets.line import Part
from tui.widgets.table import VirtualTable
from tui.wording import client_of, explanation, place_of, state_text, verdict_mark

AT_FIRST: Final = replace(EVERYTHING, hide_noise=True)
"""The view at the start: everything but noise, newest first."""
_DAY: Final = 86_400_000_000_000


# --- columns ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Layout:
    """Widths of the columns at one width of the screen; 0 leaves a column out. The order is that of the fields."""

    time: int
    verb: int
    resource: int
    name: int
    client: int
    code: int
    duration: int
    spans: int
    what: int
    gap: int


@lru_cache(maxsize=32)
def layout(width: int) -> Layout:
    """Columns for a width: fixed ones as wide as what they hold, the rest goes to names and to what happened."""
    gap = 2 if width >= 72 else 1
    time = 12 if width >= 110 else 8
    verb = 6 if width < 110 else 7
    resource = 10 if width < 72 else 13 if width < 110 else 18 if width < 140 else 20 if width < 170 else 24
    client = 0 if width < 92 else 15 if width < 130 else 19 if width < 170 else 26
    spans = 7 if width >= 130 else 0
    code, duration = (6, 9) if width >= 72 else (5, 8)
    fixed = [time, verb, resource, client, code, duration, spans]
    left = max(0, width - 2 - sum(column + gap for column in fixed if column))
    name, what = left, 0
    if left >= 40:  # room for a name and for a few words
        name = min(max(22, left // 2), 60)
        what = left - name - gap
    return Layout(time, verb, resource, max(4, name), client, code, duration, spans, what, gap)


_TITLES: Final = {
    "time": ("TIME", "start"),
    "verb": ("VERB", "verb"),
    "resource": ("RESOURCE", "resource"),
    "name": ("NAMESPACE/NAME", "namespace"),
    "client": ("CLIENT", "client"),
    "code": ("CODE", "code"),
    "duration": ("DURATION", "duration"),
    "spans": ("SPANS", "spans"),
    "what": ("WHAT HAPPENED", "errors"),
}


class RequestLines:
    """The rows of a snapshot, for the table."""

    def __init__(self, feed: Feed, snapshot: Snapshot, palette: Palette, glyphs: Glyphs, *, utc: bool) -> None:
        self._feed, self._snapshot = feed, snapshot
        self._palette, self._glyphs, self._utc = palette, glyphs, utc
        index = snapshot.index
        self._slots = snapshot.selection.slots
        self.pass_time()
        # One look at the columns: `index.x` slices each time, and this is asked for every row on the screen.
        self._hi, self._lo, self._spans, self._received = (
            index.id_hi,
            index.id_lo,
            index.span_count,
            index.last_received,
        )

    def pass_time(self) -> None:
        """The clock goes on: rows that were still arriving may be settled now."""
        self._now = self._feed.now()
        self._settled_before = self._now - SETTLE_NS if self._feed.live else self._now + 1

    def __len__(self) -> int:
        return len(self._slots)

    def identity(self, index: int) -> Hashable:
        """The trace id, in halves."""
        slot = self._slots[index]
        return int(self._hi[slot]), int(self._lo[slot])

    def key(self, index: int) -> Hashable:
        """Trace, its number of spans, and whether it is still arriving."""
        slot = self._slots[index]
        return (
            int(self._hi[slot]),
            int(self._lo[slot]),
            int(self._spans[slot]),
            bool(self._received[slot] > self._settled_before),
        )

    def find(self, identity: Hashable) -> int | None:
        """One pass over a column of numbers: 30 us for 100,000 rows."""
        assert isinstance(identity, tuple)
        slot = self._snapshot.index.slot_of(f"{identity[0]:016x}{identity[1]:016x}")
        if slot is None:
            return None
        places = np.flatnonzero(self._slots == slot)
        return int(places[0]) if len(places) else None

    def summaries(self, indexes: Sequence[int]) -> list[TraceSummary]:
        """What the rows say."""
        return self._feed.rows(self._snapshot, indexes)

    def lines(self, indexes: Sequence[int], width: int) -> Sequence[Sequence[Part]]:
        """The rows as text and style."""
        columns = layout(width)
        return [self._line(row, columns) for row in self.summaries(indexes)]

    def header(self, width: int) -> Sequence[Part]:
        """Titles, with an arrow at the column that the list is sorted by."""
        columns, p = layout(width), self._palette
        view = self._snapshot.view
        text = " "
        for field, (title, sort) in _TITLES.items():
            room: int = getattr(columns, field)
            if not room:
                continue
            falls = (sort in ("start", "duration", "code", "errors", "spans")) != view.reverse
            if sort == view.sort and (sort != "errors" or view.sort == "errors"):
                arrow = self._glyphs.down if falls else self._glyphs.up
                title = title[: room - 1] + arrow
            right = field in ("code", "duration", "spans")
            cell = fit(title, room - 2 if field == "spans" else room, right)
            text += cell + ("  " if field == "spans" else "") + " " * columns.gap
        return [(text.rstrip(), p.header)]

    def _line(self, row: TraceSummary, columns: Layout) -> list[Part]:
        p, gap = self._palette, " " * columns.gap
        parts: list[Part] = [(" " + self._time(row.start, columns.time) + gap, p.dim)]
        parts += self._about(row, columns, gap)
        if columns.client:
            client = client_of(row.request.user_agent) if row.request else " ".join(row.services)
            if len(client) > columns.client and "/" in client:
                client = f"{self._glyphs.ellipsis}/{client.partition('/')[2]}"  # which controller says more than whose
            parts.append((fit(client, columns.client) + gap, p.dim))
        parts += self._code(row, columns.code, gap)
        # A watch is long because it was asked to be.
        slow = row.duration_ns >= 1_000_000_000 and not (row.request and row.request.verb == "watch")
        took = fit(duration(row.duration_ns), columns.duration, right=True)
        parts.append((took + (gap if columns.spans or columns.what else ""), p.title if slow else p.base))
        if columns.spans:
            parts.append((fit(count(row.spans), columns.spans - 2, right=True), p.dim))
            parts.append((" " + self._state(row) + (gap if columns.what else ""), p.dim))
        if columns.what:
            parts += self._what(row, columns.what)
        return parts

    def _mark(self, row: TraceSummary) -> Part:
        mark = verdict_mark(row)
        if mark == "failed":
            return self._glyphs.failed, self._palette.error
        if mark == "suspicious":
            return self._glyphs.suspicious, self._palette.warning
        return " ", self._palette.base

    def _time(self, start: int, width: int) -> str:
        text = clock(start, self._utc)
        if start and abs(self._now - start) > _DAY:
            day = date_and_clock(start, self._utc)
            text = day[5:16] if width >= 11 else day[5:10]
        return fit(text[:width], width)

    def _about(self, row: TraceSummary, columns: Layout, gap: str) -> list[Part]:
        p, request = self._palette, row.request
        if request is None:
            # No API request: the name of the headline span says it all.
            room = columns.verb + columns.resource + columns.name + 2 * columns.gap
            return [(fit(row.headline, room) + gap, p.component[_component(row)])]
        parts: list[Part] = [(fit(request.verb, columns.verb) + gap, p.base)]
        if not request.resource:
            room = columns.resource + columns.name + columns.gap
            return [*parts, (fit(request.path or row.headline, room) + gap, p.dim)]
        resource = request.resource + (f"/{request.subresource}" if request.subresource else "")
        parts.append((fit(resource, columns.resource) + gap, p.base))
        namespace, name = place_of(row)
        space = fit(namespace, min(width_of(printable(namespace)), columns.name)) if namespace else ""
        parts.append((space, p.dim))
        parts.append((fit(name, columns.name - width_of(space)) + gap, p.base))
        return parts

    def _code(self, row: TraceSummary, width: int, gap: str) -> list[Part]:
        p = self._palette
        code = row.request.code if row.request else None
        mark, style = self._mark(row)
        text = fit(str(code) if code else "", width - 1, right=True) + gap
        return [(mark, style), (text, style if mark.strip() else p.dim)]

    def _state(self, row: TraceSummary) -> str:
        if row.settled is Settled.ARRIVING:
            return self._glyphs.ellipsis
        return self._glyphs.unseen if row.settled is Settled.MISSING else " "

    def _what(self, row: TraceSummary, width: int) -> list[Part]:
        parts: list[Part] = []
        left = width
        for text, style in explanation(row):
            text = printable(text)
            if width_of(text) > left:
                text = fit(text, left)
            parts.append((text, style_named(self._palette, style)))
            left -= width_of(text)
            if left <= 0:
                break
        return [*parts, (" " * left, self._palette.base)]


def style_named(palette: Palette, name: str) -> Style:
    """The style for a part of an explanation."""
    if name == "webhook":
        return palette.component[Component.WEBHOOK]
    return {"error": palette.error, "warning": palette.warning, "dim": palette.dim}.get(name, palette.base)


def _component(row: TraceSummary) -> Component:
    service = row.services[0] if row.services else ""
    name = row.headline
    if name.startswith("etcdserverpb."):
        return Component.ETCD
    if service in ("containerd", "crio") or name.startswith("runtime.v1."):
        return Component.RUNTIME
    return {"apiserver": Component.APISERVER, "etcd": Component.ETCD, "kubelet": Component.KUBELET}.get(
        service, Component.OTHER
    )


# --- the screen ------------------------------------------------------------------------------------
class RequestsScreen(FrameScreen):
    """The list, and everything that chooses what is in it."""

    PLACE = "requests"
    BINDINGS = bindings("requests")

    def __init__(self) -> None:
        super().__init__()
        self._filter = ""
        self._filter_before = ""
        self._seen: list[TraceSummary] = []
        self._view: View = AT_FIRST
        self._window = "all"
        self._shown: Snapshot | None = None
        self._pivots = PivotChoice(self)

    def body(self) -> Iterable[Widget]:
        """The table."""
        yield VirtualTable(id="rows")

    @property
    def table(self) -> VirtualTable:
        """The list."""
        return self.query_one(VirtualTable)

    def on_mount(self) -> None:
        """Textual's event."""
        super().on_mount()
        self.feed.set_view(self._view)
        self.set_focus(self.table)

    def words(self) -> dict[str, str]:
        """Escape is for the filter here, q leaves."""
        return {"app.escape": "all" if self._filter else "", "app.back": "quit"}

    # -- what is seen -----------------------------------------------------------------------------------
    def update(self, snapshot: Snapshot) -> None:
        """Take the newest snapshot."""
        table = self.table
        if snapshot is not self._shown:
            self._shown = snapshot
            table.source = RequestLines(self.feed, snapshot, self.palette, self.glyphs, utc=self.trace_app.utc)
            table.sync()
            self._title(snapshot)
            self._hint(snapshot)
        elif isinstance(table.source, RequestLines):
            table.source.pass_time()
            table.sync()

    def repaint(self) -> None:
        """Other colours or another time zone."""
        self._shown = None
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
        if self._filter:
            parts.append((f"  {printable(self._filter, 60 if not narrow else 24)}", p.base))
        parts.append((f"  [{count(len(selection.slots))} of {count(selection.total)}]", p.base))
        if snapshot.frozen:  # before what a narrow screen may cut
            parts.append((f"  frozen, {count(snapshot.meanwhile)} came meanwhile", p.warning))
        if self._window != "all":
            parts.append((f"  {'' if narrow else 'last '}{_window_words(self._window)}", p.base))
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
        p, table = self.palette, self.table
        rows = len(table.source)
        right: list[Part] = []
        hidden = snapshot.selection.hidden_noise
        if hidden:
            right.append((f"{count(hidden)} hidden as noise ({self.trace_app.key_of('requests.noise')} shows) ", p.dim))
        table.say_instead("" if rows else self._nothing(snapshot))
        if not rows or not isinstance(table.source, RequestLines):
            self.hint_parts([], right)
            return
        self.hint_parts(self._about(table.source.summaries([table.cursor])[0]), right)

    def _about(self, row: TraceSummary) -> list[Part]:
        """The chosen row in words: what the columns had no room for."""
        p, g = self.palette, self.glyphs
        parts: list[Part] = []
        if mark := verdict_mark(row):
            parts.append((f" {g.failed}", p.error) if mark == "failed" else (f" {g.suspicious}", p.warning))
        for text, style in explanation(row, whole=True):
            space = "" if text.startswith(" ") else " "
            parts.append((space + printable(text), style_named(p, style)))
        if state := state_text(row):
            mark = f"{g.unseen} " if row.settled is Settled.MISSING else ""
            parts.append((f" {' ' if parts else ''}{mark}{state}", p.dim))
        who = client_of(row.request.user_agent) if row.request and self.size.width < 92 else ""
        source = row.source if len(self.feed.snapshot.index.sources) > 1 else ""
        facts = [printable(fact, 40) for fact in (who, *row.services, source) if fact]
        parts.append((f" {' ' if parts else ''}{f' {g.separator} '.join(facts)}", p.dim))
        return parts

    def _nothing(self, snapshot: Snapshot) -> str:
        if snapshot.loading is not None and not snapshot.spans:
            return "reading …" if not self.glyphs.ascii else "reading ..."
        if not snapshot.spans:
            if not self.feed.live:
                return "No spans have been read from the recording yet."
            return (
                f"No span has arrived yet; {self.trace_app.key_of('app.next')} shows what is listening and what to do."
            )
        escape, key = self.trace_app.key_of("app.escape"), self.trace_app.key_of
        if self._filter:
            return f"Nothing matches {printable(self._filter, 40)}; {escape} clears the filter."
        if self._view.errors_only:
            return f"Nothing failed here; {key('requests.errors')} shows all."
        if self._window != "all":
            return f"Nothing in the last {_window_words(self._window)}; {key('requests.window-6')} shows all."
        return f"Nothing but noise here; {key('requests.noise')} shows it."

    # -- what is chosen ---------------------------------------------------------------------------------
    def _look(self, view: View) -> None:
        self._view = view
        self.feed.set_view(view)

    def _home(self) -> None:
        """Commands may come from other screens."""
        if self.app.screen is not self:
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
        self._filter = text.strip()
        self._look(replace(self._view, query=query))
        self.update_keys()

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
        self._look(replace(self._view, window_ns=None if seconds is None else seconds * 1_000_000_000))

    def set_sort(self, text: str) -> None:
        """Another order: `duration`, `duration reverse`.

        Raises:
            CommandError: there is no such order.
        """
        words = text.lower().split()
        name = words[0] if words else "start"
        if name not in SORTS or words[1:] not in ([], ["reverse"]):
            raise CommandError(f"An order is one of {', '.join(SORTS)}, with or without reverse after it.")
        self._home()
        self._look(replace(self._view, sort=name, reverse=bool(words[1:])))
        self.table.move_to(0)

    def follow(self) -> None:
        """To the newest, and stay there."""
        self._home()
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
            "line": ("line", self._plain_line(row)),
        }
        if what not in texts:
            raise CommandError(f"Copy one of {', '.join(texts)}, not {what[:20]!r}.")
        label, text = texts[what]
        if not text:
            raise CommandError(f"This row has no {label}.")
        self.trace_app.copy(text, label)

    def _plain_line(self, row: TraceSummary) -> str:
        request = row.request
        when = date_and_clock(row.start, self.trace_app.utc)
        took = duration(row.duration_ns)
        if request is None:
            return f"{when} {row.headline} {took} trace {row.trace_id}"
        namespace, name = place_of(row)
        about = request.resource + (f"/{request.subresource}" if request.subresource else "") or request.path
        why = "".join(text for text, _ in explanation(row))
        words = [
            when,
            request.verb,
            about,
            namespace + name,
            str(request.code or ""),
            took,
            why,
            f"trace {row.trace_id}",
        ]
        return " ".join(word for word in words if word)

    # -- keys -------------------------------------------------------------------------------------------
    def action_open(self) -> None:
        """Open the trace."""
        if (row := self.chosen()) is not None:
            self.trace_app.open_trace(row.trace_id)

    def action_detail(self) -> None:
        """Open the trace with its detail pane."""
        if (row := self.chosen()) is not None:
            self.trace_app.open_trace(row.trace_id, detail=True)

    def action_raw(self) -> None:
        """The trace as OTLP JSON."""
        if (row := self.chosen()) is not None:
            self.trace_app.open_raw(row.trace_id)

    def action_pivot(self) -> None:
        """A choice of what the chosen row shares with others."""
        if (row := self.chosen()) is not None:
            self._pivots.ask(row.trace_id)

    def action_copy(self) -> None:
        """Copy the trace id."""
        self._try(lambda: self.copy("id"))

    def action_freeze(self) -> None:
        """Freeze or let run."""
        self.trace_app.freeze(None)

    def action_errors(self) -> None:
        """Only what failed, or all."""
        self.set_errors(None)

    def action_noise(self) -> None:
        """Hide noise, or show it."""
        self.set_noise(None)

    def action_window(self, number: int) -> None:
        """A time window by the number of its key."""
        self.set_window(list(WINDOWS)[number - 1])

    def action_sort(self, name: str) -> None:
        """Another order; the same again reverses it."""
        again = self._view.sort == name
        self._look(replace(self._view, sort=name, reverse=again and not self._view.reverse))
        self.table.move_to(0)

    def action_filter(self) -> None:
        """Write a filter."""
        self._filter_before = self._filter
        source = self.table.source
        if isinstance(source, RequestLines):
            self._seen = source.summaries(list(self.table.on_screen))  # now: while it is written, most rows go
        self.open_prompt("/", self._filter, self._complete_filter)

    def clear_filter(self) -> bool:
        """Escape: show all again; False when there was no filter."""
        if not self._filter:
            return False
        self.set_filter("")
        return True

    # -- the filter prompt --------------------------------------------------------------------------------
    def filter_changed(self, text: str) -> None:
        """Show what matches so far."""
        try:
            query = Query.parse(text)
        except QueryError as error:
            self.prompt_says(str(error), wrong=True)
            return
        self._filter = text.strip()
        self._look(replace(self._view, query=query))
        self.prompt_says(
            "words, verb= resource= ns= name= ua= code= group= audit= webhook= source= service= trace=, all must match"
        )

    def filter_submitted(self, text: str) -> None:
        """Keep it; of one that is none, nothing stays."""
        try:
            self.set_filter(text)
        except CommandError as error:
            self.filter_cancelled()
            self.trace_app.say(str(error), wrong=True)

    def filter_cancelled(self) -> None:
        """Back to what was filtered before."""
        self._try(lambda: self.set_filter(self._filter_before))

    def _complete_filter(self, text: str) -> list[str]:
        """Fields, and for a field the values of the rows that were on the screen."""
        before, gap, last = text.rpartition(" ")
        field, sign, start = last.partition("=")
        if not sign:
            return [f"{before}{gap}{field}=" for field in FIELDS if last and field.startswith(last)]
        values = sorted({value for row in self._seen for value in _values(row, field) if value.startswith(start)})
        return [f"{before}{gap}{field}={value}" for value in values if value and " " not in value]

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except CommandError as error:
            self.trace_app.say(str(error), wrong=True)


def _window_words(name: str) -> str:
    number, unit = name[:-1], name[-1]
    return f"{number} {'min' if unit == 'm' else 'h'}"


def _values(row: TraceSummary, field: str) -> tuple[str, ...]:
    """What a row has for a field of the filter."""
    if field in ("service", "source", "instance"):
        return {"service": row.services, "source": (row.source,), "instance": (row.instance,)}[field]
    request = row.request
    if request is None:
        return ()
    values = {
        "verb": request.verb,
        "resource": request.resource,
        "ns": request.namespace,
        "namespace": request.namespace,
        "name": request.name,
        "group": request.group,
        "code": str(request.code or ""),
        "ua": client_of(request.user_agent).partition("/")[0],
    }
    return (printable(values[field]),) if field in values else ()
