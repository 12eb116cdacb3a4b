"""The demo: a synthetic cluster whose components export to a receiver over real gRPC.

Each process of `demo_cluster` has an exporter of its own, with a queue, a batch size and a delay as the batch
span processors of real components have them: parents come after their children, and the two sides of a call
come from two senders at two moments. Only the delay is shorter (about 1 s instead of 5 s), to feel live.

Uses the OTLP messages and grpc only; no OpenTelemetry SDK.
"""

from __future__ import annotations

import heapq
import itertools
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from receiver.command_line import CommandLine
from receiver.ingest.demo_cluster import PROCESSES, Cluster
from receiver.ingest.demo_spans import Finished, Process, S, Scope
from receiver.signals import ending

EXPORT: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
DEFAULT_RATE: Final = 20.0

# The batch span processor's own limits (OpenTelemetry Go SDK), its delay of 5 s aside
QUEUE: Final = 2048
BATCH: Final = 512
DELAY_S: Final = 1.0
TIMEOUT_S: Final = 10.0

_LONGEST_GAP: Final = 2 * S
"""A pause longer than this (a suspended machine) is not caught up with: the cluster's time stands still in it."""


def activity(seed: int, rate: float) -> Iterable[tuple[int, list[Finished]]]:
    """What happens in the demo, endless: (ns after the start, spans of what begins then)."""
    return Cluster(seed, rate).activity()


def place(finished: Finished, started: int) -> None:
    """Moves a span from the run's own time to the wall clock: `started` is ns since the epoch."""
    span = finished.span
    span.start_time_unix_nano += started
    span.end_time_unix_nano += started
    for event in span.events:
        event.time_unix_nano += started


def export_request(spans: Iterable[Finished]) -> ExportTraceServiceRequest:
    """One export request: spans grouped by process (in practice one) and scope, as an SDK does it."""
    groups: dict[Process, dict[Scope, list[Span]]] = {}
    for finished in spans:
        groups.setdefault(finished.process, {}).setdefault(finished.scope, []).append(finished.span)
    return ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=process.resource(),
                scope_spans=[ScopeSpans(scope=scope.message(), spans=group) for scope, group in scopes.items()],
                schema_url=process.schema_url,
            )
            for process, scopes in groups.items()
        ]
    )


class Exporter(threading.Thread):
    """A process' batching exporter. What does not fit into its queue is dropped, as in an SDK."""

    def __init__(self, process: Process, address: str, phase: float) -> None:
        """`phase` (0 to 1) spreads the exporters over the delay, so that they do not all export at once."""
        super().__init__(name=f"demo {process.service} {process.host}", daemon=True)
        self.process = process
        self.acknowledged = 0
        self.dropped = 0
        self._address = address
        self._phase = phase
        self._queue: deque[Finished] = deque()
        self._wake = threading.Condition()
        self._closing = False

    def offer(self, span: Finished) -> None:
        """Takes a span that ended."""
        with self._wake:
            if len(self._queue) >= QUEUE:
                self.dropped += 1
                return
            self._queue.append(span)
            if len(self._queue) >= BATCH:
                self._wake.notify()

    def close(self) -> None:
        """Makes the thread export what it has, once, and end."""
        with self._wake:
            self._closing = True
            self._wake.notify()

    def run(self) -> None:
        """Exports a batch a delay, or earlier when a batch is full."""
        options = [
            ("grpc.use_local_subchannel_pool", 1),  # a connection of its own, as another process would have
            ("grpc.primary_user_agent", self.process.exporter),
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_reconnect_backoff_ms", 2000),
        ]
        with grpc.insecure_channel(self._address, options=options) as channel:
            export = channel.unary_unary(
                EXPORT,
                request_serializer=ExportTraceServiceRequest.SerializeToString,
                response_deserializer=ExportTraceServiceResponse.FromString,
            )
            wait = DELAY_S * (0.3 + self._phase)
            while True:
                with self._wake:
                    if not self._closing and len(self._queue) < BATCH:
                        self._wake.wait(wait)
                    closing = self._closing
                    batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                wait = DELAY_S
                if batch:
                    self._send(export, batch, last=closing)
                if closing and not self._queue:
                    return

    def _send(
        self,
        export: grpc.UnaryUnaryMultiCallable[ExportTraceServiceRequest, ExportTraceServiceResponse],
        batch: list[Finished],
        *,
        last: bool,
    ) -> None:
        """One export, tried again while the receiver is away or says that it is full (as OTLP has it)."""
        request = export_request(batch)
        deadline = time.monotonic() + (0.0 if last else 3 * TIMEOUT_S)
        pause = 0.5
        while True:
            try:
                export(request, timeout=2.0 if last else TIMEOUT_S)
            except grpc.RpcError as error:
                again = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
                if not again or time.monotonic() + pause > deadline:
                    self.dropped += len(batch)
                    return
            else:
                self.acknowledged += len(batch)
                return
            with self._wake:
                if self._wake.wait_for(lambda: self._closing, pause):
                    deadline = 0.0  # one more attempt, then give up
            pause = min(5.0, pause * 2)


