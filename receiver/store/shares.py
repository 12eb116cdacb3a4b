"""Whose spans go when there is no room for all: a share for each sender, within it one for each service.

Each of those who send gets the same share of the cap. What one does not use goes to the others, evenly (max-min
fairness): whoever keeps less than a share loses nothing, whatever the others send.

A sender is one to a listener: its certificate's subject, its user id, or its address (an IPv6 network of /64, for who
has one has all of it). `service.name` is what a sender says of itself, so it divides the sender's own share only.
Names and addresses are not free of charge here, or a share would be: MOST_SHARES senders have one of their own, those
with a certificate or a user id first, then who was there first; the others have one together. MOST_SERVICES services
of a sender likewise.
"""

from __future__ import annotations

import ipaddress
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.chunk import Chunk

Array = npt.NDArray[Any]

MOST_SHARES: Final = 64
MOST_SERVICES: Final = 16
_MOST_KNOWN: Final = 4096
"""Senders told apart at all."""
_FOR_IDENTITIES: Final = 1024
"""Of them, who has a certificate or a user id."""
_MOST_TOLD: Final = 64
_OTHERS: Final = ("", "")

IMPORTED: Final = ("", "imported")

Sender = tuple[str, str]
"""Listener, and who sends; "" twice: those that nobody tells apart."""


def sender_of(source: str, sender: str, peer: str) -> Sender:
    """Who has a share: the listener and what the sender is called there. All that was imported has one."""
    if not sender and not peer:
        return IMPORTED
    if sender.startswith(("certificate ", "uid ")):
        return source, sender
    host = sender.removeprefix("address ") if sender else _host(peer)
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return source, host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return source, f"address {address.ipv4_mapped}"
        if not address.is_loopback:
            return source, f"address {ipaddress.ip_network((address, 64), strict=False)}"
    return source, f"address {address}"


def _host(peer: str) -> str:
    """A peer without its port: `[::1]:4317`, `10.0.0.1:4317`, `unix`."""
    host, colon, port = peer.rpartition(":")
    return (host if colon and port.isdigit() else peer).strip("[]")


def fair_gifts(usage: Array, need: float) -> Array:
    """What each gives so that `need` is free, taken from the largest: nobody is left with less than another who gives.

    Args:
        usage: what each has, in bytes.
        need: bytes that must go.
    """
    if need <= 0 or not len(usage):
        return np.zeros(len(usage))
    total = float(usage.sum())
    if need >= total:
        return usage.astype(float)
    ordered = np.sort(usage.astype(float))
    # The level below which nobody gives: those above it have, together, `need` more than it.
    left = total - need
    below = np.concatenate(([0.0], np.cumsum(ordered)[:-1]))
    levels = (left - below) / np.arange(len(ordered), 0, -1)
    at = int(np.argmax(levels <= ordered))
    gifts: Array = np.maximum(usage - levels[at], 0.0)
    return gifts


@dataclass(slots=True)
class _Known:
    name: Sender
    services: dict[str, int]  # group by service, as many as have one
    rest: int  # the group of its other services


