"""Who takes how much of the receiver, and who was held back: rows for the Receiver screen and for `info`.

What is told comes from the receiver, and names in it from senders: it is taken for text and numbers only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tui.terminal_text import count, printable, size

MOST: Final = 8
"""Senders that are told of; the receiver gives those first who were held back."""
_NAME: Final = 80
_SENTENCE: Final = 400


@dataclass(frozen=True, slots=True)
class Taken:
    """What one sender takes."""

    sender: str
    connections: int
    waiting: int
    requests: int
    received: int  # bytes
    refused: int
    """Requests that were refused or cut off because it had its share."""
    crowded_out: int
    ended: int
    held_back: int = 0
    """Times that a connection of its was not read for a while."""
    turned_away: int = 0
    """Connections that were not let in."""

    @property
    def words(self) -> str:
        """All of it in a line."""
        facts = [_many(self.connections, "connection"), _many(self.requests, "request"), size(self.received)]
        for number, what in (
            (self.waiting, "waiting"),
            (self.refused, "refused"),
            (self.crowded_out, "crowded out"),
        ):
            if number:
                facts.append(f"{count(number)} {what}")
        if self.held_back:
            facts.append(f"held back {_many(self.held_back, 'time')}")
        for number, what in ((self.ended, "ended"), (self.turned_away, "turned away")):
            if number:
                facts.append(f"{_many(number, 'connection')} {what}")
        return f"{self.sender}: {', '.join(facts)}"


def _many(number: int, thing: str) -> str:
    return f"{count(number)} {thing}{'' if number == 1 else 's'}"


def taken(status: Mapping[str, Any] | None) -> list[Taken]:
    """Of the first senders of a receiver's status; empty where it is an older one's."""
    told = (status or {}).get("shares")
    rows = [one for one in told if isinstance(one, dict)][:MOST] if isinstance(told, list) else []

    def number(row: Mapping[str, Any], key: str) -> int:
        value = row.get(key)
        return value if isinstance(value, int) else 0

    return [
        Taken(
            printable(str(row.get("sender", "")), _NAME),
            number(row, "connections"),
            number(row, "waiting"),
            number(row, "requests"),
            number(row, "bytes"),
            number(row, "refused") + number(row, "cut"),
            number(row, "crowded_out"),
            number(row, "ended"),
            number(row, "held_back"),
            number(row, "turned_away"),
        )
        for row in rows
    ]


def limited(status: Mapping[str, Any] | None) -> str:
    """The receiver's sentence on who was held back in the last minute, "" where nobody was."""
    return printable(str((status or {}).get("limited") or ""), _SENTENCE)
