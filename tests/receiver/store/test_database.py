"""The file: what goes in comes out; what is not ours is left alone and said so."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.store import database as module
from receiver.store.chunk import Chunk
from receiver.store.database import (
    Database,
    DatabaseDamaged,
    DatabaseMissing,
    DiskFull,
    StoreError,
    compress,
    decompress,
)
from receiver.store.index import Index
from receiver.store.retention import Policy, Retention
from tests.receiver.store.test_index import Plain, chunk
from tests.somebody_else import python, start


def made(number: int, body: bytes = b"body") -> Chunk:
    c = chunk(0, [Plain(number, 1, 0, 5, 9, request=True)])
    c.body = compress(body)
    return c


def test_chunks_come_back_in_order_while_a_reader_watches(tmp_path: Path) -> None:
    path = tmp_path / "state" / "spans.db"
    writer = Database.create(path)
    reader = Database.read(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    first = writer.append([made(1), made(2, b"two")])
    assert [c.id for c in reader.read_after(0)] == first
    assert [c.id for c in reader.read_after(first[0])] == first[1:]
    assert reader.bodies(first) == {first[0]: b"body", first[1]: b"two"}
    generation = reader.generation()
    kept = writer.replace([first[0]], [made(3)])
    assert reader.generation() == generation + 1
    assert reader.ids() == [first[1], *kept]
    assert reader.bodies([first[0]]) == {}
    # Ids are never given twice, or a reader would miss the newer chunk.
    writer.replace(kept, [])
    assert writer.append([made(4)])[0] > kept[0]
    writer.close()
    reader.close()


def test_a_closed_file_in_a_read_only_directory_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "other" / "spans.db"
    writer = Database.create(path)
    ids = writer.append([made(1)])
    writer.close()
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        if os.geteuid() != 0:
            assert Database.read(path).ids() == ids
            return
        for above in tmp_path.parents:
            if above.owner() == "root" and str(above).startswith("/tmp/"):
                above.chmod(0o755)
        tmp_path.chmod(0o755)
        program = "import sys; from receiver.store.database import Database; print(Database.read(sys.argv[1]).ids())"
        with start(*python(program, str(path)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            told, _ = process.communicate(timeout=60)
        assert told.strip() == str(ids)
    finally:
        path.parent.chmod(0o755)


@pytest.mark.parametrize("damage", ["text", "cut", "overwritten", "foreign"])
def test_a_damaged_file_is_said_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "spans.db"
    if damage == "text":
        path.write_bytes(b"not a database at all, but somebody's notes\n" * 100)
    elif damage == "foreign":
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE theirs(a)")
        other.close()
    else:
        writer = Database.create(path)
        for i in range(50):
            writer.append([made(i + 1, os.urandom(20_000)) for _ in range(4)])
        writer.close()
        raw = path.read_bytes()
        # The table's own pages are spread over the file: cut it in half, or overwrite all but the header.
        path.write_bytes(raw[: len(raw) // 2] if damage == "cut" else raw[:8192] + os.urandom(len(raw) - 8192))
    before = path.read_bytes()
    for opened in (Database.create, Database.read):
        with pytest.raises(DatabaseDamaged, match="--db") as said:
            opened(path)
        assert ("aside" in str(said.value)) == (f"{path}-wal" in str(said.value))
    assert path.read_bytes() == before


def test_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatabaseMissing, match="--db"):
        Database.read(tmp_path / "none.db")


def test_a_body_that_unpacks_to_too_much_is_refused() -> None:
    with pytest.raises(DatabaseDamaged):
        decompress(compress(b"\0" * 100_000), limit=50_000)
    with pytest.raises(DatabaseDamaged):
        decompress(b"nonsense")


# --- a first start that is cut short ----------------------------------------------------------------
def test_a_file_without_anything_in_it_is_made_ours(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    other = sqlite3.connect(path)
    other.execute("PRAGMA page_size = 8192")
    other.execute("PRAGMA journal_mode = WAL")
    other.close()
    assert path.stat().st_size
    with pytest.raises(DatabaseMissing, match="--db"):
        Database.read(path)
    Database.create(path).close()
    Database.read(path).close()


@pytest.mark.parametrize("step", range(1, 30, 2))
def test_killed_at_any_step_of_the_first_start_the_next_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    path = tmp_path / "spans.db"
    child = os.fork()
    if child == 0:
        left, connect = step, module._connect

        def watched(where: Path, mode: str) -> sqlite3.Connection:
            connection = connect(where, mode)

            def statement(_: str) -> None:
                nonlocal left
                left -= 1
                if not left:
                    os._exit(0)

            connection.set_trace_callback(statement)
            return connection

        monkeypatch.setattr(module, "_connect", watched)
        try:
            Database.create(path)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    database = Database.create(path)
    ids = database.append([made(1)])
    database.close()
    assert Database.read(path).ids() == ids


# --- the log beside the file ------------------------------------------------------------------------
def test_an_old_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    first = Database.create(path)
    first.generation()  # the first look makes the log
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").chmod(0o644)
    second = Database.create(path)
    assert {one.name: one.stat().st_mode & 0o777 for one in tmp_path.iterdir()} == {
        "spans.db": 0o600,
        "spans.db-wal": 0o600,
        "spans.db-shm": 0o600,
    }
    second.close()
    first.close()


def test_a_new_file_is_ours_without_its_log(tmp_path: Path) -> None:
    path, alone = tmp_path / "spans.db", tmp_path / "alone.db"
    database = Database.create(path)
    shutil.copy(path, alone)
    assert Database.read(alone).ids() == []
    database.close()


def test_after_a_checkpoint_the_file_alone_has_everything_though_somebody_reads(tmp_path: Path) -> None:
    path, alone = tmp_path / "spans.db", tmp_path / "alone.db"
    database = Database.create(path)
    reader = Database.read(path)
    ids = database.append([made(1)])
    assert reader.ids() == ids
    database.checkpoint()
    database.close()
    shutil.copy(path, alone)
    reader.close()
    assert Database.read(alone).ids() == ids


def test_a_log_without_its_file_is_set_aside_and_can_be_read_with_it(tmp_path: Path) -> None:
    path, aside = tmp_path / "spans.db", tmp_path / "aside.db"
    database = Database.create(path)
    assert database.said == ""
    ids = database.append([made(1)])
    path.rename(aside)
    database.checkpoint()  # the file may have another log where it is now
    anew = Database.create(path)
    gone = tmp_path / "spans.db.gone"
    assert str(path) in anew.said
    assert f"{gone}-wal" in anew.said
    assert anew.ids() == []
    more = anew.append([made(2), made(3)])
    database.close()  # must not take away the log of the new one
    assert Database.read(path).ids() == more
    anew.close()
    assert Database.read(path).ids() == more
    aside.rename(gone)
    assert Database.read(gone).ids() == ids, "nothing is lost if the old file is found again"


@pytest.mark.parametrize("left", ["log", "memory", "both", "empty log", "log and an empty file"])
def test_what_a_removed_file_leaves_never_gets_into_the_next(tmp_path: Path, left: str) -> None:
    path = tmp_path / "spans.db"
    log, memory = Path(f"{path}-wal"), Path(f"{path}-shm")
    old = Database.create(path)
    old.append([made(number + 1, os.urandom(30_000)) for number in range(20)])
    kept = log.read_bytes(), memory.read_bytes()
    old.close()
    path.unlink()
    if left != "memory":
        log.write_bytes(b"" if left == "empty log" else kept[0])
    if left in ("memory", "both", "log and an empty file"):
        memory.write_bytes(kept[1])
    if left.endswith("file"):
        path.touch()
    database = Database.create(path)
    assert database.ids() == []
    assert database.append([made(1)]) == [1]
    database.close()
    assert len(Database.read(path).ids()) == 1
    assert bool(database.said) == (left in ("log", "both", "log and an empty file"))
    assert Path(f"{path}.gone-wal").exists() == bool(database.said)
    assert Database.create(path).said == "", "once"


# --- rows that are not what we write ------------------------------------------------------------------
_VALUES = (
    st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.sampled_from([b"", b"[]", b"[[],[]]", b'[[""],[["a",1]]]', b'[["",7],[]]', b"[" * 20_000, b'{"a":1,"b":2}'])
    | st.integers(1, 5).map(lambda rows: b"\xff" * 64 * rows)
    | st.integers(1, 5).map(lambda rows: b"\xff" * 56 * rows)
    | st.just(bytes(8) + b"\xff" * 56)  # facts about the first span, in words far away
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["received", "n", "bytes", "source", "peer", "names", "spans", "facts", "body"]), _VALUES)
def test_whatever_a_row_holds_it_is_read_or_called_damage(column: str, value: object) -> None:
    database = Database.memory()
    ids = database.append([made(1), made(2)])
    database._connection.execute(f"UPDATE chunks SET {column} = ? WHERE id = ?", (value, ids[0]))

    def read(what: Callable[[], object]) -> None:
        with contextlib.suppress(DatabaseDamaged):
            what()

    read(lambda: Index().extend(database.read_after(0)))
    read(lambda: database.index_rows(ids))
    read(lambda: database.bodies(ids))
    read(Retention(database, Policy(cap=1)).tick)
    read(Retention(database, Policy(max_age=1)).tick)


def test_a_time_that_is_no_number_is_damage_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    database = Database.create(path)
    ids = database.append([made(1), made(2)])
    database._connection.execute("UPDATE chunks SET received = 'yesterday' WHERE id = ?", ids[:1])
    for reads in (lambda: database.read_after(0), lambda: database.index_rows(ids), database.chunk_sizes):
        with pytest.raises(DatabaseDamaged, match=r"spans\.db is damaged .*--db"):
            reads()
    database.close()


# --- what SQLite reports ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "writing", "free", "full"),
    [
        ("database or disk is full", True, 1 << 30, True),
        ("disk I/O error", True, 0, True),
        ("disk I/O error", True, 1 << 30, False),
        ("disk I/O error", False, 0, False),
    ],
)
def test_only_a_full_disk_is_called_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, writing: bool, free: int, full: bool
) -> None:
    disk = os.statvfs_result((1, 1, free, free, free, 1, 1, 1, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: disk)
    with pytest.raises(StoreError, match="--db") as said:
        module._fail(sqlite3.OperationalError(text), tmp_path / "spans.db", writing=writing)
    assert isinstance(said.value, DiskFull) is full
    assert ("No space" in str(said.value)) is full
    assert text in str(said.value)
