"""`show` of a trace with very many spans: bounded, streamed, and complete where scripts rely on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from receiver.ingest.recordings import take
from receiver.store.database import Database
from receiver.traces import reader
from receiver.traces.bodies import Bodies
from tests.bench.reading import collection_deleted
from tests.tui.test_cli import Command, command, lines_of  # noqa: F401 - a fixture
from tui import headless


def large(path: Path, spans: int) -> Path:
    """A database with one trace, `ab` times 16."""
    database = Database.create(path)
    recording = path.with_suffix(".jsonl")
    recording.write_text("\n".join(collection_deleted(spans)) + "\n")
    taken = take(recording, database, print, arrived_now=True)
    assert taken.spans == spans
    database.close()
    return path


def test_show_prints_the_first_spans_and_how_many_more_there_are(
    command: Command,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    db = large(tmp_path / "large.db", 6_100)
    code, everything, _ = command("show", "--all", "--db", db, "abab")
    assert code == 0
    lines = everything.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("SPAN "))
    assert len(lines) == at + 1 + 6_100
    bounded = command("show", "--db", db, "abab")[1].splitlines()
    assert bounded[: at + 1 + 2_000] == lines[: at + 1 + 2_000], "the verdict is on all of it"
    assert bounded[at + 1 + 2_000 :] == ["4,100 more spans of this trace: --all shows them"]

    built: list[int] = []
    build = reader.build
    monkeypatch.setattr(reader, "build", lambda spans, **more: built.append(len(spans)) or build(spans, **more))
    monkeypatch.setattr(headless, "SPAN_CAP", 5_000)
    huge = command("show", "--db", db, "abab")[1].splitlines()
    here = huge.index("It has too many spans to be judged: --all does it.") + 1
    assert huge[here : here + 2_001] == lines[at : at + 2_001], "the same spans with the same times"
    assert huge[-1] == "4,100 more spans of this trace: --all shows them"
    assert max(built) < 2_100, "no tree of all of them is made for it"


def test_json_and_raw_of_a_large_trace_are_complete(
    command: Command,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    db = large(tmp_path / "large.db", 6_100)
    nodes = list(lines_of(command("show", "--json", "--db", db, "abab")[1])[0]["roots"])
    for node in nodes:
        nodes.extend(node["children"])
    assert len({node["span_id"] for node in nodes}) == len(nodes) == 6_100
    at_once: list[int] = []
    raw = Bodies.raw
    monkeypatch.setattr(Bodies, "raw", lambda self, spans: at_once.append(len(spans)) or raw(self, spans))
    code, out, error = command("show", "--raw", "--db", db, "abab")
    assert (code, error) == (0, "")
    assert (max(at_once), sum(at_once)) == (1_000, 6_100), "a part after the other"
    again = tmp_path / "again.jsonl"
    again.write_text(out)
    assert "6,100 spans" in command("import", "--db", tmp_path / "again.db", again)[1]
    monkeypatch.setattr(headless, "MAX_SPANS", 100)
    code, out, error = command("show", "--json", "--db", db, "abab")
    assert (code, lines_of(out)[0]["left_out"]) == (0, 6_000)
    assert error == "k8s-trace-tui: 6,000 of 6,100 spans are in no tree: show --raw prints them all.\n"


@pytest.mark.parametrize("how", ["--all", "--raw", "--json"])
def test_show_ends_quietly_when_nobody_reads_any_more(tmp_path: Path, how: str) -> None:
    db = large(tmp_path / "large.db", 6_100)
    words = [sys.executable, "-m", "tui.cli", "show", how, "--db", str(db), "abab"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
