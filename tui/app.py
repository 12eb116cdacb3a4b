"""The application: screens, theme, keymap, the ten-times-a-second tick, and the way from view to view."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from textual import events
from textual.app import App, ScreenStackError
from textual.binding import ActiveBinding, Binding, BindingType
from textual.filter import Monochrome, NoColor
from textual.screen import Screen
from textual.widgets import Input

from receiver.plain_text import one_line
from tui import clipboard
from tui.cluster_feed import ClusterFeed, ControlPlanes
from tui.commands import HEX, CommandError, Commands
from tui.config import Settings
from tui.feed import Feed
from tui.glyphs import Glyphs, choose
from tui.keys import BY_ID, check_keymap, key_name, taken_twice
from tui.screens.frame import FrameScreen
from tui.screens.requests import RequestsScreen
from tui.terminal_text import printable, use_ascii
from tui.theming import DEFAULT, FALLBACK, PLAIN, PLAIN_LIGHT, Palette, adopted, built_in, load_themes, palette
from tui.toasts import Toast, Toasts
from tui.traced_runs import TracedRuns
from tui.traced_view import TracedView

if TYPE_CHECKING:
    from receiver.traces.query import Group
    from tui.screens.clusters import ClustersScreen
    from tui.screens.hotspots import HotPlace

TICK: Final = 0.1
"""Seconds between two looks at the feed."""
BEHIND: Final = 3
"""Frames that may wait for the terminal before a tick is left out; Textual blocks at 30."""
SLOW_TICKS: Final = 5
"""Ticks left out in a row after which the status line says `slow terminal`."""
SLOW_SECONDS: Final = 5.0
"""How long it says so."""
REMEMBERED: Final = 50
"""Views that `[` and `]` go through."""

_VIEWS: Final = ("requests", "hotspots", "clusters", "receiver", "trace")
_NEXT: Final = {"requests": "hotspots", "hotspots": "clusters", "clusters": "receiver", "receiver": "requests"}
"""What Tab goes to; from anywhere else to Hot spots."""

Place = tuple[str, str]
"""A view: its name, and a trace id where it is a trace."""


def _where(words: Sequence[str], endpoint: bool = True) -> tuple[bool, str]:
    """`everywhere` and an endpoint behind a command.

    Raises:
        CommandError: a word is neither.
    """
    everywhere, found = False, ""
    for word in words:
        if word.lower() == "everywhere":
            everywhere = True
        elif endpoint and ":" in word and not found:
            found = word
        else:
            raise CommandError(f"{word[:40]!r} is neither `everywhere`{' nor HOST:PORT' if endpoint else ''}.")
    return everywhere, found


def frames_waiting(app: App[Any]) -> int:
    """Frames that the terminal has not taken yet; 0 where that cannot be known.

    Textual's driver has a queue of 30 writes, and blocks the event loop when it is full (measured: 5.6 s). There is no
    public way to look at it.
    """
    queue = getattr(getattr(getattr(app, "_driver", None), "_writer_thread", None), "_queue", None)
    size = getattr(queue, "qsize", None)
    return int(size()) if callable(size) else 0


def few_colours(env: Mapping[str, str]) -> bool:
    """Whether Textual will send this terminal no more than 16 colours, as Rich decides it: by COLORTERM and TERM."""
    if env.get("TEXTUAL_COLOR_SYSTEM", "auto") != "auto":
        return env["TEXTUAL_COLOR_SYSTEM"] == "standard"
    if env.get("COLORTERM", "").strip().lower() in ("truecolor", "24bit"):
        return False
    return not env.get("TERM", "").lower().endswith(("256color", "kitty", "direct"))


def _load_ahead() -> None:
    """Import what the first opened trace needs, and the first that is repeated."""
    import tui.clusters.force.asking
    import tui.screens.clusters
    import tui.screens.hotspots
    import tui.screens.raw
    import tui.screens.trace  # noqa: F401


class _Leaving:
    """Marks the question before the program is left: who asks to leave once more while it is open means it."""


class TraceApp(App[int]):
    """k8s-trace-tui in a terminal."""

    ENABLE_COMMAND_PALETTE = False
    _own_themes: Sequence[str] = ()
    BINDINGS: ClassVar[list[BindingType]] = [Binding(BY_ID["app.quit"].keys, "quit", id="app.quit", show=False)]

    def __init__(
        self,
        feed: Feed,
        settings: Settings | None = None,
        *,
        title: str = "k8s-trace-tui",
        problems: Sequence[str] = (),
        theme_directories: Sequence[Path] = (),
        glyphs: Glyphs | None = None,
        control_planes: Callable[[], ControlPlanes] | None = None,
        no_control_planes: str = "",
        look_at_once: bool = False,
        group: Group | None = None,
        context: str = "",
        no_tracing: str = "",
    ) -> None:
        """
        Args:
            feed: where data comes from; started and stopped by the app.
            settings: of the configuration file and the command line.
            title: the cluster, context or file name.
            problems: what was wrong in the configuration; shown as toasts, and on the Receiver screen.
            theme_directories: more places with themes, besides the built-in ones.
            glyphs: None takes the set that the terminal can show.
            control_planes: makes what the Clusters screen reads and changes; None where there is nothing to be read.
            no_control_planes: why there is not.
            look_at_once: read them at the start and not only when the Clusters screen is opened.
            group: traces that the list begins with, as those of one command; None: all.
            context: of the kubeconfig, for what is traced on demand; "" the current one.
            no_tracing: why nothing can be traced on demand.
        """
        self.feed = feed
        self.settings = settings or Settings()
        self.clusters = ClusterFeed(control_planes, read_only=self.settings.read_only, none=no_control_planes)
        self._look_at_once = look_at_once
        self.source_title = title
        self.utc = self.settings.utc
        self.glyphs = glyphs or choose(os.environ, getattr(sys.__stderr__, "encoding", None))
        self._slow_until = 0.0
        self._palette: Palette | None = None
        super().__init__()
        if self.no_color:
            # Textual turns colours into greys, which are colours too; our marks and reverse video need none.
            self._filters = [*(one for one in self._filters if not isinstance(one, Monochrome)), NoColor()]
        self.title = title
        self.animation_level = "none"
        self.requests = RequestsScreen(group)
        runs = TracedRuns(feed, context, read_only=self.settings.read_only, none=no_tracing)
        self.traced = TracedView(self, runs)
        self.commands = Commands(self)
        self.toasts = Toasts()
        self.marked = ""
        """Id of the trace that others are compared with, "" for none."""
        self._hot_place: HotPlace | None = None
        self._told_on: FrameScreen | None = None
        self._dismissed = ""
        self._problems = list(problems)
        self._left_out = 0
        self._history: list[Place] = [("requests", "")]
        self._at = 0
        self._load_themes([built_in(), *theme_directories])
        self._set_keymap()

    # -- looks ------------------------------------------------------------------------------------------
    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Textual's hook: our variables exist in its own themes too, in colours that are seen on their ground."""
        theme = self.current_theme
        if not self._own_themes or theme.ansi or theme.name in self._own_themes:
            return dict(FALLBACK)
        return {**FALLBACK, **adopted(theme)}

    @property
    def palette(self) -> Palette:
        """Styles of the theme in use."""
        if self._palette is None:
            variables = {**FALLBACK, **self.get_css_variables()}
            self._palette = palette(variables, ansi=self.current_theme.ansi, colours=not self.no_color)
        return self._palette

    @property
    def theme_names(self) -> list[str]:
        """Themes by name: ours, the operator's, then Textual's."""
        return [*self._own_themes, *sorted(set(self.available_themes) - set(self._own_themes))]

    def _load_themes(self, directories: Sequence[Path]) -> None:
        themes, problems = load_themes(directories)
        self._problems += [str(problem) for problem in problems]
        for theme in themes.values():
            self.register_theme(theme)
        for name, ours in (("ansi-dark", PLAIN), ("ansi-light", PLAIN_LIGHT)):
            if ours in themes:  # Textual's have colours that the usual palettes do not show on such a ground
                self.register_theme(replace(themes[ours], name=name))
        self._own_themes = list(themes)
        wanted = self.settings.theme
        if wanted and wanted not in self.available_themes:
            self._problems.append(f"There is no theme {wanted[:40]!r}: Tab behind :theme goes through those there are.")
            wanted = ""
        for name in (wanted, PLAIN if few_colours(os.environ) else DEFAULT, DEFAULT):
            if name and name in self.available_themes:
                self.theme = name
                return

    def set_theme(self, name: str) -> None:
        """Other colours.

        Raises:
            CommandError: there is no such theme.
        """
        if name not in self.available_themes:
            raise CommandError(f"There is no theme {name[:40]!r}: Tab behind :theme goes through those there are.")
        self.theme = name

    def set_utc(self, on: bool | None) -> None:
        """Times in UTC or in the local zone; None: the other one."""
        self.utc = not self.utc if on is None else on
        self._redraw()

    def _redraw(self) -> None:
        for screen in self.screen_stack:
            if isinstance(screen, FrameScreen):
                screen.redraw()

    def _on_theme(self, _theme: object) -> None:
        self._palette = None
        self._redraw()

    # -- keys -------------------------------------------------------------------------------------------
    def _set_keymap(self) -> None:
        keymap, problems = check_keymap(self.settings.keymap)
        self._problems += problems + taken_twice(keymap)
        self.set_keymap(keymap)

    def live_bindings(self) -> list[ActiveBinding]:
        """The bindings of the screen in front, as if no prompt were open."""
        screen = self._front
        return list(self.screen.active_bindings.values()) if screen is None else screen.live_bindings()

    def key_of(self, id: str) -> str:
        """The key of a binding as it is written, after remapping."""
        keys = self._keymap.get(id, BY_ID[id].keys)
        return key_name(keys.split(",")[0], not self.glyphs.ascii)

    def run_binding(self, active: ActiveBinding) -> None:
        """Do what a key would."""
        self.call_later(self.run_action, active.binding.action, active.node)

    # -- life -------------------------------------------------------------------------------------------
    def get_default_screen(self) -> Screen[Any]:
        """Textual's hook: the list is under everything else."""
        return self.requests

    def on_mount(self) -> None:
        """Textual's event."""
        use_ascii(self.glyphs.ascii)
        self.set_class(self.glyphs.ascii, "-ascii")
        self.theme_changed_signal.subscribe(self, self._on_theme)
        self.set_interval(TICK, self._tick)
        self.toasts.line_up(Toast(printable(problem, 400), wrong=True) for problem in self._problems)

    def on_ready(self) -> None:
        """Textual's event, after the first frame: now there is time to read, and to load what the first key needs."""
        self.feed.start()
        if self._look_at_once:
            self.clusters.read()
        gc.freeze()  # what lives now lives long: collections need not walk through it
        threading.Thread(target=_load_ahead, name="load-ahead", daemon=True).start()

    def on_unmount(self) -> None:
        """Textual's event."""
        self.clusters.stop()
        self.traced.runs.stop()
        self.feed.stop()
        gc.unfreeze()

    @property
    def slow_terminal(self) -> bool:
        """Whether the terminal lately did not keep up."""
        return time.monotonic() < self._slow_until

    @property
    def _front(self) -> FrameScreen | None:
        """The screen that is seen, where it is one of ours; None also while the app ends and has no screens left."""
        try:
            screen = self.screen
        except ScreenStackError:
            return None
        return screen if isinstance(screen, FrameScreen) else None

    def _tick(self) -> None:
        if frames_waiting(self) > BEHIND:
            self._left_out += 1
            if self._left_out >= SLOW_TICKS:
                self._slow_until = time.monotonic() + SLOW_SECONDS
            return
        self._left_out = 0
        if self._dismissible(self.feed.snapshot.problem) != self._dismissed:
            self._dismissed = ""  # the same may happen again
        self.traced.look()
        if (screen := self._front) is not None:
            screen.tick()
            self._show_toast(screen)

    def _show_toast(self, screen: FrameScreen) -> None:
        toast = self.toasts.current
        if toast is not None and screen is not self._told_on:
            if self._told_on is not None and not toast.wrong:
                self.toasts.dismiss()  # it was about the view that was left
                toast = None
            self._told_on = screen
        screen.show_toast(toast)

    # -- what is wrong ----------------------------------------------------------------------------------
    def may_go(self, problem: str) -> bool:
        """Whether a problem of the snapshot may be dismissed: it happened and is mended, or is worth knowing but wrong
        for nobody."""
        return bool(self._dismissible(problem))

    def was_dismissed(self, problem: str) -> bool:
        """Whether the operator has seen it and pressed Escape."""
        return bool(problem) and self._dismissible(problem) == self._dismissed

    def _dismissible(self, problem: str) -> str:
        """What is remembered of a problem that is dismissed, "" for one that stays as long as it is true."""
        status = self.feed.snapshot.status or {}
        if problem and problem == status.get("notice"):
            return "notice"  # its figures may change
        return problem if problem and problem == status.get("over") else ""

    # -- the way from view to view ------------------------------------------------------------------------
    def go(self, name: str, trace_id: str = "", *, remember: bool = True, **more: Any) -> None:
        """Show a view: "requests", "hotspots", "clusters", "receiver", or "trace" with its id."""
        place = (name, trace_id)
        if remember and self._history[self._at] != place:
            del self._history[self._at + 1 :]
            self._history.append(place)
            del self._history[:-REMEMBERED]
            self._at = len(self._history) - 1
        while len(self.screen_stack) > 1 and self._place_of(self.screen)[0] not in _VIEWS:
            self.pop_screen()
        # A view that is under the present one comes back as it was left.
        for screen in reversed(self.screen_stack[1:] if len(self.screen_stack) > 1 else []):
            if self._place_of(screen) == place:
                self._pop_to(screen)
                return
        if name == "requests":
            self._pop_to(self.requests)
        elif name == "receiver":
            from tui.screens.receiver import ReceiverScreen

            self.push_screen(ReceiverScreen())
        elif name == "hotspots":
            from tui.screens.hotspots import HotPlace, HotSpotsScreen

            if self._hot_place is None:
                self._hot_place = HotPlace()
            self.push_screen(HotSpotsScreen(self._hot_place))
        elif name == "clusters":
            from tui.screens.clusters import ClustersScreen

            self.push_screen(ClustersScreen())
        elif name == "trace":
            from tui.screens.trace import TraceScreen

            self.push_screen(TraceScreen(trace_id, **more))

    def _pop_to(self, screen: Screen[Any]) -> None:
        while self.screen is not screen and len(self.screen_stack) > 1:
            self.pop_screen()

    @staticmethod
    def _place_of(screen: Screen[Any]) -> Place:
        return getattr(screen, "PLACE", ""), getattr(screen, "trace_id", "")

    def open_trace(self, trace_id: str, *, detail: bool = False) -> None:
        """Show a trace; the view before is one step back."""
        more = {"detail": True} if detail else {}
        self.go("trace", trace_id, **more)

    def open_raw(self, trace_id: str) -> None:
        """A whole trace as OTLP JSON."""
        from tui.screens.raw import RawScreen

        self.push_screen(RawScreen(trace_id))

    def mark(self, trace_id: str) -> None:
        """Mark a trace, to compare others with it; the same again takes the mark off."""
        self.marked = "" if self.marked == trace_id else trace_id
        self.hold()
        key = self.key_of("requests.compare")
        self.say(f"Marked; {key} on another one compares the two." if self.marked else "The mark is off.")
        self._redraw()

    def hold(self, but: str = "") -> None:
        """What is open on a screen and what is marked is not evicted.

        Args:
            but: id of a trace whose screen is about to go.
        """
        open_here = {self._place_of(screen)[1] for screen in self.screen_stack} - {"", but}
        self.feed.hold(sorted(open_here | ({self.marked} if self.marked else set())))

    def compare(self, trace_id: str) -> None:
        """A trace beside the marked one, or beside what is usual where none is marked or it is that one."""
        from tui.screens.compare import CompareScreen

        self.push_screen(CompareScreen(trace_id, self.marked if self.marked != trace_id else ""))

    def open_by_prefix(self, text: str) -> None:
        """`:open`: a trace by its id or the start of it, whether or not it is on the screen.

        Raises:
            CommandError: no such trace, or more than one.
        """
        text = text.strip().lower()
        if not text:
            raise CommandError("Which trace? Write its id or how that starts, or Tab for those on the screen.")
        if not HEX.fullmatch(text):
            raise CommandError(f"{text[:40]!r} is no trace id: those are up to 32 hex digits.")
        found, matching = self.feed.starting_with(text, 1)
        if matching != 1:
            raise CommandError(
                f"{matching:,} traces start with {text!r}: write more of it."
                if found
                else f"No trace here starts with {text!r}."
            )
        self.open_trace(found[0])

    def hot_spots(self, argument: str) -> None:
        """`:hotspots TABLE`.

        Raises:
            CommandError: there is no such table.
        """
        from tui.screens.hotspots import HotSpotsScreen

        self.go("hotspots")
        if argument and isinstance(self.screen, HotSpotsScreen):
            self.screen.show_table(argument.lower())

    # -- control planes ---------------------------------------------------------------------------------
    def look_why(self) -> None:
        """`:doctor`: why nothing arrives."""
        from tui.screens.receiver import ReceiverScreen

        self.go("receiver")
        screen = self.screen
        assert isinstance(screen, ReceiverScreen)
        screen.call_after_refresh(screen.action_look)

    def arm(self, argument: str) -> None:
        """`:arm`.

        Raises:
            CommandError: what follows is neither `everywhere` nor an endpoint.
        """
        everywhere, endpoint = _where(argument.split())
        self._clusters_screen().ask_for(0, "arm", endpoint, everywhere)

    def sample(self, argument: str) -> None:
        """`:sampling RATE`.

        Raises:
            CommandError: it is no rate.
        """
        from tui.screens.clusters import parse_rate

        words = argument.split()
        if not words:
            raise CommandError("Which rate? Write it as 1%, 1/1000, 10000ppm, 0 or all.")
        taken = 2 if words[1:2] == ["%"] else 1
        rate, name = parse_rate("".join(words[:taken]))
        everywhere, endpoint = _where(words[taken:])
        self._clusters_screen().ask_for(rate, name, endpoint, everywhere)

    def turn_off(self, argument: str) -> None:
        """`:off`.

        Raises:
            CommandError: something else than `everywhere` follows.
        """
        everywhere, _ = _where(argument.split(), endpoint=False)
        self._clusters_screen().ask_for(None, "off", "", everywhere)

    def put_back(self, argument: str) -> None:
        """`:revert`.

        Raises:
            CommandError: something else than `everywhere` follows.
        """
        everywhere, _ = _where(argument.split(), endpoint=False)
        self._clusters_screen().revert(everywhere)

    def _clusters_screen(self) -> ClustersScreen:
        from tui.screens.clusters import ClustersScreen

        self.go("clusters")
        screen = self.screen
        assert isinstance(screen, ClustersScreen)
        return screen

    def action_next_view(self) -> None:
        """Tab."""
        here = self._place_of(self.screen)[0]
        self.go(_NEXT.get(here, "hotspots"))

    def action_backward(self) -> None:
        """`[`: the view before."""
        if self._at > 0:
            self._at -= 1
            self.go(*self._history[self._at], remember=False)

    def action_forward(self) -> None:
        """`]`: forward again."""
        if self._at + 1 < len(self._history):
            self._at += 1
            self.go(*self._history[self._at], remember=False)

    async def action_back(self) -> None:
        """q: the view under this one; out of the program where there is none."""
        if len(self.screen_stack) <= 1:
            self.leave()
        else:
            self._up()

    def _up(self) -> None:
        self.pop_screen()
        self._remember_here()

    def action_escape(self) -> None:
        """Escape: a problem that may be dismissed goes, else back, but never out of the program."""
        problem = self.feed.snapshot.problem
        if self.may_go(problem) and not self.was_dismissed(problem):
            self._dismissed = self._dismissible(problem)
            if self._front is not None:
                self._front.tick()
        elif len(self.screen_stack) > 1:
            self._up()
        else:
            self.requests.clear_filter()

    def _remember_here(self) -> None:
        place = self._place_of(self.screen)
        if not place[0] or self._history[self._at] == place:
            return
        if self._at > 0 and self._history[self._at - 1] == place:
            self._at -= 1
            return
        del self._history[self._at + 1 :]
        self._history.append(place)
        self._at = len(self._history) - 1

    async def on_event(self, event: events.Event) -> None:
        """Textual's: do what keys are bound to here and now, in the order in which they were pressed.

        Textual hands a key to the widget that has the focus and lets it bubble up to here; keys that were pressed
        right behind one that closes a screen are gone with its widgets.
        """
        if isinstance(event, events.Key) and not event.is_forwarded:
            if self.return_code is not None:
                return  # pressed while the app ends
            at_a_line = isinstance(self.focused, Input)
            if self._front is not None and not at_a_line and await self._check_bindings(event.key):
                return
        await super().on_event(event)

    async def action_quit(self) -> None:
        """Out, from anywhere."""
        self.leave()

    def leave(self) -> None:
        """Out of the program; while a node is being changed only after a question, since that goes on without us."""
        run = self.clusters.rolling
        if run is None or run.decided or any(isinstance(screen, _Leaving) for screen in self.screen_stack):
            self.exit(0)
            return
        from tui.screens.change import ConfirmScreen
        from tui.screens.cluster_lines import sentence

        class Leaving(ConfirmScreen, _Leaving):
            """The question."""

        said = (
            f"{run.at_work} is being changed: {run.title}. It goes on by itself, and puts itself back if it does not "
            "come up well; no other node is begun. The Clusters screen of the next start shows how far it is."
        )

        def done(agreed: str | None) -> None:
            if agreed is not None:
                self.exit(0)

        self.push_screen(
            Leaving("Leave while a change is on its way?", lambda w: sentence(said, w, self.palette.base), "Leave"),
            done,
        )

    def action_help(self) -> None:
        """`?`: the keys that are live here."""
        from tui.screens.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(self.live_bindings(), self.commands.listed))

    def action_command(self) -> None:
        """`:`."""
        if (screen := self._front) is not None:
            self.traced.look_ahead()
            screen.open_prompt(":", "", self.commands.complete)

    def run_command(self, text: str) -> None:
        """Do what a command line says; what it cannot do is a toast."""
        try:
            self.commands.run(text)
        except CommandError as error:
            self.say(str(error), wrong=True)

    # -- for screens ------------------------------------------------------------------------------------
    def say(self, sentence: str, *, wrong: bool = False) -> None:
        """A toast: `wrong` where something could not be done."""
        self.toasts.say(Toast(printable(sentence, 400), wrong))
        self._told_on = self._front
        if self._told_on is not None:
            self._told_on.show_toast(self.toasts.current)

    @property
    def problems(self) -> Sequence[str]:
        """What was wrong in the configuration and the themes at the start."""
        return self._problems

    def copy(self, text: str, what: str) -> None:
        """Text to the operator's clipboard, as one line, and a toast that says so."""
        self.say(clipboard.copy(self, text, what))

    def copy_lines(self, lines: Sequence[str], what: str) -> None:
        """Several lines to the operator's clipboard, and a toast that says how many."""
        self.say(clipboard.copy_lines(self, lines, what))

    def copy_to_clipboard(self, text: str) -> None:
        """Textual's, which its inputs and selections call, too: whoever sends text, it goes out as one line."""
        super().copy_to_clipboard(one_line(text))

    def copy_lines_to_clipboard(self, lines: Sequence[str]) -> None:
        """As `copy_to_clipboard`, each of these a line. The only way by which line ends get to the clipboard."""
        super().copy_to_clipboard("\n".join(one_line(line) for line in lines))

    def freeze(self, on: bool | None) -> None:
        """Keep the list as it is, or let it run; None: the other one."""
        self.feed.freeze(not self.feed.snapshot.frozen if on is None else on)
