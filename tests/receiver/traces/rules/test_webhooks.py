"""Webhooks: slow, silent, away, denying, many."""

from __future__ import annotations

from typing import Any

import pytest

from tests.receiver.traces.scenes import Scene, causes, verdict_of
from tests.receiver.traces.shapes import CLIENT, HTTP, SERVER, Recorder

URL = {"url.full": "https://10.0.0.1:9443/x?timeout=10s"}
LATE = {"status": 2, "message": "context deadline exceeded", "values": URL}


@pytest.mark.parametrize(
    ("code", "how", "cause", "text"),
    [
        (201, LATE, "webhook timeout",
         "did not answer within its 10 s timeout (80 % of the request); failurePolicy Ignore let the request through."),
        (500, LATE, "webhook timeout",
         "did not answer within its 10 s timeout (80 % of the request); failurePolicy Fail refused the request with "
         "500."),
        (None, LATE, "webhook timeout", "(80 % of the request); the answer has no status code here, so what "
         "failurePolicy made of it cannot be known."),
        (500, {"status": 2, "message": "dial tcp 10.0.0.1:1: connect: connection refused"}, "webhook unreachable",
         "could not be reached (dial tcp 10.0.0.1:1: connect: connection refused); failurePolicy Fail refused the "
         "request with 500."),
        (500, {"status": 2, "message": "tls: x509: unknown authority"}, "webhook certificate",
         "is not trusted (tls: x509: unknown authority); failurePolicy Fail refused the request with 500."),
        (500, {"status": 2, "values": {"http.response.status_code": 500}}, "webhook error",
         "answered 500 instead of a review; failurePolicy Fail refused the request with 500."),
        (500, {"status": 2}, "webhook error",
         "failed without saying why; failurePolicy Fail refused the request with 500."),
    ],
)  # fmt: skip
def test_a_webhook_that_fails(code: int | None, how: dict[str, Any], cause: str, text: str) -> None:
    scene = Scene(code=code).begin("Create")
    scene.hook("validating", "policy", 100, 800, **how)
    found = scene.verdict()
    assert causes(found) == [cause]
    assert found.sentences[0].startswith("Validating webhook policy ")
    assert found.sentences[0].endswith(text)
    assert found.phrase.startswith("webhook policy ")


def test_of_two_that_failed_the_error_tells_which_refused() -> None:
    scene = Scene(code=500).begin("Create")
    scene.fail('Internal error occurred: failed calling webhook "policy.example.com": failed to call webhook: ...')
    scene.hook("mutating", "injector", 100, 300, **LATE)
    scene.hook("validating", "policy", 400, 400, status=2, message="dial tcp: refused")
    texts = {finding.cause: finding.text for finding in scene.verdict().findings}
    assert "failurePolicy Ignore let the request go on" in texts["webhook timeout"]
    assert "failurePolicy Fail refused the request with 500" in texts["webhook unreachable"]


def test_the_policy_of_a_failed_webhook_is_not_guessed_when_the_request_failed_for_another_reason() -> None:
    scene = Scene(code=403).begin("Create").fail("exceeded quota: small")
    scene.hook("validating", "policy", 100, 200, **LATE)
    found = scene.verdict()
    assert "Ignore let the request go on" in found.text
    assert "Fail" not in found.text


def test_a_webhook_is_not_blamed_for_a_client_that_left() -> None:
    """Recorded: the connection is closed under the call, and the error says who gave up."""
    for said in ("context canceled", "read tcp 127.0.0.1:1->127.0.0.1:2: use of closed network connection"):
        scene = Scene(code=504).begin("Create")
        scene.fail("Timeout: request did not complete within requested timeout - context canceled")
        scene.hook("validating", "policy", 100, 800, status=2, message=said)
        found = scene.verdict()
        assert causes(found) == ["client gave up"]
        assert (
            found.sentences[0] == "The client gave up after 1.00 s, while validating webhook policy was being called."
        )


