"""Spans of several hosts shown as if their clocks agreed. For the eye only: what is stored never changes.

A call's server side lies within its client side. Where the two were stamped by different clocks and it does not, it
is shown in the middle of it, and with it all that the server's own clock stamped below (docs/facts.md 13.2). Nothing
moves within one clock, nor further than `LIMIT`: what is off by more was stepped, or is no call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from receiver.store.chunk import NANOSECOND_MAX
from receiver.traces.hops import clocks_differ, sender_of
from receiver.traces.model import Body, Kind, Node, Span, Trace
from receiver.traces.timing import self_times
from receiver.traces.tree import build, walk

LIMIT: Final = 10_000_000_000
"""Nanoseconds that a server side is moved at most."""
MAX_SENDERS: Final = 64
"""Senders of one trace whose host is looked up; others are a clock of their own each."""
_HOSTS: Final = ("k8s.node.name", "host.name")
_Clock = tuple[str, ...]
_Place = tuple[int, int]


class Source(Protocol):
    """Where bodies come from: `receiver.traces.bodies.Bodies`."""

    def bodies(self, spans: Sequence[Span]) -> list[Body | None]:
        """Bodies of these spans, None where they are gone."""


@dataclass(frozen=True, slots=True)
class Shift:
    """A hop that does not fit: `ns` by which its server side, as sent, is shown later (below 0: earlier). `refused`:
    that is more than `LIMIT`, so it stays where it is."""

    client: Span
    server: Span
    ns: int
    refused: bool


@dataclass(frozen=True, slots=True)
class Alignment:
    """`trace` with its spans moved, the one given where nothing moves; `shifts` by hop in the order of the tree."""

    trace: Trace
    shifts: tuple[Shift, ...]
    _moved: Mapping[_Place, int]
    _hops: Mapping[_Place, Shift]

    def moved(self, span: Span) -> int:
        """Nanoseconds by which this span is shown later than it was sent."""
        return self._moved.get(_place(span), 0)

    def shift(self, span: Span) -> Shift | None:
        """The hop that did not fit of which this span is a side, if it is one."""
        return self._hops.get(_place(span))


def hosts_of(trace: Trace, source: Source) -> dict[tuple[str, str], str]:
    """The node or host of each sender of a trace, where its resource tells it: the clock that it shares with others.

    Raises:
        StoreError: the bodies cannot be read.
    """
    first: dict[tuple[str, str], Span] = {}
    for node in walk(trace):
        if len(first) < MAX_SENDERS:
            first.setdefault(sender_of(node.span), node.span)
    if len(first) < 2:
        return {}
    hosts: dict[tuple[str, str], str] = {}
    for sender, body in zip(first, source.bodies(list(first.values())), strict=True):
        values = [body.resource.get(key) for key in _HOSTS] if body is not None else []
        host = next((value for value in values if isinstance(value, str) and value), "")
        if host:
            hosts[sender] = host
    return hosts


def align(trace: Trace, hosts: Mapping[tuple[str, str], str] | None = None) -> Alignment:
    """A trace with each server side where its client was waiting for it.

    Args:
        trace: stays as it is.
        hosts: of `hosts_of`; senders of one host have one clock, others one each.

    A clock that was met further up is not guessed again, so what calls back into the first process stays with it.
    Orphans and roots stay, as do spans without a start time or with one that was clamped. Linear, but for the sorting
    of `tree.build`.
    """
    hosts = hosts or {}
    shifts: list[Shift] = []
    moved: dict[_Place, int] = {}
    met: dict[_Clock, int] = {}  # by clock, above the node that is looked at: what its spans are moved by
    spans: list[Span] = []
    stack: list[tuple[Node | None, Node | None, _Clock]] = [(root, None, ()) for root in reversed(trace.roots)]
    while stack:
        node, parent, leaving = stack.pop()
        if node is None:
            del met[leaving]
            continue
        span = node.span
        clock = _clock(span, hosts)
        if clock not in met:
            met[clock] = 0
            stack.append((None, None, clock))
            if parent is not None and parent.span.kind is Kind.CLIENT and span.kind is Kind.SERVER:
                ahead = met[_clock(parent.span, hosts)]
                ns = _misfit(parent.span, span, ahead if _movable(parent.span, ahead) else 0)
                if ns and _movable(span, ns):
                    shifts.append(Shift(parent.span, span, ns, abs(ns) > LIMIT))
                    met[clock] = 0 if abs(ns) > LIMIT else ns
        ns = met[clock]
        if ns and _movable(span, ns):
            moved[_place(span)] = ns
            span = replace(span, start=span.start + ns, end=span.end + ns)
        spans.append(span)
        stack += [(child, node, ()) for child in reversed(node.children)]
    if moved:
        request = trace.request
        trace = build(spans, settled=trace.settled, missing=trace.missing, left_out=trace.left_out)
        self_times(trace)
        trace.request = request
    hops = {_place(side): shift for shift in shifts for side in (shift.client, shift.server)}
    return Alignment(trace, tuple(shifts), moved, hops)


def _place(span: Span) -> _Place:
    return span.chunk, span.row


def _clock(span: Span, hosts: Mapping[tuple[str, str], str]) -> _Clock:
    sender = sender_of(span)
    host = hosts.get(sender)
    return (host,) if host else sender


def _misfit(client: Span, server: Span, ahead: int) -> int:
    """What a server side is to be moved by, with its client shown `ahead` ns later."""
    if not (_told(client) and _told(server)):
        return 0
    start = client.start + ahead
    if server.duration > client.duration:  # it outlived the call: all that is known is that it did not begin before
        return max(0, start - server.start)
    if not clocks_differ(client, server, ahead):
        return 0
    return start + (client.duration - server.duration) // 2 - server.start


def _told(span: Span) -> bool:
    return 0 < span.start <= span.end < NANOSECOND_MAX


def _movable(span: Span, ns: int) -> bool:
    """Whether the span has times, and would still have them."""
    far = max(span.start, span.end)
    return span.start > 0 and min(span.start, span.end) + ns > 0 and far < NANOSECOND_MAX and far + ns < NANOSECOND_MAX
