"""Kinds of control planes: which has a node, and that those that are not changed from here say so."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tui.clusters.nodes import APISERVER, MANIFESTS, apiserver, facts_with, node
from tui.clusters import flavours
from tui.clusters.model import HostFile, Mode, NodeFacts, Part, PlanRefused, Sight, Wish


def node_of(files: dict[str, str]) -> NodeFacts:
    return facts_with({path: HostFile(path, text.encode()) for path, text in files.items()})


OPENSHIFT = (
    '{"kind":"Pod","apiVersion":"v1","metadata":{"name":"kube-apiserver","namespace":"openshift-kube-apiserver"}}'
)
OS_RELEASE = "/etc/os-release"


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"/etc/rancher/k3s/config.yaml": "x"}, "k3s"),
        ({"/etc/rancher/rke2/config.yaml": "x"}, "RKE2"),
        ({"/etc/microshift/config.yaml": "x"}, "MicroShift"),
        ({"/var/snap/microk8s/current/args/kube-apiserver": "x"}, "MicroK8s"),
        ({"/etc/systemd/system/kube-apiserver.service": "x"}, "systemd units"),
        ({OS_RELEASE: 'NAME="Talos"\nID=talos\n', APISERVER: apiserver()}, "Talos"),
        ({OS_RELEASE: 'ID="rhcos"\n', f"{MANIFESTS}/kube-apiserver-pod.yaml": OPENSHIFT}, "OpenShift"),
        ({"/etc/eks/bootstrap.sh": "x"}, "EKS"),
        ({"/home/kubernetes/kubelet-config.yaml": "x"}, "GKE"),
        ({"/etc/kubernetes/azure.json": "{}"}, "AKS"),
    ],
)
def test_what_is_not_changed_from_here_is_shown_with_its_reason(files: dict[str, str], name: str) -> None:
    facts = node_of(files)
    assert set(files) - {APISERVER, f"{MANIFESTS}/kube-apiserver-pod.yaml"} <= set(flavours.wanted_paths())
    (first, *_) = flavours.states(facts)
    assert first.flavour == name
    assert re.fullmatch(rf"{name}: .{{20,250}}\.", first.read_only)
    with pytest.raises(PlanRefused, match=name) as refused:
        flavours.plan(facts, Wish(Part.APISERVER, 0))
    assert str(refused.value).count(".") >= 1
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("sight", "name"),
    [
        (Sight("v1.33.5+k3s1"), "k3s"),
        (Sight("v1.32.9+rke2r1"), "RKE2"),
        (Sight("v1.34.1", "Talos (v1.11.2)"), "Talos"),
        (Sight("v1.30.4", "Red Hat Enterprise Linux CoreOS 417.94.202410090854-0"), "OpenShift"),
        (Sight("v1.31.2-eks-7f9249a"), "EKS"),
        (Sight("v1.31.1-gke.1146000"), "GKE"),
        (Sight("v1.31.1", address="https://lab-abc.hcp.westeurope.azmk8s.io:443"), "AKS"),
        (Sight("v1.34.2", "Fedora CoreOS 41.20241027.3.0", "https://10.0.0.1:6443"), ""),
        (Sight("v1.34.2", address="https://azmk8s.io.example.org"), ""),
        (Sight(), ""),
    ],
)
def test_the_api_alone_tells_some_kinds(sight: Sight, name: str) -> None:
    found = flavours.from_afar(sight)
    assert (found.name if found else "") == name
    for state in found.states_from_afar("cp-1", sight) if found else ():
        assert (state.node, state.version, state.mode) == ("cp-1", sight.version, Mode.UNKNOWN)
        assert state.read_only.startswith(name)


@pytest.mark.parametrize(
    ("mark", "name", "by", "lasts"),
    [
        ("/kind/version", "kind", "kubeadm upgrade", True),
        ("/kind/kubeadm.conf", "kind", "kubeadm upgrade", True),
        ("/var/tmp/minikube/kubeadm.yaml", "minikube", "minikube start", False),
        ("/var/lib/kubelet/kubeadm-flags.env", "kubeadm", "kubeadm upgrade", True),
        ("/etc/kubernetes/azure.json", "static pods", "", False),
    ],
)
def test_who_wrote_the_static_pods_is_told_and_all_are_changed_alike(
    mark: str, name: str, by: str, lasts: bool
) -> None:
    by_hand = apiserver().replace("kubeadm.kubernetes.io/", "example.org/")
    facts = node_of({mark: "x", APISERVER: by_hand})
    assert mark in flavours.wanted_paths()
    assert flavours.states(facts)[0].flavour == name
    plan = flavours.plan(facts, Wish(Part.APISERVER, 0))
    undoing = [warning for warning in plan.warnings if "undoes it" in warning]
    assert [warning.startswith(f"`{by}` writes") for warning in undoing] == ([True] if by else [])
    assert bool(plan.snippet) == lasts
    assert plan.changes
    without = node_of({mark: "x"})
    assert not any(state.flavour == name for state in flavours.states(without)), "a worker is none"


def test_the_kubelet_is_shown_with_its_own_tracing_and_not_changed() -> None:
    config = "/var/lib/kubelet/config.yaml"
    said = "kind: KubeletConfiguration\ntracing:\n  endpoint: 10.0.0.5:4317\n  samplingRatePerMillion: 100\n"
    for text, mode, rate in ((said, Mode.SAMPLING, 100), ("kind: KubeletConfiguration\n", Mode.OFF, None)):
        facts = node_of({APISERVER: apiserver(), config: text})
        found = next(state for state in flavours.states(facts) if state.part is Part.KUBELET)
        assert (found.mode, found.per_million) == (mode, rate)
        assert "by hand" in found.read_only
        with pytest.raises(PlanRefused, match="by hand"):
            flavours.plan(facts, Wish(Part.KUBELET, 0))


def test_a_unit_that_runs_tells_it_too() -> None:
    facts = replace(node(), manifest_directory="", services=frozenset({"k3s"}))
    found = flavours.of(facts)
    assert found is not None
    assert found.name == "k3s"


def test_kubeadm_is_told_by_its_annotations_and_nothing_is_nothing() -> None:
    found = flavours.of(node(apiserver=apiserver()))
    assert found is not None
    assert found.name == "kubeadm"
    assert flavours.of(node()) is None
    with pytest.raises(PlanRefused, match="no control plane"):
        flavours.plan(node(), Wish(Part.APISERVER, 0))


def test_a_new_kind_is_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of_a_test.py").write_text(
        "class OfATest:\n"
        "    name, rank, paths = 'Of a test', 1, ('/etc/of-a-test',)\n"
        "    def recognises(self, facts): return facts.hostname == 'test-1'\n"
        "    def recognises_from_afar(self, sight): return False\n"
        "    def more_paths(self, facts): return ()\n"
        "    def states(self, facts): return ()\n"
        "    def states_from_afar(self, node, sight): return ()\n"
        "    def plan(self, facts, wish): raise AssertionError\n"
    )
    flavours.every.cache_clear()
    monkeypatch.setattr(flavours, "__path__", [*flavours.__path__, str(tmp_path)])
    try:
        found = flavours.of(replace(node(apiserver=apiserver()), hostname="test-1"))
        assert found is not None
        assert found.name == "Of a test"
        assert "/etc/of-a-test" in flavours.wanted_paths()
    finally:
        flavours.every.cache_clear()
