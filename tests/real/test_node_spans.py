"""Spans of kubelet and containerd themselves, turned on by hand as their documentation says: a pod's start is one trace
of both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.real import images
from tests.real.node import Node
from tests.real.processes import wait_until
from tests.real.rollouts import forget_back_offs, settle
from tests.real.test_plain_reading import spans_of

CONFIG = "/var/lib/kubelet/config.yaml"
TRACING = "tracing: {endpoint: '127.0.0.1:4317', samplingRatePerMillion: 1000000}\n"
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "started", "namespace": "default"},
    "spec": {
        "hostNetwork": True,
        "terminationGracePeriodSeconds": 0,
        "containers": [
            {"name": "main", "image": images.SHELL, "imagePullPolicy": "Never", "command": ["sleep", "600"]}
        ],
    },
}


@pytest.fixture
def telling(node: Node, node_receiver: None) -> Iterator[None]:
    """kubelet and containerd send to the node's receiver; afterwards they are as they were."""
    config = node.path(CONFIG)
    before = config.read_bytes()
    traced = node.process(
        "containerd-traced",
        node.CONTAINERD,
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_SERVICE_NAME": "containerd",
            "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        },
    )
    node.containerd.stop()
    traced.start()
    wait_until(lambda: node.run("ctr", "version", check=False).returncode == 0, "containerd answers", by=traced)
    config.write_bytes(before + TRACING.encode())
    forget_back_offs(node)
    settle(node)
    yield
    traced.stop()
    node.start_containerd()
    config.write_bytes(before)
    forget_back_offs(node)
    settle(node)


@pytest.mark.long
@pytest.mark.usefixtures("telling")
def test_a_pods_start_is_one_trace(node: Node) -> None:
    told = node.program("sampling", "status", "--json").stdout
    states = {one["component"]: one for one in map(json.loads, told.splitlines())}
    assert (states["kubelet"]["state"], states["kubelet"]["per_million"]) == ("sampling", 1_000_000)
    assert states["kubelet"]["endpoint"] == "127.0.0.1:4317"
    client = node.client()
    wait_until(
        lambda: client.code("/api/v1/namespaces/default/serviceaccounts/default") == 200, "there is a service account"
    )
    node.kubectl("apply", "-f", "-", stdin=json.dumps(POD))
    node.kubectl("wait", "--for=condition=Ready", "pod/started", "--timeout=120s")
    found: list[dict[str, Any]] = []

    def both() -> bool:
        lines = node.program("traces", "--json", 'any(span="syncPod")').stdout.splitlines()
        traces = [json.loads(line) for line in lines]
        found[:] = [one for one in traces if {"kubelet", "containerd"} <= set(one["services"])]
        return any(_starts(node, one) for one in found)

    wait_until(both, "a trace of both", seconds=90.0)
    trace = next(one for one in found if _starts(node, one))
    (shown,) = [json.loads(line) for line in node.program("show", "--json", trace["trace_id"]).stdout.splitlines()]
    every = {one["span_id"]: one for one in spans_of(shown["roots"])}
    (sandbox,) = [
        one
        for one in every.values()
        if one["name"].endswith("runtime.v1.RuntimeService/RunPodSandbox") and one["kind"] == "server"
    ]
    assert sandbox["service"] == "containerd"
    call = every[sandbox["parent_id"]]
    assert (call["service"], call["kind"]) == ("kubelet", "client")
    assert shown["verdict"]
    print(f"real: a pod's start: {trace['spans']} spans, {shown['verdict']}", flush=True)
    node.kubectl("delete", "pod", "started", "--wait=true")


def _starts(node: Node, trace: dict[str, Any]) -> bool:
    told = node.program("show", "--json", trace["trace_id"]).stdout
    return "RunPodSandbox" in told and "StartContainer" in told
