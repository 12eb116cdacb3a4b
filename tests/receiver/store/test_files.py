"""Recordings that are written: the Collector's files, interrupted writes, what is not a file."""

from __future__ import annotations

import gzip
import json
import os
import pty
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from receiver.recordings.reading import read
from receiver.store import files
from receiver.store.database import StoreError


def line(name: str) -> str:
    span = {"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": name}
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}, separators=(",", ":"))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_round_trip_is_the_same_text(tmp_path: Path, said: list[str], suffix: str) -> None:
    text = "".join(line(f"größe {i}") + "\n" for i in range(3))
    first = tmp_path / "first.jsonl"
    first.write_text(json.dumps(json.loads(line("größe 0"))) + "\n" + text.split("\n", 1)[1], encoding="utf-8")
    copy = tmp_path / f"copy{suffix}"
    assert files.write(copy, read(first, said.append)) == 3
    raw = gzip.decompress(copy.read_bytes()) if suffix.endswith("gz") else copy.read_bytes()
    assert [json.loads(row) for row in raw.splitlines()] == [json.loads(row) for row in text.splitlines()]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([first.name, copy.name])
    assert not said


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("old")

    def requests() -> Iterator[bytes]:
        yield ExportTraceServiceRequest().SerializeToString()
        raise StoreError("gone")

    with pytest.raises(StoreError, match="gone"):
        files.write(path, requests())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(StoreError, match="cannot be written"):
        files.write(tmp_path / "no" / "x.jsonl", [])


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_a_file_is_never_replaced_by_nothing(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_text("old")
    assert files.write(path, []) == 0
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    assert files.write(tmp_path / f"y{suffix}", []) == 0
    assert (tmp_path / f"y{suffix}").exists()


def test_what_is_no_file_is_written_to_and_stays_what_it_is(tmp_path: Path) -> None:
    """Else root's `-o` to a device would make a file of it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()), daemon=True)
    reader.start()
    assert files.write(fifo, [ExportTraceServiceRequest().SerializeToString()]) == 1
    assert stat.S_ISFIFO(fifo.lstat().st_mode)
    reader.join(10)
    assert read == [b"{}\n"]
    with pytest.raises(StoreError, match=r"cannot be written \(Is a directory\)"):
        files.write(tmp_path, [])


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path, there: bool) -> None:
    real, link = tmp_path / "data" / "real.jsonl", tmp_path / "link.jsonl"
    real.parent.mkdir()
    if there:
        real.write_text("old")
    link.symlink_to(Path("data") / "real.jsonl")
    assert files.write(link, [ExportTraceServiceRequest().SerializeToString()]) == 1
    assert link.is_symlink()
    assert real.read_text() == "{}\n"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["data", "link.jsonl", "real.jsonl"]


def test_a_terminal_gets_ascii(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(line("\u202e\x9b31m\x7f"), encoding="utf-8")
    master, slave = pty.openpty()
    try:
        files.write(Path(os.ttyname(slave)), read(path, said.append))
        shown = os.read(master, 4096)
    finally:
        os.close(master)
        os.close(slave)
    assert b"\\u202e\\u009b31m\\u007f" in shown
    assert shown.strip().decode().isprintable()
