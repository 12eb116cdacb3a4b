"""What kubectl and its kind keep of an API server's discovery, for traced commands: a folder of ours for each context.

kubectl keeps it by the server's host and port, below KUBECACHEDIR or ~/.kube/cache. A traced command's server is the
proxy, so the port stays the same from run to run, and with the kept folder the command asks what it asks untraced: the
first run discovers, the later ones do not. One run at a time has the folder; others get one that goes with them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from receiver.store import ownership
from receiver.store.errors import NotOurs
from receiver.store.place import default_place
from tui.clusters.model import ReachError
from tui.clusters.reach.contexts import FOLDER, private_base
from tui.clusters.reach.private_folder import private_folder

VARIABLE: Final = "KUBECACHEDIR"
"""What kubectl, and helm like it, take the folder from, since 1.23."""
MOST_BYTES: Final = 32 << 20
"""Of a context; discovery of a cluster with very many CRDs is some 10 MB."""
MOST_FILES: Final = 4096
MOST_CONTEXTS: Final = 16
_PORT: Final = "port"


@dataclass(frozen=True, slots=True)
class CommandCache:
    """A `folder` for a command, and the `port` of loopback under which what is in it was kept; 0 for any."""

    folder: Path
    port: int = 0
    _kept: bool = False

    def used(self, port: int) -> None:
        """The proxy listens on that port: what was kept under another is no use any more."""
        if self._kept and port != self.port:
            with suppress(OSError):
                _empty(self.folder)
                (self.folder / _PORT).write_text(f"{port}\n")


def directory_of_all() -> Path:
    """Where the folders are."""
    return default_place().directory / "kubectl-cache"


@contextmanager
def command_cache(context: str, server: str) -> Iterator[CommandCache]:
    """The folder of a context at a server, for one run. Where it cannot be had, one that is gone afterwards.

    Raises:
        ReachError: not even that can be made.
    """
    lock = -1
    with suppress(OSError, NotOurs):
        folder = _folder(context, server)
        lock = _locked(folder)
    if lock < 0:
        with _of_this_run() as cache:
            yield cache
        return
    try:
        _bound(folder)
        yield CommandCache(folder, _port(folder), True)
    finally:
        try:
            _bound(folder)
        finally:
            os.close(lock)


@contextmanager
def _of_this_run() -> Iterator[CommandCache]:
    base = private_base()
    try:
        folder = private_folder(FOLDER, base)
    except OSError as error:
        raise ReachError(f"No private directory can be made in {base} ({error.strerror}).") from error
    try:
        yield CommandCache(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _folder(context: str, server: str) -> Path:
    """Raises: NotOurs, OSError: it cannot be made, or others could put another in its place."""
    top = ownership.make_folder(directory_of_all())
    slug = re.sub(r"[^A-Za-z0-9.-]+", "_", context)[:40].lstrip(".") or "context"
    digest = hashlib.sha256(f"{context}\0{server}".encode("utf-8", "surrogateescape")).hexdigest()[:12]
    folder = ownership.make_folder(top / f"{slug}-{digest}")
    ownership.close_folder(folder)
    os.utime(folder)
    _forget_oldest(top)
    return folder


def _locked(folder: Path) -> int:
    """A descriptor that holds the folder; -1 where another run has it.

    Raises:
        OSError: it cannot be opened, or its file system knows no locks.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return -1
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _forget_oldest(top: Path) -> None:
    """Take away the folders of contexts that were not used for longest."""
    with suppress(OSError):
        known = sorted((one for one in top.iterdir() if one.is_dir()), key=lambda one: one.stat().st_mtime)
        for old in known[:-MOST_CONTEXTS]:
            lock = _locked(old)
            if lock >= 0:
                shutil.rmtree(old, ignore_errors=True)
                os.close(lock)


def _port(folder: Path) -> int:
    with suppress(OSError, ValueError):
        with open(folder / _PORT, "rb") as file:
            port = int(file.read(16))
        if 1024 <= port < 65_536:
            return port
    return 0


def _bound(folder: Path) -> None:
    """Begin anew where a command has put more there than discovery is."""
    size = files = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += os.lstat(os.path.join(place, name)).st_size
            files += 1
        if size > MOST_BYTES or files > MOST_FILES:
            _empty(folder)
            return


def _empty(folder: Path) -> None:
    """All but the port."""
    with suppress(OSError):
        for one in list(folder.iterdir()):
            if one.is_dir() and not one.is_symlink():
                shutil.rmtree(one, ignore_errors=True)
            elif one.name != _PORT:
                with suppress(OSError):
                    one.unlink()
