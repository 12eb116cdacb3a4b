"""Chunks made of parts of other chunks, as retention needs them, and a large one in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from receiver.store.chunk import AUDIT_UUID, FACT, FACT_STRINGS, SPAN, Chunk, Resource
from receiver.store.compression import compress
from receiver.store.database import decompress
from receiver.store.request import divide_spans, select_spans, span_sizes


@dataclass(frozen=True, slots=True)
class Part:
    """Some spans of a chunk."""

    chunk: Chunk  # its own body is not looked at
    kept: npt.NDArray[np.bool_]  # by row
    body: bytes  # the whole chunk's request, not compressed


def repack(parts: Sequence[Part]) -> Chunk:
    """One chunk of the kept spans of several chunks of one source, oldest first.

    Its request is theirs one after the other: concatenated messages are a valid message (protobuf's encoding rules),
    and its rows stand in the same order. It counts as received when the last of them was.
    """
    return _joined(parts, b"".join(select_spans(part.body, part.kept.tolist()) for part in parts))


def _joined(parts: Sequence[Part], body: bytes) -> Chunk:
    """The chunk of the kept spans, whose request is made already."""
    strings: dict[str, int] = {"": 0}
    resources: dict[Resource, int] = {}
    spans: list[npt.NDArray[Any]] = []
    facts: list[npt.NDArray[Any]] = []
    rows = 0
    for part in parts:
        chunk, kept = part.chunk, part.kept
        own = chunk.spans[kept]
        own["name"] = _numbers([chunk.strings[i] for i in own["name"].tolist()], strings)
        own["resource"] = np.minimum(
            _numbers([chunk.resources[i] for i in own["resource"].tolist()], resources), 0xFFFE
        )
        about = chunk.facts[kept[chunk.facts["row"]]]
        for column in FACT_STRINGS:
            about[column] = _numbers([chunk.strings[i] for i in about[column].tolist()], strings)
        _renumber_audit(about, chunk.strings, strings)
        about["row"] = (np.cumsum(kept) - 1)[about["row"]] + rows
        rows += len(own)
        spans.append(own)
        facts.append(about)
    first = parts[0].chunk
    return Chunk(
        0,
        first.source,
        first.peer,
        max(part.chunk.received for part in parts),
        list(strings),
        list(resources)[:0xFFFF],
        np.concatenate([*spans, np.zeros(0, SPAN)]),
        np.concatenate([*facts, np.zeros(0, FACT)]),
        compress(body),
        first.sender,
    )


def size_of(chunk: Chunk) -> int:
    """About how many bytes a chunk takes in memory and on disk."""
    names = "".join(chunk.strings)
    plain = names.isascii() and names.isprintable()  # else up to six bytes a character, as JSON
    return len(chunk.body) + int(chunk.spans.nbytes) + int(chunk.facts.nbytes) + len(names) * (1 if plain else 6) + 512


def split(chunk: Chunk, most: int) -> list[Chunk]:
    """A chunk in pieces of about `most` bytes, in the order of its spans; itself where it is not larger. A single span
    is never divided."""
    size = size_of(chunk)
    if size <= most + most // 2 or len(chunk.spans) < 2:
        return [chunk]
    body = decompress(chunk.body)
    weights = np.array(span_sizes(body), np.int64) + SPAN.itemsize
    reached = np.cumsum(weights) - weights // 2
    piece_of = np.minimum(reached * -(-size // most) // max(1, int(weights.sum())), -(-size // most) - 1)
    if piece_of[0] == piece_of[-1]:
        piece_of = (np.arange(len(weights)) >= len(weights) // 2).astype(np.int64)
    numbers, piece_of = np.unique(piece_of, return_inverse=True)
    bodies = divide_spans(body, piece_of.tolist(), len(numbers))
    pieces = []
    for number, own in enumerate(bodies):
        pieces += split(_joined([Part(chunk, piece_of == number, b"")], own), most)
    return pieces


def _numbers(values: Sequence[Any], known: dict[Any, int]) -> npt.NDArray[np.uint32]:
    """The number of each value in `known`, which grows by those that are new."""
    return np.array([known.setdefault(value, len(known)) for value in values], np.uint32)


def _renumber_audit(facts: npt.NDArray[Any], old: Sequence[str], strings: dict[str, int]) -> None:
    """Audit ids that are not UUIDs are numbers of strings: give them the new numbers."""
    for at in np.flatnonzero((facts["flags"] & AUDIT_UUID) == 0).tolist():
        number = int.from_bytes(facts["audit"][at].tobytes()[:4], "big")
        text = old[number] if number < len(old) else ""
        facts["audit"][at] = strings.setdefault(text, len(strings)).to_bytes(4, "big") + bytes(12)
