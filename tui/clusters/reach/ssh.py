"""`ssh://[user@]host[:port]`: a host through the system's ssh, with the operator's own config, jump hosts and agent.

One connection a host (ssh_config(5), ControlMaster): a master that we start and that ends with us, because its remote
command reads our pipe; scripts and forwardings go through its socket and never open a connection of their own. Nothing
ever asks on the terminal (BatchMode): a question becomes one sentence with the way out.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv6Address
from pathlib import Path
from typing import IO, Any, Final, Protocol
from urllib.parse import unquote

from receiver.plain_text import shell_operand
from tui.clusters.model import Done, ReachError
from tui.clusters.reach.private_folder import private_folder
from tui.clusters.reach.wire import NAME, WRAPPER, Answer, end_group, last_line, packed, plain, run_process

CONNECT_SECONDS: Final = 10
"""For TCP and the key exchange; jump hosts and authentication come on top (`_READY_SECONDS`)."""
ALIVE_SECONDS: Final = 5
"""Between two questions whether the other side still lives; three without an answer end the connection."""
OTLP_PORT: Final = 4317
_READY_SECONDS: Final = 30.0
_PAUSES: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds until a broken tunnel is opened again: after the first, second, ... failure in a row."""
_RELISTEN_SECONDS: Final = 10.0
_LOOPBACK_PORT: Final = re.compile(r"127\.0\.0\.1:[0-9]{1,5}")
_URL: Final = re.compile(
    r"ssh://(?:(?P<user>[^/:\[\]]*)@)?(?:\[(?P<address>[^/@\[\]]*)\]|(?P<name>[^/:@\[\]]*))(?::(?P<port>[0-9]{1,5}))?/*"
)
_NAME: Final = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,254}")
_ADDRESS: Final = re.compile(r"[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9_.-]{1,32})?")
_USER: Final = re.compile(r"[A-Za-z0-9_.@\\][A-Za-z0-9_.@\\-]{0,63}")

# Becomes root where the login is not; "$1" is the wrapper, so that there is one level of quoting only.
_AS_ROOT: Final = (
    'w="$1"; shift; if [ "$(id -u)" = 0 ]; then exec sh -c "$w" ' + NAME + ' "$@"; '
    'else exec sudo -n -- sh -c "$w" ' + NAME + ' "$@"; fi'
)
_PORT_SCRIPT: Final = r"""
hex=$(printf '%04X' "$1")
if cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v p=":$hex" '$4 == "0A" && substr($2, length($2) - 4) == p { f = 1 } END { exit f ? 0 : 1 }'; then
  echo busy
  ss -ltnpH "sport = :$1" 2>/dev/null | sed -n 's/.*users:(("\([^"]*\)",pid=\([0-9]*\).*/\1 (pid \2)/p' | head -n 1
else
  echo free
fi
"""  # noqa: E501


def _parts(url: str) -> tuple[str, str, int | None]:
    """User ("" for none), host and port of `ssh://[user@]host[:port]`: what becomes arguments of ssh, so nothing that
    begins with a dash, and nothing that ssh or a shell in the operator's ssh config would take apart.

    Raises:
        ReachError: the URL is not of that form.
    """
    found = _URL.fullmatch(url)
    if found is not None:
        user, port = unquote(found["user"] or ""), int(found["port"] or 22)
        host = unquote(found["name"] or found["address"] or "")
        right = _NAME.fullmatch(host) if found["address"] is None else _ADDRESS.fullmatch(host) and _is_ipv6(host)
        if right and (not user or _USER.fullmatch(user)) and 0 < port < 65_536:
            return user, host, port if found["port"] else None
    raise ReachError(f"{plain(url)!r} does not name a host: write ssh://USER@HOST or ssh://USER@HOST:PORT.")


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


class Control(Protocol):
    """What asks a running receiver: `receiver.control.ControlClient`, or one that mends itself."""

    def request(self, op: str, **arguments: Any) -> dict[str, Any]:
        """One question, one answer; raises an exception whose str() is a sentence."""


