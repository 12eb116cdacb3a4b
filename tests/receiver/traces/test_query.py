"""Filters and orders: what they say, against a plain and slow reading of the same rows."""

from __future__ import annotations

import gc
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.store.chunk import APISERVER, FACT, FLAG_FACTS, FLAG_REQUEST, ROLE_SERVER, SPAN, Chunk, Resource
from receiver.store.index import Index
from receiver.traces.filter import strings as strings_module
from receiver.traces.filter.columns import Traces
from receiver.traces.filter.syntax import All, Condition, Node, Word
from receiver.traces.listing import rows
from receiver.traces.model import TraceSummary
from receiver.traces.query import (
    MIN_ID_DIGITS,
    NOISE,
    PLACES,
    SORTS,
    Group,
    Query,
    QueryError,
    View,
    counts,
    select,
    starting_with,
)
from receiver.traces.reader import summaries
from tests.receiver.traces import shapes
from tests.receiver.traces.shapes import CLIENT, GRPC, HTTP, INTERNAL, SERVER, T0, Recorder, chunks_of
from tests.work import calls_of

LATER = T0 + 60_000_000_000
MINUTE = 60_000_000_000


def view(text: str = "", **fields: Any) -> View:
    values: dict[str, Any] = {
        "window_ns": None,
        "errors_only": False,
        "hide_noise": False,
        "sort": "start",
        "reverse": False,
    }
    return View(query=Query.parse(text), **{**values, **fields})


def test_an_unknown_order_is_an_error() -> None:
    with pytest.raises(QueryError, match="is no order"):
        select(Index(), view(sort="colour"), LATER)


# --- against the slow way -------------------------------------------------------------------------
AUDITS = ("91094b44-5c10-49f0-9182-902c188ed283", "91094b44-ffff-49f0-9182-902c188ed283", "Ticket-4711", "")
AGENTS = ("kubectl/v1.32.4 (linux/amd64)", "kube-scheduler/v1.36", "Straße", "k8s-trace-tui/0.1.0", "")
PATHS = (
    "/api/v1/namespaces/default/pods/web",
    "/api/v1/namespaces/default/pods/web/status",
    "/api/v1/namespaces/default/pods/web/exec?command=sh",
    "/api/v1/namespaces/default/pods/web/log?follow=true",
    "/api/v1/nodes/n1/proxy/metrics",
    "/api/v1/namespaces/kube-system/pods",
    "/api/v1/namespaces/kube-system",
    "/apis/apps/v1/namespaces/team-a/deployments/Web?watch=true",
    "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/n1",
    "/api/v1/nodes/n1",
    "/livez",
    "/readyz?verbose",
    "/metrics/slis",
    "/metricsish",
    "/version",
)
SERVICES = ("apiserver", "etcd", "label-injector", "Kubelet", "")


def make(rec: Recorder, chance: random.Random, trace: str) -> None:
    """One trace of a shape that occurs, or does not."""
    options: dict[str, Any] = {"trace": trace, "at": chance.randrange(0, 5), "ms": chance.randrange(0, 4)}
    shape = chance.randrange(7)
    if shape == 6:  # a request and its authentication, which cannot be mistaken for another's
        values = {"http.target": chance.choice(PATHS), "http.request.method": "GET", "http.response.status_code": 200}
        options |= {"instance": trace, "at": options["at"] + 1, "ms": options["ms"] + 2}
        rec.span("GET", SERVER, scope=HTTP, values=values, **options)
        failed = int(chance.random() < 0.2) * 2
        options |= {"trace": f"{trace}, authentication", "at": options["at"] - 0.1, "ms": options["ms"] + 0.11}
        rec.span("authentication", INTERNAL, scope=shapes.FILTER, status=failed, **options)
        return
    if shape == 0:
        options["instance"] = "without requests"  # none may be mistaken for its own
        if chance.random() < 0.5:
            options["ms"] = chance.choice((99, 100, 2_000, 65_000, 66_000))
        rec.span(chance.choice(("authentication", "syncPod")), INTERNAL, scope=shapes.FILTER, **options)
        if chance.random() < 0.3:
            rec.span("x", INTERNAL, b"\7" * 8, scope=shapes.FILTER, **options)
        return
    if shape == 1:
        parent = b"\7" * 8 if chance.random() < 0.3 else None
        failed = int(chance.random() < 0.3) * 2
        ours = ("k8s-trace-tui", INTERNAL)
        service, kind = chance.choice((("apiserver", CLIENT), ("etcd", SERVER), ("etcd", CLIENT), ours))
        name = chance.choice(("etcdserverpb.KV/Range", "etcdserverpb.Watch/Watch"))
        rec.span(name, kind, parent, scope=GRPC, service=service, status=failed, **options)
        return
    target = chance.choice(PATHS)
    values: dict[str, Any] = {
        "http.request.method": chance.choice(("GET", "PUT", "DELETE", "POST")),
        "http.response.status_code": chance.choice((200, 201, 404, 500, 0)),
        "user_agent.original": chance.choice(AGENTS),
        "audit-id": chance.choice(AUDITS),
    }
    if chance.random() < 0.8:
        values["http.target"] = target
    name = chance.choice(("GET", "GET /api/v1/namespaces/{:namespace}/pods"))
    instance = chance.choice(("apiserver-a", "apiserver-b", ""))
    server = rec.span(name, SERVER, scope=HTTP, values=values, instance=instance, **options)
    if chance.random() < 0.6:
        verb = {
            "verb": "WATCH",
            "resource": chance.choice(("pods", "nodes")),
            "api-version": "v1",
            "namespace": chance.choice(("default", "")),
            "user-agent": chance.choice(AGENTS),
            "audit-id": chance.choice(AUDITS),
            "url": target,
        }
        rec.span("List", INTERNAL, server, values=verb, **options)
    if chance.random() < 0.3:
        names = {"webhook": chance.choice(("a.example.com", "b")), "configuration": chance.choice(("Policy", "x"))}
        rec.span("Call mutating webhook", INTERNAL, server, values=names, **options)
    if chance.random() < 0.4:
        failed = int(chance.random() < 0.3) * 2
        rec.span("x", SERVER, server, service=chance.choice(SERVICES), scope="", status=failed, **options)


