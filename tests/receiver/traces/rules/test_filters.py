"""Authentication, priority and fairness, authorization: slow or refusing."""

from __future__ import annotations

import pytest

from tests.receiver.traces import shapes
from tests.receiver.traces.scenes import Scene, causes, verdict_of
from tests.receiver.traces.shapes import FILTER, HTTP, SERVER, Recorder


def test_waiting_in_line() -> None:
    found = Scene().begin("Create", at=801, authorization=800).verdict()
    assert causes(found) == ["queued"]
    assert found.sentences[0] == (
        "The request waited 800 ms (80 %) in a queue of priority and fairness: others of its priority level had all "
        "the seats."
    )


def test_a_queue_that_is_full() -> None:
    assert Scene(code=429).verdict().sentences[0] == (
        "Priority and fairness refused the request with 429 after 1.00 s in its queue: too many others of its priority "
        "level."
    )


def test_an_eviction_that_has_to_wait_is_not_refused_by_priority_and_fairness() -> None:
    scene = Scene(code=429, ms=20, target="/api/v1/namespaces/a/pods/b/eviction").begin("Create", ms=20)
    scene.fail("Cannot evict pod as it would violate the pod's disruption budget.", at=10)
    found = scene.verdict()
    assert found.text == (
        "The request was refused with 429: Cannot evict pod as it would violate the pod's disruption budget."
    )


def test_a_slow_authorization_is_its_webhook_which_is_not_traced() -> None:
    found = Scene().begin("Create", at=800).verdict()
    assert causes(found) == ["authorization slow"]
    assert found.text == (
        "Authorization took 800 ms (80 %): most likely an authorization webhook, which is not traced."
    )


@pytest.mark.parametrize(
    ("verb", "target", "wait", "cause"),
    [
        ("Create", "/apis/toys.example/v1/namespaces/a/balls", 2_006, "custom resource new"),
        ("Create", "/apis/toys.example/v1/namespaces/a/balls", 1_990, "authorization slow"),
        ("Create", "/apis/toys.example/v1/namespaces/a/balls", 3_100, "authorization slow"),
        ("Update", "/apis/toys.example/v1/namespaces/a/balls/b", 2_006, "authorization slow"),
        ("Create", "/apis/apps/v1/namespaces/a/deployments", 2_006, "authorization slow"),
        ("Create", shapes.PODS, 2_006, "authorization slow"),
    ],
)
def test_a_create_of_a_custom_resource_that_was_just_defined_waits_for_2_s(
    verb: str, target: str, wait: float, cause: str
) -> None:
    found = Scene(verb, ms=wait + 10, target=target).begin(verb, at=wait, ms=wait + 10).verdict()
    assert causes(found) == [cause]
    if cause == "custom resource new":
        assert found.text == (
            "It waited 2.01 s (100 %) before it was handled: most likely because its custom resource was defined a "
            "moment ago, when the API server lets every create wait for 2 s; or authorization was slow."
        )


def test_a_slow_authentication() -> None:
    late = Scene(ms=100).begin("Create", ms=100).verdict(authentication=2_000_000_000)
    assert causes(late) == ["authentication slow"]
    assert late.sentences[0] == (
        "Authentication took 2.00 s, before the request itself began: most likely a token webhook, which is not traced."
    )
    rec = Recorder()  # of a privileged caller: the same in one trace
    above = rec.span("authentication", scope=FILTER, ms=2100)
    rec.span("GET x", SERVER, above, scope=HTTP, at=2000, ms=100, values={"http.response.status_code": 200})
    assert "Authentication took 2.00 s, before the request itself began" in verdict_of(rec).text
    old = Recorder()  # until 1.32 it is inside the request
    server = old.span("KubernetesAPI", SERVER, scope=HTTP, ms=1000, values={"http.status_code": 200})
    ended = old.span("authentication", parent=server, scope=FILTER, at=1, ms=800)
    old.span("Get", parent=ended, at=805, ms=100)
    found = verdict_of(old)
    assert causes(found) == ["authentication slow"]
    assert "Authentication took 800 ms (80 %): most likely" in found.text


@pytest.mark.parametrize("release", ["1.26", "1.33"])
def test_before_1_34_it_cannot_be_known_which_filter_took_it(release: str) -> None:
    rec = Recorder()
    server = rec.span("GET x", SERVER, scope=HTTP, ms=1000 if release == "1.26" else 0.2)
    above = server
    if release == "1.26":
        above = rec.span("authentication", parent=server, scope=FILTER, at=0.5, ms=0.5)
    rec.span("Get", parent=above, at=901, ms=99)
    found = verdict_of(rec)
    assert causes(found) == ["filters slow"]
    assert found.sentences[0].endswith(
        "(90 %) went by before the request was handled: priority and fairness or authorization, which have no spans "
        "before 1.34, so which of them cannot be known."
    )


def test_a_caller_who_may_not() -> None:
    for target, act in (
        ("/apis/apps/v1/namespaces/team-a/deployments/web/status", "get deployments/status.apps in team-a"),
        ("/api/v1/nodes", "list nodes"),
        ("/livez", "get /livez"),
    ):
        scene = Scene("Get", code=403, ms=1, target=target)
        scene.span("authorization", parent=scene.queue, scope=FILTER, ms=0.5)
        found = scene.verdict()
        assert causes(found) == ["forbidden"]
        assert found.text == (
            f"Authorization refused the request with 403: its user may not {act}. The audit log tells who."
        )


def test_a_caller_who_may_not_be_somebody_else() -> None:
    rec = Recorder()
    server = rec.span("GET x", SERVER, scope=HTTP, ms=1, values={"http.response.status_code": 403})
    rec.span("audit", parent=server, scope=FILTER, ms=1)
    rec.span("impersonation", parent=rec.span("audit", parent=server, scope=FILTER), scope=FILTER, ms=0.5)
    assert causes(verdict_of(rec)) == ["impersonation refused"]


def test_a_caller_whom_nobody_knows() -> None:
    shapes.unauthenticated_1_26(rec := Recorder())
    found = verdict_of(rec)
    assert causes(found) == ["unauthenticated"]
    shapes.unauthenticated_1_33(rec := Recorder())
    assert "or that was refused with 401" in verdict_of(rec).text


def test_until_1_25_nothing_tells_who_refused() -> None:
    rec = Recorder()
    values = {"http.method": "GET", "http.target": "/api/v1/nodes", "http.status_code": 403}
    rec.span("KubernetesAPI", SERVER, scope=HTTP, ms=1, values=values)
    assert causes(verdict_of(rec)) == []


def test_a_refusal_without_spans_of_filters() -> None:
    rec = Recorder()
    values = {"http.request.method": "GET", "http.target": "/api/v1/pods", "http.response.status_code": 429}
    rec.span("GET x", SERVER, scope=HTTP, ms=1, values=values)
    found = verdict_of(rec)
    assert causes(found) == ["too many requests"]
    assert found.text.endswith("filters have no spans here, so which cannot be known.")
