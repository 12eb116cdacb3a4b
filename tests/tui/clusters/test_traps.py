"""What misleads a rollout on a real node: mirror pods, back-off after several changes, an API server that turns us
away."""

from __future__ import annotations

import os
import shutil
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from tests.doubles.certificates import Authority
from tests.doubles.shell_host import ShellHost
from tests.doubles.stub_api import StubApi
from tests.eventually import eventually
from tests.tui.clusters.control_plane import PACE, PATIENCE, ControlPlane
from tui.clusters import rollout
from tui.clusters.model import FileChange, NotYet, Part, Plan, PlanRefused, Trigger, Wish
from tui.clusters.reach.api import Api, MirrorPod


# --- mirror pods --------------------------------------------------------------------------------------
def test_who_decided_on_mirror_pods_would_decide_wrong(
    control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API as its operator sees it lives on (another server of the cluster): its mirror is late, and lies."""
    stub = StubApi(control_plane.root, tmp_path)
    stub.start()
    stub.add_control_plane("cp-1")
    monkeypatch.setenv("KUBECONFIG", str(stub.kubeconfig()))
    api = Api("lab")

    def mirror() -> MirrorPod:
        (pod,) = api.mirror_pods()
        return pod

    try:
        eventually(lambda: (control_plane.root / "run/pocket/mirror/kube-apiserver").exists(), "it has no mirror")
        old = mirror()
        assert old.ready
        name = control_plane.begin(control_plane.arm())
        journal = control_plane.root / f"var/lib/k8s-trace-tui-rollouts/rollouts/{name}/journal"
        # at this pace the mirror is late by some 0.1 s: no time to ask the node as an operator does
        eventually(lambda: " gone " in journal.read_text(), "the old one never ends", longest_pause=0.002)
        # the old server has ended, and who waits for a Ready pod would go on
        assert (mirror().ready, mirror().hash) == (True, old.hash)
        assert control_plane.follow(name).word == "done"
        eventually(lambda: mirror().ready and mirror().hash != old.hash, "the mirror never comes")

        new = mirror()
        control_plane.spoil("crash", "1000")
        manifest = control_plane.manifest.read_bytes()
        plan = control_plane.plan(
            Trigger.MANIFEST,
            *control_plane.rate(1000).changes,
            FileChange(
                "/etc/kubernetes/manifests/kube-apiserver.yaml", manifest,
                manifest.replace(b"  name: kube-apiserver\n", b"  name: kube-apiserver\n  annotations: {a: b}\n", 1),
                0o600, os.getuid(), os.getgid(),
            ),
        )  # fmt: skip
        seen: set[tuple[str, bool]] = set()
        outcome = rollout.follow(
            control_plane.host,
            control_plane.begin(plan),
            lambda _step, _detail: seen.add((mirror().hash, mirror().ready)),
            poll=0.05,
        )
        # broken, crash-looping, put back by the same bytes: all the while it was a Ready pod of the same hash
        assert (outcome.word, seen) == ("rolled back", {(new.hash, True)})
    finally:
        api.close()
        stub.stop()


# --- back-off ------------------------------------------------------------------------------------------
def backing_off(plane: ControlPlane, attempt: int, ago: float = 0) -> None:
    """The scheduler ended `ago` seconds ago, by a clock east of here, and its kubelet, which is held still, has not
    started it again."""
    plane.spoil("still")
    eventually((plane.root / "run/pocket/held").exists, "kubelet does not hold still")
    east = timezone(timedelta(hours=5, minutes=30))
    finished = (datetime.now(east) - timedelta(seconds=ago)).isoformat()
    for record in (plane.root / "run/pocket/cri").iterdir():
        text = record.read_text()
        if "name=kube-scheduler" in text:
            text = text.replace("CONTAINER_RUNNING", "CONTAINER_EXITED").replace("attempt=0", f"attempt={attempt}")
            record.write_text(text.replace("finishedAt=1970-01-01T00:00:00Z", f"finishedAt={finished}"))


JOURNAL = """#!/bin/sh
cat <<'END'
{before:.6f} cp-1 kubelet[812]: E1130 09:41:07 pod_workers.go:1324] "Error syncing pod, skipping" err="failed to \\"StartContainer\\" for \\"kube-scheduler\\" with CrashLoopBackOff: \\"back-off 5m0s restarting failed container=kube-scheduler pod=kube-scheduler-cp-1_kube-system(4a)\\"" podUID="4a"
{now:.6f} cp-1 kubelet[812]: E1130 09:46:07 pod_workers.go:1324] "Error syncing pod, skipping" err="failed to \\"StartContainer\\" for \\"kube-scheduler\\" with CrashLoopBackOff: \\"back-off 1m20s restarting failed container=kube-scheduler pod=kube-scheduler-cp-1_kube-system(4a)\\"" podUID="4a"
{now:.6f} cp-1 kubelet[812]: E1130 09:46:08 pod_workers.go:1324] "Error syncing pod, skipping" err="failed to \\"StartContainer\\" for \\"kube-controller-manager\\" with CrashLoopBackOff: \\"back-off 10s restarting failed container=kube-controller-manager pod=kube-controller-manager-cp-1_kube-system(5b)\\"" podUID="5b"
END
"""  # noqa: E501 - as kubelet writes it
"""kubelet's log: of another end of the container, of this one, and of another container."""


