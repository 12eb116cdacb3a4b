"""Who works at a span, and which two spans are the two sides of one call.

A call has a CLIENT span at its caller and a SERVER span at the one called. Shown as one hop, what matters is the time
that neither side explains: the network, connections and TLS, queues before the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from receiver.store.chunk import ROLE_WEBHOOK
from receiver.store.index import Index
from receiver.traces.model import Component, Kind, Node, Trace
from receiver.traces.tree import is_webhook_call, walk

_SERVICES: Final = {
    Component.APISERVER: "apiserver",
    Component.ETCD: "etcd",
    Component.KUBELET: "kubelet",
}


@dataclass(frozen=True, slots=True)
class Hop:
    """One call. `gap` is the client's time that the server's span does not cover, of which `there` went by before the
    server began and `back` after it ended; both are below 0 where clocks disagree or the server goes on after its
    client has left. `crosses`: the two sides name different senders, so that two clocks may be involved."""

    client: Node
    server: Node
    gap: int
    there: int
    back: int
    crosses: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where a span stands. `label` is for a column: component, `aggregated apiserver`, or the name of the service;
    `webhook` and `configuration` are of the webhook whose call the span is part of, "" elsewhere."""

    component: Component
    label: str
    aggregated: bool = False
    webhook: str = ""
    configuration: str = ""
    hop: Hop | None = None


def places(trace: Trace, webhooks: Mapping[str, tuple[str, str]] | None = None) -> dict[str, Place]:
    """The place of every span by its id (facts: kubernetes-tracing 7.4).

    Args:
        webhooks: of `webhooks_of`, or {} where they are not known.

    An API server is an aggregated one when another API server called it: its span is the server side of a CLIENT span
    of another instance. Of spans with one id the last in the tree counts. Linear in the spans.
    """
    webhooks = webhooks or {}
    found: dict[str, Place] = {}
    parts: dict[int, tuple[str, str, str]] = {}  # by node: webhook, configuration, aggregated instance
    nothing = ("", "", "")
    above: dict[int, Node] = {}
    for node in walk(trace):
        for child in node.children:
            above[id(child)] = node
        span = node.span
        parent = above.get(id(node))
        webhook, configuration, aggregated = parts.get(id(parent), nothing) if parent is not None else nothing
        if span.component is Component.APISERVER and is_webhook_call(span.name):
            webhook, configuration = webhooks.get(span.span_id, ("", ""))
        if parent is not None and _calls_aggregated(parent, node):
            aggregated = span.instance
        parts[id(node)] = (webhook, configuration, aggregated)
        own = span.component is Component.APISERVER and span.instance == aggregated != ""
        label = "aggregated apiserver" if own else _SERVICES.get(span.component) or span.service
        found[span.span_id] = Place(
            span.component, label or span.component.value, own, webhook, configuration, hop_of(node)
        )
    return found


def webhooks_of(index: Index, trace_id: str) -> dict[str, tuple[str, str]]:
    """(webhook, configuration) of each `Call ... webhook` span of a trace, by its id, from the index alone."""
    with index.lock:
        slot = index.slot_of(trace_id)
        if slot is None or index.webhook_fact[slot] < 0:
            return {}
        role, row, names = index.fact("role"), index.fact("fact_row"), index.names
        name, detail = index.fact("name"), index.fact("detail")
        return {
            f"{int(index.span[row[fact]]):016x}": (names[int(name[fact])], names[int(detail[fact])])
            for fact in index.facts_of(slot)
            if role[fact] == ROLE_WEBHOOK
        }


def _calls_aggregated(client: Node, server: Node) -> bool:
    caller, called = client.span, server.span
    return (
        caller.kind is Kind.CLIENT
        and called.kind is Kind.SERVER
        and caller.component is called.component is Component.APISERVER
        and caller.instance != called.instance
    )


def hop_of(client: Node) -> Hop | None:
    """The hop of a CLIENT span, None without its server side. Of several answers (retries) the last counts."""
    if client.span.kind is not Kind.CLIENT or not client.span.start:
        return None
    server = next((node for node in reversed(client.children) if node.span.kind is Kind.SERVER), None)
    if server is None or not server.span.start:
        return None
    caller, called = client.span, server.span
    there, back = called.start - caller.start, caller.end - called.end
    inside = max(0, min(caller.end, called.end) - max(caller.start, called.start))
    crosses = (caller.service, caller.instance) != (called.service, called.instance)
    return Hop(client, server, max(0, caller.duration - inside), there, back, crosses)
