"""From a trace to those that share something with it: each join finds them, and says how many beforehand."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from receiver.store.index import Index
from receiver.traces.filter.syntax import Condition, nodes
from receiver.traces.model import Request, Settled, TraceSummary
from receiver.traces.pivots import counted, pivots
from receiver.traces.query import Query, View, select
from receiver.traces.reader import summaries
from tests.receiver.traces.shapes import AGENT, AUDIT, CLIENT, CORE, HTTP, SERVER, T0, Recorder

ALL = View(Query(), None, False, False, "start", False)
PATH = "/apis/apps/v1/namespaces/shop/deployments/web"


def row(**fields: str) -> TraceSummary:
    request = Request(
        **{"verb": "get", "group": "apps", "version": "v1", "resource": "deployments", "subresource": "",
           "namespace": "shop", "name": "web", "user_agent": AGENT, "audit_id": AUDIT, **fields},
        code=200,
    )  # fmt: skip
    hooks = ("a.example.com", "b.example.com")
    return TraceSummary("0" * 32, 0, 1, 1, 0, (), Settled.SETTLED, 0, "local", "apiserver-a", "GET", request, hooks)


def request(rec: Recorder, trace: str, method: str, target: str, audit: str, agent: str = AGENT, **more: str) -> bytes:
    values = {"http.request.method": method, "http.target": target, "audit-id": audit, "user_agent.original": agent}
    return rec.span(f"{method} x", SERVER, trace=trace, scope=HTTP, ms=9, values=values, **more)


def cluster() -> Recorder:
    rec = Recorder()
    first = request(rec, "get", "GET", PATH, AUDIT)
    hook = {"webhook": "policy.example.com", "configuration": "policy"}
    rec.span("Call validating webhook", parent=first, trace="get", at=1, values=hook)
    request(rec, "patch", "PATCH", f"{PATH}/status", "91094b44-0000-49f0-9182-902c188ed283", "argocd-server/v3.1")
    request(rec, "pods", "GET", "/api/v1/namespaces/shop/pods", "other", instance="apiserver-b")
    # a watch that is still open: no SERVER span yet
    rec.span("WatchList", trace="open", scope=CORE, values={"verb": "WATCH", "audit-id": AUDIT, "resource": "pods"})
    # the request once more in an aggregated API server, in a trace that another request heads
    head = request(rec, "outer", "GET", "/apis/metrics.k8s.io/v1beta1/nodes", "outer-audit")
    call = rec.span("HTTP GET", CLIENT, head, trace="outer", scope=HTTP, at=1, ms=5)
    values = {"http.request.method": "GET", "http.target": "/apis/metrics.k8s.io/v1beta1/nodes", "audit-id": AUDIT}
    rec.span("GET y", SERVER, call, trace="outer", scope=HTTP, instance="metrics", at=2, ms=3, values=values)
    return rec


def offered(index: Index, trace_id: str, view: View = ALL) -> dict[str, tuple[int, int]]:
    slot = index.slot_of(trace_id)
    assert slot is not None
    found = counted(index, pivots(summaries(index, [slot], T0, live=False)[0]), view, T0)
    return {f"{one.pivot.what} {one.pivot.value}": (one.traces, one.shown) for one in found}


def test_each_join_counts_the_traces_that_share_it() -> None:
    rec = cluster()
    index = rec.index()
    assert offered(index, rec.trace_id("get")) == {
        "same object deployments shop/web": (2, 2),
        "same namespace shop": (3, 3),
        f"same user agent {AGENT}": (3, 3),
        f"same audit id {AUDIT}": (3, 3),
        "same instance apiserver-a": (4, 4),
        "same webhook policy.example.com": (1, 1),
    }
    assert offered(index, rec.trace_id("pods"))["same resource pods shop"] == (1, 1)
    errors = replace(ALL, errors_only=True)
    assert offered(index, rec.trace_id("get"), errors)["same namespace shop"] == (3, 0)


def test_an_audit_id_joins_every_trace_that_any_request_in_it_has() -> None:
    rec = cluster()
    index = rec.index()
    for text in (f"audit={AUDIT}", AUDIT, AUDIT[:13]):
        found = select(index, replace(ALL, query=Query.parse(text)), T0)
        held = {index.trace_id(slot) for slot in found.slots.tolist()}
        assert held == {rec.trace_id(name) for name in ("get", "open", "outer")}, text


def test_what_is_no_request_offers_its_instance_at_most() -> None:
    rec = Recorder()
    rec.span("syncPod", service="kubelet", instance="", scope="k8s.io/kubernetes/pkg/kubelet")
    rec.span("range", trace="etcd", service="etcd", instance="cp-1", scope="go.etcd.io/etcd")
    index = rec.index()
    assert offered(index, rec.trace_id()) == {}
    assert offered(index, rec.trace_id("etcd")) == {"same instance cp-1": (1, 1)}


def test_the_webhook_at_the_cursor_comes_first_and_keys_tell_them_apart() -> None:
    found = pivots(row(), "b.example.com")
    assert [one.value for one in found if one.what == "same webhook"] == ["b.example.com", "a.example.com"]
    assert len({one.key for one in found}) == len(found)
    listed = pivots(row(name="", group="", resource="pods"))
    assert (listed[0].what, listed[0].filter) == ("same resource", "resource=pods ns=shop")


names = st.text(min_size=1, max_size=30)


@given(names, names, names, names)
def test_any_name_is_found_again(resource: str, namespace: str, name: str, agent: str) -> None:
    """A filter that is offered is a filter, and its terms are what is shared."""
    offer = {one.key: one for one in pivots(row(resource=resource, namespace=namespace, name=name, user_agent=agent))}
    folded = [text.casefold() for text in (resource, namespace, name, agent)]
    both = [node for key in "ou" for node in nodes(Query.parse(offer[key].filter).root) if isinstance(node, Condition)]
    assert [(node.name, node.values) for node in both] == [
        ("group", ("apps",)),
        *((name, (text,)) for name, text in zip(("resource", "ns", "name", "ua"), folded, strict=True)),
    ]
