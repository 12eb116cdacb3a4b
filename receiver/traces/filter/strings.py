"""Questions about the distinct strings of an index, each asked once a string: from then on only numbers are
compared."""

from __future__ import annotations

import operator
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.index import Index
from receiver.traces.filter.patterns import Pattern

Array = npt.NDArray[Any]

_TESTS: Final[dict[str, Callable[[list[str], str], list[bool]]]] = {
    "containing": lambda names, word: [word in name for name in names],
    "starting": lambda names, word: [name.startswith(word) for name in names],
    "ending": lambda names, word: [name.endswith(word) for name in names],
    "equal": lambda names, word: [name == word for name in names],
}


class Strings:
    """Answers by string id: the names of an index only grow, so answers stay.

    Two threads ask: the one that extends the index and selects, and one that counts. Each holds `lock` as long as it
    compares answers, which have to be of one length.
    """

    _KEPT: Final = 64

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._names: list[str] = []
        self._folded: list[str] = []
        self._answers: OrderedDict[tuple[str, str], Array] = OrderedDict()
        self._patterns: OrderedDict[str, tuple[Pattern, Array]] = OrderedDict()
        self._order: list[int] = []
        self._ranks: Array = np.zeros(0, np.int64)
        self._facts: OrderedDict[str, tuple[Pattern, Array]] = OrderedDict()

    def update(self, names: list[str]) -> None:
        """Take in the names that came since."""
        self._names = names
        for name in names[len(self._folded) :]:
            folded = name.casefold()
            self._folded.append(name if folded == name else folded)  # mostly equal: then one string serves both

    def name(self, number: int) -> str:
        """The string of an id."""
        return self._names[number]

    def none(self) -> Array:
        """A table that holds for no string."""
        return np.zeros(len(self._folded), bool)

    def containing(self, word: str) -> Array:
        """By string id whether it contains the word (which is casefolded), and so on."""
        return self._table("containing", word)

    def starting(self, word: str) -> Array:
        return self._table("starting", word)

    def ending(self, word: str) -> Array:
        return self._table("ending", word)

    def equal(self, word: str) -> Array:
        return self._table("equal", word)

    def matching(self, pattern: str, ids: Array) -> Array:
        """By string id whether the pattern is found in it; only those of `ids` are looked at, for the others the
        answer is meaningless."""
        known = self._patterns.pop(pattern, None)
        made, answers = known or (Pattern(pattern), np.zeros(0, np.int8))
        count = len(self._folded)
        if len(answers) < count:
            answers = np.concatenate((answers, np.zeros(count - len(answers), np.int8)))
        asked = np.zeros(count, bool)
        asked[ids] = True
        for number in np.flatnonzero(asked & (answers == 0)).tolist():
            answers[number] = 1 if made.holds(self._names[number]) else -1
        self._patterns[pattern] = made, answers
        if len(self._patterns) > self._KEPT:
            self._patterns.popitem(last=False)
        found: Array = answers > 0
        return found

    def facts_matching(self, pattern: str, facts: Array, texts: Callable[[Array], list[str]]) -> Array:
        """For each of these facts whether the pattern is found in what `texts` makes of it. Facts do not change, so
        what was answered once stays."""
        known = self._facts.pop(pattern, None)
        made, answers = known or (Pattern(pattern), np.zeros(0, np.int8))
        need = int(facts.max()) + 1 if len(facts) else 0
        if len(answers) < need:
            answers = np.concatenate((answers, np.zeros(need - len(answers), np.int8)))
        fresh = facts[answers[facts] == 0]
        if len(fresh):
            answers[fresh] = [1 if made.holds(text) else -1 for text in texts(fresh)]
        self._facts[pattern] = made, answers
        if len(self._facts) > self._KEPT // 8:
            self._facts.popitem(last=False)
        found: Array = answers[facts] > 0
        return found

    def _table(self, test: str, word: str) -> Array:
        key = (test, word)
        known = self._answers.pop(key, None)
        count = 0 if known is None else len(known)
        if known is None or count < len(self._folded):
            fresh = np.array(_TESTS[test](self._folded[count:], word), bool)
            known = fresh if known is None else np.concatenate((known, fresh))
        self._answers[key] = known
        if len(self._answers) > self._KEPT:
            self._answers.popitem(last=False)
        return known

    def ranks(self, ids: Array) -> Array:
        """For each string id its place among all strings in alphabetical order; the empty one comes last.

        The order of all is kept: names of objects are many, and what comes new is merged into it.
        """
        known, count = len(self._order), len(self._folded)
        if known < count:
            of = self._folded.__getitem__
            self._order = sorted([*self._order, *sorted(range(known, count), key=of)], key=of)  # two runs: a merge
            texts = list(map(of, self._order))
            other: Array = np.fromiter(map(operator.ne, texts[1:], texts), bool, count - 1)
            self._ranks = np.empty(count, np.int64)
            self._ranks[self._order] = np.concatenate(([0], np.cumsum(other)))
            self._ranks[self._order[: texts.count("")]] = count
        found: Array = self._ranks[ids]
        return found


_strings: weakref.WeakKeyDictionary[Index, Strings] = weakref.WeakKeyDictionary()
_strings_lock: Final = threading.Lock()


def strings_of(index: Index) -> Strings:
    """The answers kept for an index."""
    with _strings_lock:
        return _strings.setdefault(index, Strings())
