"""Where the time of a trace went, as far as its spans tell."""

from __future__ import annotations

from receiver.traces.model import Node, Trace
from receiver.traces.tree import walk


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
