"""Which traces are listed, and in which order.

A filter is words and `field=value`, all of which must hold. Each is looked for once in every distinct string of the
index, and from then on only numbers are compared: nothing here costs Python time a trace.
"""

from __future__ import annotations

import re
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.chunk import APISERVER, COMPONENT_MASK, ROLE_SERVER, ROLE_VERB, ROLE_WEBHOOK
from receiver.store.index import RANK_ROOT, Index
from receiver.traces import durations, pairing
from receiver.traces.semantics import LONG_SUBRESOURCES, LONG_VERBS

Array = npt.NDArray[Any]

FIELDS: Final = (
    "verb",
    "resource",
    "ns",
    "name",
    "ua",
    "code",
    "group",
    "audit",
    "webhook",
    "instance",
    "source",
    "service",
    "trace",
)
"""Fields of `field=value`; `namespace` is the same as `ns`."""
SORTS: Final = ("start", "duration", "spans", "errors", "verb", "resource", "namespace", "client", "code")
"""Orders of a view: by time, duration, numbers and code the highest first, by text from a to z, then newest first.
By duration, requests that were asked to last (`semantics.long_running`) come after all others, and so do streams to
etcd: they would fill the top of every list of slow ones."""
MAX_QUERY: Final = 4_096
"""Longest filter in characters."""
MIN_ID_DIGITS: Final = 6
"""Hex digits from which a bare word can be the start of a trace or audit id; shorter ones would hit by chance."""
_ALIASES: Final = {"namespace": "ns"}
_ID: Final = re.compile(r"[0-9a-f]{1,32}")
_CLIENT: Final = 3  # OTLP span kind
_STREAMS: Final = ("etcdserverpb.Watch/Watch", "etcdserverpb.Lease/LeaseKeepAlive")
"""Streams between apiserver and etcd that end with the process: alone, whichever side sent them, they say nothing."""
_PROBES: Final = ("/livez", "/readyz", "/healthz", "/metrics")
_OWN_AGENT: Final = "k8s-trace-tui"
SLOW_AUTHENTICATION_NS: Final = 100_000_000
"""A lone `authentication` from here on may be all that is left of a slow token webhook, so it is no noise."""
LONGEST_AUTHENTICATION_NS: Final = 65_000_000_000
"""A request that is not asked to last is ended after 60 s (the API server's default), so a longer `authentication` is
that of a watch."""
_NONE: Final = np.zeros(0, np.int64)


