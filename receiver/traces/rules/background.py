"""Traces without an API request, told by what they are: the kubelet's work, calls to etcd or a runtime that no request
caused, lone `authentication` spans, and parts of a request whose own span is not here."""

from __future__ import annotations

from collections.abc import Iterable

from receiver.traces.model import Component, Kind, Node
from receiver.traces.rules import etcd
from receiver.traces.rules.case import FAILED, MAX_NODES, VERBS, Case, Finding, cut, listed, time_text
from receiver.traces.timing import FILTERS, STREAMS, Step

_PODS = ("syncPod", "syncTerminatingPod", "syncTerminatedPod")


def findings(case: Case) -> list[Finding]:
    """The causes in a trace without a request: etcd's, and calls to a runtime that failed."""
    found = list(etcd.slow(case)) if _of_etcd(case.head) else []
    return [*found, *failed_calls(case)]


def failed_calls(case: Case) -> Iterable[Finding]:
    """A failed call of the kubelet has status 2, with the runtime's words (5). That something is not found, or is there
    already, is everyday: pods come and go."""
    for node in [n for n in case.nodes if n.span.status == FAILED and n.span.kind is Kind.CLIENT][:MAX_NODES]:
        said, code = case.message(node), case.attribute(node, "code") or case.attribute(node, "rpc_code")
        if code in ("404", "409", "5", "NotFound", "NOT_FOUND", "6", "AlreadyExists", "ALREADY_EXISTS"):
            continue
        if node.span.name in STREAMS:
            continue  # ends when its client leaves
        why = said or (f"answered with {code}" if code else "")
        name = _name(node)
        where = _address(case, node)
        why = f": {why.rstrip('. ')}" if why else "; its span does not say why"
        text = f"{name}{f' to {where}' if where else ''} failed{why}."
        yield Finding("call failed", text, f"{name} failed", case.time_of(node), True, node.span.span_id)
        return


def _address(case: Case, node: Node) -> str:
    """Where an HTTP call went: its URL without the query, else its server; "" for other calls."""
    if not node.span.name.startswith("HTTP "):
        return ""
    url = cut(case.attribute(node, "url", 2_048).partition("?")[0])
    host, port = case.attribute(node, "host"), case.attribute(node, "port")
    return url or (f"{host}:{port}" if host and port and ":" not in host else host)


def told(case: Case) -> str:
    """One sentence on what the trace is and where its time went."""
    head = case.head
    span, component = head.span, head.span.component
    took = time_text(case.duration)
    if span.name in STREAMS:
        return f"A stream to etcd ({_name(head)}), open for {took}: it lasts as long as its client likes."
    if component is Component.APISERVER:
        if span.name == "authentication" and not span.parent_id:
            return (
                f"The authentication of a request that has a trace of its own, or that was refused with 401; since "
                f"1.34 its {took} are those of the whole request."
            )
        if _of_etcd(head):
            return f"The API server's own work with etcd, not a request's: {_name(head)} took {took}."
        if span.kind is Kind.CLIENT:
            return f"A call by the API server, {cut(span.name, 80)}, took {took}; the side called is not in this trace."
        if span.name in FILTERS or span.name in VERBS or span.parent_id:
            return f"Part of a request whose own span is not here: {_what(case)} took {took}.{_late(head)}"
    if _of_etcd(head):
        return f"etcd answered {_name(head)} in {took}; the side that called is not in this trace."
    return f"{_what(case)} took {took}{_parts(case)}."


def _of_etcd(head: Node) -> bool:
    return head.span.name.startswith("etcdserverpb.")


def _name(node: Node) -> str:
    """`RunPodSandbox` of `runtime.v1.RuntimeService/RunPodSandbox`, other names as they are."""
    name = node.span.name
    return cut(name.rpartition("/")[2] if "." in name.partition("/")[0] else name, 80)


def _late(head: Node) -> str:
    return " A watch sends that when it closes." if head.span.name in ("List", "WatchList", "cacher.Watch") else ""


def _what(case: Case) -> str:
    """What the headline worked on: `WatchList of pods in default`, `syncPod of kube-system/etcd-cp-1`."""
    head = case.head
    if head.span.name in VERBS:
        resource, namespace = case.attribute(head, "resource", 80), case.attribute(head, "namespace", 80)
        where = f" in {namespace}" if namespace else ""
        return f"{_name(head)}{f' of {resource}{where}' if resource else ''}"
    if head.span.name in _PODS:
        pod = case.attribute(head, "k8s.pod", 120)
        if not pod:
            name, namespace = case.attribute(head, "k8s.pod.name", 80), case.attribute(head, "k8s.namespace.name", 80)
            pod = f"{namespace}/{name}" if namespace and name else name
        return f"{_name(head)}{f' of {pod}' if pod else ''}"
    return _name(head)


def _parts(case: Case) -> str:
    """What the headline waited for, its direct calls by name; a span that only wraps another is looked through."""
    steps = case.path.steps
    top = 0
    while True:
        below = [at for at, step in enumerate(steps) if step.parent == top]
        if len(below) != 1 or not _wraps(steps[top], steps[below[0]]):
            break
        top = below[0]
    times: dict[str, list[int]] = {}
    for at in below:
        times.setdefault(_name(steps[at].node), []).append(steps[at].end - steps[at].start)
    parts = sorted(times.items(), key=lambda part: -sum(part[1]))
    parts = [part for part in parts if sum(part[1]) >= 0.05 * case.duration][:3]
    said = [f"{name}{f' {len(ns)} times' if len(ns) > 1 else ''} {case.took(sum(ns))}" for name, ns in parts]
    own = steps[top].end - steps[top].start - sum(sum(ns) for ns in times.values())
    if parts and own >= 0.5 * case.duration:
        said.append(f"{case.took(own)} its own work")
    return f", of which {listed(said)}" if said else ""


def _wraps(outer: Step, inner: Step) -> bool:
    """Whether a span says no more than the one below it: the caller's side of a call, or all but all of its time."""
    sides = outer.node.span.kind is Kind.CLIENT and inner.node.span.kind is Kind.SERVER
    return sides or inner.end - inner.start >= 0.95 * (outer.end - outer.start)
