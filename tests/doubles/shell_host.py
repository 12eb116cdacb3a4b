"""A host whose root is a directory here: scripts run in a shell of this machine, with `ROOT` set."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tui.clusters.model import Done, ReachError


class ShellHost:
    """`shell` is the command that runs a script: `["sh"]`, `["busybox", "sh"]`. `environment` is added to ours."""

    def __init__(
        self,
        root: Path,
        *,
        alive: bool = True,
        environment: Mapping[str, str] | None = None,
        shell: Sequence[str] = ("sh",),
        name: str = "cp-1",
    ) -> None:
        self.root = root
        self.alive = alive
        self.name = name
        self.environment = dict(environment or {})
        self.shell = tuple(shell)
        self.broken = False  # the way there, for tests

    def run(
        self,
        script: str,
        arguments: Sequence[str] = (),
        *,
        stdin: bytes = b"",
        timeout: float = 30.0,
        most: int = 8 << 20,
    ) -> Done:
        if self.broken:
            raise ReachError(f"{self.name} does not answer.")
        try:
            done = subprocess.run(
                [*self.shell, "-c", script, "sh", *arguments],
                input=stdin,
                capture_output=True,
                timeout=timeout,
                env={**os.environ, **self.environment, "ROOT": str(self.root)},
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ReachError(f"{self.name} did not answer within {timeout:.0f} s.") from None
        return Done(done.returncode, done.stdout[:most], done.stderr[-8192:].decode("utf-8", "replace"))

    def close(self) -> None:
        """Nothing was opened."""
