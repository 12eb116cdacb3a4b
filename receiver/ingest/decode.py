"""From the bytes of an ExportTraceServiceRequest to a chunk.

Two parses of the same bytes, both in C. The full parse of the official message is the validation: what was
acknowledged can be shown later. The index columns do not come from its objects, one Python object a field a span
would cost several times the parse. They come from a second schema that declares only what the index holds: its
message, without what it does not know, is serialised again, and in those few bytes a span every field stands at a
place that numpy can work out for all spans at once. A span of an unusual form is read one by one.

Attributes are read only of spans that say something about a request.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as OtlpResource
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from receiver.ingest.link_ids import drop_bad_links, without_bad_links
from receiver.store.chunk import (
    APISERVER,
    AUDIT_UUID,
    FACT,
    FLAG_FACTS,
    FLAG_REQUEST,
    MAX_LINKS,
    MAX_STRING,
    NANOSECOND_MAX,
    ROLE_CALL,
    ROLE_LINK,
    ROLE_SERVER,
    ROLE_VERB,
    SPAN,
    Chunk,
    Resource,
)
from receiver.store.database import compress
from receiver.store.request import (
    BYTES,
    FIXED64,
    INT32,
    BytesRequest,
    has_old_scopes,
    keep_spans,
    request_type,
    select_spans,
    with_current_scopes,
)
from receiver.traces.semantics import (
    LONG,
    MAX_ATTRIBUTES,
    MAX_TARGET,
    WANTED,
    Found,
    component_of,
    fact_role,
    facts_of,
)

Array = npt.NDArray[Any]

MAX_GROUPS: Final = 65_535
"""Resource and scope groups of one request; a Collector's batch of 8,192 spans has at most that many."""
MAX_SPANS: Final = 131_072
"""Spans of one request; a batch span processor sends 512."""
MAX_PARTS: Final = 1_000_000
"""Attributes, events and links of one request's spans together; OpenTelemetry's own limit is 128 of each a span."""
_LARGE: Final = 1 << 20
_MANY: Final = 2 * min(MAX_GROUPS, MAX_SPANS)
"""Bytes from which on a request may hold more than it may: an empty group or span takes two."""
_SHORTEST: Final = 28
"""Bytes of a trace id and a span id with tag and length: no valid span is shorter."""
_SHAPES_KEPT: Final = 512
_SHAPE_BYTES: Final = 512
_SENDERS_KEPT: Final = 256
_SENDER_BYTES: Final = 4_096
"""All senders that are remembered together hold a few MiB, and 256 MiB if every one of them is made to hold most."""
_SERVER: Final = 2  # OTLP span kind


class Malformed(Exception):
    """Not an ExportTraceServiceRequest; str() is one sentence for the sender."""


@dataclass(slots=True)
class Decoded:
    """What became of a request: `chunk` is None where no span is left, `reason` says why spans were rejected and links
    left out."""

    chunk: Chunk | None
    rejected: int
    reason: str
    bad_links: int = 0
    """Links that spans lost because their ids have a wrong length."""


_IndexRequest: Final = request_type(
    "k8s_trace_tui.index",
    "Span",
    {
        "Status": (("code", 3, INT32, False),),
        "Span": (
            ("trace_id", 1, BYTES, False),
            ("span_id", 2, BYTES, False),
            ("parent_span_id", 4, BYTES, False),
            ("name", 5, BYTES, False),
            ("kind", 6, INT32, False),
            ("start_time_unix_nano", 7, FIXED64, False),
            ("end_time_unix_nano", 8, FIXED64, False),
            ("links", 13, BYTES, True),  # next to no span has any, and one that has is of unusual form
            ("status", 15, "Status", False),
        ),
    },
)
"""A request whose spans have the fields that the index holds, and no others."""
_AttributesRequest: Final = request_type(
    "k8s_trace_tui.attributes",
    "Span",
    {
        "Status": (("message", 2, BYTES, False),),
        "Span": (("attributes", 9, BYTES, True), ("status", 15, "Status", False)),
    },
)
"""A request whose spans have attributes as bytes and a status message: each pair is a `bytes` and no object of its
own."""
_PartsRequest: Final = request_type(
    "k8s_trace_tui.parts",
    "Span",
    {"Span": (("attributes", 9, BYTES, True), ("events", 11, BYTES, True), ("links", 13, BYTES, True))},
)
"""A request that tells how much is in each span."""


