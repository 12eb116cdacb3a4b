"""The synthetic cluster: the same seed tells the same story, and the story looks like a real cluster's."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from receiver.ingest.demo import EXPORT, activity, export_request, run_demo
from receiver.ingest.demo_spans import Finished, S

CODE = "http.response.status_code"


def lived(seed: int, rate: float, seconds: float) -> list[Finished]:
    """Everything that began in the first seconds of a run."""
    begun = itertools.takewhile(lambda item: item[0] < seconds * S, activity(seed, rate))
    return [finished for _, spans in begun for finished in spans]


def by_trace(spans: list[Finished]) -> dict[bytes, list[Finished]]:
    traces: dict[bytes, list[Finished]] = defaultdict(list)
    for finished in spans:
        traces[finished.span.trace_id].append(finished)
    return traces


def attributes(span: Span) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value") or "string_value") for item in span.attributes}


def requests(spans: list[Finished]) -> list[Span]:
    """The API servers' server spans."""
    return [f.span for f in spans if f.process.service == "apiserver" and f.span.kind == Span.SPAN_KIND_SERVER]


def serialised(spans: list[Finished]) -> list[bytes]:
    return [f.span.SerializeToString(deterministic=True) + repr(f.process).encode() for f in spans]


def test_same_seed_same_spans() -> None:
    assert serialised(lived(7, 25, 12)) == serialised(lived(7, 25, 12))


def test_another_seed_is_another_story() -> None:
    ids = {f.span.trace_id for f in lived(1, 20, 5)}
    assert ids.isdisjoint(f.span.trace_id for f in lived(2, 20, 5))


def test_the_rate_changes_only_the_ordinary_requests() -> None:
    quiet = {f.span.span_id for f in lived(1, 0, 10)}
    busy = {f.span.span_id for f in lived(1, 40, 10)}
    assert quiet < busy
    few, many = len(requests(lived(1, 0, 10))), len(requests(lived(1, 40, 10)))
    assert 300 <= many - few <= 500


def test_the_first_ten_seconds_are_interesting() -> None:
    spans = [f for f in lived(1, 20, 10) if f.span.end_time_unix_nano < 10 * S]
    seen = Counter(attributes(span).get(CODE) for span in requests(spans))
    assert {200, 201, 403, 404, 409, 500} <= set(seen)
    slow = [f.span for f in spans if f.span.end_time_unix_nano - f.span.start_time_unix_nano > 0.9 * S]
    assert {"Call mutating webhook", "Call validating webhook", "etcdserverpb.KV/Txn"} <= {s.name for s in slow}
    messages = {f.span.status.message for f in spans}
    assert "context deadline exceeded" in messages
    assert any("connection refused" in message for message in messages)
    assert "denied" in messages
    assert any(f.span.name == "syncPod" for f in spans)
    assert any(event.name == "Retry value restored" for f in spans for event in f.span.events)
    assert any(attributes(f.span).get("size", 0) > 10**6 for f in spans) or any(
        attributes(span).get("http.response.body.size", 0) > 10**7 for span in requests(spans)
    )
    assert len({f.process for f in spans}) == 10


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_span_ends_and_lies_in_a_whole_trace(seed: int) -> None:
    spans = lived(seed, 20, 60)
    assert len({(f.span.trace_id, f.span.span_id) for f in spans}) == len(spans)
    forced = 0
    for members in by_trace(spans).values():
        ids = {f.span.span_id for f in members}
        roots = [f.span for f in members if f.span.parent_span_id not in ids]
        assert len(roots) == 1
        forced += bool(roots[0].parent_span_id)
        for finished in members:
            span = finished.span
            assert len(span.trace_id) == 16
            assert len(span.span_id) == 8
            assert 0 <= span.start_time_unix_nano < span.end_time_unix_nano
            assert all(e.time_unix_nano >= span.start_time_unix_nano for e in span.events)
    assert forced in (1, 2, 3), "a made-up traceparent is the only parent that never comes"


