"""A feed whose clock and threads stand still: what a test does is all that happens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from receiver.ingest.decode import decode
from receiver.store.chunk import Chunk
from receiver.store.database import Database
from receiver.store.index import Index
from receiver.traces.query import View
from tests.demo_recording import STARTED, demo_requests
from tui.feed import Feed, _Rate

SECOND = 1_000_000_000
RECEIVED = STARTED + 60 * SECOND
"""When the first of several requests arrived."""


def chunks_of(
    requests: Iterable[bytes], received: int = RECEIVED, step: int = SECOND, source: str = "local"
) -> list[Chunk]:
    """Export requests as the receiver would store them, one second after the other."""
    made = []
    for place, body in enumerate(requests):
        chunk = decode(body, source=source, peer="127.0.0.1:51000", received=received + place * step).chunk
        assert chunk is not None
        made.append(chunk)
    return made


def demo_database(seconds: int = 20, seed: int = 1) -> Database:
    """The first seconds of the demo cluster, in memory."""
    database = Database.memory()
    database.append(chunks_of(demo_requests(seconds, seed)))
    return database


class StillFeed(Feed):
    """Reads when it is told to, in the caller's thread."""

    def __init__(self, database: Database | None = None, *, live: bool = False) -> None:
        super().__init__(database or demo_database(), live=live)
        self.clock = 0
        self.status: dict[str, Any] | None = None
        self.problem = ""
        self.rates = (0.0, 0.0)
        self.held: list[tuple[str, ...]] = []

    def start(self) -> None:
        """Reads all that is there."""
        database = self._source
        assert isinstance(database, Database)
        self._database = database
        self._index = Index()
        self._generation = self._load(database)
        self.turn()

    def stop(self) -> None:
        """Nothing runs."""

    def now(self) -> int:
        """The time set by the test, or the newest arrival."""
        return self.clock or self.snapshot.last_arrival

    def set_view(self, view: View) -> None:
        """At once."""
        super().set_view(view)
        self.turn()

    def freeze(self, on: bool) -> None:
        """At once."""
        super().freeze(on)
        self.turn()

    def hold(self, trace_ids: Iterable[str]) -> None:
        """Remembered."""
        super().hold(trace_ids)
        self.held.append(self._held)

    def arrive(self, chunks: list[Chunk]) -> None:
        """Chunks come in."""
        assert self._database is not None
        self._database.append(chunks)
        self.turn()

    def turn(self) -> None:
        """One round of the reading thread."""
        if self._database is None:
            return
        more = True
        while more:
            self._generation, more = self._take(self._database, self._generation)
        self._rate = _Rate()
        self._publish(self._index, self._view, self._frozen, self._generation, None)
        spans, requests = self.rates
        self.snapshot = replace(
            self.snapshot, status=self.status, problem=self.problem, spans_per_s=spans, requests_per_s=requests
        )
