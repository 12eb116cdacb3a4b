"""`trace -- kubectl ...` on a real node, armed at rate 0: every request of the release's own kubectl comes whole, and
the command is what it would be without us."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.real import images
from tests.real.node import HOME, Node
from tests.real.processes import wait_until
from tests.real.rollouts import change, settle

POD = "shell"
ENVIRONMENT = {"KUBECONFIG": "/etc/kubernetes/super-admin.conf"}
TOLD = f"{HOME}/told.jsonl"
RUNS = 10
MANIFEST = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": POD, "namespace": "default"},
    "spec": {
        "hostNetwork": True,
        "terminationGracePeriodSeconds": 0,
        "containers": [
            {
                "name": "main",
                "image": images.SHELL,
                "imagePullPolicy": "Never",
                "command": ["sh", "-c", "while :; do echo tick; sleep 1; done"],
            }
        ],
    },
}
MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "traced", "namespace": "default"}}


@dataclass(frozen=True)
class Traced:
    """A command that was traced: its own exit code and output, when its verdicts were there by the machine's clock, and
    a document a request."""

    code: int
    output: str
    ended: float
    requests: list[dict[str, Any]]

    def request(self, verb: str, resource: str, subresource: str = "") -> dict[str, Any]:
        """The one document of such a request, which came whole."""
        wanted = {"verb": verb, "resource": resource, "subresource": subresource}
        found = [
            one
            for one in self.requests
            if one["trace"] and {name: one["trace"]["request"][name] or "" for name in wanted} == wanted
        ]
        assert len(found) == 1, [(one["method"], one["target"], one["why"]) for one in self.requests]
        return found[0]


@pytest.fixture(scope="module")
def armed(node: Node) -> Iterator[Node]:
    """The node, tracing nothing but what it is asked to, with a receiver, and a pod with a shell."""
    receiver = node.process("receiver", [sys.executable, "-m", "tui.cli", "receive"])
    receiver.start()
    wait_until(lambda: b"listening" in receiver.log.read_bytes(), "the receiver listens", by=receiver)
    change(node, "arm")
    settle(node)
    client = node.client()
    wait_until(
        lambda: client.code("/api/v1/namespaces/default/serviceaccounts/default") == 200, "there is a service account"
    )
    node.kubectl("apply", "-f", "-", stdin=json.dumps(MANIFEST))
    node.kubectl("wait", "--for=condition=Ready", f"pod/{POD}", "--timeout=120s")
    yield node
    node.kubectl("delete", "pod", POD, "--wait=false")
    change(node, "off")
    receiver.stop()
    node.run("rm", "-rf", f"{HOME}/.local/state/k8s-trace-tui", TOLD)
    settle(node)


def trace(node: Node, *command: str, stdin: str | None = None) -> Traced:
    """`trace -- COMMAND` on the node as system:masters."""
    done = node.run(
        sys.executable, "-m", "tui.cli", "trace", "--json", TOLD, "--", *command,
        stdin=stdin, environment=ENVIRONMENT, check=False,
    )  # fmt: skip
    ended = time.time()
    told = node.path(TOLD).read_text().splitlines()
    node.path(TOLD).unlink()
    requests = [json.loads(line) for line in told]
    print(
        f"real: {' '.join(command)[:60]}: {len(requests)} requests, code {done.returncode}\n{done.stderr}", flush=True
    )
    assert "Traceback" not in done.stderr
    return Traced(done.returncode, done.stdout, ended, requests)


def comes_whole(one: dict[str, Any], name: str, code: int, *, etcd: bool = False) -> None:
    """What must hold of any request that asks etcd: it was traced because we asked for it, and read as it was made;
    that etcd's side is not there is said, unless etcd is armed, too."""
    request, shown = one["trace"]["request"], one["show"]
    assert (one["how"], one["code"], request["code"]) == ("forced", code, code)
    assert (request["name"] or one["trace"]["created"] or "") == name
    assert request["audit_id"] == one["audit_id"]
    assert request["user_agent"].startswith("kubectl/")
    assert one["lacking"] == (None if etcd else "etcd")
    assert ("etcd" in one["trace"]["services"]) is etcd
    assert sum(one["trace"]["phases"].values()) == one["trace"]["duration_ns"]
    assert shown["verdict"]


def test_get(armed: Node) -> None:
    told = trace(armed, "kubectl", "get", "pod", POD, "-o", "name")
    assert (told.code, told.output) == (0, f"pod/{POD}\n")
    comes_whole(told.request("get", "pods"), POD, 200)


def test_what_is_not_there(armed: Node) -> None:
    told = trace(armed, "kubectl", "get", "pod", "none")
    assert told.code == 1
    one = told.request("get", "pods")
    comes_whole(one, "none", 404)
    assert one["show"]["verdict"].startswith("Nothing remarkable: answered with 404")


