"""What authentication, priority and fairness and authorization did to a request before it was handled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from receiver.traces.model import Component, Node
from receiver.traces.phases import Phase
from receiver.traces.rules.case import NOTABLE_NS, NOTABLE_SHARE, VERBS, Case, Finding, cut, time_text
from receiver.traces.semantics import built_in
from receiver.traces.timing import followers

ESTABLISHING_NS: Final = 2_000_000_000
"""How long a create waits where its custom resource was established less than this before."""


def queued(case: Case) -> Iterable[Finding]:
    """Waiting is the self time of `priorityandfairness` before the next filter, since 1.34 (8, 10). Who is refused gets
    429 and never reaches a verb span; a 429 behind one is the handler's (an eviction that has to wait)."""
    wait = case.phases.ns[Phase.QUEUE]
    nodes = case.named("priorityandfairness")
    at = nodes[0].span.span_id if nodes else ""
    if case.code == 429 and case.internal_traced and not case.named(*VERBS):
        waited = f" after {time_text(wait)} in its queue" if wait >= NOTABLE_NS else ""
        text = f"Priority and fairness refused the request with 429{waited}: too many others of its priority level."
        yield Finding("queue full", text, "too many requests", wait, True, at)
    elif case.code == 429 and not case.head.children:
        text = (
            "The request was refused with 429: most likely by priority and fairness or the limit of requests at once; "
        )
        text += "filters have no spans here, so which cannot be known."
        yield Finding("too many requests", text, "too many requests", 0, True, case.head.span.span_id)
    elif case.notable(wait):
        text = (
            f"The request waited {case.took(wait)} in a queue of priority and fairness: others of its priority level "
            "had all the seats."
        )
        yield Finding("queued", text, "queued", wait, False, at)


def authorization_slow(case: Case) -> Iterable[Finding]:
    """Authorization webhooks are not traced: their time is inside `authorization` (3.2). So is what a handler does
    before its first span: of a custom resource that was established less than 2 s ago none is created until 2 s more
    are over, so that all API servers know it (apiextensions-apiserver, customresource_handler.go; seen on 1.34 to
    1.37)."""
    ns = case.phases.ns[Phase.AUTHORIZATION]
    if not case.notable(ns):
        return
    request = case.request
    new = request is not None and request.verb == "create" and not built_in(request.group)
    if new and ESTABLISHING_NS <= ns < ESTABLISHING_NS * 1.5:
        text = (
            f"It waited {case.took(ns)} before it was handled: most likely because its custom resource was defined a "
            "moment ago, when the API server lets every create wait for 2 s; or authorization was slow."
        )
        at = (case.named("authorization") or [case.head])[0].span.span_id
        yield Finding("custom resource new", text, "custom resource new", ns, False, at)
    else:
        text = f"Authorization took {case.took(ns)}: most likely an authorization webhook, which is not traced."
        at = (case.named("authorization") or [case.head])[0].span.span_id
        yield Finding("authorization slow", text, "authorization slow", ns, False, at)


def authentication_slow(case: Case) -> Iterable[Finding]:
    """Token reviews are not traced; since 1.33 authentication ends before the server span starts, so its time is in
    the `authentication` span above or in a trace of its own (3.2, 3.3)."""
    inside = case.phases.ns[Phase.AUTHENTICATION]
    ns = max(inside, case.before)
    if ns >= NOTABLE_NS and ns >= NOTABLE_SHARE * (case.duration + case.before):
        early = case.before > inside
        took = f"{time_text(ns)}, before the request itself began" if early else case.took(ns)
        text = f"Authentication took {took}: most likely a token webhook, which is not traced."
        phrase = f"authentication {time_text(ns)}" if early else "authentication slow"
        yield Finding("authentication slow", text, phrase, ns)


def filters_untraced(case: Case) -> Iterable[Finding]:
    """Before 1.34 audit, impersonation, priority and fairness and authorization have no spans: their time is that
    before the verb span, and which of them took it cannot be known (3.2, 3.3)."""
    if case.filters_traced:
        return
    steps = [case.step(node) for node in followers(case.head) if node.span.component is Component.APISERVER]
    below = [(step.node.span.name, step) for step in steps if step is not None]
    began = max([case.path.start, *(step.end for name, step in below if name == "authentication")])
    ns = min((step.start for name, step in below if name in VERBS), default=0) - began
    if case.notable(ns):
        text = (
            f"{case.took(ns)} went by before the request was handled: priority and fairness or authorization, which "
            "have no spans before 1.34, so which of them cannot be known."
        )
        yield Finding("filters slow", text, "before handling", ns, False, case.head.span.span_id)


def refused(case: Case) -> Iterable[Finding]:
    """A caller who may not do this is refused before any verb span begins; no span names the user, the audit log does
    (3.2, 7.3). From 1.22 to 1.25 there are no verb spans, so nothing tells who refused."""
    if not case.internal_traced or case.named(*VERBS) or case.proxied or case.request is None:
        return
    if case.code == 401:
        text = "Authentication refused the request with 401: its credentials are missing, unknown or expired."
        yield Finding("unauthenticated", text, "unauthenticated", 0, True, case.head.span.span_id)
    elif case.code == 403:
        impersonation = case.named("impersonation", "constrainedimpersonation")
        if impersonation and not case.named("authorization", "priorityandfairness"):
            text = "Impersonation was refused with 403: the caller may not act as that user."
            yield Finding("impersonation refused", text, "forbidden", 0, True, impersonation[0].span.span_id)
            return
        at: Node = (case.named("authorization") or [case.head])[0]
        text = f"Authorization refused the request with 403: its user may not {_act(case)}. The audit log tells who."
        yield Finding("forbidden", text, "forbidden", 0, True, at.span.span_id)


def _act(case: Case) -> str:
    """`list secrets in kube-system`, `get /livez`."""
    request = case.request
    assert request is not None
    if not request.resource:
        return f"{request.verb} {cut(request.path, 80)}".rstrip()
    what = "/".join(filter(None, (request.resource, request.subresource)))
    group = f".{request.group}" if request.group else ""
    where = f" in {request.namespace}" if request.namespace and request.resource != "namespaces" else ""
    return cut(f"{request.verb} {what}{group}{where}", 120)
