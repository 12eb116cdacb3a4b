"""Whose a place in the file system is: what may be made, changed or believed there, and by whom.

Who owns a directory can put a link, a pipe or a socket of somebody else's where a file was a moment ago. So we make,
change and follow only where every directory on the way belongs to root or to us and nobody else may write into it;
there what was looked at stays what it is. A directory like /tmp (sticky) is such a place for what is ours in it.

Root may look into the database of another user. It does so with that user's rights (setfsuid(2), of one thread): a
link that is put there then leads nowhere that its owner could not go himself.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from receiver.store.errors import NotOurs, StoreError

_MOST_LINKS: Final = 40  # as Linux (path_resolution(7))
_NOBODY_HERE: Final = 65_534  # what Linux shows for a user who has no number here
BESIDE: Final = ("-wal", "-shm", "-journal")
"""What SQLite opens by name beside a database."""
_CAPABILITIES_3: Final = 0x2008_0522  # linux/capability.h, as the next
_CAP_DAC_READ_SEARCH: Final = 2
_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h, as the next
_PR_SET_KEEPCAPS: Final = 8
_PR_SET_NO_NEW_PRIVS: Final = 38
_NO_CHANGE: Final = 0xFFFF_FFFF  # setfsuid(-1) changes nothing and tells what is


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a path, with every link on the way resolved."""

    path: Path
    found: os.stat_result | None
    """What is there, None for nothing."""
    folder_owner: int
    """Who owns the directory that it is in, or would be made in."""
    sticky: bool
    """Others may make files beside it, and cannot touch ours."""
    whose: tuple[Path, int] | None
    """The first directory on the way that is another user's, and whose."""
    link: tuple[Path, int] | None
    """The first link on the way that is another user's, and whose."""
    open_to: Path | None
    """The first directory in which others may replace what is ours."""
    closed: bool
    """A directory of root's or ours on the way lets nobody else through, as /var/lib/private."""

    @property
    def ours(self) -> bool:
        """Nobody but root and us can change what the path leads to."""
        return self.whose is None and self.link is None and self.open_to is None


def standing(path: Path) -> Standing:
    """Look at every directory and link on the way to a path; the last part need not be there, nor need its directory.

    Raises:
        OSError: it cannot be looked at.
    """
    parts = deque(os.path.join(os.getcwd(), os.fspath(path)).split("/"))
    at, found, links = "/", os.lstat("/"), 0
    whose: tuple[Path, int] | None = None
    link: tuple[Path, int] | None = None
    open_to: Path | None = None
    folder = found
    there, closed = True, False
    while parts:
        name = parts.popleft()
        if name in ("", "."):
            continue
        if name == "..":
            at = os.path.dirname(at)
            found = os.lstat(at)
            continue
        if stat.S_ISDIR(found.st_mode):
            folder = found
            closed = closed or (_trusted(found.st_uid) and not found.st_mode & stat.S_IXOTH)
            if not _trusted(found.st_uid):
                whose = whose or (Path(at), found.st_uid)
            elif _open_to_others(found):
                open_to = open_to or Path(at)
        inside = os.path.join(at, name)
        try:
            below = os.lstat(inside)
        except FileNotFoundError:
            rest = os.path.normpath("/".join((name, *parts)))
            at, there = os.path.normpath(os.path.join(at, rest)), False
            break
        if stat.S_ISLNK(below.st_mode):
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            if not _trusted(below.st_uid):
                link = link or (Path(inside), below.st_uid)
            to = os.readlink(inside)
            parts.extendleft(reversed(to.split("/")))
            if to.startswith("/"):
                at, found = "/", os.lstat("/")
            continue
        at, found = inside, below
    sticky = bool(folder.st_mode & stat.S_ISVTX and folder.st_mode & 0o022)
    return Standing(Path(at), found if there else None, folder.st_uid, sticky, whose, link, open_to, closed)


def _trusted(uid: int) -> bool:
    return uid in (0, os.geteuid()) or (uid == _NOBODY_HERE and _root_is_outside())


