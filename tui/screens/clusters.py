"""The Clusters screen: how control planes trace, and changing it, one node at a time, after a question."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from textual.widget import Widget

from tui.cluster_feed import READ_ONLY, Change, ClusterFeed, NotAgreed, Run, title_of
from tui.clusters import drift, rates
from tui.clusters.arriving import Stream, per_state
from tui.clusters.load import expected_load
from tui.clusters.model import ClusterError, Mode, Part, State, Wish
from tui.clusters.survey import Node
from tui.commands import CommandError
from tui.feed import Snapshot
from tui.keys import bindings
from tui.sampling_text import about
from tui.screens.change import ConfirmScreen
from tui.screens.cluster_lines import (
    ComponentLines,
    ComponentRow,
    change_lines,
    diff_lines,
    left_pods,
    node_lines,
    notes_of,
    rows_of,
    run_lines,
    sentence,
)
from tui.screens.frame import FrameScreen
from tui.screens.help import Lines
from tui.screens.sheet import SheetScreen
from tui.terminal_text import printable
from tui.widgets.line import Part as Piece
from tui.widgets.line import Rule
from tui.widgets.table import Sheet, VirtualTable

if TYPE_CHECKING:
    from tui.clusters.reach.api import Leftover

_CHANGES: Final = ("arm", "set", "off", "revert", "finish", "undo", "remove")

Intent = Callable[[], None]


class ClustersScreen(FrameScreen):
    """What the cluster feed found, and the change that is on its way."""

    PLACE = "clusters"
    DEFAULT_CSS = """
    ClustersScreen #about { height: 1fr; }
    """
    BINDINGS = bindings("clusters")

    def __init__(self) -> None:
        super().__init__()
        self._made: object = None
        self._below: object = None
        self._version = 0
        self._rows: list[ComponentRow] = []
        self._waiting: Intent | None = None
        """What was asked for before the nodes were read."""
        self._pods_come = False
        """What waits does so until pods of ours have read the files."""
        self._only_show = False
        """The next offer is looked at, not asked about."""
        self._asked_about: Run | None = None

    def body(self) -> Iterable[Widget]:
        """The table, and below it what is to be said."""
        yield VirtualTable()
        yield Rule(id="below")
        yield Sheet(id="about")

    def on_mount(self) -> None:
        """Textual's event."""
        super().on_mount()
        about_ = self.query_one("#about", Sheet)
        about_.can_focus = False
        self.table.focus()
        self.clusters.take_offer()  # it was for a screen that was left
        self.clusters.take_refusal()
        found = self.clusters.snapshot
        if self.clusters.here and (found.reading is None or self.clusters.rolling is None):
            self.clusters.read()

    @property
    def clusters(self) -> ClusterFeed:
        """Where control planes are read and changed."""
        return self.trace_app.clusters

    @property
    def table(self) -> VirtualTable:
        """The components."""
        return next(table for table in self.query(VirtualTable) if not isinstance(table, Sheet))

    @property
    def chosen(self) -> ComponentRow | None:
        """The row under the cursor."""
        return self._rows[self.table.cursor] if self.table.cursor < len(self._rows) else None

    def words(self) -> dict[str, str]:
        """Under read-only no key changes anything; what was interrupted and what was left have keys of their own."""
        hidden = [] if self._interrupted is not None else ["finish", "undo"]
        hidden += [] if self._leftovers else ["remove"]
        if self.clusters.read_only or not self.clusters.here:
            hidden = list(_CHANGES)
        return {**super().words(), **{f"clusters.{name}": "" for name in hidden}}

    def repaint(self) -> None:
        """Other colours, another time zone."""
        self._made = self._below = None
        self._version += 1
        self.table.repaint()
        self.query_one("#about", Sheet).repaint()

    # -- drawing ----------------------------------------------------------------------------------------
    def update(self, snapshot: Snapshot) -> None:
        """Take up what threads found; a row is painted again only when it differs."""
        found = self.clusters.snapshot
        self.clusters.watch()
        second = int(time.monotonic() - found.busy_since) if found.busy else 0
        made = (found.generation, snapshot.sender_rates, snapshot.status is None, self.size, self._version, second)
        if made != self._made:
            self._made = made
            self._show(snapshot)
        self._show_below()
        if not self.prompt.is_open:
            self._take_up()

    def _show(self, snapshot: Snapshot) -> None:
        found = self.clusters.snapshot
        nodes = found.reading.nodes if found.reading is not None else ()
        states = [state for node in nodes for state in node.states]
        streams = None
        if snapshot.status is not None:
            streams = [
                Stream(service, instance, source, 0, rate, 0)
                for (_, service, instance, source), rate in snapshot.sender_rates.items()
            ]
        self._rows = rows_of(nodes, per_state(states, streams), drift.differing(states))
        table = self.table
        table.say_instead(self._instead())
        table.source = ComponentLines(self._rows, self.palette, self.glyphs, self._version)
        table.sync()
        self._say_title()
        self.update_keys()

    def _instead(self) -> str:
        found = self.clusters.snapshot
        if not self.clusters.here:
            return self.clusters.none
        if found.problem and not self._rows:
            return "There is nothing to show."
        return "Looking at the control planes." if found.busy or found.reading is None else "There is no node."

    def _say_title(self) -> None:
        p, found = self.palette, self.clusters.snapshot
        left: list[Piece] = [("Clusters", p.title)]
        reading = found.reading
        if reading is not None:
            count = len(reading.nodes)
            versions = sorted({state.version for state in self._states if state.part is Part.APISERVER} - {""})
            kinds = sorted({state.flavour for state in self._states} - {""})
            parts = [reading.cluster, " ".join([*kinds, *versions][:3])]
            parts.append(f"{count} control-plane node{'s' if count != 1 else ''}")
            left.append((f"  {printable('  '.join(part for part in parts if part), 120)}", p.base))
        right: list[Piece] = []
        if found.busy:
            seconds = int(time.monotonic() - found.busy_since)
            right.append((f"{found.busy} {seconds} s" if seconds >= 2 else found.busy, p.dim))
        if reading is not None and reading.protected:
            right.append((f"{'   ' if right else ''}protected", p.warning))
        if self.clusters.read_only:
            more = ": nothing can be changed" if self.size.width >= 100 else ""
            right.append((f"{'   ' if right else ''}read-only{more}", p.warning))
        self.title_parts(left, right)

    @property
    def _states(self) -> list[State]:
        return [row.state for row in self._rows if row.state is not None]

    @property
    def _interrupted(self) -> Node | None:
        reading = self.clusters.snapshot.reading
        if reading is None or self.clusters.rolling is not None:
            return None
        return next((node for node in reading.nodes if node.interrupted is not None), None)

    @property
    def _leftovers(self) -> Sequence[Leftover]:
        reading = self.clusters.snapshot.reading
        return reading.leftovers if reading is not None else ()

    def _show_below(self) -> None:
        """What is wrong, the change on its way and how it came out, and what is to be said of the chosen row."""
        found, now = self.clusters.snapshot, time.monotonic()
        run, row = found.run, self.chosen
        second = int(now - max(one.since for one in run.nodes)) if run is not None and not run.ended else 0
        made = (found.generation, second, row, self.size, self._version)
        if made == self._below:
            return
        self._below = made
        p, g, width = self.palette, self.glyphs, self.size.width
        lines: list[list[Piece]] = []
        title = "About"
        if found.problem:
            lines += sentence(found.problem, width, p.error, g.failed)
        if (node := self._interrupted) is not None and (left := node.interrupted) is not None:
            finish, undo = (self.trace_app.key_of(f"clusters.{name}") for name in ("finish", "undo"))
            ways = "" if self.clusters.read_only else f": {finish} finishes it, {undo} puts back what was before"
            text = f"{node.name}: a change ({about(left)}) was interrupted at {left.step or 'its begin'}{ways}"
            lines += sentence(text, width, p.warning, g.suspicious)
        for remark in found.reading.remarks if found.reading is not None else ():
            lines += sentence(remark, width, p.warning, g.suspicious)
        if self._leftovers:
            way = "" if self.clusters.read_only else f": {self.trace_app.key_of('clusters.remove')} takes"
            way += f" {'it' if len(self._leftovers) == 1 else 'them'} away" if way else ""
            lines += sentence(f"{left_pods(self._leftovers)}{way}.", width, p.warning, g.suspicious)
        if run is not None:
            title = run.title
            lines += run_lines(run, now, width, p, g)
        arm = "" if self.clusters.read_only or run is not None else self.trace_app.key_of("clusters.arm")
        notes = notes_of(row, width, p, g, arm)
        lines += [[], *notes] if lines and notes else notes
        if found.reading is not None and found.reading.pods_wanted and not self.clusters.read_only:
            lines += sentence(f"{found.reading.pods_wanted} Any change asks for that first.", width, p.dim)
        self.query_one("#below", Rule).show([(printable(title, 300), p.title)])
        sheet = self.query_one("#about", Sheet)
        room = self.size.height - 5  # without status, both titles, hint and keys
        table = max(3, min(len(self._rows) + 1, max(room - len(lines), room // 3)))
        if self.table.styles.height is None or self.table.styles.height.value != table:
            self.table.styles.height = table
        sheet.source = Lines(lines, self._version)
        sheet.sync()

    def on_virtual_table_moved(self, event: VirtualTable.Moved) -> None:
        """The list's message."""
        event.stop()
        self._show_below()

    # -- what threads bring -----------------------------------------------------------------------------
    def _take_up(self) -> None:
        if self.app.screen is not self:
            return
        if refusal := self.clusters.take_refusal():
            self._only_show = False
            self.trace_app.say(refusal, wrong=True)
        found = self.clusters.snapshot
        if self._waiting is not None and (not found.busy or (found.reading is not None and not self._pods_come)):
            intent, self._waiting = self._waiting, None
            self._pods_come = False
            if found.problem:
                return  # it is on the screen
            self._attempt(intent)
        offer = self.clusters.take_offer()
        if offer is not None:
            if self._only_show:
                self._only_show = False
                self._show_diff(offer)
            else:
                self._question(offer)
        run = self.clusters.rolling
        if run is not None and run.question and self._asked_about is not run:
            self._asked_about = run
            self._ask_to_go_on(run)

    def _question(self, change: Change) -> None:
        if change.empty:
            names = ", ".join(job.node.name for job in change.jobs)
            self.trace_app.say(f"{names}: there is nothing to change, it is so already.")
            return
        loads = {
            row.node.name: expected_load(row.state, row.arriving, job.plan.wish.per_million)
            for row in self._rows
            for job in change.jobs
            if row.node.name == job.node.name and row.state is not None and row.state.part is change.part
        }
        go = {"revert": "Put back", "undo": "Put back", "finish": "Finish"}.get(change.kind, "Change")

        def done(typed: str | None) -> None:
            if typed is None:
                self.trace_app.say("Nothing was changed.")
                return
            try:
                self.clusters.begin(change, typed)
            except NotAgreed as refused:
                self.trace_app.say(str(refused), wrong=True)

        names = ", ".join(node.name for node in change.nodes)
        lost = [row.node for row in self._rows if row.state is None and row.node.problem]
        left_out = lost if len(change.jobs) > 1 else []

        def lines(width: int) -> Sequence[Sequence[Piece]]:
            said = change_lines(change, loads, width, self.palette, self.glyphs)
            for node in left_out:
                text = f"{node.name} is left out: {node.problem}"
                said = [*sentence(text, width, self.palette.warning, self.glyphs.suspicious), *said]
            return said

        self.app.push_screen(
            ConfirmScreen(
                f"{title_of(change)}?",
                lines,
                f"{go} {names}",
                change.type_name,
            ),
            done,
        )

    def _ask_to_go_on(self, run: Run) -> None:
        def lines(width: int) -> Sequence[Sequence[Piece]]:
            p, g = self.palette, self.glyphs
            said = sentence(run.question, width, p.base)
            for reason in run.reasons:
                said += sentence(reason, width, p.warning, g.suspicious)
            left = "the nodes behind it as they are" if len(run.nodes) > 1 else "it as it is"
            return said + sentence(f"Cancel leaves {left}.", width, p.dim)

        self.app.push_screen(
            ConfirmScreen(run.title, lines, "Go on"), lambda typed: self.clusters.answer(typed is not None)
        )

    def _show_diff(self, change: Change) -> None:
        if change.empty:
            self.trace_app.say("There is no difference: the files are as they were before us.")
            return
        names = ", ".join(node.name for node in change.nodes)

        def lines(width: int) -> Sequence[Sequence[Piece]]:
            said: list[list[Piece]] = []
            for job in change.jobs:
                said += sentence(f"{job.node.name} {job.plan.part.value}", width, self.palette.title)
                said += diff_lines(job.plan.diff, width, self.palette)
            return said

        self.app.push_screen(SheetScreen("Diff", f"what `revert` would change on {names}", lines))

    # -- keys -------------------------------------------------------------------------------------------
    def action_arm(self) -> None:
        """`a`."""
        self.ask_for(0, "arm")

    def action_set_rate(self) -> None:
        """`s`: the rate is written behind `:sampling`."""
        if self._may_change():
            self.open_prompt(":", "sampling ", self.trace_app.commands.complete)

    def action_off(self) -> None:
        """`o`."""
        self.ask_for(None, "off")

    def action_revert(self) -> None:
        """`v`."""
        self.revert()

    def action_finish(self) -> None:
        """`f`."""
        self._carry_on(undo=False)

    def action_undo(self) -> None:
        """`u`."""
        self._carry_on(undo=True)

    def action_remove(self) -> None:
        """`x`: pods of ours that were left."""
        left = self._leftovers
        if not self._may_change():
            return
        if not left:
            self.trace_app.say("No pod of ours was left.")
            return

        def done(typed: str | None) -> None:
            if typed is None:
                self.trace_app.say("Nothing was changed.")
                return
            try:
                self.clusters.remove(left)
            except ClusterError as refused:
                self.trace_app.say(str(refused), wrong=True)

        def lines(width: int) -> Sequence[Sequence[Piece]]:
            said = sentence(f"{left_pods(left)}.", width, self.palette.base)
            for one in left:
                text = f"{one.namespace}/{one.name} on {one.node}, {one.phase}, since {one.created}"
                said += sentence(text, width, self.palette.dim)
            return said

        self.app.push_screen(ConfirmScreen("Take away pods of ours that were left?", lines, "Take away"), done)

    def action_read(self) -> None:
        """`r`."""
        if self.clusters.here:
            self.clusters.read()

    def action_node(self) -> None:
        """Enter."""
        row = self.chosen
        if row is not None:
            self.app.push_screen(
                SheetScreen(
                    row.node.name,
                    "everything that was found there",
                    lambda width: node_lines(row.node, width, self.palette, self.glyphs),
                )
            )

    def action_diff(self) -> None:
        """`D`: of the change on its way, else what putting back would change."""
        row, run = self.chosen, self.clusters.rolling
        if row is None or row.state is None:
            return
        mine = [one for one in run.nodes if one.node == row.node.name and one.plan is not None] if run else []
        if run is not None and mine and mine[0].plan is not None:
            plan = mine[0].plan
            self.app.push_screen(
                SheetScreen("Diff", run.title, lambda width: diff_lines(plan.diff, width, self.palette))
            )
            return
        self._only_show = True
        self.clusters.plan_revert(row.state.part, [row.node])

    # -- what commands and keys ask for -------------------------------------------------------------------
    def ask_for(self, per_million: int | None, name: str, endpoint: str = "", everywhere: bool = False) -> None:
        """Plan this for the chosen row, or for its like on every node; the question comes when it is planned."""

        def plan(part: Part, nodes: Sequence[Node]) -> None:
            self.clusters.plan(Wish(part, per_million, endpoint, name), nodes)

        self._when_read(lambda: self._for_rows(plan, everywhere))

    def revert(self, everywhere: bool = False) -> None:
        """Plan putting back what was before us."""
        self._when_read(lambda: self._for_rows(self.clusters.plan_revert, everywhere))

    def _carry_on(self, undo: bool) -> None:
        def plan() -> None:
            node = self._interrupted
            if node is None:
                raise CommandError("No change was interrupted.")
            self.clusters.plan_carrying_on(node, undo)

        self._when_read(plan)

    def _for_rows(self, plan: Callable[[Part, Sequence[Node]], None], everywhere: bool) -> None:
        row = self.chosen
        if row is None:
            raise CommandError("There is no node to change.")
        if row.node.awaited:
            raise CommandError(f"{row.node.name} is still being looked at: wait until it has answered.")
        if row.state is None:
            raise CommandError(row.node.problem or f"No control plane that we know runs on {row.node.name}.")
        rows = [row]
        if everywhere:
            for one in self._rows:
                if one.node.awaited:
                    raise CommandError(f"{one.node.name} is still being looked at: wait until it has answered.")
            rows = [one for one in self._rows if one.state is not None and one.state.part is row.state.part]
        reading = self.clusters.snapshot.reading
        if reading is not None and reading.pods_wanted:
            self._ask_for_pods(reading.pods_wanted, lambda: self._for_rows(plan, everywhere))
            return
        keys = [self.trace_app.key_of(f"clusters.{name}") for name in ("finish", "undo")]
        for one in rows:
            if one.node.interrupted is not None:
                raise CommandError(
                    f"{one.node.name}: a change was interrupted there, and that comes first: {keys[0]} finishes it, "
                    f"{keys[1]} puts back what was before."
                )
            if one.state is not None and one.state.read_only:
                raise CommandError(f"{one.node.name} {one.state.part.value} is read-only: {one.state.read_only}")
            if one.state is not None and one.state.mode is Mode.UNKNOWN and one.node.facts is None:
                raise CommandError(one.node.problem or f"{one.node.name} could not be read.")
        self._only_show = False
        plan(row.state.part, [one.node for one in rows])

    def _ask_for_pods(self, sentence_: str, then: Intent) -> None:
        def done(typed: str | None) -> None:
            if typed is None:
                self.trace_app.say("Nothing was changed.")
                return
            try:
                self.clusters.let_pods_in()
            except ClusterError as refused:
                self.trace_app.say(str(refused), wrong=True)
                return
            self._waiting, self._pods_come = then, True

        self.app.push_screen(
            ConfirmScreen(
                "Let pods of ours in?", lambda width: sentence(sentence_, width, self.palette.base), "Let them in"
            ),
            done,
        )

    def _may_change(self) -> bool:
        if self.clusters.read_only:
            self.trace_app.say(READ_ONLY, wrong=True)
        elif not self.clusters.here:
            self.trace_app.say(self.clusters.none, wrong=True)
        elif (run := self.clusters.rolling) is not None:
            what = "A change has just ended, and what it came to is being read: a moment."
            self.trace_app.say(what if run.decided else "A change is on its way: wait until it has ended.", wrong=True)
        else:
            return True
        return False

    def _when_read(self, intent: Intent) -> None:
        """Do this when the nodes are known."""
        if not self._may_change():
            return
        found = self.clusters.snapshot
        if not self.is_mounted or found.reading is None:
            self._waiting = intent
        else:
            self._attempt(intent)

    def _attempt(self, intent: Intent) -> None:
        try:
            intent()
        except CommandError as error:
            self.trace_app.say(str(error), wrong=True)


def parse_rate(text: str) -> tuple[int, str]:
    """A rate and its name for the journal.

    Raises:
        CommandError: it is none.
    """
    try:
        rate = rates.parse(text)
    except ClusterError as error:
        raise CommandError(str(error)) from error
    return rate, rates.text(rate) if rate else "0"
