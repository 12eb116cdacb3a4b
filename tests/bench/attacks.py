"""Attacks by one sender, while another sends 10 requests a second: what becomes of those.

    python -m tests.bench attacks              each attack for a while, on a receiver of its own
    python -m tests.bench.attacks KIND ADDRESS one attack, until standard input ends or a minute is over

As root the attacker becomes another user before it connects; otherwise both are one sender, and the result says so.
What is attacked listens on loopback, was started here and is ended here.
"""

from __future__ import annotations

import argparse
import contextlib
import encodings.idna
import itertools
import os
import resource
import select
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from receiver.control import ControlClient, ControlError
from tests.bench.terminal import percentile
from tests.http2_client import ACK, END_STREAM, HEADERS, METHOD, PREFACE, frame, headers, reset
from tests.live_receiver import LiveReceiver, start_receiver

UID = 1_001
SECONDS = 12.0
MOST_SECONDS = 60.0
RATE = 10.0
SPANS = 100
FILES = 1_024
"""As most systems give a service."""
assert encodings.idna  # loaded before the attacker is somebody who may not read it
_ALONE = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", 0))


def spans(count: int, service: str = "good", text: str = "") -> bytes:
    """A request of so many spans."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = service
    scope = group.scope_spans.add()
    now = time.time_ns()
    for number in range(1, count + 1):
        span = scope.spans.add(
            trace_id=(now + number // 10).to_bytes(16, "big"),
            span_id=number.to_bytes(8, "big"),
            name=f"work {number % 50}",
            kind=1,
            start_time_unix_nano=now,
            end_time_unix_nano=now + number,
        )
        span.attributes.add(key="k").value.string_value = text or "some value"
    return request.SerializeToString()


# --- the one who is attacked ---------------------------------------------------------------------------
class Good:
    """Sends 10 requests a second of 100 spans, each again and again until it is acknowledged."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.latencies: list[float] = []
        self.refusals: Counter[str] = Counter()
        self.longest = 0.0
        self.given_up = 0
        self._refused_since: float | None = None
        self._lock = threading.Lock()
        self._body = spans(SPANS)

    def run(self, seconds: float) -> None:
        """A new connection every two seconds, as exporters make one now and then."""
        began, threads = time.perf_counter(), []
        channels: list[grpc.Channel] = []
        for number in range(int(seconds * RATE)):
            due = began + number / RATE
            time.sleep(max(0.0, due - time.perf_counter()))
            if number % int(2 * RATE) == 0:
                channels.append(grpc.insecure_channel(self.address, options=_ALONE))
            thread = threading.Thread(target=self._send, args=(channels[-1], due), daemon=True)
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join(20)
        for channel in channels:
            channel.close()
        if self._refused_since is not None:
            self.longest = max(self.longest, time.perf_counter() - self._refused_since)

    def _send(self, channel: grpc.Channel, due: float) -> None:
        call = channel.unary_unary(METHOD)
        while time.perf_counter() - due < 15:
            began = time.perf_counter()
            try:
                call(self._body, timeout=10)
            except grpc.RpcError as error:
                with self._lock:
                    self.refusals[error.code().name] += 1
                    if self._refused_since is None:
                        self._refused_since = began
                time.sleep(0.1)
                continue
            with self._lock:
                now = time.perf_counter()
                self.latencies.append(now - due)
                if self._refused_since is not None:
                    self.longest = max(self.longest, now - self._refused_since)
                    self._refused_since = None
            return
        with self._lock:
            self.given_up += 1

    def to_json(self) -> dict[str, Any]:
        """The figures."""
        known = self.latencies or [float("inf")]
        return {
            "acknowledged": len(self.latencies),
            "given_up": self.given_up,
            "p50_ms": round(percentile(known, 0.5) * 1e3, 1) if self.latencies else None,
            "p99_ms": round(percentile(known, 0.99) * 1e3, 1) if self.latencies else None,
            "max_ms": round(max(known) * 1e3, 1) if self.latencies else None,
            "refusals": dict(self.refusals),
            "longest_refused_s": round(self.longest, 2),
        }


def attacks(folder: Path, seconds: float) -> dict[str, Any]:
    """Each attack on a receiver of its own."""
    result: dict[str, Any] = {"attacker": f"uid {UID}" if os.getuid() == 0 else "the same user: not root"}
    chosen = [name for name in os.environ.get("ATTACKS", "").split(";") if name] or ["none", *ATTACKS]
    for name in chosen:
        result[name] = _under(name, folder / f"{name}.db")
    return result


