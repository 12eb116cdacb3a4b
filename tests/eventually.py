"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

_FIRST_PAUSE_SECONDS = 0.002


def eventually(
    look: Callable[[], Found],
    otherwise: str | Callable[[], str] = "it did not come to be",
    *,
    seconds: float = 30.0,
    longest_pause: float = 0.05,
) -> Found:
    """What `look` returns as soon as that is true.

    Args:
        look: asked again and again, at first every 2 ms, later every `longest_pause` seconds.
        otherwise: what the test says when `seconds` are over; a callable is asked for it then.
        seconds: a bound for a machine that is very busy, not a claim about how long anything takes.
    """
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE_SECONDS
    while not (found := look()):
        if time.monotonic() >= deadline:
            raise AssertionError(otherwise if isinstance(otherwise, str) else otherwise())
        time.sleep(pause)
        pause = min(2 * pause, longest_pause)
    return found
