"""A real OpenSSH server on loopback, with a configuration, keys and a client config of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.doubles.ports import random_port

START_S = 20.0
PORTS_TRIED = 20


def find_sshd() -> Path | None:
    """The server's binary, None if there is none here (Debian: openssh-server) or no client."""
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    return Path(found) if found and shutil.which("ssh") and shutil.which("ssh-keygen") else None


def make_key(path: Path) -> None:
    """A new ed25519 key without a passphrase."""
    path.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True, timeout=30, stdin=subprocess.DEVNULL, capture_output=True)


@dataclass
class Sshd:
    """A running server. `url` names the host `cp-1` of `config`, which knows its port, key and host key."""

    binary: Path
    folder: Path
    port: int
    options: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        """The client's configuration, for `ssh -F`."""
        return self.folder / "client_config"

    @property
    def known_hosts(self) -> Path:
        """The host keys that the client knows."""
        return self.folder / "known_hosts"

    @property
    def authorized_keys(self) -> Path:
        """The keys that may log in."""
        return self.folder / "authorized_keys"

    @property
    def url(self) -> str:
        """The host as the program is told it."""
        return "ssh://cp-1"

    def start(self) -> None:
        """Start it (again) and wait until it listens; by its own word, as somebody else's may answer at that port."""
        deadline = time.monotonic() + START_S
        while not self.tries(deadline):
            if time.monotonic() > deadline:
                raise AssertionError(f"port {self.port} is somebody else's")
            time.sleep(0.2)

    def tries(self, deadline: float) -> bool:
        """Start it once; whether it has its port, or somebody else has."""
        command = [str(self.binary), "-D", "-e", "-f", str(self.folder / "sshd_config")]
        path = self.folder / "sshd.log"
        with path.open("ab") as log:
            begin = log.tell()
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        while True:
            ended = self.process.poll() is not None  # first this, then what it has said
            said = path.read_bytes()[begin:].decode(errors="replace")
            if f"Server listening on 127.0.0.1 port {self.port}." in said:
                return True
            if ended and "Address already in use" in said:
                return False
            if ended or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(said[-2000:])
            time.sleep(0.02)

    def sessions(self) -> list[int]:
        """Process ids of its connections, each one's direct child."""
        assert self.process is not None
        return _children(self.process.pid)

    def cut(self) -> None:
        """Kill every connection as a dying link would: without a good-bye."""
        for pid in self.sessions():
            for one in (*_children(pid), pid):  # the unprivileged half first, where there is one
                with suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)

    def stop(self) -> None:
        """End it; connections that are open stay (`cut` ends them)."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)

    def close(self) -> None:
        """End all of it."""
        if self.process is not None and self.process.poll() is None:
            self.cut()
        self.stop()


def _children(pid: int) -> list[int]:
    """The direct children of a process; none once it has ended, which a session may do at any moment."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def start_sshd(
    folder: Path, options: Sequence[str] = (), *, environment: dict[str, str] | None = None, command: str = ""
) -> Sshd:
    """A server in `folder`.

    Args:
        options: lines of sshd_config(5) that come first, so that they win.
        environment: variables of every session there.
        command: put before every command there (ForceCommand); `$SSH_ORIGINAL_COMMAND` is what was asked for.
    """
    binary = find_sshd()
    assert binary is not None
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("host_key", "user_key"):
        make_key(folder / name)
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # where the server goes to drop its rights
    lines = [*options]
    # as a shell in a shell: else bash reads the .bashrc of whoever runs the tests, which may take longer than the rest
    session = {"SHLVL": "1", **(environment or {})}
    lines.append("SetEnv " + " ".join(f"{name}={value}" for name, value in session.items()))
    if command:
        lines.append(f"ForceCommand {command}")
    lines += [
        "ListenAddress 127.0.0.1",
        f"HostKey {folder / 'host_key'}",
        f"AuthorizedKeysFile {folder / 'authorized_keys'}",
        f"PidFile {folder / 'sshd.pid'}",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
        "LogLevel VERBOSE",
    ]
    server = Sshd(binary, folder, 0, tuple(options))
    shutil.copy(folder / "user_key.pub", server.authorized_keys)
    key = (folder / "host_key.pub").read_text().split()
    server.known_hosts.write_text(f"cp-1 {key[0]} {key[1]}\n")
    deadline = time.monotonic() + START_S
    for _ in range(PORTS_TRIED):
        # not one that was free a moment ago: another test, beside this one, may take it meanwhile
        server.port = random_port()
        (folder / "sshd_config").write_text("\n".join([*lines, f"Port {server.port}"]) + "\n")
        if server.tries(deadline):
            break
    else:
        raise AssertionError(f"none of {PORTS_TRIED} ports is free")
    server.config.write_text(
        "Host cp-1\n"
        "  HostName 127.0.0.1\n"
        "  HostKeyAlias cp-1\n"
        f"  Port {server.port}\n"
        f"  User {getpass.getuser()}\n"
        f"  IdentityFile {folder / 'user_key'}\n"
        "  IdentitiesOnly yes\n"
        "  IdentityAgent none\n"
        f"  UserKnownHostsFile {server.known_hosts}\n"
        "  GlobalKnownHostsFile /dev/null\n"
        "  StrictHostKeyChecking ask\n"
    )
    return server