class SshHost:
    """A host behind ssh. Several threads may run scripts at a time."""

    alive = True

    def __init__(self, url: str, *, config: Path | None = None) -> None:
        """Nothing is opened before the first `run`.

        Args:
            url: `ssh://[user@]host[:port]`; `host` may be a name from the operator's ssh config.
            config: another file than ~/.ssh/config.

        Raises:
            ReachError: the URL is not of that form.
        """
        user, host, port = _parts(url)
        self.name = url.rstrip("/")
        self.host = host
        self._destination = f"{user}@{host}" if user else host
        self._options = ["-F", str(config)] if config is not None else []
        if port is not None:
            self._options += ["-p", str(port)]
        self._directory: Path | None = None
        self._master: subprocess.Popen[bytes] | None = None
        self._words: IO[bytes] | None = None
        self._lock = threading.RLock()
        self._closed = False

    # --- scripts ------------------------------------------------------------------------------------
    def run(
        self,
        script: str,
        arguments: Sequence[str] = (),
        *,
        stdin: bytes = b"",
        timeout: float = 30.0,
        most: int = 8 << 20,
    ) -> Done:
        """Run a script there as root, by `sudo -n` where the login is not, as `Host.run` says.

        Raises:
            ReachError: there is no way there, root is refused, the link broke, or it took longer than `timeout`
                seconds (which counts from when the connection is there).
        """
        self.connect()
        command = shlex.join(["exec", "sh", "-c", _AS_ROOT, NAME, WRAPPER, *arguments])
        answer = Answer(most)
        try:
            outcome = run_process(
                [*self._through_master(), "--", self._destination, command],
                packed(script, stdin),
                answer,
                timeout=timeout,
            )
        except OSError as error:
            raise _no_ssh(error) from error
        if answer.finished:
            return answer.done
        if outcome.code is None:
            raise ReachError(
                f"The script on {self.name} did not end within {timeout:g} s and is no longer waited for: is the host"
                " overloaded, or the link hanging?"
            )
        raise self._why_not_run(answer, outcome.code)

    def _why_not_run(self, answer: Answer, code: int) -> ReachError:
        error = answer.error
        if code != 255 and not answer.started:
            words = last_line(error)
            if "sudo" in error:
                who = self._destination.rpartition("@")[0] or "the user there"
                return ReachError(
                    f"Root is needed on {self.name}, and sudo refuses {who} without a password ({words}): name"
                    " ssh://root@HOST, or allow it by NOPASSWD."
                )
            return ReachError(
                f"No script can be run on {self.name} ({words or f'exit code {code}'}): does that login give a shell?"
            )
        if answer.started:
            return ReachError(
                f"The link to {self.name} broke while a script ran: what it had begun may go on there; ask again for"
                " its state."
            )
        return ReachError(
            f"{self.name} refuses another session ({last_line(error) or 'no reason given'}): is MaxSessions of its"
            " sshd very low?"
        )

    # --- the connection -------------------------------------------------------------------------------
    @property
    def connected(self) -> bool:
        """Whether the connection is there, as far as is known without asking."""
        master = self._master
        return master is not None and master.poll() is None and self._socket.exists()

    def connect(self) -> None:
        """Open the connection unless it is there.

        Raises:
            ReachError: one sentence why not.
        """
        with self._lock:
            if self._closed:
                raise ReachError(f"{self.name} was closed: name the host again.")
            if self.connected:
                return
            self._drop()
            self._open()

    @property
    def _socket(self) -> Path:
        if self._directory is None:
            self._directory = private_directory()
        return self._directory / "m"

    def _open(self) -> None:
        path = self._socket
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - not a pipe: nobody would read it for hours
        command = ["ssh", *self._options, *_COMMON, *_MASTER, "-M", "-S", str(path), "--", self._destination, _KEEP]
        try:
            self._master = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._words, start_new_session=True
            )
        except OSError as error:
            raise _no_ssh(error) from error
        deadline = time.monotonic() + _READY_SECONDS
        while not path.exists():
            if self._master.poll() is not None:
                words = self._last_words()
                self._drop()
                raise why_no_connection(self.name, self._destination, words)
            if time.monotonic() > deadline:
                self._drop()
                raise ReachError(
                    f"{self.name} did not let us in within {_READY_SECONDS:.0f} s: try"
                    f" `ssh {shell_operand(self._destination)}` by hand to see what it waits for."
                )
            time.sleep(0.02)

    def _last_words(self) -> str:
        if self._words is None:
            return ""
        with suppress(OSError, ValueError):
            self._words.seek(0)
            return self._words.read(64 << 10).decode("utf-8", "replace")
        return ""

    def _drop(self) -> None:
        if self._master is not None:
            if self._master.stdin is not None:
                with suppress(OSError):
                    self._master.stdin.close()
            with suppress(ProcessLookupError):
                self._master.terminate()  # so that it takes its socket away and says good-bye
            with suppress(subprocess.TimeoutExpired):
                self._master.wait(2.0)
            end_group(self._master)
            self._master = None
        if self._words is not None:
            self._words.close()
            self._words = None
        if self._directory is not None:
            (self._directory / "m").unlink(missing_ok=True)

    def _through_master(self) -> list[str]:
        # Should the socket be gone, ssh would quietly connect by itself; this ProxyCommand makes that fail at once.
        alone = ["-o", "ControlMaster=no", "-o", "ProxyCommand=exit 255"]
        return ["ssh", *self._options, *_COMMON, *alone, "-S", str(self._socket)]

    # --- forwarding ---------------------------------------------------------------------------------
    def forward(self, port: int, target: str) -> None:
        """Let `127.0.0.1:port` of the host lead to `target` here, for as long as the connection lasts.

        Args:
            target: the path of a unix socket, or `127.0.0.1:PORT`.

        Raises:
            ReachError: the host refuses it, with the likely reason.
        """
        self.connect()
        answer = Answer(0)
        spec = f"127.0.0.1:{port}:{target}"
        command = [*self._through_master(), "-O", "forward", "-R", spec, "--", self._destination]
        try:
            outcome = run_process(command, b"", answer, timeout=15.0)
        except OSError as error:
            raise _no_ssh(error) from error
        if outcome.code == 0:
            return
        if not self.connected:
            raise ReachError(f"The link to {self.name} broke before the tunnel was there: try again.")
        raise self._why_not_forward(port, answer.error)

    def _why_not_forward(self, port: int, error: str) -> ReachError:
        out = "run this program there, or give the API server another port with --endpoint"
        try:
            found = self.run(_PORT_SCRIPT, [str(port)], timeout=10.0).out.decode("utf-8", "replace").split("\n")
        except ReachError:
            found = [""]
        if found[0] == "busy":
            holder = f"by {plain(found[1])}" if len(found) > 1 and found[1] else "there by another program"
            return ReachError(
                f"Port {port} of {self.name} is in use {holder}, so no tunnel can begin at it: stop that, or {out}."
            )
        if found[0] == "free":
            return ReachError(
                f"The sshd of {self.name} allows no tunnel from its port {port} (AllowTcpForwarding or PermitListen"
                f" in its sshd_config): {out}."
            )
        return ReachError(f"No tunnel can begin at port {port} of {self.name} ({last_line(error)}): {out}.")

    def cancel(self, port: int, target: str) -> None:
        """End a forwarding; that it is gone already is no error."""
        if not self.connected:
            return
        spec = f"127.0.0.1:{port}:{target}"
        with suppress(OSError):
            run_process(
                [*self._through_master(), "-O", "cancel", "-R", spec, "--", self._destination],
                b"",
                Answer(0),
                timeout=5.0,
            )

    def close(self) -> None:
        """End the connection and all that goes through it."""
        with self._lock:
            self._closed = True
            self._drop()
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)
                self._directory = None


