"""A file that an operator asked for by name: it is there whole or as it was before, and where the name says.

It is written beside what is there and takes its place when it is complete. Who writes may be root in a folder of
somebody else: a link leads on only when root or the operator made it, and each folder is opened once, so that none is
exchanged on the way.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final

_FOLDER: Final = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
_LINK: Final = os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", 0)
_MOST_LINKS: Final = 40
_OWN: Final = re.compile(r"/dev/(?:fd/|std)(in|out|err|[0-9]{1,6})|/proc/self/fd/([0-9]{1,6})")
_STANDARD: Final = {"in": 0, "out": 1, "err": 2}
_NAME: Final = 40
"""Characters of a name that its temporary one repeats: four bytes each at most, of the 255 that a name may have."""


class WrittenFile:
    """Opened to be written, as a context manager: what `commit` was not called for leaves nothing behind.

    A regular file is written beside its place, for the owner's eyes only (0600; in place of a file of one's own, with
    that one's permission to read). What is there and no regular file (a pipe, a device, one of our own descriptors as
    in /dev/stdout) stays what it is and is written to directly.
    """

    raw: IO[bytes]
    """Where to write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder: int | None = None
        self._name = ""
        self._temporary = ""
        self._was_there = True

    def __enter__(self) -> WrittenFile:
        """
        Raises:
            OSError: it cannot be written there; `strerror` says why, or that another user's link is in the way.
        """
        try:
            self._open()
        except OSError as problem:
            self._let_go()
            raise OSError(problem.errno, problem.strerror, os.fspath(self._path)) from problem
        except BaseException:
            self._let_go()
            raise
        return self

    def _open(self) -> None:
        number = _own_descriptor(self._path)
        if number is not None:
            self.raw = open(os.dup(number), "wb")  # noqa: SIM115 - closed by `__exit__`
            return
        self._folder, self._name, found = _place_of(self._path)
        if found is not None and not stat.S_ISREG(found.st_mode):
            self.raw = open(self._special(found), "wb")  # noqa: SIM115
            return
        self._was_there = found is not None
        # Named before it is made: whoever ends us, at whatever moment, finds it cleared away.
        self._temporary = f".{self._name[:_NAME]}.{secrets.token_hex(4)}"
        self.raw = open(self._beside(found), "wb")  # noqa: SIM115

    def _special(self, found: os.stat_result) -> int:
        # Whoever reads there gets what a file would have kept from all others. A device nobody but root can make.
        if stat.S_ISFIFO(found.st_mode) and not _trusted(found.st_uid):
            raise OSError(errno.EACCES, "It is another user's pipe")
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
        handle = os.open(self._name, flags, dir_fd=self._folder)
        now = os.fstat(handle)  # an inode's number may be given again at once
        if not os.path.samestat(now, found) or (now.st_mode, now.st_uid) != (found.st_mode, found.st_uid):
            os.close(handle)
            raise OSError(errno.EBUSY, "It was exchanged meanwhile")
        return handle

    def _beside(self, found: os.stat_result | None) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        made = os.open(self._temporary, flags, 0o600, dir_fd=self._folder)
        if found is not None and found.st_uid == os.geteuid():
            with suppress(OSError):
                os.fchmod(made, 0o600 | stat.S_IMODE(found.st_mode) & 0o044)
        return made

    def commit(self, *, anything: bool = True) -> None:
        """All is written: put it in place. What is there is never replaced by nothing: without `anything` it stays.

        Raises:
            OSError: there is no room for the rest of it, or no right to replace what is there.
        """
        self.raw.close()
        if self._temporary and (anything or not self._was_there):
            os.replace(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            self._temporary = ""

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go()

    def _let_go(self) -> None:
        if hasattr(self, "raw"):
            with suppress(OSError):  # what was not committed need not fit
                self.raw.close()
        if self._temporary:
            with suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._folder)
            self._temporary = ""
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None


def _own_descriptor(path: Path) -> int | None:
    """The number of a descriptor of this process that a path means. Opened by that path, a file that the shell has
    open for us would be written from its beginning, or replaced."""
    found = _OWN.fullmatch(os.fspath(path))
    if found is None:
        return None
    text = found[1] or found[2]
    return _STANDARD[text] if text in _STANDARD else int(text)


def _trusted(uid: int) -> bool:
    return uid in (0, os.geteuid())


def _place_of(path: Path) -> tuple[int, str, os.stat_result | None]:
    """The folder that a path leads to (opened), the last name in it, which is no link, and what has that name.

    Raises:
        OSError: a folder is not there, or a link was made by somebody who is neither root nor the operator.
    """
    rest = _parts(os.fspath(path))
    folder = os.open("/" if os.fspath(path).startswith("/") else ".", _FOLDER)
    links = 0
    try:
        while True:
            if not rest:
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
            name = rest.pop()
            try:
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                if rest:
                    raise
                return folder, name, None
            if stat.S_ISLNK(found.st_mode):
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                to = _read_link(name, folder)
                rest += _parts(to)
                if to.startswith("/"):
                    folder = _instead(folder, os.open("/", _FOLDER))
            elif rest:
                folder = _instead(folder, os.open(name, _FOLDER, dir_fd=folder))
            else:
                return folder, name, found
    except BaseException:
        os.close(folder)
        raise


def _parts(path: str) -> list[str]:
    """The names in a path, the first one last."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _instead(folder: int, other: int) -> int:
    os.close(folder)
    return other


def _read_link(name: str, folder: int) -> str:
    """Where a link leads that root or the operator made.

    Raises:
        OSError: somebody else made it.
    """
    if not hasattr(os, "O_PATH"):  # it might be another one by the time that it is read
        return _checked(os.stat(name, dir_fd=folder, follow_symlinks=False), name, os.readlink(name, dir_fd=folder))
    link = os.open(name, _LINK, dir_fd=folder)
    try:
        return _checked(os.fstat(link), name, os.readlink("", dir_fd=link))
    finally:
        os.close(link)


def _checked(found: os.stat_result, name: str, to: str) -> str:
    if not _trusted(found.st_uid):
        raise OSError(errno.EPERM, f"{name} is a link that another user made")
    return to
