"""The receiver dies, or its disk fills up, while spans come in: what was acknowledged is there afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from receiver.control import ControlClient
from tests.conftest import StartReceiver
from tests.doubles.replay import EXPORT
from tests.live_receiver import LiveReceiver

SPANS = 40
"""Spans of each trace; a trace is one request, so that an acknowledged trace is wholly there or wrong."""


def request(trace_id: bytes, padding: int = 20) -> bytes:
    """A trace of SPANS spans, serialised; `padding` random bytes a span keep it from being compressed away."""
    now = time.time_ns()
    root = os.urandom(8)
    spans = [
        Span(
            trace_id=trace_id,
            span_id=root if number == 0 else os.urandom(8),
            parent_span_id=b"" if number == 0 else root,
            name="root" if number == 0 else "step",
            kind=Span.SPAN_KIND_INTERNAL,
            start_time_unix_nano=now + number,
            end_time_unix_nano=now + 1000 - number,
            attributes=[KeyValue(key="padding", value=AnyValue(bytes_value=os.urandom(padding)))],
        )
        for number in range(SPANS)
    ]
    service = KeyValue(key="service.name", value=AnyValue(string_value="crash-test"))
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=Resource(attributes=[service]), scope_spans=[ScopeSpans(spans=spans)])]
    ).SerializeToString()


class Senders:
    """Threads that send one trace after the other until they are told to stop, and remember which were taken."""

    def __init__(self, address: str, threads: int = 4) -> None:
        self.acknowledged: list[str] = []
        self.failed = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(address,), daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _send(self, address: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        with grpc.insecure_channel(address, options=options) as channel:
            call = channel.unary_unary(EXPORT, bytes, bytes)
            while not self._stop.is_set():
                trace_id = os.urandom(16)
                try:
                    call(request(trace_id), timeout=10)
                except grpc.RpcError:
                    self.failed += 1
                    return
                self.acknowledged.append(trace_id.hex())

    def wait_for(self, count: int) -> None:
        """Until so many were acknowledged."""
        deadline = time.monotonic() + 30
        while len(self.acknowledged) < count:
            assert time.monotonic() < deadline, f"{len(self.acknowledged)} acknowledged, {self.failed} failed"
            time.sleep(0.01)

    def stop(self) -> list[str]:
        """Ends them; the ids of all traces that were acknowledged."""
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
        return list(self.acknowledged)


def whole_traces(live: LiveReceiver) -> set[str]:
    """Ids of the traces in the database, each of which must be complete."""
    traces = live.traces()
    assert {trace["spans"] for trace in traces} <= {SPANS}
    assert not any(trace["missing_parents"] for trace in traces)
    return {trace["trace_id"] for trace in traces}


def test_kill_9_loses_nothing_that_was_acknowledged(receiver: StartReceiver) -> None:
    acknowledged: set[str] = set()
    for _ in range(3):
        live = receiver()
        senders = Senders(live.address)
        senders.wait_for(150)
        live.kill()
        acknowledged |= set(senders.stop())
        # the file is read as the dead receiver left it, then the next one starts over it
        assert acknowledged <= whole_traces(live)
    assert len(acknowledged) >= 450
    assert acknowledged <= whole_traces(receiver())


def test_sigterm_under_load_ends_well_and_loses_nothing(receiver: StartReceiver) -> None:
    live = receiver()
    senders = Senders(live.address)
    senders.wait_for(150)
    assert live.stop() == 0
    acknowledged = set(senders.stop())
    assert live.process.stderr is not None
    assert live.process.stderr.read() == ""
    assert acknowledged <= whole_traces(live)


def test_a_killed_receiver_leaves_nothing_in_the_way(receiver: StartReceiver, tmp_path: Path) -> None:
    """Neither its lock nor its sockets: the next one listens where it did."""
    socket = tmp_path / "otlp.sock"
    first = receiver(listen=["ssh=unix:" + str(socket), "127.0.0.1:0"])
    again = ["ssh=unix:" + str(socket), first.addresses["local"]]
    first.kill()
    second = receiver(listen=again)
    assert second.addresses == first.addresses
    assert second.pid != first.pid
    client = ControlClient.connect(second.db)
    try:
        assert client.request("status")["pid"] == second.pid
    finally:
        client.close()
    senders = Senders(f"unix:{socket}", threads=1)
    senders.wait_for(3)
    assert set(senders.stop()) <= whole_traces(second)


def test_a_second_receiver_on_the_same_file_attaches(receiver: StartReceiver) -> None:
    """It adds the listeners it is asked for to the first one; killing it hurts nobody."""
    first = receiver(listen=["one=127.0.0.1:0"])
    second = receiver(listen=["two=127.0.0.1:0"])
    assert second.pid != first.pid
    senders = Senders(second.addresses["two"], threads=1)
    senders.wait_for(5)
    acknowledged = set(senders.stop())
    assert {trace["source"] for trace in first.traces()} == {"two"}
    second.kill()
    senders = Senders(first.addresses["one"], threads=1)
    senders.wait_for(5)
    acknowledged |= set(senders.stop())
    assert acknowledged <= whole_traces(first)
    assert first.process.poll() is None


@pytest.mark.parametrize("damage", ["header", "middle", "not a database"])
def test_a_damaged_file_is_refused_and_left_alone(damage: str, receiver: StartReceiver, tmp_path: Path) -> None:
    live = receiver()
    senders = Senders(live.address, threads=2)
    senders.wait_for(40)
    senders.stop()
    assert live.stop() == 0
    content = bytearray(live.db.read_bytes())
    if damage == "header":
        content[:100] = b"\xa5" * 100
    elif damage == "middle":
        content[4096 : 3 * 4096] = os.urandom(2 * 4096)
    else:
        content = bytearray(b"these are my notes, not spans\n" * 1000)
    for beside in (live.db.with_name(live.db.name + suffix) for suffix in ("-wal", "-shm")):
        beside.unlink(missing_ok=True)
    live.db.write_bytes(content)

    for command in (
        [sys.executable, "-m", "receiver", "--db", str(live.db), "--listen", "127.0.0.1:0"],
        [sys.executable, "-m", "tui.cli", "traces", "--db", str(live.db)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 1, (command, done.stdout[-500:], done.stderr[-500:])
        assert "Traceback" not in done.stderr
        (sentence,) = done.stderr.strip().splitlines()
        assert live.db.name in sentence
        assert "--db" in sentence or "move" in sentence, "the way out"
    assert live.db.read_bytes() == content, "never a silent new start over it"


# --- a full disk -----------------------------------------------------------------------------------
@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command: a small disk cannot be made")
    if done.returncode:
        pytest.skip(f"a small disk cannot be made here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def try_export(address: str, body: bytes) -> grpc.RpcError | None:
    """The error of one export, None if it was acknowledged."""
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(EXPORT, bytes, bytes)(body, timeout=20)
        except grpc.RpcError as error:
            return error
    return None


def test_a_full_disk_turns_senders_away_until_there_is_space_again(receiver: StartReceiver, small_disk: Path) -> None:
    live = receiver(db=small_disk / "spans.db")
    acknowledged: set[str] = set()
    full: grpc.RpcError | None = None
    filler = small_disk / "somebody-elses.log"
    with filler.open("wb") as file:
        try:
            while True:
                file.write(b"\0" * 65536)
                file.flush()
        except OSError:
            pass
    for _ in range(200):
        trace_id = os.urandom(16)
        full = try_export(live.address, request(trace_id, padding=2000))
        if full is not None:
            break
        acknowledged.add(trace_id.hex())
    assert full is not None, "the disk never became full"
    assert full.code() is grpc.StatusCode.UNAVAILABLE
    assert retry_delay(full) > 0, "an OTLP sender keeps the spans and tries again"
    client = ControlClient.connect(live.db)
    try:
        status = client.request("status")
        assert status["disk_full"]
        assert status["message"], "the banner"
        assert status["refused"] >= 1

        filler.unlink()
        deadline = time.monotonic() + 20
        while True:
            trace_id = os.urandom(16)
            if try_export(live.address, request(trace_id)) is None:
                acknowledged.add(trace_id.hex())
                break
            assert time.monotonic() < deadline, "no recovery"
            time.sleep(0.2)
        assert not client.request("status")["disk_full"]
    finally:
        client.close()
    assert acknowledged <= whole_traces(live)
    assert live.stop() == 0


def retry_delay(error: grpc.RpcError) -> float:
    """Seconds of the RetryInfo in an error, 0 if there is none."""
    assert isinstance(error, grpc.Call)
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in Status.FromString(value).details:
                info = RetryInfo()
                if detail.Unpack(info):
                    return float(info.retry_delay.ToTimedelta().total_seconds())
    return 0.0


def test_a_receiver_that_is_stopped_and_continued_goes_on(receiver: StartReceiver) -> None:
    """SIGSTOP is what a suspended machine is like: exports wait, none is lost or answered twice."""
    live = receiver()
    senders = Senders(live.address, threads=2)
    senders.wait_for(20)
    live.process.send_signal(signal.SIGSTOP)
    time.sleep(1.0)
    before = len(senders.acknowledged)
    live.process.send_signal(signal.SIGCONT)
    senders.wait_for(before + 20)
    acknowledged = set(senders.stop())
    assert senders.failed == 0
    assert acknowledged == whole_traces(live)
