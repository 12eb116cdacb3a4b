"""How long each trace's headline took, for all traces at once: a column beside the index that grows with it.

Mostly that is the headline's own span. Kubernetes 1.33 ends the SERVER span in its audit filter, after microseconds,
and the work goes on (docs/facts.md 3.3); `timing.headline_end` and `phases.breakdown` say how the true end
is found. Here the same is found without a look at every trace: only where the API server began something of its own
when the headline's span had ended, the spans of that trace are walked.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.chunk import APISERVER, COMPONENT_MASK
from receiver.store.index import RANK_REQUEST, Index
from receiver.traces.chains import keyed, spans_of
from receiver.traces.model import Kind
from receiver.traces.timing import FILTERS

Array = npt.NDArray[Any]

BIG: Final = 5_000
"""A trace with more spans than this is walked again only when it has grown by a quarter, so that a trace id that is
reused for hours costs no more than its length. Until then its duration may lag behind."""
_BLOCK: Final = 1 << 17  # spans at once: what is computed on the way stays small
_INTERNAL: Final = Kind.INTERNAL.value


def durations_of(index: Index, slots: Sequence[int] | Array | None = None) -> Array:
    """Nanoseconds by trace: of these slots, or of all.

    For the thread that extends the index, or under its lock. What came since the last call is looked at first.
    """
    return _column_of(index).read(index, slots)


def catch_up(index: Index) -> None:
    """Look at what came since, so that whoever asks next need not. For the thread that extends the index."""
    _column_of(index).catch_up(index)


class _Column:
    """What is known of the traces of one index. Memory: 16 bytes a trace."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows = 0  # spans looked at
        self._names = 0  # names looked at
        self._filters: list[int] = []  # string ids of the filters' names
        self._authentication = -1
        self._work: Array = np.zeros(0, np.int64)  # by slot: when the last work of the API server's own began
        self._ends: Array = np.zeros(0, np.int64)  # by slot: the true end where it is not the span's, else 0
        self._walked: dict[int, int] = {}  # of big traces: spans when they were walked

    def read(self, index: Index, slots: Sequence[int] | Array | None) -> Array:
        with self._lock:
            self._take(index)
            if slots is None:
                ends, start, span = self._ends[: index.traces], index.head_start, index.head_duration
            else:
                at = np.asarray(slots, np.int64)
                ends, start, span = self._ends[at], index.head_start[at], index.head_duration[at]
            found: Array = np.where(ends > 0, np.maximum(ends - start, 0), span)  # a clock may have been set back
        return found

    def catch_up(self, index: Index) -> None:
        with self._lock:
            self._take(index)

    def _take(self, index: Index) -> None:
        rows, traces = index.spans, index.traces
        if rows == self._rows:
            return
        self._take_names(index.names)
        if traces > len(self._ends):
            room = max(1024, traces + traces // 4)
            for column in ("_work", "_ends"):
                old = getattr(self, column)
                new = np.zeros(room, np.int64)
                new[: len(old)] = old
                setattr(self, column, new)
        for low in range(self._rows, rows, _BLOCK):
            self._take_block(index, slice(low, min(rows, low + _BLOCK)))
        self._rows = rows

    def _take_names(self, names: list[str]) -> None:
        for number in range(self._names, len(names)):
            if names[number] in FILTERS:
                self._filters.append(number)
                if names[number] == "authentication":
                    self._authentication = number
        self._names = len(names)

    def _is_work(self, index: Index, rows: Array | slice) -> Array:
        """As `timing` has it: something the API server does itself, and no filter."""
        start, name = index.start[rows], index.name[rows]
        found = (index.kind_status[rows] & 0x0F) == _INTERNAL
        found &= (index.flags[rows] & COMPONENT_MASK) == APISERVER
        found &= (start > 0) & (index.end[rows] > start)
        for number in self._filters:
            found &= name != number
        return np.asarray(found)

    def _take_block(self, index: Index, rows: slice) -> None:
        slots = index.slot[rows]
        work = self._is_work(index, rows)
        np.maximum.at(self._work, slots[work], index.start[rows][work].astype(np.int64))
        touched = np.unique(slots).astype(np.int64)
        head = index.head_row[touched]
        head_end = index.end[head].astype(np.int64)
        late = (index.head_rank[touched] == RANK_REQUEST) & (index.head_start[touched] > 0)
        late &= self._work[touched] >= head_end
        self._ends[touched[~late]] = 0
        suspects = touched[late]
        if len(suspects):
            self._walk(index, suspects, head_end[late])

    def _walk(self, index: Index, slots: Array, head_end: Array) -> None:
        counts = index.span_count[slots]
        for at in np.flatnonzero(counts > BIG).tolist():
            slot, count = int(slots[at]), int(counts[at])
            if count < self._walked.get(slot, 0) * 5 // 4:
                counts[at] = 0  # not now
                if self._ends[slot] <= head_end[at]:
                    self._ends[slot] = 0
            else:
                self._walked[slot] = count
        now = counts > 0
        slots, head_end = slots[now], head_end[now]
        last = self._last(index, slots, head_end)
        self._ends[slots] = np.where(last > head_end, last, 0)

    def _last(self, index: Index, slots: Array, head_end: Array) -> Array:
        """The end of the last work below each headline that began after its span, 0 where there is none."""
        rows, positions = spans_of(index, slots)
        head = index.head_row[slots][positions]
        parent, start = index.parent[rows], index.start[rows].astype(np.int64)
        work = self._is_work(index, rows) & (start >= head_end[positions])
        direct = (parent == index.span[head]) & (rows != head)
        late = work & direct
        # `timing.followers`: work that hangs below an `authentication` that has ended before it began
        ended = np.flatnonzero(direct & (index.name[rows] == self._authentication) & (parent != 0))
        ended = ended[(index.kind_status[rows[ended]] & 0x0F) == _INTERNAL]
        ended = ended[(index.flags[rows[ended]] & COMPONENT_MASK) == APISERVER]
        below = np.flatnonzero(work & ~direct)
        if len(ended) and len(below):
            keys = keyed(index.span[rows[ended]], positions[ended])
            order = np.argsort(keys)
            wanted = keyed(parent[below], positions[below])
            at = ended[order[np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)]]
            fits = (index.span[rows[at]] == parent[below]) & (positions[at] == positions[below])
            fits &= start[below] >= index.end[rows[at]].astype(np.int64)
            late[below[fits]] = True
        last = np.zeros(len(slots), np.int64)
        np.maximum.at(last, positions[late], index.end[rows[late]].astype(np.int64))
        return last


_columns: weakref.WeakKeyDictionary[Index, _Column] = weakref.WeakKeyDictionary()
_columns_lock: Final = threading.Lock()


def _column_of(index: Index) -> _Column:
    with _columns_lock:
        return _columns.setdefault(index, _Column())
