"""Whose a place is: what root makes, changes and follows, and what another user put there is left as it is."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.store import ownership, place, reading
from receiver.store.database import Database, DatabaseDamaged, DatabaseMissing
from receiver.store.errors import NotOurs, StoreError
from tests import program
from tests.eventually import eventually
from tests.receiver.store.test_database import made
from tests.somebody_else import UID, directory_of, forked, listing, needs_root, python, run


@pytest.fixture
def theirs() -> Iterator[Path]:
    with directory_of(UID) as directory:
        yield directory


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory like /tmp: everybody may make files there."""
    with directory_of(0, 0o1777) as directory:
        yield directory


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of root's that nothing may happen to."""
    file = tmp_path / "victim"
    file.write_bytes(b"what root keeps\n")
    file.chmod(0o644)
    return file


def command(*argv: str | Path) -> tuple[int, str]:
    """Exit code and standard error of the program."""
    done = program.run("tui.cli", *argv)
    return done.returncode, done.stderr


def one_sentence(said: str) -> bool:
    return said.startswith("k8s-trace-tui: ") and said.count("\n") == 1 and said.endswith(".\n")


def their_database(directory: Path) -> Path:
    """A closed database that its owner made there."""
    path = directory / "spans.db"
    program = (
        "import sys; from receiver.store.database import Database\n"
        "from tests.receiver.store.test_database import made\n"
        "d = Database.create(sys.argv[1]); d.append([made(1), made(2)]); d.close()\n"
    )
    here = Path(__file__).resolve().parents[3]
    run("env", f"PYTHONPATH={here}", *python(program, str(path)))
    assert path.stat().st_uid == UID
    return path


# --- root writes nothing into another user's directory ----------------------------------------------
@needs_root
@pytest.mark.parametrize("suffix", ["", ".log", ".log.1", "-wal", "-shm", "-journal", ".lock", ".sock", ".commands"])
@pytest.mark.parametrize("kind", ["link", "hard link", "nothing"])
@pytest.mark.parametrize("what", ["receive", "import"])
def test_root_makes_and_follows_nothing_there(theirs: Path, victim: Path, suffix: str, kind: str, what: str) -> None:
    path = theirs / "spans.db"
    planted = theirs / f"spans.db{suffix}"
    if kind == "link":
        planted.symlink_to(victim)
        os.chown(planted, UID, UID, follow_symlinks=False)
    elif kind == "hard link":
        planted = theirs / f"spans.db{suffix}"
        try:
            os.link(victim, planted)
        except OSError:
            pytest.skip("the two directories are on two file systems")
    before, kept = listing(theirs), listing(victim.parent)
    more = ("--listen", "127.0.0.1:0") if what == "receive" else ("/dev/null",)
    code, said = command(what, "--db", path, *more)
    assert code == 1, said
    assert one_sentence(said)
    assert "belongs to somebody else" in said
    assert f"sudo -u '#{UID}'" in said
    assert (listing(theirs), listing(victim.parent)) == (before, kept)


@needs_root
def test_modes_of_another_users_files_stay(theirs: Path) -> None:
    path = their_database(theirs)
    for suffix in ("", "-wal", "-shm"):
        one = path.with_name(path.name + suffix)
        one.touch()
        os.chown(one, UID, UID)
        one.chmod(0o644)
    before = listing(theirs)
    with pytest.raises(NotOurs):
        Database.create(path)
    assert listing(theirs) == before


@needs_root
def test_an_old_file_of_roots_in_another_users_directory_is_not_believed(theirs: Path) -> None:
    path = theirs / "spans.db"
    Database.create(elsewhere := theirs.parent / "spans.db").close()
    os.rename(elsewhere, path)
    for opened in (Database.create, Database.read):
        with pytest.raises(NotOurs, match=r"theirs"):
            opened(path)


@needs_root
@pytest.mark.parametrize("way", ["link to the file", "link to the directory", "directory below"])
def test_root_goes_through_nothing_of_another_users(theirs: Path, tmp_path: Path, way: str) -> None:
    ours = tmp_path / "ours"
    Database.create(ours / "spans.db").close()
    link = theirs / "link"
    if way == "link to the file":
        link.symlink_to(ours / "spans.db")
        path = link
    elif way == "link to the directory":
        link.symlink_to(ours)
        path = link / "spans.db"
    else:
        path = theirs / "roots" / "spans.db"
        path.parent.mkdir()
    os.chown(theirs / ("roots" if way == "directory below" else "link"), 0, 0, follow_symlinks=False)
    if way != "directory below":
        os.chown(link, UID, UID, follow_symlinks=False)
    before = listing(ours)
    for opened in (Database.create, place.make_private if way == "directory below" else Database.create):
        with pytest.raises(NotOurs):
            opened(path)
    assert listing(ours) == before
    assert not (theirs / "roots" / "spans.db").exists()


