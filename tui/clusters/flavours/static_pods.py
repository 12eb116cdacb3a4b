"""Static pods, as kubeadm, kind and minikube have them: a manifest each, and a tracing file that the API server mounts.

Timings and traps: facts/static-pod-rollout 1 to 7; versions: facts/kubernetes-tracing 1 and 4.
"""

from __future__ import annotations

import difflib
import hashlib
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final

from tui.clusters import manifest as manifests
from tui.clusters import rates, tracing_file, versions
from tui.clusters.manifest import Editor, Manifest
from tui.clusters.model import (
    Container,
    FileChange,
    HostFile,
    Mode,
    NodeFacts,
    Part,
    Plan,
    PlanRefused,
    State,
    Trigger,
    Wish,
)

OURS: Final = "/etc/kubernetes/k8s-trace-tui"
TRACING_FILE: Final = f"{OURS}/apiserver.yaml"
VOLUME: Final = "k8s-trace-tui"
ANNOTATION: Final = "k8s-trace-tui/tracing-checksum"
DEFAULT_ENDPOINT: Final = "localhost:4317"
FLAG: Final = "tracing-config-file"
_PROGRAM: Final = {Part.APISERVER: "kube-apiserver", Part.ETCD: "etcd"}
_CONTROLLERS: Final = ("kube-controller-manager", "kube-scheduler")
_PROGRAMS: Final = re.compile(
    rb"(?m)^\s*-\s*[\"']?(?:/\S*/)?(kube-apiserver|etcd)[\"']?\s*$|^\s*name: (kube-apiserver|etcd)\s*$"
)
_RECENT: Final = 600
"""Seconds after which the kubelet forgets a restart (its back-off is reset after about ten minutes)."""
_PRICE: Final = {
    Trigger.NOTHING: "Nothing restarts.",
    Trigger.STOP: "The API server of this node is away for about 5 s.",
    Trigger.MANIFEST: (
        "The API server of this node is away for 35 to 50 s; controller-manager and scheduler may restart."
    ),
}
_ETCD_PRICE: Final = (
    "etcd restarts: where it is the only member, reads and writes hang or fail for 65 to 70 s; controller-manager and "
    "scheduler may restart."
)
_OFTEN: Final = "Several changes in a row push controller-manager and scheduler into minutes of back-off."


