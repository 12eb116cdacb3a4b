"""decode: what is in the index is what the official messages say; nothing that is sent can crash it."""

from __future__ import annotations

import contextlib
import random
import struct
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, Status

from receiver.ingest import decode as decode_module
from receiver.ingest.decode import MAX_GROUPS, MAX_SPANS, Decoded, Malformed, decode
from receiver.store.chunk import (
    APISERVER,
    AUDIT_UUID,
    FACT_STRINGS,
    FLAG_FACTS,
    FLAG_REQUEST,
    MAX_LINKS,
    MAX_STRING,
    NANOSECOND_MAX,
    ROLE_LINK,
    ROLE_SERVER,
    ROLE_VERB,
    Chunk,
    Resource,
    unpack,
)
from receiver.store.database import decompress
from receiver.traces.semantics import component_of, fact_role, read_facts


def take(body: bytes) -> Decoded:
    return decode(body, source="here", peer="127.0.0.1:1", received=1_700_000_000_000_000_000)


def request(*spans: Span, service: str = "apiserver", scope: str = "") -> ExportTraceServiceRequest:
    group = ResourceSpans()
    group.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value=service)))
    group.scope_spans.add().spans.extend(spans)
    group.scope_spans[0].scope.name = scope
    return ExportTraceServiceRequest(resource_spans=[group])


def span(number: int = 1, **fields: Any) -> Span:
    given_fields = {
        "trace_id": struct.pack(">QQ", 7, number),
        "span_id": struct.pack(">Q", number),
        "name": "GET",
        "kind": 2,
        "start_time_unix_nano": 1_700_000_000_000_000_000,
        "end_time_unix_nano": 1_700_000_000_000_000_500,
        **fields,
    }
    return Span(**given_fields)


def expected(sent: ExportTraceServiceRequest) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], int, int]:
    """Rows and facts by the long way, one attribute at a time, how many spans are to be rejected and links left out."""
    rows: list[tuple[Any, ...]] = []
    facts: list[tuple[Any, ...]] = []
    told: set[bytes] = set()
    rejected = bad_links = 0
    for group in sent.resource_spans:
        about = {"service.name": "", "service.instance.id": ""}
        for pair in group.resource.attributes:
            if pair.key in about:
                about[pair.key] = pair.value.string_value[:MAX_STRING]
        sender = Resource(about["service.name"], about["service.instance.id"])
        for scope in group.scope_spans:
            for one in scope.spans:
                lengths = len(one.trace_id), len(one.span_id), len(one.parent_span_id)
                if lengths not in ((16, 8, 8), (16, 8, 0)) or not any(one.trace_id) or not any(one.span_id):
                    rejected += 1
                    continue
                kind = one.kind if 0 <= one.kind <= 5 else 0
                status = one.status.code if 0 <= one.status.code <= 2 else 0
                component = component_of(sender.service, scope.scope.name, kind, one.name)
                role = fact_role(component, kind, one.name)
                flags = component | (FLAG_REQUEST if component == APISERVER and kind == 2 else 0)
                if role:
                    said = read_facts(role, one.name, one.attributes, one.status.message)
                    strings = tuple(getattr(said, column) for column in FACT_STRINGS)
                    facts.append((len(rows), role, said.code, *strings, said.audit))
                    if role == ROLE_SERVER and said.audit and said.agent and said.detail:
                        told.add(one.trace_id)
                good = [link for link in one.links if len(link.trace_id) in (0, 16) and len(link.span_id) in (0, 8)]
                bad_links += len(one.links) - len(good)
                linked = dict.fromkeys(link.trace_id for link in good if len(link.trace_id) == 16)
                for trace_id in [found for found in linked if any(found)][:MAX_LINKS]:
                    facts.append((len(rows), ROLE_LINK, 0, *("" for _ in FACT_STRINGS), str(UUID(bytes=trace_id))))
                rows.append(
                    (
                        one.trace_id,
                        one.span_id,
                        one.parent_span_id or bytes(8),
                        min(one.start_time_unix_nano, NANOSECOND_MAX),
                        min(one.end_time_unix_nano, NANOSECOND_MAX),
                        one.name[:MAX_STRING],
                        sender,
                        kind | status << 4,
                        flags,
                    )
                )
    facts = [fact for fact in facts if fact[1] != ROLE_VERB or rows[fact[0]][0] not in told]
    for fact in facts:
        rows[fact[0]] = (*rows[fact[0]][:-1], rows[fact[0]][-1] | FLAG_FACTS)
    return rows, facts, rejected, bad_links


