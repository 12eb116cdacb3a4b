"""Who a sender is: never what it can choose for itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from receiver.ingest import sender
from receiver.ingest.callers import OTHERS, SERVICES, Callers, Services
from receiver.ingest.sender import LOOPBACK, MAX_NAME, SocketOwners, address_name, certificate_name

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux who owns a socket")
root = pytest.mark.skipif(os.getuid() != 0, reason="becomes another user: needs root")

_CLIENT = """
import os, socket, sys
family, host, port, uid = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if uid != os.getuid():
    os.setuid(uid)
one = socket.socket(family)
one.connect((host, port))
for line in sys.stdin:
    if line == "half\\n":
        one.shutdown(socket.SHUT_WR)
    else:
        one.close()
    print("done", flush=True)
"""


@contextmanager
def client_of(server: socket.socket, uid: int) -> Iterator[subprocess.Popen[str]]:
    host, port = server.getsockname()[:2]
    process = subprocess.Popen(
        [sys.executable, "-c", _CLIENT, str(int(server.family)), host, str(port), str(uid)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def tell(process: subprocess.Popen[str], what: str) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{what}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


@linux
@root
@pytest.mark.parametrize("table", [False, True], ids=["netlink", "proc"])
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_the_uid_that_owns_the_other_end(
    monkeypatch: pytest.MonkeyPatch, family: socket.AddressFamily, host: str, table: bool
) -> None:
    monkeypatch.setattr(sender, "_TABLE_SECONDS", -1.0)
    monkeypatch.setattr(sender, "_OLD_SECONDS", -1.0)
    owners = SocketOwners()
    owners._works = not table
    with socket.socket(family) as server, closing(owners):
        server.bind((host, 0))
        server.listen()
        with client_of(server, 1234) as process:
            connection, there = server.accept()
            here = server.getsockname()[:2]
            with connection:
                assert owners.uid_of(there[:2], here) == 1234
                tell(process, "half")
                assert owners.uid_of(there[:2], here) == 1234
                tell(process, "close")
                # An orphan is root's for the kernel: it must not be for us.
                assert owners.uid_of(there[:2], here) is None
                assert Callers(False).at(there[:2], here) == LOOPBACK
        assert owners.uid_of((host, 1), here) is None
        assert owners.uid_of(server.getsockname()[:2], here) is None, "a listening socket is no connection"
        assert owners._works is not table


@linux
def test_an_ipv4_connection_to_a_listener_at_every_address() -> None:
    owners = SocketOwners()
    with socket.socket(socket.AF_INET6) as server, socket.socket() as client, closing(owners):
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("::", 0))
        server.listen()
        client.connect(("127.0.0.1", server.getsockname()[1]))
        connection, there = server.accept()
        with connection:
            assert there[0] == "::ffff:127.0.0.1"
            here = connection.getsockname()[:2]
            assert here[0] == "::ffff:127.0.0.1"
            for works in (True, False):
                owners._works = works
                assert owners.uid_of(there[:2], here) == os.getuid()
            assert Callers(False).at(there[:2], here) == f"uid {os.getuid()}"


@linux
def test_where_the_kernel_knows_no_tcp_the_table_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its module for TCP the kernel answers ENOENT, as for a socket that is not there."""
    owners = SocketOwners()
    monkeypatch.setattr(owners, "_ask", lambda there, here: None)
    with socket.create_server(("127.0.0.1", 0)) as server, closing(owners):
        for _ in range(3):  # also one that came after the table was read
            with socket.create_connection(server.getsockname()) as client:
                connection, there = server.accept()
                with connection:
                    assert owners.uid_of(there, connection.getsockname()) == os.getuid()
                    assert owners.uid_of(("127.0.0.1", 1), client.getpeername()) is None
                monkeypatch.setattr(owners, "_read_at", float("-inf"))
        assert owners._works is False


@linux
def test_the_kernel_is_asked_as_long_as_it_answers() -> None:
    with closing(SocketOwners()) as owners:
        assert owners.uid_of(("127.0.0.1", 1), ("127.0.0.1", 2)) is None
        assert owners._works is True


def test_addresses_have_no_port_and_of_ipv6_only_the_network() -> None:
    assert address_name("10.0.0.1") == address_name("::ffff:10.0.0.1") == "address 10.0.0.1"
    assert address_name("2001:db8:1:2:3::4") == address_name("2001:db8:1:2:ffff::1") == "address 2001:db8:1:2::/64"
    assert address_name("fe80::1%eth0") == address_name("fe80::2%eth1")
    assert {address_name(host) for host in ("127.0.0.1", "127.9.8.7", "::1", "::ffff:127.0.0.1")} == {LOOPBACK}


def test_a_certificates_subject_is_the_sender_bounded_and_printable() -> None:
    name = certificate_name
    assert name({}) == ""
    assert name({"transport_security_type": [b"ssl"]}) == ""
    assert name({"x509_common_name": [b"etcd-1"], "x509_subject": [b"CN=etcd-1,O=k"]}) == "certificate CN=etcd-1,O=k"
    assert name({"x509_common_name": [b"etcd-1"]}) == "certificate CN=etcd-1"
    assert name({"x509_subject_alternative_name": [b"a", b"b"]}) == "certificate SAN a, b"
    long = [name({"x509_common_name": [b"x" * 5_000 + bytes((end,))]}) for end in b"ab"]
    assert long[0] != long[1]
    assert max(map(len, long)) <= MAX_NAME + len("certificate ")
    assert name({"x509_common_name": [b"a\x1b[2J\n\xff"]}).isprintable()
    pem: list[Any] = [name({"x509_pem_cert": [one]}) for one in (b"one", b"two")]
    assert pem[0] != pem[1]


def test_sixteen_services_of_a_user_are_told_apart_and_none_of_others() -> None:
    services = Services()
    for number in range(10_000):
        services.learn("uid 1001", f"peer {number}", f"service {number}")
    names = {services.of("uid 1001", f"peer {number}") for number in range(10_000)}
    assert names <= {OTHERS, ""}, "what was learnt first is forgotten"
    services.learn("uid 0", "one", "etcd")
    for number in range(100):
        services.learn("uid 0", f"peer {number}", f"service {number}")
    names = {services.of("uid 0", f"peer {number}") for number in range(100)}
    assert OTHERS in names
    assert len(names) == SERVICES
    assert services.of("uid 0", "one") == "etcd"
    services.learn("address 10.0.0.1", "one", "etcd")
    assert services.of("address 10.0.0.1", "one") == ""
    assert len(services._learnt) <= 1_024
