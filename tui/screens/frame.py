"""What every screen has: the status line, a banner for problems, a title rule, a hint, the prompt and the keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import ActiveBinding
from textual.geometry import Region
from textual.screen import Screen
from textual.strip import Strip
from textual.widget import Widget

from tui.feed import Feed, Snapshot
from tui.glyphs import Glyphs
from tui.keys import bindings
from tui.terminal_text import count, printable
from tui.theming import Palette
from tui.toasts import Toast
from tui.widgets.keyline import KeyLine, live_keys
from tui.widgets.line import OneLine, Part, Rule, blank_lines
from tui.widgets.prompt import Complete, Prompt
from tui.widgets.status import Banner, StatusLine, ToastLine

if TYPE_CHECKING:
    from tui.app import TraceApp


class FrameScreen(Screen[None]):
    """A screen of ours. Subclasses yield their widgets from `body` and fill title and hint in `update`."""

    DEFAULT_CSS = """
    FrameScreen { layout: vertical; background: $background; color: $foreground; overflow: hidden; }
    """
    BINDINGS = bindings("app")  # here, because Textual's own Tab and Ctrl-C of a screen would come before an app's
    AUTO_FOCUS = ""
    PLACE = ""
    """Name of the view, as the command line calls it."""
    SHARES_VIEW: ClassVar[bool] = False
    """It is about what the list of requests shows: another filter or window is for both."""
    _focus_before: Widget | None = None
    _live_before: Sequence[ActiveBinding] = ()
    _has_hint = True
    _toast: Toast | None = None

    def compose(self) -> ComposeResult:
        """Textual's."""
        yield StatusLine(self.trace_app.source_title)
        yield Banner()
        yield Rule(id="title")
        yield from self.body()
        yield OneLine(id="hint")
        yield ToastLine()
        yield Prompt()
        yield KeyLine()

    def render_lines(self, crop: Region) -> list[Strip]:
        """Called by the compositor for what is under the widgets; Textual's own way takes 5 ms a frame."""
        return blank_lines(self, crop)

    def body(self) -> Iterable[Widget]:
        """The widgets between title and hint."""
        raise NotImplementedError

    def update(self, snapshot: Snapshot) -> None:
        """Take up what changed; called ten times a second while the screen is the one seen. Cheap when nothing did."""

    def repaint(self) -> None:
        """Theme, glyphs or time zone are others now: draw everything again."""

    def words(self) -> dict[str, str]:
        """Words for the key line that differ here, by binding id; "" leaves the key out."""
        return {"app.back": ""}

    # -- for subclasses ---------------------------------------------------------------------------------
    @property
    def trace_app(self) -> TraceApp:
        """The app, by its own type."""
        from tui.app import TraceApp

        app = self.app
        assert isinstance(app, TraceApp)
        return app

    @property
    def feed(self) -> Feed:
        """Where data comes from."""
        return self.trace_app.feed

    @property
    def palette(self) -> Palette:
        """Styles of the theme in use."""
        return self.trace_app.palette

    @property
    def glyphs(self) -> Glyphs:
        """Marks that this terminal can show."""
        return self.trace_app.glyphs

    def title_parts(self, left: Sequence[Part], right: Sequence[Part] = ()) -> None:
        """Put a title into the rule."""
        self.query_one("#title", Rule).show(left, right)

    def hint_parts(self, left: Sequence[Part], right: Sequence[Part] = ()) -> None:
        """Put something on the line above the keys."""
        self.query_one("#hint", OneLine).show(left, right)

    def more_lines(self, below: int) -> list[Part]:
        """For the right end of the hint: how much there is to scroll to."""
        if not below:
            return []
        key = self.trace_app.key_of("list.page-down")
        return [(f"{count(below)} more line{'s' if below > 1 else ''} ({key}) ", self.palette.dim)]

    # -- the frame's own life ---------------------------------------------------------------------------
    def on_mount(self) -> None:
        """Textual's event."""
        self._has_hint = self.query_one("#hint", OneLine).display
        self.bindings_updated_signal.subscribe(self, self._on_bindings)

    def on_screen_resume(self) -> None:
        """Textual's event: seen again, after another screen or for the first time."""
        self.call_after_refresh(self.tick)
        self.call_after_refresh(self.update_keys)

    def _on_bindings(self, _screen: object) -> None:
        if self.app.screen is self:
            self.call_after_refresh(self.update_keys)

    def live_bindings(self) -> list[ActiveBinding]:
        """What keys do here; while a prompt is open, what they did before."""
        if self.prompt.is_open:
            return list(self._live_before)
        return [active for active in self.active_bindings.values() if active.enabled]

    def update_keys(self) -> None:
        """Make the key line anew from the bindings that are live."""
        if not self.is_mounted or self.prompt.is_open:
            return
        live = live_keys(active.binding for active in self.live_bindings())
        self.query_one(KeyLine).update(live, self.words())

    def tick(self) -> None:
        """Called by the app ten times a second while this screen is on top."""
        if not self.is_mounted or not self.query(KeyLine):  # the last tick may come when the widgets are gone
            return
        app, snapshot = self.trace_app, self.feed.snapshot
        self.query_one(StatusLine).update(snapshot, live=self.feed.live, slow=app.slow_terminal)
        self.query_one(Banner).say(snapshot.problem)
        self.update(snapshot)

    def redraw(self) -> None:
        """Everything looks different now."""
        if not self.is_mounted:
            return
        self.repaint()
        self.update_keys()
        self.tick()
        for line in self.query(OneLine):
            line.refresh()

    # -- what is told, and asked ------------------------------------------------------------------------
    def show_toast(self, toast: Toast | None) -> None:
        """Put a toast above the keys, or take it away; where the hint is, so that nothing else moves for one line."""
        if toast == self._toast or not self.is_mounted or not self.query(KeyLine):
            return
        self._toast = toast
        lines = self.query(ToastLine)
        if lines:
            lines.first().show(toast)
        elif toast is not None:  # a screen that composes itself in another way
            line = ToastLine()
            line.show(toast)
            self.mount(line, before=self.prompt)
        self._place_hint()

    def _place_hint(self) -> None:
        """The hint is there while nothing else takes its line."""
        taken = self.prompt.is_open or any(line.sentence for line in self.query(ToastLine))
        hint = self.query_one("#hint", OneLine)
        if hint.display != (self._has_hint and not taken):
            hint.display = self._has_hint and not taken

    @property
    def prompt(self) -> Prompt:
        """The line where a command or a filter is written."""
        return self.query_one(Prompt)

    def open_prompt(self, mark: str, text: str = "", complete: Complete | None = None) -> None:
        """Ask for a command (":") or a filter ("/")."""
        self._focus_before, self._live_before = self.focused, self.live_bindings()
        self.trace_app.toasts.dismiss()  # who goes on has seen it
        self.prompt.ask(mark, text, complete)
        self.show_toast(None)
        self._place_hint()
        self.prompt_says("")

    def prompt_says(self, sentence: str, *, wrong: bool = False) -> None:
        """Put a sentence under the prompt."""
        mark = f"{self.glyphs.failed} " if wrong else ""
        style = self.palette.error if wrong else self.palette.dim
        self.query_one(KeyLine).instead(((f"   {mark}{printable(sentence)}", style),))

    def _prompt_closed(self) -> None:
        self._place_hint()
        self.query_one(KeyLine).instead(())
        before = self._focus_before
        if before is not None and before.is_attached:
            self.set_focus(before)
        self.update_keys()

    def on_prompt_changed(self, event: Prompt.Changed) -> None:
        """The prompt's message."""
        event.stop()
        if event.mark == ":":
            self.prompt_says(self.trace_app.commands.describe(event.text))
        else:
            self.filter_changed(event.text)

    def on_prompt_submitted(self, event: Prompt.Submitted) -> None:
        """The prompt's message."""
        event.stop()
        self._prompt_closed()
        if event.mark == ":":
            self.trace_app.run_command(event.text)
        else:
            self.filter_submitted(event.text)

    def on_prompt_cancelled(self, event: Prompt.Cancelled) -> None:
        """The prompt's message."""
        event.stop()
        self._prompt_closed()
        if event.mark == "/":
            self.filter_cancelled()

    def filter_changed(self, text: str) -> None:
        """What is written behind `/` changed."""

    def filter_submitted(self, text: str) -> None:
        """Enter behind `/`."""

    def filter_cancelled(self) -> None:
        """Escape behind `/`."""
