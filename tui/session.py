"""From a command line to a running TUI: what it reads, who receives, and what is said when it cannot begin."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from receiver.store.database import Database, StoreError
from receiver.store.place import choose_database, database_to_watch
from tui.cluster_feed import ControlPlanes, Named
from tui.config import Settings, own_themes
from tui.feed import Feed, Link
from tui.printing import warn
from tui.terminal_text import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from receiver.traces.query import Group
    from tui.app import TraceApp

_DEMO_PLANES = "The demo's cluster is made up: there is no control plane to look at."
_DEMO_TRACES = "The demo's cluster is made up: it has no API server that could be asked for something to trace."
_RECORDED_TRACES = "A recording: start k8s-trace-tui without files to trace requests."
_RECORDED_PLANES = "A recording: start k8s-trace-tui without files to look at control planes."


_LEAVE_SECONDS = 5.0
"""For the screens to end after their terminal is gone; what they began is ended beside that."""


class NoTerminal(Exception):
    """There is nothing to draw on; the text is one sentence for the operator."""


def need_terminal() -> None:
    """Raises:
    NoTerminal: input or output is no terminal, or one that cannot be drawn on.
    """
    way_out = "use `k8s-trace-tui traces` for text, or `k8s-trace-tui receive` to receive only"
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise NoTerminal(f"The TUI needs a terminal for input and output: {way_out}.")
    if os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        raise NoTerminal(f"The terminal (TERM={os.environ.get('TERM', '')}) cannot be drawn on: {way_out}.")


# --- live ------------------------------------------------------------------------------------------
def watch(settings: Settings, problems: Sequence[str], named: Named | None = None, group: Group | None = None) -> int:
    """The TUI on the database of this machine's receiver, which is started when there is none. With a `group`, its list
    begins with those traces."""
    need_terminal()
    from tui.receiver_process import Plan, ensure_receiver

    watched = database_to_watch(settings.db)
    path = watched.path
    link: Callable[[], Link] | None = None
    notes = [*problems, *filter(None, (watched.said, watched.only_read))]
    if watched.only_read:
        Database.read(path).close()
    else:
        database = Database.create(path)  # what is wrong with the file is said before the screen is taken
        database.close()
        notes += [database.said] if database.said else []
    if watched.attach:
        plan = Plan(path, settings.listeners, starts=not watched.only_read)
        link = lambda: ensure_receiver(plan)  # noqa: E731
    title = socket.gethostname().partition(".")[0]
    hosts = named.hosts if named is not None and (named.hosts or named.context) else settings.hosts
    return _run(
        Feed(path, link=link),
        settings,
        title,
        notes,
        planes_of(settings, named, path),
        look_at_once=any(host.startswith("ssh:") for host in hosts),  # their spans come through tunnels, which it opens
        group=group,
        context=named.context if named is not None and named.context else settings.context,
    )


def demo(settings: Settings, problems: Sequence[str], seed: int) -> int:
    """The TUI with a synthetic cluster that exports through real gRPC into a receiver of its own."""
    need_terminal()
    from tui.demo_process import DemoLink
    from tui.receiver_process import Plan

    with _demo_database(settings.db) as path:
        plan = Plan(path, settings.listeners or ("demo=127.0.0.1:0",))
        feed = Feed(path, link=lambda: DemoLink(plan, seed))
        return _run(feed, settings, f"demo (seed {seed})", problems, no_planes=_DEMO_PLANES, no_tracing=_DEMO_TRACES)


@contextmanager
def _demo_database(given: Path | None) -> Iterator[Path]:
    """The database that was named, or one that is gone afterwards: a seed sends the same ids each time."""
    if given is not None:
        path, _ = choose_database(given)
        Database.create(path).close()
        yield path.absolute()
        return
    from tui.clusters.reach.private_folder import private_folder

    directory = private_folder("k8s-trace-tui-demo", Path(tempfile.gettempdir()))
    try:
        yield directory / "demo.db"
    finally:
        shutil.rmtree(directory, ignore_errors=True)


# --- recordings ------------------------------------------------------------------------------------
def view_files(paths: Sequence[Path], settings: Settings, problems: Sequence[str]) -> int:
    """The TUI on recordings, read into memory, without a receiver.

    Raises:
        StoreError: a file cannot be read or is none that can be viewed.
    """
    from receiver.ingest.recordings import check

    for path in paths:
        check(path)
    need_terminal()
    database = Database.memory()
    reading = _Reading(paths, database)
    title = paths[0].name + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
    feed = Feed(database, live=False, link=lambda: reading)
    try:
        return _run(feed, settings, title, problems, no_planes=_RECORDED_PLANES, no_tracing=_RECORDED_TRACES)
    finally:
        reading.close()
        database.close()


class _Reading:
    """Recordings on their way into memory; tells the screen what of them could not be taken."""

    def __init__(self, paths: Sequence[Path], database: Database) -> None:
        self._paths = paths
        self._database = database
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._complaints: list[str] = []
        self._more = 0

    @property
    def problem(self) -> str:
        """The first complaint, and how many there are."""
        if not self._complaints:
            return ""
        more = f" ({count(self._more)} more)" if self._more else ""
        return f"{self._complaints[0]}{more}"

    def status(self) -> dict[str, Any] | None:
        """None: nobody receives. The first call begins to read."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._read, name="recordings", daemon=True)
            self._thread.start()
        return None

    def hold(self, traces: Sequence[str]) -> None:
        """Nothing is evicted from memory."""

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def _say(self, sentence: str) -> None:
        if self._complaints:
            self._more += 1
        else:
            self._complaints.append(sentence)

    def _read(self) -> None:
        from receiver.ingest.recordings import take

        for path in self._paths:
            try:
                take(path, self._database, self._say, arrived_now=False, stop=self._stop)
            except StoreError as problem:
                self._say(str(problem))
            except Exception as error:  # noqa: BLE001 - the other files are read all the same
                self._say(f"Reading {path} failed ({type(error).__name__}: {error}).")


