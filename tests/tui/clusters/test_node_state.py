"""Whose the state of rollouts is: what somebody else could have made or changed is never read, run or put back, the
script that runs is the one that the program brings, and what an older version left is taken over once."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doubles.shell_host import ShellHost
from tests.eventually import eventually
from tests.tui.clusters import older_state
from tests.tui.clusters.control_plane import PATIENCE, ControlPlane, tracing_file
from tests.tui.clusters.older_state import (
    ARMED,
    BEFORE,
    DONE,
    FIRST,
    INTERRUPTED,
    MANIFEST,
    OLD,
    SECOND,
    STATE,
    TRACING,
    older_script,
)
from tests.tui.clusters.test_faults import killed_at, wrap
from tui import sampling
from tui.clusters import bundle, rollout
from tui.clusters.inspect import read_facts
from tui.clusters.model import ClusterError, FileChange, Part, Plan, PlanRefused, Trigger
from tui.sampling import Asked, Reach

NOBODY = 65534
Files = dict[str, tuple[int, int, bytes | str]]
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to somebody")


def tree(root: Path) -> Files:
    """Everything below: mode, owner, and bytes or where it leads."""
    found: Files = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(root))] = (status.st_mode, status.st_uid, content)
    return found


def here(root: Path) -> ShellHost:
    return ShellHost(root, alive=False, name=f"file://{root}")


@pytest.fixture(scope="module")
def left_undone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("left") / "node"
    made.mkdir()
    older_state.make(made, bundle.script())
    return made


@pytest.fixture
def interrupted(tmp_path: Path, left_undone: Path) -> Path:
    """A directory that this version armed, and whose next change it left undone after it was written."""
    return Path(shutil.copytree(left_undone, tmp_path / "node", symlinks=True))


@pytest.fixture(params=["recorded", "made"])
def older(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A directory that the version before armed and left undone; its lock is a dead process's."""
    root = tmp_path / "node"
    root.mkdir()
    if request.param == "recorded":
        older_state.lay_out(root)
    elif (script := older_script()) is None:
        pytest.skip("the history is not here")
    else:
        older_state.make(root, script)
    return root


VERBS: dict[str, Callable[[ShellHost], object]] = {
    "begin": lambda host: rollout.begin(host, older_state.plan(FileChange(TRACING, SECOND, b"x", 0o600)), who="eve"),
    "finish": lambda host: rollout.finish(host, INTERRUPTED),
    "undo": lambda host: rollout.undo(host, INTERRUPTED),
    "follow": lambda host: rollout.entries_after(host, INTERRUPTED, 0),
    "original": lambda host: rollout.reversion(host, Part.APISERVER),
    "unlock": rollout.unlock,
}


# --- somebody else's ------------------------------------------------------------------------------
PLACES = [
    "", "rollouts", "original", f"rollouts/{INTERRUPTED}", f"rollouts/{INTERRUPTED}/journal",
    f"rollouts/{INTERRUPTED}/meta", f"rollouts/{INTERRUPTED}/files", f"rollouts/{INTERRUPTED}/made",
    f"rollouts/{INTERRUPTED}/pid", f"rollouts/{INTERRUPTED}/node.sh", f"rollouts/{INTERRUPTED}/before",
    f"rollouts/{DONE}", "original/apiserver", "original/apiserver/meta", "original/apiserver/KEY",
    "original/apiserver/KEY/path", "original/apiserver/KEY/last", "lock",
]  # fmt: skip


def spoil(path: Path, how: str) -> None:
    """Make a file or a directory one that somebody else could have made or could change."""
    if how == "another's":
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    elif how == "a link":
        aside = path.with_name(f"aside-of-{path.name}")
        path.rename(aside)
        path.symlink_to(aside)
    else:
        path.chmod(path.stat().st_mode | (stat.S_IWGRP if how == "its group's" else stat.S_IWOTH))


def place(root: Path, name: str) -> Path:
    if "KEY" in name:
        key = hashlib.sha256(MANIFEST.encode()).hexdigest()[:32]
        name = name.replace("KEY", key)
    return root / STATE / name


