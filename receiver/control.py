"""The socket beside the database: what the receiver is doing, which listeners it has, what it must not evict.

JSON lines over a unix socket (0600): a line asks, a line answers, `{"ok": true, ...}` or
`{"ok": false, "error": "one sentence"}`. What a connection holds or attaches ends with the connection, so a crashed
TUI leaves nothing behind.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import socket
import stat
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from receiver import answers
from receiver.store.errors import NotOurs, StoreError
from receiver.store.ownership import Guest, database_to_read, name_of, sound

_PATH_BYTES: Final = 100  # unix(7) allows 107 bytes; some systems 103
_LINE: Final = 1 << 20
_CLIENTS: Final = 64
_FIRST_LINE_SECONDS: Final = 10.0
"""A client that asked nothing by then is sent away."""
_BACK_OFF_SECONDS: Final = 0.1
_DO_NOT_COME_AGAIN: Final = frozenset((errno.EBADF, errno.EINVAL, errno.ENOTSOCK))
"""What `accept` says of a socket that was closed."""
_HELD: Final = 1000

_log = logging.getLogger(__name__)


class ControlError(Exception):
    """The receiver cannot be asked, or it refused; str() is one sentence for the operator."""


def lock_path(db: Path) -> Path:
    """The file whose lock says who receives into `db`."""
    return beside(db, ".lock")


def log_path(db: Path) -> Path:
    """Where the receiver of `db` writes what a terminal should not see."""
    return beside(db, ".log")


def beside(db: Path, suffix: str) -> Path:
    """The file that belongs to `db` under a suffix."""
    # Beside the real file: two links to one database must not have two receivers.
    path = Path(os.path.realpath(db))
    return path.with_name(path.name + suffix)


def control_path(db: Path) -> Path:
    """The control socket of the receiver of `db`: beside it, or where a path is too long for a socket, in a directory
    of its owner's (0700) under the runtime or temporary directory."""
    try:
        owner = database_to_read(db).owner
    except (StoreError, OSError):
        owner = os.geteuid()
    return _control_paths(db, owner)[0]


def _control_paths(db: Path, owner: int) -> list[Path]:
    """Where the control socket may be, the usual place first; another process may have another environment."""
    usual = beside(db, ".sock")
    if len(os.fsencode(usual)) <= _PATH_BYTES:
        return [usual]
    short = hashlib.sha256(os.fsencode(usual)).hexdigest()[:16] + ".sock"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "") if owner == os.geteuid() else f"/run/user/{owner}"
    found = []
    for base in dict.fromkeys((runtime, tempfile.gettempdir(), "/tmp")):
        path = Path(base) / f"k8s-trace-tui-{owner}" / short
        if not base or not os.path.isdir(base) or len(os.fsencode(path)) > _PATH_BYTES:
            continue
        if owner != os.geteuid() or sound(Path(base)):  # not where others could exchange the directory
            found.append(path)
    return found or [Path("/tmp") / f"k8s-trace-tui-{owner}" / short]


def _private_directory(path: Path) -> None:
    """Make the directory of a socket that could not stand beside its database.

    Raises:
        ControlError: it belongs to somebody else, or others may write into it.
        OSError: it cannot be made.
    """
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    if not ours or not sound(path):
        raise ControlError(f"{path} is not a directory of yours alone (0700): remove it, or name another with --db.")


@dataclass(slots=True)
class _Client:
    """A connection, and when it last asked something, by the monotonic clock."""

    connection: socket.socket
    asked: float = field(default_factory=time.monotonic)


