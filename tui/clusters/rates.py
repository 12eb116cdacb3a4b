"""Sampling rates as people write them, and as the components want them: whole numbers per million requests."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from tui.clusters.model import ClusterError

MILLION: Final = 1_000_000
_NUMBER: Final = r"\d{1,12}(?:\.\d{1,12})?|\.\d{1,12}"
_FORMS: Final = (
    (re.compile(rf"({_NUMBER})\s*%"), 10_000),
    (re.compile(rf"({_NUMBER})\s*ppm", re.I), 1),
)
_FRACTION: Final = re.compile(r"(\d{1,12})\s*/\s*(\d{1,12})")


def parse(text: str) -> int:
    """Requests per million that are sampled, 0 to 1,000,000: `1%`, `0.1 %`, `1/1000`, `10000ppm`, `0`, `all`.

    Raises:
        ClusterError: it is none of these forms, or no whole number per million, or out of range.
    """
    asked = text.strip()
    if asked.lower() == "all":
        return MILLION
    exact: Decimal | None = None
    for form, times in _FORMS:
        match = form.fullmatch(asked)
        if match:
            exact = Decimal(match[1]) * times
    fraction = _FRACTION.fullmatch(asked)
    if fraction:
        if int(fraction[2]) == 0:
            raise ClusterError(f"The rate {_quoted(asked)} divides by zero; write a rate such as 1/1000.")
        # Rounded: 1/3 is no whole number per million, and nobody means to be refused for that.
        share = Decimal(int(fraction[1])) * MILLION / int(fraction[2])
        exact = share if share > MILLION else Decimal(round(share))
        if exact == 0 and int(fraction[1]):
            raise ClusterError(f"The rate {_quoted(asked)} is below 1 per million, the smallest there is.")
    if re.fullmatch(r"0+(?:\.0*)?", asked):
        exact = Decimal(0)
    if exact is None:
        if re.match(r"[-\u2212]\s*\.?\d", asked):
            raise ClusterError(f"The rate {_quoted(asked)} is below 0; a rate is between 0 and 100 %.")
        if re.fullmatch(_NUMBER, asked):
            raise ClusterError(f"The rate {_quoted(asked)} has no unit; write {asked}%, {asked}ppm or all.")
        raise ClusterError(f"{_quoted(asked)} is no rate; write it as 1%, 1/1000, 10000ppm, 0 or all.")
    if exact > MILLION:
        raise ClusterError(
            f"The rate {_quoted(asked)} is over 100 %; a rate is between 0 and 100 %, and all is the most there is."
        )
    if exact != int(exact):
        raise ClusterError(f"The rate {_quoted(asked)} is finer than 1 per million, the smallest step there is.")
    return int(exact)


def text(per_million: int) -> str:
    """A rate for people: `0`, `1 %`, `0.1 %`, `250 ppm`, `all`; `parse` reads it back."""
    if per_million >= MILLION:
        return "all"
    if per_million <= 0:
        return "0"
    if per_million < 100:
        return f"{per_million} ppm"
    percent = f"{Decimal(per_million) / 10_000:f}"
    return f"{percent.rstrip('0').rstrip('.') if '.' in percent else percent} %"


def _quoted(asked: str) -> str:
    return repr(asked if len(asked) <= 40 else asked[:39] + "…")
