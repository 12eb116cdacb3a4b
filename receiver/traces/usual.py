"""What is usual for a request: the median of its shape among what the window holds."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.index import Index
from receiver.traces.facets import Facets, reading
from receiver.traces.phases import PHASES
from receiver.traces.query import Query, View, select

Array = npt.NDArray[Any]

LEAST: Final = 3
"""Fewer others say nothing about what is usual."""
_KEPT: Final = 64


@dataclass(frozen=True, slots=True)
class Usual:
    """Of `count` other requests of a shape: median and p95 of their durations and the median of each `Phase`, in ns
    (medians of phases need not sum up to that of the duration). `went_well`: only those without any error are
    counted, as far as there are enough. `typical` is the trace whose duration is nearest to the median."""

    count: int
    median: int
    p95: int
    phases: tuple[int, ...]
    went_well: bool
    typical: str


def usual(index: Index, view: View, slot: int, now: int) -> Usual | None:
    """What is usual for the request of a trace, in the window of a view, whatever its filter. Kept until spans come.
    For any thread, not under the index's lock; some 10 ms for 200,000 traces.

    None where it is no request, or one that lasts as long as its client likes, or where there are fewer than `LEAST`
    others.

    Args:
        now: as for `query.select`.
    """
    key = (slot, view.window_ns, index.spans)
    with _lock:
        known = _known.setdefault(index, OrderedDict())
        if key in known:
            known.move_to_end(key)
            return known[key]
    with index.lock:
        slots = select(index, View(Query(), view.window_ns, False, False, "start", False), now).slots.astype(np.int64)
    with reading(index) as facets:
        found = _usual(index, facets, slots, slot)
    with _lock:
        known[key] = found
        while len(known) > _KEPT:
            known.popitem(last=False)
    return found


_known: weakref.WeakKeyDictionary[Index, OrderedDict[tuple[int, int | None, int], Usual | None]] = (
    weakref.WeakKeyDictionary()
)
_lock: Final = threading.Lock()


def _usual(index: Index, facets: Facets, slots: Array, slot: int) -> Usual | None:
    shape = int(facets.column("shape")[facets.rows(np.array([slot]))][0])
    if shape < 0 or facets.lasting()[shape]:
        return None
    rows = facets.rows(slots)
    same = (facets.column("shape")[rows] == shape) & (slots != slot)
    slots, rows = slots[same], rows[same]
    well = ~facets.column("wrong")[rows]
    went_well = int(np.count_nonzero(well)) >= LEAST
    if went_well:
        slots, rows = slots[well], rows[well]
    count = len(slots)
    if count < LEAST:
        return None
    duration = facets.column("duration")[rows]
    order = np.argsort(duration, kind="stable")
    middle = order[(count + 1) // 2 - 1]
    phases = np.sort(facets.phases[rows], axis=0)[(count + 1) // 2 - 1]
    return Usual(
        count=count,
        median=int(duration[middle]),
        p95=int(duration[order[-(-count * 95 // 100) - 1]]),
        phases=tuple(phases[:PHASES].tolist()),
        went_well=went_well,
        typical=index.trace_id(int(slots[middle])),
    )
