"""A process that ends with the test run that started it, however that ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from tests.real.workspace import RunFolder, Unavailable

START_S = 90.0
"""How long anything may take to be ready on a busy machine."""


def bound_to_its_parent(command: Sequence[str]) -> list[str]:
    """The command, which the kernel kills when whoever starts it dies."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise Unavailable("setpriv (util-linux 2.33 or later) is not here, so what is started could outlive a test run")
    return [setpriv, "--pdeathsig", "KILL", "--", *command]


class Process:
    """A server: its output in `NAME.log` of the run's folder, its process id in the run's record.

    Attributes:
        log: where its output goes; a later start writes behind it.
    """

    def __init__(
        self, name: str, command: Sequence[str], run: RunFolder, *, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log = run.path / f"{name}.log"
        self._run = run
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it (again)."""
        assert not self.running, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                bound_to_its_parent(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=None if self._environment is None else dict(self._environment),
                start_new_session=True,
            )
        self._run.note_process(self._process.pid)

    @property
    def running(self) -> bool:
        """It was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """A signal, if it still runs."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def stop(self, seconds: float = 30.0) -> None:
        """SIGTERM, and SIGKILL when that was not enough after so many seconds."""
        if self._process is None or not self.running:
            return
        self.send(signal.SIGTERM)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None and self.running:
            self.send(signal.SIGKILL)
            self._process.wait(10)

    def last_words(self) -> str:
        """The end of its log."""
        text = self.log.read_bytes()[-3000:].decode(errors="replace") if self.log.exists() else ""
        return f"{self.name} says last:\n{text}"


def wait_until(ready: Callable[[], bool], what: str, *, seconds: float = START_S, by: Process | None = None) -> None:
    """Asks again and again until it is so.

    Args:
        what: for the message, as in `the API server is ready`.
        by: whose work it is; when that ends, waiting is over.

    Raises:
        AssertionError: it did not become so.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        ended = by is not None and not by.running
        if ended or time.monotonic() > deadline:
            why = f"{by.name} ended" if ended and by is not None else f"not within {seconds:.0f} s"
            raise AssertionError(f"{what}: {why}. {by.last_words() if by is not None else ''}")
        time.sleep(0.1)
