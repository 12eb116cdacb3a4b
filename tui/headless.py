"""The commands that need no screen: traces, show, export, import, info. They read the same file as the TUI, whether a
receiver holds it or not. Each loads what it alone needs."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError

from receiver.control import ControlClient, ControlError, control_path, lock_path, log_path
from receiver.ingest.recordings import Seen, Taken, check, take
from receiver.recordings.complaints import Complaints
from receiver.store import files
from receiver.store.chunk import Chunk
from receiver.store.database import Database, DatabaseDamaged, DatabaseMissing, StoreError
from receiver.store.index import Index
from receiver.store.place import choose_database, default_place
from receiver.store.retention import Policy, Retention
from receiver.store.room import file_limit
from receiver.traces import pairing
from receiver.traces.bodies import Bodies
from receiver.traces.filter.nothing import explain_nothing
from receiver.traces.filter.scan import Scan
from receiver.traces.listing import rows
from receiver.traces.model import Span
from receiver.traces.query import Query, View, select, starting_with
from receiver.traces.reader import SPAN_CAP, load, spans_at, spans_of, summaries
from receiver.traces.verdict import judge
from tui import __version__
from tui.config import Settings, default_file, theme_directory
from tui.documents import dumps, raw_pieces, trace_document, trace_lines, walk
from tui.evictions import whose
from tui.printing import Paper, TraceList, heading_lines, paper, tree_lines, verdict_lines, warn
from tui.sender_limits import limited, taken
from tui.terminal_text import count, counted, printable, size

MAX_SPANS: Final = 500_000
"""Spans of one trace that `show --json` and `show --all` build a tree of, at about 1 KiB each; the rest is counted."""
MOST_LINES: Final = 2_000
"""Spans of one trace that `show` prints as text unless asked for all."""
_TREE_OF_RAW: Final = 5_000
_RAW_AT_ONCE: Final = 1_000
_AT_ONCE: Final = 500
_CHUNKS_AT_ONCE: Final = 64
_QUIET_NS: Final = 1_000_000_000
_PATIENCE_NS: Final = 10_000_000_000
_POLL_SECONDS: Final = 0.25
_PREFIX: Final = 4
_EVICTION_SECONDS: Final = 10.0
"""An import waits so long for a running receiver to evict what is above its cap."""
_ABOVE_CAP: Final = 1.05


class UnknownTrace(Exception):
    """No trace, or more than one, has this id; the text is one sentence for the operator."""


@contextmanager
def open_database(given: Path | None) -> Iterator[Database]:
    """The database that was named, or the default one, for reading.

    Raises:
        StoreError: there is none, or it cannot be read.
    """
    database = Database.read(given or default_place().database)
    try:
        yield database
    finally:
        database.close()


@dataclass(slots=True)
class Spans:
    """What a command reads, and the exit code that reading it makes: 1 when something of a recording was not taken."""

    database: Database
    code: int = 0


@contextmanager
def open_recordings(paths: Sequence[Path]) -> Iterator[Spans]:
    """Recordings in memory. What of them was not taken is said.

    Raises:
        StoreError: one cannot be read, or is none.
    """
    for path in paths:
        check(path)
    with closing(Database.memory()) as database:
        spans = Spans(database)
        for path in paths:
            told = Complaints()
            taken = take(path, database, told.add, arrived_now=False)
            for sentence in told.sentences():
                warn(sentence)
            if not taken.spans and not taken.bad and not taken.rejected:
                warn(f"{path}: there are no spans in it.")
            if not taken.whole:
                spans.code = 1
        yield spans


def load_index(database: Database) -> Index:
    """The index of everything in a database."""
    index = Index()
    extend(index, database)
    return index


def extend(index: Index, database: Database) -> None:
    """Take in what the database got since."""
    while chunks := database.read_after(index.last_chunk, _CHUNKS_AT_ONCE):
        try:
            index.extend(chunks)
        except (TypeError, ValueError, OverflowError) as error:  # SQLite's columns hold any type
            raise DatabaseDamaged(
                f"The database {database.path} is damaged ({error}): name another with --db, or move this one aside."
            ) from error


def traces(
    database: Database,
    query: Query,
    *,
    as_json: bool,
    limit: int | None,
    sort: str,
    reverse: bool,
) -> int:
    """Print a line per trace."""
    with database.moment():  # not while printing: a pager may stay open for days
        index = load_index(database)
        found = _attributes(database, query, index)
    view = View(query, None, False, False, sort, reverse)
    now = time.time_ns()
    slots = select(index, view, now, found=found).slots[:limit].tolist()
    if not slots:
        _say_why_nothing(query, index, now, found)
    _print_traces(index, slots, now, as_json, heading=True)
    return 0


def _attributes(database: Database, query: Query, index: Index) -> Scan | None:
    """What the bodies say about the attributes that a filter asks for, all of it; None when it asks for none."""
    if not query.attributes:
        return None
    scan = Scan(database, query.attributes, index)
    scan.run()
    return scan


def _say_why_nothing(query: Query, index: Index, now: int, found: Scan | None, where: str = "") -> None:
    """On standard error, which part of a filter matches nothing; nothing where it is no filter that does."""
    if query.text:
        said = explain_nothing(query, index, View(query, None, False, False, "start", False), now, found=found)
        if said is not None:
            warn(f"{where}{said.says}")


def _print_traces(index: Index, slots: Sequence[int], now: int, as_json: bool, heading: bool) -> None:
    lines = TraceList(paper(sys.stdout))
    if heading and not as_json and sys.stdout.isatty():
        print(lines.heading())
    paired = pairing.pairs(index)
    for at in range(0, len(slots), _AT_ONCE):
        some = slots[at : at + _AT_ONCE]
        listed = rows(index, some, now)
        if as_json:
            for row, other in zip(listed, pairing.paired_with(index, paired, some), strict=True):
                print(dumps(trace_document(row.summary, row.phases, other)))
        else:
            for row in listed:
                print(lines.line(row))


def follow(database: Database, query: Query, *, as_json: bool, limit: int | None) -> int:
    """Print what is there, oldest first, then each trace once when nothing came for it for a second (ten at most).

    Ends by Ctrl-C, or when nobody reads any more.
    """
    follower = _Follower(database)
    scan = _attributes(database, query, follower.index)
    first = True
    while True:
        due = follower.due(everything=first)
        now = time.time_ns()
        if due:
            if scan is not None:
                scan.follow(follower.index)
                scan.run()
            chosen = select(follower.index, View(query, None, False, False, "start", True), now, found=scan).slots
            slots = [slot for slot in chosen.tolist() if slot in due]
            _print_traces(follower.index, slots[-limit:] if first and limit else slots, now, as_json, heading=first)
            sys.stdout.flush()
        first = False
        time.sleep(_POLL_SECONDS)


class _Follower:
    """Knows which traces are new and have been quiet for long enough."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._generation = database.generation()
        self._waiting: dict[int, int] = {}  # slot -> when it was first seen
        self._printed = 0  # slots below this existed at the start
        self.index = load_index(database)

    def due(self, everything: bool) -> set[int]:
        self._catch_up()
        now = time.time_ns()
        if everything:
            self._printed = self.index.traces
            return set(range(self.index.traces))
        for slot in range(self._printed, self.index.traces):
            self._waiting[slot] = now
        self._printed = self.index.traces
        last = self.index.last_received
        due = {
            slot
            for slot, since in self._waiting.items()
            if now - int(last[slot]) >= _QUIET_NS or now - since >= _PATIENCE_NS
        }
        for slot in due:
            del self._waiting[slot]
        return due

    def _catch_up(self) -> None:
        generation = self._database.generation()
        if generation != self._generation:
            # Chunks were evicted. Slots are only good for one index, so what waits is carried over by its id.
            waiting = {self.index.trace_id(slot): since for slot, since in self._waiting.items()}
            old = {self.index.trace_id(slot) for slot in range(self._printed)}
            self.index, self._generation = load_index(self._database), generation
            self._waiting = {}
            for slot in range(self.index.traces):
                trace_id = self.index.trace_id(slot)
                if trace_id in waiting:
                    self._waiting[slot] = waiting[trace_id]
                elif trace_id not in old:
                    self._waiting[slot] = time.time_ns()
            self._printed = self.index.traces
        else:
            extend(self.index, self._database)


