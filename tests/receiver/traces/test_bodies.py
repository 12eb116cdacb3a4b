"""Attributes, events and links of spans, decoded when they are looked at."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from receiver.store.database import Database, compress
from receiver.store.index import Index
from receiver.store.otlp_json import read_request
from receiver.traces.bodies import MAX_DEPTH, MAX_ENTRIES, MAX_VALUE, Bodies
from receiver.traces.model import Body, Span, Trace
from receiver.traces.reader import load
from receiver.traces.tree import walk
from tests.receiver.traces.shapes import T0, chunks_of

LATER = T0 + 60_000_000_000


class Store:
    """A database with requests in it, and the traces that they are."""

    def __init__(self, requests: list[bytes]) -> None:
        self.database = Database.memory()
        chunks = chunks_of(requests)
        for chunk, number in zip(chunks, self.database.append(chunks), strict=True):
            chunk.id = number
        self.index = Index()
        self.index.extend(self.database.read_after(0))
        self.bodies = Bodies(self.database)

    def trace(self, slot: int = 0) -> Trace:
        trace = load(self.index, self.index.trace_id(slot), LATER, 1_000_000)
        assert trace is not None
        return trace

    def spans(self) -> list[Span]:
        return [node.span for slot in range(self.index.traces) for node in walk(self.trace(slot))]

    def body(self, slot: int = 0) -> Body:
        body = self.bodies.body(next(walk(self.trace(slot))).span)
        assert body is not None
        return body


def request(**fields: Any) -> ExportTraceServiceRequest:
    """A request of one span."""
    made = ExportTraceServiceRequest()
    group = made.resource_spans.add()
    span = group.scope_spans.add().spans.add(trace_id=b"\1" * 16, span_id=b"\2" * 8, name="s", **fields)
    span.start_time_unix_nano = T0
    return made


def test_everything_that_otlp_can_say_of_a_span() -> None:
    document = {
        "resourceSpans": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "app"}}]},
                "scopeSpans": [
                    {
                        "scope": {"name": "lib", "version": "1.2"},
                        "spans": [
                            {
                                "traceId": "01" * 16,
                                "spanId": "02" * 8,
                                "traceState": "a=b",
                                "name": "s",
                                "kind": 2,
                                "startTimeUnixNano": str(T0),
                                "endTimeUnixNano": str(T0 + 5),
                                "attributes": [
                                    {"key": "text", "value": {"stringValue": "x\u001b[31m"}},
                                    {"key": "whole", "value": {"intValue": "-5"}},
                                    {"key": "real", "value": {"doubleValue": 0.5}},
                                    {"key": "flag", "value": {"boolValue": False}},
                                    {"key": "bytes", "value": {"bytesValue": "AAE="}},
                                    {"key": "list", "value": {"arrayValue": {"values": [{"intValue": "1"}, {}]}}},
                                    {
                                        "key": "map",
                                        "value": {
                                            "kvlistValue": {"values": [{"key": "k", "value": {"intValue": "1"}}]}
                                        },
                                    },
                                    {"key": "none", "value": {}},
                                ],
                                "droppedAttributesCount": 1,
                                "events": [
                                    {
                                        "timeUnixNano": str(T0 + 2),
                                        "name": "e",
                                        "attributes": [{"key": "n", "value": {"intValue": "7"}}],
                                    }
                                ],
                                "droppedEventsCount": 2,
                                "links": [{"traceId": "03" * 16, "spanId": "04" * 8, "flags": 257}],
                                "droppedLinksCount": 3,
                                "status": {"message": "no", "code": 2},
                                "flags": 257,
                            }
                        ],
                        "schemaUrl": "https://example.com/scope",
                    }
                ],
                "schemaUrl": "https://example.com/resource",
            }
        ]
    }
    store = Store([read_request(document).SerializeToString()])
    body = store.body()
    assert body.attributes == {
        "text": "x\x1b[31m",
        "whole": -5,
        "real": 0.5,
        "flag": False,
        "bytes": b"\0\1",
        "list": [1, None],
        "map": {"k": 1},
        "none": None,
    }
    assert [(e.time, e.name, e.attributes) for e in body.events] == [(T0 + 2, "e", {"n": 7})]
    assert [(link.trace_id, link.span_id) for link in body.links] == [("03" * 16, "04" * 8)]
    assert (body.status_message, body.trace_state, body.flags, body.dropped) == ("no", "a=b", 257, (1, 2, 3))
    assert (body.resource, body.scope_name, body.scope_version) == ({"service.name": "app"}, "lib", "1.2")
    assert store.bodies.raw(store.spans()) == document


@pytest.mark.parametrize(
    "name", ["create-pod-webhooks.otlp.jsonl", "forced-at-rate-zero.otlp.jsonl", "incident-2.otlp.jsonl.gz"]
)
def test_raw_is_what_was_recorded(recordings: Path, name: str) -> None:
    content = (recordings / name).read_bytes()
    lines = (gzip.decompress(content) if name.endswith(".gz") else content).splitlines()
    documents = [json.loads(line) for line in lines]
    store = Store([read_request(document).SerializeToString() for document in documents])
    recorded = {
        (span["traceId"], span["spanId"]): (resource["resource"], scope["scope"], span)
        for document in documents
        for resource in document["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    }
    spans = store.spans()
    assert len(spans) == len(recorded)
    for span in spans:
        resource, scope, expected = recorded[span.trace_id, span.span_id]
        (group,) = store.bodies.raw([span])["resourceSpans"]
        assert group == {"resource": resource, "scopeSpans": [{"scope": scope, "spans": [expected]}]}
    whole = store.bodies.raw(spans)
    assert sum(len(scope["spans"]) for group in whole["resourceSpans"] for scope in group["scopeSpans"]) == len(spans)
    assert len(whole["resourceSpans"]) == len({json.dumps(resource) for resource, _, _ in recorded.values()})
    again = Store([read_request(whole).SerializeToString()])
    assert sorted(s.span_id for s in again.spans()) == sorted(s.span_id for s in spans)


def test_evicted_spans_have_no_body() -> None:
    store = Store([request().SerializeToString()])
    span = next(walk(store.trace())).span
    store.database.replace(store.database.ids(), [])
    assert store.bodies.body(span) is None
    assert store.bodies.bodies([span, span]) == [None, None]
    assert store.bodies.raw([span]) == {"resourceSpans": []}


def test_a_span_that_its_request_does_not_hold_has_no_body() -> None:
    store = Store([request().SerializeToString()])
    span = next(walk(store.trace())).span
    assert store.bodies.body(replace(span, row=7)) is None
    assert store.bodies.body(replace(span, chunk=99)) is None


def test_values_are_bounded_in_length_and_depth() -> None:
    made = request()
    span = made.resource_spans[0].scope_spans[0].spans[0]
    span.attributes.add(key="long").value.string_value = "x" * 1_000_000
    span.attributes.add(key="bytes").value.bytes_value = b"x" * 1_000_000
    deep: AnyValue = span.attributes.add(key="deep").value
    for _ in range(40):
        deep = deep.array_value.values.add()
    wide = span.attributes.add(key="wide").value.array_value
    for _ in range(MAX_VALUE):
        wide.values.add().string_value = "xx"
    named = span.attributes.add(key="named").value.kvlist_value
    for number in range(MAX_VALUE):
        named.values.add(key=f"key {number}").value.int_value = number
    body = Store([made.SerializeToString()]).body()
    attributes = body.attributes
    assert body.left_out == (0, 0, 0, 5)
    assert attributes["long"] == "x" * MAX_VALUE + "…"
    assert attributes["bytes"] == b"x" * MAX_VALUE
    depth, inner = 0, attributes["deep"]
    while isinstance(inner, list):
        depth, inner = depth + 1, inner[0]
    assert (depth, inner) == (MAX_DEPTH - 1, "…")
    assert isinstance(attributes["wide"], list)
    assert len(attributes["wide"]) < MAX_VALUE // 2
    assert attributes["wide"][-1] == "…"
    assert isinstance(attributes["named"], dict)
    assert len(attributes["named"]) < MAX_VALUE // 8


def test_a_hundred_thousand_events_are_counted_and_not_all_decoded() -> None:
    made = request()
    span = made.resource_spans[0].scope_spans[0].spans[0]
    for number in range(100_000):
        span.events.add(name="message", time_unix_nano=T0 + number)
    span.dropped_events_count = 5
    body = Store([made.SerializeToString()]).body()
    assert len(body.events) == MAX_ENTRIES
    assert body.dropped == (0, 100_005 - MAX_ENTRIES, 0)
    assert body.left_out == (0, 100_000 - MAX_ENTRIES, 0, 0)


def test_a_request_that_was_stored_and_cannot_be_parsed_shows_no_body() -> None:
    store = Store([request().SerializeToString()])
    chunk = chunks_of([request().SerializeToString()])[0]
    chunk.body = compress(b"\xff\xff\xff")
    (number,) = store.database.append([chunk])
    span = replace(next(walk(store.trace())).span, chunk=number)
    assert store.bodies.body(span) is None
    assert store.bodies.raw([span]) == {"resourceSpans": []}


def test_what_is_kept_is_bounded_by_bytes() -> None:
    made = request()
    made.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="a").value.string_value = "x" * 100_000
    requests = []
    for number in range(20):
        made.resource_spans[0].scope_spans[0].spans[0].span_id = bytes([0] * 7 + [number + 1])
        requests.append(made.SerializeToString())
    store = Store(requests)
    store.bodies = Bodies(store.database, cache=250_000)
    spans = store.spans()
    assert [body is not None for body in store.bodies.bodies(spans)] == [True] * 20
    assert len(store.bodies._outlines) == 2
    last = list(store.bodies._outlines)
    store.database.replace(store.database.ids(), [])
    held = [store.bodies.body(span) is not None for span in spans]
    assert held == [span.chunk in last for span in spans]
