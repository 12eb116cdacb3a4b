"""Kinds of control planes that are recognised and shown, and not changed from here: each says why, and what to do.

Where each carries its tracing: docs/facts.md 6.2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tui.clusters import pods
from tui.clusters.model import Mode, NodeFacts, Part, Plan, PlanRefused, Sight, State, Wish


class _Recognised:
    """A node that has one of these paths, or an active unit of one of these names; and what the API shows of it."""

    name = ""
    rank = 10
    paths: Sequence[str] = ()
    units: Sequence[str] = ()
    version = ""
    """Pattern within a version that the API shows, "" for none."""
    parts: Sequence[Part] = (Part.APISERVER,)
    reason = ""

    def recognises(self, facts: NodeFacts) -> bool:
        """By a unit, or by a path that is there (a directory is there with a problem)."""
        if any(unit in facts.services for unit in self.units):
            return True
        found = (facts.files.get(path) for path in self.paths)
        return any(file is not None and (file.content is not None or bool(file.problem)) for file in found)

    def recognises_from_afar(self, sight: Sight) -> bool:
        """By its version."""
        return bool(self.version) and re.search(self.version, sight.version) is not None

    def more_paths(self, facts: NodeFacts) -> tuple[str, ...]:
        """Nothing more is read."""
        return ()

    def states(self, facts: NodeFacts) -> tuple[State, ...]:
        """What it is, and why it is not changed from here."""
        return self.states_from_afar(facts.hostname or facts.host, Sight())

    def states_from_afar(self, node: str, sight: Sight) -> tuple[State, ...]:
        """The same of a node whose files were not read."""
        why = f"{self.name}: {self.reason}."
        return tuple(
            State(node, part, Mode.UNKNOWN, sight.version, read_only=why, flavour=self.name) for part in self.parts
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
    paths = ("/etc/rancher/k3s/config.yaml", "/etc/systemd/system/k3s.service", "/var/lib/rancher/k3s/server")
    units = ("k3s",)
    version = r"\+k3s"
    reason = (
        "its API server takes kube-apiserver-arg tracing-config-file from /etc/rancher/k3s/config.yaml and a restart "
        "of k3s, which is not done from here yet"
    )


class Rke2(_Recognised):
    """Static pods that RKE2 writes itself."""

    name = "RKE2"
    paths = ("/etc/rancher/rke2/config.yaml", "/var/lib/rancher/rke2/server")
    units = ("rke2-server",)
    version = r"\+rke2"
    parts = (Part.APISERVER, Part.ETCD)
    reason = (
        "it writes its manifests anew from /etc/rancher/rke2/config.yaml (kube-apiserver-arg, etcd-arg) when "
        "rke2-server starts, which is not done from here yet"
    )


class MicroShift(_Recognised):
    """One process, by Red Hat."""

    name = "MicroShift"
    rank = 5
    paths = ("/etc/microshift/config.yaml", "/var/lib/microshift")
    units = ("microshift",)
    reason = "it has no setting for the flags of its API server"


class MicroK8s(_Recognised):
    """A snap with one process."""

    name = "MicroK8s"
    paths = ("/var/snap/microk8s/current/args/kube-apiserver",)
    units = ("snap.microk8s.daemon-kubelite",)
    reason = (
        "its API server takes its flags from /var/snap/microk8s/current/args/kube-apiserver and a restart of "
        "snap.microk8s.daemon-kubelite, which is not done from here yet"
    )


class Units(_Recognised):
    """Programs that systemd starts."""

    name = "systemd units"
    rank = 90
    paths = (
        "/etc/systemd/system/kube-apiserver.service",
        "/usr/lib/systemd/system/kube-apiserver.service",
        "/lib/systemd/system/kube-apiserver.service",
    )
    units = ("kube-apiserver",)
    reason = "its flags are in the unit kube-apiserver.service, which is not changed from here yet"


# --- told by their operating system --------------------------------------------------------------------
_RELEASE = "/etc/os-release"


def _release_id(facts: NodeFacts) -> str:
    """`ID` of the operating system, `talos`."""
    file = facts.files.get(_RELEASE)
    found = re.search(rb"(?m)^ID=[\"']?([a-z0-9._-]{1,40})", (file.content or b"") if file else b"")
    return found[1].decode() if found else ""


class Talos(_Recognised):
    """An operating system without a shell, whose manifests come from its machine configuration."""

    name = "Talos"
    paths = (_RELEASE,)
    parts = (Part.APISERVER, Part.ETCD)
    reason = (
        "its static pods are made from the machine configuration (cluster.apiServer.extraArgs and extraVolumes), which "
        "only talosctl changes"
    )

    def recognises(self, facts: NodeFacts) -> bool:
        """By the name of the system."""
        return _release_id(facts) == "talos"

    def recognises_from_afar(self, sight: Sight) -> bool:
        """By the name of the system."""
        return sight.os_image.startswith("Talos")


class OpenShift(_Recognised):
    """Static pods that operators render."""

    name = "OpenShift"
    paths = (_RELEASE,)
    parts = (Part.APISERVER, Part.ETCD)
    reason = (
        "its operators render API server and etcd anew, and they have no setting for tracing: what is changed by hand "
        "is undone"
    )
    _OURS = re.compile(rb"openshift-(?:kube-apiserver|etcd)\b")

    def recognises(self, facts: NodeFacts) -> bool:
        """By the namespaces of its manifests, or by its own operating system."""
        rendered = any(self._OURS.search(file.content or b"") for file in pods.manifest_files(facts))
        return rendered or (bool(facts.manifest_directory) and _release_id(facts) in ("rhcos", "scos"))

    def recognises_from_afar(self, sight: Sight) -> bool:
        """By the name of the system."""
        return sight.os_image.startswith(("Red Hat Enterprise Linux CoreOS", "CentOS Stream CoreOS"))


# --- run by somebody else -------------------------------------------------------------------------------
class _Managed(_Recognised):
    """Its control plane is the provider's; a node that can be reached is a worker."""

    rank = 80
    address = ""
    reason = "the provider runs its control plane and lets nobody set its tracing"

    def recognises_from_afar(self, sight: Sight) -> bool:
        """By its version, or by where its API server is."""
        host = re.sub(r"^https?://|[:/].*$", "", sight.address)
        return super().recognises_from_afar(sight) or (bool(self.address) and host.endswith(self.address))


class Eks(_Managed):
    """Amazon's."""

    name = "EKS"
    paths = ("/etc/eks/eks-supported-versions", "/etc/eks/bootstrap.sh", "/etc/eks/image-credential-provider")
    version = r"-eks-"
    address = ".eks.amazonaws.com"


class Gke(_Managed):
    """Google's."""

    name = "GKE"
    paths = ("/home/kubernetes/kubelet-config.yaml",)
    version = r"-gke\."


class Aks(_Managed):
    """Microsoft's."""

    name = "AKS"
    paths = ("/etc/kubernetes/azure.json",)
    address = ".azmk8s.io"


class Ack(_Managed):
    """Alibaba's, whose Pro clusters send their traces to the provider only."""

    name = "ACK"
    version = r"-aliyun\."
    reason = "the provider runs its control plane, and its tracing goes to the provider's own service: see its console"


class DigitalOcean(_Managed):
    """DigitalOcean's."""

    name = "DOKS"
    address = ".k8s.ondigitalocean.com"
