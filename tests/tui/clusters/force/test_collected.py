"""What became of requests: a server that follows the releases' rules exports real OTLP into a real receiver."""

from __future__ import annotations

import http.client
import ssl
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import StartReceiver
from tests.doubles.tracing_api import ADMIN, PLAIN, TracingApi, remote_context
from tests.tui.clusters.force.conftest import MakeApi
from tui.clusters.doctor import ReceiverFindings
from tui.clusters.force.collected import BATCH, Collector, Found, How, described, last_chunk, reasons, wait
from tui.clusters.force.preconditions import Preconditions, find
from tui.clusters.force.proxy import Seen
from tui.clusters.reach.api import Api

LISTENING = ReceiverFindings({"listeners": []})


def asked(double: TracingApi, token: str, *requests: tuple[str, str], body: bytes = b"") -> list[Seen]:
    """Requests as the proxy sends and sees them."""
    context = ssl.create_default_context(cafile=str(double.authority))
    connection = http.client.HTTPSConnection(urlsplit(double.url).netloc, context=context, timeout=10)
    seen = []
    for number, (method, target) in enumerate(requests, 1):
        trace_id, audit_id = uuid.uuid4().hex, str(uuid.uuid4())
        parent_id = uuid.uuid4().hex[:15] + "1"
        headers = {
            "Authorization": f"Bearer {token}",
            "Audit-ID": audit_id,
            "traceparent": f"00-{trace_id}-{parent_id}-01",
        }
        began = time.time_ns()
        connection.request(method, target, body or None, headers)
        answer = connection.getresponse()
        answer.read()
        spent = time.time_ns() - began
        seen.append(
            Seen(
                number,
                trace_id,
                parent_id,
                audit_id,
                method,
                target,
                began,
                spent,
                answer.status,
                0,
                0,
                "",
                False,
                False,
            )
        )
    connection.close()
    return seen


def known_of(double: TracingApi, token: str) -> Preconditions:
    api = Api("lab", double.kubeconfig(token))
    try:
        return find(api)
    finally:
        api.close()


def collected(db: Path, since: int, seen: list[Seen], known: Preconditions, seconds: float = 3.0) -> list[Found]:
    collector = Collector(db, since, seen, known)
    try:
        return wait(collector, seconds, lambda found: None, 0.05)
    finally:
        collector.close()


def test_forced_traces_come_whole_at_rate_zero(api_double: MakeApi, receiver: StartReceiver) -> None:
    live = receiver()
    double = api_double(endpoint=live.address)
    known = known_of(double, ADMIN)
    since = last_chunk(live.db)
    seen = asked(double, ADMIN, ("GET", "/api/v1/nodes"), ("GET", "/api/v1/namespaces/shop/pods/cart"))
    seen += asked(double, ADMIN, ("POST", "/api/v1/namespaces/shop/pods"), body=b'{"metadata":{"name":"x"}}')
    collector = Collector(live.db, since, seen, known)
    began = time.monotonic()
    found = wait(collector, 10.0, lambda _: None, 0.05)
    assert time.monotonic() - began < 8.0, "nothing more is to be expected when all sides are there"
    assert [(one.how, one.trace_id, one.lacking) for one in found] == [(How.FORCED, s.trace_id, "") for s in seen]
    rows = collector.rows(found)
    assert {
        (row.summary.request.verb, row.summary.request.resource) for row in rows.values() if row.summary.request
    } == {
        ("list", "nodes"),
        ("get", "pods"),
        ("create", "pods"),
    }
    assert "policy-webhook" in rows[seen[2].trace_id].summary.services
    assert not reasons(found, known, LISTENING, collector.heard, 1.0)
    collector.close()
    assert len(live.traces()) == 3, "nothing else is traced at rate 0"


