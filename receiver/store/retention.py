"""What is thrown away when the file is as large or as old as it may be.

Each sender has a share (`shares`): what must go is taken from those who have most, so nobody's spans go because
somebody else sends much. The spans of a trace that one sender sent go together, the oldest first, whatever other
senders put into the same trace. The oldest chunks of a sender that together free what it must give are the cut. Of a
trace of the cut a sender's spans stay, all of them, when

- the sender has spans of it in a younger chunk, or
- somebody has it open (`held`), or
- they failed or took a second or longer,

each as long as that takes no more than a part of the sender's own share (a quarter, a half, a tenth), the newest
first. A trace with spans of several services goes with the service that has most of them.

A chunk of the cut whose spans all stay is left alone; the spans that stay of the others move into a new chunk. So that
a trace id that is used for hours is not carried along for ever, no more than `MAX_CARRIED` spans of it are, the newest.
Everything that goes is counted, by sender too.

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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.chunk import FLAG_REQUEST, ROLE_SERVER, Chunk
from receiver.store.database import Database, DatabaseDamaged, DatabaseMoved, StoreError
from receiver.store.repack import Part, repack, split
from receiver.store.room import file_limit, full_at, piece_bytes
from receiver.store.shares import Evicted, Sender, Shares, sender_of

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
"""Of what a sender has: for failed and slow traces that would have gone."""
STRADDLING_SHARE: Final = 0.25
HELD_SHARE: Final = 0.5
SLOW_NS: Final = 1_000_000_000
MOST_AT_ONCE: Final = 64 << 20
"""Bytes of a cut, or STEP of the cap if that is more: what is looked at for a cut is in memory."""
SHRINK_ABOVE: Final = 1.1
"""Of what the disk lets us have: a file this large is made smaller."""
_SHRINK_STEP: Final = 1 << 20  # bytes: some 10 ms in which nothing else can be written
_SHRINK_PAUSE: Final = 0.02
_TICK_SECONDS: Final = 1.0
_BATCH: Final = 64
_MERGED_SPANS: Final = 20_000
_DELETED: Final = 256
"""Chunks of a transaction: each changes a page, which goes through the log."""
_ROOM_SECONDS: Final = 2.0
_TRIES: Final = 12  # each looks at twice as much
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
    senders: Array  # by chunk
    hi: Array  # by trace and sender, as all below: here that is called a trace
    lo: Array
    sender: Array
    group: Array  # of the service with most of its spans
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
        self.evicted = Evicted()
        self.problem = ""
        self.notice = ""
        self._database = database
        self._policy = policy
        self._held = held
        self._clock = clock
        self._shares = Shares()
        self._known = _Known(self._shares)
        self._oldest: int | None = None
        self._widen = 1.0
        self._stopping = threading.Event()
        self._poke = threading.Event()
        self._turn = threading.Condition()
        self._turns = 0
        self._wanted = 0
        self._pressed = False  # somebody waits for room

    def committed(self, chunks: Sequence[Chunk]) -> None:
        """These chunks were stored. Called by the writer's thread: cheap."""
        for chunk in chunks:
            self._known.add(chunk)

    def make_room(self, wanted: int) -> bool:
        """Have so many bytes evicted, and wait for that a moment; for `Database.make_room`, from another thread than
        this one. Whether it is worth another try."""
        if not wanted:
            return False
        with self._turn:
            self._wanted = max(self._wanted, wanted)
            turns = self._turns
            self._poke.set()
            return self._turn.wait_for(lambda: self._turns > turns or self._stopping.is_set(), _ROOM_SECONDS)

    def stop(self) -> None:
        """End the thread; an eviction that has begun is finished."""
        self._stopping.set()
        self._poke.set()
        if self.is_alive():
            self.join(10.0)

    def run(self) -> None:
        """The thread's own."""
        wait = _TICK_SECONDS
        while not self._stopping.is_set():
            if wait:
                self._poke.wait(wait)
            self._poke.clear()
            wait = _TICK_SECONDS
            if self._stopping.is_set():
                return
            try:
                try:
                    if self.tick() and self.live_bytes > full_at(self.cap):
                        wait = 0.0  # far above a cap that was lowered
                finally:
                    self._tell()
                self._shrink()
                self.problem = ""
            except DatabaseDamaged as error:
                self.problem = str(error)
                self._stopping.wait(10.0)
            except DatabaseMoved:
                return  # the writer says so
            except StoreError as error:
                _log.warning("eviction failed: %s", error)  # a full disk: the writer says so; try again
            except Exception:  # noqa: BLE001 - without this thread the disk fills up
                _log.exception("eviction failed")
                self._stopping.wait(60.0)

    def _tell(self) -> None:
        """Whoever waits for room tries again."""
        with self._turn:
            self._turns += 1
            self._turn.notify_all()

    def settle(self) -> None:
        """Evict what is due now, for who has no thread of it.

        Raises:
            StoreError: the database cannot be changed.
        """
        in_vain = 0  # each look that finds nothing that may go reaches twice as far the next time
        while in_vain < _TRIES:
            in_vain = 0 if self.tick() else in_vain + 1
            if self.live_bytes <= full_at(self.cap):
                return

    def evict(self, wanted: int) -> bool:
        """As `make_room`, for who has no thread of it.

        Raises:
            StoreError: the database cannot be changed.
        """
        for _ in range(_TRIES):
            with self._turn:
                self._wanted = wanted
            if self.tick():
                return True
        return False

    def tick(self) -> bool:
        """Look, and evict if it is time. Whether something went.

        Raises:
            StoreError: the database cannot be changed.
        """
        self.live_bytes = self._database.live_bytes()
        self.cap = self._cap_now()
        self._database.bound = self.cap
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
        need = self._need()
        if not too_old and not need:
            return False
        rows = np.array(sizes or self._database.chunk_sizes(), np.int64).reshape(-1, 3)
        rows = rows[np.lexsort((rows[:, 0], rows[:, 1]))]
        self._learn(rows[:, 0].tolist())
        plan = self._plan(rows, need)
        cut = plan.cut | np.isin(rows[:, 0], np.array(list(too_old), np.int64))
        before = self.evicted_spans
        if cut.any():
            self._evict(rows[cut], too_old, plan)
        self._oldest = None
        had, self.live_bytes = self.live_bytes, self._database.live_bytes()
        # When most of the cut had to stay, the next one reaches further.
        stayed = (self.live_bytes > full_at(self.cap) or self._pressed) and had - self.live_bytes < need // 2
        self._widen = min(self._widen * 2, 1e6) if stayed else 1.0
        return self.evicted_spans > before

    def _need(self) -> int:
        """Bytes that must go."""
        with self._turn:
            wanted, self._wanted = self._wanted, 0
        self._pressed = wanted > 0
        full = full_at(self.cap)
        need = self.live_bytes - full + int(self.cap * STEP) if self.live_bytes > full else 0
        if wanted:
            need = max(need, self.live_bytes + wanted + wanted // 8 - file_limit(self.cap))
        return max(0, min(need, max(MOST_AT_ONCE, int(self.cap * STEP))))

    def _plan(self, rows: Array, need: int) -> _Plan:
        """Which chunks to look at, and what each group has to give.

        Args:
            rows: number, time and bytes of all chunks, oldest first.
        """
        entries = self._known.entries(rows[:, 0], _on_disk(rows[:, 2]))
        groups, group_of = np.unique(entries.group, return_inverse=True)
        usage = np.bincount(group_of, weights=entries.bytes, minlength=len(groups))
        gifts, shares = self._shares.gifts(groups, usage, need)
        cut = np.zeros(len(rows), bool)
        kept = self._known.holds(rows[:, 0], self._known.kept)
        owner = entries.owner(len(rows))
        for at in np.flatnonzero(gifts > 0).tolist():
            mine = np.flatnonzero(group_of == at)
            mine = mine[np.argsort(entries.place[mine], kind="stable")]
            places = entries.place[mine]
            reached = np.cumsum(np.where(kept[places], 0.0, entries.bytes[mine]))
            cut[places[: int(np.searchsorted(reached, self._widen * gifts[at])) + 1]] = True
        # What the same senders sent with it, as long as nobody looked at that already in vain.
        others = ~cut & ~kept & ~self._known.holds(rows[:, 0], self._known.spared)
        for sender in np.unique(owner[cut]).tolist():
            last = int(np.flatnonzero(cut & (owner == sender))[-1])
            cut[: last + 1] |= others[: last + 1] & (owner[: last + 1] == sender)
        return _Plan(cut, _by_group(groups, gifts), _by_group(groups, usage - gifts), self.cap / shares)

    def _shrink(self) -> None:
        """Give the disk back what the file has more than it may.

        Raises:
            StoreError: the file cannot be changed.
        """
        path = self._database.path
        if path is None or self.live_bytes > self.cap or not self._database.shrinks:
            return
        try:
            if path.stat().st_size <= min(self.cap * SHRINK_ABOVE, self._policy.cap):
                return
        except OSError:
            return  # moved away: the writer sees it
        while not self._stopping.wait(_SHRINK_PAUSE):
            if not self._database.shrink(_SHRINK_STEP) or self._database.size <= file_limit(self.cap):
                self._database.checkpoint()
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
    def _evict(self, chosen: Array, too_old: Iterable[int], plan: _Plan) -> None:
        numbers = chosen[:, 0].tolist()
        cut = self._read(numbers, dict(zip(numbers, _on_disk(chosen[:, 2]).tolist(), strict=True)))
        if not len(cut.trace):
            return
        straddling = self._known.anywhere_but(numbers, _trace_keys(cut.hi, cut.lo, cut.sender))
        held_ids = self._held()
        held = np.zeros(len(cut.hi), bool)
        if held_ids:
            ids = zip(cut.hi.tolist(), cut.lo.tolist(), strict=True)
            held[:] = [hi << 64 | lo in held_ids for hi, lo in ids]
        old = set(too_old)
        aged = np.array([chunk.id in old for chunk in cut.chunks], bool)
        young = np.zeros(len(cut.hi), bool)  # has a span in the cut for size
        young[cut.trace[np.repeat(~aged, np.diff(cut.starts))]] = True
        gifts = np.array([plan.gifts.get(group, 0.0) for group in cut.group.tolist()])
        left = np.array([plan.left.get(group, 0.0) for group in cut.group.tolist()])
        left = np.where(gifts > 0, left, np.maximum(left, plan.share))
        stays = _newest_first(held, cut, cut.sender, np.full(len(held), plan.share * HELD_SHARE))
        stays |= _newest_first(straddling & ~stays, cut, cut.group, left * STRADDLING_SHARE)
        stays |= _newest_first(cut.worthy & young & ~stays, cut, cut.group, left * KEPT_SHARE)
        goes = ~stays & (~young | _oldest_first(~stays & young, cut, gifts))
        rows = ~goes[cut.trace]
        for trace in np.flatnonzero(stays & (cut.spans > MAX_CARRIED)).tolist():
            rows[np.flatnonzero(cut.trace == trace)[:-MAX_CARRIED]] = False
        lost = np.bincount(cut.trace[~rows], minlength=len(goes))
        whole_traces = goes & ~straddling
        gone, parts = self._divide(cut, rows, stays, gifts == 0)
        self._replace(gone, parts)
        self.evicted_spans += int(lost.sum())
        self.evicted_traces += int(np.count_nonzero(whole_traces))
        for sender in np.unique(cut.sender).tolist():
            mine = cut.sender == sender
            name = self._shares.name(sender)
            self.evicted.add(name, int(lost[mine].sum()), int(np.count_nonzero(whole_traces[mine])))
        self._known.forget_senders()

    def _learn(self, every: Sequence[int]) -> None:
        """Know the traces of chunks that were there before us, or that another program wrote."""
        unknown = self._known.missing(every)
        for at in range(0, len(unknown), _BATCH):
            for chunk in self._database.index_rows(unknown[at : at + _BATCH]):
                self._known.add(chunk)

    def _read(self, numbers: Sequence[int], sizes: Mapping[int, int]) -> _Cut:
        by_id: dict[int, Chunk] = {}
        for at in range(0, len(numbers), _BATCH):
            by_id.update((chunk.id, chunk) for chunk in self._database.index_rows(numbers[at : at + _BATCH]))
        chunks = [by_id[number] for number in numbers if number in by_id]
        counts = np.array([len(chunk.spans) for chunk in chunks], np.int64)
        starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
        found = [self._shares.of(chunk) for chunk in chunks]
        senders = np.array([sender for sender, _ in found], np.int64)
        if not starts[-1]:
            nothing = np.zeros(0, np.int64)
            return _Cut(chunks, nothing, starts, senders, *[nothing] * 8)
        hi = np.concatenate([chunk.spans["trace_hi"] for chunk in chunks])
        lo = np.concatenate([chunk.spans["trace_lo"] for chunk in chunks])
        owner = np.repeat(senders, counts)
        order = np.lexsort((lo, hi, owner))
        ends = [np.diff(column[order]) != 0 for column in (owner, hi, lo)]
        new = np.concatenate(([True], ends[0] | ends[1] | ends[2]))
        trace = np.empty(len(hi), np.int64)
        trace[order] = np.cumsum(new) - 1
        first = order[new]
        traces = len(first)
        group = np.concatenate([of[chunk.spans["resource"]] for chunk, (_, of) in zip(chunks, found, strict=True)])
        each = np.array([sizes.get(chunk.id, 0) / max(1, len(chunk.spans)) for chunk in chunks])
        worthy = np.zeros(traces, bool)
        worthy[trace[np.concatenate([_worthy(chunk) for chunk in chunks])]] = True
        newest = np.zeros(traces, np.int64)
        np.maximum.at(newest, trace, np.arange(len(trace)))
        return _Cut(
            chunks,
            trace,
            starts,
            senders,
            hi[first],
            lo[first],
            owner[first],
            _commonest(trace, group, traces),
            np.bincount(trace, minlength=traces),
            np.bincount(trace, weights=np.repeat(each, counts), minlength=traces),
            worthy,
            newest,
        )

    def _divide(
        self, cut: _Cut, rows: Array, stays: Array, spared: Array
    ) -> tuple[list[int], list[list[tuple[Chunk, Array]]]]:
        """Chunks to delete, and groups of what stays of them, by who sent it: each group becomes one chunk.

        Args:
            rows: spans that stay.
            stays, spared: traces, which stay for a reason of their own, or because nothing of their group must go.
        """
        gone: list[int] = []
        groups: dict[tuple[str, str, Sender], list[list[tuple[Chunk, Array]]]] = {}
        for chunk, start, end in zip(cut.chunks, cut.starts[:-1].tolist(), cut.starts[1:].tolist(), strict=True):
            kept = rows[start:end]
            if kept.all():
                traces = cut.trace[start:end]
                if stays[traces].all():
                    self._known.kept.add(chunk.id)
                elif (stays | spared)[traces].all():
                    self._known.spared.add(chunk.id)
                continue
            gone.append(chunk.id)
            if not kept.any():
                continue
            name = (chunk.source, chunk.sender, sender_of(chunk.source, chunk.sender, chunk.peer))
            mine = groups.setdefault(name, [[]])
            last = mine[-1]
            spans = sum(int(np.count_nonzero(mask)) for _, mask in last) + int(np.count_nonzero(kept))
            if last and (spans > _MERGED_SPANS or chunk.received - last[0][0].received > _MERGED_NS):
                mine.append([])
            mine[-1].append((chunk, kept))
        return gone, [group for one in groups.values() for group in one if group]

    def _replace(self, gone: Sequence[int], groups: Sequence[list[tuple[Chunk, Array]]]) -> None:
        """In transactions that the log has room for: first what goes wholly, so that there is room for the rest."""
        moves = {chunk.id for group in groups for chunk, _ in group}
        wholly = [number for number in gone if number not in moves]
        for at in range(0, len(wholly), _DELETED):
            self._exchange(wholly[at : at + _DELETED], [])
        most = piece_bytes(self._database.bound)
        for group in groups:
            parts: list[Part] = []
            sources: list[int] = []
            size = 0
            for chunk, kept in group:
                sources.append(chunk.id)
                body = self._database.whole_bodies([chunk.id], _gone).get(chunk.id)
                if body is None:
                    continue
                parts.append(Part(chunk, kept, body))
                size += len(body) * int(np.count_nonzero(kept)) // max(1, len(kept))
                if size > most or len(sources) >= _DELETED:
                    self._exchange(sources, [repack(parts)])
                    parts, sources, size = [], [], 0
            if sources:
                self._exchange(sources, [repack(parts)] if parts else [])

    def _exchange(self, gone: Sequence[int], new: Sequence[Chunk]) -> None:
        pieces = [piece for chunk in new for piece in split(chunk, piece_bytes(self._database.bound))]
        # Requests were stored whole once, however large: such a one is there twice for a moment, never not at all.
        for piece in pieces[1:]:
            self._stored(piece, self._database.replace([], [piece]))
        ids = self._database.replace(gone, pieces[:1])
        for piece in pieces[:1]:
            self._stored(piece, ids)
        self._known.forget(gone)

    def _stored(self, chunk: Chunk, ids: Sequence[int]) -> None:
        (chunk.id,) = ids
        self._known.add(chunk)


def _gone(chunk: int) -> None:
    """A request that is damaged cannot be carried over: it goes with the cut, or nothing could ever go again."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What to look at, by chunk, bytes that each group has to give and keeps, and those of a share."""

    cut: Array
    gifts: dict[int, float]
    left: dict[int, float]
    share: float


def _by_group(groups: Array, values: Array) -> dict[int, float]:
    return dict(zip(groups.tolist(), values.tolist(), strict=True))


def _on_disk(sizes: Array) -> Array:
    """Bytes of the file that chunks of so many bytes take: what is left of a page is lost where no other row fits."""
    payload = sizes + _ROW
    tail = np.where(payload > _LOCAL, (payload - _LEAST) % _OVERFLOW, payload)
    local = np.where(payload <= _LOCAL, payload, np.where(tail + _LEAST <= _LOCAL, tail + _LEAST, _LEAST))
    pages = -(-(payload - local) // _OVERFLOW)
    taken: Array = pages * _PAGE + _PAGE // np.maximum(1, _PAGE // (local + 16))
    return taken


_PAGE: Final = 8192
_OVERFLOW: Final = _PAGE - 4  # of a row in each further page; https://sqlite.org/fileformat2.html#b_tree_pages
_LOCAL: Final = _PAGE - 35
_LEAST: Final = (_PAGE - 12) * 32 // 255 - 23
_ROW: Final = 48


def _commonest(trace: Array, group: Array, traces: int) -> Array:
    """The group with most spans of each trace, of several the one that was there first."""
    pairs, counts = np.unique(np.stack((trace, group)), axis=1, return_counts=True)
    found = np.zeros(traces, np.int64)
    order = np.lexsort((-pairs[1], counts))
    found[pairs[0][order]] = pairs[1][order]
    return found


def _carried(cut: _Cut, at: Array) -> Array:
    """Bytes of traces that are carried over."""
    carried: Array = cut.bytes[at] * (np.minimum(cut.spans[at], MAX_CARRIED) / np.maximum(cut.spans[at], 1))
    return carried


def _reached(keys: Array, sizes: Array) -> Array:
    """Running sums of `sizes` within each run of equal `keys`."""
    total = np.cumsum(sizes)
    first = np.concatenate(([True], np.diff(keys) != 0)) if len(keys) else np.zeros(0, bool)
    before = np.where(first, total - sizes, 0)
    reached: Array = total - np.maximum.accumulate(before) if len(keys) else total
    return reached


def _newest_first(wanted: Array, cut: _Cut, key: Array, budget: Array) -> Array:
    """Of the wanted traces those that fit into so many bytes (`budget`, the same for all of a `key`), by their newest
    span."""
    at = np.flatnonzero(wanted)
    at = at[np.lexsort((-cut.newest[at], key[at]))]
    chosen = np.zeros(len(wanted), bool)
    chosen[at[_reached(key[at], _carried(cut, at)) <= budget[at]]] = True
    return chosen


def _oldest_first(wanted: Array, cut: _Cut, gifts: Array) -> Array:
    """Of the wanted traces those that go until their group has given what it has to (`gifts`, by trace), and no more:
    only who gives most may give a trace too many."""
    at = np.flatnonzero(wanted & (gifts > 0))
    at = at[np.lexsort((cut.newest[at], cut.group[at]))]
    chosen = np.zeros(len(wanted), bool)
    if len(at):
        reached = _reached(cut.group[at], cut.bytes[at])
        most = cut.group[at[int(np.argmax(gifts[at]))]]
        fits = reached <= gifts[at]
        fits |= (cut.group[at] == most) & (reached - cut.bytes[at] < gifts[at])
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


def _trace_keys(hi: Array, lo: Array, sender: int | Array) -> Array:
    """One 32-bit number for the spans of a trace that a sender sent. Where two share one, the elder may stay without
    need: no harm."""
    with np.errstate(over="ignore"):
        mixed = hi ^ np.asarray(sender, np.uint64) * np.uint64(_MIX)
        keys: Array = (((mixed * np.uint64(_MIX)) ^ lo) * np.uint64(_MIX) >> np.uint64(32)).astype(np.uint32)
    return keys


_MIX: Final = 0x9E3779B97F4A7C15


@dataclass(slots=True)
class _Entries:
    """Who has what: a row for each chunk and group in it."""

    place: Array  # of the chunk, among those asked for
    group: Array
    sender: Array
    bytes: Array

    def owner(self, chunks: int) -> Array:
        """The sender of each chunk."""
        owners = np.zeros(chunks, np.int64)
        owners[self.place] = self.sender
        return owners


class _Known:
    """Which traces the chunks hold, and who sent them. Several threads."""

    def __init__(self, shares: Shares) -> None:
        self.kept: set[int] = set()
        """Chunks that hold only what was kept for a reason of its own: to cut them frees little."""
        self.spared: set[int] = set()
        """Chunks that were looked at, and hold only what belongs to those who had to give nothing."""
        self._shares = shares
        self._lock = threading.Lock()
        self._blocks: list[tuple[Array, Array, Array, Array]] = []  # chunk ids, spans of each, keys by span, entries
        self._fresh: list[tuple[int, Array, list[tuple[int, int, int, int, int]]]] = []

    def add(self, chunk: Chunk) -> None:
        total = len(chunk.spans)
        with self._lock:  # so that a number is not forgotten before it is noted here
            sender, groups = self._shares.of(chunk)
            if len(groups) < 2:
                counted = [(int(groups[0]), total)] if len(groups) else []
            else:
                of_rows = np.bincount(chunk.spans["resource"], minlength=len(groups))
                own, at = np.unique(groups, return_inverse=True)
                counted = list(zip(own.tolist(), np.bincount(at, weights=of_rows).astype(int).tolist(), strict=True))
            entries = [(chunk.id, sender, group, spans, total) for group, spans in counted]
            keys = _trace_keys(chunk.spans["trace_hi"], chunk.spans["trace_lo"], sender)
            self._fresh.append((chunk.id, keys, entries))
            if len(self._fresh) >= 256:
                self._pack()

    def _pack(self) -> None:
        if self._fresh:
            ids = np.array([number for number, _, _ in self._fresh], np.int64)
            counts = np.array([len(keys) for _, keys, _ in self._fresh], np.int64)
            entries = np.array([one for _, _, some in self._fresh for one in some], np.int64).reshape(-1, 5)
            self._blocks.append((ids, counts, np.concatenate([keys for _, keys, _ in self._fresh]), entries))
            self._fresh = []

    def entries(self, numbers: Array, sizes: Array) -> _Entries:
        """Who has what of these chunks, of so many bytes each."""
        with self._lock:
            self._pack()
            every = np.concatenate([np.zeros((0, 5), np.int64), *(block[3] for block in self._blocks)])
        order = np.argsort(numbers)
        at = np.minimum(np.searchsorted(numbers, every[:, 0], sorter=order), max(0, len(numbers) - 1))
        place = order[at] if len(numbers) else at
        there = numbers[place] == every[:, 0] if len(numbers) else np.zeros(0, bool)
        every, place = every[there], place[there]
        share = every[:, 3] / np.maximum(1, every[:, 4])
        return _Entries(place, every[:, 2], every[:, 1], sizes[place] * share)

    def holds(self, numbers: Array, some: set[int]) -> Array:
        """Which of these chunks are in a set."""
        found: Array = np.isin(numbers, np.fromiter(some, np.int64, len(some)))
        return found

    def forget_senders(self) -> None:
        """Whoever has nothing here any more has no share."""
        with self._lock:
            self._pack()
            self._shares.forget_all_but(
                set().union(*(np.unique(entries[:, 2]).tolist() for _, _, _, entries in self._blocks))
            )

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
            for ids, counts, keys, entries in self._blocks:
                stays = ~np.isin(ids, gone)
                if stays.all():
                    blocks.append((ids, counts, keys, entries))
                elif stays.any():
                    left = entries[~np.isin(entries[:, 0], gone)]
                    blocks.append((ids[stays], counts[stays], keys[np.repeat(stays, counts)], left))
            self._blocks = blocks
            self.kept.difference_update(gone.tolist())
            self.spared.difference_update(gone.tolist())

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
        for ids, counts, held, _ in blocks:
            others = held[np.repeat(~np.isin(ids, cut), counts)]
            others = others[likely[others >> np.uint32(12)]]
            at = np.searchsorted(wanted, others)
            at[at == len(wanted)] = 0
            found[at[wanted[at] == others]] = True
        found[order] = found[first]
        return found
