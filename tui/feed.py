"""The screens' only door to data: a thread that reads what arrived and publishes snapshots.

Everything that grows with the data happens in this thread. A screen takes the newest snapshot ten times a second and
asks for the few rows that it shows.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from receiver.store.database import Database, DatabaseMissing, StoreError
from receiver.store.index import RANK_REQUEST, Index
from receiver.traces import durations, links, pairing, pivots
from receiver.traces.filter.evaluate import warm
from receiver.traces.filter.scan import Progress, Scan
from receiver.traces.hops import webhooks_of
from receiver.traces.listing import Row, rows
from receiver.traces.query import Query, Selection, View, select, starting_with
from receiver.traces.reader import load, summaries

if TYPE_CHECKING:
    from receiver.traces.bodies import Bodies
    from receiver.traces.comparing import Comparison
    from receiver.traces.dots import Dots
    from receiver.traces.filter.complete import Completion
    from receiver.traces.hotspots import HotSpots
    from receiver.traces.links import Relation
    from receiver.traces.model import Span, Trace, TraceSummary
    from receiver.traces.pivots import Counted
    from receiver.traces.usual import Usual

SLICE: Final = 48
"""Chunks taken in at once: some 25,000 spans, so that nothing waits long for the index."""
TAIL: Final = 64
"""Newest chunks that are shown while the older ones are still being read."""
BUSY_PAUSE: Final = 0.2
"""Seconds between two looks at the file while spans arrive; each repaints the list, so more often costs a slow link."""
QUIET_PAUSE: Final = 0.25
RATE_WINDOW: Final = 10.0
"""Seconds that rates are taken over: exporters send every 5 s, so a shorter window would swing."""
WAIT_FOR_FILE: Final = 5.0
"""Seconds that a file may take to appear before that is called a problem: the receiver is making it."""
STATUS_EVERY: Final = 1.0

EVERYTHING: Final = View(
    query=Query.parse(""), window_ns=None, errors_only=False, hide_noise=False, sort="start", reverse=False
)
"""The view at the start: all, newest first."""


class Link(Protocol):
    """A connection to the receiver process."""

    @property
    def problem(self) -> str:
        """One sentence for the operator, or ""."""

    def status(self) -> dict[str, Any] | None:
        """Counters as the control socket gives them; None while there is no receiver."""

    def hold(self, traces: Sequence[str]) -> None:
        """Ask that these traces are not evicted."""

    def close(self) -> None:
        """Let the receiver go."""


@dataclass(frozen=True)
class Snapshot:
    """What is known at one moment. `selection` holds slots of `index`; the columns of `index` go on growing."""

    index: Index
    selection: Selection
    view: View
    spans: int = 0
    traces: int = 0
    spans_per_s: float = 0.0
    requests_per_s: float = 0.0
    status: dict[str, Any] | None = None
    problem: str = ""
    generation: int = 0
    loading: float | None = None
    """Share of the file that is read, until all of it is; None after that."""
    frozen: bool = False
    meanwhile: int = 0
    """Traces that came since the list was frozen."""
    last_arrival: int = 0
    """When the newest chunk was received, ns since the epoch; 0 for none."""
    sender_rates: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    """Spans per second by `sender_key`."""
    scan: Progress | None = None
    """How far the bodies are read for the attributes that the filter asks for; None when it asks for none."""


@dataclass(frozen=True)
class Compared:
    """Two requests beside one another; where `usual` is known, `other` is only an example of it."""

    one: TraceSummary
    other: TraceSummary
    comparison: Comparison
    usual: Usual | None = None


@dataclass
class _Rate:
    """Arrivals over the last seconds."""

    marks: deque[tuple[float, int, int]] = field(default_factory=deque)
    spans: int = 0
    requests: int = 0

    def add(self, spans: int, requests: int) -> None:
        self.spans += spans
        self.requests += requests

    def per_second(self, now: float) -> tuple[float, float]:
        marks = self.marks
        if not marks or now - marks[-1][0] >= 0.5:
            marks.append((now, self.spans, self.requests))
        while len(marks) > 1 and now - marks[1][0] >= RATE_WINDOW:
            marks.popleft()
        then, spans, requests = marks[0]
        seconds = max(now - then, 1.0)
        return (self.spans - spans) / seconds, (self.requests - requests) / seconds


class Feed:
    """Reads one database in the background."""

    def __init__(self, source: Path | Database, *, live: bool = True, link: Callable[[], Link] | None = None) -> None:
        """Nothing is opened before `start`.

        Args:
            source: the receiver's file, or a database that is open already.
            live: False for recordings: time stands still at the newest span.
            link: makes the connection to the receiver; called in a thread, may take its time.
        """
        self.live = live
        self._source = source
        self._make_link = link
        index = Index()
        nothing = np.zeros(0, np.int32)
        self.snapshot = Snapshot(index, Selection(nothing, 0, 0), EVERYTHING, loading=0.0)
        self._index = index
        self._view = EVERYTHING
        self._frozen = False
        self._frozen_at = 0
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._rate = _Rate()
        self._status: dict[str, Any] | None = None
        self._sender_rates: Mapping[tuple[str, ...], float] = {}
        self._link_problem = ""
        self._held: tuple[str, ...] = ()
        self._database: Database | None = None
        self._for_bodies: list[Database] = []  # the last one is in use; screens may still be reading the others
        self._bodies: Bodies | None = None
        self._threads: list[threading.Thread] = []
        self._scan: Scan | None = None
        self._scan_database: Database | None = None  # its own, where the source is a file
        self._seen = 0  # version of the scan that the selection has
        self._expecting = False

    @property
    def path(self) -> Path | None:
        """The file, None for what is only in memory."""
        return self._source.path if isinstance(self._source, Database) else self._source

    # -- for the application ----------------------------------------------------------------------------
    def start(self) -> None:
        """Begin to read."""
        self._threads = [threading.Thread(target=self._run, name="feed", daemon=True)]
        if self._make_link is not None:
            self._threads.append(threading.Thread(target=self._watch, name="feed-control", daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads and close what they opened."""
        self._ended.set()
        self._wake.set()
        for thread in self._threads:
            thread.join(timeout=3)
        self._end_scan()
        for database in self._for_bodies:
            database.close()

    def set_view(self, view: View) -> None:
        """Show something else; the next snapshot has it."""
        with self._lock:
            self._view = view
        self._wake.set()

    def expect_filter(self) -> None:
        """Somebody is about to filter: what takes its time at first is prepared from now on, in small steps."""
        self._expecting = True
        self._wake.set()

    def cancel_scan(self) -> None:
        """Read no more bodies for the filter that stands; what was found stays listed."""
        scan = self._scan
        if scan is not None:
            scan.cancel()
        self._wake.set()

    def freeze(self, on: bool) -> None:
        """Keep the list as it is, or let it run again. What arrives is still read and counted."""
        with self._lock:
            self._frozen = on
        self._wake.set()

    def now(self) -> int:
        """The moment that ages are taken from: the clock, or for recordings the newest arrival."""
        if self.live:
            return time.time_ns()
        return self.snapshot.last_arrival

    def rows(self, snapshot: Snapshot, indexes: Sequence[int]) -> list[TraceSummary]:
        """Summaries of these rows of a snapshot's selection; for a screenful."""
        return summaries(snapshot.index, self._slots(snapshot, indexes), self.now(), live=self.live)

    def lines(self, snapshot: Snapshot, indexes: Sequence[int]) -> list[Row]:
        """The same with where their time went; for a screenful."""
        return rows(snapshot.index, self._slots(snapshot, indexes), self.now(), live=self.live)

    @staticmethod
    def _slots(snapshot: Snapshot, indexes: Sequence[int]) -> list[int]:
        return [int(snapshot.selection.slots[index]) for index in indexes]

    def summary(self, trace_id: str) -> TraceSummary | None:
        """One trace's summary, None when it is not held."""
        index = self._index
        slot = index.slot_of(trace_id)
        if slot is None:
            return None
        return summaries(index, [slot], self.now(), live=self.live)[0]

    def version(self, trace_id: str) -> int:
        """Changes when the trace grew; -1 when it is not held."""
        index = self._index
        slot = index.slot_of(trace_id)
        return -1 if slot is None else int(index.span_count[slot])

    def trace(self, trace_id: str) -> Trace | None:
        """The whole trace, built. Takes its time with a big one: call it in a worker thread."""
        return load(self._index, trace_id, self.now(), live=self.live)

    def linked(self, trace_id: str) -> int:
        """How many spans link from this trace or to it. For a worker thread."""
        return links.count(self._index, trace_id)

    def relations(self, trace_id: str, span: Span) -> list[Relation]:
        """The links of a trace in both directions, those of a span first. For a worker thread.

        Raises:
            StoreError: the file cannot be read.
        """
        return links.relations(self._index, self.bodies, trace_id, self.now(), span=span, live=self.live)

    def complete(self, text: str, cursor: int) -> Completion:
        """What may stand at the cursor of a filter, with counts. For a worker thread."""
        from receiver.traces.filter.complete import complete

        return complete(text, cursor, self._index, self.snapshot.view, self.now(), live=self.live)

    def why_nothing(self, query: Query) -> str:
        """Which part of a filter matches nothing, in one sentence; "" where it does match. For a worker thread."""
        from receiver.traces.filter.nothing import explain_nothing

        found = explain_nothing(query, self._index, self.snapshot.view, self.now(), live=self.live, found=self._scan)
        return found.says if found is not None else ""

    def matching(self, trace_id: str) -> frozenset[str]:
        """Ids of the spans of a trace that the filter of the list speaks of. For a worker thread."""
        from receiver.traces.filter.inside import matching

        query = self.snapshot.view.query
        return matching(query, self._index, trace_id, self.now(), live=self.live, found=self._scan)

    def hot_spots(self, snapshot: Snapshot) -> HotSpots:
        """What takes the time among the traces of a snapshot. For a worker thread."""
        from receiver.traces.hotspots import hot_spots  # what the first frame does not wait for

        return hot_spots(snapshot.index, snapshot.view, self.now(), slots=snapshot.selection.slots)

    def dots(self, snapshot: Snapshot, width: int, height: int) -> Dots:
        """Latency over time of the traces of a snapshot, in so many cells. For a worker thread."""
        from receiver.traces.dots import dots, extent

        index, slots, view, now = snapshot.index, snapshot.selection.slots, snapshot.view, self.now()
        if view.between is not None:
            start, end = view.between
        elif view.window_ns is not None:
            start, end = now - view.window_ns, now
        else:
            start, end = extent(index, slots) or (now - 60_000_000_000, now)
        return dots(index, slots, width, height, start, end)

    def compare(self, one: str, other: str = "") -> Compared | None:
        """A trace beside another, or beside what is usual for its like in the window of the list. For a worker thread.

        Args:
            one, other: trace ids; "" for what is usual.

        Returns:
            None where one of them is not held, holds no request, or where nothing is usual.
        """
        from receiver.traces.comparing import compare, webhook_names
        from receiver.traces.usual import usual

        index, now = self._index, self.now()
        known = None
        if not other:
            slot = index.slot_of(one)
            known = usual(index, self.snapshot.view, slot, now) if slot is not None else None
            other = known.typical if known is not None else ""
        rows = self.summary(one), self.summary(other) if other else None
        traces = self.trace(one), self.trace(other) if other else None
        if traces[0] is None or traces[1] is None or rows[0] is None or rows[1] is None:
            return None
        found = compare(traces[0], traces[1], (webhook_names(index, one), webhook_names(index, other)), known)
        return Compared(rows[0], rows[1], found, known) if found is not None else None

    def pivots(self, trace_id: str, webhook_call: str = "") -> list[Counted]:
        """What a trace shares with others, counted; [] where it is not held. For a worker thread.

        Args:
            webhook_call: id of the `Call ... webhook` span whose webhook comes first; "" for none.
        """
        index, row = self._index, self.summary(trace_id)
        if row is None:
            return []
        webhook, _ = webhooks_of(index, trace_id).get(webhook_call, ("", ""))
        return pivots.counted(index, pivots.pivots(row, webhook), self.snapshot.view, self.now())

    def waited(self, trace_id: str) -> int:
        """Nanoseconds that the authentication of a request began before it, where that is a trace of its own and
        known; else 0. For `verdict.judge`."""
        index = self._index
        slot = index.slot_of(trace_id)
        if slot is None:
            return 0
        with index.lock:
            return int(pairing.waited(index, [slot])[0])

    def starting_with(self, digits: str, most: int) -> tuple[list[str], int]:
        """(the ids of the first `most` traces whose id starts with these hex digits, how many there are)."""
        index = self._index
        with index.lock:
            slots = starting_with(index, digits)
            return [index.trace_id(slot) for slot in slots[:most].tolist()], len(slots)

    @property
    def bodies(self) -> Bodies:
        """Attributes, events and links of spans. Reads through a connection of its own.

        Raises:
            StoreError: the file cannot be read.
        """
        from receiver.traces.bodies import Bodies  # with protobuf: 40 ms that the first frame does not wait for

        with self._lock:
            if self._bodies is None:
                if isinstance(self._source, Database):
                    database = self._source
                else:
                    database = Database.read(self._source)
                    self._for_bodies.append(database)
                self._bodies = Bodies(database)
            return self._bodies

    def hold(self, trace_ids: Iterable[str]) -> None:
        """These traces are open on a screen: the receiver shall not evict them."""
        self._held = tuple(sorted(trace_ids))

    # -- the reading thread -----------------------------------------------------------------------------
    def _run(self) -> None:
        patience = time.monotonic() + WAIT_FOR_FILE
        while not self._ended.is_set():
            try:
                if isinstance(self._source, Database):
                    self._database = self._source
                else:
                    self._database = Database.read(self._source)
                    with self._lock:
                        self._bodies = None  # it may be another file than before
                self._say("")
                self._follow(self._database)
            except DatabaseMissing as error:
                if self._make_link is None or time.monotonic() > patience:
                    self._say(str(error))
                self._pause(0.1)
            except StoreError as error:
                self._say(str(error))
                self._pause(1.0)
            except Exception as error:  # noqa: BLE001 - a defect must be seen, not leave a list that stands still
                self._say(f"Reading the spans failed ({type(error).__name__}: {error}); beginning anew.")
                self._pause(2.0)
            finally:
                if self._database is not None and self._database is not self._source:
                    self._database.close()
                self._database = None

    def _say(self, problem: str) -> None:
        if problem != self.snapshot.problem:
            self.snapshot = replace(self.snapshot, problem=problem)

    def _pause(self, seconds: float) -> None:
        self._wake.wait(seconds)
        self._wake.clear()

    def _follow(self, database: Database) -> None:
        self._index = Index()
        generation = self._load(database)
        next_select, selected = 0.0, (-1, -1)
        view = self.snapshot.view
        while not self._ended.is_set():
            generation, more = self._take(database, generation)
            with self._lock:
                wanted, frozen = self._view, self._frozen
            index, now = self._index, time.monotonic()
            content = (id(index), index.spans)
            if self._scan is not None and content != selected:
                self._scan.follow(index)
            passing = wanted.window_ns is not None or wanted.query.timed
            changed = content != selected or (passing and now >= next_select + 1) or self._found_more()
            if wanted != view or frozen != self.snapshot.frozen or (changed and now >= next_select):
                self._publish(index, wanted, frozen, generation, None)
                view, selected = wanted, content
                spent = time.monotonic() - now
                next_select = now + max(BUSY_PAUSE, 4 * spent)
            else:
                self._refresh(generation)
            preparing = self._expecting and not more and not warm(index, 1)
            scan = self._scan.progress if self._scan is not None else None
            busy = self.snapshot.spans_per_s or (scan is not None and not scan.done and not scan.cancelled)
            self._pause(0.0 if more else 0.02 if preparing else BUSY_PAUSE if busy else QUIET_PAUSE)

    def _load(self, database: Database) -> int:
        """Read the file from its start, showing its newest end meanwhile. Returns the generation."""
        last = database.last_id()
        generation, _ = database.poll(last, 1)
        recent = Index() if last > 2 * TAIL else None
        if recent is not None:
            generation, chunks = database.poll(last - TAIL, TAIL)
            recent.extend(chunks)
        shown = self._index if recent is None else recent
        full, first, next_look = self._index, 0, 0.0
        while not self._ended.is_set():
            newer, chunks = database.poll(full.last_chunk, SLICE)
            if newer != generation:
                generation, full = newer, self._drop(full, database)
                continue
            if not chunks:
                break
            first = first or chunks[0].id
            full.extend(chunks)
            now = time.monotonic()
            if now >= next_look:
                if recent is not None:
                    recent.extend(database.read_after(recent.last_chunk, SLICE))
                self._index = shown if recent is not None else full
                with self._lock:
                    view, frozen = self._view, self._frozen
                share = (full.last_chunk - first) / max(1, last - first)
                self._publish(self._index, view, frozen, generation, min(share, 0.99))
                next_look = time.monotonic() + 0.3
            time.sleep(0)  # the screen's thread first
        self._index = full
        self._rate = _Rate()
        with self._lock:
            view, frozen = self._view, self._frozen
        self._publish(full, view, frozen, generation, None)
        return generation

    def _take(self, database: Database, generation: int) -> tuple[int, bool]:
        """Take in what arrived. Returns the generation and whether there is more at once."""
        index = self._index
        newer, chunks = database.poll(index.last_chunk, SLICE)
        if newer != generation:
            self._index = self._drop(index, database)
            return newer, True
        if not chunks:
            return generation, False
        spans, requests = index.spans, _requests(index)
        index.extend(chunks)
        # Here, whoever looks next: a screen must not have to do it, and a frozen list selects nothing.
        durations.catch_up(index)
        pairing.catch_up(index)
        self._rate.add(index.spans - spans, _requests(index) - requests)
        return generation, len(chunks) == SLICE

    @staticmethod
    def _drop(index: Index, database: Database) -> Index:
        gone = set(index.chunk_id.tolist()).difference(database.ids())
        return index.without(gone) if gone else index

    def _publish(self, index: Index, view: View, frozen: bool, generation: int, loading: float | None) -> None:
        """A new snapshot with the selection made anew, or kept when the list is frozen."""
        old = self.snapshot
        found = self._scan_of(index, view.query)
        kept = frozen and old.frozen and view == old.view and not self._found_more()
        self._seen = found.version if found is not None else 0
        if kept:
            selection = old.selection if index is old.index else _carry_over(old, index)
        else:
            moment = time.time_ns() if self.live else _newest(index)
            selection = select(index, view, moment, live=self.live, found=found)
            if frozen and old.frozen:  # another order or filter of what is frozen, nothing newer
                came = index.first_received[selection.slots] > self._frozen_at
                selection = replace(selection, slots=selection.slots[~came])
            else:
                self._frozen_at = _newest(index)
        self.snapshot = replace(
            self._measured(old, index, generation),
            index=index,
            selection=selection,
            view=view,
            loading=loading,
            frozen=frozen,
            meanwhile=self._meanwhile(index) if frozen else 0,
        )

    def _scan_of(self, index: Index, query: Query) -> Scan | None:
        """What reads the bodies for a filter, where it needs that. One that asks for the same attributes goes on."""
        asked = query.attributes
        if self._scan is not None and self._scan.attributes != asked:
            self._end_scan()
        if not asked:
            return None
        if self._scan is None:
            database = self._source if isinstance(self._source, Database) else Database.read(self._source)
            self._scan_database = None if database is self._source else database
            self._scan = Scan(database, asked, index)
            self._scan.start()
        else:
            self._scan.follow(index)
        return self._scan

    def _end_scan(self) -> None:
        scan, self._scan = self._scan, None
        database, self._scan_database = self._scan_database, None
        if scan is not None:
            scan.cancel()
            scan.join(2)
        if database is not None:
            database.close()

    def _found_more(self) -> bool:
        return self._scan is not None and self._scan.version != self._seen

    def _refresh(self, generation: int) -> None:
        """A new snapshot when only the figures around the list changed."""
        old = self.snapshot
        new = self._measured(old, old.index, generation)
        if old.frozen:
            new = replace(new, meanwhile=self._meanwhile(old.index))
        if new != old:
            self.snapshot = new

    def _meanwhile(self, index: Index) -> int:
        """Traces that began to arrive after the list was frozen; not by counting, since evicted ones leave."""
        return int(np.count_nonzero(index.first_received > self._frozen_at))

    def _measured(self, old: Snapshot, index: Index, generation: int) -> Snapshot:
        spans_per_s, requests_per_s = self._rate.per_second(time.monotonic()) if self.live else (0.0, 0.0)
        return replace(
            old,
            spans=index.spans,
            traces=index.traces,
            spans_per_s=spans_per_s,
            requests_per_s=requests_per_s,
            status=self._status,
            sender_rates=self._sender_rates,
            problem=self._link_problem or (self._scan.problem if self._scan is not None else ""),
            scan=self._scan.progress if self._scan is not None else None,
            generation=generation,
            last_arrival=_newest(index),
        )

    # -- the thread that talks to the receiver ------------------------------------------------------------
    def _watch(self) -> None:
        assert self._make_link is not None
        link: Link | None = None
        held: tuple[str, ...] = ()
        marks: deque[tuple[float, dict[tuple[str, ...], int]]] = deque()
        while not self._ended.is_set():
            try:
                if link is None:
                    link, held = self._make_link(), ()
                status = link.status()
                self._sender_rates = _sender_rates(marks, status)
                self._status = status
                self._link_problem = link.problem or _banner(self._status)
                if held != self._held:
                    held = self._held
                    link.hold(held)
            except (OSError, RuntimeError, StoreError) as error:
                self._link_problem = str(error)
                link = None
            except Exception as error:  # noqa: BLE001 - a defect must be seen, not leave counters that stand still
                self._link_problem = f"Asking the receiver failed ({type(error).__name__}: {error}); trying again."
                link = None
            self._ended.wait(STATUS_EVERY)
        if link is not None:
            link.close()


