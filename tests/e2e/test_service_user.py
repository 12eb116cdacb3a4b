"""The documented set-up: a service user receives into its own directory, root's screens and commands look at it.

Root makes, changes and logs nothing there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from receiver.control import ControlClient
from tests import program
from tests.somebody_else import DATABASE, UID, directory_of, listing, needs_root, receiving
from tests.tui.driver import Driven
from tui import session, tracing
from tui.app import TraceApp
from tui.clusters import probe
from tui.config import Settings
from tui.feed import Feed
from tui.glyphs import UNICODE
from tui.screens.receiver import ReceiverScreen

pytestmark = needs_root


@pytest.fixture
def state() -> Iterator[Path]:
    """What systemd makes for `User=` and `StateDirectory=`."""
    with directory_of(UID) as directory:
        yield directory


def command(*argv: str | Path) -> tuple[int, str, str]:
    done = program.run("tui.cli", *argv)
    return done.returncode, done.stdout, done.stderr


def test_roots_commands_read_what_a_service_user_receives(state: Path, tmp_path: Path) -> None:
    db = state / "spans.db"
    with receiving(db) as address:
        sent = probe.from_here(address)
        assert sent.outcome is probe.Outcome.ACCEPTED
        before = listing(state, DATABASE)
        code, out, error = command("traces", "--json", "--db", db)
        assert (code, error) == (0, "")
        assert [json.loads(line)["trace_id"] for line in out.splitlines()] == [sent.trace_id]
        code, out, _ = command("show", sent.trace_id, "--db", db)
        assert code == 0
        assert probe.SPAN_NAME in out
        code, out, _ = command("export", "--db", db, "-o", tmp_path / "out.jsonl")
        assert code == 0
        code, out, _ = command("info", "--db", db)
        assert f"listening on local {address}" in out
        code, out, _ = command("doctor", "--db", db)
        assert f"the receiver listens on {address}" in out
        assert f"a span of our own to {address} arrives" in out
        assert listing(state, DATABASE) == before
        assert before.keys() - set(DATABASE) == {".", "spans.db.lock", "spans.db.sock"}
    before = listing(state)  # the receiver has ended
    for argv in (("traces",), ("info",), ("show", sent.trace_id)):
        assert command(*argv, "--db", db)[0] == 0
    assert listing(state) == before


@pytest.mark.parametrize("comes", ["before", "later"])
async def test_roots_screens_attach_to_it(state: Path, monkeypatch: pytest.MonkeyPatch, comes: str) -> None:
    db = state / "spans.db"
    taken: dict[str, Any] = {}

    def run(feed: Feed, settings: Settings, title: str, problems: Any, *_: Any, **more: Any) -> int:
        taken.update(feed=feed, problems=problems)
        return 0

    monkeypatch.setattr(session, "need_terminal", lambda: None)
    monkeypatch.setattr(session, "_run", run)
    if comes == "later":
        with receiving(db):
            pass
        session.watch(Settings(db=db), ())
        before = listing(state)
    else:
        before = {}
    with receiving(db) as address:
        if comes == "before":
            probe.from_here(address)  # the first makes the log
            before = listing(state, DATABASE)
            session.watch(Settings(db=db), ())
        assert any("only looked at" in one for one in taken["problems"])
        app = TraceApp(taken["feed"], Settings(utc=True), title="x", glyphs=UNICODE)
        async with app.run_test(size=(120, 40), notifications=True) as pilot:
            d = Driven(app, pilot, taken["feed"])
            await d.until(lambda: app.feed.snapshot.status is not None)
            sent = probe.from_here(address)
            await d.until(lambda: app.feed.summary(sent.trace_id) is not None)
            app.go("receiver")
            await d.until(lambda: isinstance(app.screen, ReceiverScreen) and address in d.screen)
            client = ControlClient.connect(db)
            assert client.request("status")["attached"] == 1
            client.close()
        if comes == "before":
            assert listing(state, DATABASE) == before
    assert {name: one[:4] for name, one in listing(state).items() if name not in DATABASE} == {
        name: one[:4] for name, one in before.items() if name not in (*DATABASE, "spans.db.sock")
    }
    assert {one[1] for one in listing(state).values()} == {UID}


def test_root_starts_no_receiver_there(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from receiver.store.errors import StoreError

    db = state / "spans.db"
    code, _, error = command("receive", "--db", db, "--listen", "127.0.0.1:0")
    assert code == 1
    assert f"sudo -u '#{UID}'" in error
    monkeypatch.setattr(session, "need_terminal", lambda: None)
    with pytest.raises(StoreError, match="belongs to somebody else"):
        session.watch(Settings(db=db), ())
    assert [one for one in listing(state) if one != "."] == []
    with receiving(db):
        pass
    before = listing(state)
    with (
        pytest.raises(StoreError, match=f"user {UID}, whose it is, may start one"),
        tracing._receiving(Settings(db=db)),
    ):
        pass
    assert listing(state) == before


def test_a_traced_command_of_roots_is_noted_nowhere_there(state: Path) -> None:
    from tui.clusters.force import groups

    db = state / "spans.db"
    with receiving(db):
        before = listing(state, DATABASE)
        with tracing._receiving(Settings(db=db)) as (path, link):
            assert link is not None
            assert link.status() is not None
            with pytest.raises(OSError, match="not ours to write into"):
                groups.remember(path, groups.Group("a", 1, "kubectl get", ("0" * 32,)))
        assert groups.recall(db) == []
        assert listing(state, DATABASE) == before


def test_what_its_owner_noted_is_read_and_may_be_anything(state: Path) -> None:
    import fcntl
    import os

    from tui.clusters.force import groups

    db, notes = state / "spans.db", state / "spans.db.commands"
    good = '{"id": "a", "time": 1, "words": "kubectl get", "traces": []}\n'
    notes.write_text(good + '{"id": "b", "time": 1e999, "words": 7, "traces": [1]}\n{"time": ' + "9" * 4000 + "}\n")
    os.chown(notes, UID, UID)
    assert [one.id for one in groups.recall(db)] == ["a"]
    with notes.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # who holds it for ever does not hold us
        assert groups.recall(db) == []
    notes.unlink()
    os.mkfifo(notes)
    assert groups.recall(db) == []
    notes.unlink()
    notes.symlink_to("/etc/hostname")
    assert groups.recall(db) == []
