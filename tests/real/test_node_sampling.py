"""Tracing of a real kube-apiserver is switched on a real node: what the plan says is what is seen from outside."""

from __future__ import annotations

import json

import pytest

from tests.real.node import MANIFESTS, Node
from tests.real.probe import READ, READY, Probe
from tests.real.processes import wait_until
from tests.real.rollouts import change, containers, measured, said, settle, status

SLACK_S = 20.0
"""On a busy machine everything may take this much longer than it said."""


@pytest.mark.usefixtures("node_receiver")
def test_off_to_armed_to_all_to_off(node: Node, probe: Probe) -> None:
    files = node.files("/etc/kubernetes")
    assert status(node)["state"] == "off"

    armed, away = measured(node, probe, lambda: change(node, "arm"))
    assert (armed["outcome"], armed["trigger"]) == ("done", "manifest")
    low, high = said(armed["price"])
    assert low - SLACK_S < away < high + SLACK_S
    now = status(node)
    assert (now["state"], now["per_million"]) == ("armed", 0)
    assert len(containers(node, "kube-apiserver")) == 1
    settle(node)

    uid = containers(node, "kube-apiserver")[0]["podSandboxId"]
    rated, away = measured(node, probe, lambda: change(node, "set", "100%"))
    assert (rated["outcome"], rated["trigger"]) == ("done", "stop")
    assert 0.0 < away < said(rated["price"])[1] + SLACK_S
    assert rated["spans_arrive"] is True
    (running,) = containers(node, "kube-apiserver")
    assert (running["podSandboxId"], running["metadata"]["attempt"]) == (uid, 1), "the same pod, its container again"
    assert status(node)["state"] == "sampling"
    # a request that the new process served, whole and with etcd's part of it asked for
    marker = f"after-the-change/{running['id'][:8]}"
    answer = node.client().request("GET", READ, agent=marker)
    assert answer.code == 200

    def seen() -> bool:
        told = node.program("traces", "--json", f"audit={answer.audit_id}").stdout
        return [json.loads(line)["request"]["user_agent"] for line in told.splitlines()] == [marker]

    wait_until(seen, "the new process exports", seconds=60.0)
    settle(node)

    off, away = measured(node, probe, lambda: change(node, "off"))
    assert (off["outcome"], off["trigger"]) == ("done", "manifest")
    low, high = said(off["price"])
    assert low - SLACK_S < away < high + SLACK_S
    assert status(node)["state"] == "off"
    assert node.files("/etc/kubernetes") == files, "byte for byte, owner and mode too"
    assert probe.asked(READ) > 100
    assert probe.away(READY)
    assert "node.sh" not in node.run("ps", "-eo", "args").stdout, "no watcher is left"
    settle(node)


def test_a_dry_run_changes_nothing(node: Node, probe: Probe) -> None:
    files = node.files("/etc/kubernetes")
    (before,) = containers(node, "kube-apiserver")
    told = node.program("sampling", "arm", "--dry-run").stdout
    assert f"{MANIFESTS}/kube-apiserver.yaml" in told
    assert "--tracing-config-file=" in told
    assert "+endpoint: 127.0.0.1:4317" in told
    told = node.program("sampling", "arm", "--dry-run", "--listen", "127.0.0.1:45319").stdout
    assert "+endpoint: 127.0.0.1:45319" in told, "where a receiver is to listen"
    assert node.files("/etc/kubernetes") == files
    assert containers(node, "kube-apiserver")[0]["id"] == before["id"]
    assert probe.away(READ) == []
