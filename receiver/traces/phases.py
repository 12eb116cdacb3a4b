"""What the time of a request was spent on: phases, disjoint, that sum exactly to its duration.

A phase is given to each piece of the critical path by what the span is that owns it. There is one definition
(`_work_of` names what a span does, the tables below say which phase its time is) and two ways to evaluate it:
`phases_of` for one trace with its tree, and `breakdown` over the columns of the index, for a screen of rows or for
all traces at once. Both need names, kinds and times only, no attributes and no events, so decoding and the like are as
fine as spans tell:

- A filter's own time is what it takes before the next filter begins; what is left of `authorization` after the
  handler's first span, and all of it where the handler has no span, is the handler's: `other`. (A refusal, 403
  without anything below, is authorization.) A lone `authentication` root spans the whole request: `other`, too.
- What `Create`, `Update`, `Patch` and `Delete` do themselves is `other`: before their first call they read, decode and
  convert the body, and plugins inside the API server work on it; only their events tell which (a verdict reads them).
  So `decoding` is what a span is known to do: objects of a list that are read from etcd. No span decodes a body.
- A call to etcd is split in etcd's own time and the gap, where etcd's span is there; else it is one whole.
"""

from __future__ import annotations

import secrets
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.chunk import APISERVER, COMPONENT_MASK, COMPONENT_NAMES, ETCD, FLAG_REQUEST, ROLE_WEBHOOK, RUNTIME
from receiver.store.index import Index
from receiver.traces.model import Component, Kind, Trace
from receiver.traces.reader import chained, spans_of
from receiver.traces.timing import FILTERS, MAX_LEVELS, STREAMS, CriticalPath, critical_path

Array = npt.NDArray[Any]


class Phase(IntEnum):
    """Kinds of time; the value is the column in a `Breakdown`."""

    AUTHENTICATION = 0
    AUDIT = 1
    IMPERSONATION = 2
    QUEUE = 3  # waiting for priority and fairness
    AUTHORIZATION = 4
    MUTATING = 5
    VALIDATING = 6
    WEBHOOK = 7  # kubernetes 1.22 to 1.25 do not tell which of both
    CONVERSION = 8
    CACHE = 9
    ETCD_SERVER = 10
    ETCD_GAP = 11  # between the client's and the server's side of a call
    ETCD_CALL = 12  # a call of which etcd's side is not in the trace
    ENCRYPTION = 13
    ENCODING = 14  # of the answer, and writing it to the client
    STORAGE_ENCODING = 15
    DECODING = 16  # of a body: no span is known to do only that, so it stays 0
    STORAGE_DECODING = 17
    AGGREGATION = 18
    RUNTIME = 19
    OTHER = 20


PHASES: Final = len(Phase)
GROUPS: Final[Mapping[str, tuple[Phase, ...]]] = {
    "filters": (Phase.AUTHENTICATION, Phase.AUDIT, Phase.IMPERSONATION, Phase.QUEUE, Phase.AUTHORIZATION),
    "admission": (Phase.MUTATING, Phase.VALIDATING, Phase.WEBHOOK),
    "conversion": (Phase.CONVERSION,),
    "cache": (Phase.CACHE,),
    "etcd": (Phase.ETCD_SERVER, Phase.ETCD_GAP, Phase.ETCD_CALL),
    "encryption": (Phase.ENCRYPTION,),
    "encoding": (Phase.ENCODING, Phase.STORAGE_ENCODING),
    "decoding": (Phase.DECODING, Phase.STORAGE_DECODING),
    "aggregation": (Phase.AGGREGATION,),
    "runtime": (Phase.RUNTIME,),
    "other": (Phase.OTHER,),
}
"""Phases as they are shown and written to JSON; every phase is in exactly one group."""
assert sorted(phase for group in GROUPS.values() for phase in group) == list(Phase)