def actual(chunk: Chunk) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    rows = [
        (
            struct.pack(">QQ", int(row["trace_hi"]), int(row["trace_lo"])),
            struct.pack(">Q", int(row["span"])),
            struct.pack(">Q", int(row["parent"])),
            int(row["start"]),
            int(row["end"]),
            chunk.strings[int(row["name"])],
            chunk.resources[int(row["resource"])],
            int(row["kind_status"]),
            int(row["flags"]),
        )
        for row in chunk.spans
    ]
    facts = []
    for fact in chunk.facts:
        raw = fact["audit"].tobytes()
        digits = raw.hex()
        audit = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
        if not fact["flags"] & AUDIT_UUID:
            audit = chunk.strings[int.from_bytes(raw[:4], "big")]
        strings = tuple(chunk.strings[int(fact[column])] for column in FACT_STRINGS)
        facts.append((int(fact["row"]), int(fact["role"]), int(fact["code"]), *strings, audit))
    return rows, facts


def check(sent: ExportTraceServiceRequest) -> None:
    """decode says what the official messages say."""
    rows, facts, rejected, bad_links = expected(sent)
    decoded = take(sent.SerializeToString())
    assert (decoded.rejected, decoded.bad_links) == (rejected, bad_links)
    assert bool(decoded.reason) == bool(rejected or bad_links)
    if not rows:
        assert decoded.chunk is None
        return
    chunk = decoded.chunk
    assert chunk is not None
    assert actual(chunk) == (rows, facts)
    kept = ExportTraceServiceRequest.FromString(decompress(chunk.body))
    assert [one.span_id for group in kept.resource_spans for part in group.scope_spans for one in part.spans] == [
        row[1] for row in rows
    ]
    stored = unpack(
        1, "s", "p", 1, chunk.names_blob(), chunk.spans.tobytes(), chunk.facts.tobytes(), chunk.body
    )  # raises when a number points nowhere
    assert stored.strings == chunk.strings


texts = st.one_of(
    st.sampled_from(
        ["", "GET", "Get", "List", "authentication", "HTTP GET", "Call mutating webhook", "etcdserverpb.KV/Txn"]
    ),
    st.sampled_from([0, 1, 5, 124, 125, 126, 127, 128, 129, 255, 256, 257, 1000]).map(lambda n: "x" * n),
    st.text(max_size=20),
)
values = st.one_of(
    st.sampled_from(
        ["", "a" * 117, "a" * 123, "a" * 124, "a" * 300, "/api/v1/namespaces/x/pods/y?watch=1", "/livez"]
    ).map(lambda text: AnyValue(string_value=text)),
    st.text(max_size=200).map(lambda text: AnyValue(string_value=text)),
    st.sampled_from([0, 1, 127, 128, 200, 404, 500, 10250, 40000, -1, 2**62]).map(lambda n: AnyValue(int_value=n)),
    st.just(AnyValue(bool_value=True)),
    st.just(AnyValue()),
    st.just(AnyValue(array_value=ArrayValue(values=[AnyValue(string_value="x")]))),
)
keys = st.sampled_from(
    ["http.target", "url.path", "http.request.method", "http.method", "audit-id", "verb", "resource", "name", "url",
     "http.response.status_code", "server.address", "server.port", "user_agent.original", "webhook", "x", ""]
)  # fmt: skip
audits = (
    st.uuids().map(str).flatmap(lambda text: st.sampled_from([text, text.upper(), text + "x", text.replace("-", "+")]))
)
pairs = st.one_of(
    st.builds(KeyValue, key=keys, value=values),
    st.builds(lambda text: KeyValue(key="audit-id", value=AnyValue(string_value=text)), audits),
)
times = st.sampled_from(
    [0, 1, 1_700_000_000_000_000_000, 16_725_225_600_000_000_000, NANOSECOND_MAX, 2**64 - 1, 0x7A00 << 48]
)
odd_ids = st.sampled_from([b"", b"\1", bytes(7), bytes(8), bytes(16), b"\1" * 7, b"\1" * 9, b"\1" * 15, b"\1" * 17])
names_by_kind = st.sampled_from([(1, "Get"), (1, "Call mutating webhook"), (2, "GET"), (3, "HTTP GET"), (3, "x")])


link_ends = st.sampled_from([b"a linked", b"a linked", b"", b"x", bytes(9)])
linked = st.one_of(
    st.just([]),
    st.lists(odd_ids | st.sampled_from([b"trace of sixteen", b"a linked trace !"]), max_size=3),
    st.just([bytes([n]) * 16 for n in range(MAX_LINKS + 3)]),
)


