"""Connections of the proxy, as the system sees them."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import struct
from pathlib import Path

import pytest

from tests.doubles.tracing_api import TracingApi
from tui.clusters.force.credentials import Upstream
from tui.clusters.force.proxy import Proxy
from tui.clusters.force.wire import READ_BYTES, Wire


def test_neither_side_waits_for_acknowledgements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer in two pieces would come 40 ms late each time."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    api = TracingApi(tmp_path / "api")
    api.start()
    try:
        with Proxy(Upstream("", api.kubeconfig())) as proxy:
            trust = ssl.create_default_context(cadata=proxy.authority.decode())
            client = http.client.HTTPSConnection("127.0.0.1", proxy.port, context=trust, timeout=30)
            client.request("GET", "/version", headers={"Authorization": f"Bearer {proxy.token}"})
            assert client.getresponse().read()
            wires = [*proxy._commands, *proxy._servers]
            plugs = [wire._transport.get_extra_info("socket") for wire in wires if wire._transport is not None]
            assert len(plugs) == 2
            assert all(plug.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for plug in plugs)
            client.close()
    finally:
        api.stop()


class _Listening(Wire):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop, memoryview(bytearray(READ_BYTES)))
        self.got = b""
        self.gone = loop.create_future()

    def received(self, data: bytes) -> None:
        self.got += data

    def lost(self) -> None:
        self.last_words()
        self.gone.set_result(None)


async def test_what_came_before_a_reset_is_read_though_the_reset_was_noticed_in_sending() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _, wire = await loop.create_connection(lambda: _Listening(loop), *listener.getsockname())
        wire.pause()
        peer, _ = listener.accept()
        peer.sendall(b"why")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed with a reset
        peer.close()
        while not wire.gone.done():
            wire.send(b"more")
            await asyncio.sleep(0)
    assert wire.got == b"why"
