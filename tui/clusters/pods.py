"""What plans for static pods have in common: the one manifest of a program, what a restart costs, files and diffs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Final

from tui.clusters.manifest import Pod, is_pod, pod_name, pods_running
from tui.clusters.model import (
    Container,
    FileChange,
    HostFile,
    Mode,
    NodeFacts,
    NotYet,
    Part,
    Plan,
    PlanRefused,
    State,
    Trigger,
)
from tui.clusters.yaml_text import YamlText

OURS: Final = "k8s-trace-tui"
"""The name of our volume, and what our annotations begin with."""
DIRECTORY: Final = "/etc/kubernetes/k8s-trace-tui"
FILE: Final = f"{DIRECTORY}/apiserver.yaml"
"""The tracing file that we make where the manifest names none."""
NEIGHBOUR: Final = "/etc/kubernetes/pki/ca.crt"
"""A file that the API server reads already: new files get its SELinux label."""
CHECKSUM: Final = f"{OURS}/tracing-checksum"
ADDED: Final = f"{OURS}/added"
"""Annotation with the flags that we added, where their names alone do not tell whose they are, and with the keys that
were there without a value."""
_FILLED: Final = "empty:"

PROGRAMS: Final = {Part.APISERVER: "kube-apiserver", Part.ETCD: "etcd"}
CONTROLLERS: Final = ("kube-controller-manager", "kube-scheduler")
NEEDED: Final = frozenset(
    {
        *(
            "awk",
            "base64",
            "cat",
            "chmod",
            "chown",
            "cp",
            "cut",
            "date",
            "df",
            "grep",
            "head",
            "id",
            "ln",
            "mkdir",
            "mv",
        ),
        *("readlink", "rm", "rmdir", "sed", "sha256sum", "sleep", "sort", "stat", "sync", "tail", "timeout", "tr"),
        *("uname", "wc"),
    }
)
"""Programs of the node without which node.sh begins nothing, as it lists them itself."""
LONGEST_BACK_OFF: Final = 300
"""Seconds: kubelet never waits longer before it starts a container again."""
_LATE_SECONDS: Final = 15
"""That kubelet may take to look again when a back-off has ended."""
RECENT_SECONDS: Final = 600
"""The kubelet forgets restarts, and with them the back-off, after about ten minutes."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who writes the manifests anew, and when: `writes` is the subject of a sentence (`kubeadm upgrade`), "" where they
    are written by hand. `configured`: whether a ClusterConfiguration makes a change last."""

    writes: str = ""
    configured: bool = False

    def undoes(self, what: str) -> str:
        """A warning that an addition will be lost, "" when it will not."""
        if not self.writes:
            return ""
        so = "unless the ClusterConfiguration says it too" if self.configured else f"so repeat {what} after it"
        return f"{self.writes} writes this manifest anew and so undoes it, {so}."


def node_name(facts: NodeFacts) -> str:
    """What the node calls itself, or how it was reached."""
    return facts.hostname or facts.host


def manifest_files(facts: NodeFacts) -> tuple[HostFile, ...]:
    """The files of the static pod directory that the kubelet reads: all without a dot in front."""
    directory = facts.manifest_directory.rstrip("/")
    if not directory:
        return ()
    found = (facts.files.get(f"{directory}/{name}") for name in sorted(facts.manifests) if not name.startswith("."))
    return tuple(file for file in found if file is not None)


def mentions(facts: NodeFacts, part: Part) -> bool:
    """Whether a manifest on this node runs that component, as far as its bytes tell."""
    program = PROGRAMS[part].encode()
    return any(program in (file.content or b"") for file in manifest_files(facts))


def pods_of(facts: NodeFacts, part: Part) -> tuple[Pod, ...]:
    """Every container of every manifest that runs the component.

    Raises:
        PlanRefused: a manifest that names it cannot be read or is no YAML.
    """
    program = PROGRAMS[part]
    found: list[Pod] = []
    for file in manifest_files(facts):
        if file.problem:
            raise PlanRefused(f"{facts.host}: {file.path} could not be read: {file.problem}; run as root.")
        if program.encode() not in (file.content or b""):
            continue
        try:
            text = YamlText(file.path, file.content or b"")
        except PlanRefused:
            # Only what may be this component's manifest matters; an API server names its etcd's certificates.
            if program in file.path.rpartition("/")[2] or f"name: {program}".encode() in (file.content or b""):
                raise
            continue
        if is_pod(text):
            found += pods_running(text, program)
    return tuple(found)


def only_pod(facts: NodeFacts, part: Part) -> Pod | None:
    """The pod that runs the component here, None where there is none.

    Raises:
        PlanRefused: there is more than one, or its file is not one that may be replaced.
    """
    pods = pods_of(facts, part)
    if not pods:
        return None
    pod = pods[0]
    for other in pods[1:]:
        if other.path == pod.path:
            raise other.refusal(other.at, f"a second container runs {pod.program}, so which one is meant is unclear.")
        raise two_files(pod.path, other.path, pod.program)
    name = pod.full_name
    for file in manifest_files(facts):
        if file.path == pod.path or name[1].encode() not in (file.content or b""):
            continue
        try:
            text = YamlText(file.path, file.content or b"")
        except PlanRefused:
            continue
        if is_pod(text) and pod_name(text) == name:
            raise two_files(pod.path, file.path, "/".join(name))
    return pod


def noted(pod: Pod, flags: Iterable[str] = ()) -> Pod:
    """With what we added written down in the manifest itself, for `remembered`; nothing where the names tell it."""
    known = pod.annotation(ADDED).split()
    entries = list(dict.fromkeys([*known, *flags, *(f"{_FILLED}{key}" for key in sorted(pod.filled))]))
    return pod if entries == known else pod.with_annotation(ADDED, " ".join(entries))


def remembered(pod: Pod) -> tuple[Pod, tuple[str, ...]]:
    """The pod, knowing which keys were empty before us, and the flags that we added."""
    entries = pod.annotation(ADDED).split()
    filled = frozenset(entry.removeprefix(_FILLED) for entry in entries if entry.startswith(_FILLED))
    flags = tuple(entry for entry in entries if not entry.startswith(_FILLED))
    return replace(pod, filled=filled), flags


def two_files(first: str, second: str, what: str) -> PlanRefused:
    """The refusal of two manifests for one pod."""
    return PlanRefused(
        f"{first} and {second} both make the pod of {what[:120]}, and the kubelet lets the one that sorts last win: "
        "move one of them out of the directory first."
    )


def check_replaceable(facts: NodeFacts, pod: Pod) -> None:
    """Refuse a manifest that is a symbolic link: a file that is renamed over it would take the link's place."""
    file = facts.files[pod.path]
    if file.target:
        raise PlanRefused(
            f"{pod.path} is a symbolic link to {file.target}, so something else makes it: change it there, "
            "or put the file itself into the directory."
        )


