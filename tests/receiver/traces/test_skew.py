"""Clocks that differ: a server side that is moved lies inside its call, nothing else moves, nothing is changed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from receiver.store.chunk import NANOSECOND_MAX
from receiver.traces.hops import sender_of
from receiver.traces.model import Body, Component, Kind, Node, Settled, Span, Trace
from receiver.traces.skew import LIMIT, Shift, align, hosts_of
from receiver.traces.timing import self_times
from receiver.traces.tree import build, walk

T0 = 1_795_344_951_000_000_000
MS = 1_000_000


def span(
    number: int, parent: int, kind: Kind, start: float, length: float, host: str = "a", status: int = 0
) -> Span:  # times in ms
    begin = T0 + round(start * MS)
    return Span(
        "ab" * 16, f"{number:016x}", f"{parent:016x}" if parent else "", f"span {number}", kind, begin,
        begin + round(length * MS), status, f"service {host}", "", Component.OTHER, "local", 1, number,
    )  # fmt: skip


def tree(*spans: Span) -> Trace:
    trace = build(spans, settled=Settled.SETTLED, missing=0)
    self_times(trace)
    return trace


def times(trace: Trace) -> dict[str, tuple[float, float]]:
    """(start, length) of each span in ms."""
    return {
        node.span.span_id[-1]: ((node.span.start - T0) / MS, (node.span.end - node.span.start) / MS)
        for node in walk(trace)
    }


SERVER, CLIENT, INTERNAL = Kind.SERVER, Kind.CLIENT, Kind.INTERNAL


def test_a_server_is_shown_in_the_middle_of_its_call_and_takes_its_own_along() -> None:
    trace = tree(
        span(1, 0, SERVER, 0, 100),
        span(2, 1, CLIENT, 10, 20),
        span(3, 2, SERVER, 500, 10, "b"),
        span(4, 3, INTERNAL, 501, 5, "b"),
        span(5, 3, INTERNAL, 12, 5, "a"),  # of the caller's clock, wherever it hangs
    )
    found = align(trace)
    assert times(found.trace) == {"1": (0, 100), "2": (10, 20), "3": (15, 10), "4": (16, 5), "5": (12, 5)}
    (shift,) = found.shifts
    assert (shift.client.span_id[-1], shift.server.span_id[-1], shift.ns, shift.refused) == ("2", "3", -485 * MS, False)
    moved = {node.span.span_id[-1]: found.moved(node.span) / MS for node in walk(found.trace)}
    assert moved == {"1": 0, "2": 0, "3": -485, "4": -485, "5": 0}
    assert found.trace.end == T0 + 100 * MS
    assert found.trace.roots[0].children[0].self_ns == 10 * MS, "times are worked out anew"


def shift_of(*server: float, host: str = "b", status: int = 0) -> Shift | None:
    start, length = server
    found = align(tree(span(1, 0, CLIENT, 100, 20, status=status), span(2, 1, SERVER, start, length, host)))
    return found.shifts[0] if found.shifts else None


def test_what_fits_one_clock_and_who_was_left_alone_stay() -> None:
    assert shift_of(100, 20) is shift_of(105, 10) is None
    assert shift_of(300, 10, host="a") is None, "one clock"
    assert shift_of(110, 15, status=2) is None, "its client gave up before"
    gone = shift_of(130, 15, status=2)
    assert gone is not None
    assert gone.ns == round(-27.5 * MS)
    early = shift_of(99, 10)
    assert early is not None
    assert early.ns == 6 * MS


def test_a_server_that_outlives_its_call_only_does_not_begin_before_it() -> None:
    assert shift_of(110, 50) is None
    early = shift_of(90, 50)
    assert early is not None
    assert early.ns == 10 * MS


def test_more_than_ten_seconds_is_not_moved() -> None:
    far = shift_of(20_000, 10)
    assert far is not None
    assert far.refused
    trace = tree(span(1, 0, CLIENT, 100, 20), span(2, 1, SERVER, 20_000, 10, "b"))
    assert align(trace).trace is trace


def test_what_calls_back_into_the_first_process_stays_with_its_clock() -> None:
    trace = tree(
        span(1, 0, SERVER, 0, 100),
        span(2, 1, CLIENT, 10, 50),
        span(3, 2, SERVER, 910, 44, "b"),
        span(4, 3, CLIENT, 915, 20, "b"),
        span(5, 4, SERVER, 14, 19, "a"),
    )
    assert times(align(trace).trace)["4"] == (18, 20)
    assert times(align(trace).trace)["5"] == (14, 19)


def test_an_orphan_stays_where_it_is() -> None:
    trace = tree(span(1, 0, CLIENT, 100, 20), span(2, 9, SERVER, 900, 10, "b"))
    assert align(trace).trace is trace


class Bodies:
    def __init__(self, **hosts: str) -> None:
        self.hosts = hosts
        self.asked = 0

    def bodies(self, spans: list[Span]) -> list[Body | None]:
        self.asked += len(spans)
        known = [self.hosts.get(each.service.rpartition(" ")[2]) for each in spans]
        return [Body({}, (), (), "", {"host.name": host}, "", "", (0, 0, 0)) if host else None for host in known]


def test_senders_on_one_host_have_one_clock() -> None:
    trace = tree(span(1, 0, CLIENT, 100, 20), span(2, 1, SERVER, 105, 18, "b"), span(3, 2, INTERNAL, 106, 1, "b"))
    bodies = Bodies(a="cp-1", b="cp-1")
    hosts = hosts_of(trace, bodies)  # type: ignore[arg-type]
    assert bodies.asked == 2, "one span of each sender"
    assert not align(trace, hosts).shifts
    assert align(trace, hosts_of(trace, Bodies(a="cp-1"))).shifts  # type: ignore[arg-type]
    assert align(trace, hosts_of(trace, Bodies(a="cp-1", b="cp-2"))).shifts  # type: ignore[arg-type]


# --- any trace ---------------------------------------------------------------------------------------
@dataclass
class Call:
    """A span of a well-formed trace, with its true times."""

    number: int
    parent: int
    kind: Kind
    host: str
    start: int
    end: int


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[Call], dict[str, int]]:
    """Calls nested as they truly were, and by how much each host's clock is off."""
    calls = [Call(1, 0, SERVER, "a", 0, 1 << 30)]
    for number in range(2, draw(st.integers(2, 14)) + 1):
        above = draw(st.sampled_from(calls))
        start = draw(st.integers(above.start, above.end))
        end = draw(st.integers(start, above.end))
        if above.kind is CLIENT:
            calls.append(Call(number, above.number, SERVER, draw(st.sampled_from("abc")), start, end))
        else:
            kind = draw(st.sampled_from([CLIENT, INTERNAL]))
            calls.append(Call(number, above.number, kind, above.host, start, end))
    return calls, {"a": 0, **{host: draw(st.integers(-(1 << 31), 1 << 31)) for host in "bc"}}


