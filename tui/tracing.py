"""`trace -- COMMAND`: runs a command with its API requests traced, and says what became of each.

The command gets a kubeconfig of its own that leads to a proxy here; its input, output, error output and exit code stay
its own, and Ctrl-C reaches it and not us. What is said is said on standard error.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from receiver.plain_text import shell_word
from receiver.store.database import Database, StoreError
from receiver.store.place import database_to_watch
from receiver.store.written_file import WrittenFile
from tui.clusters.doctor import Mark, ReceiverFindings, receiver_findings
from tui.clusters.force import identity as identities
from tui.clusters.force.collected import WAIT, Collector, Found, How, last_chunk, reasons, wait
from tui.clusters.force.command_cache import VARIABLE as CACHE_VARIABLE
from tui.clusters.force.first_spans import wait_for_first
from tui.clusters.force.groups import Group, remember, words_of
from tui.clusters.force.preconditions import Preconditions, Privilege, find, judge, sentence
from tui.clusters.force.repeats import Run, changes, compare
from tui.clusters.model import ClusterError, State
from tui.config import Settings
from tui.printing import paper, warn
from tui.terminal_text import count, counted, printable
from tui.tracing_report import (
    Report,
    comparison_document,
    comparison_lines,
    documents,
    lines,
    summary,
)

if TYPE_CHECKING:
    from tui.clusters.force.credentials import Upstream
    from tui.clusters.force.proxy import Seen
    from tui.clusters.reach.api import Api
    from tui.receiver_process import ReceiverLink

NOT_FOUND: Final = 127
NOT_STARTED: Final = 126
PATIENCE: Final = 600.0
"""Seconds until somebody else must have approved a certificate."""
_NOT_ONLY_KUBECTL: Final = frozenset(
    ("cp", "diff", "edit", "events", "exec", "expose", "label", "logs", "patch", "set", "top", "wait")
)
"""Sub-commands of kubectl that may be programs of their own here."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says. `wait` is in seconds, `compare` the number of runs."""

    command: tuple[str, ...] = ()
    context: str = ""
    json: Path | None = None
    open: bool = False
    wait: float = WAIT
    compare: int = 1
    yes: bool = False
    identity: bool = True


@dataclass(frozen=True, slots=True)
class _Ran:
    """One run of the command: how it ended, and its requests; `refused` came without our token. `context` is the one
    in its kubeconfig."""

    code: int
    wall_ns: int
    seen: tuple[Seen, ...]
    total: int
    refused: int
    context: str


def plugin_words(words: Sequence[str]) -> tuple[str, ...]:
    """The command of `kubectl trace-tui -- WORDS`: kubectl's sub-commands need not name kubectl."""
    if words and words[0] != "kubectl" and (words[0] in _NOT_ONLY_KUBECTL or shutil.which(words[0]) is None):
        return ("kubectl", *words)
    return tuple(words)


def run(asked: Asked, settings: Settings) -> int:
    """Run a command traced; its exit code.

    Raises:
        ClusterError, StoreError, OSError: it was not begun; str() is one sentence.
        Refused: it may change something, under read-only.
    """
    if settings.read_only:
        from tui import sampling
        from tui.clusters.force.child import may_change

        if why := may_change(asked.command):
            raise sampling.Refused(why)
    with ExitStack() as stack:
        at = named(asked.context)
        path, link = stack.enter_context(_receiving(settings))
        out = stack.enter_context(_json_file(asked.json, path)) if asked.json is not None else None
        place = stack.enter_context(_Signals())
        status = link.status() if link is not None else None
        receiver = ReceiverFindings(status if link is not None else {})
        known, upstream = prepare(at, receiver, warn, identity=asked.identity)
        if link is not None:
            wait_for_first(path, known, upstream, warn)
        since = last_chunk(path)
        group = Group(secrets.token_hex(8), time.time_ns(), words_of(asked.command))
        runs = _runs(asked, upstream, place)
        place.restore()
        try:
            _after(asked, settings, runs, known, path, since, group, out)
        except StoreError as problem:  # the exit code stays the command's
            warn(f"What became of the requests cannot be told ({problem}).")
        except OSError as problem:
            where = f"written to {asked.json}" if asked.json is not None else "told"
            warn(f"What became of the requests cannot be {where} ({problem.strerror or problem}): see :commands.")
        return next((ran.code for ran in runs if ran.code), 0)


