"""The API server as a static pod: what it does about tracing, and what to change so that it does otherwise."""

from __future__ import annotations

import hashlib
import posixpath
import re
from dataclasses import dataclass
from typing import Final

from tui.clusters import pods, tracing_file, versions
from tui.clusters.endpoint import UNSET, chosen, warnings_of
from tui.clusters.manifest import Flag, Pod, pods_running
from tui.clusters.model import FileChange, Mode, NodeFacts, Part, Plan, PlanRefused, State, Trigger, Wish
from tui.clusters.pods import Author
from tui.clusters.tracing_file import BadTracing
from tui.clusters.versions import GATE, Gate, Version
from tui.clusters.yaml_text import YamlText

MENDED: Final = "20 to 35"
"""Seconds until an API server that was in a crash loop answers after its files are right: 13 to 17 s of kubelet's and
its start on a quiet machine; on a busy node of 2 cores 29 to 34 s were seen."""
FLAG: Final = "tracing-config-file"
GATES: Final = "feature-gates"
MUCH: Final = 100_000
"""Per million: from here on a busy server's exporter may drop spans."""


def state(facts: NodeFacts, flavour: str) -> State | None:
    """What the API server of this node does; None where none runs as a static pod."""
    try:
        pod = pods.only_pod(facts, Part.APISERVER)
        if pod is None:
            return None
        return pods.as_it_runs(facts, pod, _state(facts, pod, flavour))
    except PlanRefused as refused:
        return State(pods.node_name(facts), Part.APISERVER, Mode.UNKNOWN, note=str(refused), flavour=flavour)


def mentioned(facts: NodeFacts) -> tuple[str, ...]:
    """The tracing file of this node, if a manifest names one and it was found where it lies."""
    try:
        pod = pods.only_pod(facts, Part.APISERVER)
        flag = pod.flag(FLAG) if pod else None
    except PlanRefused:
        return ()
    if pod is None or flag is None:
        return ()
    path = pod.host_path(flag.value)
    return (path,) if path else ()


def reads(manifest: YamlText) -> frozenset[str] | None:
    """The tracing files on the node that the API server of a manifest reads when it starts; None where that is unknown.

    Raises:
        PlanRefused: its flags cannot be told.
    """
    found: set[str] = set()
    for pod in pods_running(manifest, pods.PROGRAMS[Part.APISERVER]):
        for flag in pod.flags():
            if flag.name == FLAG and flag.value:
                path = pod.host_path(flag.value)
                if not path:
                    return None
                found.add(path)
    return frozenset(found)


def _state(facts: NodeFacts, pod: Pod, flavour: str) -> State:
    version = versions.of_image(pod.image)
    rules = versions.apiserver(version) if version else None

    def made(mode: Mode, note: str = "", **more: object) -> State:
        tracing = more.get("tracing")
        known = tracing if isinstance(tracing, tracing_file.Tracing) else None
        return State(
            pods.node_name(facts),
            Part.APISERVER,
            mode,
            str(version) if version else "",
            (known.per_million or 0) if known else None,
            (known.endpoint or UNSET) if known else "",
            str(more.get("file", "")),
            note=note,
            flavour=flavour,
            last_change=pods.last_change(facts, Part.APISERVER),
        )

    flag = pod.flag(FLAG)
    if flag is None or not flag.value:
        return made(Mode.OFF)
    path = pod.host_path(flag.value)
    if not path:
        return made(Mode.BROKEN, str(_unmounted(pod, flag)), file=flag.value)
    file = facts.files.get(path)
    if file is None or file.problem:
        why = file.problem if file else "it was not looked at"
        return made(Mode.UNKNOWN, f"{path} could not be read: {why}.", file=path)
    if file.content is None:
        why = f'unable to read tracing configuration from "{flag.value}": no such file or directory'
        return made(Mode.BROKEN, f"{path} is missing: failed to read tracing config: {why}.", file=path)
    try:
        tracing = tracing_file.read(path, file.content, rules)
    except BadTracing as bad:
        return made(Mode.BROKEN, str(bad), file=path)
    except PlanRefused as refused:
        return made(Mode.UNKNOWN, str(refused), file=path)
    gate = _gate_problem(pod, version) if version and rules else ""
    if gate:
        return made(Mode.BROKEN, gate, file=path, tracing=tracing)
    note = tracing.warnings[0] if tracing.warnings else ""
    return made(Mode.SAMPLING if tracing.per_million else Mode.ARMED, note, file=path, tracing=tracing)


