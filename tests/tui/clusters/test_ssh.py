"""Hosts behind a real sshd: what goes through, what is refused, what breaks in the middle."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import create_server, socket

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from receiver.control import ControlClient
from tests.doubles import sshd
from tests.doubles.ports import free_port
from tests.doubles.sshd import Sshd, find_sshd, make_key, start_sshd
from tests.eventually import eventually
from tests.live_receiver import LiveReceiver, start_receiver
from tui.clusters.model import ReachError
from tui.clusters.reach.ssh import SshHost, Tunnel, listener_name, private_directory, tunnel

pytestmark = [
    pytest.mark.skipif(find_sshd() is None, reason="needs an OpenSSH server and client (openssh-server)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="scripts of a host run as root, and this sshd logs in who runs it"),
]

Start = Callable[..., Sshd]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers: list[Sshd] = []

    def make(*options: str, **more: object) -> Sshd:
        servers.append(start_sshd(tmp_path / f"sshd{len(servers)}", options, **more))  # type: ignore[arg-type]
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def server(start: Start) -> Sshd:
    return start()


@pytest.fixture
def host(server: Sshd) -> Iterator[SshHost]:
    made = SshHost(server.url, config=server.config)
    yield made
    made.close()


def fails(host: SshHost, script: str = "true", timeout: float = 30.0) -> str:
    with pytest.raises(ReachError) as caught:
        host.run(script, timeout=timeout)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_port_that_somebody_took_meanwhile_is_left_to_them(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this double: tests beside this one take ports too, and servers like this one answer as this one would."""
    first = start()
    ports = iter([first.port, first.port, free_port()])
    monkeypatch.setattr(sshd, "random_port", lambda: next(ports))
    second = start()
    assert second.port != first.port
    host = SshHost(second.url, config=second.config)
    assert host.run("echo mine").out == b"mine\n"
    assert (len(first.sessions()), len(second.sessions())) == (0, 1)
    host.close()


# --- scripts --------------------------------------------------------------------------------------------
def test_scripts_of_any_size_and_bytes_go_over_one_connection(host: SshHost, server: Sshd) -> None:
    stdin = bytes(range(256)) * 2000
    for _ in range(3):
        done = host.run(
            "#" + "x" * 200_000 + '\nprintf "%s|" "$@"; cksum; exit 9', ["a b", "c'd", "$HOME"], stdin=stdin
        )
        want = subprocess.run(["cksum"], input=stdin, capture_output=True, check=True).stdout
        assert (done.code, done.out) == (9, b"a b|c'd|$HOME|" + want)
    assert host.run("printf '[%s]' \"$ROOT\"; id -u").out.split(b"]")[0] == b"["
    assert len(server.sessions()) == 1
    directory = host._socket.parent
    assert directory.stat().st_mode & 0o777 == 0o700
    host.close()
    assert not directory.exists()
    eventually(lambda: not server.sessions())
    assert "was closed" in fails(host)


def test_a_login_that_prints_is_no_trouble(start: Start) -> None:
    server = start(command='echo welcome to the machine; eval "$SSH_ORIGINAL_COMMAND"')
    host = SshHost(server.url, config=server.config)
    assert host.run("echo mine").out == b"mine\n"
    host.close()


def test_255_of_a_script_is_its_own(host: SshHost) -> None:
    assert host.run("echo out; exit 255").code == 255


