"""One to three sentences that say what became of a request and where its time went.

Each rule is a function that looks for one cause and returns what it found; its docstring names the fact it rests on
(section numbers are of the project's fact sheet on Kubernetes tracing). Failures come before slowness, more time
before less. Where data is missing the sentence says what cannot be known.

Rules see phases and the critical path, which come from names and times, and decode the few bodies they need. Texts
hold names and messages from spans: bounded here, to be made printable by whoever shows them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from receiver.traces.model import Body, Component, Kind, Node, Request, Settled, Span, Trace
from receiver.traces.phases import Phase, Phases, phases_of
from receiver.traces.semantics import ALIASES
from receiver.traces.timing import CriticalPath, Step, critical_path

NOTABLE_NS: Final = 100_000_000
"""A part of a request that took less is no cause; of a cluster's requests in good health it exceeds some ten times
their usual length (recordings: p95 of creates through two webhooks is 42 ms)."""
NOTABLE_SHARE: Final = 0.2
LARGE_RESPONSE: Final = 1 << 20
LARGE_LIST: Final = 500
LARGE_BODY: Final = 1 << 20
MAX_TEXT: Final = 160
"""Characters of a name or message from a span that are repeated."""
MAX_NODES: Final = 64
"""Spans of one name that are looked into; a trace may hold any number."""
_FAILED: Final = 2


class Source(Protocol):
    """Where bodies come from: `receiver.traces.bodies.Bodies`."""

    def bodies(self, spans: Sequence[Span]) -> list[Body | None]:
        """Bodies of these spans, None where they are gone."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause. `failed`: the request or a part of it failed; else it is about time, `ns` of it.

    `phrase` is for a list, `span_id` the span to look at."""

    cause: str
    text: str
    phrase: str
    ns: int = 0
    failed: bool = False
    span_id: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`sentences`: one to three. `findings`: all causes found, the first ones are in the sentences; none where
    nothing is remarkable."""

    sentences: tuple[str, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def text(self) -> str:
        """The sentences as one text."""
        return " ".join(self.sentences)

    @property
    def phrase(self) -> str:
        """A few words for a list, "" where nothing is remarkable."""
        return self.findings[0].phrase if self.findings else ""


class Case:
    """A request under examination: what the rules look at."""

    def __init__(self, trace: Trace, path: CriticalPath, phases: Phases, source: Source, waited: int) -> None:
        assert trace.headline is not None
        self.trace = trace
        self.head = trace.headline
        self.path = path
        self.phases = phases
        self.request: Request | None = trace.request
        self.code = self.request.code if self.request is not None else None
        self.duration = phases.duration
        self.before = waited
        """Nanoseconds of `authentication` before the request's own span, 0 where it is not known."""
        self.nodes = list(_own_nodes(self.head))
        self._by_name: dict[str, list[Node]] = {}
        for node in self.nodes:
            self._by_name.setdefault(node.span.name, []).append(node)
        self.hook_calls = {
            id(call) for kind in _HOOK_KINDS for hook in self._by_name.get(kind, ()) for call in _calls(hook)
        }
        self._source = source
        self._bodies: dict[str, Body | None] = {}
        self._parts = {step.node.span.span_id: step for step in path.steps}

    def named(self, *names: str) -> list[Node]:
        """Nodes of the request itself (not of a request inside a webhook) with one of these names: the first ones of
        each, for their bodies may be read."""
        return [node for name in names for node in self._by_name.get(name, ())[:MAX_NODES]]

    def body(self, node: Node) -> Body | None:
        """The body of a node, decoded once."""
        key = node.span.span_id
        if key not in self._bodies:
            self._bodies[key] = self._source.bodies((node.span,))[0]
        return self._bodies[key]

    def attribute(self, node: Node, concept: str) -> str:
        """An attribute as text, "" where there is none; `concept` is a key of `semantics.ALIASES`, or the attribute."""
        body = self.body(node)
        if body is not None:
            for key in ALIASES.get(concept, (concept,)):
                value = body.attributes.get(key)
                if isinstance(value, (str, int)) and value != "":
                    return _cut(str(value))
        return ""

    def message(self, node: Node) -> str:
        """The status message of a node."""
        body = self.body(node)
        return _cut(body.status_message) if body is not None else ""

    def step(self, node: Node) -> Step | None:
        """The node's part of the critical path."""
        return self._parts.get(node.span.span_id)

    def notable(self, ns: int) -> bool:
        """Whether that much time is worth a sentence."""
        return ns >= NOTABLE_NS and ns >= NOTABLE_SHARE * self.duration

    def took(self, ns: int) -> str:
        """`1.51 s (60 %)`."""
        return f"{_time(ns)} ({_share(ns, self.duration)})"

    def events(self, node: Node) -> Iterable[tuple[int, str, dict[str, str]]]:
        """(ns after the span's start, name, attributes as texts) of a node's events."""
        body = self.body(node)
        for event in body.events if body is not None else ():
            texts = {key: _cut(str(value), 600) for key, value in event.attributes.items()}
            yield event.time - node.span.start, event.name, texts

    @property
    def watch(self) -> bool:
        """Whether the request is a watch, which lasts as long as its client likes."""
        return self.request is not None and self.request.verb == "watch"


def _own_nodes(head: Node) -> Iterable[Node]:
    stack = [head]
    while stack:
        node = stack.pop()
        yield node
        stack += [child for child in reversed(node.children) if not child.span.request]


def _cut(text: str, limit: int = MAX_TEXT) -> str:
    text = " ".join(text[: 4 * limit].split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _time(ns: int) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6)):
        value = ns / size
        if value >= 1 or unit == "ms":
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:,.{digits}f} {unit}"
    return ""


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.0f} kB"


