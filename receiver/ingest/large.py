"""Large requests are decoded in a process of their own.

To parse one is a single call into C that holds Python's lock: a quarter of a second for 130,000 spans, in which no
other request would go on. The other process is started by the first large request, answers one at a time and is ended
when none came for a while. Its memory goes with it.
"""

from __future__ import annotations

import logging
import marshal
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import Any, Final

import numpy as np

from receiver.ingest.decode import Decoded, Malformed, decode
from receiver.store.chunk import FACT, SPAN, Chunk, Resource

LARGE: Final = 512 << 10
"""Bytes from which on a request is large: decoding less takes some 20 ms at a time."""
_SECONDS: Final = 30.0
"""What takes longer than this to decode is given up."""
_IDLE_SECONDS: Final = 60.0
_QUESTION: Final = struct.Struct("=QQIII")  # received, bytes of body, source, peer, sender
_ANSWER: Final = struct.Struct("=BIIQQQQ")  # kind, rejected, bytes of reason, names, spans, facts, body
_EMPTY, _CHUNK, _MALFORMED, _DEFECT = range(4)
_START: Final = "import sys; sys.path[:] = sys.argv[1:]; from receiver.ingest.large import serve; serve()"

_log = logging.getLogger(__name__)


class Gone(Exception):
    """The other process ended over a request, or took too long."""


class LargeRequests:
    """The other process, seen from this one. For several threads, which are served one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._used = 0.0
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Its process id, None while there is none."""
        process = self._process
        return process.pid if process is not None else None

    def decode(self, body: bytes, *, source: str, peer: str, received: int, sender: str) -> Decoded:
        """As `decode`.

        Raises:
            Malformed: as `decode`.
            Gone: the request was not decoded; it may be tried again.
        """
        with self._lock:
            if self._socket is None and not self._start():
                return decode(body, source=source, peer=peer, received=received, sender=sender)
            try:
                return self._ask(body, source, peer, received, sender)
            except (OSError, struct.error, ValueError, EOFError) as error:
                pid = self.pid
                self._end()
                if self._closed:  # by `close`, which is no fault of the request
                    raise Gone from error
                _log.error("a request of %d bytes ended the decoding process %s: %s", len(body), pid, error)
                raise Gone from error
            finally:
                self._used = time.monotonic()

    def rest(self) -> None:
        """End it when it was not needed for a while. Called now and then."""
        if self._process is not None and self._lock.acquire(blocking=False):
            try:
                if time.monotonic() - self._used > _IDLE_SECONDS:
                    self._end()
            finally:
                self._lock.release()

    def close(self) -> None:
        """End it, whatever it does."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()  # whoever waits for it hears that it is gone
        with self._lock:
            self._end()

    def _start(self) -> bool:
        if self._closed:
            raise Gone
        ours, its = socket.socketpair()
        paths = [os.path.abspath(one) for one in sys.path]
        surroundings = {**os.environ, "MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _START, *paths],
                stdin=its.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", env=surroundings,
            )  # fmt: skip
        except OSError as error:
            _log.warning("large requests are decoded in the receiver's own process: %s", error)
            ours.close()
            return False
        finally:
            its.close()
        ours.settimeout(_SECONDS)
        self._socket = ours
        return True

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._socket = self._process = None

    def _ask(self, body: bytes, source: str, peer: str, received: int, sender: str) -> Decoded:
        assert self._socket is not None
        words = [text.encode("utf-8", "replace") for text in (source, peer, sender)]
        self._socket.sendall(_QUESTION.pack(received, len(body), *map(len, words)) + b"".join(words))
        self._socket.sendall(body)
        head = _read(self._socket, _ANSWER.size)
        kind, rejected, *sizes = _ANSWER.unpack(head)
        reason, names, spans, facts, packed = (_read(self._socket, size) for size in sizes)
        said = reason.decode("utf-8", "replace")
        if kind == _MALFORMED:
            raise Malformed(said)
        if kind == _DEFECT:
            raise ValueError(said)
        if kind == _EMPTY:
            return Decoded(None, rejected, said)
        strings, resources = marshal.loads(names)
        chunk = Chunk(
            0, source, peer, received, strings, [Resource(*pair) for pair in resources],
            np.frombuffer(spans, SPAN), np.frombuffer(facts, FACT), bytes(packed), sender,
        )  # fmt: skip
        return Decoded(chunk, rejected, said)


def _read(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while len(view):
        count = connection.recv_into(view)
        if not count:
            raise EOFError("it ended")
        view = view[count:]
    return data


# --- the other process -----------------------------------------------------------------------------
def serve() -> None:
    """The other process's own: answers until the connection at standard input ends."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # it ends when the receiver does, which finishes first
        signal.signal(one, signal.SIG_IGN)
    with socket.socket(fileno=os.dup(0)) as connection:
        try:
            while True:
                for part in _answer(connection):
                    connection.sendall(part)
        except (EOFError, OSError):
            return


def _answer(connection: socket.socket) -> list[Any]:
    received, size, *lengths = _QUESTION.unpack(_read(connection, _QUESTION.size))
    source, peer, sender = (_read(connection, length).decode() for length in lengths)
    body = bytes(_read(connection, size))
    try:
        decoded = decode(body, source=source, peer=peer, received=received, sender=sender)
    except Malformed as error:
        said = str(error).encode()
        return [_ANSWER.pack(_MALFORMED, 0, len(said), 0, 0, 0, 0), said]
    except Exception as error:  # noqa: BLE001 - the receiver has a log
        said = f"{type(error).__name__}: {error}".encode("utf-8", "replace")[:1024]
        return [_ANSWER.pack(_DEFECT, 0, len(said), 0, 0, 0, 0), said]
    said, chunk = decoded.reason.encode(), decoded.chunk
    if chunk is None:
        return [_ANSWER.pack(_EMPTY, decoded.rejected, len(said), 0, 0, 0, 0), said]
    names = marshal.dumps((chunk.strings, [(one.service, one.instance) for one in chunk.resources]))
    spans, facts = chunk.spans.tobytes(), chunk.facts.tobytes()
    parts = (said, names, spans, facts, chunk.body)
    return [_ANSWER.pack(_CHUNK, decoded.rejected, *map(len, parts)), *parts]
