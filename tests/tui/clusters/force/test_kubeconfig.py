"""The kubeconfig of a traced command: for us alone, and gone afterwards, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.stub_upstream import StubUpstream
from tui.clusters.force.credentials import Upstream
from tui.clusters.force.kubeconfig import temporary_kubeconfig
from tui.clusters.force.proxy import Proxy
from tui.clusters.model import ReachError

PROGRAM = """
import os, signal, sys
from pathlib import Path
from tui.clusters.force.credentials import Upstream
from tui.clusters.force.kubeconfig import temporary_kubeconfig
from tui.clusters.force.proxy import Proxy
with Proxy(Upstream(kubeconfig=Path(sys.argv[1]))) as proxy, temporary_kubeconfig(proxy) as file:
    print(file, flush=True)
    if sys.argv[2] == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where its directory is made."""
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """The real kubeconfig."""
    stub = StubUpstream(tmp_path).start()
    yield stub.kubeconfig()
    stub.stop()


def test_it_is_for_us_alone_and_names_what_the_real_one_does(file: Path, runtime: Path) -> None:
    with Proxy(Upstream(kubeconfig=file)) as proxy:
        with temporary_kubeconfig(proxy) as made, temporary_kubeconfig(proxy) as another:
            assert made != another
            assert stat.S_IMODE(made.stat().st_mode) == 0o600
            assert stat.S_IMODE(made.parent.stat().st_mode) == 0o700
            assert made.parent.parent == runtime
            assert made.parent.name.startswith(f"k8s-trace-tui-trace-{os.getpid()}-")
            text = made.read_text()
        assert list(runtime.iterdir()) == []
        assert "real-secret" not in text
        config = json.loads(text)
        assert config["current-context"] == "lab"
        assert config["contexts"] == [
            {"name": "lab", "context": {"cluster": "lab-cluster", "user": "me", "namespace": "team-a"}}
        ]
        assert config["users"] == [{"name": "me", "user": {"token": proxy.token}}]
        assert config["clusters"][0]["cluster"]["server"] == f"https://127.0.0.1:{proxy.port}"

        def fail() -> None:
            with temporary_kubeconfig(proxy):
                raise KeyError

        with pytest.raises(KeyError):
            fail()
    assert list(runtime.iterdir()) == []


def test_what_killed_programs_left_is_swept_and_what_lives_stays(file: Path, runtime: Path, tmp_path: Path) -> None:
    def started(how: str) -> tuple[subprocess.Popen[str], Path]:
        command = [sys.executable, "-c", PROGRAM, str(file), how]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    dying, left = started("wait")
    living, kept = started("wait")
    interrupted, of_interrupt = started("interrupt")
    try:
        interrupted.communicate(timeout=20)
        assert interrupted.returncode == -signal.SIGINT
        assert not of_interrupt.parent.exists()
        dying.kill()
        dying.communicate(timeout=20)
        assert left.exists()
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "precious").touch()
        strange = [runtime / "k8s-trace-tui-trace-nopid-x", runtime / "k8s-trace-tui-other-1-x"]
        link = runtime / f"k8s-trace-tui-trace-{dying.pid}-link"
        for folder in strange:
            folder.mkdir()
        link.symlink_to(elsewhere)
        with Proxy(Upstream(kubeconfig=file)) as proxy, temporary_kubeconfig(proxy):
            assert not left.parent.exists()
            assert kept.exists()
        assert (elsewhere / "precious").exists()
        assert sorted(runtime.iterdir()) == sorted([*strange, link, kept.parent])
    finally:
        for process in (dying, living, interrupted):
            process.kill()
            process.communicate(timeout=20)


def test_no_place_for_it(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with Proxy(Upstream(kubeconfig=file)) as proxy:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "nowhere"))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
        with pytest.raises(ReachError, match=r"No private directory can be made in .*nowhere"):
            temporary_kubeconfig(proxy).__enter__()
