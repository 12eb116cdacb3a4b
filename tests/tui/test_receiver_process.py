"""The receiver behind the TUI, with real processes: started, shared, killed, refused."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from receiver.control import ControlClient, ControlError, log_path
from tests.conftest import StartReceiver
from tests.eventually import eventually
from tui import receiver_process
from tui.demo_process import DemoLink
from tui.receiver_process import Plan, ReceiverLink, ensure_receiver

Make = Callable[..., ReceiverLink]


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Make]:
    """Makes links; the receivers they started are ended after the test."""
    made: list[ReceiverLink] = []

    def make(*listeners: str, db: Path | None = None, wait: bool = True) -> ReceiverLink:
        plan = Plan(db or tmp_path / "spans.db", listeners or ("127.0.0.1:0",))
        made.append(ensure_receiver(plan) if wait else ReceiverLink(plan))
        return made[-1]

    yield make
    for one in made:
        one.status()
        one.stop()


def test_one_is_started_and_the_next_attaches_to_it(link: Make) -> None:
    first = link()
    status = first.status()
    assert status is not None
    assert status["child"]
    assert first.problem == ""
    assert status["attached"] == 1
    second = link()
    other = second.status()
    assert other is not None
    assert other["pid"] == status["pid"]
    assert other["attached"] == 2
    second.close()
    eventually(lambda: (first.status() or {}).get("attached") == 1)


def test_ctrl_c_in_the_terminal_does_not_reach_it(link: Make) -> None:
    status = link().status()
    assert status is not None
    assert os.getsid(status["pid"]) == status["pid"] != os.getsid(0)


def test_nothing_is_run_from_the_working_directory(link: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = tmp_path / "cwd" / "receiver"
    trap.mkdir(parents=True)
    (trap / "__init__.py").write_text(f"open({str(tmp_path / 'trapped')!r}, 'w')\n")
    (trap / "__main__.py").write_text("")
    monkeypatch.chdir(trap.parent)
    assert link().status() is not None
    assert not (tmp_path / "trapped").exists()


def test_when_it_is_killed_it_is_started_again_and_said(link: Make) -> None:
    one = link()
    one.hold(["4bf92f3577b34da6a3ce929d0e0e4736"])
    before = one.status()
    assert before is not None
    assert before["restarts"] == []
    began = time.time_ns()
    os.kill(before["pid"], signal.SIGKILL)
    eventually(lambda: one.status() is None)
    assert "SIGKILL" in one.problem
    after = eventually(one.status)
    assert after["pid"] != before["pid"]
    assert one.restarted == 1
    assert one.problem == (
        "The receiver was ended by SIGKILL. It was started again, and what was acknowledged is there."
    )
    assert after["over"] == one.problem, "nothing is wrong any more"
    ((when, why),) = after["restarts"]
    assert why == "SIGKILL"
    assert began <= when <= time.time_ns()
    assert one._held == ("4bf92f3577b34da6a3ce929d0e0e4736",), "the new one is told what must not be evicted"


def test_the_banner_goes_when_it_has_been_well_for_a_while(link: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one = link()
    status = one.status()
    assert status is not None
    os.kill(status["pid"], signal.SIGKILL)
    eventually(lambda: one.status() is None)
    eventually(one.status)
    assert one.problem
    monkeypatch.setattr(receiver_process, "_STEADY_SECONDS", 0.0)
    told = one.status()
    assert one.problem == ""
    assert told is not None
    assert told["over"] == ""
    assert [why for _, why in told["restarts"]] == ["SIGKILL"], "the note stays"


class Scripted:
    """A control client that answers what the test wants."""

    def __init__(self) -> None:
        self.message = ""
        self.refuses = ""

    def request(self, op: str, **arguments: Any) -> dict[str, Any]:
        if op == "listen" and self.refuses:
            raise ControlError(self.refuses)
        return {"listeners": [{"address": "127.0.0.1:4317", "error": None}], "message": self.message}

    def close(self) -> None:
        """Nothing to close."""


def test_what_is_wrong_now_stays_while_it_is_true_and_comes_before_what_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Any = Scripted()
    monkeypatch.setattr(ControlClient, "connect", lambda *_: client)
    one = ReceiverLink(Plan(tmp_path / "spans.db"))
    one._happened, one._deaths = "The receiver was ended by SIGKILL.", 1
    told = one.status()
    assert told is not None
    assert one.problem == told["over"] != ""
    client.message = "No space for spans.db: free some."
    told = one.status()
    assert told is not None
    assert one.problem == client.message
    assert told["over"] == "", "a full disk cannot be dismissed"
    monkeypatch.setattr(receiver_process, "_STEADY_SECONDS", 0.0)
    one.status()
    assert one.problem == client.message, "it stays as long as the disk is full"
    client.message = ""
    one.status()
    assert one.problem == ""


def test_a_refused_listener_is_asked_for_again_and_its_banner_goes_when_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Any = Scripted()
    client.refuses = "Port 4318 of 127.0.0.1 is in use by otelcol (pid 9): stop it."
    monkeypatch.setattr(ControlClient, "connect", lambda *_: client)
    monkeypatch.setattr(receiver_process, "_STEADY_SECONDS", 0.0)
    one = ReceiverLink(Plan(tmp_path / "spans.db", ("127.0.0.1:4318",)))
    for _ in range(3):
        one.status()
        assert one.problem == client.refuses
    client.refuses = ""
    one.status()
    assert one.problem, "not at every look"
    one._relisten = 0.0
    one.status()
    assert one.problem == ""


def test_a_port_in_use_is_said_with_its_number(link: Make) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        one = link(f"127.0.0.1:{port}")
        assert one.status() is not None, "a listener less is no reason to have no receiver"
        assert str(port) in one.problem


def test_a_missing_ipv6_loopback_is_not_worth_a_banner() -> None:
    good = {"name": "local", "address": "127.0.0.1:4317", "tls": False, "error": None}
    bad = {"name": "", "address": "[::1]:4317", "tls": False, "error": "There is no ::1 here."}
    assert receiver_process._deaf([good, bad]) == ""
    assert receiver_process._deaf([{**good, "error": "Port 4317 is in use."}, bad]) == "Port 4317 is in use."
    assert receiver_process._deaf([]) == ""


def test_one_that_cannot_begin_is_not_tried_in_a_circle(link: Make, tmp_path: Path) -> None:
    db = tmp_path / "damaged.db"
    db.write_bytes(b"not a database" * 1000)
    started: list[float] = []

    def spawn(plan: Plan) -> Any:
        started.append(time.monotonic())
        return receiver_process.start(plan)

    one = ReceiverLink(Plan(db, ("127.0.0.1:0",)), spawn)
    eventually(lambda: one.status() is None and one.problem)
    assert "damaged" in one.problem
    assert "--db" in one.problem
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert one.status() is None
        time.sleep(0.02)
    assert len(started) <= 3, "at once, and after a second"
    assert db.read_bytes() == b"not a database" * 1000
    one.close()


def test_it_attaches_to_one_that_runs_alone_and_brings_its_listeners(receiver: StartReceiver, link: Make) -> None:
    alone = receiver(listen=["one=127.0.0.1:0"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mine = link(f"mine=127.0.0.1:{port}", db=alone.db)
    status = mine.status()
    assert status is not None
    assert status["pid"] == alone.pid
    assert not status["child"]
    assert {entry["name"]: entry["address"] for entry in status["listeners"]} == {
        "one": alone.address,
        "mine": f"127.0.0.1:{port}",
    }
    mine.close()
    time.sleep(0.5)
    assert alone.process.poll() is None, "it goes on alone"


def test_what_it_says_goes_to_a_log_of_the_owner_alone(link: Make, tmp_path: Path) -> None:
    assert link().status() is not None
    log = log_path(tmp_path / "spans.db")
    assert log.stat().st_mode & 0o777 == 0o600


def test_the_demo_exports_to_its_receiver_also_after_that_was_killed(tmp_path: Path) -> None:
    demo = DemoLink(Plan(tmp_path / "demo.db", ("demo=127.0.0.1:0",)), seed=3)
    try:
        first = eventually(lambda: (status := demo.status()) and status["accepted"] > 0 and status)
        os.kill(first["pid"], signal.SIGKILL)
        again = eventually(
            lambda: (status := demo.status()) and status["pid"] != first["pid"] and status["accepted"] and status
        )
        assert again["senders"]
        cluster = demo._cluster
        assert cluster is not None
    finally:
        demo.close()
    assert cluster.poll() is not None
    with pytest.raises(ProcessLookupError):
        os.kill(again["pid"], 0)
