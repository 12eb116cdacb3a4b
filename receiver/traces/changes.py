"""Two recordings beside one another: which shapes of requests became slower or faster, and whether that is more than
noise.

The test is Mann and Whitney's U: it asks whether a request of the one tends to last longer than one of the other, looks
at ranks only, and so minds neither outliers nor the form of the distribution. With ties corrected for and the normal
approximation, good from 8 on each side. As many shapes are tested at once, Holm's correction is applied. A difference
has to be large enough to matter, too: with thousands of requests everything is significant.

What it cannot know: requests of one burst are no independent draws, so a p is a lower bound on doubt; and that the load
was the same in both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.index import Index
from receiver.traces.facets import SCOPES, reading
from receiver.traces.filter.evaluate import Found
from receiver.traces.phases import GROUPS
from receiver.traces.query import Query, View, select

Array = npt.NDArray[Any]

LEAST: Final = 8
"""So many requests a shape needs in each recording."""
ALPHA: Final = 0.01
"""The chance, over all shapes together, that any of them is called changed by noise alone."""
LEAST_SHARE: Final = 0.1
LEAST_NS: Final = 500_000
"""A median has to differ by both to be a change."""


class Outcome(Enum):
    """What became of a shape."""

    SLOWER = "slower"
    FASTER = "faster"
    SAME = "same"  # not by more than noise, or not by enough
    FEW = "too few"
    NEW = "new"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Sample:
    """Requests of a shape in one recording: durations in ns (0 of none), errors as `View.errors_only` has them."""

    count: int
    p50: int
    p95: int
    errors: int


@dataclass(frozen=True, slots=True)
class Change:
    """A shape in both. `p` is after the correction, 1 where nothing was tested; `tendency` is how likely a request
    after lasts longer than one before (0.5: neither way). `because` is the group of phases (`phases.GROUPS`) whose
    mean changed most in the direction of the change, "" where nothing changed."""

    verb: str
    group: str
    resource: str
    subresource: str
    scope: str
    before: Sample
    after: Sample
    outcome: Outcome
    p: float
    tendency: float
    because: str

    @property
    def delta(self) -> int:
        """By how much the median grew, in ns."""
        return self.after.p50 - self.before.p50


def mann_whitney(one: Array, other: Array) -> tuple[float, float]:
    """(p of both sides, how likely one of `other` is larger than one of `one`, ties by half).

    (1, 0.5) where a side is empty or all values are equal.
    """
    n, m = len(one), len(other)
    if not n or not m:
        return 1.0, 0.5
    both = np.concatenate((one, other))
    values, inverse, ties = np.unique(both, return_inverse=True, return_counts=True)
    ends = np.cumsum(ties)
    ranks = (ends - (ties - 1) / 2.0)[inverse]
    u = float(ranks[n:].sum()) - m * (m + 1) / 2
    total = n + m
    tied = float((ties.astype(np.float64) ** 3 - ties).sum())
    variance = n * m / 12 * ((total + 1) - tied / (total * (total - 1))) if total > 1 else 0.0
    if len(values) < 2 or variance <= 0:
        return 1.0, 0.5
    z = max(0.0, abs(u - n * m / 2) - 0.5) / math.sqrt(variance)
    return min(1.0, math.erfc(z / math.sqrt(2))), u / (n * m)


def holm(ps: Sequence[float]) -> list[float]:
    """The same, corrected for being so many: each is comparable with the error of all of them together."""
    order = sorted(range(len(ps)), key=lambda at: ps[at])
    found, highest = [1.0] * len(ps), 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, ps[at] * (len(ps) - rank)))
        found[at] = highest
    return found


_Key = tuple[str, str, str, str, str]


@dataclass(slots=True)
class _Side:
    durations: Array
    errors: int
    means: dict[str, float]  # by group of phases


def changes(
    before: Index, after: Index, query: Query, known: tuple[Found | None, Found | None] = (None, None)
) -> list[Change]:
    """Each shape of the requests that a filter finds, without those that are asked to last: what changed first, by how
    much, then what did not.

    Args:
        known: what is known on each side of the attributes that the filter asks for, as for `query.select`.
    """
    sides = _sides(before, query, known[0]), _sides(after, query, known[1])
    nothing = _Side(np.zeros(0, np.int64), 0, {})
    keys = sorted({*sides[0], *sides[1]})
    tested = [key for key in keys if all(key in side and len(side[key].durations) >= LEAST for side in sides)]
    results = [mann_whitney(sides[0][key].durations, sides[1][key].durations) for key in tested]
    corrected = dict(zip(tested, holm([p for p, _ in results]), strict=True))
    tendency = {key: found for key, (_, found) in zip(tested, results, strict=True)}
    found = []
    for key in keys:
        one, other = (side.get(key, nothing) for side in sides)
        first, second = _sample(one), _sample(other)
        p, likely = corrected.get(key, 1.0), tendency.get(key, 0.5)
        outcome = _outcome(first, second, p if key in corrected else None, likely)
        because = _because(one, other) if outcome in (Outcome.SLOWER, Outcome.FASTER) else ""
        found.append(Change(*key, first, second, outcome, p, likely, because))
    order = list(Outcome)
    found.sort(key=lambda change: (order.index(change.outcome), -abs(change.delta)))
    return found


def _outcome(before: Sample, after: Sample, p: float | None, tendency: float) -> Outcome:
    if not before.count:
        return Outcome.NEW
    if not after.count:
        return Outcome.GONE
    if p is None:
        return Outcome.FEW
    delta = after.p50 - before.p50
    if p >= ALPHA or abs(delta) < max(LEAST_NS, LEAST_SHARE * before.p50) or (delta > 0) != (tendency > 0.5):
        return Outcome.SAME
    return Outcome.SLOWER if delta > 0 else Outcome.FASTER


def _sample(side: _Side) -> Sample:
    count = len(side.durations)
    if not count:
        return Sample(0, 0, 0, 0)
    p50, p95 = (int(side.durations[-(-count * share // 100) - 1]) for share in (50, 95))
    return Sample(count, p50, p95, side.errors)


def _because(before: _Side, after: _Side) -> str:
    way = 1 if _sample(after).p50 > _sample(before).p50 else -1
    return max(GROUPS, key=lambda group: way * (after.means[group] - before.means[group]))


def _sides(index: Index, query: Query, known: Found | None) -> dict[_Key, _Side]:
    with index.lock:
        slots = select(index, View(query, None, False, False, "start", False), 0, found=known).slots.astype(np.int64)
    found: dict[_Key, _Side] = {}
    names = index.names
    with reading(index) as facets:
        rows = facets.rows(slots)
        shape = facets.column("shape")[rows]
        rows, shape = rows[shape >= 0], shape[shape >= 0]
        duration, wrong = facets.column("duration")[rows], facets.column("wrong")[rows]
        order = np.lexsort((duration, shape))
        lasting = facets.lasting()
        starts = np.flatnonzero(np.diff(shape[order], prepend=-1))
        for members in np.split(order, starts[1:]) if len(order) else ():
            kind = int(shape[members[0]])
            if lasting[kind]:
                continue
            what = facets.shapes[kind]
            key = (
                names[what.verb], names[what.group], names[what.resource], names[what.subresource], SCOPES[what.scope],
            )  # fmt: skip
            means = facets.phases[rows[members]].mean(axis=0)
            grouped = {group: float(sum(means[phase] for phase in phases)) for group, phases in GROUPS.items()}
            found[key] = _Side(duration[members], int(np.count_nonzero(wrong[members])), grouped)
    return found
