"""The OTLP/gRPC trace service: bytes in, an acknowledgement after the commit.

Every listener is a gRPC server of its own, so that it can go away while the others serve; threads and limits are
shared. Errors are those of the OTLP 1.5 specification: INVALID_ARGUMENT for what can never be read, partial_success
where some spans are bad, and UNAVAILABLE with a RetryInfo where the sender should come back.

A request's message is read only when there is room for it: before that it costs no memory beyond HTTP/2's own
window. That is why the handlers are stream handlers, although a client sends exactly one message.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn
from urllib.parse import unquote

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its warnings would go to the terminal

import grpc
import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from receiver.ingest.address import Address, ListenError, NotHere, claim, release
from receiver.ingest.decode import Decoded, Malformed, decode
from receiver.store.chunk import Chunk
from receiver.store.writer import Full, NeverFits, Writer

METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
MAX_MESSAGE: Final = 16 << 20
"""Bytes of a request, unpacked; what is larger gets RESOURCE_EXHAUSTED from gRPC itself."""
COMMIT_SECONDS: Final = 5.0
"""A sender waits this long for its commit, half of the usual export timeout of 10 s."""
_SLOW_SENDER_SECONDS: Final = 5.0
_TURN_SECONDS: Final = 5.0
"""A request waits so long for its turn to be read."""
_LOOKAHEAD: Final = 64 << 10  # bytes of a message that a connection may hold before it is read
_SENDERS: Final = 200
_PORT_TRIES: Final = 5
_PEERS: Final = 512

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What requests may take at once; beyond it a sender is told to come back."""

    requests: int = 32
    reading: int = 8  # of them; gRPC gives room for all of a message when it is asked for
    bytes: int = 64 << 20
    decoding: int = 2


@dataclass(slots=True)
class Sender:
    """Who sent spans: one connection's peer and one resource."""

    peer: str
    service: str
    instance: str
    source: str
    agent: str  # the exporter, as gRPC's user agent tells it
    spans: int = 0
    last: int = 0  # ns since the epoch

    def to_json(self) -> dict[str, Any]:
        """As in the control socket's `status`."""
        return {
            "peer": self.peer,
            "service": self.service,
            "instance": self.instance,
            "source": self.source,
            "spans": self.spans,
            "last": self.last,
            "agent": self.agent,
        }


@dataclass(slots=True)
class Tally:
    """What came in, since the receiver started. Spans are counted once they are stored."""

    accepted: int = 0  # spans
    rejected: int = 0  # spans
    refused: int = 0  # requests answered with UNAVAILABLE
    malformed: int = 0  # requests answered with INVALID_ARGUMENT
    broken_off: int = 0
    """Requests that ended before their message was whole: larger than MAX_MESSAGE (also unpacked), given up by the
    sender or taken from it because it was too slow. gRPC does not tell which."""
    requests: int = 0
    bytes_in: int = 0
    _senders: OrderedDict[tuple[str, str, str, str], Sender] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arrived(self, size: int) -> None:
        """A request of so many bytes was read."""
        with self._lock:
            self.requests += 1
            self.bytes_in += size

    def stored(self, chunk: Chunk | None, rejected: int, agent: str) -> None:
        """A request was answered with success."""
        with self._lock:
            self.rejected += rejected
            if chunk is None:
                return
            self.accepted += len(chunk.spans)
            counts = np.bincount(chunk.spans["resource"], minlength=len(chunk.resources)).tolist()
            for resource, spans in zip(chunk.resources[:_SENDERS], counts, strict=False):
                key = (chunk.peer, resource.service, resource.instance, chunk.source)
                sender = self._senders.pop(key, None) or Sender(*key, agent=agent)
                sender.spans += spans
                sender.last = chunk.received
                self._senders[key] = sender
            while len(self._senders) > _SENDERS:
                self._senders.popitem(last=False)

    def refuse(self) -> None:
        """A sender was told to come back."""
        with self._lock:
            self.refused += 1

    def break_off(self) -> None:
        """A request ended before its message was whole."""
        with self._lock:
            self.broken_off += 1

    def malform(self) -> None:
        """A request could not be read."""
        with self._lock:
            self.malformed += 1

    def senders(self) -> list[Sender]:
        """The last ones first."""
        with self._lock:
            return list(reversed(self._senders.values()))