def _share(ns: int, of: int) -> str:
    return f"{100 * ns / of:.0f} %" if of else "0 %"


Rule = Callable[[Case], Iterable[Finding]]
RULES: list[Rule] = []


def _rule(function: Rule) -> Rule:
    RULES.append(function)
    return function


# --- webhooks -------------------------------------------------------------------------------------
_HOOK_KINDS: Final = {
    "Call mutating webhook": "Mutating webhook",
    "Call validating webhook": "Validating webhook",
    "Call conversion webhook": "Conversion webhook",
}


def _hook_name(case: Case, node: Node) -> str:
    name = case.attribute(node, "webhook") or case.attribute(node, "configuration")
    name = name or case.attribute(node, "definition")
    return f"{_HOOK_KINDS.get(node.span.name, 'Webhook')} {name}".rstrip()


def _short(name: str) -> str:
    return "webhook " + name.rpartition(" ")[2].partition(".")[0]


def _calls(node: Node) -> list[Node]:
    return [child for child in node.children if child.span.kind is Kind.CLIENT]


def _outcome(case: Case) -> str:
    """failurePolicy is no attribute of any span: what became of the request tells it (3.2, 10)."""
    if case.code is None:
        return "the answer has no status code here, so what failurePolicy made of it cannot be known"
    if case.code < 400:
        return "failurePolicy Ignore let the request through"
    return f"failurePolicy Fail refused the request with {case.code}"


@_rule
def webhook_failed(case: Case) -> Iterable[Finding]:
    """A failed call leaves status 2 on `HTTP POST`: `context deadline exceeded`, `dial tcp ...`, `tls: ...`,
    `context canceled`, or without a message the status code of the webhook's answer (10)."""
    for hook in case.named(*_HOOK_KINDS):
        for call in _calls(hook):
            if call.span.status != _FAILED:
                continue
            name, said = _hook_name(case, hook), case.message(call)
            low, code = said.lower(), case.attribute(call, "code")
            end = "" if hook.span.name == "Call conversion webhook" else f"; {_outcome(case)}"
            if "context canceled" in low:
                cause, what = "client gave up", "was being called when the client gave up"
                end = ""
            elif "deadline exceeded" in low or "timeout" in low:
                cause = "webhook timeout"
                within = re.search(r"[?&]timeout=([0-9.]+)([a-zµ]+)", _url(case, call))
                limit = (
                    f"its {within[1]} {within[2]} timeout" if within else f"its timeout ({_time(call.span.duration)})"
                )
                what = f"did not answer within {limit}"
            elif "x509" in low or "tls:" in low or "certificate" in low:
                cause, what = "webhook certificate", f"is not trusted ({said})"
            elif not said and code:
                cause, what = "webhook error", f"answered {code} instead of a review"
            elif said:
                cause, what = "webhook unreachable", f"could not be reached ({said})"
            else:
                cause, what = "webhook error", "failed without saying why"
            phrase = {"webhook timeout": "timeout", "client gave up": "given up on"}.get(cause, "down")
            phrase = {"webhook certificate": "untrusted", "webhook error": "fails"}.get(cause, phrase)
            step = case.step(hook)
            ns = step.end - step.start if step is not None else 0
            text = f"{name} {what}{end}."
            yield Finding(cause, text, f"{_short(name)} {phrase}", ns, True, call.span.span_id)


