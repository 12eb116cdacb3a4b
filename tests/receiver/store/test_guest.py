"""A database of another user is read by a child: what its owner does to the files, or to the child, is a sentence."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from receiver.store import guest, ownership, reading
from receiver.store.database import Database, StoreError
from receiver.store.guest import GuestConnection
from receiver.store.ownership import OUR_RIGHTS, Rights
from tests.receiver.store.test_intact import in_a_child
from tests.somebody_else import UID, directory_of, needs_root, python, start

HERE = Path(__file__).resolve().parents[3]
_WRITES = """
import os, sys
from receiver.store.database import Database
from tests.receiver.store.test_database import made
database = Database.create(sys.argv[1])
database.append([made(1), made(2)])
print("written", flush=True)
for line in sys.stdin:
    os.truncate(sys.argv[1] + "-shm", 0)
    print("cut off", flush=True)
"""


@pytest.fixture
def theirs() -> Iterator[Path]:
    with directory_of(UID) as directory:
        yield directory


@contextmanager
def held_by_its_owner(path: Path) -> Iterator[tuple[IO[str], IO[str]]]:
    """A database that its owner has open, and the ends of the owner's standard input and output."""
    command = ("env", f"PYTHONPATH={HERE}", *python(_WRITES, str(path)))
    with start(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdin is not None
        assert owner.stdout is not None
        assert owner.stdout.readline() == "written\n"
        yield owner.stdin, owner.stdout
        owner.stdin.close()


@needs_root
def test_shared_memory_that_its_owner_cuts_off_ends_the_child_and_not_root(theirs: Path) -> None:
    path = theirs / "spans.db"
    with held_by_its_owner(path) as (written, read):

        def look() -> None:
            database = Database.read(path)
            assert len(database.read_after(0)) == 2
            written.write("now\n")
            written.flush()
            assert read.readline() == "cut off\n"
            with pytest.raises(StoreError, match=r"spans.db ended \(SIGBUS\): its owner changed"):
                database.read_after(0)
            with pytest.raises(StoreError, match="open it again"):
                database.ids()
            database.close()

        assert in_a_child(look) == signal.SIGKILL


@needs_root
def test_the_child_has_the_owners_rights_and_no_others(theirs: Path) -> None:
    path = theirs / "spans.db"
    with held_by_its_owner(path):
        theirs.parent.chmod(0o700)  # as /var/lib/private, which only root may enter
        database = Database.read(path)
        connection = database._connection
        assert isinstance(connection, GuestConnection)
        process = connection._process
        told = Path(f"/proc/{process.pid}/status").read_text()
        found = dict(line.split(":\t", 1) for line in told.splitlines() if ":\t" in line)
        assert found["Uid"].split() == found["Gid"].split() == [str(UID)] * 4
        assert found["Groups"].split() == []
        assert int(found["CapEff"], 16) == int(found["CapPrm"], 16) == 0
        assert found["NoNewPrivs"] == "1"
        assert len(database.ids()) == 2, "and reads on"
        database.close()
        assert process.poll() is not None
        theirs.parent.chmod(0o755)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "plain.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE one(a, b, c, d, e)")
    connection.execute("INSERT INTO one VALUES (?, ?, ?, ?, ?)", VALUES)
    connection.commit()
    connection.close()
    return path


VALUES = (-(1 << 63), 0.5, "a\0 é\n", bytes(range(256)) * 1000, None)


def test_values_come_as_they_are(plain: Path) -> None:
    connection = GuestConnection(plain, "ro", OUR_RIGHTS)
    assert connection.execute("SELECT * FROM one").fetchall() == [VALUES]
    assert list(connection.execute("SELECT 1 WHERE 1 = ?", [2])) == []
    connection.execute("BEGIN")
    assert connection.execute("SELECT a FROM one").fetchone() == VALUES[:1]
    assert connection.in_transaction
    connection.execute("COMMIT")
    assert not connection.in_transaction
    with pytest.raises(sqlite3.OperationalError, match="no such table: two"):
        connection.execute("SELECT * FROM two")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM one")
    assert connection.execute("SELECT count(*) FROM one").fetchone() == (1,)
    connection.close()
    assert connection._process.returncode == 0


CELL = struct.Struct("<Bq")
FAILED = json.dumps(["OperationalError", "\x1b[2J" + "no"]).encode()
ANSWERS = {
    "nothing it knows": b"?",
    "a text longer than any": b"R\1" + CELL.pack(2, 1 << 40),
    "a text of less than nothing": b"R\1" + CELL.pack(2, -1),
    "no text": b"R\1" + CELL.pack(2, 2) + b"\xff\xfe" + b"E\0",
    "a kind of value that is none": b"R\1" + CELL.pack(9, 1),
    "columns without end": b"R\xff" + CELL.pack(0, 1) * 255,
    "an error without end": b"F" + struct.pack("<I", 1 << 30),
    "an error that is no JSON": b"F" + struct.pack("<I", 3) + b"abc",
    "an error that is a number": b"F" + struct.pack("<I", 1) + b"5",
    "an error that is deep": b"F" + struct.pack("<I", 4000) + b"[" * 4000,
    "half of an answer": b"R\2" + CELL.pack(0, 1),
}


