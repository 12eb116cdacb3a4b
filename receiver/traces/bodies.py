"""The bodies of spans: attributes, events, links, decoded only when they are looked at.

A stored request is first parsed down to its spans as bytes, which is cheap for any number of spans; then only the
spans that are wanted are parsed. Sizes are hostile: values, their depth and the number of events are bounded here, and
what is kept in memory is bounded by bytes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from receiver.store.database import Database
from receiver.store.otlp_json import as_json
from receiver.traces.model import Body, Event, Link, Span, Value

MAX_VALUE: Final = 64 * 1024
"""Characters (bytes) of one value, counted over all that is nested in it; longer ones end in `…`."""
MAX_DEPTH: Final = 8
"""Lists and maps inside each other; deeper ones become `…`."""
MAX_ENTRIES: Final = 4_096
"""Attributes, events or links of a span that are decoded; OpenTelemetry's own limit is 128."""
_CUT: Final = "…"
_CACHE_BYTES: Final = 32 << 20


def _schema() -> Any:
    """OTLP 1.5's request down to the spans, with resources, scopes and spans as bytes."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="k8s_trace_tui/bodies.proto", package="k8s_trace_tui.bodies")
    file.syntax = "proto3"
    for message, content, many in (("Scope", None, "spans"), ("Resource", "Scope", "scopes")):
        made = file.message_type.add(name=message)
        made.field.add(name="head", number=1, label=kinds.LABEL_OPTIONAL, type=kinds.TYPE_BYTES)
        inner = made.field.add(name=many, number=2, label=kinds.LABEL_REPEATED, type=kinds.TYPE_BYTES)
        if content:
            inner.type, inner.type_name = kinds.TYPE_MESSAGE, f".{file.package}.{content}"
        made.field.add(name="schema_url", number=3, label=kinds.LABEL_OPTIONAL, type=kinds.TYPE_STRING)
    request = file.message_type.add(name="Request")
    inner = request.field.add(name="resources", number=1, label=kinds.LABEL_REPEATED, type=kinds.TYPE_MESSAGE)
    inner.type_name = f".{file.package}.Resource"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.Request"))


_Request: Final = _schema()


@dataclass(frozen=True, slots=True)
class _Place:
    """A span's bytes and what they stand under; equal heads of one request are the same objects."""

    span: bytes
    scope: bytes
    scope_schema: str
    resource: bytes
    resource_schema: str


class _Outline:
    """One stored request: the bytes of its spans, in document order."""

    __slots__ = ("places", "size")

    def __init__(self, raw: bytes) -> None:
        self.size = len(raw)
        self.places = [
            _Place(span, scope.head, scope.schema_url, resource.head, resource.schema_url)
            for resource in _Request.FromString(raw).resources
            for scope in resource.scopes
            for span in scope.spans
        ]


class Bodies:
    """Bodies of spans out of a database. May be used from several threads.

    Every method may raise `receiver.store.database.StoreError` when the file cannot be read.
    """

    def __init__(self, database: Database, cache: int = _CACHE_BYTES) -> None:
        """
        Args:
            cache: bytes of requests that are kept parsed; at least the last one used is.
        """
        self._database = database
        self._cache = cache
        self._outlines: OrderedDict[int, _Outline] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

    def body(self, span: Span) -> Body | None:
        """The rest of a span; None when its request was evicted or cannot be read any more."""
        return self.bodies((span,))[0]

    def bodies(self, spans: Sequence[Span]) -> list[Body | None]:
        """The rest of these spans, each as `body` gives it; one query for all of them."""
        resources: dict[bytes, tuple[dict[str, Value], _Cuts]] = {}
        scopes: dict[bytes, tuple[str, str]] = {}
        found: list[Body | None] = []
        for place in self._places(spans):
            try:
                if place is None:
                    found.append(None)
                    continue
                if place.resource not in resources:
                    cuts = _Cuts()
                    pairs = ResourceMessage.FromString(place.resource).attributes
                    resources[place.resource] = (_attributes(pairs, cuts), cuts)
                if place.scope not in scopes:
                    scope = InstrumentationScope.FromString(place.scope)
                    scopes[place.scope] = (scope.name[:MAX_VALUE], scope.version[:MAX_VALUE])
                found.append(_body(place.span, resources[place.resource], scopes[place.scope]))
            except DecodeError:
                found.append(None)
        return found

    def raw(self, spans: Sequence[Span]) -> dict[str, Any]:
        """OTLP JSON that holds these spans and nothing else, complete and as OpenTelemetry's Collector writes it:
        ids in hex, lowerCamelCase, 64-bit numbers as strings, enums as numbers. Spans that were evicted are left
        out; of equal resources and scopes one is made."""
        document: dict[tuple[bytes, str], dict[tuple[bytes, str], list[dict[str, Any]]]] = {}
        for place in self._places(spans):
            if place is None:
                continue
            try:
                span = as_json(SpanMessage.FromString(place.span))
            except DecodeError:
                continue
            scopes = document.setdefault((place.resource, place.resource_schema), {})
            scopes.setdefault((place.scope, place.scope_schema), []).append(span)
        return {
            "resourceSpans": [
                {
                    "resource": as_json(ResourceMessage.FromString(resource)),
                    "scopeSpans": [
                        {
                            "scope": as_json(InstrumentationScope.FromString(scope)),
                            "spans": those,
                            **_schema_url(scope_schema),
                        }
                        for (scope, scope_schema), those in scopes.items()
                    ],
                    **_schema_url(resource_schema),
                }
                for (resource, resource_schema), scopes in document.items()
            ]
        }

    def _places(self, spans: Sequence[Span]) -> list[_Place | None]:
        outlines = self._find({span.chunk for span in spans})
        found: list[_Place | None] = []
        for span in spans:
            outline = outlines.get(span.chunk)
            held = outline is not None and 0 <= span.row < len(outline.places)
            found.append(outline.places[span.row] if outline is not None and held else None)
        return found

    def _find(self, chunks: Iterable[int]) -> dict[int, _Outline]:
        found: dict[int, _Outline] = {}
        absent: list[int] = []
        with self._lock:
            for chunk in chunks:
                outline = self._outlines.get(chunk)
                if outline is None:
                    absent.append(chunk)
                else:
                    self._outlines.move_to_end(chunk)
                    found[chunk] = outline
        for low in range(0, len(absent), 16):  # decompressed requests are big: a few at a time
            for chunk, raw in self._database.whole_bodies(sorted(absent)[low : low + 16], _passed_over).items():
                try:
                    found[chunk] = _Outline(raw)
                except DecodeError:
                    continue
                self._keep(chunk, found[chunk])
        return found

    def _keep(self, chunk: int, outline: _Outline) -> None:
        with self._lock:
            old = self._outlines.pop(chunk, None)
            self._held += outline.size - (old.size if old else 0)
            self._outlines[chunk] = outline
            while self._held > self._cache and len(self._outlines) > 1:
                _, gone = self._outlines.popitem(last=False)
                self._held -= gone.size


