"""What a span is and does, for somebody who knows neither etcd nor the API server, and where it comes from.

Two lines each: what happens in it and what its time means; which releases send it and what gives it its attributes.
docs/facts.md 3.2, 3.3, 4, 5, 7, 10, 12.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from receiver.traces.model import Component, Kind, Span
from receiver.traces.tree import is_webhook_call

LONGEST: Final = 156
"""Characters of either line, names of senders aside: one line of a wide terminal, two of 80 columns."""
_SENDER: Final = 60
"""Characters of a service's or scope's name that are repeated."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Two lines about a span. Names in them are a sender's: to be made printable."""

    what: str
    origin: str
    known: bool = True
    """Whether it is a span of Kubernetes or of a program that it calls."""


def explain(span: Span, above: Span | None = None, *, scope: str = "") -> Explanation:
    """What a span is.

    Args:
        above: its parent, where that is held.
        scope: its instrumentation scope, "" where not known: it only names the sender of what is not known.
    """
    name = span.name.lstrip("/")  # gRPC's own way to write a method
    found = None
    if span.component is Component.WEBHOOK:
        return _of_webhook(span, scope)
    if span.component is Component.APISERVER:
        found = _of_apiserver(span, name, above)
    elif span.component is Component.ETCD:
        found = _of_etcd(span, name)
    elif span.component is Component.KUBELET:
        found = _of_kubelet(span, name)
    elif span.component is Component.RUNTIME:
        found = _of_runtime(span, name)
    return found or _unknown(span, scope)


def _sent_by(text: str, absent: str) -> str:
    return text[:_SENDER] or absent


def _unknown(span: Span, scope: str) -> Explanation:
    service, scope = _sent_by(span.service, "without a name"), _sent_by(scope, "without a name")
    return Explanation(
        f"Not a span of Kubernetes that this program knows: service {service}, scope {scope} sent it.",
        "Its name and its attributes mean what the author of that program meant by them.",
        known=False,
    )


def _of_webhook(span: Span, scope: str) -> Explanation:
    service = _sent_by(span.service, "without a name")
    if span.kind is Kind.SERVER:
        what = f"The webhook's own span, sent by its program ({service}): from taking the review until it has answered."
    elif span.kind is Kind.CLIENT:
        what = f"A call that the webhook's own program ({service}) makes to others, perhaps back to the API server."
    else:
        what = f"A step inside the webhook's own program ({service}): its author knows what is done there."
    return Explanation(
        what,
        "Only webhooks that their author instrumented send spans; name and attributes are that program's"
        f" (scope {_sent_by(scope, 'without a name')}).",
    )


# --- the API server ----------------------------------------------------------------------------------
_HANDLER: Final = (
    "kube-apiserver 1.26 and later, its own tracing calls: verb, resource, url, user-agent, audit-id; since 1.29 also"
    " api-group, namespace, name."
)
_FILTER: Final = "kube-apiserver 1.34 and later, from its filter latency tracing; without attributes."
_STORAGE: Final = "kube-apiserver 1.26 and later, its own tracing calls: key, type, resource, audit-id"

FILTERS: Final = Explanation(
    "What a request passes before it is handled: audit, impersonation, priority and fairness, authorization; only"
    " the own time of each.",
    _FILTER,
)
"""Of the line that stands for the whole chain of filters."""