@st.composite
def spans(draw: st.DrawFn) -> Span:
    kind, name = draw(st.one_of(names_by_kind, st.tuples(st.integers(0, 5), texts)))
    one = Span(
        trace_id=draw(st.sampled_from([b"trace of sixteen", b"another sixteen!"])),
        span_id=draw(st.binary(min_size=8, max_size=8)) if draw(st.booleans()) else b"a span i",
        parent_span_id=draw(st.sampled_from([b"", bytes(8), b"a parent"])),
        trace_state=draw(st.sampled_from(["", "a=b"])),
        name=name,
        kind=kind,  # type: ignore[arg-type]
        start_time_unix_nano=draw(times),
        end_time_unix_nano=draw(times),
        attributes=draw(st.lists(pairs, max_size=6)),
        flags=draw(st.sampled_from([0, 0x101])),
        links=[Span.Link(trace_id=id, span_id=draw(link_ends)) for id in draw(linked)],
    )
    if draw(st.booleans()):
        one.status.code = draw(st.integers(0, 2))  # type: ignore[assignment]
        one.status.message = draw(st.sampled_from(["", "refused", "z\0" * 200]))
    if draw(st.integers(0, 9)) == 9:
        setattr(one, draw(st.sampled_from(["trace_id", "span_id", "parent_span_id"])), draw(odd_ids))
    return one


scopes = st.tuples(st.sampled_from(["", "k8s.io/component-base/tracing"]), st.lists(spans(), max_size=5))
groups = st.lists(
    st.tuples(st.sampled_from(["apiserver", "apiserver", "etcd", ""]), st.lists(scopes, max_size=3)), max_size=3
)


def built(told: list[tuple[str, list[tuple[str, list[Span]]]]]) -> ExportTraceServiceRequest:
    sent = ExportTraceServiceRequest()
    for service, scopes in told:
        group = sent.resource_spans.add()
        group.resource.attributes.add(key="service.name").value.string_value = service
        for name, some in scopes:
            scope = group.scope_spans.add()
            scope.scope.name = name
            scope.spans.extend(some)
    return sent


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(groups.map(built))
def test_columns_are_what_the_official_messages_say(sent: ExportTraceServiceRequest) -> None:
    check(sent)


def test_unknown_enum_numbers_and_every_length_around_the_fast_path() -> None:
    told = [span(1 + i, name="n" * i, kind=i % 6, parent_span_id=b"parentid" * (i % 2)) for i in range(300)]
    told += [
        span(900, kind=4711),
        span(904, kind=7),
        span(901, kind=-1),
        span(902, status=Status(code=99)),  # type: ignore[arg-type]
        span(903, status=Status()),
    ]
    told += [
        span(950, start_time_unix_nano=0),
        span(951, start_time_unix_nano=0, end_time_unix_nano=0),
        span(952, kind=0),
    ]
    check(request(*told))


def test_a_rejected_span_moves_rows_and_facts_of_those_behind_it() -> None:
    bad, pair = span(1, trace_id=b"short"), span(2)
    pair.attributes.add(key="http.target").value.string_value = "/livez"
    check(request(bad, pair, bad, span(3, name="x", kind=1), pair))


def test_what_follows_a_span_is_not_taken_for_its_status() -> None:
    check(request(span(1, kind=1), Span(status=Status(code=2)), span(2, kind=1)))  # type: ignore[arg-type]


def test_spans_of_the_recordings(recordings: Any) -> None:
    from receiver.recordings.reading import read

    for name in ("incident.otlp.jsonl.gz", "kubelet-and-containerd.otlp.jsonl.gz", "create-pod-webhooks.otlp.jsonl"):
        for body in read(recordings / name, print):
            check(ExportTraceServiceRequest.FromString(body))


@settings(max_examples=120, deadline=None)
@given(groups.map(built), st.randoms(use_true_random=False), st.integers(0, 3))
def test_damaged_bytes_are_malformed_or_decoded(sent: ExportTraceServiceRequest, rng: random.Random, how: int) -> None:
    body = bytearray(sent.SerializeToString())
    if how == 0:
        del body[rng.randrange(len(body) + 1) :]
    for _ in range(how):
        if body:
            body[rng.randrange(len(body))] = rng.randrange(256)
    try:
        decoded = take(bytes(body))
    except Malformed:
        return
    if decoded.chunk is not None:  # what was taken can be shown
        raw = decompress(decoded.chunk.body)
        kept = ExportTraceServiceRequest.FromString(raw)
        there = [one for group in kept.resource_spans for part in group.scope_spans for one in part.spans]
        assert len(there) == len(decoded.chunk.spans)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