_KEEP: Final = "exec cat"  # ends when our end of the pipe does, also when we are killed
_COMMON: Final = tuple(
    part
    for option in (
        "BatchMode=yes",
        "LogLevel=ERROR",
        "RequestTTY=no",
        "RemoteCommand=none",
        "PermitLocalCommand=no",
        "ForwardX11=no",
        "ForwardAgent=no",
    )
    for part in ("-o", option)
)
_MASTER: Final = tuple(
    part
    for option in (
        "ControlPersist=no",
        "ClearAllForwardings=yes",  # those of the operator's config are not for this connection
        f"ConnectTimeout={CONNECT_SECONDS}",
        f"ServerAliveInterval={ALIVE_SECONDS}",
        "ServerAliveCountMax=3",
    )
    for part in ("-o", option)
)


def private_directory() -> Path:
    """A new directory of ours alone with a path short enough for sockets (ssh adds 17 bytes to its own's)."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > 30:
        base = "/tmp"
    return private_folder("ktt", Path(base))


def _no_ssh(error: OSError) -> ReachError:
    return ReachError(f"The ssh program cannot be started ({error.strerror}): install an OpenSSH client.")


def why_no_connection(name: str, destination: str, words: str) -> ReachError:
    """What ssh said when it got nowhere, as one sentence with the way out. `words` is hostile: the host wrote it."""
    text = words.lower()
    by_hand = f"`ssh {shell_operand(destination)}`"
    said = last_line(plain(last_line(words)))
    if "remote host identification has changed" in text:
        return ReachError(
            f"The host key of {name} is not the one that is known: find out why before you go on; if it is right, take"
            " the old one out with ssh-keygen -R."
        )
    if "host key verification failed" in text or "no matching host key" in text:
        return ReachError(f"The host key of {name} is not known yet: connect once by hand with {by_hand} and check it.")
    if "permission denied" in text or "too many authentication failures" in text:
        return ReachError(
            f"{name} takes none of our keys, and nothing may ask for a password or passphrase here ({said}): load the"
            " key with ssh-add, or name another user."
        )
    if "could not resolve" in text:
        return ReachError(f"{name} is not a known host name: check it, or your ssh config.")
    if "connection refused" in text:
        return ReachError(f"No sshd answers at {name} (connection refused): check host and port.")
    if "timed out" in text or "no route to host" in text or "network is unreachable" in text:
        return ReachError(f"{name} cannot be reached ({said}): check the network, or a jump host in your ssh config.")
    if "bad configuration option" in text or "bad owner or permissions" in text:
        return ReachError(f"Your ssh config is not accepted ({said}): correct it first.")
    return ReachError(f"No connection to {name} ({said or 'ssh gave no reason'}): try {by_hand} by hand.")


# --- the tunnel -----------------------------------------------------------------------------------------
class Tunnel:
    """Spans of a host, through ssh, to a listener of their own in a running receiver.

    `127.0.0.1:PORT` of the host leads to a socket that the receiver listens on under the host's name, so that every
    span says where it came from. A thread opens it again when the link breaks, until `close`.
    """

    def __init__(self, host: SshHost, control: Control, name: str, port: int, pauses: Sequence[float]) -> None:
        self._host = host
        self._control = control
        self._pauses = pauses
        self.name = name
        self.port = port
        self._directory = private_directory()
        self._address = f"unix:{self._directory / 'o'}"
        self._target = str(self._directory / "o")
        self._problem = ""
        self._opened = 0
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def problem(self) -> str:
        """One sentence while it is down, "" while it is up."""
        return self._problem

    @property
    def address(self) -> str:
        """Where the receiver listens for it."""
        return self._address

    @property
    def opened(self) -> int:
        """How often it was opened: more than once means that the link broke."""
        return self._opened

    def _begin(self) -> None:
        try:
            self._listen()
            self._host.forward(self.port, self._target)
        except BaseException:
            self._unlisten()
            shutil.rmtree(self._directory, ignore_errors=True)
            raise
        self._opened = 1
        self._thread = threading.Thread(target=self._watch, name=f"tunnel {self.name}", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        from receiver.control import ControlError

        try:
            self._control.request("listen", name=self.name, address=self._address)
            return
        except ControlError as refused:
            # A receiver of another user's cannot make a socket in our directory: a loopback port then.
            problem = refused
        try:
            reply = self._control.request("listen", name=self.name, address="127.0.0.1:0")
        except ControlError:
            raise ReachError(f"The receiver takes no listener for {self._host.name}: {problem}") from problem
        address = str(reply["listener"]["address"])
        if not _LOOPBACK_PORT.fullmatch(address):  # another user's receiver may say anything, and we would lead there
            raise ReachError(
                f"The receiver listens for {self._host.name} on {plain(address, 80)}, which is not loopback."
            )
        self._address = self._target = address

    def _unlisten(self) -> None:
        from receiver.control import ControlError

        with suppress(ControlError):
            self._control.request("unlisten", name=self.name, address=self._address)

    def _listened(self) -> bool:
        status = self._control.request("status")
        return any(one["address"] == self._address and not one["error"] for one in status["listeners"])

    def _watch(self) -> None:
        from receiver.control import ControlError

        master = self._host._master
        failures, looked = 0, time.monotonic()
        pause = 0.25
        while not self._ends.wait(pause):
            pause = 0.25
            if time.monotonic() - looked > _RELISTEN_SECONDS:  # a receiver that was started anew knows nothing of us
                looked = time.monotonic()
                with suppress(ControlError, ReachError, KeyError, TypeError):
                    if not self._listened():
                        before = self._target
                        self._listen()
                        if self._target != before:
                            self._host.cancel(self.port, before)
                            master = None
            if master is not None and master is self._host._master and self._host.connected:
                continue
            self._problem = self._problem or f"The link to {self._host.name} broke: the tunnel is being opened again."
            try:
                self._host.connect()
                master = self._host._master
                self._host.forward(self.port, self._target)
            except ReachError as problem:
                self._problem = str(problem)
                master = None
                pause = self._pauses[min(failures, len(self._pauses) - 1)]
                failures += 1
            else:
                self._problem, failures = "", 0
                self._opened += 1

    def close(self) -> None:
        """Close it on the host and in the receiver. The host's connection stays."""
        self._ends.set()
        if self._thread is not None:
            self._thread.join(_READY_SECONDS)
        self._host.cancel(self.port, self._target)
        self._unlisten()
        shutil.rmtree(self._directory, ignore_errors=True)


def tunnel(
    host: SshHost, control: Control, *, name: str = "", port: int = OTLP_PORT, pauses: Sequence[float] = _PAUSES
) -> Tunnel:
    """Open the tunnel of a host: a listener in the running receiver, and `127.0.0.1:port` of the host leading to it.

    Args:
        host: stays open and belongs to the caller.
        control: asks the receiver.
        name: of the listener, the source of its spans; "" takes the host's name.
        port: where the host's API server sends its spans.
        pauses: seconds between attempts to open it again.

    Raises:
        ReachError: the host or the receiver refuses it; nothing is left open.
    """
    made = Tunnel(host, control, listener_name(name or host.host), port, pauses)
    made._begin()
    return made


def listener_name(text: str) -> str:
    """A name that the receiver takes for a listener: one word of at most 64 characters."""
    return "".join(c if c.isalnum() or c in "._-@" else "-" for c in text)[:64] or "host"
