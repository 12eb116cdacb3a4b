"""Attributes of spans, read in the bytes of a stored request without parsing it.

A million spans are some 300 MB to 1 GB of protobuf. A parser makes objects of all of it; here the key is looked for as
it is encoded (field 1 of a KeyValue: tag, length, text), which is a search through memory, and the value behind it is
looked up among those that were judged before. Only where a value fits, it is found out which span that is in, by
stepping over the spans from length to length.

A hit counts when the bytes before it are the tag and the length of a KeyValue that ends where its value ends, and the
tag is that of an attribute of a span or of an event (nested lists have others). Where a hit is anything else, for
example a value that stands before its key, the request is read the long way, field by field. Both ways find the same.

Imports nothing but `patterns`, so that a process that does only this starts in no time.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from receiver.traces.filter.patterns import MAX_TEXT, Pattern

_KEPT: Final = 20_000
"""Values of which the answer is kept, an attribute; they are dropped when there are more."""
_SHORT: Final = 128
"""Bytes of a value whose answer is kept."""
MAX_DEPTH: Final = 8
"""Lists inside each other that are looked into."""
_CLASS: Final = re.compile("[1-9]xx")
MAX_ITEMS: Final = 4_096
"""Items of a list that are looked at."""

Scalar = str | bool | int | float


@dataclass(frozen=True, slots=True)
class Attribute:
    """What is asked of an attribute: one of `keys` (aliases of one concept) of a span, of one of its events or of what
    sent it, fulfils `op` with one of `values`. `op` is none of `!=` and `!~`.

    Values are casefolded texts, for a pattern as written; `size`: bytes in decimal; `code`: classes (`5xx`) are
    understood, too. A list fulfils it when an item does; maps are not looked into.
    """

    name: str
    keys: tuple[str, ...]
    op: str
    values: tuple[str, ...]
    size: bool = False
    code: bool = False


def number(text: str) -> float | int | None:
    """A number as attributes have them, None for anything else."""
    if len(text) > 40 or not re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d{1,3})?", text, re.ASCII | re.IGNORECASE):
        return None
    return int(text) if re.fullmatch(r"[+-]?\d+", text, re.ASCII) else float(text)


# --- judging --------------------------------------------------------------------------------------
def judge_of(attribute: Attribute) -> Callable[[Scalar], bool]:
    """Whether a scalar is as asked."""
    if attribute.op == "=~":
        pattern = Pattern(attribute.values[0])
        return lambda value: pattern.holds(as_text(value))
    if attribute.op == "=":
        texts = frozenset(attribute.values)
        known = (number(text) for text in attribute.values)
        numbers = frozenset(one for one in known if one is not None)
        classes = frozenset(int(text[0]) for text in attribute.values if attribute.code and _CLASS.fullmatch(text))

        def equal(value: Scalar) -> bool:
            if as_text(value).casefold() in texts:
                return True
            if isinstance(value, bool) or not (numbers or classes):
                return False
            if isinstance(value, str):
                told = number(value) if classes or attribute.size else None
            else:
                told = value
            return told is not None and (told in numbers or told // 100 in classes)

        return equal
    bound = number(attribute.values[0])
    assert bound is not None  # `fields.check` lets no other through
    compare: Callable[[float | int], bool] = {
        ">": lambda value: value > bound,
        ">=": lambda value: value >= bound,
        "<": lambda value: value < bound,
        "<=": lambda value: value <= bound,
    }[attribute.op]

    def ordered(value: Scalar) -> bool:
        if isinstance(value, bool):
            return False
        told = number(value) if isinstance(value, str) else value
        return told is not None and compare(told)

    return ordered


def as_text(value: Scalar) -> str:
    """A scalar as it is compared with text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value[:MAX_TEXT] if isinstance(value, str) else str(value)


class Malformed(ValueError):
    """Not the bytes of a request."""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint and the position after it."""
    value = shift = 0
    while shift < 70:
        octet = data[at]
        at += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
        shift += 7
    raise Malformed


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(tag, where its content begins, where it ends) of each field of a message; of a varint or a fixed number the
    bytes of it."""
    while at < end:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 2:
            size, at = _varint(data, at)
            upto = at + size
        elif kind == 0:
            _, upto = _varint(data, at)
        elif kind == 1:
            upto = at + 8
        elif kind == 5:
            upto = at + 4
        else:
            raise Malformed
        if upto > end:
            raise Malformed
        yield tag, at, upto
        at = upto


