"""The screens in a real terminal on this machine, and a real node behind a real sshd: armed, its spans brought here by
the tunnel, and put back by `v` on the Clusters screen."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.tmux import TMUX, Tmux
from tests.live_receiver import run_command
from tests.real import releases
from tests.real.node import Node
from tests.real.probe import READ
from tests.real.rollouts import nothing_stray, settle, status
from tests.real.sshd import NodeSshd
from tests.real.workspace import Unavailable

pytestmark = pytest.mark.long
CHANGE_S = 150.0


@pytest.fixture
def terminal(node: Node, tmp_path: Path) -> Iterator[Tmux]:
    """The program with `--host ssh://NODE`, on this machine."""
    if TMUX is None:
        releases.cannot(Unavailable("tmux is not here, and it is the terminal (Debian: tmux)"))
    try:
        sshd = NodeSshd(node)
    except Unavailable as reason:
        releases.cannot(reason)
    binaries = tmp_path / "bin"
    binaries.mkdir()
    ssh = binaries / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {sshd.config} "$@"\n')
    ssh.chmod(0o755)
    environment = {
        "PATH": f"{binaries}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    folder = Path(tempfile.mkdtemp(prefix="tmux-"))  # a socket's path must be short
    made = Tmux(folder, 140, 40)
    program = [sys.executable, "-m", "tui.cli", "--host", sshd.url, "--db", str(tmp_path / "spans.db")]
    made.start([*program, "--listen", "here=127.0.0.1:0"], environment)
    yield made
    made.close()
    shutil.rmtree(folder)
    sshd.close()


@contextmanager
def asked_often(node: Node) -> Iterator[None]:
    """Somebody reads, again and again, whether or not the API is there."""
    ends = threading.Event()
    client = node.client()

    def ask() -> None:
        while not ends.wait(0.2):
            client.code(READ)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def go(terminal: Tmux, view: str) -> None:
    terminal.keys(":")
    terminal.type(view)
    terminal.keys("Enter")


def agree(terminal: Tmux, name: str = "") -> None:
    """Through the question, as people do: Cancel is in front."""
    if name:
        terminal.wait_for(f"Type {name} to go on")
        terminal.type(name)
    else:
        terminal.wait_for(re.compile(r"▌ Cancel .*⏎ take", re.DOTALL))
        terminal.keys("Tab")
    terminal.keys("Enter")


def test_armed_watched_and_put_back_by_keyboard(node: Node, terminal: Tmux, tmp_path: Path) -> None:
    files, name = node.files("/etc/kubernetes"), node.name
    with asked_often(node):
        terminal.wait_for("Requests")
        go(terminal, "clusters")
        terminal.wait_for(re.compile(rf"{name} +apiserver .*○ off"))

        terminal.keys("a")
        agree(terminal)
        terminal.wait_for(re.compile(rf"✓ {name} apiserver: done"), CHANGE_S)
        terminal.wait_for(re.compile(rf"{name} +apiserver .*◐ armed"))
        settle(node)
        assert status(node)["state"] == "armed"

        terminal.keys("s")
        terminal.type("all")
        terminal.keys("Enter")
        agree(terminal, name)
        terminal.wait_for("its spans arrive", CHANGE_S)
        terminal.wait_for(re.compile(rf"{name} +apiserver .*● sampling +all .*\d spans/s"), 60.0)
        go(terminal, "requests")
        terminal.wait_for(re.compile(r"get +configmaps +kube-system"), 60.0)
        settle(node)

        go(terminal, "clusters")
        terminal.wait_for("● sampling")
        terminal.keys("v")
        agree(terminal)
        terminal.wait_for(re.compile(rf"{name} +apiserver .*○ off"), CHANGE_S)
    settle(node)
    assert node.files("/etc/kubernetes") == files, "byte for byte, owner and mode too"
    nothing_stray(node)
    terminal.keys("C-c")
    assert terminal.ended() == (0, "restored")
    told = run_command("traces", "--json", "--db", str(tmp_path / "spans.db")).splitlines()
    read = [one for one in map(json.loads, told) if one["request"] and one["request"]["path"] == READ]
    assert {one["source"] for one in read} == {name}, "through the tunnel, under the node's name"
