"""The verdict as a whole: what comes first, what is said of the usual, and what cannot be known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.traces.model import Body, Component, Event, Kind, Link, Request, Settled, Span
from receiver.traces.reader import load
from receiver.traces.rules import FALLBACKS, RULES
from receiver.traces.rules.case import cut, listed, share_text, time_text
from receiver.traces.timing import critical_path
from receiver.traces.tree import build
from receiver.traces.verdict import judge
from tests.receiver.traces import shapes
from tests.receiver.traces.scenes import NoBodies, Scene, causes, verdict_of
from tests.receiver.traces.shapes import HTTP, SERVER, T0, Recorder


def test_what_took_most_comes_first_where_the_request_went_well() -> None:
    scene = Scene(code=201, ms=2000).begin("Create", ms=2000)
    scene.hook("mutating", "injector", 0, 1200, 1190)
    values = {"url.full": "https://10.0.0.1/x?timeout=500ms"}
    scene.hook("validating", "policy", 1200, 500, status=2, message="context deadline exceeded", values=values)
    scene.etcd(1900, 12, (4, 5))
    assert scene.verdict().sentences == (
        "Mutating webhook injector took 1.20 s (60 %), all of it inside the webhook itself.",
        "Validating webhook policy did not answer within its 0.5 s timeout (25 % of the request); failurePolicy Ignore "
        "let the request through.",
        "etcd took 12.0 ms.",
    )


@pytest.mark.parametrize("lookup", ["cacher.Get", "Get etcd3"])
@pytest.mark.parametrize(
    ("target", "key", "said"),
    [
        (
            shapes.PODS + "?fieldManager=x&dryRun=All",
            "/pods/default/dry",
            "A dry run of pods default/dry: nothing was stored.",
        ),
        (
            shapes.PODS + "?dryRun=All&fieldManager=x",
            "/pods/default/dry",
            "A dry run of pods default/dry: nothing was stored.",
        ),
        (shapes.PODS + "?dryRun=All", "/minions/cp-1", "A dry run of pods default: nothing was stored."),
        (shapes.PODS + "/web?dryRun=All", "/minions/cp-1", "A dry run of pods default/web: nothing was stored."),
        (shapes.PODS + "?fieldManager=dryRun", "/pods/default/dry", ""),
    ],
)
def test_a_dry_run_is_said_to_be_one_and_of_what(target: str, key: str, said: str, lookup: str) -> None:
    scene = Scene("Create", code=201, ms=10, target=target).begin("Create", ms=10)
    scene.span(lookup, parent=scene.verb, at=2, ms=1, values={"key": key})
    sentences = scene.verdict().sentences
    assert sentences[-1].startswith("Nothing remarkable: 10.0 ms")
    assert sentences[:-1] == ((said,) if said else ())


def test_what_failed_comes_first_where_the_request_failed() -> None:
    scene = Scene(code=500, ms=2000).begin("Create", ms=2000)
    scene.hook("mutating", "injector", 0, 1200, 1190)
    scene.hook("validating", "policy", 1200, 500, status=2, message="dial tcp: refused")
    assert causes(scene.verdict()) == ["webhook unreachable", "webhook slow"]


def test_nothing_remarkable() -> None:
    scene = Scene(ms=10).begin("Create", ms=10)
    scene.etcd(2, 5, (1, 3))
    found = scene.verdict()
    assert causes(found) == []
    assert found.text == "Nothing remarkable: 10.0 ms, of which etcd 3.00 ms (30 %) and the way to etcd 2.00 ms (20 %)."
    assert found.phrase == ""


def test_a_slow_request_of_many_parts_is_not_called_unremarkable() -> None:
    scene = Scene(ms=600).begin("Create", ms=600)
    scene.hook("mutating", "injector", 95, 99, 90)
    scene.etcd(194, 99, (10, 80))
    scene.span("cacher.Get", parent=scene.verb, at=293, ms=99)
    scene.span("SerializeObject", parent=scene.verb, at=392, ms=99)
    found = scene.verdict()
    assert causes(found) == []
    assert found.text.startswith("No part stands out: 600 ms, of which ")


@pytest.mark.parametrize(
    ("verb", "target", "words"),
    [
        ("WatchList", shapes.PODS + "?watch=1", "A watch, open for 60.0 s: it lasts as long as its client likes."),
        (
            "Get",
            shapes.PODS + "/web/log?follow=true",
            "A log that was followed for 60.0 s: that lasts as long as its client and the container like.",
        ),
        (
            "Get",
            shapes.PODS + "/web/exec?command=true",
            "A command in a container, which ended after 60.0 s: it lasts as long as its process and its client like.",
        ),
        (
            "Get",
            shapes.PODS + "/web/attach",
            "A client attached to a container, which ended after 60.0 s: it lasts as long as its process and its client"
            " like.",
        ),
        (
            "Get",
            shapes.PODS + "/web/portforward",
            "A port that was forwarded for 60.0 s: that lasts as long as its client likes.",
        ),
    ],
)
def test_what_lasts_as_long_as_its_client_likes_is_not_slow(verb: str, target: str, words: str) -> None:
    scene = Scene(verb, code=200, ms=60_000, target=target).begin(verb, at=900, ms=60_000)
    found = scene.verdict()
    assert causes(found) == []
    assert found.text == words


@pytest.mark.parametrize(
    ("target", "code", "words"),
    [
        ("/web/log?tailLines=2", 200, "Nothing remarkable: 20.0 ms, of which the API server itself 20.0 ms (100 %)."),
        ("/web/log?follow=true", 404, "Nothing remarkable: answered with 404 after 20.0 ms."),
        ("/web/exec?command=ls", 400, "Nothing remarkable: answered with 400 after 20.0 ms."),
        ("?watch=1", 410, "Nothing remarkable: answered with 410 after 20.0 ms."),
    ],
)
def test_what_was_refused_or_ends_by_itself_is_no_stream(target: str, code: int, words: str) -> None:
    assert Scene("Get", code=code, ms=20, target=shapes.PODS + target).begin("Get", ms=20).verdict().text == words


def test_logs_of_which_nothing_says_whether_they_were_followed_may_be_a_stream() -> None:
    scene = Scene("Get", code=200, ms=60_000, target="").begin("Get", ms=60_000)
    assert "60.0 s" in scene.verdict().text
    many = "&".join(f"o{number}=1" for number in range(1_000))
    scene = Scene("Get", code=200, ms=20, target=f"{shapes.PODS}/web/log?{many}&follow=true").begin("Get", ms=20)
    assert scene.verdict().text == "Nothing remarkable: 20.0 ms, of which the API server itself 20.0 ms (100 %)."


def test_a_watch_whose_own_verb_span_never_comes_lacks_nothing() -> None:
    """Until 1.35 the `List` of a watch is never ended, so never sent: what was below it is an orphan."""
    shapes.watch_1_34(rec := Recorder())
    rec.span("cacher.GetList", parent=b"never-is", at=1, ms=1)
    assert "missing" not in verdict_of(rec).text


# --- what cannot be known -------------------------------------------------------------------------
def test_in_1_33_neither_the_end_of_the_span_nor_the_code_is_the_requests() -> None:
    shapes.release_1_33(rec := Recorder())
    assert verdict_of(rec).sentences[-1] == (
        "Kubernetes 1.33 ends its span early: the duration is that of the work below it, and its status code is not "
        "known."
    )


def test_a_request_without_a_status_code_may_have_failed() -> None:
    found = Scene(code=None, ms=10).begin("Create", ms=10).verdict()
    assert found.sentences[-1] == (
        "The request's status code is not in its span, so whether it succeeded cannot be known."
    )


def test_a_receiver_that_started_mid_way_says_so() -> None:
    """The request's span ends last: it is here, what happened before is not."""
    rec = Recorder()
    rec.span("GET x", SERVER, scope=HTTP, ms=30, values={"http.response.status_code": 200})
    assert verdict_of(rec).text == (
        "Nothing remarkable: 30.0 ms; nothing below the request's own span is here, so no part can be told."
    )
    shapes.release_1_34(rec := Recorder(), privileged=True)
    lost = [at for at, (*_, span) in enumerate(rec.spans) if span.name != "authorization"]
    assert verdict_of(rec, order=lost).sentences[-1] == (
        "Spans of this request are missing, so something else may have taken part of the time."
    )
    rec = Recorder()
    rec.span("GET x", SERVER, scope=HTTP, ms=3000, values={"http.response.status_code": 200})
    assert verdict_of(rec).sentences[0] == (
        "The request took 3.00 s, nothing below its own span is here, so where cannot be known."
    )


