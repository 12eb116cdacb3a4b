"""Shares: what one sender cannot take from another, whatever the order in which things come and go."""

from __future__ import annotations

import threading
import time
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.ingest.shares import Place, Shares, _Waiter


def test_who_is_alone_has_everything_and_hears_at_once_when_that_is_all() -> None:
    shares = Shares(4, patient=False)
    held = [shares.take("a", "") for _ in range(4)]
    assert all(held)
    assert shares.take("a", "", timeout=60) is None
    assert not shares.within_share("a")
    assert shares.within_share("b")


def test_another_sender_gets_the_next_piece_that_comes_back() -> None:
    shares = Shares(2)
    first, second = shares.take("a", ""), shares.take("a", "")
    assert first is not None
    assert second is not None
    order: list[str] = []
    threads = [Taker(shares, "a", order) for _ in range(5)]
    waits(shares, 5)
    late = Taker(shares, "b", order)
    waits(shares, 6)
    shares.give_back(first)
    late.thread.join(20)
    shares.give_back(second)
    for one in threads:
        one.thread.join(20)
    assert "b" in order[:2]
    assert shares.used == 0


def test_what_can_be_cut_goes_to_who_has_less_and_never_the_other_way() -> None:
    shares = Shares(8)
    cut: list[str] = []
    for number in range(8):
        shares.take("many", f"{number}", cut=lambda: cut.append("many"))
    for number in range(4):
        assert shares.take("few", "", cut=lambda: cut.append("few")) is not None, number
    assert cut == ["many"] * 4
    assert shares.take("few", "", cut=lambda: cut.append("few")) is None
    assert shares.take("many", "new", cut=lambda: cut.append("many")) is None
    assert shares.held() == {"many": 4, "few": 4}
    assert cut == ["many"] * 4


def test_a_service_of_the_same_sender_has_a_part_of_its_share() -> None:
    shares = Shares(8)
    cut: list[str] = []
    for _ in range(8):
        shares.take("uid 0", "stuck", cut=lambda: cut.append("stuck"))
    assert shares.take("uid 0", "apiserver", cut=lambda: cut.append("apiserver")) is not None
    assert cut == ["stuck"]


def test_however_many_services_a_sender_has_it_has_one_share() -> None:
    shares = Shares(32, patient=False)
    held = [place for number in range(10_000) if (place := shares.take("uid 1001", f"{number}")) is not None]
    assert shares.held() == {"uid 1001": 32}
    order: list[str] = []
    greedy = [Taker(shares, "uid 1001", order, f"new {number}") for number in range(8)]
    waits(shares, 8)
    good = Taker(shares, "uid 0", order)
    waits(shares, 9)
    shares.give_back(held.pop())
    good.thread.join(20)
    for place in held:
        shares.give_back(place)
    for one in greedy:
        one.thread.join(20)
    assert "uid 0" in order[:2], "eight services of the other waited before it"


class Taker:
    """Waits for a piece, writes its name down and gives it back."""

    def __init__(self, shares: Shares, sender: str, order: list[str], service: str = "") -> None:
        self.shares, self.sender, self.service, self.order = shares, sender, service, order
        self.thread = threading.Thread(target=self._take, daemon=True)
        self.thread.start()

    def _take(self) -> None:
        place = self.shares.take(self.sender, self.service, timeout=60)
        assert place is not None
        self.order.append(self.sender)
        self.shares.give_back(place)


def waits(shares: Shares, count: int) -> None:
    tick = threading.Event()
    for _ in range(2_000):
        if shares.waiting == count:
            return
        tick.wait(0.01)
    raise AssertionError(f"{shares.waiting} wait, not {count}")


# --- properties ------------------------------------------------------------------------------------
steps = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "back", "cuttable", "cut"]),
        st.integers(0, 4),
        st.integers(0, 2),
        st.integers(1, 5),
    ),
    max_size=120,
)


