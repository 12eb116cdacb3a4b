"""An ExportTraceServiceRequest taken apart no further than its spans.

A second schema of the same wire format (OTLP 1.5) in which spans are bytes: what is left out or merged is left out
and merged without being understood, so unknown fields survive and nothing is parsed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD: Final = descriptor_pb2.FieldDescriptorProto
BYTES: Final = _FIELD.TYPE_BYTES
INT32: Final = _FIELD.TYPE_INT32
FIXED64: Final = _FIELD.TYPE_FIXED64
OLD_SCOPES: Final = 1000
"""ResourceSpans.instrumentation_library_spans, until OTLP 0.19 (opentelemetry-proto, trace.proto): what is now
`scope_spans`, field 2, under another number."""


def message_type(package: str, messages: dict[str, Sequence[tuple[str, int, int | str, bool]]]) -> Callable[[str], Any]:
    """Message classes made at start-up.

    Args:
        package: a name of its own.
        messages: by name, the fields: name, number, type (a message's name or one of the constants above), repeated.

    Returns:
        What gives the class of a message by its name.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        built = file.message_type.add(name=name)
        for field, number, kind, many in fields:
            label = _FIELD.LABEL_REPEATED if many else _FIELD.LABEL_OPTIONAL
            added = built.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                added.type, added.type_name = _FIELD.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                added.type = kind  # type: ignore[assignment]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))


def request_type(package: str, span: int | str, more: dict[str, Sequence[tuple[str, int, int | str, bool]]]) -> Any:
    """The class of a request whose spans are `span`: bytes, or one of the messages in `more`. Resource and scope are
    bytes."""
    find = message_type(
        package,
        {
            **more,
            "Scope": (("scope", 1, BYTES, False), ("spans", 2, span, True)),
            "Resource": (
                ("resource", 1, BYTES, False),
                ("scopes", 2, "Scope", True),
                ("old_scopes", OLD_SCOPES, BYTES, True),
            ),
            "Request": (("resources", 1, "Resource", True),),
        },
    )
    return find("Request")


BytesRequest: Final = request_type("k8s_trace_tui.bytes", BYTES, {})
"""Has `resources`, each with `resource` (bytes) and `scopes`, each with `scope` (bytes) and `spans` (bytes each)."""


def has_old_scopes(request: Any) -> bool:
    """Whether a request, of any of these types, has spans where they were until OTLP 0.19."""
    return any(resource.old_scopes for resource in request.resources)


def with_current_scopes(body: bytes) -> bytes:
    """A serialised request with all its spans where they are now; nothing else of it changes.

    Raises:
        google.protobuf.message.DecodeError: it is not a request.
    """
    request = BytesRequest.FromString(body)
    for resource in request.resources:
        for raw in resource.old_scopes:
            resource.scopes.add().MergeFromString(raw)
        resource.ClearField("old_scopes")
    current: bytes = request.SerializeToString()
    return current


def keep_spans(request: Any, keep: Callable[[Any, Any, list[bytes]], list[bytes]]) -> int:
    """Leave in each scope of a `BytesRequest` the spans that `keep(resource, scope, spans)` gives.

    Returns:
        How many spans went.
    """
    lost = 0
    for resource in request.resources:
        for scope in resource.scopes:
            spans = list(scope.spans)
            left = keep(resource, scope, spans)
            if len(left) < len(spans):
                lost += len(spans) - len(left)
                scope.spans[:] = left
    return lost


def select_spans(body: bytes, kept: Sequence[bool]) -> bytes:
    """A serialised request with those of its spans (in document order) that are kept. Groups that are left without
    spans go too.

    Raises:
        google.protobuf.message.DecodeError: it is not a request.
        StopIteration: it holds more spans than `kept` tells about.
    """
    request = BytesRequest.FromString(body)
    mask = iter(kept)
    keep_spans(request, lambda resource, scope, spans: [span for span in spans if next(mask)])
    for resource in request.resources:
        if not all(scope.spans for scope in resource.scopes):
            full = [scope for scope in resource.scopes if scope.spans]
            copies = [type(scope).FromString(scope.SerializeToString()) for scope in full]
            resource.ClearField("scopes")
            resource.scopes.extend(copies)
    if not all(resource.scopes for resource in request.resources):
        small = BytesRequest()
        small.resources.extend(resource for resource in request.resources if resource.scopes)
        request = small
    raw: bytes = request.SerializeToString()
    return raw


def span_sizes(body: bytes) -> list[int]:
    """Bytes of each span of a serialised request, in document order.

    Raises:
        google.protobuf.message.DecodeError: it is not a request.
    """
    return [
        len(span)
        for resource in BytesRequest.FromString(body).resources
        for scope in resource.scopes
        for span in scope.spans
    ]


def divide_spans(body: bytes, piece_of: Sequence[int], pieces: int) -> list[bytes]:
    """A serialised request as several: each span (in document order) goes into the piece of its number. Numbers must
    not fall.

    Raises:
        google.protobuf.message.DecodeError: it is not a request.
    """
    made = [BytesRequest() for _ in range(pieces)]
    at = 0
    for resource in BytesRequest.FromString(body).resources:
        copies: dict[int, Any] = {}
        for scope in resource.scopes:
            spans = list(scope.spans)
            while spans:
                piece = piece_of[at]
                own = bisect_right(piece_of, piece, at) - at
                group = copies.get(piece)
                if group is None:
                    group = copies[piece] = made[piece].resources.add()
                    group.CopyFrom(resource)  # with the fields that we do not know
                    group.ClearField("scopes")
                part = group.scopes.add()
                part.CopyFrom(scope)
                part.ClearField("spans")
                part.spans.extend(spans[:own])
                at += min(own, len(spans))
                spans = spans[own:]
    return [one.SerializeToString() for one in made]
