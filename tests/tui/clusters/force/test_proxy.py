"""The proxy between real clients (the `kubernetes` client, curl, kubectl, bare sockets) and a server of the test's."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.certificates import Authority
from tests.doubles.stub_api import StubApi
from tests.doubles.stub_upstream import Asked, Channel, StubUpstream, pattern, server_context
from tests.eventually import eventually
from tests.tui.clusters.force.through import (
    SECONDS,
    ask,
    connected,
    everything,
    head,
    once,
    plugin,
    raw,
    runs,
    seen,
    trusting,
)
from tui.clusters.force import proxy as proxy_module
from tui.clusters.force.credentials import Upstream
from tui.clusters.force.kubeconfig import temporary_kubeconfig
from tui.clusters.force.proxy import Proxy, Seen

MANY = 300


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where directories with credentials are made; nothing may be left there."""
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[StubUpstream]:
    """The server."""
    server = StubUpstream(tmp_path).start()
    yield server
    server.stop()


@pytest.fixture
def proxy(stub: StubUpstream) -> Iterator[Proxy]:
    """To it, with the token `real-secret`."""
    with Proxy(Upstream(kubeconfig=stub.kubeconfig())) as started:
        yield started


# --- what it changes ------------------------------------------------------------------------------------------
def test_each_request_is_marked_and_the_rest_stays(stub: StubUpstream, proxy: Proxy) -> None:
    with raw(proxy) as plug:
        fields = (
            "traceparent: 00-11111111111111111111111111111111-2222222222222222-00",
            "tracestate: a=b",
            "Audit-ID: mine",
            "Impersonate-User: jane",
            "Impersonate-Group: a",
            "Impersonate-Group: b",
            "X-Twice: 1",
            "x-twice: 2",
            "TE: gone",
            "Keep-Alive: timeout=5",
            "Proxy-Authorization: Basic eDp5",
            "Accept: application/json;as=Table",
            "Connection: keep-alive, x-not-there, close",
        )
        plug.sendall(head(proxy, "GET /api/v1/pods?limit=5&x=%2F HTTP/1.1", *fields))
        answer, clean = everything(plug)
    assert clean
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert once(proxy, "/other")[0] == 200
    first, second = stub.asked
    one, two = seen(proxy, 2)
    assert (first.method, first.target) == ("GET", "/api/v1/pods?limit=5&x=%2F")
    assert sorted(first.fields) == sorted(
        [
            ("host", f"127.0.0.1:{stub.port}"),
            ("authorization", "Bearer real-secret"),
            ("traceparent", f"00-{one.trace_id}-{one.parent_id}-01"),
            ("audit-id", "mine"),
            ("impersonate-user", "jane"),
            ("impersonate-group", "a"),
            ("impersonate-group", "b"),
            ("x-twice", "1"),
            ("x-twice", "2"),
            ("accept", "application/json;as=Table"),
        ]
    )
    assert second.all("audit-id") == [two.audit_id]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", two.audit_id)
    assert second.all("traceparent") == [f"00-{two.trace_id}-{two.parent_id}-01"]
    assert len({one.trace_id, two.trace_id, one.parent_id * 2, two.parent_id * 2, "0" * 32}) == 5
    assert (one.number, one.audit_id, one.method, one.target) == (1, "mine", "GET", first.target)
    assert (one.code, one.sent, one.error, one.upgraded, one.watch) == (200, 0, "", False, False)
    assert one.received == len(answer.partition(b"\r\n\r\n")[2])
    assert abs(one.started - time.time_ns()) < 60e9
    assert 0 < one.duration_ns < 60e9


def test_a_prefix_in_the_servers_url_and_impersonation_of_the_context_are_put_in(stub: StubUpstream) -> None:
    user = {"token": "t", "as": "jane", "as-groups": ["a", "b"]}
    file = stub.kubeconfig(user, server=f"{stub.url}/k8s/clusters/c-1/")
    with Proxy(Upstream(kubeconfig=file)) as proxy, connected(proxy) as client:
        assert ask(client, proxy, "/version")[0] == 200
        assert ask(client, proxy, "/version", headers={"Impersonate-User": "joe"})[0] == 200
    own, clients = stub.asked
    assert own.target == "/k8s/clusters/c-1/version"
    assert (own.all("impersonate-user"), own.all("impersonate-group")) == (["jane"], ["a", "b"])
    assert (clients.all("impersonate-user"), clients.all("impersonate-group")) == (["joe"], [])


# --- who may --------------------------------------------------------------------------------------------------
def test_without_the_token_of_this_proxy_nothing_goes_on(stub: StubUpstream, proxy: Proxy, tmp_path: Path) -> None:
    with Proxy(Upstream(kubeconfig=stub.kubeconfig())) as other:
        given = [
            (),
            ("Authorization: Bearer wrong",),
            (f"Authorization: Bearer {other.token}",),
            (f"Authorization: bearer {proxy.token}x",),
            (f"Authorization: Bearer {proxy.token}", "Authorization: Bearer x"),
            ("Authorization: Bearer real-secret",),
            (
                f"Authorization: Bearer {proxy.token}",
                "Sec-WebSocket-Protocol: v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.eA",
            ),
        ]
        for fields in given:
            with raw(proxy) as plug:
                plug.sendall("\r\n".join(["GET /version HTTP/1.1", "Host: x", *fields, "", ""]).encode())
                answer, clean = everything(plug)
            status = json.loads(answer.partition(b"\r\n\r\n")[2])
            assert (clean, status["kind"], status["code"], status["reason"]) == (True, "Status", 401, "Unauthorized")
            assert "leave out --token" in status["message"]
        assert (proxy.refused, proxy.total, proxy.seen()) == (len(given), 0, ())
        assert stub.asked == []
        assert once(other, "/version")[0] == once(proxy, "/version")[0] == 200  # two at once
        assert proxy.authority != other.authority
        with pytest.raises(ssl.SSLCertVerificationError), raw(proxy, context=trusting(other)):
            pass