def scalars(data: bytes, at: int, end: int, depth: int = 0) -> Iterator[Scalar]:
    """What an AnyValue holds: one scalar, or those of a list."""
    last: tuple[int, int, int] | None = None
    for field in _fields(data, at, end):
        if field[0] in (0x0A, 0x10, 0x18, 0x21, 0x2A, 0x32, 0x3A):
            last = field  # a oneof: the last one counts
    if last is None:
        return
    tag, begin, upto = last
    if tag in (0x0A, 0x3A):
        yield data[begin:upto].decode("utf-8", "replace")
    elif tag == 0x10:
        yield bool(_varint(data, begin)[0])
    elif tag == 0x18:
        value = _varint(data, begin)[0] & 0xFFFFFFFFFFFFFFFF
        yield value - (1 << 64) if value >> 63 else value
    elif tag == 0x21:
        yield float(struct.unpack_from("<d", data, begin)[0])
    elif tag == 0x2A and depth < MAX_DEPTH:
        for count, (inner, low, high) in enumerate(_fields(data, begin, upto)):
            if count >= MAX_ITEMS:
                return
            if inner == 0x0A:
                yield from scalars(data, low, high, depth + 1)


class _Asked:
    """One attribute, with the answers about values so far."""

    def __init__(self, attribute: Attribute) -> None:
        self.keys = frozenset(key.encode(errors="replace") for key in attribute.keys)
        self.needles = [b"\x0a" + _encoded(len(key)) + key for key in self.keys]
        self._judge = judge_of(attribute)
        self.known: dict[bytes, bool] = {}

    def decide(self, value: bytes) -> bool:
        """Whether an encoded AnyValue is as asked."""
        try:
            held = any(self._judge(one) for one in scalars(value, 0, len(value)))
        except (Malformed, IndexError, struct.error, OverflowError):
            held = False
        if len(value) <= _SHORT:
            if len(self.known) >= _KEPT:
                self.known.clear()
            self.known[value] = held
        return held

    def hits(self, raw: bytes) -> list[tuple[int, int]] | None:
        """(position, length) of each KeyValue that seems to be as asked, ascending; None where that cannot be
        told so."""
        found: list[tuple[int, int]] = []
        known, decide, find, total = self.known, self.decide, raw.find, len(raw)
        for needle in self.needles:
            size = len(needle)
            at = find(needle)
            while at >= 0:
                begin = at + size
                if begin + 1 >= total or raw[begin] != 0x12:
                    if raw[at - 1] != size:  # else a text that reads like the key, or a key without a value
                        return None
                    at = find(needle, begin)
                    continue
                length, begin = raw[begin + 1], begin + 2
                if length >= 0x80:
                    try:
                        length, begin = _varint(raw, begin - 1)
                    except (Malformed, IndexError):
                        return None
                value = raw[begin : begin + length]
                held = known.get(value)
                if held if held is not None else decide(value):
                    found.append((at, begin + length - at))
                at = find(needle, at + size)
        if len(self.needles) > 1:
            found.sort()
        return found