def test_links_of_our_own_go_on_working(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "state").symlink_to("disk")
    path = tmp_path / "state" / "a" / "spans.db"
    writer = Database.create(path)
    writer.append([made(1)])
    writer.close()
    (tmp_path / "other.db").symlink_to(path)
    for one in (path, tmp_path / "other.db", tmp_path / "disk" / ".." / "state" / "a" / "spans.db"):
        Database.create(one).close()
        assert len(Database.read(one).ids()) == 1
        assert ownership.our_place(one) == (tmp_path / "disk" / "a" / "spans.db").resolve()


def test_links_in_a_circle_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(StoreError, match="cannot be opened"):
        Database.create(tmp_path / "a")


# --- in /tmp ----------------------------------------------------------------------------------------
@needs_root
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("kind", ["file", "link", "pipe", "socket"])
def test_what_another_user_put_beside_in_tmp_is_not_used(shared: Path, victim: Path, suffix: str, kind: str) -> None:
    path, planted = shared / "spans.db", shared / f"spans.db{suffix}"
    if suffix:
        Database.create(path).close()
    if kind == "file":
        planted.write_bytes(b"")
        planted.chmod(0o666)
    elif kind == "link":
        planted.symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(planted, 0o666)
    else:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(planted))
    os.chown(planted, UID, UID, follow_symlinks=False)
    before, kept = listing(shared), listing(victim.parent)
    for opened in (Database.create, Database.read) if suffix or kind != "link" else (Database.create,):
        if opened == Database.read and kind == "file" and not suffix:
            continue  # another user's empty file may be read
        with pytest.raises(NotOurs):
            opened(path)
    code, said = command("receive", "--db", path, "--listen", "127.0.0.1:0")
    assert code == 1
    assert one_sentence(said), said
    assert (listing(shared), listing(victim.parent)) == (before, kept)


@needs_root
@pytest.mark.parametrize("suffix", [".lock", ".log", ".commands"])
@pytest.mark.parametrize("kind", ["file", "link", "hard link", "pipe"])
def test_nor_what_we_open_ourselves(shared: Path, victim: Path, suffix: str, kind: str) -> None:
    planted = shared / f"spans.db{suffix}"
    if kind == "file":
        planted.write_bytes(b"")
        planted.chmod(0o666)
    elif kind == "link":
        planted.symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(planted, 0o666)
    else:
        os.link(victim, planted)
    if kind != "hard link":
        os.chown(planted, UID, UID, follow_symlinks=False)
    before, kept = listing(shared), listing(victim.parent)
    for flags in (os.O_RDONLY, os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_CREAT | os.O_APPEND):
        with pytest.raises((NotOurs, OSError)):
            ownership.open_ours(planted, flags)
    ownership.close_to_others(planted)
    assert (listing(shared), listing(victim.parent)) == (before, kept)


