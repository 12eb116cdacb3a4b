"""An API request as kube-apiserver 1.36, etcd and admission webhooks export it, built from chance.

Names, kinds, scopes, attributes, events and their order are those that kube-apiserver 1.36.2, etcd 3.5.30 and
a webhook with an OpenTelemetry SDK exported on a real node (OpenTelemetry Go contrib 0.67). What differs from
a real cluster is only who asks, when, and how long it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from receiver.ingest.demo_spans import (
    CLIENT,
    GRPC_SCOPE,
    HTTP_SCOPE,
    INTERNAL,
    MS,
    SERVER,
    US,
    Attribute,
    Context,
    Process,
    S,
    Scope,
    Spans,
)

FILTER_SCOPE: Final = Scope("k8s.op/apiserver/pkg/endpoints/filterlatency")  # "k8s.op" is Kubernetes' own typo
API_SCOPE: Final = Scope("k8s.io/component-base/tracing")
ETCD_SCOPE: Final = Scope("go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc", "0.68.0")

PROTOBUF: Final = "application/vnd.kubernetes.protobuf"


# --- what is asked for ---------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Kind:
    """A resource of the API."""

    group: str
    version: str
    resource: str
    go_type: str  # what `type` says on etcd3 spans
    prefix: str = ""  # below the registry's root, where it is not the resource's name

    @property
    def group_version(self) -> str:
        """`apps/v1`; `v1` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def registry(self) -> str:
        """Where its objects are kept in etcd, below the registry's root."""
        return f"/{self.prefix or self.resource}"

    @property
    def cache(self) -> str:
        """`deployments.apps`: the watch cache's name for it."""
        return f"{self.resource}.{self.group}" if self.group else self.resource


PODS: Final = Kind("", "v1", "pods", "*core.Pod")
NODES: Final = Kind("", "v1", "nodes", "*core.Node", "minions")
NAMESPACES: Final = Kind("", "v1", "namespaces", "*core.Namespace")
SERVICES: Final = Kind("", "v1", "services", "*core.Service", "services/specs")
CONFIGMAPS: Final = Kind("", "v1", "configmaps", "*core.ConfigMap")
SECRETS: Final = Kind("", "v1", "secrets", "*core.Secret")
EVENTS: Final = Kind("", "v1", "events", "*core.Event")
SERVICEACCOUNTS: Final = Kind("", "v1", "serviceaccounts", "*core.ServiceAccount")
ENDPOINTSLICES: Final = Kind("discovery.k8s.io", "v1", "endpointslices", "*discovery.EndpointSlice")
DEPLOYMENTS: Final = Kind("apps", "v1", "deployments", "*apps.Deployment")
REPLICASETS: Final = Kind("apps", "v1", "replicasets", "*apps.ReplicaSet")
LEASES: Final = Kind("coordination.k8s.io", "v1", "leases", "*coordination.Lease")
CLUSTERROLES: Final = Kind("rbac.authorization.k8s.io", "v1", "clusterroles", "*rbac.ClusterRole")
ACCESS_REVIEWS: Final = Kind("authorization.k8s.io", "v1", "subjectaccessreviews", "*authorization.SubjectAccessReview")
WIDGETS: Final = Kind("example.com", "v1", "widgets", "*unstructured.Unstructured", "example.com/widgets")

_METHODS: Final = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "apply": "PATCH",
    "delete": "DELETE",
}
_RECORDED_VERBS: Final = {"list": "LIST", "watch": "WATCH", "apply": "APPLY"}
"""The `verb` attribute of 1.36 where it is not simply the HTTP method."""
_VERB_SPANS: Final = {
    "get": "Get",
    "list": "List",
    "create": "Create",
    "update": "Update",
    "patch": "Patch",
    "apply": "Patch",
    "delete": "Delete",
}


