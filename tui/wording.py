"""What is said about a trace in a few words: how bad, whose, about what, why. For lists, titles and text."""

from __future__ import annotations

import re
from typing import Final

from receiver.traces.model import Settled, TraceSummary
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


def explanation(row: TraceSummary, *, whole: bool = False) -> list[tuple[str, str]]:
    """What is known about where it went, as (text, style name); without phases, so only what spans say outright.

    Args:
        row: the trace.
        whole: names of webhooks as they are, not only up to their first dot; errors with all that was wrapped around
            them, not only the cause at their end.
    """
    parts: list[tuple[str, str]] = []
    code = row.request.code if row.request else None
    failed = verdict_mark(row) == "failed"
    if row.failure:
        cause = row.failure if whole else row.failure.rpartition(": ")[2] or row.failure
        parts.append((cause, "error" if failed else "warning"))
    elif code is not None and code >= 400:
        parts.append((_ANSWERS.get(code, f"answered {code}"), "error" if failed else "base"))
    elif row.errors:
        parts.append((f"{count(row.errors)} failed span{'s' if row.errors > 1 else ''}", "error" if failed else "base"))
    if row.webhooks:
        names = dict.fromkeys(name if whole else name.partition(".")[0] for name in row.webhooks)
        gap = "  " if parts else ""
        parts.append((f"{gap}webhook{'s' if len(names) > 1 else ''} {', '.join(names)}", "webhook"))
    return parts


def state_text(row: TraceSummary) -> str:
    """How complete a trace is, in words; "" when nothing is missing."""
    if row.settled is Settled.ARRIVING:
        return "still arriving"
    if row.settled is Settled.MISSING:
        return f"{count(row.missing)} parent{'s' if row.missing > 1 else ''} not seen"
    return ""


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
