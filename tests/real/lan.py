"""The network that nodes hang on and that the outside asks from: a bridge in a network namespace of its own.

The namespace belongs to no process: threads of this one enter it, and it ends with the last open descriptor of it.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, TypeVar

from tests.real.workspace import Unavailable

T = TypeVar("T")
_NEWNET: Final = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


class Lan:
    """A network of nodes, 192.0.2.0/24 (for documentation; nobody has it). The outside is `OUTSIDE` in it."""

    OUTSIDE: Final = "192.0.2.1"

    def __init__(self) -> None:

        def make() -> int:
            if _LIBC.unshare(_NEWNET) != 0:
                raise Unavailable(f"a network namespace cannot be made: {os.strerror(ctypes.get_errno())}")
            for arguments in (
                "link set lo up",
                "link add br0 type bridge",
                f"addr add {self.OUTSIDE}/24 dev br0",
                "link set br0 up",
            ):
                _ip(arguments)
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        self._namespace = _in_a_thread(make)

    def enter(self) -> None:
        """Put the calling thread, which must be one of its own, into the network."""
        if _LIBC.setns(self._namespace, _NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")

    def inside(self, job: Callable[[], T]) -> T:
        """What a job returns, done in the network."""

        def entered() -> T:
            self.enter()
            return job()

        return _in_a_thread(entered)

    def connect(self, address: tuple[str, int], timeout: float = 10.0) -> socket.socket:
        """A TCP connection from the outside to a node."""
        return self.inside(lambda: socket.create_connection(address, timeout))

    def add_address(self, address: str) -> None:
        """Give the outside another address."""
        self.inside(lambda: _ip(f"addr add {address}/24 dev br0"))

    def entering(self, command: Sequence[str]) -> list[str]:
        """The command, run in the network from the outside of the nodes; for as long as this process lives."""
        return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self._namespace}", "--", *command]

    def plug(self, name: str, pid: int, address: str) -> None:
        """Give the network namespace of a process an `eth0` with an address and a way out.

        Args:
            name: of the node, 15 bytes at most.
        """

        def wire() -> None:
            _ip(f"link add {name} type veth peer name eth0 netns {pid}")
            _ip(f"link set {name} master br0 up")

        self.inside(wire)
        for arguments in (
            f"addr add {address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {self.OUTSIDE}",
        ):
            _run(["nsenter", "-t", str(pid), "-n", "ip", *arguments.split()])

    def close(self) -> None:
        """Let go of it."""
        os.close(self._namespace)


class Forward:
    """A port on this machine's loopback that leads into the network, so that a person's kubectl reaches a node."""

    def __init__(self, lan: Lan, address: tuple[str, int]) -> None:
        self._lan = lan
        self._to = address
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        try:
            far = self._lan.connect(self._to)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        back = threading.Thread(target=_pump, args=(far, near), daemon=True)
        back.start()
        _pump(near, far)
        back.join()
        near.close()
        far.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _in_a_thread(job: Callable[[], T]) -> T:
    """Done in a thread of its own, whose namespaces may be others' without harm."""
    done: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            done.append(job())
        except BaseException as problem:  # noqa: BLE001  (raised again by who waits)
            failed.append(problem)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def _ip(arguments: str) -> None:
    _run(["ip", *arguments.split()])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(command)}: {done.stderr.strip()}")
