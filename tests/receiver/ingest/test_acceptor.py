"""The acceptor: who gets through to gRPC, who is held back, and that what is handed on is what came."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from receiver.ingest import acceptor
from receiver.ingest.acceptor import Acceptor, Route, pair_text
from receiver.ingest.accounts import Accounts
from receiver.ingest.address import ListenError
from receiver.ingest.sender import Pair
from receiver.ingest.server import METHOD
from receiver.ingest.streams import StreamShares
from receiver.ingest.tls import server_credentials
from tests.doubles.certificates import Authority
from tests.eventually import eventually
from tests.http2_client import PREFACE, Answers, begun, connect, frame, headers, message, reset
from tests.receiver.ingest.inside import Bench, export, request


class Inner:
    """Stands where gRPC does: takes connections, and keeps what came on each by the acceptor's name for it."""

    def __init__(self, path: str) -> None:
        self.connections: dict[str, socket.socket] = {}
        self.came: dict[str, bytearray] = {}
        self.ended: set[str] = set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(100)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, name = self._listener.accept()
                self.came[name] = bytearray()
                self.connections[name] = connection
                threading.Thread(target=self._read, args=(connection, name), daemon=True).start()

    def _read(self, connection: socket.socket, name: str) -> None:
        with contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                self.came[name] += data
        self.ended.add(name)

    def calls(self) -> Counter[str]:
        """How many began, by connection."""
        return Counter({name: bytes(came).count(b"TraceService") for name, came in self.came.items()})

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self.connections.values():
            one.close()


class Front:
    """An acceptor whose senders are named by the test: by the port they come from."""

    def __init__(self, **options: Any) -> None:
        self.names: dict[int, str] = {}
        self.accounts = Accounts()
        self.acceptor = Acceptor(self.sender, self.accounts, lambda: None, **options)
        self.acceptor.start()
        self.held = contextlib.ExitStack()
        self.route: Route | None = None
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.address = pair_text(self.listener.getsockname())

    def sender(self, there: Pair, here: Pair) -> str:
        return self.names[there[1]]

    def open(self, listener: socket.socket | None = None) -> Inner:
        self.route = self.acceptor.route([listener or self.listener], tls=False)
        inner = Inner(self.route.inner)
        self.held.callback(inner.close)
        self.acceptor.accept(self.route)
        return inner

    def connect(self, sender: str, sent: bytes = PREFACE) -> socket.socket:
        client = self.held.enter_context(socket.socket())
        client.settimeout(20)
        client.bind(("127.0.0.1", 0))
        self.names[client.getsockname()[1]] = sender
        client.connect(self.listener.getsockname())
        client.sendall(sent)
        return client

    def account(self, sender: str) -> dict[str, Any]:
        rows = self.accounts.to_json(self.acceptor.count(), {})
        return next((row for row in rows if row["sender"] == sender), {})

    def close(self) -> None:
        self.acceptor.stop()
        self.held.close()
        self.listener.close()


