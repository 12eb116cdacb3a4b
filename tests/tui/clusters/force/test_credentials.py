"""What kubeconfigs say about who we are, as the server sees it; and what is said where that cannot be."""

from __future__ import annotations

import base64
import datetime
import json
import os
import re
import socket
import subprocess
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.certificates import Authority
from tests.doubles.stub_upstream import Asked, ConnectProxy, StubUpstream
from tests.tui.clusters.force.through import ask, connected, once, plugin, runs, seen
from tui.clusters.force import credentials as module
from tui.clusters.force.credentials import Upstream
from tui.clusters.force.proxy import Proxy
from tui.clusters.model import ReachError

SECRET = "s3cret-value"
SENTENCE = re.compile(r"[A-Z/][^\n]*[.?]")


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where directories with credentials are made; nothing may be left there, nor where the client writes its files."""
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[StubUpstream]:
    """The server."""
    server = StubUpstream(tmp_path).start()
    yield server
    server.stop()


def asked(stub: StubUpstream, upstream: Upstream) -> Asked:
    """What reaches the server."""
    with Proxy(upstream) as proxy:
        code, content = once(proxy, "/version")
        assert code == 200, content
    return stub.asked[-1]


def refused(file: Path, context: str = "") -> str:
    """Why there are no credentials: one sentence, without any in it, in its causes or where it came from."""
    with pytest.raises(ReachError) as raised:
        Upstream(context, file)
    assert SECRET not in "".join(traceback.format_exception(raised.value))
    assert SENTENCE.fullmatch(str(raised.value)), str(raised.value)
    return str(raised.value)


def answered(upstream: Upstream) -> str:
    """Why the server cannot be asked: the message of the 502 that the command gets."""
    with Proxy(upstream) as proxy:
        code, status = once(proxy, "/version")
        (seen,) = proxy.seen()
    assert (code, seen.code, seen.error) == (502, 502, status["message"])
    assert SECRET not in seen.error
    assert SENTENCE.fullmatch(seen.error), seen.error
    return seen.error


def encoded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


# --- who we are -----------------------------------------------------------------------------------------------
def test_client_certificates_of_files_and_in_the_kubeconfig(stub: StubUpstream, tmp_path: Path) -> None:
    mine, both = stub.authority.issue("me"), tmp_path / "both.pem"
    both.write_bytes(mine.key.read_bytes() + mine.certificate.read_bytes())
    users: list[dict[str, Any]] = [
        {"client-certificate": str(mine.certificate), "client-key": str(mine.key)},
        {"client-certificate": mine.certificate.name, "client-key": mine.key.name},  # beside the kubeconfig
        {"client-certificate-data": encoded(mine.certificate), "client-key-data": encoded(mine.key)},
        {"client-certificate": str(both), "client-key": str(both)},  # as a kubelet's
    ]
    for user in users:
        came = asked(stub, Upstream(kubeconfig=stub.kubeconfig(user)))
        assert (came.peer, came.all("authorization")) == ("me", [])
    stub.authority.certificate.write_bytes("Zürich\n".encode() + stub.authority.certificate.read_bytes())
    authority = encoded(stub.authority.certificate)
    file = stub.kubeconfig({"token": SECRET}, certificate_authority=None, certificate_authority_data=authority)
    assert asked(stub, Upstream(kubeconfig=file)).peer == ""
    # an identity of our own in the place of the context's user, whose plugin does not run then
    file = stub.kubeconfig({**plugin(tmp_path, {"token": SECRET}), "as": "jane"})
    came = asked(stub, Upstream(kubeconfig=file, identity=(mine.certificate, mine.key)))
    assert (came.peer, came.all("authorization"), came.all("impersonate-user")) == ("me", [], ["jane"])
    assert not (tmp_path / "runs").exists()


def test_tokens_passwords_and_what_counts_first(stub: StubUpstream, tmp_path: Path) -> None:
    basic = base64.b64encode(f"me:{SECRET}".encode()).decode()
    (tmp_path / "token").write_text("of-file\n")
    given: list[tuple[dict[str, Any], list[str]]] = [
        ({"token": SECRET}, [f"Bearer {SECRET}"]),
        ({"username": "me", "password": SECRET}, [f"Basic {basic}"]),
        ({"tokenFile": "token", "token": SECRET}, ["Bearer of-file"]),
        ({}, []),
    ]
    for user, wanted in given:
        assert asked(stub, Upstream(kubeconfig=stub.kubeconfig(user))).all("authorization") == wanted


def test_a_token_file_that_changes_is_read_again(stub: StubUpstream, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    with Proxy(Upstream(kubeconfig=stub.kubeconfig({"tokenFile": str(file)}))) as proxy, connected(proxy) as client:
        for text in ("one", "three", "", None, "five", "a\nb", "seven"):  # emptied, gone, no token at all
            if text is None:
                file.unlink()
            else:
                file.write_text(text)
            assert ask(client, proxy, "/version")[0] == 200
    said = [one.all("authorization")[0].removeprefix("Bearer ") for one in stub.asked]
    assert said == ["one", "three", "three", "three", "five", "five", "seven"]


def test_over_plain_http_nothing_of_us_is_sent(tmp_path: Path) -> None:
    plain = StubUpstream(tmp_path, tls=False).start()
    try:
        user = {"token": SECRET, "as": "jane"}
        came = asked(plain, Upstream(kubeconfig=plain.kubeconfig(user)))
        assert (came.all("authorization"), came.all("impersonate-user")) == ([], [])
    finally:
        plain.stop()


def test_what_was_made_for_another_server_does_not_go_to_this_one(stub: StubUpstream) -> None:
    """The context was changed while a command ran: its new token is for where it leads now."""
    stub.tokens = {"Bearer old"}
    file = stub.kubeconfig({"token": "old"})
    with Proxy(Upstream(kubeconfig=file)) as proxy:
        assert once(proxy, "/version")[0] == 200
        stub.tokens = {"Bearer newer"}
        before = len(stub.asked)
        file.write_text(file.read_text().replace(stub.url, "https://127.0.0.1:1").replace("old", SECRET))
        assert once(proxy, "/version")[0] == 401
        assert "leads to another server now" in seen(proxy, 2)[-1].error
        sent = [one.all("authorization") for one in stub.asked[before:]]
    assert sent == [["Bearer old"]]


# --- plugins --------------------------------------------------------------------------------------------------
def test_a_plugin_runs_again_when_its_credentials_end(
    stub: StubUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    now = datetime.datetime.now(datetime.timezone.utc)
    soon, late = ((now + datetime.timedelta(seconds=s)).strftime("%Y-%m-%dT%H:%M:%SZ") for s in (5, 3600))
    mine = stub.authority.issue("me")
    answers: tuple[dict[str, Any], ...] = (
        {"token": "one", "expirationTimestamp": soon},
        {
            "clientCertificateData": mine.certificate.read_text(),
            "clientKeyData": mine.key.read_text(),
            "expirationTimestamp": soon,
        },
        {"token": "three", "expirationTimestamp": late},
    )
    upstream = Upstream(kubeconfig=stub.kubeconfig(plugin(tmp_path, *answers)))
    with Proxy(upstream) as proxy, connected(proxy) as client:
        for _ in range(4):
            assert ask(client, proxy, "/version")[0] == 200
    # the first was had as the kubeconfig was read, and had nearly ended as the first request came
    assert [(one.peer, one.all("authorization")) for one in stub.asked] == [
        ("me", []), *[("", ["Bearer three"])] * 3
    ]  # fmt: skip
    assert runs(tmp_path) == 3


def script(text: str) -> dict[str, Any]:
    version = "client.authentication.k8s.io/v1"
    return {"exec": {"apiVersion": version, "command": "/bin/sh", "args": ["-c", text]}}


@pytest.mark.parametrize(
    ("user", "why"),
    [
        (script("echo login needed >&2; exit 3"), r"process returned 3\. login needed"),
        (script(f"echo {SECRET}"), r"failed to decode process output"),
        (script("true"), r"failed to decode process output"),
        (
            script(f"""echo '{{"apiVersion": "v9", "kind": "E", "status": {{"token": "{SECRET}"}}}}'"""),
            r"does not match",
        ),
        ({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-plugin"}}, r"no-such-plugin"),
    ],
)
def test_a_plugin_that_gives_no_credentials(stub: StubUpstream, user: dict[str, Any], why: str) -> None:
    told = refused(stub.kubeconfig(user))
    assert re.search(why, told), told
    assert "context lab" in told


def test_a_plugin_that_fails_later_is_told_to_the_command(
    stub: StubUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_EARLY", 1e9)
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    mark = tmp_path / "mark"
    status = {"token": SECRET, "expirationTimestamp": "2040-01-01T00:00:00Z"}
    said = json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status})
    user = script(f"test ! -e {mark} || {{ echo logged out >&2; exit 1; }}; touch {mark}; echo '{said}'")
    upstream = Upstream(kubeconfig=stub.kubeconfig(user))
    assert "logged out" in answered(upstream)
    assert "logged out" in answered(upstream)
    assert stub.asked == []


# --- the way there --------------------------------------------------------------------------------------------
def test_an_http_proxy_on_the_way(stub: StubUpstream) -> None:
    relay = ConnectProxy(f"user:{SECRET}@x").start()
    try:
        url = f"http://user:{SECRET}%40x@127.0.0.1:{relay.port}"
        assert asked(stub, Upstream(kubeconfig=stub.kubeconfig(proxy_url=url))).all("authorization")
        assert relay.asked == [f"127.0.0.1:{stub.port}"]
        wrong = Upstream(kubeconfig=stub.kubeconfig(proxy_url=f"http://user:{SECRET}@127.0.0.1:{relay.port}"))
        assert answered(wrong) == (
            f"The HTTP proxy 127.0.0.1:{relay.port} does not connect to lab (407 Proxy Authentication Required): is our"
            " name and password for it right, and does it allow that host?"
        )
        assert SECRET not in repr(wrong) + repr(wrong.relay)
        relay.answer = "SSH-2.0\r\n\r\n"
        assert answered(wrong).endswith("speaks no HTTP: correct proxy-url.")
    finally:
        relay.stop()
    assert "(refused): is it running?" in answered(wrong)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        threading.Thread(target=lambda: mute.accept()[0].close(), daemon=True).start()
        gone = Upstream(kubeconfig=stub.kubeconfig(proxy_url=f"http://127.0.0.1:{mute.getsockname()[1]}"))
        assert "gave no answer" in answered(gone)
    assert "socks5://" in refused(stub.kubeconfig(proxy_url=f"socks5://u:{SECRET}@127.0.0.1:1"))
    assert "is no URL" in refused(stub.kubeconfig(proxy_url=f"http://u:{SECRET}@127.0.0.1:port"))


def test_a_proxy_of_the_environment_is_not_for_loopback(stub: StubUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    assert Upstream(kubeconfig=stub.kubeconfig()).relay is None
    relay = Upstream(kubeconfig=stub.kubeconfig(server="https://cluster.example:6443")).relay
    assert relay is not None
    assert (relay.host, relay.port) == ("127.0.0.1", 1)
    assert asked(stub, Upstream(kubeconfig=stub.kubeconfig())).all("authorization")


def test_the_servers_certificate(tmp_path: Path) -> None:
    def server(name: str, **certificate: Any) -> StubUpstream:
        folder = tmp_path / name
        folder.mkdir()
        return StubUpstream(folder, **certificate).start()

    named, expired = server("named", host="kube.internal"), server("expired", days=-2)
    try:
        other = Authority(tmp_path, "other").certificate
        assert asked(named, Upstream(kubeconfig=named.kubeconfig(tls_server_name="kube.internal")))
        skipping = {"insecure_skip_tls_verify": True, "certificate_authority": None}
        assert asked(expired, Upstream(kubeconfig=expired.kubeconfig(**skipping)))
        told = [
            answered(Upstream(kubeconfig=file))
            for file in (
                named.kubeconfig(),
                named.kubeconfig(tls_server_name="kube.internal", certificate_authority=str(other)),
                named.kubeconfig(tls_server_name="kube.internal", certificate_authority=None),  # the system's
                expired.kubeconfig(),
                named.kubeconfig(server=f"http://127.0.0.1:{named.port}"),
            )
        ]
    finally:
        named.stop()
        expired.stop()
    assert told[:4] == [
        f"The certificate of {named.url} is for another name: correct the server of context lab, or set its"
        " tls-server-name.",
        f"The certificate of {named.url} is not trusted by context lab: check its certificate authority in the"
        " kubeconfig.",
        f"The certificate of {named.url} is not trusted by context lab: check its certificate authority in the"
        " kubeconfig.",
        f"The certificate of {expired.url} has expired: renew it on the control plane (kubeadm certs renew), or"
        " correct this machine's clock.",
    ]
    assert "http://" in told[4]


def test_a_server_without_tls(stub: StubUpstream) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def plain() -> None:
            plug, _ = listener.accept()
            with plug:
                plug.recv(4096)
                plug.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")

        threading.Thread(target=plain, daemon=True).start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        assert "speaks no TLS" in answered(Upstream(kubeconfig=stub.kubeconfig(server=url)))


# --- what cannot be -------------------------------------------------------------------------------------------
def test_what_a_kubeconfig_cannot_have(stub: StubUpstream, tmp_path: Path) -> None:
    mine, old, others = (stub.authority.issue(name, days=days) for name, days in (("a", 1), ("b", -2), ("c", 1)))
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-in", str(mine.key), "-aes256", "-passout", f"pass:{SECRET}", "-out", str(locked)],
        check=True,
        capture_output=True,
    )

    def pair(certificate: Path, key: Path) -> dict[str, Any]:
        return {"client-certificate": str(certificate), "client-key": str(key)}

    broken = base64.b64encode(SECRET.encode()).decode()
    (tmp_path / "noise").write_text(SECRET)
    for user, cluster, why in [
        (pair(old.certificate, old.key), {}, r"expired on \d{4}-\d\d-\d\d \d\d:\d\d UTC"),
        (pair(mine.certificate, others.key), {}, "do not belong together"),
        (pair(mine.certificate, locked), {}, "is encrypted"),
        (pair(mine.certificate, tmp_path / "nowhere"), {}, "nowhere"),
        (pair(tmp_path / "noise", mine.key), {}, "client certificate of context lab is none"),
        (pair(mine.certificate, tmp_path / "noise"), {}, "cannot be used"),
        ({"client-certificate-data": broken, "client-key-data": broken}, {}, "is none"),
        ({"client-certificate-data": SECRET + "!", "client-key-data": SECRET}, {}, "cannot be used"),
        ({"tokenFile": str(tmp_path / "nowhere")}, {}, "nowhere"),
        ({"token": f"{SECRET}\r\nX: y"}, {}, "no token can hold"),
        ({"token": SECRET, "as": "a\nb"}, {}, "impersonates"),
        ({"token": SECRET}, {"certificate_authority": None, "certificate_authority_data": broken}, "no certificate"),
        ({"token": SECRET}, {"certificate_authority": str(tmp_path / "nowhere")}, "nowhere"),
        ({"token": SECRET}, {"server": "ftp://x"}, "is no https:// URL"),
        ({"token": SECRET}, {"server": f"https://me:{SECRET}@host"}, "is no https:// URL"),
        ({"token": SECRET}, {"server": "https://host:99999"}, "is no https:// URL"),
        ({"token": SECRET}, {"server": "https://host/a?b=c"}, "no proper path"),
    ]:
        told = refused(stub.kubeconfig(user, **cluster))
        assert re.search(why, told), (user, told)
    assert "it has lab" in refused(stub.kubeconfig(), "nothing")
    (tmp_path / "kubeconfig").write_text(f"users: [{{token: {SECRET}")
    assert "cannot be read" in refused(tmp_path / "kubeconfig")
    assert "There is no kubeconfig" in refused(tmp_path / "none")
    assert stub.asked == []


def test_a_name_that_does_not_resolve(stub: StubUpstream) -> None:
    told = answered(Upstream(kubeconfig=stub.kubeconfig(server="https://nowhere.invalid:6443")))
    assert told.startswith("The API server https://nowhere.invalid:6443 of lab cannot be reached (")


def test_a_kubeconfig_of_several_files(stub: StubUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = stub.kubeconfig({"token": SECRET})
    first = tmp_path / "first"
    first.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "lab"}))
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join([str(first), str(file)]))
    upstream = Upstream()
    assert (upstream.name, upstream.cluster, upstream.user, upstream.namespace) == (
        "lab",
        "lab-cluster",
        "me",
        "team-a",
    )
    assert asked(stub, upstream).all("authorization") == [f"Bearer {SECRET}"]
