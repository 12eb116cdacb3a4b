"""The same command several times: what its requests took, phase by phase, in the middle and at the edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final
from urllib.parse import parse_qs

from receiver.traces.listing import Row
from receiver.traces.phases import GROUPS
from receiver.traces.semantics import parse_target
from tui.clusters.force.collected import Found
from tui.clusters.force.proxy import Seen

_SAFE: Final = frozenset(("GET", "HEAD", "OPTIONS"))
_REVIEWS: Final = frozenset(("authorization.k8s.io", "authentication.k8s.io"))
"""Groups whose objects are questions: creating one stores nothing."""
_ACTIONS: Final = frozenset(("exec", "attach", "portforward", "proxy"))
"""Subresources that are asked for by GET, too, and do something."""
MOST_SHAPES: Final = 200


def changes(seen: Seen) -> bool:
    """Whether a request may change something, so that repeating it would do it again."""
    facts = parse_target(seen.method, seen.target)
    if seen.upgraded or facts.subresource in _ACTIONS:
        return True
    if seen.method.upper() in _SAFE or facts.group in _REVIEWS:
        return False
    return parse_qs(seen.target.partition("?")[2]).get("dryRun") != ["All"]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the command: how long it took, and its requests as they were found. `rows` by trace id."""

    wall_ns: int
    found: Sequence[Found]
    rows: Mapping[str, Row]


@dataclass(frozen=True, slots=True)
class Spread:
    """The values of several runs: `of` how many there are; times in ns."""

    name: str
    of: int
    median: int
    least: int
    most: int

    def to_json(self) -> dict[str, object]:
        """As `trace --compare --json` writes it."""
        return {
            "name": self.name,
            "runs": self.of,
            "median_ns": self.median,
            "min_ns": self.least,
            "max_ns": self.most,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """`whole`: the command, and its requests together; `phases`: what all its requests spent, only those groups that
    took any time, of the runs in which every request was traced; `requests`: each request by itself, as the command's
    machine saw it, in the order of the first run."""

    runs: int
    traced: int
    whole: tuple[Spread, ...]
    phases: tuple[Spread, ...]
    requests: tuple[Spread, ...]


def compare(runs: Sequence[Run]) -> Comparison:
    """What several runs have in common. A request is known again by its method and path, and how often that came."""
    whole = (
        _spread("the command", [run.wall_ns for run in runs]),
        _spread("its requests", [sum(one.seen.duration_ns for one in run.found) for run in runs]),
    )
    phases: dict[str, list[int]] = {name: [] for name in GROUPS}
    traced = 0
    for run in runs:
        known = [row.phases for one in run.found if (row := run.rows.get(one.trace_id)) is not None]
        if not run.found or len(known) < len(run.found):
            continue
        traced += 1
        for name, values in phases.items():
            values.append(sum(one.group(name) for one in known if one is not None))
    shapes: dict[str, list[int]] = {}
    for run in runs:
        times: dict[str, int] = {}
        for one in run.found:
            shape = f"{one.seen.method} {one.seen.target.partition('?')[0]}"
            times[shape] = times.get(shape, 0) + 1
            name = shape if times[shape] == 1 else f"{shape} ({times[shape]})"
            if name in shapes or len(shapes) < MOST_SHAPES:
                shapes.setdefault(name, []).append(one.seen.duration_ns)
    return Comparison(
        len(runs),
        traced,
        whole,
        tuple(_spread(name, values) for name, values in phases.items() if any(values)),
        tuple(_spread(name, values) for name, values in shapes.items()),
    )


def _spread(name: str, values: Sequence[int]) -> Spread:
    if not values:
        return Spread(name, 0, 0, 0, 0)
    return Spread(name, len(values), round(median(values)), min(values), max(values))
