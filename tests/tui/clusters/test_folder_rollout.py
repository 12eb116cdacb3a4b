"""Rollouts on a directory that stands for a host: files are written at once and nothing is waited for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.doubles.shell_host import ShellHost
from tui.clusters import rollout
from tui.clusters.inspect import read_facts
from tui.clusters.model import ClusterError, FileChange, Part, Plan, PlanRefused, Trigger, Wish
from tui.clusters.reach.folder import FolderHost

MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml"
TRACING = "/etc/kubernetes/k8s-trace-tui/apiserver.yaml"
OLD = b"apiVersion: v1\nkind: Pod\nmetadata:\n  name: kube-apiserver\n"
SHELLS = [("dash",), ("busybox", "sh"), ("bash",)]


def files(root: Path, below: str = "etc") -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in (root / below).rglob("*") if path.is_file()}


def plan_of(*changes: FileChange) -> Plan:
    return Plan(
        node="cp-1",
        part=Part.APISERVER,
        changes=changes,
        trigger=Trigger.MANIFEST,
        diff="",
        price="",
        wish=Wish(Part.APISERVER, 10_000, name="1 %"),
        manifest=MANIFEST,
        container="kube-apiserver",
        health=("https://127.0.0.1:6443/livez",),
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    manifest = tmp_path / MANIFEST[1:]
    manifest.parent.mkdir(parents=True)
    manifest.write_bytes(OLD)
    manifest.chmod(0o640)
    return tmp_path


@pytest.fixture(params=SHELLS, ids=["dash", "busybox", "bash"])
def folder(root: Path, request: pytest.FixtureRequest) -> ShellHost:
    if shutil.which(request.param[0]) is None:
        pytest.skip(f"{request.param[0]} is not here")
    return ShellHost(root, alive=False, shell=request.param, name=f"file://{root}")


def test_written_as_planned_and_back_byte_for_byte(folder: ShellHost, root: Path) -> None:
    before = files(root)
    content = b"a\x00b\r\n\xff" * 3000
    plan = plan_of(
        FileChange(TRACING, None, content, 0o644, os.getuid(), os.getgid()),
        FileChange(MANIFEST, OLD, OLD + b"# armed\n", 0o640, os.getuid(), os.getgid()),
    )
    name = rollout.begin(folder, plan, who="alice@desk")
    outcome = rollout.follow(folder, name)
    assert (outcome.word, outcome.id) == ("done", name), outcome
    assert files(root) == {MANIFEST[1:]: OLD + b"# armed\n", TRACING[1:]: content}
    assert (root / MANIFEST[1:]).stat().st_mode & 0o777 == 0o640
    assert (root / TRACING[1:]).stat().st_mode & 0o777 == 0o644
    facts = read_facts(folder, [TRACING])
    assert facts.files[TRACING].content == content
    assert facts.manifests == ("kube-apiserver.yaml",)
    assert facts.containers is None
    assert facts.lock == ""
    (known,) = facts.rollouts
    assert (known.who, known.what, known.ended, known.alive) == ("alice@desk", "1 %", "done", False)

    back = rollout.revert(folder, Part.APISERVER, who="bob")
    assert rollout.follow(folder, back).word == "done"
    assert files(root) == before
    assert (root / MANIFEST[1:]).stat().st_mode & 0o777 == 0o640
    with pytest.raises(PlanRefused, match="reverted already"):
        rollout.revert(folder, Part.APISERVER, who="bob")


def test_a_file_that_changed_since_it_was_read_is_left_alone(folder: ShellHost, root: Path) -> None:
    plan = plan_of(FileChange(MANIFEST, OLD, b"new", 0o600))
    (root / MANIFEST[1:]).write_bytes(OLD + b"\n")
    everything = files(root, ".")
    with pytest.raises(PlanRefused, match="has changed since it was read"):
        rollout.begin(folder, plan, who="alice")
    assert files(root, ".") == everything


def test_revert_shows_three_versions_and_does_nothing_unless_forced(folder: ShellHost, root: Path) -> None:
    first = plan_of(FileChange(MANIFEST, OLD, b"first", 0o600))
    second = plan_of(FileChange(MANIFEST, b"first", b"second", 0o600))
    for plan in (first, second):
        assert rollout.follow(folder, rollout.begin(folder, plan, who="alice")).word == "done"
    (root / MANIFEST[1:]).write_bytes(b"somebody's")
    (three,) = rollout.reversion(folder, Part.APISERVER).differing
    assert (three.path, three.original, three.now) == (MANIFEST, OLD, b"somebody's")
    with pytest.raises(PlanRefused, match="somebody changed"):
        rollout.revert(folder, Part.APISERVER, who="alice")
    assert files(root) == {MANIFEST[1:]: b"somebody's"}
    name = rollout.revert(folder, Part.APISERVER, who="alice", force=True)
    assert rollout.follow(folder, name).word == "done"
    assert files(root) == {MANIFEST[1:]: OLD}


@pytest.mark.parametrize("step", ["staged", "write-1", "before-2", "written"])
def test_the_lock_names_who_writes_and_not_what_carries_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The script runs in a subshell of what carried it there. Were that taken for the one at work, a second rollout
    could begin beside the first as soon as it is gone."""
    before = files(root)
    host = FolderHost(f"file://{root}")
    plan = plan_of(
        FileChange(TRACING, None, b"new", 0o600, os.getuid(), os.getgid()),
        FileChange(MANIFEST, OLD, OLD + b"# armed\n", 0o640, os.getuid(), os.getgid()),
    )
    monkeypatch.setenv("K8S_TRACE_TUI_STOP_AT", step)  # by the number that the lock has
    with pytest.raises(ClusterError):
        rollout.begin(host, plan, who="alice")
    monkeypatch.delenv("K8S_TRACE_TUI_STOP_AT")
    assert (files(root).get(TRACING[1:]) is not None) is (step != "staged"), "it ended there, and at once"
    assert files(root)[MANIFEST[1:]] == (OLD + b"# armed\n" if step == "written" else OLD)
    (left,) = read_facts(host, [TRACING]).rollouts
    assert (left.ended, left.alive) == ("", False)
    assert rollout.follow(host, rollout.undo(host, left.id, who="bob")).word == "rolled back"
    assert files(root) == before