@given(clusters())
def test_a_server_that_is_moved_lies_inside_its_call_and_nothing_else_moves(
    cluster: tuple[list[Call], dict[str, int]],
) -> None:
    calls, off = cluster
    spans = [
        replace(
            span(call.number, call.parent, call.kind, 0, 0, call.host),
            start=T0 + call.start + off[call.host],
            end=T0 + call.end + off[call.host],
        )
        for call in calls
    ]
    trace = tree(*spans)
    before = {node.span.span_id: (node.span, node.self_ns, list(node.children)) for node in walk(trace)}
    found = align(trace)
    for node in walk(trace):
        assert before[node.span.span_id] == (node.span, node.self_ns, list(node.children)), "what was given stays"
    shown = {node.span.span_id: node.span for node in walk(found.trace)}
    assert set(shown) == set(before)
    above: dict[str, Span] = {}
    stack: list[Node] = list(found.trace.roots)
    moved_here = {shift.server.span_id: shift for shift in found.shifts}
    while stack:
        node = stack.pop()
        stack += node.children
        for child in node.children:
            above[child.span.span_id] = node.span
        here, sent = node.span, before[node.span.span_id][0]
        by = here.start - sent.start
        assert here.end - sent.end == by == found.moved(here)
        assert replace(here, start=sent.start, end=sent.end) == sent
        if sender_of(here) == ("service a", ""):
            assert by == 0
        client = above.get(here.span_id)
        if here.span_id in moved_here:
            assert client is not None
            assert client.start <= here.start
            assert here.end <= client.end
            assert moved_here[here.span_id].ns == by != 0
        elif client is not None and sender_of(client) == sender_of(here):
            assert by == client.start - before[client.span_id][0].start, "one clock moves as one"


@given(
    st.lists(
        st.tuples(
            st.integers(0, 12), st.sampled_from(list(Kind)), st.sampled_from("abc"), st.booleans(),
            *[st.integers(0, 40) | st.sampled_from([0, NANOSECOND_MAX, T0, T0 + LIMIT])] * 2,
        ),
        max_size=12,
    )
)  # fmt: skip
def test_whatever_is_sent_every_span_is_there_once_with_its_length(
    sent: list[tuple[int, Kind, str, bool, int, int]],
) -> None:
    spans = [
        replace(span(number, parent, kind, 0, 0, host, 2 if failed else 0), start=start, end=end)
        for number, (parent, kind, host, failed, start, end) in enumerate(sent, 1)
    ]
    found = align(tree(*spans))
    shown = {node.span.span_id: node.span for node in walk(found.trace)}
    assert len(shown) == len(spans)
    for each in spans:
        here = shown[each.span_id]
        assert here.end - here.start == each.end - each.start
        assert 0 <= here.start <= NANOSECOND_MAX
        assert 0 <= here.end <= NANOSECOND_MAX
        assert abs(here.start - each.start) <= LIMIT


def test_forty_thousand_calls_inside_each_other() -> None:
    spans = [span(1, 0, SERVER, 0, 100_000)]
    for number in range(2, 40_001):
        kind = CLIENT if number % 2 == 0 else SERVER
        inside = 100_000 - number
        spans.append(span(number, number - 1, kind, number / 2 - 900 * (number % 2), inside, f"{(number + 1) // 2}"))
    found = align(tree(*spans))
    assert sum(1 for _ in walk(found.trace)) == 40_000
    assert found.shifts