def hot(database: Database, query: Query, *, as_json: bool) -> int:
    """Print what is hot among the traces that a query selects."""
    from receiver.traces.hotspots import hot_spots
    from tui import hot_text

    with database.moment():
        index = load_index(database)
        known = _attributes(database, query, index)
    view, now = View(query, None, False, False, "start", False), time.time_ns()
    slots = select(index, view, now, found=known).slots
    if not len(slots):
        _say_why_nothing(query, index, now, known)
    found = hot_spots(index, view, now, slots=slots)
    if as_json:
        print(dumps(hot_text.document(found)))
    else:
        for line in hot_text.lines(found, paper(sys.stdout)):
            print(line)
    return 0


def compare(before: Path, after: Path, query: Query, *, as_json: bool, everything: bool) -> int:
    """Print which shapes of requests became slower or faster from one recording to another.

    Raises:
        StoreError: one of them cannot be read.
    """
    from receiver.traces.changes import changes
    from tui import comparison_text

    code = 0
    indexes, known = [], []
    for path in (before, after):
        with open_recordings([path]) as spans:
            code = code or spans.code
            indexes.append(load_index(spans.database))
            known.append(_attributes(spans.database, query, indexes[-1]))
    now = time.time_ns()
    for path, index, attributes in zip((before, after), indexes, known, strict=True):
        view = View(query, None, False, False, "start", False)
        if not len(select(index, view, now, live=False, found=attributes).slots):
            _say_why_nothing(query, index, now, attributes, f"{path}: ")
    found = changes(indexes[0], indexes[1], query, (known[0], known[1]))
    if as_json:
        for change in found:
            print(dumps(comparison_text.document(change)))
    else:
        for line in comparison_text.lines(found, paper(sys.stdout), everything):
            print(line)
    return code


