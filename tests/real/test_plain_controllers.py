"""The plain control plane with its controllers does what they are there for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live_receiver import LiveReceiver
from tests.real import releases
from tests.real.plain import Plain
from tests.real.processes import wait_until
from tests.real.workspace import Unavailable


@pytest.fixture(scope="module")
def controlled(collector: LiveReceiver) -> Iterator[Plain]:
    try:
        running = Plain(releases.GATING, collector.address, controllers=True)
    except Unavailable as reason:
        releases.cannot(reason)
    running.start()
    yield running
    running.close()


def test_they_keep_accounts_and_look_for_nodes(controlled: Plain) -> None:
    """An account in every namespace; a pod for which there is no node."""
    client = controlled.client()
    made = controlled.kubectl("create", "namespace", "shop")
    assert made.returncode == 0, made.stderr
    account = "/api/v1/namespaces/shop/serviceaccounts/default"
    wait_until(lambda: client.code(account) == 200, "the namespace has its account")
    made = controlled.kubectl("-n", "shop", "run", "web", "--image=registry.example/busybox:1")
    assert made.returncode == 0, made.stderr

    def told() -> str:
        pod = client.request("GET", "/api/v1/namespaces/shop/pods/web").json()
        return " ".join(one.get("reason", "") for one in pod["status"].get("conditions", []))

    wait_until(lambda: "Unschedulable" in told(), "the scheduler looked at the pod")
    assert all(process.running for process in controlled.controllers)