class QueryError(Exception):
    """A filter is not understood; str() is one sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Term:
    """One condition: `field` "" is a bare word."""

    field: str
    value: str


@dataclass(frozen=True, slots=True)
class Query:
    """A filter: every term must hold. Letter case does not matter.

    A bare word is looked for within the headline, verb, resource (`pods/status`), namespace and name
    (`default/shop`), path of a non-resource URL, user agent, webhooks and services, or it is the status code, or
    starts the trace id or an audit id.
    A field equals its value, but: `ua` contains it; `audit`, `instance` and `trace` start with it; `code` may be a
    class (`5xx`); `resource` may name a subresource (`pods/status`), else any; `service` is any of the trace's;
    `audit` any that a request in it has, one that was passed on to an aggregated API server too; `webhook` the name
    or the configuration of any webhook that it called.
    """

    terms: tuple[Term, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Query:
        """A filter from what was typed. Quotes, single or double, hold words with spaces or `=` together.

        Raises:
            QueryError: an unknown field, a value that the field cannot have, or a quote without its end.
        """
        if len(text) > MAX_QUERY:
            raise QueryError(f"The filter is longer than {MAX_QUERY:,} characters: shorten it.")
        return cls(tuple(_term(field, value) for field, value in _words(text)))


def quoted(value: str) -> str:
    """A value as it is written in a filter, whatever is in it: `Query.parse(f"name={quoted(x)}")` looks for x."""
    if re.fullmatch(r"[\w./:@-]+", value):
        return value
    return "'\"'".join(f'"{part}"' for part in value.split('"'))


def _words(text: str) -> list[tuple[str | None, str]]:
    """(field or None, value) of each word. A `=` inside quotes belongs to the value."""
    found: list[tuple[str | None, str]] = []
    field: str | None = None
    value, quote, inside = "", "", False
    for character in text + " ":
        if quote:
            if character == quote:
                quote = ""
            else:
                value += character
        elif character in "\"'":
            quote, inside = character, True
        elif character.isspace():
            if inside:
                found.append((field, value))
            field, value, inside = None, "", False
        elif character == "=" and field is None and re.fullmatch(r"[^\W\d][\w.-]*[!~<>]?", value):
            field, value, inside = value, "", True
        else:
            value, inside = value + character, True
    if quote:
        raise QueryError(f"The filter has a {quote} without its end: close it.")
    return found


def _term(field: str | None, value: str) -> Term:
    value = value.casefold()
    if field is None:
        return Term("", value)
    name = _ALIASES.get(field.lower(), field.lower())
    if name[-1] in "!~<>":
        raise QueryError(f"{field[:40]}= is not understood: conditions are words and field=value.")
    if name not in FIELDS:
        raise QueryError(f"{field[:40]} is no field: use one of {', '.join(FIELDS)}, or quote the word.")
    if name == "code" and not re.fullmatch(r"[1-9]xx|\d{1,3}|", value, re.ASCII):
        raise QueryError(f"code={value[:40]} is no status code: use a number such as 404, or a class such as 5xx.")
    if name == "trace" and not _ID.fullmatch(value):
        raise QueryError(f"trace={value[:40]} is no trace id: use up to 32 hex digits from its start.")
    return Term(name, value)


@dataclass(frozen=True, slots=True)
class View:
    """What is listed: the filter, and what the keys of the list turn on.

    `window_ns` counts from the arrival of the last span of a trace by this machine's clock; None is all. `between`
    (from, to before, in ns since the epoch) is when its headline began by the sender's clock, or when it came where
    that is earlier or where the headline has no start.
    `reverse` turns the order round; within equals the newest stay first. `hide_paired` leaves out the lone
    `authentication` traces whose request is known (`pairing`): each is a part of what its request says. One that
    holds a failed span stays.
    """

    query: Query
    window_ns: int | None
    errors_only: bool
    hide_noise: bool
    sort: str  # one of SORTS
    reverse: bool
    hide_paired: bool = False
    between: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Slots (int32) in display order, how many more traces only noise hides, and how many traces there are, without
    those that `View.hide_paired` leaves out."""

    slots: Array
    hidden_noise: int
    total: int


def select(index: Index, view: View, now: int) -> Selection:
    """The traces of a view. For the thread that extends the index: it takes no lock, so readers never wait for it.

    In the order by duration, either way round, what was asked to last comes after all others: see `SORTS`.

    Args:
        now: ns since the epoch by the clock that gave `received`; for a recording, of its newest span.

    Raises:
        QueryError: `view.sort` is none of `SORTS`.
    """
    if view.sort not in SORTS:
        raise QueryError(f"{view.sort[:40]} is no order: use one of {', '.join(SORTS)}.")
    durations.catch_up(index)  # readers find it done
    strings = _strings_of(index)
    with strings.lock:
        traces = _Traces(index, strings)
        chosen, hidden = _shown(traces, view, traces.all_of(view.query), now)
        slots = np.flatnonzero(chosen)
        slots = slots[_order(traces, slots, view.sort, view.reverse)]
        total = index.traces - (int(np.count_nonzero(traces.paired())) if view.hide_paired else 0)
    return Selection(slots.astype(np.int32), hidden, total)


def _shown(traces: _Traces, view: View, chosen: Array, now: int) -> tuple[Array, int]:
    """(those of the chosen traces that the switches of a view let through, how many more noise alone keeps back)."""
    index = traces.index
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
    if not view.hide_noise:
        return chosen, 0
    noise = chosen & traces.noise()
    return chosen & ~noise, int(np.count_nonzero(noise))


def counts(index: Index, queries: Sequence[Query], view: View, now: int) -> list[tuple[int, int]]:
    """How many traces each filter finds in all, and how many of them a view with it would show. For any thread; some ms
    a filter for 100,000 traces.

    Args:
        view: its switches count, its own filter does not.
        now: as for `select`.
    """
    strings = _strings_of(index)
    with index.lock, strings.lock:
        traces = _Traces(index, strings)
        found = []
        for query in queries:
            chosen = traces.all_of(query)
            if view.hide_paired:  # halves of requests, not traces of their own
                chosen &= ~traces.paired()
            shown, _ = _shown(traces, view, chosen, now)
            found.append((int(np.count_nonzero(chosen)), int(np.count_nonzero(shown))))
    return found


