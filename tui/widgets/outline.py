"""The lines of a trace in display order: what folds into what, which colour a bar has, what a line says.

Made once per load of a trace, in a worker thread, as columns; a line's words are made when it is drawn. No Textual
here.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from receiver.traces.model import Body, Component, Kind, Node, Oddity, Span, Trace, Value
from receiver.traces.semantics import ALIASES
from receiver.traces.tree import is_webhook_call
from tui.terminal_text import duration

FILTERS: Final = frozenset(
    {"audit", "impersonation", "constrainedimpersonation", "priorityandfairness", "authorization"}
)
"""Spans of the API server's filter chain, each the parent of the next (kubernetes 1.34 and later)."""

COMPONENTS: Final = tuple(Component)
_INDEX: Final = {component: i for i, component in enumerate(COMPONENTS)}
_WEBHOOK: Final = _INDEX[Component.WEBHOOK]
_ETCD: Final = _INDEX[Component.ETCD]
_RUNTIME: Final = _INDEX[Component.RUNTIME]
_OTHER: Final = _INDEX[Component.OTHER]

MIXED: Final = 1
"""Time of several components passes below this span: its own bar is a thin line."""
VALIDATING: Final = 2
"""A validating webhook's time: its bar has its own texture."""
FILTER: Final = 4
"""A line of the opened filter chain: its time is its own (self) time."""
CHAIN: Final = 8
"""The line that stands for the whole filter chain."""

_NOTABLE: Final = 0.02
"""Part of its parent's duration by which a span must outlive or precede it to be worth words on its line; a few
microseconds are ordinary, and the detail says them."""
_MOST_CHILDREN: Final = 2000
_MOST_TICKS: Final = 2000


@dataclass(slots=True)
class Outline:
    """A trace as lines, parents before children. All lists have one entry a line."""

    trace: Trace
    nodes: list[Node]  # for the line of a filter chain its outermost span
    depth: array[int]
    size: array[int]  # lines of the subtree, the line itself included
    parent: array[int]  # line of the parent, -1 for none
    ink: bytearray  # index into COMPONENTS: whose time the bar is
    flags: bytearray
    start: array[int]  # of the bar, ns since the epoch, 0 for none
    end: array[int]
    shown_ns: array[int]  # the duration column
    chains: dict[int, tuple[Node, ...]]  # the spans of a filter chain, by its line
    line_of: dict[str, int]  # by span id; the first of several with one id

    def __len__(self) -> int:
        return len(self.nodes)

    def id(self, line: int) -> str:
        """What the line is, whatever its place: cursor and folds stay with it."""
        span_id = self.nodes[line].span.span_id
        return f"chain {span_id}" if self.flags[line] & CHAIN else span_id

    def find(self, line_id: str) -> int | None:
        """The line of an id, None when it is gone. A chain is found by any of its spans."""
        if line_id.startswith("chain "):
            found = self.line_of.get(line_id[6:])
            if found is None:
                return None
            return self.parent[found] if self.flags[found] & FILTER else found
        return self.line_of.get(line_id)

    def visible(self, folded: Collection[int]) -> array[int]:
        """Lines that are shown when the subtrees of `folded` are not."""
        shown = array("i")
        at = 0
        for line in sorted(folded):
            if line < at:
                continue  # inside another one
            shown.extend(range(at, line + 1))
            at = line + self.size[line]
        shown.extend(range(at, len(self.nodes)))
        return shown

    def children(self, line: int) -> Iterable[int]:
        """Lines one below, in order."""
        at, end = line + 1, line + self.size[line]
        while at < end:
            yield at
            at += self.size[at]

    def own(self, line: int) -> list[tuple[int, int]]:
        """Parts of a span, (start, end) in ns, in which none of its children ran; [] when it has too many to say."""
        reached, end = self.start[line], self.end[line]
        intervals: list[tuple[int, int]] = []
        for seen, child in enumerate(self.children(line)):
            if seen >= _MOST_CHILDREN:
                return []
            low, high = self.start[child], self.end[child]
            if not low or high <= reached:
                continue
            if low >= end:
                break
            if low > reached:
                intervals.append((reached, low))
            reached = high
            if reached >= end:
                break
        if reached < end:
            intervals.append((reached, end))
        return intervals

    def gap_ns(self, line: int) -> int | None:
        """Time of a call that its other side does not account for: network, queueing, connection set-up.

        Only for a client span with the other side's span as its single SERVER child. Where the server side is the
        shorter one the difference of both durations, which needs no agreement of clocks; else (it outlived the call)
        what of the call it does not cover.
        """
        node = self.nodes[line]
        if node.span.kind is not Kind.CLIENT or self.flags[line] & CHAIN or len(node.children) > 8:
            return None
        servers = [child.span for child in node.children if child.span.kind is Kind.SERVER and child.span.start]
        if len(servers) != 1 or not node.span.start:
            return None
        call, server = node.span, servers[0]
        if server.duration <= call.duration:
            return call.duration - server.duration
        overlap = min(call.end, server.end) - max(call.start, server.start)
        return call.duration - overlap if overlap > 0 else None

    def tail_from(self, line: int) -> int | None:
        """When the span's parent ended, if the span outlives it."""
        node, above = self.nodes[line], self.parent[line]
        if above < 0 or Oddity.OUTLIVES not in node.oddities or self.flags[line] & (FILTER | CHAIN):
            return None
        return self.nodes[above].span.end

    def above(self, line: int) -> Node | None:
        """The parent of a line's span as it was sent: filters fold on the screen only."""
        span_id = self.nodes[line].span.parent_id
        found = self.line_of.get(span_id) if span_id else None
        if found is None or Oddity.SELF_PARENT in self.nodes[line].oddities:
            return None
        return self.nodes[found]


