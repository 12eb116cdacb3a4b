"""A cluster through its API alone: what is read, what is refused before anything changes, and the pod as a host."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.doubles.stub_api import TOKEN, StubApi
from tests.eventually import eventually
from tui import __version__
from tui.clusters.model import ReachError
from tui.clusters.reach import api as api_module
from tui.clusters.reach.api import Api, ApiHost, Leftover, leftovers, remove
from tui.clusters.reach.contexts import contexts


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[StubApi]:
    (tmp_path / "host").mkdir()
    (tmp_path / "api").mkdir()
    made = StubApi(tmp_path / "host", tmp_path / "api")
    made.start()
    made.add_control_plane("cp-2", tracing_config_file="/etc/kubernetes/t.yaml", secure_port="6443")
    made.add_control_plane("cp-1")
    yield made
    made.stop()


@pytest.fixture
def api(stub: StubApi) -> Iterator[Api]:
    made = Api("lab", stub.kubeconfig())
    yield made
    made.close()


@pytest.fixture
def host(api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiHost]:
    monkeypatch.setattr(api_module, "_CLOSE_SECONDS", 5.0)
    made = ApiHost(api, "cp-1")
    yield made
    made.close()


def fails(ask: Callable[[], object]) -> str:
    with pytest.raises(ReachError) as caught:
        ask()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- reading --------------------------------------------------------------------------------------------
def test_contexts_are_those_of_the_kubeconfig(stub: StubApi, tmp_path: Path) -> None:
    found = contexts(stub.kubeconfig())
    assert [(one.name, one.cluster, one.current) for one in found] == [
        ("lab", "lab-cluster", True),
        ("other", "other-cluster", False),
    ]
    assert contexts(tmp_path / "none") == ()
    no_current = tmp_path / "no-current"
    no_current.write_text(stub.kubeconfig().read_text().replace('"current-context": "lab", ', ""))
    assert [one.current for one in contexts(no_current)] == [False, False]
    broken = tmp_path / "broken"
    broken.write_text("contexts: [")
    assert "correct it" in fails(lambda: contexts(broken))
    assert "has no context nine: it has lab, other" in fails(lambda: Api("nine", stub.kubeconfig()))


def test_everything_is_read_page_by_page_and_nothing_is_touched(api: Api, stub: StubApi) -> None:
    stub.page = 1
    assert api.version() == "v1.34.2"
    nodes = api.nodes()
    assert [(one.name, one.ready, one.control_plane) for one in nodes] == [("cp-1", True, True), ("cp-2", True, True)]
    assert nodes[0].taints == ("node-role.kubernetes.io/control-plane:NoSchedule",)
    pods = api.mirror_pods()
    assert [(one.node, one.component, one.version, one.restarts) for one in pods] == [
        ("cp-1", "kube-apiserver", "v1.34.2", 2),
        ("cp-2", "kube-apiserver", "v1.34.2", 2),
    ]
    assert pods[0].flag("tracing-config-file") is None
    assert pods[1].flag("tracing-config-file") == "/etc/kubernetes/t.yaml"
    assert len(pods[1].hash) == 32
    assert sorted(api.identities().values()) == ["cp-1", "cp-2"]
    assert {method for method, _ in stub.requests} == {"GET"}
    assert stub.agents == {f"k8s-trace-tui/{__version__}"}


def test_what_the_server_sends_may_be_anything(api: Api, stub: StubApi) -> None:
    label = {"node-role.kubernetes.io/control-plane": ""}
    stub.nodes[:] = [
        {"metadata": {"name": "a\x1b[2J\u202e", "labels": label}, "spec": [], "status": {"conditions": {"x": 1}}},
        {"metadata": {"labels": label}, "status": None},
    ]
    assert {one.name for one in api.nodes()} == {"a?[2J?", ""}
    pod = stub.pods["kube-apiserver-cp-1"]
    pod["spec"] = {"containers": ["text"], "nodeName": 7}
    pod["status"] = {"containerStatuses": ["x"]}
    stub.pods["kube-apiserver-cp-2"]["spec"]["containers"][0]["command"] = ["kube-apiserver", "--a", "b c", "--d", 5]
    first, second = api.mirror_pods()
    assert (first.node, first.ready, first.flags) == ("", False, ())
    assert second.flags == ("--a=b c", "--d")


def test_who_cannot_be_reached_or_does_not_know_us(stub: StubApi, tmp_path: Path) -> None:
    assert "cannot be reached (connection refused)" in fails(lambda: Api("other", stub.kubeconfig()).version())
    assert "log in again" in fails(lambda: Api("lab", stub.kubeconfig(token="wrong")).version())
    other = StubApi(tmp_path / "host", tmp_path / "host")
    other.start()
    other.stop()
    assert "is not trusted" in fails(lambda: Api("lab", stub.kubeconfig(authority=other.authority)).version())
    stub.away = True
    assert "is it restarting?" in fails(lambda: Api("lab", stub.kubeconfig()).version())
    stub.away, stub.denied = False, {"list nodes"}
    assert 'cannot list resource "nodes"' in fails(lambda: Api("lab", stub.kubeconfig()).nodes())


def test_a_credential_plugin_gets_no_terminal_and_its_failure_is_a_sentence(
    stub: StubApi, capfd: pytest.CaptureFixture[str]
) -> None:
    credentials = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": TOKEN},
    }
    asks = (
        f"if read -r answer || [ -t 0 ] || (: </dev/tty) 2>/dev/null; then exit 9; fi; echo '{json.dumps(credentials)}'"
    )
    logged_in = Api("lab", stub.kubeconfig(plugin=asks))
    assert logged_in.version() == "v1.34.2"
    logged_in.close()
    said = fails(lambda: Api("lab", stub.kubeconfig(plugin="echo 'login has expired' >&2; exit 3")))
    assert "login has expired" in said
    assert "log in first" in said
    assert capfd.readouterr() == ("", "")


# --- the pod ----------------------------------------------------------------------------------------------
def test_scripts_of_any_size_and_bytes_run_in_one_pod_that_is_removed(host: ApiHost, stub: StubApi) -> None:
    stdin = bytes(range(256)) * 2000
    script = "#" + "x" * 200_000 + '\nprintf "%s|" "$@" "$ROOT"; cat >"$ROOT/file"; echo no >&2; exit 9'
    for _ in range(2):
        done = host.run(script, ["a b", "c'd"], stdin=stdin)
        assert (done.code, done.out.decode(), done.error) == (9, f"a b|c'd|{stub.root}|", "no")
        assert (stub.root / "file").read_bytes() == stdin
    big = host.run("head -c 3000000 /dev/zero", timeout=60)
    assert big.out == bytes(3_000_000)
    assert stub.ours() == [host.pod]
    spec = stub.pods[host.pod]["spec"]
    assert (spec["nodeName"], spec["tolerations"], spec["hostPID"]) == ("cp-1", [{"operator": "Exists"}], True)
    assert spec["containers"][0]["image"] == "busybox:1.36"
    assert spec["automountServiceAccountToken"] is False
    assert spec["activeDeadlineSeconds"] > 0
    host.close()
    assert stub.ours() == []
    assert "was closed" in fails(lambda: host.run("true"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"denied": {"create pods", "get pods/exec"}},
            "must allow create pods, get pods/exec in namespace kube-system",
        ),
        ({"denied": {"delete pods"}}, "must allow delete pods"),
        ({"pod_security": True}, "Pod security admission lets no privileged pod into kube-system"),
    ],
)
def test_what_is_not_allowed_is_said_before_anything_is_made(
    host: ApiHost, stub: StubApi, change: dict[str, object], says: str
) -> None:
    for name, value in change.items():
        setattr(stub, name, value)
    assert says in fails(lambda: host.run("true"))
    assert stub.ours() == []
    assert not [path for method, path in stub.requests if method == "DELETE"]


def test_a_node_that_is_not_there_or_not_ready(host: ApiHost, api: Api, stub: StubApi) -> None:
    assert "has no node cp-9" in fails(lambda: ApiHost(api, "cp-9").run("true"))
    stub.nodes[1]["status"]["conditions"][0]["status"] = "Unknown"
    assert "cp-1 is not ready" in fails(lambda: host.run("true"))
    assert stub.ours() == []


NO_CNI = (
    "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin "
    "returns error: cni plugin not initialized"
)


@pytest.mark.parametrize(
    ("status", "message", "starts"),
    [
        ("False", NO_CNI, True),
        ("False", f"[{NO_CNI}, container runtime is down]", False),
        ("False", "container runtime is down", False),
        ("Unknown", NO_CNI, False),
    ],
)
def test_a_node_without_a_pod_network_starts_a_pod_in_its_own(
    host: ApiHost, stub: StubApi, status: str, message: str, starts: bool
) -> None:
    stub.nodes[1]["status"]["conditions"][0].update(status=status, reason="KubeletNotReady", message=message)
    if starts:
        host.check()
    else:
        assert "cp-1 is not ready" in fails(host.check)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("image_missing", r"busybox:1.36 cannot be had on cp-1 \(ErrImagePull: pull .*with --node-image"),
        ("ends_at_once", "was ended on cp-1 .NodeAffinity: node does not fit"),
        ("never_starts", "does not start .its last event: FailedMount: no such disk"),
    ],
)
def test_a_pod_that_does_not_run_is_removed_and_said(
    host: ApiHost, stub: StubApi, monkeypatch: pytest.MonkeyPatch, change: str, says: str
) -> None:
    monkeypatch.setattr(api_module, "_START_SECONDS", 1.0)
    setattr(stub, change, True)
    with pytest.raises(ReachError, match=says):
        host.run("true")
    assert stub.ours() == []
    setattr(stub, change, False)
    assert host.run("echo now").out == b"now\n"


def test_a_script_goes_on_while_the_api_is_away_and_can_be_asked_for_after(host: ApiHost, stub: StubApi) -> None:
    began, ended = stub.root / "began", stub.root / "ended"
    said: list[str] = []
    watcher = (
        'setsid sh -c "sleep 1; echo yes >$ROOT/ended" </dev/null >/dev/null 2>&1 & echo on >"$ROOT/began"; sleep 20'
    )
    thread = threading.Thread(target=lambda: said.append(fails(lambda: host.run(watcher))))
    host.open()
    thread.start()
    eventually(began.exists)
    stub.cut()
    thread.join(15)
    assert "goes on" in said[0]
    eventually(ended.exists)
    assert "cannot be reached" in fails(lambda: host.run("cat $ROOT/ended"))
    stub.away = False
    assert host.run("cat $ROOT/ended").out == b"yes\n"
    assert len(stub.ours()) == 1
    # the API goes away while the pod is removed, and comes back
    stub.away = True
    threading.Timer(1.0, lambda: setattr(stub, "away", False)).start()
    host.close()
    assert stub.ours() == []


def test_too_long_is_said(host: ApiHost) -> None:
    assert "did not end within 1 s" in fails(lambda: host.run("sleep 15", timeout=1))
    assert host.run("echo still").out == b"still\n"


def test_a_pod_that_somebody_removed_is_made_again(host: ApiHost, stub: StubApi) -> None:
    host.run("true")
    del stub.pods[host.pod]
    assert "is gone: ask again" in fails(lambda: host.run("true"))
    assert host.run("echo again").out == b"again\n"


def test_leftovers_are_found_and_removed_and_nothing_else_is(host: ApiHost, stub: StubApi) -> None:
    host.run("true")
    kubeconfig = stub.kubeconfig()
    found = leftovers("lab", kubeconfig)
    assert [(one.name, one.node, one.phase) for one in found] == [(host.pod, "cp-1", "Running")]
    mirror = Leftover("kube-system", "kube-apiserver-cp-1", "cp-1", "", "Running")
    assert "not one of ours" in fails(lambda: remove("lab", [mirror], kubeconfig))
    remove("lab", [*found, *found], kubeconfig)
    assert stub.ours() == []
    assert len(stub.pods) == 2


@pytest.mark.parametrize("shell", [["dash"], ["bash"], ["bash", "--posix"], ["busybox", "sh"]], ids=" ".join)
def test_what_runs_in_the_pod_leaves_its_cgroup_first(shell: list[str], tmp_path: Path) -> None:
    """On directories that look like the two versions of /sys/fs/cgroup."""
    if shutil.which(shell[0]) is None:
        pytest.skip(f"no {shell[0]} here")

    def leave(at: Path) -> str:
        script = api_module._LEAVE_CGROUP.replace("/sys/fs/cgroup", str(at)) + "echo on"
        environment = {"PATH": os.environ["PATH"]}
        done = subprocess.run([*shell, "-c", script], capture_output=True, text=True, env=environment, check=True)
        assert done.stderr == ""
        return done.stdout

    second, nested, first = tmp_path / "second", tmp_path / "nested", tmp_path / "first"
    second.mkdir()
    (second / "cgroup.procs").touch()
    (second / "system.slice").mkdir()
    (second / "system.slice" / "cgroup.procs").touch()
    (nested / "cgroup.procs").mkdir(parents=True)  # cannot be written to, by root neither
    for name in ("cpu", "memory"):
        (first / name).mkdir(parents=True)
        (first / name / "cgroup.procs").touch()
    assert [leave(at) for at in (second, nested, first, tmp_path / "none")] == ["on\n"] * 4
    assert (second / "cgroup.procs").read_text() == "0\n"
    assert (second / "system.slice" / "cgroup.procs").read_text() == ""
    assert (nested / "k8s-trace-tui" / "cgroup.procs").read_text() == "0\n"
    assert [(first / name / "cgroup.procs").read_text() for name in ("cpu", "memory")] == ["0\n", "0\n"]