def run_demo(
    address: str, *, seed: int, rate: float, stop: threading.Event, now: Callable[[], int] = time.time_ns
) -> int:
    """Lets the cluster live until `stop` is set; returns how many spans the receiver acknowledged.

    A receiver that is not there (yet) is no error: exporters wait for it and drop what no longer fits, as real
    ones do. The same seed sends the same ids again, so every run wants a database of its own.

    Args:
        address: of the receiver, as gRPC takes it: `127.0.0.1:4317`, `unix:/path`. Plaintext.
        seed: decides everything that happens, and when.
        rate: ordinary API requests a second, besides leases, probes and incidents.
        now: the wall clock, ns since the epoch.
    """
    exporters = {
        process: Exporter(process, address, number / len(PROCESSES)) for number, process in enumerate(PROCESSES)
    }
    for exporter in exporters.values():
        exporter.start()
    events = iter(activity(seed, rate))
    upcoming = next(events)
    ending: list[tuple[int, int, Finished]] = []
    order = itertools.count()
    started = seen = now()
    try:
        while not stop.wait(0.05):
            present = now()
            if not 0 <= present - seen <= _LONGEST_GAP:
                started += present - seen
            seen = present
            elapsed = present - started
            while upcoming[0] <= elapsed:
                for finished in upcoming[1]:
                    heapq.heappush(ending, (finished.span.end_time_unix_nano, next(order), finished))
                upcoming = next(events)
            while ending and ending[0][0] <= elapsed:
                finished = heapq.heappop(ending)[2]
                place(finished, started)
                exporters[finished.process].offer(finished)
    finally:
        for exporter in exporters.values():
            exporter.close()
        for exporter in exporters.values():
            exporter.join(5.0)
    return sum(exporter.acknowledged for exporter in exporters.values())


def _stop_at_end_of_input(stop: threading.Event) -> None:
    sys.stdin.buffer.read()
    stop.set()


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m receiver.ingest.demo ADDRESS`: the cluster alone, until SIGTERM or SIGINT."""
    parser = CommandLine(prog="python -m receiver.ingest.demo", description=run_demo.__doc__)
    parser.add_argument("address")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=DEFAULT_RATE)
    parser.add_argument("--child", action="store_true", help="end when standard input does: who started this is gone")
    options = parser.parse_args(argv)
    stop = threading.Event()
    if options.child:
        threading.Thread(target=_stop_at_end_of_input, args=(stop,), daemon=True).start()
    with ending(stop, signal.SIGTERM, signal.SIGINT):
        print(run_demo(options.address, seed=options.seed, rate=options.rate, stop=stop), "spans acknowledged")
    return 0


if __name__ == "__main__":
    sys.exit(main())
