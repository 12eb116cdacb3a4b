"""What a recording is packed in: gzip, zstd, UTF-16, lengths in front of messages.

A file is data from somebody else, so what it unpacks to is bounded, and never held as a whole unless it is one message.
"""

from __future__ import annotations

import codecs
import gzip
import io
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import zstandard

from receiver.plain_text import shell_word
from receiver.recordings.complaints import Complaint
from receiver.store.files import FileProblem

MAX_LINE: Final = 128 << 20
"""Longer lines and messages are skipped; the largest request that a receiver takes is 16 MiB, of which JSON makes six
bytes a character at worst (`\\u0001`)."""
_RATIO: Final = 200
_RATIO_FROM: Final = 256 << 20
"""What unpacks to more than this and to more than `_RATIO` times its size is a bomb: real recordings shrink 10 times,
zeros 1,030 times."""
HEAD: Final = 16
"""So many bytes of a file tell whether it is another kind of file."""
_SQLITE: Final = b"SQLite format 3\0"
_GZIP: Final = b"\x1f\x8b"
ZSTD: Final = b"\x28\xb5\x2f\xfd"
_WINDOW: Final = 128 << 20  # the most that a zstd frame may ask to be held in memory
_NOT_READ: Final = (
    (b"PK\x03\x04", "is a zip archive", "unpack it and name a file of it"),
    (b"PK\x05\x06", "is an empty zip archive", "name another file"),
    (b"BZh", "is packed with bzip2", "unpack it first (bunzip2)"),
    (b"\xfd7zXZ\x00", "is packed with xz", "unpack it first (unxz)"),
    (b"\x04\x22\x4d\x18", "is packed with lz4", "unpack it first (unlz4)"),
    (b"PAR1", "is a Parquet file, as Tempo stores its blocks", "ask Tempo for the trace (GET /api/traces/ID)"),
    (b"%PDF", "is a PDF", "name another file"),
    (b"\x89PNG", "is a picture", "name another file"),
    (b"\x7fELF", "is a program", "name another file"),
)
_BOMS: Final = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_BARE: Final = ((b"{\0", "utf-16-le"), (b"[\0", "utf-16-le"), (b"\0{", "utf-16-be"), (b"\0[", "utf-16-be"))
_LENGTH: Final = struct.Struct(">I")
_MESSAGE: Final = b"\x0a"  # the tag of resource_spans, with which a request begins


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text, its end included."""

    number: int
    text: bytes

    @property
    def place(self) -> str:
        """For people."""
        return f"line {self.number}"


@dataclass(frozen=True, slots=True)
class Binary:
    """A message that is no text."""

    number: int
    data: bytes

    @property
    def place(self) -> str:
        """For people."""
        return f"message {self.number}"


def parts(path: Path | None, bad: Callable[[str], None], max_line: int = MAX_LINE) -> Iterator[Line | Binary]:
    """The lines or messages of a file, or of standard input (None), one after the other.

    Args:
        bad: takes a sentence for each that is too long, and where the rest cannot be read.

    Raises:
        FileProblem: it cannot be opened or read, or is something else altogether.
    """
    name = name_of(path)
    counted: _Counted | None = None
    try:
        with _opened(path) as raw:
            head = raw.peek(HEAD)[:HEAD]
            refuse(head, name)
            stream: io.BufferedReader = raw
            if head.startswith(_GZIP):
                counted = _Counted(raw)
                stream = io.BufferedReader(gzip.GzipFile(fileobj=counted))
            elif head.startswith(ZSTD):
                counted = _Counted(raw)
                unpack = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
                frames = unpack.stream_reader(counted, read_across_frames=True)  # type: ignore[arg-type]  # it reads
                stream = io.BufferedReader(frames)
            unpacked = 0
            for part, size in _parts(stream, name, bad, max_line):
                unpacked += size
                if counted is not None and unpacked > _RATIO_FROM and unpacked > _RATIO * counted.bytes:
                    place = part.place if part is not None else "its beginning"
                    bad(f"{name}, {place}: unpacks to more than {_RATIO} times its size; the rest is not read.")
                    return
                if part is not None:
                    yield part
    except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
        bad(f"{name}: the gzip data is cut off or damaged ({problem}); the rest is not read.")
    except zstandard.ZstdError as problem:
        bad(f"{name}: the zstd data is cut off or damaged ({problem}); the rest is not read.")
    except OSError as problem:
        raise FileProblem(f"{name} cannot be read ({problem.strerror or problem}): name another file.") from problem


def refuse(head: bytes, name: str) -> None:
    """Raises:
    FileProblem: a file that begins like this is no recording.
    """
    if head.startswith(_SQLITE):
        raise FileProblem(f"{name} is a database, not a recording: open it with --db {shell_word(name)}.")
    for magic, what, way_out in _NOT_READ:
        if head.startswith(magic):
            raise FileProblem(f"{name} {what}, not a recording: {way_out}.")


def name_of(path: Path | None) -> str:
    """A recording's name in sentences."""
    return "standard input" if path is None else str(path)


