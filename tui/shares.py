"""The bar that shows what the time of a request was spent on: its parts, and how many cells each gets.

A bar always has its full width: it tells shares of this request, not how long it took. What is outside the API server
is drawn as blocks, what it does itself as lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from receiver.traces.model import Component
from receiver.traces.phases import Phase, Phases


@dataclass(frozen=True, slots=True)
class Share:
    """A part of the bar: the phases in it, and whose colour it has. The glyph is `Glyphs.share[name]`."""

    name: str
    phases: tuple[Phase, ...]
    component: Component = Component.APISERVER


SHARES: Final = (
    Share("mutating", (Phase.MUTATING,), Component.WEBHOOK),
    Share("validating", (Phase.VALIDATING,), Component.WEBHOOK),
    Share("webhook", (Phase.WEBHOOK,), Component.WEBHOOK),  # kubernetes 1.22 to 1.25 do not tell which of both
    Share("conversion", (Phase.CONVERSION,), Component.WEBHOOK),
    Share("etcd", (Phase.ETCD_SERVER, Phase.ETCD_GAP, Phase.ETCD_CALL), Component.ETCD),
    Share("encryption", (Phase.ENCRYPTION,), Component.OTHER),
    Share("aggregated", (Phase.AGGREGATION, Phase.RUNTIME), Component.OTHER),
    Share("cache", (Phase.CACHE,)),
    Share("encoding", (Phase.ENCODING, Phase.STORAGE_ENCODING)),
    Share("decoding", (Phase.DECODING, Phase.STORAGE_DECODING)),
    Share("filters", (Phase.AUTHENTICATION, Phase.AUDIT, Phase.IMPERSONATION, Phase.QUEUE, Phase.AUTHORIZATION)),
    Share("apiserver", (Phase.OTHER,)),
)
"""In the order in which they stand in the bar; every phase is in exactly one."""
assert sorted(phase for share in SHARES for phase in share.phases) == list(Phase)

NOTABLE_NS: Final = 100_000_000
NOTABLE_PART: Final = 20
"""A share of that many ns, or of one in so many parts, has a cell of its own however short the bar is."""


def shares_of(phases: Phases) -> list[int]:
    """Nanoseconds of each of `SHARES`; they sum to the duration."""
    ns = phases.ns
    return [sum([ns[phase] for phase in share.phases]) for share in SHARES]


def cells(parts: Sequence[int], width: int) -> list[int]:
    """How many of `width` cells each part gets: by largest remainder, all of them, and at least one for each part that
    is notable, as far as there are so many. A part of 0 gets none; all of 0 have no bar.

    Args:
        parts: nanoseconds, none below 0.
    """
    total = sum(parts)
    if total <= 0 or width <= 0:
        return [0] * len(parts)
    got = [part * width // total for part in parts]
    notable = [at for at, part in enumerate(parts) if part >= NOTABLE_NS or (part and part * NOTABLE_PART >= total)]
    notable = sorted(notable, key=lambda at: -parts[at])[:width]
    raised = [at for at in notable if not got[at]]
    for at in raised:
        got[at] = 1
    left = width - sum(got)
    if left > 0:
        others = [at for at in range(len(parts)) if at not in raised]
        for at in sorted(others, key=lambda at: -(parts[at] * width % total))[:left]:
            got[at] += 1
    kept = set(notable)
    for _ in range(-left):  # taken from where a cell is missed least: parts that have more than they would need
        able = [at for at in range(len(parts)) if got[at] > (at in kept)]
        got[max(able, key=lambda at: got[at] * total - parts[at] * width)] -= 1
    return got


def present(bars: Iterable[Sequence[int]]) -> list[Share]:
    """The shares that have a cell in any of these bars, for a legend."""
    seen = [False] * len(SHARES)
    for bar in bars:
        for at, count in enumerate(bar):
            seen[at] = seen[at] or count > 0
    return [share for share, there in zip(SHARES, seen, strict=True) if there]
