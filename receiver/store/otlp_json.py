"""OTLP's JSON and its messages, both ways.

OTLP 1.5 ("JSON Protobuf Encoding") is the proto3 JSON mapping with two differences: trace and span ids are
hex, not base64, and enums are numbers. `google.protobuf.json_format` does neither, and takes two to four times as long
(65,810 real spans: 7.5 s to read and 5.1 s to write against 2.0 s and 3.1 s here, in one run). Both directions are
tables made once from the descriptors of the installed messages, so a field that a later release of OTLP adds is read
and written without a change here.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Final, TypeVar

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_ID_BYTES: Final = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}
_NO_ID: Final = b"?"
"""Stands for the id of a link that cannot be read. It has the wrong length, as others that are sent have: ingest leaves
such links out, and the span stays."""
_INTEGERS: Final = frozenset(
    {
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_SINT32,
        FieldDescriptor.TYPE_SINT64,
        FieldDescriptor.TYPE_FIXED32,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED32,
        FieldDescriptor.TYPE_SFIXED64,
    }
)
_WIDE: Final = frozenset(
    {
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_SINT64,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED64,
    }
)
RESOURCE_SPANS: Final = ("resourceSpans", "resource_spans")
"""What the resources of a request go under. Proto3 JSON takes a field's own name, too."""
SCOPE_SPANS: Final = ("scopeSpans", "scope_spans", "instrumentationLibrarySpans", "instrumentation_library_spans")
"""... and the scopes of a resource: with the last two until OTLP 0.19 (2022)."""
_OLD_NAMES: Final = {
    "ResourceSpans": dict.fromkeys(SCOPE_SPANS[2:], "scope_spans"),
    "ScopeSpans": {"instrumentationLibrary": "scope", "instrumentation_library": "scope"},
}
_DIGITS: Final = 40  # no 64-bit number is longer; keeps int() of a hostile string cheap


_Message = TypeVar("_Message", bound=Message)


class Unreadable(ValueError):
    """The JSON is not an ExportTraceServiceRequest; str() says what is wrong, without a full stop."""


# --- JSON to messages ------------------------------------------------------------------------------
def read_request(document: object, left_out: Callable[[int, str], None] | None = None) -> ExportTraceServiceRequest:
    """A message from a parsed JSON document. Unknown fields are ignored, as the specification asks.

    Ids are hex; base64 is taken too where its length says so. 64-bit numbers may be strings or numbers,
    enums numbers or names.

    Args:
        left_out: takes how many spans cannot be read and what is wrong with the first; the others are in the message.
            None, or no other span: they are all refused.

    Raises:
        Unreadable: not OTLP trace data, or a field with a value that it cannot hold.
    """
    try:
        return _read(document)
    except Unreadable as problem:
        if left_out is None:
            raise
        kept, bad, lost = _readable(document)
        if not kept or not bad:
            raise
        request = _read(lost)
        left_out(bad, str(problem))
        return request


def _readable(document: Any) -> tuple[int, int, Any]:
    """How many spans of a document can be read, how many cannot, and the document without those."""
    kept = bad = 0

    def whole(span: object) -> bool:
        nonlocal kept, bad
        try:
            _made(Span, span)
        except Unreadable:
            bad += 1
            return False
        kept += 1
        return True

    def under(parent: Any, names: Sequence[str], part: Callable[[Any], Any]) -> dict[str, Any]:
        return {**parent, **{name: [part(one) for one in parent[name] or ()] for name in names if name in parent}}

    def scope(one: Any) -> dict[str, Any]:
        return {**one, "spans": [span for span in one.get("spans") or () if whole(span)]}

    try:
        copy = under(document, RESOURCE_SPANS, lambda resource: under(resource, SCOPE_SPANS, scope))
    except (TypeError, AttributeError, KeyError):  # what holds the spans is broken
        return 0, 0, document
    return kept, bad, copy


def _read(document: object) -> ExportTraceServiceRequest:
    if not isinstance(document, dict):
        raise Unreadable("is not a JSON object")
    if not any(name in document for name in RESOURCE_SPANS):
        raise Unreadable("has no resourceSpans")
    return _made(ExportTraceServiceRequest, document)


def _made(kind: type[_Message], document: object) -> _Message:
    try:
        try:
            return kind(**_reader(kind.DESCRIPTOR)(document))
        except UnicodeEncodeError:  # halves of UTF-16's pairs, as JavaScript cuts texts
            return kind(**_reader(kind.DESCRIPTOR)(_without_halves(document)))
    except Unreadable:
        raise
    except RecursionError:
        raise Unreadable("is nested too deeply") from None
    except (ValueError, TypeError, AttributeError, OverflowError) as problem:
        raise Unreadable(f"has a field with a wrong value ({_short(str(problem))})") from None


def _without_halves(document: object) -> object:
    """A document with U+FFFD for each half of a pair that stands alone, which no UTF-8 can hold."""
    text = json.dumps(document, ensure_ascii=False)
    return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def _short(text: str) -> str:
    return " ".join(text.split())[:120]


def _integer(value: Any) -> int:
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str) and len(value) <= _DIGITS:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise Unreadable("has something else where a whole number belongs")


def _real(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)) or len(str(value)) > 400:
        raise Unreadable("has something else where a number belongs")
    return float(value)


