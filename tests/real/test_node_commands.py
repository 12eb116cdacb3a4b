"""`trace` on a real node with other commands, other callers and Ctrl-C: what comes whole, and what is left behind."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.real import build
from tests.real.certificates import Kubeconfig
from tests.real.node import HOME, Node
from tests.real.processes import wait_until
from tests.real.rollouts import change, settle

pytestmark = pytest.mark.long  # it arms and turns off, and each command's spans are waited for
PROGRAM = (sys.executable, "-m", "tui.cli")
BIN = Path(sys.executable).parent
"""Where the program lies as people run it, and kubectl's plugin beside it."""
TOLD = f"{HOME}/told.jsonl"
CONFIG = f"{HOME}/.config/k8s-trace-tui"
MASTER = "/etc/kubernetes/super-admin.conf"
ADMIN = "/etc/kubernetes/admin.conf"
IN_A_TERMINAL = """
import json, os, pty, select, signal, sys, time
until, command = sys.argv[1], sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(command[0], command)
seen, sent, deadline = b"", False, time.monotonic() + 120
while time.monotonic() < deadline:
    ready, _, _ = select.select([terminal], [], [], 1.0)
    try:
        data = os.read(terminal, 65536) if ready else None
    except OSError:
        break
    if data == b"":
        break
    seen += data or b""
    if not sent and until.encode() in seen:
        time.sleep(0.5)
        os.write(terminal, b"\\x03")
        sent = True
else:
    os.kill(pid, signal.SIGKILL)
_, status = os.waitpid(pid, 0)
print(json.dumps({"code": os.waitstatus_to_exitcode(status), "sent": sent, "seen": seen.decode(errors="replace")}))
"""
"""Runs a command in a terminal of its own, and presses Ctrl-C there once it has said something."""
WITH_PYTHON = """
from kubernetes import client, config
config.load_kube_config()
print([one.metadata.name for one in client.CoreV1Api().list_node().items])
"""


@pytest.fixture(scope="module")
def armed(node: Node) -> Iterator[Node]:
    """The node, tracing nothing but what it is asked to, with a receiver."""
    receiver = node.process("receiver", [*PROGRAM, "receive"])
    receiver.start()
    wait_until(lambda: b"listening" in receiver.log.read_bytes(), "the receiver listens", by=receiver)
    change(node, "arm")
    settle(node)
    yield node
    change(node, "off")
    receiver.stop()
    node.run("rm", "-rf", f"{HOME}/.local/state/k8s-trace-tui", TOLD)
    settle(node)


@dataclass(frozen=True)
class Told:
    """What `trace` said on standard error, its exit code, the command's output, and a document a request."""

    code: int
    output: str
    said: str
    requests: list[dict[str, Any]]


def trace(node: Node, *command: str, kubeconfig: str = MASTER, options: tuple[str, ...] = ()) -> Told:
    environment = {"KUBECONFIG": kubeconfig}
    done = node.run(
        *PROGRAM, "trace", "--json", TOLD, *options, "--", *command, environment=environment, check=False, timeout=300.0
    )
    assert "Traceback" not in done.stderr
    file = node.path(TOLD)
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return Told(done.returncode, done.stdout, done.stderr, [json.loads(line) for line in lines])


def forced(told: Told, verb: str, resource: str) -> dict[str, Any]:
    """The one such request, which came whole because it was asked for."""
    found = [
        one
        for one in told.requests
        if one["trace"] and (one["trace"]["request"]["verb"], one["trace"]["request"]["resource"]) == (verb, resource)
    ]
    assert len(found) == 1, told.said
    assert found[0]["how"] == "forced"
    return found[0]


def nothing_left(node: Node) -> None:
    """No kubeconfig of a command, no proxy, no process of ours but the receiver."""
    assert list(node.path("/tmp").glob("k8s-trace-tui-trace*")) == [], "the receiver's own is another"
    ours = [line for line in node.run("ps", "-eo", "args").stdout.splitlines() if "tui.cli trace" in line]
    assert ours == []
    listening = node.run("ss", "-H", "-ltnp").stdout
    held = [line for line in listening.splitlines() if '"python' in line and ":4317" not in line]
    assert held == []


# --- Ctrl-C --------------------------------------------------------------------------------------------------------
def in_a_terminal(node: Node, until: str, *command: str) -> dict[str, Any]:
    """How a command ended, and what it said, when Ctrl-C was pressed once it had said so."""
    done = node.run(
        sys.executable, "-c", IN_A_TERMINAL, until, *command, environment={"KUBECONFIG": MASTER}, timeout=200.0
    )
    told = dict(json.loads(done.stdout))
    assert told["sent"], told
    return told


def interrupted(node: Node, until: str, *command: str) -> dict[str, Any]:
    """The same of a traced command, and nothing is left of it."""
    told = in_a_terminal(node, until, *PROGRAM, "trace", "--", *command)
    assert "Traceback" not in told["seen"]
    nothing_left(node)
    return told


def test_ctrl_c_ends_a_watch(armed: Node) -> None:
    """It is kubectl's; what was asked until then is told, and the exit code is kubectl's own."""
    watch = ("kubectl", "get", "configmaps", "-A", "-w", "-o", "name")
    told = interrupted(armed, "kube-root-ca.crt", *watch)
    assert told["code"] == in_a_terminal(armed, "kube-root-ca.crt", *watch)["code"]
    assert re.search(r"kubectl get configmaps: \d+ requests?.*, [1-9]\d* traced", told["seen"]), told
    assert re.search(r"watch +configmaps", told["seen"]), told


