"""The few words about a row: what failed, else what took most of the time, and what a verdict knows better."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.traces.listing import Row
from receiver.traces.model import Request
from receiver.traces.phases import PHASES, HookTime, Phase, Phases
from receiver.traces.verdict import Finding, Verdict
from tests.tui.test_documents import summary
from tui.wording import Phrase, phrase, told, verdict_mark, worth_judging

MS = 1_000_000


def request(**fields: Any) -> Request:
    values: dict[str, Any] = {
        "verb": "create", "group": "", "version": "v1", "resource": "pods", "subresource": "", "namespace": "default",
        "name": "web", "user_agent": "kubectl", "code": 201, "audit_id": "",
    }  # fmt: skip
    return Request(**{**values, **fields})


def row(
    times: dict[Phase, float],
    hooks: tuple[tuple[Phase, str, float], ...] = (),
    *,
    waited: float = 0,
    of: Request | None = None,
    **fields: Any,
) -> Row:
    """A row with these times in ms."""
    ns = [0] * PHASES
    for phase, ms in times.items():
        ns[phase] = round(ms * MS)
    called = tuple(HookTime(f"{at}", kind, name, round(ms * MS)) for at, (kind, name, ms) in enumerate(hooks))
    for hook in called:
        ns[hook.phase] += hook.ns
    names = tuple(dict.fromkeys(name for _, name, _ in hooks))
    values: dict[str, Any] = {"errors": 0, "webhooks": names, "duration_ns": sum(ns), **fields}
    return Row(summary(request=of or request(), **values), Phases(sum(ns), tuple(ns), called), round(waited * MS))


INJECTOR, POLICY = "label-injector.example.com", "name-policy.example.com"
SLOW = "context deadline exceeded"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (row({Phase.ETCD_SERVER: 2, Phase.ETCD_GAP: 2, Phase.OTHER: 3}), Phrase("etcd write")),
        (row({Phase.ETCD_CALL: 4, Phase.OTHER: 3}, of=request(verb="list", code=200)), Phrase("etcd read")),
        (row({Phase.CACHE: 4, Phase.OTHER: 3}, of=request(verb="get", code=200)), Phrase("cache")),
        (row({Phase.OTHER: 3}), Phrase("apiserver")),
        (row({Phase.ETCD_CALL: 9}, ((Phase.MUTATING, INJECTOR, 999),)), Phrase("webhook label-injector", "suspicious")),
        (row({Phase.ETCD_GAP: 2620}, ((Phase.MUTATING, INJECTOR, 9),)), Phrase("etcd write", "suspicious")),
        (row({}, ((Phase.MUTATING, INJECTOR, 30), (Phase.VALIDATING, POLICY, 30))), Phrase("2 webhooks")),
        (row({}, ((Phase.MUTATING, INJECTOR, 30), (Phase.MUTATING, INJECTOR, 9))), Phrase("webhook label-injector")),
        (row({}, ((Phase.WEBHOOK, "", 30),)), Phrase("webhook")),
        (row({Phase.QUEUE: 3400, Phase.OTHER: 3}), Phrase("queued", "suspicious")),
        (row({Phase.OTHER: 3}, waited=2_000), Phrase("authentication 2.00 s", "suspicious")),
        # what failed
        (
            row({}, ((Phase.VALIDATING, POLICY, 7),), of=request(code=500), failure="dial tcp: connection refused",
                failed_webhook=POLICY, errors=1),
            Phrase("webhook name-policy down", "failed"),
        ),
        (
            row({}, ((Phase.MUTATING, INJECTOR, 1500), (Phase.VALIDATING, POLICY, 1000)), failure=SLOW,
                failed_webhook=POLICY, errors=1),
            Phrase("webhook label-injector", "suspicious"),
        ),
        (
            row({Phase.OTHER: 9}, ((Phase.VALIDATING, POLICY, 7),), failure=SLOW, failed_webhook=POLICY, errors=1),
            Phrase("webhook name-policy timeout", "suspicious"),
        ),
        (row({}, ((Phase.MUTATING, INJECTOR, 9),), of=request(code=403)), Phrase("denied by label-injector", "failed")),
        (row({Phase.AUTHORIZATION: 1}, of=request(code=403)), Phrase("forbidden")),
        (row({Phase.ETCD_CALL: 1}, of=request(code=404)), Phrase("not found")),
        (row({Phase.ETCD_CALL: 800}, of=request(code=404)), Phrase("etcd write", "suspicious")),
        (row({Phase.ETCD_CALL: 800}, of=request(code=503)), Phrase("service unavailable", "failed")),
        (row({Phase.ETCD_CALL: 8}, errors=2), Phrase("2 failed spans", "suspicious")),
        (
            row({Phase.OTHER: 1}, of=request(code=503, group="metrics.example.com")),
            Phrase("aggregated API down?", "failed"),
        ),
        # webhooks of a cluster in good health
        (row({}, ((Phase.MUTATING, INJECTOR, 110), (Phase.VALIDATING, POLICY, 130))), Phrase("2 webhooks")),
        (row({}, ((Phase.MUTATING, INJECTOR, 120), (Phase.VALIDATING, POLICY, 130))),
         Phrase("2 webhooks", "suspicious")),
        # what was asked to last is not slow
        (row({Phase.OTHER: 90_000}, of=request(verb="watch", code=200)), Phrase()),
        (row({Phase.OTHER: 90_000}, of=request(verb="create", subresource="exec", code=101)), Phrase()),
        # without times, or without a request
        (Row(summary(request=request(), errors=0)), Phrase()),
        (Row(summary(request=None, errors=1)), Phrase("1 failed span", "failed")),
        (Row(summary(request=None, errors=0)), Phrase()),
    ],
)  # fmt: skip
def test_phrases(given: Row, expected: Phrase) -> None:
    assert phrase(given) == expected


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (SLOW, "timeout"),
        ("net/http: request canceled (Client.Timeout exceeded while awaiting headers)", "timeout"),
        ("context canceled", "given up on"),
        ("tls: failed to verify certificate: x509: unknown authority", "untrusted"),
        ("HTTP 500", "fails"),
        ("dial tcp 127.0.0.1:9: connect: connection refused", "down"),
    ],
)
def test_what_is_wrong_with_a_webhook(said: str, what: str) -> None:
    found = row({}, ((Phase.VALIDATING, POLICY, 7),), of=request(code=500), failure=said, failed_webhook=POLICY)
    assert phrase(found).text == f"webhook name-policy {what}"


@given(st.lists(st.integers(0, 10**10), min_size=PHASES, max_size=PHASES), st.sampled_from((200, 201)))
def test_the_phrase_follows_the_largest_part(ns: list[int], code: int) -> None:
    found = row({phase: ns[phase] / MS for phase in Phase}, of=request(code=code))
    assert found.phases is not None
    text = phrase(found).text
    etcd = found.phases.group("etcd")
    if etcd > sum(ns) - etcd:
        assert text == "etcd write"
    elif text == "etcd write":
        assert all(etcd >= found.phases.ns[phase] for phase in Phase)


def test_what_is_worth_a_verdict() -> None:
    assert not worth_judging(row({Phase.OTHER: 20}))
    assert worth_judging(row({Phase.OTHER: 100}))
    assert worth_judging(row({Phase.OTHER: 1}, waited=100))
    assert worth_judging(row({Phase.OTHER: 1}, errors=1))
    assert worth_judging(row({Phase.OTHER: 1}, of=request(code=404)))
    assert not worth_judging(row({Phase.OTHER: 90_000}, of=request(verb="watch", code=200)))
    assert worth_judging(row({Phase.OTHER: 90_000}, of=request(verb="watch", code=403)))
    assert not worth_judging(Row(summary(request=None, errors=1, duration_ns=10**12)))


def test_what_a_verdict_tells_about_a_row() -> None:
    timeout = Finding("webhook timeout", "It did not answer.", "webhook name-policy timeout", 1_000, True)
    slow = Finding("webhook slow", "It took long.", "webhook label-injector", 1_500)
    denied = Finding("webhook denied", "It denied.", "denied by label-injector", 0, True)
    refused = Finding("body refused", "It was refused.", "body refused", 0, True)
    well, wrong = row({Phase.OTHER: 3}, errors=1).summary, row({Phase.OTHER: 3}, of=request(code=403)).summary
    broken = row({Phase.OTHER: 3}, of=request(code=500)).summary
    assert not told(well, Verdict(("Nothing remarkable.",))).sentence
    found = told(well, Verdict((slow.text, timeout.text), (slow, timeout)))
    assert (found.phrase, found.sentence) == (Phrase("webhook label-injector", "suspicious"), "It took long.")
    assert told(broken, Verdict((timeout.text,), (timeout, slow))).phrase == Phrase(timeout.phrase, "failed")
    assert told(wrong, Verdict((denied.text,), (denied, slow))).phrase == Phrase(denied.phrase, "failed")
    assert verdict_mark(wrong) == "suspicious"
    assert told(wrong, Verdict((refused.text,), (refused,))).phrase == Phrase(refused.phrase, "suspicious")
