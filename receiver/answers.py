"""What a receiver answered, checked before anybody works with it: it may be another user's, and hostile.

An answer is bounded in bytes, in how much there is in it and in how deep it goes; each number fits into 64 bits, each
text is one line without control characters. What the screens rely on has the type that they expect.
"""

from __future__ import annotations

import json
from typing import Any, Final

from receiver.plain_text import one_line

MOST_BYTES: Final = 16 << 20
_MOST_VALUES: Final = 200_000
_MOST_ENTRIES: Final = 1_000
"""Of a list or an object; the receiver tells of 200 senders."""
_LONGEST: Final = 8_192  # characters of a text
_DEEPEST: Final = 8
_TOO_LARGE: Final = 1 << 63
_DIGITS: Final = 20

_TEXT, _NUMBER, _TRUTH = "a text", "a number", "true or false"
_STATUS: Final = {
    **dict.fromkeys(("version", "db", "message", "notice"), _TEXT),
    **dict.fromkeys(("child", "disk_full"), _TRUTH),
    **dict.fromkeys(
        (
            *("pid", "started", "accepted", "rejected", "refused", "malformed", "broken_off", "requests", "bytes_in"),
            *("evicted_spans", "evicted_traces", "live_bytes", "cap_bytes", "attached"),
        ),
        _NUMBER,
    ),
}
_SENDER: Final = {
    **dict.fromkeys(("peer", "service", "instance", "source", "agent"), _TEXT),
    **dict.fromkeys(("spans", "last"), _NUMBER),
}
_NEEDED: Final = ("pid", "cap_bytes", "version", "db")


class NoAnswer(Exception):
    """What came is no answer of a receiver's; str() says in a few words what is wrong with it."""


def read(operation: str, line: bytes) -> dict[str, Any]:
    """The fields of an answer, `ok` among them.

    Raises:
        NoAnswer: it is none.
    """
    if sum(map(line.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise NoAnswer("there is too much in it")
    try:
        said = json.loads(line, parse_int=_integer, parse_constant=_integer)
    except (ValueError, RecursionError):
        raise NoAnswer("it is no JSON") from None
    if not isinstance(said, dict):
        raise NoAnswer("it is no object")
    answer: dict[str, Any] = _bounded(said, 0)
    if answer.get("ok") is not True:
        return {"ok": False, "error": answer["error"]} if isinstance(answer.get("error"), str) else {"ok": False}
    if operation == "status":
        _check_status(answer)
    elif operation == "listen":
        answer["listener"] = _listener(answer.get("listener"))
        answer["more"] = [_listener(one) for one in _list(answer, "more")]
    return answer


def _check_status(answer: dict[str, Any]) -> None:
    _check(answer, _STATUS)
    for key in _NEEDED:
        if key not in answer:
            raise NoAnswer(f"{key} is not in it")
    answer["listeners"] = [_listener(one) for one in _list(answer, "listeners")]
    answer["senders"] = _list(answer, "senders")
    for sender in answer["senders"]:
        if not isinstance(sender, dict):
            raise NoAnswer("a sender is no object")
        _check(sender, _SENDER)


def _listener(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NoAnswer("a listener is no object")
    error = value.get("error")
    if not isinstance(value.get("name"), str) or not isinstance(value.get("address"), str):
        raise NoAnswer("a listener has no name or no address")
    if error is not None and not isinstance(error, str):
        raise NoAnswer("error is not a text")
    return {**value, "tls": value.get("tls") is True, "error": error}


def _check(found: dict[str, Any], kinds: dict[str, str]) -> None:
    for key, kind in kinds.items():
        if key not in found:
            continue
        value = found[key]
        if kind is _TEXT:
            good = isinstance(value, str)
        elif kind is _TRUTH:
            good = isinstance(value, bool)
        else:
            good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if not good:
            raise NoAnswer(f"{key} is not {kind}")


def _list(answer: dict[str, Any], key: str) -> list[Any]:
    value = answer.get(key, [])
    if not isinstance(value, list):
        raise NoAnswer(f"{key} is no list")
    return value


def _integer(text: str) -> int:
    if len(text) > _DIGITS or not text.lstrip("-").isdigit():
        raise ValueError("a number is too large")
    return int(text)


def _bounded(value: Any, depth: int) -> Any:
    """A value with every text in it made one line, and nothing in it that is too large."""
    if isinstance(value, str):
        return one_line(value[:_LONGEST])
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, (int, float)):
        if not abs(value) < _TOO_LARGE:  # infinity is not
            raise NoAnswer("a number is too large")
        return value
    if depth >= _DEEPEST or len(value) > _MOST_ENTRIES:
        raise NoAnswer("there is too much in it")
    if isinstance(value, dict):
        return {one_line(key[:_LONGEST]): _bounded(inside, depth + 1) for key, inside in value.items()}
    return [_bounded(inside, depth + 1) for inside in value]
