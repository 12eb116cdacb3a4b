"""HTTP/2 (RFC 9113) by hand: what a client may send that no library would."""

from __future__ import annotations

import socket
from typing import Final

METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0)
HEADERS: Final = b"".join(
    b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value
    for name, value in (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", METHOD.encode()),
        (b":authority", b"x"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )
)
"""An export's, HPACK without a table."""


def headers(stream: int, flags: int = 0) -> bytes:
    """Of a call."""
    return frame(1, END_HEADERS | flags, stream, HEADERS)


def message(stream: int, body: bytes) -> bytes:
    """All of a call's."""
    return frame(0, END_STREAM, stream, b"\0" + len(body).to_bytes(4, "big") + body)


def begun(stream: int, size: int = 100) -> bytes:
    """A call whose message is only begun."""
    return headers(stream) + frame(0, 0, stream, b"\0" + size.to_bytes(4, "big"))


def reset(stream: int) -> bytes:
    """The call is taken back."""
    return frame(3, 0, stream, (8).to_bytes(4, "big"))


def connect(address: str, sent: bytes = PREFACE) -> socket.socket:
    """A connection to HOST:PORT or unix:/path that sent this."""
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(address[5:])
    else:
        host, _, port = address.rpartition(":")
        connection = socket.create_connection((host.strip("[]"), int(port)), 20)
    connection.sendall(sent)
    return connection


class Answers:
    """What a server sent on a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    def frames(self, timeout: float = 20.0) -> list[tuple[int, int, int]]:
        """Type, flags and stream of each that comes next, at least one; empty when the connection ended."""
        self._connection.settimeout(timeout)
        found: list[tuple[int, int, int]] = []
        while not found:
            try:
                data = self._connection.recv(1 << 16)
            except ConnectionResetError:
                return []
            if not data:
                return []
            self._buffer += data
            while len(self._buffer) >= 9 and len(self._buffer) >= 9 + int.from_bytes(self._buffer[:3], "big"):
                length = int.from_bytes(self._buffer[:3], "big")
                found.append((self._buffer[3], self._buffer[4], int.from_bytes(self._buffer[5:9], "big")))
                if self._buffer[3] == 4 and not self._buffer[4] & ACK:
                    self._connection.sendall(frame(4, ACK, 0))
                self._buffer = self._buffer[9 + length :]
        return found

    def ended(self, count: int) -> list[int]:
        """The streams that end next, so many."""
        streams: list[int] = []
        while len(streams) < count:
            frames = self.frames()
            assert frames, f"the connection ended after {streams}"
            streams += [stream for kind, flags, stream in frames if kind == 3 or (kind < 2 and flags & END_STREAM)]
        return list(dict.fromkeys(streams))
