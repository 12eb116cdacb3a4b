"""An HTTP client of an API server, so plain that what it sends can be written down beside what was traced."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.real.certificates import Pair

Connect = Callable[[tuple[str, int], float], socket.socket]
"""Opens a connection to an address, within so many seconds."""


@dataclass(frozen=True)
class Answer:
    """What an API server answered."""

    code: int
    audit_id: str
    body: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


def identity_context(authority: bytes, pair: Pair | None) -> ssl.SSLContext:
    """TLS that trusts this authority and shows this certificate."""
    context = ssl.create_default_context(cadata=authority.decode())
    if pair is not None:
        with tempfile.TemporaryDirectory() as folder:
            pair.write(Path(folder) / "client")
            context.load_cert_chain(Path(folder) / "client.crt", Path(folder) / "client.key")
    return context


class Client:
    """Asks as one user. A connection a request: an API server that restarts is asked anew each time."""

    def __init__(
        self, address: tuple[str, int], authority: bytes, pair: Pair | None, connect: Connect = socket.create_connection
    ) -> None:
        self._address = address
        self._context = identity_context(authority, pair)
        self._connect = connect

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        agent: str = "tests-real",
        timeout: float = 30.0,
    ) -> Answer:
        """One request; the body is encoded as JSON unless it is bytes.

        Raises:
            OSError: it was not answered in time, or not at all.
            http.client.HTTPException: what came is no answer.
        """
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"User-Agent": agent, "Accept": "application/json"}
        if content is not None:
            headers["Content-Type"] = content_type
        connection = http.client.HTTPSConnection(*self._address, timeout=timeout)
        try:
            plain = self._connect(self._address, timeout)
            try:
                connection.sock = self._context.wrap_socket(plain, server_hostname=self._address[0])
            except BaseException:
                plain.close()
                raise
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers.get("Audit-Id", ""), answer.read())
        finally:
            connection.close()

    def code(self, path: str, timeout: float = 5.0) -> int:
        """The code of a GET, 0 when there was no answer."""
        try:
            return self.request("GET", path, timeout=timeout).code
        except (OSError, http.client.HTTPException):
            return 0
