"""The receiver behind the TUI: attach to the one that runs, or start one, and start it again when it dies.

A receiver that this program starts is a process of its own in a session of its own: Ctrl-C in the terminal does not
reach it, and it ends by itself ten seconds after the last TUI that is attached to it is gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import receiver
from receiver.control import ControlClient, ControlError, log_path
from receiver.ingest.address import ListenError, is_open, split_name
from receiver.store.errors import StoreError
from receiver.store.ownership import open_ours

READY_SECONDS: Final = 10.0
"""How long a receiver may take until it answers; a large database is read in about a second per million spans."""
_POLL_SECONDS: Final = 0.02
_TIMEOUT: Final = 2.0
_PAUSES: Final = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds until it is started again after its first, second, ... death in a row."""
_MOMENT: Final = 0.2
_STEADY_SECONDS: Final = 30.0
"""When a receiver has answered for this long, the death of the one before is no longer worth a banner."""
_RELISTEN_SECONDS: Final = 10.0
"""Until a listener that a running receiver refused is asked for again: the port may be free by then."""
_NOTES: Final = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start when nobody receives into `database` (an absolute path)."""

    database: Path
    listeners: tuple[str, ...] = ()
    """`[NAME=]ADDRESS`; none: the receiver's own defaults."""
    starts: bool = True
    """False: only who owns the database may start one."""

    def command(self) -> list[str]:
        """The receiver's command line."""
        listen = [part for listener in self.listeners for part in ("--listen", listener)]
        return [sys.executable, "-m", "receiver", "--child", "--db", str(self.database), *listen]


def ensure_receiver(plan: Plan, wait: float = READY_SECONDS) -> ReceiverLink:
    """Attach to the receiver of a database, starting one where there is none. Blocks until it answers, for at most
    `wait` seconds; what went wrong is in the link's `problem`. Call it in a thread."""
    link = ReceiverLink(plan)
    until = time.monotonic() + wait
    while link.status() is None and time.monotonic() < until and not link.problem:
        time.sleep(_POLL_SECONDS)
    return link


