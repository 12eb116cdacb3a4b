"""Starts of the program that cost a fork instead of the half second of CPU that its imports take.

`start` and `run` are `subprocess.Popen` and `subprocess.run` for `python -m MODULE ARGUMENT...`. The process they give
is forked off one that has imported the program, did nothing else and has a single thread. It differs from one that was
executed in its parent, in what /proc shows of its command line and environment, and in that modules are there already
which the program might have forgotten to import. Tests of such things use `sys.executable`, as do those on terminals
and those of other users' processes.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, NoReturn

IMPORTED = (
    "receiver.__main__",
    "receiver.ingest.demo",
    "tui.headless",
    "tui.sampling",
    "tui.tracing",
    "kubernetes.config",
)
"""What most starts need; not the screens, which tests start on terminals."""
_AT_START = ("PYTHON", "LC_", "LANG", "OPENBLAS", "OMP_", "GRPC_", "PROTOCOL_BUFFERS")
"""Beginnings of variables that are read when Python starts or when a library is imported."""
_NO_MATTER = ("PYTHONDONTWRITEBYTECODE", "GRPC_VERBOSITY", "OPENBLAS_NUM_THREADS")
"""conftest.py takes the first away for everybody; the others are set by the program itself."""
_LARGEST = 1 << 17
"""Bytes of a message."""


def start(module: str, *arguments: str | os.PathLike[str], **options: Any) -> subprocess.Popen[Any]:
    """`python -m MODULE ARGUMENT...` with the options of `subprocess.Popen`."""
    given = [module, *map(os.fspath, arguments)]
    if _server is not None and _server.can(options):
        return Forked(given, **options)
    return subprocess.Popen([sys.executable, "-m", *given], **options)


def run(
    module: str,
    *arguments: str | os.PathLike[str],
    stdin: Any = subprocess.DEVNULL,
    input: str | bytes | None = None,
    timeout: float = 120.0,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """The same until it ends, with what it wrote: text, unless `text` says otherwise."""
    pipe = subprocess.PIPE
    how = {"stdin": stdin if input is None else pipe, "stdout": pipe, "stderr": pipe, "text": True, **options}
    with start(module, *arguments, **how) as process:
        try:
            out, error = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
        return subprocess.CompletedProcess(process.args, process.wait(), out, error)


class Forked(subprocess.Popen[Any]):
    """A forked start; `args` are the module and its arguments."""

    def _execute_child(
        self,
        args: Any,
        executable: Any,
        preexec_fn: Any,
        close_fds: Any,
        pass_fds: Any,
        cwd: Any,
        env: Any,
        startupinfo: Any,
        creationflags: Any,
        shell: Any,
        *pipes_and_more: Any,
    ) -> None:
        pipes = pipes_and_more[:6]  # each time the end that is read from and the one that is written to
        streams = [own if given == -1 else given for own, given in enumerate((pipes[0], pipes[3], pipes[5]))]
        assert _server is not None
        environment = dict(os.environ if env is None else env)
        self.pid, self._status = _server.start(args, os.path.abspath(cwd or "."), environment, streams)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        look = select.poll()
        look.register(self._status, select.POLLIN)
        if not look.poll(0 if wait_flags & os.WNOHANG else None):
            return 0, 0
        status = int(os.read(self._status, 32) or signal.SIGKILL)
        os.close(self._status)
        return self.pid, status

    def _internal_poll(self, _deadstate: int | None = None) -> int | None:
        lock: threading.Lock = self._waitpid_lock  # type: ignore[attr-defined]
        if self.returncode is None and lock.acquire(False):
            try:
                if self.returncode is None and (ended := self._try_wait(os.WNOHANG))[0]:
                    self._handle_exitstatus(ended[1])  # type: ignore[attr-defined]
            finally:
                lock.release()
        return self.returncode


class _Server:
    """The process that forks, as this one sees it: begun with the first start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._owner, self._user, self._limits = os.getpid(), os.geteuid(), _limits()
        self._read_at_start = _read_at_start(os.environ)
        atexit.register(self.end)

    def can(self, options: dict[str, Any]) -> bool:
        """Whether a fork is what an execution with these options would be."""
        environment = os.environ if options.get("env") is None else options["env"]
        return (
            options.keys() <= {"stdin", "stdout", "stderr", "text", "cwd", "env"}
            and _read_at_start(environment) == self._read_at_start
            and (self._owner, self._user, self._limits) == (os.getpid(), os.geteuid(), _limits())
        )

    def start(self, args: list[str], cwd: str, environment: dict[str, str], streams: list[int]) -> tuple[int, int]:
        """The new process's id, and a pipe that tells its status when it has ended."""
        asked = {"args": args, "cwd": cwd, "environment": environment, "umask": _umask()}
        told, tell = os.pipe()
        with self._lock:
            if self._connection is None:
                self._begin()
            assert self._connection is not None
            try:
                socket.send_fds(self._connection, [json.dumps(asked).encode()], [*streams, tell])
            finally:
                os.close(tell)
            pid = os.read(told, 32)
        if not pid:
            raise RuntimeError("the process that forks has ended")
        return int(pid), told

    def _begin(self) -> None:
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for side in (self._connection, theirs):
            side.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * _LARGEST)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.program", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
            )

    def end(self) -> None:
        """Takes it away; what it started goes on."""
        if self._connection is not None and self._process is not None and self._owner == os.getpid():
            self._connection.close()
            self._connection = None
            self._process.wait()


