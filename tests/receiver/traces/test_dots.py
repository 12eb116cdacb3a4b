"""Latency over time: each dot against a plain count, and what is chosen."""

from __future__ import annotations

import math
import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.store.index import Index
from receiver.traces.dots import ACROSS, DOWN, chosen, dots
from receiver.traces.query import Query, View, select
from receiver.traces.reader import summaries
from tests.receiver.traces.shapes import HTTP, MS, SERVER, T0, Recorder

SECOND = 1_000_000_000
LATER = T0 + 100 * SECOND


def sample(chance: random.Random, count: int) -> Index:
    rec = Recorder()
    for number in range(count):
        values = {
            "http.request.method": "GET", "http.response.status_code": chance.choice((200, 500)),
            "http.target": "/api/v1/pods" + chance.choice(("", "", "?watch=true")),
        }  # fmt: skip
        at, ms = chance.randrange(60_000), 10 ** chance.uniform(-3, 4)
        rec.span("GET", SERVER, trace=f"{number}", scope=HTTP, at=at, ms=ms, values=values)
    return rec.index(received=LATER)


@given(st.randoms(use_true_random=False), st.integers(1, 30), st.integers(1, 9), st.booleans())
@settings(deadline=None, max_examples=60)
def test_each_dot(chance: random.Random, width: int, height: int, scaled: bool) -> None:
    index = sample(chance, chance.randrange(30))
    start, end = T0 + chance.randrange(0, 20) * SECOND, T0 + chance.randrange(30, 70) * SECOND
    slots = np.array(sorted(chance.sample(range(index.traces), chance.randrange(index.traces + 1))), np.int64)
    picture = dots(index, slots, width, height, start, end, (MS, 1000 * MS) if scaled else None)
    assert picture.counts.shape == picture.errors.shape == (height * DOWN, width * ACROSS)
    counts, errors = np.zeros_like(picture.counts), np.zeros_like(picture.errors)
    step = -(-(end - start) // (width * ACROSS))
    by_cell: dict[int, list[int]] = {}
    for slot, row in zip(slots.tolist(), summaries(index, slots, LATER), strict=True):
        request = row.request
        assert request is not None
        if request.verb == "watch" or not start <= row.start < end:
            continue
        part = (math.log(picture.high) - math.log(max(1, row.duration_ns))) / math.log(picture.high / picture.low)
        at = min(max(int(part * height * DOWN), 0), height * DOWN - 1), (row.start - start) // step
        counts[at] += 1
        errors[at] += request.code == 500
        by_cell.setdefault((row.start - start) // step // ACROSS, []).append(slot)
    # a duration on the very edge of a dot may fall on either side
    assert int(np.abs(counts - picture.counts).sum()) <= 2
    assert int(np.abs(errors - picture.errors).sum()) <= 2
    assert picture.cells().sum() == counts.sum()
    assert picture.error_cells().sum() == errors.sum()
    lines = picture.braille()
    assert [len(line) for line in lines] == [width] * height
    lit = sum(bin(ord(cell) - 0x2800).count("1") for line in lines for cell in line)
    assert lit == np.count_nonzero(picture.counts)
    first, last = sorted((chance.randrange(width), chance.randrange(width)))
    found = chosen(index, slots, picture, last, first, LATER)
    expected = [slot for cell in range(first, last + 1) for slot in by_cell.get(cell, [])]
    assert sorted(found.slots.tolist()) == sorted(expected)
    assert found.start == picture.time_at(first)
    assert found.window_ns == LATER - found.start


def test_braille_has_its_dots_where_they_are() -> None:
    rec = Recorder()
    for number, (at, ms) in enumerate(((0, 900), (900, 0.012))):
        values = {"http.request.method": "GET", "http.target": "/api/v1/pods"}
        rec.span("GET", SERVER, trace=f"{number}", scope=HTTP, at=at, ms=ms, values=values)
    index = rec.index(received=LATER)
    picture = dots(index, np.arange(2), 2, 1, T0, T0 + SECOND, None)
    assert (picture.low, picture.high) == (10_000, SECOND)
    assert picture.braille() == ["\u2801\u2880"]  # the long one left on top, the short one right at the bottom
    assert [picture.duration_at(edge) for edge in (0, 1)] == [SECOND, 10_000]
    assert [picture.time_at(cell) - T0 for cell in range(3)] == [0, SECOND // 2, SECOND]


def test_a_choice_is_a_window_of_the_list() -> None:
    """The window begins where the choice does, so that it holds what was chosen."""
    index = sample(random.Random(2), 60)
    slots = np.arange(index.traces)
    picture = dots(index, slots, 20, 5, T0, T0 + 60 * SECOND)
    found = chosen(index, slots, picture, 3, 19, LATER)
    view = View(Query.parse(found.filter), found.window_ns, False, False, "start", False)
    assert set(found.slots.tolist()) <= set(select(index, view, LATER).slots.tolist())
    assert found.filter == ""


def test_nothing_to_show() -> None:
    picture = dots(Index(), np.zeros(0, np.int64), 4, 2, T0, T0, None)
    assert picture.braille() == ["\u2800" * 4] * 2
    assert chosen(Index(), np.zeros(0, np.int64), picture, 0, 9, LATER).slots.tolist() == []
