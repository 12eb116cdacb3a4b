"""Credential plugins of a kubeconfig (`aws eks get-token`, `kubelogin`) must never ask on the terminal: it is a screen.

The `kubernetes` client runs them with our standard input, for as long as they like, and logs their failure on the root
logger, which prints it. Here they get no input and no terminal, 30 s, and their failure comes back as a text.
"""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from tui.clusters.reach.wire import plain

_SECONDS: Final = 30.0


class _Subprocess:
    """What the client's exec_provider sees as the module `subprocess`."""

    PIPE = subprocess.PIPE

    @staticmethod
    def Popen(arguments: Any, **options: Any) -> subprocess.Popen[str]:
        """The same, without our terminal and ended after half a minute."""
        quiet = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, "start_new_session": True}
        process: subprocess.Popen[str] = subprocess.Popen(arguments, **{**options, **quiet})
        end = threading.Timer(_SECONDS, process.kill)
        end.daemon = True
        end.start()
        return process


class _Collect(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._said = said
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread and len(self._said) < 10:
            self._said.append(plain(" ".join(record.getMessage().split()), 300))


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
