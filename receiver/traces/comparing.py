"""One trace beside another: what explains that one of them took longer.

Spans are matched by where they stand: the names on the way down from the headline, and of siblings with one name the
first with the first. Each is compared by its part of the critical path, and so is each phase: the differences add up to
the difference of the requests, so that what is on top explains most of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from receiver.store.chunk import ROLE_WEBHOOK
from receiver.store.index import Index
from receiver.traces.model import Node, Request, Trace
from receiver.traces.phases import Phase, Phases, phases_of
from receiver.traces.rules.case import cut, listed, time_text
from receiver.traces.timing import critical_path
from receiver.traces.usual import Usual

MOST: Final = 500
"""Spans that are listed; those that explain the least are left out."""
ALIKE_SHARE: Final = 0.05
ALIKE_NS: Final = 500_000
"""Requests that differ by less than one of both took about as long."""
_TOLD: Final = 3
_TOLD_SHARE: Final = 0.1
_MAX_HOOKS: Final = 10_000
_WORDS: Final = {
    Phase.AUTHENTICATION: "authentication",
    Phase.AUDIT: "audit",
    Phase.IMPERSONATION: "impersonation",
    Phase.QUEUE: "priority and fairness",
    Phase.AUTHORIZATION: "authorization",
    Phase.MUTATING: "mutating webhooks",
    Phase.VALIDATING: "validating webhooks",
    Phase.WEBHOOK: "webhooks",
    Phase.CONVERSION: "conversion webhooks",
    Phase.CACHE: "the watch cache",
    Phase.ETCD_SERVER: "etcd",
    Phase.ETCD_GAP: "the way to etcd",
    Phase.ETCD_CALL: "calls to etcd",
    Phase.ENCRYPTION: "encryption",
    Phase.ENCODING: "encoding the answer",
    Phase.STORAGE_ENCODING: "encoding for etcd",
    Phase.DECODING: "decoding",
    Phase.STORAGE_DECODING: "reading and decoding from etcd",
    Phase.AGGREGATION: "an aggregated API",
    Phase.RUNTIME: "the container runtime",
    Phase.OTHER: "the API server itself",
}
_HOOK_WORDS: Final = {
    Phase.MUTATING: "mutating webhook",
    Phase.VALIDATING: "validating webhook",
    Phase.WEBHOOK: "webhook",
    Phase.CONVERSION: "conversion webhook",
}


@dataclass(frozen=True, slots=True)
class Part:
    """What a request spent time on, in words: a phase, or one webhook. Nanoseconds of the one and of the other."""

    name: str
    one: int
    other: int

    @property
    def delta(self) -> int:
        """How much longer the one took."""
        return self.one - self.other


@dataclass(frozen=True, slots=True)
class Pair:
    """A span of the one and its like in the other, "" where there is none. `path` are the names above it, from below
    the headline. `one` and `other` are nanoseconds of the critical paths, so of what the requests waited for it itself;
    `one_took` and `other_took` are the durations of the spans."""

    name: str
    path: tuple[str, ...]
    one_id: str
    other_id: str
    one: int
    other: int
    one_took: int
    other_took: int

    @property
    def delta(self) -> int:
        """How much longer the one took."""
        return self.one - self.other


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both durations in ns, parts and spans by what explains the difference: those that go the same way as the whole
    first, the largest first. The parts differ by as much as the durations do, but where one side is a median.
    `left_out` spans differ less than those listed. `sentence` says it in one."""

    one: int
    other: int
    parts: tuple[Part, ...]
    spans: tuple[Pair, ...]
    left_out: int
    sentence: str


def webhook_names(index: Index, trace_id: str) -> dict[str, str]:
    """By span id of a `Call ... webhook` the webhook's name."""
    with index.lock:
        slot = index.slot_of(trace_id)
        if slot is None:
            return {}
        facts = [fact for fact in index.facts_of(slot, _MAX_HOOKS) if index.role[fact] == ROLE_WEBHOOK]
        names, rows = index.fact("name"), index.fact_row
        return {f"{int(index.span[rows[fact]]):016x}": index.names[int(names[fact])] for fact in facts}


def compare(
    one: Trace, other: Trace, hooks: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {}), usual: Usual | None = None
) -> Comparison | None:
    """The one beside the other; None where one has no headline with a start time.

    Args:
        hooks: `webhook_names` of both.
        usual: the other is only an example of it: durations and phases are compared with these medians.
    """
    sides = []
    for trace, names in zip((one, other), hooks, strict=True):
        path = critical_path(trace)  # fills `critical_ns`
        phases = phases_of(trace, path, names)
        if phases is None:
            return None
        sides.append(phases)
    mine, its = sides
    theirs = dict(zip(Phase, usual.phases, strict=True)) if usual is not None else None
    took = usual.median if usual is not None else its.duration
    delta = mine.duration - took
    split = theirs is None  # medians are of phases, not of webhooks
    parts = _parts(_times(mine, split), _times(its, split) if theirs is None else _phase_times(theirs), delta)
    pairs, left_out = _pairs(one, other, hooks, delta)
    said = _sentence(mine.duration, took, parts, (one.request, other.request), usual)
    return Comparison(mine.duration, took, parts, pairs, left_out, said)