class Shares:
    """Numbers for senders, and for their services ("groups"), while they have something here. Several threads.

    Numbers are never used again; who comes first has the lower one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._senders: dict[Sender, int] = {}
        self._known: dict[int, _Known] = {}
        self._owner: dict[int, int] = {}  # sender by group
        self._next = 0
        self._remembered: dict[tuple[str, str, str], int] = {}  # by what a chunk says, for the path of every request

    def of(self, chunk: Chunk) -> tuple[int, Array]:
        """(number of the sender, group of each of the chunk's resources)."""
        said = (chunk.source, chunk.sender, chunk.peer)
        with self._lock:
            number = self._remembered.get(said)
            if number is None or number not in self._known:
                if len(self._remembered) > _MOST_KNOWN:
                    self._remembered.clear()
                number = self._remembered[said] = self._sender(sender_of(*said))
            known = self._known[number]
            groups = [known.services.get(one.service, -1) for one in chunk.resources]
            if -1 in groups:
                groups = [self._group(number, one.service) for one in chunk.resources]
        return number, np.array(groups, np.int64)

    def name(self, number: int) -> Sender:
        """What a sender is called."""
        with self._lock:
            known = self._known.get(number)
            return _OTHERS if known is None else known.name

    def _sender(self, name: Sender) -> int:
        number = self._senders.get(name)
        if number is not None:
            return number
        limit = _MOST_KNOWN if _identified(name) else _MOST_KNOWN - _FOR_IDENTITIES
        if len(self._senders) >= limit and name != _OTHERS:
            return self._sender(_OTHERS)
        number = self._senders[name] = self._number()
        rest = self._number()
        self._known[number] = _Known(name, {}, rest)
        self._owner[rest] = number
        return number

    def _group(self, sender: int, service: str) -> int:
        known = self._known[sender]
        group = known.services.get(service)
        if group is None:
            if len(known.services) >= MOST_SERVICES:
                return known.rest
            group = known.services[service] = self._number()
            self._owner[group] = sender
        return group

    def _number(self) -> int:
        self._next += 1
        return self._next

    def forget_all_but(self, groups: Iterable[int]) -> None:
        """Only these groups have something here."""
        used = set(groups)
        with self._lock:
            for number, known in list(self._known.items()):
                for service, group in list(known.services.items()):
                    if group not in used:
                        del known.services[service], self._owner[group]
                if not known.services and known.rest not in used:
                    del self._known[number], self._owner[known.rest], self._senders[known.name]

    def gifts(self, groups: Array, usage: Array, need: float) -> tuple[Array, int]:
        """What each group gives so that `need` bytes are free, and how many shares there are.

        Args:
            groups: numbers, each once.
            usage: bytes of each.
        """
        with self._lock:
            owners = np.array([self._owner[group] for group in groups.tolist()], np.int64)
            names = {owner: self._known[owner].name for owner in set(owners.tolist())}
        order = sorted(names, key=lambda owner: (not _identified(names[owner]), owner))
        share_of = {owner: min(at, MOST_SHARES - 1) for at, owner in enumerate(order)}
        shares = np.array([share_of[owner] for owner in owners.tolist()], np.int64)
        totals = np.bincount(shares, weights=usage, minlength=len(set(share_of.values())))
        given = np.zeros(len(groups))
        for share, gift in enumerate(fair_gifts(totals, need).tolist()):
            if gift > 0:
                mine = np.flatnonzero(shares == share)
                given[mine] = fair_gifts(usage[mine], gift)
        return given, max(1, len(totals))


def _identified(name: Sender) -> bool:
    return name[1].startswith(("certificate ", "uid "))


class Evicted:
    """Whose spans were evicted since the start: of the last senders that lost some, and of all others together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lost: OrderedDict[Sender, list[int]] = OrderedDict()

    def add(self, name: Sender, spans: int, traces: int) -> None:
        """Count what a sender lost."""
        if not spans and not traces:
            return
        with self._lock:
            counts = self._lost.setdefault(name, [0, 0])
            counts[0] += spans
            counts[1] += traces
            self._lost.move_to_end(name)
            if len(self._lost) > _MOST_TOLD:
                first = next(one for one in self._lost if one != _OTHERS)
                old = self._lost.pop(first)
                others = self._lost.setdefault(_OTHERS, [0, 0])
                others[0] += old[0]
                others[1] += old[1]

    def to_json(self) -> list[dict[str, Any]]:
        """As in the control socket's `status`: who lost most first; listener and sender are "" for all others."""
        with self._lock:
            ordered = sorted(self._lost.items(), key=lambda item: -item[1][0])
        return [
            {"source": source, "sender": sender, "spans": spans, "traces": traces}
            for (source, sender), (spans, traces) in ordered
        ]