def outline(trace: Trace) -> Outline:
    """The lines of a trace. Linear; nothing recursive, because depth is a sender's choice."""
    nodes: list[Node] = []
    depth, parent, ink = array("i"), array("i"), bytearray()
    flags = bytearray()
    start, end, shown = array("q"), array("q"), array("q")
    chains: dict[int, tuple[Node, ...]] = {}
    line_of: dict[str, int] = {}

    def add(node: Node, level: int, above: int, colour: int, flag: int, begin: int, finish: int, ns: int) -> int:
        line = len(nodes)
        nodes.append(node)
        depth.append(level)
        parent.append(above)
        ink.append(colour)
        flags.append(flag)
        start.append(begin)
        end.append(finish)
        shown.append(ns)
        return line

    stack: list[tuple[Node, int, int, tuple[Node, ...]]] = []

    def push(children: Sequence[Node], level: int, above: int) -> None:
        for child, chain in reversed(_unfolded(children)):
            stack.append((child, level, above, chain))

    push(trace.roots, 0, -1)
    while stack:
        node, level, above, chain = stack.pop()
        span = node.span
        colour, flag = _ink(node, nodes[above] if above >= 0 else None, ink[above] if above >= 0 else _OTHER)
        if above >= 0 and colour == _WEBHOOK:
            flag |= flags[above] & VALIDATING
        if not chain:
            line = add(node, level, above, colour, flag, span.start, max(span.start, span.end), span.duration)
            line_of.setdefault(span.span_id, line)
            push(node.children, level + 1, line)
            continue
        own = [filter_time(trace, member) for member in chain]
        total = sum(own)
        line = add(node, level, above, colour, flag | CHAIN, span.start, _chain_end(chain), total)
        chains[line] = chain
        for at, member in enumerate(chain):
            inner = member.span
            stop = chain[at + 1].span.start if at + 1 < len(chain) else _chain_end(chain)
            stop = min(max(stop, inner.start), max(inner.end, inner.start))
            below = add(member, level + 1, line, colour, FILTER, inner.start, stop, own[at])
            line_of.setdefault(inner.span_id, below)

    size = array("i", [1]) * len(nodes)
    mask = bytearray(1 << colour for colour in ink)
    for line in range(len(nodes) - 1, -1, -1):
        if mask[line] & ~(1 << ink[line]) and not flags[line] & CHAIN:
            flags[line] |= MIXED
        above = parent[line]
        if above >= 0:
            size[above] += size[line]
            mask[above] |= mask[line]
    return Outline(trace, nodes, depth, size, parent, ink, flags, start, end, shown, chains, line_of)


def _is_filter(node: Node) -> bool:
    return node.span.name in FILTERS and node.span.component is Component.APISERVER


