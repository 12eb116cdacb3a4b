"""A change on its way: begun on a node, followed, finished or put back; and over several nodes, one after another.

What decides runs on the node (node.sh): once begun, a rollout ends well or is put back whether or not anybody
follows it. Here it is only started and listened to.
"""

from __future__ import annotations

import difflib
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tui.clusters import apiserver_pod, bundle, inspect, journal
from tui.clusters.model import (
    ClusterError,
    FileChange,
    Host,
    HostFile,
    NodeAsks,
    NotYet,
    Part,
    Plan,
    PlanRefused,
    Tell,
    Trigger,
    Wish,
)
from tui.clusters.yaml_text import YamlText

Verify = Callable[[Plan, str], "bool | None"]
"""Given the plan and when the new container started (RFC 3339, by the node's clock): whether a span that began after
it has arrived. It waits as long as it thinks right; None when that cannot be known (rate 0 and nothing was forced)."""

WAIT_AT_MOST: Final = 330.0
"""Seconds until what is in back-off on a node is no longer waited for; kubelet's own limit is 300 s."""
_PRICES: Final = {
    (Part.APISERVER, Trigger.MANIFEST): "The apiserver of this node is away for about 35 to 50 s.",
    (Part.APISERVER, Trigger.STOP): "The apiserver of this node is away for about 5 s.",
    (Part.ETCD, Trigger.MANIFEST): "65 to 70 s without writes and quorum reads where this etcd is the only member.",
}
"""Of a revert."""
_STAYS: Final = "Nothing restarts: what the pod and its program read in these files stays the same."
LOST_AFTER: Final = 300.0
"""Seconds without any way to a host until following it is given up; the watcher there is long done then."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a rollout on one node came out.

    `word` is `done`, `rolled back`, `failed`, `refused` (nothing was touched), `interrupted` (its watcher died: finish
    or undo), `unknown` (no way to the host any more; the watcher goes on), `not begun`. `started` is when the new
    container started, "" if none did; `spans` what `Verify` said.
    """

    node: str
    word: str
    detail: str = ""
    id: str = ""
    entries: tuple[journal.Entry, ...] = ()
    started: str = ""
    spans: bool | None = None

    @property
    def well(self) -> bool:
        """It is as was wished."""
        return self.word == "done"


@dataclass(frozen=True, slots=True)
class ThreeWay:
    """A file that somebody changed since our last change. None: it is not there. `written` is the sha256 of what we
    wrote last (`-` for no file)."""

    path: str
    original: bytes | None
    written: str
    now: bytes | None


@dataclass(frozen=True, slots=True)
class Reversion:
    """What goes back to before the first change: a plan, and the files that are not as we left them."""

    plan: Plan
    differing: tuple[ThreeWay, ...] = ()


def new_id() -> str:
    """A name for a rollout: sorts by time, and no two are alike."""
    return time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(3)


def begin(
    host: Host,
    plan: Plan,
    *,
    who: str,
    patience: int = 1,
    revert: bool = False,
    unwell: bool = False,
    name: str = "",
    agreed: Collection[str] = (),
) -> str:
    """Start a plan on its host and give the rollout's name. Where `host.alive` is False it has ended when this returns.

    `who` stands in the lock and the journal. `patience` multiplies how long a slow machine may take. `unwell` lets it
    begin on a control plane that does not work, as a way out of that. `agreed` are the topics of `NodeAsks` that were
    answered with yes.

    Raises:
        PlanRefused: something is not as it must be; nothing was touched. NotYet: it should be, some seconds later.
            NodeAsks: nobody knows, and somebody has to agree.
        ReachError: there is no way to the host. It may have begun all the same: look at its rollouts.
        ClusterError: the answer was cut off.
    """
    if not host.alive:
        plan = bundle.as_files_only(plan)
    identity = name or new_id()
    stdin = bundle.bundle(plan, who=who, patience=patience, revert=revert, unwell=unwell, agreed=agreed)
    return _started(host, ["begin", identity, bundle.plain(who)], stdin)


def finish(host: Host, identity: str, *, who: str = "", agreed: Collection[str] = ()) -> str:
    """Go on with an interrupted rollout, from where its journal ends; give its name. `follow` it as a new one.

    Raises:
        PlanRefused: it runs, has ended, or somebody else is at work; or etcd would restart while another of its
            members is not well. NodeAsks: nobody knows whether one is.
    """
    return _started(host, ["finish", identity, bundle.plain(who), " ".join(sorted(agreed))], bundle.script_bundle())


