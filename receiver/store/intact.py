"""Whether the three files of a database are still those that it was opened with, and whole.

SQLite sees none of it: it goes on writing into a file without a name, or behind the end of a log that somebody emptied,
and calls that stored. So it is looked at around every commit, before anybody hears of success: some stat(2) and
pread(2), some 100 microseconds.

What is overwritten in place keeps its name and, often, its length. Whoever writes to the file changes its time of
modification; SQLite does so only when it folds the log in, which its shared memory tells. The same goes for the log
between two commits. The kernel's own times are as coarse as its clock tick, within which others may write as well, so
after a write of ours the time is set to the present nanosecond. Who sets it back changes the time of the last change,
which nobody can set; so does much that is harmless, and then what is in the file tells. Another process of ours (an
import) folds the log in and sets the time, too, sometimes late: its times are known by their last digits. The shared
memory is mapped, which leaves its times as they are: what it says of older frames must go on.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from receiver.store.wal import (
    Kept,
    LogIndex,
    LogState,
    log_of,
    memory_of,
    read_index,
    read_state,
    reader_of,
    valid_frames,
    whole_frames,
)

_PAGE: Final = 8192
_BEGINS: Final = b"SQLite format 3\0"
_TRIES: Final = 5  # another program may begin the log anew between two reads
_SETTLED_SECONDS: Final = 5.0
"""Another process of ours has set the file's time so long after it folded the log in: it may wait for readers first."""

_COARSEST_NS: Final = 3_000_000_000  # more than any file system rounds times by

_GET_FLAGS: Final = 0x80006601 | struct.calcsize("l") << 16  # FS_IOC_GETFLAGS (linux/fs.h)
_UNCHANGEABLE: Final = 0x10 | 0x20  # FS_IMMUTABLE_FL, FS_APPEND_FL
_MILLISECOND: Final = 1_000_000
_LATE_NS: Final = 1_000_000_000

Identity = tuple[int, int]


class _Times(NamedTuple):
    """When a file was written to and changed at last, in ns, and what may have been changed beside what is in it."""

    written: int
    changed: int
    kept: tuple[int, int, int, int]
    """Rights, owner, group, and how many names it has."""
    number: int

    @classmethod
    def of(cls, handle: int) -> _Times:
        found = os.fstat(handle)
        return cls(
            found.st_mtime_ns,
            found.st_ctime_ns,
            (found.st_mode, found.st_uid, found.st_gid, found.st_nlink),
            found.st_ino,
        )

    def set_since(self, known: _Times) -> bool:
        """Whether a process of ours set the time of modification, and not long before what was known."""
        if self.written == known.written or self.written < known.written - _LATE_NS:
            return False
        return self.written == _marked(self.written, self.number)


@dataclass(frozen=True, slots=True)
class Loss:
    """What happened to the files, and what to do: a sentence each."""

    what: str
    way_out: str
    rescue: bool = False
    """What the log holds can still be folded into the file, for the log is only not where it belongs."""
    doubtful: bool = False
    """Nothing tells any more whether file and log go together: both are looked through before they are used again."""


