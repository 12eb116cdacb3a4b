"""What a trace is once it is read: plain immutable objects, no numpy, no protobuf.

Ids are lower-case hex strings (32 and 16 digits), times are integer nanoseconds since the epoch as the
sender gave them, durations integer nanoseconds, never below 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

Value = str | bool | int | float | bytes | None | list[Any] | dict[str, Any]
"""An attribute value: OTLP's AnyValue. Bounded on reading, never to be printed raw."""


class Kind(Enum):
    """OTLP span kind; the value is the number on the wire."""

    UNSPECIFIED = 0
    INTERNAL = 1
    SERVER = 2
    CLIENT = 3
    PRODUCER = 4
    CONSUMER = 5


class Component(Enum):
    """Who did the work of a span; the value names the theme colour."""

    APISERVER = "apiserver"
    ETCD = "etcd"
    WEBHOOK = "webhook"
    KUBELET = "kubelet"
    RUNTIME = "runtime"
    OTHER = "other"


class Settled(Enum):
    """How complete a trace is believed to be."""

    SETTLED = "settled"  # quiet for 10 s, every parent seen
    ARRIVING = "still arriving"  # a span came in the last 10 s
    MISSING = "missing"  # quiet, but parents were never seen


@dataclass(frozen=True, slots=True)
class Request:
    """An API request as its URL and spans tell it. A name that does not apply is ""; for a non-resource URL
    `resource` is "" and `path` says it all."""

    verb: str  # Kubernetes' verb, lower case: get list watch create update patch delete deletecollection, or the method
    group: str
    version: str
    resource: str
    subresource: str
    namespace: str
    name: str
    user_agent: str
    code: int | None
    audit_id: str
    path: str = ""

    def to_json(self) -> dict[str, Any]:
        """The `request` object of `traces --json`: "" becomes null, except group (the core group is "")."""
        return {
            "verb": self.verb,
            "group": self.group if self.resource else None,
            "version": self.version or None,
            "resource": self.resource or None,
            "subresource": self.subresource or None,
            "namespace": self.namespace or None,
            "name": self.name or None,
            "user_agent": self.user_agent or None,
            "code": self.code,
            "audit_id": self.audit_id or None,
            "path": self.path or None,
        }


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """A row of the Requests list: what the resident index knows of a trace."""

    trace_id: str
    start: int
    duration_ns: int
    spans: int
    errors: int
    services: tuple[str, ...]
    settled: Settled
    missing: int  # parents not seen
    source: str
    instance: str  # service.instance.id of the headline's resource
    headline: str  # name of the headline span
    request: Request | None
    webhooks: tuple[str, ...] = ()
    failure: str = ""  # status message of a failed webhook call, or ""
    failed_webhook: str = ""  # the webhook of that call
    created: str = ""  # name of the object that a create stored, which its URL does not tell


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a span."""

    time: int
    name: str
    attributes: dict[str, Value]


@dataclass(frozen=True, slots=True)
class Link:
    """A link to a span of this or another trace."""

    trace_id: str
    span_id: str
    attributes: dict[str, Value]


@dataclass(frozen=True, slots=True)
class Body:
    """The part of a span that is decoded only when it is looked at."""

    attributes: dict[str, Value]
    events: tuple[Event, ...]
    links: tuple[Link, ...]
    status_message: str
    resource: dict[str, Value]
    scope_name: str
    scope_version: str
    dropped: tuple[int, int, int]  # attributes, events, links dropped by the sender
    trace_state: str = ""
    flags: int = 0
    left_out: tuple[int, int, int, int] = (0, 0, 0, 0)  # attributes, events, links and cut values that we left out


@dataclass(frozen=True, slots=True)
class Span:
    """A span as the index knows it: enough for the tree and the waterfall."""

    trace_id: str
    span_id: str
    parent_id: str  # "" for a root
    name: str
    kind: Kind
    start: int
    end: int
    status: int  # 0 unset, 1 ok, 2 error
    service: str
    instance: str
    component: Component
    source: str
    chunk: int  # where the body is: chunk id and row in it
    row: int
    request: bool = False  # an apiserver SERVER span

    @property
    def duration(self) -> int:
        """Nanoseconds, never below 0; 0 without a start time, for then nobody knows."""
        return max(0, self.end - self.start) if self.start else 0


class Oddity(Enum):
    """What is unusual about a span's place; shown as a mark with these words."""

    ORPHAN = "parent not seen (yet)"
    SELF_PARENT = "names itself as its parent"
    CYCLE = "its parents form a circle"
    DUPLICATE = "sent again with other content"
    BACKWARDS = "ends before it starts"
    ZERO_TIME = "has no start time"
    FAR_TIME = "its time is beyond what can be shown"
    BEFORE_PARENT = "starts before its parent"
    OUTLIVES = "outlives its parent"


@dataclass(slots=True)
class Node:
    """A span in its tree. Children are in start order."""

    span: Span
    depth: int = 0
    children: list[Node] = field(default_factory=list)
    oddities: frozenset[Oddity] = frozenset()
    self_ns: int = 0
    critical_ns: int = 0  # of the critical path: see `timing.critical_path`


@dataclass(slots=True)
class Trace:
    """A whole trace, built. `roots` are in start order; an orphan is a root with the ORPHAN oddity.
    `left_out` counts spans over the cap that are not in the tree."""

    trace_id: str
    roots: list[Node]
    headline: Node | None
    spans: int
    errors: int
    start: int  # earliest start, zero times aside
    end: int  # latest end
    settled: Settled
    missing: int
    left_out: int = 0
    request: Request | None = None
