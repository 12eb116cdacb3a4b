"""The SQLite file that spans are kept in: one row a chunk, WAL, synchronous NORMAL.

A commit survives `kill -9` of the process; only a power cut may lose the last moments. Nothing here
waits for a disk flush per request, because the control plane's disk belongs to etcd.

Columns stand in the order in which readers need them: SQLite keeps a long row as a chain of pages, so the
index can be read without touching the bodies behind it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, cast
from urllib.parse import quote

from receiver.plain_text import one_line
from receiver.store import compression, ownership
from receiver.store.chunk import Chunk, unpack
from receiver.store.compression import MAX_BODY
from receiver.store.compression import compress as compress
from receiver.store.errors import StoreError as StoreError
from receiver.store.guest import GuestConnection
from receiver.store.intact import Intact, Loss, is_cut, may_have_folded, mend_log
from receiver.store.reading import Reader, bound, is_strange
from receiver.store.room import CHECKPOINT, KEPT_LOG, lacks_file, lacks_log, largest, pages_of
from receiver.store.wal import log_of, memory_of

APPLICATION_ID: Final = 0x6B747432
"""Marks the file as ours (SQLite's application_id)."""
FORMAT: Final = 1
"""Format of the file (SQLite's user_version)."""
_PAGE: Final = 8192
_BUSY_SECONDS: Final = 5.0
_FULL: Final = 1 << 20  # a disk with less space than this is full: SQLite calls it so only where write() said it
_INDEX: Final = "id, source, peer, received, names, spans, facts"
_COLUMNS: Final = _INDEX.count(",") + 1
_READER_SECONDS: Final = 1.0  # a reader is waited for so long before a full log is refused
_AGAIN_SECONDS: Final = 0.01
_MOMENT_SECONDS: Final = 10.0
_FOLD_AGAIN: Final = 1 << 20  # bytes of log: whoever reads keeps us from folding it, and each try flushes the disk
_TURNS: Final = 8  # retention looks at twice as much each time

_SCHEMA: Final = """
CREATE TABLE chunks(
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- never reused, so that "id > last" sees every new row
    received INTEGER NOT NULL,
    n INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    source TEXT NOT NULL,
    peer TEXT NOT NULL,
    sender TEXT NOT NULL DEFAULT '', -- in files of before it stands behind the body, or is not there
    names BLOB NOT NULL,
    spans BLOB NOT NULL,
    facts BLOB NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('generation', 0);
"""


class DatabaseMissing(StoreError):
    """There is no such file."""


class DatabaseMoved(StoreError):
    """The file is no longer where it was opened, or was cut off since."""


class DatabaseDamaged(StoreError):
    """The file is not what we write: foreign, cut off or corrupt."""


class NoRoom(StoreError):
    """Nothing more fits within the cap until something was evicted, or a reader is done.

    `wanted`: bytes that must be free for it; 0 where only the log has no room."""

    def __init__(self, sentence: str, wanted: int) -> None:
        super().__init__(sentence)
        self.wanted = wanted


class TooLarge(StoreError):
    """A span that would not fit within the cap, whatever was evicted."""


class DiskFull(StoreError):
    """The file cannot grow; what was acknowledged before is safe."""


def decompress(body: bytes, limit: int = MAX_BODY) -> bytes:
    """The request in a zstd frame.

    Raises:
        DatabaseDamaged: not a frame, or one that unpacks to more than `limit` bytes.
    """
    try:
        return compression.unpack(body, limit)
    except ValueError as error:
        raise DatabaseDamaged(f"A stored request {error}.") from error


class Database:
    """Chunks in a file (or in memory). Safe to call from several threads."""

    def __init__(self, connection: sqlite3.Connection, path: Path | None) -> None:
        self.path = path
        self.said = ""
        """What the operator should know of how it was opened, one sentence or ""."""
        self.bound: int | None = None
        """Bytes that file and log may have, LOG_ROOM more for a moment; None: any number."""
        self.make_room: Callable[[int], bool] | None = None
        """Asked when something does not fit: has so many bytes evicted, and says whether it is worth another try."""
        self.log_held = False
        """Something was refused because a reader keeps the log from beginning anew, and nothing was stored since."""
        self._connection = connection
        self._lock = threading.RLock()
        self._intact = None if path is None else Intact(path, lambda: self.size, self._is_whole)
        self._reader: Reader | None = None  # how it was opened to be read
        self._handle: int | None = None  # the file, where it is written
        self._tried = 0  # bytes of the log when it was last tried to fold it in
        self._page = _PAGE

    @classmethod
    def create(cls, path: str | Path) -> Database:
        """Open for writing, making the file (0600, its directory 0700) where there is none.

        Raises:
            DatabaseDamaged: a file is there and it is not ours, or it is damaged; it is left as it is.
            StoreError: it cannot be opened or made.
        """
        path = Path(path)
        try:
            path = ownership.our_file(path)
            ownership.make_folder(path.parent)
            ownership.our_files_beside(path)
            said = _set_aside(path)
            mended, doubtful = mend_log(path)
            # Kept open as long as the connection: to close it meanwhile would end SQLite's locks (fcntl(2)).
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                ownership.our_file(path)  # where others may make files, one may have been quicker
            except (StoreError, OSError):
                os.close(handle)
                raise
        except OSError as error:
            raise StoreError(
                f"The database {path} cannot be opened for writing ({error.strerror}): name another with --db."
            ) from error
        try:
            for one in (path, *(path.with_name(path.name + suffix) for suffix in ownership.BESIDE)):
                ownership.close_to_others(one)
            aside = _without_log(path) if doubtful or is_cut(handle) else ""
            database = cls(_connect(path, "rw"), path)
        except StoreError:
            os.close(handle)
            raise
        database._handle = handle
        database.said = " ".join(filter(None, (said, mended, aside)))
        try:
            if database._is_empty():
                database._make()
            database._verify()
            database._use_log()
            ownership.our_files_beside(path)
            database._settings()
            database._add_sender()
        except sqlite3.Error as error:
            database.close()
            _fail(error, path, writing=True)
        except StoreError:
            database.close()
            raise
        return database

    @classmethod
    def read(cls, path: str | Path) -> Database:
        """Open for reading, while a receiver writes or after it ended.

        Raises:
            DatabaseMissing: there is no such file, or nothing was ever stored in it.
            DatabaseDamaged: it is not ours, or it is damaged.
            StoreError: it cannot be opened.
        """
        path = Path(path)
        reader = Reader.of(path)
        if reader is None:
            raise DatabaseMissing(f"There is no database {path} yet: start k8s-trace-tui, or name one with --db.")
        last: sqlite3.Error | None = None
        for way in reader.ways():
            database = cls(_connect_to_read(reader, way), reader.path)
            database._reader = reader.by(way)
            try:
                bound(database._connection)
                if database._is_empty():
                    raise DatabaseMissing(
                        f"The database {path} is empty yet: start k8s-trace-tui, or name another with --db."
                    )
                database._verify()
                database._begin_to_watch()
                return database
            except sqlite3.OperationalError as error:
                database.close()
                last = error
            except sqlite3.DatabaseError as error:
                database.close()
                _fail(error, path)
            except StoreError:
                database.close()
                raise
        assert last is not None
        _fail(last, path, writing=True)  # a reader, too, may have to make the shared memory beside the file

    @classmethod
    def memory(cls) -> Database:
        """An empty one that lives and dies with this object."""
        database = cls(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False), None)
        database._make()
        return database

    # -- writing ------------------------------------------------------------------------------------
    def append(self, chunks: Sequence[Chunk]) -> list[int]:
        """Store chunks in one transaction; they are safe against `kill -9` when this returns.

        Returns:
            Their ids, ascending.

        Raises:
            DatabaseMoved: the files are not where they were, or not whole: whatever became of this call, nothing
                must be acknowledged.
            NoRoom, TooLarge: it does not fit within `bound`; nothing of this call is stored.
            DiskFull: no space; nothing of this call is stored.
            StoreError: anything else; nothing of this call is stored.
        """
        for _ in range(_TURNS):
            try:
                return self._transaction(chunks, ())
            except NoRoom as error:
                if self.make_room is None or not self.make_room(error.wanted):
                    raise
        return self._transaction(chunks, ())

    def replace(self, ids: Sequence[int], by: Sequence[Chunk]) -> list[int]:
        """Delete chunks and store others in one transaction (retention); raises the generation.

        Raises:
            DatabaseMoved, DiskFull, StoreError: as `append`.
        """
        return self._transaction(by, ids)

    def _transaction(self, chunks: Sequence[Chunk], gone: Sequence[int]) -> list[int]:
        rows = [_row(chunk) for chunk in chunks]
        # Most readers are done in a moment. Who was not by then is not waited for again each time.
        until = time.monotonic() + (0.0 if self.log_held else _READER_SECONDS)
        while (ids := self._try(rows, gone)) is None:
            if time.monotonic() >= until:
                self.log_held = True
                raise NoRoom(self._who_reads(), 0)
            time.sleep(_AGAIN_SECONDS)  # without the lock
        self.log_held = False
        return ids

    def _try(self, rows: Sequence[tuple[Any, ...]], gone: Sequence[int]) -> list[int] | None:
        """One transaction; None when the log has no room for it, and a reader keeps it from beginning anew."""
        with self._lock:
            if lost := self._lost(before=True):
                raise DatabaseMoved(lost)
            self._must_be_changeable()
            try:
                ids = self._write(rows, gone)
                if ids is None and self._empty_log():
                    ids = self._write(rows, gone)
                    if ids is None:  # no reader's doing: to wait would not help
                        raise NoRoom(f"The log of {self.path} has no room for so much at once.", 0)
            except sqlite3.Error as error:
                self._must_be_there(wrote=True)
                _fail(error, self.path, writing=True)
            self._must_be_there(wrote=True)
            if ids is not None:
                self._fold_log()
        return ids

    def _who_reads(self) -> str:
        process = None if self._intact is None else self._intact.reader()
        who = "somebody" if process is None else f"process {process} ({_name_of_process(process)})"
        return (
            f"Nothing more is stored in {self.path} for now: {who} reads it for long, so its log cannot begin anew and"
            " has grown to what it may have; end that, or wait until it is done."
        )

    def frees_log(self) -> bool:
        """Whether the log, which was held by a reader when something was refused, can begin anew; then it did.

        Raises:
            DatabaseMoved: the files are not whole.
        """
        with self._lock:
            with contextlib.suppress(sqlite3.Error):
                self.log_held = not self._empty_log()
            return not self.log_held

    def _write(self, rows: Sequence[tuple[Any, ...]], gone: Sequence[int]) -> list[int] | None:
        """One transaction; None when the log has no room for it.

        Raises:
            NoRoom: the file has none.
            sqlite3.Error: it failed. In each of these cases nothing of it was stored.
        """
        execute = self._connection.execute
        ids: list[int] = []
        execute("BEGIN IMMEDIATE")
        try:
            if gone:
                self._connection.executemany("DELETE FROM chunks WHERE id = ?", [(i,) for i in gone])
                execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")
            if not self._has_room(rows, len(gone)):
                execute("ROLLBACK")
                return None
            for row in rows:
                cursor = execute(
                    "INSERT INTO chunks(received, n, bytes, source, peer, sender, names, spans, facts, body)"
                    " VALUES (?,?,?,?,?,?,?,?,?,?)",
                    row,
                )
                ids.append(int(cursor.lastrowid or 0))
            execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise
        return ids

    def _has_room(self, rows: Sequence[tuple[Any, ...]], gone: int) -> bool:
        """Whether the log has room for a transaction. Inside it, so that no other writer comes between.

        Raises:
            NoRoom: the file has none.
        """
        if self.bound is None or self._intact is None:
            return True
        execute = self._connection.execute
        page = self._page
        file = int(execute("PRAGMA page_count").fetchone()[0]) * page
        free = int(execute("PRAGMA freelist_count").fetchone()[0])
        sizes = [row[2] for row in rows]
        pages = pages_of(sizes, page) + gone // 4
        if rows and lacks_file(file, free, pages, page, self.bound):
            most = max(sizes)
            if most > largest(self.bound):
                raise TooLarge(
                    f"A span takes {most:,} bytes, more than half of the {self.bound:,} that {self.path} may have:"
                    " allow more with --max-size."
                )
            raise NoRoom(
                f"{self.path} has all of the {self.bound:,} bytes that it may have, and what must go is not gone yet.",
                pages * page,
            )
        state, log = self._intact.state(), self._intact.log_bytes()
        return not lacks_log(file, free, pages, page, self.bound, log, log if state is None else state.end)

    def _must_be_there(self, *, wrote: bool = False, folded: bool = False) -> None:
        if lost := self._lost(wrote=wrote, folded=folded):
            raise DatabaseMoved(lost)

    # -- the log --------------------------------------------------------------------------------------
    def _fold_log(self) -> None:
        """Fold the log into the file when it is long enough for that to be worth a flush of the disk.

        Raises:
            DatabaseMoved: the files are not whole any more.
        """
        if self._intact is None:
            return
        state = self._intact.state()
        used = self._intact.log_bytes() if state is None else state.end
        if used < self._tried:
            self._tried = 0  # it began anew
        if used < CHECKPOINT or used < self._tried + _FOLD_AGAIN or (state is not None and not state.pending):
            return
        self._tried = used
        # A commit that worked has worked: what goes wrong here goes wrong again, when there is no room.
        with contextlib.suppress(sqlite3.Error):
            self._checkpoint("PASSIVE")

    def _checkpoint(self, mode: str) -> bool:
        """Fold the log into the file; whether all of it is there now.

        Raises:
            DatabaseMoved: the files are not whole: before, and nothing was done, or now.
            sqlite3.Error: it failed.
        """
        self._must_be_there()  # who wrote into the file until now is not taken for us afterwards
        self._must_be_changeable()
        before = None if self._intact is None else self._intact.state()
        try:
            busy, frames, done = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        finally:
            after = None if self._intact is None else self._intact.state()
            self._must_be_there(wrote=True, folded=may_have_folded(before, after))
        return not busy and frames == done

    def _empty_log(self, seconds: float = 0.0) -> bool:
        """Fold all of the log into the file and begin it anew, waiting so long for readers, with the lock; whether that
        worked."""
        execute = self._connection.execute
        execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
        try:
            emptied = self._checkpoint("TRUNCATE")
        finally:
            execute(f"PRAGMA busy_timeout = {int(_BUSY_SECONDS * 1000)}")
        self._tried = 0
        return emptied

    # -- reading ------------------------------------------------------------------------------------
    def read_after(self, last_id: int, limit: int = 256) -> list[Chunk]:
        """Chunks with an id above `last_id`, ascending, bodies left out.

        Raises:
            DatabaseDamaged: a row is not what we write.
        """
        return self._chunks(
            f"SELECT {_INDEX} FROM chunks WHERE id > ? ORDER BY id LIMIT ?",
            (last_id, limit),
        )

    def poll(self, last_id: int, limit: int = 256) -> tuple[int, list[Chunk]]:
        """The generation and `read_after`, of one moment.

        Retention stores anew, under a new id, what it carries over from a chunk that it deletes. A reader whose
        generation is behind must drop what is gone first, or it takes what was carried over for duplicates.

        Raises:
            DatabaseMoved: one of the files is gone or emptied, and another may be in its place: here nothing new would
                come.
            DatabaseDamaged: a row is not what we write.
        """
        if lost := self.lost():
            raise DatabaseMoved(lost)
        if self._reader is not None and self._reader.outdated:
            self._open_again()
        with self._lock:
            self._all("BEGIN")
            try:
                return self.generation(), self.read_after(last_id, limit)
            finally:
                self._all("COMMIT")

    def _begin_to_watch(self) -> None:
        """Know the files of a reader, unless it was told that nobody changes them."""
        if self._intact is not None and self._reader is not None and self._reader.watched:
            with self._reader.found.rights.held():
                self._intact.begin()

    def _open_again(self) -> None:
        """A file that was closed when it was opened is written to now, which SQLite was told it would not be."""
        assert self.path is not None
        fresh = Database.read(self.path)
        with self._lock:
            self._connection, fresh._connection = fresh._connection, self._connection
            self._reader = fresh._reader
            self._intact = Intact(self.path, lambda: self.size, self._is_whole)
            self._begin_to_watch()
        fresh.close()

    def lost(self) -> str:
        """What became of the files under us, as a sentence: SQLite does not see it, and goes on writing into a file
        without a name, or without what was in it. "" while they are there and whole. Then for good."""
        return self._lost()

    def _lost(self, *, before: bool = False, wrote: bool = False, folded: bool = False) -> str:
        intact, handle = self._intact, self._handle
        if intact is None:
            return ""
        with self._lock:
            known = intact.loss
            found = intact.look_before(handle) if before else intact.look(handle, wrote=wrote, folded=folded)
            if found is None:
                return ""
            if known is None and handle is not None:
                if found.rescue:
                    intact.loss = found = self._rescue(found)
                self._doubt(found)
            return found.what

    def _must_be_changeable(self) -> None:
        """SQLite, which would be killed where it touches what is mapped, must not be asked else.

        Raises:
            StoreError: one of the files may not be written to any more.
        """
        name = "" if self._intact is None else self._intact.frozen(self._handle)
        if name:
            raise StoreError(
                f"{name} may not be written to any more: make it changeable again (lsattr and chattr -ia show and undo"
                " it), or its file system writable."
            )

    def _doubt(self, loss: Loss) -> None:
        """Without the shared memory, which holds nothing that the log does not, whoever opens the file next looks
        through it, and through its log."""
        if loss.doubtful and self.path is not None:
            with contextlib.suppress(OSError):
                memory_of(self.path).unlink(missing_ok=True)

    @property
    def way_out(self) -> str:
        """What to do when the files are `lost`, a sentence."""
        loss = None if self._intact is None else self._intact.loss
        return "" if loss is None else loss.way_out

    def _rescue(self, loss: Loss) -> Loss:
        """The log is whole, only not where it belongs: whoever opens the file next would not see what is in it."""
        folded = False
        with contextlib.suppress(sqlite3.Error):
            busy, frames, done = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            folded = not busy and frames == done
        what = "Everything acknowledged is in the database." if folded else "What was acknowledged last may be lost."
        return Loss(f"{loss.what} {what}", loss.way_out)

    def _is_whole(self) -> bool | None:
        """Whether SQLite finds the file whole; None when it is busy."""
        assert self.path is not None
        if self._reader is not None and self._reader.found.guest:
            return None  # nothing of another user's is opened but with that user's rights
        return _sound(self.path)  # over a connection of its own: ours remembers pages that are gone

    @contextlib.contextmanager
    def moment(self) -> Iterator[None]:
        """What is read inside is of one moment, whatever retention does meanwhile.

        For ten seconds: the log cannot begin anew until the end, and the receiver refuses its senders when it is full.
        After that what was evicted is gone, as anywhere.

        Raises:
            StoreError: the file cannot be read.
        """
        self._all("BEGIN")
        timer = threading.Timer(_MOMENT_SECONDS, self._end_moment)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            self._end_moment()

    def _end_moment(self) -> None:
        with self._lock, contextlib.suppress(StoreError):
            if self._connection.in_transaction:
                self._all("COMMIT")

    def index_rows(self, ids: Iterable[int]) -> list[Chunk]:
        """The chunks of these ids that are still there, ascending, with their senders, bodies left out."""
        found: list[Chunk] = []
        with self._lock:
            sender = "sender" if self._has_sender() else "''"
            for some in _slices(sorted(set(ids))):
                marks = ",".join("?" * len(some))
                sql = f"SELECT {_INDEX}, {sender} FROM chunks WHERE id IN ({marks}) ORDER BY id"
                found += self._chunks(sql, some)
        return found

    def bodies(self, ids: Iterable[int]) -> dict[int, bytes]:
        """The serialised ExportTraceServiceRequest of each chunk that is still there."""
        found: dict[int, bytes] = {}
        for some in _slices(sorted(set(ids))):
            marks = ",".join("?" * len(some))
            for chunk_id, body in self._all(f"SELECT id, body FROM chunks WHERE id IN ({marks})", some):
                if type(body) is not bytes:
                    raise _damaged(self.path, TypeError("a request is not bytes"))
                found[chunk_id] = decompress(body)
        return found

    def packed_bodies(self, ids: Iterable[int]) -> dict[int, bytes]:
        """As `bodies`, but as they are stored; one that is no bytes at all is left out."""
        found: dict[int, bytes] = {}
        for some in _slices(sorted(set(ids))):
            marks = ",".join("?" * len(some))
            rows = self._all(f"SELECT id, body FROM chunks WHERE id IN ({marks})", some)
            found.update((chunk_id, body) for chunk_id, body in rows if type(body) is bytes)
        return found

    def whole_bodies(self, ids: Iterable[int], damaged: Callable[[int], None]) -> dict[int, bytes]:
        """As `bodies`, without those that cannot be unpacked: `damaged` takes the id of each.

        Raises:
            StoreError: the file cannot be read.
        """
        wanted = sorted(set(ids))
        try:
            return self.bodies(wanted)
        except DatabaseDamaged:
            found: dict[int, bytes] = {}
            for one in wanted:
                try:
                    found.update(self.bodies([one]))
                except DatabaseDamaged:
                    damaged(one)
            return found

    def ids(self) -> list[int]:
        """Ids of all chunks, ascending."""
        return self._numbers([row[0] for row in self._all("SELECT id FROM chunks ORDER BY id")])

    def chunk_sizes(self) -> list[tuple[int, int, int]]:
        """(id, received in ns, bytes) of all chunks, ascending by id.

        Raises:
            DatabaseDamaged: one of them is not a number.
        """
        rows: list[tuple[int, int, int]] = self._all("SELECT id, received, bytes FROM chunks ORDER BY id")
        if not all(type(received) is int and type(size) is int for _, received, size in rows):
            raise _damaged(self.path, TypeError("a chunk has a time or a size that is no number"))
        return rows

    def generation(self) -> int:
        """Rises whenever chunks were deleted: a reader then drops what is gone."""
        rows = self._all("SELECT value FROM meta WHERE key = 'generation'")
        if rows and type(rows[0][0]) is not int:
            raise _damaged(self.path, TypeError("its generation is no number"))
        return rows[0][0] if rows else 0

    def last_id(self) -> int:
        """The newest chunk's id, 0 for none."""
        rows = self._all("SELECT max(id) FROM chunks")
        return self._numbers([rows[0][0] or 0])[0]

    def _numbers(self, found: list[Any]) -> list[int]:
        if not set(map(type, found)) <= {int}:  # another user's table may have any columns
            raise _damaged(self.path, TypeError("a chunk's id is no number"))
        return found

    def live_bytes(self) -> int:
        """Bytes in use: pages of the file without the free ones."""
        with self._lock:
            pages, free = self._all("PRAGMA page_count"), self._all("PRAGMA freelist_count")
            size = self._all("PRAGMA page_size")
        return (int(pages[0][0]) - int(free[0][0])) * int(size[0][0])

    def shrink(self, size: int) -> int:
        """Give at most `size` bytes of free pages at the file's end back to the disk, moving what is behind them.

        Other connections may read meanwhile. The file itself gets shorter with the next `checkpoint`. A file that was
        made without this ability stays as it is.

        Returns:
            Bytes given back; 0 when there is nothing more to give.

        Raises:
            StoreError: the file cannot be changed.
        """
        with self._lock:
            self._must_be_there()
            before = self.size
            try:
                state = None if self._intact is None else self._intact.state()
                if state is not None and state.end + 4 * size > KEPT_LOG and not self._empty_log():
                    return 0  # somebody reads: later
                # A script, because Python's execute() would take a single step of it, which is a single page.
                self._connection.executescript(f"PRAGMA incremental_vacuum({max(1, size // self._page_size())})")
            except sqlite3.Error as error:
                self._must_be_there(wrote=True)
                _fail(error, self.path, writing=True)
            self._must_be_there(wrote=True)
            self._fold_log()
            return before - self.size

    @property
    def shrinks(self) -> bool:
        """Whether the file was made so that it can be made smaller."""
        return int(self._all("PRAGMA auto_vacuum")[0][0]) == 2

    @property
    def size(self) -> int:
        """Bytes of the file, free pages included, as soon as it is checkpointed."""
        return int(self._all("PRAGMA page_count")[0][0]) * self._page_size()

    def _page_size(self) -> int:
        return int(self._all("PRAGMA page_size")[0][0])

    def checkpoint(self, seconds: float = 0.0) -> None:
        """Fold the log into the file as far as readers let us, so that the file alone holds everything. They are waited
        for so long, and nothing can be stored or read meanwhile.

        Closing does so only where nobody else has the file open. Not after the file was moved away: it may have
        another log by now.
        """
        if self.path is None or self.lost():
            return
        # Without it nothing is lost: the log stays.
        with self._lock, contextlib.suppress(sqlite3.Error, DatabaseMoved):
            self._empty_log(seconds)

    def close(self) -> None:
        """Give the file back; a writer's log is folded in, unless the files are `lost`: what is in the log then does
        not go with what is in the file, and the connection stays open until the process ends."""
        with self._lock:
            handle, self._handle = self._handle, None
            intact = self._intact
            if intact is not None and (intact.frozen(handle) or (handle is not None and intact.look(handle))):
                _abandon(self._connection)
                self._connection = sqlite3.connect(":memory:")
                self._connection.close()
                return
            self._connection.close()
            if self._intact is not None:
                self._intact.end()
            if handle is not None:
                os.close(handle)

    # -- opening --------------------------------------------------------------------------------------
    def _is_empty(self) -> bool:
        """Whether nobody ever made anything in the file: what a first start leaves that was cut short."""
        execute = self._connection.execute
        marks = (execute(f"PRAGMA {mark}").fetchone()[0] for mark in ("application_id", "user_version"))
        return not any(marks) and execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0

    def _make(self) -> None:
        execute = self._connection.execute
        execute(f"PRAGMA page_size = {_PAGE}")
        execute("PRAGMA auto_vacuum = INCREMENTAL")  # so that `shrink` can give back what retention freed
        # All in one transaction with the marks, and the log comes later: whoever is killed in the middle, or has no
        # space, leaves an empty file, and a file that is not empty is wholly ours without a log beside it.
        execute("BEGIN IMMEDIATE")
        try:
            if self._is_empty():  # nobody was faster
                for statement in _SCHEMA.split(";\n"):
                    execute(statement)
                execute(f"PRAGMA application_id = {APPLICATION_ID}")
                execute(f"PRAGMA user_version = {FORMAT}")
            execute("COMMIT")
        except sqlite3.Error:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise
        if self.path is not None and execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()  # of an empty file that had a log already

    def _settings(self) -> None:
        execute = self._connection.execute
        execute("PRAGMA synchronous = NORMAL")
        execute("PRAGMA wal_autocheckpoint = 0")  # `_fold_log` looks first whether the log is whole
        execute(f"PRAGMA journal_size_limit = {KEPT_LOG}")
        # Some builds write zeros over what is deleted, through the log: 64 MiB of it for an eviction.
        execute("PRAGMA secure_delete = FAST").fetchone()
        self._page = self._page_size()
        assert self._intact is not None
        self.last_id()  # the first look makes the log
        self._intact.begin()
        # What a killed process left may be longer than any log of ours.
        with contextlib.suppress(sqlite3.Error):
            if self._intact.log_bytes() > KEPT_LOG:
                self._empty_log(_READER_SECONDS)

    def _add_sender(self) -> None:
        """A file of before gets the column at its end, which older programs pass over."""
        execute = self._connection.execute
        if self._has_sender():
            return
        execute("BEGIN IMMEDIATE")
        try:
            if not self._has_sender():  # nobody was faster
                execute("ALTER TABLE chunks ADD COLUMN sender TEXT NOT NULL DEFAULT ''")
            execute("COMMIT")
        except sqlite3.Error:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise

    def _has_sender(self) -> bool:
        return any(row[1] == "sender" for row in self._connection.execute("PRAGMA table_info(chunks)"))

    def _use_log(self) -> None:
        until = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                # Another one makes or opens it at this moment: SQLite does not wait for that by itself.
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
            time.sleep(0.02)

    def _verify(self) -> None:
        execute = self._connection.execute
        application = int(execute("PRAGMA application_id").fetchone()[0])
        version = int(execute("PRAGMA user_version").fetchone()[0])
        if application != APPLICATION_ID or is_strange(self._connection):
            raise DatabaseDamaged(
                f"{self.path} is not a k8s-trace-tui database: it is left as it is; name another with --db."
            )
        if version != FORMAT:
            raise DatabaseDamaged(
                f"{self.path} has format {version}, this version reads {FORMAT}: name another with --db,"
                " or open it with the version that wrote it."
            )
        # Walks the table's own pages without the long rows behind them: finds a cut-off or overwritten file.
        execute("SELECT count(*), max(id) FROM chunks").fetchone()
        newest = execute(f"SELECT {_INDEX} FROM chunks ORDER BY id DESC LIMIT 1").fetchone()
        if newest is not None:
            try:
                unpack(*newest)
            except (ValueError, TypeError) as error:
                raise _damaged(self.path, error) from error

    def _all(self, sql: str, values: Sequence[int] = ()) -> list[Any]:
        try:
            with self._lock:
                self._must_be_changeable()
                return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            _fail(error, self.path)

    def _chunks(self, sql: str, values: Sequence[int]) -> list[Chunk]:
        try:
            chunks = []
            for row in self._all(sql, values):
                chunks.append(unpack(*row[:_COLUMNS]))
                if len(row) > _COLUMNS:
                    if type(row[_COLUMNS]) is not str:
                        raise TypeError("chunk has a sender that is no text")
                    chunks[-1].sender = row[_COLUMNS]
            return chunks
        except (ValueError, TypeError) as error:
            raise _damaged(self.path, error) from error


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    try:
        return sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=_BUSY_SECONDS,
        )
    except sqlite3.Error as error:
        _fail(error, path)


