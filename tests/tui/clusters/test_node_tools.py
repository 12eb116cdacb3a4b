"""The script with the tools of small systems, with a real etcd, and what becomes of damaged answers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.doubles.shell_host import ShellHost
from tests.tui.clusters.control_plane import PATIENCE, ControlPlane, tracing_file
from tui.clusters import journal, rollout
from tui.clusters.bundle import script
from tui.clusters.inspect import read_facts
from tui.clusters.model import ClusterError, Done, FileChange, Part, Trigger


@pytest.fixture
def busybox(control_plane: ControlPlane) -> ControlPlane:
    """A node where every tool that busybox has is busybox's, the shell too."""
    binary = shutil.which("busybox")
    if binary is None:
        pytest.skip("busybox is not here")
    folder = control_plane.root.parent / "busybox"
    folder.mkdir()
    subprocess.run([binary, "--install", "-s", str(folder)], check=True, timeout=20)
    first, _, rest = control_plane.host.environment["PATH"].partition(":")
    control_plane.host.environment["PATH"] = f"{first}:{folder}:{rest}"
    control_plane.host.shell = (str(folder / "sh"),)
    return control_plane


def test_busybox_arms_changes_the_rate_and_reverts(busybox: ControlPlane) -> None:
    old = busybox.files()
    assert busybox.roll(busybox.arm()).word == "done"
    assert busybox.roll(busybox.rate(1000)).word == "done"
    assert busybox.tracing.read_bytes() == tracing_file(1000)
    back = rollout.revert(busybox.host, Part.APISERVER, who="bob", patience=PATIENCE)
    assert busybox.follow(back).word == "done"
    assert busybox.files() == old


def test_busybox_rolls_back(busybox: ControlPlane) -> None:
    old = busybox.files()
    outcome = busybox.roll(busybox.arm(content=tracing_file(-1)))
    assert outcome.word == "rolled back", outcome
    assert busybox.files() == old
    busybox.until_ready()


def test_nothing_is_begun_without_crictl(control_plane: ControlPlane) -> None:
    plan, before = control_plane.arm(), control_plane.files()
    control_plane.host.environment["PATH"] = os.environ["PATH"]
    if shutil.which("crictl"):
        pytest.skip("this machine has a crictl")
    with pytest.raises(ClusterError, match="crictl is not on this node"):
        rollout.begin(control_plane.host, plan, who="alice")
    assert control_plane.files() == before


class Canned:
    """A host that answers what it is told to."""

    name, alive = "cp-1", True

    def __init__(self, out: bytes) -> None:
        self.out = out

    def run(self, script: str, arguments: object = (), **_: object) -> Done:
        return Done(0, self.out, "")

    def close(self) -> None:
        """Nothing was opened."""


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    root = tmp_path_factory.mktemp("node")
    path = root / "etc/kubernetes/manifests/kube-apiserver.yaml"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"kind: Pod\n")
    return ShellHost(root, alive=False).run(script(), ["inspect", "-f", "/etc/none"]).out


def test_an_answer_that_was_cut_off_is_not_believed(answer: bytes) -> None:
    assert read_facts(Canned(b"Welcome!\n" + answer)).manifests == ("kube-apiserver.yaml",)  # a login shell greets
    for length in range(len(answer) - 1):
        with pytest.raises(ClusterError, match="cut off"):
            read_facts(Canned(answer[:length]))


@given(data=st.data())
def test_damaged_answers_are_facts_or_a_sentence(answer: bytes, data: st.DataObject) -> None:
    damaged = bytearray(answer)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    try:
        said = read_facts(Canned(bytes(damaged))).host
    except ClusterError as error:
        said = str(error)
    assert said.startswith("cp-1")
    assert "\n" not in said


@given(st.binary(max_size=200), st.integers(0, 200))
def test_a_journal_is_read_up_to_its_last_whole_line(noise: bytes, cut: int) -> None:
    whole = b"1 begin alice\n2 write /a b\n" + noise.replace(b"\n", b" ") + b"\n3 end done \n"
    entries = journal.parse(whole)
    assert entries[0] == journal.Entry(1, "begin", "alice")
    assert journal.end_of(entries) == journal.End("done")
    kept = journal.parse(whole[:cut])
    assert kept == entries[: len(kept)]
    assert journal.end_of(journal.parse(whole[:-1])) is None


@pytest.mark.parametrize("shell", ["sh", "bash", "busybox sh"])
def test_names_of_any_characters_come_through(tmp_path: Path, shell: str) -> None:
    words = shell.split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not here")
    names = ["a b", "~", "-n", "'quoted' \"names\"", "back\\slash $(x)", "[ab]*"]
    names += ["größe", "tab\there", "two\nlines", "x\x7f"]
    manifests = tmp_path / "etc/kubernetes/manifests"
    manifests.mkdir(parents=True)
    for name in names:
        (manifests / name).write_bytes(name.encode() * 100)
    facts = read_facts(ShellHost(tmp_path, alive=False, shell=words))
    assert list(facts.manifests) == sorted(names)
    assert {path.rpartition("/")[2]: file.content for path, file in facts.files.items() if "/manifests/" in path} == {
        name: name.encode() * 100 for name in names
    }


def test_paths_that_are_no_lines_are_refused(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path, 1, ShellHost(tmp_path, alive=False), None, None)  # type: ignore[arg-type]
    for path in ("/etc/a\tb", "/etc/a\nEND", "etc/a", "/etc/../a"):
        plan = plane.plan(Trigger.NOTHING, FileChange(path, None, b"x"))
        with pytest.raises(ClusterError):
            rollout.begin(plane.host, plan, who="alice")
    assert not (tmp_path / "etc").exists()
