"""Which releases a run is about, and whether it is one at all."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final, NoReturn

import pytest

from tests.real.build import KUBERNETES
from tests.real.workspace import VARIABLE, Unavailable

GATING: Final = "1.36"
"""Always: plain and a node."""
_PLAIN: Final = f"{VARIABLE}_PLAIN"
_NODE: Final = f"{VARIABLE}_NODE"
_MUST: Final = f"{VARIABLE}_MUST"


def plain() -> list[str]:
    """The releases of the plain control plane."""
    return os.environ.get(_PLAIN, GATING).split(",")


def node() -> list[str]:
    """The releases of the node."""
    return os.environ.get(_NODE, GATING).split(",")


def environment(plain_releases: list[str], node_releases: list[str]) -> dict[str, str]:
    """What makes a run about these, and makes it fail where this machine cannot do it."""
    return {_PLAIN: ",".join(plain_releases), _NODE: ",".join(node_releases), _MUST: "1"}


def cannot(reason: Unavailable) -> NoReturn:
    """This machine cannot do it: a failure for `python -m tests.real`, which was asked for it, else a skip."""
    if os.environ.get(_MUST):
        pytest.fail(str(reason), pytrace=False)
    pytest.skip(str(reason))


def why_not() -> str:
    """Why the real tests do not run in this process, "" when they do."""
    if not os.environ.get(VARIABLE):
        return f"{VARIABLE} names no folder for real components to be built and run in: see docs/testing.md"
    if os.environ.get("PYTEST_XDIST_WORKER"):
        return "a real control plane is tested in one process: python -m tests.real test"
    return ""


def further() -> str:
    """The release that this commit is tried on besides: which one, the commit's own hash says."""
    others = [release for release in KUBERNETES if release != GATING]
    told = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    commit = told.stdout.strip()
    return others[int(commit, 16) % len(others)] if commit else others[-1]
