"""Callers: for each request who sends it, and which of that sender's services it is as far as that is known."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc

from receiver.ingest.connections import Connection
from receiver.ingest.sender import Pair, SocketOwners, address_name, certificate_name, uid_name

SERVICES: Final = 16
"""Services of one user of this machine that have a share of the user's own each; all others have one together."""
OTHERS: Final = "\0others"
_UNKNOWN: Final = 8
"""Connections that did not tell their service yet are divided by so many: one that is stuck is not all of them."""
_SERVICE_SECONDS: Final = 60.0
_LEARNT: Final = 1_024


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
        self._services = Services()

    def of(self, context: grpc.ServicerContext, connection: Connection | None) -> Caller:
        """Who sends this, over a connection that the acceptor knows."""
        raw = context.peer()
        sender = peer = ""
        if connection is not None:
            sender, peer = connection.sender, connection.peer
            if self._certificates:
                if connection.certificate is None:  # it stays the same as long as the connection
                    connection.certificate = certificate_name(_properties(context))
                sender = connection.certificate or sender
        sender = sender or address_name("unknown")
        service = self._services.of(sender, raw)
        return Caller(sender, peer or "unknown", service, service or f"\0{hash(raw) % _UNKNOWN}")

    def at(self, there: Pair, here: Pair) -> str:
        """The sender whose socket is at `there` and connected to `here`, which is ours."""
        uid = self.owners.uid_of(there, here)
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


def _properties(context: grpc.ServicerContext) -> Mapping[str, Sequence[bytes]]:
    found: Any = context.auth_context()  # the stubs say bytes where there is a list of them
    return {str(key): list(values) for key, values in found.items()}