# --- senders and shapes of spans -------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Shape:
    """What spans of one sender, kind and name have in common."""

    name: str
    flags: int
    role: int


class _Sender:
    """A resource and a scope, and the shapes of spans seen from them. Shared between threads."""

    def __init__(self, resource: bytes, scope: bytes) -> None:
        self.resource = _resource_of(resource)
        self._scope = InstrumentationScope.FromString(scope).name
        self._shapes: dict[bytes, _Shape] = {}

    def shape(self, key: bytes) -> _Shape:
        """The shape for a span's name followed by one byte of kind."""
        shape = self._shapes.get(key)
        if shape is None:
            name, kind = key[:-1].decode("utf-8", "replace"), key[-1]
            component = component_of(self.resource.service, self._scope, kind, name)
            role = fact_role(component, kind, name)
            flags = component | (FLAG_REQUEST if component == APISERVER and kind == _SERVER else 0)
            shape = _Shape(name[:MAX_STRING], flags, role)
            if len(key) <= _SHAPE_BYTES:
                if len(self._shapes) >= _SHAPES_KEPT:  # names that are made up, or hold ids
                    self._shapes.clear()
                self._shapes[key] = shape
        return shape


_senders: dict[tuple[bytes, bytes], _Sender] = {}


def _sender(resource: bytes, scope: bytes) -> _Sender:
    key = (resource, scope)
    sender = _senders.get(key)
    if sender is None:
        sender = _Sender(resource, scope)
        if len(resource) + len(scope) <= _SENDER_BYTES:  # a larger one is read each time, not kept
            if len(_senders) >= _SENDERS_KEPT:
                _senders.clear()
            _senders[key] = sender
    return sender


def _resource_of(raw: bytes) -> Resource:
    found = {"service.name": "", "service.instance.id": ""}
    for index, pair in enumerate(OtlpResource.FromString(raw).attributes):
        if index >= MAX_ATTRIBUTES:
            break
        if pair.key in found:
            found[pair.key] = pair.value.string_value[:MAX_STRING]
    return Resource(found["service.name"], found["service.instance.id"])


class _ShapeNumbers(dict[bytes, int]):
    """Numbers of one sender's shapes in the table of a request, by name, tag of kind and kind as on the wire."""

    def __init__(self, sender: _Sender, table: list[_Shape]) -> None:
        super().__init__()
        self._sender, self._table = sender, table

    def __missing__(self, key: bytes) -> int:
        number = self[key] = len(self._table)
        self._table.append(self._sender.shape(key[:-2] + key[-1:]))
        return number


class _Numbers(dict[Any, int]):
    """Numbers keys from 0 on in the order in which they are first asked for."""

    def __missing__(self, key: Any) -> int:
        number = self[key] = len(self)
        return number


class _Strings(_Numbers):
    """A chunk's string list; number 0 is the empty string."""

    def __init__(self) -> None:
        super().__init__({"": 0})


# --- decoding --------------------------------------------------------------------------------------
def decode(body: bytes, *, source: str, peer: str, received: int, sender: str = "") -> Decoded:
    """A chunk from the bytes of one export request.

    Spans whose ids are all zero or of the wrong length (OTLP 1.5: 16 and 8 bytes, a parent 8 or none), and spans
    that do not parse, are rejected; the others are kept, and `body` in the chunk is what was sent without the
    rejected ones, and without links that lead to no such ids.

    Args:
        body: a serialised ExportTraceServiceRequest.
        source: the listener's name.
        peer: the sender's address.
        received: ns since the epoch by this machine's clock.
        sender: whose share of what is kept it counts to.

    Raises:
        Malformed: not even the groups of the request can be told apart, or there are more groups or spans than
            `MAX_GROUPS` and `MAX_SPANS`.
    """
    if len(body) > _LARGE:
        with _one_large:
            return _decode(body, source, peer, received, sender)
    return _decode(body, source, peer, received, sender)