def _after(
    asked: Asked,
    settings: Settings,
    runs: Sequence[_Ran],
    known: Preconditions,
    path: Path,
    since: int,
    group: Group,
    out: _JsonFile | None,
) -> None:
    """Wait for the spans, and say or show what became of the requests.

    Raises:
        StoreError: the database cannot be read.
        OSError: the JSON cannot be written.
    """
    seen = [one for ran in runs for one in ran.seen]
    if not seen:
        warn(_nothing_came(asked, runs))
        if out is not None:
            out.commit()
        return
    _remember(path, replace(group, traces=tuple(one.trace_id for one in seen)))
    show = asked.open
    if show and known.privilege is Privilege.FORCED:  # their ids are known: they are shown as they come
        show, asked = False, replace(asked, wait=0.0 if _open(group, seen, settings) else asked.wait)
    found, collector, waited = _collect(path, since, seen, known, asked.wait)
    try:
        _remember(path, replace(group, traces=ids_of(found)))
        _tell(group.words, runs, found, collector, known, path, out, waited)
        if out is not None:
            out.commit()  # what is wrong with the file is said here, and is not the command's exit code
    finally:
        collector.close()
    if show:
        _open(group, seen, settings, ids_of(found))


@dataclass(frozen=True, slots=True)
class Named:
    """The context that is meant, and the URL of its API server."""

    context: str
    server: str


def named(context: str) -> Named:
    """The context of that name, "" for the current one.

    Raises:
        ReachError: there is no such context.
    """
    from tui.clusters.reach.contexts import load

    found = load(context, own=False)  # a plugin need not run to know that
    return Named(found.name, str(found.configuration.host))


# --- before -------------------------------------------------------------------------------------------
@contextmanager
def _json_file(path: Path, database: Path) -> Iterator[_JsonFile]:
    """Opened before anything is run, so that what is wrong with it is said then. What has this name stays as it is
    until all is written.

    Raises:
        StoreError: it is the database, or belongs to it, or another user put something in its place.
        OSError: it cannot be written.
    """
    from tui.headless import belongs

    if str(path) == "-":
        raise StoreError("Standard output is the command's own: name a file with --json.")
    if belongs(path, database):
        raise StoreError(
            f"{path} is the database or belongs to it, and would be overwritten: name another with --json."
        )
    with WrittenFile(path) as file:
        yield _JsonFile(file)


class _JsonFile:
    """Lines of ASCII that become a file."""

    def __init__(self, file: WrittenFile) -> None:
        self._file = file
        self._anything = False

    def write(self, text: str) -> None:
        """Write a line, or a piece of one."""
        self._file.raw.write(text.encode("ascii"))
        self._anything = True

    def commit(self) -> None:
        """All is written: in place of what was there, unless it is nothing."""
        self._file.commit(anything=self._anything)


@contextmanager
def _receiving(settings: Settings) -> Iterator[tuple[Path, ReceiverLink | None]]:
    """The database, and the receiver into it: the one that runs, or one that is started and ends after us.

    Raises:
        StoreError: the database cannot be used, or nobody can receive into it.
    """
    from tui.receiver_process import Plan, ensure_receiver

    watched = database_to_watch(settings.db)
    path = watched.path
    if watched.said:
        warn(watched.said)
    if watched.only_read:
        Database.read(path).close()  # somebody else receives into it
        if not watched.attach:
            yield path, None
            return
    else:
        Database.create(path).close()
    link = ensure_receiver(Plan(path, settings.listeners, starts=not watched.only_read))
    try:
        if link.status() is None:
            raise StoreError(link.problem or "The receiver does not answer: see k8s-trace-tui doctor.")
        if link.problem:
            warn(link.problem)
        yield path, link
    finally:
        link.close()


def prepare(
    at: Named, receiver: ReceiverFindings, say: Callable[[str], None], *, identity: bool = True
) -> tuple[Preconditions, Upstream]:
    """Who we are there and what can be expected.

    Args:
        at: the context.
        receiver: the one that would take the spans, as it is now.
        say: takes a sentence for each thing that stands in the way or is worth knowing.
        identity: use the certificate for traces of that context, where there is one.

    Raises:
        ClusterError: the context's credentials cannot be had.
    """
    from tui.clusters.force.credentials import Upstream

    mine, complaint = identities.stored(at.context, at.server) if identity else (None, "")
    if complaint:
        say(complaint)
    upstream = Upstream(at.context, identity=(mine.file, mine.file) if mine is not None else None)
    known = _known(at, mine)
    if mine is not None:
        until = time.strftime("%Y-%m-%d %H:%M", time.localtime(mine.until))
        say(f"Requests go out with the identity of {mine.name} for traces (until {until}); --no-identity uses the own.")
    for step in judge(known, receiver, here=here(at.server)):
        if step.mark is Mark.BAD:
            say(sentence(step))
    return known, upstream


