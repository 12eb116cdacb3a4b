"""What can stand at the cursor of a filter: fields, operators, then the values that are really present, with counts.

Values are counted over the traces for which the rest of the filter holds, so what is offered finds something.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.chunk import COMPONENT_MASK, COMPONENT_NAMES, ROLE_WEBHOOK
from receiver.store.index import Index
from receiver.traces import durations
from receiver.traces.filter.columns import Traces
from receiver.traces.filter.evaluate import Evaluation, prepare
from receiver.traces.filter.fields import ATTRIBUTES, FIELDS, KINDS, PHASE_FIELDS, Field, Kind, resolve
from receiver.traces.filter.measures import times_of
from receiver.traces.filter.strings import strings_of
from receiver.traces.filter.syntax import EVERYTHING, All, Condition, Node, Place, QueryError, parse, quoted
from receiver.traces.query import View, shown

Array = npt.NDArray[Any]

MOST: Final = 50
"""Offers at most."""
_FEW: Final = 64
_STOPS: Final = "()!|&"
_TEXT_OPERATORS: Final = ("=", "!=", "=~", "!~")
_NUMBER_OPERATORS: Final = (">", "<", ">=", "<=", "=", "!=")


@dataclass(frozen=True, slots=True)
class Offer:
    """One completion. `text` takes the place of the part that is completed; `count` is how many traces have it, None
    where that says nothing; `says` is a word about it."""

    text: str
    count: int | None = None
    says: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """What may stand at `at` instead of what is there, the most frequent first."""

    at: Place
    offers: tuple[Offer, ...] = ()


def complete(text: str, cursor: int, index: Index, view: View, now: int, *, live: bool = True) -> Completion:
    """What can be completed at the cursor. For any thread.

    Args:
        text: what was typed so far.
        cursor: characters before the cursor.
        view: its switches count, its own filter does not.
        now, live: as for `query.select`.
    """
    cursor = max(0, min(cursor, len(text)))
    start = _begin(text, cursor)
    word = text[start:cursor]
    name, op = _split(word)
    field = resolve(name) if name else None
    if op and field is not None:
        comma = max(word.rfind(","), len(name) + len(op) - 1) if op in ("=", "!=") else len(name) + len(op) - 1
        at = (start + comma + 1, cursor)
        begun = text[at[0] : cursor].strip("\"'").casefold()
        return Completion(at, tuple(_values(field, op, begun, text[:start], index, view, now, live))[:MOST])
    at = (start, cursor)
    if name in FIELDS or (field is not None and name in ATTRIBUTES):
        assert field is not None
        operators = _operators(field)
        longer = [Offer(other, says=FIELDS[other].says) for other in FIELDS if other.startswith(name) and other != name]
        return Completion(at, (*(Offer(name + sign, says=field.kind.value) for sign in operators), *longer))
    folded = word.casefold()
    offers = [Offer(one.name, says=one.says) for one in FIELDS.values() if one.name.startswith(folded)]
    offers += [Offer("any(", says="one span that fulfils all of it")] if "any(".startswith(folded) else []
    if folded:
        offers += [Offer(key, says="an attribute") for key in ATTRIBUTES if key.startswith(folded)]
    return Completion(at, tuple(offers[:MOST]))


def _begin(text: str, cursor: int) -> int:
    """Where the word or condition at the cursor begins: behind the last blank or sign outside quotes."""
    start, quote = 0, ""
    for at, character in enumerate(text[:cursor]):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character.isspace() or (character in _STOPS and not _split(text[start:at])[1]):
            if character == "!" and at > start:  # of an operator
                continue
            start = at + 1
    return start


def _split(word: str) -> tuple[str, str]:
    """(name, operator) at the beginning of a condition; the operator is "" while there is none."""
    for at, character in enumerate(word):
        if character in "=<>!":
            longer = word[at : at + 2]
            return word[:at], longer if longer in (
                ">=",
                "<=",
                "!=",
                "=~",
                "!~",
            ) else "" if character == "!" else character
    return word, ""


def _operators(field: Field) -> tuple[str, ...]:
    if field.kind in (Kind.TEXT, Kind.CHOICE):
        return _TEXT_OPERATORS
    if field.kind in (Kind.FLAG, Kind.ID):
        return ("=", "!=")
    if field.kind is Kind.ATTRIBUTE:
        return (*_TEXT_OPERATORS, ">", ">=", "<", "<=")
    return _NUMBER_OPERATORS if field.kind is not Kind.CODE else ("=", "!=", ">=", ">", "<", "<=")


# --- values ---------------------------------------------------------------------------------------
def _values(
    field: Field, op: str, begun: str, before: str, index: Index, view: View, now: int, live: bool
) -> Iterable[Offer]:
    rest: Node = EVERYTHING
    try:
        rest = parse(before)
    except QueryError:  # inside parentheses, say: then all traces count
        rest = EVERYTHING
    source = _SOURCES.get(field.name)
    if source is None and field.name in PHASE_FIELDS:
        source = _phase
    flag = Condition(field.name, "=", ("yes",)) if field.kind is Kind.FLAG else None
    if source is None and flag is None:
        return []
    prepare(index, All((rest, flag)) if flag is not None else rest)
    if field.name in PHASE_FIELDS:
        times_of(index).catch_up(index)
    strings = strings_of(index)
    with index.lock, strings.lock:
        traces = Traces(index, strings)
        evaluation = Evaluation(traces, now, live)
        chosen, _ = shown(traces, view, evaluation.of(rest), now)
        if flag is not None:
            yes, every = int(np.count_nonzero(evaluation.of(flag)[chosen])), int(np.count_nonzero(chosen))
            found = [("yes", yes), ("no", every - yes)]
        else:
            assert source is not None
            found = source(traces, chosen, field, now)
    kept = [(value, count) for value, count in found if begun in value.casefold()]
    if field.kind is not Kind.TIME:
        kept.sort(key=lambda one: (not one[0].casefold().startswith(begun), -one[1], one[0]))
    return [Offer(quoted(value), count if count != _UNCOUNTED else None) for value, count in kept[:MOST]]


Counted = list[tuple[str, int]]
_UNCOUNTED: Final = -1


def _of_ids(traces: Traces, ids: Array) -> Counted:
    """Texts by string id, with how often they occur."""
    numbers = np.bincount(ids) if len(ids) else np.zeros(0, np.int64)
    numbers[:1] = 0  # the empty one is offered by nobody
    held = np.flatnonzero(numbers)
    if len(held) > 20 * MOST:  # the many that occur once are not worth their strings
        held = held[np.argsort(-numbers[held], kind="stable")[: 20 * MOST]]
    return [(traces.strings.name(number), int(numbers[number])) for number in held.tolist()]


def _request(column: str) -> Callable[[Traces, Array, Field, int], Counted]:
    return lambda traces, chosen, field, now: _of_ids(traces, traces.request(column)[chosen & traces.requests])


def _resources(traces: Traces, chosen: Array, field: Field, now: int) -> Counted:
    here = chosen & traces.requests
    pair = traces.request("resource")[here].astype(np.int64) << 32 | traces.request("subresource")[here]
    unique, numbers = np.unique(pair, return_counts=True)
    name = traces.strings.name
    return [
        (f"{name(both >> 32)}/{name(both & 0xFFFFFFFF)}" if both & 0xFFFFFFFF else name(both >> 32), count)
        for both, count in zip(unique.tolist(), numbers.tolist(), strict=True)
        if both >> 32
    ]


def _agents(traces: Traces, chosen: Array, field: Field, now: int) -> Counted:
    """Programs: what stands before the version."""
    found: Counter[str] = Counter()
    for agent, count in _of_ids(traces, traces.request("agent")[chosen & traces.requests]):
        found[agent.partition("/")[0] or agent] += count
    return list(found.items())


def _codes(traces: Traces, chosen: Array, field: Field, now: int) -> Counted:
    numbers = np.bincount(traces.code[chosen & traces.requests].astype(np.int64), minlength=1)
    numbers[0] = 0
    return [(str(code), int(numbers[code])) for code in np.flatnonzero(numbers).tolist()]


def _webhooks(traces: Traces, chosen: Array, field: Field, now: int) -> Counted:
    index = traces.index
    facts = np.flatnonzero(index.fact("role") == ROLE_WEBHOOK)
    slots = index.slot[index.fact("fact_row")[facts]]
    facts, slots = facts[chosen[slots]], slots[chosen[slots]]
    pair = np.unique(slots.astype(np.int64) << 32 | index.fact("name")[facts])
    return _of_ids(traces, pair & 0xFFFFFFFF)


def _instances(traces: Traces, chosen: Array, field: Field, now: int) -> Counted:
    index = traces.index
    numbers = np.bincount(index.resource[index.head_row[chosen]], minlength=len(index.resources)).tolist()
    found: Counter[str] = Counter()
    for resource, count in zip(index.resources, numbers, strict=False):
        found[resource.instance] += count
    return [(name, count) for name, count in found.items() if name and count]


def _services(traces: Traces, chosen: Array, field: Field, now: int) -> Counted:
    """Counted by trace; where senders make up ever new names, by span."""
    index = traces.index
    ids: dict[str, int] = {}
    of = np.array([ids.setdefault(resource.service, len(ids)) for resource in index.resources] or [0], np.int64)
    service = of[index.resource]
    if len(ids) <= _FEW:
        held = np.zeros((index.traces, max(1, len(ids))), bool)
        held[index.slot, service] = True
        numbers = held[chosen].sum(axis=0).tolist()
    else:
        numbers = np.bincount(service[chosen[index.slot]], minlength=len(ids)).tolist()
    return [(name, count) for name, count in zip(ids, numbers, strict=False) if name and count]


def _sources(traces: Traces, chosen: Array, field: Field, now: int) -> Counted:
    numbers = np.bincount(traces.index.source[chosen], minlength=len(traces.index.sources)).tolist()
    return [(name, count) for name, count in zip(traces.index.sources, numbers, strict=False) if count]


def _span_names(traces: Traces, chosen: Array, field: Field, now: int) -> Counted:
    """Counted by span, which costs a tenth of counting by trace and sorts them alike."""
    index = traces.index
    return _of_ids(traces, index.name[chosen[index.slot]] if not chosen.all() else index.name)


def _choices(traces: Traces, chosen: Array, field: Field, now: int) -> Counted:
    index = traces.index
    numbers = index.flags & COMPONENT_MASK if field.name == "component" else index.kind_status & 0x0F
    names = COMPONENT_NAMES if field.name == "component" else KINDS
    held: Array = np.zeros((index.traces, 16), bool)
    held[index.slot, np.minimum(numbers, 15)] = True
    counted = held[chosen].sum(axis=0).tolist()
    found = [(name, count) for name, count in zip(names, counted, strict=False) if count]
    if field.name != "component":
        return found
    # Which spans are a webhook's is known from their parents, and that takes longer than a completion may.
    return [*((name, _UNCOUNTED if name == "other" else count) for name, count in found), ("webhook", _UNCOUNTED)]


_STEPS: Final = (
    ("1ms", 10**6), ("5ms", 5 * 10**6), ("10ms", 10**7), ("50ms", 5 * 10**7), ("100ms", 10**8), ("500ms", 5 * 10**8),
    ("1s", 10**9), ("5s", 5 * 10**9), ("10s", 10**10), ("30s", 3 * 10**10), ("1m", 6 * 10**10), ("10m", 6 * 10**11),
)  # fmt: skip


def _steps(numbers: Array) -> Counted:
    """Round times, with how many are longer; those that nobody reaches are left out."""
    above = [(text, int(np.count_nonzero(numbers > ns))) for text, ns in _STEPS]
    return [(text, count) for text, count in above if count]


def _durations(traces: Traces, chosen: Array, field: Field, now: int) -> Counted:
    return _steps(durations.durations_of(traces.index)[chosen])


def _ages(traces: Traces, chosen: Array, field: Field, now: int) -> Counted:
    return _steps((now - traces.index.last_received)[chosen])


def _phase(traces: Traces, chosen: Array, field: Field, now: int) -> Counted:
    columns = times_of(traces.index).ns(traces.index)[list(PHASE_FIELDS[field.name])]
    return _steps(columns.sum(axis=0)[chosen & traces.requests])


def _counts(traces: Traces, chosen: Array, field: Field, now: int) -> Counted:
    column = traces.index.error_count if field.name == "errors" else traces.index.span_count
    numbers, counted = np.unique(column[chosen], return_counts=True)
    return [(str(number), count) for number, count in zip(numbers.tolist(), counted.tolist(), strict=True)]


_SOURCES: Final[dict[str, Callable[[Traces, Array, Field, int], Counted]]] = {
    "verb": _request("verb"),
    "ns": _request("namespace"),
    "name": _request("name"),
    "group": _request("group"),
    "resource": _resources,
    "ua": _agents,
    "code": _codes,
    "webhook": _webhooks,
    "instance": _instances,
    "service": _services,
    "source": _sources,
    "span": _span_names,
    "component": _choices,
    "kind": _choices,
    "duration": _durations,
    "age": _ages,
    "errors": _counts,
    "spans": _counts,
}