# --- plans ----------------------------------------------------------------------------------------
@dataclass(slots=True)
class _Draft:
    """A plan in the making: the manifest as it shall be, files before it, what to tell."""

    pod: Pod
    files: list[FileChange]
    warnings: list[str]
    endpoint: str = ""


def plan(facts: NodeFacts, wish: Wish, author: Author) -> Plan:
    """What to change for the wish; `author` would undo it.

    Raises:
        PlanRefused: it cannot be done, or not safely.
    """
    before = pods.only_pod(facts, Part.APISERVER)
    if before is None:
        raise PlanRefused(f"{facts.host}: no API server runs there as a static pod, so there is nothing to change.")
    pods.check_replaceable(facts, before)
    before.check_mounts()
    draft = _Draft(before, [], [])
    if wish.per_million is None:
        _turn_off(facts, draft)
    else:
        _turn_on(facts, draft, wish, wish.per_million)
    mends = pods.does_not_start(facts, before, _state(facts, before, ""))
    trigger = Trigger.NOTHING
    if draft.pod.yaml.content != before.yaml.content:
        trigger = Trigger.MANIFEST
    elif draft.files:
        # Where no CRI can be asked nothing runs, or the rollout finds that out: then no more is changed than need be.
        cheap = facts.containers is None or pods.stop_is_cheap(facts, before.container_name)
        trigger = Trigger.STOP if cheap else Trigger.MANIFEST
    if trigger is Trigger.MANIFEST and wish.per_million is not None:
        draft.pod = _bumped(facts, draft)
    return _plan(facts, wish, before, draft, trigger, author, mends)


def _plan(
    facts: NodeFacts, wish: Wish, before: Pod, draft: _Draft, trigger: Trigger, author: Author, mends: str
) -> Plan:
    changes = tuple(draft.files)
    if draft.pod.yaml.content != before.yaml.content:
        changes += (pods.changed(facts.files[before.path], draft.pod.yaml.content),)
    adds = bool(FLAG not in _names(before)) and FLAG in _names(draft.pod)
    questions: tuple[str, ...] = ()
    if trigger is not Trigger.NOTHING:
        recent, questions = pods.recent_changes(facts)
        draft.warnings += (*pods.check_controllers(facts, Part.APISERVER, mends=bool(mends)), *recent)
        if mends:
            draft.warnings.insert(0, mends)
    if adds and author.writes:
        draft.warnings.append(author.undoes("this"))
    elif author.configured and wish.per_million is None and changes:
        draft.warnings.append(
            f"{author.writes} turns tracing on again where the ClusterConfiguration holds {FLAG}; take it out there."
        )
    if changes and (wish.per_million or 0) >= MUCH:
        draft.warnings.append("At 10 % and more a busy API server drops spans: its exporter queues 2,048 of them.")
    return Plan(
        pods.node_name(facts),
        Part.APISERVER,
        changes,
        trigger,
        pods.unified(changes),
        _price(facts, before, trigger),
        tuple(draft.warnings),
        questions,
        snippet(versions.of_image(before.image)) if author.configured and adds else "",
        wish,
        before.path,
        before.container_name,
        health(before) if trigger is not Trigger.NOTHING else (),
        before.grace_seconds,
        draft.endpoint,
        bool(mends) and trigger is not Trigger.NOTHING,
    )


def _turn_on(facts: NodeFacts, draft: _Draft, wish: Wish, per_million: int) -> None:
    pod = draft.pod
    version = versions.of_image(pod.image)
    rules = versions.apiserver(version) if version else None
    if version is not None and rules is None:
        raise PlanRefused(f"{facts.host}: kube-apiserver {version} knows no tracing; it came with 1.22.")
    if wish.endpoint:
        tracing_file.check_wished(wish.endpoint)
    flag = pod.flag(FLAG)
    if flag is None:
        if rules is None:
            at = (*pod.at, "image")
            raise pod.refusal(
                at,
                f"the image {pod.image[:120]!r} names no version, so what its kube-apiserver accepts cannot be told; "
                "give it a version tag, or add the flag by hand once.",
            )
        path = pods.FILE
        pod = _with_our_directory(facts, pod).with_flag(FLAG, path)
    else:
        path = _where(pod, flag)
    if version is not None and rules is not None:
        pod = _with_gate(draft, pod, version)
    draft.pod = pod
    change = _file(facts, pod, path, wish, per_million, rules, fresh=flag is None)
    if change is not None:
        draft.files.append(change)
    tracing = tracing_file.read(path, (change.after if change else facts.files[path].content) or b"", rules)
    draft.warnings += tracing.warnings
    draft.endpoint = tracing.endpoint or UNSET
    draft.warnings += warnings_of(draft.endpoint)
    socket = re.match(r"unix://(/.*)", tracing.endpoint)
    if socket and not pod.host_path(socket[1]):
        raise PlanRefused(
            f"The socket {socket[1]} of the endpoint lies under no mount of {pod.path}, so the API server cannot see "
            "it: mount its directory first, or use host:port."
        )
    if re.match(r"unix(-abstract)?:(?!//)", tracing.endpoint):
        raise PlanRefused(
            f"{path}: the endpoint {tracing.endpoint[:120]!r} is taken for a host named unix, and not every API server "
            "starts with it: write unix:///path."
        )
    if tracing.endpoint.startswith("unix-abstract:"):
        draft.warnings.append("An abstract socket is only seen within the same network namespace: the node's own.")


