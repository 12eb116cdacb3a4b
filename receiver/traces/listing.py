"""What a line of the list tells: the trace's summary, where its time went, and how long its authentication took.

All of it comes from the resident columns; nothing is decoded.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.index import Index
from receiver.traces.model import TraceSummary
from receiver.traces.pairing import waited
from receiver.traces.phases import Phases, breakdown
from receiver.traces.reader import SETTLE_NS, summaries

Array = npt.NDArray[Any]

BIG: Final = 5_000
"""While a trace with more spans than this is arriving, its phases stay as they were first seen: a line on the screen
must not cost more the longer somebody reuses one trace id."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the list. `phases` is None for what is no API request. `waited` is how many ns its authentication began
    before the request, 0 where that is not known (`pairing`)."""

    summary: TraceSummary
    phases: Phases | None = None
    waited: int = 0


def rows(index: Index, slots: Sequence[int] | Array, now: int, *, live: bool = True) -> list[Row]:
    """The lines of these traces, in this order: some 40 us a trace.

    Args:
        slots, now, live: as for `reader.summaries`.
    """
    at = np.asarray(slots, np.int64)
    if not len(at):
        return []
    with index.lock:
        told = summaries(index, at, now, live=live)
        before = waited(index, at).tolist()
        phases = _phases(index, at, now, live)
    return [
        Row(summary, phases.get(slot) if summary.request is not None else None, ns)
        for summary, slot, ns in zip(told, at.tolist(), before, strict=True)
    ]


_known: weakref.WeakKeyDictionary[Index, dict[int, tuple[int, Phases]]] = weakref.WeakKeyDictionary()


def _phases(index: Index, slots: Array, now: int, live: bool) -> dict[int, Phases]:
    """By slot, of those that are requests."""
    known = _known.setdefault(index, {})
    asked = slots[index.server_fact[slots] >= 0]
    big = asked[index.span_count[asked] > BIG].tolist()
    found: dict[int, Phases] = {}
    for slot in big:
        held = known.get(slot)
        arriving = live and now - int(index.last_received[slot]) < SETTLE_NS
        if held is not None and (arriving or held[0] == index.span_count[slot]):
            found[slot] = held[1]
    if found:
        asked = asked[~np.isin(asked, list(found))]
    for slot, phases in zip(asked.tolist(), breakdown(index, asked).phases(index), strict=True):
        found[slot] = phases
        if slot in big:
            known[slot] = (int(index.span_count[slot]), phases)
    return found