def test_the_requests_own_deadline_is_not_the_webhooks() -> None:
    scene = Scene(code=504).begin("Create")
    scene.fail("Timeout: request did not complete within requested timeout - context deadline exceeded")
    scene.hook("validating", "policy", 100, 900, **LATE)
    found = scene.verdict()
    assert causes(found) == ["timed out"]
    assert found.text == "The request timed out after 1.00 s, while validating webhook policy was being called."


@pytest.mark.parametrize(
    ("own", "late", "words"),
    [
        (780, 0.5, ", all of it inside the webhook itself."),
        (600, 0.5, ", 600 ms of it inside the webhook itself."),
        (20, 0.9, ", but only 20.0 ms inside the webhook: 702 ms went by before it took up the call (connection, TLS "),
        (20, 0.1, ", but only 20.0 ms inside the webhook: 702 ms went by after its answer (network, "),
        (20, 0.5, ", but only 20.0 ms inside the webhook: the rest went by on the way there and back "),
        (None, 0.5, "; its own spans are not here, so whether it or the way to it is slow cannot be known."),
    ],
)
@pytest.mark.parametrize("kind", ["mutating", "validating"])
def test_a_slow_webhook(kind: str, own: float | None, late: float, words: str) -> None:
    scene = Scene().begin("Create")
    scene.hook(kind, "injector", 100, 800, own, late=late)
    found = scene.verdict()
    assert causes(found) == ["webhook slow"]
    assert f"{kind.capitalize()} webhook injector took 800 ms (80 %){words}" in found.text


def test_a_webhook_goes_by_its_own_name_where_its_configuration_has_another() -> None:
    scene = Scene().begin("Create")
    values = {"webhook": "validate.kyverno.svc-fail", "configuration": "kyverno-resource-validating-webhook-cfg"}
    hook = scene.span("Call validating webhook", parent=scene.verb, ms=900, values=values)
    scene.span("HTTP POST", CLIENT, hook, ms=900)
    assert "Validating webhook validate.kyverno.svc-fail took 900 ms" in scene.verdict().text


def test_webhooks_that_are_only_slow_together() -> None:
    scene = Scene(ms=1000).begin("Create")
    for number in range(8):
        scene.hook("mutating", f"hook-{number}", 100 * number, 90 + number, 85)
    found = scene.verdict()
    assert causes(found) == ["webhooks in sequence"]
    assert found.sentences[0] == (
        "8 webhooks, one after another, took 748 ms (75 %) together: mutating webhook hook-5 95.0 ms, mutating "
        "webhook hook-6 96.0 ms, mutating webhook hook-7 97.0 ms, 5 more the rest."
    )


def test_a_webhook_that_is_called_again_and_again() -> None:
    scene = Scene("Delete", ms=1000, code=200).begin("Delete")
    for number in range(9):
        scene.hook("validating", "policy", 100 * number, 90, 85)
    found = scene.verdict()
    assert found.sentences[0] == (
        "9 calls of webhooks, one after another, took 810 ms (81 %) together: validating webhook policy 810 ms "
        "in 9 calls."
    )


def test_thousands_of_calls_are_not_all_looked_into() -> None:
    scene = Scene("Delete", ms=1000, code=200).begin("Delete")
    for number in range(100):
        scene.hook("validating", "policy", 10 * number, 9.5 if number == 7 else 9, 8)
    assert scene.verdict().sentences[0] == (
        "100 calls of webhooks, one after another, took 900 ms (90 %) together: the longest, of validating webhook "
        "policy, 9.50 ms."
    )


def test_a_webhook_that_fails_again_and_again_is_told_once() -> None:
    scene = Scene("Delete", ms=1000, code=200).begin("Delete")
    for number in range(70):
        scene.hook("validating", "policy", 10 * number, 10, 8)
    for number in range(3):
        scene.hook("validating", "other", 700 + 100 * number, 100, **LATE)
    found = scene.verdict()
    (timeout,) = [finding for finding in found.findings if finding.cause == "webhook timeout"]
    assert timeout.text == (
        "Validating webhook other did not answer within its 10 s timeout; failurePolicy Ignore let the request "
        "through. In all 3 of its calls failed so."
    )
    assert timeout.ns == 300_000_000


