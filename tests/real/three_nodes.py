"""Three control-plane nodes: etcd of three members, and an address in front of the API servers.

The address is that of an haproxy, set up as kubeadm's own guide to high availability does it (kubernetes/kubeadm,
docs/ha-considerations.md): TCP, an API server in turn, and only one whose health check said yes.
"""

from __future__ import annotations

import shutil
import time
from typing import Final

from tests.real.client import Client
from tests.real.lan import Lan
from tests.real.node import ADMIN, HOME, Cluster, Node
from tests.real.processes import Process, wait_until
from tests.real.sshd import NodeSshd
from tests.real.workspace import RunFolder, Unavailable

FRONT: Final = "192.0.2.100"
ADDRESSES: Final = {"cp-1": "192.0.2.2", "cp-2": "192.0.2.3", "cp-3": "192.0.2.4"}
_TOGETHER_S: Final = 300.0


class ThreeNodes:
    """A cluster of three control-plane nodes; the first one's root may log into all of them.

    Attributes:
        nodes: by name.
    """

    def __init__(self, lan: Lan, *, release: str) -> None:
        """
        Raises:
            Unavailable: this machine cannot do it.
        """
        if shutil.which("haproxy") is None:
            raise Unavailable("haproxy is not here, and it stands in front of three nodes (Debian: haproxy)")
        self.lan = lan
        self.cluster = Cluster(FRONT)
        self.nodes: dict[str, Node] = {}
        self._sshds: list[NodeSshd] = []
        self._run = RunFolder("front")
        config = self._run.path / "haproxy.cfg"
        config.write_text(_haproxy())
        self._front = Process("haproxy", lan.entering(["haproxy", "-db", "-f", str(config)]), self._run)
        try:
            for name, address in ADDRESSES.items():
                self.nodes[name] = Node(
                    lan, release=release, name=name, address=address, cluster=self.cluster, members=ADDRESSES
                )
        except BaseException:
            self.close()
            raise

    @property
    def first(self) -> Node:
        """The node that the operator is on."""
        return self.nodes["cp-1"]

    @property
    def hosts(self) -> list[str]:
        """All nodes as the program is told them on the first."""
        return [word for name in self.nodes for word in ("--host", f"ssh://root@{name}")]

    def start(self) -> None:
        """Bring all of it up and wait until every node is ready, and etcd has three members."""
        began = time.monotonic()
        try:
            self.lan.add_address(FRONT)
            self._front.start()
            for node in self.nodes.values():
                node.begin()
            for node in self.nodes.values():  # none is ready before a second one has begun
                node.complete()
            wait_until(lambda: self.front().code("/readyz") == 200, "the address in front answers", by=self._front)
            wait_until(self.whole, "etcd has three members that answer", seconds=_TOGETHER_S)
            self._open_ways()
        except BaseException:
            self.close()
            raise
        print(f"real: three nodes are up after {time.monotonic() - began:.1f} s", flush=True)

    def close(self) -> None:
        """End all of it."""
        for sshd in self._sshds:
            sshd.close()
        for node in self.nodes.values():
            node.close()
        self._front.kill()
        self._run.close()

    def front(self) -> Client:
        """Asks the API through the address in front."""
        return self.cluster.client(self.lan)

    def local_front(self) -> Client:
        """The same for threads that are in the network already, such as a `Probe`'s."""
        return Client((FRONT, 6443), self.cluster.authority.pair.certificate, self.cluster.users[ADMIN])

    def local_etcd(self, name: str) -> Client:
        """Asks the etcd of a node over its client port, likewise."""
        pair = self.cluster.etcd.issue("kube-etcd-healthcheck-client")
        return Client((ADDRESSES[name], 2379), self.cluster.etcd.pair.certificate, pair)

    def whole(self) -> bool:
        """Every member of etcd has a leader (etcd's /health asks it to commit)."""
        return all(
            self.lan.inside(lambda name=name: self.local_etcd(name).code("/health")) == 200  # type: ignore[misc]
            for name in self.nodes
        )

    def _open_ways(self) -> None:
        """Give the first node's root a key to each, without a question."""
        self._sshds = [NodeSshd(node) for node in self.nodes.values()]
        ssh = self.first.path(f"{HOME}/.ssh")
        key = (ssh / "authorized_keys").read_text()
        known = [(node.path(f"{HOME}/.ssh/known_hosts")).read_text() for node in self.nodes.values()]
        (ssh / "known_hosts").write_text("".join(known))
        for node in self.nodes.values():
            if node is not self.first:
                with node.path(f"{HOME}/.ssh/authorized_keys").open("a") as file:
                    file.write(key)


def _haproxy() -> str:
    servers = "".join(
        f"  server {name} {address}:6443 check check-ssl verify none inter 1s fall 2 rise 2\n"
        for name, address in ADDRESSES.items()
    )
    return (
        "global\n  maxconn 1000\n  nbthread 1\n"
        "defaults\n  mode tcp\n  retries 3\n  option redispatch 1\n"
        "  timeout connect 2s\n  timeout client 1h\n  timeout server 1h\n  timeout check 3s\n"
        f"frontend api\n  bind {FRONT}:6443\n  default_backend servers\n"
        "backend servers\n  balance roundrobin\n"
        "  option httpchk GET /readyz\n  http-check expect status 200\n" + servers
    )
