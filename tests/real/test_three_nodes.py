"""Three control-plane nodes are changed one after the other, and whoever asks through the address in front goes on.

Real: etcd of three members, three API servers behind an haproxy, and the way to all of them by ssh.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import pytest

from tests.real import releases
from tests.real.client import Client
from tests.real.lan import Lan
from tests.real.node import MANIFESTS, Node
from tests.real.probe import READ, READY, Away, Probe
from tests.real.processes import wait_until
from tests.real.rollouts import BACK_OFF_S, settle
from tests.real.three_nodes import ThreeNodes
from tests.real.workspace import Unavailable

pytestmark = pytest.mark.long
TRIES: Final = 4
"""What a client that tries again once a second may need."""


@pytest.fixture(scope="module")
def three(lan: Lan) -> Iterator[ThreeNodes]:
    try:
        running = ThreeNodes(lan, release=releases.GATING)
        running.start()
    except Unavailable as reason:
        releases.cannot(reason)
    yield running
    running.close()


@pytest.fixture
def unchanged(three: ThreeNodes) -> Iterator[None]:
    """At the end every file of every node is what it was, and all of it runs."""
    before = {name: node.files("/etc/kubernetes") for name, node in three.nodes.items()}
    yield
    for name, node in three.nodes.items():
        assert node.files("/etc/kubernetes") == before[name], f"{name}: byte for byte, owner and mode too"
        assert "node.sh" not in node.run("ps", "-eo", "args").stdout, "no watcher is left"
    whole_again(three)


class Caller:
    """Asks through the address in front, ten times a second, and tries again as clients do.

    Attributes:
        asked: requests.
        again: tries beyond the first of each.
        lost: requests that had no answer after `TRIES`, and what came instead.
    """

    def __init__(self, lan: Lan, client: Client) -> None:
        self.asked = self.again = 0
        self.lost: list[str] = []
        self._lan, self._client = lan, client
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Caller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        self._lan.enter()
        while not self._ends.wait(0.1):
            self.asked += 1
            words = []
            for _ in range(TRIES):
                code = self._client.code(READ)
                if code == 200:
                    break
                words.append(str(code))
                time.sleep(1.0)
            else:
                self.lost.append(" ".join(words))
            self.again += min(len(words), TRIES - 1)


@contextmanager
def watched(three: ThreeNodes, clients: dict[str, Client], path: str) -> Iterator[tuple[Caller, dict[str, Probe]]]:
    with ExitStack() as stack:
        caller = stack.enter_context(Caller(three.lan, three.local_front()))
        probes = {name: stack.enter_context(Probe(three.lan, client, (path,))) for name, client in clients.items()}
        yield caller, probes
        for name, probe in probes.items():
            print(f"real: {name}: {probe}", flush=True)
        print(f"real: in front: {caller.asked} asked, {caller.again} tried again", flush=True)


def run(three: ThreeNodes, *arguments: str) -> subprocess.CompletedProcess[str]:
    return three.first.program(*arguments, *three.hosts, check=False, timeout=1200.0)


def change(three: ThreeNodes, *arguments: str) -> list[dict[str, Any]]:
    """What was done, a document a node; a back-off that was told is waited for."""
    deadline = time.monotonic() + BACK_OFF_S
    while True:
        done = run(three, "sampling", *arguments, "--yes", "--json")
        later = re.search(r"in about (\d+) s", done.stderr + done.stdout)
        if done.returncode != 0 and later and time.monotonic() < deadline:
            time.sleep(min(float(later[1]), 60.0))
            continue
        assert done.returncode == 0, done.stdout + done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


def in_turn(probes: dict[str, Probe], path: str) -> list[str]:
    """Whose turn it was, in order; nobody was away while another was."""
    found: list[tuple[str, Away]] = [(name, away) for name, probe in probes.items() for away in probe.away(path)]
    found.sort(key=lambda one: one[1].began)
    order: list[str] = []
    for (name, away), (following, later) in itertools.pairwise(found):
        assert away.ended is not None
        assert name == following or away.ended <= later.began, f"{name} and {following} were away at once"
    for name, _ in found:
        if order[-1:] != [name]:
            order.append(name)
    return order


def whole_again(three: ThreeNodes) -> None:
    for node in three.nodes.values():
        settle(node)
    wait_until(three.whole, "etcd is whole", seconds=300.0)


def api_servers(three: ThreeNodes) -> dict[str, Client]:
    return {name: node.local_client() for name, node in three.nodes.items()}


@contextmanager
def without(node: Node, pod: str) -> Iterator[None]:
    """A node one of whose static pods is gone: somebody took its manifest away."""
    manifest, aside = node.path(f"{MANIFESTS}/{pod}.yaml"), node.path(f"/etc/kubernetes/tmp/{pod}.aside")
    manifest.rename(aside)
    try:
        wait_until(lambda: not _runs(node, pod), f"{pod} of {node.name} is gone", seconds=120.0)
        yield
    finally:
        aside.rename(manifest)


def _runs(node: Node, pod: str) -> bool:
    return bool(json.loads(node.crictl("ps", "--name", f"^{pod}$", "-o", "json"))["containers"])


def outcomes(documents: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(str(one["node"]), str(one["outcome"])) for one in documents]


@pytest.mark.usefixtures("unchanged")
def test_api_servers_one_after_the_other(three: ThreeNodes) -> None:
    names = list(three.nodes)
    done = [(name, "done") for name in names]
    with watched(three, api_servers(three), READY) as (caller, probes):
        assert outcomes(change(three, "arm")) == done
        assert in_turn(probes, READY) == names
        whole_again(three)
        assert outcomes(change(three, "set", "100%")) == done
        whole_again(three)
        assert outcomes(change(three, "off")) == done
        in_turn(probes, READY)
    assert caller.lost == []
    assert caller.asked > 100


@pytest.mark.usefixtures("unchanged")
def test_members_of_etcd_one_at_a_time(three: ThreeNodes) -> None:
    names = list(three.nodes)
    members = {name: three.local_etcd(name) for name in names}
    with watched(three, members, "/health") as (caller, probes):
        assert outcomes(change(three, "arm", "--component", "etcd")) == [(name, "done") for name in names]
        assert in_turn(probes, "/health") == names
        whole_again(three)
        assert outcomes(change(three, "off", "--component", "etcd")) == [(name, "done") for name in names]
        in_turn(probes, "/health")
    assert caller.lost == []


@pytest.mark.usefixtures("unchanged")
def test_etcd_is_left_alone_while_a_member_is_gone(three: ThreeNodes) -> None:
    first = three.first.files("/etc/kubernetes")
    with without(three.nodes["cp-3"], "etcd"):
        told = run(three, "sampling", "arm", "--component", "etcd", "--yes")
        assert told.returncode == 1, told.stdout
        assert "cp-3" in told.stdout + told.stderr or "192.0.2.4" in told.stdout + told.stderr
        assert three.first.files("/etc/kubernetes") == first
        assert _runs(three.first, "etcd")


@pytest.mark.usefixtures("unchanged")
def test_no_second_api_server_is_taken_away(three: ThreeNodes) -> None:
    first = three.first.files("/etc/kubernetes")
    with without(three.nodes["cp-2"], "kube-apiserver"), watched(three, api_servers(three), READY) as (caller, probes):
        told = run(three, "sampling", "arm", "--yes")
        assert told.returncode == 1, told.stdout
        assert "cp-2" in told.stdout + told.stderr
        assert three.first.files("/etc/kubernetes") == first
        assert probes["cp-1"].away(READY) == []
    assert caller.lost == []
