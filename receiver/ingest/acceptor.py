"""The acceptor: every connection comes in here, and its octets are handed on to gRPC.

gRPC opens whatever comes, knows no connection by its sender, and takes streams as fast as they begin; what is divided
behind it is divided too late. So what senders connect to is ours. Who is at the other end is asked once, of the
accepted socket itself. Its octets go to a socket of gRPC's in a directory that nobody else may enter, from a socket
with a name, which gRPC gives as the peer. That way is made when HTTP/2's preface has come, so connections that say
nothing never reach gRPC.

Without TLS the headers of HTTP/2 frames are read on the way (`frames`), and senders share how many streams gRPC has at
once (`streams`): where one has its share, its connections are not read until a stream of its own ends. A stream reaches
gRPC with its first data, not before. With TLS there is nothing to be seen of frames: connections are bounded all the
same, and how fast they come, by user or address; their streams by what gRPC allows each connection.

One thread serves all listeners, each sender for a moment in turn.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import logging
import os
import select
import selectors
import shutil
import socket
import struct
import tempfile
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from receiver.ingest.accounts import Accounts
from receiver.ingest.connections import MOST, Connection, files_allowed, to_end
from receiver.ingest.frames import FramingError, RequestFrames, ResponseFrames
from receiver.ingest.sender import Pair, uid_name
from receiver.ingest.streams import Claim, StreamShares, TokenBucket

_PIECE: Final = 256 << 10
"""Bytes that are read at once."""
_SMALL_PIECE: Final = 16 << 10
"""... from a sender that was held back: as much may have to be kept for each of its connections."""
_HELD: Final = 512 << 10  # bytes that wait for the other side; then no more are read
_LOOK_SECONDS: Final = 1.0
_TURN_SECONDS: Final = 0.001
"""After so long it is another sender's turn; and so long is accepted at once."""
_BACK_OFF_SECONDS: Final = 0.1
_RESET_SECONDS: Final = 0.5
"""The place of a stream that the sender took back, or that brought nothing, is free after so long: gRPC may still be
busy with it, and costs as much as any other."""
_TURNED_AWAY_SECONDS: Final = 5.0
"""A connection that is too many is closed after so long: its sender would open the next at once."""
_MOST_TURNED_AWAY: Final = 4_096
"""... where fewer files may be open, a quarter of these."""
_NAMELESS_SECONDS: Final = 1.0
"""A connection that says nothing is asked for its sender after so long, or when there are too many of its kind."""
_UNTAKEN_SECONDS: Final = 10.0
"""A connection that leaves an answer untaken for so long is ended: its call costs memory still."""
_LEFT_SECONDS: Final = 30.0
"""... and one that gRPC ended, however much was not taken."""
_LINGER_SECONDS: Final = 1.0
_DRAIN_SECONDS: Final = 2.0
_CONNECTIONS_RATE: Final = 100.0
"""Connections a second of one sender that reach gRPC; twice as many at once."""
_FRAMES_RATE: Final = 5_000.0
"""Frames that are not data, a second of one sender; as many at once."""
_WARY_SECONDS: Final = 10.0
_REMEMBERED: Final = 1_024
_EMPTY_SECONDS: Final = 1.0
"""A stream that brought no data for so long is told of."""
_MOST_DIRECTORY: Final = 80
"""Bytes of its path; a socket's has 107 (unix(7))."""
_SAID_SECONDS: Final = 60.0
_OUT_OF_FILES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Route:
    """From the sockets of a listener to the one where gRPC listens."""

    sockets: tuple[socket.socket, ...]
    tls: bool
    inner: str
    """The path of gRPC's socket."""
    connections: set[_Relayed] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class _Nameless:
    """A connection whose sender was not asked for yet: it said nothing so far."""

    socket: socket.socket
    route: Route
    since: float


