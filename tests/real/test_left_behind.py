"""What a control plane leaves behind: nothing, also when whoever owned it died by SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.real import cgroups, releases
from tests.real import node as nodes
from tests.real.lan import Lan
from tests.real.node_init import KERNEL_SETTINGS, OVERLAID
from tests.real.processes import wait_until
from tests.real.workspace import Unavailable, sweep, workspace

PLAIN = """
from tests.real.plain import Plain
plain = Plain("1.36", "127.0.0.1:4317")
plain.start()
print(plain.run.path, plain.etcd.pid, plain.api.pid, flush=True)
input()
"""
NODE = """
import time
from tests.real.lan import Lan
from tests.real.node import Node
node = Node(Lan())
node.boot()
deep = node.process("deep", ["sh", "-c", "setsid sleep 600 & sleep 600"])
deep.start()
inside = node.process("containers", ["unshare", "--pid", "--fork", "sleep", "600"])
inside.start()
time.sleep(0.5)
print(node.run_folder.path, node.init_pid, deep.pid, inside.pid, flush=True)
input()
"""


def alive(pid: int) -> bool:
    try:
        return not Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:
        return False


@pytest.mark.parametrize("what", ["plain", "node"])
def test_nothing_outlives_its_owner(what: str) -> None:
    if what == "node":
        try:
            nodes.check()
        except Unavailable as reason:
            releases.cannot(reason)
    owner = subprocess.Popen(
        [sys.executable, "-c", PLAIN if what == "plain" else NODE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    try:
        assert owner.stdout is not None
        line = ""
        while not line.startswith("/"):
            line = owner.stdout.readline()
            assert line, "it did not come up"
        name, *rest = line.split()
        folder, pids = Path(name), [int(pid) for pid in rest]
        assert all(alive(pid) for pid in pids)
        assert folder.name not in sweep(workspace() / "run"), "its owner lives"
        assert folder.is_dir()
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait(30)
    wait_until(lambda: not any(alive(pid) for pid in pids), "all of it has ended", seconds=30.0)
    assert folder.name in sweep(workspace() / "run")
    assert not folder.exists()
    left = [path for one in cgroups.hierarchies() for path in one.home.glob(f"*{folder.name}*")]
    assert left == []


def test_the_machine_stays_as_it_is(lan: Lan) -> None:
    """What a node writes into its files and its kernel settings is the node's alone."""

    def settings() -> dict[str, str]:
        found = {name: Path("/proc/sys") / name for name in KERNEL_SETTINGS}
        return {name: path.read_text() for name, path in found.items() if path.exists()}

    before, mounts, links = settings(), Path("/proc/self/mountinfo").read_text(), os.listdir("/sys/class/net")
    node = nodes.Node(lan, name="cp-9", address="192.0.2.9")
    try:
        node.boot()
        stamp = f"real-{time.time_ns()}"
        for top in (*OVERLAID, "/tmp", "/run"):
            node.path(f"{top}/{stamp}").write_text("of the node")
            assert node.run("cat", f"{top}/{stamp}").stdout == "of the node"
            assert not Path(f"{top}/{stamp}").exists()
        for name in before:
            node.run("sh", "-c", f"echo 1 >/proc/sys/{name}")
        assert node.run("hostname").stdout.strip() == "cp-9"
        assert settings() == before
        assert os.uname().nodename != "cp-9"
    finally:
        node.close()
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert os.listdir("/sys/class/net") == links
    assert not node.run_folder.path.exists()
