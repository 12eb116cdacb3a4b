"""What the Hot spots screen draws: a table for each kind of thing that may be hot, its columns for a width, its rows.

Pure: numbers go in, lines come out. Names come from whoever sent requests and are made printable here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.style import Style

from receiver.traces.hotspots import EtcdOperation, HotShape, HotSpots, HotWebhook, Storm, Talker
from tui.glyphs import Glyphs
from tui.shares import SHARES, cells, present, shares_of
from tui.terminal_text import clock, count, duration, fit
from tui.theming import Palette
from tui.widgets.line import Part
from tui.wording import client_of

Look = Callable[[str], Style]
Hot = HotShape | HotWebhook | Talker | Storm | EtcdOperation

_TIMES: Final = frozenset(("median", "p95", "p99", "max", "total"))
"""Columns about how long something took."""
_BAR: Final = 10
_TREND: Final = 14
_GAP: Final = "  "


@dataclass(frozen=True, slots=True)
class Pen:
    """What a cell is painted with."""

    palette: Palette
    glyphs: Glyphs
    utc: bool


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `width` 0 takes what is left; `keep` says which columns go first where there is no room, the lowest
    first. `order` is what its rows are sorted by, None where they are not; `rises` from a to z."""

    name: str
    title: str
    width: int
    draw: Callable[[Any, int, Pen], list[Part]]
    order: Callable[[Any], Any] | None = None
    right: bool = True
    rises: bool = False
    keep: int = 9


