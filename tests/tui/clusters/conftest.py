"""`control_plane`: a small one in a directory, running and ready."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tui.clusters.control_plane import PACE, ControlPlane, start_control_plane


@pytest.fixture
def control_plane(tmp_path: Path) -> Iterator[ControlPlane]:
    plane = start_control_plane(tmp_path / "node")
    yield plane
    plane.stop()


@pytest.fixture
def unhurried(control_plane: ControlPlane) -> None:
    """Its watcher waits longer than its kubelet is slow: for those who cannot say how patient it shall be."""
    control_plane.host.environment["K8S_TRACE_TUI_PACE"] = str(10 * PACE)
