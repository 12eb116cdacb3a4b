"""The Clusters screen by its keys: nothing changes without the question, and all that happens is said."""

from __future__ import annotations

import asyncio
import difflib
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.widgets import Input

from tests.tui.driver import Driven
from tests.tui.still_feed import RECEIVED, StillFeed
from tests.tui.still_planes import StillHost, StillPlanes, interrupted, node_of
from tui.app import TraceApp
from tui.cluster_feed import Change, ClusterFeed, NodeRun, NotAgreed, Run
from tui.clusters.load import expected_load
from tui.clusters.model import Mode, Part, Plan, RolloutFacts, State, Trigger, Wish
from tui.clusters.reach.api import Leftover
from tui.clusters.rollout import Outcome
from tui.clusters.survey import Node
from tui.config import Settings
from tui.glyphs import ASCII, UNICODE
from tui.keys import KEYS
from tui.screens.change import ConfirmScreen
from tui.screens.cluster_lines import run_lines, short_diff, stages
from tui.theming import FALLBACK, palette

COLOURS = {**FALLBACK, "foreground": "#ffffff", "background": "#000000", "primary": "#8888ff"}

Clusters = Callable[..., AbstractAsyncContextManager[Driven]]


@pytest.fixture
def clusters() -> Clusters:
    @asynccontextmanager
    async def start(
        planes: StillPlanes | None, size: tuple[int, int] = (150, 40), feed: StillFeed | None = None, **settings: Any
    ) -> AsyncIterator[Driven]:
        feed = feed or StillFeed()
        glyphs = settings.pop("glyphs", UNICODE)
        app = TraceApp(
            feed,
            Settings(utc=True, **settings),
            title="demo",
            glyphs=glyphs,
            control_planes=(lambda: planes) if planes is not None else None,
            no_control_planes="A recording has none.",
        )
        async with app.run_test(size=size, notifications=True) as pilot:
            driven = Driven(app, pilot, feed)
            while feed.snapshot.loading is not None:
                await pilot.pause(0.01)
            await driven.settle()
            await driven.press("tab", "tab")
            await driven.until(lambda: not app.clusters.snapshot.busy)
            await driven.settle()
            yield driven

    return start


async def asked(d: Driven) -> None:
    await d.until(lambda: isinstance(d.app.screen, ConfirmScreen))
    await d.settle()


async def ended(d: Driven) -> None:
    await d.until(lambda: d.app.clusters.rolling is None and not d.app.clusters.snapshot.busy)
    await d.settle()


async def agree(d: Driven, name: str = "") -> None:
    """Through the dialog, as people do."""
    await asked(d)
    if name:
        await d.type(name)
        await d.press("enter")
    else:
        await d.press("tab", "enter")


def row(d: Driven, name: str = "cp-1") -> str:
    return next(line for line in d.lines if line[1:].startswith(name))


# --- the table ---------------------------------------------------------------------------------------
async def test_nodes_with_their_state_and_what_differs(clusters: Clusters) -> None:
    planes = StillPlanes([node_of("cp-1", Mode.ARMED, 0), node_of("cp-2", Mode.ARMED, 0), node_of("cp-3")])
    planes.nodes.append(Node(node_of("cp-4").host, problem="cp-4 cannot be reached."))
    async with clusters(planes) as d:
        assert "Clusters  prod-eu  kubeadm v1.34.2  4 control-plane nodes" in d.title
        assert re.search(r"cp-1 +apiserver +v1\.34\.2 +◐ armed +0 +localhost:4317", d.screen)
        assert re.search(r"cp-3 +apiserver +v1\.34\.2 +○ off .*! differs from cp-1, cp-2", d.screen)
        assert "? cp-4 cannot be reached." in d.screen
        assert d.lines[-1].startswith(" ⏎ node  a arm")


