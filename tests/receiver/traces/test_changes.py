"""Two recordings beside one another: the test of Mann and Whitney by counting pairs, and what is called a change."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.store.index import Index
from receiver.traces.changes import ALPHA, Change, Outcome, changes, holm, mann_whitney
from receiver.traces.query import Query
from tests.receiver.traces.conftest import Recordings
from tests.receiver.traces.shapes import CLIENT, GRPC, HTTP, MS, SERVER, Recorder

SAMPLES = st.lists(st.integers(0, 6) | st.integers(0, 1 << 60), max_size=25)


@given(SAMPLES, SAMPLES)
def test_it_counts_pairs(one: list[int], other: list[int]) -> None:
    p, tendency = mann_whitney(np.array(one, np.int64), np.array(other, np.int64))
    assert 0 <= p <= 1
    both = [*one, *other]
    if not one or not other or len(set(both)) < 2:
        assert (p, tendency) == (1, 0.5)
        return
    u = sum((b > a) + 0.5 * (b == a) for a in one for b in other)
    assert tendency == pytest.approx(u / (len(one) * len(other)))
    ties = sum(count**3 - count for count in map(both.count, set(both)))
    total = len(both)
    variance = len(one) * len(other) / 12 * (total + 1 - ties / (total * (total - 1)))
    z = max(0.0, abs(u - len(one) * len(other) / 2) - 0.5) / math.sqrt(variance)
    assert p == pytest.approx(math.erfc(z / math.sqrt(2)))
    back, mirrored = mann_whitney(np.array(other, np.int64), np.array(one, np.int64))
    assert (back, mirrored) == (pytest.approx(p), pytest.approx(1 - tendency))


def test_it_is_near_the_exact_distribution() -> None:
    """Against all ways to draw 5 of 11, which is what p means; the approximation is used from 8 and 8 on."""
    values = np.array([3, 8, 11, 12, 17, 20, 21, 25, 30, 31, 40])
    chosen = (5, 7, 8, 9, 10)

    def u_of(places: tuple[int, ...]) -> float:
        one, other = values[list(places)], np.delete(values, places)
        return float(sum(a > b for a in one for b in other))

    middle = 15.0
    extreme = abs(u_of(chosen) - middle)
    all_ways = [abs(u_of(places) - middle) >= extreme for places in itertools.combinations(range(11), 5)]
    exact = sum(all_ways) / len(all_ways)
    p, _ = mann_whitney(np.delete(values, chosen), values[list(chosen)])
    assert p == pytest.approx(exact, abs=0.01)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_the_correction(ps: list[float]) -> None:
    corrected = holm(ps)
    assert all(p <= found <= 1 for p, found in zip(ps, corrected, strict=True))
    assert all(found <= min(1, p * len(ps)) for p, found in zip(ps, corrected, strict=True))
    ordered = [found for _, found in sorted(zip(ps, corrected, strict=True))]
    assert ordered == sorted(ordered)
    if ps:
        assert min(corrected) == min(1, min(ps) * len(ps))


def recording(chance: random.Random, *shapes: tuple[str, str, int, float, float]) -> Index:
    """Requests: (method, target, how many, median ms, ms in etcd of them)."""
    rec = Recorder()
    for number, (method, target, count, ms, etcd) in enumerate(shapes):
        for each in range(count):
            trace = f"{number} {each}"
            took = ms * math.exp(chance.gauss(0, 0.3))
            values = {"http.target": target, "http.request.method": method, "http.response.status_code": 200}
            server = rec.span(f"{method} x", SERVER, trace=trace, scope=HTTP, ms=took, values=values)
            if etcd:
                rec.span("etcdserverpb.KV/Txn", CLIENT, server, trace=trace, scope=GRPC, ms=took * etcd / ms)
    return rec.index()


PODS, NODES, WATCH = "/api/v1/namespaces/a/pods", "/api/v1/nodes", "/api/v1/pods?watch=true"
SHOP = "/apis/apps/v1/namespaces/a/deployments/shop"


def outcomes(found: list[Change]) -> dict[tuple[str, str], Outcome]:
    return {(change.verb, change.resource): change.outcome for change in found}


def test_what_became_slower_and_what_did_not() -> None:
    chance = random.Random(5)
    before = recording(
        chance, ("POST", PODS, 60, 20, 2), ("GET", NODES, 60, 10, 1), ("PUT", SHOP, 60, 40, 30),
        ("GET", WATCH, 20, 9, 0), ("GET", SHOP, 7, 5, 0), ("DELETE", SHOP, 10, 5, 0), ("PATCH", SHOP, 400, 1, 0),
    )  # fmt: skip
    after = recording(
        chance, ("POST", PODS, 60, 40, 22), ("GET", NODES, 60, 10, 1), ("PUT", SHOP, 60, 20, 10),
        ("GET", WATCH, 20, 900, 0), ("GET", SHOP, 90, 500, 0), ("POST", SHOP, 10, 5, 0), ("PATCH", SHOP, 400, 1.3, 0),
    )  # fmt: skip
    found = changes(before, after, Query())
    assert outcomes(found) == {
        ("create", "pods"): Outcome.SLOWER,
        ("update", "deployments"): Outcome.FASTER,
        ("list", "nodes"): Outcome.SAME,
        ("patch", "deployments"): Outcome.SAME,  # surely slower, but by 0.3 ms
        ("get", "deployments"): Outcome.FEW,
        ("delete", "deployments"): Outcome.GONE,
        ("create", "deployments"): Outcome.NEW,
    }
    patch = next(change for change in found if change.verb == "patch")
    assert patch.p < ALPHA
    slower, faster = found[:2]
    assert (slower.because, faster.because) == ("etcd", "etcd")
    assert slower.delta > 10 * MS
    assert slower.tendency > 0.8 > 0.2 > faster.tendency
    assert (slower.before.count, slower.after.count) == (60, 60)
    assert set(outcomes(changes(before, after, Query.parse("verb=create")))) == {
        ("create", "pods"),
        ("create", "deployments"),
    }


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 10_000))
def test_noise_is_no_change(seed: int) -> None:
    """Ten shapes of the same distribution, every time."""
    chance = random.Random(seed)
    made = [("GET", f"/apis/g{number}/v1/things", 30, 5.0, 0.0) for number in range(10)]
    found = changes(recording(chance, *made), recording(chance, *made), Query())
    assert len(found) == 10
    assert sum(change.outcome is not Outcome.SAME for change in found) <= 1


def test_recordings(recorded: Recordings) -> None:
    """A recording is like itself; of another one the creation of pods is slower by its webhooks."""
    one, other = recorded("cluster-rate-full").index, recorded("incident").index
    same = changes(other, other, Query())
    assert {change.outcome for change in same} == {Outcome.SAME, Outcome.FEW}
    found = [change for change in changes(one, other, Query()) if change.outcome is Outcome.SLOWER]
    assert [(change.verb, change.resource, change.because) for change in found] == [("create", "pods", "admission")]


def test_nothing() -> None:
    empty: Any = Index()
    assert changes(empty, empty, Query()) == []
