"""Spans that come from a file instead of a socket: the same validation, the same chunks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from receiver.ingest.decode import Malformed, decode
from receiver.store import files
from receiver.store.chunk import Chunk
from receiver.store.database import Database

_GROUP_BYTES = 4 << 20
_GROUP_CHUNKS = 64


@dataclass(slots=True)
class Taken:
    """What came of a file."""

    requests: int = 0
    spans: int = 0
    rejected: int = 0  # spans that no trace can be made of
    bad: int = 0  # lines that are no request


def take(
    path: Path,
    database: Database,
    said: Callable[[str], None],
    *,
    arrived_now: bool,
    stop: Event | None = None,
) -> Taken:
    """Put the requests of a recording into a database, a few in a transaction.

    Args:
        path: OTLP JSON Lines; the file's name becomes the source.
        database: open for writing. Another writer may be at it: each transaction is short.
        said: takes a sentence for each line or request that was not (wholly) taken.
        arrived_now: ages and windows count from arrival. An import arrives now; a file that is only
            looked at arrived when its newest span ended, so that it looks the same on every day.
        stop: ends the reading early when set.

    Raises:
        StoreError: the file cannot be read or the database not written.
    """
    taken = Taken()
    group: list[Chunk] = []
    size = 0

    def bad(sentence: str) -> None:
        taken.bad += 1
        said(sentence)

    def left_out(count: int, sentence: str) -> None:
        taken.rejected += count
        said(sentence)

    def flush() -> None:
        nonlocal size
        if group:
            database.append(group)
            taken.spans += sum(len(chunk.spans) for chunk in group)
            group.clear()
            size = 0

    received = 0
    for body in files.read(path, bad, left_out=left_out):
        if stop is not None and stop.is_set():
            break
        try:
            decoded = decode(body, source=path.name, peer="", received=time.time_ns())
        except Malformed as problem:
            bad(f"{path}: a request is not OTLP ({problem}); skipped.")
            continue
        taken.requests += 1
        if decoded.rejected:
            taken.rejected += decoded.rejected
            said(f"{path}: {decoded.rejected:,} spans of a request were left out: {decoded.reason}.")
        if decoded.chunk is None:
            continue
        chunk = decoded.chunk
        if not arrived_now:
            # never before what came earlier in the file, nor in the future, whatever a sender's clock said
            received = max(received, min(int(chunk.spans["end"].max(initial=0)), chunk.received))
            chunk.received = received
        group.append(chunk)
        size += len(chunk.body) + chunk.spans.nbytes
        if size >= _GROUP_BYTES or len(group) >= _GROUP_CHUNKS:
            flush()
    flush()
    return taken