@lru_cache(maxsize=1)
def _root_is_outside() -> bool:
    """Whether this is a user namespace in which root of the machine has no number, so that its files are nobody's."""
    try:
        rows = [row.split() for row in Path("/proc/self/uid_map").read_text("ascii").splitlines()]
        return bool(rows) and all(int(first) > 0 for first, _, _ in rows)
    except (OSError, ValueError):
        return False


def _open_to_others(found: os.stat_result) -> bool:
    """Whether others may replace what is ours in a directory of root's or ours. Whom a user lets into a group is up to
    that user; what root does must not be up to a group."""
    if found.st_mode & stat.S_ISVTX:
        return False
    group = os.geteuid() == 0 and found.st_gid != 0
    return bool(found.st_mode & (0o022 if group else 0o002))


def name_of(uid: int) -> str:
    """A user's name, else `user 1234`."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return f"user {uid}"


def _as_user(uid: int) -> str:
    """How a command line runs as a user."""
    name = name_of(uid)
    return f"sudo -u {name}" if name != f"user {uid}" else f"sudo -u '#{uid}'"


# --- what we write ----------------------------------------------------------------------------------
def why_not_ours(path: Path, option: str = "--db") -> str:
    """Why nothing may be made or changed at a path, as a sentence with the way out; "" where it may.

    Raises:
        OSError: it cannot be looked at.
    """
    return _why_not(standing(path), option)


def _why_not(here: Standing, option: str) -> str:
    if here.whose is not None:
        directory, uid = here.whose
        return (
            f"The directory {directory} belongs to somebody else ({name_of(uid)}), who could put anything in place of"
            f" our files: run this as that user ({_as_user(uid)} k8s-trace-tui ...), or name another place with"
            f" {option}."
        )
    if here.link is not None:
        link, uid = here.link
        return (
            f"{link} is a link that belongs to somebody else ({name_of(uid)}), and is not followed: name what it leads"
            f" to, or another place, with {option}."
        )
    if here.open_to is not None:
        return (
            f"Others may write into {here.open_to} and put anything in place of our files: take that from them (chmod"
            f" go-w, or chmod +t), or name another place with {option}."
        )
    return ""


def why_not_believed(path: Path) -> str:
    """Why a file, or a directory of files, that decides what this program does is not to be read where nobody named it:
    some words that follow "because"; "" where only root and we can change it, or nothing is there.

    Raises:
        OSError: it cannot be looked at.
    """
    here = standing(path)
    if here.found is None:
        return ""
    if not _trusted(here.found.st_uid):
        return f"it belongs to somebody else ({name_of(here.found.st_uid)})"
    if here.whose is not None:
        directory, uid = here.whose
        return f"the directory {directory} belongs to somebody else ({name_of(uid)})"
    if here.link is not None:
        link, uid = here.link
        return f"the link {link} belongs to somebody else ({name_of(uid)})"
    if here.open_to is not None:
        return f"others may write into {here.open_to}"
    return "others may write into it" if _open_to_others(here.found) else ""


def our_place(path: Path, option: str = "--db") -> Path:
    """A path with its links resolved, where only root and we can change what is there.

    Raises:
        NotOurs: others can.
        OSError: it cannot be looked at.
    """
    here = standing(path)
    if why := _why_not(here, option):
        raise NotOurs(why)
    return here.path


def our_file(path: Path, option: str = "--db", *, beside: bool = False) -> Path:
    """As `our_place`, for a file: what is there, if anything, is a regular file of ours.

    Args:
        beside: it belongs to another file, so nobody has a reason to give it a second name.

    Raises:
        NotOurs: others can change it, or it is no regular file of ours.
        OSError: it cannot be looked at.
    """
    here = standing(path)
    if why := _why_not(here, option):
        raise NotOurs(why)
    if here.found is not None:
        _check(here.path, here.found, option, beside or here.sticky)
    return here.path


def our_files_beside(path: Path, *, alone: bool = True) -> None:
    """Check the files that SQLite opens by name beside a database of ours, whose links are resolved: each is a regular
    file of ours and no link, or is not there; `alone`: and has no second name.

    Raises:
        NotOurs: one is not.
        OSError: one cannot be looked at.
    """
    for suffix in BESIDE:
        one = path.with_name(path.name + suffix)
        with suppress(FileNotFoundError):
            _check(one, os.lstat(one), "--db", alone)


def _check(path: Path, found: os.stat_result, option: str, alone: bool) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise NotOurs(f"{path} is a directory: name a file in it with {option}.")
    if not stat.S_ISREG(found.st_mode):
        raise NotOurs(f"{path} is no regular file and is left as it is: move it away, or name another with {option}.")
    if found.st_uid != os.geteuid():
        whose = "root" if found.st_uid == 0 else name_of(found.st_uid)
        raise NotOurs(
            f"{path} belongs to somebody else ({whose}) and is left as it is: move it away or give it to"
            f" {name_of(os.geteuid())} (chown), or name another with {option}."
        )
    if alone and found.st_nlink > 1:
        raise NotOurs(
            f"{path} is also a file of another name (a hard link) and is left as it is: move it away, or name another"
            f" with {option}."
        )


def open_ours(path: Path, flags: int, option: str = "--db") -> int:
    """Open or make (0600) a file that belongs to us alone, and is no link; its descriptor.

    Raises:
        NotOurs: it is none, or others can put something else there.
        OSError: it cannot be opened.
    """
    place = our_place(path.parent / "x", option).with_name(path.name)  # with the directory looked at, too
    handle = os.open(place, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    try:
        _check(place, os.fstat(handle), option, True)
    except NotOurs:
        os.close(handle)
        raise
    return handle


def make_folder(directory: Path) -> Path:
    """Make a directory (0700) where there is none, and those above it; its path, with its links resolved.

    Raises:
        NotOurs: others can put something in its place.
        OSError: it cannot be made.
    """
    our_place(directory / "x").parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return our_place(directory / "x").parent  # in /tmp, somebody may have been quicker


def close_folder(directory: Path) -> None:
    """Take from others what rights they have on a directory of ours; a link and what it leads to stay as they are.

    Raises:
        NotOurs: it is another user's.
        OSError: it cannot be looked at or changed.
    """
    if directory.is_symlink():
        directory = our_place(directory)
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        close = False
    else:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        close = True
    try:
        found = os.fstat(handle)
        if found.st_uid != os.geteuid():
            raise NotOurs(
                f"The directory {directory} belongs to somebody else ({name_of(found.st_uid)}): name another place with"
                " --db."
            )
        if close and found.st_mode & 0o077:
            os.fchmod(handle, 0o700)
    finally:
        os.close(handle)


def close_to_others(path: Path) -> None:
    """Take from others what rights they have on a file of ours (0600). What is a link, another user's or has a second
    name stays as it is, and so does what cannot be changed."""
    with suppress(OSError):
        # Not opened for reading: to close that would end the locks (fcntl(2)) that SQLite has on it in this process.
        handle = os.open(path, getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(handle)
            ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1
            if ours and found.st_mode & 0o077:
                if hasattr(os, "O_PATH"):
                    os.chmod(f"/proc/self/fd/{handle}", 0o600)
                else:
                    os.fchmod(handle, 0o600)
        finally:
            os.close(handle)


def sound(directory: Path) -> bool:
    """Whether a directory of ours in this one is ours alone."""
    with suppress(OSError):
        return standing(directory / "x").ours
    return False


# --- what we look at --------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Rights:
    """With whose rights files are opened: ours, or for root also those of the user whom they belong to."""

    uid: int | None = None
    gid: int = 0
    searches: bool = False
    """And the one of root's to read and to go through every directory: systemd keeps the directories of a DynamicUser
    behind one that only root may enter. Nothing is written or connected to by it."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """This thread has them inside, and no others; other threads keep theirs. A thread that is started inside would
        keep them for good.

        Raises:
            StoreError: root cannot take them here.
        """
        if self.uid is None:
            yield
            return
        libc = _libc()
        group, user = libc.setfsgid(self.gid) & _NO_CHANGE, libc.setfsuid(self.uid) & _NO_CHANGE
        try:
            if libc.setfsuid(_NO_CHANGE) & _NO_CHANGE != self.uid:
                raise StoreError(f"Root cannot look at files of {name_of(self.uid)} here: run this as that user.")
            if self.searches:
                _raise_search(libc)
            yield
        finally:
            libc.setfsuid(user)
            libc.setfsgid(group)

    def take_for_good(self) -> None:
        """This process, of root's, has these rights from now on, and cannot go back; nothing it runs gets others.

        Raises:
            StoreError: it cannot take them here.
        """
        libc = _libc()
        if sys.platform == "linux":
            libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if self.uid is None:
            return
        try:
            if self.searches:
                libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
            os.setgroups([])
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)
        except OSError as error:
            raise StoreError(
                f"Root cannot look at files of {name_of(self.uid)} here ({error.strerror}): run this as that user."
            ) from error
        _set_capabilities(libc, 1 << _CAP_DAC_READ_SEARCH if self.searches else 0)
        if sys.platform == "linux":
            # Nor is it that user's to look into or to lead (ptrace(2)), which fs.suid_dumpable = 1 would have it be.
            libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)

    def search_no_more(self) -> None:
        """This process, which took them for good, has what it looks at open: it gives the right to search back."""
        if self.uid is not None:
            _set_capabilities(_libc(), 0)


OUR_RIGHTS: Final = Rights()


@lru_cache(maxsize=1)
def _libc() -> Any:
    libc = ctypes.CDLL(None)
    for name in ("setfsuid", "setfsgid"):
        function = getattr(libc, name)
        function.argtypes, function.restype = (ctypes.c_uint32,), ctypes.c_uint32
    return libc


def _raise_search(libc: Any) -> None:
    """Give this thread CAP_DAC_READ_SEARCH back, which setfsuid took, and gives with all others at the end."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable of the first 32, then of the others
    if libc.capget(header, sets) == 0:
        sets[0] |= sets[1] & 1 << _CAP_DAC_READ_SEARCH
        libc.capset(header, sets)  # where it may not, the way ends at that directory


