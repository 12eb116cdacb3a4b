"""Unix sockets: an accept loop of our own before gRPC's.

gRPC does not say who is at the other end of a unix socket: each peer is `unix:`. So what senders connect to is ours:
the kernel tells the user of each connection (SO_PEERCRED), and its bytes are handed on to a socket of gRPC's in a
directory that nobody else may enter, from a socket with a name, which gRPC gives as the peer.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import selectors
import shutil
import socket
import struct
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from receiver.ingest.connections import Connection, to_end

MOST: Final = 256
"""Connections of one listener at once."""
_PIECE: Final = 256 << 10
_HELD: Final = 512 << 10  # bytes that wait for the other side; then no more are read
_LOOK_SECONDS: Final = 1.0
_BACK_OFF_SECONDS: Final = 0.1

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _End:
    """One side of a relayed connection."""

    socket: socket.socket
    waiting: bytearray = field(default_factory=bytearray)  # to be sent to it
    ended: bool = False  # it sends no more
    events: int = 0


@dataclass(slots=True, eq=False)
class _Relayed(Connection):
    ends: tuple[_End, _End] | None = None


class Relay:
    """The public socket of a listener, and the way from it to gRPC's. One thread for all of its connections."""

    def __init__(self, path: str, name_of: Callable[[int], str], ended: Callable[[str, int], None]) -> None:
        """`name_of(uid)` is the sender; `ended(sender, how many)` is told of connections that had to go.

        Raises:
            OSError: the path cannot be bound.
        """
        self._path = path
        self._name_of = name_of
        self._ended = ended
        self._directory = Path(tempfile.mkdtemp(prefix="k8s-trace-tui-"))  # 0700
        self.inner = str(self._directory / "g")
        """Where gRPC listens."""
        self._numbers = itertools.count(1)
        self._connections: dict[str, _Relayed] = {}
        self._selector = selectors.DefaultSelector()
        self._buffer = bytearray(_PIECE)
        self._stopping = False
        self._paused_until = 0.0
        self._wake, self._waker = socket.socketpair()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)  # the socket is 0600 from its first moment
        try:
            self._listener.bind(path)
            self._listener.listen(128)
            self._listener.setblocking(False)
        except OSError:
            self._listener.close()
            shutil.rmtree(self._directory, ignore_errors=True)
            raise
        finally:
            os.umask(before)
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run, name="unix relay", daemon=True)

    def start(self) -> None:
        """Begin to accept; gRPC listens already."""
        self._thread.start()

    def sender_of(self, peer: str) -> str:
        """Who is behind a peer, as gRPC names it (unquoted, without `unix:`); "" for nobody that came this way."""
        found = self._connections.get(peer)
        return found.sender if found is not None else ""

    def called(self, peer: str) -> None:
        """A connection began a call."""
        found = self._connections.get(peer)
        if found is not None:
            found.called = time.monotonic()

    def count(self) -> dict[str, int]:
        """Connections by sender."""
        return dict(Counter(one.sender for one in list(self._connections.values())))

    def close(self) -> None:
        """End everything, and take the files away."""
        self._stopping = True
        with suppress(OSError):
            self._waker.send(b"x")
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(5.0)
        shutil.rmtree(self._directory, ignore_errors=True)

    # -- the thread's own -----------------------------------------------------------------------------------
    def _run(self) -> None:
        looked = time.monotonic()
        try:
            while not self._stopping:
                try:
                    for key, events in self._selector.select(_LOOK_SECONDS):
                        self._serve(key, events)
                    now = time.monotonic()
                    if now - looked >= _LOOK_SECONDS:
                        looked = now
                        self._look(now)
                except Exception:  # noqa: BLE001 - without this thread the listener is silent
                    _log.exception("unix relay")
                    time.sleep(_BACK_OFF_SECONDS)
        finally:
            for one in list(self._connections.values()):
                self._drop(one)
            for part in (self._listener, self._wake, self._waker, self._selector):
                part.close()

    def _serve(self, key: selectors.SelectorKey, events: int) -> None:
        if key.fileobj is self._listener:
            self._accept()
        elif key.data is not None:
            try:
                self._move(key.data[0], key.data[1], events)
            except Exception:
                self._drop(key.data[0])  # or it fails again at once
                raise

    def _look(self, now: float) -> None:
        self._end(to_end(self._connections.values(), MOST, now))
        if self._paused_until and now >= self._paused_until:
            self._paused_until = 0.0
            self._selector.register(self._listener, selectors.EVENT_READ, None)

    def _end(self, gone: list[Connection]) -> None:
        counted: Counter[str] = Counter(one.sender for one in gone)
        for one in gone:
            assert isinstance(one, _Relayed)
            self._drop(one)
        for sender, count in counted.items():
            self._ended(sender, count)

    def _accept(self) -> None:
        try:
            outer, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if self._paused_until == 0.0 and not self._stopping:
                _log.warning("unix relay cannot accept: %s", error)
                self._selector.unregister(self._listener)
                self._paused_until = time.monotonic() + _BACK_OFF_SECONDS
            return
        try:
            sender = self._name_of(_peer_uid(outer))
            if len(self._connections) >= MOST:
                self._make_room(sender)
            inner = self._connect()
        except OSError as error:
            outer.close()
            if error.errno not in (errno.EAGAIN, errno.ECONNREFUSED):
                _log.warning("unix relay: %s", error)
            return
        except Exception:
            outer.close()
            raise
        peer = inner.getsockname()
        ends = _End(outer), _End(inner)
        one = _Relayed(sender, peer, time.monotonic(), ends=ends)
        self._connections[peer] = one
        for end in ends:
            end.socket.setblocking(False)
            end.events = selectors.EVENT_READ
            self._selector.register(end.socket, end.events, (one, end))

    def _make_room(self, sender: str) -> None:
        """End a connection of who has most, if that is not the one that comes.

        Raises:
            BlockingIOError: it is.
        """
        counted = self.count()
        if counted.get(sender, 0) >= max(counted.values()):
            self._ended(sender, 1)
            raise BlockingIOError(errno.EAGAIN, "it has its share")
        self._end(to_end(self._connections.values(), MOST - 1, time.monotonic()))

    def _connect(self) -> socket.socket:
        """A way to gRPC from a socket with a name."""
        inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        name = str(self._directory / f"{next(self._numbers)}")
        try:
            inner.bind(name)
            os.unlink(name)  # it keeps the name
            inner.settimeout(2.0)
            inner.connect(self.inner)
        except OSError:
            inner.close()
            raise
        return inner

    def _move(self, one: _Relayed, end: _End, events: int) -> None:
        if one.ends is None:
            return  # ended while this was waiting
        other = one.ends[1] if end is one.ends[0] else one.ends[0]
        try:
            if events & selectors.EVENT_WRITE:
                self._send(end)
            if events & selectors.EVENT_READ:
                count = end.socket.recv_into(self._buffer)
                if not count:
                    end.ended = True
                elif other.waiting:
                    other.waiting += memoryview(self._buffer)[:count]
                else:
                    self._send(other, memoryview(self._buffer)[:count])
        except BlockingIOError:
            pass
        except OSError:
            self._drop(one)
            return
        if end.ended and not other.waiting:
            with suppress(OSError):
                other.socket.shutdown(socket.SHUT_WR)
        if all(part.ended for part in one.ends) and not any(part.waiting for part in one.ends):
            self._drop(one)
            return
        self._watch(one)

    def _send(self, end: _End, data: memoryview | None = None) -> None:
        """What waits for it, or if nothing does, this; what it does not take waits."""
        try:
            if data is None:
                del end.waiting[: end.socket.send(end.waiting)]
            else:
                sent = end.socket.send(data)
                end.waiting += data[sent:]
        except BlockingIOError:
            if data is not None:
                end.waiting += data

    def _watch(self, one: _Relayed) -> None:
        assert one.ends is not None
        for end, other in (one.ends, one.ends[::-1]):
            events = selectors.EVENT_WRITE if end.waiting else 0
            if not end.ended and len(other.waiting) < _HELD:
                events |= selectors.EVENT_READ
            if events == end.events:
                continue
            if not events:
                self._selector.unregister(end.socket)
            elif not end.events:
                self._selector.register(end.socket, events, (one, end))
            else:
                self._selector.modify(end.socket, events, (one, end))
            end.events = events

    def _drop(self, one: _Relayed) -> None:
        self._connections.pop(one.peer, None)
        ends, one.ends = one.ends, None
        for end in ends or ():
            if end.events:
                self._selector.unregister(end.socket)
            end.socket.close()


def _peer_uid(connection: socket.socket) -> int:
    """The user at the other end; without SO_PEERCRED all are this one."""
    if not hasattr(socket, "SO_PEERCRED"):
        return os.getuid()
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)
