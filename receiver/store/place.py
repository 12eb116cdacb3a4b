"""Where the database and its neighbours live, and where they must not.

The default is the user's state directory. Three things overrule it: under sudo the home may still be the user's,
where a file of root's would be in the way; a network file system cannot carry SQLite's WAL (its shared memory works on
one machine only); and etcd's data directory belongs to etcd.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from platformdirs import user_state_path

from receiver.store import ownership
from receiver.store.errors import NotOurs, StoreError

PROGRAM: Final = "k8s-trace-tui"
DATABASE_NAME: Final = "spans.db"
SYSTEM_STATE: Final = Path("/var/lib") / PROGRAM
"""Root's place when its home is somebody else's: what systemd calls StateDirectory."""

NETWORK_FILE_SYSTEMS: Final = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "9p", "ceph", "afs", "lustre", "gpfs", "beegfs"),
        *("glusterfs", "orangefs", "davfs", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse"),
        *("fuse.davfs2", "fuse.s3fs", "fuse.gcsfuse", "fuse.goofys", "fuse.rclone", "fuse.juicefs", "fuse.mount-s3"),
    }
)
"""Types in /proc/self/mountinfo that several machines may see at once (proc_pid_mountinfo(5))."""


@dataclass(frozen=True, slots=True)
class Place:
    """A directory for our files, and a sentence for the operator when it is not the usual one ("" else)."""

    directory: Path
    said: str = ""

    @property
    def database(self) -> Path:
        """The default database."""
        return self.directory / DATABASE_NAME

    @property
    def log(self) -> Path:
        """The log of failures, bounded by who writes it."""
        return self.directory / "k8s-trace-tui.log"


def default_place(environ: Mapping[str, str] | None = None, mounts: str | None = None) -> Place:
    """Our state directory; nothing is made. `mounts` is the text of /proc/self/mountinfo."""
    environ = os.environ if environ is None else environ
    uid = os.geteuid()
    directory, said = _state_path(), ""
    if not directory.is_absolute() or _owner(directory) != uid:
        # sudo without -H, a container without a home, `su` without `-`
        foreign = directory
        directory = SYSTEM_STATE if uid == 0 else _fallback(uid)
        who = environ.get("SUDO_USER", "")
        if uid == 0 and who:
            said = f"{foreign} is {who}'s, so root's files go to {directory}."
        else:
            said = f"{foreign} is not ours, so files go to {directory}."
    kind = file_system(directory, mounts)
    if kind in NETWORK_FILE_SYSTEMS:
        said = f"{directory} is on {kind}, which cannot carry a shared database, so files go to {_fallback(uid)}."
        directory = _fallback(uid)
    return Place(directory, said)


def choose_database(given: Path | None) -> tuple[Path, str]:
    """The database to receive into: the one the operator named, checked, or the default, its directory made (0700).

    Returns:
        The path, and a sentence to show when the place is not the usual one ("" else).

    Raises:
        StoreError: the place cannot or must not hold it.
    """
    if given is None:
        place = default_place()
        make_private(place.directory)
        path, said = place.database, place.said
    else:
        path, said = given, ""
        kind = file_system(path)
        if kind in NETWORK_FILE_SYSTEMS:
            raise StoreError(
                f"{path} is on {kind}, which cannot carry a shared database:"
                f" name a local path with --db, such as {_fallback(os.geteuid()) / DATABASE_NAME}."
            )
    owner = etcd_directory(path)
    if owner is not None:
        raise StoreError(f"{path} is inside etcd's data directory {owner}: name another path with --db.")
    return path, said


@dataclass(frozen=True, slots=True)
class Watched:
    """A database that screens show."""

    path: Path
    said: str = ""
    """A sentence for the operator when the place is not the usual one."""
    only_read: str = ""
    """Why nothing is received into it or written beside it from here, as a sentence; "" where it may be."""
    attach: bool = True
    """Its receiver can be asked."""


def database_to_watch(given: Path | None) -> Watched:
    """The database that was named or the default one, which may be another user's: then its directory stays as it is.

    Raises:
        StoreError: there is none and none may be made, or it must not be there.
    """
    place = default_place()
    path = (given if given is not None else place.database).absolute()
    try:
        here = ownership.standing(path)
        if not here.ours and here.found is not None:
            found = ownership.database_to_read(path)
            whose = f"{path} is in a directory of {ownership.name_of(here.whose[1])}'s" if here.whose else ""
            why = f"{whose}: it is only looked at from here." if whose else ownership.why_not_ours(path)
            return Watched(found.path, place.said if given is None else "", why, os.geteuid() in (0, found.owner))
        if not here.ours:
            raise NotOurs(ownership.why_not_ours(path))
        path, said = choose_database(given)
        path = path.absolute()
        if path.exists() and not os.access(path, os.W_OK):
            return Watched(path, said, f"{path} may only be read: nothing is received here.", False)
    except OSError as error:
        raise StoreError(
            f"The database {path} cannot be reached ({error.strerror}): name another with --db."
        ) from error
    return Watched(path, said)


def make_private(directory: Path) -> None:
    """Make a directory of ours (0700), or check that the one there is ours and nobody else's to write to.

    Raises:
        StoreError: it cannot be made, or somebody else prepared it.
    """
    try:
        ownership.make_folder(directory)
        ownership.close_folder(directory)
    except OSError as error:
        raise StoreError(
            f"The directory {directory} cannot be made ({error.strerror}): name another place with --db."
        ) from error


def file_system(path: Path, mounts: str | None = None) -> str:
    """The type of the file system a path is (or would be) on, as in /proc/self/mountinfo; "" where that is unknown."""
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return ""
    try:
        real = os.path.realpath(path)
    except (OSError, RuntimeError):
        return ""
    longest, kind = -1, ""
    for line in mounts.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if not dash or len(fields) < 5:
            continue
        point = _unescape(fields[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:  # a later mount on the same point covers the earlier one
            longest, kind = len(point), after.split(" ")[0]
    return kind


def etcd_directory(path: Path) -> Path | None:
    """The etcd data directory (the one with member/wal and member/snap) that a path lies in, or None."""
    real = Path(os.path.realpath(path))
    for directory in real.parents:
        member = directory / "member"
        try:
            if (member / "wal").is_dir() and (member / "snap").is_dir():
                return directory
        except OSError:  # not ours to look into, so not ours to write to either
            continue
    return None


def _state_path() -> Path:
    return user_state_path(PROGRAM, appauthor=False)


def _fallback(uid: int) -> Path:
    return Path("/var/tmp") / f"{PROGRAM}-{uid}"


def _owner(path: Path) -> int:
    """Owner of a directory, or of the nearest one above it that exists."""
    for directory in (path, *path.parents):
        try:
            return directory.stat().st_uid
        except OSError:
            continue
    return -1


def _unescape(point: str) -> str:
    """Mount points escape blank, tab, newline and backslash as octal (proc_pid_mountinfo(5))."""
    if "\\" not in point:
        return point
    for code in ("040", "011", "012", "134"):
        point = point.replace("\\" + code, chr(int(code, 8)))
    return point