@pytest.mark.parametrize("how", ["a link", "its group's", "anybody's", pytest.param("another's", marks=as_root)])
@pytest.mark.parametrize("name", PLACES)
def test_state_that_is_not_only_ours_is_refused_by_name(interrupted: Path, name: str, how: str) -> None:
    path, host = place(interrupted, name), here(interrupted)
    if name == "lock" and how != "another's":
        pytest.skip("it is a link, which has no mode")
    spoil(path, how)
    before = tree(interrupted)
    facts = read_facts(host)
    assert (facts.rollouts, facts.lock) == ((), "")
    assert str(path) in facts.distrust
    assert facts.manifests == ("kube-apiserver.yaml",), "the rest of the node is told all the same"
    verbs = VERBS if name in ("rollouts", "lock") else {verb: VERBS[verb] for verb in ("begin", "undo", "original")}
    for verb, run in verbs.items():
        with pytest.raises(PlanRefused, match="not believed") as refused:
            run(host)
        assert str(path) in str(refused.value), verb
    assert tree(interrupted) == before


@pytest.mark.parametrize("how", ["its group's", "anybody's", pytest.param("another's", marks=as_root)])
@pytest.mark.parametrize("above", ["", "var", "var/lib"])
def test_so_is_state_in_a_directory_that_somebody_else_can_rename(interrupted: Path, above: str, how: str) -> None:
    if how == "its group's" and os.getuid() != 0:
        pytest.skip("the group of one user alone is that user")
    spoil(interrupted / above, how)
    before = tree(interrupted)
    assert str(interrupted / above) in read_facts(here(interrupted)).distrust
    with pytest.raises(PlanRefused, match="not believed"):
        rollout.undo(here(interrupted), INTERRUPTED)
    assert tree(interrupted) == before


@pytest.mark.parametrize("how", ["anybody's", pytest.param("another's", marks=as_root)])
def test_nothing_begins_where_somebody_else_could_make_away_with_the_way_back(tmp_path: Path, how: str) -> None:
    manifest = tmp_path / MANIFEST[1:]
    manifest.parent.mkdir(parents=True)
    manifest.write_bytes(BEFORE)
    (tmp_path / "var").mkdir()
    spoil(tmp_path / "var", how)
    before = tree(tmp_path)
    with pytest.raises(PlanRefused, match="make away with the way back"):
        rollout.begin(here(tmp_path), older_state.plan(FileChange(MANIFEST, BEFORE, ARMED, 0o600)), who="eve")
    assert tree(tmp_path) == before