def _unfolded(children: Sequence[Node]) -> list[tuple[Node, tuple[Node, ...]]]:
    """The lines that these spans become: a chain of two or more filters is one line, and what is below the filters
    (the work of the request) stands beside it."""
    if not any(_is_filter(child) for child in children):
        return [(child, ()) for child in children]
    lines: list[tuple[Node, tuple[Node, ...]]] = []
    hoisted = False
    waiting = list(reversed(children))
    while waiting:
        child = waiting.pop()
        chain = _chain(child)
        if len(chain) < 2:
            lines.append((child, ()))
            continue
        lines.append((child, chain))
        members = set(map(id, chain))
        for member in reversed(chain):
            waiting.extend(below for below in reversed(member.children) if id(below) not in members)
        hoisted = True
    if hoisted:
        lines.sort(key=lambda pair: pair[0].span.start)  # stable: a chain stays before the work that it lets through
    return lines


def _chain(node: Node) -> tuple[Node, ...]:
    """This filter and those below it, each the child of the one before; () for anything else."""
    chain: list[Node] = []
    following: Node | None = node if _is_filter(node) else None
    while following is not None and len(chain) < 16:
        chain.append(following)
        following = next((child for child in following.children if _is_filter(child)), None)
    return tuple(chain)


def _chain_end(chain: Sequence[Node]) -> int:
    """When the filters let the request through: the start of what is below the innermost one."""
    first, last = chain[0].span, chain[-1]
    below = [child.span.start for member in chain for child in member.children if not _is_filter(child)]
    through = min((at for at in below if at >= last.span.start), default=max(first.start, first.end))
    return max(first.start, min(through, max(first.start, first.end)))


def _ink(node: Node, above: Node | None, above_ink: int) -> tuple[int, int]:
    """Whose time a span is, and whether of a validating webhook: a call has the colour of who is called."""
    span = node.span
    name, kind, component = span.name, span.kind, span.component
    if component is Component.APISERVER:
        if is_webhook_call(name):
            return _WEBHOOK, VALIDATING if "validating" in name else 0
        if kind is Kind.CLIENT:
            if above is not None and is_webhook_call(above.span.name):
                return _WEBHOOK, 0
            if name.lstrip("/").startswith("etcdserverpb."):
                return _ETCD, 0
        elif name.endswith(" etcd3"):
            return _ETCD, 0
    elif component is Component.KUBELET and kind is Kind.CLIENT and name.lstrip("/").startswith("runtime."):
        return _RUNTIME, 0
    elif component is Component.OTHER and above_ink == _WEBHOOK:
        return _WEBHOOK, 0
    return _INDEX[component], 0


# --- what a line says beside its name ----------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Note:
    """What a line takes from its span's body: small, so that thousands can be kept."""

    texts: tuple[str, ...] = ()  # the same thing, longest first; not yet printable
    failed: bool = False  # the text is an error message
    ticks: npt.NDArray[np.int64] | None = None  # times of events, ascending
    links: int = 0

    @property
    def shows(self) -> bool:
        """Whether the line looks different with it."""
        return bool(self.texts) or self.ticks is not None


NO_NOTE: Final = Note()


