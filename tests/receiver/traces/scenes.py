"""Requests made for one cause each, and the way from them to a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from receiver.store.database import Database
from receiver.store.index import Index
from receiver.traces.bodies import Bodies
from receiver.traces.model import Body, Span
from receiver.traces.reader import load
from receiver.traces.verdict import Verdict, judge
from tests.receiver.traces import shapes
from tests.receiver.traces.shapes import CLIENT, FILTER, GRPC, HTTP, SERVER, T0, Recorder, chunks_of

Event = tuple[float, str, dict[str, Any]]
_METHODS = {"Create": "POST", "Update": "PUT", "Patch": "PATCH", "Delete": "DELETE"}


class Scene(Recorder):
    """A request of so many ms, with the filters of 1.36 and a verb span, to which causes are added."""

    def __init__(
        self,
        verb: str = "Create",
        ms: float = 1000,
        code: int | None = 201,
        target: str = shapes.PODS,
        **values: Any,
    ) -> None:
        super().__init__()
        method = _METHODS.get(verb, "GET")
        values = {"http.request.method": method, "http.target": target, **values}
        if code is not None:
            values["http.response.status_code"] = code
        self.server = self.span(f"{method} x", SERVER, scope=HTTP, ms=ms, values=values)
        self.queue = self.span("priorityandfairness", parent=self.server, scope=FILTER, ms=ms)
        self.verb = self.server

    def begin(self, verb: str, at: float = 0, authorization: float = 0, ms: float = 1000) -> Scene:
        """Add authorization and the verb span, which begin so late."""
        allowed = self.span("authorization", parent=self.queue, scope=FILTER, at=authorization, ms=ms - authorization)
        self.verb = self.span(verb, parent=allowed, at=at, ms=ms - at)
        return self

    def say(self, *events: Event) -> None:
        """Give the last span these events: (ms after T0, name, attributes)."""
        for at, name, values in events:
            made = self.spans[-1][3].events.add(time_unix_nano=T0 + int(at * 1_000_000), name=name)
            made.attributes.extend(shapes.attributes(values))

    def fail(self, error: str, at: float = 900) -> Scene:
        """The last span, a verb's, ended with this error."""
        self.say((at, "Write to database call failed", {"err": error}))
        return self

    def hook(
        self, kind: str, name: str, at: float, ms: float, own: float | None = None, *, late: float = 0.5, **call: Any
    ) -> None:
        """A webhook's call; the webhook's own span lasts `own` ms, and `late` of the rest comes before it."""
        values = {"webhook": f"{name}.example.com", "configuration": name}
        hook = self.span(f"Call {kind} webhook", parent=self.verb, at=at, ms=ms, values=values)
        post = self.span("HTTP POST", CLIENT, hook, at=at, ms=ms, **call)
        if own is not None:
            self.span("POST /", SERVER, post, service=name, scope="", at=at + (ms - own) * late, ms=own)

    def etcd(self, at: float, ms: float, own: tuple[float, float] | None, what: str = "KV/Txn", **call: Any) -> None:
        """A call to etcd; `own` is how long after it etcd's own span begins, and how long that is."""
        client = self.span(f"etcdserverpb.{what}", CLIENT, self.verb, scope=GRPC, at=at, ms=ms, **call)
        if own is not None:
            self.span(f"etcdserverpb.{what}", SERVER, client, service="etcd", scope=GRPC, at=at + own[0], ms=own[1])

    def verdict(self, authentication: int = 0) -> Verdict:
        return verdict_of(self, authentication=authentication)


def verdict_of(
    rec: Recorder, name: str = "trace", *, order: Sequence[int] | None = None, authentication: int = 0
) -> Verdict:
    """The verdict on a recorded trace."""
    database = Database.memory()
    database.append(chunks_of(rec.requests(order)))
    index = Index()
    while chunks := database.read_after(index.last_chunk):
        index.extend(chunks)
    trace = load(index, rec.trace_id(name), T0, live=False)
    assert trace is not None
    return judge(trace, Bodies(database), authentication=authentication)


def causes(verdict: Verdict) -> list[str]:
    assert 1 <= len(verdict.sentences) <= 3
    return [finding.cause for finding in verdict.findings]


class NoBodies:
    """All bodies were evicted."""

    def bodies(self, spans: Sequence[Span]) -> list[Body | None]:
        return [None] * len(spans)
