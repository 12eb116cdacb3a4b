"""How a database is opened to be read: our own, or as a guest in another user's directory, where nothing may be made.

SQLite makes the shared memory beside a database, and its log, where it does not find them, for a reader too. A guest's
connection uses what is there and makes nothing. The database of another user may hold anything: views that never end,
columns that compute, rows of a gigabyte. So another process reads it (`guest`).
"""

from __future__ import annotations

import os
import sqlite3
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from receiver.store.errors import NotOurs, StoreError
from receiver.store.ownership import BESIDE, Guest, database_to_read, name_of

_READ: Final = "ro"
_CLOSED: Final = "ro&immutable=1"
"""Nobody changes the file: it needs neither log nor shared memory."""
_AS_GUEST: Final = "ro&readonly_shm=1"
_LIMIT_LENGTH: Final = 0  # sqlite3.h
LONGEST_ROW: Final = 128 << 20
"""Bytes of a row, or of anything in it; a request and what is known of its spans take half of that at most."""
GUEST_SECONDS: Final = 30.0
"""One statement on another user's database takes this long at most."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A database that is read, and how it was opened."""

    path: Path
    """Links resolved where it is another user's: a link may lead elsewhere by the time it is followed again."""
    found: Guest
    way: str = ""

    @classmethod
    def of(cls, path: Path) -> Reader | None:
        """Look at a database; None where there is none.

        Raises:
            NotOurs: root cannot tell whose it is, or it is no file.
            OSError: it cannot be looked at.
        """
        found = database_to_read(path)
        if not found.path.exists():
            return None
        return cls(found.path if found.guest else path, found)

    def ways(self) -> tuple[str, ...]:
        """SQLite's options, to be tried one after the other.

        Raises:
            StoreError: a guest cannot read it.
        """
        log = _size(self.path, "-wal")
        if not self.found.guest:
            # A closed file in a directory that we may not write to: WAL refuses it unless it is told that nobody
            # changes the file, which holds when there is no log beside it.
            return (_READ,) if log else (_READ, _CLOSED)
        for suffix in BESIDE:
            one = self.path.with_name(self.path.name + suffix)
            try:
                kind = os.lstat(one).st_mode
            except FileNotFoundError:
                continue
            if not stat.S_ISREG(kind):
                raise NotOurs(f"{one} is no regular file, so {self.path} is not opened: name another with --db.")
        if log is not None and _size(self.path, "-shm") is not None:
            return (_AS_GUEST,) if log else (_AS_GUEST, _CLOSED)
        if log:
            raise StoreError(
                f"The newest of {self.path} is in a log that only {name_of(self.found.owner)} can open: start the"
                " receiver of that user once, or name another with --db."
            )
        return (_CLOSED,)

    def by(self, way: str) -> Reader:
        """Opened so."""
        return replace(self, way=way)

    @property
    def watched(self) -> bool:
        """Whether it was opened as one that may change: then its log and shared memory are looked at."""
        return self.way != _CLOSED

    @property
    def outdated(self) -> bool:
        """Whether somebody writes to a file that was opened as one that nobody changes."""
        return self.way == _CLOSED and bool(_size(self.path, "-wal"))


def is_strange(connection: sqlite3.Connection) -> bool:
    """Whether a database has more in it than tables with plain columns: what is read could run anything, for ever."""
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master LIMIT 32").fetchall()
    for kind, name, sql in rows:
        if kind == "table" and not str(sql).upper().startswith("CREATE TABLE "):
            return True
        if kind not in ("table", "index"):
            return True
        quoted = str(name).replace('"', '""')
        if kind == "table" and any(row[6] for row in connection.execute(f'PRAGMA table_xinfo("{quoted}")')):
            return True
    return len(rows) == 32


def bound(connection: sqlite3.Connection) -> None:
    """See to it that what is in a file cannot make us run or hold much."""
    connection.execute("PRAGMA trusted_schema = OFF")
    if hasattr(connection, "setlimit"):  # Python 3.11
        connection.setlimit(_LIMIT_LENGTH, LONGEST_ROW)


def _size(path: Path, suffix: str) -> int | None:
    """Bytes of a file beside a database, None where it is not there."""
    try:
        return os.lstat(path.with_name(path.name + suffix)).st_size
    except OSError:
        return None
