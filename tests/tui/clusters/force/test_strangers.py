"""Whoever can connect to the proxy and has no token: the command gets through all the same."""

from __future__ import annotations

import http.client
import json
import os
import resource
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.doubles.stub_upstream import StubUpstream
from tests.eventually import eventually
from tests.tui.clusters.force.through import SECONDS, connected, head, once, raw
from tui.clusters.force import proxy as proxy_module
from tui.clusters.force import strangers as strangers_module
from tui.clusters.force.credentials import Upstream
from tui.clusters.force.peers import NOBODY as HELD_BY_NOBODY
from tui.clusters.force.peers import Peers
from tui.clusters.force.proxy import Proxy
from tui.clusters.force.strangers import MOST_OF_ANOTHER, MOST_OF_OTHERS, Strangers

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only there the kernel tells whose a socket is")
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user for a while")
NOBODY = 65534
HOUSE = Path(__file__).resolve().parents[4]


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubUpstream]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    server = StubUpstream(tmp_path).start()
    yield server
    server.stop()


@pytest.fixture
def proxy(stub: StubUpstream) -> Iterator[Proxy]:
    with Proxy(Upstream(kubeconfig=stub.kubeconfig())) as started:
        yield started


# --- who goes -------------------------------------------------------------------------------------------------
class One:
    def __init__(self) -> None:
        self.out = 0

    def put_out(self) -> None:
        self.out += 1


def crowd(found: Strangers, count: int, uid: int | None, now: float = 0.0) -> list[One]:
    made = [One() for _ in range(count)]
    for one in made:
        found.come(one, uid, now)
    return made


def test_the_oldest_of_its_own_kind_goes() -> None:
    found = Strangers(frozenset((0, 1000)), lambda: 1024)
    ours, roots, unknown = crowd(found, 400, 1000), crowd(found, 100, 0), crowd(found, 200, None)
    others = crowd(found, MOST_OF_ANOTHER + 5, 1001)
    assert [one.out for one in others] == [1] * 5 + [0] * MOST_OF_ANOTHER
    for uid in range(2000, 2100):
        crowd(found, 3, uid)
    assert sum(one.out for one in others) >= 5 + MOST_OF_ANOTHER - 3  # the largest gives first
    assert len(found) == 700 + MOST_OF_OTHERS
    assert not any(one.out for one in (*ours, *roots, *unknown))
    crowd(found, 100, 1000)
    assert sum(one.out for one in ours) == 88  # 512 of 1,024 files
    crowd(found, 100, None)
    assert sum(one.out for one in unknown) == 44


def test_who_left_gives_a_place_and_is_not_put_out() -> None:
    found = Strangers(frozenset((0,)), lambda: 1024)
    first, *rest = crowd(found, MOST_OF_ANOTHER, 1)
    assert found.leave(first)
    assert not found.leave(first)
    crowd(found, 1, 1)
    assert not any(one.out for one in (first, *rest))


def test_a_burst_of_ours_waits_and_one_of_another_makes_nobody_wait() -> None:
    found = Strangers(frozenset((0,)), lambda: 64)
    crowd(found, 500, 7, now=100.0)
    assert not found.crowded(100.0)
    crowd(found, 32, 0, now=100.0)
    assert found.crowded(101.9)
    assert not found.crowded(102.1)  # then the oldest may go


def test_for_lack_of_files_others_go_first() -> None:
    found = Strangers(frozenset((0,)), lambda: 1024)
    ours, unknown, others = crowd(found, 2, 0), crowd(found, 2, None), crowd(found, 2, 5)
    for _ in range(9):
        found.give_way()
    assert [one.out for one in (*others, *unknown, *ours)] == [1] * 6
    assert len(found) == 0


@LINUX
@ROOT
def test_the_kernel_tells_whose_a_connection_is() -> None:
    peers = Peers()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        own = listener.getsockname()
        with socket.create_connection(own), listener.accept()[0] as plug:
            assert peers.owner(plug.getpeername(), own) == os.geteuid()
        with as_nobody(own[1], count=1), listener.accept()[0] as plug:
            assert peers.owner(plug.getpeername(), own) == NOBODY
        with socket.socket(socket.AF_INET6) as six:
            try:
                six.connect(("::ffff:127.0.0.1", own[1]))
            except OSError:
                pytest.skip("needs IPv6")
            with listener.accept()[0] as plug:
                assert peers.owner(plug.getpeername(), own) == os.geteuid()
        assert peers.owner(("127.0.0.1", 1), own) is None
    peers.close()
    assert peers.owner(own, own) is None


