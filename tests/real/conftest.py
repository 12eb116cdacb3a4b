"""Fixtures of a real control plane. Everything here skips, in one sentence, unless $K8S_TRACE_TUI_REAL names a folder.

They run in one process, not on the workers of a parallel run: a control plane fills a small machine by itself.
`python -m tests.real test` builds first and then runs them; `-m long` selects those that do not gate.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.ports import free_port
from tests.live_receiver import LiveReceiver, start_receiver
from tests.real import node as nodes
from tests.real import releases
from tests.real.lan import Lan
from tests.real.node import Node
from tests.real.plain import Plain
from tests.real.probe import Probe
from tests.real.processes import wait_until
from tests.real.workspace import Unavailable

_WHY = "test_what_it_needs.py"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes too long to gate; `python -m tests.real all` runs it")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Without a folder, or beside others, only the one that says why."""
    if collection_path.suffix == ".py" and collection_path.name != _WHY and releases.why_not():
        return True
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "long" in (config.option.markexpr or ""):
        return
    own = Path(__file__).parent
    long = [item for item in items if own in item.path.parents and item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "plain_release" in metafunc.fixturenames:
        metafunc.parametrize("plain_release", releases.plain(), scope="module", indirect=True)
    if "node_release" in metafunc.fixturenames:
        metafunc.parametrize("node_release", releases.node(), scope="session", indirect=True)


@pytest.fixture(scope="module")
def plain_release(request: pytest.FixtureRequest) -> str:
    """The release of the plain control plane."""
    return str(request.param)


@pytest.fixture(scope="session")
def node_release(request: pytest.FixtureRequest) -> str:
    """The release of the node."""
    return str(request.param)


@pytest.fixture(scope="session")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveReceiver]:
    """The receiver that plain control planes export to."""
    live = start_receiver(tmp_path_factory.mktemp("collector") / "spans.db", [f"plain=127.0.0.1:{free_port()}"])
    yield live
    live.kill()


@pytest.fixture(scope="module")
def plain(plain_release: str, collector: LiveReceiver) -> Iterator[Plain]:
    """etcd and an API server of a release, every request of theirs traced to `collector`. It is up in seconds and gone
    with its module, so that no node has to share the machine with it."""
    try:
        running = Plain(plain_release, collector.address)
    except Unavailable as reason:
        releases.cannot(reason)
    running.start()
    yield running
    running.close()


@pytest.fixture(scope="session")
def lan() -> Iterator[Lan]:
    """The network that nodes hang on."""
    try:
        nodes.check()
        network = Lan()
    except Unavailable as reason:
        releases.cannot(reason)
    yield network
    network.close()


@pytest.fixture(scope="session")
def node(node_release: str, lan: Lan) -> Iterator[Node]:
    """A control-plane node of a release. Tests leave it as they found it: nothing of ours on it, and ready."""
    try:
        running = Node(lan, release=node_release)
        running.start()
    except Unavailable as reason:
        releases.cannot(reason)
    yield running
    running.close()


@pytest.fixture
def node_receiver(node: Node) -> Iterator[None]:
    """A receiver on the node, at the address that is written where none is named."""
    process = node.process("receiver", [sys.executable, "-m", "tui.cli", "receive"])
    process.start()
    wait_until(lambda: b"listening" in process.log.read_bytes(), "the receiver listens", by=process)
    yield
    process.stop()
    node.run("rm", "-rf", f"{nodes.HOME}/.local/state/k8s-trace-tui")


@pytest.fixture
def probe(node: Node, lan: Lan) -> Iterator[Probe]:
    """Asks the node's API ten times a second from outside."""
    with Probe(lan, node.local_client()) as asking:
        yield asking
        print(f"real: {os.environ.get('PYTEST_CURRENT_TEST', '').split(' ')[0]}: {asking}", flush=True)
