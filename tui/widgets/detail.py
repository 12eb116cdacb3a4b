"""What is known about one span: attributes, events, links, where it came from, and its ids.

`describe` makes the words, bounded whatever the span holds, so that it can be called in a worker thread; the pane
breaks them into lines for its width and draws the ones on the screen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from rich.style import Style
from textual import events
from textual.strip import Strip

from receiver.traces.model import Body, Event, Oddity, Span, Value
from receiver.traces.semantics import ALIASES
from tui.glyphs import Glyphs
from tui.terminal_text import count, date_and_clock, duration, fit, offset, printable, width_of, wrap
from tui.widgets.line import LineWidget, Part, strip
from tui.widgets.notes import oddity_text
from tui.widgets.outline import CHAIN, RUN, Outline

MOST_ATTRIBUTES: Final = 200
MOST_EVENTS: Final = 200
MOST_LINKS: Final = 50
MOST_INNER: Final = 24
"""Attributes of one event, link or resource that are shown."""
_VALUE: Final = 2_000
"""Characters of one value that are shown."""
_LINES: Final = 8
"""Lines of one value that are shown."""
_STACK_LINES: Final = 16

_IMPORTANT: Final = (
    # what a webhook call is about, what a request is about, what storage is about, how it ended
    *("configuration", "webhook", "operation", "custom-resource-definition", "desired-api-version"),
    *("verb", "resource", "subresource", "namespace", "name", "api-group", "api-version"),
    *("key", "type", "mediaType"),
    *ALIASES["code"],
    *ALIASES["rpc_code"],
    "error.type",
    *ALIASES["method"],
    *ALIASES["target"],
    *ALIASES["url"],
    *ALIASES["path"],
    "url",
    *ALIASES["agent"],
    *ALIASES["verb_agent"],
    *ALIASES["audit"],
)
_RANK: Final = {key: at for at, key in reversed(list(enumerate(_IMPORTANT)))}

PLAIN, DIM, ERROR, WARNING = range(4)
"""How a value looks."""


@dataclass(frozen=True, slots=True)
class Row:
    """A label and what belongs to it; neither is printable yet."""

    label: str
    value: str
    look: int = PLAIN
    lines: int = _LINES
    right: bool = False  # the label is a number


@dataclass(slots=True)
class Block:
    """Rows under a heading ("" for none)."""

    heading: str
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Description:
    """A span in words. `important` stands left where there are two columns."""

    title: str
    important: Sequence[Block] = ()
    more: Sequence[Block] = ()


def describe(
    lines: Outline, line: int, body: Body | None, glyphs: Glyphs, *, reading: bool = False, utc: bool = False
) -> Description:
    """The span of a line in words. Bounded: `MOST_*` and the length of each value.

    Args:
        lines, line: the span and its place.
        body: None when it is not stored any more, or not here yet.
        reading: the body is on its way.
        utc: times in UTC.
    """
    node = lines.nodes[line]
    span = node.span
    if lines.flags[line] & CHAIN:
        return _describe_chain(lines, line)
    if lines.flags[line] & RUN:
        return _describe_run(lines, line, glyphs)
    facts = Block("", list(_facts(lines, line, body, glyphs, utc)))
    if body is None:
        sentence = "reading ..." if reading else "Its attributes and events are not stored any more: evicted."
        facts.rows.append(Row("", sentence, DIM))
        return Description(span.name, [facts], [_identity(lines, line, None)])
    important = [facts, Block("Attributes", _attribute_rows(body, glyphs))]
    more = [
        _events(span.start - lines.moved(line), body, glyphs),
        _links(body, glyphs),
        _resource(span, body, glyphs),
        _identity(lines, line, body),
    ]
    return Description(
        span.name,
        [block for block in important if block.rows],
        [block for block in more if block.rows],
    )


def _describe_chain(lines: Outline, line: int) -> Description:
    shown = lines.shown_ns[line + 1 : line + lines.size[line]]
    rows = [Row(duration(own), node.span.name, right=True) for own, node in zip(shown, lines.chains[line], strict=True)]
    note = "Own time of each: without the filters and the work that it lets through."
    title = f"filters of the API server, {duration(lines.shown_ns[line])}"
    return Description(title, [Block("", rows), Block("", [Row("", note, DIM)])])


def _describe_run(lines: Outline, line: int, glyphs: Glyphs) -> Description:
    run = lines.runs[line].run
    longest = run.longest.span
    times = "x" if glyphs.ascii else "×"
    title = f"{times}{count(len(run.members))} {longest.name}, {duration(run.total)}"
    facts = [
        Row("total", f"{duration(run.total)}, within {duration(lines.end[line] - lines.start[line])}"),
        Row("p50", duration(run.median)),
        Row("max", f"{duration(longest.duration)}, span {longest.span_id}"),
    ]
    critical = sum(lines.critical.get(at, 0) for at in range(line, line + lines.size[line]))
    if critical:
        facts.append(_path_row(lines, critical, "on the critical path", glyphs))
    note = "Siblings that follow each other and are alike, as one line."
    if run.outlier is not None:
        note += (
            f" The longest took {run.longest.span.duration // max(1, run.median):,} times the median: it stays visible."
        )
    return Description(title, [Block("", facts), Block("", [Row("", note, DIM)])])


def _path_row(lines: Outline, ns: int, words: str, glyphs: Glyphs) -> Row:
    path = lines.path
    percent = 100 * ns / max(1, path.end - path.start) if path is not None else 0
    share = f"{percent:.0f} %" if percent >= 10 else f"{percent:.1f} %" if percent >= 0.1 else "<0.1 %"
    return Row(glyphs.path, f"{words} {duration(ns)} ({share})")


def _shift_row(lines: Outline, line: int, glyphs: Glyphs) -> Iterable[Row]:
    """By how much a span of an aligned trace is shown at another time, and why."""
    alignment, span = lines.alignment, lines.nodes[line].span
    if alignment is None:
        return
    moved, shift = alignment.moved(span), alignment.shift(span)
    here = shift is not None and shift.server.span_id == span.span_id
    if shift is not None and shift.refused:
        off = f"{duration(abs(shift.ns))} {'behind' if shift.ns > 0 else 'ahead of'}"
        whose = f"its clock is {off} its caller's" if here else f"the other side's clock is {off} this one's"
        yield Row(glyphs.moved, f"{whose}: more than 10 s is not aligned", WARNING)
    elif shift is not None and not here:
        yield Row(glyphs.moved, f"its other side is shown {_by(shift.ns)} than it was sent", WARNING)
    if moved:
        why = "in the middle of its call, because clocks differ" if here else "with the server side above it"
        if here and shift is not None and shift.server.duration > shift.client.duration:
            why = "from the start of its call, because clocks differ"
        yield Row(glyphs.moved, f"shown {_by(moved)} than it was sent: {why}", WARNING)


def _by(ns: int) -> str:
    return f"{duration(abs(ns))} {'later' if ns > 0 else 'earlier'}"


def _facts(lines: Outline, line: int, body: Body | None, glyphs: Glyphs, utc: bool) -> Iterable[Row]:
    node = lines.nodes[line]
    span = node.span
    took = duration(span.duration)
    if node.children:
        took += f", own time {duration(node.self_ns)}"
    yield Row("took", took)
    at = date_and_clock(span.start, utc)
    if span.start and lines.trace.start:
        at = f"{offset(span.start - lines.trace.start)}, at {at}"
    yield Row("started", at)
    if span.status == 2:
        message = body.status_message if body is not None else ""
        yield Row("status", f"{glyphs.failed} {message or 'error'}", ERROR, 12)
    elif span.status == 1:
        yield Row("status", "ok")
    critical = lines.critical.get(line, 0)
    if critical:
        yield _path_row(lines, critical, "own time on the critical path", glyphs)
    hop = lines.hop(line)
    if hop is not None:
        percent = hop.gap * 100 // max(1, span.duration)
        share = f" ({percent} %)" if percent else ""
        yield Row(glyphs.gap, f"{duration(hop.gap)}{share} is not on the other side: network, queue, connection")
    yield from _shift_row(lines, line, glyphs)
    above = lines.above(line)
    for oddity in Oddity:
        if oddity not in node.oddities:
            continue
        words = oddity_text(oddity, lines.trace)
        mark = glyphs.unseen if oddity is Oddity.ORPHAN else glyphs.odd
        if above is not None and oddity is Oddity.OUTLIVES:
            mark, words = glyphs.outlives_tail, f"{words} by {duration(span.end - above.span.end)}"
        elif above is not None and oddity is Oddity.BEFORE_PARENT:
            words = f"{words}, by {duration(above.span.start - span.start)}"
        elif oddity is Oddity.BACKWARDS:
            words = f"{words}, by {duration(span.start - span.end)}"
        yield Row(mark, words, WARNING)


def _attribute_rows(body: Body, glyphs: Glyphs) -> list[Row]:
    found = sorted(body.attributes.items(), key=lambda item: (_RANK.get(item[0], len(_RANK)), item[0]))
    rows = [_row(key, value) for key, value in islice(found, MOST_ATTRIBUTES)]
    return rows + _left_out(len(found) - MOST_ATTRIBUTES, body.dropped[0], glyphs)


def _row(key: str, value: Value, lines: int = _LINES) -> Row:
    text = value_text(value)
    return Row(key, text, PLAIN, lines) if text else Row(key, "(empty)", DIM)


def _left_out(more: int, dropped: int, glyphs: Glyphs) -> list[Row]:
    rows = []
    if more > 0:
        rows.append(Row("", f"{glyphs.ellipsis} {count(more)} more", DIM))
    if dropped:
        rows.append(Row("", f"{count(dropped)} dropped by the sender", WARNING))
    return rows


def _events(start: int, body: Body, glyphs: Glyphs) -> Block:
    """Events, from the span's start as it was sent."""
    total = len(body.events)
    block = Block(f"Events  {count(total)}" if total > 1 else "Event")
    for event in body.events[:MOST_EVENTS]:
        block.rows += _event_rows(start, event, glyphs)
    block.rows += _left_out(total - MOST_EVENTS, body.dropped[1], glyphs)
    return block