def show(
    database: Database, wanted: Iterable[str] | None, *, as_json: bool, raw: bool, everything: bool = False
) -> int:
    """Print whole traces, all of them when none is named; as text the first `MOST_LINES` spans of each, or everything.
    One that is not there is said on standard error, and makes the exit code 1."""
    with database.moment():
        return _show(database, wanted, as_json, raw, everything)


def _show(database: Database, wanted: Iterable[str] | None, as_json: bool, raw: bool, everything: bool) -> int:
    index = load_index(database)
    bodies = Bodies(database)
    paired = pairing.pairs(index)
    page = paper(sys.stdout)
    code = 0
    first = True
    for text in map(index.trace_id, range(index.traces)) if wanted is None else wanted:
        try:
            slot = find_trace(index, text)
        except UnknownTrace as problem:
            warn(str(problem))
            code = 1
            continue
        waited = int(paired.before_requests(index.traces)[slot])
        if as_json:
            _show_json(index, slot, bodies, waited)
        elif raw:
            missing = _show_raw(index, slot, bodies)
            if missing > 0:
                warn(
                    f"The database {database.path} is damaged: {count(missing)} of {count(int(index.span_count[slot]))}"
                    f" spans of trace {index.trace_id(slot)} cannot be read and are left out."
                )
                code = 1
        else:
            if not first:
                print()
            for line in _text(index, slot, bodies, waited, page, everything):
                print(line)
        first = False
        sys.stdout.flush()
    return code


def _show_json(index: Index, slot: int, bodies: Bodies, waited: int) -> None:
    trace = load(index, index.trace_id(slot), time.time_ns(), MAX_SPANS)
    assert trace is not None
    for piece in trace_lines(trace, bodies, waited):
        sys.stdout.write(piece)
    sys.stdout.write("\n")
    if trace.left_out:
        warn(f"{count(trace.left_out)} of {count(trace.spans)} spans are in no tree: show --raw prints them all.")


def _show_raw(index: Index, slot: int, bodies: Bodies) -> int:
    """Print a trace as it was sent, a part of a large one after the other, and return how many spans of it are gone."""
    total = written = 0

    def parts() -> Iterator[dict[str, Any]]:
        nonlocal total, written
        for spans in _as_sent(index, slot):
            document = bodies.raw(spans)
            total += len(spans)
            written += _spans_in(document)
            yield document

    for piece in raw_pieces(parts(), sys.stdout.isatty()):
        sys.stdout.write(piece)
    return total - written


def _as_sent(index: Index, slot: int) -> Iterator[list[Span]]:
    """The spans of a trace: in the order of its tree, those of a large one in that of their arrival."""
    if index.span_count[slot] <= _TREE_OF_RAW:
        trace = load(index, index.trace_id(slot), time.time_ns(), _TREE_OF_RAW)
        yield [] if trace is None else [node.span for node in walk(trace.roots)]
        return
    with index.lock:
        rows, _ = spans_of(index, np.array([slot], np.int64))
    for at in range(0, len(rows), _RAW_AT_ONCE):
        with index.lock:
            spans = spans_at(index, rows[at : at + _RAW_AT_ONCE])
        yield spans