def _known(at: Named, mine: identities.Identity | None) -> Preconditions:
    from tui.clusters.reach.api import Api

    api = Api(at.context, identity=(mine.file, mine.file) if mine is not None else None)
    try:
        return find(api, *_states(at.server))
    finally:
        api.close()


def here(server: str) -> bool:
    """Whether an API server's URL leads to this machine."""
    host = urlsplit(server).hostname or ""
    with suppress(OSError, ValueError):
        for family, _, _, _, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[:4]:
            with suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind((address[0], 0))  # only an address of ours can be
                return True
    return False


def _states(server: str) -> tuple[tuple[State, ...], int]:
    """What the files of this machine say, where it is the control-plane node that the context leads to, and when its
    API server started (ns since the epoch, 0 unknown)."""
    from tui.clusters.arriving import nanoseconds
    from tui.clusters.survey import survey
    from tui.clusters.targets import MANIFEST

    if not os.access(MANIFEST, os.R_OK) or not here(server):
        return (), 0
    from tui.clusters.reach.local import LocalHost

    host = LocalHost()
    try:
        nodes = survey((host,), 5.0)
    except ClusterError:
        return (), 0
    finally:
        host.close()
    containers = [one for node in nodes if node.facts is not None for one in node.facts.containers or ()]
    started = [one.started for one in containers if one.running and one.name == "kube-apiserver"]
    began = max((nanoseconds(one) or 0 for one in started), default=0)
    return tuple(state for node in nodes for state in node.states), began


# --- the command ----------------------------------------------------------------------------------------
class _Signals:
    """While the command runs, what the terminal sends is the command's: it is in our process group and gets it itself.
    What is sent to us alone is passed on."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._starting = False
        self._waiting: list[int] = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._set(number, self._pass_on)
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()

    def begin(self) -> None:
        """The terminal's signals are the command's from here on. A handler, unlike SIG_IGN, is not inherited."""
        for number in (signal.SIGINT, signal.SIGQUIT):
            self._set(number, lambda *_: None)

    def start(self, command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """Start the command with our own standard streams; what comes for it meanwhile is not lost.

        Raises:
            OSError, ValueError: it cannot be started.
        """
        self._starting = True
        try:
            self._child = subprocess.Popen(list(command), env=environment)
        finally:
            self._starting = False
        for number in self._waiting:
            self._pass_on(number, None)
        return self._child

    def ended(self) -> None:
        """The command has ended."""
        self._child = None

    def restore(self) -> None:
        """Signals are ours again."""
        for number, handler in self._before.items():
            with suppress(ValueError):
                signal.signal(number, handler)
        self._before.clear()

    def _set(self, number: int, handler: Callable[[int, FrameType | None], None]) -> None:
        before = signal.getsignal(number)
        if before is signal.SIG_IGN or number in self._before:  # as under nohup: the command inherits that
            return
        with suppress(ValueError):  # not the main thread
            signal.signal(number, handler)
            self._before[number] = before

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        if self._starting:
            self._waiting.append(number)
        elif self._child is None:
            raise SystemExit(128 + number)
        else:
            with suppress(ProcessLookupError):
                self._child.send_signal(number)


def _runs(asked: Asked, upstream: Upstream, place: _Signals) -> list[_Ran]:
    """Run the command as often as is asked and allowed."""
    runs: list[_Ran] = []
    for number in range(1, asked.compare + 1):
        ran = _run(asked.command, upstream, place)
        runs.append(ran)
        if number == asked.compare:
            break
        if ran.code:
            warn(f"The command failed, so it is not run again: {count(number)} of {count(asked.compare)} runs.")
            break
        writes = [one for one in ran.seen if changes(one)]
        if writes and not asked.yes:
            what = printable(f"{writes[0].method} {writes[0].target.partition('?')[0]}", 120)
            warn(f"The command changes something ({what}), so it is not run again: give --yes if it may be.")
            break
        if not ran.seen:
            break
    return runs


def _run(command: Sequence[str], upstream: Upstream, place: _Signals) -> _Ran:
    from tui.clusters.force.command_cache import command_cache
    from tui.clusters.force.kubeconfig import temporary_kubeconfig
    from tui.clusters.force.proxy import Proxy

    began = time.monotonic_ns()
    with (
        command_cache(upstream.name, upstream.url) as cache,
        Proxy(upstream, port=cache.port) as proxy,
        temporary_kubeconfig(proxy) as kubeconfig,
    ):
        cache.used(proxy.port)
        place.begin()
        began = time.monotonic_ns()
        code = _child(command, environment(kubeconfig, cache.folder), place)
        wall = time.monotonic_ns() - began
    return _Ran(code, wall, proxy.seen(), proxy.total, proxy.refused, upstream.name)


def environment(kubeconfig: Path, cache: Path) -> dict[str, str]:
    """Of a command: ours, with the kubeconfig, the folder for what it keeps of discovery, and without an HTTP proxy on
    the way to it."""
    variables = {**os.environ, "KUBECONFIG": str(kubeconfig), CACHE_VARIABLE: str(cache)}
    for name in ("NO_PROXY", "no_proxy"):
        variables[name] = ",".join(filter(None, (variables.get(name, ""), "127.0.0.1")))
    return variables


def _child(command: Sequence[str], variables: dict[str, str], place: _Signals) -> int:
    """Run it; its exit code, 128 and the signal's number where one ended it."""
    try:
        child = place.start(command, variables)
    except FileNotFoundError:
        warn(f"There is no program {printable(command[0], 80)}: is it installed, and in PATH?")
        return NOT_FOUND
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        warn(f"{printable(command[0], 80)} cannot be run ({why}).")
        return NOT_STARTED
    try:
        code = child.wait()
    finally:
        place.ended()
    return 128 - code if code < 0 else code


