"""The lines of the Requests list: columns for a width, and each row as text and style."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from rich.style import Style

from receiver.traces.listing import Row
from receiver.traces.model import Component, Settled, TraceSummary
from receiver.traces.pairing import known_partners
from receiver.traces.reader import SETTLE_NS
from receiver.traces.semantics import long_running
from tui.feed import Feed, Snapshot
from tui.glyphs import Glyphs
from tui.shares import SHARES, cells, present, shares_of
from tui.terminal_text import clock, count, date_and_clock, duration, fit, printable, width_of
from tui.theming import Palette
from tui.widgets.line import Part
from tui.wording import Phrase, Told, client_of, phrase, place_of, verdict_mark

_DAY: Final = 86_400_000_000_000
_REMEMBERED: Final = 512
"""Rows that are kept as they were read last; more than any screen shows."""


# --- columns ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Layout:
    """Widths of the columns at one width of the screen; 0 leaves a column out. The order is that of the fields, up to
    `what`: that is a bar of `bar` cells and, where there is room for it, a phrase beside it."""

    time: int
    verb: int
    resource: int
    name: int
    client: int
    code: int
    duration: int
    spans: int
    what: int
    bar: int
    gap: int

    @property
    def phrase(self) -> int:
        """Cells of the phrase, 0 for none."""
        return max(0, self.what - self.bar - _BESIDE)


_BESIDE: Final = 2  # between bar and phrase


@lru_cache(maxsize=32)
def layout(width: int) -> Layout:
    """Columns for a width: fixed ones as wide as what they hold, the rest goes to names and to where the time went."""
    gap = 2 if width >= 72 else 1
    time = 12 if width >= 110 else 8
    verb = 6 if width < 110 else 7
    resource = 10 if width < 72 else 12 if width < 96 else 13 if width < 110 else 16 if width < 130 else 18
    resource = 20 if 160 <= width < 170 else resource
    resource = 24 if width >= 170 else resource
    client = 0 if width < 96 else 15 if width < 110 else 12 if width < 130 else 19 if width < 170 else 26
    spans = 7 if width >= 160 else 0
    code, duration = (5, 8) if width < 72 else (5, 9) if width < 96 else (6, 9)
    fixed = [time, verb, resource, client, code, duration, spans]
    name = max(0, width - 2 - sum(column + gap for column in fixed if column))
    bar = what = 0
    if width >= 72 and name >= 14 + gap + 8:
        bar = 8 if name < 56 else 12 if name < 80 else 16
        left = name - gap
        name = left - bar
        if left >= 40:  # room for a few words, too: why comes before whose
            name = min(max(18, 3 * left // 8), 60)
        what = left - name
    return Layout(time, verb, resource, max(4, name), client, code, duration, spans, what, bar, gap)


_TITLES: Final = {
    "time": ("TIME", "start"),
    "verb": ("VERB", "verb"),
    "resource": ("RESOURCE", "resource"),
    "name": ("NAMESPACE/NAME", "namespace"),
    "client": ("CLIENT", "client"),
    "code": ("CODE", "code"),
    "duration": ("DURATION", "duration"),
    "spans": ("SPANS", "spans"),
    "what": ("WHERE IT WENT", "where"),
}

RowKey = tuple[int, int, int, bool, bool]
"""Trace id in halves, its number of spans, whether it is still arriving, and whether its authentication is known."""


class Read:
    """The rows that were read last, by their key: what was painted need not be read again to say more about it."""

    def __init__(self) -> None:
        self._rows: OrderedDict[RowKey, Row] = OrderedDict()

    def get(self, key: RowKey) -> Row | None:
        """A row, None when it was not read lately."""
        return self._rows.get(key)

    def put(self, key: RowKey, row: Row) -> None:
        """Keep a row."""
        self._rows[key] = row
        self._rows.move_to_end(key)
        while len(self._rows) > _REMEMBERED:
            self._rows.popitem(last=False)


class RequestLines:
    """The rows of a snapshot, for the table."""

    def __init__(
        self,
        feed: Feed,
        snapshot: Snapshot,
        palette: Palette,
        glyphs: Glyphs,
        *,
        utc: bool,
        read: Read | None = None,
        told: Callable[[RowKey], tuple[int, Told] | None] = lambda key: None,
        marked: str = "",
    ) -> None:
        """
        Args:
            read: where rows are kept from one snapshot to the next.
            told: what a verdict said about a row, with the waiting (`Row.waited`) that it knew of; None for nothing
                yet.
            marked: id of the trace that others are compared with, "" for none.
        """
        self._marked = (int(marked[:16], 16), int(marked[16:], 16)) if marked else None
        self._feed, self._snapshot = feed, snapshot
        self._palette, self._glyphs, self._utc = palette, glyphs, utc
        self._read, self._told = read or Read(), told
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
        self._partner = known_partners(index)

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

    def row_key(self, index: int) -> RowKey:
        """What a row's content depends on."""
        slot = self._slots[index]
        return (
            int(self._hi[slot]),
            int(self._lo[slot]),
            int(self._spans[slot]),
            bool(self._received[slot] > self._settled_before),
            bool(slot < len(self._partner) and self._partner[slot] >= 0),
        )

    def key(self, index: int) -> Hashable:
        """The same, and what is told about it."""
        key = self.row_key(index)
        told = self._told(key)
        return (*key, -1 if told is None else told[0], key[:2] == self._marked)

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

    def rows(self, indexes: Sequence[int]) -> list[Row]:
        """The same with where the time went; those that were read lately as they were then."""
        keys = [self.row_key(index) for index in indexes]
        found = [self._read.get(key) for key in keys]
        missing = [at for at, row in enumerate(found) if row is None]
        if missing:
            fresh = self._feed.lines(self._snapshot, [indexes[at] for at in missing])
            for at, row in zip(missing, fresh, strict=True):
                found[at] = row
                self._read.put(keys[at], row)
        return [row for row in found if row is not None]

    def told(self, index: int) -> Told:
        """What a verdict said about a row, nothing as long as there is none."""
        found = self._told(self.row_key(index))
        return Told() if found is None else found[1]

    def lines(self, indexes: Sequence[int], width: int) -> Sequence[Sequence[Part]]:
        """The rows as text and style."""
        columns = layout(width)
        rows = zip(indexes, self.rows(indexes), strict=True)
        found = []
        for index, row in rows:
            mark = self._glyphs.marked if self.identity(index) == self._marked else " "
            found.append([(mark, self._palette.warning), *self._line(row, columns, self.told(index))])
        return found

    def header(self, width: int) -> Sequence[Part]:
        """Titles, with an arrow at the column that the list is sorted by."""
        columns, p = layout(width), self._palette
        view = self._snapshot.view
        text = " "
        for field, (title, sort) in _TITLES.items():
            room: int = getattr(columns, field)
            if not room:
                continue
            room -= 2 if field == "spans" else 0
            right = field in ("code", "duration", "spans")
            if len(title) > room:
                title = title.partition(" ")[0]
            if sort == view.sort:
                falls = (sort in ("start", "duration", "code", "spans")) != view.reverse
                title += self._glyphs.down if falls else self._glyphs.up
                if len(title) > room and right and text.endswith("  "):  # an arrow takes a cell of the gap before
                    text, room = text[:-1], room + 1
                title = title if len(title) <= room else title[: room - 1] + title[-1]
            text += fit(title, room, right) + ("  " if field == "spans" else "") + " " * columns.gap
        return [(text.rstrip(), p.header)]

    def _line(self, row: Row, columns: Layout, told: Told) -> list[Part]:
        p, gap, summary = self._palette, " " * columns.gap, row.summary
        request = summary.request
        parts: list[Part] = [(self._time(summary.start, columns.time) + gap, p.dim)]
        parts += self._about(summary, columns, gap)
        if columns.client:
            client = client_of(request.user_agent) if request else " ".join(summary.services)
            if len(client) > columns.client and "/" in client:
                client = f"{self._glyphs.ellipsis}/{client.partition('/')[2]}"  # which controller says more than whose
            parts.append((fit(client, columns.client) + gap, p.dim))
        said = told.phrase if told.phrase.text else phrase(row)
        parts += self._code(summary, columns.code, gap, "" if columns.phrase else said.mark)
        slow = summary.duration_ns >= 1_000_000_000 and not (request and long_running(request))
        took = fit(duration(summary.duration_ns), columns.duration, right=True)
        parts.append((took + (gap if columns.spans or columns.what else ""), p.title if slow else p.base))
        if columns.spans:
            parts.append((fit(count(summary.spans), columns.spans - 2, right=True), p.dim))
            parts.append((" " + self._state(summary) + (gap if columns.what else ""), p.dim))
        if columns.bar:
            parts += self._bar(row, columns.bar)
        if columns.phrase:
            parts.append((" " * _BESIDE, p.base))
            parts.append(self._why(said, columns.phrase))
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

    def _code(self, row: TraceSummary, width: int, gap: str, said: str) -> list[Part]:
        """The code and its mark; `said` is that of a phrase that has no room, so that a slow one is marked, too."""
        p = self._palette
        code = row.request.code if row.request else None
        mark, style = self._mark(row)
        if said and not mark.strip():
            return [(self._glyphs.suspicious, p.warning), (fit(str(code or ""), width - 1, right=True) + gap, p.dim)]
        text = fit(str(code) if code else "", width - 1, right=True) + gap
        return [(mark, style), (text, style if mark.strip() else p.dim)]

    def _state(self, row: TraceSummary) -> str:
        if row.settled is Settled.ARRIVING:
            return self._glyphs.ellipsis
        return self._glyphs.unseen if row.settled is Settled.MISSING else " "

    def _bar(self, row: Row, width: int) -> list[Part]:
        """A cell for each so many parts of the time; blank where that is not known."""
        p, glyphs = self._palette, self._glyphs.share
        counts = _counts(row, width)
        parts = [
            (glyphs[share.name] * cell, p.component[share.component])
            for share, cell in zip(SHARES, counts, strict=False)
            if cell
        ]
        return parts or [(" " * width, p.base)]

    def _why(self, said: Phrase, width: int) -> Part:
        p = self._palette
        mark, style = {
            "failed": (f"{self._glyphs.failed} ", p.error),
            "suspicious": (f"{self._glyphs.suspicious} ", p.warning),
        }.get(said.mark, ("", p.dim))
        text = mark + said.text
        if width_of(printable(text)) > width:  # whose it is says more than that it is a webhook
            text = mark + said.text.removeprefix("webhook ")
        return fit(text, width), style


def _counts(row: Row, width: int) -> list[int]:
    return cells(shares_of(row.phases), width) if row.phases is not None else []


def legend(rows: Iterable[Row], width: int, palette: Palette, glyphs: Glyphs) -> list[Part]:
    """What the glyphs in the bars of these rows mean: only those that are there."""
    columns = layout(width)
    if not columns.bar:
        return []
    parts: list[Part] = []
    for share in present(_counts(row, columns.bar) for row in rows):
        parts.append((f"{'  ' if parts else ' '}{glyphs.share[share.name]}", palette.component[share.component]))
        parts.append((f" {share.name}", palette.dim))
    return parts


def style_of(palette: Palette, mark: str) -> Style:
    """The style that goes with a mark of `wording`."""
    return {"failed": palette.error, "suspicious": palette.warning}.get(mark, palette.base)


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