def _passed_over(chunk: int) -> None:
    """What is damaged has no body: who asks for it is told None."""


def _schema_url(url: str) -> dict[str, str]:
    return {"schemaUrl": url} if url else {}


class _Cuts:
    """What the bounds left out of a span or a resource."""

    __slots__ = ("attributes", "values")

    def __init__(self, attributes: int = 0, values: int = 0) -> None:
        self.attributes = attributes
        self.values = values


def _body(raw: bytes, of: tuple[dict[str, Value], _Cuts], scope: tuple[str, str]) -> Body:
    resource, before = of
    cuts = _Cuts(before.attributes, before.values)
    span = SpanMessage.FromString(raw)
    events = tuple(
        Event(event.time_unix_nano, event.name[:MAX_VALUE], _attributes(event.attributes, cuts))
        for event in islice(span.events, MAX_ENTRIES)
    )
    links = tuple(
        Link(link.trace_id.hex()[:32], link.span_id.hex()[:16], _attributes(link.attributes, cuts))
        for link in islice(span.links, MAX_ENTRIES)
    )
    attributes = _attributes(span.attributes, cuts)
    cuts.values += len(span.status.message) > MAX_VALUE
    return Body(
        attributes=attributes,
        events=events,
        links=links,
        status_message=span.status.message[:MAX_VALUE],
        resource=resource,
        scope_name=scope[0],
        scope_version=scope[1],
        dropped=(
            span.dropped_attributes_count + max(0, len(span.attributes) - MAX_ENTRIES),
            span.dropped_events_count + len(span.events) - len(events),
            span.dropped_links_count + len(span.links) - len(links),
        ),
        trace_state=span.trace_state[:MAX_VALUE],
        flags=span.flags,
        left_out=(cuts.attributes, len(span.events) - len(events), len(span.links) - len(links), cuts.values),
    )


def _attributes(pairs: Any, cuts: _Cuts) -> dict[str, Value]:
    cuts.attributes += max(0, len(pairs) - MAX_ENTRIES)
    return {pair.key[:MAX_VALUE]: _value(pair.value, cuts) for pair in islice(pairs, MAX_ENTRIES)}


def _value(value: Any, cuts: _Cuts) -> Value:
    if value.WhichOneof("value") == "string_value":
        text: str = value.string_value
        if len(text) <= MAX_VALUE:
            return text
        cuts.values += 1
        return text[:MAX_VALUE] + _CUT
    reading = _Reading()
    found = reading.value(value, MAX_DEPTH)
    cuts.values += reading.cut
    return found


class _Reading:
    """Reads one value within its bounds."""

    def __init__(self) -> None:
        self._left = MAX_VALUE
        self.cut = False

    def value(self, value: Any, depth: int) -> Value:
        which = value.WhichOneof("value")
        if which is None:
            return None
        content = getattr(value, which)
        if which in ("array_value", "kvlist_value"):
            return self._nested(content, depth - 1, which == "kvlist_value")
        if isinstance(content, (str, bytes)):
            return self._cut(content)
        self._left -= 8
        found: Value = content
        return found

    def _nested(self, content: Any, depth: int, named: bool) -> Value:
        if depth <= 0:
            self.cut = True
            return _CUT
        items: list[Value] = []
        pairs: dict[str, Value] = {}
        for item in content.values:
            if self._left <= 0:
                self.cut = True
                if not named:
                    items.append(_CUT)
                else:
                    pairs[_CUT] = _CUT
                break
            self._left -= 1
            if named:
                key = str(self._cut(item.key))
                pairs[key] = self.value(item.value, depth)
            else:
                items.append(self.value(item, depth))
        return pairs if named else items

    def _cut(self, content: str | bytes) -> str | bytes:
        left = max(0, self._left)
        self._left -= len(content)
        if len(content) <= left:
            return content
        self.cut = True
        return content[:left] + _CUT if isinstance(content, str) else content[:left]