async def test_what_arrives_is_each_components_own(clusters: Clusters) -> None:
    sampling = node_of("cp-1", Mode.SAMPLING, 10_000)
    named = replace(sampling, states=(replace(sampling.states[0], instance="apiserver-x4"),))
    planes = StillPlanes([named, node_of("cp-2", Mode.ARMED, 0)])
    feed = StillFeed(live=True)
    feed.status = {"started": RECEIVED}
    async with clusters(planes, feed=feed) as d:
        rates = {("127.0.0.1:1", "apiserver", "apiserver-x4", "local"): 41.2}
        feed.snapshot = replace(feed.snapshot, sender_rates=rates)
        await d.settle()
        assert re.search(r"cp-1 .* 1 % .* 41 spans/s", row(d))
        assert "spans/s" not in row(d, "cp-2")


@pytest.mark.parametrize("size", [(150, 40), (80, 24), (60, 15)])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
async def test_any_size_and_terminal(clusters: Clusters, size: tuple[int, int], glyphs: Any) -> None:
    planes = StillPlanes([node_of("cp-1", Mode.SAMPLING, 10_000), node_of("cp-2")])
    async with clusters(planes, size, glyphs=glyphs) as d:
        assert re.search(r"cp-1 +apiserver .*sampling +1 %", d.screen)
        assert "prod-eu" in d.title
        assert "help" in d.lines[-1]
        await d.press("a")
        await asked(d)
        assert "Cancel" in d.screen
        assert "Change cp-1" in d.screen
        assert max(map(len, d.lines)) <= size[0]
        assert glyphs is UNICODE or d.screen.isascii()


async def test_tab_goes_round(clusters: Clusters) -> None:
    async with clusters(StillPlanes()) as d:
        seen = []
        for _ in range(4):
            seen.append(d.place)
            await d.press("tab")
        assert seen == ["clusters", "receiver", "requests", "hotspots"]


async def test_no_control_plane_and_one_that_cannot_be_read(clusters: Clusters) -> None:
    async with clusters(None) as d:
        assert "A recording has none." in d.screen
        await d.press("a")
        assert d.toasts[-1] == "A recording has none."
    async with clusters(StillPlanes(reads="No control plane was found on this machine.")) as d:
        assert "✗ No control plane was found on this machine." in d.screen


# --- from off to armed to all and back -----------------------------------------------------------------
async def test_from_off_to_armed_to_all_and_back_by_keys(clusters: Clusters) -> None:
    planes = StillPlanes(spans=True)
    async with clusters(planes) as d:
        await d.press("a")
        await agree(d)
        await ended(d)
        assert "◐ armed" in row(d)
        assert "✓ cp-1 apiserver: done" in d.screen
        await d.press("s")
        await d.type("all")
        await d.press("enter")
        await agree(d, "prod-eu")
        await ended(d)
        assert re.search(r"● sampling +all", row(d))
        assert "its spans arrive" in d.screen
        await d.press("o")
        await agree(d)
        await ended(d)
        assert "○ off" in row(d)
        await d.press("v")
        await agree(d)
        await ended(d)
        assert planes.begun == ["set arm cp-1", "set all cp-1", "set off cp-1", "revert revert cp-1"]
        assert "○ off" in row(d, "cp-2"), "the other node was not meant"


async def test_the_question_shows_all_that_will_happen_and_cancel_is_first(clusters: Clusters) -> None:
    planes = StillPlanes(warnings=("Nobody takes spans at localhost:4317.",))
    async with clusters(planes) as d:
        await d.press("a")
        await asked(d)
        assert "Arm apiserver of cp-1 (rate 0)?" in d.lines[0]
        assert "away for 35 to 50 s" in d.screen
        assert "! Nobody takes spans at localhost:4317." in d.screen
        assert "+    - --tracing-config-file=/etc/kubernetes/k8s-trace-tui/apiserver.yaml" in d.screen
        await d.press("enter")
        assert d.place == "clusters"
        assert d.toasts[-1] == "Nothing was changed."
        assert planes.begun == []


@pytest.mark.parametrize("way_out", ["escape", "q"])
async def test_ways_out_of_the_question(clusters: Clusters, way_out: str) -> None:
    planes = StillPlanes()
    async with clusters(planes) as d:
        await d.press("a")
        await asked(d)
        await d.press("tab", way_out)
        assert (d.place, planes.begun) == ("clusters", [])


