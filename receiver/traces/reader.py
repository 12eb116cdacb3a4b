"""Reading traces out of the index: rows of the list and whole traces.

Summaries and trees come from the resident columns alone; attributes, events and links are in `bodies`, decoded for
the spans that are looked at and no others (measured: decoding everything costs 40 times as much).
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.chunk import (
    COMPONENT_MASK,
    COMPONENT_NAMES,
    FACT_STRINGS,
    FLAG_REQUEST,
    ROLE_CALL,
    ROLE_WEBHOOK,
)
from receiver.store.index import Index
from receiver.traces.chains import chained as chained
from receiver.traces.chains import keyed
from receiver.traces.chains import spans_of as spans_of
from receiver.traces.durations import durations_of
from receiver.traces.head import first_of_tree
from receiver.traces.model import Component, Kind, Request, Settled, Span, Trace, TraceSummary
from receiver.traces.semantics import Facts, merge_request
from receiver.traces.timing import self_times
from receiver.traces.tree import build, walk

Array = npt.NDArray[Any]

SETTLE_NS: Final = 10_000_000_000
"""A trace is still arriving until nothing came for this long: exporters batch for 5 s, so twice that."""
SPAN_CAP: Final = 50_000
"""Spans of one trace that a tree is made of; a trace id that is reused for hours has more."""

_COMPONENTS: Final = tuple(Component(name) for name in COMPONENT_NAMES)
_KINDS: Final = tuple(Kind)
MAX_FACTS: Final = 256
"""Facts of one trace, the last arrived, that are looked through for its webhooks."""


# --- what only all spans of a trace can tell ---------------------------------------------------------
def _missing(index: Index, rows: Array, positions: Array, traces: int) -> Array:
    """How many distinct parents each trace names that are not among its spans."""
    parent = index.parent[rows]
    named = np.flatnonzero(parent)
    span_keys = keyed(index.span[rows], positions)
    parent_keys = keyed(parent[named], positions[named])
    span_keys.sort()
    at = np.searchsorted(span_keys, parent_keys)
    at[at == len(span_keys)] = 0
    gone = np.flatnonzero(span_keys[at] != parent_keys) if len(span_keys) else named
    _, first = np.unique(parent_keys[gone], return_index=True)
    counts: Array = np.bincount(positions[named[gone[first]]], minlength=traces)
    return counts


def _services(index: Index, rows: Array, positions: Array, traces: int) -> list[tuple[str, ...]]:
    """Each trace's services, in the order in which they started."""
    ids: dict[str, int] = {}
    of_resource = np.array([ids.setdefault(r.service, len(ids)) for r in index.resources] or [0], np.int64)
    names = list(ids)
    service = of_resource[index.resource[rows]]
    start = index.start[rows].astype(np.int64)
    start[start == 0] = np.iinfo(np.int64).max
    order = np.lexsort((start, service, positions))
    key = (positions * len(ids) + service)[order]
    first = order[np.concatenate(([True], key[1:] != key[:-1]))] if len(key) else order
    first = first[np.lexsort((start[first], positions[first]))]
    found: list[tuple[str, ...]] = [()] * traces
    known: dict[tuple[int, ...], tuple[str, ...]] = {}  # traces by the thousand have the same few
    ends = np.searchsorted(positions[first], np.arange(traces), side="right").tolist()
    members, low = service[first].tolist(), 0
    for i, high in enumerate(ends):
        those = tuple(members[low:high])
        if those not in known:
            known[those] = tuple(name for name in (names[j] for j in those) if name)
        found[i] = known[those]
        low = high
    return found


_BIG: Final = 5_000
_big_known: weakref.WeakKeyDictionary[Index, dict[int, tuple[int, tuple[str, ...], int]]] = weakref.WeakKeyDictionary()


def _looked_through(index: Index, slots: Array, now: int, live: bool) -> tuple[list[tuple[str, ...]], list[int]]:
    """What only all spans of a trace can tell: (services, missing parents) of each trace.

    Of traces with very many spans the answer is kept, and while spans go on coming it is not asked again: a row on
    screen must not cost more the longer somebody reuses one trace id.
    """
    known = _big_known.setdefault(index, {})
    services: list[tuple[str, ...]] = [()] * len(slots)
    missing = [0] * len(slots)
    counts = index.span_count[slots]
    open_ = np.ones(len(slots), bool)
    big = np.flatnonzero(counts > _BIG).tolist()
    for i in big:
        held = known.get(int(slots[i]))
        arriving = live and now - int(index.last_received[slots[i]]) < SETTLE_NS
        if held is not None and (arriving or held[0] == counts[i]):
            _, services[i], missing[i] = held
            open_[i] = False
    asked = np.flatnonzero(open_)
    rows, positions = spans_of(index, slots[asked])
    found = _services(index, rows, positions, len(asked))
    lacking = _missing(index, rows, positions, len(asked)).tolist()
    for i, those, count in zip(asked.tolist(), found, lacking, strict=True):
        services[i], missing[i] = those, count
    for i in big:
        if open_[i]:
            known[int(slots[i])] = (int(counts[i]), services[i], missing[i])
    return services, missing


