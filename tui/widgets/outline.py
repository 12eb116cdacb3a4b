"""The lines of a trace in display order: what folds into what, which colour a bar has, what is on the critical path.

Made once per load of a trace, in a worker thread, as columns; a line's words are made when it is drawn. No Textual
here.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.traces.folding import Chain, Folding, Run
from receiver.traces.hops import Hop, Place, places
from receiver.traces.model import Component, Kind, Node, Oddity, Trace
from receiver.traces.skew import Alignment
from receiver.traces.timing import CriticalPath, critical_path
from receiver.traces.tree import is_webhook_call

COMPONENTS: Final = tuple(Component)
_INDEX: Final = {component: i for i, component in enumerate(COMPONENTS)}
_WEBHOOK: Final = _INDEX[Component.WEBHOOK]
_ETCD: Final = _INDEX[Component.ETCD]
_RUNTIME: Final = _INDEX[Component.RUNTIME]
_OTHER: Final = _INDEX[Component.OTHER]

MIXED: Final = 1
"""Time of several components passes below this span: its own bar is a thin line."""
VALIDATING: Final = 2
"""A validating webhook's time: its bar has its own texture."""
FILTER: Final = 4
"""A line of the opened filter chain: its time is its own (self) time."""
CHAIN: Final = 8
"""The line that stands for the whole filter chain."""
RUN: Final = 16
"""The line that stands for a run of like siblings."""
ON_PATH: Final = 32
"""The span's own time is on the critical path."""
GROUP: Final = CHAIN | RUN
"""A line that stands for several spans, each of which has a line below it; folded until it is opened."""

_MOST_CHILDREN: Final = 2000


@dataclass(slots=True)
class RunLine:
    """A run of like siblings. `kept` is the line of its outlier, which stays when the run is folded, -1 for none;
    `oddities` are of any of its spans; `starts` and `ends` are when one of them or more ran, ascending and disjoint."""

    run: Run
    kept: int
    oddities: frozenset[Oddity]
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]


