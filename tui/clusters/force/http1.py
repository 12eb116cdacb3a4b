"""HTTP/1.1 heads and bodies (RFC 9112), strictly: what could be understood in two ways is refused, never guessed.

Bodies are not rewritten: a body only tells how many of the next bytes still belong to it, so that these go on as they
came, chunk sizes, extensions and trailers with them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Protocol

HEAD_BYTES: Final = 64 << 10
"""Of a head, and of all trailers of a body."""
_SIZE_LINE_BYTES: Final = 4 << 10
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]*"
_REQUEST: Final = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])\r\n")
_STATUS: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: (" + _VALUE + rb"))?\r\n")
_FIELD: Final = re.compile(rb"(" + _TOKEN + rb"):(" + _VALUE + rb")\r\n")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;" + _VALUE + rb")?\r\n")
_NO_TRAILERS: Final = frozenset(
    b"content-length transfer-encoding host connection upgrade te trailer expect authorization proxy-authorization"
    b" traceparent tracestate audit-id".split()
)

_OF_A_CONNECTION: Final = frozenset(
    b"close keep-alive upgrade te trailer transfer-encoding http2-settings proxy-connection proxy-authenticate"
    b" proxy-authorization".split()
)
_IDENTITY: Final = (b"impersonate-", b"x-remote-", b"x-forwarded-")

Field = tuple[bytes, bytes, bytes]
"""Name, name in lower case, value without the spaces around it."""


class Malformed(Exception):
    """Not HTTP/1.1, or not so that it means one thing only. `status` is what a server answers with."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(slots=True)
class Request:
    """A request's head."""

    method: bytes
    target: bytes
    """Begins with a slash."""
    old: bool
    """HTTP/1.0: no chunks, no second request, no interim answers."""
    fields: list[Field]
    connection: frozenset[bytes]
    """What `Connection` names, in lower case."""
    length: int | None
    """Of the body; None: in chunks."""

    def first(self, name: bytes) -> bytes | None:
        """The value of the first field of that (lower-case) name."""
        return next((value for _, lower, value in self.fields if lower == name), None)


@dataclass(slots=True)
class Response:
    """A response's head."""

    code: int
    reason: bytes
    old: bool
    fields: list[Field]
    connection: frozenset[bytes]
    chunked: bool
    length: int | None
    """As said by Content-Length; None where it is not."""


def head_end(buffer: bytes | bytearray) -> int:
    """Where a head ends, with its empty line; -1 where it has not yet.

    Raises:
        Malformed: it is too large, or a line of it ends with a line feed alone.
    """
    end = buffer.find(b"\r\n\r\n", 0, HEAD_BYTES + 4)
    if end >= 0:
        return end + 4
    if len(buffer) >= HEAD_BYTES:
        raise Malformed(f"The head is larger than {HEAD_BYTES >> 10} KiB.", 431)
    if buffer.count(b"\n") != buffer.count(b"\r\n"):
        raise Malformed("A line of the head ends without a carriage return.")
    return -1


def read_request(head: bytes) -> Request:
    """A request's head, from its first byte to its empty line.

    Raises:
        Malformed: it is refused.
    """
    line = _REQUEST.match(head)
    if line is None:
        raise Malformed("The first line is none of an HTTP/1.1 request.")
    method, target, minor = line.groups()
    if not target.startswith(b"/"):
        raise Malformed("The request's target is no path.")
    fields = _fields(head, line.end())
    old = minor == b"0"
    chunked, length = _framing(fields, old=old)
    if not old and sum(lower == b"host" for _, lower, _ in fields) != 1:
        raise Malformed("A request has exactly one Host.")
    connection = _connection(fields)
    for name, lower, _ in fields:
        # RFC 9110, 7.6.1 has it taken out, so that whoever names Impersonate-User there is somebody else afterwards;
        # no client of the API names what is not of the connection
        if lower in connection and lower not in _OF_A_CONNECTION:
            raise Malformed(f"The field {name.decode()[:64]} is named in Connection, and is for the API server.")
    users = [value for _, lower, value in fields if lower == b"impersonate-user"]
    impersonates = any(lower.startswith(b"impersonate-") for _, lower, _ in fields)
    if impersonates and (len(users) != 1 or not users[0]):
        # of such fields the API server makes nobody: the context's own impersonation must not go for them
        raise Malformed("Fields of impersonation need one Impersonate-User that is not empty.")
    return Request(method, target, old, fields, connection, None if chunked else length or 0)