def test_what_kubelet_says_of_its_back_off_counts_before_what_restarts_tell(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "journalctl"
    now = time.time()
    program.write_text(JOURNAL.format(before=now - 400, now=now - 10))
    program.chmod(0o755)
    backing_off(control_plane, 40, 20)
    environment = control_plane.host.environment
    environment["K8S_TRACE_TUI_PACE"] = "1000"
    environment["PATH"] = f"{program.parent}:{environment['PATH']}"
    try:
        least, left = control_plane.facts().back_off["kube-scheduler"]
        assert 40 <= least <= 60, "1m20s since its end, 20 s ago"
        assert least == left
    finally:
        (control_plane.faults / "still").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("attempt", "ago", "least", "left"),
    [
        (1, 0, 10, 15),
        (3, 15, 1, 25),
        (40, 100, 60, 200),
        (1, 25, 1, 15),
        (1, 35, 5, 15),
        (4, 85, 1, 15),
        (2, 900, 1, 15),
    ],
)
def test_the_seconds_until_a_controller_runs_are_told(
    control_plane: ControlPlane, attempt: int, ago: int, least: int, left: int
) -> None:
    """As its restarts and its end tell, a range where it cannot be known how many of them kubelet knows. Who is late
    by some seconds is in no longer one: kubelet takes a while to look again."""
    plan, before = control_plane.arm(), control_plane.files()
    backing_off(control_plane, attempt, ago)
    control_plane.host.environment["K8S_TRACE_TUI_PACE"] = "1"
    try:
        with pytest.raises(NotYet, match=r"kube-scheduler is in back-off .* in (about|\d+ to) \d+ s") as refusal:
            rollout.begin(control_plane.host, plan, who="alice")
        assert left - 4 <= refusal.value.seconds <= left
        assert (" to " in str(refusal.value)) is (left - least > 15)
        assert f" {refusal.value.seconds} s" in str(refusal.value)
        assert control_plane.files() == before
        facts = control_plane.facts()
        assert facts.rollouts == ()
        told = facts.back_off.pop("kube-scheduler")
        assert least - 6 <= told[0] <= least
        assert left - 6 <= told[1] <= left, "a plan can say it too"
        assert not facts.back_off
    finally:
        (control_plane.faults / "still").unlink(missing_ok=True)


def a_first_node(folder: Path) -> tuple[ShellHost, Plan]:
    """A node that is changed at once: a directory."""
    (folder / "etc/kubernetes").mkdir(parents=True)
    change = FileChange("/etc/kubernetes/first", None, b"1", 0o600, os.getuid(), os.getgid())
    plan = Plan("first", Part.APISERVER, (change,), Trigger.NOTHING, "", "", wish=Wish(Part.APISERVER, 0))
    return ShellHost(folder, alive=False, name="first"), plan


def test_a_rollout_waits_for_a_controller_of_a_later_node(control_plane: ControlPlane, tmp_path: Path) -> None:
    """Nodes are not left half changed for that; where nothing was changed yet, it is refused, as a plan would be."""
    before = control_plane.files()
    backing_off(control_plane, 1)
    told: list[str] = []

    def tell(_node: str, step: str, _detail: str) -> None:
        told.append(step)
        if step == "wait":
            for record in (control_plane.root / "run/pocket/cri").iterdir():
                record.write_text(record.read_text().replace("CONTAINER_EXITED", "CONTAINER_RUNNING"))
            (control_plane.faults / "still").unlink(missing_ok=True)

    steps = [a_first_node(tmp_path / "first"), (control_plane.host, control_plane.arm())]
    (refused,) = rollout.Rollout(steps[1:], tell, who="alice", poll=0.1).run()
    assert (refused.word, told, control_plane.files()) == ("refused", ["refused"], before)
    assert "kube-scheduler is in back-off" in refused.detail
    del told[:]
    outcomes = rollout.Rollout(steps, tell, who="alice", patience=PATIENCE, poll=0.1).run()
    assert [one.word for one in outcomes] == ["done", "done"]
    assert told[told.index("end") + 1 :][:2] == ["wait", "begin"]


def test_who_stops_while_it_waits_has_changed_nothing(control_plane: ControlPlane, tmp_path: Path) -> None:
    before = control_plane.files()
    backing_off(control_plane, 1)
    told: list[str] = []
    try:
        _, outcome = rollout.Rollout(
            [a_first_node(tmp_path / "first"), (control_plane.host, control_plane.arm())],
            lambda _node, step, _detail: told.append(step),
            who="alice",
            poll=0.1,
            stopping=lambda: "wait" in told,
        ).run()
        assert (outcome.word, told[-2:]) == ("refused", ["wait", "refused"])
        assert control_plane.files() == before
    finally:
        (control_plane.faults / "still").unlink(missing_ok=True)


