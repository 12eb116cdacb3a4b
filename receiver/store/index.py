"""Resident columns over all stored spans: what the lists, filters and trees read.

No Python object a span or a trace: 64 bytes a span in numpy arrays, 90 bytes a trace, 56 bytes a fact, and
one Python string for each distinct name. Bodies stay in the file.

Measured on 2 cores: 1,000,000 spans load in about 1 s, a tick of 5,000 spans takes about 5 ms.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.chunk import (
    AUDIT_UUID,
    FACT_STRINGS,
    FLAG_REQUEST,
    ROLE_LINK,
    ROLE_SERVER,
    ROLE_STORED,
    ROLE_VERB,
    ROLE_WEBHOOK,
    Chunk,
    Resource,
)

Array = npt.NDArray[Any]

RANK_REQUEST: Final = 2
RANK_ROOT: Final = 1
RANK_OTHER: Final = 0

_HEX: Final = frozenset("0123456789abcdefABCDEF")

RESOLVE_LIMIT: Final = 5_000
"""A trace with several requests and more spans than this keeps the earliest one as its headline."""

_SPAN_COLUMNS: Final = {
    "slot": "u4",
    "span": "u8",
    "parent": "u8",
    "start": "u8",
    "end": "u8",
    "name": "u4",
    "resource": "u2",
    "kind_status": "u1",
    "flags": "u1",
    "chunk": "u4",
    "ordinal": "u4",
    "prev": "i4",
}
_TRACE_COLUMNS: Final = {
    "id_hi": "u8",
    "id_lo": "u8",
    "first_received": "i8",
    "last_received": "i8",
    "last_row": "i4",
    "span_count": "u4",
    "error_count": "u4",
    "request_count": "u4",
    "head_row": "i4",
    "head_start": "i8",
    "head_duration": "i8",
    "head_rank": "u1",
    "source": "u2",
    "last_fact": "i4",
    "server_fact": "i4",
    "verb_fact": "i4",
    "webhook_fact": "i4",
    "stored_fact": "i4",
}
_FACT_COLUMNS: Final = {
    "fact_row": "i4",
    "fact_prev": "i4",
    "role": "u1",
    "code": "u2",
    **dict.fromkeys(FACT_STRINGS, "u4"),
    "audit_hi": "u8",
    "audit_lo": "u8",
    "audit_name": "u4",
}


_CHUNK_COLUMNS: Final = {"chunk_id": "i8", "chunk_received": "i8", "chunk_source": "u2", "chunk_recorded": "?"}
"""`chunk_recorded`: it came out of a recording, whole, and not from a sender."""

_SLICE: Final = 1 << 15


def _steps(length: int) -> range:
    return range(0, length, _SLICE)


def _lookup(table: dict[int, bool], keys: Array) -> Array:
    unique, inverse = np.unique(keys, return_inverse=True)
    found: Array = np.fromiter((table.get(key, False) for key in unique.tolist()), bool, len(unique))[inverse]
    return found


class _Table:
    """Columns that grow together. `view` is valid until the next `grow`."""

    def __init__(self, columns: dict[str, str]) -> None:
        self.length = 0
        self._room = 0
        self._arrays: dict[str, Array] = {name: np.empty(0, dtype) for name, dtype in columns.items()}

    def reserve(self, more: int) -> None:
        """Make room for `more` rows. Others may be reading: what they see has the same content before and after."""
        need = self.length + more
        if need > self._room:
            # Untouched pages of an empty array cost no memory, so generous growth is free.
            self._room = max(4096, need, self._room + self._room // 2)
            for name, old in self._arrays.items():
                new = np.empty(self._room, old.dtype)
                new[: self.length] = old[: self.length]
                self._arrays[name] = new

    def grow(self, more: int) -> int:
        """Add `more` rows; returns where they start. Their content is undefined."""
        self.reserve(more)
        start = self.length
        self.length += more
        return start

    def view(self, name: str) -> Array:
        return self._arrays[name][: self.length]


class Keys:
    """A set of 64-bit keys, with a value each where wanted, as a few sorted runs (a log-structured merge).

    Costs 8 (12) bytes a key and no Python object; membership of a batch is one binary search a run.
    """

    def __init__(self, values: bool) -> None:
        self._runs: list[tuple[Array, Array | None]] = []
        self._values = values

    def find(self, keys: Array) -> Array:
        """The value of each key, -1 where it is not there (1 where it is, for a set without values)."""
        found = np.full(len(keys), -1, np.int32)
        for run, values in self._runs:
            at = np.searchsorted(run, keys)
            at[at == len(run)] = 0
            hit = run[at] == keys
            found[hit] = 1 if values is None else values[at[hit]]
        return found

    def add(self, keys: Array, values: Array | None = None) -> None:
        """Add keys that are not there yet."""
        if not len(keys):
            return
        order = np.argsort(keys, kind="stable")
        run, held = keys[order], (values[order].astype(np.int32) if values is not None else None)
        runs = list(self._runs)
        while runs and len(runs[-1][0]) < 4 * len(run):
            other, other_values = runs.pop()
            run, held = _merged(other, other_values, run, held)
        self._runs = [*runs, (run, held)]  # in one step: others may be reading


def _merged(a: Array, a_values: Array | None, b: Array, b_values: Array | None) -> tuple[Array, Array | None]:
    keys = np.concatenate((a, b))
    if a_values is None or b_values is None:
        keys.sort(kind="stable")
        return keys, None
    order = np.argsort(keys, kind="stable")
    return keys[order], np.concatenate((a_values, b_values))[order]


class _Batch:
    """Rows on their way into the index; names and resources are already the index's own ids."""

    __slots__ = ("chunk", "facts", "hi", "lo", "received", "source", "spans")

    def __init__(
        self, hi: Array, lo: Array, spans: dict[str, Array], received: Array, source: Array, facts: dict[str, Array]
    ) -> None:
        self.hi, self.lo, self.spans, self.received, self.source, self.facts = hi, lo, spans, received, source, facts


