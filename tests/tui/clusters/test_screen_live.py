"""The Clusters screen over real rollouts: nodes that are directories, and a control plane that runs and exports."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import StartReceiver
from tests.doubles.shell_host import ShellHost
from tests.doubles.stub_api import StubApi
from tests.eventually import eventually
from tests.tui.clusters.control_plane import ControlPlane
from tests.tui.driver import Driven
from tests.tui.still_feed import StillFeed
from tests.tui.test_sampling import files, make_node, traced_before
from tui import control_planes
from tui.app import TraceApp
from tui.cluster_feed import ClusterFeed, Named, NotAgreed, Reading
from tui.clusters import rollout
from tui.clusters.arriving import of_database
from tui.clusters.model import Done, Mode, Part, ReachError, Wish
from tui.clusters.reach import api
from tui.clusters.reach.folder import FolderHost
from tui.clusters.targets import Target
from tui.config import Settings
from tui.control_planes import RealControlPlanes
from tui.glyphs import UNICODE
from tui.screens.change import ConfirmScreen

ARM = Wish(Part.APISERVER, 0, name="arm")


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))


def test_directories_are_changed_and_put_back_byte_for_byte(tmp_path: Path) -> None:
    roots = [make_node(tmp_path, "cp-1"), make_node(tmp_path, "cp-2")]
    before = [files(root) for root in roots]
    named = Named(tuple(f"file://{root}" for root in roots))
    feed = ClusterFeed(lambda: RealControlPlanes(Settings(), named, tmp_path / "spans.db"))

    def offered() -> None:
        eventually(lambda: feed.snapshot.offer or feed.snapshot.refusal)
        change = feed.take_offer()
        assert change is not None, feed.snapshot.refusal
        feed.begin(change)
        eventually(lambda: feed.rolling is None and not feed.snapshot.busy)
        assert feed.snapshot.run is not None
        assert [one.outcome and one.outcome.word for one in feed.snapshot.run.nodes] == ["done", "done"]

    def modes() -> list[Mode]:
        assert feed.snapshot.reading is not None
        return [state.mode for node in feed.snapshot.reading.nodes for state in node.states]

    try:
        feed.read()
        eventually(lambda: feed.snapshot.reading and not feed.snapshot.busy)
        assert modes() == [Mode.OFF, Mode.OFF]
        assert feed.snapshot.reading is not None
        feed.plan(ARM, feed.snapshot.reading.nodes)
        assert [files(root) for root in roots] == before
        offered()
        assert modes() == [Mode.ARMED, Mode.ARMED]
        feed.plan_revert(Part.APISERVER, feed.snapshot.reading.nodes)
        offered()
        assert [files(root) for root in roots] == before
        feed.plan_revert(Part.APISERVER, feed.snapshot.reading.nodes)
        eventually(lambda: feed.snapshot.refusal)
        assert "reverted already" in feed.take_refusal()
    finally:
        feed.close()


def test_a_revert_to_a_high_rate_has_the_name_typed_here_too(tmp_path: Path) -> None:
    root = make_node(tmp_path, "cp-1")
    traced_before(root, "500000")
    feed = ClusterFeed(lambda: RealControlPlanes(Settings(), Named((f"file://{root}",)), tmp_path / "spans.db"))
    try:
        feed.read()
        eventually(lambda: feed.snapshot.reading and not feed.snapshot.busy)
        assert feed.snapshot.reading is not None
        nodes = feed.snapshot.reading.nodes
        feed.plan(ARM, nodes)
        eventually(lambda: feed.snapshot.offer)
        change = feed.take_offer()
        assert change is not None
        feed.begin(change)
        eventually(lambda: feed.rolling is None and not feed.snapshot.busy)
        feed.plan_revert(Part.APISERVER, nodes)
        eventually(lambda: feed.snapshot.offer)
        change = feed.take_offer()
        assert change is not None
        assert change.type_name == "cp-1"
        with pytest.raises(NotAgreed):
            feed.begin(change, "cp-2")
    finally:
        feed.close()


def test_without_a_control_plane_it_says_how_to_name_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_planes, "targets", lambda *_, **__: ())
    feed = ClusterFeed(lambda: RealControlPlanes(Settings(), Named(), tmp_path / "spans.db"))
    feed.read()
    eventually(lambda: feed.snapshot.problem)
    assert "--host ssh://USER@HOST" in feed.snapshot.problem
    feed.close()


def test_a_host_that_hangs_keeps_the_others_from_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read, planned and changed beside one whose connection does not come about."""
    gives_up = threading.Event()

    class Hangs(ShellHost):
        def run(self, *_: object, **__: object) -> Done:
            gives_up.wait(30)
            raise ReachError("No sshd answers at ssh://root@cp-2.")

    root = make_node(tmp_path, "cp-1")
    hosts = (FolderHost(f"file://{root}"), Hangs(tmp_path, name="ssh://root@cp-2"))
    monkeypatch.setattr(control_planes, "targets", lambda *_, **__: (Target("lab", hosts),))
    feed = ClusterFeed(lambda: RealControlPlanes(Settings(), Named(), tmp_path / "spans.db"))
    try:
        feed.read()
        eventually(lambda: feed.snapshot.reading and feed.snapshot.reading.nodes[0].facts)
        assert feed.snapshot.reading is not None
        first, second = feed.snapshot.reading.nodes
        assert (first.states[0].mode, second.awaited) == (Mode.OFF, True)
        feed.plan(ARM, [first])
        eventually(lambda: feed.snapshot.offer)
        gives_up.set()
        eventually(lambda: not feed.snapshot.busy)
        assert feed.snapshot.reading.nodes[1].problem == "No sshd answers at ssh://root@cp-2."
    finally:
        gives_up.set()
        feed.close()


