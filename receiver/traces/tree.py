"""From the spans of a trace to its tree.

Every span given is in the tree exactly once, whatever its parents say: parents may be missing (forced traces
invent one, watches never end theirs), be the span itself, form circles, or be sent twice with other content.
What is unusual is marked, nothing is moved, invented or clamped. The result does not depend on the order in
which spans came, because every exporter sends its part when it likes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from operator import attrgetter
from typing import Final

from receiver.store.chunk import NANOSECOND_MAX
from receiver.traces.model import Component, Kind, Node, Oddity, Settled, Span, Trace

_ODDITIES: Final = tuple(Oddity)
_BIT: Final = {oddity: 1 << i for i, oddity in enumerate(_ODDITIES)}
_ORPHAN, _SELF, _CYCLE, _DUPLICATE = (
    _BIT[o] for o in (Oddity.ORPHAN, Oddity.SELF_PARENT, Oddity.CYCLE, Oddity.DUPLICATE)
)
_BACKWARDS, _ZERO, _BEYOND, _BEFORE, _OUTLIVES = (
    _BIT[o] for o in (Oddity.BACKWARDS, Oddity.ZERO_TIME, Oddity.FAR_TIME, Oddity.BEFORE_PARENT, Oddity.OUTLIVES)
)
_FAR: Final = 1 << 64  # later than any time that can be sent
_POSTS: Final = ("HTTP POST", "POST")  # the second until 1.25


@lru_cache(maxsize=256)
def _set_of(bits: int) -> frozenset[Oddity]:
    return frozenset(oddity for oddity in _ODDITIES if bits & _BIT[oddity])


_order: Final = attrgetter("start", "span_id")
# With one id sent several times the rest makes it a total order, whatever the order of arrival.
_total_order: Final = attrgetter(
    "start", "span_id", "end", "parent_id", "name", "status", "kind.value", "request", "chunk", "row"
)


def build(spans: Sequence[Span], *, settled: Settled, missing: int, left_out: int = 0) -> Trace:
    """The tree of one trace's spans; time and memory are linear but for one sort.

    A span is a root when it has no parent, when its parent is not among `spans` (ORPHAN), when it names itself
    (SELF_PARENT), or when it is the earliest member of a circle (CYCLE). Of several spans with one id the first in
    start order takes the children, the others are marked DUPLICATE. `self_ns` stays 0: see `timing.self_times`.

    Args:
        spans: of one trace, in any order.
        settled, missing, left_out: what the caller knows about the trace, kept as they are; `Trace.spans` counts
            `left_out` too.
    """
    ordered = sorted(spans, key=_order)
    count = len(ordered)
    marks = [0] * count
    at: dict[str, int] = {span.span_id: i for i, span in enumerate(ordered)}
    if len(at) < count:
        ordered.sort(key=_total_order)
        at.clear()
        for i, span in enumerate(ordered):
            if at.setdefault(span.span_id, i) != i:
                marks[i] = _DUPLICATE
    parents = [at.get(span.parent_id, -1) for span in ordered]
    for i, parent_at in enumerate(parents):
        parent = ordered[i].parent_id
        if parent and parent == ordered[i].span_id:
            marks[i] |= _SELF
            parents[i] = -1
        elif parent and parent_at < 0:
            marks[i] |= _ORPHAN
        elif not parent:
            parents[i] = -1
    cut_circles(parents, marks)

    _mark_times(ordered, parents, marks)
    nodes = [Node(span, 0, [], _set_of(mark)) for span, mark in zip(ordered, marks, strict=True)]
    roots: list[Node] = []
    for node, parent_at in zip(nodes, parents, strict=True):  # in start order, so all children are too
        (roots if parent_at < 0 else nodes[parent_at].children).append(node)
    stack = list(roots)
    while stack:
        node = stack.pop()
        for child in node.children:
            child.depth = node.depth + 1
        stack += node.children
    headline = _headline(roots, [node for node in nodes if node.span.request])
    _name_webhooks(roots, nodes, parents)
    return Trace(
        trace_id=ordered[0].trace_id if ordered else "",
        roots=roots,
        headline=headline,
        spans=count + left_out,
        errors=sum(span.status == 2 for span in ordered),
        start=min((span.start for span in ordered if span.start), default=0),
        end=max((span.end for span in ordered), default=0),
        settled=settled,
        missing=missing,
        left_out=left_out,
    )


def walk(trace: Trace) -> Iterator[Node]:
    """Every node once, parents before children, siblings in start order. Never recursive: depth is hostile."""
    stack = trace.roots[::-1]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(node.children))


def cut_circles(parents: list[int], marks: list[int]) -> None:
    """Make the earliest member of each circle a root."""
    seen = [0] * len(parents)  # 0: not yet, else the walk that came by
    for start in range(len(parents)):
        i = start
        walk_id = start + 1
        while i >= 0 and not seen[i]:
            seen[i] = walk_id
            i = parents[i]
        if i < 0 or seen[i] != walk_id:
            continue
        earliest, member = i, parents[i]  # spans are in start order: the lowest index is the earliest
        while member != i:
            earliest = min(earliest, member)
            member = parents[member]
        parents[earliest] = -1
        marks[earliest] |= _CYCLE


def _mark_times(spans: Sequence[Span], parents: Sequence[int], marks: list[int]) -> None:
    starts, ends = [span.start for span in spans], [span.end for span in spans]
    for i, (start, end, parent) in enumerate(zip(starts, ends, parents, strict=True)):
        if not start:
            marks[i] |= _ZERO
        if start >= NANOSECOND_MAX or end >= NANOSECOND_MAX:
            marks[i] |= _BEYOND  # clamped: neither the time nor the duration is what was sent
        if end < start:
            marks[i] |= _BACKWARDS
        if parent >= 0:
            if start and start < starts[parent]:
                marks[i] |= _BEFORE
            if end > ends[parent]:
                marks[i] |= _OUTLIVES


def _name_webhooks(roots: Sequence[Node], nodes: Sequence[Node], parents: Sequence[int]) -> None:
    """Give a webhook's own spans their component: only their place in the tree tells what they are.

    A webhook shows itself by a SERVER span below the API server's `HTTP POST` below `Call ... webhook` (below
    `KubernetesAPI` before 1.26, below nothing while the calling span has not come). From then on whatever its
    service, or without a service name the same resource further down, sends in this trace is the webhook's.
    """
    services: set[str] = set()
    found = False
    for i, node in enumerate(nodes):
        span, parent_at = node.span, parents[i]
        if span.kind is not Kind.SERVER or span.component is not Component.OTHER or parent_at < 0:
            continue
        post = nodes[parent_at].span
        if post.kind is not Kind.CLIENT or post.component is not Component.APISERVER or post.name not in _POSTS:
            continue
        above = parents[parent_at]
        if above < 0 or nodes[above].span.name == "KubernetesAPI" or is_webhook_call(nodes[above].span.name):
            found = True
            node.span = replace(span, component=Component.WEBHOOK)
            if span.service:
                services.add(span.service)
    if not found:
        return
    stack: list[tuple[Node, Span | None]] = [(root, None) for root in roots]
    while stack:
        node, parent = stack.pop()
        span = node.span
        if span.component is Component.OTHER and (
            span.service in services
            or (
                parent is not None
                and parent.component is Component.WEBHOOK
                and (parent.service, parent.instance) == (span.service, span.instance)
            )
        ):
            node.span = replace(span, component=Component.WEBHOOK)
        stack += [(child, node.span) for child in node.children]


def is_webhook_call(name: str) -> bool:
    """Whether a span of the API server of this name is a call to a webhook (mutating, validating, conversion)."""
    return name.startswith("Call ") and name.endswith(" webhook")


def _headline(roots: Sequence[Node], requests: Sequence[Node]) -> Node | None:
    """The span that names the trace: the outermost request, else the root, else the earliest of what there is at
    the top. Ties: the earliest start (spans without one last), then the longest."""
    if len(requests) > 1:
        outermost = []
        stack = list(roots)
        while stack:
            node = stack.pop()
            if node.span.request:
                outermost.append(node)
            else:
                stack += node.children
        requests = outermost
    candidates = requests or [root for root in roots if not root.span.parent_id] or roots
    return min(candidates, key=_rank, default=None)


def _rank(node: Node) -> tuple[int, int, str]:
    span = node.span
    return (span.start or _FAR, -span.duration, span.span_id)
