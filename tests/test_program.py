"""A forked start of the program is what an executed one is."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import program
from tests.eventually import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there it is forked")

SEEN = """
import json, os, resource, signal, sys, threading, time
print(json.dumps({
    "name": __name__, "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path, "cwd": os.getcwd(),
    "environment": dict(os.environ), "timezone": time.tzname, "umask": os.umask(0o22), "nice": os.nice(0),
    "files": [fd for fd in range(256) if os.path.exists(f"/proc/self/fd/{fd}")],
    "signals": {int(one): str(signal.getsignal(one)) for one in signal.valid_signals()},
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "wakeup": signal.set_wakeup_fd(-1),
    "streams": [
        (one.name, one.mode, one.encoding, one.errors, one.line_buffering, one.write_through, one.newlines,
         type(one.buffer).__name__, one is getattr(sys, f"__{one.name.strip('<>')}__"), one.closed)
        for one in (sys.stdin, sys.stdout, sys.stderr)
    ],
    "group": os.getpgrp(), "session": os.getsid(0), "threads": [str(type(one)) for one in threading.enumerate()],
    "main": threading.current_thread() is threading.main_thread(), "tasks": len(os.listdir("/proc/self/task")),
    "limits": [resource.getrlimit(number) for number in range(15)],
    "read": sys.stdin.read(),
}))
sys.stderr.write("and this")
sys.exit(int(sys.argv[1]))
"""
Start = Callable[..., subprocess.Popen[Any]]


def executed(module: str, *arguments: str, **options: Any) -> subprocess.Popen[Any]:
    return subprocess.Popen([sys.executable, "-m", module, *arguments], **options)


@pytest.fixture(params=[program.start, executed], ids=["forked", "executed"])
def start(request: pytest.FixtureRequest) -> Start:
    found: Start = request.param
    return found


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Writes `m.py` in the current folder."""
    monkeypatch.chdir(tmp_path)
    return lambda text: (tmp_path / "m.py").write_text(text) and None


def test_what_it_sees(module: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module(SEEN)
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    monkeypatch.delenv("HOME", raising=False)
    told: list[dict[str, Any]] = []
    for way in (program.start, executed):
        with (tmp_path / "in").open("w+") as stdin:
            stdin.write("given")
            stdin.seek(0)
            pipes = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            process = way("m", "7", "ü", **pipes, env=dict(os.environ))  # GNU readline adds to that of C
            out, error = process.communicate(timeout=60)
        assert (process.returncode, error) == (7, "and this")
        told.append(json.loads(out))
    forked, real = told
    assert {key: (forked[key], real[key]) for key in real if forked[key] != real[key]} == {}
    assert forked["read"] == "given"


def test_it_is_forked() -> None:
    importlib.import_module("receiver.__main__")  # sets variables
    assert isinstance(process := program.start("receiver", "--help", stdout=subprocess.DEVNULL), program.Forked)
    assert process.wait(60) == 0


@pytest.mark.parametrize(
    "options",
    [{"env": {**os.environ, "PYTHONUTF8": "0"}}, {"start_new_session": True}, {"env": {}}],
    ids=["Python's variables", "a session", "no locale"],
)
def test_what_cannot_be_had_by_a_fork_is_executed(options: dict[str, Any]) -> None:
    process = program.start("tui.cli", "--version", stdout=subprocess.DEVNULL, **options)
    assert not isinstance(process, program.Forked)
    assert process.wait(60) == 0


def test_how_it_ends(start: Start, module: Callable[[str], None]) -> None:
    module(
        "import atexit, sys, threading, time\n"
        "atexit.register(print, 'at exit')\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()\n"
        "print('here', flush=True)\n"
        "if sys.argv[1:] == ['fail']: raise OSError('no')\n"
        "if sys.argv[1:]: time.sleep(600)\n"
    )
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = start("m", **pipes)
    assert process.communicate(timeout=60) == ("here\nthread\nat exit\n", "")
    assert process.returncode == 0
    process = start("m", "fail", **pipes)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == "here\nthread\nat exit\n"
    assert error.endswith("OSError: no\n")
    for number in (signal.SIGTERM, signal.SIGKILL):
        with start("m", "wait", **pipes) as process:
            assert process.stdout.readline() == "here\n"
            assert process.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.01)
            process.send_signal(number)
            assert eventually(process.poll) == -number
            assert process.wait() == -number
    with start("m", "wait", **pipes) as process:
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
        assert process.returncode == -signal.SIGINT


def test_reading_only_its_own_pipes(start: Start, module: Callable[[str], None]) -> None:
    """Who closes what it has of one sees the end of it, whatever else is running."""
    module("import sys\nprint(sys.stdin.read())")
    both = [start("m", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert both[0].communicate("one", timeout=60) == ("one\n", None)
    assert both[1].communicate("two", timeout=60) == ("two\n", None)
