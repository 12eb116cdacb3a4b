"""`sampling` without a screen: how control planes trace, and changing it: looked at, planned, asked, rolled out.

Nothing is changed before every node that is meant was read and its plan made, and then only after `--yes` or an answer
on a terminal. Nodes are changed one after the other; one that fails stops the rest. What is asked and what happens goes
to standard error, the result to standard output.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from receiver.plain_text import shell_operand, shell_word
from receiver.store.place import default_place
from tui.clusters import doctor, drift, endpoint, flavours, pods, rates, rollout
from tui.clusters.afterwards import rate_after
from tui.clusters.arriving import of_database, per_state, verifier
from tui.clusters.load import expected_load
from tui.clusters.model import ClusterError, Host, Mode, NodeFacts, NothingToPutBack, Part, Plan, RolloutFacts, Wish
from tui.clusters.reach.local import LocalHost
from tui.clusters.rollout import Outcome
from tui.clusters.survey import Node, mirrored, survey, with_instances
from tui.clusters.targets import Target, targets
from tui.config import Settings
from tui.documents import dumps
from tui.printing import paper, warn
from tui.sampling_text import (
    Job,
    about,
    going_on,
    job_document,
    left_over,
    outcome_line,
    show,
    status_documents,
    step_lines,
    table,
    three_way,
)
from tui.terminal_text import printable

if TYPE_CHECKING:
    from tui.clusters.reach.api import Api

ASKS_NAME_ABOVE: Final = 10_000
"""Per million: a higher rate asks for the cluster's name."""
_STEP_WIDTH: Final = 12


class Refused(Exception):
    """Nothing was changed, because it was not agreed to or the command line does not fit; exit code 2."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says, after the command."""

    part: Part = Part.APISERVER
    per_million: int | None = None
    nodes: tuple[str, ...] = ()
    endpoint: str = ""
    dry_run: bool = False
    yes: bool = False
    as_json: bool = False
    read_only: bool = False
    force: bool = False
    cluster: str = ""
    """The context's name; "" where only hosts are known."""
    protected: bool = False
    database: Path = Path()
    """Of the receiver here."""
    listeners: tuple[str, ...] = ()
    """`[NAME=]ADDRESS` that the receiver here is to have."""


@dataclass(frozen=True, slots=True)
class Reach:
    """The control-plane nodes that are meant, and the API of their cluster where a context is named. `by_pods`: the
    nodes are reached by pods of ours, and by nothing else."""

    hosts: tuple[Host, ...]
    api: Api | None = None
    by_pods: bool = False
    cluster: str = ""
    protected: bool = False


@contextmanager
def reached(hosts: Sequence[str], context: str | None, node_image: str | None, settings: Settings) -> Iterator[Reach]:
    """The control planes of a command line, or of the settings, or this machine when it is one; let go of at the end.

    Raises:
        ClusterError: one of them cannot be meant.
    """
    found = targets(settings, hosts, context or "", node_image=node_image or "")
    try:
        for target in found:
            if target.problem:
                warn(target.problem)
        every = tuple(host for target in found for host in target.hosts)
        first = found[0] if found else Target("", ())
        by_pods = first.api is not None and not (hosts or (settings.hosts and not context))
        yield Reach(every, first.api, by_pods, first.cluster, first.protected)
    finally:
        for target in found:
            target.close()


def find(reach: Reach, asked: Asked, look_only: bool = False) -> list[Node]:
    """Read all hosts, and keep those that are wanted (all, where none are named).

    Where pods of ours are the way, a pod is a change of the cluster too: with `look_only` and without --yes only the
    API is read; else it is asked first, and before that, whether such pods would be let in.

    Raises:
        Refused: a wanted node is not among them, or pods are not agreed to.
        ClusterError: there is no host, the API cannot be reached, or pods of ours would not be let in.
    """
    if not reach.hosts:
        raise ClusterError(
            "No control plane was found on this machine: run this on a control-plane node as root, "
            "or name one with --host ssh://USER@HOST or --context CONTEXT."
        )
    if reach.by_pods and reach.api is not None:
        _tell_leftovers(reach.api, asked)
    if reach.by_pods and reach.api is not None and look_only and not asked.yes:
        nodes = mirrored(reach.api, reach.hosts)
    else:
        if reach.by_pods:
            _let_pods_in(reach, asked)
        nodes = survey(reach.hosts)
    if reach.api is not None:
        nodes = with_instances(nodes, reach.api)
    for name in asked.nodes:
        if not any(node.is_called(name) for node in nodes):
            known = ", ".join(node.name for node in nodes)
            raise Refused(f"There is no node {name} among {known}: check --node.")
    return [node for node in nodes if not asked.nodes or any(node.is_called(name) for name in asked.nodes)]


