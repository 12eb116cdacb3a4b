"""Shares: nobody's spans go because somebody else sends much."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from receiver.store import retention
from receiver.store.chunk import Chunk
from receiver.store.database import Database
from receiver.store.retention import Policy, Retention
from receiver.store.room import full_at
from receiver.store.shares import MOST_SERVICES, MOST_SHARES, Evicted, Shares, fair_gifts, sender_of
from tests.receiver.store import test_index
from tests.receiver.store.test_retention import CAP, SECOND, START, chunk

VICTIM, ATTACKER = "uid 0", "uid 1001"


class Store:
    """A database with retention; `sent` are the spans by sender and trace."""

    def __init__(self, cap: int = CAP, **options: Any) -> None:
        self.now = START
        self.database = Database.memory()
        self.retention = Retention(self.database, Policy(cap=cap, min_free=0.0), clock=lambda: self.now, **options)
        self.order: list[tuple[str, int, int]] = []

    def put(
        self, sender: str, spans: Sequence[tuple[int, int]], *, service: str = "", peer: str = "p", **what: Any
    ) -> None:
        self.now += SECOND
        one = chunk(self.now, spans, **what)
        one.sender, one.peer = sender, peer
        if service:
            one.resources = [type(one.resources[0])(service, "")]
        one.id = self.database.append([one])[0]
        self.retention.committed([one])
        self.order += [(sender, trace, span) for trace, span in spans]

    def there(self) -> dict[str, dict[int, set[int]]]:
        """Spans by sender and trace."""
        found: dict[str, dict[int, set[int]]] = {}
        numbers = self.database.ids()
        for one in self.database.index_rows(numbers):
            mine = found.setdefault(one.sender, {})
            for row in one.spans:
                mine.setdefault(int(row["trace_lo"]), set()).add(int(row["span"]))
        return found

    def settle(self) -> None:
        self.retention.settle()


# --- dividing ------------------------------------------------------------------------------------------
@given(st.lists(st.integers(0, 10**9), max_size=30), st.integers(0, 10**10))
def test_who_gives_is_left_with_no_less_than_anybody_else(usage: list[int], need: int) -> None:
    had = np.array(usage, np.int64)
    gifts = fair_gifts(had, need)
    assert (gifts >= 0).all()
    assert (gifts <= had + 1e-6).all()
    assert abs(gifts.sum() - min(need, had.sum())) < 1e-3 * max(1, len(usage))
    left = had - gifts
    if (gifts > 0).any() and need < had.sum():
        level = left[gifts > 0]
        assert level.max() - level.min() < 1
        assert (left[gifts == 0] <= level.min() + 1).all()
        assert level.min() >= (had.sum() - need) / len(usage) - 1, "a share of what is left, at least"


@pytest.mark.parametrize(
    ("sender", "peer", "name"),
    [
        ("uid 0", "127.0.0.1:5", "uid 0"),
        ("certificate CN=x", "10.0.0.1:5", "certificate CN=x"),
        ("address 10.0.0.1", "10.0.0.1:5", "address 10.0.0.1"),
        ("", "10.0.0.1:5", "address 10.0.0.1"),
        ("", "[2001:db8::1]:5", "address 2001:db8::/64"),
        ("address 2001:db8::ffff:1", "", "address 2001:db8::/64"),
        ("address ::ffff:10.0.0.1", "", "address 10.0.0.1"),
        ("address fe80::1%eth0", "", "address fe80::/64"),
        ("", "[::1]:4317", "address ::1"),
        ("", "unix", "unix"),
        ("\x1b[2J", "", "\x1b[2J"),
    ],
)
def test_a_sender_is_never_its_port_nor_all_of_an_address_that_it_can_choose(sender: str, peer: str, name: str) -> None:
    assert sender_of("local", sender, peer) == ("local", name)


def test_senders_and_services_beyond_number_have_one_share_together() -> None:
    shares = Shares()

    one = chunk(START, [(1, 1)])

    def seen(sender: str, service: str) -> tuple[int, int]:
        one.sender, one.resources = sender, [type(one.resources[0])(service, "")]
        number, groups = shares.of(one)
        return number, int(groups[0])

    first = [seen(f"address 10.{n >> 8}.{n & 255}.1", "x")[1] for n in range(20_000)]
    assert len(set(first)) <= 4096
    late = seen("uid 0", "apiserver")[1]
    names = [seen("uid 0", f"made up {n}")[1] for n in range(10_000)]
    assert len(set(names)) == MOST_SERVICES, "with that of before and the rest"
    assert late not in names
    groups = np.unique([*first, *names, late])
    usage = np.where(groups == late, 100.0, 10_000.0)
    gifts, number = shares.gifts(groups, usage, float(usage.sum()) * 0.9)
    assert number == MOST_SHARES
    assert gifts[groups == late] == 0
    left = (usage - gifts)[np.isin(groups, [*names, late])].sum()
    assert left >= 0.1 * usage.sum() / MOST_SHARES, "who has a user id has a share of its own, whoever came first"
    shares.forget_all_but([late])
    assert len(shares._known) == 1
    assert seen("uid 0", "apiserver")[1] == late
    assert seen("address 10.0.0.1", "x")[1] > max(groups)


def test_whose_spans_were_evicted_is_counted_within_bounds() -> None:
    evicted = Evicted()
    for number in range(1000):
        evicted.add(("local", f"address 10.0.0.{number}"), 10, 1)
        evicted.add(("local", "uid 0"), 1, 0)
    told = evicted.to_json()
    assert len(told) <= 66
    assert sum(one["spans"] for one in told) == 11_000
    assert sum(one["traces"] for one in told) == 1000
    assert {"source": "local", "sender": "uid 0", "spans": 1000, "traces": 0} in told
    assert told[0] == {"source": "", "sender": "", "spans": told[0]["spans"], "traces": told[0]["traces"]}


def test_what_was_imported_has_one_share_from_however_many_files() -> None:
    assert sender_of("a.jsonl", "", "") == sender_of("b.jsonl", "", "") == ("", "imported")


# --- evicting --------------------------------------------------------------------------------------------
PATTERNS = st.lists(
    st.tuples(
        st.integers(1, 60),  # spans of a request
        st.sampled_from(["own", "one", "victim's", "failed", "slow"]),
        st.sampled_from([ATTACKER, "address 10.0.0.1", "address 2001:db8::1", "address 2001:db8::2", "uid 0 at work"]),
        st.sampled_from(["flood", "other"]),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=12, deadline=None)
@given(PATTERNS, st.integers(0, 2**32), st.integers(1, 9))
@example([(50, "victim's", "uid 1001", "flood")], 0, 5)
def test_what_a_sender_has_within_its_share_survives_any_flood(
    patterns: list[tuple[int, str, str, str]], seed: int, every: int
) -> None:
    rng = random.Random(seed)
    store = Store()
    senders = {sender_of("local", sender, "p") for _, _, sender, _ in patterns}
    share = full_at(CAP) * (1 - retention.STEP) / (len(senders) + 1)
    mine, number = 0, 0
    while number < 150:
        number += 1
        size, what, sender, service = patterns[number % len(patterns)]
        if number % every == 0 and mine < share * 0.6:
            store.put(VICTIM, [(number + 1, 10 * number), (number, 10 * number + 1)], service="apiserver")
            mine += 2 * 1300 + 1000  # bytes on the disk, at most
        spans = [
            (
                {"own": 10_000 + number, "one": 77, "victim's": rng.randint(1, number)}.get(what, 10_000 + number),
                1_000_000 + 100 * number + at,
            )
            for at in range(size)
        ]
        some = [trace for trace, _ in spans]
        store.put(
            sender, spans, service=service, failed=some if what == "failed" else (), slow=some if what == "slow" else ()
        )
        if number % 5 == 0:
            store.retention.tick()
    store.settle()
    assert store.retention.live_bytes <= CAP
    there = store.there()
    sent: dict[int, set[int]] = {}
    for sender, trace, span in store.order:
        if sender == VICTIM:
            sent.setdefault(trace, set()).add(span)
    assert there.get(VICTIM, {}) == sent
    assert VICTIM not in {one["sender"] for one in store.retention.evicted.to_json()}
    if store.retention.evicted_spans:
        assert sum(one["spans"] for one in store.retention.evicted.to_json()) == store.retention.evicted_spans


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32))
def test_the_newest_of_a_share_stay_though_both_flood(seed: int) -> None:
    rng = random.Random(seed)
    store = Store()
    for number in range(1, 301):
        store.put(VICTIM, [(number, 10 * number + at) for at in range(5)])
        store.put(ATTACKER, [(100_000 + number, 1_000_000 + 100 * number + at) for at in range(rng.randint(1, 60))])
        if number % 4 == 0:
            store.retention.tick()
    store.settle()
    kept = sorted(store.there()[VICTIM])
    assert kept == list(range(kept[0], 301)), "the oldest went"
    assert len(kept) * 8192 > full_at(CAP) * (1 - retention.STEP) / 2 * 0.8


def test_names_of_services_divide_only_the_share_of_who_has_them() -> None:
    store = Store()
    for number in range(1, 50):
        store.put(VICTIM, [(number, 10 * number + at) for at in range(5)], service="apiserver")
    for number in range(1, 1500):
        store.put(ATTACKER, [(10_000 + number, 100_000 + number)], service=f"service {number}")
        if number % 50 == 0:
            store.retention.tick()
    store.settle()
    assert set(store.there()[VICTIM]) == set(range(1, 50))


def test_a_service_within_its_part_stays_though_another_of_the_same_user_floods() -> None:
    store = Store()
    for number in range(1, 40):
        store.put(VICTIM, [(number, 10 * number + at) for at in range(5)], service="apiserver")
    for number in range(1, 200):
        store.put(VICTIM, [(10_000 + number, 100_000 + 20 * number + at) for at in range(15)], service="runaway")
        store.retention.tick()
    store.settle()
    assert set(range(1, 40)) <= set(store.there()[VICTIM])
    assert store.retention.evicted_spans


def test_what_services_of_one_sender_know_of_a_trace_goes_together() -> None:
    store = Store()
    for number in range(1, 250):
        store.put(VICTIM, [(number, 10 * number + at) for at in range(5)], service="apiserver")
        store.put(VICTIM, [(number, 10 * number + 5), (number, 10 * number + 6)], service="etcd")
        store.retention.tick()
    store.settle()
    there = store.there()[VICTIM]
    assert all(len(spans) == 7 for spans in there.values())
    assert store.retention.evicted_traces == 249 - len(there)


def test_who_adds_to_a_trace_neither_pulls_it_out_nor_makes_it_stay() -> None:
    """Spans of the API server, of a webhook of another user's, and of somebody who saw the trace's id."""
    store = Store()
    for number in range(1, 31):
        store.put(VICTIM, [(number, 10 * number + at) for at in range(5)], service="apiserver")
        store.put("uid 65532", [(number, 10 * number + 7)], service="webhook")
    for number in range(1, 400):
        trace = number % 30 + 1
        store.put(ATTACKER, [(trace, 1_000_000 + 20 * number + at) for at in range(15)], failed=[trace])
        store.retention.tick()
    store.settle()
    there = store.there()
    assert {trace: len(spans) for trace, spans in there[VICTIM].items()} == dict.fromkeys(range(1, 31), 5)
    assert {trace: len(spans) for trace, spans in there["uid 65532"].items()} == dict.fromkeys(range(1, 31), 1)
    # ... and what the victim sends too much of goes by its own age, though others add to it and call it failed.
    for number in range(31, 200):
        store.put(VICTIM, [(number, 10 * number + at) for at in range(5)], service="apiserver")
        store.put(ATTACKER, [(1 + number % 5, 2_000_000 + number)], failed=[1 + number % 5])
        store.retention.tick()
    store.settle()
    assert min(store.there()[VICTIM]) > 30


def test_failed_traces_count_to_the_share_of_who_sent_them() -> None:
    store = Store()
    for number in range(1, 100):
        store.put(VICTIM, [(number, 10 * number + at) for at in range(3)])
    for number in range(1, 300):
        some = [(10_000 + 20 * number + at, 100_000 + 20 * number + at) for at in range(10)]
        store.put(ATTACKER, some, failed=[trace for trace, _ in some])
        store.retention.tick()
    store.settle()
    assert set(store.there()[VICTIM]) == set(range(1, 100))


def test_a_held_trace_that_somebody_floods_is_held_for_its_own_sender() -> None:
    store = Store(held=lambda: frozenset((5,)))
    store.put(VICTIM, [(5, 50 + at) for at in range(5)])
    for number in range(1, 300):
        store.put(ATTACKER, [(5, 100_000 + 20 * number + at) for at in range(15)])
        store.retention.tick()
    store.settle()
    assert store.retention.live_bytes <= CAP
    assert store.there()[VICTIM] == {5: set(range(50, 55))}


def test_what_is_carried_over_stays_its_senders(tmp_path: Path) -> None:
    store = Store()
    for number in range(1, 200):
        for sender in (VICTIM, ATTACKER):
            first = 1_000 if sender == VICTIM else 500_000
            store.put(sender, [(first + number, first + 10 * number + at) for at in range(4)], failed=[first + number])
        store.retention.tick()
    for sender, traces in store.there().items():
        assert all((trace < 500_000) == (sender == VICTIM) for trace in traces)


# --- files of before ---------------------------------------------------------------------------------------
_OF_BEFORE = """
CREATE TABLE chunks(
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- never reused, so that "id > last" sees every new row
    received INTEGER NOT NULL,
    n INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    source TEXT NOT NULL,
    peer TEXT NOT NULL,
    names BLOB NOT NULL,
    spans BLOB NOT NULL,
    facts BLOB NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('generation', 0);
"""
_INSERT = "INSERT INTO chunks(received, n, bytes, source, peer, names, spans, facts, body) VALUES (?,?,?,?,?,?,?,?,?)"
_SELECT = "SELECT id, source, peer, received, names, spans, facts FROM chunks WHERE id > ? ORDER BY id LIMIT ?"


def of_before(path: Path, chunks: Sequence[Chunk]) -> None:
    """A file as the program wrote it before chunks had senders."""
    old = sqlite3.connect(path, isolation_level=None)
    old.execute("PRAGMA page_size = 8192")
    old.execute("PRAGMA auto_vacuum = INCREMENTAL")
    old.executescript(_OF_BEFORE)
    old.execute("PRAGMA application_id = 1802794034")
    old.execute("PRAGMA user_version = 1")
    old.execute("PRAGMA journal_mode = WAL")
    _put_as_before(old, chunks)
    old.close()


def _put_as_before(old: sqlite3.Connection, chunks: Sequence[Chunk]) -> None:
    for one in chunks:
        blobs = one.names_blob(), one.spans.tobytes(), one.facts.tobytes(), one.body
        size = sum(map(len, blobs))
        old.execute(_INSERT, (one.received, len(one.spans), size, one.source, one.peer, *blobs))


def test_a_file_of_before_is_read_written_and_still_understood_by_the_program_of_before(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    of_before(path, [chunk(START + number * SECOND, [(number, number)]) for number in range(1, 4)])
    before = Database.read(path)
    assert [one.sender for one in before.index_rows(before.ids())] == ["", "", ""]
    database = Database.create(path)
    mine = chunk(START + 9 * SECOND, [(9, 9)])
    mine.sender = "certificate CN=x"
    database.append([mine])
    assert [one.sender for one in database.index_rows(database.ids())] == ["", "", "", "certificate CN=x"]
    assert [one.sender for one in before.index_rows(before.ids())] == ["", "", "", "certificate CN=x"]
    assert len(before.read_after(0)) == 4
    before.close()
    database.close()
    old = sqlite3.connect(path, isolation_level=None)
    assert old.execute("PRAGMA user_version").fetchone() == (1,)
    assert len(old.execute(_SELECT, (0, 10)).fetchall()) == 4
    _put_as_before(old, [chunk(START + 10 * SECOND, [(10, 10)])])
    old.close()
    again = Database.create(path)
    assert [one.sender for one in again.index_rows(again.ids())][3:] == ["certificate CN=x", ""]
    watch = Retention(again, Policy(cap=1 << 20, min_free=0.0))
    watch.tick()
    again.close()


def test_a_new_file_has_the_sender_before_its_long_columns_and_goes_with_the_program_of_before(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    Database.create(path).close()
    old = sqlite3.connect(path, isolation_level=None)
    columns = [row[1] for row in old.execute("PRAGMA table_info(chunks)")]
    assert columns.index("sender") < columns.index("names")
    _put_as_before(old, [chunk(START, [(1, 1)])])
    assert len(old.execute(_SELECT, (0, 10)).fetchall()) == 1
    old.close()
    database = Database.create(path)
    assert [one.sender for one in database.index_rows([1])] == [""]
    database.close()


def test_a_sender_that_is_no_text_is_damage(tmp_path: Path) -> None:
    database = Database.memory()
    ids = database.append([test_index.chunk(0, [test_index.Plain(1, 1, 0, 5, 9, request=True)])])
    database._connection.execute("UPDATE chunks SET sender = x'00'")
    with pytest.raises(retention.DatabaseDamaged):
        database.index_rows(ids)
