"""Recorded clusters, replayed over gRPC into a real receiver and read back by the real command line.

The recordings' own README says how many spans, traces, requests, errors and orphans each holds; what comes out
must be exactly that. And whatever the order in which spans arrive, the trees are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.conftest import StartReceiver
from tests.doubles.replay import in_pieces, one_by_one, recorded, send
from tests.live_receiver import LiveReceiver, start_receiver

Requests = list[ExportTraceServiceRequest]


def path_of(recordings: Path, name: str) -> Path:
    found = sorted(recordings.glob(f"{name}.otlp.jsonl*"))
    assert found, f"no recording {name}"
    return found[0]


def promised(recordings: Path) -> dict[str, list[int]]:
    """The README's table: name -> spans, traces, apiserver requests, error spans, orphans."""
    table = {}
    for line in (recordings / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 7 and cells[2].replace(",", "").isdigit():
            table[cells[0]] = [int(cell.replace(",", "")) for cell in cells[2:]]
    return table


def nodes(trace: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node of a `show --json` document."""
    waiting = list(trace["roots"])
    while waiting:
        node = waiting.pop()
        waiting += node["children"]
        yield node


def counted(live: LiveReceiver) -> list[int]:
    """Spans, traces, apiserver requests, error spans, orphans as the command line tells them."""
    traces = live.traces()
    shown = live.show(*(trace["trace_id"] for trace in traces))
    assert len(shown) == len(traces)
    every = [node for trace in shown for node in nodes(trace)]
    assert len({(trace["trace_id"], node["span_id"]) for trace in shown for node in nodes(trace)}) == len(every)
    assert len(every) == sum(trace["spans"] for trace in traces), "list and tree agree"
    errors = sum(node["status"] == "error" for node in every)
    assert errors == sum(trace["errors"] for trace in traces), "list and tree agree"
    return [
        len(every),
        len(traces),
        sum(trace["request"] is not None for trace in traces),
        errors,
        sum(bool(node["orphan"]) for node in every),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "list-nodes",
        "create-pod-webhooks",
        "forced-at-rate-zero",
        "incident",
        "kubeadm-node",
        "kubelet-and-containerd",
        "incident-2",
    ],
)
def test_counts_are_those_of_the_recording(name: str, recordings: Path, receiver: StartReceiver) -> None:
    live = receiver()
    assert send(live.address, recorded(path_of(recordings, name))) == 0
    assert counted(live) == promised(recordings)[name]


# --- the largest one, looked at closely ----------------------------------------------------------
@pytest.fixture(scope="module")
def full(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveReceiver]:
    """`cluster-rate-full`, sent once for the tests below, which only read."""
    live = start_receiver(tmp_path_factory.mktemp("full") / "spans.db", ["127.0.0.1:0"])
    try:
        assert send(live.address, recorded(path_of(recordings, "cluster-rate-full"))) == 0
        yield live
    finally:
        live.kill()


def test_counts_are_those_of_the_largest_recording(full: LiveReceiver, recordings: Path) -> None:
    assert counted(full) == promised(recordings)["cluster-rate-full"]


VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "APPLY": "patch", "DELETE": "delete"}


def attributes(span: Span) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value") or "string_value") for item in span.attributes}


def test_every_request_is_told_as_its_spans_tell_it(full: LiveReceiver, recordings: Path) -> None:
    """Verb, resource, names, caller, code and audit id, against the attributes of the recorded spans themselves."""
    servers: dict[str, dict[str, Any]] = {}
    verbs: dict[str, dict[str, Any]] = {}
    for request in one_by_one(recorded(path_of(recordings, "cluster-rate-full"))):
        scope_spans = request.resource_spans[0].scope_spans[0]
        span = scope_spans.spans[0]
        trace_id = span.trace_id.hex()
        if "otelhttp" in scope_spans.scope.name and span.kind == Span.SPAN_KIND_SERVER:
            servers[trace_id] = attributes(span)
        elif scope_spans.scope.name == "k8s.io/component-base/tracing" and "verb" in (said := attributes(span)):
            verbs[trace_id] = said
    told_by_list = {trace["trace_id"]: trace["request"] for trace in full.traces() if trace["request"]}
    assert told_by_list.keys() == servers.keys()
    for trace_id, server in servers.items():
        told_request = told_by_list[trace_id]
        assert told_request["code"] == server["http.response.status_code"]
        assert told_request["audit_id"] == server["audit-id"]
        assert told_request["user_agent"] == (server.get("user_agent.original") or None)
        verb = verbs.get(trace_id)
        if verb is None:
            continue
        expected = VERBS.get(verb["verb"], verb["verb"].lower())
        if verb["verb"] == "DELETE" and not verb["name"]:
            expected = "deletecollection"
        assert told_request["verb"] == expected
        assert told_request["group"] == verb["api-group"]
        for ours, theirs in (
            ("resource", "resource"),
            ("subresource", "subresource"),
            ("namespace", "namespace"),
            ("name", "name"),
            ("version", "api-version"),
        ):
            assert told_request[ours] == (verb[theirs] or None), (trace_id, ours)


def test_a_traceparent_is_honoured_or_becomes_a_link(full: LiveReceiver) -> None:
    """The README tells of two: the privileged user's made a trace, the other one's a link."""
    forced = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa2"
    linked = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1"
    ids = [trace["trace_id"] for trace in full.traces()]
    assert forced in ids
    assert linked not in ids
    (trace,) = full.show(forced)
    assert [(root["name"], root["orphan"]) for root in trace["roots"]] == [("GET /api/v1/nodes", True)]
    refused = [trace["trace_id"] for trace in full.traces("resource=nodes", "code=403")]
    links = [link for shown in full.show(*refused) for node in nodes(shown) for link in node["links"]]
    assert [link["trace_id"] for link in links] == [linked]


# --- the order of arrival makes no difference ------------------------------------------------------
def told(live: LiveReceiver) -> dict[str, Any]:
    """Every trace as the command line tells it: its line and its tree, without what depends on when it came."""
    traces = {trace["trace_id"]: trace for trace in live.traces()}
    for trace in traces.values():
        trace.pop("settled")
        trace["services"].sort()
    shown = {trace["trace_id"]: trace for trace in live.show(*traces)}
    for trace in shown.values():
        trace.pop("settled", None)
        trace.pop("verdict", None)  # it says so while spans are still arriving
    return {trace_id: (traces[trace_id], shown[trace_id]) for trace_id in traces}


def doubled(requests: Requests) -> Requests:
    """Each request twice in a row, as an exporter does that lost the answer."""
    return [request for request in requests for _ in range(2)]


def doubled_later(requests: Requests) -> Requests:
    """All of it, and all of it again in pieces."""
    return requests + in_pieces(requests, Random(4))


def backwards(requests: Requests) -> Requests:
    return requests[::-1]


def shuffled(requests: Requests) -> Requests:
    mixed = list(requests)
    Random(2).shuffle(mixed)
    return mixed


def torn(requests: Requests) -> Requests:
    return in_pieces(requests, Random(3))


def single(requests: Requests) -> Requests:
    return list(one_by_one(requests))


MIXED = ("create-pod-webhooks", "forced-at-rate-zero", "incident-2")


@pytest.fixture(scope="module")
def mixed(recordings: Path) -> Requests:
    """Recordings one after the other, as if one cluster had sent them."""
    return [request for name in MIXED for request in recorded(path_of(recordings, name))]


@pytest.fixture(scope="module")
def expected(mixed: Requests, recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command line tells when they come as recorded."""
    live = start_receiver(tmp_path_factory.mktemp("as-recorded") / "spans.db", ["127.0.0.1:0"])
    try:
        assert send(live.address, mixed) == 0
        arrived = told(live)
    finally:
        live.kill()
    assert len(arrived) == sum(promised(recordings)[name][1] for name in MIXED)
    return arrived


@pytest.mark.parametrize("order", [doubled, doubled_later, backwards, shuffled, torn, single])
def test_same_trees_whatever_the_order(
    order: Callable[[Requests], Requests], mixed: Requests, expected: dict[str, Any], receiver: StartReceiver
) -> None:
    live = receiver()
    assert send(live.address, order(mixed), at_once=16) == 0
    arrived = told(live)
    assert arrived.keys() == expected.keys()
    different = [trace_id for trace_id, trace in expected.items() if arrived[trace_id] != trace]
    assert not different


def test_counts_survive_a_torn_and_doubled_replay(recordings: Path, receiver: StartReceiver) -> None:
    """In a thousand of small requests, and then once more."""
    requests = recorded(path_of(recordings, "kubeadm-node"))
    live = receiver()
    assert send(live.address, in_pieces(requests, Random(5), largest=120), at_once=16) == 0
    assert send(live.address, requests, at_once=4) == 0
    assert counted(live) == promised(recordings)["kubeadm-node"]
