"""What the screens have traced on demand: one GET or one command at a time, in threads, published as snapshots.

The event loop never waits for an API server, a command or a span: a screen takes the newest `Run` ten times a second,
as it does with `Feed`. What is run, how it is marked and how its spans are found is the same as for `trace -- COMMAND`.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from receiver.store.database import StoreError
from tui.clusters.model import ClusterError
from tui.terminal_text import count, printable

if TYPE_CHECKING:
    from receiver.traces.listing import Row
    from tui.clusters.force.asking import Answer, Ask
    from tui.clusters.force.child import Child, Output
    from tui.clusters.force.collected import Collector, Found
    from tui.clusters.force.credentials import Upstream
    from tui.clusters.force.groups import Group
    from tui.clusters.force.preconditions import Preconditions
    from tui.clusters.force.proxy import Proxy
    from tui.feed import Feed

NO_DATABASE: Final = "What is traced here is in memory only: start k8s-trace-tui without files to trace requests."
LOOK_EVERY: Final = 0.1
"""Seconds between two looks at a command that runs."""
SPANS_EVERY: Final = 0.25
"""Seconds between two looks for spans."""
_END_SECONDS: Final = 3.0
_LATER: Final = "they slot in here when they come later"


class Stage(Enum):
    """How far it is."""

    PREPARING = "preparing"  # who we are there, and what stands in the way
    RUNNING = "running"
    WAITING = "waiting"  # for spans
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Told:
    """A request as it came out: its list row where its trace is here, and what its verdict says."""

    found: Found
    row: Row | None
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """Something that is traced on demand, as it is now.

    `words` name it, printable and without option values; `context` is "" until it is known. `notes` are sentences on
    what stands in the way of a trace, said before; `ids` the traces that belong to it so far; `total` the requests that
    have begun, `arrived` those whose trace is here, `whole` those of which nothing is lacking. `requests` and `reasons`
    come at the end, with the `summary`. `code` is the command's exit code, or the status of the one GET; `problem` says
    why it was not begun, or what broke.
    """

    number: int
    words: str
    get: bool
    stage: Stage = Stage.PREPARING
    context: str = ""
    notes: tuple[str, ...] = ()
    ids: frozenset[str] = frozenset()
    total: int = 0
    arrived: int = 0
    whole: int = 0
    requests: tuple[Told, ...] = ()
    reasons: tuple[str, ...] = ()
    code: int | None = None
    answer: Answer | None = None
    output: Output | None = None
    summary: str = ""
    problem: str = ""

    @property
    def name(self) -> str:
        """Of its group in the list."""
        return f"{self.words} ({self.context})" if self.context else self.words

    @property
    def goes_on(self) -> bool:
        """Whether a command or request runs: spans may be waited for beside another."""
        return self.stage in (Stage.PREPARING, Stage.RUNNING)


class Busy(Exception):
    """Something is being traced; str() says what, and the way out without its key."""


class _Stoppable(Protocol):
    def stop(self) -> None: ...


class TracedRuns:
    """Everything that is traced from the screens of one program."""

    def __init__(
        self, feed: Feed, context: str = "", *, read_only: bool = False, none: str = "", seconds: float | None = None
    ) -> None:
        """Nothing is opened.

        Args:
            feed: whose database is looked into for spans.
            context: of the kubeconfig; "" the current one.
            read_only: commands that may change something are refused.
            none: why nothing can be traced here, a sentence; "" where it can.
            seconds: how long spans are waited for; None as long as `trace` does.
        """
        self._feed = feed
        self.context = context
        self.read_only = read_only
        self._none = none
        self._seconds = seconds
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._numbers = 0
        self._forgotten = 0  # number of a run that was stopped before it was begun
        self._stop = threading.Event()
        self._stoppable: _Stoppable | None = None
        self._threads: list[threading.Thread] = []
        self.closed = False
        """The program ends: nothing more is waited for."""

    @property
    def run(self) -> Run | None:
        """What was begun last, as it is now."""
        return self._run

    @property
    def none(self) -> str:
        """Why nothing can be traced here; "" where it can."""
        return self._none or ("" if self._feed.live and self._feed.path is not None else NO_DATABASE)

    def get(self, target: str) -> None:
        """Ask for a path of the API server, traced.

        Raises:
            NotAsked: it is none that is asked; Busy: something else runs.
        """
        from tui.clusters.force.asking import Ask, checked

        asked = Ask(checked(target))
        self._begin(_words_of(target), True, lambda run, stop: self._ask(run, stop, lambda: (asked, "")))

    def repeat(self, trace_id: str, words: str) -> None:
        """Make the request of a trace again, traced.

        Args:
            trace_id: of a trace that is held.
            words: what the request is, for people, until its URL is read.

        Raises:
            Busy: something else runs.
        """
        self._begin(words, True, lambda run, stop: self._ask(run, stop, lambda: self._known_of(trace_id)))

    def command(self, text: str) -> None:
        """Run a command with its requests traced; it has no terminal, and its output is kept.

        Raises:
            NotAsked: it is not run here; Busy: something else runs.
        """
        from tui.clusters.force import child
        from tui.clusters.force.asking import NotAsked
        from tui.clusters.force.groups import words_of

        command = child.words(text)
        why = child.refusal(command, read_only=self.read_only)
        if why:
            raise NotAsked(why)
        words = printable(words_of(command), 80)
        self._begin(words, False, lambda run, stop: self._execute(run, stop, command))

    def stop(self) -> bool:
        """Interrupt what runs, or end the wait for spans; False where there is nothing. Does not wait: what is still
        being asked is forgotten, whenever it is answered."""
        with self._lock:
            run = self._run
            if run is None or run.stage is Stage.ENDED:
                return False
            self._stop.set()
            if run.stage is Stage.PREPARING:
                self._forgotten = run.number
                del self._threads[-1:]  # nor is it waited for at the end: it holds nothing yet
                self._run = replace(run, stage=Stage.ENDED, problem=f"{run.words} was stopped before it was begun.")
            stoppable = self._stoppable
        if stoppable is not None:
            stoppable.stop()
        return True

    def close(self) -> None:
        """End everything, and wait a little for it."""
        self.closed = True
        end = time.monotonic() + _END_SECONDS
        with self._lock:
            threads = list(self._threads)
        while any(thread.is_alive() for thread in threads) and time.monotonic() < end:
            self.stop()  # the second time more firmly
            for thread in threads:
                thread.join(_END_SECONDS / 4)

    # -- in threads -------------------------------------------------------------------------------------
    def _begin(self, words: str, get: bool, work: Callable[[Run, threading.Event], None]) -> None:
        with self._lock:
            before = self._run
            if before is not None and before.goes_on:
                raise Busy(f"{before.words} is still {before.stage.value}")
            self._stop.set()  # of one that only waits
            self._stop, self._stoppable = stop, _ = threading.Event(), None
            self._numbers += 1
            self._run = run = Run(self._numbers, printable(words, 200), get)
            thread = threading.Thread(target=self._work, args=(work, run, stop), name="traced", daemon=True)
            self._threads = [*(one for one in self._threads if one.is_alive()), thread]
        thread.start()

    def _work(self, work: Callable[[Run, threading.Event], None], run: Run, stop: threading.Event) -> None:
        problem = ""
        try:
            work(run, stop)
        except (ClusterError, StoreError) as error:
            problem = str(error)
        except OSError as error:
            problem = f"{run.words} could not be traced ({error.strerror or error})."
        except Exception as error:  # noqa: BLE001 - the screen goes on and says it
            problem = f"A fault in tracing {run.words} ({type(error).__name__}: {error})."
        self._put(run.number, stage=Stage.ENDED, **({"problem": problem} if problem else {}))

    def _put(self, number: int, **what: Any) -> Run | None:
        """Change the run of that number, unless a newer one has been begun."""
        with self._lock:
            if self._run is None or self._run.number != number or number == self._forgotten:
                return None
            self._run = replace(self._run, **what)
            return self._run

    def _running(self, number: int, stoppable: _Stoppable | None = None, **what: Any) -> None:
        """From here on it can be interrupted, and is forgotten no more.

        Raises:
            NotAsked: it was stopped before.
        """
        from tui.clusters.force.asking import NotAsked

        with self._lock:
            if self._run is None or self._run.number != number or self._run.stage is not Stage.PREPARING:
                raise NotAsked("It was stopped before it was begun.")
            self._run, self._stoppable = replace(self._run, stage=Stage.RUNNING, **what), stoppable

    def _known_of(self, trace_id: str) -> tuple[Ask, str]:
        """(what a trace's request is, who served it).

        Raises:
            NotAsked: it is none that is repeated, or not held any more.
        """
        from tui.clusters.force.asking import NotAsked, again, why_not

        summary, trace = self._feed.summary(trace_id), self._feed.trace(trace_id)
        headline = trace.headline if trace is not None else None
        if summary is None or headline is None:
            raise NotAsked("That trace is not here any more.")
        if summary.request is None:
            raise NotAsked(why_not(None))
        body = self._feed.bodies.body(headline.span)
        return again(headline.span.name, body.attributes if body is not None else {}, summary.request), summary.instance

    def _ask(self, run: Run, stop: threading.Event, what: Callable[[], tuple[Ask, str]]) -> None:
        """One GET."""
        from tui.clusters.force.asking import Get, NotAsked, elsewhere
        from tui.clusters.force.groups import Group
        from tui.clusters.force.proxy import Proxy

        asked, instance = what()
        notes = [asked.remark] if asked.remark else []
        context, known, upstream = self._prepare(run.number, notes, stop)
        if instance and (why := elsewhere(instance, known.instances, context)):
            raise NotAsked(why)
        words = _words_of(asked.target)
        group = Group(secrets.token_hex(8), time.time_ns(), words)
        waiting = _Waiting(self, run.number, stop, known, group)
        with Proxy(upstream) as proxy:
            getting = Get(proxy, asked.target)
            self._running(run.number, getting, words=words)
            answer: list[Answer] = []
            thread = threading.Thread(target=lambda: answer.append(getting.run()), name="traced-get", daemon=True)
            thread.start()
            while thread.is_alive():
                thread.join(LOOK_EVERY)
                waiting.look(proxy)
        self._stoppable = None
        if answer:
            self._put(run.number, code=answer[0].code, answer=answer[0])
        waiting.for_spans(proxy)

    def _execute(self, run: Run, stop: threading.Event, command: Sequence[str]) -> None:
        """One command."""
        from tui import tracing
        from tui.clusters.force.command_cache import command_cache
        from tui.clusters.force.groups import Group
        from tui.clusters.force.kubeconfig import temporary_kubeconfig
        from tui.clusters.force.proxy import Proxy

        _, known, upstream = self._prepare(run.number, [], stop)
        group = Group(secrets.token_hex(8), time.time_ns(), run.words)
        waiting = _Waiting(self, run.number, stop, known, group)
        waiting.told_of = tracing.other_context(command, upstream.name)
        with (
            command_cache(upstream.name, upstream.url) as cache,
            Proxy(upstream, port=cache.port) as proxy,
            temporary_kubeconfig(proxy) as kubeconfig,
        ):
            cache.used(proxy.port)
            self._running(run.number)
            child = _started(command, tracing.environment(kubeconfig, cache.folder))
            self._stoppable = child
            if stop.is_set():
                child.stop()
            code = None
            while code is None:
                code = child.wait(LOOK_EVERY)
                waiting.look(proxy)
        self._stoppable = None
        stop.clear()  # what interrupted the command does not end the wait for what it had asked
        self._put(run.number, code=code, output=child.output())
        waiting.for_spans(proxy)

    def _prepare(self, number: int, notes: list[str], stop: threading.Event) -> tuple[str, Preconditions, Upstream]:
        """(context, what is known of it, the way there); what stands in the way is noted.

        Raises:
            ClusterError: it cannot be reached, or not with these credentials.
        """
        from tui import tracing
        from tui.clusters.doctor import ReceiverFindings
        from tui.clusters.force.asking import NotAsked
        from tui.clusters.force.first_spans import wait_for_first

        at = tracing.named(self.context)
        self._put(number, context=printable(at.context, 60))
        receiver = ReceiverFindings(self._feed.snapshot.status or {})
        known, upstream = tracing.prepare(at, receiver, notes.append)
        if known.problem and not known.version:
            raise NotAsked(known.problem)

        def note(sentence: str = "") -> None:
            notes.extend(filter(None, (sentence,)))
            self._put(number, notes=tuple(dict.fromkeys(notes)))

        note()
        if self._feed.path is not None:
            wait_for_first(self._feed.path, known, upstream, note, stop.is_set)
        return at.context, known, upstream


class _Waiting:
    """For the requests of one run, and then for their spans."""

    def __init__(
        self, runs: TracedRuns, number: int, stop: threading.Event, known: Preconditions, group: Group
    ) -> None:
        from tui.clusters.force.collected import WAIT, last_chunk

        assert runs._feed.path is not None
        self._runs, self._number, self._stop = runs, number, stop
        self._known, self._group = known, group
        self._path: Path = runs._feed.path
        self._seconds = WAIT if runs._seconds is None else runs._seconds
        self._since = last_chunk(self._path)
        self._said = (-1, -1)
        self.told_of = ""
        """Why the command finds no server: it names another context than the one that it has."""

    def look(self, proxy: Proxy) -> None:
        """Tell the requests so far."""
        total, seen = proxy.total, proxy.seen()
        if (total, len(seen)) != self._said:
            self._said = total, len(seen)
            self._runs._put(self._number, total=total, ids=frozenset(one.trace_id for one in seen))

    def for_spans(self, proxy: Proxy) -> None:
        """After the proxy has ended: wait, and tell what came.

        Raises:
            StoreError: the database cannot be read.
        """
        from tui.clusters.force.collected import Collector, How
        from tui.tracing import ids_of

        if self._runs.closed:
            return
        self.look(proxy)
        seen, total = proxy.seen(), proxy.total
        if not seen:
            self._runs._put(self._number, problem=self._nothing(proxy))
            return
        self._remember([one.trace_id for one in seen])
        self._runs._put(self._number, stage=Stage.WAITING)
        collector = Collector(self._path, self._since, seen, self._known)
        try:
            began = time.monotonic()
            while True:
                found = collector.look()
                came = [one for one in found if one.how is not How.MISSING]
                self._runs._put(
                    self._number,
                    ids=frozenset((*ids_of(found), *(one.trace_id for one in seen))),
                    arrived=len(came),
                    whole=sum(not one.lacking for one in came),
                )
                waited = time.monotonic() - began
                if waited >= self._seconds or collector.done(found, waited) or self._stop.is_set():
                    break
                self._stop.wait(min(SPANS_EVERY, max(0.01, self._seconds - waited)))
            self._remember(ids_of(found))
            self._tell(collector, found, waited, max(0, total - len(seen)))
        finally:
            collector.close()

    def _tell(self, collector: Collector, found: Sequence[Found], waited: float, more: int) -> None:
        from receiver.traces.bodies import Bodies
        from tui.clusters.doctor import receiver_findings
        from tui.clusters.force.collected import reasons
        from tui.tracing_report import Report, chosen, summary, verdict_of

        rows = collector.rows(found)
        receiver = receiver_findings(self._path)
        local = bool(self._known.endpoints)  # read from files of this machine
        why = reasons(found, self._known, receiver, collector.heard, waited, here=local, longer=_LATER)
        report = Report(self._group.words, found, rows, why, more)
        bodies = Bodies(collector.database)
        told = [
            Told(one, row, tuple(verdict_of(one, row, collector, bodies)))
            for one in chosen(found)
            for row in (rows.get(one.trace_id),)
        ]
        many = len(found) + more
        said = (f"{count(len(one.numbers))} of {count(many)}: " if many > 1 else "" for one in why)
        sentences = tuple(f"{of}{one.sentence}" for of, one in zip(said, why, strict=True))
        self._runs._put(self._number, requests=tuple(told), reasons=sentences, summary=summary(report))

    def _remember(self, ids: Sequence[str]) -> None:
        from tui.clusters.force.groups import remember

        with suppress(OSError):  # only later runs of the program would know it
            remember(self._path, replace(self._group, traces=tuple(ids)))

    def _nothing(self, proxy: Proxy) -> str:
        run = self._runs.run
        words = run.words if run is not None else "the command"
        if self.told_of:
            return self.told_of
        if proxy.refused:
            return (
                f"The requests of {words} came with credentials of another kind and got no further: leave out what"
                " chooses a user or token (--token, --user, --as-user)."
            )
        return (
            f"No request of {words} came through: it asked nothing, or does not honour KUBECONFIG, or was told of"
            " another (--kubeconfig, --server), so there is nothing to trace."
        )


def _words_of(target: str) -> str:
    """A GET in words: the path alone, since a query may hold anything."""
    return printable(f"get {target.partition('?')[0]}", 200)


def _started(command: Sequence[str], environment: dict[str, str]) -> Child:
    from tui.clusters.force.asking import NotAsked
    from tui.clusters.force.child import Child

    name = printable(command[0], 80)
    try:
        return Child(command, environment)
    except FileNotFoundError:
        raise NotAsked(f"There is no program {name}: is it installed, and in PATH?") from None
    except (OSError, ValueError) as error:
        raise NotAsked(f"{name} cannot be run ({getattr(error, 'strerror', None) or error}).") from None
