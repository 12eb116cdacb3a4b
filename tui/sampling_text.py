"""What `sampling` and `doctor` print: tables, diffs and steps as lines for people, and the same as JSON objects.

What a host said goes through `printable`: names, versions, files and errors of a node are hostile.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TextIO

from tui.clusters import doctor, rates
from tui.clusters.model import Mode, Part, Plan, RolloutFacts, State, Trigger
from tui.clusters.rollout import Outcome, ThreeWay
from tui.clusters.survey import Node
from tui.printing import BOLD, DIM, RED, YELLOW, Paper, paper
from tui.terminal_text import printable, width_of


@dataclass(slots=True)
class Job:
    """What is to be done to one node, and how that came out."""

    node: Node
    plan: Plan
    warnings: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    outcome: Outcome | None = None
    asks_name: bool = False
    """The cluster's name is to be typed, for what the plan itself does not say."""

    @property
    def trigger(self) -> Trigger:
        """What makes the component read its files again; nothing does in a directory that stands for a host."""
        return self.plan.trigger if self.node.host.alive else Trigger.NOTHING

    @property
    def price(self) -> str:
        """A sentence: how long what will be away."""
        return self.plan.price if self.node.host.alive else "Only files are written, nothing restarts."


COLUMNS: Final = ("NODE", "COMPONENT", "VERSION", "STATE", "RATE", "ENDPOINT", "ARRIVING", "LAST CHANGE")


def table(
    nodes: Sequence[Node],
    arriving: dict[tuple[str, Part], float | None],
    differing: dict[tuple[str, Part], str],
    sheet: Paper,
) -> list[str]:
    """The lines of `status`: a line a component, then what is to be said of it."""
    none = "-" if sheet.glyphs.ascii else "–"
    rows: list[tuple[tuple[str, ...], State]] = []
    for node in nodes:
        for state in node.states:
            difference = differing.get((state.node, state.part), "")
            last = f"{sheet.glyphs.suspicious} {difference}" if difference else state.last_change
            rows.append(
                (
                    (
                        state.node,
                        state.part.value,
                        state.version or none,
                        state.word + (" (read-only)" if state.read_only else ""),
                        rate_text(state) or none,
                        state.endpoint or none,
                        arriving_text(arriving.get((state.node, state.part))) or none,
                        last,
                    ),
                    state,
                )
            )
    cells = [COLUMNS, *(tuple(printable(cell, 200) for cell in row) for row, _ in rows)]
    widths = [max(width_of(row[at]) for row in cells) for at in range(len(COLUMNS))]

    def line(row: Sequence[str]) -> str:
        padded = (cell + " " * (width - width_of(cell)) for cell, width in zip(row, widths, strict=True))
        return "  ".join(padded).rstrip()

    lines = [sheet.paint(line(COLUMNS), BOLD)]
    colours = {Mode.BROKEN: (RED,), Mode.OFF: (DIM,), Mode.UNKNOWN: (YELLOW,)}
    for row, (_, state) in zip(cells[1:], rows, strict=True):
        lines.append(sheet.paint(line(row), *((RED,) if state.down else colours.get(state.mode, ()))))
    for node in nodes:
        if node.problem:
            lines.append(f"{printable(node.name, 60)}  could not be read")
        elif not node.states:
            lines.append(f"{printable(node.name, 60)}  no control plane that we know runs there")
        lines += [sheet.paint(printable(text, 1000), YELLOW) for text in _remarks(node)]
    return lines


def _remarks(node: Node) -> list[str]:
    said = [f"! {node.name}: {lack}." for lack in (node.facts.lacks if node.facts else ())]
    for state in node.states:
        title = f"{state.node} {state.part.value}"
        said += [f"! {title}: {text}" for text in (state.note, state.read_only) if text]
    if node.running is not None:
        running = node.running
        said.append(f"! {node.name}: {going_on(running)}: {running.step} {running.detail}".rstrip())
    if node.interrupted is not None:
        said.append(f"! {node.name}: {left_over(node.interrupted)}.")
    return said


def going_on(left: RolloutFacts) -> str:
    """Of a rollout that is carried on by its node."""
    return f"a rollout ({about(left)}) is going on"


def left_over(left: RolloutFacts) -> str:
    """Of a rollout that was interrupted, with the ways out."""
    return (
        f"a rollout ({about(left)}) was interrupted at {left.step or 'its begin'}: finish it with `sampling resume`, "
        "or put back what was before with `sampling undo`"
    )


def about(rollout: RolloutFacts) -> str:
    """What it does and whose it is."""
    return f"{rollout.part} {rollout.what}{f' by {rollout.who}' if rollout.who else ''}"


def rate_text(state: State) -> str:
    """A component's rate for people, "" where there is none."""
    if state.mode not in (Mode.ARMED, Mode.SAMPLING) or state.down or state.per_million is None:
        return ""
    return rates.text(state.per_million)


def arriving_text(rate: float | None) -> str:
    """`41 spans/s`, `0.4 spans/s`; "" for unknown and for nothing."""
    if not rate:
        return ""
    return f"{rate:.0f} spans/s" if rate >= 9.5 else f"{rate:.1f} spans/s"