_one_large: Final = threading.Lock()
"""Two bytes on the wire can become a message of 100 bytes in memory: one large request at a time."""


def _decode(body: bytes, source: str, peer: str, received: int, sender: str) -> Decoded:
    if len(body) > _MANY:
        _check_counts(body)
    sent, lost, reason = body, 0, ""
    try:
        ExportTraceServiceRequest.FromString(body)  # not kept: its memory is wanted again at once
    except DecodeError:
        body, lost = _salvage(body)
        reason = "spans that cannot be parsed"
    index = _IndexRequest.FromString(body)
    if has_old_scopes(index):
        return _decode(_with_current_scopes(sent), source, peer, received, sender)
    index.DiscardUnknownFields()
    spans, shapes, groups, kept, links, bad_links = _columns(BytesRequest.FromString(index.SerializeToString()))
    del index
    bad = len(spans) - int(np.count_nonzero(kept)) if kept is not None else 0
    if bad:
        reason = f"{reason}, and spans" if lost else "spans"
        reason += " with trace or span ids that are all zero or of the wrong length"
    chunk = None
    if len(spans) > bad:
        strings, resources = _Strings(), _Numbers()
        facts = _with_links(_facts(body, spans, shapes, groups, kept, strings), spans, links, kept)
        if bad_links:
            body = without_bad_links(body, bad_links)
        names = [strings[shape.name] for shape in shapes.table]
        spans["name"] = np.array(names, np.uint32)[shapes.rows]
        owners = [min(resources[group.sender.resource], 0xFFFE) for group in groups]
        spans["resource"] = np.repeat(np.array(owners, np.uint16), [group.count for group in groups])
        if kept is not None:
            body = select_spans(body, kept.tolist())
            facts["row"] = (np.cumsum(kept) - 1)[facts["row"]]
            spans = spans[kept]
        known = list(resources)[:0xFFFF]
        chunk = Chunk(0, source, peer, received, list(strings), known, spans, facts, compress(body), sender)
    dropped = sum(bad_links.values())
    said = [f"Rejected {lost + bad:,} {reason}."] if reason else []
    said += [f"Left out {dropped:,} links with trace or span ids of the wrong length."] if dropped else []
    return Decoded(chunk, lost + bad, " ".join(said), dropped)


def _with_current_scopes(body: bytes) -> bytes:
    """A request of before OTLP 0.19 as it is written today.

    Raises:
        Malformed: not even its groups can be told apart.
    """
    try:
        return with_current_scopes(body)
    except DecodeError as error:
        raise _unreadable() from error


def _check_counts(body: bytes) -> None:
    """Refuse a flood of tiny spans or groups before anything makes an object of each.

    Raises:
        Malformed: there are too many, or it is no request at all.
    """
    try:
        request = BytesRequest.FromString(body)
    except DecodeError as error:
        raise _unreadable() from error
    groups, spans = len(request.resources), 0
    for resource in request.resources if groups <= MAX_GROUPS else ():
        groups += len(resource.scopes) + len(resource.old_scopes)
        if groups > MAX_GROUPS:
            break
        spans += sum(len(scope.spans) for scope in resource.scopes)
    if groups > MAX_GROUPS or spans > MAX_SPANS:
        raise Malformed(
            f"The request has more than {MAX_SPANS:,} spans or {MAX_GROUPS:,} groups of spans: send less at once."
        )
    del request
    if len(body) <= 2 * MAX_PARTS:  # an empty part takes two bytes
        return
    parts = 0
    for resource in _PartsRequest.FromString(body).resources:
        for scope in resource.scopes:
            parts += sum(len(span.attributes) + len(span.events) + len(span.links) for span in scope.spans)
    if parts > MAX_PARTS:
        raise Malformed(f"The spans have more than {MAX_PARTS:,} attributes, events and links: send less at once.")


def _unreadable() -> Malformed:
    return Malformed("The request is not an OTLP ExportTraceServiceRequest: its bytes cannot be parsed.")