@dataclass(slots=True)
class Outline:
    """A trace as lines, parents before children. All lists have one entry a line."""

    trace: Trace
    nodes: list[Node]  # for the line of a filter chain its outermost span, for that of a run its longest
    depth: array[int]
    size: array[int]  # lines of the subtree, the line itself included
    parent: array[int]  # line of the parent, -1 for none
    ink: bytearray  # index into COMPONENTS: whose time the bar is
    flags: bytearray
    start: array[int]  # of the bar, ns since the epoch, 0 for none
    end: array[int]
    shown_ns: array[int]  # the duration column
    chains: dict[int, tuple[Node, ...]]  # the spans of a filter chain, by its line
    runs: dict[int, RunLine]  # by line
    line_of: dict[str, int]  # by span id; the first of several with one id
    places: Mapping[str, Place]  # by span id
    path: CriticalPath | None
    steps: array[int]  # of each interval of the path the line, and when it begins
    step_start: array[int]
    critical: dict[int, int]  # by line: its span's own time on the path, ns; what is not there has none
    alignment: Alignment | None  # where spans were moved, and by how much
    _on_path_before: array[int] = field(repr=False)  # how many lines before this one are on the path; one more

    def __len__(self) -> int:
        return len(self.nodes)

    def id(self, line: int) -> str:
        """What the line is, whatever its place: cursor and folds stay with it."""
        span_id = self.nodes[line].span.span_id
        flags = self.flags[line]
        return f"chain {span_id}" if flags & CHAIN else f"run {span_id}" if flags & RUN else span_id

    def find(self, line_id: str) -> int | None:
        """The line of an id, None when it is gone. A chain and a run are found by any of their spans."""
        kind, _, span_id = line_id.rpartition(" ")
        found = self.line_of.get(span_id)
        if found is None or not kind:
            return found
        above = self.parent[found]
        return above if above >= 0 and self.flags[above] & (CHAIN if kind == "chain" else RUN) else found

    def members(self, line: int) -> tuple[Node, ...]:
        """The spans that a line of several stands for; () for any other."""
        if self.flags[line] & RUN:
            return self.runs[line].run.members
        return self.chains.get(line, ())

    def hidden(self, line: int) -> list[tuple[int, int]]:
        """Ranges of lines, (first, last + 1), that are not shown when this one is folded."""
        first, end = line + 1, line + self.size[line]
        kept = self.runs[line].kept if self.flags[line] & RUN else -1
        return [(first, end)] if kept < 0 else [(first, kept), (kept + self.size[kept], end)]

    def visible(self, folded: Collection[int]) -> array[int]:
        """Lines that are shown when what is below `folded` is not."""
        shown = array("i")
        at = 0
        for low, high in sorted(part for line in folded for part in self.hidden(line)):
            if low > at:
                shown.extend(range(at, low))
            at = max(at, high)
        shown.extend(range(at, len(self.nodes)))
        return shown

    def hides_path(self, line: int) -> bool:
        """Whether a line, were it folded, hides part of the critical path."""
        before = self._on_path_before
        return any(before[high] > before[low] for low, high in self.hidden(line) if high > low)

    def children(self, line: int) -> Iterable[int]:
        """Lines one below, in order."""
        at, end = line + 1, line + self.size[line]
        while at < end:
            yield at
            at += self.size[at]

    def holder(self, line: int) -> int:
        """The line of the span that a line hangs below, -1 for none: a run is no span."""
        above = self.parent[line]
        return self.parent[above] if above >= 0 and self.flags[above] & RUN else above

    def own(self, line: int) -> list[tuple[int, int]]:
        """Parts of a span, (start, end) in ns, in which none of its children ran; [] when it has too many to say."""
        reached, end = self.start[line], self.end[line]
        intervals: list[tuple[int, int]] = []
        for seen, child in enumerate(self._spans_below(line)):
            if seen >= _MOST_CHILDREN:
                return []
            low, high = self.start[child], self.end[child]
            if not low or high <= reached:
                continue
            if low >= end:
                break
            if low > reached:
                intervals.append((reached, low))
            reached = high
            if reached >= end:
                break
        if reached < end:
            intervals.append((reached, end))
        return intervals

    def _spans_below(self, line: int) -> Iterator[int]:
        """Children, those of a run one by one: it covers what lies between them, too."""
        for child in self.children(line):
            if self.flags[child] & RUN:
                yield from self.children(child)
            else:
                yield child

    def ran(self, line: int, low: int, high: int, least: int) -> list[tuple[int, int]]:
        """Parts of a run, (start, end) in ns between `low` and `high`, in which one of its spans ran. What is less than
        `least` ns apart is one part: there is no more of them than can be seen."""
        times = self.runs[line]
        first, last = np.searchsorted(times.ends, low, "right"), np.searchsorted(times.starts, high)
        starts, ends = times.starts[first:last], times.ends[first:last]
        if not len(starts):
            return []
        apart = np.flatnonzero(starts[1:] - ends[:-1] >= max(1, least))
        return list(zip(starts[np.r_[0, apart + 1]].tolist(), ends[np.r_[apart, len(ends) - 1]].tolist(), strict=True))

    def hop(self, line: int) -> Hop | None:
        """The call that a line's span is the client side of, if its server side is there."""
        node = self.nodes[line]
        place = self.places.get(node.span.span_id)
        hop = place.hop if place is not None and not self.flags[line] & GROUP else None
        return hop if hop is not None and hop.client is node else None

    def tail_from(self, line: int) -> int | None:
        """When the span's parent ended, if the span, or one of a run, outlives it."""
        above, flags = self.holder(line), self.flags[line]
        odd = self.runs[line].oddities if flags & RUN else self.nodes[line].oddities
        if above < 0 or Oddity.OUTLIVES not in odd or flags & (FILTER | CHAIN):
            return None
        return self.nodes[above].span.end

    def above(self, line: int) -> Node | None:
        """The parent of a line's span as it was sent: filters fold on the screen only."""
        span_id = self.nodes[line].span.parent_id
        found = self.line_of.get(span_id) if span_id else None
        if found is None or Oddity.SELF_PARENT in self.nodes[line].oddities:
            return None
        return self.nodes[found]

    def moved(self, line: int) -> int:
        """Nanoseconds by which a line's span is shown later than it was sent."""
        return 0 if self.alignment is None else self.alignment.moved(self.nodes[line].span)


