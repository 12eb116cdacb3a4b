"""The receiver as a process: what it keeps when it is killed, who may join it, how it ends, what it says."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from receiver.__main__ import main
from receiver.control import ControlClient, ControlError, control_path, log_path
from receiver.ingest.server import METHOD
from receiver.store.database import Database
from tests.conftest import StartReceiver
from tests.eventually import eventually
from tests.live_receiver import LiveReceiver


def request(first: int, spans: int = 20, size: int = 200) -> bytes:
    sent = ExportTraceServiceRequest()
    scope = sent.resource_spans.add().scope_spans.add()
    for number in range(first, first + spans):
        span = scope.spans.add(trace_id=(number // 5 + 1).to_bytes(16, "big"), span_id=number.to_bytes(8, "big"))
        span.attributes.add(key="noise").value.bytes_value = os.urandom(size)
    return sent.SerializeToString()


def stored(db: Path) -> set[int]:
    database = Database.read(db)
    try:
        found: set[int] = set()
        last = 0
        while chunks := database.read_after(last):
            last = chunks[-1].id
            bodies = database.bodies([chunk.id for chunk in chunks])
            for chunk in chunks:
                found.update(chunk.spans["span"].tolist())
                ExportTraceServiceRequest.FromString(bodies[chunk.id])
        return found
    finally:
        database.close()


class Load:
    """Senders that go on until they are stopped; `acknowledged` are the first span numbers of what was."""

    def __init__(self, address: str, senders: int = 3, size: int = 200) -> None:
        self.acknowledged: list[int] = []
        self.failed: list[grpc.StatusCode] = []
        self._numbers = iter(range(1, 100_000_000, 20))
        self._stop = threading.Event()
        self._size = size
        self._threads = [threading.Thread(target=self._send, args=(address,)) for _ in range(senders)]
        for thread in self._threads:
            thread.start()

    def _send(self, address: str) -> None:
        with grpc.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
            call = channel.unary_unary(METHOD)
            until = time.monotonic() + 60
            while not self._stop.is_set() and time.monotonic() < until:
                number = next(self._numbers)
                try:
                    call(request(number, size=self._size), timeout=10)
                    self.acknowledged.append(number)
                except grpc.RpcError as error:
                    self.failed.append(error.code())  # type: ignore[attr-defined]
                    self._stop.wait(0.05)

    def wait_for(self, done: Callable[[], bool]) -> None:
        until = time.monotonic() + 30
        while not done():
            assert time.monotonic() < until, (len(self.acknowledged), self.failed[-3:])
            time.sleep(0.02)

    def stop(self) -> set[int]:
        """Every span that was acknowledged."""
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
        return {number for first in self.acknowledged for number in range(first, first + 20)}


@pytest.fixture
def load() -> Iterator[Callable[..., Load]]:
    made: list[Load] = []

    def start(*arguments: Any, **options: Any) -> Load:
        made.append(Load(*arguments, **options))
        return made[-1]

    yield start
    for one in made:
        one.stop()


def status(live: LiveReceiver) -> dict[str, Any]:
    with contextlib.closing(ControlClient.connect(live.db)) as client:
        return client.request("status")


def start_bare(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "receiver", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(*arguments: str) -> tuple[int, str]:
    """Exit code and standard error of a receiver that should not begin."""
    process = start_bare(*arguments)
    try:
        out, error = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        out, error = process.communicate()
    assert out == ""
    return process.returncode, error


# --- nothing acknowledged is lost ------------------------------------------------------------------
def test_killed_under_load_everything_acknowledged_is_there(receiver: StartReceiver, load: Callable[..., Load]) -> None:
    live = receiver()
    senders = load(live.address)
    senders.wait_for(lambda: len(senders.acknowledged) >= 60)
    live.kill()
    first = senders.stop()
    assert len(first) >= 1200
    again = receiver(listen=[live.address])  # the socket, lock and log that the killed one left are no obstacle
    assert first <= stored(live.db)
    more = load(again.address)
    more._numbers = iter(range(50_000_001, 60_000_000, 20))
    more.wait_for(lambda: len(more.acknowledged) >= 10)
    assert again.stop() == 0
    assert first | more.stop() <= stored(live.db)


def test_sigterm_under_load_ends_cleanly(receiver: StartReceiver, load: Callable[..., Load]) -> None:
    live = receiver(listen=["127.0.0.1:0", f"cp1=unix:{control_path(Path('/tmp/x')).parent}/k8s-tt-{os.getpid()}.sock"])
    senders = load(live.addresses["cp1"])
    senders.wait_for(lambda: len(senders.acknowledged) >= 30)
    assert live.stop() == 0
    assert senders.stop() <= stored(live.db)
    assert not control_path(live.db).exists()
    assert not Path(live.addresses["cp1"].removeprefix("unix:")).exists()
    assert live.process.stderr is not None
    assert live.process.stderr.read() == ""
    for path in live.db.parent.glob("spans.db*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_disk_refuses_and_recovers(tmp_path: Path, receiver: StartReceiver, load: Callable[..., Load]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted: this test needs root")
    try:
        (disk / "ballast").write_bytes(bytes(18 << 20))
        live = receiver(db=disk / "spans.db", arguments=["--min-free", "0%"])
        senders = load(live.address, size=20_000)
        senders.wait_for(lambda: len(senders.failed) >= 5)
        assert set(senders.failed) == {grpc.StatusCode.UNAVAILABLE}
        told = status(live)
        assert told["disk_full"]
        assert "space" in told["message"]
        before = len(senders.acknowledged)
        (disk / "ballast").unlink()
        senders.wait_for(lambda: len(senders.acknowledged) >= before + 10)
        told = status(live)
        assert not told["disk_full"]
        assert told["message"] == ""
        acknowledged = senders.stop()
        assert acknowledged <= stored(live.db)
        assert live.stop() == 0
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_a_lowered_cap_shrinks_the_file_at_the_next_start(receiver: StartReceiver, load: Callable[..., Load]) -> None:
    live = receiver(arguments=["--min-free", "0%"])
    senders = load(live.address, size=20_000)
    senders.wait_for(lambda: len(senders.acknowledged) >= 60)
    assert live.stop() == 0
    senders.stop()
    assert live.db.stat().st_size > 20 << 20
    again = receiver(listen=[live.address], arguments=["--min-free", "0%", "--max-size", "6MiB"])
    eventually(lambda: live.db.stat().st_size <= 7 << 20)
    newest = load(again.address)
    newest._numbers = iter(range(50_000_001, 60_000_000, 20))
    newest.wait_for(lambda: len(newest.acknowledged) >= 10)
    kept = newest.stop()
    assert again.stop() == 0
    assert kept <= stored(live.db)
    assert live.db.stat().st_size <= 8 << 20


def test_a_database_that_is_taken_away_ends_the_receiver(receiver: StartReceiver, load: Callable[..., Load]) -> None:
    live = receiver()
    senders = load(live.address)
    senders.wait_for(lambda: len(senders.acknowledged) >= 10)
    elsewhere = live.db.with_name("moved.db")
    live.db.rename(elsewhere)
    Path(f"{live.db}-wal").rename(f"{elsewhere}-wal")
    assert live.process.wait(20) == 1
    assert live.process.stderr is not None
    assert "moved or removed" in live.process.stderr.read()
    assert senders.stop() <= stored(elsewhere)


@pytest.mark.parametrize("left", [0, 100, 3 * 8192])
def test_a_database_that_is_cut_off_ends_the_receiver(
    receiver: StartReceiver, load: Callable[..., Load], left: int
) -> None:
    live = receiver()
    senders = load(live.address, size=20_000)
    senders.wait_for(lambda: live.db.stat().st_size > 24 << 20)
    os.truncate(live.db, left)
    assert live.process.wait(20) == 1
    assert live.process.stderr is not None
    said = live.process.stderr.read()
    assert "emptied or cut off" in said
    assert said.count("\n") == 1
    assert grpc.StatusCode.UNAVAILABLE in senders.failed


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
@pytest.mark.parametrize("removed", [False, True])
def test_log_and_shared_memory_that_are_pulled_away_end_the_receiver_and_the_next_goes_on(
    receiver: StartReceiver, load: Callable[..., Load], suffix: str, removed: bool
) -> None:
    """Not one span is acknowledged that is not there after a kill."""
    live = receiver()
    senders = load(live.address)
    senders.wait_for(lambda: len(senders.acknowledged) >= 10)
    beside = Path(f"{live.db}{suffix}")
    if removed:
        beside.unlink()
    else:
        os.truncate(beside, 0)
    after = next(senders._numbers)
    code = live.process.wait(20)
    assert live.process.stderr is not None
    said = live.process.stderr.read()
    if code == 1:
        assert f"{beside} was" in said
        assert "start the receiver again" in said.lower()
        assert said.count("\n") == 1
        assert grpc.StatusCode.UNAVAILABLE in senders.failed
    else:
        assert (suffix, removed, code) == ("-shm", False, -signal.SIGBUS), "the kernel's own end, before an answer"
    again = receiver(live.db)
    more = load(again.address)
    more._numbers = iter(range(50_000_001, 60_000_000, 20))
    more.wait_for(lambda: len(more.acknowledged) >= 10)
    again.kill()
    there = stored(live.db)
    assert more.stop() <= there
    acknowledged = senders.stop()
    assert {number for number in acknowledged if number > after} <= there
    if suffix == "-shm" or removed:
        assert acknowledged <= there


def test_a_database_that_is_emptied_is_noticed_without_senders(receiver: StartReceiver) -> None:
    live = receiver()
    os.truncate(live.db, 0)
    assert live.process.wait(20) == 1


def test_what_was_there_before_a_start_that_failed_stays(receiver: StartReceiver, tmp_path: Path) -> None:
    """Whatever is in it, and whoever waits for its lock."""
    db = tmp_path / "spans.db"
    receiver(db).stop()
    before = sorted(tmp_path.iterdir())
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        code, error = ended("--db", str(db), "--listen", f"127.0.0.1:{other.getsockname()[1]}")
    assert (code, "in use" in error) == (1, True)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        (["127.0.0.1:4390", "a=127.0.0.1:4390"], "The address 127.0.0.1:4390 is given"),
        (["a=127.0.0.1:0", "a=[::1]:0"], "The name a is given"),
    ],
)
def test_the_same_listener_twice_is_bad_usage(tmp_path: Path, listen: list[str], says: str) -> None:
    code, error = ended("--db", str(tmp_path / "x.db"), *(part for one in listen for part in ("--listen", one)))
    assert code == 2
    assert says in error
    assert list(tmp_path.iterdir()) == []


def test_who_attaches_says_what_has_no_effect(receiver: StartReceiver, tmp_path: Path) -> None:
    live = receiver()
    process = start_bare("--db", str(live.db), "--max-size", "1GiB", "--min-free", "5%")
    assert process.stdout is not None
    process.stdout.readline()
    process.terminate()
    _, error = process.communicate(timeout=20)
    assert "--max-size, --min-free have no effect" in error


# --- who receives ----------------------------------------------------------------------------------
def test_a_second_start_attaches(receiver: StartReceiver, tmp_path: Path) -> None:
    first = receiver(listen=["a=127.0.0.1:0"])
    second = start_bare("--db", str(first.db), "--listen", f"unix:{tmp_path}/s")
    assert second.stdout is not None
    said = [second.stdout.readline().split() for _ in range(2)]
    assert said[0] == ["listening", "a", first.addresses["a"]]
    with grpc.insecure_channel(said[1][2]) as channel:
        channel.unary_unary(METHOD)(request(1), timeout=10)
    assert status(first)["pid"] == first.pid
    assert status(first)["attached"] == 1
    second.terminate()
    assert second.wait(15) == 0
    assert [one["name"] for one in status(first)["listeners"]] == ["a"]  # what it asked for went with it
    assert stored(first.db) == set(range(1, 21))

    second.stdout.close()
    assert second.stderr is not None
    second.stderr.close()


@pytest.mark.parametrize("killed", [False, True])
def test_who_stood_behind_takes_over_when_the_first_ends(receiver: StartReceiver, killed: bool) -> None:
    first = receiver(listen=["a=127.0.0.1:0"])
    behind = start_bare("--db", str(first.db))
    try:
        assert behind.stdout is not None
        assert behind.stderr is not None
        said = behind.stdout.readline()
        assert said.split() == ["listening", "a", first.address]
        if killed:
            first.kill()
        else:
            assert first.stop() == 0
        assert behind.stdout.readline() == said, "where senders send, somebody goes on to listen"
        told = status(first)
        assert told["pid"] == behind.pid
        assert not told["child"]
        with grpc.insecure_channel(first.address) as channel:
            channel.unary_unary(METHOD)(request(1), timeout=10)
        third = receiver(listen=[f"a={first.address}"])  # as when systemd starts the first one again
        assert third.address == first.address
        assert status(first)["pid"] == behind.pid
        behind.terminate()
        assert behind.wait(15) == 0
        assert len(behind.stderr.read().splitlines()) == 1, "one sentence about it"
        eventually(lambda: answers(first, third.pid))
        with grpc.insecure_channel(first.address) as channel:
            channel.unary_unary(METHOD)(request(21), timeout=10)
        assert third.stop() == 0
        assert stored(first.db) == set(range(1, 41))
    finally:
        behind.kill()
        behind.wait(15)
        for stream in (behind.stdout, behind.stderr):
            if stream is not None:
                stream.close()


def test_who_takes_over_listens_where_it_was_told_to(receiver: StartReceiver, tmp_path: Path) -> None:
    first = receiver(listen=["a=127.0.0.1:0"])
    second = receiver(listen=[f"b=unix:{tmp_path}/s"])
    first.kill()
    eventually(lambda: answers(second, second.pid))
    assert [one["name"] for one in status(second)["listeners"]] == ["b"]


def answers(live: LiveReceiver, pid: int) -> bool:
    """Whether the receiver of a database is this process."""
    with contextlib.suppress(ControlError):
        return bool(status(live)["pid"] == pid)
    return False


def test_a_host_name_is_said_as_the_addresses_that_were_bound(tmp_path: Path) -> None:
    process = start_bare("--db", str(tmp_path / "spans.db"), "--listen", "here=localhost:0")
    try:
        assert process.stdout is not None
        word, name, address = process.stdout.readline().split()
        host, _, port = address.rpartition(":")
        assert (word, name, host) == ("listening", "here", "127.0.0.1")
        assert int(port) > 0
        with contextlib.closing(ControlClient.connect(tmp_path / "spans.db")) as client:
            told = {one["address"] for one in client.request("status")["listeners"]}
            assert address in told
            assert told <= {address, f"[::1]:{port}"}, "the same port on both"
            if len(told) == 2:
                assert process.stdout.readline().split() == ["listening", "here", f"[::1]:{port}"]
        second = start_bare("--db", str(tmp_path / "spans.db"), "--listen", f"localhost:{port}")
        assert second.stdout is not None
        assert second.stdout.readline().split()[2] == address, "it knows that this is the same place"
        second.terminate()
        _, error = second.communicate(timeout=15)
        assert error == ""
        process.terminate()
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.communicate()


def test_listeners_come_and_go_while_it_runs(receiver: StartReceiver) -> None:
    live = receiver()
    with contextlib.closing(ControlClient.connect(live.db)) as client:
        added = client.request("listen", name="cp2", address="127.0.0.1:0")["listener"]
        with grpc.insecure_channel(added["address"]) as channel:
            channel.unary_unary(METHOD)(request(1), timeout=10)
        told = client.request("status")
        assert [one["name"] for one in told["listeners"]] == ["local", "cp2"]
        assert told["accepted"] == 20
        assert told["senders"][0]["source"] == "cp2"
        with pytest.raises(ControlError, match=r"in use by .*pid"):
            client.request("listen", name="x", address=added["address"])
        with pytest.raises(ControlError, match="without TLS"):
            client.request("listen", name="x", address="0.0.0.0:0")
        with pytest.raises(ControlError, match="not know"):
            client.request("conquer")
        with pytest.raises(ControlError, match="not understood"):
            client.request("hold", traces=["zz"])
        client.request("unlisten", name="cp2")
        assert [one["name"] for one in client.request("status")["listeners"]] == ["local"]
        client.request("stop")
    assert live.process.wait(15) == 0


def test_a_child_ends_when_the_last_one_that_was_attached_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = pytest.importorskip("receiver.__main__")
    monkeypatch.setattr(program, "CHILD_LINGER_SECONDS", 0.5)
    monkeypatch.setattr(program, "_step_back", lambda: None)
    db = tmp_path / "spans.db"
    with socket.socket() as other:  # a port that it cannot have is told, not fatal
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        code: list[int] = []
        arguments = ["--child", "--db", str(db), "--listen", taken, "--listen", "127.0.0.1:0"]
        thread = threading.Thread(target=lambda: code.append(program.main(arguments)))
        thread.start()
        until = time.monotonic() + 15
        while not control_path(db).exists() and time.monotonic() < until:
            time.sleep(0.02)
        one, two = ControlClient.connect(db), ControlClient.connect(db)
        one.request("attach")
        two.request("attach")
        told = one.request("status")
        assert [bool(listener["error"]) for listener in told["listeners"]] == [True, False]
        assert told["child"]
        one.close()
        time.sleep(1.0)
        assert two.request("status")["attached"] == 1
        two.close()  # as a TUI that crashes
        thread.join(15)
        assert code == [0]


def test_two_links_to_one_database_have_one_receiver(receiver: StartReceiver, tmp_path: Path) -> None:
    live = receiver()
    link = tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(live.db)
    second = start_bare("--db", str(link))
    assert second.stdout is not None
    assert second.stdout.readline().split() == ["listening", "local", live.address]
    second.terminate()
    assert second.wait(15) == 0
    second.stdout.close()
    second.stderr.close()  # type: ignore[union-attr]


def test_what_a_connection_holds_ends_with_it(tmp_path: Path) -> None:
    from receiver.control import ControlServer

    db = tmp_path / ("long" * 40) / "x.db"  # too long for a socket beside it
    db.parent.mkdir()
    server = ControlServer(control_path(db), lambda operation, arguments: {})
    server.start()
    try:
        assert not control_path(db).is_relative_to(tmp_path)
        assert stat.S_IMODE(control_path(db).parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(control_path(db).stat().st_mode) == 0o600
        one, two = ControlClient.connect(db), ControlClient.connect(db)
        one.request("hold", traces=[f"{5:032x}"])
        one.request("hold", traces=[f"{1:032x}", f"{2:032x}"])
        two.request("hold", traces=[f"{3:032x}"])
        assert server.holds() == {1, 2, 3}
        one.close()
        until = time.monotonic() + 10
        while 1 in server.holds() and time.monotonic() < until:
            time.sleep(0.01)
        assert server.holds() == {3}
        two.close()
    finally:
        server.stop()
    with pytest.raises(ControlError, match="No receiver is running"):
        ControlClient.connect(db)


# --- what it says ------------------------------------------------------------------------------------
def test_what_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    db = str(tmp_path / "spans.db")
    foreign = tmp_path / "foreign.db"
    foreign.write_bytes(b"not a database, and somebody's" * 100)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for code, part, arguments in (
            (1, f"Port {port} of 127.0.0.1 is in use by", ("--db", db, "--listen", f"127.0.0.1:{port}")),
            (1, "damaged", ("--db", str(foreign), "--listen", "127.0.0.1:0")),
            (2, "without TLS", ("--db", db, "--listen", "0.0.0.0:0")),
            (2, "not an address", ("--db", db, "--listen", "nonsense")),
            (2, "not a size", ("--db", db, "--max-size", "much")),
            (2, "too little", ("--db", db, "--max-size", "1023KiB")),
            (2, "UTF-8", ("--db", os.fsdecode(os.fsencode(tmp_path) + b"/\xff.db"), "--listen", "127.0.0.1:0")),
            (2, "UTF-8", ("--db", db, "--listen", os.fsdecode(b"unix:" + os.fsencode(tmp_path) + b"/\xff.sock"))),
            (2, "a home that nobody has", ("--db=~nobody-of-this-name/spans.db", "--listen", "127.0.0.1:0")),
            (1, "too long", ("--db", str(tmp_path / ("x" * 300) / "spans.db"), "--listen", "127.0.0.1:0")),
            (1, "is a directory", ("--db", str(tmp_path), "--listen", "127.0.0.1:0")),
        ):
            got, error = ended(*arguments)
            assert got == code, error
            assert part in error
            assert len(error.splitlines()) == 1
            assert "Traceback" not in error
            assert [path.name for path in tmp_path.iterdir() if path.name.startswith("spans.db")] == []
    assert foreign.read_bytes() == b"not a database, and somebody's" * 100


def test_a_place_that_we_may_not_look_into_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    private = tmp_path / "private"

    def is_dir(path: Path, **_: Any) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", is_dir)  # what others than root get of another user's home
    assert main(["--db", str(private / "x" / "spans.db"), "--listen", "127.0.0.1:0"]) == 1
    (sentence,) = capfd.readouterr().err.splitlines()
    assert "Permission denied" in sentence
    assert "--db" in sentence


def test_a_defect_is_one_sentence_and_its_traceback_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    db = tmp_path / "spans.db"

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("receiver.__main__._step_back", lambda: None)
    monkeypatch.setattr("receiver.__main__._receive", broken)
    assert main(["--db", str(db), "--listen", "127.0.0.1:0"]) == 1
    (sentence,) = capfd.readouterr().err.splitlines()
    assert str(log_path(db)) in sentence
    text = log_path(db).read_text()
    assert "Traceback" in text
    assert "ZeroDivisionError: a defect" in text


def test_a_tilde_that_the_shell_leaves_alone_is_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receiver: StartReceiver
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    live = receiver(db=Path("~/in-home/spans.db"))
    assert (tmp_path / "in-home" / "spans.db").is_file()
    assert live.stop() == 0


def test_it_gives_way_to_the_nodes_own_work(receiver: StartReceiver) -> None:
    live = receiver()
    threads = [int(name) for name in os.listdir(f"/proc/{live.pid}/task")]
    assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads} == {
        max(10, os.getpriority(os.PRIO_PROCESS, 0))
    }
    live.process.send_signal(signal.SIGINT)
    assert live.process.wait(15) == 0
