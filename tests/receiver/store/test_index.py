"""The resident index equals a plain dictionary of spans, whatever the order, duplicates and batching."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.store.chunk import (
    APISERVER,
    AUDIT_UUID,
    FACT,
    FLAG_FACTS,
    FLAG_REQUEST,
    ROLE_SERVER,
    ROLE_VERB,
    SPAN,
    Chunk,
    Resource,
)
from receiver.store.index import Index

AUDIT = bytes(range(16))


@dataclass(frozen=True)
class Plain:
    """A span as a test writes it down; ids are small so that they collide often."""

    trace: int
    span: int
    parent: int
    start: int
    end: int
    request: bool = False
    error: bool = False
    verb: bool = False


def chunk(number: int, spans: list[Plain], source: str = "local") -> Chunk:
    strings = ["", "GET /x", "audit", "get"]
    rows = np.zeros(len(spans), SPAN)
    facts = []
    for i, s in enumerate(spans):
        flags = (FLAG_REQUEST | FLAG_FACTS | APISERVER) if s.request else FLAG_FACTS if s.verb else 0
        rows[i] = (s.trace, s.trace, s.span, s.parent, s.start, s.end, 1 if s.request else 2, 0, 0x20 * s.error, flags)
        if s.request or s.verb:
            fact = np.zeros(1, FACT)
            fact["row"], fact["role"], fact["verb"] = i, ROLE_SERVER if s.request else ROLE_VERB, 3
            fact["flags"], fact["audit"] = AUDIT_UUID, np.void(AUDIT)
            facts.append(fact)
    held = np.concatenate(facts) if facts else np.zeros(0, FACT)
    return Chunk(number, source, "peer", 1000 + number, strings, [Resource("apiserver", "a")], rows, held, b"")


spans_strategy = st.lists(
    st.builds(
        Plain,
        trace=st.integers(1, 4),
        span=st.integers(1, 12),
        parent=st.integers(0, 12),
        start=st.integers(0, 20),
        end=st.integers(0, 30),
        request=st.booleans(),
        error=st.booleans(),
        verb=st.booleans(),
    ),
    max_size=60,
)


def outermost(spans: list[Plain]) -> Plain:
    """The headline rule, said plainly."""
    parents = {s.span: s.parent for s in spans}
    requests = {s.span for s in spans if s.request}

    def nested(s: Plain) -> bool:
        above, seen = s.parent, {s.span}
        while above and above not in seen and above in parents:
            if above in requests:
                return True
            seen.add(above)
            above = parents[above]
        return False

    pool = [s for s in spans if s.request and not nested(s)] or [s for s in spans if s.request]
    pool = pool or [s for s in spans if not s.parent] or spans
    return min(pool, key=lambda s: (s.start or 1 << 62, -duration(s)))


def duration(s: Plain) -> int:
    return max(0, s.end - s.start) if s.start else 0


def expected(spans: list[Plain]) -> dict[int, list[Plain]]:
    held: dict[int, dict[int, Plain]] = {}
    for s in spans:
        held.setdefault(s.trace, {}).setdefault(s.span, s)
    return {trace: list(of.values()) for trace, of in held.items()}


def check(index: Index, spans: list[Plain]) -> None:
    want = expected(spans)
    assert index.traces == len(want)
    assert index.spans == sum(map(len, want.values()))
    for trace, of in want.items():
        slot = index.slot_of(f"{trace:016x}{trace:016x}")
        assert slot is not None
        rows = index.rows_of(slot)
        assert index.span[rows].tolist() == [s.span for s in of]
        assert index.start[rows].tolist() == [s.start for s in of]
        assert index.span_count[slot] == len(of)
        assert index.error_count[slot] == sum(s.error for s in of)
        head = outermost(of)
        row = int(index.head_row[slot])
        # All in a circle of requests: any one of them may stand for the trace.
        if not (head.request and all_in_circles(of)):
            assert (index.start[row], index.head_duration[slot]) == (head.start, duration(head))
            assert bool(index.flags[row] & FLAG_REQUEST) == head.request
        assert index.head_start[slot] == index.start[row]
        facts = index.facts_of(slot)
        assert len(facts) == sum(s.request or s.verb for s in of)
        assert all(index.slot[index.fact_row[f]] == slot for f in facts)
        assert all(index.audit_id(f) == "00010203-0405-0607-0809-0a0b0c0d0e0f" for f in facts)
        server = int(index.server_fact[slot])
        assert (server >= 0) == any(s.request for s in of)
        if server >= 0:
            assert index.fact_row[server] == row
        assert (index.verb_fact[slot] >= 0) == any(s.verb and not s.request for s in of)


def all_in_circles(spans: list[Plain]) -> bool:
    parents = {s.span: s.parent for s in spans}
    requests = {s.span for s in spans if s.request}
    for r in requests:
        above, seen = parents[r], {r}
        while above in parents and above not in seen and above not in requests:
            seen.add(above)
            above = parents[above]
        if not (above in requests and above not in seen):
            return False
    return True


@settings(max_examples=200, deadline=None)
@given(spans_strategy, st.lists(st.integers(1, 9), min_size=1, max_size=8), st.data())
def test_index_equals_plain_dictionary(spans: list[Plain], cuts: list[int], data: st.DataObject) -> None:
    index = Index()
    chunks, at, i = [], 0, 0
    while at < len(spans):
        size = cuts[i % len(cuts)]
        chunks.append(chunk(i + 1, spans[at : at + size]))
        at, i = at + size, i + 1
    at = 0
    while at < len(chunks):
        many = data.draw(st.integers(1, 4))
        index.extend(chunks[at : at + many])
        at += many
    check(index, spans)
    assert index.duplicates == len(spans) - index.spans

    gone = data.draw(st.sets(st.sampled_from([c.id for c in chunks]))) if chunks else set()
    # A duplicate that was dropped does not come back when the chunk of the first one goes: the caller reloads
    # nothing. So compare only where no span stands in a chunk that goes and in one that stays.
    first: dict[tuple[int, int], int] = {}
    stays, flat = (
        [],
        [(c.id, s) for c, low in zip(chunks, starts(chunks), strict=True) for s in spans[low : low + len(c.spans)]],
    )
    for number, s in flat:
        if first.setdefault((s.trace, s.span), number) not in gone and number not in gone:
            stays.append(s)
    check(index.without(gone), stays)


def starts(chunks: list[Chunk]) -> list[int]:
    out, at = [], 0
    for c in chunks:
        out.append(at)
        at += len(c.spans)
    return out


def test_same_chunk_twice_is_taken_once() -> None:
    index = Index()
    one = chunk(1, [Plain(1, 1, 0, 5, 9)])
    index.extend([one])
    index.extend([one])
    assert (index.spans, index.duplicates) == (1, 0)
    assert index.slot_of("0" * 32) is None
    assert index.slot_of("nonsense") is None
