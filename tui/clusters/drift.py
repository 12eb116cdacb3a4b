"""Where the nodes of one cluster differ about tracing, though they should not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from tui.clusters import rates
from tui.clusters.model import Mode, Part, State


def _does(state: State) -> str:
    """What it does, and how often."""
    if state.mode is Mode.UNKNOWN:
        return ""
    if state.mode is Mode.SAMPLING and state.per_million is not None:
        return f"sampling {rates.text(state.per_million)}"
    return str(state.mode.value)


_ASPECTS: Final[tuple[tuple[Callable[[State], str], str], ...]] = (
    (_does, "{}"),
    (lambda state: state.endpoint if state.mode in (Mode.ARMED, Mode.SAMPLING) else "", "sends to {}"),
    (lambda state: state.version, "version {}"),
)


def differing(states: Sequence[State]) -> dict[tuple[str, Part], str]:
    """How a component differs from most of its like on other nodes, by (node, part); those that do not are left out.
    `differs from cp-1, cp-2 (there: armed, version v1.34.2)`. What is not known differs from nothing; of two
    equal halves the one with the first node is the usual one."""
    found: dict[tuple[str, Part], list[tuple[str, str]]] = {}
    for part in Part:
        for aspect, words in _ASPECTS:
            values = [(state.node, value) for state in states if state.part is part and (value := aspect(state))]
            known = [value for _, value in values]
            if len(set(known)) < 2:
                continue
            usual = max(known, key=lambda value: (known.count(value), -known.index(value)))
            like = ", ".join(node for node, value in values if value == usual)
            for node, value in values:
                if value != usual:
                    found.setdefault((node, part), []).append((like, words.format(usual)))
    return {key: _sentence(said) for key, said in found.items()}


def _sentence(said: Sequence[tuple[str, str]]) -> str:
    by_nodes: dict[str, list[str]] = {}
    for like, words in said:
        by_nodes.setdefault(like, []).append(words)
    return "; ".join(f"differs from {like} (there: {', '.join(words)})" for like, words in by_nodes.items())
