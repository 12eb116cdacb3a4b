"""A node is changed through the API of its cluster alone, from this machine, by a pod of ours that is gone afterwards;
and whoever may not do that is told which right is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real import images
from tests.real.certificates import Kubeconfig
from tests.real.lan import Forward, Lan
from tests.real.node import ADMIN, NOBODY, Node
from tests.real.probe import READ, Probe
from tests.real.processes import wait_until
from tests.real.rollouts import nothing_stray, settle, status

Run = Callable[..., "subprocess.CompletedProcess[str]"]
PODS = "/api/v1/namespaces/kube-system/pods?labelSelector=app.kubernetes.io/name=k8s-trace-tui-node"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
FEW = "few-rights"
"""A role: nodes and pods may be read, pods made and removed, and nothing run in them."""


@pytest.fixture
def elsewhere(node: Node, lan: Lan, tmp_path: Path) -> Iterator[Run]:
    """Runs the program on this machine, which has nothing of the node but a kubeconfig."""
    forward = Forward(lan, (node.address, 6443))
    cluster = node.cluster
    kubeconfig = Kubeconfig(
        f"https://127.0.0.1:{forward.port}", cluster.authority.pair.certificate, cluster.users
    ).write(tmp_path / "kubeconfig")
    environment = {
        **os.environ,
        "KUBECONFIG": str(kubeconfig),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }

    def run(*arguments: str, user: str = ADMIN) -> subprocess.CompletedProcess[str]:
        where = ["--context", f"{user}@kubernetes", "--node-image", images.SHELL]
        return subprocess.run(
            [sys.executable, "-m", "tui.cli", "sampling", *arguments, *where, "--db", str(tmp_path / "spans.db")],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    yield run
    forward.close()


def pods(node: Node) -> list[str]:
    """The pods of ours that are there."""
    return [one["metadata"]["name"] for one in node.client().request("GET", PODS).json()["items"]]


def no_pod(node: Node) -> None:
    """None is left; kubelet takes a moment."""
    wait_until(lambda: pods(node) == [], "the pod of ours is gone", seconds=60.0)


@pytest.mark.long
def test_by_a_pod_of_ours(node: Node, elsewhere: Run) -> None:
    files = node.files("/etc/kubernetes")

    def change(*arguments: str) -> dict[str, Any]:
        done = elsewhere(*arguments, "--yes", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "A privileged pod of ours" in done.stderr
        (document,) = [json.loads(line) for line in done.stdout.splitlines()]
        assert document["outcome"] == "done"
        no_pod(node)
        settle(node)
        nothing_stray(node)
        return dict(document)

    assert change("arm")["trigger"] == "manifest"
    assert status(node)["state"] == "armed"
    assert change("set", "1%")["trigger"] == "stop"
    assert (status(node)["state"], status(node)["per_million"]) == ("sampling", 10_000)
    change("off")
    assert node.files("/etc/kubernetes") == files
    change("arm")
    assert status(node)["state"] == "armed"
    change("revert")
    assert status(node)["state"] == "off"
    assert node.files("/etc/kubernetes") == files


def test_read_without_a_pod(node: Node, elsewhere: Run) -> None:
    done = elsewhere("status", "--json")
    assert done.returncode == 0, done.stderr
    states = {one["component"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert states["apiserver"]["state"] == "off"
    assert states["apiserver"]["version"] == node.version
    assert pods(node) == []


@pytest.fixture
def few_rights(node: Node) -> Iterator[None]:
    client, group = node.client(), {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "devs"}
    rules = [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "create", "delete"]},
    ]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": FEW}}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": FEW},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": FEW},
        "subjects": [group],
    }
    assert client.request("POST", f"{RBAC}/clusterroles", {**role, "rules": rules}).code == 201
    assert client.request("POST", f"{RBAC}/clusterrolebindings", binding).code == 201
    wait_until(lambda: node.client(NOBODY).code("/api/v1/nodes") == 200, "the role is known")
    yield
    for kind in ("clusterrolebindings", "clusterroles"):
        client.request("DELETE", f"{RBAC}/{kind}/{FEW}")
    wait_until(lambda: node.client(NOBODY).code("/api/v1/nodes") == 403, "the role is gone")


def refused(node: Node, probe: Probe, elsewhere: Run, *words: str) -> None:
    """`arm` as somebody is refused in a sentence, and nothing was changed or left."""
    files = node.files("/etc/kubernetes")
    done = elsewhere("arm", "--yes", user=NOBODY)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert pods(node) == []
    assert node.files("/etc/kubernetes") == files
    assert probe.away(READ) == []


@pytest.mark.usefixtures("few_rights")
def test_with_few_rights(node: Node, probe: Probe, elsewhere: Run) -> None:
    missing = "alice@kubernetes must allow create pods/exec, get pods/exec in namespace kube-system"
    refused(node, probe, elsewhere, missing, "--host ssh://")


def test_with_no_right_at_all(node: Node, probe: Probe, elsewhere: Run) -> None:
    refused(node, probe, elsewhere, "alice@kubernetes does not allow it", 'cannot list resource "nodes"')
