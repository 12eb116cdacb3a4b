"""Threads that handle requests: as many as are needed, within a bound, and no more than that for long.

Not the standard library's pool: that one keeps every thread that a flood made it start, and where the system refuses
one more thread it raises, which ends gRPC's own loop and with it the listener.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Final

_KEPT: Final = 4
"""Threads that are there from the beginning and stay."""
_IDLE_SECONDS: Final = 20.0

_log = logging.getLogger(__name__)
_Task = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Threads(Executor):
    """At most `most` threads; what finds none waits until one is free."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._free = 0  # threads that wait, less the tasks that do
        self._count = 0
        self._closed = False
        self._refused = False
        for _ in range(min(_KEPT, most)):
            self._start()

    @property
    def count(self) -> int:
        """How many there are."""
        return self._count

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a thread call this. Never waits, and never fails for want of a thread."""
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                future.cancel()
                return future
            self._tasks.put((future, fn, args, kwargs))
            self._free -= 1
            if self._free < 0 and self._count < self._most:
                self._start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end when there is nothing left to do. `wait` is not done: what they do may take long."""
        with self._lock:
            self._closed = True
            for _ in range(self._count):
                self._tasks.put(None)

    def _start(self) -> None:
        """With the lock held, or before anybody knows of this."""
        thread = threading.Thread(target=self._work, name=f"{self._name}-{self._count}", daemon=True)
        try:
            thread.start()
            self._count += 1
            self._free += 1
        except RuntimeError as error:  # the system has no more: those that there are do it one after the other
            if not self._refused:
                self._refused = True
                _log.warning("no more threads than %d: %s", self._count, error)

    def _work(self) -> None:
        while (task := self._next()) is not None:
            future, fn, args, kwargs = task
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:  # noqa: BLE001 - whoever asked for it is told
                    future.set_exception(error)
            del task, future, fn, args, kwargs  # a request may be large
            with self._lock:
                self._free += 1

    def _next(self) -> _Task | None:
        """What to do next; None: nothing for so long that this thread is not needed."""
        while True:
            try:
                return self._tasks.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._free > 0 and self._count > _KEPT:
                        self._free -= 1
                        self._count -= 1
                        return None
