"""What is known of control planes, and what may be asked of them: plain immutable objects and the two protocols.

A `Host` is a machine whose files can be read and written and on which a shell script can be run, whatever the way
there. A `Flavour` knows where a kind of control plane keeps its tracing configuration and what restarts it. Neither
knows the other: between them stand `NodeFacts` (what a host's script found) and `Plan` (what it shall do).

Paths are those of the node, as its processes see them, bytes are file contents as they are, times are seconds since
the epoch by the node's clock unless said otherwise. Everything that comes from a host is hostile: bounded on reading.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol

from tui.clusters.endpoint import FALLBACK

MOST_BYTES: Final = 1 << 20
"""Of one file that is read from a host; a manifest has some 5 KB."""


class ClusterError(Exception):
    """Something about a control plane cannot be done; str() is one sentence: what, why, the way out."""


class ReachError(ClusterError):
    """A host or an API server cannot be reached, or refuses what we are."""


class PlanRefused(ClusterError):
    """A change is not made, because it could break what runs; nothing was touched. Names file and line if it can."""


class NothingToPutBack(PlanRefused):
    """A revert finds nothing of ours: as it was before us, so it is."""


class NotYet(PlanRefused):
    """Something is in back-off, and a restart now would make it worse; in about `seconds` it should be over."""

    def __init__(self, sentence: str, seconds: int) -> None:
        super().__init__(sentence)
        self.seconds = seconds


class NodeAsks(PlanRefused):
    """It cannot be found out on the node whether it is safe; str() says what. Begun again with `topic` among what is
    agreed to, it goes on without knowing."""

    def __init__(self, sentence: str, topic: str) -> None:
        super().__init__(sentence)
        self.topic = topic


class Part(Enum):
    """A component of the control plane whose tracing can be read or changed; the value is its name for people."""

    APISERVER = "apiserver"
    ETCD = "etcd"
    KUBELET = "kubelet"


class Mode(Enum):
    """What a component does about tracing."""

    OFF = "off"  # no tracing configuration
    ARMED = "armed"  # configured, rate 0: only requests that are forced, or whose caller was sampled
    SAMPLING = "sampling"
    BROKEN = "broken"  # configured in a way that keeps it from starting, or that it ignores; `State.note` says why
    UNKNOWN = "unknown"  # could not be read; `State.note` says why


# --- hosts ------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Done:
    """How a script ended: its exit code, standard output, and the end of standard error (at most 8 KiB, as text)."""

    code: int
    out: bytes
    error: str


class Host(Protocol):
    """A machine that scripts can be run on as root."""

    @property
    def name(self) -> str:
        """As the operator names it: `this machine`, `ssh://root@cp-1`, `cp-2 (through the API)`, `file:///srv/cp`."""

    @property
    def alive(self) -> bool:
        """False for a directory that stands for a host: files are written there and nothing is waited for."""

    def run(
        self,
        script: str,
        arguments: Sequence[str] = (),
        *,
        stdin: bytes = b"",
        timeout: float = 30.0,
        most: int = 8 << 20,
    ) -> Done:
        """Run `sh -s -- ARGUMENTS` with this script as root, with the environment variable `ROOT` set to "" or to the
        directory that stands for the host's root. At most `most` bytes of output are taken.

        The script's text is quoted into the command or sent before `stdin`, as the way there needs it.

        Raises:
            ReachError: there is no way there, root is refused, or it took longer than `timeout` seconds.
        """

    def close(self) -> None:
        """End what was opened for it: connections, tunnels, pods."""


# --- what was found -----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class HostFile:
    """A file of a host. `content` is None where it is not there or was not read; `target` is where a symbolic link
    leads, "" for none; `label` the SELinux label, "" for none. `problem` says why it could not be read."""

    path: str
    content: bytes | None = None
    mode: int = 0o600
    uid: int = 0
    gid: int = 0
    label: str = ""
    target: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Container:
    """A container as CRI tells it. Times are RFC 3339 texts of the node, "" for none."""

    id: str
    name: str  # kube-apiserver, etcd, kube-controller-manager, kube-scheduler
    running: bool
    attempt: int
    exit_code: int
    started: str
    finished: str
    pod_uid: str
    log: str = ""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What the node's script found. `files` holds every file that a flavour may want, by path; `manifests` the names
    in the static pod directory (dot-files too); `listeners` who listens on the tracing port
    (`127.0.0.1:4317 otelcol`)."""

    host: str
    hostname: str
    root: bool
    tools: frozenset[str]
    manifest_directory: str  # "" when this is no node with static pods
    manifests: tuple[str, ...]
    files: Mapping[str, HostFile]
    containers: tuple[Container, ...] | None = None  # None: no CRI to ask
    listeners: tuple[str, ...] = ()
    services: frozenset[str] = frozenset()  # systemd units that are active: k3s, rke2-server, kube-apiserver, kubelet
    lock: str = ""  # who holds the lock on this host, "" for nobody
    back_off: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Controllers of which no container runs: in how many seconds at least and at most kubelet starts each again."""
    lacks: tuple[str, ...] = ()
    """What starts a pod again on this node and is known not to work, kubelet first: a sentence each, without its full
    stop and with the way out behind its last colon."""
    words: Mapping[str, str] = field(default_factory=dict)
    """Containers of which none runs: what the program of each said when it last ended badly."""
    rollouts: tuple[RolloutFacts, ...] = ()  # newest last
    distrust: str = ""
    """A sentence: why what lies there of rollouts is not believed, or stands in the way of one; "" where neither."""
    selinux: bool = False
    free_bytes: int = 0
    now: int = 0


@dataclass(frozen=True, slots=True)
class RolloutFacts:
    """A rollout as its journal on the node tells it."""

    id: str
    part: str
    who: str
    when: int
    what: str  # `arm`, `1 %`, `off`, `revert`
    step: str  # the last step that the journal holds
    ended: str  # "" while it runs or was interrupted; `done`, `rolled back`, `failed`
    alive: bool  # its watcher still runs
    detail: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """The tracing of one component on one node."""

    node: str
    part: Part
    mode: Mode
    version: str = ""  # "v1.34.2", "3.5.21", "" unknown
    per_million: int | None = None  # sampling rate
    endpoint: str = ""
    file: str = ""  # the tracing configuration file on the node
    instance: str = ""  # service.instance.id, where it is known
    note: str = ""  # one sentence on what is wrong or unknown
    read_only: str = ""  # one sentence on why it cannot be changed from here, "" when it can
    flavour: str = ""
    last_change: str = ""  # `12:01 alice: 1 %`
    down: bool = False
    """It is configured so and does not run; `note` says what is known of why."""

    @property
    def word(self) -> str:
        """What it does, for people and for scripts: `sampling`; `down` for what would, and does not run."""
        return "down" if self.down and self.mode in (Mode.ARMED, Mode.SAMPLING) else self.mode.value


# --- what shall be ------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator wants of a component: `per_million` None turns tracing off, 0 arms it. An `endpoint` of ""
    keeps the one that is configured, or takes `otherwise` where none is."""

    part: Part
    per_million: int | None
    endpoint: str = ""
    name: str = ""  # for the journal: `arm`, `1 %`, `off`
    otherwise: str = FALLBACK


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file: `before` None makes it, `after` None removes it. Mode, owner and label are those that it gets."""

    path: str
    before: bytes | None
    after: bytes | None
    mode: int = 0o600
    uid: int = 0
    gid: int = 0
    label: str = ""


class Trigger(Enum):
    """What makes the component read its files again."""

    NOTHING = "nothing"  # nothing changes, or nothing runs there
    MANIFEST = "manifest"  # kubelet sees another manifest: about 40 s without this API server
    STOP = "stop"  # the container is stopped by CRI and restarted: 5 s
    WATCH = "watch"  # files change, but not what the pod and its program read in them: it is only seen to stay well


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rollout on one node does. Files are written in this order, the manifest last; `diff` is a unified diff
    of all of them. `warnings` are sentences; `questions` must be answered before it begins (none are with --yes)."""

    node: str
    part: Part
    changes: tuple[FileChange, ...]
    trigger: Trigger
    diff: str
    price: str  # one sentence: how long what will be away
    warnings: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    snippet: str = ""  # what makes it last beyond `kubeadm upgrade`
    wish: Wish = field(default_factory=lambda: Wish(Part.APISERVER, 0))
    manifest: str = ""  # path of the manifest whose pod restarts
    container: str = ""  # name of the container that restarts
    health: tuple[str, ...] = ()  # URLs that must answer 200, in this order
    grace_seconds: int = 30  # the pod's terminationGracePeriodSeconds
    endpoint: str = ""  # where the component sends then, "" where it does not trace
    mends: bool = False
    """As it is configured now the component does not start, by our rules or its own last words: this is the way out."""

    @property
    def empty(self) -> bool:
        """Nothing to do: it is as wished already."""
        return not self.changes and self.trigger is Trigger.NOTHING