# --- the definition -------------------------------------------------------------------------------
class _Work(IntEnum):
    """What the span of an API server (or what it calls) does, by its name."""

    OTHER = 0
    AUTHENTICATION = 1
    AUDIT = 2
    IMPERSONATION = 3
    QUEUE = 4
    AUTHORIZATION = 5
    MUTATING = 6
    VALIDATING = 7
    CONVERSION = 8
    CACHE = 9
    STORAGE_READ = 10
    STORAGE_CREATE = 11
    ENCRYPTION = 12
    ENCODING = 13
    PROXY = 14
    HTTP_CALL = 15  # only of a CLIENT span, as all below
    POST_CALL = 16  # kubernetes 1.22 to 1.25
    ETCD_CALL = 17
    RUNTIME_CALL = 18


_NAMED: Final = {
    "authentication": _Work.AUTHENTICATION,
    "audit": _Work.AUDIT,
    "impersonation": _Work.IMPERSONATION,
    "constrainedimpersonation": _Work.IMPERSONATION,
    "priorityandfairness": _Work.QUEUE,
    "authorization": _Work.AUTHORIZATION,
    "Call mutating webhook": _Work.MUTATING,
    "Call validating webhook": _Work.VALIDATING,
    "Call conversion webhook": _Work.CONVERSION,
    "Create etcd3": _Work.STORAGE_CREATE,
    "Get etcd3": _Work.STORAGE_READ,
    "SerializeObject": _Work.ENCODING,
    "POST": _Work.POST_CALL,
    **dict.fromkeys(("GET", "HEAD", "PUT", "PATCH", "DELETE"), _Work.HTTP_CALL),
}
_PREFIXES: Final = (
    ("etcdserverpb.", _Work.ETCD_CALL),
    ("HTTP ", _Work.HTTP_CALL),
    ("cacher", _Work.CACHE),
    ("List(", _Work.STORAGE_READ),
    ("TransformToStorage", _Work.ENCRYPTION),
    ("TransformFromStorage", _Work.ENCRYPTION),
    ("Proxy via ", _Work.PROXY),
    ("runtime.v1", _Work.RUNTIME_CALL),
)


def _work_of(name: str) -> _Work:
    known = _NAMED.get(name)
    if known is None:
        known = next((work for prefix, work in _PREFIXES if name.startswith(prefix)), _Work.OTHER)
    return known


# What becomes of a span's own time: (before the first step below it, after that, all of it when nothing is below).
# An `inherited` one takes what is below it along: nothing inside a webhook's call is anything but that webhook.
_FILTERS_TIME: Final = {
    _Work.AUTHENTICATION: (Phase.AUTHENTICATION, Phase.OTHER, Phase.AUTHENTICATION),
    _Work.AUDIT: (Phase.AUDIT, Phase.AUDIT, Phase.AUDIT),
    _Work.IMPERSONATION: (Phase.IMPERSONATION, Phase.IMPERSONATION, Phase.IMPERSONATION),
    _Work.QUEUE: (Phase.QUEUE, Phase.OTHER, Phase.QUEUE),
    _Work.AUTHORIZATION: (Phase.AUTHORIZATION, Phase.OTHER, Phase.OTHER),
}
_ALWAYS: Final = {
    _Work.CACHE: Phase.CACHE,
    _Work.STORAGE_READ: Phase.STORAGE_DECODING,
    _Work.STORAGE_CREATE: Phase.STORAGE_ENCODING,
    _Work.ENCODING: Phase.ENCODING,
}
_INHERITED: Final = {
    _Work.MUTATING: Phase.MUTATING,
    _Work.VALIDATING: Phase.VALIDATING,
    _Work.CONVERSION: Phase.CONVERSION,
    _Work.ENCRYPTION: Phase.ENCRYPTION,
    _Work.PROXY: Phase.AGGREGATION,
}
_INHERITED_CALLS: Final = {
    _Work.HTTP_CALL: Phase.AGGREGATION,
    _Work.POST_CALL: Phase.WEBHOOK,
    _Work.ETCD_CALL: Phase.ETCD_CALL,
}
HOOKS: Final = (Phase.MUTATING, Phase.VALIDATING, Phase.WEBHOOK, Phase.CONVERSION)
"""Phases that are told apart by the webhook called."""

