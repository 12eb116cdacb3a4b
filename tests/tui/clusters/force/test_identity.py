"""Getting a certificate that may bring traces, from a server that really signs and really checks it."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest
from cryptography import x509

from tests.doubles.tracing_api import ADMIN, PLAIN, TracingApi
from tests.tui.clusters.force.conftest import MakeApi
from tui.clusters.force.identity import Identity, grant_of, issue, stored
from tui.clusters.force.preconditions import Privilege, find
from tui.clusters.model import ClusterError
from tui.clusters.reach.api import Api


def issued(double: TracingApi, directory: Path, said: list[str], days: int = 7, patience: float = 5.0) -> Identity:
    api = Api("lab", double.kubeconfig(PLAIN))
    try:
        return issue(api, grant_of(find(api), days), double.url, said.append, patience=patience, directory=directory)
    finally:
        api.close()


def test_it_is_the_same_person_and_may_bring_traces(api_double: MakeApi, tmp_path: Path) -> None:
    double = api_double()
    made = issued(double, tmp_path / "identities", [])
    assert stat.S_IMODE(made.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(made.file.parent.stat().st_mode) == 0o700
    assert 6 * 86_400 < made.until - time.time() <= 7 * 86_400
    assert stored("lab", double.url, directory=tmp_path / "identities") == (made, "")
    certificate = x509.load_pem_x509_certificate(made.file.read_bytes().partition(b"\n")[2])
    parts = [(part.oid._name, part.value) for part in certificate.subject]
    assert parts == [
        ("organizationName", "kubeadm:cluster-admins"),
        ("organizationName", "system:monitoring"),
        ("commonName", "alice"),
    ]

    api = Api("lab", double.kubeconfig(PLAIN), identity=(made.file, made.file))
    try:
        found = find(api)
    finally:
        api.close()
    assert found.privilege is Privilege.FORCED
    assert found.caller is not None
    assert found.caller.name == "alice"


def test_somebody_else_approves(api_double: MakeApi, tmp_path: Path) -> None:
    double = api_double(denied={"update certificatesigningrequests/approval"}, approves_after=0.3)
    said: list[str] = []
    assert issued(double, tmp_path, said).name == "alice"
    assert "kubectl certificate approve k8s-trace-tui-" in said[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"denies": True, "denied": {"update certificatesigningrequests/approval"}}, "not today"),
        ({"denied": {"create certificatesigningrequests"}}, "does not allow it"),
        ({"denied": {"update certificatesigningrequests/approval"}}, "Nobody signed"),
        ({"version": "v1.32.0"}, "none before 1.33"),
    ],
)
def test_no_certificate_leaves_nothing(
    api_double: MakeApi, tmp_path: Path, options: dict[str, object], words: str
) -> None:
    double = api_double(**options)
    with pytest.raises(ClusterError, match=words):
        issued(double, tmp_path / "identities", [], patience=0.3)
    assert not double.csrs, "a request that nobody approved is taken back"
    assert not list((tmp_path / "identities").glob("*")) or not (tmp_path / "identities").exists()


def test_who_may_already_is_told_so(api_double: MakeApi) -> None:
    api = Api("lab", api_double().kubeconfig(ADMIN))
    with pytest.raises(ClusterError, match="no certificate is needed"):
        grant_of(find(api))
    api.close()


def test_one_that_must_not_be_used_is_not(api_double: MakeApi, tmp_path: Path) -> None:
    double = api_double()
    made = issued(double, tmp_path, [])
    assert stored("other", double.url, directory=tmp_path) == (None, "")
    none, why = stored("lab", "https://elsewhere:6443", directory=tmp_path)
    assert none is None
    assert "was made for" in why
    none, why = stored("lab", double.url, directory=tmp_path, now=made.until - 5.0)
    assert none is None
    assert "ended on" in why
    made.file.chmod(0o644)
    none, why = stored("lab", double.url, directory=tmp_path)
    assert none is None
    assert "0600" in why
    made.file.chmod(0o600)
    made.file.write_text("{}")
    assert stored("lab", double.url, directory=tmp_path)[1].endswith("--issue-identity.")
