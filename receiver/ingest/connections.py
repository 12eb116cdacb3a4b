"""Connections: how many each sender has, and whose are ended when there are too many.

gRPC opens whatever comes until the process has no file left, and knows no connection by its sender. So this looks
from outside, now and then: which of this process's sockets belong to its listeners, who is at their other end, and
when they last made a call. It costs nothing per request and per byte.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

MOST: Final = 1_024
"""Connections in all; where fewer files may be open, half of these."""
FEW: Final = 16
"""So many a sender may leave open without a call for as long as it likes."""
SILENT_SECONDS: Final = 30.0
"""A connection beyond these that made no call for so long after it came is ended."""
IDLE_SECONDS: Final = 600.0
"""... and one that made none for so long."""
_LOOK_SECONDS: Final = 1.0
_SELF: Final = "/proc/self/fd"
_LOOKS: Final = sys.platform == "linux"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Connection:
    """One that a sender opened."""

    sender: str
    peer: str
    since: float  # monotonic; when it was first seen
    called: float = 0.0  # monotonic; when its last call began, 0: it made none
    busy: bool = False


def to_end(connections: Iterable[Connection], most: int, now: float) -> list[Connection]:
    """Which connections are ended: those that beyond a few of a sender's do nothing, and while there are more than
    `most`, of who has most: first those that never made a call, then those whose last is longest ago. One with a call
    under way goes last."""
    by_sender: dict[str, list[Connection]] = {}
    for one in connections:
        by_sender.setdefault(one.sender, []).append(one)
    ended: list[Connection] = []
    for held in by_sender.values():
        held.sort(key=lambda one: (one.busy, one.called, one.since), reverse=True)  # the last is the first to go
        useless = [
            one
            for one in held
            if not one.busy and now - (one.called or one.since) > (IDLE_SECONDS if one.called else SILENT_SECONDS)
        ]
        gone = set(map(id, useless[max(0, FEW - len(held) + len(useless)) :]))
        ended += [one for one in held if id(one) in gone]
        held[:] = [one for one in held if id(one) not in gone]
    over = sum(map(len, by_sender.values())) - most
    while over > 0:
        greediest = max(by_sender.values(), key=len)
        ended.append(greediest.pop())
        over -= 1
    return ended


class Connections(threading.Thread):
    """Looks once a second, and ends what is too much.

    `sender_of(peer, local)` names who is at the other end, both as (address, port); `every` is called at each look, for
    what else is to be done now and then.
    """

    def __init__(
        self,
        sender_of: Callable[[tuple[str, int], tuple[str, int]], str],
        ended: Callable[[str, int], None],
        every: Callable[[], None],
        *,
        most: int | None = None,
    ) -> None:
        """`ended(sender, how many)` is told of each that had to go."""
        super().__init__(name="connections", daemon=True)
        self.most = most if most is not None else min(MOST, files_allowed() // 2)
        self._sender_of = sender_of
        self._ended = ended
        self._every = every
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._ports: Counter[int] = Counter()
        self._known: dict[tuple[int, str], Connection | None] = {}
        self._calls: dict[str, tuple[float, int, str]] = {}
        self._count: Counter[str] = Counter()

    # -- what others tell it ------------------------------------------------------------------------------
    def listens(self, port: int, more: int = 1) -> None:
        """A listener at this port came, or went (-1)."""
        with self._lock:
            self._ports[port] += more
            self._known.clear()

    def call(self, peer: str, sender: str) -> None:
        """A connection of this sender's began a call."""
        if not _LOOKS:
            return
        with self._lock:
            known = self._calls.get(peer)
            self._calls[peer] = time.monotonic(), known[1] + 1 if known else 1, sender

    def call_ended(self, peer: str) -> None:
        """... and ended it."""
        if not _LOOKS:
            return
        with self._lock:
            known = self._calls.get(peer)
            if known is not None:
                self._calls[peer] = known[0], known[1] - 1, known[2]

    def count(self) -> dict[str, int]:
        """How many connections each sender had when it was last looked."""
        return dict(self._count)

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()

    # -- looking --------------------------------------------------------------------------------------------
    def run(self) -> None:
        """The thread's own."""
        while not self._stopping.wait(_LOOK_SECONDS):
            try:
                self._every()
                self.look()
            except OSError as error:
                _log.debug("connections: %s", error)
            except Exception:  # noqa: BLE001 - without this thread one sender may take all files
                _log.exception("connections")
                self._stopping.wait(10.0)

    def look(self) -> None:
        """Look once, and end what is too much."""
        if not _LOOKS:
            return
        open_ones = self._open()
        now = time.monotonic()
        with self._lock:
            calls = dict(self._calls)
            there = {one.peer for one in open_ones.values()}
            for peer, (_, under_way, _) in calls.items():
                if peer not in there and under_way <= 0:
                    del self._calls[peer]
        for one in open_ones.values():
            called, under_way, sender = calls.get(one.peer, (0.0, 0, one.sender))
            if under_way > 0 or called >= one.since - 2 * _LOOK_SECONDS:  # not of one before it on the same port
                one.called, one.busy, one.sender = called, under_way > 0, sender
        self._count = Counter(one.sender for one in open_ones.values())
        gone = to_end(open_ones.values(), self.most, now)
        if not gone:
            return
        handles = {id(one): handle for (handle, _), one in open_ones.items()}
        ended: Counter[str] = Counter()
        for one in gone:
            if _shut(handles[id(one)], one.peer):
                ended[one.sender] += 1
        for sender, count in ended.items():
            self._ended(sender, count)

    def _open(self) -> dict[tuple[int, str], Connection]:
        """The connections of our listeners, by file and what is behind it."""
        with self._lock:
            ports = set(+self._ports)
        found: dict[tuple[int, str], Connection | None] = {}
        for name in os.listdir(_SELF) if ports else ():
            try:
                target = os.readlink(f"{_SELF}/{name}")
            except OSError:
                continue  # closed meanwhile
            if target.startswith("socket:"):
                key = int(name), target
                found[key] = self._known[key] if key in self._known else self._meet(int(name), ports)
        self._known = found
        return {key: one for key, one in found.items() if one is not None}

    def _meet(self, handle: int, ports: set[int]) -> Connection | None:
        """A connection that was not seen before; None where a socket is something else."""
        with suppress(OSError), _copy(handle) as connection:
            if connection.family not in (socket.AF_INET, socket.AF_INET6):
                return None
            here = connection.getsockname()[:2]
            if here[1] not in ports:
                return None
            there = connection.getpeername()[:2]  # an error for the listener itself
            return Connection(self._sender_of(there, here), pair_text(there), time.monotonic())
        return None


def pair_text(pair: tuple[str, int]) -> str:
    """An address and port as gRPC names a peer, unquoted: `[::1]:4317`."""
    host, port = pair
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _copy(handle: int) -> socket.socket:
    """The same socket under a number of our own: gRPC may close its own at any moment, and the number may then be
    something else's."""
    return socket.socket(fileno=os.dup(handle))


def _shut(handle: int, peer: str) -> bool:
    """End a connection as if the other side had."""
    with suppress(OSError), _copy(handle) as connection:
        if pair_text(connection.getpeername()[:2]) == peer:
            connection.shutdown(socket.SHUT_RDWR)
            return True
    return False


def files_allowed() -> int:
    """How many files this process may have open."""
    try:
        import resource
    except ImportError:
        return 256
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def allow_files(most: int = 65_536) -> None:
    """Raise the number of files this process may have open as far as it may itself."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
