"""What the Clusters screen draws: a line a component, the steps of a rollout, and what a change would do.

Pure: what was found goes in, lines come out. All of it comes from hosts and is made printable here.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.style import Style

from tui.cluster_feed import Change, NodeRun, Run
from tui.clusters import rates
from tui.clusters.model import Mode, Part, Plan, State, Trigger
from tui.clusters.survey import Node
from tui.glyphs import Glyphs
from tui.sampling_text import about, arriving_text, rate_text
from tui.terminal_text import fit, printable, width_of, wrap
from tui.theming import Palette
from tui.widgets.line import Part as Piece
from tui.widgets.status import wrap_words

if TYPE_CHECKING:
    from tui.clusters.reach.api import Leftover
    from tui.clusters.rollout import Outcome

Line = list[Piece]

_MARKS: Final[Mapping[Mode, tuple[str, str]]] = {
    Mode.OFF: ("○", "-"),
    Mode.ARMED: ("◐", "o"),
    Mode.SAMPLING: ("●", "*"),
    Mode.BROKEN: ("✗", "x"),
    Mode.UNKNOWN: ("?", "?"),
}
"""What stands before a state, in Unicode and in ASCII."""
_LONGEST_SENTENCE: Final = 1000
_MOST_DIFF_LINES: Final = 4000
_HUNK: Final = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_MOST_PIECES: Final = 64
"""Lines that one line of a diff may take; longer ones say so."""


@dataclass(frozen=True, slots=True)
class ComponentRow:
    """A component of a node; `state` None where the node has none that we know. `differs` is how it differs from its
    like on other nodes."""

    node: Node
    state: State | None
    arriving: float | None = None
    differs: str = ""

    @property
    def identity(self) -> tuple[str, str]:
        """Which component of which host."""
        return self.node.host.name, self.state.part.value if self.state is not None else ""


def rows_of(
    nodes: Sequence[Node],
    arriving: Mapping[tuple[str, Part], float | None],
    differing: Mapping[tuple[str, Part], str],
) -> list[ComponentRow]:
    """A row a component, in the order of the nodes; one for a node without any."""
    rows: list[ComponentRow] = []
    for node in nodes:
        rows += [
            ComponentRow(
                node, state, arriving.get((state.node, state.part)), differing.get((state.node, state.part), "")
            )
            for state in node.states
        ]
        if not node.states:
            rows.append(ComponentRow(node, None))
    return rows


class ComponentLines:
    """Rows as a source for the table."""

    def __init__(self, rows: Sequence[ComponentRow], palette: Palette, glyphs: Glyphs, version: int) -> None:
        self.rows = tuple(rows)
        self._palette, self._glyphs, self._version = palette, glyphs, version

    def __len__(self) -> int:
        return len(self.rows)

    def identity(self, index: int) -> Hashable:
        """Which component of which host."""
        return self.rows[index].identity

    def key(self, index: int) -> Hashable:
        """Identity, content and looks."""
        row = self.rows[index]
        return (
            row.identity,
            row.state,
            row.node.awaited,
            row.node.problem,
            row.node.distrust,
            arriving_text(row.arriving),
            row.differs,
            self._version,
        )

    def find(self, identity: Hashable) -> int | None:
        """Where it is now."""
        return next((at for at, row in enumerate(self.rows) if row.identity == identity), None)

    def header(self, width: int) -> Sequence[Piece]:
        """The names of the columns that have room."""
        cells = "  ".join(fit(name, cells, name in _RIGHT) for name, cells in _columns(self.rows, width))
        return [(f" {cells}", self._palette.header)]

    def lines(self, indexes: Sequence[int], width: int) -> Sequence[Sequence[Piece]]:
        """The rows."""
        columns = _columns(self.rows, width)
        return [self._line(self.rows[index], columns) for index in indexes]

    def _line(self, row: ComponentRow, columns: Sequence[tuple[str, int]]) -> Line:
        p, state = self._palette, row.state
        texts = self._texts(row)
        if state is None:
            name = dict(columns)["NODE"]
            if row.node.awaited:
                return [(f" {fit(row.node.name, name)}  {self._glyphs.unseen} is being looked at", p.dim)]
            said = row.node.problem or "no control plane that we know runs there"
            style = p.warning if row.node.problem else p.dim
            return [
                (f" {fit(row.node.name, name)}  ", p.base),
                (f"{self._glyphs.unseen} {printable(said, 300)}", style),
            ]
        parts: Line = [(self._glyphs.suspicious if row.differs else " ", p.warning)]
        for at, (column, cells) in enumerate(columns):
            style = p.dim if state.mode is Mode.OFF and not row.differs else p.base
            if row.differs and column in ("STATE", "LAST CHANGE"):
                style = p.warning
            elif column == "STATE":
                style = _style(state, p)
            parts += [("  " if at else "", p.base), (fit(texts[column], cells, column in _RIGHT), style)]
        return parts

    def _texts(self, row: ComponentRow) -> dict[str, str]:
        state, g = row.state, self._glyphs
        if state is None:
            return {"NODE": row.node.name}
        mark = _MARKS[Mode.BROKEN if state.down else state.mode][1 if g.ascii else 0]
        return {
            "NODE": state.node,
            "COMPONENT": state.part.value,
            "VERSION": state.version or g.none,
            "STATE": f"{mark} {state.word}{' read-only' if state.read_only else ''}",
            "RATE": rate_text(state) or g.none,
            "ENDPOINT": state.endpoint or g.none,
            "ARRIVING": arriving_text(row.arriving) or g.none,
            "LAST CHANGE": f"{g.suspicious} {row.differs}" if row.differs else state.last_change or g.none,
        }


_RIGHT: Final = frozenset({"RATE", "ARRIVING"})


def _columns(rows: Sequence[ComponentRow], width: int) -> list[tuple[str, int]]:
    """The columns that have room, most wanted first, in their order; the last change takes what is left."""
    states = [row.state for row in rows if row.state is not None]
    longest = max((width_of(printable(row.node.name, 60)) for row in rows), default=4)
    endpoint = max((width_of(printable(state.endpoint, 60)) for state in states), default=8)
    most = 24 if width >= 100 else 12
    read_only = any(state.read_only for state in states)
    sizes = {
        "NODE": max(4, min(longest, most)),
        "COMPONENT": 9,
        "VERSION": 9,
        "STATE": 20 if read_only else 10,
        "RATE": 7,
        "ENDPOINT": max(8, min(endpoint, 28)),
        "ARRIVING": 12,
        "LAST CHANGE": 18,
    }
    chosen: set[str] = set()
    left = width - 1
    for name in ("NODE", "COMPONENT", "STATE", "RATE", "ARRIVING", "VERSION", "LAST CHANGE", "ENDPOINT"):
        if sizes[name] + (2 if chosen else 0) > left:
            continue
        left -= sizes[name] + (2 if chosen else 0)
        chosen.add(name)
    if "LAST CHANGE" in chosen:
        sizes["LAST CHANGE"] += max(0, left)
    return [(name, cells) for name, cells in sizes.items() if name in chosen]


def _style(state: State, p: Palette) -> Style:
    if state.down:
        return p.error
    return {Mode.SAMPLING: p.ok, Mode.BROKEN: p.error, Mode.UNKNOWN: p.warning, Mode.OFF: p.dim}.get(state.mode, p.base)


# --- what is to be said of a row ---------------------------------------------------------------------
def notes_of(row: ComponentRow | None, width: int, p: Palette, g: Glyphs, arm_key: str = "") -> list[Line]:
    """Everything about the chosen row that its columns do not say; `arm_key` arms it, "" where none may."""
    if row is None:
        return []
    state = row.state
    if state is None:
        return sentence(row.node.problem, width, p.warning, g.suspicious) if row.node.problem else []
    lines: list[Line] = []
    if row.node.distrust:
        lines += sentence(row.node.distrust, width, p.error, g.suspicious)
    for lack in row.node.facts.lacks if row.node.facts else ():
        lines += sentence(f"{lack[:1].upper()}{lack[1:]}.", width, p.error, g.suspicious)
    if row.differs:
        lines += sentence(f"{state.node} {state.part.value} {row.differs}.", width, p.warning, g.suspicious)
    if state.note:
        lines += sentence(
            state.note, width, p.error if state.down or state.mode is Mode.BROKEN else p.warning, g.suspicious
        )
    if state.read_only:
        lines += sentence(f"Read-only: {state.read_only}.".replace("..", "."), width, p.dim)
    if state.mode is Mode.OFF and not state.read_only and arm_key:
        text = f"Tracing is off. Press {arm_key} to arm it: one restart, and then only what is asked for is traced."
        lines += sentence(text, width, p.base)
    named = {
        "node": f"{state.node}, {state.flavour}" if state.flavour else state.node,
        "version": state.version,
        "sends to": state.endpoint,
        "instance": state.instance,
        "file": state.file,
        "changed": state.last_change,
    }
    for name, text in named.items():
        pieces = wrap_words(printable(text, _LONGEST_SENTENCE), max(20, width - 12), 4) if text else ()
        for at, piece in enumerate(pieces):
            lines.append([(f" {fit(name if not at else '', 9)} ", p.dim), (piece.strip(), p.dim)])
    return lines


def left_pods(leftovers: Sequence[Leftover]) -> str:
    """What is said of pods of ours that were left, without the full stop."""
    nodes = ", ".join(dict.fromkeys(one.node for one in leftovers))
    if len(leftovers) == 1:
        return f"A pod of ours was left on {nodes} at {leftovers[0].created}, unless somebody is at work with it now"
    return f"{len(leftovers)} pods of ours were left on {nodes}, unless somebody is at work with them now"


def sentence(text: str, width: int, style: Style, mark: str = "") -> list[Line]:
    """A sentence on as many lines as it takes, made printable."""
    said = printable(f"{mark} {text}" if mark else text, _LONGEST_SENTENCE)
    return [[(f" {line}", style)] for line in wrap_words(said, max(20, width - 2), 12)]


# --- a rollout on its way ----------------------------------------------------------------------------
STAGES: Final = ("check", "back up", "write", "old one gone", "new one ready", "controllers run", "spans arriving")
_REACHED: Final[Mapping[str, int]] = {
    "begin": 0,
    "check": 1,
    "backup": 2,
    "staged": 2,
    "restart": 3,
    "gone": 4,
    "started": 4,
    "ready": 5,
    "controllers": 6,
    "done": 6,
    "spans": 7,
}
"""How many stages are done when a step is told."""
_GOING_BACK: Final = frozenset({"back", "restore"})


CONTROLLERS_SECONDS: Final = 60
"""That a node waits for controller-manager and scheduler, as node.sh has it."""


def expected_seconds(run: NodeRun, stage: int) -> int:
    """About how long a stage takes, 0 for no time to speak of. Measured on real control planes."""
    if run.plan is None or stage < 3:
        return 0
    manifest = run.plan.trigger is Trigger.MANIFEST
    if stage == 3:
        return run.plan.grace_seconds if manifest else 3
    if stage == 4:
        return (40 if run.part is Part.ETCD else 15) if manifest else 5
    return CONTROLLERS_SECONDS if stage == 5 else 15


def stages(run: NodeRun, kind: str, now: float, p: Palette, g: Glyphs) -> list[Piece]:
    """`1 check ✓`, `4 old one gone … 12 of about 30 s`, `5 new one ready`: a piece a stage."""
    last = 6
    if run.plan is not None and run.plan.trigger in (Trigger.NOTHING, Trigger.WATCH):
        last = 3
    elif kind == "set" and run.plan is not None and run.plan.wish.per_million:
        last = 7
    done, back = 0, False
    for step, _ in run.steps:
        if step in _GOING_BACK:
            back = True
        elif not back:
            done = max(done, _REACHED.get(step, 0))
    if run.outcome is not None and run.outcome.well:
        done = max(done, min(last, 6))
    good = "+" if g.ascii else "✓"
    wait = "..." if g.ascii else "…"
    pieces: list[Piece] = []
    for at, name in enumerate(STAGES[:last]):
        text = f"{at + 1} {name}"
        if at < done:
            pieces.append((f"{text} {good}", p.ok))
        elif at == done and (back or (run.outcome is not None and not run.outcome.well)):
            pieces.append((f"{text} {g.failed}", p.error))
        elif at == done and run.outcome is not None:
            pieces.append((f"{text} {g.suspicious}" if run.outcome.spans is False else text, p.warning))
        elif at == done and run.since:
            seconds, about_ = max(0, int(now - run.since)), expected_seconds(run, at)
            bound = "at most" if at >= 5 else "about"
            took = f" {seconds} of {bound} {about_} s" if about_ else (f" {seconds} s" if seconds else "")
            pieces.append((f"{text} {wait}{took}", p.title))
        else:
            pieces.append((text, p.dim))
    if back and run.outcome is None:
        seconds = max(0, int(now - run.since))
        pieces.append((f"putting back what was before {wait} {seconds} s", p.warning))
    elif run.outcome is None:
        pieces.append(("rolls back by itself if not", p.dim))
    return pieces


def run_lines(run: Run, now: float, width: int, p: Palette, g: Glyphs) -> list[Line]:
    """How far a change is, node by node, or how it came out."""
    lines: list[Line] = []
    for at, one in enumerate(run.nodes):
        several = len(run.nodes) > 1
        begun = bool(one.steps) or (not at and not run.ended)
        if not begun and one.outcome is None:
            lines += sentence(f"{one.node} waits for the node before it", width, p.dim)
            continue
        if several and begun:
            lines += sentence(one.node, width, p.title)
        if begun:
            lines += _flow(stages(one, run.kind, now, p, g), width, p)
        lines += _told(one, now, width, p, g)
        if one.outcome is not None:
            lines += _outcome(one, one.outcome, run.kind, width, p, g)
    for reason in run.reasons:
        lines += sentence(reason, width, p.warning, g.suspicious)
    if run.problem:
        lines += sentence(run.problem, width, p.error, g.failed)
    if run.decided and not run.ended:
        lines += sentence("What it came to is being read.", width, p.dim)
    return lines


def _told(run: NodeRun, now: float, width: int, p: Palette, g: Glyphs) -> list[Line]:
    """Notes and what went wrong, as the node told it."""
    lines: list[Line] = []
    lost = waits = ""
    for step, detail in run.steps:
        waits = detail if step == "wait" else ""
        if step in ("back", "refused"):
            lines += sentence(f"{'rolls back: ' if step == 'back' else ''}{detail}", width, p.error, g.failed)
        elif step in ("note", "warning"):
            lines += sentence(detail, width, p.warning, g.suspicious)
        elif step in ("lost", "found"):
            lost = detail if step == "lost" else ""
    if waits and run.outcome is None:
        so_far = f", {int(now - run.since)} s so far" if now - run.since >= 1 else ""
        lines += sentence(f"waits{so_far}: {waits}", width, p.warning, g.suspicious)
    if lost and run.outcome is None:
        lines += sentence(f"{lost} The node goes on by itself.", width, p.warning, g.suspicious)
    return lines[-8:]


def _outcome(run: NodeRun, outcome: Outcome, kind: str, width: int, p: Palette, g: Glyphs) -> list[Line]:
    good = "+" if g.ascii else "✓"
    detail = f": {outcome.detail}" if outcome.detail else ""
    if outcome.well or (kind == "undo" and outcome.word == "rolled back"):
        spans = {True: ", its spans arrive", False: ", but no span of it has arrived", None: ""}[outcome.spans]
        style = p.warning if outcome.spans is False else p.ok
        return sentence(f"{good} {run.node} {run.part.value}: {outcome.word}{spans}{detail}", width, style)
    words = {
        "rolled back": "rolled back, all files are as they were",
        "not begun": "not begun",
        "refused": "refused, nothing was touched",
        "interrupted": "interrupted",
        "unknown": "not known how it came out; the node goes on by itself",
    }
    style = p.dim if outcome.word == "not begun" else p.error
    if any(step in ("back", "refused") and outcome.detail in why for step, why in run.steps):
        detail = ""  # it stands above
    told = words.get(outcome.word, outcome.word)
    return sentence(f"{g.failed} {run.node} {run.part.value}: {told}{detail}", width, style)


def _flow(pieces: Sequence[Piece], width: int, p: Palette) -> list[Line]:
    """Pieces beside each other, as many a line as fit."""
    lines: list[Line] = []
    line: Line = []
    used = 0
    for text, style in pieces:
        cells = width_of(text) + 3
        if line and used + cells > width:
            lines.append(line)
            line, used = [], 0
        line += [(" " if not line else "   ", p.base), (text, style)]
        used += cells
    return [*lines, line] if line else lines


# --- what a change would do --------------------------------------------------------------------------
def change_lines(change: Change, loads: Mapping[str, str], width: int, p: Palette, g: Glyphs) -> list[Line]:
    """Price, load, warnings, questions, the diff and what makes it last.

    Args:
        change: the offer.
        loads: what it will send, a sentence a node.
        width: cells of a line.
        p: styles.
        g: marks.
    """
    if change.node is not None and change.left is not None:
        left = change.left
        verb = "puts back what was before it" if change.kind == "undo" else "goes on with it where it stopped"
        text = f"{change.node.name}: {about(left)}, interrupted at {left.step or 'its begin'}. This {verb}."
        said = sentence(text, width, p.base)
        return said + (sentence(left.detail, width, p.dim) if left.detail else [])
    lines: list[Line] = []
    shown: dict[tuple[str, str, str, tuple[str, ...], tuple[str, ...]], str] = {}
    told: set[str] = set()
    snippets: list[str] = []
    for job in change.jobs:
        plan, name = job.plan, f"{job.node.name} {job.plan.part.value}"
        if plan.empty:
            lines += sentence(f"{name}: nothing to change, it is so already.", width, p.dim)
            continue
        price = f"{files_text(plan)} {job.price}".strip()
        load = loads.get(job.node.name, "")
        same = (price, load, plan.diff, job.warnings, job.questions)
        if same in shown:
            lines += sentence(f"{name}: the same as on {shown[same]}.", width, p.title)
            continue
        lines += [[]] if lines else []
        lines += sentence(f"{name}: {price}", width, p.title)
        if load and load not in told:
            lines += sentence(load, width, p.base)
        told.add(load)
        for text in (*job.questions, *(text for text in job.warnings if text not in plan.warnings)):
            lines += sentence(text, width, p.warning, g.suspicious)
        for text in plan.warnings:  # nothing is wrong: these go with any such change
            if text not in told:
                lines += sentence(text, width, p.base, g.suspicious)
            told.add(text)
        alike = next((other for (_, _, diff, _, _), other in shown.items() if diff == plan.diff), "")
        if alike:
            lines += sentence(f"The same files change as on {alike}.", width, p.dim)
        else:
            lines += short_diff(plan.diff, width, p)
        shown[same] = job.node.name
        if plan.snippet and plan.snippet not in snippets:
            snippets.append(plan.snippet)
    for at, text in enumerate(change.differences):
        lines += diff_lines(text, width, p) if at else sentence(text, width, p.warning, g.suspicious)
    for snippet in snippets:
        lines += sentence("What makes it last beyond `kubeadm upgrade`:", width, p.title)
        lines += _code(snippet, width, p.dim)
    return lines


def files_text(plan: Plan) -> str:
    """`1 file new, 1 changed.`, "" where none is told."""
    new = sum(change.before is None for change in plan.changes)
    gone = sum(change.after is None for change in plan.changes)
    changed = len(plan.changes) - new - gone
    counts = [(new, "new"), (changed, "changed"), (gone, "removed")]
    parts = [f"{number} {word}" for number, word in counts if number]
    if not parts:
        return ""
    first = next(number for number, _ in counts if number)
    parts[0] = f"{first} file{'s' if first > 1 else ''}{parts[0].removeprefix(str(first))}"
    return f"{', '.join(parts)}."


def short_diff(diff: str, width: int, p: Palette) -> list[Line]:
    """A unified diff as it reads best: a line a file instead of two, and a line around each change instead of three.
    A text that is no unified diff is shown whole."""
    lines: list[Line] = []
    old = ""
    left = [0, 0]  # lines of this hunk that are still to come, before and after the change
    hunk: list[str] = []
    heading = False  # the line above is a file's name

    def flush() -> None:
        nonlocal heading
        near = {at + by for at, line in enumerate(hunk) if line[:1] in ("+", "-") for by in (-1, 0, 1)}
        before = -2
        for at, line in enumerate(hunk):
            if at in near:
                if at != before + 1 and not heading:
                    lines.append([(" ...", p.dim)])
                before, heading = at, False
                lines.extend(_code(line, width, {"+": p.ok, "-": p.error}.get(line[:1], p.dim)))
        hunk.clear()

    for line in diff.rstrip("\n").split("\n")[:_MOST_DIFF_LINES]:
        if left[0] > 0 or left[1] > 0:
            hunk.append(line)
            if line[:1] != "\\":
                left[0] -= line[:1] != "+"
                left[1] -= line[:1] != "-"
        elif line.startswith("--- "):
            flush()
            old = line[4:]
        elif line.startswith("+++ "):
            new = line[4:]
            mark, path = ("+", new) if old == "/dev/null" else ("-", old) if new == "/dev/null" else ("~", new)
            words = {"+": "new file", "-": "is removed", "~": "changed"}[mark]
            lines.append([(f" {printable(path, 300)}", p.title), (f"  {words}", p.dim)])
            heading = True
        elif match := _HUNK.match(line):
            flush()
            left = [int(match[1] or 1), int(match[2] or 1)]
        else:
            hunk.append(line)
    flush()
    return lines


def diff_lines(diff: str, width: int, p: Palette) -> list[Line]:
    """A unified diff; long lines go on below, nothing of it is hidden at the right."""
    lines: list[Line] = []
    for line in diff.rstrip("\n").split("\n")[:_MOST_DIFF_LINES]:
        style = p.base
        if line.startswith(("+++", "---", "@@")):
            style = p.dim
        elif line.startswith("+"):
            style = p.ok
        elif line.startswith("-"):
            style = p.error
        lines += _code(line, width, style)
    return lines


def _code(text: str, width: int, style: Style) -> list[Line]:
    lines: list[Line] = []
    for line in text.split("\n"):
        pieces, more = wrap(line.replace("\r", "\u240d"), max(10, width - 4), _MOST_PIECES)
        lines += [[("   " if at else " ", style), (piece, style)] for at, piece in enumerate(pieces)]
        if more:
            lines.append([(" the rest of this line is too long to be shown", style)])
    return lines


# --- a node whole ------------------------------------------------------------------------------------
def node_lines(node: Node, width: int, p: Palette, g: Glyphs) -> list[Line]:
    """Everything that was found on a node."""

    def row(name: str, text: str, style: Style = p.base) -> list[Line]:
        pieces = wrap_words(printable(text, _LONGEST_SENTENCE), max(20, width - 17), 8)
        return [
            [(f" {fit(name if not at else '', 14)} ", p.dim), (piece.strip(), style)] for at, piece in enumerate(pieces)
        ]

    lines = row("host", node.host.name)
    if node.problem:
        lines += row("problem", node.problem, p.warning)
    for state in node.states:
        lines += [[], [(f" {state.part.value}", p.title)]]
        lines += row("state", f"{state.word}{f', {rates.text(state.per_million)}' if state.per_million else ''}")
        named = {
            "version": state.version,
            "endpoint": state.endpoint,
            "file": state.file,
            "instance": state.instance,
            "kind": state.flavour,
            "last change": state.last_change,
        }
        for name, text in named.items():
            lines += row(name, text) if text else []
        lines += row("note", state.note, p.warning) if state.note else []
        lines += row("read-only", state.read_only, p.warning) if state.read_only else []
    facts = node.facts
    if facts is None:
        return lines
    lines += [[], [(" Node", p.title)]]
    lines += row("hostname", facts.hostname or g.none)
    lines += row("as root", "yes" if facts.root else "no", p.base if facts.root else p.warning)
    lines += row("static pods", facts.manifest_directory or "none")
    if facts.manifests:
        lines += row("manifests", ", ".join(facts.manifests))
    if facts.services:
        lines += row("units", ", ".join(sorted(facts.services)))
    if facts.listeners:
        lines += row("listening", ", ".join(facts.listeners))
    lines += row("tools", ", ".join(sorted(facts.tools)) or g.none)
    lines += row("free space", f"{facts.free_bytes >> 20:,} MiB")
    if facts.lock:
        lines += row("lock", facts.lock, p.warning)
    lines += [[], [(" Containers", p.title)]]
    if facts.containers is None:
        lines += row("", "there is no CRI to ask", p.dim)
    for one in facts.containers or ():
        how = "running" if one.running else f"ended with {one.exit_code}"
        since = f" since {one.started}" if one.started else ""
        lines += row(one.name, f"{how}{since}, attempt {one.attempt}, {one.id[:13]}")
    lines += [[], [(" Changes", p.title)]]
    lines += row("", facts.distrust, p.error) if facts.distrust else []
    for change in reversed(facts.rollouts):
        ended = change.ended or ("going on" if change.alive else "interrupted")
        text = f"{about(change)}: {ended} at {change.step}{f', {change.detail}' if change.detail else ''}"
        lines += row(change.id[:14], text, p.base if change.ended == "done" else p.warning)
    if not facts.rollouts:
        lines += row("", "none by this program", p.dim)
    lines += [[], [(" Files", p.title)]]
    for path in sorted(facts.files):
        file = facts.files[path]
        if file.content is None and not file.problem:
            continue
        held = file.problem or f"{len(file.content or b''):,} bytes, mode {file.mode:o}, {file.uid}:{file.gid}"
        leads = f", leads to {file.target}" if file.target else ""
        lines += sentence(path, width, p.base)
        lines += row("", f"{held}{leads}", p.warning if file.problem else p.dim)
    tracing = [state.file for state in node.states if state.file]
    for path in dict.fromkeys(tracing):
        content = facts.files[path].content if path in facts.files else None
        if content is not None:
            lines += [[], [(f" {printable(path, 200)}", p.title)]]
            lines += _code(content[: 1 << 16].decode("utf-8", "replace"), width, p.base)
    return lines
