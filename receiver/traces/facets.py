"""What Hot spots read of each trace: columns beside the index that grow with it.

Of a trace: the shape of its request, client, object, status, when, how long and on what (phases). Of each call of a
webhook: how long, what it cost, how it ended. Of each call to etcd: which operation, for what, how long, and how much
of that etcd's own span does not explain. A trace is looked at when spans of it came, so a look costs what is new and
not what is held. Memory: 230 bytes a trace, 40 a call of a webhook, 27 a call to etcd.
"""

from __future__ import annotations

import secrets
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from receiver.store.chunk import APISERVER, COMPONENT_MASK, ETCD, ROLE_CALL, ROLE_WEBHOOK
from receiver.store.index import Index, Keys
from receiver.traces.chains import keyed, spans_of
from receiver.traces.model import Kind
from receiver.traces.phases import PHASES, breakdown
from receiver.traces.semantics import LONG_SUBRESOURCES, LONG_VERBS
from receiver.traces.timing import STREAMS

Array = npt.NDArray[Any]

SCOPES: Final = ("", "resource", "namespace", "cluster")
"""What a request is about: one object (and every create), those of a namespace, those of the cluster, or "" for a
non-resource URL. As in the API server's own metrics (k8s.io/apiserver, endpoints/metrics: CleanScope)."""
PURPOSES: Final = ("other", "create", "update", "delete", "get", "list", "revision check", "background")
"""What a call to etcd is for, by the span above it. `revision check`: before it answers from its cache, the API server
asks etcd how far that is (recorded: `List(recursive=false) etcd3` below `cacher.*`). `background`: no request above."""
OK, FAILED, TIMED_OUT = range(3)
"""How a call of a webhook ended."""
MAY_HAVE_DENIED, DENIED = 1, 2
BIG: Final = 5_000
"""A trace with more spans than this is looked at again only when it has grown by a quarter: see `durations.BIG`."""
MOST_KINDS: Final = 60_000
"""Shapes, webhooks and operations that are told apart; whoever sends requests names them. What is beyond counts as one
that has no name."""
_SLICE: Final = 8_192  # traces at once, some 40 ms: the index is locked so long
_CLIENT: Final = Kind.CLIENT.value
_SERVER: Final = Kind.SERVER.value
_FAILED: Final = 2  # OTLP status
_PURPOSE_OF: Final = {
    "Create etcd3": 1,
    "GuaranteedUpdate etcd3": 2,
    "Delete": 3,
    "cacher.Get": 4,
    "Get etcd3": 4,
    "Get": 4,
    "List(recursive=true) etcd3": 5,
    "List(recursive=false) etcd3": 6,
}
_BACKGROUND: Final = PURPOSES.index("background")
_FROM_ETCD: Final = "List(recursive=true)"


@dataclass(frozen=True, slots=True)
class Shape:
    """What requests have in common, as string ids of the index; `scope` is a place in `SCOPES`."""

    verb: int
    group: int
    resource: int
    subresource: int
    scope: int


class _Rows:
    """Rows about calls within traces: those of a trace are replaced together."""

    def __init__(self, **columns: str) -> None:
        self.columns: dict[str, Array] = {"slot": np.zeros(0, np.int32)}
        self.columns.update({name: np.zeros(0, dtype) for name, dtype in columns.items()})

    def replace(self, touched: Array, **columns: Array) -> None:
        """Put these rows in the place of those of the touched traces (a mask by slot)."""
        old = self.columns["slot"]
        kept = ~touched[old]
        whole = bool(kept.all())
        if whole and not len(columns["slot"]):
            return
        for name, held in self.columns.items():
            stays = held if whole else held[kept]
            self.columns[name] = np.concatenate((stays, columns[name].astype(held.dtype)))

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]


