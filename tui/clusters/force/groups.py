"""Which requests belong to one command: a file of JSON lines beside the database, so that any TUI on it can tell.

Of the command only the program's name and its sub-command are kept: arguments may hold secrets. The file is 0600,
bounded to the last commands, and a convenience: what cannot be read of it is passed over.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final

from receiver.control import beside
from receiver.store.errors import NotOurs, StoreError
from receiver.store.ownership import database_to_read, open_ours

MOST: Final = 100
MOST_TRACES: Final = 10_000
_MOST_BYTES: Final = 8 << 20
_LAST: Final = (1 << 63) - 1
_WORD: Final = re.compile(r"[a-z][a-z-]{0,30}")
_WORDS: Final = 3
_WITH_GLOBAL_OPTIONS: Final = frozenset(("kubectl", "oc", "helm"))
_VALUED: Final = frozenset(
    {
        *("-n", "--namespace", "--context", "--cluster", "--user", "--kubeconfig", "-s", "--server", "--token", "--as"),
        *("--as-group", "--as-uid", "--as-user-extra", "--username", "--password", "--certificate-authority"),
        *("--client-certificate", "--client-key", "--tls-server-name", "--request-timeout", "--cache-dir"),
        *("--profile", "--profile-output", "-v", "--v", "--vmodule", "--log-flush-frequency", "--kuberc"),
        *("--kube-context", "--kube-apiserver", "--kube-token", "--kube-as-user", "--kube-as-group", "--kube-ca-file"),
    }
)
"""Options of every sub-command that take a value (kubectl options, 1.36; helm 3)."""
_SWITCHES: Final = frozenset(
    ("--insecure-skip-tls-verify", "--disable-compression", "--match-server-version", "--warnings-as-errors", "--debug")
)
_JOINED: Final = re.compile(r"-n[A-Za-z0-9.-]+|-v[0-9]+")


@dataclass(frozen=True, slots=True)
class Group:
    """A command: `time` when it began (ns since the epoch), `words` what it was (`kubectl get pods`), `traces` the ids
    under which its requests are found."""

    id: str
    time: int
    words: str
    traces: tuple[str, ...] = ()


def path_of(database: Path) -> Path:
    """The file of a database's commands."""
    return beside(database, ".commands")


def words_of(command: Sequence[str]) -> str:
    """The program's name and the sub-command before the first option, as far as they look like plain words. kubectl's
    and helm's options that every sub-command takes may stand before it, and are left out with their values."""
    if not command:
        return ""
    said = [os.path.basename(command[0])[:40]]
    at = _behind_global_options(command) if said[0] in _WITH_GLOBAL_OPTIONS else 1
    for word in command[at : at + _WORDS - 1]:
        if not _WORD.fullmatch(word):
            break
        said.append(word)
    return " ".join(said)


def _behind_global_options(command: Sequence[str]) -> int:
    """Where the sub-command stands; an option that is not known stands there, too, since it may have a value."""
    at = 1
    while at < len(command):
        option, equals, _ = command[at].partition("=")
        if option in _VALUED and not equals:
            at += 2
        elif (option in _VALUED and equals) or option in _SWITCHES or _JOINED.fullmatch(option):
            at += 1
        else:
            break
    return at


def remember(database: Path, group: Group) -> None:
    """Add a command, or replace the one with its id. Several processes may do so at once.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        handle = open_ours(path_of(database), os.O_RDWR | os.O_CREAT)
    except NotOurs as problem:
        raise PermissionError(errno.EPERM, "it is not ours to write into") from problem
    with os.fdopen(handle, "r+", encoding="utf-8", errors="replace") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        group = replace(group, traces=group.traces[:MOST_TRACES])
        kept = [one for one in _read(file) if one.id != group.id] + [group]
        lines = [_line(one) for one in kept[-MOST:]]
        while len(lines) > 1 and sum(map(len, lines)) > _MOST_BYTES:
            lines.pop(0)
        file.seek(0)
        file.truncate()
        file.writelines(lines)


def recall(database: Path) -> list[Group]:
    """The commands, the oldest first; [] where nothing can be read."""
    try:
        found = database_to_read(database)
        with found.rights.held():
            # A pipe would let us wait for ever, and so would who holds another user's lock.
            handle = os.open(path_of(database), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (OSError, StoreError):
        return []
    with os.fdopen(handle, encoding="utf-8", errors="replace") as file:
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return []
            fcntl.flock(file, fcntl.LOCK_SH | (fcntl.LOCK_NB if found.guest else 0))
            return _read(file)
        except OSError:
            return []


def _line(group: Group) -> str:
    document = {"id": group.id, "time": group.time, "words": group.words, "traces": list(group.traces)}
    return json.dumps(document, separators=(",", ":")) + "\n"


def _read(file: IO[str]) -> list[Group]:
    found = []
    for line in file.read(2 * _MOST_BYTES).splitlines():
        try:
            document = json.loads(line)
            traces = tuple(one for one in document["traces"][:MOST_TRACES] if re.fullmatch(r"[0-9a-f]{32}", one))
            time = min(max(int(document["time"]), 0), _LAST)
            found.append(Group(str(document["id"])[:64], time, str(document["words"])[:200], traces))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            continue
    return found[-MOST:]
