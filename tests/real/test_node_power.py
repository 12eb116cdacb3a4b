"""A node whose plug is pulled comes back from its disk: what later tests of changes in the middle stand on."""

from __future__ import annotations

import time

from tests.real.node import Node
from tests.real.rollouts import settle, status


def test_it_comes_back_from_its_disk(node: Node) -> None:
    marker = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "marker"}, "data": {"a": "b"}}
    path = "/api/v1/namespaces/default/configmaps"
    assert node.client().request("POST", path, marker).code == 201
    node.path("/var/lib/k8s-trace-tui-rollouts/marker").write_text("kept")
    files = node.files("/etc/kubernetes")
    began = time.monotonic()
    node.power_off()
    assert node.client().code("/readyz", timeout=1.0) == 0
    node.power_on()
    settle(node)
    print(f"real: back after {time.monotonic() - began:.1f} s", flush=True)
    assert node.files("/etc/kubernetes") == files
    assert node.path("/var/lib/k8s-trace-tui-rollouts/marker").read_text() == "kept"
    assert node.client().request("GET", f"{path}/marker").json()["data"] == {"a": "b"}
    assert status(node)["state"] == "off"
    node.path("/var/lib/k8s-trace-tui-rollouts/marker").unlink()
    assert node.client().request("DELETE", f"{path}/marker").code == 200