class _Names:
    """By string id of an index, what a span or verb of that name is. Names only grow, so answers stay."""

    def __init__(self) -> None:
        self.tables: dict[str, Array] = {}
        self.count = 0

    def update(self, names: list[str]) -> None:
        """Take in the names that came since."""
        fresh = names[self.count :]
        if not fresh and self.tables:
            return
        self.count = len(names)
        found: dict[str, Array] = {
            "create": np.array([name == "create" for name in fresh], bool),
            "lasts": np.array([name in LONG_VERBS for name in fresh], bool),
            "lasting_subresource": np.array([name in LONG_SUBRESOURCES for name in fresh], bool),
            "etcd": np.array([name.startswith("etcdserverpb.") and name not in STREAMS for name in fresh], bool),
            "write": np.array([name == "etcdserverpb.KV/Txn" for name in fresh], bool),
            "range": np.array([name == "etcdserverpb.KV/Range" for name in fresh], bool),
            "purpose": np.array([_PURPOSE_OF.get(name, 0) for name in fresh], np.uint8),
            "from_etcd": np.array([name.startswith(_FROM_ETCD) for name in fresh], bool),
            "old": np.array([name == "KubernetesAPI" for name in fresh], bool),  # the SERVER span up to 1.30
            "late": np.array([_says_late(name) for name in fresh], bool),
        }
        for name, values in found.items():
            held = self.tables.get(name)
            self.tables[name] = values if held is None else np.concatenate((held, values))

    def __getitem__(self, name: str) -> Array:
        return self.tables[name]


def _says_late(message: str) -> bool:
    """Whether the status message of a call says that nobody answered in time; as the verdict has it."""
    low = message.lower()
    return "deadline exceeded" in low or "timeout" in low