def test_through_the_api_no_pod_before_it_was_agreed_to(
    control_plane: ControlPlane, unhurried: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in control_plane.host.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(api, "_CLOSE_SECONDS", 5.0)
    (tmp_path / "api").mkdir()
    stub = StubApi(control_plane.root, tmp_path / "api")
    stub.start()
    stub.add_control_plane("cp-1")
    monkeypatch.setenv("KUBECONFIG", str(stub.kubeconfig()))
    left = api.ApiHost(api.Api("lab"), "cp-1")
    left.open()  # as a program that was killed leaves it
    before = control_plane.files()
    feed = ClusterFeed(lambda: RealControlPlanes(Settings(protected=("lab",)), Named(context="lab"), tmp_path / "x.db"))

    def settled() -> Reading:
        eventually(lambda: feed.snapshot.reading and not feed.snapshot.busy)
        assert feed.snapshot.reading is not None, feed.snapshot.problem
        return feed.snapshot.reading

    try:
        feed.read()
        found = settled()
        assert (found.cluster, found.protected, found.nodes[0].states[0].mode) == ("lab", True, Mode.OFF)
        assert "privileged pod of ours" in found.pods_wanted
        assert [one.name for one in found.leftovers] == [left.pod]
        feed.remove(found.leftovers)
        assert settled().leftovers == ()
        assert stub.ours() == [], "nothing of ours is there before it was agreed to"
        feed.let_pods_in()
        found = settled()
        assert (found.pods_wanted, found.nodes[0].facts is not None, len(stub.ours())) == ("", True, 1)
        assert found.leftovers == (), "that is ours and at work"
        feed.plan(ARM, found.nodes)
        eventually(lambda: feed.snapshot.offer or feed.snapshot.refusal)
        change = feed.take_offer()
        assert change is not None, feed.snapshot.refusal
        assert change.type_name == "lab"
        with pytest.raises(NotAgreed):
            feed.begin(change)
        feed.begin(change, "lab")
        eventually(lambda: feed.rolling is None and not feed.snapshot.busy, seconds=120)
        assert settled().nodes[0].states[0].mode is Mode.ARMED
        feed.plan_revert(Part.APISERVER, settled().nodes)
        eventually(lambda: feed.snapshot.offer)
        change = feed.take_offer()
        assert change is not None
        feed.begin(change, "lab")
        eventually(lambda: feed.rolling is None and not feed.snapshot.busy, seconds=120)
        assert control_plane.files() == before
    finally:
        feed.close()
        ours = stub.ours()
        stub.stop()
    assert ours == []


@pytest.fixture
def planes(
    control_plane: ControlPlane, unhurried: None, receiver: StartReceiver, monkeypatch: pytest.MonkeyPatch
) -> tuple[ControlPlane, RealControlPlanes, str, Path]:
    live = receiver()
    monkeypatch.setattr(control_planes, "targets", lambda *_, **__: (Target("lab", (control_plane.host,)),))
    return control_plane, RealControlPlanes(Settings(), Named(), live.db), live.address, live.db


async def test_from_off_to_armed_to_all_and_back_by_keys(
    planes: tuple[ControlPlane, RealControlPlanes, str, Path],
) -> None:
    plane, real, address, database = planes
    before = plane.files()
    app = TraceApp(StillFeed(), Settings(utc=True), title="lab", glyphs=UNICODE, control_planes=lambda: real)
    async with app.run_test(size=(120, 30), notifications=True) as pilot:
        d = Driven(app, pilot, app.feed)  # type: ignore[arg-type]

        async def until_(holds: Callable[[], bool]) -> None:
            for _ in range(6):  # of ten seconds
                try:
                    return await d.until(holds)
                except AssertionError:
                    continue
            raise AssertionError(d.screen)

        async def done(name: str = "") -> None:
            await until_(lambda: isinstance(app.screen, ConfirmScreen))
            await d.settle()
            assert "+" in d.screen or "-" in d.screen
            if name:
                await d.type(name)
                await d.press("enter")
            else:
                await d.press("tab", "enter")
            await until_(lambda: app.clusters.rolling is None and not app.clusters.snapshot.busy)
            await d.settle()

        await d.press("tab", "tab")
        await until_(lambda: "○ off" in d.screen)
        await d.command(f"arm {address}")
        await done()
        assert "◐ armed" in d.screen
        assert "✓ cp-1 apiserver: done" in d.screen
        await d.press("s")
        await d.type("all")
        await d.press("enter")
        await done("lab")
        assert "● sampling" in d.screen
        assert "7 spans arriving ✓" in d.screen
        assert "its spans arrive" in d.screen
        assert any(stream.service == "apiserver" for stream in of_database(database) or ())
        await d.press("o")
        await done()
        assert "○ off" in d.screen
        assert plane.files() == before
    real.close()
    plane.until_ready()


def test_what_was_interrupted_is_undone(planes: tuple[ControlPlane, RealControlPlanes, str, Path]) -> None:
    plane, real, _, _ = planes
    before = plane.files()
    plane.host.environment["K8S_TRACE_TUI_STOP_AT"] = "restart"
    name = rollout.begin(plane.host, plane.arm(), who="alice")
    del plane.host.environment["K8S_TRACE_TUI_STOP_AT"]
    assert plane.follow(name).word == "interrupted"
    feed = ClusterFeed(lambda: real)
    feed.read()
    eventually(lambda: feed.snapshot.reading and not feed.snapshot.busy)
    assert feed.snapshot.reading is not None
    (node,) = feed.snapshot.reading.nodes
    feed.plan(ARM, [node])
    eventually(lambda: feed.snapshot.refusal)
    assert "was interrupted" in feed.take_refusal()
    feed.plan_carrying_on(node, undo=True)
    eventually(lambda: feed.snapshot.offer)
    change = feed.take_offer()
    assert change is not None
    feed.begin(change)
    eventually(lambda: feed.rolling is None and not feed.snapshot.busy)
    assert plane.files() == before
    assert feed.snapshot.run is not None
    outcome = feed.snapshot.run.nodes[0].outcome
    assert outcome is not None
    assert outcome.word == "rolled back"
    feed.close()


def test_a_program_that_ends_leaves_the_node_to_itself_and_the_next_follows(
    planes: tuple[ControlPlane, RealControlPlanes, str, Path],
) -> None:
    plane, real, _, _ = planes
    feed = ClusterFeed(lambda: real)
    feed.read()
    eventually(lambda: feed.snapshot.reading and not feed.snapshot.busy)
    assert feed.snapshot.reading is not None
    feed.plan(ARM, feed.snapshot.reading.nodes)
    eventually(lambda: feed.snapshot.offer)
    change = feed.take_offer()
    assert change is not None
    feed.begin(change)
    eventually(lambda: feed.snapshot.run and feed.snapshot.run.nodes[0].steps)
    feed.stop()
    eventually(lambda: feed.rolling is None)
    eventually(lambda: bool(plane.facts().rollouts[-1].ended), "the node does not go on")
    assert plane.facts().rollouts[-1].ended == "done"
    feed.close()