def test_who_may_not_is_found_where_the_sampler_took_it(api_double: MakeApi, receiver: StartReceiver) -> None:
    live = receiver()
    double = api_double(endpoint=live.address, per_million=1_000_000)
    seen = asked(double, PLAIN, ("GET", "/api/v1/nodes"))
    known = known_of(double, PLAIN)
    found = collected(live.db, 0, seen, known)
    assert found[0].how is How.TAGGED
    assert found[0].trace_id not in ("", seen[0].trace_id)
    (reason,) = reasons(found, known, LISTENING, frozenset(), 3.0)
    assert "depends on the rate" in reason.sentence
    assert "--issue-identity" in reason.sentence


@pytest.mark.parametrize("version", ["v1.32.1", "v1.28.0"])
def test_releases_before_are_found_by_link_or_audit_id(
    api_double: MakeApi, receiver: StartReceiver, version: str
) -> None:
    live = receiver()
    double = api_double(endpoint=live.address, per_million=1_000_000, version=version)
    seen = asked(double, ADMIN, ("GET", "/api/v1/nodes"), ("GET", "/version"))
    found = collected(live.db, 0, seen, known_of(double, ADMIN))
    assert [one.how for one in found] == [How.TAGGED, How.TAGGED], "a request without a resource has only its link"


@pytest.mark.parametrize(
    ("options", "token", "words"),
    [
        ({"configured": False, "etcd_traced": False}, ADMIN, "no --tracing-config-file"),
        ({"configured": False}, ADMIN, "only etcd took part in it"),
        ({"endpoint": "127.0.0.1:9"}, ADMIN, "does not get to this receiver"),
        ({}, PLAIN, "the sampler did not take this request"),
        ({"version": "v1.32.4"}, ADMIN, "none before 1.33"),
        ({}, "wrong", "did not know who asked (401)"),
    ],
)
def test_why_nothing_came(
    api_double: MakeApi, receiver: StartReceiver, options: dict[str, object], token: str, words: str
) -> None:
    live = receiver()
    double = api_double(**{"endpoint": live.address, **options})
    seen = asked(double, token, ("GET", "/api/v1/nodes"))
    known = known_of(double, token)
    found = collected(live.db, 0, seen, known, 1.0)
    assert [one.how for one in found] == [How.MISSING]
    (reason,) = reasons(found, known, LISTENING, frozenset(), BATCH)
    assert words in reason.sentence
    assert reason.sentence.startswith((reason.sentence[0].upper(), "kube-apiserver"))
    assert reason.sentence.endswith(".")
    assert reason.numbers == (1,)
    (early,) = reasons(found, known, LISTENING, frozenset(), 1.0)
    assert "does not get" not in early.sentence, "exporters have not sent yet"


def test_etcd_that_is_not_traced_is_said(api_double: MakeApi, receiver: StartReceiver) -> None:
    live = receiver()
    double = api_double(endpoint=live.address, etcd_traced=False)
    known = known_of(double, ADMIN)
    found = collected(live.db, 0, asked(double, ADMIN, ("GET", "/api/v1/nodes")), known)
    assert found[0].lacking == "etcd"
    (reason,) = reasons(found, known, LISTENING, frozenset(), 1.0)
    assert reason.sentence.startswith("etcd is not traced")


@pytest.mark.parametrize(
    ("method", "target", "told"),
    [
        ("GET", "/api/v1/namespaces/shop/pods/cart/log?follow=true", ("get", "pods/log", "shop/cart")),
        ("GET", "/api/v1/pods?watch=1", ("watch", "pods", "")),
        ("GET", "/openapi/v3", ("get", "/openapi/v3", "")),
    ],
)
def test_a_request_is_described_by_its_url(method: str, target: str, told: tuple[str, str, str]) -> None:
    assert described(Seen(1, "a" * 32, "b" * 16, "", method, target, 0, 0, 200, 0, 0, "", False, False)) == told


@pytest.mark.parametrize(
    "traceparent",
    [
        "00-" + "0" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "a" * 32 + "-" + "0" * 16 + "-01",
        "00-" + "A" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "a" * 32 + "-" + "1" * 16 + "-04",
    ],
)
def test_the_double_ignores_what_the_real_one_ignores(traceparent: str) -> None:
    assert remote_context(traceparent) is None
    assert remote_context("00-" + "a" * 32 + "-" + "1" * 16 + "-01") is not None