_CLIENT: Final = Kind.CLIENT.value
_NOTHING: Final = -1
# by component, whether it is a CLIENT span, and work: the phase that is inherited, or _NOTHING
_TAKES: Final = np.full((len(COMPONENT_NAMES) + 1, 2, len(_Work)), _NOTHING, np.int8)
# by work of an API server's span: phase of its time before, after, alone; rows for all other spans are OTHER
_OWN: Final = np.full((len(_Work), 3), int(Phase.OTHER), np.int8)
for _work, _phases in _FILTERS_TIME.items():
    _OWN[_work] = _phases
for _work, _phase in _ALWAYS.items():
    _OWN[_work] = _phase
for _work, _phase in _INHERITED.items():
    _TAKES[APISERVER, :, _work] = _phase
for _work, _phase in _INHERITED_CALLS.items():
    _TAKES[APISERVER, 1, _work] = _phase
_TAKES[ETCD] = Phase.ETCD_SERVER
_TAKES[RUNTIME] = Phase.RUNTIME
_TAKES[:, 1, _Work.RUNTIME_CALL] = Phase.RUNTIME
_COMPONENT: Final = {component: COMPONENT_NAMES.index(component.value) for component in Component if component.value in
                     COMPONENT_NAMES}  # fmt: skip
_OUTSIDE: Final = len(COMPONENT_NAMES)  # any other component
_ETCD_CALLS: Final = (int(Phase.ETCD_CALL), int(Phase.ETCD_GAP))


# --- one trace ------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class HookTime:
    """What one call of a webhook took of the request: `phase` is one of `HOOKS`. `name` is "" where the span that
    names it is not known."""

    span_id: str
    phase: Phase
    name: str
    ns: int


@dataclass(frozen=True, slots=True)
class Phases:
    """`ns` by `Phase`; they sum to `duration`. `hooks` are the webhooks' parts of MUTATING, VALIDATING, WEBHOOK and
    CONVERSION, in time order."""

    duration: int
    ns: tuple[int, ...]
    hooks: tuple[HookTime, ...] = ()

    def group(self, name: str) -> int:
        """Nanoseconds of one of `GROUPS`."""
        return sum(self.ns[phase] for phase in GROUPS[name])

    def to_json(self) -> dict[str, int]:
        """Nanoseconds by group, all groups, for `traces --json`: they sum to `duration_ns`."""
        return {name: self.group(name) for name in GROUPS}


def phases_of(trace: Trace, path: CriticalPath | None = None, names: Mapping[str, str] | None = None) -> Phases | None:
    """The phases of a trace's headline.

    Args:
        path: of `timing.critical_path(trace)`, computed where it is not given.
        names: of webhooks, by id of the `Call ... webhook` span.

    None for a trace without a headline or whose headline has no start time.
    """
    path = path or critical_path(trace)
    if path is None:
        return None
    refused = trace.request is not None and trace.request.code == 403
    totals = [0] * PHASES
    taken = [_NOTHING] * len(path.steps)  # by step: the phase it hands down
    hook = [_NOTHING] * len(path.steps)  # by step: the call of a webhook it is part of
    hooks: dict[int, int] = {}
    for at, step in enumerate(path.steps):
        span = step.node.span
        work = _work_of(span.name)
        component = _COMPONENT.get(span.component, _OUTSIDE)
        above = taken[step.parent] if step.parent >= 0 else _NOTHING
        if above == _NOTHING:
            taken[at] = int(_TAKES[component, int(span.kind is Kind.CLIENT), work])
            if taken[at] in HOOKS:
                hook[at] = at
        elif above in _ETCD_CALLS and component == ETCD:
            taken[at] = int(Phase.ETCD_SERVER)
        else:
            taken[at], hook[at] = above, hook[step.parent]
        if taken[at] == Phase.ETCD_CALL and _answered(step.node.children):
            taken[at] = int(Phase.ETCD_GAP)
        if taken[at] != _NOTHING:
            totals[taken[at]] += step.lead + step.rest
        elif component != APISERVER:
            totals[Phase.OTHER] += step.lead + step.rest
        else:
            if not at and work == _Work.AUTHENTICATION:
                work = _Work.OTHER
            lead, rest, alone = _OWN[work].tolist()
            if step.leaf:
                lead = Phase.AUTHORIZATION if refused and work == _Work.AUTHORIZATION else alone
            totals[lead] += step.lead
            totals[rest] += step.rest
        if hook[at] != _NOTHING:
            hooks[hook[at]] = hooks.get(hook[at], 0) + step.lead + step.rest
    called = sorted((path.steps[at].start, path.steps[at].node.span.span_id, at) for at in hooks)
    names = names or {}
    return Phases(
        path.end - path.start,
        tuple(totals),
        tuple(HookTime(span_id, Phase(taken[at]), names.get(span_id, ""), hooks[at]) for _, span_id, at in called),
    )