def test_a_login_that_is_not_root_takes_sudo_or_says_what_is_needed(start: Start, tmp_path: Path) -> None:
    """`id` and `sudo` of the host are replaced: they are what decides there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {
        "id": "echo 1000",
        "sudo": '[ "$1 $2" = "-n --" ] || exit 9; shift 2; AS_ROOT=yes; export AS_ROOT; exec "$@"',
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    server = start(environment={"PATH": f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin"})
    host = SshHost(server.url, config=server.config)
    assert host.run('echo "$AS_ROOT $1"', ["an 'argument'"]).out == b"yes an 'argument'\n"
    (folder / "sudo").write_text("#!/bin/sh\necho 'sudo: a password is required' >&2; exit 1\n")
    assert "name ssh://root@HOST, or allow it by NOPASSWD" in fails(host)
    (folder / "sudo").unlink()
    (folder / "sudo").write_text("#!/bin/sh\necho 'sh: 1: sudo: not found' >&2; exit 127\n")
    (folder / "sudo").chmod(0o755)
    assert "not found" in fails(host)
    host.close()


def test_too_long_is_said_and_the_connection_stays(host: SshHost, server: Sshd) -> None:
    assert "did not end within 1 s" in fails(host, "sleep 30", timeout=1)
    assert host.run("echo still").out == b"still\n"
    assert len(server.sessions()) == 1


# --- what is refused ----------------------------------------------------------------------------------------
def test_a_key_that_is_not_taken(host: SshHost, server: Sshd) -> None:
    server.authorized_keys.write_text("")
    assert "takes none of our keys" in fails(host)
    assert "ssh-add" in fails(host)


def test_a_key_with_a_passphrase_asks_nobody(host: SshHost, server: Sshd) -> None:
    command = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(server.folder / "user_key")]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    assert "passphrase" in fails(host)


def test_a_host_key_that_changed(host: SshHost, server: Sshd) -> None:
    make_key(server.folder / "host_key")
    server.stop()
    server.start()
    assert "find out why before you go on" in fails(host)


def test_a_host_key_that_is_not_known(host: SshHost, server: Sshd) -> None:
    server.known_hosts.write_text("")
    assert "connect once by hand with `ssh cp-1`" in fails(host)
    assert server.known_hosts.read_text() == ""


def test_nobody_there(host: SshHost, server: Sshd) -> None:
    server.close()
    assert "No sshd answers" in fails(host)
    assert not host.connected


def test_a_config_of_the_operators_that_is_wrong(host: SshHost, server: Sshd) -> None:
    server.config.write_text("NoSuchThing yes\n")
    assert "Your ssh config is not accepted" in fails(host)


def test_no_ssh_program(host: SshHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install an OpenSSH client" in fails(host)


@pytest.mark.parametrize(
    "url",
    ["ssh://", "ssh://-oProxyCommand=x", "ssh://a@-b", "ssh://a:secret@b", "ssh://a/path", "ssh://a b", "ssh://a:x",
     "ssh://-l@b", "cp-1", "ssh://a;b", "ssh://$(x)"],
)  # fmt: skip
def test_what_is_no_host_is_refused(url: str) -> None:
    with pytest.raises(ReachError, match="does not name a host"):
        SshHost(url)


@pytest.mark.parametrize(
    ("url", "host", "destination"),
    [
        ("ssh://CP-1", "CP-1", "CP-1"),
        ("ssh://root@10.0.0.5:2222/", "10.0.0.5", "root@10.0.0.5"),
        ("ssh://me@[fd00::1]:22", "fd00::1", "me@fd00::1"),
    ],
)
def test_hosts_as_they_are_written(url: str, host: str, destination: str) -> None:
    made = SshHost(url)
    assert (made.host, made._destination) == (host, destination)


# --- what breaks ------------------------------------------------------------------------------------------
def test_a_link_that_is_cut_in_the_middle_of_a_script(host: SshHost, server: Sshd, tmp_path: Path) -> None:
    began, goes_on = tmp_path / "began", tmp_path / "goes_on"
    said: list[str] = []
    script = f"setsid sh -c 'sleep 1; echo yes >{goes_on}' </dev/null >/dev/null 2>&1 & echo yes >{began}; sleep 30"
    thread = threading.Thread(target=lambda: said.append(fails(host, script)))
    thread.start()
    eventually(began.exists)
    server.cut()
    thread.join(20)
    assert "broke while a script ran" in said[0]
    eventually(goes_on.exists)  # what was detached there does not notice
    assert host.run("echo again").out == b"again\n"


def test_a_connection_ends_with_this_program_also_when_it_is_killed(
    server: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import os, signal\nfrom pathlib import Path\nfrom tui.clusters.reach.ssh import SshHost\n"
        f"SshHost({server.url!r}, config=Path({str(server.config)!r})).run('true')\n"
        "print('in', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    left = tempfile.mkdtemp()
    environment = {**os.environ, "TMPDIR": left}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.stdout == "in\n"
    eventually(lambda: not server.sessions())
    (killed,) = Path(left).iterdir()
    monkeypatch.setattr(tempfile, "tempdir", left)
    made = private_directory()
    assert list(Path(left).iterdir()) == [made]  # the next one takes away what it left
    assert made != killed
    shutil.rmtree(left)


# --- the tunnel -----------------------------------------------------------------------------------------
@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[LiveReceiver]:
    running = start_receiver(tmp_path / "spans.db", ["here=127.0.0.1:0"])
    yield running
    if running.process.poll() is None:
        running.stop()


@pytest.fixture
def control(receiver: LiveReceiver) -> Iterator[ControlClient]:
    client = ControlClient.connect(receiver.db)
    yield client
    client.close()


def sent_through(receiver: LiveReceiver, port: int, source: str) -> None:
    """Real OTLP to the host's port, until traces of that source are there."""
    before = len([trace for trace in receiver.traces() if trace["source"] == source])
    exporter = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{port}", insecure=True, timeout=10)
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("test").start_as_current_span("through the tunnel"):
        pass
    provider.shutdown()
    receiver.wait_for(lambda traces: len([one for one in traces if one["source"] == source]) > before)


