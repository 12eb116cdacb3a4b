"""A command that is run beside the screens: without a terminal, with its output kept in bounds."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tui.clusters.force.asking import NotAsked
from tui.clusters.reach.wire import plain

HEAD_BYTES: Final = 128 << 10
TAIL_BYTES: Final = 128 << 10
"""Of the output the beginning and the end are kept."""
MOST_LINES: Final = 2_000
_LINE_CHARACTERS: Final = 2_000
_PIECE: Final = 16 << 10
_LATE_SECONDS: Final = 1.0
"""For output that comes after the command's end, from processes that it left behind."""

_SCREENS: Final = frozenset(
    (
        *("vi", "vim", "nvim", "nano", "emacs", "less", "more", "man", "top", "htop", "watch", "mc", "dialog"),
        *("ssh", "telnet", "tmux", "screen", "k9s", "k8s-trace-tui"),
    )
)
"""Programs that are nothing without a terminal."""
_SHELLS: Final = frozenset(
    (
        *("sh", "bash", "dash", "zsh", "ksh", "fish", "python", "python3", "ipython", "irb", "node"),
        *("psql", "sqlite3"),
    )
)
"""Programs that ask a terminal for what to do when they are given nothing."""
_TERMINAL: Final = re.compile(r"-[a-z]*t[a-z]*|--tty(?:=true)?|-[a-z]*i[a-z]*|--stdin(?:=true)?")
_WITH_TERMINAL: Final = frozenset(("exec", "attach", "run", "debug"))
_PIPES: Final = frozenset(("|", "||", "&", "&&", ";", ">", ">>", "<", "2>&1", "2>"))
_READING: Final = frozenset(
    ("get", "describe", "logs", "top", "explain", "events", "version", "api-resources", "api-versions")
)
_READING_PAIRS: Final = frozenset(
    (("auth", "can-i"), ("auth", "whoami"), ("rollout", "status"), ("rollout", "history"))
)
_KUBECTL: Final = frozenset(("kubectl", "oc"))
_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")


def words(text: str) -> tuple[str, ...]:
    """A command line as a shell splits it, but nothing else of a shell.

    Raises:
        NotAsked: a quote is open, or it needs a shell.
    """
    try:
        found = tuple(shlex.split(text))
    except ValueError as error:
        raise NotAsked(f"The command cannot be read ({str(error).lower()}): close the quote.") from None
    if special := next((one for one in found if one in _PIPES), ""):
        raise NotAsked(f"{special} needs a shell, and there is none here: write it as sh -c '...'.")
    return found


def refusal(command: Sequence[str], *, read_only: bool = False) -> str:
    """Why a command is not run here, a sentence; "" where it may be.

    It has no terminal, so what needs one is refused; under read-only what may change something, too.
    """
    name = os.path.basename(command[0])
    sub = command[1] if len(command) > 1 else ""
    instead = "run it in a shell as k8s-trace-tui trace -- COMMAND."
    if name in _SCREENS or (name in _KUBECTL and sub == "edit"):
        return f"{plain(' '.join(command[:2]), 60)} wants a terminal, and there is none here: {instead}"
    if name in _SHELLS and not sub:
        return f"{plain(name, 40)} alone waits for input, and there is none here: give it something to do, or {instead}"
    if name in _KUBECTL and sub in _WITH_TERMINAL:
        own = command[2 : command.index("--")] if "--" in command else command[2:]
        if any(_TERMINAL.fullmatch(one) for one in own):
            return f"{name} {sub} with a terminal or input cannot be run here: {instead}"
    return may_change(command) if read_only else ""


def may_change(command: Sequence[str]) -> str:
    """Why a command is not run under read-only, a sentence; "" where it only reads.

    Only kubectl's sub-commands that read are run: what any other program does cannot be known, not even by its
    requests, since it need not make them through the proxy. The sub-command has to come first, so that no value of an
    option is taken for it.
    """
    if command[0] in _KUBECTL and ("".join(command[1:2]) in _READING or tuple(command[1:3]) in _READING_PAIRS):
        return ""
    return (
        "--read-only lets only kubectl's reading sub-commands through (kubectl get ..., describe, logs, top), with"
        " the sub-command first: what others change cannot be known."
    )


@dataclass(frozen=True, slots=True)
class Output:
    """What a command said, on standard output and error in the order in which it came: printable `lines`, and how many
    `bytes` in all; `left_out` bytes in the middle are gone."""

    lines: tuple[str, ...] = ()
    bytes: int = 0
    left_out: int = 0


class Child:
    """A command of a process group and session of its own: no key of our terminal reaches it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it, with standard input closed.

        Raises:
            OSError, ValueError: it cannot be started.
        """
        self._stops = 0
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_bytes = self._bytes = 0
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            list(command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="command-output", daemon=True)
        self._reader.start()

    def wait(self, seconds: float) -> int | None:
        """Its exit code, 128 and the signal's number where one ended it; None where it has not ended in that time."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(_LATE_SECONDS)
        return 128 - code if code < 0 else code

    def stop(self) -> None:
        """Interrupt it as Ctrl-C would; the second time end it, the third time kill it. Does not wait."""
        number = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[min(self._stops, 2)]
        self._stops += 1
        if self._process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def output(self) -> Output:
        """What it has said so far."""
        with self._lock:
            head, tail, total = bytes(self._head), b"".join(self._tail), self._bytes
        left_out = total - len(head) - len(tail)
        if not left_out:
            return Output(_bounded(_lines(head + tail)), total)
        middle = f"... {left_out:,} bytes are left out ..."
        return Output(_bounded([*_lines(head), middle, *_lines(tail)]), total, left_out)

    def _read(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None
        with pipe, suppress(OSError, ValueError):
            while piece := os.read(pipe.fileno(), _PIECE):
                with self._lock:
                    self._bytes += len(piece)
                    room = HEAD_BYTES - len(self._head)
                    self._head += piece[: max(0, room)]
                    if rest := piece[max(0, room) :]:
                        self._tail.append(rest)
                        self._tail_bytes += len(rest)
                    while self._tail_bytes - (len(self._tail[0]) if self._tail else 0) > TAIL_BYTES:
                        self._tail_bytes -= len(self._tail.popleft())


def _lines(data: bytes) -> list[str]:
    text = _ESCAPES.sub("", data.decode("utf-8", "replace")).replace("\r\n", "\n")
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    # of a line that was written over, as progress is, the last state
    return [plain(line.rstrip("\r").rpartition("\r")[2].expandtabs(), _LINE_CHARACTERS) for line in lines]


def _bounded(lines: list[str]) -> tuple[str, ...]:
    if len(lines) <= MOST_LINES:
        return tuple(lines)
    half = MOST_LINES // 2
    return (*lines[:half], f"... {len(lines) - 2 * half:,} lines are left out ...", *lines[-half:])
