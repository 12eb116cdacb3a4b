"""What is said about a trace in a few words: how bad, whose, about what, why. For lists, titles and text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from receiver.traces.listing import Row
from receiver.traces.model import Settled, TraceSummary
from receiver.traces.phases import HOOKS, Phase, Phases
from receiver.traces.rules.case import NOTABLE_NS, NOTABLE_SHARE, SLOW_HOOKS_NS
from receiver.traces.semantics import built_in, long_running
from receiver.traces.verdict import Verdict
from tui.terminal_text import count, duration


def verdict_mark(row: TraceSummary) -> str:
    """How bad it is: "failed" (5xx, or refused after a webhook call failed; without a request: failed spans),
    "suspicious" (4xx, or failed calls and spans in a request that went well) or ""."""
    code = row.request.code if row.request else None
    if code is None:
        return "failed" if row.errors else ""
    if code >= 500 or (row.failure and code >= 400):
        return "failed"
    return "suspicious" if code >= 400 or row.errors else ""


def client_of(user_agent: str) -> str:
    """The short name of a client: `kubectl`, `controller-manager`, `scheduler`; with what it did the call for where it
    says so (`controller-manager/node-controller`)."""
    words = user_agent.split(" ")
    name = words[0].partition("/")[0].removeprefix("kube-")
    account = next((word.rpartition(":")[2] for word in words if "/system:serviceaccount:" in word), "")
    if not account and len(words) > 1:
        tail = words[-1].rpartition("/")[2]
        account = tail if re.fullmatch(r"[a-z][a-z-]{2,40}", tail) and tail != name else ""
    return f"{name}/{account}" if account and account != name else name


def place_of(row: TraceSummary) -> tuple[str, str]:
    """(namespace with its slash, name): what a request is about; of a create the object that it made."""
    request = row.request
    if request is None:
        return "", ""
    if request.namespace and request.resource != "namespaces":
        return f"{request.namespace}/", request.name or row.created
    return "", request.name or row.created


def title_of(row: TraceSummary) -> str:
    """What it is in a few words: `create pods default/slow-one`; without a request the name of its headline."""
    request = row.request
    if request is None:
        return row.headline
    if not request.resource:
        return f"{request.verb} {request.path or row.headline}"
    resource = "/".join(filter(None, (request.resource, request.subresource)))
    return " ".join(filter(None, (request.verb, resource, "".join(place_of(row)))))


def mention(row: TraceSummary) -> str:
    """A trace where another one is on the screen: `list nodes  12.3 ms  by kubelet`."""
    who = client_of(row.request.user_agent) if row.request is not None else ""
    who = who or (row.services[0] if row.services else "")
    return "  ".join(filter(None, (title_of(row), duration(row.duration_ns), f"by {who}" if who else "")))


# --- why, in a few words ---------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Phrase:
    """A cause in a few words. `mark`: "failed", "suspicious" (slow, or failed in part) or "" (it is just so)."""

    text: str = ""
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What a verdict says about a row: `phrase` for the list, `sentence` for the line under it; empty where it found
    nothing remarkable."""

    phrase: Phrase = Phrase()
    sentence: str = ""


def phrase(row: Row) -> Phrase:
    """What a row's cause seems to be, from the index alone: what failed, else what took the largest part of the time.

    The verdict may know better: `told`.
    """
    summary, request = row.summary, row.summary.request
    failed = f"{count(summary.errors)} failed span{'s' if summary.errors > 1 else ''}" if summary.errors else ""
    if request is None:
        return Phrase(failed, "failed" if failed else "")
    time, code = _time_phrase(row), request.code or 0
    if code >= 400:
        if summary.failure:
            return Phrase(_failed_webhook(summary), "failed")
        if code == 403 and summary.webhooks:  # an authorizer would have refused before any webhook was called
            return Phrase(f"denied by {short_name(summary.webhooks[-1])}", "failed")
        answer = "aggregated API down?" if _seems_absent(row) else _ANSWERS.get(code, f"answered {code}")
        return time if time.mark and code < 500 else Phrase(answer, "failed" if code >= 500 else "")
    if time.mark:
        return time
    if summary.failure:
        return Phrase(_failed_webhook(summary), "suspicious")
    return Phrase(failed, "suspicious") if failed else time


def _seems_absent(row: Row) -> bool:
    """Whether a request with 503 was for an aggregated API: passed on, or for a group of others and never near etcd."""
    request, phases = row.summary.request, row.phases
    if request is None or phases is None or request.code != 503 or built_in(request.group):
        return False
    return bool(phases.ns[Phase.AGGREGATION]) or not phases.group("etcd")


def short_name(webhook: str) -> str:
    """A webhook's name up to its first dot: the domain behind it is mostly the same for all."""
    return webhook.partition(".")[0]


