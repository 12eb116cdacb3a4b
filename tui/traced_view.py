"""What is traced on demand, as the screens show it: commands and keys in, the group in the list and sentences out."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from receiver.traces.query import Group
from tui.commands import HEX, CommandError
from tui.latest import Latest
from tui.terminal_text import clock, count, date_and_clock, printable
from tui.traced_runs import Busy, Run, Stage, TracedRuns

if TYPE_CHECKING:
    from tui.app import TraceApp
    from tui.clusters.force.groups import Group as Remembered

MOST_PATHS: Final = 500
"""Paths that are offered behind `:trace get`."""
_TOLD_PATHS: Final = 6
_STALE: Final = 5.0
"""Seconds after which what is offered is read again."""
_ARRIVED: Final = "all arrived"
_AN_ID: Final = 8
"""Hex digits from which one word behind `:trace` is a trace id."""
_OFFERED: Final = ("get", "kubectl get", "kubectl describe", "kubectl apply --dry-run=server -f")


class TracedView:
    """Of one app."""

    def __init__(self, app: TraceApp, runs: TracedRuns) -> None:
        self.runs = runs
        self._app = app
        self._run: Run | None = None
        self._group: Group | None = None
        self._begun_on: object = None  # the screen
        self._begun_text = ""
        self._grouped = 0  # number of the run that the list was turned to
        self._paths: Sequence[tuple[str, int]] = ()
        self._groups: Sequence[Remembered] = ()
        self._next_read = 0.0
        screen = app.requests
        self._path_reads = Latest[Sequence[tuple[str, int]]](screen, "paths", self._take_paths, self._could_not)
        self._group_reads = Latest[Sequence["Remembered"]](screen, "commands", self._take_groups, self._could_not)
        self._recalls = Latest[tuple[str, Sequence["Remembered"]]](screen, "recall", self._recalled, self._could_not)

    # -- what is asked for ------------------------------------------------------------------------------
    def trace(self, argument: str) -> None:
        """`:trace get PATH`, `:trace COMMAND`; also a trace id, which is opened.

        Raises:
            CommandError: it is not traced here; the text says why.
        """
        argument = argument.strip().removeprefix("-- ").strip()
        word, _, rest = argument.partition(" ")
        if not rest and len(argument) >= _AN_ID and HEX.fullmatch(argument.lower()):
            self._app.open_by_prefix(argument)
            return
        if not argument:
            raise CommandError("Trace what? Write get /api/v1/nodes, or a command such as kubectl get pods -A.")
        if word.lower() != "get":
            self._begin(lambda: self.runs.command(argument))
        elif rest.strip().startswith("/"):
            self._begin(lambda: self.runs.get(rest.strip()))
        else:
            raise CommandError("get takes a path, as get /api/v1/nodes; kubectl get pods runs kubectl.")

    def repeat(self, trace_id: str) -> None:
        """Make the request of a trace again, traced; why not is a toast."""
        from tui.clusters.force.asking import why_not

        summary = self._app.feed.summary(trace_id)
        request = summary.request if summary is not None else None
        why = self.runs.none or why_not(request)
        if why or request is None:
            self._app.say(why, wrong=True)
            return
        words = f"{request.verb} {request.resource or request.path}"
        try:
            self._begin(lambda: self.runs.repeat(trace_id, words))
        except CommandError as error:
            self._app.say(str(error), wrong=True)

    def _begin(self, begin: Callable[[], None]) -> None:
        from tui.clusters.model import ClusterError

        if self.runs.none:
            raise CommandError(self.runs.none)
        try:
            begin()
        except ClusterError as error:
            raise CommandError(str(error)) from error
        except Busy as busy:
            raise CommandError(f"{busy}: {self._app.key_of('requests.stop')} in Requests stops it.") from None
        self._begun_on = self._app.screen
        run = self.runs.run
        context = f"context {self.runs.context}" if self.runs.context else "the current context"
        self._begun_text = f"Tracing {run.words if run is not None else ''} with {context}; asking who we are there."
        self._app.say(self._begun_text)

    def stop(self) -> None:
        """Interrupt what runs; the wait for spans where only that goes on."""
        run = self.runs.run
        if run is None or not self.runs.stop():
            self._app.say("Nothing is being traced that could be stopped.")
        elif run.stage is Stage.RUNNING:
            self._app.say(f"{run.words} is interrupted; the same key again ends it more firmly.")

    def outcome(self) -> None:
        """Everything about what was traced last, on a screen of its own."""
        from tui.screens.traced import TracedScreen

        if self.runs.run is None:
            self._app.say(self.runs.none or "Nothing was traced from here yet: see :trace.")
        elif not isinstance(self._app.screen, TracedScreen):
            run, toast = self.runs.run, self._app.toasts.current
            told = [one for one in (*run.notes, run.problem, run.summary) if one]
            if toast is not None and toast.text.startswith(tuple(told)):
                self._app.toasts.dismiss()  # the screen says it
            self._app.push_screen(TracedScreen())

    # -- earlier commands -------------------------------------------------------------------------------
    def recall(self, argument: str) -> None:
        """`:commands WORDS`: the requests of an earlier command as one group.

        Raises:
            CommandError: there is no file beside what is shown.
        """
        from tui.clusters.force import groups

        path = self._app.feed.path
        if path is None:
            raise CommandError("Traced commands are noted beside a database: a recording has none.")
        self._recalls.ask(lambda: (argument, groups.recall(path)))

    def _recalled(self, found: tuple[str, Sequence[Remembered]]) -> None:
        from tui.screens.choice import MOST_OPTIONS, ChoiceScreen, Option

        argument, known = found
        self._groups = known
        wanted = argument.lower()
        newest = [one for one in reversed(known) if wanted in one.words.lower()][:MOST_OPTIONS]
        if not newest:
            what = (
                f"No traced command here has {argument[:40]!r} in it" if known and argument else "None was traced here"
            )
            self._app.say(f"{what}: see :trace, or k8s-trace-tui trace -- COMMAND.", wrong=True)
        elif argument:
            self._show(newest[0])
        else:
            options = [Option(str(at), printable(one.words, 60), self._about(one)) for at, one in enumerate(newest, 1)]

            def chosen(at: int | None) -> None:
                if at is not None:
                    self._show(newest[at])

            self._app.push_screen(ChoiceScreen("The requests of", options), chosen)

    def _about(self, one: Remembered) -> str:
        requests = f"{count(len(one.traces))} request{'s' if len(one.traces) != 1 else ''}"
        return f"{date_and_clock(one.time, self._app.utc)[:19]}  {requests}"

    def _show(self, one: Remembered) -> None:
        name = f"{printable(one.words, 60)}, {clock(one.time, self._app.utc)[:8]}"
        self._app.requests.show_group(Group(name, frozenset(one.traces)))

    # -- completion -------------------------------------------------------------------------------------
    def look_ahead(self) -> None:
        """A command is about to be written: read what may be offered."""
        now = time.monotonic()
        if now < self._next_read:
            return
        from tui.clusters.force import groups

        self._next_read = now + _STALE
        feed, path = self._app.feed, self._app.feed.path

        def read() -> Sequence[tuple[str, int]]:
            import tui.clusters.force.child  # noqa: F401 - what Enter needs then
            from receiver.traces.paths import read_paths

            return read_paths(feed.snapshot.index, MOST_PATHS)

        self._path_reads.ask(read)
        if path is not None:
            self._group_reads.ask(lambda: groups.recall(path))

    def offers(self, before: Sequence[str], begun: str) -> Iterable[str]:
        """What may stand behind `:trace`: a word to begin with, and after `get` paths that were read here."""
        if not before:
            return _OFFERED
        return [path for path, _ in self._paths] if [word.lower() for word in before] == ["get"] else ()

    def tells(self, argument: str) -> str:
        """While a path is written: those that begin like it, with how often each was read here."""
        word, space, begun = argument.partition(" ")
        if word.lower() != "get" or not space:
            return ""
        found = [f"{path} {count(n)}" for path, n in self._paths if path.startswith(begun.strip())]
        return "  ".join(found[:_TOLD_PATHS])

    def remembered(self, before: Sequence[str], begun: str) -> Iterable[str]:
        """Words of earlier commands, the newest first."""
        return () if before else dict.fromkeys(one.words for one in reversed(self._groups))

    def _take_paths(self, found: Sequence[tuple[str, int]]) -> None:
        self._paths = found

    def _take_groups(self, found: Sequence[Remembered]) -> None:
        self._groups = found

    def _could_not(self, sentence: str) -> None:
        self._app.say(sentence, wrong=True)

    # -- as it goes on ----------------------------------------------------------------------------------
    def look(self) -> None:
        """Take up how far it is; called ten times a second."""
        run, before = self.runs.run, self._run
        if run is None or run is before:
            return
        self._run = run
        if before is not None and before.number != run.number:
            before = None
        self._take_group(run)
        if run.stage is Stage.ENDED:
            self._tell_end(run)
        elif run.stage is not Stage.PREPARING and (before is None or before.stage is Stage.PREPARING):
            self._tell_begin(run)
        if run.output is not None and (before is None or before.output is None):
            self._show_output(run)

    @property
    def _key(self) -> str:
        return self._app.key_of("requests.outcome")

    def _take_group(self, run: Run) -> None:
        """The list is turned to its requests once, and follows them until somebody leaves the group."""
        if run.stage is Stage.PREPARING or (run.stage is Stage.ENDED and not run.ids):
            return
        requests, held = self._app.requests, self._group
        if self._grouped != run.number:
            self._grouped, self._group = run.number, None
            if self._app.screen in (requests, self._begun_on):
                self._group = Group(run.name, run.ids)
                requests.show_group(self._group)
            # whoever went on to something else is not called away from it
        elif held is not None:
            if held.ids != run.ids or held.name != run.name:
                self._group = Group(run.name, run.ids)
            requests.follow_group(held, self._group)

    def _tell_begin(self, run: Run) -> None:
        """What stands in the way, if anything; that it was begun is seen now."""
        toast = self._app.toasts.current
        if run.notes:
            more = f" ({count(len(run.notes) - 1)} more: {self._key})" if run.notes[1:] else ""
            self._app.say(f"{run.notes[0]}{more}", wrong=True)
        elif toast is not None and toast.text == self._begun_text:
            self._app.toasts.dismiss()

    def _tell_end(self, run: Run) -> None:
        if getattr(self._app.screen, "PLACE", "") == "traced":
            return  # it says all of that
        if run.problem:
            self._app.say(run.problem, wrong=True)
            return
        if run.reasons:
            first = re.sub(r"^\d[\d,]* of \d[\d,]*: ", "", run.reasons[0]) if run.total == 1 else run.reasons[0]
            more = f" ({count(len(run.reasons) - 1)} more: {self._key})" if run.reasons[1:] else ""
            self._app.say(f"{run.summary} {first}{more}", wrong=True)
            return
        verdict = " ".join(run.requests[0].sentences) if len(run.requests) == 1 else f"{self._key} says what each took."
        self._app.say(f"{run.summary} {verdict}")

    def _show_output(self, run: Run) -> None:
        """What a command said is shown once, to whoever is still where it was begun."""
        screen = self._app.screen
        if run.output is None or not run.output.lines:
            return
        if screen is self._app.requests and not self._app.requests.prompt.is_open:
            self.outcome()
        else:
            self._app.say(f"{run.words} ended with code {run.code}; {self._key} in Requests shows what it said.")

    def progress(self, group: Group) -> str:
        """How far the requests of a group are, where it is the one that was traced last; else ""."""
        run = self._run
        if run is None or group is not self._group:
            return ""
        arrived = f"{count(run.arrived)} of {count(run.total)} arrived"
        if run.stage is Stage.RUNNING:
            requests = f"{count(run.total)} request{'s' if run.total != 1 else ''}"
            return f"running, {requests} ({self._app.key_of('requests.stop')} stops it)"
        if run.stage is Stage.WAITING:
            return f"{arrived}, waiting for spans"
        if not run.total:
            return f"no request ({self._key} says why)"
        return f"{arrived} ({self._key} says why)" if run.arrived < run.total else _ARRIVED

    def nothing(self, group: Group) -> str:
        """Why none of a group's traces is in the list, where it is the one that was traced last; else ""."""
        run = self._run
        if run is None or group is not self._group:
            return ""
        if run.stage is not Stage.ENDED:
            return "No trace of it has come yet: exporters send every 5 s."
        return f"No trace of it came; {self._key} says why."
