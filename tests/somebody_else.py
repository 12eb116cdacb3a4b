"""Another user of this machine, for tests that root runs: processes with that user's rights, and its directories."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

UID = 54_321
"""Of a user who has no name; its group has the same number."""

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or sys.platform != "linux", reason="only root on Linux can be two users in one test"
)


@contextmanager
def directory_of(uid: int, mode: int = 0o755) -> Iterator[Path]:
    """A directory of a user's, which everybody can get to."""
    above = Path(tempfile.mkdtemp(prefix="k8s-trace-tui-test-"))
    above.chmod(0o755)
    made = above / "theirs"
    made.mkdir()
    made.chmod(mode)
    os.chown(made, uid, uid)
    try:
        yield made
    finally:
        shutil.rmtree(above)


@lru_cache(maxsize=1)
def _keeps_reading() -> bool:
    """Whether that user cannot start this Python, as when it is in root's home."""
    done = subprocess.run(
        [sys.executable, "-c", "import receiver.store.database"],
        user=UID, group=UID, extra_groups=[], capture_output=True, check=False,
    ) if os.access(sys.executable, os.X_OK) else None  # fmt: skip
    return done is None or done.returncode != 0


def start(*command: str, uid: int = UID, **keywords: Any) -> subprocess.Popen[str]:
    """Starts a program as a user who owns nothing here. Where this Python is out of its reach it may read everything,
    and still writes only what is its own."""
    try:
        unable = _keeps_reading()
    except PermissionError:
        unable = True
    if not unable:
        return subprocess.Popen(list(command), user=uid, group=uid, extra_groups=[], text=True, **keywords)
    if shutil.which("setpriv") is None:
        pytest.skip("another user can neither start this Python nor be given the right to (setpriv)")
    more = "+dac_read_search"
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    return subprocess.Popen([*become, "--inh-caps", more, "--ambient-caps", more, *command], text=True, **keywords)


def run(*command: str, uid: int = UID) -> None:
    """Runs a program as that user; it must succeed."""
    with start(*command, uid=uid, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said


def forked(uid: int, function: Callable[[], str]) -> str:
    """What a function returns that runs as that user, with what is loaded here already."""
    end, other = os.pipe()
    child = os.fork()
    if child == 0:
        said = "it failed"
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            said = function()
        except BaseException as problem:  # noqa: BLE001 - a fork must not go on with the tests
            said = f"{type(problem).__name__}: {problem}"
        finally:
            os.write(other, said.encode()[:4000])
            os._exit(0)
    os.close(other)
    with open(end, encoding="utf-8") as told:
        said = told.read()
    os.waitpid(child, 0)
    return said


def python(program: str, *arguments: str) -> list[str]:
    """The command line of a Python program."""
    return [sys.executable, "-c", program, *arguments]


@contextmanager
def receiving(db: Path) -> Iterator[str]:
    """A receiver that runs as the other user, into a database in a directory of that user's; its address."""
    command = (sys.executable, "-m", "receiver", "--db", str(db), "--listen", "127.0.0.1:0")
    environment = {key: value for key, value in os.environ.items() if key != "XDG_RUNTIME_DIR"}
    with start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        assert line.startswith("listening "), process.stderr.read()
        try:
            yield line.split()[2]
        finally:
            process.terminate()
            process.wait(20)


DATABASE = ("spans.db", "spans.db-wal", "spans.db-shm")
"""What a receiver goes on writing to."""


def listing(directory: Path, but: Sequence[str] = ()) -> dict[str, tuple[Any, ...]]:
    """What is in a directory, and the directory itself: kind, mode, owner, when it was changed, size, content.

    Args:
        but: files of which only kind, mode and owner are told, since their owner writes to them.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for one in (directory, *sorted(directory.rglob("*"))):
        seen = one.lstat()
        name = str(one.relative_to(directory))
        found[name] = (stat.filemode(seen.st_mode), seen.st_uid, seen.st_gid, seen.st_nlink)
        if name not in but:
            found[name] += (seen.st_mtime_ns, seen.st_size)
            if stat.S_ISREG(seen.st_mode):
                found[name] += (one.read_bytes(),)
    return found