@pytest.fixture
def front() -> Iterator[Callable[..., Front]]:
    made: list[Front] = []

    def make(**options: Any) -> Front:
        made.append(Front(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def ends(stream: int) -> bytes:
    """The server ends a stream."""
    return frame(1, 5, stream, b"abc")


def test_only_what_speaks_http2_comes_through_and_all_of_it(front: Callable[..., Front]) -> None:
    at = front()
    inner = at.open()
    silent, half, other = (
        at.connect("a", b""),
        at.connect("a", PREFACE[:10]),
        at.connect("a", b"GET / HTTP/1.1\r\n\r\n"),
    )
    sent = PREFACE + b"".join(headers(n) + message(n, os.urandom(3_000)) for n in range(1, 60, 2))
    good = at.connect("b", b"")
    for start in range(0, len(sent), 777):
        good.sendall(sent[start : start + 777])
    eventually(lambda: [bytes(came) for came in inner.came.values()] == [sent])
    assert other.recv(10) == b""
    half.sendall(PREFACE[10:])
    eventually(lambda: sorted(map(bytes, inner.came.values())) == sorted([sent, PREFACE]))
    (name,) = [name for name, came in inner.came.items() if came == sent]
    found = at.acceptor.connection(name)
    assert found is not None
    assert (found.sender, found.peer) == ("b", pair_text(good.getsockname()))
    answer = os.urandom(2_000_000)
    threading.Thread(target=inner.connections[name].sendall, args=(frame(0, 0, 1, b"") + answer,), daemon=True).start()
    got = b""
    while len(got) < len(answer) + 9:
        got += good.recv(1 << 20)
    assert got[9:] == answer
    silent.sendall(b"X")
    assert silent.recv(10) == b""


def test_a_sender_has_its_share_of_streams_and_is_held_back_beyond_it(front: Callable[..., Front]) -> None:
    at = front(streams=StreamShares(16, 40))
    inner = at.open()
    greedy = at.connect("greedy", PREFACE + b"".join(begun(n) for n in range(1, 200, 2)))
    eventually(lambda: sum(inner.calls().values()) == 8 and at.account("greedy").get("held_back"))
    (name,) = inner.calls()
    greedy.sendall(begun(201))
    good = at.connect("good", PREFACE + headers(1) + message(1, b"spans"))
    eventually(lambda: sum(inner.calls().values()) == 9)
    assert inner.calls()[name] == 8
    assert not at.account("good").get("held_back")
    for stream in range(1, 9, 2):
        inner.connections[name].sendall(ends(stream))
    eventually(lambda: inner.calls()[name] == 9)  # 5 are its share now; the fourth that ended made room for one
    assert Answers(greedy).ended(4) == [1, 3, 5, 7]
    other = next(one for one in inner.calls() if one != name)
    inner.connections[other].sendall(ends(1))
    assert Answers(good).ended(1) == [1]
    eventually(lambda: inner.calls()[name] == 12)  # 8 again


def test_each_connection_of_a_sender_gets_a_stream_before_one_gets_more(front: Callable[..., Front]) -> None:
    at = front(streams=StreamShares(16, 40))
    inner = at.open()
    at.connect("uid 0", PREFACE + b"".join(begun(n) for n in range(1, 200, 2)))
    eventually(lambda: sum(inner.calls().values()) == 8)
    for _ in range(3):
        at.connect("uid 0", PREFACE + headers(1) + message(1, b"spans"))
    eventually(lambda: sorted(inner.calls().values()) == [1, 1, 1, 8])


@pytest.mark.parametrize("what", ["reset", "nothing", "gone"])
def test_a_stream_that_brought_nothing_keeps_its_place_for_a_while(
    front: Callable[..., Front], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(acceptor, "_RESET_SECONDS", 3_600.0)
    at = front(streams=StreamShares(16, 40))
    inner = at.open()
    one = at.connect("a", PREFACE + b"".join(headers(n, what == "nothing") + reset(n) for n in range(1, 200, 2)))
    eventually(lambda: sum(inner.calls().values()) == 8 and at.account("a").get("held_back"))
    if what == "nothing":
        next(iter(inner.connections.values())).sendall(b"".join(ends(n) for n in range(1, 17, 2)))
    if what == "gone":
        one.close()
    held = at.account("a")["held_back"]
    at.connect("a", PREFACE + headers(1) + message(1, b"x") + headers(3) + message(3, b"x"))
    eventually(lambda: sum(inner.calls().values()) == 9 and at.account("a")["held_back"] > held)
    at.connect("b", PREFACE + headers(1) + message(1, b"x"))
    eventually(lambda: sum(inner.calls().values()) == 10)


def test_the_places_of_streams_that_were_taken_back_are_free_again(front: Callable[..., Front]) -> None:
    at = front(streams=StreamShares(16, 40))
    inner = at.open()
    at.connect("a", PREFACE + b"".join(begun(n) + reset(n) for n in range(1, 200, 2)))
    eventually(lambda: sum(inner.calls().values()) == 100)
    eventually(lambda: at.acceptor._streams.used == 0)


def answers(stream: int) -> bytes:
    """The server begins to answer; how it goes on is up to what the client lets it send."""
    return frame(1, 4, stream, b"abc")


def test_an_answer_that_nobody_takes_holds_no_place(front: Callable[..., Front]) -> None:
    at = front(streams=StreamShares(16, 16))
    inner = at.open()
    for number, sender in enumerate("abc", 1):
        at.connect(sender, PREFACE + b"".join(headers(n) + message(n, b"x") for n in range(1, 16, 2)))
        eventually(lambda: sum(inner.calls().values()) == 8 * number)  # noqa: B023
        inner.connections[list(inner.connections)[-1]].sendall(b"".join(map(answers, range(1, 16, 2))))
        eventually(lambda: at.acceptor._streams.used == 0)
    at.connect("good", PREFACE + headers(1) + message(1, b"x"))
    eventually(lambda: sum(inner.calls().values()) == 25)


def test_a_connection_that_leaves_an_answer_untaken_is_ended(
    front: Callable[..., Front], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "_UNTAKEN_SECONDS", 0.1)
    monkeypatch.setattr(acceptor, "_LOOK_SECONDS", 0.05)
    at = front()
    inner = at.open()
    held = []
    for sender in ("leaves", "takes", "takes back"):
        held.append(at.connect(sender, PREFACE + headers(1) + message(1, b"x")))
        eventually(lambda: len(inner.calls()) == len(held) and all(inner.calls().values()))
    for connection, end in zip(inner.connections.values(), (b"", ends(1), b""), strict=True):
        connection.sendall(answers(1) + end)
    assert Answers(held[2]).frames() == [(1, 4, 1)]
    held[2].sendall(reset(1))
    eventually(lambda: at.account("leaves").get("ended") == 1)
    assert "leaves" not in at.acceptor.count()
    assert Answers(held[1]).ended(1) == [1]


def test_who_was_left_by_grpc_takes_no_places_and_does_not_stay(
    front: Callable[..., Front], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "_RESET_SECONDS", 0.01)
    monkeypatch.setattr(acceptor, "_LEFT_SECONDS", 2.0)
    at = front()
    inner = at.open()
    client = at.connect("a", PREFACE + headers(1) + message(1, b"x"))
    eventually(lambda: sum(inner.calls().values()) == 1)
    ((name, connection),) = inner.connections.items()
    connection.settimeout(0.5)
    with contextlib.suppress(TimeoutError):  # more than all that lies between takes
        connection.sendall(frame(0, 0, 1) + bytes(64 << 20))
    relayed = at.acceptor._named[name]
    connection.shutdown(socket.SHUT_RDWR)
    connection.close()
    eventually(lambda: relayed.claim.gone)
    client.sendall(b"".join(headers(n) + message(n, bytes(10_000)) for n in range(3, 200, 2)))
    eventually(lambda: at.acceptor._streams.used == 0)
    eventually(lambda: at.acceptor.count() == {})
    assert at.acceptor._streams.held() == {}


@pytest.mark.parametrize("hostile", [frame(6, 0, 0, bytes(7)), frame(0, 0, 0, b"x"), frame(5, 4, 1, bytes(4))])
def test_a_connection_that_is_no_http2_ends_and_others_do_not(front: Callable[..., Front], hostile: bytes) -> None:
    at = front()
    inner = at.open()
    good, bad = at.connect("a", PREFACE + begun(1)), at.connect("a", PREFACE + begun(1) + hostile)
    assert Answers(bad).frames() == []
    good.sendall(frame(0, 1, 1, bytes(100)))
    eventually(lambda: any(bytes(came).endswith(bytes(100)) for came in inner.came.values()))
    eventually(lambda: at.acceptor.count() == {"a": 1})


def test_who_sends_too_many_frames_is_not_read_for_a_while(
    front: Callable[..., Front], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "_FRAMES_RATE", 0.01)  # one in 100 s
    at = front()
    inner = at.open()
    ping = frame(6, 0, 0, bytes(8))
    flood, second = at.connect("a", PREFACE + ping), at.connect("a")
    eventually(lambda: at.account("a").get("held_back") == 1)
    flood.sendall(ping * 10)
    second.sendall(PREFACE)
    monkeypatch.setattr(acceptor, "_FRAMES_RATE", 5_000.0)  # of senders that come now
    for number in range(1, 20, 2):
        other = at.connect("b", PREFACE + headers(1) + message(1, b"x"))
        eventually(lambda: sum(inner.calls().values()) == (number + 1) // 2)  # noqa: B023
        other.close()
    assert PREFACE + ping in map(bytes, inner.came.values())
    assert PREFACE + ping * 11 not in map(bytes, inner.came.values())


def test_who_has_most_connections_gives_way(front: Callable[..., Front]) -> None:
    at = front(most=8)
    inner = at.open()
    many = [at.connect("many") for _ in range(20)]
    eventually(lambda: at.account("many").get("turned_away") == 12)
    assert at.acceptor.count() == {"many": 8}
    few = [at.connect("few", PREFACE + headers(1) + message(1, b"x")) for _ in range(3)]
    eventually(lambda: sum(inner.calls().values()) == 3)
    assert at.acceptor.count() == {"many": 5, "few": 3}
    assert at.account("many")["ended"] == 3
    assert not at.account("few").get("turned_away")
    assert not at.account("few").get("ended")
    for one in few:
        one.sendall(frame(6, 0, 0, bytes(8)))
    del many


def test_connections_that_say_nothing_are_named_when_there_are_too_many(
    front: Callable[..., Front], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "_NAMELESS_SECONDS", 3_600.0)
    at = front(most=4)
    at.open()
    for _ in range(12):
        at.connect("silent", b"")
    eventually(lambda: at.account("silent").get("turned_away") == 4)
    assert at.acceptor.count() == {"silent": 4}
    monkeypatch.setattr(acceptor, "_NAMELESS_SECONDS", 0.0)
    eventually(lambda: at.account("silent").get("turned_away") == 8)  # looked at, after a while


class Full(socket.socket):
    """A listener of a process that has no file left, for a while."""

    left = 5

    def accept(self) -> Any:
        if self.left:
            self.left -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_accepting_goes_on_when_files_ran_out(front: Callable[..., Front], caplog: pytest.LogCaptureFixture) -> None:
    at = front()
    full = Full(fileno=at.listener.detach())
    at.listener = full
    inner = at.open(full)
    at.connect("a", PREFACE + headers(1) + message(1, b"x"))
    eventually(lambda: sum(inner.calls().values()) == 1)
    assert full.left == 0
    assert [one.getMessage() for one in caplog.records] == ["cannot accept: [Errno 24] Too many open files"]


def test_a_defect_over_one_connection_does_not_end_the_others(front: Callable[..., Front]) -> None:
    at = front()
    inner = at.open()
    nobody = at.connect("a", b"")
    del at.names[nobody.getsockname()[1]]  # naming it raises KeyError
    nobody.sendall(PREFACE)
    at.connect("b", PREFACE + headers(1) + message(1, b"x"))
    eventually(lambda: sum(inner.calls().values()) == 1)


def test_a_sender_that_half_closes_hears_its_answer(front: Callable[..., Front]) -> None:
    at = front()
    inner = at.open()
    client = at.connect("a", PREFACE + headers(1) + message(1, b"x"))
    client.shutdown(socket.SHUT_WR)
    eventually(lambda: len(inner.ended) == 1)
    (connection,) = inner.connections.values()
    connection.sendall(ends(1))
    connection.shutdown(socket.SHUT_RDWR)
    assert Answers(client).ended(1) == [1]
    assert client.recv(10) == b""
    eventually(lambda: at.acceptor.count() == {})
    assert at.acceptor.connection(next(iter(inner.connections))) is not None, "a call of its may be under way"


# --- with gRPC behind it -----------------------------------------------------------------------------------
def test_at_every_address_the_sender_is_who_is_at_the_other_end(bench: Callable[..., Bench]) -> None:
    inside = bench(insecure=True)
    for text, hosts in (("0.0.0.0:0", ("127.0.0.1", "127.9.9.9")), ("[::]:0", ("[::1]", "127.0.0.1"))):
        port = inside.ingest.listen("", text).address.rpartition(":")[2]
        for host in hosts:
            export(f"{host}:{port}", request())
            chunk = inside.database.read_after(0, 100)[-1]
            assert chunk.peer.startswith("127.0.0.1:" if "." in host else "[::1]:")
    assert set(inside.database.sender) == {f"uid {os.getuid()}"}


def test_spans_of_a_connection_that_ended_at_once_count_to_its_sender(bench: Callable[..., Bench]) -> None:
    inside = bench()
    address = inside.ingest.listen("", "127.0.0.1:0").address
    inside.database.gate.clear()
    for number in range(1, 9):
        with connect(address, PREFACE + headers(1) + message(1, request(first=number))):
            eventually(lambda: inside.tally.requests == number)  # noqa: B023
    eventually(lambda: inside.ingest._acceptor.count() == {})
    inside.database.gate.set()
    eventually(lambda: len(inside.database.sender) == 8)
    assert set(inside.database.sender) == {f"uid {os.getuid()}"}


def test_a_request_under_way_is_acknowledged_although_its_listener_goes(bench: Callable[..., Bench]) -> None:
    inside = bench()
    address = inside.ingest.listen("", "127.0.0.1:0").address
    inside.database.gate.clear()
    with grpc.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
        call = channel.unary_unary(METHOD).future(request(), timeout=30)
        eventually(lambda: inside.tally.requests == 1)
        closing = threading.Thread(target=inside.ingest.unlisten, args=("local",))
        closing.start()
        eventually(lambda: _refused(address))
        inside.database.gate.set()
        assert call.result() == b""
        closing.join(20)
    assert inside.spans() == 1


def _refused(address: str) -> bool:
    try:
        connect(address, b"").close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_folder_with_a_long_path_is_not_taken(
    bench: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    inside = bench()
    export(inside.ingest.listen("", "127.0.0.1:0").address, request())
    assert list(long.iterdir()) == []
    monkeypatch.setattr(acceptor, "_MOST_DIRECTORY", 3)
    path = tmp_path / "spans.sock"
    for text in ("127.0.0.1:0", f"unix:{path}"):
        with pytest.raises(ListenError, match="set TMPDIR"):
            bench().ingest.listen("", text)
    assert not path.exists()


@pytest.mark.parametrize("clients", [False, True])
def test_with_tls_the_sender_is_the_certificate_or_the_user(
    bench: Callable[..., Bench], tmp_path: Path, clients: bool
) -> None:
    authority = Authority(tmp_path)
    server, client = authority.issue("server"), authority.issue("etcd-1")
    inside = bench(
        credentials=server_credentials(server.certificate, server.key, authority.certificate if clients else None)
    )
    address = inside.ingest.listen("", "127.0.0.1:0").address
    shown = (client.key.read_bytes(), client.certificate.read_bytes()) if clients else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes(), *shown)
    expected = "certificate CN=etcd-1" if clients else f"uid {os.getuid()}"
    with grpc.secure_channel(address, credentials) as channel:
        for number in range(1, 4):
            channel.unary_unary(METHOD)(request(first=number, text="x" * 200_000), timeout=20)
        assert set(inside.database.sender) == {expected}
        assert inside.database.read_after(0)[0].peer.startswith("127.0.0.1:")
        (share,) = inside.ingest.shares()
        assert (share["sender"], share["connections"], share["requests"]) == (expected, 1, 3)
        (connection,) = inside.ingest._acceptor._connections
        assert connection.called > 0
        eventually(lambda: connection.calls == 0)


def test_nobody_else_may_enter_where_grpc_listens(bench: Callable[..., Bench]) -> None:
    inside = bench()
    route = inside.ingest.listen("", "127.0.0.1:0").route
    assert route is not None
    place = Path(route.inner)
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert place.parent.stat().st_uid == os.getuid()
    assert [one.name for one in place.parent.iterdir()] == [place.name]
