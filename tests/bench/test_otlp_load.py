"""The load generator counts what it sends, and what it sends is new every time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from receiver.ingest.demo import EXPORT
from tests.bench.otlp_load import Load, Template, dump, make_templates, read_dump, run


@pytest.fixture(scope="module")
def templates() -> list[Template]:
    return make_templates(6)


class Sink:
    """Takes everything, save what it is told to refuse."""

    def __init__(self) -> None:
        self.taken: list[Span] = []
        self.full = 0  # requests to turn away
        self.rejects = 0  # spans of each request to reject

    def export(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        if self.full:
            self.full -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "full")
        self.taken += spans_of(body)
        partial = ExportTracePartialSuccess(rejected_spans=self.rejects)
        return ExportTraceServiceResponse(partial_success=partial).SerializeToString()


def spans_of(body: bytes) -> list[Span]:
    request = ExportTraceServiceRequest.FromString(body)
    return [span for rs in request.resource_spans for ss in rs.scope_spans for span in ss.spans]


@pytest.fixture
def sink() -> Iterator[tuple[Sink, str]]:
    double = Sink()
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    service, method = EXPORT.strip("/").split("/")
    handler = grpc.unary_unary_rpc_method_handler(double.export)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield double, f"127.0.0.1:{port}"
    server.stop(0).wait()


def test_no_span_comes_twice_and_every_span_is_recent(templates: list[Template], sink: tuple[Sink, str]) -> None:
    double, target = sink
    cycle = sum(template.spans for template in templates)
    outcome = run(Load(target, maximal=True, spans=3 * cycle, seconds=30), templates)
    assert outcome.sent == outcome.acknowledged == len(double.taken) == 3 * cycle
    assert len({(span.trace_id, span.span_id) for span in double.taken}) == 3 * cycle
    now = time.time_ns()
    assert all(now - 60e9 < span.start_time_unix_nano <= span.end_time_unix_nano <= now for span in double.taken)


def test_two_runs_do_not_meet(templates: list[Template], sink: tuple[Sink, str]) -> None:
    double, target = sink
    run(Load(target, maximal=True, spans=500, seconds=30), templates)
    first = {span.trace_id for span in double.taken}
    double.taken.clear()
    time.sleep(1.1)  # the tag of a run counts seconds
    run(Load(target, maximal=True, spans=500, seconds=30), templates)
    assert first.isdisjoint(span.trace_id for span in double.taken)


def test_traces_are_whole_and_links_lead_somewhere(templates: list[Template]) -> None:
    spans = [span for template in templates for span in spans_of(template.fresh(9, 10**18))]
    ids = {(span.trace_id, span.span_id) for span in spans}
    orphans = [s.trace_id for s in spans if s.parent_span_id and (s.trace_id, s.parent_span_id) not in ids]
    assert len(orphans) <= 2, "only a made-up traceparent has no parent"
    links = [(link.trace_id, link.span_id) for span in spans for link in span.links]
    assert links
    assert set(links) <= ids
    events = [(span, event) for span in spans for event in span.events]
    assert events
    assert all(span.start_time_unix_nano <= event.time_unix_nano for span, event in events)


def test_requests_look_like_a_cluster(templates: list[Template]) -> None:
    spans = [span for template in templates for span in spans_of(template.fresh(1, 0))]
    names = Counter(span.name for span in spans)
    assert names["etcdserverpb.KV/Txn"] > 100
    assert names["Call mutating webhook"] > 2
    server = next(span for span in spans if span.name == "POST /api/v1/namespaces/{:namespace}/pods")
    keys = {attribute.key for attribute in server.attributes}
    assert {"http.target", "audit-id", "user_agent.original", "http.response.status_code"} <= keys
    size = sum(len(template) for template in templates) / len(spans)
    assert 250 < size < 400, "bytes a span, as recorded (about 300)"


def test_the_rate_is_kept(templates: list[Template], sink: tuple[Sink, str]) -> None:
    _, target = sink
    outcome = run(Load(target, rate=8000, seconds=1.5), templates)
    assert 8000 <= outcome.sent <= 16_000
    assert outcome.wall < 4


def test_failures_are_counted_apart(templates: list[Template], sink: tuple[Sink, str]) -> None:
    double, target = sink
    double.full, double.rejects = 2, 3
    outcome = run(Load(target, maximal=True, spans=2500, seconds=30), templates)
    assert outcome.errors == {"UNAVAILABLE": 2}
    assert outcome.rejected == 3 * (outcome.requests - 2)
    assert outcome.sent == outcome.acknowledged + outcome.rejected + outcome.failed
    assert outcome.failed > 0


@pytest.mark.parametrize("load", [Load("x", maximal=True, seconds=1e9), Load("x"), Load("x", rate=1, maximal=True)])
def test_a_load_is_bounded_and_says_how_fast(load: Load, templates: list[Template]) -> None:
    with pytest.raises(ValueError):
        run(load, templates)


def test_dump(templates: list[Template], tmp_path: Path) -> None:
    path = tmp_path / "templates.bin"
    dump(templates, path)
    bodies = list(read_dump(path))
    assert [len(spans_of(body)) for body in bodies] == [template.spans for template in templates]
