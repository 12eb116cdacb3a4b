"""`trace -- kubectl` on a real node: nothing is lost to a DNS that does not answer, and discovery is kept."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import pytest

from tests.real.node import Node
from tests.real.rollouts import change, settle

SILENT = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dns:
    dns.bind(("127.0.0.1", 53))
    print("silent", flush=True)
    while True:
        dns.recv(4096)
"""
"""A DNS server that takes questions and answers none, where the node's resolver looks for one."""


@pytest.fixture
def armed_by_name(node: Node, node_receiver: None) -> Iterator[None]:
    """Tracing goes to `localhost`, and the DNS is dead from before the API server's start."""
    silent = node.process("dns", [sys.executable, "-c", SILENT])
    silent.start()
    change(node, "arm", "--endpoint", "localhost:4317")
    settle(node)
    yield
    change(node, "off")
    silent.stop()
    settle(node)


@pytest.mark.long
@pytest.mark.usefixtures("armed_by_name")
def test_what_a_command_asked_is_traced_though_the_dns_is_dead(node: Node) -> None:
    environment = {"KUBECONFIG": "/etc/kubernetes/super-admin.conf"}
    command = (sys.executable, "-m", "tui.cli", "trace", "--wait", "30", "--", "kubectl", "get", "namespaces")
    first = node.run(*command, environment=environment, timeout=300.0)
    assert "The first spans to localhost:4317 may be lost" in first.stderr
    assert re.search(r"kubectl get namespaces: (\d+) requests \(\d+ of discovery\), \1 traced", first.stderr), (
        first.stderr
    )
    again = node.run(*command, environment=environment, timeout=300.0)
    assert "may be lost" not in again.stderr, "it has sent"
    assert "kubectl get namespaces: 1 request, 1 traced" in again.stderr, "discovery was kept"
    doctor = node.program("doctor", check=False)
    assert "a name that gRPC asks the node's DNS for" in " ".join(doctor.stdout.split())