def _url(case: Case, node: Node) -> str:
    body = case.body(node)
    values = [body.attributes.get(key) for key in ALIASES["url"]] if body is not None else []
    return next((value for value in values if isinstance(value, str)), "")


_DENIED: Final = re.compile(r'admission webhook "([^"]{1,256})" denied the request:? ?(.*)', re.DOTALL)


@_rule
def webhook_denied(case: Case) -> Iterable[Finding]:
    """A denial is an answer like any other: no span of the API server fails. The verb span's event says
    `Write to database call failed` with the error, the webhook's own span may fail (10)."""
    if case.code is None or case.code < 400:
        return
    hooks = case.named(*_HOOK_KINDS)
    for verb in case.named("Create", "Update", "Patch", "Delete"):
        for _, _, values in case.events(verb):
            found = _DENIED.search(values.get("err", ""))
            if found:
                at = next((hook for hook in hooks if case.attribute(hook, "webhook") == found[1]), None)
                name = _hook_name(case, at) if at is not None else f"Webhook {found[1]}"
                why = _cut(found[2]).rstrip(".")
                yield Finding(
                    "webhook denied", f"{name} denied the request{': ' + why if why else ''}.",
                    f"denied by {_short(name).partition(' ')[2]}", failed=True,
                    span_id=(at or verb).span.span_id,
                )  # fmt: skip
                return
    for hook in hooks[-1:]:
        for call in _calls(hook):
            refusing = [node for node in call.children if node.span.kind is Kind.SERVER and node.span.status == _FAILED]
            if refusing and call.span.status != _FAILED:
                name = _hook_name(case, hook)
                why = case.message(refusing[0])
                yield Finding(
                    "webhook denied", f"{name} seems to have denied the request{': ' + why if why else ''}.",
                    f"denied by {_short(name).partition(' ')[2]}", failed=True, span_id=hook.span.span_id,
                )  # fmt: skip


@_rule
def webhook_slow(case: Case) -> Iterable[Finding]:
    """The call is the span `Call ... webhook`; what the webhook's own SERVER span does not cover is the way to it,
    and a webhook without an SDK sends none (3.2, 5)."""
    for taken in case.phases.hooks:
        if not case.notable(taken.ns):
            continue
        step = next(step for step in case.path.steps if step.node.span.span_id == taken.span_id)
        hook = step.node
        if any(call.span.status == _FAILED for call in _calls(hook)):
            continue  # told by webhook_failed
        name = _hook_name(case, hook)
        inside = [
            (other.start, other.end) for other in case.path.steps
            if other.node.span.component is Component.WEBHOOK and other.start >= step.start and other.end <= step.end
            and case.path.steps[other.parent].node.span.kind is Kind.CLIENT
        ]  # fmt: skip
        spent = sum(end - start for start, end in inside)
        if not inside:
            where = "; it sends no spans, so whether it or the way to it is slow cannot be known"
        elif spent >= 0.9 * taken.ns:
            where = ", all of it inside the webhook itself"
        elif spent >= 0.5 * taken.ns:
            where = f", {_time(spent)} of it inside the webhook itself"
        else:
            where = f", but only {_time(spent)} inside the webhook: the rest is the way to it (connection, TLS, queue)"
        cause = "conversion webhook slow" if taken.phase is Phase.CONVERSION else "webhook slow"
        yield Finding(cause, f"{name} took {case.took(taken.ns)}{where}.", _short(name), taken.ns, False, taken.span_id)


