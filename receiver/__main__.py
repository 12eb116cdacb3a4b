"""The receiver process: `python -m receiver`, and `k8s-trace-tui receive`.

It puts the parts together and takes them apart again: lock, database, writer, retention, gRPC listeners, control
socket. Standard output carries `listening NAME ADDRESS` lines only, standard error one sentence about what is wrong;
everything else goes to the log beside the database.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import gc
import io
import logging
import logging.handlers
import os
import platform
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, TextIO

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before grpc is imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is: nothing here multiplies matrices

from receiver.command_line import CommandLine
from receiver.control import (
    ControlClient,
    ControlError,
    ControlServer,
    control_path,
    lock_path,
    log_path,
)
from receiver.ingest.accounts import limited
from receiver.ingest.address import Address, ListenError, NotHere, check_distinct, is_open, split_name
from receiver.ingest.connections import allow_files
from receiver.ingest.server import Ingest, Tally
from receiver.ingest.tls import TlsError, server_credentials
from receiver.log_lines import LogLines
from receiver.plain_text import one_line
from receiver.signals import ending
from receiver.store import ownership
from receiver.store.database import Database, DatabaseMissing, StoreError
from receiver.store.place import choose_database, make_private
from receiver.store.retention import DEFAULT_CAP, DEFAULT_MIN_FREE, Policy, Retention
from receiver.store.writer import Writer

DEFAULT_LISTENERS: Final = ("127.0.0.1:4317", "[::1]:4317")
"""Both, because `localhost` in a sender's configuration may be either."""
CHILD_LINGER_SECONDS: Final = 10.0
"""A receiver that was started by a TUI ends this long after the last attached one is gone."""
CHILD_START_SECONDS: Final = 30.0
"""... and this long after its start when nobody ever attached."""
LEAST_CAP: Final = 1 << 20
"""Bytes: with less there is no room for the requests of a moment."""
_GRACE_SECONDS: Final = 5.0
_TAKE_OVER_SECONDS: Final = 10.0
_LONGEST: Final = 4_096
"""Characters of a line that is printed."""

_log = logging.getLogger("receiver")


class UsageError(Exception):
    """An option has a value that it cannot have; one sentence."""


class Failure(Exception):
    """The receiver cannot run; one sentence."""


_EXPECTED: Final = (UsageError, Failure, StoreError, ControlError, ListenError, TlsError)
"""What has a sentence for the operator."""


# --- options ---------------------------------------------------------------------------------------
def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the receiver, for this module's parser and that of `k8s-trace-tui receive`."""
    parser.add_argument("--db", metavar="PATH", type=Path, help="the database (default: in the state directory)")
    parser.add_argument(
        "--listen",
        metavar="[NAME=]ADDRESS",
        action="append",
        help="HOST:PORT, [IPV6]:PORT or unix:/path; NAME says where its spans come from; may be repeated"
        f" (default: {' and '.join(DEFAULT_LISTENERS)})",
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="allow an address that other machines can reach without TLS: anybody there can read and send spans",
    )
    parser.add_argument(
        "--tls-cert", metavar="FILE", type=Path, help="serve with this certificate (PEM, with its chain)"
    )
    parser.add_argument("--tls-key", metavar="FILE", type=Path, help="the certificate's private key (PEM)")
    parser.add_argument(
        "--tls-client-ca", metavar="FILE", type=Path, help="ask senders for a certificate of this authority (PEM)"
    )
    parser.add_argument(
        "--max-size", metavar="SIZE", default=None, help="keep at most this much, as in 512MiB (the default) or 2GiB"
    )
    parser.add_argument("--max-age", metavar="TIME", default=None, help="keep for this long, as in 30m, 12h, 7d")
    parser.add_argument(
        "--min-free", metavar="SHARE", default=None, help="leave this much of the disk free, as in 20%% (the default)"
    )


_SIZE: Final = re.compile(r"\s*([0-9]{1,12}(?:\.[0-9]{1,3})?)\s*([KMGT]?)(i?)B?\s*", re.IGNORECASE)
_AGE: Final = re.compile(r"\s*([0-9]{1,9})\s*([smhd])\s*")


