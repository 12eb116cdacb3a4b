"""What of a recording was not taken, said once for each kind."""

from __future__ import annotations

import re

_SAMPLE = re.compile(r": '.*|\(.*\)$")


class Complaint(str):
    """A sentence about one place of a recording. As text it is whole; several of one `kind` are told together."""

    __slots__ = ("clause", "harmless", "kind", "name", "place", "spans")

    name: str
    place: str
    clause: str
    spans: int
    kind: tuple[str, str]
    harmless: bool
    """Nothing is amiss: there are only no spans in it."""

    @classmethod
    def of(cls, name: str, place: str, clause: str, spans: int = 0, *, harmless: bool = False) -> Complaint:
        """A complaint.

        Args:
            name: of the recording.
            place: `line 3`; "" for all of it.
            clause: what is wrong there, without a full stop.
            spans: how many of it are left out; 0: all that is there is skipped.
        """
        made = cls(_sentence(name, place, clause, spans))
        made.name, made.place, made.clause, made.spans = name, place, clause, spans
        made.kind, made.harmless = (name, _SAMPLE.sub("", clause)), harmless
        return made


def _sentence(name: str, places: str, clause: str, spans: int) -> str:
    where = f"{name}, {places}" if places else name
    if not spans:
        return f"{where}: {clause}; skipped."
    return f"{where}: {clause}; {'1 span was' if spans == 1 else f'{spans:,} spans were'} left out."


class Complaints:
    """Collects them. Each sentence that is no `Complaint` is a kind of its own."""

    def __init__(self) -> None:
        self._firsts: dict[tuple[str, str] | str, str] = {}
        self._counts: dict[tuple[str, str] | str, tuple[int, int]] = {}

    def add(self, sentence: str) -> None:
        """One more."""
        complaint = sentence if isinstance(sentence, Complaint) else None
        key = complaint.kind if complaint is not None else sentence
        self._firsts.setdefault(key, sentence)
        times, spans = self._counts.get(key, (0, 0))
        self._counts[key] = times + 1, spans + (complaint.spans if complaint is not None else 0)

    def sentences(self) -> list[str]:
        """One for each kind, in the order in which they came."""
        return [self._said(first, *self._counts[key]) for key, first in self._firsts.items()]

    @staticmethod
    def _said(first: str, times: int, spans: int) -> str:
        if not isinstance(first, Complaint) or times == 1:
            return first
        return _sentence(first.name, f"{first.place} and {times - 1:,} more", first.clause, spans)