def test_parents_close_after_what_they_wait_for() -> None:
    spans = lived(1, 20, 60)
    known = {f.span.span_id: f for f in spans}
    outliving = []
    for finished in spans:
        parent = known.get(finished.span.parent_span_id)
        if parent is None:
            continue
        assert finished.span.start_time_unix_nano >= parent.span.start_time_unix_nano
        if finished.span.end_time_unix_nano > parent.span.end_time_unix_nano:
            outliving.append(finished.span.name)
    assert set(outliving) == {"POST /validate"}, "only the webhook whose caller gave up outlives its parent"


def test_unprivileged_callers_have_two_traces_and_kubelets_link() -> None:
    spans = lived(1, 20, 20)
    traces = by_trace(spans)
    lone = [m for m in traces.values() if len(m) == 1 and m[0].span.name == "authentication"]
    unprivileged = [span for span in requests(spans) if not span.parent_span_id and span.kind == Span.SPAN_KIND_SERVER]
    assert len(lone) == len(unprivileged) > 200
    clients = {(f.span.trace_id, f.span.span_id) for f in spans if f.process.service == "kubelet"}
    links = [(link.trace_id, link.span_id) for span in unprivileged for link in span.links]
    assert len(links) > 20
    assert set(links) <= clients


def test_the_stall_is_a_gap_between_the_two_sides_of_a_call() -> None:
    spans = lived(1, 20, 10)
    known = {f.span.span_id: f.span for f in spans}
    gaps = [
        (f.span.start_time_unix_nano - known[f.span.parent_span_id].start_time_unix_nano) / S
        for f in spans
        if f.process.service == "etcd"
    ]
    assert 2 < max(gaps) < 3
    assert sum(gap > 0.5 for gap in gaps) >= 3
    etcd = [f.span for f in spans if f.process.service == "etcd"]
    assert max(s.end_time_unix_nano - s.start_time_unix_nano for s in etcd) < 0.02 * S


