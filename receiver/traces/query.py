"""Which traces are listed, and in which order.

What a filter says is looked for once in every distinct string of the index, and from then on only numbers are compared:
nothing here costs Python time a trace. The language itself is in `receiver.traces.filter`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.index import Index
from receiver.traces import durations
from receiver.traces.filter.attributes import Attribute
from receiver.traces.filter.columns import OWN_AGENT, PROBES, Traces
from receiver.traces.filter.evaluate import MIN_ID_DIGITS, Evaluation, Found, prepare, starts
from receiver.traces.filter.fields import FIELDS as _FIELDS
from receiver.traces.filter.measures import times_of
from receiver.traces.filter.strings import strings_of
from receiver.traces.filter.syntax import (
    EVERYTHING,
    MAX_QUERY,
    Condition,
    Node,
    QueryError,
    attributes,
    nodes,
    parse,
    quoted,
)
from receiver.traces.phases import GROUPS

__all__ = [
    "FIELDS",
    "MAX_QUERY",
    "MIN_ID_DIGITS",
    "NOISE",
    "PLACES",
    "SORTS",
    "Noise",
    "Query",
    "QueryError",
    "Selection",
    "View",
    "counts",
    "quoted",
    "select",
    "shown",
    "starting_with",
]

Array = npt.NDArray[Any]

FIELDS: Final = tuple(_FIELDS)
"""Short fields of a filter, in the order in which they are offered."""
SORTS: Final = ("start", "duration", "spans", "errors", "verb", "resource", "namespace", "client", "code", "where")
"""Orders of a view: by time, duration, numbers and code the highest first, by text from a to z, then newest first.
By duration, requests that were asked to last (`semantics.long_running`) come after all others, and so do streams to
etcd: they would fill the top of every list of slow ones. By `where`, what spent most of its time in the same group of
phases stands together, in the order of `PLACES`, the longest time there first; the same ones come last, and before them
what is no request."""
PLACES: Final = (
    *("admission", "conversion", "aggregation", "runtime", "encryption", "etcd", "cache", "encoding", "decoding"),
    *("filters", "other"),
)
"""Groups of phases, those outside the API server first: of equal times the first counts."""
assert sorted(PLACES) == sorted(GROUPS)


@dataclass(frozen=True, slots=True)
class Query:
    """A filter. Letter case does not matter in it, but in names of attributes.

    A bare word is looked for within the headline, verb, resource (`pods/status`), namespace and name
    (`default/shop`), path of a non-resource URL, user agent, webhooks and services, or it is the status code, or
    starts the trace id or an audit id.
    A field equals one of its values, but: `ua` contains it; `audit`, `instance` and `trace` start with it; `code` may
    be a class (`5xx`); `resource` may name a subresource (`pods/status`), else any; `service`, `span`, `component`,
    `self` and attributes are of any span of the trace; `audit` any that a request in it has, one that was passed on to
    an aggregated API server too; `webhook` the name or the configuration of any webhook that it called. `!=` is where
    `=` does not hold: none of several values equals. A pattern (`=~`) is found anywhere in the text.
    """

    root: Node = EVERYTHING
    text: str = field(default="", compare=False)

    @classmethod
    def parse(cls, text: str) -> Query:
        """A filter from what was typed; the grammar is in `filter.syntax`.

        Raises:
            QueryError: it is not understood; the error knows where.
        """
        return cls(parse(text), text)

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """What must be read in the bodies of spans: a `filter.scan.Scan` does. Empty for most filters."""
        return attributes(self.root)

    @property
    def timed(self) -> bool:
        """Whether what it finds changes although nothing arrives: with `age` and `settled`."""
        return any(isinstance(node, Condition) and node.name in ("age", "settled") for node in nodes(self.root))


@dataclass(frozen=True, slots=True)
class Group:
    """Some traces that belong together, as those of one command do: `name` is for people, `ids` are 32 hex digits."""

    name: str
    ids: frozenset[str]

    def slots(self, index: Index) -> Array:
        """Those of them that are held."""
        numbers = [int(one, 16) for one in self.ids]
        high = np.array([number >> 64 for number in numbers], np.uint64)
        low = np.array([number & 0xFFFFFFFFFFFFFFFF for number in numbers], np.uint64)
        slots = index.slots_of(high, low)
        found: Array = slots[slots >= 0]
        return found


@dataclass(frozen=True, slots=True)
class View:
    """What is listed: the filter, and what the keys of the list turn on.

    `window_ns` counts from the arrival of the last span of a trace by this machine's clock; None is all. `between`
    (from, to before, in ns since the epoch) is when its headline began by the sender's clock, or when it came where
    that is earlier or where the headline has no start.
    `reverse` turns the order round; within equals the newest stay first. `hide_paired` leaves out the lone
    `authentication` traces whose request is known (`pairing`): each is a part of what its request says. One that
    holds a failed span stays. `group` keeps to the traces of a group, whatever noise is in it.
    """

    query: Query
    window_ns: int | None
    errors_only: bool
    hide_noise: bool
    sort: str  # one of SORTS
    reverse: bool
    hide_paired: bool = False
    between: tuple[int, int] | None = None
    group: Group | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Slots (int32) in display order, how many more traces only noise hides, and how many traces there are, without
    those that `View.hide_paired` leaves out."""

    slots: Array
    hidden_noise: int
    total: int