def _connect_to_read(reader: Reader, way: str) -> sqlite3.Connection:
    if not reader.found.guest:
        return _connect(reader.path, way)
    if reader.found.rights.uid is None and not os.access(reader.path, os.R_OK):
        _fail(sqlite3.OperationalError("unable to open database file"), reader.path)
    # It has what a reader uses of one.
    return cast("sqlite3.Connection", GuestConnection(reader.path.absolute(), way, reader.found.rights))


def _row(chunk: Chunk) -> tuple[Any, ...]:
    """The columns of a chunk, as they are inserted."""
    names, spans, facts = chunk.names_blob(), chunk.spans.tobytes(), chunk.facts.tobytes()
    size = len(names) + len(spans) + len(facts) + len(chunk.body)
    return (
        chunk.received,
        len(chunk.spans),
        size,
        chunk.source,
        chunk.peer,
        chunk.sender,
        names,
        spans,
        facts,
        chunk.body,
    )


def _name_of_process(process: int) -> str:
    try:
        return one_line(Path(f"/proc/{process}/comm").read_text("utf-8", "replace").strip())
    except OSError:
        return "ended by now"


def _sound(path: Path) -> bool | None:
    """Whether a file with its log is whole, as SQLite finds it; None when it is busy, or cannot be opened now: for want
    of files, too, it must not count as damaged. Changes nothing."""
    try:
        fresh = _connect(path, "ro")
    except StoreError:
        return None
    try:
        return bool(fresh.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    except sqlite3.OperationalError as error:
        return None if any(one in str(error) for one in ("locked", "unable to open")) else False
    except sqlite3.DatabaseError:
        return False
    finally:
        fresh.close()


def _without_log(path: Path) -> str:
    """Look through a file that was not closed and whose log was tampered with, or of which nothing tells what it was.
    A log with which the file is damaged, and without it is not, is set aside.

    Returns:
        What was done, "" for nothing.

    Raises:
        DatabaseDamaged: it is damaged without its log, too; everything is left as it is.
        StoreError: the log cannot be moved.
    """
    log = log_of(path)
    if _sound(path) is not False:
        return ""
    aside = log.with_name(log.name + ".damaged")
    try:
        if not log.exists():
            raise _damaged(path, ValueError("it was cut off or overwritten"))
        memory_of(path).unlink(missing_ok=True)
        log.replace(aside)
        if _sound(path) is False:
            aside.replace(log)
            raise _damaged(path, ValueError("it was cut off or overwritten"))
    except OSError as error:
        raise StoreError(
            f"{path} is damaged, and its log cannot be moved ({error.strerror}): name another with --db."
        ) from error
    return f"The log of {path} did not go with it any more: it is now {aside}, and what was only in it is lost."


_abandoned: Final[list[sqlite3.Connection]] = []


def _abandon(connection: sqlite3.Connection) -> None:
    """Never close a connection: SQLite would fold a log in that is not whole, or take away another's."""
    import ctypes  # only here

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))  # not even when the interpreter ends
    _abandoned.append(connection)


