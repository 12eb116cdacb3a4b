"""Directories of ours alone for what must not stay behind, and taking away what programs that were killed left.

A lock on the directory (flock) says that it lives, as long as its program does: numbers of processes are no use where
/tmp is shared by toolboxes that see none of each other's.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from receiver.store.ownership import sound

_LOCKED: Final = ".l"
"""How the names of directories end that are held by a lock. Older versions held theirs by the number in the name."""
_TRIES: Final = 20

_guard = threading.Lock()
_held: dict[Path, int] = {}
"""What this process holds: descriptors whose end, however it comes, lets a directory go."""


def private_folder(prefix: str, base: Path) -> Path:
    """A new directory `PREFIX-PID-xxxxxxxx.l` in `base`, mode 0700. Those of dead processes are removed first.

    Where others could put another one in its place, as in the TMPDIR of a user who became root, it is made in /tmp.

    Raises:
        OSError: it cannot be made.
    """
    if not sound(base):
        base = Path("/tmp")
        if not sound(base):
            raise OSError(errno.EPERM, "others may write there", str(base))
    _let_go()
    sweep(prefix, base)
    for _ in range(_TRIES):
        made = Path(tempfile.mkdtemp(prefix=f"{prefix}-{os.getpid()}-", suffix=_LOCKED, dir=base))
        try:
            descriptor = _lock(made)
        except OSError:
            return made  # no sweep gets its lock either
        if descriptor is not None:
            with _guard:
                _held[made] = descriptor
            return made
        # somebody else's sweep saw it before it was held, and takes it away
    raise OSError(errno.EBUSY, "it is taken away again and again", str(base))


def sweep(prefix: str, base: Path) -> None:
    """Take away what programs of ours that were killed left in `base`."""
    for found in base.glob(f"{prefix}-*-*"):
        pid = found.name.removeprefix(f"{prefix}-").split("-")[0]
        with suppress(OSError, OverflowError):
            if not pid.isdigit() or found.lstat().st_uid != os.getuid() or found.is_symlink():
                continue
            if not found.name.endswith(_LOCKED) and _runs(int(pid)):
                continue
            descriptor = _lock(found)
            if descriptor is not None:
                try:
                    shutil.rmtree(found, ignore_errors=True)
                finally:
                    os.close(descriptor)


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the lock of a directory; None where somebody else holds it, or it is gone.

    Raises:
        OSError: its file system knows no locks, so nobody else gets it either; or it cannot be opened.
    """
    try:
        import fcntl
    except ImportError:  # no POSIX system: there nothing is swept
        raise OSError(errno.ENOSYS, "there are no locks", str(folder)) from None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _same(folder, descriptor):
            return descriptor
    except BlockingIOError:
        pass
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _same(folder: Path, descriptor: int) -> bool:
    """Whether a directory is still where it was opened."""
    try:
        return os.path.samestat(os.stat(folder, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _let_go() -> None:
    """Close the descriptors of directories that are gone."""
    with _guard:
        for folder, descriptor in list(_held.items()):
            if not _same(folder, descriptor):
                del _held[folder]
                os.close(descriptor)
