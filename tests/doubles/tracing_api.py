"""An API server over real HTTPS that decides about tracing as the real one does, and exports real OTLP.

The rules are those of kubernetes 1.22 to 1.37 (pkg/endpoints/filters/traces.go, component-base/tracing): from 1.33 on a
valid `traceparent` of a user in system:masters or system:monitoring is the parent and its sampled flag is obeyed; all
others get a new root that links to it and is sampled by the rate alone. Without a configuration nothing is exported,
and the context is passed through to etcd as it is. Since 1.33 an `authentication` root stands beside the request of
whoever may not bring a trace, and around the request of a privileged one who brought none.

Users come by bearer token, or by a client certificate of its authority (CN and O). Spans are shaped as in recordings of
1.36.2. etcd and the webhook export for themselves, each after its own delay.
"""

from __future__ import annotations

import base64
import json
import random
import re
import secrets
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.doubles.certificates import Authority, Certificate

ADMIN = "token-of-an-admin"
MONITOR = "token-of-a-monitor"
PLAIN = "token-of-somebody"
INSTANCE = "apiserver-wlv32tlttr4jl3gtroqexyxapa"
NODE = "cp1"

_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_TRUSTED = {"system:masters", "system:monitoring"}
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_LINE = "2026-11-22T12:00:00Z a line of a log\n"


@dataclass(frozen=True)
class User:
    """Who a credential belongs to."""

    name: str
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Context:
    """A span's place: its trace, its own id, its parent's ("" for none) and whether it is sampled."""

    trace_id: str
    span_id: str
    parent_id: str
    sampled: bool


def remote_context(traceparent: str | None) -> Context | None:
    """W3C Trace Context as OpenTelemetry's Go propagator reads it; None for what it ignores, all-zero ids too."""
    found = _TRACEPARENT.fullmatch(traceparent or "")
    if found is None:
        return None
    version, trace_id, span_id, flags = found.groups()
    if version == "ff" or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    if version == "00" and int(flags, 16) > 2:
        return None
    return Context(trace_id, span_id, "", bool(int(flags, 16) & 1))


@dataclass(frozen=True)
class SpanSketch:
    """A span before it is exported; times in ns since the epoch, `kind` as on the wire."""

    context: Context
    name: str
    kind: int
    scope: str
    start: int
    end: int
    attributes: dict[str, Any]
    link: Context | None = None
    status: int = 0


class Exporter:
    """A component's batches: what it recorded goes out every `delay` seconds, and is lost when nobody takes it. The
    first `lost` are lost in any case: while gRPC asks a DNS that does not answer."""

    def __init__(self, service: str, instance: str, endpoint: Callable[[], str], delay: float, lost: int = 0) -> None:
        self.lost = lost
        self._resource = {"service.name": service, **({"service.instance.id": instance} if instance else {})}
        self._endpoint = endpoint
        self._delay = delay
        self._spans: list[SpanSketch] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def record(self, *spans: SpanSketch) -> None:
        with self._lock:
            self._spans += [span for span in spans if span.context.sampled]

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._ended.wait(self._delay):
            with self._lock:
                batch, self._spans = self._spans[:512], self._spans[512:]
            if batch and self.lost:
                self.lost -= 1
            elif batch and self._endpoint():
                with suppress(grpc.RpcError), grpc.insecure_channel(self._endpoint()) as channel:
                    channel.unary_unary(_EXPORT, bytes, bytes)(self._message(batch), timeout=5)

    def _message(self, batch: list[SpanSketch]) -> bytes:
        request = ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        _attributes(resource.resource.attributes, self._resource)
        for name in dict.fromkeys(span.scope for span in batch):
            scope = resource.scope_spans.add()
            scope.scope.name = name
            for sketch in batch:
                if sketch.scope != name:
                    continue
                span = scope.spans.add()
                span.trace_id = bytes.fromhex(sketch.context.trace_id)
                span.span_id = bytes.fromhex(sketch.context.span_id)
                span.parent_span_id = bytes.fromhex(sketch.context.parent_id)
                span.name, span.kind, span.status.code = sketch.name, sketch.kind, sketch.status
                span.start_time_unix_nano, span.end_time_unix_nano = sketch.start, sketch.end
                _attributes(span.attributes, sketch.attributes)
                if sketch.link is not None:
                    link = span.links.add()
                    link.trace_id = bytes.fromhex(sketch.link.trace_id)
                    link.span_id = bytes.fromhex(sketch.link.span_id)
        return request.SerializeToString()


