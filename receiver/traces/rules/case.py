"""What a rule looks at, what it returns, and how both are put into words.

Phases and the critical path come from names and times; bodies are decoded one span at a time, when a rule asks.
Names and messages of spans are bounded here, to be made printable by whoever shows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol
from urllib.parse import parse_qsl

from receiver.traces.hops import hop_of
from receiver.traces.model import Body, Component, Kind, Node, Request, Span, Trace
from receiver.traces.phases import Phases
from receiver.traces.semantics import ALIASES, MAX_TARGET, long_running
from receiver.traces.timing import FILTERS, CriticalPath, Step

NOTABLE_NS: Final = 100_000_000
"""A part of a request that took less is no cause; of a cluster's requests in good health it exceeds some ten times
their usual length (recordings: p95 of creates through two webhooks is 42 ms)."""
NOTABLE_SHARE: Final = 0.2
SLOW_HOOKS_NS: Final = 250_000_000
"""From here on admission webhooks are a cause, one or all together: the creates of a cluster in good health often reach
0.1 s through two of them (recordings)."""
MAX_TEXT: Final = 160
"""Characters of a name or message from a span that are repeated."""
MAX_OPTIONS: Final = 64
"""Parameters of a URL that are looked at."""
MAX_NODES: Final = 64
"""Spans of one name that are looked into; a trace may hold any number."""
FAILED: Final = 2
VERBS: Final = ("Get", "List", "WatchList", "Create", "Update", "Patch", "Delete")
WRITES: Final = ("Create", "Update", "Patch", "Delete")
HOOKS: Final = {
    "Call mutating webhook": "Mutating webhook",
    "Call validating webhook": "Validating webhook",
    "Call conversion webhook": "Conversion webhook",
}


class Source(Protocol):
    """Where bodies come from: `receiver.traces.bodies.Bodies`."""

    def bodies(self, spans: Sequence[Span]) -> list[Body | None]:
        """Bodies of these spans, None where they are gone."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause. `failed`: the request or a part of it failed; else it is about time. `ns` of the request's time are
    behind it, 0 where time does not matter.

    `phrase` is for a list, `span_id` the span to look at."""

    cause: str
    text: str
    phrase: str
    ns: int = 0
    failed: bool = False
    span_id: str = ""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """That nobody waited for the answer any more: the client went away (`canceled`) or the time that it had given was
    over. `node` is the call that was being waited for, if one is known."""

    canceled: bool
    node: Node | None


class Case:
    """A trace under examination. Its `head` need not be a request; then `request` is None."""

    def __init__(self, trace: Trace, path: CriticalPath, phases: Phases, source: Source, waited: int) -> None:
        assert trace.headline is not None
        self.trace = trace
        self.head = trace.headline
        self.path = path
        self.phases = phases
        self.request: Request | None = trace.request if trace.headline.span.request else None
        self.code = self.request.code if self.request is not None else None
        self.duration = phases.duration
        self.before = waited
        """Nanoseconds of `authentication` before the request's own span, 0 where it is not known."""
        self.nodes = list(_own_nodes(self.head))
        self._by_name: dict[str, list[Node]] = {}
        self._longest: dict[str, list[Node]] = {}
        for node in self.nodes:
            self._by_name.setdefault(node.span.name, []).append(node)
        self._source = source
        self._bodies: dict[int, Body | None] = {}
        self._parts = {id(step.node): step for step in path.steps}

    # -- spans ---------------------------------------------------------------------------------------
    def named(self, *names: str) -> list[Node]:
        """Nodes of the request itself (not of a request inside a webhook) with one of these names, in their order: of
        each at most `MAX_NODES`, for their bodies may be read, those that the request waited for longest."""
        return [node for name in names for node in self._longest_named(name)]

    def count(self, name: str) -> int:
        """How many nodes of the request itself have this name."""
        return len(self._by_name.get(name, ()))

    def longest(self, nodes: Sequence[Node]) -> list[Node]:
        """The `MAX_NODES` of these that the request waited for longest, in their order."""
        if len(nodes) <= MAX_NODES:
            return list(nodes)
        chosen = sorted(range(len(nodes)), key=lambda at: -self.time_of(nodes[at]))[:MAX_NODES]
        return [nodes[at] for at in sorted(chosen)]

    def _longest_named(self, name: str) -> list[Node]:
        if name not in self._longest:
            self._longest[name] = self.longest(self._by_name.get(name, ()))
        return self._longest[name]

    def step(self, node: Node) -> Step | None:
        """The node's part of the critical path."""
        return self._parts.get(id(node))

    def time_of(self, node: Node) -> int:
        """Nanoseconds of the request that passed in this node and below it, 0 off the critical path."""
        step = self.step(node)
        return step.end - step.start if step is not None else 0

    @cached_property
    def hook_calls(self) -> dict[int, Node]:
        """Calls to webhooks (CLIENT spans) by identity, with the span that names the webhook: `Call ... webhook`, the
        CLIENT span itself in 1.22 to 1.25 (3.3)."""
        found = {
            id(call): hook
            for kind in HOOKS
            for hook in self._by_name.get(kind, ())
            for call in hook.children
            if call.span.kind is Kind.CLIENT
        }
        for node in self._by_name.get("POST", ()):
            if node.span.kind is Kind.CLIENT and node.span.component is Component.APISERVER:
                found.setdefault(id(node), node)
        return found

    def calls(self, hook: Node) -> list[Node]:
        """The CLIENT spans of a webhook's call."""
        if hook.span.kind is Kind.CLIENT:
            return [hook]
        return [child for child in hook.children if child.span.kind is Kind.CLIENT]

    @cached_property
    def proxied(self) -> list[Node]:
        """HTTP calls of the API server that are no webhook's: to an aggregated API (3.2)."""
        return [
            node
            for node in self.nodes
            if node.span.kind is Kind.CLIENT
            and node.span.component is Component.APISERVER
            and not node.span.name.startswith(("etcdserverpb.", "runtime.v1"))
            and id(node) not in self.hook_calls
        ]

    @cached_property
    def etcd_calls(self) -> list[Node]:
        """Calls of the API server to etcd."""
        return [
            node
            for node in self.nodes
            if node.span.kind is Kind.CLIENT
            and node.span.component is Component.APISERVER
            and node.span.name.startswith("etcdserverpb.")
        ]

    @cached_property
    def filters_traced(self) -> bool:
        """Whether each filter has its span, as since 1.34; before, one `authentication` at most (3.3)."""
        return any(self._by_name.get(name) for name in FILTERS - {"authentication"})

    @cached_property
    def internal_traced(self) -> bool:
        """Whether there are spans of what happens inside the API server, as since 1.26 (3.3)."""
        return self.filters_traced or any(self._by_name.get(name) for name in ("authentication", *VERBS))

    @cached_property
    def stream(self) -> bool:
        """Whether the request lasts as long as its client likes: a watch, `logs -f`, `exec` and the like. One that was
        refused did not begin to, and logs that are not followed end by themselves."""
        if self.request is None or not long_running(self.request) or (self.code or 0) >= 400:
            return False
        if self.request.subresource == "log" and self.attribute(self.head, "target"):
            return self.query.get("follow", "").lower() in ("true", "1")
        return True

    @cached_property
    def query(self) -> dict[str, str]:
        """What the URL of the request asks for behind its path, by name; of what is there twice the last. Nothing where
        its span does not give it, or where that is more than anybody means to ask with."""
        found = self.attribute(self.head, "target", MAX_TARGET).partition("?")[2]
        found = found or self.attribute(self.head, "query", MAX_TARGET)
        try:
            return dict(parse_qsl(found, max_num_fields=MAX_OPTIONS))
        except ValueError:
            return {}

    @property
    def dry_run(self) -> bool:
        """Whether nothing was to be stored, as the URL says (`dryRun=All`); what a body of DeleteOptions says is not in
        the trace."""
        return self.query.get("dryRun") == "All"

    # -- bodies --------------------------------------------------------------------------------------
    def body(self, node: Node) -> Body | None:
        """The body of a node, decoded once."""
        key = id(node)
        if key not in self._bodies:
            self._bodies[key] = self._source.bodies((node.span,))[0]
        return self._bodies[key]

    def attribute(self, node: Node, concept: str, limit: int = MAX_TEXT) -> str:
        """An attribute as text, "" where there is none; `concept` is a key of `semantics.ALIASES`, or the attribute."""
        body = self.body(node)
        if body is not None:
            for key in ALIASES.get(concept, (concept,)):
                value = body.attributes.get(key)
                if isinstance(value, (str, int)) and value != "":
                    return cut(str(value), limit)
        return ""

    def message(self, node: Node) -> str:
        """The status message of a node."""
        body = self.body(node)
        return cut(body.status_message) if body is not None else ""

    def events(self, node: Node) -> Iterable[tuple[int, str, dict[str, str]]]:
        """(ns after the span's start, name, attributes as texts) of a node's events; a time that is not within its
        span is moved to the nearer end."""
        body = self.body(node)
        for event in body.events if body is not None else ():
            texts = {key: cut(str(value), 600) for key, value in event.attributes.items()}
            yield max(0, min(event.time - node.span.start, node.span.duration)), event.name, texts

    @cached_property
    def error(self) -> tuple[Node | None, str]:
        """(the verb span, the error that it ended with, "" for none): event `... failed`, attribute `err` (10)."""
        for node in self.named(*VERBS):
            for _, _, values in self.events(node):
                if values.get("err"):
                    return node, values["err"]
        return None, ""

    @cached_property
    def given_up(self) -> GivenUp | None:
        """Whether nobody waited any more. A client that goes away leaves `context canceled` on the call that was waited
        for (10), or where a connection was in the way `use of closed network connection`; the verb span's error is then
        `Timeout: request did not complete within requested timeout - context canceled` (recorded), whatever call it
        was. A deadline of the request itself is in that error, or on a call to etcd."""
        if self.stream:
            return None
        low = self.error[1].lower()
        late = "did not complete within" in low
        failed = [node for node in self.nodes if node.span.status == FAILED and node.span.kind is Kind.CLIENT]
        for node in failed[:MAX_NODES]:
            if node.span.component is not Component.APISERVER:
                continue
            said, hook = self.message(node).lower(), self.hook_calls.get(id(node))
            if "context canceled" in said or ("closed network connection" in said and late):
                return GivenUp(True, hook or node)
            if "deadline exceeded" in said and (hook is None or (late and "deadline exceeded" in low)):
                return GivenUp(False, hook or node)
        if late:
            return GivenUp("canceled" in low, None)
        if self.code in (499, 504) and self.named(*VERBS):
            return GivenUp(self.code == 499, None)
        return None

    # -- words ---------------------------------------------------------------------------------------
    def notable(self, ns: int) -> bool:
        """Whether that much time is worth a sentence."""
        return ns >= NOTABLE_NS and ns >= NOTABLE_SHARE * self.duration

    def slow_hooks(self, ns: int) -> bool:
        """Whether that much time in admission webhooks is worth a sentence."""
        return ns >= SLOW_HOOKS_NS and self.notable(ns)

    def took(self, ns: int) -> str:
        """`1.51 s (60 %)`."""
        return f"{time_text(ns)} ({share_text(ns, self.duration)})"

    def hook_name(self, hook: Node) -> str:
        """`Mutating webhook NAME`. The name is the webhook's; where that is its configuration's and a domain, the
        configuration's, which is what `kubectl` knows. 1.22 to 1.25 only tell where it was called."""
        configuration = self.attribute(hook, "configuration") or self.attribute(hook, "definition")
        name = self.attribute(hook, "webhook") or configuration
        if configuration and name.startswith(configuration + "."):
            name = configuration
        if not name and hook.span.kind is Kind.CLIENT:
            host = self.attribute(hook, "url").partition("?")[0] or self.attribute(hook, "host")
            name = f"at {host}" if host else ""
        return f"{HOOKS.get(hook.span.name, 'Webhook')} {name}".rstrip()


