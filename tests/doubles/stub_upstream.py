"""An HTTPS server on asyncio that answers as it is told to, byte by byte where a test wants that: what stands in the
API server's place behind a proxy.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from tests.doubles.certificates import Authority, Certificate

T = TypeVar("T")
_PATTERN = bytes(range(256)) * 256


@dataclass
class Asked:
    """A request as it came."""

    method: str
    target: str
    fields: list[tuple[str, str]]
    connection: int
    """From 1, the connection that it came on."""
    peer: str = ""
    """The common name in the client's certificate."""
    sent: int = 0
    digest: str = ""
    """SHA-256 of the body."""
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """The values of every field of that (lower-case) name."""
        return [value for lower, value in self.fields if lower == name]

    @property
    def query(self) -> dict[str, str]:
        """Of the target; the first of each."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}


class Channel:
    """A connection, for those who answer on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        """Send as it is."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, content: object, status: str = "200 OK", *fields: str) -> None:
        """JSON."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *fields]
        await self.send("\r\n".join([*lines, "", ""]).encode() + body)

    async def chunk(self, data: bytes) -> None:
        """One chunk."""
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def cut(self) -> None:
        """Break the connection off."""
        self.writer.transport.abort()


Answer = Callable[[Asked, Channel], Awaitable[bool | None]]
"""What answers: True ends the connection properly afterwards, anything else lets the next request come."""


