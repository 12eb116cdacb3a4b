"""Jaeger's JSON, as its UI downloads it and its query service answers (/api/traces): model/json/model.go of Jaeger.

What becomes of tags follows the OpenTelemetry specification's "Jaeger" transformation, backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from receiver.recordings.foreign import BROKEN, attribute, clause, hex_id, nanoseconds, of_status

_KINDS: Final = {
    "internal": Span.SPAN_KIND_INTERNAL,
    "server": Span.SPAN_KIND_SERVER,
    "client": Span.SPAN_KIND_CLIENT,
    "producer": Span.SPAN_KIND_PRODUCER,
    "consumer": Span.SPAN_KIND_CONSUMER,
}
_SCOPE_NAMES: Final = ("otel.scope.name", "otel.library.name")
_SCOPE_VERSIONS: Final = ("otel.scope.version", "otel.library.version")


def is_trace(document: object) -> bool:
    """Whether it is one trace."""
    return isinstance(document, dict) and "processes" in document and isinstance(document.get("spans"), list)


def read(trace: dict[str, Any], left_out: Callable[[int, str], None]) -> Iterator[ExportTraceServiceRequest]:
    """A trace's spans, if there are any; `left_out` takes how many cannot be read, and what is wrong with the first."""
    request = ExportTraceServiceRequest()
    by_process: dict[str, ResourceSpans] = {}
    scopes: dict[tuple[str, str, str], Any] = {}
    processes = trace["processes"] if isinstance(trace["processes"], dict) else {}
    bad, first = 0, ""
    for document in trace["spans"]:
        try:
            span, scope, version = _span(document)
        except BROKEN as problem:
            bad, first = bad + 1, first or clause(problem)
            continue
        named = document.get("processID")
        process = document.get("process") or (processes.get(named) if isinstance(named, str) else None) or {}
        key = str(named or process)
        resource = by_process.get(key)
        if resource is None:
            resource = by_process[key] = request.resource_spans.add()
            resource.resource.attributes.extend(_process(process))
        group = scopes.get((key, scope, version))
        if group is None:
            group = scopes[key, scope, version] = resource.scope_spans.add()
            group.scope.name, group.scope.version = scope, version
        group.spans.append(span)
    if bad:
        left_out(bad, f"has spans that are not Jaeger's ({first})")
    if request.resource_spans:
        yield request


def _process(process: Any) -> Iterator[KeyValue]:
    if not isinstance(process, dict):
        return
    if isinstance(process.get("serviceName"), str):
        yield attribute("service.name", process["serviceName"])
    tags = process.get("tags")
    for tag in tags if isinstance(tags, list) else ():
        pair = _tag(tag)
        if pair is not None and pair.key != "service.name":
            yield pair


def _span(document: Any) -> tuple[Span, str, str]:
    """A span, and its scope's name and version."""
    start, duration = document["startTime"], document.get("duration") or 0
    span = Span(
        trace_id=hex_id(document["traceID"], 16),
        span_id=hex_id(document["spanID"], 8),
        name=document.get("operationName") or "",
        start_time_unix_nano=nanoseconds(start),
        end_time_unix_nano=nanoseconds(int(start) + int(duration)),
    )
    if document.get("parentSpanID"):  # before references
        span.parent_span_id = hex_id(document["parentSpanID"], 8)
    for reference in document.get("references") or ():
        trace, parent = hex_id(reference["traceID"], 16), hex_id(reference["spanID"], 8)
        if reference.get("refType") == "CHILD_OF" and trace == span.trace_id and not span.parent_span_id:
            span.parent_span_id = parent
        else:
            span.links.add(trace_id=trace, span_id=parent)
    scope = version = ""
    for tag in document.get("tags") or ():
        pair = _tag(tag)
        if pair is None:
            continue
        said = pair.value.string_value
        if pair.key == "span.kind" and said in _KINDS:
            span.kind = _KINDS[said]
        elif pair.key in _SCOPE_NAMES:
            scope = said
        elif pair.key in _SCOPE_VERSIONS:
            version = said
        elif not of_status(span, pair):
            span.attributes.append(pair)
    for log in document.get("logs") or ():
        event = span.events.add(time_unix_nano=nanoseconds(log["timestamp"]))
        for field in log.get("fields") or ():
            pair = _tag(field)
            if pair is None:
                continue
            if pair.key == "event" and not event.name:
                event.name = pair.value.string_value
            else:
                event.attributes.append(pair)
    return span, scope, version


def _tag(tag: Any) -> KeyValue | None:
    """An attribute of a typed tag, None for what is none."""
    if not isinstance(tag, dict) or not isinstance(tag.get("key"), str):
        return None
    value, kind = tag.get("value"), tag.get("type")
    if kind == "bool" and isinstance(value, str):
        value = value.lower() == "true"
    elif kind in ("int64", "float64") and isinstance(value, str) and len(value) < 40:
        value = int(value) if kind == "int64" else float(value)
    return attribute(tag["key"], value)
