"""The JSON of `show` and `traces`: names and types that scripts rely on, for any tree and any value."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.traces.model import (
    Body,
    Component,
    Event,
    Kind,
    Link,
    Node,
    Oddity,
    Request,
    Settled,
    Span,
    Trace,
    TraceSummary,
)
from tui.documents import dumps, raw_pieces, trace_document, trace_lines, walk

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def span(number: int, **fields: Any) -> Span:
    values: dict[str, Any] = {
        "trace_id": TRACE,
        "span_id": f"{number + 1:016x}",
        "parent_id": "",
        "name": "n",
        "kind": Kind.SERVER,
        "start": 10,
        "end": 30,
        "status": 2,
        "service": "apiserver",
        "instance": "",
        "component": Component.APISERVER,
        "source": "local",
        "chunk": 1,
        "row": number,
    }
    return Span(**{**values, **fields})


def trace_of(roots: list[Node], spans: int) -> Trace:
    return Trace(TRACE, roots, roots[0] if roots else None, spans, 0, 10, 30, Settled.SETTLED, 0)


class NoBodies:
    def bodies(self, spans: list[Span]) -> list[Body | None]:
        return [None] * len(spans)


class OneBody:
    """Every span has the same body; values of every kind that OTLP has."""

    def bodies(self, spans: list[Span]) -> list[Body | None]:
        attributes: dict[str, Any] = {
            "text": "\x1b[31m\x7f\u202e",
            "bytes": b"\x00\xff",
            "nan": float("nan"),
            "list": [1, [float("inf"), -float("inf")]],
            "map": {"a": None, "b": True},
        }
        event = Event(12, "retry", {"n": 1})
        link = Link("aa" * 16, "bb" * 8, {})
        resource: dict[str, Any] = {"service.name": "apiserver"}
        body = Body(attributes, (event,), (link,), "why", resource, "scope", "1", (0, 0, 0))
        return [body] * len(spans)


@given(st.lists(st.integers(0, 40), max_size=40))
def test_any_tree_is_one_json_document(parents: list[int]) -> None:
    roots: list[Node] = []
    nodes: list[Node] = []
    for number, wish in enumerate(parents):
        above = nodes[wish] if wish < number else None
        node = Node(span(number), above.depth + 1 if above else 0)
        (above.children if above else roots).append(node)
        nodes.append(node)
    document = json.loads("".join(trace_lines(trace_of(roots, len(nodes)), NoBodies())))

    def shape(children: list[Any]) -> list[Any]:
        return [[child["span_id"], shape(child["children"])] for child in children]

    def expected(children: list[Node]) -> list[Any]:
        return [[child.span.span_id, expected(child.children)] for child in children]

    assert shape(document["roots"]) == expected(roots)
    assert [node.span.span_id for node in walk(roots)] == [one for one, _ in _flat(shape(document["roots"]))]


def _flat(shapes: list[Any]) -> list[Any]:
    return [one for shape in shapes for one in [shape, *_flat(shape[1])]]


def test_a_chain_of_40_000_spans_is_written_without_recursion() -> None:
    root = Node(span(0))
    node = root
    for number in range(1, 40_000):
        child = Node(span(number), number)
        node.children.append(child)
        node = child
    text = "".join(trace_lines(trace_of([root], 40_000), NoBodies()))
    assert text.count('"span_id"') == 40_000
    assert text.count("{") == text.count("}")
    assert text.count("[") == text.count("]")


def test_a_node_has_the_fields_of_the_contract() -> None:
    orphan = Node(span(0, parent_id="ff" * 8), 0, [], frozenset({Oddity.ORPHAN, Oddity.OUTLIVES}), 7)
    line = "".join(trace_lines(trace_of([orphan], 1), OneBody()))
    assert line.isascii()
    assert line.isprintable(), "not even DEL reaches a terminal"
    node = json.loads(line)["roots"][0]
    assert node == {
        "span_id": "0000000000000001",
        "parent_id": "ff" * 8,
        "name": "n",
        "service": "apiserver",
        "instance": None,
        "component": "apiserver",
        "kind": "server",
        "start": 10,
        "duration_ns": 20,
        "self_ns": 7,
        "critical_ns": 20,
        "status": "error",
        "status_message": "why",
        "attributes": {
            "text": "\x1b[31m\x7f\u202e",
            "bytes": "AP8=",
            "nan": "NaN",
            "list": [1, ["Infinity", "-Infinity"]],
            "map": {"a": None, "b": True},
        },
        "events": [{"time": 12, "name": "retry", "attributes": {"n": 1}}],
        "links": [{"trace_id": "aa" * 16, "span_id": "bb" * 8, "attributes": {}}],
        "resource": {"service.name": "apiserver"},
        "scope": {"name": "scope", "version": "1"},
        "left_out": {"attributes": 0, "events": 0, "links": 0, "values": 0},
        "source": "local",
        "orphan": True,
        "oddities": ["orphan", "outlives"],
        "children": [],
    }


def test_an_evicted_body_is_null_not_empty() -> None:
    node = json.loads("".join(trace_lines(trace_of([Node(span(0))], 1), NoBodies())))["roots"][0]
    assert node["attributes"] is node["events"] is node["links"] is node["scope"] is None


def summary(**fields: Any) -> TraceSummary:
    values: dict[str, Any] = {
        "trace_id": TRACE,
        "start": 1,
        "duration_ns": 2,
        "spans": 3,
        "errors": 0,
        "services": ("apiserver", "etcd"),
        "settled": Settled.SETTLED,
        "missing": 0,
        "source": "local",
        "instance": "a-1",
        "headline": "GET /livez",
        "request": Request("get", "", "", "", "", "", "", "kube-probe/1.34", 200, "", "/livez"),
    }
    return TraceSummary(**{**values, **fields})


def test_a_trace_line_has_the_fields_of_the_contract() -> None:
    document = json.loads(dumps(trace_document(summary())))
    assert document == {
        "trace_id": TRACE,
        "start": 1,
        "duration_ns": 2,
        "spans": 3,
        "errors": 0,
        "services": ["apiserver", "etcd"],
        "settled": True,
        "missing_parents": 0,
        "source": "local",
        "instance": "a-1",
        "headline": "GET /livez",
        "created": None,
        "phases": None,
        "paired_with": None,
        "request": {
            "verb": "get",
            "group": None,
            "version": None,
            "resource": None,
            "subresource": None,
            "namespace": None,
            "name": None,
            "user_agent": "kube-probe/1.34",
            "code": 200,
            "audit_id": None,
            "path": "/livez",
        },
    }


def test_settled_is_about_time_not_about_parents_that_never_come() -> None:
    assert trace_document(summary(settled=Settled.MISSING, missing=2))["settled"] is True
    assert trace_document(summary(settled=Settled.ARRIVING))["settled"] is False
    assert trace_document(summary(request=None))["request"] is None


@pytest.mark.parametrize("parts", [[], [[]], [["a"]], [["a\x7f", "ü\n"], [], ["b"]]])
@pytest.mark.parametrize("indented", [True, False])
def test_raw_in_pieces_is_the_json_of_the_whole(parts: list[list[str]], indented: bool) -> None:
    groups = [[{"resource": {}, "scopeSpans": [{"spans": [{"name": name}]}]} for name in part] for part in parts]
    text = "".join(raw_pieces(({"resourceSpans": part} for part in groups), indented))
    whole = {"resourceSpans": [group for part in groups for group in part]}
    assert text == json.dumps(whole, indent=2 if indented else None).replace("\x7f", "\\u007f") + "\n"
    assert text.isascii()