def _set_aside(path: Path) -> str:
    """Take the log of a file that is gone out of the way: SQLite would apply it to the new file, and damage that.

    It is kept, because the newest spans of the old file may be in it, under a name that goes with the old file if that
    is found again. One is kept: the next replaces it.

    Returns:
        What was done, "" for nothing.

    Raises:
        OSError: it cannot be moved.
    """
    log, memory = (path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))
    there = [one for one in (log, memory) if one.exists()]
    # In this order: who makes the file at this moment makes its log after it.
    if not there or (path.exists() and path.stat().st_size):
        return ""
    memory.unlink(missing_ok=True)  # holds nothing that the log does not
    if not log.exists() or not log.stat().st_size:
        log.unlink(missing_ok=True)
        return ""
    gone = path.with_name(path.name + ".gone")
    aside = gone.with_name(gone.name + "-wal")
    log.replace(aside)
    return (
        f"{path} was taken away without its log, and is begun anew: the log is now {aside}, and is read with the old"
        f" file if that is named {gone}."
    )


def _full(path: Path | None) -> bool:
    """Whether the disk of a file has no space for us."""
    if path is None:
        return False
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return False
    return (disk.f_bavail if os.geteuid() else disk.f_bfree) * disk.f_frsize < _FULL


def _slices(ids: Sequence[int], size: int = 500) -> Iterable[Sequence[int]]:
    return (ids[i : i + size] for i in range(0, len(ids), size))


def _damaged(path: Path | None, error: Exception) -> DatabaseDamaged:
    return DatabaseDamaged(
        f"The database {path} is damaged ({error}): name another with --db, or move this one aside, together with"
        f" {path}-wal if that is there, to start anew."
    )


def _fail(error: sqlite3.Error, path: Path | None, *, writing: bool = False) -> NoReturn:
    """Turn SQLite's error into ours. By its text: `sqlite_errorcode` came only with Python 3.11."""
    text = str(error)
    broken = "disk I/O error" in text
    if "disk is full" in text or (broken and writing and _full(path)):
        raise DiskFull(f"No space for {path} ({text}): free some, or name another place with --db.") from error
    if broken:
        raise StoreError(
            f"The disk or file system under {path} fails ({text}): see what the kernel says about it (dmesg),"
            " or name another place with --db."
        ) from error
    if "malformed" in text or "not a database" in text or "no such table" in text:
        raise _damaged(path, error) from error
    if "locked" in text:
        raise StoreError(
            f"The database {path} is locked by another program: stop it, or name another with --db."
        ) from error
    raise StoreError(f"The database {path} cannot be used ({text}): name another with --db.") from error
