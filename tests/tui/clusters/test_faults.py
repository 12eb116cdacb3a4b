"""Every step of a rollout broken in turn. Afterwards every file is byte for byte the old or the new one, nothing lies
where nothing lay, the control plane is ready, and the journal tells how it ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.tui.clusters.control_plane import (
    MANIFEST,
    PACE,
    PATIENCE,
    TRACING,
    ControlPlane,
    start_kubelet,
    traced,
    tracing_file,
    untraced,
)
from tui.clusters import rollout
from tui.clusters.model import ClusterError, FileChange, Part, Plan, PlanRefused, Trigger

Files = dict[str, bytes]
PROGRAM = """
import sys
from pathlib import Path
from tests.doubles.shell_host import ShellHost
from tui import sampling
root, database = map(Path, sys.argv[1:])
asked = sampling.Asked(per_million=0, yes=True, database=database)
sys.exit(sampling.change(sampling.Reach((ShellHost(root),)), asked, "arm"))
"""


def with_changes(files: Files, plan: Plan) -> Files:
    after = dict(files)
    for change in plan.changes:
        if change.after is None:
            after.pop(change.path[1:], None)
        else:
            after[change.path[1:]] = change.after
    return after


def wrap(plane: ControlPlane, tool: str, text: str) -> Path:
    """A tool of the node that misbehaves: `text` is sh, `$REAL` the real one."""
    real = shutil.which(tool, path=plane.host.environment["PATH"])
    assert real is not None
    folder = plane.root.parent / "wrapped"
    folder.mkdir(exist_ok=True)
    path = folder / tool
    path.write_text(f"#!/bin/sh\nREAL={real}\n{text}\n")
    path.chmod(0o755)
    if str(folder) not in plane.host.environment["PATH"]:
        plane.host.environment["PATH"] = f"{folder}:{plane.host.environment['PATH']}"
    return path


def killed_at(plane: ControlPlane, plan: Plan, step: str) -> str:
    """Begin a plan whose process on the node dies at a step, and wait until it is dead."""
    plane.host.environment["K8S_TRACE_TUI_STOP_AT"] = step
    name = rollout.new_id()
    try:
        plane.begin(plan, name=name)
    except ClusterError:
        if step not in ("begin", "check", "backup", "staged"):  # only what begin does itself can break begin
            raise
    del plane.host.environment["K8S_TRACE_TUI_STOP_AT"]
    outcome = plane.follow(name)
    assert outcome.word == "interrupted", (step, outcome)
    return name


def assert_all_well(plane: ControlPlane, expected: Files, name: str, ended: str) -> None:
    assert plane.files() == expected
    plane.until_ready()
    facts = plane.facts()
    assert facts.lock == ""
    (told,) = [one for one in facts.rollouts if one.id == name]
    assert (told.ended, told.alive) == (ended, False), told
    # no directory of ours where none was, and nobody else may read what only root could
    kept = {path.rpartition("/")[0] for path in expected if "k8s-trace-tui" in path}
    assert plane.tracing.parent.exists() is bool(kept)
    assert {path.stat().st_mode & 0o777 for path in (plane.manifest, plane.tracing) if path.exists()} == {0o600}
    journal = plane.root / f"var/lib/k8s-trace-tui-rollouts/rollouts/{name}/journal"
    lines = journal.read_text().splitlines()
    assert [line.split(" ")[1] for line in lines].count("end") == 1, lines
    assert lines[-1].split(" ")[1:3] == ["end", ended.replace(" ", "-")], lines


# --- killed at each step --------------------------------------------------
ARMING = [
    *("begin", "check", "backup", "staged", "watch", "before-1", "write-1", "before-2", "write-2", "written"),
    *("restart", "gone", "started", "ready", "controllers"),
]


@pytest.mark.parametrize("way", ["finish", "undo"])
@pytest.mark.parametrize("step", ARMING)
def test_killed_while_arming(control_plane: ControlPlane, step: str, way: str) -> None:
    old, plan = control_plane.files(), control_plane.arm()
    name = killed_at(control_plane, plan, step)
    if way == "finish":  # what is found, and refused, is the same whichever way is gone after
        (interrupted,) = control_plane.facts().rollouts
        assert (interrupted.ended, interrupted.alive) == ("", False)
        with pytest.raises(PlanRefused, match="interrupted"):
            rollout.begin(control_plane.host, control_plane.arm(), who="bob")
    going_on = rollout.finish if way == "finish" else rollout.undo
    assert going_on(control_plane.host, name) == name
    outcome = control_plane.follow(name)
    if way == "finish" and step not in ("begin", "check", "backup"):
        assert_all_well(control_plane, with_changes(old, plan), name, "done")
    else:
        assert outcome.word == "rolled back", outcome
        assert_all_well(control_plane, old, name, "rolled back")


@pytest.mark.parametrize("way", ["finish", "undo"])
@pytest.mark.parametrize("step", ["restart", "gone"])
def test_killed_while_the_rate_changes(armed: ControlPlane, step: str, way: str) -> None:
    old, plan = armed.files(), armed.rate(1000)
    name = killed_at(armed, plan, step)
    (rollout.finish if way == "finish" else rollout.undo)(armed.host, name)
    outcome = armed.follow(name)
    assert outcome.word == ("done" if way == "finish" else "rolled back"), outcome
    assert_all_well(armed, with_changes(old, plan) if way == "finish" else old, name, outcome.word)


@pytest.mark.parametrize("way", ["finish", "undo"])
@pytest.mark.parametrize("step", ["write-2", "gone", "remove"])
def test_killed_while_turning_off(armed: ControlPlane, step: str, way: str) -> None:
    """The file goes only after nothing reads it any more, and comes back before something does."""
    old, manifest, tracing = armed.files(), armed.manifest.read_bytes(), armed.tracing.read_bytes()
    plan = armed.plan(
        Trigger.MANIFEST,
        FileChange(TRACING, tracing, None, 0o600, os.getuid(), os.getgid()),
        FileChange(MANIFEST, manifest, untraced(manifest), 0o600, os.getuid(), os.getgid()),
    )
    name = killed_at(armed, plan, step)
    (rollout.finish if way == "finish" else rollout.undo)(armed.host, name)
    outcome = armed.follow(name)
    assert outcome.word == ("done" if way == "finish" else "rolled back"), outcome
    assert_all_well(armed, with_changes(old, plan) if way == "finish" else old, name, outcome.word)


@pytest.mark.parametrize(("first", "second"), [("write-1", "gone"), ("started", "restart"), ("gone", "controllers")])
def test_killed_and_finished_and_killed_and_put_back(control_plane: ControlPlane, first: str, second: str) -> None:
    old, plan = control_plane.files(), control_plane.arm()
    name = killed_at(control_plane, plan, first)
    control_plane.host.environment["K8S_TRACE_TUI_STOP_AT"] = second
    rollout.finish(control_plane.host, name)
    assert control_plane.follow(name).word == "interrupted"
    control_plane.host.environment["K8S_TRACE_TUI_STOP_AT"] = "back"
    rollout.undo(control_plane.host, name)
    assert control_plane.follow(name).word == "interrupted"
    del control_plane.host.environment["K8S_TRACE_TUI_STOP_AT"]
    rollout.undo(control_plane.host, name)
    control_plane.follow(name)
    assert_all_well(control_plane, old, name, "rolled back")


@pytest.mark.parametrize("step", ["begin", "restart", "started"])
def test_the_program_is_killed_with_all_its_terminal(control_plane: ControlPlane, tmp_path: Path, step: str) -> None:
    """kill -9 of the whole process group of `sampling arm`, as a closed terminal and a dead laptop do worse than."""
    old = control_plane.files()
    control_plane.host.environment["K8S_TRACE_TUI_PACE"] = str(10 * PACE)
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(control_plane.root), str(tmp_path / "none.db")],
        env={**os.environ, **control_plane.host.environment},
        cwd=Path(__file__).parents[3],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stderr is not None
    try:
        assert any(line.split()[1:2] == [step] for line in program.stderr), "it never came so far"
    finally:
        os.killpg(program.pid, signal.SIGKILL)
        program.wait(10)
        program.stderr.close()
    (begun,) = control_plane.facts().rollouts
    outcome = control_plane.follow(begun.id)
    assert outcome.word == "done", outcome
    after = control_plane.files()
    assert after.keys() - old.keys() == {TRACING[1:]}
    assert after[MANIFEST[1:]] != old[MANIFEST[1:]]
    assert_all_well(control_plane, after, begun.id, "done")
    control_plane.follow(rollout.revert(control_plane.host, Part.APISERVER, who="bob"))
    assert control_plane.files() == old


@pytest.mark.parametrize(("step", "way"), [("back", "finish"), ("restore-2", "undo")])
def test_killed_while_putting_back(control_plane: ControlPlane, step: str, way: str) -> None:
    old = control_plane.files()
    name = killed_at(control_plane, control_plane.arm(content=tracing_file(1_000_001)), step)
    (rollout.finish if way == "finish" else rollout.undo)(control_plane.host, name)
    outcome = control_plane.follow(name)
    assert "less than or equal to one million" in outcome.detail, outcome
    assert_all_well(control_plane, old, name, "rolled back")


def test_killed_after_its_end_is_ended(control_plane: ControlPlane) -> None:
    old, plan = control_plane.files(), control_plane.arm()
    control_plane.host.environment["K8S_TRACE_TUI_STOP_AT"] = "end"
    name = rollout.begin(control_plane.host, plan, who="alice", patience=PATIENCE)
    assert control_plane.follow(name).word == "done"
    del control_plane.host.environment["K8S_TRACE_TUI_STOP_AT"]
    eventually(lambda: "alive=no" in control_plane.facts().lock, "the watcher did not die with its lock")
    back = control_plane.roll(
        control_plane.plan(Trigger.NOTHING, FileChange("/etc/kubernetes/other", None, b"x", 0o600))
    )
    assert back.word == "done", "a dead owner's lock is taken over"
    assert_all_well(control_plane, {**with_changes(old, plan), "etc/kubernetes/other": b"x"}, name, "done")


# --- what the new one may do --------------------------------------------------
@pytest.fixture
def armed(control_plane: ControlPlane) -> ControlPlane:
    """Tracing is on at rate 0, its pod has never been restarted."""
    control_plane.tracing.parent.mkdir()
    control_plane.tracing.write_bytes(tracing_file(0))
    control_plane.tracing.chmod(0o600)
    draft = control_plane.root / "etc/draft"
    draft.write_bytes(traced(control_plane.manifest.read_bytes()))
    draft.chmod(0o600)
    draft.rename(control_plane.manifest)
    eventually(lambda: control_plane.status("/livez") == 0, "the old server is still there")
    control_plane.until_ready()
    return control_plane


BAD = {
    "rate": (tracing_file(1_000_001), "less than or equal to one million"),
    "field": (tracing_file(0, extra="bogus: 1\n"), "unknown field"),
    "scheme": (tracing_file(0, "http://x:4317"), "unsupported scheme: http"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_a_file_that_the_server_refuses(control_plane: ControlPlane, mistake: str) -> None:
    old = control_plane.files()
    content, reason = BAD[mistake]
    outcome = control_plane.roll(control_plane.arm(content=content))
    assert reason in outcome.detail
    log = control_plane.root / f"var/lib/k8s-trace-tui-rollouts/rollouts/{outcome.id}/last.log"
    assert reason in log.read_text(), "the log vanishes with its pod"
    assert_all_well(control_plane, old, outcome.id, "rolled back")


def test_a_bad_rate_on_the_cheap_way(armed: ControlPlane) -> None:
    old = armed.files()
    outcome = armed.roll(armed.rate(0, tracing_file(2_000_000)))
    assert "less than or equal to one million" in outcome.detail
    assert_all_well(armed, old, outcome.id, "rolled back")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("crash", 'does not stay up (exit 1: "failed to initialize admission'),
        ("unready", "/readyz answers 500"),
        ("flap", "not ready"),
        ("frozen", "configmaps?limit=1 does not answer"),
        ("deaf", "/livez does not answer"),
    ],
)
def test_a_new_server_that_does_not_work(control_plane: ControlPlane, fault: str, reason: str) -> None:
    old = control_plane.files()
    control_plane.spoil(fault)
    outcome = control_plane.roll(control_plane.arm(), patience=4)
    assert reason in outcome.detail
    assert_all_well(control_plane, old, outcome.id, "rolled back")


@pytest.mark.parametrize("times", [1, 2])
def test_one_bad_end_is_an_accident_and_two_are_not(control_plane: ControlPlane, times: int) -> None:
    """The second time its log is saved and it is put back at once: not one second is waited for readiness."""
    old, plan = control_plane.files(), control_plane.arm()
    control_plane.spoil("hiccup", str(times))
    outcome = control_plane.roll(plan)
    log = control_plane.root / f"var/lib/k8s-trace-tui-rollouts/rollouts/{outcome.id}/last.log"
    assert '"command failed" err="etcd client: context deadline exceeded"' in log.read_text()
    if times == 1:
        assert_all_well(control_plane, with_changes(old, plan), outcome.id, "done")
    else:
        assert 'does not stay up (exit 1: "etcd client: context deadline exceeded"' in outcome.detail
        assert_all_well(control_plane, old, outcome.id, "rolled back")


def test_what_is_normal_on_the_way_is_taken_for_normal(control_plane: ControlPlane) -> None:
    """The old one ends by SIGKILL (137), the new one answers 403 and 500 before it is ready."""
    control_plane.spoil("slow")
    old, plan = control_plane.files(), control_plane.arm()
    before = {one["id"] for one in control_plane.cri() if one["name"] == "kube-apiserver"}
    asked = wrap(
        control_plane, "curl", 'answer=$($REAL "$@"); code=$?\necho "$answer" >>$0.log; echo "$answer"; exit $code'
    )
    name = control_plane.begin(plan)
    ended = [{"id": one, "exitCode": "137"} for one in before]
    eventually(
        lambda: (
            [{k: one[k] for k in ("id", "exitCode")} for one in control_plane.cri() if one["id"] in before] == ended
        ),
        "the old one was not killed",
    )
    outcome = control_plane.follow(name)
    codes = asked.with_name("curl.log").read_text().split()
    assert {"403", "500", "200"} <= set(codes), codes
    assert_all_well(control_plane, with_changes(old, plan), outcome.id, "done")


def test_unready_on_the_cheap_way_restarts_with_the_old_rate(armed: ControlPlane) -> None:
    old = armed.files()
    armed.spoil("unready", "1000")
    outcome = armed.roll(armed.rate(1000), patience=4)
    assert "not ready" in outcome.detail
    assert [entry.step for entry in outcome.entries].count("restart") == 2
    assert_all_well(armed, old, outcome.id, "rolled back")


def test_a_port_that_is_taken_for_a_moment_is_no_reason(control_plane: ControlPlane) -> None:
    old, plan = control_plane.files(), control_plane.arm()
    control_plane.spoil("busy", "1")
    outcome = control_plane.roll(plan)
    assert_all_well(control_plane, with_changes(old, plan), outcome.id, "done")


def test_a_pod_that_never_comes_back(control_plane: ControlPlane) -> None:
    old, before = control_plane.files(), control_plane.manifest.read_bytes()
    missing = before + b"  - hostPath:\n      path: /etc/kubernetes/nowhere\n      type: File\n    name: nowhere\n"
    change = FileChange(MANIFEST, before, missing, 0o600, os.getuid(), os.getgid())
    outcome = control_plane.roll(control_plane.plan(Trigger.MANIFEST, change), patience=4)
    assert "no new kube-apiserver was started" in outcome.detail
    assert_all_well(control_plane, old, outcome.id, "rolled back")


def test_a_kubelet_that_dies_meanwhile(control_plane: ControlPlane) -> None:
    old, plan = control_plane.files(), control_plane.arm()
    name = killed_at(control_plane, plan, "write-1")
    control_plane.spoil("still")  # it has not acted yet when it dies
    eventually((control_plane.root / "run/pocket/held").exists, "kubelet does not hold still")
    rollout.finish(control_plane.host, name)
    os.kill(control_plane.kubelet.pid, 19)
    try:
        outcome = control_plane.follow(name)
        assert "kubelet did not act" in outcome.detail
    finally:
        os.kill(control_plane.kubelet.pid, 18)
        (control_plane.faults / "still").unlink(missing_ok=True)
    assert_all_well(control_plane, old, outcome.id, "rolled back")


def test_cri_that_does_not_stop_it(armed: ControlPlane) -> None:
    old = armed.files()
    armed.spoil("stop")
    outcome = armed.roll(armed.rate(1000))
    assert "CRI does not stop" in outcome.detail
    assert_all_well(armed, old, outcome.id, "rolled back")


# --- writing --------------------------------------------------
@pytest.mark.parametrize("target", [TRACING, MANIFEST])
def test_a_rename_that_fails(control_plane: ControlPlane, target: str) -> None:
    old = control_plane.files()
    wrap(control_plane, "mv", f'case "$*" in *-after\\ *{target}) exit 1 ;; esac\nexec $REAL "$@"')
    outcome = control_plane.roll(control_plane.arm())
    assert f"{target} could not be written" in outcome.detail
    assert_all_well(control_plane, old, outcome.id, "rolled back")


def test_a_rename_on_the_way_back_is_tried_again(control_plane: ControlPlane) -> None:
    old = control_plane.files()
    control_plane.spoil("crash")
    count = control_plane.root.parent / "count"
    wrap(
        control_plane,
        "mv",
        f'case "$*" in *-before\\ *) echo x >>{count}; [ "$(wc -l <{count})" -gt 3 ] || exit 1 ;; esac\n'
        'exec $REAL "$@"',
    )
    outcome = control_plane.roll(control_plane.arm())
    assert len(count.read_text().split()) == 4
    assert_all_well(control_plane, old, outcome.id, "rolled back")


@pytest.mark.parametrize("which", ["before", "after"])
def test_a_disk_that_is_full_before_anything_is_touched(control_plane: ControlPlane, which: str) -> None:
    old = control_plane.files()
    half = 'for last; do :; done; head -c 20 "$1" >"$last"; exit 1'
    wrap(control_plane, "cp", f'case "$*" in *-{which}) {half} ;; esac\nexec $REAL "$@"')
    with pytest.raises(PlanRefused, match=r"takes (no copy of|no new) /etc/\S+ .*: is there room"):
        rollout.begin(control_plane.host, control_plane.arm(), who="alice")
    assert control_plane.files() == old
    assert control_plane.ready()
    facts = control_plane.facts()
    assert (facts.lock, facts.rollouts) == ("", ())


def test_a_disk_that_fills_up_while_it_runs(control_plane: ControlPlane) -> None:
    """Both copies wait beside their places: the way back needs no room."""
    old = control_plane.files()
    control_plane.spoil("crash")
    wrap(control_plane, "cp", f'if [ -s {control_plane.tracing} ]; then exit 1; fi\nexec $REAL "$@"')
    outcome = control_plane.roll(control_plane.arm())
    assert_all_well(control_plane, old, outcome.id, "rolled back")


# --- others --------------------------------------------------
def test_two_operators_at_once(control_plane: ControlPlane) -> None:
    old, plan = control_plane.files(), control_plane.arm()
    begun: list[str] = []
    refused: list[str] = []
    gate = threading.Barrier(3)

    def operator(who: str) -> None:
        gate.wait()
        try:
            begun.append(rollout.begin(control_plane.host, plan, who=who, patience=PATIENCE))
        except PlanRefused as error:
            refused.append(str(error))

    operators = [threading.Thread(target=operator, args=(who,)) for who in ("alice", "bob", "carol")]
    for one in operators:
        one.start()
    for one in operators:
        one.join()
    assert (len(begun), len(refused)) == (1, 2), (begun, refused)
    with pytest.raises(PlanRefused, match="its owner lives"):
        rollout.unlock(control_plane.host)
    outcome = control_plane.follow(begun[0])
    assert_all_well(control_plane, with_changes(old, plan), outcome.id, "done")


def test_a_lock_that_somebody_holds(control_plane: ControlPlane) -> None:
    old, plan = control_plane.files(), control_plane.arm()
    home = control_plane.root / "var/lib/k8s-trace-tui-rollouts"
    home.mkdir(parents=True)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    born = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[19]
    held = f"pid={os.getpid()} born={born} boot={boot} since=1 id=x who=bob"
    (home / "lock").symlink_to(held)
    with pytest.raises(PlanRefused, match=rf"holds the lock on this node, that of bob \(x, process {os.getpid()}\)"):
        rollout.begin(control_plane.host, plan, who="alice")
    assert (control_plane.files(), os.readlink(home / "lock")) == (old, held)
    assert control_plane.facts().rollouts == ()
    assert control_plane.ready()


@pytest.mark.parametrize("ways", [("finish", "undo"), ("finish", "finish")])
def test_two_operators_about_what_was_interrupted(control_plane: ControlPlane, ways: tuple[str, str]) -> None:
    old, plan = control_plane.files(), control_plane.arm()
    name = killed_at(control_plane, plan, "write-1")
    gate = threading.Barrier(2)
    refused: list[tuple[str, str]] = []

    def operator(way: str) -> None:
        gate.wait()
        try:
            (rollout.finish if way == "finish" else rollout.undo)(control_plane.host, name, who=way)
        except PlanRefused as error:
            refused.append((way, str(error)))

    operators = [threading.Thread(target=operator, args=(way,)) for way in ways]
    for one in operators:
        one.start()
    for one in operators:
        one.join()
    ((loser, why),) = refused
    assert any(reason in why for reason in ("still runs", "holds the lock", "has ended"))
    outcome = control_plane.follow(name)
    done = ways[0] == ways[1] or loser == "undo"
    assert outcome.word == ("done" if done else "rolled back")
    assert_all_well(control_plane, with_changes(old, plan) if done else old, name, outcome.word)


def test_a_lock_of_a_dead_process(control_plane: ControlPlane) -> None:
    home = control_plane.root / "var/lib/k8s-trace-tui-rollouts"
    home.mkdir(parents=True)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    dead = f"pid=999999 born=1 boot={boot} since=1 id=x who=somebody"
    reused = f"pid={os.getpid()} born=1 boot={boot} since=1 id=x who=somebody"
    other_boot = f"pid={os.getpid()} born=1 boot=0 since=1 id=x who=somebody"
    for text in (dead, reused, other_boot):
        (home / "lock").symlink_to(text)
        assert control_plane.facts().lock.endswith("alive=no")
        assert rollout.unlock(control_plane.host) == text
        assert control_plane.facts().lock == ""
    (home / "lock").symlink_to(dead)
    change = FileChange("/etc/kubernetes/other", None, b"x", 0o600)
    outcome = control_plane.roll(control_plane.plan(Trigger.NOTHING, change))
    assert outcome.word == "done"
    assert control_plane.facts().lock == ""


def test_a_journal_without_room(control_plane: ControlPlane) -> None:
    """The watcher goes on without its journal; what is not told did not happen, and is finished when there is room."""
    old, plan = control_plane.files(), control_plane.arm()
    name = rollout.new_id()
    journal = control_plane.root / f"var/lib/k8s-trace-tui-rollouts/rollouts/{name}/journal"
    aside = journal.with_name("aside")
    wrap(
        control_plane,
        "crictl",
        f'if [ ! -e {aside} ] && grep -q " restart " {journal} 2>/dev/null; then\n'
        f'mv {journal} {aside}; ln -s /dev/full {journal}; fi\nexec $REAL "$@"',
    )
    rollout.begin(control_plane.host, plan, who="alice", patience=PATIENCE, name=name)
    lock = control_plane.root / "var/lib/k8s-trace-tui-rollouts/lock"
    eventually(lambda: not lock.is_symlink(), "the watcher does not come to its end")
    assert control_plane.files() == with_changes(old, plan)
    aside.rename(journal)
    aside.touch()
    assert control_plane.follow(name).word == "interrupted"
    rollout.finish(control_plane.host, name)
    outcome = control_plane.follow(name)
    assert_all_well(control_plane, with_changes(old, plan), outcome.id, "done")


def test_a_journal_with_half_a_line(control_plane: ControlPlane) -> None:
    old, plan = control_plane.files(), control_plane.arm()
    name = killed_at(control_plane, plan, "write-1")
    with (control_plane.root / f"var/lib/k8s-trace-tui-rollouts/rollouts/{name}/journal").open("ab") as journal:
        journal.write(b"1795 end do")
    assert control_plane.follow(name).word == "interrupted"
    rollout.finish(control_plane.host, name)
    outcome = control_plane.follow(name)
    assert_all_well(control_plane, with_changes(old, plan), outcome.id, "done")


def test_a_clock_that_jumps(control_plane: ControlPlane) -> None:
    old, plan = control_plane.files(), control_plane.arm()
    wrap(
        control_plane,
        "date",
        "case $(($(od -An -N1 -tu1 /dev/urandom) % 2)) in 0) echo 1 ;; *) echo 4000000000 ;; esac",
    )
    outcome = control_plane.roll(plan)
    assert_all_well(control_plane, with_changes(old, plan), outcome.id, "done")


@pytest.mark.parametrize("way", ["finish", "undo"])
def test_somebody_elses_bytes_are_never_written_over(control_plane: ControlPlane, way: str) -> None:
    name = killed_at(control_plane, control_plane.arm(), "write-1")
    theirs = control_plane.manifest.read_bytes() + b"# theirs\n"
    control_plane.manifest.write_bytes(theirs)
    (rollout.finish if way == "finish" else rollout.undo)(control_plane.host, name)
    outcome = control_plane.follow(name)
    assert "left as somebody else made it" in outcome.detail
    assert control_plane.manifest.read_bytes() == theirs
    assert not control_plane.tracing.exists()
    control_plane.until_ready()


def test_a_way_there_that_breaks_changes_nothing_of_it(control_plane: ControlPlane) -> None:
    old, plan = control_plane.files(), control_plane.arm()
    name = rollout.begin(control_plane.host, plan, who="alice", patience=PATIENCE)
    control_plane.host.broken = True
    steps: list[str] = []

    def tell(step: str, _detail: str) -> None:
        steps.append(step)
        control_plane.host.broken = False

    outcome = rollout.follow(control_plane.host, name, tell, poll=0.15)
    assert steps[:2] == ["lost", "found"]
    assert_all_well(control_plane, with_changes(old, plan), outcome.id, "done")


def second_manifest(plane: ControlPlane) -> None:
    os.kill(plane.kubelet.pid, 19)  # what it would do about it is not what is looked at here
    (plane.manifest.parent / "kube-apiserver.yaml.bak").write_bytes(plane.manifest.read_bytes())


def controllers_back_off(plane: ControlPlane) -> None:
    for record in (plane.root / "run/pocket/cri").iterdir():
        text = record.read_text()
        if "name=kube-scheduler" in text:
            record.write_text(text.replace("CONTAINER_RUNNING", "CONTAINER_EXITED"))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (second_manifest, "describes the pod kube-apiserver too"),
        (controllers_back_off, "kube-scheduler is in back-off"),
        (lambda plane: plane.spoil("unready", "any"), "is not well"),
        (lambda plane: plane.spoil("frozen", "any"), "is not well: .*configmaps.*does not answer"),
        (lambda plane: plane.spoil("cri"), "CRI does not answer"),
    ],
)
def test_refused_before_anything_is_touched(
    control_plane: ControlPlane, spoil: Callable[[ControlPlane], None], reason: str
) -> None:
    plan = control_plane.arm()
    spoil(control_plane)
    before = control_plane.files()
    try:
        with pytest.raises(PlanRefused, match=reason):
            rollout.begin(control_plane.host, plan, who="alice")
        assert control_plane.files() == before
        assert control_plane.facts().rollouts == ()
        assert control_plane.facts().lock == ""
    finally:
        os.kill(control_plane.kubelet.pid, 18)


def test_a_node_that_did_not_come_out_well_stops_the_rest(control_plane: ControlPlane) -> None:
    old, plan = control_plane.files(), control_plane.arm()
    control_plane.spoil("crash")
    steps = [(control_plane.host, plan), (control_plane.host, plan)]
    first, second = rollout.Rollout(steps, lambda *_: None, who="alice", patience=PATIENCE, poll=0.15).run()
    assert (first.word, second.word) == ("rolled back", "not begun")
    assert_all_well(control_plane, old, first.id, "rolled back")


def test_no_span_is_a_warning_and_a_question_and_never_a_restart(control_plane: ControlPlane) -> None:
    old, plan = control_plane.files(), control_plane.arm()
    told: list[tuple[str, str, str]] = []
    asked: list[str] = []
    since: list[str] = []

    def verify(_plan: Plan, started: str) -> bool:
        since.append(started)
        return False

    def ask(node: str, _sentence: str) -> bool:
        asked.append(node)
        return False

    other = control_plane.plan(Trigger.NOTHING, FileChange("/etc/kubernetes/other", None, b"x", 0o600))
    steps = [(control_plane.host, plan), (control_plane.host, other)]
    first, second = rollout.Rollout(
        steps, lambda *step: told.append(step), who="alice", verify=verify, ask=ask, patience=PATIENCE, poll=0.15
    ).run()
    assert (first.word, first.spans, second.word, asked) == ("done", False, "not begun", ["cp-1"])
    assert "warning" in [step for _, step, _ in told]
    assert_all_well(control_plane, with_changes(old, plan), first.id, "done")
    (server,) = [c for c in control_plane.facts().containers or () if c.name == "kube-apiserver" and c.running]
    assert [server.started] == since


def test_revert_on_a_living_control_plane(control_plane: ControlPlane) -> None:
    old = control_plane.files()
    assert control_plane.roll(control_plane.arm()).word == "done"
    assert control_plane.roll(control_plane.rate(1000)).word == "done"
    name = rollout.revert(control_plane.host, Part.APISERVER, who="bob", patience=PATIENCE)
    outcome = control_plane.follow(name)
    assert_all_well(control_plane, old, outcome.id, "done")
    assert not control_plane.tracing.parent.exists()


def server(plane: ControlPlane) -> tuple[str, str]:
    """Pod and container of the API server that runs."""
    (one,) = [c for c in plane.facts().containers or () if c.name == "kube-apiserver" and c.running]
    return one.pod_uid, one.id


def test_a_revert_of_what_the_kubelet_does_not_see_waits_for_no_restart(control_plane: ControlPlane) -> None:
    """After tracing was taken away, what is left of the change is a comment, an order and a blank."""
    old = control_plane.files()
    plain = control_plane.manifest.read_bytes()
    assert control_plane.roll(control_plane.arm()).word == "done"
    like = plain.replace(b"# made by hand, keep", b"# made anew").replace(b"    name: pki\n", b"    name:   'pki'\n")
    like = like.replace(
        b"  name: kube-apiserver\n  namespace: kube-system\n", b"  namespace: kube-system\n  name: kube-apiserver\n"
    )
    off = control_plane.plan(
        Trigger.MANIFEST,
        FileChange(TRACING, control_plane.tracing.read_bytes(), None, 0o600, os.getuid(), os.getgid()),
        FileChange(MANIFEST, control_plane.manifest.read_bytes(), like, 0o600, os.getuid(), os.getgid()),
    )
    assert control_plane.roll(off).word == "done"
    running, here = server(control_plane), control_plane.files()
    plan = rollout.reversion(control_plane.host, Part.APISERVER).plan
    assert (plan.trigger, "Nothing restarts" in plan.price) == (Trigger.WATCH, True)
    # no way out of anything, so what is not well is left as it is
    control_plane.spoil("unready", "any")
    eventually(lambda: control_plane.status("/readyz") != 200, "it is ready")
    with pytest.raises(PlanRefused, match="not well"):
        rollout.revert(control_plane.host, Part.APISERVER, who="bob", patience=PATIENCE)
    assert control_plane.files() == here
    (control_plane.faults / "unready").unlink()
    control_plane.until_ready()
    killed = killed_at(control_plane, plan, "written")
    outcome = control_plane.follow(rollout.undo(control_plane.host, killed, who="bob"))
    assert (outcome.word, control_plane.files()) == ("rolled back", here)
    outcome = control_plane.follow(rollout.revert(control_plane.host, Part.APISERVER, who="bob", patience=PATIENCE))
    assert_all_well(control_plane, old, outcome.id, "done")
    assert (server(control_plane), outcome.started) == (running, "")
    assert "nothing had to restart" in outcome.detail


def test_a_revert_of_what_the_server_read_stops_it_though_its_pod_stays(armed: ControlPlane) -> None:
    old = armed.files()
    manifest = armed.manifest.read_bytes()
    noted = FileChange(MANIFEST, manifest, manifest + b"# a note\n", 0o600, os.getuid(), os.getgid())
    assert armed.roll(armed.plan(Trigger.STOP, *armed.rate(1000).changes, noted)).word == "done"
    assert rollout.reversion(armed.host, Part.APISERVER).plan.trigger is Trigger.STOP
    ours = armed.tracing.read_bytes()
    armed.tracing.write_bytes(old[TRACING[1:]])
    by_hand = rollout.reversion(armed.host, Part.APISERVER).plan
    assert [change.path for change in by_hand.changes] == [MANIFEST]
    assert by_hand.trigger is Trigger.STOP, "what runs has read ours, not what lies there"
    armed.tracing.write_bytes(ours)
    before = server(armed)
    outcome = armed.follow(rollout.revert(armed.host, Part.APISERVER, who="bob", patience=PATIENCE))
    assert_all_well(armed, old, outcome.id, "done")
    after = server(armed)
    assert (after[0] == before[0], after[1] == before[1]) == (True, False)


def test_a_kubelet_that_restarts_meanwhile(control_plane: ControlPlane) -> None:
    """The watcher needs no kubelet to decide; containers of the pocket kubelet do not outlive it."""
    old, plan = control_plane.files(), control_plane.arm()
    name = rollout.begin(control_plane.host, plan, who="alice", patience=PATIENCE)
    control_plane.stop()
    for record in (control_plane.root / "run/pocket/cri").iterdir():
        record.write_text(record.read_text().replace("CONTAINER_RUNNING", "CONTAINER_EXITED"))
    control_plane.kubelet = start_kubelet(control_plane.root)
    outcome = control_plane.follow(name)
    assert_all_well(control_plane, with_changes(old, plan), outcome.id, "done")


def test_a_runtimes_endpoint_that_is_set_to_nothing(control_plane: ControlPlane) -> None:
    """It keeps crictl from the endpoint in its own file, so it is as if it were not set."""
    old, plan = control_plane.files(), control_plane.arm()
    control_plane.host.environment["CONTAINER_RUNTIME_ENDPOINT"] = ""
    name = rollout.begin(control_plane.host, plan, who="alice", patience=PATIENCE)
    outcome = control_plane.follow(name)
    assert_all_well(control_plane, with_changes(old, plan), outcome.id, "done")
