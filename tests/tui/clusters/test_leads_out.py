"""A directory that stands for a host has links, and no action follows one out of it: nothing there is read, nothing
written. A link that stays inside goes on working."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.somebody_else import needs_root
from tests.tui.clusters import older_state
from tests.tui.clusters.older_state import INTERRUPTED, MANIFEST, OLD, STATE, TRACING
from tests.tui.clusters.test_node_state import tree
from tui import sampling
from tui.clusters import doctor, rollout
from tui.clusters.bundle import script
from tui.clusters.inspect import read_facts
from tui.clusters.model import ClusterError, FileChange, Part
from tui.clusters.reach.folder import FolderHost
from tui.sampling import Asked, Reach

SECRET = "of-another-machine"
APISERVER = f"""\
apiVersion: v1
kind: Pod
metadata:
  name: kube-apiserver
  namespace: kube-system
  annotations: {{note: {SECRET}}}
spec:
  containers:
  - command:
    - kube-apiserver
    - --secure-port=6443
    image: registry.k8s.io/kube-apiserver:v1.34.2
    name: kube-apiserver
    volumeMounts:
    - mountPath: /etc/kubernetes/pki
      name: pki
  volumes:
  - hostPath:
      path: /etc/kubernetes/pki
    name: pki
"""
FOLDERS = [
    "etc", "etc/kubernetes", "etc/kubernetes/manifests", "etc/kubernetes/k8s-trace-tui", "var", "var/lib", STATE,
    f"{STATE}/rollouts", f"{STATE}/original", "var/lib/kubelet",
]  # fmt: skip
FILES = [
    MANIFEST[1:], TRACING[1:], "etc/hostname", "var/lib/kubelet/config.yaml", f"{STATE}/rollouts/{INTERRUPTED}/files",
]  # fmt: skip


def act(root: Path, name: str) -> int:
    """An action of `sampling`, or the doctor, by the words of the command line."""
    host = FolderHost(f"file://{root}")
    reach, asked = Reach((host,)), Asked(yes=True, as_json=True, database=root.parent / "none.db")
    actions: dict[str, Callable[[], int]] = {
        "status": lambda: sampling.status(reach, asked),
        "set": lambda: sampling.change(reach, Asked(per_million=500, yes=True, database=asked.database), "500"),
        "arm": lambda: sampling.change(reach, Asked(per_million=0, yes=True, database=asked.database), "arm"),
        "off": lambda: sampling.change(reach, asked, "off"),
        "revert": lambda: sampling.revert(reach, asked),
        "resume": lambda: sampling.carry_on(reach, asked, undo=False),
        "undo": lambda: sampling.carry_on(reach, asked, undo=True),
        "doctor": lambda: sampling.diagnose(reach, asked),
    }
    return actions[name]()


ACTIONS = ["status", "set", "arm", "off", "revert", "resume", "undo", "doctor"]


@pytest.fixture(scope="module")
def armed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("armed") / "node"
    manifest = made / MANIFEST[1:]
    manifest.parent.mkdir(parents=True)
    manifest.write_text(APISERVER)
    (made / "etc/hostname").write_text("cp-1\n")
    (made / "var/lib/kubelet").mkdir(parents=True)
    (made / "var/lib/kubelet/config.yaml").write_text("staticPodPath: /etc/kubernetes/manifests\n")
    assert act(made, "arm") == 0
    return made


@pytest.fixture
def root(tmp_path: Path, armed: Path) -> Path:
    """Armed."""
    return Path(shutil.copytree(armed, tmp_path / "inside/node", symlinks=True))


def leave_undone(root: Path) -> None:
    host = FolderHost(f"file://{root}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("K8S_TRACE_TUI_STOP_AT", "write-1")
        was = (root / TRACING[1:]).read_bytes()
        change = FileChange(TRACING, was, was + b"\n", 0o600, os.getuid(), os.getgid())
        with pytest.raises(ClusterError):
            rollout.begin(host, older_state.plan(change), who="alice", name=INTERRUPTED)


def lead_out(root: Path, name: str, how: str) -> Path:
    """What is there goes out of the directory, and a link of that kind leads to it."""
    path, outside = root / name, root.parent.parent / "outside" / name
    outside.parent.mkdir(parents=True, exist_ok=True)
    path.rename(outside)
    path.symlink_to(outside if how == "absolute" else os.path.relpath(outside, path.parent))
    return outside


KINDS = ("absolute", "dots")
MATRIX = [
    (action, name, KINDS[(row + column) % 2])
    for row, action in enumerate(ACTIONS)
    for column, name in enumerate([*FOLDERS, *FILES])
]
"""Every action with every place, and each of both with links of either kind."""


@pytest.mark.parametrize(("action", "name", "how"), MATRIX)
def test_nothing_is_read_or_written_out_of_the_directory(
    root: Path, capsys: pytest.CaptureFixture[str], action: str, name: str, how: str
) -> None:
    if action in ("resume", "undo") or INTERRUPTED in name:
        leave_undone(root)
    outside = lead_out(root, name, how)
    before = tree(root.parent.parent)
    capsys.readouterr()
    try:
        code, problem = act(root, action), ""
    except ClusterError as error:
        code, problem = 1, str(error)
    said = problem + "".join(capsys.readouterr())
    assert code == 1
    inside_state = name.startswith(f"{STATE}/")
    if action != "doctor" or not inside_state:
        assert f"leads out of {root}" in said or (inside_state and "is a link, so what" in said), said
    assert SECRET not in said
    assert tree(root.parent.parent) == before
    assert outside.exists()


@pytest.mark.parametrize(
    ("name", "how"),
    [("etc", "dots"), ("etc/kubernetes", "absolute"), ("etc/kubernetes/manifests", "chain"), ("var/lib", "dots")],
)
def test_a_link_that_stays_inside_goes_on_working(root: Path, name: str, how: str) -> None:
    path, aside = root / name, root / "kept-here" / name
    aside.parent.mkdir(parents=True)
    path.rename(aside)
    if how == "chain":
        (root / "by-the-way").symlink_to(aside)
        path.symlink_to(os.path.relpath(root / "by-the-way", path.parent))
    else:
        path.symlink_to(aside if how == "absolute" else os.path.relpath(aside, path.parent))
    assert [act(root, action) for action in ("status", "set", "off")] == [0, 0, 0]
    assert not (root / TRACING[1:]).exists()
    assert act(root, "arm") == 0
    leave_undone(root)
    assert act(root, "undo") == 0
    assert act(root, "revert") == 0
    assert (root / MANIFEST[1:]).read_text() == APISERVER
    assert path.is_symlink()


@pytest.mark.parametrize("target", ["/nowhere/at/all", "../../../../../../nowhere", "loop"])
@pytest.mark.parametrize("name", ["etc/kubernetes/k8s-trace-tui", STATE, OLD])
def test_so_does_a_link_to_what_is_not_there_yet(tmp_path: Path, name: str, target: str) -> None:
    manifest = tmp_path / MANIFEST[1:]
    manifest.parent.mkdir(parents=True)
    manifest.write_text(APISERVER)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(path.name if target == "loop" else target)
    before = tree(tmp_path)
    assert act(tmp_path, "status") == 1
    with pytest.raises(ClusterError, match=r"leads out of|leads nowhere"):
        act(tmp_path, "arm")
    assert tree(tmp_path) == before


def test_an_entry_and_a_pointer_that_lead_out(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file beside the manifests, a name with a line feed, and kubelet's own word for where they are."""
    secret = root.parent.parent / "shadow"
    secret.write_text(SECRET)
    other = root / "etc/kubernetes/manifests/other.yaml"
    for target in (str(secret), f"{secret}\n"):
        if target.endswith("\n"):
            secret.rename(target)
        other.symlink_to(target)
        assert act(root, "status") == 1
        said = "".join(capsys.readouterr())
        assert "leads" in said
        assert SECRET not in said
        other.unlink()
    config = root / "var/lib/kubelet/config.yaml"
    config.write_text(f"staticPodPath: /../../{secret.parent.name}\n")
    assert act(root, "status") == 1
    assert "leads out of" in "".join(capsys.readouterr())


