"""What is hot: requests by shape, webhooks, clients, objects, retry storms, calls to etcd, lists that went there.

Every number is about all traces that are selected, none is a sample: percentiles are values that were measured, by
nearest rank (of n, the one at place ceil(q n)). And each carries the filter that finds the traces behind it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.index import Index
from receiver.traces.facets import (
    DENIED,
    MAY_HAVE_DENIED,
    OK,
    PURPOSES,
    SCOPES,
    TIMED_OUT,
    Facets,
    Shape,
    reading,
)
from receiver.traces.phases import PHASES, Phases
from receiver.traces.query import Query, QueryError, View, quoted, select

Array = npt.NDArray[Any]

BUCKETS: Final = 40
"""Points of a sparkline, at most 64."""
MOST: Final = {"shapes": 500, "webhooks": 200, "agents": 100, "objects": 100, "storms": 100, "etcd": 100}
"""Rows of a table that are made: shapes, clients and the like are named by whoever sends requests."""
NAMED: Final = 5
"""Resources that a webhook names."""
STORM_GAP_NS: Final = 5_000_000_000
"""Requests of a storm follow one another within this."""
STORM_LEAST: Final = 5
"""So many are a storm."""
_BITS: Final = 48  # of a duration, in a number that is sorted together with that of its group
LONGEST_NS: Final = (1 << _BITS) - 1
"""Durations count up to this: 78 hours."""
_SPARK_BITS: Final = 42  # there 73 min, for the number of the bucket is in it, too
_BUCKET_BITS: Final = 6
_MIN_SECONDS: Final = 1.0
_FEW: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Spread:
    """Durations of `count` things in ns, each at most `LONGEST_NS`; all 0 where there is none."""

    count: int
    p50: int
    p95: int
    p99: int
    max: int
    total: int


@dataclass(frozen=True, slots=True)
class HotShape:
    """Requests of one shape. `scope` is one of `facets.SCOPES`; a non-resource URL has no resource.

    `errors` are those that `View.errors_only` lists, `refused` the ones answered with 4xx, `failed` with 5xx.
    `lasting`: they last as long as their client likes, so that their durations say nothing about the cluster.
    `phases` are the sums of all. `counts` and `slow` are sparklines: how many began, and their p95 in ns (0: none; at
    most 73 min).
    `from_etcd` of them are lists that were read from etcd instead of the API server's cache. `exact`: the filter finds
    these and no others, else others of the same verb and resource, too."""

    verb: str
    group: str
    resource: str
    subresource: str
    scope: str
    lasting: bool
    per_second: float
    errors: int
    refused: int
    failed: int
    durations: Spread
    phases: Phases
    counts: tuple[int, ...]
    slow: tuple[int, ...]
    from_etcd: int
    filter: str
    exact: bool

    @property
    def count(self) -> int:
        """How many."""
        return self.durations.count

    @property
    def error_share(self) -> float:
        """0 to 1."""
        return self.errors / self.durations.count


@dataclass(frozen=True, slots=True)
class HotWebhook:
    """Calls of one webhook. `kind` is mutating, validating or conversion; `durations` are those of its calls, `taken`
    is what requests waited for it, in ns along their critical paths.

    `timeouts` are among the `failures`. `denials`: its own span says that it refused, which only webhooks that are
    traced themselves tell; `may_have_denied`: the request was refused with 4xx, this was the last webhook asked, and
    nothing was written after it (what plugins inside the API server refuse looks the same).
    `resources` are the (group, resource) that it was called for most, with counts."""

    kind: str
    name: str
    configuration: str
    durations: Spread
    failures: int
    timeouts: int
    denials: int
    may_have_denied: int
    taken: int
    requests: int
    resources: tuple[tuple[str, str, int], ...]
    filter: str


@dataclass(frozen=True, slots=True)
class Talker:
    """A user agent, or an object: what it is called, how many requests, and how long they took together without those
    that were asked to last."""

    name: str
    count: int
    per_second: float
    errors: int
    total: int
    filter: str


@dataclass(frozen=True, slots=True)
class Storm:
    """One client that asks for one object again and again and is refused with the same code: `count` requests in runs
    of at least `STORM_LEAST`, each within `STORM_GAP_NS` of the one before; `longest` is the longest run, `start` and
    `end` are where the first run begins and the last one ends (ns since the epoch)."""

    agent: str
    object: str
    code: int
    count: int
    runs: int
    longest: int
    start: int
    end: int
    filter: str


@dataclass(frozen=True, slots=True)
class EtcdOperation:
    """Calls to etcd by the API server: the method (`KV/Range`), and one of `facets.PURPOSES`.

    `gaps` are of the calls whose other side is in the trace, too: what etcd's own span does not explain, so the way and
    waiting. `filter` is "" where the filter language cannot name spans."""

    method: str
    purpose: str
    durations: Spread
    gaps: Spread
    filter: str


@dataclass(frozen=True, slots=True)
class HotSpots:
    """All of it. Shapes come by total time, what is asked to last behind all others; webhooks by the time that they
    took from requests; clients, objects and storms by count; etcd by total time. `left_out` counts, by the name of the
    table, rows above `MOST`. Rates are per second of `start` to `end` (ns since the epoch), which is the window, or
    else from when to when the traces began; the last bucket of the sparklines ends with `spark_end`, each lasts
    `bucket_ns`.
    """

    requests: int
    traces: int
    start: int
    end: int
    spark_end: int
    bucket_ns: int
    shapes: tuple[HotShape, ...] = ()
    webhooks: tuple[HotWebhook, ...] = ()
    agents: tuple[Talker, ...] = ()
    objects: tuple[Talker, ...] = ()
    storms: tuple[Storm, ...] = ()
    etcd: tuple[EtcdOperation, ...] = ()
    lists: tuple[HotShape, ...] = ()
    """Shapes of which some were lists from etcd, by how many."""
    left_out: dict[str, int] = field(default_factory=dict)


def hot_spots(index: Index, view: View, now: int, *, slots: Array | None = None, buckets: int = BUCKETS) -> HotSpots:
    """The hot spots among the traces of a view. For any thread, not under the index's lock.

    What the call before found is kept and only what changed is counted anew, as long as views follow one another that
    have most of their traces in common. The first call looks at all traces (`facets.catch_up` does so beforehand).

    Args:
        now: as for `query.select`.
        slots: the traces, where `select` has found them already.
    """
    if slots is None:
        with index.lock:
            slots = select(index, view, now).slots
    at = np.asarray(slots, np.int64)
    with reading(index) as facets:
        standing = _standing_of(index)
        low, high = (now - view.window_ns, now) if view.window_ns is not None else _extent(facets, at, now)
        standing.follow(facets, at, low, high, min(max(1, buckets), 1 << _BUCKET_BITS))
        return _Tables(index.names, facets, standing, low, high).all()


# --- what is kept ---------------------------------------------------------------------------------
_NOT: Final = np.uint64(0xFFFFFFFFFFFFFFFF)
_NO_KEYS: Final = np.zeros(0, np.uint64)


class _Ranked:
    """Durations in order within groups, so that any rank of a group is one look; kept in order as some come and go.

    Each is one number, the group above the duration. Groups beyond what fits are not counted."""

    def __init__(self, bits: int) -> None:
        self._bits = np.uint64(bits)
        self._longest = (1 << bits) - 1
        self._keys: Array = _NO_KEYS
        self._held: Array = _NO_KEYS  # of `follow`

    def keys(self, group: Array, duration: Array) -> Array:
        """The numbers of these."""
        clipped = np.minimum(duration, self._longest).astype(np.uint64)
        found: Array = (group.astype(np.uint64) << self._bits) | clipped
        return found

    def change(self, gone: Array, come: Array) -> None:
        """Take out and put in."""
        keys: Array = self._keys
        if len(gone):
            gone = np.sort(gone)
            again = np.arange(len(gone)) - np.searchsorted(gone, gone)
            stays = np.ones(len(keys), bool)
            stays[np.searchsorted(keys, gone) + again] = False
            keys = keys[stays]
        if len(come) * 4 > len(keys):
            keys = np.concatenate((keys, come))
            keys.sort()
        elif len(come):
            come = np.sort(come)
            keys = np.insert(keys, np.searchsorted(keys, come), come)
        self._keys = keys

    def follow(self, keys: Array) -> None:
        """Hold these, by whatever they belong to (`_NOT`: none); what they were before goes."""
        held: Array = self._held
        if len(held) < len(keys):
            held = np.concatenate((held, np.full(len(keys) - len(held), _NOT)))
        changed = np.flatnonzero(held != keys)
        gone, come = held[changed], keys[changed]
        self.change(gone[gone != _NOT], come[come != _NOT])
        self._held = keys

    def bounds(self, groups: Array) -> tuple[Array, Array]:
        """Of each group: (where it starts, how many there are)."""
        low = np.searchsorted(self._keys, groups.astype(np.uint64) << self._bits)
        high = np.searchsorted(self._keys, (groups.astype(np.uint64) + np.uint64(1)) << self._bits)
        return low, high - low

    def at(self, places: Array) -> Array:
        """The durations at these places."""
        found: Array = (self._keys[places] & np.uint64(self._longest)).astype(np.int64)
        return found

    def percentile(self, groups: Array, share: float) -> tuple[Array, Array]:
        """Of each group: (how many, the value by nearest rank, 0 of none)."""
        low, count = self.bounds(groups)
        if not len(self._keys):
            return count, np.zeros(len(groups), np.int64)
        place = np.minimum(low + _ranks(share, count), len(self._keys) - 1)
        return count, np.where(count > 0, self.at(place), 0)

    def spreads(self, groups: Sequence[int], totals: Array) -> list[Spread]:
        """Of each of these groups; `totals` by group."""
        of = np.asarray(groups, np.int64)
        low, count = self.bounds(of)
        if not len(self._keys):
            return [_NO_SPREAD] * len(of)
        last = len(self._keys) - 1
        places = [np.minimum(low + _ranks(share, count), last) for share in (0.5, 0.95, 0.99, 1.0)]
        columns = [self.at(place).tolist() for place in places]
        return [
            Spread(number, p50, p95, p99, highest, total) if number else _NO_SPREAD
            for number, total, p50, p95, p99, highest in zip(count.tolist(), totals[of].tolist(), *columns, strict=True)
        ]


_NO_SPREAD: Final = Spread(0, 0, 0, 0, 0, 0)


def _ranks(share: float, count: Array) -> Array:
    """The place, from 0, of a percentile among so many sorted values, by nearest rank. Whole thousandths are counted
    exactly."""
    thousandths = round(share * 1000)
    found: Array = np.maximum(-(-count * thousandths // 1000), 1) - 1
    return found


class _Sums:
    """Sums by group of some columns."""

    def __init__(self, columns: int) -> None:
        self.of: Array = np.zeros((0, columns), np.int64)

    def add(self, sign: int, groups: Array, values: Array, known: int) -> None:
        """Add (1) or take away (-1) these; `known` groups there are."""
        if known > len(self.of):
            room = np.zeros((known + known // 4 - len(self.of), self.of.shape[1]), np.int64)
            self.of = np.concatenate((self.of, room))
        if len(groups):
            order = np.argsort(groups.astype(np.uint16) if known < 1 << 16 else groups, kind="stable")
            by = groups[order]
            starts = np.flatnonzero(np.concatenate(([True], by[1:] != by[:-1])))
            self.of[by[starts]] += sign * np.add.reduceat(values[order], starts, axis=0)

    def column(self, number: int, known: int) -> Array:
        """One column of the known groups."""
        found: Array = self.of[:known, number]
        return found


_TOTAL, _ERRORS, _REFUSED, _FAILED, _LISTS, _COUNT, _EXTRAS = range(7)  # columns of sums by shape, before phases


class _Standing:
    """What the last view added up to: to follow it costs what changed."""

    def __init__(self) -> None:
        self.epoch = -1
        self.step = 0
        self.empty()

    def empty(self) -> None:
        """Forget all."""
        self.was: Array = np.zeros(0, np.int32)  # by slot, the row that is counted, -1 for none
        self.shapes, self.agents, self.objects = _Sums(_EXTRAS + PHASES), _Sums(3), _Sums(3)
        self.durations, self.sparks = _Ranked(_BITS), _Ranked(_SPARK_BITS)
        self.hooks, self.hook_durations = _Sums(7), _Ranked(_BITS)
        self.etcd, self.etcd_durations, self.gaps, self.gap_sums = _Sums(1), _Ranked(_BITS), _Ranked(_BITS), _Sums(1)
        self.tables: list[dict[str, Array]] = []

    def follow(self, facets: Facets, slots: Array, low: int, high: int, buckets: int) -> None:
        """Count these traces instead of those before."""
        if self.epoch != facets.epoch:
            self.empty()
            self.epoch = facets.epoch
        self.selected = slots
        rows: Array = np.full(facets.traces, -1, np.int32)
        rows[slots] = facets.rows(slots)
        was = np.concatenate((self.was, np.full(len(rows) - len(self.was), -1, np.int32)))
        changed = was != rows
        for sign, of in ((-1, was), (1, rows)):
            some = of[changed]
            self._requests(facets, sign, some[some >= 0])
        tables = [dict(facets.hooks.columns), dict(facets.etcd.columns)]
        for sign, held, of in ((-1, self.tables, was), (1, tables, rows)):
            if held:
                counts = changed & (of >= 0)
                self._hooks(facets, sign, held[0], np.flatnonzero(counts[held[0]["slot"]]))
                self._etcd(facets, sign, held[1], np.flatnonzero(counts[held[1]["slot"]]))
        self.was, self.tables = rows, tables
        shape = facets.column("shape")
        asked = np.flatnonzero(rows >= 0)
        asked = asked[shape[rows[asked]] >= 0]
        self.asked = rows[asked]
        keys = np.full(len(rows), _NOT)
        keys[asked] = self.durations.keys(shape[self.asked], facets.column("duration")[self.asked])
        self.durations.follow(keys)
        self._sparks(facets, asked, len(rows), low, high, buckets)

    def _requests(self, facets: Facets, sign: int, rows: Array) -> None:
        columns = {name: facets.column(name)[rows] for name in ("shape", "code", "wrong", "from_etcd", "duration")}
        asked = columns["shape"] >= 0
        rows, columns = rows[asked], {name: column[asked] for name, column in columns.items()}
        shape, code, known = columns["shape"], columns["code"], len(facets.shapes)
        extras = np.empty((len(rows), _EXTRAS + PHASES), np.int64)
        extras[:, _TOTAL], extras[:, _ERRORS], extras[:, _COUNT] = columns["duration"], columns["wrong"], 1
        extras[:, _REFUSED], extras[:, _FAILED] = (code >= 400) & (code < 500), code >= 500
        extras[:, _LISTS], extras[:, _EXTRAS:] = columns["from_etcd"], facets.phases[rows]
        self.shapes.add(sign, shape, extras, known)
        brief = np.where(facets.lasting()[shape], 0, columns["duration"]) if known else columns["duration"]
        talks = np.stack((np.ones(len(rows), np.int64), columns["wrong"], brief), axis=1)
        self.agents.add(sign, facets.column("agent")[rows].astype(np.int64), talks, facets.names)
        self.objects.add(sign, facets.column("object")[rows], talks, len(facets.objects["name"]))

    def _hooks(self, facets: Facets, sign: int, table: dict[str, Array], rows: Array) -> None:
        hook, state, denial = table["hook"][rows], table["state"][rows], table["denial"][rows]
        keys = self.hook_durations.keys(hook, table["duration"][rows])
        self.hook_durations.change(*((keys, _NO_KEYS) if sign < 0 else (_NO_KEYS, keys)))
        parts = (
            table["duration"][rows], table["cost"][rows], state != OK, state == TIMED_OUT, denial == DENIED,
            denial == MAY_HAVE_DENIED, table["first"][rows],
        )  # fmt: skip
        self.hooks.add(sign, hook, np.stack(parts, axis=1).astype(np.int64), len(facets.hook_kinds))

    def _etcd(self, facets: Facets, sign: int, table: dict[str, Array], rows: Array) -> None:
        operation, gap, known = table["operation"][rows], table["gap"][rows], len(facets.operations)
        duration = table["duration"][rows]
        answered = gap >= 0
        for ranked, keys in (
            (self.etcd_durations, self.etcd_durations.keys(operation, duration)),
            (self.gaps, self.gaps.keys(operation[answered], gap[answered])),
        ):
            ranked.change(*((keys, _NO_KEYS) if sign < 0 else (_NO_KEYS, keys)))
        self.etcd.add(sign, operation, duration[:, None], known)
        self.gap_sums.add(sign, operation[answered], gap[answered][:, None], known)

    def _sparks(self, facets: Facets, asked: Array, slots: int, low: int, high: int, buckets: int) -> None:
        """Buckets lie at multiples of their length, so that they stay while the window moves."""
        step = max(1, -(-(high - low + 1) // buckets))
        if not self.step // 2 < step <= self.step:  # it grows with what is held: seldom another one
            step += step // 8
            self.step = step
        self.bucket = high // self.step
        when = facets.column("when")[self.asked]
        bucket = when // self.step
        shown = (bucket > self.bucket - (1 << _BUCKET_BITS)) & (bucket <= self.bucket)
        group = (facets.column("shape")[self.asked].astype(np.int64) << _BUCKET_BITS) | (
            bucket & ((1 << _BUCKET_BITS) - 1)
        )
        keys = np.full(slots, _NOT)
        keys[asked[shown]] = self.sparks.keys(group[shown], facets.column("duration")[self.asked[shown]])
        self.sparks.follow(keys)
        self.buckets = buckets


_standing: weakref.WeakKeyDictionary[Index, _Standing] = weakref.WeakKeyDictionary()
_standing_lock: Final = threading.Lock()


def _standing_of(index: Index) -> _Standing:
    with _standing_lock:
        return _standing.setdefault(index, _Standing())


# --- what is told ---------------------------------------------------------------------------------
class _Tables:
    """Rows made of what stands."""

    def __init__(self, names: list[str], facets: Facets, standing: _Standing, low: int, high: int) -> None:
        self.names, self.facets, self.standing = names, facets, standing
        self.low, self.high = low, high
        self.seconds = max(_MIN_SECONDS, (high - low) / 1e9)
        self.left_out: dict[str, int] = {}

    def all(self) -> HotSpots:
        standing = self.standing
        shapes = self.shapes()
        lists = sorted((shape for shape in shapes if shape.from_etcd), key=lambda shape: -shape.from_etcd)
        return HotSpots(
            requests=len(standing.asked),
            traces=len(standing.selected),
            start=self.low,
            end=self.high,
            spark_end=(standing.bucket + 1) * standing.step,
            bucket_ns=standing.step,
            shapes=shapes,
            webhooks=self.webhooks(),
            agents=self.agents(),
            objects=self.objects(),
            storms=self.storms(),
            etcd=self.etcd(),
            lists=tuple(lists),
            left_out=self.left_out,
        )

    def _top(self, table: str, present: Array, *by: Array) -> list[int]:
        """The first of these, the highest by the last of some numbers first, then by those before."""
        order = present[np.lexsort([-number[present].astype(np.int64) for number in by])]
        if len(order) > MOST[table]:
            self.left_out[table] = len(order) - MOST[table]
        top: list[int] = order[: MOST[table]].tolist()
        return top

    # --- requests -------------------------------------------------------------------------------
    def shapes(self) -> tuple[HotShape, ...]:
        facets, standing, known = self.facets, self.standing, len(self.facets.shapes)
        sums = standing.shapes.of[:known]
        lasting = facets.lasting()
        top = self._top("shapes", np.flatnonzero(sums[:, _COUNT]), sums[:, _TOTAL], ~lasting)
        spreads = standing.durations.spreads(top, sums[:, _TOTAL])
        counts, slow = self._sparklines(top)
        siblings = facets.siblings()
        found = []
        for number, spread, row, count, p95 in zip(top, spreads, sums[top].tolist(), counts, slow, strict=True):
            kind = facets.shapes[number]
            verb, subresource = self.names[kind.verb], self.names[kind.subresource]
            words, exact = self._filter(kind, siblings[number])
            found.append(
                HotShape(
                    verb=verb,
                    group=self.names[kind.group],
                    resource=self.names[kind.resource],
                    subresource=subresource,
                    scope=SCOPES[kind.scope],
                    lasting=bool(lasting[number]),
                    per_second=row[_COUNT] / self.seconds,
                    errors=row[_ERRORS],
                    refused=row[_REFUSED],
                    failed=row[_FAILED],
                    durations=spread,
                    phases=Phases(row[_TOTAL], tuple(row[_EXTRAS:])),
                    counts=tuple(count),
                    slow=tuple(p95),
                    from_etcd=row[_LISTS] if verb == "list" else 0,
                    filter=words,
                    exact=exact,
                )
            )
        return tuple(found)

    def _sparklines(self, top: Sequence[int]) -> tuple[list[list[int]], list[list[int]]]:
        """(counts, p95 in ns) of these shapes by bucket of time."""
        standing = self.standing
        visible = np.arange(standing.bucket - standing.buckets + 1, standing.bucket + 1) & ((1 << _BUCKET_BITS) - 1)
        groups = (np.array(top, np.int64)[:, None] << _BUCKET_BITS) | visible[None, :]
        count, value = standing.sparks.percentile(groups.ravel(), 0.95)
        return count.reshape(groups.shape).tolist(), value.reshape(groups.shape).tolist()

    def _filter(self, kind: Shape, siblings: bool) -> tuple[str, bool]:
        if kind == Shape(0, 0, 0, 0, 0):  # not told apart
            return "", False
        words = f"verb={self._quoted(kind.verb)}"
        if not kind.resource:
            return f"{words} resource=", True
        resource = quoted(f"{self.names[kind.resource]}/{self.names[kind.subresource]}")
        words += f" group={self._quoted(kind.group)} resource={resource}"
        if not siblings:
            return words, True
        scope = _SCOPE_WORDS[SCOPES[kind.scope]]
        return (f"{words} {scope}", True) if understood(scope) else (words, False)

    def _quoted(self, name: int) -> str:
        return quoted(self.names[name]) if name else ""

    # --- who and what -----------------------------------------------------------------------------
    def _talkers(self, table: str, sums: Array, said: Callable[[int], tuple[str, str]]) -> tuple[Talker, ...]:
        top = self._top(table, np.flatnonzero(sums[:, 0]), sums[:, 2], sums[:, 0])
        return tuple(
            Talker(name, count, count / self.seconds, errors, total, words)
            for (count, errors, total), (name, words) in zip(sums[top].tolist(), map(said, top), strict=True)
        )

    def agents(self) -> tuple[Talker, ...]:
        sums = self.standing.agents.of.copy()
        sums[:1] = 0  # those that do not say who they are
        return self._talkers("agents", sums, lambda number: (self.names[number], f"ua={self._quoted(number)}"))

    def objects(self) -> tuple[Talker, ...]:
        held = self.facets.objects
        known = min(len(held["name"]), len(self.standing.objects.of))
        sums = self.standing.objects.of[:known].copy()
        sums[(held["name"][:known] == 0) | (held["resource"][:known] == 0)] = 0
        return self._talkers("objects", sums, self._object)

    def _object(self, number: int) -> tuple[str, str]:
        """(what an object is called, its filter)."""
        group, resource, namespace, name = (int(column[number]) for column in self.facets.objects.values())
        if not resource:
            return "", "resource="
        words = f"group={self._quoted(group)} resource={self._quoted(resource)}"
        words += f" ns={self._quoted(namespace)} name={self._quoted(name)}"
        inside = "" if self.names[resource] == "namespaces" else self.names[namespace]
        return f"{self.names[resource]} {'/'.join(filter(None, (inside, self.names[name])))}".rstrip(), words

    def storms(self) -> tuple[Storm, ...]:
        rows = self.standing.asked
        rows = rows[self.facets.column("code")[rows] >= 400]
        if len(rows) < STORM_LEAST:
            return ()
        agent, item, code, when = (self.facets.column(name)[rows] for name in ("agent", "object", "code", "when"))
        order = np.lexsort((when, code, item, agent))
        agent, item, code, when = agent[order], item[order], code[order], when[order]
        same = (agent[1:] == agent[:-1]) & (item[1:] == item[:-1]) & (code[1:] == code[:-1])
        begins = np.flatnonzero(np.concatenate(([True], ~(same & (when[1:] - when[:-1] <= STORM_GAP_NS)))))
        sizes = np.diff(np.append(begins, len(when)))
        runs: dict[tuple[int, int, int], list[int]] = {}
        for run in np.flatnonzero(sizes >= STORM_LEAST).tolist():
            first = begins[run]
            runs.setdefault((int(agent[first]), int(item[first]), int(code[first])), []).append(run)
        ranked = sorted(runs.items(), key=lambda item: (-int(sizes[item[1]].sum()), item[0]))
        if len(ranked) > MOST["storms"]:
            self.left_out["storms"] = len(ranked) - MOST["storms"]
        found = []
        for (client, what, answer), members in ranked[: MOST["storms"]]:
            counts = sizes[members]
            name, words = self._object(what)
            ua = f"ua={self._quoted(client)} " if client else ""
            found.append(
                Storm(
                    agent=self.names[client],
                    object=name,
                    code=answer,
                    count=int(counts.sum()),
                    runs=len(members),
                    longest=int(counts.max()),
                    start=int(when[begins[members[0]]]),
                    end=int(when[begins[members[-1]] + sizes[members[-1]] - 1]),
                    filter=f"{ua}{words} code={answer}",
                )
            )
        return tuple(found)

    # --- calls ------------------------------------------------------------------------------------
    def webhooks(self) -> tuple[HotWebhook, ...]:
        facets, standing, known = self.facets, self.standing, len(self.facets.hook_kinds)
        sums = standing.hooks.of[:known]
        every = np.arange(len(sums))
        present = np.flatnonzero(standing.hook_durations.bounds(every)[1])
        top = self._top("webhooks", present, sums[:, 1])
        if not top:
            return ()
        resources = self._called()
        spreads = standing.hook_durations.spreads(top, sums[:, 0])
        found = []
        for number, spread, row in zip(top, spreads, sums[top].tolist(), strict=True):
            kind, name, configuration = (self.names[part] for part in facets.hook_kinds[number])
            _, taken, failures, timeouts, denials, perhaps, requests = row
            ranked = sorted(resources.get(number, {}).items(), key=lambda item: (-item[1], item[0]))
            found.append(
                HotWebhook(
                    kind=kind,
                    name=name,
                    configuration=configuration,
                    durations=spread,
                    failures=failures,
                    timeouts=timeouts,
                    denials=denials,
                    may_have_denied=perhaps,
                    taken=taken,
                    requests=requests,
                    resources=tuple((*key, count) for key, count in ranked[:NAMED]),
                    filter=f"webhook={quoted(name)}" if name else "",
                )
            )
        return tuple(found)

    def _called(self) -> dict[int, dict[tuple[str, str], int]]:
        """By webhook, for which (group, resource) it was called how often."""
        table = self.standing.tables[0]
        some = np.flatnonzero(self.standing.was[table["slot"]] >= 0)
        shapes = len(self.facets.shapes) + 1
        keys = table["hook"][some].astype(np.int64) * shapes + table["shape"][some] + 1
        if len(self.facets.hook_kinds) * shapes <= _FEW:
            counts = np.bincount(keys)
            pairs = np.flatnonzero(counts)
            counts = counts[pairs]
        else:
            pairs, counts = np.unique(keys, return_counts=True)
        found: dict[int, dict[tuple[str, str], int]] = {}
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
            number, shape = divmod(pair, shapes)
            if shape:
                kind = self.facets.shapes[shape - 1]
                called, key = found.setdefault(number, {}), (self.names[kind.group], self.names[kind.resource])
                called[key] = called.get(key, 0) + count
        return found

    def etcd(self) -> tuple[EtcdOperation, ...]:
        facets, standing, known = self.facets, self.standing, len(self.facets.operations)
        sums = standing.etcd.of[:known, 0]
        present = np.flatnonzero(standing.etcd_durations.bounds(np.arange(len(sums)))[1])
        top = self._top("etcd", present, sums)
        spreads = standing.etcd_durations.spreads(top, sums)
        gaps = standing.gaps.spreads(top, standing.gap_sums.of[:known, 0])
        found = []
        for number, spread, gap in zip(top, spreads, gaps, strict=True):
            name, purpose = facets.operations[number]
            words = f"span={quoted(self.names[name])}"
            method = self.names[name].partition(".")[2]
            found.append(EtcdOperation(method, PURPOSES[purpose], spread, gap, words if understood(words) else ""))
        return tuple(found)


_SCOPE_WORDS: Final = {"resource": 'name!=""', "namespace": 'ns!="" name=', "cluster": "ns= name=", "": ""}


@lru_cache(maxsize=256)
def understood(words: str) -> bool:
    """Whether the filter language has what these words say."""
    try:
        Query.parse(words)
    except QueryError:
        return False
    return True


def _extent(facets: Facets, slots: Array, now: int) -> tuple[int, int]:
    """From when to when these traces began, without the thousandth at each end: some clock is always off, and one
    that stood at 1970 must not make all rates zero."""
    when = facets.column("when")[facets.rows(slots)]
    if not len(when):
        return now, now
    beyond = len(when) // 1000
    ends = np.partition(when, (beyond, len(when) - 1 - beyond))
    return int(ends[beyond]), int(ends[len(when) - 1 - beyond])