_INSIDE: Final[dict[str, Explanation]] = {
    "authentication": Explanation(
        "Finds out who is calling; a token webhook has no span and is own time here. From 1.34 on it lasts as long as"
        " the whole request.",
        "kube-apiserver 1.26 and later, filter latency tracing, no attributes. Since 1.33 a trace of its own for all"
        " but privileged callers.",
    ),
    "audit": Explanation(
        "Decides what of the request goes to the audit log, then lets it pass to the next filter; only its own time is"
        " spent on auditing.",
        _FILTER,
    ),
    "impersonation": Explanation(
        "Checks whether a caller who wants to act as somebody else (kubectl --as) may do so; costs others next to"
        " nothing.",
        _FILTER,
    ),
    "constrainedimpersonation": Explanation(
        "Checks whether a caller who wants to act as somebody else (kubectl --as) may do so, and for what; costs others"
        " next to nothing.",
        "kube-apiserver 1.34 and later with the feature gate for constrained impersonation; filter latency tracing, no"
        " attributes.",
    ),
    "priorityandfairness": Explanation(
        "Gives the request a seat of its priority level (API priority and fairness). When all are taken it waits in a"
        " queue: its own time.",
        _FILTER,
    ),
    "authorization": Explanation(
        "Decides whether this caller may do this: by RBAC in memory, or by an authorization webhook, which has no span:"
        " own time here.",
        _FILTER,
    ),
    # the handler of each verb
    "Get": Explanation(
        "The handler that answers the read of one object: it gets it from the watch cache or etcd, encodes it and sends"
        " it.",
        _HANDLER,
    ),
    "List": Explanation(
        "The handler that answers a list, mostly from the watch cache; of many or big objects the encoding below it"
        " takes longest.",
        _HANDLER,
    ),
    "Create": Explanation(
        "The handler that makes an object: it decodes the body, asks admission and its webhooks, writes to etcd and"
        " sends the answer.",
        _HANDLER,
    ),
    "Update": Explanation(
        "The handler that replaces an object: it reads the old one, asks admission, and writes; if another writer came"
        " between, once more.",
        _HANDLER,
    ),
    "Patch": Explanation(
        "The handler that changes parts of an object (patch, server-side apply): read, apply, admission, write; on a"
        " conflict once more.",
        _HANDLER,
    ),
    "Delete": Explanation(
        "The handler that deletes an object, or a whole collection where no name is given; finalizers and grace periods"
        " make that a mark only.",
        _HANDLER,
    ),
    "WatchList": Explanation(
        "The handler of a watch that first streams what there is, in place of a list; it ends when that is sent, while"
        " the watch goes on.",
        "kube-apiserver 1.36 and later, its own tracing calls: verb, resource, group, namespace, name, url, user-agent,"
        " audit-id.",
    ),
    "WatchServer.HandleHTTP": Explanation(
        "Sends the first part of a watch, the objects that are there already; what happens to them later is in no"
        " span.",
        "kube-apiserver 1.36 and later, its own tracing calls, and only of watches that begin with a list: method, url,"
        " mediaType, encoder.",
    ),
    "SerializeObject": Explanation(
        "Encodes the answer and writes it to the connection. Long for a big answer or a client that reads slowly; the"
        " span hardly tells which.",
        "kube-apiserver 1.26 and later, its own tracing calls: mediaType, encoder, url, audit-id; its event has the"
        " size of the answer.",
    ),
    # the watch cache and etcd behind it
    "cacher.GetList": Explanation(
        "Lists out of the watch cache, which is in memory; where the answer has to be up to date, it waits until the"
        " cache is.",
        "kube-apiserver 1.32 and later (before that: cacher list), its own tracing calls: audit-id, type; events count"
        " the objects.",
    ),
    "cacher list": Explanation(
        "Lists out of the watch cache, which is in memory; where the answer has to be up to date, it waits until the"
        " cache is.",
        "kube-apiserver 1.26 to 1.31 (since then: cacher.GetList), its own tracing calls: audit-id, type; events count"
        " the objects.",
    ),
    "cacher.Get": Explanation(
        "Reads one object from the watch cache, or from etcd below it. A conversion webhook can be own time here: a"
        " read may give it no span.",
        "kube-apiserver 1.32 and later, its own tracing calls: key, resource-version, audit-id.",
    ),
    "cacher.Watch": Explanation(
        "Signs a new watcher in at the watch cache; short, because the events that it is sent later are in no span.",
        "kube-apiserver 1.36 and later, its own tracing calls: type, audit-id.",
    ),
    "cacher.getKeys": Explanation(
        "The watch cache asks storage for keys without the objects behind them.",
        "kube-apiserver 1.37 and later, its own tracing calls: key, group, resource, audit-id.",
    ),
    "Get etcd3": Explanation(
        "Reads one object from etcd and decodes it; the call to etcd is below.",
        "kube-apiserver 1.37 and later, its own tracing calls: key, group, resource, audit-id.",
    ),
    "Create etcd3": Explanation(
        "Stores a new object: encodes it, encrypts it where that is on, and writes it in one Txn, which fails if the"
        " key is there already.",
        f"{_STORAGE}; events mark the steps.",
    ),
    "GuaranteedUpdate etcd3": Explanation(
        "Changes a stored object by a Txn that only holds if nobody changed it meanwhile; else it reads again and"
        " tries once more.",
        f"{_STORAGE}; each event Retry value restored is a conflict.",
    ),
    "List(recursive=true) etcd3": Explanation(
        "Reads all objects below a key from etcd, page by page: for the watch cache, or past it.",
        "kube-apiserver 1.26 and later, its own tracing calls: key, limit, continue, resourceVersion, audit-id.",
    ),
    "List(recursive=false) etcd3": Explanation(
        "A read of etcd below the watch cache; with limit 1 it only asks for the newest revision, to know whether the"
        " cache is behind.",
        "kube-apiserver 1.26 and later, its own tracing calls: key, limit, continue, resourceVersion, audit-id.",
    ),
    # others that the API server asks
    "Call mutating webhook": Explanation(
        "Asks a mutating admission webhook, which may change the object. They are asked one after the other: each adds"
        " its time.",
        "kube-apiserver 1.26 and later, its own tracing calls: webhook, configuration, operation, resource; events:"
        " answered, patched.",
    ),
    "Call validating webhook": Explanation(
        "Asks a validating admission webhook, which may refuse the object but not change it. They are asked side by"
        " side: the slowest counts.",
        "kube-apiserver 1.26 and later, its own tracing calls: webhook, configuration, operation, resource; event:"
        " answered.",
    ),
    "Call conversion webhook": Explanation(
        "Asks the webhook of a custom resource to turn objects into another version of its API. Not every conversion"
        " has this span.",
        "kube-apiserver, seen in 1.36, its own tracing calls: custom-resource-definition, desired-api-version,"
        " object-count.",
    ),
}
_KMS: Final = (
    "kube-apiserver 1.29 and later with KMS v2, its own tracing calls: transformer.provider.name, ids of the key and"
    " of its state."
)
_BEGINNINGS: Final[tuple[tuple[str, Explanation], ...]] = (
    (
        "TransformToStorage with ",
        Explanation(
            "Encrypts an object before it is stored. The key service (KMS) has no span: where it is slow, that is own"
            " time here.",
            _KMS,
        ),
    ),
    (
        "TransformFromStorage with ",
        Explanation(
            "Decrypts a stored object. The key service (KMS) has no span: where it is slow, that is own time here.",
            _KMS,
        ),
    ),
    (
        "Proxy via ",
        Explanation(
            "Opens a connection through the egress proxy (konnectivity) that calls of the API server have to go"
            " through here.",
            "kube-apiserver 1.26 and later with an egress selector configuration, its own tracing calls: address.",
        ),
    ),
)

