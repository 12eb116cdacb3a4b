"""The proxy's door: connections whose token was not seen yet, how many there may be, and which of them goes first.

Whoever has an account on this machine can connect. So a connection has little time to show its token and shares few
places: those of our own uid and of root among themselves, those of every other uid among themselves, and those of
whom the kernel does not tell. When one too many comes, the oldest of its own kind goes. The command's connections do
not stay here: they leave with their first request.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar

from tui.clusters.force.peers import Peers

SECONDS: Final = 10.0
"""From being accepted to a whole head with the token, TLS included."""
MOST_OURS: Final = 2048
MOST_UNKNOWN: Final = 256
MOST_OF_ANOTHER: Final = 16
MOST_OF_OTHERS: Final = 64
"""Of all other uids together."""
_GRACE: Final = 2.0
"""A command may open a thousand connections at once: while the oldest of ours is younger than so many seconds, the next
waits in the system's queue and puts none out."""
_GRACE_UNKNOWN: Final = 0.25
_AT_ONCE: Final = 16
"""Accepted before those that are here get their turn."""
_PAUSE: Final = 0.02
_NO_PLACE_PAUSE: Final = 0.05

_OURS: Final = -1
_UNKNOWN: Final = -2


class Stranger(Protocol):
    """A connection that may turn out to be the command's."""

    def put_out(self) -> None:
        """End it at once; it may not even be set up yet. Does not raise."""


S = TypeVar("S", bound=Stranger)


class Strangers:
    """Who is here. `files` says how many this process may have open now; the places are a part of them."""

    def __init__(self, ours: frozenset[int], files: Callable[[], int]) -> None:
        self._ours = ours
        self._files = files
        self._here: dict[int, dict[Stranger, float]] = {}
        self._kinds: dict[Stranger, int] = {}

    def _most(self, kind: int) -> int:
        files = self._files()
        if kind == _OURS:
            return max(8, min(MOST_OURS, files // 2))
        if kind == _UNKNOWN:
            return max(8, min(MOST_UNKNOWN, files // 4))
        return max(2, min(MOST_OF_ANOTHER, files // 32))

    def __len__(self) -> int:
        return len(self._kinds)

    def come(self, one: Stranger, uid: int | None, now: float) -> None:
        """Another is here, of that owner (None: not known); one too many is put out."""
        kind = _UNKNOWN if uid is None else _OURS if uid in self._ours else uid
        self._here.setdefault(kind, {})[one] = now
        self._kinds[one] = kind
        if len(self._here[kind]) > self._most(kind):
            self._put_out(kind)
        elif kind >= 0:
            others = [other for other in self._here if other >= 0]
            if sum(len(self._here[other]) for other in others) > max(4, min(MOST_OF_OTHERS, self._files() // 8)):
                self._put_out(max(others, key=lambda other: len(self._here[other])))

    def leave(self, one: Stranger) -> bool:
        """It is gone, or no stranger any more. Whether it was one."""
        kind = self._kinds.pop(one, None)
        if kind is None:
            return False
        group = self._here[kind]
        del group[one]
        if not group:
            del self._here[kind]
        return True

    def crowded(self, now: float) -> bool:
        """Whether the next had better wait for those that came a moment ago."""
        return any(
            len(group) >= self._most(kind) and now - next(iter(group.values())) < grace
            for kind, grace in ((_OURS, _GRACE), (_UNKNOWN, _GRACE_UNKNOWN))
            if (group := self._here.get(kind))
        )

    def give_way(self) -> None:
        """Put one out for lack of files: the oldest of another uid where there is one, of ours at last."""
        if self._here:
            others = [kind for kind in self._here if kind >= 0]
            self._put_out(max(others, key=lambda kind: len(self._here[kind])) if others else min(self._here))

    def _put_out(self, kind: int) -> None:
        oldest = next(iter(self._here[kind]))
        self.leave(oldest)
        oldest.put_out()


class Door:
    """Accepts, in an event loop. Goes on after every error, when the system has no more files too."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        make: Callable[[], Any],
        start: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        """`make` makes an asyncio protocol that is a `Stranger`; `start` begins a task that is seen to its end."""
        self._loop = loop
        self._listener = listener
        self._make = make
        self._start = start
        self._own: tuple[str, int] = listener.getsockname()[:2]
        self._peers = Peers()
        self.strangers = Strangers(frozenset((0, os.geteuid(), os.getuid())), files_allowed)
        self._closed = False
        self._limits: dict[Stranger, asyncio.TimerHandle] = {}
        listener.setblocking(False)
        self._open()

    def close(self) -> None:
        """Accept no more. Those who are here stay as they are."""
        self._closed = True
        self._loop.remove_reader(self._listener.fileno())
        for limit in self._limits.values():
            limit.cancel()
        self._limits.clear()
        self._peers.close()

    def known(self, one: Stranger) -> bool:
        """It showed the token, or is gone: nothing here is about it any more. Whether it was a stranger until now."""
        limit = self._limits.pop(one, None)
        if limit is not None:
            limit.cancel()
        return self.strangers.leave(one)

    def _open(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener.fileno(), self._take)

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._loop.call_later(seconds, self._open)

    def _take(self) -> None:
        for _ in range(_AT_ONCE):
            if self.strangers.crowded(time.monotonic()):
                self._rest(_PAUSE)
                return
            try:
                plug, address = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue
            except OSError:
                self.strangers.give_way()
                self._rest(_NO_PLACE_PAUSE)
                return
            plug.setblocking(False)
            one = self._make()
            self.strangers.come(one, self._peers.owner(address[:2], self._own), time.monotonic())
            self._limits[one] = self._loop.call_later(SECONDS, self._too_late, one)
            self._start(self._set_up(one, plug))

    async def _set_up(self, one: Any, plug: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: one, plug)
        except BaseException:
            plug.close()
            self.known(one)
            raise

    def _too_late(self, one: Stranger) -> None:
        self.known(one)
        one.put_out()


def files_allowed() -> int:
    """How many files this process may have open now."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return soft if soft != resource.RLIM_INFINITY else 1 << 20
    return 256