@contextmanager
def as_nobody(port: int, count: int, *, flood: bool = False) -> Iterator[None]:
    """Connections of another user's; with `flood` new ones all the time."""
    program = (
        "import encodings.idna, os, socket, sys\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "held = []\n"
        "def another():\n"
        f"    held.append(socket.create_connection(('127.0.0.1', {port})))\n"
        f"for _ in range({count}): another()\n"
        "print(flush=True)\n"
        f"while {flood}:\n"
        "    try:\n"
        "        another()\n"
        f"    except OSError: pass\n"
        f"    del held[:-{max(count, 1)}]\n"
        "sys.stdin.read()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"\n"
        yield
    finally:
        child.kill()
        child.communicate()


# --- the command gets through ---------------------------------------------------------------------------------
@dataclass
class Elsewhere:
    """A proxy in a process of its own, which may have so many files open."""

    port: int
    token: str
    authority: bytes

    def ask(self) -> int:
        """A request of the command's."""
        context = ssl.create_default_context(cadata=self.authority.decode())
        client = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=SECONDS)
        try:
            client.request("GET", "/version", headers={"Authorization": f"Bearer {self.token}"})
            return client.getresponse().status
        finally:
            client.close()


_SERVES = """
import json, pathlib, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), int(sys.argv[3])))
from tests.doubles.stub_upstream import StubUpstream
from tui.clusters.force.credentials import Upstream
from tui.clusters.force.proxy import Proxy
stub = StubUpstream(pathlib.Path(sys.argv[1])).start()
with Proxy(Upstream(kubeconfig=stub.kubeconfig())) as proxy:
    print(json.dumps([proxy.port, proxy.token, proxy.authority.decode()]), flush=True)
    sys.stdin.read()
stub.stop()
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Callable[[int, int], Elsewhere]]:
    children: list[subprocess.Popen[bytes]] = []

    def make(soft: int, hard: int) -> Elsewhere:
        command = [sys.executable, "-c", _SERVES, str(tmp_path), str(soft), str(hard)]
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
        child = subprocess.Popen(command, cwd=HOUSE, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        children.append(child)
        assert child.stdout is not None
        port, token, authority = json.loads(child.stdout.readline())
        return Elsewhere(port, token, authority.encode())

    yield make
    for child in children:
        child.communicate(timeout=SECONDS)


def idle(stack: ExitStack, port: int, kind: str, authority: bytes) -> None:
    """A connection of a stranger's that goes so far and no further. What the proxy ends is ended."""
    plug = stack.enter_context(socket.socket())
    plug.settimeout(SECONDS)
    with suppress(OSError):
        plug.connect(("127.0.0.1", port))
        if kind == "half a hello":
            plug.sendall(bytes.fromhex("16030102000100 01fc0303".replace(" ", "")))
        elif kind != "nothing":
            context = ssl.create_default_context(cadata=authority.decode())
            secure = stack.enter_context(context.wrap_socket(plug, server_hostname="127.0.0.1"))
            if kind == "half a head":
                secure.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\nX: ")
            elif kind == "no token":
                secure.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\n\r\n")


