"""The doctor on the Receiver screen: he looks in a thread, what he found is on top, and nothing is disturbed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from receiver.store.database import Database
from tests.conftest import StartReceiver
from tests.doubles.stub_api import StubApi
from tests.tui.clusters.control_plane import start_control_plane, tracing_file
from tests.tui.driver import Driven
from tests.tui.still_feed import RECEIVED, SECOND, StillFeed
from tests.tui.still_planes import StillPlanes, node_of
from tests.tui.test_receiver_screen import SILENT, live
from tui import control_planes
from tui.app import TraceApp
from tui.cluster_feed import ControlPlanes, Named
from tui.clusters.doctor import Mark, NodeFindings, ReceiverFindings, Step, judge
from tui.clusters.model import Mode, Part, State, Wish
from tui.clusters.reach.api import Api, ApiHost
from tui.clusters.targets import Target
from tui.config import Settings
from tui.control_planes import RealControlPlanes
from tui.glyphs import ASCII, UNICODE
from tui.screens import receiver as receiver_screen
from tui.screens.doctor_lines import doctor_lines
from tui.theming import FALLBACK, palette

Quiet = Callable[..., AbstractAsyncContextManager[Driven]]

OFF = State("cp-1", Part.APISERVER, Mode.OFF, "v1.34.2")
SAMPLING = State("cp-2", Part.APISERVER, Mode.SAMPLING, "v1.34.2", 10_000, "localhost:4317")
LISTENING = ReceiverFindings({"listeners": [{"address": "127.0.0.1:4317"}]}, arriving=())


def steps_of(*states: State) -> tuple[Step, ...]:
    """As the doctor says it of nodes that are ready."""
    return tuple(judge(LISTENING, [NodeFindings(one.node, True, True, (one,), ready=True) for one in states], ()))


@pytest.fixture
def quiet() -> Quiet:
    """The Receiver screen when nothing has arrived for two minutes."""

    @asynccontextmanager
    async def start(
        planes: ControlPlanes | None,
        size: tuple[int, int] = (150, 40),
        feed: StillFeed | None = None,
        **settings: Any,
    ) -> AsyncIterator[Driven]:
        feed = feed or live(SILENT, Database.memory(), quiet=125)
        glyphs = settings.pop("glyphs", UNICODE)
        app = TraceApp(
            feed,
            Settings(utc=True, **settings),
            title="lab",
            glyphs=glyphs,
            control_planes=(lambda: planes) if planes is not None else None,
        )
        async with app.run_test(size=size, notifications=True) as pilot:
            driven = Driven(app, pilot, feed)
            await driven.settle()
            await driven.command("receiver")
            yield driven
        app.clusters.close()

    return start


async def seen(d: Driven) -> None:
    """Until the doctor has looked and it is on the screen; he may take twenty seconds over hosts."""
    for attempt in range(3):
        try:
            await d.until(lambda: d.app.clusters.snapshot.examination is not None)
            break
        except AssertionError:
            if attempt == 2:
                raise
    await d.settle()


# --- what is shown -----------------------------------------------------------------------------------
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
@pytest.mark.parametrize("size", [(150, 40), (80, 24), (60, 15)])
async def test_steps_stand_on_top_with_their_way_out(quiet: Quiet, size: tuple[int, int], glyphs: Any) -> None:
    planes = StillPlanes(steps=steps_of(OFF, SAMPLING))
    async with quiet(planes, size, glyphs=glyphs) as d:
        await seen(d)
        good, bad, arrow = ("+", "x", "->") if glyphs is ASCII else ("✓", "✗", "→")
        assert d.lines[2].startswith(" Nothing has arrived for 2 min. Looked")
        said = " ".join(d.screen.split())
        assert f"{good} port 4317 is ours" in said
        assert f"{bad} cp-1 apiserver v1.34.2 has no --tracing-config-file: tracing is off" in said
        assert f"{arrow} :clusters, then a: arm it (one restart), or k8s-trace-tui sampling arm" in said
        assert all(len(line) <= size[0] for line in d.lines)
        assert planes.looks == 1
        assert not planes.pods


async def test_the_recipe_is_there_where_tracing_is_off_or_nothing_was_looked_at(quiet: Quiet) -> None:
    for steps, shown in (
        (steps_of(OFF), True),
        (steps_of(SAMPLING, State("cp-2", Part.ETCD, Mode.OFF, "3.6.5")), False),
        (tuple(judge(LISTENING, (), ())), True),
        (tuple(judge(LISTENING, [NodeFindings("cp-1", False, problem="ssh: no route.")], ())), True),
    ):
        async with quiet(StillPlanes(steps=steps)) as d:
            await seen(d)
            assert ("TracingConfiguration" in d.screen) is shown, steps
            await d.press("t")
            assert ("TracingConfiguration" in d.screen) is not shown
            assert "port 4317 is ours" in d.screen


async def test_under_read_only_no_key_is_offered(quiet: Quiet) -> None:
    async with quiet(StillPlanes(steps=steps_of(OFF)), read_only=True) as d:
        await seen(d)
        assert "→ arm it (one restart): k8s-trace-tui sampling arm" in d.screen


async def test_nothing_that_a_host_says_reaches_the_terminal_raw(quiet: Quiet) -> None:
    evil = "\x1b]0;evil\x07\x1b[31m\u202e\r\n\u200b"
    states = (replace(OFF, node=evil, version=evil), replace(SAMPLING, mode=Mode.BROKEN, note=evil * 99))
    steps = (
        *steps_of(*states),
        Step(Mark.BAD, evil, evil, evil),
        *(Step(Mark.BAD, f"{at}{evil}") for at in range(999)),
    )
    async with quiet(StillPlanes(steps=steps)) as d:
        await seen(d)
        assert "has no --tracing-config-file" in d.screen
        await d.press("G")
        assert not [one for one in "\x1b\x07\u202e\r\u200b" if one in d.screen]


@pytest.mark.parametrize("width", [60, 80, 99, 150, 200])
def test_nothing_is_cut_at_any_width(width: int) -> None:
    steps = [*steps_of(OFF, SAMPLING, replace(SAMPLING, mode=Mode.BROKEN, note="the file is not there " * 9))]
    colours = palette({**FALLBACK, "foreground": "#ffffff", "background": "#000000", "primary": "#8888ff"})
    lines = ["".join(text for text, _ in line) for line in doctor_lines(steps, width, colours, UNICODE, lambda _: "")]
    assert max(map(len, lines)) < width
    words = " ".join(" ".join(lines).split())
    for step in steps:
        assert " ".join(step.text.split()) in words
        assert step.way_out in words


# --- when it is looked -------------------------------------------------------------------------------
async def test_one_look_at_a_time_again_by_key_or_after_a_while(quiet: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    planes = StillPlanes(steps=steps_of(OFF))
    planes.looking.clear()
    async with quiet(planes) as d:
        await d.until(lambda: planes.looks == 1)
        await d.settle()
        assert "Looking from here towards the API server" in d.screen
        assert "TracingConfiguration" not in d.screen
        await d.press("r", "r")  # the event loop goes on, and no second look begins
        assert planes.looks == 1
        planes.looking.set()
        await seen(d)
        for _ in range(5):
            await d.settle()
        assert planes.looks == 1
        await d.press("r")
        await d.until(lambda: planes.looks == 2)
        await d.until(lambda: not d.app.clusters.snapshot.examining)
        monkeypatch.setattr(receiver_screen, "AGAIN_SECONDS", 0.0)
        await d.until(lambda: planes.looks > 3)
        await d.press("escape")
        await d.until(lambda: not d.app.clusters.snapshot.examining)
        looks = planes.looks
        for _ in range(5):
            await d.settle()
        assert planes.looks == looks


async def test_what_the_doctor_sends_is_no_arrival_and_anything_else_is(quiet: Quiet) -> None:
    feed = live(SILENT, Database.memory(), quiet=125)
    sender = {"peer": "127.0.0.1:5", "service": "k8s-trace-tui", "instance": "doctor", "spans": 1, "last": feed.clock}
    feed.status = {**SILENT, "senders": [sender]}
    feed.turn()
    async with quiet(StillPlanes(steps=steps_of(SAMPLING)), feed=feed) as d:
        await seen(d)
        assert "Nothing has arrived for 2 min" in d.screen
        assert "127.0.0.1:5" not in d.screen
        feed.status = {**SILENT, "senders": [sender, {**sender, "service": "apiserver"}]}
        feed.turn()
        await d.settle()
        assert "Nothing has arrived" not in d.screen
        assert "port 4317 is ours" not in d.screen
        await d.press("r")  # why, although something arrives
        assert "port 4317 is ours" in d.screen


async def test_a_receiver_that_is_still_starting_is_given_its_time(quiet: Quiet) -> None:
    feed = live(None, quiet=500)  # what is in the database is old
    planes = StillPlanes(steps=steps_of(SAMPLING))
    async with quiet(planes, feed=feed) as d:
        assert planes.looks == 0
        feed.clock += 61 * SECOND
        await d.settle()
        await d.until(lambda: planes.looks == 1)


async def test_a_change_on_its_way_is_not_disturbed(quiet: Quiet) -> None:
    planes = StillPlanes([node_of("cp-1")], steps=steps_of(OFF))
    planes.gate.clear()
    feed = live(SILENT, Database.memory(), quiet=5)
    async with quiet(planes, feed=feed) as d:
        clusters = d.app.clusters
        clusters.plan(Wish(Part.APISERVER, 0, name="arm"), planes.nodes)
        await d.until(lambda: clusters.snapshot.offer is not None)
        offer = clusters.take_offer()
        assert offer is not None
        clusters.begin(offer)
        feed.clock += 120 * SECOND
        await d.settle()
        assert "cp-1 is being changed: nobody looks meanwhile." in d.screen
        await d.press("r")
        assert planes.looks == 0
        assert "look when that has ended" in d.toasts[-1]
        planes.gate.set()
        await d.until(lambda: planes.looks == 1)


async def test_a_plan_does_not_wait_for_the_doctor(quiet: Quiet) -> None:
    planes = StillPlanes()
    planes.looking.clear()
    async with quiet(planes) as d:
        await d.until(lambda: planes.looks == 1)
        d.app.clusters.plan(Wish(Part.APISERVER, 0, name="arm"), planes.nodes)
        await d.until(lambda: d.app.clusters.snapshot.offer is not None)
        planes.looking.set()


async def test_a_fault_is_said_and_the_recipe_stays(quiet: Quiet) -> None:
    class Broken(StillPlanes):
        def examine(self) -> tuple[Step, ...]:
            raise ValueError("\x1b[31m")

    async with quiet(Broken()) as d:
        await seen(d)
        assert "✗ A fault in looking why (ValueError: " in d.screen
        assert "\x1b" not in d.screen
        assert "TracingConfiguration" in d.screen


async def test_by_command_from_anywhere(quiet: Quiet) -> None:
    planes = StillPlanes(steps=steps_of(SAMPLING))
    async with quiet(planes, feed=live({**SILENT, "started": RECEIVED}, Database.memory())) as d:
        await d.press("escape")
        assert planes.looks == 0
        await d.command("doctor")
        await seen(d)
        assert d.place == "receiver"
        assert "port 4317 is ours" in d.screen


async def test_in_a_recording_nobody_looks(quiet: Quiet) -> None:
    async with quiet(None, feed=StillFeed()) as d:
        await d.press("r")
        assert "Looked" not in d.screen
        assert " look" not in d.lines[-1]


# --- over what really runs ---------------------------------------------------------------------------
@pytest.fixture
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))


@pytest.mark.usefixtures("_own_home")
async def test_without_a_control_plane_it_says_how_to_name_one(
    quiet: Quiet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_planes, "targets", lambda *_, **__: ())
    async with quiet(RealControlPlanes(Settings(), Named(), tmp_path / "spans.db")) as d:
        await seen(d)
        assert "no control plane was looked at: there is none on this machine" in d.screen
        assert "→ name one: --host ssh://USER@HOST, or --context CONTEXT" in d.screen
        assert "✗ no receiver is running" in d.screen
        assert "TracingConfiguration" in d.screen


@pytest.mark.usefixtures("_own_home")
async def test_what_cannot_be_reached_is_named(quiet: Quiet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    async with quiet(RealControlPlanes(Settings(), Named(context="lab"), tmp_path / "spans.db")) as d:
        await seen(d)
        assert "· no control plane was looked at: There is no kubeconfig" in d.screen
        assert "there is none on this machine" not in d.screen


async def test_a_span_of_our_own_goes_where_the_api_server_sends(
    quiet: Quiet, tmp_path: Path, receiver: StartReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = start_control_plane(tmp_path / "node")
    try:
        ours, theirs = receiver(), receiver(tmp_path / "theirs.db")
        monkeypatch.setattr(control_planes, "targets", lambda *_, **__: (Target("lab", (plane.host,)),))
        async with quiet(RealControlPlanes(Settings(), Named(), ours.db)) as d:

            async def look() -> str:
                before = d.app.clusters.snapshot.examination
                await d.press("r")
                for _ in range(3):
                    try:
                        await d.until(lambda: d.app.clusters.snapshot.examination is not before)
                        break
                    except AssertionError:
                        continue
                await d.settle()
                return d.screen

            await seen(d)
            assert "✓ cp-1 apiserver v1.36.2 is ready" in d.screen
            assert "✗ cp-1 apiserver v1.36.2 has no --tracing-config-file: tracing is off" in d.screen
            before = plane.files()
            outcome = await asyncio.to_thread(plane.roll, plane.arm(0, tracing_file(0, ours.address)))
            assert outcome.well, outcome
            screen = await look()
            assert f"✓ a span of our own to {ours.address} on cp-1 arrives" in screen
            assert f"is armed at rate 0, sends to {ours.address}: only forced requests are traced" in screen
            assert "TracingConfiguration" not in screen
            # another collector on the port that it sends to
            plane.tracing.write_bytes(tracing_file(10_000, theirs.address))
            screen = " ".join((await look()).split())
            assert f"✗ a span of our own to {theirs.address} on cp-1 is taken by somebody else" in screen
            theirs.stop()
            screen = " ".join((await look()).split())
            assert f"✗ nobody listens on {theirs.address} on cp-1" in screen
            plane.tracing.write_bytes(tracing_file(0, ours.address))
            after = plane.files()
            assert {name for name in after if after[name] != before.get(name)} == {
                "etc/kubernetes/manifests/kube-apiserver.yaml",
                "etc/kubernetes/k8s-trace-tui/apiserver.yaml",
            }
    finally:
        plane.stop()


@pytest.mark.usefixtures("_own_home")
async def test_through_the_api_no_pod_is_made(quiet: Quiet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("host", "api"):
        (tmp_path / name).mkdir()
    stub = StubApi(tmp_path / "host", tmp_path / "api")
    stub.start()
    try:
        stub.add_control_plane("cp-1", tracing_config_file="/etc/kubernetes/t.yaml")
        stub.add_control_plane("cp-2")
        api = Api("lab", stub.kubeconfig())
        hosts = tuple(ApiHost(api, name) for name in ("cp-1", "cp-2"))
        monkeypatch.setattr(control_planes, "targets", lambda *_, **__: (Target("lab", hosts, "lab", api=api),))
        planes = RealControlPlanes(Settings(), Named(context="lab"), tmp_path / "spans.db")
        planes._pods_agreed = True  # even then
        async with quiet(planes) as d:
            await seen(d)
            assert "· cp-1 apiserver v1.34.2 was not looked into: it is configured" in d.screen
            assert "→ the Clusters screen asks whether a pod of ours may read it" in " ".join(d.screen.split())
            assert "✗ cp-2 apiserver v1.34.2 has no --tracing-config-file" in d.screen
        assert {method for method, _ in stub.requests} == {"GET"}
    finally:
        stub.stop()
