"""What the program has to tell, a sentence at a time: the newest replaces the one before."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

_LEAST_SECONDS: Final = 4.0
_MOST_SECONDS: Final = 12.0
_CHARACTERS_A_SECOND: Final = 14
"""Slow reading, of somebody who was looking elsewhere."""
REMEMBERED: Final = 50


@dataclass(frozen=True, slots=True)
class Toast:
    """A sentence, made printable."""

    text: str
    wrong: bool = False
    """Something could not be done, in contrast to something that was."""

    @property
    def seconds(self) -> float:
        """How long it stays, unless another takes its place."""
        return min(_MOST_SECONDS, max(_LEAST_SECONDS, len(self.text) / _CHARACTERS_A_SECOND))


class Toasts:
    """One at a time. What was lined up at the start is not lost when something else is said meanwhile."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self.told: deque[Toast] = deque(maxlen=REMEMBERED)
        """All that were shown, the newest last."""
        self._clock = clock
        self._now: Toast | None = None
        self._until = 0.0
        self._line: deque[Toast] = deque()
        self._lined_up = False  # the one that is shown came from the line

    def say(self, toast: Toast) -> None:
        """Show it now. The one that is there already stays for longer."""
        if toast == self.current:
            self._until = self._clock() + toast.seconds
            return
        if self._now is not None and self._lined_up:
            self._line.appendleft(self._now)
        self._show(toast)

    def line_up(self, toasts: Iterable[Toast]) -> None:
        """Show these one after the other."""
        self._line.extend(toasts)

    @property
    def current(self) -> Toast | None:
        """The one to show at this moment."""
        if self._now is not None and self._clock() >= self._until:
            self._now = None
        if self._now is None and self._line:
            self._show(self._line.popleft())
            self._lined_up = True
        return self._now

    def dismiss(self) -> None:
        """It was seen."""
        self._now = None

    def _show(self, toast: Toast) -> None:
        if not self.told or self.told[-1] != toast:
            self.told.append(toast)
        self._now, self._until, self._lined_up = toast, self._clock() + toast.seconds, False
