"""What is thrown away when the file is as large or as old as it may be.

Whole traces go, the oldest first. The oldest chunks that together free what is needed are the cut. A trace of the cut
stays, all of it, when

- it has spans in a younger chunk, or
- somebody has it open (`held`), or
- it failed or took a second or longer, as long as such traces fill no more than a tenth of the cap, the newest first.

A chunk of the cut whose spans all stay is left alone; the spans that stay of the others move into a new chunk. So that
a trace id that is used for hours is not carried along for ever, no more than `MAX_CARRIED` spans of a trace are, the
newest, and traces that reach into younger chunks take a quarter of the cap at most. Everything that goes is counted.

With a maximum age the cut is what is older, and only the first two reasons count.

A file that is larger than the cap, because that was lowered or the disk is filling up, gets shorter in small steps
while spans come in: what was freed would be used again, but the disk may be needed by others now.

Which traces a chunk holds is kept in memory as one 32-bit number a span: some 16 MB at the usual cap.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.chunk import FLAG_REQUEST, ROLE_SERVER, Chunk
from receiver.store.database import Database, DatabaseDamaged, StoreError
from receiver.store.repack import Part, repack

Array = npt.NDArray[Any]

DEFAULT_CAP: Final = 512 << 20
"""Bytes: some 4 million spans of a real cluster."""
DEFAULT_MIN_FREE: Final = 0.2
"""Share of the disk: the kubelet evicts pods when 10 to 15 % are left."""
FLOOR: Final = 32 << 20
"""Bytes that we keep however full the disk is, so that the tool is still of use."""
MAX_CARRIED: Final = 50_000
"""Spans of one trace that outlive their chunk."""
STEP: Final = 0.1
"""Share of the cap that is freed at once: readers have to rebuild their index each time."""
KEPT_SHARE: Final = 0.1
"""Share of the cap for failed and slow traces that would have gone."""
STRADDLING_SHARE: Final = 0.25
SLOW_NS: Final = 1_000_000_000
MOST_AT_ONCE: Final = 64 << 20
"""Bytes of a cut, or STEP of the cap if that is more: what is looked at for a cut is in memory."""
SHRINK_ABOVE: Final = 1.1
"""Of the cap: a file this large is made as small as the cap."""
_SHRINK_STEP: Final = 1 << 20  # bytes: some 10 ms in which nothing else can be written
_SHRINK_PAUSE: Final = 0.02
_TICK_SECONDS: Final = 1.0
_BATCH: Final = 64
_MERGED_SPANS: Final = 20_000
_MERGED_BYTES: Final = 4 << 20
_MERGED_NS: Final = 60_000_000_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Policy:
    """How much is kept: bytes, ns (None: for ever), and the share of the disk that others get."""

    cap: int = DEFAULT_CAP
    max_age: int | None = None
    min_free: float = DEFAULT_MIN_FREE


@dataclass(slots=True)
class _Cut:
    """The spans of the cut, a row a span in chunk order."""

    chunks: list[Chunk]
    trace: Array  # number of the trace in the arrays below, by row
    starts: Array  # first row of each chunk, and the end
    hi: Array  # by trace, as all below
    lo: Array
    spans: Array
    bytes: Array  # about
    worthy: Array  # failed or slow
    newest: Array  # last row


class Retention(threading.Thread):
    """Watches the size and the age of a database and evicts. `cap` is what holds now: the policy's, or less on a
    disk that is nearly full; `notice` says so, "" else. `problem` is one sentence about why nothing can be evicted,
    "" else."""

    def __init__(
        self,
        database: Database,
        policy: Policy,
        *,
        held: Callable[[], frozenset[int]] = frozenset,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """`held` gives the trace ids (as numbers) that must stay."""
        super().__init__(name="retention", daemon=True)
        self.cap = policy.cap
        self.live_bytes = 0
        self.evicted_spans = 0
        self.evicted_traces = 0
        self.problem = ""
        self.notice = ""
        self._database = database
        self._policy = policy
        self._held = held
        self._clock = clock
        self._known = _Known()
        self._oldest: int | None = None
        self._widen = 1.0
        self._stopping = threading.Event()

    def committed(self, chunks: Sequence[Chunk]) -> None:
        """These chunks were stored. Called by the writer's thread: cheap."""
        for chunk in chunks:
            self._known.add(chunk)

    def stop(self) -> None:
        """End the thread; an eviction that has begun is finished."""
        self._stopping.set()
        if self.is_alive():
            self.join(10.0)

    def run(self) -> None:
        """The thread's own."""
        wait = _TICK_SECONDS
        while not self._stopping.wait(wait):
            wait = _TICK_SECONDS
            try:
                if self.tick() and self.live_bytes > self.cap:
                    wait = 0.0  # far above a cap that was lowered
                self._shrink()
                self.problem = ""
            except DatabaseDamaged as error:
                self.problem = str(error)
                self._stopping.wait(10.0)
            except StoreError as error:
                _log.warning("eviction failed: %s", error)  # a full disk: the writer says so; try again
            except Exception:  # noqa: BLE001 - without this thread the disk fills up
                _log.exception("eviction failed")
                self._stopping.wait(60.0)

    def settle(self) -> None:
        """Evict what is due now, for who has no thread of it.

        Raises:
            StoreError: the database cannot be changed.
        """
        while self.tick() and self.live_bytes > self.cap:
            pass

    def tick(self) -> bool:
        """Look, and evict if it is time. Whether something went.

        Raises:
            StoreError: the database cannot be changed.
        """
        self.live_bytes = self._database.live_bytes()
        self.cap = self._cap_now()
        now = self._clock()
        sizes: list[tuple[int, int, int]] | None = None
        too_old: set[int] = set()
        if self._policy.max_age is not None:
            limit = now - self._policy.max_age
            slack = min(self._policy.max_age // 20, 10_000_000_000)
            if self._oldest is None or self._oldest < limit - slack:
                sizes = self._database.chunk_sizes()
                too_old = {number for number, received, _ in sizes if received < limit}
                self._oldest = min((received for _, received, _ in sizes), default=None)
        need = self.live_bytes - int(self.cap * (1 - STEP)) if self.live_bytes > self.cap else 0
        need = min(need, max(MOST_AT_ONCE, int(self.cap * STEP)))
        if not too_old and not need:
            return False
        sizes = sorted(sizes or self._database.chunk_sizes(), key=lambda row: (row[1], row[0]))
        cut = set(too_old)
        budget = int(self._widen * need)
        for number, _, size in sizes:
            if budget <= 0:
                break
            if number not in cut:
                cut.add(number)
            budget -= 0 if number in self._known.kept else size
        before = self.evicted_spans
        if cut:
            self._evict([row[0] for row in sizes if row[0] in cut], too_old, [row[0] for row in sizes])
        self._oldest = None
        had, self.live_bytes = self.live_bytes, self._database.live_bytes()
        # When most of the cut had to stay, the next one reaches further.
        stayed = self.live_bytes > self.cap and had - self.live_bytes < need // 2
        self._widen = min(self._widen * 2, 1e6) if stayed else 1.0
        return self.evicted_spans > before

    def _shrink(self) -> None:
        """Give the disk back what the file has more than it may.

        Raises:
            StoreError: the file cannot be changed.
        """
        path = self._database.path
        if path is None or self.live_bytes > self.cap or not self._database.shrinks:
            return
        try:
            if path.stat().st_size <= self.cap * SHRINK_ABOVE:
                return
        except OSError:
            return  # moved away: the writer sees it
        while not self._stopping.wait(_SHRINK_PAUSE):
            if not self._database.shrink(_SHRINK_STEP) or self._database.size <= self.cap:
                return

    def _cap_now(self) -> int:
        """The cap, less what the disk lacks: what counts is how far the file may grow, its own bytes are ours."""
        path = self._database.path
        if path is None:
            return self._policy.cap
        try:
            disk, size = os.statvfs(path.parent), path.stat().st_size
        except OSError:
            return self.cap
        total, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
        room = size + free - int(total * self._policy.min_free)
        cap = min(self._policy.cap, max(room, FLOOR))
        low = cap < self._policy.cap and self.live_bytes > cap * (1 - 2 * STEP)
        notice = (
            f"Less than {self._policy.min_free:.0%} of the disk would be left, so no more than"
            f" {cap >> 20:,} MiB of spans are kept: free space, or set --min-free or --db."
        )
        self.notice = notice if low else ""
        return cap

    # -- one eviction -----------------------------------------------------------------------------------
    def _evict(self, numbers: Sequence[int], too_old: Iterable[int], every: Sequence[int]) -> None:
        self._learn(every)
        cut = self._read(numbers)
        if not len(cut.trace):
            return
        straddling = self._known.anywhere_but(numbers, _trace_keys(cut.hi, cut.lo))
        held_ids = self._held()
        held = np.zeros(len(cut.hi), bool)
        if held_ids:
            ids = zip(cut.hi.tolist(), cut.lo.tolist(), strict=True)
            held[:] = [hi << 64 | lo in held_ids for hi, lo in ids]
        aged = np.zeros(len(cut.chunks), bool)
        old = set(too_old)
        aged[:] = [chunk.id in old for chunk in cut.chunks]
        young = np.zeros(len(cut.hi), bool)  # has a span in the cut for size
        young[cut.trace[np.repeat(~aged, np.diff(cut.starts))]] = True
        stays = held.copy()
        stays |= _newest_first(straddling & ~stays, cut, int(self.cap * STRADDLING_SHARE))
        stays |= _newest_first(cut.worthy & young & ~stays, cut, int(self.cap * KEPT_SHARE))
        rows = stays[cut.trace]
        for trace in np.flatnonzero(stays & (cut.spans > MAX_CARRIED)).tolist():
            rows[np.flatnonzero(cut.trace == trace)[:-MAX_CARRIED]] = False
        gone, parts = self._divide(cut, rows)
        self._replace(gone, parts)
        self.evicted_spans += len(rows) - int(np.count_nonzero(rows))
        self.evicted_traces += int(np.count_nonzero(~stays & ~straddling))

    def _learn(self, every: Sequence[int]) -> None:
        """Know the traces of chunks that were there before us, or that another program wrote."""
        unknown = self._known.missing(every)
        for at in range(0, len(unknown), _BATCH):
            for chunk in self._database.index_rows(unknown[at : at + _BATCH]):
                self._known.add(chunk)

    def _read(self, numbers: Sequence[int]) -> _Cut:
        by_id: dict[int, Chunk] = {}
        for at in range(0, len(numbers), _BATCH):
            by_id.update((chunk.id, chunk) for chunk in self._database.index_rows(numbers[at : at + _BATCH]))
        chunks = [by_id[number] for number in numbers if number in by_id]
        sizes = {number: size for number, _, size in self._database.chunk_sizes()}
        counts = np.array([len(chunk.spans) for chunk in chunks], np.int64)
        starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
        if not starts[-1]:
            nothing = np.zeros(0, np.int64)
            return _Cut(chunks, nothing, starts, nothing, nothing, nothing, nothing, nothing, nothing)
        hi = np.concatenate([chunk.spans["trace_hi"] for chunk in chunks])
        lo = np.concatenate([chunk.spans["trace_lo"] for chunk in chunks])
        order = np.lexsort((lo, hi))
        new = np.concatenate(([True], (np.diff(hi[order]) != 0) | (np.diff(lo[order]) != 0)))
        trace = np.empty(len(hi), np.int64)
        trace[order] = np.cumsum(new) - 1
        first = order[new]
        traces = len(first)
        each = np.array([sizes.get(chunk.id, 0) / max(1, len(chunk.spans)) for chunk in chunks])
        worthy = np.zeros(traces, bool)
        worthy[trace[np.concatenate([_worthy(chunk) for chunk in chunks])]] = True
        newest = np.zeros(traces, np.int64)
        np.maximum.at(newest, trace, np.arange(len(trace)))
        return _Cut(
            chunks,
            trace,
            starts,
            hi[first],
            lo[first],
            np.bincount(trace, minlength=traces),
            np.bincount(trace, weights=np.repeat(each, counts), minlength=traces),
            worthy,
            newest,
        )

    def _divide(self, cut: _Cut, rows: Array) -> tuple[list[int], list[list[tuple[Chunk, Array]]]]:
        """Chunks to delete, and groups of what stays of them: each group becomes one chunk."""
        gone: list[int] = []
        groups: dict[str, list[list[tuple[Chunk, Array]]]] = {}
        for chunk, start, end in zip(cut.chunks, cut.starts[:-1].tolist(), cut.starts[1:].tolist(), strict=True):
            kept = rows[start:end]
            if kept.all():
                self._known.kept.add(chunk.id)
                continue
            gone.append(chunk.id)
            if not kept.any():
                continue
            mine = groups.setdefault(chunk.source, [[]])
            last = mine[-1]
            spans = sum(int(np.count_nonzero(mask)) for _, mask in last) + int(np.count_nonzero(kept))
            if last and (spans > _MERGED_SPANS or chunk.received - last[0][0].received > _MERGED_NS):
                mine.append([])
            mine[-1].append((chunk, kept))
        return gone, [group for one in groups.values() for group in one if group]

    def _replace(self, gone: Sequence[int], groups: Sequence[list[tuple[Chunk, Array]]]) -> None:
        new: list[Chunk] = []
        for group in groups:
            parts: list[Part] = []
            size = 0
            for chunk, kept in group:
                body = self._database.whole_bodies([chunk.id], _gone).get(chunk.id)
                if body is None:
                    continue
                parts.append(Part(chunk, kept, body))
                size += len(body) * int(np.count_nonzero(kept)) // max(1, len(kept))
                if size > _MERGED_BYTES:
                    new.append(repack(parts))
                    parts, size = [], 0
            if parts:
                new.append(repack(parts))
        if not gone:
            return
        for chunk, number in zip(new, self._database.replace(gone, new), strict=True):
            chunk.id = number
            self._known.add(chunk)
            self._known.kept.add(number)
        self._known.forget(gone)


def _gone(chunk: int) -> None:
    """A request that is damaged cannot be carried over: it goes with the cut, or nothing could ever go again."""


def _newest_first(wanted: Array, cut: _Cut, budget: int) -> Array:
    """Of the wanted traces those that fit into so many bytes, by their newest span."""
    at = np.flatnonzero(wanted)
    at = at[np.argsort(-cut.newest[at], kind="stable")]
    share = np.minimum(cut.spans[at], MAX_CARRIED) / np.maximum(cut.spans[at], 1)
    fits = np.cumsum(cut.bytes[at] * share) <= budget
    chosen = np.zeros(len(wanted), bool)
    chosen[at[fits]] = True
    return chosen


def _worthy(chunk: Chunk) -> Array:
    """Spans of a chunk for whose sake their trace stays longer: they failed, or are slow requests. A watch is not
    slow, it is meant to last."""
    spans, facts = chunk.spans, chunk.facts
    failed = (spans["kind_status"] >> 4) == 2
    lasted = spans["end"].astype(np.int64) - spans["start"].astype(np.int64)
    slow = ((spans["flags"] & FLAG_REQUEST) != 0) & (lasted >= SLOW_NS) & (spans["start"] != 0)
    server = facts[facts["role"] == ROLE_SERVER]
    failed[server["row"][server["code"] >= 500]] = True
    watch = [number for number, text in enumerate(chunk.strings) if text == "watch"]
    slow[server["row"][np.isin(server["verb"], watch)]] = False
    worthy: Array = failed | slow
    return worthy


def _trace_keys(hi: Array, lo: Array) -> Array:
    """One 32-bit number a trace. Where two traces share one, the elder may stay without need: no harm."""
    with np.errstate(over="ignore"):
        keys: Array = (((hi * np.uint64(_MIX)) ^ lo) * np.uint64(_MIX) >> np.uint64(32)).astype(np.uint32)
    return keys


_MIX: Final = 0x9E3779B97F4A7C15


class _Known:
    """Which traces the chunks hold. Several threads."""

    def __init__(self) -> None:
        self.kept: set[int] = set()
        """Chunks that hold only what was kept: to cut them frees little."""
        self._lock = threading.Lock()
        self._blocks: list[tuple[Array, Array, Array]] = []  # chunk ids, spans of each, keys by span
        self._fresh: list[tuple[int, Array]] = []

    def add(self, chunk: Chunk) -> None:
        keys = _trace_keys(chunk.spans["trace_hi"], chunk.spans["trace_lo"])
        with self._lock:
            self._fresh.append((chunk.id, keys))
            if len(self._fresh) >= 256:
                self._pack()

    def _pack(self) -> None:
        if self._fresh:
            ids = np.array([number for number, _ in self._fresh], np.int64)
            counts = np.array([len(keys) for _, keys in self._fresh], np.int64)
            self._blocks.append((ids, counts, np.concatenate([keys for _, keys in self._fresh])))
            self._fresh = []

    def missing(self, numbers: Sequence[int]) -> list[int]:
        """Those of these chunks that are not known."""
        with self._lock:
            self._pack()
            ids = np.concatenate([np.zeros(0, np.int64), *(block[0] for block in self._blocks)])
        wanted = np.array(numbers, np.int64)
        missing: list[int] = wanted[~np.isin(wanted, ids)].tolist()
        return missing

    def forget(self, numbers: Iterable[int]) -> None:
        gone = np.array(list(numbers), np.int64)
        with self._lock:
            self._pack()
            blocks = []
            for ids, counts, keys in self._blocks:
                stays = ~np.isin(ids, gone)
                if stays.all():
                    blocks.append((ids, counts, keys))
                elif stays.any():
                    blocks.append((ids[stays], counts[stays], keys[np.repeat(stays, counts)]))
            self._blocks = blocks
            self.kept.difference_update(gone.tolist())

    def anywhere_but(self, numbers: Sequence[int], keys: Array) -> Array:
        """Which of these keys are in a chunk that is none of these."""
        cut = np.array(numbers, np.int64)
        order = np.argsort(keys)
        wanted = keys[order]
        first = np.searchsorted(wanted, wanted)  # traces that share a key are found together
        likely = np.zeros(1 << 20, bool)  # by a key's first 20 bits: sorts out nearly all at 2 ns each
        likely[wanted >> np.uint32(12)] = True
        found = np.zeros(len(keys), bool)
        with self._lock:
            self._pack()
            blocks = list(self._blocks)
        for ids, counts, held in blocks:
            others = held[np.repeat(~np.isin(ids, cut), counts)]
            others = others[likely[others >> np.uint32(12)]]
            at = np.searchsorted(wanted, others)
            at[at == len(wanted)] = 0
            found[at[wanted[at] == others]] = True
        found[order] = found[first]
        return found
