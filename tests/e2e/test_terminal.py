"""The program as somebody at a terminal has it: keys in, screen out, and the terminal as it was afterwards."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.demo_recording import demo_requests, write_demo
from tests.doubles.replay import send
from tests.e2e.tmux import TMUX, Tmux
from tests.eventually import eventually
from tests.live_receiver import run_command

pytestmark = pytest.mark.skipif(TMUX is None, reason="no tmux here: it is the terminal that these tests drive")

ROW = re.compile(r"\d\d:\d\d:\d\d.* ms")
Open = Callable[..., Tmux]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Open]:
    """Opens a terminal with `k8s-trace-tui ARGUMENTS` in it."""
    opened: list[Tmux] = []
    folder = Path(tempfile.mkdtemp(prefix="tmux-"))  # a socket's path must be short

    def open_(
        *arguments: str | Path, columns: int = 80, lines: int = 24, environment: dict[str, str] | None = None
    ) -> Tmux:
        one = Tmux(folder, columns, lines)
        opened.append(one)
        home = {"XDG_STATE_HOME": str(tmp_path / "state"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
        one.start([sys.executable, "-m", "tui.cli", *arguments], {**home, **(environment or {})})
        return one

    yield open_
    for one in opened:
        one.close()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "demo.jsonl"
    write_demo(path)
    return path


def left_as_it_was(terminal: Tmux) -> None:
    """The terminal's own screen is back, with a cursor, without mouse reports, in the mode it was in."""
    assert terminal.ended() == (0, "restored")
    terminal.wait_for("after the program")
    assert terminal.ask("alternate_on") == "0"
    assert terminal.ask("cursor_flag") == "1"
    assert terminal.ask("mouse_any_flag") == "0"
    assert "Traceback" not in terminal.screen()


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (160, 45), (60, 15)])
def test_from_the_list_into_a_trace_and_out(terminal: Open, recording: Path, columns: int, lines: int) -> None:
    screen = terminal(recording, columns=columns, lines=lines)
    screen.wait_for(ROW)
    screen.keys("/")
    screen.type("create label-injector")
    screen.keys("Enter")
    screen.wait_for(re.compile(r"Requests.*[^,\d]\d of"))
    screen.keys("Enter")
    inside = screen.wait_for("filters ×")
    assert "Spans" in inside
    assert re.search(r"^ create \w+ default/", inside), "the title says what it is"
    assert "├" in inside, "the waterfall is beside the tree"
    if lines < 45:  # on a large screen it is open already
        screen.keys("d")
    screen.wait_for(re.compile("Attributes|took"))
    screen.keys("Escape")
    screen.wait_until_gone("Spans")
    screen.keys("?")
    screen.wait_for("Help")
    screen.keys("Escape")
    screen.wait_until_gone("Help")
    screen.keys("q")
    left_as_it_was(screen)


def test_every_line_stays_within_the_screen_when_it_is_resized(terminal: Open, recording: Path) -> None:
    screen = terminal(recording)
    screen.wait_for("Requests")
    for columns, lines in ((160, 45), (60, 15), (40, 10), (120, 30), (80, 24)):
        screen.resize(columns, lines)
        time.sleep(0.4)
        shown = screen.wait_for("Requests").splitlines()
        assert len(shown) <= lines
        assert max(map(len, shown)) <= columns
    screen.keys("q")
    left_as_it_was(screen)


def test_what_is_typed_ahead_goes_where_it_was_meant(terminal: Open, recording: Path) -> None:
    """One packet of a slow line, and before the list is there: the words are the filter's, not keys of the list."""
    screen = terminal(recording)
    screen.wait_for("Requests")
    screen.type("/create label-injector")
    screen.keys("Enter")
    screen.wait_for(re.compile(r"Requests  create label-injector  \[[1-9]"))
    screen.keys("q")
    left_as_it_was(screen)


@pytest.mark.parametrize("way", ["C-c", "SIGTERM", "q"])
def test_every_way_out_leaves_the_terminal_as_it_was(terminal: Open, recording: Path, way: str) -> None:
    screen = terminal(recording)
    screen.wait_for("Requests")
    if way == "SIGTERM":
        for pid in screen.processes():
            os.kill(pid, signal.SIGTERM)
    else:
        screen.keys(way)
    left_as_it_was(screen)


def test_values_of_spans_do_nothing_to_the_terminal(terminal: Open, tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x1b[0m[bold]\u202egnp.exe\u200b\x9b5n\r\n\tend"
    span = {
        "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
        "spanId": "00f067aa0ba902b7",
        "name": evil,
        "kind": 2,
        "startTimeUnixNano": "1700000000000000000",
        "endTimeUnixNano": "1700000001000000000",
        "attributes": [{"key": evil, "value": {"stringValue": evil * 50}}],
        "status": {"code": 2, "message": evil},
    }
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": evil}}]}
    path = tmp_path / "evil.jsonl"
    path.write_text(json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}))
    screen = terminal(path, columns=120, lines=30)
    title = screen.ask("pane_title")
    screen.wait_for("red")
    for key in ("Enter", "d", "y"):
        screen.keys(key)
        time.sleep(0.5)
        shown = screen.screen()
        assert "\u202e" not in shown
        assert "\u200b" not in shown
        assert all(len(line) <= 120 for line in shown.splitlines())
    assert "owned" not in screen.ask("pane_title")
    assert screen.ask("pane_title") == title
    assert "[bold]" in shown, "markup is text"
    screen.keys("q", "q", "q")
    left_as_it_was(screen)


