"""Step, said, seen: each kind of change several times on a node, what its plan said, what was seen from outside.

The first row is what kubelet needs by itself: a manifest changed by hand with `mv`, without this program. Before
each step kubelet is restarted, which makes it forget back-offs, so that no step stands in another one's.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from statistics import median
from typing import Any, Final

from tests.real.lan import Lan
from tests.real.node import HOME, MANIFESTS, Node
from tests.real.probe import READ, Probe
from tests.real.processes import wait_until
from tests.real.rollouts import BACK_OFF_S, all_run, change, containers, forget_back_offs

MANIFEST: Final = f"{MANIFESTS}/kube-apiserver.yaml"
TRACING: Final = "/etc/kubernetes/k8s-trace-tui/apiserver.yaml"
VERDICTS: Final = 10
BY_HAND: Final = "a manifest changed by hand (mv)"
ARM: Final = "arm"
STOPPED: Final = "set, by CRI stop"
BY_MANIFEST: Final = "set, by the manifest"
OFF: Final = "off"
REVERT: Final = "revert"
ETCD_ARM: Final = "arm of etcd"
ETCD_OFF: Final = "off of etcd"
REPAIR: Final = "a broken tracing file mended by set 0, from its first exit"
VERDICT: Final = "from the end of kubectl get to its verdict"
_ANSWERS_S: Final = 200.0


@dataclass
class Row:
    """A step, what was said of it (each once), and the seconds that were seen."""

    step: str
    said: list[str] = field(default_factory=list)
    seen: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.seen:
            return f"| {self.step} | | not seen | 0 |"
        seen = f"{median(self.seen):.1f} s ({min(self.seen):.1f} to {max(self.seen):.1f})"
        return f"| {self.step} | {'; '.join(self.said)} | {seen} | {len(self.seen)} |"


class Table:
    """The rows, filled step by step on a node; each value is printed when it is there."""

    def __init__(self, lan: Lan, node: Node) -> None:
        self._lan, self._node = lan, node
        self.rows = {
            step: Row(step)
            for step in (BY_HAND, ARM, STOPPED, BY_MANIFEST, OFF, REVERT, ETCD_ARM, ETCD_OFF, REPAIR, VERDICT)
        }

    def __str__(self) -> str:
        head = ["| step | said | seen: median (least to most) | runs |", "|---|---|---|---|"]
        return "\n".join([*head, *map(str, self.rows.values()), "", *self._judged()])

    def round(self, number: int) -> None:
        """Every kind of change once; the node is as it was afterwards."""
        node, files = self._node, self._node.files("/etc/kubernetes")
        original = node.path(MANIFEST).read_bytes()
        marked = re.sub(rb"(?m)^  annotations:\n", b"  annotations:\n    by-hand: '%d'\n" % number, original, count=1)
        assert marked != original
        self._away(BY_HAND, lambda: self._by_hand(marked))
        self._away(BY_HAND, lambda: self._by_hand(original))
        self._change(ARM, "arm")
        if number == 0:
            self._verdicts()
        self._change(STOPPED, "set", "100%")
        self._change(BY_MANIFEST, "set", "50%")
        self._change(OFF, "off")
        self._change(ETCD_ARM, "arm", "--component", "etcd")
        self._change(ETCD_OFF, "off", "--component", "etcd")
        self._change(ARM, "arm")
        self._repair()
        self._change(REVERT, "revert")
        self._rest()
        assert node.files("/etc/kubernetes") == files

    # --- steps -------------------------------------------------------------------------------------------------
    def _note(self, step: str, said: str, seconds: float) -> None:
        row = self.rows[step]
        row.seen.append(seconds)
        if said and said not in row.said:
            row.said.append(said)
        print(f"real: {step}: said {said or 'nothing'}, seen {seconds:.1f} s", flush=True)

    def _rest(self) -> None:
        """Until all is as on a node that nobody touched for long."""
        self._node.wait_ready()
        forget_back_offs(self._node)
        wait_until(lambda: all_run(self._node), "all pods run", seconds=BACK_OFF_S)
        time.sleep(5.0)

    def _away(self, step: str, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """For how long reads got no good answer, a come-back in between included."""
        self._rest()
        with Probe(self._lan, self._node.local_client()) as probe:
            document = act()
            wait_until(probe.answers, "the API answers", seconds=_ANSWERS_S)
            time.sleep(2.0)
            wait_until(probe.answers, "the API answers", seconds=_ANSWERS_S)
            seconds = probe.seconds_away(READ)
        where = {"stop": STOPPED, "manifest": BY_MANIFEST}.get(document.get("trigger", ""), step)
        self._note(where if step in (STOPPED, BY_MANIFEST) else step, shortly(document.get("price", "")), seconds)
        return document

    def _change(self, step: str, *arguments: str) -> None:
        document = self._away(step, lambda: change(self._node, *arguments))
        assert document["outcome"] == "done", document

    def _by_hand(self, content: bytes) -> dict[str, Any]:
        (before,) = containers(self._node, "kube-apiserver")
        staged = self._node.path("/etc/kubernetes/tmp/by-hand.yaml")
        staged.write_bytes(content)
        staged.chmod(0o600)
        staged.rename(self._node.path(MANIFEST))

        def another() -> bool:
            found = containers(self._node, "kube-apiserver")
            return len(found) == 1 and found[0]["podSandboxId"] != before["podSandboxId"]

        wait_until(another, "kubelet runs the other manifest", seconds=_ANSWERS_S)
        return {}

    def _repair(self) -> None:
        """The file is broken, the container is stopped and does not come up again; as soon as it has ended once, it is
        mended."""
        node = self._node
        self._rest()
        good = node.path(TRACING).read_bytes()
        node.path(TRACING).write_bytes(good + b"bogus: 1\n")
        (running,) = containers(node, "kube-apiserver")
        with Probe(self._lan, node.local_client()) as probe:
            node.crictl("stop", "-t", "2", running["id"])
            wait_until(lambda: self._bad_end() > 0, "the API server has ended", seconds=_ANSWERS_S)
            first = self._bad_end()
            document = change(node, "set", "0")
            wait_until(probe.answers, "the API answers", seconds=_ANSWERS_S)
            (away,) = probe.away(READ)[-1:]
            assert away.ended is not None
            ready = time.time() - (time.monotonic() - away.ended)
        assert node.path(TRACING).read_bytes() == good
        self._note(REPAIR, shortly(document["price"]), ready - first)

    def _bad_end(self) -> float:
        """When an API server first ended with an exit code of its own, s since the epoch; 0 for never."""
        ended = []
        for one in self._node.crictl("ps", "-a", "--name", "^kube-apiserver$", "--state", "exited", "-q").split():
            found = json.loads(self._node.crictl("inspect", one))["status"]
            if found["exitCode"] == 1:
                ended.append(seconds_of(found["finishedAt"]))
        return min(ended, default=0.0)

    def _verdicts(self) -> None:
        """What `trace -- kubectl get` takes after the command's end; a receiver runs on the node meanwhile."""
        node = self._node
        receiver = node.process("receiver", [sys.executable, "-m", "tui.cli", "receive"])
        receiver.start()
        wait_until(lambda: b"listening" in receiver.log.read_bytes(), "the receiver listens", by=receiver)
        script = f"kubectl get namespaces >/dev/null; date +%s.%N >{HOME}/ended"
        for _ in range(VERDICTS):
            self._node.run(
                sys.executable, "-m", "tui.cli", "trace", "--", "sh", "-c", script,
                environment={"KUBECONFIG": "/etc/kubernetes/super-admin.conf"},
            )  # fmt: skip
            self._note(VERDICT, "", time.time() - float(node.path(f"{HOME}/ended").read_text()))
        node.path(f"{HOME}/ended").unlink()
        receiver.stop()
        node.run("rm", "-rf", f"{HOME}/.local/state/k8s-trace-tui")

    # --- what it must reach -------------------------------------------------------------------------------------
    def _judged(self) -> list[str]:
        """A line for each figure that it must reach."""
        found = {step: row.seen for step, row in self.rows.items() if row.seen}
        lines = []
        if BY_HAND in found:
            own = median(found[BY_HAND])
            for step in (ARM, OFF, REVERT):
                if step in found:
                    more = median(found[step]) - own
                    lines.append(_line(f"{step}: within 5 s of what kubelet needs", f"{more:+.1f} s", more <= 5.0))
        if STOPPED in found:
            most = max(found[STOPPED])
            lines.append(_line("set by CRI stop: under 10 s", f"{most:.1f} s at most", most < 10.0))
        if REPAIR in found:
            most = max(found[REPAIR])
            lines.append(
                _line("broken file: back within 30 s of the first exit", f"{most:.1f} s at most", most <= 30.0)
            )
        if VERDICT in found:
            soon = sum(one <= 8.0 for one in found[VERDICT])
            enough = soon * 10 >= 9 * len(found[VERDICT])
            lines.append(_line("verdict within 8 s in 9 of 10", f"{soon} of {len(found[VERDICT])}", enough))
        return lines


def _line(what: str, seen: str, reached: bool) -> str:
    return f"{'reached' if reached else 'MISSED '}  {what}: {seen}"


def shortly(price: str) -> str:
    """The seconds that a price names."""
    found = re.search(r"(?:(?:[Aa]bout|some) )?\d+(?: to \d+)? s\b", price)
    return found[0].lower() if found else price


def seconds_of(time_text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time in UTC with nanoseconds."""
    whole, _, rest = time_text.rstrip("Z").partition(".")
    at = datetime.fromisoformat(whole).replace(tzinfo=timezone.utc).timestamp()
    return at + float(f"0.{rest}" if rest.isdigit() else 0)


def run(release: str, runs: int) -> int:
    """Fill the table on a node of a release, and print it."""
    lan = Lan()
    node = Node(lan, release=release)
    try:
        node.start()
        table = Table(lan, node)
        began = time.monotonic()
        try:
            for number in range(runs):
                table.round(number)
        finally:
            minutes = (time.monotonic() - began) / 60
            print(f"\nA node of {node.version}, {runs} rounds asked for, {minutes:.0f} min.\n\n{table}", flush=True)
    finally:
        node.close()
        lan.close()
    return 0
