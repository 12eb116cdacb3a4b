"""A real receiver process for tests: `python -m receiver` on free ports and a database of its own."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import program

START_S = 60.0
"""How long a receiver may take to say that it listens, on a busy machine."""


@dataclass
class LiveReceiver:
    """A running receiver. `addresses` are those really bound, by listener name, in the order they were said."""

    db: Path
    process: subprocess.Popen[str]
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """The first listener's address."""
        return next(iter(self.addresses.values()))

    @property
    def pid(self) -> int:
        """The receiver's process id."""
        return self.process.pid

    def stop(self) -> int:
        """SIGTERM, which flushes; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)

    def kill(self) -> None:
        """SIGKILL: no chance to flush."""
        self.process.kill()
        self.process.wait(15)

    # --- what an operator's command line says about the same database ---
    def command(self, *arguments: str, stdin: str | None = None, timeout: float = 120.0) -> str:
        """Standard output of `k8s-trace-tui ARGUMENTS --db DB`, which must succeed."""
        return run_command(*arguments, "--db", str(self.db), stdin=stdin, timeout=timeout)

    def traces(self, *arguments: str) -> list[dict[str, Any]]:
        """`traces --json`, newest first."""
        return [json.loads(line) for line in self.command("traces", "--json", *arguments).splitlines()]

    def show(self, *trace_ids: str) -> list[dict[str, Any]]:
        """`show --json` of each of these traces, in this order."""
        told = self.command("show", "--json", "-", stdin="\n".join(trace_ids) + "\n")
        return [json.loads(line) for line in told.splitlines()]

    def wait_for(self, done: Callable[[list[dict[str, Any]]], bool], timeout: float = 30.0) -> list[dict[str, Any]]:
        """Asks for the traces until `done` accepts them."""
        deadline = time.monotonic() + timeout
        while True:
            traces = self.traces()
            if done(traces):
                return traces
            if time.monotonic() > deadline:
                heads = sorted({trace["headline"] for trace in traces})
                raise AssertionError(f"not there after {timeout:.0f} s; {len(traces)} traces: {heads[:20]}")
            time.sleep(0.25)


def run_command(*arguments: str, stdin: str | None = None, timeout: float = 120.0) -> str:
    """Standard output of `k8s-trace-tui ARGUMENTS`, which must succeed."""
    done = program.run("tui.cli", *arguments, input=stdin, timeout=timeout)
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}: {done.stderr.strip()[-2000:]}"
    return done.stdout


def start_receiver(db: Path, listen: Sequence[str], arguments: Sequence[str] = ()) -> LiveReceiver:
    """Starts a receiver and waits until it listens wherever it was told to. One that attaches to another says that
    one's listeners first.

    Args:
        db: its database, made where it is not there.
        listen: values of `--listen`; port 0 lets the system choose.
        arguments: further flags.
    """
    flags = [word for address in listen for word in ("--listen", address)]
    process = program.start(
        "receiver", "--db", db, *flags, *arguments,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()
    receiver = LiveReceiver(db, process)
    deadline = time.monotonic() + START_S
    named = {address.partition("=")[0] for address in listen if "=" in address}
    while len(receiver.addresses) < len(listen) or not named <= receiver.addresses.keys():
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            line = ""
        said = line.split()
        if len(said) == 3 and said[0] == "listening":
            receiver.addresses[said[1]] = said[2]
        elif not line:
            process.kill()
            _, error = process.communicate()
            raise AssertionError(f"the receiver did not begin to listen: {error.strip()[-2000:]}")
    return receiver


def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    """Hands on what the process says; "" when it says no more."""
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put("")
