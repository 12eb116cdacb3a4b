"""Which lone `authentication` trace belongs to which request.

Since kubernetes 1.33 authentication happens before the server span exists, so each request of a caller who may not
bring a trace of its own leaves two traces: a lone `authentication` root and the request. They share no id. Since 1.34
the first spans the second (docs/facts.md 3.3), on one clock, that of the API server they name as their
instance; measured on 5,317 pairs of 1.36 whose relation is known, the server span starts 0.14 ms after (99 %: 2 ms) and
ends 0.01 ms before it (99 %: 0.3 ms). In 1.33 the first ends before the second begins, and nothing tells how long
before: those stay unpaired.

Both are sampled by themselves, so below a rate of 1,000,000 the other half is often missing. Therefore a pair is only
made of two that are each other's nearest, with no other candidate nearly as near; and a slow authentication only finds
its request where nearly all find one that ends with them.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.chunk import APISERVER, COMPONENT_MASK
from receiver.store.index import RANK_REQUEST, RANK_ROOT, Index, Keys
from receiver.traces.chains import keyed

Array = npt.NDArray[Any]

MAX_END_NS: Final = 2_000_000
"""How long an `authentication` may go on after its request: it ends as its caller's handler returns."""
SURE_END_NS: Final = 60_000
"""95 % of true pairs end within this, so their share tells whether anything was sampled away. Where authentication
takes its time all of them begin late, so the start is no part of this."""
SAMPLED_END_NS: Final = 30_000
SAMPLED_BEFORE_NS: Final = 500_000
"""Within both of these a pair is believed even where traces are sampled: 89 % of true ones are, and of recordings
thinned out to one half 6 in 100,000 pairs were wrong (with the wider limits above 50 in 100,000)."""
COMPLETE: Final = 0.9
"""Share of pairs that must be sure ones before the others are believed: then nothing was sampled away."""
SLOW_BEFORE_NS: Final = 2_000_000
"""Authentication that takes longer than 99 % do waits for somebody, and how long says nothing more: from here on only
the ends tell how near two spans are."""
MAX_BEFORE_NS: Final = 30_000_000_000
"""How long authentication may take before the request begins: token webhooks time out sooner."""
MARGIN: Final = 3
"""Any other candidate must be this many times as far away."""
_LOOK: Final = 12  # candidates looked at on each side, by their end


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """`request` and `authentication` are slots, pair by pair; `before` is how many ns the second began earlier."""

    request: Array
    authentication: Array
    before: Array

    def of_requests(self, traces: int) -> Array:
        """By slot the slot of its `authentication` trace, -1 for none."""
        found: Array = np.full(traces, -1, np.int64)
        found[self.request] = self.authentication
        return found

    def before_requests(self, traces: int) -> Array:
        """By slot how many ns its authentication began earlier, 0 where it is not paired: for `verdict.judge`."""
        found: Array = np.zeros(traces, np.int64)
        found[self.request] = self.before
        return found

    def of_authentications(self, traces: int) -> Array:
        """By slot of a lone `authentication` the slot of its request, -1 for none."""
        found: Array = np.full(traces, -1, np.int64)
        found[self.authentication] = self.request
        return found


def pairs(index: Index) -> Pairs:
    """All pairs of an index. What came since the last look is paired first: see `catch_up`."""
    with index.lock:
        return _book_of(index).pairs(index)


def catch_up(index: Index) -> None:
    """Pair what came since the last look: some ms for a tick of 5,000 spans, however many traces there are.

    For the thread that extends the index.
    """
    _book_of(index).catch_up(index)


def partners(index: Index) -> Array:
    """By slot the slot of the other trace of its pair, -1 for none. For the thread that extends the index, or under
    its lock; what came since is paired first. Not to be changed."""
    return _book_of(index).partners(index)


def known_partners(index: Index) -> Array:
    """By slot a slot that may be its partner, -1 for none yet, as of the last look: to see that something changed. May
    be shorter than there are traces. Takes no lock, is not to be changed."""
    return _book_of(index).known()


def waited(index: Index, slots: Sequence[int] | Array) -> Array:
    """For each slot how many ns its authentication began earlier, the one of its pair or, of a privileged caller, the
    one above it in its own trace; 0 where it is no request with one that is known at the last look. Under the index's
    lock."""
    return _book_of(index).waited(index, np.asarray(slots, np.int64))


def lone_authentications(index: Index) -> Array:
    """Slots of traces that are one `authentication` root and nothing else."""
    with index.lock:
        return _book_of(index).lone(index)


