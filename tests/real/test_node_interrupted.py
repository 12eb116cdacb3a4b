"""A change that is interrupted in its middle, on a real node: whatever dies, every file is the old or the new one byte
for byte, the API comes back, the journal tells how it ended, and nothing stray is left.

Each test arms and turns off again, so that each of its rollouts is interrupted at another step.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real import releases
from tests.real.node import MANIFESTS, Node
from tests.real.processes import wait_until
from tests.real.rollouts import (
    Going,
    Rollout,
    change,
    containers,
    newest,
    nothing_stray,
    outcome,
    settle,
    status,
    sums,
)
from tests.real.sshd import NodeSshd
from tests.real.test_node_conformance import NodeHost
from tests.real.workspace import Unavailable
from tests.tui.clusters.control_plane import TRACING
from tui.clusters import flavours, rollout
from tui.clusters.inspect import read_facts
from tui.clusters.model import Part, Wish

pytestmark = pytest.mark.long  # each rollout takes the API away for some 40 s
MANIFEST = f"{MANIFESTS}/kube-apiserver.yaml"
STOP_AT = "K8S_TRACE_TUI_STOP_AT"


@pytest.fixture(autouse=True)
def unchanged(node: Node) -> Iterator[None]:
    """At the end every file is what it was, and all runs."""
    files = node.files("/etc/kubernetes")
    yield
    settle(node)
    now = node.files("/etc/kubernetes")
    if now != files:  # the next test begins as this one did
        for way in (("undo",), ("revert", "--force")):
            node.program("sampling", *way, "--yes", check=False)
        settle(node)
    nothing_stray(node)
    assert now == files


def well(node: Node, word: str) -> Rollout:
    """The newest rollout has ended so: its files are those of that end, the API is ready, nothing stray is left."""
    found = outcome(node)
    assert found.last.split(" ")[:2] == ["end", word], found
    assert found.steps.count("end") == 1
    wanted = found.after if word == "done" else found.before
    assert sums(node, list(wanted)) == wanted
    settle(node)
    nothing_stray(node)
    assert status(node)["interrupted"] is None
    return found


@pytest.mark.parametrize("steps", [("staged", "gone"), ("started", "restart")], ids=",".join)
def test_the_program_is_killed(node: Node, steps: tuple[str, str]) -> None:
    """The node goes on by itself."""
    for what, step, state in (("arm", steps[0], "armed"), ("off", steps[1], "off")):
        going = Going(node, what)
        going.until(step)
        going.kill()
        found = well(node, "done")
        assert {"begin", "staged", "restart", "gone", "started", "ready"} <= set(found.steps)
        assert status(node)["state"] == state


def test_ssh_is_cut(node: Node) -> None:
    """Client and server die; the program finds its way back and tells the end."""
    try:
        sshd = NodeSshd(node)
    except Unavailable as reason:
        releases.cannot(reason)
    try:
        for what, step in (("arm", "staged"), ("off", "gone")):
            going = Going(node, what, "--host", f"ssh://root@{node.name}")
            going.until(step)
            cut = sum(_cut_ssh(node, sshd) for _ in range(5))
            assert cut >= 2, "client and server were there"
            assert f"apiserver {what}: done" in going.ends()
            well(node, "done")
    finally:
        sshd.close()


def _cut_ssh(node: Node, sshd: NodeSshd) -> int:
    """Kill clients and sessions, and give the program a moment to notice; how many there were."""
    listens, killed = _inside(sshd.pid), 0
    for pid, name in (line.split() for line in node.run("ps", "-eo", "pid=,comm=").stdout.splitlines()):
        if name in ("ssh", "sshd-session") or (name == "sshd" and int(pid) != listens):
            killed += node.run("kill", "-9", pid, check=False).returncode == 0
    time.sleep(0.7)
    return killed


def _inside(pid: int) -> int:
    """What a process is to the node, by what it is to the machine."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("NSpid:")]
    return int(line.split()[-1])


def test_the_watcher_is_killed(node: Node) -> None:
    """What was interrupted is found, and finished or put back."""
    old = node.files("/etc/kubernetes")
    done = node.run(*_program("arm"), environment={STOP_AT: "before-2"}, check=False, timeout=300.0)
    assert done.returncode == 1, done.stdout + done.stderr
    assert status(node)["interrupted"]["what"] == "arm"
    refused = node.program("sampling", "arm", "--yes", check=False)
    assert refused.returncode == 1
    assert "was interrupted" in refused.stderr
    node.program("sampling", "undo", "--yes")
    well(node, "rolled-back")
    assert node.files("/etc/kubernetes") == old

    done = node.run(*_program("arm"), environment={STOP_AT: "restart"}, check=False, timeout=300.0)
    assert done.returncode == 1, done.stdout + done.stderr
    node.program("sampling", "resume", "--yes")
    well(node, "done")
    assert status(node)["state"] == "armed"
    armed = node.files("/etc/kubernetes")

    done = node.run(*_program("off"), environment={STOP_AT: "gone"}, check=False, timeout=300.0)
    assert done.returncode == 1, done.stdout + done.stderr
    node.program("sampling", "undo", "--yes")
    well(node, "rolled-back")
    assert node.files("/etc/kubernetes") == armed
    change(node, "off")


