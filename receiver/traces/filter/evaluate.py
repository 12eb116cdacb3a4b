"""Which traces a filter means, over the resident columns: nothing here costs Python time a trace.

A condition on a span holds for a trace when some span fulfils it. Attributes stand in the bodies, which are read
elsewhere (`scan`), while the answer is already asked for: so each node is evaluated for what is certain or for what is
possible, and `!` exchanges the two. A trace is listed when it certainly belongs there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from receiver.store.chunk import COMPONENT_MASK, COMPONENT_NAMES, ROLE_SERVER, ROLE_VERB, ROLE_WEBHOOK
from receiver.store.index import Index
from receiver.traces import durations
from receiver.traces.filter.attributes import Attribute
from receiver.traces.filter.columns import Traces
from receiver.traces.filter.fields import KINDS, PHASE_FIELDS
from receiver.traces.filter.measures import spans_kept, times_of
from receiver.traces.filter.patterns import Pattern
from receiver.traces.filter.syntax import All, Condition, Either, Node, Not, OneSpan, Word, nodes
from receiver.traces.reader import SETTLE_NS

Array = npt.NDArray[Any]

MIN_ID_DIGITS: Final = 6
"""Hex digits from which a bare word can be the start of a trace or audit id; shorter ones would hit by chance."""
_ID: Final = re.compile(r"[0-9a-f]{1,32}")
_COMPARE: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "=": np.equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "<": np.less,
    "<=": np.less_equal,
}


class Found(Protocol):
    """What is known of attributes so far."""

    def rows(self, index: Index, attribute: Attribute) -> tuple[Array, Array]:
        """(by span whether it has the attribute as asked, by span whether that is known)."""


class NothingRead:
    """No body was looked at."""

    def rows(self, index: Index, attribute: Attribute) -> tuple[Array, Array]:
        nothing = np.zeros(index.spans, bool)
        return nothing, nothing


def prepare(index: Index, root: Node) -> None:
    """Bring along what a filter needs and what is kept beside the index. Before any lock is taken."""
    tests = [node for node in nodes(root) if isinstance(node, Condition)]
    names = {test.name for test in tests}
    components = [test for test in tests if test.name == "component"]
    placed = any(test.op == "=~" or {"webhook", "other"} & {*test.values} for test in components)
    if names & PHASE_FIELDS.keys():
        times_of(index).catch_up(index)
    if names & {"self", "orphan"} or placed:
        spans_kept(index).catch_up(index)


def warm(index: Index, blocks: int) -> bool:
    """Look ahead of any filter at some blocks of traces, some 20 ms each, so that the first filter finds it done.
    Whether nothing is left. For the thread that extends the index, when it has nothing else to do."""
    return times_of(index).catch_up(index, blocks) and spans_kept(index).catch_up(index, blocks)


class Evaluation:
    """One look at an index. Valid until it is extended; locks as for `Traces`."""

    def __init__(self, traces: Traces, now: int, live: bool = True, found: Found | None = None) -> None:
        """
        Args:
            now: ns since the epoch by the clock that gave `received`.
            live: False for a recording, to which nothing will come.
            found: what is known of attributes.
        """
        self.traces = traces
        self.index = traces.index
        self.strings = traces.strings
        self._now = now
        self._live = live
        self._found: Found = found or NothingRead()

    # --- by trace ---------------------------------------------------------------------------------
    def of(self, node: Node, certain: bool = True) -> Array:
        """By trace whether a node holds for it: certainly, or else possibly."""
        if isinstance(node, All):
            found = np.ones(self.index.traces, bool)
            for part in node.parts:
                found &= self.of(part, certain)
            return found
        if isinstance(node, Either):
            found = np.zeros(self.index.traces, bool)
            for part in node.parts:
                found |= self.of(part, certain)
            return found
        if isinstance(node, Not):
            return ~self.of(node.of, not certain)
        if isinstance(node, OneSpan):
            return self._lifted(self.spans(node.of, certain))
        if isinstance(node, Word):
            return self._word(node.text)
        if node.name in _OF_TRACE:
            return _OF_TRACE[node.name](self, node)
        if node.name in PHASE_FIELDS:
            columns = times_of(self.index).ns(self.index)[list(PHASE_FIELDS[node.name])]
            return self.traces.requests & _compared(columns.sum(axis=0), node)
        return self._lifted(self.spans(node, certain))

    def _lifted(self, rows: Array) -> Array:
        """Traces of these spans, which are a mask."""
        found = np.zeros(self.index.traces, bool)
        found[self.index.slot[rows]] = True
        return found

    # --- by span ----------------------------------------------------------------------------------
    def spans(self, node: Node, certain: bool = True) -> Array:
        """By span the same, for what stands inside any(...)."""
        count = self.index.spans
        found: Array
        if isinstance(node, All):
            found = np.ones(count, bool)
            for part in node.parts:
                found &= self.spans(part, certain)
            return found
        if isinstance(node, Either):
            found = np.zeros(count, bool)
            for part in node.parts:
                found |= self.spans(part, certain)
            return found
        if isinstance(node, Not):
            return ~self.spans(node.of, not certain)
        if isinstance(node, OneSpan):  # the grammar has none inside another
            return self.spans(node.of, certain)
        if isinstance(node, Word):
            word = node.text
            within: Array = self.strings.containing(word)[self.index.name]
            return within | self._resources(lambda resource: word in resource.service.casefold())
        if node.attribute is not None:
            found, known = self._found.rows(self.index, node.attribute)
            return found if certain else found | ~known
        return _OF_SPAN[node.name](self, node)

    def _resources(self, wanted: Callable[[Any], bool]) -> Array:
        """Spans whose sender is wanted."""
        resources = np.array([wanted(resource) for resource in self.index.resources] or [False], bool)
        found: Array = resources[self.index.resource]
        return found

    def _span_text(self, node: Condition) -> Array:
        return self._texts(self.index.name, node)

    def _span_service(self, node: Condition) -> Array:
        wanted = _said(node)
        return self._resources(lambda resource: wanted(resource.service))

    def _span_instance(self, node: Condition) -> Array:
        wanted = _said(node, starts=True)
        return self._resources(lambda resource: wanted(resource.instance))

    def _span_component(self, node: Condition) -> Array:
        wanted = _said(node)
        index = self.index
        known = np.array([wanted(name) for name in COMPONENT_NAMES], bool)
        component = np.minimum(index.flags & COMPONENT_MASK, len(COMPONENT_NAMES) - 1)
        found: Array = known[component]
        if wanted("webhook") != wanted("other"):
            webhooks = spans_kept(index).webhooks(index)
            found = found | webhooks if wanted("webhook") else found & ~webhooks
        return found

    def _span_kind(self, node: Condition) -> Array:
        wanted = _said(node)
        known = np.array([wanted(name) for name in KINDS], bool)
        found: Array = known[np.minimum(self.index.kind_status & 0x0F, len(KINDS) - 1)]
        return found

    def _span_duration(self, node: Condition) -> Array:
        start, end = self.index.start.astype(np.int64), self.index.end.astype(np.int64)
        return _compared(np.where(start > 0, np.maximum(end - start, 0), 0), node)

    def _span_self(self, node: Condition) -> Array:
        return _compared(spans_kept(self.index).own(self.index), node)

    def _span_errors(self, node: Condition) -> Array:
        return _compared(((self.index.kind_status >> 4) == 2).astype(np.int64), node)

    def _span_code(self, node: Condition) -> Array:
        codes = np.zeros(self.index.spans, np.int64)
        held = self.index.fact("code") > 0
        codes[self.index.fact("fact_row")[held]] = self.index.fact("code")[held]
        return _codes(codes, node) & (codes > 0)

    def _span_webhook(self, node: Condition) -> Array:
        found = np.zeros(self.index.spans, bool)
        found[self.index.fact("fact_row")[self._webhooks(node)]] = True
        return found

    # --- texts ------------------------------------------------------------------------------------
    def _texts(self, ids: Array, node: Condition, test: str = "equal") -> Array:
        """Where strings, by their ids, are as a condition wants them."""
        if node.op == "=~":
            return np.asarray(self.strings.matching(node.values[0], ids)[ids])
        table = self.strings.none()
        for value in node.values:
            table |= getattr(self.strings, test)(value)
        return np.asarray(table[ids])

    def _request_text(self, column: str, node: Condition, test: str = "equal") -> Array:
        return self._texts(self.traces.request(column), node, test) & self.traces.requests

    def _resource(self, node: Condition) -> Array:
        traces = self.traces
        if node.op != "=~":
            found = np.zeros(self.index.traces, bool)
            for value in node.values:
                resource, slash, subresource = value.partition("/")
                one = traces.equal("resource", resource)
                found |= one & traces.equal("subresource", subresource) if slash else one
            return found
        pair = traces.request("resource").astype(np.int64) << 32 | traces.request("subresource").astype(np.int64)
        unique, inverse = np.unique(pair, return_inverse=True)
        pattern, name = Pattern(node.values[0]), self.strings.name
        said = [(name(both >> 32), name(both & 0xFFFFFFFF)) for both in unique.tolist()]
        held = np.array([pattern.holds(f"{a}/{b}" if b else a) for a, b in said] or [False], bool)
        return held[inverse] & traces.requests if len(pair) else np.zeros(0, bool)

    def _instance(self, node: Condition) -> Array:
        wanted = _said(node, starts=True)
        resources = np.array([wanted(r.instance) for r in self.index.resources] or [False], bool)
        found: Array = resources[self.index.resource[self.index.head_row]]
        return found

    def _source(self, node: Condition) -> Array:
        wanted = _said(node)
        sources = np.array([wanted(source) for source in self.index.sources] or [False], bool)
        found: Array = sources[self.index.source]
        return found

    def _webhooks(self, node: Condition) -> Array:
        """Facts: calls of webhooks whose name or configuration is wanted."""
        index = self.index
        facts = np.flatnonzero(index.fact("role") == ROLE_WEBHOOK)
        hit = self._texts(index.fact("name")[facts], node)
        detail = index.fact("detail")[facts]
        if node.op == "=~":  # an empty configuration says nothing
            hit = hit | (self._texts(detail, node) & (detail > 0))
        else:
            hit = hit | self._texts(detail, node)
        return facts[hit]

    def _audit(self, node: Condition) -> Array:
        if node.op != "=~":
            found = np.zeros(self.index.traces, bool)
            for value in node.values:
                found |= self._audit_id(value, self.strings.starting(value), whole=True)
            return found
        index = self.index
        role = index.fact("role")
        told = np.flatnonzero((role == ROLE_SERVER) | (role == ROLE_VERB))
        named = self.strings.matching(node.values[0], index.fact("audit_name")[told])[index.fact("audit_name")[told]]
        hi, lo = index.fact("audit_hi"), index.fact("audit_lo")
        uuid = (hi[told] | lo[told]) != 0

        def texts(facts: Array) -> list[str]:
            halves = zip(hi[facts].tolist(), lo[facts].tolist(), strict=True)
            digits = (f"{high:016x}{low:016x}" for high, low in halves)
            return [f"{d[:8]}-{d[8:12]}-{d[12:16]}-{d[16:20]}-{d[20:]}" for d in digits]

        held = self.strings.facts_matching(node.values[0], told[uuid], texts)
        return self._with_facts(np.concatenate((told[named & ~uuid], told[uuid][held])))

    def _trace_id(self, node: Condition) -> Array:
        found = np.zeros(self.index.traces, bool)
        for value in node.values:
            found |= starts(self.index.id_hi, self.index.id_lo, value)
        return found

    # --- numbers ----------------------------------------------------------------------------------
    def _code(self, node: Condition) -> Array:
        return _codes(self.traces.code.astype(np.int64), node) & self.traces.requests

    def _duration(self, node: Condition) -> Array:
        return _compared(durations.durations_of(self.index), node)

    def _errors(self, node: Condition) -> Array:
        return _compared(self.index.error_count.astype(np.int64), node)

    def _spans(self, node: Condition) -> Array:
        return _compared(self.index.span_count.astype(np.int64), node)

    def _age(self, node: Condition) -> Array:
        return _compared(self._now - self.index.last_received, node)

    def _settled(self, node: Condition) -> Array:
        quiet = (self._now - self.index.last_received >= SETTLE_NS) | (not self._live)
        return self._flag(quiet, node)

    def _orphan(self, node: Condition) -> Array:
        return self._flag(spans_kept(self.index).orphans(self.index), node)

    @staticmethod
    def _flag(held: Array, node: Condition) -> Array:
        found = np.zeros(len(held), bool)
        for value in node.values:
            found |= held if value == "yes" else ~held
        return found

    # --- bare words -------------------------------------------------------------------------------
    def _word(self, word: str) -> Array:
        if not word:
            return np.ones(self.index.traces, bool)
        traces, index = self.traces, self.index
        within = self.strings.containing(word)
        found = within[traces.head_names()]
        if within.any():
            for column in ("verb", "resource", "subresource", "namespace", "name", "agent"):
                found |= within[traces.request(column)]
            found |= within[traces.request("detail")] & (traces.request("resource") == 0)
        found |= self._across(word, "resource", "subresource", bare=False)
        found |= self._across(word, "namespace", "name", bare=True)
        if len(word) == 3 and word.isascii() and word.isdigit():
            found |= traces.code == int(word)
        found |= self._any_service(lambda service: word in service)
        hook = index.fact("role") == ROLE_WEBHOOK
        found |= self._with_facts(hook & (within[index.fact("name")] | within[index.fact("detail")]))
        found |= self._audit_id(word, within)
        if len(word) >= MIN_ID_DIGITS and _ID.fullmatch(word):
            found |= starts(index.id_hi, index.id_lo, word)
        return found

    def _across(self, word: str, left: str, right: str, bare: bool) -> Array:
        """Where the word lies over the slash of `left/right`; `bare`: also with an empty right side."""
        traces = self.traces
        found = np.zeros(self.index.traces, bool)
        for at in (i for i, character in enumerate(word) if character == "/"):
            before, after = word[:at], word[at + 1 :]
            ends, begins = self.strings.ending(before), self.strings.starting(after)
            here = ends[traces.request(left)] & begins[traces.request(right)] & traces.requests
            found |= here if bare else here & (traces.request(right) != 0)
        return found

    def _service(self, node: Condition) -> Array:
        return self._any_service(_said(node))

    def _any_service(self, wanted: Callable[[str], bool]) -> Array:
        """Traces with a span of a service that is wanted."""
        index = self.index
        resources = np.array([wanted(resource.service.casefold()) for resource in index.resources] or [False], bool)
        if resources.all():
            return np.ones(index.traces, bool)
        if not resources.any():
            return np.zeros(index.traces, bool)
        return self._lifted(resources[index.resource])

    def _with_facts(self, facts: Array) -> Array:
        """Traces of these facts, which are a mask or numbers."""
        found = np.zeros(self.index.traces, bool)
        found[self.index.slot[self.index.fact("fact_row")[facts]]] = True
        return found

    def _audit_id(self, prefix: str, within: Array, whole: bool = False) -> Array:
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
            hit |= ((hi | lo) != 0) & starts(hi, lo, digits)
        return self._with_facts(told[hit])


def _said(node: Condition, starts: bool = False) -> Callable[[str], bool]:
    """Whether a text is as a condition wants it; for the few texts that are not columns."""
    if node.op == "=~":
        return Pattern(node.values[0]).holds
    if starts:
        return lambda text: text.casefold().startswith(node.values)
    return lambda text: text.casefold() in node.values


def _compared(numbers: Array, node: Condition) -> Array:
    found = np.zeros(len(numbers), bool)
    for value in node.values:
        found |= _COMPARE[node.op](numbers, np.int64(value))
    return found


def _codes(codes: Array, node: Condition) -> Array:
    """Where status codes are as a condition wants them; 0 is none, which is neither greater nor less."""
    if node.op != "=":
        found: Array = _COMPARE[node.op](codes, np.int64(node.values[0])) & (codes > 0)
        return found
    found = np.zeros(len(codes), bool)
    for value in node.values:
        found |= codes // 100 == int(value[0]) if value.endswith("xx") else codes == int(value or 0)
    return found


def starts(hi: Array, lo: Array, digits: str) -> Array:
    """Where a 128-bit id starts with these hex digits (at most 32)."""
    head, tail = digits[:16], digits[16:]
    found: Array = (hi >> np.uint64(64 - 4 * len(head))) == np.uint64(int(head, 16))
    if tail:
        found &= (lo >> np.uint64(64 - 4 * len(tail))) == np.uint64(int(tail, 16))
    return found


def _request_field(column: str, test: str = "equal") -> Callable[[Evaluation, Condition], Array]:
    return lambda evaluation, node: evaluation._request_text(column, node, test)


_OF_TRACE: Final[dict[str, Callable[[Evaluation, Condition], Array]]] = {
    "verb": _request_field("verb"),
    "resource": Evaluation._resource,
    "ns": _request_field("namespace"),
    "name": _request_field("name"),
    "group": _request_field("group"),
    "ua": _request_field("agent", "containing"),
    "code": Evaluation._code,
    "audit": Evaluation._audit,
    "webhook": lambda evaluation, node: evaluation._with_facts(evaluation._webhooks(node)),
    "instance": Evaluation._instance,
    "source": Evaluation._source,
    "service": Evaluation._service,
    "trace": Evaluation._trace_id,
    "duration": Evaluation._duration,
    "errors": Evaluation._errors,
    "spans": Evaluation._spans,
    "age": Evaluation._age,
    "settled": Evaluation._settled,
    "orphan": Evaluation._orphan,
}
_OF_SPAN: Final[dict[str, Callable[[Evaluation, Condition], Array]]] = {
    "span": Evaluation._span_text,
    "service": Evaluation._span_service,
    "instance": Evaluation._span_instance,
    "component": Evaluation._span_component,
    "kind": Evaluation._span_kind,
    "duration": Evaluation._span_duration,
    "self": Evaluation._span_self,
    "errors": Evaluation._span_errors,
    "code": Evaluation._span_code,
    "webhook": Evaluation._span_webhook,
}


def is_of_spans(node: Condition) -> bool:
    """Whether a condition outside any(...) is about spans; `duration` and `errors` are about the trace there."""
    return node.attribute is not None or (node.name in _OF_SPAN and node.name not in ("duration", "errors", "instance"))
