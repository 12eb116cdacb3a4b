"""The one thread that writes: group commit without a timer.

While a commit runs, whatever arrives queues up and goes into the next one. So a single exporter waits for one commit
and no longer, and many share one. An acknowledgement is sent after the commit, never before.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from receiver.store.chunk import Chunk
from receiver.store.database import Database, DiskFull, StoreError

QUEUE_BYTES: Final = 48 << 20
"""Chunks of more than this many bytes do not wait for the disk: the sender is told to come back."""
GROUP: Final = 64
"""Chunks of one transaction at most, so that a reader sees the first of a flood soon."""
_PROBE_SECONDS: Final = 2.0
_SPACE: Final = 16 << 20  # a disk with so much space is not full

_log = logging.getLogger(__name__)


class Full(Exception):
    """A chunk was not stored; str() is one sentence for the sender, who may try again."""


class Pending:
    """A chunk on its way to the disk."""

    __slots__ = ("_done", "chunk", "error", "size")

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.size = size_of(chunk)
        self.error: str | None = None
        self._done = threading.Lock()  # held until the outcome is known: half the price of an Event
        self._done.acquire()

    def wait(self, timeout: float) -> bool:
        """Whether the chunk is stored.

        Returns:
            False when the time (seconds) is over and nothing is known yet.

        Raises:
            Full: it is not stored.
        """
        if not self._done.acquire(timeout=timeout):
            return False
        self._done.release()
        if self.error is not None:
            raise Full(self.error)
        return True

    def _finish(self, error: str | None) -> None:
        self.error = error
        self._done.release()


def size_of(chunk: Chunk) -> int:
    """About how many bytes a chunk takes in memory and on disk."""
    return len(chunk.body) + int(chunk.spans.nbytes) + int(chunk.facts.nbytes) + 512


class Writer(threading.Thread):
    """Stores chunks in the order in which they were submitted.

    `problem` is "" or one sentence about why nothing can be stored; it goes away with the next commit that works.
    """

    def __init__(
        self,
        database: Database,
        *,
        committed: Callable[[Sequence[Chunk]], None] | None = None,
        moved: Callable[[], None] | None = None,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        """Two calls by the writing thread: `committed` with each stored group, ids filled in; `moved` when the
        database's file is no longer where it was or as it was, after which nothing is stored any more."""
        super().__init__(name="writer", daemon=True)
        self.problem = ""
        self.disk_full = False
        self.moved_away = False
        self._database = database
        self._committed = committed
        self._moved = moved
        self._limit = queue_bytes
        self._queue: deque[Pending] = deque()
        self._bytes = 0
        self._wake = threading.Condition()
        self._stopping = False

    def submit(self, chunk: Chunk) -> Pending:
        """Queue a chunk.

        Raises:
            Full: too much is waiting already, or the writer was stopped.
        """
        pending = Pending(chunk)
        with self._wake:
            if self._stopping:
                raise Full("The receiver is shutting down.")
            if self._bytes and self._bytes + pending.size > self._limit:
                raise Full("The disk is slower than what arrives.")
            self._queue.append(pending)
            self._bytes += pending.size
            self._wake.notify()
        return pending

    def withdraw(self, pending: Pending) -> bool:
        """Take back a chunk that is not being written yet; False when it is too late."""
        with self._wake:
            try:
                self._queue.remove(pending)
            except ValueError:
                return False
            self._bytes -= pending.size
            return True

    def stop(self, timeout: float = 10.0) -> bool:
        """Write what is queued and end the thread; whether it ended in time (seconds)."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self.join(timeout)
        return not self.is_alive()

    def run(self) -> None:
        """The thread's own."""
        while True:
            with self._wake:
                while not self._queue and not self._stopping:
                    self._wake.wait(_PROBE_SECONDS)
                    if not self._queue:
                        self._probe()
                if not self._queue:
                    return
                group = [self._queue.popleft() for _ in range(min(GROUP, len(self._queue)))]
            error = self._store([pending.chunk for pending in group])
            with self._wake:
                self._bytes -= sum(pending.size for pending in group)
            for pending in group:
                pending._finish(error)

    def _probe(self) -> None:
        """Without senders no commit would ever tell that there is space again, or that the file is gone."""
        self._gone()
        path = self._database.path
        if self.disk_full and path is not None:
            try:
                disk = os.statvfs(path.parent)
            except OSError:
                return
            if disk.f_bavail * disk.f_frsize >= _SPACE:
                self.problem, self.disk_full = "", False

    def _gone(self) -> bool:
        if self.moved_away:
            return True
        lost = self._database.lost()
        if not lost:
            return False
        self.problem = lost
        self.moved_away = True
        if self._moved is not None:
            self._moved()
        return True

    def _store(self, chunks: list[Chunk]) -> str | None:
        if self._gone():
            return self.problem
        try:
            ids = self._database.append(chunks)
        except DiskFull as error:
            self.problem, self.disk_full = str(error), True
            return self.problem
        except StoreError as error:
            _log.warning("commit failed: %s", error)
            self.problem = str(error)
            return self.problem
        except Exception:  # noqa: BLE001 - the sender must hear that nothing was stored, and the thread must live
            _log.exception("commit failed")
            self.problem = "Spans cannot be stored because of a defect in this program: its log says more."
            return self.problem
        if self._gone():  # in this very moment: what was written is of no use
            return self.problem
        for chunk, number in zip(chunks, ids, strict=True):
            chunk.id = number
        self.problem, self.disk_full = "", False
        if self._committed is not None:
            try:
                self._committed(chunks)
            except Exception:  # noqa: BLE001 - what is stored is stored
                _log.exception("after a commit")
        return None
