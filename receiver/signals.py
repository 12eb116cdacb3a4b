"""Signals that end a process, told to its threads."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def ending(stop: threading.Event, *numbers: signal.Signals) -> Iterator[None]:
    """While this lasts, any of these signals sets `stop`; not in the main thread, nothing is done.

    A handler runs between two steps of the main thread, which may hold the very lock of `stop` then, in `stop.wait`:
    setting it there would wait for itself for ever. A `queue.SimpleQueue` may be put into from a handler (library
    reference, queue); a thread of its own sets the event.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def pass_on() -> None:
        if told.get():
            stop.set()

    threading.Thread(target=pass_on, name="signals", daemon=True).start()
    before = {number: signal.signal(number, lambda *_: told.put(True)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        told.put(False)