def _answered(children: Sequence[Any]) -> bool:
    return any(child.span.component is Component.ETCD for child in children)


# --- many traces ----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, eq=False)
class Breakdown:
    """The phases of many traces, as columns.

    `ns` has a row for each slot asked for and a column for each `Phase`; its rows sum to `duration`, which is
    the headline's but where a release ends that span early (`timing.headline_end`). The `hook_*` columns have a row
    for each call of a webhook that cost time: the position among the slots, the span's row in the index, the phase,
    the webhook's name as a string id (0: unknown) and the time; by position, then in time order.
    """

    slots: Array
    duration: Array
    ns: Array
    hook_position: Array
    hook_row: Array
    hook_phase: Array
    hook_name: Array
    hook_ns: Array

    def phases(self, index: Index) -> list[Phases]:
        """The same as objects, one for each slot."""
        hooks: list[list[HookTime]] = [[] for _ in range(len(self.slots))]
        for position, span, phase, name, ns in zip(
            self.hook_position.tolist(),
            index.span[self.hook_row].tolist(),
            self.hook_phase.tolist(),
            self.hook_name.tolist(),
            self.hook_ns.tolist(),
            strict=True,
        ):
            hooks[position].append(HookTime(f"{span:016x}", Phase(phase), index.names[name], ns))
        return [
            Phases(duration, tuple(ns), tuple(called))
            for duration, ns, called in zip(self.duration.tolist(), self.ns.tolist(), hooks, strict=True)
        ]


_BLOCK: Final = 8_192  # traces at once: their columns stay in the processor's cache
_MANY: Final = 2_000  # traces from which all facts are looked through for names of webhooks
_MAX_FACTS: Final = 256


def breakdown(index: Index, slots: Sequence[int] | Array) -> Breakdown:
    """Phases of these traces from the resident columns: some 15 us a trace, 1 to 2 ms for a screen of rows."""
    at = np.asarray(slots, np.int64)
    with index.lock:
        tables = _tables_of(index)
        rows, positions = spans_of(index, at) if len(at) else (np.empty(0, np.int64), np.empty(0, np.int64))
        bounds = np.searchsorted(positions, np.arange(0, len(at) + _BLOCK, _BLOCK))
        parts = []
        for number, low in enumerate(range(0, len(at), _BLOCK)):
            part = slice(bounds[number], bounds[number + 1])
            parts.append(_block(index, tables, at[low : low + _BLOCK], rows[part], positions[part] - low, low))
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)] if parts else [_EMPTY] * 6
        duration, ns, hook_position, hook_row, hook_phase, hook_ns = columns
        names = _hook_names(index, at, hook_row)
    return Breakdown(at, duration, ns.reshape(-1, PHASES), hook_position, hook_row, hook_phase, names, hook_ns)