@dataclass(slots=True)
class _Group:
    """Spans of one scope of one resource of a request."""

    sender: _Sender
    count: int
    resource_at: int
    scope_at: int


@dataclass(slots=True)
class _Shapes:
    """The distinct shapes of a request, and which one each row has."""

    table: list[_Shape]
    rows: Array


_Links = dict[int, tuple[bytes, ...]]
"""By row the ids of the traces that a span links to, 16 bytes each, for the few that link to any."""


def _columns(request: Any) -> tuple[Array, _Shapes, list[_Group], Array | None, _Links, dict[int, int]]:
    """Index rows of a request that holds only the index's fields, spans as bytes. `name` and `resource` are left
    0. The fourth is a mask of the rows to keep, None for all; the last how many links a row to keep has to lose."""
    blobs: list[bytes] = []
    groups: list[_Group] = []
    for i, resource in enumerate(request.resources):
        for j, scope in enumerate(resource.scopes):
            before = len(blobs)
            blobs += scope.spans[:]  # a slice is a list at once; iterating would take three times as long
            if len(blobs) > before:
                groups.append(_Group(_sender(resource.resource, scope.scope), len(blobs) - before, i, j))
    count = len(blobs)
    if not count:
        return np.zeros(0, SPAN), _Shapes([], np.zeros(0, np.int64)), groups, None, {}, {}
    data = b"".join((*blobs, bytes(_MARGIN)))
    ends = np.cumsum(np.fromiter(map(len, blobs), np.int64, count))
    starts = np.concatenate((np.zeros(1, np.int64), ends[:-1]))

    def at(dtype: str, places: Array) -> Array:
        # The number that begins at each of these places: a view whose items overlap, one byte apart.
        view: Array = np.ndarray((len(data) - 7,), dtype, data, 0, (1,))
        picked: Array = view[places]  # `take` would copy the whole view first
        return picked

    # Trace id, span id, perhaps a parent, the name, then kind, start, end, and perhaps a status: the serialiser
    # writes fields in the order of their numbers. Where each tag stands is checked, so that nothing is assumed.
    child = at(">u2", starts + 28) == 0x2208
    named = starts + np.where(child, 38, 28)
    name = at(">u2", named)
    after = named + 2 + (name & 0xFF)
    kind, status = at(">u2", after), at(">u4", after + 20)
    failed = (status >> 8) == 0x7A0218
    code = np.where(failed, status & 0xFF, 0)
    size = 20 + np.where(failed, 4, np.where((status >> 16) == 0x7A00, 2, 0))
    plain = (at(">u2", starts) == 0x0A10) & (at(">u2", starts + 18) == 0x1208) & ((name & 0xFF80) == 0x2A00)
    plain &= (kind >= 0x3000) & (kind <= 0x3000 + _MAX_KIND) & (code <= _MAX_STATUS)
    plain &= (at("u1", after + 2) == 0x39) & (at("u1", after + 11) == 0x41)
    # A status that seems to be there may be the next span's beginning: only the length decides.
    plain &= after + size == ends
    np.minimum(after, ends, out=after)

    spans = np.zeros(count, SPAN)
    spans["trace_hi"], spans["trace_lo"] = at(">u8", starts + 2), at(">u8", starts + 10)
    spans["span"] = at(">u8", starts + 20)
    spans["parent"] = at(">u8", starts + 30) * child
    spans["start"] = np.minimum(at("<u8", after + 3), NANOSECOND_MAX)
    spans["end"] = np.minimum(at("<u8", after + 12), NANOSECOND_MAX)
    spans["kind_status"] = (kind & 0x0F) | (code << 4)

    kept = ((spans["trace_hi"] | spans["trace_lo"]) != 0) & (spans["span"] != 0)
    # A span's name and kind stand side by side: together they are the key of its shape.
    short = ends - starts < _SHORTEST  # a message object each would make a flood of empty spans dear
    odd = {row: _odd(spans, row, blobs[row]) for row in np.flatnonzero(~(plain | short)).tolist()}
    odd.update(dict.fromkeys(np.flatnonzero(short).tolist(), _NO_SPAN))
    kept[list(odd)] = [one.kept for one in odd.values()]
    froms, tos = (named + 2).tolist(), (after + 2).tolist()
    table: list[_Shape] = []
    numbers: dict[_Sender, _ShapeNumbers] = {}
    rows: list[int] = []
    for group in groups:
        known = numbers.get(group.sender)
        if known is None:
            known = numbers[group.sender] = _ShapeNumbers(group.sender, table)
        low, high = len(rows), len(rows) + group.count
        keys = [data[a:b] for a, b in zip(froms[low:high], tos[low:high], strict=True)]
        if odd:
            keys = [odd[row].key if row in odd else key for row, key in enumerate(keys, low)]
        rows += [known[key] for key in keys]
    numbered = np.array(rows, np.int64)
    spans["flags"] = np.array([shape.flags for shape in table], np.uint8)[numbered]
    links = {row: one.links for row, one in odd.items() if one.links and one.kept}
    bad_links = {row: one.bad_links for row, one in odd.items() if one.bad_links and one.kept}
    return spans, _Shapes(table, numbered), groups, None if kept.all() else kept, links, bad_links