def test_ctrl_c_ends_a_long_command(armed: Node) -> None:
    script = "kubectl get namespaces -o name; echo sleeping; sleep 100"
    told = interrupted(armed, "sleeping", "sh", "-c", script)
    assert told["code"] == 130, told
    assert re.search(r": \d+ requests?.*, [1-9]\d* traced", told["seen"]), told


def test_ctrl_c_ends_the_wait_for_spans(armed: Node) -> None:
    """The command is over: its code stays, and what has come is told."""
    told = interrupted(armed, "waiting for spans", "kubectl", "get", "namespaces", "-o", "name")
    assert told["code"] in (0, 130), told
    assert re.search(r"kubectl get namespaces: \d+ request", told["seen"]), told


# --- other commands --------------------------------------------------------------------------------------------------
def test_kubectls_plugin(armed: Node) -> None:
    environment = {"KUBECONFIG": MASTER, "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
    done = armed.run("kubectl", "trace-tui", "--", "get", "nodes", "-o", "name", environment=environment, timeout=200.0)
    assert done.stdout == f"node/{armed.name}\n"
    assert re.search(r"kubectl get nodes: \d+ requests?.*, [1-9]\d* traced", done.stderr), done.stderr
    nothing_left(armed)


def test_the_python_client(armed: Node) -> None:
    told = trace(armed, sys.executable, "-c", WITH_PYTHON)
    assert (told.code, told.output) == (0, f"['{armed.name}']\n")
    one = forced(told, "list", "nodes")
    assert one["trace"]["request"]["user_agent"].startswith("OpenAPI-Generator/")
    assert one["code"] == 200
    nothing_left(armed)


CHART = {
    "Chart.yaml": "apiVersion: v2\nname: small\nversion: 0.1.0\n",
    "templates/map.yaml": (
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-map\ndata:\n  a: b\n"
    ),
}


def test_helm(armed: Node) -> None:
    """Of its own module: install, and what it makes besides."""
    helm = build.build(["helm-3"])["helm-3"] / "helm"
    there = armed.path(f"{HOME}/helm")
    there.write_bytes(helm.read_bytes())
    there.chmod(0o755)
    for name, content in CHART.items():
        file = armed.path(f"{HOME}/small/{name}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    told = trace(armed, f"{HOME}/helm", "install", "first", f"{HOME}/small")
    assert told.code == 0, told.said
    assert "STATUS: deployed" in told.output
    made = forced(told, "create", "configmaps")
    assert made["trace"]["created"] == "first-map"
    assert made["trace"]["request"]["user_agent"].startswith("Helm/")
    assert forced(told, "create", "secrets")["trace"]["created"] == "sh.helm.release.v1.first.v1"
    gone = trace(armed, f"{HOME}/helm", "uninstall", "first")
    assert gone.code == 0, gone.said
    forced(gone, "delete", "configmaps")
    nothing_left(armed)
    armed.run("rm", "-rf", f"{HOME}/helm", f"{HOME}/small", f"{HOME}/.cache/helm", f"{HOME}/.config/helm")


# --- other callers ---------------------------------------------------------------------------------------------------
def test_an_identity_of_the_real_signer(armed: Node) -> None:
    """cluster-admin's requests are not traced at rate 0; with a certificate in system:monitoring, which the real signer
    made of the program's request, they are, and it is still cluster-admin."""
    command = ("kubectl", "get", "namespaces", "-o", "name")
    plain = trace(armed, *command, kubeconfig=ADMIN, options=("--wait", "1"))
    assert plain.code == 0
    assert not any(one["how"] == "forced" for one in plain.requests)
    assert "--issue-identity" in plain.said, plain.said
    given = armed.run(*PROGRAM, "trace", "--issue-identity", "--yes", environment={"KUBECONFIG": ADMIN}, timeout=200.0)
    assert "system:monitoring" in given.stderr
    requests = armed.client().request("GET", "/apis/certificates.k8s.io/v1/certificatesigningrequests").json()["items"]
    print(f"real: {len(requests)} requests for certificates are left", flush=True)
    told = trace(armed, *command, kubeconfig=ADMIN)
    assert told.code == 0
    assert "namespace/kube-system" in told.output
    assert forced(told, "list", "namespaces")["code"] == 200
    without = trace(armed, *command, kubeconfig=ADMIN, options=("--wait", "1", "--no-identity"))
    assert not any(one["how"] == "forced" for one in without.requests)
    armed.run("rm", "-rf", CONFIG)
    nothing_left(armed)


def test_who_may_not_have_one_is_told(armed: Node) -> None:
    """alice may not ask for a certificate, and her requests are hers: refused, and found only by the sampler."""
    kubeconfig = armed.path(f"{HOME}/alice.conf")
    users = {"alice": armed.cluster.users["alice"]}
    Kubeconfig(f"https://{armed.address}:6443", armed.cluster.authority.pair.certificate, users).write(kubeconfig)
    told = trace(armed, "kubectl", "get", "namespaces", kubeconfig=f"{HOME}/alice.conf", options=("--wait", "1"))
    assert told.code == 1
    assert told.requests[-1]["code"] == 403
    assert not any(one["how"] == "forced" for one in told.requests)
    asked = armed.run(
        *PROGRAM, "trace", "--issue-identity", "--yes",
        environment={"KUBECONFIG": f"{HOME}/alice.conf"}, check=False, timeout=200.0,
    )  # fmt: skip
    assert asked.returncode == 1
    assert "certificatesigningrequests" in asked.stderr, asked.stderr
    kubeconfig.unlink()
    nothing_left(armed)
