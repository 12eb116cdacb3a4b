"""Traces and trees as lines of text, for people: aligned, safe to print, colour only where it is wanted.

Everything from a span goes through `terminal_text`. Colour is the terminal's own 16; nothing is told by it alone.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final, TextIO

from receiver.traces.listing import Row
from receiver.traces.model import Node, Oddity, Trace, TraceSummary
from tui.glyphs import Glyphs, choose
from tui.terminal_text import clock, count, counted, date_and_clock, duration, fit, printable, use_ascii
from tui.wording import client_of, phrase, place_of, state_text, verdict_mark

_DEEPEST: Final = 24
"""Levels that are indented; deeper ones say their depth instead, or a chain of 40,000 spans would be 40,000 wide."""
_BAR: Final = 32
_DAY: Final = 86_400_000_000_000


@dataclass(frozen=True, slots=True)
class Paper:
    """What is printed on: `width` cells (None: a file or a pipe, lines are as long as they need to be)."""

    width: int | None
    colour: bool
    glyphs: Glyphs

    def paint(self, text: str, *codes: int) -> str:
        """`text` in a colour (SGR codes; none: as it is), where there is colour."""
        plain = not codes or not self.colour or not text.strip()
        return text if plain else f"\x1b[{';'.join(map(str, codes))}m{text}\x1b[0m"


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
    """Lines of `traces`. Columns have fixed widths, so that lines can come one by one; where the time went comes
    last. The trace id comes first: `show -` takes these lines as they are."""

    def __init__(self, paper: Paper, now: int | None = None) -> None:
        """`now`: ns since the epoch; None is now."""
        self._paper = paper
        self._now = time.time_ns() if now is None else now
        width = paper.width
        self._id = 32 if width is None else 12 if width >= 80 else 8
        self._agent = 24 if width is None else 20 if width >= 110 else 0
        self._resource = 20 if width is None or width >= 100 else 14 if width >= 80 else 8
        self._why = 26 if width is None or width >= 132 else 0
        signs = paper.glyphs
        self._signs = {"failed": (signs.failed, (RED,)), "suspicious": (signs.suspicious, (YELLOW,))}
        columns = [self._id, 12, 7, self._resource, self._agent, 6, 9, 5, self._why]
        fixed = sum(columns) + sum(1 for column in columns if column)
        self._name = 40 if width is None else max(8, width - fixed)

    def heading(self) -> str:
        """The names of the columns."""
        texts = ("TRACE", "TIME", "VERB", "RESOURCE", "NAMESPACE/NAME", "CLIENT")
        widths = (self._id, 12, 7, self._resource, self._name, self._agent)
        cells = [fit(text, width) for text, width in zip(texts, widths, strict=True) if width]
        cells += [fit("CODE", 6, right=True), fit("DURATION", 9, right=True), fit("SPANS", 5, right=True)]
        cells += ["WHERE IT WENT"] if self._why else []
        return self._paper.paint(" ".join(cells), BOLD)

    def line(self, row: Row) -> str:
        """One trace."""
        summary = row.summary
        paint, request = self._paper.paint, summary.request
        room = 7 + 1 + self._resource + 1 + self._name
        if request is None:
            about, client, code = summary.headline, " ".join(summary.services), ""
        elif request.resource:
            resource = "/".join(filter(None, (request.resource, request.subresource)))
            about = f"{fit(request.verb, 7)} {fit(resource, self._resource)} {''.join(place_of(summary))}"
            client, code = client_of(request.user_agent), str(request.code or "")
        else:
            about = f"{fit(request.verb, 7)} {request.path or summary.headline}"
            client, code = client_of(request.user_agent), str(request.code or "")
        spans = count(summary.spans)
        sign, colour = self._signs.get(verdict_mark(summary), (" ", ()))
        cells = [
            paint(summary.trace_id[: self._id], DIM),
            paint(fit(self._time(summary.start), 12), DIM),
            fit(about, room) if self._paper.width is not None else printable(about).ljust(room),
        ]
        if self._agent:
            cells.append(fit(client, self._agent))
        cells += [
            paint(f"{sign} {fit(code, 4, right=True)}", *colour),
            fit(duration(summary.duration_ns), 9, right=True),
            fit(spans, 5, right=True) if self._paper.width is not None else spans.rjust(5),
        ]
        if self._why:
            said = phrase(row)
            sign, colour = self._signs.get(said.mark, ("", (DIM,)))
            why = f"{sign} {said.text}".lstrip()
            cells.append(paint(fit(why, self._why) if self._paper.width is not None else printable(why), *colour))
        return " ".join(cells).rstrip()

    def _time(self, start: int) -> str:
        """As on the screens: what is older than a day (or a day ahead) has its date, to the minute."""
        if start and abs(self._now - start) > _DAY:
            return date_and_clock(start)[5:16]
        return clock(start)


# --- a tree ----------------------------------------------------------------------------------------
def heading_lines(summary: TraceSummary, paper: Paper) -> Iterator[str]:
    """A line or two about a trace, known before any of its spans is read."""
    paint = paper.paint
    yield paint(_title(summary), BOLD)
    facts = [f"trace {summary.trace_id}", f"{counted(summary.spans, 'span')}"]
    if summary.errors:
        facts.append(paint(f"{paper.glyphs.failed} {count(summary.errors)} failed", RED))
    if summary.services:
        facts.append(printable(", ".join(summary.services)))
    facts.append(state_text(summary) or "settled")
    yield "  ".join(facts)


def verdict_lines(sentences: Sequence[str], paper: Paper) -> Iterator[str]:
    """What became of it and where its time went."""
    for sentence in sentences:
        yield from textwrap.wrap(printable(sentence, 1024), paper.width or 120)


def tree_lines(trace: Trace, paper: Paper, most: int | None = None) -> Iterator[str]:
    """A trace as a tree: one line a span with its service, duration and own time, the first `most` of them (None: all
    that are in the tree), and how many more there are. Each line is made when it is asked for."""
    paint, glyphs = paper.paint, paper.glyphs
    bar = _BAR if paper.width is not None and paper.width >= 110 else 0
    service = 22 if paper.width is None or paper.width >= 130 else 14
    room = paper.width - service - 10 - 10 - (bar + 2 if bar else 0) - 2 if paper.width is not None else 64
    room = max(20, room)
    cells = [fit("SPAN", room), fit("SERVICE", service), fit("DURATION", 9, right=True), fit("SELF", 9, right=True)]
    yield paint(" ".join(cells), DIM)
    joints = ("|- ", "`- ", "|  ", "   ") if glyphs.ascii else ("├─ ", "└─ ", "│  ", "   ")
    shown = 0
    for node, guides in islice(_guided(trace.roots, joints), most):
        shown += 1
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
    if shown < trace.spans:
        instead = "--all shows them" if most is not None else "--raw prints them"
        yield paint(f"{count(trace.spans - shown)} more spans of this trace: {instead}", YELLOW)


def _title(summary: TraceSummary) -> str:
    request = summary.request
    if request is None:
        parts = [summary.headline]
    else:
        resource = "/".join(filter(None, (request.resource, request.subresource)))
        about = f"{request.verb} {resource or request.path or summary.headline} {''.join(place_of(summary))}".rstrip()
        parts = [about, str(request.code or ""), client_of(request.user_agent)]
    parts += [duration(summary.duration_ns), date_and_clock(summary.start)]
    parts += [phrase(Row(summary)).text]  # without times: those the verdict tells
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
    last: list[bool] = []
    waiting = [_marked(roots)]  # and not all nodes: a trace may have a million below one
    while waiting:
        node, is_last = next(waiting[-1], (None, False))
        if node is None:
            waiting.pop()
            continue
        del last[node.depth :]
        last.append(is_last)
        if node.depth == 0:
            yield node, ""
        elif node.depth <= _DEEPEST:
            yield node, "".join(blank if end else line for end in last[1:-1]) + (corner if last[-1] else branch)
        else:
            yield node, f"{blank * 2}depth {node.depth} "
        waiting.append(_marked(node.children))


def _marked(siblings: list[Node]) -> Iterator[tuple[Node, bool]]:
    """Each of them, and whether it is the last."""
    for at, node in enumerate(siblings, 1):
        yield node, at == len(siblings)


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
    if sys.stderr is None:  # closed by who started us
        return
    with suppress(OSError):  # nobody listens
        sys.stderr.write(f"k8s-trace-tui: {printable(sentence, 4096)}\n")
        sys.stderr.flush()