def test_status_says_it_and_ends_with_one(interrupted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(place(interrupted, "rollouts"), "anybody's")
    reach, asked = Reach((here(interrupted),)), Asked(yes=True, database=interrupted / "none.db")
    assert sampling.status(reach, asked) == 1
    said = capsys.readouterr()
    assert "interrupted" not in said.out
    assert "rollouts can be entered by others" in said.err
    assert sampling.carry_on(reach, asked, undo=True) == 1
    assert "not believed" in (said := capsys.readouterr()).err
    assert "nothing to finish" not in said.err
    with pytest.raises(ClusterError, match=r"not believed.* Nothing was changed"):
        sampling.change(reach, asked, "arm")


@as_root
def test_a_service_user_with_the_databases_folder_runs_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder is its own, as StateDirectory= makes it, and it lays there what our own script would have left."""
    model, root, marker = tmp_path / "model", tmp_path / "node", tmp_path / "it-ran"
    for made in (model, root):
        made.mkdir()
    older_state.make(model, bundle.script())
    theirs = root / OLD
    shutil.copytree(root.with_name("model") / STATE, theirs, symlinks=True)
    shutil.copytree(model / "etc", root / "etc")
    evil = f"#!/bin/sh\nid -u >{marker}\n"
    (theirs / "rollouts" / INTERRUPTED / "node.sh").write_text(evil)
    meta = theirs / "rollouts" / INTERRUPTED / "meta"
    meta.write_text(meta.read_text().replace("trigger\tnothing", "trigger\tmanifest"))
    key = hashlib.sha256(MANIFEST.encode()).hexdigest()[:32]
    (theirs / "original/apiserver" / key / "bytes").write_text("evil: pod\n")
    for path in (theirs, *theirs.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    before = tree(root)
    host = here(root)
    facts = read_facts(host)
    assert facts.rollouts == ()
    assert f"{theirs} belongs to user {NOBODY}" in facts.distrust
    for verb in ("begin", "finish", "undo", "original", "unlock", "follow"):
        with pytest.raises(PlanRefused, match=f"{theirs} belongs to user {NOBODY}"):
            VERBS[verb](host)
    assert not marker.exists()
    assert tree(root) == before
    # once root has a place of its own, nobody but root is asked about anything
    for name in ("rollouts", "original", "lock"):
        (theirs / name).rename(tmp_path / name)
    plan = older_state.plan(FileChange(TRACING, SECOND, b"x", 0o600, 0, 0))
    assert rollout.follow(host, rollout.begin(host, plan, who="alice")).word == "done"
    for name in ("rollouts", "original", "lock"):
        (tmp_path / name).rename(theirs / name)
    facts = read_facts(host)
    assert (facts.distrust, [one.ended for one in facts.rollouts]) == ("", ["done"])
    plan = older_state.plan(FileChange(TRACING, b"x", b"y", 0o600, 0, 0))
    assert rollout.follow(host, rollout.begin(host, plan, who="alice")).word == "done"


@as_root
def test_what_is_kept_has_the_owner_of_what_it_is_a_copy_of(tmp_path: Path) -> None:
    """Some installers give the manifests to a user of their own, with whatever mode."""
    manifest = tmp_path / MANIFEST[1:]
    manifest.parent.mkdir(parents=True)
    manifest.write_bytes(BEFORE)
    os.chown(manifest, 997, 997)
    manifest.chmod(0o664)
    host = here(tmp_path)
    plan = older_state.plan(FileChange(MANIFEST, BEFORE, ARMED, 0o664, 997, 997))
    assert rollout.follow(host, rollout.begin(host, plan, who="alice")).word == "done"
    assert read_facts(host).distrust == ""
    assert rollout.follow(host, rollout.revert(host, Part.APISERVER, who="alice")).word == "done"
    assert (manifest.read_bytes(), manifest.stat().st_uid, manifest.stat().st_mode & 0o777) == (BEFORE, 997, 0o664)


def test_a_folder_of_its_own_for_root_alone(interrupted: Path) -> None:
    state = interrupted / STATE
    assert (state.stat().st_mode & 0o7777, state.stat().st_uid) == (0o700, os.getuid())
    assert not (interrupted / OLD / "rollouts").exists()


def test_what_goes_while_it_is_looked_at_is_no_reason_for_doubt(interrupted: Path, tmp_path: Path) -> None:
    """A watcher that ends takes its lock away; a list of names is old when it is read."""
    lock, tools = place(interrupted, "lock"), tmp_path / "tools"
    tools.mkdir()
    (tools / "stat").write_text(f'#!/bin/sh\nrm -f {lock}\nexec {shutil.which("stat")} "$@"\n')
    (tools / "stat").chmod(0o755)
    host = here(interrupted)
    host.environment["PATH"] = f"{tools}:{os.environ['PATH']}"
    facts = read_facts(host)
    assert (facts.distrust, facts.lock, len(facts.rollouts)) == ("", "", 2)


# --- what runs ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("way", ["finish", "undo"])
def test_what_runs_is_the_script_that_the_program_brings(control_plane: ControlPlane, way: str, tmp_path: Path) -> None:
    """Whoever wrote the one that lies there: an older version, or somebody who was root once."""
    name = killed_at(control_plane, control_plane.arm(), "write-1")
    script = control_plane.root / STATE / "rollouts" / name / "node.sh"
    marker = tmp_path / "it-ran"
    script.unlink()
    script.write_text(f"#!/bin/sh\necho yes >{marker}\n")
    (rollout.finish if way == "finish" else rollout.undo)(control_plane.host, name)
    outcome = control_plane.follow(name)
    assert outcome.word == ("done" if way == "finish" else "rolled back")
    assert not marker.exists()
    assert script.read_text() == bundle.script()


# --- what is put back ---------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["before/1", "after/1", "meta", "files", "manifest"])
@pytest.mark.parametrize("way", ["finish", "undo"])
def test_what_is_not_as_it_was_kept_is_refused_by_name(interrupted: Path, name: str, way: str) -> None:
    path = interrupted / STATE / "rollouts" / INTERRUPTED / name
    path.write_bytes(path.read_bytes().replace(b"\n", b"\n\n"))
    before = tree(interrupted / "etc")
    with pytest.raises(PlanRefused, match="sha256") as refused:
        VERBS[way](here(interrupted))
    assert str(path) in str(refused.value)
    assert tree(interrupted / "etc") == before
    (left,) = [one for one in read_facts(here(interrupted)).rollouts if not one.ended]
    assert left.id == INTERRUPTED, "it can be looked at, and undone when that was mended"


@pytest.mark.parametrize("name", ["bytes", "path", "label", "mode"])
def test_so_is_an_original_that_is_not_as_it_was_kept(interrupted: Path, name: str) -> None:
    assert rollout.follow(here(interrupted), rollout.undo(here(interrupted), INTERRUPTED)).word == "rolled back"
    entry = place(interrupted, "original/apiserver/KEY")
    if name == "mode":
        (entry / "bytes").chmod(0o4755)
    else:
        (entry / name).write_bytes((entry / name).read_bytes() + b"evil\n")
    before = tree(interrupted)
    with pytest.raises(PlanRefused, match="sha256") as refused:
        rollout.revert(here(interrupted), Part.APISERVER, who="alice")
    assert str(entry) in str(refused.value)
    assert tree(interrupted) == before


def test_the_watcher_puts_nothing_else_back(control_plane: ControlPlane) -> None:
    """What was kept changes after the watcher has begun: it says so, and never lays it there."""
    plan, name = control_plane.arm(content=tracing_file(-1)), rollout.new_id()
    kept = control_plane.root / STATE / "rollouts" / name
    staged = control_plane.root / f"etc/kubernetes/.k8s-trace-tui-{name}-2-before"
    wrap(
        control_plane,
        "crictl",
        f'if grep -q " restart " {kept}/journal 2>/dev/null; then echo evil >{kept}/before/2; echo evil >{staged}; fi\n'
        'exec $REAL "$@"',
    )
    control_plane.begin(plan, name=name, patience=PATIENCE)
    outcome = control_plane.follow(name)
    assert outcome.word == "failed"
    assert f"{kept}/before/2 is not what was there" in outcome.detail
    assert b"evil" not in control_plane.manifest.read_bytes()


# --- names that lead elsewhere --------------------------------------------------------------------------
def sealed_again(rolled: Path) -> None:
    """With the sha256 of what was changed in it: whoever could change it could do that too."""
    names = ("meta", "files", "manifest")
    lines = [f"{hashlib.sha256((rolled / name).read_bytes()).hexdigest()} {name}\n" for name in names]
    (rolled / "sums").write_text("".join(lines))


FORGED = [
    ("files", TRACING, "/etc/cron.d/x"),
    ("files", TRACING, "/etc/kubernetes/../cron.d/x"),
    ("files", TRACING, "../../etc/cron.d/x"),
    ("files", TRACING, "/var/lib/kubelet/config.yaml"),
    ("files", "\t600\t", "\t--reference=x\t"),
    ("files", "1\t/", "1/../../x\t/"),
    ("meta", "part\tapiserver", "part\t../../x"),
    ("meta", "trigger\tnothing", "trigger\tanything"),
    ("meta", "container\tkube-apiserver", "container\t-a.*"),
    ("meta", "health\thttps://127.0.0.1:6443/livez", "health\t-o/etc/cron.d/x"),
    ("meta", f"manifest\t{MANIFEST}", "manifest\t/etc/kubernetes/../shadow"),
    ("made", "", "/opt\n"),
    ("made", "", "/etc/kubernetes/../../x\n"),
    ("old", "", "--all x\n"),
]


@pytest.mark.parametrize(("name", "old", "new"), FORGED)
def test_names_in_the_state_lead_nowhere_else(interrupted: Path, name: str, old: str, new: str) -> None:
    rolled = interrupted / STATE / "rollouts" / INTERRUPTED
    path = rolled / name
    text = path.read_text() if path.exists() else ""
    assert old in text
    path.write_text(text.replace(old, new) if old else text + new)
    sealed_again(rolled)
    before = tree(interrupted / "etc")
    for way in ("undo", "finish"):
        with pytest.raises(PlanRefused, match="nothing was done"):
            VERBS[way](here(interrupted))
    assert tree(interrupted / "etc") == before


@pytest.mark.parametrize(
    "path", ["/etc/cron.d/x", "/var/lib/kubelet/config.yaml", "/opt/tracingx/t.yaml", "/opt/t.yaml"]
)
def test_nor_does_a_plan(tmp_path: Path, path: str) -> None:
    manifest = tmp_path / MANIFEST[1:]
    manifest.parent.mkdir(parents=True)
    manifest.write_bytes(BEFORE + b"spec: {volumes: [{name: t, hostPath: {path: '/opt/tracing'}}]}\n")
    with pytest.raises(PlanRefused, match="neither below /etc/kubernetes nor in a directory that a manifest names"):
        rollout.begin(here(tmp_path), older_state.plan(FileChange(path, None, b"x", 0o600)), who="alice")
    plan = older_state.plan(FileChange("/opt/tracing/t.yaml", None, b"x", 0o600, os.getuid(), os.getgid()))
    assert rollout.follow(here(tmp_path), rollout.begin(here(tmp_path), plan, who="alice")).word == "done"


def test_what_was_begun_can_be_put_back_though_no_manifest_names_its_place_any_more(tmp_path: Path) -> None:
    manifest, tracing = tmp_path / MANIFEST[1:], tmp_path / "opt/tracing/t.yaml"
    for folder in (manifest.parent, tracing.parent):
        folder.mkdir(parents=True)
    manifest.write_bytes(BEFORE + b"  volumes: [{name: t, hostPath: {path: /opt/tracing}}]\n")
    tracing.write_bytes(FIRST)
    host = here(tmp_path)
    host.environment["K8S_TRACE_TUI_STOP_AT"] = "write-1"
    change = FileChange("/opt/tracing/t.yaml", FIRST, SECOND, 0o600, os.getuid(), os.getgid())
    with pytest.raises(ClusterError):
        rollout.begin(host, older_state.plan(change), who="alice", name=INTERRUPTED)
    del host.environment["K8S_TRACE_TUI_STOP_AT"]
    manifest.write_bytes(BEFORE)
    assert rollout.follow(host, rollout.undo(host, INTERRUPTED)).word == "rolled back"
    assert tracing.read_bytes() == FIRST


def test_an_undo_by_the_same_version_needs_no_room_for_its_script(interrupted: Path) -> None:
    script = interrupted / STATE / "rollouts" / INTERRUPTED / "node.sh"
    was = script.stat()
    assert rollout.follow(here(interrupted), rollout.undo(here(interrupted), INTERRUPTED)).word == "rolled back"
    assert (script.stat().st_ino, script.stat().st_mtime_ns) == (was.st_ino, was.st_mtime_ns)


def test_a_script_that_did_not_arrive_whole_runs_nothing(interrupted: Path) -> None:
    before = tree(interrupted / "etc")
    for stdin in (b"", bundle.script_bundle()[:-5], b"bundle\t1\nEND\n", b"script\tAAAA"):
        out = here(interrupted).run(bundle.script(), ["undo", INTERRUPTED, "eve", ""], stdin=stdin).out
        assert out.startswith(b"refused")
    assert tree(interrupted / "etc") == before


@pytest.mark.parametrize("how", ["anybody's", pytest.param("another's", marks=as_root)])
def test_nothing_is_written_where_somebody_else_can_change_it_meanwhile(tmp_path: Path, how: str) -> None:
    """A copy there could become a link to another file before its owner is set."""
    manifest, theirs = tmp_path / MANIFEST[1:], tmp_path / "opt/tracing"
    for folder in (manifest.parent, theirs):
        folder.mkdir(parents=True)
    manifest.write_bytes(BEFORE + b"  volumes: [{name: t, hostPath: {path: /opt/tracing}}]\n")
    spoil(theirs, how)
    before = tree(theirs)
    with pytest.raises(PlanRefused, match="change under our hands"):
        rollout.begin(here(tmp_path), older_state.plan(FileChange("/opt/tracing/t.yaml", None, b"x")), who="alice")
    assert tree(theirs) == before


# --- an older version's -------------------------------------------------------------------------------
def assert_taken_over(root: Path) -> None:
    assert sorted(path.name for path in (root / OLD).iterdir()) == ["spans.db"]
    assert (root / OLD / "spans.db").read_bytes() == b"the database"
    assert (root / STATE).stat().st_mode & 0o7777 == 0o700
    assert sorted(path.name for path in (root / STATE).iterdir()) == ["original", "rollouts"]
    assert not (root / STATE / "rollouts" / DONE / "node.sh").exists()


def test_status_of_an_older_versions_state_changes_nothing(older: Path) -> None:
    before = tree(older)
    facts = read_facts(here(older), [TRACING])
    assert facts.distrust == ""
    assert [(one.id, one.ended, one.alive, one.who) for one in facts.rollouts] == [
        (DONE, "done", False, "alice@desk"),
        (INTERRUPTED, "", False, "alice"),
    ]
    assert facts.lock.endswith("alive=no")
    with pytest.raises(PlanRefused, match=f"{INTERRUPTED}, was interrupted"):
        VERBS["begin"](here(older))
    assert_taken_over(older)
    assert {name: one for name, one in tree(older).items() if name.startswith("etc")} == {
        name: one for name, one in before.items() if name.startswith("etc")
    }


@pytest.mark.parametrize(("way", "word", "content"), [("finish", "done", SECOND), ("undo", "rolled back", FIRST)])
def test_an_older_versions_rollout_goes_on_or_back(older: Path, way: str, word: str, content: bytes) -> None:
    host = here(older)
    VERBS[way](host)
    assert rollout.follow(host, INTERRUPTED).word == word
    assert (older / TRACING[1:]).read_bytes() == content
    assert not list(older.glob("etc/**/.k8s-trace-tui-*"))
    assert_taken_over(older)
    assert [one.ended for one in read_facts(host).rollouts] == ["done", word]


def test_an_older_versions_original_is_put_back(older: Path) -> None:
    host = here(older)
    planned = rollout.reversion(host, Part.APISERVER)
    assert {change.path: change.after for change in planned.plan.changes} == {MANIFEST: BEFORE, TRACING: None}
    rollout.follow(host, rollout.undo(host, INTERRUPTED))
    assert rollout.follow(host, rollout.revert(host, Part.APISERVER, who="bob")).word == "done"
    assert (older / MANIFEST[1:]).read_bytes() == BEFORE
    assert not (older / TRACING[1:]).parent.exists()
    assert_taken_over(older)


@pytest.mark.parametrize("how", ["a link", "anybody's", "a second name", pytest.param("another's", marks=as_root)])
@pytest.mark.parametrize("name", ["", "rollouts", f"rollouts/{INTERRUPTED}/meta", "original/apiserver/meta"])
def test_an_older_versions_state_that_others_could_have_made_is_refused_by_name(
    tmp_path: Path, name: str, how: str
) -> None:
    older_state.lay_out(tmp_path)
    path = tmp_path / OLD / name
    if how == "a second name":
        if path.is_dir():
            pytest.skip("a directory has none")
        os.link(path, tmp_path / "second")
    else:
        spoil(path, how)
    before = tree(tmp_path)
    facts = read_facts(here(tmp_path))
    assert facts.rollouts == ()
    assert str(path) in facts.distrust
    for verb, run in VERBS.items():
        with pytest.raises(PlanRefused, match="not believed: look who made them") as refused:
            run(here(tmp_path))
        assert str(path) in str(refused.value), verb
    assert tree(tmp_path) == before


@pytest.mark.parametrize("step", ["copied", "moved"])
def test_taking_over_that_was_cut_off_is_done_again(tmp_path: Path, step: str) -> None:
    """A power cut while it is copied, or after that and before the older one is gone."""
    older_state.lay_out(tmp_path)
    state, new = tmp_path / STATE, tmp_path / f"{STATE}.new"
    if step == "copied":
        shutil.copytree(tmp_path / OLD / "rollouts", new / "rollouts", symlinks=True)
    else:
        aside = tmp_path / "aside"
        shutil.copytree(tmp_path / OLD, aside, symlinks=True)
        assert rollout.undo(here(tmp_path), INTERRUPTED) == INTERRUPTED
        (state / "taking").touch()
        for left in ("original", "lock"):
            (aside / left).rename(tmp_path / OLD / left)
    with pytest.raises(PlanRefused) if step == "moved" else pytest.MonkeyPatch.context():  # it has ended already
        rollout.undo(here(tmp_path), INTERRUPTED)
    assert_taken_over(tmp_path)
    assert not new.exists()
    assert [one.ended for one in read_facts(here(tmp_path)).rollouts] == ["done", "rolled back"]


def test_an_older_version_at_work_is_waited_for(control_plane: ControlPlane) -> None:
    script = older_script()
    if script is None:
        pytest.skip("the history is not here")
    plan, old = control_plane.arm(), control_plane.root / OLD
    with older_state.of_that_version(script):
        os.kill(control_plane.kubelet.pid, signal.SIGSTOP)  # it has to wait until that goes on
        name = control_plane.begin(plan)
    facts = control_plane.facts()
    assert [(one.id, one.ended, one.alive) for one in facts.rollouts] == [(name, "", True)]
    assert facts.distrust == ""
    waits = r"holds the lock on this node, that of alice .*wait for its end"
    for _ in range(2):
        with pytest.raises(PlanRefused, match=waits):
            rollout.undo(control_plane.host, name)
        with pytest.raises(PlanRefused, match=waits):
            rollout.begin(control_plane.host, plan, who="bob")
        assert (old / "rollouts" / name / "journal").exists()
        assert not (control_plane.root / STATE).exists()
    os.kill(control_plane.kubelet.pid, signal.SIGCONT)
    assert control_plane.follow(name).word == "done"
    eventually(lambda: not (old / "lock").is_symlink(), "the older watcher keeps its lock")
    assert control_plane.roll(control_plane.rate(1000)).word == "done"
    assert not (old / "rollouts").exists()
    assert [one.ended for one in control_plane.facts().rollouts] == ["done", "done"]


def test_an_older_version_that_comes_back_later_is_told_apart(interrupted: Path) -> None:
    """Both versions in use: what the older one left undone stands in the way, what it has ended does not."""
    script = older_script()
    if script is None:
        pytest.skip("the history is not here")
    host = here(interrupted)
    assert rollout.follow(host, rollout.undo(host, INTERRUPTED)).word == "rolled back"
    me = os.getuid(), os.getgid()
    change = older_state.plan(FileChange(TRACING, FIRST, SECOND, 0o600, *me))
    back = older_state.plan(FileChange(TRACING, SECOND, FIRST, 0o600, *me))
    with older_state.of_that_version(script):
        rollout.begin(host, change, who="bob", name="20261126-130000-cccccc")
        host.environment["K8S_TRACE_TUI_STOP_AT"] = "written"
        with pytest.raises(ClusterError):
            rollout.begin(host, back, who="bob", name="20261126-130100-dddddd")
        del host.environment["K8S_TRACE_TUI_STOP_AT"]
    assert "older version of this program has left the rollout 20261126-130100-dddddd" in read_facts(host).distrust
    with pytest.raises(PlanRefused, match="with that version"):
        rollout.begin(host, older_state.plan(FileChange(TRACING, FIRST, b"x", 0o600, *me)), who="alice")
    with older_state.of_that_version(script):
        rollout.finish(host, "20261126-130100-dddddd")
    assert read_facts(host).distrust == ""
    last = older_state.plan(FileChange(TRACING, FIRST, b"x", 0o600, *me))
    assert rollout.follow(host, rollout.begin(host, last, who="alice")).word == "done"


# --- every shell ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("shell", [("dash",), ("bash",), ("busybox", "sh")], ids=" ".join)
def test_every_shell_takes_over_and_refuses_alike(tmp_path: Path, shell: tuple[str, ...]) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not here")
    older_state.lay_out(tmp_path)
    host = ShellHost(tmp_path, alive=False, shell=shell)
    if shell[0] == "busybox":
        tools = tmp_path.with_name(f"{tmp_path.name}-tools")
        tools.mkdir()
        subprocess.run(["busybox", "--install", "-s", str(tools)], check=True, timeout=20)
        host.environment["PATH"] = f"{tools}:{os.environ['PATH']}"
    path = tmp_path / OLD / "rollouts" / INTERRUPTED / "meta"
    path.chmod(0o620)
    with pytest.raises(PlanRefused, match="meta can be written by its group"):
        rollout.undo(host, INTERRUPTED)
    path.chmod(0o600)
    assert rollout.follow(host, rollout.undo(host, INTERRUPTED)).word == "rolled back"
    plan: Plan = older_state.plan(FileChange("/etc/cron.d/x", None, b"x"))
    assert plan.trigger is Trigger.MANIFEST
    with pytest.raises(PlanRefused, match="neither below"):
        rollout.begin(host, plan, who="alice")
    assert rollout.follow(host, rollout.revert(host, Part.APISERVER, who="bob")).word == "done"
    assert (tmp_path / MANIFEST[1:]).read_bytes() == BEFORE
    assert_taken_over(tmp_path)
