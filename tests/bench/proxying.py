"""What the proxy of a traced command adds: `proxy`. Server, proxy and clients are processes of their own; the anchor is
the same client straight at the same server.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.terminal import cpu_seconds, percentile, resident_bytes
from tests.doubles.certificates import Authority

REQUESTS = 1_000
ROUNDS = 5
CLIENTS = 8
BUSY_SECONDS = 4.0
STREAMED = 200_000_000
_CHUNK = 65_536
_LIST = json.dumps({"kind": "PodList", "items": [{"metadata": {"name": f"pod-{i}"}} for i in range(50)]}).encode()
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_LIST), _LIST)
_LENGTH = re.compile(rb"\r\nContent-Length: ([0-9]+)\r\n", re.IGNORECASE)
_FIELDS = "Host: x\r\nUser-Agent: kubectl/v1.36.2\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\n"


def proxy(folder: Path, seconds: float) -> dict[str, Any]:
    """Milliseconds a request, requests a second, and memory while 200 MB go through."""
    authority = Authority(folder)
    issued = authority.issue("stub")
    with _started("stub", str(issued.certificate), str(issued.key)) as (_, straight_at):
        straight = Way(straight_at["port"], authority.certificate.read_text(), "t")
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(_kubeconfig(straight.port, authority.certificate))
        with _started("proxy", str(kubeconfig)) as (process, there):
            through = Way(there["port"], there["authority"], there["token"])
            ways = {"straight": straight, "through": through}
            times: dict[str, list[float]] = {name: [] for name in ways}
            for way in ways.values():
                way.talk(200)
            before = cpu_seconds(process.pid)
            for _ in range(ROUNDS):  # in turns, so that what else the machine does hits both
                for name, way in ways.items():
                    times[name] += way.talk(REQUESTS)
            spent = cpu_seconds(process.pid) - before
            result: dict[str, Any] = {"requests": ROUNDS * REQUESTS, "cores": os.cpu_count()}
            for name, took in times.items():
                result[f"{name}_p50_ms"] = round(statistics.median(took) * 1e3, 3)
                result[f"{name}_p99_ms"] = round(percentile(took, 0.99) * 1e3, 3)
            for quantile in ("p50", "p99"):
                added = result[f"through_{quantile}_ms"] - result[f"straight_{quantile}_ms"]
                result[f"added_{quantile}_ms"] = round(added, 3)
            result["proxy_cpu_us_per_request"] = round(spent / (ROUNDS * REQUESTS) * 1e6)
            result["clients"] = CLIENTS
            for name, way in ways.items():
                result[f"{name}_requests_per_s"] = round(_busy(way))
            before = cpu_seconds(process.pid)
            for name, pause in (("fast", 0.0), ("slow", 0.003)):
                resident = resident_bytes(process.pid)
                began = time.perf_counter()
                through.stream(STREAMED, pause)
                took = time.perf_counter() - began
                result[f"streamed_{name}_mb_per_s"] = round(STREAMED / took / 1e6)
                result[f"streamed_{name}_peak_growth_mib"] = round((_peak(process.pid) - resident) / (1 << 20), 1)
            result["streamed_cpu_s_per_200_mb"] = round((cpu_seconds(process.pid) - before) / 2, 2)
            return result


# --- clients ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Way:
    """A server to be asked: the stub itself, or the proxy before it."""

    port: int
    authority: str
    token: str

    @contextmanager
    def connected(self) -> Iterator[ssl.SSLSocket]:
        """With TLS."""
        context = ssl.create_default_context(cadata=self.authority)
        with (
            socket.create_connection(("127.0.0.1", self.port), 30) as plug,
            context.wrap_socket(plug, server_hostname="127.0.0.1") as wrapped,
        ):
            wrapped.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield wrapped

    def request(self, target: str) -> bytes:
        """Its bytes."""
        return f"GET {target} HTTP/1.1\r\n{_FIELDS}Authorization: Bearer {self.token}\r\n\r\n".encode()

    def talk(self, most: int, until: float = float("inf")) -> list[float]:
        """Seconds of each of so many requests on one connection, or of those until then."""
        took: list[float] = []
        asked = self.request("/api/v1/namespaces/default/pods?limit=500")
        with self.connected() as plug:
            while len(took) < most and (began := time.perf_counter()) < until:
                plug.sendall(asked)
                answer = plug.recv(1 << 16)
                while (end := answer.find(b"\r\n\r\n")) < 0:
                    answer += plug.recv(1 << 16)
                length = _LENGTH.search(answer)
                assert length is not None
                assert answer.startswith(b"HTTP/1.1 200")
                left = end + 4 + int(length[1]) - len(answer)
                while left > 0:
                    left -= len(plug.recv(1 << 16))
                took.append(time.perf_counter() - began)
        return took

    def stream(self, size: int, pause: float) -> None:
        """Read an answer of that size; after each million bytes wait."""
        with self.connected() as plug:
            plug.sendall(self.request(f"/stream?bytes={size}"))
            buffer, taken, next_pause = bytearray(1 << 18), 0, 1_000_000
            while taken < size:
                some = plug.recv_into(buffer)
                if not some:
                    raise OSError("the answer ended early")
                taken += some
                if pause and taken > next_pause:
                    next_pause += 1_000_000
                    time.sleep(pause)


def _busy(way: Way) -> float:
    """Requests a second of `CLIENTS` keep-alive clients, half of them in a process of their own each."""
    until = BUSY_SECONDS
    given = json.dumps([way.port, way.authority, way.token, CLIENTS // 2, until])
    command = [sys.executable, "-m", "tests.bench.proxying", "clients", given]
    helpers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for helper in helpers:
            assert helper.stdout is not None
            assert helper.stdout.readline() == "ready\n"
        for helper in helpers:
            assert helper.stdin is not None
            helper.stdin.write("go\n")
            helper.stdin.flush()
        return sum(float(helper.communicate(timeout=until + 30)[0]) for helper in helpers)
    finally:
        for helper in helpers:
            helper.kill()
            helper.wait()


def _clients(given: str) -> None:
    port, authority, token, count, seconds = json.loads(given)
    way = Way(port, authority, token)
    way.talk(20)
    done: list[int] = []
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    until = began + seconds
    threads = [
        threading.Thread(target=lambda: done.append(len(way.talk(1_000_000, until))), daemon=True) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 20)
    print(sum(done) / (time.perf_counter() - began))


# --- processes ----------------------------------------------------------------------------------------------------
@contextmanager
def _started(*words: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A process of this module, and what it says at its start; it ends when its input does."""
    command = [sys.executable, "-m", "tests.bench.proxying", *words]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=10)
        process.kill()
        process.wait()