def parse_size(text: str) -> int:
    """Bytes of `512MiB`, `2G` (as GiB), `100MB` (decimal) or a plain number.

    Raises:
        UsageError: it is none of these.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} is not a size: write it as in 512MiB or 2GiB.")
    number, unit, binary = found.groups()
    step = 1000 if unit and not binary and text.strip().upper().endswith("B") else 1024
    return int(float(number) * step ** " KMGT".index(unit.upper() or " "))


def parse_age(text: str) -> int:
    """Nanoseconds of `90s`, `30m`, `12h`, `7d`.

    Raises:
        UsageError: it is none of these.
    """
    found = _AGE.fullmatch(text)
    if found is None or not int(found[1]):
        raise UsageError(f"{text!r} is not a time: write it as in 30m, 12h or 7d.")
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]] * 1_000_000_000


def parse_share(text: str) -> float:
    """A share of the disk, 0 to 0.95, of `20%`.

    Raises:
        UsageError: it is not one.
    """
    try:
        share = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share <= 0.95:
        raise UsageError(f"{text!r} is not a share of the disk from 0% to 95%: write it as in 20%.")
    return share


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for, checked."""

    listeners: tuple[tuple[str, str], ...]
    """Name ("" for none) and address; empty: the default ones."""
    child: bool
    insecure: bool
    tls_cert: Path | None
    tls_key: Path | None
    tls_client_ca: Path | None
    policy: Policy
    of_the_first: tuple[str, ...] = ()
    """Options given that only the receiver which holds the database can follow."""


def _encodable(what: str, value: object) -> None:
    """SQLite, gRPC and JSON want UTF-8."""
    try:
        str(value).encode()
    except UnicodeEncodeError:
        raise UsageError(f"{what} {str(value)!r} is not valid UTF-8: name another.") from None


def policy_of(max_size: str | None, max_age: str | None, min_free: str | None) -> Policy:
    """How much is kept, as --max-size, --max-age and --min-free say it; None: the default.

    Raises:
        UsageError: one of them cannot be.
    """
    policy = Policy(
        cap=parse_size(max_size) if max_size is not None else DEFAULT_CAP,
        max_age=parse_age(max_age) if max_age is not None else None,
        min_free=parse_share(min_free) if min_free is not None else DEFAULT_MIN_FREE,
    )
    if policy.cap < LEAST_CAP:
        raise UsageError(f"--max-size {max_size} is too little to work with: allow 1MiB or more.")
    return policy


def _options(args: argparse.Namespace) -> Options:
    for text in args.listen or ():
        _encodable("The address", text)
    try:
        listeners = tuple(split_name(text) for text in args.listen or ())
        for _, text in listeners:
            Address.parse(text).check(secure=args.tls_cert is not None, insecure=args.insecure)
        check_distinct(listeners)
    except ListenError as error:
        raise UsageError(str(error)) from error
    if (args.tls_cert is None) != (args.tls_key is None):
        raise UsageError("--tls-cert and --tls-key belong together: give both.")
    if args.tls_client_ca is not None and args.tls_cert is None:
        raise UsageError("--tls-client-ca needs --tls-cert and --tls-key.")
    policy = policy_of(args.max_size, args.max_age, args.min_free)
    settings = ("max_size", "max_age", "min_free", "tls_cert", "tls_key", "tls_client_ca")
    given = tuple(f"--{one.replace('_', '-')}" for one in settings if getattr(args, one) is not None)
    return Options(listeners, args.child, args.insecure, args.tls_cert, args.tls_key, args.tls_client_ca, policy, given)