def test_while_spans_arrive_a_verdict_may_change_and_there_is_room_to_say_so() -> None:
    scene = Scene().begin("Create")
    for number in range(3):
        scene.hook("mutating", f"hook-{number}", 300 * number, 250)
    trace = load(scene.index(received=T0), scene.trace_id(), T0 + 1, live=True)
    assert trace is not None
    found = judge(trace, NoBodies())
    assert found.sentences[-1] == "Spans are still arriving, so this may change."


def test_a_trace_without_any_time() -> None:
    rec = Recorder()
    rec.span("GET x", SERVER, scope=HTTP, at=-T0 / 1e6)
    assert "nothing can be said about its time" in verdict_of(rec).text


def test_without_bodies_the_times_still_speak() -> None:
    scene = Scene().begin("Create")
    scene.hook("mutating", "injector", 100, 800, 790)
    trace = load(scene.index(), scene.trace_id(), T0, live=False)
    assert trace is not None
    found = judge(trace, NoBodies())
    assert causes(found) == ["webhook slow"]
    assert "Mutating webhook took 800 ms (80 %), all of it inside the webhook itself." in found.text


# --- callers --------------------------------------------------------------------------------------
def test_a_traceparent_that_was_taken_over_or_not() -> None:
    shapes.forced(rec := Recorder())
    assert verdict_of(rec).sentences[-1] == (
        "Its parent span is not here: most likely the caller's, who forced this trace by a traceparent."
    )
    scene = Scene("Get", code=200, ms=10).begin("Get", ms=10)
    link = scene.spans[0][3].links.add(trace_id=b"\xaa" * 16, span_id=b"\xbb" * 8)
    assert link.trace_id
    assert scene.verdict().sentences[-1] == (
        f"Its caller's traceparent was not honoured, only linked: trace {'aa' * 16}."
    )


