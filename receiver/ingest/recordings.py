"""Spans that come from a file instead of a socket: the same validation, the same chunks."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.ingest.decode import Malformed, decode
from receiver.recordings.complaints import Complaint
from receiver.recordings.reading import read
from receiver.recordings.unpacked import HEAD, refuse
from receiver.store.chunk import Chunk
from receiver.store.database import Database, StoreError, decompress
from receiver.store.repack import Part, repack, size_of, split
from receiver.store.room import largest, piece_bytes

Array = npt.NDArray[Any]

_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
_GROUP_CHUNKS = 64


@dataclass(slots=True)
class Taken:
    """What came of a file."""

    requests: int = 0
    spans: int = 0
    rejected: int = 0  # spans that no trace can be made of
    bad: int = 0  # lines that are no request
    known: int = 0  # spans, among `spans`, that were there already
    other: int = 0  # lines of metrics and logs

    @property
    def whole(self) -> bool:
        """Whether there were spans, and all of them were taken."""
        return self.spans > 0 and not self.bad and not self.rejected


def check(path: Path) -> None:
    """Refuse what cannot be read as a recording.

    Raises:
        StoreError: it cannot be opened, or is a database.
    """
    try:
        found = path.stat()
        if stat.S_ISREG(found.st_mode):  # what a pipe gives is gone then
            with path.open("rb") as file:
                refuse(file.read(HEAD), str(path))
    except OSError as problem:
        raise StoreError(f"{path} cannot be read ({problem.strerror}): name another file.") from problem


class Seen:
    """Which spans a database holds, so that none is stored twice: 8 bytes a span.

    A span is known by 64 bits made of its trace's id and its own: among 4 million, two different ones share them once
    in two million databases.
    """

    def __init__(self, database: Database) -> None:
        self._blocks: list[Array] = []
        last = 0
        while chunks := database.read_after(last):
            last = chunks[-1].id
            for chunk in chunks:
                self.new(chunk)

    def new(self, chunk: Chunk) -> Array:
        """Which of a chunk's spans were not seen before, by row; from now on they are."""
        spans = chunk.spans
        with np.errstate(over="ignore"):
            keys = ((spans["trace_hi"] * _MIX ^ spans["trace_lo"]) * _MIX ^ spans["span"]) * _MIX
        unique, first = np.unique(keys, return_index=True)
        fresh = np.ones(len(unique), bool)
        for block in self._blocks:
            at: Array = np.asarray(np.searchsorted(block, unique))
            at[at == len(block)] = 0
            fresh &= block[at] != unique
        if fresh.any():
            self._blocks.append(unique[fresh])
        # Each block is more than twice the next: a look goes through few, and a span is moved seldom.
        while len(self._blocks) > 1 and len(self._blocks[-2]) <= 2 * len(self._blocks[-1]):
            self._blocks[-2:] = [np.sort(np.concatenate(self._blocks[-2:]))]
        found = np.zeros(len(keys), bool)
        found[first[fresh]] = True
        return found


def take(
    path: Path,
    database: Database,
    said: Callable[[str], None],
    *,
    arrived_now: bool,
    stop: Event | None = None,
    seen: Seen | None = None,
    stored: Callable[[Sequence[Chunk]], None] | None = None,
) -> Taken:
    """Put the requests of a recording into a database, a few in a transaction.

    Args:
        path: OTLP JSON Lines; the file's name becomes the source.
        database: open for writing. Another writer may be at it: each transaction is short.
        said: takes a sentence for each line or request that was not (wholly) taken.
        arrived_now: ages and windows count from arrival. An import arrives now; a file that is only
            looked at arrived when its newest span ended, so that it looks the same on every day.
        stop: ends the reading early when set.
        seen: what is there already, and is not stored again; None stores everything, for readers drop it.
        stored: takes the chunks of each transaction, their ids filled in.

    Raises:
        StoreError: the file cannot be read or the database not written.
    """
    taken = Taken()
    group: list[Chunk] = []
    size = 0

    def bad(sentence: str) -> None:
        if isinstance(sentence, Complaint) and sentence.harmless:
            taken.other += 1
        else:
            taken.bad += 1
        said(sentence)

    def left_out(count: int, sentence: str) -> None:
        taken.rejected += count
        said(sentence)

    def flush() -> None:
        nonlocal size
        if group:
            for chunk, number in zip(group, database.append(group), strict=True):
                chunk.id = number
            if stored is not None:
                stored(group)
            group.clear()
            size = 0

    received = 0
    for body in read(path, bad, left_out=left_out):
        if stop is not None and stop.is_set():
            break
        try:
            decoded = decode(body, source=path.name, peer="", received=time.time_ns())
        except Malformed as problem:
            bad(Complaint.of(str(path), "", f"a request is not OTLP ({str(problem).rstrip('.')})"))
            continue
        taken.requests += 1
        if decoded.rejected:
            taken.rejected += decoded.rejected
            said(f"{path}: {decoded.reason}")
        elif decoded.reason:
            said(f"{path}: {decoded.reason}")
        if decoded.chunk is None:
            continue
        chunk = decoded.chunk
        if not arrived_now:
            # never before what came earlier in the file, nor in the future, whatever a sender's clock said
            received = max(received, min(int(chunk.spans["end"].max(initial=0)), chunk.received))
            chunk.received = received
        taken.spans += len(chunk.spans)
        if seen is not None:
            new = seen.new(chunk)
            if not new.all():
                taken.known += len(new) - int(np.count_nonzero(new))
                if not new.any():
                    continue
                chunk = repack([Part(chunk, new, decompress(chunk.body))])
        most = piece_bytes(database.bound)
        for piece in split(chunk, most):
            if database.bound is not None and size_of(piece) > largest(database.bound):
                left_out(
                    len(piece.spans),
                    f"{path}: a span is left out, for it takes more than half of the {database.bound:,} bytes that are"
                    " kept: allow more with --max-size.",
                )
                continue
            if group and size + size_of(piece) > most:
                flush()
            group.append(piece)
            size += size_of(piece)
            if size >= most or len(group) >= _GROUP_CHUNKS:
                flush()
    flush()
    return taken
