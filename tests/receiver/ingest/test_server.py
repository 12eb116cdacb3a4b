"""The gRPC side, with a real gRPC client and servers in this process: answers, limits, addresses."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceResponse,
)

from receiver.ingest.address import Address, ListenError, NotHere, is_open, port_holder, split_name
from receiver.ingest.large import LARGE
from receiver.ingest.server import MAX_MESSAGE, METHOD, Limits
from tests.eventually import eventually
from tests.http2_client import PREFACE, Answers, begun, connect, frame, headers, message, reset
from tests.receiver.ingest.inside import Bench, export, request


def refused(address: str, body: bytes, **options: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        export(address, body, **options)
    return caught.value


def delay(error: Any) -> int:
    """Seconds of the RetryInfo in an answer, read by hand as a Go exporter would with its generated code."""
    status = dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert b"type.googleapis.com/google.rpc.RetryInfo" in status
    pool: Any = pytest.importorskip("google.rpc.status_pb2").Status.FromString(status)
    info = pytest.importorskip("google.rpc.error_details_pb2").RetryInfo()
    assert pool.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert pool.details[0].Unpack(info)
    return int(info.retry_delay.seconds)


def test_stored_before_it_is_acknowledged(bench: Callable[..., Bench]) -> None:
    inside = bench()
    address = inside.ingest.listen("", "127.0.0.1:0").address
    inside.database.gate.clear()
    answer: list[Any] = []
    thread = threading.Thread(target=lambda: answer.append(export(address, request(3))))
    thread.start()
    thread.join(0.5)
    assert not answer
    inside.database.gate.set()
    thread.join(10)
    assert answer == [ExportTraceServiceResponse()]
    assert inside.spans() == inside.tally.accepted == 3
    sender = inside.tally.senders()[0]
    assert (sender.service, sender.source, sender.spans) == ("etcd", "local", 3)
    assert sender.peer.startswith("127.0.0.1:")
    assert sender.agent.startswith("grpc-python")


def test_bad_spans_bad_requests_and_other_methods(bench: Callable[..., Bench]) -> None:
    inside = bench()
    address = inside.ingest.listen("", "127.0.0.1:0").address
    assert export(address, b"") == ExportTraceServiceResponse()
    partial = export(address, request(2, trace=b"short") + request(3)).partial_success
    assert (partial.rejected_spans, inside.spans()) == (2, 3)
    assert "wrong length" in partial.error_message
    error = refused(address, b"\xff" * 30)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(METHOD.replace("trace", "logs"))(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert (inside.tally.malformed, inside.tally.rejected, inside.tally.requests) == (1, 2, 3)


def test_gzip_and_large_requests(bench: Callable[..., Bench]) -> None:
    inside = bench()
    address = inside.ingest.listen("", "127.0.0.1:0").address
    large = request(15, text="x" * 1_000_000)
    export(address, large)
    export(address, large, compression=grpc.Compression.Gzip)
    bomb = refused(address, b"\0" * (4 * MAX_MESSAGE), compression=grpc.Compression.Gzip)
    assert bomb.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
    export(address, request())
    assert inside.spans() == 31
    refused(address, b"\0" * (MAX_MESSAGE + 1))
    eventually(lambda: inside.tally.broken_off >= 2)  # the sender may hear it first
    assert (inside.tally.broken_off, inside.tally.requests) == (2, 3)


def test_a_stopped_disk_makes_senders_come_back_and_loses_nothing(bench: Callable[..., Bench]) -> None:
    inside = bench(limits=Limits(requests=4))
    address = inside.ingest.listen("", "127.0.0.1:0").address
    inside.database.gate.clear()
    answers: dict[int, Any] = {}

    def send(number: int) -> None:
        try:
            answers[number] = export(address, request(first=number + 1))
        except grpc.RpcError as error:
            answers[number] = error

    threads = [threading.Thread(target=send, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(answers) >= 8)
    early = dict(answers)
    assert len(early) == 8  # no place for these, and they hear it at once
    for error in early.values():
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert delay(error) == 1
    inside.database.gate.set()
    for thread in threads:
        thread.join(20)
    acknowledged = {number for number, answer in answers.items() if isinstance(answer, ExportTraceServiceResponse)}
    assert len(acknowledged) == 4
    stored = {int(row) - 1 for chunk in inside.database.read_after(0) for row in chunk.spans["span"]}
    assert acknowledged <= stored
    assert inside.tally.refused == 8


def test_bytes_that_wait_are_bounded(bench: Callable[..., Bench]) -> None:
    inside = bench(limits=Limits(bytes=1_000_000))
    address = inside.ingest.listen("", "127.0.0.1:0").address
    inside.database.gate.clear()
    first = threading.Thread(target=export, args=(address, request(text="x" * 900_000)))
    first.start()
    eventually(lambda: inside.tally.requests > 0)
    error: Any = refused(address, request(text="y" * 900_000))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "bytes" in error.details()
    inside.database.gate.set()
    first.join(10)
    export(address, request(text="z" * 900_000))


def test_a_full_disk_is_said_and_gone_when_there_is_space_again(bench: Callable[..., Bench]) -> None:
    inside = bench()
    address = inside.ingest.listen("", "127.0.0.1:0").address
    inside.database.full = True
    error: Any = refused(address, request())
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert delay(error) == 5
    assert inside.writer.disk_full
    assert inside.writer.problem
    inside.database.full = False
    export(address, request())
    assert not inside.writer.disk_full
    assert not inside.writer.problem
    assert inside.spans() == 1


@contextlib.contextmanager
def stuck(address: str, calls: int) -> Iterator[list[socket.socket]]:
    """Calls that began to send a message, each on a connection of its own."""
    with contextlib.ExitStack() as held:
        yield [held.enter_context(connect(address, PREFACE + begun(1))) for _ in range(calls)]


def test_calls_that_brought_no_data_are_not_seen_by_grpc(bench: Callable[..., Bench]) -> None:
    inside = bench()
    address = inside.ingest.listen("", "127.0.0.1:0").address
    with contextlib.ExitStack() as held:
        silent = [held.enter_context(connect(address, PREFACE + headers(1) + headers(3))) for _ in range(40)]
        eventually(lambda: sum(inside.ingest._acceptor.count().values()) == 40)
        for number in range(1, 4):
            export(address, request(first=number))
        assert inside.ingest._reading.used == inside.ingest._waiting.used == inside.tally.refused == 0
        silent[7].sendall(message(3, request(first=4)) + message(1, request(first=5)))
        assert sorted(Answers(silent[7]).ended(2)) == [1, 3]
    assert inside.spans() == 5


def test_a_call_without_a_message_takes_no_place(bench: Callable[..., Bench]) -> None:
    inside = bench(limits=Limits(requests=4))
    address = inside.ingest.listen("", "127.0.0.1:0").address
    with stuck(address, 4):
        eventually(lambda: inside.ingest._reading.used == 4)
        for number in range(1, 4):
            export(address, request(first=number))
        assert (inside.spans(), inside.tally.refused) == (3, 0)


def test_calls_without_a_message_lose_their_turns_when_they_are_needed(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.ingest.server._SLOW_SENDER_SECONDS", 0.5)
    inside = bench()
    address = inside.ingest.listen("", "127.0.0.1:0").address
    with stuck(address, 33):
        eventually(lambda: inside.ingest._reading.used == 8 and inside.ingest._reading.waiting >= 20)
        export(address, request(first=100))
        assert inside.spans() == 1
        eventually(lambda: inside.ingest.shares()[0]["cut"] >= 1)


def test_calls_that_were_taken_back_do_not_wait_for_a_turn(bench: Callable[..., Bench]) -> None:
    inside = bench()
    address = inside.ingest.listen("", "127.0.0.1:0").address
    with stuck(address, 8), contextlib.ExitStack() as held:
        eventually(lambda: inside.ingest._reading.used == 8)
        waiting = [held.enter_context(connect(address, PREFACE + begun(1))) for _ in range(4)]
        eventually(lambda: inside.ingest._reading.waiting == 4)
        for one in waiting:
            one.sendall(reset(1))
        eventually(lambda: inside.tally.broken_off == 4)
        assert inside.ingest._reading.used == 8
        assert (inside.ingest._reading.waiting, inside.ingest._waiting.used, inside.tally.refused) == (0, 0, 0)


def test_no_more_messages_are_read_at_once_than_there_are_turns(bench: Callable[..., Bench]) -> None:
    inside = bench(limits=Limits(requests=8, reading=2))
    address = inside.ingest.listen("", "127.0.0.1:0").address
    body = request()
    with contextlib.ExitStack() as held:
        sending = [held.enter_context(connect(address, PREFACE + begun(1, len(body)))) for _ in range(6)]
        eventually(lambda: inside.ingest._reading.waiting == 4)
        assert inside.ingest._reading.used == 2
        for one in sending:
            one.sendall(frame(0, 1, 1, body))
        for one in sending:
            assert Answers(one).ended(1) == [1]
    assert inside.tally.requests == 6


def test_senders_that_never_read_their_answers_do_not_keep_others_out(bench: Callable[..., Bench]) -> None:
    inside = bench(limits=Limits(requests=4))
    address = inside.ingest.listen("", "127.0.0.1:0").address
    host, _, port = address.rpartition(":")
    with contextlib.ExitStack() as open_ones:
        for number in range(10):
            deaf = open_ones.enter_context(socket.create_connection((host, int(port)), 10))
            deaf.sendall(_never_reading(range(1, 16, 2), request(first=1 + number)))
        eventually(lambda: inside.tally.accepted + inside.tally.refused >= 80)
        assert inside.tally.accepted + inside.tally.refused == 80
        export(address, request(first=1000))


def test_calls_that_a_client_makes_all_at_once_are_acknowledged(bench: Callable[..., Bench]) -> None:
    address = bench().ingest.listen("", "127.0.0.1:0").address
    with grpc.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
        call = channel.unary_unary(METHOD)
        sent = [call.future(request(), timeout=60) for _ in range(200)]
        assert [one.result() for one in sent] == [b""] * 200


def test_large_requests_are_decoded_apart_and_small_ones_do_not_wait_for_them(bench: Callable[..., Bench]) -> None:
    inside = bench()
    address = inside.ingest.listen("", "127.0.0.1:0").address
    export(address, request(first=1, text="x" * LARGE))
    pid = inside.ingest._large.pid
    assert pid is not None
    assert inside.database.sender == [f"uid {os.getuid()}"]
    os.kill(pid, signal.SIGSTOP)
    try:
        stuck = threading.Thread(target=export, args=(address, request(first=2, text="y" * LARGE)))
        stuck.start()
        eventually(lambda: inside.ingest._decoding_large.used == 1)
        for number in range(3, 40):
            export(address, request(first=number))
        assert inside.spans() == 38
    finally:
        os.kill(pid, signal.SIGCONT)
    stuck.join(20)
    assert inside.spans() == 39


def test_a_request_that_ends_the_decoding_process_is_refused_and_the_next_has_a_new_one(
    bench: Callable[..., Bench],
) -> None:
    inside = bench()
    address = inside.ingest.listen("", "127.0.0.1:0").address
    export(address, request(first=1, text="x" * LARGE))
    pid = inside.ingest._large.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    error: Any = refused(address, request(first=2, text="x" * LARGE))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    export(address, request(first=2, text="x" * LARGE))
    partial = export(address, request(2, trace=b"short") + request(first=3, text="x" * LARGE)).partial_success
    assert partial.rejected_spans == 2
    assert refused(address, b"\xff" * (LARGE + 1)).code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    assert inside.spans() == 3
    assert inside.ingest._large.pid not in (None, pid)


def _never_reading(streams: range, body: bytes) -> bytes:
    """Exports from a client that gives the server no window to answer into."""
    no_window = frame(4, 0, 0, b"\0\x04" + bytes(4))  # SETTINGS_INITIAL_WINDOW_SIZE 0
    return PREFACE + no_window + b"".join(headers(stream) + message(stream, body) for stream in streams)


def test_one_listener_goes_while_another_serves(bench: Callable[..., Bench]) -> None:
    inside = bench()
    stays = inside.ingest.listen("a", "127.0.0.1:0")
    goes = inside.ingest.listen("b", "127.0.0.1:0")
    export(goes.address, request())
    assert inside.ingest.unlisten("b")
    assert not inside.ingest.unlisten("b")
    refused(goes.address, request(), timeout=2)
    export(stays.address, request(first=2))
    assert {chunk.source for chunk in inside.database.read_after(0)} == {"a", "b"}
    again = inside.ingest.listen("b", goes.address)  # the port is free again
    export(again.address, request(first=3))


# --- addresses -----------------------------------------------------------------------------------
def test_a_port_in_use_names_port_and_holder(bench: Callable[..., Bench]) -> None:
    inside = bench()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ListenError) as caught:
            inside.ingest.listen("", f"127.0.0.1:{port}")
        assert str(port) in str(caught.value)
        assert f"(pid {os.getpid()})" in str(caught.value)
        assert "--listen" in str(caught.value)
    mine = inside.ingest.listen("", "127.0.0.1:0").address  # our own: gRPC alone would share the port
    with pytest.raises(ListenError, match="in use"):
        inside.ingest.listen("", mine)
    assert port_holder(1) == ""


def test_addresses_that_cannot_be(bench: Callable[..., Bench], tmp_path: Path) -> None:
    inside = bench()
    for text in ("4317", ":4317", "localhost", "::1:4317", "127.0.0.1:99999", "127.0.0.1:x", "unix:here", "unix:/a\0"):
        with pytest.raises(ListenError):
            inside.ingest.listen("", text)
    with pytest.raises(NotHere, match="no address"):
        bench(insecure=True).ingest.listen("", "[2001:db8::1]:0")
    with pytest.raises(ListenError, match="not a known host"):
        bench(insecure=True).ingest.listen("", "no-such-host.invalid:4317")
    with pytest.raises(ListenError, match="directory"):
        inside.ingest.listen("", f"unix:{tmp_path}/none/x.sock")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ListenError, match="not a socket"):
        inside.ingest.listen("", f"unix:{tmp_path}/file")
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(ListenError, match="longer"):
        inside.ingest.listen("", "unix:/" + "x" * 200)


def test_beyond_this_machine_only_when_asked_for(bench: Callable[..., Bench]) -> None:
    with pytest.raises(ListenError, match="without TLS anybody"):
        bench().ingest.listen("", "0.0.0.0:0")
    open_one = bench(insecure=True)
    port = open_one.ingest.listen("", "0.0.0.0:0").address.rpartition(":")[2]
    export(f"127.0.0.1:{port}", request())
    assert [Address.parse(text).local for text in ("127.9.9.9:1", "[::1]:1", "localhost:1", "[::]:1", "8.8.8.8:1")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_spans_carry_their_sender(bench: Callable[..., Bench]) -> None:
    inside = bench()
    export(inside.ingest.listen("", "127.0.0.1:0").address, request())
    assert inside.database.sender == [f"uid {os.getuid()}"]
    (share,) = inside.ingest.shares()
    assert (share["sender"], share["spans"], share["requests"]) == (f"uid {os.getuid()}", 1, 1)


def test_unix_sockets(bench: Callable[..., Bench], tmp_path: Path) -> None:
    inside = bench()
    path = tmp_path / "spans.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))  # a socket that a killed receiver left behind
    listener = inside.ingest.listen("cp1", f"unix:{path}")
    assert listener.address == f"unix:{path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    export(listener.address, request())
    chunk = inside.database.read_after(0)[0]
    assert (chunk.source, chunk.peer) == ("cp1", "unix")
    with pytest.raises(ListenError, match="in use"):
        inside.ingest.listen("x", f"unix:{path}")  # somebody listens: it is not taken away
    export(listener.address, request(first=2, text="x" * 3_000_000))  # more than the sockets between hold
    assert inside.database.sender == [f"uid {os.getuid()}"] * 2
    assert listener.route is not None
    inner = Path(listener.route.inner)
    assert stat.S_IMODE(inner.parent.stat().st_mode) == 0o700
    inside.ingest.unlisten("cp1")
    assert not path.exists()
    assert not inner.exists()
    inside.ingest.stop(1.0)
    assert not inner.parent.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user: needs root")
def test_the_user_at_a_unix_socket_is_the_sender(bench: Callable[..., Bench], tmp_path: Path) -> None:
    inside = bench()
    path = Path("/tmp") / f"k8s-trace-tui-test-{os.getpid()}.sock"
    listener = inside.ingest.listen("cp1", f"unix:{path}")
    path.chmod(0o666)  # as an operator may
    stranger = os.fork()
    if not stranger:
        code = 1
        try:  # nothing of gRPC's: this is a copy of a process with threads
            os.setuid(1234)
            with socket.socket(socket.AF_UNIX) as one:
                one.connect(str(path))
                one.sendall(_never_reading(range(1, 2), request(first=7)))
                one.recv(1000)
                code = 0
                time.sleep(30)
        finally:
            os._exit(code)
    try:
        eventually(lambda: inside.database.sender == ["uid 1234"])
        export(listener.address, request(first=8))
        assert inside.database.sender == ["uid 1234", f"uid {os.getuid()}"]
        assert {one["sender"]: one["connections"] for one in inside.ingest.shares()}["uid 1234"] == 1
    finally:
        os.kill(stranger, signal.SIGKILL)
        os.waitpid(stranger, 0)


@pytest.mark.parametrize("name", ["a%41b.sock", "100%", "a b?c#d.sock", "\u00e4\u4e16.sock", "a,b=c&d.sock"])
def test_the_path_asked_for_is_the_path_bound(bench: Callable[..., Bench], tmp_path: Path, name: str) -> None:
    inside = bench()
    path = tmp_path / name
    for _ in range(2):  # it is taken away again, and free again
        assert inside.ingest.listen("cp1", f"unix:{path}").address == f"unix:{path}"
        assert [one.name for one in tmp_path.iterdir()] == [name]
        with pytest.raises(ListenError, match="in use"):
            inside.ingest.listen("x", f"unix:{path}")
        inside.ingest.unlisten("cp1")
        assert list(tmp_path.iterdir()) == []


def test_hosts_that_grpc_does_not_know_are_refused_with_what_is_accepted() -> None:
    for host in ("127.1", "*", "0x7f.1", "2130706433", "0", "1.2.3.4.5", "256.0.0.1", "a b", "[::x]"):
        with pytest.raises(ListenError, match=r"0\.0\.0\.0 or \[::\] for every address"):
            Address.parse(f"{host}:0")
    for host in ("127.0.0.1", "[::1]", "[fe80::1%eth0]", "localhost", "cp-1.example", "node_1", "b\u00fccher.example"):
        assert str(Address.parse(f"{host}:1")) == f"{host}:1"


def test_a_name_is_listened_to_at_all_its_addresses_that_this_machine_has(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = (socket.SOCK_STREAM, 6, "")
    found = [
        (socket.AF_INET6, *stream, ("2001:db8::1", 0, 0, 0)),
        (socket.AF_INET, *stream, ("127.0.0.2", 0)),
        (socket.AF_INET, *stream, ("127.0.0.3", 0)),
    ]
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: found if host == "cp" else real(host, *a, **k))
    assert [str(place) for place in Address.parse("cp:1").places()] == ["127.0.0.2:1", "127.0.0.3:1", "[2001:db8::1]:1"]
    with pytest.raises(ListenError, match="without TLS"):
        bench().ingest.listen("", "cp:0")  # one of them is not of this machine alone
    listener = bench(insecure=True).ingest.listen("", "cp:0")
    port = listener.address.rpartition(":")[2]
    assert listener.addresses == (f"127.0.0.2:{port}", f"127.0.0.3:{port}")
    for address in listener.addresses:
        export(address, request())
    assert [entry["address"] for entry in listener.to_json()] == list(listener.addresses)


def test_an_address_is_known_under_another_name() -> None:
    assert is_open("localhost:4317", ["127.0.0.1:4317"])
    assert is_open("LOCALHOST:4317", ["[::1]:4317"])
    assert not is_open("localhost:4317", ["127.0.0.1:4318"])
    assert is_open("unix:/a", ["unix:/a"])
    assert is_open("unix:///a", ["unix:/a"])
    with pytest.raises(ListenError, match="not a known host"):
        is_open("no-such-host.invalid:1", [])


def test_names() -> None:
    assert split_name("cp1=127.0.0.1:4317") == ("cp1", "127.0.0.1:4317")
    assert split_name("127.0.0.1:4317") == ("", "127.0.0.1:4317")
    assert split_name("unix:/a=b") == ("", "unix:/a=b")
    with pytest.raises(ListenError):
        split_name("two words=127.0.0.1:4317")
    with pytest.raises(ListenError):
        split_name("=127.0.0.1:4317")
