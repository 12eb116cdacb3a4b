"""`:trace` by keyboard in a real terminal: a command and its requests, and leaving while one runs."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, StartReceiver
from tests.doubles.tracing_api import TracingApi
from tests.e2e.tmux import TMUX, Tmux
from tests.tui.test_tracing import CLIENT

pytestmark = pytest.mark.skipif(TMUX is None, reason="no tmux here: it is the terminal that this test drives")


@pytest.fixture
def terminal(tmp_path: Path, receiver: StartReceiver) -> Iterator[Tmux]:
    """The screens on a cluster that traces what is asked for, at rate zero."""
    live = receiver()
    api = TracingApi(tmp_path / "api", endpoint=live.address)
    api.start()
    (tmp_path / "client.py").write_text(CLIENT)
    (tmp_path / "run").mkdir(mode=0o700)
    folder = Path(tempfile.mkdtemp(prefix="tmux-"))  # a socket's path must be short
    made = Tmux(folder, 100, 30)
    kubeconfig = api.kubeconfig()
    document = json.loads(kubeconfig.read_text())
    document["clusters"].append({"name": "gone", "cluster": {"server": "https://127.0.0.1:9"}})
    document["contexts"].append({"name": "gone", "context": {"cluster": "gone", "user": "me"}})
    document["current-context"] = "gone"
    kubeconfig.write_text(json.dumps(document))
    environment = {
        "KUBECONFIG": str(kubeconfig),
        "PYTHONPATH": str(REPOSITORY),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        **{name: str(tmp_path) for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME")},
    }
    made.start([sys.executable, "-m", "tui.cli", "--context", "lab", "--db", live.db], environment)
    try:
        made.wait_for("Requests")
        yield made
    finally:
        made.close()
        for left in folder.iterdir():
            left.unlink()
        folder.rmdir()
        api.stop()


def test_a_command_is_traced_and_one_that_runs_ends_with_the_screens(terminal: Tmux, tmp_path: Path) -> None:
    terminal.type(f":trace {sys.executable} {tmp_path}/client.py GET:/api/v1/nodes GET:/api/v1/pods")
    terminal.keys("Enter")
    screen = terminal.wait_for("2 requests, 2 traced")
    assert re.search(r"Output\s+200\s+200\s", screen)
    terminal.keys("q")
    terminal.wait_for(re.compile(r"list +nodes"))
    terminal.type(
        f":trace sh -c 'echo $$ > {tmp_path}/pid; {sys.executable} {tmp_path}/client.py GET:/api; exec sleep 600'"
    )
    terminal.keys("Enter")
    terminal.wait_for("running, 1 request")
    terminal.keys("q")
    assert terminal.ended() == (0, "restored")
    child = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert list((tmp_path / "run").iterdir()) == [], "nor is its kubeconfig left"


def test_a_command_goes_with_the_terminal(terminal: Tmux, tmp_path: Path) -> None:
    terminal.type(f":trace sh -c 'echo $$ > {tmp_path}/pid; {sys.executable} {tmp_path}/client.py GET:/api; sleep 600'")
    terminal.keys("Enter")
    terminal.wait_for("running, 1 request")
    (screens,) = terminal.processes()
    child = int((tmp_path / "pid").read_text())
    assert len(list((tmp_path / "run").iterdir())) == 1
    terminal.close()
    for pid in (screens, child):
        terminal.until_gone(pid)
    assert list((tmp_path / "run").iterdir()) == [], "nor is its kubeconfig left"