def other_context(command: Sequence[str], context: str) -> str:
    """Why a command that names a context itself did not find it, a sentence with the way out; "" where it names none
    but the one that it has. What follows `--` is another program's."""
    name = printable(os.path.basename(command[0]), 40)
    own = list(command[1 : command.index("--")] if "--" in command else command[1:])
    for at, word in enumerate(own):
        option, equals, value = word.partition("=")
        if option not in ("--context", "--kube-context"):
            continue
        value = value if equals else "".join(own[at + 1 : at + 2])
        if value and value != context:
            return (
                f"The kubeconfig that {name} gets holds the context {printable(context, 60)} alone, so it knows none of"
                f" the name {printable(value, 60)}: k8s-trace-tui trace --context {shell_word(value)} -- {name} ..."
            )
    return ""


def _nothing_came(asked: Asked, runs: Sequence[_Ran]) -> str:
    name = printable(os.path.basename(asked.command[0]), 40)
    if told := other_context(asked.command, runs[0].context):
        return told
    if any(ran.code in (NOT_FOUND, NOT_STARTED) for ran in runs):
        return "Nothing was traced."
    refused = sum(ran.refused for ran in runs)
    if refused:
        requests = f"{count(refused)} request{'s' if refused > 1 else ''}"
        return (
            f"{requests} of {name} came with credentials of another kind and got no further: leave out what chooses a"
            " user or token (--token, --user, --as-user)."
        )
    return (
        f"No request of {name} came through: it asked nothing, or does not honour KUBECONFIG, or was told of another"
        " (--kubeconfig, --server), so there is nothing to trace."
    )


# --- after ----------------------------------------------------------------------------------------------
def _collect(
    path: Path, since: int, seen: Sequence[Seen], known: Preconditions, seconds: float
) -> tuple[list[Found], Collector, float]:
    """Wait for the spans; on a terminal, show how they come. Also for how many seconds, which Ctrl-C cuts short."""
    collector = Collector(path, since, seen, known)
    began = time.monotonic()
    try:
        with _progress() as show:
            found = wait(collector, seconds, show)
        return found, collector, time.monotonic() - began
    except BaseException:
        collector.close()
        raise


