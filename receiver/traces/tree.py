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
from typing import Final

from receiver.traces.model import Component, Kind, Node, Oddity, Settled, Span, Trace

_ODDITIES: Final = tuple(Oddity)
_BIT: Final = {oddity: 1 << i for i, oddity in enumerate(_ODDITIES)}
_ORPHAN, _SELF, _CYCLE, _DUPLICATE = (
    _BIT[o] for o in (Oddity.ORPHAN, Oddity.SELF_PARENT, Oddity.CYCLE, Oddity.DUPLICATE)
)
_BACKWARDS, _ZERO, _BEFORE, _OUTLIVES = (
    _BIT[o] for o in (Oddity.BACKWARDS, Oddity.ZERO_TIME, Oddity.BEFORE_PARENT, Oddity.OUTLIVES)
)
_FAR: Final = 1 << 64  # later than any time that can be sent
_POSTS: Final = ("HTTP POST", "POST")  # the second until 1.25


@lru_cache(maxsize=256)
def _set_of(bits: int) -> frozenset[Oddity]:
    return frozenset(oddity for oddity in _ODDITIES if bits & _BIT[oddity])


def _order(span: Span) -> tuple[int, int, str, str, str, int, int, int]:
    """Start order; the rest only makes it a total one."""
    return (span.start, -span.end, span.span_id, span.parent_id, span.name, span.status, span.chunk, span.row)


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
    at: dict[str, int] = {}
    marks = [0] * count
    for i, span in enumerate(ordered):
        if at.setdefault(span.span_id, i) != i:
            marks[i] |= _DUPLICATE
    parents = [-1] * count
    for i, span in enumerate(ordered):
        parent = span.parent_id
        if not parent:
            continue
        if parent == span.span_id:
            marks[i] |= _SELF
        elif (found := at.get(parent)) is None:
            marks[i] |= _ORPHAN
        else:
            parents[i] = found
    _cut_circles(parents, marks)

    children: list[list[int]] = [[] for _ in range(count)]
    roots: list[int] = []
    for i, parent_at in enumerate(parents):  # in start order, so every list of children is too
        (roots if parent_at < 0 else children[parent_at]).append(i)
    preorder: list[int] = []
    stack = roots[::-1]
    while stack:
        i = stack.pop()
        preorder.append(i)
        stack.extend(reversed(children[i]))

    _mark_times(ordered, parents, marks)
    _name_webhooks(ordered, parents, preorder)
    nodes = [Node(span, 0, [], _set_of(mark)) for span, mark in zip(ordered, marks, strict=True)]
    for i in preorder:
        parent_at = parents[i]
        if parent_at >= 0:
            node, above = nodes[i], nodes[parent_at]
            node.depth = above.depth + 1
            above.children.append(node)
    headline = _headline(ordered, parents, preorder)
    return Trace(
        trace_id=ordered[0].trace_id if ordered else "",
        roots=[nodes[i] for i in roots],
        headline=None if headline is None else nodes[headline],
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


def _cut_circles(parents: list[int], marks: list[int]) -> None:
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
    for i, span in enumerate(spans):
        start, end = span.start, span.end
        if not start:
            marks[i] |= _ZERO
        if end < start:
            marks[i] |= _BACKWARDS
        if parents[i] >= 0:
            parent = spans[parents[i]]
            if start and start < parent.start:
                marks[i] |= _BEFORE
            if end > parent.end:
                marks[i] |= _OUTLIVES


def _name_webhooks(spans: list[Span], parents: Sequence[int], preorder: Sequence[int]) -> None:
    """Give a webhook's own spans their component: only their place in the tree tells what they are.

    A webhook shows itself by a SERVER span below the API server's `HTTP POST` below `Call ... webhook` (below
    `KubernetesAPI` before 1.26, below nothing while the calling span has not come). From then on whatever its
    service, or without a service name the same resource further down, sends in this trace is the webhook's.
    """
    entries: set[int] = set()
    services: set[str] = set()
    for i, span in enumerate(spans):
        if span.kind is not Kind.SERVER or span.component is not Component.OTHER or parents[i] < 0:
            continue
        post = spans[parents[i]]
        if post.kind is not Kind.CLIENT or post.component is not Component.APISERVER or post.name not in _POSTS:
            continue
        above = parents[parents[i]]
        if above < 0 or spans[above].name == "KubernetesAPI" or is_webhook_call(spans[above].name):
            entries.add(i)
            if span.service:
                services.add(span.service)
    if not entries:
        return
    for i in preorder:
        span = spans[i]
        if span.component is not Component.OTHER:
            continue
        named = i in entries or span.service in services
        if not named and parents[i] >= 0:
            parent = spans[parents[i]]
            named = parent.component is Component.WEBHOOK and (parent.service, parent.instance) == (
                span.service,
                span.instance,
            )
        if named:
            spans[i] = replace(span, component=Component.WEBHOOK)


def is_webhook_call(name: str) -> bool:
    """Whether a span of the API server of this name is a call to a webhook (mutating, validating, conversion)."""
    return name.startswith("Call ") and name.endswith(" webhook")


def _headline(spans: Sequence[Span], parents: Sequence[int], preorder: Sequence[int]) -> int | None:
    """The span that names the trace: the outermost request, else the root, else the earliest of what there is at
    the top. Ties: the earliest start (spans without one last), then the longest."""
    below_request = bytearray(len(spans))
    best: tuple[int, int, int, str] | None = None
    found: int | None = None
    for i in preorder:
        span, parent_at = spans[i], parents[i]
        inner = parent_at >= 0 and (below_request[parent_at] or spans[parent_at].request)
        if inner:
            below_request[i] = 1
        if span.request and not inner:
            rank = 0
        elif parent_at >= 0:
            continue
        else:
            rank = 2 if span.parent_id else 1
        key = (rank, span.start or _FAR, -span.duration, span.span_id)
        if best is None or key < best:
            best, found = key, i
    return found
