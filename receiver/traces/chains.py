"""Which rows of the index are a trace's: chains of rows, walked for many traces at once."""

from __future__ import annotations

import secrets
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.index import Index

Array = npt.NDArray[Any]

_WALK: Final = 256  # spans up to which a chain of rows is walked; above it a scan of the column is cheaper
_BULK: Final = 2_000  # traces from which one pass over all spans is cheaper than walking


def chained(last: Array, prev: Array, steps: int) -> tuple[Array, Array]:
    """(items, positions): from each of `last` (-1: nothing) back along `prev`, at most `steps` items of each.

    All chains are walked at once, so the cost is that of the longest."""
    items: list[Array] = [np.empty(0, np.int64)]
    positions: list[Array] = [np.empty(0, np.int64)]
    at = np.flatnonzero(last >= 0)
    item = last[at].astype(np.int64)
    while len(at) and len(items) <= steps:
        items.append(item)
        positions.append(at)
        item = prev[item].astype(np.int64)
        more = item >= 0
        if not more.all():
            item, at = item[more], at[more]
    return np.concatenate(items), np.concatenate(positions)


def spans_of(index: Index, slots: Array) -> tuple[Array, Array]:
    """(rows, position in `slots` of each): the spans of these traces, by trace and in order of arrival."""
    walked = (index.span_count[slots] <= _WALK) & (len(slots) <= _BULK)
    rows, positions = chained(np.where(walked, index.last_row[slots], -1), index.prev, _WALK)
    scanned = np.flatnonzero(~walked)
    if len(scanned):
        place = np.full(index.traces, -1, np.int32)
        place[slots[scanned]] = scanned
        position = place[index.slot]
        found = np.flatnonzero(position >= 0)
        rows = np.concatenate((rows, found))
        positions = np.concatenate((positions, position[found]))
    order = np.lexsort((rows, positions))
    return rows[order], positions[order]


_SALT: Final = np.uint64(secrets.randbits(64) | 1)


def keyed(ids: Array, positions: Array) -> Array:
    """One 64-bit key for (trace, span id). Salted, so that ids of one trace cannot be made to meet another's."""
    with np.errstate(over="ignore"):
        keys = ids + positions.astype(np.uint64) * _SALT
        keys ^= keys >> np.uint64(31)
        mixed: Array = keys * _SALT
    return mixed
