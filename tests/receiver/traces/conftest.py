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
def recorded(recordings: Path) -> Recordings:
    """A recording by its file's name, or by the part before its first dot."""
    held: dict[str, Recorded] = {}

    def of(name: str) -> Recorded:
        if name not in held:
            file = next(file for file in RECORDINGS if name in (file, file.partition(".")[0]))
            database = Database.memory()
            take(recordings / file, database, pytest.fail, arrived_now=False)
            index = Index()
            while chunks := database.read_after(index.last_chunk):
                index.extend(chunks)
            held[name] = Recorded(index, Bodies(database), database)
        return held[name]

    return of
