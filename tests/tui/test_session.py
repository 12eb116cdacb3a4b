"""What a demo keeps while it runs, and what one that was killed left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tui.session import _demo_database


def test_the_next_demo_takes_away_what_a_killed_one_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = (
        "import os, signal, tui.session as s\n"
        "with s._demo_database(None) as path:\n"
        "    path.write_text('spans')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    assert len(list(tmp_path.glob("*/demo.db"))) == 1
    somebodys = tmp_path / f"k8s-trace-tui-demo-{os.getpid()}-x"  # of one that runs
    somebodys.mkdir()
    with _demo_database(None) as path:
        assert sorted(tmp_path.iterdir()) == sorted([somebodys, path.parent])
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == [somebodys]
