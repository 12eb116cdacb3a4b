"""The file: what goes in comes out; what is not ours is left alone and said so."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from receiver.store.chunk import Chunk
from receiver.store.database import Database, DatabaseDamaged, DatabaseMissing, compress, decompress
from tests.receiver.store.test_index import Plain, chunk


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
        if os.geteuid() == 0:
            child = os.fork()
            if child == 0:  # as nobody, who may not write there
                outcome = 2
                try:
                    os.chmod(tmp_path, 0o755)
                    for above in tmp_path.parents:
                        if above.owner() == "root" and str(above).startswith("/tmp/"):
                            above.chmod(0o755)
                    os.setgid(65534)
                    os.setuid(65534)
                    outcome = 0 if Database.read(path).ids() == ids else 1
                finally:
                    os._exit(outcome)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        else:
            assert Database.read(path).ids() == ids
    finally:
        path.parent.chmod(0o755)


@pytest.mark.parametrize("damage", ["text", "cut", "overwritten", "foreign"])
def test_a_damaged_file_is_said_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "spans.db"
    if damage == "text":
        path.write_bytes(b"not a database at all, but somebody's notes\n" * 100)
    elif damage == "foreign":
        import sqlite3

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
        with pytest.raises(DatabaseDamaged, match="--db"):
            opened(path)
    assert path.read_bytes() == before


def test_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatabaseMissing, match="--db"):
        Database.read(tmp_path / "none.db")


def test_a_body_that_unpacks_to_too_much_is_refused() -> None:
    with pytest.raises(DatabaseDamaged):
        decompress(compress(b"\0" * 100_000), limit=50_000)
    with pytest.raises(DatabaseDamaged):
        decompress(b"nonsense")