def test_our_own_in_tmp_is_used_and_closed_to_others(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    path = tmp_path / "spans.db"
    writer = Database.create(path)
    path.chmod(0o644)
    writer.append([made(1)])
    writer.close()
    Database.create(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(Database.read(path).ids()) == 1
    tmp_path.chmod(0o777)  # others may rename what is in it
    with pytest.raises(NotOurs, match=r"chmod go-w"):
        Database.create(path)
    assert len(Database.read(path).ids()) == 1


@needs_root
def test_a_group_may_not_decide_what_root_writes_to(tmp_path: Path) -> None:
    os.chown(tmp_path, 0, UID)
    tmp_path.chmod(0o770)
    with pytest.raises(NotOurs, match="Others may write into"):
        Database.create(tmp_path / "spans.db")
    os.chown(tmp_path, 0, 0)
    Database.create(tmp_path / "spans.db").close()


# --- root looks at another user's database ----------------------------------------------------------
@needs_root
def test_root_reads_a_closed_one_and_makes_nothing(theirs: Path) -> None:
    path = their_database(theirs)
    before = listing(theirs)
    database = Database.read(path)
    assert len(database.ids()) == 2
    assert len(database.bodies(database.ids())) == 2
    database.close()
    assert listing(theirs) == before


@needs_root
def test_root_reads_one_behind_a_directory_that_only_root_may_enter(theirs: Path) -> None:
    """systemd keeps the state of a DynamicUser in /var/lib/private (0700)."""
    path = their_database(theirs)
    secret = theirs.parent / "secret"
    secret.write_bytes(b"")
    secret.chmod(0o600)
    theirs.parent.chmod(0o700)
    before = listing(theirs)
    assert len(Database.read(path).ids()) == 2
    rights = ownership.database_to_read(path).rights
    with rights.held():
        for flags in (os.O_WRONLY, os.O_RDWR):
            with pytest.raises(PermissionError):
                os.open(secret, flags)
        with pytest.raises(PermissionError):
            (theirs.parent / "made").mkdir()
        with pytest.raises(PermissionError):
            secret.chmod(0o644)
    secret.write_bytes(b"root again")
    assert listing(theirs) == before


@needs_root
@pytest.mark.parametrize("ends", ["close", "kill"])
def test_root_follows_a_writer_through_all_of_its_life(theirs: Path, ends: str) -> None:
    """Closed, written, checkpointed, ended: the reader sees what is there, and makes nothing."""
    from tests.somebody_else import start

    path = their_database(theirs)
    program = (
        "import os, sys; from receiver.store.database import Database\n"
        "from tests.receiver.store.test_database import made\n"
        "d = Database.create(sys.argv[1]); n = 10\n"
        "for line in sys.stdin:\n"
        "    n += 1\n"
        "    if line == 'append\\n': d.append([made(n)])\n"
        "    if line == 'checkpoint\\n': d.checkpoint()\n"
        "    if line == 'close\\n': d.checkpoint(); d.close(); sys.exit()\n"
        "    if line == 'kill\\n': os.kill(os.getpid(), 9)\n"
        "    print('done', flush=True)\n"
    )
    here = Path(__file__).resolve().parents[3]
    reader = Database.read(path)
    last, _ = 0, None
    known = [chunk.id for chunk in reader.poll(0)[1]]

    def fresh() -> int:
        nonlocal last
        last = max(known)
        chunks = reader.poll(last)[1]
        known.extend(chunk.id for chunk in chunks)
        return len(chunks)

    for _ in range(2):
        command = ("env", f"PYTHONPATH={here}", *python(program, str(path)))
        with start(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
            assert writer.stdin is not None
            assert writer.stdout is not None
            for said in ("append", "append", "checkpoint", "append"):
                writer.stdin.write(said + "\n")
                writer.stdin.flush()
                assert writer.stdout.readline() == "done\n"
                assert fresh() == (said == "append")
            second = Database.read(path)
            assert second.ids() == known
            second.close()
            writer.stdin.write(ends + "\n")
            writer.stdin.flush()
            writer.wait(20)
        assert fresh() == 0
        assert {one.stat().st_uid for one in theirs.iterdir()} == {UID}
    reader.close()
    names = {one.name for one in theirs.iterdir()}
    again = Database.read(path)
    assert again.ids() == known
    again.close()
    assert {one.name for one in theirs.iterdir()} == names


@needs_root
@pytest.mark.parametrize("what", ["shadow", "pipe", "socket", "directory", "device", "log is a pipe", "log is a link"])
def test_what_is_there_in_place_of_a_database(theirs: Path, victim: Path, what: str) -> None:
    path = theirs / "spans.db"
    if what == "shadow":
        path.symlink_to(victim)
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    elif what == "directory":
        path.mkdir()
    elif what == "device":
        path.symlink_to("/dev/zero")
    else:
        their_database(theirs)
        log = theirs / "spans.db-wal"
        os.mkfifo(log) if what == "log is a pipe" else log.symlink_to(victim)
        os.chown(log, UID, UID, follow_symlinks=False)
    os.chown(path, UID, UID, follow_symlinks=False)
    before, kept = listing(theirs), listing(victim.parent)
    code, said = command("traces", "--db", path)
    assert code == 1
    assert one_sentence(said), said
    assert "what root keeps" not in said
    assert (listing(theirs), listing(victim.parent)) == (before, kept)


@needs_root
def test_a_log_that_only_its_owner_can_open_is_a_sentence(theirs: Path) -> None:
    path = their_database(theirs)
    log = path.with_name("spans.db-wal")
    log.write_bytes(b"x" * 100)
    os.chown(log, UID, UID)
    before = listing(theirs)
    with pytest.raises(StoreError, match="only user 54321 can open"):
        Database.read(path)
    assert listing(theirs) == before


@needs_root
def test_rights_are_one_threads_and_end(theirs: Path) -> None:
    """Inside, root is that user for files; beside it and afterwards it is root again, whatever happened."""
    secret = theirs.parent / "secret"
    secret.write_bytes(b"")
    secret.chmod(0o600)
    rights = ownership.rights_of(UID)
    inside, looked = threading.Event(), threading.Event()

    def look() -> None:
        inside.wait(20)
        secret.read_bytes()
        looked.set()

    thread = threading.Thread(target=look)
    thread.start()

    def fail() -> None:
        with rights.held():
            with pytest.raises(PermissionError):
                secret.read_bytes()
            with rights.held():
                pass
            with pytest.raises(PermissionError):
                secret.read_bytes()
            inside.set()
            assert looked.wait(20)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    thread.join()
    assert secret.read_bytes() == b""
    made_by_root = theirs.parent / "made"
    made_by_root.write_bytes(b"")
    assert made_by_root.stat().st_uid == 0


@needs_root
def test_another_user_is_refused_in_a_sentence(theirs: Path) -> None:
    path = their_database(theirs)

    def read() -> str:
        try:
            Database.read(path)
        except StoreError as problem:
            return str(problem)
        return "it was read"

    assert forked(UID + 1, read) == (
        f"The database {path} cannot be used (unable to open database file): name another with --db."
    )
    assert forked(UID, read) == "it was read"


STRANGE = {
    "a view": "ALTER TABLE chunks RENAME TO c; CREATE VIEW chunks AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT"
    " i + 1 FROM n) SELECT i AS id, c.* FROM n, c",
    "a column that computes": "ALTER TABLE chunks ADD COLUMN more AS (zeroblob(900000000))",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON chunks BEGIN SELECT 1; END",
    "a virtual table": "CREATE VIRTUAL TABLE v USING fts5(a)",
}


@pytest.mark.parametrize("what", STRANGE)
def test_a_file_with_more_than_tables_in_it_is_not_read(tmp_path: Path, what: str) -> None:
    path = tmp_path / "spans.db"
    writer = Database.create(path)
    writer.append([made(1)])
    writer.close()
    connection = sqlite3.connect(path)
    try:
        connection.executescript(STRANGE[what])
    except sqlite3.OperationalError:
        pytest.skip("this SQLite cannot make it")
    finally:
        connection.close()
    for opened in (Database.read, Database.create):
        with pytest.raises(DatabaseDamaged, match="is not a k8s-trace-tui database"):
            opened(path)


def test_an_id_that_is_no_number_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    writer = Database.create(path)
    writer.append([made(1)])
    writer.close()
    connection = sqlite3.connect(path)
    columns = "id, received, n, bytes, source, peer, sender, names, spans, facts, body"
    connection.executescript(
        f"ALTER TABLE chunks RENAME TO c; CREATE TABLE chunks({columns}); INSERT INTO chunks SELECT {columns} FROM c;"
        " DROP TABLE c"
    )
    database = Database.read(path)
    connection.execute("UPDATE chunks SET id = 'x'")
    connection.commit()
    for look in (database.ids, database.last_id, lambda: database.poll(0)):
        with pytest.raises(DatabaseDamaged, match="id"):
            look()
    database.close()
    connection.close()


@needs_root
def test_a_view_that_takes_the_place_of_a_table_after_root_opened_it_is_not_read(theirs: Path) -> None:
    path = their_database(theirs)
    opened, exchange, exchanged, end = (theirs / name for name in ("opened", "exchange", "exchanged", "end"))

    def own() -> str:
        connection = sqlite3.connect(path)
        connection.execute("SELECT count(*) FROM chunks").fetchone()
        opened.touch()
        eventually(exchange.exists)
        connection.executescript(STRANGE["a view"])
        exchanged.touch()
        eventually(end.exists)
        return "exchanged"

    said: list[str] = []
    owner = threading.Thread(target=lambda: said.append(forked(UID, own)))
    owner.start()
    try:
        eventually(opened.exists)
        reader = Database.read(path)
        assert reader.read_after(0)
        exchange.touch()
        eventually(exchanged.exists)
        with pytest.raises(StoreError):
            reader.read_after(0)
        reader.close()
    finally:
        end.touch()
        owner.join()
    assert said == ["exchanged"]


@needs_root
def test_what_root_reads_of_another_user_ends(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Database.read(their_database(theirs))
    monkeypatch.setattr(reading, "GUEST_SECONDS", 0.0)
    without_end = "SELECT count(*) FROM " + ", ".join(f"pragma_function_list AS f{number}" for number in range(6))
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        reader._connection.execute(without_end).fetchall()
    reader.close()


def test_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(DatabaseMissing):
        Database.read(tmp_path / "a" / "b" / "spans.db")
    assert not (tmp_path / "a").exists()


# --- directories with known names -------------------------------------------------------------------
@needs_root
@pytest.mark.parametrize("kind", ["directory", "link", "file"])
def test_a_directory_with_a_known_name_in_tmp_that_somebody_else_made(shared: Path, victim: Path, kind: str) -> None:
    known = shared / "k8s-trace-tui-0"
    if kind == "directory":
        known.mkdir(0o777)
    elif kind == "link":
        known.symlink_to(victim.parent)
    else:
        known.write_bytes(b"")
    os.chown(known, UID, UID, follow_symlinks=False)
    before, kept = listing(shared), listing(victim.parent)
    with pytest.raises(StoreError, match=r"--db"):
        place.make_private(known)
    assert (listing(shared), listing(victim.parent)) == (before, kept)


def test_a_directory_of_ours_is_closed_and_one_behind_a_link_stays(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to("open")
    place.make_private(tmp_path / "link")
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o755
    place.make_private(tmp_path / "open")
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o700
