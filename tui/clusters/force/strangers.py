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

from tui.clusters.force.peers import NOBODY, Peers

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
_AT_ONCE: Final = 256
"""Accepted before those that are here get their turn..."""
_SET_UP_AT_ONCE: Final = 16
"""...and of those, who may be the command's: each costs what twenty do that are put out before they are set up."""
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

    def come(self, one: Stranger, uid: int | None, now: float) -> int:
        """Another is here, of that owner (None: not known); one too many is put out. Its kind: below 0 where it may
        well be the command's."""
        kind = _UNKNOWN if uid is None else _OURS if uid in self._ours else uid
        self._here.setdefault(kind, {})[one] = now
        self._kinds[one] = kind
        if len(self._here[kind]) > self._most(kind):
            self._put_out(kind)
        elif kind >= 0:
            others = [other for other in self._here if other >= 0]
            if sum(len(self._here[other]) for other in others) > max(4, min(MOST_OF_OTHERS, self._files() // 8)):
                self._put_out(max(others, key=lambda other: len(self._here[other])))
        return kind

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
        """`make` makes an asyncio protocol with the method of a `Stranger`; `start` begins a task that is seen to its
        end."""
        self._loop = loop
        self._listener = listener
        self._make = make
        self._start = start
        self._own: tuple[str, int] = listener.getsockname()[:2]
        self._peers = Peers()
        self.strangers = Strangers(frozenset((0, os.geteuid(), os.getuid())), files_allowed)
        self._closed = False
        self._visits: dict[Any, _Visit] = {}
        listener.setblocking(False)
        self._open()

    def close(self) -> None:
        """Accept no more. Those who are here stay as they are."""
        self._closed = True
        self._loop.remove_reader(self._listener.fileno())
        for visit in self._visits.values():
            visit.limit.cancel()
        self._peers.close()

    def known(self, one: Any) -> None:
        """It showed the token, or is gone: nothing here is about it any more."""
        visit = self._visits.pop(one, None)
        if visit is not None:
            visit.limit.cancel()
            self.strangers.leave(visit)

    def _open(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener.fileno(), self._take)

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._loop.call_later(seconds, self._open)

    def _take(self) -> None:
        came: list[_Visit] = []
        try:
            for _ in range(_AT_ONCE):
                if sum(visit.kind < 0 for visit in came[-_SET_UP_AT_ONCE:]) >= _SET_UP_AT_ONCE:
                    return
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
                owner = self._peers.owner(address[:2], self._own)
                if owner == NOBODY or (owner is None and _is_gone(plug)):
                    plug.close()  # else a flood of these would keep the command waiting
                    continue
                came.append(visit := _Visit(plug))
                visit.kind = self.strangers.come(visit, owner, time.monotonic())
        finally:
            for visit in came:
                if not visit.out:
                    self._begin(visit)

    def _begin(self, visit: _Visit) -> None:
        visit.plug.setblocking(False)
        visit.connection = self._make()
        self._visits[visit.connection] = visit
        visit.limit = self._loop.call_later(SECONDS, self._too_late, visit)
        self._start(self._set_up(visit))

    async def _set_up(self, visit: _Visit) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: visit.connection, visit.plug)
        except BaseException:
            visit.plug.close()
            self.known(visit.connection)
            raise

    def _too_late(self, visit: _Visit) -> None:
        self.known(visit.connection)
        visit.put_out()


class _Visit:
    """A stranger at the door. Most of a flood go before anything is made for them."""

    limit: asyncio.TimerHandle

    def __init__(self, plug: socket.socket) -> None:
        self.plug = plug
        self.kind = _UNKNOWN
        self.connection: Any = None
        self.out = False

    def put_out(self) -> None:
        """Of `Stranger`."""
        self.out = True
        if self.connection is None:
            self.plug.close()
        else:
            self.connection.put_out()


def _is_gone(plug: socket.socket) -> bool:
    """Whether the other side ended a connection without a word: the kernel may not tell (None also means that it
    cannot be asked)."""
    plug.setblocking(False)
    try:
        return not plug.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def files_allowed() -> int:
    """How many files this process may have open now."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return soft if soft != resource.RLIM_INFINITY else 1 << 20
    return 256
