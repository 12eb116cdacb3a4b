"""`sampling` and `doctor` on a control plane that runs: a kubelet, an API server that really exports, a receiver."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import StartReceiver
from tests.doubles.sshd import find_sshd, start_sshd
from tests.doubles.stub_api import StubApi
from tests.eventually import eventually
from tests.live_receiver import LiveReceiver
from tests.tui.clusters.control_plane import ControlPlane
from tui import cli, sampling
from tui.clusters import doctor, rollout
from tui.clusters.doctor import Mark
from tui.clusters.model import ClusterError
from tui.clusters.reach import api
from tui.clusters.reach.folder import FolderHost
from tui.clusters.reach.ssh import SshHost
from tui.sampling import Asked, Reach

pytestmark = pytest.mark.usefixtures("unhurried")


@pytest.fixture
def live(receiver: StartReceiver) -> LiveReceiver:
    return receiver()


@pytest.fixture
def asked(live: LiveReceiver) -> Asked:
    return Asked(endpoint=live.address, yes=True, as_json=True, database=live.db)


def set_rate(plane: ControlPlane, asked: Asked, rate: int | None, name: str) -> int:
    return sampling.change(Reach((plane.host,)), replace(asked, per_million=rate), name)


def test_from_off_to_armed_to_all_and_back(
    control_plane: ControlPlane, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = (control_plane.host,)
    before = control_plane.files()

    def state() -> dict[str, object]:
        capsys.readouterr()
        assert sampling.status(Reach(hosts), asked) == 0
        document: dict[str, object] = json.loads(capsys.readouterr().out)
        return document

    assert state()["state"] == "off"
    assert any("tracing is off" in step.text for step in doctor.examine(asked.database, hosts) if step.mark is Mark.BAD)

    assert set_rate(control_plane, asked, 0, "arm") == 0
    assert state()["state"] == "armed"
    capsys.readouterr()
    assert set_rate(control_plane, asked, 1_000_000, "all") == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (document["outcome"], document["spans_arrive"]) == ("done", True), err
    assert "cp-1  ready" in err
    sampled = state()
    assert (sampled["state"], sampled["per_million"]) == ("sampling", 1_000_000)
    assert isinstance(sampled["spans_per_s"], float)
    assert sampled["spans_per_s"] > 0
    steps = doctor.examine(asked.database, hosts)
    assert [step for step in steps if step.mark is Mark.BAD] == []
    assert any("a span of our own" in step.text and "on cp-1 arrives" in step.text for step in steps)
    assert any("is ready" in step.text for step in steps)

    assert sampling.revert(Reach(hosts), asked) == 0
    assert control_plane.files() == before
    control_plane.until_ready()
    assert state()["state"] == "off"


def test_a_node_that_does_not_come_up_is_put_back_and_stops_the_rest(
    control_plane: ControlPlane, asked: Asked, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    second = tmp_path / "cp-2"
    manifest = second / "etc/kubernetes/manifests/kube-apiserver.yaml"
    manifest.parent.mkdir(parents=True)
    manifest.write_bytes(control_plane.manifest.read_bytes())
    (second / "etc/hostname").write_text("cp-2\n")
    before = control_plane.files()
    control_plane.spoil("crash")
    capsys.readouterr()
    hosts = (control_plane.host, FolderHost(f"file://{second}"))
    assert sampling.change(Reach(hosts), replace(asked, per_million=0), "arm") == 1
    outcomes = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["node"], one["outcome"]) for one in outcomes] == [("cp-1", "rolled back"), ("cp-2", "not begun")]
    assert control_plane.files() == before
    assert manifest.read_bytes() == control_plane.manifest.read_bytes()
    control_plane.until_ready()


def test_nobody_hears_is_asked_about_and_no_restart(
    control_plane: ControlPlane, asked: Asked, live: LiveReceiver, capsys: pytest.CaptureFixture[str]
) -> None:
    live.kill()
    assert set_rate(control_plane, asked, 1_000_000, "all") == 0
    document = json.loads(capsys.readouterr().out)
    assert any("Nobody takes spans" in question for question in document["questions"])
    assert (document["outcome"], document["spans_arrive"]) == ("done", None)


def test_ctrl_c_leaves_the_node_to_itself(
    control_plane: ControlPlane,
    asked: Asked,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(node: str, step: str, detail: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sampling, "_tell", interrupt)
        with pytest.raises(KeyboardInterrupt):
            set_rate(control_plane, asked, 0, "arm")
    err = capsys.readouterr().err
    assert "cp-1 goes on by itself" in err
    assert "sampling status" in err
    eventually(lambda: bool(control_plane.facts().rollouts[-1].ended), "the node does not go on")
    assert control_plane.facts().rollouts[-1].ended == "done"
    control_plane.until_ready()


@pytest.mark.parametrize("undo", [False, True])
def test_what_was_interrupted_is_found_and_finished_or_put_back(
    control_plane: ControlPlane,
    asked: Asked,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    undo: bool,
) -> None:
    hosts, before = (control_plane.host,), control_plane.files()
    control_plane.host.environment["K8S_TRACE_TUI_STOP_AT"] = "restart"
    name = rollout.begin(control_plane.host, control_plane.arm(), who="alice")
    del control_plane.host.environment["K8S_TRACE_TUI_STOP_AT"]
    assert control_plane.follow(name).word == "interrupted"

    capsys.readouterr()
    assert sampling.status(Reach(hosts), replace(asked, as_json=False)) == 0
    said = capsys.readouterr().out
    assert "alice" in said
    assert "sampling resume" in said
    with pytest.raises(ClusterError, match="sampling undo"):
        set_rate(control_plane, asked, 0, "arm")

    with pytest.raises(sampling.Refused):
        sampling.carry_on(Reach(hosts), replace(asked, read_only=True), undo)
    with monkeypatch.context() as patch:
        patch.setattr(sampling, "_can_ask", lambda _asked: True)
        patch.setattr("sys.stdin", io.StringIO("y\n"))
        with pytest.raises(sampling.Refused):  # the cluster's name is to be typed
            sampling.carry_on(Reach(hosts), replace(asked, yes=False, cluster="prod", protected=True), undo)
    assert sampling.carry_on(Reach(hosts), asked, undo) == 0, capsys.readouterr().err
    control_plane.until_ready()
    assert (control_plane.files() == before) is undo
    assert sampling.carry_on(Reach(hosts), asked, undo) == 0  # nothing is left to be done


def test_what_goes_on_is_not_said_to_be_nothing(
    control_plane: ControlPlane,
    asked: Asked,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reach = Reach((control_plane.host,))
    control_plane.spoil("still")  # while it is looked at, nothing has been done about it
    name = rollout.begin(control_plane.host, control_plane.arm(), who="alice")
    (node,) = sampling.find(reach, asked)
    (control_plane.faults / "still").unlink()
    monkeypatch.setattr(sampling, "find", lambda *_, **__: [node])  # as it was then, however fast it is
    for undo in (False, True):
        assert sampling.carry_on(reach, asked, undo) == 1
        err = capsys.readouterr().err
        assert "cp-1: a rollout (apiserver arm by alice) is going on and was not interrupted" in err
        assert "No rollout was interrupted" not in err
    assert sampling.change(reach, replace(asked, per_million=1000, dry_run=True, as_json=False), "0.1 %") == 0
    assert "It would be refused now: a rollout (apiserver arm by alice) is going on" in capsys.readouterr().out
    assert control_plane.follow(name).word == "done"
    control_plane.until_ready()


# --- through the API alone -----------------------------------------------------------------------------
@pytest.fixture
def stub(control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubApi]:
    """The API of the control plane, whose pods of ours run on its node."""
    for name, value in control_plane.host.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr(api, "_CLOSE_SECONDS", 5.0)
    (tmp_path / "api").mkdir()
    made = StubApi(control_plane.root, tmp_path / "api")
    made.start()
    made.add_control_plane("cp-1")
    monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig()))
    yield made
    made.stop()


def test_through_the_api_alone(
    control_plane: ControlPlane, stub: StubApi, live: LiveReceiver, capsys: pytest.CaptureFixture[str]
) -> None:
    before = control_plane.files()
    where = ["--context", "lab", "--db", str(live.db), "--json"]

    def command(*argv: str, code: int = 0) -> list[dict[str, object]]:
        capsys.readouterr()
        assert cli.main(["sampling", *argv, *where]) == code
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    (seen,) = command("status")
    assert (seen["node"], seen["state"], seen["version"]) == ("cp-1", "off", "v1.34.2")
    assert str(seen["instance"]).startswith("apiserver-")
    capsys.readouterr()
    assert cli.main(["doctor", *where]) == 1
    (off,) = [one for one in map(json.loads, capsys.readouterr().out.splitlines()) if one["mark"] == "bad"]
    assert "tracing is off" in off["text"]
    command("arm", code=2)  # not agreed to: not even a pod to read with
    assert not [path for _, path in stub.requests if "/exec" in path]  # what was posted was a dry run

    (armed,) = command("arm", "--endpoint", live.address, "--yes")
    assert armed["outcome"] == "done"
    (seen,) = command("status", "--yes")
    assert (seen["state"], seen["per_million"]) == ("armed", 0)
    (reverted,) = command("revert", "--yes")
    assert reverted["outcome"] == "done"
    assert control_plane.files() == before
    assert stub.ours() == []


def test_what_the_api_does_not_allow_is_said_first(
    control_plane: ControlPlane, stub: StubApi, capsys: pytest.CaptureFixture[str]
) -> None:
    before = control_plane.files()
    stub.denied.add("create pods/exec")
    assert cli.main(["sampling", "arm", "--yes", "--context", "lab"]) == 1
    err = capsys.readouterr().err
    assert ("create pods/exec" in err, err.count("\n")) == (True, 1)
    assert (control_plane.files(), stub.ours()) == (before, [])


def test_a_pod_that_was_left_is_told(stub: StubApi, capsys: pytest.CaptureFixture[str]) -> None:
    left = api.ApiHost(api.Api("lab"), "cp-1")
    left.open()
    assert cli.main(["sampling", "status", "--context", "lab"]) == 0
    err = capsys.readouterr().err
    assert f"kubectl --context lab -n kube-system delete pod {left.pod}" in err
    left.close()


# --- over ssh ------------------------------------------------------------------------------------------
@pytest.mark.skipif(find_sshd() is None, reason="there is no sshd here")
def test_over_ssh_also_when_the_connection_dies_midway(
    control_plane: ControlPlane,
    asked: Asked,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = control_plane.files()
    environment = {**control_plane.host.environment, "K8S_TRACE_TUI_ROOT": str(control_plane.root)}
    server = start_sshd(tmp_path / "sshd", environment=environment)
    host = SshHost(server.url, config=server.config)
    try:
        tell = sampling._tell

        def cut(node: str, step: str, detail: str) -> None:
            tell(node, step, detail)
            if step == "restart":
                server.cut()

        with monkeypatch.context() as patch:
            patch.setattr(sampling, "_tell", cut)
            assert sampling.change(Reach((host,)), replace(asked, per_million=1_000_000), "all") == 0
        out, err = capsys.readouterr()
        document = json.loads(out)
        assert (document["outcome"], document["spans_arrive"]) == ("done", True), err
        steps = doctor.examine(asked.database, [host])
        assert [step for step in steps if step.mark is Mark.BAD] == []
        assert sampling.revert(Reach((host,)), asked) == 0
        assert control_plane.files() == before
    finally:
        host.close()
        server.close()
