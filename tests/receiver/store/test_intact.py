"""Files that are pulled away under a receiver: what is called stored is there after a kill, or it is refused."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from receiver.store import database as database_module
from receiver.store import intact
from receiver.store.chunk import Chunk
from receiver.store.database import Database, DatabaseMoved, StoreError, compress
from receiver.store.wal import FRAME_HEADER, HEADER, Kept, log_of, memory_of, read_state, valid_frames
from receiver.store.writer import Full, Writer
from tests.receiver.store.test_index import Plain, chunk

FILES = {"file": lambda path: path, "log": log_of, "memory": memory_of}


def made(number: int, size: int = 30_000) -> Chunk:
    c = chunk(0, [Plain(number, 1, 0, 5, 9, request=True)])
    c.body = compress(os.urandom(size))
    return c


def empty(one: Path) -> None:
    os.truncate(one, 0)


def halve(one: Path) -> None:
    os.truncate(one, one.stat().st_size // 2)


def replace(one: Path) -> None:
    other = one.with_name("other")
    other.write_bytes(b"something else " * 1000)
    other.replace(one)


def replace_by_a_copy(one: Path) -> None:
    other = one.with_name("other")
    shutil.copy(one, other)
    other.replace(one)


def unlink(one: Path) -> None:
    one.unlink()


def overwrite(one: Path) -> None:
    with one.open("r+b") as there:
        there.write(bytes(one.stat().st_size))


def another(one: Path) -> bytes:
    """The same of the three files of another database."""
    path = one.parent.parent / "another" / "spans.db"
    database = Database.create(path)
    database.append([made(number, 500 * (number % 90)) for number in range(101, 141)])
    database._checkpoint("PASSIVE")
    database.append([made(number, 9000) for number in range(141, 144)])
    content = path.with_name(one.name).read_bytes()
    database.close()
    return content


def write_another_over(one: Path) -> None:
    """dd conv=notrunc, rsync --inplace"""
    content = another(one)
    with one.open("r+b") as there:
        there.write(content)


def copy_another_over(one: Path) -> None:
    """cp"""
    one.write_bytes(another(one))


def spoil(one: Path) -> None:
    """A disk's block in the middle becomes another's."""
    middle = one.stat().st_size // 2 // 4096 * 4096
    with one.open("r+b") as there:
        there.seek(middle)
        there.write(os.urandom(4096))


OVERWRITING = (overwrite, write_another_over, copy_another_over, spoil)


def lock_away(one: Path) -> None:
    one.chmod(0o400)


def rename_folder(one: Path) -> None:
    one.parent.rename(one.parent.with_name("elsewhere"))


def replace_folder(one: Path) -> None:
    rename_folder(one)
    shutil.copytree(one.parent.with_name("elsewhere"), one.parent)


def in_a_child(work: Callable[[], None]) -> int:
    """Run in a process that is killed at the end, as nothing else leaves the files as they are; what ended it."""
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        try:
            work()
        except BaseException:  # noqa: BLE001 - seen in the test's output
            traceback.print_exc()
            os._exit(1)
        os.kill(os.getpid(), signal.SIGKILL)
    code = -os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (signal.SIGKILL, signal.SIGBUS), "see above"
    return code


def told(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize("when", ["between", "within", "folded"])
@pytest.mark.parametrize(
    "way", [empty, halve, *OVERWRITING, replace, replace_by_a_copy, unlink, lock_away, rename_folder, replace_folder]
)
@pytest.mark.parametrize("which", ["file", "log", "memory"])
def test_what_is_called_stored_is_there_after_a_kill(
    tmp_path: Path, which: str, way: Callable[[Path], None], when: str
) -> None:
    """`between` commits, `within` one (behind the look before it), or while the log is in the file already."""
    if (which, way, when) == ("log", spoil, "within"):
        pytest.skip("it would have to be read as a whole for each commit")
    folder = tmp_path / "state"
    path, acknowledged, refused = folder / "spans.db", tmp_path / "acknowledged", tmp_path / "refused"

    def work() -> None:
        database = Database.create(path)
        writer = Writer(database)
        writer.start()

        def send(number: int) -> None:
            try:
                assert writer.submit(made(number)).wait(20)
            except Full as error:
                with refused.open("a") as file:
                    file.write(f"{error}\n")
            else:
                with acknowledged.open("a") as file:
                    file.write(f"{number}\n")

        for number in range(1, 11):
            send(number)
        if when == "folded":
            database._checkpoint("PASSIVE")
        acknowledged.rename(tmp_path / "before")
        if when == "within":
            database._connection.set_trace_callback(
                lambda text: way(FILES[which](path)) if text == "COMMIT" and folder.exists() else None
            )
            send(11)
            database._connection.set_trace_callback(None)
        else:
            way(FILES[which](path))
        for number in range(12, 18):
            send(number)

    ended_by = in_a_child(work)
    if not folder.exists():
        folder = tmp_path / "elsewhere"
    elif (tmp_path / "elsewhere").exists():
        shutil.rmtree(folder)  # the copy in its place: what was acknowledged went with the real one
        folder = tmp_path / "elsewhere"
    there = set()
    try:
        again = Database.create(folder / "spans.db")
    except StoreError:
        assert which == "file", "the file is whole, so it can be used"
        again = None
    if again is not None:
        there = {int(one.spans["trace_lo"][0]) for one in again.read_after(0)}
        again.append([made(99)])
        assert again._is_whole()
        again.close()
    assert {int(line) for line in told(acknowledged)} <= there
    before = {int(line) for line in told(tmp_path / "before")}
    if which == "memory" or (which == "log" and (when == "folded" or way not in (empty, halve, *OVERWRITING))):
        assert before <= there, "the log was whole, or in the file"
    if way is lock_away:
        assert not told(refused)
        assert len(told(acknowledged)) > 5
    elif ended_by == signal.SIGBUS:  # before an answer
        assert (which, when) == ("memory", "within")
        assert not told(acknowledged)
    elif (which, way) == ("memory", overwrite) and not told(refused):  # SQLite made it anew from the log
        assert len(told(acknowledged)) > 5
    elif (which, when) == ("log", "folded") and not told(refused):  # it began anew, whole: nothing was lost
        assert way in (empty, halve, *OVERWRITING)
        assert len(told(acknowledged)) > 5
    else:
        sentence = told(refused)[0]
        assert str(folder.parent / "state") in sentence, sentence
        assert "while it was in use" in sentence
        assert not told(acknowledged), "none after it was done"


@pytest.mark.parametrize("way", [empty, halve, replace, unlink])
@pytest.mark.parametrize("which", ["log", "memory"])
def test_a_reader_says_it_too_and_reads_on_afterwards(tmp_path: Path, which: str, way: Callable[[Path], None]) -> None:
    path = tmp_path / "spans.db"

    def work() -> None:
        writer = Database.create(path)
        writer.append([made(number) for number in range(1, 11)])
        writer._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        writer.append([made(11, 600_000)])
        reader = Database.read(path)
        assert len(reader.poll(0)[1]) == 11
        way(FILES[which](path))
        with pytest.raises(DatabaseMoved, match=f"spans.db-{'wal' if which == 'log' else 'shm'}"):
            reader.poll(0)
        reader.close()  # nothing of it may break what is left

    assert in_a_child(work) == signal.SIGKILL
    again = Database.create(path)
    there = {int(one.spans["trace_lo"][0]) for one in again.read_after(0)}
    assert there >= set(range(1, 11))
    assert 11 in there or which == "log"
    reader = Database.read(path)
    assert {int(one.spans["trace_lo"][0]) for one in reader.poll(0)[1]} == there
    reader.close()
    again.close()


def test_what_was_lost_with_an_emptied_log_is_said_when_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"

    def work() -> None:
        Database.create(path).append([made(number) for number in range(1, 11)])

    in_a_child(work)
    os.truncate(log_of(path), 0)
    again = Database.create(path)
    assert f"{path}-wal" in again.said
    assert "is lost" in again.said
    assert again.ids() == []
    again.append([made(1)])
    again.close()
    assert Database.create(path).said == "", "once"


def test_a_log_that_does_not_go_with_its_file_is_set_aside(tmp_path: Path) -> None:
    """Another program brought an old one back, and the memory that tells is gone."""
    path = tmp_path / "spans.db"
    old = tmp_path / "old"

    def work() -> None:
        database = Database.create(path)
        for number in range(1, 41):
            database.append([made(number, 5000 * (number % 7 + 1))])
        database._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        for number in range(41, 50):
            database.append([made(number, 5000 * (number % 7 + 1))])
        shutil.copy(log_of(path), old)
        database.replace(database.ids()[:40], [made(50, 90_000)])
        for number in range(51, 80):
            database.append([made(number, 4000 * (number % 5 + 1))])
        database._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    in_a_child(work)
    old.replace(log_of(path))
    memory_of(path).unlink()
    again = Database.create(path)
    assert f"{path}-wal.damaged" in again.said
    assert again._is_whole()
    assert 79 in {int(one.spans["trace_lo"][0]) for one in again.read_after(0)}
    again.close()


def test_others_who_write_and_shrink_are_no_loss(tmp_path: Path) -> None:
    """A reader looks while a writer in another process grows, evicts, shrinks and folds."""
    path = tmp_path / "spans.db"
    first = Database.create(path)
    first.append([made(1)])
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        try:
            writer = Database.create(path)
            for number in range(2, 250):
                ids = writer.append([made(number, 60_000)])
                if number % 25 == 0:
                    writer.replace([*range(ids[0] - 20, ids[0] - 2)], [])
                    writer.shrink(1 << 20)
                    writer.checkpoint()
        finally:
            os._exit(0)
    reader, looks = Database.read(path), 0
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        reader.poll(0, 1)
        assert first.lost() == ""
        looks += 1
    assert looks
    reader.close()
    first.close()


@pytest.mark.parametrize("held", [False, True], ids=["all is folded", "a reader holds the rest"])
def test_another_of_ours_that_has_nothing_to_fold_is_no_loss(tmp_path: Path, held: bool) -> None:
    path = tmp_path / "spans.db"
    database = Database.create(path)
    for number in range(1, 5):
        database.append([made(number)])
    reader = Database.read(path)
    with reader.moment() if held else contextlib.nullcontext():
        assert len(reader.ids()) == 4
        if held:
            database.append([made(5)])
        database._checkpoint("PASSIVE")
        assert database.lost() == ""

        def fold() -> None:
            other = Database.create(path)
            if held:
                other.append([made(6)])
                assert not other._checkpoint("PASSIVE")
            else:
                other.checkpoint()

        in_a_child(fold)
        assert database.lost() == ""
        database.append([made(7)])
    reader.close()
    database.close()


def test_another_of_ours_that_sets_the_time_late_is_no_loss(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    database = Database.create(path)
    database.append([made(1)])
    here, there = socket.socketpair()

    def fold() -> None:
        other = Database.create(path)
        other.append([made(2)])
        assert other._handle is not None
        other._connection.execute("PRAGMA wal_checkpoint").fetchone()
        there.sendall(b"folded")
        there.recv(1)
        intact._set_time(other._handle)
        there.sendall(b"done")
        there.recv(1)

    process = os.fork()
    if process == 0:
        faulthandler.disable()
        here.close()
        try:
            fold()
        finally:
            os._exit(0)
    there.close()
    assert here.recv(6) == b"folded"
    database.append([made(3)])
    database._checkpoint("PASSIVE")
    known = path.stat().st_mtime_ns
    time.sleep(0.01)  # within the same millisecond it would be the same time
    here.sendall(b"1")
    assert here.recv(4) == b"done"
    assert path.stat().st_mtime_ns != known
    assert database.lost() == ""
    database.append([made(4)])
    here.sendall(b"2")
    assert os.waitpid(process, 0)[1] == 0
    path.touch()
    assert "wrote into the database" in database.lost(), "who is none of ours"
    database.close()
    here.close()


def test_a_fold_of_others_that_ends_between_two_looks_is_no_loss(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    database = Database.create(path)
    for number in range(1, 5):
        database.append([made(number)])
    in_a_child(lambda: sqlite3.connect(path).execute("PRAGMA wal_checkpoint").fetchone() and None)
    memory = Kept(memory_of(path))
    state = read_state(memory.number)
    assert state is not None
    assert state.frames == state.folded == state.attempted
    backfill = 2 * 48  # WalCkptInfo.nBackfill
    with memory_of(path).open("r+b") as there:
        there.seek(backfill)
        there.write(bytes(4))  # as it is until all is in the file
        there.flush()
        assert database._lost(folded=True) == ""
        there.seek(backfill)
        there.write(state.folded.to_bytes(4, sys.byteorder))
        there.flush()
        assert database.lost() == ""
        database.close()
    memory.release()


def set_back(one: Path, way: Callable[[Path], None]) -> None:
    was = one.stat()
    way(one)
    os.utime(one, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert one.stat().st_mtime_ns == was.st_mtime_ns


@pytest.mark.parametrize("which", ["file", "log"])
def test_a_time_that_is_set_back_hides_nothing_and_is_no_loss_by_itself(tmp_path: Path, which: str) -> None:
    path = tmp_path / "spans.db"
    database = Database.create(path)
    for number in range(1, 11):
        database.append([made(number)])
    if which == "file":
        database._checkpoint("PASSIVE")
    assert database.lost() == ""
    one = FILES[which](path)
    set_back(one, lambda one: None)  # as who reads it and leaves no trace does
    one.chmod(0o640)
    one.with_name("other name").hardlink_to(one)
    assert len(database.append([made(11)])) == 1
    if which == "file":
        database._checkpoint("PASSIVE")

    def write(one: Path) -> None:
        with one.open("r+b") as there:
            there.seek(one.stat().st_size // 2)
            there.write(os.urandom(50_000))

    set_back(one, write)
    with pytest.raises(DatabaseMoved, match=r"wrote into the database|overwritten"):
        database.append([made(12)])
    database.close()


def test_where_times_are_rounded_a_write_within_the_same_second_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = 1_000_000_000
    utime, now = os.utime, time.time_ns() // second * second + second // 4

    def rounded(one: int, *, ns: tuple[int, int]) -> None:
        utime(one, ns=(ns[0] // second * second, ns[1] // second * second))

    monkeypatch.setattr(os, "utime", rounded)
    monkeypatch.setattr(time, "time_ns", lambda: now)
    path = tmp_path / "spans.db"
    database = Database.create(path)
    database.append([made(1)])
    database._checkpoint("PASSIVE")
    assert database.lost() == ""
    with path.open("ab") as there:
        there.write(b"more")
    os.utime(path, ns=(now, now))
    assert "wrote into the database" in database.lost()
    database.close()


def test_a_process_without_files_does_not_take_its_database_for_damaged(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    Database.create(path).close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        found = [database_module._sound(path)]
        os.close(taken.pop())  # enough for the file, not for its log
        found.append(database_module._sound(path))
    finally:
        for one in taken:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == [None, None]
    assert database_module._sound(path) is True


@pytest.mark.parametrize("page", [512, 8192, 65536])
def test_a_log_is_valid_up_to_the_first_byte_that_is_not_as_it_was_written(tmp_path: Path, page: int) -> None:
    path = tmp_path / "any.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA page_size = {page}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE any(one BLOB)")
    for number in range(12):
        connection.execute("INSERT INTO any VALUES (?)", [os.urandom(300 * number)])
    memory, log = Kept(memory_of(path)), Kept(log_of(path))
    state = read_state(memory.number)
    assert state is not None
    assert state.frames > 12
    assert valid_frames(log.number, state) == state.frames
    for frame in (0, 7, state.frames - 1):
        at = HEADER + frame * state.frame
        for place in (at + 1, at + 9, at + 17, at + FRAME_HEADER, at + state.frame - 1):
            was = os.pread(log.number, 1, place)
            with log_of(path).open("r+b") as there:
                there.seek(place)
                there.write(bytes([was[0] ^ 4]))
                there.flush()
                assert valid_frames(log.number, state) == frame
                there.seek(place)
                there.write(was)
    assert valid_frames(log.number, state) == state.frames
    connection.close()
    log.release()
    memory.release()


def test_who_only_touches_the_log_or_gives_a_transaction_up_is_no_loss(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    database = Database.create(path)
    database.append([made(1)])
    log_of(path).touch()
    database.append([made(2)])
    child = os.fork()
    if child == 0:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("PRAGMA cache_size = 1")  # what does not fit into it goes to the log before it counts
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM chunks")
        other.execute("CREATE TABLE more AS SELECT randomblob(400000) AS one")
        os.kill(os.getpid(), signal.SIGKILL)
    before = log_of(path).stat().st_mtime_ns
    os.waitpid(child, 0)
    assert log_of(path).stat().st_mtime_ns != before
    assert database.lost() == ""
    assert len(database.append([made(3)])) == 1
    assert len(database.ids()) == 3
    database.close()


def test_a_file_that_was_overwritten_before_its_receiver_was_killed_is_looked_through(tmp_path: Path) -> None:
    """Nobody saw it: no commit came between."""
    path = tmp_path / "state" / "spans.db"

    def work() -> None:
        database = Database.create(path)
        for number in range(1, 11):
            database.append([made(number)])
        database._checkpoint("PASSIVE")
        database.append([made(11)])
        while path.stat().st_mtime_ns <= log_of(path).stat().st_mtime_ns:  # the kernel's clock ticks coarsely
            write_another_over(path)

    in_a_child(work)
    again = Database.create(path)
    assert f"{path}-wal.damaged" in again.said
    assert again._is_whole()
    assert {int(one.spans["trace_lo"][0]) for one in again.read_after(0)} == set(range(101, 141))
    again.close()


@pytest.mark.parametrize("way", ["cp", "in place"])
@pytest.mark.parametrize("which", [("memory",), ("log", "memory"), ("file", "log", "memory")])
def test_what_is_put_back_from_earlier_is_noticed_before_the_next_answer(
    tmp_path: Path, which: tuple[str, ...], way: str
) -> None:
    """As a backup that is restored under a receiver would be: all of it was right once."""
    path = tmp_path / "state" / "spans.db"
    said = tmp_path / "said"

    def work() -> None:
        database = Database.create(path)
        for number in range(1, 11):
            database.append([made(number)])
        kept = {name: FILES[name](path).read_bytes() for name in which}
        for number in range(11, 21):
            database.append([made(number)])
        for name, content in kept.items():
            with FILES[name](path).open("r+b" if way == "in place" else "wb") as file:
                file.write(content)
        for number in range(21, 24):
            with contextlib.suppress(DatabaseMoved):
                database.append([made(number)])
                said.write_text(f"{number} was acknowledged")
        said.write_text(database.lost() + " " + database.way_out)

    assert in_a_child(work) == signal.SIGKILL
    sentence = said.read_text()
    assert "while it was in use" in sentence
    again = Database.create(path)
    there = {int(one.spans["trace_lo"][0]) for one in again.read_after(0)}
    again.close()
    if which == ("memory",) or (way == "in place" and "file" not in which):  # a log's beginning is what it was
        assert there == set(range(1, 21))
        assert "Nothing that was acknowledged is lost" in sentence
    else:
        assert "lost" in sentence
        assert "Nothing that was acknowledged is lost" not in sentence


@pytest.mark.parametrize("way", ["removed", "moved"])
def test_a_folder_that_is_gone_is_no_small_loss(tmp_path: Path, way: str) -> None:
    path = tmp_path / "state" / "spans.db"
    said = tmp_path / "said"

    def work() -> None:
        database = Database.create(path)
        database.append([made(1)])
        if way == "removed":
            shutil.rmtree(path.parent)
        else:
            rename_folder(path)
        with pytest.raises(DatabaseMoved):
            database.append([made(2)])
        said.write_text(f"{database.lost()} {database.way_out}")

    assert in_a_child(work) == signal.SIGKILL
    assert f"The database {path} was moved or removed while it was in use." in said.read_text()
    assert "Nothing that was acknowledged is lost" not in said.read_text()


@pytest.mark.parametrize("which", ["file", "log", "memory"])
def test_a_file_that_may_not_be_changed_is_named_and_goes_on_when_it_may(tmp_path: Path, which: str) -> None:
    path = tmp_path / "spans.db"
    said = tmp_path / "said"
    flagged = FILES[which](path)

    def flag(how: str) -> bool:
        return subprocess.run(["chattr", how, flagged], capture_output=True, check=False).returncode == 0

    probe = tmp_path / "probe"
    probe.touch()
    if shutil.which("chattr") is None or subprocess.run(["chattr", "+i", probe], capture_output=True).returncode:
        pytest.skip("this user or file system makes no file immutable")
    subprocess.run(["chattr", "-i", probe], check=True)

    def work() -> None:
        database = Database.create(path)
        writer = Writer(database)
        writer.start()
        assert writer.submit(made(1)).wait(20)
        assert flag("+i")
        try:
            with pytest.raises(Full) as caught:
                writer.submit(made(2)).wait(20)
            with pytest.raises(StoreError):
                database.ids()
            writer._probe()
        finally:
            assert flag("-i")
        assert writer.submit(made(3)).wait(20)
        assert not writer.problem
        said.write_text(str(caught.value))

    assert in_a_child(work) == signal.SIGKILL
    assert f"{flagged} may not be written to any more" in said.read_text()
    again = Database.create(path)
    assert {int(one.spans["trace_lo"][0]) for one in again.read_after(0)} == {1, 3}
    again.close()
