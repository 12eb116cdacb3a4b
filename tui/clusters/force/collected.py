"""What became of a command's requests: their traces as they arrive here, and why one does not.

A request whose trace was taken is found by the id that it was given; any other, where the sampler took it, by its audit
id, which is on its spans, or by the link that the API server's span has to the caller's context (docs/facts.md
2.2, 7.3). Spans come late: exporters send every 5 s, each component for itself.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.database import Database, StoreError
from receiver.store.index import Index
from receiver.traces.listing import Row, rows
from receiver.traces.model import Kind, Node, Trace
from receiver.traces.reader import load
from tui.clusters.doctor import ReceiverFindings, Step
from tui.clusters.endpoint import needs_dns
from tui.clusters.force.preconditions import Preconditions, Privilege, judge, sentence
from tui.clusters.force.proxy import Seen
from tui.clusters.reach.wire import plain

WAIT: Final = 12.0
"""Seconds to wait for spans: two batches of every exporter and some slack."""
BATCH: Final = 6.0
"""Seconds after which what was recorded has been sent once: exporters send every 5 s."""
SPAN_CAP: Final = 20_000
Array = npt.NDArray[Any]

_CHUNKS: Final = 64
_HEX: Final = "0123456789abcdef"
_DISCOVERY: Final = re.compile(r"/(?:version|api(?:/[^/]+)?|apis(?:/[^/]+){0,2}|openapi/v[23](?:/.*)?)/?")


class How(Enum):
    """How a request's trace was found; the value is its word in JSON."""

    FORCED = "forced"  # under the trace id that we gave it
    TAGGED = "tagged"  # sampled by the API server's own rate; found by audit id or link
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Found:
    """A request and its trace.

    `trace_id` is that of the trace that shows it, "" for none; `lacking` what has not come of it: "etcd", "webhook", or
    "" where it is whole as far as can be told; `parts`: under our trace id came only spans of other components."""

    seen: Seen
    how: How
    trace_id: str = ""
    lacking: str = ""
    parts: bool = False


