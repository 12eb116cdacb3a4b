"""A node with a real sshd is reached as an operator reaches it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.real import releases
from tests.real.node import Node
from tests.real.sshd import NodeSshd
from tests.real.workspace import Unavailable
from tui.clusters.model import Mode, Part
from tui.clusters.reach.ssh import SshHost
from tui.clusters.survey import survey


@pytest.fixture
def sshd(node: Node) -> Iterator[NodeSshd]:
    try:
        running = NodeSshd(node)
    except Unavailable as reason:
        releases.cannot(reason)
    yield running
    running.close()


def test_from_elsewhere(node: Node, sshd: NodeSshd) -> None:
    host = SshHost(sshd.url, config=sshd.config)
    try:
        (found,) = survey([host])
    finally:
        host.close()
    assert found.problem == ""
    assert found.is_called(node.name)
    state = found.state_of(Part.APISERVER)
    assert state is not None
    assert (state.mode, state.version) == (Mode.OFF, node.version)
    assert found.facts is not None
    assert "crictl" in found.facts.tools
    assert found.facts.manifests == tuple(
        sorted(path.name for path in node.path("/etc/kubernetes/manifests").iterdir())
    )


@pytest.mark.usefixtures("sshd")
def test_from_the_node_to_itself(node: Node) -> None:
    told = node.program("sampling", "status", "--json", "--host", f"ssh://root@{node.name}")
    states = {state["component"]: state for state in map(json.loads, told.stdout.splitlines())}
    assert states["apiserver"]["state"] == "off"
    assert states["apiserver"]["version"] == node.version
    assert states["etcd"]["version"].startswith(node.etcd_version)
    assert told.stderr == ""
