"""SQLite's log as it lies on the disk: what is in it, and whether it is still what was written.

SQLite reads the log where its index in shared memory says it is. When somebody empties the log under it, it goes on
writing behind the place where the end was, reports success, and nobody can read that after the process has ended. So
the two files are compared here with plain reads: https://sqlite.org/walformat.html describes both.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

HEADER: Final = 32
"""Bytes in front of the first frame."""
FRAME_HEADER: Final = 24
_INDEX: Final = struct.Struct("=IIIBBHII2I8s2I")  # WalIndexHdr: in the machine's byte order, stored twice
_VERSION: Final = 3007000
_BACKFILL: Final = 2 * _INDEX.size
_ATTEMPTED: Final = 128  # WalCkptInfo.nBackfillAttempted
_INDEX_BYTES: Final = 136
_MAGIC: Final = (0x377F0682, 0x377F0683)
_REGION: Final = 32 << 10
_SLOTS: Final = 16 << 10  # bytes at the end of a region: its hash table
_READERS_AT: Final = 123  # WAL_READ_LOCK(0), a byte that is locked (walformat.html, 2.2)
_READERS: Final = 5
_LOCK: Final = "hhqqi4x"  # struct flock of Linux with 64 bits
_AT_ONCE: Final = 128  # frames whose checksums are looked at together: a MiB
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


class LogState(NamedTuple):
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
    attempted: int
    """As `folded`, and those that somebody folds in at this moment; SQLite sets it before it writes to the file."""

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
    return _state_of(raw)


@lru_cache(maxsize=16)  # asked for some times in each commit, and mostly as before
def _state_of(raw: bytes) -> LogState | None:
    version, _, _, there, _, page, frames, pages, sum1, sum2, salt, _, _ = _INDEX.unpack(raw[: _INDEX.size])
    if version != _VERSION or not there:
        return None
    (folded,) = struct.unpack_from("=I", raw, _BACKFILL)
    (attempted,) = struct.unpack_from("=I", raw, _ATTEMPTED)
    return LogState(frames, folded, pages, 65536 if page == 1 else page, salt, (sum1, sum2), attempted)


def reader_of(memory: int) -> int | None:
    """The id of another process that reads the database at this moment, from a descriptor of the shared memory; None
    where there is none, or none that the system tells of."""
    if sys.platform != "linux":
        return None
    import fcntl

    asked = struct.pack(_LOCK, fcntl.F_WRLCK, os.SEEK_SET, _READERS_AT, _READERS, 0)
    try:
        kind, _, _, _, process = struct.unpack(_LOCK, fcntl.fcntl(memory, fcntl.F_GETLK, asked))
    except OSError:
        return None
    return process if kind != fcntl.F_UNLCK and process > 0 else None


def whole_frames(log: int, state: LogState) -> int:
    """How many of its frames a log still has, from a descriptor: all (`state.frames`), or those in front of where it
    was cut off or emptied. Looks at the size, for a hole, and at the first and the last frame: for the bytes between
    see `valid_frames`."""
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


def valid_frames(log: int, state: LogState) -> int:
    """How many of its frames are as they were written, from a descriptor: all (`state.frames`), or those in front of
    the first whose checksum is wrong. Reads all of the log: about a millisecond for a MiB."""
    most = whole_frames(log, state)
    if not most:
        return 0
    head = os.pread(log, HEADER, 0)
    words = np.dtype(">u4" if int.from_bytes(head[:4], "big") & 1 else "<u4")
    advance, weights = _checksum_of(6)
    sums = _checksum((0, 0), advance, _weighed(np.frombuffer(head[:24], words).astype(np.uint32), weights))
    if sums != struct.unpack(">II", head[24:32]):
        return 0
    advance, weights = _checksum_of(2 + state.page // 4)
    for first in range(0, most, _AT_ONCE):
        raw = os.pread(log, min(_AT_ONCE, most - first) * state.frame, HEADER + first * state.frame)
        frames = np.frombuffer(raw[: len(raw) // state.frame * state.frame], np.uint8).reshape(-1, state.frame)
        covered = np.concatenate((frames[:, :8], frames[:, FRAME_HEADER:]), axis=1).view(words).astype(np.uint32)
        added = _weighed(covered, weights)
        written = np.ascontiguousarray(frames[:, 16:FRAME_HEADER]).view(">u4").tolist()
        salts = frames[:, 8:16] == np.frombuffer(state.salt, np.uint8)
        for number in range(len(frames)):
            sums = _checksum(sums, advance, added[number])
            if list(sums) != written[number] or not salts[number].all():
                return first + number
        if len(frames) < min(_AT_ONCE, most - first):
            return first + len(frames)
    return most


# SQLite's checksum (walformat.html, 4.4) takes two words x0, x1 at a time: s0 += x0 + s1; s1 += x1 + s0. That is
# linear, so what many words add is a sum of products, which does not need a step of Python for each of them.
@lru_cache(maxsize=8)
def _checksum_of(words: int) -> tuple[tuple[int, int, int, int], NDArray[np.uint32]]:
    """What so many words make of the sums before them (a matrix), and by what each word counts in either sum."""
    a, b, c, d = 1, 0, 0, 1
    weights = np.empty((2, words), np.uint32)
    for last in range(words - 2, -1, -2):
        weights[:, last] = (a + b) & 0xFFFFFFFF, (c + d) & 0xFFFFFFFF
        weights[:, last + 1] = b, d
        a, b, c, d = (a + b) & 0xFFFFFFFF, (a + 2 * b) & 0xFFFFFFFF, (c + d) & 0xFFFFFFFF, (c + 2 * d) & 0xFFFFFFFF
    return (a, b, c, d), weights


def _weighed(words: NDArray[np.uint32], weights: NDArray[np.uint32]) -> Any:
    return np.dot(words, weights.T).tolist()


def _checksum(before: tuple[int, int], advance: tuple[int, int, int, int], added: list[int]) -> tuple[int, int]:
    a, b, c, d = advance
    first, second = before
    return (a * first + b * second + added[0]) & 0xFFFFFFFF, (c * first + d * second + added[1]) & 0xFFFFFFFF


@dataclass(frozen=True, slots=True, eq=False)
class LogIndex:
    """Which page each frame of the log holds, as SQLite's shared memory has it: a list to go through (a checkpoint
    does), and a hash table to look it up."""

    regions: tuple[tuple[int, bytes], ...]
    """Of each region of the memory: how many frames it is of, and its bytes behind what is no index."""

    def continues(self, before: LogIndex) -> bool:
        """Whether everything that was in it is there still: frames are only added, until the log begins anew. What is
        behind them may be what a killed writer left."""
        if len(self.regions) < len(before.regions):
            return False
        for (_, now), (frames, then) in zip(self.regions, before.regions, strict=False):
            if now == then:
                continue
            if now[: 4 * frames] != then[: 4 * frames]:
                return False
            slots_now, slots_then = _slots(now), _slots(then)
            other = (slots_now != slots_then).nonzero()
            if _any_within(slots_now[other], frames) or _any_within(slots_then[other], frames):
                return False
        return True


def read_index(memory: int, frames: int) -> LogIndex:
    """The index of so many frames, from a descriptor of the shared memory; shorter where that is."""
    regions: list[tuple[int, bytes]] = []
    while frames > 0:
        within = min(frames, _IN_OTHERS if regions else _IN_FIRST)
        front = 0 if regions else _INDEX_BYTES
        raw = os.pread(memory, _REGION - front, len(regions) * _REGION + front)
        if len(raw) < _REGION - front:
            break
        regions.append((within, raw))
        frames -= within
    return LogIndex(tuple(regions))


def _any_within(slots: NDArray[np.uint16], frames: int) -> bool:
    """Whether one of them is of the first so many frames."""
    return bool(((slots > 0) & (slots <= frames)).any())


def _slots(region: bytes) -> NDArray[np.uint16]:
    """The hash table of a region: numbers of frames within it, 0 for none."""
    return np.frombuffer(region, np.uint16, -1, len(region) - _SLOTS)


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
