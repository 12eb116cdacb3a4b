"""What reading traces costs: phases of all of them, and a large one from the index to its verdict."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from receiver.ingest.decode import decode
from receiver.ingest.recordings import take
from receiver.store.chunk import Chunk
from receiver.store.database import Database
from receiver.store.index import Index
from receiver.traces.bodies import Bodies
from receiver.traces.listing import rows
from receiver.traces.phases import breakdown
from receiver.traces.reader import load
from receiver.traces.verdict import judge
from tests.bench.otlp_load import make_templates
from tui.widgets.outline import outline

TRACES = 100_000
RECORDINGS = "K8S_TRACE_TUI_RECORDINGS"
_START = 1_795_344_951_000_000_000


def phases(folder: Path, seconds: float) -> dict[str, Any]:
    """CPU of the phases of 100,000 traces, and the time to open the largest ones: tree, lines, verdict."""
    recordings = _recordings()
    full = next((path for path in recordings if path.name.startswith("cluster-rate-full")), None)
    base = _stored(full) if full is not None else _made()
    index = _many(list(_chunks(base)))
    chance = np.random.default_rng(1)
    screens = [np.sort(chance.choice(index.traces, 50)).tolist() for _ in range(20)]
    result: dict[str, Any] = {
        "of": "cluster-rate-full" if full is not None else "generated load",
        "traces": index.traces,
        "spans": index.spans,
        "breakdown_cpu_s_per_100k": round(_cpu(lambda: breakdown(index, range(index.traces))) / index.traces * 1e5, 2),
        "screen_of_50_ms": round(statistics.median(_wall(lambda at=at: rows(index, at, 0)) for at in screens) * 1e3, 2),
        "open_ms": {},
    }
    files = {path.name.partition(".")[0]: path for path in recordings}
    for spans in (11, 40_000):
        path = folder / f"{spans}.otlp.jsonl"
        path.write_text("\n".join(collection_deleted(spans)) + "\n")
        files[f"made of {spans:,}"] = path
    for name, path in files.items():
        result["open_ms"][name] = _opened(_stored(path))
    return result


SHOWN: Final = 370_000
"""Spans of the trace that `show` is measured with."""


def show(folder: Path, seconds: float) -> dict[str, Any]:
    """`k8s-trace-tui show` of one very large trace: seconds to the first line and to the end, and CPU."""
    recording, path = folder / "large.otlp.jsonl", folder / "large.db"
    recording.write_text("\n".join(collection_deleted(SHOWN)) + "\n")
    database = Database.create(path)
    take(recording, database, lambda text: None, arrived_now=True)
    database.close()
    result: dict[str, Any] = {"spans": SHOWN}
    for how in ("", "--all", "--raw", "--json"):
        words = [sys.executable, "-m", "tui.cli", "show", *filter(None, (how,)), "--db", str(path), "abab"]
        start = time.perf_counter()
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            size = len(process.stdout.read(1))
            first = time.perf_counter() - start
            while piece := process.stdout.read(1 << 16):
                size += len(piece)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        result[how or "text"] = {
            "first_s": round(first, 2),
            "all_s": round(time.perf_counter() - start, 2),
            "cpu_s": round(used.ru_utime + used.ru_stime, 2),
            "printed_mib": round(size / (1 << 20), 1),
        }
    return result


def _recordings() -> list[Path]:
    named = os.environ.get(RECORDINGS)
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "recordings"
    return sorted(folder.glob("*.otlp.jsonl*")) if folder.is_dir() else []


def _stored(path: Path) -> Database:
    database = Database.memory()
    take(path, database, lambda text: None, arrived_now=False)
    return database


def _made() -> Database:
    database = Database.memory()
    for number, template in enumerate(make_templates(40)):
        chunk = decode(template.fresh(1, 0), source="local", peer="", received=_START + number).chunk
        if chunk is not None:
            database.append([chunk])
    return database


def _chunks(database: Database) -> Iterator[Chunk]:
    last = 0
    while chunks := database.read_after(last):
        yield from chunks
        last = chunks[-1].id


def _many(chunks: list[Chunk]) -> Index:
    """The same traces again and again under other ids, until there are enough."""
    index = Index()
    number = copy = 0
    while index.traces < TRACES:
        for chunk in chunks:
            spans = chunk.spans.copy()
            spans["trace_hi"] ^= np.uint64(copy)
            number += 1
            index.extend([replace(chunk, id=number, spans=spans)])
        copy += 1
    return index


def _opened(database: Database) -> dict[str, Any]:
    """The largest trace, from the index to what is painted of it; nothing is kept from one time to the next."""
    index = Index()
    for chunk in _chunks(database):
        index.extend([chunk])
    trace_id = index.trace_id(int(np.argmax(index.span_count)))
    times: dict[str, list[float]] = {"load": [], "outline": [], "verdict": []}
    for _ in range(5):
        at = time.perf_counter()
        trace = load(index, trace_id, 0, live=False)
        assert trace is not None
        times["load"].append(time.perf_counter() - at)
        times["outline"].append(_wall(lambda trace=trace: outline(trace)))
        bodies = Bodies(database)
        times["verdict"].append(_wall(lambda trace=trace, bodies=bodies: judge(trace, bodies)))
    found = {name: round(statistics.median(taken) * 1e3, 2) for name, taken in times.items()}
    return {"spans": trace.spans, **found, "all": round(sum(found.values()), 2)}


def _wall(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _cpu(work: Callable[[], object]) -> float:
    costs = []
    for _ in range(3):
        start = time.process_time()
        work()
        costs.append(time.process_time() - start)
    return statistics.median(costs)


def collection_deleted(spans: int) -> Iterator[str]:
    """OTLP JSON Lines of one trace: a collection is deleted, and each of its objects calls a webhook and etcd."""
    target = "/api/v1/namespaces/default/configmaps"
    http = {"http.target": target, "http.request.method": "DELETE", "http.response.status_code": 200}
    verb = {"verb": "DELETECOLLECTION", "resource": "configmaps", "namespace": "default", "api-version": "v1"}
    hook = {"webhook": "policy.example.com", "configuration": "policy", "operation": "DELETE"}
    made = [("DELETE x", 2, 0, 0, 1e9, http), ("Delete", 1, 1, 0, 1e9, verb)]
    each = 1e9 / max(1, (spans - 2) // 5)
    while len(made) < spans:
        at, above = ((len(made) - 2) // 5) * each, len(made) + 1
        made += [
            ("Call validating webhook", 1, 2, at, each * 0.4, hook),
            ("HTTP POST", 3, above, at, each * 0.4, {}),
            ("GuaranteedUpdate etcd3", 1, 2, at + each * 0.5, each * 0.4, {}),
            ("etcdserverpb.KV/Txn", 3, above + 2, at + each * 0.5, each * 0.3, {}),
            ("etcdserverpb.KV/Txn", 2, above + 3, at + each * 0.6, each * 0.1, {}),
        ]
    for low in range(0, spans, 500):
        groups: dict[str, list[dict[str, Any]]] = {"apiserver": [], "etcd": []}
        for number, (name, kind, parent, at, ns, values) in enumerate(made[low : min(low + 500, spans)], low + 1):
            service = "etcd" if name.startswith("etcd") and kind == 2 else "apiserver"
            span: dict[str, Any] = {"traceId": "ab" * 16, "spanId": f"{number:016x}", "name": name, "kind": kind}
            span["startTimeUnixNano"], span["endTimeUnixNano"] = str(_START + int(at)), str(_START + int(at + ns))
            span["attributes"] = [
                {"key": key, "value": {"intValue": str(v)} if isinstance(v, int) else {"stringValue": v}}
                for key, v in values.items()
            ]
            if parent:
                span["parentSpanId"] = f"{parent:016x}"
            groups[service].append(span)
        yield json.dumps(
            {
                "resourceSpans": [
                    {
                        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]},
                        "scopeSpans": [{"scope": {}, "spans": group}],
                    }
                    for service, group in groups.items()
                    if group
                ]
            }
        )