def _let_pods_in(reach: Reach, asked: Asked) -> None:
    from tui.clusters.reach.api import ApiHost, image_of_pods

    names = ", ".join(host.name.partition(" ")[0] for host in reach.hosts)
    if not asked.read_only:
        for host in reach.hosts:
            if isinstance(host, ApiHost):
                host.check()
    about_it = f"A privileged pod of ours, for as long as this takes, reads the files of {names}; "
    about_it += f"{image_of_pods(reach.hosts)}."
    if asked.yes and not asked.read_only:
        _say(about_it)
    agree(asked, f"{about_it} Go on?")


def _tell_leftovers(api: Api, asked: Asked) -> None:
    """Pods of an earlier run: on a terminal their removal is offered, else how to remove them is said. They may also be
    somebody's who is at work right now."""
    try:
        found = api.leftovers()
    except ClusterError:
        return  # what comes next says it better
    for one in found:
        sentence = f"A pod of ours was left on {one.node} at {one.created}, unless somebody is at work with it now"
        if _can_ask(asked) and not asked.read_only:
            try:
                agree(asked, f"{sentence}. Remove it?")
            except Refused:
                continue
            api.remove(one)
        else:
            where = f"--context {shell_word(api.context)} -n {shell_word(one.namespace)}"
            warn(f"{sentence}: kubectl {where} delete pod {shell_operand(one.name)}")


# --- status ------------------------------------------------------------------------------------------
def status(reach: Reach, asked: Asked) -> int:
    """Print the components of every node. 1 when a host could not be read, or its rollouts are not to be believed; what
    does not run is what was asked about, and no failure, as with `kubectl get`."""
    nodes = find(reach, asked, look_only=True)
    states = [state for node in nodes for state in node.states]
    arriving = per_state(states, of_database(asked.database))
    differing = drift.differing(states)
    if asked.as_json:
        for node in nodes:
            for document in status_documents(node, arriving, differing):
                print(dumps(document))
    else:
        sheet = paper(sys.stdout)
        for line in table(nodes, arriving, differing, sheet):
            print(line)
    for node in nodes:
        for sentence in filter(None, (node.problem, node.distrust)):
            warn(sentence)
    return 1 if any(node.problem or node.distrust for node in nodes) else 0


# --- doctor ------------------------------------------------------------------------------------------
def diagnose(reach: Reach, asked: Asked) -> int:
    """Print why nothing arrives, step by step. 1 when there is a reason, 0 when none was found."""
    nodes = find(reach, asked, look_only=True) if reach.hosts else []
    steps = doctor.examine(asked.database, reach.hosts, nodes=nodes)
    ascii_only = paper(sys.stdout).glyphs.ascii
    for step in steps:
        if asked.as_json:
            print(dumps(step.to_json()))
        else:
            for line in step_lines(step, ascii_only):
                print(printable(line, 2000))
    return 1 if any(step.mark is doctor.Mark.BAD for step in steps) else 0


