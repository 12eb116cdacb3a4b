"""What admission and conversion webhooks did to a request."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from receiver.traces.model import Kind, Node
from receiver.traces.phases import HookTime, Phase
from receiver.traces.rules.case import (
    FAILED,
    HOOKS,
    MAX_NODES,
    WRITES,
    Case,
    Finding,
    cut,
    inside_or_on_the_way,
    lower,
    share_text,
    short_hook,
    time_text,
)
from receiver.traces.semantics import built_in

_TIMEOUT: Final = re.compile(r"[?&]timeout=([0-9.]+)(ms|s|m)(?:[0-9.]+s)?(?:&|$)")
_NS: Final = {"ms": 1e6, "s": 1e9, "m": 60e9}
_REFUSING: Final = re.compile(r'failed calling webhook "([^"]{1,256})"')
_DENIED: Final = re.compile(r'admission webhook "([^"]{1,256})" denied the request:? ?(.*)', re.DOTALL)


def _hooks(case: Case) -> list[Node]:
    """The spans that name a webhook's call; in 1.22 to 1.25 the calls themselves."""
    return case.named(*HOOKS) or [node for node in case.named("POST") if id(node) in case.hook_calls]


def failed(case: Case) -> Iterable[Finding]:
    """A failed call leaves status 2 on `HTTP POST`: `context deadline exceeded`, `dial tcp ...`, `tls: ...`, or without
    a message the status code of the webhook's answer (10). Of one webhook that fails the same way again and again (a
    collection is deleted) the first call is told."""
    calls = [node for node in case.nodes if node.span.status == FAILED and id(node) in case.hook_calls]
    told: dict[tuple[str, str], list[Finding]] = {}
    for call in case.longest(calls):
        hook = case.hook_calls[id(call)]
        if case.given_up is None or case.given_up.node is not hook:
            finding = _failure(case, hook, call)
            told.setdefault((finding.cause, finding.phrase), []).append(finding)
    for same in told.values():
        many = "At least" if len(calls) > MAX_NODES else "In all"
        again = f" {many} {len(same)} of its calls failed so." if len(same) > 1 else ""
        ns = min(case.duration, sum(finding.ns for finding in same))
        yield replace(same[0], text=same[0].text + again, ns=ns)


def _failure(case: Case, hook: Node, call: Node) -> Finding:
    name, said = case.hook_name(hook), case.message(call)
    low, code = said.lower(), case.attribute(call, "code")
    ns = case.time_of(hook)
    if "deadline exceeded" in low or "timeout" in low:
        cause, state = "webhook timeout", "timeout"
        allowed = _timeout(case, call)
        limit = f"its {allowed} timeout" if allowed else f"its timeout ({time_text(call.span.duration)})"
        share = f" ({share_text(ns, case.duration)} of the request)" if case.notable(ns) else ""
        what = f"did not answer within {limit}{share}"
    elif "x509" in low or "tls:" in low or "certificate" in low:
        cause, state, what = "webhook certificate", "untrusted", f"is not trusted ({said})"
    elif not said and code:
        cause, state, what = "webhook error", "fails", f"answered {code} instead of a review"
    elif said:
        cause, state, what = "webhook unreachable", "down", f"could not be reached ({said})"
    else:
        cause, state, what = "webhook error", "fails", "failed without saying why"
    outcome = _outcome(case, hook)
    text = f"{name} {what}{'; ' + outcome if outcome else ''}."
    return Finding(cause, text, f"{short_hook(name)} {state}", ns, True, call.span.span_id)


def _timeout(case: Case, call: Node) -> str:
    """The timeout that the API server told the webhook in its URL: `1 s`."""
    found = _TIMEOUT.search(case.attribute(call, "url", 4096))
    if found is None:
        return ""
    return f"{float(found[1]) * _NS[found[2]] / 1e9:g} s" if len(found[1]) < 10 and found[1].count(".") < 2 else ""


def _outcome(case: Case, hook: Node) -> str:
    """failurePolicy is no attribute of any span: what became of the request tells it, and who is named in its error
    (3.2, 10)."""
    if hook.span.name == "Call conversion webhook":
        return ""  # has no failurePolicy
    if case.code is None:
        return "the answer has no status code here, so what failurePolicy made of it cannot be known"
    if case.code < 400:
        return "failurePolicy Ignore let the request through"
    named = _REFUSING.search(case.error[1])
    if named and named[1] == case.attribute(hook, "webhook"):
        return f"failurePolicy Fail refused the request with {case.code}"
    if case.error[1]:  # something else ended it
        return "failurePolicy Ignore let the request go on"
    if len(case.hook_calls) == 1:
        return f"failurePolicy Fail refused the request with {case.code}"
    return f"the request was refused with {case.code}"