@dataclass(frozen=True, slots=True)
class Target:
    """What a request asks for. `name` is given for a create too: it names the object, not the URL."""

    verb: str  # a key of _METHODS
    kind: Kind | None  # None: a URL that is no resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    query: str = ""
    path: str = ""  # of a URL that is no resource

    @property
    def method(self) -> str:
        """The HTTP method."""
        return _METHODS[self.verb]

    @property
    def url_name(self) -> str:
        """The name that the URL has: none where an object is created or objects are listed or watched."""
        if self.verb in ("list", "watch") or (self.verb == "create" and not self.subresource):
            return ""
        return self.name

    @property
    def url(self) -> str:
        """The path, without the query."""
        return self._path(self.kind, self.namespace if self.kind is not NAMESPACES else "", self.url_name)

    @property
    def target(self) -> str:
        """Path and query, as `http.target` has them."""
        return f"{self.url}?{self.query}" if self.query else self.url

    @property
    def span_name(self) -> str:
        """Name of the server span: the method and, for a resource, the template of the path (since 1.31)."""
        if self.kind is None:
            return self.method
        # RequestInfo counts a named namespace as lying in itself, and the template shows it
        inside = self.namespace or (self.kind is NAMESPACES and self.url_name)
        named = "{:name}" if self.url_name else ""
        return f"{self.method} {self._path(self.kind, '{:namespace}' if inside else '', named)}"

    @property
    def key(self) -> str:
        """Where the object is kept in etcd, below the registry's root."""
        assert self.kind is not None
        return "/".join(part for part in (self.kind.registry, self.namespace, self.name) if part)

    def _path(self, kind: Kind | None, namespace: str, name: str) -> str:
        if kind is None:
            return self.path
        parts = [f"/apis/{kind.group}" if kind.group else "/api", kind.version]
        if namespace:
            parts += ["namespaces", namespace]
        return "/".join([*parts, *(part for part in (kind.resource, name, self.subresource) if part)])


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. One in system:masters gets one trace rooted at `authentication`; every other caller two: a
    lone `authentication` and the request (since 1.34)."""

    agent: str
    address: str
    accept: str = f"{PROTOBUF}, */*"
    privileged: bool = False
    protocol: str = "HTTP/2.0"

    @property
    def media_type(self) -> str:
        """What the answer is encoded as."""
        return PROTOBUF if PROTOBUF in self.accept else "application/json"


@dataclass(frozen=True, slots=True)
class Hook:
    """An admission webhook and the process behind it, None where nobody answers."""

    mutating: bool
    configuration: str
    webhook: str
    host: str
    path: str
    timeout: int  # seconds
    process: Process | None
    scope: Scope

    @property
    def query(self) -> str:
        """Path and query of the call."""
        return f"{self.path}?timeout={self.timeout}s"

    @property
    def url(self) -> str:
        """As the API server calls it."""
        return f"https://{self.host}:443{self.query}"


@dataclass(frozen=True, slots=True)
class Visit:
    """One call of a hook: how long its handler takes (ns), how it ends (ok, deny, timeout, refused) and why."""

    hook: Hook
    takes: int
    outcome: str = "ok"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Story:
    """What is particular about a request. Zero means: as usual."""

    code: int = 0
    visits: Sequence[Visit] = ()
    size: int = 0  # of the answer, bytes
    items: int = 0  # of a list
    encoding: int = 0  # ns
    queued: int = 0  # ns in the queue of priority-and-fairness
    retries: int = 0  # conflicts that the API server resolves itself
    message: str = ""  # why it failed
    cached: bool = False  # answered from the watch cache (resourceVersion=0)
    lasts: int = 0  # ns that a watch stays open
    stored: bool = True  # False: nothing is written (reviews)


@dataclass(frozen=True, slots=True)
class Plane:
    """The API server that is asked, the etcd member it talks to, and until when that etcd answers nothing
    (a function of the time, ns since the start of the run; a time that is past: it answers)."""

    api: Process
    etcd: Process
    held: Callable[[int], int] = field(default=lambda at: 0, compare=False)


# --- etcd ----------------------------------------------------------------------------------------
def call_etcd(spans: Spans, at: int, plane: Plane, method: str, parent: Span | None = None) -> int:
    """Both sides of one call to etcd; returns when the API server has its answer.

    While etcd is held, its own span is short and late: the gap between the two is the stall.
    """
    name = f"etcdserverpb.{method}"
    attributes: dict[str, Attribute] = {
        "rpc.method": name,
        "rpc.system.name": "grpc",
        "server.address": "127.0.0.1",
        "server.port": plane.etcd.port,
        "rpc.response.status_code": "OK",
    }
    client = spans.open(plane.api, GRPC_SCOPE, name, CLIENT, at, parent, attributes)
    now = max(at, plane.held(at)) + spans.between(120 * US, 700 * US)
    server = spans.open(plane.etcd, ETCD_SCOPE, name, SERVER, now, client, attributes, remote=True)
    now += spans.between(180 * US, 3 * MS)
    spans.close(server, now)
    now += spans.between(90 * US, 500 * US)
    spans.close(client, now)
    return now


# --- the request ---------------------------------------------------------------------------------
def request(
    spans: Spans,
    at: int,
    plane: Plane,
    caller: Caller,
    target: Target,
    story: Story | None = None,
    *,
    origin: Context | Span | None = None,
    loopback: bool = False,
) -> int:
    """One API request from its first filter to its last byte; returns when it was over.

    `origin` is the context that came with it: the parent for a privileged caller, a link for any other (since
    1.33). `loopback`: the API server calls itself, and its own client span is the root.
    """
    story = story or Story()
    if loopback:
        client = spans.open(plane.api, HTTP_SCOPE, f"HTTP {target.method}", CLIENT, at)
        url = f"https://[::1]:{plane.api.port}{target.target}"
        spans.add(client, _client_attributes(target.method, url, "::1", plane.api.port))
        exchange = _Exchange(spans, plane, caller, target, story)
        now = exchange.serve(at + spans.between(150 * US, 600 * US), client, remote=True)
        now += spans.between(100 * US, 500 * US)
        answer(spans, client, exchange.code)
        spans.close(client, now)
        return now
    exchange = _Exchange(spans, plane, caller, target, story)
    if caller.privileged and origin:
        return exchange.serve(at, origin, remote=True)
    outer = spans.open(plane.api, FILTER_SCOPE, "authentication", INTERNAL, at)
    now = at + spans.between(80 * US, 420 * US)
    now = exchange.serve(now, outer if caller.privileged else None, link=origin)
    now += spans.between(8 * US, 30 * US)
    spans.close(outer, now)
    return now


def call_api(
    spans: Spans,
    at: int,
    client: Process,
    plane: Plane,
    caller: Caller,
    target: Target,
    story: Story | None = None,
    parent: Span | None = None,
) -> int:
    """A request of a component that traces its own calls, as the kubelet does: its client span, and the
    request in a trace of its own that links back, because a kubelet is not privileged."""
    span = spans.open(client, HTTP_SCOPE, f"HTTP {target.method}", CLIENT, at, parent)
    url = f"https://{plane.api.address}:{plane.api.port}{target.target}"
    spans.add(span, _client_attributes(target.method, url, plane.api.address, plane.api.port))
    now = request(spans, at + spans.between(200 * US, 600 * US), plane, caller, target, story, origin=span)
    now += spans.between(150 * US, 500 * US)
    answer(spans, span, (story or Story()).code or _usual_code(target.verb))
    spans.close(span, now)
    return now


def answer(spans: Spans, client: Span, code: int) -> None:
    """What an HTTP client span says about the answer."""
    spans.add(client, {"http.response.status_code": code})
    if code >= 400:
        spans.add(client, {"error.type": str(code)})
        spans.fail(client)


def _usual_code(verb: str) -> int:
    return 201 if verb == "create" else 200


def _client_attributes(method: str, url: str, address: str, port: int) -> dict[str, Attribute]:
    return {
        "http.request.method": method,
        "url.full": url,
        "server.address": address,
        "server.port": port,
        "network.protocol.version": "1.1",
    }


class _Exchange:
    """The spans of one request inside the API server. Each step takes a time and returns a later one."""

    def __init__(self, spans: Spans, plane: Plane, caller: Caller, target: Target, story: Story) -> None:
        self.spans = spans
        self.plane = plane
        self.caller = caller
        self.target = target
        self.story = story
        self.code = story.code or _usual_code(target.verb)
        self.audit = spans.uuid()
        good = self.code < 400
        self.size = (story.size or spans.between(280, 9000)) if good else spans.between(150, 480)

    def serve(
        self, at: int, parent: Span | Context | None, *, remote: bool = False, link: Context | Span | None = None
    ) -> int:
        """The server span and everything below it."""
        spans, target, caller = self.spans, self.target, self.caller
        server = spans.open(self.plane.api, HTTP_SCOPE, target.span_name, SERVER, at, parent, remote=remote)
        spans.add(
            server,
            {
                "server.address": self.plane.api.address,
                "http.request.method": target.method,
                "url.scheme": "https",
                "server.port": self.plane.api.port,
                "network.peer.address": caller.address,
                "network.peer.port": 32768 + spans.random.randrange(28000),
                "user_agent.original": caller.agent,
                "client.address": caller.address,
                "url.path": target.url,
                "network.protocol.version": caller.protocol.removeprefix("HTTP/"),
                "http.target": target.target,
                "audit-id": self.audit,
            },
        )
        if link is not None:
            spans.link(server, link)
        now = at + spans.between(6 * US, 18 * US)
        filters = [server]
        for name, low, high in (
            ("audit", 3 * US, 8 * US),
            ("constrainedimpersonation", 4 * US, 9 * US),
            ("priorityandfairness", 40 * US, 200 * US),
            ("authorization", 70 * US, 260 * US),
        ):
            filters.append(spans.open(self.plane.api, FILTER_SCOPE, name, INTERNAL, now, filters[-1]))
            now += spans.between(low, high) + (self.story.queued if name == "priorityandfairness" else 0)
        now = self._handle(now, filters.pop())
        for span in reversed(filters[1:]):
            now += spans.between(4 * US, 20 * US)
            spans.close(span, now)
        now += spans.between(5 * US, 12 * US)
        if target.method != "GET":
            spans.add(server, {"http.request.body.size": spans.between(60, 2400)})
        spans.add(server, {"http.response.body.size": self.size, "http.response.status_code": self.code})
        if self.code >= 500:
            spans.fail(server)
        spans.close(server, now)
        return now

    def _handle(self, at: int, authorization: Span) -> int:
        """Inside the innermost filter, which this closes."""
        now = at
        refused = self.code == 403 and not self.story.visits
        if self.target.kind is None:
            self.size = self.story.size or 2
            now += self.spans.between(30 * US, 400 * US)
        elif refused or (self.code >= 400 and self.target.verb in ("list", "watch")):
            now = self._serialize(now, authorization)  # no handler was reached
        elif self.target.verb == "watch":
            now = self._watch(now, authorization)
        else:
            now = self._verb(now, authorization)
        now += self.spans.between(4 * US, 20 * US)
        self.spans.close(authorization, now)
        return now

    def _internal(self, name: str, at: int, parent: Span, attributes: dict[str, Attribute]) -> Span:
        return self.spans.open(self.plane.api, API_SCOPE, name, INTERNAL, at, parent, attributes)

    def _verb(self, at: int, parent: Span) -> int:
        """The span of the handler and everything below it."""
        spans = self.spans
        now = at + spans.between(60 * US, 250 * US)
        verb = self._internal(_VERB_SPANS[self.target.verb], now, parent, self._verb_attributes())
        steps = {
            "get": self._get,
            "list": self._list,
            "delete": self._delete,
            "patch": self._patch,
            "apply": self._patch,
            "create": self._store,
            "update": self._store,
        }
        now = steps[self.target.verb](now, verb)
        told = self.code < 400 and self.target.verb != "list"  # the List span of 1.36 has no events
        if told:
            spans.event(verb, now, "About to write a response")
        now = self._serialize(now, verb) + spans.between(6 * US, 30 * US)
        if told:
            spans.event(verb, now, "Writing http response done")
        spans.close(verb, now)
        return now

    def _verb_attributes(self) -> dict[str, Attribute]:
        target, caller = self.target, self.caller
        assert target.kind is not None
        scope = "resource"
        if target.verb in ("list", "watch"):
            scope = "namespace" if target.namespace else "cluster"
        return {
            "accept": caller.accept,
            "audit-id": self.audit,
            "client": caller.address,
            "api-group": target.kind.group,
            "api-version": target.kind.version,
            "name": target.url_name,
            "subresource": target.subresource,
            "namespace": target.url_name if target.kind is NAMESPACES else target.namespace,
            "protocol": caller.protocol,
            "resource": target.kind.resource,
            "scope": scope,
            "url": target.url,
            "user-agent": caller.agent,
            "verb": _RECORDED_VERBS.get(target.verb, target.method),
        }

    # --- reading ---
    def _get(self, at: int, verb: Span) -> int:
        spans = self.spans
        now = at + spans.between(8 * US, 25 * US)
        spans.event(verb, now, "About to Get from storage")
        return self._cacher_get(now + spans.between(5 * US, 20 * US), verb)

    def _cacher_get(self, at: int, parent: Span) -> int:
        spans, cached = self.spans, self.story.cached
        get = self._internal(
            "cacher.Get",
            at,
            parent,
            {"audit-id": self.audit, "key": self.target.key, "resource-version": "0" if cached else ""},
        )
        now = at + spans.between(1 * US, 3 * US)
        if cached:
            spans.event(get, now, "About to fetch object from cache")
            now += spans.between(8 * US, 40 * US)
        else:
            spans.event(get, now, "About to Get from underlying storage")
            now = call_etcd(spans, now + spans.between(60 * US, 150 * US), self.plane, "KV/Range", get)
            now += spans.between(30 * US, 120 * US)
        spans.close(get, now)
        return now + spans.between(5 * US, 40 * US)

    def _list(self, at: int, verb: Span) -> int:
        spans, kind = self.spans, self.target.kind
        assert kind is not None
        now = at + spans.between(80 * US, 300 * US)
        listing = self._internal("cacher.GetList", now, verb, {"audit-id": self.audit, "type": kind.cache})
        spans.event(listing, now + 6 * US, "Ready")
        now += spans.between(20 * US, 60 * US)
        if not self.story.cached:
            now = self._check_revision(now, listing, kind)
        spans.event(listing, now, "watchCache locked acquired")
        now += spans.between(10 * US, 900 * US)
        spans.event(listing, now, "watchCache fresh enough")
        items = self.story.items or spans.between(3, 60)
        now += 30 * US + items * 400
        spans.event(listing, now, "Listed items from cache", {"count": items})
        now += 15 * US + items * 100
        spans.event(listing, now, "Resized result")
        now += 20 * US + items * 900
        spans.event(listing, now, "Filtered items", {"count": items})
        now += spans.between(5 * US, 15 * US)
        spans.close(listing, now)
        return now + spans.between(20 * US, 90 * US)

    def _check_revision(self, at: int, parent: Span, kind: Kind) -> int:
        """One Range with limit 1: the watch cache asks for the newest revision (consistent reads, since 1.31)."""
        check = self._internal(
            "List(recursive=false) etcd3",
            at,
            parent,
            {
                "audit-id": self.audit,
                "key": kind.registry,
                "resourceVersion": "",
                "resourceVersionMatch": "",
                "limit": 1,
                "continue": "",
            },
        )
        now = call_etcd(self.spans, at + self.spans.between(60 * US, 140 * US), self.plane, "KV/Range", check)
        self.spans.close(check, now)
        return now + self.spans.between(5 * US, 20 * US)

    def _watch(self, at: int, parent: Span) -> int:
        """A watch: short spans at once; the filters and the server span end only when it closes."""
        spans, target = self.spans, self.target
        assert target.kind is not None
        now = at + spans.between(60 * US, 200 * US)
        if "sendInitialEvents" not in target.query:
            watch = self._internal("cacher.Watch", now, parent, {"audit-id": self.audit, "type": target.kind.cache})
            now += spans.between(20 * US, 90 * US)
            spans.close(watch, now)
            return max(now, at + self.story.lasts)
        listing = self._internal("WatchList", now, parent, self._verb_attributes())
        now += spans.between(12 * US, 25 * US)
        watch = self._internal("cacher.Watch", now, listing, {"audit-id": self.audit, "type": target.kind.cache})
        now = self._check_revision(now + spans.between(20 * US, 60 * US), watch, target.kind)
        spans.event(watch, now, "watchCache locked acquired")
        now += spans.between(15 * US, 500 * US)
        spans.event(watch, now, "watchCache fresh enough")
        now += 10 * US
        spans.close(watch, now)
        now += spans.between(60 * US, 140 * US)
        stream = self._internal(
            "WatchServer.HandleHTTP", now, listing, self._encoding("raw-protobuf", f"{PROTOBUF};stream=watch")
        )
        now += spans.between(130 * US, 800 * US)
        spans.event(stream, now, "About to start writing response")
        now += spans.between(100 * US, 500 * US)
        spans.event(stream, now, "Writing initial events done")
        spans.close(stream, now)
        now += 5 * US
        spans.close(listing, now)
        return max(now, at + self.story.lasts)

    # --- writing ---
    def _delete(self, at: int, verb: Span) -> int:
        spans = self.spans
        now = at + spans.between(30 * US, 90 * US)
        spans.event(verb, now, "limitedReadBody succeeded", {"len": 51})
        now += spans.between(60 * US, 140 * US)
        spans.event(verb, now, "Decoded delete options")
        spans.event(verb, now + 3 * US, "Recorded the audit event")
        now += 9 * US
        spans.event(verb, now, "About to delete object from database")
        now = self._cacher_get(now + spans.between(60 * US, 200 * US), verb)
        now = call_etcd(spans, now + spans.between(80 * US, 260 * US), self.plane, "KV/Txn", verb)
        now += spans.between(20 * US, 90 * US)
        spans.event(verb, now, "Object deleted from database")
        return now + 3 * US

    def _patch(self, at: int, verb: Span) -> int:
        spans = self.spans
        now = at + spans.between(20 * US, 80 * US)
        spans.event(verb, now, "limitedReadBody succeeded", {"len": spans.between(60, 1600)})
        now += spans.between(6 * US, 40 * US)
        spans.event(verb, now, "Recorded the audit event")
        now += spans.between(60 * US, 180 * US)
        update = self._etcd3("GuaranteedUpdate etcd3", now, verb)
        now += spans.between(20 * US, 90 * US)
        spans.event(update, now, "initial value restored")
        for attempt in range(self.story.retries + 1):
            now += spans.between(40 * US, 160 * US)
            spans.event(verb, now, "About to apply patch")
            now += spans.between(200 * US, 1800 * US)
            spans.event(verb, now, "About to check admission control")
            if attempt == 0:
                now = self._admission(now, verb)
            now = self._transaction(now, update, last=attempt == self.story.retries)
        now += spans.between(40 * US, 160 * US)
        spans.event(verb, now, "Object stored in database")
        return now + 3 * US

    def _store(self, at: int, verb: Span) -> int:
        """Create and update: they read a body, convert it, let it be admitted and write it."""
        spans = self.spans
        length = spans.between(65, 1600)
        now = at + spans.between(30 * US, 200 * US)
        spans.event(verb, now, "limitedReadBody succeeded", {"len": length})
        now += spans.between(15 * US, 40 * US)
        spans.event(verb, now, "About to convert to expected version")
        now += spans.between(30 * US, 240 * US)
        spans.event(verb, now, "Conversion done")
        now += 8 * US
        spans.event(verb, now, "About to store object in database")
        now = self._admission(now, verb)
        if self.story.stored and not any(visit.outcome in ("deny", "refused") for visit in self.story.visits):
            creates = self.target.verb == "create" and not self.target.subresource
            now = self._create_etcd3(now, verb) if creates else self._update_etcd3(now, verb)
        now += spans.between(15 * US, 90 * US)
        if self.code < 400:
            spans.event(verb, now, "Write to database call succeeded", {"len": length})
        else:
            failed: dict[str, Attribute] = {"len": length, "err": self.story.message}
            spans.event(verb, now, "Write to database call failed", failed)
        return now + 2 * US

    def _create_etcd3(self, at: int, verb: Span) -> int:
        spans = self.spans
        now = at + spans.between(100 * US, 500 * US)
        create = self._etcd3("Create etcd3", now, verb)
        now += spans.between(4 * US, 12 * US)
        spans.event(create, now, "About to Encode")
        now += spans.between(20 * US, 60 * US)
        spans.event(create, now, "Encode succeeded", {"len": self.size})
        spans.event(create, now + 2 * US, "TransformToStorage succeeded")
        now = call_etcd(spans, now + spans.between(60 * US, 120 * US), self.plane, "KV/Txn", create)
        now += spans.between(15 * US, 40 * US)
        spans.event(create, now, "Txn call succeeded")
        if self.code == 409:  # it is there already: the API server reads what is
            spans.close(create, now)
            return self._cacher_get(now + spans.between(20 * US, 60 * US), verb)
        now += spans.between(15 * US, 40 * US)
        spans.event(create, now, "decode succeeded", {"len": self.size})
        spans.close(create, now)
        return now

    def _update_etcd3(self, at: int, verb: Span) -> int:
        spans = self.spans
        now = at + spans.between(80 * US, 400 * US)
        update = self._etcd3("GuaranteedUpdate etcd3", now, verb)
        now += spans.between(15 * US, 110 * US)
        spans.event(update, now, "initial value restored")
        if self.code == 409:  # the object moved on since the client read it: look again, give up
            now = call_etcd(spans, now + spans.between(300 * US, 6 * MS), self.plane, "KV/Range", update)
            now += 20 * US
            spans.close(update, now)
            return now
        for attempt in range(self.story.retries + 1):
            now = self._transaction(now + spans.between(100 * US, 900 * US), update, last=attempt == self.story.retries)
        return now

    def _transaction(self, at: int, update: Span, *, last: bool) -> int:
        """One attempt of a GuaranteedUpdate; one that is not the last met a conflict."""
        spans = self.spans
        now = at + spans.between(20 * US, 60 * US)
        spans.event(update, now, "About to Encode")
        now += spans.between(10 * US, 45 * US)
        spans.event(update, now, "Encode succeeded", {"len": self.size})
        spans.event(update, now + US, "TransformToStorage succeeded")
        spans.event(update, now + 2 * US, "Transaction prepared")
        now = call_etcd(spans, now + spans.between(60 * US, 200 * US), self.plane, "KV/Txn", update)
        now += spans.between(10 * US, 60 * US)
        spans.event(update, now, "Txn call completed")
        now += US
        spans.event(update, now, "Transaction committed")
        now += spans.between(15 * US, 60 * US)
        if last:
            spans.event(update, now, "decode succeeded", {"len": self.size})
            spans.close(update, now)
        else:
            spans.event(update, now, "Retry value restored")
        return now

    def _etcd3(self, name: str, at: int, verb: Span) -> Span:
        kind = self.target.kind
        assert kind is not None
        return self._internal(
            name,
            at,
            verb,
            {
                "audit-id": self.audit,
                "key": self.target.key,
                "type": kind.go_type,
                "group": kind.group,
                "resource": kind.resource,
            },
        )

    # --- admission ---
    def _admission(self, at: int, verb: Span) -> int:
        """The hooks one after the other, as the API server calls mutating ones; one that refuses ends it."""
        spans, kind = self.spans, self.target.kind
        assert kind is not None
        now = at + spans.between(200 * US, 900 * US)
        for visit in self.story.visits:
            hook = visit.hook
            call = self._internal(
                f"Call {'mutating' if hook.mutating else 'validating'} webhook",
                now,
                verb,
                {
                    "configuration": hook.configuration,
                    "webhook": hook.webhook,
                    "resource": f"{kind.group}/{kind.version}, Resource={kind.resource}",
                    "subresource": self.target.subresource,
                    "operation": "CREATE" if self.target.verb == "create" else "UPDATE",
                    "UID": spans.uuid(),
                },
            )
            now = self._visit(now + spans.between(140 * US, 500 * US), call, visit)
            if visit.outcome in ("ok", "deny"):
                now += spans.between(200 * US, 500 * US)
                spans.event(call, now, "Request completed")
            if visit.outcome == "ok" and hook.mutating:
                now += spans.between(140 * US, 330 * US)
                spans.event(call, now, "Patch applied")
            now += spans.between(10 * US, 60 * US)
            spans.close(call, now)
            if visit.outcome in ("deny", "refused"):
                break
            now += spans.between(100 * US, 400 * US)
        return now

    def _visit(self, at: int, call: Span, visit: Visit) -> int:
        """The HTTP call of a hook and, where somebody answers, the hook's own spans."""
        spans, hook = self.spans, visit.hook
        client = spans.open(self.plane.api, HTTP_SCOPE, "HTTP POST", CLIENT, at, call)
        spans.add(client, _client_attributes("POST", hook.url, hook.host, 443))
        if hook.process is None or visit.outcome == "refused":
            now = at + visit.takes
            spans.add(client, {"error.type": "*net.OpError"})
            spans.fail(client, visit.reason)
            spans.close(client, now)
            return now
        now = at + spans.between(800 * US, 4 * MS)
        server = spans.open(hook.process, hook.scope, f"POST {hook.path}", SERVER, now, client, remote=True)
        spans.add(server, {"http.request.method": "POST", "url.path": hook.query})
        now += spans.between(40 * US, 120 * US)
        decide = spans.open(hook.process, hook.scope, "decide", INTERNAL, now, server)
        spans.add(decide, {"k8s.namespace.name": self.target.namespace})
        now += visit.takes
        spans.close(decide, now)
        now += spans.between(200 * US, 700 * US)
        if visit.outcome == "timeout":
            # the API server gives up at its timeout; the hook works on and notices when it answers
            self._exception(server, now, "BrokenPipeError", "[Errno 32] Broken pipe", "BrokenPipeError: Broken pipe")
            spans.close(server, now + 40 * US)
            gone = at + hook.timeout * S + spans.between(200 * US, 900 * US)
            spans.add(client, {"error.type": "context.deadlineExceededError"})
            spans.fail(client, "context deadline exceeded")
            spans.close(client, gone)
            return gone
        if visit.outcome == "deny":
            self._exception(server, now, "PolicyViolation", visit.reason, "denied")
        spans.close(server, now)
        now += spans.between(300 * US, 1500 * US)
        answer(spans, client, 200)  # a denial is an answer like any other
        spans.close(client, now)
        return now

    def _exception(self, span: Span, at: int, kind: str, message: str, status: str) -> None:
        attributes: dict[str, Attribute] = {
            "exception.type": kind,
            "exception.message": message,
            "exception.escaped": "False",
        }
        self.spans.event(span, at, "exception", attributes)
        self.spans.fail(span, status)

    # --- answering ---
    def _serialize(self, at: int, parent: Span) -> int:
        spans = self.spans
        now = at + spans.between(15 * US, 80 * US)
        encoder = "protobuf" if self.caller.media_type == PROTOBUF else _JSON_ENCODER
        span = self._internal("SerializeObject", now, parent, self._encoding(encoder, self.caller.media_type))
        takes = self.story.encoding or 15 * US + self.size * 12
        written: dict[str, Attribute] = {
            "writer": "responsewriter.outerWithCloseNotifyAndFlush",
            "size": self.size,
        }
        spans.event(span, now + takes * 3 // 4, "About to start writing response", written)
        now += takes
        spans.event(span, now, "Write call succeeded", {"size": self.size})
        now += spans.between(1 * US, 5 * US)
        spans.close(span, now)
        return now

    def _encoding(self, encoder: str, media_type: str) -> dict[str, Attribute]:
        version = self.target.kind.group_version if self.target.kind else "v1"
        quoted = encoder.replace('"', '\\"')  # JSON in JSON, where the encoder describes itself
        return {
            "audit-id": self.audit,
            "method": self.target.method,
            "url": self.target.url,
            "protocol": self.caller.protocol,
            "mediaType": media_type,
            "encoder": f'{{"encodeGV":"{version}","encoder":"{quoted}","name":"versioning"}}',
        }


_JSON_ENCODER: Final = '{"name":"json","pretty":"false","strict":"false","yaml":"false"}'