def _file(
    facts: NodeFacts,
    pod: Pod,
    path: str,
    wish: Wish,
    per_million: int,
    rules: versions.ApiserverRules | None,
    *,
    fresh: bool,
) -> FileChange | None:
    """The change of the tracing file, None where it is as wished. `fresh`: it is ours, and may not be there yet."""
    file = facts.files.get(path)
    if file is None and not fresh:
        raise PlanRefused(f"{facts.host}: {path} was not read, so it is not changed; try again.")
    if file is not None and file.problem:
        raise PlanRefused(f"{facts.host}: {path} could not be read: {file.problem}; run as root.")
    if file is not None and file.target:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), file.target))
        raise PlanRefused(
            f"{facts.host}: {path} is a symbolic link to {target}, so something else makes it: change it there, "
            "or put a file in its place."
        )
    if file is None or file.content is None:
        if rules is None:
            raise PlanRefused(
                f"{facts.host}: {path} is missing, and the version it is for is unknown; make it by hand."
            )
        content = tracing_file.made(per_million, chosen(wish.endpoint, "", wish.otherwise), rules)
        return pods.new_file(facts, pod, path, content)
    try:
        after = tracing_file.edited(path, file.content, per_million, wish.endpoint)
        tracing_file.read(path, after, rules)
    except PlanRefused:
        # What an operator wrote is not thrown away; what is empty or ours is made anew.
        if rules is None or not (fresh or path == pods.FILE or not file.content.strip()):
            raise
        endpoint = chosen(wish.endpoint, tracing_file.endpoint_of(path, file.content), wish.otherwise)
        after = tracing_file.made(per_million, endpoint, rules, into=not fresh and path != pods.FILE)
    return None if after == file.content else pods.changed(file, after)


def _with_our_directory(facts: NodeFacts, pod: Pod) -> Pod:
    """With our directory mounted at its own path, unless a mount shows it there already."""
    if pod.host_path(pods.FILE) == pods.FILE:
        return pod
    for mount in pod.mounts():
        if mount.container_path == pods.DIRECTORY:
            at = (*pod.at, "volumeMounts", mount.index)
            raise pod.refusal(at, f"{pods.DIRECTORY} is mounted from elsewhere; remove that mount first.")
    index = next((i for i, name in enumerate(pod.volume_names()) if name == pods.OURS), None)
    if index is not None:
        raise pod.refusal(
            ("spec", "volumes", index), f"there is a volume {pods.OURS} already, not mounted here; remove it first."
        )
    return pod.with_directory(pods.OURS, pods.DIRECTORY)


def _turn_off(facts: NodeFacts, draft: _Draft) -> None:
    pod = draft.pod
    flag = pod.flag(FLAG)
    if flag is None:
        return
    path = pod.host_path(flag.value)
    pod, flags = pods.remembered(pod)
    pod = pod.without_flag(FLAG).without_directory(pods.OURS, pods.DIRECTORY).without_annotation(pods.CHECKSUM)
    for added in flags:
        pod = _without_gate(pod, added)
    draft.pod = pod.without_annotation(pods.ADDED)
    file = facts.files.get(path)
    if file is None or file.content is None:
        return
    # Elsewhere, where a manifest named a file that was missing, nothing goes that may hold somebody else's words.
    if path == pods.FILE or (tracing_file.as_made(file.content) and not file.target):
        draft.files.append(pods.changed(file, None))
    elif tracing_file.ours(file.content):
        draft.warnings.append(
            f"{path} stays, though we made it: it is not as we wrote it. `sampling revert` puts back what was there "
            "before our first change; where that was nothing, it takes the file away."
        )


