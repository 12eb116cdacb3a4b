"""A real sshd on a node, and the way to it: from the node itself, and from this machine through its loopback."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.doubles.sshd import find_sshd, make_key
from tests.real.lan import Forward
from tests.real.node import HOME, Node
from tests.real.processes import wait_until
from tests.real.workspace import Unavailable


class NodeSshd:
    """sshd on a node, for root, by key. On the node itself `ssh root@NODE` works without a question.

    Attributes:
        config: for `ssh -F` on this machine; it knows the node by its name.
        url: the node as the program is told it there.
    """

    def __init__(self, node: Node) -> None:
        binary = find_sshd()
        if binary is None:
            raise Unavailable("sshd or ssh is not here (Debian: openssh-server, openssh-client)")
        self._node = node
        self.url = f"ssh://{node.name}"
        folder = node.run_folder.path / "ssh"
        folder.mkdir(exist_ok=True, mode=0o700)
        self.config = folder / "config"
        for name in ("host_key", "user_key"):
            make_key(folder / name)
        self._lay_on_the_node(folder)
        self._process = node.process("sshd", [str(binary), "-D", "-e", "-f", "/etc/ssh/sshd_real"])
        self._process.start()
        self._forward = Forward(node.lan, (node.address, 22))
        kind, key = (folder / "host_key.pub").read_text().split()[:2]
        known = folder / "known_hosts"
        known.write_text(f"{node.name} {kind} {key}\n")
        self.config.write_text(
            f"Host {node.name}\n"
            f"  HostName 127.0.0.1\n  Port {self._forward.port}\n  HostKeyAlias {node.name}\n  User root\n"
            f"  IdentityFile {folder / 'user_key'}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n"
        )
        wait_until(
            lambda: node.run("ssh", f"root@{node.name}", "true", check=False).returncode == 0,
            f"sshd of {node.name} lets root in",
            by=self._process,
        )

    @property
    def pid(self) -> int:
        """Of the process that listens, as the machine counts."""
        return self._process.pid

    def close(self) -> None:
        """End it; sessions end with their connection."""
        self._forward.close()
        self._process.kill()

    def _lay_on_the_node(self, folder: Path) -> None:
        node = self._node
        own = node.path(f"{HOME}/.ssh")
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
        own.chmod(0o700)
        kind, key = (folder / "host_key.pub").read_text().split()[:2]
        (own / "known_hosts").write_text(f"{node.name} {kind} {key}\n")
        shutil.copy(folder / "user_key.pub", own / "authorized_keys")
        shutil.copy(folder / "user_key", own / "id_ed25519")
        for name in ("authorized_keys", "id_ed25519"):
            (own / name).chmod(0o600)
        node.path("/run/sshd").mkdir(exist_ok=True, mode=0o755)
        shutil.copy(folder / "host_key", node.path("/etc/ssh/host_key_real"))
        node.path("/etc/ssh/host_key_real").chmod(0o600)
        node.path("/etc/ssh/sshd_real").write_text(
            "Port 22\n"
            f"ListenAddress {node.address}\n"
            "HostKey /etc/ssh/host_key_real\n"
            "PidFile /run/sshd.pid\n"
            "PermitRootLogin prohibit-password\n"
            "PasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\n"
            "UsePAM no\n"
            "MaxStartups 100\n"
        )
