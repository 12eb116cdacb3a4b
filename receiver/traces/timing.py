"""Where the time of a trace went, as far as its spans tell: self times and the critical path.

The critical path is found from the end backwards: whoever finished last is what a span waited for last, and before
it whoever had finished when that one began. Four things are done with care, because Kubernetes' traces need them: a
span that ends exactly where the next begins counts, an orphan headline has a path like any other, nothing is
recursive, and a time of 0 is a time. A span that outlives its parent counts up to the parent's end and keeps its
OUTLIVES mark.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from receiver.traces.model import Component, Kind, Node, Span, Trace
from receiver.traces.tree import walk

STREAMS: Final = frozenset({"etcdserverpb.Watch/Watch", "etcdserverpb.Lease/LeaseKeepAlive"})
"""Calls that stay open for as long as their client lives; nobody waits for their end (docs/facts.md 8)."""
FILTERS: Final = frozenset(
    {"authentication", "audit", "impersonation", "constrainedimpersonation", "priorityandfairness", "authorization"}
)
MAX_LEVELS: Final = 1_000
"""Levels below the headline that the path follows; a real trace has some twenty."""


def self_times(trace: Trace) -> None:
    """Fill `self_ns` of every node: its duration minus what its children cover of it.

    Children count as far as they lie within their parent (an async one may outlive it, another host's clock may be
    off), overlapping ones once. So `self_ns` is between 0 and the span's duration. Linear: children are in start
    order.
    """
    for node in walk(trace):
        node.self_ns = node.span.duration - covered(node)


def covered(node: Node) -> int:
    """Nanoseconds of a span during which at least one of its children ran; children without a start time or that
    end before they start cover nothing."""
    start, end = node.span.start, node.span.end
    if not start:
        return 0
    total, reached = 0, start
    for child in node.children:
        low, high = child.span.start, child.span.end
        if not low:
            continue
        if low >= end:
            break
        low, high = max(low, reached), min(high, end)
        if high > low:
            total += high - low
            reached = high
    return total


# --- the critical path ----------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Interval:
    """Nanoseconds `start` to `end` during which the request waited for this node itself, not for a child of it."""

    node: Node
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Step:
    """A node on the path and the part of it that counts. `parent` is the step above, -1 for the headline; that is
    the span's parent but where `timing` hangs it elsewhere. `lead` is the time before the first step below it,
    `rest` all other time of its own; of a `leaf` all is lead."""

    node: Node
    parent: int
    start: int
    end: int
    lead: int
    rest: int
    leaf: bool


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """What the headline's time was spent on: `intervals` are in time order, disjoint, without gaps, and fill `start`
    to `end`; `steps` are the same by node, parents first. `extended`: the headline's span was ended early by its
    release, its work went on up to `end`."""

    start: int
    end: int
    intervals: tuple[Interval, ...]
    steps: tuple[Step, ...]
    extended: bool


def critical_path(trace: Trace) -> CriticalPath | None:
    """The critical path of the headline; fills `critical_ns` of every node (0 off the path).

    Follows docs/facts.md 13.1. From a span's end backwards the child that ended last is chosen, then the one that had
    ended last when it began, and so on; each is followed the same way. Linear but for sorting siblings.

    None for a trace without a headline or whose headline has no start time.
    """
    for node in walk(trace):
        node.critical_ns = 0
    head = trace.headline
    if head is None or not head.span.start:
        return None
    start = head.span.start
    end, extended = headline_end(head)
    end = max(start, end)
    steps: list[Step] = []
    intervals: list[Interval] = []
    stack = [(head, -1, start, end, 0)]
    while stack:
        node, parent, low, high, level = stack.pop()
        chosen = _chosen(node, low, high) if level < MAX_LEVELS else []
        cursor, own = high, 0
        for child, first, last in chosen:
            if cursor > last:
                intervals.append(Interval(node, last, cursor))
                own += cursor - last
            cursor = first
            stack.append((child, len(steps), first, last, level + 1))
        if cursor > low:
            intervals.append(Interval(node, low, cursor))
        node.critical_ns = own + cursor - low
        steps.append(Step(node, parent, low, high, cursor - low, own, not chosen))
    intervals.sort(key=lambda interval: interval.start)
    return CriticalPath(start, end, tuple(intervals), tuple(steps), extended)


def headline_end(head: Node) -> tuple[int, bool]:
    """(end of the headline's work, whether that is not where its span ends).

    kubernetes 1.33 ends the SERVER span in the audit filter, after microseconds (facts 3.3). It is known by work of
    the API server itself, directly below, that only begins when the span has ended.
    """
    span = head.span
    late = [
        child.span.end
        for child in followers(head)
        if span.request and child.span.start >= span.end and _is_work(child.span)
    ]
    return (max(span.end, *late), True) if late else (span.end, False)


def _is_work(span: Span) -> bool:
    return (
        span.component is Component.APISERVER
        and span.kind is Kind.INTERNAL
        and span.name not in FILTERS
        and 0 < span.start < span.end
    )


def followers(node: Node) -> Iterator[Node]:
    """The children of a node as its work was done.

    From 1.26 to 1.32 all work of a request hangs below an `authentication` that has ended before (facts 3.3): what
    starts after it is the request's.
    """
    for child in node.children:
        yield child
        if is_ended_filter(child.span, node.span):
            for later in child.children:
                if later.span.start >= child.span.end:
                    yield later


def is_ended_filter(span: Span, parent: Span) -> bool:
    """Whether a span is the `authentication` of 1.26 to 1.32, which ends before the spans below it begin."""
    return (
        parent.request
        and span.name == "authentication"
        and span.kind is Kind.INTERNAL
        and span.component is Component.APISERVER
    )


def _chosen(node: Node, low: int, high: int) -> list[tuple[Node, int, int]]:
    """The children that the node waited for within `low` to `high`, the last first, each with its part that counts."""
    found: list[tuple[int, int, str, int, Node]] = []
    for child in followers(node):
        span = child.span
        if not span.start or span.name in STREAMS or (node.span.kind is Kind.PRODUCER and span.kind is Kind.CONSUMER):
            continue
        first, last = max(span.start, low), min(span.end, high)
        if first < last:
            found.append((-last, first, span.span_id, len(found), child))
    found.sort()
    chosen = []
    cursor = high
    for last, first, _, _, child in found:
        if -last <= cursor:
            chosen.append((child, first, -last))
            cursor = first
    return chosen
