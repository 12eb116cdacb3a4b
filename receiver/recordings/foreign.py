"""What Jaeger's and Zipkin's JSON have in common: ids, times, and tags that are a span's status in OTLP."""

from __future__ import annotations

from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from receiver.store.otlp_json import Unreadable

BROKEN: Final = (Unreadable, TypeError, ValueError, KeyError, AttributeError, OverflowError)
"""What reading a span out of any JSON value raises where it is none."""
_MOST_US: Final = (1 << 64) // 1000 - 1


def clause(problem: Exception) -> str:
    """What is wrong with a span, for a sentence."""
    return f"no {problem}" if isinstance(problem, KeyError) else " ".join(str(problem).split())[:120]


def of_status(span: Span, pair: KeyValue) -> bool:
    """Whether an attribute is a part of the span's status, and is there now."""
    said = pair.value.string_value
    if pair.key == "otel.status_code" and said in ("OK", "ERROR"):
        span.status.code = Status.STATUS_CODE_OK if said == "OK" else Status.STATUS_CODE_ERROR
    elif pair.key in ("otel.status_description", "otel.status_message"):
        span.status.message = said
    elif pair.key == "w3c.tracestate":
        span.trace_state = said
    elif pair.key == "error" and (pair.value.bool_value or said.lower() == "true"):
        span.status.code = Status.STATUS_CODE_ERROR
    elif pair.key == "error" and said.lower() in ("", "false"):
        pass
    else:
        return False
    return True


def attribute(key: str, value: object) -> KeyValue:
    """An attribute of a JSON value; what OTLP has no type for is text."""
    pair = KeyValue(key=key)
    if isinstance(value, bool):
        pair.value.bool_value = value
    elif isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        pair.value.int_value = value
    elif isinstance(value, float):
        pair.value.double_value = value
    elif value is not None:
        pair.value.string_value = value if isinstance(value, str) else str(value)
    return pair


def hex_id(value: object, size: int) -> bytes:
    """An id of so many bytes; older libraries write 64 bits of a trace's, and leave zeros in front out.

    Raises:
        Unreadable: it is none.
    """
    if isinstance(value, str) and 0 < len(value) <= 2 * size:
        try:
            return bytes.fromhex(value.rjust(2 * size, "0"))
        except ValueError:
            pass
    raise Unreadable(f"an id that is not {2 * size} hex digits")


def nanoseconds(microseconds: object) -> int:
    """Raises:
    Unreadable: it is no time.
    """
    if isinstance(microseconds, str) and len(microseconds) < 20:
        microseconds = int(microseconds)
    if isinstance(microseconds, (int, float)) and 0 <= microseconds <= _MOST_US:
        return int(microseconds * 1000)
    raise Unreadable("a time that is none")
