"""The Clusters screen by keyboard in a real terminal: a control plane behind a real sshd, from off to armed to all and
back, with its spans coming through the reverse tunnel into the list.

Kubelet and API server are doubles; the program, its receiver, ssh, sshd and the tunnel are real.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.doubles.ports import free_port
from tests.doubles.sshd import Sshd, find_sshd, start_sshd
from tests.e2e.tmux import TMUX, Tmux
from tests.live_receiver import run_command
from tests.tui.clusters import control_plane
from tests.tui.clusters.control_plane import ControlPlane, start_control_plane

pytestmark = [
    pytest.mark.skipif(TMUX is None, reason="no tmux here: it is the terminal that this test drives"),
    pytest.mark.skipif(find_sshd() is None, reason="needs an OpenSSH server and client (openssh-server)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="scripts of a host run as root, and this sshd logs in who runs it"),
]

CHANGE_S = 60.0
"""For a whole rollout on a busy machine; a quiet one takes five seconds."""


@pytest.fixture
def plane(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlPlane]:
    if "meanwhile" in request.node.name:
        monkeypatch.setattr(control_plane, "PACE", 0.5)  # time to leave and to come back
    made = start_control_plane(tmp_path / "node")
    yield made
    made.stop()


@pytest.fixture
def server(plane: ControlPlane, tmp_path: Path) -> Iterator[Sshd]:
    """What is run through it finds the control plane's directory as its root."""
    environment = {**plane.host.environment, "K8S_TRACE_TUI_ROOT": str(plane.root)}
    made = start_sshd(tmp_path / "sshd", environment=environment)
    yield made
    made.close()


@pytest.fixture
def start(server: Sshd, tmp_path: Path) -> Iterator[Callable[[], Tmux]]:
    """Starts `k8s-trace-tui --host ssh://cp-1`, with an ssh whose configuration knows that host."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    ssh = bin_ / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {server.config} "$@"\n')
    ssh.chmod(0o755)
    environment = {
        "PATH": f"{bin_}:{os.environ['PATH']}",
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    opened: list[tuple[Path, Tmux]] = []

    def start_() -> Tmux:
        folder = Path(tempfile.mkdtemp(prefix="tmux-"))  # a socket's path must be short
        made = Tmux(folder, 120, 30)
        opened.append((folder, made))
        program = [sys.executable, "-m", "tui.cli", "--host", server.url, "--db", tmp_path / "spans.db"]
        made.start([*program, "--listen", "here=127.0.0.1:0"], environment)
        return made

    yield start_
    for folder, made in opened:
        made.close()
        shutil.rmtree(folder)


@contextmanager
def asked_often(plane: ControlPlane) -> Iterator[None]:
    """A client that lists pods, again and again, whether or not the API server is there."""
    ends = threading.Event()

    def ask() -> None:
        while not ends.wait(0.1):
            plane.status("/api/v1/namespaces/default/pods")

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def agree(terminal: Tmux, name: str = "") -> float:
    """Through the question, as people do: Cancel is in front. Gives when it was agreed to."""
    if name:
        terminal.wait_for(f"Type {name} to go on")
        terminal.type(name)
    else:
        terminal.wait_for(re.compile(r"▌ Cancel .*⏎ take", re.DOTALL))
        terminal.keys("Tab")
    terminal.keys("Enter")
    return time.monotonic()


def test_from_off_to_armed_to_all_and_back_by_keyboard(
    start: Callable[[], Tmux], plane: ControlPlane, tmp_path: Path
) -> None:
    before, port = plane.files(), free_port()
    took: dict[str, float] = {}
    terminal = start()
    with asked_often(plane):
        terminal.wait_for("Requests")
        go(terminal, "clusters")
        terminal.wait_for(re.compile(r"cp-1 +apiserver .*○ off"))

        terminal.keys(":")
        terminal.type(f"arm 127.0.0.1:{port}")
        terminal.keys("Enter")
        shown = terminal.wait_for(f"endpoint: 127.0.0.1:{port}")
        assert "Arm apiserver of cp-1" in shown
        assert "Nobody takes spans" not in shown, "the tunnel is there before anything is changed"
        begun = agree(terminal)
        terminal.wait_for(re.compile(r"4 old one gone … \d+ of about \d+ s|5 new one ready …"), CHANGE_S)
        terminal.wait_for(re.compile(r"✓ cp-1 apiserver: done"), CHANGE_S)
        took["arm"] = time.monotonic() - begun
        terminal.wait_for(re.compile(r"cp-1 +apiserver .*◐ armed +0 "))

        terminal.keys("s")
        terminal.type("all")
        terminal.keys("Enter")
        begun = agree(terminal, "cp-1")
        terminal.wait_for("its spans arrive", CHANGE_S)
        took["all"] = time.monotonic() - begun
        terminal.wait_for(re.compile(r"cp-1 +apiserver .*● sampling +all .*\d spans/s"))

        go(terminal, "requests")  # they are there, and more of them come
        newest = newest_of(terminal.wait_for(re.compile(r"list +pods +default")))
        deadline = time.monotonic() + 20
        while newest_of(terminal.screen()) <= newest:
            assert time.monotonic() < deadline, terminal.screen()
            time.sleep(0.05)
        go(terminal, "clusters")
        terminal.wait_for("● sampling")

        terminal.keys("o")
        begun = agree(terminal)
        terminal.wait_for(re.compile(r"cp-1 +apiserver .*○ off"), CHANGE_S)
        took["off"] = time.monotonic() - begun
    print("seconds from key to done:", {name: round(seconds, 1) for name, seconds in took.items()})
    assert plane.files() == before
    plane.until_ready()
    terminal.keys("C-c")
    assert terminal.ended() == (0, "restored")
    told = run_command("traces", "--json", "--db", str(tmp_path / "spans.db")).splitlines()
    listed = [one for one in map(json.loads, told) if one["request"] and one["request"]["resource"] == "pods"]
    assert {one["source"] for one in listed} == {"cp-1"}, "through the tunnel, under the node's name"


def go(terminal: Tmux, view: str) -> None:
    """To a view by its name."""
    terminal.keys(":")
    terminal.type(view)
    terminal.keys("Enter")


def newest_of(screen: str) -> str:
    """The time of the list's first row."""
    return max(re.findall(r"\d\d:\d\d:\d\d\.\d+", screen))


def test_who_leaves_meanwhile_finds_it_followed_at_the_next_start(
    start: Callable[[], Tmux], plane: ControlPlane
) -> None:
    plane.spoil("unready")  # the new one, until this is gone
    terminal = start()
    terminal.wait_for("Requests")
    go(terminal, "clusters")
    terminal.wait_for(re.compile(r"cp-1 +apiserver .*○ off"))
    terminal.keys("a")
    agree(terminal)
    terminal.wait_for("5 new one ready …", CHANGE_S)
    terminal.keys("C-c")
    terminal.wait_for("Leave while a change is on its way?")
    terminal.keys("C-c")
    assert terminal.ended() == (0, "restored")
    assert "cp-1 goes on by itself with this: Arm apiserver of cp-1" in " ".join(terminal.screen().split())
    again = start()
    again.wait_for("Requests")
    go(again, "clusters")
    again.wait_for(re.compile(r"apiserver arm on cp-1, begun by \S+"))
    (plane.faults / "unready").unlink()
    again.wait_for(re.compile(r"✓ cp-1 apiserver: done"), CHANGE_S)
    again.wait_for(re.compile(r"cp-1 +apiserver .*◐ armed"))
    again.keys("C-c")
    assert again.ended() == (0, "restored")
