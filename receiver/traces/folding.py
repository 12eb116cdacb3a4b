"""What of a tree can be one line without hiding time, a failure or what stands out.

A proposal, nothing more: whoever shows the tree decides, and what an operator opened stays open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from receiver.traces.model import Component, Node, Trace
from receiver.traces.tree import is_webhook_call, walk

FILTERS: Final = frozenset(
    {"audit", "impersonation", "constrainedimpersonation", "priorityandfairness", "authorization"}
)
"""Spans of the API server's filter chain, each the parent of the next (kubernetes 1.34 and later)."""
MIN_RUN: Final = 4
"""Like siblings in a row from which they are worth one line."""
OUTLIER: Final = 4
"""The longest of a run stays visible from this many times the median on."""
_LONGEST_CHAIN: Final = 16
_FAILED: Final = 2


@dataclass(frozen=True, slots=True)
class Run:
    """Siblings that follow each other, of one name, kind, component and service: `xN`. Times in ns; `total` is the sum
    of their durations, `longest` one that took longest, `outlier` the same where it stands out, else None.

    Never part of a run: a span that failed or holds one that did, the headline and what is above it, and a call to a
    webhook, for which one is called is what matters."""

    members: tuple[Node, ...]
    total: int
    median: int
    longest: Node
    outlier: Node | None


@dataclass(frozen=True, slots=True)
class Chain:
    """Filters inside each other (`audit` to `authorization`): one line with their own time, before what they let
    through. `own` is the time in ns of each, `end` when they let the request through."""

    members: tuple[Node, ...]
    own: tuple[int, ...]
    end: int


class Folding:
    """What siblings of one trace become. Needs `self_ns` of its nodes."""

    def __init__(self, trace: Trace, least: int = MIN_RUN) -> None:
        """Linear in the spans of the trace."""
        self._trace = trace
        self._least = max(2, least)
        self._apart = {id(trace.headline)}  # never part of a run
        for node in reversed(list(walk(trace))):
            if node.span.status == _FAILED or any(id(child) in self._apart for child in node.children):
                self._apart.add(id(node))

    def lines(self, siblings: Sequence[Node]) -> list[Node | Chain | Run]:
        """These siblings (children of one node, or roots) as lines in start order: a chain of two or more filters is
        one, and what is below the filters, the work of the request, stands beside it; then runs. Linear but for the
        sorting after a chain; every span given is in exactly one line, but that those below filters of a chain are in
        lines of their own."""
        lines: list[Node | Chain] = list(siblings)
        if any(is_filter(node) for node in siblings):
            lines = self._hoisted(siblings)
        return list(lines) if len(lines) < self._least else self._with_runs(lines)

    def _hoisted(self, siblings: Sequence[Node]) -> list[Node | Chain]:
        lines: list[Node | Chain] = []
        waiting = list(reversed(siblings))
        hoisted = False
        while waiting:
            node = waiting.pop()
            members = _members(node)
            if len(members) < 2:
                lines.append(node)
                continue
            own = tuple(filter_time(self._trace, member) for member in members)
            lines.append(Chain(members, own, _end(members)))
            inside = set(map(id, members))
            for member in reversed(members):
                waiting += [below for below in reversed(member.children) if id(below) not in inside]
            hoisted = True
        if hoisted:  # stable: a chain stays before the work that it lets through
            lines.sort(key=lambda line: (line.members[0] if isinstance(line, Chain) else line).span.start)
        return lines

    def _with_runs(self, lines: Sequence[Node | Chain]) -> list[Node | Chain | Run]:
        out: list[Node | Chain | Run] = []
        run: list[Node] = []

        def close() -> None:
            if len(run) >= self._least:
                out.append(_run(tuple(run)))
            else:
                out.extend(run)
            run.clear()

        for line in lines:
            if isinstance(line, Chain) or not self._one_of_many(line):
                close()
                out.append(line)
                continue
            if run and not _like(run[0], line):
                close()
            run.append(line)
        close()
        return out

    def _one_of_many(self, node: Node) -> bool:
        return not (id(node) in self._apart or is_filter(node) or is_webhook_call(node.span.name))


def is_filter(node: Node) -> bool:
    """Whether a span is a filter of the API server."""
    return node.span.name in FILTERS and node.span.component is Component.APISERVER


def filter_time(trace: Trace, node: Node) -> int:
    """Nanoseconds that a filter took itself. What `authorization` has left after the handler's first span, and all of
    it where the handler has none (a watch until 1.35 has not), is the handler's, but for a refused request."""
    if node.span.name != "authorization" or (trace.request is not None and trace.request.code == 403):
        return node.self_ns
    first = next((child.span.start for child in node.children if child.span.start), None)
    return 0 if first is None else max(0, min(node.self_ns, first - node.span.start))


def _members(node: Node) -> tuple[Node, ...]:
    """This filter and those below it, each the child of the one before; () for anything else."""
    chain: list[Node] = []
    following: Node | None = node if is_filter(node) else None
    while following is not None and len(chain) < _LONGEST_CHAIN:
        chain.append(following)
        following = next((child for child in following.children if is_filter(child)), None)
    return tuple(chain)


def _end(chain: Sequence[Node]) -> int:
    """When the filters let the request through: the start of what is below the innermost one."""
    first, last = chain[0].span, chain[-1]
    below = [child.span.start for member in chain for child in member.children if not is_filter(child)]
    through = min((at for at in below if at >= last.span.start), default=max(first.start, first.end))
    return max(first.start, min(through, max(first.start, first.end)))


def _like(one: Node, other: Node) -> bool:
    a, b = one.span, other.span
    return (a.name, a.kind, a.component, a.service) == (b.name, b.kind, b.component, b.service)


def _run(members: tuple[Node, ...]) -> Run:
    durations = sorted(node.span.duration for node in members)
    median = durations[(len(durations) - 1) // 2]
    longest = max(members, key=lambda node: node.span.duration)
    stands_out = longest.span.duration > OUTLIER * max(1, median)
    return Run(members, sum(durations), median, longest, longest if stands_out else None)