class Sample:
    """Some traces, and all that a filter can ask about them, taken the plain way."""

    def __init__(self, seed: int, count: int = 25) -> None:
        chance = random.Random(seed)
        rec = Recorder()
        for number in range(count):
            make(rec, chance, f"trace {number}")
        requests = rec.requests()
        self.index = Index()
        # some arrive long after the first; two listeners
        half = len(requests) // 2
        first = chunks_of(requests[:half], T0, "Local")
        second = chunks_of(requests[half:], T0 + MINUTE, "cp-2")
        for chunk in second:
            chunk.id += half
        self.index.extend(first)
        self.index.extend(second)
        self.rows = summaries(self.index, range(self.index.traces), LATER)
        self.phases = [row.phases for row in rows(self.index, range(self.index.traces), LATER)]
        self.configurations: dict[str, set[str]] = {}
        self.hooks: dict[str, set[str]] = {}
        self.audits: dict[str, set[str]] = {}
        for _, _, _, span in rec.spans:
            told = {"configuration": self.configurations, "webhook": self.hooks, "audit-id": self.audits}
            for pair in span.attributes:
                if pair.key in told:
                    told[pair.key].setdefault(span.trace_id.hex(), set()).add(pair.value.string_value.casefold())

    def texts(self, row: TraceSummary) -> list[str]:
        found = [row.headline, *row.services, *row.webhooks, *self.configurations.get(row.trace_id, ())]
        request = row.request
        if request is not None:
            resource = f"{request.resource}/{request.subresource}" if request.subresource else request.resource
            found += [request.verb, resource, f"{request.namespace}/{request.name}", request.user_agent]
            if not request.resource:
                found.append(request.path)
        return [text.casefold() for text in found]

    def holds(self, row: TraceSummary, term: Node) -> bool:
        request = row.request
        if isinstance(term, Word):
            value = term.text
            if not value or any(value in text for text in self.texts(row)):
                return True
            digits = value.replace("-", "")
            long = len(digits) >= MIN_ID_DIGITS
            if long and "-" not in value and row.trace_id.startswith(value):
                return True
            if any(
                value in audit if audit == AUDITS[2].casefold() else long and audit.startswith(value)
                for audit in self.audits.get(row.trace_id, ())
            ):
                return True
            return request is not None and value == str(request.code)
        assert isinstance(term, Condition)
        (value,) = term.values
        if term.name == "audit":
            none = ("",) if request is not None else ()
            return any(audit.startswith(value) for audit in self.audits.get(row.trace_id, none))
        if term.name == "webhook":
            return value in {*self.hooks.get(row.trace_id, ()), *self.configurations.get(row.trace_id, ())}
        if term.name == "service":
            return value in [service.casefold() for service in row.services]
        if term.name == "trace":
            return row.trace_id.startswith(value)
        if term.name == "source":
            return row.source.casefold() == value
        if term.name == "instance":
            return row.instance.casefold().startswith(value)
        if request is None:
            return False
        if term.name == "code":
            return str(request.code or "") == value or f"{(request.code or 0) // 100}xx" == value
        if term.name == "ua":
            return value in request.user_agent.casefold()
        if term.name == "resource":
            resource, slash, subresource = value.partition("/")
            return request.resource == resource and (not slash or request.subresource == subresource)
        field = {"ns": "namespace"}.get(term.name, term.name)
        return str(getattr(request, field)).casefold() == value

    def pair_of(self, row: TraceSummary) -> TraceSummary | None:
        """The request that a lone authentication belongs to."""
        if row.headline != "authentication" or row.spans > 1 or not row.instance.startswith("trace "):
            return None
        return next(other for other in self.rows if other.instance == row.instance and other.request is not None)

    def lasts(self, row: TraceSummary) -> bool:
        request = row.request
        if request is not None:
            return request.verb == "watch" or request.subresource in ("exec", "log", "proxy")
        if (pair := self.pair_of(row)) is not None:
            return self.lasts(pair)
        return row.spans == 1 and row.headline == "etcdserverpb.Watch/Watch"

    def noise(self, slot: int, row: TraceSummary) -> bool:
        request = row.request
        if row.errors or (request is not None and (request.code or 0) >= 500):
            return False
        if request is not None:
            if request.user_agent.startswith("k8s-trace-tui"):
                return True
            if request.resource:
                return request.resource == "leases"
            head = request.path.split("/")[1:2]
            return bool(head) and head[0] in ("livez", "readyz", "healthz", "metrics")
        head_row = int(self.index.head_row[slot])
        if self.index.resources[int(self.index.resource[head_row])].service == "k8s-trace-tui":
            return True
        if row.spans == 1 and row.headline in ("etcdserverpb.Watch/Watch", "etcdserverpb.Lease/LeaseKeepAlive"):
            return True
        if self.index.parent[head_row] != 0:
            return False
        if row.headline == "authentication":
            return row.spans == 1 and not 100_000_000 <= row.duration_ns <= 65_000_000_000
        client = int(self.index.kind_status[head_row]) & 15 == CLIENT
        return client and row.headline.startswith("etcdserverpb.") and row.services[:1] == ("apiserver",)