@dataclass(slots=True)
class Listener:
    """An address that spans arrive at, or the several that a host name stands for."""

    name: str
    addresses: tuple[str, ...]  # as bound: no names, and the port that was picked for port 0
    tls: bool
    error: str | None = None
    server: grpc.Server | None = None
    bound: Address | None = None

    @property
    def address(self) -> str:
        """The first of them."""
        return self.addresses[0]

    def to_json(self) -> list[dict[str, Any]]:
        """As in the control socket's `status`: an entry an address."""
        return [
            {"name": self.name, "address": address, "tls": self.tls, "error": self.error} for address in self.addresses
        ]


class Ingest:
    """All listeners of one receiver, and what they share."""

    def __init__(
        self,
        writer: Writer,
        tally: Tally,
        *,
        credentials: grpc.ServerCredentials | None = None,
        insecure: bool = False,
        limits: Limits = Limits(),
    ) -> None:
        """`insecure` allows addresses beyond this machine without `credentials`."""
        self._writer = writer
        self._tally = tally
        self._credentials = credentials
        self._insecure = insecure
        self._limits = limits
        self._decoding = threading.BoundedSemaphore(limits.decoding)
        self._reads = threading.BoundedSemaphore(limits.reading)
        self._lock = threading.Lock()
        self._requests = 0
        self._bytes = 0
        self._reading: OrderedDict[int, tuple[float, grpc.ServicerContext]] = OrderedDict()
        self._pool = ThreadPoolExecutor(limits.requests, thread_name_prefix="export")
        self._refusing = ThreadPoolExecutor(1, thread_name_prefix="refuse")
        self._peers: dict[str, tuple[str, str]] = {}
        self._listeners: list[Listener] = []
        self._stopped = False

    # -- listeners ------------------------------------------------------------------------------------
    @property
    def listeners(self) -> list[Listener]:
        """All of them, also those that could not be opened."""
        with self._lock:
            return list(self._listeners)

    def listen(self, name: str, text: str) -> Listener:
        """Open an address.

        Args:
            name: where its spans come from; "" for `local` on loopback, else the address.
            text: HOST:PORT, [IPV6]:PORT or unix:/path; port 0 picks one.

        Raises:
            ListenError: it cannot be opened.
        """
        address = Address.parse(text)
        address.check(secure=self._credentials is not None, insecure=self._insecure)
        for last in (False,) * _PORT_TRIES + (True,):
            places = _claim(address.places())
            for place in places:  # a name may mean another address now than when it was looked at
                place.check(secure=self._credentials is not None, insecure=self._insecure)
            server, listener = self._listener(name, text)
            try:
                bound = self._bind(server, places, text)
            except ListenError:
                server.stop(None)
                if last or address.path or address.port or len(places) == 1:
                    raise
                continue  # the port that was picked for 127.0.0.1 is taken on [::1]
            break
        listener.bound = bound[0]
        listener.addresses = tuple(map(str, bound))
        listener.name = name or ("local" if address.local and not address.path else listener.address)
        server.start()
        with self._lock:
            self._listeners.append(listener)
        return listener

    def _bind(self, server: grpc.Server, places: Sequence[Address], text: str) -> list[Address]:
        """Bind all of these, on one port where they leave that open."""
        bound: list[Address] = []
        for place in places:
            if bound and not place.port:
                place = place.at(bound[0].port)
                claim(place)
            try:
                bound.append(place.at(place.bind(server, self._credentials)))
            except RuntimeError as error:
                _log.warning("binding %s: %s", place, error)
                raise ListenError(f"{text} cannot be opened: another program may have taken it this moment.") from error
        return bound

    def _listener(self, name: str, text: str) -> tuple[grpc.Server, Listener]:
        server = grpc.server(
            self._pool,
            options=(
                ("grpc.so_reuseport", 0),  # else two receivers share a port, and the spans, without an error
                ("grpc.max_receive_message_length", MAX_MESSAGE),
                # What is not read yet stays with its sender, however fast that one is.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", _LOOKAHEAD),
                ("grpc.max_concurrent_streams", 2 * self._limits.requests),
                ("grpc.keepalive_time_ms", 60_000),  # a sender that vanished gives its connection back
                ("grpc.keepalive_timeout_ms", 20_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ),
        )
        listener = Listener(name, (text,), self._credentials is not None, server=server)
        server.add_generic_rpc_handlers((_Handlers(self, listener),))
        return server, listener

    def note(self, name: str, text: str, error: str) -> None:
        """Remember an address that could not be opened, so that the status tells it."""
        with self._lock:
            self._listeners.append(Listener(name or text, (text,), self._credentials is not None, error))

    def unlisten(self, name: str, address: str | None = None) -> bool:
        """Close the listeners of a name, or the one of a name and address; requests under way are finished.

        Returns:
            Whether there were any.
        """
        with self._lock:
            gone = [one for one in self._listeners if one.name == name and address in (None, *one.addresses)]
            self._listeners = [one for one in self._listeners if one not in gone]
        _close(gone, grace=COMMIT_SECONDS)
        return bool(gone)

    def stop(self, grace: float) -> None:
        """Close everything; requests under way get `grace` seconds."""
        with self._lock:
            self._stopped = True
            gone, self._listeners = self._listeners, []
        _close(gone, grace)
        self._pool.shutdown(wait=False)
        self._refusing.shutdown(wait=False)

    # -- requests -------------------------------------------------------------------------------------
    def admit(self) -> bool:
        """Take a place for a request, False when there is none. Called by gRPC's own thread: must not wait."""
        with self._lock:
            if self._requests < self._limits.requests and not self._stopped:
                self._requests += 1
                return True
        self._end_slow()
        return False

    def _end_slow(self) -> None:
        """Those who take ever so long to send a request must not keep others from sending theirs."""
        late = time.monotonic() - _SLOW_SENDER_SECONDS
        with self._lock:
            slow = [context for since, context in self._reading.values() if since < late]
        for context in slow:
            context.cancel()  # type: ignore[no-untyped-call]

    def refuse(self, context: grpc.ServicerContext, why: str, seconds: int = 1) -> NoReturn:
        """Answer UNAVAILABLE and when to come back."""
        self._tally.refuse()
        context.set_trailing_metadata((("grpc-status-details-bin", retry_info(why, seconds)),))
        context.abort(grpc.StatusCode.UNAVAILABLE, why)

    def export(self, messages: Iterator[bytes], context: grpc.ServicerContext, listener: Listener) -> bytes:
        """One request, from its first byte to its answer. Gives back the place that `admit` took."""
        size = 0
        try:
            body = self._read(messages, context)
            size = len(body)
            self._tally.arrived(size)
            with self._lock:
                crowded = self._bytes > 0 and self._bytes + size > self._limits.bytes
                self._bytes += size
            if crowded:
                self.refuse(context, "Too many bytes are waiting to be stored.")
            return self._store(body, context, listener)
        finally:
            with self._lock:
                self._requests -= 1
                self._bytes -= size

    def _read(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        until = time.monotonic() + _TURN_SECONDS
        while not self._reads.acquire(timeout=0.25):
            self._end_slow()
            if time.monotonic() > until:
                self.refuse(context, "Too many requests are being read.")
        key = id(context)
        try:
            with self._lock:
                self._reading[key] = (time.monotonic(), context)
            try:
                body = next(messages, None)
            except grpc.RpcError:
                self._tally.break_off()
                raise
            finally:
                with self._lock:
                    del self._reading[key]
        finally:
            self._reads.release()
        if body is None:
            self._tally.break_off()  # what gRPC refused before this was reached ends like this, too
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The request has no message.")
        return body

    def _store(self, body: bytes, context: grpc.ServicerContext, listener: Listener) -> bytes:
        raw_peer = context.peer()
        known = self._peers.get(raw_peer)
        peer, agent = known or self._meet(raw_peer, context)
        if not self._decoding.acquire(timeout=COMMIT_SECONDS):
            self.refuse(context, "The receiver is busy.")
        try:
            decoded = decode(body, source=listener.name, peer=peer, received=time.time_ns())
        except Malformed as error:
            self._tally.malform()
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            self._decoding.release()
        if decoded.chunk is not None:
            self._commit(decoded.chunk, context)
        self._tally.stored(decoded.chunk, decoded.rejected, agent)
        return _answer(decoded)

    def _commit(self, chunk: Chunk, context: grpc.ServicerContext) -> None:
        try:
            pending = self._writer.submit(chunk)
            stored = pending.wait(COMMIT_SECONDS)
        except NeverFits as error:
            self._tally.malform()
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Full as error:
            self.refuse(context, str(error), 5 if self._writer.disk_full else 1)
        if not stored:
            # It may still be stored: then the sender's second try is a duplicate, which readers drop.
            self._writer.withdraw(pending)
            self.refuse(context, f"The disk took more than {COMMIT_SECONDS:.0f} s to store the request.", 5)

    def _meet(self, raw_peer: str, context: grpc.ServicerContext) -> tuple[str, str]:
        """Peer and agent of a connection, remembered so that only its first request pays for them."""
        agent = ""
        for key, value in context.invocation_metadata():
            if key == "user-agent":
                agent = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        if len(self._peers) >= _PEERS:
            self._peers.clear()
        found = self._peers[raw_peer] = (peer_name(raw_peer), agent[:256])
        return found


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """The one method of a listener."""

    def __init__(self, ingest: Ingest, listener: Listener) -> None:
        self._ingest = ingest
        # gRPC runs a behaviour in the pool it carries: refusing must not wait for a place in the other one.
        refuse = _Refuse(ingest)
        self._serve = grpc.stream_unary_rpc_method_handler(
            lambda messages, context: ingest.export(messages, context, listener)
        )
        self._refuse = grpc.stream_unary_rpc_method_handler(refuse)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler for a call, None where we do not serve the method (UNIMPLEMENTED)."""
        if handler_call_details.method != METHOD:
            return None
        return self._serve if self._ingest.admit() else self._refuse


class _Refuse:
    """Answers without reading the message."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest
        self.experimental_thread_pool = ingest._refusing

    def __call__(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        self._ingest.refuse(context, "Too many requests are waiting to be stored.")


def _claim(places: Sequence[Address]) -> list[Address]:
    """Those of the addresses that this machine has, found free.

    Raises:
        NotHere: it has none of them.
        ListenError: one is taken or not allowed.
    """
    here: list[Address] = []
    missing: NotHere | None = None
    for place in places:
        try:
            claim(place)
        except NotHere as error:
            missing = error
        else:
            here.append(place)
    if missing is not None and not here:
        raise missing
    return here


def _close(listeners: Sequence[Listener], grace: float) -> None:
    ends = [one.server.stop(grace) for one in listeners if one.server is not None]
    for end in ends:
        end.wait(grace + 1)
    for one in listeners:
        if one.bound is not None:
            release(one.bound)


def _answer(decoded: Decoded) -> bytes:
    """The serialised ExportTraceServiceResponse. A reason without rejected spans is a warning, as OTLP has it."""
    if not decoded.reason:
        return b""
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = decoded.rejected
    answer.partial_success.error_message = decoded.reason
    return answer.SerializeToString()


def peer_name(raw: str) -> str:
    """A peer as gRPC names it (`ipv6:%5B::1%5D:4317`, `ipv4:...`, `unix:`) as `[::1]:4317`, `...` or `unix`."""
    kind, _, rest = unquote(raw).partition(":")
    return (rest if kind in ("ipv4", "ipv6") and rest else kind)[:128]


def _field(number: int, payload: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + _varint(len(payload)) + payload


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def retry_info(message: str, seconds: int) -> bytes:
    """A google.rpc.Status of UNAVAILABLE with a RetryInfo, serialised (googleapis google/rpc/status.proto and
    error_details.proto). By hand: the package with these messages is needed for nothing else."""
    delay = b"\x08" + _varint(seconds)  # Duration.seconds
    info = _field(1, b"type.googleapis.com/google.rpc.RetryInfo") + _field(2, _field(1, delay))
    code = int(grpc.StatusCode.UNAVAILABLE.value[0])
    return b"\x08" + _varint(code) + _field(2, message.encode()[:1024]) + _field(3, info)
