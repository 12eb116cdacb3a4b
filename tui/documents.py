"""The JSON that scripts rely on: `traces --json` and `show --json`.

Field names are a contract; a field may be added, none is renamed. The text is printable ASCII, so that no value of a
span can do anything to a terminal.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, Protocol

from receiver.traces import verdict
from receiver.traces.model import Body, Event, Link, Node, Oddity, Settled, Span, Trace, TraceSummary, Value
from receiver.traces.phases import Phases

STATUS: Final = ("unset", "ok", "error")
LEFT_OUT: Final = ("attributes", "events", "links", "values")
_BODIES_AT_ONCE: Final = 1_000


class BodySource(Protocol):
    """Where the attributes of spans come from; `receiver.traces.reader.Bodies` is one."""

    def bodies(self, spans: Sequence[Span]) -> list[Body | None]:
        """The body of each span, None for one that was evicted."""


def dumps(document: Any) -> str:
    """One line of printable ASCII."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).replace("\x7f", "\\u007f")


def trace_document(summary: TraceSummary, phases: Phases | None = None, paired_with: str = "") -> dict[str, Any]:
    """A line of `traces --json`. Times in nanoseconds; `request` and `phases` are null where no API server took part.

    `paired_with` is the lone `authentication` trace of a request, or the request of such a trace (Kubernetes 1.33 on).
    `phases` sum to `duration_ns`, which is the headline's own time but in Kubernetes 1.33, which ends that span early.
    """
    known = phases if summary.request is not None else None
    return {
        "trace_id": summary.trace_id,
        "start": summary.start,
        "duration_ns": known.duration if known else summary.duration_ns,
        "spans": summary.spans,
        "errors": summary.errors,
        "services": list(summary.services),
        "settled": summary.settled is not Settled.ARRIVING,
        "missing_parents": summary.missing,
        "source": summary.source,
        "instance": summary.instance,
        "headline": summary.headline,
        "request": summary.request.to_json() if summary.request else None,
        "created": summary.created or None,
        "phases": known.to_json() if known else None,
        "paired_with": paired_with or None,
    }


def trace_lines(trace: Trace, bodies: BodySource, waited: int = 0) -> Iterator[str]:
    """The pieces of one line of `show --json`.

    In pieces and without recursion: a trace may be larger than is good for one string, and deeper than `json` goes.
    `waited` is how many ns a paired authentication began before the request (`pairing`).
    """
    head = {
        "trace_id": trace.trace_id,
        "verdict": verdict.judge(trace, bodies, authentication=waited).text,  # fills `critical_ns` of the nodes, too
        "start": trace.start,
        "end": trace.end,
        "spans": trace.spans,
        "errors": trace.errors,
        "settled": trace.settled is not Settled.ARRIVING,
        "missing_parents": trace.missing,
        "left_out": trace.left_out,
        "request": trace.request.to_json() if trace.request else None,
    }
    yield dumps(head)[:-1] + ',"roots":['
    depth = 0
    nodes = walk(trace.roots)
    first = True
    while group := list(islice(nodes, _BODIES_AT_ONCE)):
        for node, body in zip(group, bodies.bodies([node.span for node in group]), strict=True):
            if not first and node.depth <= depth:
                yield "]}" * (depth - node.depth + 1) + ","
            yield dumps(span_document(node, body))[:-1] + ',"children":['
            depth, first = node.depth, False
    yield ("" if first else "]}" * (depth + 1)) + "]}"


def raw_pieces(documents: Iterable[dict[str, Any]], indented: bool) -> Iterator[str]:
    """The pieces of one OTLP JSON document, `show --raw`, that holds the resource groups of all of these. Printable
    ASCII; what `json.dumps` makes of it, with `indent=2` where it is indented."""
    indent = 2 if indented else None
    yield '{\n  "resourceSpans": [' if indented else '{"resourceSpans": ['
    first = True
    for document in documents:
        for group in document["resourceSpans"]:
            text = json.dumps(group, indent=indent).replace("\x7f", "\\u007f")
            if indented:
                text = "\n    " + text.replace("\n", "\n    ")
            yield text if first else f",{'' if indented else ' '}{text}"
            first = False
    yield ("]\n}\n" if first else "\n  ]\n}\n") if indented else "]}\n"


def walk(roots: list[Node]) -> Iterator[Node]:
    """All nodes, parents before children, in start order; without recursion."""
    waiting = list(reversed(roots))
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(node.children))


def span_document(node: Node, body: Body | None) -> dict[str, Any]:
    """A node of `show --json`, without its children. An evicted body leaves attributes, events and links null."""
    span = node.span
    return {
        "span_id": span.span_id,
        "parent_id": span.parent_id or None,
        "name": span.name,
        "service": span.service,
        "instance": span.instance or None,
        "component": span.component.value,
        "kind": span.kind.name.lower(),
        "start": span.start,
        "duration_ns": span.duration,
        "self_ns": node.self_ns,
        "critical_ns": node.critical_ns,
        "status": STATUS[span.status] if 0 <= span.status < len(STATUS) else str(span.status),
        "status_message": body.status_message if body else None,
        "attributes": _values(body.attributes) if body else None,
        "events": [_event(event) for event in body.events] if body else None,
        "links": [_link(link) for link in body.links] if body else None,
        "resource": _values(body.resource) if body else None,
        "scope": {"name": body.scope_name, "version": body.scope_version} if body else None,
        "left_out": dict(zip(LEFT_OUT, body.left_out, strict=True)) if body else None,
        "source": span.source,
        "orphan": Oddity.ORPHAN in node.oddities,
        "oddities": sorted(oddity.name.lower() for oddity in node.oddities),
    }


def _event(event: Event) -> dict[str, Any]:
    return {"time": event.time, "name": event.name, "attributes": _values(event.attributes)}


def _link(link: Link) -> dict[str, Any]:
    return {"trace_id": link.trace_id, "span_id": link.span_id, "attributes": _values(link.attributes)}


def _values(attributes: dict[str, Value]) -> dict[str, Any]:
    return {key: _value(value) for key, value in attributes.items()}


def _value(value: Value) -> Any:
    """What JSON has no form for: bytes become base64, infinities and NaN their names (as in proto3 JSON)."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list):
        return [_value(item) for item in value]
    if isinstance(value, dict):
        return _values(value)
    return value
