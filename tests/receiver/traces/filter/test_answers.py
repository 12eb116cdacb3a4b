"""Answers of filters against a plain and slow reading of the same traces, attributes too."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.store.database import Database
from receiver.store.index import Index
from receiver.traces.bodies import Bodies
from receiver.traces.filter.marks import marked
from receiver.traces.filter.scan import Scan
from receiver.traces.filter.syntax import OneSpan, nodes
from receiver.traces.query import Query, View, counts, select
from tests.receiver.traces.filter.oracle import Plain, holds, plain, span_holds
from tests.receiver.traces.shapes import CLIENT, GRPC, HTTP, INTERNAL, SERVER, T0, Recorder, chunks_of

NOW = T0 + 60_000_000_000
AUDITS = ("91094b44-5c10-49f0-9182-902c188ed283", "ticket-4711", "")
PATHS = ("/api/v1/namespaces/default/pods/web", "/api/v1/namespaces/kube-system/pods/Web-2/status", "/livez")


def a_trace(rec: Recorder, chance: random.Random, trace: str) -> None:
    """One request, or a part of one, with what may be asked about."""

    def span(name: str, kind: int, parent: bytes | None, at: float, ms: float, **more: Any) -> bytes:
        failed = 2 if chance.random() < 0.2 else 0
        return rec.span(name, kind, parent, trace=trace, at=at, ms=ms, status=failed, **more)

    method = chance.choice(("GET", "POST", "PUT"))
    values: dict[str, Any] = {
        "http.target": chance.choice(PATHS),
        "http.request.method": method,
        chance.choice(("http.response.status_code", "http.status_code")): chance.choice((200, 201, 404, 500)),
        "user_agent.original": chance.choice(("kubectl/v1", "Go http")),
        "audit-id": chance.choice(AUDITS),
        chance.choice(("http.response.body.size", "http.wrote_bytes")): chance.choice((10, 2048, 5_000_000)),
    }
    instance = chance.choice(("apiserver-a", "apiserver-b"))
    lone = chance.random() < 0.15
    top = None
    if not lone:
        top = span(method, SERVER, None, 0, chance.choice((4, 9, 50)), scope=HTTP, values=values, instance=instance)
    elif chance.random() < 0.7:
        top = b"\7" * 8
    verb = span("Create", INTERNAL, top, 1, chance.choice((2, 3, 8)), values={"type": "x", "scope": "resource"})
    if chance.random() < 0.5:
        names = {"webhook": chance.choice(("a.example.com", "b")), "configuration": chance.choice(("policy", "Other"))}
        call = span("Call mutating webhook", INTERNAL, verb, 1, 1, values=names)
        post = span("HTTP POST", CLIENT, call, 1, 1, scope=HTTP, values={"http.status_code": chance.choice((200, 500))})
        if chance.random() < 0.7:
            hook = span("POST /mutate", SERVER, post, 1.1, 0.5, service="injector", scope="")
            span("decide", INTERNAL, hook, 1.2, 0.2, service="injector", scope="", values={"allowed": True})
    if chance.random() < 0.7:
        odd = {
            "limit": chance.choice((5, 500)),
            "resource": "pods",
            "ratio": 0.5,
            "text": chance.choice(("7", "x" * 200)),
        }
        etcd = span("etcdserverpb.KV/Txn", CLIENT, verb, 1.5, chance.choice((0.2, 1)), scope=GRPC, values=odd)
        span("etcdserverpb.KV/Txn", SERVER, etcd, 1.6, 0.1, scope=GRPC, service="etcd", instance="m1")
        span("side", INTERNAL, verb, 1.6, chance.choice((0.5, 5)))


class Sample:
    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        rec = Recorder()
        for number in range(12):
            a_trace(rec, chance, f"trace {seed} {number}")
        for _, _, _, message in rec.spans:
            if chance.random() < 0.2:
                event = message.events.add(name="exception")
                event.attributes.add(key="exception.type").value.string_value = chance.choice(("Boom", "Bang"))
            if chance.random() < 0.2:
                many = message.attributes.add(key="many").value.array_value
                many.values.add().string_value = "one"
                many.values.add().int_value = chance.choice((2, -3))
            if chance.random() < 0.2:  # what reads like an attribute and is none
                inner = message.attributes.add(key="map").value.kvlist_value.values.add(key="limit")
                inner.value.int_value = 5
                message.attributes.add(key="note").value.string_value = "limit"
            if chance.random() < 0.2 and all(pair.key != "limit" for pair in message.attributes):
                message.attributes.add(key="limit")
        order = list(range(len(rec.spans)))
        chance.shuffle(order)
        self.database = Database.memory()
        chunks = chunks_of(rec.requests(order), T0 + 45_000_000_000, "local")
        for chunk in chunks:
            chunk.received += chunk.id * 200_000_000
        self.database.append(chunks)
        self.index = Index()
        self.index.extend(self.database.read_after(0, 1000))
        self.traces: list[Plain] = plain(self.index, Bodies(self.database), NOW)


SAMPLES = [Sample(seed) for seed in range(4)]
CONDITIONS = (
    "verb=create,get", "verb!=get", "verb=~^(get|update)$", "resource=pods", "resource=~pods/stat", "ns=default",
    "ns!=default,kube-system", "name=~^web", "name!~2", "ua=kube", "code=404,5xx", "code>=400", "code<404",
    "code!=200", "group=", "audit=9109", "audit=~4711$", "audit=~5c10", "webhook=b", "webhook!=b,Policy",
    "webhook=~exa", "instance=apiserver-a", "instance=~b$", "source=local", "source!=local", "service=etcd",
    "service!=injector", "component=webhook", "component=other", "component=etcd", "component!=webhook",
    "component=~e", "kind=client", "span=create", "span=~^http", "span!=side", "duration>8ms", "duration<=4ms",
    "duration=9ms", "self>1ms", "self<100us", "self=200us", "etcd>500us", "admission>0", "other>=1ms",
    "mutating<1ms", "filters=0", "errors>1", "errors=0", "spans>4", "spans!=5,6", "settled=yes", "settled!=yes",
    "orphan=yes", "orphan=no", "age>11s", "age<9s", "size>1KiB", "size=10", "size<5MiB", "pods", "kubectl", "404",
    "injector", "default/we", "b", "http.response.status_code=5xx", "http.response.status_code>=404",
    "http.status_code!=200", "http.request.method=post", "@limit=5", "@limit>5", "@limit!=500", "@resource=pods",
    "@ratio<1", "@ratio=0.5", "@text=7", "@text>5", "@text=~^x+$", "@allowed=true", "@allowed=1",
    "exception.type=~^bo", "@many=one", "@many<0", "@many=2,one", "@map=5", "@note=limit", "@scope=resource",
    "service.name=etcd", "service.name!=etcd", "service.instance.id=~b", "nothing.at.all=x", "nothing.at.all!=x",
    "audit-id=~4711",
)  # fmt: skip
OF_SPANS = tuple(
    text
    for text in CONDITIONS
    if text.split("=")[0].rstrip("!<>").split(">")[0].split("<")[0].rstrip("!")
    in ("service", "component", "kind", "span", "self", "duration", "errors", "code", "webhook", "instance", "size")
    or text.startswith(("@", "http.", "service.", "nothing.", "exception.", "audit-id"))
)


def check(sample: Sample, text: str) -> None:
    query = Query.parse(text)
    scan = Scan(sample.database, query.attributes, sample.index, process=False)
    scan.run()
    view = View(query, None, False, False, "start", False)
    expected = {slot for slot, one in enumerate(sample.traces) if holds(one, query.root, NOW)}
    assert set(select(sample.index, view, NOW, found=scan).slots.tolist()) == expected, text
    assert counts(sample.index, [query], view, NOW, found=scan) == [(len(expected), len(expected))]


@pytest.mark.parametrize("text", CONDITIONS)
def test_every_condition(text: str) -> None:
    for sample in SAMPLES:
        check(sample, text)


def test_conditions_on_spans_are_asked_of_one_span() -> None:
    assert len(OF_SPANS) > 40
    for text in OF_SPANS:
        check(SAMPLES[0], f"any({text})")


def deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    some = st.lists(inner, min_size=2, max_size=3)
    return st.one_of(
        some.map(lambda parts: f"({' '.join(parts)})"),
        some.map(lambda parts: f"({' || '.join(parts)})"),
        inner.map(lambda part: f"!({part})"),
    )


FILTERS = st.recursive(
    st.sampled_from(CONDITIONS)
    | st.recursive(st.sampled_from(OF_SPANS), deeper, max_leaves=4).map(lambda text: f"any({text})"),
    deeper,
    max_leaves=6,
)


@given(st.sampled_from(SAMPLES), FILTERS)
@settings(max_examples=250, deadline=None)
def test_random_filters(sample: Sample, text: str) -> None:
    check(sample, text)


@given(st.integers(len(SAMPLES), 1 << 30), st.lists(FILTERS, min_size=8, max_size=8))
@settings(max_examples=15, deadline=None)
def test_random_filters_of_other_random_traces(seed: int, texts: list[str]) -> None:
    sample = Sample(seed)
    for text in texts:
        check(sample, text)


@given(st.sampled_from(SAMPLES), FILTERS, st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_listed_while_bodies_are_being_read_stays(sample: Sample, text: str, data: st.DataObject) -> None:
    """Never a trace that has to be taken away again, and all of them at the end."""
    query = Query.parse(text)
    view = View(query, None, False, False, "start", False)
    scan = Scan(sample.database, query.attributes, sample.index, process=False)
    final = {slot for slot, one in enumerate(sample.traces) if holds(one, query.root, NOW)}
    todo = sample.index.chunk_id.tolist()
    before: set[int] = set()
    while todo:
        some = todo[-data.draw(st.integers(1, len(todo))) :]
        del todo[-len(some) :]
        scan._here(list(some), None)
        now = set(select(sample.index, view, NOW, found=scan).slots.tolist())
        assert before <= now <= final
        before = now
    assert before == final


@given(st.sampled_from(SAMPLES), st.sampled_from(OF_SPANS), st.integers(0, 11))
@settings(max_examples=60, deadline=None)
def test_marks_are_the_spans_that_fulfil_it(sample: Sample, text: str, slot: int) -> None:
    query = Query.parse(f"verb=get any({text}) !span=create")
    scan = Scan(sample.database, query.attributes, sample.index, process=False)
    scan.run()
    one = sample.traces[slot]
    (asked,) = [node.of for node in nodes(query.root) if isinstance(node, OneSpan)]
    expected = {looked.node.span.span_id for looked in one.spans if span_holds(looked, asked)}
    assert set(marked(sample.index, query, one.row.trace_id, NOW, found=scan)) == expected


def test_traces_that_grow_are_measured_again() -> None:
    """Phases, own times and missing parents follow, whatever the order of arrival."""
    sample = SAMPLES[0]
    index = Index()
    chunks = sample.database.read_after(0, 1000)
    texts = [text for text in CONDITIONS if not Query.parse(text).attributes]
    for at in range(0, len(chunks), 7):
        index.extend(chunks[at : at + 7])
        for text in ("self>1ms", "etcd>500us", "orphan=yes"):
            select(index, View(Query.parse(text), None, False, False, "start", False), NOW)
    for text in texts:
        view = View(Query.parse(text), None, False, False, "start", False)
        expected = {slot for slot, one in enumerate(sample.traces) if holds(one, view.query.root, NOW)}
        assert set(select(index, view, NOW).slots.tolist()) == expected
    assert all(node.at[1] > 0 for text in texts for node in nodes(Query.parse(text).root))
