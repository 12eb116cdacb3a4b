"""A pod's start as kubelet 1.36 and containerd 2.1 export it, built from chance.

Names, scopes and attributes are those of a real node (kubelet 1.36.2, containerd 2.1.9): the kubelet's `syncPod`
with its CRI calls, and inside them containerd's own spans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from receiver.ingest.demo_spans import (
    CLIENT,
    GRPC_SCOPE,
    INTERNAL,
    MS,
    SERVER,
    US,
    Attribute,
    Attributes,
    Process,
    Scope,
    Spans,
)

KUBELET_SCOPE: Final = Scope("k8s.io/kubernetes/pkg/kubelet")
RUNTIME_SCOPE: Final = Scope("go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc", "0.71.0")
CONTAINERD_SCOPE: Final = Scope("go.opentelemetry.io/otel/sdk/tracer")
TTRPC_SCOPE: Final = Scope("github.com/containerd/otelttrpc", "0.0.0")

_SHIM: Final = "io.containerd.runc.v2"


@dataclass(frozen=True, slots=True)
class Node:
    """The two processes of a node that export."""

    kubelet: Process
    runtime: Process


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as its kubelet sees it; `uid` is its UUID."""

    namespace: str
    name: str
    uid: str
    image: str

    @property
    def container(self) -> str:
        """The container's name: what the deployment is called."""
        return self.name.rsplit("-", 2)[0]


def call_runtime(
    spans: Spans,
    at: int,
    node: Node,
    method: str,
    takes: int,
    parent: Span | None = None,
    attributes: Attributes | None = None,
    error: str = "",
) -> tuple[Span, int, int]:
    """Both sides of a CRI call. Returns the runtime's span, when it began, and when the kubelet had its answer."""
    name = f"runtime.v1.{method}"
    status = {"rpc.response.status_code": "NotFound" if error else "OK"}
    common: dict[str, Attribute] = {
        "rpc.method": name,
        "rpc.system.name": "grpc",
        "server.address": "/run/containerd/containerd.sock",
    }
    client = spans.open(node.kubelet, GRPC_SCOPE, name, CLIENT, at, parent, {**common, **status})
    begins = at + spans.between(120 * US, 900 * US)
    server = spans.open(node.runtime, RUNTIME_SCOPE, name, SERVER, begins, client, remote=True)
    spans.add(server, {**common, **(attributes or {}), **status})
    spans.close(server, begins + takes)
    end = begins + takes + spans.between(90 * US, 700 * US)
    spans.close(client, end)
    if error:
        spans.fail(client, error)
        spans.fail(server, error)
    return server, begins, end


def start_pod(spans: Spans, at: int, node: Node, pod: Pod) -> int:
    """The `syncPod` of a new pod: sandbox, image, container, start. Returns when it ended."""
    root = spans.open(node.kubelet, KUBELET_SCOPE, "syncPod", INTERNAL, at)
    spans.add(
        root,
        {
            "k8s.pod.uid": pod.uid,
            "k8s.pod": f"{pod.namespace}/{pod.name}",
            "k8s.pod.name": pod.name,
            "k8s.pod.update_type": "create",
            "k8s.namespace.name": pod.namespace,
        },
    )
    sandbox, container = spans.hexadecimal(32), spans.hexadecimal(32)
    now = _run_sandbox(spans, at + spans.between(2 * MS, 12 * MS), node, root, pod, sandbox)
    for method, takes in (("RuntimeService/PodSandboxStatus", 60 * US), ("ImageService/ImageStatus", 300 * US)):
        _, _, now = call_runtime(spans, now + spans.between(200 * US, 900 * US), node, method, takes, root)
    if spans.random.random() < 0.5:
        now = _pull(spans, now + MS, node, root, pod.image)
    now = _create(spans, now + spans.between(400 * US, 2 * MS), node, root, pod, sandbox, container)
    takes = spans.between(60 * MS, 180 * MS)
    ids = {"container.id": container, "sandbox.id": sandbox}
    start, begins, now = call_runtime(
        spans, now + spans.between(400 * US, 2 * MS), node, "RuntimeService/StartContainer", takes, root, ids
    )
    _task(spans, begins + 200 * US, begins + takes - 2 * MS, node, start, container)
    done = {"container.start.duration": f"{takes / MS:.6f}ms"}
    spans.event(start, begins + takes - 60 * US, "container started", done)
    now += spans.between(1 * MS, 4 * MS)
    spans.close(root, now)
    return now


