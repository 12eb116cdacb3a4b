"""A cgroup of our own for a node: all that runs there is in it, and kubelet and containerd make theirs below it.

In a cgroup namespace it looks like the root, so kubelet puts `kubepods` into it and not into the machine's. It works
with version 1 (a hierarchy a controller), with version 2, and with both beside each other.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PREFIX = "k8s-trace-tui-"
_WAIT_S = 10.0


@dataclass(frozen=True)
class Hierarchy:
    """A mounted hierarchy of cgroups. `options` are those of its mount, "" for version 2; `home` is where our cgroups
    are made."""

    mounted: Path
    options: str
    home: Path


def hierarchies() -> list[Hierarchy]:
    """Those of this machine that this process is in."""
    own: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own[controllers] = path
    pure = not any(own)
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, super_options = after.split(" ", 2)
        root, mounted = before.split(" ")[3:5]
        if kind == "cgroup2" and root == "/" and "" in own:
            # Version 2 lets no cgroup with processes of its own hand controllers on: below the root, not below ours.
            home = Path(mounted) if pure else Path(mounted) / own[""].lstrip("/")
            found.append(Hierarchy(Path(mounted), "", home))
        elif kind == "cgroup" and root == "/":
            options = [option for option in super_options.split(",") if option not in ("rw", "ro", "xattr")]
            options = [option for option in options if not option.startswith(("release_agent", "clone_children"))]
            path = own.get(",".join(options), "/")
            found.append(Hierarchy(Path(mounted), ",".join(options), Path(mounted) / path.lstrip("/")))
    return found


def make(name: str) -> list[Path]:
    """A cgroup in every hierarchy; the folders, into whose `cgroup.procs` a process is written to be in it."""
    made = []
    for hierarchy in hierarchies():
        folder = hierarchy.home / f"{_PREFIX}{name}"
        folder.mkdir(exist_ok=True)
        for inherited in ("cpuset.cpus", "cpuset.mems"):  # version 1 begins with none, and then nothing may run there
            if hierarchy.options and (folder / inherited).exists():
                (folder / inherited).write_text((hierarchy.home / inherited).read_text())
        made.append(folder)
    return made


def remove(name: str) -> None:
    """End what still runs in it, and take it away with all below it."""
    folders = [hierarchy.home / f"{_PREFIX}{name}" for hierarchy in hierarchies()]
    deadline = time.monotonic() + _WAIT_S
    for folder in folders:
        while folder.exists():
            inside = sorted((Path(at) for at, _, _ in os.walk(folder)), key=lambda path: -len(path.parts))
            for one in inside:
                with suppress(OSError):
                    for pid in (one / "cgroup.procs").read_text().split():
                        os.kill(int(pid), signal.SIGKILL)
                with suppress(OSError):
                    one.rmdir()
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