# --- facts ----------------------------------------------------------------------------------------
def _facts(index: Index, wanted: Array) -> list[Facts | None]:
    """The facts of these ids, None for -1."""
    some = wanted[wanted >= 0]
    names = index.names
    columns = [[names[i] for i in index.fact(column)[some].tolist()] for column in FACT_STRINGS]
    codes = index.fact("code")[some].tolist()
    halves = (index.fact(column)[some].tolist() for column in ("audit_hi", "audit_lo", "audit_name"))
    audits = [_uuid(hi, lo) if hi or lo else names[name] for hi, lo, name in zip(*halves, strict=True)]
    made = iter([Facts(*values) for values in zip(*columns, codes, audits, strict=True)])
    return [next(made) if fact >= 0 else None for fact in wanted.tolist()]


def _uuid(hi: int, lo: int) -> str:
    digits = f"{hi:016x}{lo:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


# `Facts(*values)` relies on this
assert tuple(field.name for field in fields(Facts)) == (*FACT_STRINGS, "code", "audit")


def _requests(index: Index, slots: Array) -> list[Request | None]:
    """The request of each trace that holds an apiserver's SERVER span."""
    servers = index.server_fact[slots]
    verbs = np.where(servers >= 0, index.verb_fact[slots], -1)
    return [
        None if server is None else merge_request(server, verb)
        for server, verb in zip(_facts(index, servers), _facts(index, verbs), strict=True)
    ]


def _webhooks(index: Index, slots: Array) -> dict[int, tuple[tuple[str, ...], str, str]]:
    """By position in `slots`, of the traces that called webhooks: their names in start order, what the first failed
    call said ("" if none failed), and which webhook that was."""
    calling = index.webhook_fact[slots] >= 0
    facts, positions = chained(np.where(calling, index.last_fact[slots], -1), index.fact("fact_prev"), MAX_FACTS)
    rows = index.fact("fact_row")[facts]
    role, failed = index.fact("role")[facts], index.kind_status[rows] >> 4 == 2
    names = index.names
    hooks: dict[int, dict[int, tuple[int, str]]] = {}
    hook = np.flatnonzero(role == ROLE_WEBHOOK)
    for position, span, start, name in zip(
        positions[hook].tolist(),
        index.span[rows[hook]].tolist(),
        index.start[rows[hook]].tolist(),
        index.fact("name")[facts[hook]].tolist(),
        strict=True,
    ):
        hooks.setdefault(position, {})[span] = (start, names[name])
    failures: dict[int, tuple[str, str]] = {}
    call = np.flatnonzero((role == ROLE_CALL) & failed)
    call = call[np.argsort(facts[call])]  # the first to arrive is named
    for position, above, detail, code in zip(
        positions[call].tolist(),
        index.parent[rows[call]].tolist(),
        index.fact("detail")[facts[call]].tolist(),
        index.fact("code")[facts[call]].tolist(),
        strict=True,
    ):
        said = names[detail] or (f"HTTP {code}" if code else "")
        if said and above in hooks.get(position, ()) and position not in failures:
            failures[position] = said, hooks[position][above][1]
    return {
        position: (
            tuple(dict.fromkeys(name for _, name in sorted(called.values()) if name)),
            *failures.get(position, ("", "")),
        )
        for position, called in hooks.items()
    }


# --- the list -------------------------------------------------------------------------------------
def summaries(index: Index, slots: Sequence[int] | Array, now: int, *, live: bool = True) -> list[TraceSummary]:
    """The rows of the list for these traces, in this order: some 20 us a trace.

    Args:
        slots: trace slots of this index.
        now: ns since the epoch, by the clock that gave `received`.
        live: False for recordings, to which nothing will come: then no trace is still arriving.
    """
    at = np.asarray(slots, np.int64)
    if not len(at):
        return []
    with index.lock:
        services, missing = _looked_through(index, at, now, live)
        requests = _requests(index, at)
        hooks = _webhooks(index, at)
        head = index.head_row[at]
        stored, names = index.stored_fact[at], index.fact("name")
        created = [index.names[int(names[fact])] if fact >= 0 else "" for fact in stored.tolist()]
        columns = [
            [f"{hi:016x}{lo:016x}" for hi, lo in zip(index.id_hi[at].tolist(), index.id_lo[at].tolist(), strict=True)],
            index.head_start[at].tolist(),
            durations_of(index, at).tolist(),
            index.span_count[at].tolist(),
            index.error_count[at].tolist(),
            last_sent(index, at).tolist(),
            [index.sources[i] for i in index.source[at].tolist()],
            [index.resources[i].instance for i in index.resource[head].tolist()],
            [index.names[i] for i in index.name[head].tolist()],
        ]
    nothing: tuple[tuple[str, ...], str, str] = ((), "", "")
    made = []
    for i, row in enumerate(zip(*columns, strict=True)):
        trace_id, start, duration, spans, errors, received, source, instance, name = row
        called, failure, failed = hooks.get(i, nothing)
        state = _settled(received, missing[i], now, live)
        made.append(
            TraceSummary(
                trace_id, start, duration, spans, errors, services[i], state, missing[i], source, instance, name,
                requests[i], called, failure, failed, created[i],
            )
        )  # fmt: skip
    return made