class Facets:
    """What is known of the traces of one index. Hold it by `reading`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.epoch = 0
        """Grows when rows were numbered anew."""
        self.shapes: list[Shape] = []
        self.hook_kinds: list[tuple[int, int, int]] = []
        """Kind of hook, webhook and configuration, as string ids: what `hooks["hook"]` counts."""
        self.operations: list[tuple[int, int]] = []
        """Name of the span (string id) and place in `PURPOSES`: what `etcd["operation"]` counts."""
        self.hooks = _Rows(hook="i4", duration="i8", cost="i8", state="u1", denial="u1", first="?", shape="i4")
        self.etcd = _Rows(operation="i4", duration="i8", gap="i8")
        self.objects: dict[str, Array] = {name: np.zeros(0, np.uint32) for name in _OBJECT}
        """Group, resource, namespace and name by object, as string ids."""
        self._rows = 0  # spans looked at
        self._names = _Names()
        self._shape_ids: dict[Shape, int] = {}
        self._hook_ids: dict[tuple[int, int, int], int] = {}
        self._operation_ids: dict[tuple[int, int], int] = {}
        self._object_keys = Keys(values=True)
        self._salts = [np.uint64(secrets.randbits(64) | 1) for _ in range(5)]
        self._walked: dict[int, int] = {}
        self._pending: Array = np.zeros(0, np.int64)
        self._lasting: Array = np.zeros(0, bool)
        self._siblings: list[bool] = []
        self._row: Array = np.zeros(0, np.int32)  # by slot, -1: not looked at
        self._used = 0
        self._columns: dict[str, Array] = {name: np.zeros(0, dtype) for name, dtype in _COLUMNS.items()}
        self._phases: Array = np.zeros((0, PHASES), np.int64)

    def rows(self, slots: Array) -> Array:
        """The row of each trace. A row never changes: a trace that is looked at again gets a new one, so that whoever
        added it up can take it out again, until the `epoch` changes."""
        return self._row[slots]

    def column(self, name: str) -> Array:
        """By row: `shape` and `object` (-1: no request), `agent` (string id), `code`, `wrong` (as `View.errors_only`
        has it), `from_etcd`, `when` (ns, never after it came), `duration` (ns)."""
        return self._columns[name][: self._used]

    @property
    def phases(self) -> Array:
        """Nanoseconds by row and phase, 0 for what is no request."""
        return self._phases[: self._used]

    @property
    def traces(self) -> int:
        """Slots below this were looked at."""
        return len(self._row)

    @property
    def names(self) -> int:
        """String ids below this are known."""
        return self._names.count

    def lasting(self) -> Array:
        """By shape whether its requests last as long as their client likes: `semantics.long_running`."""
        fresh = self.shapes[len(self._lasting) :]
        if fresh:
            lasts = self._names["lasts"]
            subresources = self._names["lasting_subresource"]
            more = [bool(lasts[shape.verb] or subresources[shape.subresource]) for shape in fresh]
            self._lasting = np.concatenate((self._lasting, np.array(more, bool)))
        return self._lasting

    def siblings(self) -> list[bool]:
        """By shape whether there is another one that differs from it in scope alone."""
        if len(self._siblings) < len(self.shapes):
            keys = [(kind.verb, kind.group, kind.resource, kind.subresource) for kind in self.shapes]
            counts = Counter(keys)
            self._siblings = [counts[key] > 1 for key in keys]
        return self._siblings

    # -- taking in --------------------------------------------------------------------------------
    def take(self, index: Index) -> bool:
        """Look at a slice of what came since the last look; False when there is nothing left."""
        with self.lock, index.lock:
            rows = index.spans
            if not len(self._pending):
                if rows == self._rows:
                    return False
                if self._rows:
                    self._pending = np.unique(index.slot[self._rows : rows]).astype(np.int64)
                else:
                    self._pending = np.arange(index.traces)
                self._rows = rows
            some, self._pending = self._pending[:_SLICE], self._pending[_SLICE:]
            if index.traces > len(self._row):
                fresh = np.full(index.traces - len(self._row), -1, np.int32)
                self._row = np.concatenate((self._row, fresh))
            self._look(index, self._due(index, some))
            return True

    def _room_for(self, more: int) -> None:
        """Make room for rows; when a quarter of them is of no use any more, they are numbered anew."""
        live = self._row[self._row >= 0]
        crowded = self._used + more > len(self._phases)
        if crowded and self._used > len(live) + len(live) // 4:
            for column in (*self._columns.values(), self._phases):
                column[: len(live)] = column[live]
            self._row[self._row >= 0] = np.arange(len(live))
            self._used, self.epoch = len(live), self.epoch + 1
        if self._used + more > len(self._phases):
            room = max(4096, self._used + more + self._used // 4)
            for name, old in self._columns.items():
                new = np.zeros(room, old.dtype)
                new[: self._used] = old[: self._used]
                self._columns[name] = new
            phases = np.zeros((room, PHASES), np.int64)
            phases[: self._used] = self._phases[: self._used]
            self._phases = phases

    def _due(self, index: Index, slots: Array) -> Array:
        counts = index.span_count[slots]
        big = np.flatnonzero(counts > BIG)
        if not len(big):
            return slots
        due: Array = np.ones(len(slots), bool)
        for at in big.tolist():
            slot, count = int(slots[at]), int(counts[at])
            due[at] = count >= self._walked.get(slot, 0) * 5 // 4
            if due[at]:
                self._walked[slot] = count
        return slots[due]

    def _look(self, index: Index, slots: Array) -> None:
        if not len(slots):
            return
        self._names.update(index.names)
        request = index.server_fact[slots] >= 0
        named = _Named(index, slots, self._names["create"])
        start, arrived = index.head_start[slots], index.first_received[slots]
        parts = breakdown(index, slots)
        rows, positions = spans_of(index, slots)
        touched = np.zeros(index.traces, bool)
        touched[slots] = True
        written, from_etcd = self._etcd(index, slots, rows, positions, touched)
        shape, what = np.full(len(slots), -1, np.int32), np.full(len(slots), -1, np.int32)
        shape[request], what[request] = self._shaped(named, request), self._objects(named, request)
        found = {
            "shape": shape,
            "agent": named.agent,
            "object": what,
            "code": named.code,
            "wrong": (index.error_count[slots] > 0) | (named.code >= 400),
            "from_etcd": from_etcd,
            "when": np.where(start > 0, np.minimum(start, arrived), arrived),
            "duration": parts.duration,
        }
        self._room_for(len(slots))
        new = slice(self._used, self._used + len(slots))
        for name, values in found.items():
            self._columns[name][new] = values
        self._phases[new] = np.where(request[:, None], parts.ns, 0)
        self._row[slots] = np.arange(new.start, new.stop)
        self._used = new.stop
        self._webhooks(index, rows, touched, written, parts.hook_row, parts.hook_ns)

    def _shaped(self, named: _Named, request: Array) -> Array:
        """The shape of each request."""
        columns = (named.verb, named.group, named.resource, named.subresource, named.scope)
        parts = [column[request].astype(np.uint64) for column in columns]
        _, first, inverse = np.unique(self._mixed(parts), return_index=True, return_inverse=True)
        ids = []
        for key in zip(*(part[first].tolist() for part in parts), strict=True):
            shape = Shape(*key)
            if shape not in self._shape_ids and len(self.shapes) >= MOST_KINDS:
                shape = Shape(0, 0, 0, 0, 0)
            ids.append(_numbered(shape, self._shape_ids, self.shapes))
        numbers: Array = np.array(ids, np.int32)[inverse]
        return numbers

    def _objects(self, named: _Named, request: Array) -> Array:
        """The object of each request; without a name, all of that resource in that namespace."""
        parts = [getattr(named, name)[request].astype(np.uint64) for name in _OBJECT]
        keys, first, inverse = np.unique(self._mixed(parts), return_index=True, return_inverse=True)
        known = self._object_keys.find(keys)
        fresh = np.flatnonzero(known < 0)
        base = len(self.objects["name"])
        known[fresh] = np.arange(base, base + len(fresh))
        self._object_keys.add(keys[fresh], known[fresh])
        for name, part in zip(_OBJECT, parts, strict=True):
            self.objects[name] = np.concatenate((self.objects[name], part[first[fresh]].astype(np.uint32)))
        numbers: Array = known[inverse]
        return numbers

    def _mixed(self, parts: list[Array]) -> Array:
        """One number for each combination. Salted: nobody can choose names that fall together."""
        mixed: Array = np.zeros(len(parts[0]), np.uint64)
        with np.errstate(over="ignore"):
            for part, salt in zip(parts, self._salts, strict=False):
                mixed = (mixed ^ (part + np.uint64(1))) * salt
                mixed ^= mixed >> np.uint64(29)
        return mixed

    def _etcd(
        self, index: Index, slots: Array, rows: Array, positions: Array, touched: Array
    ) -> tuple[tuple[Array, Array], Array]:
        """Take in the calls to etcd; (trace and start of those that write, which of `slots` read a list there)."""
        names, name = self._names, index.name[rows]
        kind, component = index.kind_status[rows] & 0x0F, index.flags[rows] & COMPONENT_MASK
        etcd = names["etcd"][name]
        calls = np.flatnonzero(etcd & (kind == _CLIENT) & (component == APISERVER))
        call, slot = rows[calls], slots[positions[calls]]
        start = index.start[call].astype(np.int64)
        duration = np.where(start > 0, np.maximum(0, index.end[call].astype(np.int64) - start), 0)
        keys = keyed(index.span[call], slot)

        answers = np.flatnonzero(etcd & (kind == _SERVER) & (component == ETCD))
        answer = rows[answers]
        of = _places(keys, keyed(index.parent[answer], slots[positions[answers]]))
        took = np.maximum(0, index.end[answer].astype(np.int64) - index.start[answer].astype(np.int64))
        took[index.start[answer] == 0] = 0
        inside = np.full(len(calls), -1, np.int64)
        inside[of[of >= 0]] = 0
        np.add.at(inside, of[of >= 0], took[of >= 0])
        gap = np.where(inside >= 0, np.maximum(0, duration - inside), -1)

        above = np.flatnonzero(names["purpose"][name] > 0)
        at = _places(keyed(index.span[rows[above]], slots[positions[above]]), keyed(index.parent[call], slot))
        purpose = np.where(index.parent[call] == 0, _BACKGROUND, 0).astype(np.uint8)
        if len(above):
            purpose = np.where(at >= 0, names["purpose"][name[above[at]]], purpose)
        unique, inverse = np.unique(index.name[call].astype(np.int64) * len(PURPOSES) + purpose, return_inverse=True)
        numbers = [self._operation(*divmod(key, len(PURPOSES))) for key in unique.tolist()]
        operation = np.array(numbers, np.int32)[inverse]
        self.etcd.replace(touched, slot=slot, operation=operation, duration=duration, gap=gap)

        listed = np.zeros(len(slots), bool)
        listed[positions[names["from_etcd"][name]]] = True
        # 1.22 to 1.25 have no span but these two, and no list from the cache asks etcd anything
        head = index.head_row[slot]
        direct = names["range"][index.name[call]] & (index.parent[call] == index.span[head])
        direct &= names["old"][index.name[head]] & (index.verb_fact[slot] < 0)
        listed[positions[calls[direct]]] = True
        writes = names["write"][index.name[call]]
        return (slot[writes], start[writes]), listed

    def _operation(self, name: int, purpose: int) -> int:
        full = len(self.operations) >= MOST_KINDS and (name, purpose) not in self._operation_ids
        return _numbered((0, 0) if full else (name, purpose), self._operation_ids, self.operations)

    def _webhooks(
        self, index: Index, rows: Array, touched: Array, written: tuple[Array, Array], cost_row: Array, cost: Array
    ) -> None:
        """Take in the calls of webhooks."""
        role, fact_row = index.fact("role"), index.fact("fact_row")
        facts = np.flatnonzero((role == ROLE_WEBHOOK) | (role == ROLE_CALL))
        facts = facts[touched[index.slot[fact_row[facts]]]]
        hook = facts[role[facts] == ROLE_WEBHOOK]
        row = fact_row[hook]
        slot = index.slot[row].astype(np.int64)
        start, end = index.start[row].astype(np.int64), index.end[row].astype(np.int64)
        duration = np.where(start > 0, np.maximum(0, end - start), 0)
        keys = keyed(index.span[row], slot)

        call = facts[role[facts] == ROLE_CALL]
        call_row = fact_row[call]
        call_slot = index.slot[call_row]
        of = _places(keys, keyed(index.parent[call_row], call_slot))
        call, call_row, call_slot, of = call[of >= 0], call_row[of >= 0], call_slot[of >= 0], of[of >= 0]
        failed = (index.kind_status[call_row] >> 4) == _FAILED
        ended = np.where(failed, np.where(self._names["late"][index.fact("detail")[call]], TIMED_OUT, FAILED), OK)
        state = np.zeros(len(hook), np.uint8)
        np.maximum.at(state, of, ended.astype(np.uint8))

        costs: Array = np.zeros(len(hook), np.int64)
        if len(hook) and len(cost_row):
            order = np.argsort(cost_row)
            at = np.minimum(np.searchsorted(cost_row[order], row), len(order) - 1)
            costs = np.where(cost_row[order][at] == row, cost[order][at], 0)

        shape = self.column("shape")[self._row[slot]]
        costs[shape < 0] = 0  # nobody is known to have waited

        # what only a webhook with an SDK tells: its own span failed, though the call did not
        own = rows[((index.kind_status[rows] & 0x0F) == _SERVER) & ((index.kind_status[rows] >> 4) == _FAILED)]
        within = _places(keyed(index.span[call_row], call_slot), keyed(index.parent[own], index.slot[own]))
        refusing = np.zeros(len(hook), bool)
        refusing[of[within[within >= 0]]] = True
        denial = self._denials(index, hook, slot, start, end, state, refusing, written)
        kind = index.fact("resource")[hook]
        numbers = [
            self._hook(key)
            for key in zip(
                kind.tolist(),
                index.fact("name")[hook].tolist(),
                index.fact("detail")[hook].tolist(),
                strict=True,
            )
        ]
        numbered = np.array(numbers, np.int32)
        first = np.zeros(len(hook), bool)
        first[np.unique(slot * MOST_KINDS * 2 + numbered, return_index=True)[1]] = True
        self.hooks.replace(
            touched,
            slot=slot,
            first=first,
            hook=numbered,
            duration=duration,
            cost=costs,
            state=state,
            denial=denial,
            shape=shape,
        )

    def _hook(self, key: tuple[int, int, int]) -> int:
        full = len(self.hook_kinds) >= MOST_KINDS and key not in self._hook_ids
        return _numbered((0, 0, 0) if full else key, self._hook_ids, self.hook_kinds)

    def _denials(
        self,
        index: Index,
        hook: Array,
        slot: Array,
        start: Array,
        end: Array,
        state: Array,
        refusing: Array,
        written: tuple[Array, Array],
    ) -> Array:
        """Which calls may have, or did, deny their request.

        A denial fails no span of the API server; only an event of the verb span names the webhook (facts 10), and
        events are not resident. What is: the request was refused with 4xx, this was the last webhook asked, it
        answered, and nothing was written to etcd after it.
        """
        found = np.zeros(len(hook), np.uint8)
        code = self.column("code")[self._row[slot]]
        some = np.flatnonzero((code >= 400) & (code < 500))
        if not len(some):
            return found
        order = some[np.lexsort((start[some], slot[some]))]
        last = order[np.concatenate((slot[order][1:] != slot[order][:-1], [True]))]
        last = last[(state[last] == OK) & (index.fact("verb")[hook[last]] != 0)]
        by = np.lexsort(written[::-1])
        where, when = written[0][by], written[1][by]
        ends = np.searchsorted(where, slot[last], side="right") - 1
        newest = np.full(len(last), -1, np.int64)
        known = ends >= 0
        known[known] = where[ends[known]] == slot[last][known]
        newest[known] = when[ends[known]]
        last = last[newest < end[last]]
        found[last] = np.where(refusing[last], DENIED, MAY_HAVE_DENIED)
        return found


_Kind = TypeVar("_Kind")


def _numbered(kind: _Kind, ids: dict[_Kind, int], kinds: list[_Kind]) -> int:
    found = ids.setdefault(kind, len(kinds))
    if found == len(kinds):
        kinds.append(kind)
    return found


_COLUMNS: Final = {
    "shape": "i4",
    "agent": "u4",
    "object": "i4",
    "code": "u2",
    "wrong": "?",
    "from_etcd": "?",
    "when": "i8",
    "duration": "i8",
}
_OBJECT: Final = ("group", "resource", "namespace", "name")


class _Named:
    """Names of requests as string ids, put together as `semantics.merge_request` does; 0 for what is no request."""

    def __init__(self, index: Index, slots: Array, create: Array) -> None:
        def of(column: str, facts: Array) -> Array:
            values = index.fact(column)
            if not len(values):
                return np.zeros(len(facts), values.dtype)
            return np.where(facts >= 0, values[np.maximum(facts, 0)], values.dtype.type(0))

        server = index.server_fact[slots]
        verb = np.where(server >= 0, index.verb_fact[slots], -1)
        stored = np.where(server >= 0, index.stored_fact[slots], -1)
        naming = np.where((server >= 0) & (of("detail", server) == 0) & (verb >= 0), verb, server)
        self.code = of("code", server)
        self.verb = np.where(of("verb", naming) == 0, of("verb", server), of("verb", naming))
        self.group, self.resource, self.subresource, self.namespace = (
            of(column, naming) for column in ("group", "resource", "subresource", "namespace")
        )
        own = of("name", naming)
        self.name = np.where(own == 0, of("name", stored), own)  # a create's URL has none
        self.agent = np.where(of("agent", server) == 0, of("agent", verb), of("agent", server))
        scope = np.where(self.namespace != 0, SCOPES.index("namespace"), SCOPES.index("cluster"))
        scope = np.where((own != 0) | create[self.verb], SCOPES.index("resource"), scope)
        self.scope = np.where(self.resource == 0, 0, scope)


def _places(keys: Array, wanted: Array) -> Array:
    """For each wanted key its place among `keys`, -1 where it is not there."""
    if not len(keys):
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(keys)
    at = np.searchsorted(keys[order], wanted)
    at[at == len(keys)] = 0
    found: Array = np.where(keys[order[at]] == wanted, order[at], -1)
    return found


# --- kept up to date ------------------------------------------------------------------------------
_facets: weakref.WeakKeyDictionary[Index, Facets] = weakref.WeakKeyDictionary()
_facets_lock: Final = threading.Lock()


def _facets_of(index: Index) -> Facets:
    with _facets_lock:
        return _facets.setdefault(index, Facets())


def catch_up(index: Index, slices: int | None = None) -> bool:
    """Look at what came since, in slices of some 40 ms between which the index is free for others. For any thread, not
    under the index's lock.

    Args:
        slices: at most so many, for who has something else to do in between; None is all.

    Returns:
        Whether something is left.
    """
    facets = _facets_of(index)
    while slices is None or slices > 0:
        if not facets.take(index):
            return False
        slices = None if slices is None else slices - 1
    return True


@contextmanager
def reading(index: Index) -> Iterator[Facets]:
    """What is known, up to date, as it is while it is read. Not under the index's lock, which is taken second."""
    facets = _facets_of(index)
    while facets.take(index):
        pass
    with facets.lock:
        yield facets