def _under(name: str, db: Path) -> dict[str, Any]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, hard), hard))
    try:
        receiver = start_receiver(db, ["127.0.0.1:0"], ["--min-free", "0"])  # a nearly full disk is another matter
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    drain = threading.Thread(target=lambda: receiver.process.stderr and receiver.process.stderr.read(), daemon=True)
    drain.start()
    attacker = None
    try:
        if name != "none":
            attacker = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.attacks", name, receiver.address],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert attacker.stdout is not None
            attacker.stdout.readline()
            time.sleep(1.0)
        good = Good(receiver.address)
        good.run(SECONDS)
        return {**good.to_json(), **_told(receiver)}
    finally:
        if attacker is not None:
            assert attacker.stdin is not None
            attacker.stdin.close()
            try:
                attacker.wait(15)
            except subprocess.TimeoutExpired:
                attacker.kill()
                attacker.wait(15)
        with contextlib.suppress(subprocess.TimeoutExpired):
            receiver.stop()
        if receiver.process.poll() is None:
            receiver.kill()


def _told(receiver: LiveReceiver) -> dict[str, Any]:
    began = time.perf_counter()
    try:
        with contextlib.closing(ControlClient.connect(receiver.db)) as client:
            status = client.request("status")
    except ControlError as error:
        return {"status": str(error)}
    return {"status_ms": round((time.perf_counter() - began) * 1e3), "said": status.get("limited", "")}


Attack = Callable[[str, threading.Event], None]


# --- the attacker ----------------------------------------------------------------------------------------
def _open(address: str, sent: bytes) -> socket.socket | None:
    host, _, port = address.rpartition(":")
    try:
        connection = socket.create_connection((host.strip("[]"), int(port)), 2.0)
        connection.sendall(sent)
    except OSError:
        return None
    return connection


def _keep(address: str, count: int, sent: Callable[[], bytes], stop: threading.Event, drip: bytes = b"") -> None:
    """So many raw connections, opened again when they are closed; now and then something more on each."""
    held: list[socket.socket] = []
    while not stop.is_set():
        alive = []
        for one in held:
            try:
                one.setblocking(False)
                try:
                    gone = one.recv(65_536) == b""
                except BlockingIOError:
                    gone = False
                if drip and not gone:
                    one.send(drip)
            except OSError:
                gone = True
            if gone:
                one.close()
            else:
                alive.append(one)
        held = alive
        while len(held) < count and not stop.is_set():
            connection = _open(address, sent())
            if connection is None:
                break
            held.append(connection)
        stop.wait(0.5)


def _empty(count: int) -> Callable[[str, threading.Event], None]:
    def attack(address: str, stop: threading.Event) -> None:
        def silence() -> Iterator[bytes]:
            stop.wait()
            yield b""

        def again(call: Any) -> None:
            while not stop.is_set():
                with contextlib.suppress(grpc.RpcError):
                    call.stream_unary(METHOD)(silence(), timeout=MOST_SECONDS)
                stop.wait(0.05)

        with grpc.insecure_channel(address, options=_ALONE) as channel:
            _threads(count, lambda: again(channel), stop)

    return attack


def _threads(count: int, work: Callable[[], None], stop: threading.Event) -> None:
    for _ in range(count):
        threading.Thread(target=work, daemon=True).start()
    stop.wait()


def _flood(channels: int, body: Callable[[], bytes], gzipped: bool = False) -> Callable[[str, threading.Event], None]:
    def attack(address: str, stop: threading.Event) -> None:
        first = body()

        def send() -> None:
            compression = grpc.Compression.Gzip if gzipped else None
            with grpc.insecure_channel(address, options=_ALONE, compression=compression) as channel:
                while not stop.is_set():
                    try:
                        channel.unary_unary(METHOD)(first if body is _large or gzipped else body(), timeout=10)
                    except grpc.RpcError:
                        stop.wait(0.02)

        _threads(channels, send, stop)

    return attack


def _large() -> bytes:
    return spans(130_000, "large")


_numbers = itertools.count()


def _named() -> bytes:
    return spans(20, f"service {next(_numbers) % 10_000}")


def _zeros() -> bytes:
    return bytes(64 << 20)


def _raw(count: int, sent: Callable[[], bytes], drip: bytes = b"") -> Callable[[str, threading.Event], None]:
    def attack(address: str, stop: threading.Event) -> None:
        _keep(address, count, sent, stop, drip)

    return attack


def _half_idle() -> bytes:
    return PREFACE if next(_numbers) % 2 else b""


def _half_headers() -> bytes:
    return PREFACE + frame(1, 0, 1, HEADERS[:30])  # no END_HEADERS: a CONTINUATION would follow