class StaticPods:
    """Nodes whose control plane is manifests that the kubelet runs."""

    name = "static pods"
    rank = 50

    def recognises(self, facts: NodeFacts) -> bool:
        """Whether a manifest of an API server or etcd is there."""
        return bool(facts.manifest_directory) and any(
            _program(facts.files.get(path)) for path in _manifest_paths(facts)
        )

    def more_paths(self, facts: NodeFacts) -> tuple[str, ...]:
        """The tracing file that the API server's manifest names, where it lies on the node."""
        try:
            manifest = _manifest(facts, Part.APISERVER)
            container = manifest.container("kube-apiserver") if manifest is not None else {}
        except PlanRefused:
            return ()
        path = manifests.flag(container, FLAG) if manifest is not None else None
        on_node = manifests.host_path(manifest, container, path) if manifest is not None and path else ""
        return (on_node,) if on_node else ()

    def states(self, facts: NodeFacts) -> tuple[State, ...]:
        """API server and etcd, where they run here."""
        return tuple(state for part in _PROGRAM if (state := self._state(facts, part)) is not None)

    def _state(self, facts: NodeFacts, part: Part) -> State | None:
        node = facts.hostname or facts.host
        last = next((one for one in reversed(facts.rollouts) if one.part == part.value and one.ended == "done"), None)
        when = datetime.fromtimestamp(last.when, timezone.utc).strftime("%Y-%m-%d %H:%MZ") if last else ""
        change = f"{when} {last.who}: {last.what}" if last else ""
        try:
            manifest = _manifest(facts, part)
            if manifest is None:
                return None
            container = manifest.container(_PROGRAM[part])
            image = str(container.get("image") or "")
            if part is Part.APISERVER:
                found = _apiserver_state(facts, manifest, container, versions.kubernetes_of(image))
            else:
                found = _etcd_state(container, versions.etcd_of(image))
        except PlanRefused as refused:
            return State(node, part, Mode.UNKNOWN, note=str(refused), flavour=self.name, last_change=change)
        mode, rate, endpoint, file, instance, note, version = found
        return State(
            node, part, mode, version, rate, endpoint, file, instance, note,
            "" if facts.root else "it needs root on the node", self.name, change,
        )  # fmt: skip

    def plan(self, facts: NodeFacts, wish: Wish) -> Plan:
        """What to change.

        Raises:
            PlanRefused: it cannot be done, or not safely.
        """
        if wish.part not in _PROGRAM:
            raise PlanRefused(f"{facts.host}: {wish.part.value} cannot be changed from here; edit its configuration.")
        manifest = _manifest(facts, wish.part)
        if manifest is None:
            raise PlanRefused(f"{facts.host} has no manifest of {_PROGRAM[wish.part]}, so it does not run there.")
        _well(facts)
        if wish.endpoint:
            warnings = list(tracing_file.valid_endpoint(wish.endpoint))
        else:
            warnings = []
        changes, trigger, snippet = (_plan_apiserver if wish.part is Part.APISERVER else _plan_etcd)(
            facts, manifest, wish, warnings
        )
        price = _PRICE[trigger]
        if trigger is not Trigger.NOTHING:
            if wish.part is Part.ETCD:
                price = _ETCD_PRICE
            warnings.append(_OFTEN)
        if any(change.path == manifest.path for change in changes):
            warnings.append("`kubeadm upgrade` writes the manifest anew: put the lines below into its configuration.")
        else:
            snippet = ""
        return Plan(
            facts.hostname or facts.host, wish.part, tuple(changes), trigger, _diff(changes), price, tuple(warnings),
            (), snippet, wish, manifest.path, _PROGRAM[wish.part],
            _health(facts, wish.part) if trigger is not Trigger.NOTHING else (),
            int((manifest.pod.get("spec") or {}).get("terminationGracePeriodSeconds") or 30),
        )  # fmt: skip


# --- what is there -----------------------------------------------------------------------------------
def _manifest_paths(facts: NodeFacts) -> Iterable[str]:
    for name in facts.manifests:
        if not name.startswith("."):  # the kubelet looks at every other file, whatever its ending
            yield posixpath.join(facts.manifest_directory, name)


def _program(file: HostFile | None) -> str:
    """The program of a manifest that is told by its text, "" for none: a quick look before it is parsed."""
    text = (file.content if file is not None else None) or b""
    found = _PROGRAMS.search(text)
    return (found[1] or found[2]).decode() if found else ""


def _manifest(facts: NodeFacts, part: Part) -> Manifest | None:
    """The one manifest of a component.

    Raises:
        PlanRefused: two files are the same pod, or it cannot be read.
    """
    found: list[Manifest] = []
    for path in _manifest_paths(facts):
        file = facts.files.get(path)
        if file is None or file.content is None:
            if file is not None and file.problem and _PROGRAM[part] in path:
                raise PlanRefused(f"{path} cannot be read ({file.problem}); be root on the node.")
            continue
        if _PROGRAM[part].encode() not in file.content:
            continue
        one = manifests.read(path, file.content)
        if one is not None and (one.name == _PROGRAM[part] or _runs(one, _PROGRAM[part])):
            found.append(one)
    if len(found) > 1:
        names = " and ".join(one.path for one in found[:2])
        raise PlanRefused(
            f"{names} are both the pod {_PROGRAM[part]}, and the kubelet takes the one that comes last: "
            "move one out of that directory."
        )
    return found[0] if found else None


def _runs(manifest: Manifest, program: str) -> bool:
    try:
        manifest.container(program)
    except PlanRefused:
        return False
    return True


_Found = tuple[Mode, "int | None", str, str, str, str, str]


