"""Where files go: sudo, network file systems, etcd's directory, foreign directories."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from receiver.store import place
from receiver.store.database import StoreError

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /home rw,relatime shared:9 - nfs4 filer:/home rw,vers=4.2
31 30 0:27 / /home/a\\040b rw,relatime - ext4 /dev/vdb rw
32 22 0:28 / /mnt rw - ext4 /dev/vdc rw
33 32 0:29 / /mnt rw - fuse.sshfs me@host: rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/x", "ext4"),
        ("/home/me/.local/state", "nfs4"),
        ("/home/a b/x", "ext4"),
        ("/homework", "ext4"),
        ("/mnt/x", "fuse.sshfs"),
    ],
)
def test_the_file_system_is_the_innermost_and_last_mount(path: str, kind: str) -> None:
    assert place.file_system(Path(path), MOUNTS) == kind


def test_here_a_type_is_known_where_linux_tells() -> None:
    assert place.file_system(Path("/tmp")) or not Path("/proc/self/mountinfo").exists()


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(place, "_state_path", lambda: tmp_path / "state" / "k8s-trace-tui")
    return tmp_path / "state" / "k8s-trace-tui"


def test_the_default_is_the_state_directory_made_private(state: Path) -> None:
    path, said = place.choose_database(None)
    assert (path, said) == (state / "spans.db", "")
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    state.chmod(0o755)
    place.choose_database(None)
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_under_sudo_nothing_goes_into_the_users_home(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_owner", lambda path: 1000)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = place.default_place({"SUDO_USER": "ann"}, MOUNTS)
    assert found.database == Path("/var/lib/k8s-trace-tui/spans.db")
    assert "ann's" in found.said
    assert found.log.parent == found.directory


def test_without_a_home_of_its_own_a_user_gets_var_tmp(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_owner", lambda path: 0)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert place.default_place({}, MOUNTS).directory == Path("/var/tmp/k8s-trace-tui-1000")


def test_a_network_home_is_left_for_var_tmp_and_said(state: Path) -> None:
    mounts = f"{MOUNTS}40 22 0:30 / {state.parent.parent} rw - nfs4 filer:/x rw\n"
    found = place.default_place({}, mounts)
    assert found.directory == Path(f"/var/tmp/k8s-trace-tui-{os.geteuid()}")
    assert "nfs4" in found.said
    assert str(found.directory) in found.said


def test_a_named_path_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "file_system", lambda path, mounts=None: "nfs")
    with pytest.raises(StoreError, match=r"is on nfs.*--db"):
        place.choose_database(tmp_path / "x.db")


def test_nothing_goes_into_etcds_data_directory(tmp_path: Path) -> None:
    for name in ("wal", "snap"):
        (tmp_path / "etcd" / "member" / name).mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "etcd")
    for path in (tmp_path / "etcd" / "x.db", tmp_path / "etcd" / "member" / "snap" / "x.db", link / "x.db"):
        with pytest.raises(StoreError, match="etcd's data directory"):
            place.choose_database(path)
    assert place.choose_database(tmp_path / "x.db") == (tmp_path / "x.db", "")


def test_a_directory_that_somebody_else_prepared_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "ours"
    directory.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(StoreError, match="belongs to somebody else"):
        place.make_private(directory)


def test_a_directory_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        place.make_private(tmp_path / "file" / "x")
