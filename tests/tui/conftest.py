"""Fixtures of the screens' tests."""

from __future__ import annotations

import pytest
import textual.app
import textual.pilot

from tests.tui.driver import Open, open_app, quiet


@pytest.fixture(autouse=True)
def _no_waiting_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textual.app, "wait_for_idle", quiet)
    monkeypatch.setattr(textual.pilot, "wait_for_idle", quiet)


@pytest.fixture
def drive() -> Open:
    """Opens the application: `async with drive(size, feed, **settings) as driven`."""
    return open_app