def check_controllers(facts: NodeFacts, part: Part, *, mends: bool = False) -> tuple[str, ...]:
    """Refuse while controllers are down or in back-off, and say how long that lasts; a warning instead where the
    component itself is down, or lives for a moment at each attempt (`mends`), since a change may be what repairs it.

    Raises:
        NotYet: they are.
    """
    if facts.containers is None:
        return ()
    missing = [
        name
        for name in CONTROLLERS
        if (known := [item for item in facts.containers if item.name == name])
        and not any(item.running for item in known)
    ]
    if not missing:
        return ()
    names, one = " and ".join(missing), len(missing) == 1
    if mends or down(facts, PROGRAMS[part]):
        return (f"{names} of {facts.host} are down too and come back some minutes after the API server.",)
    least, seconds = max((facts.back_off.get(name, (1, LONGEST_BACK_OFF)) for name in missing), key=lambda one: one[1])
    time = f"{least} to {seconds} s" if least < seconds - _LATE_SECONDS else f"about {seconds} s"
    raise NotYet(
        f"{facts.host}: {names} {'is' if one else 'are'} in back-off, and another restart would make that longer: try "
        f"again in {time}, when kubelet should have started {'it' if one else 'them'} (5 minutes at most).",
        seconds,
    )


def running(facts: NodeFacts, container: str) -> Container | None:
    """The container of that name that runs, the newest; None if none does or it cannot be asked."""
    alive = [item for item in facts.containers or () if item.name == container and item.running]
    return max(alive, key=lambda item: (item.started, item.attempt), default=None)