def listeners(control: ControlClient) -> list[str]:
    return [one["name"] for one in control.request("status")["listeners"]]


def test_spans_come_through_the_tunnel_under_the_hosts_name(
    host: SshHost, server: Sshd, receiver: LiveReceiver, control: ControlClient
) -> None:
    port = free_port()
    opened = tunnel(host, control, port=port, pauses=(0.1,))
    assert opened.problem == ""
    sent_through(receiver, port, "cp-1")
    # the link breaks: opened again, by itself
    server.cut()
    eventually(lambda: opened.opened == 2)
    sent_through(receiver, port, "cp-1")
    # the host goes away and comes back
    server.stop()
    server.cut() if server.process and server.process.poll() is None else None
    kill_master(host)
    eventually(lambda: "No sshd answers" in opened.problem)
    server.start()
    eventually(lambda: opened.opened == 3)
    assert opened.problem == ""
    assert len(server.sessions()) == 1
    sent_through(receiver, port, "cp-1")
    opened.close()
    assert listeners(control) == ["here"]
    assert host.run("echo still").out == b"still\n"
    with pytest.raises(ConnectionRefusedError), socket() as probe:
        probe.connect(("127.0.0.1", port))


def kill_master(host: SshHost) -> None:
    assert host._master is not None
    host._master.kill()


def test_a_receiver_that_was_started_anew_is_asked_again(
    host: SshHost, receiver: LiveReceiver, control: ControlClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other receiver knows nothing of the tunnel: it is what a crash leaves."""
    monkeypatch.setattr("tui.clusters.reach.ssh._RELISTEN_SECONDS", 0.2)
    port = free_port()
    opened = tunnel(host, control, port=port)
    control.request("unlisten", name="cp-1", address=opened.address)
    eventually(lambda: "cp-1" in listeners(control))
    sent_through(receiver, port, "cp-1")
    opened.close()


@pytest.mark.parametrize("line", ["AllowTcpForwarding no", "PermitListen 127.0.0.1:1", "AllowTcpForwarding local"])
def test_an_sshd_that_allows_no_tunnel(start: Start, control: ControlClient, line: str) -> None:
    server = start(line)
    host = SshHost(server.url, config=server.config)
    says = "allows no tunnel from its port .* run this program there, or give the API server another port"
    with pytest.raises(ReachError, match=says):
        tunnel(host, control, port=free_port())
    assert listeners(control) == ["here"]
    assert host.run("echo still").out == b"still\n"
    host.close()


def test_a_port_that_is_busy_there(host: SshHost, control: ControlClient) -> None:
    with create_server(("127.0.0.1", 0)) as held:
        port = int(held.getsockname()[1])
        with pytest.raises(ReachError, match=f"Port {port} of ssh://cp-1 is in use"):
            tunnel(host, control, port=port)
    assert listeners(control) == ["here"]


def test_a_receiver_that_cannot_make_a_socket_there_gives_a_port(
    host: SshHost, receiver: LiveReceiver, control: ControlClient
) -> None:
    class Other:
        """Asks for a receiver of another user: our directory is closed to it."""

        def request(self, op: str, **arguments: object) -> dict[str, object]:
            if op == "listen" and str(arguments["address"]).startswith("unix:"):
                arguments["address"] = "unix:/no/such/directory/o"
            return control.request(op, **arguments)

    port = free_port()
    opened: Tunnel = tunnel(host, Other(), name="node a", port=port)
    assert opened.address.startswith("127.0.0.1:")
    sent_through(receiver, port, "node-a")
    opened.close()
    assert listeners(control) == ["here"]


def test_names_of_hosts_are_names_of_listeners() -> None:
    assert listener_name("fd00::1") == "fd00--1"
    assert listener_name("=" * 200) == "-" * 64
    assert os.sep not in listener_name("a/b")
