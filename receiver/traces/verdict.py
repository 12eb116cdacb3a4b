"""One to three sentences that say what became of a request and where its time went.

`receiver.traces.rules` looks for causes; here the most telling are chosen. What failed comes first where the request
failed, else what took most of the time. Where data is missing the last sentence says what cannot be known. Texts hold
names and messages from spans: bounded, to be made printable by whoever shows them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from receiver.traces.model import Component, Oddity, Settled, Trace
from receiver.traces.phases import Phase, phases_of
from receiver.traces.rules import FALLBACKS, RULES, background
from receiver.traces.rules.case import NOTABLE_NS, Case, Finding, Source, cut, listed, lower, time_text
from receiver.traces.rules.outcomes import SLOW_NS
from receiver.traces.timing import critical_path

SENTENCES: Final = 3


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


def judge(trace: Trace, source: Source, *, authentication: int = 0, caller: bool = True) -> Verdict:
    """The verdict on a trace.

    Args:
        source: bodies of its spans; the verdict decodes a few of them.
        authentication: ns that a paired `authentication` trace began before the request (`pairing.Pairs.before`);
            where that span is in the trace itself it is found there.
        caller: whether to say what is known of the caller's own trace; False where who reads it was the caller.

    Raises:
        StoreError: the bodies cannot be read.
    """
    path = critical_path(trace)
    phases = phases_of(trace, path) if path is not None else None
    if trace.headline is None or path is None or phases is None:
        return Verdict(("No span of this trace has a start time: nothing can be said about its time.",))
    case = Case(trace, path, phases, source, authentication or _waited(trace))
    unknown = _unknown(case)
    if not trace.headline.span.request:
        found = background.findings(case)
        return Verdict(_sentences([background.told(case), *(f.text for f in found)], unknown), tuple(found))
    found = [finding for rule in RULES for finding in rule(case)]
    failed, slow = FALLBACKS
    if not any(finding.failed for finding in found):
        found += failed(case)
    if not found:
        found += slow(case)
    if case.stream:
        found = [finding for finding in found if finding.failed]
    refused = case.code is None or case.code >= 400
    found.sort(key=lambda finding: (not (finding.failed and refused), -finding.ns))
    said = [finding.text for finding in found] + _rest(case, found) + (_caller(case) if caller else [])
    if case.dry_run:
        said.insert(0, _dry_run(case))
    if unknown.startswith("The request's status code") and any("no status code" in text for text in said):
        unknown = ""
    return Verdict(_sentences(said, unknown), tuple(found))


def _sentences(said: list[str], unknown: str) -> tuple[str, ...]:
    return (*said[: SENTENCES - 1], unknown) if unknown else tuple(said[:SENTENCES])


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


_USUAL: Final = {
    Phase.ETCD_SERVER: "etcd",
    Phase.ETCD_GAP: "the way to etcd",
    Phase.ETCD_CALL: "etcd",
    Phase.CACHE: "the watch cache",
    Phase.ENCODING: "encoding the answer",
    Phase.DECODING: "decoding",
    Phase.QUEUE: "priority and fairness",
    Phase.AUTHORIZATION: "authorization",
    Phase.AGGREGATION: "an aggregated API",
    Phase.RUNTIME: "the container runtime",
    Phase.ENCRYPTION: "encryption",
}
_ETCD: Final = (Phase.ETCD_SERVER, Phase.ETCD_GAP, Phase.ETCD_CALL)


def _rest(case: Case, found: list[Finding]) -> list[str]:
    """What else belongs to the picture: everything where nothing was found, the time of a request that failed, and that
    etcd was not the reason of one that waited for webhooks."""
    if not found:
        return [_plain(case)]
    if not any(finding.ns for finding in found):
        return [f"The request took {time_text(case.duration)}{_largest(case)}."] if case.duration >= NOTABLE_NS else []
    etcd = sum(case.phases.ns[phase] for phase in _ETCD)
    if etcd and case.phases.hooks and not any(finding.cause.startswith("etcd") for finding in found):
        return [f"etcd took {time_text(etcd)}."]
    return []


def _dry_run(case: Case) -> str:
    """That nothing was stored, and of what. A create has no name in its URL: before it would be stored, what is there
    under its key is looked up, until 1.36 by `cacher.Get`, in 1.37 by `Get etcd3` (3.3)."""
    assert case.request is not None
    name = case.request.name
    if not name and case.request.verb == "create":
        keys = (case.attribute(node, "key", 1024) for node in case.named("cacher.Get", "Get etcd3", "Create etcd3"))
        name = next((key.rpartition("/")[2] for key in keys if f"/{case.request.resource}/" in key), "")
    place = "/".join(filter(None, (case.request.namespace, name)))
    return f"A dry run of {cut(' '.join(filter(None, (case.request.resource, place))))}: nothing was stored."


def _stream(case: Case, took: str) -> str:
    """What a request was that was asked to last; all that is here has ended."""
    request = case.request
    assert request is not None
    if request.verb == "watch":
        return f"A watch, open for {took}: it lasts as long as its client likes."
    if request.subresource == "log":
        if "follow" in case.query:
            return f"A log that was followed for {took}: that lasts as long as its client and the container like."
        return f"A log, read for {took}: where it was followed, for as long as its client liked."
    if request.subresource in ("exec", "attach"):
        what = "A command in a container" if request.subresource == "exec" else "A client attached to a container"
        return f"{what}, which ended after {took}: it lasts as long as its process and its client like."
    if request.subresource == "portforward":
        return f"A port that was forwarded for {took}: that lasts as long as its client likes."
    return f"A stream, open for {took}: it lasts as long as its client likes."


def _caller(case: Case) -> list[str]:
    """What became of a `traceparent` that the caller sent (2.2): taken over, so that the caller's own span is a parent
    that does not come, or not trusted and kept as a link."""
    body = case.body(case.head)
    if body is not None and body.links:
        return [f"Its caller's traceparent was not honoured, only linked: trace {cut(body.links[0].trace_id, 32)}."]
    if Oddity.ORPHAN in case.head.oddities and case.trace.settled is not Settled.ARRIVING:
        return ["Its parent span is not here: most likely the caller's, who forced this trace by a traceparent."]
    return []


def _plain(case: Case) -> str:
    """What is usual: the outcome and the largest parts of the time."""
    took = time_text(case.duration)
    if case.stream:
        return _stream(case, took)
    if case.duration <= 0 and case.code is None:
        return "How long it took is not known: its span ends where it begins."
    if case.code is not None and case.code >= 400:
        why = cut(case.error[1]).rstrip(". ")
        return f"Nothing remarkable: answered with {case.code}{f' ({why})' if why else ''} after {took}."
    if not case.head.children:
        return f"Nothing remarkable: {took}; nothing below the request's own span is here, so no part can be told."
    start = "No part stands out" if case.duration >= SLOW_NS else "Nothing remarkable"
    return f"{start}: {took}{_largest(case)}."


def _largest(case: Case) -> str:
    """`, of which etcd 3.00 ms (30 %) and authorization 2.00 ms (20 %)`."""
    parts: dict[str, int] = {}
    for phase, what in _USUAL.items():
        if case.phases.ns[phase]:
            parts[what] = parts.get(what, 0) + case.phases.ns[phase]
    if case.phases.ns[Phase.OTHER] > 0.5 * case.duration:
        parts["the API server itself"] = case.phases.ns[Phase.OTHER]
    by_id = {step.node.span.span_id: step.node for step in case.path.steps}
    for hook in sorted(case.phases.hooks, key=lambda hook: -hook.ns)[:2]:
        name = lower(case.hook_name(by_id[hook.span_id]))
        parts[name] = parts.get(name, 0) + hook.ns
    largest = sorted(parts.items(), key=lambda part: -part[1])[:2]
    largest = [part for part in largest if part[1] >= 0.1 * case.duration]
    if not largest:
        own = case.duration - sum(parts.values())
        return f", of which the API server itself {case.took(own)}"
    return f", of which {listed([f'{what} {case.took(ns)}' for what, ns in largest])}"


def _unknown(case: Case) -> str:
    """What the verdict cannot know, because it is not here; "" where all is."""
    if case.trace.settled is Settled.ARRIVING:
        return "Spans are still arriving, so this may change."
    if case.trace.left_out:
        return f"{case.trace.left_out:,} spans of this trace are not looked at."
    if case.path.extended:
        code = "" if case.code is not None else ", and its status code is not known"
        return f"Kubernetes 1.33 ends its span early: the duration is that of the work below it{code}."
    if case.trace.missing and not case.stream and _lost(case):  # until 1.35 a watch never sends its `List` (3.3)
        return "Spans of this request are missing, so something else may have taken part of the time."
    if case.request is not None and case.code is None and not case.stream:
        return "The request's status code is not in its span, so whether it succeeded cannot be known."
    return ""


def _lost(case: Case) -> bool:
    """Whether a missing parent lies within the request: an orphan beside the headline that ran at the same time."""
    return any(
        root is not case.head
        and root.span.parent_id
        and case.path.start <= root.span.start < case.path.end
        and root.span.component is Component.APISERVER
        for root in case.trace.roots
    )
