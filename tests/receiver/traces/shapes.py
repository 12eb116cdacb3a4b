"""Traces of every release, written down as the API server sends them (docs/facts.md 3.3), and the way from
such a trace to an index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from receiver.ingest.decode import decode
from receiver.store.chunk import Chunk
from receiver.store.index import Index

INTERNAL, SERVER, CLIENT = 1, 2, 3
T0 = 1_795_344_951_000_000_000
MS = 1_000_000

HTTP = "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
GRPC = "go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
FILTER = "k8s.op/apiserver/pkg/endpoints/filterlatency"
CORE = "k8s.io/component-base/tracing"

AUDIT = "91094b44-5c10-49f0-9182-902c188ed283"
AGENT = "kubectl/v1.32.4 (linux/amd64) kubernetes/4cb5f07"
PODS = "/api/v1/namespaces/default/pods"


def attributes(values: dict[str, Any]) -> list[KeyValue]:
    found = []
    for key, value in values.items():
        pair = KeyValue(key=key)
        if isinstance(value, bool):
            pair.value.bool_value = value
        elif isinstance(value, int):
            pair.value.int_value = value
        elif isinstance(value, bytes):
            pair.value.bytes_value = value
        elif isinstance(value, float):
            pair.value.double_value = value
        else:
            pair.value.string_value = value
        found.append(pair)
    return found


class Recorder:
    """Spans of one or more traces; each `span` is kept with its resource and scope, in the order of the calls."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str, str, SpanMessage]] = []

    def span(
        self,
        name: str,
        kind: int = INTERNAL,
        parent: bytes | None = None,
        *,
        trace: str = "trace",
        service: str = "apiserver",
        instance: str = "apiserver-a",
        scope: str = CORE,
        at: float = 0,
        ms: float = 1,
        status: int = 0,
        message: str = "",
        values: dict[str, Any] | None = None,
        links: Sequence[tuple[str, bytes]] = (),
    ) -> bytes:
        """Record a span that starts `at` ms after T0 and lasts `ms`; returns its id. Links are (trace, span id)."""
        span_id = hashlib.sha256(f"{trace} {len(self.spans)}".encode()).digest()[:8]
        made = SpanMessage(
            trace_id=hashlib.sha256(trace.encode()).digest()[:16],
            span_id=span_id,
            parent_span_id=parent or b"",
            name=name,
            kind=kind,
            start_time_unix_nano=T0 + int(at * MS),
            end_time_unix_nano=T0 + int((at + ms) * MS),
            attributes=attributes(values or {}),
        )
        made.status.code = status
        made.status.message = message
        for other, end in links:
            made.links.add(trace_id=bytes.fromhex(self.trace_id(other)), span_id=end)
        self.spans.append((service, instance, scope, made))
        return span_id

    def requests(self, order: Iterable[int] | None = None) -> list[bytes]:
        """One export request a span, in the order of recording or as told."""
        return [_request([self.spans[i]]) for i in (range(len(self.spans)) if order is None else order)]

    def trace_id(self, trace: str = "trace") -> str:
        return hashlib.sha256(trace.encode()).digest()[:16].hex()

    def index(self, order: Iterable[int] | None = None, received: int = T0) -> Index:
        return index_of(self.requests(order), received)


def _request(spans: Sequence[tuple[str, str, str, SpanMessage]]) -> bytes:
    request = ExportTraceServiceRequest()
    for service, instance, scope, span in spans:
        group = request.resource_spans.add()
        names = {"service.name": service} | ({"service.instance.id": instance} if instance else {})
        group.resource.attributes.extend(attributes(names))
        inner = group.scope_spans.add()
        inner.scope.name = scope
        inner.spans.append(span)
    return request.SerializeToString()


def chunks_of(requests: Iterable[bytes], received: int = T0, source: str = "local") -> list[Chunk]:
    found = []
    for number, body in enumerate(requests):
        chunk = decode(body, source=source, peer="127.0.0.1:1", received=received + number).chunk
        assert chunk is not None
        chunk.id = number + 1
        found.append(chunk)
    return found


def index_of(requests: Iterable[bytes], received: int = T0) -> Index:
    index = Index()
    index.extend(chunks_of(requests, received))
    return index


def authenticated_above(index: Index, slot: int) -> int:
    """Nanoseconds from the start of a root `authentication` to that of the headline below it, 0 for none."""
    head = int(index.head_row[slot])
    for row in index.rows_of(slot).tolist():
        above = index.span[row] == index.parent[head] and index.names[index.name[row]] == "authentication"
        if index.head_rank[slot] == 2 and above and index.parent[row] == 0:
            return int(index.start[head]) - int(index.start[row])
    return 0


def _old_http(method: str = "POST", target: str = PODS, code: int | None = 201) -> dict[str, Any]:
    values: dict[str, Any] = {"http.method": method, "http.target": target, "http.user_agent": AGENT}
    return values if code is None else values | {"http.status_code": code}


