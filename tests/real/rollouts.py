"""The program's `sampling` on a node, what CRI says of it, and what a rollout leaves behind there."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.real.node import STATIC_PODS, Node, NodeProcess
from tests.real.probe import READ, Probe
from tests.real.processes import wait_until

BACK_OFF_S: Final = 330.0
"""kubelet's longest wait until it starts again what ended, 300 s, and some more."""
STATE: Final = "/var/lib/k8s-trace-tui-rollouts"
"""Where a node keeps what its rollouts did."""
_PATIENCE_S: Final = 20.0


def status(node: Node) -> dict[str, Any]:
    """Of its kube-apiserver."""
    told = node.program("sampling", "status", "--json").stdout
    states = [json.loads(line) for line in told.splitlines()]
    (found,) = [state for state in states if state["component"] == "apiserver"]
    return dict(found)


def change(node: Node, *arguments: str) -> dict[str, Any]:
    """What `sampling ARGUMENTS` did; waited for where it says that the controllers are in back-off."""
    deadline = time.monotonic() + BACK_OFF_S
    while True:
        done = node.program("sampling", *arguments, "--yes", "--json", check=False)
        documents = [json.loads(line) for line in done.stdout.splitlines()]
        later = re.search(r"in (?:about |\d+ to )(\d+) s", done.stderr + done.stdout)
        if done.returncode != 0 and later and time.monotonic() < deadline:
            time.sleep(min(float(later[1]), 60.0))
            continue
        assert done.returncode == 0, done.stdout + done.stderr
        (document,) = documents
        return dict(document)


def said(price: str) -> tuple[float, float]:
    """The seconds that a price names: `about 35 to 50 s`, `about 5 s`."""
    found = re.search(r"(\d+)(?: to (\d+))? s\b", price)
    assert found, price
    return float(found[1]), float(found[2] or found[1])


def containers(node: Node, name: str) -> list[dict[str, Any]]:
    """Of that name, running, by CRI."""
    return list(json.loads(node.crictl("ps", "--name", f"^{name}$", "-o", "json"))["containers"])


def all_run(node: Node) -> bool:
    """Every static pod has one container, which runs."""
    return all(len(containers(node, name)) == 1 for name in STATIC_PODS)


def settle(node: Node) -> None:
    """Until every static pod runs again. Controllers that are in back-off, since the API was away, are helped out of it
    after a while: kubelet keeps back-offs in its memory, and is restarted."""
    node.wait_ready()
    deadline = time.monotonic() + _PATIENCE_S
    while not all_run(node):
        if time.monotonic() > deadline:
            forget_back_offs(node)
            break
        time.sleep(1.0)
    wait_until(lambda: all_run(node), "all pods run", seconds=BACK_OFF_S)
    node.wait_ready()


def forget_back_offs(node: Node) -> None:
    """Restart kubelet, with which its back-offs are gone; no container restarts for it."""
    node.kubelet.stop()
    node.kubelet.start()
    wait_until(
        lambda: node.run("curl", "-s", "http://127.0.0.1:10248/healthz", check=False).stdout == "ok",
        "kubelet is well",
        by=node.kubelet,
    )


def measured(node: Node, probe: Probe, act: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], float]:
    """What was done, and how long reads were away for it."""
    before = len(probe.away(READ))
    document = act()
    wait_until(probe.answers, "the API answers from outside", seconds=60.0)
    found = probe.away(READ)[before:]
    away = (found[-1].ended or 0.0) - found[0].began if found else 0.0
    print(f"real: {document['what']}: said {document['price']!r}, seen away {away:.1f} s", flush=True)
    return document, away


# --- what is interrupted --------------------------------------------------------------------------------------------
class Going:
    """The program at work on a node, which may be ended in the middle.

    Attributes:
        process: of the program.
    """

    def __init__(self, node: Node, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self._node = node
        command = [sys.executable, "-m", "tui.cli", "sampling", *arguments, "--yes"]
        self.process: NodeProcess = node.process("program", command, environment)
        self.process.log.unlink(missing_ok=True)
        self.process.start()

    @property
    def said(self) -> str:
        """All that it has said."""
        return self.process.log.read_text(errors="replace")

    def until(self, step: str, seconds: float = 120.0) -> None:
        """Until it tells of a step of its rollout."""
        wait_until(lambda: self._told(step), f"it comes to {step}", seconds=seconds, by=self.process)

    def _told(self, step: str) -> bool:
        return re.search(rf"^\S+  {step}(?: |$)", self.said, re.MULTILINE) is not None

    def kill(self) -> None:
        """By SIGKILL, with all that it started in its own session."""
        self.process.kill()

    def ends(self, seconds: float = 400.0) -> str:
        """What it has said when it has ended by itself."""
        wait_until(lambda: not self.process.running, "it ends", seconds=seconds)
        return self.said


@dataclass(frozen=True)
class Rollout:
    """What a node keeps of one.

    Attributes:
        steps: of its journal, in order.
        last: the journal's last line without its time: `end done`.
        before: the sha256 of each file as it was, `-` for none, by its path.
        after: likewise as it was to become.
    """

    id: str
    steps: tuple[str, ...]
    last: str
    before: dict[str, str]
    after: dict[str, str]


def newest(node: Node) -> Rollout:
    """The last one that was begun on a node."""
    folder = max(node.path(f"{STATE}/rollouts").iterdir(), key=lambda path: path.name)
    lines = [line.split(" ", 1)[1] for line in (folder / "journal").read_text().splitlines()]
    rows = [row.split("\t") for row in (folder / "files").read_text().splitlines()]
    return Rollout(
        folder.name,
        tuple(line.split(" ")[0] for line in lines),
        lines[-1],
        {row[1]: row[2] for row in rows},
        {row[1]: row[3] for row in rows},
    )


def ended(node: Node) -> str:
    """How the newest rollout ended: `done`, `rolled-back`, `failed`; "" while it has not."""
    found = re.match(r"end (\S+)", newest(node).last)
    return found[1] if found else ""


def outcome(node: Node, *, seconds: float = 240.0) -> Rollout:
    """The newest rollout, once the node has brought it to its end, with or without the program."""
    wait_until(lambda: ended(node) != "", "the rollout ends", seconds=seconds)
    return newest(node)


def sums(node: Node, paths: Sequence[str]) -> dict[str, str]:
    """The sha256 of each of these files, `-` for one that is not there."""
    found = {}
    for path in paths:
        file = node.path(path)
        found[path] = hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else "-"
    return found


def nothing_stray(node: Node) -> None:
    """No copy that waits for its place, no lock, no watcher: a rollout is over."""
    waiting = [str(path) for path in node.path("/etc/kubernetes").rglob(".k8s-trace-tui-*")]
    assert waiting == []
    assert not node.path(f"{STATE}/lock").is_symlink()
    assert "node.sh" not in node.run("ps", "-eo", "args").stdout
