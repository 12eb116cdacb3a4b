"""Every span that Kubernetes sends has two lines of its own; whatever else comes is said to be unknown."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.store.index import Index
from receiver.traces.explain import FILTERS, LONGEST, Explanation, explain
from receiver.traces.model import Component, Kind, Node, Span
from receiver.traces.reader import load
from receiver.traces.tree import walk
from tests.receiver.traces.conftest import Recordings
from tests.receiver.traces.shapes import T0, Recorder
from tests.receiver.traces.test_reader import RELEASES

APISERVER, ETCD, KUBELET, RUNTIME = Component.APISERVER, Component.ETCD, Component.KUBELET, Component.RUNTIME
INTERNAL, SERVER, CLIENT = Kind.INTERNAL, Kind.SERVER, Kind.CLIENT

# every name of docs/facts.md 3.2, 4, 5, 12
NAMES: dict[tuple[Component, Kind], str] = {
    (APISERVER, SERVER): "KubernetesAPI|GET|POST|GET /api/v1/namespaces/{:namespace}/pods/{:name}",
    (APISERVER, INTERNAL): "authentication|audit|impersonation|constrainedimpersonation|priorityandfairness"
    "|authorization|Get|List|Create|Update|Patch|Delete|WatchList|WatchServer.HandleHTTP|SerializeObject|cacher list"
    "|cacher.GetList|cacher.Get|cacher.Watch|cacher.getKeys|Get etcd3|Create etcd3|GuaranteedUpdate etcd3"
    "|List(recursive=true) etcd3|List(recursive=false) etcd3|Call mutating webhook|Call validating webhook"
    "|Call conversion webhook|Proxy via http-connect protocol over uds|TransformToStorage with envelopeTransformer"
    "|TransformFromStorage with envelopeTransformer",
    (APISERVER, CLIENT): "etcdserverpb.KV/Range|etcdserverpb.KV/Txn|/etcdserverpb.KV/Put|etcdserverpb.KV/Compact"
    "|etcdserverpb.Lease/LeaseGrant|etcdserverpb.Watch/Watch|etcdserverpb.Maintenance/Status|POST|HTTP POST|HTTP GET",
    (ETCD, SERVER): "etcdserverpb.KV/Range|etcdserverpb.KV/Put|etcdserverpb.KV/DeleteRange|etcdserverpb.KV/Txn"
    "|etcdserverpb.KV/Compact|etcdserverpb.Lease/LeaseGrant|etcdserverpb.Lease/LeaseRevoke"
    "|etcdserverpb.Lease/LeaseKeepAlive|etcdserverpb.Lease/LeaseTimeToLive|etcdserverpb.Lease/LeaseLeases"
    "|etcdserverpb.Watch/Watch|etcdserverpb.Maintenance/Status|etcdserverpb.Maintenance/Snapshot"
    "|etcdserverpb.Cluster/MemberList|etcdserverpb.Auth/Authenticate|grpc.health.v1.Health/Check",
    (ETCD, INTERNAL): "range|range_streaming|put|delete_range|txn|compact|lease_grant|lease_revoke|lease_renew|watch",
    (KUBELET, INTERNAL): "syncPod|syncTerminatingPod|syncTerminatedPod|Containers/GarbageCollect|Images/GarbageCollect",
    (KUBELET, SERVER): "/pods|/containerLogs/{podNamespace}/{podID}/{containerName}",
    (KUBELET, CLIENT): "HTTP GET|HTTP PATCH|runtime.v1.RuntimeService/RunPodSandbox"
    "|runtime.v1.RuntimeService/CreateContainer|runtime.v1.RuntimeService/StartContainer"
    "|runtime.v1.ImageService/PullImage|runtime.v1.RuntimeService/SomethingNew",
    (RUNTIME, SERVER): "runtime.v1.RuntimeService/RunPodSandbox|runtime.v1.RuntimeService/ListContainers"
    "|runtime.v1alpha2.RuntimeService/Version|containerd.services.containers.v1.Containers/Get"
    "|containerd.services.events.ttrpc.v1.Events/Forward",
    (RUNTIME, CLIENT): "containerd.task.v3.Task/Create|containerd.task.v2.Task/Shutdown|containerd.task.v3.Task/New",
    (RUNTIME, INTERNAL): "client.NewContainer|client.LoadContainer|container.NewTask|container.Delete|task.Start"
    "|task.Kill|task.Wait|task.Delete|metadata.containers.Create|metadata.sandbox.Update|pull.Pull"
    "|pkg.unpack.unpacker.Unpack|remotes.docker.resolver.HTTPRequest"
    "|github.com/cri-o/cri-o/server.(*Server).RunPodSandbox",
}


def span(name: str, kind: Kind, component: Component, service: str = "", instance: str = "a") -> Span:
    return Span("0" * 32, "1" * 16, "", name, kind, 1, 2, 0, service, instance, component, "local", 1, 0)


def test_every_name_of_the_fact_sheet_is_explained() -> None:
    told: dict[str, str] = {}
    for (component, kind), names in NAMES.items():
        for name in names.split("|"):
            said = explain(span(name, kind, component))
            assert said.known, name
            for line in (said.what, said.origin):
                assert len(line) <= LONGEST, (name, len(line), line)
                assert line.endswith("."), name
            assert re.search(r"\d\.\d|CRI-O|k8s.io/apiserver", said.origin), f"{name}: which releases?"
            told[said.what] = name
    assert len(told) >= 80, "words of their own"
    assert len(FILTERS.what) <= LONGEST


@pytest.mark.parametrize("component", [APISERVER, ETCD, KUBELET, RUNTIME, Component.OTHER])
@pytest.mark.parametrize("kind", list(Kind))
def test_an_unknown_span_says_who_sent_it(component: Component, kind: Kind) -> None:
    if (component, kind) in {(APISERVER, SERVER), (KUBELET, SERVER)}:
        return  # whatever their names, these are requests
    said = explain(span("reticulate splines", kind, component, "sim"), scope="city")
    assert not said.known
    assert said.what == "Not a span of Kubernetes that this program knows: service sim, scope city sent it."
    assert "service without a name" in explain(span("x", kind, Component.OTHER)).what


def test_the_parent_tells_what_a_call_is() -> None:
    hook = span("Call validating webhook", INTERNAL, APISERVER)
    handler = span("priorityandfairness", INTERNAL, APISERVER)
    call = span("HTTP GET", CLIENT, APISERVER)
    post = span("HTTP POST", CLIENT, APISERVER)
    assert "call to the webhook" in explain(post, hook).what
    assert (
        "call to the webhook" in explain(span("POST", CLIENT, APISERVER), span("KubernetesAPI", SERVER, APISERVER)).what
    )
    assert "aggregated API server" in explain(call, handler).what
    assert "loopback" in explain(call).what
    assert "loopback" in explain(span("GET", SERVER, APISERVER), call).what
    assert "inside the aggregated API server" in explain(span("GET", SERVER, APISERVER, instance="b"), call).what
    assert explain(span("GET", SERVER, APISERVER), handler).what.startswith("A request for something that is no object")


def test_the_two_sides_of_a_call_are_told_apart() -> None:
    for name, client, server in (
        ("etcdserverpb.KV/Txn", APISERVER, ETCD),
        ("runtime.v1.RuntimeService/StartContainer", KUBELET, RUNTIME),
    ):
        here, there = explain(span(name, CLIENT, client)), explain(span(name, SERVER, server))
        assert here.what.partition(" Seen by ")[0] == there.what.partition(" Seen by ")[0]
        assert here.what != there.what
        assert here.origin != there.origin
    assert explain(span("etcdserverpb.KV/Txn", SERVER, ETCD)).what.startswith("The write in etcd: ")
    crio = explain(span("runtime.v1.ImageService/PullImage", SERVER, RUNTIME, "crio"))
    assert crio.origin.startswith("CRI-O")


@given(st.text(max_size=500), st.sampled_from(list(Kind)), st.sampled_from(list(Component)), st.text(max_size=500))
def test_anything_is_answered_briefly(name: str, kind: Kind, component: Component, other: str) -> None:
    said = explain(span(name, kind, component, other), span(other, kind, component), scope=other)
    assert isinstance(said, Explanation)
    assert len(said.what) <= LONGEST + 120
    assert len(said.origin) <= LONGEST + 60


def explained(index: Index) -> dict[tuple[str, str, str], Explanation]:
    """By (service, kind, name) of all spans of an index; each name once, with one of its parents."""
    found: dict[tuple[str, str, str], Explanation] = {}

    def look(node: Node, above: Node | None) -> None:
        key = (node.span.service, node.span.kind.name, node.span.name)
        if key not in found:
            found[key] = explain(node.span, above.span if above is not None else None)

    for slot in range(index.traces):
        trace = load(index, index.trace_id(slot), T0, live=False)
        assert trace is not None
        parents = {id(child): node for node in walk(trace) for child in node.children}
        for node in walk(trace):
            look(node, parents.get(id(node)))
    return found


@pytest.mark.parametrize("release", RELEASES)
def test_every_release(release: str) -> None:
    rec = Recorder()
    RELEASES[release](rec)
    for key, said in explained(rec.index()).items():
        assert said.known, key
        if key[0] == "injector":
            assert "webhook's own" in said.what, key


@pytest.mark.parametrize(
    "name",
    [
        "create-pod-webhooks.otlp.jsonl",
        *(f"{one}.otlp.jsonl.gz" for one in ("cluster-rate-full", "kubeadm-node", "kubelet-and-containerd")),
    ],
)
def test_every_span_of_a_real_cluster_is_explained(recorded: Recordings, name: str) -> None:
    found = explained(recorded(name).index)
    assert {key for key, said in found.items() if not said.known} == set()
    own = {key for key, said in found.items() if "webhook's own" in said.what}
    assert own == {key for key in found if key[0] == "label-injector-webhook"}