@dataclass(frozen=True, slots=True)
class Sight:
    """What the API shows of a cluster, or of one of its nodes, without touching anything: `version` of the API server
    (`v1.34.2-eks-1a2b3c`) or of the kubelet (`v1.33.5+k3s1`), `os_image` of the node (`Talos (v1.11.2)`), `address` of
    the API server as the kubeconfig has it. "" for what is unknown."""

    version: str = ""
    os_image: str = ""
    address: str = ""


class Flavour(Protocol):
    """A kind of control plane. Adding one touches no other file: `flavours` finds every class in its package."""

    name: str
    """For people: `kubeadm`, `k3s`."""
    rank: int
    """Where several recognise a node, the lowest has it: special kinds before general ones."""
    paths: Sequence[str]
    """Files by which it is told, or that it wants besides the static pod directory: they are always read."""

    def recognises(self, facts: NodeFacts) -> bool:
        """Whether this node is of that kind; the first flavour (by `rank`) that says yes has it."""

    def recognises_from_afar(self, sight: Sight) -> bool:
        """Whether what the API shows is of that kind, for nodes whose files were not read."""

    def more_paths(self, facts: NodeFacts) -> tuple[str, ...]:
        """Files that those in `facts` mention and that `states` and `plan` want too: a second round of reading."""

    def states(self, facts: NodeFacts) -> tuple[State, ...]:
        """The components on this node and what they do about tracing."""

    def states_from_afar(self, node: str, sight: Sight) -> tuple[State, ...]:
        """The components on a node that `recognises_from_afar`; `node` is its name."""

    def plan(self, facts: NodeFacts, wish: Wish) -> Plan:
        """What to change.

        Raises:
            PlanRefused: it cannot be done, or not safely; the sentence says why and the way out.
        """


Tell = Callable[[str, str, str], None]
"""How a rollout reports: node, step, detail."""
