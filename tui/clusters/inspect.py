"""What is on a node: the answer of the script's `inspect`, bounded and validated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tui.clusters import bundle
from tui.clusters.model import MOST_BYTES, ClusterError, Container, Host, HostFile, NodeFacts, RolloutFacts

_MOST_FILES: Final = 200
_MOST_LACKS: Final = 8
_STATES: Final = {"done": "done", "rolled-back": "rolled back", "failed": "failed"}


def read_facts(host: Host, paths: Sequence[str] = (), *, timeout: float = 60.0) -> NodeFacts:
    """What a host's script finds; `paths` are files to read beside those that it always reads (the static pod
    manifests, kubelet's configuration, our tracing file, the configuration of k3s and RKE2).

    Raises:
        ReachError: there is no way to the host.
        ClusterError: its answer was cut off or is damaged.
    """
    arguments = ["inspect", *([] if host.alive else ["-f"]), *paths]
    return facts_of(host.name, list(bundle.ask(host, arguments, timeout=timeout)))


def file_of(line: Sequence[str]) -> HostFile:
    """A line `file PATH PROBLEM MODE UID GID LABEL TARGET CONTENT`.

    Raises:
        ValueError: it is not of that form.
    """
    path, problem, mode, uid, gid, label, target, content = line[1:]
    absent = problem == "absent"
    there = None if content == "-" else bundle.raw(content)
    if there is not None and len(there) > MOST_BYTES:
        raise ValueError("a file is larger than what is read")
    return HostFile(
        path=bundle.text(path),
        content=there,
        mode=int(mode, 8),
        uid=int(uid),
        gid=int(gid),
        label=bundle.text(label),
        target=bundle.text(target),
        problem="" if absent else bundle.text(problem),
    )


def facts_of(host: str, lines: Sequence[Sequence[str]]) -> NodeFacts:
    """The facts in an answer's lines.

    Raises:
        ClusterError: a line is not as the script writes it.
    """
    single: dict[str, str] = {}
    tools: set[str] = set()
    names: list[str] = []
    files: dict[str, HostFile] = {}
    containers: list[Container] = []
    listeners: list[str] = []
    services: set[str] = set()
    back_off: dict[str, tuple[int, int]] = {}
    lacks: list[str] = []
    words: dict[str, str] = {}
    rollouts: list[RolloutFacts] = []
    try:
        for line in lines:
            match line[0]:
                case "tool":
                    tools.add(line[1])
                case "entry":
                    names.append(bundle.text(line[1]))
                case "file":
                    found = file_of(line)
                    if len(files) < _MOST_FILES:
                        files[found.path] = found
                case "container":
                    containers.append(_container(line))
                case "listener":
                    listeners.append(bundle.plain(bundle.text(line[1])))
                case "service":
                    services.add(line[1])
                case "backoff":
                    back_off[bundle.plain(line[1])] = (int(line[3]), int(line[2]))
                case "lacks":
                    if len(lacks) < _MOST_LACKS:
                        lacks.append(bundle.plain(bundle.text(line[2]), bundle.SENTENCE))
                case "words":
                    words[bundle.plain(line[1])] = bundle.plain(bundle.text(line[2]), 400)
                case "rollout":
                    rollouts.append(_rollout(line))
                case "version" | "hostname" | "root" | "selinux" | "now" | "manifests" | "free" | "cri" | "lock":
                    single[line[0]] = line[1]
                case "distrust":
                    single[line[0]] = line[1]
                case _:
                    pass  # a login shell's greeting
        if single.get("version") != "1":
            raise ClusterError(f"{host}: what answered is not our script.")
        return NodeFacts(
            host=host,
            hostname=_name(single.get("hostname", "-")),
            root=single.get("root") == "yes",
            tools=frozenset(tools),
            manifest_directory=bundle.text(single.get("manifests", "-")),
            manifests=tuple(sorted(names)),
            files=files,
            containers=tuple(containers) if single.get("cri") == "yes" else None,
            listeners=tuple(listeners),
            services=frozenset(services),
            lock=_name(single.get("lock", "-")),
            back_off=back_off,
            lacks=tuple(lacks),
            words=words,
            rollouts=tuple(rollouts),
            distrust=_sentence(host, single.get("distrust", "-")),
            selinux=single.get("selinux") == "yes",
            free_bytes=int(single.get("free", "0")),
            now=int(single.get("now", "0")),
        )
    except (ValueError, IndexError):
        raise ClusterError(f"{host}: the answer is damaged; try again.") from None


def _name(field: str) -> str:
    text = bundle.plain(bundle.text(field))
    return "" if text == "-" else text


def _sentence(host: str, field: str) -> str:
    said = bundle.plain(bundle.text(field), bundle.SENTENCE)
    return "" if said == "-" else f"{host}: {said}."


def _container(line: Sequence[str]) -> Container:
    identity, name, state, attempt, code, started, finished, uid, log = line[1:]
    return Container(
        id=identity,
        name=name,
        running=state == "RUNNING",
        attempt=int(attempt),
        exit_code=int(code),
        started=_time(started),
        finished=_time(finished),
        pod_uid="" if uid == "-" else uid,
        log=_name(log),
    )


def _time(text: str) -> str:
    """CRI tells a time that has not come as one of 1970 or of the year 1."""
    return "" if text == "-" or text.startswith(("0001-", "1970-")) else text


def _rollout(line: Sequence[str]) -> RolloutFacts:
    identity, part, who, when, what, step, ended, alive, detail = line[1:]
    return RolloutFacts(
        id=identity,
        part=_name(part),
        who=_name(who),
        when=int(when),
        what=_name(what),
        step=_name(step),
        ended=_STATES.get(_name(ended), ""),
        alive=alive == "yes",
        detail=_name(detail),
    )
