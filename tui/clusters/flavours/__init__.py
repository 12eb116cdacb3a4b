"""Kinds of control planes: where each keeps its tracing configuration, and what restarts it.

A flavour is a class in a module of this package, with the methods of `tui.clusters.model.Flavour`. Every such class
is found by looking through the package: a new kind is a new file, and nothing else changes.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import lru_cache
from typing import Final, cast

from tui.clusters.model import Flavour, NodeFacts, Plan, PlanRefused, State, Wish

WANTED_PATHS: Final = (
    # what tells kinds apart
    "/etc/os-release",
    "/kind/kubeadm.conf",
    "/kind/version",
    "/var/tmp/minikube/kubeadm.yaml",
    "/var/lib/kubelet/config.yaml",
    "/var/lib/kubelet/kubeadm-flags.env",
    "/etc/kubernetes/azure.json",
    "/etc/eks/eks-supported-versions",
    "/etc/eks/bootstrap.sh",
    "/home/kubernetes/kubelet-config.yaml",
    "/etc/microshift/config.yaml",
    # k3s and RKE2
    "/etc/rancher/k3s/config.yaml",
    "/etc/rancher/k3s/config.yaml.d",
    "/etc/rancher/rke2/config.yaml",
    "/etc/rancher/rke2/config.yaml.d",
    "/var/lib/rancher/rke2/agent/pod-manifests",
    # units
    "/etc/systemd/system/k3s.service",
    "/etc/systemd/system/kube-apiserver.service",
    "/etc/systemd/system/etcd.service",
    "/usr/lib/systemd/system/kube-apiserver.service",
    "/lib/systemd/system/kube-apiserver.service",
    # ours, and a neighbour of it that the API server reads: for the label of new files
    "/etc/kubernetes/k8s-trace-tui/apiserver.yaml",
    "/etc/kubernetes/pki/ca.crt",
)
"""What is always read on a host, besides every file of the static pod directory: files, and directories whose plain
files are all wanted. Each path that is asked for has an entry in `NodeFacts.files`, without content where there is
none; what has no entry was never looked at."""


@lru_cache(maxsize=1)
def every() -> tuple[Flavour, ...]:
    """One of each flavour, in the order in which they are asked: by `rank`, then by name."""
    found: list[Flavour] = []
    for module_info in pkgutil.iter_modules(__path__, f"{__name__}."):
        module = importlib.import_module(module_info.name)
        for name, member in vars(module).items():
            if name.startswith("_") or not inspect.isclass(member) or member.__module__ != module_info.name:
                continue
            if all(hasattr(member, wanted) for wanted in ("name", "rank", "recognises", "states", "plan")):
                found.append(cast(Flavour, member()))
    return tuple(sorted(found, key=lambda flavour: (flavour.rank, flavour.name)))


def of(facts: NodeFacts) -> Flavour | None:
    """The kind of control plane that this node carries, None where it is nothing that we know."""
    return next((flavour for flavour in every() if flavour.recognises(facts)), None)


def more_paths(facts: NodeFacts) -> tuple[str, ...]:
    """Files that what was read mentions and that were not looked at yet: the second round of reading. () at the end."""
    flavour = of(facts)
    if flavour is None:
        return ()
    return tuple(path for path in flavour.more_paths(facts) if path not in facts.files)


def states(facts: NodeFacts) -> tuple[State, ...]:
    """The components on this node and what they do about tracing; () where there is no control plane we know."""
    flavour = of(facts)
    return () if flavour is None else flavour.states(facts)


def plan(facts: NodeFacts, wish: Wish) -> Plan:
    """What to change on this node so that it is as wished. Pure: nothing is read or written.

    Raises:
        PlanRefused: it cannot be done, or not safely; the sentence says why and the way out.
    """
    flavour = of(facts)
    if flavour is None:
        raise PlanRefused(
            f"{facts.host}: no control plane that we know was found there, so there is nothing to change; "
            "static pods are looked for in the kubelet's staticPodPath, as root."
        )
    return flavour.plan(facts, wish)
