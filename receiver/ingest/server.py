"""The OTLP/gRPC trace service: bytes in, an acknowledgement after the commit.

Every listener is a gRPC server of its own, so that it can go away while the others serve; threads and limits are
shared. Errors are those of the OTLP 1.5 specification: INVALID_ARGUMENT for what can never be read, partial_success
where some spans are bad, and UNAVAILABLE with a RetryInfo where the sender should come back.

A request's message is read only when there is room for it: before that it costs no memory beyond HTTP/2's own
window. That is why the handlers are stream handlers, although a client sends exactly one message.

Everything that requests take is divided between their senders (`shares`): turns to be read, places, bytes, decoding,
the way to the disk. Small requests and large ones take nothing from each other.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn
from urllib.parse import quote, unquote

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its warnings would go to the terminal

import grpc
import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from receiver.ingest.acceptor import Acceptor, Route
from receiver.ingest.accounts import Accounts
from receiver.ingest.address import Address, ListenError, NotHere, release
from receiver.ingest.callers import Caller, Callers
from receiver.ingest.decode import Decoded, Malformed, decode
from receiver.ingest.large import LARGE, Gone, LargeRequests
from receiver.ingest.shares import Place, Shares
from receiver.ingest.threads import Threads
from receiver.store.chunk import Chunk
from receiver.store.repack import size_of
from receiver.store.writer import QUEUE_BYTES, Full, NeverFits, Writer

METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
MAX_MESSAGE: Final = 16 << 20
"""Bytes of a request, unpacked; what is larger gets RESOURCE_EXHAUSTED from gRPC itself."""
COMMIT_SECONDS: Final = 5.0
"""A sender waits this long for its commit, half of the usual export timeout of 10 s."""
_SLOW_SENDER_SECONDS: Final = 5.0
"""A message that takes longer gives way to others of its sender."""
_MESSAGE_SECONDS: Final = 60.0
"""No message takes longer than this."""
_GRACE_SECONDS: Final = 0.2
"""Nobody loses its turn to be read within this time of getting it."""
_SENDERS_TURN_SECONDS: Final = 0.5
"""... and after this it gives way to a sender that has none, where there are more senders than turns."""
_TURN_SECONDS: Final = 5.0
"""A request waits so long for its turn to be read."""
_LOOKAHEAD: Final = 256 << 10
"""Bytes of a message that may come before it is read; the acceptor bounds for how many streams."""
_LOOKAHEAD_TLS: Final = 64 << 10
"""... where it sees no streams."""
_STREAMS: Final = 8
"""Requests under way that a connection may have. The acceptor must not hold one back before all of its sender's
streams are there: what it waits for would be the data that comes behind them.
"""
_SENDERS: Final = 200
_PORT_TRIES: Final = 5
_PEERS: Final = 512
_THREADS: Final = 256
_WAITING: Final = 160
"""Requests whose message nobody reads yet, each with a thread."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What requests may take at once; beyond it a sender is told to come back."""

    requests: int = 32  # of at most LARGE bytes, whose message is here
    reading: int = 8  # before that; gRPC gives room for all of a message when it is asked for
    bytes: int = 64 << 20  # of larger ones
    decoding: int = 2  # small ones; a large one has a process of its own


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
    bound: tuple[Address, ...] = ()
    route: Route | None = None

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
        self.accounts = Accounts()
        self._callers = Callers(certificates=credentials is not None)
        self._waiting = Shares(_WAITING, patient=False)
        self._reading = Shares(limits.reading, grace=_GRACE_SECONDS, turn=_SENDERS_TURN_SECONDS)
        self._places = Shares(limits.requests, patient=False)
        self._large_bytes = Shares(limits.bytes, patient=False)
        self._decoding = Shares(limits.decoding)
        self._decoding_large = Shares(1)
        self._room = Shares(QUEUE_BYTES // 3)
        self._large_room = Shares(QUEUE_BYTES - QUEUE_BYTES // 3)
        self._large = LargeRequests()
        self._lock = threading.Lock()
        self._pool = Threads(_THREADS, "export")
        self._acceptor = Acceptor(self._callers.at, self.accounts, self._now_and_then)
        self._agents: dict[str, str] = {}
        self._listeners: list[Listener] = []
        self._acceptor.start()

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
        places = address.places()
        for place in places:  # a name may mean another address now than when it was looked at
            place.check(secure=self._credentials is not None, insecure=self._insecure)
        sockets, bound = _opened(places)
        listener = Listener(name, tuple(map(str, bound)), self._credentials is not None, bound=bound)
        listener.name = name or ("local" if address.local and not address.path else listener.address)
        try:
            listener.route = self._acceptor.route(sockets, tls=listener.tls)
            listener.server = self._server(listener, listener.route.inner)
        except (RuntimeError, OSError) as error:
            for one in sockets:
                one.close()
            for place in bound:
                release(place)
            raise ListenError(
                f"{text} cannot be opened because the receiver has no place for a socket of its own behind it"
                f" ({error}): set TMPDIR to a folder with a short path that it may write to."
            ) from error
        listener.server.start()
        self._acceptor.accept(listener.route)
        with self._lock:
            self._listeners.append(listener)
        return listener

    def _server(self, listener: Listener, path: str) -> grpc.Server:
        """gRPC behind a listener, at a path of ours.

        Raises:
            RuntimeError: it does not listen there.
        """
        server = grpc.server(
            self._pool,  # type: ignore[arg-type]  # of which gRPC needs `submit` only
            options=(
                ("grpc.max_receive_message_length", MAX_MESSAGE),
                # What is not read yet stays with its sender, however fast that one is.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", _LOOKAHEAD if self._credentials is None else _LOOKAHEAD_TLS),
                ("grpc.max_concurrent_streams", _STREAMS if self._credentials is None else 2 * self._limits.requests),
                # It refuses also a stream that is within these, when earlier ones are not cleared away yet.
                ("grpc.http.overload_protection", int(self._credentials is not None)),
                ("grpc.server_handshake_timeout_ms", 10_000),  # TLS, and HTTP/2's settings
                ("grpc.max_connection_idle_ms", 600_000),
                ("grpc.max_allowed_incoming_connections", 2 * self._acceptor.most),
                ("grpc.keepalive_time_ms", 60_000),  # a sender that vanished gives its connection back
                ("grpc.keepalive_timeout_ms", 20_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ),
        )
        server.add_generic_rpc_handlers((_Handlers(self, listener),))
        at = f"unix:{quote(path)}"  # gRPC takes it for a part of a URI
        if self._credentials is not None:
            server.add_secure_port(at, self._credentials)
        else:
            server.add_insecure_port(at)
        return server

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
        self._close(gone, COMMIT_SECONDS)
        return bool(gone)

    def stop(self, grace: float) -> None:
        """Close everything; requests under way get `grace` seconds."""
        with self._lock:
            gone, self._listeners = self._listeners, []
        self._close(gone, grace)
        self._acceptor.stop()
        self._pool.shutdown(wait=False)
        self._large.close()
        self._callers.owners.close()

    def _close(self, listeners: Sequence[Listener], grace: float) -> None:
        for one in listeners:
            if one.route is not None:
                self._acceptor.accept_no_more(one.route)
        ends = [one.server.stop(grace) for one in listeners if one.server is not None]
        for end in ends:
            end.wait(grace + 1)
        for one in listeners:
            if one.route is not None:
                self._acceptor.end(one.route)
            for address in one.bound:
                release(address)

    # -- who takes how much -----------------------------------------------------------------------------
    def shares(self) -> list[dict[str, Any]]:
        """Each sender's use of the receiver, as in the control socket's `status`."""
        return self.accounts.to_json(
            self._acceptor.count(), Counter(self._waiting.held()) + Counter(self._reading.held())
        )

    def _now_and_then(self) -> None:
        self._reading.cut_older(_MESSAGE_SECONDS)
        self._large.rest()

    # -- requests -------------------------------------------------------------------------------------
    def refuse(self, context: grpc.ServicerContext, why: str, seconds: int = 1) -> NoReturn:
        """Answer UNAVAILABLE and when to come back."""
        self._tally.refuse()
        context.set_trailing_metadata((("grpc-status-details-bin", retry_info(why, seconds)),))
        context.abort(grpc.StatusCode.UNAVAILABLE, why)

    def _crowded(self, context: grpc.ServicerContext, caller: Caller, shares: Shares, cost: int, why: str) -> NoReturn:
        """Refuse for want of room, to the account of who took it."""
        self.accounts.refused(caller.sender, within_share=shares.within_share(caller.sender, cost))
        self.refuse(context, why)

    def export(self, messages: Iterator[bytes], context: grpc.ServicerContext, listener: Listener) -> bytes:
        """One request, from its first byte to its answer."""
        connection = self._acceptor.connection(unquote(context.peer())[5:])
        caller = self._callers.of(context, connection)
        if connection is not None:
            self._acceptor.call(connection)
        place: Place | None = None
        shares = self._places
        try:
            reading = self._turn(context, caller)
            try:
                body = self._read(messages, context, caller, reading)
                size = len(body)
                self._tally.arrived(size)
                self.accounts.arrived(caller.sender, size)
                # The turn to be read is held until there is a place, so that no more messages wait for one.
                large = size > LARGE
                shares, cost = (self._large_bytes, size) if large else (self._places, 1)
                place = shares.take(caller.sender, caller.service, cost, timeout=_TURN_SECONDS)
                if place is None:
                    why = "Too many bytes are waiting to be stored." if large else _TOO_MANY
                    self._crowded(context, caller, shares, cost, why)
            finally:
                self._reading.give_back(reading)
            return self._store(body, context, listener, caller)
        finally:
            if place is not None:
                shares.give_back(place)
            if connection is not None:
                self._acceptor.call_ended(connection)

    def _turn(self, context: grpc.ServicerContext, caller: Caller) -> Place:
        """Wait for a turn to be read. Whoever has one may lose it: until a message is here, nothing is lost by it."""
        who, cut = (caller.sender, caller.connection), context.cancel
        reading = self._reading.take(*who, cut=cut, slow=_SLOW_SENDER_SECONDS)
        if reading is not None:
            return reading
        waiting = self._waiting.take(*who, cut=cut, slow=_SLOW_SENDER_SECONDS)
        if waiting is None:
            self._crowded(context, caller, self._waiting, 1, _TOO_MANY)
        try:
            reading = self._reading.take(
                *who, timeout=_TURN_SECONDS, cut=cut, slow=_SLOW_SENDER_SECONDS, wanted=context.is_active
            )
        finally:
            self._waiting.give_back(waiting)
        if reading is None:
            if not context.is_active():  # nobody waits for an answer
                self._tally.break_off()
                context.abort(grpc.StatusCode.CANCELLED, "The sender took the request back.")
            self._crowded(context, caller, self._reading, 1, "Too many requests are being read.")
        return reading

    def _read(self, messages: Iterator[bytes], context: grpc.ServicerContext, caller: Caller, reading: Place) -> bytes:
        try:
            body = next(messages, None)
        except grpc.RpcError:
            self._tally.break_off()
            if reading.was_cut:
                self.accounts.cut(caller.sender)
            raise
        if body is None:
            self._tally.break_off()  # what gRPC refused before this was reached ends like this, too
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The request has no message.")
        return body

    def _store(self, body: bytes, context: grpc.ServicerContext, listener: Listener, caller: Caller) -> bytes:
        try:
            decoded = self._decode(body, context, listener, caller)
        except Malformed as error:
            self._tally.malform()
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Gone:
            self.refuse(context, "The receiver did not come to the end of the request.", 5)
        if decoded.chunk is not None:
            self._commit(decoded.chunk, context, caller, large=len(body) > LARGE)
            self.accounts.stored(caller.sender, len(decoded.chunk.spans))
            if decoded.chunk.resources:
                self._callers.learn(caller, context.peer(), decoded.chunk.resources[0].service)
        self._tally.stored(decoded.chunk, decoded.rejected, self._agent(context))
        return _answer(decoded)

    def _decode(self, body: bytes, context: grpc.ServicerContext, listener: Listener, caller: Caller) -> Decoded:
        large = len(body) > LARGE
        shares = self._decoding_large if large else self._decoding
        slot = shares.take(caller.sender, caller.service, price=len(body), timeout=COMMIT_SECONDS)
        if slot is None:
            self._crowded(context, caller, shares, 1, "The receiver is busy.")
        try:
            how = self._large.decode if large else decode
            return how(body, source=listener.name, peer=caller.peer, received=time.time_ns(), sender=caller.sender)
        finally:
            shares.give_back(slot)

    def _commit(self, chunk: Chunk, context: grpc.ServicerContext, caller: Caller, *, large: bool) -> None:
        room = self._large_room if large else self._room
        cost = size_of(chunk)
        until = time.monotonic() + COMMIT_SECONDS
        held = room.take(caller.sender, caller.service, cost, timeout=COMMIT_SECONDS)
        if held is None:
            self._crowded(context, caller, room, cost, "The disk is slower than what arrives.")
        try:
            pending = self._writer.submit(chunk)
            stored = pending.wait(max(0.0, until - time.monotonic()))
        except NeverFits as error:
            self._tally.malform()
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Full as error:
            self.refuse(context, str(error), 5 if self._writer.disk_full else 1)
        finally:
            room.give_back(held)
        if not stored:
            # It may still be stored: then the sender's second try is a duplicate, which readers drop.
            self._writer.withdraw(pending)
            self.refuse(context, f"The disk took more than {COMMIT_SECONDS:.0f} s to store the request.", 5)

    def _agent(self, context: grpc.ServicerContext) -> str:
        """The exporter of a connection, remembered so that only its first request pays for it."""
        raw = context.peer()
        agent = self._agents.get(raw)
        if agent is None:
            agent = ""
            for key, value in context.invocation_metadata():
                if key == "user-agent":
                    agent = value.decode("latin-1") if isinstance(value, bytes) else str(value)
            if len(self._agents) >= _PEERS:
                self._agents.clear()
            agent = self._agents[raw] = agent[:256]
        return agent


_TOO_MANY: Final = "Too many requests are waiting to be stored."


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """The one method of a listener."""

    def __init__(self, ingest: Ingest, listener: Listener) -> None:
        self._serve = grpc.stream_unary_rpc_method_handler(
            lambda messages, context: ingest.export(messages, context, listener)
        )

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler for a call, None where we do not serve the method (UNIMPLEMENTED)."""
        return self._serve if handler_call_details.method == METHOD else None


def _opened(places: Sequence[Address]) -> tuple[list[socket.socket], tuple[Address, ...]]:
    """Those of the addresses that this machine has, opened, on one port where they leave that open.

    Raises:
        NotHere: it has none of them.
        ListenError: one is taken or not allowed.
    """
    for tries_left in reversed(range(_PORT_TRIES)):
        sockets: list[socket.socket] = []
        bound: list[Address] = []
        missing: NotHere | None = None
        try:
            for place in places:
                wanted = place.at(bound[0].port) if bound and not place.port else place
                try:
                    sockets.append(wanted.listen())
                except NotHere as error:
                    missing = error
                    continue
                bound.append(wanted if wanted.path else wanted.at(sockets[-1].getsockname()[1]))
            if not bound and missing is not None:
                raise missing
        except ListenError:
            for one in sockets:
                one.close()
            if not tries_left or not bound or places[0].port:
                raise
            continue  # the port that was picked for 127.0.0.1 is taken on [::1]
        return sockets, tuple(bound)
    raise AssertionError("not reached")


def _answer(decoded: Decoded) -> bytes:
    """The serialised ExportTraceServiceResponse. A reason without rejected spans is a warning, as OTLP has it."""
    if not decoded.reason:
        return b""
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = decoded.rejected
    answer.partial_success.error_message = decoded.reason
    return answer.SerializeToString()


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
