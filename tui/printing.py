"""Traces and trees as lines of text, for people: aligned, safe to print, colour only where it is wanted.

Everything from a span goes through `terminal_text`. Colour is the terminal's own 16; nothing is told by it alone.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TextIO

from receiver.traces.model import Node, Oddity, Settled, Trace, TraceSummary
from tui.documents import walk
from tui.glyphs import Glyphs, choose
from tui.terminal_text import clock, count, date_and_clock, duration, fit, printable, use_ascii

_DEEPEST: Final = 24
"""Levels that are indented; deeper ones say their depth instead, or a chain of 40,000 spans would be 40,000 wide."""
_BAR: Final = 32
_SHORT_ID: Final = 12
_WIDE: Final = 140


@dataclass(frozen=True, slots=True)
class Paper:
    """What is printed on: `width` cells (None: a file or a pipe, lines are as long as they need to be)."""

    width: int | None
    colour: bool
    glyphs: Glyphs

    def paint(self, text: str, *codes: int) -> str:
        """`text` in a colour (SGR codes), where there is colour."""
        return f"\x1b[{';'.join(map(str, codes))}m{text}\x1b[0m" if self.colour and text.strip() else text


def paper(stream: TextIO, environ: Mapping[str, str] | None = None) -> Paper:
    """The paper that a stream is; tells `terminal_text` when it can show ASCII only."""
    environ = os.environ if environ is None else environ
    terminal = stream.isatty()
    glyphs = choose(environ if terminal else {}, stream.encoding)
    use_ascii(glyphs.ascii)
    # NO_COLOR counts when it is set and not empty (no-color.org)
    colour = terminal and not environ.get("NO_COLOR") and environ.get("TERM", "") not in ("", "dumb")
    return Paper(shutil.get_terminal_size().columns if terminal else None, colour, glyphs)


RED, YELLOW, DIM, BOLD = 31, 33, 2, 1


# --- a line a trace --------------------------------------------------------------------------------
class TraceList:
    """Lines of `traces`. Columns have fixed widths, so that lines can come one by one."""

    def __init__(self, paper: Paper) -> None:
        self._paper = paper
        width = paper.width
        wide = width is None or width >= _WIDE
        self._id = 32 if wide else _SHORT_ID
        self._agent = 20 if width is None or width >= 110 else 0
        self._resource = 20 if width is None or width >= 100 else 14
        fixed = 12 + 7 + self._resource + self._agent + 4 + 8 + 5 + self._id
        gaps = 7 + bool(self._agent)
        self._name = 48 if width is None else max(8, width - fixed - gaps - 2)

    def heading(self) -> str:
        """The names of the columns."""
        cells = [fit("TIME", 12), fit("VERB", 7), fit("RESOURCE", self._resource), fit("NAMESPACE/NAME", self._name)]
        if self._agent:
            cells.append(fit("CLIENT", self._agent))
        cells += [fit("CODE", 6, right=True), fit("DURATION", 8, right=True), fit("SPANS", 5, right=True), "TRACE"]
        return self._paper.paint(self._cut(" ".join(cells)), BOLD)

    def line(self, summary: TraceSummary) -> str:
        """One trace."""
        paint, request = self._paper.paint, summary.request
        if request is None:
            verb, resource, name, agent, code = "", "", summary.headline, ", ".join(summary.services), None
        else:
            verb, agent, code = request.verb, short_agent(request.user_agent), request.code
            resource = "/".join(filter(None, (request.resource, request.subresource)))
            name = "/".join(filter(None, (request.namespace, request.name))) if request.resource else request.path
        bad = summary.errors > 0 or (code or 0) >= 400
        mark = self._paper.glyphs.failed if bad else " "
        cells = [
            paint(fit(clock(summary.start), 12), DIM),
            fit(verb, 7),
            fit(resource, self._resource),
            fit(name, self._name) if self._paper.width else printable(name).ljust(self._name),
        ]
        if self._agent:
            cells.append(fit(agent, self._agent))
        cells += [
            paint(f"{mark} {fit(str(code or ''), 4, right=True)}", RED)
            if bad
            else f"  {fit(str(code or ''), 4, True)}",
            fit(duration(summary.duration_ns), 8, right=True),
            fit(count(summary.spans), 5, right=True),
            paint(summary.trace_id[: self._id], DIM),
        ]
        return " ".join(cells)

    def _cut(self, line: str) -> str:
        return line if self._paper.width is None else line[: self._paper.width]


def short_agent(agent: str) -> str:
    """`kubectl` of `kubectl/v1.34.2 (linux/amd64) kubernetes/0f3a1b2`: the product, without version and platform."""
    return agent.split(" ", 1)[0].split("/", 1)[0]


# --- a tree ----------------------------------------------------------------------------------------
_SETTLED: Final = {Settled.SETTLED: "settled", Settled.ARRIVING: "still arriving"}


def tree_lines(trace: Trace, paper: Paper, summary: TraceSummary | None) -> Iterator[str]:
    """A trace as a tree: a line or two about it, then one a span with its service, duration and own time."""
    paint, glyphs = paper.paint, paper.glyphs
    if summary is not None:
        yield paint(_title(summary), BOLD)
    facts = [f"trace {trace.trace_id}", f"{count(trace.spans)} spans"]
    if trace.errors:
        facts.append(paint(f"{glyphs.failed} {count(trace.errors)} failed", RED))
    if summary is not None and summary.services:
        facts.append(printable(", ".join(summary.services)))
    facts.append(_SETTLED.get(trace.settled, f"{count(trace.missing)} parents missing"))
    yield "  ".join(facts)

    bar = _BAR if paper.width is not None and paper.width >= 110 else 0
    service = 22 if paper.width is None or paper.width >= 130 else 14
    room = paper.width - service - 10 - 10 - (bar + 2 if bar else 0) - 2 if paper.width is not None else 64
    room = max(20, room)
    cells = [fit("SPAN", room), fit("SERVICE", service), fit("DURATION", 9, right=True), fit("SELF", 9, right=True)]
    yield paint(" ".join(cells), DIM)
    joints = ("|- ", "`- ", "|  ", "   ") if glyphs.ascii else ("├─ ", "└─ ", "│  ", "   ")
    for node, guides in _guided(trace.roots, joints):
        name = guides + _name(node, glyphs)
        if paper.width is None:
            name = printable(name, 1024)
        cells = [
            fit(name, room) if paper.width is not None or len(name) < room else name,
            fit(node.span.service, service),
            fit(duration(node.span.duration), 9, right=True),
            fit(duration(node.self_ns), 9, right=True),
        ]
        line = " ".join(cells)
        if bar:
            line += "  " + _bar(node, trace, bar, glyphs)
        yield paint(line.rstrip(), RED) if node.span.status == 2 else line.rstrip()
    if trace.left_out:
        yield paint(f"{count(trace.left_out)} more spans of this trace are not shown", YELLOW)


def _title(summary: TraceSummary) -> str:
    request = summary.request
    if request is None:
        parts = [summary.headline]
    else:
        names = "/".join(filter(None, (request.namespace, request.name)))
        resource = "/".join(filter(None, (request.resource, request.subresource)))
        parts = [" ".join(filter(None, (request.verb, resource or request.path, names)))]
        parts += [str(request.code or ""), short_agent(request.user_agent)]
    parts += [duration(summary.duration_ns), date_and_clock(summary.start)]
    return printable("  ".join(filter(None, parts)), 1024)


_WORDS: Final = {oddity: oddity.value for oddity in Oddity if oddity is not Oddity.BEFORE_PARENT}
"""BEFORE_PARENT is left out: clocks of two processes on one host differ by more than such gaps."""


def _name(node: Node, glyphs: Glyphs) -> str:
    mark = glyphs.failed + " " if node.span.status == 2 else ""
    odd = ", ".join(words for oddity, words in _WORDS.items() if oddity in node.oddities)
    return f"{mark}{node.span.name}{f'  ({odd})' if odd else ''}"


def _guided(roots: list[Node], joints: tuple[str, str, str, str]) -> Iterator[tuple[Node, str]]:
    """Each node with the lines that lead to it. `last[d]` says that the ancestor at depth d was its parent's last."""
    branch, corner, line, blank = joints
    final = {id(siblings[-1]) for siblings in _sibling_groups(roots)}
    last: list[bool] = []
    for node in walk(roots):
        del last[node.depth :]
        last.append(id(node) in final)
        if node.depth == 0:
            yield node, ""
        elif node.depth <= _DEEPEST:
            yield node, "".join(blank if end else line for end in last[1:-1]) + (corner if last[-1] else branch)
        else:
            yield node, f"{blank * 2}depth {node.depth} "


def _sibling_groups(roots: list[Node]) -> Iterator[list[Node]]:
    for node in walk(roots):
        if node.children:
            yield node.children


def _bar(node: Node, trace: Trace, width: int, glyphs: Glyphs) -> str:
    """Where in the trace a span lies; at least one mark wide, nothing for a span without a time."""
    total = trace.end - trace.start
    if total <= 0 or not node.span.start:
        return ""
    begin = (node.span.start - trace.start) * width / total
    end = begin + node.span.duration * width / total
    left = min(width - 1, max(0, int(begin)))
    right = min(width, max(left + 1, round(end)))
    return " " * left + glyphs.fill[node.span.component] * (right - left)


def warn(sentence: str) -> None:
    """A sentence for the operator on standard error."""
    with suppress(OSError):  # nobody listens
        sys.stderr.write(f"k8s-trace-tui: {printable(sentence, 4096)}\n")
        sys.stderr.flush()