_NUMBERS: Final[dict[str, Callable[[_Traces], Array]]] = {
    "duration": lambda traces: durations.durations_of(traces.index),
    "spans": lambda traces: traces.index.span_count.astype(np.int64),
    "errors": lambda traces: traces.index.error_count.astype(np.int64),
    "code": lambda traces: traces.code.astype(np.int64),
}
_TEXTS: Final = {
    "verb": ("verb",),
    "resource": ("resource", "subresource"),
    "namespace": ("namespace",),
    "client": ("agent",),
}


def _order(traces: _Traces, slots: Array, sort: str, reverse: bool) -> Array:
    """Indexes into `slots` in display order."""
    index = traces.index
    start = index.head_start[slots]
    arrived = index.first_received[slots]
    # A clock that is ahead must not hold the top of the list, a span without time must not sink to 1970.
    newest = -np.where(start > 0, np.minimum(start, arrived), arrived)
    if sort == "start":
        return np.argsort(-newest if reverse else newest, kind="stable")
    order: Array
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


class _Traces:
    """Columns by trace that are put together from the facts of its request. Valid until the index is extended."""

    def __init__(self, index: Index, strings: _Strings) -> None:
        """Under `strings.lock`, and by another thread than the one that extends the index under its lock too."""
        strings.update(index.names)
        self.index: Index = index
        self.strings = strings
        self.server = index.server_fact
        self.requests = self.server >= 0
        self.verb_fact = np.where(self.requests, index.verb_fact, -1)
        self.stored = np.where(self.requests, index.stored_fact, -1)
        # as in semantics.merge_request: without a URL the verb span names the request
        named = self.requests & (self._fact("detail", self.server) == 0) & (self.verb_fact >= 0)
        self.naming = np.where(named, self.verb_fact, self.server)
        self._columns: dict[str, Array] = {}

    def _fact(self, column: str, facts: Array) -> Array:
        """A fact column by trace, 0 (the empty string) for -1."""
        values = self.index.fact(column)
        if not len(values):
            return np.zeros(len(facts), values.dtype)
        found: Array = np.where(facts >= 0, values[np.maximum(facts, 0)], values.dtype.type(0))
        return found

    @property
    def code(self) -> Array:
        """HTTP status by trace, 0: unknown or no request."""
        if "code" not in self._columns:
            self._columns["code"] = self._fact("code", self.server)
        return self._columns["code"]

    def request(self, column: str) -> Array:
        """String ids by trace of a name of its request, 0 where it has none."""
        if column not in self._columns:
            found = self._fact(column, self.naming)
            if column == "verb":
                found = np.where(found == 0, self._fact(column, self.server), found)
            elif column == "name":  # a create's URL has none
                found = np.where(found == 0, self._fact(column, self.stored), found)
            elif column == "agent":
                found = self._fact(column, self.server)
                found = np.where(found == 0, self._fact(column, self.verb_fact), found)
            self._columns[column] = found
        return self._columns[column]

    def head_names(self) -> Array:
        """String ids by trace of the headline."""
        return self.index.name[self.index.head_row]

    # --- noise ------------------------------------------------------------------------------------
    def noise(self) -> Array:
        """What any kind of `NOISE` says is noise, without what went wrong."""
        if "noise" not in self._columns:
            found = np.zeros(self.index.traces, bool)
            for kind in NOISE:
                found |= kind.holds(self)
            found &= (self.index.error_count == 0) & (self.code < 500)
            self._columns["noise"] = found
        return self._columns["noise"]

    def paired(self) -> Array:
        """What `View.hide_paired` leaves out."""
        if "paired" not in self._columns:
            found = (pairing.partners(self.index) >= 0) & ~self.requests & (self.index.error_count == 0)
            self._columns["paired"] = found
        return self._columns["paired"]

    def leases(self) -> Array:
        return self._equal("resource", "leases")

    def probes(self) -> Array:
        paths = self.strings.none()
        for probe in _PROBES:
            paths |= self.strings.equal(probe) | self.strings.starting(probe + "/")
        found: Array = self.requests & (self.request("resource") == 0) & paths[self.request("detail")]
        return found

    def etcd_alone(self) -> Array:
        index = self.index
        at = self._others_named(self.strings.starting("etcdserverpb."))
        head = index.head_row[at]
        calls = (index.head_rank[at] == RANK_ROOT) & ((index.kind_status[head] & 0x0F) == _CLIENT)
        calls &= (index.flags[head] & COMPONENT_MASK) == APISERVER
        return self._only(at[calls]) | self.streams()

    def streams(self) -> Array:
        """Lone streams between API server and etcd."""
        names = self.strings.equal(_STREAMS[0].casefold()) | self.strings.equal(_STREAMS[1].casefold())
        at = self._others_named(names)
        return self._only(at[self.index.span_count[at] == 1])

    def authentications(self) -> Array:
        at = self._others_named(self.strings.equal("authentication"))
        lone = (self.index.head_rank[at] == RANK_ROOT) & (self.index.span_count[at] == 1)
        took = self.index.head_duration[at]
        return self._only(at[lone & ((took < SLOW_AUTHENTICATION_NS) | (took > LONGEST_AUTHENTICATION_NS))])

    def own(self) -> Array:
        found = self._only(_NONE)
        agents = self.strings.starting(_OWN_AGENT)
        if agents.any():
            found |= self.requests & agents[self.request("agent")]
        services = np.array([resource.service == _OWN_AGENT for resource in self.index.resources], bool)
        if services.any():
            others = self._others()
            found[others[services[self.index.resource[self.index.head_row[others]]]]] = True
        return found

    def _others(self) -> Array:
        """Slots of traces that are no request."""
        if "others" not in self._columns:
            self._columns["others"] = np.flatnonzero(~self.requests)
        return self._columns["others"]

    def _others_named(self, names: Array) -> Array:
        """Slots of traces that are no request and whose headline has one of these names."""
        others = self._others()
        found: Array = others[names[self.index.name[self.index.head_row[others]]]]
        return found

    def _only(self, slots: Array) -> Array:
        found = np.zeros(self.index.traces, bool)
        found[slots] = True
        return found

    # --- what was asked to last -------------------------------------------------------------------
    def lasting(self) -> Array:
        """`semantics.long_running` by trace; streams to etcd; and since 1.34 the lone `authentication` of such a
        request, which lasts as long."""
        found = self.streams()
        for column, values in (("verb", LONG_VERBS), ("subresource", LONG_SUBRESOURCES)):
            names = self.strings.none()
            for value in values:
                names |= self.strings.equal(value)
            found |= self.requests & names[self.request(column)]
        partner = pairing.partners(self.index)
        lasting: Array = found | ((partner >= 0) & found[np.maximum(partner, 0)])
        return lasting

    # --- terms ------------------------------------------------------------------------------------
    def all_of(self, query: Query) -> Array:
        """Traces for which every term holds."""
        found = np.ones(self.index.traces, bool)
        for term in query.terms:
            found &= self.matches(term)
        return found

    def matches(self, term: Term) -> Array:
        if not term.field:
            return self._word(term.value)
        found: Array = _FIELD_MATCHES[term.field](self, term.value)
        return found

    def _word(self, word: str) -> Array:
        if not word:
            return np.ones(self.index.traces, bool)
        within = self.strings.containing(word)
        found = within[self.head_names()]
        if within.any():
            for column in ("verb", "resource", "subresource", "namespace", "name", "agent"):
                found |= within[self.request(column)]
            found |= within[self.request("detail")] & (self.request("resource") == 0)
        found |= self._across(word, "resource", "subresource", bare=False)
        found |= self._across(word, "namespace", "name", bare=True)
        if len(word) == 3 and word.isascii() and word.isdigit():
            found |= self.code == int(word)
        found |= self._any_service(lambda service: word in service)
        found |= self._any_webhook(within)
        found |= self._audit(word, within)
        if len(word) >= MIN_ID_DIGITS and _ID.fullmatch(word):
            found |= self._trace_id(word)
        return found

    def _across(self, word: str, left: str, right: str, bare: bool) -> Array:
        """Where the word lies over the slash of `left/right`; `bare`: also with an empty right side."""
        found = np.zeros(self.index.traces, bool)
        for at in (i for i, character in enumerate(word) if character == "/"):
            before, after = word[:at], word[at + 1 :]
            ends, starts = self.strings.ending(before), self.strings.starting(after)
            here = ends[self.request(left)] & starts[self.request(right)] & self.requests
            found |= here if bare else here & (self.request(right) != 0)
        return found

    def _any_service(self, wanted: Callable[[str], bool]) -> Array:
        """Traces with a span of a service that is wanted."""
        index = self.index
        resources = np.array([wanted(resource.service.casefold()) for resource in index.resources] or [False], bool)
        found = np.zeros(index.traces, bool)
        if resources.all():
            found[:] = True
        elif resources.any():
            found[index.slot[resources[index.resource]]] = True
        return found

    def _any_webhook(self, within: Array) -> Array:
        """Traces that called a webhook whose name or configuration is one of these strings."""
        index = self.index
        hit = index.fact("role") == ROLE_WEBHOOK
        hit &= within[index.fact("name")] | within[index.fact("detail")]
        return self._with_facts(hit)

    def _with_facts(self, facts: Array) -> Array:
        """Traces of these facts, which are a mask or numbers."""
        found = np.zeros(self.index.traces, bool)
        found[self.index.slot[self.index.fact("fact_row")[facts]]] = True
        return found

    def _audit(self, prefix: str, within: Array, whole: bool = False) -> Array:
        """Traces with a request whose audit id starts so; one that is no UUID holds the word anywhere unless
        `whole`."""
        index = self.index
        digits = prefix.replace("-", "")
        dashed = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
        uuid = _ID.fullmatch(digits) is not None and dashed.startswith(prefix)
        role = index.fact("role")
        told = np.flatnonzero((role == ROLE_SERVER) | (role == ROLE_VERB))
        hit = within[index.fact("audit_name")[told]]
        if uuid and (whole or len(digits) >= MIN_ID_DIGITS):
            hi, lo = index.fact("audit_hi")[told], index.fact("audit_lo")[told]
            hit |= ((hi | lo) != 0) & _starts(hi, lo, digits)
        return self._with_facts(told[hit])

    def _trace_id(self, digits: str) -> Array:
        return _starts(self.index.id_hi, self.index.id_lo, digits)

    def _equal(self, column: str, value: str) -> Array:
        found: Array = self.strings.equal(value)[self.request(column)] & self.requests
        return found

    def _resource(self, value: str) -> Array:
        resource, slash, subresource = value.partition("/")
        found = self._equal("resource", resource)
        return found & self._equal("subresource", subresource) if slash else found

    def _code(self, value: str) -> Array:
        if value.endswith("xx"):
            found: Array = self.code // 100 == int(value[0])
        else:
            found = (self.code == int(value or 0)) & self.requests
        return found

    def _instance(self, value: str) -> Array:
        index = self.index
        resources = np.array([r.instance.casefold().startswith(value) for r in index.resources] or [False], bool)
        found: Array = resources[index.resource[index.head_row]]
        return found

    def _source(self, value: str) -> Array:
        sources = np.array([source.casefold() == value for source in self.index.sources] or [False], bool)
        found: Array = sources[self.index.source]
        return found


