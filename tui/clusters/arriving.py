"""What really arrives from control planes: spans per second of the last seconds, by who sent them.

Counted from the database, so that it is the same with and without a screen, and right after a start: an exporter
sends every 5 s, so two readings of a counter a second apart would mostly say 0.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np

from receiver.store.database import Database, StoreError
from tui.clusters.model import Mode, Part, Plan, State

SECONDS: Final = 15.0
"""Three batches of an exporter with the delay of 5 s that every component has."""
_CHUNKS_AT_ONCE: Final = 256
_MOST_CHUNKS: Final = 8192
"""Read at most; beyond it the rate is that of the chunks that were read."""

SERVICES: Final[Mapping[Part, str]] = {Part.APISERVER: "apiserver", Part.ETCD: "etcd", Part.KUBELET: "kubelet"}
"""`service.name` of each component (etcd's is a flag; this is its default)."""


@dataclass(frozen=True, slots=True)
class Stream:
    """What one sender sends: `source` is the name of the listener it came through, `per_second` its spans a second,
    `last` when it last sent, in ns since the epoch by this machine's clock."""

    service: str
    instance: str
    source: str
    spans: int
    per_second: float
    last: int


def streams(database: Database, seconds: float = SECONDS, now: int | None = None, begun: int = 0) -> tuple[Stream, ...]:
    """Who sent in the last `seconds`, the busiest first; only spans that began at `begun` (ns since the epoch) or later
    count. Reads from the newest chunk backwards, only as far as needed.

    Raises:
        StoreError: the database cannot be read.
    """
    now = time.time_ns() if now is None else now
    since = now - int(seconds * 1e9)
    found: dict[tuple[str, str, str], list[int]] = {}
    oldest = now
    upper, read = database.last_id(), 0
    while upper > 0 and read < _MOST_CHUNKS:
        lower = max(0, upper - _CHUNKS_AT_ONCE)
        chunks = [chunk for chunk in database.read_after(lower, _CHUNKS_AT_ONCE) if chunk.id <= upper]
        fresh = [chunk for chunk in chunks if chunk.received > since]
        for chunk in fresh:
            oldest = min(oldest, chunk.received)
            spans_of = chunk.spans[chunk.spans["start"] >= begun] if begun else chunk.spans
            counts = np.bincount(spans_of["resource"], minlength=len(chunk.resources)).tolist()
            for resource, spans in zip(chunk.resources, counts, strict=False):
                if not spans:
                    continue
                entry = found.setdefault((resource.service, resource.instance, chunk.source), [0, 0])
                entry[0] += spans
                entry[1] = max(entry[1], chunk.received)
        read += len(chunks)
        if chunks and not fresh:
            break
        upper = lower
    window = seconds if read < _MOST_CHUNKS else max(1.0, (now - oldest) / 1e9)
    made = (Stream(*key, spans=spans, per_second=spans / window, last=last) for key, (spans, last) in found.items())
    return tuple(sorted(made, key=lambda one: -one.spans))


def of_database(path: Path) -> tuple[Stream, ...] | None:
    """`streams` of a database that may not be there; None where nothing is known, which is also when nobody receives
    into it."""
    from receiver.control import ControlClient, ControlError

    try:
        ControlClient.connect(path, 2.0).close()
        database = Database.read(path)
    except (ControlError, StoreError, OSError):
        return None
    try:
        return streams(database)
    except StoreError:
        return None
    finally:
        database.close()


def verifier(path: Path, states: Sequence[State], seconds: float = 15.0) -> Callable[[Plan, str], bool | None]:
    """For a rollout: whether a span of the plan's component has come that began after its new container did.

    A span that merely arrives after the change is no proof: the old process exports until it is killed. Waits at most
    `seconds` after the component is ready; None where it cannot be known: no receiver, no time, or several nodes that
    it might be of.
    """

    def verify(plan: Plan, started: str) -> bool | None:
        begin = nanoseconds(started)
        if begin is None or of_database(path) is None:
            return None
        until = time.monotonic() + seconds
        try:
            database = Database.read(path)
        except (StoreError, OSError):
            return None
        try:
            while True:
                found = per_state(states, streams(database, seconds + 60.0, begun=begin)).get((plan.node, plan.part))
                if found or time.monotonic() >= until:
                    return None if found is None else found > 0
                time.sleep(0.5)
        except StoreError:
            return None
        finally:
            database.close()

    return verify


def nanoseconds(text: str) -> int | None:
    """An RFC 3339 time with up to nine decimals, in ns since the epoch."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?\d*(Z|[+-]\d\d:\d\d)", text.strip())
    if match is None:
        return None
    try:
        whole = datetime.fromisoformat(match[1] + ("+00:00" if match[3] == "Z" else match[3]))
    except ValueError:
        return None
    return int(whole.timestamp()) * 1_000_000_000 + int((match[2] or "").ljust(9, "0"))


def per_state(states: Sequence[State], arriving: Iterable[Stream] | None) -> dict[tuple[str, Part], float | None]:
    """Spans per second of each component, by (node, part). None where it is not known: no receiver to ask, or several
    nodes of which a sender might be either.

    A sender is a component's when its instance id is the component's, or names its node (etcd's flag); when it came
    through a listener named after the node (a tunnel's); or when there is one such component and one such sender.
    A component that is off sends nothing, and none is expected: 0 would be no finding.
    """
    rates: dict[tuple[str, Part], float | None] = {(state.node, state.part): None for state in states}
    if arriving is None:
        return rates
    streams_of: dict[Part, list[Stream]] = {part: [] for part in Part}
    for stream in arriving:
        for part, service in SERVICES.items():
            if stream.service == service:
                streams_of[part].append(stream)
    for part, sent in streams_of.items():
        ours = [state for state in states if state.part is part]
        configured = [state for state in ours if state.mode in (Mode.ARMED, Mode.SAMPLING)]
        taken: set[int] = set()
        for state in ours:
            mine = [
                at
                for at, stream in enumerate(sent)
                if (state.instance and stream.instance == state.instance)
                or state.node in (stream.instance, stream.source)
            ]
            if mine:
                taken.update(mine)
                rates[state.node, part] = sum(sent[at].per_second for at in mine)
        rest = [stream for at, stream in enumerate(sent) if at not in taken]
        open_ = [state for state in configured if rates[state.node, part] is None]
        if not rest:
            for state in open_:
                rates[state.node, part] = 0.0
        elif len(ours) == 1 and open_ and len({stream.instance for stream in rest}) == 1:
            rates[open_[0].node, part] = sum(stream.per_second for stream in rest)
    return rates
