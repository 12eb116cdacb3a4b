"""What only a look at all spans of a trace tells: phases, the time of each span itself, parents that were never seen.

Computed once a trace and kept beside the index, from the first filter on that asks for it; afterwards only traces that
grew are looked at again. Works in blocks under the index's lock, some 10 ms each, so that no reader waits for long.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.chunk import APISERVER, COMPONENT_MASK, FLAG_REQUEST, OTHER
from receiver.store.index import Index
from receiver.traces.chains import keyed, spans_of
from receiver.traces.phases import PHASES, breakdown

Array = npt.NDArray[Any]

BLOCK: Final = 2_000
"""Traces looked at while the lock is held."""
BIG: Final = 5_000
"""A trace with more spans than this is looked at again when it grew by a quarter, or when nothing came for a while:
somebody who reuses one trace id for ever must not make it costlier every time."""
_QUIET_NS: Final = 10_000_000_000
_CLIENT, _SERVER = 3, 2
_POSTS: Final = ("HTTP POST", "POST")


class _Kept:
    """Columns by trace that follow the index."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._counts: Array = np.zeros(0, np.uint32)  # spans of each trace when it was looked at

    def room(self, index: Index) -> None:
        """Make room for all traces and spans."""
        if len(self._counts) < index.traces:
            self._counts = _longer(self._counts, index.traces)

    def look(self, index: Index, slots: Array) -> None:
        """Compute these traces anew, under both locks."""
        raise NotImplementedError

    def behind(self, index: Index) -> Array:
        """Slots of the traces that grew."""
        counts, held = index.span_count, self._counts[: index.traces]
        grew = counts != held
        big = np.flatnonzero(grew & (counts > BIG))
        if len(big):
            newest = int(index.chunk_received[-1]) if len(index.chunk_received) else 0
            quiet = newest - index.last_received[big] >= _QUIET_NS
            grew[big] = quiet | (counts[big] >= held[big].astype(np.int64) * 5 // 4)
        found: Array = np.flatnonzero(grew)
        return found

    def catch_up(self, index: Index, blocks: int = 1 << 30) -> bool:
        """Look at what grew; at most so many blocks. Whether all of it was."""
        for _ in range(blocks):
            with index.lock, self.lock:
                self.room(index)
                slots = self.behind(index)
                if not len(slots):
                    return True
                some = slots[:BLOCK]
                self.look(index, some)
                self._counts[some] = index.span_count[some]
                if len(some) == len(slots):
                    return True
        return False


class Times(_Kept):
    """`phases.breakdown` of all traces."""

    def __init__(self) -> None:
        super().__init__()
        self._ns: Array = np.zeros((PHASES, 0), np.int64)

    def room(self, index: Index) -> None:
        super().room(index)
        held = self._ns.shape[1]
        if held < index.traces:
            longer = np.zeros((PHASES, max(1024, index.traces + index.traces // 4)), np.int64)
            longer[:, :held] = self._ns
            self._ns = longer

    def look(self, index: Index, slots: Array) -> None:
        self._ns[:, slots] = breakdown(index, slots).ns.T

    def ns(self, index: Index) -> Array:
        """A row for each `Phase`, a column for each trace. Under the index's lock, or for who extends it."""
        with self.lock:
            self.room(index)
            return self._ns[:, : index.traces]


class Spans(_Kept):
    """What the parents of spans tell."""

    def __init__(self) -> None:
        super().__init__()
        self._own: Array = np.zeros(0, np.int64)
        self._webhook: Array = np.zeros(0, bool)
        self._orphans: Array = np.zeros(0, bool)
        self._posts: Array = np.zeros(0, bool)  # by string id

    def room(self, index: Index) -> None:
        super().room(index)
        if len(self._orphans) < index.traces:
            self._orphans = _longer(self._orphans, index.traces)
        if len(self._own) < index.spans:
            self._own, self._webhook = _longer(self._own, index.spans), _longer(self._webhook, index.spans)
        known = len(self._posts)
        if known < len(index.names):
            fresh = np.array([name in _POSTS for name in index.names[known:]], bool)
            self._posts = np.concatenate((self._posts, fresh))

    def look(self, index: Index, slots: Array) -> None:
        rows, positions = spans_of(index, slots)
        start, end = index.start[rows].astype(np.int64), index.end[rows].astype(np.int64)
        parent = _places(index, rows, positions)
        missing = (index.parent[rows] != 0) & (parent < 0)
        self._orphans[slots] = False
        self._orphans[slots[positions[missing]]] = True
        child = np.flatnonzero((parent >= 0) & (parent != np.arange(len(rows))))
        kind, flags = index.kind_status[rows] & 0x0F, index.flags[rows]
        component = flags & COMPONENT_MASK
        of = parent[child]
        hooks = (kind[child] == _SERVER) & (component[child] == OTHER)
        hooks &= (kind[of] == _CLIENT) & (component[of] == APISERVER) & self._posts[index.name[rows[of]]]
        hooks &= (flags[child] & FLAG_REQUEST) == 0
        self._webhook[rows] = self._webhooks(index, rows, positions, child[hooks], component == OTHER)
        self._own[rows] = np.where(start > 0, np.maximum(end - start, 0), 0) - _covered(start, end, child, of)

    def _webhooks(self, index: Index, rows: Array, positions: Array, first: Array, other: Array) -> Array:
        """Those that are known, and what else their services sent in the same traces (as `tree` names them)."""
        found = np.zeros(len(rows), bool)
        found[first] = True
        if not len(first):
            return found
        ids = {"": 0}
        services = np.array([ids.setdefault(r.service, len(ids)) for r in index.resources], np.int64)
        service = services[index.resource[rows]]
        keys = positions * len(ids) + service
        found |= other & (service > 0) & np.isin(keys, keys[first])
        return found

    def own(self, index: Index) -> Array:
        """By span its time without what its children cover, as `timing.self_times`. Locks as for `Times.ns`."""
        with self.lock:
            self.room(index)
            return self._own[: index.spans]

    def webhooks(self, index: Index) -> Array:
        """By span whether it is what a webhook did: the other side of an API server's POST."""
        with self.lock:
            self.room(index)
            return self._webhook[: index.spans]

    def orphans(self, index: Index) -> Array:
        """By trace whether the parent of a span was not seen."""
        with self.lock:
            self.room(index)
            return self._orphans[: index.traces]


def _longer(old: Array, need: int) -> Array:
    new = np.zeros(max(1024, need + need // 4), old.dtype)
    new[: len(old)] = old
    return new


def _places(index: Index, rows: Array, positions: Array) -> Array:
    """For each row the place of its parent among them, -1 for none. Of several spans with one id it is the first."""
    parent = index.parent[rows]
    place = np.full(len(rows), -1, np.int64)
    if not len(rows):
        return place
    keys = keyed(index.span[rows], positions)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    named = np.flatnonzero(parent)
    wanted = keyed(parent[named], positions[named])
    at = np.searchsorted(keys, wanted)
    at[at == len(keys)] = 0
    found = order[at]
    known = (index.span[rows[found]] == parent[named]) & (positions[found] == positions[named])
    place[named[known]] = found[known]
    return place


def _covered(start: Array, end: Array, child: Array, of: Array) -> Array:
    """By span the ns during which at least one of its children ran; `of` is the parent of each child."""
    total = np.zeros(len(start), np.int64)
    fits = (start[child] > 0) & (start[of] > 0)
    child, of = child[fits], of[fits]
    low, high = np.maximum(start[child], start[of]), np.minimum(end[child], end[of])
    some = high > low
    low, high, of = low[some], high[some], of[some]
    order = np.lexsort((low, of))
    low, high, of = low[order], high[order], of[order]
    same = of[1:] == of[:-1]
    crossing = np.zeros(len(start), bool)
    crossing[of[1:][same & (low[1:] < high[:-1])]] = True
    crossed = crossing[of]
    np.add.at(total, of[~crossed], (high - low)[~crossed])
    if crossed.any():  # siblings side by side: few in real traces
        family, reached = -1, 0
        for parent, first, last in zip(
            of[crossed].tolist(), low[crossed].tolist(), high[crossed].tolist(), strict=True
        ):
            if parent != family:
                family, reached = parent, 0
            first = max(first, reached)
            if last > first:
                total[parent] += last - first
                reached = last
    return total


_times: weakref.WeakKeyDictionary[Index, Times] = weakref.WeakKeyDictionary()
_spans: weakref.WeakKeyDictionary[Index, Spans] = weakref.WeakKeyDictionary()
_lock: Final = threading.Lock()


def times_of(index: Index) -> Times:
    """The phases kept for an index."""
    with _lock:
        return _times.setdefault(index, Times())


def spans_kept(index: Index) -> Spans:
    """What is kept about the spans of an index."""
    with _lock:
        return _spans.setdefault(index, Spans())
