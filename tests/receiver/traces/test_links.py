"""Links between traces, both ways, from bytes as they are sent to what is said about them."""

from __future__ import annotations

import numpy as np
import pytest

from receiver.store.chunk import ROLE_LINK, Chunk
from receiver.store.database import Database, decompress
from receiver.store.index import Index
from receiver.store.repack import Part, repack
from receiver.traces.bodies import Bodies
from receiver.traces.links import Relation, count, relations
from receiver.traces.reader import load
from receiver.traces.tree import walk
from tests.receiver.traces.conftest import Recordings
from tests.receiver.traces.shapes import CLIENT, CORE, GRPC, HTTP, SERVER, T0, Recorder, chunks_of

KUBELET = "k8s.io/kubernetes/pkg/kubelet"


def stored(rec: Recorder, *, known: bool = True) -> tuple[Index, Bodies]:
    """An index and the bodies behind it; `known` False: stored before the index knew of links."""
    chunks = chunks_of(rec.requests())
    for chunk in () if known else chunks:
        chunk.facts = chunk.facts[chunk.facts["role"] != ROLE_LINK]
    database = Database.memory()
    database.append(chunks)
    index = Index()
    index.extend(database.read_after(0))
    return index, Bodies(database)


def seen(rec: Recorder, at: tuple[Index, Bodies], trace: str, name: str) -> list[Relation]:
    """What there is to go to from a span of a trace."""
    index, bodies = at
    tree = load(index, rec.trace_id(trace), T0, live=False)
    assert tree is not None
    span = next(node.span for node in walk(tree) if node.span.name == name)
    return relations(index, bodies, span.trace_id, T0, span=span, live=False)


def node_status() -> Recorder:
    """A kubelet that syncs a pod and calls the API server, which does not trust its traceparent."""
    rec = Recorder()
    sync = rec.span("syncPod", trace="kubelet", service="kubelet", instance="", scope=KUBELET, ms=100)
    for number, at in enumerate((10, 40)):
        call = rec.span(
            "HTTP PATCH", CLIENT, sync, trace="kubelet", service="kubelet", instance="", scope=HTTP, at=at, ms=20
        )
        served = rec.span(
            "PATCH /api/v1/nodes/{:name}/status", SERVER, trace=f"api {number}", scope=HTTP, at=at + 1, ms=12.3,
            links=[("kubelet", call)],
            values={"http.target": "/api/v1/nodes/cp-1/status", "http.request.method": "PATCH"},
        )  # fmt: skip
        rec.span("Patch", parent=served, trace=f"api {number}", scope=CORE, at=at + 2, ms=5)
    return rec


def test_from_the_kubelet_to_the_api_server_and_back() -> None:
    rec = node_status()
    at = stored(rec)
    calls = [span.span_id.hex() for _, _, _, span in rec.spans if span.name == "HTTP PATCH"]
    servers = [span.span_id.hex() for _, _, _, span in rec.spans if span.kind == SERVER]

    there = seen(rec, at, "kubelet", "HTTP PATCH")
    assert [(one.outgoing, one.here, one.trace_id, one.span_id) for one in there] == [
        (False, call, rec.trace_id(f"api {number}"), server)
        for number, (call, server) in enumerate(zip(calls, servers, strict=True))
    ], "the cursor's own call first"
    request = there[0].other
    assert request is not None
    assert request.request is not None
    assert (request.request.resource, request.duration_ns) == ("nodes", 12_300_000)

    for name in ("PATCH /api/v1/nodes/{:name}/status", "Patch"):  # whichever span of the trace is asked
        back = seen(rec, at, "api 1", name)
        assert [(one.outgoing, one.here, one.span_id, one.caller) for one in back] == [
            (True, servers[1], calls[1], True)
        ]
        assert back[0].other is not None
        assert back[0].other.headline == "syncPod"
    index = at[0]
    assert [count(index, rec.trace_id(name)) for name in ("kubelet", "api 0", "nobody")] == [2, 1, 0]


def test_a_webhook_that_calls_back_in() -> None:
    rec = Recorder()
    request = rec.span("POST /api/v1/namespaces/{:namespace}/pods", SERVER, trace="create", scope=HTTP, ms=50)
    hook = rec.span("Call mutating webhook", parent=request, trace="create", at=1, ms=40)
    post = rec.span("HTTP POST", CLIENT, hook, trace="create", scope=HTTP, at=2, ms=38)
    inside = rec.span("POST /mutate", SERVER, post, trace="create", service="injector", scope="x", at=3, ms=30)
    rec.span("GET /api/v1/configmaps", SERVER, trace="again", scope=HTTP, at=5, ms=2, links=[("create", inside)])
    at = stored(rec)
    (found,) = seen(rec, at, "create", "Call mutating webhook")
    assert (found.outgoing, found.here, found.trace_id) == (False, inside.hex(), rec.trace_id("again"))


