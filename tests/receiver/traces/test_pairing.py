"""Lone `authentication` traces find their request, and where all traces are kept never another one.

The truth is known where the authentication is the parent of its request: the tests take that link away.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.store.chunk import APISERVER, FACT, FLAG_REQUEST, SPAN, Chunk, Resource
from receiver.store.index import Index
from receiver.traces import pairing
from receiver.traces.pairing import (
    COMPLETE,
    catch_up,
    lone_authentications,
    match,
    paired_with,
    pairs,
    partners,
    waited,
)
from tests.receiver.traces import shapes
from tests.receiver.traces.conftest import Recordings
from tests.receiver.traces.shapes import FILTER, HTTP, SERVER, T0, Recorder, authenticated_above

Array = npt.NDArray[Any]


def test_a_request_of_1_34_is_paired() -> None:
    rec = Recorder()
    top = rec.span("authentication", trace="lone", scope=FILTER, ms=20)
    assert top
    values = {"http.request.method": "GET", "http.target": "/livez", "http.response.status_code": 200}
    rec.span("GET", SERVER, trace="request", scope=HTTP, at=0.2, ms=19.79, values=values)
    rec.span("GET", SERVER, trace="elsewhere", instance="b", scope=HTTP, at=0.2, ms=19.79, values=values)
    rec.span("GET", SERVER, trace="later", scope=HTTP, at=30, ms=1, values=values)
    index = rec.index()
    found = pairs(index)
    slots = [index.slot_of(rec.trace_id(name)) for name in ("lone", "request", "elsewhere", "later")]
    assert paired_with(index, found, [slot for slot in slots if slot is not None]) == [
        rec.trace_id("request"), rec.trace_id("lone"), "", "",
    ]  # fmt: skip
    assert found.before.tolist() == [200_000]
    assert found.before_requests(index.traces)[slots[1]] == 200_000


def test_two_that_could_both_be_it_are_not_paired() -> None:
    rec = Recorder()
    rec.span("authentication", trace="lone", scope=FILTER, ms=20)
    for number in range(2):
        rec.span("GET", SERVER, trace=f"request {number}", scope=HTTP, at=0.2, ms=19.79)
    assert len(pairs(rec.index()).request) == 0


@pytest.mark.parametrize("record", [shapes.release_1_22, shapes.release_1_26, shapes.release_1_33, shapes.forced])
def test_nothing_to_pair_with(record: Any) -> None:
    rec = Recorder()
    record(rec)
    assert len(pairs(rec.index()).request) == 0


def test_an_empty_index() -> None:
    assert len(pairs(Index()).request) == 0


# --- as spans arrive ------------------------------------------------------------------------------
EDGE = ((((T0 >> 23) + 9) << 23) - T0) // 1_000
"""us after T0 where one neighbourhood of `pairing` ends and the next begins, or nearly."""
Piece = tuple[int, int, int, int, int, int, int]


def pieces(chance: random.Random, traces: int) -> list[Piece]:
    """Spans of some requests and their authentications, times in us: (trace, span, parent, start, end, role,
    instance). Now and then one is missing, or its trace holds more than it seemed to at first."""
    found: list[Piece] = []
    for number in range(0, traces, 2):
        a, r, instance = number + 1, number + 2, chance.randrange(2)
        end = EDGE + chance.choice((-9_000, -1_500, -1_500, 0)) + chance.randrange(40) * chance.choice((10, 100))
        start = end - chance.choice((0, 300, 5_000))
        early, late = chance.choice((100, 150, 900, 40_000)), chance.choice((5, 20, 1_500, 1_500))
        if chance.random() < 0.85:
            found.append((a, 1, 0, start - early, end + late, 0, instance))
        if chance.random() < 0.85:
            parent = 7 if chance.random() < 0.3 else 0
            found.append((r, 1, parent, start, end, 1, instance))
            if chance.random() < 0.3:
                found.append((r, 7, 0, start - 10, end + 10, 0, instance))
        if chance.random() < 0.2:
            found.append((chance.choice((a, r)), 2, 1, start, end, 2, instance))
        if chance.random() < 0.2:  # an earlier request of the same trace is the headline then
            found.append((r, 3, 0, start - 50, end - chance.choice((50, 3_000)), 1, instance))
    return found


def stored(number: int, some: Sequence[Piece]) -> Chunk:
    rows = np.zeros(len(some), SPAN)
    for at, (trace, span, parent, start, end, role, instance) in enumerate(some):
        kind, flags = (2, APISERVER | FLAG_REQUEST) if role == 1 else (1, APISERVER)
        rows[at] = (0, trace, span, parent, T0 + start * 1_000, T0 + end * 1_000, role, instance, kind, flags)
    senders = [Resource("apiserver", "a"), Resource("apiserver", "b")]
    return Chunk(
        number, "s", "", T0, ["", "GET", "Get", "authentication"], senders, named(rows), np.zeros(0, FACT), b""
    )


def named(rows: Array) -> Array:
    rows["name"] = np.where(rows["name"] == 0, 3, rows["name"])  # "" is no name
    return rows


def slow_pairs(index: Index) -> list[tuple[int, int]]:
    """The definition, read span by span."""
    lone, requests = [], []
    for slot, head in enumerate(index.head_row.tolist()):
        rows = index.rows_of(slot).tolist()
        authentications = [int(index.span[row]) for row in rows if index.names[index.name[row]] == "authentication"]
        if index.head_rank[slot] == 2 and int(index.parent[head]) not in authentications:
            requests.append(slot)
        if len(rows) == 1 and index.head_rank[slot] == 1 and authentications:
            lone.append(slot)
    found = matched(index, index.head_row[lone], index.head_row[requests]) if lone and requests else []
    return [(requests[at], slot) for slot, at in zip(lone, found, strict=False) if at >= 0]


@given(st.randoms(use_true_random=False), st.integers(2, 60), st.sampled_from((0.0, 0.0, COMPLETE)))
@settings(deadline=None, max_examples=150)
def test_pairs_kept_up_to_date_are_those_of_the_definition(chance: random.Random, traces: int, share: float) -> None:
    with mock.patch.object(pairing, "COMPLETE", share):  # 0: what is not sure is believed, too
        check_arrivals(chance, pieces(chance, traces))


def check_arrivals(chance: random.Random, waiting: list[Piece]) -> None:
    chance.shuffle(waiting)
    index, number = Index(), 0
    while waiting:
        size, number = chance.choice((1, 2, 5, 20)), number + 1
        index.extend([stored(number, waiting[:size])])
        del waiting[:size]
        if chance.random() < 0.2:
            continue
        expected = slow_pairs(index)
        found = pairs(index)
        assert list(zip(found.request.tolist(), found.authentication.tolist(), strict=True)) == expected
        other = dict(expected) | {a: r for r, a in expected}
        assert partners(index).tolist() == [other.get(slot, -1) for slot in range(index.traces)]
        above = [authenticated_above(index, slot) for slot in range(index.traces)]
        assert not np.any((np.array(above) > 0) & (found.of_requests(index.traces) >= 0))
        expected_waits = np.maximum(found.before_requests(index.traces), above).tolist()
        assert waited(index, range(index.traces)).tolist() == expected_waits


def test_after_new_spans_only_their_neighbourhood_is_paired_again(
    recorded: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    matching = pairing._matched
    monkeypatch.setattr(pairing, "_matched", lambda *columns: looked.append(len(columns[0])) or matching(*columns))
    index = Index()
    for chunk in recorded("kubeadm-node").chunks():
        index.extend([chunk])
        catch_up(index)
    assert len(pairs(index).request) > 1_200
    assert sum(looked) < 10 * len(lone_authentications(index))


# --- recordings -----------------------------------------------------------------------------------
def known(index: Index) -> tuple[Array, Array]:
    """(authentication, request): rows of the pairs whose relation is recorded."""
    rows = np.flatnonzero(index.name == index.names.index("authentication"))
    at = {(int(index.slot[row]), int(index.span[row])): int(row) for row in rows}
    above = [
        (at[key], int(head))
        for slot, head in enumerate(index.head_row)
        if (key := (slot, int(index.parent[head]))) in at and index.head_rank[slot] == 2
    ]
    return np.array([a for a, _ in above]), np.array([r for _, r in above])


def matched(index: Index, a: Array, r: Array) -> Array:
    start, end = index.start.astype(np.int64), index.end.astype(np.int64)
    return match(index.resource[a], start[a], end[a], index.resource[r], start[r], end[r])


@pytest.mark.parametrize("name", ["cluster-rate-full", "incident", "kubeadm-node"])
def test_pairs_that_are_known(recorded: Recordings, name: str) -> None:
    index = recorded(name).index
    a, r = known(index)
    found = matched(index, a, r)
    assert not ((found >= 0) & (found != np.arange(len(a)))).any()
    assert np.count_nonzero(found >= 0) >= 0.98 * len(a)


@pytest.mark.parametrize("rate", [0.9, 0.5, 0.1])
def test_pairs_of_traces_that_were_sampled(recorded: Recordings, rate: float) -> None:
    """Each half is sampled by itself: then the other half is often not here, and a stranger may fit as well."""
    index = recorded("cluster-rate-full").index
    a, r = known(index)
    paired = wrong = right = both = 0
    for seed in range(8):
        chance = np.random.default_rng(seed)
        kept_a, kept_r = np.flatnonzero(chance.random(len(a)) < rate), np.flatnonzero(chance.random(len(a)) < rate)
        found = matched(index, a[kept_a], r[kept_r])
        hit = (found >= 0) & (kept_r[found] == kept_a)
        paired += np.count_nonzero(found >= 0)
        wrong += np.count_nonzero((found >= 0) & ~hit)
        right += np.count_nonzero(hit)
        both += np.count_nonzero(np.isin(kept_a, kept_r))
    assert wrong <= 0.0003 * paired
    assert right >= 0.85 * both


def test_the_link_taken_away_is_found_again(recorded: Recordings) -> None:
    """As an API server would have sent them to callers without rights: every `authentication` that is a parent becomes
    a trace of its own, among the hundreds that are so already. Pairing gives back exactly what was taken."""
    recording = recorded("cluster-rate-full")
    before = recording.index
    a, r = known(before)
    assert len(a) > 4_000
    request_of = dict(zip(before.span[a].tolist(), (before.trace_id(slot) for slot in before.slot[r]), strict=True))
    index = Index()
    for chunk in recording.chunks():
        rows = chunk.spans.copy()
        mine = np.isin(rows["span"], before.span[a])
        rows["parent"][np.isin(rows["parent"], rows["span"][mine]) | np.isin(rows["span"], before.span[r])] = 0
        rows["trace_hi"][mine], rows["trace_lo"][mine] = 1, rows["span"][mine]
        index.extend([replace(chunk, spans=rows)])
    found = pairs(index)
    partner = dict(zip(found.authentication.tolist(), found.request.tolist(), strict=True))
    right = wrong = 0
    for span, trace_id in request_of.items():
        slot = index.slot_of(f"{1:016x}{span:016x}")
        assert slot is not None
        if slot in partner:
            right += index.trace_id(partner[slot]) == trace_id
            wrong += index.trace_id(partner[slot]) != trace_id
    assert wrong == 0
    assert right >= 0.98 * len(request_of)
    strangers = [slot for slot in partner if index.id_hi[slot] != 1]  # lone already: their request is none of those
    taken_away = set(request_of.values())
    assert len(strangers) > 500
    assert not any(index.trace_id(partner[slot]) in taken_away for slot in strangers)


# --- made up, with what was measured --------------------------------------------------------------
def made(seed: int, rate: float, count: int, slow: float = 0.0) -> tuple[Array, Array, Array, Array, Array]:
    """(instance, start and end of the authentication, start and end of the request) of so many requests a second to two
    API servers, with distances as they were measured; `slow` of them wait up to 2 s for a token webhook."""
    chance = np.random.default_rng(seed)
    instance = chance.integers(0, 2, count)
    start = np.sort(chance.random(count) * count / rate * 1e9).astype(np.int64) + shapes.T0
    before = chance.lognormal(np.log(140_000), 0.55, count).astype(np.int64) + 20_000
    late = chance.random(count) < slow
    before[late] += (chance.random(np.count_nonzero(late)) * 2e9).astype(np.int64)
    length = chance.lognormal(np.log(2e6), 1.2, count).astype(np.int64) + 100_000
    after = chance.lognormal(np.log(10_000), 0.9, count).astype(np.int64)
    return instance, start, start + before + length + after, start + before, start + before + length


@pytest.mark.parametrize(("rate", "least"), [(20, 0.99), (200, 0.99), (1_000, 0.97), (4_000, 0.92)])
def test_requests_that_run_side_by_side(rate: float, least: float) -> None:
    """What cannot be told apart stays unpaired: few are wrong even at 4,000 requests a second, where 20 run side by
    side."""
    for slow in (0.0, 0.02):
        instance, a_start, a_end, r_start, r_end = made(int(rate), rate, 6_000, slow)
        found = match(instance, a_start, a_end, instance, r_start, r_end)
        wrong = np.count_nonzero((found >= 0) & (found != np.arange(len(found))))
        assert wrong <= (0 if rate <= 1_000 else 3)
        assert np.count_nonzero(found >= 0) >= least * len(found)


@pytest.mark.parametrize(("rate", "least"), [(5, 0.98), (75, 0.95), (200, 0.9)])
def test_a_token_webhook_that_is_slow_for_everybody(rate: float, least: float) -> None:
    """All requests begin 1.5 to 2.5 s after their authentication: the ends alone tell who belongs to whom."""
    for seed in range(5):
        instance, a_start, a_end, r_start, r_end = made(seed, rate, 150)
        late = (1.5e9 + np.random.default_rng(seed).random(150) * 1e9).astype(np.int64)
        found = match(instance, a_start, a_end + late, instance, r_start + late, r_end + late)
        assert not ((found >= 0) & (found != np.arange(150))).any()
        assert np.count_nonzero(found >= 0) >= least * 150


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 60), st.integers(0, 60)), max_size=30), st.integers(1, 40))
@settings(deadline=None, max_examples=200)
def test_a_pair_is_one_of_one_instance_and_the_first_spans_the_second(
    drawn: list[tuple[int, int, int]], unit: int
) -> None:
    """Whatever the times: nobody is in two pairs, both are of one API server, the authentication begins first and ends
    last."""
    times = np.array([(i, at * unit * 10_000, ms * unit * 10_000) for i, at, ms in drawn], np.int64).reshape(-1, 3)
    half = len(times) // 2
    a, r = times[:half], times[half:]
    start_a, start_r = a[:, 1] + shapes.T0, r[:, 1] + shapes.T0
    found = match(a[:, 0], start_a, start_a + a[:, 2], r[:, 0], start_r, start_r + r[:, 2])
    paired = np.flatnonzero(found >= 0)
    other = found[paired]
    assert len(set(other.tolist())) == len(other)
    assert (a[paired, 0] == r[other, 0]).all()
    assert (start_a[paired] <= start_r[other]).all()
    assert (start_a[paired] + a[paired, 2] >= start_r[other] + r[other, 2]).all()


def test_the_lone_ones_of_a_kubeadm_node(recorded: Recordings) -> None:
    index = recorded("kubeadm-node").index
    found = pairs(index)
    lone = lone_authentications(index)
    assert len(lone) == 1325
    assert len(found.authentication) >= 0.95 * len(lone)
    assert len(set(found.request.tolist())) == len(found.request)
    assert len(set(found.authentication.tolist())) == len(found.authentication)