def _text(index: Index, slot: int, bodies: Bodies, waited: int, page: Paper, everything: bool) -> Iterator[str]:
    """A trace for people. What the index knows comes at once; of a trace that is too large to be judged in passing, no
    more is read than is printed."""
    now = time.time_ns()
    summary = summaries(index, [slot], now)[0]
    yield from heading_lines(summary, page)
    sys.stdout.flush()
    most = MAX_SPANS if everything else SPAN_CAP if summary.spans <= SPAN_CAP else MOST_LINES
    trace = load(index, summary.trace_id, now, most, first=True)
    assert trace is not None
    if not trace.left_out:
        yield from verdict_lines(judge(trace, bodies, authentication=waited).sentences, page)
    else:  # those that come first in the tree do not tell where the time went
        yield from verdict_lines(
            [f"It has too many spans to be judged{'' if everything else ': --all does it'}."], page
        )
    yield from tree_lines(trace, page, None if everything else MOST_LINES)


def _spans_in(document: dict[str, Any]) -> int:
    return sum(len(scope["spans"]) for resource in document["resourceSpans"] for scope in resource["scopeSpans"])


def ids_of(lines: Iterable[str]) -> Iterator[str]:
    """Trace ids from text: the first word of each line, as `traces` prints them, or the lines of `traces --json`."""
    for line in lines:
        text = line.strip()
        if text.startswith("{"):
            with suppress(ValueError):
                text = str(json.loads(text).get("trace_id", ""))
        if text:
            yield text.split()[0]


def find_trace(index: Index, text: str) -> int:
    """The slot of the one trace whose id begins with `text` (4 to 32 hex digits), or that a traceparent names.

    Raises:
        UnknownTrace: no such trace, several, or not an id.
    """
    given = text.strip().lower()
    parent = re.fullmatch(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}", given)  # W3C Trace Context
    given = parent[1] if parent else given
    shown = printable(text, 60)
    if not re.fullmatch(r"[0-9a-f]{4,32}", given):
        raise UnknownTrace(
            f"{shown!r} is not a trace id: give at least {_PREFIX} of its hex digits, as `traces` prints it."
        )
    slots = starting_with(index, given)
    if len(slots) == 0:
        raise UnknownTrace(f"There is no trace {shown} here: `k8s-trace-tui traces` lists those that are.")
    if len(slots) > 1:
        some = ", ".join(index.trace_id(int(slot)) for slot in slots[:3])
        raise UnknownTrace(
            f"{len(slots):,} traces begin with {shown} ({some}{', …' if len(slots) > 3 else ''}): give more digits."
        )
    return int(slots[0])


def export(database: Database, query: Query | None, to: Path | None) -> int:
    """Write the requests of all traces, or of those that a query selects, in order of arrival.

    Raises:
        FileProblem: it cannot be written there, or the database or a file that belongs to it is there.
    """
    if to is not None and database.path is not None and belongs(to, database.path):
        raise files.FileProblem(
            f"{to} is the database or belongs to it, and would be overwritten: name another with -o."
        )
    with database.moment():  # retention stores anew what it carries over, which would be missed
        return _export(database, query, to)


def belongs(path: Path, db: Path) -> bool:
    """Whether a path leads to a database or a file beside it, also through links of either kind."""
    real = Path(os.path.realpath(db))
    beside = [real.with_name(real.name + suffix) for suffix in ("", "-wal", "-shm", "-journal", ".commands")]
    for one in (*beside, lock_path(db), control_path(db), log_path(db)):
        if os.path.realpath(path) == os.path.realpath(one):
            return True
        with suppress(OSError):  # one of them is not there
            if os.path.samefile(path, one):
                return True
    return False