def outline(
    trace: Trace,
    webhooks: Mapping[str, tuple[str, str]] | None = None,
    alignment: Alignment | None = None,
) -> Outline:
    """The lines of a trace. Linear but for sorting; nothing recursive, because depth is a sender's choice.

    Args:
        webhooks: of `hops.webhooks_of`.
        alignment: of which this is the trace.
    """
    nodes: list[Node] = []
    depth, parent, ink = array("i"), array("i"), bytearray()
    flags = bytearray()
    start, end, shown = array("q"), array("q"), array("q")
    chains: dict[int, tuple[Node, ...]] = {}
    runs: dict[int, RunLine] = {}
    line_of: dict[str, int] = {}
    folding = Folding(trace)

    def add(node: Node, level: int, above: int, colour: int, flag: int, begin: int, finish: int, ns: int) -> int:
        line = len(nodes)
        nodes.append(node)
        depth.append(level)
        parent.append(above)
        ink.append(colour)
        flags.append(flag)
        start.append(begin)
        end.append(finish)
        shown.append(ns)
        return line

    stack: list[tuple[Node | Chain | Run, int, int]] = []

    def push(lines: Sequence[Node | Chain | Run], level: int, above: int) -> None:
        stack.extend((each, level, above) for each in reversed(lines))

    push(folding.lines(trace.roots), 0, -1)
    while stack:
        what, level, above = stack.pop()
        node = what if isinstance(what, Node) else what.members[0]
        span = node.span
        holder = parent[above] if above >= 0 and flags[above] & RUN else above
        colour, flag = _ink(node, nodes[holder] if holder >= 0 else None, ink[holder] if holder >= 0 else _OTHER)
        if holder >= 0 and colour == _WEBHOOK:
            flag |= flags[holder] & VALIDATING
        if isinstance(what, Node):
            line = add(node, level, above, colour, flag, span.start, max(span.start, span.end), span.duration)
            line_of.setdefault(span.span_id, line)
            if above >= 0 and flags[above] & RUN and runs[above].run.outlier is node:
                runs[above].kept = line
            if node.children:
                push(folding.lines(node.children), level + 1, line)
        elif isinstance(what, Run):
            times = _run_line(what)
            begin, finish = (int(times.starts[0]), int(times.ends[-1])) if len(times.starts) else (0, 0)
            line = add(what.longest, level, above, colour, flag | RUN, begin, finish, what.total)
            runs[line] = times
            push(what.members, level + 1, line)
        else:
            line = add(node, level, above, colour, flag | CHAIN, span.start, what.end, sum(what.own))
            chains[line] = what.members
            for at, member in enumerate(what.members):
                inner = member.span
                stop = what.members[at + 1].span.start if at + 1 < len(what.members) else what.end
                stop = min(max(stop, inner.start), max(inner.end, inner.start))
                below = add(member, level + 1, line, colour, FILTER, inner.start, stop, what.own[at])
                line_of.setdefault(inner.span_id, below)

    size = array("i", [1]) * len(nodes)
    mask = bytearray(1 << colour for colour in ink)
    for line in range(len(nodes) - 1, -1, -1):
        if mask[line] & ~(1 << ink[line]) and not flags[line] & CHAIN:
            flags[line] |= MIXED
        above = parent[line]
        if above >= 0:
            size[above] += size[line]
            mask[above] |= mask[line]

    path = critical_path(trace)
    steps, step_start, critical = array("i"), array("q"), dict[int, int]()
    before = array("i", [0]) * (len(nodes) + 1)
    if path is not None:
        own = {id(step.node): step.lead + step.rest for step in path.steps}
        at_line = {}
        for line, node in enumerate(nodes):
            ns = own.get(id(node), 0)
            if ns and not flags[line] & GROUP:
                flags[line] |= ON_PATH
                critical[line] = ns
                at_line[id(node)] = line
            before[line + 1] = before[line] + (line in critical)
        steps.extend(at_line[id(interval.node)] for interval in path.intervals)
        step_start.extend(interval.start for interval in path.intervals)
    return Outline(
        trace, nodes, depth, size, parent, ink, flags, start, end, shown, chains, runs, line_of,
        places(trace, webhooks), path, steps, step_start, critical, alignment, before,
    )  # fmt: skip


