"""The journal of a rollout: what its watcher on the node did, one line a step.

A line is `EPOCH STEP detail`, the epoch by the node's clock, which may jump: lines are in the order of what happened,
their times are for people. The last one of a rollout that has ended is `EPOCH end done|rolled-back|failed detail`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MOST_LINES: Final = 4000
"""Of one journal; a rollout writes some twenty."""

_LINE: Final = re.compile(r"([0-9]{1,12}) ([a-z][a-z-]{0,30})(?: (.{0,2000}))?", re.DOTALL)

STEPS: Final = {
    "begin": "Begun",
    "check": "Checked",
    "backup": "Backed up",
    "staged": "Staged",
    "write": "Written",
    "restart": "Restarting",
    "gone": "Old one gone",
    "started": "New one started",
    "ready": "Ready",
    "members": "etcd is whole",
    "controllers": "Controllers run",
    "remove": "Removed",
    "spans": "Spans arriving",
    "back": "Putting back",
    "restore": "Put back",
    "resume": "Resumed",
    "wait": "Waiting",
    "note": "Note",
    "end": "Ended",
}
"""Steps, and what they are called for people."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A step. `when` is seconds since the epoch by the node's clock."""

    when: int
    step: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """How a rollout ended: `done`, `rolled back` or `failed`, and why."""

    word: str
    detail: str = ""


def parse_line(line: str) -> Entry | None:
    """A line without its line feed; None for one that is no step, as a crash may leave half of one."""
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    return Entry(int(found[1]), found[2], found[3] or "")


def parse(text: bytes) -> tuple[Entry, ...]:
    """A whole journal. A last line without its line feed was cut off by a crash: it did not happen."""
    whole, feed, _ = text.rpartition(b"\n")
    if not feed:
        return ()
    lines = whole.decode("utf-8", "replace").split("\n")[:MOST_LINES]
    return tuple(entry for line in lines if (entry := parse_line(line)) is not None)


def end_of(entries: Iterable[Entry]) -> End | None:
    """How it ended; None while it runs, or when it was interrupted."""
    end = None
    for entry in entries:
        if entry.step == "end":
            word, _, detail = entry.detail.partition(" ")
            if word in ("done", "rolled-back", "failed"):
                end = End(word.replace("-", " "), detail)
    return end