def _own_nodes(head: Node) -> Iterable[Node]:
    stack = [head]
    while stack:
        node = stack.pop()
        yield node
        stack += [child for child in reversed(node.children) if not child.span.request]


def inside_or_on_the_way(ns: int, call: Node | None, who: str) -> str:
    """The end of a sentence on a call that took `ns`: where the time went, as far as both its sides tell."""
    hop = hop_of(call) if call is not None else None
    if hop is None:
        return "; its own spans are not here, so whether it or the way to it is slow cannot be known"
    inside = max(0, hop.client.span.duration - hop.gap)
    if inside >= 0.95 * ns:
        return f", all of it inside {who} itself"
    if inside >= 0.5 * ns:
        return f", {time_text(inside)} of it inside {who} itself"
    spent = f", but only {time_text(inside)} inside {who}: "
    if hop.back >= 0 and hop.there >= 0.7 * hop.gap:
        return f"{spent}{time_text(hop.there)} went by before it took up the call (connection, TLS or a queue)"
    if hop.there >= 0 and hop.back >= 0.7 * hop.gap:
        return f"{spent}{time_text(hop.back)} went by after its answer (network, or an API server without a free CPU)"
    return f"{spent}the rest went by on the way there and back (network, TLS, a queue)"


def short_hook(name: str) -> str:
    """A webhook's name for a list: `webhook label-injector`."""
    last = name.rpartition(" ")[2]
    address = last.partition("://")[2].partition("/")[0]
    return f"webhook {address or last.partition('.')[0]}"