def _attributes(target: Any, values: dict[str, Any]) -> None:
    for key, value in values.items():
        attribute = target.add()
        attribute.key = key
        if isinstance(value, int):
            attribute.value.int_value = value
        else:
            attribute.value.string_value = str(value)


@dataclass
class TracingApi:
    """The server and how it behaves; change it while it runs."""

    folder: Path
    """Where its certificates and kubeconfigs are written."""
    endpoint: str = ""
    """`HOST:PORT` of a receiver; "" exports nothing."""
    version: str = "v1.36.2"
    configured: bool = True
    """A tracing configuration is there; False leaves its spans out, not etcd's."""
    per_million: int = 0
    etcd_traced: bool = True
    webhook_ms: int = 5
    """How long the webhook of a create takes; 0 for no webhook."""
    delay: float = 0.05
    """Seconds between the API server's exports; etcd takes twice, the webhook three times as long."""
    lost: int = 0
    """Batches that the API server and etcd lose first, each."""
    users: dict[str, User] = field(default_factory=dict)
    """By bearer token."""
    answers: dict[str, int] = field(default_factory=dict)
    """Path prefix to a status code that it answers instead."""
    denied: set[str] = field(default_factory=set)
    """`create certificatesigningrequests`, `update certificatesigningrequests/approval`: answered with 403."""
    mirror_pods: bool = True
    instances: tuple[str, ...] = ()
    """Identities of API servers that its leases name; none: it serves no leases."""
    slow: threading.Event = field(default_factory=threading.Event)
    """A GET of an object named `slow` is answered when this is set."""
    approves_after: float | None = None
    """Somebody else approves certificate requests after this many seconds."""
    denies: bool = False
    """Somebody denies every certificate request."""
    requests: list[tuple[str, str, dict[str, str], str]] = field(default_factory=list)
    """(method, target, headers in lower case, user's name) of all that came."""
    csrs: dict[str, dict[str, Any]] = field(default_factory=dict)
    url: str = ""

    def start(self) -> None:
        """Listen on a free port of loopback."""
        self.users = self.users or {
            ADMIN: User("kubernetes-super-admin", ("system:masters", "system:authenticated")),
            MONITOR: User("watcher", ("system:monitoring", "system:authenticated")),
            PLAIN: User("alice", ("kubeadm:cluster-admins", "system:authenticated")),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        self._authority = Authority(self.folder, "tracing authority")
        self.authority = self._authority.certificate
        issued = self._authority.issue("tracing-api")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.certificate, issued.key)
        context.load_verify_locations(self.authority)
        context.verify_mode = ssl.CERT_OPTIONAL
        self._apiserver = Exporter("apiserver", INSTANCE, lambda: self.endpoint, self.delay, self.lost)
        self._etcd = Exporter("etcd", "", lambda: self.endpoint, 2 * self.delay, self.lost)
        self._webhook = Exporter("policy-webhook", "", lambda: self.endpoint, 3 * self.delay)
        double = self

        class Handler(_Handler):
            api = double

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is no error here."""
                if not isinstance(sys.exc_info()[1], OSError):
                    super().handle_error(request, client_address)

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        for exporter in (self._apiserver, self._etcd, self._webhook):
            exporter.stop()

    def kubeconfig(
        self, token: str = ADMIN, context: str = "lab", server: str = "", namespace: str = "default"
    ) -> Path:
        """A kubeconfig whose only context comes with a token."""
        file = self.folder / f"kubeconfig-{token[-8:]}"
        cluster = {"server": server or self.url, "certificate-authority": str(self.authority)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": context,
            "clusters": [{"name": "lab-cluster", "cluster": cluster}],
            "users": [{"name": "me", "user": {"token": token}}],
            "contexts": [
                {"name": context, "context": {"cluster": "lab-cluster", "user": "me", "namespace": namespace}}
            ],
        }
        file.write_text(json.dumps(document))
        file.chmod(0o600)
        return file

    @property
    def minor(self) -> int:
        return int(self.version.split(".")[1])

    def issue(self, name: str) -> Certificate:
        """A client certificate of its authority, in no group."""
        return self._authority.issue(name)

    # --- what a request leaves ---------------------------------------------------------------------
    def trace(self, request: Served) -> None:
        """Record the spans of a request that ended."""
        remote = remote_context(request.headers.get("traceparent"))
        trusted = self.minor >= 33 and bool(_TRUSTED & set(request.user.groups))
        if not self.configured:
            if remote is not None and self.etcd_traced:  # 2.3: the no-op provider passes the context through
                self._record_etcd(request, remote)
            return
        if trusted and remote is not None:
            server = Context(remote.trace_id, _span(), remote.span_id, remote.sampled)
            self._record(request, server, None)
        elif trusted:
            root = self._root()
            server = Context(root.trace_id, _span(), root.span_id, root.sampled)
            self._record(request, server, None)
            self._apiserver.record(_authentication(root, request))
        elif self.minor >= 33:
            self._apiserver.record(_authentication(self._root(), request))
            self._record(request, self._root(), remote)
        else:
            self._record(request, self._root(), remote)

    def _root(self) -> Context:
        return Context(secrets.token_hex(16), _span(), "", random.random() * 1_000_000 < self.per_million)

    def _record(self, request: Served, server: Context, link: Context | None) -> None:
        start, end, step = request.start, request.end, max(1, (request.end - request.start) // 24)
        spans: list[SpanSketch] = []

        def add(above: Context, name: str, kind: int, scope: str, at: int, until: int, /, **attributes: Any) -> Context:
            own = Context(above.trace_id, _span(), above.span_id, above.sampled)
            named = {key.replace("__", ".").replace("_", "-"): value for key, value in attributes.items()}
            spans.append(SpanSketch(own, name, kind, scope, at, until, named))
            return own

        latency, base = "k8s.op/apiserver/pkg/endpoints/filterlatency", "k8s.io/component-base/tracing"
        http = "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
        method, code = ("http.request.method", "http.response.status_code")
        if self.minor < 35:
            method, code = "http.method", "http.status_code"
        attributes: dict[str, Any] = {
            method: request.method,
            code: request.code,
            "http.target": request.target,
            "user_agent.original": request.headers.get("user-agent", ""),
            **({"audit-id": request.audit_id[:64]} if self.minor >= 34 else {}),
        }
        name = "KubernetesAPI" if self.minor <= 30 else f"{request.method} {request.template}".rstrip()
        spans.append(SpanSketch(server, name, 2, http, start, end, attributes, link, 2 if request.code >= 500 else 0))
        above = server
        for depth, filter_name in enumerate(("audit", "impersonation", "priorityandfairness", "authorization"), 1):
            above = add(above, filter_name, 1, latency, start + depth * step, end - depth)
        if request.resource and request.code < 400:
            verb = {"GET": "Get" if request.name else "List", "POST": "Create", "DELETE": "Delete"}.get(
                request.method, "Update"
            )
            handler = add(
                above, verb, 1, base, start + 6 * step, end - 6, verb=verb.upper(), resource=request.resource,
                namespace=request.namespace, name=request.name, audit_id=request.audit_id[:64],
                user_agent=request.headers.get("user-agent", ""),
            )  # fmt: skip
            if request.hook is not None:
                began, ended = request.hook
                call = add(handler, "Call mutating webhook", 1, base, began, ended, webhook="policy.example.org")
                client = add(call, "HTTP POST", 3, http, began, ended, http__request__method="POST")
                hook = SpanSketch(
                    Context(client.trace_id, _span(), client.span_id, client.sampled),
                    "/mutate", 2, "policy", began, ended, {},
                )  # fmt: skip
                self._webhook.record(hook)
            self._record_etcd(request, handler, spans)
        self._apiserver.record(*reversed(spans))  # children end first

    def _record_etcd(self, request: Served, above: Context, spans: list[SpanSketch] | None = None) -> None:
        call = "etcdserverpb.KV/Range" if request.method == "GET" else "etcdserverpb.KV/Txn"
        scope = "go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
        middle = (request.end - request.start) // 4
        attributes = {"rpc.method": call, "rpc.system.name": "grpc"}
        start, end = request.end - 2 * middle, request.end - middle
        client = above
        if spans is not None:
            client = Context(above.trace_id, _span(), above.span_id, above.sampled)
            spans.append(SpanSketch(client, call, 3, scope, start, end, attributes))
        if self.etcd_traced:
            server = Context(client.trace_id, _span(), client.span_id, client.sampled)
            self._etcd.record(SpanSketch(server, call, 2, scope, start + 1000, end - 1000, attributes))

    # --- certificates ------------------------------------------------------------------------------
    def sign(self, csr: dict[str, Any]) -> None:
        """What the controller manager does with an approved request of kubernetes.io/kube-apiserver-client."""
        pem = self._authority.sign_client(
            base64.b64decode(csr["spec"]["request"]), csr["spec"].get("expirationSeconds", 365 * 86_400)
        )
        csr["status"]["certificate"] = base64.b64encode(pem).decode()


@dataclass
class Served:
    """A request as the server saw it; times in ns since the epoch, `hook` when its webhook was called and answered."""

    method: str
    target: str
    headers: dict[str, str]
    user: User
    audit_id: str
    start: int
    end: int = 0
    code: int = 0
    resource: str = ""
    namespace: str = ""
    name: str = ""
    template: str = ""
    hook: tuple[int, int] | None = None


def _span() -> str:
    return secrets.token_hex(8)


def _authentication(context: Context, request: Served) -> SpanSketch:
    scope = "k8s.op/apiserver/pkg/endpoints/filterlatency"
    return SpanSketch(context, "authentication", 1, scope, request.start - 100_000, request.end + 10_000, {})


def _listed(kind: str, items: list[Any]) -> dict[str, Any]:
    return {"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": "17"}, "items": items}


class _Handler(BaseHTTPRequestHandler):
    api: TracingApi
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    # --- who -----------------------------------------------------------------------------------------
    def _user(self) -> User | None:
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if bearer:
            return self.api.users.get(bearer)
        assert isinstance(self.connection, ssl.SSLSocket)
        certificate = self.connection.getpeercert()
        if not certificate:
            return None
        subject: Any = certificate["subject"]
        parts = [pair for relative in subject for pair in relative]
        names = [value for key, value in parts if key == "commonName"]
        groups = [value for key, value in parts if key == "organizationName"]
        return User(names[0], (*groups, "system:authenticated"))

    def _serve(self) -> None:
        start = time.time_ns()
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        headers = {key.lower(): value for key, value in self.headers.items()}
        user = self._user()
        self.api.requests.append((self.command, self.path, headers, user.name if user else ""))
        audit_id = headers.get("audit-id", "") or secrets.token_hex(16)
        served = Served(self.command, self.path, headers, user or User("", ()), audit_id, start)
        if user is None:  # before the server's span begins
            self._status(served, 401, "Unauthorized")
            return
        try:
            self._route(served, body)
        finally:
            served.end = time.time_ns()
            self.api.trace(served)

    # --- answering -----------------------------------------------------------------------------------
    def _send(self, served: Served, content: Any, code: int = 200, kind: str = "application/json") -> None:
        served.code = code
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Audit-Id", served.audit_id)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _status(self, served: Served, code: int, message: str, reason: str = "") -> None:
        document = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
            "reason": reason or {401: "Unauthorized", 403: "Forbidden", 404: "NotFound"}.get(code, ""), "code": code,
        }  # fmt: skip
        self._send(served, document, code)

    def _begin_stream(self, served: Served, kind: str) -> None:
        served.code = 200
        self.send_response(200)
        self.send_header("Audit-Id", served.audit_id)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _refused(self, served: Served, what: str) -> bool:
        if what not in self.api.denied:
            return False
        self._status(served, 403, f'User "{served.user.name}" cannot {what} at the cluster scope')
        return True

    def _route(self, served: Served, body: bytes) -> None:
        url = urlsplit(self.path)
        path, query = url.path, parse_qs(url.query)
        for prefix, code in self.api.answers.items():
            if path.startswith(prefix):
                served.template = path
                self._status(served, code, f"answered with {code} by the test")
                return
        if path == "/version":
            self._send(served, {"major": "1", "minor": str(self.api.minor), "gitVersion": self.api.version})
        elif path == "/api":
            self._send(served, {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
        elif path == "/apis":
            self._send(served, {"kind": "APIGroupList", "apiVersion": "v1", "groups": []})
        elif path == "/api/v1":
            names = (("nodes", "Node", False), ("pods", "Pod", True), ("configmaps", "ConfigMap", True))
            verbs = ["create", "delete", "get", "list", "watch", "patch", "update"]
            resources = [
                {"name": name, "singularName": "", "namespaced": inside, "kind": kind, "verbs": verbs}
                for name, kind, inside in names
            ]
            resources.append({**resources[1], "name": "pods/log", "verbs": ["get"]})
            self._send(
                served, {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": resources}
            )
        elif found := re.fullmatch(r"/apis/authentication\.k8s\.io/(v1\w*)/selfsubjectreviews", path):
            self._review(served, found[1])
        elif path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
            asked = json.loads(body)["spec"]["resourceAttributes"]
            resource = "/".join(filter(None, (asked.get("resource"), asked.get("subresource"))))
            allowed = f"{asked.get('verb')} {resource}" not in self.api.denied
            self._send(served, {"kind": "SelfSubjectAccessReview", "status": {"allowed": allowed}}, 201)
        elif self.api.instances and path == "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases":
            leases = [
                {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": NODE}}} for name in self.api.instances
            ]
            self._send(served, _listed("LeaseList", leases))
        elif path.startswith("/apis/certificates.k8s.io/v1/certificatesigningrequests"):
            self._certificates(served, path, body)
        elif found := re.fullmatch(r"/api/v1(?:/namespaces/([\w.-]+))?/(\w+)(?:/([\w.-]+))?(/log)?", path):
            served.namespace, served.resource, served.name = found[1] or "", found[2], found[3] or ""
            if path == f"/api/v1/namespaces/{found[2]}" and found[1] is None:
                served.resource = "namespaces"
            served.template = "/api/v1/" + "/".join(
                filter(
                    None,
                    ("namespaces/{:namespace}" if found[1] else "", served.resource, "{:name}" if served.name else ""),
                )
            )
            self._resource(served, query, bool(found[4]), body)
        else:
            self._status(served, 404, "the server could not find the requested resource")

    def _review(self, served: Served, version: str) -> None:
        first = {"v1": 28, "v1beta1": 27, "v1alpha1": 26}
        if self.api.minor < first.get(version, 99):
            self._status(served, 404, "the server could not find the requested resource")
            return
        info = {"username": served.user.name, "groups": list(served.user.groups)}
        self._send(served, {"kind": "SelfSubjectReview", "status": {"userInfo": info}}, 201)

    def _certificates(self, served: Served, path: str, body: bytes) -> None:
        resource = "certificatesigningrequests"
        name, _, sub = path.rpartition(f"/{resource}")[2].strip("/").partition("/")
        csrs = self.api.csrs
        if served.method == "POST":
            if self._refused(served, f"create {resource}"):
                return
            csr = json.loads(body)
            csr["metadata"].setdefault("name", csr["metadata"].get("generateName", "") + secrets.token_hex(3))
            csr["metadata"]["creationTimestamp"] = "2026-11-22T12:00:00Z"
            csr["status"] = {}
            csrs[csr["metadata"]["name"]] = csr
            if self.api.denies:
                csr["status"]["conditions"] = [{"type": "Denied", "status": "True", "message": "not today"}]
            elif self.api.approves_after is not None:
                threading.Timer(self.api.approves_after, self.api.sign, (csr,)).start()
            self._send(served, csr, 201)
        elif name not in csrs:
            self._status(served, 404, f"{resource} {name!r} not found")
        elif served.method == "PUT" and sub == "approval":
            if self._refused(served, f"update {resource}/approval"):
                return
            given = json.loads(body)
            csrs[name]["status"]["conditions"] = given["status"]["conditions"]
            if any(one["type"] == "Approved" for one in given["status"]["conditions"]):
                self.api.sign(csrs[name])
            self._send(served, csrs[name])
        elif served.method == "DELETE":
            self._send(served, csrs.pop(name))
        else:
            self._send(served, csrs[name])

    def _resource(self, served: Served, query: dict[str, list[str]], log: bool, body: bytes) -> None:
        if log:
            self._begin_stream(served, "text/plain")
            for _ in range(3):
                self._chunk(_LINE.encode())
            self._chunk(b"")
        elif query.get("watch") in (["true"], ["1"]):
            self._watch(served, float(query.get("timeoutSeconds", ["1"])[0]))
        elif served.method == "GET":
            self._read(served, query)
        elif served.method == "POST":
            made = json.loads(body)
            if self.api.webhook_ms:
                began = time.time_ns()
                time.sleep(self.api.webhook_ms / 1000)
                served.hook = (began, time.time_ns())
            self._send(served, made, 201)
        else:
            self._send(served, {"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def _read(self, served: Served, query: dict[str, list[str]]) -> None:
        kind = {"nodes": "Node", "pods": "Pod", "configmaps": "ConfigMap", "namespaces": "Namespace"}.get(
            served.resource, ""
        )
        if not kind:
            self._status(served, 404, "the server could not find the requested resource")
            return
        if served.name:
            if served.name == "slow":
                self.api.slow.wait(60)
            if served.name == "missing":
                self._status(served, 404, f'{served.resource} "{served.name}" not found')
                return
            self._send(served, self._object(kind, served.name, served.namespace))
            return
        items = [
            self._object(kind, NODE if kind == "Node" else f"{kind.lower()}-{n}", served.namespace) for n in (1, 2)
        ]
        if kind == "Node":
            items = items[:1]
        if query.get("labelSelector") == ["tier=control-plane"]:
            items = self._mirrors() if self.api.mirror_pods else []
        self._send(served, _listed(f"{kind}List", items))

    @staticmethod
    def _object(kind: str, name: str, namespace: str) -> dict[str, Any]:
        labels = {"node-role.kubernetes.io/control-plane": ""} if kind == "Node" else {}
        place = {"namespace": namespace or "default"} if kind in ("Pod", "ConfigMap") else {}
        meta = {"name": name, **place, "labels": labels, "uid": secrets.token_hex(4)}
        spec = {"containers": [{"name": "app", "image": "app:1"}]} if kind == "Pod" else {}
        return {"kind": kind, "apiVersion": "v1", "metadata": meta, "spec": spec, "status": {}}

    def _mirrors(self) -> list[dict[str, Any]]:
        flags = {
            "kube-apiserver": ["--tracing-config-file=/etc/kubernetes/tracing.yaml"] if self.api.configured else [],
            "etcd": ["--enable-distributed-tracing=true"] if self.api.etcd_traced else [],
        }
        images = {"kube-apiserver": f"registry/kube-apiserver:{self.api.version}", "etcd": "registry/etcd:3.6.4-0"}
        return [
            {
                "metadata": {
                    "name": f"{component}-{NODE}",
                    "namespace": "kube-system",
                    "labels": {"component": component, "tier": "control-plane"},
                    "annotations": {"kubernetes.io/config.hash": "1", "kubernetes.io/config.mirror": "1"},
                },
                "spec": {
                    "nodeName": NODE,
                    "containers": [{"name": component, "image": images[component], "command": [component, *more]}],
                },
                "status": {"phase": "Running", "containerStatuses": [{"ready": True, "restartCount": 0}]},
            }
            for component, more in flags.items()
        ]

    def _watch(self, served: Served, seconds: float) -> None:
        self._begin_stream(served, "application/json")
        until = time.monotonic() + seconds
        with suppress(OSError, socket.timeout):
            while time.monotonic() < until:
                event = {"type": "MODIFIED", "object": self._object("Pod", "pod-1", served.namespace)}
                self._chunk(json.dumps(event).encode() + b"\n")
                time.sleep(min(0.2, seconds))
            self._chunk(b"")
