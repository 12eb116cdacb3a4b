"""Where spans may arrive: an address in words, whether it may be opened, and who has it if not."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from receiver.store import ownership

_PATH_BYTES: Final = 107  # sun_path of a unix socket, without its final zero (unix(7))
_HOST: Final = re.compile(r"[\w.-]+")
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_LOOPBACK: Final = ("127.0.0.1", "::1")
_WILDCARDS: Final = ("0.0.0.0", "::")
_BACKLOG: Final = 4_096
"""Connections that wait to be accepted, as many as most systems allow: who finds no room tries again after a second."""
_NAME: Final = re.compile(r"[^\s=:/\[\]]{1,64}")


class ListenError(Exception):
    """An address cannot be opened; str() is one sentence for the operator."""


class NotHere(ListenError):
    """This machine has no such address: [::1] without IPv6, for example."""


def split_name(text: str) -> tuple[str, str]:
    """Name and address of `[NAME=]ADDRESS`; the name is "" where none is given.

    Raises:
        ListenError: the name is not one word of at most 64 characters.
    """
    name, equals, address = text.partition("=")
    if not equals or ":" in name or "/" in name:  # `unix:/a=b` has no name
        return "", text
    if not _NAME.fullmatch(name) or not name.isprintable():
        raise ListenError(f"{name!r} is not a name for a listener: use one word, as in --listen cp1=127.0.0.1:4317.")
    return name, address


def check_distinct(listeners: Sequence[tuple[str, str]]) -> None:
    """Refuse what is wanted twice.

    Args:
        listeners: names ("" for none) and addresses, as `split_name` gives them.

    Raises:
        ListenError: an address or a name is there twice, or an address is none.
    """
    places = [(text, Address.parse(text)) for _, text in listeners]
    addresses = [str(place) for _, place in places if place.path or place.port]
    names = [name for name, _ in listeners if name]
    for what, values in (("The address", addresses), ("The name", names)):
        twice = next((one for at, one in enumerate(values) if one in values[:at]), None)
        if twice is not None:
            raise ListenError(f"{what} {twice} is given to --listen twice: give each once.")


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """From HOST:PORT, [IPV6]:PORT, unix:/path or unix:///path.

        Raises:
            ListenError: it is none of these.
        """
        if text.startswith("unix:"):
            path = text[5:]
            path = path[2:] if path.startswith("///") else path
            if not path.startswith("/") or "\0" in path:
                raise ListenError(f"{text!r} needs an absolute path, as in unix:/run/k8s-trace-tui.sock.")
            if len(os.fsencode(path)) > _PATH_BYTES:
                raise ListenError(f"The path of {text!r} is longer than the {_PATH_BYTES} bytes of a socket's path.")
            return cls(path=path)
        host, colon, port = text.rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not colon or not bare or (":" in bare) != (bare != host) or not re.fullmatch(r"[0-9]{1,5}", port):
            raise ListenError(f"{text!r} is not an address: use HOST:PORT, [IPV6]:PORT or unix:/path.")
        if not _is_host(bare):
            raise ListenError(
                f"{bare!r} in {text!r} is neither an IP address nor a host name: write all four numbers of an IPv4"
                " address (127.0.0.1:4317), an IPv6 address in brackets ([::1]:4317), 0.0.0.0 or [::] for every address"
                " of this machine, or a name."
            )
        if int(port) > 65_535:
            raise ListenError(f"{text!r} has a port above 65535: choose another.")
        return cls(bare, int(port))

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it. A name that does not resolve counts as not local."""
        if self.path:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            pass
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return False
        return all(ipaddress.ip_address(str(one[4][0]).partition("%")[0]).is_loopback for one in found)

    def at(self, port: int) -> Address:
        """The same with the port that was really bound."""
        return self if self.path else replace(self, port=port)

    def places(self) -> list[Address]:
        """The addresses that this one stands for: itself, or those of a host name, IPv4 first.

        `localhost` is both loopback addresses, whatever the system says: a sender's resolver may take either.

        Raises:
            ListenError: nobody knows the name.
        """
        if self.path or _is_ip(self.host):
            return [self]
        if self.host.lower().rstrip(".") == "localhost":
            return [replace(self, host=host) for host in _LOOPBACK]
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise ListenError(f"{self.host} is not a known host name: check --listen {self}.") from error
        hosts = dict.fromkeys(str(where[0]) for *_, where in sorted(found, key=lambda one: one[0] != socket.AF_INET))
        return [replace(self, host=host) for host in hosts]

    def check(self, *, secure: bool, insecure: bool) -> None:
        """Refuse an address that others can reach, unless it has TLS or the operator asked for it.

        Raises:
            ListenError: with what it would mean.
        """
        if not self.local and not secure and not insecure:
            raise ListenError(
                f"{self} can be reached from other machines, and without TLS anybody there could read and send spans,"
                " which hold names of secrets and users: give --tls-cert and --tls-key, or --insecure if you want that."
            )

    def listen(self) -> socket.socket:
        """Open it: a socket that listens. That of a wildcard, 0.0.0.0 or [::], is at every address of this machine, of
        IPv6 and of IPv4.

        Raises:
            NotHere: this machine has no such address.
            ListenError: it is taken or not allowed.
        """
        if self.path:
            _claim_path(self)
            return _opened(self, socket.AF_UNIX, self.path)
        if self.host in _WILDCARDS:
            try:
                return _opened(self, socket.AF_INET6, ("::", self.port), both=True)
            except ListenError:  # no IPv6 here, perhaps; what it is else, IPv4 tells
                return _opened(self, socket.AF_INET, ("0.0.0.0", self.port))
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError) as error:
            raise ListenError(f"{self.host} is not a known host name: check --listen {self}.") from error
        return _opened(self, found[0][0], found[0][4])


