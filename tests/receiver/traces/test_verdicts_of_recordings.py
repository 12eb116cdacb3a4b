"""Every cause that the recordings of real clusters are known to hold is found, and nobody else is accused.

What happened is known of each recording; who is named here, and with which share, was read off the spans.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest

from receiver.traces.model import Oddity, Trace
from receiver.traces.rules.case import NOTABLE_NS
from receiver.traces.semantics import long_running
from receiver.traces.tree import walk
from receiver.traces.verdict import Verdict
from tests.receiver.traces.conftest import RECORDINGS, Recorded, Recordings

Judged = list[tuple[Trace, Verdict]]


def of_requests(recording: Recorded) -> Judged:
    return [(trace, verdict) for trace, verdict in recording.judged() if trace.request is not None]


def about(judged: Judged, verb: str, what: str, code: int | None = None) -> list[Verdict]:
    """The verdicts on requests of that verb whose path ends with `what`."""
    found = []
    for trace, verdict in judged:
        request = trace.request
        assert request is not None
        if request.verb == verb and request.path.endswith(what) and code in (None, request.code):
            found.append(verdict)
    return found


def causes(verdict: Verdict) -> list[str]:
    return [finding.cause for finding in verdict.findings]


def test_list_nodes(recorded: Recordings) -> None:
    ((_, verdict),) = of_requests(recorded("list-nodes"))
    assert causes(verdict) == []
    assert verdict.text == (
        "Nothing remarkable: 3.82 ms, of which the way to etcd 1.06 ms (28 %) and the watch cache 0.86 ms (23 %)."
    )


def test_create_pod_webhooks(recorded: Recordings) -> None:
    together, plain, denied, slow = [verdict for _, verdict in of_requests(recorded("create-pod-webhooks"))]
    assert together.text == (
        "Nothing remarkable: 144 ms, of which validating webhook name-policy 65.3 ms (45 %) and mutating webhook "
        "label-injector 55.7 ms (39 %)."
    )
    assert plain.text == (
        "Nothing remarkable: 83.3 ms, of which validating webhook name-policy 59.9 ms (72 %) and mutating webhook "
        "label-injector 10.1 ms (12 %)."
    )
    assert denied.text == (
        "Mutating webhook label-injector denied the request after 14.4 ms (90 %): name contains deny."
    )
    assert slow.text == (
        "Mutating webhook label-injector took 1.51 s (60 %), all of it inside the webhook itself. Validating webhook "
        "name-policy did not answer within its 1 s timeout (40 % of the request); failurePolicy Ignore let the request "
        "through. etcd took 12.1 ms."
    )


def test_forced_at_rate_zero(recorded: Recordings) -> None:
    judged = of_requests(recorded("forced-at-rate-zero"))
    assert len(judged) == 3
    for _, verdict in judged:
        assert causes(verdict) == []
        assert verdict.sentences[-1] == (
            "Its parent span is not here: most likely the caller's, who forced this trace by a traceparent."
        )


def test_incident(recorded: Recordings) -> None:
    judged = of_requests(recorded("incident"))
    (dead,) = about(judged, "create", "/services", 500)
    assert dead.text == (
        "Validating webhook dead-policy could not be reached (dial tcp 127.0.0.1:9555: connect: connection refused); "
        "failurePolicy Fail refused the request with 500."
    )
    (absent,) = about(judged, "list", "/apis/metrics.example.com/v1beta1/nodes")
    assert absent.text == (
        "The aggregated API metrics.example.com/v1beta1 is down: the request was answered with 503: its server is not "
        "there."
    )
    stalled = [verdict.sentences[0] for _, verdict in judged if "etcd stalled" in causes(verdict)]
    assert sorted(stalled) == [
        "etcd stalled: 2.63 s (99 %) went by before it took up Txn, which then took it 7.49 ms.",
        "etcd stalled: 2.99 s (100 %) went by before it took up Txn, which then took it 6.63 ms.",
    ]
    (denied,) = about(judged, "create", "/pods", 403)
    assert re.fullmatch(
        r"Mutating webhook label-injector denied the request after [\d.]+ ms \(\d+ %\): name contains deny\.",
        denied.text,
    )
    (slow,) = [verdict for verdict in about(judged, "create", "/pods", 201) if "webhook timeout" in causes(verdict)]
    assert causes(slow) == ["webhook slow", "webhook timeout"]
    assert slow.sentences[0].startswith("Mutating webhook label-injector took 1.5")
    assert slow.sentences[1].startswith("Validating webhook name-policy did not answer within its 1 s timeout")
    (refused,) = about(judged, "create", "/configmaps", 400)
    assert refused.text == (
        "A body of 3.0 MB was refused with 400: it is not what its content type says, after 14.4 ms (94 %) of reading "
        "it."
    )
    # 20 pods at once through webhooks with one thread: some 0.1 s each, as in good health
    burst = [verdict for verdict in about(judged, "create", "/pods", 201) if verdict is not slow]
    assert len(burst) >= 20
    assert not any(map(causes, burst))
    # custom resources with server-side apply: nothing to say
    applied = [
        verdict for trace, verdict in judged
        if trace.request is not None and trace.request.verb == "patch" and "example.com" in trace.request.group
    ]  # fmt: skip
    assert applied
    assert not any(map(causes, applied))


def test_the_stall_shows_in_what_the_api_server_did_meanwhile(recorded: Recordings) -> None:
    lone = [v for t, v in recorded("incident").judged() if t.request is None and "etcd stalled" in causes(v)]
    assert len(lone) == 2


def test_incident_2(recorded: Recordings) -> None:
    judged = of_requests(recorded("incident-2"))
    found = Counter(cause for _, verdict in judged for cause in causes(verdict))
    assert found == {
        "queued": 6,  # nine creates, three had seats at once
        "webhook slow": 9,
        "authorization slow": 4,
        "etcd far away": 1,
        "large list": 2,
        "slow client": 1,
        "webhook certificate": 1,
    }
    texts = [verdict.text for _, verdict in judged]
    for share, times in (("63 %", 3), ("73 %", 3)):
        queued = [text for text in texts if text.startswith("The request waited ") and share in text]
        assert len(queued) == times
        assert all("Validating webhook slow-chain-a took 1.2" in text for text in queued)
    for words in (
        "etcd is far away: Txn took 304 ms (100 %), of which 1.11 ms inside etcd itself; 151 ms went by on the way "
        "there and 151 ms on the way back.",
        "A large list: 703 objects, 6.1 MB from the watch cache; encoding and writing it took 72.6 ms (96 %).",
        "The client was slow to read an answer of 6.1 MB: 841 ms (95 %) of writing, after 42.0 ms of encoding. A large "
        "list: 703 objects, 6.1 MB from the watch cache.",
        "Validating webhook badcert-policy is not trusted (tls: failed to verify certificate: x509: certificate signed "
        "by unknown authority); failurePolicy Fail refused the request with 500.",
        "Authorization took 944 ms (100 %): most likely an authorization webhook, which is not traced.",
    ):
        assert words in texts


def test_cluster_rate_full(recorded: Recordings) -> None:
    judged = of_requests(recorded("cluster-rate-full"))
    forbidden = [(t.request.path, v.text) for t, v in judged if t.request and "forbidden" in causes(v)]
    assert sorted(forbidden) == [
        ("/api/v1/nodes", "Authorization refused the request with 403: its user may not list nodes. The audit log "
         "tells who. Its caller's traceparent was not honoured, only linked: trace aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1."),
        ("/api/v1/secrets", "Authorization refused the request with 403: its user may not list secrets. The audit log "
         "tells who."),
    ]  # fmt: skip
    honoured = [verdict for trace, verdict in judged if trace.headline and Oddity.ORPHAN in trace.headline.oddities]
    assert [verdict.sentences[-1].partition(":")[0] for verdict in honoured] == ["Its parent span is not here"]
    left = [verdict.text for verdict in about(judged, "create", "/pods", 504)]
    assert sorted(left) == [
        "The client gave up after 56.0 ms, while validating webhook name-policy was being called.",
        "The client gave up after 80.2 ms, while validating webhook name-policy was being called.",
    ]
    terminating = about(judged, "create", "/namespaces/team-a/configmaps", 403)
    assert len(terminating) == 2
    assert all("team-a because it is being terminated" in verdict.text for verdict in terminating)
    # one answer of etcd was late, and etcd is not blamed for it
    (late,) = [verdict for _, verdict in judged if "etcd answer late" in causes(verdict)]
    assert late.text.startswith("etcd answered Txn after 8.60 ms, but 259 ms (96 %) more went by until ")
    starting = [verdict for _, verdict in judged if "unhealthy" in causes(verdict)]
    assert len(starting) == 59


def test_kubeadm_node(recorded: Recordings) -> None:
    judged = list(recorded("kubeadm-node").judged())
    found = Counter(cause for _, verdict in judged for cause in causes(verdict))
    assert found == {"unhealthy": 46, "forbidden": 9, "admission slow": 3}  # an API server that starts
    watches = [
        v.text for t, v in judged if t.request is not None and t.request.verb == "watch" and t.request.code == 200
    ]
    assert watches
    assert all(text.startswith("A watch, open for ") for text in watches)
    lone = [v for t, v in judged if t.headline and t.headline.span.name == "authentication"]
    assert len(lone) >= 1_325
    assert all(v.text.startswith("The authentication of a request that has a trace of its own") for v in lone)


def test_kubelet_and_containerd(recorded: Recordings) -> None:
    judged = list(recorded("kubelet-and-containerd").judged())
    assert not any(causes(verdict) for _, verdict in judged)  # containers that are gone, mirror pods that exist
    started = [verdict.text for trace, verdict in judged if trace.spans == 34]
    assert [re.sub(r"[\d.]+ ms", "N ms", text) for text in started] == [
        f"syncPod of kube-system/kube-scheduler-cp-1 took N ms, of which RunPodSandbox N ms ({sandbox} %), "
        f"StartContainer N ms ({start} %) and CreateContainer N ms ({create} %)."
        for sandbox, start, create in ((43, 36, 9), (40, 39, 7))
    ]


# --- nobody else ----------------------------------------------------------------------------------
def unremarkable(trace: Trace) -> bool:
    """A request that went well, soon, and without a failed span of anybody."""
    request, head = trace.request, trace.headline
    assert request is not None
    assert head is not None
    well = request.code is not None and request.code < 400
    return well and head.span.duration < NOTABLE_NS and not any(node.span.status == 2 for node in walk(trace))


@pytest.mark.parametrize(
    ("name", "at_least"), [("cluster-rate-full", 4_700), ("kubeadm-node", 1_200), ("incident", 300)]
)
def test_no_request_in_good_health_is_accused(recorded: Recordings, name: str, at_least: int) -> None:
    judged = [(trace, verdict) for trace, verdict in of_requests(recorded(name)) if unremarkable(trace)]
    assert len(judged) >= at_least
    assert [verdict.text for _, verdict in judged if verdict.findings] == []


@pytest.mark.parametrize(("name", "requests", "most"), [("cluster-rate-full", 5_000, 15), ("kubeadm-node", 1_400, 2)])
def test_few_requests_that_went_well_are_accused(recorded: Recordings, name: str, requests: int, most: int) -> None:
    """Whatever time they took: answered below 400, and not asked to last."""
    well = [
        verdict for trace, verdict in of_requests(recorded(name))
        if trace.request is not None and (trace.request.code or 999) < 400 and not long_running(trace.request)
    ]  # fmt: skip
    assert len(well) >= requests
    assert sum(bool(verdict.findings) for verdict in well) <= most


def test_who_is_accused_took_the_time(recorded: Recordings) -> None:
    """The span that a finding about time points to lasted that long, measured without the critical path, and is what
    the text names."""
    looked_at = 0
    for name in RECORDINGS:
        recording = recorded(name)
        for trace, verdict in of_requests(recording):
            nodes = {node.span.span_id: node for node in walk(trace)}
            for finding in verdict.findings:
                if finding.cause not in ("webhook slow", "etcd far away", "etcd stalled", "authorization slow"):
                    continue
                span = nodes[finding.span_id].span
                own = nodes[finding.span_id].self_ns  # of a filter, around what it lets through
                lasted = own if finding.cause == "authorization slow" else span.duration
                assert lasted >= finding.ns >= 0.9 * lasted
                called = span.name.rpartition("/")[2]
                if finding.cause == "webhook slow":
                    body = recording.bodies.body(span)
                    assert body is not None
                    called = str(body.attributes["configuration"])
                assert called in finding.text.lower() or called in finding.text
                looked_at += 1
    assert looked_at >= 20


def test_what_is_said_is_short_and_whole(recorded: Recordings) -> None:
    """Over all traces of all recordings: one to three sentences, each with its full stop, none longer than two lines
    of a wide terminal, and no word of a program."""
    for name in RECORDINGS:
        for _, verdict in recorded(name).judged():
            assert 1 <= len(verdict.sentences) <= 3
            for sentence in verdict.sentences:
                assert len(sentence) <= 300
                assert sentence.endswith(".")
                assert "  " not in sentence
                assert not re.search(r"\bNone\b|\{|\}|<|\(\)|: \.|\.\.$| %\)\)", sentence.replace("{:name", "")), (
                    sentence
                )
