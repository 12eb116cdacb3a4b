"""State as the version before left it, when the folder of the database was its place: recorded, or made anew by its
script where the history is at hand.

    python -m tests.tui.clusters.older_state     records it again
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.doubles.shell_host import ShellHost
from tui.clusters import bundle, rollout
from tui.clusters.model import ClusterError, FileChange, Part, Plan, Trigger, Wish

COMMIT = "c70fb66"
OLD = "var/lib/k8s-trace-tui"
STATE = "var/lib/k8s-trace-tui-rollouts"
MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml"
TRACING = "/etc/kubernetes/k8s-trace-tui/apiserver.yaml"
BEFORE = b"apiVersion: v1\nkind: Pod\nmetadata:\n  name: kube-apiserver\n"
ARMED = BEFORE + b"# armed\n"
FIRST, SECOND = b"samplingRatePerMillion: 0\n", b"samplingRatePerMillion: 1000\n"
DONE, INTERRUPTED = "20261126-120000-aaaaaa", "20261126-120100-bbbbbb"
RECORDED = Path(__file__).with_suffix(".json")


def older_script() -> str | None:
    """The script of that version; None where the history is not here."""
    house = Path(__file__).resolve().parents[3]
    shown = subprocess.run(
        ["git", "show", f"{COMMIT}:tui/clusters/node.sh"], cwd=house, capture_output=True, text=True, check=False
    )
    return shown.stdout if shown.returncode == 0 else None


@contextmanager
def of_that_version(script: str) -> Iterator[None]:
    """What is sent meanwhile, and what runs there, is that version's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle, "script", lambda: script)
        yield


def make(root: Path, script: str) -> None:
    """A directory that was armed (`DONE`), and whose change of the rate was interrupted after it was written
    (`INTERRUPTED`)."""
    manifest = root / MANIFEST[1:]
    manifest.parent.mkdir(parents=True)
    manifest.write_bytes(BEFORE)
    me = os.getuid(), os.getgid()
    host = ShellHost(root, alive=False)
    with of_that_version(script):
        armed = plan(FileChange(TRACING, None, FIRST, 0o600, *me), FileChange(MANIFEST, BEFORE, ARMED, 0o600, *me))
        assert rollout.begin(host, armed, who="alice@desk", name=DONE) == DONE
        host.environment["K8S_TRACE_TUI_STOP_AT"] = "write-1"
        with pytest.raises(ClusterError):
            rollout.begin(host, plan(FileChange(TRACING, FIRST, SECOND, 0o600, *me)), who="alice", name=INTERRUPTED)
    (root / OLD).mkdir(mode=0o700, exist_ok=True)
    (root / OLD / "spans.db").write_bytes(b"the database")


def plan(*changes: FileChange) -> Plan:
    return Plan("cp-1", Part.APISERVER, changes, Trigger.MANIFEST, "", "", wish=Wish(Part.APISERVER, 0, name="arm"),
                manifest=MANIFEST, container="kube-apiserver", health=("https://127.0.0.1:6443/livez",))  # fmt: skip


def record(root: Path) -> dict[str, list[str | int]]:
    """Every file below a directory: its kind, its mode, and its bytes in base64 or where it leads. Without scripts:
    what is to be run from there is for tests to say."""
    told: dict[str, list[str | int]] = {}
    for path in sorted(root.rglob("*")):
        name, mode = str(path.relative_to(root)), path.lstat().st_mode & 0o7777
        if path.is_symlink():
            told[name] = ["link", mode, os.readlink(path)]
        elif path.is_dir():
            told[name] = ["directory", mode, ""]
        elif path.name != "node.sh":
            told[name] = ["file", mode, base64.b64encode(path.read_bytes()).decode()]
    return told


def lay_out(root: Path) -> None:
    """The recorded directory, as whoever we are."""
    told: dict[str, tuple[str, int, str]] = json.loads(RECORDED.read_text())
    for name, (kind, mode, content) in told.items():
        path = root / name
        if kind == "link":
            path.symlink_to(content)
            continue
        if kind == "directory":
            path.mkdir()
        else:
            path.write_bytes(base64.b64decode(content))
        path.chmod(mode)


if __name__ == "__main__":
    import tempfile

    found = older_script()
    assert found is not None, "the history is not here"
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), found)
        RECORDED.write_text(json.dumps(record(Path(folder)), indent=0) + "\n")