def _is_host(host: str) -> bool:
    """Whether a host is an IP address or can be a name. What ends in a number and is no address (127.1, 0x7f.1) the
    system would take for an IPv4 address, but gRPC would not."""
    if _is_ip(host):
        return True
    return bool(_HOST.fullmatch(host)) and not _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2])


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_open(text: str, addresses: Collection[str]) -> bool:
    """Whether an address that was asked for is among those that are bound, under whatever name.

    Raises:
        ListenError: it is no address, or its host is not known.
    """
    return any(str(place) in addresses for place in Address.parse(text).places())


def _opened(
    address: Address, family: socket.AddressFamily, where: tuple[Any, ...] | str, *, both: bool = False
) -> socket.socket:
    """`both`: for IPv4 as well.

    Raises:
        ListenError: it cannot be opened.
    """
    before = os.umask(0o177) if address.path else None  # the socket is 0600 from its first moment
    opened = None
    try:
        opened = socket.socket(family, socket.SOCK_STREAM)
        if family != socket.AF_UNIX:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
        opened.bind(where)
        opened.listen(_BACKLOG)
    except OSError as error:
        if opened is not None:
            opened.close()
        raise _why_not(address, error) from error
    finally:
        if before is not None:
            os.umask(before)
    return opened


def _why_not(address: Address, error: OSError) -> ListenError:
    if address.path:
        return ListenError(f"{address} cannot be opened ({error.strerror}): name another path.")
    if error.errno == errno.EADDRINUSE:
        holder = port_holder(address.port)
        by = f"by {holder}" if holder else "by another program (root can see which: ss -ltnp)"
        return ListenError(
            f"Port {address.port} of {address.host} is in use {by}: stop it, or name another address with --listen."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return ListenError(f"Port {address.port} may only be opened by root: choose one from 1024 on with --listen.")
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENODEV):
        return NotHere(f"This machine has no address {address.host}: name one that it has with --listen.")
    return ListenError(f"{address} cannot be opened ({error.strerror}): name another address with --listen.")


def _claim_path(address: Address) -> None:
    path = Path(address.path)
    try:
        if why := ownership.why_not_ours(path.parent / "x", "--listen"):
            raise ListenError(f"{address} cannot be opened: {why}")
        found = path.lstat()
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise ListenError(
                f"{address} cannot be opened because the directory {path.parent} is not there: make it first."
            ) from None
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise ListenError(
                f"{address} cannot be opened because {path.parent} is not writable: name another path."
            ) from None
        return
    except OSError as error:
        raise ListenError(f"{address} cannot be opened ({error.strerror}): name another path.") from error
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(f"{address} cannot be opened because a file is there that is not a socket: move it away.")
    if _answers(path):
        raise ListenError(f"{address} is in use by another program: stop it, or name another path with --listen.")
    try:
        path.unlink()
    except OSError as error:
        raise ListenError(f"The old socket {path} cannot be removed ({error.strerror}): remove it first.") from error


def _answers(path: Path) -> bool:
    """Whether somebody listens on a unix socket. In doubt, yes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return True


def release(address: Address) -> None:
    """Take away the socket of a listener that was closed, if it is there still."""
    if address.path:
        path = Path(address.path)
        try:
            if stat.S_ISSOCK(path.lstat().st_mode) and not _answers(path):
                path.unlink()
        except OSError:
            pass  # it is gone, or no longer ours to remove


def port_holder(port: int) -> str:
    """Who listens on a TCP port, as `etcd (pid 123)`; "" where it cannot be known: not Linux, or not our process."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            # proc_pid_net(5): local address is HEXIP:HEXPORT, state 0A is LISTEN, the tenth field the inode
            fields = line.split()
            if len(fields) > 9 and fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return ""
    for process in Path("/proc").glob("[0-9]*"):
        if _has_open(process, inodes):
            try:
                comm = (process / "comm").read_text().strip()
            except OSError:
                return ""
            return f"{''.join(c if c.isprintable() else '?' for c in comm)} (pid {process.name})"
    return ""


def _has_open(process: Path, targets: set[str]) -> bool:
    try:
        handles = os.listdir(process / "fd")
    except OSError:
        return False  # another user's process, or one that just ended
    for handle in handles:
        try:
            if os.readlink(process / "fd" / handle) in targets:
                return True
        except OSError:
            continue  # closed meanwhile
    return False