def _event_rows(start: int, event: Event, glyphs: Glyphs) -> list[Row]:
    brief: list[str] = []
    long: list[Row] = []
    for key, value in islice(sorted(event.attributes.items()), MOST_INNER):
        text = value_text(value)
        if len(text) <= 60 and "\n" not in text:
            brief.append(f"{key}={text}")
        else:
            long.append(Row("", f"{key}: {text}", DIM, _STACK_LINES))
    if len(event.attributes) > MOST_INNER:
        brief.append(f"{glyphs.ellipsis} {count(len(event.attributes) - MOST_INNER)} more")
    words = event.name + ("  " + " ".join(brief) if brief else "")
    return [Row(offset(event.time - start), words, right=True), *long]


def _links(body: Body, glyphs: Glyphs) -> Block:
    block = Block("Linked trace" if len(body.links) == 1 else f"Linked traces  {count(len(body.links))}")
    for link in body.links[:MOST_LINKS]:
        block.rows.append(Row("trace", f"{link.trace_id}  span {link.span_id}"))
        block.rows += [_row(key, value, 2) for key, value in islice(sorted(link.attributes.items()), MOST_INNER)]
    block.rows += _left_out(len(body.links) - MOST_LINKS, body.dropped[2], glyphs)
    return block


def _resource(span: Span, body: Body, glyphs: Glyphs) -> Block:
    block = Block("Sender")
    first = ("service.name", "service.instance.id")
    found = sorted(body.resource.items(), key=lambda item: (item[0] not in first, item[0] != first[0], item[0]))
    block.rows = [_row(key, value, 3) for key, value in found[:MOST_INNER]]
    block.rows += _left_out(len(found) - MOST_INNER, 0, glyphs)
    scope = " ".join(filter(None, (body.scope_name, body.scope_version)))
    if scope:
        block.rows.append(Row("scope", scope))
    if span.source:
        block.rows.append(Row("listener", span.source))
    return block


