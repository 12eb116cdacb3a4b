"""Work that grows with the data, off the event loop, without a queue of it.

A thread worker cannot be stopped. While a key is held down a screen asks for something else thirty times a second:
so one job runs at a time, and of those asked for meanwhile only the last is done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from textual.message_pump import MessagePump
from textual.screen import Screen

from receiver.store.database import StoreError

Result = TypeVar("Result")


class Latest(Generic[Result]):
    """One kind of job of one screen."""

    def __init__(
        self, screen: Screen[Any], name: str, done: Callable[[Result], None], failed: Callable[[str], None]
    ) -> None:
        """
        Args:
            screen: whose worker it is; the job dies with it.
            name: of the worker group.
            done: called on the event loop with what a job gave.
            failed: called on the event loop with one sentence, when the store could not be read.
        """
        self._screen = screen
        self._name = name
        self._done = done
        self._failed = failed
        self._next: Callable[[], Result] | None = None
        self.busy = False
        """A job is running, or its result is on its way."""

    def ask(self, job: Callable[[], Result]) -> None:
        """Do this in a thread as soon as the running job is done, instead of what was asked for before."""
        self._next = job
        if not self.busy:
            self._start()

    def _start(self) -> None:
        job, self._next = self._next, None
        if job is None or not self._screen.is_attached:
            self.busy = False
            return
        self.busy = True
        self._screen.run_worker(
            lambda: self._work(job), name=self._name, group=self._name, thread=True, exit_on_error=False
        )

    def _work(self, job: Callable[[], Result]) -> None:
        pump: MessagePump = self._screen
        try:
            result = job()
        except StoreError as error:
            pump.call_later(self._finish, self._failed, str(error))
        except MemoryError:
            pump.call_later(self._finish, self._failed, "There is not enough memory to show this.")
        except Exception:
            # A bug. The screen goes on, and what it was goes to the worker's error.
            pump.call_later(self._finish, self._failed, f"This could not be shown: a fault in {self._name}.")
            raise
        else:
            pump.call_later(self._finish, self._done, result)

    def _finish(self, what: Callable[[Any], None], value: object) -> None:
        self.busy = False
        if self._screen.is_attached:
            what(value)
        if not self.busy:
            self._start()
