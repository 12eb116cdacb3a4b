"""Given up, passed on in vain, failed, slow without a reason."""

from __future__ import annotations

import pytest

from tests.receiver.traces import shapes
from tests.receiver.traces.scenes import Scene, causes
from tests.receiver.traces.shapes import CLIENT, SERVER

METRICS = "/apis/metrics.k8s.io/v1beta1/nodes"


@pytest.mark.parametrize(
    ("said", "cause", "text"),
    [
        ("context canceled", "client gave up", "The client gave up"),
        ("context deadline exceeded", "timed out", "The request timed out"),
    ],
)
def test_nobody_waits_any_more(said: str, cause: str, text: str) -> None:
    scene = Scene(code=504).begin("Create")
    scene.etcd(1, 50, (2, 40), status=2, message=said)
    found = scene.verdict()
    assert causes(found) == [cause]
    assert found.sentences[0] == f"{text} after 1.00 s, while etcd was being asked (Txn)."


def test_nobody_waits_and_no_span_tells_for_what() -> None:
    assert Scene(code=504).begin("Create").verdict().sentences[0] == (
        "The request timed out after 1.00 s; which call was waited for is not in its spans (504)."
    )


def test_the_end_of_a_watch_is_nobodys_giving_up() -> None:
    scene = Scene("List", code=200, target=shapes.PODS + "?watch=1").begin("WatchList")
    scene.etcd(1, 50, None, "Watch/Watch", status=2, message="context canceled")
    assert causes(scene.verdict()) == []


def test_an_aggregated_api_that_is_down() -> None:
    down = Scene("List", code=503, ms=1, target=METRICS).verdict()
    assert causes(down) == ["aggregated API down"]
    assert down.sentences[0] == (
        "The aggregated API metrics.k8s.io/v1beta1 is down: the request was answered with 503: its server is not there."
    )
    refused = Scene("List", code=503, ms=1, target=METRICS)
    refused.span("HTTP GET", CLIENT, refused.queue, ms=0.5, status=2, message="dial tcp: connection refused")
    assert refused.verdict().sentences[0].endswith("answered with 503: dial tcp: connection refused.")


def test_a_503_of_its_own_is_no_aggregated_api() -> None:
    for target in ("/apis/apps/v1/deployments", "/api/v1/nodes"):
        assert causes(Scene("List", code=503, ms=1, target=target).verdict()) == ["failed"]


def test_an_aggregated_api_that_is_slow() -> None:
    for own, words in ((890, ", all of it inside its server itself."), (None, "; its own spans are not here, so ")):
        slow = Scene("List", code=200, target=METRICS)
        call = slow.span("HTTP GET", CLIENT, slow.queue, at=1, ms=900)
        if own:
            slow.span("GET x", SERVER, call, instance="metrics-server", at=2, ms=own)
        found = slow.verdict()
        assert causes(found) == ["aggregated API slow"]
        assert f"The aggregated API metrics.k8s.io/v1beta1 took 900 ms (90 %){words}" in found.text


def test_a_probe_that_fails_says_where_the_reason_is() -> None:
    assert Scene("Get", code=500, ms=9, target="/readyz").verdict().text == (
        "The API server says that it is not ready: /readyz was answered with 500. Which check failed is not in the "
        "trace; kubectl get --raw '/readyz?verbose' tells."
    )
    assert "it is not healthy: /livez" in Scene("Get", code=500, ms=9, target="/livez").verdict().text
    hostile = Scene("Get", code=500, ms=9, target="/readyz/'; reboot'").verdict().text
    assert hostile.endswith("kubectl get --raw '/readyz?verbose' tells."), "nobody may write the command we show"


def test_a_failure_that_no_rule_explains() -> None:
    refused = Scene(code=403, ms=20).begin("Create", ms=20).fail("exceeded quota: small", at=15)
    assert refused.verdict().text == "The request was refused with 403: exceeded quota: small."
    broken = Scene(code=500, ms=20).begin("Create", ms=20).fail("Internal error occurred: no.", at=15)
    assert broken.verdict().text == "The request failed with 500: Internal error occurred: no."
    assert "no span says why" in Scene("Get", code=500, ms=9).begin("Get", ms=9).verdict().text


def test_everyday_answers_are_no_failures() -> None:
    assert causes(Scene("Get", code=404, ms=9).begin("Get", ms=9).verdict()) == []
    exists = Scene(code=409, ms=20).begin("Create", ms=20).fail('nodes "cp-1" already exists', at=15).verdict()
    assert exists.text == 'Nothing remarkable: answered with 409 (nodes "cp-1" already exists) after 20.0 ms.'


def test_a_slow_request_without_a_reason_is_still_slow() -> None:
    scene = Scene("Get", code=200).begin("Get")
    scene.etcd(1, 30, (2, 20))
    found = scene.verdict()
    assert causes(found) == ["slow"]
    assert found.sentences[0] == (
        "The request took 1.00 s, 970 ms (97 %) of it in the API server itself, where plugins and waiting for a CPU "
        "have no spans."
    )


def test_a_watch_cache_that_waits() -> None:
    scene = Scene("List", code=200).begin("List")
    scene.span("cacher.GetList", parent=scene.verb, at=1, ms=900)
    assert scene.verdict().sentences[0] == (
        "The request took 1.00 s, 900 ms (90 %) of it in the watch cache, which may have waited to catch up."
    )