def _apiserver_state(facts: NodeFacts, manifest: Manifest, container: Mapping[str, Any], version: str) -> _Found:
    path = manifests.flag(container, FLAG)
    if path is None:
        return Mode.OFF, None, "", "", "", "", version
    on_node = manifests.host_path(manifest, container, path)
    if not on_node:
        note = f"--{FLAG} is {path}, which is under no mount of the pod: it cannot start again"
        return Mode.BROKEN, None, "", "", "", note, version
    file = facts.files.get(on_node)
    if file is None or (file.content is None and file.problem):
        note = f"{on_node} cannot be read" + (f" ({file.problem})" if file is not None else "")
        return Mode.UNKNOWN, None, "", on_node, "", note, version
    if file.content is None:
        return Mode.BROKEN, None, "", on_node, "", f"{on_node} is not there: it cannot start again", version
    try:
        server = versions.apiserver(version)
        found = tracing_file.read(file.content, server, on_node)
    except PlanRefused as refused:
        return Mode.BROKEN, None, "", on_node, "", str(refused), version
    rate = found.per_million or 0
    note = found.warnings[0] if found.warnings else ""
    if server.gate == "needed" and "APIServerTracing=true" not in (manifests.flag(container, "feature-gates") or ""):
        note = f"{version} needs --feature-gates=APIServerTracing=true, too"
        return Mode.BROKEN, rate, found.endpoint or DEFAULT_ENDPOINT, on_node, "", note, version
    mode = Mode.SAMPLING if rate else Mode.ARMED
    return mode, rate, found.endpoint or DEFAULT_ENDPOINT, on_node, "", note, version


def _etcd_state(container: Mapping[str, Any], version: str) -> _Found:
    names = versions.etcd(version)
    on = manifests.flag(container, names.enable)
    if on is None or on == "false":
        return Mode.OFF, None, "", "", "", "", version
    rate = int(manifests.flag(container, names.rate) or 0) if names.rate else 0
    endpoint = manifests.flag(container, names.address) or DEFAULT_ENDPOINT
    instance = manifests.flag(container, names.instance) or ""
    return (Mode.SAMPLING if rate else Mode.ARMED), rate, endpoint, "", instance, "", version


# --- what shall be -----------------------------------------------------------------------------------
_Planned = tuple[list[FileChange], Trigger, str]


def _plan_apiserver(facts: NodeFacts, manifest: Manifest, wish: Wish, warnings: list[str]) -> _Planned:
    container = manifest.container("kube-apiserver")
    version = versions.kubernetes_of(str(container.get("image") or ""))
    server = versions.apiserver(version)
    gates = manifests.flag(container, "feature-gates") or ""
    if server.gate in ("locked", "removed") and "APIServerTracing=" in gates:
        told = "does not know" if server.gate == "removed" else "does not let anybody change"
        if server.gate == "removed" or "APIServerTracing=false" in gates:
            raise PlanRefused(
                f"{manifest.path}: {version} {told} the feature gate APIServerTracing that --feature-gates names, and "
                "would not start again; take it out first."
            )
    path = manifests.flag(container, FLAG)
    on_node = manifests.host_path(manifest, container, path) if path else ""
    if path and not on_node:
        raise PlanRefused(f"{manifest.path}: --{FLAG} is {path}, which is under no mount of the pod; mend that first.")
    held = facts.files.get(on_node) if on_node else None
    if on_node and (held is None or held.problem):
        raise PlanRefused(f"{on_node} cannot be read ({held.problem if held else 'not looked at'}); be root there.")
    snippet = _snippet(version)
    if wish.per_million is None:
        return (*_without_tracing(facts, manifest, path, on_node), "")
    if server.gate == "needed" and "APIServerTracing=true" not in gates:
        raise PlanRefused(
            f"{facts.host}: {version} traces only with --feature-gates=APIServerTracing=true; "
            f"add it to {manifest.path}."
        )
    if server.gate in ("needed", "default") and "APIServerTracing=false" in gates:
        raise PlanRefused(f"{manifest.path} turns the feature gate APIServerTracing off; take that out first.")
    if wish.per_million and wish.per_million >= 100_000:
        warnings.append("At 10 % and more a busy API server drops spans: its exporter queues 2,048 of them.")
    changes: list[FileChange] = []
    if held is not None and held.content is not None:
        content = tracing_file.edited(held.content, server, on_node, wish.per_million, wish.endpoint)
        if content != held.content:
            changes.append(_changed(held, content))
    else:
        place = on_node or TRACING_FILE
        content = tracing_file.new(wish.per_million, wish.endpoint or DEFAULT_ENDPOINT, server)
        near = facts.files.get(manifest.path)
        label = near.label if near is not None and facts.selinux else ""
        stale = facts.files.get(place)
        before = stale.content if stale is not None else None
        if before != content:
            changes.append(FileChange(place, before, content, 0o600, 0, 0, label))
    warnings += tracing_file.read(content, server, on_node or TRACING_FILE).warnings
    checksum = hashlib.sha256(content).hexdigest()
    if path is None:
        editor = Editor(manifest, "kube-apiserver")
        editor.set_flag(FLAG, TRACING_FILE)
        editor.add_mount(VOLUME, OURS)
        editor.set_annotation(ANNOTATION, checksum)
        changes.append(_changed(facts.files[manifest.path], editor.done()))
        return changes, Trigger.MANIFEST, snippet
    if not changes:
        return [], Trigger.NOTHING, ""
    if held is None or held.content is None or _restarted_lately(facts, "kube-apiserver"):
        editor = Editor(manifest, "kube-apiserver")
        editor.set_annotation(ANNOTATION, checksum)
        changes.append(_changed(facts.files[manifest.path], editor.done()))
        return changes, Trigger.MANIFEST, snippet
    return changes, Trigger.STOP, ""


