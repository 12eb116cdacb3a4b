"""The detail of a span: complete, in order, relative times; bounded whatever a sender puts into it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.traces.model import Body, Event, Kind, Link
from tests.tui.traces_for_tests import MS, T0, Made, body, slow_pod
from tests.work import calls_of
from tui.glyphs import ASCII, UNICODE
from tui.widgets.detail import MOST_ATTRIBUTES, MOST_EVENTS, Description, Row, describe, value_text
from tui.widgets.outline import outline


def told(made: Made, name: str, of: Body | None = None, **more: Any) -> Description:
    """The description of the first span of a name."""
    lines = outline(made.trace())
    line = next(i for i, node in enumerate(lines.nodes) if node.span.name == name and i not in lines.chains)
    content = of or made.bodies[lines.nodes[line].span.span_id]
    return describe(lines, line, content, UNICODE, utc=True, **more)


def rows(description: Description, heading: str) -> list[tuple[str, str]]:
    """Labels and values under a heading."""
    return [
        (row.label, row.value)
        for block in [*description.important, *description.more]
        if block.heading.split("  ")[0] == heading
        for row in block.rows
    ]


def test_attributes_the_telling_ones_first() -> None:
    labels = [label for label, _ in rows(told(slow_pod(), "Call mutating webhook"), "Attributes")]
    assert labels == ["configuration", "webhook", "operation", "resource", "subresource", "UID"]
    post = rows(told(slow_pod(), "POST /api/v1/namespaces/{:namespace}/pods"), "Attributes")
    assert post[0] == ("http.response.status_code", "201")


def test_events_are_told_from_the_start_of_the_span() -> None:
    made = Made()
    made("", "x", 100, 50, of=body(events=(Event(T0 + 1_613_900_000, "Request completed", {"len": 412, "a": "b"}),)))
    assert rows(told(made, "x"), "Event") == [("+1,513.9 ms", "Request completed  a=b len=412")]


def test_where_it_came_from_and_what_it_is() -> None:
    made = Made()
    root = made("", "parent", 0, 50)
    made(
        root, "x", 10, 20, status=2, kind=Kind.CLIENT,
        of=body(status_message="no route", scope_name="otelhttp", scope_version="0.67", trace_state="a=b",
                dropped=(3, 0, 1), links=(Link("a" * 32, "b" * 16, {}),)),
    )  # fmt: skip
    description = told(made, "x")
    assert rows(description, "") == [
        ("took", "20.0 ms"),
        ("started", "+10.0 ms, at 2025-11-22 11:53:12.412"),
        ("status", "✗ no route"),
        ("┃", "own time on the critical path 20.0 ms (40 %)"),
    ]
    assert ("scope", "otelhttp 0.67") in rows(description, "Sender")
    assert ("listener", "local") in rows(description, "Sender")
    assert rows(description, "Sender")[:2] == [("service.name", "apiserver"), ("service.instance.id", "apiserver-x4")]
    assert rows(description, "Span") == [
        ("span", f"{2:016x}  client"),
        ("parent", f"{1:016x}  parent"),
        ("trace", made.trace_id),
        ("tracestate", "a=b"),
    ]
    assert rows(description, "Linked trace") == [
        ("trace", f"{'a' * 32}  span {'b' * 16}"),
        ("", "1 dropped by the sender"),
    ]
    assert ("", "3 dropped by the sender") in rows(description, "Attributes")


def test_oddities_say_by_how_much() -> None:
    facts = rows(told(slow_pod(), "POST /validate"), "")
    assert ("▒", "outlives its parent by 527 ms") in facts
    assert any(label == "⇄" and "5.93 ms" in value for label, value in rows(told(slow_pod(), "HTTP POST"), ""))


def test_a_folded_filter_chain_shows_each_filters_own_time() -> None:
    lines = outline(slow_pod().trace())
    chain = next(iter(lines.chains))
    description = describe(lines, chain, None, UNICODE)
    assert [row.value for row in description.important[0].rows] == [
        "audit",
        "constrainedimpersonation",
        "priorityandfairness",
        "authorization",
    ]


def test_a_body_that_is_gone_is_said() -> None:
    lines = outline(slow_pod().trace())
    assert "not stored any more" in describe(lines, 0, None, UNICODE).important[0].rows[-1].value
    assert describe(lines, 0, None, UNICODE, reading=True).important[0].rows[-1].value == "reading ..."


def all_rows(description: Description) -> list[Row]:
    return [row for block in [*description.important, *description.more] for row in block.rows]


@pytest.mark.parametrize(
    "monster",
    [
        body({"v": "x" * 1_000_000}),
        body({"v": "\n" * 1_000_000}),
        body({f"k{i}": i for i in range(100_000)}),
        body(events=tuple(Event(T0 + i, "e" * 50, {"k": "v" * 100}) for i in range(100_000))),
        body(events=(Event(T0, "e", {f"k{i}": "v" for i in range(100_000)}),)),
        body(links=tuple(Link("a" * 32, f"{i:016x}", {}) for i in range(100_000))),
        body({"v": [[i] * 100 for i in range(10_000)], "m": {str(i): {"x": i} for i in range(10_000)}}),
        body({"b": b"\x1b" * 1_000_000}),
        body(status_message="x" * 1_000_000, resource={f"r{i}": "x" * 1000 for i in range(10_000)}),
    ],
    ids=["text", "lines", "attributes", "events", "event attributes", "links", "nested", "bytes", "message"],
)
def test_monsters_are_cut_at_once(monster: Body) -> None:
    made = Made()
    made("", "x", 0, 1, status=2)
    lines = outline(made.trace())
    description, calls = calls_of(lambda: describe(lines, 0, monster, UNICODE))
    assert calls < 500_000, "not one for each of a million characters"
    assert len(all_rows(description)) < MOST_ATTRIBUTES + 2 * MOST_EVENTS + 200
    assert all(len(row.value) < 1_000_100 for row in all_rows(description))


def test_what_was_left_out_is_counted() -> None:
    made = Made()
    made("", "x", 0, 1)
    many = body({f"k{i:06}": i for i in range(1_000)}, events=tuple(Event(T0, "e", {}) for _ in range(1_200)))
    description = told(made, "x", many)
    assert rows(description, "Attributes")[-1] == ("", "… 800 more")
    assert rows(description, "Events")[-1] == ("", "… 1,000 more")
    ascii_only = describe(outline(made.trace()), 0, many, ASCII)
    assert any(row.value == "~ 800 more" for row in all_rows(ascii_only))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_any_value_becomes_bounded_text(value: Any) -> None:
    assert len(value_text(value)) < 4_000


def test_values_as_text() -> None:
    assert value_text({"a": [1, None, True, "x"]}) == "{a: [1, null, true, x]}"
    assert value_text(b"\x00\xff") == "2 bytes 00 ff"
    assert value_text("x" * 2_100).endswith("(100 more characters)")
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    assert len(value_text(deep)) < 4_000


def test_times_before_the_span_have_a_sign() -> None:
    made = Made()
    made("", "x", 100, 50, of=body(events=(Event(T0 + 97 * MS, "early", {}),)))
    assert rows(told(made, "x"), "Event") == [("-3.0 ms", "early")]
    made.spans[0] = replace(made.spans[0], start=0)
    assert rows(told(made, "x"), "")[1] == ("started", "no time")