def test_links_within_a_trace_are_told_once_and_from_where_one_stands() -> None:
    rec = Recorder()
    root = rec.span("first", service="x", scope="x", ms=9)
    rec.span(
        "second", parent=root, service="x", scope="x", links=[("trace", root), ("trace", root), ("gone", b"g" * 8)]
    )
    rec.span("third", parent=root, service="x", scope="x")
    at = stored(rec)
    own, gone = rec.trace_id(), rec.trace_id("gone")
    told = {name: [(one.outgoing, one.trace_id) for one in seen(rec, at, "trace", name)] for name in
            ("first", "second", "third")}  # fmt: skip
    assert told == {
        "first": [(False, own), (True, gone)],
        "second": [(True, own), (True, gone)],
        "third": [(True, own), (True, gone)],
    }
    assert not any(one.caller for one in seen(rec, at, "trace", "second")), "no API server served it"


def test_what_was_stored_before_links_were_known_still_follows_its_own() -> None:
    rec = node_status()
    at = stored(rec, known=False)
    assert [one.outgoing for one in seen(rec, at, "api 0", "PATCH /api/v1/nodes/{:name}/status")] == [True]
    assert seen(rec, at, "api 0", "Patch") == []
    assert seen(rec, at, "kubelet", "syncPod") == []


def test_links_stay_with_their_spans_when_chunks_are_merged_and_dropped() -> None:
    rec = node_status()
    rec.span("etcdserverpb.KV/Range", CLIENT, trace="api 1", scope=GRPC, links=[("kubelet", b"k" * 8)] * 3)
    chunks = chunks_of(rec.requests())
    index = Index()
    index.extend(chunks)
    kubelet = rec.trace_id("kubelet")

    def names(index: Index) -> list[str]:
        slot = index.slot_of(kubelet)
        assert slot is not None
        return [index.names[name] for name in index.name[index.fact_row[index.links_to(slot)]].tolist()]

    both = ["PATCH /api/v1/nodes/{:name}/status"] * 2
    assert names(index) == [*both, "etcdserverpb.KV/Range"]
    first = next(chunk.id for chunk in chunks if "PATCH /api/v1/nodes/{:name}/status" in chunk.strings)
    assert names(index.without([first])) == [*both[1:], "etcdserverpb.KV/Range"]

    def part(chunk: Chunk) -> Part:
        kept = np.array([chunk.strings[name] != "etcdserverpb.KV/Range" for name in chunk.spans["name"].tolist()])
        return Part(chunk, kept, decompress(chunk.body))

    merged = repack([part(chunk) for chunk in chunks])
    merged.id = 1
    again = Index()
    again.extend([merged])
    assert names(again) == both


def test_a_flood_of_links_is_bounded() -> None:
    rec = Recorder()
    for number in range(200):
        rec.span(
            "x", SERVER, trace=f"t{number}", scope=HTTP, links=[("target", bytes([1 + n]) * 8) for n in range(100)]
        )
    rec.span("x", trace="target", links=[(f"t{n}", b"x" * 8) for n in range(100)])
    at = stored(rec)
    found = seen(rec, at, "target", "x")
    assert len(found) <= 64 + 64 * 64


def test_the_one_link_of_a_real_cluster_leads_to_a_caller_that_was_not_received(recorded: Recordings) -> None:
    full = recorded("cluster-rate-full")
    index, bodies = full.index, full.bodies
    facts = np.flatnonzero(index.role == ROLE_LINK)
    assert len(facts) == 1
    trace_id = index.trace_id(int(index.slot[index.fact_row[facts[0]]]))
    (found,) = relations(index, bodies, trace_id, T0, live=False)
    assert (found.trace_id, found.span_id) == ("a" * 31 + "1", "b" * 15 + "1")
    assert found.outgoing
    assert found.caller
    assert found.other is None
    forced = "a" * 31 + "2"  # the same header of a privileged user was honoured: a parent, no link
    assert relations(index, bodies, forced, T0, live=False) == []
    assert count(index, forced) == 0


@pytest.mark.parametrize("name", ["kubeadm-node", "kubelet-and-containerd"])
def test_nodes_whose_callers_send_no_context_have_no_links(recorded: Recordings, name: str) -> None:
    """In neither were the kubelet and the API server traced together."""
    index, bodies = recorded(name).index, recorded(name).bodies
    assert not (index.role == ROLE_LINK).any()
    for slot in range(0, index.traces, 97):
        assert relations(index, bodies, index.trace_id(slot), T0, live=False) == []
