"""HTTP/2 frames (RFC 9113) of one connection, read by their headers alone: which streams begin, and which end.

A frame's header is nine octets (section 4.1); of its payload nothing is looked at, so no HPACK state is kept and none
can be hurt. What comes in may be cut anywhere. Octets are handed on in the order in which they came, always: the
headers of a request that has no data yet wait, with all that came after them, until some data did.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first (section 3.4)."""
MOST_KEPT: Final = 16 << 10
"""Octets that wait for a request's data at most; then they are handed on without."""
_MOST_HEADERS: Final = 64 << 10  # octets of a request's
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
END_STREAM: Final = 0x1
_END_HEADERS: Final = 0x4
_HEADER: Final = struct.Struct("!IBI")  # length (24 bits) and type, flags, stream
_STREAM_BITS: Final = 0x7FFFFFFF
_OF_THE_CONNECTION: Final = frozenset((SETTINGS, PING, GOAWAY))
_SIZES: Final = {RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}


class FramingError(Exception):
    """A client sent what is no HTTP/2; str() says what."""


class RequestFrames:
    """What a client sends.

    `streams` are those that were handed on and have not ended, each with whether it brought data; whoever sees one end
    takes it out. `answered` are those that have an answer which has not ended, the oldest first; whoever sees it begin
    puts it in. `frames` counts what was handed on except data: each costs the server about as much. `reset` are
    streams that the client took back before there was an answer; whoever reads it empties it.
    """

    __slots__ = ("_admit", "_block", "_cleared", "_continued", "_last", "_left", "_looked", "_prefaced",
                 "answered", "empty", "frames", "full", "reset", "streams")  # fmt: skip

    def __init__(self, admit: Callable[[], bool]) -> None:
        """`admit()` is asked for each stream before it is handed on."""
        self._admit = admit
        self._prefaced = False
        self._left = 0  # octets of the present frame's payload that have not come yet
        self._continued = 0  # the stream whose headers go on in the next frame
        self._block = 0  # octets of these headers so far
        self._last = 0  # the newest stream
        self._looked = 0  # up to here, from the first octet that waits, there is no data
        self._cleared = 0  # headers before this need not wait for any
        self.streams: dict[int, bool] = {}
        self.answered: dict[int, None] = {}
        self.frames = 0
        self.reset: list[int] = []
        self.full = False  # after `take`: a stream waits to be admitted
        self.empty = False  # after `take`: a stream waits for its data

    @staticmethod
    def begins(data: memoryview) -> bool:
        """Whether the preface is here.

        Raises:
            FramingError: something else is.
        """
        if data[: len(PREFACE)] != PREFACE[: len(data)]:
            raise FramingError("no HTTP/2")
        return len(data) >= len(PREFACE)

    def take(self, data: memoryview) -> int:
        """How many of these octets may be handed on; the others must come again, first, with those that follow.

        Raises:
            FramingError: the connection is of no use any more.
        """
        size, at = len(data), self._left
        if at >= size:
            self._left -= size
            return size
        self._left = 0
        self.full = self.empty = False
        if not self._prefaced:
            if not self.begins(data):
                return 0
            self._prefaced, at = True, len(PREFACE)
        while size - at >= 9:
            word, flags, stream = _HEADER.unpack_from(data, at)
            length, kind = word >> 8, word & 0xFF
            stream &= _STREAM_BITS
            end = at + 9 + length
            if kind == DATA and not self._continued:
                if length and stream in self.streams:
                    self.streams[stream] = True
                elif not length:
                    self.frames += 1
                if not stream:
                    raise FramingError("data of no stream")
            else:
                self._check(kind, stream, length)
                if kind == HEADERS:
                    if stream > self._last:
                        if not (flags & END_STREAM or at < self._cleared or self._data_follows(data, end)):
                            self.empty = True
                            break
                        if not self._admit():
                            self.full = True
                            break
                        self._last = stream
                        self.streams[stream] = False
                    self._block = 0
                if kind in (HEADERS, CONTINUATION):
                    self._continued = 0 if flags & _END_HEADERS else stream
                    self._block += length
                    if self._block > _MOST_HEADERS:
                        raise FramingError("headers without end")
                elif kind == RST_STREAM:
                    self.answered.pop(stream, None)
                    if stream in self.streams:
                        del self.streams[stream]
                        self.reset.append(stream)
                self.frames += 1
            if end > size:
                self._left, at = end - size, size
                break
            at = end
        waits = at < size
        self._looked = max(0, self._looked - at) if waits else 0
        self._cleared = max(0, self._cleared - at) if waits else 0
        return at

    def _check(self, kind: int, stream: int, length: int) -> None:
        if self._continued and (kind, stream) != (CONTINUATION, self._continued):
            raise FramingError("another frame among headers")  # section 6.10
        if kind in _OF_THE_CONNECTION:
            wrong = stream != 0 or (kind == SETTINGS and length % 6 != 0)
        elif kind == HEADERS:
            wrong = not stream & 1 or length > _MOST_HEADERS
        elif kind == CONTINUATION:
            wrong = not self._continued or length > _MOST_HEADERS
        else:
            wrong = kind == PUSH_PROMISE or (kind == RST_STREAM and not stream)
        if wrong or length != _SIZES.get(kind, length):
            raise FramingError(f"a frame of type {kind} that cannot be")

    def _data_follows(self, data: memoryview, at: int) -> bool:
        """Whether data of any stream, or a stream's end, comes after this: then all headers before it are handed on,
        for its sake or because nothing else would bring them."""
        first, at, size = at, max(at, self._looked), len(data)
        while size - at >= 9:
            word, flags, _ = _HEADER.unpack_from(data, at)
            length, kind = word >> 8, word & 0xFF
            if kind == RST_STREAM or (kind <= HEADERS and flags & END_STREAM) or (kind == DATA and length):
                self._cleared = at + 1
                return True
            at += 9 + length
        self._looked = at
        if size - first < MOST_KEPT:
            return False
        self._cleared = size
        return True


class ResponseFrames:
    """What a server sends; it is believed to be well-formed.

    `answers` are streams whose answer begins, and does not end with its headers; whoever reads it empties it.
    """

    __slots__ = ("_begun", "_left", "answers")

    def __init__(self) -> None:
        self.answers: list[int] = []
        self._left = 0
        self._begun = b""  # of a header

    def take(self, data: memoryview) -> list[int]:
        """The streams that end with these octets, of which all are handed on."""
        size, at = len(data), self._left
        ended: list[int] = []
        if self._begun:
            missing = 9 - len(self._begun)
            self._begun += data[:missing]
            if len(self._begun) < 9:
                return ended
            at = missing + self._frame(_HEADER.unpack(self._begun), ended)
            self._begun = b""
        while size - at >= 9:
            at += 9 + self._frame(_HEADER.unpack_from(data, at), ended)
        if at < size:
            self._begun, self._left = bytes(data[at:]), 0
        else:
            self._left = at - size
        return ended

    def _frame(self, header: tuple[int, int, int], ended: list[int]) -> int:
        """Octets of payload."""
        word, flags, stream = header
        kind = word & 0xFF
        if kind == RST_STREAM or (kind <= HEADERS and flags & END_STREAM):
            ended.append(stream & _STREAM_BITS)
        elif kind == HEADERS:
            self.answers.append(stream & _STREAM_BITS)
        return word >> 8