def identity(path: Path) -> Identity | None:
    """Device and number of a file, None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Intact:
    """Watches the files of one connection.

    `pages` tells the bytes of the database as SQLite counts them; `whole` has SQLite look through the file, over a
    fresh connection: None when it is busy.
    """

    def __init__(self, path: Path, pages: Callable[[], int], whole: Callable[[], bool | None]) -> None:
        self._path = path
        self._log, self._memory = log_of(path), memory_of(path)
        self._pages = pages
        self._whole = whole
        self._names = str(path), str(self._log), str(self._memory)  # pathlib takes longer than the system call
        self._file = identity(path)
        self._seen = 0  # bytes of the file when it was looked at last
        self._hole = 0  # where the first one of the file begins that was found to be harmless
        self._log_kept: Kept | None = None
        self._memory_kept: Kept | None = None
        self._memory_seen = 0
        self._folded_at = 0.0  # when everything was in the file at last, by the wall clock
        # What was found when it was known to be ours, with the state of the log.
        self._file_known: tuple[LogState, _Times] | None = None
        self._log_known: tuple[LogState, _Times] | None = None
        self._index_known: tuple[LogState, LogIndex] | None = None
        self._folded_by_others: tuple[LogState, float] | None = None  # and since when that is seen
        self.loss: Loss | None = None
        """What was found; from then on for good."""

    def begin(self) -> None:
        """Know log and shared memory, which SQLite makes with its first look at the file."""
        self._folded_at = time.time()
        try:
            self._memory_kept = Kept(self._memory)
            self._memory_seen = os.fstat(self._memory_kept.number).st_size
            self._log_kept = Kept(self._log)
        except OSError:
            return  # a file that is read without them

    def end(self) -> None:
        """Give the files back. Only after the connection was closed."""
        for kept in (self._log_kept, self._memory_kept):
            if kept is not None:
                kept.release()
        self._log_kept = self._memory_kept = None

    def state(self) -> LogState | None:
        """The log as its index tells it, None where that cannot be told."""
        return None if self._memory_kept is None else read_state(self._memory_kept.number)

    def log_bytes(self) -> int:
        """Bytes of the log's file."""
        try:
            return 0 if self._log_kept is None else os.fstat(self._log_kept.number).st_size
        except OSError:
            return 0

    def frozen(self, handle: int | None) -> str:
        """Which of the files may not be changed any more although it is open, "" for none. Of what is mapped, SQLite
        finds that out by SIGBUS."""
        for kept, name in ((self._memory_kept, self._names[2]), (self._log_kept, self._names[1])):
            if kept is not None and _is_frozen(kept.number):
                return name
        if handle is not None and _is_frozen(handle):
            return self._names[0]
        return ""

    def reader(self) -> int | None:
        """The id of another process that reads the database at this moment, as far as the system tells."""
        return None if self._memory_kept is None else reader_of(self._memory_kept.number)

    def look(self, handle: int | None, *, wrote: bool = False, folded: bool = False) -> Loss | None:
        """What became of the files; None while they are there and whole.

        Args:
            handle: a descriptor of the file, where it is written.
            wrote: we wrote to the log since the last look.
            folded: we folded the log into the file since the last look.
        """
        if self.loss is None:
            self.loss = self._of_memory() or self._of_file(handle) or self._of_log()
        if self.loss is None and handle is not None:
            self.loss = self._of_contents(handle, wrote, folded)
        return self.loss

    def look_before(self, handle: int | None) -> Loss | None:
        """The part of `look` without which SQLite would be killed where it looks into the shared memory, or could not
        be told from others who write. The rest is looked at when it has written, before anybody hears of that."""
        if self.loss is None:
            self.loss = self._of_memory()
        if self.loss is None and handle is not None:
            state, known = self.state(), self._log_known
            if known is None or state is None or not _same_frames(known[0], state):  # others wrote, or overwrote
                self.loss = self._of_log()
            self.loss = self.loss or self._of_contents(handle, False, False)
        return self.loss

    # -- the file -------------------------------------------------------------------------------------
    def _of_file(self, handle: int | None, tries: int = _TRIES) -> Loss | None:
        """A file is never shorter than what SQLite has folded into it: a first page from the beginning, and each later
        page is in the file or in the log."""
        state = self.state()
        found = self._file_found()
        if isinstance(found, Loss):
            return found
        short = found.st_size < _PAGE or (found.st_size < self._seen and self._lacks_pages(found.st_size))
        if state is not None and state.frames:
            short |= found.st_size < (state.pages - state.pending) * state.page
        if short and self.state() != state:  # somebody writes, and what was read is not of one moment
            return self._of_file(handle, tries - 1) if tries else None
        if short or self._has_hole(handle, found.st_size) or (handle is not None and _foreign(handle)):
            return self._file_cut_off()
        self._seen = found.st_size
        return None

    def _file_found(self) -> os.stat_result | Loss:
        """The file as it is now, unless it is another one, or none."""
        path = self._path
        try:
            found = os.stat(self._names[0])
        except OSError:
            way_out = "Starting the receiver again begins a new one."
        else:
            if (found.st_dev, found.st_ino) == self._file:
                return found
            way_out = f"Move what is there now aside, with {path}-wal if that is there, and start the receiver again."
        return Loss(f"The database {path} was moved or removed while it was in use.", way_out)

    def _file_cut_off(self) -> Loss:
        return Loss(
            f"The database {self._path} was emptied or cut off while it was in use.",
            f"Move what is left of it aside, with {self._path}-wal if that is there, and start the receiver again.",
        )

    def _lacks_pages(self, size: int) -> bool:
        """Whether a file that became shorter, of so many bytes now, misses pages: else it was `Database.shrink`."""
        state = self.state()
        try:
            wanted = self._pages()
        except Exception:  # noqa: BLE001 - what cannot even tell how large it is lacks something
            return True
        absent = state.pending * state.page if state is not None and state.page else self.log_bytes()
        if size + absent < wanted:
            return True
        # As long as it is, or longer: given back to the disk. Shorter, and the rest may be in the log: SQLite knows.
        return size < wanted and self._whole() is False

    def _has_hole(self, handle: int | None, size: int) -> bool:
        """Whether a checkpoint made a file that was cut off as long as before, with nothing where its pages were. A
        page that was made and freed between two checkpoints leaves a hole, too: SQLite tells which it is."""
        if handle is None or not hasattr(os, "SEEK_HOLE"):
            return False
        try:
            hole = os.lseek(handle, 0, os.SEEK_HOLE)
        except OSError:  # a file system that cannot tell
            return False
        if hole >= size or hole == self._hole:
            return False
        whole = self._whole()
        if whole:
            self._hole = hole
        return whole is False

    # -- beside it ------------------------------------------------------------------------------------
    def _of_memory(self) -> Loss | None:
        """Before SQLite touches what is mapped: beyond the end of a file that was cut off there is only SIGBUS."""
        kept = self._memory_kept
        if kept is None:
            return None
        now, size = _named(self._names[2]), os.fstat(kept.number).st_size
        whole = size >= self._memory_seen
        if now == kept.identity and whole:
            self._memory_seen = size
            return None
        what = "moved, removed or replaced" if whole else "emptied or cut off"
        return self._besides(whole) or Loss(
            f"{self._memory} was {what} while it was in use.",
            "Nothing that was acknowledged is lost: start the receiver again.",
        )

    def _besides(self, whole: bool) -> Loss | None:
        """What else is gone where the shared memory is: SQLite, which is not to be asked unless that is still
        `whole`, has no part in it. None: nothing, so nothing is lost."""
        found = self._file_found()
        if isinstance(found, Loss):
            return found
        if found.st_size < min(_PAGE, self._seen):
            return self._file_cut_off()
        kept, known = self._log_kept, self._log_known
        if kept is None:
            return None
        if _named(self._names[1]) != kept.identity:
            return self._log_moved(rescue=whole)
        if known is not None and valid_frames(kept.number, known[0]) < known[0].frames:
            return self._log_lost()
        return None

    def _of_log(self) -> Loss | None:
        kept = self._log_kept
        if kept is None:
            return None
        state = self.state()
        for _ in range(_TRIES):
            now = _named(self._names[1])
            broken = state is not None and whole_frames(kept.number, state) < state.frames
            if not broken and now == kept.identity:
                if state is not None and not state.pending:
                    self._folded_at = time.time()
                return None
            again = self.state()
            if again == state:
                break
            state = again  # somebody wrote meanwhile
        else:
            return None  # busy: the next look tells
        if broken:
            known = self._log_known
            if known is not None and known[0] != state and whole_frames(kept.number, known[0]) == known[0].frames:
                return self._memory_lost()  # what was last in the log is there: it is not what the memory tells of
            return self._log_lost()
        return self._log_moved(rescue=True)

    # -- what is in them ------------------------------------------------------------------------------
    def _of_contents(self, handle: int, wrote: bool, folded: bool) -> Loss | None:
        """Whether somebody wrote into one of the files who does not use SQLite."""
        if self._log_kept is None or self._memory_kept is None:
            return None
        log, memory = self._log_kept.number, self._memory_kept.number
        state = self.state()
        for _ in range(_TRIES):
            if state is None:  # overwritten at its beginning, SQLite makes it anew from the log
                return None
            file_times, log_times = _Times.of(handle), _Times.of(log)
            index = read_index(memory, state.frames)
            again = self.state()
            if again == state:
                break
            state = again
        else:
            return None  # busy: the next look tells
        loss = (
            self._of_index(log, state, index, file_times, folded)
            or self._of_file_times(handle, state, file_times, folded)
            or self._of_log_times(log, state, log_times, wrote)
        )
        if loss is None:
            self._index_known = state, index
        return loss

    def _of_file_times(self, handle: int, state: LogState, times: _Times, folded: bool) -> Loss | None:
        if folded or self._file_known is None:
            self._file_known = state, _set_time(handle) if folded else times
        elif not _folded_since(self._file_known[0], state):
            known = self._file_known[1]
            # Rights and names are changed, and times of reading set back, by others who mean no harm.
            doubtful = times.changed != known.changed and times.kept == known.kept
            if not times.set_since(known) and (times.written != known.written or (doubtful and self._whole() is False)):
                return self._file_overwritten()
            self._file_known = state, times
        elif state.attempted == state.folded:  # another process of ours, which sets the time after that
            if self._folded_by_others is None or self._folded_by_others[0] != state:
                self._folded_by_others = state, time.monotonic()
            elif time.monotonic() > self._folded_by_others[1] + _SETTLED_SECONDS:
                self._file_known = state, times
        return None

    def _of_log_times(self, log: int, state: LogState, times: _Times, wrote: bool) -> Loss | None:
        known = self._log_known
        changed = known is not None and _same_frames(known[0], state) and times != known[1] and not wrote
        # Or another process of ours is about to write, or gave it up; or somebody only touched it.
        if changed and valid_frames(log, state) < state.frames and self.state() == state:
            return self._log_lost()
        self._log_known = state, _set_time(log) if wrote else times
        return None

    def _of_index(self, log: int, state: LogState, index: LogIndex, file: _Times, folded: bool) -> Loss | None:
        if self._index_known is None:
            return None
        before, known = self._index_known
        unwritten = self._file_known is not None and file.written == self._file_known[1].written
        broken = state.folded > state.frames
        if before.salt == state.salt:
            # Frames are only added, until the log begins anew and gets another salt.
            broken |= before.frames > state.frames or not index.continues(known)
            # Whoever folds frames in writes them into the file.
            broken |= before.attempted < state.folded and unwritten and not folded
        if not broken:
            return None
        if not unwritten and not folded:  # of another time, as the memory is
            return self._file_overwritten()
        return self._memory_lost() if valid_frames(log, before) == before.frames else self._log_lost()

    def _file_overwritten(self) -> Loss:
        return Loss(
            f"Another program wrote into the database {self._path} while it was in use: what was acknowledged"
            " may be damaged or lost.",
            "Start the receiver again: it looks through what is there now, and goes on if that is whole.",
            doubtful=True,
        )

    def _memory_lost(self) -> Loss:
        return Loss(
            f"{self._memory} was overwritten while it was in use.",
            "Nothing that was acknowledged is lost: start the receiver again.",
            doubtful=True,
        )

    def _log_moved(self, *, rescue: bool) -> Loss:
        return Loss(
            f"The database's log {self._log} was moved, removed or replaced while it was in use.",
            "Start the receiver again: it goes on with what is in the database.",
            rescue=rescue,
        )

    def _log_lost(self) -> Loss:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._folded_at))
        return Loss(
            f"The database's log {self._log} was emptied, cut off or overwritten while it was in use: what was"
            f" acknowledged since {since} may be lost.",
            "Start the receiver again: it goes on with what is whole.",
        )


