"""A receiver's inside in this process: a database that can be stopped, a writer, gRPC behind the acceptor."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from receiver.ingest.server import METHOD, Ingest, Tally
from receiver.store.chunk import Chunk
from receiver.store.database import Database, DiskFull
from receiver.store.writer import Writer


class Slow(Database):
    """A database whose disk can be stopped, or filled."""

    gate: threading.Event
    sender: list[str]
    full = False

    @classmethod
    def make(cls) -> Slow:
        database = cls.memory()
        assert isinstance(database, cls)
        database.gate = threading.Event()
        database.gate.set()
        database.sender = []
        return database

    def append(self, chunks: Sequence[Chunk]) -> list[int]:
        self.gate.wait(30)
        self.sender += [chunk.sender for chunk in chunks]
        if self.full:
            raise DiskFull("No space: free some.")
        return super().append(chunks)


class Bench:
    """A receiver's inside: database, writer, servers."""

    def __init__(self, **options: Any) -> None:
        self.database = Slow.make()
        self.writer = Writer(self.database, **options.pop("writer", {}))
        self.writer.start()
        self.tally = Tally()
        self.ingest = Ingest(self.writer, self.tally, **options)

    def spans(self) -> int:
        return sum(len(chunk.spans) for chunk in self.database.read_after(0, 10_000))

    def close(self) -> None:
        self.database.gate.set()
        self.ingest.stop(1.0)
        self.writer.stop()


def request(spans: int = 1, trace: bytes = b"t" * 16, first: int = 1, text: str = "") -> bytes:
    sent = ExportTraceServiceRequest()
    group = sent.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "etcd"
    scope = group.scope_spans.add()
    for number in range(first, first + spans):
        span = scope.spans.add(trace_id=trace, span_id=number.to_bytes(8, "big"), name="x", kind=1)
        if text:
            span.attributes.add(key="k").value.string_value = text
    return sent.SerializeToString()


def export(address: str, body: bytes, timeout: float = 20.0, **options: Any) -> ExportTraceServiceResponse:
    with grpc.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),), **options) as channel:
        return ExportTraceServiceResponse.FromString(channel.unary_unary(METHOD)(body, timeout=timeout))