async def test_no_key_changes_anything_without_the_question(clusters: Clusters) -> None:
    """Every key of the screen and of lists, and then Enter as often as somebody may press it."""
    planes = StillPlanes(before={"cp-1": node_of("cp-1").states[0]})
    async with clusters(planes) as d:
        for key in KEYS:
            if key.id.partition(".")[0] in ("clusters", "list"):
                await d.press(key.keys.split(",")[0])
                await d.until(lambda: not d.app.clusters.snapshot.busy)
                await d.settle()
                await d.press("enter", "enter")
                while d.place != "clusters":
                    await d.press("escape")
        assert planes.begun == []
        assert planes.planned, "keys did ask"


async def test_high_rates_and_protected_contexts_want_the_name(clusters: Clusters) -> None:
    planes = StillPlanes()
    async with clusters(planes) as d:
        await d.command("sampling 10%")
        await asked(d)
        assert "Type prod-eu to go on:" in d.screen
        assert isinstance(d.app.screen.focused, Input)
        assert "type the name" in d.lines[-1]
        await d.press("enter", "tab", "enter")  # on the button, with nothing typed
        assert isinstance(d.app.screen, ConfirmScreen)
        assert isinstance(d.app.screen.focused, Input)
        await d.type("prod-us")
        await d.press("enter", "enter")
        assert planes.begun == []
        await d.press("escape")
        planes.protected = True
        await d.press("r")
        await ended(d)
        assert "protected" in d.title
        await d.press("a")
        await agree(d, "prod-eu")
        await ended(d)
        assert planes.begun == ["set arm cp-1"]


async def test_no_typed_letter_of_the_name_vanishes(clusters: Clusters) -> None:
    """Also those that would scroll, quit or move elsewhere, and when the keys are on a button."""
    planes = StillPlanes(cluster="jkgGq-eu")
    async with clusters(planes) as d:
        await d.command("sampling 10%")
        await asked(d)
        await d.type("jk")
        await d.press("tab")  # on the button
        await d.type("gG")
        await d.press("tab", "tab")  # on Cancel
        await d.type("q-eu")
        assert "Change cp-1" in d.lines[-1], "what Enter does is said"
        await d.press("enter")
        await ended(d)
        assert planes.begun == ["set 10 % cp-1"]