def test_no_color_means_none(terminal: Open, recording: Path) -> None:
    screen = terminal(recording, environment={"NO_COLOR": "1"})
    screen.wait_for("Requests")
    painted = screen.screen(colours=True)
    codes = {code for found in re.findall(r"\x1b\[([0-9;]*)m", painted) for code in found.split(";") if code}
    hues = {code for code in codes if 30 <= int(code) <= 37 or 40 <= int(code) <= 47 or 90 <= int(code) <= 107}
    shades = re.findall(r"[34]8;2;(\d+);(\d+);(\d+)", painted)
    assert not hues
    assert all(max(map(int, shade)) - min(map(int, shade)) < 16 for shade in shades), "greys at most"
    screen.keys("q")
    left_as_it_was(screen)


def test_an_ascii_locale_gets_ascii(terminal: Open, recording: Path) -> None:
    screen = terminal(recording, environment={"LC_ALL": "C"}, columns=120)
    screen.wait_for(ROW)
    screen.keys("Enter")
    assert screen.wait_for("Spans").isascii()
    screen.keys("q", "q")
    left_as_it_was(screen)


def test_a_broken_recording_is_said_on_the_screen(terminal: Open, recording: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.jsonl"
    path.write_text("nonsense\n" + recording.read_text().splitlines()[0] + "\nmore nonsense\n")
    screen = terminal(path, columns=160)
    screen.wait_for("line 1: is not JSON")
    screen.wait_for("(1 more)")
    screen.keys("q")
    left_as_it_was(screen)


# --- live ------------------------------------------------------------------------------------------
def receiver_pid(db: Path) -> int:
    found = re.search(r"process (\d+)", run_command("info", "--db", str(db)))
    return int(found[1]) if found else 0


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def listening(db: Path) -> str:
    found = re.search(r"listening on \S+ (\S+)", run_command("info", "--db", str(db)))
    assert found
    return found[1]


def test_what_is_sent_appears_and_a_killed_receiver_comes_back(terminal: Open, tmp_path: Path) -> None:
    db = tmp_path / "spans.db"
    screen = terminal("--db", db, "--listen", "here=127.0.0.1:0", columns=120, lines=30)
    screen.wait_for("Requests")
    eventually(lambda: receiver_pid(db))
    first = receiver_pid(db)
    requests = [ExportTraceServiceRequest.FromString(body) for body in demo_requests()]
    send(listening(db), requests[:10])
    screen.wait_for(re.compile(r"kubelet|kubectl|scheduler"))

    os.kill(first, signal.SIGKILL)
    screen.wait_for("SIGKILL")
    eventually(lambda: receiver_pid(db) not in (0, first))
    send(listening(db), requests[10:])
    told = [json.loads(line) for line in run_command("traces", "--json", "--db", str(db)).splitlines()]
    sent = [
        (span.trace_id, span.span_id)
        for request in requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert sum(trace["spans"] for trace in told) == len(set(sent)), "all that was acknowledged is there"

    again = receiver_pid(db)
    screen.keys("q")
    left_as_it_was(screen)
    assert alive(again), "it stays for whoever comes back within ten seconds"
    eventually(lambda: not alive(again), seconds=20)
    assert not Path(f"{db}.sock").exists()


def test_a_killed_screen_takes_its_receiver_with_it(terminal: Open, tmp_path: Path) -> None:
    db = tmp_path / "spans.db"
    screen = terminal("--db", db, "--listen", "127.0.0.1:0")
    screen.wait_for("Requests")
    eventually(lambda: receiver_pid(db))
    pid = receiver_pid(db)
    for process in screen.processes():
        os.kill(process, signal.SIGKILL)
    began = time.monotonic()
    eventually(lambda: not alive(pid), seconds=25)
    assert time.monotonic() - began > 5, "not at once: another screen may come"


def test_the_demo_needs_nothing(terminal: Open) -> None:
    screen = terminal("demo", "--seed", "7", columns=120, lines=30)
    screen.wait_for("demo (seed 7)")
    screen.wait_for(re.compile(r"20[01] +\d"), 30)
    before = set(Path(tempfile.gettempdir()).glob("k8s-trace-tui-demo-*"))
    assert before
    screen.keys("C-c")
    left_as_it_was(screen)
    assert set(Path(tempfile.gettempdir()).glob("k8s-trace-tui-demo-*")) < before, "its database is gone"


def test_a_damaged_database_is_said_before_the_screen_is_taken(terminal: Open, tmp_path: Path) -> None:
    db = tmp_path / "damaged.db"
    db.write_bytes(b"nonsense" * 2000)
    screen = terminal("--db", db, columns=160)
    assert screen.ended() == (1, "restored")
    shown = screen.wait_for("after the program").replace("\n", "")
    assert "is damaged" in shown
    assert "--db" in shown
    assert db.read_bytes() == b"nonsense" * 2000


def test_a_dumb_terminal_is_refused(terminal: Open, recording: Path) -> None:
    screen = terminal(recording, environment={"TERM": "dumb"}, columns=160)
    assert screen.ended() == (1, "restored")
    assert "TERM=dumb" in screen.wait_for("after the program")
