"""Lone `authentication` traces find their request, and where all traces are kept never another one.

The truth is known where the authentication is the parent of its request: the tests take that link away.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from receiver.store import files
from receiver.store.index import Index
from receiver.traces.pairing import lone_authentications, match, paired_with, pairs
from tests.receiver.traces import shapes
from tests.receiver.traces.shapes import FILTER, HTTP, SERVER, Recorder, index_of

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
def test_pairs_that_are_known(recordings: Path, name: str) -> None:
    index = index_of(files.read(recordings / f"{name}.otlp.jsonl.gz", pytest.fail))
    a, r = known(index)
    found = matched(index, a, r)
    assert not ((found >= 0) & (found != np.arange(len(a)))).any()
    assert np.count_nonzero(found >= 0) >= 0.98 * len(a)
    chance = np.random.default_rng(1)
    for rate in (0.9, 0.5):  # each half is sampled by itself
        kept_a, kept_r = np.flatnonzero(chance.random(len(a)) < rate), np.flatnonzero(chance.random(len(a)) < rate)
        found = matched(index, a[kept_a], r[kept_r])
        right = kept_r[found] == kept_a
        wrong = np.count_nonzero((found >= 0) & ~right)
        assert wrong <= max(1, 0.003 * len(kept_a))  # the other half was sampled away, a stranger fits as well
        both = np.count_nonzero(np.isin(kept_a, kept_r))
        assert np.count_nonzero(found >= 0) >= 0.85 * both


def test_the_lone_ones_of_a_kubeadm_node(recordings: Path) -> None:
    index = index_of(files.read(recordings / "kubeadm-node.otlp.jsonl.gz", pytest.fail))
    found = pairs(index)
    lone = lone_authentications(index)
    assert len(lone) == 1325
    assert len(found.authentication) >= 0.95 * len(lone)
    assert len(set(found.request.tolist())) == len(found.request)
    assert len(set(found.authentication.tolist())) == len(found.authentication)
