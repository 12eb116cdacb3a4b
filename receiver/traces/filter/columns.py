"""Columns by trace that are put together from the facts of its request, and what a control plane does all the time."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.chunk import APISERVER, COMPONENT_MASK
from receiver.store.index import RANK_ROOT, Index
from receiver.traces import pairing
from receiver.traces.filter.strings import Strings
from receiver.traces.semantics import LONG_SUBRESOURCES, LONG_VERBS

Array = npt.NDArray[Any]

_CLIENT: Final = 3  # OTLP span kind
_STREAMS: Final = ("etcdserverpb.Watch/Watch", "etcdserverpb.Lease/LeaseKeepAlive")
"""Streams between apiserver and etcd that end with the process: alone, whichever side sent them, they say nothing."""
PROBES: Final = ("/livez", "/readyz", "/healthz", "/metrics")
OWN_AGENT: Final = "k8s-trace-tui"
SLOW_AUTHENTICATION_NS: Final = 100_000_000
"""A lone `authentication` from here on may be all that is left of a slow token webhook, so it is no noise."""
LONGEST_AUTHENTICATION_NS: Final = 65_000_000_000
"""A request that is not asked to last is ended after 60 s (the API server's default), so a longer `authentication` is
that of a watch."""
_NONE: Final = np.zeros(0, np.int64)


class Traces:
    """Columns by trace that are put together from the facts of its request. Valid until the index is extended."""

    def __init__(self, index: Index, strings: Strings) -> None:
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

    # --- noise ---------------------------------------------------------------------------------
    def paired(self) -> Array:
        """What `View.hide_paired` leaves out."""
        if "paired" not in self._columns:
            found = (pairing.partners(self.index) >= 0) & ~self.requests & (self.index.error_count == 0)
            self._columns["paired"] = found
        return self._columns["paired"]

    def leases(self) -> Array:
        return self.equal("resource", "leases")

    def probes(self) -> Array:
        paths = self.strings.none()
        for probe in PROBES:
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
        agents = self.strings.starting(OWN_AGENT)
        if agents.any():
            found |= self.requests & agents[self.request("agent")]
        services = np.array([resource.service == OWN_AGENT for resource in self.index.resources], bool)
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

    def equal(self, column: str, value: str) -> Array:
        """Requests of which a name is this, which is casefolded."""
        found: Array = self.strings.equal(value)[self.request(column)] & self.requests
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
