"""What starts a pod again on a node, shown to work before anything is stopped or written; and what is down because of
what a change mends."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.tui.clusters.control_plane import PATIENCE, ControlPlane, traced, tracing_file
from tests.tui.clusters.test_faults import killed_at, wrap
from tui import sampling
from tui.clusters import pods, rollout
from tui.clusters.model import NodeAsks, Part, PlanRefused, Trigger
from tui.sampling import Asked, Reach

SPOILT = b"bogus: 1\n"


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked(yes=True, as_json=True, database=tmp_path / "none.db")


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


def test_what_the_node_would_refuse_is_refused_by_the_plan(control_plane: ControlPlane, asked: Asked) -> None:
    """Also by one that is only to be shown."""
    facts = control_plane.facts()
    script = (Path(pods.__file__).parent / "node.sh").read_text()
    listed = re.search(r"^NEEDED='([^']*)'", script, re.M)
    assert listed
    assert frozenset(listed[1].split()) == pods.NEEDED
    plan = control_plane.arm()
    pods.check_restart(facts, plan)
    for tools, says in (
        (facts.tools - {"crictl"}, "crictl is not on this node"),
        (facts.tools - {"sync"}, "sync is not on this node"),
        (facts.tools - {"setsid", "nohup"}, "neither setsid nor nohup"),
    ):
        with pytest.raises(PlanRefused, match=says):
            pods.check_restart(replace(facts, tools=tools), plan)
    with pytest.raises(PlanRefused, match="CRI does not answer"):
        pods.check_restart(replace(facts, containers=None), plan)
    pods.check_restart(replace(facts, tools=frozenset()), replace(plan, changes=(), trigger=Trigger.NOTHING))


def state(plane: ControlPlane, asked: Asked, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    capsys.readouterr()
    sampling.status(Reach((plane.host,)), asked)
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (found,) = [one for one in documents if one["component"] == "apiserver"]
    return dict(found)


def set_rate(plane: ControlPlane, asked: Asked, rate: int | None, name: str) -> int:
    return sampling.change(Reach((plane.host,)), replace(asked, per_million=rate), name)


def server_of(plane: ControlPlane) -> str:
    (one,) = [one for one in plane.cri() if one["name"] == "kube-apiserver" and one["state"] == "CONTAINER_RUNNING"]
    return one["id"]


# --- kubelet -----------------------------------------------------------------------------------------
def configured(plane: ControlPlane, text: str) -> None:
    """What kubelet's configuration says, which its flags go over."""
    path = plane.root / "var/lib/kubelet/config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n{text}")


def full(plane: ControlPlane) -> None:
    home = plane.root / "var/lib/kubelet"
    home.mkdir(parents=True, exist_ok=True)
    wrap(plane, "df", '$REAL "$@" | awk -v full="$*" \'NR > 1 && full ~ "var/lib/kubelet" { $4 = 0 } { print }\'')


def images(plane: ControlPlane) -> None:
    plane.spoil("image", "registry.k8s.io/kube-apiserver:v1.36.2")


LACKS: dict[str, tuple[Callable[[ControlPlane], None], str]] = {
    "stopped": (ControlPlane.stop_kubelet, r"kubelet does not run, .*: start it \(systemctl start kubelet\)"),
    "hangs": (
        lambda plane: os.kill(plane.kubelet.pid, signal.SIGSTOP),
        r"kubelet runs \(.*\), but does not answer on 127",
    ),
    "elsewhere": (
        lambda plane: configured(plane, "staticPodPath: /etc/elsewhere\n"),
        "kubelet reads its manifests in /etc/elsewhere",
    ),
    "nowhere": (lambda plane: configured(plane, "syncFrequency: 0s\n"), "kubelet reads no manifests"),
    "runtime": (lambda plane: plane.spoil("runtime"), r"not ready \(ContainerdNotReady\)"),
    "disk": (full, "is full, so neither kubelet nor"),
    "image": (images, r"crictl pull registry\.k8s\.io/kube-apiserver:v1\.36\.2"),
}


@pytest.mark.parametrize("lack", LACKS)
def test_nothing_is_begun_where_nothing_would_start_it_again(control_plane: ControlPlane, lack: str) -> None:
    spoil, sentence = LACKS[lack]
    plan, before, server = control_plane.arm(), control_plane.files(), server_of(control_plane)
    written = control_plane.manifest.stat()
    spoil(control_plane)
    try:
        with pytest.raises(PlanRefused, match=sentence):
            rollout.begin(control_plane.host, plan, who="alice")
        if lack != "elsewhere":  # as kubelet sees it, no control plane is on this node then
            lacks = control_plane.facts().lacks
            assert any(re.search(sentence, one) for one in lacks), lacks
        assert control_plane.files() == before
        assert (control_plane.manifest.stat().st_ino, control_plane.manifest.stat().st_mtime_ns) == (
            written.st_ino,
            written.st_mtime_ns,
        )
        assert control_plane.facts().rollouts == ()
        assert control_plane.status("/livez") == 200
        assert server_of(control_plane) == server
    finally:
        os.kill(control_plane.kubelet.pid, signal.SIGCONT)