_METHOD: Final = re.compile(r"(?:HTTP )?(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|CONNECT|TRACE)")
_SERVED: Final = (
    "kube-apiserver 1.31 and later (1.33 ends it too early), from otelhttp: method, http.target, status, user agent;"
    " audit-id since 1.34."
)
_OLD_NAME: Final = "KubernetesAPI"
_CALLED: Final = "from otelhttp: method, url, server.address, status code; what went wrong is its status."


def _of_apiserver(span: Span, name: str, above: Span | None) -> Explanation | None:
    if span.kind is Kind.SERVER:
        return _request(span, name, above)
    if span.kind is Kind.CLIENT:
        return _etcd_call(name, client=True) or _http_call(name, above)
    found = _INSIDE.get(name)
    return found or next((said for start, said in _BEGINNINGS if name.startswith(start)), None)


def _request(span: Span, name: str, above: Span | None) -> Explanation:
    """The API server's SERVER span, in both styles of its name."""
    if above is not None and above.kind is Kind.CLIENT and above.component is Component.APISERVER:
        if above.instance != span.instance:
            return Explanation(
                "The request once more, inside the aggregated API server that it was passed on to: the time that one"
                " took.",
                "Any API server built on k8s.io/apiserver with tracing on, from otelhttp; it calls itself apiserver too"
                " but is another instance.",
            )
        return Explanation(
            "The API server serves a call that it made to itself (loopback): its own controllers are clients like any"
            " other.",
            _SERVED,
        )
    if name == _OLD_NAME:
        return Explanation(
            "One API request, from when it came in until its answer was written, a watch until it closed.",
            "kube-apiserver 1.22 to 1.30, which call every request so, from otelhttp: method, http.target, status, user"
            " agent.",
        )
    if _METHOD.fullmatch(name):
        return Explanation(
            "A request for something that is no object: a probe (/livez, /readyz), /metrics, discovery, OpenAPI;"
            " http.target has the path.",
            _SERVED,
        )
    return Explanation(
        "One API request, from when its caller is known until its answer is written. That of a watch comes when the"
        " watch closes.",
        _SERVED,
    )