@dataclass(slots=True, eq=False)
class _End:
    """One side of a relayed connection."""

    socket: socket.socket
    connection: _Relayed
    waiting: bytearray = field(default_factory=bytearray)  # to be sent to it
    ended: bool = False  # it sends no more
    deaf: bool = False  # it takes no more
    events: int = 0  # asked for
    ready: int = 0  # found, and not served yet


@dataclass(slots=True, eq=False)
class _Relayed(Connection):
    calls: int = 0  # under way; counted with TLS only
    route: Route | None = None
    outer: _End | None = None
    inner: _End | None = None
    name: str = ""  # of the inner socket
    flow: _Flow | None = None
    claim: Claim = field(default_factory=Claim)
    requests: RequestFrames | None = None
    responses: ResponseFrames = field(default_factory=ResponseFrames)
    kept: bytes = b""  # came, and was not handed on yet
    kept_since: float = 0.0
    stopped: bool = False  # it is not read now
    changed: bool = False  # what it is to be watched for
    paid: bool = False  # it has had its turn to reach gRPC
    closing: bool = False
    left: bool = False  # by gRPC
    leaving: int = 0  # places that are given back in a moment
    told: bool = False
    untaken: tuple[int, float] = (0, 0.0)  # the oldest stream whose answer has not ended, and since when it is that
    dropped: bool = False


@dataclass(slots=True, eq=False)
class _Flow:
    """One sender's connections, seen together."""

    sender: str
    connections: int = 0
    ready: deque[_End] = field(default_factory=deque)
    piece: int = _PIECE
    held_back: float = 0.0  # monotonic; when last
    arrivals: TokenBucket = field(default_factory=lambda: TokenBucket(_CONNECTIONS_RATE, 2 * _CONNECTIONS_RATE))
    frames: TokenBucket = field(default_factory=lambda: TokenBucket(_FRAMES_RATE, _FRAMES_RATE))
    paused: bool = False
    resting: list[_Relayed] = field(default_factory=list)  # to be read again after the pause


