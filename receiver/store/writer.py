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
from receiver.store.database import Database, DatabaseMoved, DiskFull, NoRoom, StoreError, TooLarge
from receiver.store.repack import size_of, split
from receiver.store.room import largest, piece_bytes

QUEUE_BYTES: Final = 48 << 20
"""Chunks of more than this many bytes do not wait for the disk: the sender is told to come back."""
GROUP: Final = 64
"""Chunks of one transaction at most, so that a reader sees the first of a flood soon."""
_PROBE_SECONDS: Final = 2.0
_SPACE: Final = 16 << 20  # a disk with so much space is not full

_log = logging.getLogger(__name__)


class Full(Exception):
    """A chunk was not stored; str() is one sentence for the sender, who may try again."""


class NeverFits(Full):
    """... and need not try again: a span of it is larger than the database may be."""


class Pending:
    """A chunk, or its pieces, on the way to the disk."""

    __slots__ = ("_done", "chunks", "error", "final", "size")

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.chunks = chunks
        self.size = sum(map(size_of, chunks))
        self.error: str | None = None
        self.final = False
        self._done = threading.Lock()  # held until the outcome is known: half the price of an Event
        self._done.acquire()

    def wait(self, timeout: float) -> bool:
        """Whether the chunk is stored.

        Returns:
            False when the time (seconds) is over and nothing is known yet.

        Raises:
            Full, NeverFits: it is not stored.
        """
        if not self._done.acquire(timeout=timeout):
            return False
        self._done.release()
        if self.error is not None:
            raise (NeverFits if self.final else Full)(self.error)
        return True

    def _finish(self, error: str | None, final: bool) -> None:
        self.error, self.final = error, final
        self._done.release()


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
        self._crowded = False
        self._database = database
        self._committed = committed
        self._moved = moved
        self._limit = queue_bytes
        self._queue: deque[Pending] = deque()
        self._bytes = 0
        self._wake = threading.Condition()
        self._stopping = False

    def submit(self, chunk: Chunk) -> Pending:
        """Queue a chunk. One that is too large for a transaction is stored in pieces, and acknowledged after the last.

        Raises:
            Full: too much is waiting already, or the writer was stopped.
            NeverFits: a span of it is larger than the database may be.
        """
        bound = self._database.bound
        # By the sender's own thread: it takes a while, in which others are served.
        pending = Pending(split(chunk, piece_bytes(bound)))
        if bound is not None and max(map(size_of, pending.chunks)) > largest(bound):
            raise NeverFits(
                f"A span takes more than half of the {bound:,} bytes that are kept (--max-size): it is not stored."
            )
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
                waits = not self._queue and not self._stopping
                if waits:
                    self._wake.wait(_PROBE_SECONDS)
                group = self._next() if self._queue else []
                if not group and self._stopping:
                    return
            if not group:
                self._probe()
                continue
            try:
                error, final = self._store(group)
            except Exception:  # noqa: BLE001 - the senders must hear of it, and the thread must live
                _log.exception("while storing")
                error, final = self._defect(), False
            with self._wake:
                self._bytes -= sum(pending.size for pending in group)
            for pending in group:
                pending._finish(error, final)

    def _next(self) -> list[Pending]:
        """What goes into one transaction: bounded, because the log takes all of it before the file does."""
        most = piece_bytes(self._database.bound)
        group = [self._queue.popleft()]
        size = group[0].size
        while self._queue and len(group) < GROUP and size + self._queue[0].size <= most:
            group.append(self._queue.popleft())
            size += group[-1].size
        return group

    def _probe(self) -> None:
        """Without senders no commit would ever tell that there is space again, or that the file is gone."""
        try:
            if self._gone():
                return
            if self._crowded and (not self._database.log_held or self._database.frees_log()):
                self.problem, self._crowded = "", False  # the next sender finds out
            if self.disk_full and self._has_space():
                self.problem, self.disk_full = "", False
        except Exception:  # noqa: BLE001 - the thread must live, and the next sender hears what it is
            _log.exception("while nothing arrives")

    def _has_space(self) -> bool:
        path = self._database.path
        if path is None:
            return False
        try:
            disk = os.statvfs(path.parent)
        except OSError:
            return False
        return disk.f_bavail * disk.f_frsize >= _SPACE

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

    def _store(self, group: list[Pending]) -> tuple[str | None, bool]:
        """Why nothing was stored, None when everything was, and whether it never can be."""
        if self.moved_away:
            return self.problem, False
        if len(group) == 1:
            # Killed between two pieces, the sender has no answer, and sends all of them again.
            for piece in group[0].chunks:
                outcome = self._commit([piece])
                if outcome[0] is not None:
                    return outcome
            return None, False
        return self._commit([piece for pending in group for piece in pending.chunks])

    def _defect(self) -> str:
        self.problem = "Spans cannot be stored because of a defect in this program: its log says more."
        return self.problem

    def _commit(self, chunks: list[Chunk]) -> tuple[str | None, bool]:
        try:
            ids = self._database.append(chunks)
        except DatabaseMoved as error:
            self._gone()
            self.problem = self.problem or str(error)
            return self.problem, False
        except TooLarge as error:
            return str(error), True
        except NoRoom as error:
            self.problem, self._crowded = str(error), True
            return self.problem, False
        except DiskFull as error:
            self.problem, self.disk_full = str(error), True
            return self.problem, False
        except StoreError as error:
            _log.warning("commit failed: %s", error)
            self.problem = str(error)
            return self.problem, False
        except Exception:  # noqa: BLE001 - the sender must hear that nothing was stored, and the thread must live
            _log.exception("commit failed")
            return self._defect(), False
        for chunk, number in zip(chunks, ids, strict=True):
            chunk.id = number
        self.problem, self.disk_full, self._crowded = "", False, False
        if self._committed is not None:
            try:
                self._committed(chunks)
            except Exception:  # noqa: BLE001 - what is stored is stored
                _log.exception("after a commit")
        return None, False