@dataclass(frozen=True, slots=True)
class Noise:
    """One kind of what a control plane does all the time (facts: kubernetes-tracing 8)."""

    name: str
    says: str
    holds: Callable[[_Traces], Array]


NOISE: Final = (
    Noise("leases", "requests for leases, by which nodes and leaders say that they are alive", _Traces.leases),
    Noise("probes and metrics", f"requests for {', '.join(_PROBES)}", _Traces.probes),
    Noise("lone etcd calls", "calls to etcd that belong to no request, and streams between both", _Traces.etcd_alone),
    Noise("lone authentications", "quick authentications whose request is not known", _Traces.authentications),
    Noise("own requests", f"requests and test spans of this program ({_OWN_AGENT})", _Traces.own),
)
"""What `View.hide_noise` hides. What holds a failed span or was answered with 5xx is never noise."""


_FIELD_MATCHES: Final[dict[str, Callable[[_Traces, str], Array]]] = {
    "verb": lambda traces, value: traces._equal("verb", value),
    "resource": _Traces._resource,
    "ns": lambda traces, value: traces._equal("namespace", value),
    "name": lambda traces, value: traces._equal("name", value),
    "group": lambda traces, value: traces._equal("group", value),
    "ua": lambda traces, value: traces.strings.containing(value)[traces.request("agent")] & traces.requests,
    "code": _Traces._code,
    "audit": lambda traces, value: traces._audit(value, traces.strings.starting(value), whole=True),
    "webhook": lambda traces, value: traces._any_webhook(traces.strings.equal(value)),
    "instance": _Traces._instance,
    "source": _Traces._source,
    "service": lambda traces, value: traces._any_service(lambda service: service == value),
    "trace": _Traces._trace_id,
}


