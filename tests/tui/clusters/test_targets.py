"""Which control planes are meant, from the command line, the settings and what is here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.doubles.stub_api import StubApi
from tui.clusters.model import Mode, ReachError
from tui.clusters.reach.local import LocalHost
from tui.clusters.reach.ssh import SshHost
from tui.clusters.survey import mirrored
from tui.clusters.targets import Target, contexts_here, host_of, targets
from tui.config import Settings


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[StubApi]:
    (tmp_path / "api").mkdir()
    made = StubApi(tmp_path, tmp_path / "api")
    made.start()
    made.add_control_plane("cp-1")
    made.add_control_plane("cp-2")
    yield made
    made.stop()


def names(target: Target) -> list[str]:
    return [host.name for host in target.hosts]


def test_the_command_line_wins_over_the_settings_which_win_over_what_is_here(tmp_path: Path) -> None:
    settings = Settings(hosts=("ssh://cp-1", "ssh://cp-1", f"file://{tmp_path}"))
    manifest = tmp_path / "kube-apiserver.yaml"
    manifest.touch()
    (named,) = targets(settings, ["ssh://root@cp-9"], manifest=manifest)
    assert names(named) == ["ssh://root@cp-9"]
    (set_up,) = targets(settings, manifest=manifest)
    assert names(set_up) == ["ssh://cp-1", f"file://{tmp_path}"]
    (here,) = targets(Settings(), manifest=manifest)
    assert isinstance(here.hosts[0], LocalHost)
    assert targets(Settings(), manifest=tmp_path / "none") == ()
    for one in (named, set_up, here):
        one.close()


def test_a_context_alone_has_a_host_for_each_node_and_makes_nothing_yet(stub: StubApi) -> None:
    settings = Settings(context="lab", protected=("lab",))
    (target,) = targets(settings, kubeconfig=stub.kubeconfig(), node_image="my/image:1")
    assert names(target) == ["cp-1 (through the API)", "cp-2 (through the API)"]
    assert (target.cluster, target.protected) == ("lab", True)
    assert stub.ours() == []
    target.hosts[1].run("true")
    (pod,) = stub.ours()
    assert stub.pods[pod]["spec"]["containers"][0]["image"] == "my/image:1"
    target.close()
    assert stub.ours() == []


def test_nodes_without_a_label_are_found_by_their_static_pods_and_hosted_ones_are_said(stub: StubApi) -> None:
    stub.nodes.clear()
    (target,) = targets(Settings(), context="lab", kubeconfig=stub.kubeconfig())
    assert len(target.hosts) == 2
    target.close()
    stub.pods.clear()
    with pytest.raises(ReachError, match=r"shows no control-plane nodes, .* pods of another cluster"):
        targets(Settings(), context="lab", kubeconfig=stub.kubeconfig())
    stub.version = "v1.31.2-eks-7f9249a"
    with pytest.raises(ReachError, match=r"shows no control-plane nodes\. EKS: the provider"):
        targets(Settings(), context="lab", kubeconfig=stub.kubeconfig())


def test_kinds_that_show_no_static_pods_are_shown_with_their_reason(stub: StubApi) -> None:
    stub.version = "v1.33.5+k3s1"
    stub.add_control_plane("cp-3")
    stub.pods.pop("kube-apiserver-cp-3")
    (target,) = targets(Settings(), context="lab", kubeconfig=stub.kubeconfig())
    assert target.api is not None
    first, _, third = mirrored(target.api, target.hosts)
    assert (first.states[0].mode, first.states[0].read_only) == (Mode.OFF, "")
    assert (third.states[0].flavour, third.states[0].version) == ("k3s", "v1.33.5+k3s1")
    assert third.states[0].read_only.startswith("k3s: its API server takes")
    assert stub.ours() == []
    target.close()


def test_hosts_are_enough_when_the_context_cannot_be_used(stub: StubApi) -> None:
    settings = Settings(protected=("lab",))
    (with_api,) = targets(settings, ["ssh://cp-1"], "lab", kubeconfig=stub.kubeconfig())
    assert with_api.api is not None
    assert (names(with_api), with_api.cluster, with_api.protected) == (["ssh://cp-1"], "lab", True)
    with_api.close()
    (without,) = targets(settings, ["ssh://cp-1"], "gone", kubeconfig=stub.kubeconfig())
    assert without.api is None
    assert "has no context gone" in without.problem
    with pytest.raises(ReachError, match="has no context gone"):
        targets(settings, context="gone", kubeconfig=stub.kubeconfig())


@pytest.mark.parametrize("url", ["cp-1", "https://cp-1", "", "\x1b[2J://x"])
def test_what_is_no_host_is_said(url: str) -> None:
    with pytest.raises(ReachError, match="is not a host: write ssh://USER@HOST") as caught:
        targets(Settings(), [url])
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "url",
    ["ssh://[-oProxyCommand=x]", "ssh://[-o", "ssh://a]b", "ssh://[a.b]", "ssh://[127.0.0.1]", "ssh://[::1", "ssh://[v1.x]",
     "ssh://[::1%25-o]x", "ssh://[::1%25$(x)]", "ssh://%2DoProxyCommand@b", "ssh://%2Dl", "ssh://a%40%2Db", "ssh://a%3A-b",
     "ssh://a%0Ab", "ssh://a\nb", "ssh://a%00", "ssh://a:0", "ssh://a:65536", "ssh://a:1:2", "ssh://a:\u0661",
     "ssh://\u212a", "ssh://a?b", "ssh://a#b", "ssh:a", "ssh:/a", "ssh://[::1]b", "ssh://b[::1]", "ssh://a%25h",
     "file://[-o", "file://[::1/x", "file://a]/x"],
)  # fmt: skip
def test_what_names_no_host_properly_is_one_sentence(url: str) -> None:
    with pytest.raises(ReachError, match=r"does not name a (host|directory): write") as caught:
        host_of(url)
    assert str(caught.value).isprintable()


def test_what_names_one_properly() -> None:
    for url, destination, port in (
        ("ssh://[fe80::1%25eth0]:22", "fe80::1%eth0", "22"),
        ("ssh://corp%5Cme@cp_1.lab/", "corp\\me@cp_1.lab", ""),
        ("ssh://me@corp@CP-1", "me@corp@CP-1", ""),
        ("ssh://x-%41", "x-A", ""),
    ):
        made = host_of(url)
        assert isinstance(made, SshHost)
        assert made._destination == destination
        assert made._options == (["-p", port] if port else [])


_PIECES = st.sampled_from(
    ["-", "-o", "@", ":", "[", "]", "%2D", "%5B", "%", "::1", "a", "/", "\n", "\x1b", "22", " ", "=", "$(x)", "é"]
)


@given(st.sampled_from(["ssh://", "file://", ""]), st.lists(st.one_of(_PIECES, st.text(max_size=4)), max_size=8))
def test_whatever_is_named_is_a_host_or_a_sentence(scheme: str, pieces: list[str]) -> None:
    try:
        made = host_of(scheme + "".join(pieces))
    except ReachError:
        return
    if isinstance(made, SshHost):
        user, _, host = made._destination.rpartition("@")
        assert not user.startswith("-")
        assert not host.startswith("-")
        assert made._destination.isascii()
        assert made._destination.isprintable()
        assert not set(made._destination) & set(" $`'\"();&|<>*?!#~=,")


def test_contexts_that_could_be_named(stub: StubApi, tmp_path: Path) -> None:
    found, problem = contexts_here(stub.kubeconfig())
    assert ([one.name for one in found], problem) == (["lab", "other"], "")
    broken = tmp_path / "broken"
    broken.write_text("{")
    assert contexts_here(broken)[0] == ()
    assert "correct it" in contexts_here(broken)[1]