def test_without_kubelet_no_container_is_stopped(armed: ControlPlane, asked: Asked) -> None:
    plan, server, before = armed.rate(1000), server_of(armed), armed.files()
    armed.stop_kubelet()
    with pytest.raises(PlanRefused, match="kubelet does not run"):
        rollout.begin(armed.host, plan, who="alice")
    with pytest.raises(PlanRefused, match="kubelet does not run"):  # as the command line plans it, before it asks
        set_rate(armed, replace(asked, yes=False, dry_run=True), 1000, "0.1 %")
    assert (server_of(armed), armed.files(), armed.status("/livez")) == (server, before, 200)


def test_what_was_interrupted_waits_for_kubelet(control_plane: ControlPlane) -> None:
    old, plan = control_plane.files(), control_plane.arm()
    name = killed_at(control_plane, plan, "write-1")
    control_plane.stop_kubelet()
    for way in (rollout.finish, rollout.undo):
        with pytest.raises(PlanRefused, match="kubelet does not run"):
            way(control_plane.host, name)
    control_plane.start_kubelet_again()
    assert control_plane.follow(rollout.undo(control_plane.host, name)).word == "rolled back"
    assert control_plane.files() == old


def without_health(plane: ControlPlane) -> None:
    """kubelet with its healthz off."""
    (plane.root / "etc/default/kubelet").write_text("KUBELET_EXTRA_ARGS=--healthz-port=0\n")
    plane.stop_kubelet()
    plane.start_kubelet_again()


def test_without_its_health_the_process_of_kubelet_is_looked_for(control_plane: ControlPlane) -> None:
    without_health(control_plane)
    assert control_plane.facts().lacks == ()
    assert control_plane.roll(control_plane.arm()).word == "done"
    plan = control_plane.rate(1000)
    control_plane.stop_kubelet()
    with pytest.raises(PlanRefused, match="kubelet does not run"):
        rollout.begin(control_plane.host, plan, who="alice")


def test_where_kubelet_cannot_be_known_somebody_is_asked(control_plane: ControlPlane) -> None:
    """Its health is off, and what runs on the node is not seen, as in a toolbox."""
    without_health(control_plane)
    (control_plane.root / "proc").rename(control_plane.root / "proc-of-the-node")
    plan, before = control_plane.arm(), control_plane.files()
    assert control_plane.facts().lacks == ()
    with pytest.raises(NodeAsks, match="cannot be found out whether kubelet runs") as asks:
        rollout.begin(control_plane.host, plan, who="alice")
    assert (asks.value.topic, control_plane.files()) == ("kubelet", before)
    questions: list[str] = []

    def ask(_node: str, question: str) -> bool:
        questions.append(question)
        return True

    rolled = rollout.Rollout([(control_plane.host, plan)], lambda *_: None, who="alice", ask=ask, patience=PATIENCE)
    (outcome,) = rolled.run()
    assert (outcome.word, len(questions)) == ("done", 1), outcome


def test_kubelet_is_asked_where_its_configuration_says(control_plane: ControlPlane) -> None:
    port = (control_plane.root / "etc/default/kubelet").read_text().strip().rpartition("=")[2]
    configured(control_plane, f"staticPodPath: /etc/kubernetes/manifests/\nhealthzPort: {port}\n")
    (control_plane.root / "etc/default/kubelet").unlink()
    for path in (control_plane.root / "proc").glob("*/cmdline"):
        path.write_bytes(b"/usr/bin/kubelet\0--config\0/var/lib/kubelet/config.yaml\0")
    assert control_plane.facts().lacks == ()
    configured(control_plane, f"staticPodPath: /etc/kubernetes/manifests\nhealthzPort: {port}\n")
    for path in (control_plane.root / "proc").glob("*/cmdline"):
        path.write_bytes(b"/usr/bin/kubelet\0--healthz-port\0" + b"1\0")
    (lack,) = control_plane.facts().lacks
    assert "does not answer on 127.0.0.1:1/healthz" in lack


