"""Where the nodes of one cluster differ about tracing, though they should not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from tui.clusters import rates
from tui.clusters.model import Mode, Part, State

_ASPECTS: Final[tuple[tuple[str, Callable[[State], str]], ...]] = (
    ("is", lambda state: state.mode.value),
    ("samples", lambda state: "" if state.per_million is None else rates.text(state.per_million)),
    ("sends to", lambda state: state.endpoint),
    ("is version", lambda state: state.version),
)


def sentences(states: Iterable[State]) -> tuple[str, ...]:
    """A sentence for each component and aspect in which nodes differ from most others: `apiserver: cp-2 samples 1 %,
    cp-1 and cp-3 0`. Nodes that could not be read differ in nothing but that."""
    known = list(states)
    said: list[str] = []
    for part in Part:
        of_part = [state for state in known if state.part is part]
        for verb, aspect in _ASPECTS:
            unread: tuple[Mode, ...] = () if verb == "is" else (Mode.UNKNOWN, Mode.BROKEN, Mode.OFF)
            if verb == "is version":
                unread = (Mode.UNKNOWN,)
            values = {state.node: aspect(state) for state in of_part if state.mode not in unread and aspect(state)}
            groups = Counter(values.values()).most_common()
            if len(groups) < 2:
                continue
            odd = [(value, [node for node in values if values[node] == value]) for value, _ in reversed(groups)]
            said.append(f"{part.value}: " + ", ".join(f"{_list(nodes)} {verb} {value}" for value, nodes in odd))
    return tuple(said)


def differing(states: Iterable[State]) -> frozenset[str]:
    """The nodes that are not as most others are: to be marked. None of them where two halves stand against each
    other is more right, so then all are marked."""
    known = list(states)
    odd: set[str] = set()
    for part in Part:
        of_part = [state for state in known if state.part is part]
        shapes = Counter((state.mode, state.per_million, state.endpoint, state.version) for state in of_part)
        if len(shapes) < 2:
            continue
        (most, count), (_, second) = shapes.most_common(2)
        for state in of_part:
            same = (state.mode, state.per_million, state.endpoint, state.version) == most
            if not same or count == second:
                odd.add(state.node)
    return frozenset(odd)


def _list(nodes: list[str]) -> str:
    return nodes[0] if len(nodes) == 1 else f"{', '.join(nodes[:-1])} and {nodes[-1]}"