def down(facts: NodeFacts, container: str) -> bool:
    """Whether the container of that name was here and none of it runs; False where it cannot be asked."""
    return any(item.name == container for item in facts.containers or ()) and running(facts, container) is None


def why_down(facts: NodeFacts, container: str) -> str:
    """A sentence without its full stop: that it does not run, and as far as it is known why."""
    said = facts.words.get(container, "")
    why = f", its last words: {said}" if said else f", and {facts.lacks[0]}" if facts.lacks else ""
    return f"{container} does not run{why}"


def ended_by_tracing(facts: NodeFacts, container: str) -> bool:
    """Whether none of it runs and its program's own last words name tracing."""
    return down(facts, container) and "trac" in facts.words.get(container, "").lower()


def as_it_runs(facts: NodeFacts, pod: Pod, state: State) -> State:
    """The state as configured, and whether the component runs at all."""
    if not down(facts, pod.container_name) or state.mode in (Mode.BROKEN, Mode.UNKNOWN):
        return state
    said = f"{why_down(facts, pod.container_name)}."
    if ended_by_tracing(facts, pod.container_name):
        return replace(state, mode=Mode.BROKEN, note=said)
    return replace(state, down=True, note=said)


def does_not_start(facts: NodeFacts, pod: Pod, state: State) -> str:
    """A sentence for a plan: that by its own last words or by our rules (`state`) the component does not start as it is
    configured, and that this change is the way out; "" where nothing says so."""
    what = f"{pod.program} of {node_name(facts)}"
    if ended_by_tracing(facts, pod.container_name):
        return (
            f"{what} does not start with its tracing configuration ({facts.words[pod.container_name]}): this mends it."
        )
    if state.mode is Mode.BROKEN:
        return f"{what} has a broken tracing configuration ({state.note.rstrip('.')}): this mends it."
    return ""


def check_restart(facts: NodeFacts, plan: Plan) -> None:
    """Refuse a plan, also one that is only to be shown, that the node would refuse: something that starts a pod again
    is known not to work, or what a change and its watching over need is not there.

    Raises:
        PlanRefused: so it is; the sentence names what, and the way out.
    """
    if plan.empty:
        return
    found = list(facts.lacks[:1]) if plan.trigger in (Trigger.MANIFEST, Trigger.STOP) else []
    found += _not_there(facts, plan) if facts.tools else []  # of a node that says nothing, nothing is known
    if found:
        raise PlanRefused(f"{facts.host}: {'; '.join(found)}. Nothing was changed.")


def _not_there(facts: NodeFacts, plan: Plan) -> list[str]:
    """What `begin` of node.sh asks for and does not find, as far as a reading tells."""
    found = [f"{tool} is not on this node, and nothing is changed without it" for tool in sorted(NEEDED - facts.tools)]
    if plan.trigger is Trigger.NOTHING:
        return found
    if "crictl" not in facts.tools:
        found.append("crictl is not on this node: without it nobody sees whether the new container runs")
    elif facts.containers is None:
        found.append("CRI does not answer (crictl ps)")
    if not facts.tools & {"setsid", "nohup"}:
        found.append("neither setsid nor nohup is on this node: nothing would watch over the change")
    return found


