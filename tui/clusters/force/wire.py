"""A TCP connection with TLS in it, as callbacks.

asyncio's own TLS hides what a proxy has to know: whether the other side ended properly (close_notify) or was cut. It
also differs between Python's releases. Here `ssl` works in memory on what the transport brings.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from contextlib import suppress
from typing import Final

READ_BYTES: Final = 64 << 10
_RECORD: Final = 16 << 10
_LINGER_SECONDS: Final = 2.0
_LAST_READS: Final = 16


class Wire(asyncio.BufferedProtocol):
    """One end of a connection. Subclasses override the callbacks; all run in the loop's thread.

    `scratch` may be shared by all connections of a loop: what was read is taken out of it before anything else runs.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, scratch: memoryview) -> None:
        self._loop = loop
        self._scratch = scratch
        self._transport: asyncio.Transport | None = None
        self._tls: ssl.SSLObject | None = None
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._shaken = True
        self._ended = False
        self._lingering = False
        self._finished = False
        self._paused = False
        self.open = False
        """Whether something can still be sent."""
        self.full = False
        """The other side reads slower than we send: wait for `drained`."""
        self.fault = ""
        """What TLS said when it ended not `clean`."""

    # --- callbacks --------------------------------------------------------------------------------------------
    def connected(self) -> None:
        """TCP is there."""

    def secured(self, error: ssl.SSLError | None) -> None:
        """The TLS handshake is done, or failed."""

    def received(self, data: bytes) -> None:
        """More of what the other side sends."""

    def ended(self, clean: bool) -> None:
        """It sends no more. Not `clean`: it did not say so, and there may have been more."""

    def lost(self) -> None:
        """The connection is gone, whoever closed it. Always the last, once."""

    def filled(self) -> None:
        """`full` has become true."""

    def drained(self) -> None:
        """`full` has become false."""

    # --- sending ----------------------------------------------------------------------------------------------
    def secure(self, context: ssl.SSLContext, *, server_name: str | None = None) -> None:
        """Speak TLS from here on: as a client with a server's name, as the server without one."""
        self._tls = context.wrap_bio(
            self._in, self._out, server_side=server_name is None, server_hostname=server_name or None
        )
        self._shaken = False
        self._shake()

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Hand over; it never blocks, so watch `full`."""
        if not self.open or self._transport is None:
            return
        if self._tls is None:
            self._transport.write(data)
            return
        try:
            done = self._tls.write(data)
            if done < len(data):
                view = memoryview(data)
                while done < len(view):
                    done += self._tls.write(view[done:])
        except ssl.SSLError:
            self.abort()
            return
        self._transport.write(self._out.read())

    def close(self) -> None:
        """End properly once everything was sent."""
        self._say_end()
        if self._transport is not None:
            self._transport.close()

    def finish(self) -> None:
        """Send no more, and say so; what the other side sends still arrives."""
        self._say_end()
        if self._transport is not None and not self._transport.is_closing():
            self._finished = True
            with suppress(OSError):
                self._transport.write_eof()

    def linger(self) -> None:
        """End properly, but let the other side finish sending for a moment: closed at once, a connection with unread
        bytes is reset, and what was sent last is lost with it."""
        if self._lingering or self._transport is None:
            return
        self._lingering = True
        self.finish()
        self.resume()
        self._loop.call_later(_LINGER_SECONDS, self._linger_ends)

    def _linger_ends(self) -> None:
        if self._transport is not None and self._transport.get_write_buffer_size():
            self._loop.call_later(_LINGER_SECONDS, self._linger_ends)  # it reads slowly
        else:
            self.abort()

    def abort(self) -> None:
        """Cut. With TLS the other side can tell that from an end."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    def break_off(self) -> None:
        """Cut, but only after what was sent has gone out. It takes as long as the other side does to read that."""
        self.open = False
        if self._transport is not None:
            self._transport.close()

    def pause(self) -> None:
        """Read no more for now."""
        if not self._paused and self._transport is not None and not self._lingering:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def last_words(self) -> None:
        """From `lost`: take what came before the connection was reset. Whoever notices a reset in sending has not read
        that yet, and it may say why: an answer before its request was whole, an alert of TLS."""
        plug = self._transport.get_extra_info("socket") if self._transport is not None else None
        with suppress(OSError, ValueError):
            for _ in range(_LAST_READS):
                data = os.read(plug.fileno(), READ_BYTES) if plug is not None and not self._ended else b""
                if not data:
                    break
                if self._tls is None:
                    self.received(data)
                elif self._shaken:
                    self._in.write(data)
                    self._take()

    def _say_end(self) -> None:
        if not self.open:
            return
        self.open = False
        if self._tls is not None and self._shaken:
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()

    def _flush(self) -> None:
        if self._out.pending:
            data = self._out.read()
            if self._transport is not None and not self._finished:
                self._transport.write(data)

    # --- asyncio's side ---------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        plug = transport.get_extra_info("socket")
        with suppress(OSError):
            # asyncio does so only where the socket says IPPROTO_TCP, which those of `create_server` do not. Without it
            # an answer whose body comes apart from its head waits 40 ms for the other side's delayed acknowledgement.
            plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.open = True
        self.connected()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Of asyncio."""
        return self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        """Of asyncio."""
        if self._tls is None:
            if not self._lingering:
                self.received(bytes(self._scratch[:nbytes]))
            return
        if self._ended:
            return
        self._in.write(self._scratch[:nbytes])
        if not self._shaken:
            self._shake()
            if not self._shaken:
                return
        self._take()

    def eof_received(self) -> bool:
        """Of asyncio."""
        if self._tls is not None and not self._ended:
            self._in.write_eof()
            if not self._shaken:
                self._shake()
            else:
                self._take()
        self._end(clean=self._tls is None)
        return True  # we may still send; whoever owns this closes it

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        self.open = False
        self.lost()

    def pause_writing(self) -> None:
        """Of asyncio."""
        self.full = True
        self.filled()

    def resume_writing(self) -> None:
        """Of asyncio."""
        self.full = False
        self.drained()

    def _shake(self) -> None:
        assert self._tls is not None
        error: ssl.SSLError | None = None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as failed:
            error = failed
        self._flush()  # the alert too
        if error is not None:
            self._ended = True
            self.secured(error)
            return
        self._shaken = True
        self.secured(None)

    def _take(self) -> None:
        assert self._tls is not None
        pieces: list[bytes] = []
        end: bool | None = None
        while True:
            try:
                data = self._tls.read(_RECORD)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                end = True
                break
            except ssl.SSLEOFError:  # no more bytes, and it did not say that it ends
                end = False
                break
            except ssl.SSLError as error:
                self.fault = str(error)
                end = False
                break
            if not data:
                end = True
                break
            pieces.append(data)
        self._flush()  # answers of TLS itself
        if pieces and not self._lingering:
            self.received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if end is not None:
            self._end(clean=end)

    def _end(self, *, clean: bool) -> None:
        if not self._ended:
            self._ended = True
            self.ended(clean)
        if self._lingering and self._transport is not None:
            self._transport.close()
