"""What verdicts say about the rows on the screen, found off the event loop.

A verdict decodes bodies, so it is only asked for where it may know more than the index, for rows that stay on the
screen for two looks, and one row at a time: while thousands stream by, nothing is asked.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from textual.screen import Screen

from receiver.store.database import StoreError
from receiver.traces.listing import Row
from receiver.traces.verdict import judge
from tui.feed import Feed
from tui.latest import Latest
from tui.wording import Told, told, worth_judging

KEPT: Final = 4_096
MAX_SPANS: Final = 2_000
"""Spans of a trace from which no verdict is made for its row: building its tree would be felt on the screen."""
_PAUSE: Final = 4
"""After each verdict this many times what it took belongs to the screen: the interpreter runs one thread at a time."""

Key = tuple[int, int, int]
"""Trace id in halves and its number of spans: what a verdict depends on, but for what was waited before."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    key: Key
    row: Row


class Verdicts:
    """The verdicts of one screen's rows; the ones used last are kept."""

    def __init__(self, screen: Screen[Any], feed: Callable[[], Feed], changed: Callable[[], None]) -> None:
        """
        Args:
            screen: whose rows they are.
            feed: where traces come from.
            changed: called on the event loop when there are new ones.
        """
        self._feed, self._changed = feed, changed
        self._known: OrderedDict[Key, tuple[int, Told]] = OrderedDict()
        self._seen: frozenset[Key] = frozenset()
        self.waiting = False
        """Whether a row on the screen is without the verdict that it is worth."""
        self._latest: Latest[list[tuple[_Wanted, Told]]] = Latest(
            screen, "verdicts", self._found, lambda sentence: None
        )

    def get(self, key: Key) -> tuple[int, Told] | None:
        """(what was waited before, as the verdict knew it; what it said), None for nothing yet."""
        return self._known.get(key)

    def look(self, rows: Sequence[tuple[Key, Row]]) -> None:
        """Take up what is on the screen now; called ten times a second. Cheap when all is known."""
        before, self._seen = self._seen, frozenset(key for key, _ in rows)
        wanted = [_Wanted(key, row) for key, row in rows if self._is_wanted(key, row)]
        self.waiting = bool(wanted)
        lasting = [one for one in wanted if one.key in before]
        if lasting and not self._latest.busy:
            self._latest.ask(lambda: self._judge(lasting))

    def _is_wanted(self, key: Key, row: Row) -> bool:
        held = self._known.get(key)
        if held is not None:
            self._known.move_to_end(key)
        return (held is None or held[0] != row.waited) and worth_judging(row)

    def _judge(self, wanted: Sequence[_Wanted]) -> list[tuple[_Wanted, Told]]:
        """In a worker thread."""
        feed, found = self._feed(), []
        for one in wanted:
            if one.key not in self._seen:
                continue  # scrolled away meanwhile
            began = time.monotonic()
            found.append((one, self._one(feed, one)))
            time.sleep(_PAUSE * min(0.1, time.monotonic() - began))
        return found

    @staticmethod
    def _one(feed: Feed, wanted: _Wanted) -> Told:
        summary = wanted.row.summary
        if feed.version(summary.trace_id) > MAX_SPANS:
            return Told()
        try:
            trace = feed.trace(summary.trace_id)
            if trace is None:
                return Told()
            return told(summary, judge(trace, feed.bodies, authentication=wanted.row.waited))
        except StoreError:  # the banner says it; the row keeps what the index tells
            return Told()

    def _found(self, found: Sequence[tuple[_Wanted, Told]]) -> None:
        for wanted, said in found:
            self._known[wanted.key] = (wanted.row.waited, said)
            self._known.move_to_end(wanted.key)
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        if found:
            self._changed()
