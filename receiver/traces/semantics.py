"""What a span means in Kubernetes: which component sent it, and which API request it tells about.

Vocabulary differs by release: two HTTP and three gRPC attribute sets are in use (kubernetes 1.22 to 1.37,
etcd 3.5 to 3.7), so every concept is read through a list of aliases. Paths are read by the rules of
Kubernetes' own `RequestInfo` (k8s.io/apiserver, pkg/endpoints/request/requestinfo.go), because metrics,
audit log and RBAC name requests by them.

Everything here runs once a span at ingest on data that anybody may have sent: lengths are bounded, nothing
raises, and no text is trusted to be printable.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Final
from urllib.parse import unquote, unquote_plus

from receiver.store.chunk import (
    APISERVER,
    ETCD,
    KUBELET,
    MAX_STRING,
    OTHER,
    ROLE_CALL,
    ROLE_SERVER,
    ROLE_STORED,
    ROLE_VERB,
    ROLE_WEBHOOK,
    RUNTIME,
)
from receiver.traces.model import Request

MAX_TARGET: Final = 16_384
"""Longest path and query that is looked into, in characters; a `continue` token may take several thousand."""
MAX_ATTRIBUTES: Final = 512
"""Attributes of one span that are looked at; OpenTelemetry's own limit is 128."""

ALIASES: Final[dict[str, tuple[str, ...]]] = {
    # HTTP: new names (kubernetes 1.35 and later) before old ones
    "method": ("http.request.method", "http.method"),
    "code": ("http.response.status_code", "http.status_code"),
    "target": ("http.target",),
    "path": ("url.path",),
    "query": ("url.query",),
    "scheme": ("url.scheme", "http.scheme"),
    "agent": ("user_agent.original", "http.user_agent"),
    "host": ("server.address", "net.host.name", "net.peer.name", "http.host"),
    "port": ("server.port", "net.host.port", "net.peer.port"),
    "peer": ("network.peer.address", "net.sock.peer.addr", "net.peer.ip"),
    "peer_port": ("network.peer.port", "net.sock.peer.port", "net.peer.port"),
    "client": ("client.address", "http.client_ip"),
    "protocol": ("network.protocol.version", "net.protocol.version", "http.flavor"),
    "request_size": ("http.request.body.size", "http.request_content_length", "http.read_bytes"),
    "response_size": ("http.response.body.size", "http.response_content_length", "http.wrote_bytes"),
    "url": ("url.full", "http.url"),
    # gRPC: kubernetes 1.36 and later, etcd 3.7 and later before the older ones
    "rpc_system": ("rpc.system.name", "rpc.system"),
    "rpc_service": ("rpc.service",),
    "rpc_method": ("rpc.method",),
    "rpc_code": ("rpc.response.status_code", "rpc.grpc.status_code", "rpc.ttrpc.status_code"),
    # Kubernetes' own, on verb spans since 1.26, the names since 1.29
    "verb": ("verb",),
    "group": ("api-group",),
    "version": ("api-version",),
    "resource": ("resource",),
    "subresource": ("subresource",),
    "namespace": ("namespace",),
    "name": ("name",),
    "verb_agent": ("user-agent",),
    "verb_url": ("url",),
    "audit": ("audit-id",),
    # `Call ... webhook`
    "webhook": ("webhook",),
    "configuration": ("configuration",),
    "operation": ("operation",),
    "definition": ("custom-resource-definition",),
    "desired_version": ("desired-api-version",),
    # storage spans since 1.26
    "key": ("key",),
}
"""For each concept the attribute keys that carry it, the newest first."""


@dataclass(slots=True)
class Facts:
    """What one span says about a request. "" is unknown or does not apply, `code` 0 is unknown.

    `detail` is by role: SERVER and VERB the path, WEBHOOK the configuration, CALL the status message.
    """

    verb: str = ""
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    agent: str = ""
    detail: str = ""
    code: int = 0
    audit: str = ""


