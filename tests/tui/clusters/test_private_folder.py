"""A directory of ours lives as long as its program does, whoever else sees that program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tui.clusters.reach import private_folder as module
from tui.clusters.reach.private_folder import private_folder, sweep

PREFIX = "k8s-trace-tui-test"
HOLDER = """
import sys
from pathlib import Path
from tui.clusters.reach.private_folder import private_folder
made = private_folder("k8s-trace-tui-test", Path(sys.argv[1]))
(made / "kubeconfig").write_text("secret")
print(made, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def hold(base: Path) -> tuple[subprocess.Popen[str], Path]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(base)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert holder.stdout is not None
    return holder, Path(holder.stdout.readline().strip())


def test_one_whose_process_is_not_seen_lives(base: Path) -> None:
    """As in another namespace of processes: its number is nobody's here."""
    holder, made = hold(base)
    with holder:
        unseen = made.with_name(f"{PREFIX}-{2**22 + 1}-abcdefgh.l")
        made.rename(unseen)
        sweep(PREFIX, base)
        assert (unseen / "kubeconfig").read_text() == "secret"
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait(10)
    sweep(PREFIX, base)
    assert not unseen.exists()


def test_a_dead_ones_number_may_be_anybodys_by_now(base: Path) -> None:
    left = base / f"{PREFIX}-{os.getpid()}-abcdefgh.l"
    left.mkdir()
    sweep(PREFIX, base)
    assert not left.exists()


def test_an_older_versions_lives_by_its_number(base: Path) -> None:
    lives, left = base / f"{PREFIX}-{os.getpid()}-abcdefgh", base / f"{PREFIX}-{2**22 + 1}-abcdefgh"
    lives.mkdir()
    left.mkdir()
    sweep(PREFIX, base)
    assert (lives.exists(), left.exists()) == (True, False)


def test_one_that_was_swept_before_it_was_held_is_made_again(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module._lock
    seen: list[Path] = []

    def late(folder: Path) -> int | None:
        if not seen:
            seen.append(folder)
            folder.rmdir()
        return real(folder)

    monkeypatch.setattr(module, "_lock", late)
    made = private_folder(PREFIX, base)
    assert made.is_dir()
    assert seen != [made]


def test_no_descriptor_stays_of_what_is_gone(base: Path) -> None:
    for _ in range(5):
        private_folder(PREFIX, base).rmdir()
    mine = [folder for folder in module._held if folder.parent == base]
    assert len(mine) <= 1