@example(b"")
@example(b"\x0a\x00")
@example(b"\x0a\x02\x12\x00")
@example(b"\xff" * 40)
def test_random_bytes_are_malformed_or_decoded(body: bytes) -> None:
    with contextlib.suppress(Malformed):
        take(body)


def test_a_span_that_cannot_be_parsed_is_rejected_alone() -> None:
    sent = request(span(1, name="mine"), span(2), span(3))
    body = sent.SerializeToString().replace(b"mine", b"m\xff\xfee")  # not UTF-8
    decoded = take(body)
    assert decoded.rejected == 1
    assert decoded.chunk is not None
    assert [int(row["span"]) for row in decoded.chunk.spans] == [2, 3]
    assert "Rejected 1 span" in decoded.reason


def test_a_resource_that_is_not_utf8_costs_no_spans() -> None:
    body = request(span(1), span(2), service="etcd").SerializeToString().replace(b"etcd", b"et\xff\xfe")
    decoded = take(body)
    assert decoded.rejected == 0
    assert decoded.chunk is not None
    assert len(decoded.chunk.spans) == 2
    assert decoded.chunk.resources == [Resource("", "")]
    ExportTraceServiceRequest.FromString(decompress(decoded.chunk.body))


def test_nothing_but_unparsable_spans_is_malformed() -> None:
    body = request(span(1, name="mine")).SerializeToString().replace(b"mine", b"m\xff\xfee")
    with pytest.raises(Malformed):
        take(body)


def test_hostile_sizes() -> None:
    big = span(1)
    big.attributes.add(key="big").value.string_value = "x" * 1_000_000
    many = span(2)
    for _ in range(100_000):
        many.events.add(name="e", time_unix_nano=1)
    strings = span(3, name="y" * 100_000)
    strings.attributes.add(key="http.target").value.string_value = "/api/v1/pods?continue=" + "z" * 1_000_000
    strings.attributes.add(key="user_agent.original").value.string_value = "a" * 1_000_000
    strings.attributes.add(key="audit-id").value.string_value = "b" * 1_000_000
    check(request(big, many, strings))
    decoded = take(request(big, many, strings).SerializeToString())
    assert decoded.chunk is not None
    assert max(map(len, decoded.chunk.strings)) <= MAX_STRING
    assert decoded.chunk.facts["role"].tolist() == [ROLE_SERVER] * 3


def deep_pair(levels: int) -> bytes:
    deep = b""
    for _ in range(levels):  # AnyValue.array_value.values, each inside the other
        deep = _field(5, _field(1, deep))
    return _field(1, b"k") + _field(2, deep)


@pytest.mark.parametrize("levels", [*range(45, 53), 300])
def test_nesting_deeper_than_protobuf_reads_costs_only_its_span(levels: int) -> None:
    raw = span(1).SerializeToString() + _field(9, deep_pair(levels))
    decoded = take(request(span(2)).SerializeToString() + _field(1, _field(2, _field(2, raw))))
    assert decoded.chunk is not None
    numbers = decoded.chunk.spans["span"].tolist()
    assert numbers == ([2, 1] if levels < 48 else [2])
    assert decoded.rejected == 2 - len(numbers)


@pytest.mark.parametrize("levels", [48, 49, 50, 300])
def test_a_resource_or_scope_too_deep_or_a_schema_that_is_not_utf8_costs_no_spans(levels: int) -> None:
    resource, scope = _field(1, _field(1, deep_pair(levels))), _field(1, _field(3, deep_pair(levels)))
    spans = _field(2, scope + _field(2, span(1).SerializeToString()) + _field(3, b"\xff"))
    decoded = take(_field(1, resource + spans + _field(3, b"\xfe")))
    assert decoded.rejected == 0
    assert decoded.chunk is not None
    ExportTraceServiceRequest.FromString(decompress(decoded.chunk.body))


def test_a_resource_is_checked_once_however_many_scopes_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []
    is_request = decode_module._is_request
    monkeypatch.setattr(decode_module, "_is_request", lambda raw: checked.append(len(raw)) or is_request(raw))  # type: ignore[func-returns-value]
    large = _field(1, _field(1, _field(1, b"x" * 100_000)))
    bad = _field(2, _field(2, b"\x2a\x01\xff") + _field(2, span(1).SerializeToString()))
    assert take(_field(1, large + b"\x12\x00" * 1_000 + bad)).rejected == 1
    assert sum(checked) < 400_000  # the resource, and the whole


