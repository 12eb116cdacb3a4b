"""`sampling` as scripts and people use it: what it prints and asks, its exit codes, and what it leaves on the nodes."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tui import cli, sampling_text

MANIFEST = """\
# kept by hand
apiVersion: v1
kind: Pod
metadata:
  annotations:
    kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint: 10.0.0.1:6443
  labels:
    component: kube-apiserver
    tier: control-plane
  name: kube-apiserver
  namespace: kube-system
spec:
  containers:
  - command:
    - kube-apiserver
    - --advertise-address=10.0.0.1
    - --secure-port=6443   # the usual one
    image: registry.k8s.io/kube-apiserver:v1.34.2
    name: kube-apiserver
    volumeMounts:
    - mountPath: /etc/ssl/certs
      name: ca-certs
      readOnly: true
  hostNetwork: true
  volumes:
  - hostPath:
      path: /etc/ssl/certs
      type: DirectoryOrCreate
    name: ca-certs
status: {}
"""
AT = "etc/kubernetes/manifests/kube-apiserver.yaml"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of whoever runs the tests is read or written."""
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*argv: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(list(argv))
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """What the operator types on a terminal."""

    def answer(text: str) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        monkeypatch.setattr(sys, "stdin", Terminal(text))

    return answer


def make_node(folder: Path, name: str) -> Path:
    root = folder / name
    (root / AT).parent.mkdir(parents=True)
    (root / AT).write_text(MANIFEST)
    (root / AT).chmod(0o600)
    (root / "etc/hostname").write_text(f"{name}\n")
    return root


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in (root / "etc").rglob("*") if path.is_file()}


@pytest.fixture
def nodes(tmp_path: Path) -> tuple[Path, Path]:
    return make_node(tmp_path, "cp-1"), make_node(tmp_path, "cp-2")


def hosts(*roots: Path) -> list[str]:
    return [word for root in roots for word in ("--host", f"file://{root}")]


def states(command: Command, *roots: Path) -> list[tuple[str, str, str, int | None]]:
    code, out, err = command("sampling", "status", "--json", *hosts(*roots))
    assert code == 0, err
    documents = [json.loads(line) for line in out.splitlines()]
    return [(one["node"], one["component"], one["state"], one["per_million"]) for one in documents]


# --- on files ----------------------------------------------------------------------------------------
def test_from_off_to_all_and_back_byte_for_byte(command: Command, nodes: tuple[Path, Path]) -> None:
    before = [files(root) for root in nodes]
    assert states(command, *nodes) == [("cp-1", "apiserver", "off", None), ("cp-2", "apiserver", "off", None)]

    code, out, err = command("sampling", "set", "1%", "--dry-run", *hosts(*nodes))
    assert code == 0, err
    assert "+    - --tracing-config-file=" in out
    assert "samplingRatePerMillion: 10000" in out
    assert [files(root) for root in nodes] == before

    code, out, err = command("sampling", "arm", "--yes", *hosts(*nodes))
    assert (code, out.count("arm: done")) == (0, 2), err
    assert states(command, *nodes) == [("cp-1", "apiserver", "armed", 0), ("cp-2", "apiserver", "armed", 0)]
    assert "# kept by hand" in (nodes[0] / AT).read_text()

    code, out, err = command("sampling", "set", "all", "--yes", "--json", "--node", "cp-2", *hosts(*nodes))
    assert code == 0, err
    (document,) = map(json.loads, out.splitlines())
    assert (document["node"], document["outcome"], document["per_million"]) == ("cp-2", "done", 1_000_000)
    code, out, err = command("sampling", "status", *hosts(*nodes))
    heading, first, second = out.splitlines()[:3]
    assert heading.split() == " ".join(sampling_text.COLUMNS).split()
    assert ("armed" in first, "sampling" in second, "all" in second) == (True, True, True)
    assert "! differs from" in out
    at = heading.index("ENDPOINT")
    assert first[at:].startswith("127.0.0.1:4317")
    assert second[at:].startswith("127.0.0.1:4317")

    code, out, err = command("sampling", "off", "--yes", *hosts(*nodes))
    assert code == 0, err
    assert [state for _, _, state, _ in states(command, *nodes)] == ["off", "off"]
    code, out, err = command("sampling", "revert", "--yes", *hosts(*nodes))
    assert code == 0, err
    assert [files(root) for root in nodes] == before


def test_as_wished_already_is_nothing_to_do(command: Command, nodes: tuple[Path, Path]) -> None:
    assert command("sampling", "arm", "--yes", *hosts(nodes[0]))[0] == 0
    armed = files(nodes[0])
    code, out, _ = command("sampling", "arm", *hosts(nodes[0]))  # no --yes: there is nothing to agree to
    assert (code, "it is so already" in out) == (0, True)
    assert files(nodes[0]) == armed