def may_have_folded(before: LogState | None, after: LogState | None) -> bool:
    """Whether a checkpoint of ours wrote into the file, from the states around it. When there was nothing to fold, or a
    reader was in the way, the file is as another process of ours knows it: it must not get another time."""
    return before is None or after is None or _folded_since(before, after)


def _folded_since(before: LogState, now: LogState) -> bool:
    """Whether somebody may have folded the log into the file between two states."""
    if now.attempted != now.folded:
        return True  # at this moment, or was killed while it did
    if now.salt == before.salt:
        return now.folded != before.folded
    if not any(before.salt):  # nothing was ever in it
        return now.folded != 0
    # A log that is in the file as a whole begins anew with the next write, and counts that (walformat.html, 4.5).
    began = (int.from_bytes(before.salt[:4], "big") + 1) & 0xFFFFFFFF
    return bool(now.folded or before.pending or int.from_bytes(now.salt[:4], "big") != began)


def _same_frames(before: LogState, now: LogState) -> bool:
    return (before.salt, before.frames, before.checksum) == (now.salt, now.frames, now.checksum)


def _set_time(handle: int) -> _Times:
    """Set a file's time of modification to now; what its times are then. Where the file system rounds it, others may
    write within the same second: there it is set to one that is over."""
    now = _marked(time.time_ns(), os.fstat(handle).st_ino)
    for when in (now, now - _COARSEST_NS):
        with contextlib.suppress(OSError):  # then it stays as the kernel set it
            os.utime(handle, ns=(when, when))
        times = _Times.of(handle)
        if times.written == when:
            break
    return times