def _export(database: Database, query: Query | None, to: Path | None) -> int:
    index = load_index(database)
    wanted: set[bytes] | None = None
    ids = database.ids()
    if query is not None:
        found = _attributes(database, query, index)
        now = time.time_ns()
        slots = select(index, View(query, None, False, False, "start", False), now, found=found).slots
        if not len(slots):
            _say_why_nothing(query, index, now, found)
        wanted = {bytes.fromhex(index.trace_id(int(slot))) for slot in slots}
        rows = np.isin(index.slot, slots)
        ids = [int(chunk) for chunk in np.unique(index.chunk[rows])]
    spans = evicted = 0
    damaged: list[int] = []

    def requests() -> Iterator[bytes]:
        nonlocal spans, evicted
        for at in range(0, len(ids), _CHUNKS_AT_ONCE):
            some, before = ids[at : at + _CHUNKS_AT_ONCE], len(damaged)
            bodies = database.whole_bodies(some, damaged.append)
            evicted += len(some) - len(bodies) - (len(damaged) - before)
            for chunk in sorted(bodies):
                try:
                    body, kept = files.only(bodies[chunk], wanted)
                except DecodeError:
                    damaged.append(chunk)
                    continue
                spans += kept
                if kept:
                    yield body

    there = to is not None and os.path.lexists(to)
    written = files.write(to, requests())
    if to is not None:
        kept = f"Nothing is written: {to} stays as it was."
        warn(
            kept
            if there and not written
            else f"{counted(spans, 'span')} in {counted(written, 'request')} written to {to}."
        )
    if evicted:
        warn(
            f"Left out: {counted(evicted, 'request')}, evicted while this was written, which took longer than what is"
            " read can be kept as it was."
        )
    if damaged:
        lost = np.isin(index.chunk, damaged) if wanted is None else rows & np.isin(index.chunk, damaged)
        warn(
            f"The database {database.path} is damaged: {count(int(np.count_nonzero(lost)))} spans in"
            f" {counted(len(damaged), 'request')} cannot be read and are left out, all others are written."
        )
    return 1 if damaged or evicted else 0


def import_files(paths: Sequence[Path], given: Path | None, policy: Policy | None = None) -> int:
    """Put recordings into the database. Spans that are there already are not stored again.

    The file grows no larger than a receiver's would. A receiver that is at it has a policy of its own, which holds for
    all of the file: the import goes no faster than that one evicts.

    Straight into the file, also while a receiver holds it: SQLite's log takes a second writer between the receiver's
    commits, the recording keeps its name as its source, and no listener or certificate has to fit.
    """
    path, said = choose_database(given)
    if said:
        warn(said)
    database = Database.create(path)
    if database.said:
        warn(database.said)
    code = 0
    room = _Room(path, database, policy)
    try:
        for file in paths:
            told = Complaints()
            try:
                taken = take(file, database, told.add, arrived_now=True, seen=room.seen, stored=room.stored)
            except files.FileProblem as problem:
                told.add(str(problem))
                taken = None
            for sentence in told.sentences():
                warn(sentence)
            if taken is not None:
                print(f"{printable(str(file))}: {_taken(taken)}")
            if taken is None or not taken.whole:
                code = 1
        room.end()
    finally:
        database.close()
    return code


def _taken(taken: Taken) -> str:
    """What came of a recording, for people."""
    if not taken.spans and not taken.bad and not taken.rejected:
        return "no spans in it"
    said = f"{counted(taken.spans, 'span')} in {counted(taken.requests, 'request')}"
    if taken.known:
        all_ = taken.known == taken.spans
        said = f"{counted(taken.spans, 'span')}, {'all' if all_ else count(taken.known)} of them were already there"
    said += f", {counted(taken.other, 'line')} without spans" if taken.other else ""
    said += f", {counted(taken.bad, 'line')} skipped" if taken.bad else ""
    return said + (f", {counted(taken.rejected, 'span')} left out" if taken.rejected else "")


class _Room:
    """Keeps a database within its bounds while recordings go into it."""

    def __init__(self, path: Path, database: Database, policy: Policy | None) -> None:
        self.seen = Seen(database)
        self._path = path
        self._database = database
        self._retention = Retention(database, policy or Policy())
        self._client: ControlClient | None = None
        database.bound = (policy or Policy()).cap
        database.make_room = self._make_room
        with suppress(ControlError):
            self._client = ControlClient.connect(path)
            database.bound = int(self._client.request("status")["cap_bytes"])
            if policy is not None and policy != Policy():
                warn("A receiver is running and decides how much is kept: --max-size and --min-free have no effect.")

    def stored(self, chunks: Sequence[Chunk]) -> None:
        """Make room for the next."""
        self._retention.committed(chunks)
        self._settle()

    def _make_room(self, wanted: int) -> bool:
        """What is to be stored does not fit."""
        if not wanted:
            return False  # somebody reads for long
        if self._client is None:
            return self._retention.evict(wanted)
        until = time.monotonic() + _EVICTION_SECONDS  # the receiver looks every second
        while self._database.live_bytes() + wanted > file_limit(self._database.bound or 0):
            if time.monotonic() > until:
                return False
            time.sleep(0.1)
        return True

    def _settle(self) -> None:
        until = time.monotonic() + _EVICTION_SECONDS
        while self._client is not None and time.monotonic() < until:
            try:
                status = self._client.request("status")
            except ControlError:
                self._client.close()
                self._client = None
                break
            self._database.bound = int(status["cap_bytes"])
            if self._database.live_bytes() <= int(status["cap_bytes"]) * _ABOVE_CAP:
                return
            time.sleep(0.1)
        if self._client is None:
            self._retention.settle()

    def end(self) -> None:
        """Say what had to go."""
        if self._client is not None:
            self._client.close()
        if self._retention.evicted_spans:
            warn(
                f"{counted(self._retention.evicted_spans, 'span')}, the oldest first, were evicted to keep {self._path}"
                f" within {size(self._retention.cap)}: allow more with --max-size."
            )
        if self._retention.notice:
            warn(self._retention.notice)


