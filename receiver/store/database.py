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
from typing import Any, Final, NoReturn
from urllib.parse import quote

from receiver.store import compression, ownership
from receiver.store.chunk import Chunk, unpack
from receiver.store.compression import MAX_BODY
from receiver.store.compression import compress as compress
from receiver.store.errors import StoreError as StoreError
from receiver.store.ownership import OUR_RIGHTS, Rights
from receiver.store.reading import OwnersConnection, Reader, bound, is_strange

APPLICATION_ID: Final = 0x6B747432
"""Marks the file as ours (SQLite's application_id)."""
FORMAT: Final = 1
"""Format of the file (SQLite's user_version)."""
_PAGE: Final = 8192
_BUSY_SECONDS: Final = 5.0
_FULL: Final = 1 << 20  # a disk with less space than this is full: SQLite calls it so only where write() said it
_INDEX: Final = "id, source, peer, received, names, spans, facts"

_SCHEMA: Final = """
CREATE TABLE chunks(
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- never reused, so that "id > last" sees every new row
    received INTEGER NOT NULL,
    n INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    source TEXT NOT NULL,
    peer TEXT NOT NULL,
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
        self._connection = connection
        self._lock = threading.RLock()
        self._file = None if path is None else _identity(path)
        self._reader: Reader | None = None  # how it was opened to be read
        self._handle: int | None = None  # the file, where it is written
        self._hole = 0  # where the first one of the file begins that was found to be harmless
        self._seen = 0  # bytes of the file when `lost` looked last

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
            database = cls(_connect(path, "rw"), path)
        except StoreError:
            os.close(handle)
            raise
        database._handle = handle
        database.said = said
        try:
            if database._is_empty():
                database._make()
            database._verify()
            database._use_log()
            ownership.our_files_beside(path)
            database._connection.execute("PRAGMA synchronous = NORMAL")
            database._connection.execute("PRAGMA journal_size_limit = 16777216")
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
            database = cls(_connect(reader.path, way, reader.found.rights), reader.path)
            database._reader = reader.by(way)
            try:
                bound(database._connection)
                if database._is_empty():
                    raise DatabaseMissing(
                        f"The database {path} is empty yet: start k8s-trace-tui, or name another with --db."
                    )
                database._verify()
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
            DiskFull: no space; nothing of this call is stored.
            StoreError: anything else; nothing of this call is stored.
        """
        with self._lock:
            return self._transaction(chunks, ())

    def replace(self, ids: Sequence[int], by: Sequence[Chunk]) -> list[int]:
        """Delete chunks and store others in one transaction (retention); raises the generation.

        Raises:
            DiskFull, StoreError: as `append`.
        """
        with self._lock:
            return self._transaction(by, ids)

    def _transaction(self, chunks: Sequence[Chunk], gone: Sequence[int]) -> list[int]:
        execute = self._connection.execute
        ids: list[int] = []
        try:
            execute("BEGIN IMMEDIATE")
            if gone:
                self._connection.executemany("DELETE FROM chunks WHERE id = ?", [(i,) for i in gone])
                execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")
            for chunk in chunks:
                names, spans, facts = chunk.names_blob(), chunk.spans.tobytes(), chunk.facts.tobytes()
                size = len(names) + len(spans) + len(facts) + len(chunk.body)
                cursor = execute(
                    "INSERT INTO chunks(received, n, bytes, source, peer, names, spans, facts, body)"
                    " VALUES (?,?,?,?,?,?,?,?,?)",
                    (chunk.received, len(chunk.spans), size, chunk.source, chunk.peer, names, spans, facts, chunk.body),
                )
                ids.append(int(cursor.lastrowid or 0))
            execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            _fail(error, self.path, writing=True)
        return ids

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
            DatabaseMoved: the file is gone or emptied, and another may be in its place: here nothing new would come.
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

    def _open_again(self) -> None:
        """A file that was closed when it was opened is written to now, which SQLite was told it would not be."""
        assert self.path is not None
        fresh = Database.read(self.path)
        with self._lock:
            self._connection, fresh._connection = fresh._connection, self._connection
            self._reader = fresh._reader
        fresh.close()

    def lost(self) -> str:
        """What became of the file under us, as a sentence: SQLite sees neither, and goes on writing into a file
        without a name, or without what was in it. "" while it is there. Costs one look at the directory.

        A file is never shorter than what SQLite has folded into it: a first page from the beginning, and each later
        page is in the file or in the log.
        """
        if self.path is None:
            return ""
        try:
            found = self.path.stat()
        except OSError:
            return f"The database {self.path} was moved or removed while it was in use."
        if (found.st_dev, found.st_ino) != self._file:
            return f"The database {self.path} was moved or removed while it was in use."
        size, self._seen = self._seen, found.st_size
        short = found.st_size < _PAGE or (found.st_size < size and self._lacks_pages(found.st_size))
        if short or self._has_hole(found.st_size):
            self._seen = size
            return f"The database {self.path} was emptied or cut off while it was in use."
        return ""

    def _lacks_pages(self, size: int) -> bool:
        """Whether a file of so many bytes misses pages that cannot be in its log: else it was `shrink`."""
        assert self.path is not None
        try:
            log = self.path.with_name(self.path.name + "-wal").stat().st_size
        except OSError:
            log = 0
        try:
            return size + log < self.size
        except StoreError:
            return True

    def _has_hole(self, size: int) -> bool:
        """Whether a checkpoint made a file that was cut off as long as before, with nothing where its pages were. A
        page that was made and freed between two checkpoints leaves a hole, too: SQLite tells which it is."""
        if self._handle is None or not hasattr(os, "SEEK_HOLE"):
            return False
        try:
            hole = os.lseek(self._handle, 0, os.SEEK_HOLE)
        except OSError:  # a file system that cannot tell
            return False
        if hole >= size or hole == self._hole:
            return False
        assert self.path is not None
        fresh = _connect(self.path, "ro")  # ours remembers pages that are gone
        try:
            whole = fresh.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
        except sqlite3.OperationalError:  # busy: the next look tells
            return False
        except sqlite3.DatabaseError:
            whole = False
        finally:
            fresh.close()
        if whole:
            self._hole = hole
        return not whole

    @contextlib.contextmanager
    def moment(self) -> Iterator[None]:
        """What is read inside is of one moment, whatever retention does meanwhile; the log cannot shrink until the end.

        Raises:
            StoreError: the file cannot be read.
        """
        with self._lock:
            self._all("BEGIN")
            try:
                yield
            finally:
                if self._connection.in_transaction:
                    self._all("COMMIT")

    def index_rows(self, ids: Iterable[int]) -> list[Chunk]:
        """The chunks of these ids that are still there, ascending, bodies left out."""
        found: list[Chunk] = []
        for some in _slices(sorted(set(ids))):
            marks = ",".join("?" * len(some))
            found += self._chunks(f"SELECT {_INDEX} FROM chunks WHERE id IN ({marks}) ORDER BY id", some)
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
        return [row[0] for row in self._all("SELECT id FROM chunks ORDER BY id")]

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
        return int(rows[0][0] or 0)

    def live_bytes(self) -> int:
        """Bytes in use: pages of the file without the free ones."""
        with self._lock:
            pages, free = self._all("PRAGMA page_count"), self._all("PRAGMA freelist_count")
            size = self._all("PRAGMA page_size")
        return (int(pages[0][0]) - int(free[0][0])) * int(size[0][0])

    def shrink(self, size: int) -> int:
        """Give at most `size` bytes of free pages at the file's end back to the disk, moving what is behind them.

        Other connections may read meanwhile. The file itself gets shorter with the next checkpoint, which is tried. A
        file that was made without this ability stays as it is.

        Returns:
            Bytes given back; 0 when there is nothing more to give.

        Raises:
            StoreError: the file cannot be changed.
        """
        with self._lock:
            before = self.size
            try:
                # A script, because Python's execute() would take a single step of it, which is a single page.
                self._connection.executescript(f"PRAGMA incremental_vacuum({max(1, size // self._page_size())})")
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            except sqlite3.Error as error:
                _fail(error, self.path, writing=True)
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

    def checkpoint(self) -> None:
        """Fold the log into the file as far as readers let us, so that the file alone holds everything.

        Closing does so only where nobody else has the file open. Not after the file was moved away: it may have
        another log by now.
        """
        if self.path is None or self.lost():
            return
        with self._lock, contextlib.suppress(sqlite3.Error):  # without it nothing is lost: the log stays
            self._connection.execute("PRAGMA busy_timeout = 1000")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def close(self) -> None:
        """Give the file back; a writer's log is folded in."""
        with self._lock:
            self._connection.close()
            handle, self._handle = self._handle, None
            if handle is not None:
                os.close(handle)

    # -- inside ---------------------------------------------------------------------------------------
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
                return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            _fail(error, self.path)

    def _chunks(self, sql: str, values: Sequence[int]) -> list[Chunk]:
        try:
            return [unpack(*row) for row in self._all(sql, values)]
        except (ValueError, TypeError) as error:
            raise _damaged(self.path, error) from error


def _connect(path: Path, mode: str, rights: Rights = OUR_RIGHTS) -> sqlite3.Connection:
    try:
        with rights.held():
            connection = sqlite3.connect(
                f"file:{quote(str(path.absolute()))}?mode={mode}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=_BUSY_SECONDS,
                factory=OwnersConnection if rights.uid is not None else sqlite3.Connection,
            )
        if isinstance(connection, OwnersConnection):
            connection.rights = rights
        return connection
    except sqlite3.Error as error:
        _fail(error, path)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


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