@pytest.mark.parametrize(
    "fields",
    [
        ("Content-Length: 4", "Transfer-Encoding: chunked"),
        ("Content-Length: 4", "Content-Length: 4"),
        ("Transfer-Encoding: gzip, chunked",),
        ("X: a\r\n folded",),
        ("X: a\nY: b",),
        ("X: " + "a" * 70_000,),
        *(
            (f"{name}: x", f"Connection: close, {name.lower()}")
            for name in (
                "Impersonate-User",
                "Impersonate-Extra-a",
                "Audit-ID",
                "traceparent",
                "X-Remote-User",
                "Cookie",
                "X",
            )
        ),
        ("Connection: authorization",),
        ("Connection: close", "Connection: \tHOST ,te"),
        ("Content-Length: 0", "Connection: content-length"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(stub: StubUpstream, proxy: Proxy, fields: tuple[str, ...]) -> None:
    with raw(proxy) as plug:
        plug.sendall(head(proxy, "POST /a HTTP/1.1", *fields) + b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
        answer, clean = everything(plug)
    assert clean
    assert answer.split(b" ")[1] in (b"400", b"431", b"501")
    assert answer.count(b"HTTP/1.1") == 1
    assert "The proxy of k8s-trace-tui refuses this request" in answer.decode()
    assert stub.asked == []


@pytest.mark.parametrize(
    "fields",
    [
        ("Impersonate-User:",),
        ("Impersonate-User: ", "Impersonate-Group: a"),
        ("Impersonate-Bogus: x",),
        ("impersonate-group: a",),
        ("Impersonate-User: joe", "Impersonate-User:"),
    ],
)
def test_no_field_takes_the_contexts_impersonation_away(stub: StubUpstream, fields: tuple[str, ...]) -> None:
    """Of none of these the API server makes another user: the command would be who the credentials are."""
    upstream = Upstream(kubeconfig=stub.kubeconfig({"token": "t", "as": "jane"}))
    with Proxy(upstream) as proxy, raw(proxy) as plug:
        plug.sendall(head(proxy, "GET /a HTTP/1.1", *fields))
        answer, _ = everything(plug)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"need one Impersonate-User that is not empty" in answer
    assert stub.asked == []


@pytest.mark.parametrize(
    "name", ["Impersonate-User", "impersonate-group", "Authorization", "Audit-ID", "X-Remote-User"]
)
def test_no_identity_comes_behind_the_body(stub: StubUpstream, proxy: Proxy, name: str) -> None:
    with raw(proxy) as plug:
        plug.sendall(
            head(proxy, "POST /echo HTTP/1.1", "Transfer-Encoding: chunked") + f"0\r\n{name}: x\r\n\r\n".encode()
        )
        answer, _ = everything(plug)
    assert b"is no trailer field" in answer


# --- clients --------------------------------------------------------------------------------------------------
def test_the_python_client_lists_watches_and_follows_logs(stub: StubUpstream, proxy: Proxy) -> None:
    from kubernetes import client, config, watch

    with temporary_kubeconfig(proxy) as file:
        api = client.CoreV1Api(config.new_client_from_config(str(file)))
        assert [pod.metadata.name for pod in api.list_namespaced_pod("team-a").items] == ["first"]
        events = watch.Watch().stream(api.list_namespaced_pod, "team-a", timeout_seconds=20)
        assert next(events)["object"].metadata.name == "first"  # while the server still waits
        log = api.read_namespaced_pod_log("first", "team-a", follow=True, _preload_content=False)
        lines = iter(log)
        assert next(lines) == b"one\n"
        stub.release()
        assert next(events)["object"].metadata.name == "second"
        events.close()
        assert list(lines) == [b"two\n"]
        api.api_client.close()
    listed, watched, followed, *again = proxy.seen()
    assert (listed.watch, listed.code) == (False, 200)
    assert (watched.watch, watched.code, watched.error) == (True, 200, "")
    assert (followed.watch, followed.code, followed.received, followed.error) == (True, 200, 8, "")
    assert all(one.watch for one in again)  # the client watches on until it is closed


def test_curl_sends_and_receives_large_bodies(stub: StubUpstream, proxy: Proxy, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not here")
    (tmp_path / "ca.pem").write_bytes(proxy.authority)
    sent = tmp_path / "sent"
    sent.write_bytes(pattern(9_000_001))
    digest = hashlib.sha256(sent.read_bytes()).hexdigest()

    def curl(target: str, *options: str) -> bytes:
        command = ["curl", "-sS", "--fail", "--max-time", "20", "--noproxy", "*", "--cacert", str(tmp_path / "ca.pem")]
        given = ["-H", f"Authorization: Bearer {proxy.token}", *options, f"https://127.0.0.1:{proxy.port}{target}"]
        return subprocess.run([*command, *given], check=True, capture_output=True, timeout=30).stdout

    for options in ([], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect:"]):  # large: curl expects a 100
        echoed = json.loads(curl("/echo", "-X", "POST", "--data-binary", f"@{sent}", *options))
        assert (echoed["sent"], echoed["digest"]) == (9_000_001, digest)
    for shape in ("", "&chunked=1"):
        assert curl(f"/big?bytes=9000001{shape}") == pattern(9_000_001)
    assert curl("/big?bytes=100&chunked=1", "--http1.0") == pattern(100)  # no chunks for those who know none
    assert [(one.sent, one.received) for one in seen(proxy, 6)[3:]] == [(0, 9_000_001)] * 2 + [(0, 100)]
    assert [one.sent for one in proxy.seen()[:3]] == [9_000_001] * 3


def test_kubectl_reads_through_it(stub: StubUpstream, proxy: Proxy, tmp_path: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not here")
    with temporary_kubeconfig(proxy) as file:
        environment = {"KUBECONFIG": str(file), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin:/usr/local/bin"}

        def kubectl(*words: str) -> str:
            return subprocess.run(
                ["kubectl", *words], env=environment, check=True, capture_output=True, text=True, timeout=60
            ).stdout

        assert json.loads(kubectl("get", "--raw", "/version"))["gitVersion"] == "v1.36.2"
        assert kubectl("get", "pods", "-o", "name") == "pod/first\n"  # in the context's own namespace
        assert kubectl("config", "current-context") == "lab\n"
        stub.release()
        assert kubectl("logs", "first", "--follow").splitlines()[-1] == "two"
    assert all("kubectl" in asked.all("user-agent")[0] for asked in stub.asked)
    assert {one.error for one in proxy.seen()} == {""}


def test_exec_goes_through_as_a_tunnel(tmp_path: Path) -> None:
    from kubernetes import client, config, stream

    folder = tmp_path / "api"
    folder.mkdir()
    api = StubApi(root=tmp_path, folder=folder)
    api.start()
    api.add_control_plane("cp-1")
    name = "kube-apiserver-cp-1"
    api.pods[name].update(kind="Pod", apiVersion="v1")
    shell = ["chroot", "/host", "sh", "-c"]
    try:
        with Proxy(Upstream(kubeconfig=api.kubeconfig())) as proxy, temporary_kubeconfig(proxy) as file:
            core = client.CoreV1Api(config.new_client_from_config(str(file)))
            words = [*shell, "echo said; echo warned >&2; head -c 300000 /dev/zero | tr '\\0' x"]
            told = stream.stream(
                core.connect_get_namespaced_pod_exec, name, "kube-system", command=words,
                stdout=True, stderr=True, stdin=False, tty=False, _preload_content=False,
            )  # fmt: skip
            told.run_forever(timeout=SECONDS)
            assert told.read_stdout().startswith("said\nxxx")
            assert told.read_stderr() == "warned\n"
            core.api_client.close()
            (one,) = seen(proxy, 1)
            assert (one.code, one.upgraded) == (101, True)  # the double ends without TLS's own end: that is told
            assert one.received > 300_000
            assert one.target.startswith(f"/api/v1/namespaces/kube-system/pods/{name}/exec?")
            if shutil.which("kubectl") is not None:
                done = subprocess.run(
                    ["kubectl", "exec", "-n", "kube-system", name, "--", *shell, "echo from kubectl; exit 3"],
                    env={"KUBECONFIG": str(file), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin:/usr/local/bin"},
                    capture_output=True, text=True, timeout=60,
                )  # fmt: skip
                assert (done.stdout, done.returncode) == ("from kubectl\n", 3), done.stderr
                eventually(lambda: proxy.seen()[-1].upgraded, "the exec seen")
    finally:
        api.stop()


# --- HTTP -----------------------------------------------------------------------------------------------------
def test_one_connection_for_many_requests_of_every_kind(stub: StubUpstream, proxy: Proxy) -> None:
    async def bare(asked: Asked, channel: Channel) -> None:
        await channel.send(f"HTTP/1.1 {asked.query['code']} Some\r\nETag: x\r\n\r\n".encode())

    async def sized(asked: Asked, channel: Channel) -> None:
        await channel.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")

    stub.routes = {"/bare": bare, "/head": sized}
    with connected(proxy) as client:
        assert ask(client, proxy, "/version")[0] == 200
        port = client.sock.getsockname()[1]
        assert ask(client, proxy, "/head", "HEAD") == (200, b"")
        assert ask(client, proxy, "/bare?code=204", "DELETE") == (204, b"")
        assert ask(client, proxy, "/bare?code=304") == (304, b"")
        assert ask(client, proxy, "/big?bytes=70000&chunked=1") == (200, pattern(70_000))
        assert json.loads(ask(client, proxy, "/e", "POST", b"abc")[1])["sent"] == 3
        assert json.loads(ask(client, proxy, "/e", "PUT", iter([b"ab", b"cde"]))[1])["sent"] == 5
        assert json.loads(ask(client, proxy, "/e", "POST", b"")[1])["fields"].count(["content-length", "0"]) == 1
        assert client.sock.getsockname()[1] == port
    assert stub.connections == 1
    assert [one.code for one in seen(proxy, 8)] == [200, 200, 204, 304, 200, 200, 200, 200]


def test_requests_in_pieces_and_in_a_row_and_trailers(stub: StubUpstream, proxy: Proxy) -> None:
    async def trailing(asked: Asked, channel: Channel) -> None:
        await channel.send(b"HTTP/1.1 200 OK\r\nTrailer: T\r\nTransfer-Encoding: chunked\r\n\r\n")
        await channel.send(b"2;x=y\r\nok\r\n0\r\nT: late\r\n\r\n")

    async def hinted(asked: Asked, channel: Channel) -> None:
        await channel.send(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n")
        await channel.answer("late")

    stub.routes = {"/trailing": trailing, "/hinted": hinted}
    chunked = b"2\r\nab\r\n1\r\nc\r\n0\r\nX-Sum: 7\r\n\r\n"
    first = head(proxy, "POST /echo HTTP/1.1", "Transfer-Encoding: chunked", "TE: trailers", "Connection: TE") + chunked
    with raw(proxy) as plug:
        for at in range(len(first)):
            plug.sendall(first[at : at + 1])
        more = ("GET /trailing HTTP/1.1", "GET /hinted HTTP/1.1")
        last = head(proxy, "GET /version HTTP/1.1", "Connection: close")
        plug.sendall(b"".join(head(proxy, line) for line in more) + last)
        answers, clean = everything(plug)
    assert clean
    assert answers.count(b"HTTP/1.1 200 OK") == 4
    assert answers.index(b'["x-sum", "7"]') < answers.index(b"2;x=y\r\nok\r\n0\r\nT: late\r\n\r\n")
    assert answers.index(b"T: late") < answers.index(b"HTTP/1.1 103 Early Hints") < answers.index(b"v1.36.2")
    assert stub.asked[0].all("te") == ["trailers"]


def test_an_answer_before_the_body_has_come_reaches_the_command(stub: StubUpstream, proxy: Proxy) -> None:
    async def too_large(asked: Asked, channel: Channel) -> bool:
        await channel.answer({"message": "too large"}, "413 Too Large", "Connection: close")
        return True

    stub.before_body["/upload"] = too_large
    with raw(proxy) as plug:
        plug.sendall(head(proxy, "POST /upload HTTP/1.1", "Content-Length: 50000000") + b"x" * 1000)
        answer, clean = everything(plug)
    assert answer.startswith(b"HTTP/1.1 413 Too Large\r\n")
    assert answer.endswith(b'{"message": "too large"}')
    assert clean
    (one,) = seen(proxy, 1)
    assert (one.code, one.error) == (413, "")
    assert once(proxy, "/version")[0] == 200
    assert stub.connections == 2  # that body was never finished: no other request may follow it
    for _ in range(5):  # the server closes with bytes unread: its system resets the connection behind the answer
        with raw(proxy) as plug:
            plug.sendall(head(proxy, "POST /upload HTTP/1.1", "Content-Length: 2000000", "Connection: close"))
            plug.sendall(b"x" * 2_000_000)
            answer, clean = everything(plug)
        assert answer.startswith(b"HTTP/1.1 413 Too Large\r\n")


# --- tunnels --------------------------------------------------------------------------------------------------
class HalfTls:
    """A TLS client that can end its own direction alone, which `ssl` sockets cannot."""

    def __init__(self, plug: socket.socket, context: ssl.SSLContext) -> None:
        self._plug, self._in, self._out = plug, ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="127.0.0.1")
        self._drive(self._tls.do_handshake)

    def _drive(self, work: Callable[[], Any]) -> Any:
        while True:
            try:
                return work()
            except ssl.SSLWantReadError:
                self._flush()
                data = self._plug.recv(1 << 16)
                if data:
                    self._in.write(data)
                else:
                    self._in.write_eof()
            finally:
                self._flush()

    def _flush(self) -> None:
        if self._out.pending:
            self._plug.sendall(self._out.read())

    def send(self, data: bytes) -> None:
        self._tls.write(data)
        self._flush()

    def finish(self) -> None:
        """Say that nothing more comes."""
        with suppress(ssl.SSLWantReadError):  # it would wait for the other side's
            self._tls.unwrap()
        self._flush()
        self._plug.shutdown(socket.SHUT_WR)

    def rest(self) -> bytes:
        """Until the other side's proper end."""
        parts = []
        try:
            while piece := self._drive(lambda: self._tls.read(1 << 16)):
                parts.append(piece)
        except ssl.SSLZeroReturnError:
            pass
        return b"".join(parts)


def test_a_tunnel_goes_both_ways_and_each_way_ends_by_itself(tmp_path: Path) -> None:
    plain = StubUpstream(tmp_path, tls=False).start()
    try:
        with Proxy(Upstream(kubeconfig=plain.kubeconfig())) as proxy:
            with socket.create_connection(("127.0.0.1", proxy.port), SECONDS) as plug:
                client = HalfTls(plug, trusting(proxy))
                request = head(proxy, "POST /tunnel HTTP/1.1", "Connection: Upgrade", "Upgrade: echo/1")
                client.send(request + b"early ")  # what comes before the answer is of the tunnel too
                client.send(pattern(200_000))
                client.finish()
                answer = client.rest()
            (one,) = seen(proxy, 1)
    finally:
        plain.stop()
    first, _, rest = answer.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"\r\nUpgrade: echo/1" in first
    assert rest == b"hello" + b"early " + pattern(200_000) + b"bye"
    assert (one.code, one.upgraded, one.sent, one.received, one.error) == (101, True, 200_006, 200_014, "")
    assert plain.asked[0].all("authorization") == []  # nothing of us over plain http


def test_a_tunnel_whose_server_has_nothing_more_to_say_still_takes(tmp_path: Path) -> None:
    plain = StubUpstream(tmp_path, tls=False).start()
    taken: list[bytes] = []

    async def listen(asked: Asked, channel: Channel) -> bool:
        await channel.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nbye")
        channel.writer.write_eof()
        taken.append(await channel.reader.read())
        return True

    plain.routes["/listen"] = listen
    try:
        with (
            Proxy(Upstream(kubeconfig=plain.kubeconfig())) as proxy,
            socket.create_connection(("127.0.0.1", proxy.port), SECONDS) as plug,
        ):
            client = HalfTls(plug, trusting(proxy))
            client.send(head(proxy, "POST /listen HTTP/1.1", "Connection: Upgrade", "Upgrade: x"))
            assert client.rest().endswith(b"\r\n\r\nbye")
            client.send(b"still ")
            client.send(pattern(100_000))
            client.finish()
            (one,) = seen(proxy, 1)
            eventually(lambda: bool(taken), "the server has it")  # in its thread, after the proxy has sent it
        assert taken == [b"still " + pattern(100_000)]
    finally:
        plain.stop()
    assert (one.upgraded, one.sent, one.received, one.error) == (True, 100_006, 3, "")


def test_a_tunnel_that_the_server_cuts_is_cut_for_the_command(stub: StubUpstream, proxy: Proxy) -> None:
    async def cut(asked: Asked, channel: Channel) -> bool:
        await channel.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\npart")
        await channel.reader.readexactly(2)
        channel.cut()
        return True

    async def closed(asked: Asked, channel: Channel) -> bool:
        await channel.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\npart")
        return True

    stub.routes = {"/cut": cut, "/closed": closed}
    with raw(proxy) as plug:
        plug.sendall(head(proxy, "GET /cut HTTP/1.1", "Connection: Upgrade", "Upgrade: x") + b"go")
        answer, clean = everything(plug)
    assert (answer.endswith(b"\r\n\r\npart"), clean) == (True, False)
    with raw(proxy) as plug:
        plug.sendall(head(proxy, "GET /closed HTTP/1.1", "Connection: Upgrade", "Upgrade: x"))
        answer, clean = everything(plug)
        assert (answer.endswith(b"\r\n\r\npart"), clean) == (True, True)
        with suppress(OSError):  # until the server's system says that there is nobody
            while not proxy.seen()[1:]:
                plug.sendall(b"x" * 10_000)
    one, two = seen(proxy, 2)
    assert one.error == f"The API server {stub.url} cut the connection."
    assert (two.error, two.received) == ("", 4)


def test_an_upgrade_that_the_server_declines_is_an_answer(stub: StubUpstream, proxy: Proxy) -> None:
    with connected(proxy) as client:
        fields = {"Connection": "Upgrade", "Upgrade": "other/2"}
        assert ask(client, proxy, "/tunnel", headers=fields)[0] == 400
        assert ask(client, proxy, "/version")[0] == 200

    async def unasked(asked: Asked, channel: Channel) -> None:
        await channel.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")

    stub.routes["/unasked"] = unasked
    assert once(proxy, "/unasked")[0] == 502


# --- what fails on the way ------------------------------------------------------------------------------------
def test_a_connection_that_the_server_closed_when_idle_is_not_used(stub: StubUpstream, proxy: Proxy) -> None:
    with connected(proxy) as client:
        for method in ("GET", "POST", "POST"):
            assert ask(client, proxy, "/echo", method, b"x" if method == "POST" else None)[0] == 200
            stub.close_idle()
            eventually(lambda: not proxy._servers, "the proxy saw it")
    assert stub.connections == 3
    assert [one.error for one in seen(proxy, 3)] == [""] * 3


def test_only_what_changes_nothing_is_sent_again(stub: StubUpstream, proxy: Proxy) -> None:
    async def leave_the_second(asked: Asked, channel: Channel) -> bool:
        before = [one for one in stub.asked if one.connection == asked.connection]
        if len(before) > 1:
            return True
        await channel.answer({})
        return False

    stub.routes["/some"] = leave_the_second
    with connected(proxy) as client:
        assert ask(client, proxy, "/some")[0] == 200
        assert ask(client, proxy, "/some")[0] == 200  # on a connection that had just gone: again, on another
        code, content = ask(client, proxy, "/some", "POST", b"x")
    assert code == 502
    assert json.loads(content)["message"] == (
        f"The API server {stub.url} closed the connection before it answered, so a change may have been made or not:"
        " look, then try again."
    )
    assert [one.method for one in stub.asked] == ["GET", "GET", "GET", "POST"]
    assert len({one.all("traceparent")[0] for one in stub.asked[1:3]}) == 1  # one request, one trace
    assert [one.code for one in seen(proxy, 3)] == [200, 200, 502]


def test_an_answer_that_breaks_off_breaks_off_for_the_command(stub: StubUpstream, proxy: Proxy) -> None:
    whole = b"HTTP/1.1 200 OK\r\n%b\r\n\r\n"
    shapes = {
        "/sized": whole % b"Content-Length: 100000",
        "/chunked": whole % b"Transfer-Encoding: chunked" + b"186a0\r\n",
        "/until-end": whole % b"A: b",
    }

    async def part(asked: Asked, channel: Channel) -> bool:
        await channel.send(shapes[asked.target] + b"x" * 50_000)
        await stub.go()
        channel.cut()
        return True

    async def much(asked: Asked, channel: Channel) -> bool:
        channel.writer.transport.set_write_buffer_limits(0)
        await channel.send(whole % b"Content-Length: 1000000" + b"x" * 300_000)
        channel.cut()
        return True

    async def wrong(asked: Asked, channel: Channel) -> None:
        await channel.send(whole % b"Transfer-Encoding: chunked" + b"2\r\nabcdefg\r\n0\r\n\r\n")

    stub.routes = {**dict.fromkeys(shapes, part), "/wrong": wrong, "/much": much}
    for target in shapes:
        stub.hold()
        with raw(proxy) as plug:
            plug.sendall(head(proxy, f"GET {target} HTTP/1.1"))
            got = b""
            while got.count(b"x") < 50_000:
                got += plug.recv(1 << 16)
            stub.release()
            rest, clean = everything(plug)
            assert (rest, clean) == (b"", False), target
    with raw(proxy, receive=4096) as plug:  # all that came is still handed on, also to one that reads slowly
        for end in tuple(proxy._commands):
            assert end._transport is not None
            end._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        plug.sendall(head(proxy, "GET /much HTTP/1.1"))
        eventually(lambda: any(one.full for one in tuple(proxy._commands)), "more has come than it has taken")
        rest, clean = everything(plug)
        assert (rest.count(b"x"), clean) == (300_000, False)
    with connected(proxy) as client, pytest.raises((http.client.IncompleteRead, OSError, http.client.HTTPException)):
        ask(client, proxy, "/wrong")
    *broken, _, malformed = seen(proxy, 5)
    for one in broken:
        assert (one.code, one.received) == (200, 50_000)
        assert one.error == f"The API server {stub.url} broke off its answer in the middle."
    assert malformed.error.startswith("The answer of lab is broken in the middle: ")


def test_a_server_that_cannot_be_used_is_told_as_the_api_server_would(
    stub: StubUpstream, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def garbage(asked: Asked, channel: Channel) -> bool:
        await channel.send(b"SSH-2.0-OpenSSH\r\n\r\n")
        return True

    async def nothing(asked: Asked, channel: Channel) -> bool:
        channel.cut()
        return True

    async def smuggled(asked: Asked, channel: Channel) -> bool:
        await channel.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        return True

    stub.routes = {"/garbage": garbage, "/nothing": nothing, "/smuggled": smuggled}
    told = {}
    for target in stub.routes:
        code, status = once(proxy, target)
        assert (code, status["kind"], status["apiVersion"], status["status"]) == (502, "Status", "v1", "Failure")
        told[target] = status["message"]
    assert told == {
        "/garbage": "What answers as the API server of lab speaks no proper HTTP (the first line is none of an HTTP/1.1"
        " response): is it a proxy?",
        "/nothing": f"The API server {stub.url} closed the connection before it answered: is it restarting?",
        "/smuggled": "What answers as the API server of lab speaks no proper HTTP (both a length and a transfer coding"
        " are given): is it a proxy?",
    }
    assert [one.error for one in seen(proxy, 3)] == list(told.values())

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(proxy_module, "_CONNECT_SECONDS", 0.3)
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        with Proxy(Upstream(kubeconfig=stub.kubeconfig(server=url))) as other:
            code, status = once(other, "/version")
            assert (code, status["message"]) == (
                504, f"The API server {url} of lab cannot be reached (no answer in time): is it restarting?"
            )  # fmt: skip
    with Proxy(Upstream(kubeconfig=stub.kubeconfig(server=url))) as other:
        code, status = once(other, "/version", "HEAD")
        assert (code, status) == (502, None)
        code, status = once(other, "/version")
        assert (code, status["message"]) == (
            502, f"The API server {url} of lab cannot be reached (connection refused): is it restarting?"
        )  # fmt: skip
        assert [one.code for one in seen(other, 2)] == [502, 502]


def test_a_client_certificate_that_is_refused_is_told(stub: StubUpstream, tmp_path: Path) -> None:
    """In TLS 1.3 the server says so only after the client's handshake was done."""
    issued = Authority(tmp_path, "strangers").issue("me")
    context = server_context(stub.authority.issue("strict"))
    context.load_verify_locations(stub.authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    user = {"client-certificate": str(issued.certificate), "client-key": str(issued.key)}
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            for _ in range(6):
                plug, _ = listener.accept()
                with plug, suppress(OSError):
                    context.wrap_socket(plug, server_side=True).close()

        threading.Thread(target=refuse, daemon=True).start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with Proxy(Upstream(kubeconfig=stub.kubeconfig(user, server=url))) as proxy:
            for method in ("GET", "POST") * 3:
                code, status = once(proxy, "/version", method)
                assert code == 502
                assert status["message"].startswith(f"{url} refuses the client certificate of context lab (")


# --- credentials that end -------------------------------------------------------------------------------------
def test_after_a_401_the_plugin_runs_again_and_the_request_goes_again(stub: StubUpstream, tmp_path: Path) -> None:
    stub.tokens = {"Bearer two"}
    file = stub.kubeconfig(plugin(tmp_path, {"token": "one"}, {"token": "two"}))
    with Proxy(Upstream(kubeconfig=file)) as proxy, connected(proxy) as client:
        code, content = ask(client, proxy, "/echo", "POST", b"a body")
        assert (code, json.loads(content)["digest"]) == (200, hashlib.sha256(b"a body").hexdigest())
        assert ask(client, proxy, "/version")[0] == 200
        assert runs(tmp_path) == 2
        stub.tokens = {"Bearer three"}
        assert ask(client, proxy, "/version")[0] == 401  # the pause between two runs is not over
        assert runs(tmp_path) == 2
        assert [one.code for one in seen(proxy, 3)] == [200, 200, 401]
    assert [one.all("authorization")[0][7:] for one in stub.asked] == ["one", "two", "two", "two"]
    assert len({one.all("traceparent")[0] for one in stub.asked[:2]}) == 1


def test_a_401_to_credentials_that_are_still_the_same_is_the_answer(stub: StubUpstream, proxy: Proxy) -> None:
    stub.tokens = {"Bearer another"}
    assert [once(proxy, "/version")[0] for _ in range(2)] == [401, 401]
    assert len(stub.asked) == 2


def test_many_requests_with_credentials_that_ended_run_the_plugin_once(stub: StubUpstream, tmp_path: Path) -> None:
    stub.tokens = {"Bearer two"}
    file = stub.kubeconfig(plugin(tmp_path, {"token": "one"}, {"token": "two"}))
    with Proxy(Upstream(kubeconfig=file)) as proxy:
        codes: list[int] = []
        threads = [threading.Thread(target=lambda: codes.append(once(proxy, "/version")[0])) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
    assert codes == [200] * 12
    assert runs(tmp_path) == 2


# --- elsewhere ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("code", [300, 301, 302, 303, 304, 305, 306, 307, 308, 399])
def test_no_answer_sends_the_command_elsewhere_with_the_token(stub: StubUpstream, proxy: Proxy, code: int) -> None:
    """Clients of the API put their token on what they are sent to, too: to a port of a stranger's, in plain http."""
    places = iter(
        ("http://user:pw@127.0.0.1:9/x?y", "//127.0.0.1:9/x", "/\\127.0.0.1:9", stub.url, "/here", "here?x=a:b")
    )

    async def redirects(asked: Asked, channel: Channel) -> None:
        await channel.answer({}, f"{code} Elsewhere", f"Location: {next(places)}")

    async def made(asked: Asked, channel: Channel) -> None:
        await channel.answer({}, "201 Created", "Location: https://elsewhere/")

    stub.routes["/go"], stub.routes["/made"] = redirects, made
    for shown in ("http://127.0.0.1:9", "127.0.0.1:9", "no proper URL", stub.url):
        status, said = once(proxy, "/go")
        assert status == 502
        assert f"sends the command on to {shown} ({code}), where the token of this proxy must not go" in said["message"]
    for _ in range(2 if code != 304 else 0):  # which has no body, and the stub's has one
        assert once(proxy, "/go")[0] == code  # to the proxy again
    assert once(proxy, "/made")[0] == 201
    known = seen(proxy, 5 if code == 304 else 7)
    assert [bool(one.error) for one in known] == [True] * 4 + [False] * (len(known) - 4)


# --- many, slow, gone -----------------------------------------------------------------------------------------
def test_three_hundred_requests_at_once(stub: StubUpstream, proxy: Proxy) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("the system allows too few open files for a client, a proxy and a server in one process")
    waiting: list[Asked] = []
    complete = asyncio.Event()

    async def together(asked: Asked, channel: Channel) -> None:
        waiting.append(asked)
        if len(waiting) == MANY:
            complete.set()
        await complete.wait()
        await channel.answer({})

    async def one(context: ssl.SSLContext) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=context)
        writer.write(head(proxy, "GET /together HTTP/1.1", "Connection: close"))
        answer = await reader.read()
        writer.close()
        return answer

    async def all_of_them() -> list[bytes]:
        context = trusting(proxy)
        return await asyncio.wait_for(asyncio.gather(*(one(context) for _ in range(MANY))), 3 * SECONDS)

    stub.routes["/together"] = together
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096) if soft != resource.RLIM_INFINITY else soft, hard))
    try:
        answers = asyncio.run(all_of_them())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert all(answer.startswith(b"HTTP/1.1 200 OK\r\n") for answer in answers)
    all_seen = seen(proxy, MANY)
    assert len({one.trace_id for one in all_seen}) == MANY
    assert [one.number for one in all_seen] == list(range(1, MANY + 1))


def test_a_side_that_reads_slowly_slows_the_other(stub: StubUpstream, proxy: Proxy) -> None:
    """Nothing is collected in between: what the proxy holds stays small while nobody takes it."""
    size = 64 << 20
    sent = [0]

    async def endless(asked: Asked, channel: Channel) -> None:
        await channel.send(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        while sent[0] < size:
            await channel.send(b"x" * 65_536)
            sent[0] += 65_536

    async def unread(asked: Asked, channel: Channel) -> bool:
        await stub.go()
        return True

    stub.routes["/endless"], stub.before_body["/unread"] = endless, unread

    def held() -> int:
        ends = [*proxy._commands, *proxy._servers]
        return sum(end._transport.get_write_buffer_size() for end in ends if end._transport) + sum(
            len(one.waiting) for one in proxy._commands
        )

    def paused(ends: set[Any]) -> bool:
        return bool(ends) and all(end._paused for end in tuple(ends))

    with raw(proxy) as plug:
        plug.sendall(head(proxy, "GET /endless HTTP/1.1", "Connection: close"))
        eventually(lambda: paused(proxy._servers), "the proxy reads no more from the server")
        assert sent[0] < size
        assert held() < 1 << 20
        answer, clean = everything(plug)
        assert (len(answer.partition(b"\r\n\r\n")[2]), clean) == (size, True)
    with raw(proxy) as plug:
        plug.sendall(head(proxy, "POST /unread HTTP/1.1", f"Content-Length: {size}"))
        plug.setblocking(False)
        gone = 0

        def full() -> bool:
            nonlocal gone
            try:
                while gone < size:
                    gone += plug.send(b"x" * 16_384)
            except ssl.SSLWantWriteError:
                pass
            return paused(proxy._commands)

        eventually(full, "the proxy reads no more from the command")
        assert gone < size
        assert held() < 1 << 20
        stub.release()
    assert proxy.seen()[0].received == size


def test_a_command_that_goes_away_ends_its_request_at_the_server(stub: StubUpstream, proxy: Proxy) -> None:
    path = "/api/v1/namespaces/team-a/pods"
    for target in (f"{path}?watch=true", "/slow"):
        stub.routes["/slow"] = stub._watch
        with raw(proxy) as plug:
            plug.sendall(head(proxy, f"GET {target} HTTP/1.1"))
            while b'"first"' not in plug.recv(1 << 16):
                pass
    watched, slow = seen(proxy, 2)
    assert (watched.watch, watched.code, watched.error) == (True, 200, "")  # so ends every watch
    assert (slow.watch, slow.code, slow.error) == (False, 200, "The command went away before the answer had ended.")
    eventually(lambda: not proxy._servers, "both connections to the server are gone")


def test_stop_cuts_what_is_open_and_leaves_nothing_running(stub: StubUpstream, tmp_path: Path) -> None:
    ended: list[Seen] = []
    proxy = Proxy(Upstream(kubeconfig=stub.kubeconfig()), on_seen=ended.append)
    proxy.start()
    with ExitStack() as stack:
        plugs = [stack.enter_context(raw(proxy)) for _ in range(4)]
        targets = ("/api/v1/namespaces/team-a/pods?watch=true", "/slow", "/tunnel")
        stub.routes["/slow"] = stub._watch
        for plug, target in zip(plugs, targets, strict=False):
            plug.sendall(head(proxy, f"GET {target} HTTP/1.1", "Connection: Upgrade", "Upgrade: echo/1"))
            while b"first" not in (got := plug.recv(1 << 16)) and b"hello" not in got:
                pass
        thread = proxy._thread
        proxy.stop()
        proxy.stop()
        assert thread is not None
        assert not thread.is_alive()
        assert all(everything(plug)[1] is False for plug in plugs[:3])
    assert [one.error for one in proxy.seen()] == ["", "The command went away before the answer had ended.", ""]
    assert sorted(ended, key=lambda one: one.number) == list(proxy.seen())
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", proxy.port), 1).close()


def test_what_was_seen_is_bounded_and_a_fault_of_the_listener_is_not_the_commands(
    stub: StubUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_module, "MOST_SEEN", 3)
    told: list[int] = []

    def on_seen(one: Seen) -> None:
        told.append(one.number)
        raise ValueError("a fault of the listener")

    with Proxy(Upstream(kubeconfig=stub.kubeconfig()), on_seen=on_seen) as proxy, connected(proxy) as client:
        for _ in range(5):
            assert ask(client, proxy, "/version")[0] == 200
        eventually(lambda: len(told) == 5, "all five were told")
    assert ([one.number for one in proxy.seen()], proxy.total) == ([1, 2, 3], 5)


def test_no_credential_in_what_the_proxy_shows(stub: StubUpstream, proxy: Proxy) -> None:
    for target in ("/version", "/nowhere"):
        once(proxy, target)
    shown = repr(proxy) + repr(proxy.upstream) + repr(proxy.seen()) + repr(proxy.upstream.credentials())
    assert "real-secret" not in shown
    assert proxy.token not in shown