# --- kept up to date ------------------------------------------------------------------------------
# A pair is decided by what ended within some milliseconds of it: candidates end at most MAX_END_NS apart, rivals of
# candidates twice that, rivals of those three times. So after new spans only the neighbourhood of their ends is paired
# again. Neighbourhoods are buckets of end times, kept as a number modulo the size of a table: two that share a number
# share their neighbours' numbers, too, and are only paired again once too often.
_BUCKET_BITS: Final = 23  # 8.4 ms
_TABLE: Final = 1 << 16
_AGAIN: Final = (-1, 0, 1)  # buckets of which authentications are paired again
_NEEDED: Final = (-2, -1, 0, 1, 2)  # buckets that have to be looked at for that
assert 1 << _BUCKET_BITS > 3 * MAX_END_NS
_NEITHER, _LONE, _REQUEST = 0, 1, 2
_SURE, _SAMPLED = 1, 2  # within SURE_..., within SAMPLED_..., too


class _Book:
    """Who is paired with whom in one index. Memory: 16 bytes a trace, 12 an `authentication` span."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows = 0  # spans looked at
        self._names = 0  # names looked at
        self._authentication = -1  # string id
        self._spans = Keys(values=True)  # row by (slot, span id) of each `authentication`
        self._columns: dict[str, Array] = {
            "kind": np.zeros(0, np.uint8),
            "bucket": np.zeros(0, np.uint16),
            "head": np.full(0, -1, np.int32),
            "partner": np.full(0, -1, np.int32),  # of both, whether it is believed or not
            "sure": np.zeros(0, np.uint8),  # of an authentication: 0, `_SURE` or `_SAMPLED`
        }

    # -- reading ----------------------------------------------------------------------------------
    def catch_up(self, index: Index) -> None:
        with self._lock:
            self._take(index)

    def lone(self, index: Index) -> Array:
        with self._lock:
            self._take(index)
            found: Array = np.flatnonzero(self._columns["kind"][: index.traces] == _LONE)
        return found

    def partners(self, index: Index) -> Array:
        with self._lock:
            self._take(index)
            found: Array = np.full(index.traces, -1, np.int64)
            a = self._believed(index.traces)
            r = self._columns["partner"][a]
            found[a], found[r] = r, a
        return found

    def known(self) -> Array:
        return self._columns["partner"]

    def pairs(self, index: Index) -> Pairs:
        with self._lock:
            self._take(index)
            a = self._believed(index.traces)
            r = self._columns["partner"][a].astype(np.int64)
        return Pairs(r, a, self._before(index, a, r))

    def waited(self, index: Index, slots: Array) -> Array:
        with self._lock:
            known = len(self._columns["kind"])
            at = np.where(slots < known, slots, 0)
            request = (slots < known) & (self._columns["kind"][at] == _REQUEST if known else False)
            some = np.flatnonzero(request)
            a = self._columns["partner"][slots[some]].astype(np.int64)
            believed = a >= 0
            if believed.any() and not self._complete():
                believed &= self._columns["sure"][np.maximum(a, 0)] == _SAMPLED
            some, a = some[believed], a[believed]
            head = index.head_row[slots]
            above = self._spans.find(keyed(index.parent[head], slots))
        found: Array = np.zeros(len(slots), np.int64)
        found[some] = self._before(index, a, slots[some])
        above[(index.head_rank[slots] != RANK_REQUEST) | (index.parent[head] == 0)] = -1
        own = np.flatnonzero(above >= 0)
        above = above[own]
        began = index.start[above].astype(np.int64)
        before = index.start[head[own]].astype(np.int64) - began
        found[own] = np.where((index.parent[above] == 0) & (began > 0), np.maximum(before, 0), 0)
        return found

    @staticmethod
    def _before(index: Index, a: Array, r: Array) -> Array:
        start, head = index.start, index.head_row
        found: Array = start[head[r]].astype(np.int64) - start[head[a]].astype(np.int64)
        return found

    def _believed(self, traces: int) -> Array:
        """Slots of the authentications whose pair is believed."""
        found = self._columns["kind"][:traces] == _LONE
        found &= self._columns["partner"][:traces] >= 0
        if not self._complete():
            found &= self._columns["sure"][:traces] == _SAMPLED
        at: Array = np.flatnonzero(found)
        return at

    def _complete(self) -> bool:
        lone, sure = self._columns["kind"] == _LONE, self._columns["sure"] > 0
        return bool(np.count_nonzero(lone & sure) >= COMPLETE * np.count_nonzero(lone))

    # -- taking in --------------------------------------------------------------------------------
    def _take(self, index: Index) -> None:
        rows, traces = index.spans, index.traces
        if rows == self._rows:
            return
        names = index.names
        for number in range(self._names, len(names)):
            if names[number] == "authentication":
                self._authentication = number
        self._names = len(names)
        if self._authentication < 0:
            return  # nothing can be paired; once it can, all is looked at
        if traces > len(self._columns["kind"]):
            room = max(1024, traces + traces // 4)
            for name, old in self._columns.items():
                new = np.full(room, -1 if name in ("head", "partner") else 0, old.dtype)
                new[: len(old)] = old
                self._columns[name] = new
        fresh = slice(self._rows, rows)
        self._rows = rows
        at = self._rows_named(index, fresh)
        keys, first = np.unique(keyed(index.span[at], index.slot[at]), return_index=True)
        self._spans.add(keys, at[first])
        if fresh.start:
            touched = np.unique(index.slot[fresh]).astype(np.int64)
        else:
            touched = np.arange(traces)
        self._look(index, touched)

    def _rows_named(self, index: Index, rows: slice) -> Array:
        found: Array = rows.start + np.flatnonzero(index.name[rows] == self._authentication)
        return found

    def _look(self, index: Index, touched: Array) -> None:
        """Look again at traces that have new spans."""
        columns = self._columns
        head = index.head_row[touched]
        rank = index.head_rank[touched]
        lone = (rank == RANK_ROOT) & (index.span_count[touched] == 1) & (index.name[head] == self._authentication)
        lone &= (index.flags[head] & COMPONENT_MASK) == APISERVER
        # A headline below an `authentication` of its own trace was authenticated there. The parent may still be in
        # the trace, as in the API server's calls to itself, or be invented by the caller.
        request = rank == RANK_REQUEST
        some = np.flatnonzero(request)
        request[some] = self._spans.find(keyed(index.parent[head[some]], touched[some])) < 0
        kind = np.where(lone, _LONE, np.where(request, _REQUEST, _NEITHER)).astype(np.uint8)
        before = columns["kind"][touched]
        changed = (kind != before) | ((kind != _NEITHER) & (head != columns["head"][touched]))
        if not changed.any():
            return
        touched, head, kind, before = touched[changed], head[changed], kind[changed], before[changed]
        bucket = ((index.end[head] >> np.uint64(_BUCKET_BITS)) & np.uint64(_TABLE - 1)).astype(np.uint16)
        dirty = np.concatenate((columns["bucket"][touched[before != _NEITHER]], bucket[kind != _NEITHER]))
        self._part(touched)
        columns["kind"][touched], columns["head"][touched], columns["bucket"][touched] = kind, head, bucket
        self._pair(index, dirty.astype(np.int64))

    def _part(self, slots: Array) -> None:
        partner = self._columns["partner"]
        other = partner[slots]
        partner[other[other >= 0]] = -1
        partner[slots] = -1
        self._columns["sure"][slots] = 0

    def _pair(self, index: Index, dirty: Array) -> None:
        columns = self._columns
        again, needed = np.zeros(_TABLE, bool), np.zeros(_TABLE, bool)
        for step in _NEEDED:
            needed[(dirty + step) % _TABLE] = True
        for step in _AGAIN:
            again[(dirty + step) % _TABLE] = True
        kind = columns["kind"][: index.traces]
        near = np.flatnonzero((kind != _NEITHER) & needed[columns["bucket"][: index.traces]])
        lone, requests = near[kind[near] == _LONE], near[kind[near] == _REQUEST]
        if not len(lone):
            return
        a, r = index.head_row[lone], index.head_row[requests]
        found, sure = _matched(
            index.resource[a], index.start[a].astype(np.int64), index.end[a].astype(np.int64),
            index.resource[r], index.start[r].astype(np.int64), index.end[r].astype(np.int64),
        )  # fmt: skip
        mine = again[columns["bucket"][lone]]
        self._part(lone[mine])
        paired = np.flatnonzero(mine & (found >= 0))
        one, other = lone[paired], requests[found[paired]]
        columns["partner"][one], columns["partner"][other] = other, one
        columns["sure"][one] = sure[paired]


_books: weakref.WeakKeyDictionary[Index, _Book] = weakref.WeakKeyDictionary()
_books_lock: Final = threading.Lock()


def _book_of(index: Index) -> _Book:
    with _books_lock:
        return _books.setdefault(index, _Book())


# --- the rule -------------------------------------------------------------------------------------
def match(a_instance: Array, a_start: Array, a_end: Array, r_instance: Array, r_start: Array, r_end: Array) -> Array:
    """For each authentication (`a_*`) the request (`r_*`) that it belongs to, -1 where that is not certain.

    Instances are any numbers that are equal for one API server, times in ns of its clock.
    """
    found, sure = _matched(a_instance, a_start, a_end, r_instance, r_start, r_end)
    if np.count_nonzero(sure) < COMPLETE * len(a_start):
        found = np.where(sure == _SAMPLED, found, -1)
    return found


def _matched(
    a_instance: Array, a_start: Array, a_end: Array, r_instance: Array, r_start: Array, r_end: Array
) -> tuple[Array, Array]:
    """(the request of each authentication, -1 for none; how sure that is: 0, `_SURE` or `_SAMPLED`)."""
    nothing: tuple[Array, Array] = np.full(len(a_start), -1, np.int64), np.zeros(len(a_start), np.uint8)
    if not len(a_start) or not len(r_start):
        return nothing
    order = np.lexsort((r_end, r_instance))
    # candidates end up to MAX_END_NS before the authentication does: the last ones by end
    at = _last_before(r_instance[order], r_end[order], a_instance, a_end)
    a = np.arange(len(a_start))
    ids, costs = [], []
    for step in range(_LOOK):
        place = at - step
        valid = place >= 0
        candidate = order[np.maximum(place, 0)]
        after, before = a_end - r_end[candidate], r_start[candidate] - a_start
        valid &= (r_instance[candidate] == a_instance) & (after >= 0) & (after <= MAX_END_NS)
        valid &= (before >= 0) & (before <= MAX_BEFORE_NS) & (r_start[candidate] > 0) & (a_start > 0)
        ids.append(np.where(valid, candidate, -1))
        costs.append(np.where(valid, _cost(after, before), np.inf))
    candidates, cost = np.stack(ids, axis=1), np.stack(costs, axis=1)
    best = np.argmin(cost, axis=1)
    nearest, least = candidates[a, best], cost[a, best]
    cost[a, best] = np.inf
    certain = (nearest >= 0) & (cost.min(axis=1) > MARGIN * least)
    # each request takes the authentication that is nearest to it, if no other one is nearly as near
    flat_a: Array = np.repeat(a, _LOOK)
    flat_r: Array = candidates.ravel()
    all_cost = cost.copy()
    all_cost[a, best] = least
    flat_cost: Array = all_cost.ravel()
    keep = flat_r >= 0
    flat_a, flat_r, flat_cost = flat_a[keep], flat_r[keep], flat_cost[keep]
    by = np.lexsort((flat_cost, flat_r))
    flat_a, flat_r, flat_cost = flat_a[by], flat_r[by], flat_cost[by]
    if not len(flat_r):
        return nothing
    first: Array = np.flatnonzero(np.concatenate(([True], flat_r[1:] != flat_r[:-1])))
    second = np.full(len(r_start), np.inf)
    follow = first[first + 1 < len(flat_r)]
    follow = follow[flat_r[follow + 1] == flat_r[follow]]
    second[flat_r[follow]] = flat_cost[follow + 1]
    owner = np.full(len(r_start), -1, np.int64)
    owner[flat_r[first]] = flat_a[first]
    mutual = certain & (owner[np.maximum(nearest, 0)] == a) & (second[np.maximum(nearest, 0)] > MARGIN * least)
    after, before = a_end - r_end[nearest], r_start[nearest] - a_start
    sure = (mutual & (after <= SURE_END_NS)).astype(np.uint8)
    sure[mutual & (after <= SAMPLED_END_NS) & (before <= SAMPLED_BEFORE_NS)] = _SAMPLED
    found: Array = np.where(mutual, nearest, -1)
    return found, sure


def _cost(after: Array, before: Array) -> Array:
    """How unlike a pair two spans are: both ends count, the end tells more (99 % within 0.3 ms)."""
    found: Array = after / 10_000 + np.minimum(before, SLOW_BEFORE_NS) / 200_000 + 0.5
    return found


def _last_before(groups: Array, ends: Array, group: Array, end: Array) -> Array:
    """Index of the last row of (groups, ends), sorted by both, that is not after (group, end)."""
    order = np.argsort(end, kind="stable")
    found: Array = np.full(len(end), -1, np.int64)
    for which in np.unique(group):  # API servers: a handful
        low, high = np.searchsorted(groups, which), np.searchsorted(groups, which, side="right")
        mine = order[group[order] == which]
        found[mine] = low + np.searchsorted(ends[low:high], end[mine], side="right") - 1
        found[mine[found[mine] < low]] = -1
    return found


def paired_with(index: Index, found: Pairs, slots: Sequence[int] | Array) -> list[str]:
    """For `traces --json`: for each slot the id of the other trace of its pair, "" for none."""
    traces = index.traces
    other = np.maximum(found.of_requests(traces), found.of_authentications(traces))
    return [index.trace_id(slot) if slot >= 0 else "" for slot in other[np.asarray(slots, np.int64)].tolist()]