# --- the application -------------------------------------------------------------------------------
def planes_of(settings: Settings, named: Named | None, database: Path) -> Callable[[], ControlPlanes]:
    """Makes the control planes of a command line, when they are looked at for the first time."""

    def make() -> ControlPlanes:
        from tui.control_planes import RealControlPlanes

        return RealControlPlanes(settings, named or Named(), database)

    return make


def _run(
    feed: Feed,
    settings: Settings,
    title: str,
    problems: Sequence[str],
    planes: Callable[[], ControlPlanes] | None = None,
    no_planes: str = "",
    *,
    look_at_once: bool = False,
    group: Group | None = None,
    context: str = "",
    no_tracing: str = "",
) -> int:
    from tui.app import TraceApp

    class Session(TraceApp):
        """The application with its last words kept from the terminal: a traceback belongs into the log."""

        def _print_error_renderables(self) -> None:
            self._exit_renderables.clear()

        @property
        def defect(self) -> Exception | None:
            return self._exception

    themes, not_used = own_themes()
    app = Session(
        feed,
        settings,
        title=title,
        problems=[*problems, *not_used],
        theme_directories=themes,
        control_planes=planes,
        no_control_planes=no_planes,
        look_at_once=look_at_once,
        group=group,
        context=context,
        no_tracing=no_tracing,
    )

    def end(_signal: int, _frame: FrameType | None) -> None:
        loop = getattr(app, "_loop", None)
        if loop is not None:
            loop.call_soon_threadsafe(app.exit, 0)  # the terminal is put back as it was

    left = threading.Event()

    def hang_up(number: int, frame: FrameType | None) -> None:
        """The terminal is gone: a command that is traced goes, too, and its kubeconfig."""
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            for stream in (0, 1, 2):  # what is still written there would fail, and block the screens for ever
                os.dup2(nowhere, stream)
        threading.Thread(target=_leave, args=(app, left), name="hang-up", daemon=True).start()
        end(number, frame)

    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, end)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
            signal.signal(signal.SIGHUP, hang_up)
    try:
        code = app.run(mouse=settings.mouse)
    finally:
        left.set()
        if (run := app.clusters.left_alone) is not None:
            warn(
                f"{run.at_work} goes on by itself with this: {run.title}. The Clusters screen, or "
                "`k8s-trace-tui sampling status`, tells how it came out."
            )
        app.traced.runs.close()
        app.clusters.close()  # pods, tunnels and connections, when the terminal is the operator's again
    if app.defect is not None:
        raise app.defect
    return code or 0


def _leave(app: TraceApp, left: threading.Event) -> None:
    """End what the screens began; and the program where they do not end, as when a write to their terminal had already
    failed."""
    app.traced.runs.close()
    if not left.wait(_LEAVE_SECONDS):
        app.clusters.close()
        os._exit(128 + signal.SIGHUP)