def info(settings: Settings, config: Path | None) -> int:
    """Print version and every path in use."""
    from tui.clusters.force import groups, identity

    place = default_place()
    path = settings.db or place.database
    config = config or default_file()
    running, status = _receiver(path)
    rows = [
        ("version", __version__),
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("database", f"{path} ({_about(path)})"),
        ("lock", str(lock_path(path))),
        ("control socket", str(control_path(path))),
        ("receiver", running),
        *(("", one.words) for one in taken(status)),
        *([("held back", limited(status))] if limited(status) else []),
        ("receiver's log", str(log_path(path))),
        ("traced commands", str(groups.path_of(path))),
        ("log", str(place.log)),
        ("configuration", f"{config}{'' if os.path.exists(config) else ' (not there: defaults)'}"),
        ("themes", str(resources.files("themes"))),
        ("identities", str(identity.directory_of_all())),
        ("own themes", f"{theme_directory()}{'' if os.path.exists(theme_directory()) else ' (not there)'}"),
    ]
    if place.said and settings.db is None:
        rows.append(("note", place.said))
    for name, value in rows:
        print(f"{name:<15} {printable(value, 4096)}")
    return 0


def _about(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            return "not a file"
        database = Database.read(path)
    except DatabaseMissing:
        return "not there yet"
    except StoreError as problem:
        return str(problem)
    except OSError as problem:
        return f"cannot be read: {problem.strerror}"
    try:
        index = load_index(database)
        held = path.stat().st_size
        with suppress(OSError):  # the log holds the newest until it is folded in
            held += path.with_name(f"{path.name}-wal").stat().st_size
        return f"{size(held)}, {counted(index.spans, 'span')}, {counted(index.traces, 'trace')}"
    except StoreError as problem:
        return str(problem)
    except OSError as problem:
        return f"cannot be read: {problem.strerror}"
    finally:
        database.close()


def _lock_held(path: Path) -> os.stat_result | None:
    """The lock file of a receiver at work, perhaps another user's. Only looks: taking the lock, be it for a moment,
    could stop a receiver that starts."""
    try:
        found = lock_path(path).lstat()
        held = Path("/proc/locks").read_text("utf-8")
    except OSError:
        return None
    # "1: FLOCK  ADVISORY  WRITE 708 00:13:468 0 EOF" (proc_locks(5)); the device is the one below an overlay
    rows = [row.split() for row in held.splitlines()]
    mine = any(
        len(row) > 5 and row[1] == "FLOCK" and row[3] == "WRITE" and row[5].rsplit(":", 1)[-1] == str(found.st_ino)
        for row in rows
    )
    return found if mine else None


def _receiver(path: Path) -> tuple[str, dict[str, Any] | None]:
    """In words, and its status where it answers."""
    try:
        client = ControlClient.connect(path, 1.0)
    except ControlError:
        lock = _lock_held(path)
        if lock is None:
            return "not running", None
        return "running (not yours)" if lock.st_uid != os.geteuid() else "running, but it does not answer", None
    try:
        status: dict[str, Any] = client.request("status")
    except ControlError as problem:
        return str(problem), None
    finally:
        client.close()
    listening = ", ".join(f"{entry['name']} {entry['address']}" for entry in status["listeners"])
    evicted = f", has evicted of {told}" if (told := whose(status)) else ""
    return f"process {status['pid']}, listening on {listening or 'nothing'}{evicted}", status
