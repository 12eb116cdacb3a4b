"""Ports for servers that must know theirs before they listen, or listen again later, while other tests do the same."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_DRAWN: set[int] = set()
_RANDOM = random.SystemRandom()  # no seed of a test run makes its workers draw alike


def random_port() -> int:
    """One that this process did not draw before, and that the kernel gives to nobody by itself: not to a connection,
    and not to a server that takes any port."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    low, high = (max(1024, first - 12_000), first) if first > 4096 else (1024, 65_536)
    while True:
        port = _RANDOM.randrange(low, high)
        if port not in _DRAWN:
            _DRAWN.add(port)
            return port


def free_port() -> int:
    """Such a port at which nobody listens now; so it stays, unless another test draws the same one."""
    while True:
        port = random_port()
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
