"""The Trace screen: one trace as a tree with its bars, and what is known about the span under the cursor.

The trace may grow while it is open: its version is looked at on every tick, and what is new is read and built in a
worker thread. Bodies are read for the lines on the screen only, and for the cursor's span.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widget import Widget

from receiver.store.database import StoreError
from receiver.traces import hops, skew, verdict
from receiver.traces.explain import FILTERS, Explanation, explain
from receiver.traces.links import Relation
from receiver.traces.model import Body, Component, Node, Request, Settled, Span, Trace
from receiver.traces.phases import phases_of
from receiver.traces.tree import is_webhook_call
from tui.feed import Snapshot
from tui.keys import bindings
from tui.latest import Latest
from tui.screens.choice import MOST_OPTIONS, ChoiceScreen, Option
from tui.screens.frame import FrameScreen
from tui.screens.pivot import PivotChoice
from tui.terminal_text import clock, count, counted, duration, printable, width_of
from tui.widgets.detail import Description, DetailPane, describe, value_text
from tui.widgets.explain import ExplainPanel
from tui.widgets.keyline import KeyLine
from tui.widgets.line import Ground, OneLine, Part
from tui.widgets.notes import Note, note
from tui.widgets.outline import CHAIN, Outline, outline
from tui.widgets.phasestrip import Group, PhaseStrip, groups_of
from tui.widgets.prompt import Prompt
from tui.widgets.status import Banner
from tui.widgets.verdict import VerdictLines
from tui.widgets.waterfall import Waterfall
from tui.wording import client_of, mention

SMALL: Final = 256
"""Spans up to which a trace is read and built at once, for its first frame; more of them take a worker."""
_REST: Final = 4.0
"""A growing trace is read again after this many times what reading it took, so that it never takes more than a fifth
of a core."""
_SETTLES: Final = 1.0
"""Seconds between two looks at whether an arriving trace has settled."""
_BESIDE: Final = 120
"""Columns from which the detail pane is beside the tree, if below it there is no room; below it bars are longer and
names whole."""
_WIDE: Final = 200
"""Columns from which it is beside the tree anyway."""
_ROOMY: Final = 30
"""Lines from which the detail pane has room below, and is there from the start."""
_TINY: Final = 20
"""Lines below which the verdict gets one line only, and the phases none."""
_LATE: Final = 0.12
"""Seconds after which the pane shows the span without its body, while that is still being read."""
_MOST_SERVICES: Final = 6


@dataclass(frozen=True, slots=True)
class Loaded:
    """A trace as read: no `lines` when it is not held."""

    lines: Outline | None
    version: int
    took: float
    linked: int = 0
    """How many links lead from it or to it."""
    trace: Trace | None = None
    """As it was sent, whether `aligned` or not."""
    aligned: bool = False
    groups: Sequence[Group] = ()
    """Of its phases."""
    before: int = 0
    """Nanoseconds of authentication before the request, where that is a trace of its own."""


class TraceScreen(FrameScreen):
    """One trace."""

    PLACE = "trace"
    DEFAULT_CSS = """
    TraceScreen #trace { layout: vertical; height: 1fr; width: 100%; }
    TraceScreen #trace.-beside { layout: horizontal; }
    TraceScreen DetailPane { display: none; height: 40%; min-height: 6; }
    TraceScreen #trace.-low DetailPane { height: 50%; }
    TraceScreen #trace.-beside DetailPane { width: 2fr; height: 100%; }
    TraceScreen #trace.-beside Waterfall { width: 3fr; }
    TraceScreen #trace.-detail DetailPane { display: block; }
    TraceScreen #hint { display: none; }
    TraceScreen.-tiny PhaseStrip { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = bindings("trace")

    def __init__(self, trace_id: str, *, span_id: str = "", detail: bool = False) -> None:
        """
        Args:
            trace_id: 32 hex digits; the trace need not be held.
            span_id: where the cursor is put; "" for the headline.
            detail: with the detail pane, whatever the size of the terminal.
        """
        super().__init__()
        self.trace_id = trace_id
        self.lines: Outline | None = None
        self.frozen = False
        self.aligned = False
        self._trace: Trace | None = None  # as it was sent
        self._span_id = span_id
        self._detail = detail
        self._detail_chosen = detail
        self._version = -2  # of what is shown; -1 is a trace that is not held
        self._look_again = 0.0
        self._gone = False
        self._linked = 0
        self._described = ""
        self._created = ""
        self._slow_detail = 0
        self._loads: Latest[Loaded] = Latest(self, "load", self._loaded, self._could_not)
        self._alignings: Latest[Loaded] = Latest(self, "align", self._shown_anew, self._not_aligned)
        self._verdicts: Latest[verdict.Verdict] = Latest(self, "verdict", self._judged, self._could_not)
        self._notes: Latest[dict[str, Note]] = Latest(self, "notes", self._noted, self._could_not)
        self._details: Latest[tuple[str, Description]] = Latest(self, "detail", self._told, self._could_not)
        self._explaining = False
        self._explained: Latest[tuple[str, str, Explanation]] = Latest(
            self, "explain", self._explained_with_scope, self._could_not
        )
        self._pivots = PivotChoice(self)
        self._matches = Latest[frozenset[str]](self, "matches", self._matched, self._not_matched)
        self._relations: Latest[list[Relation]] = Latest(self, "links", self._choose_relation, self._could_not)

    # -- the widgets ----------------------------------------------------------------------------------
    def compose(self) -> ComposeResult:
        """Textual's."""
        yield OneLine(id="head")
        yield Banner()
        yield VerdictLines(id="verdict")
        yield PhaseStrip()
        # With its classes from the start: each one set later costs a pass of CSS before the first frame.
        with Ground(id="trace", classes=" ".join(self._shares())):
            yield from self.body()
        yield ExplainPanel()
        yield OneLine(id="hint")
        yield Prompt()
        yield KeyLine()

    def body(self) -> Iterable[Widget]:
        """The tree and the detail."""
        yield Waterfall()
        yield DetailPane()

    @property
    def waterfall(self) -> Waterfall:
        """The tree with its bars."""
        return self.query_one(Waterfall)

    @property
    def pane(self) -> DetailPane:
        """The detail of the cursor's span."""
        return self.query_one(DetailPane)

    def on_mount(self) -> None:
        """Textual's event."""
        super().on_mount()
        self._arrange()
        self.waterfall.focus()
        self._hold()
        if 0 <= self.feed.version(self.trace_id) <= SMALL:
            try:
                self._loaded(self._read())
            except StoreError as error:
                self._could_not(str(error))
        self._head()

    def on_unmount(self) -> None:
        """Textual's event."""
        self._hold(gone=True)

    def _hold(self, gone: bool = False) -> None:
        """What is open on a screen is not evicted."""
        self.trace_app.hold(self.trace_id if gone else "")

    def on_resize(self, event: events.Resize) -> None:
        """Textual's event."""
        self._arrange()
        self._head()

    def _shares(self) -> set[str]:
        """How tree and detail share the screen."""
        width, height = self.app.size
        if not self._detail_chosen:
            self._detail = height >= _ROOMY
        beside = width >= _WIDE or (width >= _BESIDE and height < _ROOMY)
        wanted = {"-beside": beside, "-low": height < _ROOMY, "-detail": self._detail}
        return {name for name, on in wanted.items() if on}

    def _arrange(self) -> None:
        ground, wanted = self.query_one("#trace"), self._shares()
        if ground.classes != wanted:
            ground.set_classes(wanted)
        self.set_class(self.app.size.height < _TINY, "-tiny")

    def put_cursor(self, span_id: str) -> None:
        """The cursor on this span, now or as soon as it is there."""
        found = self.lines.line_of.get(span_id) if self.lines is not None else None
        if found is None:
            self._span_id = span_id
        else:
            self.waterfall.go_to(found)

    # -- reading the trace ----------------------------------------------------------------------------
    def tick(self) -> None:
        """Called by the app ten times a second while this screen is on top."""
        if not self.is_mounted or not self.query(KeyLine):
            return
        snapshot = self.feed.snapshot
        self.query_one(Banner).say(snapshot.problem)
        self.update(snapshot)

    def update(self, snapshot: Snapshot) -> None:
        """Read the trace again when it grew, or may have settled."""
        now = time.monotonic()
        if self.frozen or self._loads.busy or now < self._look_again:
            return
        version = self.feed.version(self.trace_id)
        arriving = self.lines is not None and self.lines.trace.settled is Settled.ARRIVING
        if version != self._version or arriving:
            self._look_again = now + _SETTLES
            self._loads.ask(self._read)
            if self.lines is None:
                self._head()

    def _read(self) -> Loaded:
        """In a worker thread, but for a small trace."""
        began = time.monotonic()
        aligned = self.aligned
        version = self.feed.version(self.trace_id)
        trace = self.feed.trace(self.trace_id)
        loaded = Loaded(None, version, 0.0, aligned=aligned) if trace is None else self._build(trace, version, aligned)
        return replace(loaded, took=time.monotonic() - began, linked=self.feed.linked(self.trace_id))

    def _build(self, trace: Trace, version: int, aligned: bool) -> Loaded:
        """Lines and phases of a trace, which stays as it is."""
        webhooks = hops.webhooks_of(self.feed.snapshot.index, self.trace_id)
        alignment = skew.align(trace, skew.hosts_of(trace, self.feed.bodies)) if aligned else None
        lines = outline(trace if alignment is None else alignment.trace, webhooks, alignment)
        phases = phases_of(lines.trace, lines.path, {span_id: name for span_id, (name, _) in webhooks.items()})
        headline = lines.trace.headline
        groups: Sequence[Group] = ()
        if phases is not None and headline is not None:
            own = Component.APISERVER if headline.span.request else headline.span.component
            groups = groups_of(phases, own.value, own)
        waited = self.feed.waited(self.trace_id)
        return Loaded(lines, version, 0.0, trace=trace, aligned=aligned, groups=groups, before=waited)

    def _loaded(self, loaded: Loaded) -> None:
        grew = loaded.version != self._version
        self._version = loaded.version
        pause = max(0.1, _REST * loaded.took)
        self._look_again = time.monotonic() + (pause if grew else max(_SETTLES, pause))
        if self.frozen:
            return
        if loaded.lines is None:
            self._gone = True  # what was on the screen stays there
        elif loaded.aligned is not self.aligned:
            self._version = -2  # asked for otherwise meanwhile
            self._look_again = 0.0
        else:
            self._gone = False
            self._linked = loaded.linked
            shown = self.lines
            self.lines, self._trace = loaded.lines, loaded.trace
            if grew or shown is None or shown.trace.settled is not loaded.lines.trace.settled:
                self._show(loaded)
        self._head()

    def _show(self, loaded: Loaded) -> None:
        lines, waited = loaded.lines, loaded.before
        assert lines is not None
        self.waterfall.show(lines, self._span_id)
        self.query_one(PhaseStrip).show(loaded.groups, waited)
        self._verdicts.ask(lambda: verdict.judge(lines.trace, self.feed.bodies, authentication=waited))
        self._span_id = ""
        self._described = ""
        if self.trace_app.requests.filter_text:
            self._matches.ask(lambda: self.feed.matching(self.trace_id))

    def _shown_anew(self, loaded: Loaded) -> None:
        """The same trace, aligned or as it was sent."""
        if loaded.lines is None or loaded.aligned is not self.aligned:
            return
        self.lines, self._trace = loaded.lines, loaded.trace
        self._show(loaded)
        self._head()
        self._fetch_detail()
        alignment = loaded.lines.alignment
        if alignment is not None:
            self.trace_app.say(_alignment_words(alignment))

    def _not_aligned(self, sentence: str) -> None:
        self.aligned = self.lines is not None and self.lines.alignment is not None
        self._could_not(sentence)

    def _judged(self, found: verdict.Verdict) -> None:
        self.query_one(VerdictLines).show(found.sentences)

    def _could_not(self, sentence: str) -> None:
        self.trace_app.say(sentence, wrong=True)

    # -- the header -----------------------------------------------------------------------------------
    def _head(self) -> None:
        left, right = self._head_parts(self.app.size.width)
        self.query_one("#head", OneLine).show(left, right)

    def _head_parts(self, width: int) -> tuple[list[Part], list[Part]]:
        """What the trace is, and how complete: the facts that fit, most telling first."""
        p = self.palette
        right = self._state()
        if self.lines is None:
            spans = self.feed.version(self.trace_id)
            words = (
                f"reading {counted(spans, 'span')}" if spans >= 0 else "is not in the store: evicted, or not received"
            )
            return [(f" trace {printable(self.trace_id, 32)}  ", p.title), (words, p.dim)], []
        trace = self.lines.trace
        request, headline = trace.request, trace.headline
        title = _title(request, headline, self._created)
        failed = request is not None and request.code is not None and request.code >= 400
        facts: list[Part] = []
        if request is not None and request.code is not None:
            mark = f"{self.glyphs.failed} " if request.code >= 500 else f"{self.glyphs.suspicious} " if failed else ""
            facts.append((f"{mark}{request.code}", p.error if request.code >= 500 else p.warning if failed else p.base))
        if headline is not None:
            facts.append((duration(headline.span.duration), p.title))
        if trace.errors:  # before what only says how large it is: a narrow line drops from the end
            facts.append((f"{self.glyphs.failed} {count(trace.errors)} failed", p.error))
        if request is not None and request.user_agent:
            facts.append((printable(client_of(request.user_agent), 32), p.base))
        if headline is not None:
            facts.append((clock(headline.span.start, self.trace_app.utc), p.dim))
        facts.append((f"{count(trace.spans)} span{'s' * (trace.spans != 1)}", p.dim))
        facts.append((f" {self.glyphs.separator} ".join(self._services(trace)), p.dim))
        room = width - sum(width_of(text) for text, _ in right) - 4
        left: list[Part] = [(" ", p.base), (title, p.title)]
        # A long name gives way before the facts that say how it went.
        least = sum(3 + width_of(text) for text, _ in facts[:2])
        if width_of(title) > room - least:
            left[1] = (printable(title, max(8, room - least - 2)), p.title)  # and a cell for the ellipsis
        used = 1 + width_of(left[1][0])
        for fact in facts:
            cells = 3 + width_of(fact[0])
            if used + cells <= room and fact[0]:
                left += [("   ", p.base), fact]
                used += cells
        return left, right

    def _services(self, trace: Trace) -> list[str]:
        assert self.lines is not None
        names: dict[str, None] = {}
        for node in self.lines.nodes[:2_000]:
            names.setdefault(node.span.service or node.span.component.value)
        shown = [printable(name, 32) for name in names]
        more = len(shown) - _MOST_SERVICES
        return [*shown[:_MOST_SERVICES], *([f"{count(more)} more"] if more > 0 else [])]

    def _state(self) -> list[Part]:
        """How complete the trace is."""
        p = self.palette
        if self.lines is None:
            return []
        trace = self.lines.trace
        parts: list[Part] = []
        if self.lines.alignment is not None:
            parts += [("aligned", p.warning), ("   ", p.base)]
        if self.frozen:
            parts.append(("frozen", p.warning))
        elif self._gone:
            parts.append(("evicted", p.warning))
        elif trace.settled is Settled.SETTLED:
            parts.append(("settled", p.dim))
        elif trace.settled is Settled.ARRIVING:
            parts.append(("still arriving", p.ok))
        if trace.missing and not self._gone:
            mark = self.glyphs.unseen
            words = f"{mark} {count(trace.missing)} parent{'s' * (trace.missing != 1)} missing"
            parts += [("   ", p.base)] * bool(parts) + [(words, p.warning)]
        if self._linked:
            words = f"{count(self._linked)} link{'s' * (self._linked != 1)} ({self.trace_app.key_of('trace.link')})   "
            parts.insert(0, (words, p.dim))
        return [*parts, (" ", p.base)]

    # -- notes and detail -----------------------------------------------------------------------------
    def on_waterfall_scrolled(self, event: Waterfall.Scrolled) -> None:
        """Other lines are on the screen."""
        event.stop()
        self._fetch_notes()

    def on_waterfall_moved(self, event: Waterfall.Moved) -> None:
        """The cursor is on another span."""
        event.stop()
        self._fetch_detail()
        self._explain()

    def _fetch_notes(self) -> None:
        nodes = self.waterfall.without_note()
        if nodes:
            self._notes.ask(lambda: self._read_notes(nodes))

    def _read_notes(self, nodes: Sequence[Node]) -> dict[str, Note]:
        """In a worker thread."""
        spans = [node.span for node in nodes]
        bodies = self.feed.bodies.bodies(spans)
        return {
            span.span_id: note(span, body) if body is not None else Note()
            for span, body in zip(spans, bodies, strict=True)
        }

    def _noted(self, notes: dict[str, Note]) -> None:
        self.waterfall.add_notes(notes)
        self._name_what_was_created(notes)
        self._fetch_notes()

    def _name_what_was_created(self, notes: Mapping[str, Note]) -> None:
        """The URL of a create does not say the name; the key that was written to etcd does (`/pods/NAMESPACE/NAME`)."""
        request = self.lines.trace.request if self.lines is not None else None
        if self._created or request is None or request.verb != "create" or request.name or request.subresource:
            return
        assert self.lines is not None
        for span_id, found in notes.items():
            line = self.lines.line_of.get(span_id)
            if line is None or not found.texts or self.lines.nodes[line].span.name != "Create etcd3":
                continue
            parts = found.texts[0].strip("/").split("/")
            if request.resource in parts and (not request.namespace or request.namespace in parts[:-1]):
                self._created = parts[-1]
                self._head()
                return

    def _fetch_detail(self) -> None:
        lines, waterfall = self.lines, self.waterfall
        if lines is None or not self._detail or not len(lines):
            return
        line, line_id = waterfall.line, waterfall.line_id
        glyphs, utc = self.glyphs, self.trace_app.utc
        self._slow_detail += 1
        mine = self._slow_detail

        def job() -> tuple[str, Description]:
            body = self.feed.bodies.body(lines.nodes[line].span)
            return line_id, describe(lines, line, body, glyphs, utc=utc)

        def late() -> None:
            # Another span's attributes under this one's line would be a lie.
            if mine == self._slow_detail and self._described != line_id and self.waterfall.line_id == line_id:
                self.pane.show(describe(lines, line, None, glyphs, reading=True, utc=utc))

        self._details.ask(job)
        self.set_timer(_LATE, late)

    def _told(self, told: tuple[str, Description]) -> None:
        line_id, description = told
        if line_id == self.waterfall.line_id:
            self._described = line_id
            self.pane.show(description)

    # -- actions: the tree ----------------------------------------------------------------------------
    def action_fold(self) -> None:
        """Fold or unfold."""
        self.waterfall.fold()

    def action_close(self) -> None:
        """Fold, or to the parent."""
        self.waterfall.close()

    def action_open(self) -> None:
        """Unfold, or to the first child."""
        self.waterfall.open()

    def action_fold_level(self, step: int) -> None:
        """A level more (1) or less (-1)."""
        self.waterfall.fold_level(step)

    def action_fold_all(self, fold: bool) -> None:
        """Fold or unfold all."""
        self.waterfall.fold_all(fold)

    def action_zoom(self, step: int) -> None:
        """Zoom in (1) or out (-1)."""
        self.waterfall.zoom(step)

    def action_zoom_span(self) -> None:
        """The cursor's span from edge to edge."""
        self.waterfall.zoom_span()

    def action_zoom_reset(self) -> None:
        """The whole trace."""
        self.waterfall.zoom_reset()

    def action_pan(self, step: int) -> None:
        """Later (1) or earlier (-1)."""
        self.waterfall.pan(step)

    def action_failure(self, step: int) -> None:
        """The next or previous failed span."""
        if not self.waterfall.next_failure(step):
            self.trace_app.say("No span of this trace failed.")

    def _matched(self, spans: frozenset[str]) -> None:
        self.waterfall.mark_matches(spans)

    def _not_matched(self, problem: str) -> None:
        """Nothing is marked."""

    def action_match(self, step: int) -> None:
        """The next or previous span that the filter of the list is about."""
        if not self.waterfall.next_match(step):
            said = "No span of this trace is what the filter is about: it is about the request as a whole."
            self.trace_app.say(said if self.trace_app.requests.filter_text else "The list is not filtered.")

    def action_path(self, step: int) -> None:
        """The next (1) or previous (-1) step of the critical path."""
        if not self.waterfall.next_step(step):
            known = self.lines is not None and len(self.lines.steps) > 0
            end = "ends" if step > 0 else "begins"
            self.trace_app.say(f"The critical path {end} here." if known else "This trace has no critical path.")

    def action_align(self) -> None:
        """Server sides within their calls where clocks differ, or the times as they were sent."""
        trace, version = self._trace, self._version
        if trace is None:
            return
        self.aligned = aligned = not self.aligned
        self._alignings.ask(lambda: self._build(trace, version, aligned))

    def action_freeze(self) -> None:
        """Keep the trace as it is, or let it grow."""
        self.frozen = not self.frozen
        if not self.frozen:
            self._version = -2
            self._look_again = 0.0
        self._head()

    # -- actions: detail, raw, copy -------------------------------------------------------------------
    def action_detail(self) -> None:
        """Show or hide the detail."""
        self._detail, self._detail_chosen = not self._detail, True
        self._arrange()
        self._described = ""
        self._fetch_detail()

    def action_scroll_detail(self, step: int) -> None:
        """The detail up or down."""
        self.pane.scroll_lines(step)

    def action_raw(self, whole: bool) -> None:
        """The OTLP JSON of the span, or of the trace."""
        from tui.screens.raw import RawScreen

        if whole:
            self.app.push_screen(RawScreen(self.trace_id))
        elif (node := self.waterfall.node) is not None:
            self.app.push_screen(RawScreen(self.trace_id, node.span))

    def action_copy_trace(self) -> None:
        """The trace id."""
        self.trace_app.copy(self.trace_id, "trace id")

    def action_copy(self) -> None:
        """A choice of what to copy of the cursor's span."""
        node = self.waterfall.node
        if node is None or self.lines is None:
            return
        span = node.span
        texts = [
            ("s", "summary", self.summary(node)),
            ("i", "span id", span.span_id),
            ("t", "trace id", span.trace_id),
            ("n", "name", span.name),
        ]
        if said := self.query_one(VerdictLines).text:
            texts.append(("v", "verdict", said))
        options = [Option(letter, what, text) for letter, what, text in texts]
        options.append(Option("a", "attributes", "key=value, on one line"))
        options.append(Option("l", "attributes", "key=value, one a line: not into a shell, which runs each line"))

        def chosen(at: int | None) -> None:
            if at is None:
                return
            if at < len(texts):
                self.trace_app.copy(texts[at][2], texts[at][1])
            else:
                as_lines = at > len(texts)
                self._with_body(span, lambda body: self._copy_attributes(body, as_lines))

        self.app.push_screen(ChoiceScreen("Copy", options), chosen)

    def _copy_attributes(self, body: Body, as_lines: bool) -> None:
        lines = [f"{key}={value_text(value, 20_000)}" for key, value in sorted(body.attributes.items())]
        if as_lines:
            self.trace_app.copy_lines(lines, "attributes")
        else:
            self.trace_app.copy("  ".join(lines), "attributes")

    def summary(self, node: Node) -> str:
        """A span in one line, to paste into a ticket."""
        span = node.span
        words = [span.name, span.service or span.component.value, duration(span.duration)]
        if node.self_ns != span.duration:
            words.append(f"own time {duration(node.self_ns)}")
        if span.status == 2:
            words.append("failed")
        words += [clock(span.start, self.trace_app.utc), f"trace {span.trace_id} span {span.span_id}"]
        return "  ".join(words)

    def _with_body(self, span: Span, then: Callable[[Body], None]) -> None:
        """Do something with a span's body once it is read."""

        def done(body: Body | None) -> None:
            if body is None:
                self.trace_app.say("The attributes of this span are not stored any more: evicted.", wrong=True)
            else:
                then(body)

        once: Latest[Body | None] = Latest(self, "body", done, self._could_not)
        once.ask(lambda: self.feed.bodies.body(span))

    # -- actions: links -------------------------------------------------------------------------------
    def action_link(self) -> None:
        """To a trace that is linked with this one, whichever way; a choice where there are several."""
        node = self.waterfall.node
        if node is not None:
            span = node.span
            self._relations.ask(lambda: self.feed.relations(self.trace_id, span))

    def _choose_relation(self, found: list[Relation]) -> None:
        if not found:
            self.trace_app.say("No link leads from this trace to another, and none that is here leads to it.")
            return
        if len(found) == 1:
            self._follow(found[0])
            return

        def chosen(at: int | None) -> None:
            if at is not None:
                self._follow(found[at])

        shown = found[:MOST_OPTIONS]
        more = f", the first {len(shown)} of them" if len(found) > len(shown) else ""
        options = [Option(str(at + 1), *self._say_relation(one)) for at, one in enumerate(shown)]
        self.app.push_screen(ChoiceScreen(f"{count(len(found))} links{more}", options), chosen)

    def _say_relation(self, one: Relation) -> tuple[str, str]:
        """What a link is, what is at its other end, and at which span of this trace it is, if not the cursor's."""
        which = "links to" if one.outgoing else "linked from"
        node = self.waterfall.node
        here = ""
        if node is not None and one.here and one.here != node.span.span_id:
            here = f"  {'from' if one.outgoing else 'to'} {self._name_of(one.here)}"
        if one.trace_id == self.trace_id:
            return which, f"{self._name_of(one.span_id)}, in this trace{here}"
        if one.other is not None:
            return which, printable(mention(one.other)) + here
        whose = "the caller's own trace" if one.caller else "trace"
        short = f"{one.trace_id[:8]}{self.glyphs.ellipsis}{one.trace_id[-4:]}"
        return which, f"{whose} {printable(short)} was not received{here}"

    def _name_of(self, span_id: str) -> str:
        """A span of this trace, as it is called in a choice."""
        line = self.lines.line_of.get(span_id) if self.lines is not None else None
        if self.lines is None or line is None:
            return f"span {printable(span_id, 16)}"
        return printable(self.lines.nodes[line].span.name, 40)

    def _follow(self, one: Relation) -> None:
        if one.trace_id == self.trace_id:
            found = self.lines.line_of.get(one.span_id) if self.lines is not None else None
            if found is None:
                self.trace_app.say(f"The linked span {one.span_id} of this trace was not received.", wrong=True)
            else:
                self.waterfall.go_to(found)
        elif self.feed.version(one.trace_id) < 0:
            whose = "caller's own" if one.caller else "linked"
            causes = "its id made up, " if one.caller else ""
            self.trace_app.say(
                f"The {whose} trace {one.trace_id} was not received: {causes}not sampled, not sent here, or evicted.",
                wrong=True,
            )
        else:
            self.trace_app.go("trace", one.trace_id, span_id=one.span_id)
            screen = self.app.screen
            if isinstance(screen, TraceScreen) and screen.trace_id == one.trace_id:
                screen.put_cursor(one.span_id)  # it may have been open under this one

    # -- actions: pivots ------------------------------------------------------------------------------
    def action_mark(self) -> None:
        """Mark this trace, or take the mark off."""
        self.trace_app.mark(self.trace_id)

    def action_compare(self) -> None:
        """This trace beside the marked one, or what is usual."""
        self.trace_app.compare(self.trace_id)

    def action_repeat(self) -> None:
        """Make this request again, traced."""
        self.trace_app.traced.repeat(self.trace_id)

    def action_pivot(self) -> None:
        """A choice of what this trace shares with others; of its webhooks the one that the cursor is in comes first."""
        self._pivots.ask(
            self.trace_id, next((span.span_id for span in self._above() if is_webhook_call(span.name)), "")
        )

    def _above(self) -> Iterator[Span]:
        """The cursor's span and those above it."""
        lines = self.lines
        line = self.waterfall.line if lines is not None and len(lines) else -1
        while lines is not None and line >= 0:
            yield lines.nodes[line].span
            line = lines.holder(line)

    # -- actions: explain -----------------------------------------------------------------------------
    def action_explain(self) -> None:
        """Explain the cursor's span, wherever it goes, or stop doing so."""
        self._explaining = not self._explaining
        if self._explaining:
            self._explain()
        else:
            self.query_one(ExplainPanel).hide()

    def _explain(self) -> None:
        lines, waterfall = self.lines, self.waterfall
        if not self._explaining or lines is None or not len(lines):
            return
        line, line_id = waterfall.line, waterfall.line_id
        span, parent = lines.nodes[line].span, lines.above(line)
        above = parent.span if parent is not None else None
        panel = self.query_one(ExplainPanel)
        if lines.flags[line] & CHAIN:
            panel.show("filters", FILTERS)
            return
        said = explain(span, above)
        if said.known and span.component is not Component.WEBHOOK:
            panel.show(span.name, said)
            return

        def job() -> tuple[str, str, Explanation]:  # whose program it is, only the body says
            body = self.feed.bodies.body(span)
            return line_id, span.name, explain(span, above, scope=body.scope_name if body is not None else "")

        self._explained.ask(job)

    def _explained_with_scope(self, found: tuple[str, str, Explanation]) -> None:
        line_id, name, said = found
        if self._explaining and line_id == self.waterfall.line_id:
            self.query_one(ExplainPanel).show(name, said)

    # -- looks ----------------------------------------------------------------------------------------
    def repaint(self) -> None:
        """Theme, glyphs or time zone are others now."""
        self._head()
        self.waterfall.refresh()
        self.pane.refresh(layout=False)
        self._described = ""
        self._fetch_detail()


def _title(request: Request | None, headline: Node | None, created: str) -> str:
    """`create pods default/slow-one`; for what is no API request the name of its headline span."""
    if request is None:
        return printable(headline.span.name) if headline is not None else "no span"
    if not request.resource:
        return printable(f"{request.verb} {request.path}")
    resource = "/".join(filter(None, (request.resource, request.subresource)))
    if request.namespace and request.resource != "namespaces":
        place = f"{request.namespace}/{request.name or created}"
    else:
        place = request.name or created
    return printable(" ".join(filter(None, (request.verb, resource, place))))


def _alignment_words(alignment: skew.Alignment) -> str:
    moved = [abs(shift.ns) for shift in alignment.shifts if not shift.refused]
    refused = len(alignment.shifts) - len(moved)
    words = "Every server side lies within its call: nothing to align."
    if moved:
        words = f"Moved {count(len(moved))} server side{'s' * (len(moved) != 1)}, by up to {duration(max(moved))}."
    elif refused:
        words = "Nothing is moved."
    if refused:
        words += f" {count(refused)} off by more than {duration(skew.LIMIT)} stay{'s' * (refused == 1)} as sent."
    return words