def _new_http(method: str = "POST", target: str = PODS, code: int = 201) -> dict[str, Any]:
    return {
        "http.request.method": method,
        "url.path": target.partition("?")[0],
        "http.target": target,
        "user_agent.original": AGENT,
        "http.response.status_code": code,
        "audit-id": AUDIT,
    }


def _verb(verb: str = "POST") -> dict[str, Any]:
    return {
        "verb": verb,
        "resource": "pods",
        "namespace": "default",
        "name": "",
        "subresource": "",
        "api-group": "",
        "api-version": "v1",
        "url": PODS,
        "user-agent": AGENT,
        "audit-id": AUDIT,
    }


def _hook(name: str) -> dict[str, Any]:
    return {"configuration": name, "webhook": f"{name}.example.com", "operation": "CREATE"}


_POSTED = {"http.method": "POST", "http.status_code": 200}


def release_1_22(rec: Recorder) -> None:
    """1.22 to 1.25: client spans under `KubernetesAPI`, nothing internal."""
    server = rec.span("KubernetesAPI", SERVER, scope=HTTP, ms=20, values=_old_http())
    hook = rec.span("POST", CLIENT, server, scope=HTTP, at=2, ms=8, values=_POSTED)
    rec.span("POST /mutate", SERVER, hook, service="injector", instance="", scope="", at=3, ms=6)
    call = rec.span("etcdserverpb.KV/Txn", CLIENT, server, scope=GRPC, at=11, ms=5)
    rec.span("etcdserverpb.KV/Txn", SERVER, call, service="etcd", instance="", scope=GRPC, at=12, ms=3)


def release_1_26(rec: Recorder, *, serialize_inside: bool = False) -> None:
    """1.26 to 1.32: everything hangs under an `authentication` that has already ended. `SerializeObject` is beside the
    verb span until 1.31, inside it in 1.32; from 1.31 on the server span has the path in its name."""
    server = rec.span(
        f"POST {_TEMPLATE}" if serialize_inside else "KubernetesAPI", SERVER, scope=HTTP, ms=20, values=_old_http()
    )
    filters = rec.span("authentication", INTERNAL, server, scope=FILTER, at=0.1, ms=0.4)
    # before 1.29 a verb span has no names but resource and url
    names = {"verb": "POST", "resource": "pods", "url": PODS, "user-agent": AGENT, "audit-id": AUDIT}
    create = rec.span("Create", INTERNAL, filters, at=1, ms=18 if serialize_inside else 17, values=names)
    webhook = rec.span(
        "Call mutating webhook", INTERNAL, create, at=2, ms=8,
        values=_hook("label-injector"),
    )  # fmt: skip
    hook = rec.span("HTTP POST", CLIENT, webhook, scope=HTTP, at=2, ms=8, values=_POSTED)
    served = rec.span("POST /mutate", SERVER, hook, service="injector", instance="", scope="", at=3, ms=9)
    rec.span("decide", INTERNAL, served, service="injector", instance="", scope="", at=4, ms=2)
    store = rec.span("Create etcd3", INTERNAL, create, at=11, ms=6, values={"key": "/pods/default/web"})
    call = rec.span("etcdserverpb.KV/Txn", CLIENT, store, scope=GRPC, at=12, ms=4)
    rec.span("etcdserverpb.KV/Txn", SERVER, call, service="etcd", instance="", scope=GRPC, at=13, ms=2)
    rec.span("SerializeObject", INTERNAL, create if serialize_inside else filters, at=18, ms=1)


def release_1_33(rec: Recorder, *, privileged: bool = False) -> None:
    """1.33: the server span is ended right after the audit filter, has no code, and its work outlives it. The
    `authentication` before it has ended, too; it is a root of its own, or the parent."""
    top = rec.span("authentication", INTERNAL, None, trace="trace" if privileged else "lone", scope=FILTER, ms=0.3)
    server = rec.span(
        f"POST {_TEMPLATE}", SERVER, top if privileged else None, scope=HTTP, at=0.4, ms=0.1,
        values=_old_http(code=None),
    )  # fmt: skip
    create = rec.span("Create", INTERNAL, server, at=1, ms=17, values=_verb())
    store = rec.span("Create etcd3", INTERNAL, create, at=11, ms=6)
    call = rec.span("etcdserverpb.KV/Txn", CLIENT, store, scope=GRPC, at=12, ms=4)
    rec.span("etcdserverpb.KV/Txn", SERVER, call, service="etcd", instance="", scope=GRPC, at=13, ms=2)
    rec.span("SerializeObject", INTERNAL, create, at=17, ms=0.5)


_TEMPLATE = "/api/v1/namespaces/{:namespace}/pods"


