"""File and log together stay within the cap and 16 MiB, whatever is sent and whoever reads."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from receiver.ingest.decode import decode
from receiver.store.chunk import Chunk
from receiver.store.database import Database, NoRoom
from receiver.store.repack import size_of, split
from receiver.store.retention import Policy, Retention
from receiver.store.room import LOG_ROOM, piece_bytes
from receiver.store.wal import footprint
from receiver.store.writer import Full, NeverFits, Writer

MIB = 1 << 20


def request(first: int, spans: int, size: int) -> Chunk:
    """A decoded request whose spans carry so many bytes each that do not compress."""
    sent = ExportTraceServiceRequest()
    chance = random.Random(first)
    half = first + spans // 2
    for service, numbers in (("apiserver", range(half, first + spans)), ("etcd", range(first, half))):
        group = sent.resource_spans.add()
        group.resource.attributes.add(key="service.name").value.string_value = service
        scope = group.scope_spans.add()
        for number in numbers:
            one = scope.spans.add(trace_id=(number // 5 + 1).to_bytes(16, "big"), span_id=number.to_bytes(8, "big"))
            one.name = f"span {number % 50}"
            one.attributes.add(key="noise").value.bytes_value = chance.randbytes(size)
    made = decode(sent.SerializeToString(), source="local", peer="p", received=first).chunk
    assert made is not None
    return made


class Watched:
    """A writer with retention in a file; `most` is how large all files were at any statement."""

    def __init__(self, path: Path, cap: int) -> None:
        self.path, self.most = path, 0
        self.waits: set[str] = set()
        self.database = Database.create(path)
        self.database.bound = cap
        self.database._connection.set_trace_callback(self._look)
        self.retention = Retention(self.database, Policy(cap=cap, min_free=0.0))
        self.database.make_room = self.retention.make_room
        self.writer = Writer(self.database, committed=self.retention.committed)
        self.retention.start()
        self.writer.start()

    def _look(self, statement: str) -> None:
        if "busy_timeout" in statement:
            self.waits.add(statement)
        self.most = max(self.most, footprint(self.path))

    def send(self, chunk: Chunk) -> bool:
        """Whether it was acknowledged."""
        try:
            return self.writer.submit(chunk).wait(60)
        except Full as error:
            if isinstance(error, NeverFits):
                raise
            return False

    def end(self) -> None:
        self.writer.stop()
        self.retention.stop()
        self._look("")
        self.database.close()


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Watched]]:
    made: list[Watched] = []
    monkeypatch.setattr("receiver.store.retention._ROOM_SECONDS", 60.0)  # however busy the machine is

    def start(cap: int) -> Watched:
        made.append(Watched(tmp_path / "spans.db", cap))
        return made[-1]

    yield start
    for one in made:
        one.end()


@pytest.mark.parametrize(
    ("cap", "spans", "size"), [(24 * MIB, 200, 2000), (24 * MIB, 3, 200), (MIB, 20, 2000), (MIB, 1, 3000)]
)
def test_a_flood_never_passes_the_cap_and_is_never_refused_for_good(
    watched: Callable[[int], Watched], cap: int, spans: int, size: int
) -> None:
    store = watched(cap)
    total = refused = number = 0
    while total < min(3 * cap, 40 * MIB) and number < 2000:
        number += 1
        one = request(1000 * number, spans, size)
        total += size_of(one)
        refused += not store.send(one)
    assert store.most <= cap + LOG_ROOM
    assert not refused
    assert store.database.ids()


def test_a_reader_that_stays_makes_senders_wait_instead_of_the_log_grow(
    watched: Callable[[int], Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.store.database._READER_SECONDS", 0.01)
    cap = 8 * MIB
    store = watched(cap)
    number = 1
    while footprint(store.path) < cap:
        number += 1
        assert store.send(request(1000 * number, 100, 4000))
    reader = Database.read(store.path)
    reader._all("BEGIN")
    assert reader.ids()
    told = [store.send(request(1000 * (number + more), 100, 4000)) for more in range(1, 100)]
    assert told[0]
    assert not told[-1]
    assert "reads" in store.writer.problem
    assert store.most <= cap + LOG_ROOM
    assert reader._connection.in_transaction
    reader._all("COMMIT")
    assert store.send(request(1000 * (number + 200), 100, 4000)), "as soon as it is done"
    assert store.writer.problem == ""
    assert store.most <= cap + LOG_ROOM
    reader.close()


_READS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM chunks").fetchall()
print("reads", flush=True)
sys.stdin.read()
"""


