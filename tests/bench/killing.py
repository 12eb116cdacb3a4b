"""Receivers that are killed (kill -9) at random moments: what was acknowledged must be there."""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from receiver.ingest.demo import EXPORT
from receiver.store.database import Database
from receiver.store.wal import footprint
from tests.bench.otlp_load import Load, make_templates, run
from tests.live_receiver import start_receiver

ROUNDS: Final = 1000
SIDE_BY_SIDE: Final = 4
"""Databases; each has a round of its own at a time."""
_SENDERS: Final = 2
_SPANS: Final = 20
_CAP: Final = "256MiB"
_LONGEST_S: Final = 1.0  # of a round, from the first request to the kill


def kills(folder: Path, rounds: int = ROUNDS) -> dict[str, Any]:
    """So many rounds of start, send, kill and look, on databases that go on from round to round."""
    numbers = itertools.count(1)
    shares = [rounds // SIDE_BY_SIDE + (at < rounds % SIDE_BY_SIDE) for at in range(SIDE_BY_SIDE)]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        found = list(pool.map(lambda at: _rounds(folder / f"{at}.db", shares[at], numbers, at), range(SIDE_BY_SIDE)))
    return {
        "rounds": sum(one[0] for one in found),
        "acknowledged": sum(one[1] for one in found),
        "lost": sum(one[2] for one in found),
    }


def _rounds(db: Path, rounds: int, numbers: itertools.count[int], seed: int) -> tuple[int, int, int]:
    """(rounds, traces acknowledged, of them lost) of one database."""
    chance = random.Random(seed)
    acknowledged = lost = 0
    for at in range(rounds):
        receiver = start_receiver(db, ["127.0.0.1:0"], ["--max-size", _CAP, "--min-free", "0%"])
        stop = threading.Event()
        there: list[int] = []
        senders = [
            threading.Thread(target=_send, args=(receiver.address, numbers, there, stop, chance.choice((100, 20_000))))
            for _ in range(_SENDERS)
        ]
        for sender in senders:
            sender.start()
        time.sleep(chance.uniform(0.02, _LONGEST_S))
        receiver.kill()
        stop.set()
        for sender in senders:
            sender.join()
        for stream in (receiver.process.stdout, receiver.process.stderr):
            assert stream is not None
            stream.close()
        acknowledged += len(there)
        lost += len(set(there) - _stored(db, min(there, default=0)))
        if at % 50 == 49:  # so that rounds do not become longer and longer
            for suffix in ("", "-wal", "-shm"):
                db.with_name(db.name + suffix).unlink(missing_ok=True)
    return rounds, acknowledged, lost


def _send(address: str, numbers: itertools.count[int], there: list[int], stop: threading.Event, size: int) -> None:
    """One request after the other, a trace each, until the receiver is gone."""
    noise = os.urandom(size)
    with grpc.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
        call = channel.unary_unary(EXPORT)
        while not stop.is_set():
            number = next(numbers)
            request = ExportTraceServiceRequest()
            scope = request.resource_spans.add().scope_spans.add()
            for at in range(_SPANS):
                span = scope.spans.add(trace_id=number.to_bytes(16, "big"), span_id=(at + 1).to_bytes(8, "big"))
                span.start_time_unix_nano = span.end_time_unix_nano = time.time_ns()
                span.attributes.add(key="noise").value.bytes_value = noise
            try:
                call(request.SerializeToString(), timeout=5)
            except grpc.RpcError:
                continue
            there.append(number)


def _stored(db: Path, first: int) -> set[int]:
    """Traces from number `first` on that are there with all their spans, and whose requests can be unpacked. What
    closes the database here folds nothing in: the next receiver finds it as it was left."""
    counts: dict[int, int] = {}
    database = Database.read(db)
    try:
        last = 0
        while chunks := database.read_after(last):
            last = chunks[-1].id
            new = [chunk for chunk in chunks if int(chunk.spans["trace_lo"].max(initial=0)) >= first]
            bodies = database.bodies([chunk.id for chunk in new])
            for chunk in new:
                assert len(bodies[chunk.id]) > 0
                for number in chunk.spans["trace_lo"].tolist():
                    counts[number] = counts.get(number, 0) + 1
    finally:
        database.close()
    return {number for number, spans in counts.items() if spans >= _SPANS}


# --- the cap ---------------------------------------------------------------------------------------------
def cap(folder: Path, seconds: float) -> dict[str, Any]:
    """How large file, log and shared memory become under a flood, looked at a hundred times a second."""
    result: dict[str, Any] = {}
    for size in (16, 64, 256):
        db = folder / f"{size}.db"
        receiver = start_receiver(db, ["127.0.0.1:0"], ["--max-size", f"{size}MiB", "--min-free", "0%"])
        ended, most = threading.Event(), [0, 0]
        watcher = threading.Thread(target=_watch, args=(db, ended, most))
        watcher.start()
        try:
            templates = make_templates(40)
            spans = size * 40_000  # at 100 to 200 bytes a span some five times as much as fits
            outcome = run(Load(receiver.address, maximal=True, seconds=seconds, spans=spans, connections=4), templates)
        finally:
            ended.set()
            watcher.join()
            receiver.stop()
        for stream in (receiver.process.stdout, receiver.process.stderr):
            assert stream is not None
            stream.close()
        result[f"{size} MiB"] = {
            "most_mib": round(most[0] / (1 << 20), 1),
            "of_the_cap": round(most[0] / (size << 20), 2),
            "looks": most[1],
            "acknowledged": outcome.acknowledged,
            "refused": outcome.failed,
            "spans_per_s": round(outcome.acknowledged / outcome.wall),
        }
    return result


def _watch(db: Path, ended: threading.Event, most: list[int]) -> None:
    while not ended.wait(0.01):
        most[0] = max(most[0], footprint(db))
        most[1] += 1
