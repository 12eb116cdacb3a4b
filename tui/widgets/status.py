"""The line on top of every screen, and the banner under it that is there only while something is wrong."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from rich.style import Style
from textual.strip import Strip

from tui.feed import Snapshot
from tui.terminal_text import count, fit, printable, size, width_of, wrap
from tui.toasts import Toast
from tui.widgets.line import LineWidget, OneLine, Part, strip

_FEWEST_LINES = 4
"""Lines that a sentence may take on a small screen; on larger ones a sixth."""


class StatusLine(OneLine):
    """Where the data comes from, how fast, how much, and whether any was lost."""

    def __init__(self, title: str, **keywords: Any) -> None:
        """`title`: the cluster, context or file name."""
        super().__init__(**keywords)
        self._title = printable(title, 60)
        self._facts: tuple[Snapshot, bool, bool] | None = None

    def update(self, snapshot: Snapshot, *, live: bool, slow: bool) -> None:
        """Take up new figures.

        Args:
            snapshot: the newest one.
            live: False for recordings, which have no rates and no receiver.
            slow: the terminal does not keep up.
        """
        self._facts = (snapshot, live, slow)
        parts = self._parts()
        self.show(*parts)

    def on_resize(self) -> None:
        """Textual's event: more or less of it fits."""
        if self._facts is not None:
            self.show(*self._parts())

    def _parts(self) -> tuple[list[Part], list[Part]]:
        assert self._facts is not None
        snapshot, live, slow = self._facts
        p = self.palette
        left: list[Part] = [(f" {self._title}", p.title)]
        if slow:
            left.append((f"  {self.glyphs.suspicious} slow terminal", p.warning))
        # Each with how much it matters (0 is dropped last) in the order in which they stand.
        facts: list[tuple[int, list[Part]]] = []
        if snapshot.loading is not None:
            facts.append((0, [(f"loading {round(100 * snapshot.loading)} %", p.warning)]))
        if live:
            facts.append((1, self._rate(snapshot)))
            facts.append((3, [(f"{snapshot.requests_per_s:>4.0f} req/s", p.base)]))
        else:
            facts.append((2, [("recording", p.dim)]))
        facts.append((4, [(f"{count(snapshot.traces):>6} traces", p.base)]))
        facts.append((5, [(f"{count(snapshot.spans):>7} spans", p.base)]))
        if live:
            facts += self._receiver(snapshot.status)
        room = self.size.width - sum(width_of(text) for text, _ in left) - 2
        while facts and sum(3 + sum(width_of(text) for text, _ in parts) for _, parts in facts) > room:
            facts.remove(max(facts, key=lambda fact: fact[0]))
        right: list[Part] = []
        for _, parts in facts:
            right += [("   ", p.base), *parts]
        return left, [*right, (" ", p.base)]

    def _rate(self, snapshot: Snapshot) -> list[Part]:
        p, dot = self.palette, self.glyphs.dot
        flowing = snapshot.spans_per_s >= 0.05
        return [(dot, p.ok if flowing else p.dim), (f" {snapshot.spans_per_s:>5,.0f} spans/s", p.base)]

    def _receiver(self, status: dict[str, Any] | None) -> list[tuple[int, list[Part]]]:
        p, mark = self.palette, self.glyphs.suspicious
        if status is None:
            return [(2, [("no receiver", p.dim)])]
        facts: list[tuple[int, list[Part]]] = []
        if cap := _number(status, "cap_bytes"):
            used = f"{size(_number(status, 'live_bytes'))} of {size(cap)}"
            facts.append((6, [(f"{used:>18}", p.base)]))
        lost = _number(status, "rejected") + _number(status, "malformed")
        refused = _number(status, "refused")
        if refused:
            facts.append((1, [(f"{mark} {count(refused)} refused", p.warning)]))
        facts.append((2, [(f"{mark} {count(lost)} lost", p.error) if lost else ("0 lost", p.base)]))
        return facts


def _number(status: dict[str, Any], key: str) -> int:
    value = status.get(key)
    return value if isinstance(value, int) else 0


class _Sentence(LineWidget):
    """A sentence on as many lines as it takes; no room at all while there is none."""

    DEFAULT_CSS = """
    _Sentence { height: 1; width: 100%; display: none; }
    """

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._text = ""

    @property
    def sentence(self) -> str:
        """What it says."""
        return self._text

    def looks(self) -> tuple[str, Style]:
        """The mark before it ("" for none) and its style."""
        raise NotImplementedError

    def _put(self, text: str) -> None:
        self._text = text
        self.display = bool(text)
        self._fit()
        self.refresh()

    def on_resize(self) -> None:
        """Textual's event: other line breaks."""
        self._fit()

    def _lines(self, width: int) -> list[str]:
        mark = self.looks()[0]
        most = max(_FEWEST_LINES, self.app.size.height // 6)
        return wrap_words(
            f"{mark} {printable(self._text)}" if mark else printable(self._text), max(10, width - 2), most
        )

    def _fit(self) -> None:
        if self._text:
            lines = len(self._lines(self.size.width or self.app.size.width))
            if self.styles.height is None or self.styles.height.value != lines:
                self.styles.height = lines

    def draw(self, y: int, width: int) -> Strip:
        """A line of it."""
        lines = self._lines(width)
        text = lines[y] if y < len(lines) else ""
        return strip([(f" {text}", self.looks()[1])], width, self.palette.base)


class Banner(_Sentence):
    """A problem, on top of every screen for as long as there is one; what nobody need act upon can be dismissed."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._may_go = False

    def say(self, sentence: str) -> None:
        """Show a sentence, or go away for ""."""
        may_go = False
        if sentence and isinstance(self.app, Judge):
            may_go = self.app.may_go(sentence)
            if may_go and self.app.was_dismissed(sentence):
                sentence = ""
        said = f"{sentence} (esc)" if may_go and sentence else sentence
        if (said, may_go) != (self._text, self._may_go):
            self._may_go = may_go
            self._put(said)

    def looks(self) -> tuple[str, Style]:
        """Nothing on the screen is more important than what is wrong now."""
        if self._may_go:
            return self.glyphs.suspicious, self.palette.warning
        return self.glyphs.failed, self.palette.error


@runtime_checkable
class Judge(Protocol):
    """An app that knows which problems may be dismissed, and were."""

    def may_go(self, problem: str) -> bool: ...

    def was_dismissed(self, problem: str) -> bool: ...


class ToastLine(_Sentence):
    """What was just done or could not be, above the keys: it takes the place of the hint, and covers nothing."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._toast: Toast | None = None

    def show(self, toast: Toast | None) -> None:
        """Show one, or go away for None."""
        if toast != self._toast:
            self._toast = toast
            self._put(toast.text if toast is not None else "")

    def looks(self) -> tuple[str, Style]:
        """What went wrong is marked."""
        if self._toast is not None and self._toast.wrong:
            return self.glyphs.suspicious, self.palette.warning
        return "", self.palette.title


def wrap_words(text: str, width: int, most: int) -> list[str]:
    """Printable text in at most `most` lines of at most `width` cells, broken at spaces."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        if line and width_of(line) + 1 + width_of(word) > width:
            lines.append(line)
            line = "  " + word
        else:
            line = f"{line} {word}" if line else word
    lines.append(line)
    pieces = [piece for line in lines for piece in wrap(line, width, most)[0]]
    if len(pieces) > most:
        pieces[most - 1] = fit(" ".join(piece.strip() for piece in pieces[most - 1 :]), width)
    return pieces[:most]
