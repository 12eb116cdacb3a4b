"""The requests of a recording, whatever it is packed in and laid out as: OTLP in JSON or as messages, Tempo's answers,
Jaeger's and Zipkin's JSON, a log that holds any of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from receiver.recordings import jaeger, zipkin
from receiver.recordings.complaints import Complaint
from receiver.recordings.documents import Documents
from receiver.recordings.unpacked import MAX_LINE, Binary, Line, name_of, parts
from receiver.store.otlp_json import RESOURCE_SPANS, SCOPE_SPANS, Unreadable, read_request

_DEPTH: Final = 4
"""Lists and envelopes within each other; a log's line within a log's line is one."""
_OTHER_SIGNALS: Final = {
    "resourceMetrics": "metrics", "resource_metrics": "metrics", "resourceLogs": "logs", "resource_logs": "logs",
    "resourceProfiles": "profiles", "resource_profiles": "profiles",
}  # fmt: skip
_LeftOut = Callable[[int, str], None]


class OtherSignals(Unreadable):
    """A document of OTLP without spans, as a Collector's file may have many of."""


def read(
    path: Path | None,
    bad: Callable[[str], None],
    max_line: int = MAX_LINE,
    left_out: _LeftOut | None = None,
) -> Iterator[bytes]:
    """The serialised requests of a recording, in its order. It is read piece by piece, so its size does not matter.

    What is no request is reported to `bad` as a `Complaint`, and the rest is read. `left_out` takes how many spans of a
    line cannot be read, and the complaint; without it the line is bad. A request may still be
    one that `decode` refuses: this is the format, not what it says.

    Args:
        path: None reads standard input.

    Raises:
        FileProblem: the file cannot be opened or read, or is something else altogether.
    """
    name = name_of(path)
    place = ""

    def wrong(what: str, clause: str) -> None:
        bad(Complaint.of(name, what, clause))

    def without(count: int, clause: str) -> None:
        assert left_out is not None
        left_out(count, Complaint.of(name, place, clause, count))

    documents = Documents(lambda number, clause: wrong(f"line {number}", clause), max_line)
    for found, document in _found(parts(path, bad, max_line), documents):
        place = found
        try:
            if isinstance(document, bytes):
                yield from _message(document)
            else:
                for request in requests(document, None if left_out is None else without):
                    yield request.SerializeToString()
        except OtherSignals as problem:
            bad(Complaint.of(name, place, str(problem), harmless=True))
        except Unreadable as problem:
            wrong(place, str(problem))
        except RecursionError:
            wrong(place, "is nested too deeply")


def _found(found: Iterator[Line | Binary], documents: Documents) -> Iterator[tuple[str, object]]:
    """Documents and messages, each with where it is."""
    binary: list[Binary] = []

    def lines() -> Iterator[Line]:
        for part in found:
            if isinstance(part, Line):
                yield part
            else:
                binary.append(part)
                return

    while True:
        for number, document in documents.read(lines()):
            yield f"line {number}", document
        if not binary:
            return
        part = binary.pop()
        yield part.place, part.data


def _message(data: bytes) -> Iterator[bytes]:
    """A serialised request.

    Raises:
        Unreadable: it is none.
    """
    try:
        ExportTraceServiceRequest.FromString(data)
        yield data
        return
    except DecodeError:
        pass
    raise Unreadable("is neither text nor a message of OTLP")


def requests(document: object, left_out: _LeftOut | None, depth: int = _DEPTH) -> Iterator[ExportTraceServiceRequest]:
    """What a JSON value holds.

    Raises:
        Unreadable: it is nothing that is read; str() says what it is, and the way out where there is one.
    """
    if depth < 0:
        raise Unreadable("is nested too deeply")
    if isinstance(document, list):
        yield from _list(document, left_out, depth)
        return
    if not isinstance(document, dict):
        raise Unreadable("is not a JSON object")
    if any(name in document for name in RESOURCE_SPANS):
        yield read_request(document, left_out)
    elif any(name in document for name in SCOPE_SPANS):  # a ResourceSpans by itself, as SDKs log it
        yield read_request({"resourceSpans": [document]}, left_out)
    elif isinstance(document.get("batches"), list):  # Tempo's /api/traces/ID
        yield read_request({"resourceSpans": document["batches"]}, left_out)
    elif jaeger.is_trace(document):
        yield from _strictly(jaeger.read, document, left_out)
    elif zipkin.is_span(document):
        yield from _strictly(zipkin.read, [document], left_out)
    elif (inner := _inner(document)) is not None:
        yield from requests(inner, left_out, depth - 1)
    elif signals := [signal for name, signal in _OTHER_SIGNALS.items() if name in document]:
        raise OtherSignals(f"holds {signals[0]}, not spans")
    else:
        raise Unreadable(_what_it_is(document))


def _list(items: list[Any], left_out: _LeftOut | None, depth: int) -> Iterator[ExportTraceServiceRequest]:
    if items and all(map(zipkin.is_span, items)):
        yield from _strictly(zipkin.read, items, left_out)
        return
    problem: Unreadable | None = None
    for item in items:
        try:
            yield from requests(item, left_out, depth - 1)
        except Unreadable as found:
            if left_out is None:
                raise
            problem = problem or found
    if problem is not None:
        raise problem


def _strictly(
    read_spans: Callable[[Any, _LeftOut], Iterator[ExportTraceServiceRequest]], document: Any, left_out: _LeftOut | None
) -> Iterator[ExportTraceServiceRequest]:
    """What can be read; without `left_out` all of it or nothing. When nothing of it can, it is no request."""
    bad: list[tuple[int, str]] = []
    found = list(read_spans(document, lambda count, clause: bad.append((count, clause))))
    if bad and (left_out is None or not found):
        raise Unreadable(bad[0][1])
    for count, clause in bad:
        assert left_out is not None
        left_out(count, clause)
    yield from found


def _inner(document: dict[str, Any]) -> object:
    """What an envelope holds, None where it is none."""
    for name in ("trace", "result"):  # Tempo's /api/v2/traces/ID, Jaeger's /api/v3
        if isinstance(document.get(name), dict):
            return document[name]
    data = document.get("data")
    if isinstance(data, list) and data:  # Jaeger's /api/traces
        return data
    if isinstance(document.get("log"), str) and "stream" in document:  # Docker's json-file
        try:
            return json.loads(document["log"])
        except (ValueError, RecursionError):
            raise Unreadable("is a line of a log that holds no spans") from None
    return None


def _what_it_is(document: dict[str, Any]) -> str:
    if "SpanContext" in document and "SpanKind" in document:
        return "is what Go's stdouttrace prints, which is not read: export OTLP, or let a Collector write its file"
    if isinstance(document.get("traces"), list) and _any(document["traces"], "rootTraceName"):
        return "is a list of what Tempo found, without spans: ask for each trace (GET /api/traces/ID)"
    if "data" in document and _any(document.get("errors"), "msg"):
        said = " ".join(str(document["errors"][0]["msg"]).split())[:80]
        return f"is an error that Jaeger answered ({said})"
    if "traceEvents" in document:
        return "is a profile in Chrome's trace format, not spans of a trace"
    if "traceId" in document and "binaryAnnotations" in document:
        return "is Zipkin's version 1, which is not read: ask for /api/v2/trace/ID"
    return "has no resourceSpans"


def _any(items: object, key: str) -> bool:
    return isinstance(items, Iterable) and any(isinstance(item, dict) and key in item for item in items)
