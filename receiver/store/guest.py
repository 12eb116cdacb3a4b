"""A connection to another user's database: SQLite runs in a process of its own, which can be ended but not used.

SQLite maps the shared memory beside a database. Who owns that file can cut it off while it is looked into, and the
kernel then ends the process that looks (SIGBUS). What is in the file is that user's, too, and SQLite makes its way
through all of it. So neither happens in the process of who only wants to look: a child does it, which for root has
given up all of root's rights for those of the owner. What it answers is taken as that user's: bounded and checked, and
read by nothing that could run it.

    question   COUNT, JSON: the statement, its values (integers), how many seconds it may take
    answer     per row ROW, and per column CELL with the bytes of a text or blob; then END and whether a transaction is
               open; or FAILED, COUNT, JSON: the kind of the error and its text
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import quote

from receiver.plain_text import one_line
from receiver.store import reading
from receiver.store.errors import StoreError
from receiver.store.ownership import Rights

_COUNT: Final = struct.Struct("<I")
_CELL: Final = struct.Struct("<Bq")
_INTEGER, _REAL, _TEXT, _BLOB, _NULL = range(5)
_ROW, _END, _FAILED = b"R", b"E", b"F"
_REAL_BITS: Final = struct.Struct("<d")
_BITS: Final = struct.Struct("<q")
_LONGEST_ERROR: Final = 4096
_MOST_BYTES: Final = 1 << 30  # of one answer
_MOST_COLUMNS: Final = 32
_MORE_SECONDS: Final = 10.0  # beyond what a statement may take, for its rows to come
_END_SECONDS: Final = 2.0
_STEPS: Final = 100_000  # of SQLite's machine, some milliseconds
_BUSY_SECONDS: Final = 5.0
_ERRORS: Final = {
    one.__name__: one
    for one in (sqlite3.DatabaseError, sqlite3.OperationalError, sqlite3.InterfaceError, sqlite3.DataError)
}
_ENVIRONMENT: Final = ("LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH")
"""What the child has of ours: all else, such as tokens, is nothing to who gets hold of it."""
_AT_ONCE: Final = 256 << 10
_PROGRAM: Final = "import sys; sys.path[:] = {path!a}; from receiver.store import guest; guest.serve(sys.argv[1])"


class _Broken(Exception):
    """An answer that is none."""


class Rows:
    """What a statement found, as `sqlite3.Cursor` gives it."""

    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self._rows = rows
        self._left = iter(rows)

    def fetchone(self) -> Any:
        """The next row, None after the last."""
        return next(self._left, None)

    def fetchall(self) -> list[Any]:
        """Those that are left."""
        return list(self._left)

    def __iter__(self) -> Iterator[Any]:
        return self._left


class GuestConnection:
    """What a reader uses of `sqlite3.Connection`, for a database that a child reads. For one thread at a time."""

    def __init__(self, path: Path, mode: str, rights: Rights) -> None:
        """Nothing is opened before the first statement.

        Args:
            path: absolute.
            mode: SQLite's, with its other options.
            rights: what the child has.

        Raises:
            StoreError: there is no process to be had.
        """
        self.in_transaction = False
        self._path = path
        self._until = 0.0
        asked = {
            "uri": f"file:{quote(str(path))}?mode={mode}",
            "uid": rights.uid,
            "gid": rights.gid,
            "searches": rights.searches,
        }
        code = [*map(os.path.abspath, sys.path), str(Path(__file__).absolute().parents[2])]
        ours, theirs = socket.socketpair()
        try:
            # In /, and with its own session: Ctrl-C is for us. Isolated (-I): while it is root it takes no code from
            # the home or the variables of whoever called sudo.
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-IB",
                    "-c",
                    _PROGRAM.format(path=code),
                    json.dumps(asked),
                ],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            )
        except OSError as error:
            ours.close()
            raise StoreError(
                f"{path} is another user's and read by a process of its own, which cannot be started"
                f" ({error.strerror}): see what limits processes here (ulimit -u)."
            ) from error
        finally:
            theirs.close()
        self._socket = ours
        self._stream = ours.makefile("rb")

    def execute(self, sql: str, values: Sequence[int] = ()) -> Rows:
        """As `sqlite3.Connection.execute`, with all rows. Takes `reading.GUEST_SECONDS` at most, and some for the rows.

        Raises:
            sqlite3.Error: as SQLite says.
            StoreError: the child has ended, or what it says is no answer.
        """
        seconds = reading.GUEST_SECONDS
        question = json.dumps([sql, list(values), seconds]).encode()
        self._until = time.monotonic() + seconds + _BUSY_SECONDS + _MORE_SECONDS
        try:
            self._socket.settimeout(seconds + _BUSY_SECONDS + _MORE_SECONDS)
            self._socket.sendall(_COUNT.pack(len(question)) + question)
            return Rows(self._answer())
        except sqlite3.Error:
            raise
        except TimeoutError:
            self._kill()
            raise StoreError(f"The reader of {self._path} does not answer: open it again.") from None
        except (OSError, EOFError):
            raise StoreError(self._ended()) from None
        except (_Broken, ValueError, TypeError, RecursionError, struct.error):
            self._kill()
            raise StoreError(f"The reader of {self._path} gave no answer that can be used: open it again.") from None
        except BaseException:
            self._kill()  # Ctrl-C: the rest of the answer would be taken for the next one
            raise

    def close(self) -> None:
        """End the child."""
        self._stream.close()
        self._socket.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()

    def _answer(self) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        left = _MOST_BYTES
        while (kind := self._exactly(1)) == _ROW:
            (columns,) = self._exactly(1)
            left -= 64  # what it takes here, about, as each of its values
            if columns > _MOST_COLUMNS or left < 0 or time.monotonic() > self._until:
                raise _Broken
            row = []
            for _ in range(columns):
                value, size = self._cell()
                left -= size + 64
                if left < 0:
                    raise _Broken
                row.append(value)
            rows.append(tuple(row))
        if kind == _END:
            self.in_transaction = self._exactly(1) == b"\1"
            return rows
        if kind != _FAILED:
            raise _Broken
        (size,) = _COUNT.unpack(self._exactly(_COUNT.size))
        if size > _LONGEST_ERROR:
            raise _Broken
        name, text = map(str, json.loads(self._exactly(size)))
        if name == StoreError.__name__:
            raise StoreError(one_line(text))
        raise _ERRORS.get(name, sqlite3.DatabaseError)(one_line(text))

    def _cell(self) -> tuple[Any, int]:
        kind, value = _CELL.unpack(self._exactly(_CELL.size))
        if kind == _INTEGER:
            return value, 0
        if kind == _NULL:
            return None, 0
        if kind == _REAL:
            return _REAL_BITS.unpack(_BITS.pack(value))[0], 0
        if kind not in (_TEXT, _BLOB) or not 0 <= value <= reading.LONGEST_ROW:
            raise _Broken
        data = self._exactly(value)
        return (data.decode() if kind == _TEXT else data), value

    def _exactly(self, count: int) -> bytes:
        data = self._stream.read1(min(count, _AT_ONCE)) if count else b""
        if len(data) == count:
            return data
        found = bytearray(data)
        while len(found) < count:  # whoever sends byte by byte has no more time than others
            if not data:
                raise EOFError
            if time.monotonic() > self._until:
                raise TimeoutError
            data = self._stream.read1(min(count - len(found), _AT_ONCE))
            found += data
        return bytes(found)

    def _ended(self) -> str:
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()
            code = 0
        how = ""
        if code < 0:
            with contextlib.suppress(ValueError):
                how = f" ({signal.Signals(-code).name})"
        return (
            f"The reader of {self._path} ended{how}: its owner changed the files while they were read, or ended it;"
            " open it again."
        )

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()


# --- the child ------------------------------------------------------------------------------------------
def serve(asked: str) -> None:
    """The child's work: answer on standard input, a socket, until that ends.

    Args:
        asked: JSON of which database is read, and with which rights.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    wanted = json.loads(asked)
    child = _Child(wanted["uri"], Rights(wanted["uid"], wanted["gid"], wanted["searches"]))
    stream = socket.socket(fileno=os.dup(0))
    source, sink = stream.makefile("rb"), stream.makefile("wb")
    while head := source.read(_COUNT.size):
        sql, values, seconds = json.loads(source.read(_COUNT.unpack(head)[0]))
        try:
            child.answer(sink, sql, values, seconds)
        except (sqlite3.Error, StoreError) as error:
            kind = type(error) if isinstance(error, sqlite3.Error) else StoreError
            text = json.dumps([kind.__name__, str(error)[:500]]).encode()
            sink.write(_FAILED + _COUNT.pack(len(text)) + text)
        sink.flush()


