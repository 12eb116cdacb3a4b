"""What spans of every release mean."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from receiver.store.chunk import (
    APISERVER,
    ETCD,
    KUBELET,
    MAX_STRING,
    OTHER,
    ROLE_CALL,
    ROLE_SERVER,
    ROLE_VERB,
    ROLE_WEBHOOK,
    RUNTIME,
)
from receiver.traces.semantics import Facts, component_of, fact_role, merge_request, parse_target, read_facts
from tests.receiver.traces.shapes import CORE, FILTER, GRPC, HTTP, attributes

NS = "/api/v1/namespaces"
WEB = f"{NS}/d/pods/web"
LONG = "x" * 20_000


def names(facts: Facts) -> str:
    """verb group/version resource/subresource namespace/name; for a non-resource URL only the verb"""
    if not facts.resource:
        assert not any((facts.group, facts.version, facts.subresource, facts.namespace, facts.name))
        return facts.verb
    resource = f"{facts.resource}/{facts.subresource}" if facts.subresource else facts.resource
    return f"{facts.verb} {facts.group}/{facts.version} {resource} {facts.namespace}/{facts.name}"


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        # core group: verbs
        ("GET", f"{NS}/default/pods/web", "get /v1 pods default/web"),
        ("HEAD", f"{NS}/default/pods/web", "get /v1 pods default/web"),
        ("GET", f"{NS}/default/pods", "list /v1 pods default/"),
        ("GET", f"{NS}/default/pods/", "list /v1 pods default/"),
        ("GET", "/api/v1/pods?limit=500", "list /v1 pods /"),
        ("POST", f"{NS}/default/pods?fieldManager=kubectl", "create /v1 pods default/"),
        ("PUT", f"{NS}/default/pods/web/status", "update /v1 pods/status default/web"),
        ("PATCH", f"{NS}/default/pods/web", "patch /v1 pods default/web"),
        ("DELETE", f"{NS}/default/pods/web", "delete /v1 pods default/web"),
        ("DELETE", f"{NS}/default/pods", "deletecollection /v1 pods default/"),
        ("get", f"{NS}/default/pods/web", "get /v1 pods default/web"),
        # groups
        ("GET", "/apis/apps/v1/namespaces/shop/deployments/web/scale", "get apps/v1 deployments/scale shop/web"),
        ("GET", "/apis/networking.k8s.io/v1/ingresses", "list networking.k8s.io/v1 ingresses /"),
        # watches
        ("GET", f"{NS}/default/pods?watch=true", "watch /v1 pods default/"),
        ("GET", f"{NS}/default/pods?resourceVersion=5&watch=1", "watch /v1 pods default/"),
        ("GET", f"{NS}/default/pods?watch=True", "watch /v1 pods default/"),
        ("GET", f"{NS}/default/pods?watch=false", "list /v1 pods default/"),
        ("GET", f"{NS}/default/pods?watch=0", "list /v1 pods default/"),
        ("GET", f"{NS}/default/pods?watch", "watch /v1 pods default/"),
        ("GET", f"{NS}/default/pods?watch=false&watch=true", "list /v1 pods default/"),
        ("GET", f"{NS}/default/pods?%77atch=%74rue", "watch /v1 pods default/"),
        ("GET", f"{NS}/default/pods/web?watch=true", "get /v1 pods default/web"),
        ("GET", "/api/v1/watch/namespaces/default/pods/web", "watch /v1 pods default/web"),
        ("GET", "/api/v1/watch/pods", "watch /v1 pods /"),
        ("GET", "/apis/apps/v1/watch/deployments", "watch apps/v1 deployments /"),
        # a field selector that asks for one name
        ("GET", f"{NS}/d/configmaps?fieldSelector=metadata.name%3Dca&watch=true", "watch /v1 configmaps d/ca"),
        ("GET", f"{NS}/d/configmaps?fieldSelector=metadata.name=ca", "list /v1 configmaps d/ca"),
        ("GET", f"{NS}/d/pods?fieldSelector=status.phase%21%3DFailed%2Cmetadata.name%3D%3Dweb", "list /v1 pods d/web"),
        ("GET", f"{NS}/d/pods?fieldSelector=metadata.name%21%3Dweb", "list /v1 pods d/"),
        ("GET", f"{NS}/d/pods?fieldSelector=metadata.name%3D..", "list /v1 pods d/"),
        ("GET", f"{NS}/d/pods?fieldSelector=metadata.name%3Da%2Fb", "list /v1 pods d/"),
        ("DELETE", f"{NS}/d/pods?fieldSelector=metadata.name%3Dweb", "deletecollection /v1 pods d/"),
        # namespaces themselves
        ("GET", NS, "list /v1 namespaces /"),
        ("GET", f"{NS}/team-a", "get /v1 namespaces team-a/team-a"),
        ("DELETE", f"{NS}/team-a", "delete /v1 namespaces team-a/team-a"),
        ("PUT", f"{NS}/team-a/finalize", "update /v1 namespaces/finalize team-a/team-a"),
        ("PUT", f"{NS}/team-a/status", "update /v1 namespaces/status team-a/team-a"),
        # below a proxy
        ("GET", f"{NS}/d/services/https:web:443/proxy/a/b", "get /v1 services/proxy d/https:web:443"),
        ("GET", "/api/v1/nodes/n1/proxy/metrics", "get /v1 nodes/proxy /n1"),
        ("POST", f"{NS}/d/pods/web/exec?command=sh", "create /v1 pods/exec d/web"),
        # encoding
        ("GET", "/apis/x.io/v1/clusterroles/system%3Anode", "get x.io/v1 clusterroles /system:node"),
        ("GET", "https://10.0.0.1:6443/api/v1/nodes/n1", "get /v1 nodes /n1"),
        ("OPTIONS", f"{NS}/d/pods", "options /v1 pods d/"),
        # non-resource
        ("GET", "/api", "get"),
        ("GET", "/api/v1", "get"),
        ("GET", "/apis", "get"),
        ("GET", "/apis/apps", "get"),
        ("GET", "/apis/apps/v1", "get"),
        ("GET", "/api/v1/watch", "get"),
        ("GET", "/livez?verbose", "get"),
        ("POST", "/openapi/v3/apis/apps/v1", "post"),
        ("GET", "/", "get"),
        ("GET", "//", "get"),
        ("GET", "/apis/g/v1//x", "get"),
        ("OPTIONS", "*", "options"),
    ],
)  # fmt: skip
def test_target_is_read_as_kubernetes_reads_it(method: str, target: str, expected: str) -> None:
    assert names(parse_target(method, target)) == expected


def test_path_is_kept_without_its_query() -> None:
    assert parse_target("GET", "/livez/ping?exclude=etcd").detail == "/livez/ping"
    assert parse_target("GET", "https://h/readyz").detail == "/readyz"
    assert parse_target("GET", "/a%2Fb").detail == "/a/b"


@pytest.mark.parametrize(
    ("span_name", "expected"),
    [
        ("POST /api/v1/namespaces/{:namespace}/pods", "create /v1 pods /"),
        ("GET /apis/apps/v1/namespaces/{:namespace}/deployments/{:name}/scale", "get apps/v1 deployments/scale /"),
        ("GET /api/v1/namespaces/{:namespace}/namespaces/{:name}", "get /v1 namespaces /"),
        ("DELETE /api/v1/namespaces/{:namespace}/pods/{:name}", "delete /v1 pods /"),
        ("DELETE /api/v1/namespaces/{:namespace}/pods", "deletecollection /v1 pods /"),
        ("GET", "get"),
        ("KubernetesAPI", ""),
    ],
)
def test_a_templated_name_tells_the_resource_and_no_names(span_name: str, expected: str) -> None:
    facts = parse_target("", "", span_name)
    assert names(facts) == expected
    assert facts.detail == ""


def test_lengths_are_bounded() -> None:
    target = f"{NS}/{LONG}/{LONG}/{LONG}?fieldSelector={LONG}&{'&'.join('a=b' for _ in range(9999))}"
    facts = parse_target(LONG, target, LONG)
    for value in (facts.verb, facts.namespace, facts.name, facts.resource, facts.detail):
        assert len(value) <= MAX_STRING
    # what is needed may stand behind a long continue token
    behind = parse_target("GET", f"{NS}/d/pods?continue={'x' * 9000}&watch=true")
    assert behind.verb == "watch"


@given(
    st.text(max_size=20),
    st.text(max_size=200) | st.text(alphabet="/api%s1?&=.{:}namewtch", max_size=80),
    st.text(max_size=60),
)
def test_no_target_raises(method: str, target: str, span_name: str) -> None:
    facts = parse_target(method, target, span_name)
    assert facts.resource == "" or facts.version != "" or "//" in target + span_name


@pytest.mark.parametrize(
    ("service", "scope", "kind", "name", "component"),
    [
        ("apiserver", HTTP, 2, "KubernetesAPI", APISERVER),
        ("apiserver", GRPC, 3, "etcdserverpb.KV/Txn", APISERVER),
        ("etcd", GRPC, 2, "etcdserverpb.KV/Txn", ETCD),
        ("etcd-main", GRPC, 2, "etcdserverpb.KV/Txn", ETCD),  # its name can be configured
        ("etcd-main", "go.etcd.io/etcd", 1, "txn", ETCD),
        ("kubelet", "k8s.io/kubernetes/pkg/kubelet", 1, "syncPod", KUBELET),
        ("", "k8s.io/kubernetes/pkg/kubelet/images", 1, "Images/GarbageCollect", KUBELET),
        ("kubelet", GRPC, 3, "runtime.v1.RuntimeService/RunPodSandbox", KUBELET),
        ("crio", GRPC, 2, "runtime.v1.RuntimeService/RunPodSandbox", RUNTIME),
        ("containerd", "", 1, "task.Kill", RUNTIME),
        ("cri-dockerd", GRPC, 2, "runtime.v1.ImageService/PullImage", RUNTIME),
        ("", FILTER, 1, "audit", APISERVER),
        ("my-aggregated", CORE, 1, "Get", APISERVER),
        ("", GRPC, 3, "etcdserverpb.KV/Range", APISERVER),
        ("unknown_service:kube-apiserver", GRPC, 3, "etcdserverpb.KV/Range", APISERVER),
        ("", GRPC, 1, "etcdserverpb.KV/Range", OTHER),
        ("backup-tool", GRPC, 3, "etcdserverpb.KV/Range", OTHER),
        ("", GRPC, 3, "runtime.v1.RuntimeService/Status", KUBELET),
        ("", GRPC, 1, "runtime.v1.RuntimeService/Status", OTHER),
        ("label-injector", HTTP, 2, "POST", OTHER),
        ("", "", 0, "", OTHER),
    ],
)
def test_component(service: str, scope: str, kind: int, name: str, component: int) -> None:
    assert component_of(service, scope, kind, name) == component


@pytest.mark.parametrize(
    ("component", "kind", "name", "role"),
    [
        (APISERVER, 2, "GET", ROLE_SERVER),
        (APISERVER, 2, "KubernetesAPI", ROLE_SERVER),
        (APISERVER, 1, "WatchList", ROLE_VERB),
        (APISERVER, 1, "Delete", ROLE_VERB),
        (APISERVER, 0, "Get", ROLE_VERB),
        (APISERVER, 1, "Call conversion webhook", ROLE_WEBHOOK),
        (APISERVER, 3, "HTTP POST", ROLE_CALL),
        (APISERVER, 3, "POST", ROLE_CALL),
        (APISERVER, 3, "etcdserverpb.KV/Txn", 0),
        (APISERVER, 1, "Get etcd3", 0),
        (ETCD, 2, "etcdserverpb.KV/Txn", 0),
        (KUBELET, 3, "HTTP GET", 0),
        (OTHER, 1, "Get", 0),
    ],
)
def test_role(component: int, kind: int, name: str, role: int) -> None:
    assert fact_role(component, kind, name) == role


def read(role: int, name: str, values: dict[str, Any], message: str = "") -> Facts:
    return read_facts(role, name, attributes(values), message)


@pytest.mark.parametrize(
    "values",
    [
        # 1.22 to 1.28
        {"http.method": "GET", "http.target": f"{WEB}?a=b", "http.user_agent": "kubectl", "http.status_code": 404},
        # 1.31 to 1.34
        {"http.method": "GET", "http.target": WEB, "user_agent.original": "kubectl", "http.status_code": 404},
        # 1.35 and later
        {
            "http.request.method": "GET",
            "url.path": "/wrong",
            "http.target": f"{NS}/d/pods/web",
            "user_agent.original": "kubectl",
            "http.response.status_code": 404,
        },
        # without the attribute that Kubernetes adds
        {
            "http.request.method": "GET",
            "url.path": WEB,
            "user_agent.original": "kubectl",
            "http.response.status_code": "404",
        },
        # both sets, as OTEL_SEMCONV_STABILITY_OPT_IN=http/dup sends them: the new one counts
        {
            "http.method": "POST",
            "http.request.method": "GET",
            "http.status_code": 200,
            "http.response.status_code": 404,
            "http.user_agent": "old",
            "user_agent.original": "kubectl",
            "http.target": f"{NS}/d/pods/web",
        },
    ],
)  # fmt: skip
def test_server_span_of_every_vocabulary(values: dict[str, Any]) -> None:
    facts = read(ROLE_SERVER, "GET /api/v1/namespaces/{:namespace}/pods/{:name}", values)
    assert names(facts) == "get /v1 pods d/web"
    assert (facts.agent, facts.code, facts.detail) == ("kubectl", 404, f"{NS}/d/pods/web")


def test_query_of_its_own_attribute_is_read_too() -> None:
    facts = read(
        ROLE_SERVER, "GET", {"url.path": f"{NS}/d/pods", "url.query": "watch=true", "http.request.method": "GET"}
    )
    assert names(facts) == "watch /v1 pods d/"


@pytest.mark.parametrize(
    ("name", "recorded", "object_name", "verb"),
    [
        ("Get", "GET", "web", "get"),
        ("List", "LIST", "", "list"),
        ("WatchList", "WATCH", "web", "watch"),
        ("List", "WATCH", "", "watch"),
        ("Create", "POST", "", "create"),
        ("Update", "PUT", "web", "update"),
        ("Patch", "PATCH", "web", "patch"),
        ("Patch", "APPLY", "web", "patch"),
        ("Delete", "DELETE", "web", "delete"),
        ("Delete", "DELETE", "", "deletecollection"),
        ("WatchList", "", "", "watch"),
        ("Create", "", "", "create"),
        ("Get", "SOMETHING", "web", "get"),
    ],
)
def test_verb_span(name: str, recorded: str, object_name: str, verb: str) -> None:
    values = {
        "verb": recorded,
        "resource": "pods",
        "namespace": "d",
        "name": object_name,
        "api-group": "",
        "api-version": "v1",
    }
    facts = read(ROLE_VERB, name, values | {"user-agent": "kubectl", "audit-id": "abc", "url": f"{NS}/d/pods"})
    assert names(facts) == f"{verb} /v1 pods d/{object_name}"
    assert (facts.agent, facts.audit, facts.detail) == ("kubectl", "abc", f"{NS}/d/pods")


def test_verb_span_before_1_29_takes_names_from_its_path() -> None:
    facts = read(
        ROLE_VERB,
        "Delete",
        {"verb": "DELETE", "resource": "deployments", "url": "/apis/apps/v1/namespaces/d/deployments/web"},
    )
    assert names(facts) == "delete apps/v1 deployments d/web"


def test_webhook_spans() -> None:
    facts = read(
        ROLE_WEBHOOK, "Call mutating webhook", {"configuration": "c", "webhook": "w.example.com", "operation": "CREATE"}
    )
    assert (facts.verb, facts.resource, facts.name, facts.detail) == ("create", "mutating", "w.example.com", "c")
    facts = read(
        ROLE_WEBHOOK,
        "Call conversion webhook",
        {"custom-resource-definition": "widgets.example.com", "desired-api-version": "example.com/v2"},
    )
    assert (facts.resource, facts.name, facts.version) == ("conversion", "widgets.example.com", "example.com/v2")


@pytest.mark.parametrize(
    ("values", "host"),
    [
        ({"server.address": "10.0.0.1", "server.port": 9443}, "10.0.0.1:9443"),
        ({"server.address": "::1", "server.port": 6443}, "[::1]:6443"),
        ({"net.peer.name": "web.d.svc", "net.peer.port": 443}, "web.d.svc:443"),
        ({"http.host": "web.d.svc:443"}, "web.d.svc:443"),
        ({"http.url": "https://user:secret@web.d.svc:9443/mutate?timeout=5s"}, "web.d.svc:9443"),
        ({"url.full": "https://web.d.svc/mutate"}, "web.d.svc"),
        ({"url.full": "nonsense"}, ""),
        ({}, ""),
    ],
)
def test_call_names_whom_it_called(values: dict[str, Any], host: str) -> None:
    facts = read(ROLE_CALL, "HTTP POST", values | {"http.status_code": 500}, "dial tcp: refused")
    assert (facts.verb, facts.name, facts.detail, facts.code) == ("POST", host, "dial tcp: refused", 500)


@pytest.mark.parametrize("code", [0, -5, 99, 1000, 1 << 40, "abc", "²²²", "", True, 2.5, b"404"])
def test_what_is_no_status_code_is_unknown(code: Any) -> None:
    assert read(ROLE_SERVER, "GET", {"http.status_code": code}).code == 0


def test_hostile_attributes_are_bounded() -> None:
    pairs = attributes({"http.target": f"{NS}/{LONG}", "audit-id": LONG, "http.user_agent": LONG, "http.method": LONG})
    facts = read_facts(ROLE_SERVER, LONG, pairs, LONG)
    for field in ("verb", "group", "version", "resource", "namespace", "name", "agent", "detail", "audit"):
        assert len(getattr(facts, field)) <= MAX_STRING
    many = [KeyValue(key=f"k{i}") for i in range(5000)] + attributes({"audit-id": "late"})
    assert read_facts(ROLE_SERVER, "GET", many, "").audit == ""
    call = read_facts(ROLE_CALL, LONG, attributes({"url.full": f"https://{LONG}/"}), LONG)
    assert len(call.name) <= MAX_STRING
    assert len(call.detail) <= MAX_STRING
    assert len(call.verb) <= 16


def test_the_url_names_the_request_and_the_verb_span_fills_in() -> None:
    server = Facts(verb="list", version="v1", resource="pods", namespace="d", detail=f"{NS}/d/pods", code=200)
    verb = Facts(verb="watch", version="v9", resource="nodes", agent="kubectl", audit="abc")
    request = merge_request(server, verb)
    assert request is not None
    assert (request.verb, request.version, request.resource, request.namespace) == ("list", "v1", "pods", "d")
    assert (request.user_agent, request.audit_id, request.code) == ("kubectl", "abc", 200)


def test_without_a_url_the_verb_span_names_the_request() -> None:
    server = parse_target("", "", "GET /api/v1/namespaces/{:namespace}/pods")
    server.code = 200
    verb = Facts(verb="watch", version="v1", resource="pods", namespace="d", name="web", detail=f"{NS}/d/pods")
    request = merge_request(server, verb)
    assert request is not None
    assert (request.verb, request.resource, request.namespace, request.name) == ("watch", "pods", "d", "web")
    assert (request.code, request.path) == (200, f"{NS}/d/pods")


def test_a_request_of_one_span_only() -> None:
    assert merge_request(None, None) is None
    alone = merge_request(Facts(verb="get", detail="/livez"), None)
    assert alone is not None
    assert (alone.resource, alone.path, alone.code) == ("", "/livez", None)
    verb = merge_request(None, Facts(verb="watch", resource="pods"))
    assert verb is not None
    assert (verb.verb, verb.resource, verb.code) == ("watch", "pods", None)
