"""Recordings as people have them: every layout, packing and format, what is damaged, and what is said of the rest."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from receiver.recordings import unpacked
from receiver.recordings.complaints import Complaint, Complaints
from receiver.recordings.reading import read
from receiver.store.database import StoreError
from receiver.store.otlp_json import read_request

TRACE, PARENT, CHILD = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"


def document(name: str) -> dict[str, Any]:
    span = {"traceId": TRACE, "spanId": PARENT, "name": name}
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


def line(name: str) -> str:
    return json.dumps(document(name), separators=(",", ":"))


def spans(bodies: Sequence[bytes]) -> list[Span]:
    requests = map(ExportTraceServiceRequest.FromString, bodies)
    return [
        span
        for request in requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def names(path: Path, said: list[str], max_line: int = unpacked.MAX_LINE) -> list[str]:
    return [span.name for span in spans(list(read(path, said.append, max_line)))]


@pytest.fixture
def said() -> list[str]:
    return []


# --- layouts ---------------------------------------------------------------------------------------
ONE, TWO = line("one"), line("two")
RESOURCES = [document(name)["resourceSpans"][0] for name in ("one", "two")]
PRETTY = json.dumps(document("one"), indent=2)
LAYOUTS: dict[str, bytes] = {
    "lines": f"{ONE}\n{TWO}\n".encode(),
    "no end": f"{ONE}\n{TWO}".encode(),
    "CRLF": f"{ONE}\r\n{TWO}\r\n".encode(),
    "CR": f"{ONE}\r{TWO}\r".encode(),
    "blank lines": f"\n\n{ONE}\n \n\t{TWO}\n\n".encode(),
    "a mark": b"\xef\xbb\xbf" + f"{ONE}\n{TWO}\n".encode(),
    "marks of joined files": b"\xef\xbb\xbf" + ONE.encode() + b"\n\xef\xbb\xbf" + TWO.encode(),
    "pretty": f"{PRETTY}\n{PRETTY.replace('one', 'two')}\n".encode(),
    "pretty, then a line": f"{PRETTY}\n{TWO}\n".encode(),
    "in one line": f"{ONE}{TWO}".encode(),
    "with commas": f"{ONE},\n{TWO},\n".encode(),
    "an array": f"[{ONE},{TWO}]".encode(),
    "an array, a line each": f"[\n{ONE},\n{TWO}\n]\n".encode(),
    "a pretty array": json.dumps([document("one"), document("two")], indent=1).encode(),
    "a sequence (RFC 7464)": f"\x1e{ONE}\n\x1e{TWO}\n".encode(),
    "NUL between": f"{ONE}\0{TWO}\0".encode(),
    "UTF-16 with a mark": f"\ufeff{ONE}\n{TWO}\n".encode("utf-16-le"),
    "UTF-16 big-endian": f"\ufeff{ONE}\r\n{TWO}".encode("utf-16-be"),
    "UTF-16 without a mark": f"{ONE}\n{TWO}\n".encode("utf-16-le"),
    "a container's log": f"2025-11-30T05:20:00.1Z stdout F {ONE}\n2025-11-30T05:20:00.2Z stderr F {TWO}\n".encode(),
    "a container's log, cut": (
        f"2025-11-30T05:20:00.1Z stdout P {ONE[:40]}\n2025-11-30T05:20:00.1Z stdout F {ONE[40:]}\n"
        f"2025-11-30T05:20:00.2Z stdout F {TWO}\n"
    ).encode(),
    "Docker's log": "".join(
        json.dumps({"log": one + "\n", "stream": "stdout", "time": "2025-11-30T05:20:00Z"}) + "\n" for one in (ONE, TWO)
    ).encode(),
    "an SDK's log": (
        f"[main] INFO OtlpJsonLoggingSpanExporter - {ONE}\n2025-11-30 05:20:00 INFO exporter: {TWO}\n"
    ).encode(),
    "resources by themselves": (
        json.dumps(document("one")["resourceSpans"][0]) + "\n" + json.dumps(document("two")["resourceSpans"][0])
    ).encode(),
    "Tempo": json.dumps({"batches": RESOURCES}).encode(),
    "Tempo, version 2": json.dumps({"trace": {"resourceSpans": RESOURCES}}).encode(),
    "Jaeger, version 3": json.dumps({"result": {"resourceSpans": RESOURCES}}).encode(),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_its_spans(tmp_path: Path, said: list[str], layout: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(LAYOUTS[layout])
    assert (names(path, said), said) == (["one", "two"], [])


def _request(name: str) -> bytes:
    return read_request(document(name)).SerializeToString()


def _with_length(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


PACKED: dict[str, bytes] = {
    "gzip": gzip.compress(LAYOUTS["lines"]),
    "gzip of two files": gzip.compress(ONE.encode() + b"\n") + gzip.compress(TWO.encode()),
    "pretty gzip": gzip.compress(LAYOUTS["pretty"]),
    "zstd": _zstd(LAYOUTS["lines"]),
    "zstd of two files": _zstd(ONE.encode() + b"\n") + _zstd(TWO.encode()),
    "a message": _request("one") + _request("two"),  # protobuf's messages merge when they are joined
    "gzip of a message": gzip.compress(_request("one") + _request("two")),
    "a Collector's proto": _with_length(_request("one")) + _with_length(_request("two")),
    "a Collector's proto, zstd": _with_length(_zstd(_request("one"))) + _with_length(_zstd(_request("two"))),
    "a Collector's JSON, zstd": _with_length(_zstd(ONE.encode())) + _with_length(_zstd(TWO.encode())),
}


@pytest.mark.parametrize("packing", PACKED)
def test_every_packing_gives_its_spans(tmp_path: Path, said: list[str], packing: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(PACKED[packing])
    assert (names(path, said), said) == (["one", "two"], [])


@pytest.mark.parametrize("packing", ["gzip", "zstd", "a Collector's proto"])
def test_standard_input_is_read_like_a_file(said: list[str], packing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(PACKED[packing]))))
    assert [span.name for span in spans(list(read(None, said.append)))] == ["one", "two"]
    assert not said


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(max_size=20), min_size=1, max_size=4), st.integers(0, 3), st.sampled_from(["\n", "", ",\n", " "])
)
def test_values_are_found_however_they_are_put_together(texts: list[str], indent: int, between: str) -> None:
    values = [json.dumps(document(text), indent=indent or None, ensure_ascii=bool(indent % 2)) for text in texts]
    raw = between.join(values).encode("utf-8", "surrogatepass").replace(b"\xed", b"?")
    found: list[bytes] = []
    said: list[str] = []
    stream = io.TextIOWrapper(io.BufferedReader(io.BytesIO(raw)))
    before = sys.stdin
    sys.stdin = stream
    try:
        found = list(read(None, said.append))
    finally:
        sys.stdin = before
    assert len(spans(found)) == len(texts)
    assert not said


# --- names and values ------------------------------------------------------------------------------
def _full(names_: Callable[[str], str], scopes: str, scope: str, ids: Callable[[str], str] = str) -> dict[str, Any]:
    span = {
        names_("trace_id"): ids(TRACE), names_("span_id"): ids(CHILD), names_("parent_span_id"): ids(PARENT),
        "name": "x", "kind": "SPAN_KIND_SERVER", names_("start_time_unix_nano"): "5",
        names_("end_time_unix_nano"): 7, names_("dropped_links_count"): 1,
        "attributes": [{"key": "k", "value": {names_("string_value"): "v"}}],
    }  # fmt: skip
    return {
        names_("resource_spans"): [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {names_("string_value"): "apiserver"}}]},
                scopes: [{scope: {"name": "s"}, "spans": [span], names_("schema_url"): "u"}],
            }
        ]
    }


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def _base64(digits: str) -> str:
    return base64.b64encode(bytes.fromhex(digits)).decode()


def test_old_names_other_spellings_and_base64_mean_the_same() -> None:
    usual = read_request(_full(_camel, "scopeSpans", "scope"))
    assert usual.resource_spans[0].scope_spans[0].spans[0].parent_span_id.hex() == PARENT
    for other in (
        _full(str, "scope_spans", "scope"),
        _full(_camel, "instrumentationLibrarySpans", "instrumentationLibrary"),
        _full(str, "instrumentation_library_spans", "instrumentation_library"),
        _full(_camel, "scope_spans", "instrumentationLibrary"),
        _full(_camel, "scopeSpans", "scope", _base64),
    ):
        assert read_request(other) == usual


def test_scopes_under_both_names_are_all_read() -> None:
    both = document("one")
    both["resourceSpans"][0]["instrumentationLibrarySpans"] = document("two")["resourceSpans"][0]["scopeSpans"]
    assert [span.name for span in spans([read_request(both).SerializeToString()])] == ["one", "two"]


def test_half_a_character_is_replaced_and_the_span_stays(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "x.json"
    path.write_text(ONE.replace("one", "a\\ud83dz") + "\n")
    assert (names(path, said), said) == (["a\ufffdz"], [])


# --- Jaeger and Zipkin -----------------------------------------------------------------------------
JAEGER: dict[str, Any] = {
    "data": [
        {
            "traceID": TRACE[16:],
            "spans": [
                {
                    "traceID": TRACE[16:], "spanID": CHILD.lstrip("0"), "operationName": "Create", "flags": 1,
                    "references": [
                        {"refType": "CHILD_OF", "traceID": TRACE[16:], "spanID": PARENT},
                        {"refType": "FOLLOWS_FROM", "traceID": TRACE, "spanID": PARENT},
                    ],
                    "startTime": 1_764_480_000_000_000, "duration": 25_000, "processID": "p1", "warnings": None,
                    "tags": [
                        {"key": "span.kind", "type": "string", "value": "server"},
                        {"key": "otel.scope.name", "type": "string", "value": "k8s.io/apiserver"},
                        {"key": "error", "type": "bool", "value": True},
                        {"key": "otel.status_description", "type": "string", "value": "late"},
                        {"key": "http.status_code", "type": "int64", "value": 504},
                        {"key": "ratio", "type": "float64", "value": 0.5},
                    ],
                    "logs": [
                        {
                            "timestamp": 1_764_480_000_001_000,
                            "fields": [
                                {"key": "event", "type": "string", "value": "About to write"},
                                {"key": "n", "type": "int64", "value": 3},
                            ],
                        }
                    ],
                }
            ],
            "processes": {
                "p1": {"serviceName": "apiserver", "tags": [{"key": "host.name", "type": "string", "value": "cp-1"}]}
            },
        }
    ],
    "total": 0, "errors": None,
}  # fmt: skip
ZIPKIN: dict[str, Any] = {
    "traceId": TRACE, "id": CHILD, "parentId": PARENT, "kind": "CLIENT", "name": "post",
    "timestamp": 1_764_480_000_000_000, "duration": 25_000,
    "localEndpoint": {"serviceName": "apiserver", "ipv4": "10.0.0.1"},
    "remoteEndpoint": {"serviceName": "hook", "ipv4": "10.0.0.2", "port": 8443},
    "annotations": [{"timestamp": 1_764_480_000_001_000, "value": "sent"}],
    "tags": {"http.method": "POST", "error": "timeout", "otel.scope.name": "k8s.io/apiserver"},
}  # fmt: skip


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def test_jaegers_json_is_read_whole(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(JAEGER, indent=2))
    (body,) = read(path, said.append)
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert _attributes(resource.resource.attributes) == {"service.name": "apiserver", "host.name": "cp-1"}
    (scope,) = resource.scope_spans
    assert scope.scope.name == "k8s.io/apiserver"
    (span,) = scope.spans
    assert (span.trace_id.hex(), span.span_id.hex()) == ("0" * 16 + TRACE[16:], CHILD)
    assert (span.name, span.parent_span_id.hex(), span.kind) == ("Create", PARENT, Span.SPAN_KIND_SERVER)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (1_764_480_000 * 10**9, 1_764_480_000_025 * 10**6)
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "late")
    assert _attributes(span.attributes) == {"http.status_code": 504, "ratio": 0.5}
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in span.links] == [(TRACE, PARENT)]
    assert [(e.name, e.time_unix_nano, _attributes(e.attributes)) for e in span.events] == [
        ("About to write", 1_764_480_000_001 * 10**6, {"n": 3})
    ]
    assert not said


@pytest.mark.parametrize("layout", [[ZIPKIN], [[ZIPKIN]], ZIPKIN])
def test_zipkins_json_is_read_whole(tmp_path: Path, said: list[str], layout: object) -> None:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(layout))
    (body,) = read(path, said.append)
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert _attributes(resource.resource.attributes) == {"service.name": "apiserver"}
    (span,) = resource.scope_spans[0].spans
    assert resource.scope_spans[0].scope.name == "k8s.io/apiserver"
    assert (span.span_id.hex(), span.parent_span_id.hex(), span.kind) == (CHILD, PARENT, Span.SPAN_KIND_CLIENT)
    assert span.end_time_unix_nano - span.start_time_unix_nano == 25_000_000
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "timeout")
    assert _attributes(span.attributes) == {
        "http.method": "POST", "peer.service": "hook", "network.peer.address": "10.0.0.2", "network.peer.port": 8443,
    }  # fmt: skip
    assert [event.name for event in span.events] == ["sent"]
    assert not said


def test_of_foreign_spans_only_the_broken_ones_are_left_out(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps([ZIPKIN, {**ZIPKIN, "id": "nothing"}, {**ZIPKIN, "timestamp": -1}]))
    left: list[tuple[int, str]] = []
    assert len(spans(list(read(path, said.append, left_out=lambda n, s: left.append((n, s)))))) == 1
    assert [number for number, _ in left] == [2]
    assert "has spans that are not Zipkin's (an id that is not 16 hex digits); 2 spans were left out" in left[0][1]
    assert not list(read(path, said.append))
    assert len(said) == 1


_SPAN = JAEGER["data"][0]["spans"][0]
_KEYS = sorted(
    {*_SPAN, *ZIPKIN, *JAEGER, "resourceSpans", "batches", "log", "stream", "processes", "spans", "trace", "result"}
)
_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            sorted({*_SPAN, *ZIPKIN, *JAEGER, "resourceSpans", "batches", "log", "stream", "processes", "spans"})
        ),
        _anything,
        max_size=4,
    ),
    st.booleans(),
)
def test_no_value_anywhere_is_more_than_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, other: dict[str, Any], zipkin: bool
) -> None:
    path = tmp_path_factory.mktemp("any") / "x.json"
    trace = {**JAEGER["data"][0], "spans": [{**_SPAN, **other}]}
    path.write_text(json.dumps([{**ZIPKIN, **other}] if zipkin else {**trace, **other}) + "\n" + ONE)
    said: list[str] = []
    assert "one" in [span.name for span in spans(list(read(path, said.append, left_out=lambda _, s: said.append(s))))]


# --- what is not read ------------------------------------------------------------------------------
NOT_READ = {
    "holds metrics, not spans": {"resourceMetrics": []},
    "holds logs, not spans": {"resource_logs": []},
    "Go's stdouttrace": {"Name": "Create", "SpanContext": {"TraceID": TRACE}, "SpanKind": 2},
    "ask for each trace": {"traces": [{"traceID": TRACE, "rootTraceName": "x"}]},
    "is an error that Jaeger answered (trace not found)": {"data": None, "errors": [{"msg": "trace not found"}]},
    "Chrome's trace format": {"traceEvents": []},
    "has no resourceSpans": {"hello": 1},
    "is not a JSON object": 12,
}


@pytest.mark.parametrize("clause", NOT_READ)
def test_what_is_not_read_is_named(tmp_path: Path, said: list[str], clause: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(NOT_READ[clause]) + "\n" + ONE)
    assert names(path, said) == ["one"]
    assert len(said) == 1
    assert clause in said[0]


@pytest.mark.parametrize(
    ("head", "what"), [(b"PK\x03\x04", "zip"), (b"BZh91AY", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"PAR1", "Parquet")]
)
def test_other_files_are_refused_by_name(tmp_path: Path, said: list[str], head: bytes, what: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(head + b"more")
    with pytest.raises(StoreError, match=f"{what}.*, not a recording: "):
        names(path, said)


def test_text_that_is_not_utf8_is_told_from_what_is_no_json(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(ONE.replace("one", "größe").encode("latin1") + b"\nhello\n" + TWO.encode())
    assert names(path, said) == ["two"]
    assert "line 1: is not UTF-8" in said[0]
    assert "line 2: is not JSON" in said[1]


def test_a_cut_off_value_costs_no_other(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "x.json"
    half = '{"resourceSpans": [{"scopeSpans": ['
    path.write_text(f"{half}\n{ONE}\n{PRETTY[:60]}\n{TWO}\n{half}\n")
    assert names(path, said) == ["one", "two"]
    assert [one.split(":")[0].rsplit(" ", 1)[1] for one in said] == ["1", "3", str(4 + PRETTY[:60].count("\n") + 1)]


def test_a_torn_message_is_said_and_those_before_it_are_read(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "x.pb"
    path.write_bytes(PACKED["a Collector's proto"][:-5])
    assert names(path, said) == ["one"]
    assert "message 2: is cut off" in said[0]
    path.write_bytes(b"\x0a\x7fnothing")
    assert names(path, said) == []
    assert "is neither text nor a message of OTLP" in said[1]


def test_nothing_at_all_is_no_complaint(tmp_path: Path, said: list[str]) -> None:
    for raw in (b"", b"\n", b"\n\n", b" \r\n\0"):
        (tmp_path / "x.json").write_bytes(raw)
        assert (names(tmp_path / "x.json", said), said) == ([], [])


# --- complaints ------------------------------------------------------------------------------------
def test_complaints_of_a_kind_are_one_sentence() -> None:
    told = Complaints()
    for number in range(1, 61):
        told.add(Complaint.of("f.jsonl", f"line {number}", "holds metrics, not spans"))
    told.add(Complaint.of("f.jsonl", "line 61", "has an id that is not 32 hex digits: 'a'", 2))
    told.add(Complaint.of("f.jsonl", "line 62", "has an id that is not 32 hex digits: 'b'", 1))
    told.add("Something else.")
    assert told.sentences() == [
        "f.jsonl, line 1 and 59 more: holds metrics, not spans; skipped.",
        "f.jsonl, line 61 and 1 more: has an id that is not 32 hex digits: 'a'; 3 spans were left out.",
        "Something else.",
    ]


# --- lines -----------------------------------------------------------------------------------------
def test_bad_lines_are_said_with_their_number_and_the_rest_is_read(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + line("one").encode() + b"\n\n{nonsense\n" + line("two").encode() + b"\n\xff\xfe\n"
        b'{"resourceLogs":[]}\n' + b"[" * 200_000 + b"\n" + line("three").encode()
    )
    assert names(path, said) == ["one", "two", "three"]
    assert [s.split(":")[0].rsplit(" ", 1)[1] for s in said] == ["3", "5", "6", "7"]
    assert all(str(path) in s and s.endswith("skipped.") for s in said)


def test_overlong_lines_are_skipped_without_keeping_them(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(line("one") + "\n" + "x" * 5000 + "\n" + line("two") + "\n" + "y" * 1000)
    assert names(path, said, max_line=1000) == ["one", "two"]
    assert len(said) == 2
    assert "line 2: is longer than 1,000 bytes" in said[0]
    assert "line 4" in said[1]


def test_a_cut_off_gzip_file_gives_what_is_whole(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "x.jsonl.gz"
    whole = gzip.compress("".join(line(f"{i:x}" * 50) + "\n" for i in range(2000)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    found = names(path, said)
    assert 100 < len(found) < 2000
    assert len(said) == 1
    assert "cut off or damaged" in said[0]


def test_a_gzip_bomb_is_left(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacked, "_RATIO_FROM", 1 << 20)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(64 << 20)))
    assert names(path, said, max_line=1 << 16) == []
    assert "unpacks to more than 200 times its size" in said[-1]
    assert len(said) == 2


def test_a_missing_file_is_a_sentence(tmp_path: Path, said: list[str]) -> None:
    with pytest.raises(StoreError, match=r"nowhere.jsonl cannot be read \(No such file or directory\)"):
        names(tmp_path / "nowhere.jsonl", said)
    with pytest.raises(StoreError, match="Is a directory"):
        names(tmp_path, said)


def test_a_gzip_stream_that_cannot_tell_where_it_is(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacked, "_RATIO_FROM", 1)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    packed = gzip.compress(line("one").encode())
    writer = threading.Thread(target=fifo.write_bytes, args=(packed,), daemon=True)
    writer.start()
    assert names(fifo, said) == ["one"]
    assert not said


def test_the_longest_line_that_a_request_makes_is_read() -> None:
    assert unpacked.MAX_LINE > 6 * (16 << 20)