@contextmanager
def _opened(path: Path | None) -> Iterator[io.BufferedReader]:
    if path is None:
        yield sys.stdin.buffer  # type: ignore[misc]  # a BufferedReader, as long as nobody replaced it
        return
    with path.open("rb") as raw:
        yield raw


_Sized = tuple["Line | Binary | None", int]
"""A part, None where it is not to be had, and how many bytes it took."""


def _parts(stream: io.BufferedReader, name: str, bad: Callable[[str], None], max_line: int) -> Iterator[_Sized]:
    head = stream.peek(64)[:64]
    for mark, encoding in (*_BOMS, *_BARE):
        if head.startswith(mark):
            if mark in dict(_BOMS):
                stream.read(len(mark))
            yield from _lines(_Utf8(stream, encoding), name, bad, max_line)
            return
    size = _LENGTH.unpack(head[:4])[0] if len(head) > 4 else 0
    if 0 < size <= max_line and (head[4:5] in (_MESSAGE, b"{") or head[4:8] == ZSTD) and head[0] < 8:
        yield from _with_lengths(stream, name, bad, max_line)
        return
    if head.startswith(_MESSAGE) and head.strip() and not head.strip()[:1].startswith((b"{", b"[")):
        yield from _one_message(stream, name, bad, max_line)
        return
    if head.startswith(codecs.BOM_UTF8):
        stream.read(len(codecs.BOM_UTF8))
    yield from _lines(stream, name, bad, max_line)


def _lines(stream: IO[bytes] | _Utf8, name: str, bad: Callable[[str], None], max_line: int) -> Iterator[_Sized]:
    number, whole = 1, True
    while text := stream.readline(max_line):
        ends = text.endswith(b"\n")
        part = Line(number, text) if whole and (ends or len(text) < max_line) else None
        if whole and part is None:
            bad(Complaint.of(name, f"line {number}", f"is longer than {max_line:,} bytes"))
        yield part, len(text)
        whole = ends  # the pieces of an overlong line are dropped until its end
        number += ends


def _with_lengths(stream: io.BufferedReader, name: str, bad: Callable[[str], None], max_line: int) -> Iterator[_Sized]:
    """Messages as the Collector's file exporter writes `format: proto`: four octets, big-endian, in front of each. With
    `compression: zstd` each is a frame of its own, and so is each line of JSON."""
    number = 0
    while head := stream.read(_LENGTH.size):
        number += 1
        size = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else 0
        if not 0 < size <= max_line:
            bad(f"{name}, message {number}: has a length that cannot be; the rest is not read.")
            return
        data = stream.read(size)
        if len(data) < size:
            bad(f"{name}, message {number}: is cut off.")
            return
        if data.startswith(ZSTD):
            unpacked = _frame(data, max_line)
            if unpacked is None:
                clause = f"is damaged, or unpacks to more than {max_line:,} bytes"
                bad(Complaint.of(name, f"message {number}", clause))
                yield None, size
                continue
            data = unpacked
        yield (Line(number, data) if data[:1] in (b"{", b"[") else Binary(number, data)), size


def _frame(data: bytes, most: int) -> bytes | None:
    try:
        with zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(data) as reader:
            unpacked: bytes = reader.read(most + 1)
    except zstandard.ZstdError:
        return None
    return unpacked if len(unpacked) <= most else None


def _one_message(stream: io.BufferedReader, name: str, bad: Callable[[str], None], max_line: int) -> Iterator[_Sized]:
    data = stream.read(max_line + 1)
    if len(data) > max_line:
        bad(f"{name}: is a message of more than {max_line:,} bytes; it is not read.")
        return
    yield Binary(1, data), len(data)


class _Utf8:
    """Lines of UTF-16 as UTF-8."""

    def __init__(self, stream: io.BufferedReader, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._text = bytearray()
        self._ended = False

    def readline(self, size: int) -> bytes:
        while (at := self._text.find(b"\n")) < 0 and len(self._text) < size and not self._ended:
            piece = self._stream.read(64 << 10)
            self._ended = not piece
            self._text += self._decoder.decode(piece, self._ended).encode()
        end = min(size, at + 1 if at >= 0 else len(self._text))
        line = bytes(self._text[:end])
        del self._text[:end]
        return line


class _Counted(io.RawIOBase):
    """Counts what is read, because a pipe cannot tell where it is."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self.bytes = 0

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read(size)
        self.bytes += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._raw.seek(offset, whence)
