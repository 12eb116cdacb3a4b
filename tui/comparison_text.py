"""Two recordings side by side, as lines of text and as JSON: `k8s-trace-tui compare`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from receiver.traces.changes import ALPHA, LEAST, LEAST_NS, LEAST_SHARE, Change, Outcome, Sample
from tui.printing import BOLD, DIM, RED, Paper
from tui.terminal_text import count, duration, fit, printable

_GREEN: Final = 32
_COLOURS: Final = {Outcome.SLOWER: (RED,), Outcome.FASTER: (_GREEN,)}
_PHRASES: Final = {
    Outcome.SAME: "did not change by more than noise, or not by enough",
    Outcome.FEW: f"had too few requests (under {LEAST}) in one of them",
    Outcome.NEW: "only in the second",
    Outcome.GONE: "only in the first",
}


def document(change: Change) -> dict[str, Any]:
    """A line of `compare --json`: times in ns; `p` is null where nothing was tested, and corrected for how many were.
    `tendency` is how likely a request of the second lasts longer than one of the first."""
    tested = change.outcome in (Outcome.SLOWER, Outcome.FASTER, Outcome.SAME)
    return {
        "verb": change.verb,
        "group": change.group,
        "resource": change.resource or None,
        "subresource": change.subresource or None,
        "scope": change.scope or None,
        "outcome": change.outcome.value.replace(" ", "_"),
        "before": _sample(change.before),
        "after": _sample(change.after),
        "p50_delta_ns": change.delta if change.before.count and change.after.count else None,
        "p": change.p if tested else None,
        "tendency": round(change.tendency, 4) if tested else None,
        "because": change.because or None,
    }


def _sample(sample: Sample) -> dict[str, Any]:
    some = sample.count > 0
    return {
        "count": sample.count,
        "errors": sample.errors,
        "p50_ns": sample.p50 if some else None,
        "p95_ns": sample.p95 if some else None,
    }


def lines(changes: Sequence[Change], paper: Paper, everything: bool) -> Iterator[str]:
    """A line for each shape that changed (or each at all), and what became of all others."""
    shown = [change for change in changes if everything or change.outcome in (Outcome.SLOWER, Outcome.FASTER)]
    wide = 32
    if paper.width is None:  # a file or a pipe: nothing is cut
        wide = max([wide, *(len(printable(_resource(change))) for change in shown)])
    if shown:
        yield paper.paint(
            f"{'OUTCOME':<8} {'VERB':<8} {'RESOURCE':<{wide}} {'SCOPE':<9} {'BEFORE':>7} {'P50':>9}  {'AFTER':>7} "
            f"{'P50':>9} {'CHANGE':>8}  {'P':>7}  MOSTLY",
            BOLD,
        )
    for change in shown:
        yield _line(change, paper, wide)
    kinds = Counter(change.outcome for change in changes)
    slower, faster = kinds[Outcome.SLOWER], kinds[Outcome.FASTER]
    if shown:
        yield ""
    yield f"{_shapes(slower)} became slower, {count(faster)} faster."
    others = [f"{count(kinds[kind])} {says}" for kind, says in _PHRASES.items() if kinds[kind]]
    if others:
        yield paper.paint(f"{'; '.join(others)}.", DIM)
    tested = slower + faster + kinds[Outcome.SAME]
    if tested:
        yield paper.paint(
            f"A change: Mann-Whitney U, p below {ALPHA:g} after Holm's correction for {count(tested)} tests, and a "
            f"median that differs by {LEAST_SHARE:.0%} and {duration(LEAST_NS)} at least. Requests of one burst are "
            "not independent: take a p as a lower bound.",
            DIM,
        )


def _shapes(number: int) -> str:
    return "1 shape" if number == 1 else f"{count(number)} shapes"


def _resource(change: Change) -> str:
    resource = "/".join(filter(None, (change.resource, change.subresource))) or "(no resource)"
    return f"{resource}.{change.group}" if change.group else resource


def _line(change: Change, paper: Paper, wide: int) -> str:
    before, after = change.before, change.after
    both = before.count and after.count
    ratio = f"{after.p50 / before.p50 - 1:+.0%}" if both and before.p50 else ""
    tested = change.outcome in (Outcome.SLOWER, Outcome.FASTER, Outcome.SAME)
    p = "" if not tested else "<0.0001" if change.p < 0.0001 else f"{change.p:.4f}"
    cells = [
        fit(change.outcome.value, 8),
        fit(change.verb, 8),
        fit(_resource(change), wide),
        fit(change.scope, 9),
        fit(count(before.count), 7, right=True),
        fit(duration(before.p50) if before.count else "", 9, right=True),
        "",
        fit(count(after.count), 7, right=True),
        fit(duration(after.p50) if after.count else "", 9, right=True),
        fit(ratio, 8, right=True),
        "",
        fit(p, 7, right=True),
    ]
    said = f"{' '.join(cells)}  {change.because}".rstrip()
    return paper.paint(said, *_COLOURS.get(change.outcome, ()))