def _http_call(name: str, above: Span | None) -> Explanation | None:
    if not _METHOD.fullmatch(name):
        return None
    # without the spans inside (1.22 to 1.25) calls of webhooks and of aggregated APIs look the same: a bare POST
    if above is not None and (is_webhook_call(above.name) or (above.name == _OLD_NAME and name == "POST")):
        return Explanation(
            "The HTTPS call to the webhook, connection and TLS included. What no span below covers is the network, or"
            " it does not trace.",
            f"kube-apiserver 1.22 and later (up to 1.25: POST), {_CALLED}",
        )
    if above is not None:
        return Explanation(
            "The request is passed on to an aggregated API server. What no span below covers is the network, or that"
            " one does not trace.",
            f"kube-apiserver 1.22 and later, {_CALLED}",
        )
    return Explanation(
        "A call of the API server itself, mostly to itself (loopback): its controllers and start-up steps use the API"
        " like any client.",
        f"kube-apiserver 1.22 and later, {_CALLED}",
    )


# --- etcd --------------------------------------------------------------------------------------------
_ETCD_CALLS: Final[dict[str, str]] = {
    "KV/Range": "A read in etcd: one key or a range of keys, the dearer the more it returns.",
    "KV/Txn": "The write in etcd: compare and put in one step, one round of consensus among the members and a flush to"
    " disk.",
    "KV/Put": "A write of one key in etcd, without a condition: consensus and a flush to disk. Objects are written by"
    " Txn.",
    "KV/DeleteRange": "Deletes a key or a range of keys in etcd: consensus and a flush to disk. Objects are deleted by"
    " Txn instead.",
    "KV/Compact": "Drops old revisions in etcd, so that its database does not grow for ever; an API server asks for it"
    " now and then.",
    "Lease/LeaseGrant": "Makes a lease in etcd, a write: keys that hang on it (events above all) vanish when it runs"
    " out.",
    "Lease/LeaseRevoke": "Ends a lease in etcd, a write: the keys that hang on it are deleted.",
    "Lease/LeaseKeepAlive": "A stream that renews etcd leases; it lasts as long as the connection, and only then comes"
    " its span.",
    "Lease/LeaseTimeToLive": "Asks how long a lease in etcd still lasts.",
    "Lease/LeaseLeases": "Lists the leases in etcd.",
    "Watch/Watch": "The stream on which etcd tells of every change; it feeds the watch cache and has its span when it"
    " ends.",
    "Maintenance/Status": "Asks an etcd member how it is: version, size of its database, who leads.",
    "Maintenance/Alarm": "Asks for etcd's alarms or clears one: no space left, corruption.",
    "Maintenance/Defragment": "Gives free space of an etcd member's database back; the member answers nothing"
    " meanwhile.",
    "Maintenance/Hash": "Has an etcd member add up its database, to compare it with others.",
    "Maintenance/HashKV": "Has an etcd member add up its keys, to compare it with others.",
    "Maintenance/Snapshot": "Sends a copy of an etcd member's whole database: a backup is being taken.",
    "Maintenance/MoveLeader": "Hands the leadership of etcd to another member.",
    "Maintenance/Downgrade": "Prepares etcd for an older version.",
}
_ETCD_SERVICES: Final[dict[str, str]] = {
    "KV": "A call of etcd's key-value API.",
    "Lease": "A call about leases of etcd.",
    "Watch": "A call of etcd's watch API.",
    "Maintenance": "An operator's call to an etcd member.",
    "Cluster": "Asks for the members of the etcd cluster, or changes who belongs to it.",
    "Auth": "A call about etcd's own users and roles, which Kubernetes does not use.",
}
_ETCD_CLIENT: Final = (
    "kube-apiserver 1.22 and later, from otelgrpc in its etcd client: method and status, named otherwise from 1.36 on;"
    " peer."
)
_ETCD_SERVER: Final = (
    "etcd 3.5 and later with distributed tracing on, from otelgrpc: method and status, named otherwise from 3.7 on;"
    " peer."
)
_HEALTH: Final = "grpc.health.v1.Health/"


