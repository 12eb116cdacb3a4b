"""The folder outside the tree that holds what was built and what runs, and the sweep of what a dead run left in it.

    bin/MODULE-KEY/    binaries, one folder for each state of a module (build.py)
    images/            OCI images of them (images.py)
    run/NAME-XXXX/     a control plane that runs; `lock` is held for as long as its owner lives

A test run may die by SIGKILL at any time. Its processes die with it (processes.py, node_init.py); what stays on the
disk and under /sys/fs/cgroup is removed by whoever starts next, who knows by the lock that nobody needs it any more.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.real import cgroups

VARIABLE = "K8S_TRACE_TUI_REAL"
"""Names the folder; without it nothing of this package runs."""
_WAIT_S = 10.0


class Unavailable(Exception):
    """This machine cannot do it; the sentence says what it lacks."""


def workspace() -> Path:
    """The folder, made where it is not there.

    Raises:
        Unavailable: none is named.
    """
    named = os.environ.get(VARIABLE, "")
    if not named:
        raise Unavailable(
            f"{VARIABLE} names no folder: there real Kubernetes components are built and run (see docs/testing.md)"
        )
    folder = Path(named).absolute()
    if not named.startswith("/"):
        raise Unavailable(f"{VARIABLE}={named} is not an absolute path")
    for name in ("bin", "images", "run"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def held(path: Path, waiting: str = "") -> Iterator[None]:
    """The lock of a file, waited for; `waiting` is said once when somebody else has it."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                print(f"real: {waiting}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


class RunFolder:
    """The folder of one control plane that runs, and the record of what it would leave behind."""

    def __init__(self, name: str) -> None:
        runs = workspace() / "run"
        with held(runs.parent / "run.lock"):
            sweep(runs)
            self.path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=runs))
            self._lock = (self.path / "lock").open("a")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path.chmod(0o755)  # containers of other users read below it

    def note_process(self, pid: int) -> None:
        """Remember a process, to be ended by whoever sweeps, should this one not come to it."""
        with (self.path / "processes").open("a") as file:
            file.write(json.dumps({"pid": pid, "started": started(pid)}) + "\n")

    def note_cgroup(self, name: str) -> None:
        """Remember a cgroup (see cgroups.py)."""
        with (self.path / "cgroups").open("a") as file:
            file.write(name + "\n")

    def close(self) -> None:
        """End and remove all of it."""
        _remove(self.path)
        self._lock.close()


def sweep(runs: Path) -> list[str]:
    """Remove what dead owners left; the names of their folders."""
    swept = []
    for folder in sorted(runs.iterdir()):
        with (folder / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # its owner lives
            _remove(folder)
            swept.append(folder.name)
    return swept


def started(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine did; tells it from a later one of the same number."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19])
    except (OSError, IndexError):
        return None


def _remove(folder: Path) -> None:
    for record in _records(folder / "processes"):
        pid = record["pid"]
        if record["started"] is not None and started(pid) == record["started"]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + _WAIT_S
            while started(pid) == record["started"] and not _is_zombie(pid) and time.monotonic() < deadline:
                time.sleep(0.02)
    names = folder / "cgroups"
    for name in names.read_text().split() if names.exists() else ():
        cgroups.remove(name)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():  # what ended this moment may still have written
        time.sleep(0.5)
        shutil.rmtree(folder)


def _records(path: Path) -> list[dict[str, Any]]:
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with suppress(ValueError):  # the last line of somebody who died writing
            found.append(json.loads(line))
    return found


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:
        return True
