"""Nodes as they are found: every host read at once, with what its flavour makes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from tui.clusters import flavours
from tui.clusters.inspect import read_facts
from tui.clusters.model import ClusterError, Host, Mode, NodeFacts, Part, RolloutFacts, Sight, State

if TYPE_CHECKING:
    from tui.clusters.reach.api import Api, MirrorPod

_ROUNDS: Final = 4
"""Of reading: a manifest names files, a file may name another. More than this is no control plane's doing."""
_READERS: Final = 8


@dataclass(frozen=True, slots=True)
class Node:
    """A host as it was found: `facts` and `states`, or the `problem` why there are none. None of these: it is still
    being looked at."""

    host: Host
    facts: NodeFacts | None = None
    states: tuple[State, ...] = ()
    problem: str = ""

    @property
    def name(self) -> str:
        """The node's own name where it is known, else the host's."""
        if self.states:
            return self.states[0].node
        return (self.facts.hostname if self.facts else "") or self.host.name

    def is_called(self, name: str) -> bool:
        """Whether an operator who says `name` means this one."""
        return name in (self.name, self.host.name, self.facts.hostname if self.facts else "")

    def state_of(self, part: Part) -> State | None:
        """One component of it."""
        return next((state for state in self.states if state.part is part), None)

    @property
    def distrust(self) -> str:
        """Why its rollouts are not believed, or none may begin; "" where nothing is wrong with them."""
        return self.facts.distrust if self.facts else ""

    @property
    def awaited(self) -> bool:
        """It was not read yet."""
        return self.facts is None and not self.states and not self.problem

    @property
    def interrupted(self) -> RolloutFacts | None:
        """A rollout that did not end and that nothing on the node carries on any more."""
        return self._open(alive=False)

    @property
    def running(self) -> RolloutFacts | None:
        """A rollout that goes on right now."""
        return self._open(alive=True)

    def _open(self, alive: bool) -> RolloutFacts | None:
        rollouts = self.facts.rollouts if self.facts else ()
        return next((one for one in reversed(rollouts) if not one.ended and one.alive is alive), None)


def look(host: Host, seconds: float = 60.0) -> NodeFacts:
    """Read a host: what every flavour wants, then what the files that were found mention; in about `seconds` at most.

    Raises:
        ClusterError: it cannot be reached or read, or took longer.
    """
    until = time.monotonic() + seconds
    paths = list(flavours.wanted_paths())
    facts = read_facts(host, paths, timeout=seconds)
    for _ in range(_ROUNDS):
        more = [path for path in flavours.more_paths(facts) if path not in paths]
        if not more:
            break
        paths += more
        facts = read_facts(host, paths, timeout=max(1.0, until - time.monotonic()))
    return facts


def survey(hosts: Sequence[Host], seconds: float = 60.0, found: Callable[[Node], None] | None = None) -> list[Node]:
    """Read all hosts at once, in their order, each in about `seconds` at most. Never raises ClusterError: that is a
    node's `problem`.

    Args:
        hosts: to be read.
        seconds: for one of them.
        found: told each as soon as it was read, in a thread of its own.
    """

    def read(host: Host) -> Node:
        try:
            facts = look(host, seconds)
            node = Node(host, facts, flavours.states(facts))
        except ClusterError as problem:
            node = Node(host, problem=str(problem))
        if found is not None:
            found(node)
        return node

    if not hosts:
        return []
    pool = ThreadPoolExecutor(min(_READERS, len(hosts)), thread_name_prefix="survey")
    try:
        return list(pool.map(read, hosts))
    finally:
        # After Ctrl-C nobody waits for a host that hangs: who closes the hosts ends what runs there.
        pool.shutdown(wait=False, cancel_futures=True)


def mirrored(api: Api, hosts: Sequence[Host]) -> list[Node]:
    """Nodes as the API alone shows them, without touching anything: whether tracing is configured, but not how, which
    is in files of the node.

    Args:
        api: of the cluster.
        hosts: its nodes, as `targets` made them.

    Raises:
        ReachError: the API cannot be reached or refuses.
    """
    pods = api.mirror_pods()
    flavour = "static pods"

    def state(pod: MirrorPod) -> State | None:
        if pod.component == "kube-apiserver":
            part, configured = Part.APISERVER, pod.flag("tracing-config-file") is not None
        elif pod.component == "etcd":
            names = ("enable-distributed-tracing", "experimental-enable-distributed-tracing")
            part, configured = Part.ETCD, any(pod.flag(name) in ("", "true") for name in names)
        else:
            return None
        note = "it is configured; at what rate is in a file of the node" if configured else ""
        mode = Mode.UNKNOWN if configured else Mode.OFF
        return State(pod.node, part, mode, pod.version, note=note, flavour=flavour)

    sights = {node.name: Sight(node.version, node.os_image, api.address) for node in api.nodes()}
    found: list[Node] = []
    for host in hosts:
        name = host.name.removesuffix(" (through the API)")
        sight = sights.get(name, Sight())
        kind = flavours.from_afar(sight)
        states = kind.states_from_afar(name, sight) if kind is not None else ()
        states = states or tuple(one for pod in pods if pod.node == name if (one := state(pod)) is not None)
        found.append(Node(host, states=states, problem="" if states else f"The API shows no static pods of {name}."))
    return found


def with_instances(nodes: Sequence[Node], api: Api) -> list[Node]:
    """The same, each API server with the `service.instance.id` of its spans, as its lease tells (since 1.27)."""
    try:
        instances = {host: instance for instance, host in api.identities().items()}
    except ClusterError:
        return list(nodes)

    def known(state: State) -> State:
        if state.part is not Part.APISERVER or state.instance or state.node not in instances:
            return state
        return replace(state, instance=instances[state.node])

    return [replace(node, states=tuple(map(known, node.states))) for node in nodes]
