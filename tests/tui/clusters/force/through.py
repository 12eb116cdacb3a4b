"""Clients of a proxy, and users whose credentials come from a plugin."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.eventually import eventually
from tui.clusters.force.proxy import Proxy, Seen

SECONDS = 20.0
"""For anything that is waited for."""


def trusting(proxy: Proxy) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=proxy.authority.decode())


@contextmanager
def connected(proxy: Proxy) -> Iterator[http.client.HTTPSConnection]:
    """A client that keeps its connection."""
    client = http.client.HTTPSConnection("127.0.0.1", proxy.port, context=trusting(proxy), timeout=SECONDS)
    yield client
    client.close()


def ask(
    client: http.client.HTTPSConnection,
    proxy: Proxy,
    target: str,
    method: str = "GET",
    body: Any = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    client.request(method, target, body, {"Authorization": f"Bearer {proxy.token}", **(headers or {})})
    answer = client.getresponse()
    return answer.status, answer.read()


def once(proxy: Proxy, target: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
    """The answer's code and its JSON."""
    with connected(proxy) as client:
        code, content = ask(client, proxy, target, method, body)
        return code, json.loads(content or b"null")


@contextmanager
def raw(proxy: Proxy, *, context: ssl.SSLContext | None = None, receive: int = 0) -> Iterator[ssl.SSLSocket]:
    """Bytes in TLS. The system holds `receive` bytes of what comes, 0: as many as it likes."""
    with socket.socket() as plug:
        if receive:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        plug.settimeout(SECONDS)
        plug.connect(("127.0.0.1", proxy.port))
        wrapped = (context or trusting(proxy)).wrap_socket(
            plug, server_hostname="127.0.0.1", suppress_ragged_eofs=False
        )
        with wrapped:
            yield wrapped


def head(proxy: Proxy, line: str, *fields: str) -> bytes:
    return "\r\n".join([line, "Host: x", f"Authorization: Bearer {proxy.token}", *fields, "", ""]).encode()


def everything(plug: ssl.SSLSocket) -> tuple[bytes, bool]:
    """All bytes until the end, and whether that was a proper one."""
    parts = []
    try:
        while piece := plug.recv(1 << 16):
            parts.append(piece)
    except (ssl.SSLEOFError, ConnectionResetError):
        return b"".join(parts), False
    return b"".join(parts), True


def seen(proxy: Proxy, count: int) -> tuple[Seen, ...]:
    """What the proxy has seen, once that is `count` requests."""
    eventually(lambda: len(proxy.seen()) >= count, f"{count} requests seen")
    assert len(proxy.seen()) == count
    return proxy.seen()


def plugin(folder: Path, *answers: dict[str, Any]) -> dict[str, Any]:
    """A user whose credential plugin answers so, one after the other; the last again and again."""
    script = folder / "plugin.py"
    script.write_text(
        f"import json, pathlib\nruns = pathlib.Path({str(folder / 'runs')!r})\nanswers = {list(answers)!r}\n"
        "count = len(runs.read_text()) if runs.exists() else 0\nruns.write_text('x' * (count + 1))\n"
        "version = 'client.authentication.k8s.io/v1'\n"
        "print(json.dumps({'apiVersion': version, 'kind': 'ExecCredential',"
        " 'status': answers[min(count, len(answers) - 1)]}))\n"
    )
    version = "client.authentication.k8s.io/v1"
    return {"exec": {"apiVersion": version, "command": sys.executable, "args": [str(script)]}}


def runs(folder: Path) -> int:
    return len((folder / "runs").read_text())
