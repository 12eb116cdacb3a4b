"""Hot spots: every number against a plain and slow reading of the same traces, however they arrive; and what recorded
incidents look like there."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.store.index import Index
from receiver.traces import facets as facets_module
from receiver.traces.comparing import webhook_names
from receiver.traces.facets import catch_up, reading
from receiver.traces.hotspots import STORM_GAP_NS, STORM_LEAST, HotShape, HotSpots, Spread, hot_spots
from receiver.traces.listing import Row, rows
from receiver.traces.model import Component, Kind, Node, Trace
from receiver.traces.phases import PHASES
from receiver.traces.query import Query, View, select
from receiver.traces.reader import load
from receiver.traces.semantics import long_running
from receiver.traces.timing import STREAMS
from receiver.traces.tree import walk
from tests.receiver.traces.conftest import Recordings
from tests.receiver.traces.shapes import CLIENT, FILTER, GRPC, HTTP, INTERNAL, MS, SERVER, T0, Recorder, chunks_of

SECOND = 1_000_000_000
HOOKS = ("a.example.com", "b.example.com")
AGENTS = ("kubectl/v1.36", "operator", "")
TARGETS = (
    ("POST", "Create", "/api/v1/namespaces/default/pods"),
    ("GET", "Get", "/api/v1/namespaces/default/pods/web"),
    ("GET", "List", "/api/v1/namespaces/default/pods"),
    ("GET", "List", "/api/v1/pods"),
    ("GET", "List", "/api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dweb"),
    ("GET", "List", "/apis/apps/v1/namespaces/default/deployments"),
    ("PUT", "Update", "/apis/apps/v1/namespaces/default/deployments/shop/status"),
    ("GET", "List", "/api/v1/pods?watch=true"),
    ("GET", "", "/livez"),
)


def make(rec: Recorder, chance: random.Random, trace: str) -> None:
    """One trace with some of all that Hot spots count."""
    at = chance.randrange(0, 40) * 500.0
    own: dict[str, Any] = {"trace": trace}
    if chance.random() < 0.15:
        call = rec.span("etcdserverpb.KV/Range", CLIENT, scope=GRPC, at=at, ms=chance.randrange(9), **own)
        if chance.random() < 0.5:
            rec.span("etcdserverpb.KV/Range", SERVER, call, service="etcd", scope=GRPC, at=at + 1, ms=2, **own)
        return
    method, verb, target = chance.choice(TARGETS)
    old = chance.random() < 0.2
    values = {
        "http.request.method": method,
        "http.target": target,
        "http.response.status_code": chance.choice((200, 201, 403, 404, 409, 500, 0)),
        "user_agent.original": chance.choice(AGENTS),
    }
    ms = chance.randrange(20, 60)
    name = "KubernetesAPI" if old else f"{method} x"
    server = rec.span(name, SERVER, scope=HTTP, at=at, ms=ms, values=values, **own)
    above = server
    if not old and verb and chance.random() < 0.8:
        queue = rec.span("priorityandfairness", parent=server, scope=FILTER, at=at, ms=ms, **own)
        above = rec.span(verb, parent=queue, at=at + 1, ms=ms - 1, **own)
    for number in range(chance.choice((0, 0, 1, 2))):
        begin, took = at + 2 + 6 * number, chance.randrange(1, 6)
        called = {"webhook": chance.choice(HOOKS), "configuration": "c", "operation": "CREATE"}
        kind = chance.choice(("mutating", "validating"))
        hook = rec.span(f"Call {kind} webhook", parent=above, at=begin, ms=took, values=called, **own)
        failed, says = chance.choice(((0, ""), (0, ""), (2, "context deadline exceeded"), (2, "connection refused")))
        post = rec.span("HTTP POST", CLIENT, hook, scope=HTTP, at=begin, ms=took, status=failed, message=says, **own)
        if chance.random() < 0.4:
            refused = chance.choice((0, 2))
            rec.span("POST /", SERVER, post, service="hook", scope="", at=begin, ms=took, status=refused, **own)
    for number in range(chance.choice((0, 1, 1, 2))):
        begin = at + 15 + 3 * number
        storage = chance.choice(
            ("Create etcd3", "GuaranteedUpdate etcd3", "cacher.Get", "List(recursive=true) etcd3",
             "List(recursive=false) etcd3", "")
        )  # fmt: skip
        over = rec.span(storage, parent=above, at=begin, ms=3, **own) if storage and not old else above
        what = chance.choice(("etcdserverpb.KV/Txn", "etcdserverpb.KV/Range", "etcdserverpb.Watch/Watch"))
        call = rec.span(what, CLIENT, over, scope=GRPC, at=begin, ms=3, **own)
        for _ in range(chance.choice((0, 1, 1, 2))):
            rec.span(what, SERVER, call, service="etcd", scope=GRPC, at=begin + 1, ms=1, **own)


# --- the plain way --------------------------------------------------------------------------------
def spread(values: Iterable[int]) -> Spread:
    ordered = sorted(values)
    if not ordered:
        return Spread(0, 0, 0, 0, 0, 0)
    ranked = [ordered[max(1, math.ceil(len(ordered) * share / 100)) - 1] for share in (50, 95, 99)]
    return Spread(len(ordered), *ranked, ordered[-1], sum(ordered))


def scope_of(row: Row) -> str:
    request = row.summary.request
    assert request is not None
    if not request.resource:
        return ""
    if request.name or request.verb == "create":
        return "resource"
    return "namespace" if request.namespace else "cluster"


def calls_of(trace: Trace, names: dict[str, str]) -> list[tuple[str, str, Node]]:
    """(kind, webhook, span) in order of start."""
    found = []
    for node in walk(trace):
        words = node.span.name.split()
        if words[:1] == ["Call"] and words[-1] == "webhook":
            found.append((words[1], names[node.span.span_id], node))
    return sorted(found, key=lambda call: call[2].span.start)


def whether_etcd(node: Node, kind: Kind, component: Component) -> bool:
    span = node.span
    etcd = span.name.startswith("etcdserverpb.") and span.name not in STREAMS
    return etcd and span.kind is kind and span.component is component


PURPOSES = {
    "Create etcd3": "create", "GuaranteedUpdate etcd3": "update", "cacher.Get": "get", "Get": "get",
    "List(recursive=true) etcd3": "list", "List(recursive=false) etcd3": "revision check",
}  # fmt: skip


class Plain:
    """The same numbers, one trace after another."""

    def __init__(self, index: Index, slots: Sequence[int]) -> None:
        self.listed = rows(index, slots, 0, live=False)
        self.requests = [row for row in self.listed if row.summary.request is not None]
        self.traces: list[Trace] = []
        self.names: list[dict[str, str]] = []
        for row in self.listed:
            trace = load(index, row.summary.trace_id, 0, live=False)
            assert trace is not None
            self.traces.append(trace)
            self.names.append(webhook_names(index, row.summary.trace_id))

    @staticmethod
    def wrong(row: Row) -> bool:
        request = row.summary.request
        return row.summary.errors > 0 or (request is not None and (request.code or 0) >= 400)

    def from_etcd(self, row: Row) -> bool:
        trace = self.traces[self.listed.index(row)]
        names = [node.span.name for node in walk(trace)]
        if any(name.startswith("List(recursive=true)") for name in names):
            return True
        head = trace.headline
        assert head is not None
        bare = head.span.name == "KubernetesAPI" and not {"List", "Get", "Create", "Update"} & set(names)
        calls = [child for child in head.children if child.span.name == "etcdserverpb.KV/Range"]
        return bare and any(whether_etcd(child, Kind.CLIENT, Component.APISERVER) for child in calls)

    def check_shapes(self, hot: HotSpots) -> None:
        of: dict[tuple[str, ...], list[Row]] = defaultdict(list)
        for row in self.requests:
            request = row.summary.request
            assert request is not None
            key = (request.verb, request.group, request.resource, request.subresource, scope_of(row))
            of[key].append(row)
        told = {(s.verb, s.group, s.resource, s.subresource, s.scope): s for s in hot.shapes}
        assert len(told) == len(hot.shapes)
        assert told.keys() == of.keys()
        for key, members in of.items():
            shape = told[key]
            assert shape.durations == spread(row.summary.duration_ns for row in members)
            assert shape.errors == sum(self.wrong(row) for row in members)
            codes = [row.summary.request.code or 0 for row in members if row.summary.request is not None]
            assert shape.refused == sum(400 <= code < 500 for code in codes)
            assert shape.failed == sum(code >= 500 for code in codes)
            totals = [sum(row.phases.ns[phase] for row in members if row.phases) for phase in range(PHASES)]
            assert list(shape.phases.ns) == totals
            assert shape.lasting == long_running(members[0].summary.request)  # type: ignore[arg-type]
            if shape.verb == "list":
                assert shape.from_etcd == sum(map(self.from_etcd, members))
            self.check_sparklines(hot, shape, members)
        keys = [(shape.lasting, -shape.durations.total) for shape in hot.shapes]
        assert keys == sorted(keys)
        assert sorted(s.from_etcd for s in hot.lists) == sorted(s.from_etcd for s in hot.shapes if s.from_etcd)

    @staticmethod
    def check_sparklines(hot: HotSpots, shape: HotShape, members: Sequence[Row]) -> None:
        buckets: dict[int, list[int]] = defaultdict(list)
        for row in members:
            buckets[(hot.spark_end - 1 - row.summary.start) // hot.bucket_ns].append(row.summary.duration_ns)
        last = len(shape.counts) - 1
        assert list(shape.counts) == [len(buckets[last - at]) for at in range(last + 1)]
        assert list(shape.slow) == [spread(buckets[last - at]).p95 for at in range(last + 1)]

    def check_talkers(self, hot: HotSpots) -> None:
        agents: dict[str, list[Row]] = defaultdict(list)
        objects: dict[str, list[Row]] = defaultdict(list)
        for row in self.requests:
            request = row.summary.request
            assert request is not None
            agents[request.user_agent].append(row)
            if request.resource and request.name:
                objects[f"{request.resource} {request.namespace}/{request.name}"].append(row)
        agents.pop("", None)
        for talkers, of in ((hot.agents, agents), (hot.objects, objects)):
            assert {one.name: (one.count, one.errors, one.total) for one in talkers} == {
                name: (
                    len(members),
                    sum(map(self.wrong, members)),
                    sum(
                        row.summary.duration_ns
                        for row in members
                        if row.summary.request is not None and not long_running(row.summary.request)
                    ),
                )
                for name, members in of.items()
            }
            assert [one.count for one in talkers] == sorted((one.count for one in talkers), reverse=True)

    def check_storms(self, hot: HotSpots) -> None:
        of: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for row in self.requests:
            request = row.summary.request
            if request is not None and (request.code or 0) >= 400:
                key = (request.user_agent, request.group, request.resource, request.namespace, request.name)
                of[(*key, str(request.code))].append(row.summary.start)
        expected = Counter[tuple[int, int, int, int, int]]()
        for key, times in of.items():
            times.sort()
            runs = [[times[0]]]
            for when in times[1:]:
                if when - runs[-1][-1] > STORM_GAP_NS:
                    runs.append([])
                runs[-1].append(when)
            runs = [run for run in runs if len(run) >= STORM_LEAST]
            if runs:
                sizes = [len(run) for run in runs]
                expected[int(key[-1]), sum(sizes), max(sizes), runs[0][0], runs[-1][-1]] += 1
        assert Counter((s.code, s.count, s.longest, s.start, s.end) for s in hot.storms) == expected

    def check_webhooks(self, hot: HotSpots) -> None:
        calls: dict[tuple[str, str], list[int]] = defaultdict(list)
        costs, ended, denials = Counter[Any](), Counter[Any](), Counter[Any]()
        traces: dict[Any, set[str]] = defaultdict(set)
        for row, trace, names in zip(self.listed, self.traces, self.names, strict=True):
            hooks = calls_of(trace, names)
            costs.update({node.span.span_id: 0 for _, _, node in hooks})
            cost = {hook.span_id: hook.ns for hook in row.phases.hooks} if row.phases else {}
            for kind, name, node in hooks:
                key = (kind, name)
                calls[key].append(node.span.duration)
                costs[key] += cost.get(node.span.span_id, 0)
                failed = [child for child in node.children if child.span.status == 2]
                ended[key, "failed"] += bool(failed)
                ended[key, "late"] += bool(failed) and self.late[failed[0].span.span_id]
                traces[key].add(row.summary.trace_id)
            request = row.summary.request
            if hooks and request is not None and 400 <= (request.code or 0) < 500:
                kind, name, last = hooks[-1]
                answered = all(child.span.status != 2 for child in last.children)
                writes = [
                    node
                    for node in walk(trace)
                    if whether_etcd(node, Kind.CLIENT, Component.APISERVER) and node.span.name.endswith("Txn")
                ]
                if answered and all(node.span.start < last.span.end for node in writes):
                    own = [below for child in last.children for below in child.children if below.span.status == 2]
                    denials[kind, name, "sure" if own else "perhaps"] += 1
        told = {(hook.kind, hook.name): hook for hook in hot.webhooks}
        assert told.keys() == calls.keys()
        for key, durations in calls.items():
            hook = told[key]
            assert hook.durations == spread(durations)
            assert hook.taken == costs[key]
            assert (hook.failures, hook.timeouts) == (ended[key, "failed"], ended[key, "late"])
            assert (hook.denials, hook.may_have_denied) == (denials[(*key, "sure")], denials[(*key, "perhaps")])
            assert hook.requests == len(traces[key])

    late: dict[str, bool]

    def check_etcd(self, hot: HotSpots) -> None:
        took: dict[tuple[str, str], list[int]] = defaultdict(list)
        gaps: dict[tuple[str, str], list[int]] = defaultdict(list)
        for trace in self.traces:
            nodes = {node.span.span_id: node for node in walk(trace)}
            for node in nodes.values():
                if not whether_etcd(node, Kind.CLIENT, Component.APISERVER):
                    continue
                above = nodes.get(node.span.parent_id)
                purpose = "background" if not node.span.parent_id else "other"
                if above is not None:
                    purpose = PURPOSES.get(above.span.name, "other")
                key = (node.span.name.partition(".")[2], purpose)
                took[key].append(node.span.duration)
                inside = [c.span.duration for c in node.children if whether_etcd(c, Kind.SERVER, Component.ETCD)]
                if inside:
                    gaps[key].append(max(0, node.span.duration - sum(inside)))
        told = {(call.method, call.purpose): call for call in hot.etcd}
        assert told.keys() == took.keys()
        for key, call in told.items():
            assert call.durations == spread(took[key])
            assert call.gaps == spread(gaps[key])

    def check(self, hot: HotSpots) -> None:
        assert (hot.traces, hot.requests) == (len(self.listed), len(self.requests))
        self.check_shapes(hot)
        self.check_talkers(hot)
        self.check_storms(hot)
        self.check_webhooks(hot)
        self.check_etcd(hot)


def view_of(text: str = "", window: int | None = None) -> View:
    return View(Query.parse(text), window, False, False, "start", False)


@given(st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_every_number_at_every_moment(chance: random.Random) -> None:
    """Spans come in any order, windows move, filters change."""
    rec = Recorder()
    for number in range(chance.randrange(1, 25)):
        make(rec, chance, f"trace {number}")
    order = list(range(len(rec.spans)))
    chance.shuffle(order)
    late = {span.span_id.hex(): "deadline" in span.status.message for *_, span in rec.spans}
    chunks = chunks_of(rec.requests(order))
    for number, chunk in enumerate(chunks):
        chunk.received = T0 + (30 + number) * SECOND
    index, taken = Index(), 0
    filters = ("", "verb=list", "ua=kubectl", "code=403")
    while taken < len(chunks):
        step = chance.choice((1, 5, len(chunks) // 3 + 1))
        index.extend(chunks[taken : taken + step])
        taken += step
        now = int(index.last_received.max()) + chance.choice((0, SECOND))
        window = chance.choice((None, None, 5 * SECOND, 40 * SECOND))
        view = view_of(chance.choice(filters) if chance.random() < 0.3 else "", window)
        hot = hot_spots(index, view, now, buckets=chance.choice((8, 40)))
        plain = Plain(index, select(index, view, now).slots.tolist())
        plain.late = late
        plain.check(hot)
        for shape in hot.shapes:
            behind = select(index, view_of(shape.filter), now).slots
            found = shape.count == len(behind)
            assert found or window is not None or view != view_of() or not shape.exact
            assert len(behind) >= shape.count


def test_each_row_leads_to_the_traces_behind_it() -> None:
    chance, rec = random.Random(1), Recorder()
    for number in range(200):
        make(rec, chance, f"trace {number}")
    index = rec.index()
    hot = hot_spots(index, view_of(), T0)

    def behind(text: str) -> int:
        return len(select(index, view_of(text), T0).slots)

    assert len(hot.shapes) > 8
    assert [behind(shape.filter) for shape in hot.shapes if shape.exact] == [s.count for s in hot.shapes if s.exact]
    assert {(shape.verb, shape.scope) for shape in hot.shapes if not shape.exact} <= {
        ("list", "namespace"),
        ("list", "resource"),
    }
    assert [behind(one.filter) for one in hot.agents] == [one.count for one in hot.agents]
    assert [behind(one.filter) for one in hot.objects] == [one.count for one in hot.objects]
    for name in HOOKS:
        both = [hook for hook in hot.webhooks if hook.name == name]
        assert behind(both[0].filter) <= sum(hook.requests for hook in both)
        assert behind(both[0].filter) >= max(hook.requests for hook in both)


def test_a_storm_leads_to_its_requests() -> None:
    rec = Recorder()
    for number in range(7):
        values = {
            "http.request.method": "PUT", "http.response.status_code": 409, "user_agent.original": "operator/1",
            "http.target": "/apis/example.com/v1/namespaces/default/widgets/w1/status",
        }  # fmt: skip
        rec.span("PUT x", SERVER, trace=f"{number}", scope=HTTP, at=number * 4_000, values=values)
        values = {**values, "http.response.status_code": 200}
        rec.span("PUT x", SERVER, trace=f"fine {number}", scope=HTTP, at=number * 4_000, values=values)
    index = rec.index()
    (storm,) = hot_spots(index, view_of(), T0).storms
    assert (storm.agent, storm.object, storm.code) == ("operator/1", "widgets default/w1", 409)
    assert (storm.count, storm.runs, storm.longest) == (7, 1, 7)
    assert len(select(index, view_of(storm.filter), T0).slots) == 7


def test_rows_are_numbered_anew_without_a_trace_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace that is looked at again and again takes a row each time."""
    monkeypatch.setattr(facets_module, "_SLICE", 7)
    chance, rec = random.Random(3), Recorder()
    for number in range(40):
        make(rec, chance, f"trace {number}")
    rec.span("noise", INTERNAL, trace="other")
    index = rec.index(received=T0 + 30 * SECOND)
    hot_spots(index, view_of(), T0)
    with reading(index) as held:
        room, epoch = len(held._phases), held.epoch
        for _ in range(room // 40 + 1):
            held._look(index, np.arange(index.traces))
        assert held.epoch > epoch
        assert len(held._phases) == room
    plain = Plain(index, range(index.traces))
    plain.late = {span.span_id.hex(): "deadline" in span.status.message for *_, span in rec.spans}
    plain.check(hot_spots(index, view_of(), T0))


def test_a_huge_trace_is_not_looked_at_with_every_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facets_module, "BIG", 20)
    rec = Recorder()
    server = rec.span("GET", SERVER, scope=HTTP, values={"http.target": "/api/v1/pods", "http.method": "GET"})
    for _ in range(60):
        rec.span("etcdserverpb.KV/Range", CLIENT, server, scope=GRPC)
    chunks, index = chunks_of(rec.requests()), Index()
    seen = []
    for chunk in chunks:
        index.extend([chunk])
        catch_up(index)
        seen.append(sum(call.durations.count for call in hot_spots(index, view_of(), T0).etcd))
    assert seen[:21] == list(range(21))
    assert len(set(seen[21:])) < 6
    assert seen[-1] >= 60 * 4 // 5


