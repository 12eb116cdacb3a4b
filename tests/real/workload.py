"""A fixed workload for a plain control plane: each request with the key to how it must be read, written by hand.

`Scenery` lays what the requests need (a custom resource, webhooks, aggregated APIs, a flow that is full); `WORKLOAD` is
in the order in which it is made, and each step builds on those before it.
"""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from tests.doubles.ports import free_port
from tests.real.client import Answer
from tests.real.https_server import DENIAL, SLOW_S, HttpsServer
from tests.real.plain import ADMIN, CLUSTER_ADMIN, NOBODY, Plain
from tests.real.processes import wait_until

JSON: Final = "application/json"
MERGE: Final = "application/merge-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
APPLY: Final = "application/apply-patch+yaml"
NAMESPACE: Final = "shop"
FULL: Final = "full"
"""The namespace whose requests may not be served two at a time."""
TOO_LARGE: Final = 4 << 20
"""Bytes of a body above what an API server reads, 3 MiB."""
USUAL: Final = r"Nothing remarkable: T\b.*"
A_WATCH: Final = r"^A watch, open for T: it lasts as long as its client likes\.$"


def refusal(act: str) -> str:
    """The pattern of a verdict on what its user may not do."""
    return rf"^Authorization refused the request with 403: its user may not {act}\. The audit log tells who\."


@dataclass(frozen=True)
class Key:
    """What must be read of a request.

    Attributes:
        name: as the request names it, "" where it does not (a create names its object in the body).
        created: the object that a create got as far as etcd with.
        etcd: it is known to have asked etcd, or not to; None where the watch cache may or may not.
        verdict: a pattern of the whole verdict, times as T and shares as P.
        takes: seconds that a part of it takes at least, by group of phases.
    """

    verb: str
    resource: str
    name: str
    code: int
    namespace: str = NAMESPACE
    group: str = ""
    subresource: str = ""
    etcd: bool | None = True
    created: str = ""
    verdict: str = USUAL
    takes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """A request, and the key to it.

    Attributes:
        what: names it, and is its user agent.
        during: a request that is being served meanwhile.
    """

    what: str
    method: str
    path: str
    key: Key
    body: Any = None
    content_type: str = JSON
    user: str = ADMIN
    during: Step | None = None

    @property
    def agent(self) -> str:
        """Its user agent."""
        return f"workload/{self.what}"

    def make(self, plain: Plain) -> Answer:
        """Make the request."""
        return plain.client(self.user).request(
            self.method, self.path, self.body, content_type=self.content_type, agent=self.agent
        )


def config_map(name: str, labels: dict[str, str] | None = None, **data: str) -> dict[str, Any]:
    """A ConfigMap."""
    metadata: dict[str, Any] = {"name": name, "labels": labels} if labels else {"name": name}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def pod(name: str) -> dict[str, Any]:
    """A Pod that no node runs."""
    containers = [{"name": "main", "image": "registry.example/none"}]
    labels = {"app": "guarded"}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels},
        "spec": {"containers": containers},
    }  # fmt: skip


NAMESPACES: Final = "/api/v1/namespaces"
OF_SHOP: Final = f"{NAMESPACES}/{NAMESPACE}"
MAPS: Final = f"{OF_SHOP}/configmaps"
PODS: Final = f"{OF_SHOP}/pods"
DEPLOYMENTS: Final = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
CUSTOM: Final = "toys.example"
DEFINITIONS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
BALLS: Final = f"/apis/{CUSTOM}/v1/namespaces/{NAMESPACE}/balls"
AGGREGATED: Final = "shelf.example"
UNSERVED: Final = "gone.example"
"""A group behind a Service that nobody listens on."""
ABSENT: Final = "absent.example"
"""A group behind a Service that is not there."""


def ball(name: str, size: Any = 3) -> dict[str, Any]:
    """A custom resource."""
    return {"apiVersion": f"{CUSTOM}/v1", "kind": "Ball", "metadata": {"name": name}, "spec": {"size": size}}


