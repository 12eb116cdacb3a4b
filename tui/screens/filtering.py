"""Writing a filter behind `/`: on every screen that shows what the filter chooses, with the same words below it."""

from __future__ import annotations

from typing import Final

from receiver.traces.filter.complete import Completion, Offer
from receiver.traces.query import FIELDS, Query, QueryError
from tui.commands import CommandError
from tui.latest import Latest
from tui.screens.frame import FrameScreen
from tui.terminal_text import count

NO_COMPLETION: Final = Completion((0, 0))
_OFFERED: Final = 8
"""Completions with their counts that are shown below what is written."""
_GRAMMAR: Final = (
    "words, field=a,b != > < =~ !~, duration>100ms etcd>50ms, || ! ( ), any(span=x errors>0), any attribute; "
    "Tab completes"
)


class FilteringScreen(FrameScreen):
    """A screen with `/`. The filter is the list's, whichever screen it is written on."""

    def __init__(self) -> None:
        super().__init__()
        self._filter_before = ""
        self._offers: tuple[str, Completion] = ("", NO_COMPLETION)
        self._completions = Latest["tuple[str, Completion]"](self, "completion", self._completed, self._not_completed)

    def action_filter(self) -> None:
        """Write a filter."""
        self._filter_before = self.trace_app.requests.filter_text
        self.feed.expect_filter()
        self.open_prompt("/", self._filter_before, self._complete_filter)
        if not self._filter_before:
            self.prompt_says(_GRAMMAR)

    def filter_changed(self, text: str) -> None:
        """Show what matches so far."""
        wrong: QueryError | None = None
        try:
            query = Query.parse(text)
        except QueryError as error:
            wrong = error
        self.prompt.underline(*(wrong.at if wrong is not None else (0, 0)))
        if wrong is not None:
            self.prompt_says(_said_of(wrong), wrong=True)
        else:
            self.trace_app.requests.try_filter(text, query)
        self._completions.ask(lambda: (text, self.feed.complete(text, len(text))))

    def _completed(self, found: tuple[str, Completion]) -> None:
        """What may stand here, for Tab and for the line below."""
        text, completion = found
        if not self.prompt.is_open or self.prompt.line.value != text:
            return
        self._offers = found
        try:
            Query.parse(text)
        except QueryError as error:
            begun = text[slice(*completion.at)]
            offers = any(offer.text != begun for offer in completion.offers)
            if not offers or text[-1:].isspace() or not _unfinished(text, error):
                return  # what is wrong says more
        self.prompt_says("  ".join(_offer_text(offer) for offer in completion.offers[:_OFFERED]) or _GRAMMAR)

    def _not_completed(self, problem: str) -> None:
        """Nothing is offered."""

    def filter_submitted(self, text: str) -> None:
        """Keep it; of one that is none, nothing stays."""
        try:
            self.trace_app.requests.set_filter(text)
        except CommandError as error:
            self.filter_cancelled()
            self.trace_app.say(str(error), wrong=True)

    def filter_cancelled(self) -> None:
        """Back to what was filtered before."""
        try:
            self.trace_app.requests.set_filter(self._filter_before)
        except CommandError as error:
            self.trace_app.say(str(error), wrong=True)

    def _complete_filter(self, text: str) -> list[str]:
        """Fields, then the values that are really there, the most frequent first."""
        if self._offers[0] != text:
            return []
        start, end = self._offers[1].at
        found = (f"{offer.text}=" if offer.text in FIELDS else offer.text for offer in self._offers[1].offers)
        return [f"{text[:start]}{one}{text[end:]}" for one in found]


def _unfinished(text: str, error: QueryError) -> bool:
    """Whether what is wrong is at the end, where it is still being written, or only a parenthesis not closed so far."""
    return error.at[1] >= len(text) or text[slice(*error.at)] in ("(", "any(")


def _said_of(wrong: QueryError) -> str:
    """What is wrong, what could stand there, and what may have been meant."""
    text = str(wrong)
    if wrong.offers and not any(offer in text for offer in wrong.offers[:3]):
        text += f" ({', '.join(wrong.offers[:3])}?)"
    return text


def _offer_text(offer: Offer) -> str:
    return f"{offer.text} {count(offer.count)}" if offer.count is not None else offer.text
