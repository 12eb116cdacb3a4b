"""What goes to a node and what comes back: the script, the bundle on its standard input, and its answers.

A bundle and an answer are lines of tab-separated fields. Free text in answers stands behind an apostrophe where all of
it can be printed, else it is base64; an empty field is `-`, and the last line is END: without it something was cut off
on the way, and nothing of it is believed.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Final
from urllib.parse import urlsplit

from tui.clusters.model import (
    MOST_BYTES,
    ClusterError,
    Host,
    NodeAsks,
    NothingToPutBack,
    NotYet,
    Plan,
    PlanRefused,
    Trigger,
)

_SCRIPTS: Final = ("node_state.sh", "node_restart.sh", "node.sh")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")
_URL: Final = re.compile(r"https?://[A-Za-z0-9._:\[\]-]+(?:/[A-Za-z0-9._~/?=&%-]*)?")
_TOPIC: Final = re.compile(r"[a-z]{1,20}")
_SECONDS: Final = re.compile(r"[0-9]{1,5}")
SENTENCE: Final = 800
"""Characters of a sentence from a node at most: it may name two paths."""
_READ: Final = "/api/v1/namespaces/kube-system/configmaps?limit=1"
"""A read that etcd has to answer: health alone is 200 while etcd is frozen."""


def script() -> str:
    """The text that runs on a node: what it may trust, what starts a pod again there, then node.sh."""
    here = files("tui.clusters")
    return "".join(here.joinpath(name).read_text("utf-8") for name in _SCRIPTS)


def script_bundle() -> bytes:
    """What `finish` and `undo` read from their standard input: the script that goes on as the watcher."""
    return "\n".join(["bundle\t1", *_script_lines()]).encode()


def digest(content: bytes | None) -> str:
    """The sha256 of a file in hexadecimal, `-` for one that is not there."""
    return "-" if content is None else hashlib.sha256(content).hexdigest()


def plain(text: str, most: int = 300) -> str:
    """A value of one field: one line, at most so long."""
    return _CONTROL.sub(" ", text).strip()[:most] or "-"


def read_url(plan: Plan) -> str:
    """The etcd-backed read, at the last health address: the API server's, also where etcd is what restarts."""
    if not plan.health:
        return ""
    address = urlsplit(plan.health[-1])
    return f"{address.scheme}://{address.netloc}{_READ}"


def as_files_only(plan: Plan) -> Plan:
    """The same plan for a directory that stands for a host: nothing is restarted and nothing waited for."""
    return replace(plan, trigger=Trigger.NOTHING)


def bundle(
    plan: Plan,
    *,
    who: str,
    patience: int = 1,
    revert: bool = False,
    unwell: bool = False,
    agreed: Collection[str] = (),
) -> bytes:
    """What `begin` reads from its standard input.

    Raises:
        PlanRefused: a path or an address in the plan cannot go there.
    """
    if plan.trigger is not Trigger.NOTHING and not (plan.health and plan.container):
        raise PlanRefused(
            f"{plan.node}: the plan names no container or no health address, so nobody could watch over it."
        )
    lines = ["bundle\t1"]
    values = {
        "who": who,
        "node": plan.node,
        "part": plan.part.value,
        "what": plan.wish.name or ("revert" if revert else "change"),
        "trigger": plan.trigger.value,
        "manifest": plan.manifest,
        "container": plan.container,
        "grace": str(max(0, min(plan.grace_seconds, 3600))),
        "patience": str(max(1, min(patience, 20))),
        "read": read_url(plan),
        "revert": "yes" if revert else "no",
        "unwell": "allowed" if unwell else "no",
        "mends": "yes" if plan.mends else "no",
        "agreed": " ".join(sorted(agreed)),
    }
    lines += [f"{key}\t{plain(value)}" for key, value in values.items()]
    for url in plan.health:
        if not _URL.fullmatch(url):
            raise PlanRefused(f"{plan.node}: {plain(url)} is no address that the node could ask.")
        lines.append(f"health\t{url}")
    for change in plan.changes:
        if not change.path.startswith("/") or _CONTROL.search(change.path) or "//" in change.path:
            raise PlanRefused(f"{plan.node}: {plain(change.path)} is no path that can be written.")
        if change.after is not None and len(change.after) > MOST_BYTES:
            raise PlanRefused(f"{plan.node}: {change.path} would be larger than 1 MiB.")
        fields = [
            change.path,
            digest(change.before),
            digest(change.after),
            f"{change.mode:o}",
            str(change.uid),
            str(change.gid),
            plain(change.label),
            base64.b64encode(change.after or b"").decode() or "-",
        ]
        lines.append("\t".join(["file", *fields]))
    return "\n".join([*lines, *_script_lines()]).encode()


def _script_lines() -> tuple[str, ...]:
    """The end of a bundle; whatever script lies on a node is never run."""
    return f"script\t{base64.b64encode(script().encode()).decode()}", "END", ""


def text(field: str) -> str:
    """A field of free text.

    Raises:
        ValueError: it is neither behind an apostrophe nor base64.
    """
    return field[1:] if field.startswith("'") else raw(field).decode("utf-8", "replace")


def raw(field: str) -> bytes:
    """The bytes of a field; those of a file stand behind a `=`, so that an empty file is not none.

    Raises:
        ValueError: it is not base64.
    """
    return b"" if field == "-" else base64.b64decode(field.removeprefix("="), validate=True)


def ask(host: Host, arguments: Sequence[str], *, stdin: bytes = b"", timeout: float = 30.0) -> Iterator[list[str]]:
    """Run a verb of the script and give its answer, line by line, split into fields. The answer is whole.

    Raises:
        PlanRefused: the script refused; nothing was touched. NodeAsks, NotYet and NothingToPutBack say more.
        ClusterError: the answer was cut off, or the script could not run.
        ReachError: there is no way to the host.
    """
    done = host.run(script(), arguments, stdin=stdin, timeout=timeout)
    lines = done.out.decode("utf-8", "replace").split("\n")
    # A login shell may have said something before; END is the last line with words
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines or lines[-1] != "END":
        reason = _CONTROL.sub(" ", done.error).strip()[-300:] or f"it ended with code {done.code}"
        raise ClusterError(f"{host.name}: the answer was cut off: {reason}.")
    fields = [line.split("\t") for line in lines[:-1]]
    for line in fields:
        if (refusal := _refusal(host.name, line)) is not None:
            raise refusal
    return iter(fields)


def _refusal(name: str, line: Sequence[str]) -> PlanRefused | None:
    """What a line of the script says against doing what it was asked for."""
    if line[0] not in ("refused", "nothing", "asks", "later") or len(line) < 2:
        return None
    try:
        sentence = f"{name}: {plain(text(line[-1]), SENTENCE)}."
    except ValueError:
        return PlanRefused(f"{name}: the node refuses, and its reason was damaged on the way.")
    match line:
        case ["nothing", _]:
            return NothingToPutBack(sentence)
        case ["asks", topic, _] if _TOPIC.fullmatch(topic):
            return NodeAsks(sentence, topic)
        case ["later", seconds, _] if _SECONDS.fullmatch(seconds):
            return NotYet(sentence, int(seconds))
    return PlanRefused(sentence)
