"""The cluster of the demo: who lives in it and what they do, as a function of a seed.

Two API servers with their etcd members, two worker nodes, two admission webhooks that trace themselves and one
that nobody answers. Most of it is what any cluster does all day: leases, probes, status patches, events. Between
them happen the things that an operator looks for: a slow webhook, one that times out, a denied pod, a dead
webhook, a forbidden user, conflicts, a very large list, a queue, and etcd standing still.

Nothing here knows the wall clock: times are nanoseconds since the start of the run.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from receiver.ingest.demo_nodes import Node, Pod, call_runtime, start_pod
from receiver.ingest.demo_requests import (
    ACCESS_REVIEWS,
    CLUSTERROLES,
    CONFIGMAPS,
    DEPLOYMENTS,
    ENDPOINTSLICES,
    EVENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    PROTOBUF,
    REPLICASETS,
    SECRETS,
    SERVICEACCOUNTS,
    SERVICES,
    WIDGETS,
    Caller,
    Hook,
    Kind,
    Plane,
    Story,
    Target,
    Visit,
    call_api,
    call_etcd,
    request,
)
from receiver.ingest.demo_spans import MS, US, Context, Finished, Process, S, Scope, Spans

STALL_FIRST: Final = 6 * S + 200 * MS
STALL_EVERY: Final = 47 * S
STALL_LASTS: Final = 2 * S + 600 * MS


def stalled_until(at: int) -> int:
    """Until when the etcd member of cp-2 answers nothing, if it stands still at `at`; else 0."""
    since = (at - STALL_FIRST) % STALL_EVERY
    return at - since + STALL_LASTS if at >= STALL_FIRST and since < STALL_LASTS else 0


# --- the cast ------------------------------------------------------------------------------------
_CP_1, _CP_2, _WORKER_1, _WORKER_2 = "192.0.2.11", "192.0.2.12", "192.0.2.21", "192.0.2.22"

PLANE_1: Final = Plane(
    Process("apiserver", "apiserver-h3q7mxzd5vkt2nbrwy4jcefoga", "cp-1", _CP_1, 6443),
    Process("etcd", "cp-1", "cp-1", _CP_1, 2379),
)
PLANE_2: Final = Plane(
    Process("apiserver", "apiserver-pz6l2s4dyu5t3kqmwbv7xohenc", "cp-2", _CP_2, 6443),
    Process("etcd", "cp-2", "cp-2", _CP_2, 2379),
    stalled_until,
)
PLANES: Final = (PLANE_1, PLANE_2)


def _worker(name: str, address: str) -> Node:
    sdk = (
        ("telemetry.sdk.language", "go"),
        ("telemetry.sdk.name", "opentelemetry"),
        ("telemetry.sdk.version", "1.46.0"),
    )
    return Node(
        Process("kubelet", "", name, address, extra=(("host.name", name),)),
        Process("containerd", "", name, address, extra=sdk, schema_url="https://opentelemetry.io/schemas/1.43.0"),
    )


WORKERS: Final = (_worker("worker-1", _WORKER_1), _worker("worker-2", _WORKER_2))


def _webhook(name: str, instance: str, pod: str) -> Process:
    extra = (
        ("telemetry.sdk.language", "python"),
        ("telemetry.sdk.name", "opentelemetry"),
        ("telemetry.sdk.version", "1.45.2"),
        ("k8s.namespace.name", "policy"),
        ("k8s.pod.name", pod),
    )
    return Process(name, instance, "worker-1", _WORKER_1, 8443, "OTel-OTLP-Exporter-Python/1.45.2", extra)


INJECTOR: Final = _webhook("label-injector", "0f0c6b1e-51c4-4b0e-9b7a-6d2f4f1f8a11", "label-injector-6f7d9c5b8-p9w2x")
POLICY: Final = _webhook("name-policy", "7be2a5d4-0a3c-4a55-8f0e-2f6f0b9d3c27", "name-policy-5d8c7f9b6d-kq4tz")

INJECT: Final = Hook(
    True,
    "label-injector",
    "label-injector.example.com",
    "label-injector.policy.svc",
    "/mutate",
    5,
    INJECTOR,
    Scope("label-injector", "1.2.0"),
)
VALIDATE: Final = Hook(
    False,
    "name-policy",
    "name-policy.example.com",
    "name-policy.policy.svc",
    "/validate",
    1,
    POLICY,
    Scope("name-policy", "0.9.3"),
)
DEAD: Final = Hook(
    False,
    "dead-policy",
    "dead-policy.example.com",
    "dead-policy.policy.svc",
    "/validate",
    2,
    None,
    Scope("dead-policy"),
)
"""failurePolicy Fail, and nothing listens behind its service."""

PROCESSES: Final = (
    *(plane.api for plane in PLANES),
    *(plane.etcd for plane in PLANES),
    *(node.kubelet for node in WORKERS),
    *(node.runtime for node in WORKERS),
    INJECTOR,
    POLICY,
)
"""Everything that exports."""

_BUILD: Final = "v1.36.2 (linux/amd64) kubernetes/8c5a2f1"
_KUBECTL: Final = f"kubectl/{_BUILD}"
_KUBECTL_ACCEPT: Final = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)

ADMIN: Final = Caller(_KUBECTL, "192.0.2.50", _KUBECTL_ACCEPT, privileged=True)
DEVELOPER: Final = Caller(_KUBECTL, "192.0.2.61", "application/json")
CURL: Final = Caller("curl/8.14.1", "192.0.2.50", "*/*", privileged=True)
ARGO: Final = Caller("argocd-application-controller/v3.1.4 (linux/amd64)", "192.0.2.21", "application/json")
PROMETHEUS: Final = Caller("Prometheus/3.5.0", "192.0.2.22", "application/openmetrics-text", protocol="HTTP/1.1")
PROBE: Final = Caller("kube-probe/1.36", "127.0.0.1", "*/*", protocol="HTTP/1.1")
METRICS: Final = Caller("metrics-server/v0.8.0 (linux/amd64) kubernetes/a1b2c3d", "192.0.2.22")
API: Final = Caller(f"kube-apiserver/{_BUILD}", "::1", privileged=True)


def _component(name: str, part: str) -> Caller:
    return Caller(f"{name}/{_BUILD}/{part}", _CP_1)


def _controller(part: str) -> Caller:
    return _component("kube-controller-manager", part)


SCHEDULER: Final = _component("kube-scheduler", "scheduler")


def _kubelet(node: Node) -> Caller:
    return Caller(f"kubelet/{_BUILD}", node.kubelet.address, f"{PROTOBUF},application/json")


_DEPLOYMENTS: Final = (
    ("kube-system", "coredns", "registry.k8s.io/coredns/coredns:v1.12.1", 2),
    ("kube-system", "metrics-server", "registry.k8s.io/metrics-server/metrics-server:v0.8.0", 1),
    ("default", "shop", "ghcr.io/example/shop:2.4.1", 4),
    ("default", "cart", "ghcr.io/example/cart:1.9.0", 3),
    ("payments", "ledger", "ghcr.io/example/ledger:5.0.2", 2),
    ("monitoring", "grafana", "docker.io/grafana/grafana:12.1.0", 1),
    ("ingress-nginx", "ingress-nginx-controller", "registry.k8s.io/ingress-nginx/controller:v1.13.0", 2),
    ("argocd", "argocd-server", "quay.io/argoproj/argocd:v3.1.4", 1),
)
_SUFFIX: Final = "bcdfghjklmnpqrstvwxz2456789"
"""The letters of generated names: no vowels, so that no words come out (k8s.io/apimachinery/pkg/util/rand)."""


@dataclass(frozen=True, slots=True)
class _Actor:
    """Somebody who does something again and again: first at `first`, then about every `period` (ns)."""

    name: str
    first: int
    period: int
    act: Callable[[Spans, int], None]
    spread: float = 0.1  # how far the period varies; 1.0 and more: at random moments (Poisson)


class Cluster:
    """What happens in the synthetic cluster.

    Args:
        seed: the same seed gives the same spans, ids and times.
        rate: ordinary API requests a second, besides the leases, probes and incidents that have their own pace.
    """

    def __init__(self, seed: int, rate: float) -> None:
        self.seed = seed
        self.rate = rate
        random = Random(f"{seed}/names")
        self._sets = [
            (namespace, name, f"{name}-{self._letters(random, 10)}", image)
            for namespace, name, image, _ in _DEPLOYMENTS
        ]
        self._pods = [
            self._pod(random, namespace, replica_set, image)
            for (namespace, _, replica_set, image), (_, _, _, replicas) in zip(self._sets, _DEPLOYMENTS, strict=True)
            for _ in range(replicas)
        ]

    def activity(self) -> Iterator[tuple[int, list[Finished]]]:
        """Endless: (when something began, its spans), in that order. A span ends later than it is given here;
        an exporter keeps it until then."""
        queue: list[tuple[int, int]] = []
        actors = self._actors()
        generators = [Spans(Random(f"{self.seed}/{actor.name}")) for actor in actors]
        for number, actor in enumerate(actors):
            heapq.heappush(queue, (actor.first, number))
        while queue:
            at, number = heapq.heappop(queue)
            actor, spans = actors[number], generators[number]
            actor.act(spans, at)
            heapq.heappush(queue, (at + self._pause(actor, spans.random), number))
            yield at, spans.take()

    @staticmethod
    def _pause(actor: _Actor, random: Random) -> int:
        if actor.spread >= 1:
            return max(US, int(random.expovariate(1 / actor.period)))
        return int(actor.period * (1 + actor.spread * (2 * random.random() - 1)))

    def _actors(self) -> list[_Actor]:
        actors = [
            _Actor("admin", 200 * MS, 7 * S, self._admin, 0.5),
            _Actor("rollout", 400 * MS, 24 * S, self._rollout),
            _Actor("slow webhook", 1100 * MS, 19 * S, self._slow_webhook, 0.3),
            _Actor("denied", 2 * S, 23 * S, self._denied, 0.3),
            _Actor("dead webhook", 2700 * MS, 29 * S, self._dead_webhook, 0.3),
            _Actor("forbidden", 3300 * MS, 17 * S, self._forbidden, 0.4),
            _Actor("large list", 4200 * MS, 37 * S, self._large_list, 0.2),
            _Actor("forced", 5200 * MS, 41 * S, self._forced, 0.2),
            _Actor("during stall", STALL_FIRST + 150 * MS, STALL_EVERY, self._during_stall, 0.0),
            _Actor("queued", 9 * S, 43 * S, self._queued, 0.2),
        ]
        for number, plane in enumerate(PLANES):
            name, shift = plane.api.host, number * 700 * MS
            actors += [
                _Actor(f"{name} readyz", 100 * MS + shift, 2 * S, self._probe(plane, "/readyz"), 0.02),
                _Actor(f"{name} livez", 150 * MS + shift, 10 * S, self._probe(plane, "/livez"), 0.02),
                _Actor(f"{name} metrics", 1300 * MS + shift, 15 * S, self._metrics(plane), 0.02),
                _Actor(f"{name} lease", 900 * MS + shift, 10 * S, self._identity_lease(plane), 0.04),
                _Actor(f"{name} loopback", 600 * MS + shift, 5 * S, self._loopback(plane), 0.5),
                _Actor(f"{name} etcd", 250 * MS + shift, 3 * S, self._background_etcd(plane), 0.5),
            ]
        for number, node in enumerate(WORKERS):
            name, plane = node.kubelet.host, PLANES[number]
            shift = number * 1300 * MS
            actors += [
                _Actor(f"{name} lease", 500 * MS + shift, 10 * S, self._node_lease(node, plane), 0.04),
                _Actor(f"{name} runtime", 800 * MS + shift, 4 * S, self._poll_runtime(node), 0.3),
            ]
        for number, component in enumerate(("kube-controller-manager", "kube-scheduler")):
            caller = _component(component, "leader-election")
            lease = Target("update", LEASES, "kube-system", component, query="timeout=5s")
            elect = self._repeat(PLANE_1, caller, lease, Story(size=470))
            actors.append(_Actor(f"{component} lease", 300 * MS + number * 900 * MS, 2 * S, elect, 0.02))
        if self.rate > 0:
            actors.append(_Actor("ordinary", 20 * MS, max(US, int(S / self.rate)), self._ordinary, 1.0))
        return actors

    # --- names -----------------------------------------------------------------------------------
    @staticmethod
    def _letters(random: Random, count: int) -> str:
        return "".join(random.choice(_SUFFIX) for _ in range(count))

    def _pod(self, random: Random, namespace: str, replica_set: str, image: str) -> Pod:
        uid = Spans(random).uuid()
        return Pod(namespace, f"{replica_set}-{self._letters(random, 5)}", uid, image)

    # --- at their own pace -----------------------------------------------------------------------
    @staticmethod
    def _repeat(
        plane: Plane, caller: Caller, target: Target, story: Story, *, loopback: bool = False
    ) -> Callable[[Spans, int], None]:
        def act(spans: Spans, at: int) -> None:
            request(spans, at, plane, caller, target, story, loopback=loopback)

        return act

    def _probe(self, plane: Plane, path: str) -> Callable[[Spans, int], None]:
        return self._repeat(plane, PROBE, Target("get", None, path=path), Story())

    def _metrics(self, plane: Plane) -> Callable[[Spans, int], None]:
        return self._repeat(plane, PROMETHEUS, Target("get", None, path="/metrics"), Story(size=412_881))

    def _identity_lease(self, plane: Plane) -> Callable[[Spans, int], None]:
        target = Target("update", LEASES, "kube-system", plane.api.instance)
        return self._repeat(plane, API, target, Story(size=722), loopback=True)

    def _loopback(self, plane: Plane) -> Callable[[Spans, int], None]:
        targets = (
            Target("get", ENDPOINTSLICES, "default", "kubernetes"),
            Target("get", NAMESPACES, name="kube-system"),
            Target("get", CLUSTERROLES, name="system:aggregate-to-view"),
            Target("get", None, path="/openapi/v3"),
        )

        def act(spans: Spans, at: int) -> None:
            request(spans, at, plane, API, spans.random.choice(targets), loopback=True)

        return act

    @staticmethod
    def _background_etcd(plane: Plane) -> Callable[[Spans, int], None]:
        """Watch-cache refills, compaction and lease handling: calls without a request around them."""
        methods = ("KV/Range", "KV/Range", "KV/Txn", "Lease/LeaseGrant", "Maintenance/Status")

        def act(spans: Spans, at: int) -> None:
            call_etcd(spans, at, plane, spans.random.choice(methods))

        return act

    def _node_lease(self, node: Node, plane: Plane) -> Callable[[Spans, int], None]:
        target = Target("update", LEASES, "kube-node-lease", node.kubelet.host, query="timeout=10s")
        return self._repeat(plane, _kubelet(node), target, Story(size=390))

    @staticmethod
    def _poll_runtime(node: Node) -> Callable[[Spans, int], None]:
        """The kubelet looks what runs; now and then it asks for a container that is gone."""

        def act(spans: Spans, at: int) -> None:
            now = at
            for method in ("RuntimeService/ListPodSandbox", "RuntimeService/ListContainers"):
                _, _, now = call_runtime(spans, now + MS, node, method, spans.between(80 * US, 900 * US))
            if spans.random.random() < 0.15:
                gone = f'an error occurred when try to find container "{spans.hexadecimal(32)}": not found'
                call_runtime(spans, now, node, "RuntimeService/ContainerStatus", 70 * US, error=gone)

        return act

    # --- what any cluster does -------------------------------------------------------------------
    def _ordinary(self, spans: Spans, at: int) -> None:
        deeds: tuple[tuple[int, Callable[[Spans, int, Plane], None]], ...] = (
            (18, self._status_patch),
            (14, self._event),
            (14, self._controller_read),
            (13, self._controller_write),
            (9, self._people_list),
            (7, self._review),
            (6, self._kubelet_read),
            (5, self._operator),
            (4, self._missing),
            (3, self._discovery),
            (2, self._conflict),
            (1, self._watch),
        )
        chosen = spans.random.randrange(sum(weight for weight, _ in deeds))
        for weight, deed in deeds:
            chosen -= weight
            if chosen < 0:
                deed(spans, at, spans.random.choice(PLANES))
                return

    def _status_patch(self, spans: Spans, at: int, plane: Plane) -> None:
        node, pod = spans.random.choice(WORKERS), spans.random.choice(self._pods)
        target = Target("patch", PODS, pod.namespace, pod.name, "status")
        story = Story(size=spans.between(4200, 9800))
        call_api(spans, at, node.kubelet, plane, _kubelet(node), target, story)

    def _event(self, spans: Spans, at: int, plane: Plane) -> None:
        pod = spans.random.choice(self._pods)
        event = f"{pod.name}.{spans.hexadecimal(8)}"
        verb = "patch" if spans.random.random() < 0.4 else "create"
        caller = SCHEDULER if spans.random.random() < 0.4 else _kubelet(spans.random.choice(WORKERS))
        request(spans, at, plane, caller, Target(verb, EVENTS, pod.namespace, event), Story(size=640))

    def _controller_read(self, spans: Spans, at: int, plane: Plane) -> None:
        namespace, name, replica_set, _ = spans.random.choice(self._sets)
        controller, target = spans.random.choice(
            (
                ("generic-garbage-collector", Target("get", REPLICASETS, namespace, replica_set)),
                ("generic-garbage-collector", Target("get", DEPLOYMENTS, namespace, name)),
                ("root-ca-certificate-publisher", Target("get", CONFIGMAPS, namespace, "kube-root-ca.crt")),
                ("service-account-controller", Target("get", SERVICEACCOUNTS, namespace, "default")),
            )
        )
        request(spans, at, plane, _controller(controller), target)

    def _controller_write(self, spans: Spans, at: int, plane: Plane) -> None:
        namespace, name, replica_set, _ = spans.random.choice(self._sets)
        controller, target = spans.random.choice(
            (
                ("deployment-controller", Target("update", DEPLOYMENTS, namespace, name, "status")),
                ("replicaset-controller", Target("update", REPLICASETS, namespace, replica_set, "status")),
                ("endpointslice-controller", Target("update", ENDPOINTSLICES, namespace, f"{name}-x8k2d")),
                ("node-lifecycle-controller", Target("patch", NODES, name="worker-2", subresource="status")),
            )
        )
        request(spans, at, plane, _controller(controller), target)

    def _people_list(self, spans: Spans, at: int, plane: Plane) -> None:
        namespace = spans.random.choice(self._sets)[0]
        caller = spans.random.choice((DEVELOPER, ADMIN, ARGO))
        kind = spans.random.choice((PODS, SERVICES, DEPLOYMENTS, CONFIGMAPS))
        items = spans.between(2, 40)
        target = Target("list", kind, namespace, query="limit=500")
        request(spans, at, plane, caller, target, Story(items=items, size=items * spans.between(900, 2400)))

    def _review(self, spans: Spans, at: int, plane: Plane) -> None:
        if spans.random.random() < 0.6:
            request(spans, at, plane, METRICS, Target("create", ACCESS_REVIEWS), Story(stored=False, size=460))
            return
        pod, node = spans.random.choice(self._pods), spans.random.choice(WORKERS)
        target = Target("create", SERVICEACCOUNTS, pod.namespace, "default", "token")
        call_api(spans, at, node.kubelet, plane, _kubelet(node), target, Story(stored=False, size=1480))

    def _kubelet_read(self, spans: Spans, at: int, plane: Plane) -> None:
        pod, node = spans.random.choice(self._pods), spans.random.choice(WORKERS)
        target = Target("get", PODS, pod.namespace, pod.name)
        call_api(spans, at, node.kubelet, plane, _kubelet(node), target, Story(size=spans.between(4200, 9800)))

    def _operator(self, spans: Spans, at: int, plane: Plane) -> None:
        name = spans.random.choice(("checkout", "pricing", "search", "ledger"))
        namespace = spans.random.choice(("default", "payments"))
        if spans.random.random() < 0.5:
            query = "fieldManager=argocd-controller&force=true"
            request(spans, at, plane, ARGO, Target("apply", WIDGETS, namespace, name, query=query))
        else:
            request(spans, at, plane, ARGO, Target("get", WIDGETS, namespace, name))

    def _watch(self, spans: Spans, at: int, plane: Plane) -> None:
        kind: Kind = spans.random.choice((PODS, SERVICES, CONFIGMAPS, DEPLOYMENTS, NODES))
        seconds = 6 + spans.random.randrange(30)
        query = f"allowWatchBookmarks=true&timeoutSeconds={seconds}&watch=true"
        if spans.random.random() < 0.5:
            query += "&resourceVersionMatch=NotOlderThan&sendInitialEvents=true"
        caller = _controller("shared-informers")
        story = Story(lasts=seconds * S, size=spans.between(200, 90_000))
        request(spans, at, plane, caller, Target("watch", kind, query=query), story)

    def _missing(self, spans: Spans, at: int, plane: Plane) -> None:
        namespace, name, _, _ = spans.random.choice(self._sets)
        target = spans.random.choice(
            (
                Target("get", PODS, namespace, f"{name}-0"),
                Target("get", SECRETS, namespace, f"{name}-tls"),
                Target("get", CONFIGMAPS, namespace, f"{name}-feature-flags"),
            )
        )
        caller = spans.random.choice((DEVELOPER, ARGO))
        request(spans, at, plane, caller, target, Story(code=404))

    def _discovery(self, spans: Spans, at: int, plane: Plane) -> None:
        path, size = spans.random.choice((("/api", 180), ("/apis", 7_412), ("/version", 263), ("/openapi/v3", 10_203)))
        caller = spans.random.choice((DEVELOPER, ADMIN))
        request(spans, at, plane, caller, Target("get", None, path=path, query="timeout=32s"), Story(size=size))

    def _conflict(self, spans: Spans, at: int, plane: Plane) -> None:
        node = spans.random.choice(WORKERS).kubelet.host
        caller = _controller("ttl-controller")
        request(
            spans, at, plane, caller, Target("patch", NODES, name=node), Story(retries=1 + spans.random.randrange(3))
        )

    # --- what an operator looks for --------------------------------------------------------------
    @staticmethod
    def _visits(spans: Spans) -> tuple[Visit, Visit]:
        """Both hooks, well."""
        return (
            Visit(INJECT, spans.between(3 * MS, 14 * MS)),
            Visit(VALIDATE, spans.between(2 * MS, 22 * MS)),
        )

    def _admin(self, spans: Spans, at: int) -> None:
        """`kubectl get nodes`, `kubectl get pods -A`: a privileged user, so the request hangs below
        `authentication`."""
        plane = spans.random.choice(PLANES)
        if spans.random.random() < 0.5:
            story = Story(items=4, size=18_204)
            request(spans, at, plane, ADMIN, Target("list", NODES, query="limit=500"), story)
        else:
            story = Story(items=len(self._pods), size=len(self._pods) * 2_130)
            request(spans, at, plane, ADMIN, Target("list", PODS, query="limit=500"), story)

    def _rollout(self, spans: Spans, at: int) -> None:
        """Somebody scales a deployment up by two: what follows is the work of five components."""
        namespace, name, replica_set, image = spans.random.choice([s for s in self._sets if s[0] != "kube-system"])
        fields = "fieldManager=kubectl&fieldValidation=Strict"
        scale = Target("patch", DEPLOYMENTS, namespace, name, "scale", query=fields)
        now = request(spans, at, PLANE_2, DEVELOPER, scale)
        deployments = _controller("deployment-controller")
        now = request(
            spans,
            now + spans.between(8 * MS, 30 * MS),
            PLANE_1,
            deployments,
            Target("update", REPLICASETS, namespace, replica_set),
        )
        ready = now
        for node in WORKERS:
            pod = self._pod(spans.random, namespace, replica_set, image)
            create = Target("create", PODS, namespace, pod.name)
            story = Story(visits=self._visits(spans), size=1_420)
            replica_sets = _controller("replicaset-controller")
            now = request(spans, now + spans.between(4 * MS, 12 * MS), PLANE_1, replica_sets, create, story)
            ready = max(ready, self._start(spans, now, node, pod))
        status = Target("update", DEPLOYMENTS, namespace, name, "status")
        conflict = (
            f'Operation cannot be fulfilled on deployments.apps "{name}": the object has been modified; '
            "please apply your changes to the latest version and try again"
        )
        now = request(spans, ready + 4 * MS, PLANE_1, deployments, status, Story(code=409, message=conflict))
        now = request(spans, now + spans.between(5 * MS, 20 * MS), PLANE_1, deployments, status)
        slices = Target("update", ENDPOINTSLICES, namespace, f"{name}-x8k2d")
        request(spans, now + 6 * MS, PLANE_1, _controller("endpointslice-controller"), slices)

    def _start(self, spans: Spans, at: int, node: Node, pod: Pod) -> int:
        """Scheduled, started, reported ready."""
        bind = Target("create", PODS, pod.namespace, pod.name, "binding")
        now = request(spans, at + spans.between(6 * MS, 25 * MS), PLANE_1, SCHEDULER, bind, Story(size=48))
        event = Target("create", EVENTS, pod.namespace, f"{pod.name}.{spans.hexadecimal(8)}")
        request(spans, now + 2 * MS, PLANE_1, SCHEDULER, event, Story(size=812))
        now = start_pod(spans, now + spans.between(12 * MS, 60 * MS), node, pod)
        status = Target("patch", PODS, pod.namespace, pod.name, "status")
        story = Story(size=spans.between(4200, 9800))
        return call_api(spans, now + 20 * MS, node.kubelet, PLANE_2, _kubelet(node), status, story)

    def _slow_webhook(self, spans: Spans, at: int) -> None:
        """The mutating hook takes 1.5 s; the validating one misses its timeout of 1 s and is ignored."""
        visits = (
            Visit(INJECT, 1_500 * MS + spans.between(2 * MS, 40 * MS)),
            Visit(VALIDATE, 1_510 * MS + spans.between(2 * MS, 40 * MS), "timeout"),
        )
        name = f"slow-one-{self._letters(spans.random, 5)}"
        request(spans, at, PLANE_1, ADMIN, self._create(PODS, "default", name), Story(visits=visits, size=1402))

    def _denied(self, spans: Spans, at: int) -> None:
        """The mutating hook refuses a pod: 403, although every HTTP call went well."""
        reason = 'admission webhook "label-injector.example.com" denied the request: no team label'
        visits = (Visit(INJECT, spans.between(5 * MS, 12 * MS), "deny", "no team label"),)
        name = f"deny-me-{self._letters(spans.random, 5)}"
        story = Story(code=403, visits=visits, message=reason)
        request(spans, at, PLANE_2, DEVELOPER, self._create(PODS, "default", name), story)

    def _dead_webhook(self, spans: Spans, at: int) -> None:
        """Nothing listens behind a hook that fails closed: 500 within a millisecond."""
        refused = "dial tcp 10.96.41.7:443: connect: connection refused"
        message = (
            'Internal error occurred: failed calling webhook "dead-policy.example.com": failed to call webhook: '
            f'Post "{DEAD.url}": {refused}'
        )
        visits = (Visit(DEAD, spans.between(200 * US, 900 * US), "refused", refused),)
        name = f"blocked-{self._letters(spans.random, 5)}"
        story = Story(code=500, visits=visits, message=message)
        request(spans, at, PLANE_1, ADMIN, self._create(SERVICES, "default", name), story)

    def _forbidden(self, spans: Spans, at: int) -> None:
        """A developer asks for secrets that are not theirs."""
        plane = spans.random.choice(PLANES)
        target = Target("list", SECRETS, "payments", query="limit=500")
        request(spans, at, plane, DEVELOPER, target, Story(code=403))

    def _large_list(self, spans: Spans, at: int) -> None:
        """Every pod of a big cluster in one answer: half a second of encoding."""
        items = 5_400 + spans.random.randrange(800)
        story = Story(items=items, size=items * 6_120, encoding=480 * MS + spans.between(10 * MS, 200 * MS))
        request(spans, at, PLANE_2, ARGO, Target("list", PODS), story)

    def _forced(self, spans: Spans, at: int) -> None:
        """A privileged request with a traceparent that somebody made up: its parent is never seen (since 1.33)."""
        origin = Context(spans.random.randbytes(16), spans.random.randbytes(8))
        request(spans, at, PLANE_1, CURL, Target("list", NODES), Story(items=4, size=18_204), origin=origin)

    def _during_stall(self, spans: Spans, at: int) -> None:
        """Somebody works while etcd stands still: a write, then a read that waits as well."""
        name = f"during-stall-{self._letters(spans.random, 5)}"
        story = Story(visits=(Visit(INJECT, 6 * MS),), size=224)
        request(spans, at, PLANE_2, ADMIN, self._create(CONFIGMAPS, "default", name), story)
        request(spans, at + 700 * MS, PLANE_2, DEVELOPER, Target("list", PODS, "payments", query="limit=500"))

    def _queued(self, spans: Spans, at: int) -> None:
        """Three requests at once in a crowded priority level: they wait in line before they are served."""
        for number in range(3):
            queued = (700 + 450 * number) * MS + spans.between(1 * MS, 60 * MS)
            target = Target("list", CONFIGMAPS, query="limit=500")
            request(spans, at + number * 3 * MS, PLANE_2, ARGO, target, Story(queued=queued, items=61, size=402_118))

    @staticmethod
    def _create(kind: Kind, namespace: str, name: str) -> Target:
        return Target("create", kind, namespace, name, query="fieldManager=kubectl-create&fieldValidation=Strict")
