"""A file that is written on request: whole or as it was, where its name says, and nothing left behind."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest

from receiver.store import written_file
from receiver.store.written_file import WrittenFile

ROOT = os.geteuid() == 0
SOMEBODY = 65_534


def write(path: Path, data: bytes = b"new", *, anything: bool = True) -> None:
    with WrittenFile(path) as file:
        file.raw.write(data)
        file.commit(anything=anything)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_it_takes_its_place_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    with WrittenFile(path) as file:
        file.raw.write(b"new")
        file.raw.flush()
        assert path.read_text() == "old"
        file.commit()
        assert path.read_text() == "new"
    assert names(tmp_path) == ["x"]


def test_nothing_never_replaces_something(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    write(path, b"\x1f\x8b", anything=False)
    assert path.read_text() == "old"
    write(tmp_path / "y", b"", anything=False)
    assert names(tmp_path) == ["x", "y"], "a file that was not there is made"


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit, OSError, None])
def test_what_is_not_committed_leaves_nothing_behind(tmp_path: Path, ending: type[BaseException] | None) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(ending) if ending is not None else nullcontext(), WrittenFile(path) as file:
        file.raw.write(b"half of it")
        if ending is not None:
            raise ending
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    script = (
        "import resource, signal, sys; from pathlib import Path; from receiver.store.written_file import WrittenFile\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with WrittenFile(Path(sys.argv[1])) as file: file.raw.write(bytes(5000)); file.commit()\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize(("mode", "becomes"), [(0o600, 0o600), (0o644, 0o644), (0o666, 0o644), (0o400, 0o600)])
def test_who_may_read_a_file_of_ones_own_still_may(tmp_path: Path, mode: int, becomes: int) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    path.chmod(mode)
    write(path)
    assert stat.S_IMODE(path.stat().st_mode) == becomes


@pytest.mark.skipif(not ROOT, reason="only root can give a file away")
def test_who_may_read_another_users_file_does_not_read_ours(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    path.chmod(0o666)
    os.chown(path, SOMEBODY, SOMEBODY)
    write(path)
    assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (0, 0o600)


def test_a_name_of_255_bytes(tmp_path: Path) -> None:
    path = tmp_path / ("長" * 85)
    write(path)
    assert path.read_text() == "new"


def test_links_of_ones_own_lead_on(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "up").symlink_to("data/../data")
    (tmp_path / "all").symlink_to(tmp_path / "up")
    (tmp_path / "data" / "link").symlink_to("../all/x")
    write(tmp_path / "all" / "link")
    assert names(tmp_path / "data") == ["link", "x"]
    assert (tmp_path / "data" / "x").read_text() == "new"
    assert (tmp_path / "data" / "link").is_symlink()


@pytest.mark.parametrize(("link", "to"), [("x", "x"), ("x", "."), ("x", "/"), ("x", "none/y")])
def test_links_that_lead_nowhere(tmp_path: Path, link: str, to: str) -> None:
    (tmp_path / link).symlink_to(to)
    with pytest.raises(OSError) as told:
        write(tmp_path / link)
    assert told.value.errno in (errno.ELOOP, errno.EISDIR, errno.ENOENT)
    assert told.value.filename == str(tmp_path / link)
    assert names(tmp_path) == [link]


@pytest.mark.skipif(not ROOT, reason="only root can give a link away")
@pytest.mark.parametrize("where", ["itself", "a folder above", "behind one of root's"])
@pytest.mark.parametrize("there", [True, False])
def test_another_users_link_is_not_followed(tmp_path: Path, where: str, there: bool) -> None:
    secret = tmp_path / "etc"
    secret.mkdir()
    if there:
        (secret / "x").write_text("old")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    planted = shared / ("x" if where == "itself" else "folder")
    planted.symlink_to(secret / "x" if where == "itself" else secret)
    os.chown(planted, SOMEBODY, SOMEBODY, follow_symlinks=False)
    path = planted if where == "itself" else planted / "x"
    if where == "behind one of root's":
        (tmp_path / "mine").symlink_to(path)
        path = tmp_path / "mine"
    with pytest.raises(OSError, match="is a link that another user made"):
        write(path)
    assert names(secret) == (["x"] if there else [])
    assert not there or (secret / "x").read_text() == "old"
    assert names(shared) == [planted.name]


@pytest.mark.skipif(not ROOT, reason="only root can give a pipe away")
@pytest.mark.parametrize("mode", [0o1777, 0o755])
def test_another_users_pipe_is_not_written_to(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    os.mkfifo(tmp_path / "x")
    os.chown(tmp_path / "x", SOMEBODY, SOMEBODY)
    reader = os.open(tmp_path / "x", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(OSError, match="another user's pipe"):
        write(tmp_path / "x")
    assert os.read(reader, 9) == b""
    os.close(reader)


def test_a_file_put_in_a_pipes_place_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "x")
    really = os.open

    def exchanged(path: str, flags: int, *more: int, dir_fd: int | None = None) -> int:
        if path == "x":
            (tmp_path / "x").unlink()
            (tmp_path / "x").write_text("theirs")
        return really(path, flags, *more, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", exchanged)
    with pytest.raises(OSError, match="exchanged"):
        write(tmp_path / "x")
    assert (tmp_path / "x").read_text() == "theirs"


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    (tmp_path / "link").symlink_to("x")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "x").read_bytes()), daemon=True)
    reader.start()
    write(tmp_path / "link")
    reader.join(10)
    assert read == [b"new"]
    assert stat.S_ISFIFO((tmp_path / "x").lstat().st_mode)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_what_the_shell_appends_to_is_appended_to(tmp_path: Path, name: str) -> None:
    """Opened by that name it would be replaced, or written from its beginning."""
    script = (
        "import sys; from pathlib import Path; from receiver.store.written_file import WrittenFile\n"
        "with WrittenFile(Path(sys.argv[1])) as file: file.raw.write(b'new'); file.commit()\n"
    )
    log = tmp_path / "log"
    log.write_text("before ")
    with log.open("ab") as out:
        before = log.stat().st_ino
        subprocess.run([sys.executable, "-c", script, name], stdout=out, check=True)
    assert log.read_text() == "before new"
    assert log.stat().st_ino == before
    assert names(tmp_path) == ["log"]


def test_folders_are_those_that_were_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may write in a folder above exchanges it while we write."""
    (tmp_path / "a").mkdir()
    (tmp_path / "etc").mkdir()
    with WrittenFile(tmp_path / "a" / "x") as file:
        (tmp_path / "a").rename(tmp_path / "b")
        (tmp_path / "a").symlink_to("etc")
        file.raw.write(b"new")
        file.commit()
    assert (names(tmp_path / "b"), names(tmp_path / "etc")) == (["x"], [])


def test_without_o_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_PATH", raising=False)
    monkeypatch.setattr(written_file, "_FOLDER", os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    (tmp_path / "data").mkdir()
    (tmp_path / "all").symlink_to("data")
    write(tmp_path / "all" / "x")
    assert names(tmp_path / "data") == ["x"]