def test_what_cannot_be() -> None:
    """Clocks that are wrong, durations of centuries, an empty index."""
    assert hot_spots(Index(), view_of(), T0).shapes == ()
    rec = Recorder()
    for number, (at, ms) in enumerate(((-T0 / MS + 1, 5), (0, 1e10), (0, 7))):
        values = {"http.target": "/api/v1/pods", "http.method": "GET"}
        rec.span("GET", SERVER, trace=f"{number}", scope=HTTP, at=at, ms=ms, values=values)
    index = rec.index()
    hot = hot_spots(index, view_of(), T0)
    assert hot.shapes[0].durations.count == 3
    assert hot.shapes[0].durations.p50 == 7 * MS
    assert hot.shapes[0].durations.max == (1 << 48) - 1
    assert sum(hot_spots(index, view_of(window=SECOND), T0).shapes[0].counts) == 2


# --- recorded incidents -----------------------------------------------------------------------------
def hot_of(recorded: Recordings, name: str) -> HotSpots:
    index = recorded(name).index
    return hot_spots(index, view_of(), int(index.last_received.max()))


def test_incident(recorded: Recordings) -> None:
    hot = hot_of(recorded, "incident")
    slow, policy, dead = hot.webhooks
    assert (slow.name, slow.kind, slow.denials) == ("label-injector.example.com", "mutating", 1)
    assert slow.durations.max > 1.5 * SECOND
    assert slow.taken > policy.taken > 1.9 * SECOND
    assert (policy.failures, policy.timeouts) == (1, 1)
    assert (dead.name, dead.failures, dead.timeouts) == ("dead-policy.example.com", 1, 0)
    assert dead.resources == (("", "services", 1),)
    assert (hot.shapes[0].verb, hot.shapes[0].resource) == ("create", "pods")
    assert max(range(len(hot.shapes[0].phases.ns)), key=hot.shapes[0].phases.ns.__getitem__) in (5, 6)
    stalled = {(call.method, call.purpose): call for call in hot.etcd}
    for purpose in ("create", "update"):
        call = stalled["KV/Txn", purpose]
        assert call.durations.max > 2.5 * SECOND
        assert call.gaps.max > 2.5 * SECOND, "the gap between both sides of the call is the finding"
    assert [(shape.resource, shape.from_etcd) for shape in hot.lists] == [("events", 1)]