def _run_sandbox(spans: Spans, at: int, node: Node, root: Span, pod: Pod, sandbox: str) -> int:
    takes = spans.between(70 * MS, 260 * MS)
    server, now, end = call_runtime(
        spans,
        at,
        node,
        "RuntimeService/RunPodSandbox",
        takes,
        root,
        {"sandbox.id": sandbox, "sandbox.name": f"{pod.name}_{pod.namespace}_{pod.uid}_0"},
    )
    done = now + takes - 2 * MS
    now += spans.between(500 * US, 2 * MS)
    _inside(spans, now, 360 * US, node, server, "metadata.sandbox.Create", {"sandbox.id": sandbox})
    now += spans.between(600 * US, 1500 * US)
    _container(spans, now, 3 * MS, node, server, sandbox, "registry.k8s.io/pause:3.10")
    _task(spans, now + 4 * MS, done, node, server, sandbox)
    _inside(spans, done + 200 * US, 840 * US, node, server, "metadata.sandbox.Update", {"sandbox.id": sandbox})
    return end


def _pull(spans: Spans, at: int, node: Node, root: Span, image: str) -> int:
    takes = spans.between(180 * MS, 900 * MS)
    name = {"image.ref": image}
    server, now, end = call_runtime(spans, at, node, "ImageService/PullImage", takes, root, name)
    now += MS
    _inside(spans, now, takes // 5, node, server, "remotes.docker.resolver.HTTPRequest", {"http.method": "HEAD"})
    now += takes // 5 + MS
    _inside(spans, now, takes // 2, node, server, "pkg.unpack.unpacker.fetchLayer", name)
    now += takes // 2 + MS
    unpack = {**name, "snapshotter": "overlayfs"}
    _inside(spans, now, takes // 5, node, server, "pkg.unpack.unpacker.unpackLayers", unpack)
    return end


def _create(spans: Spans, at: int, node: Node, root: Span, pod: Pod, sandbox: str, container: str) -> int:
    takes = spans.between(14 * MS, 40 * MS)
    server, begins, end = call_runtime(
        spans,
        at,
        node,
        "RuntimeService/CreateContainer",
        takes,
        root,
        {
            "sandbox.id": sandbox,
            "container.id": container,
            "container.name": f"{pod.container}_{pod.name}_{pod.namespace}_{pod.uid}_0",
            "container.image.ref": pod.image,
        },
    )
    _container(spans, begins + 2 * MS, takes - 4 * MS, node, server, container, pod.image)
    done = {"container.create.duration": f"{takes / MS:.6f}ms"}
    spans.event(server, begins + takes - 60 * US, "container created", done)
    return end


def _container(spans: Spans, at: int, takes: int, node: Node, parent: Span, container: str, image: str) -> None:
    attributes = {
        "container.id": container,
        "container.image.ref": image,
        "container.runtime.name": _SHIM,
        "container.snapshotter.name": "overlayfs",
    }
    new = _inside(spans, at, takes, node, parent, "client.NewContainer", attributes)
    stored = {"container.id": container}
    _inside(spans, at + takes - MS, 320 * US, node, new, "metadata.containers.Create", stored)


def _task(spans: Spans, at: int, end: int, node: Node, parent: Span, container: str) -> None:
    """The shim makes and starts a task between `at` and `end`."""
    starts = at + (end - at) * 7 // 8
    attributes = {"task.container.id": container, "task.runtime.name": _SHIM}
    new = _inside(spans, at, starts - at - 300 * US, node, parent, "container.NewTask", attributes)
    _ttrpc(spans, at + (starts - at) // 6, (starts - at) * 3 // 4, node, new, "Create")
    start = _inside(spans, starts, end - starts, node, parent, "task.Start", {"task.id": container})
    _ttrpc(spans, starts + 60 * US, (end - starts) * 3 // 4, node, start, "Start")


def _inside(spans: Spans, at: int, takes: int, node: Node, parent: Span, name: str, attributes: Attributes) -> Span:
    span = spans.open(node.runtime, CONTAINERD_SCOPE, name, INTERNAL, at, parent, attributes)
    spans.close(span, at + takes)
    return span


def _ttrpc(spans: Spans, at: int, takes: int, node: Node, parent: Span, method: str) -> None:
    attributes: dict[str, Attribute] = {
        "rpc.system": "ttrpc",
        "rpc.service": "containerd.task.v3.Task",
        "rpc.method": method,
        "rpc.ttrpc.status_code": 0,
    }
    name = f"containerd.task.v3.Task/{method}"
    span = spans.open(node.runtime, TTRPC_SCOPE, name, CLIENT, at, parent, attributes)
    spans.close(span, at + takes)