def _etcd_call(name: str, *, client: bool) -> Explanation | None:
    if name.startswith(_HEALTH):
        what: str | None = "Asks whether the server is well."
    elif name.startswith("etcdserverpb."):
        call = name.partition(".")[2]
        what = _ETCD_CALLS.get(call) or _ETCD_SERVICES.get(call.partition("/")[0])
    else:
        what = None
    if what is None:
        return None
    if client:
        return Explanation(f"{what} Seen by the API server, network included.", _ETCD_CLIENT)
    return Explanation(f"{what} Seen by etcd itself.", _ETCD_SERVER)


def _inner(attributes: str) -> str:
    return f"etcd 3.7 and later with distributed tracing on, its own tracing calls: {attributes}."


_PROPOSAL: Final = "Between its events Send raft proposal and Receive raft result it waits for consensus and disk."
_ETCD_INSIDE: Final[dict[str, Explanation]] = {
    "range": Explanation(
        "Inside etcd, the read itself: finds the keys and collects what is returned.",
        _inner("range_begin, range_end, rev, limit, count_only, keys_only"),
    ),
    "range_streaming": Explanation(
        "Inside etcd, a read that is returned piece by piece.",
        _inner("range_begin, range_end, rev, limit, count_only, keys_only"),
    ),
    "put": Explanation(f"Inside etcd, the write of one key. {_PROPOSAL}", _inner("key")),
    "delete_range": Explanation(f"Inside etcd, the deletion of keys. {_PROPOSAL}", _inner("range_begin, range_end")),
    "txn": Explanation(
        f"Inside etcd, compare and write in one step. {_PROPOSAL}",
        _inner("compare_first_key, success_first_key, success_first_type, read_only"),
    ),
    "compact": Explanation("Inside etcd, the dropping of old revisions.", _inner("is_physical, rev")),
    "lease_grant": Explanation(f"Inside etcd, the making of a lease. {_PROPOSAL}", _inner("id, ttl")),
    "lease_revoke": Explanation(f"Inside etcd, the end of a lease. {_PROPOSAL}", _inner("id")),
    "lease_renew": Explanation("Inside etcd, the renewal of a lease, which is the leader's to do.", _inner("id")),
    "watch": Explanation(
        "Inside etcd, one watcher from its creation until it is cancelled: its length says nothing.",
        _inner("key, range_end, start_rev, prev_kv, fragment"),
    ),
}


def _of_etcd(span: Span, name: str) -> Explanation | None:
    if span.kind is Kind.SERVER:
        return _etcd_call(name, client=False)
    return _ETCD_INSIDE.get(name)