def test_apply_and_delete(armed: Node) -> None:
    told = trace(armed, "kubectl", "apply", "-f", "-", stdin=json.dumps(MAP))
    assert (told.code, told.output) == (0, "configmap/traced created\n")
    one = told.request("create", "configmaps")
    comes_whole(one, "traced", 201)
    assert one["trace"]["created"] == "traced"

    again = trace(armed, "kubectl", "apply", "-f", "-", stdin=json.dumps({**MAP, "data": {"a": "b"}}))
    assert (again.code, again.output) == (0, "configmap/traced configured\n")
    comes_whole(again.request("patch", "configmaps"), "traced", 200)

    dry = trace(armed, "kubectl", "create", "configmap", "dry", "--dry-run=server", "-o", "name")
    assert (dry.code, dry.output) == (0, "configmap/dry\n")
    said = dry.request("create", "configmaps")["show"]["verdict"]
    assert said.startswith("A dry run of configmaps default/dry: nothing was stored.")

    gone = trace(armed, "kubectl", "delete", "configmap", "traced")
    assert (gone.code, gone.output.split(" from")[0].strip()) == (0, 'configmap "traced" deleted')
    comes_whole(gone.request("delete", "configmaps"), "traced", 200)


def test_logs(armed: Node) -> None:
    told = trace(armed, "kubectl", "logs", POD, "--tail=2")
    assert (told.code, told.output) == (0, "tick\ntick\n")
    one = told.request("get", "pods", "log")
    comes_whole(one, POD, 200)
    assert one["show"]["verdict"].startswith(("Nothing remarkable", "No part stands out", "The request took"))

    followed = trace(armed, "timeout", "3", "kubectl", "logs", "-f", POD, "--tail=1")
    assert followed.output.startswith("tick\ntick\n")
    assert followed.request("get", "pods", "log")["show"]["verdict"].startswith("A log that was followed for ")


def test_exec(armed: Node) -> None:
    told = trace(armed, "kubectl", "exec", "-i", POD, "--", "sh", "-c", "cat; exit 3", stdin="through and through\n")
    assert (told.code, told.output) == (3, "through and through\n")
    (one,) = [one for one in told.requests if "/exec?" in one["target"]]
    assert one["upgraded"]
    assert one["code"] == 101
    request = one["trace"]["request"]
    assert (request["resource"], request["subresource"], request["name"]) == ("pods", "exec", POD)
    assert one["show"]["verdict"].startswith("A command in a container, which ended after ")


def test_cp(armed: Node) -> None:
    content = "".join(f"line {number}\n" for number in range(50_000))
    armed.path(f"{HOME}/sent").write_text(content)
    there = trace(armed, "kubectl", "cp", f"{HOME}/sent", f"{POD}:/tmp/sent")
    assert there.code == 0
    back = trace(armed, "kubectl", "cp", f"{POD}:/tmp/sent", f"{HOME}/back")
    assert back.code == 0
    assert armed.path(f"{HOME}/back").read_text() == content
    for told in (there, back):
        upgraded = [one for one in told.requests if one["upgraded"]]
        assert upgraded
        assert all(one["trace"]["request"]["subresource"] == "exec" for one in upgraded)
    for name in ("sent", "back"):
        armed.path(f"{HOME}/{name}").unlink()


def test_port_forward(armed: Node) -> None:
    """kubelet's healthz, through the pod, which shares the node's network."""
    script = f"""
        kubectl port-forward pod/{POD} 18080:10248 >{HOME}/forward 2>&1 &
        until grep -q 'Forwarding from 127' {HOME}/forward; do sleep 0.1; done
        exec 3<>/dev/tcp/127.0.0.1/18080
        printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3
        cat <&3
        kill %1
        wait
    """
    told = trace(armed, "bash", "-c", script)
    armed.path(f"{HOME}/forward").unlink()
    assert told.output.endswith("ok")
    forwarded = [one for one in told.requests if "/portforward" in one["target"]]
    assert any(one["upgraded"] for one in forwarded)
    assert all(one["trace"]["request"]["subresource"] == "portforward" for one in forwarded if one["trace"])
    assert any(one["how"] == "forced" for one in forwarded)


def test_attach(armed: Node) -> None:
    told = trace(armed, "timeout", "4", "kubectl", "attach", POD)
    assert "tick" in told.output
    upgraded = [one for one in told.requests if one["upgraded"]]
    assert any(one["trace"] and one["trace"]["request"]["subresource"] == "attach" for one in upgraded)


@pytest.mark.long
def test_how_long_a_verdict_takes_after_the_commands_end(armed: Node) -> None:
    """Printed, not judged: an exporter sends every 5 s."""
    waited = []
    for _ in range(RUNS):
        script = f"kubectl get pod {POD} >/dev/null; date +%s.%N >{HOME}/ended"
        told = trace(armed, "sh", "-c", script)
        waited.append(told.ended - float(armed.path(f"{HOME}/ended").read_text()))
        comes_whole(told.request("get", "pods"), POD, 200)
    armed.path(f"{HOME}/ended").unlink()
    seconds = ", ".join(f"{one:.1f}" for one in sorted(waited))
    print(f"real: {armed.release}: from the end of kubectl to its verdict: {seconds} s", flush=True)


@pytest.mark.long
def test_etcds_side_comes_when_it_is_armed_too(armed: Node) -> None:
    change(armed, "arm", "--component", "etcd")
    settle(armed)
    comes_whole(trace(armed, "kubectl", "get", "pod", POD).request("get", "pods"), POD, 200, etcd=True)
    change(armed, "off", "--component", "etcd")
    settle(armed)