# --- changes -----------------------------------------------------------------------------------------
def change(reach: Reach, asked: Asked, name: str) -> int:
    """`set`, `arm` and `off`.

    Args:
        name: for the journal: `arm`, `1 %`, `off`.

    Raises:
        Refused: nothing was changed.
        ClusterError: a node cannot be read or its change is refused; nothing was changed.
    """
    wish = Wish(asked.part, asked.per_million, asked.endpoint, name)
    receiving = endpoint.on_this_machine(doctor.receiver_status(asked.database)[0], asked.listeners)
    jobs: list[Job] = []
    readable = _readable(reach, asked)
    streams = of_database(asked.database) if wish.per_million else None
    arriving = per_state([state for node, _ in readable for state in node.states], streams)
    for node, facts in readable:
        here = isinstance(node.host, LocalHost)
        plan = flavours.plan(facts, replace(wish, otherwise=receiving) if here else wish)
        if node.host.alive:
            pods.check_restart(facts, plan)
        warnings, questions = plan.warnings, plan.questions
        if wish.per_million is not None and node.host.alive and not plan.empty:
            state = node.state_of(asked.part)
            load = expected_load(state, arriving.get((node.name, asked.part)), wish.per_million)
            warnings += (load,) if load else ()
            lost = doctor.unheard(node.host, node.name, plan.endpoint)
            if lost and wish.per_million:
                questions += (lost,)
            elif lost:
                warnings += (lost,)  # armed, it sends nothing yet
        if asked.dry_run and not plan.empty:
            warnings += tuple(f"It would be refused now: {why}." for why in _in_the_way(node))
        jobs.append(Job(node, plan, warnings, questions))
    return _carry_out(jobs, asked, name)


def _in_the_way(node: Node) -> list[str]:
    """What of the rollouts of a node keeps another from being begun, without full stops."""
    found = [node.distrust.rstrip(".")] if node.distrust else []
    if node.running is not None:
        found.append(f"{going_on(node.running)}: wait for it; `sampling status` tells how far")
    if node.interrupted is not None:
        found.append(left_over(node.interrupted))
    return found


def revert(reach: Reach, asked: Asked) -> int:
    """Put back what was there before our first change, byte for byte.

    Raises:
        Refused: nothing was changed.
        ClusterError: there is nothing to put back, or somebody changed a file since; nothing was changed.
    """
    jobs: list[Job] = []
    for node, facts in _readable(reach, asked):
        try:
            found = rollout.reversion(node.host, asked.part)
        except NothingToPutBack as nothing:
            warn(str(nothing))  # as it was before us: so it shall be
            continue
        plan = replace(found.plan, node=node.name)
        questions: tuple[str, ...] = ()
        for file in found.differing:
            for line in three_way(file):
                _say(line)
        if found.differing and not asked.force:
            names = ", ".join(file.path for file in found.differing)
            if not asked.dry_run and not _can_ask(asked):
                raise ClusterError(
                    f"{node.name}: somebody changed {names} after us, and a revert would lose that: look at the "
                    "differences above, then take tracing alone away with `sampling off`, or give --force."
                )
            questions = (f"Somebody changed {names} after us, and this would lose it; `off` takes tracing alone away.",)
        jobs.append(reverting(node, facts, plan, questions))
    return _carry_out(jobs, asked, "revert")


def reverting(node: Node, facts: NodeFacts, plan: Plan, questions: tuple[str, ...]) -> Job:
    """A revert of a node, as a job that wants as much typed as setting the rate of what was there before would."""
    if node.host.alive:
        pods.check_restart(facts, plan)
    rate = 0 if plan.empty else rate_after(node.host, facts, plan)
    warnings = plan.warnings
    if rate is None:
        warnings += ("At what rate the configuration that was there before samples cannot be told.",)
    elif rate:
        warnings += (f"The configuration that was there before samples {rates.text(rate)} of all requests.",)
    return Job(node, plan, warnings, questions, asks_name=rate is None or rate > ASKS_NAME_ABOVE)


