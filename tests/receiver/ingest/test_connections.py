"""Connections: whose are ended when there are too many, and that none is ended by mistake."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.ingest.connections import (
    FEW,
    IDLE_SECONDS,
    SILENT_SECONDS,
    Connection,
    allow_files,
    files_allowed,
    to_end,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")


def test_a_few_may_be_silent_for_ever() -> None:
    few = [Connection("uid 0", f"{n}", since=0.0) for n in range(FEW)]
    assert to_end(few, 100, now=1e6) == []


def test_beyond_a_few_what_does_nothing_is_ended() -> None:
    now = 1_000.0
    silent = [Connection("uid 0", f"silent {n}", since=now - SILENT_SECONDS - 1) for n in range(FEW)]
    new = [Connection("uid 0", f"new {n}", since=now - 1) for n in range(3)]
    calls = [Connection("uid 0", f"calls {n}", since=0.0, called=now - IDLE_SECONDS + 5) for n in range(3)]
    rests = [Connection("uid 0", "rests", since=0.0, called=now - IDLE_SECONDS - 5)]
    busy = [Connection("uid 0", "busy", since=0.0, called=now - IDLE_SECONDS - 5, busy=True)]
    gone = {one.peer for one in to_end(silent + new + calls + rests + busy, 100, now)}
    assert len(gone) == 8
    assert gone <= {one.peer for one in silent}


def test_too_many_are_taken_from_who_has_most() -> None:
    many = [Connection("uid 1001", f"{n}", since=99.0, busy=True) for n in range(200)]
    few = [Connection("uid 0", f"few {n}", since=0.0, called=99.0) for n in range(10)]
    gone = Counter(one.sender for one in to_end(many + few, 50, now=100.0))
    assert gone == {"uid 1001": 160}


@given(
    st.lists(
        st.builds(
            Connection,
            sender=st.sampled_from(["a", "b", "c"]),
            peer=st.text(max_size=3),
            since=st.floats(0, 100),
            called=st.sampled_from([0.0, 50.0, 99.0]),
            busy=st.booleans(),
        ),
        max_size=80,
    ),
    st.integers(1, 40),
)
def test_never_more_are_left_and_never_below_an_equal_share(connections: list[Connection], most: int) -> None:
    gone = to_end(connections, most, now=100.0)
    assert len(set(map(id, gone))) == len(gone)
    before, ended = Counter(one.sender for one in connections), Counter(one.sender for one in gone)
    left = before - ended
    assert sum(left.values()) <= most
    for sender, had in before.items():
        assert left[sender] >= min(had, FEW, most // len(before)) or not ended[sender]


@linux
def test_files_are_allowed_as_far_as_they_may() -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert files_allowed() == 256
        allow_files(300)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(300, hard), hard)
        allow_files(10)
        assert files_allowed() == min(300, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
