"""SQLite's log as it lies on the disk: what is in it, and whether it is still what was written.

SQLite reads the log where its index in shared memory says it is. When somebody empties the log under it, it goes on
writing behind the place where the end was, reports success, and nobody can read that after the process has ended. So
the two files are compared here with plain reads: https://sqlite.org/walformat.html describes both.
"""

from __future__ import annotations

import os
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HEADER: Final = 32
"""Bytes in front of the first frame."""
FRAME_HEADER: Final = 24
_INDEX: Final = struct.Struct("=IIIBBHII2I8s2I")  # WalIndexHdr: in the machine's byte order, stored twice
_VERSION: Final = 3007000
_BACKFILL: Final = 2 * _INDEX.size
_INDEX_BYTES: Final = _BACKFILL + 4
_MAGIC: Final = (0x377F0682, 0x377F0683)
_REGION: Final = 32 << 10
_IN_FIRST: Final = 4062  # frames whose numbers fit into the first region of the shared memory
_IN_OTHERS: Final = 4096
assert _INDEX.size == 48


def log_of(path: Path) -> Path:
    """The log of a database."""
    return path.with_name(path.name + "-wal")


def memory_of(path: Path) -> Path:
    """The file of its shared memory."""
    return path.with_name(path.name + "-shm")


def footprint(path: Path) -> int:
    """Bytes of a database with its log and shared memory; what is not there counts nothing."""
    total = 0
    for one in (path, log_of(path), memory_of(path)):
        try:
            total += one.stat().st_size
        except OSError:
            continue
    return total


def shared_bytes(frames: int) -> int:
    """Bytes of the shared memory that so many frames of the log need."""
    return _REGION * (1 + max(0, frames - _IN_FIRST + _IN_OTHERS - 1) // _IN_OTHERS)


@dataclass(frozen=True, slots=True)
class LogState:
    """The log, as its index in shared memory tells it."""

    frames: int
    """That hold something; behind the last one may be what was there before the log began anew."""
    folded: int
    """The first so many of them are in the database's file, too."""
    pages: int
    """Of the database, those in the log counted; 0 where there are no frames."""
    page: int
    """Bytes of a page; 0 where nothing was written yet."""
    salt: bytes
    checksum: tuple[int, int]
    """Of the last frame and all before it."""

    @property
    def frame(self) -> int:
        """Bytes of a frame."""
        return FRAME_HEADER + self.page

    @property
    def end(self) -> int:
        """Bytes of the log that count."""
        return HEADER + self.frames * self.frame if self.frames else 0

    @property
    def pending(self) -> int:
        """Frames that only the log has."""
        return max(0, self.frames - self.folded)


def read_state(memory: int) -> LogState | None:
    """The state of the log, from a descriptor of the shared memory; None where it cannot be told (cut off, being
    written, nothing in it yet, another version)."""
    for _ in range(3):
        try:
            raw = os.pread(memory, _INDEX_BYTES, 0)
        except OSError:
            return None
        if len(raw) < _INDEX_BYTES:
            return None
        if raw[: _INDEX.size] == raw[_INDEX.size : _BACKFILL]:
            break
    else:
        return None
    version, _, _, there, _, page, frames, pages, sum1, sum2, salt, _, _ = _INDEX.unpack(raw[: _INDEX.size])
    if version != _VERSION or not there:
        return None
    (folded,) = struct.unpack("=I", raw[_BACKFILL:])
    return LogState(frames, folded, pages, 65536 if page == 1 else page, salt, (sum1, sum2))


def whole_frames(log: int, state: LogState) -> int:
    """How many of its frames a log still has, from a descriptor: all (`state.frames`), or those in front of where it
    was cut off or emptied. Looks at the size, for a hole, and at the first and the last frame: what others could have
    done to the bytes between costs too much to find."""
    if not state.frames:
        return 0
    size = os.fstat(log).st_size
    head = os.pread(log, HEADER, 0)
    if len(head) < HEADER or int.from_bytes(head[:4], "big") not in _MAGIC or head[16:24] != state.salt:
        return 0
    there = size
    if hasattr(os, "SEEK_HOLE"):
        try:
            there = min(size, os.lseek(log, 0, os.SEEK_HOLE))
        except OSError:  # a file system that cannot tell
            there = size
    if there < state.end:
        return max(0, (there - HEADER) // state.frame)
    last = os.pread(log, FRAME_HEADER, state.end - state.frame)
    if last[8:16] != state.salt or struct.unpack(">II", last[16:24]) != state.checksum:
        return state.frames - 1
    return state.frames


# --- descriptors that stay open ------------------------------------------------------------------------
_kept: dict[tuple[int, int], list[int]] = {}  # descriptor and who wants it, by device and number of the file
_keeping: Final = threading.Lock()


class Kept:
    """A file that is open for reading as long as anybody in this process wants it.

    SQLite's locks are the process's (fcntl(2)): to close any descriptor of the shared memory would end them all.
    """

    def __init__(self, path: Path) -> None:
        """Raises:
        OSError: it cannot be opened, or it is a link.
        """
        with _keeping:
            found = os.lstat(path)
            held = _kept.get((found.st_dev, found.st_ino))
            if held is None:
                number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
                found = os.fstat(number)
                held = _kept.setdefault((found.st_dev, found.st_ino), [number, 0])
            self.identity = (found.st_dev, found.st_ino)
            self.number = held[0]
            held[1] += 1

    def release(self) -> None:
        """Not wanted any more; once."""
        with _keeping:
            held = _kept[self.identity]
            held[1] -= 1
            if not held[1]:
                del _kept[self.identity]
                os.close(held[0])
