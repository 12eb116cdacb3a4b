"""Tracing files: refused where the API server would not start with them, and edited without moving another byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.clusters import tracing_file, versions
from tui.clusters.model import PlanRefused

PATH = "/etc/kubernetes/tracing.yaml"
HEAD = "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: TracingConfiguration\n"
STRICT, LENIENT, OLD = (versions.apiserver(version) for version in ("v1.34.2", "v1.30.1", "v1.24.0"))


@pytest.mark.parametrize(
    ("image", "kubernetes"),
    [
        ("registry.k8s.io/kube-apiserver:v1.34.2", "v1.34.2"),
        ("10.0.0.5:5000/kube-apiserver:v1.27.16-eks-abc@sha256:" + "0" * 64, "v1.27.16"),
        ("kube-apiserver:v1.35.0-rc.1", "v1.35.0"),
        ("10.0.0.5:5000/kube-apiserver", ""),
        ("kube-apiserver@sha256:" + "1" * 64, ""),
        ("", ""),
    ],
)
def test_versions_of_images(image: str, kubernetes: str) -> None:
    assert versions.kubernetes_of(image) == kubernetes
    assert versions.etcd_of("registry.k8s.io/etcd:3.5.21-0") == "3.5.21"


@pytest.mark.parametrize(
    ("version", "api", "strict", "gate"),
    [
        ("v1.22.0", "v1alpha1", False, "needed"),
        ("v1.26.9", "v1alpha1", False, "needed"),
        ("v1.27.0", "v1beta1", False, "default"),
        ("v1.32.0", "v1beta1", True, "default"),
        ("v1.34.0", "v1", True, "locked"),
        ("v1.37.0", "v1", True, "removed"),
    ],
)
def test_what_releases_accept(version: str, api: str, strict: bool, gate: str) -> None:
    server = versions.apiserver(version)
    assert (server.api_version, server.strict, server.gate) == (f"apiserver.config.k8s.io/{api}", strict, gate)
    made = tracing_file.new(10_000, "localhost:4317", server)
    assert tracing_file.read(made, server, PATH).per_million == 10_000


@pytest.mark.parametrize(
    ("version", "enable", "rate"),
    [
        ("3.5.4", "experimental-enable-distributed-tracing", ""),
        ("3.5.10", "experimental-enable-distributed-tracing", ""),
        ("3.5.11", "experimental-enable-distributed-tracing", "experimental-distributed-tracing-sampling-rate"),
        ("3.6.0", "enable-distributed-tracing", "distributed-tracing-sampling-rate"),
        ("3.7.1", "enable-distributed-tracing", "distributed-tracing-sampling-rate"),
    ],
)
def test_flags_of_etcd(version: str, enable: str, rate: str) -> None:
    found = versions.etcd(version)
    assert (found.enable, found.rate, bool(found.refuse)) == (enable, rate, version == "3.5.4")


@pytest.mark.parametrize("version", ["v1.21.3", "", "v2.0.0"])
def test_versions_that_cannot_be_are_refused(version: str) -> None:
    with pytest.raises(PlanRefused):
        versions.apiserver(version)
    with pytest.raises(PlanRefused):
        versions.etcd(version or "3.4.1")


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
        HEAD + "endpoint: unix:/run/x.sock\n",
        HEAD + "endpoint: [a]\n",
        HEAD + "---\n" + HEAD,
        HEAD + "\tx: 1\n",
    ],
)
def test_what_keeps_the_server_from_starting_is_one_sentence(text: str) -> None:
    with pytest.raises(PlanRefused) as refused:
        tracing_file.read(text.encode(), STRICT, PATH)
    assert "\n" not in str(refused.value)


def test_older_servers_ignore_what_they_do_not_know() -> None:
    found = tracing_file.read((HEAD + "bogus: 1\n").encode(), LENIENT, PATH)
    assert "bogus" in found.warnings[0]
    with pytest.raises(PlanRefused, match="v1beta1"):
        tracing_file.read(HEAD.encode(), OLD, PATH)


def test_what_is_accepted_and_useless_is_a_warning() -> None:
    assert "DNS server" in tracing_file.valid_endpoint("dns://otel:4317")[0]
    assert "no port" in tracing_file.valid_endpoint("otel")[0]
    for good in ("localhost:4317", "[::1]:4317", "10.0.0.5:4317", "unix:///run/otel.sock"):
        assert tracing_file.valid_endpoint(good) == ()


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
    found = tracing_file.edited(text.encode(), STRICT, PATH, rate, endpoint)
    said = tracing_file.read(found, STRICT, PATH)
    before = "" if without == "endpoint" else "otel:4317"
    assert (said.per_million, said.endpoint) == (rate, endpoint or before)
    rest = iter(found.decode().splitlines(keepends=True))
    for line in text.splitlines(keepends=True):
        if not line.startswith(("endpoint", "samplingRate")):
            assert line in rest
    for comment in ("# one", "# between", "# two", "# three"):
        assert (comment in text) == (comment in found.decode())
