"""Scripts on this machine and on a directory that stands for a host, and the two lines in which they travel."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tui.clusters.model import Done, ReachError
from tui.clusters.reach.folder import FolderHost
from tui.clusters.reach.local import LocalHost, run_here
from tui.clusters.reach.wire import NAME, WRAPPER, Answer, packed, run_process

SHELLS = [
    command for command in (["dash"], ["bash"], ["bash", "--posix"], ["busybox", "sh"]) if shutil.which(command[0])
]


def here(script: str, *arguments: str, stdin: bytes = b"", timeout: float = 30.0, most: int = 8 << 20) -> Done:
    return run_here("this machine", (), "", script, arguments, stdin=stdin, timeout=timeout, most=most)


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_every_shell_runs_a_script_with_its_arguments_input_and_own_text(shell: list[str]) -> None:
    script = (
        "#" + "x" * 200_000 + '\nprintf "%s|" "$0" "$@"; wc -c; printf %s "$SELF_TEXT" | wc -c; echo no >&2; exit 3\n'
    )
    answer = Answer(1000)
    stdin = bytes(range(256)) * 4000
    outcome = run_process([*shell, "-c", WRAPPER, NAME, "a b", "c'\"d", "*"], packed(script, stdin), answer, timeout=60)
    assert outcome.code == 0
    done = answer.done
    assert done.code == 3
    assert done.out.split(b"\n")[0] == b"k8s-trace-tui|a b|c'\"d|*|1024000"
    assert int(done.out.split(b"\n")[1]) == len(script) - 1
    assert done.error == "no"


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=3000), st.integers(1, 50))
def test_what_was_written_comes_back_whatever_it_is_and_however_it_is_cut(data: bytes, step: int) -> None:
    """Also where it looks like our own last line."""
    for body in (data, b"\nk8s-trace-tui ends 0\n" + data, data + b"\nk8s-trace-tui ends 9\n"):
        stream = b"motd\nk8s-trace-tui begins\n" + body + b"\nk8s-trace-tui ends 5\n"
        answer = Answer(1 << 20)
        for at in range(0, len(stream), step):
            answer.feed(stream[at : at + step])
        assert answer.finished
        assert (answer.done.code, answer.done.out) == (5, body)


def test_output_is_bounded_and_the_script_still_ends_by_itself(tmp_path: Path) -> None:
    mark = tmp_path / "done"
    done = here(f"yes | head -c 3000000; echo yes >{mark}; exit 4", most=10)
    assert done.out == b"y\n" * 5
    assert done.code == 4
    assert mark.exists()


def test_too_long_is_said_and_nothing_of_it_is_left(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with pytest.raises(ReachError, match=r"did not end within 0\.6 s"):
        here(f"sleep 60 & echo $! >{file}; wait", timeout=0.6)
    pid = int(file.read_text())
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_watcher_that_was_left_behind_lives_on_and_is_not_waited_for(tmp_path: Path) -> None:
    """Even when it forgot to close its output."""
    go, mark = tmp_path / "go", tmp_path / "later"
    waits = f"i=0; until [ -e {go} ] || [ $i = 600 ]; do sleep 0.1; i=$((i + 1)); done; [ -e {go} ] && echo yes >{mark}"
    done = here(f"setsid sh -c '{waits}' & echo started", timeout=50)
    assert done.out == b"started\n"
    go.touch()
    deadline = time.monotonic() + 10
    while not mark.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_killed_from_outside_is_no_result() -> None:
    with pytest.raises(ReachError, match="ended before it was done"):
        here("echo half; kill -9 $$; sleep 5")


def test_this_machine_has_the_real_root(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0 and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode:
        pytest.skip("neither root nor sudo without a password here")
    monkeypatch.setenv("K8S_TRACE_TUI_ROOT", "/somewhere/else")
    assert LocalHost().run('echo "[$ROOT] $(id -u)"').out == b"[] 0\n"


def test_sudo_that_refuses_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sudo = tmp_path / "sudo"
    sudo.write_text("#!/bin/sh\necho 'sudo: a password is required' >&2; exit 1\n")
    sudo.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ReachError, match=r"a password is required.*run this program as root, or allow it by NOPASSWD"):
        LocalHost().run("echo never")


def test_a_directory_stands_for_a_host(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    (folder / "etc").mkdir(parents=True)
    host = FolderHost(f"file://{str(folder).replace(' ', '%20')}")
    assert not host.alive
    assert host.run('cat >"$ROOT/etc/x"; echo "$ROOT"', stdin=b"\0\xff").out.decode() == f"{folder}\n"
    assert (folder / "etc/x").read_bytes() == b"\0\xff"
    shutil.rmtree(folder)
    with pytest.raises(ReachError, match="no longer there"):
        host.run("true")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("file:///", "this machine itself"),
        ("file:////../..", "this machine itself"),
        ("file:///no/such/place", "is not there"),
        ("file://srv/cp", "does not name a directory"),
        ("file:relative", "does not name a directory"),
        ("ssh://host", "does not name a directory"),
    ],
)
def test_what_is_no_directory_is_refused(url: str, says: str) -> None:
    with pytest.raises(ReachError, match=says):
        FolderHost(url)
