"""What became of something that was traced on demand: its requests, what is missing and why, and what it said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tui.feed import Snapshot
from tui.screens.sheet import SheetScreen
from tui.terminal_text import count, counted, duration, fit, printable, size, wrap
from tui.traced_runs import Run, Stage, Told
from tui.tracing_report import about_of
from tui.widgets.line import Part
from tui.widgets.status import wrap_words

_WRAPPED: Final = 8
"""Lines that a long line of output may take."""


class TracedScreen(SheetScreen):
    """The newest run, as it goes on."""

    PLACE = "traced"

    def __init__(self) -> None:
        super().__init__("Traced", "", self._lines)
        self._run: Run | None = None

    def update(self, snapshot: Snapshot) -> None:
        """Take up how far it is."""
        run = self.trace_app.traced.runs.run
        if run is not None and run is not self._run:
            self._run = run
            self._version += 1
            self._what = printable(run.name, 120)
        super().update(snapshot)

    def _lines(self, width: int) -> list[list[Part]]:
        """All of it, for a width."""
        p, run = self.palette, self._run
        if run is None:
            return []
        lines = [[(f" {line}", p.base)] for line in wrap_words(printable(state_of(run), 400), width - 2, 4)]
        for note in run.notes:
            lines += self._sentence(note, width, f"{self.glyphs.suspicious} ")
        if run.problem:
            lines += self._sentence(run.problem, width, f"{self.glyphs.failed} ", failed=True)
        if run.reasons:
            lines += [[], [(" Missing", p.title)]]
            for reason in run.reasons:
                lines += self._sentence(reason, width, "")
        if run.output is not None:
            lines += [[], [(" Output", p.title)]]
            lines += self._output(run.output.lines, width)
        if run.requests:
            lines += [[], [(" Requests", p.title)]]
            for told in run.requests:
                lines += self._request(told, width)
            left = run.total - len(run.requests)
            if left > 0:
                lines.append([(f"   {count(left)} more are in the list", p.dim)])
        return lines

    def _sentence(self, text: str, width: int, mark: str, *, failed: bool = False) -> list[list[Part]]:
        p = self.palette
        style = p.error if failed else p.warning if mark else p.base
        wrapped = wrap_words(f"{mark}{printable(text, 1024)}", max(20, width - 2), 12)
        return [[(f" {line}", style if mark else p.base)] for line in wrapped]

    def _request(self, told: Told, width: int) -> list[list[Part]]:
        p, seen = self.palette, told.found.seen
        style = p.error if seen.code >= 500 or not seen.code else p.warning if seen.code >= 400 else p.base
        code = str(seen.code) if seen.code else "-"
        head: list[Part] = [
            (f" {code:>4} ", style),
            (f"{fit(duration(seen.duration_ns), 9, right=True)}  ", p.base),
            (about_of(told.found, told.row), p.base),
        ]
        if told.row is None:
            head.append((f"  {self.glyphs.unseen} its trace is not here", p.dim))
        lines = [head]
        for sentence in told.sentences:
            lines += [[(f"      {line}", p.dim)] for line in wrap_words(printable(sentence, 1024), width - 8, 8)]
        return lines

    def _output(self, output: Sequence[str], width: int) -> list[list[Part]]:
        p = self.palette
        if not output:
            return [[(" It said nothing.", p.dim)]]
        room = max(10, width - 1)
        lines: list[list[Part]] = []
        for line in output:
            if len(line) <= room and line.isascii():
                lines.append([(f" {line}", p.base)])
            else:
                lines += [[(f" {part}", p.base)] for part in wrap(line, room, _WRAPPED)[0]]
        return lines


def state_of(run: Run) -> str:
    """How far it is, in a sentence or two."""
    said = []
    if run.answer is not None:
        answer = run.answer
        came = f"answered with {answer.code}, {size(answer.size)}" if answer.code else "no answer"
        said.append(f"{run.words}: {came}.{f' {answer.message}' if answer.message else ''}")
    elif run.code is not None:
        said.append(f"{run.words} ended with code {run.code}.")
    if run.stage is Stage.PREPARING:
        said.append(f"{run.words}: asking who we are there.")
    elif run.stage is Stage.RUNNING:
        said.append(f"{run.words} is running, {counted(run.total, 'request')} so far.")
    elif run.stage is Stage.WAITING:
        said.append(f"{count(run.arrived)} of {count(run.total)} traces have arrived; waiting for the others.")
    elif run.summary:
        said.append(run.summary.removeprefix(f"{run.words}: "))
    return " ".join(said)
