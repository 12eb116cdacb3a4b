"""Rows and trees out of the index: the same whatever the order of arrival, and right for every release."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.recordings.reading import read
from receiver.store.chunk import APISERVER, FACT, FLAG_REQUEST, SPAN, Chunk, Resource
from receiver.store.index import Index
from receiver.traces.model import Oddity, Settled, Trace, TraceSummary
from receiver.traces.query import Query, View, select
from receiver.traces.reader import SETTLE_NS, load, summaries
from receiver.traces.tree import walk
from tests.receiver.traces import shapes
from tests.receiver.traces.conftest import Recordings
from tests.receiver.traces.shapes import AGENT, AUDIT, PODS, SERVER, T0, Recorder, chunks_of, index_of

LATER = T0 + 60_000_000_000

RELEASES: dict[str, Callable[[Recorder], None]] = {
    "1.22": shapes.release_1_22,
    "1.26": shapes.release_1_26,
    "1.33": shapes.release_1_33,
    "1.34": partial(shapes.release_1_34, privileged=False),
    "1.34 privileged": partial(shapes.release_1_34, privileged=True),
}


def row(index: Index, trace_id: str, now: int = LATER) -> TraceSummary:
    slot = index.slot_of(trace_id)
    assert slot is not None
    return summaries(index, [slot], now)[0]


def tree(index: Index, trace_id: str, now: int = LATER, cap: int = 50_000) -> Trace:
    trace = load(index, trace_id, now, cap)
    assert trace is not None
    return trace


@pytest.mark.parametrize("release", RELEASES)
def test_the_request_of_every_release(release: str) -> None:
    rec = Recorder()
    RELEASES[release](rec)
    request = row(rec.index(), rec.trace_id()).request
    assert request is not None
    assert request.to_json() == {
        "verb": "create",
        "group": "",
        "version": "v1",
        "resource": "pods",
        "subresource": None,
        "namespace": "default",
        "name": None,
        "user_agent": AGENT,
        "code": None if release == "1.33" else 201,
        "audit_id": None if release == "1.22" else AUDIT,
        "path": shapes.PODS,
    }
    assert tree(rec.index(), rec.trace_id()).request == request


def test_a_row_says_what_its_tree_holds() -> None:
    rec = Recorder()
    shapes.release_1_34(rec, privileged=True)
    found = row(rec.index(), rec.trace_id())
    assert found.headline == "POST /api/v1/namespaces/{:namespace}/pods"
    assert found.start == T0 + 200_000
    assert found.duration_ns == 20_000_000
    assert (found.spans, found.errors, found.missing) == (14, 1, 0)
    assert found.services == ("apiserver", "policy", "etcd")
    assert found.instance == "apiserver-a"
    assert found.source == "local"
    assert found.webhooks == ("name-policy.example.com",)
    assert (found.failure, found.failed_webhook) == ("context deadline exceeded", "name-policy.example.com")
    assert found.settled is Settled.SETTLED


def test_a_webhook_that_answers_with_an_error_code_and_no_words() -> None:
    rec = Recorder()
    rec.span("POST", shapes.SERVER, scope=shapes.HTTP)
    second = rec.span("Call validating webhook", at=2, values={"webhook": "b.example.com", "configuration": "b"})
    rec.span("Call mutating webhook", at=1, values={"webhook": "a.example.com", "configuration": "a"})
    rec.span("Call mutating webhook", at=3, values={"webhook": "a.example.com", "configuration": "a"})
    rec.span("HTTP POST", shapes.CLIENT, second, status=2, values={"http.response.status_code": 500})
    rec.span("HTTP GET", shapes.CLIENT, b"\xaa" * 8, status=2, message="not a webhook's")
    found = row(rec.index(), rec.trace_id())
    assert found.webhooks == ("a.example.com", "b.example.com")
    assert (found.failure, found.failed_webhook) == ("HTTP 500", "b.example.com")


def test_a_trace_without_a_request_has_none() -> None:
    rec = Recorder()
    shapes.watch_1_36(rec)
    found = row(rec.index(), rec.trace_id())
    assert (found.request, found.headline, found.settled, found.missing) == (None, "WatchList", Settled.MISSING, 1)


def test_the_names_of_a_nested_request_do_not_reach_the_headline() -> None:
    rec = Recorder()
    outer = rec.span(
        "POST", shapes.SERVER, scope=shapes.HTTP, ms=9, values={"http.target": "/api/v1/namespaces/d/pods"}
    )
    call = rec.span("HTTP GET", shapes.CLIENT, outer, at=1, ms=2)
    values = {"http.target": "/api/v1/nodes/n1", "http.method": "GET", "http.status_code": 404}
    rec.span("GET", shapes.SERVER, call, scope=shapes.HTTP, at=1, ms=1, values=values)
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]):
        request = row(rec.index(order), rec.trace_id()).request
        assert request is not None
        assert (request.verb, request.resource, request.code) == ("create", "pods", None)


@pytest.mark.parametrize(
    ("age", "live", "missing", "settled"),
    [
        (SETTLE_NS - 1, True, 1, Settled.ARRIVING),
        (SETTLE_NS - 1, True, 0, Settled.ARRIVING),
        (SETTLE_NS - 1, False, 0, Settled.SETTLED),
        (0, False, 1, Settled.MISSING),
        (SETTLE_NS, True, 0, Settled.SETTLED),
        (SETTLE_NS, True, 1, Settled.MISSING),
        (-SETTLE_NS, True, 0, Settled.ARRIVING),  # the clock was set back
    ],
)
def test_settled(age: int, live: bool, missing: int, settled: Settled) -> None:
    rec = Recorder()
    rec.span("a", parent=b"\xcc" * 8 if missing else None)
    index = rec.index()
    assert summaries(index, [0], T0 + age, live=live)[0].settled is settled
    trace = load(index, rec.trace_id(), T0 + age, live=live)
    assert trace is not None
    assert (trace.settled, trace.missing) == (settled, missing)


@pytest.mark.parametrize("without", [False, True])
def test_what_came_out_of_a_recording_waits_for_nothing(without: bool) -> None:
    """Until a sender adds to it; and also when other chunks were evicted."""
    index = Index()
    other, recorded = plain_chunk(1, [9], [9], [0]), plain_chunk(2, [1], [1], [0])
    sent = replace(plain_chunk(3, [1], [2], [1]), peer="127.0.0.1:1")
    index.extend([other, recorded])
    for more, settled in (([], Settled.SETTLED), ([sent], Settled.ARRIVING)):
        index.extend(more)
        asked = index.without([1]) if without else index
        slot = asked.slot_of(f"{1:016x}{1:016x}")
        assert slot is not None
        assert summaries(asked, [slot], T0 + 1)[0].settled is settled


def test_missing_parents_are_counted_once_each_and_per_trace() -> None:
    rec = Recorder()
    known = rec.span("a", trace="one")
    rec.span("b", trace="one", parent=b"\xcc" * 8)
    rec.span("c", trace="one", parent=b"\xcc" * 8)
    rec.span("d", trace="one", parent=b"\xdd" * 8)
    rec.span("e", trace="two", parent=known)  # a span of another trace is no parent
    index = rec.index()
    assert (row(index, rec.trace_id("one")).missing, row(index, rec.trace_id("two")).missing) == (2, 1)
    assert tree(index, rec.trace_id("one")).missing == 2


def test_unknown_traces() -> None:
    index = index_of([])
    assert summaries(index, [], LATER) == []
    assert load(index, "0" * 32, LATER) is None
    assert load(index, "no id", LATER) is None


def test_services_come_in_the_order_in_which_they_started() -> None:
    rec = Recorder()
    for service, at in (("c", 3.0), ("a", 2.0), ("", 1.0), ("b", 2.5), ("a", 4.0), ("0", -T0 / 1e6)):
        rec.span("x", service=service, at=at, scope="")
    assert row(rec.index(), rec.trace_id()).services == ("a", "b", "c", "0")  # without a start time: last


# --- many and big ---------------------------------------------------------------------------------
def plain_chunk(number: int, traces: list[int], ids: list[int], parents: list[int]) -> Chunk:
    """Spans by number: made without protobuf, so that a test can have many."""
    spans = np.zeros(len(ids), SPAN)
    spans["trace_hi"], spans["trace_lo"] = 1, traces
    spans["span"], spans["parent"] = ids, parents
    spans["start"] = T0 + np.arange(len(ids)) * 1000
    spans["end"] = spans["start"] + 500
    spans["name"], spans["kind_status"] = 1, 1
    return Chunk(number, "local", "", T0, ["", "x"], [Resource("app", "")], spans, np.zeros(0, FACT), b"")


def test_a_trace_over_the_cap_keeps_its_headline_and_the_last_arrived() -> None:
    index = Index()
    index.extend([plain_chunk(1, [1] * 1000, list(range(1, 1001)), [0] + [1] * 999)])
    trace = tree(index, index.trace_id(0), cap=100)
    assert (trace.left_out, trace.spans, trace.missing) == (900, 1000, 0)
    assert len(list(walk(trace))) == 100
    assert trace.headline is not None
    assert trace.headline.span.span_id == f"{1:016x}"
    last = {int(node.span.span_id, 16) for node in walk(trace)}
    assert last == {1, *range(902, 1001)}
    assert tree(index, index.trace_id(0), cap=1000).left_out == 0


def test_a_row_of_a_very_big_trace_is_exact_once_it_is_quiet() -> None:
    index = Index()
    index.extend([plain_chunk(1, [1] * 6000, list(range(1, 6001)), [9_999_999] * 6000)])
    assert summaries(index, [0], T0 + 1)[0].missing == 1
    index.extend([plain_chunk(2, [1] * 2, [7001, 7002], [8_888_888, 0])])
    assert summaries(index, [0], T0 + 1)[0].spans == 6002
    quiet = summaries(index, [0], T0 + SETTLE_NS)[0]
    assert (quiet.missing, quiet.settled) == (2, Settled.MISSING)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 8), st.integers(0, 10)), min_size=1, max_size=40))
@settings(deadline=None)
def test_any_number_of_rows_at_once_says_the_same_as_one_by_one(spans: list[tuple[int, int, int]]) -> None:
    index = Index()
    traces, ids, parents = (list(column) for column in zip(*spans, strict=True))
    index.extend([plain_chunk(1, traces, ids, parents)])
    together = summaries(index, range(index.traces), LATER)
    assert together == [summaries(index, [slot], LATER)[0] for slot in range(index.traces)]
    for summary in together:
        trace = tree(index, summary.trace_id)
        assert (trace.spans, trace.missing, trace.settled) == (summary.spans, summary.missing, summary.settled)
        held = {node.span.span_id for node in walk(trace)}
        assert summary.missing == len({node.span.parent_id for node in walk(trace)} - held - {""})


@given(st.randoms(use_true_random=False), st.integers(1, 14))
@settings(deadline=None)
def test_the_row_and_the_tree_have_the_same_headline_at_every_moment(chance: random.Random, count: int) -> None:
    """Spans arrive one by one in any order; each starts after its parent, as on one clock."""
    parents = [chance.choice((0, *range(1, number))) for number in range(1, count + 1)]
    requests = {number for number in range(1, count + 1) if chance.random() < 0.4}
    order = list(range(1, count + 1))
    chance.shuffle(order)
    index = Index()
    for arrived, number in enumerate(order):
        chunk = plain_chunk(arrived + 1, [1], [number], [parents[number - 1]])
        chunk.spans["start"] = T0 + number
        chunk.spans["end"] = T0 + number + chance.randrange(50)
        if number in requests:
            chunk.spans["kind_status"], chunk.spans["flags"] = shapes.SERVER, APISERVER | FLAG_REQUEST
        index.extend([chunk])
        headline = tree(index, index.trace_id(0)).headline
        assert headline is not None
        summary = row(index, index.trace_id(0))
        assert (summary.start, summary.duration_ns) == (headline.span.start, headline.span.duration)


def test_thousands_of_rows_take_the_same_values_as_a_few() -> None:
    count = 3000
    spans = [
        (trace, 10 * trace + part, 10 * trace if part > 1 else 0) for part in (1, 2, 3) for trace in range(1, count + 1)
    ]
    index = Index()
    traces, ids, parents = (list(column) for column in zip(*spans, strict=True))
    index.extend([plain_chunk(1, traces, ids, parents)])
    everything = summaries(index, range(count), LATER)
    assert everything[:50] == summaries(index, range(50), LATER)
    assert {(s.spans, s.missing, s.services) for s in everything} == {(3, 1, ("app",))}


# --- recordings -----------------------------------------------------------------------------------
COUNTS = {  # spans, traces, requests, error spans, orphans: the README beside the recordings
    "list-nodes.otlp.jsonl": (12, 1, 1, 0, 0),
    "create-pod-webhooks.otlp.jsonl": (69, 4, 4, 3, 0),
    "forced-at-rate-zero.otlp.jsonl": (33, 3, 3, 0, 3),
    "cluster-rate-full.otlp.jsonl.gz": (65_810, 6_547, 5_434, 280, 59),
    "incident.otlp.jsonl.gz": (7_332, 1_252, 602, 232, 59),
    "kubeadm-node.otlp.jsonl.gz": (12_670, 3_278, 1_589, 73, 134),
    "kubelet-and-containerd.otlp.jsonl.gz": (5_562, 4_924, 0, 10, 8),
    "incident-2.otlp.jsonl.gz": (163, 14, 14, 2, 0),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_of_a_recording(recorded: Recordings, name: str) -> None:
    index = recorded(name).index
    rows = summaries(index, range(index.traces), LATER)
    orphans = 0
    for summary in rows if index.traces < 2000 else rows[:: index.traces // 500]:
        trace = tree(index, summary.trace_id)
        assert trace.headline is not None
        head = trace.headline.span
        assert (summary.headline, summary.start, summary.duration_ns) == (head.name, head.start, head.duration)
        assert (summary.spans, summary.errors, summary.missing) == (trace.spans, trace.errors, trace.missing)
        assert summary.request == trace.request
        orphans += sum(Oddity.ORPHAN in node.oddities for node in walk(trace))
    requests = sum(summary.request is not None for summary in rows)
    errors = sum(summary.errors for summary in rows)
    parents = Counter(index.parent[index.parent != 0].tolist())
    for span in index.span.tolist():
        parents.pop(span, None)
    assert (index.spans, index.traces, requests, errors, sum(parents.values())) == COUNTS[name]
    if index.traces < 2000:
        assert orphans == COUNTS[name][4]


@pytest.mark.parametrize(
    "name", ["create-pod-webhooks.otlp.jsonl", "incident-2.otlp.jsonl.gz", "incident.otlp.jsonl.gz"]
)
def test_a_recording_in_any_order_and_twice_is_the_same_traces(recordings: Path, name: str) -> None:
    requests = list(read(recordings / name, pytest.fail))
    shuffled = requests + requests
    random.Random(7).shuffle(shuffled)

    def seen(bodies: list[bytes]) -> list[TraceSummary]:
        index = Index()
        index.extend(chunks_of(bodies))
        rows = summaries(index, range(index.traces), LATER)
        return sorted(rows, key=lambda summary: summary.trace_id)

    first, second = seen(requests), seen(shuffled)

    def without_failure(rows: list[TraceSummary]) -> list[TraceSummary]:
        return [replace(row, failure="", failed_webhook="") for row in rows]  # of two the first to arrive is named

    assert without_failure(first) == without_failure(second)


def test_a_create_names_the_object_that_it_stored() -> None:
    """The URL of a create has no name; the storage span's key has it, and filters find it."""
    recorder = Recorder()
    target = {"http.request.method": "POST", "http.target": PODS, "http.response.status_code": 201}
    server = recorder.span(f"POST {PODS}", SERVER, values=target)
    recorder.span("Create etcd3", parent=server, values={"key": "/pods/default/slow-one"})
    index = recorder.index()
    row = summaries(index, [0], T0)[0]
    assert row.created == "slow-one"
    assert row.request is not None
    assert row.request.name == ""
    for text, hits in (("slow-one", 1), ("name=slow-one", 1), ("default/slow", 1), ("name=other", 0)):
        view = View(Query.parse(text), None, False, False, "start", False)
        assert len(select(index, view, T0).slots) == hits
