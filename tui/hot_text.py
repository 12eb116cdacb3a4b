"""Hot spots as lines of text and as JSON: `k8s-trace-tui hot`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from receiver.traces.hotspots import HotShape, HotSpots
from receiver.traces.phases import GROUPS
from tui.printing import BOLD, DIM, Paper
from tui.terminal_text import clock, count, counted, duration, fit, printable

_ROWS: Final = 15
_Columns = Sequence[tuple[str, int]]
"""Titles and widths; numbers, of a width below 0, stand to the right."""
_REQUESTS: Final = (
    ("VERB", 8), ("RESOURCE", 30), ("SCOPE", 9), ("COUNT", -7), ("/S", -6), ("ERRORS", -7), ("P50", -9), ("P95", -9),
    ("P99", -9), ("MAX", -9), ("TOTAL", -9), ("MOSTLY", 10),
)  # fmt: skip
_WEBHOOKS: Final = (
    ("WEBHOOK", 34), ("KIND", 10), ("CALLS", -7), ("P50", -9), ("P95", -9), ("FAILED", -7), ("TIMEOUT", -7),
    ("DENIED", -8), ("TAKEN", -9), ("FOR", 40),
)  # fmt: skip
_TALKERS: Final = (("", 60), ("COUNT", -7), ("/S", -7), ("ERRORS", -7), ("TOTAL", -9))
_STORMS: Final = (
    ("CLIENT", 36), ("OBJECT", 40), ("CODE", -4), ("COUNT", -7), ("LONGEST", -7), ("FROM", 12), ("TO", 12),
)  # fmt: skip
_ETCD: Final = (
    ("OPERATION", 24), ("FOR", 14), ("COUNT", -8), ("P50", -9), ("P95", -9), ("MAX", -9), ("GAP P50", -9),
    ("GAP P95", -9), ("TOTAL", -9),
)  # fmt: skip
_LISTS: Final = (("RESOURCE", 30), ("SCOPE", 9), ("FROM ETCD", -9), ("OF", -8), ("P95", -9))


def document(hot: HotSpots) -> dict[str, Any]:
    """What `hot --json` prints: all tables; times in ns. `phases` are those of `traces --json`, summed up. `filter`
    finds the traces behind a row."""
    found = asdict(hot)
    for table, shapes in (("shapes", hot.shapes), ("lists", hot.lists)):
        for row, shape in zip(found[table], shapes, strict=True):
            row["phases"] = shape.phases.to_json()
    return found


def lines(hot: HotSpots, paper: Paper) -> Iterator[str]:
    """The tables one after another, the first rows of each."""
    yield f"{counted(hot.requests, 'request')} in {counted(hot.traces, 'trace')}"
    yield from _table(
        "REQUESTS",
        _REQUESTS,
        [
            (
                shape.verb, _resource(shape), shape.scope, count(shape.count), f"{shape.per_second:.1f}",
                count(shape.errors), _time(shape.durations.p50), _time(shape.durations.p95),
                _time(shape.durations.p99), _time(shape.durations.max), _time(shape.durations.total), _mostly(shape),
            )
            for shape in hot.shapes
        ],
        paper,
    )  # fmt: skip
    yield from _table(
        "WEBHOOKS",
        _WEBHOOKS,
        [
            (
                hook.name, hook.kind, count(hook.durations.count), _time(hook.durations.p50),
                _time(hook.durations.p95), count(hook.failures), count(hook.timeouts),
                _denied(hook.denials, hook.may_have_denied), _time(hook.taken),
                ", ".join(resource for _, resource, _ in hook.resources),
            )
            for hook in hot.webhooks
        ],
        paper,
    )  # fmt: skip
    for title, talkers in (("CLIENTS", hot.agents), ("OBJECTS", hot.objects)):
        rows = [
            (one.name, count(one.count), f"{one.per_second:.2f}", count(one.errors), _time(one.total))
            for one in talkers
        ]
        yield from _table(title, _TALKERS, rows, paper)
    yield from _table(
        "RETRY STORMS",
        _STORMS,
        [
            (
                storm.agent, storm.object or "(no resource)", str(storm.code), count(storm.count),
                count(storm.longest), clock(storm.start), clock(storm.end),
            )
            for storm in hot.storms
        ],
        paper,
    )  # fmt: skip
    yield from _table(
        "ETCD",
        _ETCD,
        [
            (
                call.method, call.purpose, count(call.durations.count), _time(call.durations.p50),
                _time(call.durations.p95), _time(call.durations.max), _time(call.gaps.p50), _time(call.gaps.p95),
                _time(call.durations.total),
            )
            for call in hot.etcd
        ],
        paper,
    )  # fmt: skip
    yield from _table(
        "LISTS FROM ETCD",
        _LISTS,
        [
            (_resource(shape), shape.scope, count(shape.from_etcd), count(shape.count), _time(shape.durations.p95))
            for shape in hot.lists
        ],
        paper,
    )


def _table(title: str, columns: _Columns, rows: Sequence[Sequence[str]], paper: Paper) -> Iterator[str]:
    if not rows:
        return
    if paper.width is None:  # a file or a pipe: nothing is cut, and a long name makes its column wide
        columns = [
            (name, width if width < 0 else max(width, *(len(printable(row[at])) for row in rows[:_ROWS])))
            for at, (name, width) in enumerate(columns)
        ]
    yield ""
    yield paper.paint(title, BOLD)
    yield paper.paint(_line([name for name, _ in columns], columns), DIM)
    for row in rows[:_ROWS]:
        yield _line(row, columns)
    if len(rows) > _ROWS:
        yield paper.paint(f"{count(len(rows) - _ROWS)} more: --json has them", DIM)


def _line(cells: Sequence[str], columns: _Columns) -> str:
    return " ".join(
        fit(cell, abs(width), right=width < 0) for cell, (_, width) in zip(cells, columns, strict=True)
    ).rstrip()


def _resource(shape: HotShape) -> str:
    resource = "/".join(filter(None, (shape.resource, shape.subresource))) or "(no resource)"
    return f"{resource}.{shape.group}" if shape.group else resource


def _mostly(shape: HotShape) -> str:
    return max(GROUPS, key=shape.phases.group) if shape.phases.duration else ""


def _time(ns: int) -> str:
    return duration(ns) if ns else "–"


def _denied(sure: int, perhaps: int) -> str:
    return f"{sure}+{perhaps}?" if perhaps else str(sure)
