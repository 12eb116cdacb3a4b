"""How many requests gRPC has at once, divided between senders before gRPC sees them.

A request that finds no place is not refused: its connection is not read any further until one of its sender's ends, so
the sender is held back by TCP. Who holds less than its share goes first, and of a sender's connections those that hold
nothing, so that several services of one user each keep a part.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

STREAMS: Final = 128
"""Places that are divided; a sender that is alone leaves one share for the next to come."""
MOST_STREAMS: Final = 224
"""Places in all, with those of senders that came later."""
CONNECTIONS: Final = 16
"""So many connections of a sender get a place whatever its others hold."""


class Claim:
    """One connection's."""

    __slots__ = ("gone", "granted", "held", "resume", "sender")

    def __init__(self, sender: str = "", resume: Callable[[], None] = lambda: None) -> None:
        """`resume` is for whoever hands out places: what goes on when there is one."""
        self.sender = sender
        self.resume = resume
        self.held = 0
        self.granted = False  # the next that is asked for is held already
        self.gone = False
        """It wants no place any more; those that it holds are still to be given back."""


class _Sender:
    __slots__ = ("claims", "held", "idle", "more")

    def __init__(self) -> None:
        self.held = 0
        self.claims = 0  # that hold any
        self.idle: deque[Claim] = deque()  # wait, and hold none
        self.more: deque[Claim] = deque()  # wait, and hold some

    @property
    def first(self) -> Claim | None:
        """Which of its connections is next."""
        for queue in (self.idle, self.more):
            while queue and queue[0].gone:
                queue.popleft()
            if queue:
                return queue[0]
        return None


class StreamShares:
    """The places. For one thread."""

    def __init__(self, capacity: int = STREAMS, most: int = MOST_STREAMS) -> None:
        self._capacity = capacity
        self._most = most
        self._senders: dict[str, _Sender] = {}
        self.used = 0

    def take(self, claim: Claim) -> bool:
        """Whether there is a place for one more stream of this connection; if not, it waits for `next`."""
        if claim.gone:
            return False
        if claim.granted:
            claim.granted = False
            return True
        sender = self._senders.setdefault(claim.sender, _Sender())
        if (not sender.first or not claim.held) and self._may(sender, claim):
            self._grant(sender, claim)
            return True
        (sender.more if claim.held else sender.idle).append(claim)
        return False

    def give_back(self, claim: Claim) -> None:
        """A stream of this connection ended."""
        sender = self._senders[claim.sender]
        claim.held -= 1
        sender.held -= 1
        sender.claims -= not claim.held
        self.used -= 1
        self._forget(claim.sender)

    def leave(self, claim: Claim) -> None:
        """The connection is gone."""
        claim.gone = True
        self._forget(claim.sender)

    def next(self) -> Claim | None:
        """Whose turn it is of those that wait: a place is taken for it already. None: nobody's."""
        best: tuple[int, _Sender, Claim] | None = None
        for sender in self._senders.values():
            claim = sender.first
            if claim is not None and (best is None or sender.held < best[0]) and self._may(sender, claim):
                best = sender.held, sender, claim
        if best is None:
            return None
        _, sender, claim = best
        (sender.idle if sender.idle and sender.idle[0] is claim else sender.more).popleft()
        claim.granted = True
        self._grant(sender, claim)
        return claim

    def held(self) -> dict[str, int]:
        """Places by sender."""
        return {name: sender.held for name, sender in self._senders.items() if sender.held}

    def _may(self, sender: _Sender, claim: Claim) -> bool:
        if self.used >= self._most:
            return False
        if sender.held < max(1, self._capacity // (len(self._senders) + 1)):
            return True
        return not claim.held and sender.claims < CONNECTIONS

    def _grant(self, sender: _Sender, claim: Claim) -> None:
        sender.claims += not claim.held
        claim.held += 1
        sender.held += 1
        self.used += 1

    def _forget(self, name: str) -> None:
        sender = self._senders.get(name)
        if sender is not None and not sender.held and sender.first is None:
            del self._senders[name]


class TokenBucket:
    """So many a second, and so many at once after a pause."""

    __slots__ = ("_burst", "_left", "_rate", "_since")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._since = time.monotonic()

    def spend(self, count: float) -> float:
        """Take so many; seconds until there is one again, 0: there is."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._since) * self._rate) - count
        self._since = now
        return max(0.0, -self._left / self._rate)

    @property
    def full(self) -> bool:
        """Whether as many are there as can be."""
        return self._left + (time.monotonic() - self._since) * self._rate >= self._burst