class Acceptor:
    """Accepts for all listeners. What is public may be called by any thread; the rest is one thread's own."""

    def __init__(
        self,
        sender_of: Callable[[Pair, Pair], str],
        accounts: Accounts,
        every: Callable[[], None],
        *,
        most: int | None = None,
        streams: StreamShares | None = None,
    ) -> None:
        """
        Args:
            sender_of: names who is at the other end of a TCP connection, from its remote and local address.
            every: called about once a second.
            most: connections in all.
        """
        self._thread = threading.Thread(target=self._run, name="acceptor", daemon=True)
        files = files_allowed()
        self.most = most if most is not None else min(MOST, max(16, files // 8))
        self._most_turned_away = min(_MOST_TURNED_AWAY, max(16, files // 4))
        self._sender_of = sender_of
        self._accounts = accounts
        self._every = every
        self._streams = streams if streams is not None else StreamShares()
        self._directory: Path | None = None
        self._numbers = itertools.count(1)
        self._connections: dict[_Relayed, None] = {}
        self._nameless: OrderedDict[_Nameless, None] = OrderedDict()
        self._named: dict[str, _Relayed] = {}
        self._gone: OrderedDict[str, _Relayed] = OrderedDict()
        self._flows: dict[str, _Flow] = {}
        self._turns: deque[_Flow] = deque()
        self._turned_away: deque[tuple[float, socket.socket]] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._selector = selectors.DefaultSelector()
        self._buffer = memoryview(bytearray(2 * _PIECE))
        self._freed = False
        self._said = float("-inf")
        self._stopping = False
        self._lock = threading.Lock()
        self._commands: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._wake, self._waker = socket.socketpair()
        self._wake.setblocking(False)
        self._selector.register(self._wake, selectors.EVENT_READ, None)

    def start(self) -> None:
        """Begin to serve what `accept` is told of."""
        self._thread.start()

    # -- listeners ------------------------------------------------------------------------------------------
    def route(self, sockets: Sequence[socket.socket], *, tls: bool) -> Route:
        """A way for what comes to these sockets, which listen; nothing is accepted yet.

        Raises:
            OSError: there is no place for gRPC's socket.
        """
        with self._lock:
            if self._directory is None:
                self._directory = _private_directory()
        return Route(tuple(sockets), tls, str(self._directory / f"g{next(self._numbers)}"))

    def accept(self, route: Route) -> None:
        """Begin to accept; gRPC listens already."""

        def begin() -> None:
            for one in route.sockets:
                one.setblocking(False)
                self._selector.register(one, selectors.EVENT_READ, (one, route))

        self._do(begin)

    def accept_no_more(self, route: Route) -> None:
        """Close the listener's sockets. Connections go on."""

        def end() -> None:
            for one in route.sockets:
                with suppress(KeyError, ValueError):
                    self._selector.unregister(one)
                one.close()

        self._do(end)

    def end(self, route: Route) -> None:
        """End the listener's connections, when what gRPC answered is on its way: gRPC has closed them."""
        until = time.monotonic() + _DRAIN_SECONDS
        while any(one.inner and not one.closing for one in list(route.connections)) and time.monotonic() < until:
            if self._stopping or not self._thread.is_alive():
                break
            time.sleep(0.005)

        def drop() -> None:
            for nameless in [one for one in self._nameless if one.route is route]:
                self._forget(nameless)
                nameless.socket.close()
            for one in list(route.connections):
                self._drop(one)

        self._do(drop)
        with suppress(OSError):
            os.unlink(route.inner)

    def stop(self) -> None:
        """End everything, and take the files away."""
        self._stopping = True
        with suppress(OSError):
            self._waker.send(b"x")
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(5.0)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _do(self, what: Callable[[], None]) -> None:
        """Have the thread do this, and wait for it."""
        done = threading.Event()
        self._commands.append((what, done))
        with suppress(OSError):
            self._waker.send(b"x")
        while not done.wait(0.1):
            if not self._thread.is_alive():
                what()
                return

    # -- what gRPC's side asks and tells -------------------------------------------------------------------
    def connection(self, name: str) -> Connection | None:
        """The connection behind a peer, as gRPC names it (unquoted, without `unix:`); None for one that is long
        gone."""
        return self._named.get(name) or self._gone.get(name)

    def call(self, connection: Connection) -> None:
        """A call began; with TLS that is seen nowhere else."""
        if isinstance(connection, _Relayed) and connection.route is not None and connection.route.tls:
            with self._lock:
                connection.called = time.monotonic()
                connection.calls += 1

    def call_ended(self, connection: Connection) -> None:
        """... and ended."""
        if isinstance(connection, _Relayed) and connection.route is not None and connection.route.tls:
            with self._lock:
                connection.calls -= 1

    def count(self) -> dict[str, int]:
        """Connections by sender."""
        return dict(Counter(one.certificate or one.sender for one in list(self._connections)))

    # -- the thread's own -----------------------------------------------------------------------------------
    def _run(self) -> None:
        self._later(_LOOK_SECONDS, self._look)
        try:
            while not self._stopping:
                try:
                    self._turn()
                except Exception:  # noqa: BLE001 - without this thread nothing is received any more
                    _log.exception("acceptor")
                    time.sleep(_BACK_OFF_SECONDS)
        finally:
            for one in list(self._connections):
                self._drop(one)
            for key in list(self._selector.get_map().values()):
                if isinstance(key.data, tuple):
                    key.data[0].close()
            for _, away in self._turned_away:
                away.close()
            for nameless in self._nameless:
                nameless.socket.close()
            for part in (self._wake, self._waker, self._selector):
                part.close()

    def _turn(self) -> None:
        """Look what there is to do, and serve each sender for a moment."""
        if self._turns:
            timeout = 0.0
        else:
            timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else _LOOK_SECONDS
        for key, events in self._selector.select(timeout):
            end = key.data
            if isinstance(end, _End):
                if not end.ready:
                    flow = end.connection.flow
                    assert flow is not None
                    if not flow.ready:
                        self._turns.append(flow)
                    flow.ready.append(end)
                end.ready = events
            elif isinstance(end, _Nameless):
                if end in self._nameless:
                    self._greet(end.socket, end.route, end)
            elif end is None:
                self._obey()
            else:
                self._accept(*end)
        for _ in range(len(self._turns)):
            flow = self._turns.popleft()
            until = time.monotonic() + _TURN_SECONDS
            while flow.ready:
                end = flow.ready.popleft()
                events, end.ready = end.ready, 0
                self._serve(end, events)
                if time.monotonic() > until:
                    break
            if flow.ready:
                self._turns.append(flow)
            if self._freed:
                self._hand_out()
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            what = heapq.heappop(self._timers)[2]
            try:
                what()
            except Exception:  # noqa: BLE001 - what is due besides must not wait for it
                _log.exception("acceptor")
        if self._freed:
            self._hand_out()

    def _obey(self) -> None:
        with suppress(BlockingIOError):
            self._wake.recv(4096)
        while self._commands:
            what, done = self._commands.popleft()
            try:
                what()
            finally:
                done.set()

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), what))

    def _look(self) -> None:
        self._later(_LOOK_SECONDS, self._look)
        now = time.monotonic()
        for one in self._connections:
            one.busy = one.claim.held > 0 or one.calls > 0
            requests = one.requests
            if requests is not None and requests.empty and not one.told and now - one.kept_since > _EMPTY_SECONDS:
                one.told = True
                self._accounts.held_back(one.sender)
            inner = one.inner
            unread = inner is not None and not one.left and not inner.events & selectors.EVENT_READ
            if inner is not None and unread and _hung_up(inner.socket):
                self._left(one)  # which reading would tell, but its answers are not taken
        self._end([one for one in self._connections if _leaves_answers(one, now)])
        self._end(to_end(self._connections, self.most, now))
        while self._nameless and next(iter(self._nameless)).since < now - _NAMELESS_SECONDS:
            self._identify(next(iter(self._nameless)))
        while self._turned_away and self._turned_away[0][0] <= now:
            _reset(self._turned_away.popleft()[1])
        for flow in list(self._flows.values()):
            if now - flow.held_back > _WARY_SECONDS:
                flow.piece = _PIECE
            if not flow.connections and not flow.paused and flow.arrivals.full and flow.frames.full:
                del self._flows[flow.sender]
        self._every()

    def _end(self, gone: Sequence[Connection]) -> None:
        for one in gone:
            assert isinstance(one, _Relayed)
            self._drop(one)
        for sender, count in Counter(one.sender for one in gone).items():
            self._accounts.ended(sender, count)

    # -- accepting ------------------------------------------------------------------------------------------
    def _accept(self, listener: socket.socket, route: Route) -> None:
        until = time.monotonic() + _TURN_SECONDS
        while time.monotonic() < until:
            try:
                outer, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in _OUT_OF_FILES and self._turned_away:
                    _reset(self._turned_away.popleft()[1])
                    continue
                self._rest(listener, route, error)
                return
            self._greet(outer, route)

    def _greet(self, outer: socket.socket, route: Route, nameless: _Nameless | None = None) -> None:
        """Look whether it has anything to say; only then it matters whose it is. Many come and go in silence."""
        try:
            if not outer.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                self._forget(nameless)
                outer.close()
                return
        except BlockingIOError:
            if nameless is None:
                if len(self._nameless) >= self.most:
                    self._identify(next(iter(self._nameless)))
                nameless = _Nameless(outer, route, time.monotonic())
                self._nameless[nameless] = None
                self._selector.register(outer, selectors.EVENT_READ, nameless)
            return
        except OSError:
            self._forget(nameless)
            outer.close()
            return
        self._forget(nameless)
        self._let_in(outer, route)

    def _forget(self, nameless: _Nameless | None) -> None:
        if nameless is not None:
            del self._nameless[nameless]
            self._selector.unregister(nameless.socket)

    def _identify(self, nameless: _Nameless) -> None:
        self._forget(nameless)
        self._let_in(nameless.socket, nameless.route)

    def _let_in(self, outer: socket.socket, route: Route) -> None:
        """Ask who it is, and let it in unless that sender has most of what there is."""
        try:
            outer.setblocking(False)
            sender, peer = self._who(outer)
        except OSError:
            outer.close()  # it is gone already
            return
        if len(self._connections) >= self.most and not self._make_room(sender):
            self._turn_away(outer, sender)
        else:
            self._admit(outer, sender, peer, route)

    def _rest(self, listener: socket.socket, route: Route, error: OSError) -> None:
        """Accept nothing for a moment: it would fail again at once."""
        with suppress(KeyError, ValueError):
            self._selector.unregister(listener)
            now = time.monotonic()
            if now - self._said > _SAID_SECONDS:
                self._said = now
                _log.warning("cannot accept: %s", error)

            def again() -> None:
                if listener.fileno() >= 0:
                    self._selector.register(listener, selectors.EVENT_READ, (listener, route))

            self._later(_BACK_OFF_SECONDS, again)

    def _who(self, outer: socket.socket) -> tuple[str, str]:
        """The sender, and its address for people."""
        if outer.family == socket.AF_UNIX:
            return uid_name(_peer_uid(outer)), "unix"
        outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        there, here = outer.getpeername()[:2], outer.getsockname()[:2]
        return self._sender_of(there, here), pair_text(there)

    def _make_room(self, sender: str) -> bool:
        """End connections of who has most, a few at once; False: that is who comes."""
        most = max(self._flows.values(), key=lambda flow: flow.connections)
        if most.sender == sender:
            return False
        self._end(to_end(self._connections, self.most - max(1, self.most // 32), time.monotonic()))
        return True

    def _turn_away(self, outer: socket.socket, sender: str) -> None:
        self._accounts.turned_away(sender)
        if len(self._turned_away) >= self._most_turned_away:
            _reset(self._turned_away.popleft()[1])
        self._turned_away.append((time.monotonic() + _TURNED_AWAY_SECONDS, outer))

    def _admit(self, outer: socket.socket, sender: str, peer: str, route: Route) -> None:
        flow = self._flows.get(sender)
        if flow is None:
            flow = self._flows[sender] = _Flow(sender)
        flow.connections += 1
        one = _Relayed(sender, peer, time.monotonic(), route=route, flow=flow)
        if not route.tls:
            one.claim = Claim(sender, lambda: self._resume(one))
            one.requests = RequestFrames(lambda: self._begins(one))
        one.outer = _End(outer, one)
        self._connections[one] = None
        route.connections.add(one)
        self._watch(one)

    def _begins(self, one: _Relayed) -> bool:
        """Whether a stream may."""
        if not self._streams.take(one.claim):
            return False
        one.called = time.monotonic()
        return True

    # -- handing on -----------------------------------------------------------------------------------------
    def _serve(self, end: _End, events: int) -> None:
        one = end.connection
        if one.dropped:
            return
        try:
            if events & selectors.EVENT_WRITE:
                _send(end)
            if events & selectors.EVENT_READ and not end.ended:
                if end is one.outer:
                    if not one.stopped:
                        self._read_requests(one, end)
                else:
                    self._read_responses(one, end)
        except BlockingIOError:
            pass
        except FramingError as error:
            self._malformed(one, error)
        except OSError:
            self._drop(one)
        except Exception:  # noqa: BLE001 - this connection's alone
            _log.exception("a connection of %s", one.sender)
            self._drop(one)
        if not one.dropped and (one.changed or end.ended or events & selectors.EVENT_WRITE):
            self._after(one)

    def _read_requests(self, one: _Relayed, outer: _End) -> None:
        flow = one.flow
        assert flow is not None
        if flow.paused:
            one.stopped = one.changed = True
            flow.resting.append(one)
            return
        kept = len(one.kept)
        if kept:
            count = outer.socket.recv_into(self._buffer[kept:], min(flow.piece, len(self._buffer) - kept))
        else:
            count = outer.socket.recv_into(self._buffer, flow.piece)
        if not count:
            outer.ended = True
            if one.kept:  # what it waits for does not come any more
                self._drop(one)
            return
        if kept:
            self._buffer[:kept] = one.kept
        self._hand_on(one, kept + count)

    def _hand_on(self, one: _Relayed, size: int) -> None:
        """Send to gRPC what may go of the octets in the buffer, and keep the others."""
        if one.inner is not None and one.inner.ended:  # there is nobody who would answer
            one.kept = b""
            return
        data, requests = self._buffer[:size], one.requests
        if one.inner is None and not self._connected(one, data):
            return
        assert one.inner is not None
        passed = size
        if requests is not None:
            passed = requests.take(data)
            if requests.frames:
                self._count_frames(one, requests)
            if requests.reset:
                self._give_back_later(one, len(requests.reset))
                requests.reset.clear()
        if passed:
            if one.inner.waiting:
                one.inner.waiting += data[:passed]
                one.changed = True
            else:
                _send(one.inner, data[:passed])
        if passed < size:
            if passed or not one.kept:
                one.kept_since, one.told = time.monotonic(), False
            one.kept = bytes(data[passed:])
            assert requests is not None
            if requests.full:
                self._hold_back(one)
        elif one.kept:
            one.kept = b""

    def _hold_back(self, one: _Relayed) -> None:
        """Read no more until a stream of the sender's ends."""
        one.stopped = one.changed = True
        flow = one.flow
        assert flow is not None
        flow.piece, flow.held_back = _SMALL_PIECE, time.monotonic()
        self._accounts.held_back(one.sender)

    def _hand_out(self) -> None:
        """Let those go on who waited for a place, while there is one."""
        self._freed = False
        while (claim := self._streams.next()) is not None:
            claim.resume()

    def _resume(self, one: _Relayed) -> None:
        """Read this connection again, what was kept of it first."""
        if one.dropped:
            return
        one.stopped = False
        try:
            if one.kept:
                size = len(one.kept)
                self._buffer[:size] = one.kept
                self._hand_on(one, size)
        except FramingError as error:
            self._malformed(one, error)
        except OSError:
            self._drop(one)
        if not one.dropped:
            self._after(one)

    def _count_frames(self, one: _Relayed, requests: RequestFrames) -> None:
        """Let a sender rest that sends too many."""
        flow = one.flow
        assert flow is not None
        wait, requests.frames = flow.frames.spend(requests.frames), 0
        if not wait or flow.paused:
            return
        flow.paused = True
        self._accounts.held_back(one.sender)

        def go_on() -> None:
            flow.paused = False
            resting, flow.resting = flow.resting, []
            for rested in resting:
                self._resume(rested)

        self._later(wait, go_on)

    def _connected(self, one: _Relayed, data: memoryview) -> bool:
        """Whether there is a way to gRPC, made now if what came is worth it."""
        if one.requests is not None and not one.requests.begins(data):
            one.kept = bytes(data)
            return False
        flow, route = one.flow, one.route
        assert flow is not None
        assert route is not None
        wait = 0.0 if one.paid else flow.arrivals.spend(1)
        one.paid = True
        if not wait:
            inner = self._connect(one, route.inner)
            if inner is not None:
                one.inner, one.changed = _End(inner, one), True
                return True
            wait = _BACK_OFF_SECONDS  # gRPC has not accepted those before it yet
        one.kept = bytes(data)
        one.stopped = one.changed = True
        self._later(wait, lambda: self._resume(one))
        return False

    def _connect(self, one: _Relayed, path: str) -> socket.socket | None:
        """A way to gRPC from a socket with a name; None when it must be tried again."""
        inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        name = os.path.join(os.path.dirname(path), f"{next(self._numbers)}")
        try:
            inner.setblocking(False)
            inner.bind(name)
            os.unlink(name)  # it keeps the name
            inner.connect(path)
        except BlockingIOError:
            inner.close()
            return None
        except OSError:
            inner.close()
            raise
        one.name = name
        self._named[name] = one
        return inner

    def _read_responses(self, one: _Relayed, inner: _End) -> None:
        try:
            count = inner.socket.recv_into(self._buffer, _PIECE)
        except ConnectionResetError:
            count = 0
        if not count:
            inner.ended = True
            self._left(one)
            return
        outer, requests = one.outer, one.requests
        assert outer is not None
        data = self._buffer[:count]
        if outer.waiting:
            outer.waiting += data
            one.changed = True
        else:
            _send(outer, data)
        if requests is not None:
            ended, answers = one.responses.take(data), one.responses.answers
            for stream in answers:
                self._answered(one, requests, stream)
                requests.answered[stream] = None
            answers.clear()
            for stream in ended:
                self._answered(one, requests, stream)
                requests.answered.pop(stream, None)

    def _left(self, one: _Relayed) -> None:
        """gRPC has closed its side: no stream begins any more, and what it answered has a while to be taken."""
        self._streams.leave(one.claim)
        self._give_all_back(one)
        if not one.left:
            one.left = True
            self._later(_LEFT_SECONDS, lambda: self._drop(one))

    def _answered(self, one: _Relayed, requests: RequestFrames, stream: int) -> None:
        """Its place is free when the answer begins: the sender says when it may end (RFC 9113, 5.2)."""
        brought = requests.streams.pop(stream, None)
        if brought:
            self._streams.give_back(one.claim)
            self._freed = True
        elif brought is not None:
            self._give_back_later(one, 1)

    def _give_back_later(self, one: _Relayed, count: int) -> None:
        one.leaving += count

        def give_back() -> None:
            one.leaving -= count
            for _ in range(count):
                self._streams.give_back(one.claim)
            self._freed = True

        self._later(_RESET_SECONDS, give_back)

    def _give_all_back(self, one: _Relayed) -> None:
        """A side is gone: nothing will tell how its streams end."""
        if one.requests is not None:
            one.requests.streams.clear()
        if one.claim.held > one.leaving:
            self._give_back_later(one, one.claim.held - one.leaving)

    def _malformed(self, one: _Relayed, error: FramingError) -> None:
        _log.debug("%s of %s sends %s", one.peer, one.sender, error)
        self._drop(one)

    # -- what follows ---------------------------------------------------------------------------------------
    def _after(self, one: _Relayed) -> None:
        """Hand on that a side ended, and watch for what may come now."""
        one.changed = False
        outer, inner = one.outer, one.inner
        assert outer is not None
        if outer.ended:
            if inner is None or (inner.ended and not outer.waiting):
                self._drop(one)
                return
            if not inner.waiting:
                with suppress(OSError):
                    inner.socket.shutdown(socket.SHUT_WR)
        if inner is not None and inner.ended and not outer.waiting and not one.closing:
            one.closing = True
            with suppress(OSError):
                outer.socket.shutdown(socket.SHUT_WR)
            self._later(_LINGER_SECONDS, lambda: self._drop(one))
        self._watch(one)

    def _watch(self, one: _Relayed) -> None:
        outer, inner = one.outer, one.inner
        assert outer is not None
        events = selectors.EVENT_WRITE if outer.waiting else 0
        if not outer.ended and not one.stopped and (inner is None or len(inner.waiting) < _HELD):
            events |= selectors.EVENT_READ
        if events != outer.events:
            self._ask_for(outer, events)
        if inner is not None:
            events = selectors.EVENT_WRITE if inner.waiting else 0
            if not inner.ended and len(outer.waiting) < _HELD:
                events |= selectors.EVENT_READ
            if events != inner.events:
                self._ask_for(inner, events)

    def _ask_for(self, end: _End, events: int) -> None:
        if not events:
            self._selector.unregister(end.socket)
        elif not end.events:
            self._selector.register(end.socket, events, end)
        else:
            self._selector.modify(end.socket, events, end)
        end.events = events

    def _drop(self, one: _Relayed) -> None:
        if one.dropped:
            return
        one.dropped = True
        self._connections.pop(one, None)
        if one.name:
            self._named.pop(one.name, None)
            self._gone[one.name] = one  # a call of its may be under way
            if len(self._gone) > _REMEMBERED:
                self._gone.popitem(last=False)
        flow, route = one.flow, one.route
        assert flow is not None
        assert route is not None
        flow.connections -= 1
        route.connections.discard(one)
        for end in (one.outer, one.inner):
            if end is not None:
                if end.events:
                    self._selector.unregister(end.socket)
                end.socket.close()
        self._streams.leave(one.claim)
        self._give_all_back(one)
        one.outer = one.inner = one.requests = None
        one.kept = b""
        self._freed = True  # another may be next now


def _leaves_answers(one: _Relayed, now: float) -> bool:
    """Whether its sender has not taken an answer for too long. Asked about once a second."""
    oldest = next(iter(one.requests.answered), 0) if one.requests is not None else 0
    if oldest != one.untaken[0]:
        one.untaken = oldest, now
    return oldest != 0 and now - one.untaken[1] > _UNTAKEN_SECONDS


def _private_directory() -> Path:
    """One of our own that nobody else may enter, with a path that leaves room for a socket's name.

    Raises:
        OSError: nowhere.
    """
    tried: OSError | None = None
    for place in (None, os.environ.get("XDG_RUNTIME_DIR"), "/tmp", "/run", "/dev/shm"):
        if place == "":
            continue
        try:
            made = Path(tempfile.mkdtemp(prefix="k8s-trace-tui-", dir=place))  # 0700
        except OSError as error:
            tried = tried or error
            continue
        if len(os.fsencode(made)) <= _MOST_DIRECTORY:
            return made
        made.rmdir()
    raise tried or OSError(errno.ENAMETOOLONG, "each of the folders for what is temporary has a long path")


def pair_text(pair: Pair) -> str:
    """An address and port for people, as `--listen` takes them: `[::1]:4317`."""
    host, port = pair
    host = host.removeprefix("::ffff:") if "." in host else host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _send(end: _End, data: memoryview | None = None) -> None:
    """What waits for it, or if nothing does, this; what it does not take waits."""
    if end.deaf:
        end.waiting.clear()
        return
    try:
        if data is None:
            del end.waiting[: end.socket.send(end.waiting)]
        else:
            sent = end.socket.send(data)
            if sent < len(data):
                end.waiting += data[sent:]
                end.connection.changed = True
    except BlockingIOError:
        if data is not None:
            end.waiting += data
            end.connection.changed = True
    except OSError:  # it may have sent something before it went
        end.deaf = True
        end.waiting.clear()


def _hung_up(connection: socket.socket) -> bool:
    """Whether the other side has closed it, whatever it sent before that."""
    look = select.poll()
    look.register(connection, 0)
    return bool(look.poll(0))


def _reset(connection: socket.socket) -> None:
    """Close at once, also for the other side."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _peer_uid(connection: socket.socket) -> int:
    """The user at the other end; without SO_PEERCRED all are this one."""
    if not hasattr(socket, "SO_PEERCRED"):
        return os.getuid()
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)
