"""The command line as scripts and people use it: what it prints, its exit codes, and its one sentence when it fails."""

from __future__ import annotations

import fcntl
import gzip
import io
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from receiver.ingest.recordings import take
from receiver.recordings.reading import read
from receiver.store import files
from receiver.store.database import Database, compress
from receiver.store.index import Index
from receiver.traces.facets import SCOPES
from receiver.traces.query import SORTS
from tests.conftest import StartReceiver
from tests.demo_recording import demo_requests, write_demo
from tests.doubles.replay import send
from tests.receiver.traces import shapes
from tests.receiver.traces.shapes import Recorder
from tests.somebody_else import needs_root, start
from tui import __version__, cli, headless
from tui.terminal_text import size


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "demo.jsonl.gz"
    write_demo(path)
    return path


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of whoever runs the tests is read or written."""
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))


@pytest.fixture(scope="module")
def db(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("database") / "spans.db"
    assert cli.main(["import", "--db", str(path), str(recording)]) == 0
    return path


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*argv: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = cli.main([str(one) for one in argv])
        except SystemExit as end:  # --help and --version
            code = int(end.code or 0)
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def one_sentence(error: str) -> bool:
    """One line with the program's name in front, and no traceback."""
    return (
        error.startswith("k8s-trace-tui: ")
        and error.count("\n") == 1
        and error.rstrip().endswith(".")
        and "Traceback" not in error
    )


# --- usage -----------------------------------------------------------------------------------------
def test_version_and_help(command: Command) -> None:
    assert command("--version") == (0, f"k8s-trace-tui {__version__}\n", "")
    code, out, _ = command("--help")
    assert code == 0
    for name in ("demo", "receive", "traces", "show", "export", "import", "info"):
        assert f"k8s-trace-tui {name}" in out
        code, about, _ = command(name, "--help")
        assert code == 0
        for option in ("--db", "--listen", "--theme", "--config"):
            assert option in about, f"{name} has no {option}"


def test_help_knows_the_orders_that_the_query_knows() -> None:
    assert cli.SORTS == SORTS


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--bogus"], "--bogus"),
        (["tracse"], "neither a command nor a file"),
        (["traces", "--limit", "0"], "number from 1"),
        (["traces", "--limit", "9" * 5000], "number from 1"),
        (["traces", "--sort", "colour"], "colour"),
        (["traces", "colour=red"], "colour"),
        (["traces", 'name="half'], "without its end"),
        (["traces", "--follow", "--sort", "code"], "--follow"),
        (["traces", "--db", ""], "empty"),
        (["show"], "show needs a trace id"),
        (["show", "--json", "--raw", "abcd"], "not allowed with"),
        (["export"], "--output"),
        (["import"], "FILE"),
        (["demo", "--seed", "x"], "--seed"),
        (["--listen", "nowhere"], "not an address"),
        (["--listen", "127.0.0.1:4390", "--listen", "a=127.0.0.1:4390"], "The address 127.0.0.1:4390 is given"),
        (["demo", "--listen", "unix:/x", "--listen", "unix:///x"], "The address unix:/x is given"),
        (["--lis", "127.0.0.1:1"], "--lis"),
        (["receive", "--bogus"], "--bogus"),
        *(
            (["sampling", *words], f"The rate {words[-1]!r} is below 0; a rate is between 0 and 100 %.")
            for words in (["set", "-1%"], ["set", "--yes", "-.5%"], ["set", "-1"], ["set", "--", "-5ppm"])
        ),
        (["sampling", "set", "1%", "-x"], "arguments: -x"),
        (["receive", "--max-size", "much"], "not a size"),
        (["receive", "--tls-cert", "x.pem"], "belong together"),
    ],
)
def test_bad_usage_is_exit_2_and_a_sentence(command: Command, argv: list[str], says: str) -> None:
    code, out, error = command(*argv)
    assert (code, out) == (2, "")
    assert one_sentence(error), error
    assert says in error


def test_options_may_stand_before_the_command(command: Command, db: Path) -> None:
    assert command("--db", db, "traces", "--limit", "1")[1] == command("traces", "--limit", "1", "--db", db)[1]