def test_incident_2(recorded: Recordings) -> None:
    hot = hot_of(recorded, "incident-2")
    assert [(hook.name, hook.failures) for hook in hot.webhooks] == [
        ("slow-chain-a.example.com", 0),
        ("badcert-policy.example.com", 1),
    ]
    assert hot.webhooks[0].durations.p50 > SECOND
    first = hot.shapes[0]
    assert (first.verb, first.resource) == ("create", "configmaps")
    assert first.phases.group("filters") > 10 * SECOND, "nine creates that waited for their turn"
    assert hot.etcd[0].gaps.p95 > 0.3 * SECOND, "etcd was far away"


def test_cluster(recorded: Recordings) -> None:
    """Three minutes of a cluster: the plain reading says the same about each shape."""
    one = recorded("cluster-rate-full")
    hot = hot_of(recorded, "cluster-rate-full")
    assert (hot.traces, hot.requests) == (6_547, 5_434)
    Plain.check_shapes(_Bare(one.index), hot)  # type: ignore[arg-type]
    assert hot.agents[0].name.startswith("kube-scheduler/")
    assert 150 * SECOND < hot.end - hot.start < 300 * SECOND


class _Bare(Plain):
    """Without trees, which take long."""

    def __init__(self, index: Index) -> None:
        self.listed = rows(index, range(index.traces), 0, live=False)
        self.requests = [row for row in self.listed if row.summary.request is not None]
        self.index = index

    def from_etcd(self, row: Row) -> bool:
        slot = self.index.slot_of(row.summary.trace_id)
        assert slot is not None
        names = [self.index.names[name] for name in self.index.name[self.index.rows_of(slot)].tolist()]
        return any(name.startswith("List(recursive=true)") for name in names)

    @staticmethod
    def check_sparklines(hot: HotSpots, shape: HotShape, members: Sequence[Row]) -> None:
        assert sum(shape.counts) <= len(members)