class ControlServer:
    """Answers on the control socket, a thread a connection.

    `handle(operation, arguments)` gives the reply's fields or raises `ControlError`. `attach`, `hold` and their end
    are kept here; `holds()` and `attached` tell the rest of the receiver.
    """

    def __init__(self, path: Path, handle: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
        self.path = path
        self._handle = handle
        self._lock = threading.Lock()
        self._held: dict[int, frozenset[int]] = {}
        self._attached: set[int] = set()
        self._clients: dict[int, _Client] = {}
        self._numbers = 0
        self._left = 0.0  # when the last attached connection went, by the monotonic clock; 0: none yet
        self._socket: socket.socket | None = None
        self._spare = -1

    def start(self) -> None:
        """Open the socket. Only for who holds the database's lock: an old socket is taken away.

        Raises:
            ControlError: it cannot be opened.
        """
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if not self.path.parent.is_dir() or self.path.parent.name.startswith("k8s-trace-tui-"):
                _private_directory(self.path.parent)
            with suppress(FileNotFoundError):
                self.path.unlink()
            before = os.umask(0o177)
            try:
                server.bind(str(self.path))
            finally:
                os.umask(before)
            server.listen(128)
        except OSError as error:
            server.close()
            raise ControlError(
                f"The control socket {self.path} cannot be opened ({error.strerror or error}): name another --db."
            ) from error
        self._socket = server
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        threading.Thread(target=self._accept, args=(server,), name="control", daemon=True).start()

    def stop(self) -> None:
        """Close and remove the socket; connections that are open end with the process."""
        server, self._socket = self._socket, None
        if server is not None:
            with suppress(OSError):  # who waits in accept() hears of this, and not of a close
                server.shutdown(socket.SHUT_RDWR)
            server.close()
            with suppress(OSError):
                self.path.unlink()
            if self._spare >= 0:
                os.close(self._spare)
                self._spare = -1

    @property
    def attached(self) -> int:
        """How many attached connections there are."""
        with self._lock:
            return len(self._attached)

    @property
    def left_at(self) -> float:
        """When the last attached connection went, by the monotonic clock; 0 while there is one, or was none yet."""
        with self._lock:
            return 0.0 if self._attached else self._left

    def holds(self) -> frozenset[int]:
        """Trace ids (as numbers) that some connection wants kept."""
        with self._lock:
            return frozenset().union(*self._held.values())

    # -- connections ----------------------------------------------------------------------------------
    def _accept(self, server: socket.socket) -> None:
        said = False
        while self._socket is server:
            try:
                connection, _ = server.accept()
            except OSError as error:
                if self._socket is not server or error.errno in _DO_NOT_COME_AGAIN:
                    return  # closed by stop()
                if not said:
                    said = True
                    _log.warning("the control socket cannot accept: %s", error)
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._turn_away(server)
                time.sleep(_BACK_OFF_SECONDS)
                continue
            said = False
            try:
                self._meet(connection)
            except (OSError, RuntimeError) as error:  # no thread, or it went away
                _log.warning("a client of the control socket was sent away: %s", error)
                connection.close()
            except Exception:  # noqa: BLE001 - without this thread nobody can ask any more
                _log.exception("a client of the control socket was sent away")
                connection.close()

    def _turn_away(self, server: socket.socket) -> None:
        """With no file left, one that is kept for this lets the next client hear that it is not served."""
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        with suppress(OSError):
            server.settimeout(0.0)
            server.accept()[0].close()
        with suppress(OSError):
            server.settimeout(None)
        with suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _meet(self, connection: socket.socket) -> None:
        """Serve a client in a thread of its own, if it may ask and there is room."""
        if not _same_user(connection):
            connection.close()
            return
        with self._lock:
            self._numbers += 1
            number = self._numbers
            leaves = self._who_leaves() if len(self._clients) >= _CLIENTS else None
            crowded = len(self._clients) >= _CLIENTS and leaves is None
            if not crowded:
                self._clients[number] = _Client(connection)
        if leaves is not None:
            with suppress(OSError):
                leaves.connection.shutdown(socket.SHUT_RDWR)
        if crowded:
            connection.close()
            return
        try:
            threading.Thread(target=self._serve, args=(connection, number), name="control client", daemon=True).start()
        except RuntimeError:
            with self._lock:
                del self._clients[number]
            raise

    def _who_leaves(self) -> _Client | None:
        """With the lock: of those that neither attached nor hold anything, who asked nothing for longest."""
        idle = [number for number in self._clients if number not in self._attached and not self._held.get(number)]
        if not idle:
            return None
        return self._clients.pop(min(idle, key=lambda number: self._clients[number].asked))

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            connection.settimeout(_FIRST_LINE_SECONDS)
            with connection, connection.makefile("rwb") as stream:
                while True:
                    line = stream.readline(_LINE)
                    if not line.endswith(b"\n"):
                        return
                    connection.settimeout(None)
                    client = self._clients.get(number)
                    if client is not None:
                        client.asked = time.monotonic()
                    stream.write(json.dumps(self._reply(line, number)).encode() + b"\n")
                    stream.flush()
        except OSError:
            pass  # it went away, or asked nothing
        finally:
            with self._lock:
                self._clients.pop(number, None)
                self._held.pop(number, None)
                if number in self._attached:
                    self._attached.discard(number)
                    self._left = time.monotonic()

    def _reply(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            arguments = json.loads(line)
            operation = arguments.pop("op")
            if operation == "attach":
                with self._lock:
                    self._attached.add(number)
                return {"ok": True}
            if operation == "hold":
                held = frozenset(_trace_number(text) for text in arguments["traces"][:_HELD])
                with self._lock:
                    self._held[number] = held
                return {"ok": True}
            return {"ok": True, **self._handle(str(operation), arguments)}
        except ControlError as error:
            return {"ok": False, "error": str(error)}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            return {"ok": False, "error": f"The request is not understood ({type(error).__name__})."}
        except Exception:  # noqa: BLE001 - a bad request must not end the receiver
            _log.exception("control request")
            return {"ok": False, "error": "The receiver failed at this; its log says more."}


def _trace_number(text: str) -> int:
    if len(text) != 32:
        raise ValueError("a trace id has 32 hex digits")
    return int(text, 16)


def _same_user(connection: socket.socket) -> bool:
    """The socket is 0600; this holds where a file system ignores that."""
    return _peer(connection) in (None, 0, os.getuid())


def _peer(connection: socket.socket) -> int | None:
    """The user at the other end, None where the system does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


def _connect(connection: socket.socket, path: Path, timeout: float) -> None:
    """Connect, also where so many come at once that there is no place in the queue of the other side yet: a unix
    socket with a time limit says so at once instead of waiting."""
    until = time.monotonic() + timeout
    while True:
        try:
            connection.connect(str(path))
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


class ControlClient:
    """Asks a running receiver, which may be another user's. Blocking; for one thread at a time."""

    def __init__(self, connection: socket.socket, path: Path, timeout: float = 5.0) -> None:
        self._connection = connection
        self._timeout = timeout
        self._rest = bytearray()  # what came behind the last answer
        self._lock = threading.Lock()
        self._broken = False  # an answer that came late would be taken for that to the next question
        self.path = path

    @classmethod
    def connect(cls, db: Path, timeout: float = 5.0) -> ControlClient:
        """Connect to the receiver of `db`; `timeout` (seconds) holds for each later request too.

        Raises:
            ControlError: none is running, it does not answer, or who listens there is not the database's owner.
        """
        try:
            found = database_to_read(db)
        except NotOurs as problem:
            raise ControlError(str(problem)) from problem
        except PermissionError as problem:
            raise _another_users(db) from problem
        except OSError as problem:
            raise _not_running(db, found=None) from problem
        for path in _control_paths(found.path, found.owner):
            if os.geteuid() not in (0, found.owner) and os.path.lexists(path):
                raise _another_users(db)
            try:
                # With the owner's rights: a link or a socket that he puts there leads nowhere that he could not go.
                with found.rights.held():
                    there = _socket_at(path, found.owner)
                    connection = _connected(path, timeout) if there else None
            except PermissionError as problem:
                raise _another_users(db) from problem
            except BlockingIOError as problem:
                raise ControlError("The receiver does not answer: too many wait for it.") from problem
            except (OSError, StoreError) as problem:
                raise _not_running(db, found) from problem
            if connection is None:
                continue
            if _peer(connection) not in (None, 0, found.owner):
                connection.close()
                raise ControlError(
                    f"Who listens on {path} is not {name_of(found.owner)}, whose database {db} is, and is not asked:"
                    " end it, or name another with --db."
                )
            return cls(connection, path, timeout)
        raise _not_running(db, found)

    def request(self, op: str, **arguments: Any) -> dict[str, Any]:
        """One question, one answer: the reply's fields, checked (`receiver.answers`).

        Raises:
            ControlError: the receiver refused, with its sentence, or it is gone.
        """
        with self._lock:
            if self._broken:
                raise ControlError("The receiver went away.")
            try:
                until = time.monotonic() + self._timeout
                self._connection.settimeout(self._timeout)
                self._connection.sendall(json.dumps({"op": op, **arguments}).encode() + b"\n")
                reply = answers.read(op, self._line(until))
            except OSError as error:
                self._broken = True
                raise ControlError("The receiver does not answer: it may just be ending.") from error
            except answers.NoAnswer as error:
                self._broken = True
                raise ControlError(
                    f"What answers on {self.path} is no receiver of this version ({error}): end it, or name another"
                    " database with --db."
                ) from error
        if not reply.pop("ok"):
            raise ControlError(reply.get("error") or "The receiver refused without a reason.")
        return reply

    def _line(self, until: float) -> bytes:
        """The next line, which has to be whole by then (monotonic clock, seconds).

        Raises:
            OSError: it is not, or the connection ended.
            NoAnswer: it is too long.
        """
        seen = 0
        while (end := self._rest.find(b"\n", seen)) < 0:
            seen = len(self._rest)
            if seen > answers.MOST_BYTES:
                raise answers.NoAnswer("it is too long")
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError("no answer in time")
            self._connection.settimeout(left)
            data = self._connection.recv(1 << 16)
            if not data:
                raise ConnectionError("it ended")
            self._rest += data
        line = bytes(self._rest[:end])
        del self._rest[: end + 1]
        return line

    def close(self) -> None:
        """End the connection, and with it what it held or attached."""
        # shutdown, not only close: another thread may be reading, and the other side must know at once.
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


def _socket_at(path: Path, owner: int) -> bool:
    """Whether the socket of a database's owner is there.

    Raises:
        ControlError: something else is.
        OSError: it cannot be looked at.
    """
    try:
        folder, found = path.parent.lstat(), path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    apart = path.parent.name == f"k8s-trace-tui-{owner}"
    closed = stat.S_ISDIR(folder.st_mode) and folder.st_uid == owner and not folder.st_mode & 0o022
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid not in (0, owner) or (apart and not closed):
        raise ControlError(
            f"{path} is not a socket of {name_of(owner)}'s, so nobody is asked there: remove it, or name another"
            " database with --db."
        )
    return True


def _connected(path: Path, timeout: float) -> socket.socket | None:
    """A connection; None where nobody listens.

    Raises:
        OSError: it cannot be made.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        _connect(connection, path, timeout)
    except (ConnectionRefusedError, FileNotFoundError):
        connection.close()
        return None
    except OSError:
        connection.close()
        raise
    return connection


def _another_users(db: Path) -> ControlError:
    return ControlError(f"The receiver of {db} belongs to another user: ask as that user, or root.")


def _not_running(db: Path, found: Guest | None) -> ControlError:
    if found is None or found.owner == os.geteuid():
        return ControlError(f"No receiver is running for {db}: start one with k8s-trace-tui receive.")
    return ControlError(
        f"No receiver is running for {db}: {name_of(found.owner)}, whose it is, may start one with k8s-trace-tui"
        " receive."
    )