def _failed_webhook(summary: TraceSummary) -> str:
    said = summary.failure.lower()
    if "context canceled" in said:
        what = "given up on"
    elif "deadline exceeded" in said or "timeout" in said:
        what = "timeout"
    elif "x509" in said or "tls:" in said or "certificate" in said:
        what = "untrusted"
    elif said.startswith("http "):
        what = "fails"
    else:
        what = "down"
    return " ".join(filter(None, ("webhook", short_name(summary.failed_webhook), what)))


def _time_phrase(row: Row) -> Phrase:
    """The largest part of a request's time; nothing for what was asked to last."""
    phases, request = row.phases, row.summary.request
    if phases is None or not phases.duration or request is None or long_running(request):
        return Phrase()
    ns = phases.ns
    parts = [(sum(ns[phase] for phase in those), text) for text, those in _PARTS]
    stores = "etcd write" if request.verb in _WRITES else "etcd read"
    parts.append((phases.group("etcd"), stores))
    inside = ns[Phase.AUTHENTICATION]  # what went by before is not in the row's duration, so it is said with its time
    before = f"authentication {duration(row.waited)}" if _is_notable(row.waited, phases.duration + row.waited) else ""
    parts.append((max(inside, row.waited), before if before and row.waited > inside else "authentication"))
    hooks = _hooks(phases)
    parts.append(hooks)
    most, text = max(parts, key=lambda part: part[0])
    notable = _is_notable(most, phases.duration + row.waited)
    if text == hooks[1] and most < SLOW_HOOKS_NS and not phases.ns[Phase.CONVERSION]:
        notable = False
    return Phrase(text, "suspicious" if notable else "")


def _is_notable(ns: int, of: int) -> bool:
    return ns >= NOTABLE_NS and ns >= NOTABLE_SHARE * of


def _hooks(phases: Phases) -> tuple[int, str]:
    """(time of all webhooks, the one to name: slow by itself, or nearly all of it; else how many there were)."""
    by_name: dict[str, int] = {}
    for hook in phases.hooks:
        by_name[hook.name] = by_name.get(hook.name, 0) + hook.ns
    total = sum(phases.ns[phase] for phase in HOOKS)
    name = max(by_name, key=lambda name: by_name[name], default="")
    slow = by_name.get(name, 0) >= SLOW_HOOKS_NS and _is_notable(by_name[name], phases.duration)
    if len(by_name) > 1 and by_name[name] < 0.8 * total and not slow:
        return total, f"{len(by_name)} webhooks"
    return total, f"webhook {short_name(name)}".rstrip()


def worth_judging(row: Row) -> bool:
    """Whether a verdict may know more than the index does: it takes decoding, so not for every row."""
    request = row.summary.request
    if request is None:
        return False
    if (request.code or 0) >= 400 or row.summary.errors:
        return True
    slow = row.summary.duration_ns >= NOTABLE_NS and not long_running(request)
    return slow or row.waited >= NOTABLE_NS


def told(summary: TraceSummary, verdict: Verdict) -> Told:
    """What of a verdict is told in the list: its first finding."""
    if not verdict.findings:
        return Told()
    finding, refused = verdict.findings[0], (summary.request.code or 0) >= 400 if summary.request else False
    wrong = finding.failed and refused and (verdict_mark(summary) == "failed" or finding.cause == "webhook denied")
    return Told(Phrase(finding.phrase, "failed" if wrong else "suspicious"), verdict.sentences[0])


def state_text(row: TraceSummary) -> str:
    """How complete a trace is, in words; "" when nothing is missing."""
    if row.settled is Settled.ARRIVING:
        return "still arriving"
    if row.settled is Settled.MISSING:
        return f"{count(row.missing)} parent{'s' if row.missing > 1 else ''} not seen"
    return ""


_WRITES: Final = ("create", "update", "patch", "delete", "deletecollection", "post", "put")
_PARTS: Final = (
    ("apiserver", (Phase.OTHER,)),
    ("audit", (Phase.AUDIT,)),
    ("impersonation", (Phase.IMPERSONATION,)),
    ("queued", (Phase.QUEUE,)),
    ("authorization", (Phase.AUTHORIZATION,)),
    ("cache", (Phase.CACHE,)),
    ("encryption", (Phase.ENCRYPTION,)),
    ("encoding", (Phase.ENCODING,)),
    ("encoding or encryption", (Phase.STORAGE_ENCODING,)),
    ("decoding", (Phase.DECODING, Phase.STORAGE_DECODING)),
    ("aggregated API", (Phase.AGGREGATION,)),
    ("container runtime", (Phase.RUNTIME,)),
)
_ANSWERS: Final = {
    400: "bad request",
    401: "unauthorized",
    403: "forbidden",
    404: "not found",
    405: "method not allowed",
    406: "not acceptable",
    408: "timeout",
    409: "conflict",
    410: "gone",
    413: "too large",
    415: "media type not supported",
    422: "invalid",
    429: "too many requests",
    500: "internal error",
    501: "not implemented",
    502: "bad gateway",
    503: "service unavailable",
    504: "timeout",
}
