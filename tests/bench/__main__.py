"""Benchmarks: `python -m tests.bench [NAME...]` measures and prints one JSON object a benchmark.

    ingest     CPU of the receiver process, ack after commit, against a bare full parse of the same bytes
    sustained  50,000 spans/s for a minute with the screens open on the live list: losses, key-to-paint
    million    1,000,000 spans: memory, file, time to reopen, key-to-paint
    trace      time to the first screen of a trace of 40,000 spans and of one of 11
    phases     CPU of the phases of 100,000 traces; time to open the largest traces: tree, lines, verdict
    show       `show` of one trace of 370,000 spans, as text and as JSON: the first line, all of it, CPU
    hotspots   Hot spots over 1,000,000 spans: the first look, everything, and to follow; what is usual; dots
    filter     1,000,000 spans: filters over request fields and over attributes, orders, completion; key-to-paint while
               attributes are looked for
    proxy      what the proxy of a traced command adds to a request; requests/s; memory while 200 MB are streamed
    kills      receivers killed at random moments, --rounds of them: how many acknowledged traces are lost
    cap        size of file and log under a flood, against --max-size
    startup    --help, first paint, CPU when idle
    attacks    one user attacks the receiver in nine ways: acknowledgements, refusals of another who sends meanwhile

Figures hold for the machine that they were taken on; what is compared is compared within one run. Every load is
bounded, everything listens on loopback, and what is started here is ended here.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from receiver.ingest.decode import decode
from receiver.store.database import Database
from tests.bench import filters, killing
from tests.bench.attacks import attacks
from tests.bench.hot import hotspots
from tests.bench.otlp_load import Load, Template, lasts, make_templates, run
from tests.bench.proxying import proxy
from tests.bench.reading import phases, show
from tests.bench.terminal import Terminal, cpu_seconds, percentile, resident_bytes
from tests.live_receiver import LiveReceiver, start_receiver

TUI = (sys.executable, "-m", "tui.cli")
CURSOR = b"48;2;36;64;94"  # cursor-background of themes/dark.yaml
SPANS = 1_000_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--seconds", type=float, default=60.0, help="of `sustained` and `cap` (default 60)")
    parser.add_argument("--rounds", type=int, default=killing.ROUNDS, help="of `kills` (default 1000)")
    arguments = parser.parse_args(argv)
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    for name in arguments.names or BENCHMARKS:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            if name == "kills":
                result = killing.kills(Path(folder), arguments.rounds)
            else:
                result = BENCHMARKS[name](Path(folder), arguments.seconds)
        print(json.dumps({"benchmark": name, **result}), flush=True)
    return 0


# --- ingest -------------------------------------------------------------------------------------------
def ingest(folder: Path, seconds: float) -> dict[str, Any]:
    """CPU seconds per 100,000 spans of the receiver process, and of a bare parse of the same bytes."""
    results: dict[str, Any] = {}
    plain = make_templates(40)
    for name, templates in (("as recorded", plain), ("with events", [_with_events(t) for t in plain])):
        before = _parse_cost(templates)
        with _receiver(folder / f"{len(results)}.db") as receiver:
            run(Load(receiver.address, maximal=True, seconds=2), templates)
            cpu = cpu_seconds(receiver.pid)
            outcome = run(Load(receiver.address, maximal=True, seconds=10), templates)
            cpu = (cpu_seconds(receiver.pid) - cpu) / outcome.acknowledged * 1e5
        anchor = statistics.median([before, _parse_cost(templates)])
        spans = sum(t.spans for t in templates)
        results[name] = {
            "bytes_per_span": round(sum(len(t) for t in templates) / spans),
            "parse_cpu_s_per_100k": round(anchor, 3),
            "decode_cpu_s_per_100k": round(_decode_cost(templates), 3),
            "receiver_cpu_s_per_100k": round(cpu, 3),
            "ratio": round(cpu / anchor, 2),
            "spans_per_s": round(outcome.acknowledged / outcome.wall),
            "lost": outcome.sent - outcome.acknowledged,
        }
    return results


def _bodies(templates: Sequence[Template]) -> list[bytes]:
    shift = time.time_ns() - lasts(templates)
    return [template.fresh(1, shift) for template in templates]


def _cost(work: Callable[[bytes], object], templates: Sequence[Template]) -> float:
    bodies, spans = _bodies(templates), sum(t.spans for t in templates)
    costs = []
    for _ in range(9):
        start = time.process_time()
        for body in bodies:
            work(body)
        costs.append((time.process_time() - start) / spans * 1e5)
    return statistics.median(costs)


def _parse_cost(templates: Sequence[Template]) -> float:
    return _cost(ExportTraceServiceRequest.FromString, templates)


def _decode_cost(templates: Sequence[Template]) -> float:
    return _cost(lambda body: decode(body, source="local", peer="peer", received=1), templates)


def _with_events(template: Template) -> Template:
    """The same request with three more attributes and five events a span: some 800 bytes a span, as a sender with
    message events (kubernetes before 1.37) and long attributes makes them."""
    request = ExportTraceServiceRequest.FromString(template.fresh(1, 0))
    chance = random.Random(7)
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                for i in range(3):
                    span.attributes.add(key=f"k8s.extra.{i}").value.string_value = f"value-{chance.randrange(10**6)}"
                for i in range(5):
                    event = span.events.add(name="message", time_unix_nano=span.start_time_unix_nano + i)
                    for key, value in (("message.id", i), ("message.uncompressed_size", chance.randrange(40_000))):
                        event.attributes.add(key=key).value.int_value = value
                    event.attributes.add(key="message.type").value.string_value = "SENT" if i % 2 else "RECEIVED"
    return Template(request.SerializeToString(), template.spans)


# --- the screens under load ----------------------------------------------------------------------------
def sustained(folder: Path, seconds: float) -> dict[str, Any]:
    """50,000 spans/s with the screens open on the live list."""
    with _receiver(folder / "spans.db") as receiver, _screens("--db", str(receiver.db)) as terminal:
        terminal.wait_for("Requests")
        time.sleep(2)
        bounds = ("--seconds", str(seconds), "--spans", "20000000")
        load = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.otlp_load", receiver.address, "--rate", "50000", *bounds],
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(3)
        cpu, began = (terminal.cpu_seconds(), cpu_seconds(receiver.pid)), time.perf_counter()
        paints = _press(terminal, ["j", "j", "j", "k", "k"], 0.15, until=began + seconds - 5)
        spent = time.perf_counter() - began
        output, _ = load.communicate(timeout=seconds + 60)
        sent = json.loads(output)
        return {
            "offered_per_s": 50_000,
            "acked_per_s": sent["acked_per_s"],
            "sent": sent["sent"],
            "lost": sent["sent"] - sent["acked"],
            "errors": sent["errors"],
            "export_ms": sent["latency_ms"],
            **_paints(paints),
            "tui_cores": round((terminal.cpu_seconds() - cpu[0]) / spent, 2),
            "receiver_cores": round((cpu_seconds(receiver.pid) - cpu[1]) / spent, 2),
            "tui_mib": round(terminal.resident_bytes() / (1 << 20)),
            "receiver_mib": round(resident_bytes(receiver.pid) / (1 << 20)),
        }


def million(folder: Path, seconds: float) -> dict[str, Any]:
    """1,000,000 spans held."""
    path = folder / "spans.db"
    with _receiver(path) as receiver, _screens("--db", str(path)) as terminal:
        terminal.wait_for("Requests")
        outcome = run(Load(receiver.address, maximal=True, spans=SPANS, seconds=120), make_templates(40))
        _until_read(terminal, outcome.acknowledged)
        result: dict[str, Any] = {
            "spans": outcome.acknowledged,
            "tui_mib": round(terminal.resident_bytes() / (1 << 20)),
            "receiver_mib": round(resident_bytes(receiver.pid) / (1 << 20)),
        }
        result["both_mib"] = result["tui_mib"] + result["receiver_mib"]
        result["live_list"] = _paints(_press(terminal, ["j", "\x06", "k", "\x02"], 0.05, count=300))
    result["file_mib"] = round(path.stat().st_size / (1 << 20))
    reopened = []
    for _ in range(3):
        with _screens("--db", str(path), "--listen", "127.0.0.1:0") as terminal:
            first = terminal.wait_for("kube-system")
            everything = _until_read(terminal, outcome.acknowledged)
            reopened.append((first, everything))
            result["reopened_list"] = _paints(_press(terminal, ["j", "\x06", "k", "\x02"], 0.05, count=200))
            result["reopened_mib"] = round(terminal.resident_bytes() / (1 << 20))
        time.sleep(1)
    result["first_list_s"] = round(statistics.median(f for f, _ in reopened), 2)
    result["all_read_s"] = round(statistics.median(a for _, a in reopened), 2)
    database = Database.read(path)
    result["chunks"] = len(database.ids())
    database.close()
    return result


def _until_read(terminal: Terminal, spans: int) -> float:
    return terminal.wait_for(f"{spans:,} spans", 120)


# --- one trace -------------------------------------------------------------------------------------------
def trace(folder: Path, seconds: float) -> dict[str, Any]:
    """Enter on a row until the trace's tree is painted."""
    result: dict[str, Any] = {}
    for name, spans in (("40,000 spans", 40_000), ("11 spans", 11)):
        path = folder / f"{spans}.otlp.jsonl"
        path.write_text("\n".join(_lines_of_a_trace(spans)) + "\n")
        times = []
        for _ in range(5):
            with _screens(str(path)) as terminal:
                terminal.wait_for(f"{spans:,} spans", 60)
                time.sleep(0.7)
                since, sent = terminal.position(), time.perf_counter()
                terminal.send("\r")
                terminal.wait_for("work-1 ", 20, since=since)
                times.append(time.perf_counter() - sent)
        result[name] = {"first_screen_ms": round(statistics.median(times) * 1e3, 1)}
    return result


