"""Recordings in and out: the Collector's files, broken lines, bombs, interrupted writes."""

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

from receiver.store import files
from receiver.store.database import StoreError


def line(name: str) -> str:
    span = {"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": name}
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}, separators=(",", ":"))


def names(path: Path, said: list[str], max_line: int = files.MAX_LINE) -> list[str]:
    bodies = files.read(path, said.append, max_line)
    requests = map(ExportTraceServiceRequest.FromString, bodies)
    return [request.resource_spans[0].scope_spans[0].spans[0].name for request in requests]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_round_trip_is_the_same_text(tmp_path: Path, said: list[str], suffix: str) -> None:
    text = "".join(line(f"größe {i}") + "\n" for i in range(3))
    first = tmp_path / "first.jsonl"
    first.write_text(json.dumps(json.loads(line("größe 0"))) + "\n" + text.split("\n", 1)[1], encoding="utf-8")
    copy = tmp_path / f"copy{suffix}"
    assert files.write(copy, files.read(first, said.append)) == 3
    raw = gzip.decompress(copy.read_bytes()) if suffix.endswith("gz") else copy.read_bytes()
    assert [json.loads(row) for row in raw.splitlines()] == [json.loads(row) for row in text.splitlines()]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([first.name, copy.name])
    assert not said


def test_bad_lines_are_said_with_their_number_and_the_rest_is_read(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + line("one").encode() + b"\n\n{nonsense\n" + line("two").encode() + b"\n\xff\xfe\n"
        b'{"resourceLogs":[]}\n' + b"[" * 200_000 + b"\n" + line("three").encode()
    )
    assert names(path, said) == ["one", "two", "three"]
    assert [s.split(":")[0].rsplit(" ", 1)[1] for s in said] == ["3", "5", "6", "7"]
    assert all(str(path) in s and s.endswith("skipped.") for s in said)


def test_overlong_lines_are_skipped_without_keeping_them(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(line("one") + "\n" + "x" * 5000 + "\n" + line("two") + "\n" + "y" * 1000)
    assert names(path, said, max_line=1000) == ["one", "two"]
    assert len(said) == 2
    assert "line 2: is longer than 1,000 bytes" in said[0]
    assert "line 4" in said[1]


def test_a_cut_off_gzip_file_gives_what_is_whole(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "x.jsonl.gz"
    whole = gzip.compress("".join(line(f"{i:x}" * 50) + "\n" for i in range(2000)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    found = names(path, said)
    assert 100 < len(found) < 2000
    assert len(said) == 1
    assert "cut off or damaged" in said[0]


def test_a_gzip_bomb_is_left(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_RATIO_FROM", 1 << 20)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(64 << 20)))
    assert names(path, said, max_line=1 << 16) == []
    assert "unpacks to more than 200 times its size" in said[-1]
    assert len(said) == 2


def test_a_missing_file_is_a_sentence(tmp_path: Path, said: list[str]) -> None:
    with pytest.raises(StoreError, match=r"nowhere.jsonl cannot be read \(No such file or directory\)"):
        names(tmp_path / "nowhere.jsonl", said)
    with pytest.raises(StoreError, match="Is a directory"):
        names(tmp_path, said)


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
        files.write(Path(os.ttyname(slave)), files.read(path, said.append))
        shown = os.read(master, 4096)
    finally:
        os.close(master)
        os.close(slave)
    assert b"\\u202e\\u009b31m\\u007f" in shown
    assert shown.strip().decode().isprintable()


def test_a_gzip_stream_that_cannot_tell_where_it_is(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_RATIO_FROM", 1)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    packed = gzip.compress(line("one").encode())
    writer = threading.Thread(target=fifo.write_bytes, args=(packed,), daemon=True)
    writer.start()
    assert names(fifo, said) == ["one"]
    assert not said


def test_the_longest_line_that_a_request_makes_is_read() -> None:
    assert files.MAX_LINE > 6 * (16 << 20)