def _set_capabilities(libc: Any, wanted: int) -> None:
    """Let this process have these of the first 32 capabilities and no others."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0)
    libc.capset(header, (ctypes.c_uint32 * 6)(wanted, wanted, 0, 0, 0, 0))


def rights_of(uid: int, *, searches: bool = False) -> Rights:
    """Of a user: where we are root, that user's; else ours, which is what the system then decides by.

    Raises:
        NotOurs: this system has no such thing.
    """
    if uid == os.geteuid() or os.geteuid() != 0:
        return OUR_RIGHTS
    if sys.platform != "linux":
        raise NotOurs(f"Root does not look at files of {name_of(uid)}: run this as that user ({_as_user(uid)} ...).")
    import pwd

    try:
        return Rights(uid, pwd.getpwuid(uid).pw_gid, searches)
    except (KeyError, OverflowError):
        return Rights(uid, uid, searches)


@dataclass(frozen=True, slots=True)
class Guest:
    """A database that is looked at: where it is, whose, and how it has to be opened."""

    path: Path
    """Links resolved."""
    owner: int
    rights: Rights
    guest: bool
    """Nothing may be made beside it."""


def database_to_read(path: Path) -> Guest:
    """How a database may be read; it, or its directory, need not be there.

    Raises:
        NotOurs: root cannot tell whose it is, or something is there that is no file.
        OSError: it cannot be looked at.
    """
    here = standing(path)
    root = os.geteuid() == 0
    found = here.found
    if found is not None and not stat.S_ISREG(found.st_mode):
        what = "a directory: name a file in it" if stat.S_ISDIR(found.st_mode) else "no regular file: name another"
        raise NotOurs(f"{here.path} is {what} with --db.")
    owner = here.folder_owner if found is None else found.st_uid
    if here.ours or not root:
        guest = not here.ours or owner != os.geteuid()
        if found is not None and not guest:
            our_files_beside(here.path, alone=here.sticky)
        return Guest(here.path, owner, OUR_RIGHTS, guest)
    if here.link is not None:
        raise NotOurs(_why_not(here, "--db"))
    if here.whose is not None and (owner != here.folder_owner or owner == 0):
        directory, uid = here.whose
        raise NotOurs(
            f"{here.path} belongs to {name_of(owner)}, but {name_of(uid)}, whose directory {directory} is, can put"
            " anything in its place: copy it to a directory of root's, and name that with --db."
        )
    return Guest(here.path, owner, rights_of(owner, searches=here.closed), True)