def select(index: Index, view: View, now: int, *, live: bool = True, found: Found | None = None) -> Selection:
    """The traces of a view. For the thread that extends the index: it takes no lock, so readers never wait for it.

    In the order by duration, either way round, what was asked to last comes after all others: see `SORTS`.

    Args:
        now: ns since the epoch by the clock that gave `received`; for a recording, of its newest span.
        live: False for a recording, to which nothing will come.
        found: what is known of the attributes that the filter asks for, as a `filter.scan.Scan` has it; without it no
            trace is known to have one.

    Raises:
        QueryError: `view.sort` is none of `SORTS`.
    """
    if view.sort not in SORTS:
        raise QueryError(f"{view.sort[:40]} is no order: use one of {', '.join(SORTS)}.")
    durations.catch_up(index)  # readers find it done
    if view.sort == "where":
        times_of(index).catch_up(index)
    prepare(index, view.query.root)
    strings = strings_of(index)
    with strings.lock:
        traces = Traces(index, strings)
        evaluation = Evaluation(traces, now, live, found)
        chosen, hidden = shown(traces, view, evaluation.of(view.query.root), now)
        slots = np.flatnonzero(chosen)
        slots = slots[_order(traces, slots, view.sort, view.reverse)]
        total = index.traces - (int(np.count_nonzero(traces.paired())) if view.hide_paired else 0)
    return Selection(slots.astype(np.int32), hidden, total)


def shown(traces: Traces, view: View, chosen: Array, now: int) -> tuple[Array, int]:
    """(those of the chosen traces that the switches of a view let through, how many more noise alone keeps back)."""
    index = traces.index
    if view.group is not None:
        within = np.zeros(len(chosen), bool)
        within[view.group.slots(index)] = True
        chosen = chosen & within
    if view.window_ns is not None:
        chosen = chosen & (index.last_received >= now - view.window_ns)
    if view.between is not None:
        start, arrived = index.head_start, index.first_received
        begun = np.where(start > 0, np.minimum(start, arrived), arrived)
        chosen = chosen & (begun >= view.between[0]) & (begun < view.between[1])
    if view.errors_only:
        chosen = chosen & ((index.error_count > 0) | (traces.code >= 400))
    if view.hide_paired:
        chosen = chosen & ~traces.paired()
    if not view.hide_noise or view.group is not None:
        return chosen, 0
    noise = chosen & _noise(traces)
    return chosen & ~noise, int(np.count_nonzero(noise))


def counts(
    index: Index, queries: Sequence[Query], view: View, now: int, *, live: bool = True, found: Found | None = None
) -> list[tuple[int, int]]:
    """How many traces each filter finds in all, and how many of them a view with it would show. For any thread; some ms
    a filter for 100,000 traces.

    Args:
        view: its switches count, its own filter does not.
        now, live, found: as for `select`.
    """
    for query in queries:
        prepare(index, query.root)
    strings = strings_of(index)
    with index.lock, strings.lock:
        traces = Traces(index, strings)
        evaluation = Evaluation(traces, now, live, found)
        numbers = []
        for query in queries:
            chosen = evaluation.of(query.root)
            if view.hide_paired:  # halves of requests, not traces of their own
                chosen &= ~traces.paired()
            visible, _ = shown(traces, view, chosen, now)
            numbers.append((int(np.count_nonzero(chosen)), int(np.count_nonzero(visible))))
    return numbers


