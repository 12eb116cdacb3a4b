"""The feed: first lists early, nothing missed or doubled whatever retention does, and problems said."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from receiver.store.chunk import Chunk
from receiver.store.database import Database
from receiver.traces.query import Query
from tests.demo_recording import demo_requests
from tests.eventually import eventually
from tests.tui.still_feed import RECEIVED, SECOND, StillFeed, chunks_of, demo_database
from tui.feed import EVERYTHING, TAIL, Feed, Snapshot, sender_key


def other_ids(chunks: Sequence[Chunk], turn: int) -> list[Chunk]:
    """The same spans as other traces, later by some minutes."""
    made = []
    for chunk in chunks:
        spans = chunk.spans.copy()
        spans["trace_hi"] ^= np.uint64(turn)
        for time_of in ("start", "end"):
            spans[time_of] += np.uint64(turn * 100 * SECOND)
        made.append(replace(chunk, spans=spans, received=chunk.received + turn * 100 * SECOND))
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spans.db"


@pytest.fixture
def started() -> Iterator[Callable[[Feed], Feed]]:
    feeds: list[Feed] = []

    def start(feed: Feed) -> Feed:
        feeds.append(feed)
        feed.start()
        return feed

    yield start
    for feed in feeds:
        feed.stop()


def ready(feed: Feed) -> bool:
    return feed.snapshot.loading is None


def test_what_is_stored_is_listed_newest_first(path: Path, started: Callable[[Feed], Feed]) -> None:
    database = Database.create(path)
    database.append(chunks_of(demo_requests()))
    feed = started(Feed(path))
    eventually(lambda: ready(feed))
    snapshot = feed.snapshot
    rows = feed.rows(snapshot, range(len(snapshot.selection.slots)))
    assert len(rows) == snapshot.traces == snapshot.selection.total > 100
    starts = [row.start for row in rows]
    assert starts == sorted(starts, reverse=True)
    database.close()


def test_what_arrives_is_taken_in(path: Path, started: Callable[[Feed], Feed]) -> None:
    database = Database.create(path)
    chunks = chunks_of(demo_requests())
    feed = started(Feed(path))
    eventually(lambda: ready(feed))
    assert feed.snapshot.spans == 0
    for chunk in chunks[:3]:
        before = feed.snapshot.spans
        database.append([chunk])
        eventually(lambda before=before: feed.snapshot.spans > before)  # type: ignore[misc]
    assert feed.snapshot.spans_per_s > 0
    assert feed.snapshot.last_arrival == chunks[2].received
    database.close()


def test_a_view_is_applied_at_once(started: Callable[[Feed], Feed]) -> None:
    feed = started(Feed(demo_database(), live=False))
    eventually(lambda: ready(feed))
    every = len(feed.snapshot.selection.slots)
    feed.set_view(replace(EVERYTHING, query=Query.parse("verb=list")))
    eventually(lambda: len(feed.snapshot.selection.slots) < every)
    rows = feed.rows(feed.snapshot, range(len(feed.snapshot.selection.slots)))
    assert {row.request.verb for row in rows if row.request} == {"list"}


def test_attributes_are_looked_for_while_more_arrives(path: Path, started: Callable[[Feed], Feed]) -> None:
    database = Database.create(path)
    chunks = chunks_of(demo_requests())
    database.append(chunks[: len(chunks) // 2])
    feed = started(Feed(path))
    eventually(lambda: ready(feed))
    view = replace(EVERYTHING, query=Query.parse("http.request.method=get"))

    def listed() -> set[str]:
        snapshot = feed.snapshot
        return {row.headline.split()[0] for row in feed.rows(snapshot, range(len(snapshot.selection.slots)))}

    feed.set_view(view)
    eventually(lambda: feed.snapshot.view == view and feed.snapshot.scan is not None and feed.snapshot.scan.done)
    eventually(lambda: len(feed.snapshot.selection.slots) > 0)
    first = len(feed.snapshot.selection.slots)
    assert listed() <= {"GET", "authentication", "HTTP"}
    database.append(chunks[len(chunks) // 2 :])
    eventually(lambda: len(feed.snapshot.selection.slots) > first)
    feed.cancel_scan()
    eventually(lambda: feed.snapshot.scan is not None and feed.snapshot.scan.cancelled)
    assert len(feed.snapshot.selection.slots) > first
    feed.set_view(EVERYTHING)
    eventually(lambda: feed.snapshot.scan is None and feed.snapshot.view == EVERYTHING)
    database.close()


def test_while_a_large_file_is_read_its_newest_end_is_shown(path: Path) -> None:
    database = Database.create(path)
    few = chunks_of(demo_requests(4))
    turns = 3 * TAIL // len(few) + 2
    for turn in range(turns):
        database.append(other_ids(few, turn))
    feed = Feed(database)
    shown: list[Snapshot] = []

    class Watched(Feed):
        def _publish(self, *arguments: Any) -> None:
            super()._publish(*arguments)
            shown.append(self.snapshot)

    feed = Watched(database)
    feed._load(database)
    assert len(shown) >= 2
    first, last = shown[0], shown[-1]
    assert first.loading is not None
    assert last.loading is None
    newest = max(int(x) for x in last.index.last_received)
    assert int(max(first.index.last_received)) == newest
    assert 0 < first.traces < last.traces
    assert last.spans == turns * sum(len(chunk.spans) for chunk in few)
    feed.stop()
    database.close()


def test_frozen_the_rows_stay_and_what_came_meanwhile_is_counted() -> None:
    feed = StillFeed()
    feed.start()
    feed.freeze(True)
    before = feed.snapshot.selection.slots.tolist()
    feed.arrive(other_ids(chunks_of(demo_requests(4)), 7))
    assert feed.snapshot.frozen
    assert feed.snapshot.selection.slots.tolist() == before
    assert feed.snapshot.meanwhile == feed.snapshot.traces - len(before) > 0
    feed.freeze(False)
    assert len(feed.snapshot.selection.slots) == feed.snapshot.traces
    assert feed.snapshot.meanwhile == 0


def ids_of(feed: Feed) -> list[str]:
    snapshot = feed.snapshot
    return [row.trace_id for row in feed.rows(snapshot, range(len(snapshot.selection.slots)))]


@pytest.mark.parametrize("frozen", [False, True])
def test_evicted_chunks_leave_the_list_and_carried_over_spans_stay(frozen: bool) -> None:
    feed = StillFeed()
    feed.start()
    before = ids_of(feed)
    if frozen:
        feed.freeze(True)
    database = feed._database
    assert database is not None
    chunks = database.read_after(0)
    old, kept = chunks[:4], chunks[2]
    # Retention carries the third of four deleted chunks over into a new one, while others arrive.
    new = other_ids(chunks_of(demo_requests(4)), 9)
    database.replace([chunk.id for chunk in old], [replace(kept, id=0)])
    feed.arrive(new)
    gone = sum(len(chunk.spans) for chunk in old if chunk.id != kept.id)
    assert feed.snapshot.spans == sum(len(c.spans) for c in chunks) - gone + sum(len(c.spans) for c in new)
    assert feed.snapshot.index.duplicates == 0
    after = ids_of(feed)
    held = set(after)
    if frozen:
        assert after == [one for one in before if one in held]
        assert feed.snapshot.meanwhile > 0
    else:
        assert len(after) == feed.snapshot.traces


def test_a_chunk_that_is_evicted_while_the_file_is_read(path: Path) -> None:
    database = Database.create(path)
    few = chunks_of(demo_requests(4))
    for turn in range(60):
        database.append(other_ids(few, turn))
    feed = Feed(database)
    poll = database.poll
    calls = 0

    def poll_and_evict(last_id: int, limit: int = 256) -> tuple[int, list[Chunk]]:
        nonlocal calls
        calls += 1
        if calls == 4:
            oldest = database.ids()[:10]
            database.replace(oldest, [replace(chunk, id=0) for chunk in database.index_rows(oldest[:2])])
        return poll(last_id, limit)

    database.poll = poll_and_evict  # type: ignore[method-assign]
    feed._load(database)
    held = sum(len(chunk.spans) for chunk in database.read_after(0, 10_000))
    assert feed.snapshot.spans == held
    database.close()


def test_a_missing_file_is_waited_for_and_then_said(path: Path, started: Callable[[Feed], Feed]) -> None:
    feed = started(Feed(path))
    eventually(lambda: "no database" in feed.snapshot.problem)
    database = Database.create(path)
    database.append(chunks_of(demo_requests(4)))
    eventually(lambda: feed.snapshot.spans > 0)
    eventually(lambda: feed.snapshot.problem == "")
    database.close()


def test_a_damaged_file_is_said(path: Path, started: Callable[[Feed], Feed]) -> None:
    path.write_bytes(b"SQLite format 3\0" + b"\x55" * 9000)
    feed = started(Feed(path))
    eventually(lambda: feed.snapshot.problem != "")
    assert "damaged" in feed.snapshot.problem or "not a k8s-trace-tui database" in feed.snapshot.problem


def test_a_file_that_is_taken_away_is_read_anew_where_another_comes(
    path: Path, started: Callable[[Feed], Feed]
) -> None:
    first = Database.create(path)
    first.append(chunks_of(demo_requests(4)))
    feed = started(Feed(path))
    eventually(lambda: feed.snapshot.spans > 0)
    before, bodies = feed.snapshot.spans, feed.bodies
    path.unlink()
    second = Database.create(path)
    second.append(chunks_of(demo_requests(1)))
    eventually(lambda: 0 < feed.snapshot.spans < before)
    eventually(lambda: feed.snapshot.problem == "")
    assert feed.bodies is not bodies, "attributes are of the new file, too"
    second.append(other_ids(chunks_of(demo_requests(1)), 1))
    had = feed.snapshot.spans
    eventually(lambda: feed.snapshot.spans > had)
    first.close()
    second.close()


def test_a_row_that_is_not_ours_is_damage_and_no_defect(path: Path, started: Callable[[Feed], Feed]) -> None:
    database = Database.create(path)
    database.append(chunks_of(demo_requests(4)))
    database._connection.execute("UPDATE chunks SET received = 'x' WHERE id = 2")
    feed = started(Feed(path))
    eventually(lambda: feed.snapshot.problem != "")
    assert "spans.db is damaged" in feed.snapshot.problem or f"{path.name} is damaged" in feed.snapshot.problem
    assert "--db" in feed.snapshot.problem
    database.close()


def test_a_defect_while_reading_is_said_and_reading_goes_on(
    started: Callable[[Feed], Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    database = demo_database()
    poll, failures = database.poll, iter([True])

    def once(last_id: int, limit: int = 256) -> tuple[int, list[Chunk]]:
        if next(failures, False):
            raise IndexError("a defect")
        return poll(last_id, limit)

    monkeypatch.setattr(database, "poll", once)
    feed = started(Feed(database))
    eventually(lambda: "IndexError: a defect" in feed.snapshot.problem)
    eventually(lambda: feed.snapshot.spans > 0 and feed.snapshot.problem == "")


class FakeLink:
    """A receiver that says what the test wants."""

    def __init__(self) -> None:
        self.problem = ""
        self.answer: dict[str, Any] | None = None
        self.held: list[Sequence[str]] = []
        self.closed = False

    def status(self) -> dict[str, Any] | None:
        return self.answer

    def hold(self, traces: Sequence[str]) -> None:
        self.held.append(traces)

    def close(self) -> None:
        self.closed = True


def test_status_problems_and_holds_go_through_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.feed.STATUS_EVERY", 0.02)
    link = FakeLink()
    sender = {"peer": "127.0.0.1:1", "service": "etcd", "instance": "", "source": "local", "spans": 0}
    link.answer = {"message": "The disk is full.", "senders": [sender]}
    feed = Feed(demo_database(), link=lambda: link)
    feed.start()
    eventually(lambda: feed.snapshot.problem == "The disk is full.")
    link.answer = {"message": "", "senders": [{**sender, "spans": 500}]}
    link.problem = "The receiver ended."
    eventually(lambda: feed.snapshot.problem == "The receiver ended.")
    link.problem = ""
    eventually(lambda: feed.snapshot.problem == "")
    eventually(lambda: feed.snapshot.sender_rates.get(sender_key(sender), 0) > 0)
    feed.hold(["b" * 32, "a" * 32])
    eventually(lambda: bool(link.held))
    assert link.held[-1] == ("a" * 32, "b" * 32)
    feed.stop()
    assert link.closed


def test_a_link_with_a_defect_is_a_problem_and_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.feed.STATUS_EVERY", 0.02)
    link = FakeLink()
    broken = threading.Event()

    def status() -> dict[str, Any] | None:
        if not broken.is_set():
            raise IndexError("a defect")
        return {"message": "It answers."}

    monkeypatch.setattr(link, "status", status)
    feed = Feed(demo_database(), link=lambda: link)
    feed.start()
    eventually(lambda: "IndexError: a defect" in feed.snapshot.problem)
    broken.set()
    eventually(lambda: feed.snapshot.problem == "It answers.")
    feed.stop()


def test_a_link_that_cannot_be_made_is_a_problem_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.feed.STATUS_EVERY", 0.02)
    attempts: list[int] = []
    told = threading.Event()

    def make() -> FakeLink:
        attempts.append(1)
        if len(attempts) < 3 or not told.is_set():
            raise OSError("no socket here")
        return FakeLink()

    feed = Feed(demo_database(), link=make)
    feed.start()
    eventually(lambda: feed.snapshot.problem == "no socket here")
    told.set()
    eventually(lambda: len(attempts) >= 3 and feed.snapshot.problem == "")
    feed.stop()


def test_a_version_changes_when_the_trace_grew() -> None:
    chunks = chunks_of(demo_requests())
    database = Database.memory()
    database.append(chunks[:1])
    feed = StillFeed(database)
    feed.start()
    trace_id = ids_of(feed)[-1]
    assert feed.version("f" * 32) == -1
    assert feed.version("nonsense") == -1
    before = feed.version(trace_id)
    spans = chunks[0].spans.copy()
    spans["span"] += np.uint64(1)
    feed.arrive([replace(chunks[0], spans=spans, id=0)])
    assert feed.version(trace_id) > before
    summary = feed.summary(trace_id)
    assert summary is not None
    assert summary.spans == feed.version(trace_id)
    assert feed.summary("f" * 32) is None
    trace = feed.trace(trace_id)
    assert trace is not None
    assert trace.spans == summary.spans


def test_bodies_are_read_through_another_connection(path: Path, started: Callable[[Feed], Feed]) -> None:
    database = Database.create(path)
    database.append(chunks_of(demo_requests(4)))
    feed = started(Feed(path))
    eventually(lambda: feed.snapshot.spans > 0 and ready(feed))
    trace = feed.trace(ids_of(feed)[0])
    assert trace is not None
    body = feed.bodies.body(trace.roots[0].span)
    assert body is not None
    assert body.resource
    database.close()


def test_time_stands_still_in_a_recording_and_runs_live() -> None:
    recording, live = Feed(demo_database(), live=False), StillFeed(live=True)
    recording._load(recording._source)  # type: ignore[arg-type]
    assert recording.now() == RECEIVED + (len(demo_requests()) - 1) * SECOND
    live.clock = 5
    assert live.now() == 5