# --- traces ----------------------------------------------------------------------------------------
def lines_of(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_traces_prints_all_newest_first(command: Command, db: Path) -> None:
    code, out, error = command("traces", "--json", "--db", db)
    traces = lines_of(out)
    assert (code, error) == (0, "")
    assert len(traces) > 500
    starts = [trace["start"] for trace in traces]
    assert starts == sorted(starts, reverse=True)
    assert sum(trace["request"] is not None for trace in traces) > 200
    text = command("traces", "--db", db)[1].splitlines()
    assert [line.split()[0] for line in text] == [trace["trace_id"] for trace in traces]


def test_filter_sort_limit_reverse(command: Command, db: Path) -> None:
    traces = lines_of(command("traces", "--json", "--db", db, "verb=create", "pods", "--sort", "duration")[1])
    assert traces
    assert {trace["request"]["verb"] for trace in traces} == {"create"}
    durations = [trace["duration_ns"] for trace in traces]
    assert durations == sorted(durations, reverse=True)
    again = lines_of(
        command("traces", "--json", "--db", db, "verb=create pods", "--sort", "duration", "--reverse", "--limit", "2")[
            1
        ]
    )
    assert [trace["duration_ns"] for trace in again] == durations[::-1][:2]
    nothing = "k8s-trace-tui: Nothing matches no-such-thing-anywhere.\n"
    assert command("traces", "--db", db, "no-such-thing-anywhere") == (0, "", nothing)


@pytest.mark.parametrize("argv", [("traces",), ("traces", "--json"), ("hot",), ("export", "-o", "out.jsonl")])
def test_a_filter_that_matches_nothing_is_said_on_standard_error(
    command: Command, db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = command(*argv, "verb=create", "ns=nowhere", "--db", db)
    assert code == 0
    assert err.splitlines()[0] == "k8s-trace-tui: Nothing matches ns=nowhere, whatever the rest says."


def test_attributes_filter_lists_and_exports(command: Command, db: Path, tmp_path: Path) -> None:
    def ids(*words: str) -> set[str]:
        return {trace["trace_id"] for trace in lines_of(command("traces", "--json", "--db", db, *words)[1])}

    asked = "any(kind=server component=apiserver http.response.status_code=4xx)"
    assert ids(asked) == ids("code=4xx") != set()
    assert ids(f"!{asked} code>0") == ids("code>0 code!=4xx")
    some = tmp_path / "some.jsonl"
    assert command("export", "--db", db, asked, "-o", some)[0] == 0
    assert command("import", "--db", tmp_path / "again.db", some)[0] == 0
    again = lines_of(command("traces", "--json", "--db", tmp_path / "again.db")[1])
    assert {trace["trace_id"] for trace in again} == ids("code=4xx")
    code, _, error = command("traces", "--db", db, "duration>5")
    assert code == 2
    assert "5 has no unit" in error


def test_codes_and_errors_are_those_of_the_request(command: Command, db: Path) -> None:
    denied = lines_of(command("traces", "--json", "--db", db, "code=403")[1])
    assert denied
    assert all(trace["request"]["code"] == 403 for trace in denied)


# --- show ------------------------------------------------------------------------------------------
def test_show_by_prefix_traceparent_and_stdin(command: Command, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traces = lines_of(command("traces", "--json", "--db", db, "--limit", "3", "verb=create")[1])
    ids = [trace["trace_id"] for trace in traces]
    by_prefix = lines_of(command("show", "--json", "--db", db, ids[0][:20], ids[1].upper())[1])
    assert [trace["trace_id"] for trace in by_prefix] == ids[:2]
    by_header = lines_of(command("show", "--json", "--db", db, f"00-{ids[2]}-00f067aa0ba902b7-01")[1])
    assert by_header[0]["trace_id"] == ids[2]
    listed = command("traces", "--db", db, "--limit", "3", "verb=create")[1]
    for stdin in (listed, "\n\n".join(ids) + "\n", "\n".join(json.dumps(trace) for trace in traces)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        assert [trace["trace_id"] for trace in lines_of(command("show", "--json", "--db", db, "-")[1])] == ids


def test_show_knows_how_long_a_paired_authentication_took(command: Command, tmp_path: Path) -> None:
    recorder, file, db = Recorder(), tmp_path / "slow.jsonl", tmp_path / "spans.db"
    shapes.slow_authentication(recorder)
    files.write(file, iter(recorder.requests()))
    assert cli.main(["import", "--db", str(db), str(file)]) == 0
    request, lone = recorder.trace_id("request 0"), recorder.trace_id("lone 0")
    for more in ((), ("--json",)):
        assert (
            "Authentication took 900 ms, before the request itself began"
            in command("show", "--db", db, request, *more)[1]
        )
    paired = {trace["trace_id"]: trace["paired_with"] for trace in lines_of(command("traces", "--json", "--db", db)[1])}
    assert (paired[request], paired[lone], len(paired)) == (lone, request, 24)
    (line,) = command("traces", "--db", db, f"trace={request}")[1].splitlines()
    assert line.endswith("! authentication 900 ms")


def test_a_release_that_ends_its_span_early_has_one_duration_everywhere(command: Command, tmp_path: Path) -> None:
    recorder, file, db = Recorder(), tmp_path / "early.jsonl", tmp_path / "spans.db"
    shapes.release_1_33(recorder)
    recorder.span("GET", 2, trace="longer than the span, shorter than the work", ms=5)
    files.write(file, iter(recorder.requests()))
    assert cli.main(["import", "--db", str(db), str(file)]) == 0
    first = lines_of(command("traces", "--json", "--sort", "duration", "--db", db)[1])[0]
    assert first["trace_id"] == recorder.trace_id()
    assert first["duration_ns"] == sum(first["phases"].values()) == 17_600_000
    lines = command("traces", "--sort", "duration", "--db", db)[1].splitlines()
    assert " 17.6 ms " in lines[0]
    assert "17.6 ms" in command("show", "--db", db, recorder.trace_id())[1]


def test_by_duration_what_was_asked_to_last_comes_last(command: Command, tmp_path: Path) -> None:
    recorder, file, db = Recorder(), tmp_path / "lasting.jsonl", tmp_path / "spans.db"
    pods = "/api/v1/namespaces/default/pods"
    targets = (f"{pods}/web", f"{pods}?watch=true", f"{pods}/web/exec?command=sh", f"{pods}/web/log?follow=true", pods)
    for number, target in enumerate(targets):
        values = {"http.request.method": "GET", "http.target": target, "http.response.status_code": 200}
        recorder.span("GET", 2, trace=target, scope=shapes.HTTP, ms=1000 * number + 1, values=values)
    files.write(file, iter(recorder.requests()))
    assert cli.main(["import", "--db", str(db), str(file)]) == 0

    def listed(*more: str) -> list[int]:
        traces = lines_of(command("traces", "--json", "--sort", "duration", "--db", db, *more)[1])
        return [trace["duration_ns"] // 1_000_000_000 for trace in traces]

    assert listed() == [4, 0, 3, 2, 1]
    assert listed("--reverse") == [0, 4, 1, 2, 3]
    assert "after all others" in " ".join(command("traces", "--help")[1].split())


def test_show_counts_what_traces_counts(command: Command, db: Path) -> None:
    trace = lines_of(command("traces", "--json", "--db", db, "--sort", "spans", "--limit", "1")[1])[0]
    shown = lines_of(command("show", "--json", "--db", db, trace["trace_id"])[1])[0]
    nodes = list(shown["roots"])
    for node in nodes:
        nodes += node["children"]
    assert len(nodes) == trace["spans"] == shown["spans"]
    assert sum(node["status"] == "error" for node in nodes) == trace["errors"]
    assert {node["service"] for node in nodes} == set(trace["services"])
    assert all(node["self_ns"] <= node["duration_ns"] for node in nodes)


def test_show_as_text_and_raw(command: Command, db: Path, tmp_path: Path) -> None:
    trace = lines_of(command("traces", "--json", "--db", db, "--limit", "1", "create", "webhook")[1])
    trace = trace or lines_of(command("traces", "--json", "--db", db, "--limit", "1")[1])
    trace_id = trace[0]["trace_id"]
    text = command("show", "--db", db, trace_id)[1]
    assert trace_id in text
    assert "SELF" in text
    raw = tmp_path / "raw.jsonl"
    raw.write_text(command("show", "--raw", "--db", db, trace_id)[1])
    other = tmp_path / "other.db"
    assert command("import", "--db", other, raw)[0] == 0
    copy = lines_of(command("show", "--json", "--db", other, trace_id)[1])[0]
    original = lines_of(command("show", "--json", "--db", db, trace_id)[1])[0]
    for document in (copy, original):
        del document["settled"]
    assert json.loads(json.dumps(copy).replace('"raw.jsonl"', '"demo.jsonl.gz"')) == original


@pytest.mark.parametrize(
    ("wanted", "says"),
    [("abc", "at least 4"), ("not-hex!", "not a trace id"), ("0" * 33, "not a trace id"), ("ffffffffff", "no trace")],
)
def test_what_is_no_trace_is_said(command: Command, db: Path, wanted: str, says: str) -> None:
    code, out, error = command("show", "--db", db, wanted)
    assert (code, out) == (1, "")
    assert one_sentence(error)
    assert says in error


def test_a_prefix_of_several_traces_is_said(command: Command, tmp_path: Path) -> None:
    spans = [{"traceId": f"abcd{n}" + "0" * 27, "spanId": "b7ad6b7169203331", "name": "n"} for n in range(2)]
    path = tmp_path / "two.jsonl"
    path.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}))
    command("import", "--db", tmp_path / "two.db", path)
    code, _, error = command("show", "--db", tmp_path / "two.db", "abcd")
    assert code == 1
    assert "2 traces begin with abcd" in error
    code, out, _ = command("show", "--json", "--db", tmp_path / "two.db", "abcd", "abcd1")
    assert code == 1, "one is missing, the other is printed all the same"
    assert lines_of(out)[0]["trace_id"] == "abcd1" + "0" * 27


# --- export and import -----------------------------------------------------------------------------
def test_what_is_exported_imports_to_the_same(command: Command, db: Path, tmp_path: Path) -> None:
    copy = tmp_path / "all.jsonl.gz"
    assert command("export", "--db", db, "-o", copy)[0] == 0
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    other = tmp_path / "other.db"
    assert command("import", "--db", other, copy)[0] == 0

    def told(path: Path) -> list[Any]:
        return [
            {**trace, "source": "", "settled": ""} for trace in lines_of(command("traces", "--json", "--db", path)[1])
        ]

    assert told(other) == told(db)


def test_what_was_just_imported_is_settled(command: Command, recording: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    command("import", "--db", path, recording)
    traces = lines_of(command("traces", "--json", "--db", path)[1])
    assert traces
    assert all(trace["settled"] for trace in traces)
    assert lines_of(command("show", "--json", "--db", path, traces[0]["trace_id"])[1])[0]["settled"]


@pytest.mark.parametrize("name", ["", "-wal", "-shm", ".lock", ".sock"])
@pytest.mark.parametrize("way", ["itself", "symbolic", "hard", "other database name"])
def test_an_export_never_overwrites_the_database(
    command: Command, db: Path, tmp_path: Path, name: str, way: str
) -> None:
    own = tmp_path / "own.db"
    shutil.copy(db, own)
    victim, given = Path(f"{own}{name}"), own
    if name == "-wal":
        victim.write_bytes(b"")
    to = victim
    if way == "symbolic":
        to = tmp_path / "link.jsonl"
        to.symlink_to(victim)
    elif way == "hard" and victim.exists():
        to = tmp_path / "hard.jsonl"
        os.link(victim, to)
    elif way == "other database name":
        given = tmp_path / "alias.db"
        given.symlink_to(own)
    before = own.read_bytes()
    code, _, error = command("export", "--db", given, "-o", to)
    assert (code, own.read_bytes() == before) == (1, True)
    assert one_sentence(error)
    assert "would be overwritten" in error


def test_an_export_with_a_filter_holds_those_traces_and_no_other_span(
    command: Command, db: Path, tmp_path: Path
) -> None:
    wanted = lines_of(command("traces", "--json", "--db", db, "code=403")[1])
    some = tmp_path / "some.jsonl"
    assert command("export", "--db", db, "code=403", "-o", some)[0] == 0
    out = command("export", "--db", db, "code=403", "-o", "-")[1] if hasattr(sys.stdout, "buffer") else some.read_text()
    assert out == some.read_text()
    spans = [
        span
        for line in some.read_text().splitlines()
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    assert {span["traceId"] for span in spans} == {trace["trace_id"] for trace in wanted}
    assert len(spans) == sum(trace["spans"] for trace in wanted)


def test_an_export_of_nothing_leaves_what_is_there(command: Command, db: Path, tmp_path: Path) -> None:
    some = tmp_path / "some.jsonl"
    assert command("export", "--db", db, "ns=nowhere", "-o", some)[0] == 0
    assert some.read_text() == ""
    some.write_text("yesterday's")
    code, _, error = command("export", "--db", db, "ns=nowhere", "-o", some)
    assert (code, some.read_text()) == (0, "yesterday's")
    assert error.splitlines() == [
        "k8s-trace-tui: Nothing matches ns=nowhere.",
        f"k8s-trace-tui: Nothing is written: {some} stays as it was.",
    ]
    assert os.listdir(tmp_path) == [some.name]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_an_export_that_is_ended_leaves_nothing_behind(db: Path, tmp_path: Path, number: signal.Signals) -> None:
    large = tmp_path / "large.db"
    shutil.copy(db, large)
    with sqlite3.connect(large) as connection:  # enough to write for a while
        columns = "received, n, bytes, source, peer, names, spans, facts, body"
        for _ in range(4):
            connection.execute(f"INSERT INTO chunks({columns}) SELECT {columns} FROM chunks")
    connection.close()
    place = tmp_path / "place"
    place.mkdir()
    command = [sys.executable, "-m", "tui.cli", "export", "--db", str(large), "-o", str(place / "all.jsonl")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60
        while not list(place.iterdir()) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130 if number == signal.SIGINT else 143, "")
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    "argv", [("export", "-o", "{tmp}/some.jsonl"), ("export", "verb=create", "-o", "{tmp}/some.jsonl"), ("show",)]
)
def test_what_retention_stores_anew_meanwhile_is_not_missed(
    command: Command, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...]
) -> None:
    path, out = tmp_path / "live.db", tmp_path / "some.jsonl"
    command("import", "--db", path, recording)
    words = [word.format(tmp=tmp_path) for word in argv]
    if words == ["show"]:
        words += ["--raw", lines_of(command("traces", "--json", "--db", path, "--limit", "1")[1])[0]["trace_id"]]
    before = command(*words, "--db", path)[1]
    before = before or out.read_text()
    load = headless.load_index

    def load_and_evict(database: Database) -> Index:
        index = load(database)
        writer = Database.create(path)
        ids = writer.ids()
        chunks = writer.index_rows(ids)
        for chunk, body in zip(chunks, writer.bodies(ids).values(), strict=True):
            chunk.body = compress(body)
        writer.replace(ids, chunks)
        writer.close()
        return index

    monkeypatch.setattr(headless, "load_index", load_and_evict)
    assert (command(*words, "--db", path)[1] or out.read_text()) == before
    assert len(before) > 1000


def test_import_says_what_it_left_and_reads_the_rest(command: Command, recording: Path, tmp_path: Path) -> None:
    lines = gzip.decompress(recording.read_bytes()).splitlines(keepends=True)
    bad_id = json.dumps(
        {"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "0" * 32, "spanId": "1" * 16, "name": "zero"}]}]}]}
    )
    path = tmp_path / "mixed.jsonl"
    path.write_bytes(lines[0] + b"nonsense\n" + bad_id.encode() + b"\n" + lines[1])
    code, out, error = command("import", "--db", tmp_path / "x.db", path, tmp_path / "missing.jsonl")
    assert code == 1, "one file could not be read at all"
    assert "400 spans in" in out
    assert "1 line skipped, 1 span left out" in out
    assert f"{path}, line 2: is not JSON" in error
    assert "missing.jsonl cannot be read" in error
    assert sum(trace["spans"] for trace in lines_of(command("traces", "--json", "--db", tmp_path / "x.db")[1])) == 400


def test_importing_twice_shows_each_span_once(command: Command, recording: Path, db: Path, tmp_path: Path) -> None:
    for _ in range(2):
        command("import", "--db", tmp_path / "x.db", recording)
    twice = lines_of(command("traces", "--json", "--db", tmp_path / "x.db")[1])
    once = lines_of(command("traces", "--json", "--db", db)[1])
    assert [(trace["trace_id"], trace["spans"]) for trace in twice] == [
        (trace["trace_id"], trace["spans"]) for trace in once
    ]


def test_an_import_of_nothing_begins_no_database(command: Command, tmp_path: Path) -> None:
    code, _, error = command("import", "--db", tmp_path / "x.db", tmp_path / "missing", tmp_path / "neither")
    assert code == 1
    assert one_sentence(error)
    assert "is not there" in error
    assert list(tmp_path.glob("x.db*")) == []


def test_a_settings_file_that_is_named_and_not_there_is_bad_usage(command: Command, db: Path, tmp_path: Path) -> None:
    code, _, error = command("traces", "--db", db, "--config", tmp_path / "missing.yaml")
    assert code == 2
    assert one_sentence(error)
    assert "missing.yaml" in error


def test_importing_again_stores_nothing_again(command: Command, recording: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    lines = gzip.decompress(recording.read_bytes()).splitlines(keepends=True)
    some = tmp_path / "some.jsonl"
    some.write_bytes(lines[0] + lines[0])
    first = command("import", "--db", path, some)[1]
    half = int(first.split(": ")[1].split(" ")[0].replace(",", "")) // 2
    assert f"{half} of them were already there" in first
    assert f", {half} of them were already there" in command("import", "--db", path, recording)[1]
    database = Database.read(path)
    held = database.last_id()
    database.close()
    code, out, error = command("import", "--db", path, recording)
    assert (code, error) == (0, "")
    assert "spans, all of them were already there" in out
    database = Database.read(path)
    assert database.last_id() == held
    database.close()


def test_an_import_respects_the_cap(command: Command, tmp_path: Path) -> None:
    files_ = []
    for seed in range(4):
        files_.append(tmp_path / f"{seed}.jsonl.gz")
        files.write(files_[-1], demo_requests(seconds=60, seed=seed))
    path = tmp_path / "x.db"
    code, _out, error = command("import", "--db", path, "--max-size", "1MiB", *files_)
    assert code == 0
    assert "were evicted" in error
    database = Database.read(path)
    assert database.live_bytes() <= 1 << 20
    database.close()
    newest = lines_of(command("traces", "--json", "--db", path)[1])
    assert newest
    # The newest of each service stay, so a few of those that send little are of a file before.
    assert "3.jsonl.gz" in {one["source"] for one in newest[:10]}
    assert Counter(one["source"] for one in newest).most_common(1)[0][0] == "3.jsonl.gz"
    assert command("import", "--db", path, "--max-size", "a lot", *files_)[0] == 2


def test_a_span_that_nests_deeper_than_protobuf_reads_is_left_out(command: Command, tmp_path: Path) -> None:
    value: dict[str, Any] = {"stringValue": "x"}
    for _ in range(120):
        value = {"arrayValue": {"values": [value]}}
    span = {"traceId": "1" * 32, "spanId": "1" * 16, "name": "n", "attributes": [{"key": "k", "value": value}]}
    path = tmp_path / "deep.jsonl"
    path.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}))
    code, out, error = command("import", "--db", tmp_path / "x.db", path)
    assert "0 spans" in out
    assert "left out" in out or "skipped" in out
    assert error.startswith(f"k8s-trace-tui: {path}")
    assert "Traceback" not in error
    assert code in (0, 1)


def test_an_import_beside_a_receiver_at_work(command: Command, receiver: StartReceiver, recording: Path) -> None:
    """Two writers on one file: nothing of either is lost, and nobody has to wait for the other to end."""
    live = receiver()
    sent = [ExportTraceServiceRequest.FromString(body) for body in demo_requests(seconds=20, seed=2)]
    sender = threading.Thread(target=send, args=(live.address, sent))
    sender.start()
    code, out, error = command("import", "--db", live.db, recording)
    sender.join(60)
    assert not sender.is_alive()
    assert (code, error) == (0, "")
    traces = lines_of(command("traces", "--json", "--db", live.db)[1])
    by_source = {
        source: sum(t["spans"] for t in traces if t["source"] == source) for source in ("demo.jsonl.gz", "local")
    }
    spans = {
        (s.trace_id, s.span_id) for r in sent for rs in r.resource_spans for ss in rs.scope_spans for s in ss.spans
    }
    assert by_source["local"] == len(spans)
    assert f"{by_source['demo.jsonl.gz']:,} spans" in out
    assert "process " in command("info", "--db", live.db)[1]


# --- files that are not what they should be --------------------------------------------------------
def test_no_database_yet(command: Command, tmp_path: Path) -> None:
    for argv in (["traces"], ["traces", "--follow"], ["show", "abcd"], ["export", "-o", tmp_path / "x.jsonl"]):
        code, out, error = command(*argv, "--db", tmp_path / "none.db")
        assert (code, out) == (1, "")
        assert one_sentence(error)
        assert "no database" in error
    assert list(tmp_path.glob("none.db*")) == []


@pytest.mark.parametrize("content", [b"not a database at all" * 500, b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_database_is_left_as_it_is(command: Command, tmp_path: Path, recording: Path, content: bytes) -> None:
    path = tmp_path / "spans.db"
    path.write_bytes(content)
    for argv in (["traces"], ["import", recording], ["export", "-o", tmp_path / "x.jsonl"], ["show", "abcd"]):
        code, out, error = command(*argv, "--db", path)
        assert (code, out) == (1, "")
        assert one_sentence(error), error
        assert "--db" in error
    assert path.read_bytes() == content


def test_somebody_elses_database(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t(x)")
    code, _, error = command("traces", "--db", path)
    assert code == 1
    assert "not a k8s-trace-tui database" in error


def as_somebody_else(*argv: str | Path) -> tuple[int, str]:
    """Runs a command as a user who owns nothing here (needs root, else it is us); exit code, and what it said.

    Everything is loaded before, because that user could not start an interpreter in root's home.
    """
    program = (
        "import os, sys\n"
        "import encodings.idna, importlib.readers, importlib.resources\n"
        "import rich.cells, tui.cli, tui.clusters.force.identity, tui.config, tui.headless, yaml\n"
        "importlib.resources.files('themes').joinpath('dark.yaml').is_file()\n"  # from 3.13 on loads more on first use
        "if os.geteuid() == 0:\n"
        "    os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(tui.cli.main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, argv)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.fixture
def theirs(db: Path) -> Iterator[Path]:
    """A closed database in a directory that only its owner may write to."""
    directory = Path(tempfile.mkdtemp(prefix="k8s-trace-tui-test-"))
    path = directory / "spans.db"
    path.write_bytes(db.read_bytes())
    path.chmod(0o444)
    directory.chmod(0o555)
    yield path
    directory.chmod(0o700)
    shutil.rmtree(directory)


@needs_root
def test_another_users_closed_database(theirs: Path) -> None:
    """WAL refuses it in a directory that may not be written to, unless it is opened as immutable."""
    argv = [sys.executable, "-m", "tui.cli", "traces", "--json", "--db", str(theirs), "--limit", "2"]
    with start(*argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:  # starts a reader of its own
        told, _ = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert len(lines_of(told)) == 2
    code, told = as_somebody_else("import", "--db", theirs, "/dev/null")
    assert code == 1
    assert one_sentence(told), told


def test_a_database_that_may_not_be_read(theirs: Path) -> None:
    theirs.chmod(0)
    code, told = as_somebody_else("traces", "--db", theirs)
    assert code == 1
    assert one_sentence(told), told


@pytest.mark.parametrize("column", ["received", "source", "names"])
def test_a_row_of_another_type_is_damage_not_a_defect(command: Command, db: Path, tmp_path: Path, column: str) -> None:
    path = tmp_path / "odd.db"
    shutil.copy(db, path)
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE chunks SET {column} = 'x' || zeroblob(0) WHERE id = 1")
    code, out, error = command("info", "--db", path)
    assert (code, error) == (0, "")
    assert "configuration" in out
    if column == "source":
        return
    assert "is damaged" in out
    for argv in (["traces"], ["show", "abcd"], ["export", "-o", tmp_path / "x.jsonl"]):
        code, out, error = command(*argv, "--db", path)
        assert (code, out) == (1, "")
        assert one_sentence(error)
        assert "is damaged" in error


@pytest.mark.parametrize("damage", ["flipped", "another frame"])
def test_a_damaged_body_is_said_and_what_is_whole_is_told(
    command: Command, db: Path, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "odd.db"
    shutil.copy(db, path)
    with sqlite3.connect(path) as connection:
        body, spans = connection.execute("SELECT body, n FROM chunks WHERE id = 2").fetchone()
        total = connection.execute("SELECT sum(n) FROM chunks").fetchone()[0]
        middle = len(body) // 2
        broken = body[:middle] + bytes(one ^ 0x55 for one in body[middle : middle + 8]) + body[middle + 8 :]
        broken = broken if damage == "flipped" else compress(b"\xff" * 64)
        connection.execute("UPDATE chunks SET body = ? WHERE id = 2", (broken,))
    connection.close()
    to = tmp_path / "whole.jsonl"
    code, _, error = command("export", "--db", path, "-o", to)
    assert code == 1
    assert f"is damaged: {spans} spans in 1 request" in error
    assert "defect" not in error
    assert f"{total - spans:,} spans in" in command("import", "--db", tmp_path / "whole.db", to)[1]
    database = Database.read(path)
    first = database.index_rows([2])[0].spans[0]
    database.close()
    trace = f"{int(first['trace_hi']):016x}{int(first['trace_lo']):016x}"
    code, out, error = command("show", "--raw", trace, "--db", path)
    assert code == 1
    assert one_sentence(error)
    assert "is damaged" in error
    assert "resourceSpans" in out
    assert command("show", trace, "--db", path)[0] == 0


def test_info_about_what_is_somebody_elses(theirs: Path) -> None:
    with open(f"{theirs}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, told = as_somebody_else("info", "--db", theirs)
        assert code == 0, told
        assert "running (not yours)" in told or os.geteuid() != 0 or not Path("/proc/locks").exists()
    assert "not running" in as_somebody_else("info", "--db", theirs)[1]
    theirs.parent.chmod(0o700)
    code, told = as_somebody_else("info", "--db", theirs)
    assert code == 0, told
    assert "configuration" in told
    assert "Permission denied" in told or os.geteuid() != 0


def test_info_counts_the_log(command: Command, recording: Path, tmp_path: Path) -> None:
    path = tmp_path / "open.db"
    writer = Database.create(path)
    take(recording, writer, pytest.fail, arrived_now=True)
    held = path.stat().st_size + Path(f"{path}-wal").stat().st_size
    assert f"({size(held)}," in command("info", "--db", path)[1]
    writer.close()


@pytest.mark.parametrize("argv", [("traces",), ("show", "abcd"), ("export", "-o", "-"), ("import", "x"), ("info",)])
def test_what_is_no_file_is_not_waited_for(command: Command, tmp_path: Path, argv: tuple[str, ...]) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    code, out, error = command(*argv, "--db", fifo)
    assert "not a file" in (out if argv == ("info",) else error)
    assert code == (0 if argv == ("info",) else 1)
    code, _, error = command(*argv, "--config", fifo)
    assert code == 1
    assert "not a file" in error


def test_names_that_are_not_text(command: Command, tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.db")
    for argv in (["traces", "--db", odd], ["import", odd], [odd], ["export", "-o", odd]):
        code, out, error = command(*argv)
        assert (code, out) == (2, "")
        assert one_sentence(error)
        assert "not a name in UTF-8" in error


def shell(text: str) -> tuple[int, str]:
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


def test_closed_streams_are_sentences(db: Path) -> None:
    program = f"{sys.executable} -m tui.cli"
    for text, expected in ((f"traces --db {db} >&-", 1), (f"show --db {db} - <&-", 2), ("import - <&-", 2)):
        code, error = shell(f"{program} {text}")
        assert code == expected
        assert one_sentence(error), error
        assert "closed" in error
    assert shell(f"printf '\\377\\n' | {program} show --db {db} - 2>&-")[0] == 1


def test_import_from_standard_input(recording: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    code, error = shell(f"cat {recording} | {sys.executable} -m tui.cli import --db {path} -")
    assert (code, error) == (0, "")
    assert Database.read(path).ids()


def test_a_recording_that_is_not_whole_is_exit_1(command: Command, recording: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(recording.read_bytes()[:-100])
    code, out, error = command("import", "--db", tmp_path / "x.db", cut)
    assert code == 1
    assert "cut off" in error
    assert not out.split(": ")[1].startswith("0 spans"), "what is whole is there"


# --- the screens without a terminal ------------------------------------------------------------------
def test_the_screens_need_a_terminal(command: Command, recording: Path) -> None:
    for argv in ([], ["demo"], [recording]):
        code, out, error = command(*argv)
        assert (code, out) == (1, "")
        assert one_sentence(error)
        assert "terminal" in error


def test_what_is_no_recording_is_said_before_the_screen_is_taken(command: Command, db: Path, tmp_path: Path) -> None:
    code, _, error = command(db)
    assert code == 1
    assert f"--db {db}" in error
    code, _, error = command(tmp_path / "missing.jsonl")
    assert code == 1
    assert "cannot be read" in error


# --- info and configuration --------------------------------------------------------------------------
def test_info_names_every_path(command: Command, db: Path, tmp_path: Path) -> None:
    code, out, error = command("info", "--db", db)
    assert (code, error) == (0, "")
    for part in (__version__, str(db), f"{db}.lock", "spans", "not running", "config.yaml", "themes"):
        assert part in out
    code, out, _ = command("info")
    assert code == 0
    assert "not there yet" in out
    assert str(tmp_path / "xdg_state_home") in out


def test_the_configuration_names_a_database_and_a_broken_one_is_said(
    command: Command, db: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"db: {db}\n")
    assert len(command("traces", "--config", config)[1].splitlines()) > 500
    assert command("traces", "--config", config, "--db", tmp_path / "none.db")[0] == 1, "the command line wins"
    config.write_text(f"db: {db}\ncolour: red\n")
    code, out, error = command("traces", "--config", config)
    assert code == 0
    assert out
    assert "colour" in error


# --- defects, pipes, interrupts ----------------------------------------------------------------------
def test_a_defect_is_a_sentence_and_its_traceback_is_in_the_log(
    command: Command, db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> int:
        raise ZeroDivisionError("the \x1b[31mdefect")

    monkeypatch.setattr("tui.headless.traces", broken)
    code, out, error = command("traces", "--db", db)
    assert (code, out) == (1, "")
    assert "Traceback" not in error
    assert "\x1b" not in error
    log = tmp_path / "xdg_state_home" / "k8s-trace-tui" / "k8s-trace-tui.log"
    assert str(log) in error
    assert "ZeroDivisionError" in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    log.write_bytes(b"x" * (2 << 20))
    command("traces", "--db", db)
    assert log.stat().st_size < 100_000, "the log is bounded"


def started(*argv: str | Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tui.cli", *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_reader_that_has_seen_enough_is_no_error(db: Path) -> None:
    process = started("traces", "--json", "--db", db)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    error = process.stderr.read()
    assert (process.wait(30), error) == (0, "")
    process.stderr.close()


def test_a_full_disk_under_the_output_is_a_sentence(db: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tui.cli", "traces", "--json", "--db", str(db)],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert one_sentence(done.stderr), done.stderr


def test_following_prints_what_is_there_then_what_comes_and_ends_by_ctrl_c(
    command: Command, recording: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lines = gzip.decompress(recording.read_bytes()).splitlines(keepends=True)
    half, rest = tmp_path / "half.jsonl", tmp_path / "rest.jsonl"
    half.write_bytes(b"".join(lines[:5]))
    rest.write_bytes(b"".join(lines[5:]))
    path = tmp_path / "live.db"
    command("import", "--db", path, half)
    before = {trace["trace_id"] for trace in lines_of(command("traces", "--json", "--db", path)[1])}
    # a background job of a shell has SIGINT ignored, and so would its children
    process = started(
        "traces", "--json", "--follow", "--db", path,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    request.addfinalizer(process.kill)
    assert process.stdout is not None
    assert process.stderr is not None
    first = [json.loads(process.stdout.readline()) for _ in before]
    assert {trace["trace_id"] for trace in first} == before
    assert [trace["start"] for trace in first] == sorted(trace["start"] for trace in first), (
        "oldest first, as tail does"
    )
    command("import", "--db", path, rest)
    every = {trace["trace_id"] for trace in lines_of(command("traces", "--json", "--db", path)[1])}
    later = [json.loads(process.stdout.readline())["trace_id"] for _ in every - before]
    assert set(later) == every - before
    assert len(later) == len(set(later)), "each trace once"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert process.stderr.read() == ""
    process.stdout.close()
    process.stderr.close()


# --- what is hot, and what changed -----------------------------------------------------------------
def test_hot_prints_tables_and_their_filters_work(command: Command, db: Path) -> None:
    code, out, err = command("hot", "--db", db)
    assert (code, err) == (0, "")
    for title in ("REQUESTS", "WEBHOOKS", "CLIENTS", "OBJECTS", "ETCD"):
        assert f"\n{title}\n" in out
    requests = out.partition("\nREQUESTS\n")[2].partition("\n\n")[0].splitlines()
    at = requests[0].index("SCOPE")
    assert {row[at:].split()[0] for row in requests[1:16] if "(no resource)" not in row} <= set(SCOPES)
    code, out, err = command("hot", "--json", "--db", db)
    assert (code, err) == (0, "")
    hot = json.loads(out)
    shape = hot["shapes"][0]
    assert sum(shape["phases"].values()) == shape["durations"]["total"]
    assert shape["exact"]
    code, out, _ = command("traces", *shape["filter"].split(), "--db", db)
    assert (code, len(out.splitlines())) == (0, shape["durations"]["count"])
    _, out, _ = command("hot", "--json", "verb=create", "--db", db)
    assert {row["verb"] for row in json.loads(out)["shapes"]} == {"create"}
    assert command("hot", "colour=red", "--db", db)[0] == 2


def slower(path: Path, to: Path, verb: str, by: int) -> None:
    """A recording in which all spans of a method take that much longer."""
    requests = []
    for body in read(path, pytest.fail):
        request = ExportTraceServiceRequest.FromString(body)
        for group in request.resource_spans:
            for scope in group.scope_spans:
                for span in scope.spans:
                    if span.name.startswith(verb):
                        span.end_time_unix_nano += by
        requests.append(request.SerializeToString())
    files.write(to, iter(requests))


def test_compare_says_what_became_slower(command: Command, recording: Path, tmp_path: Path) -> None:
    after = tmp_path / "after.jsonl"
    slower(recording, after, "PATCH ", 80_000_000)
    code, out, err = command("compare", recording, after)
    assert (code, err) == (0, "")
    changed = [line for line in out.splitlines() if line.startswith(("slower", "faster"))]
    assert changed
    assert all(line.split()[:2] == ["slower", "patch"] for line in changed)
    assert f"{len(changed)} shape" in out
    assert "Mann-Whitney" in out
    _, _, err = command("compare", recording, after, "ns=nowhere")
    assert err.splitlines() == [f"k8s-trace-tui: {path}: Nothing matches ns=nowhere." for path in (recording, after)]
    code, out, err = command("compare", recording, after, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert sum(line["outcome"] == "slower" for line in lines) == len(changed)
    first = lines[0]
    assert first["p"] < 0.01
    assert first["p50_delta_ns"] == pytest.approx(80_000_000, rel=0.05)
    assert first["tendency"] > 0.9
    _, out, _ = command("compare", recording, after, "verb=get")
    assert out.startswith("0 shapes became slower, 0 faster.")
    _, everything, _ = command("compare", recording, after, "--all")
    assert len(everything.splitlines()) > len(lines)


def test_compare_refuses_in_one_sentence(command: Command, recording: Path, db: Path, tmp_path: Path) -> None:
    for wrong, says in ((tmp_path / "none.jsonl", "cannot be read"), (db, "is a database, not a recording")):
        code, out, err = command("compare", recording, wrong)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert says in err
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text("{\n")
    code, out, err = command("compare", damaged, damaged)
    assert code == 1
    assert "is not JSON" in err
    assert command("compare", recording)[0] == 2


# --- recordings instead of the database --------------------------------------------------------------
def _recorded(tmp_path: Path) -> tuple[Path, int]:
    path = tmp_path / "some.jsonl"
    return path, write_demo(path, seconds=5)


def test_every_reading_command_takes_recordings(command: Command, tmp_path: Path) -> None:
    path, spans = _recorded(tmp_path)
    code, out, error = command("traces", "--json", "--from", path)
    assert (code, error) == (0, "")
    traces = [json.loads(line) for line in out.splitlines()]
    assert sum(trace["spans"] for trace in traces) == spans
    for words in ((path,), ("verb=create", path), (path, "--from", path)):  # spans that come twice are one
        code, again, _ = command("traces", "--json", *words)
        assert code == 0
        wanted = (
            [t for t in traces if (t["request"] or {}).get("verb") == "create"] if "verb=create" in words else traces
        )
        assert {json.loads(line)["trace_id"] for line in again.splitlines()} == {trace["trace_id"] for trace in wanted}
    code, out, _ = command("hot", "--json", path)
    assert json.loads(out)["traces"] == len(traces)
    code, out, _ = command("show", "--json", path, traces[0]["trace_id"][:12])
    assert json.loads(out)["trace_id"] == traces[0]["trace_id"]
    code, out, _ = command("show", "--raw", "--from", path)
    assert (code, len(out.splitlines())) == (0, len(traces))
    copy = tmp_path / "copy.jsonl"
    assert command("export", "-o", copy, path)[0] == 0
    assert sum(json.loads(line)["spans"] for line in command("traces", "--json", copy)[1].splitlines()) == spans
    code, out, _ = command("compare", "--json", "--from", path, copy)
    assert code == 0


def test_a_recording_comes_on_standard_input(tmp_path: Path) -> None:
    path, spans = _recorded(tmp_path)
    program = [sys.executable, "-m", "tui.cli", "traces", "--json", "--from", "-"]
    with path.open("rb") as file:
        done = subprocess.run(program, stdin=file, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert sum(json.loads(line)["spans"] for line in done.stdout.splitlines()) == spans


def test_words_that_name_no_recording_are_what_they_were(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, _ = _recorded(tmp_path)
    plain = tmp_path / "create"
    plain.write_bytes(path.read_bytes())
    database = tmp_path / "x.db"
    assert command("import", "--db", database, path)[0] == 0
    code, out, _ = command("traces", "--db", database, "--json", "create")  # no / and no ending: a filter
    assert code == 0
    assert all("create" in line for line in out.splitlines())
    assert command("traces", "--json", "./create")[0] == 0
    assert "Nothing matches" in command("traces", "--db", database, "gone.jsonl")[2]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("compare",), "compare needs two recordings, as in compare before.jsonl after.jsonl verb=create."),
        (("compare", "--from", "a", "--from", "b", "--from", "c"), "compare needs two recordings"),
        (("show",), "show needs a trace id, or its first digits, or a recording"),
        (("show", "-", "--from", "-"), "Standard input is either trace ids (-) or a recording (--from -)"),
        (("traces", "--follow", "--from", "x"), "--follow waits for what arrives"),
        (("traces", "--db", "y", "--from", "x"), "A recording needs no database"),
    ],
)
def test_what_does_not_go_together_is_said(command: Command, words: tuple[str, ...], says: str) -> None:
    code, _, error = command(*words)
    assert code == 2
    assert says in error


def test_what_a_recording_lacks_is_said_once_a_kind_and_is_the_exit_code(command: Command, tmp_path: Path) -> None:
    path, spans = _recorded(tmp_path)
    mixed = tmp_path / "mixed.jsonl"
    other = '{"resourceMetrics":[]}\n' * 30
    mixed.write_text(other + path.read_text() + other)
    code, out, error = command("import", "--db", tmp_path / "x.db", mixed)
    assert code == 0
    assert f"{spans:,} spans in" in out
    assert "60 lines without spans" in out
    assert error.count("\n") == 1
    assert "line 1 and 59 more: holds metrics, not spans; skipped." in error
    mixed.write_text(other)
    for words in (("import", "--db", tmp_path / "y.db", mixed), ("traces", mixed)):
        assert command(*words)[0] == 1
    mixed.write_text("nonsense\n" * 3 + path.read_text())
    code, _, error = command("traces", mixed)
    assert (code, error.count("\n")) == (1, 1)
    mixed.write_text("\n")
    code, _, error = command("traces", mixed)
    assert (code, error.strip()) == (1, f"k8s-trace-tui: {mixed}: there are no spans in it.")
