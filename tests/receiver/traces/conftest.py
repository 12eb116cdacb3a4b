"""Recordings of real clusters, read once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from receiver.ingest.recordings import take
from receiver.store.chunk import Chunk
from receiver.store.database import Database
from receiver.store.index import Index
from receiver.traces.bodies import Bodies
from receiver.traces.model import Trace
from receiver.traces.pairing import pairs
from receiver.traces.reader import load
from receiver.traces.verdict import Verdict, judge
from tests.conftest import Once

RECORDINGS = (
    "list-nodes.otlp.jsonl",
    "create-pod-webhooks.otlp.jsonl",
    "forced-at-rate-zero.otlp.jsonl",
    "incident-2.otlp.jsonl.gz",
    "incident.otlp.jsonl.gz",
    "kubelet-and-containerd.otlp.jsonl.gz",
    "kubeadm-node.otlp.jsonl.gz",
    "cluster-rate-full.otlp.jsonl.gz",
)


@dataclass(slots=True)
class Recorded:
    """A recording as the program holds it."""

    index: Index
    bodies: Bodies
    database: Database
    _judged: list[tuple[Trace, Verdict]] = field(default_factory=list)

    def chunks(self) -> Iterator[Chunk]:
        """The exports in the order of arrival."""
        last = 0
        while chunks := self.database.read_after(last):
            yield from chunks
            last = chunks[-1].id

    def read_again(self) -> Index:
        """An index that nobody has asked anything yet."""
        index = Index()
        for chunk in self.chunks():
            index.extend([chunk])
        return index

    def trace(self, slot: int) -> Trace:
        trace = load(self.index, self.index.trace_id(slot), 0, live=False)
        assert trace is not None
        return trace

    def some(self) -> Iterator[tuple[int, Trace]]:
        """Slot and trace: all of a small recording, every fifth of the largest."""
        for slot in range(0, self.index.traces, 5 if self.index.traces > 5_000 else 1):
            yield slot, self.trace(slot)

    def judged(self) -> list[tuple[Trace, Verdict]]:
        """Each trace in the order of arrival, with its verdict."""
        if not self._judged:
            before = pairs(self.index).before_requests(self.index.traces).tolist()
            for slot in range(self.index.traces):
                trace = self.trace(slot)
                self._judged.append((trace, judge(trace, self.bodies, authentication=before[slot])))
        return self._judged


Recordings = Callable[[str], Recorded]


@pytest.fixture(scope="session")
def recorded(recordings: Path, once: Once) -> Recordings:
    """A recording by its file's name, or by the part before its first dot."""
    held: dict[str, Recorded] = {}

    def of(name: str) -> Recorded:
        file = next(file for file in RECORDINGS if name in (file, file.partition(".")[0]))
        if file not in held:
            database = Database.read(once(f"{file}.db", lambda path: _take(recordings / file, path)))
            held[file] = Recorded(Index(), Bodies(database), database)
            held[file].index = held[file].read_again()
        return held[file]

    return of


def _take(recording: Path, path: Path) -> None:
    database = Database.create(path)
    take(recording, database, pytest.fail, arrived_now=False)
    database.close()