def _streams(connections: int, each: int, *, end: bool = False, back: bool = False, data: bytes = b"") -> Attack:
    """So many raw connections with so many calls each, that bring no message; whatever ends begins again.

    Args:
        end: they say at once that nothing follows.
        back: they are taken back at once, and 50 more begin all the time.
        data: what of a message they bring.
    """

    def calls(first: int, count: int) -> bytes:
        sent = []
        for stream in range(first, first + 2 * count, 2):
            sent.append(headers(stream, END_STREAM if end else 0))
            if data:
                sent.append(frame(0, 0, stream, data))
            if back:
                sent.append(reset(stream))
        return b"".join(sent)

    def attack(address: str, stop: threading.Event) -> None:
        poll, held = select.epoll(), dict[int, tuple[socket.socket, list[int], bytearray]]()

        def begin(number: int, count: int) -> None:
            connection, next_one, _ = held[number]
            with contextlib.suppress(OSError):
                connection.sendall(calls(next_one[0], count))
            next_one[0] += 2 * count

        while not stop.is_set():
            while len(held) < connections and (connection := _open(address, PREFACE)) is not None:
                connection.setblocking(False)
                number = connection.fileno()
                held[number] = connection, [1], bytearray()
                poll.register(number, select.EPOLLIN)
                begin(number, each)
            for number, _ in poll.poll(0.05):
                connection, _, came = held[number]
                try:
                    data = connection.recv(1 << 18)
                except OSError:
                    data = b""
                if not data:
                    poll.unregister(number)
                    connection.close()
                    del held[number]
                    continue
                came += data
                ended = _ended(connection, came)
                if ended and not back:
                    begin(number, ended)
            for number in list(held) if back else ():
                begin(number, 50)

    return attack


def _ended(connection: socket.socket, came: bytearray) -> int:
    """How many streams ended with the frames that are whole; SETTINGS and PING are answered."""
    ended = 0
    while len(came) >= 9 and len(came) >= 9 + (length := int.from_bytes(came[:3], "big")):
        kind, flags, payload = came[3], came[4], bytes(came[9 : 9 + length])
        if kind in (4, 6) and not flags & ACK:
            with contextlib.suppress(OSError):
                connection.sendall(frame(kind, ACK, 0, payload if kind == 6 else b""))
        ended += kind == 3 or (kind < 2 and flags & END_STREAM)
        del came[: 9 + length]
    return ended


def _again(count: int, *, leave: bool = False) -> Attack:
    """So many connections that say nothing, opened again at once; `leave`: the oldest is closed for each new one."""

    def attack(address: str, stop: threading.Event) -> None:
        host, _, port = address.rpartition(":")
        poll, held = select.epoll(), dict[int, socket.socket]()
        while not stop.is_set():
            while len(held) < count:
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex((host, int(port)))
                held[one.fileno()] = one
                poll.register(one, select.EPOLLIN)
            if leave:
                number, one = next(iter(held.items()))
                del held[number]
                one.close()
                continue
            for number, _ in poll.poll(0.02):
                try:
                    gone = not held[number].recv(1 << 16)
                except BlockingIOError:
                    continue
                except OSError:
                    gone = True
                if gone:
                    held.pop(number).close()

    return attack


def _slow_message() -> bytes:
    """A message of 8 MiB begins, on each of 8 streams; one byte more follows now and then on the first."""
    begun = b"".join(
        frame(1, 4, stream, HEADERS) + frame(0, 0, stream, b"\0" + (8 << 20).to_bytes(4, "big") + bytes(100))
        for stream in range(1, 16, 2)
    )
    return PREFACE + begun


ATTACKS: dict[str, Attack] = {
    "33 empty streams": _empty(33),
    "200 empty streams": _empty(200),
    "4 senders of 130,000 spans": _flood(4, _large),
    "1,500 idle connections": _raw(1_500, _half_idle),
    "200 connections, 10,000 services": _flood(200, _named),
    "500 half headers": _raw(500, _half_headers),
    "50 slow messages on 8 streams": _raw(50, _slow_message, frame(0, 0, 1, b"\0")),
    "4 gzip bombs": _flood(4, _zeros, gzipped=True),
    "4 senders of 130,000 spans as gzip": _flood(4, _large, gzipped=True),
    "8 connections of 64 empty streams": _streams(8, 64),
    "500 connections of 64 empty streams": _streams(500, 64),
    "500 connections of 64 begun messages": _streams(500, 64, data=b"\0"),
    "100 connections of 64 ended streams": _streams(100, 64, end=True),
    "100 connections of streams taken back": _streams(100, 50, back=True),
    "3,000 connections opened again": _again(3_000),
    "connections that come and go": _again(400, leave=True),
    "20 users of 8 empty streams": _streams(1, 8),
    "20 users of 8 begun messages": _streams(1, 8, data=b"\0"),
}
USERS = {name: 20 for name in ATTACKS if name.startswith("20 users")}
"""Attacks that as many users take part in; one, where this is not root."""


def main(argv: Sequence[str] | None = None) -> int:
    """The attacker's command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.attacks")
    parser.add_argument("kind", choices=ATTACKS)
    parser.add_argument("address")
    options = parser.parse_args(argv)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16_384), hard))
    if os.getuid() == 0:
        more = 0
        while more < USERS.get(options.kind, 1) - 1 and os.fork():
            more += 1
        os.setgid(UID + more)
        os.setuid(UID + more)
    stop = threading.Event()
    threading.Timer(MOST_SECONDS, stop.set).start()
    threading.Thread(target=ATTACKS[options.kind], args=(options.address, stop), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()
    stop.set()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
