"""What a plan makes of a component, read out of the files as they will be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tui.clusters import flavours
from tui.clusters.inspect import read_facts
from tui.clusters.model import ClusterError, Host, HostFile, Mode, NodeFacts, Plan

_ROUNDS = 4
"""Of reading what the files as they will be mention."""


def rate_after(host: Host, facts: NodeFacts, plan: Plan) -> int | None:
    """At how many requests per million the plan's component will sample, 0 where it will not trace by itself; None
    where that cannot be told. Files that the new manifest names and that `facts` lacks are read. Does not raise."""
    files: Mapping[str, HostFile] = {
        **facts.files,
        **{
            change.path: HostFile(change.path, change.after, change.mode, change.uid, change.gid, change.label)
            for change in plan.changes
        },
    }
    after = replace(facts, files=files)
    try:
        for _ in range(_ROUNDS):
            more = flavours.more_paths(after)
            if not more:
                break
            found = read_facts(host, more).files
            after = replace(after, files={**after.files, **{path: found[path] for path in more if path in found}})
        states = flavours.states(after)
    except ClusterError:
        return None
    state = next((state for state in states if state.part is plan.part), None)
    if state is None or state.mode in (Mode.BROKEN, Mode.UNKNOWN):
        return None
    return 0 if state.mode is Mode.OFF else state.per_million
