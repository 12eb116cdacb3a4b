"""Which lone `authentication` trace belongs to which request.

Since kubernetes 1.33 authentication happens before the server span exists, so each request of a caller who may not
bring a trace of its own leaves two traces: a lone `authentication` root and the request. They share no id. Since 1.34
the first spans the second (facts: kubernetes-tracing 3.3), on one clock, that of the API server they name as their
instance; measured on 5,317 pairs of 1.36 whose relation is known, the server span starts 0.14 ms after (99 %: 2 ms) and
ends 0.01 ms before it (99 %: 0.3 ms). In 1.33 the first ends before the second begins, and nothing tells how long
before: those stay unpaired.

Both are sampled by themselves, so below a rate of 1,000,000 the other half is often missing. Therefore a pair is only
made of two that are each other's nearest, with no other candidate nearly as near; and a slow authentication only finds
its request where nearly all others found theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.chunk import APISERVER, COMPONENT_MASK
from receiver.store.index import RANK_REQUEST, RANK_ROOT, Index

Array = npt.NDArray[Any]

MAX_END_NS: Final = 2_000_000
"""How long an `authentication` may go on after its request: it ends as its caller's handler returns."""
SURE_END_NS: Final = 60_000
SURE_BEFORE_NS: Final = 1_000_000
"""Within both of these a pair is believed even where traces are sampled: 95 % of true ones are, and of wrong ones in
recordings thinned out to one half next to none."""
COMPLETE: Final = 0.9
"""Share of pairs that must be sure ones before the others are believed: then nothing was sampled away."""
MAX_BEFORE_NS: Final = 30_000_000_000
"""How long authentication may take before the request begins: token webhooks time out sooner."""
MARGIN: Final = 3
"""Any other candidate must be this many times as far away."""
_LOOK: Final = 12  # candidates looked at on each side, by their end


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """`request` and `authentication` are slots, pair by pair; `before` is how many ns the second began earlier."""

    request: Array
    authentication: Array
    before: Array

    def of_requests(self, traces: int) -> Array:
        """By slot the slot of its `authentication` trace, -1 for none."""
        found: Array = np.full(traces, -1, np.int64)
        found[self.request] = self.authentication
        return found

    def before_requests(self, traces: int) -> Array:
        """By slot how many ns its authentication began earlier, 0 where it is not paired: for `verdict.judge`."""
        found: Array = np.zeros(traces, np.int64)
        found[self.request] = self.before
        return found

    def of_authentications(self, traces: int) -> Array:
        """By slot of a lone `authentication` the slot of its request, -1 for none."""
        found: Array = np.full(traces, -1, np.int64)
        found[self.authentication] = self.request
        return found


def lone_authentications(index: Index) -> Array:
    """Slots of traces that are one `authentication` root and nothing else."""
    names = index.names
    if "authentication" not in names:
        return np.empty(0, np.int64)
    head = index.head_row
    lone = (
        (index.head_rank == RANK_ROOT) & (index.span_count == 1) & (index.name[head] == names.index("authentication"))
    )
    lone &= (index.flags[head] & COMPONENT_MASK) == APISERVER
    found: Array = np.flatnonzero(lone)
    return found


def pairs(index: Index) -> Pairs:
    """All pairs of an index, a few ms for 100,000 traces."""
    with index.lock:
        lone = lone_authentications(index)
        if not len(lone):
            return Pairs(lone, lone, lone)
        requests = np.flatnonzero((index.head_rank == RANK_REQUEST) & _elsewhere(index))
        a, r = index.head_row[lone], index.head_row[requests]
        near = match(
            index.resource[a], index.start[a].astype(np.int64), index.end[a].astype(np.int64),
            index.resource[r], index.start[r].astype(np.int64), index.end[r].astype(np.int64),
        )  # fmt: skip
        paired = np.flatnonzero(near >= 0)
        before = index.start[r].astype(np.int64)[near[paired]] - index.start[a].astype(np.int64)[paired]
    return Pairs(requests[near[paired]], lone[paired], before)


def _elsewhere(index: Index) -> Array:
    """Traces whose headline is not below an `authentication` of its own trace: they were authenticated in another
    one. The parent may still be there, as in the API server's calls to itself, or be invented by the caller."""
    found = np.ones(index.traces, bool)
    rows = np.flatnonzero(index.name == index.names.index("authentication"))
    rows = rows[np.argsort(index.span[rows], kind="stable")]
    ids = index.span[rows]
    parent = index.parent[index.head_row]
    at = np.minimum(np.searchsorted(ids, parent), len(ids) - 1)
    found &= ~((ids[at] == parent) & (index.slot[rows[at]] == np.arange(index.traces)))
    return found


