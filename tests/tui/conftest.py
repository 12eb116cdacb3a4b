"""Fixtures of the screens' tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import textual.app
import textual.pilot

from tests.doubles.certificates import Authority
from tests.tui.driver import Open, open_app, quiet


@pytest.fixture(autouse=True)
def _no_waiting_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textual.app, "wait_for_idle", quiet)
    monkeypatch.setattr(textual.pilot, "wait_for_idle", quiet)


@pytest.fixture(scope="session")
def one_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of trusted authorities with one that signs nothing."""
    return Authority(tmp_path_factory.mktemp("trust"), "of nobody").certificate


@pytest.fixture(autouse=True)
def _no_roots_of_this_machine(monkeypatch: pytest.MonkeyPatch, one_root: Path) -> None:
    """What it trusts is of no matter to any test, and OpenSSL takes 25 ms for each context to read it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(one_root))


@pytest.fixture
def drive() -> Open:
    """Opens the application: `async with drive(size, feed, **settings) as driven`."""
    return open_app
