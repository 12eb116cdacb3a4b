"""What a sampling rate will cost: spans per second, from what arrives at the rate of now."""

from __future__ import annotations

from typing import Final

from tui.clusters import rates
from tui.clusters.model import Mode, State

CEILING: Final = 512
"""Spans that an exporter sends at once; its queue of 2,048 drops without a word what comes faster than they are taken
(BatchSpanProcessor's defaults in every release)."""


def expected_load(state: State | None, per_second: float | None, per_million: int | None) -> str:
    """One sentence on the spans per second of a component at another rate; "" where it will trace nothing by itself.

    Args:
        state: of the component now.
        per_second: spans that really arrive from it now, None for unknown.
        per_million: the rate that it shall have; None for off.
    """
    if not per_million:
        return ""
    text = rates.text(per_million)
    if state is None or state.mode is not Mode.SAMPLING or not state.per_million or not per_second:
        return (
            f"Expected load at {text}: 10 to 12 spans of about 1 KB for each request that is sampled; how many requests"
            " there are is not known here while none of them is."
        )
    expected = per_second * per_million / state.per_million
    sentence = f"Expected load at {text}: about {expected:,.0f} spans/s, from {per_second:,.1f} spans/s at now"
    sentence += f" {rates.text(state.per_million)}."
    if expected >= CEILING:
        sentence += (
            f" That is above {CEILING} spans a second, where a slow receiver makes the exporter drop spans without a"
            " word: its queue holds 2,048."
        )
    return sentence
