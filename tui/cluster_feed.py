"""The Clusters screen's only door to control planes: threads that read, plan and roll out, and publish snapshots.

The event loop never waits for a host: a screen takes the newest snapshot ten times a second, as it does with `Feed`.
Nothing is changed but by `begin`, with an offer that was made here and that somebody agreed to; `begin` itself refuses
under read-only and without the cluster's name where that has to be typed, whatever key or command led to it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from tui.clusters.model import ClusterError, Part, Plan, RolloutFacts, Tell, Wish

if TYPE_CHECKING:
    from tui.clusters.doctor import Step
    from tui.clusters.reach.api import Leftover
    from tui.clusters.rollout import Outcome
    from tui.clusters.survey import Node
    from tui.sampling_text import Job

MOST_STEPS: Final = 400
"""Of one node's rollout that are kept; a rollout has some twenty."""
_END_SECONDS: Final = 3.0
WATCH_SECONDS: Final = 3.0
"""Between two looks for changes that were made elsewhere: with the look itself they show within 5 s."""
READ_ONLY: Final = "Nothing was changed: --read-only forbids it."


class NotAgreed(ClusterError):
    """A change is not begun, because it is not allowed here or was not agreed to."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The control planes as they were found. `pods_wanted` asks for pods of ours where only those can read files, ""
    where nothing is asked; `remarks` are sentences on what is wrong besides the nodes; `leftovers` pods of ours that an
    earlier run, or somebody who is at work right now, has there."""

    nodes: tuple[Node, ...] = ()
    cluster: str = ""
    protected: bool = False
    pods_wanted: str = ""
    remarks: tuple[str, ...] = ()
    leftovers: tuple[Leftover, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What could be done, as it was planned. `kind` is "set", "revert", "finish" or "undo"; `jobs` the nodes in order,
    `left` the rollout that is finished or undone; `differences` the lines of what somebody else changed meanwhile;
    `type_name` the name that must be typed to agree, "" for none."""

    kind: str
    name: str
    part: Part
    jobs: tuple[Job, ...] = ()
    node: Node | None = None
    left: RolloutFacts | None = None
    differences: tuple[str, ...] = ()
    type_name: str = ""

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Those that would be changed."""
        if self.node is not None:
            return (self.node,)
        return tuple(job.node for job in self.jobs if not job.plan.empty)

    @property
    def empty(self) -> bool:
        """There is nothing to do."""
        return not self.nodes


@dataclass(frozen=True, slots=True)
class NodeRun:
    """A rollout on one node: what was told of it. `since` is `time.monotonic()` of the last step that was told."""

    node: str
    part: Part
    plan: Plan | None = None
    steps: tuple[tuple[str, str], ...] = ()
    since: float = 0.0
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A change on its way, or how it came out; it stays until the next one. `question` waits for `answer`; `reasons`
    are the doctor's, why no span arrives."""

    title: str
    kind: str
    nodes: tuple[NodeRun, ...]
    ended: bool = False
    question: str = ""
    reasons: tuple[str, ...] = ()
    problem: str = ""

    @property
    def decided(self) -> bool:
        """Every node has come out of it, one way or the other."""
        return self.ended or all(one.outcome is not None for one in self.nodes)

    @property
    def at_work(self) -> str:
        """The node that is being changed right now, "" when it has ended."""
        return "" if self.ended else max(self.nodes, key=lambda one: one.since).node


@dataclass(frozen=True, slots=True)
class Examination:
    """What the doctor found: its steps, or the `problem` why there are none. `ended` is `time.monotonic()`, `at` the
    same in ns since the epoch."""

    steps: tuple[Step, ...] = ()
    problem: str = ""
    ended: float = 0.0
    at: int = 0


@dataclass(frozen=True, slots=True)
class Named:
    """What the command line says of control planes."""

    hosts: tuple[str, ...] = ()
    context: str = ""
    node_image: str = ""


class ControlPlanes(Protocol):
    """What the feed needs of control planes. Everything here may take its time, and is called in worker threads."""

    def read(self, say: Callable[[Reading], None]) -> Reading:
        """Look at every node; never changes anything.

        Args:
            say: takes what is known until now, so that nobody waits for a node that does not answer.

        Raises:
            ClusterError: there is none, or it cannot be reached.
        """

    def look(self, nodes: Sequence[Node]) -> tuple[Node, ...]:
        """These nodes as they are now, beside a reading that may wait for others. Does not raise."""

    def marks(self, nodes: Sequence[Node]) -> dict[int, str]:
        """What tells a change on these nodes for little: by `id` of the host a text that is another one afterwards.
        Nothing of a node that does not answer, or of which only the API is read. Does not raise."""

    def let_pods_in(self) -> None:
        """From now on pods of ours may read files.

        Raises:
            ClusterError: they would not be let in.
        """

    def remove(self, leftovers: Sequence[Leftover]) -> None:
        """Remove pods of ours that were left.

        Raises:
            ClusterError: the API refuses, or one is not ours.
        """

    def plan(self, wish: Wish, nodes: Sequence[Node]) -> tuple[Job, ...]:
        """What a wish would change on these nodes.

        Raises:
            ClusterError: a node cannot be changed so, or cannot be read.
        """

    def plan_revert(self, part: Part, nodes: Sequence[Node]) -> tuple[tuple[Job, ...], tuple[str, ...]]:
        """What would put back the files before our first change, and the lines of what somebody changed since.

        Raises:
            ClusterError: a node cannot be read.
        """

    def name_to_type(self, wish: Wish | None, nodes: Sequence[Node], high: bool = False) -> str:
        """The name that must be typed before this is done, "" for none. `high`: it samples at a high rate, though
        no wish says so."""

    def roll_out(
        self,
        change: Change,
        tell: Tell,
        ask: Callable[[str, str], bool],
        stopping: Callable[[], bool],
    ) -> tuple[Outcome, ...]:
        """Do it, one node after the other; an outcome for each of `change.nodes`."""

    def carry_on(
        self,
        node: Node,
        left: RolloutFacts,
        undo: bool,
        tell: Tell,
        ask: Callable[[str, str], bool],
        stopping: Callable[[], bool],
    ) -> Outcome:
        """Finish an interrupted rollout, or put back what was before it; `ask` where a node cannot find out whether
        that is safe.

        Raises:
            ClusterError: it cannot be done, or was not agreed to.
        """

    def follow(self, node: Node, left: RolloutFacts, tell: Tell, stopping: Callable[[], bool]) -> Outcome:
        """Listen to a rollout that its node carries on; changes nothing.

        Raises:
            ClusterError: the node cannot be read.
        """

    def why_nothing(self, node: str) -> tuple[str, ...]:
        """Why no span of a node arrives, a sentence each."""

    def examine(self) -> tuple[Step, ...]:
        """Why nothing arrives, step by step. Changes nothing, and makes nothing on a node to look at it."""

    def close(self) -> None:
        """Let go of all hosts."""


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """What is known at one moment. `busy` is what threads do now (`planning`, else `reading`), "" for nothing;
    `problem` why the last reading failed; `refusal` why the last plan was not made, until it is taken by
    `take_refusal`."""

    reading: Reading | None = None
    busy: str = ""
    problem: str = ""
    refusal: str = ""
    offer: Change | None = None
    run: Run | None = None
    examination: Examination | None = None
    examining: bool = False
    busy_since: float = 0.0
    """`time.monotonic()` when that began."""
    generation: int = 0
    """Another one whenever anything else is."""


class ClusterFeed:
    """Talks to control planes in the background; for one app."""

    def __init__(
        self, make: Callable[[], ControlPlanes] | None = None, *, read_only: bool = False, none: str = ""
    ) -> None:
        """Nothing is opened before `read`.

        Args:
            make: makes what is read and changed, in a thread and once; None where there is nothing that could be read.
            read_only: nothing can be begun.
            none: why there are no control planes, a sentence.
        """
        self.read_only = read_only
        self.none = none or "There is no control plane to look at."
        self._make = make
        self._planes: ControlPlanes | None = None
        self._making = threading.Lock()
        self._snapshot = ClusterSnapshot()
        self._lock = threading.Lock()
        self._next: dict[str, Callable[[ControlPlanes], None]] = {}
        self._asking: dict[str, threading.Thread] = {}
        self._rolling: threading.Thread | None = None
        self._examining: threading.Thread | None = None
        self._watching: threading.Thread | None = None
        self._watched = 0.0
        self._marks: dict[int, str] = {}
        self._ended = threading.Event()
        self._left_alone: Run | None = None
        self._answered = threading.Event()
        self._answer = False

    # -- for screens ------------------------------------------------------------------------------------
    @property
    def here(self) -> bool:
        """Whether there are control planes to look at."""
        return self._make is not None

    @property
    def snapshot(self) -> ClusterSnapshot:
        """What is known now."""
        return self._snapshot

    @property
    def rolling(self) -> Run | None:
        """The change that is on its way, None when none is."""
        run = self._snapshot.run
        return run if run is not None and not run.ended else None

    @property
    def left_alone(self) -> Run | None:
        """After `stop`: the change that was on its way then, and that its node carries on."""
        return self._left_alone

    def read(self) -> None:
        """Look at every node again."""
        self._ask("reading", self._read)

    def examine(self) -> bool:
        """Have the doctor look why nothing arrives: `snapshot.examination`. In a thread of its own, so that no plan
        waits for it. False, and nothing is done, while one looks already or a node is being changed."""
        if self._make is None or self.rolling is not None or self._ended.is_set():
            return False
        with self._lock:
            if self._snapshot.examining:
                return False
            self._examining = threading.Thread(target=self._examine, name="doctor", daemon=True)
            self._publish(examining=True)
        self._examining.start()
        return True

    def watch(self) -> None:
        """Look for changes that were made elsewhere, every `WATCH_SECONDS`, in a thread of its own; nodes where there
        is one are read again. For a screen that is in front to call as often as it likes."""
        thread, found = self._watching, self._snapshot
        if found.reading is None or found.busy or self.rolling is not None or self._ended.is_set():
            return
        if (thread is not None and thread.is_alive()) or time.monotonic() - self._watched < WATCH_SECONDS:
            return
        self._watching = threading.Thread(target=self._watch, name="watching", daemon=True)
        self._watching.start()

    def let_pods_in(self) -> None:
        """Agreed: pods of ours read the nodes' files; then look again.

        Raises:
            NotAgreed: read-only.
        """
        if self.read_only:
            raise NotAgreed(READ_ONLY)

        def job(planes: ControlPlanes) -> None:
            planes.let_pods_in()
            self._read(planes)

        self._ask("reading", job)

    def remove(self, leftovers: Sequence[Leftover]) -> None:
        """Agreed: remove pods of ours that were left; then look again.

        Raises:
            NotAgreed: read-only.
        """
        if self.read_only:
            raise NotAgreed(READ_ONLY)

        def job(planes: ControlPlanes) -> None:
            planes.remove(leftovers)
            self._read(planes)

        self._ask("reading", job)

    def plan(self, wish: Wish, nodes: Sequence[Node]) -> None:
        """Make an offer of this: `snapshot.offer`, or `snapshot.refusal`."""

        def job(planes: ControlPlanes) -> None:
            jobs = planes.plan(wish, nodes)
            name = planes.name_to_type(wish, [job.node for job in jobs])
            self._put(offer=Change("set", wish.name, wish.part, jobs, type_name=name))

        self._ask("planning", job)

    def plan_revert(self, part: Part, nodes: Sequence[Node]) -> None:
        """Make an offer of putting back what was before our first change."""

        def job(planes: ControlPlanes) -> None:
            jobs, differences = planes.plan_revert(part, nodes)
            high = any(job.asks_name for job in jobs)
            name = planes.name_to_type(None, [job.node for job in jobs], high)
            self._put(offer=Change("revert", "revert", part, jobs, differences=differences, type_name=name))

        self._ask("planning", job)

    def plan_carrying_on(self, node: Node, undo: bool) -> None:
        """Make an offer of finishing a node's interrupted rollout, or of putting back what was before it."""
        left = node.interrupted
        if left is None:
            self._put(refusal=f"{node.name}: no rollout was interrupted there.")
            return

        def job(planes: ControlPlanes) -> None:
            name = planes.name_to_type(None, [node])
            part = next((part for part in Part if part.value == left.part), Part.APISERVER)
            kind = "undo" if undo else "finish"
            self._put(offer=Change(kind, kind, part, node=node, left=left, type_name=name))

        self._ask("planning", job)

    def take_offer(self) -> Change | None:
        """The offer, once."""
        offer = self._snapshot.offer
        if offer is not None:
            self._put(offer=None)
        return offer

    def take_refusal(self) -> str:
        """Why there is no offer, once."""
        refusal = self._snapshot.refusal
        if refusal:
            self._put(refusal="")
        return refusal

    # -- changes ----------------------------------------------------------------------------------------
    def begin(self, change: Change, typed: str = "") -> None:
        """Do what was offered and agreed to.

        Args:
            change: an offer.
            typed: the cluster's name as it was typed, where `change.type_name` asks for it.

        Raises:
            NotAgreed: read-only, another name, nothing to do, or another change is on its way.
        """
        if self.read_only:
            raise NotAgreed(READ_ONLY)
        if change.type_name and typed != change.type_name:
            raise NotAgreed("Nothing was changed: another name was typed.")
        if change.empty:
            raise NotAgreed("There is nothing to change.")
        if self.rolling is not None:
            raise NotAgreed("Another change is on its way: wait until it has ended.")
        runs = tuple(NodeRun(node.name, change.part, _plan_of(change, node)) for node in change.nodes)
        self._run(Run(title_of(change), change.kind, runs), lambda planes: self._roll_out(planes, change))

    def answer(self, yes: bool) -> None:
        """To the question of the change that is on its way."""
        self._answer = yes
        self._answered.set()

    def stop(self) -> None:
        """Begin nothing more and listen no longer; nodes go on by themselves. Does not wait."""
        if not self._ended.is_set():
            self._left_alone = run if (run := self.rolling) is not None and not run.decided else None
        self._ended.set()
        self._answered.set()

    def close(self) -> None:
        """Stop, wait a little for threads, and let go of all hosts."""
        self.stop()
        with self._lock:
            threads = [*self._asking.values(), self._rolling, self._examining, self._watching]
        for thread in threads:
            if thread is not None:
                thread.join(_END_SECONDS)
        if self._planes is not None:
            self._planes.close()

    # -- in threads -------------------------------------------------------------------------------------
    def _put(self, **what: object) -> None:
        with self._lock:
            self._publish(**what)

    def _publish(self, **what: object) -> None:
        """With the lock held."""
        old = self._snapshot
        self._snapshot = replace(old, generation=old.generation + 1, **what)  # type: ignore[arg-type]

    def _ask(self, doing: str, job: Callable[[ControlPlanes], None]) -> None:
        """Do this in the thread for it, as soon as what that is asked for is done; of several that wait only the last
        is done. A plan need not wait for a reading, in which a node may not answer for long."""
        if self._make is None:
            self._put(problem=self.none)
            return
        with self._lock:
            self._next[doing] = job
            if doing in self._asking:
                return
            thread = self._asking[doing] = threading.Thread(target=self._work, args=(doing,), name=doing, daemon=True)
            self._publish(busy=self._busy, busy_since=time.monotonic())
        thread.start()

    def _examine(self) -> None:
        steps: tuple[Step, ...] = ()
        problem = ""
        try:
            steps = self._made().examine()
        except ClusterError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - the screen goes on and says it
            problem = f"A fault in looking why ({type(error).__name__}: {error})."
        self._put(examination=Examination(steps, problem, time.monotonic(), time.time_ns()), examining=False)

    @property
    def _busy(self) -> str:
        return next((doing for doing in ("planning", "reading") if doing in self._asking), "")

    def _work(self, doing: str) -> None:
        while True:
            with self._lock:
                job = self._next.pop(doing, None)
                if job is None or self._ended.is_set():
                    del self._asking[doing]
                    self._publish(busy=self._busy)
                    return
                if doing == "planning":
                    self._publish(refusal="")
            try:
                job(self._made())
            except ClusterError as error:
                self._could_not(doing, str(error))
            except Exception as error:  # noqa: BLE001 - the screen goes on and says it
                self._could_not(doing, f"A fault in {doing} ({type(error).__name__}: {error}).")

    def _made(self) -> ControlPlanes:
        assert self._make is not None
        with self._making:
            if self._planes is None:
                self._planes = self._make()
            return self._planes

    def _could_not(self, doing: str, sentence: str) -> None:
        if doing == "reading":
            self._put(problem=sentence)
        else:
            self._put(refusal=sentence)

    def _read(self, planes: ControlPlanes) -> None:
        reading = planes.read(lambda so_far: self._put(reading=so_far, problem=""))
        self._put(reading=reading, problem="")
        if self.rolling is not None or self._ended.is_set():
            return
        for node in reading.nodes:
            if (left := node.running) is not None:  # somebody's, or ours of an earlier run of the program
                self._follow(node, left)
                return

    def _follow(self, node: Node, left: RolloutFacts) -> None:
        part = next((part for part in Part if part.value == left.part), Part.APISERVER)
        by = f", begun by {left.who}" if left.who else ""
        run = Run(f"{left.part} {left.what} on {node.name}{by}", "follow", (NodeRun(node.name, part),))

        def job(planes: ControlPlanes) -> None:
            self._outcomes((planes.follow(node, left, self._tell, self._ended.is_set),))

        self._run(run, job)

    def _run(self, run: Run, job: Callable[[ControlPlanes], None]) -> None:
        planes = self._planes
        assert planes is not None
        now = time.monotonic()
        first = replace(run.nodes[0], since=now)
        self._put(run=replace(run, nodes=(first, *run.nodes[1:])))

        def work() -> None:
            problem = ""
            try:
                job(planes)
            except ClusterError as error:
                problem = str(error)
            except Exception as error:  # noqa: BLE001 - the screen goes on and says it
                problem = f"A fault ended it here ({type(error).__name__}: {error}); the node goes on by itself."
            try:
                if not self._ended.is_set():
                    self._look(planes, run)  # before it counts as ended: nobody sees the end with the states of before
                    self.read()
            except Exception as error:  # noqa: BLE001 - it must count as ended, whatever the nodes say now
                problem = problem or f"The nodes could not be looked at again ({type(error).__name__}: {error})."
            self._change_run(ended=True, question="", problem=problem)

        self._rolling = threading.Thread(target=work, name="rollout", daemon=True)
        self._rolling.start()

    def _watch(self) -> None:
        """Nodes whose marks are other ones than before are read again; the first time all are, since what was read may
        be older than the marks."""
        planes, reading = self._planes, self._snapshot.reading
        if planes is None or reading is None:
            return
        try:
            if reading.pods_wanted:  # only the API is read, which is little
                again = planes.read(lambda _: None)
                if self.rolling is None and again.nodes != reading.nodes:
                    self._put(reading=again)
                return
            marks = planes.marks(reading.nodes)
            changed = [node for node in reading.nodes if marks.get(id(node.host), "") != self._marks.get(id(node.host))]
            changed = [node for node in changed if id(node.host) in marks]
            self._marks.update(marks)
            if changed and self.rolling is None and not self._ended.is_set():
                before = {id(node.host): _newest(node) for node in changed}
                found = self._look_at(planes, changed)
                if any(_newest(node) != before[host] for host, node in found.items()):
                    self._forget_run()
                running = next((node for node in found.values() if node.running is not None), None)
                if running is not None and running.running is not None and self.rolling is None:
                    self._follow(running, running.running)
        except ClusterError:
            pass  # the next reading says it
        finally:
            self._watched = time.monotonic()

    def _forget_run(self) -> None:
        """A change that was made since says more than how ours came out."""
        with self._lock:
            if self._snapshot.run is not None and self._snapshot.run.ended:
                self._publish(run=None)

    def _look(self, planes: ControlPlanes, run: Run) -> None:
        """Look again at the nodes of a change."""
        reading = self._snapshot.reading
        if reading is not None:
            names = {one.node for one in run.nodes}
            self._look_at(planes, [one for one in reading.nodes if one.name in names])

    def _look_at(self, planes: ControlPlanes, nodes: Sequence[Node]) -> dict[int, Node]:
        """These nodes as they are now, by `id` of their hosts; published."""
        found = {id(node.host): node for node in planes.look(nodes)}
        with self._lock:
            reading = self._snapshot.reading
            if reading is None:
                return found
            known = tuple(found.get(id(node.host), node) for node in reading.nodes)
            if known != reading.nodes:
                self._publish(reading=replace(reading, nodes=known))
        return found

    def _roll_out(self, planes: ControlPlanes, change: Change) -> None:
        if change.node is not None and change.left is not None:
            undo = change.kind == "undo"
            outcome = planes.carry_on(change.node, change.left, undo, self._tell, self._question, self._ended.is_set)
            self._outcomes((outcome,))
            return

        def tell(node: str, step: str, detail: str) -> None:
            self._tell(node, step, detail)
            if step == "warning":
                self._change_run(reasons=planes.why_nothing(node))

        self._outcomes(planes.roll_out(change, tell, self._question, self._ended.is_set))

    def _change_run(self, **what: object) -> None:
        with self._lock:
            run = self._snapshot.run
            assert run is not None
            self._publish(run=replace(run, **what))  # type: ignore[arg-type]

    def _tell(self, node: str, step: str, detail: str) -> None:
        now = time.monotonic()
        with self._lock:
            run = self._snapshot.run
            assert run is not None
            nodes = tuple(
                replace(one, steps=(*one.steps[-MOST_STEPS:], (step, detail)), since=now)
                if one.node == node or len(run.nodes) == 1
                else one
                for one in run.nodes
            )
            self._publish(run=replace(run, nodes=nodes))

    def _outcomes(self, outcomes: Sequence[Outcome]) -> None:
        with self._lock:
            run = self._snapshot.run
            assert run is not None
            nodes = tuple(replace(one, outcome=out) for one, out in zip(run.nodes, outcomes, strict=True))
            self._publish(run=replace(run, nodes=nodes))

    def _question(self, node: str, sentence: str) -> bool:
        """Ask, and wait for the answer; no when the program ends meanwhile."""
        self._answered.clear()
        self._answer = False
        if self._ended.is_set():
            return False
        self._change_run(question=sentence)
        self._answered.wait()
        self._change_run(question="")
        return self._answer and not self._ended.is_set()


def _newest(node: Node) -> str:
    """The name of the last rollout on a node, "" for none."""
    return node.facts.rollouts[-1].id if node.facts is not None and node.facts.rollouts else ""


def title_of(change: Change) -> str:
    """What a change does, in words: `Arm apiserver of cp-1 (rate 0)`."""
    names = ", ".join(node.name for node in change.nodes) or ", ".join(job.node.name for job in change.jobs)
    of = f"{change.part.value} of {names}"
    if change.left is not None:
        what = f"{change.left.part} {change.left.what} on {names}"
        return f"Put back what was before: {what}" if change.kind == "undo" else f"Finish what was interrupted: {what}"
    if change.kind == "revert":
        return f"Put back what was there before us: {of}"
    return {"arm": f"Arm {of} (rate 0)", "off": f"Turn tracing of {of} off"}.get(
        change.name, f"Set the rate of {of} to {change.name}"
    )


def _plan_of(change: Change, node: Node) -> Plan | None:
    return next((job.plan for job in change.jobs if job.node is node), None)