def stop_is_cheap(facts: NodeFacts, container: str) -> bool:
    """Whether a stop by CRI brings the container back at once: it runs, and was not restarted within ten minutes."""
    now = running(facts, container)
    if now is None:
        return False
    if now.attempt > 0 and facts.now - _epoch(now.started) < RECENT_SECONDS:
        return False
    return not any(
        item.name == container and not item.running and facts.now - _epoch(item.finished) < RECENT_SECONDS
        for item in facts.containers or ()
        if item.pod_uid == now.pod_uid
    )


def may_be_remembered(facts: NodeFacts, part: Part) -> bool:
    """Whether kubelet may hold a back-off of the pod that runs, though its container was never restarted: the same pod
    was here before within ten minutes, which a rollback or a change and its opposite make, and its old containers are
    gone."""
    now = running(facts, PROGRAMS[part])
    if now is None or facts.now - _epoch(now.started) >= RECENT_SECONDS:
        return False
    recent = [one for one in facts.rollouts if one.part == part.value and 0 <= facts.now - one.when < RECENT_SECONDS]
    return len(recent) > 1 or any(one.ended == "rolled back" for one in recent)


def recent_changes(facts: NodeFacts) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A warning where this node was changed once within the last ten minutes, a question where it was more often: then
    the controllers are in back-off for minutes after the next restart (10, 20, 40, 80, 160, 300 s)."""
    if facts.containers is None:  # a directory that stands for a host: nothing restarts there
        return (), ()
    recent = [item for item in facts.rollouts if 0 <= facts.now - item.when < RECENT_SECONDS]
    if not recent:
        return (), ()
    times = "once" if len(recent) == 1 else f"{len(recent)} times"
    said = (
        f"{facts.host} was changed {times} in the last ten minutes: each restart more pushes controller-manager and "
        "scheduler further into back-off, up to 5 minutes."
    )
    return ((said,), ()) if len(recent) == 1 else ((), (said,))


def last_change(facts: NodeFacts, part: Part) -> str:
    """`12:01 alice: 1 %` of the newest rollout that ended well, "" for none. Local time of who looks."""
    done = [item for item in facts.rollouts if item.part == part.value and item.ended == "done"]
    if not done:
        return ""
    newest = max(done, key=lambda item: item.when)
    when = datetime.fromtimestamp(newest.when, tz=timezone.utc).astimezone()
    return (
        f"{when:%H:%M} {newest.who}: {newest.what}"
        if facts.now - newest.when < 86_400
        else (f"{when:%d %b %H:%M} {newest.who}: {newest.what}")
    )


def changed(file: HostFile, after: bytes | None) -> FileChange:
    """Other bytes for a file that is there: it keeps mode, owner and label."""
    return FileChange(file.path, file.content, after, file.mode, file.uid, file.gid, file.label)


def new_file(facts: NodeFacts, pod: Pod, path: str, after: bytes) -> FileChange:
    """A file that is not there yet: mode and owner of the manifest, or the user that the container runs as; the label
    of a neighbour that the container reads already."""
    manifest = facts.files[pod.path]
    user, group = pod.user
    neighbour = facts.files.get(NEIGHBOUR)
    label = (neighbour.label if neighbour and neighbour.content is not None else "") or manifest.label
    uid = manifest.uid if user is None else user
    gid = group if group is not None else manifest.gid
    return FileChange(path, None, after, manifest.mode, uid, gid, label)


def unified(changes: Iterable[FileChange]) -> str:
    """A unified diff of all of them, as `diff -u` prints it. Bytes that are no UTF-8 are replaced."""
    lines: list[str] = []
    for change in changes:
        before, after = (
            (side or b"").decode("utf-8", "replace").splitlines(keepends=True) for side in (change.before, change.after)
        )
        for line in difflib.unified_diff(
            before,
            after,
            "/dev/null" if change.before is None else change.path,
            "/dev/null" if change.after is None else change.path,
        ):
            lines.append(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n")
    return "".join(lines)


def _epoch(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 text with any number of decimals; 0 for none."""
    head, dot, rest = text.partition(".")
    zone = "".join(rest.lstrip("0123456789")) if dot else ""
    try:
        return datetime.fromisoformat((head + zone).replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return 0.0
