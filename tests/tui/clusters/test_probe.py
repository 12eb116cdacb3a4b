"""One span of our own: sent from here and by curl from a host, into a real receiver, to somebody else, to nobody."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from receiver.store.database import Database
from tests.conftest import StartReceiver
from tests.doubles.shell_host import ShellHost
from tui.clusters import probe
from tui.clusters.probe import Outcome

curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")


def free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def talker(answer: bytes | None) -> Iterator[str]:
    """A service that answers anything with these bytes and hangs up; None: that never answers."""
    server = socket.create_server(("127.0.0.1", 0))
    kept: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            kept.append(connection)
            if answer is not None:
                connection.settimeout(2)
                try:
                    connection.recv(4096)
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        for one in kept:
            one.close()
        thread.join(5)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("", ("127.0.0.1:4317", "[::1]:4317")),
        ("localhost:9", ("127.0.0.1:9", "[::1]:9")),
        ("dns:///localhost:9", ("127.0.0.1:9", "[::1]:9")),
        ("10.0.0.5:4317", ("10.0.0.5:4317",)),
        ("[fd00::1]:4317", ("[fd00::1]:4317",)),
        ("otel.kube-system.svc:4317", ("otel.kube-system.svc:4317",)),
        ("unix:///run/otel.sock", ("unix:///run/otel.sock",)),
        ("http://x:1", ()),
        ("dns://host:4317", ()),
        ("host", ()),
        ("a b:1", ()),
        ("-o/etc/passwd $(id):1", ()),
    ],
)
def test_the_addresses_of_an_endpoint(endpoint: str, expected: tuple[str, ...]) -> None:
    assert probe.addresses(endpoint) == expected


@curl
def test_a_span_from_a_host_arrives_as_one_from_here_does(receiver: StartReceiver, tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    live = receiver(listen=["a=127.0.0.1:0", f"b=unix:{path}"])
    host = ShellHost(tmp_path)
    sent = [
        probe.from_here(live.addresses["a"]),
        probe.from_host(host, "cp-1", live.addresses["a"]),
        probe.from_host(host, "cp-1", f"unix://{path}"),
    ]
    assert [one.outcome for one in sent] == [Outcome.ACCEPTED] * 3, sent
    lost = probe.Probe("", "x:1", "ab" * 16, Outcome.ACCEPTED)
    assert [one.arrived for one in probe.seen(live.db, 0, [*sent, lost], 1.0)] == [True, True, True, False]
    with closing(Database.read(live.db)) as database:
        after = database.last_id()
    assert [one.arrived for one in probe.seen(live.db, after, sent, 0.1)] == [False] * 3


@curl
@pytest.mark.parametrize("answer", [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b"220 mail ready\r\n"])
def test_somebody_else_who_answers(answer: bytes, tmp_path: Path) -> None:
    with talker(answer) as address:
        assert probe.from_host(ShellHost(tmp_path), "cp-1", address).outcome is Outcome.OTHER
        assert probe.from_here(address).outcome in (Outcome.OTHER, Outcome.SILENT)


@curl
def test_nobody_and_silence(tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    host = ShellHost(tmp_path)
    assert probe.from_host(host, "cp-1", nobody).outcome is Outcome.REFUSED
    assert probe.from_here(nobody).outcome is Outcome.REFUSED
    assert probe.from_here(f"unix://{tmp_path}/none.sock").outcome is Outcome.REFUSED
    with talker(None) as address:
        assert probe.from_host(host, "cp-1", address).outcome is Outcome.SILENT
        assert probe.from_here(address, 1.0).outcome in (Outcome.SILENT, Outcome.OTHER)


def test_a_host_without_curl_says_so(tmp_path: Path) -> None:
    host = ShellHost(tmp_path, environment={"PATH": str(tmp_path)}, shell=("/bin/sh",))
    told = probe.from_host(host, "cp-1", "127.0.0.1:1")
    assert told.outcome is Outcome.UNSENT
    assert "curl" in told.detail
    host.broken = True
    assert probe.from_host(host, "cp-1", "127.0.0.1:1").outcome is Outcome.UNSENT
