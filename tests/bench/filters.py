"""What filters cost on 1,000,000 spans: over request fields, over attributes in the bodies, sorting, completing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from receiver.ingest.decode import decode
from receiver.store.database import Database
from receiver.store.index import Index
from receiver.traces.filter.complete import complete
from receiver.traces.filter.evaluate import prepare
from receiver.traces.filter.fields import FIELDS
from receiver.traces.filter.nothing import explain_nothing
from receiver.traces.filter.scan import Scan
from receiver.traces.query import SORTS, Query, View, select
from tests.bench.otlp_load import lasts, make_templates
from tui.headless import load_index

SPANS = 1_000_000
FIELDS_ASKED = (
    "verb=create,update ns!=kube-system",
    "pods",
    "name=~^web-.*",
    "code>=400 || duration>1s",
    "etcd>50ms",
    "admission>1s !verb=watch",
    "self>10ms",
    "orphan=yes",
    "span=~^Call",
    "any(component=etcd duration>10ms)",
    "audit=~^9",
)
ATTRIBUTES_ASKED = (
    "http.response.status_code>=500",
    "http.request.method=get",
    "service.name=~^kubelet",
    "audit-id=~^91",
    "k8s.pod.name=~'web-.*'",
    "http.target=~'limit=500'",
)
EVERYTHING = View(Query(), None, False, False, "start", False)


def stored(path: Path, spans: int = SPANS) -> None:
    """A database of so many spans of the load generator's traces, each trace its own."""
    database = Database.create(path)
    templates = make_templates(40)
    now = time.time_ns()
    shift, held, cycle = now - lasts(templates), 0, 0
    while held < spans:
        chunks = []
        for template in templates:
            if held >= spans:
                break
            chunk = decode(template.fresh(1 + cycle, shift), source="local", peer="", received=now + cycle).chunk
            assert chunk is not None
            chunks.append(chunk)
            held += len(chunk.spans)
        database.append(chunks)
        cycle += 1
    database.close()


def over_columns(index: Index) -> dict[str, Any]:
    """Milliseconds of each filter and order: the first time (what it needs is brought along), and from then on."""
    now = time.time_ns()
    result: dict[str, Any] = {}
    for text in FIELDS_ASKED:
        view = replace(EVERYTHING, query=Query.parse(text))
        begun = _ms(lambda view=view: prepare(index, view.query.root))  # type: ignore[misc]
        first = _ms(lambda view=view: select(index, view, now))  # type: ignore[misc]
        again = _median(lambda view=view: select(index, view, now))  # type: ignore[misc]
        result[text] = {"prepare_ms": begun, "first_ms": first, "ms": again}
    for sort in SORTS:
        view = replace(EVERYTHING, sort=sort)
        result[f"sort {sort}"] = {"ms": _median(lambda view=view: select(index, view, now))}  # type: ignore[misc]
    return result


def over_bodies(database: Database, index: Index) -> dict[str, Any]:
    """Seconds to read all bodies for a filter, and until the first trace was found, asked 50 times a second."""
    now = time.time_ns()
    result: dict[str, Any] = {}
    for text in ATTRIBUTES_ASKED:
        view = replace(EVERYTHING, query=Query.parse(text))
        scan = Scan(database, view.query.attributes, index)
        began, first, found = time.perf_counter(), None, 0
        scan.start()
        while not scan.progress.done:
            time.sleep(0.02)
            found = len(select(index, view, now, found=scan).slots)
            if first is None and found:
                first = time.perf_counter() - began
        all_read = time.perf_counter() - began
        found = len(select(index, view, now, found=scan).slots)
        scan.cancel()
        scan.join(5)
        result[text] = {
            "traces": found,
            "first_ms": round(first * 1e3) if first is not None else None,
            "all_s": round(all_read, 2),
        }
    return result


def completing(index: Index) -> dict[str, Any]:
    """Milliseconds of the slowest completion, and of explaining a filter that finds nothing."""
    now = time.time_ns()
    took = {}
    for name in FIELDS:
        for text in (f"{name}=", f"verb=get {name}="):
            complete(text, len(text), index, EVERYTHING, now)
            took[text] = _median(lambda text=text: complete(text, len(text), index, EVERYTHING, now))  # type: ignore[misc]
    nothing = Query.parse("verb=get duration>1ms ns=nowhere code=500")
    slowest = max(took, key=lambda text: took[text])
    explained = _median(lambda: explain_nothing(nothing, index, EVERYTHING, now))
    return {"slowest": slowest, "ms": took[slowest], "nothing_ms": explained}


def measured(path: Path) -> dict[str, Any]:
    """All of it, on one file."""
    database = Database.read(path)
    index = load_index(database)
    result = {
        "spans": index.spans,
        "traces": index.traces,
        "columns": over_columns(index),
        "bodies": over_bodies(database, index),
        "completion": completing(index),
    }
    database.close()
    return result


def _ms(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return round((time.perf_counter() - began) * 1e3, 1)


def _median(work: Callable[[], object], times: int = 7) -> float:
    return round(statistics.median(_ms(work) for _ in range(times)), 1)
