"""A real etcd as a static pod: its tracing changed by the command line, and only while all of its members are well."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.conftest import StartReceiver
from tests.doubles.certificates import Authority
from tests.doubles.etcd import find_etcd
from tests.doubles.ports import free_port
from tests.eventually import eventually
from tests.tui.clusters.control_plane import PATIENCE, ControlPlane
from tui import sampling
from tui.clusters import rollout
from tui.clusters.arriving import of_database
from tui.clusters.model import FileChange, NodeAsks, Part, Plan, PlanRefused, Trigger
from tui.sampling import Asked, Reach

BINARY = find_etcd()
pytestmark = pytest.mark.skipif(BINARY is None, reason="etcd is not here")
MANIFEST = "/etc/kubernetes/manifests/etcd.yaml"
# the binary of the test package knows the flags that 3.5.9 knows
HEAD = """\
apiVersion: v1
kind: Pod
metadata:
  name: etcd
  namespace: kube-system
spec:
  containers:
  - name: etcd
    image: registry.k8s.io/etcd:3.5.9-0
    command:
"""


@dataclass
class Members:
    """An etcd whose member cp-1 is a pod of the pocket kubelet; cp-2 and so on are plain processes."""

    plane: ControlPlane
    client: int
    metrics: int
    commands: dict[str, list[str]]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def manifest(self) -> Path:
        return self.plane.root / MANIFEST[1:]

    def start(self, name: str) -> None:
        log = (self.plane.root / f"{name}.log").open("wb")
        with log:
            self.processes[name] = subprocess.Popen(
                self.commands[name], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes.pop(name).wait(10)

    def change(self, *flags: str) -> Plan:
        """cp-1 gets more flags."""
        before = self.manifest.read_bytes()
        after = before + "".join(f"    - {flag}\n" for flag in flags).encode()
        change = FileChange(MANIFEST, before, after, 0o600, os.getuid(), os.getgid())
        plan = self.plane.plan(Trigger.MANIFEST, change)
        health = (f"http://127.0.0.1:{self.metrics}/health", *plan.health)
        return replace(plan, part=Part.ETCD, manifest=MANIFEST, container="etcd", health=health)


def add_etcd(plane: ControlPlane, names: Sequence[str] = ("cp-1",), secure: bool = False) -> Members:
    """Give a control plane an etcd and wait until its API server reads from it."""
    assert BINARY is not None
    scheme, client_flags, api_flags = "http", [], []
    if secure:
        pki = plane.root / "etc/kubernetes/pki/etcd"
        pki.mkdir()
        authority = Authority(pki, "ca")
        server = authority.issue("server")
        scheme = "https"
        client_flags = [
            "--client-cert-auth=true",
            f"--trusted-ca-file={authority.certificate}",
            f"--cert-file={server.certificate}",
            f"--key-file={server.key}",
        ]
        api_flags = [
            f"--etcd-cafile={authority.certificate}",
            f"--etcd-certfile={server.certificate}",
            f"--etcd-keyfile={server.key}",
        ]
    ports = {name: (free_port(), free_port(), free_port()) for name in names}
    cluster = ",".join(f"{name}=http://127.0.0.1:{peer}" for name, (_, peer, _) in ports.items())
    commands = {
        name: [
            str(BINARY),
            f"--name={name}",
            f"--data-dir={plane.root / 'data' / name}",
            f"--listen-client-urls={scheme}://127.0.0.1:{client}",
            f"--advertise-client-urls={scheme}://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--listen-metrics-urls=http://127.0.0.1:{metrics}",
            f"--initial-cluster={cluster}",
            *client_flags,
        ]
        for name, (client, peer, metrics) in ports.items()
    }
    client, _, metrics = ports[names[0]]
    made = Members(plane, client, metrics, commands)
    for name in names[1:]:
        made.start(name)
    made.manifest.write_text(HEAD + "".join(f"    - {word}\n" for word in commands[names[0]]))
    made.manifest.chmod(0o600)
    eventually(lambda: "etcd" in plane.running(), "etcd does not run")
    flags = [f"--etcd-servers={scheme}://127.0.0.1:{client}", *api_flags]
    text = plane.manifest.read_text()
    draft = plane.root / "draft"
    draft.write_text(text.replace("    name: kube", "".join(f"    - {flag}\n" for flag in flags) + "    name: kube", 1))
    draft.chmod(0o600)
    draft.rename(plane.manifest)
    eventually(lambda: plane.status("/livez") == 0, "the old server is still there")
    plane.until_ready()
    return made


@pytest.fixture
def members(control_plane: ControlPlane) -> Iterator[Callable[..., Members]]:
    made: list[Members] = []

    def start(*names: str, secure: bool = False) -> Members:
        made.append(add_etcd(control_plane, names, secure))
        return made[-1]

    yield start
    for one in made:
        for name in list(one.processes):
            one.kill(name)


def test_arm_off_and_revert_by_the_command_line(
    control_plane: ControlPlane,
    unhurried: None,
    members: Callable[..., Members],
    receiver: StartReceiver,
    capsys: pytest.CaptureFixture[str],
) -> None:
    members("cp-1", secure=True)
    live = receiver()
    asked = Asked(part=Part.ETCD, endpoint=live.address, yes=True, as_json=True, database=live.db)
    reach = Reach((control_plane.host,))
    before = control_plane.files()

    def state() -> tuple[object, object]:
        capsys.readouterr()
        assert sampling.status(reach, asked) == 0
        (found,) = [one for one in map(json.loads, capsys.readouterr().out.splitlines()) if one["component"] == "etcd"]
        return found["state"], found["instance"]

    def change(per_million: int | None, name: str) -> None:
        assert sampling.change(reach, replace(asked, per_million=per_million), name) == 0, capsys.readouterr().err
        control_plane.until_ready()

    assert state() == ("off", "")
    change(0, "arm")
    assert "all of them are healthy (1)" in capsys.readouterr().err
    assert state() == ("armed", "cp-1")
    eventually(
        lambda: any((one.service, one.instance) == ("etcd", "cp-1") for one in of_database(live.db) or ()),
        "no span of etcd has arrived",
    )
    # the trap that makes it slow: its old mirror has to be deleted by an API that needs it
    assert "Failed deleting a mirror pod" in (control_plane.root / "run/pocket/kubelet.log").read_text()
    change(None, "off")
    assert state() == ("off", "")
    assert control_plane.files() == before
    change(0, "arm")
    assert sampling.revert(reach, asked) == 0
    control_plane.until_ready()
    assert control_plane.files() == before


def test_a_tracing_flag_that_keeps_etcd_down_is_mended_by_off(
    control_plane: ControlPlane,
    unhurried: None,
    members: Callable[..., Members],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = members("cp-1")
    before = control_plane.files()
    draft = control_plane.root / "etc/draft"
    draft.write_bytes(made.manifest.read_bytes() + b"    - --experimental-distributed-tracing-bogus=1\n")
    draft.chmod(0o600)
    draft.rename(made.manifest)
    eventually(lambda: "tracing-bogus" in control_plane.facts().words.get("etcd", ""), "it does not crash by its flag")
    asked = Asked(part=Part.ETCD, yes=True, as_json=True, database=tmp_path / "none.db")
    capsys.readouterr()
    assert sampling.change(Reach((control_plane.host,)), asked, "off") == 0, capsys.readouterr()
    assert "this mends it" in capsys.readouterr().out
    control_plane.until_ready()
    assert control_plane.files() == before


def test_etcd_is_not_restarted_without_kubelet(control_plane: ControlPlane, members: Callable[..., Members]) -> None:
    plan = members("cp-1").change("--experimental-enable-distributed-tracing=true")
    before = control_plane.files()
    control_plane.stop_kubelet()
    with pytest.raises(PlanRefused, match="kubelet does not run"):
        rollout.begin(control_plane.host, plan, who="alice")
    assert control_plane.files() == before
    assert "etcd" in control_plane.running()


def test_an_etcd_that_does_not_start_is_put_back(control_plane: ControlPlane, members: Callable[..., Members]) -> None:
    plan = members("cp-1").change("--no-such-flag")
    before = control_plane.files()
    outcome = control_plane.roll(plan)
    assert (outcome.word, "does not stay up" in outcome.detail) == ("rolled back", True), outcome
    control_plane.until_ready()
    assert control_plane.files() == before
    assert control_plane.status("/api/v1/namespaces/kube-system/configmaps?limit=1") == 200


def test_only_while_every_member_is_well(control_plane: ControlPlane, members: Callable[..., Members]) -> None:
    etcd = members("cp-1", "cp-2", "cp-3")
    plan = etcd.change("--snapshot-count=9000")
    before = control_plane.files()
    etcd.kill("cp-3")
    with pytest.raises(PlanRefused, match=r"etcd's member cp-3 at http://127\.0\.0\.1:\d+ \(.+\) is not well"):
        rollout.begin(control_plane.host, plan, who="alice")
    assert control_plane.files() == before
    facts = control_plane.facts()
    assert (facts.rollouts, facts.lock) == ((), "")

    # interrupted before anything was written: by now a member is down
    etcd.start("cp-3")
    eventually(lambda: _begins(etcd, plan), "cp-3 does not come back")
    (left,) = control_plane.facts().rollouts
    etcd.kill("cp-3")
    with pytest.raises(PlanRefused, match="cp-3"):
        rollout.finish(control_plane.host, left.id)
    assert etcd.manifest.read_bytes() == plan.changes[0].before
    assert control_plane.facts().lock == ""
    etcd.start("cp-3")
    eventually(lambda: _finishes(control_plane, left.id), "cp-3 does not come back")
    outcome = control_plane.follow(left.id)
    assert outcome.word == "done", outcome
    assert [entry.detail for entry in outcome.entries if entry.step == "members"] == ["all of them are healthy (3)"]
    assert etcd.manifest.read_bytes() == plan.changes[0].after
    # the other members were there all the while
    assert all(process.poll() is None for process in etcd.processes.values())


def _begins(etcd: Members, plan: Plan) -> bool:
    """Whether it begins, and dies once it has its copies."""
    etcd.plane.host.environment["K8S_TRACE_TUI_STOP_AT"] = "watch"
    try:
        rollout.begin(etcd.plane.host, plan, who="alice", patience=PATIENCE)
    except PlanRefused:
        return False
    finally:
        del etcd.plane.host.environment["K8S_TRACE_TUI_STOP_AT"]
    return True


def _finishes(plane: ControlPlane, name: str) -> bool:
    try:
        rollout.finish(plane.host, name)
    except PlanRefused:
        return False
    return True


def test_what_cannot_be_found_out_is_asked(control_plane: ControlPlane, members: Callable[..., Members]) -> None:
    plan = members("cp-1").change("--snapshot-count=9000")
    before = control_plane.files()
    control_plane.spoil("exec")
    with pytest.raises(NodeAsks, match="cannot be found out whether the other members"):
        rollout.begin(control_plane.host, plan, who="alice")
    questions: list[str] = []

    def rolled(answer: bool) -> rollout.Outcome:
        def ask(_node: str, question: str) -> bool:
            questions.append(question)
            return answer

        steps = [(control_plane.host, plan)]
        (outcome,) = rollout.Rollout(steps, lambda *_: None, who="alice", ask=ask, patience=PATIENCE, poll=0.15).run()
        return outcome

    assert (rolled(False).word, control_plane.files()) == ("refused", before)
    assert control_plane.facts().rollouts == ()
    outcome = rolled(True)
    assert outcome.word == "done"
    assert any("nobody knows" in entry.detail for entry in outcome.entries if entry.step == "note")
    assert len(questions) == 2
    assert "executable file not found" in questions[0]


@pytest.mark.parametrize("back", [False, True])
def test_what_cannot_be_found_out_is_asked_again_where_it_was_interrupted(
    control_plane: ControlPlane, members: Callable[..., Members], back: bool
) -> None:
    etcd = members("cp-1")
    plan = etcd.change("--snapshot-count=9000")
    eventually(lambda: _begins(etcd, plan), "it does not begin")
    (left,) = control_plane.facts().rollouts
    control_plane.spoil("exec")
    # a manifest that is not written yet is not taken back either, so only going on is a matter of doubt
    questions: list[str] = []

    def carried_on(answer: bool) -> rollout.Outcome:
        name = rollout.carry_on(
            control_plane.host, left.id, back, who="bob", ask=lambda said: bool(questions.append(said)) or answer
        )
        return control_plane.follow(name)

    if back:
        assert (carried_on(False).word, questions) == ("rolled back", [])
        assert etcd.manifest.read_bytes() == plan.changes[0].before
        return
    with pytest.raises(NodeAsks, match="cannot be found out whether the other members"):
        carried_on(False)
    assert etcd.manifest.read_bytes() == plan.changes[0].before
    assert control_plane.facts().rollouts[0].ended == ""
    outcome = carried_on(True)
    assert outcome.word == "done", outcome
    assert len(questions) == 2
    assert all(question.endswith("Go on all the same?") for question in questions)
