"""Zipkin's JSON, version 2 (zipkin2-api.yaml): lists of spans, as `/api/v2/trace/ID` answers and its UI downloads them.

What becomes of tags follows the OpenTelemetry specification's "Zipkin" transformation, backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from receiver.recordings.foreign import BROKEN, attribute, clause, hex_id, nanoseconds, of_status

_KINDS: Final = {
    "SERVER": Span.SPAN_KIND_SERVER,
    "CLIENT": Span.SPAN_KIND_CLIENT,
    "PRODUCER": Span.SPAN_KIND_PRODUCER,
    "CONSUMER": Span.SPAN_KIND_CONSUMER,
}
_ENDPOINTS: Final = (
    ("serviceName", "peer.service"),
    ("ipv4", "network.peer.address"),
    ("ipv6", "network.peer.address"),
    ("port", "network.peer.port"),
)


def is_span(document: object) -> bool:
    """Whether it is one span."""
    return isinstance(document, dict) and "traceId" in document and "id" in document and "spanId" not in document


def read(
    documents: Iterable[dict[str, Any]], left_out: Callable[[int, str], None]
) -> Iterator[ExportTraceServiceRequest]:
    """The spans of a list, if there are any; `left_out` takes how many cannot be read, and what is wrong with the
    first."""
    request = ExportTraceServiceRequest()
    groups: dict[tuple[str, str, str], Any] = {}
    bad, first = 0, ""
    for document in documents:
        try:
            span, service, scope, version = _span(document)
        except BROKEN as problem:
            bad, first = bad + 1, first or clause(problem)
            continue
        group = groups.get((service, scope, version))
        if group is None:
            resource = request.resource_spans.add()
            if service:
                resource.resource.attributes.append(attribute("service.name", service))
            group = groups[service, scope, version] = resource.scope_spans.add()
            group.scope.name, group.scope.version = scope, version
        group.spans.append(span)
    if bad:
        left_out(bad, f"has spans that are not Zipkin's ({first})")
    if request.resource_spans:
        yield request


def _span(document: Any) -> tuple[Span, str, str, str]:
    """A span, its service, and its scope's name and version."""
    start, duration = document.get("timestamp") or 0, document.get("duration") or 0
    span = Span(
        trace_id=hex_id(document["traceId"], 16),
        span_id=hex_id(document["id"], 8),
        name=document.get("name") or "",
        kind=_KINDS.get(document.get("kind") or "", Span.SPAN_KIND_INTERNAL),
        start_time_unix_nano=nanoseconds(start),
        end_time_unix_nano=nanoseconds(int(start) + int(duration)),
    )
    if document.get("parentId"):
        span.parent_span_id = hex_id(document["parentId"], 8)
    scope = version = ""
    for key, value in (document.get("tags") or {}).items():
        pair = attribute(key, value)
        if key in ("otel.scope.name", "otel.library.name"):
            scope = pair.value.string_value
        elif key in ("otel.scope.version", "otel.library.version"):
            version = pair.value.string_value
        elif key == "error" and pair.value.string_value.lower() not in ("", "true", "false"):
            span.status.code = Status.STATUS_CODE_ERROR
            span.status.message = span.status.message or pair.value.string_value
        elif not of_status(span, pair):
            span.attributes.append(pair)
    remote = document.get("remoteEndpoint") or {}
    for name, key in _ENDPOINTS:
        if remote.get(name):
            span.attributes.append(attribute(key, remote[name]))
    for annotation in document.get("annotations") or ():
        span.events.add(time_unix_nano=nanoseconds(annotation["timestamp"]), name=str(annotation.get("value") or ""))
    service = (document.get("localEndpoint") or {}).get("serviceName") or ""
    return span, service, scope, version
