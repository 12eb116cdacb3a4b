"""Whose socket is at the other end of a TCP connection on loopback, as the kernel tells it (Linux, sock_diag(7)).

One question about one socket, whatever number of others there is: /proc/net/tcp would have to be read whole for each.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Final

_NETLINK: Final = 16
_SOCK_DIAG: Final = 4
_BY_FAMILY: Final = 20
_REQUEST: Final = 1
_ANY_STATE: Final = 0xFFFFFFFF
_HEADER: Final = struct.Struct("=IHHII")
_QUESTION: Final = struct.Struct("=BBBxI2s2s4s12x4s12xIII")
_ANSWER: Final = struct.Struct("=BBBB48xIIIII")  # ..., expires, rqueue, wqueue, uid, inode
_NO_COOKIE: Final = 0xFFFFFFFF
NOBODY: Final = -1
"""Instead of a uid: whoever opened a connection has closed it, and reads no answer."""


class Peers:
    """Asks the kernel. For one thread; where nothing can be asked, nobody is known."""

    def __init__(self) -> None:
        self._number = 0
        self._kernel: socket.socket | None = None
        with suppress(OSError):
            self._kernel = socket.socket(_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG)
            self._kernel.setblocking(False)

    def owner(self, peer: tuple[str, int], own: tuple[str, int]) -> int | None:
        """The uid of who made the socket at `peer` (IPv4 address and port) that is connected to `own`; None where that
        is not known, NOBODY where nobody holds it any more."""
        if self._kernel is None:
            return None
        self._number = (self._number + 1) & 0xFFFFFFFF
        ports = (struct.pack("!H", peer[1]), struct.pack("!H", own[1]))
        addresses = (socket.inet_aton(peer[0]), socket.inet_aton(own[0]))
        question = _QUESTION.pack(
            socket.AF_INET, socket.IPPROTO_TCP, 0, _ANY_STATE, *ports, *addresses, 0, _NO_COOKIE, _NO_COOKIE
        )
        head = _HEADER.pack(_HEADER.size + len(question), _BY_FAMILY, _REQUEST, self._number, 0)
        try:
            self._kernel.sendto(head + question, (0, 0))
            for _ in range(4):  # an answer to an earlier question may still lie there
                said = self._kernel.recv(4096)
                _, kind, _, number, _ = _HEADER.unpack_from(said)
                if number == self._number:
                    break
            else:
                return None
        except (OSError, struct.error):
            return None
        if kind != _BY_FAMILY or len(said) < _HEADER.size + _ANSWER.size:
            return None
        uid, inode = _ANSWER.unpack_from(said, _HEADER.size)[-2:]
        return int(uid) if inode else NOBODY

    def close(self) -> None:
        """Ask no more."""
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None