def _times(phases: Phases, split: bool) -> dict[str, int]:
    """Nanoseconds by what they were spent on; webhooks by name where they are to be `split`."""
    left = dict(zip(Phase, phases.ns, strict=True))
    found: dict[str, int] = {}
    for hook in phases.hooks if split else ():
        if hook.name:
            name = f"{_HOOK_WORDS[hook.phase]} {cut(hook.name)}"
            found[name] = found.get(name, 0) + hook.ns
            left[hook.phase] -= hook.ns
    return found | _phase_times(left)


def _phase_times(ns: Mapping[Phase, int]) -> dict[str, int]:
    return {_WORDS[phase]: time for phase, time in ns.items() if time}


def _parts(one: Mapping[str, int], other: Mapping[str, int], delta: int) -> tuple[Part, ...]:
    found = [Part(name, one.get(name, 0), other.get(name, 0)) for name in dict.fromkeys((*one, *other))]
    way = 1 if delta >= 0 else -1
    found.sort(key=lambda part: -way * part.delta)
    return tuple(found)


def _sentence(
    one: int, other: int, parts: Iterable[Part], requests: tuple[Request | None, Request | None], usual: Usual | None
) -> str:
    against = f"the other ({time_text(other)})"
    if usual is not None:
        against = f"usual ({time_text(other)}, the median of {usual.count:,})"
    codes = [request.code if request is not None else None for request in requests]
    ended = ""
    if usual is None and codes[0] != codes[1]:
        ended = f"; it was answered with {codes[0] or 'no code'}, the other with {codes[1] or 'no code'}"
    delta = one - other
    if abs(delta) < max(ALIKE_NS, ALIKE_SHARE * max(one, other)):
        return f"It took {time_text(one)}, about as long as {against}{ended}."
    way = 1 if delta > 0 else -1
    telling = [part for part in parts if way * part.delta >= _TOLD_SHARE * abs(delta)][:_TOLD]
    more = "more" if delta > 0 else "less"
    why = listed([f"{time_text(abs(part.delta))} {more} in {part.name}" for part in telling])
    why = f": {why}" if why else ""
    return f"It took {time_text(one)}, {time_text(abs(delta))} {more} than {against}{why}{ended}."


# --- spans ----------------------------------------------------------------------------------------
_Place = tuple[int, str, int]  # of the parent, the name, the how manieth of that name


def _pairs(
    one: Trace, other: Trace, hooks: tuple[Mapping[str, str], Mapping[str, str]], delta: int
) -> tuple[tuple[Pair, ...], int]:
    numbers: dict[_Place, int] = {}
    places: list[_Place] = []
    mine = _placed(one, hooks[0], numbers, places)
    its = _placed(other, hooks[1], numbers, places)
    way = 1 if delta >= 0 else -1

    def rank(place: int) -> tuple[int, int]:
        left, right = mine.get(place), its.get(place)
        return -way * ((left.critical_ns if left else 0) - (right.critical_ns if right else 0)), place

    ranked = sorted({**mine, **its}, key=rank)
    kept = ranked
    if len(ranked) > MOST:  # both ends differ
        kept = sorted(sorted(ranked, key=lambda place: (-abs(rank(place)[0]), place))[:MOST], key=rank)
    return tuple(_pair(place, mine.get(place), its.get(place), places) for place in kept), len(ranked) - len(kept)


def _pair(place: int, one: Node | None, other: Node | None, places: list[_Place]) -> Pair:
    above, name, _ = places[place]
    path: list[str] = []
    while above >= 0 and len(path) < 64:
        path.append(places[above][1])
        above = places[above][0]
    return Pair(
        name=name,
        path=tuple(reversed(path)),
        one_id=one.span.span_id if one else "",
        other_id=other.span.span_id if other else "",
        one=one.critical_ns if one else 0,
        other=other.critical_ns if other else 0,
        one_took=one.span.duration if one else 0,
        other_took=other.span.duration if other else 0,
    )


def _placed(
    trace: Trace, hooks: Mapping[str, str], numbers: dict[_Place, int], places: list[_Place]
) -> dict[int, Node]:
    """By number of its place each span. The headlines share one place, whatever they are called and stand below."""
    found: dict[int, Node] = {}
    seen: dict[tuple[int, str], int] = {}
    stack: list[tuple[Node, int]] = [(root, -1) for root in reversed(trace.roots)]
    while stack:
        node, above = stack.pop()
        name = node.span.name
        if node.span.span_id in hooks:
            name = f"{name} {hooks[node.span.span_id]}"
        place: _Place
        if node is trace.headline:
            place = (-2, "request", 0)
        else:
            seen[above, name] = order = seen.get((above, name), -1) + 1
            place = (above, name, order)
        number = numbers.setdefault(place, len(places))
        if number == len(places):
            places.append(place)
        found[number] = node
        stack.extend((child, number) for child in reversed(node.children))
    return found