def _identity(lines: Outline, line: int, body: Body | None) -> Block:
    span = lines.nodes[line].span
    block = Block("Span")
    block.rows.append(Row("span", f"{span.span_id}  {span.kind.name.lower()}" if span.kind.value else span.span_id))
    above = lines.above(line)
    if span.parent_id:
        block.rows.append(Row("parent", span.parent_id + (f"  {above.span.name}" if above is not None else "")))
    block.rows.append(Row("trace", span.trace_id))
    if body is not None and body.trace_state:
        block.rows.append(Row("tracestate", body.trace_state))
    return block


def value_text(value: Value, limit: int = _VALUE) -> str:
    """An attribute's value as text, at most about `limit` characters of it are looked at; not yet printable."""
    if isinstance(value, str):
        return value if len(value) <= limit else f"{value[:limit]} ({count(len(value) - limit)} more characters)"
    out: list[str] = []
    _write(value, out, [limit], 0)
    return "".join(out)


def _write(value: Any, out: list[str], room: list[int], depth: int) -> None:
    """Append a value in JSON's manner until there is no room; the reader bounded its depth."""
    if room[0] <= 0:
        return
    if value is None:
        text = "null"
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, float):
        text = repr(value) if math.isfinite(value) else str(value)
    elif isinstance(value, bytes):
        text = f"{count(len(value))} bytes {value[:32].hex(' ')}" + (" and more" if len(value) > 32 else "")
    elif isinstance(value, (list, Mapping)) and depth < 16:
        pairs = list(islice(value.items(), 1_000)) if isinstance(value, Mapping) else None
        out.append("{" if pairs is not None else "[")
        for at, item in enumerate(pairs if pairs is not None else islice(value, 1_000)):
            if at:
                out.append(", ")
            if pairs is not None:
                out.append(f"{str(item[0])[:200]}: ")
                item = item[1]
            room[0] -= 4
            _write(item, out, room, depth + 1)
            if room[0] <= 0:
                out.append(" and more")
                return
        out.append("}" if pairs is not None else "]")
        return
    else:
        text = str(value)[: room[0]]
    room[0] -= len(text)
    out.append(text)