@_rule
def webhooks_in_sequence(case: Case) -> Iterable[Finding]:
    """Mutating webhooks are called one after another, so their times add up (3.3)."""
    hooks = [hook for hook in case.phases.hooks if hook.phase is not Phase.CONVERSION]
    total = sum(hook.ns for hook in hooks)
    if len(hooks) < 2 or not case.notable(total) or sum(case.notable(hook.ns) for hook in hooks) > 1:
        return  # two slow ones have a sentence each
    by_id = {step.node.span.span_id: step.node for step in case.path.steps}
    largest = sorted(hooks, key=lambda hook: -hook.ns)
    if largest[0].ns < 0.8 * total:
        told = ", ".join(f"{_lower(_hook_name(case, by_id[h.span_id]))} {_time(h.ns)}" for h in largest[:3])
        text = f"{len(hooks)} webhooks were called one after another, together {case.took(total)}: {told}."
        ns = total if not case.notable(largest[0].ns) else total - largest[0].ns
        yield Finding("webhooks in sequence", text, f"{len(hooks)} webhooks", ns, False, largest[0].span_id)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


@_rule
def conversion_untraced(case: Case) -> Iterable[Finding]:
    """A slow conversion webhook may leave no span at all: self time of `cacher.Get` after its only child, on a custom
    resource (10)."""
    if case.request is None or "." not in case.request.group or case.request.group.endswith(".k8s.io"):
        return
    for node in case.named("cacher.Get", "cacher.GetList", "cacher list"):
        step = case.step(node)
        if step is not None and case.notable(step.rest):
            yield Finding(
                "conversion suspected",
                f"{case.took(step.rest)} passed in the cache of {case.request.group}/{case.request.version} with no "
                "span to explain it: a conversion webhook does that, but it is not traced, so this is a guess.",
                "conversion?", step.rest, False, node.span.span_id,
            )  # fmt: skip


# --- etcd -----------------------------------------------------------------------------------------
@_rule
def etcd(case: Case) -> Iterable[Finding]:
    """A call has two spans, the API server's and etcd's. Long and filled by etcd's own: etcd is slow. A gap with etcd's
    span in its middle: etcd is far away. A gap before a short and late span: etcd stalled (10)."""
    ns = case.phases.ns
    server, gap, call = ns[Phase.ETCD_SERVER], ns[Phase.ETCD_GAP], ns[Phase.ETCD_CALL]
    total = server + gap + call
    if not case.notable(total):
        return
    calls = [
        step for step in case.path.steps
        if step.node.span.kind is Kind.CLIENT and step.node.span.name.startswith("etcdserverpb.")
    ]  # fmt: skip
    longest = max(calls, key=lambda step: step.end - step.start, default=None)
    if longest is None:
        return
    span = longest.node.span
    what = span.name.rpartition("/")[2] + (f", the longest of {len(calls)} calls" if len(calls) > 1 else "")
    answers = [child.span for child in longest.node.children if child.span.component is Component.ETCD]
    if call >= max(server, gap) or not answers:
        yield Finding(
            "etcd slow",
            f"etcd took {case.took(total)} ({what}); its own side of the call is not in this trace, so whether etcd "
            "or the way to it is slow cannot be known.",
            "etcd slow", total, False, span.span_id,
        )  # fmt: skip
        return
    own = answers[0]
    before, after = own.start - span.start, span.end - own.end
    if server >= gap:
        yield Finding(
            "etcd slow",
            f"etcd took {case.took(total)} ({what}), {_time(server)} of it inside etcd itself: its disk or "
            "the round of consensus with the other members.",
            "etcd slow", total, False, own.span_id,
        )  # fmt: skip
    elif min(before, after) >= 0.2 * (before + after):
        yield Finding(
            "etcd far away",
            f"etcd is far away: its answer took {case.took(total)} ({what}), but etcd itself only "
            f"{_time(own.duration)}; about {_time((before + after) // 2)} went by on the way there, "
            "and as much on the way back.",
            "etcd far away", total, False, span.span_id,
        )  # fmt: skip
    elif gap < 0.8 * total:
        yield Finding(
            "etcd slow",
            f"etcd took {case.took(total)} ({what}), {_time(server)} of it inside etcd itself; the rest went by on the "
            "way to it.",
            "etcd slow", total, False, span.span_id,
        )  # fmt: skip
    else:
        yield Finding(
            "etcd stalled",
            f"etcd stalled: {case.took(gap)} went by before etcd took up the call ({what}), which itself took "
            f"{_time(own.duration)}.",
            "etcd stalled", total, False, span.span_id,
        )  # fmt: skip


