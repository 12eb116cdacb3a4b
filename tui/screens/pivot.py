"""A choice of what a trace shares with others; the one taken becomes the filter of the list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from receiver.traces.pivots import Counted
from receiver.traces.query import MAX_QUERY
from tui.latest import Latest
from tui.screens.choice import MOST_OPTIONS, ChoiceScreen, Option
from tui.terminal_text import count, counted, printable

if TYPE_CHECKING:
    from tui.screens.frame import FrameScreen


class PivotChoice:
    """The `p` key of one screen."""

    def __init__(self, screen: FrameScreen) -> None:
        self._screen = screen
        self._counts: Latest[list[Counted]] = Latest(screen, "pivot", self._offer, self._could_not)

    @property
    def busy(self) -> bool:
        """Traces are being counted."""
        return self._counts.busy

    def ask(self, trace_id: str, webhook_call: str = "") -> None:
        """Count, then offer.

        Args:
            trace_id: of a trace that is held.
            webhook_call: id of the `Call ... webhook` span whose webhook comes first; "" for none.
        """
        feed = self._screen.feed
        self._counts.ask(lambda: feed.pivots(trace_id, webhook_call))

    def _could_not(self, sentence: str) -> None:
        self._screen.trace_app.say(sentence, wrong=True)

    def _offer(self, found: Sequence[Counted]) -> None:
        # What cannot be written into the prompt as it is can be no filter there.
        found = [one for one in found if printable(one.pivot.filter, MAX_QUERY) == one.pivot.filter][:MOST_OPTIONS]
        if not found:
            self._screen.trace_app.say("Nothing is known here that other traces could share: it is no API request.")
            return
        many = [how_many(one) for one in found]
        width = max(map(len, many))
        options = [
            Option(one.pivot.key, one.pivot.what, f"{said:{width}}  {printable(one.pivot.value)}")
            for one, said in zip(found, many, strict=True)
        ]

        def chosen(at: int | None) -> None:
            if at is not None:
                self._go(found[at])

        self._screen.app.push_screen(ChoiceScreen("Other traces with the", options), chosen)

    def _go(self, one: Counted) -> None:
        requests = self._screen.trace_app.requests
        if _hidden(one):
            requests.set_window("all")
            requests.set_errors(False)
            requests.set_noise(True)
        requests.set_filter(one.pivot.filter)


def how_many(one: Counted) -> str:
    """How many traces a pivot leads to, and how many of them the list shows as it is set."""
    if one.traces <= 1:
        return "only this one"
    if one.shown == one.traces or _hidden(one):
        return f"{counted(one.traces, 'trace')}"
    return f"{counted(one.traces, 'trace')}, {count(one.shown)} shown"


def _hidden(one: Counted) -> bool:
    """Whether window, errors only or noise would keep all others, or this very trace, from the list."""
    return one.shown <= 1 < one.traces