def undo(host: Host, identity: str, *, who: str = "", agreed: Collection[str] = ()) -> str:
    """Put an interrupted rollout's files back and wait until it is well; give its name.

    Raises:
        PlanRefused: as for `finish`.
    """
    return _started(host, ["undo", identity, bundle.plain(who), " ".join(sorted(agreed))], bundle.script_bundle())


def carry_on(host: Host, identity: str, back: bool, *, who: str, ask: Callable[[str], bool] | None = None) -> str:
    """`finish`, or `undo` with `back`, and `ask` somebody what the node cannot find out; give its name.

    Raises:
        PlanRefused: as they do. NodeAsks: the answer was no, or there is nobody to ask.
    """
    again = undo if back else finish
    agreed: set[str] = set()
    while True:
        try:
            return again(host, identity, who=who, agreed=agreed)
        except NodeAsks as asks:
            if asks.topic in agreed or ask is None or not ask(f"{asks} Go on all the same?"):
                raise
            agreed.add(asks.topic)


def unlock(host: Host) -> str:
    """Remove a lock whose owner is dead, and say whose it was.

    Raises:
        PlanRefused: there is none, or its owner lives.
    """
    for line in bundle.ask(host, ["unlock"]):
        if line[0] == "unlocked":
            try:
                return bundle.plain(bundle.text(line[1]))
            except ValueError:
                break
    raise ClusterError(f"{host.name}: the answer is damaged; try again.")


def entries_after(host: Host, identity: str, lines: int) -> tuple[list[journal.Entry | None], bool]:
    """The journal after its first `lines` lines, one entry a line (None for a damaged one), and whether the watcher
    lives."""
    found: list[journal.Entry | None] = []
    alive = False
    for line in bundle.ask(host, ["follow", identity, str(lines)]):
        if line[0] == "journal":
            found.append(journal.parse_line("\t".join(line[1:])))
        elif line[0] == "alive":
            alive = line[1] == "yes"
    return found, alive


def follow(
    host: Host,
    identity: str,
    tell: Callable[[str, str], None] | None = None,
    *,
    node: str = "",
    poll: float = 1.0,
    stopping: Callable[[], bool] | None = None,
) -> Outcome:
    """Follow a rollout to its end; each step is told as (step, detail). A way that breaks is tried again.

    `stopping` asks whether to stop listening; the watcher goes on without us then, and the outcome is `unknown`.
    """
    tell = tell or (lambda _step, _detail: None)
    node = node or host.name
    entries: list[journal.Entry] = []
    seen = 0
    lost: float | None = None
    end: journal.End | None = None
    lingering = 20
    while True:
        try:
            found, alive = entries_after(host, identity, seen)
        except PlanRefused:
            raise
        except ClusterError as error:  # no way there, or an answer that was cut off with it
            now = time.monotonic()
            if end is not None:
                lingering = 0
            elif lost is None:
                lost = now
                tell("lost", str(error))
            elif now - lost > LOST_AFTER:
                return Outcome(node, "unknown", str(error), identity, tuple(entries), _started_at(entries))
            alive, found = True, []
        else:
            if lost is not None:
                lost = None
                tell("found", "")
        seen += len(found)
        for entry in found:
            if entry is not None:
                entries.append(entry)
                tell(entry.step, entry.detail)
        end = journal.end_of(entries)
        # its lock goes with it: who begins another one right after this is not refused
        if end is not None and alive and lingering:
            lingering -= 1
            time.sleep(min(poll, 0.2))
            continue
        if end is not None:
            return Outcome(node, end.word, end.detail, identity, tuple(entries), _started_at(entries))
        if not alive and not found:
            return Outcome(
                node, "interrupted", "its watcher is dead: finish it or undo it", identity, tuple(entries), ""
            )
        if stopping is not None and stopping():
            return Outcome(node, "unknown", "it goes on without being followed", identity, tuple(entries), "")
        if alive:
            time.sleep(poll)


