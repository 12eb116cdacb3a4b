"""Traces without an API request."""

from __future__ import annotations

import pytest

from tests.receiver.traces import shapes
from tests.receiver.traces.scenes import causes, verdict_of
from tests.receiver.traces.shapes import CLIENT, GRPC, HTTP, SERVER, Recorder

KUBELET = "k8s.io/kubernetes/pkg/kubelet"


def pod_start(rec: Recorder, failing: str = "") -> None:
    """The kubelet starts a pod; `failing` is the call that the runtime refuses."""
    values = {"k8s.pod.name": "web", "k8s.namespace.name": "default"}
    top = rec.span("syncPod", service="kubelet", scope=KUBELET, ms=1000, values=values)
    for at, ms, name in ((10, 100, "RunPodSandbox"), (150, 700, "PullImage"), (860, 20, "CreateContainer")):
        service = "ImageService" if name == "PullImage" else "RuntimeService"
        fails = {"status": 2, "message": "disk is full"} if name == failing else {}
        call = rec.span(
            f"runtime.v1.{service}/{name}", CLIENT, top, service="kubelet", scope=GRPC, at=at, ms=ms, **fails
        )
        rec.span(f"runtime.v1.{service}/{name}", SERVER, call, service="containerd", scope=GRPC, at=at + 1, ms=ms - 2)


def test_the_start_of_a_pod() -> None:
    pod_start(rec := Recorder())
    found = verdict_of(rec)
    assert causes(found) == []
    assert found.text == (
        "syncPod of default/web took 1.00 s, of which PullImage 700 ms (70 %) and RunPodSandbox 100 ms (10 %)."
    )


def test_a_runtime_that_fails() -> None:
    pod_start(rec := Recorder(), "CreateContainer")
    found = verdict_of(rec)
    assert causes(found) == ["call failed"]
    assert found.sentences[1] == "CreateContainer failed: disk is full."


def test_a_call_that_failed_without_a_word() -> None:
    rec = Recorder()
    top = rec.span("syncPod", service="kubelet", scope=KUBELET, ms=100)
    values = {"url.full": "https://10.0.0.1:6443/api/v1/namespaces/default/serviceaccounts/default/token?timeout=10s"}
    rec.span("HTTP POST", CLIENT, top, service="kubelet", scope=HTTP, at=5, ms=90, status=2, values=values)
    found = verdict_of(rec)
    assert causes(found) == ["call failed"]
    assert found.sentences[1] == (
        "HTTP POST to https://10.0.0.1:6443/api/v1/namespaces/default/serviceaccounts/default/token failed; its span "
        "does not say why."
    )


def test_a_container_that_is_gone_is_no_failure() -> None:
    rec = Recorder()
    rec.span(
        "runtime.v1.RuntimeService/ContainerStatus", CLIENT, service="kubelet", scope=GRPC, ms=3, status=2,
        message="not found", values={"rpc.grpc.status_code": 5},
    )  # fmt: skip
    found = verdict_of(rec)
    assert (causes(found), found.text) == ([], "ContainerStatus took 3.00 ms.")


@pytest.mark.parametrize(
    ("name", "kind", "service", "parent", "text"),
    [
        ("etcdserverpb.KV/Range", CLIENT, "apiserver", None,
         "The API server's own work with etcd, not a request's: Range took 3.00 ms."),
        ("etcdserverpb.KV/Range", SERVER, "etcd", b"\xaa" * 8,
         "etcd answered Range in 3.00 ms; the side that called is not in this trace."),
        ("etcdserverpb.Watch/Watch", SERVER, "etcd", b"\xaa" * 8,
         "A stream to etcd (Watch), open for 3.00 ms: it lasts as long as its client likes."),
        ("HTTP GET", CLIENT, "apiserver", None,
         "A call by the API server, HTTP GET, took 3.00 ms; the side called is not in this trace."),
        ("authentication", shapes.INTERNAL, "apiserver", None,
         "The authentication of a request that has a trace of its own, or that was refused with 401; since 1.34 its "
         "3.00 ms are those of the whole request."),
        ("priorityandfairness", shapes.INTERNAL, "apiserver", b"\xaa" * 8,
         "Part of a request whose own span is not here: priorityandfairness took 3.00 ms."),
        ("reconcile", shapes.INTERNAL, "operator", None, "reconcile took 3.00 ms."),
    ],
)  # fmt: skip
def test_what_a_lone_span_is(name: str, kind: int, service: str, parent: bytes | None, text: str) -> None:
    rec = Recorder()
    rec.span(name, kind, parent, service=service, scope=HTTP, ms=3)
    assert verdict_of(rec).text == text


def test_an_open_watch_says_why_its_request_is_not_here() -> None:
    shapes.watch_1_36(rec := Recorder())
    assert verdict_of(rec).sentences[0] == (
        "Part of a request whose own span is not here: WatchList of pods in default took 3.00 ms. A watch sends that "
        "when it closes."
    )


def test_a_stall_of_etcd_shows_in_the_api_servers_own_work_too() -> None:
    rec = Recorder()
    call = rec.span("etcdserverpb.KV/Range", CLIENT, scope=GRPC, ms=3000)
    rec.span("etcdserverpb.KV/Range", SERVER, call, service="etcd", scope=GRPC, at=2990, ms=5)
    assert causes(verdict_of(rec)) == ["etcd stalled"]