SAMPLES = [Sample(seed) for seed in range(6)]
WORDS = (
    "pods", "POD", "default/we", "default/", "/web", "kube-system/kube", "pods/status", "pods/", "s/s", "status", "a",
    "/",
    "kubectl/v1", "STRASSE", "injector", "kubelet", "policy", "example.com", "404", "500", "livez", "metrics", "watch",
    "list", "91094",
    "91094b44", "91094b44-5c10", "91094b44-5c10-49f0-9182-902c188ed283", "91094b445c10", "ticket", "4711",
    "authentication", "etcdserverpb", "nothing like it", "00", "{:namespace}",
)  # fmt: skip
FIELD_WORDS = (
    "verb=get", "verb=WATCH", "verb=", "resource=pods", "resource=pods/status", "resource=pods/", "resource=leases",
    "ns=default", "ns=", "namespace=KUBE-SYSTEM", "name=web", "name=Web", "name=", "ua=kubectl", "ua=", "code=404",
    "code=4xx", "code=2xx", "code=", "group=apps", "group=", "audit=91094b44-5", "audit=9", "audit=ticket", "audit=",
    "instance=apiserver-a", "instance=apiserver", "instance=", "source=local", "source=cp-2", "source=x",
    "service=etcd", "service=apiserver", "service=kubelet", "service=nobody", "webhook=a.example.com", "webhook=POLICY",
    "webhook=a.example",
)  # fmt: skip


def check(
    sample: Sample,
    words: list[str],
    errors_only: bool,
    hide_noise: bool,
    window: int | None,
    hide_paired: bool = False,
) -> None:
    parsed = Query.parse(" ".join(f'"{word}"' if " " in word else word for word in words))
    terms = parsed.root.parts if isinstance(parsed.root, All) else (parsed.root,)
    now = T0 + MINUTE + MINUTE // 2
    expected, hidden, total = set(), 0, sample.index.traces
    for slot, row in enumerate(sample.rows):
        wanted = all(sample.holds(row, term) for term in terms)
        if errors_only and not (row.errors or (row.request is not None and (row.request.code or 0) >= 400)):
            wanted = False
        if window is not None and int(sample.index.last_received[slot]) < now - window:
            wanted = False
        if hide_paired and not row.errors and sample.pair_of(row) is not None:
            wanted, total = False, total - 1
        if wanted and hide_noise and sample.noise(slot, row):
            hidden += 1
        elif wanted:
            expected.add(slot)
    found = select(sample.index, View(parsed, window, errors_only, hide_noise, "start", False, hide_paired), now)
    assert set(found.slots.tolist()) == expected
    assert (found.hidden_noise, found.total, len(found.slots)) == (hidden, total, len(expected))
    assert found.slots.dtype == np.int32
    everything = len(select(sample.index, View(parsed, None, False, False, "start", False, hide_paired), now).slots)
    other = View(Query.parse("verb=get"), window, errors_only, hide_noise, "start", False, hide_paired)
    assert counts(sample.index, [parsed, parsed], other, now) == [(everything, len(expected))] * 2