def test_nothing_is_changed_unasked(
    command: Command, nodes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(nodes[0])
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    code, _, err = command("sampling", "arm", *hosts(nodes[0]))
    assert (code, "--yes" in err) == (2, True)
    monkeypatch.setattr(sys, "stdin", None)
    assert command("sampling", "arm", *hosts(nodes[0]))[0] == 2
    code, _, err = command("sampling", "arm", "--yes", "--read-only", *hosts(nodes[0]))
    assert (code, "--read-only" in err) == (2, True)
    assert files(nodes[0]) == before


@pytest.mark.parametrize(
    ("rate", "answer", "agreed"),
    [
        ("1%", "y\n", True),
        ("1%", "\n", False),
        ("1%", "", False),
        ("1%", "n\n", False),
        ("1.1%", "y\n", False),
        ("1.1%", "cp-2\n", False),
        ("1.1%", "cp-1\n", True),
    ],
)
def test_only_a_clear_answer_is_one(
    command: Command, nodes: tuple[Path, Path], typed: Callable[[str], None], rate: str, answer: str, agreed: bool
) -> None:
    before = files(nodes[0])
    typed(answer)
    code, _, err = command("sampling", "set", rate, *hosts(nodes[0]))
    assert (code == 0) is agreed, err
    assert code in (0, 2)
    assert (files(nodes[0]) != before) is agreed


def traced_before(root: Path, rate: str) -> None:
    """Tracing was configured by somebody else, before us."""
    (root / AT).write_text(
        MANIFEST.replace("    image:", "    - --tracing-config-file=/etc/ssl/certs/t.yaml\n    image:")
    )
    (root / "etc/ssl/certs").mkdir(parents=True)
    (root / "etc/ssl/certs/t.yaml").write_text(
        "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: TracingConfiguration\n"
        f"endpoint: otel:4317\nsamplingRatePerMillion: {rate}\n"
    )


@pytest.mark.parametrize(
    ("rate", "first", "answer", "agreed"),
    [
        ("10000", "arm", "y\n", True),
        ("10001", "arm", "y\n", False),
        ("10001", "arm", "cp-1\n", True),
        # our change did not touch that file, so it is not among those that go back
        ("10001", "off", "y\n", False),
        ("10000", "off", "y\n", True),
        # what cannot be read may be any rate
        ("many", "off", "y\n", False),
        ("many", "off", "cp-1\n", True),
    ],
)
def test_a_revert_to_a_high_rate_has_the_name_typed(
    command: Command,
    nodes: tuple[Path, Path],
    typed: Callable[[str], None],
    rate: str,
    first: str,
    answer: str,
    agreed: bool,
) -> None:
    root = nodes[0]
    traced_before(root, rate)
    before = files(root)
    assert command("sampling", first, "--yes", *hosts(root))[0] == 0
    ours = files(root)
    assert ours != before
    typed(answer)
    code, out, err = command("sampling", "revert", *hosts(root))
    assert (code, files(root)) == ((0, before) if agreed else (2, ours)), err
    assert ("cannot be told" if rate == "many" else "there before samples 1") in out


def test_one_node_that_cannot_be_changed_keeps_all_from_being(command: Command, nodes: tuple[Path, Path]) -> None:
    (nodes[1] / AT).write_text("kind: [\n")
    before = [files(root) for root in nodes]
    code, _, err = command("sampling", "arm", "--yes", *hosts(*nodes))
    assert (code, err.count("\n")) == (1, 1), err
    assert [files(root) for root in nodes] == before
    code, _, err = command("sampling", "arm", "--yes", "--node", "cp-9", *hosts(nodes[0]))
    assert (code, "no node cp-9 among cp-1" in err) == (2, True)


def test_somebody_elses_change_is_not_lost_unasked(command: Command, nodes: tuple[Path, Path]) -> None:
    root = nodes[0]
    before = files(root)
    assert command("sampling", "arm", "--yes", *hosts(root))[0] == 0
    with (root / AT).open("a") as manifest:
        manifest.write("# a colleague was here\n")
    theirs = files(root)
    code, _, err = command("sampling", "revert", "--yes", *hosts(root))
    assert (code, "+# a colleague was here" in err, "--force" in err) == (1, True, True)
    assert files(root) == theirs
    assert command("sampling", "revert", "--yes", "--force", *hosts(root))[0] == 0
    assert files(root) == before


@pytest.mark.parametrize(
    "argv",
    [
        ["set"],
        ["set", "1"],
        ["set", "101%"],
        ["arm", "1%"],
        ["arm", "--force"],
        ["off", "--endpoint", "x:1"],
        ["status", "--component", "kubelet"],
        ["begin"],
    ],
)
def test_bad_usage_is_one_sentence(command: Command, argv: list[str]) -> None:
    code, out, err = command("sampling", *argv)
    assert (code, out, err.count("\n")) == (2, "", 1), err


def test_hosts_that_cannot_be_meant(command: Command, tmp_path: Path) -> None:
    for url in ("file:///", "http://cp-1", f"file://{tmp_path}/none", "cp-1"):
        code, _, err = command("sampling", "status", "--host", url)
        assert (code, err.count("\n")) == (1, 1), err


def test_what_a_host_says_cannot_reach_the_terminal(command: Command, nodes: tuple[Path, Path]) -> None:
    root = nodes[0]
    (root / "etc/hostname").write_text("cp\x1b[31m-1\u202e\n")
    (root / AT).write_text(MANIFEST.replace("# the usual one", "# \u202e"))
    for words in (["status"], ["arm", "--dry-run"], ["arm", "--yes"], ["status", "--json"], ["revert", "--yes"]):
        code, out, err = command("sampling", *words, *hosts(root))
        assert code == 0, err
        assert all(character.isprintable() or character == "\n" for character in out + err), (words, out, err)