# --- which component ------------------------------------------------------------------------------
_SERVICES: Final = {
    "apiserver": APISERVER,
    "etcd": ETCD,
    "kubelet": KUBELET,
    "crio": RUNTIME,
    "cri-o": RUNTIME,
    "containerd": RUNTIME,
}
_SCOPES: Final = {
    "k8s.io/component-base/tracing": APISERVER,
    "go.etcd.io/etcd": ETCD,
}
_SERVER, _CLIENT = 2, 3  # OTLP span kinds


def _anonymous(service: str) -> bool:
    """Whether a sender has no name of its own (SDKs fill in `unknown_service:PROGRAM`)."""
    return not service or service.startswith("unknown_service")


def component_of_sender(service: str, scope: str) -> int | None:
    """The component (`chunk.OTHER` and so on) where resource and scope alone tell it, else None: then kind
    and name of each span decide, see `component_of`."""
    known = _SERVICES.get(service)
    if known is None:
        known = _SCOPES.get(scope)
    if known is None:
        if scope.startswith("k8s.op/apiserver/"):
            return APISERVER
        if scope.startswith("k8s.io/kubernetes/pkg/kubelet"):
            return KUBELET
    return known


def component_of(service: str, scope: str, kind: int, name: str) -> int:
    """The component of a span: `chunk.OTHER`, `APISERVER`, `ETCD`, `KUBELET` or `RUNTIME`.

    Decided by the resource's `service.name`, then the scope, then kind and name: etcd's service name can be
    configured, so a SERVER span of etcd's API is etcd whatever it calls itself. A client of etcd or of the
    runtime that has a name of its own is nobody we know; without a name it is the usual one.
    """
    known = component_of_sender(service, scope)
    if known is not None:
        return known
    if name.startswith("etcdserverpb."):
        if kind == _SERVER:
            return ETCD
        if kind == _CLIENT and _anonymous(service):
            return APISERVER
    elif name.startswith("runtime.v1"):
        if kind == _SERVER:
            return RUNTIME
        if kind == _CLIENT and _anonymous(service):
            return KUBELET
    return OTHER


# --- which spans say something about a request ----------------------------------------------------
_INTERNAL_ROLES: Final = {
    **dict.fromkeys(("Get", "List", "WatchList", "Create", "Update", "Patch", "Delete"), ROLE_VERB),
    **dict.fromkeys(("Call mutating webhook", "Call validating webhook", "Call conversion webhook"), ROLE_WEBHOOK),
    "Create etcd3": ROLE_STORED,
}
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")
_CLIENT_ROLES: Final = {
    **dict.fromkeys((f"HTTP {method}" for method in _METHODS), ROLE_CALL),
    **dict.fromkeys(_METHODS, ROLE_CALL),  # kubernetes 1.22 to 1.25
}


def fact_role(component: int, kind: int, name: str) -> int:
    """The role (`chunk.ROLE_*`) in which a span tells about a request, 0 for none.

    Called for every span at ingest: two comparisons and a dictionary look-up.
    """
    if component != APISERVER:
        return 0
    if kind == _SERVER:
        return ROLE_SERVER
    if kind == _CLIENT:
        return _CLIENT_ROLES.get(name, 0)
    return _INTERNAL_ROLES.get(name, 0)


# --- reading attributes ---------------------------------------------------------------------------
_ROLE_CONCEPTS: Final = {
    ROLE_SERVER: ("method", "code", "target", "path", "query", "agent", "audit"),
    ROLE_VERB: (
        "verb",
        "group",
        "version",
        "resource",
        "subresource",
        "namespace",
        "name",
        "verb_agent",
        "verb_url",
        "audit",
    ),
    ROLE_WEBHOOK: ("webhook", "configuration", "operation", "definition", "desired_version"),
    ROLE_CALL: ("method", "code", "host", "port", "url"),
    ROLE_STORED: ("key",),
}
WANTED: Final[dict[int, frozenset[str]]] = {
    role: frozenset(key for concept in concepts for key in ALIASES[concept])
    for role, concepts in _ROLE_CONCEPTS.items()
}
"""For each role the keys of the attributes that `facts_of` looks at."""
LONG: Final = frozenset(key for concept in ("target", "path", "query", "url", "verb_url") for key in ALIASES[concept])
"""Attributes that are parsed further, so wanted up to `MAX_TARGET` characters; the others up to `MAX_STRING`."""
Found = dict[str, str]
"""Attributes by key: texts as they are, whole numbers in decimal; bounded, and none of them empty."""