class _Child:
    def __init__(self, uri: str, rights: Rights) -> None:
        self._uri = uri
        self._rights = rights
        self._until = 0.0
        self._connection: sqlite3.Connection | None = None

    def answer(self, sink: IO[bytes], sql: str, values: Sequence[int], seconds: float) -> None:
        self._until = time.monotonic() + seconds
        if self._connection is None:
            self._connection = self._connect()
        _send(sink, self._connection.execute(sql, values))
        sink.write(_END + (b"\1" if self._connection.in_transaction else b"\0"))

    def _connect(self) -> sqlite3.Connection:
        self._rights.take_for_good()
        connection = sqlite3.connect(self._uri, uri=True, isolation_level=None, timeout=_BUSY_SECONDS)
        connection.set_authorizer(_only_tables)
        connection.set_progress_handler(lambda: time.monotonic() > self._until, _STEPS)
        reading.bound(connection)
        # SQLite opens log and shared memory with the first statement that reads.
        connection.execute("PRAGMA application_id").fetchone()
        self._rights.search_no_more()
        return connection


def _send(sink: IO[bytes], rows: sqlite3.Cursor) -> None:
    for row in rows:
        sink.write(_ROW + bytes([len(row)]))
        for value in row:
            if value is None:
                sink.write(_CELL.pack(_NULL, 0))
            elif isinstance(value, int):
                sink.write(_CELL.pack(_INTEGER, value))
            elif isinstance(value, float):
                sink.write(_CELL.pack(_REAL, _BITS.unpack(_REAL_BITS.pack(value))[0]))
            else:
                data = value.encode() if isinstance(value, str) else value
                sink.write(_CELL.pack(_TEXT if isinstance(value, str) else _BLOB, len(data)))
                sink.write(data)


def _only_tables(
    action: int, _first: str | None, _second: str | None, _database: str | None, within: str | None
) -> int:
    """SQLite's authorizer (sqlite3_set_authorizer): the owner can put a view in the place of a table at any moment.
    `within` is the view or trigger that something is read for."""
    return sqlite3.SQLITE_DENY if within is not None or action == sqlite3.SQLITE_RECURSIVE else sqlite3.SQLITE_OK