@_rule
def conflicts(case: Case) -> Iterable[Finding]:
    """Each lost race of a write leaves the event `Retry value restored` (3.2)."""
    for node in case.named("GuaranteedUpdate etcd3"):
        retries = sum(name == "Retry value restored" for _, name, _ in case.events(node))
        if retries:
            step = case.step(node)
            ns = step.end - step.start if step is not None else 0
            times = "once" if retries == 1 else f"{retries} times"
            text = f"Another writer was faster: the change was tried again {times} ({case.took(ns)} in all)."
            yield Finding("conflict retries", text, "conflict retries", ns, case.code == 409, node.span.span_id)


# --- the API server itself ------------------------------------------------------------------------
@_rule
def queued(case: Case) -> Iterable[Finding]:
    """Waiting is the self time of `priorityandfairness` before the next filter, since 1.34 (8, 10)."""
    wait = case.phases.ns[Phase.QUEUE]
    nodes = case.named("priorityandfairness")
    at = nodes[0].span.span_id if nodes else ""
    if case.code == 429:
        yield Finding(
            "queue full", "Priority and fairness refused the request with 429: too many others of its level.",
            "too many requests", wait, True, at,
        )  # fmt: skip
    elif case.notable(wait):
        yield Finding(
            "queued", f"The request waited {case.took(wait)} in a queue of priority and fairness: others of its level "
            "took all seats.", "queued", wait, False, at,
        )  # fmt: skip


@_rule
def authorization_slow(case: Case) -> Iterable[Finding]:
    """Authorization webhooks are not traced: their time is inside `authorization` (3.2)."""
    ns = case.phases.ns[Phase.AUTHORIZATION]
    if case.notable(ns):
        node = case.named("authorization")[0]
        yield Finding(
            "authorization slow", f"Authorization took {case.took(ns)}; its webhooks are not traced, but nothing else "
            "there is that slow.", "authorization slow", ns, False, node.span.span_id,
        )  # fmt: skip


@_rule
def authentication_slow(case: Case) -> Iterable[Finding]:
    """Token reviews are not traced; since 1.33 authentication ends before the server span starts, so its time is in
    the `authentication` span above or in a trace of its own (3.2, 3.3)."""
    inside = case.phases.ns[Phase.AUTHENTICATION]
    ns = max(inside, case.before)
    if ns >= NOTABLE_NS and ns >= NOTABLE_SHARE * (case.duration + case.before):
        where = "" if inside >= case.before else ", before the request itself began"
        yield Finding(
            "authentication slow", f"Authentication took {_time(ns)}{where}; token webhooks are not traced, but "
            "nothing else there is that slow.", "authentication slow", ns,
        )  # fmt: skip


@_rule
def refused_by_authorization(case: Case) -> Iterable[Finding]:
    """A caller who may not do this is refused before any verb span begins (3.2)."""
    if case.code == 403 and not case.named(*_VERBS):
        yield Finding("forbidden", "Authorization refused the request with 403.", "forbidden", 0, True)


_VERBS: Final = ("Get", "List", "WatchList", "Create", "Update", "Patch", "Delete")


@_rule
def body_refused(case: Case) -> Iterable[Finding]:
    """The verb span's event `limitedReadBody` tells the length, the server span the size; 413 is the limit of the API
    server, `request is too large` that of etcd (3.2)."""
    if case.code is None or case.code < 400:
        return
    verbs = case.named("Create", "Update", "Patch")
    for node in (*verbs, *case.named("etcdserverpb.KV/Txn", "etcdserverpb.KV/Put")):
        said = [case.message(node), *(values.get("err", "") for _, _, values in case.events(node))]
        if case.code == 413 or any("too large" in text for text in said):
            text = f"The object is too large: the request was refused with {case.code}."
            yield Finding("object too large", text, "object too large", 0, True, node.span.span_id)
            return
    sizes = [int(text) for text in (case.attribute(case.head, "request_size"),) if text.isdigit()]
    sizes += [int(v["len"]) for node in verbs for _, _, v in case.events(node) if v.get("len", "").isdigit()]
    size = max(sizes, default=0)
    if case.code == 413 or (size >= LARGE_BODY and case.code in (400, 415, 422)):
        length = f"A body of {_size(size)}" if size else "The body"
        why = "it is too large" if case.code == 413 else "it could not be decoded as what it claims to be"
        took = (
            f", after {_time(case.phases.ns[Phase.DECODING])} of reading it" if case.phases.ns[Phase.DECODING] else ""
        )
        at = (verbs or [case.head])[0].span.span_id
        yield Finding(
            "body refused", f"{length} was refused with {case.code}: {why}{took}.", "body refused", 0, True, at
        )