def _program(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tui.cli", "sampling", *arguments, "--yes"]


def test_kubelet_and_containerd_are_restarted(node: Node) -> None:
    going = Going(node, "arm")
    going.until("staged")
    node.kubelet.stop()
    wait_until(lambda: "kubelet does not run" in going.said, "it is told that kubelet does not run")
    node.kubelet.start()
    assert "apiserver arm: done" in going.ends()
    well(node, "done")
    going = Going(node, "off")
    going.until("gone")
    node.containerd.stop()
    time.sleep(3.0)
    node.start_containerd()
    assert "apiserver off: done" in going.ends()
    well(node, "done")


def test_a_second_operator_and_a_foreign_edit(node: Node) -> None:
    """Who comes second is told, and nobody's bytes are lost."""
    before = node.path(MANIFEST).read_bytes()
    going = Going(node, "arm")
    going.until("gone")
    for second in ("off", "resume"):
        told = node.program("sampling", second, "--yes", check=False)
        assert told.returncode == 1
        assert "is going on" in told.stderr, told.stderr
    foreign = b"# the other operator was here\n"
    staged = node.path("/etc/kubernetes/tmp/foreign.yaml")
    staged.write_bytes(node.path(MANIFEST).read_bytes() + foreign)
    staged.chmod(0o600)
    staged.rename(node.path(MANIFEST))  # to kubelet the same pod
    assert "apiserver arm: done" in going.ends()
    outcome(node)
    settle(node)
    assert node.path(MANIFEST).read_bytes().endswith(foreign)
    told = node.program("sampling", "revert", "--yes", check=False)
    assert told.returncode == 1
    assert "somebody changed" in told.stderr
    change(node, "off")
    assert node.path(MANIFEST).read_bytes() == before + foreign, "tracing alone is taken away"
    staged.write_bytes(before)
    staged.chmod(0o600)
    staged.rename(node.path(MANIFEST))


def test_a_foreign_edit_before_the_manifest_is_written(node: Node) -> None:
    """Put back, but for what somebody else wrote; nothing restarts."""
    before = node.path(MANIFEST).read_bytes()
    (running,) = containers(node, "kube-apiserver")
    node.run(*_program("arm"), environment={STOP_AT: "before-2"}, check=False, timeout=300.0)
    node.path(MANIFEST).write_bytes(before + b"# theirs\n")
    told = node.program("sampling", "resume", "--yes", check=False)
    assert told.returncode == 1
    found = outcome(node)
    assert f"{MANIFEST} was changed by somebody else meanwhile" in found.last
    assert node.path(MANIFEST).read_bytes() == before + b"# theirs\n"
    assert not node.path(TRACING).exists()
    node.path(MANIFEST).write_bytes(before)
    assert containers(node, "kube-apiserver")[0]["id"] == running["id"]


def test_an_api_server_that_does_not_come_up_is_rolled_back(node: Node) -> None:
    """By the node, at the first exit that names tracing."""
    old = node.files("/etc/kubernetes")
    host = NodeHost(node)
    plan = flavours.plan(read_facts(host, [TRACING]), Wish(Part.APISERVER, 0, "127.0.0.1:4317", name="arm"))
    broken = tuple(
        dataclasses.replace(one, after=one.after + b"bogus: 1\n") if one.path == TRACING and one.after else one
        for one in plan.changes
    )
    name = rollout.begin(host, dataclasses.replace(plan, changes=broken), who="alice")
    told = rollout.follow(host, name)
    assert told.word == "rolled back", told
    assert "bogus" in told.detail
    times = {entry.step: entry.when for entry in told.entries}
    print(f"real: from the new one's failure to the old one's readiness: {times['ready'] - times['back']:.0f} s")
    well(node, "rolled-back")
    assert node.files("/etc/kubernetes") == old


def test_the_node_ends_in_the_middle(node: Node) -> None:
    """Its plug is pulled: what was under way is found when it is back, and finished or put back."""
    going = Going(node, "arm")
    going.until("gone")
    node.power_off()
    node.power_on()
    assert status(node)["interrupted"]["what"] == "arm"
    node.program("sampling", "resume", "--yes")
    well(node, "done")
    armed = node.files("/etc/kubernetes")
    assert status(node)["state"] == "armed"
    going = Going(node, "off")
    going.until("gone")
    node.power_off()
    node.power_on()
    node.program("sampling", "undo", "--yes")
    well(node, "rolled-back")
    assert node.files("/etc/kubernetes") == armed
    change(node, "off")
    assert newest(node).last.startswith("end done")
