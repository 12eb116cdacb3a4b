"""Control planes of a few nodes in memory: what a test does is all that happens to them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tui.cluster_feed import Change, Reading
from tui.clusters.doctor import Step
from tui.clusters.model import (
    ClusterError,
    Done,
    Mode,
    NodeFacts,
    NothingToPutBack,
    Part,
    Plan,
    PlanRefused,
    RolloutFacts,
    State,
    Tell,
    Trigger,
    Wish,
)
from tui.clusters.reach.api import Leftover
from tui.clusters.rollout import Outcome
from tui.clusters.survey import Node
from tui.sampling import ASKS_NAME_ABOVE
from tui.sampling_text import Job

STEPS = (
    ("begin", "alice@here, apiserver: arm"),
    ("check", "as it was read, and well"),
    ("backup", "in /var/lib/k8s-trace-tui-rollouts"),
    ("staged", ""),
    ("write", "/etc/kubernetes/manifests/kube-apiserver.yaml"),
    ("restart", "kubelet has another manifest"),
    ("gone", "the old kube-apiserver has ended"),
    ("started", "2026-01-01T00:00:00Z"),
    ("ready", "2026-01-01T00:00:20Z"),
)


@dataclass
class StillHost:
    """No way to anywhere: what runs a script on it is a fault."""

    name: str
    alive: bool = True

    def run(
        self,
        script: str,
        arguments: Sequence[str] = (),
        *,
        stdin: bytes = b"",
        timeout: float = 30.0,
        most: int = 8 << 20,
    ) -> Done:
        raise AssertionError("nothing runs here")

    def close(self) -> None:
        """Nothing is open."""


def node_of(name: str, mode: Mode = Mode.OFF, rate: int | None = None, **facts: object) -> Node:
    """A node with an API server."""
    state = State(
        name, Part.APISERVER, mode, "v1.34.2", rate, "localhost:4317" if mode is not Mode.OFF else "", flavour="kubeadm"
    )
    made = NodeFacts(f"ssh://root@{name}", name, True, frozenset(), "/etc/kubernetes/manifests", (), {})
    return Node(StillHost(f"ssh://root@{name}"), replace(made, **facts), (state,))  # type: ignore[arg-type]


def _rollouts(node: Node) -> tuple[RolloutFacts, ...]:
    return node.facts.rollouts if node.facts is not None else ()


@dataclass
class StillPlanes:
    """What `begun` holds was really begun. `gate` keeps a rollout before its step "gone" until it is set."""

    nodes: list[Node] = field(default_factory=lambda: [node_of("cp-1"), node_of("cp-2")])
    cluster: str = "prod-eu"
    protected: bool = False
    pods_wanted: str = ""
    refuses: str = ""
    reads: str = ""
    """Why reading fails."""
    ends: str = "done"
    spans: bool | None = None
    doubt: str = ""
    """What a node asks before what was interrupted goes on."""
    failure: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    begun: list[str] = field(default_factory=list)
    planned: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    pods: bool = False
    leftovers: list[Leftover] = field(default_factory=list)
    answers: threading.Event = field(default_factory=threading.Event)
    """A reading does not end before it is set."""
    closed: bool = False
    before: dict[str, State] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    """What the doctor says."""
    looks: int = 0
    """How often it was asked."""
    looking: threading.Event = field(default_factory=threading.Event)
    """Keeps it until it is set."""

    def __post_init__(self) -> None:
        self.gate.set()
        self.looking.set()
        self.answers.set()

    def examine(self) -> tuple[Step, ...]:
        self.looks += 1
        self.looking.wait(10)
        return self.steps

    def read(self, say: Callable[[Reading], None]) -> Reading:
        if self.reads:
            raise ClusterError(self.reads)
        reading = Reading(
            tuple(self.nodes),
            self.cluster,
            self.protected,
            "" if self.pods else self.pods_wanted,
            leftovers=tuple(self.leftovers),
        )
        say(reading)
        if not self.answers.wait(20):
            raise ClusterError("A node did not answer.")
        return reading

    def look(self, nodes: Sequence[Node]) -> tuple[Node, ...]:
        hosts = [node.host for node in nodes]
        return tuple(node for node in self.nodes if node.host in hosts)

    def marks(self, nodes: Sequence[Node]) -> dict[int, str]:
        now = {id(node.host): node for node in self.nodes}
        return {
            id(one.host): str((now[id(one.host)].states, _rollouts(now[id(one.host)])))
            for one in nodes
            if id(one.host) in now
        }

    def remove(self, leftovers: Sequence[Leftover]) -> None:
        self.leftovers = [one for one in self.leftovers if one not in leftovers]

    def let_pods_in(self) -> None:
        self.pods = True

    def plan(self, wish: Wish, nodes: Sequence[Node]) -> tuple[Job, ...]:
        self.planned.append(wish.name)
        if self.refuses:
            raise PlanRefused(self.refuses)
        return tuple(Job(node, self._plan(node, wish), self.warnings) for node in nodes)

    def _plan(self, node: Node, wish: Wish) -> Plan:
        return Plan(
            node.name,
            wish.part,
            (),
            Trigger.MANIFEST,
            "--- kube-apiserver.yaml\n+++ kube-apiserver.yaml\n@@ -1 +1,2 @@\n     - kube-apiserver\n"
            "+    - --tracing-config-file=/etc/kubernetes/k8s-trace-tui/apiserver.yaml\n",
            "The API server of this node is away for 35 to 50 s.",
            wish=wish,
        )

    def plan_revert(self, part: Part, nodes: Sequence[Node]) -> tuple[tuple[Job, ...], tuple[str, ...]]:
        jobs = [
            Job(node, self._plan(node, Wish(part, None, name="revert"))) for node in nodes if node.name in self.before
        ]
        if not jobs:
            raise NothingToPutBack("Nothing was changed here, or it was reverted already.")
        return tuple(jobs), ()

    def name_to_type(self, wish: Wish | None, nodes: Sequence[Node], high: bool = False) -> str:
        high = high or (wish is not None and (wish.per_million or 0) > ASKS_NAME_ABOVE)
        return self.cluster if high or self.protected else ""

    def roll_out(
        self,
        change: Change,
        tell: Tell,
        ask: Callable[[str, str], bool],
        stopping: Callable[[], bool],
    ) -> tuple[Outcome, ...]:
        outcomes: list[Outcome] = []
        for node in change.nodes:
            if outcomes and (not outcomes[-1].well or stopping()):
                outcomes.append(Outcome(node.name, "not begun", f"{outcomes[-1].node} did not come out well"))
                continue
            outcomes.append(self._one(node, change, tell, stopping))
            ask_ = outcomes[-1].spans is False and node is not change.nodes[-1]
            if ask_ and not ask(
                node.name, f"{node.name} is ready, but no span of it has arrived. Go on with the next node?"
            ):
                outcomes[-1] = replace(outcomes[-1], word="failed", detail="stopped by the operator")
        return tuple(outcomes)

    def _one(self, node: Node, change: Change, tell: Tell, stopping: Callable[[], bool]) -> Outcome:
        self.begun.append(f"{change.kind} {change.name} {node.name}")
        for step, detail in STEPS:
            if step == "gone":
                while not self.gate.wait(0.01):
                    if stopping():
                        return Outcome(node.name, "unknown", "it goes on without being followed")
                if self.failure:
                    for failed, why in self.failure:
                        tell(node.name, failed, why)
                    return Outcome(node.name, self.ends, self.failure[0][1])
            tell(node.name, step, detail)
        if self.spans is not None:
            tell(
                node.name, "spans" if self.spans else "warning", "" if self.spans else "ready, but no span has arrived"
            )
        self._become(node, change)
        return Outcome(node.name, "done", spans=self.spans)

    def _become(self, node: Node, change: Change) -> None:
        at = self.nodes.index(node)
        state = node.states[0]
        if change.kind == "revert":
            state = self.before.pop(node.name)
        else:
            self.before.setdefault(node.name, state)
            rate = change.jobs[0].plan.wish.per_million
            mode = Mode.OFF if rate is None else Mode.SAMPLING if rate else Mode.ARMED
            state = replace(state, mode=mode, per_million=rate, endpoint="" if rate is None else "localhost:4317")
        self.nodes[at] = replace(node, states=(state,))

    def carry_on(
        self,
        node: Node,
        left: RolloutFacts,
        undo: bool,
        tell: Tell,
        ask: Callable[[str, str], bool],
        stopping: Callable[[], bool],
    ) -> Outcome:
        if self.doubt and not ask(node.name, self.doubt):
            raise PlanRefused(self.doubt)
        self.begun.append(f"{'undo' if undo else 'finish'} {left.id} {node.name}")
        for step, detail in STEPS:
            tell(node.name, step, detail)
        facts = replace(node.facts, rollouts=()) if node.facts else None
        self.nodes[self.nodes.index(node)] = replace(node, facts=facts)
        return Outcome(node.name, "rolled back" if undo else "done")

    def follow(self, node: Node, left: RolloutFacts, tell: Tell, stopping: Callable[[], bool]) -> Outcome:
        for step, detail in STEPS[:5]:
            tell(node.name, step, detail)
        while not self.gate.wait(0.01):
            if stopping():
                return Outcome(node.name, "unknown", "it goes on without being followed")
        facts = replace(node.facts, rollouts=()) if node.facts else None
        self.nodes[self.nodes.index(node)] = replace(node, facts=facts)
        return Outcome(node.name, "done")

    def why_nothing(self, node: str) -> tuple[str, ...]:
        return (f"nobody listens where {node} sends to",)

    def close(self) -> None:
        self.closed = True


def interrupted(alive: bool = False) -> RolloutFacts:
    """A rollout that did not end."""
    return RolloutFacts("20260101-000000-abcdef", "apiserver", "bob@there", 0, "arm", "restart", "", alive, "stopping")