async def test_a_change_made_elsewhere_shows_by_itself(clusters: Clusters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.cluster_feed.WATCH_SECONDS", 0.05)
    planes = StillPlanes()
    async with clusters(planes) as d:
        await d.press("a")
        await agree(d)
        await ended(d)
        assert "✓ cp-1 apiserver: done" in d.screen
        assert "◐ armed" in row(d)
        other = RolloutFacts("r9", "apiserver", "bob@there", 2, "off", "done", "done", False)
        host = planes.nodes[0].host
        planes.nodes = [replace(node_of("cp-1", rollouts=(other,)), host=host), planes.nodes[1]]
        await d.until(lambda: "○ off" in row(d))
        await d.until(lambda: "✓ cp-1 apiserver: done" not in d.screen)
        going = replace(other, id="r10", what="arm", ended="", alive=True, step="restart")
        planes.nodes = [replace(node_of("cp-1", rollouts=(other, going)), host=host), planes.nodes[1]]
        await d.until(lambda: "begun by bob@there" in d.screen)


async def test_how_long_a_plan_is_waited_for_is_said(clusters: Clusters) -> None:
    planes = StillPlanes()
    async with clusters(planes) as d:
        planes.answers.clear()
        await d.press("r")
        await d.until(lambda: bool(re.search(r"reading [2-9] s", d.title)))
        planes.answers.set()
        await ended(d)


async def test_one_per_cent_wants_no_name(clusters: Clusters) -> None:
    planes = StillPlanes()
    async with clusters(planes) as d:
        await d.command("sampling 1% everywhere")
        await agree(d)
        await ended(d)
        assert planes.begun == ["set 1 % cp-1", "set 1 % cp-2"]


async def test_a_command_from_another_screen_goes_there(clusters: Clusters) -> None:
    planes = StillPlanes()
    async with clusters(planes) as d:
        await d.command("requests")
        await d.command("arm")
        await asked(d)
        await d.press("escape")
        for wrong, why in (("sampling 5", "no unit"), ("arm cp-9", "neither"), ("sampling", "Which rate")):
            await d.command(wrong)
            assert why in d.toasts[-1]
        assert planes.begun == []


# --- read-only -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("columns", [80, 150])
async def test_read_only_is_marked(clusters: Clusters, columns: int) -> None:
    async with clusters(StillPlanes(), size=(columns, 24), read_only=True) as d:
        assert "read-only" in d.title


async def test_read_only_offers_nothing_and_says_so(clusters: Clusters) -> None:
    planes = StillPlanes([node_of("cp-1", rollouts=(interrupted(),))])
    async with clusters(planes, read_only=True) as d:
        assert "read-only: nothing can be changed" in d.title
        assert "a arm" not in d.lines[-1]
        for key in ("a", "s", "o", "v", "f", "u"):
            await d.press(key)
            assert d.place == "clusters"
            assert "--read-only forbids it" in d.toasts[-1]
        for command in ("arm", "sampling 1%", "off everywhere", "revert"):
            await d.command(command)
        assert (planes.planned, planes.begun, d.place) == ([], [], "clusters")


def test_the_feed_refuses_whatever_leads_to_it() -> None:
    """Gated where it is done, not where keys are bound."""
    planes = StillPlanes()
    change = Change("set", "arm", Part.APISERVER, planes.plan(Wish(Part.APISERVER, 0, name="arm"), planes.nodes))
    with pytest.raises(NotAgreed, match="read-only"):
        ClusterFeed(lambda: planes, read_only=True).begin(change)
    with pytest.raises(NotAgreed, match="read-only"):
        ClusterFeed(lambda: planes, read_only=True).let_pods_in()
    with pytest.raises(NotAgreed, match="another name"):
        ClusterFeed(lambda: planes).begin(replace(change, type_name="prod-eu"), "prod")
    with pytest.raises(NotAgreed, match="nothing to change"):
        ClusterFeed(lambda: planes).begin(replace(change, jobs=()))
    assert planes.begun == []


async def test_a_node_that_cannot_be_changed_says_why(clusters: Clusters) -> None:
    off = node_of("cp-1")
    fixed = replace(off, states=(replace(off.states[0], read_only="k3s keeps its own configuration"),))
    planes = StillPlanes([fixed])
    async with clusters(planes, (80, 24)) as d:
        assert "○ off read-only" in row(d)
        assert "Read-only: k3s keeps its own configuration." in d.screen
        await d.press("a")
        assert "k3s keeps its own configuration" in d.toasts[-1]
        assert planes.planned == []


# --- what goes wrong -----------------------------------------------------------------------------------
async def test_a_refused_plan_is_a_sentence(clusters: Clusters) -> None:
    planes = StillPlanes(refuses="kube-apiserver.yaml line 12: two files parse to the same pod.")
    async with clusters(planes) as d:
        await d.press("a")
        await d.until(lambda: bool(d.toasts))
        assert d.toasts[-1] == "kube-apiserver.yaml line 12: two files parse to the same pod."
        assert d.place == "clusters"


async def test_a_rollback_is_shown_and_stops_the_rest(clusters: Clusters) -> None:
    why = "the new kube-apiserver does not stay up (exit 1: unknown field)"
    planes = StillPlanes(ends="rolled back", failure=(("back", why), ("restore", "/etc/x.yaml")))
    async with clusters(planes) as d:
        await d.command("arm everywhere")
        await agree(d)
        await ended(d)
        assert "4 old one gone ✗" in d.screen
        assert f"✗ rolls back: {why}" in d.screen
        assert "✗ cp-1 apiserver: rolled back, all files are as they were" in d.screen
        assert "cp-2 apiserver: not begun: cp-1 did not come out well" in d.screen
        assert planes.begun == ["set arm cp-1"]


async def test_ready_without_spans_asks_before_the_next_node(clusters: Clusters) -> None:
    planes = StillPlanes(spans=False)
    async with clusters(planes) as d:
        await d.command("sampling 1% everywhere")
        await agree(d)
        await d.until(lambda: bool(d.app.clusters.rolling and d.app.clusters.rolling.question))
        await asked(d)
        assert "no span of it has arrived" in d.screen
        assert "nobody listens where cp-1 sends to" in d.screen
        await d.press("enter")  # Cancel
        await ended(d)
        assert planes.begun == ["set 1 % cp-1"]


async def test_a_way_that_is_gone_is_no_end(clusters: Clusters) -> None:
    planes = StillPlanes()
    planes.gate.clear()
    async with clusters(planes) as d:
        await d.press("a")
        await agree(d)
        await d.until(lambda: "4 old one gone …" in d.screen)
        d.app.clusters._tell("cp-1", "lost", "ssh says: Connection reset.")
        await d.settle()
        assert "ssh says: Connection reset. The node goes on by itself." in d.screen
        planes.gate.set()
        await ended(d)
        assert "Connection reset" not in d.screen


# --- on its way ----------------------------------------------------------------------------------------
async def test_it_is_followed_step_by_step_and_shown_again_after_coming_back(clusters: Clusters) -> None:
    planes = StillPlanes()
    planes.gate.clear()
    async with clusters(planes) as d:
        await d.press("a")
        await agree(d)
        await d.until(lambda: "4 old one gone … 0 of about 30 s" in d.screen)
        assert "1 check ✓   2 back up ✓   3 write ✓" in d.screen
        assert "rolls back by itself if not" in d.screen
        await d.press("a")
        assert "A change is on its way" in d.toasts[-1]
        await d.press("D")
        assert "+    - --tracing-config-file" in d.screen
        await d.press("escape", "tab")
        assert d.place == "receiver"
        await d.press("escape", "tab")
        await d.command("clusters")
        assert "4 old one gone … " in d.screen
        planes.gate.set()
        await ended(d)
        assert "✓ cp-1 apiserver: done" in d.screen


@pytest.mark.parametrize("key", ["ctrl+q", "command"])
async def test_leaving_the_program_meanwhile_is_asked(clusters: Clusters, key: str) -> None:
    planes = StillPlanes()
    planes.gate.clear()
    async with clusters(planes) as d:
        await d.press("a")
        await agree(d)
        await d.until(lambda: "4 old one gone …" in d.screen)

        async def leave() -> None:
            if key == "command":
                await d.command("quit")
            else:
                await d.press(key)

        await leave()
        await asked(d)
        assert "cp-1 is being changed" in d.screen
        assert "It goes on by itself" in d.screen
        await d.press("enter")
        assert d.app.return_code is None
        await leave()
        await asked(d)
        await d.press("tab", "enter")
        assert d.app.return_code == 0
        assert planes.begun == ["set arm cp-1"]


async def test_who_asks_twice_means_it(clusters: Clusters) -> None:
    """Also in front of the question, where Textual has keys of its own."""
    planes = StillPlanes()
    planes.gate.clear()
    async with clusters(planes) as d:
        await d.press("a")
        await agree(d)
        await d.until(lambda: "4 old one gone …" in d.screen)
        await d.press("ctrl+c")
        await asked(d)
        await d.press("ctrl+c")
        assert d.app.return_code == 0
        d.app.clusters.stop()
        assert d.app.clusters.left_alone is not None
        assert d.app.clusters.left_alone.at_work == "cp-1"


async def test_ctrl_c_leaves_from_where_the_name_is_typed(clusters: Clusters) -> None:
    planes = StillPlanes()
    async with clusters(planes) as d:
        await d.command("sampling 10%")
        await asked(d)
        await d.press("tab", "ctrl+c")
        assert (d.app.return_code, planes.begun) == (0, [])


async def test_somebody_elses_change_is_followed(clusters: Clusters) -> None:
    planes = StillPlanes([node_of("cp-1", rollouts=(interrupted(alive=True),))])
    planes.gate.clear()
    async with clusters(planes) as d:
        await d.until(lambda: "begun by bob@there" in d.screen)
        await d.until(lambda: "3 write" in d.screen)
        planes.gate.set()
        await ended(d)
        assert planes.begun == []


@pytest.mark.parametrize(("key", "word"), [("f", "finish"), ("u", "undo")])
async def test_what_was_interrupted_is_offered(clusters: Clusters, key: str, word: str) -> None:
    planes = StillPlanes([node_of("cp-1", rollouts=(interrupted(),))])
    async with clusters(planes) as d:
        assert (
            "a change (apiserver arm by bob@there) was interrupted at restart: f finishes it, u puts back" in d.screen
        )
        await d.press("a")
        assert "comes first: f finishes it, u puts back what was before" in d.toasts[-1]
        await d.press(key)
        await asked(d)
        await d.press("enter")
        assert planes.begun == []
        await d.press(key)
        await agree(d)
        await ended(d)
        assert planes.begun == [f"{word} {interrupted().id} cp-1"]
        assert "was interrupted at" not in d.screen
        assert f"✓ cp-1 apiserver: {'rolled back' if word == 'undo' else 'done'}" in d.screen


@pytest.mark.parametrize(("key", "word"), [("f", "finish"), ("u", "undo")])
async def test_what_a_node_asks_before_it_goes_on_is_asked(clusters: Clusters, key: str, word: str) -> None:
    planes = StillPlanes([node_of("cp-1", rollouts=(interrupted(),))], doubt="Nobody knows whether etcd is healthy.")
    async with clusters(planes) as d:
        await d.press(key)
        await agree(d)
        await d.until(lambda: "Nobody knows whether etcd is healthy." in d.screen and "Cancel leaves it" in d.screen)
        await d.press("enter")  # Cancel is in front
        await ended(d)
        assert planes.begun == []
        assert "✗ Nobody knows whether etcd is healthy." in d.screen
        assert "was interrupted at restart" in d.screen, "it may be tried again"
        await d.press(key)
        await agree(d)
        await d.until(lambda: "Cancel leaves it" in d.screen)
        await d.press("tab", "enter")
        await ended(d)
        assert planes.begun == [f"{word} {interrupted().id} cp-1"]


async def test_pods_of_ours_are_asked_for_before_anything_else(clusters: Clusters) -> None:
    planes = StillPlanes(pods_wanted="A privileged pod of ours reads the files of cp-1.")
    async with clusters(planes) as d:
        await d.press("a")
        assert isinstance(d.app.screen, ConfirmScreen)
        assert "A privileged pod of ours reads the files of cp-1." in d.screen
        await d.press("enter")
        assert (planes.pods, planes.planned) == (False, [])
        await d.press("a", "tab", "enter")
        await agree(d)
        await ended(d)
        assert (planes.pods, planes.begun) == (True, ["set arm cp-1"])


async def test_pods_that_were_left_are_taken_away_after_a_question(clusters: Clusters) -> None:
    planes = StillPlanes()
    planes.leftovers = [Leftover("kube-system", "k8s-trace-tui-x", "cp-2", "2026-01-01T00:00:00Z", "Running")]
    async with clusters(planes) as d:
        assert "! A pod of ours was left on cp-2 at 2026-01-01T00:00:00Z" in d.screen
        assert "x take away pods" in d.lines[-1]
        await d.press("x")
        await asked(d)
        assert "kube-system/k8s-trace-tui-x on cp-2" in d.screen
        await d.press("enter")
        assert planes.leftovers
        await d.press("x", "tab", "enter")
        await d.until(lambda: not planes.leftovers and not d.app.clusters.snapshot.busy)
        await d.settle()
        assert "was left" not in d.screen
        assert "take away" not in d.lines[-1]
    planes.leftovers = [Leftover("kube-system", "k8s-trace-tui-x", "cp-2", "", "Running")]
    async with clusters(planes, read_only=True) as d:
        assert "A pod of ours was left on cp-2" in d.screen
        await d.press("x")
        assert "--read-only forbids it" in d.toasts[-1]
        assert planes.leftovers


# --- nodes that do not answer ----------------------------------------------------------------------------
async def test_nobody_waits_for_a_node_that_does_not_answer(clusters: Clusters) -> None:
    planes = StillPlanes()
    silent = Node(StillHost("ssh://root@cp-3"))
    planes.nodes.append(silent)
    async with clusters(planes) as d:
        planes.answers.clear()
        try:
            await d.press("r")
            assert "reading" in d.title
            assert "ssh://root@cp-3  ? is being looked at" in d.screen
            await d.press("a")
            await agree(d)
            await d.until(lambda: "◐ armed" in row(d))
            await d.press("end", "a")
            assert "is still being looked at" in d.toasts[-1]
            await d.command("arm everywhere")
            assert "is still being looked at" in d.toasts[-1]
        finally:
            planes.answers.set()
        planes.nodes[2] = replace(silent, problem="No sshd answers at ssh://root@cp-3.")
        await d.press("r", "home")
        await ended(d)
        await d.command("sampling 1% everywhere")
        await asked(d)
        assert "! ssh://root@cp-3 is left out: No sshd answers" in d.screen


# --- what a node says ----------------------------------------------------------------------------------
async def test_nothing_that_a_node_says_reaches_the_terminal_raw(clusters: Clusters) -> None:
    evil = "\x1b]0;evil\x07\x1b[31m\u202e\r\n\u200b"
    off = node_of(f"cp-1{evil}", rollouts=(replace(interrupted(), who=evil, what=evil, step=evil, detail=evil),))
    state = State(f"cp-1{evil}", Part.APISERVER, Mode.BROKEN, evil, None, evil, evil, evil, evil, "", evil, evil)
    planes = StillPlanes([replace(off, states=(state,))], cluster=evil, warnings=(evil,))
    async with clusters(planes) as d:

        def clean() -> None:
            assert not [one for one in "\x1b\x07\u202e\r\u200b" if one in d.screen]

        clean()
        for key in ("enter", "escape", "f", "escape"):
            await d.press(key)
            await d.until(lambda: not d.app.clusters.snapshot.busy)
            await d.settle()
            clean()
        planes.nodes = [replace(planes.nodes[0], facts=replace(planes.nodes[0].facts, rollouts=()))]  # type: ignore[type-var]
        planes.ends, planes.failure = "failed", (("back", evil), ("note", evil), ("end", evil))
        await d.press("r")
        await d.until(lambda: not d.app.clusters.snapshot.busy)
        await d.press("a")
        await asked(d)
        clean()
        await d.press("tab", "enter")
        await ended(d)
        clean()
        planes.refuses = evil
        await d.press("a")
        await d.until(lambda: len(d.toasts) > 0)
        clean()


async def test_enter_shows_the_node_whole(clusters: Clusters) -> None:
    planes = StillPlanes([node_of("cp-1", Mode.ARMED, 0, listeners=("127.0.0.1:4317 otelcol",), lock="bob@there")])
    async with clusters(planes) as d:
        await d.press("enter")
        assert "cp-1  everything that was found there" in d.title
        for found in ("ssh://root@cp-1", "127.0.0.1:4317 otelcol", "bob@there", "v1.34.2", "/etc/kubernetes/manifests"):
            assert found in d.screen
        await d.press("escape")
        assert d.place == "clusters"


async def test_the_event_loop_never_waits_for_a_host(clusters: Clusters) -> None:
    class Slow(StillPlanes):
        hold = False

        def plan(self, wish: Wish, nodes: Any) -> Any:
            while self.hold:
                time.sleep(0.01)
            return super().plan(wish, nodes)

    planes = Slow()
    async with clusters(planes) as d:
        planes.hold = True
        await d.press("a")
        await asyncio.wait_for(d.press("down", "up", "tab"), 5)
        assert d.place == "receiver"
        planes.hold = False
        await d.until(lambda: not d.app.clusters.snapshot.busy)
        await d.settle()
        assert d.place == "receiver", "a question does not come over another screen"


# --- pure ----------------------------------------------------------------------------------------------
def shown(run: NodeRun, kind: str = "set", now: float = 112.0) -> list[str]:
    return [text for text, _ in stages(run, kind, now, palette(COLOURS), UNICODE)]


def test_stages_say_how_long_it_takes() -> None:
    plan = Plan("cp-1", Part.APISERVER, (), Trigger.MANIFEST, "", "", wish=Wish(Part.APISERVER, 10_000))
    told = (("begin", ""), ("check", ""), ("backup", ""), ("write", "a"), ("restart", ""))
    run = NodeRun("cp-1", Part.APISERVER, plan, told, 100.0)
    assert shown(run) == [
        "1 check ✓",
        "2 back up ✓",
        "3 write ✓",
        "4 old one gone … 12 of about 30 s",
        "5 new one ready",
        "6 controllers run",
        "7 spans arriving",
        "rolls back by itself if not",
    ]
    for trigger in (Trigger.NOTHING, Trigger.WATCH):
        files = replace(plan, trigger=trigger)
        ended_ = NodeRun("cp-1", Part.APISERVER, files, told[:4], 100.0, Outcome("cp-1", "done"))
        assert shown(ended_) == ["1 check ✓", "2 back up ✓", "3 write ✓"]
    back = replace(run, steps=(*told, ("back", "it does not end")))
    assert shown(back)[3:] == [
        "4 old one gone ✗", "5 new one ready", "6 controllers run", "7 spans arriving",
        "putting back what was before … 12 s",
    ]  # fmt: skip


def test_what_is_waited_for_behind_ready_is_said_with_its_limit() -> None:
    """The node waits for controllers; we for spans, and not since the component was ready."""
    plan = Plan("cp-1", Part.APISERVER, (), Trigger.STOP, "", "", wish=Wish(Part.APISERVER, 10_000))
    told = (("begin", ""), ("check", ""), ("backup", ""), ("restart", ""), ("started", "x"), ("ready", "x"))
    run = NodeRun("cp-1", Part.APISERVER, plan, told, 100.0)
    assert shown(run)[4:7] == ["5 new one ready ✓", "6 controllers run … 12 of at most 60 s", "7 spans arriving"]
    for step in ("controllers", "done"):  # done: they did not come in time, which a note says
        later = replace(run, steps=(*told, (step, "")))
        assert shown(later)[5:7] == ["6 controllers run ✓", "7 spans arriving … 12 of at most 15 s"]
    off = replace(run, plan=replace(plan, wish=Wish(Part.APISERVER, 0)))
    assert [one for one in shown(off) if "spans" in one] == []


def test_how_long_a_node_waits_is_said_until_it_begins() -> None:
    def lines(*steps: tuple[str, str]) -> str:
        run = Run("Arm", "set", (NodeRun("cp-1", Part.APISERVER, None, steps, 100.0),))
        return "\n".join(
            "".join(text for text, _ in line) for line in run_lines(run, 112.0, 100, palette(COLOURS), UNICODE)
        )

    waits = ("wait", "kube-scheduler is in back-off: it should run again in about 40 s.")
    said = "waits, 12 s so far: kube-scheduler is in back-off: it should run again in about 40 s."
    assert said in lines(waits)
    assert "so far" not in lines(waits, ("begin", "alice"))


LINES = st.lists(st.sampled_from(["a", "b", "- c", "-- d", "++ e", "@@ -1 +1 @@", ""]), max_size=14)


@given(st.tuples(LINES, LINES), st.tuples(LINES, LINES))
def test_a_short_diff_hides_no_change(first: tuple[list[str], list[str]], second: tuple[list[str], list[str]]) -> None:
    """Whatever the files hold, also what looks like a diff's own lines."""

    def diff(texts: tuple[list[str], list[str]], old: str, new: str) -> list[str]:
        before, after = ([f"{line}\n" for line in text] for text in texts)
        return list(difflib.unified_diff(before, after, old, new))

    one, two = diff(first, "/etc/one", "/etc/one"), diff(second, "/dev/null", "/etc/two")
    want = [line.rstrip("\n") for found in (one, two) for line in found[2:] if line[0] in "+-"]
    colours = palette(COLOURS)
    lines = short_diff("".join(one + two), 80, colours)
    shown = [line[1][0] for line in lines if line[1:] and line[1][1] in (colours.ok, colours.error)]
    assert shown == want
    names = [line[0][0].strip() for line in lines if line[0][1] == colours.title]
    assert names == [name for diff, name in ((one, "/etc/one"), (two, "/etc/two")) if diff]


def test_the_load_to_expect_is_in_proportion() -> None:
    state = State("cp-1", Part.APISERVER, Mode.SAMPLING, per_million=10_000)
    assert "about 410 spans/s, from 41.0 spans/s at now 1 %" in expected_load(state, 41.0, 100_000)
    assert "above 512 spans" in expected_load(state, 41.0, 1_000_000)
    assert "not known" in expected_load(replace(state, mode=Mode.ARMED, per_million=0), None, 10_000)
    assert expected_load(state, 41.0, 0) == expected_load(state, 41.0, None) == ""