_MARGIN: Final = 320  # no place worked out from a span lies further behind its end
_MAX_KIND: Final = 5
_MAX_STATUS: Final = 2


@dataclass(frozen=True, slots=True)
class _Odd:
    """A span that was read one by one. `key` is that of its shape as in the other rows: name, tag of kind, kind."""

    kept: bool
    key: bytes
    links: tuple[bytes, ...] = ()
    bad_links: int = 0


_NO_SPAN: Final = _Odd(False, b"\x30\x00")


def _odd(spans: Array, row: int, raw: bytes) -> _Odd:
    """Fill in the row of a span of unusual form: no times, no kind, a long name, ids of another length, links."""
    span = OtlpSpan.FromString(raw)
    lengths = (len(span.trace_id), len(span.span_id), len(span.parent_span_id))
    whole = any(span.trace_id) and any(span.span_id) and lengths in ((16, 8, 8), (16, 8, 0))
    kind = span.kind if 0 <= span.kind <= _MAX_KIND else 0
    status = span.status.code if 0 <= span.status.code <= _MAX_STATUS else 0
    number = int.from_bytes
    spans[row] = (
        number(span.trace_id[:8], "big"),
        number(span.trace_id[8:16], "big"),
        number(span.span_id[:8], "big"),
        number(span.parent_span_id[:8], "big"),
        min(span.start_time_unix_nano, NANOSECOND_MAX),
        min(span.end_time_unix_nano, NANOSECOND_MAX),
        0,
        0,
        kind | status << 4,
        0,
    )
    bad_links = drop_bad_links(span)
    return _Odd(whole, span.name[: MAX_STRING * 2].encode() + bytes((0x30, kind)), _linked(span), bad_links)


def _linked(span: OtlpSpan) -> tuple[bytes, ...]:
    """The traces that a span links to, each once and at most `MAX_LINKS`. An id that is none joins nothing."""
    ids: dict[bytes, None] = {}
    for link in span.links:
        if len(link.trace_id) == 16 and any(link.trace_id):
            ids.setdefault(link.trace_id)
            if len(ids) == MAX_LINKS:
                break
    return tuple(ids)