_EMPTY: Final = np.empty(0, np.int64)


def _hook_names(index: Index, slots: Array, rows: Array) -> Array:
    """The name of the webhook that each of these spans called, as a string id."""
    names: Array = np.zeros(len(rows), np.int64)
    if not len(rows):
        return names
    if len(slots) < _MANY:
        facts, _ = chained(
            np.where(index.webhook_fact[slots] >= 0, index.last_fact[slots], -1), index.fact("fact_prev"), _MAX_FACTS
        )
        facts = facts[index.fact("role")[facts] == ROLE_WEBHOOK]
    else:
        facts = np.flatnonzero(index.fact("role") == ROLE_WEBHOOK)
    if len(facts):
        of = index.fact("fact_row")[facts]
        order = np.argsort(of, kind="stable")
        of = of[order]
        at = np.minimum(np.searchsorted(of, rows), len(of) - 1)
        names = np.where(of[at] == rows, index.fact("name")[facts[order[at]]], 0).astype(np.int64)
    return names


class _Tables:
    """By string id of an index: what spans of that name do. Names only grow, so answers stay."""

    def __init__(self) -> None:
        self.work: Array = np.empty(0, np.uint8)
        self.filter: Array = np.empty(0, bool)
        self.stream: Array = np.empty(0, bool)

    def update(self, names: list[str]) -> None:
        """Take in the names that came since."""
        count = len(self.work)
        if count == len(names):
            return
        fresh = names[count:]
        self.work = np.concatenate((self.work, np.array([_work_of(name) for name in fresh], np.uint8)))
        self.filter = np.concatenate((self.filter, np.array([name in FILTERS for name in fresh], bool)))
        self.stream = np.concatenate((self.stream, np.array([name in STREAMS for name in fresh], bool)))


_tables: weakref.WeakKeyDictionary[Index, _Tables] = weakref.WeakKeyDictionary()
_SALT: Final = np.uint64(secrets.randbits(64) | 1)
_INTERNAL: Final = Kind.INTERNAL.value
_PRODUCER: Final = Kind.PRODUCER.value
_CONSUMER: Final = Kind.CONSUMER.value


def _tables_of(index: Index) -> _Tables:
    """Used under the index's lock."""
    tables = _tables.get(index)
    if tables is None:
        tables = _tables[index] = _Tables()
    tables.update(index.names)
    return tables


def _parents(index: Index, rows: Array, positions: Array, traces: int) -> Array:
    """For each row the place of its parent among `rows`, -1 for none: spans of one trace only.

    Looked up by one sorted key of trace and hashed id; the hash is salted, so nobody can make ids meet."""
    room = np.uint64(64 - max(1, (traces - 1).bit_length()))
    span, parent = index.span[rows], index.parent[rows]
    with np.errstate(over="ignore"):
        of = positions.astype(np.uint64) << room
        keys = of | ((span * _SALT) >> (np.uint64(64) - room))
        wanted = of | ((parent * _SALT) >> (np.uint64(64) - room))
    order = np.argsort(keys)
    keys = keys[order]
    at = np.searchsorted(keys, wanted)
    at[at == len(keys)] = 0
    found = order[at]
    known = (parent != 0) & (span[found] == parent) & (positions[found] == positions)
    known &= parent != span
    place: Array = np.where(known, found, _NOTHING)
    return place


