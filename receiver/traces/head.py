"""The first spans of a large trace, in the order of its tree, without a tree of all of them.

Which ones come first, and what their children cover of them, numpy tells from columns; objects are made of those few
alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from receiver.traces.tree import cut_circles

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Head:
    """Positions in the columns that were given."""

    first: list[int]
    """The spans asked for, parents before children, siblings in start order."""
    following: list[int]
    """The next sibling of the last of them, and of each span above that: it can be seen that there is one."""
    covered: dict[int, int]
    """Of those with children that are not among `first`: ns during which at least one of all its children ran."""


def first_of_tree(span: Array, parent: Array, start: Array, end: Array, most: int) -> Head:
    """The first `most` spans of a trace's tree, as `tree.build` would make it of all of them.

    Args:
        span, parent: ids (u64; a parent of 0 is none).
        start, end: ns, below 2**63.
    """
    order = np.lexsort((parent, end, span, start))
    span, parent, start, end = span[order], parent[order], start[order].astype(np.int64), end[order].astype(np.int64)
    above = _parents(span, parent)
    by_parent = np.argsort(above, kind="stable")
    parents = above[by_parent]

    def below(at: int) -> list[int]:
        low, high = np.searchsorted(parents, [at, at + 1])
        return [int(low), int(high), at]

    chosen: list[int] = []
    open_ = [below(-1)]  # ranges of siblings, so that a million of them are no list
    while open_ and len(chosen) < most:
        siblings = open_[-1]
        if siblings[0] == siblings[1]:
            open_.pop()
            continue
        at = int(by_parent[siblings[0]])
        siblings[0] += 1
        chosen.append(at)
        open_.append(below(at))
    following = [int(by_parent[low]) for low, high, _ in open_ if low < high]
    covered = {}
    for low, high, at in open_:
        if at >= 0 and low < high:
            children = by_parent[int(np.searchsorted(parents, at)) : high]
            covered[int(order[at])] = _covered(int(start[at]), int(end[at]), start[children], end[children])
    return Head(order[chosen].tolist(), order[following].tolist(), covered)


def _parents(span: Array, parent: Array) -> Array:
    """Where the parent of each span stands, -1 for a root: the first of several with one id takes the children, nobody
    is its own parent, and a circle is cut at its earliest member."""
    by_id = np.argsort(span, kind="stable")
    ids = span[by_id]
    at = np.minimum(np.searchsorted(ids, parent), len(ids) - 1)
    known = (parent != 0) & (ids[at] == parent) & (parent != span)
    above: Array = np.where(known, by_id[at], -1)
    # Each looks twice as far up as before, until all see the top; who never does is in a circle, or below one.
    up = np.append(np.where(known, above, len(above)), len(above))
    for _ in range(len(above).bit_length() + 1):
        if (up == len(above)).all():
            return above
        up = up[up]
    cut = above.tolist()
    cut_circles(cut, [0] * len(cut))
    return np.array(cut, np.int64)


def _covered(start: int, end: int, lows: Array, highs: Array) -> int:
    """`timing.covered` of a span, its children's times being columns in start order."""
    ran = (lows > 0) & (lows < end)
    lows, highs = lows[ran], np.minimum(highs[ran], end)
    if not start or not len(lows):
        return 0
    reached = np.maximum.accumulate(np.concatenate(([start], highs)))[:-1]
    return int(np.maximum(highs - np.maximum(lows, reached), 0).sum())