# --- facts -----------------------------------------------------------------------------------------
def _facts(
    body: bytes, spans: Array, shapes: _Shapes, groups: Sequence[_Group], kept: Array | None, strings: _Strings
) -> Array:
    """Fact rows of the spans whose shape has a role, in row order; their strings are added to `strings`, and the
    spans get FLAG_FACTS.

    A verb span only says again what its SERVER span says (audit id included since Kubernetes 1.34), and the two mostly
    come in one request: then it gets no row.
    """
    roles = np.array([shape.role for shape in shapes.table], np.uint8)[shapes.rows]
    rows = np.flatnonzero(roles) if kept is None else np.flatnonzero(roles * kept)
    if not len(rows):
        return np.zeros(0, FACT)
    rows = rows[np.argsort(roles[rows] != ROLE_SERVER, kind="stable")]
    request = _AttributesRequest.FromString(body)
    firsts = np.cumsum([0, *(group.count for group in groups)])
    owners = np.searchsorted(firsts, rows, "right") - 1
    messages: dict[int, Any] = {}
    told: set[tuple[int, int]] = set()
    found: list[bytes] = []
    for row, number, owner, place, *trace in zip(
        rows.tolist(),
        shapes.rows[rows].tolist(),
        owners.tolist(),
        (rows - firsts[owners]).tolist(),
        spans["trace_hi"][rows].tolist(),
        spans["trace_lo"][rows].tolist(),
        strict=True,
    ):
        shape = shapes.table[number]
        role = shape.role
        if role == ROLE_VERB and tuple(trace) in told:
            continue
        siblings = messages.get(owner)
        if siblings is None:
            group = groups[owner]
            siblings = messages[owner] = request.resources[group.resource_at].scopes[group.scope_at].spans
        span = siblings[place]
        said = span.status.message.decode() if role == ROLE_CALL else ""
        facts = facts_of(role, shape.name, _attributes(role, span.attributes), said)
        audit = _audit(facts.audit, strings)
        if role == ROLE_SERVER and facts.audit and facts.detail and facts.agent:
            told.add((trace[0], trace[1]))
        found.append(
            _FACT_ROW.pack(
                row,
                role,
                AUDIT_UUID if len(audit) == 16 else 0,
                facts.code,
                strings[facts.verb],
                strings[facts.group],
                strings[facts.version],
                strings[facts.resource],
                strings[facts.subresource],
                strings[facts.namespace],
                strings[facts.name],
                strings[facts.agent],
                strings[facts.detail],
                audit,
            )
        )
    unordered = np.frombuffer(b"".join(found), FACT)
    table: Array = unordered[np.argsort(unordered["row"])]
    spans["flags"][table["row"]] |= FLAG_FACTS
    return table


def _with_links(facts: Array, spans: Array, links: _Links, kept: Array | None) -> Array:
    """The facts and a row for each linked trace of a span that is kept, in row order; these spans get FLAG_FACTS."""
    told = [(row, one) for row, ids in links.items() if kept is None or kept[row] for one in ids]
    if not told:
        return facts
    more = np.zeros(len(told), FACT)
    more["row"] = [row for row, _ in told]
    more["role"], more["flags"] = ROLE_LINK, AUDIT_UUID
    more["audit"] = np.frombuffer(b"".join(one for _, one in told), "V16")
    spans["flags"][more["row"]] |= FLAG_FACTS
    table = np.concatenate((facts, more))
    ordered: Array = table[np.argsort(table["row"], kind="stable")]
    return ordered


_FACT_ROW: Final = struct.Struct("<IBBH9I16s4x")
assert _FACT_ROW.size == FACT.itemsize
_KEYS: Final = {role: {key.encode(): key for key in keys} for role, keys in WANTED.items()}


def _attributes(role: int, pairs: Sequence[bytes]) -> Found:
    """The attributes that a role wants, from serialised KeyValue messages that are known to parse.

    The costliest loop of ingest. Most pairs of a cluster are the same again and again (methods, resources, user
    agents), so what a pair says is remembered by its bytes.
    """
    known = _pairs[role]
    found: Found = {}
    for pair in pairs[:MAX_ATTRIBUTES]:  # sliced: to iterate the message's own container takes three times as long
        said = known.get(pair, _UNSEEN)
        if said is None:
            continue
        if said is _UNSEEN:
            said = _read_pair(role, pair)
            if len(pair) <= _PAIR_BYTES and (said is None or said[0] not in _UNIQUE):
                if len(known) >= _PAIRS_KEPT:
                    known.clear()
                known[pair] = said
            if said is None:
                continue
        found[said[0]] = said[1]
    return found


