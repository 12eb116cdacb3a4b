"""The demo's processes: a receiver of its own, and a synthetic cluster that exports to it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from tui.receiver_process import Plan, ReceiverLink, environment


class DemoLink:
    """A receiver, and the synthetic cluster that is started again wherever that one listens."""

    def __init__(self, plan: Plan, seed: int) -> None:
        """`plan` names a listener; its port may be 0."""
        self._receiver = ReceiverLink(plan)
        self._seed = seed
        self._cluster: subprocess.Popen[bytes] | None = None
        self._address = ""

    @property
    def problem(self) -> str:
        """One sentence for the operator, or ""."""
        return self._receiver.problem

    def status(self) -> dict[str, Any] | None:
        """The receiver's counters; starts what is not running."""
        status = self._receiver.status()
        if status is None:
            return None
        open_ones = [str(entry["address"]) for entry in status["listeners"] if not entry["error"]]
        gone = self._cluster is None or self._cluster.poll() is not None
        if open_ones and (gone or self._address not in open_ones):
            self._end_cluster()
            self._address = open_ones[0]
            self._cluster = subprocess.Popen(
                [sys.executable, "-m", "receiver.ingest.demo", "--child", "--seed", str(self._seed), self._address],
                stdin=subprocess.PIPE,  # closes when we are gone, however that came: the sign to end
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                env=environment(),
            )
        return status

    def hold(self, traces: Sequence[str]) -> None:
        """These traces must not be evicted."""
        self._receiver.hold(traces)

    def close(self) -> None:
        """End both."""
        self._end_cluster()
        self._receiver.stop()

    def _end_cluster(self) -> None:
        if self._cluster is None:
            return
        self._cluster.terminate()
        if self._cluster.stdin is not None:
            self._cluster.stdin.close()
        try:
            self._cluster.wait(0.5)
        except subprocess.TimeoutExpired:
            self._cluster.kill()  # nothing of it needs saving
            self._cluster.wait()
        self._cluster = None
