"""An HTTPS server of the tests' own: admission webhooks and an aggregated API, as an API server calls them.

What it does is in the path, so that one server is any number of them:

    /webhooks/BEHAVIOUR     reviews (`admission.k8s.io/v1`): see `BEHAVIOURS`
    /apis/GROUP/v1/...      an API of one resource, `widgets`: `slow` takes its time, `broken` hangs up, others answer
"""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from tests.real.certificates import Authority

SLOW_S: Final = 0.7
"""How long what is slow takes: far above what makes a part of a request a cause, far below any timeout here."""
HANG_S: Final = 30.0
"""How long what does not answer in time would take; it is over at once when the server is closed."""
DENIAL: Final = "no configmaps on a Monday"
HOLD_S: Final = 8.0
"""How long `hold` holds a request at most: less than its timeout."""
BEHAVIOURS: Final = ("allow", "slow", "hold", "error", "deny", "hang")
"""`allow`, `slow` and `hold` (until `go_on`) let through, and mutating ones add a label; `error` answers 500, `hang`
nothing in time."""
PATCH: Final = [{"op": "add", "path": "/metadata/labels/touched", "value": "yes"}]


class HttpsServer(ThreadingHTTPServer):
    """It listens on 127.0.0.1 with a certificate for localhost and these names.

    Attributes:
        authority: the PEM of the authority that signed its certificate.
        asked: set when `hold` was asked.
        go_on: ends the wait of `hold`.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, hosts: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        authority = Authority("tests")
        self.authority = authority.pair.certificate
        self.asked = threading.Event()
        self.go_on = threading.Event()
        self.closing = threading.Event()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            pair = authority.issue("webhook", hosts=["127.0.0.1", "localhost", *hosts], client=False)
            pair.write(Path(folder) / "server")
            self._tls.load_cert_chain(Path(folder) / "server.crt", Path(folder) / "server.key")

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the thread of the connection, so that a slow handshake holds nobody up."""
        request.settimeout(HANG_S * 2)
        with self._tls.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Callers that gave up are what some of the tests are about."""


@contextmanager
def serving(hosts: list[str]) -> Iterator[HttpsServer]:
    """A server that serves, for as long as it is needed."""
    with HttpsServer(hosts) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.go_on.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HttpsServer

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        path = self.path.partition("?")[0]
        if not path.startswith("/webhooks/"):
            self._answer(405, _status(405, "only reviews are posted here"))
            return
        behaviour = path.rpartition("/")[2]
        if behaviour == "error":
            self._answer(500, {})
            return
        if behaviour in ("slow", "hang") and self.server.closing.wait(HANG_S if behaviour == "hang" else SLOW_S):
            return
        if behaviour == "hold":
            self.server.asked.set()
            self.server.go_on.wait(HOLD_S)
        request = json.loads(sent)["request"]
        response: dict[str, Any] = {"uid": request["uid"], "allowed": behaviour != "deny"}
        if behaviour == "deny":
            response["status"] = {"message": DENIAL, "code": 403}
        elif "/mutating/" in path:
            response["patchType"] = "JSONPatch"
            response["patch"] = base64.b64encode(json.dumps(PATCH).encode()).decode()
        self._answer(200, {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[0] != "apis" or len(parts) < 3:
            self._answer(404, _status(404, "there is nothing here"))
            return
        group = f"{parts[1]}/{parts[2]}"
        if len(parts) == 3:
            resource = {
                "name": "widgets", "singularName": "widget", "namespaced": True, "kind": "Widget",
                "verbs": ["get", "list"],
            }  # fmt: skip
            listed = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": [resource]}
            self._answer(200, listed)
            return
        if parts[-1] == "broken":
            self.close_connection = True
            return
        if parts[-1] == "slow":
            self.server.closing.wait(SLOW_S)
        if parts[-1] == "missing":
            self._answer(404, _status(404, "there is no such widget"))
            return
        one = {"kind": "Widget", "apiVersion": group, "metadata": {"name": parts[-1]}}
        many = {"kind": "WidgetList", "apiVersion": group, "metadata": {}, "items": []}
        self._answer(200, many if parts[-1] == "widgets" else one)

    def _answer(self, code: int, document: Any) -> None:
        content = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what was asked is in the traces."""


def _status(code: int, message: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}