def test_another_program_that_reads_for_long_is_named_and_nobody_waits_for_it_with_the_lock(
    watched: Callable[[int], Watched],
) -> None:
    store = watched(8 * MIB)
    assert store.send(request(1, 100, 4000))
    command = [sys.executable, "-c", _READS, str(store.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "reads\n"
        told = [store.send(request(1000 * number, 100, 4000)) for number in range(2, 60)]
        assert sum(told) > 10, "as long as there is room, the reader is nobody's concern"
        assert not any(told[-10:])
        assert f"process {other.pid} (python" in store.writer.problem
        assert "reads it for long" in store.writer.problem
        assert store.database.log_held
        store.writer._probe()
        assert store.writer.problem, "it still reads"
        assert store.most <= 8 * MIB + LOG_ROOM
        assert store.waits == {"PRAGMA busy_timeout = 0", "PRAGMA busy_timeout = 5000"}
        other.stdin.close()
    store.writer._probe()
    assert store.writer.problem == ""
    assert store.send(request(900_000, 100, 4000))
    assert store.most <= 8 * MIB + LOG_ROOM


def test_a_moment_of_ours_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pager may stay open for days."""
    monkeypatch.setattr("receiver.store.database._MOMENT_SECONDS", 0.05)
    path = tmp_path / "spans.db"
    database = Database.create(path)
    ids = database.append([request(1, 2, 10)])
    reader = Database.read(path)
    with reader.moment():
        assert reader.ids() == ids
        more = database.append([request(10, 2, 10)])
        while reader._connection.in_transaction:
            os.sched_yield()
        assert reader.ids() == ids + more
    reader.close()
    database.close()


def test_the_largest_request_is_stored_and_passes_nothing(watched: Callable[[int], Watched]) -> None:
    cap = 34 * MIB
    store = watched(cap)
    number = 1
    while footprint(store.path) < cap:
        number += 1
        assert store.send(request(1000 * number, 200, 5000))
    for first, spans in ((900_000, 2), (990_000, 1)):
        assert store.send(request(first, spans, (16 * MIB - 4096) // spans))
        there = {int(row["span"]) for one in store.database.read_after(0) for row in one.spans}
        assert {*range(first, first + spans)} <= there
    assert store.most <= cap + LOG_ROOM


def test_large_spans_beside_a_small_cap_are_stored_one_after_the_other(tmp_path: Path) -> None:
    """Traces that reach into the next chunk must not keep all room for good; without a thread, as an import does it."""
    database = Database.create(tmp_path / "spans.db")
    database.bound = MIB
    retention = Retention(database, Policy(cap=MIB, min_free=0.0))
    database.make_room = retention.evict
    for number in range(1, 8):
        for piece in split(request(1000 * number, 30, 50_000), piece_bytes(MIB)):
            (piece.id,) = database.append([piece])
            retention.committed([piece])
            assert footprint(tmp_path / "spans.db") <= MIB + LOG_ROOM
    database.close()


def test_a_span_that_can_never_fit_is_refused_for_good(watched: Callable[[int], Watched]) -> None:
    store = watched(MIB)
    with pytest.raises(NeverFits, match="--max-size"):
        store.send(request(1, 2, MIB))
    assert store.send(request(2, 200, 4000)), "what can be taken apart fits"
    assert store.most <= MIB + LOG_ROOM


def test_above_a_lowered_cap_it_only_becomes_smaller(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    database = Database.create(path)
    for number in range(1, 80):
        database.append([request(1000 * number, 100, 4000)])
    database.close()
    before = path.stat().st_size
    cap = 6 * MIB
    assert before > 28 * MIB
    store = Watched(path, cap)
    store._look("")
    for number in range(200, 260):
        store.send(request(1000 * number, 100, 4000))
    while path.stat().st_size > cap:
        os.sched_yield()
    assert store.most <= before + LOG_ROOM
    assert store.send(request(900_000, 100, 4000))
    store.end()
    assert footprint(path) <= cap


def test_what_a_killed_one_left_is_folded_in_first(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    if (child := os.fork()) == 0:
        try:
            database = Database.create(path)
            database._fold_log = lambda: None  # type: ignore[method-assign]
            for number in range(1, 80):
                database.append([request(1000 * number, 100, 4000)])
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert Path(f"{path}-wal").stat().st_size > 2 * LOG_ROOM - (4 << 20)
    database = Database.create(path)
    assert Path(f"{path}-wal").stat().st_size < LOG_ROOM
    assert len(database.ids()) == 79
    database.close()


def test_the_log_is_folded_in_no_more_often_than_sqlite_would(tmp_path: Path) -> None:
    """Each time flushes the disk, which is etcd's."""
    database = Database.create(tmp_path / "spans.db")
    asked: list[str] = []
    database._connection.set_trace_callback(lambda text: asked.append(text) if "checkpoint" in text else None)
    for number in range(1, 101):
        database.append([request(1000 * number, 100, 4000)])
    assert 2 <= len(asked) <= 100 * 410_000 / (8 * MIB) + 1
    database.close()


def test_nothing_of_a_request_without_room_is_stored(tmp_path: Path) -> None:
    database = Database.create(tmp_path / "spans.db")
    database.bound = MIB
    said: list[NoRoom] = []
    while not said:
        stored = database.ids()
        try:
            database.append([request(1000, 50, 4000)])
        except NoRoom as error:
            said.append(error)
    assert said[0].wanted > 200_000
    assert "may have" in str(said[0])
    assert database.ids() == stored
    database.close()


@pytest.mark.parametrize(("spans", "size", "most"), [(500, 1000, 100_000), (300, 5, 10_000), (2, 300_000, 100_000)])
def test_the_pieces_of_a_request_are_the_request(spans: int, size: int, most: int) -> None:
    whole = request(1, spans, size)
    pieces = split(whole, most)
    assert all(size_of(one) <= 1.5 * most or len(one.spans) == 1 for one in pieces)
    assert len(pieces) > 1
    assert split(whole, size_of(whole)) == [whole]
    numbers: list[int] = []
    for one in pieces:
        body = ExportTraceServiceRequest.FromString(_body(one))
        rows = iter(one.spans)
        for group in body.resource_spans:
            service = group.resource.attributes[0].value.string_value
            for span in (span for scope in group.scope_spans for span in scope.spans):
                row = next(rows)
                assert int(row["span"]) == int.from_bytes(span.span_id, "big")
                assert one.resources[int(row["resource"])].service == service
                assert one.strings[int(row["name"])] == span.name
                numbers.append(int(row["span"]))
        assert next(rows, None) is None
    assert numbers == whole.spans["span"].tolist()


def test_names_count_for_what_they_take() -> None:
    plain = request(1, 10, 10)
    before = size_of(plain)
    plain.strings += ["\x01" * 200, "é" * 200]
    assert size_of(plain) >= before + 2400
    assert len(plain.names_blob()) <= size_of(plain)


def _body(chunk: Chunk) -> bytes:
    from receiver.store.database import decompress

    return decompress(chunk.body)


def test_a_piece_is_small_beside_a_small_cap() -> None:
    assert [piece_bytes(cap) for cap in (None, 512 * MIB, MIB)] == [4 * MIB, 4 * MIB, MIB // 8]