def _lines_of_a_trace(spans: int) -> Iterator[str]:
    """OTLP JSON Lines of one trace: a request with `spans - 1` spans below it, in a tree of width 20."""
    start, trace_id = 1_795_344_951_000_000_000, "ab" * 16
    batch: list[dict[str, Any]] = []
    for i in range(spans):
        span: dict[str, Any] = {
            "traceId": trace_id,
            "spanId": f"{i + 1:016x}",
            "name": f"work-{i} " if i else "POST /api/v1/namespaces/{:namespace}/pods",
            "kind": 1 if i else 2,
            "startTimeUnixNano": str(start + i * 1000),
            "endTimeUnixNano": str(start + 50_000_000 + (spans - i) * 1000),
            "attributes": [
                {"key": "http.target", "value": {"stringValue": "/api/v1/namespaces/default/pods"}},
                {"key": "http.request.method", "value": {"stringValue": "POST"}},
                {"key": "http.response.status_code", "value": {"intValue": "201"}},
            ],
        }
        if i:
            span["parentSpanId"] = f"{(i - 1) // 20 + 1:016x}"
        batch.append(span)
        if len(batch) == 500 or i == spans - 1:
            service = [{"key": "service.name", "value": {"stringValue": "apiserver"}}]
            resource = {"resource": {"attributes": service}, "scopeSpans": [{"scope": {}, "spans": batch}]}
            yield json.dumps({"resourceSpans": [resource]})
            batch = []