@pytest.mark.parametrize("word", WORDS + FIELD_WORDS)
def test_one_term_selects_what_the_slow_way_finds(word: str) -> None:
    for sample in SAMPLES:
        check(sample, [word], False, False, None)


@pytest.mark.parametrize("errors_only", [False, True])
@pytest.mark.parametrize("hide_noise", [False, True])
@pytest.mark.parametrize("hide_paired", [False, True])
@pytest.mark.parametrize("window", [None, MINUTE])
def test_a_view_without_a_filter(errors_only: bool, hide_noise: bool, hide_paired: bool, window: int | None) -> None:
    for sample in SAMPLES:
        check(sample, [], errors_only, hide_noise, window, hide_paired)


@given(
    st.sampled_from(SAMPLES),
    st.lists(st.sampled_from(WORDS + FIELD_WORDS) | st.text("/abdeowx-.", min_size=1, max_size=4), max_size=3),
    st.booleans(),
    st.booleans(),
    st.sampled_from((None, MINUTE)),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_all_terms_must_hold(
    sample: Sample, words: list[str], errors_only: bool, hide_noise: bool, window: int | None, hide_paired: bool
) -> None:
    check(sample, words, errors_only, hide_noise, window, hide_paired)


def traces_of(index: Index) -> Traces:
    return Traces(index, strings_module.strings_of(index))


def test_every_kind_of_noise_and_of_pairs_is_in_the_samples() -> None:
    rows = [(sample, slot, row) for sample in SAMPLES for slot, row in enumerate(sample.rows)]
    for kind in NOISE:
        assert any(kind.holds(traces_of(sample.index)).any() for sample in SAMPLES), kind.name
    assert {bool(row.errors) for sample, _, row in rows if sample.pair_of(row) is not None} == {True, False}
    assert any(sample.lasts(row) for sample, _, row in rows if sample.pair_of(row) is not None)


def test_an_answer_of_5xx_is_no_noise() -> None:
    rec = Recorder()
    for code in (200, 404, 500, 503):
        values = {"http.target": "/livez", "http.request.method": "GET", "http.response.status_code": code}
        rec.span("GET", SERVER, trace=str(code), scope=HTTP, values=values)
    index = rec.index()
    found = select(index, view(hide_noise=True), LATER)
    assert {row.request.code for row in summaries(index, found.slots, LATER) if row.request} == {500, 503}
    assert found.hidden_noise == 2


def test_any_start_of_a_trace_id_finds_it() -> None:
    sample = SAMPLES[0]
    for slot, row in enumerate(sample.rows):
        for length in (MIN_ID_DIGITS, 15, 16, 17, 31, 32):
            for text in (row.trace_id[:length].upper(), f"trace={row.trace_id[:length]}"):
                assert slot in select(sample.index, view(text), LATER).slots
    ids = [row.trace_id for row in sample.rows]
    for digits in ("0", "f", *(id[:length] for id in ids[:5] for length in (1, 2, 15, 16, 17, 32))):
        expected = [slot for slot, id in enumerate(ids) if id.startswith(digits)]
        assert starting_with(sample.index, digits).tolist() == expected


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sort", SORTS)
def test_orders(sort: str, reverse: bool) -> None:
    for sample in SAMPLES:

        def newest(slot: int, sample: Sample = sample) -> int:
            start, arrived = sample.rows[slot].start, int(sample.index.first_received[slot])
            return -(min(start, arrived) if start else arrived)

        def key(slot: int, sample: Sample = sample) -> Any:
            row = sample.rows[slot]
            request = row.request
            if sort in ("duration", "spans", "errors"):
                return -{"duration": row.duration_ns, "spans": row.spans, "errors": row.errors}[sort]
            if sort == "where":
                phases = sample.phases[slot]
                times = [phases.group(place) if phases and request else 0 for place in PLACES]
                most = max(times)
                return (times.index(most) if most else len(PLACES) - 1), -most
            if sort == "code":
                return -((request.code if request else 0) or 0)
            texts = ["", ""]
            if request is not None:
                texts = {
                    "verb": [request.verb, ""],
                    "resource": [request.resource, request.subresource],
                    "namespace": [request.namespace, request.name],
                    "client": [request.user_agent, ""],
                }[sort]
            return tuple((not text, text.casefold()) for text in texts)

        slots = list(range(sample.index.traces))
        if sort == "start":
            expected = sorted(slots, key=lambda slot: -newest(slot) if reverse else newest(slot))
        else:
            expected = sorted(slots, key=newest)
            expected.sort(key=key, reverse=reverse)  # a stable sort stays stable when reversed
            if sort not in ("duration", "spans", "errors", "code"):
                expected.sort(key=lambda slot: sample.rows[slot].request is None)
            if sort in ("duration", "where"):
                expected.sort(key=lambda slot: sample.lasts(sample.rows[slot]))
        found = select(sample.index, view(sort=sort, reverse=reverse), LATER).slots.tolist()
        assert found == expected


def test_a_clock_that_is_ahead_does_not_hold_the_top() -> None:
    rec = Recorder()
    rec.span("ahead", trace="a", at=1e9)
    rec.span("now", trace="b", at=0)
    rec.span("without time", trace="c", at=-T0 / 1e6)
    index = rec.index(received=T0 + 1000)
    names = [index.names[index.name[index.head_row[slot]]] for slot in select(index, view(), LATER).slots]
    assert names == ["without time", "ahead", "now"]


# --- cost -----------------------------------------------------------------------------------------
def many(traces: int) -> Index:
    """Traces of one request span, each with a name of its own."""
    spans = np.zeros(traces, SPAN)
    spans["trace_hi"], spans["trace_lo"] = 1, np.arange(1, traces + 1)
    spans["span"], spans["name"] = 1, 1
    spans["start"] = T0 + np.arange(traces)
    spans["end"] = spans["start"] + 1000
    spans["kind_status"], spans["flags"] = SERVER, APISERVER | FLAG_REQUEST | FLAG_FACTS
    facts = np.zeros(traces, FACT)
    facts["row"], facts["role"], facts["code"] = np.arange(traces), ROLE_SERVER, 200
    strings = ["", "GET", "get", "pods", "default", "/api", *(f"web-{number}" for number in range(traces))]
    facts["verb"], facts["resource"], facts["namespace"], facts["detail"] = 2, 3, 4, 5
    facts["name"] = np.arange(traces) + 6
    index = Index()
    chunk = Chunk(1, "local", "", T0, strings, [Resource("apiserver", "a")], spans, facts, b"")
    index.extend([chunk])
    return index


def test_a_hundred_thousand_traces_cost_no_python_time_each() -> None:
    index = many(100_000)
    wanted = view("default web-9999 verb=get", hide_noise=True, sort="namespace")
    select(index, wanted, LATER)
    found, calls = calls_of(lambda: select(index, wanted, LATER))
    assert len(found.slots) == 11
    assert calls < 5_000


def test_strings_that_came_since_are_found_and_old_ones_not_asked_again() -> None:
    rec = Recorder()
    rec.span("first", trace="a")
    requests = rec.requests()
    index = Index()
    index.extend(chunks_of(requests))
    assert len(select(index, view("second"), LATER).slots) == 0
    rec.span("second", trace="b")
    later = chunks_of(rec.requests()[1:])
    later[0].id = 2
    index.extend(later)
    assert len(select(index, view("second"), LATER).slots) == 1


def test_what_is_kept_for_an_index_goes_with_it() -> None:
    gc.collect()
    before = len(strings_module._strings)
    index = many(10)
    select(index, view("web"), LATER)
    assert len(strings_module._strings) == before + 1
    del index
    gc.collect()
    assert len(strings_module._strings) == before


def test_a_group_is_its_traces_and_no_others() -> None:
    index = many(1_000)
    some = [index.trace_id(slot) for slot in (3, 500, 999)]
    group = Group("a command", frozenset([*some, "f" * 32]))
    chosen = select(index, view(group=group, hide_noise=True), LATER)
    assert {index.trace_id(slot) for slot in chosen.slots.tolist()} == set(some)
    assert chosen.hidden_noise == 0
    assert len(select(index, view("verb=nothing", group=group), LATER).slots) == 0
    assert len(select(index, view(group=Group("nothing yet", frozenset())), LATER).slots) == 0
