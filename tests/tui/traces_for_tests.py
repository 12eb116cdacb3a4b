"""Traces written down by hand: as trees, and as the export requests that bring them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from receiver.traces.model import Body, Component, Event, Kind, Settled, Span, Trace, Value
from receiver.traces.timing import self_times
from receiver.traces.tree import build

T0 = 1_763_812_392_402_000_000
MS = 1_000_000


def body(attributes: dict[str, Value] | None = None, **fields: Any) -> Body:
    """A body with little in it."""
    values: dict[str, Any] = {
        "attributes": attributes or {},
        "events": (),
        "links": (),
        "status_message": "",
        "resource": {"service.name": "apiserver", "service.instance.id": "apiserver-x4"},
        "scope_name": "",
        "scope_version": "",
        "dropped": (0, 0, 0),
    }
    return Body(**{**values, **fields})


@dataclass
class Made:
    """A trace being written down: call it once a span."""

    trace_id: str = "ba4fbaa262d97ca6369ae61eecf7f76c"
    spans: list[Span] = field(default_factory=list)
    bodies: dict[str, Body] = field(default_factory=dict)

    def __call__(
        self,
        parent: str,
        name: str,
        start: float,
        length: float,
        *,
        kind: Kind = Kind.INTERNAL,
        service: str = "apiserver",
        component: Component = Component.APISERVER,
        status: int = 0,
        request: bool = False,
        of: Body | None = None,
    ) -> str:
        """Add a span; times in ms from the start of the trace. Returns its id."""
        span_id = f"{len(self.spans) + 1:016x}"
        begin = T0 + round(start * MS)
        self.spans.append(
            Span(
                self.trace_id, span_id, parent, name, kind, begin, begin + round(length * MS), status, service,
                f"{service}-x4", component, "local", 1, len(self.spans), request,
            )
        )  # fmt: skip
        self.bodies[span_id] = of or body()
        return span_id

    def export(self, first: int = 0, last: int | None = None) -> bytes:
        """Some of the spans, in the order in which they were written down, as one export request."""
        request = ExportTraceServiceRequest()
        for span in self.spans[first:last]:
            self._put(request, span, self.bodies[span.span_id])
        return request.SerializeToString()

    def _put(self, request: ExportTraceServiceRequest, span: Span, content: Body) -> None:
        resource = request.resource_spans.add()
        for key, value in {**content.resource, "service.name": span.service}.items():
            _set(resource.resource.attributes.add(), key, value)
        scope = resource.scope_spans.add()
        scope.scope.name = content.scope_name
        sent = scope.spans.add(
            trace_id=bytes.fromhex(span.trace_id),
            span_id=bytes.fromhex(span.span_id),
            parent_span_id=bytes.fromhex(span.parent_id),
            name=span.name,
            kind=span.kind.value,  # type: ignore[arg-type]
            start_time_unix_nano=span.start,
            end_time_unix_nano=span.end,
        )
        sent.status.code = span.status  # type: ignore[assignment]
        sent.status.message = content.status_message
        for key, value in content.attributes.items():
            _set(sent.attributes.add(), key, value)
        for event in content.events:
            there = sent.events.add(time_unix_nano=event.time, name=event.name)
            for key, value in event.attributes.items():
                _set(there.attributes.add(), key, value)
        for link in content.links:
            sent.links.add(trace_id=bytes.fromhex(link.trace_id), span_id=bytes.fromhex(link.span_id))
        sent.dropped_attributes_count, sent.dropped_events_count, sent.dropped_links_count = content.dropped

    def trace(self, settled: Settled = Settled.SETTLED, left_out: int = 0) -> Trace:
        """The tree of what there is."""
        return tree(self.spans, settled=settled, left_out=left_out)


def _set(pair: Any, key: str, value: Value) -> None:
    pair.key = key
    pair.value.CopyFrom(_any(value))


def _any(value: Value) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, bytes):
        return AnyValue(bytes_value=value)
    made = AnyValue()
    if isinstance(value, Mapping):
        made.kvlist_value.SetInParent()
        for key, item in value.items():
            _set(made.kvlist_value.values.add(), key, item)
    elif isinstance(value, Sequence):
        made.array_value.values.extend([_any(item) for item in value])
    return made


def tree(spans: Sequence[Span], *, settled: Settled = Settled.SETTLED, left_out: int = 0) -> Trace:
    """Spans as a trace with self times."""
    ids = {span.span_id for span in spans}
    missing = len({span.parent_id for span in spans if span.parent_id and span.parent_id not in ids})
    trace = build(spans, settled=settled, missing=missing, left_out=left_out)
    self_times(trace)
    return trace


def slow_pod() -> Made:
    """`kubectl create` of a pod: a slow mutating webhook, a validating one that ran into its timeout, etcd."""
    made = Made()
    auth = made("", "authentication", 0, 2529.877)
    post = made(
        auth, "POST /api/v1/namespaces/{:namespace}/pods", 0.179, 2529.686, kind=Kind.SERVER, request=True,
        of=body(
            {"http.request.method": "POST", "http.response.status_code": 201,
             "http.target": "/api/v1/namespaces/default/pods?fieldManager=kubectl-create",
             "user_agent.original": "kubectl/v1.32.4 (linux/amd64) kubernetes/4cb5f07",
             "audit-id": "e1b1ced3-bf05-45ba-82e1-69846ad85b4a"},
            scope_name="go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp",
        ),
    )  # fmt: skip
    above = post
    for at, name in enumerate(("audit", "constrainedimpersonation", "priorityandfairness", "authorization")):
        above = made(above, name, 0.19 + at * 0.03, 2529.6 - at * 0.04)
    create = made(
        above, "Create", 0.445, 2529.305,
        of=body(
            {"verb": "POST", "resource": "pods", "namespace": "default"},
            events=(Event(T0 + 500_000, "About to convert to expected version", {}),
                    Event(T0 + 2_529_600_000, "Write to database call succeeded", {"len": 412})),
        ),
    )  # fmt: skip
    for start, length, which, ends, other in (
        (1.162, 1514.168, "mutating", 1507.735, "label-injector"),
        (1516.072, 1001.064, "validating", 1526.877, "name-policy"),
    ):
        late = which == "validating"
        call = made(
            create, f"Call {which} webhook", start, length,
            of=body(
                {"configuration": other, "webhook": f"{other}.example.com", "operation": "CREATE",
                 "resource": "/v1, Resource=pods", "subresource": "", "UID": "c2c275b2-ed39-4f5d-9053-15f44915a0b2"},
                events=(Event(T0 + 1_515_100_000, "Request completed", {}),
                        Event(T0 + 1_515_300_000, "Patch applied", {})) if not late else (),
            ),
        )  # fmt: skip
        url = "https://127.0.0.1:9443/validate?timeout=1s" if late else "https://127.0.0.1:9443/mutate?timeout=5s"
        http = made(
            call, "HTTP POST", start + 0.3, length - 0.5, kind=Kind.CLIENT, status=2 if late else 0,
            of=body({"http.request.method": "POST", "url.full": url},
                    status_message="context deadline exceeded" if late else ""),
        )  # fmt: skip
        hook = {"service": "label-injector-webhook", "component": Component.OTHER}
        served = made(
            http, "POST /validate" if late else "POST /mutate", start + 1.2, ends, kind=Kind.SERVER,
            status=2 if late else 0, of=body(status_message="SSLEOFError: EOF occurred" if late else ""), **hook,
        )  # fmt: skip
        made(served, "decide", start + 1.3, ends - 2, **hook)
    etcd3 = made(create, "Create etcd3", 2517.36, 12.226, of=body({"key": "/pods/default/slow-one"}))
    txn = made(etcd3, "etcdserverpb.KV/Txn", 2517.46, 12.061, kind=Kind.CLIENT)
    made(txn, "etcdserverpb.KV/Txn", 2528.0, 0.957, kind=Kind.SERVER, service="etcd", component=Component.ETCD)
    made(create, "SerializeObject", 2529.645, 0.099, of=body({"mediaType": "application/json"}))
    return made
