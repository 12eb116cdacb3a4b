"""Retention: whole traces go, the oldest first, and what must stay stays."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from receiver.ingest.decode import decode
from receiver.store import retention
from receiver.store.chunk import FACT_STRINGS, Chunk
from receiver.store.database import Database
from receiver.store.index import Index
from receiver.store.retention import Policy, Retention

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
CAP = 1 << 20


def chunk(
    received: int, spans: Sequence[tuple[int, int]], *, slow: Sequence[int] = (), failed: Sequence[int] = ()
) -> Chunk:
    """A stored request of apiserver SERVER spans, (trace, span) each, of about 1 kB a span."""
    sent = ExportTraceServiceRequest()
    group = sent.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "apiserver"
    scope = group.scope_spans.add()
    for trace, number in spans:
        one = scope.spans.add(trace_id=trace.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"), kind=2, name="GET")
        one.start_time_unix_nano = received
        one.end_time_unix_nano = received + (2 * SECOND if trace in slow else 1000)
        one.status.code = 2 if trace in failed else 0
        one.attributes.add(key="http.target").value.string_value = f"/api/v1/namespaces/n{trace}/pods/p{number}"
        one.attributes.add(key="audit-id").value.string_value = f"audit {number}"
        one.attributes.add(key="noise").value.bytes_value = random.Random(number).randbytes(1000)
    made = decode(sent.SerializeToString(), source="local", peer="p", received=received).chunk
    assert made is not None
    return made


class Store:
    """A database with retention, and what was ever put into it."""

    def __init__(self, cap: int = CAP, **options: Any) -> None:
        self.now = START
        self.database = Database.memory()
        self.retention = Retention(
            self.database,
            Policy(cap=cap, min_free=0.0, max_age=options.pop("max_age", None)),
            clock=lambda: self.now,
            **options,
        )
        self.sent: dict[int, set[int]] = {}

    def put(self, spans: Sequence[tuple[int, int]], **what: Any) -> None:
        self.now += SECOND
        one = chunk(self.now, spans, **what)
        one.id = self.database.append([one])[0]
        self.retention.committed([one])
        for trace, span in spans:
            self.sent.setdefault(trace, set()).add(span)

    def there(self) -> dict[int, set[int]]:
        """Span numbers by trace; each must also be in its body, with its own facts."""
        found: dict[int, set[int]] = {}
        for one in self.database.read_after(0, 100_000):
            body = ExportTraceServiceRequest.FromString(self.database.bodies([one.id])[one.id])
            spans = [span for group in body.resource_spans for scope in group.scope_spans for span in scope.spans]
            assert [int.from_bytes(span.span_id, "big") for span in spans] == one.spans["span"].tolist()
            for fact in one.facts:
                row = one.spans[int(fact["row"])]
                strings = {column: one.strings[int(fact[column])] for column in FACT_STRINGS}
                audit = one.strings[int.from_bytes(fact["audit"].tobytes()[:4], "big")]
                assert (strings["namespace"], strings["name"]) == (f"n{int(row['trace_lo'])}", f"p{int(row['span'])}")
                assert audit == f"audit {int(row['span'])}"
            for row in one.spans:
                mine = found.setdefault(int(row["trace_lo"]), set())
                assert int(row["span"]) not in mine
                mine.add(int(row["span"]))
        return found

    def settle(self) -> None:
        for _ in range(10):
            if not self.retention.tick():
                return
        raise AssertionError("eviction does not come to an end")


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.booleans())
def test_whole_traces_stay_or_go(seed: int, spread: int, unknown: bool) -> None:
    rng = random.Random(seed)
    held = frozenset(rng.sample(range(1, 300), 3))
    store = Store(held=lambda: held)
    if unknown:  # chunks that another program wrote
        store.retention.committed = lambda chunks: None  # type: ignore[method-assign]
    span = 0
    for step in range(150):
        some = []
        for _ in range(rng.randint(1, 20)):
            span += 1
            some.append((max(1, 2 * step - rng.randint(0, spread)), span))
        store.put(some)
        store.retention.tick()
    store.settle()
    there = store.there()
    for trace, spans in there.items():
        assert spans == store.sent[trace]
    for trace in held:
        assert there.get(trace) == store.sent.get(trace)
    assert store.retention.live_bytes <= CAP
    gone = {trace: spans for trace, spans in store.sent.items() if trace not in there}
    assert gone
    assert store.retention.evicted_traces == len(gone)
    assert store.retention.evicted_spans == sum(map(len, gone.values()))
    young_ones = [trace for trace in there if trace not in held]
    assert max(gone) - spread <= min(young_ones) + spread  # the oldest went


def test_failed_and_slow_traces_stay_longer_but_not_for_ever() -> None:
    store = Store()
    for step in range(1, 151):
        trace = 10 * step
        store.put([(trace + i, trace + i) for i in range(10)], slow=[trace] if step < 20 else [], failed=[trace + 1])
    store.settle()
    there = store.there()
    oldest_plain = min(trace for trace in there if trace % 10 > 1)
    failed = [trace for trace in there if trace % 10 == 1 and trace < oldest_plain]
    slow = [trace for trace in there if trace % 10 == 0 and trace < oldest_plain]
    assert len(failed) > 20  # about a tenth of the cap
    assert len(failed) + len(slow) < 120
    assert min(failed) > 11  # the oldest of them went too
    assert store.retention.live_bytes <= CAP


def test_a_trace_id_that_is_used_for_hours_is_not_carried_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MAX_CARRIED", 40)
    store = Store()
    for step in range(1, 400):
        store.put([(1, 10 * step + i) for i in range(9)] + [(step + 1, 10 * step + 9)])
        if store.retention.tick():
            assert store.retention.live_bytes < 0.95 * CAP  # each eviction frees its share, so they stay rare
            assert 40 < len(store.there()[1]) < 1000
    mine = store.there()[1]
    assert mine == {span for span in store.sent[1] if span >= min(mine)}  # the newest stay
    assert store.retention.evicted_spans > 2000
    assert store.retention.evicted_spans == sum(map(len, store.sent.values())) - sum(map(len, store.there().values()))


def test_age_counts_from_arrival_and_spares_what_is_held_or_still_grows() -> None:
    store = Store(max_age=100 * SECOND, held=lambda: frozenset((3,)))
    for step in range(1, 201):
        store.put([(step if step != 7 else 6, step)] + ([(7, 1000 + step)] if step in (105, 190) else []), failed=[5])
        store.retention.tick()
    store.now += 30 * SECOND
    store.settle()
    there = store.there()
    assert there[3] == {3}
    assert there[7] == {1105, 1190}
    assert 5 not in there
    assert min(trace for trace in there if trace not in (3, 7)) in range(120, 136)
    store.now += 500 * SECOND
    store.settle()
    assert list(store.there()) == [3]


def test_readers_see_the_same_traces_before_and_after() -> None:
    store = Store()
    for step in range(1, 120):
        store.put([(1 + step // 3, 10 * step + i) for i in range(9)])
    index, generation = Index(), store.database.generation()
    index.extend(store.database.read_after(0, 10_000))
    store.settle()
    assert store.database.generation() > generation
    there = set(store.database.ids())
    index = index.without([one for one in range(1, 120) if one not in there])
    index.extend(store.database.read_after(index.last_chunk, 10_000))
    counted = Counter({int(index.id_lo[slot]): int(index.span_count[slot]) for slot in range(index.traces)})
    assert counted == Counter({trace: len(spans) for trace, spans in store.there().items()})


def test_a_nearly_full_disk_lowers_the_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database.create(tmp_path / "x.db")
    size, total = (tmp_path / "x.db").stat().st_size, 10 << 30

    def disk(free: int) -> None:
        found = SimpleNamespace(f_blocks=total // 4096, f_frsize=4096, f_bavail=free // 4096)
        monkeypatch.setattr(retention.os, "statvfs", lambda path: found)

    watch = Retention(database, Policy(cap=512 << 20, min_free=0.2))
    watch.live_bytes = 400 << 20
    disk(free=5 << 30)
    assert watch._cap_now() == 512 << 20
    assert watch.notice == ""
    disk(free=(2 << 30) + (100 << 20))  # 100 MiB above the fifth that others get
    assert watch._cap_now() == size + (100 << 20)
    assert "20% of the disk" in watch.notice
    disk(free=1 << 20)
    assert watch._cap_now() == retention.FLOOR  # of use however full the disk is
    database.close()


# --- a cap that was lowered ---------------------------------------------------------------------------
def test_a_lowered_cap_makes_the_file_smaller_and_keeps_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    database = Database.create(path)
    for number in range(1, 401):
        database.append([chunk(START + number * SECOND, [(number, 20 * number + span) for span in range(20)])])
    database.checkpoint()
    large = path.stat().st_size
    assert large > 6 * CAP
    reader = Database.read(path)  # somebody looks on
    assert len(reader.ids()) == 400
    shrinker = Retention(database, Policy(cap=CAP, min_free=0.0), clock=lambda: START + 500 * SECOND)
    while shrinker.tick():
        pass
    assert database.live_bytes() <= CAP
    shrinker._shrink()
    assert path.stat().st_size <= CAP * retention.SHRINK_ABOVE
    kept = reader.ids()
    assert kept[-1] == 400
    index = Index()
    index.extend(reader.read_after(0, 1000))
    assert index.spans == 20 * len(kept)
    assert all(len(body) > 20_000 for body in reader.bodies(kept).values())
    more = database.append([chunk(START + 600 * SECOND, [(9_000, 90_000)])])
    assert reader.ids()[-1:] == more
    assert database._all("PRAGMA integrity_check") == [("ok",)]
    reader.close()
    database.close()


def test_a_file_within_its_cap_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    database = Database.create(path)
    ids = database.append([chunk(START + n * SECOND, [(n, n)]) for n in range(1, 401)])
    database.replace(ids[:300], [])
    database.checkpoint()
    before = path.stat().st_size
    Retention(database, Policy(cap=CAP, min_free=0.0))._shrink()
    assert path.stat().st_size == before, "free pages are used again"
    database.close()


def test_far_above_the_cap_no_cut_is_larger_than_what_may_be_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MOST_AT_ONCE", CAP // 4)
    store = Store(cap=CAP)
    for number in range(1, 401):
        store.database.append([chunk(START + number * SECOND, [(number, 20 * number + span) for span in range(20)])])
    read, most = store.retention._read, 0

    def watched(numbers: Sequence[int], sizes: Any) -> Any:
        nonlocal most
        most = max(most, len(numbers))
        return read(numbers, sizes)

    monkeypatch.setattr(store.retention, "_read", watched)
    turns = 0
    while store.retention.tick():
        turns += 1
    assert store.database.live_bytes() <= CAP
    assert turns > 10
    assert most * 20_000 < 2 * (CAP // 4), "bytes of a chunk are about 20,000"
