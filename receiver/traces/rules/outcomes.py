"""How a request ended, where no part of it alone explains that: given up, passed on in vain, failed, slow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from receiver.traces.phases import Phase
from receiver.traces.rules.case import (
    FAILED,
    HOOKS,
    VERBS,
    Case,
    Finding,
    cut,
    inside_or_on_the_way,
    lower,
    short_hook,
    time_text,
)
from receiver.traces.semantics import built_in

SLOW_NS: Final = 500_000_000
"""A request that took longer is slow even where nothing explains it: the API server itself logs it then (3.2)."""
_HEALTH: Final = ("/readyz", "/livez", "/healthz")
_EVERYDAY: Final = (404, 409, 410)


def given_up(case: Case) -> Iterable[Finding]:
    """A client that gives up leaves `context canceled` on the call that was waited for, a request that runs into its
    own timeout `context deadline exceeded`; 499 and 504 say so (10)."""
    ended = case.given_up
    if ended is None:
        return
    text = f"{'The client gave up' if ended.canceled else 'The request timed out'} after {time_text(case.duration)}"
    phrase = "client gave up" if ended.canceled else "timed out"
    node = ended.node
    if node is None:
        text += f"; which call was waited for is not in its spans ({case.code})." if case.code else "."
    else:
        name = node.span.name
        if name in HOOKS or id(node) in case.hook_calls:
            hook = case.hook_name(node)
            text += f", while {lower(hook)} was being called."
            phrase = f"{phrase}, {short_hook(hook)}"
        elif name.startswith("etcdserverpb."):
            text += f", while etcd was being asked ({name.rpartition('/')[2]})."
        else:
            text += f", while {cut(name, 40)} was waited for."
    at = (node or case.head).span.span_id
    yield Finding("client gave up" if ended.canceled else "timed out", text, phrase, case.duration, True, at)


def aggregated(case: Case) -> Iterable[Finding]:
    """A request to an aggregated API is proxied by a client span. Without one and with 503 nobody was there to
    proxy to; upgrade requests have none either (3.2, 10)."""
    request = case.request
    if request is None or built_in(request.group) or case.etcd_calls or case.named(*VERBS):
        return
    group = f"{cut(request.group)}/{cut(request.version, 40)}"
    calls = case.proxied
    if not calls and not case.internal_traced:
        return  # its spans are not here, or it is of 1.22 to 1.25: nothing tells that it was passed on
    ns = case.phases.ns[Phase.AGGREGATION]
    if case.code in (502, 503, 504):
        said = next((case.message(node) for node in calls if node.span.status == FAILED), "")
        why = f": {said}" if said else ": its server is not there" if not calls else ""
        text = f"The aggregated API {group} is down: the request was answered with {case.code}{why}."
        at = (calls or [case.head])[0].span.span_id
        yield Finding("aggregated API down", text, "aggregated API down", ns, True, at)
    elif case.notable(ns) and calls and not case.stream:
        where = inside_or_on_the_way(ns, calls[-1], "its server")
        text = f"The aggregated API {group} took {case.took(ns)}{where}."
        yield Finding("aggregated API slow", text, "aggregated API slow", ns, False, calls[0].span.span_id)


def unhealthy(case: Case) -> Iterable[Finding]:
    """Probes have no verb span (3.2); which check failed is only in the body of the answer."""
    path = case.request.path if case.request is not None else ""
    probe = next((probe for probe in _HEALTH if path.startswith(probe)), "")
    if case.code is None or case.code < 500 or not probe:
        return
    state = "is not ready" if probe == "/readyz" else "is not healthy"
    text = (
        f"The API server says that it {state}: {cut(path, 60)} was answered with {case.code}. Which check failed is "
        f"not in the trace; kubectl get --raw '{probe}?verbose' tells."
    )
    yield Finding("unhealthy", text, "not ready" if "not ready" in state else "not healthy", 0, True)


def failed_otherwise(case: Case) -> Iterable[Finding]:
    """What no other rule explains: the verb span's event `... failed` holds the error in `err` (10). A 404, or a 409
    without more, is an everyday answer."""
    if case.code is None:
        return
    node, said = case.error
    if node is not None and case.code >= 400 and case.code not in _EVERYDAY:
        how = "failed" if case.code >= 500 else "was refused"
        text = f"The request {how} with {case.code}: {cut(said).rstrip('. ')}."
        yield Finding("failed", text, f"{how.rpartition(' ')[2]} {case.code}", 0, True, node.span.span_id)
    elif case.code >= 500:
        text = f"The API server answered with {case.code}, and no span says why."
        yield Finding("failed", text, f"failed {case.code}", 0, True, case.head.span.span_id)


def slow_otherwise(case: Case) -> Iterable[Finding]:
    """What took long without a rule that says why: the API server logs such requests, too, from 500 ms on (3.2).
    Plugins and everything else that it does itself have no spans."""
    if case.duration < SLOW_NS or case.stream:
        return
    own = case.phases.ns[Phase.OTHER]
    text = ""
    if not case.head.children:
        text = "nothing below its own span is here, so where cannot be known"
    elif own >= 0.5 * case.duration:
        text = f"{case.took(own)} of it in the API server itself, where plugins and waiting for a CPU have no spans"
    elif case.notable(case.phases.ns[Phase.CACHE]):
        text = f"{case.took(case.phases.ns[Phase.CACHE])} of it in the watch cache, which may have waited to catch up"
    if text:
        text = f"The request took {time_text(case.duration)}, {text}."
        yield Finding("slow", text, "slow", case.duration, False, case.head.span.span_id)
