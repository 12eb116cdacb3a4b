"""Whatever ingest accepts comes back: exported to a file and imported again, each span is the same."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from receiver.ingest.decode import Decoded, Malformed, decode
from receiver.ingest.recordings import take
from receiver.store import files
from receiver.store.database import Database, decompress
from receiver.store.otlp_json import read_request
from tests.receiver.ingest.test_decode import built, groups

TRACE, SPAN = bytes(range(16)), bytes(range(1, 9))


def accepted(sent: ExportTraceServiceRequest) -> Decoded:
    return decode(sent.SerializeToString(), source="", peer="", received=1)


def again(bodies: list[bytes], suffix: str = ".jsonl") -> tuple[list[ExportTraceServiceRequest], list[str]]:
    """These requests after an export and an import, and what was said about them."""
    said: list[str] = []
    database = Database.memory()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{suffix}"
        assert files.write(path, bodies) == len(bodies)
        taken = take(path, database, said.append, arrived_now=True)
    assert taken.requests == len(bodies)
    held = database.whole_bodies(database.ids(), lambda chunk: pytest.fail("damaged"))
    return [ExportTraceServiceRequest.FromString(held[chunk]) for chunk in sorted(held)], said


def same(decoded: Decoded) -> None:
    assert decoded.chunk is not None
    body = decompress(decoded.chunk.body)
    back, said = again([body])
    assert said == []
    assert [one.SerializeToString(deterministic=True) for one in back] == [
        ExportTraceServiceRequest.FromString(body).SerializeToString(deterministic=True)
    ]


@given(groups)
@settings(deadline=None, max_examples=60)
def test_whatever_is_accepted_comes_back(told: Any) -> None:
    decoded = accepted(built(told))
    if decoded.chunk is not None:
        same(decoded)


ids = st.binary(max_size=40)
links = st.lists(
    st.builds(
        Span.Link,
        trace_id=ids | st.just(TRACE) | st.just(bytes(16)),
        span_id=ids | st.just(SPAN) | st.just(bytes(8)),
        trace_state=st.text(max_size=5),
        flags=st.integers(0, (1 << 32) - 1),
        dropped_attributes_count=st.integers(0, (1 << 32) - 1),
    ),
    max_size=4,
)


@given(
    links,
    st.sampled_from([b"", SPAN, bytes(8)]),
    st.text(max_size=20),
    st.integers(0, (1 << 32) - 1),
    st.integers(-(1 << 31), (1 << 31) - 1),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, (1 << 32) - 1),
)
@settings(deadline=None, max_examples=100)
def test_whatever_links_and_numbers_a_span_has_it_comes_back(
    sent: list[Span.Link], parent: bytes, state: str, flags: int, kind: int, time: int, dropped: int
) -> None:
    span = Span(
        trace_id=TRACE,
        span_id=SPAN,
        parent_span_id=parent,
        trace_state=state,
        flags=flags,
        kind=kind,  # type: ignore[arg-type]
        start_time_unix_nano=time,
        links=sent,
        dropped_links_count=dropped,
    )
    decoded = accepted(request_of(span))
    good = [one for one in sent if len(one.trace_id) in (0, 16) and len(one.span_id) in (0, 8)]
    assert decoded.chunk is not None, "a link is no reason to lose a span"
    assert (decoded.rejected, decoded.bad_links) == (0, len(sent) - len(good))
    kept = only_span(ExportTraceServiceRequest.FromString(decompress(decoded.chunk.body)))
    assert list(kept.links) == good
    assert kept.dropped_links_count == min(dropped + len(sent) - len(good), (1 << 32) - 1)
    same(decoded)


def request_of(*spans: Span) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])])


def only_span(request: ExportTraceServiceRequest) -> Span:
    return request.resource_spans[0].scope_spans[0].spans[0]


@pytest.mark.parametrize("bad", ["zz", "a", "ab" * 33, "\u0660" * 32, "x" * 100_000])
def test_a_link_that_leads_to_no_id_is_no_reason_to_lose_the_span(bad: str) -> None:
    good = {"traceId": TRACE.hex(), "spanId": SPAN.hex()}
    for ids in ({"traceId": bad}, {"spanId": bad}):
        span = {**good, "links": [{**good, **ids}, {"traceId": TRACE.hex()}]}
        request = read_request({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})
        decoded = accepted(request)
        assert decoded.chunk is not None
        assert (decoded.rejected, decoded.bad_links) == (0, 1)
        assert "1 links with trace or span ids of the wrong length" in decoded.reason
        kept = only_span(ExportTraceServiceRequest.FromString(decompress(decoded.chunk.body)))
        assert [link.trace_id for link in kept.links] == [TRACE]
        assert kept.dropped_links_count == 1


def test_an_import_says_that_links_are_left_out(tmp_path: Path) -> None:
    good = {"traceId": TRACE.hex(), "spanId": SPAN.hex()}
    document = {"resourceSpans": [{"scopeSpans": [{"spans": [{**good, "links": [{**good, "spanId": "ab"}]}]}]}]}
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(document))
    said: list[str] = []
    taken = take(path, Database.memory(), said.append, arrived_now=True)
    assert (taken.spans, taken.rejected, taken.bad) == (1, 0, 0)
    assert said == [f"{path}: Left out 1 links with trace or span ids of the wrong length."]


def test_bad_links_of_many_spans_in_many_groups_go_and_no_other_byte_does() -> None:
    def span(number: int, *links: Span.Link) -> Span:
        return Span(trace_id=TRACE, span_id=bytes([number]) * 8, name=f"span {number}", links=links)

    good, bad = Span.Link(trace_id=TRACE, span_id=SPAN), Span.Link(trace_id=TRACE, span_id=b"short")
    sent = ExportTraceServiceRequest()
    wanted = ExportTraceServiceRequest()
    for number in range(1, 8):
        for one, kept in ((sent, [good, bad, bad]), (wanted, [good])):
            scope = one.resource_spans.add().scope_spans.add()
            scope.spans.append(span(number))
            scope.spans.append(span(number + 20, *(kept if number % 2 else [good])))
            scope.spans.append(Span(trace_id=TRACE, span_id=b"none", links=kept) if number == 3 else span(number + 40))
    for group in wanted.resource_spans:
        for one in group.scope_spans[0].spans:
            if one.name and one.links and sent and int(one.name[5:]) % 2:
                one.dropped_links_count = 2
    del wanted.resource_spans[2].scope_spans[0].spans[2]
    decoded = accepted(sent)
    assert decoded.chunk is not None
    assert (decoded.rejected, decoded.bad_links) == (1, 8)
    assert "Rejected 1 spans" in decoded.reason
    assert "Left out 8 links" in decoded.reason
    assert ExportTraceServiceRequest.FromString(decompress(decoded.chunk.body)) == wanted


def nested(depth: int, way: str) -> ExportTraceServiceRequest:
    value = AnyValue(string_value="x")
    for level in range(depth):
        if way == "list" or (way == "both" and level % 2):
            value = AnyValue(array_value=ArrayValue(values=[value]))
        else:
            value = AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="k", value=value)]))
    pair = KeyValue(key="k", value=value)
    return request_of(Span(trace_id=TRACE, span_id=SPAN, attributes=[pair], events=[Span.Event(attributes=[pair])]))


def is_accepted(depth: int, way: str) -> bool:
    try:
        return not accepted(nested(depth, way)).rejected
    except (Malformed, DecodeError):
        return False


@pytest.mark.parametrize("way", ["list", "map", "both"])
def test_the_deepest_value_that_is_accepted_comes_back(way: str) -> None:
    deepest = next(depth for depth in range(1, 200) if not is_accepted(depth + 1, way))
    assert deepest > 20
    same(accepted(nested(deepest, way)))