# --- filters ---------------------------------------------------------------------------------------------
def filter_(folder: Path, seconds: float) -> dict[str, Any]:
    """Filters over 1,000,000 spans, and the screen while bodies are read."""
    path = folder / "spans.db"
    filters.stored(path)
    result = filters.measured(path)
    paints: list[float] = []
    with _screens("--db", str(path), "--listen", "127.0.0.1:0") as terminal:
        _until_read(terminal, result["spans"])
        terminal.send("/pods\r")
        time.sleep(0.5)
        before = _press(terminal, ["j", "j", "k"], 0.05, count=150)
        for text in filters.ATTRIBUTES_ASKED:
            terminal.send(f"/{text} || pods\r")  # so that there are rows from the first moment on
            time.sleep(0.3)  # forty keys at once were typed, which nobody does
            paints += _press(terminal, ["j", "j", "k"], 0.03, until=time.perf_counter() + 1.2)
            terminal.send("\x1b")
            time.sleep(0.3)
    return {**result, "before": _paints(before), "while_bodies_are_read": _paints(paints)}


# --- start -------------------------------------------------------------------------------------------------
def startup(folder: Path, seconds: float) -> dict[str, Any]:
    """Help, first paint and rest."""
    helps = []
    for _ in range(9):
        start = time.perf_counter()
        subprocess.run([*TUI, "--help"], stdout=subprocess.DEVNULL, check=True)
        helps.append(time.perf_counter() - start)
    paints, idle = [], []
    for i in range(5):
        with _screens("--db", str(folder / f"{i}.db"), "--listen", "127.0.0.1:0") as terminal:
            paints.append(terminal.wait_for("Requests"))
            if i == 4:
                time.sleep(5)
                cpu, began = terminal.cpu_seconds(), time.perf_counter()
                time.sleep(10)
                idle.append((terminal.cpu_seconds() - cpu) / (time.perf_counter() - began))
    return {
        "help_ms": round(statistics.median(helps) * 1e3),
        "first_paint_ms": round(statistics.median(paints) * 1e3),
        "idle_core_percent": round(idle[0] * 100, 1),
    }


