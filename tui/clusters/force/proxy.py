"""The proxy between one command and the API server: it marks every request and changes nothing else.

One request at a time on each connection, as HTTP/1.1 has it; connections to the API server are used again. Bodies go
on as they come, in both directions at once, and no faster than the slower side takes them. A request or an answer that
breaks off does so for the other side too. A 101 makes a tunnel of both connections (exec, attach, port-forward, cp).

Everything of a connection runs in the thread of the proxy's own event loop; what can take long (a credential plugin, a
name) runs in a thread aside.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import secrets
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from tui.clusters.force.certificates import ADDRESS, throw_away
from tui.clusters.force.credentials import Credentials, Upstream
from tui.clusters.force.http1 import (
    Body,
    Chunked,
    Malformed,
    Request,
    Response,
    Sized,
    UntilEnd,
    head_end,
    read_request,
    read_response,
)
from tui.clusters.force.strangers import Door, files_allowed
from tui.clusters.force.wire import READ_BYTES, Wire
from tui.clusters.model import ReachError
from tui.clusters.reach.redirects import CODES, not_passed_on, stays
from tui.clusters.reach.unreachable import why_unreachable
from tui.clusters.reach.wire import plain

MOST_SEEN: Final = 10_000
_CONNECT_SECONDS: Final = 10.0
_ADDRESS_SECONDS: Final = 4.0
"""For one of several addresses of a name."""
_CONNECTING: Final = 32
"""Handshakes with the API server at a time: a thousand at once would only make each slower."""
_IDLE_SECONDS: Final = 30.0
_IDLE_CHANGE_SECONDS: Final = 5.0
"""A connection that the server closes as a change goes out leaves open whether it was made: so only fresh ones."""
_MOST_IDLE: Final = 100
_HELD_BYTES: Final = 64 << 10
"""Of a request's body that are kept until it is sure that it need not be sent again."""
_SPARE_FILES: Final = 256
"""Kept free beside those of strangers and two for each of the command's connections: when that is not so any more, the
system is asked for more files. A command that began before keeps its own limit."""
_FILES: Final = 8192
_TARGET_CHARACTERS: Final = 2048
_AUDIT_CHARACTERS: Final = 256
_METHOD_CHARACTERS: Final = 32
_HOP: Final = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization transfer-encoding upgrade".split()
)
_OURS: Final = _HOP | frozenset(b"host authorization traceparent tracestate te".split())
_PROTOCOL: Final = b"sec-websocket-protocol"
_TOKEN_PROTOCOL: Final = b"base64url.bearer.authorization.k8s.io."
"""How a WebSocket brings a token of its own, which would have to count beside ours."""
_SAFE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS"))
_WATCH: Final = re.compile(r"[?&](?:watch|follow)=(?:true|1|t)(?:&|$)|^/(?:api/v1|apis/[^/?]+/[^/?]+)/watch/", re.I)
_REASONS: Final = {
    400: ("Bad Request", "BadRequest"),
    401: ("Unauthorized", "Unauthorized"),
    431: ("Request Header Fields Too Large", "BadRequest"),
    501: ("Not Implemented", "BadRequest"),
    502: ("Bad Gateway", "ServiceUnavailable"),
    504: ("Gateway Timeout", "Timeout"),
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen:
    """A request of the command that has ended."""

    number: int
    """From 1, in the order in which they began."""
    trace_id: str
    """32 hex digits, one for each request."""
    parent_id: str
    """16 hex digits: the span id that the server's span has as its parent (or links to)."""
    audit_id: str
    method: str
    target: str
    """Path and query as the command sent them, at most 2,048 characters."""
    started: int
    """Nanoseconds since the epoch."""
    duration_ns: int
    """Until the last byte of the answer was handed on."""
    code: int
    """The answer's status, also when it is one of ours (502, 504: see `error`); 0 when none came."""
    sent: int
    """Bytes of the request's body (of a tunnel: to the server)."""
    received: int
    """Bytes of the answer's body (of a tunnel: from the server)."""
    error: str
    """What went wrong on the way, one sentence; "" for nothing (also when the server refused: see `code`)."""
    upgraded: bool
    """The connection became a tunnel: exec, attach, port-forward, cp."""
    watch: bool
    """It was asked to stay open: a watch or a followed log. Such a request ends by the command's going away."""


class Proxy:
    """Listens on 127.0.0.1 with TLS of a throw-away authority. Runs in a thread of its own from `start` to `stop`.

    with Proxy(upstream) as proxy, temporary_kubeconfig(proxy) as file: ...
    """

    upstream: Upstream
    port: int
    """Where it listens, after `start`."""
    token: str
    """What the command has to send as its bearer token."""
    authority: bytes
    """The certificate (PEM) of the authority that signed the proxy's own; its key exists nowhere any more."""

    def __init__(
        self, upstream: Upstream, *, token: str = "", port: int = 0, on_seen: Callable[[Seen], None] | None = None
    ) -> None:
        """`token` "" makes one; `port` is taken if it is free, else another, as with 0. `on_seen` is called in the
        proxy's thread as each request ends: it must be quick."""
        self.upstream = upstream
        self.port = port
        self.token = token or secrets.token_urlsafe(32)
        self.authority = b""
        self._expected = f"Bearer {self.token}".encode()
        self._on_seen = on_seen
        self._seen: list[Seen] = []
        self._begun = 0
        self._refused = 0
        self._thread: threading.Thread | None = None
        self._tls: ssl.SSLContext
        self._loop: asyncio.AbstractEventLoop
        self._scratch = memoryview(bytearray(READ_BYTES))
        self._door: Door
        self._commands: set[_Command] = set()
        self._known = 0
        self._servers: set[_Server] = set()
        self._idle: list[_Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._connecting: asyncio.Semaphore
        self._ending = asyncio.Event()

    def __repr__(self) -> str:
        return f"Proxy({ADDRESS}:{self.port} to {self.upstream!r})"

    # --- from outside ---------------------------------------------------------------------------------------
    def start(self) -> None:
        """Listen.

        Raises:
            ReachError: no port of loopback can be had, or no place for the key.
        """
        try:
            self._tls, self.authority = throw_away()
            listener = _listener(self.port)
        except OSError as error:
            raise ReachError(f"The proxy on {ADDRESS} cannot be started ({error.strerror}).") from error
        self.port = listener.getsockname()[1]
        self._loop = asyncio.SelectorEventLoop()
        self._loop.set_debug(False)  # its warnings show what is being sent
        self._loop.set_exception_handler(lambda *_: None)  # and so do its complaints
        self._thread = threading.Thread(target=self._run, args=(listener,), name="proxy", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Cut what is still open (it becomes a `Seen`), and end the thread. More than once is fine."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._ending.set)
        thread.join(5.0)

    def __enter__(self) -> Proxy:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def seen(self) -> tuple[Seen, ...]:
        """The requests that have ended, by number; at most the first 10,000."""
        return tuple(sorted(self._seen, key=lambda one: one.number))

    @property
    def total(self) -> int:
        """How many requests have begun, also those beyond what `seen` keeps."""
        return self._begun

    @property
    def refused(self) -> int:
        """How many requests came without the right token: somebody else's, or a command with credentials of its own
        (`kubectl --token`)."""
        return self._refused

    # --- the thread ------------------------------------------------------------------------------------------
    def _run(self, listener: socket.socket) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve(listener))
        finally:
            listener.close()
            self._loop.close()

    async def _serve(self, listener: socket.socket) -> None:
        self._connecting = asyncio.Semaphore(_CONNECTING)
        self._door = Door(self._loop, listener, lambda: _Command(self), self._start_task)
        await self._ending.wait()
        self._door.close()
        listener.close()
        for task in tuple(self._tasks):
            task.cancel()
        for command in tuple(self._commands):
            command.leave("The command went away before the answer had ended.")
            command.abort()
        for upward in tuple(self._servers):
            upward.abort()
        for _ in range(100):
            if not (self._commands or self._servers or self._tasks):
                break
            await asyncio.sleep(0.01)

    def _start_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _aside(self, work: Callable[[], T]) -> T:
        """The result of something that blocks. A thread of its own, not a pool's: those are waited for at exit."""
        future: asyncio.Future[T] = self._loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def run() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = work()
            except BaseException as failed:  # noqa: BLE001 - it is raised where it is waited for
                error = failed
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(settle, result, error)

        threading.Thread(target=run, name="proxy-aside", daemon=True).start()
        return await future

    # --- connections to the server --------------------------------------------------------------------------
    def _pooled(self, generation: int, *, changes: bool) -> _Server | None:
        """A connection that waits for a request, of those credentials; for a change one that was used just now."""
        now = time.monotonic()
        while self._idle:
            server = self._idle.pop()
            age = now - server.since
            if not server.open or server.generation != generation or age > _IDLE_SECONDS:
                server.close()
                continue
            if changes and age > _IDLE_CHANGE_SECONDS:
                self._idle.append(server)
                return None  # the others are older
            server.reused = True
            return server
        return None

    def _release(self, server: _Server) -> None:
        server.exchange = None
        server.since = time.monotonic()
        server.resume()
        self._idle.append(server)
        while len(self._idle) > _MOST_IDLE or server.since - self._idle[0].since > _IDLE_SECONDS:
            self._idle.pop(0).close()

    async def _connect(self, credentials: Credentials) -> _Server:
        """A new connection, through the relay and with TLS where they are wanted.

        Raises:
            _Unreachable: with a sentence.
        """
        async with self._connecting:
            try:
                return await asyncio.wait_for(self._connect_now(credentials), _CONNECT_SECONDS)
            except (asyncio.TimeoutError, TimeoutError):
                raise _Unreachable(504, self._why("no answer in time: timed out")) from None

    async def _connect_now(self, credentials: Credentials) -> _Server:
        upstream, relay = self.upstream, self.upstream.relay
        host, port = (relay.host, relay.port) if relay else (upstream.host, upstream.port)
        try:
            found = await self._aside(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            server = await self._first_of(found, credentials.generation)
        except (OSError, UnicodeError) as error:
            timeout = isinstance(error, TimeoutError)
            said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            said = "timed out" if timeout else "refused" if isinstance(error, ConnectionRefusedError) else said
            status = 504 if timeout else 502
            if relay:
                raise _Unreachable(
                    status,
                    f"The HTTP proxy {relay.host}:{relay.port} on the way to {upstream.name} cannot be reached"
                    f" ({plain(said)}): is it running?",
                ) from None
            raise _Unreachable(status, self._why(said)) from None
        try:
            if relay:
                await server.go_through(relay.authorization, f"{_bracketed(upstream.host)}:{upstream.port}")
            if credentials.tls is not None:
                await server.go_secure(credentials.tls, upstream.server_name)
        except BaseException:
            server.abort()
            raise
        return server

    async def _first_of(self, addresses: list[Any], generation: int) -> _Server:
        last: OSError = OSError("no address")
        patience = _CONNECT_SECONDS if len(addresses) == 1 else _ADDRESS_SECONDS
        for family, kind, protocol, _, address in addresses:
            try:
                plug = socket.socket(family, kind, protocol)
            except OSError as error:
                last = error
                continue
            try:
                plug.setblocking(False)
                _keep_alive(plug)
                await asyncio.wait_for(self._loop.sock_connect(plug, address), patience)
                _, server = await self._loop.create_connection(lambda: _Server(self, generation), sock=plug)
            except (asyncio.TimeoutError, TimeoutError):
                plug.close()
                last = TimeoutError("timed out")
            except OSError as error:
                plug.close()
                last = error
            except BaseException:
                plug.close()
                raise
            else:
                return server
        raise last

    def _why(self, error: BaseException | str) -> str:
        return why_unreachable(error, self.upstream.url, self.upstream.name)

    def _ask_for_files(self) -> None:
        """Before they are needed, and only once a token was seen."""
        if 2 * self._known + len(self._door.strangers) + _SPARE_FILES < files_allowed():
            return
        with suppress(ImportError, OSError, ValueError):
            import resource

            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
            if soft != resource.RLIM_INFINITY and soft < wanted:
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

    def _record(self, seen: Seen) -> None:
        if seen.number <= MOST_SEEN:
            self._seen.append(seen)
        if self._on_seen is not None:
            with suppress(Exception):  # its fault must not be the command's
                self._on_seen(seen)


class _Unreachable(Exception):
    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class _Command(Wire):
    """A connection of the command."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(proxy._loop, proxy._scratch)
        self._proxy = proxy
        self._exchange: _Exchange | None = None
        self._last = False  # nothing more is read from it
        self._known = False  # it showed the token
        self._unwanted = False
        self.waiting = bytearray()
        """What came and is not yet part of a request."""

    def connected(self) -> None:
        """Of `Wire`."""
        self._proxy._commands.add(self)
        if self._unwanted:
            self.abort()
        else:
            self.secure(self._proxy._tls)

    def put_out(self) -> None:
        """Of `Stranger`."""
        self._unwanted = self._last = True
        self.abort()

    def secured(self, error: ssl.SSLError | None) -> None:
        """Of `Wire`."""
        if error is not None:
            self.close()

    def received(self, data: bytes) -> None:
        """Of `Wire`."""
        if self._last:
            return
        exchange = self._exchange
        if exchange is None:
            self.waiting += data
            self._next()
        else:
            self.waiting += exchange.take(data)
            exchange.flow()

    def ended(self, clean: bool) -> None:
        """Of `Wire`."""
        if self._exchange is None:
            if not self._last:
                self.close()
        elif not self._exchange.command_ended(clean):
            self.abort()

    def lost(self) -> None:
        """Of `Wire`."""
        self._proxy._commands.discard(self)
        self._proxy._door.known(self)
        self._proxy._known -= self._known
        self.leave("The command went away before the answer had ended.")

    def filled(self) -> None:
        """Of `Wire`."""
        if self._exchange is not None:
            self._exchange.flow()

    drained = filled

    def leave(self, sentence: str) -> None:
        """The command wants no more of this."""
        exchange, self._exchange = self._exchange, None
        self._last = True
        if exchange is not None:
            exchange.gone(sentence)

    def done(self, *, keep: bool) -> None:
        """The request has ended; with `keep` another may follow."""
        self._exchange = None
        if keep:
            self.resume()
            self._next()
        else:
            self._last = True
            self.linger()

    def cut(self) -> None:
        """End it so that it does not look ended, after what was sent before."""
        self._exchange = None
        self._last = True
        self.break_off()

    def _next(self) -> None:
        if self._exchange is not None or not self.waiting:
            return
        try:
            end = head_end(self.waiting)
            if end < 0:
                return
            request = read_request(bytes(self.waiting[:end]))
        except Malformed as error:
            self._refuse(error.status, f"The proxy of k8s-trace-tui refuses this request: {_within(error)}.")
            return
        del self.waiting[:end]
        given = [value for _, lower, value in request.fields if lower == b"authorization"]
        given += [value for _, lower, value in request.fields if lower == _PROTOCOL and _TOKEN_PROTOCOL in value]
        if len(given) != 1 or not hmac.compare_digest(given[0], self._proxy._expected):
            self._proxy._refused += 1
            self._refuse(
                401,
                "The proxy of k8s-trace-tui takes only the token of its own kubeconfig: leave out --token and other"
                " credentials.",
                body=request.method != b"HEAD",
            )
            return
        if not self._known:
            self._known = True
            self._proxy._known += 1
            self._proxy._door.known(self)
            self._proxy._ask_for_files()
        self._exchange = exchange = _Exchange(self._proxy, self, request)
        if self.waiting:
            rest = bytes(self.waiting)
            self.waiting.clear()
            self.waiting += exchange.take(rest)  # before it begins: head and body then go in one write
        exchange.begin()

    def _refuse(self, status: int, sentence: str, *, body: bool = True) -> None:
        self._last = True
        self.waiting.clear()
        self.send(_status(status, sentence, keep=False, body=body))
        self.linger()


class _Server(Wire):
    """A connection to the API server."""

    def __init__(self, proxy: Proxy, generation: int) -> None:
        super().__init__(proxy._loop, proxy._scratch)
        self._proxy = proxy
        self._setting_up: asyncio.Future[None] | None = None
        self._relay_answer: bytearray | None = None
        self.exchange: _Exchange | None = None
        self.generation = generation
        self.reused = False
        self.since = 0.0
        """When it became idle, by the monotonic clock."""

    # --- setting up -----------------------------------------------------------------------------------------
    async def go_through(self, authorization: str, target: str) -> None:
        """Have an HTTP proxy connect to `HOST:PORT`.

        Raises:
            _Unreachable: it does not.
        """
        self._setting_up = self._loop.create_future()
        self._relay_answer = bytearray()
        own = f"Proxy-Authorization: {authorization}\r\n" if authorization else ""
        self.send(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{own}\r\n".encode("ascii"))
        await self._setting_up

    async def go_secure(self, context: ssl.SSLContext, server_name: str) -> None:
        """TLS.

        Raises:
            _Unreachable: the other side is not whom we want, or speaks no TLS.
        """
        self._setting_up = self._loop.create_future()
        try:
            self.secure(context, server_name=server_name)
        except ValueError:
            self._fail("its tls-server-name is no name")
        await self._setting_up

    def secured(self, error: ssl.SSLError | None) -> None:
        """Of `Wire`."""
        if self._setting_up is None or self._setting_up.done():
            return
        if error is None:
            self._setting_up.set_result(None)
        elif isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            self._fail("the connection was closed during the TLS handshake")
        else:
            self._fail(str(error))

    def _fail(self, said: str) -> None:
        if self._setting_up is None or self._setting_up.done():
            return
        relay = self._proxy.upstream.relay
        if relay is not None and self._relay_answer is not None:
            sentence = (
                f"The HTTP proxy {relay.host}:{relay.port} on the way to {self._proxy.upstream.name} gave no answer"
                f" ({plain(said)}): is it one for HTTP?"
            )
        else:
            sentence = self._proxy._why(said)
        self._setting_up.set_exception(_Unreachable(502, sentence))

    def _relayed(self, data: bytes) -> None:
        assert self._relay_answer is not None
        assert self._setting_up is not None
        self._relay_answer += data
        relay = self._proxy.upstream.relay
        where = f"The HTTP proxy {relay.host}:{relay.port}" if relay else "The HTTP proxy"
        try:
            end = head_end(self._relay_answer)
            if end < 0:
                return
            answer = read_response(bytes(self._relay_answer[:end]))
        except Malformed:
            said = f"{where} on the way to {self._proxy.upstream.name} speaks no HTTP: correct proxy-url."
        else:
            if 200 <= answer.code < 300 and end == len(self._relay_answer):
                self._relay_answer = None
                self._setting_up.set_result(None)
                return
            reason = plain(answer.reason.decode("latin-1"))
            said = (
                f"{where} does not connect to {self._proxy.upstream.name} ({answer.code} {reason}): is our name and"
                " password for it right, and does it allow that host?"
            )
        if not self._setting_up.done():
            self._setting_up.set_exception(_Unreachable(502, said))

    # --- at work ----------------------------------------------------------------------------------------------
    def connected(self) -> None:
        """Of `Wire`."""
        self._proxy._servers.add(self)

    def received(self, data: bytes) -> None:
        """Of `Wire`."""
        if self.exchange is not None:
            self.exchange.answer(data)
        elif self._relay_answer is not None:
            self._relayed(data)
        else:
            self.abort()  # an answer that nobody asked for

    def ended(self, clean: bool) -> None:
        """Of `Wire`."""
        if self.exchange is not None:
            self.exchange.server_ended(clean)
        else:
            self._fail(self.fault or "the connection was closed")
            self.close()

    def lost(self) -> None:
        """Of `Wire`."""
        self._proxy._servers.discard(self)
        self._fail("the connection broke")
        if self.exchange is not None:
            self.last_words()
        if self.exchange is not None:
            self.exchange.server_ended(False)

    def filled(self) -> None:
        """Of `Wire`."""
        if self.exchange is not None:
            self.exchange.flow()

    drained = filled


class _Exchange:
    """A request of the command and its answer."""

    def __init__(self, proxy: Proxy, command: _Command, request: Request) -> None:
        proxy._begun += 1
        self._number = proxy._begun
        self._started = time.time_ns()
        self._clock = time.perf_counter_ns()
        self._trace_id = secrets.token_hex(16)
        self._parent_id = secrets.token_hex(8)
        given = request.first(b"audit-id")
        self._audit_id = given.decode("latin-1")[:_AUDIT_CHARACTERS] if given else str(uuid.uuid4())
        self._own_audit_id = given is None or not given
        self._proxy = proxy
        self._command = command
        self._request = request
        self._body: Body = Chunked() if request.length is None else Sized(request.length)
        self._held: bytearray | None = bytearray()  # of the body, what has come; None: cannot be sent again
        self._upgrade = b"" if request.old or b"upgrade" not in request.connection else request.first(b"upgrade") or b""
        if self._upgrade.lower().startswith(b"h2c"):
            self._upgrade = b""
        self._expects = not request.old and (request.first(b"expect") or b"").lower() == b"100-continue"
        target = request.target.decode("ascii")
        self._watch = request.method == b"GET" and _WATCH.search(target) is not None
        self._target = target[:_TARGET_CHARACTERS]
        self._server: _Server | None = None
        self._credentials: Credentials | None = None
        self._task: asyncio.Task[None] | None = None
        self._head = bytearray()  # of the answer, until it is whole
        self._answer: Response | None = None
        self._answer_body: Body = Sized(0)
        self._unwrap = self._wrap = False
        self._keep = not request.old and b"close" not in request.connection
        self._renewing = self._renewed_once = False
        self._tunnel = self._command_ended = self._server_ended = False
        self._tunnelled = [0, 0]
        self._over = False
        self._code = 0
        self._error = ""

    # --- to the server ----------------------------------------------------------------------------------------
    def begin(self) -> None:
        """Find a connection, and send the head on, with what of the body has come."""
        if self._over:
            return
        upstream = self._proxy.upstream
        if upstream.ready:
            try:
                credentials = upstream.credentials()
            except ReachError as error:
                self._fail(502, str(error))
                return
            server = self._proxy._pooled(credentials.generation, changes=self._request.method not in _SAFE)
            if server is not None:
                self._use(server, credentials)
                return
        self._task = self._proxy._start_task(self._acquire(pooled=True))
        self.flow()

    async def _acquire(self, *, pooled: bool) -> None:
        upstream, proxy = self._proxy.upstream, self._proxy
        try:
            credentials = upstream.credentials() if upstream.ready else await proxy._aside(upstream.credentials)
            changes = self._request.method not in _SAFE
            server = proxy._pooled(credentials.generation, changes=changes) if pooled else None
            if server is None:
                server = await proxy._connect(credentials)
        except ReachError as error:
            self._fail(502, str(error))
        except _Unreachable as error:
            self._fail(error.status, str(error))
        except Exception as error:  # noqa: BLE001 - the command must get an answer, whatever it was
            self._fail(502, self._unexpected(error))
        else:
            if self._over:
                server.close()
            else:
                self._use(server, credentials)

    def _unexpected(self, error: Exception) -> str:
        return (
            f"The proxy of k8s-trace-tui failed at this request ({type(error).__name__}): run the command without"
            " `trace`, and report it."
        )

    def _use(self, server: _Server, credentials: Credentials) -> None:
        self._server, self._credentials = server, credentials
        server.exchange = self
        self._head.clear()
        if not server.open:  # it ended between its handshake and now: so are certificates refused in TLS 1.3
            self._fail(502, self._proxy._why(server.fault or "the connection was closed"))
            return
        server.send(self._head_for(credentials) + bytes(self._held or b""))
        self._held_enough()
        self.flow()

    def _head_for(self, credentials: Credentials) -> bytes:
        request, upstream = self._request, self._proxy.upstream
        lines = [
            b"%b %b%b HTTP/1.1\r\nHost: %b\r\n"
            % (request.method, upstream.path.encode(), request.target, upstream.authority.encode())
        ]
        impersonates = False
        for name, lower, value in request.fields:
            if lower in _OURS or lower in request.connection or lower == b"content-length":
                continue
            if lower.startswith(b"impersonate-"):
                impersonates = True
            elif lower == b"expect" and request.old:
                continue
            elif lower == b"audit-id" and self._own_audit_id:
                continue  # an empty one
            lines.append(b"%b: %b\r\n" % (name, value))
        for own, text in credentials.headers + (() if impersonates else credentials.impersonation):
            lines.append(f"{own}: {text}\r\n".encode("latin-1"))
        lines.append(f"traceparent: 00-{self._trace_id}-{self._parent_id}-01\r\n".encode())
        if self._own_audit_id:
            lines.append(f"Audit-ID: {self._audit_id}\r\n".encode())
        if b"trailers" in (request.first(b"te") or b"").lower():
            lines.append(b"TE: trailers\r\n")
        if request.length is None:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        elif request.length or request.first(b"content-length") is not None:
            lines.append(b"Content-Length: %d\r\n" % request.length)
        if self._upgrade:
            lines.append(b"Connection: Upgrade\r\nUpgrade: %b\r\n" % self._upgrade)
        elif b"te" in request.connection:
            lines.append(b"Connection: TE\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def take(self, data: bytes) -> bytes:
        """More from the command; what is not of this request comes back."""
        if self._over:
            return b""
        if self._tunnel:
            assert self._server is not None
            self._tunnelled[0] += len(data)
            self._server.send(data)
            return b""
        if self._body.done:
            return data
        try:
            used = self._body.feed(data)
        except Malformed as error:
            self._keep = False
            self._fail(error.status, f"The proxy of k8s-trace-tui refuses this request: {_within(error)}.")
            return b""
        piece = data if used == len(data) else data[:used]
        if self._held is not None:
            self._held += piece
        if self._server is not None:
            self._server.send(piece)
            self._held_enough()
        return data[used:]

    def _held_enough(self) -> None:
        if self._held is not None and (len(self._held) > _HELD_BYTES or self._answer is not None):
            self._held = None

    def flow(self) -> None:
        """Let each side read as fast as the other takes it."""
        if self._over:
            return
        server, command = self._server, self._command
        if server is None:
            wait = self._held is not None and len(self._held) > _HELD_BYTES
        else:
            wait = server.full
            if command.full or self._renewing:
                server.pause()
            else:
                server.resume()
        if wait or len(command.waiting) > _HELD_BYTES:
            command.pause()
        else:
            command.resume()

    # --- from the server --------------------------------------------------------------------------------------
    def answer(self, data: bytes) -> None:
        """More from the server."""
        if self._over:
            return
        if self._tunnel:
            self._tunnelled[1] += len(data)
            self._command.send(data)
        elif self._answer is not None:
            self._pass(data)
        else:
            self._head += data
            try:
                self._read_heads()
            except Malformed as error:
                self._fail(
                    502,
                    f"What answers as the API server of {self._proxy.upstream.name} speaks no proper HTTP"
                    f" ({_within(error)}): is it a proxy?",
                )

    def _read_heads(self) -> None:
        while not self._over:
            end = head_end(self._head)
            if end < 0:
                return
            response = read_response(bytes(self._head[:end]))
            del self._head[:end]
            if response.code == 101:
                self._open(response)
                return
            if response.code >= 200:
                break
            if not self._request.old:
                self._command.send(self._head_of(response))
        rest = bytes(self._head)
        self._head.clear()
        if response.code == 401 and not self._renewed_once:
            self._renewed_once = self._renewing = True
            self.flow()
            self._task = self._proxy._start_task(self._renew(response, rest))
        else:
            self._begin_answer(response, rest)

    async def _renew(self, response: Response, rest: bytes) -> None:
        """The server does not know us: once, with other credentials if there are any; else that is the answer."""
        assert self._credentials is not None
        generation = self._credentials.generation
        other = False
        try:
            other = await self._proxy._aside(lambda: self._proxy.upstream.renewed(generation))
        except ReachError as error:
            self._error = str(error)
        except Exception as error:  # noqa: BLE001 - the server's answer must go on, whatever it was
            self._error = self._unexpected(error)
        self._renewing = False
        if self._over:
            return
        server = self._server
        if other and self._held is not None and self._body.done:
            if server is not None:
                server.exchange = None
                server.abort()
            self._server = None
            self._server_ended = False
            await self._acquire(pooled=True)
            return
        self._begin_answer(response, rest)
        if self._server_ended and not self._over:
            self.server_ended(False)
        self.flow()

    def _begin_answer(self, response: Response, rest: bytes) -> None:
        if response.code in CODES:
            for _, lower, value in response.fields:
                if lower == b"location" and not stays(location := value.decode("latin-1")):
                    # whoever follows it sends this proxy's token along, and to that port the token opens our identity
                    self._fail(502, not_passed_on(self._proxy.upstream.name, response.code, location))
                    return
        request = self._request
        self._answer, self._code = response, response.code
        self._held = None
        if request.method == b"HEAD" or response.code in (204, 304):
            self._answer_body = Sized(0)
        elif response.chunked:
            self._answer_body = Chunked()
            self._unwrap = request.old
        elif response.length is not None:
            self._answer_body = Sized(response.length)
        else:
            self._answer_body = UntilEnd()
            self._wrap = not request.old
        if self._expects and not self._body.done:
            self._keep = False  # whether the body comes is not known
        self._pass(rest, self._head_of(response))

    def _head_of(self, response: Response) -> bytes:
        lines = [b"HTTP/1.1 %d %b\r\n" % (response.code, response.reason)]
        for name, lower, value in response.fields:
            if lower not in _HOP and (lower not in response.connection or lower == b"content-length"):
                lines.append(b"%b: %b\r\n" % (name, value))
        if response.code == 101:
            upgrade = next((value for _, lower, value in response.fields if lower == b"upgrade"), self._upgrade)
            lines.append(b"Connection: Upgrade\r\nUpgrade: %b\r\n" % upgrade)
        elif response.code >= 200:
            if self._wrap or (response.chunked and not self._unwrap):
                lines.append(b"Transfer-Encoding: chunked\r\n")
            if not self._keep:
                lines.append(b"Connection: close\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _pass(self, data: bytes, head: bytes = b"") -> None:
        """More of the answer's body, in one write with its head where that comes first."""
        body, used, came = self._answer_body, 0, len(data)
        if data:
            out: list[bytes] | None = [] if self._wrap or self._unwrap else None
            try:
                used = body.feed(data, out)
            except Malformed as error:
                self._command.send(head)
                self._cut(f"The answer of {self._proxy.upstream.name} is broken in the middle: {_within(error)}.")
                return
            if out is None:
                data = data if used == len(data) else data[:used]
            else:
                data = b"".join(out)
                if data and self._wrap:
                    data = b"%x\r\n%b\r\n" % (len(data), data)
        if head or data:
            self._command.send(head + data if head else data)
        if body.done:
            self._finish(reusable=used == came)

    def _open(self, response: Response) -> None:
        if not self._upgrade or not self._body.done:
            raise Malformed("It changes the protocol unasked.")
        assert self._server is not None
        self._tunnel, self._code, self._held = True, 101, None
        self._command.send(self._head_of(response))
        for data, way, wire in ((self._head, 1, self._command), (self._command.waiting, 0, self._server)):
            if data:
                self._tunnelled[way] += len(data)
                wire.send(bytes(data))
                data.clear()
        self.flow()

    # --- ends -------------------------------------------------------------------------------------------------
    def server_ended(self, clean: bool) -> None:
        """The server sends no more."""
        server = self._server
        if self._over or server is None:
            return
        if self._renewing:
            self._server_ended = True
        elif self._tunnel:
            self._tunnel_ends(clean, self._command, command=False)
        elif self._answer is None:
            again = server.reused and not self._head and self._body.done and self._held is not None
            if again and self._request.method in _SAFE:
                server.exchange = None
                server.abort()
                self._server = None
                self._task = self._proxy._start_task(self._acquire(pooled=False))
            elif server.fault:
                self._fail(502, self._proxy._why(server.fault))
            else:
                safe = self._request.method in _SAFE
                then = (
                    ": is it restarting?" if safe else ", so a change may have been made or not: look, then try again."
                )
                url = self._proxy.upstream.url
                self._fail(502, f"The API server {url} closed the connection before it answered{then}")
        elif isinstance(self._answer_body, UntilEnd) and clean:
            if self._wrap:
                self._command.send(b"0\r\n\r\n")
            self._finish(reusable=False)
        else:
            self._cut(f"The API server {self._proxy.upstream.url} broke off its answer in the middle.")

    def command_ended(self, clean: bool) -> bool:
        """The command sends no more. False: then it wants nothing any more, either."""
        if not self._tunnel or self._server is None:
            return False
        self._tunnel_ends(clean, self._server, command=True)
        return True

    def _tunnel_ends(self, clean: bool, other: Wire, *, command: bool) -> None:
        before = self._command_ended if command else self._server_ended
        if command:
            self._command_ended = True
        else:
            self._server_ended = True
        if before:  # it said its end, and is gone now: for what the other side still sends there is nobody
            self._end(self._close_both)
        elif not clean:
            if not command:
                self._error = f"The API server {self._proxy.upstream.url} cut the connection."
            self._end(self._cut_both)
        elif self._command_ended and self._server_ended:
            self._end(self._close_both)
        else:
            other.finish()

    def _close_both(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.exchange = None
            server.close()
        self._command.done(keep=False)

    def gone(self, sentence: str) -> None:
        """The command has left its connection."""
        if not (self._watch and self._answer is not None) and not self._tunnel:
            self._error = self._error or sentence
        self._end(self._abort_server)

    def _fail(self, status: int, sentence: str) -> None:
        """Say it to the command as the API server would, or cut it off where an answer has begun."""
        if self._answer is not None:
            self._cut(sentence)
            return
        keep = self._keep and self._body.done
        text = _status(status, sentence, keep=keep, body=self._request.method != b"HEAD")
        self._error, self._code = sentence, status

        def end() -> None:
            self._abort_server()
            self._command.send(text)
            self._command.done(keep=keep)

        self._end(end)

    def _cut(self, sentence: str) -> None:
        self._error = sentence
        self._end(self._cut_both)

    def _finish(self, *, reusable: bool) -> None:
        answer = self._answer
        assert answer is not None
        reusable = reusable and not answer.old and b"close" not in answer.connection
        keep = self._keep and self._body.done

        def end() -> None:
            server, self._server = self._server, None
            if server is not None:
                server.exchange = None
                if not self._body.done:
                    server.abort()
                elif reusable and server.open:
                    self._proxy._release(server)
                else:
                    server.close()
            self._command.done(keep=keep)

        self._end(end)

    def _cut_both(self) -> None:
        self._abort_server()
        self._command.cut()

    def _abort_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.exchange = None
            server.abort()

    def _end(self, close: Callable[[], object]) -> None:
        if self._over:
            return
        self._over = True
        if self._task is not None and self._task is not asyncio.current_task(self._proxy._loop):
            self._task.cancel()
        up, down = self._tunnelled
        self._proxy._record(
            Seen(
                self._number,
                self._trace_id,
                self._parent_id,
                self._audit_id,
                self._request.method.decode("ascii")[:_METHOD_CHARACTERS],
                self._target,
                self._started,
                time.perf_counter_ns() - self._clock,
                self._code,
                self._body.taken + up,
                self._answer_body.taken + down,
                self._error,
                self._tunnel,
                self._watch,
            )
        )
        close()


def _status(code: int, message: str, *, keep: bool, body: bool) -> bytes:
    """An answer of ours in the form that every client of the API understands."""
    words, reason = _REASONS.get(code, ("Error", "InternalError"))
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
    content = json.dumps(status).encode()
    head = f"HTTP/1.1 {code} {words}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n" + (
        "\r\n" if keep else "Connection: close\r\n\r\n"
    )
    return head.encode() + (content if body else b"")


def _within(error: Malformed) -> str:
    """What it says, inside a sentence."""
    text = str(error).rstrip(".")
    return text[:1].lower() + text[1:]


def _listener(port: int) -> socket.socket:
    """On that port of loopback, or where it is taken on another.

    Raises:
        OSError: there is none.
    """
    if port:
        with suppress(OSError):
            return socket.create_server((ADDRESS, port), backlog=4096)
    return socket.create_server((ADDRESS, 0), backlog=4096)


def _keep_alive(plug: socket.socket) -> None:
    """A server that vanished is noticed after a minute, also by a watch that only waits."""
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        with suppress(AttributeError, OSError):
            plug.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