def _peak(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) << 10


def _kubeconfig(port: int, authority: Path) -> str:
    cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(authority)}
    return json.dumps(
        {
            "current-context": "bench",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "bench", "context": {"cluster": "c", "user": "u"}}],
        }
    )


def _proxy(kubeconfig: str) -> None:
    from tui.clusters.force.credentials import Upstream
    from tui.clusters.force.proxy import Proxy

    with Proxy(Upstream(kubeconfig=Path(kubeconfig))) as running:
        there = {"port": running.port, "token": running.token, "authority": running.authority.decode()}
        print(json.dumps(there), flush=True)
        sys.stdin.read()


class _Stub(asyncio.Protocol):
    """Answers every request with the same list, `/stream?bytes=N` with N bytes in chunks."""

    def __init__(self) -> None:
        self._waiting = b""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while (end := self._waiting.find(b"\r\n\r\n")) >= 0:
            head, self._waiting = self._waiting[:end], self._waiting[end + 4 :]
            if head.startswith(b"GET /stream?bytes="):
                self._left = int(head.split(b" ")[1].partition(b"=")[2])
                self._transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                self._full = False
                self.resume_writing()
            else:
                self._transport.write(_ANSWER)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        while self._left and not self._full:
            size = min(self._left, _CHUNK)
            self._left -= size
            end = b"\r\n" if self._left else b"\r\n0\r\n\r\n"
            self._transport.write(b"%x\r\n" % size + b"x" * size + end)


def _stub(certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Stub, "127.0.0.1", 0, ssl=context)
        print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        server.close()

    asyncio.run(serve())


if __name__ == "__main__":
    {"stub": _stub, "proxy": _proxy, "clients": _clients}[sys.argv[1]](*sys.argv[2:])
