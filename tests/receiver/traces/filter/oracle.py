"""What a filter means, the plain and slow way: over loaded traces with their trees and bodies, one after the other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from receiver.store.index import Index
from receiver.traces.bodies import Bodies
from receiver.traces.filter.fields import PHASE_FIELDS
from receiver.traces.filter.syntax import All, Condition, Either, Node, Not, OneSpan, Word
from receiver.traces.model import Node as SpanNode
from receiver.traces.model import Settled, Trace, TraceSummary
from receiver.traces.phases import phases_of
from receiver.traces.reader import load, summaries
from receiver.traces.tree import walk
from receiver.traces.verdict import judge

QUIET = 10_000_000_000


@dataclass(frozen=True)
class Looked:
    """One span with all that it has."""

    node: SpanNode
    values: dict[str, list[Any]]
    webhook: tuple[str, ...]
    code: int


@dataclass(frozen=True)
class Plain:
    """One trace with all that it has."""

    row: TraceSummary
    trace: Trace
    received: int
    spans: list[Looked]
    texts: list[str]


def plain(index: Index, bodies: Bodies, now: int) -> list[Plain]:
    """All traces of an index, by slot."""
    found = []
    for slot, row in enumerate(summaries(index, range(index.traces), now)):
        trace = load(index, row.trace_id, now)
        assert trace is not None
        judge(trace, bodies)
        spans = [_look(node, bodies) for node in walk(trace)]
        texts = [row.headline, *row.services, *(hook for span in spans for hook in span.webhook)]
        request = row.request
        if request is not None:
            resource = f"{request.resource}/{request.subresource}" if request.subresource else request.resource
            texts += [request.verb, resource, f"{request.namespace}/{request.name}", request.user_agent]
            texts += [] if request.resource else [request.path]
        found.append(Plain(row, trace, int(index.last_received[slot]), spans, [text.casefold() for text in texts]))
    return found


def _look(node: SpanNode, bodies: Bodies) -> Looked:
    body = bodies.body(node.span)
    assert body is not None
    values: dict[str, list[Any]] = {}
    for pairs in (body.attributes, body.resource, *(event.attributes for event in body.events)):
        for key, value in pairs.items():
            values.setdefault(key, []).extend(_flat(value))
    calls = node.span.name.startswith("Call ") and node.span.component.value == "apiserver"
    hook = [str(body.attributes[key]) for key in ("webhook", "configuration") if calls and key in body.attributes]
    told = node.span.request or (node.span.kind.value == 3 and node.span.component.value == "apiserver")
    codes = [body.attributes.get(key) for key in ("http.response.status_code", "http.status_code")]
    code = next((int(one) for one in codes if told and one), 0)
    return Looked(node, values, tuple(hook), code if 100 <= code <= 999 else 0)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for one in value:
            yield from _flat(one)
    elif isinstance(value, bytes):
        yield value.decode("utf-8", "replace")
    elif value is not None and not isinstance(value, dict):
        yield value


def holds(one: Plain, node: Node, now: int) -> bool:
    """Whether a filter holds for a trace."""
    if isinstance(node, All):
        return all(holds(one, part, now) for part in node.parts)
    if isinstance(node, Either):
        return any(holds(one, part, now) for part in node.parts)
    if isinstance(node, Not):
        return not holds(one, node.of, now)
    if isinstance(node, OneSpan):
        return any(span_holds(span, node.of) for span in one.spans)
    if isinstance(node, Word):
        request = one.row.request
        code = request is not None and node.text == str(request.code)
        return not node.text or code or any(node.text in text for text in one.texts)
    return _trace_holds(one, node, now)


def _trace_holds(one: Plain, node: Condition, now: int) -> bool:
    row, request, name = one.row, one.row.request, node.name
    if name in PHASE_FIELDS:
        phases = phases_of(one.trace)
        spent = sum(phases.ns[phase] for phase in PHASE_FIELDS[name]) if phases is not None else 0
        return request is not None and _number(node, spent)
    if name in ("verb", "group", "ns", "name", "ua", "resource"):
        if request is None:
            return False
        attribute = {"ns": "namespace", "ua": "user_agent"}.get(name, name)
        text = getattr(request, attribute)
        full = f"{text}/{request.subresource}" if name == "resource" and request.subresource else text
        if node.op == "=~":
            return _text(node, full)
        if name == "ua":
            return any(value in text.casefold() for value in node.values)
        return text.casefold() in node.values or full.casefold() in node.values
    if name == "code":
        return request is not None and _code(node, request.code or 0)
    if name == "webhook":
        return any(_text(node, hook) for span in one.spans for hook in span.webhook)
    if name == "instance":
        return _text(node, row.instance, starts=True)
    if name == "source":
        return _text(node, row.source)
    if name == "trace":
        return _text(node, row.trace_id, starts=True)
    if name == "audit":
        return request is not None and _text(node, request.audit_id, starts=True)
    if name == "settled":
        return ("yes" if now - one.received >= QUIET else "no") in node.values
    if name == "orphan":
        return ("yes" if one.trace.missing else "no") in node.values
    numbers = {"duration": row.duration_ns, "errors": row.errors, "spans": row.spans, "age": now - one.received}
    if name in numbers:
        return _number(node, numbers[name])
    assert row.settled in Settled
    return any(span_holds(span, node) for span in one.spans)


def span_holds(looked: Looked, node: Node) -> bool:
    """Whether what stands inside any(...) holds for a span."""
    if isinstance(node, All):
        return all(span_holds(looked, part) for part in node.parts)
    if isinstance(node, Either):
        return any(span_holds(looked, part) for part in node.parts)
    if isinstance(node, Not):
        return not span_holds(looked, node.of)
    span = looked.node.span
    if isinstance(node, Word):
        return node.text in span.name.casefold() or node.text in span.service.casefold()
    assert isinstance(node, Condition)
    if node.attribute is not None:
        asked = node.attribute
        return any(_value(node, one) for key in asked.keys for one in looked.values.get(key, ()))
    if node.name == "duration":
        return _number(node, span.duration)
    if node.name == "self":
        return _number(node, looked.node.self_ns)
    if node.name == "errors":
        return _number(node, int(span.status == 2))
    if node.name == "code":
        return looked.code > 0 and _code(node, looked.code)
    if node.name == "webhook":
        return any(_text(node, hook) for hook in looked.webhook)
    if node.name == "instance":
        return _text(node, span.instance, starts=True)
    texts = {"span": span.name, "service": span.service}
    texts |= {"component": span.component.value, "kind": span.kind.name.lower()}
    return _text(node, texts[node.name])


def _text(node: Condition, text: str, starts: bool = False) -> bool:
    if node.op == "=~":
        return re.search(node.values[0], text, re.IGNORECASE | re.DOTALL) is not None
    folded = text.casefold()
    return any(folded.startswith(value) if starts else folded == value for value in node.values)


def _compare(op: str, a: float, b: float) -> bool:
    return {"=": a == b, ">": a > b, ">=": a >= b, "<": a < b, "<=": a <= b}[op]


def _number(node: Condition, number: float) -> bool:
    return any(_compare(node.op, number, int(value)) for value in node.values)


def _code(node: Condition, code: int) -> bool:
    if node.op != "=":
        return code > 0 and _number(node, code)
    return any(code == int(v or 0) if not v.endswith("xx") else code // 100 == int(v[0]) for v in node.values)


def _value(node: Condition, value: Any) -> bool:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if node.op == "=~":
        return _text(node, text)
    if node.op == "=" and text.casefold() in node.values:
        return True
    if isinstance(value, bool):
        return False
    try:
        number = float(value)
    except ValueError:
        return False
    for wanted in node.values:
        if node.op == "=" and wanted.endswith("xx"):
            if number // 100 == int(wanted[0]):
                return True
            continue
        if node.op == "=" and isinstance(value, str) and not node.name:
            continue
        try:
            if _compare(node.op, number, float(wanted)):
                return True
        except ValueError:
            continue
    return False