DEFINITION: Final = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"balls.{CUSTOM}"},
    "spec": {
        "group": CUSTOM,
        "names": {"plural": "balls", "singular": "ball", "kind": "Ball", "listKind": "BallList"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "properties": {"size": {"type": "integer"}}},
                            "status": {"type": "object", "properties": {"rolled": {"type": "boolean"}}},
                        },
                    }
                },
            }
        ],
    },
}
DEPLOYMENT: Final = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "main", "image": "registry.example/none"}]},
        },
    },
}
GUARD: Final = {
    "apiVersion": "policy/v1",
    "kind": "PodDisruptionBudget",
    "metadata": {"name": "guard"},
    "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "guarded"}}},
}
EVICTION: Final = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "pod"}}
BINDING: Final = {
    "apiVersion": "v1",
    "kind": "Binding",
    "metadata": {"name": "pod"},
    "target": {"apiVersion": "v1", "kind": "Node", "name": "none"},
}
REVIEW: Final = {
    "apiVersion": "authorization.k8s.io/v1",
    "kind": "SelfSubjectAccessReview",
    "spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": NAMESPACE}},
}


# --- webhooks ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Hook:
    """An admission webhook, for ConfigMaps that carry its label.

    Attributes:
        behaviour: of `https_server`, or `dead`, where nobody listens.
        ignored: `failurePolicy: Ignore`.
    """

    kind: str
    behaviour: str
    ignored: bool = False

    @property
    def label(self) -> str:
        """The value of the label `hook`."""
        return f"{self.kind}-{self.behaviour}{'-ignored' if self.ignored else ''}"

    @property
    def name(self) -> str:
        """Its full name."""
        return f"{self.label}.hooks.example"

    def to_json(self, server: HttpsServer, dead: int) -> dict[str, Any]:
        """Its entry in a configuration."""
        port = dead if self.behaviour == "dead" else server.port
        return {
            "name": self.name,
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Ignore" if self.ignored else "Fail",
            "timeoutSeconds": 1 if self.behaviour == "hang" else 10,
            "objectSelector": {"matchLabels": {"hook": self.label}},
            "rules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
            ],
            "clientConfig": {
                "url": f"https://127.0.0.1:{port}/webhooks/{self.kind}/{self.behaviour}",
                "caBundle": base64.b64encode(server.authority).decode(),
            },
        }

    @property
    def step(self) -> Step:
        """A create that calls it."""
        body = config_map(self.label, {"hook": self.label})
        return Step(f"hook-{self.label}", "POST", MAPS, self._key, body)

    @property
    def _key(self) -> Key:
        refused = not self.ignored and self.behaviour not in ("allow", "slow")
        code = 201 if not refused else 403 if self.behaviour == "deny" else 500
        takes = {"slow": SLOW_S, "hang": 1.0}.get(self.behaviour, 0.0)
        return Key(
            "create", "configmaps", "", code,
            # a mutating webhook refuses before anything is stored, a validating one is asked in the storage's create
            etcd=not refused, created="" if refused else self.label,
            verdict=self._verdict(code), takes={"admission": takes} if takes else {},
        )  # fmt: skip

    def _verdict(self, code: int) -> str:
        """What is said of it. Where the request went through, what took longer on a busy machine may be said first."""
        policy = "Ignore let the request through" if self.ignored else f"Fail refused the request with {code}"
        told = {
            "slow": r"took T \(P\); its own spans are not here, so whether it or the way to it is slow cannot be known",
            "deny": rf"denied the request after T \(P\): {DENIAL}",
            "error": f"answered 500 instead of a review; failurePolicy {policy}",
            "dead": rf"could not be reached \(dial tcp \S+: connect: connection refused\); failurePolicy {policy}",
            "hang": rf"did not answer within its T timeout \(P of the request\); failurePolicy {policy}",
        }
        if self.behaviour not in told:
            return USUAL
        first = "^" if code >= 400 else r"(?:^|\. )"
        return rf"{first}{self.kind.capitalize()} webhook {re.escape(self.name)} {told[self.behaviour]}\."


