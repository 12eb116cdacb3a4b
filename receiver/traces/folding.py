"""Which lines of a tree can be one line without hiding time.

A plan, nothing more: whoever shows the tree decides, and what an operator opened stays open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from receiver.traces.model import Component, Kind, Node, Trace
from receiver.traces.timing import FILTERS
from receiver.traces.tree import walk

MIN_RUN: Final = 4
"""Like siblings in a row from which they are worth one line."""
OUTLIER: Final = 4
"""The longest of a run stays visible from this many times the median on."""


@dataclass(frozen=True, slots=True)
class Run:
    """Siblings that follow each other, of one name, kind and component: `xN`. Times in ns. `outlier` is the longest
    of them where it stands out, else None. A node that failed is never part of a run."""

    members: tuple[Node, ...]
    total: int
    median: int
    longest: int
    outlier: Node | None


@dataclass(frozen=True, slots=True)
class Chain:
    """Filters inside each other (`audit` to `authorization`): one line with their own time, before the node that they
    all wrap. `own` is the sum of their self times in ns, `inner` what hangs below the last."""

    members: tuple[Node, ...]
    own: int
    inner: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Runs and chains in the order of the tree; no node is in two of them."""

    runs: tuple[Run, ...]
    chains: tuple[Chain, ...]


def plan(trace: Trace, least: int = MIN_RUN) -> Plan:
    """What of a trace can be folded. Linear in its spans; needs `self_ns`."""
    runs: list[Run] = []
    chains: list[Chain] = []
    inside: set[int] = set()
    for node in walk(trace):
        if id(node) not in inside and _filter(node):
            members = [node]
            while len(members[-1].children) == 1 and _filter(members[-1].children[0]):
                members.append(members[-1].children[0])
            if len(members) > 1:
                inside.update(map(id, members))
                own = sum(member.self_ns for member in members)
                chains.append(Chain(tuple(members), own, tuple(members[-1].children)))
        runs += _runs(node.children, least)
    runs += _runs(trace.roots, least)
    return Plan(tuple(runs), tuple(chains))


def _filter(node: Node) -> bool:
    span = node.span
    known = span.name in FILTERS and span.kind is Kind.INTERNAL and span.component is Component.APISERVER
    return known and span.status != 2


def _runs(siblings: list[Node], least: int) -> list[Run]:
    found: list[Run] = []
    run: list[Node] = []
    for node in siblings:
        if run and _like(run[0], node):
            run.append(node)
            continue
        if len(run) >= least:
            found.append(_run(run))
        run = [] if node.span.status == 2 or _filter(node) else [node]
    if len(run) >= least:
        found.append(_run(run))
    return found


def _like(first: Node, node: Node) -> bool:
    a, b = first.span, node.span
    return b.status != 2 and (a.name, a.kind, a.component, a.service) == (b.name, b.kind, b.component, b.service)


def _run(members: list[Node]) -> Run:
    durations = sorted(node.span.duration for node in members)
    median = durations[(len(durations) - 1) // 2]
    longest = max(members, key=lambda node: node.span.duration)
    stands_out = longest.span.duration > OUTLIER * max(1, median)
    return Run(tuple(members), sum(durations), median, durations[-1], longest if stands_out else None)
