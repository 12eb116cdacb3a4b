"""How many requests gRPC has at once, and whose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.ingest import streams
from receiver.ingest.streams import CONNECTIONS, Claim, StreamShares, TokenBucket


def test_who_is_alone_leaves_a_share_for_the_next() -> None:
    shares = StreamShares(16, 40)
    first, second = Claim("uid 1"), Claim("uid 2")
    assert sum(shares.take(first) for _ in range(20)) == 8
    assert sum(shares.take(second) for _ in range(20)) == 5
    assert shares.held() == {"uid 1": 8, "uid 2": 5}
    assert shares.next() is None
    for _ in range(3):
        shares.give_back(first)
    assert shares.next() is None, "it holds its share still"
    shares.give_back(first)
    assert shares.next() is first
    assert shares.take(first), "the one that was handed out"
    assert shares.held()["uid 1"] == 5


def test_of_one_sender_who_holds_nothing_goes_first() -> None:
    shares = StreamShares(16, 200)
    greedy, others = Claim("uid 0"), [Claim("uid 0") for _ in range(CONNECTIONS + 4)]
    while shares.take(greedy):
        pass
    taken = [shares.take(one) for one in others]
    assert taken == [True] * (CONNECTIONS - 1) + [False] * 5
    while shares.held()["uid 0"] > 8:
        shares.give_back(greedy if greedy.held > 1 else next(one for one in others if one.held))
    shares.give_back(greedy)
    assert shares.next() in others[CONNECTIONS - 1 :], "although it asked first"


def test_who_is_gone_is_not_waited_for() -> None:
    shares = StreamShares(4, 8)
    gone, stays = Claim("a"), Claim("a")
    while shares.take(gone):
        pass
    while shares.take(stays):
        pass
    shares.leave(gone)
    for _ in range(gone.held):
        shares.give_back(gone)
    assert shares.next() is stays
    shares.leave(stays)
    for _ in range(stays.held):
        shares.give_back(stays)
    assert (shares.used, shares.held(), shares._senders) == (0, {}, {})


@settings(deadline=None)
@given(st.data())
def test_places_add_up_and_nobody_below_its_share_waits(data: Any) -> None:
    shares = StreamShares(12, 30)
    claims = [Claim(f"uid {number % 4}") for number in range(10)]
    waiting: list[Claim] = []
    for _ in range(data.draw(st.integers(0, 80))):
        claim = data.draw(st.sampled_from(claims))
        if data.draw(st.booleans()):
            if claim not in waiting and not shares.take(claim):
                waiting.append(claim)
        elif claim.held:
            shares.give_back(claim)
            while (next_one := shares.next()) is not None:
                assert next_one in waiting
                waiting.remove(next_one)
                assert shares.take(next_one)
        assert shares.used == sum(one.held for one in claims) == sum(shares.held().values()) <= 30
        for one in waiting:
            assert shares.used == 30 or shares.held().get(one.sender, 0) >= 12 // 5
    for claim in claims:
        shares.leave(claim)
        while claim.held:
            shares.give_back(claim)
    assert (shares.used, shares._senders) == (0, {})


def test_a_bucket_says_how_long_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    clock: Callable[[], float] = lambda: now[0]  # noqa: E731
    monkeypatch.setattr(streams.time, "monotonic", clock)
    bucket = TokenBucket(10, 20)
    assert bucket.spend(20) == 0
    assert bucket.spend(5) == pytest.approx(0.5)
    assert not bucket.full
    now[0] += 0.5
    assert bucket.spend(0) == 0
    now[0] += 1_000
    assert bucket.full
    assert bucket.spend(21) == pytest.approx(0.1), "no more than these are saved up"