def _run_line(run: Run) -> RunLine:
    """When a run's spans ran, and all that is odd about one of them."""
    starts: list[int] = []
    ends: list[int] = []
    oddities: set[Oddity] = set()
    for node in run.members:  # in start order
        oddities |= node.oddities
        low, high = node.span.start, max(node.span.start, node.span.end)
        if not low:
            continue
        if ends and low <= ends[-1]:
            ends[-1] = max(ends[-1], high)
        else:
            starts.append(low)
            ends.append(high)
    return RunLine(run, -1, frozenset(oddities), _times(starts), _times(ends))


def _times(values: Sequence[int]) -> npt.NDArray[Any]:
    return np.array(values, np.int64)


def _ink(node: Node, above: Node | None, above_ink: int) -> tuple[int, int]:
    """Whose time a span is, and whether of a validating webhook: a call has the colour of who is called."""
    span = node.span
    name, kind, component = span.name, span.kind, span.component
    if component is Component.APISERVER:
        if is_webhook_call(name):
            return _WEBHOOK, VALIDATING if "validating" in name else 0
        if kind is Kind.CLIENT:
            if above is not None and is_webhook_call(above.span.name):
                return _WEBHOOK, 0
            if name.lstrip("/").startswith("etcdserverpb."):
                return _ETCD, 0
        elif name.endswith(" etcd3"):
            return _ETCD, 0
    elif component is Component.KUBELET and kind is Kind.CLIENT and name.lstrip("/").startswith("runtime."):
        return _RUNTIME, 0
    elif component is Component.OTHER and above_ink == _WEBHOOK:
        return _WEBHOOK, 0
    return _INDEX[component], 0


def nearest(shown: Sequence[int], line: int) -> int:
    """Index in `shown` (ascending) of a line, or of the last one before it."""
    return max(0, bisect_right(shown, line) - 1)


def following_failure(lines: Outline, line: int, step: int) -> int | None:
    """The next (step 1) or previous (-1) line of a failed span, around the ends; None when none failed."""
    failed = [i for i, node in enumerate(lines.nodes) if node.span.status == 2 and not lines.flags[i] & GROUP]
    return _following(failed, line, step)


def following_match(lines: Outline, line: int, step: int, matches: Collection[str]) -> int | None:
    """The same for spans with one of these ids."""
    return _following(sorted({at for one in matches if (at := lines.line_of.get(one)) is not None}), line, step)


def _following(places: Sequence[int], line: int, step: int) -> int | None:
    if not places:
        return None
    if step > 0:
        return places[bisect_right(places, line) % len(places)]
    return places[bisect_left(places, line) - 1]


def following_step(lines: Outline, line: int, at: int | None, step: int) -> int | None:
    """The interval of the critical path after (1) or before (-1) the one that is looked at, None at the path's end.

    Args:
        line, at: where the cursor is, and of which interval; a line that was reached in another way (None) stands for
            the moment when its span began.
    """
    steps = lines.steps
    if at is None:
        at = bisect_left(lines.step_start, lines.start[line]) if len(lines) else 0
        if at == len(steps) or steps[at] != line:
            at -= step > 0  # between two intervals
    at += step
    return at if 0 <= at < len(steps) else None
