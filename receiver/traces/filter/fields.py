"""The fields of a filter: their names, what may be compared with them, and what they are of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import Final

from receiver.traces.filter.attributes import number
from receiver.traces.filter.patterns import Pattern, PatternError
from receiver.traces.phases import GROUPS, Phase
from receiver.traces.semantics import ALIASES


class Kind(Enum):
    """What values a field has."""

    TEXT = "text"
    ID = "the start of an id in hex digits"
    CODE = "a status code such as 404, or a class such as 5xx"
    COUNT = "a whole number"
    TIME = "a time such as 100ms, 1.5s, 10m"
    SIZE = "a size such as 4096, 10KiB, 1MiB"
    FLAG = "yes or no"
    CHOICE = "one of a few words"
    ATTRIBUTE = "a text or a number"


class Level(Enum):
    """What a field tells about."""

    TRACE = "trace"
    SPAN = "span"  # outside any(...): some span of the trace
    BOTH = "both"  # of the span inside any(...), of the trace outside


@dataclass(frozen=True, slots=True)
class Field:
    """One field. `says` is for help and completion; `keys` are the attributes that are read."""

    name: str
    kind: Kind
    level: Level
    says: str
    keys: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()


COMPONENTS: Final = ("apiserver", "etcd", "webhook", "kubelet", "runtime", "other")
KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")
PHASE_FIELDS: Final[dict[str, tuple[Phase, ...]]] = {
    **GROUPS,
    **{
        name: (Phase[name.upper()],)
        for name in ("authentication", "impersonation", "queue", "authorization", "mutating", "validating")
    },
}
"""Fields that are the time a request spent in these phases."""

FIELDS: Final[dict[str, Field]] = {
    field.name: field
    for field in (
        Field("verb", Kind.TEXT, Level.TRACE, "Kubernetes' verb: get, list, watch, create, ..."),
        Field("resource", Kind.TEXT, Level.TRACE, "pods, or pods/status"),
        Field("ns", Kind.TEXT, Level.TRACE, "the namespace"),
        Field("name", Kind.TEXT, Level.TRACE, "the name of the object"),
        Field("ua", Kind.TEXT, Level.TRACE, "the user agent contains it"),
        Field("code", Kind.CODE, Level.BOTH, "the status code: 404, 5xx, >=400"),
        Field("group", Kind.TEXT, Level.TRACE, "the API group"),
        Field("audit", Kind.TEXT, Level.TRACE, "the audit id starts with it"),
        Field("webhook", Kind.TEXT, Level.BOTH, "the name or the configuration of a webhook that was called"),
        Field("instance", Kind.TEXT, Level.BOTH, "the API server's instance id starts with it"),
        Field("source", Kind.TEXT, Level.TRACE, "the listener that it came by"),
        Field("service", Kind.TEXT, Level.SPAN, "the service of any span"),
        Field("component", Kind.CHOICE, Level.SPAN, "of any span", choices=COMPONENTS),
        Field("span", Kind.TEXT, Level.SPAN, "the name of any span"),
        Field("kind", Kind.CHOICE, Level.SPAN, "the kind of any span", choices=KINDS),
        Field("trace", Kind.ID, Level.TRACE, "the trace id starts with it"),
        Field("duration", Kind.TIME, Level.BOTH, "how long it took"),
        Field("self", Kind.TIME, Level.SPAN, "what any span took itself, without those below it"),
        *(
            Field(name, Kind.TIME, Level.TRACE, f"time of the request spent in {name}")
            for name in PHASE_FIELDS
            if name != "other"
        ),
        Field("other", Kind.TIME, Level.TRACE, "time of the request spent in nothing that has a name"),
        Field("errors", Kind.COUNT, Level.BOTH, "failed spans"),
        Field("spans", Kind.COUNT, Level.TRACE, "spans of the trace"),
        Field("settled", Kind.FLAG, Level.TRACE, "nothing came for ten seconds"),
        Field("orphan", Kind.FLAG, Level.TRACE, "the parent of a span was not seen"),
        Field("age", Kind.TIME, Level.TRACE, "since its last span arrived"),
        Field(
            "size",
            Kind.SIZE,
            Level.SPAN,
            "bytes of an answer or of a body sent",
            keys=ALIASES["response_size"] + ALIASES["request_size"],
        ),
    )
}
"""Fields by name, in the order in which they are offered."""
ALSO: Final = {"namespace": "ns", "useragent": "ua", "error": "errors"}
"""Other names of fields."""

_CONCEPTS: Final[dict[str, tuple[str, ...]]] = {}
for _keys in ALIASES.values():
    for _key in _keys:
        _CONCEPTS[_key] = tuple(dict.fromkeys((*_CONCEPTS.get(_key, ()), *_keys)))
ATTRIBUTES: Final = tuple(key for key in _CONCEPTS if "." in key or "-" in key)
"""Names of attributes that are known to occur, for completion."""


def resolve(wrote: str) -> Field | None:
    """The field, or the attribute, that a name means; None for neither.

    An attribute is a name with a dot, one of Kubernetes' own with a dash, or anything behind `@`. All names that one
    concept has in the releases (`semantics.ALIASES`) are read for any of them.
    """
    name = wrote.casefold()
    name = ALSO.get(name, name)
    if name in FIELDS:
        return FIELDS[name]
    name = wrote.removeprefix("@")
    if name and (wrote[0] == "@" or "." in name or name in _CONCEPTS):
        return Field(wrote, Kind.ATTRIBUTE, Level.SPAN, "an attribute", keys=_CONCEPTS.get(name, (name,)))
    return None


def nearest(wrote: str) -> tuple[str, ...]:
    """Names of fields and attributes that may have been meant, at most three."""
    return tuple(get_close_matches(wrote.casefold()[:60], (*FIELDS, *ALSO, *ATTRIBUTES), 3, 0.6))


def nearest_attribute(wrote: str) -> str:
    """The known attribute that may have been meant by a name that none has; "" where there is none, or it is known."""
    name = wrote.removeprefix("@")
    found = [] if name in _CONCEPTS else get_close_matches(name.casefold()[:60], ATTRIBUTES, 1, 0.75)
    return found[0] if found else ""


# --- values ---------------------------------------------------------------------------------------
_TIMES: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # the micro sign
    "μs": 1_000,  # casefolded, and what a Greek keyboard writes
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "min": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
_SIZES: Final = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "k": 1 << 10,
    "m": 1 << 20,
    "g": 1 << 30,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
}
_NUMBER: Final = r"\d{1,18}(?:\.\d{1,9})?"
_TIME: Final = re.compile(rf"({_NUMBER})([a-zµμ]+)", re.ASCII)
_TIMES_TEXT: Final = re.compile(rf"(?:{_NUMBER}[a-zµμ]+)+", re.ASCII)
_SIZE_TEXT: Final = re.compile(rf"({_NUMBER})([a-z]*)", re.ASCII)
_CODE: Final = re.compile(r"[1-9]xx|\d{1,3}|", re.ASCII)
_ID: Final = re.compile(r"[0-9a-f]{1,32}")
YES: Final = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
MAX_NUMBER: Final = (1 << 62) - 1
ORDERED: Final = (">", ">=", "<", "<=")


class WrongValue(ValueError):
    """str() says what is wrong, without a full stop. `operator`: that one is, not the value."""

    def __init__(self, says: str, expected: str, operator: bool = False) -> None:
        super().__init__(says)
        self.expected = expected
        self.operator = operator


def nanoseconds(text: str) -> int:
    """A time such as `1.5s` or `1m30s`; 0 needs no unit.

    Raises:
        WrongValue: it is none.
    """
    expected = Kind.TIME.value
    if text == "0":
        return 0
    if not _TIMES_TEXT.fullmatch(text):
        bare = re.fullmatch(_NUMBER, text, re.ASCII)
        says = (
            f"{text} has no unit, write {text}ms or {text}s" if bare else "that is no time, write it as 100ms or 1.5s"
        )
        raise WrongValue(says, expected)
    total = 0
    for count, unit in _TIME.findall(text):
        if unit not in _TIMES:
            raise WrongValue(f"{unit[:20]} is no unit of time, use us, ms, s, m or h", expected)
        total += _times(count, _TIMES[unit])
    return min(total, MAX_NUMBER)


def _times(text: str, by: int) -> int:
    whole, _, part = text.partition(".")
    return int(whole) * by + (int(part) * by // 10 ** len(part) if part else 0)


def size(text: str) -> int:
    """A size in bytes such as `1MiB`.

    Raises:
        WrongValue: it is none.
    """
    found = _SIZE_TEXT.fullmatch(text)
    if not found or found[2] not in _SIZES:
        raise WrongValue("that is no size, write it as 4096, 10KiB or 1MiB", Kind.SIZE.value)
    return min(_times(found[1], _SIZES[found[2]]), MAX_NUMBER)


def check(field: Field, op: str, text: str) -> str:
    """The value as it is kept: casefolded, numbers in decimal (ns, bytes).

    Args:
        op: not `!=` and `!~`, which are as `=` and `=~`.

    Raises:
        WrongValue: the field cannot have such a value, or cannot be compared so.
    """
    kind = field.kind
    if op == "=~":
        if kind not in (Kind.TEXT, Kind.ATTRIBUTE, Kind.CHOICE):
            raise WrongValue(f"{field.name} is {kind.value} and takes no pattern", "= != > >= < <=", True)
        try:
            Pattern(text)
        except PatternError as error:
            raise WrongValue(f"that is no pattern that can be searched ({error})", "a regular expression") from None
        return text
    ordered = op in ORDERED
    if ordered and kind in (Kind.TEXT, Kind.ID, Kind.FLAG, Kind.CHOICE):
        raise WrongValue(f"{field.name} is no number, use = != =~ !~", "= != =~ !~", True)
    if kind is Kind.TIME:
        return str(nanoseconds(text))
    if kind is Kind.SIZE:
        return str(size(text))
    if kind is Kind.COUNT:
        if not re.fullmatch(r"\d{1,18}", text, re.ASCII):
            raise WrongValue(f"{field.name} is a whole number", kind.value)
        return str(int(text))
    if kind is Kind.CODE and (not _CODE.fullmatch(text) or (ordered and not text.isdigit())):
        raise WrongValue("that is no status code, use a number such as 404, or a class such as 5xx", kind.value)
    if kind is Kind.ID and not _ID.fullmatch(text):
        raise WrongValue("that is no trace id, use up to 32 hex digits from its start", kind.value)
    if kind is Kind.FLAG:
        if text not in YES:
            raise WrongValue(f"{field.name} is yes or no", kind.value)
        return "yes" if YES[text] else "no"
    if kind is Kind.CHOICE and text not in field.choices:
        raise WrongValue(f"{field.name} is one of {', '.join(field.choices)}", ", ".join(field.choices))
    if kind is Kind.ATTRIBUTE and ordered and number(text) is None:
        try:
            return str(size(text))
        except WrongValue:
            raise WrongValue("only numbers are greater or less", "a number, or a size such as 1MiB") from None
    return text
