"""Control planes of static pods: kubeadm, kind, minikube, and those that somebody wrote by hand."""

from __future__ import annotations

from dataclasses import replace

from tui.clusters import apiserver_pod, etcd_pod, kubelet, pods
from tui.clusters.model import NodeFacts, Part, Plan, PlanRefused, State, Wish


class StaticPods:
    """Manifests in the kubelet's static pod directory, by whomever they were written."""

    name = "static pods"
    rank = 60
    kubeadm = False

    def recognises(self, facts: NodeFacts) -> bool:
        """Whether a manifest of this node runs an API server or etcd."""
        return pods.mentions(facts, Part.APISERVER) or pods.mentions(facts, Part.ETCD)

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

    def plan(self, facts: NodeFacts, wish: Wish) -> Plan:
        """What to change. Raises PlanRefused as the parts do."""
        if not facts.root:
            raise PlanRefused(f"{facts.host}: only root may change manifests; run as root, or let sudo -n do it.")
        if wish.part is Part.APISERVER:
            return apiserver_pod.plan(facts, wish, kubeadm=self.kubeadm)
        if wish.part is Part.ETCD:
            return etcd_pod.plan(facts, wish, kubeadm=self.kubeadm)
        raise PlanRefused(f"{facts.host}: {kubelet.WHY_READ_ONLY}")


class Kubeadm(StaticPods):
    """What kubeadm wrote: it writes it again at every upgrade."""

    name = "kubeadm"
    rank = 50
    kubeadm = True

    def recognises(self, facts: NodeFacts) -> bool:
        """By what kubeadm leaves for the kubelet, or its annotations."""
        if not super().recognises(facts):
            return False
        left = facts.files.get("/var/lib/kubelet/kubeadm-flags.env")
        signed = any(b"kubeadm.kubernetes.io/" in (file.content or b"") for file in pods.manifest_files(facts))
        return signed or (left is not None and left.content is not None)


class Kind(Kubeadm):
    """A node of kind: kubeadm inside of a container."""

    name = "kind"
    rank = 40

    def recognises(self, facts: NodeFacts) -> bool:
        """By the files that kind puts into its nodes."""
        marks = (facts.files.get("/kind/version"), facts.files.get("/kind/kubeadm.conf"))
        return any(mark is not None and mark.content is not None for mark in marks) and super().recognises(facts)


class Minikube(Kubeadm):
    """A node of minikube, whose `start` runs kubeadm's phases again."""

    name = "minikube"
    rank = 41

    def recognises(self, facts: NodeFacts) -> bool:
        """By the kubeadm configuration that minikube keeps."""
        mark = facts.files.get("/var/tmp/minikube/kubeadm.yaml")
        return mark is not None and mark.content is not None and super().recognises(facts)
