"""The double of a node and a real one, changed by the same steps, are the same to the program: the states it reads, its
plans in every word, the files byte for byte in what was added, and the journal that the watcher wrote."""

from __future__ import annotations

import difflib
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.real.node import Node
from tests.real.rollouts import settle
from tests.tui.clusters.control_plane import KUBEADMS, MANIFEST, PATIENCE, TRACING, start_control_plane
from tui.clusters import flavours, rollout
from tui.clusters.inspect import read_facts
from tui.clusters.model import Done, Host, Part, ReachError, Wish

ENDPOINT = "127.0.0.1:4317"
STEPS = (
    ("arm", Wish(Part.APISERVER, 0, ENDPOINT, name="arm")),
    ("all", Wish(Part.APISERVER, 1_000_000, ENDPOINT)),
    ("armed again", Wish(Part.APISERVER, 0, ENDPOINT)),
    ("nothing to do", Wish(Part.APISERVER, 0, ENDPOINT)),
    ("off", Wish(Part.APISERVER, None)),
)
_BY_THE_CLOCK = ("wait", "note")
"""Steps that are there or not by how long something took; the double's clock runs fifty times faster."""


@dataclass
class NodeHost:
    """Scripts run on a real node as root, as over ssh, but without it."""

    node: Node
    name: str = "cp-1"
    alive: bool = True

    def run(
        self,
        script: str,
        arguments: Sequence[str] = (),
        *,
        stdin: bytes = b"",
        timeout: float = 30.0,
        most: int = 8 << 20,
    ) -> Done:
        """What the script says, run by the node's own shell."""
        command = self.node.entering(["/bin/sh", "-c", script, "sh", *arguments])
        environment = {"HOME": "/root", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        try:
            done = subprocess.run(
                command, input=stdin, capture_output=True, timeout=timeout, env=environment, check=False
            )
        except subprocess.TimeoutExpired:
            raise ReachError(f"{self.name} did not answer within {timeout:.0f} s.") from None
        return Done(done.returncode, done.stdout[:most], done.stderr[-8192:].decode("utf-8", "replace"))

    def close(self) -> None:
        """Nothing was opened."""


@dataclass(frozen=True)
class Place:
    """Where the steps are made: below `root`. `read` gives a file's bytes, None for none; `rest` waits until all runs
    again."""

    root: str
    host: Host
    read: Callable[[str], bytes | None]
    rest: Callable[[], None]
    patience: int


def seen(place: Place) -> list[dict[str, Any]]:
    """What the program saw and did, step by step. Numbers, which differ, are N: times, ports, versions."""
    found: list[dict[str, Any]] = [state(place)]
    before = place.read(MANIFEST)
    assert before is not None
    for what, wish in STEPS:
        place.rest()
        plan = flavours.plan(read_facts(place.host, [TRACING]), wish)
        told: dict[str, Any] = {
            "step": what,
            "trigger": plan.trigger.value,
            "changes": [(change.path, change.before is None, change.after is None) for change in plan.changes],
            "price": masked(plan.price),
            "warnings": [masked(one) for one in plan.warnings],
            "questions": [masked(one) for one in plan.questions],
            "snippet": plan.snippet,
        }
        if not plan.empty:
            name = rollout.begin(place.host, plan, who="alice", patience=place.patience)
            outcome = rollout.follow(place.host, name, poll=0.15)
            told["outcome"] = (outcome.word, masked(outcome.detail))
            told["journal"] = [
                (entry.step, masked(entry.detail.replace(f"{place.root}/", "/")))
                for entry in outcome.entries
                if entry.step not in _BY_THE_CLOCK
            ]
        told |= state(place)
        told["added"] = added(before, place.read(MANIFEST) or b"")
        told["tracing"] = place.read(TRACING)
        found.append(told)
    assert place.read(MANIFEST) == before
    return found


def state(place: Place) -> dict[str, Any]:
    """Of the API server, in the program's words."""
    (one,) = [one for one in flavours.states(read_facts(place.host, [TRACING])) if one.part is Part.APISERVER]
    return {
        "mode": one.mode.value,
        "per_million": one.per_million,
        "endpoint": one.endpoint,
        "file": one.file,
        "note": masked(one.note),
        "read_only": one.read_only,
        "last": masked(one.last_change),
    }


def added(before: bytes, after: bytes) -> list[str]:
    """Lines that the manifest has more or less, a checksum masked."""
    lines = difflib.ndiff(before.decode().splitlines(), after.decode().splitlines())
    return [re.sub(r"[0-9a-f]{16,}", "X", line) for line in lines if line[:1] in "+-"]


def masked(text: str) -> str:
    """Without what is another one each time: ids, sums, numbers."""
    text = re.sub(r"(/rollouts/)[^/\s]+", r"\1X", text)
    return re.sub(r"\d+(?:\.\d+)*", "N", re.sub(r"\b[0-9a-f]{8,}\b", "X", text))


@pytest.mark.long
@pytest.mark.usefixtures("node_receiver")
def test_the_double_and_the_node_are_the_same_to_the_program(node: Node, tmp_path: Path) -> None:
    def of_node(path: str) -> bytes | None:
        file = node.path(path)
        return file.read_bytes() if file.exists() else None

    plane = start_control_plane(tmp_path, apiserver=KUBEADMS)
    try:

        def of_double(path: str) -> bytes | None:
            file = tmp_path / path.lstrip("/")
            return file.read_bytes() if file.exists() else None

        double = seen(Place(str(tmp_path), plane.host, of_double, plane.until_ready, PATIENCE))
    finally:
        plane.stop()
    real = seen(Place("", NodeHost(node), of_node, lambda: settle(node), 1))
    differing = [
        (one.get("step", "before"), key, one.get(key), other.get(key))
        for one, other in zip(double, real, strict=True)
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key)
    ]
    assert not differing, "\n".join(
        f"{step}, {key}:\n  double {one}\n  real   {other}" for step, key, one, other in differing
    )
    settle(node)