_PAIRS_KEPT: Final = 4_096
_PAIR_BYTES: Final = 160
_UNSEEN: Final = ("", "")
_UNIQUE: Final = frozenset(("audit-id", "http.target", "key"))
_pairs: Final[dict[int, dict[bytes, tuple[str, str] | None]]] = {role: {} for role in WANTED}


def _read_pair(role: int, pair: bytes) -> tuple[str, str] | None:
    """Key and text of a serialised KeyValue that a role wants, None for others. The usual forms are read right here,
    at a third of the price of a message object."""
    # 0A length key 12 length value; a value is 0A length text, or 18 number
    if len(pair) > 5 and pair[0] == 0x0A:
        end = pair[1] + 2
        key = _KEYS[role].get(pair[2:end])
        if key is None and end < 0x82:
            return None
        if end + 3 < len(pair) and pair[end] == 0x12 and len(pair) == end + 2 + pair[end + 1] < end + 0x82:  # noqa: SIM102
            if pair[end + 2] == 0x0A and pair[end + 3] == pair[end + 1] - 2:
                return (key, pair[end + 4 :].decode()) if key and len(pair) > end + 4 else None
    message = KeyValue.FromString(pair)
    text = message.value.string_value or str(message.value.int_value or "")
    if message.key not in WANTED[role] or not text:
        return None
    return message.key, text[: MAX_TARGET if message.key in LONG else MAX_STRING]


def _audit(text: str, strings: _Strings) -> bytes:
    """The 16 bytes of an audit id that is a UUID as the API server makes them; else the 4 of its string's number,
    big-endian."""
    if len(text) == 36:
        digits = text.replace("-", "")
        if len(digits) == 32 and text[8] == text[13] == text[18] == text[23] == "-" and digits == digits.lower():
            try:
                return bytes.fromhex(digits)
            except ValueError:
                pass
    return strings[text].to_bytes(4, "big")


# --- requests with something wrong in them ---------------------------------------------------------
def _salvage(body: bytes) -> tuple[bytes, int]:
    """The spans of an unparsable request that parse one by one.

    Returns:
        The request with them, and how many were left out.

    Raises:
        Malformed: not even the groups can be told apart, or nothing in them parses.
    """
    try:
        request = BytesRequest.FromString(body)
        _empty_unreadable(request)
        lost = keep_spans(
            request, lambda resource, scope, spans: [span for span in spans if _is_request(_wrapped(span, _SPAN))]
        )
        body = request.SerializeToString()
        if not _is_request(body):  # what is left is a schema URL that is not UTF-8, or a field nobody knows
            request.DiscardUnknownFields()
            body = request.SerializeToString()
            ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise _unreadable() from error
    if lost and not any(scope.spans for resource in request.resources for scope in resource.scopes):
        raise Malformed("The request is not an OTLP ExportTraceServiceRequest: none of its spans can be parsed.")
    return body, lost


def _empty_unreadable(request: Any) -> None:
    """A resource or scope that cannot be parsed is emptied: its spans do not become unreadable with it."""
    for resource in request.resources:
        if not _is_request(_wrapped(resource.resource, _RESOURCE)):
            resource.ClearField("resource")
        for scope in resource.scopes:
            if not _is_request(_wrapped(scope.scope, _SCOPE)):
                scope.ClearField("scope")


_RESOURCE: Final = b"\x0a\x0a"  # tags from the inside out: ResourceSpans.resource, resource_spans
_SCOPE: Final = b"\x0a\x12\x0a"  # ScopeSpans.scope, ResourceSpans.scope_spans, resource_spans
_SPAN: Final = b"\x12\x12\x0a"  # ScopeSpans.spans, ResourceSpans.scope_spans, resource_spans


def _wrapped(raw: bytes, tags: bytes) -> bytes:
    """A request of this message alone. Protobuf counts how deep a message is nested from the outermost one: what can
    be parsed by itself can be too deep where it stands."""
    head, size = b"", len(raw)
    for tag in tags:
        head = bytes((tag,)) + _varint(size) + head
        size = len(head) + len(raw)
    return head + raw


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _is_request(raw: bytes) -> bool:
    try:
        ExportTraceServiceRequest.FromString(raw)
    except DecodeError:
        return False
    return True