def test_several_changes_in_a_row(control_plane: ControlPlane) -> None:
    """The cheap way is refused while kubelet would make it dear, and the journals know how often it was taken."""
    assert control_plane.roll(control_plane.arm()).word == "done"
    assert control_plane.roll(control_plane.rate(1000)).word == "done"
    plan = control_plane.rate(2000)
    control_plane.host.environment["K8S_TRACE_TUI_PACE"] = "1"
    with pytest.raises(NotYet, match=r"kube-apiserver was restarted \d+ s ago: .* wait for \d+ s") as refusal:
        rollout.begin(control_plane.host, plan, who="alice")
    assert 500 < refusal.value.seconds <= 600
    control_plane.until_ready()
    control_plane.host.environment["K8S_TRACE_TUI_PACE"] = str(4 * PACE)
    manifest = control_plane.manifest.read_bytes()
    change = FileChange(
        "/etc/kubernetes/manifests/kube-apiserver.yaml", manifest,
        manifest.replace(b"  name: kube-apiserver\n", b"  name: kube-apiserver\n  annotations: {a: b}\n", 1),
        0o600, os.getuid(), os.getgid(),
    )  # fmt: skip
    outcome = control_plane.roll(control_plane.plan(Trigger.MANIFEST, *plan.changes, change))
    assert outcome.word == "done"
    assert any("restart 3 from here within 10 minutes" in one.detail for one in outcome.entries if one.step == "note")


# --- who may ask ---------------------------------------------------------------------------------------
def without_anonymous(plane: ControlPlane) -> None:
    """The API server lets nobody in who brings no certificate."""
    draft = plane.root / "draft"
    text = plane.manifest.read_text()
    draft.write_text(text.replace("    - --secure-port", "    - --anonymous-auth=false\n    - --secure-port", 1))
    draft.chmod(0o600)
    draft.rename(plane.manifest)
    eventually(lambda: plane.status("/livez") == 0, "the old server is still there")
    plane.until_ready()


def test_without_anonymous_requests_it_asks_with_the_clients_certificate(control_plane: ControlPlane) -> None:
    without_anonymous(control_plane)
    outcome = control_plane.roll(control_plane.arm())
    assert outcome.word == "done", outcome
    control_plane.until_ready()


def test_turned_away_is_not_down(control_plane: ControlPlane) -> None:
    """No certificate that it knows: it is told so, and nothing is touched."""
    without_anonymous(control_plane)
    for name in ("crt", "key"):
        (control_plane.root / f"etc/kubernetes/pki/apiserver-kubelet-client.{name}").unlink()
    plan, before = control_plane.arm(), control_plane.files()
    with pytest.raises(PlanRefused, match=r"turns away .*/livez answers 401\): .*-client\.crt or .*admin\.conf"):
        rollout.begin(control_plane.host, plan, who="alice")
    assert control_plane.files() == before


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not here")
def test_without_that_certificate_it_asks_with_the_administrators(control_plane: ControlPlane) -> None:
    without_anonymous(control_plane)
    pki = control_plane.root / "etc/kubernetes/pki"
    for name in ("crt", "key"):
        (pki / f"apiserver-kubelet-client.{name}").rename(pki / f"administrator.{name}")
    (pki.parent / "admin.conf").write_text(
        f"apiVersion: v1\nkind: Config\ncurrent-context: a\n"
        f"clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:1', certificate-authority: {pki}/ca.crt}}}}]\n"
        f"users: [{{name: u, user: {{client-certificate: {pki}/administrator.crt, "
        f"client-key: {pki}/administrator.key}}}}]\n"
        "contexts: [{name: a, context: {cluster: c, user: u}}]\n"
    )
    outcome = control_plane.roll(control_plane.arm())
    assert outcome.word == "done", outcome


def test_a_serving_certificate_of_another_authority(control_plane: ControlPlane, tmp_path: Path) -> None:
    """Kubelet's own probes do not check it either."""
    other = Authority(tmp_path, "somebody")
    shutil.copy(other.certificate, control_plane.root / "etc/kubernetes/pki/ca.crt.new")
    pki = control_plane.root / "etc/kubernetes/pki"
    (pki / "ca.crt").rename(pki / "client-ca.crt")
    (pki / "ca.crt.new").rename(pki / "ca.crt")
    text = control_plane.manifest.read_text().replace("pki/ca.crt", "pki/client-ca.crt")
    draft = control_plane.root / "draft"
    draft.write_text(text)
    draft.chmod(0o600)
    draft.rename(control_plane.manifest)
    eventually(lambda: control_plane.status("/livez") == 0, "the old server is still there")
    control_plane.until_ready()
    assert control_plane.roll(control_plane.arm()).word == "done"