class ReceiverLink:
    """A connection to the receiver process that mends itself. For one thread at a time."""

    def __init__(self, plan: Plan, spawn: Callable[[Plan], subprocess.Popen[bytes]] | None = None) -> None:
        """Nothing is connected or started before the first `status`."""
        self._plan = plan
        self._spawn = spawn or start
        self._client: ControlClient | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._deaths = 0  # in a row
        self._next_start = 0.0
        self._connected = 0.0
        self._log_end = 0
        self._holding: tuple[str, ...] = ()
        self._held: tuple[str, ...] = ()
        self._happened = ""  # why the last one ended, as a sentence
        self._why = ""  # and in a word or two
        self._kept = ""  # what can be said of the spans when it is there again
        self._refused = ""  # why a receiver that was there before us does not listen where we want
        self._relisten = 0.0
        self._restarts: deque[tuple[int, str]] = deque(maxlen=_NOTES)
        self.restarted = 0
        """How often a receiver was there again after one ended unexpectedly."""
        self.problem = ""
        """One sentence for the operator, or "". What is true now comes before what happened and is over."""

    def status(self) -> dict[str, Any] | None:
        """The receiver's counters; None while there is none. Connects, starts and restarts as needed.

        Two keys are ours: `restarts`, a list of (when, in ns since the epoch, why), the oldest first; and `over`, the
        `problem` where that is over and may be dismissed, "" else.
        """
        if self._client is None:
            self._connect()
        if self._client is None:
            return None
        try:
            if self._holding != self._held:
                self._client.request("hold", traces=list(self._holding))
                self._held = self._holding
            if self._refused and time.monotonic() >= self._relisten:
                self._refused = self._listen(self._client)
            status = self._client.request("status")
        except ControlError:
            self._lost()
            return None
        now = time.monotonic()
        if now - self._connected > _STEADY_SECONDS:
            self._happened, self._deaths = "", 0
        present = self._refused or status.get("message") or _deaf(status["listeners"])
        self.problem = present or self._happened
        return {**status, "restarts": list(self._restarts), "over": "" if present else self._happened}

    def hold(self, traces: Sequence[str]) -> None:
        """These traces must not be evicted, also not by a receiver that is started later."""
        self._holding = tuple(traces)

    def close(self) -> None:
        """Let go. A receiver that was started for us ends by itself when nobody else is attached."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def stop(self) -> None:
        """Let go, and end the receiver."""
        if self._client is not None:
            with suppress(ControlError):
                self._client.request("stop")
        self.close()
        if self._child is not None:
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(_TIMEOUT)

    # -- inside -----------------------------------------------------------------------------------------
    def _connect(self) -> None:
        try:
            client = ControlClient.connect(self._plan.database, _TIMEOUT)
        except ControlError as problem:
            if self._plan.starts:
                self._start()
            else:
                self.problem = str(problem)
            return
        try:
            client.request("attach")
            self._refused = self._listen(client)
        except ControlError:
            client.close()
            return
        self._client, self._held, self._connected = client, (), time.monotonic()
        if self._deaths:
            self.restarted += 1
            self._restarts.append((time.time_ns(), self._why))
            self._happened += f" It was started again{self._kept}."

    def _listen(self, client: ControlClient) -> str:
        """Ask a receiver that was there before us for the listeners that we were told to have; what it refused."""
        self._relisten = time.monotonic() + _RELISTEN_SECONDS
        if self._child is not None or not self._plan.listeners:
            return ""
        there = {str(entry["address"]) for entry in client.request("status")["listeners"]}
        for listener in self._plan.listeners:
            try:
                name, address = split_name(listener)
                if not is_open(address, there):
                    client.request("listen", name=name, address=address)
            except (ControlError, ListenError) as problem:
                return str(problem)
        return ""

    def _lost(self) -> None:
        """The connection ended and nobody here ended it."""
        self.close()
        self._count_death()
        self.problem = self._happened = "The receiver ended unexpectedly."
        self._why, self._kept = "it ended unexpectedly", ", and what was acknowledged is there"
        if self._child is not None:
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(_TIMEOUT)  # its socket closes a moment before it is gone
                self._explain(self._child.returncode)
                self._child = None

    def _start(self) -> None:
        now = time.monotonic()
        if self._child is not None:
            code = self._child.poll()
            if code is None:
                return  # it has not got to its socket yet
            self._child = None
            if code:
                self._count_death()
                self._explain(code)
            else:  # somebody else holds the file and was not there to connect to: starting, or ending
                self._next_start = now + _MOMENT
        if now < self._next_start:
            return
        try:
            log = log_path(self._plan.database)
            self._log_end = log.stat().st_size if log.exists() else 0
            self._child = self._spawn(self._plan)
        except (OSError, StoreError) as problem:
            self._count_death()
            self._why = "it could not be started"
            self._happened = (
                f"The receiver cannot be started ({problem}): is there space for a log, and a process left?"
            )
            self.problem = self._happened

    def _count_death(self) -> None:
        self._next_start = time.monotonic() + _PAUSES[min(self._deaths, len(_PAUSES) - 1)]
        self._deaths += 1

    def _explain(self, code: int) -> None:
        """Why our child is gone, from its exit code and what it wrote last."""
        if code < 0:
            name = signal.Signals(-code).name if -code in signal.Signals._value2member_map_ else str(-code)
            self._happened = f"The receiver was ended by {name}."
            self._why = name
        elif code:
            words = self._last_words()
            self._kept = ""  # its words say what is wrong, which may be with the database
            self._why = f"exit code {code}"
            self._happened = (
                words or f"The receiver ended with code {code}: {log_path(self._plan.database)} may say why."
            )
        self.problem = self._happened

    def _last_words(self) -> str:
        """The last sentence for the operator among what the child wrote to its standard error."""
        try:
            with open(open_ours(log_path(self._plan.database), os.O_RDONLY), "rb") as log:
                log.seek(max(self._log_end, log.seek(0, os.SEEK_END) - 4096))
                lines = log.read().decode("utf-8", "replace").splitlines()
        except (OSError, StoreError):
            return ""
        mark = "k8s-trace-tui: "
        said = [line for line in lines if line.startswith(mark)]
        return said[-1].removeprefix(mark) if said else ""


def _deaf(listeners: Sequence[dict[str, Any]]) -> str:
    """The first reason why a listener could not be opened, unless only [::1] of the two default ones is missing."""
    errors = [entry for entry in listeners if entry["error"]]
    if len(errors) < len(listeners):
        errors = [entry for entry in errors if entry["address"] != "[::1]:4317"]
    return str(errors[0]["error"]) if errors else ""


def start(plan: Plan) -> subprocess.Popen[bytes]:
    """Start a receiver that outlives Ctrl-C in this terminal. Its standard error goes to the log.

    Raises:
        OSError: the log cannot be written or there is no process to be had.
        StoreError: the log is not ours to write.
    """
    log = open_ours(log_path(plan.database), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        # It runs in /, because `-m` puts the working directory on the path, and the operator's may hold a `receiver`
        # of somebody else's.
        return subprocess.Popen(
            plan.command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env=environment(),
        )
    finally:
        os.close(log)


def environment() -> dict[str, str]:
    """Ours, with the directory that this program came from first on the path of a Python process."""
    home = str(Path(receiver.__file__).parent.parent)
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path}