@_rule
def upload_slow(case: Case) -> Iterable[Finding]:
    """Reading the body ends with the event `limitedReadBody succeeded` (3.2)."""
    ns = case.phases.ns[Phase.DECODING]
    if case.notable(ns):
        for node in case.named("Create", "Update", "Patch", "Delete"):
            read = next((at for at, name, _ in case.events(node) if name.startswith("limitedReadBody")), 0)
            what = (
                f"{_time(read)} of it until the body had arrived"
                if read >= 0.5 * ns
                else "most of it after the body had arrived"
            )
            text = f"Before its first call the request took {case.took(ns)}, {what}."
            yield Finding(
                "decoding slow", text, "slow body" if read >= 0.5 * ns else "decoding", ns, False, node.span.span_id
            )
            return


@_rule
def aggregated(case: Case) -> Iterable[Finding]:
    """A request to an aggregated API is proxied by a client span. Without one and with 503 nobody was there to
    proxy to; upgrade requests have none either (3.2, 10)."""
    request = case.request
    ns = case.phases.ns[Phase.AGGREGATION]
    calls = [
        node for node in case.nodes if node.span.kind is Kind.CLIENT and node.span.name.startswith("HTTP ")
        and node.span.component is Component.APISERVER and id(node) not in case.hook_calls
    ]  # fmt: skip
    group = f"{request.group}/{request.version}" if request is not None and request.group else "that API"
    if case.code in (502, 503, 504) and request is not None and request.group and not case.named(*_VERBS):
        said = next((case.message(node) for node in calls if node.span.status == _FAILED), "")
        why = f": {said}" if said else ": nothing was there to pass it on to"
        yield Finding(
            "aggregated API down",
            f"The aggregated API {group} is down, the request was answered with {case.code}{why}.",
            "aggregated API down", 0, True, calls[0].span.span_id if calls else case.head.span.span_id,
        )  # fmt: skip
    elif case.notable(ns) and calls and not case.watch:
        yield Finding(
            "aggregated API slow",
            f"The aggregated API {group} took {case.took(ns)}.", "aggregated API slow", ns, False,
            calls[0].span.span_id,
        )  # fmt: skip


@_rule
def kms(case: Case) -> Iterable[Finding]:
    """The KMS plugin's gRPC is not traced, what waits for it is: `Transform...Storage with ...` (3.2)."""
    ns = case.phases.ns[Phase.ENCRYPTION]
    if case.notable(ns):
        node = next(n for n in case.nodes if n.span.name.startswith(("TransformToStorage", "TransformFromStorage")))
        name = case.attribute(node, "transformer.provider.name")
        who = f"The KMS plugin {name}" if name else "Encryption (KMS)"
        yield Finding("KMS slow", f"{who} took {case.took(ns)}.", "KMS slow", ns, False, node.span.span_id)


@_rule
def gave_up(case: Case) -> Iterable[Finding]:
    """A client that gives up leaves `context canceled` on the call that was waited for, a request that runs into its
    own timeout `context deadline exceeded`; 499 and 504 say so (10)."""
    if case.watch:
        return
    failed = [node for node in case.nodes if node.span.status == _FAILED]
    for node in failed[:MAX_NODES]:
        span = node.span
        if span.kind is not Kind.CLIENT or span.component is not Component.APISERVER or id(node) in case.hook_calls:
            continue
        said = case.message(node).lower()
        awaited = f"after {_time(case.duration)}, while {_cut(span.name.rpartition('/')[2], 40)} was waited for."
        if "canceled" in said or "cancelled" in said:
            text = f"The client gave up {awaited}"
            yield Finding("client gave up", text, "client gave up", span.duration, True, span.span_id)
            return
        if "deadline exceeded" in said:
            text = f"The request timed out {awaited}"
            yield Finding("timed out", text, "timed out", span.duration, True, span.span_id)
            return
    if case.code in (499, 504) and case.named(*_VERBS):
        text = f"The request was given up after {_time(case.duration)} ({case.code})."
        yield Finding("timed out", text, "timed out", case.duration, True, case.head.span.span_id)


