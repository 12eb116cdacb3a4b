"""The column of durations says what the phases sum to, however the spans arrive, and costs next to nothing."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from receiver.store.chunk import APISERVER, FACT, FLAG_REQUEST, SPAN, Chunk, Resource
from receiver.store.index import Index
from receiver.traces import durations as module
from receiver.traces.durations import BIG, catch_up, durations_of
from receiver.traces.phases import breakdown
from receiver.traces.reader import summaries
from tests.receiver.traces import shapes
from tests.receiver.traces.conftest import Recordings
from tests.receiver.traces.shapes import MS, T0, Recorder
from tests.receiver.traces.test_phases import NAMES, RECORDINGS, SPANS

Drawn = tuple[int, int, int, int, int, int, int, bool]
LATE: tuple[Drawn, ...] = (  # trace, parent, start, end, name, kind, component, request
    (0, 0, 5, 9, 0, 2, APISERVER, True),  # a headline that ends early, and what may be below it
    (0, 1, 4, 8, NAMES.index("authentication"), 1, APISERVER, False),
    (0, 2, 8, 20, NAMES.index("Create"), 1, APISERVER, False),
    (0, 1, 9, 30, NAMES.index("Get"), 1, APISERVER, False),
)


def chunk_of(number: int, drawn: list[tuple[int, Drawn]]) -> Chunk:
    rows = np.zeros(len(drawn), SPAN)
    for at, (place, (trace, parent, start, end, name, kind, component, request)) in enumerate(drawn):
        rows[at] = (
            0, trace + 1, place + 1, parent if parent <= place else 99, T0 + start if start else 0, T0 + end, name + 1,
            0, 2 if request else kind, APISERVER | FLAG_REQUEST if request else component,
        )  # fmt: skip
    return Chunk(number, "s", "", T0, ["", *NAMES], [Resource("apiserver", "a")], rows, np.zeros(0, FACT), b"")


SET_BACK: list[Drawn] = [
    (0, 0, 0, 0, 0, 0, 0, False), (0, 0, 21, 0, 0, 0, 0, True), (0, 2, 8, 20, 6, 1, 1, False),
]  # fmt: skip
"""A headline that ends before it starts, and work that ends between the two."""


@example(SET_BACK, random.Random(0))
@given(st.lists(SPANS | st.sampled_from(LATE), min_size=1, max_size=15), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=400)
def test_it_is_the_sum_of_the_phases_at_every_moment(drawn: list[Drawn], chance: random.Random) -> None:
    waiting = list(enumerate(drawn))
    chance.shuffle(waiting)
    index, number = Index(), 0
    while waiting:
        size, number = chance.randrange(1, 4), number + 1
        index.extend([chunk_of(number, waiting[:size])])
        del waiting[:size]
        if chance.random() < 0.3:
            catch_up(index)
            continue
        everything = range(index.traces)
        expected = breakdown(index, everything).duration.tolist()
        assert durations_of(index).tolist() == expected
        assert durations_of(index, [0]).tolist() == expected[:1]
        assert [row.duration_ns for row in summaries(index, everything, T0)] == expected


@pytest.mark.parametrize(
    ("record", "ms"),
    [
        (shapes.release_1_22, 20),
        (shapes.release_1_26, 20),
        (shapes.release_1_33, 17.6),
        (partial(shapes.release_1_34, privileged=True), 20),
    ],
)
def test_every_release(record: Any, ms: float) -> None:
    rec = Recorder()
    record(rec)
    index = rec.index()
    slot = index.slot_of(rec.trace_id())
    assert slot is not None
    assert durations_of(index)[slot] == ms * MS


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recording(recorded: Recordings, name: str) -> None:
    index = recorded(name).read_again()
    assert (durations_of(index) == breakdown(index, range(index.traces)).duration).all()


def endless(count: int, number: int, first: int) -> Chunk:
    """Spans of one trace whose headline has ended early."""
    rows = np.zeros(count, SPAN)
    rows["trace_lo"], rows["span"], rows["parent"] = 1, np.arange(first, first + count), 1
    rows["start"], rows["end"] = T0 + np.arange(first, first + count), T0 + np.arange(first, first + count) + 1
    rows["name"], rows["kind_status"], rows["flags"] = 1, 1, APISERVER
    if first == 1:
        rows["parent"][0], rows["kind_status"][0], rows["flags"][0] = 0, 2, APISERVER | FLAG_REQUEST
    return Chunk(number, "s", "", T0, ["", "Get"], [Resource("apiserver", "a")], rows, np.zeros(0, FACT), b"")


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many traces were walked, time by time."""
    found: list[int] = []
    walk = module._Column._last

    def counted(column: Any, index: Index, slots: Any, head_end: Any) -> Any:
        found.append(len(slots))
        return walk(column, index, slots, head_end)

    monkeypatch.setattr(module._Column, "_last", counted)
    return found


def test_a_trace_id_that_is_reused_for_hours_is_not_walked_each_time(walks: list[int]) -> None:
    index = Index()
    for number in range(200):
        index.extend([endless(500, number + 1, 1 + 500 * number)])
        catch_up(index)
    assert sum(walks) < BIG // 500 + 20
    assert durations_of(index)[0] > 0.75 * 100_000


def test_traces_in_good_health_are_not_walked(recorded: Recordings, walks: list[int]) -> None:
    """1.36 ends no headline early: some requests let the API server go on a little after their answer, that is all."""
    index = recorded("cluster-rate-full").read_again()
    assert (durations_of(index) == index.head_duration).all()
    assert sum(walks) < 0.01 * index.traces
