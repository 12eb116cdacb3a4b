"""A handful of requests with every kind of row that the list knows, the same at every run."""

from __future__ import annotations

from dataclasses import dataclass, field

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from receiver.store.database import Database
from tests.tui.still_feed import chunks_of

NOON = 1_763_812_800_000_000_000  # 2025-11-22 12:00:00 UTC
MS = 1_000_000


@dataclass(frozen=True)
class Asked:
    """One API request as it is written down here."""

    at: float  # seconds after NOON
    method: str
    path: str
    agent: str
    code: int
    took: float  # ms
    webhook: str = ""
    failure: str = ""
    orphan: bool = False
    attributes: dict[str, str] = field(default_factory=dict)


INJECTOR = "label-injector.example.com"
KUBECTL = "kubectl/v1.36.2 (linux/amd64) kubernetes/8c5a2f1"
SCHEDULER = "kube-scheduler/v1.36.2 (linux/amd64) kubernetes/8c5a2f1/scheduler"
MANAGER = "kube-controller-manager/v1.36.2 (linux/amd64) kubernetes/8c5a2f1/system:serviceaccount:kube-system:"
PODS = "/api/v1/namespaces/default/pods"

ASKED = (
    Asked(281.118, "PATCH", "/api/v1/namespaces/default/configmaps/during-stall", KUBECTL, 200, 2640),
    Asked(280.402, "PUT", f"{PODS}/slow-one", KUBECTL, 200, 2530, INJECTOR, "context deadline exceeded"),
    Asked(279.020, "PATCH", f"{PODS}/burst-7", KUBECTL, 200, 41.2, INJECTOR),
    Asked(278.877, "PUT", f"{PODS}/deny-me", KUBECTL, 403, 16.0, INJECTOR),
    Asked(
        277.300, "PUT", "/api/v1/namespaces/default/services/blocked", KUBECTL, 500, 7.9, "dead-policy.example.com",
        'Post "https://127.0.0.1:9/": dial tcp 127.0.0.1:9: connect: connection refused',
    ),
    Asked(275.466, "PATCH", f"{PODS}/shop-6cb6-4bjfz/status", SCHEDULER, 200, 6.1, orphan=True),
    Asked(274.010, "GET", "/api/v1/nodes?limit=500", KUBECTL, 200, 3.8),
    Asked(273.331, "GET", "/api/v1/namespaces/kube-system", MANAGER + "namespace-controller", 200, 1.2),
    Asked(272.900, "GET", "/apis/apps/v1/namespaces/shop/deployments/gone", "argocd-server/v3.1", 404, 0.96),
    Asked(
        271.100, "DELETE", "/apis/apps/v1/namespaces/shop/replicasets/shop-6cb6", MANAGER + "replicaset-controller",
        409, 12.5,
    ),
    Asked(270.700, "GET", "/openapi/v3?hash=0", KUBECTL, 200, 88.3),
    Asked(269.650, "GET", "/api/v1/namespaces/日本/configmaps/日本語の設定", KUBECTL, 200, 1.75),
    Asked(268.200, "PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/cp-1", SCHEDULER, 200, 2.2),
)  # fmt: skip


def _set(span: Span, **values: str | int) -> None:
    for key, value in values.items():
        one = span.attributes.add(key=key.replace("__", "-").replace("_", "."))
        if isinstance(value, int):
            one.value.int_value = value
        else:
            one.value.string_value = value


def _request(number: int, asked: Asked) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "apiserver"
    resource.resource.attributes.add(key="service.instance.id").value.string_value = "apiserver-x4"
    http = resource.scope_spans.add()
    http.scope.name = "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
    own = resource.scope_spans.add()
    own.scope.name = "k8s.io/component-base/tracing"
    start = NOON + round(asked.at * 1000) * MS
    trace_id = (0xA0 << 120 | number + 1).to_bytes(16, "big")

    def span(
        spans: ExportTraceServiceRequest | object, place: int, parent: int, name: str, kind: int, share: float
    ) -> Span:
        made: Span = spans.spans.add()  # type: ignore[attr-defined]
        made.trace_id, made.span_id = trace_id, place.to_bytes(8, "big")
        made.parent_span_id = parent.to_bytes(8, "big") if parent else b""
        made.name, made.kind = name, kind  # type: ignore[assignment]
        made.start_time_unix_nano = start
        made.end_time_unix_nano = start + round(asked.took * share * MS)
        return made

    server = span(http, 1, 99 if asked.orphan else 0, f"{asked.method} {asked.path.partition('?')[0]}", 2, 1.0)
    _set(
        server,
        http_request_method=asked.method,
        http_target=asked.path,
        http_response_status__code=asked.code,
        user__agent_original=asked.agent,
    )
    for attribute in server.attributes:
        attribute.key = attribute.key.replace("-code", "_code").replace("user-agent", "user_agent")
    if asked.webhook:
        call = span(own, 2, 1, "Call mutating webhook", 1, 0.6)
        _set(call, webhook=asked.webhook, configuration=asked.webhook.partition(".")[0], operation="UPDATE")
        sent = span(http, 3, 2, "HTTP POST", 3, 0.6)
        if asked.failure:
            sent.status.code, sent.status.message = Span().status.STATUS_CODE_ERROR, asked.failure
    return request


def _kubelet() -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "kubelet"
    made = resource.scope_spans.add().spans.add()
    made.trace_id, made.span_id, made.name, made.kind = b"\xee" * 16, b"\xee" * 8, "syncPod", 1
    made.start_time_unix_nano, made.end_time_unix_nano = NOON + 276_000 * MS, NOON + 276_312 * MS
    made.status.code, made.status.message = made.status.STATUS_CODE_ERROR, "image not found"
    return request


def fixed_database() -> Database:
    """All of it, arrived five minutes after noon."""
    requests = [_request(number, asked) for number, asked in enumerate(ASKED)] + [_kubelet()]
    database = Database.memory()
    received = NOON + 300_000 * MS
    database.append(chunks_of((one.SerializeToString() for one in requests), received=received, step=MS))
    return database