def carry_on(reach: Reach, asked: Asked, undo: bool) -> int:
    """`resume` and `undo`: what was interrupted is finished, or what was before it is put back.

    Raises:
        Refused: nothing was done.
    """
    nodes = find(reach, asked)
    for node in nodes:
        for sentence in filter(None, (node.problem, node.distrust)):
            warn(sentence)
    going = [node for node in nodes if node.running is not None]
    for node in going:
        assert node.running is not None
        warn(f"{node.name}: {going_on(node.running)} and was not interrupted: `sampling status` tells how far it is.")
    found = [(node, left) for node in nodes if (left := node.interrupted) is not None]
    if not found:
        if not going and not any(node.distrust for node in nodes):
            warn("No rollout was interrupted: there is nothing to finish or to put back.")
        return 1 if going or any(node.problem or node.distrust for node in nodes) else 0
    for node, left in found:
        _say(f"{node.name}: {about(left)}, interrupted at {left.step} {left.detail}".rstrip())
    if asked.dry_run:
        return 0
    verb = "Put back what was before" if undo else "Finish"
    cluster = (asked.cluster or found[0][0].name) if asked.protected else ""
    agree(asked, f"{verb} on {_names([node for node, _ in found])}?", cluster)
    code = 0
    name = "undo" if undo else "resume"
    for node, left in found:
        if code:
            outcome = Outcome(node.name, "not begun", "a node before it did not come out well")
        else:
            outcome = _carry_on(node, left, asked, undo)
        # an undo that came out well ends as rolled back: that is what was asked for
        code = code or (0 if outcome.well or (undo and outcome.word == "rolled back") else 1)
        if asked.as_json:
            told = {"host": node.host.name, "node": node.name, "component": left.part, "what": name}
            print(dumps({**told, "outcome": outcome.word, "detail": outcome.detail}))
        else:
            print(outcome_line(node.name, left.part, name, outcome))
    return code


def _carry_on(node: Node, left: RolloutFacts, asked: Asked, undo: bool) -> Outcome:
    def tell(step: str, detail: str) -> None:
        _tell(node.name, step, detail)

    try:
        begun = rollout.carry_on(
            node.host, left.id, undo, who=operator(), ask=lambda question: _agrees(asked, question)
        )
        return rollout.follow(node.host, begun, tell, node=node.name)
    except KeyboardInterrupt:
        _say_it_goes_on(node)
        raise
    except ClusterError as problem:
        return Outcome(node.name, "refused", str(problem))


def _readable(reach: Reach, asked: Asked) -> list[tuple[Node, NodeFacts]]:
    """The nodes that are meant, all of them read and without a rollout in the way."""
    found: list[tuple[Node, NodeFacts]] = []
    for node in find(reach, asked):
        if node.facts is None:
            raise ClusterError(f"{node.problem} Nothing was changed.")
        if node.distrust and not asked.dry_run:
            raise ClusterError(f"{node.distrust} Nothing was changed.")
        if not asked.dry_run and (why := _in_the_way(node)):
            raise ClusterError(f"{node.name}: {why[0]}.")
        found.append((node, node.facts))
    return found


def _carry_out(jobs: Sequence[Job], asked: Asked, name: str) -> int:
    """Show, ask, do."""
    busy = [job for job in jobs if not job.plan.empty]
    done = asked.dry_run or not busy
    if not asked.as_json:
        show(jobs)
    elif not done and not asked.yes:
        show(jobs, sys.stderr)  # what the question is about
    if not done:
        try:
            _agree_on(busy, asked, name)
        except KeyboardInterrupt:
            warn("Nothing was changed.")
            raise
        _roll_out(busy, asked, name)
    for job in jobs:
        if asked.as_json:
            print(dumps(job_document(job, name, asked.dry_run)))
        elif job.outcome is not None:
            print(outcome_line(job.node.name, job.plan.part.value, name, job.outcome))
    return 0 if all(job.outcome is None or job.outcome.well for job in jobs) else 1


def _agree_on(jobs: Sequence[Job], asked: Asked, name: str) -> None:
    """All that has to be agreed to before anything is changed.

    Raises:
        Refused: it was not.
    """
    for job in jobs:
        for question in job.questions:
            agree(asked, f"{job.node.name}: {question} Go on?")
    high = asked.per_million is not None and asked.per_million > ASKS_NAME_ABOVE
    high = high or any(job.asks_name for job in jobs)
    cluster = (asked.cluster or jobs[0].node.name) if high or asked.protected else ""
    agree(asked, f"{_title(name)} on {_names([job.node for job in jobs])}?", cluster)


