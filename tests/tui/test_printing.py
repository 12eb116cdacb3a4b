"""Text output: aligned, within the terminal, harmless, colour only where it is wanted."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import islice

import pytest
from rich.cells import cell_len

from receiver.traces.listing import Row
from receiver.traces.model import Node, Oddity, Request, Settled, Trace
from tests.tui.test_documents import TRACE, span, summary
from tests.work import calls_of
from tui.glyphs import ASCII, UNICODE
from tui.printing import Paper, TraceList, heading_lines, paper, tree_lines, verdict_lines, warn
from tui.terminal_text import use_ascii

HOSTILE = "a\x1b]52;c;aGk=\x07\u202eb\r\n\x9b31m\u200b" + "長" * 300


@pytest.fixture(autouse=True)
def _unicode_again() -> Iterator[None]:
    yield
    use_ascii(False)


def request(**fields: str) -> Request:
    values = {"verb": "get", "resource": "pods", "namespace": "default", "name": "web", "user_agent": "kubectl/v1.34"}
    names = {**values, **fields}
    return Request(group="", version="v1", subresource="", code=403, audit_id="", **names)


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_every_line_of_the_list_is_as_wide_as_its_heading(width: int) -> None:
    lines = TraceList(Paper(width, False, UNICODE))
    heading = lines.heading()
    assert cell_len(heading) <= max(width, 72)
    for row in (
        summary(request=request()),
        summary(request=request(name=HOSTILE, user_agent=HOSTILE, verb=HOSTILE, resource=HOSTILE), failure=HOSTILE),
        summary(request=None, headline=HOSTILE, services=(HOSTILE,), duration_ns=10**18, spans=10**7),
        summary(),
    ):
        line = lines.line(Row(row))
        assert line.isprintable()
        assert cell_len(line) <= max(width, 72) + 5, "only a count of millions may push its line out"
        assert line.startswith(TRACE[:8])


def test_what_is_not_of_today_has_its_date_and_a_request_without_a_url_its_name() -> None:
    bare = Request("", "", "", "", "", "", "", "", None, "")
    start = 1_700_000_000_000_000_000  # 2023-11-14, 22:13 UTC
    row = Row(summary(request=bare, headline="HandleIt", start=start))
    of_today = TraceList(Paper(None, False, UNICODE), start + 1).line(row)
    later = TraceList(Paper(None, False, UNICODE), start + 10**18).line(row)
    assert re.search(r" [0-9:]{8}\.000 ", of_today)
    assert re.search(r" 11-1[345] [0-9:]{5} ", later)
    assert "HandleIt" in later


def test_a_pipe_gets_whole_ids_and_names() -> None:
    line = TraceList(Paper(None, False, UNICODE)).line(Row(summary(request=request(name="web-" + "x" * 100))))
    assert line.startswith(TRACE + " ")
    assert "web-" + "x" * 100 in line
    assert line.isprintable()


def test_colour_never_stands_alone() -> None:
    row = Row(summary(request=request()))
    plain = TraceList(Paper(120, False, UNICODE)).line(row)
    coloured = TraceList(Paper(120, True, UNICODE)).line(row)
    assert "\x1b[33m" in coloured
    assert "!" in plain
    assert "forbidden" in TraceList(Paper(140, False, UNICODE)).line(row)


class Terminal(io.StringIO):
    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


def test_colour_needs_a_terminal_that_wants_it() -> None:
    assert paper(Terminal(), {"TERM": "xterm"}).colour
    assert not paper(Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}).colour
    assert paper(Terminal(), {"TERM": "xterm", "NO_COLOR": ""}).colour, "empty means unset (no-color.org)"
    assert not paper(Terminal(), {"TERM": "dumb"}).colour
    pipe = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert not paper(pipe, {"TERM": "xterm"}).colour
    assert paper(pipe, {"TERM": "xterm"}).width is None


def test_an_ascii_stream_gets_ascii() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    page = paper(stream, {})
    assert page.glyphs is ASCII
    assert TraceList(page).line(Row(summary(request=request(name="größe")))).isascii()


def tree() -> Trace:
    leaf = Node(span(2, name=HOSTILE, start=20, end=40, parent_id="2"), 2, [], frozenset({Oddity.OUTLIVES}), 5)
    middle = Node(span(1, name="call", status=0), 1, [leaf])
    orphan = Node(span(3, name="lost", parent_id="f" * 16, start=0, end=0), 0, [], frozenset({Oddity.ORPHAN}))
    other = Node(span(4, name="second", status=0), 1)
    root = Node(span(0, name="GET", status=0), 0, [middle, other])
    return Trace(TRACE, [root, orphan], root, 8, 1, 10, 40, Settled.MISSING, 1, left_out=3)


@pytest.mark.parametrize("width", [None, 60, 80, 120, 160])
def test_a_tree(width: int | None) -> None:
    row = summary(request=request(), settled=Settled.MISSING, missing=1)
    page = Paper(width, False, UNICODE)
    said = verdict_lines(["etcd took 3 ms, " + HOSTILE[:24]], page)
    lines = [*heading_lines(row, page), *said, *tree_lines(tree(), page)]
    text = "\n".join(lines)
    assert all(line.isprintable() for line in lines)
    assert lines[0].startswith("get pods default/web  403  kubectl")
    assert f"trace {TRACE}" in lines[1]
    assert "1 parent not seen" in lines[1]
    at = [
        next(i for i, line in enumerate(lines) if mark in line) for mark in ("├─ call", "│  └─ ", "└─ second", "lost")
    ]
    assert at == sorted(at)
    assert "outlives its parent" in text or width is not None
    assert "parent not seen (yet)" in text or width == 60
    assert lines[-1] == "3 more spans of this trace: --raw prints them"
    if width is not None:
        assert max(map(cell_len, lines[2:])) <= max(width, 70)


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 6])
def test_a_tree_is_bounded_and_says_how_much_more_there_is(most: int) -> None:
    whole = list(tree_lines(tree(), Paper(80, False, UNICODE)))
    lines = list(tree_lines(tree(), Paper(80, False, UNICODE), most))
    shown = min(most, 5)
    assert lines[:-1] == whole[: 1 + shown], "what is shown stands as in the whole tree"
    assert lines[-1] == f"{5 - shown + 3} more spans of this trace: --all shows them"
    trace = tree()
    trace.left_out, trace.spans = 0, 5
    assert len(list(tree_lines(trace, Paper(80, False, UNICODE), 5))) == 6, "nothing is said where nothing is left"


def test_lines_are_made_when_they_are_asked_for() -> None:
    root = Node(span(0))
    root.children = [Node(span(number), 1, [Node(span(number, name="below"), 2)]) for number in range(1, 20_000)]
    trace = Trace(TRACE, [root], root, 39_999, 0, 10, 40, Settled.SETTLED, 0)
    for most in (None, 10):
        lines, calls = calls_of(lambda most=most: list(islice(tree_lines(trace, Paper(80, False, UNICODE), most), 10)))
        assert len(lines) == 10
        assert calls < 2_000


def test_a_deep_chain_is_not_a_wide_page() -> None:
    root = Node(span(0))
    node = root
    for number in range(1, 3_000):
        child = Node(span(number), number)
        node.children.append(child)
        node = child
    trace = Trace(TRACE, [root], root, 3_000, 0, 10, 40, Settled.SETTLED, 0)
    lines = list(tree_lines(trace, Paper(None, False, UNICODE)))
    assert max(map(len, lines)) < 250
    assert any("depth 2999" in line for line in lines)


def test_a_warning_is_one_harmless_line(capsys: pytest.CaptureFixture[str]) -> None:
    warn(HOSTILE)
    told = capsys.readouterr().err
    assert told.startswith("k8s-trace-tui: a")
    assert told.endswith("\n")
    assert told[:-1].isprintable()