def _without_tracing(
    facts: NodeFacts, manifest: Manifest, path: str | None, on_node: str
) -> tuple[list[FileChange], Trigger]:
    if path is None:
        return [], Trigger.NOTHING
    editor = Editor(manifest, "kube-apiserver")
    editor.drop_flag(FLAG)
    editor.drop_mount(VOLUME)
    editor.drop_annotation(ANNOTATION)
    changes = [_changed(facts.files[manifest.path], editor.done())]
    file = facts.files.get(on_node)
    if on_node.startswith(OURS + "/") and file is not None and file.content is not None:
        changes.insert(0, FileChange(on_node, file.content, None, file.mode, file.uid, file.gid, file.label))
    return changes, Trigger.MANIFEST


def _plan_etcd(facts: NodeFacts, manifest: Manifest, wish: Wish, warnings: list[str]) -> _Planned:
    container = manifest.container("etcd")
    version = versions.etcd_of(str(container.get("image") or ""))
    names = versions.etcd(version)
    if names.refuse and wish.per_million is not None:
        raise PlanRefused(f"{facts.host}: {names.refuse}")
    if wish.per_million and not names.rate:
        raise PlanRefused(
            f"{facts.host}: etcd {version} has no sampling rate; arm it, and it follows the API server's."
        )
    editor = Editor(manifest, "etcd")
    flags = (names.enable, names.address, names.service, names.instance, *([names.rate] if names.rate else []))
    if wish.per_million is None:
        for flag in flags:
            editor.drop_flag(flag)
    else:
        editor.set_flag(names.enable, "true")
        if wish.endpoint or manifests.flag(container, names.address) is None:
            editor.set_flag(names.address, wish.endpoint or DEFAULT_ENDPOINT)
        if manifests.flag(container, names.instance) is None:
            editor.set_flag(names.instance, facts.hostname or manifests.flag(container, "name") or "etcd")
        if names.rate and (wish.per_million or manifests.flag(container, names.rate) not in (None, "0")):
            editor.set_flag(names.rate, str(wish.per_million))
    content = editor.done()
    if content == manifest.content:
        return [], Trigger.NOTHING, ""
    members = [one for one in (manifests.flag(container, "initial-cluster") or "").split(",") if one]
    if len(members) > 1:
        warnings.append("Change etcd only while all its members are healthy, one member at a time.")
    return [_changed(facts.files[manifest.path], content)], Trigger.MANIFEST, ""