def _block(
    index: Index, tables: _Tables, slots: Array, rows: Array, positions: Array, base: int
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """(duration, phases, and of the webhooks: position, row, phase, time) of some thousand traces.

    The same walk as `timing.critical_path`, for all traces a level at a time. What a span waited for depends on its
    own children only, so each family is decided by itself.
    """
    traces = len(slots)
    start, end = index.start[rows].astype(np.int64), index.end[rows].astype(np.int64)
    kind = index.kind_status[rows] & 0x0F
    flags = index.flags[rows]
    component = np.minimum(flags & COMPONENT_MASK, len(COMPONENT_NAMES) - 1)  # as `reader.load` reads it
    request = (flags & FLAG_REQUEST) != 0
    name = index.name[rows]
    work = tables.work[name]
    parent = _parents(index, rows, positions, traces)
    answered = np.zeros(len(rows), bool)
    answered[parent[(component == ETCD) & (parent >= 0)]] = True

    # what is hung elsewhere: `timing.followers`
    ended = (work == _Work.AUTHENTICATION) & (kind == _INTERNAL) & (component == APISERVER) & (parent >= 0)
    ended[ended] = request[parent[ended]]
    moved = np.flatnonzero((parent >= 0) & ended[parent] & (start >= end[parent]))
    parent[moved] = parent[parent[moved]]

    head = np.flatnonzero(rows == index.head_row[slots][positions])
    low, high = start.copy(), end.copy()
    high[head] = np.where(start[head] > 0, np.maximum(end[head], start[head]), start[head])
    # a headline that its release ended early: `timing.headline_end`
    is_head = np.zeros(len(rows), bool)
    is_head[head] = True
    late = np.flatnonzero(
        (parent >= 0) & (kind == _INTERNAL) & (component == APISERVER) & ~tables.filter[name]
        & is_head[parent] & request[parent] & (start >= end[parent]) & (start > 0) & (end > start)
    )  # fmt: skip
    late = late[start[parent[late]] > 0]
    np.maximum.at(high, parent[late], end[late])

    levels = _levels(start, end, kind, tables.stream[name], parent, head, low, high)
    chosen = _chosen(parent, low, high, index.span[rows], levels, head)
    on_path = np.zeros(len(rows), bool)
    on_path[head] = True
    steps = [head]
    for level in levels:
        kept = level[chosen[level]]
        kept = kept[on_path[parent[kept]]]
        on_path[kept] = True
        steps.append(kept)

    own = high - low
    first = high.copy()
    below = np.concatenate(steps[1:]) if len(steps) > 1 else _EMPTY
    np.subtract.at(own, parent[below], (high - low)[below])
    np.minimum.at(first, parent[below], low[below])
    leaf = np.ones(len(rows), bool)
    leaf[parent[below]] = False

    taken = np.full(len(rows), _NOTHING, np.int8)
    hook = np.full(len(rows), _NOTHING, np.int64)
    for number, level in enumerate(steps):
        phase = _TAKES[component[level], (kind[level] == _CLIENT).astype(np.int8), work[level]]
        if number:
            above = taken[parent[level]]
            given = above != _NOTHING
            etcd = (above == Phase.ETCD_CALL) | (above == Phase.ETCD_GAP)
            inherited = np.where(etcd & (component[level] == ETCD), np.int8(Phase.ETCD_SERVER), above)
            hook[level] = np.where(given, hook[parent[level]], _NOTHING)
            opens = ~given & _IS_HOOK[phase]
            phase = np.where(given, inherited, phase)
        else:
            opens = _IS_HOOK[phase]
        phase = np.where((phase == Phase.ETCD_CALL) & answered[level], np.int8(Phase.ETCD_GAP), phase)
        taken[level] = phase
        hook[level[opens]] = level[opens]

    path = np.concatenate(steps)
    whole = taken[path] != _NOTHING
    outside = ~whole & (component[path] != APISERVER)
    work[head[work[head] == _Work.AUTHENTICATION]] = _Work.OTHER
    times = _OWN[work[path]]
    before = np.where(leaf[path], times[:, 2], times[:, 0])
    after = times[:, 1]
    refused = leaf[path] & (work[path] == _Work.AUTHORIZATION)
    if refused.any():
        before = np.where(refused & _refused(index, slots)[positions[path]], np.int8(Phase.AUTHORIZATION), before)
    phase = np.where(whole, taken[path], np.where(outside, np.int8(Phase.OTHER), before))
    after = np.where(whole | outside, phase, after)
    lead = np.where(leaf[path], own[path], first[path] - low[path])
    ns = np.zeros(traces * PHASES, np.int64)
    np.add.at(ns, positions[path] * PHASES + phase, lead)
    np.add.at(ns, positions[path] * PHASES + after, own[path] - lead)
    duration = np.zeros(traces, np.int64)
    duration[positions[head]] = (high - low)[head]

    called = path[hook[path] >= 0]
    cost = np.zeros(len(rows), np.int64)
    np.add.at(cost, hook[called], own[called])
    hooks = np.unique(hook[called])
    hooks = hooks[np.lexsort((index.span[rows[hooks]], low[hooks], positions[hooks]))]
    return duration, ns, positions[hooks] + base, rows[hooks], taken[hooks].astype(np.int64), cost[hooks]


_IS_HOOK: Final = np.zeros(PHASES + 1, bool)  # the last for _NOTHING
_IS_HOOK[list(HOOKS)] = True


def _refused(index: Index, slots: Array) -> Array:
    facts, code = index.server_fact[slots], index.fact("code")
    if not len(code):
        return np.zeros(len(slots), bool)
    found: Array = (facts >= 0) & (code[np.maximum(facts, 0)] == 403)
    return found


def _levels(
    start: Array, end: Array, kind: Array, stream: Array, parent: Array, head: Array, low: Array, high: Array
) -> list[Array]:
    """Spans below the headlines, level by level, without those that cannot have been waited for; narrows `low` and
    `high` to what lies within the spans above."""
    waiting = (parent >= 0) & (start > 0) & ~stream
    waiting &= ~((kind == _CONSUMER) & (kind[parent] == _PRODUCER))
    waiting[head] = False
    state = np.zeros(len(start), np.int8)  # 0 unknown, 1 counts, -1 does not
    state[parent < 0] = -1
    state[~waiting] = -1
    state[head] = 1
    left = np.flatnonzero(waiting)
    levels: list[Array] = []
    while len(left) and len(levels) < MAX_LEVELS:
        above = state[parent[left]]
        ready = left[above > 0]
        if not len(ready):
            break
        of = parent[ready]
        low[ready] = np.maximum(start[ready], low[of])
        high[ready] = np.minimum(end[ready], high[of])
        counts = low[ready] < high[ready]
        state[ready] = np.where(counts, 1, -1)
        levels.append(ready[counts])
        left = left[above == 0]
    return levels


def _chosen(parent: Array, low: Array, high: Array, span: Array, levels: list[Array], head: Array) -> Array:
    """Which of these spans their parent waited for: in each family from its end backwards."""
    chosen = np.zeros(len(parent), bool)
    members = np.concatenate(levels) if levels else _EMPTY
    if not len(members):
        return chosen
    chosen[members] = True
    size = np.bincount(parent[members], minlength=len(parent))
    some = members[size[parent[members]] > 1]
    if not len(some):
        return chosen
    some = some[np.lexsort((span[some], low[some], -high[some], parent[some]))]
    family, first, last = parent[some], low[some], high[some]
    same = family[1:] == family[:-1]
    crossing = np.zeros(len(parent), bool)
    crossing[family[1:][same & (last[1:] > first[:-1])]] = True
    crossed = crossing[family]
    if crossed.any():  # siblings that ran side by side: few in real traces
        at, cursor = -1, 0
        dropped = []
        for place, of, begin, finish in zip(
            some[crossed].tolist(), family[crossed].tolist(), first[crossed].tolist(), last[crossed].tolist(),
            strict=True,
        ):  # fmt: skip
            if of != at or finish <= cursor:
                at, cursor = of, begin
            else:
                dropped.append(place)
        chosen[dropped] = False
    return chosen


def durations(index: Index, slots: Sequence[int] | Array) -> Array:
    """The duration of each trace's headline in ns, with the work that its release let outlive the span."""
    return breakdown(index, slots).duration