def failed_otherwise(case: Case) -> Iterable[Finding]:
    """What no other rule explains: the verb span's event `... failed` holds the error in `err` (10). A 404, or a 409
    without more, is an everyday answer."""
    for node in case.named(*_VERBS):
        said = next((_cut(values["err"]) for _, _, values in case.events(node) if values.get("err")), "")
        if said and case.code is not None and case.code not in (404, 409):
            text = f"The request failed with {case.code}: {said.rstrip('.')}."
            yield Finding("failed", text, f"failed {case.code}", 0, True, node.span.span_id)
            return
    if case.code is not None and case.code >= 500:
        text = f"The API server answered with {case.code}, and no span says why."
        yield Finding("failed", text, f"failed {case.code}", 0, True, case.head.span.span_id)


# --- answers --------------------------------------------------------------------------------------
def _answer(case: Case) -> tuple[Node | None, int, int, int]:
    """(the span that wrote the answer, its size, time before writing, time of writing)."""
    best: tuple[Node | None, int, int, int] = (None, 0, 0, 0)
    for node in case.named("SerializeObject"):
        size, begun, done = 0, node.span.duration, node.span.duration
        for at, name, values in case.events(node):
            if values.get("size", "").isdigit():
                size = max(size, int(values["size"]))
            if name == "About to start writing response":
                begun = at
            elif name.startswith("Write call"):
                done = at
        if best[0] is None or node.span.duration > best[0].span.duration:
            best = (node, size, begun, max(0, done - begun))
    return best


@_rule
def answer_slow(case: Case) -> Iterable[Finding]:
    """`SerializeObject` encodes, then writes: its event `About to start writing response` parts both, though a big
    answer is partly written while it is encoded (3.2, 10)."""
    if case.watch or not case.notable(case.phases.ns[Phase.ENCODING]):
        return
    node, size, encoding, writing = _answer(case)
    if node is None:
        return
    what = f"an answer of {_size(size)}" if size else "the answer"
    if writing >= encoding:
        text = (
            f"The client was slow to read {what}: {case.took(writing)} of writing, after {_time(encoding)} of encoding."
        )
        yield Finding("slow client", text, "slow reader", writing, False, node.span.span_id)
    else:
        text = f"Encoding {what} took {case.took(encoding)}, and writing it {_time(writing)}."
        yield Finding("encoding slow", text, "encoding", encoding, False, node.span.span_id)