def _limits() -> list[tuple[int, int]]:
    return [resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")]


def _read_at_start(environment: Any) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_AT_START) and name not in _NO_MATTER}


def _umask() -> int:
    """This process's, without a moment in which it is another one."""
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("Umask:")).split()[1], 8)


# --- in the process that forks --------------------------------------------------------------------
def serve(connection: socket.socket) -> dict[str, Any]:
    """Forks for every message until nobody asks any more. Returns in each fork, with what it was asked to be."""
    for name in IMPORTED:
        importlib.import_module(name)
    alone = len(os.listdir("/proc/self/task")) == 1
    assert alone, "a thread would not be in the forks, but what it holds would be"
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal's Ctrl-C: those that ask end it
    signal.signal(signal.SIGCHLD, lambda *_: None)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    tell: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([connection, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _bury(tell)
        if connection not in ready:
            continue
        message, fds, *_ = socket.recv_fds(connection, _LARGEST, 4)
        if not message:
            os._exit(0)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for stream, fd in enumerate(fds[:3]):
                os.dup2(fd, stream)
            connection.close()
            for fd in (woken, wake, *fds, *tell.values()):
                os.close(fd)
            return dict(json.loads(message))
        os.write(fds[3], b"%d" % pid)
        tell[pid] = fds[3]
        for fd in fds[:3]:
            os.close(fd)


def _bury(tell: dict[int, int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            fd = tell.pop(ended[0])
            with contextlib.suppress(BrokenPipeError):
                os.write(fd, b"%d" % ended[1])
            os.close(fd)


def be(asked: dict[str, Any]) -> NoReturn:
    """What `python -m` does from here on."""
    os.umask(asked["umask"])
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    time.tzset()
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        setattr(sys, name, _stream(number, mode, getattr(sys, name)))
        setattr(sys, f"__{name}__", getattr(sys, name))
    module, *arguments = asked["args"]
    sys.argv = [module, *arguments]
    sys.orig_argv = [sys.executable, "-m", module, *arguments]
    sys.path[0] = asked["cwd"]
    for known in (module, f"{module}.__main__"):
        if not hasattr(sys.modules.get(known), "__path__"):
            sys.modules.pop(known, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()


def _stream(number: int, mode: str, like: Any) -> io.TextIOWrapper:
    """A standard stream as Python opens them, on the file that has its number now."""
    at_once = like.write_through  # PYTHONUNBUFFERED
    binary: Any = os.fdopen(number, f"{mode}b", 0 if at_once and mode == "w" else -1, closefd=False)
    getattr(binary, "raw", binary).name = like.name
    lines = not at_once and (number == 2 or binary.isatty())
    stream = io.TextIOWrapper(binary, like.encoding, like.errors, "\n" if mode == "w" else None, lines, at_once)
    stream.mode = mode  # type: ignore[misc]
    return stream


_server = _Server() if sys.platform == "linux" else None

if __name__ == "__main__":
    be(serve(socket.socket(fileno=int(sys.argv[1]))))
