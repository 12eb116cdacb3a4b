"""What is said of a traced command: a line a request and its verdict, what is missing and why, and the same as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from receiver.traces import pairing
from receiver.traces.bodies import Bodies
from receiver.traces.listing import Row
from receiver.traces.verdict import judge
from tui.clusters.force.collected import Collector, Found, How, Reason, described, is_discovery
from tui.clusters.force.proxy import Seen
from tui.clusters.force.repeats import Comparison, Spread
from tui.documents import dumps, trace_document, trace_lines
from tui.printing import DIM, RED, YELLOW, Paper
from tui.terminal_text import count, counted, duration, fit, printable
from tui.wording import place_of

MOST_LINES: Final = 200
"""Requests that are told in text; of more those that failed and the slowest are."""
_WIDTH: Final = 120
_INDENT: Final = "      "


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a command: its `words`, the requests as they were `found`, and `reasons` why something is missing.
    `more` is how many further requests were not kept."""

    words: str
    found: Sequence[Found]
    rows: dict[str, Row]
    reasons: Sequence[Reason]
    more: int = 0


def summary(report: Report) -> str:
    """One sentence: how many requests, how many of them traced."""
    found = report.found
    number = len(found) + report.more
    requests = f"{count(number)} request{'s' if number != 1 else ''}"
    forced = sum(one.how is How.FORCED for one in found)
    tagged = sum(one.how is How.TAGGED for one in found)
    traced = [f"{count(forced)} traced"] if forced or not tagged else []
    traced += [f"{count(tagged)} taken by the sampler"] if tagged else []
    spans = sum(row.summary.spans for row in report.rows.values())
    spans_told = f", {counted(spans, 'span')}" if spans else ""
    asking = sum(is_discovery(one.seen) for one in found)
    discovery = f" ({count(asking)} of discovery)" if asking else ""
    return f"{report.words}: {requests}{discovery}, {', '.join(traced)}{spans_told}."


def lines(report: Report, collector: Collector, paper: Paper) -> Iterator[str]:
    """A line a request in the order they began, with what its verdict says below it; then what is missing and why."""
    bodies = Bodies(collector.database)
    told = chosen(report.found)
    for one in told:
        row = report.rows.get(one.trace_id)
        yield _line(one, row, paper)
        for sentence in verdict_of(one, row, collector, bodies):
            text = printable(sentence, 1024)
            width = (paper.width or _WIDTH) - len(_INDENT)
            yield from (f"{_INDENT}{part}" for part in textwrap.wrap(text, max(20, width)))
    left = len(report.found) - len(told) + report.more
    if left:
        yield paper.paint(f"{_INDENT}{count(left)} more requests are not shown: --json FILE has them.", DIM)
    for reason in report.reasons:
        if reason.own:  # said below the request
            continue
        of = f"{count(len(reason.numbers))} of {count(len(report.found))}: " if len(report.found) > 1 else ""
        text = printable(f"{of}{reason.sentence}", 1024)
        yield from textwrap.wrap(text, paper.width or _WIDTH)


def chosen(found: Sequence[Found]) -> Sequence[Found]:
    """Those that are told one by one, in the order they began: of very many, what failed and the slowest."""
    if len(found) <= MOST_LINES:
        return found
    order = sorted(found, key=lambda one: (one.seen.code < 400 and one.seen.code > 0, -one.seen.duration_ns))
    return sorted(order[:MOST_LINES], key=lambda one: one.seen.number)


def _line(one: Found, row: Row | None, paper: Paper) -> str:
    seen = one.seen
    code = str(seen.code) if seen.code else "---"
    colour = (RED,) if seen.code >= 500 or not seen.code else (YELLOW,) if seen.code >= 400 else ()
    about = about_of(one, row)
    trace = paper.paint((one.trace_id[:12] or "not traced").ljust(12), DIM)
    return f"{paper.paint(code.rjust(4), *colour)} {fit(duration(seen.duration_ns), 9, right=True)}  {trace}  {about}"


