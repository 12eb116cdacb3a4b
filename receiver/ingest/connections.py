"""Connections: whose are ended when there are too many, and how many files there may be for them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

MOST: Final = 1_024
"""Connections in all; where fewer files may be open, a quarter of these: each takes three, with gRPC's own."""
FEW: Final = 16
"""So many a sender may leave open without a call for as long as it likes."""
SILENT_SECONDS: Final = 30.0
"""A connection beyond these that made no call for so long after it came is ended."""
IDLE_SECONDS: Final = 600.0
"""... and one that made none for so long."""


@dataclass(slots=True, eq=False)
class Connection:
    """One that a sender opened."""

    sender: str
    peer: str  # for people
    since: float  # monotonic; when it was accepted
    called: float = 0.0  # monotonic; when its last call began, 0: it made none
    busy: bool = False
    certificate: str | None = None  # the sender by its certificate, "" without; None while nobody looked


def to_end(connections: Iterable[Connection], most: int, now: float) -> list[Connection]:
    """Which connections are ended: those that beyond a few of a sender's do nothing, and while there are more than
    `most`, of who has most: first those that never made a call, then those whose last is longest ago. One with a call
    under way goes last."""
    by_sender: dict[str, list[Connection]] = {}
    for one in connections:
        by_sender.setdefault(one.sender, []).append(one)
    ended: list[Connection] = []
    for held in by_sender.values():
        held.sort(key=lambda one: (one.busy, one.called, one.since), reverse=True)  # the last is the first to go
        useless = [
            one
            for one in held
            if not one.busy and now - (one.called or one.since) > (IDLE_SECONDS if one.called else SILENT_SECONDS)
        ]
        gone = set(map(id, useless[max(0, FEW - len(held) + len(useless)) :]))
        ended += [one for one in held if id(one) in gone]
        held[:] = [one for one in held if id(one) not in gone]
    over = sum(map(len, by_sender.values())) - most
    while over > 0:
        greediest = max(by_sender.values(), key=len)
        ended.append(greediest.pop())
        over -= 1
    return ended


def files_allowed() -> int:
    """How many files this process may have open."""
    try:
        import resource
    except ImportError:
        return 256
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def allow_files(most: int = 65_536) -> None:
    """Raise the number of files this process may have open as far as it may itself."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
