"""A terminal for measurements: runs a program in a pty, reads all it writes, sends keys, times the paints.

Textual marks a frame with synchronised output (DEC mode 2026) once the terminal says that it knows it; this
one says so. A key is painted when the first frame is complete that holds `marker` (the cursor's colours), so
that frames of the live list are not taken for the answer to a key.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import threading
import time
from collections.abc import Sequence

FRAME_END = b"\x1b[?2026l"
_QUERY = b"\x1b[?2026$p"
_ESCAPE = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.")


class Terminal:
    """A program in a pty of its own."""

    def __init__(
        self, argv: Sequence[str], columns: int = 160, lines: int = 45, environment: dict[str, str] | None = None
    ) -> None:
        self.started = time.perf_counter()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            settings = dict(os.environ, TERM="xterm-256color", COLORTERM="truecolor", **(environment or {}))
            settings.pop("NO_COLOR", None)
            os.execvpe(argv[0], list(argv), settings)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._wake = threading.Condition()
        self._bytes = bytearray()
        self._frames: list[tuple[float, int]] = []  # when a frame was complete, and where it ends
        self._open = True
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        answered = 0
        while True:
            try:
                ready, _, _ = select.select([self._fd], [], [], 1.0)
                data = os.read(self._fd, 1 << 16) if ready else b""
                if ready and not data:
                    break
            except OSError:
                break
            if not data:
                continue
            now = time.perf_counter()
            with self._wake:
                low = max(0, len(self._bytes) - len(FRAME_END) + 1)
                self._bytes += data
                if self._bytes.count(_QUERY) > answered:
                    answered += 1
                    os.write(self._fd, b"\x1b[?2026;2$y")
                at = self._bytes.find(FRAME_END, low)
                while at >= 0:
                    self._frames.append((now, at + len(FRAME_END)))
                    at = self._bytes.find(FRAME_END, at + 1)
                self._wake.notify_all()
        with self._wake:
            self._open = False
            self._wake.notify_all()

    def wait_for(self, text: str, seconds: float = 30.0, since: int = 0) -> float:
        """Seconds from the start of the program until `text` stood in the output, escape sequences aside.

        Raises:
            TimeoutError: it never came.
        """
        end = time.perf_counter() + seconds
        wanted = text.encode()
        seen = -1
        with self._wake:
            while True:
                if len(self._bytes) != seen:
                    seen = len(self._bytes)
                    if wanted in _ESCAPE.sub(b"", bytes(self._bytes[since:])):
                        return time.perf_counter() - self.started
                left = end - time.perf_counter()
                if left <= 0 or not self._open:
                    tail = _ESCAPE.sub(b"", bytes(self._bytes[-4000:])).decode(errors="replace")
                    raise TimeoutError(f"{text!r} never came; the end of the output was: {tail}")
                self._wake.wait(min(left, 0.2))

    def position(self) -> int:
        """How many bytes came so far."""
        with self._wake:
            return len(self._bytes)

    def send(self, keys: str) -> None:
        """Type."""
        os.write(self._fd, keys.encode())

    def key_to_paint(self, key: str, marker: bytes, seconds: float = 10.0) -> float:
        """Seconds from sending a key until a frame that holds `marker` was complete."""
        with self._wake:
            low = len(self._bytes)
            frame = len(self._frames)
        sent = time.perf_counter()
        os.write(self._fd, key.encode())
        end = sent + seconds
        with self._wake:
            while True:
                while frame < len(self._frames):
                    when, at = self._frames[frame]
                    if at > low and marker in self._bytes[low:at]:
                        return when - sent
                    frame += 1
                left = end - time.perf_counter()
                if left <= 0 or not self._open:
                    raise TimeoutError(f"no frame with {marker!r} within {seconds} s of {key!r}")
                self._wake.wait(left)

    def output_bytes(self) -> bytes:
        """All that came."""
        with self._wake:
            return bytes(self._bytes)

    def cpu_seconds(self) -> float:
        """User and system time of the program so far."""
        return cpu_seconds(self.pid)

    def resident_bytes(self) -> int:
        """What the program holds in memory."""
        return resident_bytes(self.pid)

    def close(self) -> int:
        """Press q, then end it; returns its exit code."""
        with contextlib.suppress(OSError):
            os.write(self._fd, b"q")
        code = None
        for attempt in range(100):
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                break
            if attempt == 50:
                os.kill(self.pid, signal.SIGTERM)
            if attempt == 80:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.1)
        os.close(self._fd)
        return -1 if code is None else code


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Resident set of a process."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