def _changed(file: HostFile, content: bytes) -> FileChange:
    if file.target:
        raise PlanRefused(f"{file.path} is a link to {file.target}; change that file by hand, or make it a plain one.")
    return FileChange(file.path, file.content, content, file.mode, file.uid, file.gid, file.label)


def _well(facts: NodeFacts) -> None:
    """Controllers that are in back-off would be pushed further into it."""
    for name in _CONTROLLERS:
        of_it = sorted((one for one in facts.containers or () if one.name == name), key=lambda one: one.started)
        if of_it and not any(one.running for one in of_it):
            raise PlanRefused(
                f"{facts.host}: {name} does not run now, perhaps in back-off after restarts; wait until it does."
            )


def _restarted_lately(facts: NodeFacts, name: str) -> bool:
    """Whether the kubelet still remembers a restart, so that a stopped container would wait for its back-off."""
    of_it = [one for one in facts.containers or () if one.name == name]
    return any(one.attempt and _seconds_ago(facts, one) < _RECENT for one in of_it)


def _seconds_ago(facts: NodeFacts, container: Container) -> float:
    try:
        started = datetime.strptime(container.started[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    except ValueError:
        return 0.0
    return facts.now - started.timestamp()


def _health(facts: NodeFacts, part: Part) -> tuple[str, ...]:
    """Addresses that answer 200 when it is well; the API server's last, because a read of etcd goes there."""
    urls: list[str] = []
    if part is Part.ETCD:
        manifest = _manifest(facts, Part.ETCD)
        container = manifest.container("etcd") if manifest is not None else {}
        metrics = (manifests.flag(container, "listen-metrics-urls") or "").split(",")[0]
        if metrics.startswith("http://"):
            urls.append(f"{metrics.rstrip('/')}/health")
    manifest = _manifest(facts, Part.APISERVER)
    if manifest is None:
        raise PlanRefused(f"{facts.host} has no API server of its own to ask whether all is well; do it by hand.")
    container = manifest.container("kube-apiserver")
    probe = ((container.get("livenessProbe") or container.get("readinessProbe") or {}).get("httpGet")) or {}
    host = str(probe.get("host") or manifests.flag(container, "advertise-address") or "127.0.0.1")
    port = str(probe.get("port") or manifests.flag(container, "secure-port") or 6443)
    if not port.isdigit():
        port = manifests.flag(container, "secure-port") or "6443"
    scheme = str(probe.get("scheme") or "HTTPS").lower()
    place = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    return (*urls, f"{place}/livez", f"{place}/readyz")


def _snippet(version: str) -> str:
    """What makes it last beyond `kubeadm upgrade`: a part of its ClusterConfiguration."""
    listed = (versions.minor(version) or 0) >= 31
    argument = (
        f"  extraArgs:\n  - name: {FLAG}\n    value: {TRACING_FILE}"
        if listed
        else f"  extraArgs:\n    {FLAG}: {TRACING_FILE}"
    )
    return (
        f"apiVersion: kubeadm.k8s.io/{'v1beta4' if listed else 'v1beta3'}\nkind: ClusterConfiguration\napiServer:\n"
        f"{argument}\n  extraVolumes:\n  - name: {VOLUME}\n    hostPath: {OURS}\n    mountPath: {OURS}\n"
        "    readOnly: true\n    pathType: DirectoryOrCreate\n"
    )


def _diff(changes: Sequence[FileChange]) -> str:
    out: list[str] = []
    for change in changes:
        before = (change.before or b"").decode("utf-8", "replace").splitlines()
        after = (change.after or b"").decode("utf-8", "replace").splitlines()
        old = change.path if change.before is not None else "/dev/null"
        new = change.path if change.after is not None else "/dev/null"
        out += difflib.unified_diff(before, after, old, new, lineterm="")
    return "\n".join(out) + ("\n" if out else "")


def wish_name(per_million: int | None) -> str:
    """What a wish is called in the journal."""
    return "off" if per_million is None else "arm" if per_million == 0 else rates.text(per_million)