# --- kubelet and container runtime -------------------------------------------------------------------
_KUBELET: Final = "kubelet 1.25 and later with tracing on, its own tracing calls"
_KUBELET_INSIDE: Final[dict[str, Explanation]] = {
    "syncPod": Explanation(
        "The kubelet brings a pod to the state that it should have: mirror pod, sandbox, images, containers. Of a new"
        " pod, its whole start.",
        f"{_KUBELET}: k8s.pod, k8s.namespace.name, uid, and k8s.pod.update_type: create, sync or update.",
    ),
    "syncTerminatingPod": Explanation(
        "The kubelet stops a pod's containers; a grace period that is used up passes in StopContainer below.",
        f"{_KUBELET}: k8s.pod, k8s.pod.name, k8s.pod.uid, k8s.namespace.name.",
    ),
    "syncTerminatedPod": Explanation(
        "The kubelet tidies up after a pod whose containers have all stopped.",
        f"{_KUBELET}: k8s.pod, k8s.pod.name, k8s.pod.uid, k8s.namespace.name.",
    ),
    "Containers/GarbageCollect": Explanation(
        "The kubelet removes dead containers and sandboxes that nobody needs, every minute or so.",
        f"{_KUBELET}; without attributes of note.",
    ),
    "Images/GarbageCollect": Explanation(
        "The kubelet looks whether images take too much of the disk, and removes unused ones if so.",
        f"{_KUBELET}; without attributes of note.",
    ),
}
_CRI_CALLS: Final[dict[str, str]] = {
    "RunPodSandbox": "Makes what a pod's containers share (sandbox): network namespace with its address (CNI) and pause"
    " container.",
    "StopPodSandbox": "Stops a pod's sandbox and takes its network down.",
    "RemovePodSandbox": "Removes a stopped sandbox with all that is left in it.",
    "PodSandboxStatus": "Asks for the state of one sandbox: its address, whether it is ready.",
    "ListPodSandbox": "Lists the sandboxes: the kubelet polls so about once a second.",
    "PodSandboxStats": "Asks what a pod uses of CPU and memory.",
    "ListPodSandboxStats": "Asks what all pods use of CPU and memory: polled.",
    "CreateContainer": "Prepares a container: file system out of the image's layers, mounts, configuration. It does not"
    " run yet.",
    "StartContainer": "Starts a prepared container: its first process runs when this ends.",
    "StopContainer": "Stops a container: asks it to end, waits for the grace period at most, then kills it. That wait"
    " is in here.",
    "RemoveContainer": "Removes a stopped container and its file system.",
    "ContainerStatus": "Asks for the state of one container: running, exit code, image.",
    "ListContainers": "Lists the containers: the kubelet polls so about once a second to see what died.",
    "ContainerStats": "Asks what a container uses of CPU, memory and disk.",
    "ListContainerStats": "Asks what all containers use of CPU, memory and disk: polled for metrics.",
    "UpdateContainerResources": "Changes the CPU and memory limits of a running container.",
    "ReopenContainerLog": "Begins a new log file of a container after the old one was rotated.",
    "ExecSync": "Runs a command in a container and waits for its end: exec probes do so.",
    "Exec": "Prepares a terminal in a container (kubectl exec); the session itself is not inside.",
    "Attach": "Prepares to attach to a container (kubectl attach); the session itself is not inside.",
    "PortForward": "Prepares a port forward into a pod; the session itself is not inside.",
    "GetContainerEvents": "A stream of what happens to containers, in place of polling; it lasts as long as the"
    " connection.",
    "CheckpointContainer": "Writes the state of a running container to a file.",
    "UpdateRuntimeConfig": "Tells the runtime the range of pod addresses.",
    "Status": "Asks whether runtime and network are ready: polled; the node is NotReady where they are not.",
    "Version": "Asks for name and version of the runtime: polled.",
    "RuntimeConfig": "Asks which cgroup driver the runtime uses.",
    "PullImage": "Fetches an image from its registry and unpacks it: long for big images, far registries, slow disks.",
    "ImageStatus": "Asks whether an image is on the node already.",
    "ListImages": "Lists the images on the node: polled.",
    "RemoveImage": "Removes an image from the node.",
    "ImageFsInfo": "Asks how much disk the images take: polled.",
}
_OTHER_CALL: Final = "A call of the container runtime interface (CRI)."
_CONTAINERD: Final = "containerd 1.6 and later with tracing on, its own tracing calls"
_SHIM_CALLS: Final[dict[str, str]] = {
    "Create": "containerd asks the container's shim to set the process up (runc create).",
    "Start": "containerd asks the container's shim to let the process run (runc start).",
    "Connect": "containerd asks a container's shim which process it minds.",
    "State": "containerd asks a container's shim whether its process runs.",
    "Kill": "containerd asks a container's shim to send its process a signal.",
    "Wait": "containerd waits until a container's process ends: as long as the container lives, or is being stopped.",
    "Delete": "containerd has a container's shim clear away its ended process.",
    "Shutdown": "containerd asks a shim to end: its pod is gone.",
    "Stats": "containerd asks a container's shim what it uses of CPU and memory.",
    "Pids": "containerd asks a container's shim which processes it has.",
    "Exec": "containerd asks a container's shim to run one more process in the container.",
    "Update": "containerd asks a container's shim to change its limits.",
}
_CONTAINERD_INSIDE: Final[dict[str, str]] = {
    "client.NewContainer": "containerd enters a new container into its books, with its snapshot.",
    "client.LoadContainer": "containerd looks a container up in its books.",
    "container.NewTask": "containerd makes the process of a container: it starts the shim and asks that one to create"
    " it.",
    "container.Delete": "containerd strikes a container and its snapshot from its books.",
    "task.Start": "containerd lets the prepared process of a container run.",
    "task.Kill": "containerd sends a signal to the process of a container.",
    "task.Wait": "containerd begins to wait for the end of a container's process.",
    "task.Delete": "containerd clears away the ended process of a container.",
}
_CONTAINERD_GROUPS: Final[tuple[tuple[str, str], ...]] = (
    ("metadata.", "containerd reads or writes its own database (bolt, on disk)."),
    ("pull.", "A part of fetching an image: asking the registry, or loading a layer."),
    ("pkg.unpack.", "A part of unpacking an image: its layers are written to disk one on top of the other."),
    ("remotes.docker.", "containerd talks to an image registry."),
    ("client.", "A step of containerd with its client library."),
    ("container.", "A step of containerd about one container."),
    ("task.", "A step of containerd about the process of one container."),
)
_SHIM: Final = re.compile(r"containerd\.task\.v\d+\.Task/(\w+)")
_CRI: Final = re.compile(r"runtime\.v1\w*\.(?:Runtime|Image)Service/(\w+)")