def answering(monkeypatch: pytest.MonkeyPatch, answer: bytes, then: str = "") -> None:
    program = f"import sys, socket, time; s = socket.socket(fileno=0); s.recv(9999); s.sendall({answer!r}); {then}"
    monkeypatch.setattr(guest, "_PROGRAM", program.replace("{", "{{").replace("}", "}}"))


@pytest.mark.parametrize("which", ANSWERS)
def test_an_answer_that_is_none_is_a_sentence_and_the_end_of_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    answering(monkeypatch, ANSWERS[which])
    connection = GuestConnection(tmp_path / "any.db", "ro", OUR_RIGHTS)
    with pytest.raises(StoreError, match="open it again") as told:
        connection.execute("SELECT 1")
    assert str(told.value).isprintable()
    assert connection._process.poll() is not None
    connection.close()


@pytest.mark.parametrize("row", [b"R\1" + CELL.pack(0, 1), b"R\0"], ids=["numbers", "nothing"])
def test_more_than_anybody_wants_to_hold_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: bytes
) -> None:
    monkeypatch.setattr(guest, "_MOST_BYTES", 10_000)
    answering(monkeypatch, row * 1000, "time.sleep(60)")
    connection = GuestConnection(tmp_path / "any.db", "ro", OUR_RIGHTS)
    with pytest.raises(StoreError, match="no answer that can be used"):
        connection.execute("SELECT 1")
    assert connection._process.poll() is not None
    connection.close()


def test_an_error_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, b"F" + struct.pack("<I", len(FAILED)) + FAILED)
    connection = GuestConnection(tmp_path / "any.db", "ro", OUR_RIGHTS)
    with pytest.raises(sqlite3.OperationalError) as told:
        connection.execute("SELECT 1")
    assert str(told.value) == "\\x1b[2Jno"
    connection.close()


def test_a_child_that_says_nothing_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ((guest, "_MORE_SECONDS"), (guest, "_BUSY_SECONDS"), (reading, "GUEST_SECONDS")):
        monkeypatch.setattr(name, value, 0.1)
    answering(monkeypatch, b"", "time.sleep(60)")
    connection = GuestConnection(tmp_path / "any.db", "ro", OUR_RIGHTS)
    with pytest.raises(StoreError, match="does not answer"):
        connection.execute("SELECT 1")
    assert connection._process.poll() is not None
    connection.close()


def test_a_child_that_says_a_byte_now_and_then_has_no_more_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ((guest, "_MORE_SECONDS"), (guest, "_BUSY_SECONDS"), (reading, "GUEST_SECONDS")):
        monkeypatch.setattr(name, value, 0.3)
    answering(
        monkeypatch, b"R\1" + CELL.pack(2, 1 << 20), "[(s.sendall(bytes(1)), time.sleep(0.1)) for _ in range(100)]"
    )
    connection = GuestConnection(tmp_path / "any.db", "ro", OUR_RIGHTS)
    with pytest.raises(StoreError, match="does not answer"):
        connection.execute("SELECT 1")
    assert connection._process.poll() is not None
    connection.close()


def test_the_child_has_nothing_of_our_variables(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it run what they name."""
    (tmp_path / "sitecustomize.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("A_TOKEN", "secret")
    connection = GuestConnection(plain, "ro", OUR_RIGHTS)
    assert connection.execute("SELECT count(*) FROM one").fetchone() == (1,)
    if sys.platform == "linux":
        known = Path(f"/proc/{connection._process.pid}/environ").read_bytes()
        assert b"secret" not in known
        assert b"PYTHON" not in known
    assert not (tmp_path / "ran").exists()
    connection.close()


@needs_root
def test_the_child_is_not_its_owners_to_look_into(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever fs.suid_dumpable would allow it."""
    libc, done = ownership._libc(), []

    class Libc:
        capset = libc.capset
        capget = libc.capget

        def prctl(self, *what: int) -> int:
            done.append(("prctl", what))
            return int(libc.prctl(*what))

    monkeypatch.setattr(ownership, "_libc", Libc)
    become = os.setresuid

    def change(*ids: int) -> None:
        done.append(("setresuid", ids))
        become(*ids)

    monkeypatch.setattr(os, "setresuid", change)

    def take() -> None:
        Rights(UID, UID, True).take_for_good()
        assert ("prctl", (4, 0, 0, 0, 0)) in done[done.index(("setresuid", (UID, UID, UID))) :]

    assert in_a_child(take) == signal.SIGKILL


def test_a_child_that_was_ended_says_by_what(plain: Path) -> None:
    connection = GuestConnection(plain, "ro", OUR_RIGHTS)
    assert connection.execute("SELECT 1").fetchone() == (1,)
    os.kill(connection._process.pid, signal.SIGTERM)
    connection._process.wait()
    with pytest.raises(StoreError, match=r"ended \(SIGTERM\)"):
        connection.execute("SELECT 1")
    connection.close()