# --- words ----------------------------------------------------------------------------------------
def test_every_rule_names_its_fact() -> None:
    for rule in (*RULES, *FALLBACKS):
        assert re.search(r"\(([\d., ]+|.*recorded)\)", rule.__doc__ or ""), rule.__name__


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ms"), (900, "under 0.01 ms"), (12_000, "0.01 ms"), (960_000, "0.96 ms"), (9_996_000, "10.0 ms"),
        (41_230_000, "41.2 ms"), (999_400_000, "999 ms"), (999_600_000, "1.00 s"), (2_529_000_000, "2.53 s"),
        (99_960_000_000, "100 s"), (1_800_000_000_000, "30 min"),
        (7_140_000_000_000, "119 min"), (7_200_000_000_000, "2.0 h"), (259_200_000_000_000, "72 h"),
    ],
)  # fmt: skip
def test_times(ns: int, text: str) -> None:
    assert time_text(ns) == text


def test_other_words() -> None:
    assert [listed(parts) for parts in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert cut("a\n b" + "x" * 500, 10) == "a bxxxxxx…"
    assert (share_text(1, 3), share_text(1, 0)) == ("33 %", "0 %")


def test_hostile_names_are_short_in_a_sentence() -> None:
    scene = Scene(code=403, ms=2000, target="/apis/" + "g" * 300 + "/v1/namespaces/" + "n" * 300 + "/" + "r" * 300)
    scene.begin("Create", ms=2000).fail("x" * 100_000)
    values = {"webhook": "w" * 100_000, "configuration": "c" * 100_000}
    scene.span("Call mutating webhook", parent=scene.verb, ms=1900, values=values)
    assert len(scene.verdict().text) < 1_024


# --- any trace ------------------------------------------------------------------------------------
SPANS = st.tuples(
    st.integers(0, 12),  # parent
    st.integers(0, 900),
    st.integers(0, 1000),
    st.sampled_from(
        (
            "GET", "POST", "authentication", "priorityandfairness", "authorization", "Create", "Update", "List",
            "HTTP POST", "Call mutating webhook", "Call validating webhook", "Call conversion webhook",
            "cacher.GetList", "List(recursive=true) etcd3", "GuaranteedUpdate etcd3", "etcdserverpb.KV/Txn",
            "etcdserverpb.Watch/Watch", "TransformToStorage with x", "SerializeObject", "syncPod", "runtime.v1.X/Y", "",
        )
    ),
    st.sampled_from(tuple(Kind)),
    st.sampled_from(tuple(Component)),
    st.sampled_from((0, 2, 9)),
    st.booleans(),
)  # fmt: skip
WORDS = st.sampled_from(
    (
        "", "context canceled", "context deadline exceeded", "x509: no", 'admission webhook "a" denied the request',
        "Timeout: request did not complete within requested timeout - context canceled", "503", "2", "-1", "\x1b[2J\n",
        'failed calling webhook "a"', "https://h/?timeout=9.9.9s", "https://h/?timeout=1s", "etcdserver: too large",
        "the object has been modified", "x" * 5_000, "٣",
    )
)  # fmt: skip
VALUES = st.one_of(WORDS, st.integers(-5, 1 << 40), st.booleans(), st.binary(max_size=3), st.lists(WORDS, max_size=2))
KEYS = st.sampled_from(
    (
        "webhook", "configuration", "custom-resource-definition", "http.response.status_code", "url.full", "err", "len",
        "size", "count", "rpc.grpc.status_code", "transformer.provider.name", "http.request.body.size", "k8s.pod.name",
    )
)  # fmt: skip
EVENTS = st.sampled_from(
    (
        "Write to database call failed", "limitedReadBody succeeded", "About to store object in database",
        "About to start writing response", "Write call succeeded", "Retry value restored", "Send raft proposal",
        "Receive raft result", "Filtered items",
    )
)  # fmt: skip
BODIES = st.builds(
    lambda attributes, events, message, link: Body(
        attributes,
        tuple(Event(T0 + at, name, values) for at, name, values in events),
        (Link("ab" * 16, "cd" * 8, {}),) if link else (),
        message, {}, "", "", (0, 0, 0),
    ),
    st.dictionaries(KEYS, VALUES, max_size=4),
    st.lists(st.tuples(st.integers(-50, 2000), EVENTS, st.dictionaries(KEYS, VALUES, max_size=2)), max_size=3),
    WORDS,
    st.booleans(),
)  # fmt: skip
REQUESTS = st.builds(
    Request,
    st.sampled_from(("get", "list", "watch", "create", "connect", "")),
    st.sampled_from(("", "apps", "example.com", "metrics.k8s.io")),
    st.just("v1"),
    st.sampled_from(("pods", "")),
    st.sampled_from(("", "log", "eviction")),
    st.just("default"),
    st.just(""),
    st.just("kubectl"),
    st.sampled_from((None, 200, 201, 400, 401, 403, 404, 409, 410, 413, 429, 499, 500, 503, 504)),
    st.just(""),
    st.sampled_from(("/api/v1/pods", "/readyz", "")),
)


class Drawn:
    """A body for each span, by its number; some were evicted."""

    def __init__(self, bodies: list[Body]) -> None:
        self._bodies = bodies

    def bodies(self, spans: Sequence[Span]) -> list[Body | None]:
        places = [int(span.span_id, 16) - 1 for span in spans]
        return [self._bodies[place] if place < len(self._bodies) else None for place in places]


@given(
    st.lists(SPANS, min_size=1, max_size=12), st.lists(BODIES, max_size=12), REQUESTS, st.sampled_from(tuple(Settled))
)
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_anything_gets_a_verdict(drawn: list[Any], bodies: list[Body], request_: Request, settled: Settled) -> None:
    """One to three whole sentences of bounded length, on whatever anybody sends; a finding's time is never more than
    the request's."""
    unit = 1_000_000
    spans = [
        Span(
            "t", f"{at + 1:016x}", f"{parent:016x}" if parent else "", name, kind, T0 + start * unit if start else 0,
            T0 + end * unit, status, "apiserver", "a", component, "s", 1, at, request=head,
        )
        for at, (parent, start, end, name, kind, component, status, head) in enumerate(drawn)
    ]  # fmt: skip
    trace = build(spans, settled=settled, missing=1)
    trace.request = request_ if trace.headline is not None and trace.headline.span.request else None
    found = judge(trace, Drawn(bodies), authentication=5 * unit)
    assert 1 <= len(found.sentences) <= 3
    path = critical_path(trace)
    for sentence in found.sentences:
        assert sentence.endswith(".")
        assert len(sentence) < 1_024
        assert "\n" not in sentence
    for finding in found.findings:
        assert path is not None
        assert 0 <= finding.ns <= max(path.end - path.start, 5 * unit)
        assert finding.phrase
