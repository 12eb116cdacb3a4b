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
from receiver.traces.model import Component, Kind, Node, Span, Trace
from receiver.traces.tree import is_webhook_call

_SERVICES: Final = {
    Component.APISERVER: "apiserver",
    Component.ETCD: "etcd",
    Component.KUBELET: "kubelet",
}
_FAILED: Final = 2
_Part = tuple[str, str, str]
"""Of the webhook's call above a span: webhook and configuration; the instance of the aggregated API server it is in."""
_NOTHING: Final[_Part] = ("", "", "")


@dataclass(frozen=True, slots=True)
class Hop:
    """One call. `gap` is the client's time that the server's span does not account for, of which `there` went by
    before the server began and `back` after it ended; both are below 0 where clocks disagree or the server goes on
    after its client has left. `crosses`: the two sides name different senders, so that two clocks may be involved."""

    client: Node
    server: Node
    gap: int
    there: int
    back: int
    crosses: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where a span stands. `label` is for a column: component, `aggregated apiserver`, the name of the service, or the
    first part of a webhook's name for its own process and for the call to it; `webhook` and `configuration` are of the
    webhook whose call the span is part of, "" elsewhere."""

    component: Component
    label: str
    aggregated: bool = False
    webhook: str = ""
    configuration: str = ""
    hop: Hop | None = None


def places(trace: Trace, webhooks: Mapping[str, tuple[str, str]] | None = None) -> dict[str, Place]:
    """The place of every span by its id (docs/facts.md 7.4).

    Args:
        webhooks: of `webhooks_of`, or {} where they are not known.

    An API server is an aggregated one when another API server called it: its span is the server side of a CLIENT span
    of another instance. Of spans with one id the last in the tree counts. Linear in the spans.
    """
    webhooks = webhooks or {}
    found: dict[str, Place] = {}
    known: dict[tuple[int, str, bool, bool, _Part], Place] = {}  # most spans of a trace stand in one of a few places
    stack: list[tuple[Node, Node | None, _Part]] = [(root, None, _NOTHING) for root in reversed(trace.roots)]
    while stack:
        node, parent, part = stack.pop()
        span = node.span
        client = span.kind is Kind.CLIENT
        server = span.component is Component.APISERVER
        calls = server and is_webhook_call(span.name)
        if calls:
            part = (*webhooks.get(span.span_id, ("", "")), part[2])
        elif parent is not None and _calls_aggregated(parent, node):
            part = (*part[:2], span.instance)
        if node.children:
            stack += [(child, node, part) for child in reversed(node.children)]
        if client and server and parent is not None:
            calls = is_webhook_call(parent.span.name)
        named = part[0] != "" and (calls or span.component is Component.WEBHOOK)
        own = server and span.instance == part[2] != ""
        key = (id(span.component), span.service, named, own, part)
        place = known.get(key)
        if place is None:
            place = known[key] = _place(span, named, own, part)
        hop = hop_of(node) if client else None
        if hop is not None:
            place = Place(place.component, place.label, own, place.webhook, place.configuration, hop)
        found[span.span_id] = place
    return found


def _place(span: Span, named: bool, own: bool, part: _Part) -> Place:
    webhook, configuration, _ = part
    label = "aggregated apiserver" if own else _SERVICES.get(span.component) or span.service
    if named:
        label = webhook.partition(".")[0] or webhook
    return Place(span.component, label or span.component.value, own, webhook, configuration)


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
    """The hop of a CLIENT span, None without its server side. Of several answers (retries) the last counts.

    The gap is what of the call its server's span does not cover. Where the clocks of both differ, that is the
    difference of their durations, which needs no agreement of clocks.
    """
    if client.span.kind is not Kind.CLIENT or not client.span.start:
        return None
    server = next((node for node in reversed(client.children) if node.span.kind is Kind.SERVER), None)
    if server is None or not server.span.start:
        return None
    caller, called = client.span, server.span
    crosses = sender_of(caller) != sender_of(called)
    inside = max(0, min(caller.end, called.end) - max(caller.start, called.start))
    if crosses and clocks_differ(caller, called):
        inside = called.duration
    there, back = called.start - caller.start, caller.end - called.end
    return Hop(client, server, max(0, caller.duration - inside), there, back, crosses)


def sender_of(span: Span) -> tuple[str, str]:
    """(service.name, service.instance.id): spans of one sender are of one clock."""
    return span.service, span.instance


def clocks_differ(caller: Span, called: Span, moved: int = 0) -> bool:
    """Whether only clocks that differ explain the times of a call's two sides: the server took no longer than its
    client, and yet does not lie within it. A client that failed may have left while its server went on.

    Args:
        moved: ns by which the caller is shown later than it was sent.
    """
    if called.duration > caller.duration or called.end < called.start:
        return False
    start, end = caller.start + moved, caller.end + moved
    if start <= called.start and called.end <= end:
        return False
    return caller.status != _FAILED or not start <= called.start <= end
