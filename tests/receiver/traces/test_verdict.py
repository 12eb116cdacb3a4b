"""The verdict: each rule on a trace made for it, and every cause that the recordings are known to hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from receiver.ingest.recordings import take
from receiver.store.database import Database
from receiver.store.index import Index
from receiver.traces.bodies import Bodies
from receiver.traces.model import Body, Request, Span
from receiver.traces.reader import load
from receiver.traces.verdict import RULES, Verdict, judge
from tests.receiver.traces import shapes
from tests.receiver.traces.shapes import CLIENT, FILTER, GRPC, HTTP, SERVER, T0, Recorder, chunks_of

Event = tuple[float, str, dict[str, Any]]


class Scene(Recorder):
    """A request of so many ms, with the filters of 1.36 and a verb span, to which causes are added."""

    def __init__(self, verb: str = "Create", ms: float = 1000, code: int = 201, target: str = shapes.PODS) -> None:
        super().__init__()
        method = {"Create": "POST", "Update": "PUT", "Delete": "DELETE"}.get(verb, "GET")
        values = {"http.request.method": method, "http.target": target, "http.response.status_code": code}
        self.server = self.span(f"{method} x", SERVER, scope=HTTP, ms=ms, values=values)
        self.queue = self.span("priorityandfairness", parent=self.server, scope=FILTER, ms=ms)
        self.verb = self.server

    def begin(self, verb: str, at: float = 0, authorization: float = 0, ms: float = 1000) -> Scene:
        allowed = self.span("authorization", parent=self.queue, scope=FILTER, at=authorization, ms=ms - authorization)
        self.verb = self.span(verb, parent=allowed, at=at, ms=ms - at)
        return self

    def say(self, *events: Event) -> None:
        """Give the last span these events: (ms after T0, name, attributes)."""
        for at, name, values in events:
            made = self.spans[-1][3].events.add(time_unix_nano=T0 + int(at * 1_000_000), name=name)
            made.attributes.extend(shapes.attributes(values))

    def hook(self, kind: str, name: str, at: float, ms: float, own: float | None = None, **call: Any) -> None:
        values = {"webhook": f"{name}.example.com", "configuration": name}
        hook = self.span(f"Call {kind} webhook", parent=self.verb, at=at, ms=ms, values=values)
        post = self.span("HTTP POST", CLIENT, hook, at=at, ms=ms, **call)
        if own is not None:
            self.span("POST /", SERVER, post, service=name, scope="", at=at + (ms - own) / 2, ms=own)

    def etcd(self, at: float, ms: float, own: tuple[float, float] | None, **call: Any) -> None:
        client = self.span("etcdserverpb.KV/Txn", CLIENT, self.verb, scope=GRPC, at=at, ms=ms, **call)
        if own is not None:
            self.span("etcdserverpb.KV/Txn", SERVER, client, service="etcd", scope=GRPC, at=at + own[0], ms=own[1])

    def verdict(self, authentication: int = 0) -> Verdict:
        database = Database.memory()
        database.append(chunks_of(self.requests()))
        index = Index()
        index.extend(database.read_after(0))
        trace = load(index, self.trace_id(), T0, live=False)
        assert trace is not None
        return judge(trace, Bodies(database), authentication=authentication)


def causes(verdict: Verdict) -> list[str]:
    assert 1 <= len(verdict.sentences) <= 3
    return [finding.cause for finding in verdict.findings]


URL = {"url.full": "https://10.0.0.1:9443/x?timeout=10s"}


@pytest.mark.parametrize(
    ("code", "how", "cause", "words"),
    [
        (201, {"status": 2, "message": "context deadline exceeded", "values": URL}, "webhook timeout", "Ignore let"),
        (500, {"status": 2, "message": "context deadline exceeded", "values": URL}, "webhook timeout", "Fail refused"),
        (500, {"status": 2, "message": "dial tcp 10.0.0.1:1: connect: refused"}, "webhook unreachable", "dial"),
        (500, {"status": 2, "message": "tls: x509: unknown authority"}, "webhook certificate", "not trusted"),
        (500, {"status": 2, "values": {"http.response.status_code": 500}}, "webhook error", "answered 500"),
        (500, {"status": 2, "message": "context canceled"}, "client gave up", "client gave up"),
    ],
)  # fmt: skip
def test_a_webhook_that_fails(code: int, how: dict[str, Any], cause: str, words: str) -> None:
    scene = Scene(code=code).begin("Create")
    scene.hook("validating", "policy", 100, 800, **how)
    found = scene.verdict()
    assert causes(found) == [cause]
    assert "policy.example.com" in found.text
    assert words in found.text
    assert found.phrase.startswith("webhook policy ")


def test_a_webhook_that_timed_out_says_after_how_long() -> None:
    scene = Scene(code=500).begin("Create")
    scene.hook("mutating", "a", 0, 800, status=2, message="context deadline exceeded", values=URL)
    assert scene.verdict().sentences[0] == (
        "Mutating webhook a.example.com did not answer within its 10 s timeout; failurePolicy Fail refused the request "
        "with 500."
    )


@pytest.mark.parametrize(("own", "words"), [(780, "all of it inside"), (20, "only 20.0 ms inside"), (None, "no spans")])
def test_a_slow_webhook(own: float | None, words: str) -> None:
    scene = Scene().begin("Create")
    scene.hook("mutating", "injector", 100, 800, own)
    found = scene.verdict()
    assert causes(found) == ["webhook slow"]
    assert "Mutating webhook injector.example.com took 800 ms (80 %)" in found.text
    assert words in found.text


def test_webhooks_that_are_only_slow_together() -> None:
    scene = Scene(ms=1000).begin("Create")
    for number in range(8):
        scene.hook("mutating", f"hook-{number}", 100 * number, 90, 85)
    assert causes(scene.verdict()) == ["webhooks in sequence"]


def test_a_webhook_that_denies() -> None:
    scene = Scene(code=403)
    scene.begin("Create")
    error = 'admission webhook "policy.example.com" denied the request: no.'
    scene.say((900, "Write to database call failed", {"err": error}))
    scene.hook("validating", "policy", 100, 50, 40)
    found = scene.verdict()
    assert causes(found) == ["webhook denied"]
    assert found.sentences[0] == "Validating webhook policy.example.com denied the request: no."


@pytest.mark.parametrize(
    ("own", "cause"),
    [
        ((100, 700), "etcd slow"),
        ((398, 2), "etcd far away"),
        ((790, 5), "etcd stalled"),
        ((500, 290), "etcd slow"),
        (None, "etcd slow"),
    ],
)  # fmt: skip
def test_etcd(own: tuple[float, float] | None, cause: str) -> None:
    scene = Scene().begin("Create")
    scene.etcd(100, 800, own)
    found = scene.verdict()
    assert causes(found) == [cause]
    assert ("cannot be known" in found.text) == (own is None)


def test_conflict_retries() -> None:
    scene = Scene("Update", code=200).begin("Update")
    scene.span("GuaranteedUpdate etcd3", parent=scene.verb, at=1, ms=20)
    scene.say((5, "Retry value restored", {}), (9, "Retry value restored", {}))
    assert "2 times" in scene.verdict().text
    assert causes(scene.verdict()) == ["conflict retries"]


def test_waiting_in_line() -> None:
    assert causes(Scene().begin("Create", at=801, authorization=800).verdict()) == ["queued"]
    assert causes(Scene(code=429).verdict()) == ["queue full"]


def test_filters_whose_webhooks_are_not_traced() -> None:
    found = Scene().begin("Create", at=800).verdict()
    assert causes(found) == ["authorization slow"]
    assert "not traced" in found.text
    late = Scene(ms=100).begin("Create", ms=100).verdict(authentication=2_000_000_000)
    assert causes(late) == ["authentication slow"]
    assert "2.00 s, before the request itself began" in late.text


def test_a_caller_who_may_not() -> None:
    assert causes(Scene("Get", code=403, ms=1).verdict()) == ["forbidden"]


def answer(scene: Scene, begun: float, done: float, size: int) -> None:
    scene.span("SerializeObject", parent=scene.verb, at=10, ms=done - 10)
    scene.say(
        (begun, "About to start writing response", {"size": size}), (done, "Write call succeeded", {"size": size})
    )


@pytest.mark.parametrize(("begun", "cause"), [(900, "encoding slow"), (50, "slow client")])
def test_a_big_answer(begun: float, cause: str) -> None:
    scene = Scene("Get", code=200).begin("Get")
    answer(scene, begun, 990, 9_000_000)
    found = scene.verdict()
    assert causes(found) == [cause]
    assert "9.0 MB" in found.text


def test_a_large_list_past_the_cache() -> None:
    scene = Scene("List", code=200, ms=50).begin("List", ms=50)
    scene.say((40, "Listing from storage done", {}), (48, "Writing http response done", {"count": 7_000}))
    scene.span("List(recursive=true) etcd3", parent=scene.verb, at=1, ms=8)
    answer(scene, 30, 48, 20_000_000)
    found = scene.verdict()
    assert causes(found) == ["large list"]
    assert "7,000 objects, 20.0 MB from etcd instead of the watch cache" in found.text


def test_conversion() -> None:
    scene = Scene("Get", code=200, target="/apis/example.com/v2/widgets/a").begin("Get")
    scene.verb = scene.span("cacher.Get", parent=scene.verb, ms=900)
    scene.etcd(1, 10, (2, 5))
    found = scene.verdict()
    assert causes(found) == ["conversion suspected"]
    assert "guess" in found.text
    traced = Scene("Get", code=200).begin("Get")
    traced.hook("conversion", "widgets", 1, 900)
    assert causes(traced.verdict()) == ["conversion webhook slow"]


def test_aggregated_apis() -> None:
    target = "/apis/metrics.k8s.io/v1beta1/nodes"
    down = Scene("List", code=503, ms=1, target=target).verdict()
    assert causes(down) == ["aggregated API down"]
    assert "metrics.k8s.io/v1beta1" in down.text
    slow = Scene("List", code=200, target=target)
    slow.span("HTTP GET", CLIENT, slow.queue, at=1, ms=900)
    assert causes(slow.verdict()) == ["aggregated API slow"]


def test_encryption() -> None:
    scene = Scene().begin("Create")
    values = {"transformer.provider.name": "vault"}
    scene.span("TransformToStorage with envelopeTransformer", parent=scene.verb, at=1, ms=900, values=values)
    found = scene.verdict()
    assert causes(found) == ["KMS slow"]
    assert "vault" in found.text


@pytest.mark.parametrize(
    ("said", "cause"), [("context canceled", "client gave up"), ("context deadline exceeded", "timed out")]
)
def test_nobody_waits_any_more(said: str, cause: str) -> None:
    scene = Scene(code=504).begin("Create")
    scene.etcd(1, 50, (2, 40), status=2, message=said)
    assert causes(scene.verdict()) == [cause]


def test_bodies() -> None:
    refused = Scene(code=400, ms=20).begin("Create", ms=20)
    refused.say((15, "limitedReadBody succeeded", {"len": 3_000_000}))
    assert "3.0 MB was refused with 400" in refused.verdict().text
    large = Scene(code=413, ms=20).begin("Create", ms=20)
    assert causes(large.verdict()) == ["object too large"]
    slow = Scene().begin("Create")
    slow.say((850, "limitedReadBody succeeded", {"len": 100}))
    slow.etcd(900, 10, (2, 5))
    assert "until the body had arrived" in slow.verdict().text


def test_a_failure_that_no_rule_explains() -> None:
    scene = Scene(code=403, ms=20).begin("Create", ms=20)
    scene.say((15, "Write to database call failed", {"err": "exceeded quota: small"}))
    assert scene.verdict().sentences[0] == "The request failed with 403: exceeded quota: small."
    assert "no span says why" in Scene("Get", code=500, ms=9, target="/readyz").verdict().text
    assert causes(Scene("Get", code=404, ms=9).begin("Get", ms=9).verdict()) == []


def test_nothing_remarkable() -> None:
    scene = Scene(ms=10).begin("Create", ms=10)
    scene.etcd(2, 5, (1, 3))
    found = scene.verdict()
    assert causes(found) == []
    assert found.text == "Nothing remarkable: 10.0 ms, of which etcd 3.00 ms (30 %) and the way to etcd 2.00 ms (20 %)."


def test_a_watch_is_as_long_as_its_client_likes() -> None:
    scene = Scene("List", code=200, ms=60_000, target=shapes.PODS + "?watch=1").begin("WatchList", at=900, ms=60_000)
    found = scene.verdict()
    assert causes(found) == []
    assert found.text.startswith("A watch, open for 60.0 s")


def test_what_cannot_be_known_is_said() -> None:
    rec = Recorder()
    shapes.release_1_33(rec)
    index = rec.index()
    trace = load(index, rec.trace_id(), T0, live=False)
    assert trace is not None
    assert "ends its span early" in judge(trace, NoBodies()).text
    shapes.watch_1_36(rec := Recorder())
    trace = load(rec.index(), rec.trace_id(), T0, live=False)
    assert trace is not None
    assert judge(trace, NoBodies()).text.startswith("No API request is in this trace: WatchList took 3.00 ms")


class NoBodies:
    """All bodies were evicted."""

    def bodies(self, spans: Sequence[Span]) -> list[Body | None]:
        return [None] * len(spans)


def test_without_bodies_the_times_still_speak() -> None:
    scene = Scene().begin("Create")
    scene.hook("mutating", "injector", 100, 800, 790)
    trace = load(scene.index(), scene.trace_id(), T0, live=False)
    assert trace is not None
    assert causes(judge(trace, NoBodies())) == ["webhook slow"]


def test_every_rule_names_its_fact() -> None:
    for rule in RULES:
        assert (rule.__doc__ or "").rstrip().endswith(")."), rule.__name__


# --- recordings -----------------------------------------------------------------------------------
Judged = list[tuple[Request, Verdict]]


@pytest.fixture(scope="module")
def judged(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Judged]:
    def of(name: str) -> Judged:
        database = Database.create(tmp_path_factory.mktemp("verdict") / "spans.db")
        take(recordings / name, database, pytest.fail, arrived_now=False)
        index = Index()
        while chunks := database.read_after(index.last_chunk):
            index.extend(chunks)
        bodies = Bodies(database)
        found = []
        for slot in range(index.traces):
            trace = load(index, index.trace_id(slot), T0, live=False)
            assert trace is not None
            if trace.request is not None:
                found.append((trace.request, judge(trace, bodies)))
        database.close()
        return found

    return of


def test_the_four_verdicts_of_create_pod_webhooks(judged: Callable[[str], Judged]) -> None:
    together, plain, denied, slow = [verdict for _, verdict in judged("create-pod-webhooks.otlp.jsonl")]
    assert "together 121 ms (84 %)" in together.text
    assert "label-injector.example.com" in together.text
    assert "validating webhook name-policy.example.com 59.9 ms (72 %)" in plain.text
    assert denied.sentences[0] == (
        "Mutating webhook label-injector.example.com denied the request: name contains deny."
    )
    assert slow.sentences[:2] == (
        "Validating webhook name-policy.example.com did not answer within its 1 s timeout; failurePolicy Ignore let "
        "the request through.",
        "Mutating webhook label-injector.example.com took 1.51 s (60 %), all of it inside the webhook itself.",
    )


def test_the_causes_of_incident(judged: Callable[[str], Judged]) -> None:
    found = judged("incident.otlp.jsonl.gz")
    first = {(r.verb, r.resource, r.code, v.findings[0].cause) for r, v in found if v.findings}
    assert {
        ("create", "services", 500, "webhook unreachable"),
        ("list", "nodes", 503, "aggregated API down"),
        ("create", "configmaps", 201, "etcd stalled"),
        ("create", "pods", 403, "webhook denied"),
        ("create", "pods", 201, "webhook timeout"),
        ("create", "configmaps", 400, "body refused"),
        ("patch", "flowschemas", 200, "conflict retries"),
    } <= first


def test_the_causes_of_incident_2(judged: Callable[[str], Judged]) -> None:
    found = [finding.cause for _, verdict in judged("incident-2.otlp.jsonl.gz") for finding in verdict.findings]
    assert {cause: found.count(cause) for cause in set(found)} == {
        "queued": 6,  # three had seats at once
        "webhook slow": 9,
        "authorization slow": 4,
        "etcd far away": 1,
        "large list": 2,
        "slow client": 1,
        "webhook certificate": 1,
    }