def about_of(one: Found, row: Row | None) -> str:
    """What a request was about, in printable words: `list pods shop/`."""
    verb, resource, place = described(one.seen)
    if row is not None and row.summary.request is not None and row.summary.request.resource:
        place = "".join(place_of(row.summary)) or place  # a create's URL does not name what was made
    if any(key == "dryRun" for key, _ in parse_qsl(one.seen.target.partition("?")[2], max_num_fields=64)):
        place = f"{place}  (dry run)"
    about = f"{printable(verb, 20)} {printable(resource, 80)} {printable(place, 160)}".rstrip()
    return f"{about}  (discovery)" if is_discovery(one.seen) else about


def verdict_of(one: Found, row: Row | None, collector: Collector, bodies: Bodies) -> Sequence[str]:
    """What a request's trace says, in sentences; what went wrong on its way where it has none."""
    if one.how is How.MISSING or row is None:
        return [one.seen.error] if one.seen.error else []
    trace = collector.trace(one)
    return judge(trace, bodies, authentication=row.waited, caller=False).sentences if trace is not None else []


# --- JSON -----------------------------------------------------------------------------------------------
def documents(report: Report, collector: Collector, run: int = 1) -> Iterator[str]:
    """A line of JSON a request: the request as the command's machine saw it, how its trace was found and why not, and
    the trace as `traces --json` (`trace`) and `show --json` (`show`) tell it, null where there is none."""
    bodies = Bodies(collector.database)
    why = {number: reason.sentence for reason in report.reasons for number in reason.numbers}
    paired = pairing.pairs(collector.index)
    for one in report.found:
        head = {**seen_document(one.seen), "run": run, "how": one.how.value, "why": why.get(one.seen.number)}
        head |= {"trace_id": one.trace_id or None, "lacking": one.lacking or None}
        row = report.rows.get(one.trace_id)
        trace = collector.trace(one) if row is not None else None
        if row is None or trace is None:
            yield dumps({**head, "trace": None, "show": None}) + "\n"
            continue
        slot = collector.index.slot_of(one.trace_id)
        (other,) = pairing.paired_with(collector.index, paired, [slot or 0])
        head["trace"] = trace_document(row.summary, row.phases, other)
        yield dumps(head)[:-1] + ',"show":'
        yield from trace_lines(trace, bodies, row.waited)
        yield "}\n"


def seen_document(seen: Seen) -> dict[str, Any]:
    """A request as the proxy saw it. Times in ns; `sent_trace_id` and `parent_id` are what its `traceparent` said."""
    return {
        "number": seen.number,
        "method": seen.method,
        "target": seen.target,
        "code": seen.code or None,
        "start": seen.started,
        "duration_ns": seen.duration_ns,
        "audit_id": seen.audit_id,
        "sent_trace_id": seen.trace_id,
        "parent_id": seen.parent_id,
        "request_bytes": seen.sent,
        "response_bytes": seen.received,
        "upgraded": seen.upgraded,
        "watch": seen.watch,
        "discovery": is_discovery(seen),
        "error": seen.error or None,
    }


# --- several runs -------------------------------------------------------------------------------------
def comparison_lines(told: Comparison, paper: Paper) -> Iterator[str]:
    """A table of medians and spreads: the command, its phases, its requests."""
    yield paper.paint(f"{fit('', 48)} {fit('MEDIAN', 9, True)} {fit('LEAST', 9, True)} {fit('MOST', 9, True)}", DIM)
    for spread in told.whole:
        yield _spread_line(spread, paper)
    for spread in told.phases:
        yield _spread_line(spread, paper, "  ")
    if told.traced < told.runs:
        yield f"  phases of {count(told.traced)} of {count(told.runs)} runs: in the others not every request was traced"
    for spread in told.requests:
        of = f" ({count(spread.of)} of {count(told.runs)} runs)" if spread.of < told.runs else ""
        yield _spread_line(spread, paper) + of


def _spread_line(spread: Spread, paper: Paper, indent: str = "") -> str:
    times = (spread.median, spread.least, spread.most)
    return f"{fit(indent + printable(spread.name), 48)} {' '.join(fit(duration(ns), 9, right=True) for ns in times)}"


def comparison_document(told: Comparison) -> str:
    """The last line of `trace --compare --json`."""
    document = {
        "comparison": {
            "runs": told.runs,
            "traced_runs": told.traced,
            "whole": [one.to_json() for one in told.whole],
            "phases": [one.to_json() for one in told.phases],
            "requests": [one.to_json() for one in told.requests],
        }
    }
    return dumps(document) + "\n"