class Collector:
    """Looks for the traces of some requests in the receiver's database. For one thread."""

    def __init__(self, path: Path, since: int, seen: Sequence[Seen], found: Preconditions) -> None:
        """
        Args:
            path: the database.
            since: id of its newest chunk before the first request; older ones are not read.
            seen: the requests, all of them.
            found: what was known before.

        Raises:
            StoreError: the database cannot be read.
        """
        self.database = Database.read(path)
        self.index = Index()
        self._since = since
        self._generation = self.database.generation()
        self._seen = tuple(seen)
        self._known = found
        self._fact = 0
        self._by_key: dict[tuple[int, int], int] = {}
        self._by_name: dict[str, int] = {}
        for at, one in enumerate(self._seen):
            self._by_key[_halves(one.trace_id)] = at
            digits = one.audit_id.lower().replace("-", "")
            if len(digits) == 32 and not digits.strip(_HEX):
                self._by_key[_halves(digits)] = at
            self._by_name[one.audit_id[:64]] = at
        self._high = np.array(sorted({hi for hi, _ in self._by_key}), np.uint64)
        self._candidates: dict[int, dict[int, bool]] = {}  # request: {slot: whether by a link to its trace}
        self._lacking: dict[int, tuple[int, str]] = {}
        self._whole: dict[int, Found] = {}  # nothing more is to be found out about these
        numbers = [_halves(one.trace_id) for one in self._seen]
        self._own_high: Array = np.array([high for high, _ in numbers], np.uint64)
        self._own_low: Array = np.array([low for _, low in numbers], np.uint64)

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    @property
    def heard(self) -> frozenset[str]:
        """`service.instance.id` of the API servers that sent anything since."""
        return frozenset(one.instance for one in self.index.resources if one.service == "apiserver")

    def look(self, now: int | None = None) -> list[Found]:
        """Read what arrived since the last look; each request as it is now, in order.

        Raises:
            StoreError: the database cannot be read.
        """
        self._read()
        self._match()
        now = time.time_ns() if now is None else now
        slots: Array = self.index.slots_of(self._own_high, self._own_low)
        found = []
        for at, (one, slot) in enumerate(zip(self._seen, slots.tolist(), strict=True)):
            known = self._whole.get(at) or self._found(at, one, slot, now)
            if known.how is How.FORCED and not known.lacking:
                self._whole[at] = known  # its SERVER span is the last of its process: all others are here
            found.append(known)
        return found

    def done(self, found: Sequence[Found], waited: float, now: int | None = None) -> bool:
        """Whether nothing more is to be expected, after so many seconds."""
        now = time.time_ns() if now is None else now
        return all(self._settled(one, waited, now) for one in found)

    def rows(self, found: Sequence[Found], now: int | None = None) -> dict[str, Row]:
        """The list's line of each trace that was found, by its id. One of which nothing
        more is to be expected counts as settled."""
        now = time.time_ns() if now is None else now
        made: list[Row] = []
        for live in (True, False):
            ids = dict.fromkeys(one.trace_id for one in found if one.trace_id and self._open(one, now) is live)
            slots = [slot for one in ids if (slot := self.index.slot_of(one)) is not None]
            made += rows(self.index, slots, now, live=live)
        return {row.summary.trace_id: row for row in made}

    def trace(self, one: Found, now: int | None = None) -> Trace | None:
        """The whole trace of a request; one of which nothing more is to be expected counts as settled."""
        now = time.time_ns() if now is None else now
        return load(self.index, one.trace_id, now, SPAN_CAP, live=self._open(one, now))

    # --- inside ---------------------------------------------------------------------------------------
    def _read(self) -> None:
        generation = self.database.generation()
        if generation != self._generation:  # something was evicted, perhaps of ours: begin anew
            self._generation, self.index, self._fact = generation, Index(), 0
            self._candidates.clear()
            self._lacking.clear()
            self._whole.clear()
        while chunks := self.database.read_after(max(self._since, self.index.last_chunk), _CHUNKS):
            self.index.extend(chunks)

    def _match(self) -> None:
        """Facts that came since: which of them carry an audit id of ours, or link to a trace of ours."""
        index, begin, end = self.index, self._fact, self.index.fact_count
        self._fact = end
        if begin == end:
            return
        high, low, name = (index.fact(column)[begin:end] for column in ("audit_hi", "audit_lo", "audit_name"))
        hits = np.flatnonzero(np.isin(high, self._high) | (name > 0))
        for hit in hits.tolist():
            key = (int(high[hit]), int(low[hit]))
            at = self._by_key.get(key) if any(key) else self._by_name.get(index.names[int(name[hit])])
            if at is not None:
                slot = int(index.slot[int(index.fact("fact_row")[begin + hit])])
                linked = key == _halves(self._seen[at].trace_id)
                slots = self._candidates.setdefault(at, {})
                slots[slot] = slots.get(slot, False) or linked

    def _found(self, at: int, seen: Seen, own: int, now: int) -> Found:
        """`own`: the slot of the trace id that it was given, -1 for none."""
        index = self.index
        if own >= 0 and index.server_fact[own] >= 0:
            return Found(seen, How.FORCED, seen.trace_id, self._lacking_of(own, seen.trace_id, now))
        others = {slot: linked for slot, linked in self._candidates.get(at, {}).items() if index.server_fact[slot] >= 0}
        if others:
            slot = min(others, key=lambda one: (not others[one], int(index.head_start[one])))
            trace_id = index.trace_id(slot)
            return Found(seen, How.TAGGED, trace_id, self._lacking_of(slot, trace_id, now))
        return Found(seen, How.MISSING, parts=own >= 0)

    def _lacking_of(self, slot: int, trace_id: str, now: int) -> str:
        spans = int(self.index.span_count[slot])
        held = self._lacking.get(slot)
        if held is not None and held[0] == spans:
            return held[1]
        trace = load(self.index, trace_id, now, SPAN_CAP)
        lacking = lacking_of(trace) if trace is not None else ""
        self._lacking[slot] = spans, lacking
        return lacking

    def _open(self, one: Found, now: int) -> bool:
        return not self._settled(one, BATCH, now)

    def _settled(self, one: Found, waited: float, now: int) -> bool:
        if one.how is How.MISSING:
            if never_traced(one.seen):
                return True
            nothing = self._known.configured is False or (
                self._known.privilege is Privilege.TAGGED and self._known.per_million == 0
            )
            return nothing and waited >= BATCH
        if not one.lacking or (one.lacking == "etcd" and self._known.etcd_traced is False):
            return True
        slot = self.index.slot_of(one.trace_id)
        quiet = (now - int(self.index.last_received[slot])) / 1e9 if slot is not None else 0.0
        return quiet >= BATCH and not (one.lacking == "etcd" and self._known.etcd_traced)