def test_two_slow_ones_have_a_sentence_each() -> None:
    scene = Scene().begin("Create")
    scene.hook("mutating", "injector", 0, 400, 390)
    scene.hook("validating", "policy", 400, 500, 490)
    scene.etcd(950, 20, (5, 10))
    assert scene.verdict().sentences == (
        "Validating webhook policy took 500 ms (50 %), all of it inside the webhook itself.",
        "Mutating webhook injector took 400 ms (40 %), all of it inside the webhook itself.",
        "etcd took 20.0 ms.",
    )


def test_a_webhook_that_denies() -> None:
    scene = Scene(code=403).begin("Create")
    scene.fail('admission webhook "policy.example.com" denied the request: no.')
    scene.hook("validating", "policy", 100, 50, 40)
    found = scene.verdict()
    assert causes(found) == ["webhook denied"]
    assert found.sentences[0] == "Validating webhook policy denied the request after 50.0 ms (5 %): no."


def test_a_denial_that_only_the_webhook_itself_tells() -> None:
    scene = Scene(code=403).begin("Create")
    scene.hook("mutating", "injector", 100, 50, 40)
    scene.spans[-1][3].status.code = 2
    scene.spans[-1][3].status.message = "not here"
    found = scene.verdict()
    assert (
        found.sentences[0]
        == "Mutating webhook injector seems to have denied the request after 50.0 ms (5 %): not here."
    )


def test_conversion() -> None:
    scene = Scene("Get", code=200, target="/apis/example.com/v2/widgets/a").begin("Get")
    scene.verb = scene.span("cacher.Get", parent=scene.verb, ms=900)
    scene.etcd(1, 10, (2, 5))
    found = scene.verdict()
    assert causes(found) == ["conversion suspected"]
    assert found.sentences[0] == (
        "889 ms (89 %) went by in the cache of example.com/v2 without a span to explain it: most likely a conversion "
        "webhook, which is not traced there."
    )
    built_in = Scene("Get", code=200, target="/apis/apps/v1/deployments/a").begin("Get")
    built_in.verb = built_in.span("cacher.Get", parent=built_in.verb, ms=900)
    built_in.etcd(1, 10, (2, 5))
    assert causes(built_in.verdict()) == ["slow"]
    traced = Scene("Get", code=200).begin("Get")
    values = {"custom-resource-definition": "widgets.example.com"}
    hook = traced.span("Call conversion webhook", parent=traced.verb, ms=900, values=values)
    traced.span("HTTP POST", CLIENT, hook, ms=900)
    assert causes(traced.verdict()) == ["conversion webhook slow"]
    assert "Conversion webhook widgets.example.com took 900 ms (90 %)" in traced.verdict().text


def test_until_1_25_a_webhook_is_known_by_its_address_only() -> None:
    for code, status, cause, words in (
        (201, 0, "webhook slow", "Webhook at https://10.0.0.1:9443/mutate took 800 ms (80 %)"),
        (500, 2, "webhook timeout", "Webhook at https://10.0.0.1:9443/mutate did not answer within its 5 s "),
    ):
        rec = Recorder()
        values = {"http.method": "POST", "http.target": "/api/v1/namespaces/a/pods", "http.status_code": code}
        server = rec.span("KubernetesAPI", SERVER, scope=HTTP, ms=1000, values=values)
        rec.span(
            "POST", CLIENT, server, scope=HTTP, at=10, ms=800, status=status,
            message="context deadline exceeded" if status else "",
            values={"http.url": "https://10.0.0.1:9443/mutate?timeout=5s"},
        )  # fmt: skip
        found = verdict_of(rec)
        assert causes(found) == [cause]
        assert words in found.text
        assert found.phrase.startswith("webhook 10.0.0.1:9443")