def denied(case: Case) -> Iterable[Finding]:
    """A denial is an answer like any other: no span of the API server fails. The verb span's event says
    `Write to database call failed` with the error, the webhook's own span may fail (10)."""
    if case.code is None or case.code < 400:
        return
    hooks = _hooks(case)
    for verb in case.named(*WRITES):
        for _, _, values in case.events(verb):
            found = _DENIED.search(values.get("err", ""))
            if found:
                at = next((hook for hook in reversed(hooks) if case.attribute(hook, "webhook") == found[1]), None)
                yield _denial(case, at, f"Webhook {cut(found[1])}", "denied", found[2], at or verb)
                return
    for hook in hooks[-1:]:
        for call in case.calls(hook):
            refusing = [node for node in call.children if node.span.kind is Kind.SERVER and node.span.status == FAILED]
            if refusing and call.span.status != FAILED:
                yield _denial(case, hook, "", "seems to have denied", case.message(refusing[0]), hook)


def _denial(case: Case, hook: Node | None, name: str, verb: str, why: str, at: Node) -> Finding:
    ns = 0
    if hook is not None:
        name, ns = case.hook_name(hook), case.time_of(hook)
    why = cut(why).rstrip(". ")
    took = f" after {case.took(ns)}" if ns else ""
    text = f"{name} {verb} the request{took}{': ' + why if why else ''}."
    phrase = f"denied by {short_hook(name).partition(' ')[2]}"
    return Finding("webhook denied", text, phrase, ns, True, at.span.span_id)


def slow(case: Case) -> Iterable[Finding]:
    """The call is the span `Call ... webhook`; what the webhook's own SERVER span does not cover is the way to it,
    and a webhook without an SDK sends none (3.2, 5)."""
    by_id = {step.node.span.span_id: step.node for step in case.path.steps}
    for taken in case.phases.hooks:
        slow = case.notable if taken.phase is Phase.CONVERSION else case.slow_hooks
        if not slow(taken.ns) or _together(case, taken):
            continue
        hook = by_id[taken.span_id]
        calls = case.calls(hook)
        if any(call.span.status == FAILED for call in calls):
            continue  # told by `failed`, or by who gave up
        name = case.hook_name(hook)
        where = inside_or_on_the_way(taken.ns, calls[-1] if calls else None, "the webhook")
        cause = "conversion webhook slow" if taken.phase is Phase.CONVERSION else "webhook slow"
        text = f"{name} took {case.took(taken.ns)}{where}."
        yield Finding(cause, text, short_hook(name), taken.ns, False, taken.span_id)


def in_sequence(case: Case) -> Iterable[Finding]:
    """Mutating webhooks are called one after another, then the validating ones, so their times add up (3.3)."""
    hooks = _admission(case)
    if len(hooks) < 2 or not _together(case, hooks[0]):
        return
    total = sum(hook.ns for hook in hooks)
    largest = max(hooks, key=lambda hook: hook.ns)
    by_id = {step.node.span.span_id: step.node for step in case.path.steps}
    if len(hooks) > MAX_NODES:  # not all of them are looked into
        many = f"{len(hooks):,} calls of webhooks"
        told = f"the longest, of {lower(case.hook_name(by_id[largest.span_id]))}, {time_text(largest.ns)}"
    else:
        times: dict[str, list[int]] = {}
        for hook in hooks:  # in the order of the calls
            times.setdefault(lower(case.hook_name(by_id[hook.span_id])), []).append(hook.ns)
        most = sorted(times, key=lambda name: -sum(times[name]))[:3]
        told = ", ".join(
            f"{name} {time_text(sum(spent))}{f' in {len(spent)} calls' if len(spent) > 1 else ''}"
            for name, spent in times.items()
            if name in most
        )
        told += f", {len(times) - 3} more the rest" if len(times) > 3 else ""
        many = f"{len(hooks)} calls of webhooks" if len(times) < len(hooks) else f"{len(hooks)} webhooks"
    text = f"{many}, one after another, took {case.took(total)} together: {told}."
    yield Finding("webhooks in sequence", text, many, total, False, largest.span_id)


def _admission(case: Case) -> list[HookTime]:
    return [hook for hook in case.phases.hooks if hook.phase is not Phase.CONVERSION]


def _together(case: Case, hook: HookTime) -> bool:
    """Whether a webhook's time is told together with that of the others: none of them stands out."""
    hooks = _admission(case)
    total = sum(each.ns for each in hooks)
    if len(hooks) < 2 or hook.phase is Phase.CONVERSION or not case.slow_hooks(total):
        return False
    notable = [each.ns for each in hooks if case.slow_hooks(each.ns)]
    return len(notable) > 2 or sum(notable) < 0.6 * total


def conversion_untraced(case: Case) -> Iterable[Finding]:
    """A slow conversion webhook may leave no span at all: self time of `cacher.Get` after its only child, on a custom
    resource (10)."""
    request = case.request
    if request is None or built_in(request.group):
        return
    for node in case.named("cacher.Get", "cacher.GetList", "cacher list"):
        step = case.step(node)
        if step is not None and case.notable(step.rest):
            text = (
                f"{case.took(step.rest)} went by in the cache of {cut(request.group)}/{cut(request.version)} without a "
                "span to explain it: most likely a conversion webhook, which is not traced there."
            )
            yield Finding("conversion suspected", text, "conversion?", step.rest, False, node.span.span_id)
