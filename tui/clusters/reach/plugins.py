"""Credential plugins of a kubeconfig (`aws eks get-token`, `kubelogin`) must never ask on the terminal: it is a screen.

The `kubernetes` client runs them with our standard input, for as long as they like, and logs their failure on the root
logger, which prints it. Here they get no input and no terminal, 30 s, and their failure comes back as a text.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from tui.clusters.reach.wire import plain

_SECONDS: Final = 30.0


class _Plugin(subprocess.Popen[str]):
    """A plugin without our terminal, in a session of its own that is ended after half a minute."""

    def __init__(self, arguments: Any, **options: Any) -> None:
        quiet = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, "start_new_session": True}
        super().__init__(arguments, **{**options, **quiet})
        self._end = threading.Timer(_SECONDS, self._kill)
        self._end.daemon = True
        self._end.start()
        atexit.register(self._kill)  # where the program ends while a thread waits for it

    def _kill(self) -> None:
        if self.returncode is not None:
            return
        with suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)  # also what it started, which would hold its output open

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, str]:
        """The same; its number is another process's once it was waited for. What ends our wait ends the plugin."""
        try:
            return super().communicate(input, timeout)
        except BaseException:  # Ctrl-C, which its own session keeps from it
            self._kill()
            raise
        finally:
            atexit.unregister(self._kill)
            self._end.cancel()


class _Subprocess:
    """What the client's exec_provider sees as the module `subprocess`."""

    PIPE = subprocess.PIPE
    Popen = _Plugin


class _Collect(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._said = said
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread and len(self._said) < 10:
            text = record.getMessage().replace("process returned -9", f"no answer within {_SECONDS:g} s")
            self._said.append(plain(" ".join(text.split()), 300))


@contextmanager
def quiet_plugins() -> Iterator[list[str]]:
    """While credentials are loaded or renewed: no plugin asks, and what is logged about it is collected."""
    from kubernetes.config import exec_provider

    module: Any = exec_provider
    module.subprocess = _Subprocess  # the name in that module alone
    said: list[str] = []
    handler = _Collect(said)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield said
    finally:
        root.removeHandler(handler)
