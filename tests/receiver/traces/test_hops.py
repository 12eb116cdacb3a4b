"""Components, hops and their gaps."""

from __future__ import annotations

from receiver.traces.hops import places, webhooks_of
from receiver.traces.model import Component, Trace
from receiver.traces.reader import load
from receiver.traces.tree import walk
from tests.receiver.traces import shapes
from tests.receiver.traces.shapes import CLIENT, GRPC, HTTP, MS, SERVER, T0, Recorder


def tree(rec: Recorder) -> Trace:
    trace = load(rec.index(), rec.trace_id(), T0, live=False)
    assert trace is not None
    return trace


def test_the_two_sides_of_a_call_and_what_neither_explains() -> None:
    rec = Recorder()
    shapes.release_1_34(rec, privileged=True)
    trace = tree(rec)
    found = places(trace)
    hops = {node.span.name: hop for node in walk(trace) if (hop := found[node.span.span_id].hop)}
    etcd = hops["etcdserverpb.KV/Txn"]
    assert (etcd.gap, etcd.there, etcd.back, etcd.crosses) == (MS, MS // 2, MS // 2, True)
    webhook = hops["HTTP POST"]  # its server side outlives it by 2 ms
    assert (webhook.gap, webhook.there, webhook.back) == (MS, MS, -2 * MS)


def test_what_belongs_to_a_webhook_bears_its_name() -> None:
    rec = Recorder()
    shapes.release_1_26(rec)
    trace = tree(rec)
    assert webhooks_of(rec.index(), "00" * 16) == {}
    found = places(trace, webhooks_of(rec.index(), rec.trace_id()))
    named = {node.span.name for node in walk(trace) if found[node.span.span_id].webhook}
    assert named == {"Call mutating webhook", "HTTP POST", "POST /mutate", "decide"}
    inside = next(node for node in walk(trace) if node.span.name == "decide")
    place = found[inside.span.span_id]
    assert (place.component, place.label, place.configuration) == (
        Component.WEBHOOK,
        "label-injector",
        "label-injector",
    )
    labels = {node.span.name: found[node.span.span_id].label for node in walk(trace)}
    assert labels["Call mutating webhook"] == labels["HTTP POST"] == labels["POST /mutate"] == "label-injector"
    assert labels["Create"] == "apiserver"
    assert places(trace)[inside.span.span_id].label == "injector", "its service, where the webhook's name is not known"


def test_an_aggregated_api_server_is_told_from_the_one_that_calls_it() -> None:
    rec = Recorder()
    server = rec.span("GET", SERVER, scope=HTTP, ms=50)
    away = rec.span("HTTP GET", CLIENT, server, scope=HTTP, at=1, ms=40)
    there = rec.span("GET", SERVER, away, instance="aggregated", scope=HTTP, at=5, ms=30)
    rec.span("etcdserverpb.KV/Range", CLIENT, there, instance="aggregated", scope=GRPC, at=6, ms=3)
    trace = tree(rec)
    found = places(trace)
    labels = [found[node.span.span_id].label for node in walk(trace)]
    assert labels == ["apiserver", "apiserver", "aggregated apiserver", "aggregated apiserver"]


def test_a_call_to_itself_crosses_nothing() -> None:
    rec = Recorder()
    call = rec.span("HTTP GET", CLIENT, scope=HTTP, ms=10)
    rec.span("GET", SERVER, call, scope=HTTP, at=1, ms=8)
    trace = tree(rec)
    place = places(trace)[trace.roots[0].span.span_id]
    assert place.hop is not None
    assert not place.hop.crosses
    assert not any(place.aggregated for place in places(trace).values())


def test_the_gap_needs_no_agreement_of_clocks() -> None:
    def gap(at: float, ms: float, status: int = 0, service: str = "etcd") -> int:
        rec = Recorder()
        call = rec.span("etcdserverpb.KV/Txn", CLIENT, scope=GRPC, at=10, ms=10, status=status)
        instance = "apiserver-a" if service == "apiserver" else "etcd-0"
        rec.span("etcdserverpb.KV/Txn", SERVER, call, service=service, instance=instance, scope=GRPC, at=at, ms=ms)
        hop = places(tree(rec))[tree(rec).roots[0].span.span_id].hop
        assert hop is not None
        return round(hop.gap / MS)

    assert gap(13, 4) == 6
    assert gap(-500, 4) == gap(900, 4) == gap(18, 4) == 6, "another clock, the same call"
    assert gap(18, 4, status=2) == 8, "the client left, the server went on"
    assert gap(18, 4, service="apiserver") == 8, "one clock: it did go on"
    assert gap(18, 30) == 8, "longer than the call: what of it is not covered"