# --- pieces ------------------------------------------------------------------------------------------------
@contextmanager
def _receiver(db: Path) -> Iterator[LiveReceiver]:
    receiver = start_receiver(db, ["127.0.0.1:0"])
    drain = threading.Thread(target=lambda: receiver.process.stderr and receiver.process.stderr.read(), daemon=True)
    drain.start()
    try:
        yield receiver
    finally:
        receiver.stop()


@contextmanager
def _screens(*arguments: str) -> Iterator[Terminal]:
    settings = {"XDG_CONFIG_HOME": "/nonexistent", "TZ": "UTC", "LANG": "C.UTF-8"}
    terminal = Terminal([*TUI, *arguments], environment=settings)
    try:
        yield terminal
    finally:
        terminal.close()


def _press(terminal: Terminal, keys: Sequence[str], pause: float, *, count: int = 0, until: float = 0.0) -> list[float]:
    """Seconds from key to paint of each press, the keys in turn, with a pause between."""
    paints: list[float] = []
    while (len(paints) < count) if count else (time.perf_counter() < until):
        paints.append(terminal.key_to_paint(keys[len(paints) % len(keys)], CURSOR))
        time.sleep(pause * random.uniform(0.5, 1.5))
    return paints


def _paints(paints: Sequence[float]) -> dict[str, Any]:
    return {
        "keys": len(paints),
        **{f"key_to_paint_p{q}_ms": round(percentile(paints, q / 100) * 1e3, 1) for q in (50, 95, 99)},
        "key_to_paint_max_ms": round(max(paints) * 1e3, 1),
    }


BENCHMARKS: dict[str, Callable[[Path, float], dict[str, Any]]] = {
    "ingest": ingest,
    "sustained": sustained,
    "million": million,
    "trace": trace,
    "phases": phases,
    "show": show,
    "hotspots": hotspots,
    "filter": filter_,
    "proxy": proxy,
    "kills": lambda folder, seconds: killing.kills(folder),
    "cap": killing.cap,
    "startup": startup,
    "attacks": attacks,
}

if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
