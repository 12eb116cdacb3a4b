"""What etcd, the way to it and other writers did to a request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from receiver.traces.model import Component, Kind, Node
from receiver.traces.phases import Phase
from receiver.traces.rules.case import FAILED, MAX_NODES, Case, Finding, time_text
from receiver.traces.timing import STREAMS

RETRIES: Final = 3
"""Lost races of one write from which they are told even if they took little: one or two only say that the API server's
copy of the object was a little old (recordings: 21 of 2,300 updates, all with one, 5 to 40 ms)."""
STALLED_NS: Final = 1_000_000_000
"""From here on a call that etcd took up late says that etcd stood still; less, a new connection takes as well."""
_USUAL_CODES: Final = frozenset({"5", "NotFound", "NOT_FOUND", "11", "OutOfRange", "OUT_OF_RANGE"})


def slow(case: Case) -> Iterable[Finding]:
    """A call has two spans, the API server's and etcd's. Long and filled by etcd's own: etcd is slow. A gap with etcd's
    span in its middle: etcd is far away. A gap before a short and late span: etcd stalled (10). A gap after it: the
    answer was late, which is not etcd's doing (recorded)."""
    ns = case.phases.ns
    server, gap, call = ns[Phase.ETCD_SERVER], ns[Phase.ETCD_GAP], ns[Phase.ETCD_CALL]
    total = server + gap + call
    if not case.notable(total) or case.head.span.name in STREAMS:
        return
    calls = [step for step in case.path.steps if _is_call(step.node)]
    longest = max(calls, key=lambda step: step.end - step.start, default=None)
    if longest is None:  # etcd's side alone
        text = f"etcd took {case.took(total)}{_consensus(case, case.head)}."
        yield Finding("etcd slow", text, "etcd slow", total, False, case.head.span.span_id)
        return
    span = longest.node.span
    what = span.name.rpartition("/")[2]
    took = f"etcd took {case.took(total)} for {what}"
    if len(calls) > 1:
        took = f"etcd took {case.took(total)} in {len(calls):,} calls, the longest {what} {time_text(span.duration)}"
    answers = [child for child in longest.node.children if child.span.component is Component.ETCD]
    if call >= max(server, gap) or not answers:
        text = f"{took}; its own spans are not here, so whether it or the way to it is slow cannot be known."
        yield Finding("etcd slow", text, "etcd slow", total, False, span.span_id)
        return
    own = answers[-1].span
    there, back = own.start - span.start, span.end - own.end
    cause, phrase, at = "etcd slow", "etcd slow", span.span_id
    if longest.end - longest.start < 0.5 * total:  # many small ones, and nothing about one of them explains all
        text = f"{took}; {time_text(server)} of it inside etcd itself."
    elif server >= gap:
        at = own.span_id
        text = f"{took}, {time_text(server)} of it inside etcd itself{_consensus(case, answers[-1])}."
    elif gap < 0.8 * total or there < 0 or back < 0:
        text = f"{took}, {time_text(server)} of it inside etcd itself; the rest went by on the way there and back."
    elif min(there, back) >= 0.2 * (there + back):
        cause, phrase = "etcd far away", "etcd far away"
        text = (
            f"etcd is far away: {what} took {case.took(total)}, of which {time_text(own.duration)} inside etcd itself; "
            f"{time_text(there)} went by on the way there and {time_text(back)} on the way back."
        )
    elif there > back and there < STALLED_NS:
        cause, phrase = "etcd late", "etcd late"
        text = (
            f"etcd took up {what} only after {case.took(there)} and answered it in {time_text(own.duration)}: it, or "
            "the connection to it, was busy."
        )
    elif there > back:
        cause, phrase = "etcd stalled", "etcd stalled"
        text = (
            f"etcd stalled: {case.took(there)} went by before it took up {what}, which then took it "
            f"{time_text(own.duration)}."
        )
    else:
        cause, phrase = "etcd answer late", "answer of etcd late"
        text = (
            f"etcd answered {what} after {time_text(there + own.duration)}, but {case.took(back)} more went by until "
            "the API server had the answer: the network, or an API server without a free CPU."
        )
    yield Finding(cause, text, phrase, total, False, at)


def _is_call(node: Node) -> bool:
    return node.span.kind is Kind.CLIENT and node.span.name.startswith("etcdserverpb.")


def _consensus(case: Case, answer: Node) -> str:
    """What the time inside etcd was: since 3.7 its own spans tell how long a write waited for the other members, by
    their events `Send raft proposal` and `Receive raft result`; before, nothing does (4)."""
    for node in (answer, *answer.children)[:MAX_NODES]:
        sent = got = None
        for at, name, _ in case.events(node):
            sent = at if name == "Send raft proposal" else sent
            got = at if name == "Receive raft result" else got
        if sent is not None and got is not None and got > sent:
            return f", {time_text(got - sent)} waiting for its members to agree and its disk to write"
    if answer.span.name.endswith("/Range"):
        return ": a large range, or its members were slow to agree"
    return ": its disk, or its members were slow to agree"


def failed(case: Case) -> Iterable[Finding]:
    """A call to etcd that fails has status 2 and says why (7.2): `etcdserver: request timed out`, `... no leader`, or
    that nobody could be reached. Whoever gave up is told elsewhere."""
    if case.head.span.name in STREAMS:
        return
    for node in case.etcd_calls:
        if node.span.status != FAILED or (case.given_up is not None and case.given_up.node is node):
            continue
        said = case.message(node)
        if "too large" in said or "canceled" in said or case.attribute(node, "rpc_code") in _USUAL_CODES:
            continue
        what = node.span.name.rpartition("/")[2]
        away = any(word in said.lower() for word in ("connection", "dial tcp", "transport", "unavailable"))
        text = f"etcd {'could not be reached' if away else 'failed'} for {what}{': ' + said if said else ''}."
        yield Finding("etcd failed", text, "etcd failed", case.time_of(node), True, node.span.span_id)
        return


def conflicts(case: Case) -> Iterable[Finding]:
    """Each lost race of a write leaves the event `Retry value restored`; a write that names a version is refused with
    409 and `the object has been modified` (3.2, 10)."""
    retries, ns, at = 0, 0, case.head
    for node in case.named("GuaranteedUpdate etcd3"):
        lost = sum(name == "Retry value restored" for _, name, _ in case.events(node))
        if lost:
            retries, ns, at = retries + lost, ns + case.time_of(node), node
    if case.code == 409 and "object has been modified" in case.error[1]:
        text = "Another writer was faster: the object had been changed since it was read, so 409 was the answer."
        yield Finding("conflict", text, "conflict", 0, True, at.span.span_id)
    elif retries >= RETRIES or (retries and case.notable(ns)):
        more = "more than " if case.count("GuaranteedUpdate etcd3") > MAX_NODES else ""
        times = "once" if retries == 1 and not more else f"{more}{retries} times"
        ns = min(ns, case.duration)  # one may hold another
        text = f"Other writers were faster: the change was tried again {times}, {case.took(ns)} in all."
        yield Finding("conflict retries", text, "conflict retries", ns, case.code == 409, at.span.span_id)