def _starts(hi: Array, lo: Array, digits: str) -> Array:
    """Where a 128-bit id starts with these hex digits (at most 32)."""
    head, tail = digits[:16], digits[16:]
    found: Array = (hi >> np.uint64(64 - 4 * len(head))) == np.uint64(int(head, 16))
    if tail:
        found &= (lo >> np.uint64(64 - 4 * len(tail))) == np.uint64(int(tail, 16))
    return found


def starting_with(index: Index, digits: str) -> Array:
    """Slots of the traces whose id starts with these hex digits (1 to 32, lower case). Under the index's lock, or for
    the thread that extends it."""
    found: Array = np.flatnonzero(_starts(index.id_hi, index.id_lo, digits))
    return found


# --- strings --------------------------------------------------------------------------------------
_TESTS: Final[dict[str, Callable[[list[str], str], list[bool]]]] = {
    "containing": lambda names, word: [word in name for name in names],
    "starting": lambda names, word: [name.startswith(word) for name in names],
    "ending": lambda names, word: [name.endswith(word) for name in names],
    "equal": lambda names, word: [name == word for name in names],
}


class _Strings:
    """Answers by string id, each test made once a string: the names of an index only grow, so answers stay.

    Two threads ask: the one that extends the index and selects, and one that counts. Each holds `lock` as long as it
    compares answers, which have to be of one length.
    """

    _KEPT: Final = 64

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._folded: list[str] = []
        self._answers: OrderedDict[tuple[str, str], Array] = OrderedDict()

    def update(self, names: list[str]) -> None:
        """Take in the names that came since."""
        for name in names[len(self._folded) :]:
            folded = name.casefold()
            self._folded.append(name if folded == name else folded)  # mostly equal: then one string serves both

    def none(self) -> Array:
        """A table that holds for no string."""
        return np.zeros(len(self._folded), bool)

    def containing(self, word: str) -> Array:
        """By string id whether it contains the word (which is casefolded), and so on."""
        return self._table("containing", word)

    def starting(self, word: str) -> Array:
        return self._table("starting", word)

    def ending(self, word: str) -> Array:
        return self._table("ending", word)

    def equal(self, word: str) -> Array:
        return self._table("equal", word)

    def _table(self, test: str, word: str) -> Array:
        key = (test, word)
        known = self._answers.pop(key, None)
        count = 0 if known is None else len(known)
        if known is None or count < len(self._folded):
            fresh = np.array(_TESTS[test](self._folded[count:], word), bool)
            known = fresh if known is None else np.concatenate((known, fresh))
        self._answers[key] = known
        if len(self._answers) > self._KEPT:
            self._answers.popitem(last=False)
        return known

    def ranks(self, ids: Array) -> Array:
        """For each string id its place among these strings in alphabetical order; the empty one comes last."""
        unique, inverse = np.unique(ids, return_inverse=True)
        texts = [self._folded[i] for i in unique.tolist()]
        places = {text: place for place, text in enumerate(sorted(set(texts), key=lambda text: (not text, text)))}
        found: Array = np.array([places[text] for text in texts], np.int64)[inverse]
        return found


_strings: weakref.WeakKeyDictionary[Index, _Strings] = weakref.WeakKeyDictionary()
_strings_lock: Final = threading.Lock()


def _strings_of(index: Index) -> _Strings:
    """The answers kept for an index."""
    with _strings_lock:
        return _strings.setdefault(index, _Strings())