def _id_reader(size: int) -> Callable[[Any], bytes]:
    hex_digits = 2 * size
    base64_digits = 4 * ((size + 2) // 3)

    def read(value: Any) -> bytes:
        if not isinstance(value, str):
            raise Unreadable("has an id that is not a string")
        try:
            if len(value) == hex_digits or not value:
                return bytes.fromhex(value)
            if len(value) == base64_digits:
                raw = base64.b64decode(value, validate=True)
                if len(raw) == size:
                    return raw
        except ValueError:  # binascii.Error is one
            pass
        raise Unreadable(f"has an id that is not {hex_digits} hex digits: {_short(value)[:40]!r}")

    return read


def _link_id(value: Any) -> bytes:
    if not isinstance(value, str):
        raise Unreadable("has an id that is not a string")
    with suppress(ValueError):
        return bytes.fromhex(value)
    # plain proto3 JSON: base64 of the right size
    for size in (16, 8):
        with suppress(Unreadable):
            return _id_reader(size)(value)
    return _NO_ID


def _bytes(value: Any) -> bytes:
    if not isinstance(value, str):
        raise Unreadable("has bytes that are not a base64 string")
    text = value.replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise Unreadable("has bytes that are not base64") from None


def _enum_reader(enum: EnumDescriptor) -> Callable[[Any], int]:
    numbers = {value.name: value.number for value in enum.values}

    def read(value: Any) -> int:
        if isinstance(value, str):
            if value in numbers:
                return numbers[value]
            raise Unreadable(f"has {_short(value)[:40]!r} where {enum.name} belongs")
        return _integer(value)

    return read


def _list_of(read: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    def read_list(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise Unreadable("has something else where a list belongs")
        return [read(item) for item in value]

    return read_list


def _attributes(value: Any) -> list[dict[str, Any]]:
    """The reader of KeyValue lists, most of all data: the string value is taken without a walk through tables."""
    if not isinstance(value, list):
        raise Unreadable("has something else where attributes belong")
    read = _reader(KeyValue.DESCRIPTOR)
    pairs: list[dict[str, Any]] = []
    for item in value:
        if isinstance(item, dict) and len(item) == 2:
            content = item.get("value")
            if isinstance(content, dict) and len(content) == 1 and "stringValue" in content and "key" in item:
                pairs.append({"key": item["key"], "value": {"string_value": content["stringValue"]}})
                continue
        pairs.append(read(item))
    return pairs


def _field_reader(field: FieldDescriptor) -> Callable[[Any], Any]:
    read: Callable[[Any], Any]
    if field.message_type is not None:
        if field.message_type.full_name == KeyValue.DESCRIPTOR.full_name:
            return _attributes
        message_type = field.message_type
        # the lookup is late because AnyValue holds itself
        read = lambda value: _reader(message_type)(value)  # noqa: E731
    elif field.enum_type is not None:
        read = _enum_reader(field.enum_type)
    elif field.type in _INTEGERS:
        read = _integer
    elif field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        read = _real
    elif field.type == FieldDescriptor.TYPE_BYTES:
        of_link = (
            field.containing_type is not None and field.containing_type.full_name == Span.Link.DESCRIPTOR.full_name
        )
        read = (_link_id if of_link else _id_reader(_ID_BYTES[field.name])) if field.name in _ID_BYTES else _bytes
    else:
        read = _as_it_is  # strings and booleans: the message checks them
    return _list_of(read) if field.is_repeated else read


def _as_it_is(value: Any) -> Any:
    return value


@cache
def _reader(descriptor: Descriptor) -> Callable[[Any], dict[str, Any]]:
    fields: dict[str, tuple[str, Callable[[Any], Any]]] = {}

    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Unreadable(f"has something else where {descriptor.name} belongs")
        found: dict[str, Any] = {}
        for key, item in value.items():
            field = fields.get(key)
            if field is not None and item is not None:
                name, content = field[0], field[1](item)
                if name in found and isinstance(content, list):  # under two of its names
                    content = found[name] + content
                found[name] = content
        return found

    for field in descriptor.fields:
        fields[field.json_name] = fields[field.name] = (field.name, _field_reader(field))
    for name, now in _OLD_NAMES.get(descriptor.name, {}).items():
        fields[name] = fields[now]
    return read


# --- messages to JSON ------------------------------------------------------------------------------
def as_json(message: Message) -> dict[str, Any]:
    """The JSON object of an OTLP message (a request, a resource, a scope, a span): fields that are set, in the
    order of their numbers, as the Collector's file exporter writes them."""
    return _writer(message.DESCRIPTOR)(message)


def _real_json(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _field_writer(field: FieldDescriptor) -> Callable[[Any], Any]:
    write: Callable[[Any], Any]
    if field.message_type is not None:
        if field.message_type.full_name == KeyValue.DESCRIPTOR.full_name:
            return _attributes_json
        message_type = field.message_type
        write = lambda value: _writer(message_type)(value)  # noqa: E731
    elif field.type in _WIDE:
        write = str
    elif field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        write = _real_json
    elif field.type == FieldDescriptor.TYPE_BYTES:
        write = bytes.hex if field.name in _ID_BYTES else lambda value: base64.b64encode(value).decode("ascii")
    else:
        write = _as_it_is
    return (lambda values: [write(value) for value in values]) if field.is_repeated else write


def _attributes_json(pairs: Any) -> list[dict[str, Any]]:
    """KeyValue lists, the writing side of `_attributes`."""
    write = _writer(KeyValue.DESCRIPTOR)
    return [
        {"key": pair.key, "value": {"stringValue": pair.value.string_value}}
        if pair.value.WhichOneof("value") == "string_value" and pair.key
        else write(pair)
        for pair in pairs
    ]


@cache
def _writer(descriptor: Descriptor) -> Callable[[Any], dict[str, Any]]:
    fields: dict[int, tuple[str, Callable[[Any], Any]]] = {}

    def write(message: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for field, value in message.ListFields():
            name, convert = fields[field.number]
            found[name] = convert(value)
        return found

    for field in descriptor.fields:
        fields[field.number] = (field.json_name, _field_writer(field))
    return write