@settings(max_examples=200, deadline=None)
@given(capacity=st.integers(1, 12), patient=st.booleans(), does=steps)
def test_nothing_leaks_and_no_more_is_held_than_there_is(
    capacity: int, patient: bool, does: list[tuple[str, int, int, int]]
) -> None:
    shares = Shares(capacity, patient=patient)
    held: list[Place] = []
    for what, sender, service, cost in does:
        if what == "take":
            place = shares.take(f"{sender}", f"{service}", cost)
            if place is not None:
                held.append(place)
        elif what == "cuttable":
            place = shares.take(f"{sender}", f"{service}", 1, cut=lambda: None)
            if place is not None:
                held.append(place)
        elif what == "cut":
            shares.cut_older(-1.0)
        elif held:
            shares.give_back(held[cost % len(held)])
            shares.give_back(held.pop(cost % len(held)))  # twice is once
        real = [place for place in held if not place.gone]
        assert shares.used == sum(place.cost for place in real)
        assert shares.used <= capacity or len(real) == 1
        by_sender: Counter[str] = Counter()
        for place in real:
            by_sender[place.flow.line.name] += place.cost
        assert shares.held() == dict(by_sender)
    for place in held:
        shares.give_back(place)
    assert (shares.used, shares.waiting, shares.held()) == (0, 0, {})
    assert all(line.asked == 0 for line in shares._lines.values())


class Queue(Shares):
    """The same, with waiters put into the queue by hand, so that who is next can be seen without threads."""

    def ask(self, sender: str, price: int) -> Place:
        with self._lock:
            place = Place(self._flow(sender, ""), 1, price, None)
            self._enqueue(_Waiter(place))
            self._serve()
            return place


@settings(max_examples=200, deadline=None)
@given(
    slots=st.integers(1, 3),
    others=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 100)), min_size=1, max_size=60),
    price=st.integers(1, 100),
)
def test_no_sender_waits_for_more_than_one_piece_of_each_others_beyond_what_is_held(
    slots: int, others: list[tuple[int, int]], price: int
) -> None:
    queue = Queue(slots)
    asked = [queue.ask(f"other {number}", cost) for number, cost in others]
    held = [place for place in asked if place.since]
    late = queue.ask("late", price)
    between: Counter[str] = Counter()
    while not late.since:
        queue.give_back(held.pop(0))
        for place in asked:
            if place.since and not place.gone and place not in held:
                held.append(place)
                between[place.flow.line.name] += 1
    assert all(count <= 1 for count in between.values()), between


def test_a_waiter_that_gives_up_leaves_nothing_behind() -> None:
    shares = Shares(1)
    first = shares.take("a", "")
    assert first is not None
    assert shares.take("b", "", timeout=0.01) is None
    assert (shares.waiting, shares.used) == (0, 1)
    shares.give_back(first)
    assert shares.take("c", "") is not None


def test_more_senders_than_pieces_that_hold_what_they_have_do_not_keep_another_out() -> None:
    shares = Shares(8, grace=0.02, turn=0.1)
    for number in range(8):
        assert shares.take(f"holds {number}", "", cut=lambda: None) is not None
    began, waited = time.monotonic(), []
    stop = threading.Event()

    def again(name: str) -> None:
        while not stop.is_set():
            shares.take(name, "", timeout=1.0, cut=lambda: None)  # and never gives it back

    threads = [threading.Thread(target=again, args=(f"holds {number}",), daemon=True) for number in range(8)]
    for one in threads:
        one.start()
    try:
        for _ in range(10):
            before = time.monotonic()
            place = shares.take("good", "", timeout=2.0, cut=lambda: None)
            assert place is not None
            waited.append(time.monotonic() - before)
            shares.give_back(place)
    finally:
        stop.set()
    assert max(waited) < 1.0, (waited, time.monotonic() - began)
    for one in threads:
        one.join(5)


def test_a_place_is_left_alone_for_its_turn() -> None:
    shares = Shares(1, turn=0.3)
    cuts: list[int] = []
    first = shares.take("a", "", cut=lambda: cuts.append(1))
    assert first is not None
    assert shares.take("b", "", timeout=0.15, cut=lambda: None) is None
    assert not cuts
    assert shares.take("b", "", timeout=1.0, cut=lambda: None) is not None
    assert cuts == [1]
    assert first.was_cut