def reversion(host: Host, part: Part) -> Reversion:
    """What would restore a component's files byte for byte as they were before the first change.

    Raises:
        NothingToPutBack: nothing was changed, or it was put back already.
        PlanRefused: a file cannot be put back.
    """
    values: dict[str, list[str]] = {}
    originals: dict[str, tuple[FileChange, str]] = {}
    now: dict[str, HostFile] = {}
    try:
        for line in bundle.ask(host, ["original", part.value]):
            match line[0]:
                case "meta":
                    values.setdefault(line[1], []).append(bundle.text(line[2]))
                case "original":
                    path, mode, uid, gid, label, last, content = line[1:]
                    original = FileChange(
                        bundle.text(path),
                        None,
                        None if content == "-" else bundle.raw(content),
                        int(mode, 8),
                        int(uid),
                        int(gid),
                        "" if label == "-" else label,
                    )
                    originals[original.path] = (original, last)
                case "file":
                    file = inspect.file_of(line)
                    now[file.path] = file
                case _:
                    pass
        one = {key: found[0] for key, found in values.items()}
        manifest = one.get("manifest", "")
        grace = int(one.get("grace", "30"))
    except (ValueError, IndexError):
        raise ClusterError(f"{host.name}: the answer is damaged; try again.") from None
    changes = []
    differing = []
    for path, (original, last) in sorted(originals.items(), key=lambda item: (item[0] == manifest, item[0])):
        here = now.get(path, HostFile(path))
        if here.problem or here.target:
            raise PlanRefused(f"{host.name}: {path} cannot be put back: {here.problem or 'it is a symbolic link now'}.")
        if bundle.digest(here.content) not in (last, bundle.digest(original.after)):
            differing.append(ThreeWay(path, original.after, last, here.content))
        if here.content != original.after:
            changes.append(replace(original, before=here.content))
    trigger = Trigger.NOTHING
    if changes and host.alive:
        unread = {
            path
            for path, (_, last) in originals.items()
            if bundle.digest(now.get(path, HostFile(path)).content) != last
        }
        trigger = _trigger(part, changes, now.get(manifest), unread)
    plan = Plan(
        node=host.name,
        part=part,
        changes=tuple(changes),
        trigger=trigger,
        diff="".join(_diff(change) for change in changes),
        price=_STAYS if trigger is Trigger.WATCH else _PRICES.get((part, trigger), "Nothing restarts."),
        wish=Wish(part, None, name="revert"),
        manifest=manifest,
        container=one.get("container", ""),
        health=tuple(values.get("health", ())),
        grace_seconds=grace,
    )
    return Reversion(plan, tuple(differing))


def revert(host: Host, part: Part, *, who: str, force: bool = False, patience: int = 1) -> str:
    """Put back what was there before the first change, by a rollout as any other; give its name.

    Raises:
        PlanRefused: there is nothing to put back, or somebody changed a file since and `force` is False; `reversion`
            has the three versions.
    """
    found = reversion(host, part)
    if found.differing and not force:
        names = ", ".join(file.path for file in found.differing)
        raise PlanRefused(
            f"{host.name}: somebody changed {names} since; compare the versions, and revert by force to lose theirs."
        )
    return begin(host, found.plan, who=who, patience=patience, revert=True, unwell=True)