HOOKS: Final = tuple(
    Hook(kind, behaviour, ignored)
    for kind in ("mutating", "validating")
    for behaviour, ignored in (
        ("allow", False), ("slow", False), ("deny", False), ("error", False), ("error", True), ("dead", False),
        ("dead", True), ("hang", False), ("hang", True),
    )
)  # fmt: skip
HOLD: Final = Hook("mutating", "hold")
HOLDING: Final = Step(
    "holding", "POST", f"{NAMESPACES}/{FULL}/configmaps",
    Key(
        "create", "configmaps", "", 201, namespace=FULL, created="holding",
        verdict=rf"(?:Mutating|mutating) webhook {re.escape(HOLD.name)}|^Nothing remarkable: T",
    ),
    config_map("holding", {"hook": HOLD.label}), user=CLUSTER_ADMIN,
)  # fmt: skip

# --- the requests -----------------------------------------------------------------------------------
OLD_REVISION: Final = {**config_map("one", a="late"), "metadata": {"name": "one", "resourceVersion": "1"}}
WRONG_UID: Final = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "another"}}
LATE: Final = r"^Another writer was faster: the object had been changed since it was read, so 409 was the answer\."
BAD_NAME: Final = (
    r'^The request was refused with 422: ConfigMap "BAD_name" is invalid: metadata\.name: Invalid value: "BAD_name"'
)
TOO_MUCH: Final = r"^The object is too large: the API server refused a body of 3\.1 MB \(413\)\."
# on a busy machine 2 s may have gone by before
JUST_DEFINED: Final = (
    r"^It waited T \(P\) before it was handled: most likely because its custom resource was defined a moment ago"
    r"|^Nothing remarkable"
)
BAD_SIZE: Final = (
    r'^The request was refused with 422: Ball\.toys\.example "green" is invalid: spec\.size: Invalid value'
)
GUARDED: Final = (
    r"^The request was refused with 429: Cannot evict pod as it would violate the pod's disruption budget\."
)
NO_SEAT: Final = (
    r"^Priority and fairness refused the request with 429(?: after T in its queue)?: too many others of its priority "
    r"level\."
)
WORKLOAD: Final = (
    Step(
        "create-namespace",
        "POST",
        NAMESPACES,
        Key("create", "namespaces", "", 201, namespace="", created=NAMESPACE),
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
    ),
    Step("get-namespace", "GET", OF_SHOP, Key("get", "namespaces", NAMESPACE, 200)),
    # --- one kind, every verb
    Step("create", "POST", MAPS, Key("create", "configmaps", "", 201, created="one"), config_map("one", a="b")),
    Step("create-again", "POST", MAPS, Key("create", "configmaps", "", 409, created="one"), config_map("one", a="b")),
    Step(
        "create-generated",
        "POST",
        MAPS,
        Key("create", "configmaps", "", 201, created="made-"),
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "made-"}},
    ),
    Step(
        "create-dry",
        "POST",
        f"{MAPS}?dryRun=All",
        Key("create", "configmaps", "", 201, verdict=r"^A dry run of configmaps shop/dry: nothing was stored\."),
        config_map("dry"),
    ),
    Step("get", "GET", f"{MAPS}/one", Key("get", "configmaps", "one", 200)),
    Step("get-missing", "GET", f"{MAPS}/none", Key("get", "configmaps", "none", 404)),
    Step("list", "GET", MAPS, Key("list", "configmaps", "", 200, etcd=None)),
    Step(
        "list-one", "GET", f"{MAPS}?fieldSelector=metadata.name%3Done", Key("list", "configmaps", "one", 200, etcd=None)
    ),
    Step("list-cached", "GET", f"{MAPS}?resourceVersion=0", Key("list", "configmaps", "", 200, etcd=False)),
    Step("list-page", "GET", f"{MAPS}?limit=1", Key("list", "configmaps", "", 200, etcd=None)),
    Step("list-everywhere", "GET", "/api/v1/configmaps", Key("list", "configmaps", "", 200, namespace="", etcd=None)),
    Step(
        "watch",
        "GET",
        f"{MAPS}?watch=true&timeoutSeconds=1",
        Key("watch", "configmaps", "", 200, etcd=None, verdict=A_WATCH),
    ),
    Step(
        "watch-list",
        "GET",
        f"{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        "&timeoutSeconds=1",
        Key("watch", "configmaps", "", 200, etcd=None, verdict=A_WATCH),
    ),
    Step("update", "PUT", f"{MAPS}/one", Key("update", "configmaps", "one", 200), config_map("one", a="new")),
    Step("update-late", "PUT", f"{MAPS}/one", Key("update", "configmaps", "one", 409, verdict=LATE), OLD_REVISION),
    Step(
        "patch-strategic",
        "PATCH",
        f"{MAPS}/one",
        Key("patch", "configmaps", "one", 200),
        {"data": {"s": "1"}},
        STRATEGIC,
    ),
    Step("patch-merge", "PATCH", f"{MAPS}/one", Key("patch", "configmaps", "one", 200), {"data": {"m": "1"}}, MERGE),
    Step(
        "patch-json",
        "PATCH",
        f"{MAPS}/one",
        Key("patch", "configmaps", "one", 200),
        [{"op": "add", "path": "/data/j", "value": "1"}],
        JSON_PATCH,
    ),
    Step(
        "patch-json-test",
        "PATCH",
        f"{MAPS}/one",
        Key("patch", "configmaps", "one", 422),
        [{"op": "test", "path": "/data/j", "value": "2"}],
        JSON_PATCH,
    ),
    Step(
        "patch-unsupported",
        "PATCH",
        f"{MAPS}/one",
        Key("patch", "configmaps", "one", 415, etcd=False),
        b"data: {}",
        "text/plain",
    ),
    Step(
        "apply",
        "PATCH",
        f"{MAPS}/two?fieldManager=workload",
        Key("patch", "configmaps", "two", 201),
        config_map("two", a="b"),
        APPLY,
    ),
    Step(
        "apply-again",
        "PATCH",
        f"{MAPS}/two?fieldManager=workload",
        Key("patch", "configmaps", "two", 200),
        config_map("two", a="c"),
        APPLY,
    ),
    Step(
        "apply-conflict",
        "PATCH",
        f"{MAPS}/two?fieldManager=another",
        Key("patch", "configmaps", "two", 409),
        config_map("two", a="d"),
        APPLY,
    ),
    Step(
        "invalid",
        "POST",
        MAPS,
        Key("create", "configmaps", "", 422, etcd=None, verdict=BAD_NAME),
        config_map("BAD_name"),
    ),
    Step("malformed", "POST", MAPS, Key("create", "configmaps", "", 400, etcd=False), b"{"),
    Step(
        "too-large", "POST", MAPS, Key("create", "configmaps", "", 413, etcd=False, verdict=TOO_MUCH), b" " * TOO_LARGE
    ),
    Step("wrong-method", "POST", f"{MAPS}/one", Key("create", "configmaps", "one", 405, etcd=False), config_map("one")),
    Step(
        "no-such-namespace",
        "POST",
        f"{NAMESPACES}/none/configmaps",
        Key("create", "configmaps", "", 404, namespace="none", etcd=None),
        config_map("one"),
    ),
    Step(
        "no-such-resource",
        "GET",
        f"{OF_SHOP}/nothings/one",
        Key("get", "nothings", "one", 404, etcd=False),
    ),
    Step(
        "no-such-group",
        "GET",
        "/apis/none.example/v1/things",
        Key("list", "things", "", 404, namespace="", group="none.example", etcd=False),
    ),
    Step(
        "delete-another",
        "DELETE",
        f"{MAPS}/one",
        Key("delete", "configmaps", "one", 409),
        WRONG_UID,
    ),
    # --- refused
    Step(
        "refused-get",
        "GET",
        f"{MAPS}/one",
        Key("get", "configmaps", "one", 403, etcd=False, verdict=refusal("get configmaps in shop")),
        user=NOBODY,
    ),
    Step(
        "refused-list",
        "GET",
        MAPS,
        Key("list", "configmaps", "", 403, etcd=False, verdict=refusal("list configmaps in shop")),
        user=NOBODY,
    ),
    Step(
        "refused-delete",
        "DELETE",
        f"{MAPS}/one",
        Key("delete", "configmaps", "one", 403, etcd=False, verdict=refusal("delete configmaps in shop")),
        user=NOBODY,
    ),
    Step(
        "refused-anonymous",
        "GET",
        f"{MAPS}/one",
        Key("get", "configmaps", "one", 403, etcd=False, verdict=refusal("get configmaps in shop")),
        user="",
    ),
    Step(
        "cluster-admin",
        "GET",
        f"{MAPS}/one",
        Key("get", "configmaps", "one", 200),
        user=CLUSTER_ADMIN,
    ),
    # --- other kinds and subresources
    Step(
        "review",
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        Key("create", "selfsubjectaccessreviews", "", 201, namespace="", group="authorization.k8s.io", etcd=False),
        REVIEW,
    ),
    Step("version", "GET", "/version", Key("get", "", "", 200, namespace="", etcd=False)),
    Step("discovery", "GET", "/apis", Key("get", "", "", 200, namespace="", etcd=False)),
    Step("discovery-group", "GET", "/apis/apps/v1", Key("get", "", "", 200, namespace="", etcd=False)),
    Step("ready", "GET", "/readyz", Key("get", "", "", 200, namespace="", etcd=None)),
    Step("no-such-path", "GET", "/nothing", Key("get", "", "", 404, namespace="", etcd=False)),
    Step(
        "create-deployment",
        "POST",
        DEPLOYMENTS,
        Key("create", "deployments", "", 201, group="apps", created="web"),
        DEPLOYMENT,
    ),
    Step("list-group", "GET", DEPLOYMENTS, Key("list", "deployments", "", 200, group="apps", etcd=None)),
    Step(
        "get-scale",
        "GET",
        f"{DEPLOYMENTS}/web/scale",
        Key("get", "deployments", "web", 200, group="apps", subresource="scale"),
    ),
    Step(
        "patch-scale",
        "PATCH",
        f"{DEPLOYMENTS}/web/scale",
        Key("patch", "deployments", "web", 200, group="apps", subresource="scale"),
        {"spec": {"replicas": 2}},
        MERGE,
    ),
    Step(
        "patch-status",
        "PATCH",
        f"{DEPLOYMENTS}/web/status",
        Key("patch", "deployments", "web", 200, group="apps", subresource="status"),
        {"status": {"observedGeneration": 1}},
        MERGE,
    ),
    Step("create-pod", "POST", PODS, Key("create", "pods", "", 201, created="pod"), pod("pod")),
    Step(
        "create-budget",
        "POST",
        f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets",
        Key("create", "poddisruptionbudgets", "", 201, group="policy", created="guard"),
        GUARD,
    ),
    Step("bind", "POST", f"{PODS}/pod/binding", Key("create", "pods", "pod", 201, subresource="binding"), BINDING),
    Step(
        "run",
        "PATCH",
        f"{PODS}/pod/status",
        Key("patch", "pods", "pod", 200, subresource="status"),
        {"status": {"phase": "Running"}},
        MERGE,
    ),
    Step("log", "GET", f"{PODS}/pod/log", Key("get", "pods", "pod", 404, subresource="log", etcd=None)),
    Step(
        "evict-all",
        "DELETE",
        f"{PODS}?labelSelector=app%3Dnone",
        Key("deletecollection", "pods", "", 200, etcd=None),
    ),
    # --- custom resources
    Step(
        "define",
        "POST",
        DEFINITIONS,
        Key(
            "create",
            "customresourcedefinitions",
            "",
            201,
            namespace="",
            group="apiextensions.k8s.io",
            created=f"balls.{CUSTOM}",
        ),
        DEFINITION,
    ),
    Step(
        "custom-create",
        "POST",
        BALLS,
        Key("create", "balls", "", 201, group=CUSTOM, created="red", verdict=JUST_DEFINED),
        ball("red"),
    ),
    Step("custom-get", "GET", f"{BALLS}/red", Key("get", "balls", "red", 200, group=CUSTOM)),
    Step("custom-list", "GET", BALLS, Key("list", "balls", "", 200, group=CUSTOM, etcd=None)),
    Step(
        "custom-watch",
        "GET",
        f"{BALLS}?watch=1&timeoutSeconds=1",
        Key("watch", "balls", "", 200, group=CUSTOM, etcd=None, verdict=A_WATCH),
    ),
    Step(
        "custom-merge",
        "PATCH",
        f"{BALLS}/red",
        Key("patch", "balls", "red", 200, group=CUSTOM),
        {"spec": {"size": 4}},
        MERGE,
    ),
    Step(
        "custom-strategic",
        "PATCH",
        f"{BALLS}/red",
        Key("patch", "balls", "red", 415, group=CUSTOM, etcd=False),
        {"spec": {"size": 4}},
        STRATEGIC,
    ),
    Step(
        "custom-apply",
        "PATCH",
        f"{BALLS}/blue?fieldManager=workload",
        Key("patch", "balls", "blue", 201, group=CUSTOM),
        ball("blue"),
        APPLY,
    ),
    Step(
        "custom-status",
        "PATCH",
        f"{BALLS}/red/status",
        Key("patch", "balls", "red", 200, group=CUSTOM, subresource="status"),
        {"status": {"rolled": True}},
        MERGE,
    ),
    Step(
        "custom-invalid",
        "POST",
        BALLS,
        Key("create", "balls", "", 422, group=CUSTOM, etcd=None, verdict=BAD_SIZE),
        ball("green", "large"),
    ),
    Step("custom-delete", "DELETE", f"{BALLS}/red", Key("delete", "balls", "red", 200, group=CUSTOM)),
    Step("custom-delete-all", "DELETE", BALLS, Key("deletecollection", "balls", "", 200, group=CUSTOM)),
    # --- aggregated APIs
    *(
        Step(
            f"aggregated-{name or 'list'}",
            "GET",
            f"/apis/{AGGREGATED}/v1/namespaces/{NAMESPACE}/widgets{'/' + name if name else ''}",
            Key(
                "get" if name else "list",
                "widgets",
                name,
                code,
                group=AGGREGATED,
                etcd=False,
                takes={"aggregation": SLOW_S} if name == "slow" else {},
                verdict=verdict,
            ),
        )
        for name, code, verdict in (
            ("", 200, USUAL),
            ("first", 200, USUAL),
            ("missing", 404, USUAL),
            ("slow", 200, r"^The aggregated API shelf\.example/v1 took T \(P\); its own spans are not here"),
            ("broken", 503, r"^The aggregated API shelf\.example/v1 is down: .* answered with 503: EOF\."),
        )
    ),
    *(
        Step(
            f"aggregated-{group.partition('.')[0]}",
            "GET",
            f"/apis/{group}/v1/namespaces/{NAMESPACE}/widgets/first",
            Key(
                "get",
                "widgets",
                "first",
                503,
                group=group,
                etcd=False,
                verdict=rf"^The aggregated API {group}/v1 is down: .* answered with 503: its server is not there\.",
            ),
        )
        for group in (UNSERVED, ABSENT)
    ),
    # --- webhooks
    *(hook.step for hook in HOOKS),
    # --- not now
    Step(
        "evict",
        "POST",
        f"{PODS}/pod/eviction",
        Key("create", "pods", "pod", 429, subresource="eviction", verdict=GUARDED),
        EVICTION,
    ),
    Step(
        "flow-full",
        "GET",
        f"{NAMESPACES}/{FULL}/configmaps/one",
        Key("get", "configmaps", "one", 429, namespace=FULL, etcd=False, verdict=NO_SEAT),
        user=CLUSTER_ADMIN,
        during=HOLDING,
    ),
    # --- the end
    Step("delete", "DELETE", f"{MAPS}/one", Key("delete", "configmaps", "one", 200)),
    Step("delete-missing", "DELETE", f"{MAPS}/one", Key("delete", "configmaps", "one", 404)),
    Step("delete-all", "DELETE", MAPS, Key("deletecollection", "configmaps", "", 200)),
)
STEPS: Final = (*WORKLOAD, *(step.during for step in WORKLOAD if step.during is not None))
"""All of them, also those that are there for another's sake."""