@contextmanager
def files(count: int) -> Iterator[None]:
    """So many for us, who hold the other ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip("the system allows too few open files")
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("kind", ["nothing", "half a hello", "only a handshake", "half a head", "no token"])
def test_with_five_hundred_strangers_every_request_succeeds(
    elsewhere: Callable[[int, int], Elsewhere], kind: str
) -> None:
    at = elsewhere(256, 256)
    with files(2048), ExitStack() as stack:

        def come() -> None:
            for _ in range(125):
                idle(stack, at.port, kind, at.authority)

        threads = [threading.Thread(target=come) for _ in range(4)]
        for thread in threads:
            thread.start()
        during = [at.ask() for _ in range(5)]
        for thread in threads:
            thread.join()
        assert during + [at.ask() for _ in range(20)] == [200] * 25


@LINUX
@ROOT
def test_another_user_who_connects_all_the_time_keeps_nobody_out(
    elsewhere: Callable[[int, int], Elsewhere],
) -> None:
    at = elsewhere(256, 256)
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(as_nobody(at.port, 300, flood=True))
        assert [at.ask() for _ in range(20)] == [200] * 20


# --- time and files -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["nothing", "half a hello", "only a handshake", "half a head"])
def test_who_shows_no_token_in_time_is_put_out(stub: StubUpstream, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers_module, "SECONDS", 0.3)
    with Proxy(Upstream(kubeconfig=stub.kubeconfig())) as proxy, ExitStack() as stack:
        idle(stack, proxy.port, kind, proxy.authority)
        eventually(lambda: len(proxy._commands) == 1, "it is here")
        eventually(lambda: not (proxy._commands or len(proxy._door.strangers)), "it is gone")


def test_a_drip_does_not_buy_time(stub: StubUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers_module, "SECONDS", 0.5)
    with Proxy(Upstream(kubeconfig=stub.kubeconfig())) as proxy, raw(proxy) as plug:
        plug.sendall(b"GET / HTTP/1.1\r\nX: ")
        eventually(lambda: len(proxy._commands) == 1, "it is here")
        with suppress(OSError):
            for _ in range(400):
                plug.sendall(b"x")
                time.sleep(0.05)
                if not proxy._commands:
                    break
        assert not proxy._commands


def test_the_commands_connection_stays_as_long_as_it_likes(stub: StubUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers_module, "SECONDS", 0.3)
    with Proxy(Upstream(kubeconfig=stub.kubeconfig())) as proxy, raw(proxy) as mine, connected(proxy):
        mine.sendall(head(proxy, "GET /version HTTP/1.1"))
        assert mine.recv(1 << 16).startswith(b"HTTP/1.1 200")
        with ExitStack() as stack:
            idle(stack, proxy.port, "nothing", b"")
            eventually(lambda: len(proxy._commands) == 2, "a stranger is here")
            eventually(lambda: len(proxy._commands) == 1, "its time is over")
        mine.sendall(head(proxy, "GET /version HTTP/1.1"))
        assert mine.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_only_a_token_asks_the_system_for_more_files(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    with ExitStack() as stack:
        for kind in ("nothing", "only a handshake", "half a head", "no token") * 15:
            idle(stack, proxy.port, kind, proxy.authority)
        eventually(lambda: len(proxy._commands) >= 40, "they are here")
        assert asked == []
        assert once(proxy, "/version")[0] == 200
        assert asked == [(4096, 4096)]


def test_a_thousand_connections_of_the_command_at_once(stub: StubUpstream, proxy: Proxy) -> None:
    """None of them is in the way of another, however long their handshakes take together."""
    with files(8192):
        plugs = [socket.create_connection(("127.0.0.1", proxy.port), SECONDS) for _ in range(1000)]
        try:
            eventually(lambda: len(proxy._commands) == 1000, "all are here")
            context = ssl.create_default_context(cadata=proxy.authority.decode())
            for at, plug in enumerate(plugs):
                plugs[at] = context.wrap_socket(plug, server_hostname="127.0.0.1")
            for plug in plugs:
                plug.sendall(head(proxy, "GET /version HTTP/1.1"))
            assert all(plug.recv(1 << 16).startswith(b"HTTP/1.1 200") for plug in plugs)
        finally:
            for plug in plugs:
                plug.close()
    assert proxy_module.MOST_SEEN > len(proxy.seen()) == 1000


def test_nothing_is_made_for_who_left_before_being_let_in(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    assert once(proxy, "/version")[0] == 200
    made: list[object] = []
    make = proxy._door._make

    def counted() -> object:
        made.append(make())
        return made[-1]

    monkeypatch.setattr(proxy._door, "_make", counted)
    proxy._loop.call_soon_threadsafe(time.sleep, 1.0)  # so that all of them wait to be let in
    for _ in range(500):
        with socket.socket() as plug:
            plug.setblocking(False)
            plug.connect_ex(("127.0.0.1", proxy.port))
    assert once(proxy, "/version")[0] == 200
    assert len(made) < 50  # each would cost twenty times what it does to end it


@LINUX
def test_the_kernel_tells_that_nobody_holds_a_connection() -> None:
    peers = Peers()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        own = listener.getsockname()
        plug = socket.create_connection(own)
        with listener.accept()[0] as accepted:
            peer = accepted.getpeername()
            plug.close()
            assert peers.owner(peer, own) == HELD_BY_NOBODY
    peers.close()
