"""Who sends: the name under which a sender's use of the receiver is counted and bounded.

In this order: the subject of a client certificate that was verified; the uid that owns the other end, for a unix
socket and for whatever connects from this machine; the remote address. Never a port, and never a value from spans:
what a sender can choose freely would give it as many shares as it likes.
"""

from __future__ import annotations

import hashlib
import ipaddress
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

MAX_NAME: Final = 160
"""Characters of a sender's name: a certificate's subject is longer if its owner likes."""
LOOPBACK: Final = "address loopback"
"""Who connects over loopback and whose socket is nobody's: all of them are one sender."""
_TABLE_SECONDS: Final = 0.02
_OLD_SECONDS: Final = 0.5
_ESTABLISHED_UNTIL_CLOSED: Final = frozenset(range(1, 12)) - {6, 7, 10}  # not TIME_WAIT, CLOSE, LISTEN (tcp_states.h)

Pair = tuple[str, int]
"""IP address and port."""


# --- names -----------------------------------------------------------------------------------------
def uid_name(uid: int) -> str:
    """The sender that is a user of this machine."""
    return f"uid {uid}"


def certificate_name(properties: Mapping[str, Sequence[bytes]]) -> str:
    """The sender that showed a client certificate, "" where there was none.

    Args:
        properties: what gRPC knows of an authenticated peer; it verified the certificate.
    """
    for key, label in (("x509_subject", ""), ("x509_common_name", "CN="), ("x509_subject_alternative_name", "SAN ")):
        values = properties.get(key)
        if values and any(values):
            return f"certificate {_bounded(label + ', '.join(_text(value) for value in values))}"
    pem = properties.get("x509_pem_cert")
    return f"certificate {hashlib.sha256(pem[0]).hexdigest()[:32]}" if pem else ""


def address_name(host: str) -> str:
    """The sender at an address of another machine. Of IPv6 the network: a machine has as many addresses there as it
    likes."""
    address = _ip(host)
    if address is None:
        return f"address {_bounded(host)}"
    if address.is_loopback:
        return LOOPBACK
    if address.version == 4:
        return f"address {address}"
    return f"address {ipaddress.ip_network((int(address) >> 64 << 64, 64))}"


def _text(value: bytes) -> str:
    return "".join(c if c.isprintable() else "?" for c in value.decode("utf-8", "replace"))


def _bounded(text: str) -> str:
    """At most MAX_NAME characters, and still another text for another one."""
    if len(text) <= MAX_NAME:
        return text
    return f"{text[: MAX_NAME - 18]}..{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if address.version == 6 else None
    return mapped or address


# --- who owns a socket of this machine -------------------------------------------------------------
_REQUEST: Final = struct.Struct("=IHHII BBBxI HH16s16sIII".replace(" ", ""))
"""nlmsghdr and inet_diag_req_v2 (linux/inet_diag.h); ports and addresses are in network order."""
_REPLY: Final = struct.Struct("=BBBB HH16s16sIII IIIII".replace(" ", ""))
"""inet_diag_msg."""
_HEADER: Final = struct.Struct("=IHHII")
_SOCK_DIAG: Final = 4
_BY_FAMILY: Final = 20
_MAPPED: Final = bytes(10) + b"\xff\xff"


