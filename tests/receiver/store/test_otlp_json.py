"""OTLP JSON: what the Collector writes, what other writers send, what hostile ones send."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from receiver.store.otlp_json import Unreadable, as_json, read_request

TRACE = bytes(range(16))
SPAN = bytes(range(1, 9))


def document(**span: Any) -> dict[str, Any]:
    """A request with one span; `span` overrides its fields."""
    fields = {"traceId": TRACE.hex(), "spanId": SPAN.hex(), "name": "n", **span}
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": [fields]}]}]}


def only_span(request: ExportTraceServiceRequest) -> Span:
    return request.resource_spans[0].scope_spans[0].spans[0]


def test_ids_are_hex_and_numbers_may_be_strings_or_numbers() -> None:
    span = only_span(
        read_request(
            document(
                parentSpanId="00ff00ff00ff00ff",
                kind=2,
                startTimeUnixNano="1795344779882789055",
                endTimeUnixNano=17953447,
            )
        )
    )
    assert (span.trace_id, span.span_id, span.parent_span_id) == (TRACE, SPAN, bytes.fromhex("00ff00ff00ff00ff"))
    assert span.kind == Span.SPAN_KIND_SERVER
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (1795344779882789055, 17953447)


def test_base64_ids_and_enum_names_of_plain_proto3_json_are_taken() -> None:
    span = only_span(
        read_request(
            document(
                traceId=base64.b64encode(TRACE).decode(),
                spanId=base64.b64encode(SPAN).decode(),
                kind="SPAN_KIND_CLIENT",
                status={"code": "STATUS_CODE_ERROR", "message": "m"},
            )
        )
    )
    assert (span.trace_id, span.span_id, span.kind) == (TRACE, SPAN, Span.SPAN_KIND_CLIENT)
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "m")


def test_unknown_fields_and_nulls_are_ignored() -> None:
    span = only_span(read_request(document(future={"a": [1]}, attributes=None, status={"deep": {"er": 1}})))
    assert span.name == "n"
    assert not span.attributes


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ([], "not a JSON object"),
        ({}, "no resourceSpans"),
        ({"resourceSpans": {}}, "a list belongs"),
        ({"resourceSpans": [7]}, "ResourceSpans belongs"),
        (document(traceId="abcd"), "32 hex digits"),
        (document(traceId="z" * 32), "32 hex digits"),
        (document(spanId=5), "not a string"),
        (document(kind="SPAN_KIND_NONE"), "SpanKind belongs"),
        (document(startTimeUnixNano="9" * 30), "wrong value"),
        (document(startTimeUnixNano="9" * 5000), "whole number"),
        (document(startTimeUnixNano=-1), "wrong value"),
        (document(startTimeUnixNano=1.5), "whole number"),
        (document(startTimeUnixNano=10**400), "wrong value"),
        (document(name=5), "wrong value"),
        (document(attributes={"key": "k"}), "attributes belong"),
        (document(attributes=[{"key": "k", "value": {"stringValue": 5}}]), "wrong value"),
        (document(attributes=[{"key": "k", "value": {"bytesValue": "*"}}]), "base64"),
        (document(attributes=[{"key": "k", "value": {"doubleValue": []}}]), "number belongs"),
    ],
)
def test_what_is_not_otlp_is_said(broken: object, says: str) -> None:
    with pytest.raises(Unreadable, match=says) as problem:
        read_request(broken)
    assert len(str(problem.value)) < 250


@pytest.mark.parametrize("size", [0, 3, 8, 15, 16, 17, 32, 33, 200])
def test_a_link_keeps_an_id_of_any_length(size: int) -> None:
    """The protocol takes them, so a stored span may have one, and what is exported must come back. Ingest decides."""
    link = Span.Link(trace_id=bytes(range(size)), span_id=bytes(size))
    sent = Span(trace_id=TRACE, span_id=SPAN, links=[link])
    request = ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=[sent])])])
    assert read_request(json.loads(json.dumps(as_json(request)))) == request


def test_a_link_of_plain_proto3_json() -> None:
    ids = {"traceId": base64.b64encode(TRACE).decode(), "spanId": base64.b64encode(SPAN).decode()}
    link = only_span(read_request(document(links=[ids]))).links[0]
    assert (link.trace_id, link.span_id) == (TRACE, SPAN)


@pytest.mark.parametrize(
    "bad", [{"spanId": "short"}, {"name": 5}, {"startTimeUnixNano": -1}, {"links": [{"spanId": 5}]}]
)
def test_one_bad_span_leaves_the_others(bad: dict[str, Any]) -> None:
    whole = document(**bad)
    whole["resourceSpans"] += document(name="kept")["resourceSpans"]
    said: list[tuple[int, str]] = []
    request = read_request(whole, lambda count, problem: said.append((count, problem)))
    assert [len(resource.scope_spans[0].spans) for resource in request.resource_spans] == [0, 1]
    assert request.resource_spans[1].scope_spans[0].spans[0].name == "kept"
    assert [count for count, _ in said] == [1]
    with pytest.raises(Unreadable):
        read_request(whole)
    with pytest.raises(Unreadable):
        read_request(document(**bad), lambda count, problem: pytest.fail(problem))


def test_deep_nesting_is_refused_or_read_but_never_crashes() -> None:
    value: dict[str, Any] = {"stringValue": "x"}
    for _ in range(20_000):
        value = {"arrayValue": {"values": [value]}}
    with pytest.raises(Unreadable, match="nested"):
        read_request(document(attributes=[{"key": "k", "value": value}]))


values = st.recursive(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"])).map(lambda v: AnyValue(string_value=v)),
        st.integers(-(2**63), 2**63 - 1).map(lambda v: AnyValue(int_value=v)),
        st.booleans().map(lambda v: AnyValue(bool_value=v)),
        st.floats(allow_nan=False).map(lambda v: AnyValue(double_value=v)),
        st.binary().map(lambda v: AnyValue(bytes_value=v)),
        st.just(AnyValue()),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda v: AnyValue(array_value=ArrayValue(values=v))),
        st.lists(inner, max_size=3).map(
            lambda v: AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="", value=i) for i in v]))
        ),
    ),
    max_leaves=8,
)
attributes = st.lists(
    st.builds(KeyValue, key=st.text(st.characters(exclude_categories=["Cs"])), value=values), max_size=4
)
nanoseconds = st.integers(0, 2**64 - 1)
spans = st.builds(
    Span,
    trace_id=st.binary(min_size=16, max_size=16),
    span_id=st.binary(min_size=8, max_size=8),
    parent_span_id=st.one_of(st.just(b""), st.binary(min_size=8, max_size=8)),
    name=st.text(st.characters(exclude_categories=["Cs"])),
    kind=st.integers(0, 5),
    start_time_unix_nano=nanoseconds,
    end_time_unix_nano=nanoseconds,
    attributes=attributes,
    events=st.lists(
        st.builds(Span.Event, name=st.text("abc"), time_unix_nano=nanoseconds, attributes=attributes), max_size=2
    ),
    links=st.lists(
        st.builds(Span.Link, trace_id=st.binary(min_size=16, max_size=16), span_id=st.binary(min_size=8, max_size=8)),
        max_size=2,
    ),
    status=st.builds(Status, code=st.integers(0, 2), message=st.text("abc")),
    flags=st.integers(0, 2**32 - 1),
    dropped_attributes_count=st.integers(0, 2**32 - 1),
)
requests = st.builds(
    lambda r, s: ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=Resource(attributes=r), scope_spans=[ScopeSpans(spans=s)])]
    ),
    attributes,
    st.lists(spans, max_size=3),
)


@given(requests)
@settings(max_examples=150, deadline=None)
def test_what_is_written_reads_back_the_same(request: ExportTraceServiceRequest) -> None:
    text = json.dumps(as_json(request))
    if "resourceSpans" in text:
        assert read_request(json.loads(text)) == request


@given(requests)
@settings(max_examples=50, deadline=None)
def test_it_is_proto3_json_but_for_ids_and_enums(request: ExportTraceServiceRequest) -> None:
    def plain(message: Any) -> Any:
        found = json_format.MessageToDict(message, use_integers_for_enums=True)
        for resource in found.get("resourceSpans", ()):
            for scope in resource["scopeSpans"]:
                for span in scope.get("spans", ()):
                    for part in (span, *span.get("links", ())):
                        for name in ("traceId", "spanId", "parentSpanId"):
                            if name in part:
                                part[name] = base64.b64decode(part[name]).hex()
        return found

    assert as_json(request) == plain(request)


def test_numbers_that_json_cannot_write() -> None:
    for number in (math.inf, -math.inf, math.nan):
        request = read_request(document(attributes=[{"key": "k", "value": {"doubleValue": str(number)}}]))
        written = json.dumps(as_json(request), allow_nan=False)
        again = only_span(read_request(json.loads(written))).attributes[0].value.double_value
        assert again == number or (math.isnan(again) and math.isnan(number))