def status_documents(
    node: Node, arriving: dict[tuple[str, Part], float | None], differing: dict[tuple[str, Part], str]
) -> list[dict[str, Any]]:
    """What `status --json` prints of a node: an object a component, or one that says why there is none."""
    interrupted, running = node.interrupted, node.running
    common = {
        "host": node.host.name,
        "node": node.name,
        "problem": node.problem or node.distrust,
        "lacks": list(node.facts.lacks) if node.facts else [],
        "interrupted": None if interrupted is None else _rollout_document(interrupted),
        "running": None if running is None else _rollout_document(running),
    }
    if not node.states:
        return [common]
    return [
        {
            **common,
            "component": state.part.value,
            "version": state.version,
            "state": state.word,
            "per_million": state.per_million,
            "endpoint": state.endpoint,
            "file": state.file,
            "instance": state.instance,
            "flavour": state.flavour,
            "spans_per_s": arriving.get((state.node, state.part)),
            "last_change": state.last_change,
            "note": state.note,
            "read_only": state.read_only,
            "differs": differing.get((state.node, state.part), ""),
        }
        for state in node.states
    ]


def _rollout_document(rollout: RolloutFacts) -> dict[str, Any]:
    return {
        "id": rollout.id,
        "component": rollout.part,
        "what": rollout.what,
        "who": rollout.who,
        "when": rollout.when,
        "step": rollout.step,
        "detail": rollout.detail,
    }


def step_lines(step: doctor.Step, ascii_only: bool) -> list[str]:
    """A step, and under it the way out."""
    signs = doctor.PLAIN_SIGNS if ascii_only else doctor.SIGNS
    lines = [f"{signs[step.mark]} {step.text}"]
    if step.way_out:
        lines.append(f"  {'->' if ascii_only else doctor.WAY_OUT} {step.way_out}")
    return lines


def three_way(file: ThreeWay) -> list[str]:
    """What was there before us against what is there now, as a unified diff with a heading."""
    states = {True: "is not there", False: "is there"}
    heading = (
        f"{file.path}: before our first change it {'was not there' if file.original is None else 'was there'}, "
        f"now it {states[file.now is None]}, and it is not what we wrote"
    )
    old = (file.original or b"").decode("utf-8", "replace").splitlines()
    new = (file.now or b"").decode("utf-8", "replace").splitlines()
    return [heading, *difflib.unified_diff(old, new, "before our first change", "now", lineterm="")]


def outcome_line(node: str, part: str, name: str, outcome: Outcome) -> str:
    """How a change of a node came out."""
    return printable(f"{node} {part} {name}: {outcome.word}{f' ({outcome.detail})' if outcome.detail else ''}", 4096)


def show(jobs: Sequence[Job], to: TextIO | None = None) -> None:
    """The diff, the price, the warnings, and what makes it last."""
    to = sys.stdout if to is None else to
    sheet = paper(to)
    snippets: list[str] = []
    shown: dict[str, str] = {}  # a diff, and the node it was shown for
    for job in jobs:
        plan = job.plan
        title = f"{job.node.name} {plan.part.value}"
        if plan.empty:
            print(printable(f"{title}: nothing to change, it is so already", 400), file=to)
            continue
        print(sheet.paint(printable(f"{title}: {job.price}", 1000), BOLD), file=to)
        if plan.diff in shown:
            print(printable(f"  as on {shown[plan.diff]}", 400), file=to)
        for line in plan.diff.splitlines() if plan.diff not in shown else ():
            print(sheet.paint(_code(line), *_diff_colour(line)), file=to)
        shown.setdefault(plan.diff, job.node.name)
        for warning in (*job.warnings, *job.questions):
            print(sheet.paint(printable(f"! {warning}", 1000), YELLOW), file=to)
        if plan.snippet and plan.snippet not in snippets:
            snippets.append(plan.snippet)
    for snippet in snippets:
        for line in snippet.splitlines():
            print(_code(line), file=to)
    to.flush()


def _code(line: str) -> str:
    """A line of a file, safe to print, its indentation kept."""
    return printable(line.expandtabs(8), 4096)


def _diff_colour(line: str) -> tuple[int, ...]:
    if line.startswith(("+++", "---", "@@")):
        return (DIM,)
    return (32,) if line.startswith("+") else (RED,) if line.startswith("-") else ()


def job_document(job: Job, name: str, dry_run: bool) -> dict[str, Any]:
    """What a change prints of a node with --json."""
    plan = job.plan
    outcome = job.outcome or Outcome(job.node.name, "unchanged" if plan.empty else "planned")
    return {
        "host": job.node.host.name,
        "node": job.node.name,
        "component": plan.part.value,
        "what": name,
        "per_million": plan.wish.per_million,
        "outcome": outcome.word,
        "detail": outcome.detail,
        "spans_arrive": outcome.spans,
        "files": [change.path for change in plan.changes],
        "trigger": job.trigger.value,
        "price": job.price,
        "warnings": list(job.warnings),
        "questions": list(job.questions),
        "diff": plan.diff,
        "snippet": plan.snippet,
        "dry_run": dry_run,
    }
