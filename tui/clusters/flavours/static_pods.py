"""Control planes of static pods: kubeadm, kind, minikube, and those that somebody wrote by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tui.clusters import apiserver_pod, etcd_pod, kubelet, pods
from tui.clusters.model import NodeFacts, Part, Plan, PlanRefused, Sight, State, Wish
from tui.clusters.pods import Author


class StaticPods:
    """Manifests in the kubelet's static pod directory, by whomever they were written."""

    name = "static pods"
    rank = 60
    paths: Sequence[str] = (kubelet.CONFIG, pods.FILE, pods.NEIGHBOUR)
    author = Author()
    marks: Sequence[str] = ()
    """One of these files is there on such a node."""

    def recognises(self, facts: NodeFacts) -> bool:
        """Whether a manifest of this node runs an API server or etcd."""
        return pods.mentions(facts, Part.APISERVER) or pods.mentions(facts, Part.ETCD)

    def recognises_from_afar(self, sight: Sight) -> bool:
        """Never: the mirrors of its pods are seen instead, see `tui.clusters.survey`."""
        return False

    def more_paths(self, facts: NodeFacts) -> tuple[str, ...]:
        """The tracing file that the API server's manifest names."""
        return apiserver_pod.mentioned(facts)

    def states(self, facts: NodeFacts) -> tuple[State, ...]:
        """API server, etcd and kubelet, as far as they are here."""
        found = (
            apiserver_pod.state(facts, self.name),
            etcd_pod.state(facts, self.name),
            kubelet.state(facts, self.name),
        )
        no_root = "" if facts.root else "it needs root on the node"
        return tuple(replace(state, read_only=state.read_only or no_root) for state in found if state is not None)

    def states_from_afar(self, node: str, sight: Sight) -> tuple[State, ...]:
        """Nothing."""
        return ()

    def plan(self, facts: NodeFacts, wish: Wish) -> Plan:
        """What to change. Raises PlanRefused as the parts do."""
        if not facts.root:
            raise PlanRefused(f"{facts.host}: only root may change manifests; run as root, or let sudo -n do it.")
        if wish.part is Part.APISERVER:
            return apiserver_pod.plan(facts, wish, self.author)
        if wish.part is Part.ETCD:
            return etcd_pod.plan(facts, wish, self.author)
        raise PlanRefused(f"{facts.host}: {kubelet.WHY_READ_ONLY}")


class Kubeadm(StaticPods):
    """What kubeadm wrote: it writes it again at every upgrade."""

    name = "kubeadm"
    rank = 50
    paths: Sequence[str] = (*StaticPods.paths, "/var/lib/kubelet/kubeadm-flags.env")
    marks: Sequence[str] = ("/var/lib/kubelet/kubeadm-flags.env",)
    author = Author("`kubeadm upgrade`", configured=True)

    def recognises(self, facts: NodeFacts) -> bool:
        """By what kubeadm, or who calls it, leaves; by kubeadm's annotations too."""
        if not super().recognises(facts):
            return False
        found = (facts.files.get(path) for path in self.marks)
        return any(file is not None and file.content is not None for file in found) or self._signed(facts)

    def _signed(self, facts: NodeFacts) -> bool:
        return any(b"kubeadm.kubernetes.io/" in (file.content or b"") for file in pods.manifest_files(facts))


class _ByKubeadm(Kubeadm):
    """Who calls kubeadm has marks of its own, and its manifests are signed by kubeadm too."""

    def _signed(self, facts: NodeFacts) -> bool:
        return False


class Kind(_ByKubeadm):
    """A node of kind: kubeadm inside of a container."""

    name = "kind"
    rank = 40
    paths = ("/kind/version", "/kind/kubeadm.conf")
    marks = paths


class Minikube(_ByKubeadm):
    """A node of minikube, whose `start` runs kubeadm's phases again."""

    name = "minikube"
    rank = 41
    paths = ("/var/tmp/minikube/kubeadm.yaml",)
    marks = paths
    author = Author("`minikube start`")