# --- what they need ---------------------------------------------------------------------------------
class Scenery:
    """What the requests need of a control plane and cannot lay themselves."""

    def __init__(self, plain: Plain, server: HttpsServer) -> None:
        self._plain, self._server = plain, server
        self._dead = free_port()

    def lay(self) -> None:
        """Lay it, and wait until the API server goes by it."""
        for kind in ("mutating", "validating"):
            hooks = [hook.to_json(self._server, self._dead) for hook in (*HOOKS, HOLD) if hook.kind == kind]
            self._post(
                f"/apis/admissionregistration.k8s.io/v1/{kind}webhookconfigurations",
                {
                    "apiVersion": "admissionregistration.k8s.io/v1",
                    "kind": f"{kind.capitalize()}WebhookConfiguration",
                    "metadata": {"name": "workload"},
                    "webhooks": hooks,
                },
            )
        self._lay_aggregated()
        self._lay_full_flow()
        wait_until(self._hooks_are_called, "webhooks are called", by=self._plain.api)

    def before(self, what: str) -> None:
        """Wait for what the step before brought about."""
        if what == "custom-create":
            client = self._plain.client()
            wait_until(lambda: client.code(BALLS) == 200, "the custom resource is served", by=self._plain.api)

    @contextmanager
    def meanwhile(self, step: Step | None) -> Iterator[list[Answer]]:
        """While this one is being served, which a slow webhook holds up; its answer, afterwards."""
        answers: list[Answer] = []
        if step is None:
            yield answers
            return
        self._server.asked.clear()
        self._server.go_on.clear()
        thread = threading.Thread(target=lambda: answers.append(step.make(self._plain)))
        thread.start()
        try:
            assert self._server.asked.wait(30), f"{step.what} did not come as far as its webhook"
            yield answers
        finally:
            self._server.go_on.set()
            thread.join()

    def _hooks_are_called(self) -> bool:
        return all(
            self._plain.client()
            .request("POST", f"{NAMESPACES}/default/configmaps?dryRun=All", config_map("x", {"hook": f"{kind}-deny"}))
            .code
            == 403
            for kind in ("mutating", "validating")
        )

    def _lay_aggregated(self) -> None:
        for group, port in ((AGGREGATED, self._server.port), (UNSERVED, self._dead), (ABSENT, 0)):
            name = group.partition(".")[0]
            if port:
                spec = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}
                service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
                self._post(f"{NAMESPACES}/default/services", service)
            self._post(
                "/apis/apiregistration.k8s.io/v1/apiservices",
                {
                    "apiVersion": "apiregistration.k8s.io/v1",
                    "kind": "APIService",
                    "metadata": {"name": f"v1.{group}"},
                    "spec": {
                        "group": group,
                        "version": "v1",
                        "groupPriorityMinimum": 100,
                        "versionPriority": 100,
                        "service": {"namespace": "default", "name": name, "port": port or 443},
                        "caBundle": base64.b64encode(self._server.authority).decode(),
                    },
                },
            )
        for group, available in ((AGGREGATED, "True"), (UNSERVED, "False"), (ABSENT, "False")):
            wait_until(self._available(group, available), f"{group} is {available}", by=self._plain.api)

    def _available(self, group: str, wanted: str) -> Callable[[], bool]:
        def known() -> bool:
            answer = self._plain.client().request("GET", f"/apis/apiregistration.k8s.io/v1/apiservices/v1.{group}")
            conditions = answer.json().get("status", {}).get("conditions", [])
            return any(one["type"] == "Available" and one["status"] == wanted for one in conditions)

        return known

    def _lay_full_flow(self) -> None:
        api = "flowcontrol.apiserver.k8s.io/v1"
        self._post(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": FULL}})
        self._post(
            f"/apis/{api}/prioritylevelconfigurations",
            {
                "apiVersion": api,
                "kind": "PriorityLevelConfiguration",
                "metadata": {"name": FULL},
                "spec": {
                    "type": "Limited",
                    "limited": {
                        "nominalConcurrencyShares": 0,
                        "lendablePercent": 0,
                        "borrowingLimitPercent": 0,
                        "limitResponse": {"type": "Reject"},
                    },
                },
            },
        )
        self._post(
            f"/apis/{api}/flowschemas",
            {
                "apiVersion": api,
                "kind": "FlowSchema",
                "metadata": {"name": FULL},
                "spec": {
                    "priorityLevelConfiguration": {"name": FULL},
                    "matchingPrecedence": 2,
                    "rules": [
                        {
                            "subjects": [{"kind": "User", "user": {"name": CLUSTER_ADMIN}}],
                            "resourceRules": [
                                {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": [FULL]}
                            ],
                        }
                    ],
                },
            },
        )

    def _post(self, path: str, body: dict[str, Any]) -> None:
        made = self._plain.client().request("POST", path, body)
        assert made.code == 201, made.body