def _bumped(facts: NodeFacts, draft: _Draft) -> Pod:
    """With the checksum of the tracing file that the new process will read: the parsed difference that makes the
    kubelet restart the pod."""
    flag = draft.pod.flag(FLAG)
    path = draft.pod.host_path(flag.value) if flag else ""
    after = next((change.after for change in draft.files if change.path == path), None)
    file = facts.files.get(path)
    content = after if after is not None else (file.content if file else None)
    checksum = hashlib.sha256(content or b"").hexdigest()
    before = pods.only_pod(facts, Part.APISERVER)
    # After a stop by CRI the annotation may be that of an older file with the very same bytes.
    again = before is not None and before.annotation(pods.CHECKSUM) == checksum
    return pods.noted(draft.pod.with_annotation(pods.CHECKSUM, f"{checksum}-again" if again else checksum))


def _where(pod: Pod, flag: Flag) -> str:
    """Where the file of the flag lies on the node."""
    if not flag.value:
        raise pod.refusal(flag.path, f"--{FLAG} has no value; give it one, or remove it.")
    path = pod.host_path(flag.value) if flag.value.startswith("/") else ""
    if not path:
        raise _unmounted(pod, flag)
    return path


def _unmounted(pod: Pod, flag: Flag) -> PlanRefused:
    mount = pod.covering(flag.value)
    if mount is None:
        why = "lies under no mount of the container, so no file of the node is behind it; mount its directory"
    elif mount.odd:
        why = "lies under a mount with subPathExpr, so where it is on the node cannot be told; use a plain mount"
    else:
        why = f"lies in the volume {mount.name[:60]!r} ({mount.kind or 'not there'}), not in a hostPath; use one"
    return pod.refusal(flag.path, f"{flag.value[:200] or 'an empty path'} {why}.")


# --- the feature gate -----------------------------------------------------------------------------
def _gates(pod: Pod) -> list[tuple[str, str, Flag]]:
    found: list[tuple[str, str, Flag]] = []
    for flag in pod.flags():
        if flag.name == GATES:
            for entry in flag.value.split(","):
                name, _, value = entry.strip().partition("=")
                found.append((name.rpartition(":")[2].strip(), value.strip().lower(), flag))
    return found


def _gate_problem(pod: Pod, version: Version) -> str:
    """Why the gate keeps this version from tracing (or from starting), "" if it does not."""
    rules = versions.apiserver(version)
    if rules is None:
        return f"kube-apiserver {version} knows no tracing; it came with 1.22."
    said = {name: (value, flag) for name, value, flag in _gates(pod)}
    value, flag = said.get(GATE, ("", None))
    line = f"{pod.path}, line {pod.yaml.line(flag.path)}: " if flag else f"{pod.path}: "
    off = value in ("false", "0", "f")
    if rules.gate is Gate.GONE and flag:
        return f"{line}kube-apiserver {version} does not start with the feature gate {GATE}, which is gone; remove it."
    if rules.gate is Gate.LOCKED and off:
        return f"{line}kube-apiserver {version} does not start with {GATE}=false, which is locked to true; remove it."
    if rules.gate is Gate.ON and (off or (not flag and said.get("AllBeta", ("",))[0] == "false")):
        return f"{line}kube-apiserver {version} has the feature gate {GATE} switched off; remove that first."
    if rules.gate is Gate.NEEDED and (off or (not flag and said.get("AllAlpha", ("",))[0] != "true")):
        does = "does not start with a tracing file" if version.at_least(1, 25) else "ignores the tracing file"
        return f"{line}kube-apiserver {version} {does} unless --{GATES}={GATE}=true is given."
    return ""


def _with_gate(draft: _Draft, pod: Pod, version: Version) -> Pod:
    """With the gate switched on where this version needs it and the manifest does not say no."""
    rules = versions.apiserver(version)
    assert rules is not None
    named = [flag for name, _, flag in _gates(pod) if name == GATE]
    if rules.gate is Gate.LOCKED and named and not _gate_problem(pod, version):
        draft.warnings.append(
            f"{pod.path}, line {pod.yaml.line(named[0].path)}: the feature gate {GATE} is gone in 1.37, which does not "
            "start while it is named; remove it before that upgrade."
        )
    problem = _gate_problem(pod, version)
    if not problem:
        return pod
    if rules.gate is not Gate.NEEDED or named:
        raise PlanRefused(problem)
    flag = pod.flag(GATES)
    if flag is None or not flag.value:
        return pods.noted(pod.with_flag(GATES, f"{GATE}=true"), [GATES])
    return pods.noted(pod.with_flag(GATES, f"{flag.value},{GATE}=true"), [f"{GATES}/{GATE}"])


