"""What a real API server does is read right: each request of a workload against a key that was written by hand."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pytest

from tests.live_receiver import LiveReceiver
from tests.real.client import Answer
from tests.real.plain import ADMIN, NOBODY, Plain

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
NAMESPACE = "shop"
MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


@dataclass(frozen=True)
class Key:
    """What must be read of a request. The path of a create has no name; the object that it got as far as etcd with is
    `created`, "" where none did.
    `etcd`: it is known to have asked etcd, or not to."""

    verb: str
    resource: str
    name: str
    code: int
    namespace: str = NAMESPACE
    group: str = ""
    etcd: bool | None = True
    created: str = ""


@dataclass(frozen=True)
class Step:
    """A request, and the key to it."""

    what: str
    method: str
    path: str
    key: Key
    body: Any = None
    content_type: str = "application/json"
    user: str = ADMIN

    @property
    def agent(self) -> str:
        return f"workload/{self.what}"


NAMESPACES = "/api/v1/namespaces"
OLD_REVISION = {**config_map("one", a="late"), "metadata": {"name": "one", "resourceVersion": "1"}}
WORKLOAD = (
    Step(
        "create-namespace", "POST", NAMESPACES,
        Key("create", "namespaces", "", 201, namespace="", created=NAMESPACE),
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
    ),
    Step("create", "POST", MAPS, Key("create", "configmaps", "", 201, created="one"), config_map("one", a="b")),
    Step("create-again", "POST", MAPS, Key("create", "configmaps", "", 409, created="one"), config_map("one", a="b")),
    Step("get", "GET", f"{MAPS}/one", Key("get", "configmaps", "one", 200)),
    Step("get-missing", "GET", f"{MAPS}/none", Key("get", "configmaps", "none", 404)),
    Step("list", "GET", MAPS, Key("list", "configmaps", "", 200, etcd=None)),
    Step("list-everywhere", "GET", "/api/v1/configmaps", Key("list", "configmaps", "", 200, namespace="", etcd=None)),
    Step(
        "patch", "PATCH", f"{MAPS}/one", Key("patch", "configmaps", "one", 200), {"data": {"c": "d"}}, MERGE,
    ),
    Step("replace-late", "PUT", f"{MAPS}/one", Key("update", "configmaps", "one", 409), OLD_REVISION),
    Step(
        "apply", "PATCH", f"{MAPS}/two?fieldManager=workload", Key("patch", "configmaps", "two", 201),
        config_map("two", a="b"), APPLY,
    ),
    Step("refused-get", "GET", f"{MAPS}/one", Key("get", "configmaps", "one", 403, etcd=False), user=NOBODY),
    Step("refused-list", "GET", MAPS, Key("list", "configmaps", "", 403, etcd=False), user=NOBODY),
    Step(
        "refused-delete", "DELETE", f"{MAPS}/one", Key("delete", "configmaps", "one", 403, etcd=False), user=NOBODY,
    ),
    Step(
        "invalid", "POST", MAPS, Key("create", "configmaps", "", 422, etcd=None), config_map("BAD_name"),
    ),
    Step(
        "list-group", "GET", "/apis/apps/v1/namespaces/shop/deployments",
        Key("list", "deployments", "", 200, group="apps", etcd=None),
    ),
    Step("delete", "DELETE", f"{MAPS}/one", Key("delete", "configmaps", "one", 200)),
    Step("delete-missing", "DELETE", f"{MAPS}/one", Key("delete", "configmaps", "one", 404)),
    Step("delete-all", "DELETE", MAPS, Key("deletecollection", "configmaps", "", 200)),
)  # fmt: skip


@pytest.fixture(scope="module")
def traced(plain: Plain, collector: LiveReceiver) -> dict[str, dict[str, Any]]:
    """The trace of each step, by its name; the workload ran once, against the release of `plain`."""
    answers: dict[str, Answer] = {}
    for step in WORKLOAD:
        client = plain.client(step.user)
        answers[step.what] = client.request(
            step.method, step.path, step.body, content_type=step.content_type, agent=step.agent
        )
    assert {what: answer.code for what, answer in answers.items()} == {step.what: step.key.code for step in WORKLOAD}
    began = time.monotonic()
    wanted = {answer.audit_id: what for what, answer in answers.items()}
    assert "" not in wanted
    of_etcd = {step.what for step in WORKLOAD if step.key.etcd}

    def found(traces: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        requests = [(trace, trace["request"] or {}) for trace in traces]
        return {wanted[one["audit_id"]]: trace for trace, one in requests if one.get("audit_id") in wanted}

    def whole(traces: list[dict[str, Any]]) -> bool:
        there = found(traces)
        return len(there) == len(WORKLOAD) and all("etcd" in there[what]["services"] for what in of_etcd)

    traces = found(collector.wait_for(whole, timeout=60.0))
    print(f"real: {len(WORKLOAD)} requests of {plain.release} traced after {time.monotonic() - began:.1f} s")
    return traces


@pytest.mark.parametrize("step", WORKLOAD, ids=lambda step: step.what)
def test_a_request_is_read_as_it_was_made(
    step: Step, traced: dict[str, dict[str, Any]], collector: LiveReceiver
) -> None:
    trace, key = traced[step.what], step.key
    request = trace["request"]
    assert {
        name: request[name] or "" for name in ("verb", "group", "resource", "subresource", "namespace", "name")
    } == {
        "verb": key.verb,
        "group": key.group,
        "resource": key.resource,
        "subresource": "",
        "namespace": key.namespace,
        "name": key.name,
    }
    assert (trace["created"] or "") == key.created
    assert request["code"] == key.code
    assert request["user_agent"] == step.agent
    assert request["path"] == step.path.partition("?")[0]
    assert trace["missing_parents"] == 0
    assert sum(trace["phases"].values()) == trace["duration_ns"]
    if key.etcd is not None:
        assert ("etcd" in trace["services"]) is key.etcd
    (shown,) = collector.show(trace["trace_id"])
    assert len(shown["roots"]) == 1
    assert shown["verdict"]
    if key.etcd:
        services = {span["service"]: span for span in spans_of(shown["roots"])}
        etcd = services["etcd"]
        assert etcd["component"] == "etcd"
        assert "otelgrpc" in etcd["scope"]["name"] or "etcd" in etcd["scope"]["name"]


def spans_of(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every span of these trees."""
    return [span for node in nodes for span in (node, *spans_of(node["children"]))]