def never_traced(seen: Seen) -> bool:
    """Whether a request got no further than to where tracing begins."""
    return seen.code == 0 or seen.code == 401 or bool(seen.error and seen.code in (502, 504))


def lacking_of(trace: Trace) -> str:
    """What other component's side of a call has not come: "etcd", else "webhook", else ""."""
    found: set[str] = set()
    waiting: list[tuple[Node, str]] = [(root, "") for root in trace.roots]
    while waiting:
        node, above = waiting.pop()
        span = node.span
        waiting += [(child, span.name) for child in node.children]
        if span.kind is not Kind.CLIENT or node.children:
            continue
        if span.name.startswith("etcdserverpb."):
            found.add("etcd")
        elif "webhook" in above and span.status != 2:  # a call that failed may have had nobody on its other side
            found.add("webhook")
    return "etcd" if "etcd" in found else "webhook" if found else ""


def wait(
    collector: Collector, seconds: float, changed: Callable[[Sequence[Found]], None], pause: float = 0.25
) -> list[Found]:
    """Look until nothing more is to be expected, or for so many seconds; Ctrl-C ends it early, with what is there.

    Raises:
        StoreError: the database cannot be read.
    """
    began = time.monotonic()
    found: list[Found] = []
    try:
        while True:
            found = collector.look()
            changed(found)
            waited = time.monotonic() - began
            if waited >= seconds or collector.done(found, waited):
                return found
            time.sleep(min(pause, max(0.01, seconds - waited)))
    except KeyboardInterrupt:
        return found or collector.look()


def last_chunk(path: Path) -> int:
    """The id of a database's newest chunk; 0 for none."""
    try:
        database = Database.read(path)
    except StoreError:
        return 0
    try:
        return database.last_id()
    finally:
        database.close()


# --- why something is missing ---------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Reason:
    """Why something did not come, as a sentence with the way out, and the `numbers` of the requests it is true of.
    `own`: it is these requests' own error, and says nothing more than that."""

    sentence: str
    numbers: tuple[int, ...] = ()
    own: bool = False


def reasons(
    found: Sequence[Found],
    known: Preconditions,
    receiver: ReceiverFindings | None,
    heard: frozenset[str],
    waited: float,
    *,
    here: bool = False,
    longer: str = "wait longer with --wait 60",
) -> list[Reason]:
    """Why traces, or parts of them, are missing: each sentence once.

    Args:
        found: the requests when the wait ended.
        known: what was known before.
        receiver: the receiver as it is now.
        heard: instances of API servers that sent anything meanwhile.
        waited: seconds.
        here: the API server runs on this machine.
        longer: what to do where more time may be all that is needed.
    """
    told: dict[str, list[int]] = {}
    errors: set[str] = set()
    arrived = any(one.how is How.FORCED for one in found)
    for one in found:
        if one.how is How.MISSING:
            text = _missing(one, known, receiver, heard, arrived, waited, here, longer)
        elif one.how is How.TAGGED:
            text = _tagged(known)
        elif one.lacking == "etcd":
            text = _no_etcd(known)
        else:
            continue
        told.setdefault(text, []).append(one.seen.number)
        if one.how is How.MISSING and one.seen.error and text.endswith(one.seen.error):
            errors.add(text)
    return [Reason(text, tuple(numbers), text in errors) for text, numbers in told.items()]