def _roll_out(jobs: Sequence[Job], asked: Asked, name: str) -> None:
    """One node after the other; one that does not come out well stops the rest."""
    nodes = {job.plan.node: job.node for job in jobs}
    at = jobs[0].node

    def tell(node: str, step: str, detail: str) -> None:
        nonlocal at
        at = nodes.get(node, at)
        _tell(at.name, step, detail)
        if step == "warning":
            for one in doctor.examine(asked.database, [at.host], seconds=15.0):
                if one.mark is doctor.Mark.BAD:
                    for line in step_lines(one, ascii_only=False):
                        _say(f"  {line}")

    def ask(_node: str, question: str) -> bool:
        return _agrees(asked, question)

    states = [
        replace(state, mode=Mode.SAMPLING) if state.part is asked.part else state
        for job in jobs
        for state in job.node.states
    ]
    steps = [(job.node.host, job.plan) for job in jobs]
    verify = None if asked.per_million in (None, 0) else verifier(asked.database, states)
    rolling = rollout.Rollout(steps, tell, who=operator(), verify=verify, ask=ask, revert=name == "revert")
    try:
        outcomes = rolling.run()
    except KeyboardInterrupt:
        _say_it_goes_on(at)
        raise
    for job, outcome in zip(jobs, outcomes, strict=True):
        job.outcome = outcome


def _say_it_goes_on(node: Node) -> None:
    if node.host.alive:
        warn(
            f"{node.name} goes on by itself, and puts itself back if it does not come up well; no other node is begun: "
            "`k8s-trace-tui sampling status` says how far it is."
        )
    else:
        warn(f"The change of {node.name} was interrupted: `k8s-trace-tui sampling status` says how far it got.")


def database_path(given: Path | None) -> Path:
    """The database of the receiver here."""
    return (given or default_place().database).absolute()


def operator() -> str:
    """Who is at work, for the lock and the journal: the person behind sudo, and where."""
    import getpass
    import platform

    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return printable(f"{user}@{platform.node() or 'somewhere'}", 100)


def _tell(node: str, step: str, detail: str) -> None:
    _say(f"{node}  {step:<{_STEP_WIDTH}}  {detail}".rstrip())


def _say(text: str) -> None:
    if sys.stderr is not None:
        print(printable(text, 2000), file=sys.stderr, flush=True)


def _title(name: str) -> str:
    return {"arm": "Arm tracing (rate 0)", "off": "Turn tracing off", "revert": "Put back what was there before"}.get(
        name, f"Set the sampling rate to {name}"
    )


def _names(nodes: Sequence[Node]) -> str:
    return ", ".join(node.name for node in nodes)


# --- the question ------------------------------------------------------------------------------------
def _agrees(asked: Asked, question: str) -> bool:
    """Whether a question that comes up on the way is answered with yes; --yes is told to have done so."""
    if asked.yes:
        _say(f"{question} Yes, by --yes.")
    try:
        agree(asked, question)
    except Refused:
        return False
    return True


def _can_ask(asked: Asked) -> bool:
    return not asked.yes and sys.stdin is not None and sys.stdin.isatty()


def agree(asked: Asked, question: str, cluster: str = "") -> None:
    """Ask, unless --yes answers. Only a clear yes is one: `y`, or the cluster's name where it is to be typed.

    Raises:
        Refused: it was not agreed to.
    """
    if asked.read_only:
        raise Refused("Nothing was changed: --read-only forbids it.")
    if asked.yes:
        return
    if not _can_ask(asked):
        raise Refused("Nothing was changed: there is no terminal to ask on; give --yes to go on without a question.")
    how = f"Type {cluster} to go on:" if cluster else "[y/N]"
    sys.stderr.write(f"{printable(question, 1000)} {printable(how, 200)} ")
    sys.stderr.flush()
    answer = sys.stdin.readline(1000).strip()
    if not (answer == cluster if cluster else answer.lower() in ("y", "yes")):
        raise Refused("Nothing was changed.")
