"""An API server over real HTTPS with the few resources that reaching a cluster needs. A pod's container is a directory:
what is run in it by exec (real WebSocket, v4 or v5 channels) runs here with `K8S_TRACE_TUI_ROOT` set to that directory.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import selectors
import socket
import ssl
import struct
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.doubles.certificates import Authority

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455
TOKEN = "secret-token"
_POD = {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get", "list"]}
_DISCOVERY: dict[str, dict[str, Any]] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [_POD]},
}
"""As much as kubectl needs for pods."""


@dataclass
class StubApi:
    """What the server has and how it behaves; change it while it runs."""

    root: Path
    """The directory that stands for every node."""
    folder: Path
    """Where its certificate and the kubeconfig are written."""
    version: str = "v1.34.2"
    nodes: list[dict[str, Any]] = field(default_factory=list)
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By name, all in kube-system."""
    leases: list[dict[str, Any]] = field(default_factory=list)
    denied: set[str] = field(default_factory=set)
    """`create pods`, `get pods/exec`: neither reviewed as allowed nor done."""
    pod_security: bool = False
    """Pod security admission enforces `restricted`."""
    image_missing: bool = False
    ends_at_once: bool = False
    never_starts: bool = False
    away: bool = False
    """Connections are closed without an answer, as by a server that restarts."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)
    page: int = 500
    url: str = ""
    _server: ThreadingHTTPServer | None = None
    _sockets: set[socket.socket] = field(default_factory=set)

    def start(self) -> None:
        """Listen on a free port of loopback."""
        authority = Authority(self.folder)
        issued = authority.issue("stub-api")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.certificate, issued.key)
        stub = self

        class Handler(_Handler):
            api = stub

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is no error here."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.authority = authority.certificate

    def shown(self) -> list[dict[str, Any]]:
        """The pods; mirrors as the pocket kubelet below `root` has them, where one runs: late, and not always true."""
        for folder in (self.root / "run/pocket/mirror").glob("*"):
            told = json.loads(folder.read_text())
            for pod in self.pods.values():
                if pod["metadata"].get("labels", {}).get("component") == folder.name:
                    pod["metadata"]["annotations"]["kubernetes.io/config.hash"] = told["hash"]
                    pod["status"]["containerStatuses"][0]["ready"] = told["ready"]
                    pod["spec"]["containers"][0]["command"] = told["command"]
        return list(self.pods.values())

    def kubeconfig(self, token: str = TOKEN, authority: Path | None = None, plugin: str = "") -> Path:
        """A kubeconfig with the contexts `lab` (this server) and `other` (nobody); `plugin` is a shell script that says
        the credentials instead of a token."""
        file = self.folder / "kubeconfig"
        user: dict[str, Any] = {"token": token}
        if plugin:
            version = "client.authentication.k8s.io/v1"
            user = {"exec": {"apiVersion": version, "command": "/bin/sh", "args": ["-c", plugin]}}
        cluster = {"server": self.url, "certificate-authority": str(authority or self.authority)}
        file.write_text(
            json.dumps(  # JSON is YAML
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "lab",
                    "clusters": [
                        {"name": "lab-cluster", "cluster": cluster},
                        {"name": "other-cluster", "cluster": {"server": "http://127.0.0.1:1"}},
                    ],
                    "users": [{"name": "me", "user": user}],
                    "contexts": [
                        {"name": "lab", "context": {"cluster": "lab-cluster", "user": "me"}},
                        {"name": "other", "context": {"cluster": "other-cluster", "user": "me"}},
                    ],
                }
            )
        )
        return file

    def add_control_plane(self, node: str, **flags: str) -> None:
        """A node with the mirror pod of its API server and that one's lease."""
        label = "node-role.kubernetes.io/control-plane"
        taint = {"key": label, "effect": "NoSchedule"}
        self.nodes.append(
            {
                "metadata": {"name": node, "labels": {label: ""}},
                "spec": {"taints": [taint]},
                "status": {
                    "nodeInfo": {"kubeletVersion": self.version, "containerRuntimeVersion": "containerd://2.1.9"},
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            }
        )
        digest = hashlib.sha256(node.encode()).hexdigest()[:32]
        self.pods[f"kube-apiserver-{node}"] = {
            "metadata": {
                "name": f"kube-apiserver-{node}",
                "namespace": "kube-system",
                "uid": digest,
                "labels": {"component": "kube-apiserver", "tier": "control-plane"},
                "annotations": {"kubernetes.io/config.hash": digest, "kubernetes.io/config.mirror": digest},
            },
            "spec": {
                "nodeName": node,
                "containers": [
                    {
                        "name": "kube-apiserver",
                        "image": f"registry.k8s.io/kube-apiserver:{self.version}",
                        "command": ["kube-apiserver", *(f"--{k.replace('_', '-')}={v}" for k, v in flags.items())],
                    }
                ],
            },
            "status": {"phase": "Running", "containerStatuses": [{"ready": True, "restartCount": 2}]},
        }
        self.leases.append(
            {
                "metadata": {
                    "name": f"apiserver-{digest[:26]}",
                    "labels": {
                        "apiserver.kubernetes.io/identity": "kube-apiserver",
                        "kubernetes.io/hostname": node,
                    },
                }
            }
        )

    def ours(self) -> list[str]:
        """Names of the pods that are no mirrors."""
        return [name for name, pod in self.pods.items() if "annotations" not in pod["metadata"]]

    def cut(self) -> None:
        """Go away: close every connection, and answer no new one until `away` is False."""
        self.away = True
        for connection in list(self._sockets):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """End it."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    api: StubApi
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def setup(self) -> None:
        self.api._sockets.add(self.request)
        super().setup()

    def finish(self) -> None:
        self.api._sockets.discard(self.request)
        super().finish()

    # --- answering ---
    def _send(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _fail(self, status: int, message: str) -> None:
        self._send({"kind": "Status", "status": "Failure", "message": message, "code": status}, status)

    def _begin(self) -> tuple[str, dict[str, list[str]], Any] | None:
        api = self.api
        if api.away:
            self.close_connection = True
            return None
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        api.requests.append((self.command, parts.path))
        if "upgrade" not in (self.headers.get("Connection") or "").lower():
            api.agents.add(self.headers.get("User-Agent") or "")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._fail(401, "Unauthorized")
            return None
        return parts.path, parse_qs(parts.query), body

    def _denied(self, verb: str, resource: str) -> bool:
        if f"{verb} {resource}" not in self.api.denied:
            return False
        self._fail(403, f'{resource} is forbidden: User "me" cannot {verb} resource "{resource}" in API group ""')
        return True

    def _list(self, items: list[dict[str, Any]], query: dict[str, list[str]]) -> None:
        for selector in query.get("labelSelector", []):
            name, equals, value = selector.partition("=")
            items = [
                one
                for one in items
                if name in one["metadata"].get("labels", {})
                and (not equals or one["metadata"]["labels"][name] == value)
            ]
        begin = int(query.get("continue", ["0"])[0])
        size = min(self.api.page, int(query.get("limit", ["500"])[0]))
        more = {"continue": str(begin + size)} if begin + size < len(items) else {}
        self._send({"kind": "List", "metadata": more, "items": items[begin : begin + size]})

    def do_GET(self) -> None:
        begun = self._begin()
        if begun is None:
            return
        path, query, _ = begun
        api, words = self.api, path.strip("/").split("/")
        if path == "/version":
            self._send({"gitVersion": api.version, "major": "1"})
        elif path in _DISCOVERY:
            self._send(_DISCOVERY[path])
        elif words[:3] == ["api", "v1", "nodes"]:
            if self._denied("list" if len(words) == 3 else "get", "nodes"):
                return
            if len(words) == 3:
                self._list(api.nodes, query)
            else:
                self._one([one for one in api.nodes if one["metadata"]["name"] == words[3]], f'nodes "{words[3]}"')
        elif words[-1] == "leases":
            self._list(api.leases, query)
        elif words[-1] == "events":
            items = [{"metadata": {"name": "e"}, "reason": "FailedMount", "message": "no such disk"}]
            self._list(items if api.never_starts else [], query)
        elif words[4:5] == ["pods"] and len(words) == 5:
            if not self._denied("list", "pods"):
                self._list(api.shown(), query)
        elif words[4:5] == ["pods"] and len(words) == 6:
            if not self._denied("get", "pods"):
                pod = api.pods.get(words[5])
                self._one([pod] if pod else [], f'pods "{words[5]}"')
        elif words[-1] == "log":
            self._send({"log": words[5]})
        elif words[-1] == "exec":
            if self._denied("get", "pods/exec"):
                return
            if words[5] not in api.pods:
                self._fail(404, f'pods "{words[5]}" not found')
                return
            self._exec(query["command"])
        else:
            self._fail(404, "the server could not find the requested resource")

    def _one(self, found: list[dict[str, Any]], what: str) -> None:
        if found:
            self._send(found[0])
        else:
            self._fail(404, f"{what} not found")

    def do_POST(self) -> None:
        begun = self._begin()
        if begun is None:
            return
        path, query, body = begun
        api = self.api
        if path.endswith("/selfsubjectaccessreviews"):
            asked = body["spec"]["resourceAttributes"]
            what = asked["resource"] + (f"/{asked['subresource']}" if asked["subresource"] else "")
            self._send({**body, "status": {"allowed": f"{asked['verb']} {what}" not in api.denied}}, 201)
        elif path.endswith("/pods"):
            if self._denied("create", "pods"):
                return
            name = body["metadata"]["name"]
            if api.pod_security and body["spec"]["containers"][0]["securityContext"]["privileged"]:
                self._fail(403, f'pods "{name}" is forbidden: violates PodSecurity "restricted:latest": privileged')
                return
            if query.get("dryRun") != ["All"]:
                body["metadata"]["uid"] = hashlib.sha256(name.encode()).hexdigest()[:32]
                body["metadata"]["creationTimestamp"] = "2026-11-25T12:00:00Z"
                body["status"] = self._status(body)
                api.pods[name] = body
            self._send(body, 201)
        else:
            self._fail(404, "the server could not find the requested resource")

    def _status(self, pod: dict[str, Any]) -> dict[str, Any]:
        if self.api.image_missing:
            waiting = {"reason": "ErrImagePull", "message": f"pull {pod['spec']['containers'][0]['image']}: not found"}
            return {"phase": "Pending", "containerStatuses": [{"name": "node", "state": {"waiting": waiting}}]}
        if self.api.ends_at_once:
            return {"phase": "Failed", "reason": "NodeAffinity", "message": "node does not fit"}
        return {"phase": "Pending"} if self.api.never_starts else {"phase": "Running"}

    def do_DELETE(self) -> None:
        begun = self._begin()
        if begun is None:
            return
        path, _, body = begun
        name = path.rpartition("/")[2]
        if self._denied("delete", "pods"):
            return
        pod = self.api.pods.get(name)
        if pod is None:
            self._fail(404, f'pods "{name}" not found')
        elif body and body.get("preconditions", {}).get("uid", pod["metadata"]["uid"]) != pod["metadata"]["uid"]:
            self._fail(409, "the UID in the precondition does not match")
        else:
            del self.api.pods[name]
            self._send(pod)

    # --- exec ---
    def _exec(self, command: list[str]) -> None:
        key = self.headers["Sec-WebSocket-Key"] + _GUID
        offered = [one.strip() for one in self.headers["Sec-WebSocket-Protocol"].split(",")]
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.send_header("Sec-WebSocket-Protocol", offered[0])
        self.end_headers()
        self.close_connection = True
        assert command[:2] == ["chroot", "/host"]  # the directory stands for what chroot leads to
        process = subprocess.Popen(
            command[2:],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "K8S_TRACE_TUI_ROOT": str(self.api.root)},
        )
        threading.Thread(target=self._input, args=(process,), daemon=True).start()
        assert process.stdout is not None
        assert process.stderr is not None
        with selectors.DefaultSelector() as selector, suppress(OSError, ValueError):
            selector.register(process.stdout, selectors.EVENT_READ, 1)
            selector.register(process.stderr, selectors.EVENT_READ, 2)
            while selector.get_map():
                for found, _ in selector.select():
                    data = os.read(found.fd, 20_000)
                    if data:
                        self._frame(bytes([found.data]) + data)
                    else:
                        selector.unregister(found.fileobj)
            code = process.wait()
            status: dict[str, Any] = {"status": "Success"}
            if code:
                causes = [{"reason": "ExitCode", "message": str(code)}]
                status = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
            self._frame(b"\x03" + json.dumps(status).encode())
            self._frame(struct.pack(">H", 1000), opcode=8)

    def _frame(self, payload: bytes, opcode: int = 2) -> None:
        size = len(payload)
        length = bytes([size]) if size < 126 else struct.pack(">BH", 126, size)
        self.wfile.write(bytes([0x80 | opcode]) + length + payload)
        self.wfile.flush()

    def _input(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        with suppress(OSError, ValueError, struct.error), process.stdin:
            while True:
                first, second = self.rfile.read(2)
                size = second & 0x7F
                if size == 126:
                    (size,) = struct.unpack(">H", self.rfile.read(2))
                elif size == 127:
                    (size,) = struct.unpack(">Q", self.rfile.read(8))
                mask = self.rfile.read(4)
                data = self.rfile.read(size)
                plain = (int.from_bytes(data, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")).to_bytes(
                    size, "big"
                )
                if first & 0xF == 8:
                    return
                if plain[:1] == b"\0":
                    process.stdin.write(plain[1:])
                    process.stdin.flush()
