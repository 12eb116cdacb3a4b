"""Credentials go to the server that the kubeconfig names: no redirect is followed, and none goes over plain http."""

from __future__ import annotations

import base64
import inspect
import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.certificates import Authority
from tests.doubles.recorder import Recorder, redirect, refusal
from tui import clusters
from tui.clusters.force import identity
from tui.clusters.force.preconditions import find
from tui.clusters.model import ReachError
from tui.clusters.reach.api import Api, ApiHost, Leftover, Refused
from tui.clusters.reach.redirects import place_of, stays
from tui.clusters.reach.wire import Answer

SECRET = "very-secret-token"

Make = Callable[..., Recorder]


@pytest.fixture
def recorder() -> Iterator[Make]:
    made: list[Recorder] = []

    def make(answer: bytes = b"", tls: ssl.SSLContext | None = None) -> Recorder:
        made.append(Recorder(answer, tls))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    issued = Authority(tmp_path).issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    return context


def kubeconfig(folder: Path, server: str, user: dict[str, Any] | None = None, **cluster: Any) -> Path:
    file = folder / "kubeconfig"
    entry = {"server": server, "insecure-skip-tls-verify": True, **cluster}
    file.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "lab",
                "clusters": [{"name": "c", "cluster": entry}],
                "users": [{"name": "me", "user": {"token": SECRET} if user is None else user}],
                "contexts": [{"name": "lab", "context": {"cluster": "c", "user": "me"}}],
            }
        )
    )
    return file


CALLS: dict[str, Callable[[Api], object]] = {
    "ask": lambda api: api.ask("DELETE", "/any", {"kind": "DeleteOptions"}),
    "each": lambda api: list(api.each("/api/v1/nodes")),
    "version": lambda api: api.version(),
    "nodes": lambda api: api.nodes(),
    "node": lambda api: api.node("cp-1"),
    "mirror_pods": lambda api: api.mirror_pods(),
    "identities": lambda api: api.identities(),
    "events": lambda api: api.events("kube-system", "pod"),
    "may": lambda api: api.may("get", "pods"),
    "log": lambda api: api.log("kube-system", "pod"),
    "images_in_use": lambda api: api.images_in_use("cp-1"),
    "leftovers": lambda api: api.leftovers(),
    "remove": lambda api: api.remove(Leftover("kube-system", "pod", "", "", "")),
    "exec": lambda api: api.exec("kube-system", "pod", ["true"], b"input", Answer(100), 10.0),
}
"""Every way to the server."""
MORE: dict[str, Callable[[Api], object]] = {
    "a pod": lambda api: ApiHost(api, "cp-1").run("true"),
    "an identity": lambda api: identity.issue(
        api, identity.Grant("lab", "me", ("a",), 1), "https://x", print, patience=1, directory=Path("/nonexistent")
    ),
}
NOT_ASKING = {"address", "close", "context", "exec_url"}


