"""Attributes of all spans: the bodies are read from the newest to the oldest, while the list shows what was found.

The first requests are read here, at once, so that something is on the screen; what is more is read by a process of its
own (`worker`), because Python's threads would make the screen wait for each other. The database is read here, since it
may live in memory, and its bodies go over as they are stored. What was found is kept by chunk, a bit a span, so that
nothing is read twice: not when more arrives, not when the index is made anew after an eviction.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.database import Database, StoreError
from receiver.store.index import Index
from receiver.traces.filter.attributes import Attribute, Reader
from receiver.traces.filter.worker import answers, asking, batch, read_body

Array = npt.NDArray[Any]

AT_ONCE: Final = 1 << 20
"""Stored bytes of the requests that are read in one go, about; at most this much waits in memory, twice."""
MOST: Final = 64
"""Requests that are read in one go."""
AT_FIRST: Final = 0.06
"""Seconds that are read here before a process is started: a filter that is still being typed needs none."""
FEW: Final = 24
"""Requests that arrived since and are read here, without a process."""

_PROGRAM: Final = "import sys; sys.path[:] = {path!r}; from receiver.traces.filter.worker import main; main()"
"""Finds what we have found, and nothing in the directory that somebody stands in."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a scan is: requests read, of those that there are, and seconds since it began (to its end)."""

    read: int
    of: int
    seconds: float
    cancelled: bool = False
    """Nothing more will be read."""

    @property
    def done(self) -> bool:
        """Whether all that is there was read. More may arrive."""
        return self.read >= self.of

    @property
    def share(self) -> float:
        """0 to 1."""
        return min(1.0, self.read / self.of) if self.of else 1.0