class Index:
    """All spans of a store, as columns. One thread extends it; any may read under `lock`.

    The columns of `_SPAN_COLUMNS` (by span row), `_TRACE_COLUMNS` (by trace slot) and `_FACT_COLUMNS` (by fact)
    are attributes. A row is a span in arrival order, a slot a trace in order of its first arrival; both stay
    what they are until `without` makes a new index.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.names: list[str] = [""]
        self.resources: list[Resource] = []
        self.sources: list[str] = []
        self.duplicates = 0
        self.last_chunk = 0
        self._name_ids: dict[str, int] = {"": 0}
        self._resource_ids: dict[Resource, int] = {}
        self._source_ids: dict[str, int] = {}
        self._spans = _Table(_SPAN_COLUMNS)
        self._traces = _Table(_TRACE_COLUMNS)
        self._facts = _Table(_FACT_COLUMNS)
        self._chunks = _Table(_CHUNK_COLUMNS)
        self._trace_keys = Keys(values=True)
        self._span_keys = Keys(values=False)
        # Secret multipliers: nobody who sends spans can choose ids that fall together.
        self._salt = [np.uint64(secrets.randbits(64) | 1) for _ in range(3)]

    def __getattr__(self, name: str) -> Array:
        for table in ("_spans", "_traces", "_facts", "_chunks"):
            columns: _Table | None = self.__dict__.get(table)
            if columns is not None and name in columns._arrays:
                return columns.view(name)
        raise AttributeError(name)

    def fact(self, column: str) -> Array:
        """A column by fact. Attributes find the spans' `name` and `resource`, so those of facts are reached here."""
        return self._facts.view(column)

    @property
    def spans(self) -> int:
        """Spans held, duplicates not counted."""
        return self._spans.length

    @property
    def traces(self) -> int:
        """Traces held."""
        return self._traces.length

    @property
    def fact_count(self) -> int:
        """Rows that say something about a request."""
        return self._facts.length

    # -- taking in ------------------------------------------------------------------------------------
    def extend(self, chunks: Sequence[Chunk]) -> None:
        """Take in chunks, ascending by id. Of spans with the same (trace id, span id) the first arrived stays."""
        chunks = [chunk for chunk in chunks if chunk.id > self.last_chunk]
        if not chunks:
            return
        batch = self._batch(chunks)
        with self.lock:
            start = self._chunks.grow(len(chunks))
            self._chunks.view("chunk_id")[start:] = [c.id for c in chunks]
            self._chunks.view("chunk_received")[start:] = [c.received for c in chunks]
            self._chunks.view("chunk_source")[start:] = [self._source_ids[c.source] for c in chunks]
            self._chunks.view("chunk_recorded")[start:] = [not c.peer for c in chunks]
        self._apply(batch)
        self.last_chunk = chunks[-1].id

    def without(self, ids: Collection[int]) -> Index:
        """A new index that lacks these chunks; names that only they used are gone too.

        For the thread that extends this one. Works in slices, so that no single step keeps the interpreter
        from other threads for more than some milliseconds.
        """
        new = Index()
        new.last_chunk = self.last_chunk
        new.resources, new._resource_ids = list(self.resources), dict(self._resource_ids)
        new.sources, new._source_ids = list(self.sources), dict(self._source_ids)
        gone = np.sort(np.fromiter(ids, np.int64, len(ids)))
        kept_chunks = ~np.isin(self.chunk_id, gone)
        new._chunks.grow(int(kept_chunks.sum()))
        for column in _CHUNK_COLUMNS:
            new._chunks.view(column)[:] = self._chunks.view(column)[kept_chunks]
        stays = dict(zip(self.chunk_id.tolist(), kept_chunks.tolist(), strict=True))
        rows = [low + np.flatnonzero(_lookup(stays, self.chunk[low : low + _SLICE])) for low in _steps(self.spans)]
        used = np.zeros(len(self.names), bool)
        used[0] = True
        for some in rows:
            used[self.name[some]] = True
        facts = []
        place = np.full(self.spans, -1, np.int32)
        for low, some in zip(_steps(self.spans), rows, strict=True):
            place[some] = np.arange(len(some)) + low
        for low in _steps(self.fact_count):
            some = low + np.flatnonzero(place[self.fact_row[low : low + _SLICE]] >= 0)
            facts.append(some)
            for column in (*FACT_STRINGS, "audit_name"):
                used[self._facts.view(column)[some]] = True
        names = new._take_names(self.names, used)
        held = np.concatenate(facts) if facts else np.zeros(0, np.int64)
        # Facts come a batch after their span at the latest, so they are nearly in row order: sort them once.
        held = held[np.argsort(self.fact_row[held], kind="stable")]
        at = np.searchsorted(self.fact_row[held], [*_steps(self.spans), self.spans])
        for i, some in enumerate(rows):
            own = held[at[i] : at[i + 1]]
            place[some] = np.arange(len(some))
            new._apply(self._batch_of_rows(some, own, place, names))
        return new

    def _take_names(self, old: Sequence[str], used: Array) -> Array:
        ids = np.zeros(len(old), np.uint32)
        kept = np.flatnonzero(used)
        ids[kept] = np.arange(len(kept))
        self.names = [old[i] for i in kept.tolist()]
        self._name_ids = {name: i for i, name in enumerate(self.names)}
        return ids

    def _batch_of_rows(self, rows: Array, facts: Array, place: Array, names: Array) -> _Batch:
        slots = self.slot[rows]
        at = np.searchsorted(self.chunk_id, self.chunk[rows])
        spans = {c: self._spans.view(c)[rows] for c in _SPAN_COLUMNS if c not in ("slot", "prev")}
        spans["name"] = names[spans["name"]]
        held = {c: self._facts.view(c)[facts] for c in _FACT_COLUMNS if c != "fact_prev"}
        held["fact_row"] = place[held["fact_row"]]
        for column in (*FACT_STRINGS, "audit_name"):
            held[column] = names[held[column]]
        return _Batch(self.id_hi[slots], self.id_lo[slots], spans, self.chunk_received[at], self.chunk_source[at], held)

    def _intern(self, names: Sequence[str]) -> Array:
        ids, known = self._name_ids, self.names
        out = np.empty(len(names), np.uint32)
        for i, name in enumerate(names):
            found = ids.get(name)
            if found is None:
                found = ids[name] = len(known)
                known.append(name)
            out[i] = found
        return out

    def _intern_resource(self, resource: Resource) -> int:
        found = self._resource_ids.get(resource)
        if found is None:
            if len(self.resources) >= 0xFFFF:  # a sender that makes up a new one each time
                return 0xFFFF - 1
            found = self._resource_ids[resource] = len(self.resources)
            self.resources.append(resource)
        return found

    def _batch(self, chunks: Sequence[Chunk]) -> _Batch:
        span_names, resources, fact_rows, fact_names = [], [], [], []
        offset = 0
        for chunk in chunks:
            if chunk.source not in self._source_ids:
                self._source_ids[chunk.source] = len(self.sources)
                self.sources.append(chunk.source)
            ids = self._intern(chunk.strings)
            own = np.array([self._intern_resource(r) for r in chunk.resources] or [0], np.uint16)
            span_names.append(ids[chunk.spans["name"]])
            resources.append(own[chunk.spans["resource"]])
            facts = chunk.facts
            fact_rows.append(facts["row"].astype(np.int64) + offset)
            held = {c: ids[facts[c]] for c in FACT_STRINGS}
            halves = np.frombuffer(np.ascontiguousarray(facts["audit"]).tobytes(), ">u8").reshape(-1, 2)
            uuid = (facts["flags"] & AUDIT_UUID) != 0
            local = halves[:, 0] >> np.uint64(32)
            local = np.where(uuid | (local >= len(ids)), 0, local).astype(np.int64)
            held["audit_name"] = ids[local]
            held["audit_hi"], held["audit_lo"] = np.where(uuid, halves[:, 0], 0), np.where(uuid, halves[:, 1], 0)
            held["role"], held["code"] = facts["role"], facts["code"]
            fact_names.append(held)
            offset += len(chunk.spans)
        counts = [len(c.spans) for c in chunks]
        rows = np.concatenate([c.spans for c in chunks]) if len(chunks) > 1 else chunks[0].spans
        spans = {c: rows[c] for c in ("span", "parent", "start", "end", "kind_status", "flags")}
        spans["name"], spans["resource"] = np.concatenate(span_names), np.concatenate(resources)
        spans["chunk"] = np.repeat(np.array([c.id for c in chunks], np.uint32), counts)
        spans["ordinal"] = np.concatenate([np.arange(n, dtype=np.uint32) for n in counts])
        facts_of = {c: np.concatenate([f[c] for f in fact_names]) for c in _FACT_COLUMNS if not c.startswith("fact_")}
        facts_of["fact_row"] = np.concatenate(fact_rows)
        received = np.repeat(np.array([c.received for c in chunks], np.int64), counts)
        source = np.repeat(np.array([self._source_ids[c.source] for c in chunks], np.uint16), counts)
        return _Batch(rows["trace_hi"], rows["trace_lo"], spans, received, source, facts_of)

    def _mixed(self, a: Array, b: Array) -> Array:
        with np.errstate(over="ignore"):
            h = (a * self._salt[0]) ^ ((b ^ (b >> np.uint64(29))) * self._salt[1])
            h ^= h >> np.uint64(32)
            h *= self._salt[2]
            mixed: Array = h ^ (h >> np.uint64(29))
        return mixed

    def _apply(self, batch: _Batch) -> None:
        if not len(batch.hi):
            return
        trace_key = self._mixed(batch.hi, batch.lo)
        span_key = self._mixed(trace_key, batch.spans["span"])
        unique, first = np.unique(span_key, return_index=True)
        fresh = self._span_keys.find(unique) < 0
        keep = np.sort(first[fresh])
        self._span_keys.add(unique[fresh])
        total, count = len(batch.hi), len(keep)
        self.duplicates += total - count
        if not count:
            return
        whole = count == total
        spans = batch.spans if whole else {c: v[keep] for c, v in batch.spans.items()}
        received = batch.received if whole else batch.received[keep]
        # Copying a million rows takes 30 ms, for which nobody shall wait.
        self._spans.reserve(count)
        self._traces.reserve(count)
        self._facts.reserve(len(batch.facts["fact_row"]))
        with self.lock:
            slot = self._slots(batch, trace_key)
            self._append(spans, slot if whole else slot[keep], received)
            place = np.full(total, -1, np.int64)
            place[keep] = np.arange(count) + self.spans - count
            self._take_facts(batch.facts, place)
            for nested in np.unique(slot[self.request_count[slot] > 1]):
                self._resolve(int(nested))

    def _append(self, spans: dict[str, Array], slot: Array, received: Array) -> None:
        count = len(slot)
        base = self._spans.grow(count)
        for column, values in spans.items():
            self._spans.view(column)[base:] = values
        self._spans.view("slot")[base:] = slot
        order = np.argsort(slot, kind="stable")
        by_slot = slot[order]
        starts = np.flatnonzero(np.concatenate(([True], by_slot[1:] != by_slot[:-1])))
        touched = by_slot[starts]
        _chain(order + base, by_slot, starts, self._spans.view("prev"), self.last_row, base, order)

        sizes = np.diff(np.append(starts, count))
        self.span_count[touched] += sizes.astype(np.uint32)
        failed = ((spans["kind_status"] >> 4) == 2)[order].astype(np.uint32)
        self.error_count[touched] += np.add.reduceat(failed, starts)
        requests = ((spans["flags"] & FLAG_REQUEST) != 0)[order].astype(np.uint32)
        self.request_count[touched] += np.add.reduceat(requests, starts)
        self.last_received[touched] = np.maximum(
            self.last_received[touched], np.maximum.reduceat(received[order], starts)
        )
        self._headlines(spans, slot, base)

    def _slots(self, batch: _Batch, key: Array) -> Array:
        unique, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        slots = self._trace_keys.find(unique)
        new = np.flatnonzero(slots < 0)
        if len(new):
            new = new[np.argsort(first[new], kind="stable")]  # slots in order of arrival
            base = self._traces.grow(len(new))
            slots[new] = np.arange(base, base + len(new))
            at, view = first[new], self._traces.view
            view("id_hi")[base:], view("id_lo")[base:] = batch.hi[at], batch.lo[at]
            view("first_received")[base:] = view("last_received")[base:] = batch.received[at]
            view("source")[base:] = batch.source[at]
            for column in (
                "last_row",
                "head_row",
                "last_fact",
                "server_fact",
                "verb_fact",
                "webhook_fact",
                "stored_fact",
            ):
                view(column)[base:] = -1
            for column in ("span_count", "error_count", "request_count", "head_rank", "head_start", "head_duration"):
                view(column)[base:] = 0
            self._trace_keys.add(unique[new], slots[new])
        return slots[inverse]

    def _headlines(self, spans: dict[str, Array], slot: Array, base: int) -> None:
        """Keep the best headline of each trace: a request before a root before another, then the earliest."""
        start = spans["start"].astype(np.int64)
        end = spans["end"].astype(np.int64)
        duration = np.where(start == 0, 0, np.maximum(0, end - start))  # no start time: no duration either
        rank = np.where((spans["flags"] & FLAG_REQUEST) != 0, RANK_REQUEST, np.where(spans["parent"] == 0, 1, 0))
        early = np.where(start == 0, np.iinfo(np.int64).max, start)  # no start time: behind all others
        order = np.lexsort((-duration, early, -rank, slot))
        by_slot = slot[order]
        best = order[np.concatenate(([True], by_slot[1:] != by_slot[:-1]))]
        at = slot[best]
        held_rank, held = self.head_rank[at].astype(np.int64), self.head_start[at]
        held_early = np.where(held == 0, np.iinfo(np.int64).max, held)
        sooner = (early[best] < held_early) | ((early[best] == held_early) & (duration[best] > self.head_duration[at]))
        better = (self.head_row[at] < 0) | (rank[best] > held_rank) | ((rank[best] == held_rank) & sooner)
        at, best = at[better], best[better]
        self.head_row[at] = best + base
        self.head_start[at], self.head_duration[at] = start[best], duration[best]
        self.head_rank[at] = rank[best]

    def _take_facts(self, facts: dict[str, Array], place: Array) -> None:
        row = facts["fact_row"]
        row = np.where((row >= 0) & (row < len(place)), place[np.clip(row, 0, len(place) - 1)], -1)
        keep = np.flatnonzero(row >= 0)
        if not len(keep):
            return
        row = row[keep]
        base = self._facts.grow(len(keep))
        for column, values in facts.items():
            if column != "fact_row":
                self._facts.view(column)[base:] = values[keep]
        self.fact_row[base:] = row
        slot = self.slot[row]
        order = np.argsort(slot, kind="stable")
        by_slot = slot[order]
        starts = np.flatnonzero(np.concatenate(([True], by_slot[1:] != by_slot[:-1])))
        _chain(order + base, by_slot, starts, self.fact_prev, self.last_fact, base, order)
        fact = np.arange(base, base + len(keep))
        role = self.role[base:]
        head = (role == ROLE_SERVER) & (self.head_row[slot] == row)
        self.server_fact[slot[head]] = fact[head]
        verb = (role == ROLE_VERB) & (self.verb_fact[slot] < 0)
        self.verb_fact[slot[verb]] = fact[verb]
        stored = (role == ROLE_STORED) & (self.stored_fact[slot] < 0)
        self.stored_fact[slot[stored]] = fact[stored]
        webhook = role == ROLE_WEBHOOK
        self.webhook_fact[slot[webhook]] = fact[webhook]

    def _resolve(self, slot: int) -> None:
        """Headline of a trace with several requests: the one without a request above it."""
        if self.span_count[slot] > RESOLVE_LIMIT:
            return
        rows = self.rows_of(slot)
        flags, spans, parents = self.flags[rows], self.span[rows], self.parent[rows]
        parent_of = dict(zip(spans.tolist(), parents.tolist(), strict=True))
        request = set(spans[(flags & FLAG_REQUEST) != 0].tolist())
        best: tuple[int, int, int] | None = None
        for row, span in zip(rows.tolist(), spans.tolist(), strict=True):
            if span not in request:
                continue
            above, seen = parent_of[span], {span}
            while above and above not in seen and above not in request and above in parent_of:
                seen.add(above)
                above = parent_of[above]
            if above in request and above not in seen:
                continue
            start, end = int(self.start[row]), int(self.end[row])
            candidate = (start or np.iinfo(np.int64).max, -max(0, end - start) if start else 0, row)
            best = candidate if best is None else min(best, candidate)
        if best is None:  # all in one circle
            return
        row = best[2]
        self.head_row[slot], self.head_rank[slot] = row, RANK_REQUEST
        self.head_start[slot], self.head_duration[slot] = self.start[row], -best[1]
        server, verb = -1, -1
        for fact in self.facts_of(slot):
            if self.role[fact] == ROLE_SERVER and self.fact_row[fact] == row:
                server = fact
            if self.role[fact] == ROLE_VERB and (
                verb < 0 or self.start[self.fact_row[fact]] < self.start[self.fact_row[verb]]
            ):
                verb = fact
        self.server_fact[slot], self.verb_fact[slot] = server, verb

    # -- reading --------------------------------------------------------------------------------------
    def slot_of(self, trace_id: str) -> int | None:
        """The slot of a trace (32 hex digits), None when it is not held or the id is not one."""
        if len(trace_id) != 32 or not set(trace_id) <= _HEX:
            return None
        number = int(trace_id, 16)
        hi, lo = np.array([number >> 64], np.uint64), np.array([number & 0xFFFFFFFFFFFFFFFF], np.uint64)
        slot = int(self.slots_of(hi, lo)[0])
        return None if slot < 0 else slot

    def slots_of(self, hi: Array, lo: Array) -> Array:
        """The slots of many traces by the halves of their ids, -1 for each that is not held. Needs no lock: a trace
        is found once its id stands in the columns, which only grow."""
        slots = self._trace_keys.find(self._mixed(hi, lo))
        if not len(slots) or not self.traces:
            return slots
        at = np.maximum(slots, 0)
        return np.where((slots >= 0) & (self.id_hi[at] == hi) & (self.id_lo[at] == lo), slots, -1)

    def trace_id(self, slot: int) -> str:
        """32 hex digits."""
        return f"{int(self.id_hi[slot]):016x}{int(self.id_lo[slot]):016x}"

    def rows_of(self, slot: int, limit: int = 1 << 31) -> Array:
        """Rows of a trace in order of arrival; with a limit, the last arrived ones."""
        rows: list[int] = []
        prev, row = self.prev, int(self.last_row[slot])
        while row >= 0 and len(rows) < limit:
            rows.append(row)
            row = int(prev[row])
        return np.array(rows[::-1], np.int64)

    def facts_of(self, slot: int, limit: int = 10_000) -> list[int]:
        """Facts of a trace in order of arrival; the last arrived ones where there are more than `limit`."""
        facts: list[int] = []
        fact = int(self.last_fact[slot])
        while fact >= 0 and len(facts) < limit:
            facts.append(fact)
            fact = int(self.fact_prev[fact])
        return facts[::-1]

    def links_from(self, slot: int) -> Array:
        """Facts, in order of arrival: that a span of this trace links to a trace."""
        facts = np.array(self.facts_of(slot), np.int64)
        found: Array = facts[self.role[facts] == ROLE_LINK]
        return found

    def links_to(self, slot: int) -> Array:
        """Facts, in order of arrival: that a span, of whatever trace, links to this one. A pass over all facts, 1 ms
        for 1,000,000."""
        facts = np.flatnonzero(self.role == ROLE_LINK)
        found: Array = facts[(self.audit_hi[facts] == self.id_hi[slot]) & (self.audit_lo[facts] == self.id_lo[slot])]
        return found

    def audit_id(self, fact: int) -> str:
        """The audit id as text, "" where the span had none."""
        hi, lo = int(self.audit_hi[fact]), int(self.audit_lo[fact])
        if hi or lo:
            digits = f"{hi:016x}{lo:016x}"
            return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
        return self.names[int(self.audit_name[fact])]


def _chain(rows: Array, by_slot: Array, starts: Array, prev: Array, last: Array, base: int, order: Array) -> None:
    """Link each row to the previous one of its trace, and the first to what was last before.

    `rows` are in slot order and, within a slot, in order of arrival; `starts` are where slots begin.
    """
    before = np.empty(len(rows), np.int64)
    before[1:] = rows[:-1]
    before[starts] = last[by_slot[starts]]
    prev[base + order] = before
    ends = np.append(starts[1:], len(rows)) - 1
    last[by_slot[ends]] = rows[ends]