@contextmanager
def _progress() -> Iterator[Callable[[Sequence[Found]], None]]:
    """A line on the terminal that says what has come; nothing elsewhere."""
    live = sys.stderr is not None and sys.stderr.isatty()
    began, last = time.monotonic(), ""

    def show(found: Sequence[Found]) -> None:
        nonlocal last
        if not live:
            return
        came = sum(one.how is not How.MISSING for one in found)
        whole = sum(one.how is not How.MISSING and not one.lacking for one in found)
        text = (
            f"waiting for spans: {count(came)} of {count(len(found))} traces, {count(whole)} whole,"
            f" {time.monotonic() - began:.0f} s (Ctrl-C ends the wait)"
        )
        if text != last:
            last = text
            with suppress(OSError):
                sys.stderr.write(f"\r\x1b[K{text}")
                sys.stderr.flush()

    try:
        yield show
    finally:
        if last:
            with suppress(OSError):
                sys.stderr.write("\r\x1b[K")
                sys.stderr.flush()


def ids_of(found: Sequence[Found]) -> tuple[str, ...]:
    """Under which ids the requests are found; what has not come may still come under the id that was sent."""
    return tuple(one.trace_id or one.seen.trace_id for one in found)


def _remember(path: Path, group: Group) -> None:
    try:
        remember(path, group)
    except OSError as error:
        warn(f"The command cannot be noted beside {path} ({error.strerror}): the TUI will not show it as one group.")


def _tell(
    words: str,
    runs: Sequence[_Ran],
    found: Sequence[Found],
    collector: Collector,
    known: Preconditions,
    path: Path,
    out: _JsonFile | None,
    waited: float,
) -> None:
    """Text on standard error, and JSON where it was asked for."""
    rows = collector.rows(found)
    receiver = receiver_findings(path)
    local = bool(known.endpoints)
    page = paper(sys.stderr) if sys.stderr is not None else None
    at, told = 0, []
    whys: dict[str, None] = {}
    for number, ran in enumerate(runs, 1):
        mine = found[at : at + len(ran.seen)]
        at += len(ran.seen)
        of_run = {one.trace_id: rows[one.trace_id] for one in mine if one.trace_id in rows}
        why = reasons(mine, known, receiver, collector.heard, waited, here=local)
        whys.update(dict.fromkeys(one.sentence for one in why))
        told.append(Run(ran.wall_ns, mine, of_run))
        report = Report(words, mine, of_run, why, max(0, ran.total - len(ran.seen)))
        if out is not None:
            for line in documents(report, collector, number):
                out.write(line)
        if page is not None and len(runs) == 1:
            warn(summary(report))
            _print(lines(report, collector, page))
    if len(runs) == 1:
        return
    compared = compare(told)
    if out is not None:
        out.write(comparison_document(compared))
    if page is not None:
        warn(f"{words}: {count(len(runs))} runs, {counted(len(found), 'request')}.")
        _print(comparison_lines(compared, page))
        for why_not in whys:
            warn(why_not)


def _print(texts: Iterator[str]) -> None:
    with suppress(OSError):  # nobody listens
        for text in texts:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _open(group: Group, seen: Sequence[Seen], settings: Settings, ids: Sequence[str] = ()) -> bool:
    """The TUI on the command's traces; False where there is no terminal for it."""
    from receiver.traces import query
    from tui.session import NoTerminal, watch

    every = frozenset((*ids, *(one.trace_id for one in seen)))
    name = f"{group.words} ({count(len(seen))} request{'s' if len(seen) != 1 else ''})"
    try:
        watch(settings, (), group=query.Group(name, every))
    except NoTerminal as problem:
        warn(str(problem))
        return False
    return True


# --- the identity ---------------------------------------------------------------------------------------
def issue_identity(asked: Asked, settings: Settings, days: int) -> int:
    """Get a certificate that may bring traces, after saying what it grants.

    Raises:
        ClusterError: it cannot be had; Refused: it was not agreed to.
    """
    with _Signals():  # whoever ends us lets the request for it be taken back
        return _issue(asked, settings, days)


def _issue(asked: Asked, settings: Settings, days: int) -> int:
    from tui import sampling
    from tui.clusters.reach.api import Api

    at = named(asked.context)
    api: Api = Api(at.context)
    try:
        grant = identities.grant_of(replace(find(api), context=at.context), days)
        for sentence in grant.told():
            warn(sentence)
        protected = at.context if at.context in settings.protected else ""
        wish = sampling.Asked(yes=asked.yes, read_only=settings.read_only)
        sampling.agree(wish, f"Ask {at.context} for it?", protected)
        made = identities.issue(api, grant, at.server, warn, patience=PATIENCE)
    finally:
        api.close()
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(made.until))
    warn(f"It is in {made.file} (0600) until {until}; k8s-trace-tui trace uses it for {at.context} by itself.")
    return 0
