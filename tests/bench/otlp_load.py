"""A load generator for benchmarks: whole traces of a Kubernetes cluster, sent as fast as asked, counted exactly.

    python -m tests.bench.otlp_load 127.0.0.1:4317 --rate 50000 --seconds 60
    python -m tests.bench.otlp_load 127.0.0.1:4317 --max --spans 1000000
    python -m tests.bench.otlp_load --dump templates.bin

The spans are those of the synthetic cluster of the demo, so their names, attributes, webhooks and sizes are what
real components send (some 300 bytes a span). They are serialised once, into requests of up to 512 spans of one
process as its batch span processor would cut them: a trace reaches the receiver in several requests, its parents
after its children. Each send patches the bytes in place: a number of its own into every trace id (spans, links),
and all times moved by one amount, so that no trace repeats and every span is fresh.

Prints one JSON object: sent, acknowledged, rejected, failed spans; errors by status code; latency percentiles of
an export; the generator's own CPU. Every run is bounded, by time and by spans.
"""

from __future__ import annotations

import argparse
import itertools
import json
import struct
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
import numpy.typing as npt
from google.protobuf.internal import wire_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from receiver.ingest.demo import EXPORT, activity, export_request
from receiver.ingest.demo_spans import Finished, Process

TAG: Final = 4
"""How many bytes of a trace id are overwritten; the other twelve stay random."""

_LONGEST_NS: Final = 3_000_000_000
"""How far beyond the moment that templates end at a trace of theirs may go on."""

MAX_SECONDS: Final = 600.0
MAX_SPANS: Final = 20_000_000


# --- templates -----------------------------------------------------------------------------------
_NESTED: Final = {
    "request": {1: "resource_spans"},
    "resource_spans": {2: "scope_spans"},
    "scope_spans": {2: "span"},
    "span": {11: "event", 13: "link"},
    "event": {},
    "link": {},
}
"""Length-delimited fields to walk into, by message (opentelemetry/proto/trace/v1/trace.proto)."""


