"""From one trace to those that it shares something with: joins over traces, each written as a filter of the list.

What traces share is an object, a namespace, a client, an audit id (which the API server hands on to an aggregated one,
and puts on its spans in every trace of a request: docs/facts.md 7.3), the process that served them, or a
webhook.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from receiver.store.index import Index
from receiver.traces.model import Request, TraceSummary
from receiver.traces.query import Query, View, counts, quoted

_WEBHOOK_KEYS: Final = ("w", "2", "3", "4")
"""For so many webhooks of one trace."""


@dataclass(frozen=True, slots=True)
class Pivot:
    """One join. `key` is the same for the same kind of join, `value` says what is shared, `filter` is what
    `Query.parse` takes."""

    key: str
    what: str
    value: str
    filter: str


@dataclass(frozen=True, slots=True)
class Counted:
    """A pivot with how many traces it has, this one included, and how many of them the list would show as it is set."""

    pivot: Pivot
    traces: int
    shown: int


def pivots(row: TraceSummary, webhook: str = "") -> list[Pivot]:
    """The joins that a trace offers; [] where nothing is known that traces share.

    Args:
        webhook: the one among its webhooks that is named first.
    """
    found: list[Pivot] = []
    request = row.request
    if request is not None:
        found += _object(request, row.created)
        if request.namespace:
            found.append(Pivot("n", "same namespace", request.namespace, f"ns={quoted(request.namespace)}"))
        if request.user_agent:
            found.append(Pivot("u", "same user agent", request.user_agent, f"ua={quoted(request.user_agent)}"))
        if request.audit_id:
            found.append(Pivot("a", "same audit id", request.audit_id, f"audit={quoted(request.audit_id)}"))
    if row.instance:
        found.append(Pivot("i", "same instance", row.instance, f"instance={quoted(row.instance)}"))
    hooks = sorted(row.webhooks, key=lambda name: name != webhook)
    for key, name in zip(_WEBHOOK_KEYS, hooks, strict=False):
        found.append(Pivot(key, "same webhook", name, f"webhook={quoted(name)}"))
    return found


def _object(request: Request, created: str) -> list[Pivot]:
    if not request.resource:
        return []
    name = request.name or created
    # The core group is not named: `group=` would leave out what other groups serve of the same object (events).
    parts = {"group": request.group, "resource": request.resource, "ns": request.namespace, "name": name}
    words = [f"{field}={quoted(value)}" for field, value in parts.items() if value]
    namespace = "" if request.resource == "namespaces" else request.namespace
    value = f"{request.resource} {'/'.join(filter(None, (namespace, name)))}".rstrip()
    return [Pivot("o", "same object" if name else "same resource", value, " ".join(words))]


def counted(index: Index, offered: list[Pivot], view: View, now: int) -> list[Counted]:
    """Each with its counts, from the index alone. `view` and `now`: as for `query.counts`."""
    numbers = counts(index, [Query.parse(pivot.filter) for pivot in offered], view, now)
    return [Counted(pivot, traces, shown) for pivot, (traces, shown) in zip(offered, numbers, strict=True)]