def _encoded(value: int) -> bytes:
    """A varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# --- requests -------------------------------------------------------------------------------------
class _Outline:
    """Where the spans and the resources of a request are."""

    __slots__ = ("ends", "resources", "starts")

    def __init__(self, raw: bytes) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.resources: list[tuple[list[tuple[int, int]], int, int]] = []
        """(where the resource is, its first span, the one after its last)."""
        for tag, at, end in _fields(raw, 0, len(raw)):
            if tag == 0x0A:
                self._resource(raw, at, end)

    def _resource(self, raw: bytes, at: int, end: int) -> None:
        places: list[tuple[int, int]] = []
        first = len(self.starts)
        for tag, low, high in _fields(raw, at, end):
            if tag == 0x0A:
                places.append((low, high))
            elif tag == 0x12:
                self._scope(raw, low, high)
        self.resources.append((places, first, len(self.starts)))

    def _scope(self, raw: bytes, at: int, end: int) -> None:
        starts, ends = self.starts, self.ends
        while at < end:
            tag = raw[at]
            if tag == 0x12:  # a span; the rest in line, because there are a million
                size = raw[at + 1]
                if size < 0x80:
                    at += 2
                elif raw[at + 2] < 0x80:
                    size, at = size & 0x7F | raw[at + 2] << 7, at + 3
                else:
                    size, at = _varint(raw, at + 1)
                starts.append(at)
                at += size
                ends.append(at)
            else:
                for _, _, upto in _fields(raw, at, end):
                    at = upto
                    break
        if at > end:
            raise Malformed


class Reader:
    """Reads what was asked of the spans of requests."""

    def __init__(self, attributes: Sequence[Attribute]) -> None:
        self._asked = [_Asked(attribute) for attribute in attributes]

    def read(self, raw: bytes) -> list[bytes]:
        """For each attribute a byte a span, in document order: 1 where it is as asked; b"" when it is nowhere, as in
        what is no request."""
        outline: _Outline | None = None
        found: list[bytes] = []
        for asked in self._asked:
            hits = asked.hits(raw)
            if hits is not None and not hits:
                found.append(b"")
                continue
            try:
                outline = outline or _Outline(raw)
                mask = None if hits is None else _placed(raw, outline, asked, hits)
                if mask is None:
                    mask = _slowly(raw, outline, asked)
            except (Malformed, IndexError):
                mask = bytearray()
            found.append(bytes(mask) if any(mask) else b"")
        return found


def _placed(raw: bytes, outline: _Outline, asked: _Asked, hits: Sequence[tuple[int, int]]) -> bytearray | None:
    """The spans of these hits, None where one of them is not what it seems."""
    starts, ends = outline.starts, outline.ends
    mask = bytearray(len(starts))
    outside = False
    for at, size in hits:
        span = bisect_right(starts, at) - 1
        if span < 0 or at >= ends[span]:
            outside = True  # in a resource, or in a scope, whose attributes are nobody's
            continue
        if size < 0x80:
            tag = raw[at - 2] if raw[at - 1] == size else 0
        else:
            length = _encoded(size)
            before = at - len(length)
            tag = raw[before - 1] if raw[before:at] == length else 0
        if tag in (0x4A, 0x1A):  # of the span, of an event
            mask[span] = 1
        elif tag not in (0x22, 0x0A):  # of a link, in a map
            return None
    if outside:
        _of_resources(raw, outline, asked, mask)
    return mask


def _slowly(raw: bytes, outline: _Outline, asked: _Asked) -> bytearray:
    """The same, field by field."""
    mask = bytearray(len(outline.starts))
    _of_resources(raw, outline, asked, mask)
    for span, (at, end) in enumerate(zip(outline.starts, outline.ends, strict=True)):
        if mask[span]:
            continue
        try:
            for tag, low, high in _fields(raw, at, end):
                if tag == 0x4A:
                    held = _holds(raw, low, high, asked)
                elif tag == 0x5A:
                    held = any(_holds(raw, a, b, asked) for inner, a, b in _fields(raw, low, high) if inner == 0x1A)
                else:
                    continue
                if held:
                    mask[span] = 1
                    break
        except (Malformed, IndexError):
            continue
    return mask


def _of_resources(raw: bytes, outline: _Outline, asked: _Asked, mask: bytearray) -> None:
    for places, first, last in outline.resources:
        for at, end in places:
            if any(_holds(raw, low, high, asked) for tag, low, high in _fields(raw, at, end) if tag == 0x0A):
                mask[first:last] = b"\x01" * (last - first)


def _holds(raw: bytes, at: int, end: int, asked: _Asked) -> bool:
    """Whether a KeyValue is as asked."""
    key, value = b"", b""
    for tag, low, high in _fields(raw, at, end):
        if tag == 0x0A:
            key = raw[low:high]
        elif tag == 0x12:
            value = raw[low:high]
    return key in asked.keys and asked.decide(value)