class Rollout:
    """Plans for several nodes, one after another: never a second one before the first is ready.

    `tell(node, step, detail)` hears every step: those of `journal.STEPS`, and `refused`, `lost`, `found`, `warning`.
    `verify` is asked after a node is ready; a node without spans is a warning, never another restart, and then `ask`
    (node, question) decides whether the next one is begun. It is asked, too, where a node cannot find out whether it is
    safe to begin; nobody to ask is a no there. A first node on which something is in back-off is refused, as its plan
    would be. A later one, when others have been changed already, is waited for, at most `WAIT_AT_MOST` seconds in all,
    and untouched meanwhile; `stopping` ends that.
    """

    def __init__(
        self,
        steps: Sequence[tuple[Host, Plan]],
        tell: Tell,
        *,
        who: str,
        verify: Verify | None = None,
        ask: Callable[[str, str], bool] | None = None,
        patience: int = 1,
        poll: float = 1.0,
        revert: bool = False,
        stopping: Callable[[], bool] | None = None,
    ) -> None:
        self._steps = tuple(steps)
        self._tell = tell
        self._who = who
        self._verify = verify
        self._ask = ask
        self._patience = patience
        self._poll = poll
        self._revert = revert
        self._stopping = stopping or (lambda: False)
        self._changed = False
        """A node has been changed already."""

    def run(self) -> tuple[Outcome, ...]:
        """Do it and give one outcome a node, in order; those behind one that did not come out well are `not begun`."""
        outcomes: list[Outcome] = []
        stop = ""
        for host, plan in self._steps:
            if not stop and self._stopping():
                stop = "it was stopped before this node"
            if stop:
                outcomes.append(Outcome(plan.node, "not begun", stop))
                continue
            if plan.empty:
                outcomes.append(Outcome(plan.node, "done", "it is so already"))
                continue
            outcome = self._one(host, plan)
            outcomes.append(outcome)
            if not outcome.well:
                stop = f"{plan.node} did not come out well"
            elif outcome.spans is False and plan is not self._steps[-1][1]:
                question = f"{plan.node} is ready, but no span of it has arrived. Go on with the next node?"
                if self._ask is not None and not self._ask(plan.node, question):
                    stop = f"no span of {plan.node} has arrived"
        return tuple(outcomes)

    def _one(self, host: Host, plan: Plan) -> Outcome:
        def tell(step: str, detail: str) -> None:
            self._tell(plan.node, step, detail)

        try:
            name = self._begin(host, plan, tell)
            outcome = follow(host, name, tell, node=plan.node, poll=self._poll, stopping=self._stopping)
        except PlanRefused as error:
            tell("refused", str(error))
            return Outcome(plan.node, "refused", str(error))
        except ClusterError as error:  # it may have begun all the same
            said = f"{error} `k8s-trace-tui sampling status` says whether it goes on there."
            tell("lost", said)
            return Outcome(plan.node, "unknown", said)
        self._changed = True
        if not outcome.well or self._verify is None or not outcome.started:
            return outcome
        spans = self._verify(plan, outcome.started)
        if spans:
            tell("spans", "")
        elif spans is False:
            tell("warning", "ready, but no span that began after the restart has arrived")
        return replace(outcome, spans=spans)

    def _begin(self, host: Host, plan: Plan, tell: Callable[[str, str], None]) -> str:
        """Begin as soon as the node lets us, and as agreed.

        Raises:
            PlanRefused: it does not; nothing was touched.
        """
        agreed: set[str] = set()
        until = time.monotonic() + WAIT_AT_MOST
        told = False
        while True:
            try:
                return begin(
                    host, plan, who=self._who, patience=self._patience, revert=self._revert, unwell=self._revert,
                    agreed=agreed,
                )  # fmt: skip
            except NodeAsks as asks:
                if asks.topic in agreed or self._ask is None or not self._ask(plan.node, f"{asks} Go on all the same?"):
                    raise
                agreed.add(asks.topic)
            except NotYet as not_yet:
                if not self._changed or time.monotonic() + not_yet.seconds > until or self._stopping():
                    raise
                if not told:
                    tell("wait", str(not_yet))
                    told = True
                self._pause(min(float(not_yet.seconds), 5 * self._poll))

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))


def _started(host: Host, arguments: Sequence[str], stdin: bytes = b"") -> str:
    for line in bundle.ask(host, arguments, stdin=stdin, timeout=120.0):
        if line[0] == "started" and len(line) == 2:
            return line[1]
    raise ClusterError(f"{host.name}: the answer is damaged; try again.")


def _trigger(part: Part, changes: Sequence[FileChange], manifest: HostFile | None, unread: Collection[str]) -> Trigger:
    """What has to restart for these changes. `manifest` is that of the pod as it is now, None where we never changed
    it; `unread` are files that are not as we wrote them last, which what runs may never have read."""
    if manifest is None:
        return Trigger.STOP
    change = next((change for change in changes if change.path == manifest.path), None)
    if manifest.content is None:
        return Trigger.STOP if change is None else Trigger.MANIFEST
    try:
        here = YamlText(manifest.path, manifest.content)
        # The kubelet knows a pod by a digest of what it parsed and of the file's name: equal, and nothing happens.
        if change is not None and not (
            change.after is not None and here.says_the_same(YamlText(change.path, change.after))
        ):
            return Trigger.MANIFEST
        read = apiserver_pod.reads(here) if part is Part.APISERVER else frozenset[str]()
    except PlanRefused:
        return Trigger.STOP if change is None else Trigger.MANIFEST
    doubtful = {*unread, *(other.path for other in changes)} - {manifest.path}
    return Trigger.STOP if (doubtful if read is None else doubtful & read) else Trigger.WATCH


def _started_at(entries: Sequence[journal.Entry]) -> str:
    for entry in reversed(entries):
        if entry.step == "started":
            return entry.detail
    return ""


def _diff(change: FileChange) -> str:
    old = (change.before or b"").decode("utf-8", "replace").splitlines(keepends=True)
    new = (change.after or b"").decode("utf-8", "replace").splitlines(keepends=True)
    lines = difflib.unified_diff(old, new, change.path, change.path if change.after is not None else "/dev/null")
    return "".join(line if line.endswith("\n") else line + "\n" for line in lines)
