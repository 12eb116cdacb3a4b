"""Shares of what is bounded, divided between senders and within a sender between its services.

Who asks first gets all of it as long as nobody else asks. When there is nothing left, whoever holds less than an equal
share goes first: it waits for the next piece that comes back, or where places can be cut, takes one from who holds
most. Within the queue this is start-time fair queueing (Goyal, Vin, Cheng 1996) over two levels: each sender, and of it
each service, has a time of its own that runs on by the price of what it gets, and the one whose time is earliest is
next. So no sender waits for more than one piece of each other's, whatever the pieces cost.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, TypeVar

_T = TypeVar("_T")
_CUT_SECONDS: Final = 0.1
"""Who waits looks so often whether there is somebody to cut."""
_HELD_TURNS: Final = 20.0
"""Holding a piece for a whole `turn` counts as much as so many more."""
_IDLE_KEPT: Final = 256
"""Senders, and services of each, that are remembered while they hold nothing."""


class Place:
    """What somebody holds of a `Shares`."""

    __slots__ = ("cost", "cut", "flow", "gone", "price", "since", "was_cut")

    def __init__(self, flow: _Flow, cost: int, price: int, cut: Callable[[], object] | None) -> None:
        self.flow = flow
        self.cost = cost
        self.price = price
        self.cut = cut
        self.since = 0.0
        self.gone = False  # given back, or cut
        self.was_cut = False


class _Waiter:
    __slots__ = ("granted", "place")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.granted = threading.Lock()
        self.granted.acquire()


class _Flow:
    """A service of a sender."""

    __slots__ = ("asked", "held", "line", "name", "places", "queue", "time")

    def __init__(self, name: str, line: _Line) -> None:
        self.name = name
        self.line = line
        self.held = 0
        self.asked = 0  # held or waited for
        self.time = 0.0
        self.queue: deque[_Waiter] = deque()
        self.places: OrderedDict[Place, None] = OrderedDict()


class _Line:
    """A sender."""

    __slots__ = ("asked", "flows", "held", "name", "now", "time", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.held = 0
        self.asked = 0
        self.waiting = 0
        self.time = 0.0
        self.now = 0.0  # the time of the service that was served last
        self.flows: OrderedDict[str, _Flow] = OrderedDict()


class Shares:
    """So many pieces, which senders hold for a while. For several threads."""

    def __init__(self, capacity: int, *, patient: bool = True, grace: float = 0.0, turn: float = float("inf")) -> None:
        """`patient`: who holds its share already may still wait for more; otherwise it hears at once that there is
        none. What can be cut is left alone for `grace` seconds. Where there are more senders than pieces, it goes to
        who holds none after `turn` seconds, and who held longer waits longer for the next."""
        self.capacity = capacity
        self._patient = patient
        self._grace = grace
        self._turn = turn
        self._lock = threading.Lock()
        self._lines: OrderedDict[str, _Line] = OrderedDict()
        self._used = 0
        self._waiting = 0
        self._now = 0.0

    # -- what it looks like -----------------------------------------------------------------------------
    @property
    def used(self) -> int:
        """Pieces that are held."""
        return self._used

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._waiting

    def held(self) -> dict[str, int]:
        """Pieces by sender, of those who hold any."""
        with self._lock:
            return {line.name: line.held for line in self._lines.values() if line.held}

    # -- to hold and to give back -------------------------------------------------------------------------
    def take(
        self,
        sender: str,
        service: str,
        cost: int = 1,
        *,
        price: int | None = None,
        timeout: float = 0.0,
        cut: Callable[[], object] | None = None,
        slow: float = float("inf"),
        wanted: Callable[[], bool] | None = None,
    ) -> Place | None:
        """Hold pieces, of which there must be one at least; more than there are can be held by who is alone.

        Args:
            cost: how many.
            price: what they count for when it is about who is next; None: as many.
            timeout: seconds to wait for them.
            cut: what ends the work for which they are held. Who gives it may lose them at any moment: to a sender that
                has less than its share, or when it held them for longer than `slow`, to whoever needs them.
            slow: seconds.
            wanted: looked at while it waits; it waits no longer when that is False.

        Returns:
            None when there are none for this sender now.
        """
        cuts: list[Place] = []
        with self._lock:
            flow = self._flow(sender, service)
            place = Place(flow, cost, cost if price is None else price, cut)
            if not self._waiting and self._cut_for(place, slow, cuts):
                self._grant(place)
                waiter = None
            elif timeout <= 0 or not (self._patient or self._below(flow, cost)):
                return None
            else:
                waiter = _Waiter(place)
                self._enqueue(waiter)
                self._serve()
        _end(cuts)
        if waiter is None:
            return place
        until = time.monotonic() + timeout
        while True:
            left = until - time.monotonic()
            step = left if cut is None and wanted is None else min(left, _CUT_SECONDS)
            if waiter.granted.acquire(timeout=max(0.0, step)):
                return place
            cuts = []
            if wanted is not None and not wanted():
                left = 0.0
            with self._lock:
                if waiter.granted.acquire(blocking=False):  # in this very moment
                    return place
                if left > 0:
                    self._cut_for(place, slow, cuts)
                else:
                    self._leave(waiter)
                self._serve()
            _end(cuts)
            if left <= 0:
                return None

    def give_back(self, place: Place) -> None:
        """Hold it no longer; for one that was cut, nothing."""
        with self._lock:
            if self._drop(place):
                self._serve()

    def within_share(self, sender: str, cost: int = 1) -> bool:
        """Whether so much more would not be more than this sender's share."""
        with self._lock:
            line = self._lines.get(sender)
            lines = sum(1 for one in self._lines.values() if one.held or one.waiting or one is line)
            return line is None or not line.held or line.held + cost <= self.capacity / max(1, lines)

    def cut_older(self, seconds: float) -> int:
        """Cut the places that are held for longer than this; how many."""
        late = time.monotonic() - seconds
        cuts: list[Place] = []
        with self._lock:
            for line in self._lines.values():
                for flow in line.flows.values():
                    cuts += [place for place in flow.places if place.since < late]
            for place in cuts:
                self._drop(place)
                place.was_cut = True
            if cuts:
                self._serve()
        _end(cuts)
        return len(cuts)

    # -- with the lock held ---------------------------------------------------------------------------
    def _fits(self, cost: int) -> bool:
        return not self._used or self._used + cost <= self.capacity

    def _flow(self, sender: str, service: str) -> _Flow:
        line = self._lines.get(sender)
        if line is None:
            if len(self._lines) >= _IDLE_KEPT:
                _forget_idle(self._lines, lambda one: not one.held and not one.waiting)
            line = self._lines[sender] = _Line(sender)
            line.time = self._now
        flow = line.flows.get(service)
        if flow is None:
            if len(line.flows) >= _IDLE_KEPT:
                _forget_idle(line.flows, lambda one: not one.held and not one.queue)
            flow = line.flows[service] = _Flow(service, line)
            flow.time = line.now
        return flow

    def _grant(self, place: Place) -> None:
        """Hand it out, and let the times run on."""
        flow, cost, price = place.flow, place.cost, place.price
        line = flow.line
        if not line.waiting:
            line.time = max(line.time, self._now)
        if not flow.queue:
            flow.time = max(flow.time, line.now)
        self._now, line.now = max(self._now, line.time), max(line.now, flow.time)
        line.time += price
        flow.time += price
        self._used += cost
        line.held += cost
        flow.held += cost
        line.asked += cost
        flow.asked += cost
        place.since = time.monotonic()
        if place.cut is not None:
            flow.places[place] = None

    def _drop(self, place: Place) -> bool:
        """Whether it was still held."""
        if place.gone:
            return False
        place.gone = True
        flow = place.flow
        held = place.price * _HELD_TURNS * min(1.0, (time.monotonic() - place.since) / self._turn)
        flow.time += held
        flow.line.time += held
        self._used -= place.cost
        flow.line.held -= place.cost
        flow.held -= place.cost
        flow.line.asked -= place.cost
        flow.asked -= place.cost
        flow.places.pop(place, None)
        return True

    def _enqueue(self, waiter: _Waiter) -> None:
        flow = waiter.place.flow
        if not flow.queue:
            flow.time = max(flow.time, flow.line.now)
        if not flow.line.waiting:
            flow.line.time = max(flow.line.time, self._now)
        flow.queue.append(waiter)
        flow.asked += waiter.place.cost
        flow.line.asked += waiter.place.cost
        flow.line.waiting += 1
        self._waiting += 1

    def _leave(self, waiter: _Waiter) -> None:
        flow, cost = waiter.place.flow, waiter.place.cost
        flow.queue.remove(waiter)
        flow.asked -= cost
        flow.line.asked -= cost
        flow.line.waiting -= 1
        self._waiting -= 1

    def _serve(self) -> None:
        """Whoever is next, as long as there is enough for the one who is."""
        while self._waiting:
            line = min((one for one in self._lines.values() if one.waiting), key=lambda one: one.time)
            flow = min((one for one in line.flows.values() if one.queue), key=lambda one: one.time)
            waiter = flow.queue[0]
            if not self._fits(waiter.place.cost):
                return
            self._grant(waiter.place)
            flow.queue.popleft()
            flow.asked -= waiter.place.cost
            line.asked -= waiter.place.cost
            line.waiting -= 1
            self._waiting -= 1
            waiter.granted.release()

    def _share(self, flow: _Flow) -> tuple[float, float]:
        """What a sender, and of that a service, may hold when all want more."""
        line = flow.line
        lines = sum(1 for one in self._lines.values() if one.held or one.waiting or one is line)
        flows = sum(1 for one in line.flows.values() if one.held or one.queue or one is flow)
        share = max(1.0, self.capacity / lines)
        return share, max(1.0, max(share, line.held) / flows)

    def _below(self, flow: _Flow, cost: int) -> bool:
        """Whether it has less than its share: of the whole, or of what its sender has."""
        share, inner = self._share(flow)
        line = flow.line
        return not line.asked or line.asked + cost <= share or not flow.asked or flow.asked + cost <= inner

    def _longest(self) -> _Flow | None:
        """Whose oldest place that can be cut is the oldest of all."""
        flows = [flow for line in self._lines.values() for flow in line.flows.values() if flow.places]
        return min(flows, key=lambda flow: next(iter(flow.places)).since, default=None)

    def _cut_for(self, place: Place, slow: float, cuts: list[Place]) -> bool:
        """Whether there is room, after places were cut of who has more than its share, or is slow."""
        flow, need = place.flow, place.cost
        line = flow.line
        now = time.monotonic()
        while not self._fits(need):
            if place.cut is None:
                return False
            share, inner = self._share(flow)
            victim, late = None, now - self._grace
            if not line.held or line.held + need <= share:
                most = max(self._lines.values(), key=lambda one: one.held)
                if most is not line and most.held > share:
                    victim = max(most.flows.values(), key=lambda one: one.held)
            if victim is None and (not flow.held or flow.held + need <= inner):
                most_of_ours = max(line.flows.values(), key=lambda one: one.held)
                if most_of_ours is not flow and most_of_ours.held > inner:
                    victim = most_of_ours
            if victim is None and not line.held and not flow.places:
                victim, late = self._longest(), now - self._turn
            if victim is None:
                victim, late = flow, now - slow
            gone = next(iter(victim.places), None)
            if gone is None or gone.since > late:
                return False
            self._drop(gone)
            gone.was_cut = True
            cuts.append(gone)
        return True


def _end(cuts: list[Place]) -> None:
    for place in cuts:
        assert place.cut is not None
        place.cut()


def _forget_idle(kept: OrderedDict[str, _T], idle: Callable[[_T], bool]) -> None:
    for name in [name for name, one in kept.items() if idle(one)]:
        del kept[name]
