"""A real terminal: a program in a tmux window of its own server, keys in, screen text out."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PATIENCE_S = 20.0
"""For something to appear on a busy machine; a healthy start takes half a second."""

TMUX = shutil.which("tmux")


class Tmux:
    """One window. The program runs in a shell that afterwards writes what became of it."""

    def __init__(self, folder: Path, columns: int = 80, lines: int = 24) -> None:
        self._socket = folder / "tmux.sock"
        self._ended = folder / "ended"
        self._folder = folder
        self._columns, self._lines = columns, lines

    def start(self, argv: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Runs a program; environment variables with the value "" are unset."""
        inside = {"TERM": "tmux-256color", "LANG": "C.UTF-8", "COLORTERM": "truecolor", **(environment or {})}
        words = [f"{name}={value}" for name, value in inside.items() if value]
        unset = [part for name in ("LC_ALL", "LC_CTYPE", "NO_COLOR", "COLUMNS", "LINES") for part in ("-u", name)]
        program = shlex.join(["env", *unset, *words, *map(str, argv)])
        script = self._folder / "run.sh"
        script.write_text(
            f"before=$(stty -g)\n{program}\ncode=$?\n"
            f'[ "$(stty -g)" = "$before" ] && mode=restored || mode=broken\n'
            f'echo "$code $mode" > {shlex.quote(str(self._ended))}.tmp\n'
            f"mv {shlex.quote(str(self._ended))}.tmp {shlex.quote(str(self._ended))}\n"
            "echo after the program\nexec sleep 600\n"
        )
        size = ["-x", str(self._columns), "-y", str(self._lines)]
        self._tmux("-f", "/dev/null", "new-session", "-d", "-s", "test", *size, f"sh {shlex.quote(str(script))}")
        self._tmux("set", "-g", "status", "off")
        self._tmux("resize-window", "-t", "test", *size)

    def _tmux(self, *arguments: str) -> str:
        assert TMUX is not None
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            [TMUX, "-u", "-S", str(self._socket), *arguments],
            capture_output=True, text=True, timeout=30, check=False, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, f"tmux {arguments}: {done.stderr}"
        return done.stdout

    def keys(self, *keys: str) -> None:
        """Presses keys by tmux's names: "Enter", "Escape", "C-c", "q"."""
        self._tmux("send-keys", "-t", "test", *keys)

    def type(self, text: str) -> None:
        """Types characters as they are."""
        self._tmux("send-keys", "-t", "test", "-l", text)

    def screen(self, colours: bool = False) -> str:
        """What the terminal shows now."""
        return self._tmux("capture-pane", "-t", "test", "-p", *(["-e"] if colours else []))

    def resize(self, columns: int, lines: int) -> None:
        """Changes the size of the terminal."""
        self._tmux("resize-window", "-t", "test", "-x", str(columns), "-y", str(lines))

    def ask(self, variable: str) -> str:
        """A format variable of tmux: `cursor_flag`, `alternate_on`, `pane_title`, ..."""
        return self._tmux("display-message", "-t", "test", "-p", f"#{{{variable}}}").strip()

    def wait_for(self, text: str | re.Pattern[str], seconds: float = PATIENCE_S) -> str:
        """The screen once it shows `text`."""
        pattern = re.compile(re.escape(text)) if isinstance(text, str) else text
        return self._until(lambda screen: pattern.search(screen) is not None, f"no {pattern.pattern!r}", seconds)

    def wait_until_gone(self, text: str, seconds: float = PATIENCE_S) -> str:
        """The screen once it does not show `text` any more."""
        return self._until(lambda screen: text not in screen, f"still {text!r}", seconds)

    def _until(self, done: Callable[[str], bool], what: str, seconds: float) -> str:
        deadline = time.monotonic() + seconds
        while True:
            screen = self.screen()
            if done(screen):
                return screen
            assert time.monotonic() < deadline, f"{what} after {seconds:.0f} s on:\n{screen}"
            time.sleep(0.05)

    def ended(self, seconds: float = PATIENCE_S) -> tuple[int, str]:
        """(exit code, "restored" or "broken"): what the program left behind, once it has ended."""
        deadline = time.monotonic() + seconds
        while not self._ended.exists():
            assert time.monotonic() < deadline, f"still running after {seconds:.0f} s:\n{self.screen()}"
            time.sleep(0.05)
        code, mode = self._ended.read_text().split()
        return int(code), mode

    def processes(self) -> list[int]:
        """Process ids of the program: children of the window's shell."""
        shell = self.ask("pane_pid")
        done = subprocess.run(["ps", "-o", "pid=", "--ppid", shell], capture_output=True, text=True, check=False)
        return [int(pid) for pid in done.stdout.split()]

    @staticmethod
    def until_gone(pid: int, seconds: float = PATIENCE_S) -> None:
        """Waits until there is no such process."""
        deadline = time.monotonic() + seconds
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < deadline, f"{pid} is still there after {seconds:.0f} s"
            time.sleep(0.05)

    def close(self) -> None:
        """Ends the window with all that runs in it."""
        if self._socket.exists():
            self._tmux("kill-server")
            self._socket.unlink(missing_ok=True)