def test_large_resources_and_names_are_not_remembered() -> None:
    decode_module._senders.clear()
    for number in range(3):
        take(request(span(1, name="n" * 100_000), service="a" * 5_000 + str(number)).SerializeToString())
        take(request(span(1, name="\U0001f600" * 200 + str(number)), service="small").SerializeToString())
    assert [sender.resource.service for sender in decode_module._senders.values()] == ["small"]
    assert not any(sender._shapes for sender in decode_module._senders.values())


def test_a_flood_of_tiny_spans_or_groups_is_refused() -> None:
    assert take(b"\x0a\x00" * 1000).chunk is None
    half = 4 << 20
    scopes = _field(1, b"\x12\x00" * half)
    spans = _field(1, _field(2, b"\x12\x00" * half))
    filled = _field(1, _field(2, b"\x12\x02\x30\x01" * (half // 2)))
    links = _field(1, _field(2, _field(2, b"\x6a\x00" * half)))
    for body in (b"\x0a\x00" * half, scopes, spans, filled, links):
        with pytest.raises(Malformed):
            take(body)


def test_a_flood_of_empty_spans_makes_no_object_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    def flood(count: int) -> bytes:
        return _field(1, _field(2, b"\x12\x00" * count)) + request(span(1)).SerializeToString()

    with pytest.raises(Malformed, match="more than"):
        take(flood(MAX_SPANS))  # 256 KiB, 300 bytes of gzip
    slow: list[int] = []
    one_by_one = decode_module._odd
    monkeypatch.setattr(decode_module, "_odd", lambda *all: slow.append(1) or one_by_one(*all))  # type: ignore[func-returns-value]
    decoded = take(flood(MAX_SPANS - 1))
    assert decoded.rejected == MAX_SPANS - 1
    assert decoded.chunk is not None
    assert decoded.chunk.spans["span"].tolist() == [1]
    assert not slow


def test_a_span_just_too_short_for_its_ids_is_rejected_and_the_shortest_is_kept() -> None:
    ids = {"trace_id": b"t" * 16, "span_id": b"s" * 8}
    check(request(span(1), Span(trace_id=b"t" * 16, span_id=b"s" * 7), Span(**ids), span(2)))  # type: ignore[arg-type]


def _field(number: int, payload: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + _varint(len(payload)) + payload


def test_as_many_resources_as_there_may_be() -> None:
    sent = ExportTraceServiceRequest()
    for number in range(MAX_GROUPS // 2 - 1):
        group = sent.resource_spans.add()
        group.resource.attributes.add(key="service.name").value.string_value = str(number)
        group.scope_spans.add().spans.append(span(1 + number))
    decoded = take(sent.SerializeToString())
    assert decoded.chunk is not None
    assert len(decoded.chunk.resources) == MAX_GROUPS // 2 - 1
    assert np.array_equal(decoded.chunk.spans["resource"], np.arange(MAX_GROUPS // 2 - 1))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def test_spans_under_the_old_name_of_scopes_are_read_as_today() -> None:
    """Until OTLP 0.19 they went under field 1000, `instrumentation_library_spans`, of the same form."""
    today = request(span(1), span(2), scope="k8s.io/apiserver")
    both = request(span(3), scope="k8s.io/apiserver")
    resource = today.resource_spans[0].resource.SerializeToString()
    old = b"".join(_field(1000, scope.SerializeToString()) for scope in today.resource_spans[0].scope_spans)
    body = _field(1, _field(1, resource) + old) + both.SerializeToString()
    decoded = take(body)
    merged = ExportTraceServiceRequest(resource_spans=[*today.resource_spans, *both.resource_spans])
    wanted = take(merged.SerializeToString())
    assert decoded.chunk is not None
    assert wanted.chunk is not None
    assert decoded.chunk.spans.tobytes() == wanted.chunk.spans.tobytes()
    assert ExportTraceServiceRequest.FromString(decompress(decoded.chunk.body)) == merged
    assert decoded.rejected == 0
    torn = _field(1, _field(1, resource) + _field(1000, b"\x12\x7f"))
    with pytest.raises(Malformed):
        take(torn)


def _field(number: int, payload: bytes) -> bytes:
    def varint(value: int) -> bytes:
        return bytes((value,)) if value < 0x80 else bytes((value & 0x7F | 0x80,)) + varint(value >> 7)

    return varint(number << 3 | 2) + varint(len(payload)) + payload