class StubUpstream:
    """Runs in a thread from `start` to `stop`. `routes` says what answers a path; `before_body` what answers there
    before the body has been read."""

    def __init__(self, folder: Path, *, tls: bool = True, host: str = "", days: int = 1) -> None:
        """`host` and `days` are of its certificate. It asks for one of its own authority and takes none, too."""
        self.folder = folder
        self.authority = Authority(folder, "upstream authority")
        self.tls: ssl.SSLContext | None = None
        if tls:
            self.tls = server_context(self.authority.issue("upstream", host=host, days=days))
            self.tls.load_verify_locations(self.authority.certificate)
            self.tls.verify_mode = ssl.CERT_OPTIONAL
        self.asked: list[Asked] = []
        self.tokens: set[str] | None = None
        """What is taken as `Authorization`; None: anything."""
        self.routes: dict[str, Answer] = {}
        self.before_body: dict[str, Answer] = {}
        self.connections = 0
        self.open: set[asyncio.StreamWriter] = set()
        self.port = 0
        self._released = asyncio.Event()
        self._kubeconfigs = 0
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._run, name="stub-upstream", daemon=True)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> StubUpstream:
        """Listen."""
        self._thread.start()
        self.run(self._listen())
        return self

    def stop(self) -> None:
        """End it and every connection."""

        async def end() -> None:
            if self._server is not None:
                self._server.close()
            for writer in tuple(self.open):
                writer.transport.abort()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self.run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """In its thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def release(self) -> None:
        """Let watches and logs, which wait after their first line, go on."""
        self._loop.call_soon_threadsafe(self._released.set)

    def hold(self) -> None:
        """Let them wait again."""
        self._loop.call_soon_threadsafe(self._released.clear)

    def close_idle(self) -> None:
        """End every connection properly, as a server does with idle ones."""

        async def close() -> None:
            for writer in tuple(self.open):
                writer.close()
            await asyncio.gather(*(writer.wait_closed() for writer in tuple(self.open)), return_exceptions=True)

        self.run(close())

    def kubeconfig(self, user: dict[str, Any] | None = None, **cluster: Any) -> Path:
        """One with the context `lab`, namespace `team-a`; `cluster` (with _ for -) replaces what the cluster has."""
        entry: dict[str, Any] = {"server": self.url, "certificate-authority": str(self.authority.certificate)}
        entry.update({name.replace("_", "-"): value for name, value in cluster.items()})
        entry = {name: value for name, value in entry.items() if value is not None}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "clusters": [{"name": "lab-cluster", "cluster": entry}],
            "users": [{"name": "me", "user": {"token": "real-secret"} if user is None else user}],
            "contexts": [
                {"name": "lab", "context": {"cluster": "lab-cluster", "user": "me", "namespace": "team-a"}},
            ],
        }
        self._kubeconfigs += 1
        file = self.folder / f"kubeconfig-{self._kubeconfigs}"
        file.write_text(json.dumps(config))
        return file

    # --- its thread -------------------------------------------------------------------------------------------
    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(lambda *_: None)  # clients that go away
        self._loop.run_forever()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number, channel = self.connections, Channel(reader, writer)
        self.open.add(writer)
        subject = (writer.get_extra_info("peercert") or {}).get("subject", ())
        peer = next((value for parts in subject for name, value in parts if name == "commonName"), "")
        try:
            while await self._one(channel, number, peer):
                pass
        except (OSError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()

    async def _one(self, channel: Channel, number: int, peer: str) -> bool:
        head = (await channel.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in head[1:-2])]
        asked = Asked(method, target, fields, number, peer)
        self.asked.append(asked)
        path = urlsplit(target).path
        early = self.before_body.get(path)
        if early is not None:
            return not await early(asked, channel)
        if asked.all("expect"):
            await channel.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await self._body(asked, channel.reader)
        if self.tokens is not None and not self.tokens & set(asked.all("authorization")):
            await channel.answer({"kind": "Status", "code": 401, "message": "Unauthorized"}, "401 Unauthorized")
            return True
        answer = (
            self.routes.get(path) or getattr(self, f"_{re.sub('[^a-z0-9]', '_', path.strip('/'))}", None) or self._echo
        )
        return not await answer(asked, channel)

    async def _body(self, asked: Asked, reader: asyncio.StreamReader) -> None:
        digest = hashlib.sha256()

        async def take(size: int) -> None:
            asked.sent += size
            while size:
                piece = await reader.read(min(size, 1 << 16))
                if not piece:
                    raise asyncio.IncompleteReadError(b"", size)
                digest.update(piece)
                size -= len(piece)

        if asked.all("transfer-encoding") == ["chunked"]:
            while size := int((await reader.readline()).partition(b";")[0], 16):
                await take(size)
                assert await reader.readexactly(2) == b"\r\n"
            while (line := await reader.readline()) != b"\r\n":
                name, _, value = line.decode().partition(":")
                asked.trailers.append((name.lower(), value.strip()))
        elif asked.all("content-length"):
            await take(int(asked.all("content-length")[0]))
        asked.digest = digest.hexdigest()

    # --- what it can answer by itself -------------------------------------------------------------------------
    async def _echo(self, asked: Asked, channel: Channel) -> None:
        """What came, as JSON."""
        seen = {"method": asked.method, "target": asked.target, "fields": asked.fields, "peer": asked.peer}
        await channel.answer({**seen, "sent": asked.sent, "digest": asked.digest, "trailers": asked.trailers})

    async def _version(self, asked: Asked, channel: Channel) -> None:
        await channel.answer({"major": "1", "minor": "36", "gitVersion": "v1.36.2"})

    async def _api(self, asked: Asked, channel: Channel) -> None:
        await channel.answer({"kind": "APIVersions", "versions": ["v1"]})

    async def _apis(self, asked: Asked, channel: Channel) -> None:
        await channel.answer({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})

    async def _api_v1(self, asked: Asked, channel: Channel) -> None:
        pods = {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get", "list"]}
        await channel.answer({"kind": "APIResourceList", "groupVersion": "v1", "resources": [pods]})

    async def _api_v1_namespaces_team_a_pods(self, asked: Asked, channel: Channel) -> None:
        if asked.query.get("watch", "").lower() in ("true", "1"):
            await self._watch(asked, channel)
        else:
            await channel.answer({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [self.pod("first")]})

    def pod(self, name: str) -> dict[str, Any]:
        """One."""
        return {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "team-a"}}

    async def go(self) -> None:
        """Wait for `release`."""
        await self._released.wait()

    async def _watch(self, asked: Asked, channel: Channel) -> None:
        await channel.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        await channel.chunk(json.dumps({"type": "ADDED", "object": self.pod("first")}).encode() + b"\n")
        await self.go()
        await channel.chunk(json.dumps({"type": "ADDED", "object": self.pod("second")}).encode() + b"\n")
        await channel.send(b"0\r\n\r\n")

    async def _api_v1_namespaces_team_a_pods_first(self, asked: Asked, channel: Channel) -> None:
        containers = {"containers": [{"name": "main", "image": "some"}]}
        await channel.answer({**self.pod("first"), "spec": containers})

    async def _api_v1_namespaces_team_a_pods_first_log(self, asked: Asked, channel: Channel) -> bool:
        """Until the connection's end, as a kubelet's old ones do."""
        await channel.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\none\n")
        await self.go()
        await channel.send(b"two\n")
        return True

    async def _big(self, asked: Asked, channel: Channel) -> None:
        """`?bytes=N` of a pattern; with `&chunked=1` in chunks."""
        size, chunked = int(asked.query["bytes"]), "chunked" in asked.query
        how = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        await channel.send(f"HTTP/1.1 200 OK\r\n{how}\r\n\r\n".encode())
        while size:
            piece = _PATTERN[:size]
            size -= len(piece)
            await (channel.chunk(piece) if chunked else channel.send(piece))
        if chunked:
            await channel.send(b"0\r\n\r\n")

    async def _tunnel(self, asked: Asked, channel: Channel) -> bool:
        """Sends back what comes until it ends, then says `bye`."""
        if asked.all("upgrade") != ["echo/1"]:
            await channel.answer({}, "400 Bad Request")
            return False
        await channel.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\nhello")
        while data := await channel.reader.read(1 << 16):
            await channel.send(data)
        if self.tls is None:  # a StreamWriter can only close TLS whole
            await channel.send(b"bye")
            channel.writer.write_eof()
        return True


def pattern(size: int) -> bytes:
    """What `/big` sends."""
    whole, part = divmod(size, len(_PATTERN))
    return _PATTERN * whole + _PATTERN[:part]


def server_context(certificate: Certificate) -> ssl.SSLContext:
    """For a server with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


class ConnectProxy:
    """An HTTP proxy that knows CONNECT only. `asked` is what it was asked for; `authorization` what it wants."""

    def __init__(self, authorization: str = "") -> None:
        self.asked: list[str] = []
        self.answer = ""
        """Sent instead of connecting."""
        self.port = 0
        self._wanted = f"Basic {base64.b64encode(authorization.encode()).decode()}" if authorization else ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="connect-proxy", daemon=True)
        self._server: asyncio.Server | None = None

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(lambda *_: None)
        self._loop.run_forever()

    def start(self) -> ConnectProxy:
        """Listen."""

        async def listen() -> None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = self._server.sockets[0].getsockname()[1]

        self._thread.start()
        asyncio.run_coroutine_threadsafe(listen(), self._loop).result(10)
        return self

    def stop(self) -> None:
        """End it."""

        async def end() -> None:
            if self._server is not None:
                self._server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        target = head.split(" ")[1]
        self.asked.append(target)
        if self.answer or (self._wanted and f"Proxy-Authorization: {self._wanted}\r\n" not in head):
            writer.write(self.answer.encode() or b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            writer.close()
            return
        host, _, port = target.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host.strip("[]"), int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while data := await source.read(1 << 16):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