def _marked(time_ns: int, number: int) -> int:
    """The time, to a millisecond, that a process of ours sets for a file of this number."""
    begun = time_ns // _MILLISECOND
    return begun * _MILLISECOND + zlib.crc32(b"%d %d" % (begun, number)) % _MILLISECOND


def _is_frozen(handle: int) -> bool:
    """Whether a file has been made immutable (chattr(1)), or its file system read-only, since it was opened."""
    if os.fstatvfs(handle).f_flag & os.ST_RDONLY:
        return True
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        raw = fcntl.ioctl(handle, _GET_FLAGS, bytes(struct.calcsize("l")))
    except OSError:  # a file system without such flags
        return False
    return bool(struct.unpack_from("=I", raw)[0] & _UNCHANGEABLE)


def _foreign(handle: int) -> bool:
    """Whether what begins a file is not what SQLite wrote there."""
    return os.pread(handle, len(_BEGINS), 0) != _BEGINS


def _named(path: str) -> Identity | None:
    """What has this name; a link is no file of ours."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


# --- before a file is opened ----------------------------------------------------------------------------
def mend_log(path: Path) -> tuple[str, bool]:
    """Make a log that was cut off or emptied while nobody looked safe to open.

    SQLite would read it from its beginning. Where what is left of it was folded into the file before, along with more
    that is gone, that brings old pages back beside newer ones: such a log is taken away, the file alone is whole. And
    the index of a log that is shorter now must be made anew.

    Returns:
        What was found, a sentence or "", and whether the file should be looked through after it was opened.

    Raises:
        OSError: something cannot be taken away.
    """
    log, memory = log_of(path), memory_of(path)
    try:
        kept = Kept(memory)
    except OSError:
        return "", _bytes(log) > 0  # ended without closing, and nothing tells what was in it
    try:
        state = read_state(kept.number)
        if state is None or not state.frames:
            return "", _bytes(log) > 0 and state is None
        left = _left(log, state)
        if left == state.frames or read_state(kept.number) != state:
            return "", _was_overwritten(path, log, state)
    finally:
        kept.release()
    if left < state.folded or not left:
        log.unlink(missing_ok=True)
    memory.unlink(missing_ok=True)
    lost = state.frames - max(left, state.folded)
    if not lost:
        return "", True
    return (
        f"The log {log} had been emptied or cut off: what was acknowledged last before that is lost"
        f" (up to {lost * state.page:,} bytes), and the database goes on with what is whole."
    ), True


def is_cut(handle: int) -> bool:
    """Whether a file, from a descriptor, is shorter than its own header says, or none of SQLite's: it should be looked
    through, for what its log has of it may hide that. A new, empty file is not."""
    try:
        head, size = os.pread(handle, 100, 0), os.fstat(handle).st_size
    except OSError:
        return True
    if not size:
        return False
    page = int.from_bytes(head[16:18], "big")
    pages = int.from_bytes(head[28:32], "big")
    return not head.startswith(_BEGINS) or size < pages * (65536 if page == 1 else page)


def _left(log: Path, state: LogState) -> int:
    try:
        number = os.open(log, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return 0
    try:
        return valid_frames(number, state)
    finally:
        os.close(number)


def _was_overwritten(path: Path, log: Path, state: LogState) -> bool:
    """Whether a file that was not closed may have been written to by others after that: it is newer than a log that is
    to be folded in, or of another length than a log that is in it as a whole."""
    try:
        file = path.lstat()
        if state.pending:
            return file.st_mtime_ns > log.lstat().st_mtime_ns
        return file.st_size != state.pages * state.page
    except OSError:
        return True


def _bytes(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
