"""Traces made by hand or from a recording, and a feed that holds them: what the screens see, without a database."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from receiver.store.chunk import COMPONENT_NAMES
from receiver.traces.model import Body, Component, Event, Kind, Link, Request, Settled, Span, Trace, Value
from receiver.traces.semantics import component_of
from receiver.traces.timing import self_times
from receiver.traces.tree import build

T0 = 1_763_812_392_402_000_000
MS = 1_000_000
RECORDINGS = Path("/work/shared/recordings")


def body(attributes: dict[str, Value] | None = None, **fields: Any) -> Body:
    """A body with little in it."""
    values: dict[str, Any] = {
        "attributes": attributes or {},
        "events": (),
        "links": (),
        "status_message": "",
        "resource": {"service.name": "apiserver", "service.instance.id": "apiserver-x4"},
        "scope_name": "k8s.io/component-base/tracing",
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

    def trace(self, settled: Settled = Settled.SETTLED, left_out: int = 0) -> Trace:
        """The tree of what there is."""
        return tree(self.spans, settled=settled, left_out=left_out)


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
    post = made(auth, "POST /api/v1/namespaces/{:namespace}/pods", 0.179, 2529.686, kind=Kind.SERVER, request=True)
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


def request_of(verb: str, resource: str, namespace: str, name: str, code: int) -> Request:
    """A request with the names that a header shows."""
    return Request(
        verb, "", "v1", resource, "", namespace, name, "kubectl/v1.32.4 (linux/amd64) kubernetes/4cb5f07", code,
        "e1b1ced3-bf05-45ba-82e1-69846ad85b4a", f"/api/v1/namespaces/{namespace}/{resource}",
    )  # fmt: skip


class FakeBodies:
    """Bodies by span id."""

    def __init__(self, bodies: dict[str, Body]) -> None:
        self.by_id = bodies
        self.asked: list[str] = []

    def body(self, span: Span) -> Body | None:
        self.asked.append(span.span_id)
        return self.by_id.get(span.span_id)

    def bodies(self, spans: Sequence[Span]) -> list[Body | None]:
        return [self.body(span) for span in spans]

    def raw(self, spans: Sequence[Span]) -> dict[str, Any]:
        return {"resourceSpans": [{"scopeSpans": [{"spans": [{"spanId": s.span_id, "name": s.name} for s in spans]}]}]}


# --- from a recording --------------------------------------------------------------------------------
def recorded(file: str) -> dict[str, Made]:
    """The traces of a recording in the shared folder, by trace id."""
    path = RECORDINGS / file
    made: dict[str, Made] = {}
    with gzip.open(path, "rt") if file.endswith(".gz") else path.open() as lines:
        for line in lines:
            for resource in json.loads(line)["resourceSpans"]:
                attributes = _attributes(resource.get("resource", {}).get("attributes", ()))
                service = str(attributes.get("service.name", ""))
                for scope in resource["scopeSpans"]:
                    scope_name = scope.get("scope", {}).get("name", "")
                    for each in scope["spans"]:
                        trace = made.setdefault(each["traceId"], Made(each["traceId"]))
                        _add(trace, each, attributes, service, scope_name)
    return made


def _add(trace: Made, each: dict[str, Any], resource: dict[str, Value], service: str, scope: str) -> None:
    kind = Kind(each.get("kind", 0))
    component = COMPONENT_NAMES[component_of(service, scope, kind.value, each["name"])]
    span = Span(
        each["traceId"], each["spanId"], each.get("parentSpanId", ""), each["name"], kind,
        int(each["startTimeUnixNano"]), int(each["endTimeUnixNano"]), each.get("status", {}).get("code", 0), service,
        str(resource.get("service.instance.id", "")), Component(component), "local", 1, len(trace.spans),
        kind is Kind.SERVER and component == "apiserver",
    )  # fmt: skip
    trace.spans.append(span)
    trace.bodies[span.span_id] = Body(
        attributes=_attributes(each.get("attributes", ())),
        events=tuple(
            Event(int(e["timeUnixNano"]), e["name"], _attributes(e.get("attributes", ())))
            for e in each.get("events", ())
        ),
        links=tuple(
            Link(x["traceId"], x["spanId"], _attributes(x.get("attributes", ()))) for x in each.get("links", ())
        ),
        status_message=each.get("status", {}).get("message", ""),
        resource=resource,
        scope_name=scope,
        scope_version="",
        dropped=(0, 0, 0),
    )


def _attributes(pairs: Iterable[dict[str, Any]]) -> dict[str, Value]:
    return {pair["key"]: _value(pair["value"]) for pair in pairs}


def _value(value: dict[str, Any]) -> Value:
    ((kind, plain),) = value.items()
    if kind == "intValue":
        return int(plain)
    if kind == "arrayValue":
        return [_value(each) for each in plain.get("values", ())]
    return plain  # type: ignore[no-any-return]


def grown(made: Made, spans: int) -> Made:
    """The first spans of a trace: what it was before the rest came."""
    return replace(made, spans=made.spans[:spans])