class Template:
    """One serialised request, and where in it trace ids and times are."""

    def __init__(self, body: bytes, spans: int) -> None:
        self.spans = spans
        self._buffer = bytearray(body)
        ids: list[int] = []
        times: list[int] = []
        _walk(body, 0, len(body), "request", ids, times)
        view: npt.NDArray[np.uint8] = np.frombuffer(self._buffer, np.uint8)
        self._view = view
        self._ids = (np.array(ids)[:, None] + np.arange(TAG)).ravel()
        self._trace_ids = len(ids)
        self._times = np.array(times)[:, None] + np.arange(8)
        self._original = self._view[self._times].copy().view("<u8")
        self.last = int(self._original.max())  # ns since the cluster began

    def __len__(self) -> int:
        """Bytes of the request."""
        return len(self._buffer)

    def fresh(self, tag: int, shift: int) -> bytes:
        """The request with `tag` in every trace id and its times moved by `shift` ns."""
        self._view[self._ids] = np.frombuffer(struct.pack(">I", tag & 0xFFFFFFFF) * self._trace_ids, np.uint8)
        moved = self._original + np.uint64(shift)
        self._view[self._times] = moved.view(np.uint8).reshape(-1, 8)
        return bytes(self._buffer)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint and the position after it."""
    value = shift = 0
    while True:
        octet = data[at]
        at += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
        shift += 7


def _walk(data: bytes, at: int, end: int, message: str, ids: list[int], times: list[int]) -> None:
    """Notes where trace ids (spans, links) and times (spans, events) begin."""
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == wire_format.WIRETYPE_FIXED64:
            if message in ("span", "event"):
                times.append(at)
            at += 8
        elif kind == wire_format.WIRETYPE_FIXED32:
            at += 4
        elif kind == wire_format.WIRETYPE_VARINT:
            _, at = _varint(data, at)
        else:
            size, at = _varint(data, at)
            if message in ("span", "link") and number == 1:
                ids.append(at)
            elif number in _NESTED[message]:
                _walk(data, at, at + size, _NESTED[message][number], ids, times)
            at += size


def make_templates(count: int, batch: int = 512, seed: int = 1, rate: float = 200.0) -> list[Template]:
    """About `count` requests of `batch` spans, in the order in which their last spans ended; the last one of each
    process may be shorter. Together they hold whole traces; those that run on for long (watches) are left out, so
    that all times are near the moment of sending."""
    traces: dict[bytes, list[Finished]] = defaultdict(list)
    made = until = 0
    for at, spans in activity(seed, rate):
        until = at
        for finished in spans:
            traces[finished.span.trace_id].append(finished)
        made += len(spans)
        if made >= count * batch:
            break
    queues: dict[Process, list[Finished]] = defaultdict(list)
    for trace in traces.values():
        if max(map(_ended, trace)) < until + _LONGEST_NS:
            for finished in trace:
                queues[finished.process].append(finished)
    cut: list[tuple[int, Template]] = []
    for queue in queues.values():
        queue.sort(key=_ended)
        for at in range(0, len(queue), batch):
            part = queue[at : at + batch]
            cut.append((_ended(part[-1]), Template(export_request(part).SerializeToString(), len(part))))
    cut.sort(key=lambda item: item[0])
    return [template for _, template in cut]


def _ended(finished: Finished) -> int:
    return finished.span.end_time_unix_nano


def lasts(templates: Sequence[Template]) -> int:
    """When the last span of all ends, ns since their cluster began: what to subtract from now."""
    return max(template.last for template in templates)


def dump(templates: Sequence[Template], path: Path) -> None:
    """Writes requests for a benchmark of decoding: 4 bytes of length (little endian), then the bytes, each."""
    shift = time.time_ns() - lasts(templates)
    with path.open("wb") as file:
        for template in templates:
            body = template.fresh(1, shift)
            file.write(struct.pack("<I", len(body)) + body)


def read_dump(path: Path) -> Iterator[bytes]:
    """What `dump` wrote."""
    with path.open("rb") as file:
        while head := file.read(4):
            yield file.read(struct.unpack("<I", head)[0])


# --- sending -------------------------------------------------------------------------------------
@dataclass
class Load:
    """What to send. One of `rate` and `maximal`; ends at `seconds` or at `spans`, whichever comes first."""

    target: str
    rate: float = 0.0  # spans a second
    maximal: bool = False  # as fast as the receiver acknowledges
    seconds: float = 10.0
    spans: int = MAX_SPANS
    connections: int = 2
    in_flight: int = 2  # requests at a time per connection
    gzip: bool = False
    timeout: float = 10.0
    wait: float = 10.0  # for the receiver to be there


@dataclass
class Outcome:
    """What came of it; spans unless said otherwise."""

    sent: int = 0
    acknowledged: int = 0
    rejected: int = 0
    failed: int = 0
    requests: int = 0
    bytes: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)  # seconds an export took
    behind: float = 0.0  # seconds the generator was late, at worst
    wall: float = 0.0
    cpu: float = 0.0
    traces: int = 0

    def to_json(self) -> dict[str, Any]:
        """The JSON object that the command prints."""
        ordered = sorted(self.latencies)
        return {
            "sent": self.sent,
            "acked": self.acknowledged,
            "rejected": self.rejected,
            "failed": self.failed,
            "requests": self.requests,
            "errors": dict(self.errors),
            "wall_s": round(self.wall, 3),
            "acked_per_s": round(self.acknowledged / self.wall) if self.wall else 0,
            "mb_per_s": round(self.bytes / self.wall / 1e6, 1) if self.wall else 0,
            "bytes_per_span": round(self.bytes / self.sent) if self.sent else 0,
            "latency_ms": {name: _percentile(ordered, q) for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
            | {"max": round(ordered[-1] * 1e3, 2) if ordered else None},
            "behind_s": round(self.behind, 3),
            "client_cpu_s": round(self.cpu, 2),
            "client_cpu_s_per_100k": round(self.cpu / self.sent * 1e5, 3) if self.sent else 0,
        }


def _percentile(ordered: Sequence[float], q: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1e3, 2) if ordered else None


class _Pacer:
    """Hands out the next request and the moment it is due. One lock: patching a template is its own."""

    def __init__(self, load: Load, templates: Sequence[Template], outcome: Outcome) -> None:
        self._load = load
        self._templates = templates
        self._outcome = outcome
        self._lock = threading.Lock()
        self._next = itertools.count()
        self._shift = 0
        # the cycle number goes into the trace ids: two runs into one database must not meet
        self._first_tag = time.time_ns() // 1_000_000_000 << 12
        self._lasts = lasts(templates)
        self.began = time.perf_counter()

    def take(self) -> tuple[int, bytes, float] | None:
        """(spans, body, when it is due on perf_counter); None when the load is over."""
        load, outcome = self._load, self._outcome
        with self._lock:
            due = self.began + outcome.sent / load.rate if load.rate else 0.0
            if outcome.sent >= load.spans or max(due, time.perf_counter()) >= self.began + load.seconds:
                return None
            cycle, number = divmod(next(self._next), len(self._templates))
            if number == 0:
                self._shift = time.time_ns() - self._lasts
            template = self._templates[number]
            body = template.fresh(self._first_tag + cycle, self._shift)
            outcome.sent += template.spans
            outcome.bytes += len(body)
            outcome.requests += 1
            return template.spans, body, due


def run(load: Load, templates: Sequence[Template]) -> Outcome:
    """Sends the load; blocks until it is over."""
    if load.seconds > MAX_SECONDS or load.spans > MAX_SPANS:
        raise ValueError(f"a load is bounded: {MAX_SECONDS:.0f} s and {MAX_SPANS} spans")
    if bool(load.rate) == load.maximal:
        raise ValueError("say how fast: a rate, or as fast as possible")
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_send_message_length", -1),
        ("grpc.enable_http_proxy", 0),
    ]
    compression = grpc.Compression.Gzip if load.gzip else None
    channels = [
        grpc.insecure_channel(load.target, options=options, compression=compression) for _ in range(load.connections)
    ]
    outcome = Outcome()
    try:
        for channel in channels:
            grpc.channel_ready_future(channel).result(timeout=load.wait)
        calls = [channel.unary_unary(EXPORT, bytes, bytes) for channel in channels]  # serialised already
        pacer = _Pacer(load, templates, outcome)
        cpu = time.process_time()
        workers = [
            threading.Thread(target=_work, args=(pacer, calls[n % len(calls)], load, outcome), daemon=True)
            for n in range(load.connections * load.in_flight)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        outcome.wall = time.perf_counter() - pacer.began
        outcome.cpu = time.process_time() - cpu
    finally:
        for channel in channels:
            channel.close()
    return outcome


_counting = threading.Lock()


def _work(pacer: _Pacer, call: grpc.UnaryUnaryMultiCallable[bytes, bytes], load: Load, outcome: Outcome) -> None:
    acknowledged = rejected = failed = 0
    latencies: list[float] = []
    errors: Counter[str] = Counter()
    behind = 0.0
    while (taken := pacer.take()) is not None:
        spans, body, due = taken
        early = due - time.perf_counter()
        if early > 0:
            time.sleep(early)
        elif due:
            behind = max(behind, -early)
        began = time.perf_counter()
        try:
            answer = call(body, timeout=load.timeout)
        except grpc.RpcError as error:
            errors[error.code().name] += 1
            failed += spans
        else:
            refused = ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans if answer else 0
            acknowledged += spans - refused
            rejected += refused
        latencies.append(time.perf_counter() - began)
    with _counting:
        outcome.acknowledged += acknowledged
        outcome.rejected += rejected
        outcome.failed += failed
        outcome.errors += errors
        outcome.latencies += latencies
        outcome.behind = max(outcome.behind, behind)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; exit code 1 when an export failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.otlp_load", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("target", nargs="?", default="127.0.0.1:4317")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--rate", type=float, default=0.0, help="spans a second (default 10000)")
    pace.add_argument("--max", action="store_true", help="as fast as the receiver acknowledges")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--spans", type=int, default=MAX_SPANS, help="stop after this many")
    parser.add_argument("--batch", type=int, default=512, help="spans a request, at most")
    parser.add_argument("--templates", type=int, default=40, help="different requests to prepare, about")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--connections", type=int, default=2)
    parser.add_argument("--in-flight", type=int, default=2)
    parser.add_argument("--gzip", action="store_true")
    parser.add_argument("--timeout", type=float, default=10.0)
    parser.add_argument("--wait", type=float, default=10.0, help="seconds to wait for the receiver")
    parser.add_argument("--dump", type=Path, help="write the requests to this file and send nothing")
    options = parser.parse_args(argv)
    templates = make_templates(options.templates, options.batch, options.seed)
    if options.dump:
        dump(templates, options.dump)
        spans = sum(template.spans for template in templates)
        print(json.dumps({"requests": len(templates), "spans": spans, "bytes": sum(map(len, templates))}))
        return 0
    load = Load(
        target=options.target,
        rate=options.rate or (0.0 if options.max else 10_000.0),
        maximal=options.max,
        seconds=options.seconds,
        spans=options.spans,
        connections=options.connections,
        in_flight=options.in_flight,
        gzip=options.gzip,
        timeout=options.timeout,
        wait=options.wait,
    )
    outcome = run(load, templates)
    print(json.dumps(outcome.to_json()))
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    sys.exit(main())