_NUMBERS: Final[dict[str, Callable[[Traces], Array]]] = {
    "duration": lambda traces: durations.durations_of(traces.index),
    "spans": lambda traces: traces.index.span_count.astype(np.int64),
    "errors": lambda traces: traces.index.error_count.astype(np.int64),
    "code": lambda traces: traces.code.astype(np.int64),
}
_TEXTS: Final = {
    "verb": ("verb",),
    "resource": ("resource", "subresource"),
    "namespace": ("namespace", "name"),
    "client": ("agent",),
}


def _order(traces: Traces, slots: Array, sort: str, reverse: bool) -> Array:
    """Indexes into `slots` in display order."""
    index = traces.index
    start = index.head_start[slots]
    arrived = index.first_received[slots]
    # A clock that is ahead must not hold the top of the list, a span without time must not sink to 1970.
    newest = -np.where(start > 0, np.minimum(start, arrived), arrived)
    if sort == "start":
        return np.argsort(-newest if reverse else newest, kind="stable")
    order: Array
    if sort == "where":
        place, longest = _places(times_of(index).ns(index))
        sign = -1 if reverse else 1
        asked: Array = traces.requests[slots]
        by_time: Array = np.where(asked, -sign * longest[slots], 0)
        by_place: Array = np.where(asked, sign * place[slots], 0)
        order = np.lexsort((newest, by_time, by_place, ~asked, traces.lasting()[slots]))
        return order
    if sort in _NUMBERS:
        number = _NUMBERS[sort](traces)[slots]
        order = np.lexsort((newest, number if reverse else -number))
        if sort == "duration":
            lasting = traces.lasting()[slots[order]]
            order = np.concatenate((order[~lasting], order[lasting]))
        return order
    ranks = [traces.strings.ranks(traces.request(column)[slots]) for column in _TEXTS[sort]]
    keys = [-rank if reverse else rank for rank in reversed(ranks)]
    order = np.lexsort((newest, *keys, ~traces.requests[slots]))  # what is no request comes last
    return order


def _places(ns: Array) -> tuple[Array, Array]:
    """(the number of the one of `PLACES` where it spent the longest, how long), by trace."""
    place: Array = np.full(ns.shape[1], len(PLACES) - 1, np.int8)
    longest: Array = np.zeros(ns.shape[1], np.int64)
    for number, name in enumerate(PLACES):
        first, *others = GROUPS[name]
        time: Array = ns[first] if not others else ns[[first, *others]].sum(axis=0)
        place[time > longest] = number
        np.maximum(longest, time, out=longest)
    return place, longest


@dataclass(frozen=True, slots=True)
class Noise:
    """One kind of what a control plane does all the time (docs/facts.md 8)."""

    name: str
    says: str
    holds: Callable[[Traces], Array]


NOISE: Final = (
    Noise("leases", "requests for leases, by which nodes and leaders say that they are alive", Traces.leases),
    Noise("probes and metrics", f"requests for {', '.join(PROBES)}", Traces.probes),
    Noise("lone etcd calls", "calls to etcd that belong to no request, and streams between both", Traces.etcd_alone),
    Noise("lone authentications", "quick authentications whose request is not known", Traces.authentications),
    Noise("own requests", f"requests and test spans of this program ({OWN_AGENT})", Traces.own),
)
"""What `View.hide_noise` hides. What holds a failed span or was answered with 5xx is never noise."""


def _noise(traces: Traces) -> Array:
    """What any kind of `NOISE` says is noise, without what went wrong."""
    found = np.zeros(traces.index.traces, bool)
    for kind in NOISE:
        found |= kind.holds(traces)
    found &= (traces.index.error_count == 0) & (traces.code < 500)
    return found


def starting_with(index: Index, digits: str) -> Array:
    """Slots of the traces whose id starts with these hex digits (1 to 32, lower case). Under the index's lock, or for
    the thread that extends it."""
    found: Array = np.flatnonzero(starts(index.id_hi, index.id_lo, digits))
    return found
