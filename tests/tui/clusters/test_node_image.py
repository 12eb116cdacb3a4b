"""The image of the pod of ours: the one that the node has, by its digest; where only a tag is known, that is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.stub_api import StubApi
from tui import sampling
from tui.clusters.model import ReachError
from tui.clusters.reach.api import Api, ApiHost
from tui.clusters.reach.node_image import pinned, sentence
from tui.config import Settings
from tui.control_planes import RealControlPlanes
from tui.sampling import Asked, Reach

ONE, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64
NAMES = [f"docker.io/library/busybox@{ONE}", "docker.io/library/busybox:1.36"]


@pytest.mark.parametrize(
    ("image", "names", "found"),
    [
        ("busybox:1.36", NAMES, f"docker.io/library/busybox@{ONE}"),
        ("docker.io/busybox:1.36", NAMES, ""),
        ("docker.io/library/busybox:1.36", NAMES, f"docker.io/library/busybox@{ONE}"),
        ("busybox:1.37", NAMES, ""),
        ("busybox", NAMES, ""),
        ("busybox", ["docker.io/library/busybox:latest", f"busybox@{ONE}"], f"busybox@{ONE}"),
        ("me/busybox:1.36", NAMES, ""),
        ("localhost:5000/b:1", ["localhost:5000/b:1", f"localhost:5000/b@{OTHER}"], f"localhost:5000/b@{OTHER}"),
        ("busybox:1.36", ["docker.io/library/busybox:1.36"], ""),
        ("busybox:1.36", ["busybox:1.36", f"docker-pullable://busybox@{ONE}"], f"busybox@{ONE}"),
        ("busybox:1.36", ["busybox:1.36", f"evil.example/busybox@{ONE}"], ""),
        ("busybox:1.36", ["busybox:1.36", f"docker.io/library/import-2026@{ONE}", ONE], ""),
        ("busybox:1.36", ["busybox:1.36", "busybox@sha256:12"], ""),
        (f"busybox@{OTHER}", NAMES, f"busybox@{OTHER}"),
    ],
)
def test_a_tag_becomes_what_the_node_has(image: str, names: list[str], found: str) -> None:
    assert pinned(image, [["other:1", f"other@{OTHER}"], names]) == found


def test_what_is_said_of_it() -> None:
    assert sentence(f"b@{ONE}", {"cp-1": f"b@{ONE}"}) == f"its image is b@{ONE}"
    every = sentence("b:1", {"cp-1": f"b@{ONE}", "cp-2": f"b@{OTHER}"})
    assert every == "its image is b:1 as the nodes have it already, sha256:111111111111..., sha256:222222222222..."
    for known in ({"cp-1": ""}, {"cp-1": "", "cp-2": ""}):
        assert sentence("b:1", known).startswith("its image is b:1, a tag: whoever may change the tag")
    some = sentence("b:1", {"cp-1": f"b@{ONE}", "cp-2": ""})
    assert "a tag on cp-2, and sha256:111111111111... where a node has it" in some


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[StubApi]:
    made = StubApi(tmp_path, tmp_path)
    made.start()
    made.add_control_plane("cp-1")
    yield made
    made.stop()


@pytest.fixture
def host(stub: StubApi) -> Iterator[ApiHost]:
    api = Api("lab", stub.kubeconfig())
    made = ApiHost(api, "cp-1")
    yield made
    made.close()
    api.close()


def container_of(stub: StubApi, host: ApiHost) -> dict[str, Any]:
    host.run("true")
    found: dict[str, Any] = stub.pods[host.pod]["spec"]["containers"][0]
    return found


def test_the_pod_runs_the_image_that_the_node_tells_of(stub: StubApi, host: ApiHost) -> None:
    stub.nodes[0]["status"]["images"] = [{"names": ["a:1"]}, {"names": NAMES, "sizeBytes": 1}]
    assert container_of(stub, host)["image"] == f"docker.io/library/busybox@{ONE}"
    assert container_of(stub, host)["imagePullPolicy"] == "IfNotPresent"


def test_or_that_another_pod_on_it_runs(stub: StubApi, host: ApiHost) -> None:
    """The kubelet names the largest fifty images alone."""
    status = {"image": NAMES[1], "imageID": NAMES[0]}
    for node, digest in (("cp-2", OTHER), ("cp-1", ONE)):
        stub.pods[f"job-{node}"] = {
            "metadata": {"name": f"job-{node}", "annotations": {}},
            "spec": {"nodeName": node},
            "status": {"containerStatuses": [{**status, "imageID": NAMES[0].replace(ONE, digest)}]},
        }
    assert container_of(stub, host)["image"] == f"docker.io/library/busybox@{ONE}"


@pytest.mark.parametrize("images", [None, [], "x", [{"names": None}, 7, {"names": [7, "busybox:1.36"]}]])
def test_else_the_tag(stub: StubApi, host: ApiHost, images: object) -> None:
    stub.nodes[0]["status"]["images"] = images
    assert container_of(stub, host)["image"] == "busybox:1.36"


@pytest.mark.parametrize("known", [True, False])
def test_it_is_said_before_the_pod_is_made(
    stub: StubApi, host: ApiHost, known: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if known:
        stub.nodes[0]["status"]["images"] = [{"names": NAMES}]
    says = "as the nodes have it already, sha256:111111111111..." if known else "busybox:1.36, a tag: whoever may"
    monkeypatch.setenv("KUBECONFIG", str(stub.kubeconfig()))
    asked = Asked(database=tmp_path / "none.db", dry_run=True)
    questions: list[str] = []

    def refuse(_asked: Asked, question: str, _cluster: str = "") -> None:
        questions.append(question)
        raise sampling.Refused("no")

    reach = Reach((host,), Api("lab"), by_pods=True)
    with monkeypatch.context() as patch:
        patch.setattr(sampling, "agree", refuse)
        with pytest.raises(sampling.Refused):
            sampling.change(reach, asked, "arm")
    assert says in questions[0]
    planes = RealControlPlanes(Settings(context="lab"), sampling_named(), tmp_path / "none.db")
    assert says in planes.read(lambda _reading: None).pods_wanted
    assert stub.ours() == []
    sampling.status(reach, Asked(database=tmp_path / "none.db", yes=True))
    assert says in capsys.readouterr().err
    planes.close()


def sampling_named() -> Any:
    from tui.cluster_feed import Named

    return Named((), "lab", "")


def test_an_api_that_tells_nothing_is_no_hindrance(stub: StubApi, host: ApiHost) -> None:
    stub.denied |= {"get nodes", "list pods"}
    assert container_of(stub, host)["image"] == "busybox:1.36"
    stub.denied |= {"create pods"}
    with pytest.raises(ReachError, match="must allow create pods"):
        ApiHost(Api("lab", stub.kubeconfig()), "cp-1").run("true")
