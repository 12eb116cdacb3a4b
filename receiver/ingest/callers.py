"""Callers: for each request who sends it, and which of that sender's services it is as far as that is known."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import grpc

from receiver.ingest.sender import Pair, Remembered, SocketOwners, address_name, certificate_name, uid_name

SERVICES: Final = 16
"""Services of one user of this machine that have a share of the user's own each; all others have one together."""
OTHERS: Final = "\0others"
_UNKNOWN: Final = 8
"""Connections that did not tell their service yet are divided by so many: one that is stuck is not all of them."""
_SERVICE_SECONDS: Final = 60.0
_LEARNT: Final = 1_024
_KNOWN_SECONDS: Final = 1.0
_PEERS: Final = 1_024
_WILDCARDS: Final = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request."""

    sender: str
    peer: str  # address and port, for people; "unix" for a unix socket
    service: str  # "" while it is not known
    connection: str  # the same, or where that is not known, one of a few names for all such connections


class Callers:
    """Names who calls. For several threads."""

    def __init__(self, certificates: bool) -> None:
        """`certificates`: gRPC verifies one of each sender."""
        self.owners = SocketOwners()
        self._certificates = certificates
        self._remembered = Remembered(_KNOWN_SECONDS, _PEERS)
        self._services = Services()

    def of(
        self, context: grpc.ServicerContext, listener: int, here: Sequence[Pair], unix: Callable[[str], str] | None
    ) -> Caller:
        """Who sends this.

        Args:
            listener: a number of the listener's own.
            here: where it listens.
            unix: names the sender of a peer of a unix socket.
        """
        raw = context.peer()
        key = listener, raw
        peer = peer_name(raw)
        sender = self._remembered.get(key)
        if sender is None:
            if self._certificates:
                sender = certificate_name(_properties(context))
            if not sender:
                sender = unix(unquote(raw)[5:]) if unix is not None else self.at(peer_pair(peer), here)
            self._remembered.put(key, sender)
        service = self._services.of(sender, raw)
        return Caller(sender, peer, service, service or f"\0{hash(raw) % _UNKNOWN}")

    def at(self, there: Pair | None, here: Sequence[Pair]) -> str:
        """The sender that is connected from an address and port to one of these."""
        if there is None:
            return address_name("unknown")
        uid = self.owners.uid_of(there, _places(there, here))
        return uid_name(uid) if uid is not None else address_name(there[0])

    def learn(self, caller: Caller, raw: str, service: str) -> None:
        """A request of this caller's held spans of this service first."""
        if caller.service != service:
            self._services.learn(caller.sender, raw, service)


class Services:
    """Which service is at the other end of a connection, learnt from what it sent before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._learnt: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._names: OrderedDict[str, OrderedDict[str, float]] = OrderedDict()

    def of(self, sender: str, raw: str) -> str:
        """The name under which a connection has its part of its sender's share, "" while it is not known."""
        return self._learnt.get((sender, raw), "")

    def learn(self, sender: str, raw: str, service: str) -> None:
        """The connection sent spans of this service."""
        if not sender.startswith("uid "):
            return
        with self._lock:
            names = self._names.setdefault(sender, OrderedDict())
            while len(self._names) > _LEARNT:
                self._names.popitem(last=False)
            now = time.monotonic()
            if service not in names and len(names) >= SERVICES:
                oldest, used = next(iter(names.items()))
                if now - used > _SERVICE_SECONDS:
                    del names[oldest]
            if service in names or len(names) < SERVICES:
                names[service] = now
                names.move_to_end(service)
            else:
                service = OTHERS
            self._learnt[sender, raw] = service
            self._learnt.move_to_end((sender, raw))
            while len(self._learnt) > _LEARNT:
                self._learnt.popitem(last=False)


def peer_name(raw: str) -> str:
    """A peer as gRPC names it (`ipv6:%5B::1%5D:4317`, `ipv4:...`, `unix:`) as `[::1]:4317`, `...` or `unix`."""
    kind, _, rest = unquote(raw).partition(":")
    return (rest if kind in ("ipv4", "ipv6") and rest else kind)[:128]


def peer_pair(peer: str) -> Pair | None:
    """Address and port of a peer's name, None where it is none."""
    host, colon, port = peer.rpartition(":")
    if not colon or not port.isdigit():
        return None
    return host.strip("[]").partition("%")[0], int(port)


def _places(there: Pair, here: Sequence[Pair]) -> list[Pair]:
    """What the other end may be connected to: a listener at every address is at the sender's own, too."""
    found: list[Pair] = []
    for host, port in here:
        if host in _WILDCARDS:
            found += [(there[0], port), ("::1" if there[0] == "::1" else "127.0.0.1", port)]
        else:
            found.append((host, port))
    return found


def _properties(context: grpc.ServicerContext) -> Mapping[str, Sequence[bytes]]:
    found: Any = context.auth_context()  # the stubs say bytes where there is a list of them
    return {str(key): list(values) for key, values in found.items()}
