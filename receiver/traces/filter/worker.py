"""A process that reads attributes for a `scan.Scan`, so that the interpreter that draws the screen is not held.

Bodies come as they are stored, on standard input; answers go to standard output. It ends with its input.

    input    one line of JSON: the attributes; then batches: number of requests, and for each id, length, body
    output   for each batch: for each request its spans that were counted, and a byte a span for each attribute
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
from collections.abc import Sequence
from typing import IO, Final

from receiver.store.compression import unpack
from receiver.traces.filter.attributes import Attribute, Reader

COUNT: Final = struct.Struct("<I")
HEAD: Final = struct.Struct("<QI")


def asking(attributes: Sequence[Attribute]) -> bytes:
    """The first line."""
    fields = [[one.name, one.keys, one.op, one.values, one.size, one.code] for one in attributes]
    return json.dumps(fields).encode() + b"\n"


def batch(bodies: dict[int, bytes]) -> bytes:
    """Requests to be read, at once."""
    parts = [COUNT.pack(len(bodies))]
    for number, body in bodies.items():
        parts += (HEAD.pack(number, len(body)), body)
    return b"".join(parts)


def read_body(reader: Reader, body: bytes) -> list[bytes]:
    """`Reader.read` of a stored request; nothing is in one that cannot be unpacked."""
    try:
        return reader.read(unpack(body))
    except ValueError:
        return []


def answers(stream: IO[bytes], requests: int) -> dict[int, list[bytes]]:
    """The answer to a batch, by id.

    Raises:
        EOFError: there is none, the process ended.
    """
    found: dict[int, list[bytes]] = {}
    for _ in range(requests):
        number, masks = HEAD.unpack(_exactly(stream, HEAD.size))
        found[number] = [_exactly(stream, COUNT.unpack(_exactly(stream, COUNT.size))[0]) for _ in range(masks)]
    return found


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count) if count else b""
    if len(data) != count:
        raise EOFError
    return data


def serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """Answer until the input ends."""
    asked = json.loads(source.readline())
    reader = Reader([Attribute(name, tuple(k), op, tuple(v), size, code) for name, k, op, v, size, code in asked])
    while head := source.read(COUNT.size):
        requests = [
            (number, _exactly(source, size))
            for number, size in (HEAD.unpack(_exactly(source, HEAD.size)) for _ in range(COUNT.unpack(head)[0]))
        ]
        parts: list[bytes] = []
        for number, body in requests:
            masks = read_body(reader, body)
            parts.append(HEAD.pack(number, len(masks)))
            for mask in masks:
                parts += (COUNT.pack(len(mask)), mask)
        sink.write(b"".join(parts))
        sink.flush()


def main() -> None:
    """The process."""
    with contextlib.suppress(OSError):
        os.nice(10)  # the screen goes first
    with contextlib.suppress(BrokenPipeError, EOFError, KeyboardInterrupt):
        serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
