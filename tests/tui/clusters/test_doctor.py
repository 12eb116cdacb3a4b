"""Why nothing arrives: findings in, steps out; and the whole of it against a real receiver."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import StartReceiver
from tests.doubles.shell_host import ShellHost
from tui.clusters import doctor
from tui.clusters.arriving import Stream
from tui.clusters.doctor import Mark, NodeFindings, ReceiverFindings, Step, judge
from tui.clusters.model import Mode, Part, State
from tui.clusters.probe import Outcome, Probe

OURS = {"address": "127.0.0.1:4317", "name": "local", "tls": False, "error": None}
OURS6 = {**OURS, "address": "[::1]:4317"}
RUNNING = ReceiverFindings({"listeners": [OURS, OURS6], "db": "/x/spans.db"}, arriving=())
API = State("cp-1", Part.APISERVER, Mode.SAMPLING, "v1.34.2", 10_000, "127.0.0.1:4317")
TRACE = "ab" * 16


def node(*states: State, here: bool = True, ready: bool | None = True, proxies: tuple[str, ...] = ()) -> NodeFindings:
    return NodeFindings("cp-1", here, True, states, ready=ready, proxies=proxies)


def only(steps: Sequence[Step], mark: Mark) -> list[str]:
    return [step.text for step in steps if step.mark is mark]


def probe(address: str, outcome: Outcome, arrived: bool | None = None) -> Probe:
    return Probe("cp-1", address, TRACE, outcome, arrived=arrived)


WELL = (probe("127.0.0.1:4317", Outcome.ACCEPTED, True), probe("[::1]:4317", Outcome.ACCEPTED, True))


def test_all_is_well() -> None:
    steps = judge(RUNNING, [node(API)], WELL)
    assert only(steps, Mark.BAD) == []
    assert "port 4317 is ours" in only(steps, Mark.GOOD)
    assert "cp-1 apiserver v1.34.2 is ready" in only(steps, Mark.GOOD)


@pytest.mark.parametrize(
    ("part", "way_out"),
    [
        (Part.APISERVER, "k8s-trace-tui sampling set RATE --endpoint 127.0.0.1:4317"),
        (Part.ETCD, "k8s-trace-tui sampling set RATE --endpoint 127.0.0.1:4317 --component etcd"),
    ],
)
def test_an_endpoint_that_needs_dns_is_told(part: Part, way_out: str) -> None:
    named = replace(API, part=part, endpoint="localhost:4317")
    (step,) = [one for one in judge(RUNNING, [node(named)], WELL) if "DNS" in one.text]
    assert "sends to localhost:4317" in step.text
    assert "first spans after every start are lost" in step.text
    assert step.way_out == way_out
    assert not [one for one in judge(RUNNING, [node(API)], WELL) if "DNS" in one.text]


@pytest.mark.parametrize("here", [True, False])
def test_no_tunnel_leads_from_a_machine_to_itself(here: bool) -> None:
    gone = (probe("127.0.0.1:4317", Outcome.REFUSED),)
    (step,) = [one for one in judge(RUNNING, [node(API, here=here)], gone) if "nobody listens" in one.text]
    assert ("ssh -R" in step.way_out) is not here
    assert "k8s-trace-tui" in step.way_out


def test_rollouts_that_are_not_believed_are_told() -> None:
    said = "cp-1: /var/lib/k8s-trace-tui-rollouts belongs to alice, so it is not believed: remove it."
    (step,) = [one for one in judge(RUNNING, [replace(node(API), distrust=said)], WELL) if one.mark is Mark.BAD]
    assert "belongs to alice, so it is not believed" in step.text
    assert step.way_out == "remove it"


def test_the_way_out_of_a_wrong_endpoint_is_where_the_receiver_listens() -> None:
    elsewhere = replace(RUNNING, status={"listeners": [{**OURS, "address": "0.0.0.0:45319"}]})
    (step,) = [one for one in judge(elsewhere, [node(API)], ()) if "does not listen there" in one.text]
    assert step.way_out.endswith("--endpoint 127.0.0.1:45319")


@pytest.mark.parametrize(
    ("receiver", "found", "probes", "said", "way_out"),
    [
        (
            ReceiverFindings(None, "No receiver is running for /x: start one."),
            node(API),
            (),
            "no receiver is running for /x",
            "start one",
        ),
        (
            ReceiverFindings(None, port_taken=True, holder="otelcol (pid 7)"),
            node(API),
            (),
            "4317 is taken by otelcol (pid 7)",
            "--listen",
        ),
        (
            replace(RUNNING, status={"listeners": [{**OURS, "error": "Port 4317 is in use by otelcol: stop it."}]}),
            node(API),
            (),
            "port 4317 is in use by otelcol",
            "stop it",
        ),
        (
            replace(RUNNING, status={**(RUNNING.status or {}), "disk_full": True}),
            node(API),
            WELL,
            "the disk is full",
            "space",
        ),
        (
            replace(RUNNING, status={**(RUNNING.status or {}), "malformed": 3}),
            node(API),
            WELL,
            "3 spans or exports were not valid",
            "",
        ),
        (
            RUNNING,
            node(replace(API, mode=Mode.OFF)),
            WELL,
            "has no --tracing-config-file: tracing is off",
            "sampling arm",
        ),
        (
            RUNNING,
            node(replace(API, mode=Mode.BROKEN, note="the file is not there.")),
            WELL,
            "the file is not there",
            "revert",
        ),
        (RUNNING, node(API, ready=False), WELL, "is not ready", "log"),
        (RUNNING, node(replace(API, endpoint="localhost:9999")), (), "the receiver does not listen there", "--listen"),
        (
            RUNNING,
            node(replace(API, endpoint="10.0.0.9:4317"), here=False, proxies=("HTTPS_PROXY",)),
            WELL,
            "has HTTPS_PROXY",
            "NO_PROXY",
        ),
        # what takes the port and shows no listener: a hostPort's DNAT
        (
            RUNNING,
            node(API),
            (probe("127.0.0.1:4317", Outcome.ACCEPTED, False),),
            "127.0.0.1:4317 on cp-1 is taken by somebody else",
            "--endpoint",
        ),
        # a service on [::1] gets what is sent to localhost, though 127.0.0.1 is ours
        (
            RUNNING,
            node(API),
            (WELL[0], probe("[::1]:4317", Outcome.ACCEPTED, False)),
            "[::1]:4317 on cp-1 is taken by somebody else",
            "--endpoint",
        ),
        (
            RUNNING,
            node(API),
            (WELL[0], probe("[::1]:4317", Outcome.OTHER)),
            "[::1]:4317 on cp-1 is answered by something",
            "stop it",
        ),
        (
            RUNNING,
            node(API, here=False),
            (probe("127.0.0.1:4317", Outcome.REFUSED), probe("[::1]:4317", Outcome.REFUSED)),
            "nobody listens on 127.0.0.1:4317",
            "ssh -R",
        ),
        (RUNNING, node(API), (probe("10.0.0.9:4317", Outcome.SILENT),), "does not answer: a firewall", "open the way"),
    ],
)
def test_what_is_wrong_is_said_with_a_way_out(
    receiver: ReceiverFindings, found: NodeFindings, probes: tuple[Probe, ...], said: str, way_out: str
) -> None:
    bad = [step for step in judge(receiver, [found], probes) if step.mark is Mark.BAD]
    assert any(said in step.text and way_out in step.way_out for step in bad), bad


def test_who_takes_the_port_is_named_where_it_shows() -> None:
    taken = probe("127.0.0.1:4317", Outcome.ACCEPTED, False)
    shown = replace(node(API), listeners=("0.0.0.0:4317 otelcol", "127.0.0.1:9 x"))
    assert any("somebody else: otelcol" in text for text in only(judge(RUNNING, [shown], [taken]), Mark.BAD))
    assert any("hostPort" in text for text in only(judge(RUNNING, [node(API)], [taken]), Mark.BAD))


def test_what_is_no_fault_is_not_called_one() -> None:
    no_ipv6 = {"listeners": [OURS, {**OURS6, "error": "This machine has no address ::1: name one that it has."}]}
    steps = judge(replace(RUNNING, status=no_ipv6), [node(API)], (WELL[0], probe("[::1]:4317", Outcome.REFUSED)))
    assert only(steps, Mark.BAD) == []
    armed = judge(RUNNING, [node(replace(API, mode=Mode.ARMED, per_million=0))], WELL)
    assert only(armed, Mark.BAD) == []
    assert any("only forced requests" in step.text and "sampling set" in step.way_out for step in armed)
    etcd = judge(RUNNING, [node(API, State("cp-1", Part.ETCD, Mode.OFF))], WELL)
    assert only(etcd, Mark.BAD) == []
    away = judge(RUNNING, [NodeFindings("cp-2", False, problem="ssh: no route.")], ())
    assert only(away, Mark.BAD) == []
    assert "cp-2: not looked at: ssh: no route" in only(away, Mark.UNKNOWN)


def test_who_sends_is_said() -> None:
    sent = (
        Stream("apiserver", "apiserver-x", "local", 620, 41.3, 1),
        Stream("k8s-trace-tui", "doctor", "local", 1, 0.1, 1),
    )
    steps = judge(replace(RUNNING, arriving=sent), [node(API)], WELL)
    assert "spans arrived in the last 15 s, from apiserver" in only(steps, Mark.GOOD)
    assert any("41 spans/s arrive" in text for text in only(steps, Mark.GOOD))


def test_no_receiver_and_no_control_plane(tmp_path: Path) -> None:
    steps = doctor.examine(tmp_path / "none.db", ())
    assert steps[0].mark is Mark.BAD
    assert "no receiver is running" in steps[0].text
    assert any("no control plane was looked at" in step.text for step in steps)
    assert all(json.dumps(step.to_json()) for step in steps)


def test_without_a_control_plane_the_receiver_itself_is_tried(receiver: StartReceiver) -> None:
    live = receiver()
    steps = doctor.examine(live.db, ())
    assert only(steps, Mark.BAD) == []
    assert f"a span of our own to {live.address} arrives" in only(steps, Mark.GOOD)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_nobody_hears_is_told_before_a_change(receiver: StartReceiver, tmp_path: Path) -> None:
    host = ShellHost(tmp_path)
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        nobody = f"localhost:{one.getsockname()[1]}"
    assert f"Nobody takes spans at {nobody} of cp-1" in doctor.unheard(host, "cp-1", nobody)
    assert doctor.unheard(host, "cp-1", receiver().address) == ""
    host.broken = True
    assert doctor.unheard(host, "cp-1", nobody) == ""