# --- said ---------------------------------------------------------------------------------------------
def test_what_does_not_run_does_not_sample(
    armed: ControlPlane, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    assert armed.roll(armed.rate(1_000_000)).word == "done"
    assert state(armed, asked, capsys)["state"] == "sampling"
    armed.stop_kubelet()
    told = state(armed, asked, capsys)
    assert told["state"] == "sampling"
    assert "kubelet does not run" in str(told["lacks"])
    (armed.root / "run/pocket/stop" / server_of(armed)).write_text("2")
    eventually(lambda: "kube-apiserver" not in armed.running(), "it does not stop")
    told = state(armed, asked, capsys)
    assert told["state"] == "down"
    assert "kube-apiserver does not run" in str(told["note"])
    assert sampling.status(Reach((armed.host,)), replace(asked, as_json=False)) == 0
    said = capsys.readouterr().out
    assert "kubelet does not run" in said
    assert "100 %" not in said
    assert sampling.diagnose(Reach((armed.host,)), replace(asked, as_json=False)) == 1
    said = capsys.readouterr().out
    assert "kubelet does not run" in said
    assert "systemctl start kubelet" in said


def test_a_kubelet_that_ends_meanwhile_is_named(armed: ControlPlane) -> None:
    """The container is stopped already, and nothing starts it again: said while it is waited for, and at the end."""
    old, plan = armed.files(), armed.rate(1000)
    crictl = wrap(
        armed,
        "crictl",
        f'if [ "$1" = stop ] && [ ! -e $0.once ]; then : >$0.once; kill -USR1 {armed.kubelet.pid}; fi\nexec $REAL "$@"',
    )
    outcome = armed.roll(plan, patience=1)
    assert crictl.with_name("crictl.once").exists()
    assert outcome.word == "failed"
    assert "kubelet does not run" in outcome.detail
    assert "systemctl start kubelet" in outcome.detail
    assert "By hand: the old bytes" not in outcome.detail, "they are in their places"
    assert any(one.step == "note" and "kubelet does not run" in one.detail for one in outcome.entries)
    assert armed.files() == old
    armed.start_kubelet_again()
    armed.until_ready()


# --- down because of what is mended ----------------------------------------------------------------
def spoil_tracing(plane: ControlPlane) -> None:
    """A field that no API server knows, and its restart: a crash loop."""
    plane.tracing.write_bytes(plane.tracing.read_bytes() + SPOILT)
    (plane.root / "run/pocket/stop" / server_of(plane)).write_text("2")
    eventually(
        lambda: "unknown field" in plane.facts().words.get("kube-apiserver", ""), "it does not crash by its tracing"
    )


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize(("rate", "name"), [(None, "off"), (0, "arm"), (1000, "0.1 %")])
def test_a_tracing_file_that_keeps_it_down_is_mended(
    armed: ControlPlane, asked: Asked, capsys: pytest.CaptureFixture[str], rate: int | None, name: str
) -> None:
    spoil_tracing(armed)
    assert state(armed, asked, capsys)["state"] == "broken"
    assert set_rate(armed, asked, rate, name) == 0, capsys.readouterr()
    (document,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert document["outcome"] == "done"
    assert any("this mends it" in one for one in document["warnings"]), document["warnings"]
    armed.until_ready()
    if rate is None:
        assert not armed.tracing.exists()
    else:
        made = armed.tracing.read_text()
        assert "bogus" not in made
        assert f"samplingRatePerMillion: {rate}\n" in made
        assert "endpoint: 127.0.0.1:4317\n" in made, "the endpoint was not what is broken"


@pytest.mark.usefixtures("unhurried")
def test_what_is_down_for_another_reason_is_still_refused(armed: ControlPlane, asked: Asked) -> None:
    """Its own last words decide, also where its tracing file is broken besides."""
    armed.spoil("crash_first", "any")
    (armed.root / "run/pocket/stop" / server_of(armed)).write_text("2")
    eventually(lambda: "admission" in armed.facts().words.get("kube-apiserver", ""), "it does not crash")
    before = armed.files()
    with pytest.raises(PlanRefused, match="not by its tracing configuration"):
        rollout.begin(armed.host, armed.arm_again(), who="alice")
    armed.tracing.write_bytes(tracing_file(0) + SPOILT)
    spoilt = armed.files()
    with pytest.raises(PlanRefused, match="not by its tracing configuration"):
        rollout.begin(armed.host, replace(armed.arm_again(), mends=True), who="alice")
    assert armed.files() == spoilt
    assert before.keys() == spoilt.keys()


def test_one_that_runs_unwell_is_no_crash_loop(armed: ControlPlane) -> None:
    """It says that it is broken, runs, and is unwell for another reason: nothing is restarted."""
    armed.spoil("unready", "any")
    eventually(lambda: armed.status("/readyz") != 200, "it is ready")
    with pytest.raises(PlanRefused, match="is not well"):
        rollout.begin(armed.host, replace(armed.arm_again(), mends=True), who="alice")


def test_a_revert_of_the_file_alone_waits_for_the_end_of_the_back_off(armed: ControlPlane) -> None:
    assert armed.roll(armed.rate(1000)).word == "done"
    spoil_tracing(armed)
    eventually(lambda: sum(one["name"] == "kube-apiserver" for one in armed.cri()) >= 2, "it does not crash twice")
    assert rollout.reversion(armed.host, Part.APISERVER).plan.trigger is Trigger.STOP
    name = rollout.revert(armed.host, Part.APISERVER, who="bob", force=True, patience=PATIENCE)
    outcome = armed.follow(name)
    assert outcome.word == "done", outcome
    assert armed.tracing.read_bytes() == tracing_file(0)
