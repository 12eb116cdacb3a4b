"""A span or a trace as it was sent: OTLP JSON, one screen of lines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from textual.binding import BindingType
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from receiver.traces.model import Span
from receiver.traces.tree import walk
from tui.documents import dumps
from tui.feed import Snapshot
from tui.keys import bindings
from tui.latest import Latest
from tui.screens.frame import FrameScreen
from tui.terminal_text import count, fit, printable, size, width_of
from tui.widgets.line import LineWidget, Part, strip

MOST_SPANS: Final = 2_000
"""Spans of a trace that are shown raw; `k8s-trace-tui show --raw` prints all."""
_PAN: Final = 16
_INLINE: Final = 100
"""Characters up to which an object stays on one line."""


@dataclass(frozen=True, slots=True)
class RawText:
    """JSON as lines, and on one line for the clipboard; `spans` of `total` are in it."""

    lines: tuple[str, ...] = ()
    spans: int = 0
    total: int = 0
    one_line: str = ""


def json_lines(value: object, indent: int = 0, lead: str = "", tail: str = "") -> list[str]:
    """JSON as lines, an object or list on one line where it is short: attributes are one line each."""
    text = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or not value or len(text) + indent <= _INLINE:
        return [f"{' ' * indent}{lead}{text}{tail}"]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    lines = [f"{' ' * indent}{lead}{opening}"]
    last = len(value) - 1
    items = value.items() if isinstance(value, dict) else ((None, item) for item in value)
    for at, (key, item) in enumerate(items):
        name = "" if key is None else f"{json.dumps(key, ensure_ascii=False)}: "
        lines += json_lines(item, indent + 2, name, "," if at < last else "")
    return [*lines, f"{' ' * indent}{closing}{tail}"]


class TextLines(LineWidget, can_focus=True):
    """Lines of text that scroll both ways. Each is made printable when it is drawn."""

    DEFAULT_CSS = """
    TextLines { height: 1fr; width: 100%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = bindings("list")

    class Moved(Message):
        """Other lines are on the screen."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.lines: tuple[str, ...] = ()
        self.top = 0
        self.left = 0

    def show(self, lines: tuple[str, ...]) -> None:
        """Other text."""
        self.lines = lines
        self._go(0)

    @property
    def below(self) -> int:
        """Lines that are further down."""
        return max(0, len(self.lines) - self.top - self.size.height)

    @property
    def wider(self) -> bool:
        """Whether a line on the screen goes on to the right."""
        shown = self.lines[self.top : self.top + self.size.height]
        return any(width_of(line[self.left : self.left + 4 * self.size.width]) >= self.size.width for line in shown)

    def _go(self, top: int) -> None:
        self.top = max(0, min(top, len(self.lines) - self.size.height))
        self.refresh()
        self.post_message(self.Moved())

    def pan(self, step: int) -> None:
        """To the right (1), as far as there is something, or left (-1)."""
        if step > 0 and not self.wider:
            return
        self.left = max(0, self.left + step * _PAN)
        self.refresh()
        self.post_message(self.Moved())

    def action_move(self, step: int) -> None:
        """A line."""
        self._go(self.top + step)

    def action_page(self, step: int) -> None:
        """A page."""
        self._go(self.top + step * max(1, self.size.height - 1))

    def action_edge(self, end: int) -> None:
        """First or last line."""
        self._go(0 if end < 0 else len(self.lines))

    def on_resize(self) -> None:
        """Textual's event."""
        self._go(self.top)

    def draw(self, y: int, width: int) -> Strip:
        """A line: the key dim, its value not."""
        palette, at = self.palette, self.top + y
        if at >= len(self.lines):
            return Strip.blank(width, palette.base)
        # A value of a megabyte is one line: only what may be seen of it is looked at.
        text = printable(self.lines[at][: self.left + 4 * width], self.left + 4 * width)[self.left :]
        key, colon, value = text.partition('": ')
        room = max(0, width - 1)
        if not colon or self.left:
            return strip([(" ", palette.base), (fit(text, room), palette.base)], width, palette.base)
        return strip(
            [(" ", palette.base), (key + colon, palette.dim), (fit(value, max(0, room - len(key) - 3)), palette.base)],
            width,
            palette.base,
        )


class RawScreen(FrameScreen):
    """The JSON of one span, or of a trace."""

    PLACE = "raw"
    BINDINGS: ClassVar[list[BindingType]] = bindings("raw")

    def __init__(self, trace_id: str, span: Span | None = None) -> None:
        """`span` None: the whole trace."""
        super().__init__()
        self.of_trace = trace_id
        self.span = span
        self._text = RawText()
        self._reads: Latest[RawText] = Latest(self, "raw", self._show, self._could_not)

    def body(self) -> Iterable[Widget]:
        """The text."""
        yield TextLines()

    def on_mount(self) -> None:
        """Textual's event."""
        super().on_mount()
        self.query_one(TextLines).focus()
        self._title("reading")
        self._reads.ask(self._read)

    def _read(self) -> RawText:
        """In a worker thread."""
        spans = [self.span] if self.span is not None else []
        total = 1
        if self.span is None:
            trace = self.feed.trace(self.of_trace)
            total = trace.spans if trace is not None else 0
            for node in walk(trace) if trace is not None else ():
                if len(spans) >= MOST_SPANS:
                    break
                spans.append(node.span)
        raw = self.feed.bodies.raw(spans)
        return RawText(tuple(json_lines(raw)), len(spans), total, dumps(raw))

    def on_text_lines_moved(self, event: TextLines.Moved) -> None:
        """The text's message."""
        event.stop()
        lines, left = self.query_one(TextLines), self.trace_app.key_of("raw.right")
        more: list[Part] = [(f" {left}", self.palette.key), (" goes on to the right", self.palette.dim)]
        self.hint_parts(more if lines.wider else [], self.more_lines(lines.below))

    def _show(self, text: RawText) -> None:
        self._text = text
        self.query_one(TextLines).show(text.lines)
        if not text.spans:
            self._title("not in the store")
            return
        what = f"{count(len(text.lines))} lines, {size(sum(map(len, text.lines)))}"
        if text.spans < text.total:
            what += f", the first {count(text.spans)} of {count(text.total)} spans: k8s-trace-tui show --raw has all"
        self._title(what)

    def _title(self, what: str) -> None:
        name = f"OTLP JSON of span {self.span.span_id}" if self.span is not None else "OTLP JSON of trace "
        p = self.palette
        name = name if self.span is not None else name + printable(self.of_trace, 32)
        self.title_parts([(name, p.title), (f"  {what}", p.dim)])

    def _could_not(self, sentence: str) -> None:
        self._title("could not be read")
        self.trace_app.say(sentence, wrong=True)

    def update(self, snapshot: Snapshot) -> None:
        """What was sent does not change."""

    def repaint(self) -> None:
        """The theme is another now."""
        self.query_one(TextLines).refresh()

    def action_pan(self, step: int) -> None:
        """To the right or left."""
        self.query_one(TextLines).pan(step)

    def action_copy(self) -> None:
        """The JSON, on one line: a paste into a shell runs nothing."""
        if self._text.spans:
            self.trace_app.copy(self._text.one_line, "OTLP JSON")