def _banner(status: dict[str, Any] | None) -> str:
    return str(status.get("message") or "") if status else ""


def sender_key(sender: Mapping[str, Any]) -> tuple[str, ...]:
    """Who a sender of the receiver's status is."""
    return tuple(str(sender.get(part, "")) for part in ("peer", "service", "instance", "source"))


def _sender_rates(
    marks: deque[tuple[float, dict[tuple[str, ...], int]]], status: dict[str, Any] | None
) -> Mapping[tuple[str, ...], float]:
    """Spans per second of each sender over the last seconds; `marks` is what it remembers."""
    senders = (status or {}).get("senders")
    now = time.monotonic()
    counted = {sender_key(one): int(one.get("spans", 0)) for one in senders} if isinstance(senders, list) else {}
    marks.append((now, counted))
    while len(marks) > 1 and now - marks[1][0] >= RATE_WINDOW:
        marks.popleft()
    then, before = marks[0]
    if len(marks) < 2:
        return {}
    return {key: (spans - before.get(key, 0)) / max(1.0, now - then) for key, spans in counted.items()}


def _requests(index: Index) -> int:
    return int(np.count_nonzero(index.head_rank == RANK_REQUEST))


def _newest(index: Index) -> int:
    received = index.chunk_received
    return int(received[-1]) if len(received) else 0


def _carry_over(old: Snapshot, index: Index) -> Selection:
    """A frozen selection's slots in a new index; traces that are gone are left out."""
    slots = old.selection.slots
    kept = index.slots_of(old.index.id_hi[slots], old.index.id_lo[slots])
    return Selection(kept[kept >= 0], old.selection.hidden_noise, old.selection.total)