class Scan:
    """Looks for attributes in a database, for the index that is followed. May be asked from any thread."""

    def __init__(self, database: Database, attributes: Sequence[Attribute], index: Index, *, process: bool = True):
        """Nothing is read before `start` or `run`.

        Args:
            database: stays open as long as this; read under its own lock.
            attributes: of `Query.attributes`.
            process: False reads all of it in this interpreter.
        """
        self.attributes = tuple(attributes)
        self.problem = ""
        """One sentence for the operator when the file cannot be read, or ""."""
        self.version = 0
        """Rises when something was read."""
        self._database = database
        self._process = process
        self._reader = Reader(self.attributes)
        self._index = index
        self._lock = threading.Lock()
        self._read: dict[int, tuple[bytes, ...]] = {}  # by chunk: the bits of each attribute, b"" for none
        self._fresh: list[int] = []  # of those, what the columns below lack
        self._columns_of: Index | None = None
        self._known: Array = np.zeros(0, bool)
        self._found: list[Array] = []
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._worker: subprocess.Popen[bytes] | None = None
        self._began = time.monotonic()
        self._took = 0.0
        self._left = len(index.chunk_id)

    # -- the work --------------------------------------------------------------------------------------
    def start(self) -> None:
        """Read in a thread, and go on with what arrives until `cancel`."""
        self._thread = threading.Thread(target=self._go_on, name="filter-scan", daemon=True)
        self._thread.start()

    def follow(self, index: Index) -> None:
        """The index has grown, or it is another one."""
        self._index = index
        self._wake.set()

    def run(self) -> None:
        """Read all that the index has and was not read, in this thread.

        Raises:
            StoreError: the file cannot be read.
        """
        self._began = self._began if not self._read else time.monotonic()
        index = self._index
        with index.lock:
            ids = index.chunk_id.tolist()
        todo = [number for number in ids if number not in self._read]
        self._left = len(todo)
        try:
            if len(todo) > FEW:
                self._here(todo, time.monotonic() + AT_FIRST)
                if self._process and len(todo) > FEW:
                    self._there(todo)
            self._here(todo, None)
        finally:
            self._end_worker()
        self._took = time.monotonic() - self._began

    def cancel(self) -> None:
        """End it; does not wait. What was found stays."""
        self._ended.set()
        self._wake.set()
        self._end_worker()

    def join(self, seconds: float) -> None:
        """Wait until the thread has ended after `cancel`: before its database is closed."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _go_on(self) -> None:
        while not self._ended.is_set():
            try:
                self.run()
                self.problem = ""
            except StoreError as error:
                self.problem = str(error)
            except Exception as error:  # noqa: BLE001 - a defect must be seen, not leave a scan that stands still
                self.problem = f"Reading attributes failed ({type(error).__name__}: {error}); trying again."
            self._wake.wait(None if not self.problem else 1.0)
            self._wake.clear()

    def _here(self, todo: list[int], until: float | None) -> None:
        """Read from the end of the list in this thread, with a breath after each request."""
        while todo and not self._ended.is_set() and (until is None or time.monotonic() < until):
            some = todo[-4:]
            bodies = self._database.packed_bodies(some)
            for number in reversed(some):
                self._take({number: read_body(self._reader, bodies[number]) if number in bodies else []})
                todo.pop()
                time.sleep(0)

    def _there(self, todo: list[int]) -> None:
        """Read from the end of the list by a process; ends early when that one does."""
        try:
            worker = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM.format(path=[os.path.abspath(path) for path in sys.path])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us
                cwd="/",
            )
        except OSError:
            return
        with self._lock:
            self._worker = worker
        if self._ended.is_set():
            return
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            worker.stdin.write(asking(self.attributes))
            waiting: tuple[list[int], dict[int, bytes]] | None = None
            while (todo or waiting) and not self._ended.is_set():
                following = self._next(todo, waiting is None) if todo else None
                if waiting is not None:
                    self._take(answers(worker.stdout, len(waiting[1])), waiting[0])
                if following is not None:
                    worker.stdin.write(batch(following[1]))
                    worker.stdin.flush()
                    del todo[-len(following[0]) :]
                waiting = following
        except (OSError, EOFError, ValueError):  # it ended, or its pipes were closed
            if not self._ended.is_set():
                with self._lock:
                    todo[:] = [number for number in todo if number not in self._read]
                if waiting is not None:
                    todo += [number for number in waiting[0] if number not in self._read]

    def _next(self, todo: Sequence[int], first: bool) -> tuple[list[int], dict[int, bytes]]:
        """The ids of some requests from the end of the list, and the bodies of those that are still there."""
        some = list(todo[-(8 if first else MOST) :])
        bodies = self._database.packed_bodies(some)
        size = 0
        for count, number in enumerate(reversed(some), 1):
            size += len(bodies.get(number, b""))
            if size >= AT_ONCE:
                some = some[len(some) - count :]
                break
        return some, {number: bodies[number] for number in reversed(some) if number in bodies}

    def _take(self, found: dict[int, list[bytes]], asked: Sequence[int] = ()) -> None:
        """Keep what was found in some requests; of those that are not there any more, nothing was."""
        for number in asked:
            found.setdefault(number, [])
        packed = {
            number: tuple(np.packbits(np.frombuffer(mask, np.uint8)).tobytes() if mask else b"" for mask in masks)
            for number, masks in found.items()
        }
        with self._lock:
            self._read.update(packed)
            self._fresh += packed
            self._left -= len(packed)
            self.version += 1

    def _end_worker(self) -> None:
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is None:
            return
        worker.kill()
        worker.wait()
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue

    # -- the answers -----------------------------------------------------------------------------------
    @property
    def progress(self) -> Progress:
        """How far it is."""
        left = max(0, self._left)
        seconds = time.monotonic() - self._began if left else self._took
        return Progress(len(self._read), len(self._read) + left, seconds, self._ended.is_set())

    def rows(self, index: Index, attribute: Attribute) -> tuple[Array, Array]:
        """As `evaluate.Found`: by span whether it has the attribute as asked, and whether that is known."""
        with self._lock:
            self._bring_along(index)
            count = index.spans
            place = self.attributes.index(attribute) if attribute in self.attributes else -1
            if place < 0:
                nothing = np.zeros(count, bool)
                return nothing, nothing
            return self._found[place][:count], self._known[:count]

    def _forget(self, index: Index) -> None:
        """What was read of requests that were evicted since."""
        if len(self._read) > 2 * len(index.chunk_id) + 1_000:
            held = set(index.chunk_id.tolist())
            self._read = {number: bits for number, bits in self._read.items() if number in held}

    def _bring_along(self, index: Index) -> None:
        count = index.spans
        fresh: Sequence[int] = self._fresh
        if index is not self._columns_of:
            self._columns_of = index
            self._forget(index)
            self._known = np.zeros(count, bool)
            self._found = [np.zeros(count, bool) for _ in self.attributes]
            fresh = list(self._read)
        elif len(self._known) < count:
            room = count + count // 4
            self._known = _longer(self._known, room)
            self._found = [_longer(column, room) for column in self._found]
        self._fresh = []
        if not fresh:
            return
        numbers = np.array(sorted(fresh), np.int64)
        chunk, ordinal = index.chunk, index.ordinal
        lows = np.searchsorted(chunk, numbers.astype(chunk.dtype), side="left").tolist()
        highs = np.searchsorted(chunk, numbers.astype(chunk.dtype), side="right").tolist()
        for number, low, high in zip(numbers.tolist(), lows, highs, strict=True):
            if low == high:
                if not len(chunk) or number > int(chunk[-1]):  # its rows are just being added
                    self._fresh.append(number)
                continue
            self._known[low:high] = True
            for column, bits in zip(self._found, self._read[number], strict=False):
                if bits:
                    held = np.unpackbits(np.frombuffer(bits, np.uint8))
                    at = ordinal[low:high]
                    column[low:high] = (held[np.minimum(at, len(held) - 1)] == 1) & (at < len(held))


def _longer(old: Array, room: int) -> Array:
    new = np.zeros(room, bool)
    new[: len(old)] = old
    return new
