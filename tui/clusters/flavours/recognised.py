"""Kinds of control planes that are recognised and shown, and not changed from here: each says why, and what to do.

Where each carries its tracing: facts/kubernetes-tracing 6.2.
"""

from __future__ import annotations

from collections.abc import Sequence

from tui.clusters.model import Mode, NodeFacts, Part, Plan, PlanRefused, State, Wish


class _Recognised:
    """A node that has one of these files with content, or an active unit of one of these names."""

    name = ""
    rank = 10
    files: Sequence[str] = ()
    units: Sequence[str] = ()
    parts: Sequence[Part] = (Part.APISERVER,)
    reason = ""

    def recognises(self, facts: NodeFacts) -> bool:
        """By a file or a unit."""
        if any(unit in facts.services for unit in self.units):
            return True
        return any((file := facts.files.get(path)) is not None and file.content is not None for path in self.files)

    def more_paths(self, facts: NodeFacts) -> tuple[str, ...]:
        """Nothing more is read."""
        return ()

    def states(self, facts: NodeFacts) -> tuple[State, ...]:
        """What it is, and why it is not changed from here."""
        node = facts.hostname or facts.host
        return tuple(
            State(node, part, Mode.UNKNOWN, note=self.reason, read_only=self.reason, flavour=self.name)
            for part in self.parts
        )

    def plan(self, facts: NodeFacts, wish: Wish) -> Plan:
        """
        Raises:
            PlanRefused: always.
        """
        raise PlanRefused(f"{facts.host} is {self.name}: {self.reason}.")


class K3s(_Recognised):
    """One process for everything."""

    name = "k3s"
    files = ("/etc/rancher/k3s/config.yaml", "/etc/systemd/system/k3s.service")
    units = ("k3s",)
    reason = (
        "its API server takes kube-apiserver-arg tracing-config-file from /etc/rancher/k3s/config.yaml and a restart "
        "of k3s, which is not done from here yet"
    )


class Rke2(_Recognised):
    """Static pods that RKE2 writes itself."""

    name = "RKE2"
    files = ("/etc/rancher/rke2/config.yaml",)
    units = ("rke2-server",)
    parts = (Part.APISERVER, Part.ETCD)
    reason = (
        "it writes its manifests anew from /etc/rancher/rke2/config.yaml (kube-apiserver-arg, etcd-arg) when "
        "rke2-server starts, which is not done from here yet"
    )


class MicroShift(_Recognised):
    """One process, by Red Hat."""

    name = "MicroShift"
    rank = 5
    files = ("/etc/microshift/config.yaml",)
    units = ("microshift",)
    reason = "it has no setting for the flags of its API server"


class Units(_Recognised):
    """Programs that systemd starts."""

    name = "systemd units"
    rank = 90
    files = ("/etc/systemd/system/kube-apiserver.service", "/usr/lib/systemd/system/kube-apiserver.service")
    units = ("kube-apiserver",)
    reason = "its flags are in the unit kube-apiserver.service, which is not changed from here yet"
