"""The channels of an exec: one WebSocket, on which the first byte of each message says whose the rest is.

The `kubernetes` client's own follows redirects with the bearer token, to other hosts and out of TLS too. Here the
connection goes to the address that was named and nowhere else, and whatever does not change the protocol is an error.
"""

from __future__ import annotations

import select
import ssl
from contextlib import suppress
from typing import Any, Final

import websocket

_PROTOCOLS: Final = "v5.channel.k8s.io,v4.channel.k8s.io"
_END_OF_CHANNEL: Final = 255


class Redirected(Exception):
    """The other side wanted to send us elsewhere; nothing went there."""

    def __init__(self, code: int, location: str) -> None:
        super().__init__(f"redirected ({code})")
        self.code = code
        self.location = location


class Channels:
    """An open exec. Not for several threads."""

    def __init__(self, configuration: Any, url: str, authorization: str, seconds: float) -> None:
        """Connect.

        Args:
            configuration: a `kubernetes.client.Configuration`: certificates, proxies.
            url: `ws://...` or `wss://...`.
            authorization: the field's value; "" sends none.
            seconds: for connecting, and for each message that has begun.

        Raises:
            Redirected: it was not followed.
            websocket.WebSocketException, OSError, ValueError: no connection.
        """
        from kubernetes.stream.ws_client import websocket_proxycare

        fields = [f"sec-websocket-protocol: {_PROTOCOLS}"]
        if authorization:
            fields.append(f"authorization: {authorization}")
        options: dict[str, Any] = {"header": fields, "timeout": seconds, "redirect_limit": 0}
        if configuration.proxy or configuration.proxy_headers:
            care: Any = websocket_proxycare
            options = care(options, configuration, url, None)
        make: Any = websocket.WebSocket
        self._socket = make(sslopt=_tls(configuration, url), skip_utf8_validation=True)
        try:
            self._socket.connect(url, **options)
        except websocket.WebSocketException:
            self._refuse_redirect()
            raise
        self._refuse_redirect()
        self.open = True
        """Whether more may come."""

    def _refuse_redirect(self) -> None:
        """How the library ends at its limit differs between its releases: what counts is the answer's code."""
        answer = self._socket.handshake_response
        if answer is None or answer.status == 101:
            return
        self.close(0)
        raise Redirected(answer.status, str((answer.headers or {}).get("location") or ""))

    def write(self, data: bytes) -> None:
        """Send a message of standard input.

        Raises:
            websocket.WebSocketException, OSError: the connection broke.
        """
        self._socket.send_binary(b"\0" + data)

    def read(self, seconds: float) -> list[tuple[int, bytes]]:
        """The messages that are there, waiting at most so long for the first: channel and content of each.

        Raises:
            websocket.WebSocketException, OSError: the connection broke.
        """
        found: list[tuple[int, bytes]] = []
        wait = seconds
        while self.open and self._readable(wait):
            code, frame = self._socket.recv_data_frame(True)
            if code == websocket.ABNF.OPCODE_CLOSE:
                self.open = False
            elif code in (websocket.ABNF.OPCODE_BINARY, websocket.ABNF.OPCODE_TEXT):
                data = frame.data if isinstance(frame.data, bytes) else str(frame.data).encode()
                if len(data) > 1 and data[0] != _END_OF_CHANNEL:
                    found.append((data[0], data[1:]))
            if len(found) >= 64:
                break  # so that whoever takes them does so now and then
            wait = 0.0
        return found

    def _readable(self, seconds: float) -> bool:
        plug = self._socket.sock
        if plug is None:
            self.open = False
            return False
        if isinstance(plug, ssl.SSLSocket) and plug.pending():
            return True
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(plug, select.POLLIN)
            return bool(poll.poll(max(0.0, seconds) * 1000))
        return bool(select.select([plug], [], [], max(0.0, seconds))[0])

    def close(self, seconds: float = 1.0) -> None:
        """End it, waiting at most so long for the other side's word. Does not raise."""
        self.open = False
        with suppress(websocket.WebSocketException, OSError):
            if seconds:
                self._socket.close(timeout=seconds)
            else:
                self._socket.shutdown()


def _tls(configuration: Any, url: str) -> dict[str, Any]:
    if not (url.startswith("wss://") and configuration.verify_ssl):
        found: dict[str, Any] = {"cert_reqs": ssl.CERT_NONE}
    else:
        found = {"cert_reqs": ssl.CERT_REQUIRED}  # without an authority those of the system, as for every other request
        if configuration.ssl_ca_cert:
            found["ca_certs"] = configuration.ssl_ca_cert
        if configuration.assert_hostname is not None:
            found["check_hostname"] = configuration.assert_hostname
    if configuration.cert_file:
        found["certfile"] = configuration.cert_file
    if configuration.key_file:
        found["keyfile"] = configuration.key_file
    if configuration.tls_server_name:
        found["server_hostname"] = configuration.tls_server_name
    return found
