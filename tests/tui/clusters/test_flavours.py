"""Kinds of control planes: which has a node, and that those that are not changed from here say so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.tui.clusters.nodes import apiserver, node
from tui.clusters import flavours
from tui.clusters.model import Part, PlanRefused, Wish


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/etc/rancher/k3s/config.yaml", "k3s"),
        ("/etc/rancher/rke2/config.yaml", "RKE2"),
        ("/etc/microshift/config.yaml", "MicroShift"),
        ("/etc/systemd/system/kube-apiserver.service", "systemd units"),
    ],
)
def test_what_is_not_changed_from_here_is_shown_with_its_reason(path: str, name: str) -> None:
    facts = replace(node(**{path: "x"}), manifest_directory="")
    (first, *_) = flavours.states(facts)
    assert first.flavour == name
    assert first.read_only
    with pytest.raises(PlanRefused, match=name) as refused:
        flavours.plan(facts, Wish(Part.APISERVER, 0))
    assert str(refused.value).count(".") >= 1
    assert "\n" not in str(refused.value)


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
    (tmp_path / "talos_for_a_test.py").write_text(
        "class Talos:\n"
        "    name, rank = 'Talos', 1\n"
        "    def recognises(self, facts): return facts.hostname == 'talos-1'\n"
        "    def more_paths(self, facts): return ()\n"
        "    def states(self, facts): return ()\n"
        "    def plan(self, facts, wish): raise AssertionError\n"
    )
    flavours.every.cache_clear()
    monkeypatch.setattr(flavours, "__path__", [*flavours.__path__, str(tmp_path)])
    try:
        found = flavours.of(replace(node(apiserver=apiserver()), hostname="talos-1"))
        assert found is not None
        assert found.name == "Talos"
    finally:
        flavours.every.cache_clear()