class SocketOwners:
    """Which user owns the socket at the other end of a TCP connection within this machine. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._netlink: socket.socket | None = None
        self._works: bool | None = None  # the kernel's answers; None while that is not known
        self._table: dict[tuple[Pair, Pair], int] = {}
        self._read_at = float("-inf")
        self._sequence = 0

    def uid_of(self, there: Pair, here: Pair) -> int | None:
        """The owner of the socket that is bound to `there` and connected to `here`.

        Returns:
            None where there is no such socket on this machine, or nobody has it open any more. A socket that its
            process closed counts as root's for the kernel, so it must not count here.
        """
        if sys.platform != "linux":
            return None
        with self._lock:
            if self._works is None:
                self._works = True
                self._works = self._knows_ours()
            if self._works:
                found = self._ask(there, here)
                if self._works:
                    return found
            return self._look(there, here)

    def _knows_ours(self) -> bool:
        """Whether the kernel knows the owner of a connection that we make: without its module for TCP it says that
        there is no such socket, as it does of one that is of another machine, and all users would be one."""
        try:
            with (
                socket.create_server(("127.0.0.1", 0)) as server,
                socket.create_connection(server.getsockname()) as one,
            ):
                return self._ask(one.getsockname(), server.getsockname()) is not None
        except OSError:
            return False

    def close(self) -> None:
        """Give the kernel's socket back."""
        with self._lock:
            if self._netlink is not None:
                self._netlink.close()
                self._netlink = None

    def _ask(self, there: Pair, here: Pair) -> int | None:
        """One question to the kernel: some 10 microseconds, however many sockets there are."""
        source, target = _packed(there[0]), _packed(here[0])
        if source is None or target is None or len(source) != len(target):
            return None
        family = socket.AF_INET if len(source) == 4 else socket.AF_INET6
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        ports = socket.htons(there[1]), socket.htons(here[1])
        question = _REQUEST.pack(
            _REQUEST.size, _BY_FAMILY, 1, self._sequence, 0, family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF,
            *ports, source.ljust(16, b"\0"), target.ljust(16, b"\0"), 0, 0xFFFFFFFF, 0xFFFFFFFF,
        )  # fmt: skip
        try:
            if self._netlink is None:
                kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
                self._netlink = socket.socket(socket.AF_NETLINK, kind, _SOCK_DIAG)
                self._netlink.settimeout(1.0)
            self._netlink.send(question)
            while True:
                answer = self._netlink.recv(4096)
                if _HEADER.unpack_from(answer)[3] == self._sequence:
                    break
        except (OSError, struct.error):
            if self._netlink is not None:  # a sandbox forbids it, or the kernel does not have it
                self._netlink.close()
                self._netlink = None
            self._works = False
            return None
        kind = _HEADER.unpack_from(answer)[1]
        if kind != _BY_FAMILY or len(answer) < _HEADER.size + _REPLY.size:
            if kind == 2 and -struct.unpack_from("=i", answer, _HEADER.size)[0] not in (0, 2):
                self._works = False  # NLMSG_ERROR with anything but ENOENT
            return None
        _, state, _, _, sport, dport, *_, uid, inode = _REPLY.unpack_from(answer, _HEADER.size)
        # Without a connection the kernel tells of the socket that listens there.
        if state not in _ESTABLISHED_UNTIL_CLOSED or (sport, dport) != ports or not inode:
            return None
        return int(uid)

    def _look(self, there: Pair, here: Pair) -> int | None:
        """The same from the kernel's table of all sockets, which is read again for what is not in it, but not all the
        time: of many that come at once some are nobody's then."""
        key = _canonical(there), _canonical(here)
        if key not in self._table or time.monotonic() - self._read_at > _OLD_SECONDS:
            now = time.monotonic()
            if now - self._read_at > _TABLE_SECONDS:
                self._table, self._read_at = _tcp_table(), now
        return self._table.get(key)


def _packed(host: str) -> bytes | None:
    """An address's octets; of an IPv4 address in an IPv6 one, the IPv4 one's."""
    try:
        if ":" not in host:
            return socket.inet_pton(socket.AF_INET, host)
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except (OSError, ValueError):
        return None
    return packed[12:] if packed.startswith(_MAPPED) else packed


def _canonical(pair: Pair) -> Pair:
    address = _ip(pair[0])
    return (str(address) if address is not None else pair[0]), pair[1]


def _tcp_table() -> dict[tuple[Pair, Pair], int]:
    """Owner by local and remote address of each connection that a process has open (proc_pid_net(5))."""
    found: dict[tuple[Pair, Pair], int] = {}
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > 9 and int(fields[3], 16) in _ESTABLISHED_UNTIL_CLOSED and fields[9] != "0":
                found[_hex_pair(fields[1]), _hex_pair(fields[2])] = int(fields[7])
    return found


def _hex_pair(text: str) -> Pair:
    """From words of 32 bits in this machine's order."""
    digits, _, port = text.partition(":")
    words = struct.pack(f"={len(digits) // 8}I", *(int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)))
    return _canonical((str(ipaddress.ip_address(words)), int(port, 16)))
