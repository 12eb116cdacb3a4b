"""Commands beside the database: noted by several processes at once, bounded, and never trusted on reading."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tui.clusters.force.groups import MOST, Group, path_of, recall, remember, words_of


def test_the_last_commands_are_kept_whoever_writes(tmp_path: Path) -> None:
    db = tmp_path / "spans.db"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: remember(db, Group(f"{n:03d}", n, "kubectl get", (f"{n:032x}",))), range(MOST + 20)))
    found = recall(db)
    assert len(found) == MOST
    assert len({group.id for group in found}) == MOST
    assert stat.S_IMODE(path_of(db).stat().st_mode) == 0o600
    last = found[-1]
    remember(db, Group(last.id, last.time, last.words, ("f" * 32,)))
    assert recall(db)[-1].traces == ("f" * 32,)
    assert len(recall(db)) == MOST


def test_what_is_no_command_is_passed_over(tmp_path: Path) -> None:
    db = tmp_path / "spans.db"
    assert recall(db) == []
    remember(db, Group("1", 1, "kubectl get"))
    with path_of(db).open("ab") as file:
        file.write(b'\xff{"id": 1}\n[]\n{"id":"2","time":"x","words":"","traces":[]}\n' + b"[" * 5000 + b"\n")
        file.write(b'{"id":"3","time":3,"words":"curl","traces":["x","' + b"a" * 32 + b'"]}\n')
    assert recall(db) == [Group("1", 1, "kubectl get"), Group("3", 3, "curl", ("a" * 32,))]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("kubectl", "get", "pods", "-A"), "kubectl get pods"),
        (("/usr/bin/kubectl", "--token=hush", "get"), "kubectl get"),
        (("kubectl", "--token", "hush", "get"), "kubectl get"),
        (("kubectl", "-n", "shop", "logs", "web-0"), "kubectl logs"),
        (("kubectl", "-nshop", "-v6", "--insecure-skip-tls-verify", "get", "pods"), "kubectl get pods"),
        (("kubectl", "--unknown", "hush", "get"), "kubectl"),
        (("kubectl", "-n"), "kubectl"),
        (("helm", "--kube-context", "lab", "list"), "helm list"),
        (("curl", "-n", "hush", "get"), "curl"),
        (("curl", "https://me:hush@host/"), "curl"),
        (("mysql", "-phush"), "mysql"),
        ((), ""),
    ],
)
def test_no_secret_of_an_argument_is_kept(command: tuple[str, ...], words: str) -> None:
    assert words_of(command) == words
