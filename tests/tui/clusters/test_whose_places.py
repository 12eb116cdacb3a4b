"""Directories, sockets and addresses that another user may have chosen: none leads root anywhere."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from receiver.ingest.address import Address, ListenError
from tests.somebody_else import UID, directory_of, listing, needs_root
from tui.clusters import doctor
from tui.clusters.force import identity
from tui.clusters.model import ClusterError, ReachError
from tui.clusters.reach.contexts import contexts, load_without_files
from tui.clusters.reach.private_folder import private_folder
from tui.clusters.reach.ssh import Tunnel
from tui.terminal_text import clock


@needs_root
def test_no_private_folder_in_the_tmpdir_of_a_user_who_became_root() -> None:
    """Whoever owns TMPDIR could put a kubeconfig of his own in its place."""
    with directory_of(UID) as theirs:
        before = listing(theirs)
        made = private_folder("k8s-trace-tui-test-whose", theirs)
        try:
            assert made.parent == Path("/tmp")
            assert stat.S_IMODE(made.stat().st_mode) == 0o700
        finally:
            made.rmdir()
        assert listing(theirs) == before


def test_a_private_folder_of_our_own_is_where_it_was_asked_for(tmp_path: Path) -> None:
    assert private_folder("k8s-trace-tui-test-whose", tmp_path).parent == tmp_path


@needs_root
@pytest.mark.parametrize("there", ["nothing", "socket"])
def test_root_listens_on_no_socket_in_another_users_directory(there: str) -> None:
    import socket

    with directory_of(UID) as theirs:
        if there == "socket":
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(str(theirs / "otlp.sock"))
        before = listing(theirs)
        with pytest.raises(ListenError, match=r"belongs to somebody else .*--listen"):
            Address.parse(f"unix:{theirs}/otlp.sock").listen()
        assert listing(theirs) == before


@needs_root
def test_no_identity_is_kept_in_another_users_directory(tmp_path: Path) -> None:
    with directory_of(UID) as theirs:
        before = listing(theirs)
        with pytest.raises(ClusterError, match="sudo -H"):
            identity._make_private(theirs / "identities")
        assert listing(theirs) == before
        place = identity._file_of("lab", theirs)
        place.write_bytes(b"a certificate of somebody's choice")
        place.chmod(0o600)
        found, said = identity.stored("lab", "https://lab", directory=theirs)
        assert found is None
        assert "is not used" in said


@needs_root
def test_the_doctor_dials_no_socket_that_somebody_else_names(tmp_path: Path) -> None:
    import socket

    own = tmp_path / "own.sock"
    with directory_of(UID) as theirs, socket.socket(socket.AF_UNIX) as one:
        one.bind(str(own))
        (theirs / "link.sock").symlink_to(own)
        os.chown(theirs / "link.sock", UID, UID, follow_symlinks=False)
        named = ["127.0.0.1:4317", f"unix:{theirs}/link.sock", f"unix:{own}", "unix:/nowhere", "unix:\0"]
        status = {"listeners": [{"name": "x", "address": one, "tls": False, "error": None} for one in named]}
        assert doctor._dialable(status) == ["127.0.0.1:4317", f"unix:{own}"]


class _Names:
    """A receiver that refuses a socket, and says of a port that it is anything."""

    def __init__(self, address: str) -> None:
        self._address = address

    def request(self, op: str, **arguments: Any) -> dict[str, Any]:
        if str(arguments["address"]).startswith("unix:"):
            from receiver.control import ControlError

            raise ControlError("No.")
        return {"listener": {"name": "x", "address": self._address, "error": None, "tls": False}}


@pytest.mark.parametrize("named", ["10.0.0.1:22", "unix:/run/docker.sock", "/run/docker.sock", "127.0.0.1:80:x:1", ""])
def test_a_tunnel_leads_to_loopback_only(named: str) -> None:
    class Host:
        host = name = "cp-1"

    made = Tunnel(Host(), _Names(named), "cp-1", 4317, (1.0,))  # type: ignore[arg-type]
    with pytest.raises(ReachError, match="is not loopback"):
        made._listen()
    good = Tunnel(Host(), _Names("127.0.0.1:4444"), "cp-1", 4317, (1.0,))  # type: ignore[arg-type]
    good._listen()
    assert good.address == "127.0.0.1:4444"


def test_the_latest_time_that_a_status_may_tell_is_shown() -> None:
    assert clock((1 << 63) - 1, True)


@needs_root
def test_root_reads_a_kubeconfig_in_somebody_elses_home_only_where_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which program is run to log in."""
    with directory_of(UID) as theirs:
        file = theirs / ".kube" / "config"
        file.parent.mkdir()
        ran = theirs / "ran"
        plugin = {"command": "touch", "args": [str(ran)], "interactiveMode": "Never"}
        user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", **plugin}}
        content = {
            "current-context": "lab",
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "operator"}}],
            "clusters": [{"name": "lab", "cluster": {"server": "https://127.0.0.1:1"}}],
            "users": [{"name": "operator", "user": user}],
        }
        file.write_text(json.dumps(content))
        monkeypatch.setenv("HOME", str(theirs))
        monkeypatch.delenv("KUBECONFIG", raising=False)
        for use in (contexts, lambda: load_without_files("lab")):
            with pytest.raises(ReachError, match=f"somebody else .*{UID}.* KUBECONFIG .*sudo -H"):
                use()
        assert not ran.exists()
        monkeypatch.setenv("KUBECONFIG", str(file))
        assert [one.name for one in contexts()] == ["lab"]
        monkeypatch.delenv("KUBECONFIG")
        assert [one.name for one in contexts(file)] == ["lab"]
