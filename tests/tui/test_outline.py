"""Lines of a trace: every span once, filters folded, whose time a bar is, and the words beside names."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.traces.model import Component, Event, Kind, Settled
from receiver.traces.tree import walk
from tests.tui.traces_for_tests import MS, T0, Made, body, slow_pod
from tui.widgets.outline import (
    CHAIN,
    COMPONENTS,
    FILTER,
    MIXED,
    VALIDATING,
    Outline,
    fold_to,
    following_failure,
    nearest,
    note,
    oddity_words,
    outline,
    short_name,
)

FILTERS = ("audit", "impersonation", "priorityandfairness", "authorization")


def picture(lines: Outline) -> list[str]:
    """Depth and name of each line."""
    return [
        "  " * lines.depth[i] + (f"filters x{len(lines.chains[i])}" if i in lines.chains else node.span.name)
        for i, node in enumerate(lines.nodes)
    ]


def line_of(lines: Outline, name: str, nth: int = 0) -> int:
    return [i for i, node in enumerate(lines.nodes) if node.span.name == name and i not in lines.chains][nth]


def test_the_filter_chain_is_one_line_and_the_work_stands_beside_it() -> None:
    lines = outline(slow_pod().trace())
    assert picture(lines)[:9] == [
        "authentication",
        "  POST /api/v1/namespaces/{:namespace}/pods",
        "    filters x4",
        "      audit",
        "      constrainedimpersonation",
        "      priorityandfairness",
        "      authorization",
        "    Create",
        "      Call mutating webhook",
    ]
    chain = next(iter(lines.chains))
    create = line_of(lines, "Create")
    assert lines.parent[create] == lines.parent[chain] == 1
    # What the last filter has left after the handler began is the handler's.
    *filters, last = lines.chains[chain]
    lead = last.children[0].span.start - last.span.start
    assert lines.shown_ns[chain] == sum(node.self_ns for node in filters) + lead
    assert 0 < lead < last.self_ns
    assert lines.start[chain] == lines.chains[chain][0].span.start
    assert lines.end[chain] == lines.nodes[create].span.start  # until it let the request through
    assert [lines.shown_ns[i] for i in range(chain + 1, chain + 5)] == [*(node.self_ns for node in filters), lead]


@pytest.mark.parametrize(
    ("names", "folded"), [(FILTERS, 4), (FILTERS[:2], 2), (FILTERS[:1], 0), (("authentication",), 0)]
)
def test_two_filters_make_a_chain(names: tuple[str, ...], folded: int) -> None:
    made = Made()
    above = post = made("", "GET /api/v1/nodes", 0, 10, kind=Kind.SERVER, request=True)
    for at, name in enumerate(names):
        above = made(above, name, at, 10 - at)
    get = made(above, "List", 5, 4)
    lines = outline(made.trace())
    assert [len(chain) for chain in lines.chains.values()] == ([folded] if folded else [])
    shown_above = lines.nodes[lines.parent[lines.line_of[get]]].span.span_id
    assert shown_above == (post if folded else above)
    found = lines.above(lines.line_of[get])
    assert found is not None
    assert found.span.span_id == above, "folding is for the screen: the parent is who it was"


def test_a_chain_whose_parent_is_missing_is_a_root() -> None:
    made = Made()
    above = "f" * 16
    for at, name in enumerate(FILTERS):
        above = made(above, name, at, 10 - at)
    made(above, "Get", 5, 1)
    assert [name for name in picture(outline(made.trace())) if not name.startswith(" ")] == ["filters x4", "Get"]


def test_a_bar_has_the_colour_of_whose_time_it_is() -> None:
    lines = outline(slow_pod().trace())

    def ink(name: str, nth: int = 0) -> tuple[Component, int]:
        line = line_of(lines, name, nth)
        return COMPONENTS[lines.ink[line]], lines.flags[line] & (MIXED | VALIDATING)

    assert ink("Create") == (Component.APISERVER, MIXED)
    assert ink("authentication") == (Component.APISERVER, MIXED)
    assert ink("Call mutating webhook") == (Component.WEBHOOK, 0)
    assert ink("HTTP POST") == (Component.WEBHOOK, 0)
    assert ink("decide") == (Component.WEBHOOK, 0)
    assert ink("Call validating webhook") == (Component.WEBHOOK, VALIDATING)
    assert ink("decide", 1) == (Component.WEBHOOK, VALIDATING)
    assert ink("Create etcd3") == (Component.ETCD, 0)
    assert ink("etcdserverpb.KV/Txn", 0) == (Component.ETCD, 0)
    assert ink("etcdserverpb.KV/Txn", 1) == (Component.ETCD, 0)
    assert ink("SerializeObject") == (Component.APISERVER, 0)


def test_the_gap_between_both_sides_of_a_call() -> None:
    lines = outline(slow_pod().trace())
    gaps = {i: lines.gap_ns(i) for i in range(len(lines)) if lines.gap_ns(i) is not None}
    calls = [line_of(lines, "HTTP POST"), line_of(lines, "HTTP POST", 1), line_of(lines, "etcdserverpb.KV/Txn")]
    assert list(gaps) == calls
    # the shorter other side: by durations, so clocks need not agree; one that outlived the call: what it misses of it
    assert [round(gaps[i] / MS, 2) for i in calls] == [5.93, 0.9, 11.1]  # type: ignore[operator]


def test_own_time_of_a_thin_bar() -> None:
    made = Made()
    root = made("", "List", 0, 100)
    for start, length in ((10, 20), (25, 10), (60, 200), (-50, 5)):
        made(root, "etcdserverpb.KV/Range", start, length, kind=Kind.CLIENT)
    lines = outline(made.trace())
    assert [((a - T0) // MS, (b - T0) // MS) for a, b in lines.own(0)] == [(0, 10), (35, 60)]


# --- any tree ----------------------------------------------------------------------------------------
NAMES = st.sampled_from([*FILTERS, *FILTERS, "Create", "HTTP POST", "Call mutating webhook", "x"])
SPANS = st.lists(st.tuples(st.integers(-1, 30), NAMES, st.integers(0, 50), st.integers(-5, 50)), max_size=30)


def made_of(spans: list[tuple[int, str, int, int]]) -> Made:
    """Parents by index: later ones, oneself and circles too."""
    made = Made()
    for parent, name, start, length in spans:
        made("" if parent < 0 else f"{parent + 1:016x}", name, start, length)
    return made


@given(SPANS)
def test_every_span_is_on_exactly_one_line(spans: list[tuple[int, str, int, int]]) -> None:
    trace = made_of(spans).trace()
    lines = outline(trace)
    on_lines = [node.span.span_id for i, node in enumerate(lines.nodes) if not lines.flags[i] & CHAIN]
    assert sorted(on_lines) == sorted(node.span.span_id for node in walk(trace))
    for line in range(len(lines)):
        assert lines.find(lines.id(line)) == line
        above = lines.parent[line]
        assert lines.depth[line] == (lines.depth[above] + 1 if above >= 0 else 0)
        assert sum(lines.size[child] for child in lines.children(line)) == lines.size[line] - 1
        assert bool(lines.flags[line] & FILTER) == (above >= 0 and bool(lines.flags[above] & CHAIN))
        for low, high in lines.own(line):
            assert lines.start[line] <= low < high <= lines.end[line]


@given(SPANS, st.sets(st.integers(0, 40)))
def test_folded_lines_hide_what_is_below_them(spans: list[tuple[int, str, int, int]], wanted: set[int]) -> None:
    lines = outline(made_of(spans).trace())
    folded = {line for line in wanted if line < len(lines)}

    def hidden(line: int) -> bool:
        above = lines.parent[line]
        return above >= 0 and (above in folded or hidden(above))

    shown = lines.visible(folded)
    assert list(shown) == [line for line in range(len(lines)) if not hidden(line)]
    for line in range(len(lines)):
        assert shown[nearest(shown, line)] <= line


def test_folding_to_a_level() -> None:
    lines = outline(slow_pod().trace())
    assert max(lines.depth[i] for i in lines.visible(fold_to(lines, 3))) == 3
    assert list(lines.visible(fold_to(lines, 0))) == [0]


def test_from_failed_span_to_failed_span() -> None:
    lines = outline(slow_pod().trace())
    first = following_failure(lines, 0, 1)
    assert first == line_of(lines, "HTTP POST", 1)
    second = following_failure(lines, first, 1)
    assert second == line_of(lines, "POST /validate")
    assert following_failure(lines, second, 1) == first, "around the end"
    assert following_failure(lines, first, -1) == second
    made = Made()
    made("", "x", 0, 1)
    assert following_failure(outline(made.trace()), 0, 1) is None


# --- words -------------------------------------------------------------------------------------------
def test_what_a_line_says_beside_its_name() -> None:
    made = slow_pod()
    texts = {span.name: note(span, made.bodies[span.span_id]).texts for span in reversed(made.spans)}
    assert texts["Call mutating webhook"] == ("label-injector.example.com", "label-injector")
    assert texts["HTTP POST"] == ("127.0.0.1:9443/mutate", "127.0.0.1:9443")
    assert texts["Create etcd3"] == ("/pods/default/slow-one", "slow-one")
    assert texts["SerializeObject"][0] == "application/json"
    assert texts["Create"] == ()
    failed = note(made.spans[12], made.bodies[made.spans[12].span_id])
    assert failed.texts == ("context deadline exceeded", "deadline exceeded")
    assert failed.failed


def test_a_hundred_thousand_events_are_some_ticks() -> None:
    made = Made()
    made("", "x", 0, 1, of=body(events=tuple(Event(T0 + i, "e", {}) for i in range(100_000))))
    began = time.perf_counter()
    ticks = note(made.spans[0], made.bodies[made.spans[0].span_id]).ticks
    assert ticks is not None
    assert len(ticks) <= 2_000
    assert time.perf_counter() - began < 0.5


def test_oddities_get_words_when_they_matter() -> None:
    lines = outline(slow_pod().trace())
    assert oddity_words(lines, line_of(lines, "POST /validate")) == "outlives its call"
    assert oddity_words(lines, line_of(lines, "POST /mutate")) == "", "by a millisecond of 1.5 s"
    made = Made()
    root = made("", "a", 10, 100)
    made("e" * 16, "lost", 5, 1)
    early = made(root, "early", 0, 50)
    made(root, "backwards", 40, -20)
    trace = made.trace(Settled.ARRIVING)
    lines = outline(trace)
    assert oddity_words(lines, line_of(lines, "lost")) == "parent not seen yet"
    assert oddity_words(lines, lines.line_of[early]) == "starts before its parent"
    assert oddity_words(lines, line_of(lines, "backwards")) == "ends before it starts"
    assert oddity_words(outline(made.trace()), line_of(lines, "lost")) == "parent not seen"


@pytest.mark.parametrize(
    ("name", "width", "short"),
    [
        ("POST /api/v1/namespaces/{:namespace}/pods", 60, "POST /api/v1/namespaces/{:namespace}/pods"),
        ("POST /api/v1/namespaces/{:namespace}/pods", 35, "POST …/namespaces/{:namespace}/pods"),
        ("POST /api/v1/namespaces/{:namespace}/pods", 12, "POST …/pods"),
        ("etcdserverpb.KV/Txn", 10, "KV/Txn"),
        ("runtime.v1.RuntimeService/PodSandboxStatus", 24, "…/PodSandboxStatus"),
        ("a name of its own kind", 10, "a name of its own kind"),
    ],
)
def test_short_names_keep_the_end(name: str, width: int, short: str) -> None:
    assert short_name(name, width, "…") == short


# --- size --------------------------------------------------------------------------------------------
@settings(deadline=None)
@given(st.sampled_from(["wide", "deep", "filters"]))
def test_forty_thousand_spans(shape: str) -> None:
    made = Made()
    above = made("", "Create", 0, 1_000)
    for at in range(39_999):
        name = "audit" if shape == "filters" else "x"
        child = made(above, name, at / 100, 1)
        above = above if shape == "wide" else child
    trace = made.trace()
    began = time.process_time()
    lines = outline(trace)
    assert time.process_time() - began < 1.5
    assert sum(not flag & CHAIN for flag in lines.flags) == 40_000
