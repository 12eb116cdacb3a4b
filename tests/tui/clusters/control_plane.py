"""A small control plane in a directory: the pocket kubelet with an API server, a controller-manager and a scheduler."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.doubles.certificates import Authority
from tests.doubles.pocket_kubelet import Kubelets, Process
from tests.doubles.ports import free_port
from tests.doubles.shell_host import ShellHost
from tests.eventually import eventually
from tui.clusters import rollout
from tui.clusters.inspect import read_facts
from tui.clusters.model import FileChange, NodeFacts, NotYet, Part, Plan, Trigger, Wish

DOUBLES = Path(__file__).resolve().parents[2] / "doubles"
MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml"
TRACING = "/etc/kubernetes/k8s-trace-tui/apiserver.yaml"
PACE = 0.02
GRACE = 10
PATIENCE = 12
"""Programs start no faster because the clock runs faster; 4 where a test waits for a deadline."""

APISERVER = """\
# made by hand, keep
apiVersion: v1
kind: Pod
metadata:
  name: kube-apiserver
  namespace: kube-system
spec:
  containers:
  - command:
    - kube-apiserver
    - --secure-port={port}
    - --client-ca-file=/etc/kubernetes/pki/ca.crt
    - --tls-cert-file=/etc/kubernetes/pki/apiserver.crt
    - --tls-private-key-file=/etc/kubernetes/pki/apiserver.key
    name: kube-apiserver
    volumeMounts:
    - mountPath: /etc/kubernetes/pki
      name: pki
    image: registry.k8s.io/kube-apiserver:v1.36.2
    livenessProbe:
      httpGet: {{host: 127.0.0.1, path: /livez, port: {port}, scheme: HTTPS}}
  terminationGracePeriodSeconds: 10
  volumes:
  - hostPath:
      path: /etc/kubernetes/pki
      type: DirectoryOrCreate
    name: pki
"""
CONTROLLER = """\
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: kube-system
spec:
  containers:
  - command:
    - {name}
    name: {name}
"""


def tracing_file(rate: int, endpoint: str = "127.0.0.1:4317", extra: str = "") -> bytes:
    return (
        f"apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\nendpoint: {endpoint}\n"
        f"samplingRatePerMillion: {rate}\n{extra}"
    ).encode()


def traced(manifest: bytes) -> bytes:
    """The manifest with the flag, the mount and the volume."""
    text = manifest.decode()
    text = text.replace(
        "    name: kube-apiserver\n    volumeMounts:\n",
        f"    - --tracing-config-file={TRACING}\n    name: kube-apiserver\n    volumeMounts:\n"
        "    - mountPath: /etc/kubernetes/k8s-trace-tui\n      name: tracing\n      readOnly: true\n",
    )
    return (
        text
        + "  - hostPath:\n      path: /etc/kubernetes/k8s-trace-tui\n      type: DirectoryOrCreate\n    name: tracing\n"
    ).encode()


def untraced(manifest: bytes) -> bytes:
    """The manifest without what `traced` added."""
    text = manifest.decode().replace(f"    - --tracing-config-file={TRACING}\n", "")
    for mount in (
        "    - mountPath: /etc/kubernetes/k8s-trace-tui\n      name: tracing\n      readOnly: true\n",
        "  - hostPath:\n      path: /etc/kubernetes/k8s-trace-tui\n      type: DirectoryOrCreate\n    name: tracing\n",
    ):
        text = text.replace(mount, "")
    return text.encode()


@dataclass
class ControlPlane:
    """`host` runs scripts here; `environment` may be changed before a script runs."""

    root: Path
    port: int
    host: ShellHost
    kubelet: Process
    trust: ssl.SSLContext

    @property
    def manifest(self) -> Path:
        return self.root / MANIFEST[1:]

    @property
    def tracing(self) -> Path:
        return self.root / TRACING[1:]

    @property
    def faults(self) -> Path:
        return self.root / "run/pocket/faults"

    def spoil(self, name: str, whom: str = "0") -> None:
        (self.faults / name).write_text(whom)

    def files(self) -> dict[str, bytes]:
        """Every file below /etc, dot-files too."""
        found = (self.root / "etc").rglob("*")
        return {str(path.relative_to(self.root)): path.read_bytes() for path in found if path.is_file()}

    def status(self, path: str) -> int:
        secure = urllib.request.HTTPSHandler(context=self.trust)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), secure)
        try:
            with opener.open(f"https://127.0.0.1:{self.port}{path}", timeout=3) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def facts(self) -> NodeFacts:
        return read_facts(self.host, [TRACING])

    def ready(self) -> bool:
        if self.status("/livez") != 200 or self.status("/readyz") != 200:
            return False
        return self.running() == sorted(path.stem for path in self.manifest.parent.glob("*.yaml"))

    def cri(self) -> list[dict[str, str]]:
        """The containers as the runtime has them."""
        found: list[dict[str, str]] = []
        for path in (self.root / "run/pocket/cri").iterdir():
            with suppress(FileNotFoundError):
                found.append(dict(line.partition("=")[::2] for line in path.read_text().splitlines()))
        return found

    def running(self) -> list[str]:
        return sorted(one["name"] for one in self.cri() if one["state"] == "CONTAINER_RUNNING")

    def seen_kubelet(self) -> bool:
        """Whether the node's /proc shows a kubelet."""
        return any(path.parent.name != "2" for path in (self.root / "proc").glob("*/comm"))

    def stop_kubelet(self) -> None:
        """kubelet alone: what runs runs on."""
        self.kubelet.send_signal(signal.SIGUSR1)
        eventually(lambda: not self.seen_kubelet(), "kubelet does not end")

    def start_kubelet_again(self) -> None:
        self.kubelet.send_signal(signal.SIGUSR2)
        eventually(self.seen_kubelet, "kubelet does not start")

    def until_ready(self) -> None:
        eventually(self.ready, "the control plane is not ready")

    def arm(self, rate: int = 0, content: bytes | None = None) -> Plan:
        """Tracing is not there yet: file, flag and mount."""
        before = self.manifest.read_bytes()
        return self.plan(
            Trigger.MANIFEST,
            FileChange(TRACING, None, content or tracing_file(rate), 0o600, os.getuid(), os.getgid()),
            FileChange(MANIFEST, before, traced(before), 0o600, os.getuid(), os.getgid()),
        )

    def rate(self, rate: int, content: bytes | None = None) -> Plan:
        """Only the rate changes."""
        before = self.tracing.read_bytes()
        after = content or tracing_file(rate)
        return self.plan(Trigger.STOP, FileChange(TRACING, before, after, 0o600, os.getuid(), os.getgid()))

    def arm_again(self) -> Plan:
        """The file is written anew, and the pod is another one."""
        before, manifest = self.tracing.read_bytes(), self.manifest.read_bytes()
        again = manifest.replace(b"metadata:\n", b"metadata:\n  annotations: {again: again}\n", 1)
        return self.plan(
            Trigger.MANIFEST,
            FileChange(TRACING, before, tracing_file(0), 0o600, os.getuid(), os.getgid()),
            FileChange(MANIFEST, manifest, again, 0o600, os.getuid(), os.getgid()),
        )

    def plan(self, trigger: Trigger, *changes: FileChange) -> Plan:
        return Plan(
            node="cp-1",
            part=Part.APISERVER,
            changes=changes,
            trigger=trigger,
            diff="",
            price="",
            wish=Wish(Part.APISERVER, 0, name="arm"),
            manifest=MANIFEST,
            container="kube-apiserver",
            health=(f"https://127.0.0.1:{self.port}/livez", f"https://127.0.0.1:{self.port}/readyz"),
            grace_seconds=GRACE,
        )

    def roll(self, plan: Plan, patience: int = PATIENCE) -> rollout.Outcome:
        return self.follow(self.begin(plan, patience=patience))

    def begin(self, plan: Plan, patience: int = PATIENCE, name: str = "") -> str:
        """Begin it, as soon as nothing is in back-off: on a busy machine a controller may have lost its lease."""
        until = time.monotonic() + 15
        while True:
            try:
                return rollout.begin(self.host, plan, who="alice", patience=patience, name=name)
            except NotYet:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def follow(self, name: str) -> rollout.Outcome:
        return rollout.follow(self.host, name, poll=0.3)

    def stop(self) -> None:
        self.kubelet.terminate()
        self.kubelet.wait(10)