def last_sent(index: Index, slots: Array) -> Array:
    """When the last span of each trace came from a sender, ns since the epoch; 0 where it came out of a recording,
    behind which nothing else is on its way."""
    at = np.searchsorted(index.chunk_id, index.chunk[index.last_row[slots]])
    found: Array = np.where(index.chunk_recorded[at], 0, index.last_received[slots])
    return found


def _settled(last_received: int, missing: int, now: int, live: bool) -> Settled:
    if live and now - last_received < SETTLE_NS:
        return Settled.ARRIVING
    return Settled.MISSING if missing else Settled.SETTLED


# --- one trace ------------------------------------------------------------------------------------
def load(
    index: Index, trace_id: str, now: int, cap: int = SPAN_CAP, *, live: bool = True, first: bool = False
) -> Trace | None:
    """A whole trace with its tree and self times, from the index alone; None when it is not held.

    Args:
        trace_id: 32 hex digits.
        now, live: as for `summaries`.
        cap: of a trace with more spans the headline and the last arrived ones are taken and `left_out` counts the
            others; parents among those count as seen, though their children are roots marked ORPHAN.
        first: instead, those are taken that come first in the tree of all, and stand as they stand there; times and
            errors of the trace are those of all. With them come a few that only tell that more follows.
    """
    with index.lock:
        slot = index.slot_of(trace_id)
        if slot is None:
            return None
        one = np.array([slot], np.int64)
        rows, positions = spans_of(index, one)
        missing = int(_missing(index, rows, positions, 1)[0])
        state = _settled(int(last_sent(index, one)[0]), missing, now, live)
        request = _requests(index, one)[0]
        if first and len(rows) > cap:
            return _head(index, rows, cap, state, missing, request)
        left_out = max(0, len(rows) - cap)
        head = int(index.head_row[slot])
        if left_out and head < rows[left_out]:
            rows[left_out] = head  # what names the trace is always there
        spans = spans_at(index, rows[left_out:])
    trace = build(spans, settled=state, missing=missing, left_out=left_out)
    self_times(trace)
    trace.request = request
    return trace


def _head(index: Index, rows: Array, cap: int, state: Settled, missing: int, request: Request | None) -> Trace:
    start, end = index.start[rows], index.end[rows]
    head = first_of_tree(index.span[rows], index.parent[rows], start, end, cap)
    spans = spans_at(index, rows[[*head.first, *head.following]])
    trace = build(spans, settled=state, missing=missing, left_out=len(rows) - len(spans))
    self_times(trace)
    known = {(int(index.chunk[rows[at]]), int(index.ordinal[rows[at]])): ns for at, ns in head.covered.items()}
    for node in walk(trace):
        covered = known.get((node.span.chunk, node.span.row))
        if covered is not None:
            node.self_ns = node.span.duration - covered
    trace.request = request
    trace.errors = int(np.count_nonzero(index.kind_status[rows] >> 4 == 2))
    known_starts = start[start > 0]
    trace.start, trace.end = int(known_starts.min()) if len(known_starts) else 0, int(end.max())
    return trace


def spans_at(index: Index, rows: Array) -> list[Span]:
    """The spans of these rows, of whatever traces. Under `index.lock`."""
    slots = index.slot[rows].tolist()
    ids = {slot: index.trace_id(slot) for slot in set(slots)}
    traces = [ids[slot] for slot in slots]
    resource = index.resource[rows].tolist()
    kind_status = index.kind_status[rows]
    flags = index.flags[rows]
    chunks = index.chunk[rows]
    source_of = index.chunk_source[np.searchsorted(index.chunk_id, chunks)]
    names, resources, sources = index.names, index.resources, index.sources
    return [
        Span(
            trace_id, f"{span:016x}", f"{parent:016x}" if parent else "", names[name], _KINDS[kind], start, end, status,
            resources[sender].service, resources[sender].instance, _COMPONENTS[component], sources[source],
            chunk, ordinal, request,
        )
        for trace_id, span, parent, name, kind, start, end, status, sender, component, source, chunk, ordinal, request
        in zip(
            traces,
            index.span[rows].tolist(),
            index.parent[rows].tolist(),
            index.name[rows].tolist(),
            np.minimum(kind_status & 0x0F, len(_KINDS) - 1).tolist(),
            index.start[rows].tolist(),
            index.end[rows].tolist(),
            (kind_status >> 4).tolist(),
            resource,
            np.minimum(flags & COMPONENT_MASK, len(_COMPONENTS) - 1).tolist(),
            source_of.tolist(),
            chunks.tolist(),
            index.ordinal[rows].tolist(),
            ((flags & FLAG_REQUEST) != 0).tolist(),
            strict=True,
        )
    ]  # fmt: skip
