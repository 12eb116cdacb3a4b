"""What a command keeps of discovery: the same folder and port from run to run, bounded, for one run at a time."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tui.clusters.force import command_cache as caches
from tui.clusters.force.command_cache import MOST_CONTEXTS, command_cache, directory_of_all
from tui.clusters.reach.contexts import private_base

SERVER = "https://cp-1:6443"


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))


def leave(folder: Path, name: str, size: int = 10) -> Path:
    """A file as a command leaves it there."""
    file = folder / "discovery" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"x" * size)
    return file


def test_the_next_run_finds_what_was_kept_and_its_port() -> None:
    with command_cache("lab", SERVER) as first:
        assert first.port == 0
        first.used(40_001)
        kept = leave(first.folder, "127.0.0.1_40001")
        assert stat.S_IMODE(first.folder.stat().st_mode) == 0o700
    with command_cache("lab", SERVER) as second:
        assert (second.folder, second.port) == (first.folder, 40_001)
        second.used(40_001)
        assert kept.exists()


def test_what_was_kept_under_another_port_goes() -> None:
    with command_cache("lab", SERVER) as first:
        first.used(40_001)
        kept = leave(first.folder, "127.0.0.1_40001")
    with command_cache("lab", SERVER) as second:
        second.used(40_002)  # the other was taken
        assert not kept.exists()
    with command_cache("lab", SERVER) as third:
        assert third.port == 40_002


def test_each_context_and_server_has_its_own() -> None:
    folders = set()
    for context, server in (("lab", SERVER), ("prod", SERVER), ("lab", "https://cp-2:6443"), ("../../x", SERVER)):
        with command_cache(context, server) as cache:
            folders.add(cache.folder)
            assert cache.folder.parent == directory_of_all()
    assert len(folders) == 4


def test_a_second_run_at_the_same_time_has_one_that_goes_with_it() -> None:
    with command_cache("lab", SERVER) as first:
        with command_cache("lab", SERVER) as second:
            assert second.folder.parent == private_base()
            assert second.port == 0
            second.used(40_009)
            leave(second.folder, "127.0.0.1_40009")
        assert not second.folder.exists()
        assert first.folder.exists()


def test_what_cannot_be_kept_is_gone_afterwards(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no directory")
    with command_cache("lab", SERVER) as cache:
        assert cache.folder.parent == private_base()
        leave(cache.folder, "127.0.0.1_40001")
    assert list(private_base().iterdir()) == []


def test_too_much_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "MOST_BYTES", 1000)
    monkeypatch.setattr(caches, "MOST_FILES", 20)
    for files, size, kept in ((1, 500, True), (1, 2000, False), (30, 1, False)):
        with command_cache("lab", SERVER) as cache:
            cache.used(40_001)
            for number in range(files):
                leave(cache.folder, f"file-{number}", size)
        assert (cache.folder / "discovery").exists() is kept
        with command_cache("lab", SERVER) as again:
            assert again.port == 40_001


def test_contexts_that_were_not_used_for_longest_go() -> None:
    for number in range(MOST_CONTEXTS + 3):
        with command_cache(f"lab-{number}", SERVER) as cache:
            leave(cache.folder, "x")
        os.utime(cache.folder, (1_000_000 + number, 1_000_000 + number))
    with command_cache("now", SERVER):
        known = {one.name.rpartition("-")[0] for one in directory_of_all().iterdir()}
    assert len(known) == MOST_CONTEXTS
    assert "now" in known
    assert "lab-0" not in known


def test_a_port_that_is_none_is_not_taken() -> None:
    for text in ("", "80", "70000", "x" * 1000, "-1"):
        with command_cache("lab", SERVER) as cache:
            (cache.folder / "port").write_text(text)
        with command_cache("lab", SERVER) as cache:
            assert cache.port == 0
