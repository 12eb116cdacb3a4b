"""What each sender took and was denied: who starves whom, in numbers and in a sentence."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

MOST: Final = 200
"""Senders that are told apart; of more, those that were not seen for longest are forgotten."""
_MINUTE: Final = 60


@dataclass(slots=True)
class Account:
    """One sender's."""

    sender: str
    requests: int = 0
    bytes: int = 0
    spans: int = 0
    refused: int = 0
    """Requests that were told to come back because this sender had its share."""
    crowded_out: int = 0
    """Requests that were told to come back although it had less: others, or the disk, left nothing."""
    cut: int = 0
    """Requests that were ended for another sender's sake, or because they were slow."""
    ended: int = 0
    """Connections that were ended."""
    held_back: int = 0
    """Times that a connection was not read for a while: its sender had its share, or no data came."""
    turned_away: int = 0
    """Connections that were not let in."""
    _recent: OrderedDict[int, list[int]] = field(default_factory=OrderedDict)
    """By second, in the order of `_RECENT`."""

    def note(self, what: int, count: int = 1) -> None:
        """Count what was denied in this second."""
        second = int(time.monotonic())
        counts = self._recent.setdefault(second, [0] * len(_RECENT))
        counts[what] += count
        while len(self._recent) > _MINUTE:
            self._recent.popitem(last=False)

    def last_minute(self) -> list[int]:
        """What was denied in it, in the order of `_RECENT`."""
        since = time.monotonic() - _MINUTE
        sums = [0] * len(_RECENT)
        for second, counts in self._recent.items():
            if second >= since:
                sums = [a + b for a, b in zip(sums, counts, strict=True)]
        return sums


_RECENT: Final = ("refused", "crowded_out", "cut", "ended", "held_back", "turned_away")
_REFUSED, _CROWDED, _CUT, _ENDED, _HELD_BACK, _TURNED_AWAY = range(len(_RECENT))


class Accounts:
    """Those of all senders. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._accounts: OrderedDict[str, Account] = OrderedDict()

    def arrived(self, sender: str, size: int) -> None:
        """A request of so many bytes was read."""
        with self._lock:
            account = self._of(sender)
            account.requests += 1
            account.bytes += size

    def stored(self, sender: str, spans: int) -> None:
        """Spans were stored."""
        with self._lock:
            self._of(sender).spans += spans

    def refused(self, sender: str, *, within_share: bool) -> None:
        """A request was told to come back."""
        with self._lock:
            account = self._of(sender)
            if within_share:
                account.crowded_out += 1
            else:
                account.refused += 1
            account.note(_CROWDED if within_share else _REFUSED)

    def cut(self, sender: str) -> None:
        """A request was ended for others."""
        with self._lock:
            account = self._of(sender)
            account.cut += 1
            account.note(_CUT)

    def ended(self, sender: str, connections: int) -> None:
        """Connections were ended for others."""
        with self._lock:
            account = self._of(sender)
            account.ended += connections
            account.note(_ENDED, connections)

    def held_back(self, sender: str) -> None:
        """A connection is not read for a while."""
        with self._lock:
            account = self._of(sender)
            account.held_back += 1
            account.note(_HELD_BACK)

    def turned_away(self, sender: str) -> None:
        """A connection was not let in."""
        with self._lock:
            account = self._of(sender)
            account.turned_away += 1
            account.note(_TURNED_AWAY)

    def to_json(self, connections: dict[str, int], waiting: dict[str, int]) -> list[dict[str, Any]]:
        """As in the control socket's `status`; who was denied most in the last minute first.

        Args:
            connections: how many are open, by sender.
            waiting: requests whose message has not come yet, by sender.
        """
        with self._lock:
            rows = [(account, account.last_minute()) for account in self._accounts.values()]
        rows.sort(key=lambda row: (sum(row[1]), row[0].bytes), reverse=True)
        return [
            {
                "sender": account.sender,
                "connections": connections.get(account.sender, 0),
                "waiting": waiting.get(account.sender, 0),
                "requests": account.requests,
                "bytes": account.bytes,
                "spans": account.spans,
                "refused": account.refused,
                "crowded_out": account.crowded_out,
                "cut": account.cut,
                "ended": account.ended,
                "held_back": account.held_back,
                "turned_away": account.turned_away,
                "last_minute": dict(zip(_RECENT, recent, strict=True)),
            }
            for account, recent in rows
        ]

    def _of(self, sender: str) -> Account:
        account = self._accounts.get(sender)
        if account is None:
            account = self._accounts[sender] = Account(sender)
            while len(self._accounts) > MOST:
                self._accounts.popitem(last=False)
        else:
            self._accounts.move_to_end(sender)
        return account


def limited(shares: list[dict[str, Any]]) -> str:
    """One sentence on who was held back in the last minute and who had to wait for it, "" where nobody was.

    Args:
        shares: as `Accounts.to_json` gives them.
    """
    denied_something = [one for one in shares if any(one["last_minute"][key] for key in _DENIED)]
    if not denied_something:
        return ""
    first, more = denied_something[0], len(denied_something) - 1
    recent, total = first["last_minute"], sum(int(one["connections"]) for one in shares)
    facts = []
    if first["connections"]:
        facts.append(f"holds {first['connections']:,} of {total:,} connections")
    denied = recent["refused"] + recent["cut"]
    lately = [
        (denied, f"had {denied:,} of its requests refused or cut off"),
        (recent["held_back"], f"was held back {_times(recent['held_back'])}"),
        (recent["turned_away"], f"was turned away {_times(recent['turned_away'])}"),
        (recent["ended"], f"lost {recent['ended']:,} connections"),
    ]
    when = " in the last minute"
    for number, fact in lately:
        if number:
            facts.append(fact + when)
            when = ""
    others = f", as do {more:,} more" if more else ""
    sentence = f"{first['sender']} takes more than its share{others}: it {_joined(facts)}."
    suffering = [one for one in shares if one is not first and one["last_minute"]["crowded_out"]]
    if suffering:
        one = suffering[0]
        number = one["last_minute"]["crowded_out"]
        sentence += f" {number:,} request{'s' * (number != 1)} of {one['sender']} found no room meanwhile."
    return sentence


_DENIED: Final = [what for what in _RECENT if what != "crowded_out"]


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number:,} times"


def _joined(facts: list[str]) -> str:
    return facts[0] if len(facts) == 1 else f"{', '.join(facts[:-1])} and {facts[-1]}"
