"""Tracing files: refused where the API server would not start with them, and edited without moving another byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.clusters import tracing_file, versions
from tui.clusters.model import PlanRefused
from tui.clusters.versions import ApiserverRules, Gate

PATH = "/etc/kubernetes/tracing.yaml"
HEAD = "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: TracingConfiguration\n"


def rules_of(text: str) -> ApiserverRules:
    version = versions.parse(text)
    assert version is not None
    rules = versions.apiserver(version)
    assert rules is not None
    return rules


STRICT, LENIENT, OLD = (rules_of(version) for version in ("v1.34.2", "v1.30.1", "v1.24.0"))


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("registry.k8s.io/kube-apiserver:v1.34.2", (1, 34, 2)),
        ("10.0.0.5:5000/kube-apiserver:v1.27.16-eks-abc@sha256:" + "0" * 64, (1, 27, 16)),
        ("kube-apiserver:v1.35.0-rc.1", (1, 35, 0)),
        ("registry.k8s.io/etcd:3.5.21-0", (3, 5, 21)),
        ("10.0.0.5:5000/kube-apiserver", None),
        ("kube-apiserver@sha256:" + "1" * 64, None),
        ("kube-apiserver:v1.34.2.3", None),
        ("kube-apiserver:latest", None),
        ("", None),
    ],
)
def test_versions_of_images(image: str, version: tuple[int, int, int] | None) -> None:
    found = versions.of_image(image)
    assert (None if found is None else (found.major, found.minor, found.patch)) == version


@pytest.mark.parametrize(
    ("version", "api", "strict", "gate"),
    [
        ("v1.22.0", "v1alpha1", False, Gate.NEEDED),
        ("v1.26.9", "v1alpha1", False, Gate.NEEDED),
        ("v1.27.0", "v1beta1", False, Gate.ON),
        ("v1.32.0", "v1beta1", True, Gate.ON),
        ("v1.34.0", "v1", True, Gate.LOCKED),
        ("v1.37.0", "v1", True, Gate.GONE),
    ],
)
def test_what_releases_accept(version: str, api: str, strict: bool, gate: Gate) -> None:
    rules = rules_of(version)
    assert (rules.api_version, rules.strict, rules.gate) == (f"apiserver.config.k8s.io/{api}", strict, gate)
    made = tracing_file.made(10_000, "[::1]:4317", rules)
    assert tracing_file.read(PATH, made, rules) == tracing_file.Tracing(10_000, "[::1]:4317")


@pytest.mark.parametrize(
    ("version", "enable", "rate", "everything"),
    [
        ("3.5.4", "experimental-enable-distributed-tracing", "", True),
        ("3.5.10", "experimental-enable-distributed-tracing", "", False),
        ("3.5.11", "experimental-enable-distributed-tracing", "experimental-distributed-tracing-sampling-rate", False),
        ("3.6.0", "enable-distributed-tracing", "distributed-tracing-sampling-rate", False),
        ("3.7.1", "enable-distributed-tracing", "distributed-tracing-sampling-rate", False),
    ],
)
def test_flags_of_etcd(version: str, enable: str, rate: str, everything: bool) -> None:
    parsed = versions.parse(version)
    assert parsed is not None
    found = versions.etcd(parsed)
    assert found is not None
    assert (found.enable, found.rate, found.everything) == (enable, rate, everything)
    old = "experimental-distributed-tracing-address"
    assert (old in found.names) == (not version.startswith("3.7")), "3.7 does not start with the old names"


def test_what_came_before_tracing_accepts_none_of_it() -> None:
    for text, accepts in (("v1.21.3", versions.apiserver), ("3.4.30", versions.etcd)):
        parsed = versions.parse(text)
        assert parsed is not None
        assert accepts(parsed) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment\n",
        "- a list\n",
        "kind: TracingConfiguration\n",
        HEAD.replace("v1beta1", "v2"),
        HEAD.replace("apiserver.config", "config"),
        HEAD + "bogus: 1\n",
        HEAD + "endpoint: a:1\nendpoint: b:1\n",
        HEAD + "samplingRatePerMillion: 1000001\n",
        HEAD + "samplingRatePerMillion: -1\n",
        HEAD + 'samplingRatePerMillion: "5"\n',
        HEAD + "samplingRatePerMillion: true\n",
        HEAD + "endpoint: http://otel:4318\n",
        HEAD + "endpoint: [a]\n",
        HEAD + "---\n" + HEAD,
        HEAD + "\tx: 1\n",
    ],
)
def test_what_keeps_the_server_from_starting_is_one_sentence(text: str) -> None:
    with pytest.raises(PlanRefused) as refused:
        tracing_file.read(PATH, text.encode(), STRICT)
    assert "\n" not in str(refused.value)


def test_older_servers_ignore_what_they_do_not_know() -> None:
    found = tracing_file.read(PATH, (HEAD + "bogus: 1\n").encode(), LENIENT)
    assert "bogus" in found.warnings[0]
    with pytest.raises(PlanRefused, match="v1beta1"):
        tracing_file.read(PATH, HEAD.encode(), OLD)


def test_what_is_accepted_and_useless_is_a_warning() -> None:
    assert "DNS server" in tracing_file.endpoint_warnings("dns://otel:4317")[0]
    assert "no port" in tracing_file.endpoint_warnings("otel")[0]
    for good in ("localhost:4317", "[::1]:4317", "10.0.0.5:4317", "unix:///run/otel.sock"):
        assert tracing_file.endpoint_warnings(good) == ()


@given(
    rate=st.integers(0, 1_000_000),
    endpoint=st.sampled_from(["", "localhost:4317", "[::1]:4317", "unix:///run/x.sock"]),
    lines=st.permutations(
        [
            "apiVersion: apiserver.config.k8s.io/v1 # one",
            "kind: 'TracingConfiguration'",
            "# between",
            'endpoint: "otel:4317"   # two',
            "samplingRatePerMillion:  42  # three",
            "",
        ]
    ),
    without=st.sampled_from(["", "endpoint", "samplingRatePerMillion"]),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_an_edit_moves_no_other_byte(rate: int, endpoint: str, lines: list[str], without: str, newline: str) -> None:
    kept = [line for line in lines if not without or not line.startswith(without)]
    text = newline.join(kept) + newline
    found = tracing_file.edited(PATH, text.encode(), rate, endpoint)
    said = tracing_file.read(PATH, found, STRICT)
    before = "" if without == "endpoint" else "otel:4317"
    assert (said.per_million, said.endpoint) == (rate, endpoint or before)
    rest = iter(found.decode().splitlines(keepends=True))
    for line in text.splitlines(keepends=True):
        if not line.startswith(("endpoint", "samplingRate")):
            assert line in rest
    for comment in ("# one", "# between", "# two", "# three"):
        assert (comment in text) == (comment in found.decode())