def test_a_root_that_is_named_through_a_link(root: Path) -> None:
    alias = root.parent / "alias"
    alias.symlink_to(root)
    assert act(alias, "status") == 0
    assert doctor.examine(root.parent / "none.db", (FolderHost(f"file://{alias}"),))
    found = FolderHost(f"file://{root}").run(f"ROOT={alias}/; {script()}", ["inspect", "-f"]).out
    assert b"END" in found.split(b"\n")
    assert read_facts(FolderHost(f"file://{alias}")).manifests == ("kube-apiserver.yaml",)
    assert rollout.reversion(FolderHost(f"file://{alias}"), Part.APISERVER).plan.changes


@pytest.mark.parametrize("name", ["etc/hostname", "var/lib/kubelet/config.yaml", "var/lib/kubelet/kubeadm-flags.env"])
def test_a_pipe_is_not_waited_for(root: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """To read a pipe that nobody writes into never ends, and what reads it would stay behind."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert act(root, "status") == 1
    assert f"/{name} is no regular file, so it is not read" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("action", "name"),
    [
        *((action, name) for action in ("set", "off", "revert") for name in ("etc", "etc/kubernetes")),
        *((action, "etc/kubernetes/manifests") for action in ("off", "revert")),  # `set` writes none
    ],
)
@needs_root
def test_nothing_is_written_where_another_user_could_swap_a_link_in(
    root: Path, capsys: pytest.CaptureFixture[str], action: str, name: str
) -> None:
    """On a node whoever owns the manifests is root already. In a copy of its files, as `tar` makes one as root, the
    owner of a directory is anybody, and could make a link of it between our look and our write."""
    for path in (root / name, *(root / name).rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    before = tree(root)
    assert act(root, action) == 1
    assert "belongs to user 65534" in capsys.readouterr().err
    assert tree(root) == before
