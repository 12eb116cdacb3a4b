"""Recordings made from the demo's generator: shaped like a cluster's, the same every time, and there everywhere."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from receiver.ingest.demo import activity, export_request, place
from receiver.ingest.demo_spans import Finished
from receiver.store import files

STARTED = 1_700_000_000_000_000_000
BATCH = 200


@cache
def demo_requests(seconds: int = 20, seed: int = 1) -> tuple[bytes, ...]:
    """Serialised export requests of a demo cluster's first seconds."""
    spans: list[Finished] = []
    for at, finished in activity(seed, 20.0):
        if at > seconds * 1_000_000_000:
            break
        for one in finished:
            place(one, STARTED)
            spans.append(one)
    spans.sort(key=lambda one: one.span.end_time_unix_nano)
    groups = (spans[at : at + BATCH] for at in range(0, len(spans), BATCH))
    return tuple(export_request(group).SerializeToString() for group in groups)


def write_demo(path: Path, seconds: int = 20, seed: int = 1) -> int:
    """Writes such a recording; returns how many spans it holds."""
    files.write(path, iter(demo_requests(seconds, seed)))
    return sum(files.only(body, None)[1] for body in demo_requests(seconds, seed))