def _cri_call(name: str, seen: str, origin: str) -> Explanation | None:
    call = _CRI.fullmatch(name)
    return Explanation(f"{_CRI_CALLS.get(call[1], _OTHER_CALL)} Seen by {seen}.", origin) if call else None


def _of_kubelet(span: Span, name: str) -> Explanation | None:
    if span.kind is Kind.CLIENT:
        if _METHOD.fullmatch(name):
            return Explanation(
                "The kubelet calls the API server: pod and node status, its lease, events. The API server's own trace"
                " of it only links to here.",
                f"kubelet 1.25 and later with tracing on, {_CALLED}",
            )
        return _cri_call(
            name,
            "the kubelet",
            "kubelet 1.25 and later with tracing on, from otelgrpc: method, status, server.address (the runtime's"
            " socket).",
        )
    if span.kind is Kind.SERVER:
        return Explanation(
            "A request to the kubelet itself: logs, exec, metrics, statistics. It never joins its caller's trace, it"
            " links to it.",
            "kubelet 1.25 and later with tracing on, from otelrestful; the name is the route.",
        )
    return _KUBELET_INSIDE.get(name)


def _of_runtime(span: Span, name: str) -> Explanation | None:
    crio = span.service in ("crio", "cri-o")
    if span.kind is Kind.SERVER:
        said = _cri_call(
            name,
            "the runtime itself",
            "CRI-O with tracing on, from otelgrpc: method and status."
            if crio
            else "containerd 1.6 and later with tracing on, from otelgrpc: method, status; its own: ids and names of"
            " container and sandbox.",
        )
        if said is not None:
            return said
        if name.startswith("containerd.services.events."):
            return Explanation(
                "A shim tells containerd what happened to its container: started, ended, out of memory.",
                f"{_CONTAINERD} for ttrpc: method and status.",
            )
        if name.startswith("containerd.services."):
            return Explanation(
                "Somebody uses containerd's own API: ctr, nerdctl, a monitoring agent. The kubelet does not.",
                "containerd 1.6 and later with tracing on, from otelgrpc: method and status.",
            )
    shim = _SHIM.fullmatch(name)
    if shim is not None:
        what = _SHIM_CALLS.get(shim[1], "containerd asks the shim that minds a container's process.")
        return Explanation(what, f"{_CONTAINERD} for ttrpc: method and status, by the older attribute names.")
    if name.startswith("github.com/cri-o/"):
        return Explanation(
            "A step inside CRI-O: the name is the function of its source that does it.",
            "CRI-O with tracing on, its own tracing calls; few attributes.",
        )
    inside = _CONTAINERD_INSIDE.get(name) or next(
        (s for start, s in _CONTAINERD_GROUPS if name.startswith(start)), None
    )
    return None if inside is None else Explanation(inside, f"{_CONTAINERD}: ids of container, task, sandbox or image.")