def _without_gate(pod: Pod, added: str) -> Pod:
    flag = pod.flag(GATES)
    if flag is None:
        return pod
    entries = [entry for entry in flag.value.split(",") if entry.strip() != f"{GATE}=true"]
    if added == GATES and not entries:
        return pod.without_flag(GATES)
    return pod.with_flag(GATES, ",".join(entries)) if added.startswith(GATES) and entries else pod


# --- what it means --------------------------------------------------------------------------------
def health(pod: Pod) -> tuple[str, ...]:
    """URLs of the node's own API server that must answer 200: /livez, which knows about etcd, then /readyz. They are
    where its probes look: on its advertised address unless the manifest says otherwise."""
    bound = pod.value("bind-address")
    host = _probe(pod, "host") or (bound if bound not in ("", "0.0.0.0", "::") else "") or "127.0.0.1"
    host = host if re.fullmatch(r"[A-Za-z0-9.:-]{1,253}", host) else "127.0.0.1"
    port = _probe(pod, "port")
    if not re.fullmatch(r"[1-9]\d{0,4}", port):  # kubeadm 1.34 names it
        port = pod.value("secure-port")
    port = port if re.fullmatch(r"[1-9]\d{0,4}", port) else "6443"
    scheme = "http" if _probe(pod, "scheme") == "HTTP" else "https"
    base = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    return f"{base}/livez", f"{base}/readyz"


def _probe(pod: Pod, key: str) -> str:
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        found = pod.yaml.words((*pod.at, probe, "httpGet", key))
        if found:
            return found
    return ""


def _price(facts: NodeFacts, pod: Pod, trigger: Trigger) -> str:
    where = f"the API server of {pods.node_name(facts)}"
    alone = "where it is the only one, no API at all meanwhile, else the others serve"
    if trigger is Trigger.NOTHING:
        return "Nothing changes."
    if pods.down(facts, pod.container_name):
        return f"{where[0].upper()}{where[1:]} does not run now; it is back some {MENDED} s after this."
    if trigger is Trigger.STOP and pods.may_be_remembered(facts, Part.APISERVER):
        return (
            f"5 to 20 s without {where}, whose container is stopped and restarted; kubelet may know this pod from a "
            f"change before and wait 10 s with it: {alone}."
        )
    if trigger is Trigger.STOP:
        return f"About 5 s without {where}, whose container is stopped and restarted: {alone}."
    quick = "shutdown-send-retry-after" in _names(pod) or "shutdown-watch-termination-grace-period" in _names(pod)
    seconds = "15 to 20" if quick or pod.grace_seconds <= 5 else "35 to 50"
    return (
        f"{seconds} s without {where}: {alone}; controller-manager and scheduler may restart, and several changes in a "
        "row push them into minutes of back-off."
    )


def _names(pod: Pod) -> frozenset[str]:
    return frozenset(flag.name for flag in pod.flags())


def snippet(version: Version | None) -> str:
    """What makes it last beyond `kubeadm upgrade`: a list from v1beta4 (kubeadm 1.31), a map before."""
    gate = version is not None and (rules := versions.apiserver(version)) is not None and rules.gate is Gate.NEEDED
    modern = version is None or version.at_least(1, 31)
    arguments = [(FLAG, pods.FILE), *([(GATES, f"{GATE}=true")] if gate else [])]
    lines = [
        f"apiVersion: kubeadm.k8s.io/{'v1beta4' if modern else 'v1beta3'}",
        "kind: ClusterConfiguration",
        "apiServer:",
        "  extraArgs:",
        *(f"    - {{name: {name}, value: {value}}}" if modern else f"    {name}: {value}" for name, value in arguments),
        "  extraVolumes:",
        f"    - name: {pods.OURS}",
        f"      hostPath: {pods.DIRECTORY}",
        f"      mountPath: {pods.DIRECTORY}",
        "      readOnly: true",
        "      pathType: DirectoryOrCreate",
    ]
    return "\n".join([*lines, ""])