def match(a_instance: Array, a_start: Array, a_end: Array, r_instance: Array, r_start: Array, r_end: Array) -> Array:
    """For each authentication (`a_*`) the request (`r_*`) that it belongs to, -1 where that is not certain.

    Instances are any numbers that are equal for one API server, times in ns of its clock.
    """
    nothing: Array = np.full(len(a_start), -1, np.int64)
    if not len(a_start) or not len(r_start):
        return nothing
    order = np.lexsort((r_end, r_instance))
    # candidates end up to MAX_END_NS before the authentication does: the last ones by end
    at = _last_before(r_instance[order], r_end[order], a_instance, a_end)
    a = np.arange(len(a_start))
    ids, costs = [], []
    for step in range(_LOOK):
        place = at - step
        valid = place >= 0
        candidate = order[np.maximum(place, 0)]
        after, before = a_end - r_end[candidate], r_start[candidate] - a_start
        valid &= (r_instance[candidate] == a_instance) & (after >= 0) & (after <= MAX_END_NS)
        valid &= (before >= 0) & (before <= MAX_BEFORE_NS) & (r_start[candidate] > 0) & (a_start > 0)
        ids.append(np.where(valid, candidate, -1))
        costs.append(np.where(valid, _cost(after, before), np.inf))
    candidates, cost = np.stack(ids, axis=1), np.stack(costs, axis=1)
    best = np.argmin(cost, axis=1)
    nearest, least = candidates[a, best], cost[a, best]
    cost[a, best] = np.inf
    certain = (nearest >= 0) & (cost.min(axis=1) > MARGIN * least)
    # each request takes the authentication that is nearest to it, if no other one is nearly as near
    flat_a = np.repeat(a, _LOOK)
    flat_r = candidates.ravel()
    all_cost = cost.copy()
    all_cost[a, best] = least
    flat_cost = all_cost.ravel()
    keep = flat_r >= 0
    flat_a, flat_r, flat_cost = flat_a[keep], flat_r[keep], flat_cost[keep]
    by = np.lexsort((flat_cost, flat_r))
    flat_a, flat_r, flat_cost = flat_a[by], flat_r[by], flat_cost[by]
    if not len(flat_r):
        return nothing
    first: Array = np.flatnonzero(np.concatenate(([True], flat_r[1:] != flat_r[:-1])))
    second = np.full(len(r_start), np.inf)
    follow = first[first + 1 < len(flat_r)]
    follow = follow[flat_r[follow + 1] == flat_r[follow]]
    second[flat_r[follow]] = flat_cost[follow + 1]
    owner = np.full(len(r_start), -1, np.int64)
    owner[flat_r[first]] = flat_a[first]
    mutual = certain & (owner[np.maximum(nearest, 0)] == a) & (second[np.maximum(nearest, 0)] > MARGIN * least)
    sure = mutual & (a_end - r_end[nearest] <= SURE_END_NS) & (r_start[nearest] - a_start <= SURE_BEFORE_NS)
    if np.count_nonzero(sure) < COMPLETE * len(a_start):
        mutual = sure
    found: Array = np.where(mutual, nearest, -1)
    return found


def _cost(after: Array, before: Array) -> Array:
    """How unlike a pair two spans are: both ends count, the end tells more (99 % within 0.3 ms)."""
    found: Array = after / 10_000 + before / 200_000 + 0.5
    return found


def _last_before(groups: Array, ends: Array, group: Array, end: Array) -> Array:
    """Index of the last row of (groups, ends), sorted by both, that is not after (group, end)."""
    order = np.argsort(end, kind="stable")
    found: Array = np.full(len(end), -1, np.int64)
    for which in np.unique(group):  # API servers: a handful
        low, high = np.searchsorted(groups, which), np.searchsorted(groups, which, side="right")
        mine = order[group[order] == which]
        found[mine] = low + np.searchsorted(ends[low:high], end[mine], side="right") - 1
        found[mine[found[mine] < low]] = -1
    return found


def paired_with(index: Index, found: Pairs, slots: Sequence[int] | Array) -> list[str]:
    """For `traces --json`: for each slot the id of the other trace of its pair, "" for none."""
    traces = index.traces
    other = np.maximum(found.of_requests(traces), found.of_authentications(traces))
    return [index.trace_id(slot) if slot >= 0 else "" for slot in other[np.asarray(slots, np.int64)].tolist()]