def note(span: Span, body: Body) -> Note:
    """What a span's body adds to its line. Bounded: at most `_MOST_TICKS` events are marked."""
    ticks = None
    if body.events:
        stride = -(-len(body.events) // _MOST_TICKS)
        times = sorted(min(max(event.time, 0), (1 << 63) - 1) for event in body.events[::stride])
        ticks = np.array(times, np.int64)
    if span.status == 2 and body.status_message:
        message = body.status_message[:400]
        shorter = message.removeprefix("context ")
        return Note((message, shorter) if shorter != message else (message,), True, ticks, len(body.links))
    return Note(_words(span, body), False, ticks, len(body.links))


def _words(span: Span, body: Body) -> tuple[str, ...]:
    name, attributes = span.name, body.attributes
    if is_webhook_call(name):
        for key in (*ALIASES["webhook"], *ALIASES["definition"]):
            if text := _text(attributes.get(key)):
                return (text, text.partition(".")[0]) if "." in text else (text,)
    elif span.kind is Kind.CLIENT and (url := _first(attributes, "url")):
        rest = url.partition("://")[2] or url
        rest = rest.partition("?")[0]
        return (rest, rest.partition("/")[0])
    elif name.endswith(" etcd3") or name.startswith("cacher."):
        if key := _text(attributes.get("key")):
            return (key, key.rpartition("/")[2])
    elif name == "SerializeObject":
        if media := _text(attributes.get("mediaType")):
            return (media, media.partition(";")[0])
    elif name.startswith(("TransformToStorage", "TransformFromStorage")):
        return tuple(filter(None, (_text(attributes.get("transformer.provider.name")),)))
    return ()


def _first(attributes: Mapping[str, Value], concept: str) -> str:
    for key in ALIASES[concept]:
        if text := _text(attributes.get(key)):
            return text
    return ""


def _text(value: object) -> str:
    return value[:400] if isinstance(value, str) else ""


def oddity_words(lines: Outline, line: int) -> str:
    """What is unusual about a line's place, in words; "" when nothing that deserves room on the line."""
    node = lines.nodes[line]
    odd = node.oddities
    if not odd:
        return ""
    span = node.span
    for oddity in (
        Oddity.ZERO_TIME,
        Oddity.FAR_TIME,
        Oddity.BACKWARDS,
        Oddity.DUPLICATE,
        Oddity.CYCLE,
        Oddity.SELF_PARENT,
    ):
        if oddity in odd:
            return str(oddity.value)
    if Oddity.ORPHAN in odd:
        return oddity_text(Oddity.ORPHAN, lines.trace)
    above = lines.above(line)
    if above is None:
        return ""
    parent = above.span
    notable = max(1_000_000, int(parent.duration * _NOTABLE))
    if Oddity.OUTLIVES in odd and span.end - parent.end >= notable:
        return "outlives its call" if parent.kind is Kind.CLIENT else Oddity.OUTLIVES.value
    if Oddity.BEFORE_PARENT in odd and parent.start - span.start >= notable:
        return Oddity.BEFORE_PARENT.value
    return ""


def oddity_text(oddity: Oddity, trace: Trace) -> str:
    """An oddity in words; a parent that is missing may still come while the trace arrives."""
    if oddity is Oddity.ORPHAN:
        return "parent not seen yet" if trace.settled.name == "ARRIVING" else "parent not seen"
    return str(oddity.value)


def short_name(name: str, width: int, ellipsis: str) -> str:
    """A span's name for `width` cells. Of `METHOD /long/path` and `package.Service/Method` the end is what tells."""
    if len(name) <= width:
        return name
    method, space, path = name.partition(" /")
    if space and len(method) <= 10:
        room = width - len(method) - 2
        tail = ""
        for part in reversed(path.split("/")):
            if len(part) + 1 + len(tail) > room:
                break
            tail = f"/{part}{tail}"
        return f"{method} {ellipsis}{tail}" if tail else name
    service, slash, method = name.partition("/")
    if slash and " " not in name and "." in service:
        brief = f"{service.rpartition('.')[2]}/{method}"
        return brief if len(brief) <= width else f"{ellipsis}/{method}"
    return name


def fold_to(lines: Outline, level: int) -> set[int]:
    """Lines to fold so that nothing deeper than `level` shows; filter chains stay folded."""
    depth, size = lines.depth, lines.size
    return {i for i in range(len(depth)) if size[i] > 1 and (depth[i] >= level or lines.flags[i] & CHAIN)}


def filter_time(trace: Trace, node: Node) -> int:
    """Nanoseconds that a filter took itself. What `authorization` has left after the handler's first span, and all of
    it where the handler has none (a watch until 1.35 has not), is the handler's, but for a refused request."""
    if node.span.name != "authorization" or (trace.request is not None and trace.request.code == 403):
        return node.self_ns
    first = next((child.span.start for child in node.children if child.span.start), None)
    return 0 if first is None else max(0, min(node.self_ns, first - node.span.start))


def nearest(shown: Sequence[int], line: int) -> int:
    """Index in `shown` (ascending) of a line, or of the last one before it: the ancestor that hides it comes close."""
    return max(0, bisect_right(shown, line) - 1)


def following_failure(lines: Outline, line: int, step: int) -> int | None:
    """The next (step 1) or previous (-1) line of a failed span, around the ends; None when none failed."""
    failed = [i for i, node in enumerate(lines.nodes) if node.span.status == 2 and not lines.flags[i] & CHAIN]
    if not failed:
        return None
    if step > 0:
        return failed[bisect_right(failed, line) % len(failed)]
    return failed[bisect_left(failed, line) - 1]


def gap_text(ns: int, mark: str) -> str:
    """`⇄ 5.82 ms`."""
    return f"{mark} {duration(ns)}"
