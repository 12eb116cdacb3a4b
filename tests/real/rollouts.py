"""The program's `sampling` on a node, and what CRI says of it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any, Final

from tests.real.node import STATIC_PODS, Node
from tests.real.probe import READ, Probe
from tests.real.processes import wait_until

BACK_OFF_S: Final = 330.0
"""kubelet's longest wait until it starts again what ended, 300 s, and some more."""


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


def settle(node: Node) -> None:
    """Until every static pod runs again; controllers may be in back-off after the API was away."""
    wait_until(
        lambda: all(len(containers(node, name)) == 1 for name in STATIC_PODS), "all pods run", seconds=BACK_OFF_S
    )
    node.wait_ready()


def measured(node: Node, probe: Probe, act: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], float]:
    """What was done, and how long reads were away for it."""
    before = len(probe.away(READ))
    document = act()
    wait_until(probe.answers, "the API answers from outside", seconds=60.0)
    found = probe.away(READ)[before:]
    away = (found[-1].ended or 0.0) - found[0].began if found else 0.0
    print(f"real: {document['what']}: said {document['price']!r}, seen away {away:.1f} s", flush=True)
    return document, away
