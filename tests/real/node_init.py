"""The first process of a node: makes its namespaces, lays its files over the machine's, and waits for its end.

Started as `python node_init.py`, reads one line of JSON from standard input (see node.py), says `init PID` and `ready`
or `failed WHY` on standard output. When standard input ends, because the test run closed it or died in any way, it
ends, and with the first process of a pid namespace the kernel ends all others of it; mounts and links go with the last.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC, _NEWPID, _NEWNET = (
    0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x20000000, 0x40000000,
)  # fmt: skip
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_SHARED = 0x1000, 0x4000, 0x40000, 0x100000
_PR_SET_PDEATHSIG = 1

STAGE = "/mnt"
"""Where the node keeps what lies under its other mounts."""
OVERLAID = ("/etc", "/root", "/opt", "/var", "/usr/local")
"""The machine's are read, what the node writes there is the node's and lost at its end."""
EMPTY = ("/run", "/tmp")
"""The node has its own."""
ON_DISK = (
    "/etc/kubernetes", "/var/lib/containerd", "/var/lib/etcd", "/var/lib/k8s-trace-tui",
    "/var/lib/k8s-trace-tui-rollouts", "/var/lib/kubelet", "/var/log",
)  # fmt: skip
"""The node's own, and kept from one start of it to the next."""
KERNEL_SETTINGS = (
    "kernel/keys/root_maxbytes", "kernel/keys/root_maxkeys", "kernel/panic", "kernel/panic_on_oops",
    "vm/overcommit_memory", "vm/panic_on_oom",
)  # fmt: skip
"""Those that kubelet writes; it writes them into files of ours, and the machine's stay."""


def main() -> int:
    """See the module."""
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    wanted = json.loads(sys.stdin.readline())
    for group in wanted["cgroups"]:
        _write(f"{group['folder']}/cgroup.procs", str(os.getpid()))
    _call("unshare", _NEWNS | _NEWCGROUP | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET)
    child = os.fork()
    if child:
        print(f"init {child}", flush=True)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        _lay(wanted)
    except (OSError, subprocess.SubprocessError) as problem:
        print(f"failed {problem}", flush=True)
        return 1
    _wait()
    return 0


def _lay(wanted: dict[str, Any]) -> None:
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    _mount("proc", "/proc", "proc")
    _mount("tmpfs", STAGE, "tmpfs", 0, "mode=755")
    _bind(wanted["disk"], f"{STAGE}/disk")
    keep = [path for path in wanted["keep"] if path.startswith(tuple(f"{top}/" for top in (*OVERLAID, *EMPTY)))]
    for number, path in enumerate(keep):
        _bind(path, f"{STAGE}/keep/{number}")
    for top in OVERLAID:
        upper, work = f"{STAGE}/upper{top}", f"{STAGE}/work{top}"
        for folder in (upper, work):
            os.makedirs(folder)
        _mount("overlay", top, "overlay", 0, f"lowerdir={top},upperdir={upper},workdir={work}")
    for top in EMPTY:
        _mount("tmpfs", top, "tmpfs", 0, "mode=1777" if top == "/tmp" else "mode=755")
    os.makedirs("/run/lock")
    for path in ON_DISK:
        os.makedirs(f"{STAGE}/disk{path}", exist_ok=True)
        _bind(f"{STAGE}/disk{path}", path)
    for number, path in enumerate(keep):
        _bind(f"{STAGE}/keep/{number}", path)
    _lay_cgroups(wanted["cgroups"])
    for name in KERNEL_SETTINGS:
        if os.path.exists(f"/proc/sys/{name}"):
            with open(f"/proc/sys/{name}") as file:
                value = file.read()
            _write(f"{STAGE}/sys/{name}", value)
            _bind(f"{STAGE}/sys/{name}", f"/proc/sys/{name}")
    _mount("none", "/", "", _MS_REC | _MS_SHARED)  # what kubelet mounts for a pod has to come through
    socket.sethostname(wanted["hostname"])
    for path, content in wanted["files"].items():
        with suppress(FileNotFoundError):
            os.unlink(path)  # may be a link to somewhere else
        _write(path, content)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=20)


def _lay_cgroups(groups: list[dict[str, str]]) -> None:
    _mount("sysfs", "/sys", "sysfs")
    if any(group["options"] for group in groups):
        _mount("tmpfs", "/sys/fs/cgroup", "tmpfs", 0, "mode=755")
    for group in groups:
        os.makedirs(group["mounted"], exist_ok=True)
        if group["options"]:
            _mount("cgroup", group["mounted"], "cgroup", 0, group["options"])
        else:
            _mount("cgroup2", group["mounted"], "cgroup2")
            leaf = f"{group['mounted']}/init"  # the namespace's root must be free of processes to hand controllers on
            os.makedirs(leaf, exist_ok=True)
            _write(f"{leaf}/cgroup.procs", "1")


def _wait() -> None:
    """Until standard input ends, burying the dead meanwhile."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([0, reading], [], [])
        if reading in ready:
            os.read(reading, 4096)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if 0 in ready and not os.read(0, 4096):
            return


def _bind(source: str, target: str) -> None:
    """Also where the target is not there yet."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        _write(target, "")
    _mount(source, target, "", _MS_BIND | _MS_REC)


def _mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    try:
        _call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())
    except OSError as problem:
        raise OSError(problem.errno, f"{kind or 'mount'} {source} on {target}: {problem.strerror}") from None


def _call(name: str, *arguments: Any) -> None:
    if getattr(_LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _write(path: str, content: str) -> None:
    if not path.startswith("/sys/"):
        os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(content)


if __name__ == "__main__":
    sys.exit(main())
