"""Lines of a trace: every span once, what folds into what, whose time a bar is, and the words beside names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.traces.model import Component, Event, Kind, Node, Settled
from receiver.traces.tree import walk
from tests.tui.traces_for_tests import MS, T0, Made, body, slow_pod
from tests.work import calls_of
from tui.widgets.notes import note, oddity_words, short_name
from tui.widgets.outline import (
    CHAIN,
    COMPONENTS,
    FILTER,
    GROUP,
    MIXED,
    ON_PATH,
    RUN,
    VALIDATING,
    Outline,
    following_failure,
    following_step,
    nearest,
    outline,
)

FILTERS = ("audit", "impersonation", "priorityandfairness", "authorization")


def picture(lines: Outline) -> list[str]:
    """Depth and name of each line."""
    return [
        "  " * lines.depth[i]
        + (f"x{len(lines.members(i))} " if lines.flags[i] & GROUP else "")
        + ("filters" if i in lines.chains else node.span.name)
        for i, node in enumerate(lines.nodes)
    ]


def line_of(lines: Outline, name: str, nth: int = 0) -> int:
    return [i for i, node in enumerate(lines.nodes) if node.span.name == name and not lines.flags[i] & GROUP][nth]


def test_the_filter_chain_is_one_line_and_the_work_stands_beside_it() -> None:
    lines = outline(slow_pod().trace())
    assert picture(lines)[:9] == [
        "authentication",
        "  POST /api/v1/namespaces/{:namespace}/pods",
        "    x4 filters",
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
    assert [name for name in picture(outline(made.trace())) if not name.startswith(" ")] == ["x4 filters", "Get"]


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
    gaps = {line: hop.gap for line in range(len(lines)) if (hop := lines.hop(line)) is not None}
    calls = [line_of(lines, "HTTP POST"), line_of(lines, "HTTP POST", 1), line_of(lines, "etcdserverpb.KV/Txn")]
    assert list(gaps) == calls
    assert [round(gaps[i] / MS, 2) for i in calls] == [5.93, 0.9, 11.1]


def test_own_time_of_a_thin_bar() -> None:
    made = Made()
    root = made("", "List", 0, 100)
    for start, length in ((10, 20), (25, 10), (60, 200), (-50, 5)):
        made(root, "etcdserverpb.KV/Range", start, length, kind=Kind.CLIENT)
    lines = outline(made.trace())
    assert [((a - T0) // MS, (b - T0) // MS) for a, b in lines.own(0)] == [(0, 10), (35, 60)]


def polls() -> Made:
    """Five like siblings of which one stands out, then one that failed and four more."""
    made = Made()
    root = made("", "sync", 0, 100)
    for at, length in enumerate((1, 2, 3, 20, 2)):
        made(made(root, "poll", at * 10, length), "inner", at * 10, length / 2)
    made(root, "poll", 60, 1, status=2)
    for at in range(4):
        made(root, "poll", 70 + at, 2)
    return made


def test_like_siblings_are_one_line_and_what_stands_out_or_failed_stays() -> None:
    lines = outline(polls().trace())
    assert picture(lines)[:4] == ["sync", "  x5 poll", "    poll", "      inner"]
    first, second = lines.runs
    assert [picture(lines)[i] for i in lines.visible([first, second])] == [
        "sync", "  x5 poll", "    poll", "      inner", "  poll", "  x4 poll",
    ]  # fmt: skip
    kept = lines.runs[first].kept
    assert lines.shown_ns[kept] == 20 * MS == lines.runs[first].run.longest.span.duration
    assert lines.runs[second].kept == -1
    assert lines.shown_ns[first] == 28 * MS
    assert (lines.start[first], lines.end[first]) == (T0, T0 + 50 * MS), "up to the end of the outlier"
    assert lines.id(first) == f"run {lines.nodes[kept].span.span_id}"
    for line in range(first + 1, first + lines.size[first]):
        if lines.depth[line] == lines.depth[first] + 1:
            assert lines.find(f"run {lines.nodes[line].span.span_id}") == first, "by any of its spans"


def test_a_run_hides_no_time() -> None:
    lines = outline(polls().trace())
    first, second = lines.runs

    def ms(parts: list[tuple[int, int]]) -> list[tuple[float, float]]:
        return [((low - T0) / MS, (high - T0) / MS) for low, high in parts]

    end = lines.end[0]
    assert ms(lines.ran(first, T0, end, 1)) == [(0, 1), (10, 12), (20, 23), (30, 50)], "the last one began at 40"
    assert ms(lines.ran(first, T0, end, 9 * MS)) == [(0, 1), (10, 50)], "what is closer cannot be told apart"
    assert ms(lines.ran(first, T0 + 12 * MS, T0 + 30 * MS, 1)) == [(20, 23)], "what is in the window"
    assert ms(lines.ran(first, end, end + 1, 1)) == []
    # What lies between the spans of a run is the time of what is above them.
    assert ms(lines.own(0)) == [(1, 10), (12, 20), (23, 30), (50, 60), (61, 70), (75, 100)]
    assert ms(lines.ran(second, T0, end, 1)) == [(70, 75)]


def test_a_span_of_a_run_outlives_the_parent_that_it_has() -> None:
    made = Made()
    root = made("", "sync", 0, 10)
    late = [made(root, "poll", at, 9) for at in range(4)][-1]
    lines = outline(made.trace())
    line = lines.line_of[late]
    assert lines.flags[lines.parent[line]] & RUN
    assert lines.tail_from(line) == T0 + 10 * MS
    assert lines.tail_from(lines.parent[line]) == T0 + 10 * MS, "so does the run that holds it"
    assert lines.tail_from(line - 1) == lines.tail_from(line)
    assert lines.tail_from(lines.parent[line] + 1) is None, "the first one does not"
    assert oddity_words(lines, line) == "outlives its parent"


# --- the critical path -------------------------------------------------------------------------------
def test_the_path_is_marked_and_walked() -> None:
    made = slow_pod()
    trace = made.trace()
    lines = outline(trace)
    assert lines.path is not None
    assert {line for line in range(len(lines)) if lines.flags[line] & ON_PATH} == set(lines.critical)
    assert sum(lines.critical.values()) == lines.path.end - lines.path.start
    assert line_of(lines, "authentication") not in lines.critical
    assert line_of(lines, "decide", 1) in lines.critical
    # A webhook that outlives its call counts up to the end of that call.
    call, decide = lines.nodes[line_of(lines, "Call validating webhook")].span, line_of(lines, "decide", 1)
    at = lines.steps.index(decide)
    assert lines.path.intervals[at].end < call.end < lines.end[decide]
    assert lines.critical[decide] < call.duration
    chain = next(iter(lines.chains))
    assert chain not in lines.critical
    assert lines.hides_path(chain)


@given(st.data())
def test_stepping_visits_each_interval_in_order_and_back(data: st.DataObject) -> None:
    lines = outline(made_of(data.draw(SPANS)).trace())
    intervals = lines.path.intervals if lines.path is not None else ()
    line = data.draw(st.integers(0, max(0, len(lines) - 1)))
    at: int | None = None
    seen = []
    while (at := following_step(lines, line, at, 1)) is not None:
        line = lines.steps[at]
        assert lines.nodes[line] is intervals[at].node
        assert not lines.flags[line] & GROUP
        seen.append(at)
    assert seen == list(range(len(intervals)))[-len(seen) :] if seen else True
    if lines.trace.headline is not None and intervals:
        head = lines.line_of[lines.trace.headline.span.span_id]
        first = following_step(lines, head, None, 1)
        assert first == (None if len(intervals) == 1 else 1) or (first == 0 and lines.steps[0] != head)
        back, at = [], len(intervals) - 1
        while (at := following_step(lines, head, at, -1)) is not None:
            back.append(at)
        assert back == list(reversed(range(len(intervals) - 1)))


# --- any tree ----------------------------------------------------------------------------------------
NAMES = st.sampled_from([*FILTERS, *FILTERS, "Create", "HTTP POST", "Call mutating webhook", *"xxxx"])
FAR = st.tuples(st.integers(-1, 30), NAMES, st.integers(0, 50), st.integers(-5, 50), st.just(0))
NEAR = st.tuples(
    st.integers(-1, 2), st.just("x"), st.integers(0, 50), st.integers(0, 50), st.sampled_from([0, 0, 0, 2])
)
SPANS = st.lists(FAR | NEAR, max_size=30)
Spans = list[tuple[int, str, int, int, int]]


def made_of(spans: Spans) -> Made:
    """Parents by index: later ones, oneself and circles too."""
    made = Made()
    for parent, name, start, length, status in spans:
        made("" if parent < 0 else f"{parent + 1:016x}", name, start, length, status=status)
    return made


@given(SPANS)
def test_every_span_is_on_exactly_one_line(spans: Spans) -> None:
    trace = made_of(spans).trace()
    lines = outline(trace)
    on_lines = [node.span.span_id for i, node in enumerate(lines.nodes) if not lines.flags[i] & GROUP]
    assert sorted(on_lines) == sorted(node.span.span_id for node in walk(trace))
    for line in range(len(lines)):
        assert lines.find(lines.id(line)) == line
        above = lines.parent[line]
        assert lines.depth[line] == (lines.depth[above] + 1 if above >= 0 else 0)
        assert sum(lines.size[child] for child in lines.children(line)) == lines.size[line] - 1
        assert bool(lines.flags[line] & FILTER) == (above >= 0 and bool(lines.flags[above] & CHAIN))
        for low, high in lines.own(line):
            assert lines.start[line] <= low < high <= lines.end[line]
        if lines.flags[line] & RUN:
            run = lines.runs[line].run
            below = [lines.nodes[child] for child in lines.children(line)]
            assert below == list(run.members)
            assert lines.shown_ns[line] == sum(node.span.duration for node in below)
            ran = lines.ran(line, 0, (1 << 63) - 1, 1)
            for node in below:
                within = [low <= node.span.start and node.span.end <= high for low, high in ran]
                assert not node.span.start or any(within)
            assert all(below.status != 2 for below in (node.span for node in walk_below(lines, line)))


def walk_below(lines: Outline, line: int) -> list[Node]:
    return [lines.nodes[i] for i in range(line + 1, line + lines.size[line])]


@given(SPANS, st.sets(st.integers(0, 40)))
def test_folded_lines_hide_what_is_below_them(spans: Spans, wanted: set[int]) -> None:
    lines = outline(made_of(spans).trace())
    folded = {line for line in wanted if line < len(lines)}

    def hidden(line: int, kept: int = -1) -> bool:
        above = lines.parent[line]
        if above < 0:
            return False
        stays = above in lines.runs and lines.runs[above].kept == line  # the outlier of a run
        return (above in folded and not stays) or hidden(above)

    shown = lines.visible(folded)
    assert list(shown) == [line for line in range(len(lines)) if not hidden(line)]
    for line in range(len(lines)):
        assert shown[nearest(shown, line)] <= line
        below = range(line + 1, line + lines.size[line])
        out_of_sight = [i for i in below if any(low <= i < high for low, high in lines.hidden(line))]
        assert lines.hides_path(line) == any(i in lines.critical for i in out_of_sight)


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
    found, calls = calls_of(lambda: note(made.spans[0], made.bodies[made.spans[0].span_id]))
    ticks = found.ticks
    assert ticks is not None
    assert len(ticks) <= 2_000
    assert calls < 20_000, "not a call an event"


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
@pytest.mark.parametrize("shape", ["wide", "deep", "filters"])
def test_forty_thousand_spans(shape: str) -> None:
    made = Made()
    above = made("", "Create", 0, 1_000)
    for at in range(39_999):
        name = "audit" if shape == "filters" else "x"
        child = made(above, name, at / 100, 1)
        above = above if shape == "wide" else child
    lines = outline(made.trace())
    assert sum(not flag & GROUP for flag in lines.flags) == 40_000
    for line in lines.runs:
        assert len(lines.ran(line, lines.start[0], lines.end[0], 1)) == 1, "they ran side by side, without a pause"