@_rule
def large_list(case: Case) -> Iterable[Finding]:
    """`cacher.GetList` tells how many objects it listed, `SerializeObject` the bytes; a list that went past the watch
    cache has `List(recursive=true) etcd3` (3.2)."""
    lists = case.named("List", "WatchList")
    if not lists or case.watch:
        return
    counts = [
        int(values["count"])
        for node in (*case.named("cacher.GetList", "cacher list"), *lists)
        for _, _, values in case.events(node)
        if values.get("count", "").isdigit()
    ]
    count = max(counts, default=0)
    node, size, encoding, _ = _answer(case)
    if size < LARGE_RESPONSE and count < LARGE_LIST:
        return
    objects = f"{count:,} objects" if count else "Many objects"
    sized = f", {_size(size)}" if size else ""
    direct = case.named("List(recursive=true) etcd3")
    whence = "from etcd instead of the watch cache" if direct else "from the watch cache"
    text = f"A large list: {objects}{sized} {whence}"
    text += f"; encoding the answer took {case.took(encoding)}." if node is not None and encoding else "."
    at = (direct or lists)[0].span.span_id
    yield Finding("large list", text, "large list", case.duration // 2, False, at)


# --- all together ---------------------------------------------------------------------------------
_USUAL: Final = {
    Phase.ETCD_SERVER: "etcd",
    Phase.ETCD_GAP: "the way to etcd",
    Phase.ETCD_CALL: "etcd",
    Phase.CACHE: "the watch cache",
    Phase.ENCODING: "encoding",
    Phase.DECODING: "decoding",
    Phase.QUEUE: "priority and fairness",
    Phase.AUTHORIZATION: "authorization",
    Phase.AGGREGATION: "an aggregated API",
    Phase.RUNTIME: "the container runtime",
    Phase.ENCRYPTION: "encryption",
}


def judge(trace: Trace, source: Source, *, authentication: int = 0) -> Verdict:
    """The verdict on a trace.

    Args:
        source: bodies of its spans; the verdict decodes a few of them.
        authentication: ns that a paired `authentication` trace began before the request (`pairing.Pairs.before`);
            where that span is in the trace itself it is found there.

    Raises:
        StoreError: the bodies cannot be read.
    """
    path = critical_path(trace)
    phases = phases_of(trace, path) if path is not None else None
    if trace.headline is None or path is None or phases is None:
        return Verdict(("No span of this trace has a start time: nothing can be said about its time.",))
    case = Case(trace, path, phases, source, authentication or _waited(trace))
    if not trace.headline.span.request:
        return Verdict((_no_request(case), *_unknown(case))[:3])
    found = [finding for rule in RULES for finding in rule(case)]
    if not any(finding.failed for finding in found):
        found += failed_otherwise(case)
    if case.watch:
        found = [finding for finding in found if finding.failed]
    found.sort(key=lambda finding: (not finding.failed, -finding.ns))
    sentences = [finding.text for finding in found[:3]]
    if not sentences:
        sentences = [_plain(case)]
    elif len(sentences) < 3 and not found[0].ns:
        sentences.append(_plain(case, remarkable=True))
    return Verdict((*sentences, *_unknown(case))[:3], tuple(found))


def _waited(trace: Trace) -> int:
    """Nanoseconds between the start of an `authentication` that is the headline's parent and the headline."""
    head = trace.headline
    if head is None:
        return 0
    for root in trace.roots:
        for child in root.children:
            if child is head and root.span.name == "authentication" and root.span.start:
                return max(0, head.span.start - root.span.start)
    return 0


def _plain(case: Case, *, remarkable: bool = False) -> str:
    """What is usual: the outcome and the largest parts of the time."""
    code = f", answered with {case.code}" if case.code is not None and case.code >= 400 else ""
    if case.watch:
        return f"A watch, open for {_time(case.duration)}{code}: it lasts as long as its client likes."
    parts: dict[str, int] = {}
    for phase, what in _USUAL.items():
        if case.phases.ns[phase]:
            parts[what] = parts.get(what, 0) + case.phases.ns[phase]
    by_id = {step.node.span.span_id: step.node for step in case.path.steps}
    for hook in case.phases.hooks:
        name = _lower(_hook_name(case, by_id[hook.span_id]))
        parts[name] = parts.get(name, 0) + hook.ns
    largest = sorted(parts.items(), key=lambda part: -part[1])[:2]
    largest = [part for part in largest if part[1] >= 0.1 * case.duration]
    told = " and ".join(f"{what} {case.took(ns)}" for what, ns in largest)
    rest = case.duration - sum(ns for _, ns in largest)
    told = told or f"the API server itself {case.took(rest)}"
    if remarkable:
        return f"The request took {_time(case.duration)}, of which {told}."
    return f"Nothing remarkable: {_time(case.duration)}{code}, of which {told}."


def _no_request(case: Case) -> str:
    """A trace without an API request is told by its own spans."""
    head = case.head.span
    longest = max(case.path.steps, key=lambda step: step.lead + step.rest)
    if longest.node is case.head:
        return f"No API request is in this trace: {_cut(head.name, 80)} took {_time(case.duration)}."
    return (
        f"No API request is in this trace: {_cut(head.name, 80)} took {_time(case.duration)}, of which "
        f"{_cut(longest.node.span.name, 80)} {case.took(longest.lead + longest.rest)}."
    )


def _unknown(case: Case) -> list[str]:
    """What the verdict cannot know, because it is not here."""
    said = []
    if case.trace.settled is Settled.ARRIVING:
        said.append("Spans are still arriving, so this may change.")
    elif case.trace.left_out:
        said.append(f"{case.trace.left_out:,} spans of this trace are not looked at.")
    if case.path.extended:
        said.append("This release ends its span early: the duration is that of the work below it.")
    elif case.trace.missing and _lost(case):
        said.append("Spans of this request are missing, so something else may have taken part of the time.")
    return said


def _lost(case: Case) -> bool:
    """Whether a missing parent lies within the request: an orphan beside the headline that ran at the same time."""
    return any(
        root is not case.head
        and root.span.parent_id
        and case.path.start <= root.span.start < case.path.end
        and root.span.component is Component.APISERVER
        for root in case.trace.roots
    )
