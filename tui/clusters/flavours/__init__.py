"""Kinds of control planes: where each keeps its tracing configuration, and what restarts it.

A flavour is a class in a module of this package, with the methods of `tui.clusters.model.Flavour`. Every such class
is found by looking through the package: a new kind is a new file, and nothing else changes.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import lru_cache
from typing import Final, cast

from tui.clusters.model import Flavour, NodeFacts, Plan, PlanRefused, Sight, State, Wish

_MEMBERS: Final = (
    "name",
    "rank",
    "paths",
    "recognises",
    "recognises_from_afar",
    "more_paths",
    "states",
    "states_from_afar",
    "plan",
)


@lru_cache(maxsize=1)
def every() -> tuple[Flavour, ...]:
    """One of each flavour, in the order in which they are asked: by `rank`, then by name."""
    found: list[Flavour] = []
    for module_info in pkgutil.iter_modules(__path__, f"{__name__}."):
        module = importlib.import_module(module_info.name)
        for name, member in vars(module).items():
            if name.startswith("_") or not inspect.isclass(member) or member.__module__ != module_info.name:
                continue
            if all(hasattr(member, wanted) for wanted in _MEMBERS):
                found.append(cast(Flavour, member()))
    return tuple(sorted(found, key=lambda flavour: (flavour.rank, flavour.name)))


def wanted_paths() -> tuple[str, ...]:
    """What is always read on a host, besides every file of the static pod directory: what any flavour wants. Each path
    has an entry in `NodeFacts.files`, without content where there is none."""
    return tuple(dict.fromkeys(path for flavour in every() for path in flavour.paths))


def of(facts: NodeFacts) -> Flavour | None:
    """The kind of control plane that this node carries, None where it is nothing that we know."""
    return next((flavour for flavour in every() if flavour.recognises(facts)), None)


def from_afar(sight: Sight) -> Flavour | None:
    """The kind of control plane that the API shows, None where that tells nothing."""
    return next((flavour for flavour in every() if flavour.recognises_from_afar(sight)), None)


def more_paths(facts: NodeFacts) -> tuple[str, ...]:
    """Files that what was read mentions and that were not looked at yet: the second round of reading. () at the end."""
    flavour = of(facts)
    if flavour is None:
        return ()
    return tuple(path for path in flavour.more_paths(facts) if path not in facts.files)


def states(facts: NodeFacts) -> tuple[State, ...]:
    """The components on this node and what they do about tracing; () where there is no control plane we know."""
    flavour = of(facts)
    return () if flavour is None else flavour.states(facts)


def plan(facts: NodeFacts, wish: Wish) -> Plan:
    """What to change on this node so that it is as wished. Pure: nothing is read or written.

    Raises:
        PlanRefused: it cannot be done, or not safely; the sentence says why and the way out.
    """
    flavour = of(facts)
    if flavour is None:
        raise PlanRefused(
            f"{facts.host}: no control plane that we know was found there, so there is nothing to change; "
            "static pods are looked for in the kubelet's staticPodPath, as root."
        )
    return flavour.plan(facts, wish)
