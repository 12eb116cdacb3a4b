"""What arrives, by who sent it; and whose it is."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import datetime, timezone

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from receiver.store.database import Database
from tests.conftest import StartReceiver
from tests.doubles.replay import send
from tui.clusters.arriving import Stream, nanoseconds, of_database, per_state, streams, verifier
from tui.clusters.model import Mode, Part, Plan, State, Trigger


def export(service: str, instance: str, spans: int, start: int) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    for key, value in (("service.name", service), ("service.instance.id", instance)):
        attribute = group.resource.attributes.add()
        attribute.key, attribute.value.string_value = key, value
    scope = group.scope_spans.add()
    for number in range(spans):
        span = scope.spans.add()
        span.trace_id = (start * 1000 + number).to_bytes(16, "big")
        span.span_id = (number + 1).to_bytes(8, "big")
        span.name, span.start_time_unix_nano, span.end_time_unix_nano = "x", start, start + 1
    return request


def sampling(node: str, part: Part = Part.APISERVER, instance: str = "", mode: Mode = Mode.SAMPLING) -> State:
    return State(node, part, mode, instance=instance)


def stream(instance: str, source: str = "local", rate: float = 2.0, service: str = "apiserver") -> Stream:
    return Stream(service, instance, source, int(rate * 15), rate, 1)


def test_streams_of_a_database(receiver: StartReceiver) -> None:
    live = receiver(listen=["a=127.0.0.1:0", "b=127.0.0.1:0"])
    now = time.time_ns()
    send(live.addresses["a"], [export("apiserver", "x", 30, now + at) for at in range(3)])
    send(live.addresses["b"], [export("etcd", "cp-1", 15, now + 9)])
    with closing(Database.read(live.db)) as database:
        found = streams(database, 15.0)
        assert [(one.service, one.instance, one.source, one.spans) for one in found] == [
            ("apiserver", "x", "a", 90),
            ("etcd", "cp-1", "b", 15),
        ]
        assert [one.per_second for one in found] == [6.0, 1.0]
        assert streams(database, 15.0, now + 60_000_000_000) == ()
        assert [one.spans for one in streams(database, 15.0, begun=now + 2)] == [30, 15]
    assert of_database(live.db) is not None
    live.kill()
    assert of_database(live.db) is None  # nobody receives: 0 would be no finding


@pytest.mark.parametrize(
    ("states", "arriving", "expected"),
    [
        # no receiver: nothing is known
        ([sampling("cp-1")], None, [None]),
        # nothing arrives, and something should
        ([sampling("cp-1")], [], [0.0]),
        ([sampling("cp-1", mode=Mode.OFF)], [], [None]),
        # one of each: it is that one
        ([sampling("cp-1")], [stream("apiserver-q")], [2.0]),
        # two senders of one name cannot both be it
        ([sampling("cp-1")], [stream("apiserver-q"), stream("apiserver-r")], [None]),
        # by instance, by the tunnel's name, by etcd's flag
        (
            [sampling("cp-1", instance="q"), sampling("cp-2", instance="r")],
            [stream("r"), stream("q", rate=3)],
            [3.0, 2.0],
        ),
        ([sampling("cp-1"), sampling("cp-2")], [stream("r", "cp-2")], [0.0, 2.0]),
        ([sampling("cp-1", Part.ETCD)], [stream("cp-1", service="etcd")], [2.0]),
        # two nodes and a sender that might be either
        ([sampling("cp-1"), sampling("cp-2")], [stream("r")], [None, None]),
        # other services are none of ours
        ([sampling("cp-1")], [stream("x", service="webhook")], [0.0]),
    ],
)
def test_whose_it_is(states: list[State], arriving: list[Stream] | None, expected: list[float | None]) -> None:
    rates = per_state(states, arriving)
    assert [rates[state.node, state.part] for state in states] == expected


def test_only_a_span_that_began_after_the_restart_is_proof(receiver: StartReceiver) -> None:
    live = receiver()
    restarted = time.time_ns()
    started = datetime.fromtimestamp(restarted // 1_000_000_000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    started += f".{restarted % 1_000_000_000:09}Z"
    plan = Plan("cp-1", Part.APISERVER, (), Trigger.MANIFEST, "", "")
    verify = verifier(live.db, [sampling("cp-1")], 0.2)
    send(live.address, [export("apiserver", "x", 3, restarted - 1)])  # of the dying process
    assert verify(plan, started) is False
    send(live.address, [export("apiserver", "x", 3, restarted)])
    assert verify(plan, started) is True
    assert verify(plan, "soon") is None
    live.kill()
    assert verify(plan, started) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01T01:00:01.000000002+01:00", 1_000_000_002),
        ("1970-13-01T00:00:01Z", None),
        ("", None),
        ("1970-01-01 00:00:01", None),
    ],
)
def test_times_of_containers(text: str, expected: int | None) -> None:
    assert nanoseconds(text) == expected
