"""Spans made up from a random generator: what the synthetic cluster of the demo is built of.

Everything here is a function of the generator given: the same generator gives the same spans, ids included.
Times are nanoseconds since the start of the run; the exporter adds the wall clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

US: Final = 1_000
MS: Final = 1_000_000
S: Final = 1_000_000_000

Attribute = str | bool | int | float | Sequence[str]
Attributes = Mapping[str, Attribute]

INTERNAL: Final = Span.SpanKind.SPAN_KIND_INTERNAL
SERVER: Final = Span.SpanKind.SPAN_KIND_SERVER
CLIENT: Final = Span.SpanKind.SPAN_KIND_CLIENT

LOCAL: Final = 0x101
"""Flags of a span or link: sampled, and known that its context is not remote (OTLP 1.3, CONTEXT_HAS_IS_REMOTE)."""
REMOTE: Final = 0x301


@dataclass(frozen=True, slots=True)
class Process:
    """One process that exports: its resource, the address it has and what its exporter calls itself."""

    service: str
    instance: str  # service.instance.id, "" where the component sets none
    host: str  # the node
    address: str  # IP address
    port: int = 0
    exporter: str = "OTel OTLP Exporter Go/1.40.0"  # user agent of its gRPC calls
    extra: tuple[tuple[str, str], ...] = ()  # further resource attributes
    schema_url: str = ""

    def resource(self) -> Resource:
        """The resource as on the wire."""
        attributes: dict[str, Attribute] = {}
        if self.instance:
            attributes["service.instance.id"] = self.instance
        attributes.update(self.extra)
        attributes["service.name"] = self.service
        return Resource(attributes=key_values(attributes))


@dataclass(frozen=True, slots=True)
class Scope:
    """An instrumentation scope; the version is "" where Kubernetes gives none."""

    name: str
    version: str = ""

    def message(self) -> InstrumentationScope:
        """The scope as on the wire."""
        return InstrumentationScope(name=self.name, version=self.version)


HTTP_SCOPE: Final = Scope("go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp", "0.67.0")
GRPC_SCOPE: Final = Scope("go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc", "0.67.0")


@dataclass(frozen=True, slots=True)
class Finished:
    """A span that waits for its process' exporter, complete but for the wall clock."""

    process: Process
    scope: Scope
    span: Span


@dataclass(frozen=True, slots=True)
class Context:
    """A span context that came from outside: what a `traceparent` header says."""

    trace_id: bytes
    span_id: bytes


@dataclass(slots=True)
class Spans:
    """Opens and closes spans, and collects them until `take`."""

    random: Random
    finished: list[Finished] = field(default_factory=list)

    def take(self) -> list[Finished]:
        """The spans built since the last call; every one of them has been closed by then."""
        taken, self.finished = self.finished, []
        return taken

    # --- chance ----------------------------------------------------------------------------------
    def between(self, low: int, high: int) -> int:
        """Mostly near `low`, seldom near `high`: how long things take."""
        return low + int((high - low) * self.random.random() ** 3)

    def hexadecimal(self, octets: int) -> str:
        """A random hexadecimal number, two digits an octet."""
        return self.random.randbytes(octets).hex()

    def uuid(self) -> str:
        """A random UUID (version 4)."""
        value = bytearray(self.random.randbytes(16))
        value[6] = value[6] & 0x0F | 0x40
        value[8] = value[8] & 0x3F | 0x80
        text = value.hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    # --- one span --------------------------------------------------------------------------------
    def open(
        self,
        process: Process,
        scope: Scope,
        name: str,
        kind: Span.SpanKind.ValueType,
        at: int,
        parent: Span | Context | None = None,
        attributes: Attributes | None = None,
        *,
        remote: bool = False,
    ) -> Span:
        """Starts a span. Without a parent it starts a trace; `remote`: the parent is another process'."""
        span = Span(
            trace_id=parent.trace_id if parent else self.random.randbytes(16),
            span_id=self.random.randbytes(8),
            name=name,
            kind=kind,
            start_time_unix_nano=at,
            flags=REMOTE if remote else LOCAL,
            attributes=key_values(attributes or {}),
        )
        if parent:
            span.parent_span_id = parent.span_id
        self.finished.append(Finished(process, scope, span))
        return span

    def close(self, span: Span, at: int) -> None:
        """Ends a span."""
        span.end_time_unix_nano = at

    def fail(self, span: Span, message: str = "") -> None:
        """Gives a span the status ERROR."""
        span.status.CopyFrom(Status(code=Status.StatusCode.STATUS_CODE_ERROR, message=message))

    def event(self, span: Span, at: int, name: str, attributes: Attributes | None = None) -> None:
        """Notes what happened in a span, and when."""
        span.events.append(Span.Event(time_unix_nano=at, name=name, attributes=key_values(attributes or {})))

    def add(self, span: Span, attributes: Attributes) -> None:
        """Adds attributes that are known only later."""
        span.attributes.extend(key_values(attributes))

    def link(self, span: Span, to: Span | Context) -> None:
        """Links a span to one of another trace."""
        span.links.append(Span.Link(trace_id=to.trace_id, span_id=to.span_id, flags=REMOTE))


def key_values(attributes: Attributes) -> list[KeyValue]:
    """Attributes as on the wire."""
    return [KeyValue(key=key, value=_any_value(value)) for key, value in attributes.items()]


def _any_value(value: Attribute) -> AnyValue:
    if isinstance(value, bool):  # before int: True is one
        return AnyValue(bool_value=value)
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=item) for item in value]))