# --- against real clusters -----------------------------------------------------------------------
def recorded(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """(resource, scope, span) of every span of a recording."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for line in lines:
            for resource_spans in json.loads(line)["resourceSpans"]:
                for scope_spans in resource_spans["scopeSpans"]:
                    for span in scope_spans["spans"]:
                        yield resource_spans["resource"], scope_spans["scope"], span


def shape(service: str, name: str, kind: int) -> tuple[str, str, int]:
    """What a span is, whatever it was asked for: server spans by method, webhooks by role."""
    service = {"label-injector-webhook": "webhook", "label-injector": "webhook", "name-policy": "webhook"}.get(
        service, service
    )
    return service, re.sub(r"^(HTTP )?(GET|POST|PUT|PATCH|DELETE)\b.*", r"\1METHOD", name), kind


# the runtime pulled no image while the recordings were made: these are after containerd's documentation
UNRECORDED = re.compile(r"PullImage|pkg\.unpack|remotes\.docker")


def test_spans_are_shaped_like_those_of_real_clusters(recordings: Path) -> None:
    keys: dict[Any, set[str]] = defaultdict(set)
    events: dict[Any, set[str]] = defaultdict(set)
    scopes: dict[Any, set[str]] = defaultdict(set)
    for path in sorted(recordings.glob("*.jsonl*")):
        if path.name.startswith("cluster-rate-full"):
            continue  # twice the time, no shape that the others do not have
        for resource, scope, span in recorded(path):
            service = next(a["value"]["stringValue"] for a in resource["attributes"] if a["key"] == "service.name")
            what = shape(service, span["name"], span["kind"])
            keys[what] |= {a["key"] for a in span.get("attributes", [])}
            events[what] |= {e["name"] for e in span.get("events", [])}
            scopes[what].add(scope["name"])
    checked = 0
    for finished in lived(1, 30, 60):
        made = finished.span
        if UNRECORDED.search(made.name):
            continue
        what = shape(finished.process.service, made.name, made.kind)
        assert what in keys, f"no recording has {what}"
        assert {a.key for a in made.attributes} <= keys[what], what
        if what[1] != "runtime.v1.RuntimeService/CreateContainer":
            assert {e.name for e in made.events} <= events[what], what
        if what[0] != "webhook":
            assert finished.scope.name in scopes[what], what
        checked += 1
    assert checked > 10_000


# --- over gRPC -----------------------------------------------------------------------------------
class Collector:
    """A receiver's double: takes export requests and keeps them with the sender's address and user agent."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str, ExportTraceServiceRequest]] = []
        self.busy = 0  # how many exports to refuse first

    def export(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        if self.busy:
            self.busy -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "full")
        agent = next(value for key, value in context.invocation_metadata() if key == "user-agent")
        self.taken.append((context.peer(), str(agent), ExportTraceServiceRequest.FromString(body)))
        return b""

    def spans(self) -> int:
        return sum(len(ss.spans) for _, _, r in self.taken for rs in r.resource_spans for ss in rs.scope_spans)


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    double = Collector()
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    service, method = EXPORT.strip("/").split("/")
    handler = grpc.method_handlers_generic_handler(
        service, {method: grpc.unary_unary_rpc_method_handler(double.export)}
    )
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield double, f"127.0.0.1:{port}"
    server.stop(0).wait()


def run_for(seconds: float, address: str, rate: float = 60) -> int:
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(run_demo, address, seed=1, rate=rate, stop=stop)
        time.sleep(seconds)
        stop.set()
        return result.result(10)


def test_runs_over_grpc_from_many_senders(collector: tuple[Collector, str]) -> None:
    double, address = collector
    before = time.time_ns()
    acknowledged = run_for(3.0, address)
    assert acknowledged == double.spans() > 300
    assert len({peer for peer, _, _ in double.taken}) >= 8, "a connection a process"
    assert {agent.split()[0] for _, agent, _ in double.taken} == {"OTel", "OTel-OTLP-Exporter-Python/1.45.2"}
    for _, _, request in double.taken:
        assert len(request.resource_spans) == 1, "a process exports only its own spans"
        for scope_spans in request.resource_spans[0].scope_spans:
            for span in scope_spans.spans:
                assert before <= span.start_time_unix_nano <= span.end_time_unix_nano <= time.time_ns()
    assert children_before_parents(double) > 20, "an open trace has to grow"


def children_before_parents(double: Collector) -> int:
    """Spans that came in an earlier request than their parent."""
    came: dict[bytes, int] = {}
    parents: dict[bytes, bytes] = {}
    for number, (_, _, request) in enumerate(double.taken):
        for scope_spans in request.resource_spans[0].scope_spans:
            for span in scope_spans.spans:
                came[span.span_id] = number
                parents[span.span_id] = span.parent_span_id
    return sum(came[child] < came.get(parent, -1) for child, parent in parents.items())


def test_nothing_is_lost_while_the_receiver_is_full(collector: tuple[Collector, str]) -> None:
    double, address = collector
    double.busy = 3
    assert run_for(3.0, address) == double.spans() > 300
    assert double.busy == 0


def test_a_receiver_that_is_not_there_is_no_error() -> None:
    assert run_for(0.5, "127.0.0.1:9", rate=5) == 0


def test_requests_group_by_scope() -> None:
    spans = [f for f in lived(1, 10, 2) if f.process.service == "apiserver" and f.process.host == "cp-1"]
    request = export_request(spans)
    names = [scope_spans.scope.name for scope_spans in request.resource_spans[0].scope_spans]
    assert len(names) == len(set(names)) == 4
    assert sum(len(scope_spans.spans) for scope_spans in request.resource_spans[0].scope_spans) == len(spans)