# --- the pane ----------------------------------------------------------------------------------------
_TWO_COLUMNS: Final = 104
"""Width from which the pane has two columns."""


class DetailPane(LineWidget):
    """A span in words, under a rule with its name. Scrolled by its owner: the cursor stays in the tree."""

    DEFAULT_CSS = """
    DetailPane { width: 1fr; height: 1fr; }
    """

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.description = Description("")
        self.top = 0
        self._columns: list[list[Sequence[Part]]] = []

    def show(self, description: Description) -> None:
        """Show another span, from its top; the same one stays where it is scrolled to."""
        if description == self.description:
            return
        if description.title != self.description.title:
            self.top = 0
        self.description = description
        self._set()
        self.refresh()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Where a mouse is allowed: half a page down."""
        event.stop()
        self.scroll_lines(1)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Half a page up."""
        event.stop()
        self.scroll_lines(-1)

    def scroll_lines(self, step: int) -> None:
        """Half a page down (1) or up (-1)."""
        top = max(0, min(self.top + step * max(1, self.body // 2), self.lines - self.body))
        if top != self.top:
            self.top = top
            self.refresh()

    @property
    def body(self) -> int:
        """Lines under the rule."""
        return max(0, self.size.height - 1)

    @property
    def lines(self) -> int:
        """Lines of the longest column."""
        return max(map(len, self._columns), default=0)

    def on_resize(self, event: events.Resize) -> None:
        """Called when the pane has another size."""
        self._set()

    def notify_style_update(self) -> None:
        """Called when the theme changed."""
        super().notify_style_update()
        self._columns = []

    def _set(self) -> None:
        """Break the description into lines."""
        width = self.size.width - 2
        if width < 8:
            self._columns = []
            return
        blocks = self.description
        if width >= _TWO_COLUMNS and blocks.more:
            left = (width - 3) // 2
            self._columns = [self._lay(blocks.important, left), self._lay(blocks.more, width - 3 - left)]
        else:
            self._columns = [self._lay([*blocks.important, *blocks.more], width)]
        self.top = max(0, min(self.top, self.lines - self.body))

    def _lay(self, blocks: Sequence[Block], width: int) -> list[Sequence[Part]]:
        """Blocks as lines of `width` cells at most, a free line between them."""
        palette = self.palette
        looks = (palette.base, palette.dim, palette.error, palette.warning)
        out: list[Sequence[Part]] = []
        for block in blocks:
            if out:
                out.append(())
            if block.heading:
                out.append([(fit(block.heading, width).rstrip(), palette.header)])
            labels = [printable(row.label, 80) for row in block.rows]
            longest = max((width_of(label) for label in labels), default=0)
            column = min(longest, max(8, width * 2 // 5))
            for row, label in zip(block.rows, labels, strict=True):
                out += _row_lines(row, label, column, width, palette.base, palette.dim, looks[row.look])
        return out

    def draw(self, y: int, width: int) -> Strip:
        """The rule with the span's name, or a line of the columns side by side."""
        palette = self.palette
        base = palette.base
        if not self._columns:
            self._set()
        if y == 0:
            return self._rule(width)
        at = self.top + y - 1
        parts: list[Part] = [(" ", base)]
        used = 1
        for i, column in enumerate(self._columns):
            line = column[at] if at < len(column) else ()
            parts += line
            if len(self._columns) > 1 and i == 0:
                used += sum(width_of(text) for text, _ in line)
                parts.append((" " * max(0, 1 + (width - 5) // 2 + 3 - used), base))
        return strip(parts, width, base)

    def _rule(self, width: int) -> Strip:
        palette, dash = self.palette, self.glyphs.rule
        hidden = self.lines - self.body - self.top
        where = f" {count(hidden)} more line{'s' * (hidden > 1)} " if hidden > 0 else ""
        room = width - 4 - width_of(where)
        name = printable(self.description.title)
        if width_of(name) > room:
            name = fit(name, max(0, room))
        parts: list[Part] = [(f"{dash} ", palette.rule), (name, palette.title)]
        rest = width - 3 - width_of(name) - width_of(where)
        parts += [(" " + dash * max(0, rest - 1), palette.rule), (where, palette.dim), (dash, palette.rule)]
        return strip(parts, width, palette.base)


def _row_lines(
    row: Row, label: str, column: int, width: int, base: Style, dim: Style, look: Style
) -> list[Sequence[Part]]:
    """A row as lines: the label once, its value beside it."""
    room = max(2, width - column - 2) if column else width
    texts = _whole_words(row.value, room, row.lines)
    if not texts:
        texts, more = wrap(row.value, room, row.lines)
        if more:  # one cell too many, so that `fit` puts its mark there
            texts[-1] = fit(texts[-1] + " " * room + "x", room)
    if not column:
        return [[(text, look)] for text in texts]
    out: list[Sequence[Part]] = []
    for at, text in enumerate(texts):
        lead = fit(label, column, row.right) if at == 0 else " " * column
        out.append([(lead, dim), ("  ", base), (text, look)])
    return out


def _whole_words(text: str, width: int, most: int) -> list[str]:
    """A short text as lines broken between words; [] where that does not work."""
    if len(text) > 400 or "\n" in text:
        return []
    lines: list[str] = []
    for word in printable(text).split(" "):
        cells = width_of(word)
        if lines and width_of(lines[-1]) + 1 + cells <= width:
            lines[-1] += f" {word}"
        elif cells <= width:
            lines.append(word)
        else:
            return []
    return lines if len(lines) <= most else []
