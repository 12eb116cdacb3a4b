"""A node whose disk is full: refused by name before anything is stopped, or carried on to a good end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.real.node import MANIFESTS, Node
from tests.real.probe import READ, Probe
from tests.real.rollouts import STATE, Going, change, containers, nothing_stray, outcome, settle, status, sums

FILLER = ".filler"


@contextmanager
def small(node: Node, path: str, size: str, *, keep: bool = False) -> Iterator[None]:
    """A file system of so many bytes in the place of a folder of the node, at once with what lay there. What is in it
    at the end stays only with `keep`."""
    beside = node.run("mktemp", "-d", "/run/small.XXXXXX").stdout.strip()
    node.run("mkdir", "-p", path)
    node.run("mount", "-t", "tmpfs", "-o", f"size={size}", "small", beside)
    node.run("sh", "-c", 'cp -a "$1/." "$2"', "sh", path, beside)
    node.run("mount", "--bind", beside, path)
    try:
        yield
    finally:
        node.run("umount", path)
        node.run("rm", "-f", f"{beside}/{FILLER}")
        if keep:
            node.run("sh", "-c", 'cp -a "$1/." "$2"', "sh", beside, path)
        node.run("umount", beside)
        node.run("rmdir", beside)


def fill(node: Node, path: str) -> None:
    node.run("sh", "-c", f"cat /dev/zero >{path}/{FILLER}", check=False)


def refused(node: Node, probe: Probe, *words: str) -> None:
    """`arm` is refused with these words, and nothing was written, stopped or left."""
    files = node.files("/etc/kubernetes")
    (before,) = containers(node, "kube-apiserver")
    done = node.program("sampling", "arm", "--yes", check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "Traceback" not in said
    for word in words:
        assert word in " ".join(said.split()), said
    assert node.files("/etc/kubernetes") == files
    assert containers(node, "kube-apiserver")[0]["id"] == before["id"]
    assert probe.away(READ) == []
    nothing_stray(node)


def test_no_room_for_the_way_back(node: Node, probe: Probe) -> None:
    with small(node, STATE, "96k"):
        fill(node, STATE)
        refused(node, probe, "room")


def test_no_room_for_the_manifests(node: Node, probe: Probe) -> None:
    """The folder is a file system of its own, so that copies cannot wait anywhere else."""
    with small(node, MANIFESTS, "128k"):
        fill(node, MANIFESTS)
        refused(node, probe, "there is no room on the file system of", f"{MANIFESTS}/kube-apiserver.yaml")


def test_no_room_for_containers(node: Node, probe: Probe) -> None:
    """Neither kubelet nor the runtime could start it again."""
    with small(node, "/var/lib/containers", "64k"):
        fill(node, "/var/lib/containers")
        refused(node, probe, "the file system at /var/lib/containers is full")
    node.run("rmdir", "/var/lib/containers")


@pytest.mark.long
def test_a_disk_that_fills_up_in_the_middle(node: Node) -> None:
    """What is needed to the end was laid out before: the change comes to its end, though its journal has no room."""
    old = node.files("/etc/kubernetes")
    with small(node, STATE, "1m", keep=True):
        going = Going(node, "arm")
        going.until("staged")
        fill(node, STATE)
        said = going.ends()
        node.wait_ready()
        node.run("rm", f"{STATE}/{FILLER}")
        assert "Traceback" not in said
        if status(node)["interrupted"] is not None:
            assert "apiserver arm: interrupted" in said
            node.program("sampling", "resume", "--yes")
        found = outcome(node)
        assert found.last.startswith("end done")
        assert sums(node, list(found.after)) == found.after
        settle(node)
        nothing_stray(node)
        assert status(node)["state"] == "armed"
    change(node, "off")
    settle(node)
    assert node.files("/etc/kubernetes") == old
