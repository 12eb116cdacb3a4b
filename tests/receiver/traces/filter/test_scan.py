"""Reading bodies: by a process, while more arrives, after evictions, and when it goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from receiver.store.database import Database
from receiver.store.index import Index
from receiver.traces.filter import scan as scan_module
from receiver.traces.filter.attributes import Attribute, Reader
from receiver.traces.filter.scan import FEW, Scan
from receiver.traces.query import Query, View, select
from tests.eventually import eventually
from tests.receiver.traces.shapes import T0, Recorder, chunks_of

VIEW = View(Query.parse("@number>=7"), None, False, False, "start", False)
NOW = T0 + 60_000_000_000


def stored(database: Database, first: int, count: int) -> None:
    rec = Recorder()
    for number in range(first, first + count):
        rec.span("work", trace=f"trace {number}", values={"number": number % 10})
    database.append(chunks_of(rec.requests()))


def numbers(index: Index, scan: Scan) -> int:
    return len(select(index, VIEW, NOW, found=scan).slots)


def test_a_process_reads_what_is_there_and_what_arrives(tmp_path: Path) -> None:
    database = Database.create(tmp_path / "spans.db")
    stored(database, 0, 200)
    index = Index()
    index.extend(database.read_after(0, 1000))
    started = []
    real = scan_module.subprocess.Popen
    scan_module.AT_FIRST, before = 0.0, scan_module.AT_FIRST
    scan_module.subprocess.Popen = lambda *a, **k: started.append(real(*a, **k)) or started[-1]  # type: ignore
    try:
        scan = Scan(database, VIEW.query.attributes, index)
        scan.start()
        eventually(lambda: scan.progress.read == 200 and scan.progress.done)
    finally:
        scan_module.subprocess.Popen, scan_module.AT_FIRST = real, before
    assert len(started) == 1
    eventually(lambda: started[0].poll() is not None)  # it does not stay
    assert numbers(index, scan) == 60
    version = scan.version
    stored(database, 200, 10)
    index.extend(database.read_after(index.last_chunk, 1000))
    assert numbers(index, scan) == 60
    scan.follow(index)
    eventually(lambda: scan.progress.read == 210)
    assert scan.version > version
    assert numbers(index, scan) == 63
    # an eviction: other rows, the same answers, nothing is read again
    version = scan.version
    gone = index.chunk_id[:100].tolist()
    smaller = index.without(gone)
    assert numbers(smaller, scan) == 33
    assert scan.version == version
    scan.cancel()
    scan.join(5)
    assert not any(thread.name == "filter-scan" for thread in threading.enumerate())
    database.close()


def test_a_process_that_dies_or_never_starts_loses_nothing(tmp_path: Path, monkeypatch: object) -> None:
    database = Database.memory()
    stored(database, 0, 150)
    index = Index()
    index.extend(database.read_after(0, 1000))
    for program in ("import sys; sys.stdin.buffer.read(3)", "import sys; raise SystemExit(3)", "{path!r} = = nonsense"):
        before, scan_module._PROGRAM = scan_module._PROGRAM, program.replace("{path!r}", "")
        first, scan_module.AT_FIRST = scan_module.AT_FIRST, 0.0
        try:
            scan = Scan(database, VIEW.query.attributes, index)
            scan.run()
        finally:
            scan_module._PROGRAM, scan_module.AT_FIRST = before, first
        assert scan.progress.done
        assert numbers(index, scan) == 45


def test_a_scan_that_is_cancelled_ends_and_keeps_what_it_found() -> None:
    database = Database.memory()
    stored(database, 0, FEW)
    index = Index()
    index.extend(database.read_after(0, 1000))
    scan = Scan(database, VIEW.query.attributes, index)
    scan.run()
    found = numbers(index, scan)
    scan.cancel()
    stored(database, FEW, 10)
    index.extend(database.read_after(index.last_chunk, 1000))
    scan.follow(index)
    scan.run()
    assert scan.progress.cancelled
    assert numbers(index, scan) == found > 0


def test_what_cannot_be_unpacked_is_known_to_hold_nothing() -> None:
    database = Database.memory()
    stored(database, 0, 10)
    index = Index()
    index.extend(database.read_after(0, 1000))
    database._connection.execute("UPDATE chunks SET body = x'00' WHERE id = 8")
    database._connection.execute("DELETE FROM chunks WHERE id = 9")
    scan = Scan(database, VIEW.query.attributes, index)
    scan.run()
    found, known = scan.rows(index, VIEW.query.attributes[0])
    assert np.all(known)
    assert found.tolist() == [False] * 9 + [True]


@given(st.binary(max_size=60), st.integers(0, 400))
@settings(max_examples=150)
def test_bytes_that_are_no_request_are_read(junk: bytes, place: int) -> None:
    rec = Recorder()
    rec.span("work", values={"number": 7, "text": "x" * 20})
    raw = rec.requests()[0]
    reader = Reader([Attribute("number", ("number",), ">", ("5",)), Attribute("text", ("text", "t"), "=~", ("x+",))])
    place %= len(raw)
    for broken in (junk, raw[:place] + junk + raw[place:], raw[:place] + junk, raw[place:]):
        assert all(set(mask) <= {0, 1} for mask in reader.read(broken))
    assert reader.read(raw) == [b"\x01", b"\x01"]


def test_unusual_encodings_are_read_the_long_way() -> None:
    """A value before its key, and a key twice: what protobuf allows and no exporter sends."""
    span = Span(name="work")
    key, value = b"\x0a\x06number", b"\x12\x02\x18\x07"
    reader = Reader([Attribute("number", ("number",), "=", ("7",))])
    for pair in (value + key, key + key + value, key + value + key, b"\x12\x02\x18\x01" + key + value):
        body = span.SerializeToString() + b"\x4a" + bytes([len(pair)]) + pair
        request = ExportTraceServiceRequest.FromString(
            b"".join(
                (b"\x0a", bytes([len(body) + 4]), b"\x12", bytes([len(body) + 2]), b"\x12", bytes([len(body)]), body)
            )
        )
        kept = request.resource_spans[0].scope_spans[0].spans[0].attributes[0]
        raw = b"".join(
            (b"\x0a", bytes([len(body) + 4]), b"\x12", bytes([len(body) + 2]), b"\x12", bytes([len(body)]), body)
        )
        assert kept.key == "number"
        assert reader.read(raw) == [b"\x01" if kept.value.int_value == 7 else b""]


def test_a_defect_while_reading_is_said_and_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    database = Database.create(tmp_path / "spans.db")
    stored(database, 0, 5)
    index = Index()
    index.extend(database.read_after(0, 1000))
    real, broken = database.packed_bodies, threading.Event()

    def packed_bodies(ids: Iterable[int]) -> dict[int, bytes]:
        if not broken.is_set():
            raise IndexError("a defect")
        return real(ids)

    monkeypatch.setattr(database, "packed_bodies", packed_bodies)
    scan = Scan(database, VIEW.query.attributes, index)
    scan.start()
    eventually(lambda: "IndexError: a defect" in scan.problem)
    broken.set()
    scan.follow(index)
    eventually(lambda: scan.progress.read == 5 and scan.problem == "")
    scan.cancel()
    scan.join(5)
    database.close()
