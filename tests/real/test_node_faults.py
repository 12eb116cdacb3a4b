"""Faults of a real node: kubelet is gone, and a tracing file keeps the API server down."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.real.lan import Lan
from tests.real.node import MANIFESTS, Node
from tests.real.probe import READ, Probe
from tests.real.processes import wait_until
from tests.real.rollouts import change, containers, settle, status

pytestmark = pytest.mark.long  # back-offs of a real kubelet are waited for, some ten minutes in all
MANIFEST = f"{MANIFESTS}/kube-apiserver.yaml"
TRACING_FILE = "/etc/kubernetes/k8s-trace-tui/apiserver.yaml"


@pytest.fixture
def without_kubelet(node: Node) -> Iterator[None]:
    """kubelet does not run on the node; afterwards it does."""
    node.kubelet.stop()
    yield
    if not node.kubelet.running:
        node.kubelet.start()
    node.wait_ready()


def names_kubelet(said: str) -> bool:
    """It is said that kubelet does not run, not merely listed."""
    return re.search(r"kubelet[^\n]*(does not run|is not running|does not answer)", said) is not None


def refused_without_kubelet(node: Node, probe: Probe, *arguments: str) -> None:
    """A change is refused by name before anything was written or stopped: nobody would start it again."""
    files, written = node.files("/etc/kubernetes"), node.path(MANIFEST).stat()
    (before,) = containers(node, "kube-apiserver")
    done = node.program("sampling", *arguments, "--yes", check=False)
    said = done.stdout + done.stderr
    wait_until(probe.answers, "the API answers")
    assert done.returncode != 0, said
    assert names_kubelet(said), said
    assert "Traceback" not in said
    assert node.files("/etc/kubernetes") == files
    now = node.path(MANIFEST).stat()
    assert (now.st_ino, now.st_mtime_ns) == (written.st_ino, written.st_mtime_ns), "not even written and put back"
    assert containers(node, "kube-apiserver")[0]["id"] == before["id"]
    assert probe.away(READ) == []


@pytest.mark.usefixtures("without_kubelet")
def test_without_kubelet_no_manifest_is_written(node: Node, probe: Probe) -> None:
    refused_without_kubelet(node, probe, "arm")


@pytest.mark.usefixtures("without_kubelet")
def test_without_kubelet_status_and_doctor_say_so(node: Node) -> None:
    told = node.program("sampling", "status", check=False)
    assert names_kubelet(told.stdout + told.stderr), told.stdout
    told = node.program("doctor", check=False)
    assert told.returncode == 1
    assert names_kubelet(told.stdout + told.stderr), told.stdout


@pytest.fixture
def armed(node: Node, node_receiver: None) -> Iterator[None]:
    """Tracing is armed; afterwards it is as it was before."""
    files = node.files("/etc/kubernetes")
    change(node, "arm")
    settle(node)
    yield
    if not node.kubelet.running:
        node.kubelet.start()
    if node.files("/etc/kubernetes") != files:
        wait_until(
            lambda: node.program("sampling", "revert", "--force", "--yes", check=False).returncode == 0, "revert"
        )
    settle(node)
    assert node.files("/etc/kubernetes") == files


@pytest.mark.usefixtures("armed")
def test_without_kubelet_no_container_is_stopped(node: Node, lan: Lan) -> None:
    node.kubelet.stop()
    with Probe(lan, node.local_client()) as probe:
        refused_without_kubelet(node, probe, "set", "100%")


@pytest.mark.usefixtures("armed")
def test_what_does_not_run_does_not_sample(node: Node) -> None:
    """kubelet is gone, and then the API server."""
    change(node, "set", "100%")
    settle(node)
    node.kubelet.stop()
    (running,) = containers(node, "kube-apiserver")
    node.crictl("stop", "-t", "2", running["id"])
    told = node.program("sampling", "status", check=False)
    assert names_kubelet(told.stdout + told.stderr), told.stdout
    assert status(node)["state"] != "sampling"
    told = node.program("doctor", check=False)
    assert told.returncode == 1
    assert names_kubelet(told.stdout + told.stderr), told.stdout


@pytest.mark.usefixtures("armed")
@pytest.mark.parametrize("repair", [("off",), ("set", "0")], ids=["off", "set"])
def test_a_file_that_keeps_the_api_server_down_is_mended(node: Node, repair: tuple[str, ...]) -> None:
    """Down because of what the program can mend: every action that mends it goes ahead, and says so."""
    good = node.path(TRACING_FILE).read_bytes()
    lines = good.splitlines(keepends=True)
    node.path(TRACING_FILE).write_bytes(b"".join([*lines[:2], b"bogus: 1\n", *lines[2:]]))
    (running,) = containers(node, "kube-apiserver")
    node.crictl("stop", "-t", "2", running["id"])

    def crashes() -> bool:
        return status(node)["state"] == "broken" and not containers(node, "kube-apiserver")

    wait_until(crashes, "the API server crashes")
    began = time.monotonic()
    done = node.program("sampling", *repair, "--yes", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    node.wait_ready()
    print(f"real: {repair[0]} mended it in {time.monotonic() - began:.1f} s", flush=True)
    if repair == ("off",):
        assert status(node)["state"] == "off"
        assert not node.path(TRACING_FILE).exists()
    else:
        assert status(node)["state"] == "armed"
        assert node.path(TRACING_FILE).read_bytes() == good
