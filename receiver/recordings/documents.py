"""JSON values out of lines, however they are laid out: one a line, pretty-printed, several in a line, an array,
RFC 7464's sequences, a log's lines around them.

One value a line is the usual form, and the fast one. A value over several lines is put together until its brackets are
closed; when a line comes that is a whole request by itself, what went before it was cut off, and only that is lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from receiver.recordings.unpacked import Line

_BETWEEN: Final = b" \t\r\n,\x1e\0\xef\xbb\xbf"
"""What may stand between two values: blanks, commas, RFC 7464's RS, NUL, a mark in the middle of joined files."""
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_PAIRS: Final = {ord("]"): ord("["), ord("}"): ord("{")}
_CRI: Final = re.compile(rb"\d{4}-\d\d-\d\dT\S+ std(?:out|err) ([PF]) ")
"""A line of a container's log as CRI has it: time, stream, whether the line goes on, text (kubelet's logs)."""
_MOST_PREFIX: Final = 4096
_REQUEST: Final = re.compile(rb'\{\s*"(?:resource_?[sS]pans|resource|batches|data|trace)"')
_decoder: Final = json.JSONDecoder()


class _Broken(Exception):
    """What was put together is no JSON."""


class Documents:
    """The values of one file. `bad` takes where (a line's number) and a clause for each that is none."""

    def __init__(self, bad: Callable[[int, str], None], most: int) -> None:
        self._bad = bad
        self._most = most
        self._pending: list[bytes] = []
        self._from = 0
        self._size = 0
        self._open = bytearray()  # brackets that are not closed yet
        self._log: list[bytes] = []  # the parts of a log's line so far

    def read(self, lines: Iterable[Line]) -> Iterator[tuple[int, object]]:
        """The values, each with the number of the line where it begins."""
        for line in lines:
            yield from self._take(line.number, line.text)
        if self._pending:
            self._give_up()

    def _take(self, number: int, text: bytes) -> Iterator[tuple[int, object]]:
        stripped = text.strip(_BETWEEN)
        if not stripped:
            return
        if not self._pending:
            try:
                yield number, json.loads(stripped)
                return
            except RecursionError:
                self._bad(number, "is nested too deeply")
                return
            except ValueError:
                pass
            yield from self._begin(number, stripped)
            return
        whole = None if self._open == b"[" else self._whole(stripped)  # an array of requests, one a line
        if whole is not None:
            self._give_up()
            yield number, whole[0]
            return
        yield from self._go_on(text)

    def _begin(self, number: int, text: bytes) -> Iterator[tuple[int, object]]:
        """A line that is not one value: several, the first of many, or one with something around it."""
        text = self._without_prefix(text)
        if not text:
            return
        self._from = number
        values, rest, problem = _values(text)
        for value in values:
            yield number, value
        if problem:
            self._bad(number, problem)
        elif rest:
            yield from self._go_on(rest)

    def _without_prefix(self, text: bytes) -> bytes:
        """What a log has put around a value taken away; nothing while the line goes on."""
        found = _CRI.match(text)
        if found is not None:
            self._log.append(text[found.end() :])
            if found[1] == b"P" and sum(map(len, self._log)) <= self._most:
                return b""
            text = b"".join(self._log)
            self._log.clear()
            return text
        if text[:1] in (b"{", b"["):
            request = None
            if text[:1] == b"[":  # a log's `[time] [thread] ...`
                request = _REQUEST.search(text, 0, _MOST_PREFIX)
                if request is not None and not text[1:2].isalnum():
                    request = None
            return text[request.start() :] if request is not None else text
        request = _REQUEST.search(text, 0, _MOST_PREFIX)
        return text[request.start() :] if request is not None else text

    def _go_on(self, text: bytes) -> Iterator[tuple[int, object]]:
        self._pending.append(text)
        self._size += len(text)
        try:
            self._count(text)
        except _Broken:
            self._give_up()
            return
        if self._size > self._most:
            self._bad(self._from, f"is longer than {self._most:,} bytes")
            self._forget()
        elif not self._open:
            whole = b"".join(self._pending)
            self._forget()
            values, rest, problem = _values(whole.strip(_BETWEEN))
            for value in values:
                yield self._from, value
            if problem or rest:
                self._bad(self._from, problem or "is not JSON")

    def _count(self, text: bytes) -> None:
        """Follow the brackets.

        Raises:
            _Broken: they do not fit, or a string does not end in its line.
        """
        bare = _STRING.sub(b"", text)
        if b'"' in bare:
            raise _Broken
        for bracket in bare.translate(None, _NO_BRACKETS):
            opening = _PAIRS.get(bracket)
            if opening is None:
                self._open.append(bracket)
            elif not self._open or self._open.pop() != opening:
                raise _Broken

    def _whole(self, text: bytes) -> tuple[object] | None:
        """The value of a line that is a request by itself: then what is pending was cut off."""
        if not (text.startswith(b"{") and text.endswith(b"}") and _REQUEST.match(text)):
            return None
        try:
            return (json.loads(text),)
        except (ValueError, RecursionError):
            return None

    def _give_up(self) -> None:
        self._bad(self._from, "is not JSON")
        self._forget()

    def _forget(self) -> None:
        self._pending.clear()
        self._open.clear()
        self._size = 0


def _values(text: bytes) -> tuple[list[object], bytes, str]:
    """The values that stand one after the other at the beginning, what is behind them and may go on in the next line,
    and what is wrong."""
    found: list[object] = []
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        return found, b"", "is not UTF-8 (where it is Latin-1: iconv -f latin1 -t utf-8)"
    at, end = 0, len(decoded)
    between = _BETWEEN[:-3].decode() + "\ufeff"
    while at < end:
        if decoded[at] in between:
            at += 1
            continue
        try:
            value, at = _decoder.raw_decode(decoded, at)
        except RecursionError:
            return found, b"", "is nested too deeply"
        except ValueError:
            if decoded[at] not in "{[":
                return found, b"", "has something that is no JSON behind it" if found else "is not JSON"
            return found, decoded[at:].encode(), ""
        found.append(value)
    return found, b"", ""