@dataclass(frozen=True, slots=True)
class HotTable:
    """A kind of thing. `rows` takes it out of all that is hot, `key` tells one row from the others."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: Callable[[HotSpots], Sequence[Any]]
    key: Callable[[Any], Hashable]
    none: str
    first: str
    """The column that its rows are sorted by at first."""


# --- cells -------------------------------------------------------------------------------------------
def _text(of: Callable[[Any], str], dim: bool = False) -> Callable[[Any, int, Pen], list[Part]]:
    return lambda row, width, pen: [(fit(of(row), width), pen.palette.dim if dim else pen.palette.base)]


def _number(of: Callable[[Any], int], bad: bool = False) -> Callable[[Any, int, Pen], list[Part]]:
    def draw(row: Any, width: int, pen: Pen) -> list[Part]:
        value = of(row)
        style = pen.palette.dim if not value else pen.palette.warning if bad else pen.palette.base
        return [(fit(count(value) if value else pen.glyphs.none, width, True), style)]

    return draw


def _time(of: Callable[[Any], int]) -> Callable[[Any, int, Pen], list[Part]]:
    def draw(row: Any, width: int, pen: Pen) -> list[Part]:
        value = of(row)
        style = pen.palette.title if value >= 1_000_000_000 else pen.palette.base if value else pen.palette.dim
        return [(fit(duration(value) if value else pen.glyphs.none, width, True), style)]

    return draw


def _rate(row: Any, width: int, pen: Pen) -> list[Part]:
    rate = row.per_second
    text = f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s" if rate >= 0.1 else f"{rate * 60:.1f}/m"
    return [(fit(text, width, True), pen.palette.base)]


def _share(row: Any, width: int, pen: Pen) -> list[Part]:
    share = _error_share(row)
    if not share:
        return [(fit(pen.glyphs.none, width, True), pen.palette.dim)]
    text = f"{share:.0%}" if share >= 0.01 else "<1%"
    return [(fit(text, width, True), pen.palette.error if share >= 0.05 else pen.palette.warning)]


def _error_share(row: Any) -> float:
    return float(row.errors) / row.count if row.count else 0.0


def _bar(row: HotShape, width: int, pen: Pen) -> list[Part]:
    """What the time of all of them together was spent on."""
    parts = [
        (pen.glyphs.share[share.name] * many, pen.palette.component[share.component])
        for share, many in zip(SHARES, cells(shares_of(row.phases), width), strict=True)
        if many
    ]
    return parts or [(" " * width, pen.palette.base)]


def _trend(row: HotShape, width: int, pen: Pen) -> list[Part]:
    """Their p95 over the window, on a scale of its own."""
    return [(trend(row.slow, width, pen.glyphs), pen.palette.dim)]


def trend(values: Sequence[int], width: int, glyphs: Glyphs) -> str:
    """A line of bars, the newest at the right end; a bucket of 0 is blank. Where there are more values than cells, a
    cell is the highest of its values."""
    steps = " .:-=+*#" if glyphs.ascii else " ▁▂▃▄▅▆▇█"
    picked = [
        max(values[at * len(values) // width : max(at * len(values) // width + 1, (at + 1) * len(values) // width)])
        for at in range(width)
    ]
    top = max(picked, default=0)
    if not top:
        return " " * width
    return "".join(steps[max(1, round(value / top * (len(steps) - 1)))] if value else " " for value in picked)


def what_of(row: HotShape) -> str:
    """The resource of a shape with its subresource, and its group where it has one."""
    if not row.verb and not row.resource:
        return "others"
    resource = row.resource + (f"/{row.subresource}" if row.subresource else "")
    return f"{resource}.{row.group}" if row.group else resource or "(no resource)"


def _webhook_resources(row: HotWebhook) -> str:
    return ", ".join(f"{resource}.{group}" if group else resource for group, resource, _ in row.resources)


def _object_of(row: Storm) -> str:
    return row.object or "(URLs that are no resource)"


_AGENT: Final = Column("name", "CLIENT", 0, _text(lambda row: client_of(row.name)), lambda row: row.name, False, True)
_OBJECT: Final = Column("name", "OBJECT", 0, _text(lambda row: row.name), lambda row: row.name, False, True)
_TALKS: Final = (
    Column("count", "REQUESTS", 9, _number(lambda row: row.count), lambda row: row.count),
    Column("rate", "RATE", 8, _rate, lambda row: row.per_second, keep=3),
    Column("errors", "ERRORS", 6, _share, _error_share),
    Column("total", "TOTAL", 9, _time(lambda row: row.total), lambda row: row.total, keep=5),
)


def _spread(keep: int = 6, of: Callable[[Any], Any] = lambda row: row.durations) -> tuple[Column, ...]:
    return (
        Column("median", "P50", 9, _time(lambda row: of(row).p50), lambda row: of(row).p50, keep=keep),
        Column("p95", "P95", 9, _time(lambda row: of(row).p95), lambda row: of(row).p95, keep=9),
        Column("p99", "P99", 9, _time(lambda row: of(row).p99), lambda row: of(row).p99, keep=3),
        Column("max", "MAX", 9, _time(lambda row: of(row).max), lambda row: of(row).max, keep=4),
        Column("total", "TOTAL", 9, _time(lambda row: of(row).total), lambda row: of(row).total, keep=7),
    )


def _shape_key(row: HotShape) -> Hashable:
    return row.verb, row.group, row.resource, row.subresource, row.scope


_SHAPE: Final = (
    Column("verb", "VERB", 7, _text(lambda row: row.verb), lambda row: row.verb, False, True),
    Column("name", "RESOURCE", 0, _text(what_of), what_of, False, True),
    Column("scope", "SCOPE", 9, _text(lambda row: row.scope, True), lambda row: row.scope, False, True, keep=1),
)

TABLES: Final[tuple[HotTable, ...]] = (
    HotTable(
        "requests",
        "Requests",
        (
            *_SHAPE,
            Column("count", "REQUESTS", 8, _number(lambda row: row.count), lambda row: row.count, keep=8),
            Column("rate", "RATE", 7, _rate, lambda row: row.per_second, keep=3),
            Column("errors", "ERRORS", 6, _share, _error_share, keep=8),
            *_spread(),
            Column("where", "WHERE", _BAR, _bar, right=False, keep=5),
            Column("trend", "P95 TREND", _TREND, _trend, right=False, keep=2),
        ),
        lambda hot: hot.shapes,
        _shape_key,
        "No API request is among what is shown.",
        "total",
    ),
    HotTable(
        "webhooks",
        "Webhooks",
        (
            Column("name", "WEBHOOK", 0, _text(lambda row: row.name), lambda row: row.name, False, True),
            Column("kind", "KIND", 10, _text(lambda row: row.kind, True), lambda row: row.kind, False, True, keep=5),
            Column("count", "CALLS", 7, _number(lambda row: row.durations.count), lambda row: row.durations.count),
            *(one for one in _spread() if one.name in ("median", "p95")),
            Column("taken", "TAKEN", 9, _time(lambda row: row.taken), lambda row: row.taken),
            Column("errors", "FAILED", 6, _number(lambda row: row.failures, True), lambda row: row.failures),
            Column("timeouts", "TIMEOUT", 7, _number(lambda row: row.timeouts, True), lambda row: row.timeouts, keep=4),
            Column("denials", "DENIED", 6, _number(lambda row: row.denials + row.may_have_denied),
                   lambda row: row.denials + row.may_have_denied, keep=4),
            Column("resources", "FOR", 24, _text(_webhook_resources, True), right=False, keep=2),
        ),
        lambda hot: hot.webhooks,
        lambda row: (row.kind, row.name, row.configuration),
        "No call of a webhook is among what is shown.",
        "taken",
    ),
    HotTable("clients", "Clients", (_AGENT, *_TALKS), lambda hot: hot.agents, lambda row: row.name,
             "No client is known among what is shown.", "count"),
    HotTable("objects", "Objects", (_OBJECT, *_TALKS), lambda hot: hot.objects, lambda row: row.name,
             "No request for a single object is among what is shown.", "count"),
    HotTable(
        "retries",
        "Retries",
        (
            Column("name", "OBJECT", 0, _text(_object_of), lambda row: row.object, False, True),
            Column("client", "CLIENT", 24, _text(lambda row: client_of(row.agent) or "?", True),
                   lambda row: row.agent, False, True, keep=8),
            Column("code", "CODE", 4, _number(lambda row: row.code, True), lambda row: row.code),
            Column("count", "REQUESTS", 8, _number(lambda row: row.count), lambda row: row.count),
            Column("runs", "RUNS", 5, _number(lambda row: row.runs), lambda row: row.runs, keep=4),
            Column("longest", "LONGEST", 7, _number(lambda row: row.longest), lambda row: row.longest, keep=4),
            Column("first", "FROM", 8, lambda row, width, pen: [(clock(row.start, pen.utc)[:8], pen.palette.dim)],
                   lambda row: row.start, keep=5),
            Column("last", "TO", 8, lambda row, width, pen: [(clock(row.end, pen.utc)[:8], pen.palette.dim)],
                   lambda row: row.end, keep=5),
        ),
        lambda hot: hot.storms,
        lambda row: (row.agent, row.object, row.code),
        "Nobody asks for the same again and again in vain.",
        "count",
    ),
    HotTable(
        "etcd",
        "etcd",
        (
            Column("name", "CALL", 0, _text(lambda row: row.method), lambda row: row.method, False, True),
            Column("purpose", "FOR", 18, _text(lambda row: row.purpose, True), lambda row: row.purpose, False, True,
                   keep=8),
            Column("count", "CALLS", 8, _number(lambda row: row.durations.count), lambda row: row.durations.count),
            *_spread(),
            Column("gap", "GAP P95", 9, _time(lambda row: row.gaps.p95), lambda row: row.gaps.p95, keep=5),
        ),
        lambda hot: hot.etcd,
        lambda row: (row.method, row.purpose),
        "No call to etcd is among what is shown.",
        "total",
    ),
    HotTable(
        "lists",
        "Lists from etcd",
        (
            *_SHAPE,
            Column("lists", "FROM ETCD", 9, _number(lambda row: row.from_etcd), lambda row: row.from_etcd),
            Column("count", "REQUESTS", 8, _number(lambda row: row.count), lambda row: row.count, keep=8),
            *_spread(),
        ),
        lambda hot: hot.lists,
        _shape_key,
        "Every list was answered from the API server's cache.",
        "lists",
    ),
)  # fmt: skip
"""In the order in which the arrow keys go through them."""
BY_NAME: Final = {table.name: table for table in TABLES}


# --- columns and rows --------------------------------------------------------------------------------
def columns_for(table: HotTable, width: int) -> list[tuple[Column, int]]:
    """The columns that have room, with their widths; the names get what is left, at least 18 cells."""
    kept = list(table.columns)
    least = 18 if width >= 72 else 12

    def taken() -> int:
        return 2 + sum((column.width or least) + len(_GAP) for column in kept) - len(_GAP)

    while taken() > width and len(kept) > 2:
        weakest = min((column for column in kept if column.width), key=lambda column: column.keep)
        kept.remove(weakest)
    rest = max(0, width - taken())
    return [(column, column.width or least + rest) for column in kept]


def sorted_rows(table: HotTable, rows: Iterable[Any], sort: str, reverse: bool) -> list[Any]:
    """Rows by a column, the highest first and names from a to z; what has no such column stays as it is.

    By a time, what lasts as long as its client likes comes after all others in either direction, as in the list: one
    row a watch would hide everything that somebody waits for.
    """
    found = list(rows)
    column = next((one for one in table.columns if one.name == sort and one.order is not None), None)
    if column is None or column.order is None:
        return found
    found.sort(key=column.order, reverse=column.rises == reverse)
    if column.name in _TIMES:
        found.sort(key=lambda row: isinstance(row, HotShape) and row.lasting)
    return found


class HotLines:
    """The rows of a table, for the list."""

    def __init__(self, table: HotTable, rows: Sequence[Any], sort: str, reverse: bool, pen: Pen, version: int) -> None:
        self.table, self.rows = table, rows
        self._sort, self._reverse, self._pen, self._version = sort, reverse, pen, version
        self._places: dict[Hashable, int] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def identity(self, index: int) -> Hashable:
        """Which row it is, whatever its numbers are."""
        return self.table.name, self.table.key(self.rows[index])

    def key(self, index: int) -> Hashable:
        """Identity and content."""
        return self.table.name, self.rows[index], self._version

    def find(self, identity: Hashable) -> int | None:
        """Where it is now."""
        if self._places is None:
            self._places = {self.identity(at): at for at in range(len(self.rows))}
        return self._places.get(identity)

    def header(self, width: int) -> Sequence[Part]:
        """Titles, with an arrow at the column that the rows are sorted by."""
        g = self._pen.glyphs
        text = " "
        for column, room in columns_for(self.table, width):
            arrow = g.up if column.rises != self._reverse else g.down
            title = column.title + (arrow if column.name == self._sort else "")
            if len(title) > room and column.right and text.endswith(_GAP):  # an arrow takes a cell of the gap before
                text, room = text[:-1], room + 1
            text += fit(title, room, column.right) + _GAP
        return [(text.rstrip(), self._pen.palette.header)]

    def lines(self, indexes: Sequence[int], width: int) -> Sequence[Sequence[Part]]:
        """The rows as text and style."""
        columns = columns_for(self.table, width)
        return [self._line(self.rows[index], columns) for index in indexes]

    def _line(self, row: Any, columns: Sequence[tuple[Column, int]]) -> list[Part]:
        base = self._pen.palette.base
        parts: list[Part] = [(" ", base)]
        for at, (column, room) in enumerate(columns):
            if at:
                parts.append((_GAP, base))
            parts += column.draw(row, room, self._pen)
        return parts


def legend(rows: Iterable[Any], pen: Pen) -> list[Part]:
    """What the glyphs in the bars of these shapes mean: only those that are there."""
    parts: list[Part] = []
    bars = (cells(shares_of(row.phases), _BAR) for row in rows if isinstance(row, HotShape))
    for share in present(bars):
        parts.append(
            (f"{'  ' if parts else ' '}{pen.glyphs.share[share.name]}", pen.palette.component[share.component])
        )
        parts.append((f" {share.name}", pen.palette.dim))
    return parts