# --- the process -----------------------------------------------------------------------------------
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 0, 1 for a failure, 2 for bad usage."""
    parser = CommandLine(
        prog="python -m receiver", description="Receives OTLP spans over gRPC and keeps them in a database."
    )
    add_arguments(parser)
    return run(parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    """Receive until SIGTERM, SIGINT or SIGHUP; what was acknowledged is on disk when this returns."""
    stop = threading.Event()
    try:
        options = _options(args)
        path = _place(args.db)
        _step_back()
        _give_back_memory()
        allow_files()
        with ending(stop, signal.SIGTERM, signal.SIGINT, signal.SIGHUP), _quietly(path):
            try:
                _receive(path, options, stop)
            except _EXPECTED:
                raise
            except Exception as error:
                _log.exception("receiver failed")
                raise Failure(
                    f"The receiver ended because of a defect in this program: {log_path(path)} says more."
                ) from error
    except UsageError as error:
        _complain(str(error))
        return 2
    except _EXPECTED as error:
        _complain(str(error))
        return 1
    except Exception as error:  # noqa: BLE001 - the last resort: no traceback reaches the terminal
        what = " ".join(f"{type(error).__name__}: {error}".split())
        _complain(f"The receiver cannot start because of a defect in this program ({what}).")
        return 1
    return 0


def _place(given: Path | None) -> Path:
    """Where the database is, links resolved, its directory made.

    Raises:
        UsageError: no database can have that name.
        Failure, StoreError: it cannot be there.
    """
    if given is not None:
        _encodable("The database", given)
        try:
            given = given.expanduser()  # the shell leaves the ~ of --db=~/spans.db alone
        except RuntimeError as error:
            raise UsageError(f"The database {given} is in a home that nobody has: name another with --db.") from error
    try:
        path, said = choose_database(given)
        if said:
            _complain(said)
        path = ownership.our_file(path)
        _encodable("The database", path)
        ownership.our_files_beside(path)
        if not path.parent.is_dir():
            make_private(path.parent)
    except OSError as error:
        raise Failure(
            f"The database {given or ''} cannot be reached ({error.strerror}): name another place with --db."
        ) from error
    return path


def _receive(path: Path, options: Options, stop: threading.Event) -> None:
    """Be the receiver of a database, or stand behind the one that is and take its place when it ends."""
    until = time.monotonic() + _TAKE_OVER_SECONDS
    stood_behind = False
    while not stop.is_set():
        with _lock(path) as locked:
            if locked:
                if stood_behind:
                    _complain("The receiver that ran has ended: this one receives now.")
                _be_the_receiver(path, options, stop)
                return
            if options.child:
                return  # the TUI that started us attaches to the other one
            client = _connect(path)
            if client is not None:
                with contextlib.closing(client):
                    after = _attend(client, options, stop)
                if after is not None:
                    options, stood_behind, until = after, True, time.monotonic() + _TAKE_OVER_SECONDS
                    continue
        # Locked, but nobody answers: it is starting, or ending.
        if time.monotonic() > until:
            raise Failure(
                f"Another receiver holds {path} and does not answer: end it, or name another database with --db."
            )
        stop.wait(0.1)


def _be_the_receiver(path: Path, options: Options, stop: threading.Event) -> None:
    """Receive, with the lock held; when that could not even begin, nothing that was made for it is left."""
    was_there = path.exists()
    begun = False
    try:
        running = Receiver(path, options, stop)
        try:
            running.run()
        finally:
            begun = running.begun
    finally:
        if not was_there and not begun:
            _unmake(path)


def _unmake(path: Path) -> None:
    """Take away a database that is empty, which it is not where an import was quicker, and its lock, which we hold."""
    try:
        database = Database.read(path)
        try:
            if database.last_id():
                return
        finally:
            database.close()
    except DatabaseMissing:
        pass
    except StoreError:
        return
    with contextlib.suppress(OSError):
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        lock_path(path).unlink(missing_ok=True)


class Receiver:
    """Everything that runs in the process that holds a database's lock."""

    def __init__(self, path: Path, options: Options, stop: threading.Event) -> None:
        self._path = path
        self._options = options
        self._stop = stop
        self._started = time.time_ns()
        self.begun = False
        """All that was asked for is open."""
        credentials = None
        if options.tls_cert is not None and options.tls_key is not None:
            credentials = server_credentials(options.tls_cert, options.tls_key, options.tls_client_ca)
        self._database = Database.create(path)
        if self._database.said:
            _log.warning("%s", self._database.said)
        self._control = ControlServer(control_path(path), self._handle)
        self._retention = Retention(self._database, options.policy, held=self._control.holds)
        self._database.bound = options.policy.cap
        self._database.make_room = self._retention.make_room
        self._writer = Writer(self._database, committed=self._retention.committed, moved=stop.set)
        self._tally = Tally()
        self._ingest = Ingest(self._writer, self._tally, credentials=credentials, insecure=options.insecure)

    def run(self) -> None:
        """Serve until told to stop.

        Raises:
            Failure, ListenError, ControlError: it could not begin.
        """
        try:
            self._writer.start()
            self._retention.start()
            self._open()
            self._control.start()
            self.begun = True
            for one in self._ingest.listeners:
                for address in one.addresses if one.error is None else ():
                    _say(one.name, address)
            # What exists by now lives as long as the process: the collector need not look at it again.
            gc.collect()
            gc.freeze()
            self._wait()
            if self._writer.moved_away:
                raise Failure(f"{self._writer.problem} {self._database.way_out}")
        finally:
            self._ingest.stop(_GRACE_SECONDS)
            self._retention.stop()
            written = self._writer.stop()
            self._control.stop()
            self._database.checkpoint(1.0)  # who copies or moves the file alone has everything, also while others read
            self._database.close()
            if not written:
                _log.error("the last commit did not end in time")

    def _open(self) -> None:
        wanted = self._options.listeners or tuple(("", address) for address in DEFAULT_LISTENERS)
        for name, address in wanted:
            try:
                self._ingest.listen(name, address)
            except ListenError as error:
                if isinstance(error, NotHere) and not self._options.listeners:
                    continue  # a machine without IPv6
                if not self._options.child:
                    raise
                self._ingest.note(name, address, str(error))
        if not self._ingest.listeners:
            raise Failure("This machine has no loopback address: name an address with --listen.")

    def _wait(self) -> None:
        began = time.monotonic()
        # A signal may be given to a thread of gRPC's: then nothing wakes this one, and the handler runs when it wakes.
        while not self._stop.wait(0.25 if self._options.child else 1.0):
            if not self._options.child or self._control.attached:
                continue
            now, left = time.monotonic(), self._control.left_at
            if now - left > CHILD_LINGER_SECONDS if left else now - began > CHILD_START_SECONDS:
                return

    def _handle(self, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if operation == "status":
            return self._status()
        if operation == "listen":
            try:
                listener = self._ingest.listen(str(arguments.get("name") or ""), str(arguments["address"]))
            except ListenError as error:
                raise ControlError(str(error)) from error
            first, *more = listener.to_json()
            return {"listener": first, "more": more}
        if operation == "unlisten":
            name, address = str(arguments["name"]), arguments.get("address")
            if not self._ingest.unlisten(name, None if address is None else str(address)):
                raise ControlError(f"There is no listener {name}.")
            return {}
        if operation == "stop":
            self._stop.set()
            return {}
        raise ControlError(f"The receiver does not know {operation[:40]!r}: it may be an older version.")

    def _status(self) -> dict[str, Any]:
        tally, retention = self._tally, self._retention
        listeners = self._ingest.listeners
        errors = (one.error for one in listeners)
        shares = self._ingest.shares()
        problem = self._writer.problem or next(filter(None, errors), "") or retention.problem
        return {
            "pid": os.getpid(),
            "version": _version(),
            "started": self._started,
            "db": str(self._path),
            "child": self._options.child,
            "listeners": [entry for one in listeners for entry in one.to_json()],
            "accepted": tally.accepted,
            "rejected": tally.rejected,
            "refused": tally.refused,
            "malformed": tally.malformed,
            "broken_off": tally.broken_off,
            "requests": tally.requests,
            "bytes_in": tally.bytes_in,
            "evicted_spans": retention.evicted_spans,
            "evicted_traces": retention.evicted_traces,
            "evicted_by": retention.evicted.to_json(),
            "live_bytes": retention.live_bytes,
            "cap_bytes": retention.cap,
            "disk_full": self._writer.disk_full,
            "message": problem or retention.notice,
            "notice": "" if problem else retention.notice,
            "senders": [sender.to_json() for sender in tally.senders()],
            "shares": shares,
            "limited": limited(shares),
            "attached": self._control.attached,
        }


# --- beside a receiver that runs already -----------------------------------------------------------
def _connect(path: Path) -> ControlClient | None:
    try:
        return ControlClient.connect(path)
    except ControlError:
        return None


def _attend(client: ControlClient, options: Options, stop: threading.Event) -> Options | None:
    """Have the running receiver open our listeners, and stay until it or we end.

    Returns:
        How to receive in its place: at our own listeners, or where none were asked for, at those that it had. None
        when it did not answer.

    Raises:
        ControlError: it refused to open a listener.
    """
    try:
        client.request("attach")
        status = client.request("status")
    except ControlError:
        return None
    last = _open_listeners(status)
    if options.of_the_first:
        _complain(
            f"The receiver that runs (pid {status['pid']}) keeps its own settings: {', '.join(options.of_the_first)}"
            f" {'has' if len(options.of_the_first) == 1 else 'have'} no effect while it does."
        )
    for name, address in last:
        _say(name, address)
    added = []
    try:
        for name, address in options.listeners:
            if is_open(address, [there for _, there in last]):
                continue
            reply = client.request("listen", name=name, address=address)
            added.append(reply["listener"])
            for one in (reply["listener"], *reply.get("more", ())):
                _say(one["name"], one["address"])
        while not stop.wait(0.5):
            try:
                last = _open_listeners(client.request("status")) or last  # they are closed first when it ends
            except ControlError:
                break
    finally:
        with contextlib.suppress(ControlError):
            for one in added:
                client.request("unlisten", name=one["name"], address=one["address"])
    return options if options.listeners else replace(options, listeners=last)


def _open_listeners(status: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Name and address of each listener that is open."""
    return tuple((str(one["name"]), str(one["address"])) for one in status["listeners"] if one["error"] is None)


# --- surroundings ----------------------------------------------------------------------------------
def _say(name: str, address: str) -> None:
    _print(sys.stdout, f"listening {name} {address}")


def _complain(sentence: str) -> None:
    _print(sys.stderr.terminal if isinstance(sys.stderr, _LogStream) else sys.stderr, f"k8s-trace-tui: {sentence}")


def _print(stream: TextIO, sentence: str) -> None:
    """One line, whatever a name, a path or a reason in it holds."""
    with contextlib.suppress(OSError, ValueError):  # whoever read it is gone: no reason to stop receiving
        encoding = getattr(stream, "encoding", None) or "utf-8"
        line = one_line(sentence[:_LONGEST]).encode(encoding, "backslashreplace").decode(encoding)
        print(line, file=stream, flush=True)


def _version() -> str:
    try:
        return version("k8s-trace-tui")
    except PackageNotFoundError:
        return "unknown"


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Whether we are the ones who receive into this database; held until the end of the block."""
    where = lock_path(path)
    try:
        handle = ownership.open_ours(where, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise Failure(
            f"The lock file {where} cannot be opened ({error.strerror}): name another place with --db."
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # One that could not begin takes its lock's file away: then this is the lock of nothing.
            locked = os.path.samestat(os.fstat(handle), os.stat(where, follow_symlinks=False))
        except OSError:
            locked = False
        yield locked
    finally:
        os.close(handle)


class _LogStream(io.TextIOBase):
    """Stands in for standard error: libraries print tracebacks there."""

    def __init__(self, terminal: TextIO) -> None:
        self.terminal = terminal

    def write(self, text: str) -> int:
        for line in text.splitlines():
            if line.strip():
                _log.error("%s", line.rstrip())
        return len(text)


class _Log(logging.handlers.RotatingFileHandler):
    """The log beside the database, through no link and into no file of somebody else's."""

    def _open(self) -> io.TextIOWrapper:
        handle = ownership.open_ours(Path(self.baseFilename), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        return open(handle, "a", encoding=self.encoding, errors=self.errors)

    def rotate(self, source: str, dest: str) -> None:
        """As the base class; where that cannot be, as when the other name is somebody else's, what was said is gone."""
        try:
            os.replace(source, dest)
        except OSError:
            os.truncate(source, 0)

    def doRollover(self) -> None:
        """As the base class, which would first remove what is in the way, and end where it must not."""
        if self.stream:
            self.stream.close()
            self.stream = None
        self.rotate(self.baseFilename, f"{self.baseFilename}.1")
        self.stream = self._open()


@contextlib.contextmanager
def _quietly(path: Path) -> Iterator[None]:
    """Files are made for this user alone, and whatever libraries have to say goes to a log of at most 2 MiB."""
    before = os.umask(0o077)
    logging.raiseExceptions = False  # a full disk must not end in tracebacks about the log
    handler = _Log(
        log_path(path), maxBytes=1 << 20, backupCount=1, encoding="utf-8", delay=True, errors="backslashreplace"
    )
    handler.setFormatter(LogLines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.setLevel(logging.WARNING)
    root = logging.getLogger()
    root.addHandler(handler)
    hook: Callable[..., Any] = threading.excepthook
    threading.excepthook = lambda args: _log.error(
        "thread failed", exc_info=(args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback)
    )
    try:
        with contextlib.redirect_stderr(_LogStream(sys.stderr)):
            yield
    finally:
        threading.excepthook = hook
        root.removeHandler(handler)
        handler.close()
        os.umask(before)


_IOPRIO_SET: Final = {"x86_64": 251, "aarch64": 30, "ppc64le": 273, "s390x": 282, "riscv64": 30}
"""The system call's number (Linux, asm/unistd.h)."""
_IOPRIO_IDLE: Final = 3 << 13
"""Class idle (linux/ioprio.h)."""


def _step_back() -> None:
    """The node's own work goes first: nice 10, and the disk only when nobody else wants it. Threads made later
    inherit both."""
    with contextlib.suppress(OSError):
        os.nice(max(0, 10 - os.nice(0)))
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None and sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).syscall(number, 1, 0, _IOPRIO_IDLE)


_M_MMAP_THRESHOLD: Final = -3  # glibc's malloc.h
_M_ARENA_MAX: Final = -8
_OF_ITS_OWN: Final = 1 << 20  # bytes


def _give_back_memory() -> None:
    """A large request's memory goes back to the machine as soon as it is stored. glibc would keep it, once for each
    thread that ever had one (measured: 790 MB instead of 520 MB with 120 senders of 16 MB each)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_MMAP_THRESHOLD, _OF_ITS_OWN)
            libc.mallopt(_M_ARENA_MAX, 2)


if __name__ == "__main__":
    sys.exit(main())
