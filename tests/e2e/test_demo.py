"""The demo into a real receiver: what it acknowledges is what the command line tells."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from tests.conftest import StartReceiver


def slow_creates(traces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pods whose webhooks are slow, whole: the validating one tells its failure only after its caller left."""
    created = [trace for trace in traces if trace["request"] and trace["request"]["code"] == 201]
    return [trace for trace in created if trace["errors"] == 2 and trace["duration_ns"] > 2e9]


def test_demo_into_a_real_receiver(receiver: StartReceiver) -> None:
    """Everything that the demo is for has happened within seconds."""
    live = receiver()
    command = [sys.executable, "-m", "receiver.ingest.demo", live.address, "--seed", "3", "--rate", "60"]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        live.wait_for(lambda traces: bool(slow_creates(traces)))
        demo.terminate()
        said, _ = demo.communicate(timeout=15)
    finally:
        demo.kill()
    assert demo.returncode == 0
    traces = live.traces()
    spans = sum(trace["spans"] for trace in traces)
    assert spans == int(said.split()[0]) > 1000, "what was acknowledged is what is there"

    services = {service for trace in traces for service in trace["services"]}
    assert {"apiserver", "etcd", "kubelet", "containerd", "label-injector", "name-policy"} <= services
    assert len({trace["instance"] for trace in traces if trace["request"]}) == 2, "two API servers"
    requests = [trace["request"] for trace in traces if trace["request"]]
    assert {"get", "list", "create", "update", "patch", "watch"} >= {request["verb"] for request in requests}
    assert {200, 201, 403, 404, 409, 500} <= {request["code"] for request in requests}

    slow = slow_creates(traces)[0]
    assert slow["headline"] == "POST /api/v1/namespaces/{:namespace}/pods"
    (tree,) = live.show(slow["trace_id"])
    assert [root["name"] for root in tree["roots"]] == ["authentication"], "a privileged user's"