def _missing(
    one: Found,
    known: Preconditions,
    receiver: ReceiverFindings | None,
    heard: frozenset[str],
    arrived: bool,
    waited: float,
    here: bool,
    longer: str,
) -> str:
    seen = one.seen
    if seen.code == 401:
        return (
            "The API server did not know who asked (401), and it traces only what comes after that: log in again, or"
            " renew the credentials of the context."
        )
    if seen.error and never_traced(seen):
        return f"It did not come through: {seen.error}"
    if seen.code == 0:
        return "No answer came, so the API server may never have seen it: try again."
    release, identity, configured, way, _ = _steps(known, receiver, here)
    if known.configured is False:
        return sentence(configured, "; only etcd took part in it" if one.parts else "")
    if known.privilege is Privilege.TAGGED:
        return sentence(release if known.honours is False else identity, "; the sampler did not take this request")
    if receiver is not None and receiver.status is None:
        return sentence(way)
    if known.unarmed:
        return sentence(configured)
    if arrived:
        many = len(known.instances)
        if many > 1:
            return (
                f"Its spans did not come while those of other requests did: there are {many} API servers, and each must"
                " be armed and send here; see k8s-trace-tui sampling status."
            )
        return (
            f"Its spans did not come while those of other requests did: {longer}; an exporter drops"
            " what is more than its queue holds (2,048 spans)."
        )
    if known.instances & heard:
        return (
            f"The API server sends here, and not this request: {longer}, or see whether a proxy"
            " between drops the header traceparent."
        )
    if known.privilege is Privilege.UNKNOWN:
        unknown = release if known.honours is None else identity
        asked = "" if unknown.way_out else ": see what kubectl auth whoami and k8s-trace-tui doctor say"
        return sentence(unknown, f"; nothing of this request came in {waited:.0f} s{asked}")
    if waited < BATCH:
        return f"No span of this API server came in {waited:.0f} s, and exporters send every 5 s: {longer}."
    nothing = f"No span of this API server came in {waited:.0f} s, so what it exports does not get to this receiver"
    if not known.configured:
        nothing += "; whether tracing is configured cannot be seen through the API"
    if way.way_out:
        return f"{nothing}; {way.text}: {way.way_out}."
    named = next(filter(None, (needs_dns(one)[0] for one in known.endpoints)), "")
    if named:
        return f"{nothing}; it {plain(named, 240)}: run it again, and see k8s-trace-tui doctor."
    return f"{nothing}: see k8s-trace-tui doctor."


def _tagged(known: Preconditions) -> str:
    """Luck that will not hold is said to be luck."""
    release, identity, *_ = _steps(known, None, False)
    luck = "; the sampler happened to take this request, which depends on the rate"
    if known.honours is False:
        return sentence(release, luck)
    if known.caller is not None and not known.caller.trusted:
        return sentence(identity, luck)
    return "The API server gave it a trace of its own and linked it to ours: the sampler happened to take it."


def _no_etcd(known: Preconditions) -> str:
    if known.etcd_traced:
        return "etcd is traced, and its side did not come here: see whether it sends to this receiver, too."
    if known.etcd_traced is False:
        return sentence(_steps(known, None, False)[-1])
    return "etcd's side did not come: arm it, too, with k8s-trace-tui sampling arm --component etcd."


def _steps(known: Preconditions, receiver: ReceiverFindings | None, here: bool) -> tuple[Step, ...]:
    """Release, identity, configuration, way and etcd, as judged."""
    return judge(replace(known, problem="") if not known.version else known, receiver, here=here)


def _halves(trace_id: str) -> tuple[int, int]:
    return int(trace_id[:16], 16), int(trace_id[16:], 16)


def is_discovery(seen: Seen) -> bool:
    """Whether a request asks what the API server serves, as clients do before what they are told to do."""
    return seen.method == "GET" and bool(_DISCOVERY.fullmatch(seen.target.partition("?")[0]))


def described(seen: Seen) -> tuple[str, str, str]:
    """(verb, resource or path, `namespace/name`) of a request by its URL."""
    from receiver.traces.semantics import parse_target

    facts: Any = parse_target(seen.method, seen.target)
    if not facts.resource:
        return facts.verb, facts.detail, ""
    resource = "/".join(filter(None, (facts.resource, facts.subresource)))
    inside = f"{facts.namespace}/" if facts.namespace and facts.resource != "namespaces" else ""
    return facts.verb, resource, inside + facts.name