def test_every_way_is_tried_below() -> None:
    names = {name for name, _ in inspect.getmembers(Api) if not name.startswith("_")}
    assert names - NOT_ASKING == set(CALLS)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(
    call: str, code: int, recorder: Make, tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, secure = recorder(refusal(400)), recorder(refusal(400), tls)
    server = recorder(b"", tls)
    api = Api("lab", kubeconfig(tmp_path, server.url))
    places = {
        f"ws://user:{SECRET}@127.0.0.1:{plain.port}/x?token={SECRET}": f"ws://127.0.0.1:{plain.port}",
        f"http://127.0.0.1:{plain.port}/x": f"http://127.0.0.1:{plain.port}",
        f"//127.0.0.1:{secure.port}/x": f"127.0.0.1:{secure.port}",
        f"wss://127.0.0.1:{secure.port}/x": f"wss://127.0.0.1:{secure.port}",
        f"wss://127.0.0.1:{server.port}/x": f"wss://127.0.0.1:{server.port}",
        f"{server.url}/x": server.url,
        "/x": "another path of its own",
    }
    try:
        for number, (location, shown) in enumerate(places.items(), 1):
            server.answer = redirect(code, location)
            with pytest.raises(Refused) as caught:
                CALLS[call](api)
            said = str(caught.value)
            assert f"sends us on to {shown} ({code})" in said
            assert "correct the server of that context" in said
            assert SECRET not in said
            assert caught.value.status == code
            assert server.connections == number  # not even to itself
    finally:
        api.close()
        assert (plain.connections, secure.connections) == (0, 0)
    assert all(f"bearer {SECRET}".encode() in head.lower() for head in server.heads)


@pytest.mark.parametrize("call", MORE)
def test_what_is_made_of_them_does_not_either(call: str, recorder: Make, tls: ssl.SSLContext, tmp_path: Path) -> None:
    other = recorder(refusal(400))
    server = recorder(redirect(307, f"{other.url}/x"), tls)
    api = Api("lab", kubeconfig(tmp_path, server.url))
    with pytest.raises(Exception, match=r"sends us on to|cannot be made"):
        MORE[call](api)
    find(api)
    api.close()
    assert other.connections == 0


def test_a_location_is_shown_as_an_address_only() -> None:
    assert place_of("https://a.b:1/very/secret?x#y") == "https://a.b:1"
    assert place_of("https://user:secret@a.b") == "https://a.b"
    assert "\x1b" not in place_of("https://a\x1b[2Jb/")
    assert len(place_of(f"https://{'a' * 9000}/")) < 200
    assert place_of("https://[::1") == place_of("https://a:port") == place_of("javascript:x") == "no proper URL"
    inside = ["/", "/a//b?c:d", "?a=//b", "a/b:c", "a", "a?b:c"]
    assert [one for one in inside if not stays(one)] == []
    outside = ["//b", "/\\b", "\\\\b", "a:b", "HTTPS://b", "http:/b", ":b", "", "/\tb\n", "\t//b", " //b"]
    assert [one for one in outside if stays(one)] == []


# --- plain http -----------------------------------------------------------------------------------------------
def users(folder: Path) -> dict[str, dict[str, Any]]:
    issued = Authority(folder, "client authority").issue("client")
    token_file = folder / "token"
    token_file.write_text(SECRET)
    ran = folder / "ran"
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/sh", "args": ["-c", f": >{ran}"]}
    return {
        "token": {"token": SECRET},
        "token file": {"tokenFile": str(token_file)},
        "password": {"username": "me", "password": SECRET},
        "certificate": {"client-certificate": str(issued.certificate), "client-key": str(issued.key)},
        "plugin": {"exec": plugin},
        "oidc": {"auth-provider": {"name": "oidc", "config": {"id-token": f"{SECRET}.{SECRET}.{SECRET}"}}},
        "nothing": {},
    }


KINDS = ["token", "token file", "password", "certificate", "plugin", "oidc", "nothing"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", ["http", "HTTP"])
def test_over_plain_http_nothing_of_us_is_sent(kind: str, scheme: str, recorder: Make, tmp_path: Path) -> None:
    server = recorder(refusal(401, "who are you"))
    server_url = f"{scheme}://127.0.0.1:{server.port}"
    api = Api("lab", kubeconfig(tmp_path, server_url, users(tmp_path)[kind]))
    for call in CALLS.values():
        with pytest.raises(ReachError, match=r"one of http://.*who are you.*https://"):
            call(api)
    api.close()
    assert len(server.heads) == len(CALLS)
    for head in server.heads:
        assert b"authorization:" not in head.lower()
        assert SECRET.encode() not in head
        assert base64.b64encode(f"me:{SECRET}".encode()) not in head
    assert not (tmp_path / "ran").exists()


def test_a_server_without_credentials_goes_on_to_work(recorder: Make, tmp_path: Path) -> None:
    """`kubectl proxy`."""
    body = b'{"gitVersion":"v1.34.2"}'
    server = recorder(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body))
    api = Api("lab", kubeconfig(tmp_path, server.url, {}))
    assert api.version() == "v1.34.2"
    api.close()


def test_what_is_neither_is_refused_before_anything_is_sent(recorder: Make, tmp_path: Path) -> None:
    """`127.0.0.1:6443` alone was http to one library and https to another."""
    server = recorder(refusal(400))
    for url in (f"127.0.0.1:{server.port}", f"httpsx://127.0.0.1:{server.port}", "https://[x", "https://me:pw@host"):
        with pytest.raises(ReachError, match="is no https:// URL") as caught:
            Api("lab", kubeconfig(tmp_path, url))
        assert "pw" not in str(caught.value)
    assert server.connections == 0


def test_https_in_capitals_is_https(recorder: Make, tls: ssl.SSLContext, tmp_path: Path) -> None:
    server = recorder(refusal(400), tls)
    api = Api("lab", kubeconfig(tmp_path, f"HTTPS://127.0.0.1:{server.port}"))
    for call in CALLS.values():
        with pytest.raises(Refused):
            call(api)
    api.close()
    assert len(server.heads) == len(CALLS)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"])
def test_a_proxy_on_the_way_sees_no_credentials(
    name: str, recorder: Make, tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in ("no_proxy", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(one, raising=False)
    other, server, open_server = recorder(refusal(400)), recorder(refusal(400), tls), recorder(refusal(400))
    relay = recorder(redirect(302, f"{other.url}/"))
    for key in (name, name.lower()):
        monkeypatch.setenv(key, relay.url)
    for url in (server.url, open_server.url):
        for user in ({"token": SECRET}, {"username": "me", "password": SECRET}):
            api = Api("lab", kubeconfig(tmp_path, url, user))
            for call in CALLS.values():
                with pytest.raises(ReachError) as caught:
                    call(api)
                assert SECRET not in str(caught.value)
            api.close()
    seen = b"".join((*relay.heads, *open_server.heads, *other.heads)).lower()
    assert b"authorization:" not in seen
    assert SECRET.encode() not in seen
    assert other.connections == 0


def test_a_proxy_that_wants_a_password_gets_its_own(recorder: Make, tls: ssl.SSLContext, tmp_path: Path) -> None:
    relay = recorder(refusal(407))
    server = recorder(refusal(400), tls)
    given = relay.url.replace("://", "://me:p%40ss@")
    api = Api("lab", kubeconfig(tmp_path, server.url.replace("127.0.0.1", "server.invalid"), **{"proxy-url": given}))
    with pytest.raises(ReachError) as caught:
        api.version()
    api.close()
    assert "p%40ss" not in str(caught.value)
    assert "p@ss" not in str(caught.value)
    (head,) = relay.heads[:1]
    assert head.startswith(b"CONNECT server.invalid:")
    assert b"proxy-authorization: basic " + base64.b64encode(b"me:p@ss").lower() in head.lower()
    assert SECRET.encode() not in b"".join(relay.heads)


@pytest.mark.parametrize("url", ["socks5://127.0.0.1:1", "socks5h://127.0.0.1:1", "ftp://127.0.0.1:1"])
def test_a_proxy_of_another_kind_is_named(tmp_path: Path, url: str) -> None:
    with pytest.raises(ReachError, match=r"proxy of context lab is one of \w+://, which cannot be gone through here"):
        Api("lab", kubeconfig(tmp_path, "https://server.invalid:6443", **{"proxy-url": url}))


def test_what_a_server_repeats_of_our_token_is_not_shown(recorder: Make, tls: ssl.SSLContext, tmp_path: Path) -> None:
    server = recorder(b"", tls)
    api = Api("lab", kubeconfig(tmp_path, server.url))
    for answer in (refusal(400, f"I got Bearer {SECRET}"), redirect(302, f"https://{SECRET}.example/")):
        server.answer = answer
        for call in CALLS.values():
            with pytest.raises(Refused) as caught:
                call(api)
            assert SECRET not in str(caught.value)
            assert SECRET not in caught.value.message
            assert "(our token)" in str(caught.value)
    api.close()


def test_a_login_that_has_ended_is_not_renewed_over_whatever_way(recorder: Make, tmp_path: Path) -> None:
    """The client's own renewal asks an unchecked server where to send the secrets of the login."""
    issuer = recorder(refusal(400))
    claims = base64.urlsafe_b64encode(b'{"exp": 1}').decode().rstrip("=")
    config = {
        "idp-issuer-url": issuer.url,
        "client-id": "k",
        "client-secret": SECRET,
        "refresh-token": SECRET,
        "id-token": f"e30.{claims}.x",
    }
    user = {"auth-provider": {"name": "oidc", "config": config}}
    with pytest.raises(ReachError, match=r"has ended: run `kubectl --context lab get --raw /version` once"):
        Api("lab", kubeconfig(tmp_path, "https://127.0.0.1:1", user))
    assert issuer.connections == 0


# --- on a node ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("means", ["curl", "wget"])
def test_a_nodes_own_tools_follow_none_with_its_certificate(means: str, recorder: Make, tmp_path: Path) -> None:
    """Whatever root's own settings of them say."""
    if shutil.which(means) is None or (
        means == "wget" and subprocess.run(["wget", "--version"], check=False).returncode
    ):
        pytest.skip(f"needs {means}")
    home, kubernetes = tmp_path / "home", tmp_path / "kubernetes"
    home.mkdir()
    (kubernetes / "pki").mkdir(parents=True)
    authority = Authority(tmp_path)
    issued = authority.issue("apiserver-kubelet-client")
    for file, name in ((issued.certificate, "crt"), (issued.key, "key")):
        shutil.copy(file, kubernetes / f"pki/apiserver-kubelet-client.{name}")
    shutil.copy(authority.certificate, kubernetes / "pki/ca.crt")
    (home / ".curlrc").write_text("location\n")
    asks = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    asks.load_cert_chain(issued.certificate, issued.key)
    asks.load_verify_locations(authority.certificate)
    asks.verify_mode = ssl.CERT_REQUIRED
    other = recorder(refusal(200), asks)
    server = recorder(redirect(302, f"{other.url}/livez"), asks)
    script = (Path(clusters.__file__).parent / "node.sh").read_text()
    begin = script.index("\nget() {")
    get = script[begin : script.index("\n}\n", begin) + 3]
    done = subprocess.run(
        ["sh", "-c", f'limit() {{ shift; "$@"; }}\n{get}\nget "$1"\necho "$CODE"', "sh", f"{server.url}/livez"],
        env={"PATH": os.environ["PATH"], "HOME": str(home), "MEANS": means, "KUBERNETES": str(kubernetes), "READ": ""},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, server.connections, other.connections) == ("302\n", 1, 0)
