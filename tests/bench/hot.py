"""What Hot spots cost on 1,000,000 spans: everything, and to follow what comes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from receiver.ingest.decode import decode
from receiver.store.chunk import Chunk
from receiver.store.index import Index
from receiver.traces.dots import dots
from receiver.traces.facets import catch_up
from receiver.traces.hotspots import hot_spots
from receiver.traces.query import Query, View, select
from receiver.traces.usual import usual
from tests.bench.otlp_load import make_templates

SPANS = 1_000_000
TICKS = 40
TICK_SPANS = 5_000
"""Ten times a second at 50,000 spans/s."""
_START = 1_795_344_951_000_000_000
_CYCLE_NS = 20_000_000_000
_SECOND = 1_000_000_000


def hotspots(folder: Path, seconds: float) -> dict[str, Any]:
    """Milliseconds: medians, and the largest of those to follow."""
    chunks = _chunks()
    index, number, copy = Index(), 0, 0
    while index.spans < SPANS:
        index.extend(_copied(chunks, copy, number))
        number, copy = number + len(chunks), copy + 1
    now = int(index.last_received.max())
    whole = View(Query(), None, False, False, "start", False)
    result: dict[str, Any] = {"spans": index.spans, "traces": index.traces}
    result["first_look_ms"] = _ms(lambda: catch_up(index))
    result["everything_ms"] = _ms(lambda: hot_spots(index, whole, now))
    other = View(Query.parse("verb=create"), None, False, False, "start", False)
    turns = [(_ms(lambda: hot_spots(index, other, now)), _ms(lambda: hot_spots(index, whole, now))) for _ in range(5)]
    result["filter_changes_ms"], result["and_back_to_everything_ms"] = map(statistics.median, zip(*turns, strict=True))
    found = hot_spots(index, whole, now)
    result["rows"] = {name: len(getattr(found, name)) for name in ("shapes", "webhooks", "agents", "objects", "etcd")}
    for name, window in (("all", None), ("15 min", 900 * _SECOND)):
        view = View(Query(), window, False, True, "start", False, True)
        hot_spots(index, view, now)
        times, fresh = [], []
        for _ in range(TICKS):
            if sum(len(chunk.spans) for chunk in fresh) < TICK_SPANS:
                fresh = _copied(chunks, copy, number)
                number, copy = number + len(fresh), copy + 1
            taken = 0
            some = []
            while fresh and taken < TICK_SPANS:
                chunk = fresh.pop(0)
                some.append(chunk)
                taken += len(chunk.spans)
            now += _SECOND // 10
            index.extend([replace(chunk, received=now) for chunk in some])
            slots = select(index, view, now).slots  # the list does this anyway
            at = now
            times.append(_ms(lambda view=view, at=at, slots=slots: hot_spots(index, view, at, slots=slots)))
        result[f"follow_{name.replace(' ', '_')}_ms"] = {"p50": statistics.median(times), "max": max(times)}
    slow = [int(np.argmax(index.head_duration)) + 1 + at for at in range(5)]
    result["usual_ms"] = statistics.median(_ms(lambda slot=slot: usual(index, whole, slot, now)) for slot in slow)
    slots = select(index, whole, now).slots
    begin = int(index.first_received.min()) - _CYCLE_NS
    result["dots_ms"] = statistics.median(_ms(lambda: dots(index, slots, 150, 10, begin, now)) for _ in range(5))
    return result


def _chunks() -> list[Chunk]:
    found = []
    for number, template in enumerate(make_templates(40)):
        chunk = decode(template.fresh(1, _START), source="local", peer="", received=_START + number).chunk
        if chunk is not None:
            found.append(chunk)
    return found


def _copied(chunks: list[Chunk], copy: int, number: int) -> list[Chunk]:
    """The same traces under other ids, later."""
    found = []
    for chunk in chunks:
        number += 1
        spans = chunk.spans.copy()
        spans["trace_hi"] ^= np.uint64(copy + 1)
        for name in ("start", "end"):
            spans[name] += np.uint64(copy * _CYCLE_NS)
        found.append(replace(chunk, id=number, spans=spans, received=int(spans["end"].max())))
    return found


def _ms(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return round((time.perf_counter() - start) * 1e3, 2)