def _text(found: Found, concept: str) -> str:
    """The newest attribute of a concept, "" where there is none."""
    for key in ALIASES[concept]:
        value = found.get(key)
        if value:
            return value
    return ""


def _code(found: Found) -> int:
    """The HTTP status code, 0 where there is none that can be one."""
    for key in ALIASES["code"]:
        value = found.get(key)
        if value and len(value) == 3 and value.isascii() and value.isdigit():
            number = int(value)
            if number >= 100:
                return number
    return 0


def read_facts(role: int, name: str, attributes: Iterable[Any], status_message: str) -> Facts:
    """What a span of `role` says about its request.

    Args:
        role: what `fact_role` gave, not 0.
        name: the span's name.
        attributes: OTLP `KeyValue` messages.
        status_message: of the span's status.

    Values are cut to `MAX_STRING` characters; what is parsed further, to `MAX_TARGET`. Attributes that are
    neither text nor whole numbers count as absent.
    """
    wanted = WANTED[role]
    found: Found = {}
    for pair in islice(attributes, MAX_ATTRIBUTES):
        key = pair.key
        if key in wanted:
            value = pair.value
            text = value.string_value or (str(value.int_value) if value.int_value else "")
            if text:
                found[key] = text[: MAX_TARGET if key in LONG else MAX_STRING]
    return facts_of(role, name, found, status_message)


def facts_of(role: int, name: str, found: Found, status_message: str) -> Facts:
    """As `read_facts`, of attributes that were read already: the `WANTED` ones of the role.

    Ingest calls this for every fifth span or so: aliases are looked up in place, because a call a concept would cost
    as much as all the rest.
    """
    get = found.get
    if role == ROLE_SERVER:
        target = get("http.target")
        if not target:
            target, query = _text(found, "path"), _text(found, "query")
            if target and query:
                target = f"{target}?{query}"
        facts = parse_target(get("http.request.method") or get("http.method") or "", target, name)
        facts.code = _code(found)
        facts.agent = get("user_agent.original") or get("http.user_agent") or ""
        facts.audit = get("audit-id") or ""
        return facts
    if role == ROLE_VERB:
        return _verb_facts(name, found)
    if role == ROLE_WEBHOOK:
        configuration = _text(found, "configuration") or _text(found, "definition")
        return Facts(
            verb=_text(found, "operation").lower(),
            version=_text(found, "desired_version"),
            resource=name[5:-8],  # `Call mutating webhook`
            name=_text(found, "webhook") or configuration,
            detail=configuration,
        )
    if role == ROLE_STORED:
        return Facts(name=_text(found, "key").rpartition("/")[2][:MAX_STRING])
    return Facts(
        verb=(_text(found, "method") or name.rpartition(" ")[2])[:16].upper(),
        name=_host(found),
        detail=status_message[:MAX_STRING],
        code=_code(found),
    )


def _host(found: Found) -> str:
    """Host and port that a client span called, without a user and password."""
    host, port = _text(found, "host"), _text(found, "port")
    if not host:
        rest = _text(found, "url").partition("://")[2]
        return rest.partition("/")[0].partition("?")[0].rpartition("@")[2][:MAX_STRING]
    if not port or host.endswith((f":{port}", "]")):
        return host
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")[:MAX_STRING]


# `verb` as recorded on verb spans -> Kubernetes' verb; `Delete` without a name is told apart by the name
_VERBS: Final = {
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "APPLY": "patch",
    "DELETE": "delete",
    "DELETECOLLECTION": "deletecollection",
    "GET": "get",
    "HEAD": "get",
    "LIST": "list",
    "WATCH": "watch",
    "WATCHLIST": "watch",
    "CONNECT": "connect",
}
_SPAN_VERBS: Final = {"WatchList": "watch"}  # the others are their own lower case


