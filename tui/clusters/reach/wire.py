"""How a script travels: the same two lines of base64 and the same answer, whatever carries them.

A carrier (a local process, ssh, an exec in a pod) starts `sh -c WRAPPER k8s-trace-tui ARGUMENTS` and gives it the bytes
of `packed`. The wrapper reads both lines whole before it runs anything, so a link that breaks before that runs nothing
at all, and neither the length of an argument nor an end of input that a carrier cannot express matters. It evaluates
the script with `$0` set to `k8s-trace-tui`, the arguments as `$1`..., the bytes of `stdin` as its standard input,
`ROOT` exported, and its own text in the variable `SELF_TEXT` (not exported; without trailing newlines). What the script
writes stands between a first and a last line of ours: without the first it was never run, without the last it was cut.
"""

from __future__ import annotations

import base64
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tui.clusters.model import Done

NAME: Final = "k8s-trace-tui"
ROOT_VARIABLE: Final = "K8S_TRACE_TUI_ROOT"
"""What the wrapper takes `ROOT` from on the other side; unset there means the real root."""

ERROR_BYTES: Final = 8 << 10
_BEGIN: Final = b"k8s-trace-tui begins\n"
_END: Final = re.compile(rb"\nk8s-trace-tui ends ([0-9]{1,3})\n$")
_END_BYTES: Final = 64
_NOISE_BYTES: Final = 64 << 10  # what a login shell's start-up files may print before us

WRAPPER: Final = "; ".join(
    (
        # ssh without a login and a container both may lack the directories where crictl and ss are
        'PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin"; export PATH',
        f'ROOT="${{{ROOT_VARIABLE}-}}"; LC_ALL=C; export ROOT LC_ALL',
        f'printf "{_BEGIN.decode().strip()}\\n"',
        "unset SELF_TEXT INPUT_TEXT",  # what comes exported would stay so, and outgrow every argument list
        "IFS= read -r SELF_TEXT && IFS= read -r INPUT_TEXT || exit 125",
        'SELF_TEXT="$(printf %s "$SELF_TEXT" | base64 -d)" || exit 125',
        # a subshell: the script's `exit` ends it, not us
        'printf %s "$INPUT_TEXT" | base64 -d | (unset INPUT_TEXT; eval "$SELF_TEXT")',
        'printf "\\nk8s-trace-tui ends %s\\n" "$?"',
    )
)


def packed(script: str, stdin: bytes) -> bytes:
    """What the wrapper reads: the script and its standard input, a line of base64 each."""
    return base64.b64encode(script.encode()) + b"\n" + base64.b64encode(stdin) + b"\n"


class Answer:
    """Collects what comes back, bounded.

    `started` and `finished` tell how far the script got; `done` is only for a finished one.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._head = bytearray()  # until our first line was seen
        self._out = bytearray()
        self._tail = b""
        self._taken = 0
        self._error = b""
        self.started = False

    def feed(self, data: bytes) -> None:
        """More of standard output."""
        if not self.started:
            self._head += data
            at = self._head.find(_BEGIN)
            if at < 0:
                del self._head[:-_NOISE_BYTES]
                return
            self.started = True
            data = bytes(self._head[at + len(_BEGIN) :])
            self._head.clear()
        self._taken += len(data)
        self._out += data[: max(0, self._most + _END_BYTES - len(self._out))]
        self._tail = (self._tail + data)[-_END_BYTES:]

    def feed_error(self, data: bytes) -> None:
        """More of standard error; its end is kept."""
        self._error = (self._error + data)[-ERROR_BYTES:]

    @property
    def error(self) -> str:
        """The end of standard error as printable text, lines kept."""
        lines = self._error.decode("utf-8", "replace").splitlines()
        return "\n".join(plain(line, ERROR_BYTES) for line in lines)

    @property
    def finished(self) -> bool:
        """Whether the script ran to its end and all of what it wrote came back."""
        return self.started and _END.search(self._tail) is not None

    @property
    def done(self) -> Done:
        """The result of a script that finished."""
        end = _END.search(self._tail)
        if end is None:
            raise ValueError("the script has not finished")
        own = self._taken - (len(self._tail) - end.start())
        return Done(int(end[1]), bytes(self._out[: min(own, self._most)]), self.error)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a local process ended: its exit code, None when it was ended for taking too long."""

    code: int | None


def run_process(
    command: Sequence[str],
    stdin: bytes,
    answer: Answer,
    *,
    timeout: float,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Run a process in a session of its own, feed it, and hand what it writes to `answer`.

    When `timeout` seconds are over, its whole process group is killed. A child that it left running and that holds
    its output is not waited for.

    Raises:
        OSError: it cannot be started.
    """
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C in the terminal must not cut a script in the middle
        env=dict(environment) if environment is not None else None,
        bufsize=0,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    pipes = (process.stdin, process.stdout, process.stderr)
    deadline = time.monotonic() + timeout
    ended = 0.0
    try:
        with selectors.DefaultSelector() as selector:
            for pipe in pipes:
                os.set_blocking(pipe.fileno(), False)
            waiting = memoryview(stdin)
            if waiting:
                selector.register(process.stdin, selectors.EVENT_WRITE)
            else:
                process.stdin.close()
            selector.register(process.stdout, selectors.EVENT_READ, answer.feed)
            selector.register(process.stderr, selectors.EVENT_READ, answer.feed_error)
            while selector.get_map():
                now = time.monotonic()
                if now > deadline:
                    if process.poll() is None and not answer.finished:
                        return Outcome(None)
                    break
                if not ended and process.poll() is not None:
                    ended = now
                if ended and now - ended > 0.5:
                    break  # somebody else holds its output
                for key, _ in selector.select(min(0.1, deadline - now)):
                    if key.data is None:
                        try:
                            waiting = waiting[os.write(key.fd, waiting[: 64 << 10]) :]
                        except BlockingIOError:
                            continue
                        except OSError:
                            waiting = waiting[:0]  # it reads no more
                        if not waiting:
                            selector.unregister(process.stdin)
                            process.stdin.close()
                        continue
                    try:
                        data = os.read(key.fd, 64 << 10)
                    except BlockingIOError:
                        continue
                    except OSError:
                        data = b""
                    if data:
                        key.data(data)
                    else:
                        selector.unregister(key.fileobj)
        try:
            return Outcome(process.wait(max(0.05, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            return Outcome(0 if answer.finished else None)
    finally:
        end_group(process)
        for pipe in pipes:
            with suppress(OSError):
                pipe.close()


def end_group(process: subprocess.Popen[bytes], patience: float = 2.0) -> None:
    """Kill a process that leads a group of its own, with its group, and take its exit code."""
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):  # sudo's belongs to root: closing its pipes must do
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)


def plain(text: object, limit: int = 200) -> str:
    """A text of somebody else's for a sentence: one line, no control or format character, at most `limit` long."""
    return "".join(character if character.isprintable() else "?" for character in str(text)[:limit])


def last_line(text: str) -> str:
    """The last line that says something, at most 200 characters, without a final full stop; "" for none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200].rstrip(".") if lines else ""
