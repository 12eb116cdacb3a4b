"""A rollout to a rate, until spans of the new server arrive over real OTLP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from tests.tui.clusters.control_plane import PATIENCE, ControlPlane, tracing_file
from tui.clusters import rollout
from tui.clusters.model import Plan, Wish


class Collector(TraceServiceServicer):
    """Knows when the youngest span began, in ns, and whose it was."""

    def __init__(self) -> None:
        self.youngest = 0
        self.instances: set[str] = set()
        self.came = threading.Condition()

    def Export(self, request: ExportTraceServiceRequest, context: object) -> ExportTraceServiceResponse:
        with self.came:
            for resource in request.resource_spans:
                for attribute in resource.resource.attributes:
                    if attribute.key == "service.instance.id":
                        self.instances.add(attribute.value.string_value)
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        self.youngest = max(self.youngest, span.start_time_unix_nano)
            self.came.notify_all()
        return ExportTraceServiceResponse()


@pytest.fixture
def collector() -> Iterator[tuple[Collector, int]]:
    server = grpc.server(ThreadPoolExecutor(2))
    found = Collector()
    add_TraceServiceServicer_to_server(found, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield found, port
    server.stop(None)


def test_spans_that_began_after_the_restart_arrive(
    control_plane: ControlPlane, collector: tuple[Collector, int]
) -> None:
    found, port = collector
    plan = control_plane.arm(content=tracing_file(1_000_000, f"127.0.0.1:{port}"))
    plan = replace(plan, wish=Wish(plan.part, 1_000_000, name="100 %"))
    told: list[str] = []

    def verify(_plan: Plan, started: str) -> bool:
        since = datetime.fromisoformat(started[:26] + "+00:00").timestamp() * 1e9
        control_plane.status("/version")
        with found.came:
            return found.came.wait_for(lambda: found.youngest > since, 20)

    (outcome,) = rollout.Rollout(
        [(control_plane.host, plan)],
        lambda _node, step, _detail: told.append(step),
        who="alice",
        verify=verify,
        patience=PATIENCE,
        poll=0.15,
    ).run()
    assert (outcome.word, outcome.spans, told[-1]) == ("done", True, "spans")
    assert found.instances == {"apiserver-cp-1"}