def _verb_facts(span_name: str, found: Found) -> Facts:
    """Facts of a verb span. Releases before 1.29 give `resource` and `url` only: the path tells the rest."""
    get = found.get
    path = get("url") or ""
    verb = get("verb") or ""
    verb = _VERBS.get(verb) or _VERBS.get(verb.upper()) or _SPAN_VERBS.get(span_name) or span_name[:MAX_STRING].lower()
    if get("api-version"):
        facts = Facts("", "", "", "", "", "", "", "", path.partition("?")[0][:MAX_STRING])
    else:
        facts = parse_target("GET", path)
    facts.group = get("api-group") or facts.group
    facts.version = get("api-version") or facts.version
    facts.resource = get("resource") or facts.resource
    facts.subresource = get("subresource") or facts.subresource
    facts.namespace = get("namespace") or facts.namespace
    facts.name = get("name") or facts.name
    facts.verb = "deletecollection" if verb == "delete" and not facts.name else verb
    facts.agent = get("user-agent") or ""
    facts.audit = get("audit-id") or ""
    return facts


# --- RequestInfo ----------------------------------------------------------------------------------
_METHOD_VERBS: Final = {
    "POST": "create",
    "GET": "get",
    "HEAD": "get",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
_NAMESPACE_SUBRESOURCES: Final = ("status", "finalize")
_PLACEHOLDERS: Final = ("{:namespace}", "{:name}")


def parse_target(method: str, target: str, span_name: str = "") -> Facts:
    """Verb and names of a request from its method, path and query.

    Follows `RequestInfo`: `/api/VERSION/...` and `/apis/GROUP/VERSION/...` are resources, everything else
    (discovery too) is a non-resource URL with `resource` "" and the method in lower case as its verb.
    `detail` is the path without the query, percent-decoded and bounded.

    Without a target the span's name is used, which since 1.31 is `METHOD /api/v1/namespaces/{:namespace}/...`:
    it tells the resource but not the names, and then `detail` is "".
    """
    if not method:
        method = span_name.partition(" ")[0] if span_name.partition(" ")[0] in _METHODS else ""
    method = method[:16].upper()
    template = ""
    if not target:
        template = span_name.partition(" ")[2]
        if not template.startswith("/"):
            return Facts(verb=method.lower())
        target = template
    path, _, query = target[:MAX_TARGET].partition("?")
    if not path.startswith("/"):  # absolute form, as a proxy is asked
        path = "/" + path.partition("://")[2].partition("/")[2]
    if "%" in path:
        path = unquote(path, errors="replace")
    facts = _request_info(method, path, query)
    if template:
        facts.detail = ""
        if facts.namespace in _PLACEHOLDERS:
            facts.namespace = ""
        if facts.name in _PLACEHOLDERS:
            facts.name = ""
    return facts


def _request_info(method: str, path: str, query: str) -> Facts:
    named = _resource_path(path) if len(path) <= _CACHED_PATH else _resource_path.__wrapped__(path)
    if named is None:
        return Facts(method.lower(), "", "", "", "", "", "", "", path[:MAX_STRING])
    prefix, group, version, resource, subresource, namespace, name = named
    verb = prefix or _METHOD_VERBS.get(method) or method.lower()
    if not name:
        if verb == "get":
            watch, name = _list_options(query) if query else (False, "")
            verb = "watch" if watch else "list"
            name = name[:MAX_STRING]
        elif verb == "delete":
            verb = "deletecollection"
    return Facts(verb, group, version, resource, subresource, namespace, name, "", path[:MAX_STRING])


_CACHED_PATH: Final = 256


@lru_cache(maxsize=4096)
def _resource_path(path: str) -> tuple[str, str, str, str, str, str, str] | None:
    """(deprecated prefix, group, version, resource, subresource, namespace, name) of a path, None for a non-resource
    URL. The same paths come again and again: leases, status updates, lists."""
    # 32 parts are more than any resource path has; the rest (below a proxy subresource) names nothing
    parts = path.strip("/").split("/", 32)
    if len(parts) < 3 or parts[0] not in ("api", "apis"):
        return None
    group = ""
    if parts[0] == "apis":
        if len(parts) < 4:
            return None
        group = parts[1]
        version, rest = parts[2], parts[3:]
    else:
        version, rest = parts[1], parts[2:]
    prefix = ""
    if not rest[0]:
        return None
    if rest[0] in ("watch", "proxy"):
        if len(rest) < 2:
            return None
        prefix, rest = rest[0], rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in _NAMESPACE_SUBRESOURCES:
            rest = rest[2:]
    return (
        prefix,
        group[:MAX_STRING],
        version[:MAX_STRING],
        rest[0][:MAX_STRING],
        rest[2][:MAX_STRING] if len(rest) > 2 and prefix != "proxy" else "",
        namespace[:MAX_STRING],
        rest[1][:MAX_STRING] if len(rest) > 1 else "",
    )


def _list_options(query: str) -> tuple[bool, str]:
    """(`watch`, the name that `fieldSelector` asks for) of a list's query."""
    watch: bool | None = None
    name: str | None = None
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if "%" in key or "+" in key:
            key = unquote_plus(key, errors="replace")
        if key == "watch" and watch is None:  # the first value counts; anything but false and 0 is true
            watch = unquote_plus(value, errors="replace").lower() not in ("false", "0")
        elif key == "fieldSelector" and name is None:
            name = _selected_name(unquote_plus(value, errors="replace"))
    return bool(watch), name or ""


def _selected_name(selector: str) -> str:
    """The value that a field selector requires of `metadata.name`, "" where it requires none."""
    for term in selector.split(","):
        field, operator, value = term.partition("=")
        if not operator or field.endswith("!"):
            continue
        value = value.removeprefix("=")
        if field.strip() == "metadata.name" and value not in (".", "..") and "/" not in value and "%" not in value:
            return value
    return ""


# --- requests that last ---------------------------------------------------------------------------
LONG_VERBS: Final = ("watch", "proxy")
LONG_SUBRESOURCES: Final = ("attach", "exec", "log", "portforward", "proxy")
"""Requests that last as long as their client likes, by what kube-apiserver itself exempts from its request timeout
(`--min-request-timeout`: BasicLongRunningRequestCheck). Every `log`: only the URL's query says whether it follows."""


def long_running(request: Request) -> bool:
    """Whether the length of a request says nothing about the cluster: it was asked to last."""
    return request.verb in LONG_VERBS or request.subresource in LONG_SUBRESOURCES


_BUILT_IN_GROUPS: Final = frozenset(
    f"{name}.k8s.io"
    for name in (
        "admissionregistration", "apiextensions", "apiregistration", "authentication", "authorization",
        "certificates", "coordination", "discovery", "events", "flowcontrol.apiserver", "internal.apiserver",
        "networking", "node", "rbac.authorization", "resource", "scheduling", "storage", "storagemigration",
    )
)  # fmt: skip


def built_in(group: str) -> bool:
    """Whether Kubernetes itself serves an API group, and not a custom resource or an API server behind it.

    Others have names with `.k8s.io`, too: `metrics.k8s.io`, `gateway.networking.k8s.io`."""
    return "." not in group or group in _BUILT_IN_GROUPS


# --- the request of a trace -----------------------------------------------------------------------
def merge_request(server: Facts | None, verb: Facts | None) -> Request | None:
    """The API request that a SERVER span and its verb span tell of; None without either.

    The URL of the SERVER span names the request. Where that span carried no URL (only a templated name),
    and for what it lacks (audit id before 1.34), the verb span does.
    """
    if server is None:
        if verb is None:
            return None
        server, named = Facts(), verb
    elif server.detail or verb is None:
        named = server
    else:
        named = verb
    spare = verb or server
    return Request(
        verb=named.verb or server.verb,
        group=named.group,
        version=named.version,
        resource=named.resource,
        subresource=named.subresource,
        namespace=named.namespace,
        name=named.name,
        user_agent=server.agent or spare.agent,
        code=server.code or None,
        audit_id=server.audit or spare.audit,
        path=named.detail,
    )