def lower(text: str) -> str:
    """A sentence's beginning within a sentence."""
    return text[:1].lower() + text[1:]


def cut(text: str, limit: int = MAX_TEXT) -> str:
    """At most so many characters, white space as single spaces."""
    text = " ".join(text[: 4 * limit].split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def time_text(ns: int) -> str:
    """Three digits with a unit: `2.53 s`, `41.2 ms`; minutes and hours from two on, nothing finer than 0.01 ms."""
    if ns >= 7_200_000_000_000:
        return f"{ns / 3600e9:,.{1 if ns < 36_000_000_000_000 else 0}f} h"
    if ns >= 120_000_000_000:
        return f"{ns / 60e9:,.0f} min"
    value, unit = (ns / 1e9, "s") if ns >= 999_500_000 else (ns / 1e6, "ms")
    if value < 0.005:
        return f"under 0.01 {unit}" if ns else f"0 {unit}"
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{digits}f} {unit}"


def size_text(count: int) -> str:
    """`6.1 MB`, `12 kB`."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.0f} kB"


def share_text(ns: int, of: int) -> str:
    """`60 %`, never more than all: spans of other clocks may stick out of the request."""
    return f"{100 * min(ns, of) / of:.0f} %" if of > 0 else "0 %"


def listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1]))) if parts else ""
