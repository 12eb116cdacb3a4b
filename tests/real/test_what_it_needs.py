"""The real tests run, or one sentence says why they do not."""

from __future__ import annotations

import pytest

from tests.real import releases, workspace
from tests.real.build import KUBERNETES, find_go


def test_it_is_asked_for_and_can_be_done() -> None:
    reason = releases.why_not()
    if reason:
        pytest.skip(reason)
    assert workspace.workspace().is_dir()
    assert find_go().version.startswith("go1.")
    assert set(releases.plain()) | set(releases.node()) <= set(KUBERNETES)
