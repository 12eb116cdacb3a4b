"""Connections of the proxy, as the system sees them."""

from __future__ import annotations

import http.client
import socket
import ssl
from pathlib import Path

import pytest

from tests.doubles.tracing_api import TracingApi
from tui.clusters.force.credentials import Upstream
from tui.clusters.force.proxy import Proxy


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