def read_response(head: bytes) -> Response:
    """A response's head, from its first byte to its empty line.

    Raises:
        Malformed: it is refused.
    """
    line = _STATUS.match(head)
    if line is None:
        raise Malformed("The first line is none of an HTTP/1.1 response.")
    minor, code, reason = line.groups()
    fields = _fields(head, line.end())
    old = minor == b"0"
    chunked, length = _framing(fields, old=old)
    return Response(int(code), reason or b"", old, fields, _connection(fields), chunked, length)


def _fields(head: bytes, at: int) -> list[Field]:
    end = len(head) - 2
    found: list[Field] = []
    while at < end:
        line = _FIELD.match(head, at)
        if line is None:
            raise Malformed("A line of the head is no header field.")
        name, value = line.groups()
        found.append((name, name.lower(), value.strip(b" \t")))
        at = line.end()
    return found


def _framing(fields: list[Field], *, old: bool) -> tuple[bool, int | None]:
    lengths = [value for _, lower, value in fields if lower == b"content-length"]
    codings = [value for _, lower, value in fields if lower == b"transfer-encoding"]
    if codings:
        if lengths:
            raise Malformed("Both a length and a transfer coding are given.")
        if old or len(codings) > 1 or codings[0].lower() != b"chunked":
            raise Malformed("The transfer coding is not `chunked` alone.", 501)
        return True, None
    if not lengths:
        return False, None
    if len(lengths) > 1 or not _DIGITS.fullmatch(lengths[0]):
        raise Malformed("The length of the body is not one number.")
    return False, int(lengths[0])


def _connection(fields: list[Field]) -> frozenset[bytes]:
    return frozenset(
        word.strip(b" \t").lower() for _, lower, value in fields if lower == b"connection" for word in value.split(b",")
    )


class Body(Protocol):
    """What of a connection's bytes belongs to a body."""

    done: bool
    taken: int
    """Bytes of the body so far, without what frames them."""

    def feed(self, data: bytes, out: list[bytes] | None = None) -> int:
        """How many of the next bytes belong to the body; with `out`, the body's own bytes are added there.

        Raises:
            Malformed: its framing is wrong.
        """


class Sized:
    """A body of a known length."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.taken = 0
        self.done = length == 0

    def feed(self, data: bytes, out: list[bytes] | None = None) -> int:
        """See `Body`."""
        used = min(self._left, len(data))
        self._left -= used
        self.taken += used
        self.done = self._left == 0
        if out is not None and used:
            out.append(data[:used])
        return used


class UntilEnd:
    """A body that ends with the connection."""

    def __init__(self) -> None:
        self.taken = 0
        self.done = False

    def feed(self, data: bytes, out: list[bytes] | None = None) -> int:
        """See `Body`."""
        self.taken += len(data)
        if out is not None:
            out.append(data)
        return len(data)


class Chunked:
    """A body in chunks. Trailers are checked and stay part of it."""

    def __init__(self) -> None:
        self.taken = 0
        self.done = False
        self._left = 0  # of the current chunk and the line end behind it
        self._line = b""  # the part of a line that has come
        self._trailers = -1  # bytes of them; -1: not there yet

    def feed(self, data: bytes, out: list[bytes] | None = None) -> int:
        """See `Body`."""
        at, size = 0, len(data)
        while at < size and not self.done:
            if self._left > 2:
                used = min(self._left - 2, size - at)
                if out is not None:
                    out.append(data[at : at + used])
                self._left -= used
                self.taken += used
                at += used
            elif self._left:
                if data[at] != b"\r\n"[2 - self._left]:
                    raise Malformed("A chunk of the body is longer than it says.")
                self._left -= 1
                at += 1
            else:
                at = self._read_line(data, at)
        return at

    def _read_line(self, data: bytes, at: int) -> int:
        most = _SIZE_LINE_BYTES if self._trailers < 0 else HEAD_BYTES - self._trailers
        end = data.find(b"\n", at, at + most)
        piece = data[at : end + 1 if end >= 0 else at + most]
        line = self._line + piece
        if len(line) > most or (end < 0 and len(line) == most):
            raise Malformed("A line between the chunks of the body is too long.", 431)
        if end < 0:
            self._line = line
            return at + len(piece)
        self._line = b""
        if self._trailers < 0:
            found = _SIZE.fullmatch(line)
            if found is None:
                raise Malformed("The size of a chunk is no number.")
            length = int(found[1], 16)
            if length:
                self._left = length + 2
            else:
                self._trailers = 0
        elif line == b"\r\n":
            self.done = True
        else:
            self._trailers += len(line)
            field = _FIELD.fullmatch(line)
            lower = field[1].lower() if field is not None else b""
            if field is None or lower in _NO_TRAILERS or lower.startswith(_IDENTITY):
                raise Malformed("What follows the body's chunks is no trailer field.")
        return end + 1
