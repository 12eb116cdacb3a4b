"""Control planes as the screens need them: read, planned and rolled out by what `tui.clusters` has, over real hosts.

All of it takes its time and is called in worker threads. The hosts are made at the first reading, so that a program
whose Clusters screen is never opened connects to nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tui.cluster_feed import Change, Named, Reading
from tui.clusters import bundle, doctor, flavours, pods, probe, rollout
from tui.clusters import endpoint as endpoints
from tui.clusters.arriving import verifier
from tui.clusters.model import (
    ClusterError,
    Host,
    Mode,
    NodeFacts,
    NothingToPutBack,
    Part,
    ReachError,
    RolloutFacts,
    Tell,
    Wish,
)
from tui.clusters.reach.local import LocalHost
from tui.clusters.rollout import Outcome
from tui.clusters.survey import Node, mirrored, survey, with_instances
from tui.clusters.targets import Target, targets
from tui.config import Settings
from tui.sampling import ASKS_NAME_ABOVE, operator, reverting
from tui.sampling_text import Job, going_on, left_over, three_way

if TYPE_CHECKING:
    from receiver.control import ControlClient
    from tui.clusters.reach.api import Leftover
    from tui.clusters.reach.ssh import SshHost, Tunnel

NOBODY: Final = (
    "No control plane was found on this machine: start k8s-trace-tui on a control-plane node as root, or with "
    "--host ssh://USER@HOST or --context CONTEXT."
)
EXAMINE_SECONDS: Final = 20.0
"""For all of a look at why nothing arrives; the operator sits before it."""
_BY_POD: Final = "the Clusters screen asks whether a pod of ours may read it"
_RECEIVER_SECONDS: Final = 5.0
"""For the receiver that was started together with the screens."""


_MARKS: Final = r"""
directory=$1; shift
{
    for file in "$ROOT$directory"/* "$ROOT"/var/lib/k8s-trace-tui-rollouts/rollouts/*/journal; do
        stat -c '%n %i %s %Y %Z' "$file"
    done
    for file in "$@"; do stat -c '%n %i %s %Y %Z' "$ROOT$file"; done
    ls "$ROOT"/var/log/pods/kube-system_kube-apiserver-*/* "$ROOT"/var/log/pods/kube-system_etcd-*/*
} 2>/dev/null | cksum
"""


def _tunnel_ports(node: Node, endpoint: str = "") -> set[int]:
    """The ports of a node's loopback that spans come from: those of its configuration, else where they would be sent
    to."""
    sending = [state.endpoint for state in node.states if state.mode in (Mode.ARMED, Mode.SAMPLING)]
    found = [one for said in ([endpoint] if endpoint else sending or [""]) for one in probe.addresses(said)]
    ports = (int(one.rpartition(":")[2]) for one in found if probe.loopback(one) and not one.startswith("unix:"))
    return {port for port in ports if 0 < port < 65536}


def _image(hosts: Sequence[Host]) -> str:
    from tui.clusters.reach.api import image_of_pods

    return image_of_pods(hosts)


class RealControlPlanes:
    """Those of the command line, of the settings, or of this machine."""

    def __init__(self, settings: Settings, named: Named, database: Path) -> None:
        """Nothing is opened.

        Args:
            settings: name hosts and contexts where the command line does not.
            named: by the command line.
            database: of the receiver here.
        """
        self._settings = settings
        self._named = named
        self._database = database
        self._lock = threading.Lock()
        self._targets: tuple[Target, ...] | None = None
        self._pods_agreed = False
        self._nodes: dict[int, tuple[Node, float]] = {}
        """By host: as they were read last, and when that began."""
        self._tunnels: dict[tuple[int, int], Tunnel] = {}
        """By host and the port there."""
        self._receiver_seen = False
        self._opening = threading.Lock()
        self._closed = False

    # -- reading ----------------------------------------------------------------------------------------
    def read(self, say: Callable[[Reading], None]) -> Reading:
        """Look at every node; never changes anything there.

        Args:
            say: takes what is known until now.

        Raises:
            ClusterError: there is none, or the API cannot be reached.
        """
        target = self._target()
        api = target.api
        asks = self._by_pods and not self._pods_agreed
        begun = time.monotonic()
        wanted = ""
        if asks:
            names = ", ".join(host.name.partition(" ")[0] for host in target.hosts)
            wanted = f"A privileged pod of ours, for as long as this program runs, reads the files of {names}; "
            wanted += f"{_image(target.hosts)}."

        def made(*remarks: str, leftovers: tuple[Leftover, ...] = ()) -> Reading:
            first = (target.problem,) if target.problem else ()
            remarks = (*first, *remarks)
            return Reading(self._known(target), target.cluster, target.protected, wanted, remarks, leftovers)

        def found(node: Node) -> None:
            self._know(node, begun)
            say(made())

        if asks and api is not None:
            for node in mirrored(api, target.hosts):
                self._know(node, begun)
        else:
            say(made())
            survey(target.hosts, found=found)
        if api is not None:
            for node in with_instances(self._known(target), api):
                self._know(node, begun)
        say(made())
        leftovers: tuple[Leftover, ...] = ()
        if api is not None and self._by_pods:
            with suppress(ClusterError):
                mine = {getattr(host, "pod", "") for host in target.hosts}
                leftovers = tuple(one for one in api.leftovers() if one.name not in mine)
        return made(*self._tunnel_remarks(self._known(target)), leftovers=leftovers)

    def look(self, nodes: Sequence[Node]) -> tuple[Node, ...]:
        """These nodes as they are now, beside a reading that may wait for others. Does not raise."""
        begun = time.monotonic()
        found: Sequence[Node] = survey([node.host for node in nodes])
        with suppress(ClusterError):
            if (api := self._target().api) is not None:
                found = with_instances(found, api)
        for node in found:
            self._know(node, begun)
        return tuple(found)

    def marks(self, nodes: Sequence[Node]) -> dict[int, str]:
        """What tells a change on these nodes for little: times and sizes of manifests, tracing files and journals, and
        which containers have logs. Nothing of a node that does not answer. Does not raise."""
        found: dict[int, str] = {}
        for node in nodes:
            if node.facts is None or not node.host.alive or (self._by_pods and not self._pods_agreed):
                continue
            files = [state.file for state in node.states if state.file]
            with suppress(ClusterError):
                done = node.host.run(_MARKS, (node.facts.manifest_directory, *files), timeout=10.0, most=4096)
                if done.code == 0:
                    found[id(node.host)] = done.out.decode("ascii", "replace").strip()
        return found

    def _know(self, node: Node, begun: float) -> None:
        """Remember a node, unless it was looked at again after that look began (`time.monotonic()`)."""
        with self._lock:
            before = self._nodes.get(id(node.host))
            if before is None or before[1] <= begun:
                self._nodes[id(node.host)] = (node, begun)

    def _known(self, target: Target) -> tuple[Node, ...]:
        """All nodes, as they are known."""
        with self._lock:
            return tuple(self._nodes[id(host)][0] if id(host) in self._nodes else Node(host) for host in target.hosts)

    def let_pods_in(self) -> None:
        """From now on pods of ours may read files.

        Raises:
            ClusterError: they would not be let in.
        """
        from tui.clusters.reach.api import ApiHost

        for host in self._target().hosts:
            if isinstance(host, ApiHost):
                host.check()
        self._pods_agreed = True

    def remove(self, leftovers: Sequence[Leftover]) -> None:
        """Remove pods of ours that were left.

        Raises:
            ClusterError: the API refuses, or one is not ours.
        """
        api = self._target().api
        if api is None:
            raise ReachError("No context is named in which pods could be.")
        for one in leftovers:
            api.remove(one)

    @property
    def _by_pods(self) -> bool:
        """Whether pods of ours are the only way to the nodes' files."""
        named, settings = self._named, self._settings
        hosts = named.hosts or (() if named.context else settings.hosts)
        return self._target().api is not None and not hosts

    def _target(self) -> Target:
        with self._lock:
            if self._closed:
                raise ReachError("The program ends.")
            if self._targets is None:
                named = self._named
                self._targets = targets(self._settings, named.hosts, named.context, node_image=named.node_image)
            if not self._targets or not self._targets[0].hosts:
                self._targets = None  # it may become one
                raise ClusterError(NOBODY)
            return self._targets[0]

    # -- spans of hosts behind ssh ------------------------------------------------------------------------
    def _tunnel_remarks(self, nodes: Sequence[Node]) -> list[str]:
        """Open a tunnel for each host behind ssh that was read, at the ports that its components send to. What does
        not work is said."""
        from tui.clusters.reach.ssh import SshHost

        said: list[str] = []
        for node in nodes:
            host = node.host
            if not isinstance(host, SshHost) or node.facts is None:
                continue
            ports = sorted(_tunnel_ports(node))
            said += filter(None, (self._tunnel(host, node.name, port) for port in ports))
        return list(dict.fromkeys(said))

    def _tunnel(self, host: SshHost, name: str, port: int) -> str:
        """Open the tunnel from a port of a host unless it is there; why it does not work, "" when it does or when
        nobody receives here, which the status line says."""
        from tui.clusters.reach.ssh import tunnel

        key = id(host), port
        with self._opening:
            if (opened := self._tunnels.get(key)) is not None:
                return opened.problem
            control = self._receiver()
            if control is None:
                return ""
            try:
                made = tunnel(host, control, name=name, port=port)
            except ClusterError as problem:
                control.close()
                return str(problem)
            with self._lock:
                if not self._closed:
                    self._tunnels[key] = made
                    return ""
        made.close()
        return ""

    def _receiver(self) -> ControlClient | None:
        """The receiver here; the first time it may just be starting."""
        from receiver.control import ControlClient, ControlError

        until = time.monotonic() + (0.0 if self._receiver_seen else _RECEIVER_SECONDS)
        while True:
            try:
                found = ControlClient.connect(self._database, 2.0)
            except (ControlError, OSError):
                if time.monotonic() >= until or self._closed:
                    self._receiver_seen = True  # it was waited for once
                    return None
                time.sleep(0.1)
                continue
            self._receiver_seen = True
            return found

    # -- plans ------------------------------------------------------------------------------------------
    def plan(self, wish: Wish, nodes: Sequence[Node]) -> tuple[Job, ...]:
        """What a wish would change on these nodes, which are read anew.

        Raises:
            ClusterError: a node cannot be changed so, or cannot be read.
        """
        jobs: list[Job] = []
        status, _ = doctor.receiver_status(self._database)
        receiving = endpoints.on_this_machine(status, self._settings.listeners)
        for node, facts in self._fresh(nodes):
            here = isinstance(node.host, LocalHost)
            plan = flavours.plan(facts, replace(wish, otherwise=receiving) if here else wish)
            plan = replace(plan, node=node.name)
            if not node.host.alive:
                plan = bundle.as_files_only(plan)
            pods.check_restart(facts, plan)
            warnings, questions = plan.warnings, plan.questions
            if wish.per_million is not None and node.host.alive and not plan.empty:
                warnings += self._ways_for(node, plan.endpoint)
                lost = doctor.unheard(node.host, node.name, plan.endpoint)
                if lost and wish.per_million:
                    questions += (lost,)
                elif lost:
                    warnings += (lost,)  # armed, it sends nothing yet
            jobs.append(Job(node, plan, warnings, questions))
        return tuple(jobs)

    def _ways_for(self, node: Node, endpoint: str) -> tuple[str, ...]:
        """Have the tunnel there that a wished endpoint needs, before anything sends to it."""
        from tui.clusters.reach.ssh import SshHost

        if not endpoint or not isinstance(node.host, SshHost):
            return ()
        said = (self._tunnel(node.host, node.name, port) for port in _tunnel_ports(node, endpoint))
        return tuple(filter(None, said))

    def plan_revert(self, part: Part, nodes: Sequence[Node]) -> tuple[tuple[Job, ...], tuple[str, ...]]:
        """What would put back the files before our first change, and the lines of what somebody changed since.

        Raises:
            ClusterError: a node cannot be read, or nothing was changed on any of them.
        """
        jobs: list[Job] = []
        lines: list[str] = []
        nothing = ""
        for node, facts in self._fresh(nodes):
            try:
                found = rollout.reversion(node.host, part)
            except NothingToPutBack as refused:
                nothing = str(refused)
                continue
            questions: tuple[str, ...] = ()
            for file in found.differing:
                lines += [f"{node.name}: {line}" if not at else line for at, line in enumerate(three_way(file))]
            if found.differing:
                names = ", ".join(file.path for file in found.differing)
                questions = (
                    f"Somebody changed {names} after us, and this would lose it; `off` takes tracing alone away.",
                )
            jobs.append(reverting(node, facts, replace(found.plan, node=node.name), questions))
        if not jobs:
            raise NothingToPutBack(nothing or "There is no node to put back.")
        return tuple(jobs), tuple(lines)

    def name_to_type(self, wish: Wish | None, nodes: Sequence[Node], high: bool = False) -> str:
        """The cluster's name (or the node's where it has none) for a protected context and for high rates: the wish's,
        or where there is none, as `high` says."""
        target = self._target()
        high = high or (wish is not None and (wish.per_million or 0) > ASKS_NAME_ABOVE)
        if not nodes or not (high or target.protected):
            return ""
        return target.cluster or nodes[0].name

    def _fresh(self, nodes: Sequence[Node]) -> list[tuple[Node, NodeFacts]]:
        """These nodes as they are now, without a rollout in the way."""
        found: list[tuple[Node, NodeFacts]] = []
        for node in survey([node.host for node in nodes]):
            if node.facts is None:
                raise ClusterError(f"{node.problem} Nothing was changed.")
            if node.distrust:
                raise ClusterError(f"{node.distrust} Nothing was changed.")
            if node.running is not None:
                raise ClusterError(f"{node.name}: {going_on(node.running)}: wait until it has ended.")
            if node.interrupted is not None:
                raise ClusterError(f"{node.name}: {left_over(node.interrupted)}.")
            found.append((node, node.facts))
        return found

    # -- changes ----------------------------------------------------------------------------------------
    def roll_out(
        self,
        change: Change,
        tell: Tell,
        ask: Callable[[str, str], bool],
        stopping: Callable[[], bool],
    ) -> tuple[Outcome, ...]:
        """One node after the other; one that does not come out well stops the rest."""
        busy = [job for job in change.jobs if not job.plan.empty]
        states = [
            replace(state, mode=Mode.SAMPLING) if state.part is change.part else state
            for job in busy
            for state in job.node.states
        ]
        sampled = any(job.plan.wish.per_million for job in busy)
        verify = verifier(self._database, states) if sampled and change.kind == "set" else None
        return rollout.Rollout(
            [(job.node.host, job.plan) for job in busy],
            tell,
            who=operator(),
            verify=verify,
            ask=ask,
            revert=change.kind == "revert",
            stopping=stopping,
        ).run()

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
        begun = rollout.carry_on(
            node.host, left.id, undo, who=operator(), ask=lambda question: ask(node.name, question)
        )
        return self._listen(node, begun, tell, stopping)

    def follow(self, node: Node, left: RolloutFacts, tell: Tell, stopping: Callable[[], bool]) -> Outcome:
        """Listen to a rollout that its node carries on.

        Raises:
            ClusterError: the node cannot be read.
        """
        return self._listen(node, left.id, tell, stopping)

    @staticmethod
    def _listen(node: Node, name: str, tell: Tell, stopping: Callable[[], bool]) -> Outcome:
        return rollout.follow(
            node.host, name, lambda step, detail: tell(node.name, step, detail), node=node.name, stopping=stopping
        )

    def why_nothing(self, node: str) -> tuple[str, ...]:
        """Why no span of a node arrives, as the doctor says."""
        target = self._target()
        hosts = [one.host for one in self._known(target) if one.is_called(node)] or list(target.hosts)
        steps = doctor.examine(self._database, hosts, seconds=15.0)
        return tuple(
            f"{one.text}{f' {doctor.WAY_OUT} {one.way_out}' if one.way_out else ''}"
            for one in steps
            if one.mark is doctor.Mark.BAD and one.node in ("", node)
        )

    def examine(self) -> tuple[doctor.Step, ...]:
        """Why nothing arrives, as the doctor says. Where pods of ours would be the way to the files, only the API is
        read, even where they were agreed to: none is made for this."""
        unreached, asks_pods = "", False
        nodes: Sequence[Node] = ()
        remarks: list[str] = []
        try:
            target = self._target()
            if asks_pods := self._by_pods and target.api is not None:
                assert target.api is not None
                nodes = mirrored(target.api, target.hosts)
            else:
                nodes = survey(target.hosts, EXAMINE_SECONDS / 2)
            if target.api is not None:
                nodes = with_instances(nodes, target.api)
            remarks = [*([target.problem] if target.problem else []), *self._tunnel_remarks(nodes)]
        except ClusterError as problem:
            unreached = "" if str(problem) == NOBODY else str(problem)
        hosts = [node.host for node in nodes]
        steps = doctor.examine(self._database, hosts, EXAMINE_SECONDS, nodes, unreached)
        if asks_pods:
            steps = [
                replace(one, way_out=_BY_POD)
                if one.part and one.mark is doctor.Mark.UNKNOWN and not one.way_out
                else one
                for one in steps
            ]
        return (*steps, *(doctor.Step(doctor.Mark.BAD, remark.strip().rstrip(".")) for remark in remarks))

    def close(self) -> None:
        """Close tunnels, hosts and pods. Does not raise."""
        with self._lock:
            self._closed = True
            opened, self._targets = self._targets or (), None
            tunnels = list(self._tunnels.values())
            self._tunnels.clear()
        for made in tunnels:
            with suppress(ClusterError, OSError):
                made.close()
        for target in opened:
            target.close()