KUBEADMS = APISERVER.replace(
    "metadata:\n",
    "metadata:\n  annotations:\n"
    "    kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint: 192.0.2.2:{port}\n",
    1,
)
"""The same, as kubeadm signs it."""


def start_control_plane(root: Path, *, apiserver: str = APISERVER) -> ControlPlane:
    """`apiserver` is its manifest, with `{port}` for the port."""
    port = free_port()
    manifests = root / "etc/kubernetes/manifests"
    manifests.mkdir(parents=True)
    (root / "etc/hostname").write_text("cp-1\n")
    (root / "etc/kubernetes/pki").mkdir()
    trust = certify(root / "etc/kubernetes/pki")
    manifest = manifests / "kube-apiserver.yaml"
    manifest.write_text(apiserver.format(port=port))
    manifest.chmod(0o600)
    for name in ("kube-controller-manager", "kube-scheduler"):
        (manifests / f"{name}.yaml").write_text(CONTROLLER.format(name=name))
    (root / "etc/default").mkdir()
    (root / "etc/default/kubelet").write_text(f"KUBELET_EXTRA_ARGS=--healthz-port={free_port()}\n")
    # what shows that the node's processes are seen, whether or not kubelet is among them
    (root / "proc/2").mkdir(parents=True)
    (root / "proc/2/comm").write_text("kthreadd\n")
    kubelet = start_kubelet(root)
    host = ShellHost(
        root,
        environment={"PATH": f"{DOUBLES / 'bin'}:{os.environ['PATH']}", "K8S_TRACE_TUI_PACE": str(PACE)},
    )
    plane = ControlPlane(root, port, host, kubelet, trust)
    plane.until_ready()
    return plane


def certify(pki: Path) -> ssl.SSLContext:
    """An authority of the cluster's own with the two certificates that a rollout comes across, as kubeadm places them;
    gives what an operator's own eyes need."""
    folder = pki.parent / "made"
    folder.mkdir()
    authority = Authority(folder, "kubernetes")
    for name in ("apiserver", "apiserver-kubelet-client"):
        made = authority.issue(name)
        made.certificate.rename(pki / f"{name}.crt")
        made.key.rename(pki / f"{name}.key")
    authority.certificate.rename(pki / "ca.crt")
    shutil.rmtree(folder)
    trust = ssl.create_default_context(cafile=pki / "ca.crt")
    trust.load_cert_chain(pki / "apiserver-kubelet-client.crt", pki / "apiserver-kubelet-client.key")
    return trust


@cache
def kubelets() -> Kubelets:
    """Those of this run."""
    return Kubelets()


def start_kubelet(root: Path) -> Process:
    return kubelets().start(root, PACE)