def release_1_34(rec: Recorder, *, privileged: bool, etcd_3_7: bool = False) -> None:
    """1.34 and later: the chain of filters; `authentication` is the parent, or a root of its own. etcd 3.7 has spans of
    its own inside a call."""
    top = rec.span("authentication", INTERNAL, None, trace="trace" if privileged else "lone", scope=FILTER, ms=21)
    server = rec.span(
        f"POST {_TEMPLATE}", SERVER, top if privileged else None, scope=HTTP, at=0.2, ms=20, values=_new_http()
    )
    above = _filters(rec, server, 20)
    create = rec.span("Create", INTERNAL, above, at=1, ms=15, values=_verb())
    webhook = rec.span(
        "Call validating webhook", INTERNAL, create, at=2, ms=8,
        values=_hook("name-policy"),
    )  # fmt: skip
    hook = rec.span(
        "HTTP POST", CLIENT, webhook, scope=HTTP, at=2, ms=8, status=2, message="context deadline exceeded",
        values={"http.request.method": "POST", "server.address": "10.0.0.7", "server.port": 9443},
    )  # fmt: skip
    rec.span("POST", SERVER, hook, service="policy", instance="p-1", scope="", at=3, ms=9)
    store = rec.span("Create etcd3", INTERNAL, create, at=11, ms=4)
    call = rec.span("etcdserverpb.KV/Txn", CLIENT, store, scope=GRPC, at=12, ms=2)
    inside = rec.span("etcdserverpb.KV/Txn", SERVER, call, service="etcd", instance="", scope=GRPC, at=12.5, ms=1)
    if etcd_3_7:
        values = {"success_first_key": "/registry/pods/default/web", "read_only": False}
        rec.span("txn", INTERNAL, inside, service="etcd", scope="go.etcd.io/etcd", at=12.6, ms=0.8, values=values)
    rec.span("SerializeObject", INTERNAL, create, at=15, ms=0.5)


def _filters(rec: Recorder, server: bytes, ms: float) -> bytes:
    """The filters of 1.34 inside each other; returns the innermost."""
    above = server
    for number, name in enumerate(("audit", "impersonation", "priorityandfairness", "authorization")):
        above = rec.span(name, INTERNAL, above, scope=FILTER, at=0.3 + number / 10, ms=ms - 0.5 - number)
    return above


def unauthenticated_1_26(rec: Recorder) -> None:
    """1.26 to 1.32: a caller whom nobody knows gets no further than `authentication`."""
    server = rec.span("KubernetesAPI", SERVER, scope=HTTP, ms=1, values=_old_http("GET", code=401))
    rec.span("authentication", INTERNAL, server, scope=FILTER, at=0.1, ms=0.8)


def unauthenticated_1_33(rec: Recorder) -> None:
    """1.33 and later: a caller whom nobody knows leaves `authentication` alone, there is no server span."""
    rec.span("authentication", INTERNAL, None, scope=FILTER, ms=1)


def watch_1_26(rec: Recorder) -> None:
    """1.26 to 1.32: a watch that has closed; its `List` span is never sent."""
    target = PODS + "?watch=true"
    server = rec.span("KubernetesAPI", SERVER, scope=HTTP, ms=60_000, values=_old_http("GET", target, 200))
    rec.span("authentication", INTERNAL, server, scope=FILTER, at=0.1, ms=0.4)


def watch_1_34(rec: Recorder) -> None:
    """1.34 and 1.35: a watch that has closed; its `List` span is never sent."""
    target = PODS + "?watch=true"
    values = _new_http("GET", target, 200)
    server = rec.span(f"GET {_TEMPLATE}", SERVER, scope=HTTP, ms=60_000, values=values)
    _filters(rec, server, 60_000)


def watch_1_36(rec: Recorder) -> None:
    """A watch that is still open: its server span and filters come when it closes, so its children are orphans."""
    gone = b"\xee" * 8
    listing = rec.span("WatchList", INTERNAL, gone, at=1, ms=3, values=_verb("WATCH"))
    rec.span("cacher.Watch", INTERNAL, listing, at=1.5, ms=0.2)
    rec.span("WatchServer.HandleHTTP", INTERNAL, listing, at=2, ms=1)


def forced(rec: Recorder) -> None:
    """A request with an invented `traceparent`: an orphan by design, without `authentication`."""
    server = rec.span(
        "GET /api/v1/nodes", SERVER, b"\xbb" * 8, scope=HTTP, ms=5, values=_new_http("GET", "/api/v1/nodes", 200)
    )
    rec.span("audit", INTERNAL, server, scope=FILTER, at=0.1, ms=4)


def slow_authentication(rec: Recorder) -> None:
    """1.34 and later: a token review took 0.9 s, which only the lone root tells; some others show that all are kept."""
    values = _new_http(method="GET", target=f"{PODS}/web", code=200)
    for number in range(12):
        at, took = 2_000 * number, 0.2 if number else 900
        rec.span("authentication", INTERNAL, trace=f"lone {number}", scope=FILTER, at=at, ms=took + 10.01)
        server = rec.span(
            f"GET {_TEMPLATE}/{{:name}}",
            SERVER,
            trace=f"request {number}",
            scope=HTTP,
            at=at + took,
            ms=10,
            values=values,
        )
        rec.span("Get", INTERNAL, server, trace=f"request {number}", at=at + took + 1, ms=8, values=_verb("GET"))
