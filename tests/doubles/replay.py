"""Replays a recording over gRPC, as recorded or taken apart and put together in another order."""

from __future__ import annotations

import gzip
import json
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans

from receiver.store.otlp_json import read_request

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


def recorded(path: Path) -> list[ExportTraceServiceRequest]:
    """The export requests of a recording (OTLP JSON Lines), in the order in which they arrived."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        return [read_request(json.loads(line)) for line in lines if line.strip()]


def one_by_one(requests: Iterable[ExportTraceServiceRequest]) -> Iterator[ExportTraceServiceRequest]:
    """Every span in a request of its own."""
    for request in requests:
        for resource_spans in request.resource_spans:
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    yield ExportTraceServiceRequest(
                        resource_spans=[
                            ResourceSpans(
                                resource=resource_spans.resource,
                                schema_url=resource_spans.schema_url,
                                scope_spans=[
                                    ScopeSpans(scope=scope_spans.scope, schema_url=scope_spans.schema_url, spans=[span])
                                ],
                            )
                        ]
                    )


def in_pieces(
    requests: Iterable[ExportTraceServiceRequest], random: Random, largest: int = 40
) -> list[ExportTraceServiceRequest]:
    """All spans shuffled and dealt into requests of 1 to `largest` spans: traces torn apart, parents anywhere."""
    spans = list(one_by_one(requests))
    random.shuffle(spans)
    dealt = []
    while spans:
        request = ExportTraceServiceRequest()
        for _ in range(random.randint(1, largest)):
            if spans:
                request.MergeFrom(spans.pop())
        dealt.append(request)
    return dealt


def send(address: str, requests: Iterable[ExportTraceServiceRequest], at_once: int = 1) -> int:
    """Sends requests, `at_once` of them unanswered at a time (1: the order is kept); returns how many spans were
    rejected. Any error of a call is raised."""
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_send_message_length", -1),
    ]
    rejected = 0
    with grpc.insecure_channel(address, options=options) as channel:
        call = channel.unary_unary(EXPORT, bytes, bytes)
        waiting: deque[grpc.Future[bytes]] = deque()
        for request in requests:
            waiting.append(call.future(request.SerializeToString(), timeout=30, wait_for_ready=True))
            if len(waiting) >= at_once:
                rejected += _rejected(waiting.popleft())
        while waiting:
            rejected += _rejected(waiting.popleft())
    return rejected


def _rejected(answer: grpc.Future[bytes]) -> int:
    return ExportTraceServiceResponse.FromString(answer.result()).partial_success.rejected_spans
