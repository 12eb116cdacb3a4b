"""A server that writes down every head that comes and gives always the same answer: what stands where credentials must
not go, and what tries to send them there.
"""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress

_SECONDS = 20.0


class Recorder:
    """Listens on a free port of loopback, with TLS where it gets a context, from its making to `stop`."""

    def __init__(self, answer: bytes = b"", tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.connections = 0
        """Those that were accepted, whether anything came on them or not."""
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, name="recorder", daemon=True).start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """End it."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                plug, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(plug,), daemon=True).start()

    def _talk(self, plug: socket.socket) -> None:
        with suppress(OSError), plug:
            plug.settimeout(_SECONDS)
            one = self._tls.wrap_socket(plug, server_side=True) if self._tls else plug
            with one:
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = one.recv(65536)
                    if not piece:
                        break
                    head += piece
                self.heads.append(head)
                one.sendall(self.answer)
                with suppress(OSError):
                    one.shutdown(socket.SHUT_WR)
                while one.recv(65536):  # closed with bytes unread, it would reset the answer away
                    pass


def redirect(code: int, location: str) -> bytes:
    """An answer that sends its reader to `location`."""
    return (
        f"HTTP/1.1 {code} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    )


def refusal(code: int, message: str = "no") -> bytes:
    """An answer of an API server that says no."""
    body = f'{{"kind":"Status","message":"{message}","code":{code}}}'
    return f"HTTP/1.1 {code} No\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
