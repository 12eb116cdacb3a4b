"""Why nothing arrives: what can be looked at, step by step, from the receiver here to the component over there.

`judge` is pure: findings in, steps out. `examine` collects the findings, bounded in time, for a worker thread.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Final

from receiver.plain_text import shell_operand
from tui.clusters import endpoint as endpoints
from tui.clusters import flavours, rates
from tui.clusters import probe as probing
from tui.clusters.arriving import SECONDS, SERVICES, Stream, of_database, per_state
from tui.clusters.model import ClusterError, Host, Mode, NodeFacts, Part, State, Wish
from tui.clusters.probe import Outcome, Probe
from tui.clusters.reach.local import LocalHost
from tui.clusters.survey import Node, survey

PORT: Final = 4317
_MOST_ADDRESSES: Final = 12
"""Addresses that a span is sent to in one examination; each may take seconds when it is silent."""


class Mark(Enum):
    """What a step found; the value is its name in JSON."""

    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "unknown"  # could not be looked at, or needs no action; the text says which


SIGNS: Final[Mapping[Mark, str]] = {Mark.GOOD: "✓", Mark.BAD: "✗", Mark.UNKNOWN: "·"}
PLAIN_SIGNS: Final[Mapping[Mark, str]] = {Mark.GOOD: "+", Mark.BAD: "x", Mark.UNKNOWN: "."}
"""Where the terminal can show no others."""
WAY_OUT: Final = "→"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was looked at: what was found, in one sentence without a full stop, and the way out of it.
    `node` and `part` say of what, "" where it is about the receiver. `off` is that tracing of it is; `mended_by` which
    key of the Clusters screen is the way out ("arm", "set", "revert"), "" where none is."""

    mark: Mark
    text: str
    way_out: str = ""
    node: str = ""
    part: str = ""
    off: bool = False
    mended_by: str = ""

    def to_json(self) -> dict[str, str]:
        """As `doctor --json` prints it."""
        return {
            "mark": self.mark.value,
            "text": self.text,
            "way_out": self.way_out,
            "node": self.node,
            "part": self.part,
        }


# --- findings ---------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class ReceiverFindings:
    """The receiver here: its `status` as the control socket tells it, None when none answers, with the `problem`;
    `holder` is who listens on port 4317 of this machine (`otelcol (pid 7)`), "" for nobody or unknown; `arriving` what
    came in the last seconds, None when the database cannot be read."""

    status: Mapping[str, Any] | None
    problem: str = ""
    holder: str = ""
    port_taken: bool = False
    arriving: tuple[Stream, ...] | None = None


@dataclass(frozen=True, slots=True)
class NodeFindings:
    """A node: its `states`, or the `problem` why they are not known. `ready` is whether its API server says that it
    is, None where that was not asked; `ready_detail` what it said instead; `proxies` the names of the proxy
    variables that its API server has; `listeners` who listens there (`127.0.0.1:4317 otelcol`)."""

    name: str
    here: bool
    alive: bool = True
    states: tuple[State, ...] = ()
    problem: str = ""
    ready: bool | None = None
    ready_detail: str = ""
    proxies: tuple[str, ...] = ()
    listeners: tuple[str, ...] = ()
    distrust: str = ""
    """Why what lies there of rollouts is not believed, as in `NodeFacts`."""
    lacks: tuple[str, ...] = ()
    """What starts a pod again there and does not work, as in `NodeFacts`."""


def judge(
    receiver: ReceiverFindings, nodes: Sequence[NodeFindings], probes: Sequence[Probe], unreached: str = ""
) -> list[Step]:
    """What the findings mean, from here towards the components.

    Args:
        unreached: why there are no nodes, a sentence; "" where none was named and this machine is none.
    """
    steps = _receiver_steps(receiver)
    if not nodes:
        why, way_out = "there is none on this machine", "name one: --host ssh://USER@HOST, or --context CONTEXT"
        if unreached:
            why, way_out = _bare(unreached), ""
        steps.append(Step(Mark.UNKNOWN, f"no control plane was looked at: {why}", way_out))
    states = [state for node in nodes for state in node.states]
    rates = per_state(states, receiver.arriving)
    for node in nodes:
        steps += _node_steps(node, receiver, rates, [one for one in probes if one.node == node.name])
    steps += _probe_steps("", [one for one in probes if not one.node], receiver)
    return steps


def _receiver_steps(receiver: ReceiverFindings) -> list[Step]:
    status = receiver.status
    if status is None:
        text, way_out = _parted(receiver.problem)
        steps = [Step(Mark.BAD, text or "no receiver is running", way_out or "start one with k8s-trace-tui receive")]
        if receiver.port_taken:
            who = receiver.holder or "another program (root can see which: ss -ltnp)"
            steps.append(
                Step(
                    Mark.BAD,
                    f"port {PORT} is taken by {who}",
                    "stop it, or receive elsewhere with --listen and --endpoint",
                )
            )
        return steps
    steps = []
    listeners = [one for one in status.get("listeners") or () if isinstance(one, Mapping)]
    good = [str(one.get("address")) for one in listeners if not one.get("error")]
    if good:
        steps.append(Step(Mark.GOOD, f"the receiver listens on {', '.join(good[:6])}"))
    else:
        way_out = "" if listeners else "start it with --listen ADDRESS"  # else each listener says what is wrong
        steps.append(Step(Mark.BAD, "the receiver listens nowhere", way_out))
    for one in listeners:
        # Without IPv6 there is nothing to listen on, and nobody who would send to it.
        if one.get("error"):
            minor = str(one.get("address")) == f"[::1]:{PORT}" and bool(good) and "no address" in str(one.get("error"))
            text, way_out = _parted(str(one.get("error")))
            steps.append(Step(Mark.UNKNOWN if minor else Mark.BAD, text, "" if minor else way_out))
    if any(address.endswith(f":{PORT}") for address in good):
        steps.append(Step(Mark.GOOD, f"port {PORT} is ours"))
    if status.get("disk_full"):
        steps.append(
            Step(
                Mark.BAD, "the disk is full: senders are told to come again", "make space, or receive into another --db"
            )
        )
    refused = _number(status, "rejected") + _number(status, "malformed")
    if refused:
        steps.append(
            Step(
                Mark.BAD,
                f"{refused} spans or exports were not valid OTLP and are lost",
                f"{status.get('db', 'its database')}.log says why",
            )
        )
    sent = {stream.service or "(no service.name)" for stream in receiver.arriving or ()} - {probing.SERVICE}
    if sent:
        steps.append(Step(Mark.GOOD, f"spans arrived in the last {SECONDS:.0f} s, from {', '.join(sorted(sent)[:6])}"))
    elif receiver.arriving is not None and good:
        steps.append(Step(Mark.UNKNOWN, f"nothing arrived in the last {SECONDS:.0f} s"))
    return steps


def _node_steps(
    node: NodeFindings,
    receiver: ReceiverFindings,
    rates: Mapping[tuple[str, Part], float | None],
    probes: Sequence[Probe],
) -> list[Step]:
    name = node.name
    if node.problem:
        return [Step(Mark.UNKNOWN, f"{name}: not looked at: {_bare(node.problem)}", node=name)]
    steps: list[Step] = []
    for lack in node.lacks:
        problem, way_out = _split(lack)
        steps.append(Step(Mark.BAD, f"{name}: {problem}", way_out, node=name))
    if node.distrust:
        problem, way_out = _split(node.distrust)
        steps.append(Step(Mark.BAD, f"{name}: {problem}", way_out, node=name))
    if not node.states:
        steps.append(Step(Mark.UNKNOWN, f"{name}: no control plane that we know runs there", node=name))
    for state in node.states:
        steps += _state_steps(node, state, receiver, rates.get((state.node, state.part)))
    steps += _probe_steps(name, probes, receiver, node.listeners, here=node.here)
    if node.proxies:
        remote = [state for state in node.states if state.endpoint and not _dials_loopback(state)]
        if remote:
            names = ", ".join(node.proxies[:4])
            steps.append(
                Step(
                    Mark.BAD,
                    f"{name}: its API server has {names}, and from 1.31 on its exporter obeys that",
                    "put the receiver's address into NO_PROXY of kube-apiserver.yaml",
                    name,
                    Part.APISERVER.value,
                )
            )
    return steps


def _state_steps(node: NodeFindings, state: State, receiver: ReceiverFindings, rate: float | None) -> list[Step]:
    name, part = node.name, state.part.value
    title = f"{name} {part} {state.version}".rstrip()

    def step(mark: Mark, text: str, way_out: str = "", *, off: bool = False, mended_by: str = "") -> Step:
        return Step(mark, f"{title} {text}", way_out, name, part, off, mended_by)

    if state.mode is Mode.UNKNOWN:
        why = _bare(state.note or state.read_only) or "its files could not be read"
        return [step(Mark.UNKNOWN, f"was not looked into: {why}")]
    steps: list[Step] = []
    if state.part is Part.APISERVER and node.ready is not None:
        if node.ready:
            steps.append(step(Mark.GOOD, "is ready"))
        else:
            steps.append(
                step(
                    Mark.BAD,
                    f"is not ready{f' ({node.ready_detail})' if node.ready_detail else ''}",
                    "wait for it, or look at its log",
                )
            )
    if state.down:
        text = "is configured, but does not run" if state.mode is not Mode.OFF else "does not run"
        way_out = "see why above" if node.lacks else "look at its log"
        return [*steps, step(Mark.BAD, f"{text}: {_bare(state.note)}", way_out)]
    if state.mode is Mode.BROKEN:
        return [
            *steps,
            step(
                Mark.BAD,
                f"has a broken configuration: {_bare(state.note)}",
                "k8s-trace-tui sampling off, set RATE or revert; or correct it",
                mended_by="revert",
            ),
        ]
    if state.mode is Mode.OFF:
        mark = Mark.BAD if state.part is Part.APISERVER else Mark.UNKNOWN
        arm = "k8s-trace-tui sampling arm" + ("" if state.part is Part.APISERVER else f" --component {part}")
        if state.read_only:
            return [*steps, step(mark, "has tracing off", _bare(state.read_only), off=True)]
        flag = "has no --tracing-config-file: tracing is off" if state.part is Part.APISERVER else "has tracing off"
        cost = " (one restart)" if node.alive else ""
        return [*steps, step(mark, flag, f"arm it{cost}: {arm}", off=True, mended_by="arm")]
    if state.note:
        steps.append(step(Mark.UNKNOWN, f"has a peculiarity: {_bare(state.note)}"))
    endpoint = state.endpoint or endpoints.UNSET
    mismatch = _mismatch(node, endpoint, receiver)
    if mismatch:
        steps.append(
            step(
                Mark.BAD,
                mismatch,
                "receive there (--listen), or k8s-trace-tui sampling set RATE --endpoint "
                + endpoints.on_this_machine(receiver.status),
            )
        )
    named, instead = endpoints.needs_dns(endpoint)
    if named:
        way_out = f"k8s-trace-tui sampling set RATE --endpoint {instead}"
        way_out += "" if state.part is Part.APISERVER else f" --component {part}"
        way_out = f"give it the endpoint {instead}" if state.read_only else way_out
        steps.append(step(Mark.UNKNOWN, named, way_out))
    if state.mode is Mode.ARMED:
        silent = rate is None or rate == 0
        text = f"is armed at rate 0, sends to {endpoint}: only forced requests are traced"
        way_out = "k8s-trace-tui sampling set 1%" if silent and state.part is Part.APISERVER else ""
        steps.append(step(Mark.UNKNOWN, text, way_out, mended_by="set" if way_out else ""))
    else:
        sampled = rates.text(state.per_million or 0)
        if rate:
            steps.append(step(Mark.GOOD, f"samples {sampled}, sends to {endpoint}: {rate:.0f} spans/s arrive"))
        else:
            steps.append(step(Mark.GOOD, f"is configured: samples {sampled}, sends to {endpoint}"))
    return steps


def _mismatch(node: NodeFindings, endpoint: str, receiver: ReceiverFindings) -> str:
    """Why a receiver here cannot get what a component sends, as far as addresses tell: "" for nothing seen."""
    if not node.here or receiver.status is None:
        return ""
    wanted = probing.addresses(endpoint)
    if not wanted:
        return f"has the endpoint {endpoint}, which cannot be told to be ours"
    if not any(map(probing.loopback, wanted)):
        return ""
    listeners = [
        one for one in receiver.status.get("listeners") or () if isinstance(one, Mapping) and not one.get("error")
    ]
    ours = {_canonical(str(one.get("address"))) for one in listeners}
    open_ports = {address.rpartition(":")[2] for address in ours if address.startswith(("0.0.0.0:", "[::]:"))}
    if any(_canonical(one) in ours or one.rpartition(":")[2] in open_ports for one in wanted):
        return ""
    return f"sends to {endpoint}, and the receiver does not listen there"


def _canonical(address: str) -> str:
    return "unix:" + address.removeprefix("unix:").removeprefix("//") if address.startswith("unix:") else address


def _probe_steps(
    node: str,
    probes: Sequence[Probe],
    receiver: ReceiverFindings,
    listeners: Sequence[str] = (),
    *,
    here: bool = False,
) -> list[Step]:
    """What became of the spans that were sent from one place. Of the two addresses of `localhost`, one that nobody
    listens on is no fault where the other works: exporters try both."""
    where = f" on {node}" if node else ""
    steps = []
    well = [one for one in probes if one.outcome is Outcome.ACCEPTED and one.arrived]
    for one in probes:
        to = f"{one.address}{where}"
        if one.outcome is Outcome.ACCEPTED:
            if one.arrived:
                steps.append(Step(Mark.GOOD, f"a span of our own to {to} arrives", node=node))
            elif one.arrived is None and receiver.status is not None:
                steps.append(
                    Step(Mark.UNKNOWN, f"a span of our own to {to} is accepted; whether by us is not known", node=node)
                )
            else:
                steps.append(
                    Step(
                        Mark.BAD,
                        f"a span of our own to {to} is taken by somebody else: {_taker(one.address, listeners)}",
                        "stop it, or use another port: --listen 127.0.0.1:4318 here, --endpoint 127.0.0.1:4318 there",
                        node,
                    )
                )
        elif one.outcome is Outcome.REFUSED:
            if not well:
                detail = f" ({one.detail})" if one.detail else ""
                steps.append(
                    Step(Mark.BAD, f"nobody listens on {to}{detail}", _listen_there("" if here else node), node)
                )
        elif one.outcome is Outcome.SILENT:
            steps.append(
                Step(
                    Mark.BAD,
                    f"{to} does not answer: a firewall, or a server that hangs",
                    "open the way to it, or choose another --endpoint",
                    node,
                )
            )
        elif one.outcome is Outcome.OTHER:
            steps.append(
                Step(
                    Mark.BAD,
                    f"{to} is answered by something that does not take OTLP over gRPC ({one.detail})",
                    "stop it, or choose another --endpoint",
                    node,
                )
            )
        else:
            steps.append(Step(Mark.UNKNOWN, f"no span of our own was sent to {to}: {_bare(one.detail)}", node=node))
    return steps


def _taker(address: str, listeners: Sequence[str]) -> str:
    """Who listens there, as far as a listener shows: a hostPort's DNAT does not."""
    port = address.rpartition(":")[2]
    takers = (address, f"*:{port}", f"[::]:{port}", f"0.0.0.0:{port}")
    for line in listeners:
        where, _, who = line.partition(" ")
        if where in takers:
            return who or "another program"
    return "no listener shows, so a collector's hostPort"


def _listen_there(node: str) -> str:
    if not node:
        return "k8s-trace-tui receive"
    forward = f"ssh -R 127.0.0.1:{PORT}:127.0.0.1:{PORT} {shell_operand(node)}"
    return f"run k8s-trace-tui there, or bring its spans here: {forward}"


def _dials_loopback(state: State) -> bool:
    return any(map(probing.loopback, probing.addresses(state.endpoint)))


def _split(sentence: str) -> tuple[str, str]:
    """What is wrong and the way out behind the last colon, with names as they are."""
    problem, colon, way_out = _bare(sentence).rpartition(": ")
    return (problem, way_out) if colon else (way_out, "")


def _parted(sentence: str) -> tuple[str, str]:
    """What is wrong and the way out, of a sentence of ours that says both: `Port 4317 is in use: stop it.`"""
    problem, colon, way_out = _bare(sentence).rpartition(": ")
    if not colon:
        problem, way_out = way_out, ""
    return f"{problem[:1].lower()}{problem[1:]}", way_out


def _bare(sentence: str) -> str:
    return sentence.strip().rstrip(".")


def _number(status: Mapping[str, Any], key: str) -> int:
    value = status.get(key)
    return value if isinstance(value, int) else 0


# --- looking ----------------------------------------------------------------------------------------
_READY: Final = r"""
command -v curl >/dev/null 2>&1 || exit 3
for url in "$@"; do
    code=$(curl -sk --noproxy '*' --max-time 3 -o /dev/null -w '%{http_code}' "$url") || code=000
    [ "$code" = 200 ] || { echo "$url $code"; exit 1; }
done
"""


def findings_of(node: Node, here: bool) -> NodeFindings:
    """What is to be said of a node, after asking its API server whether it is ready."""
    host, facts = node.host, node.facts
    if facts is None:  # not reached, or read through the API alone
        return NodeFindings(node.name, here, host.alive, node.states, node.problem)
    ready, detail = _readiness(host, facts) if host.alive else (None, "")
    problem = "" if facts.root or node.states else "it needs root to read its manifests"
    return NodeFindings(
        node.name,
        here,
        host.alive,
        node.states,
        problem,
        ready,
        detail,
        _proxies(facts),
        facts.listeners,
        node.distrust,
        facts.lacks,
    )


def _readiness(host: Host, facts: NodeFacts) -> tuple[bool | None, str]:
    """Whether the API server of a node is ready, by its own /livez and /readyz."""
    urls = health_urls(facts)
    if not urls:
        return None, ""
    try:
        done = host.run(_READY, urls, timeout=10.0, most=4096)
    except ClusterError:
        return None, ""
    if done.code not in (0, 1):
        return None, ""
    said = done.out.decode("utf-8", "replace").split()
    if done.code == 0 or len(said) != 2:
        return done.code == 0, ""
    url, code = said
    return False, f"{url} " + ("does not answer" if code == "000" else f"answers {code}")


def health_urls(facts: NodeFacts) -> tuple[str, ...]:
    """Where the API server of a node says that it is ready, as the plan of a change would ask it; () unknown."""
    try:
        return flavours.plan(facts, Wish(Part.APISERVER, 0)).health
    except ClusterError:
        return ()


def _proxies(facts: NodeFacts) -> tuple[str, ...]:
    for path, file in facts.files.items():
        if path.endswith("/kube-apiserver.yaml") and file.content:
            text = file.content.decode("utf-8", "replace")
            return tuple(dict.fromkeys(re.findall(r"name:\s*[\"']?(HTTPS?_PROXY|https?_proxy)\b", text)))
    return ()


def receiver_findings(path: Path) -> ReceiverFindings:
    """The receiver of a database as it is now: what its control socket says and what came in the last seconds."""
    from receiver.ingest.address import port_holder

    status, problem = receiver_status(path)
    taken = status is None and _taken(PORT)
    return ReceiverFindings(status, problem, port_holder(PORT) if taken else "", taken, of_database(path))


def receiver_status(path: Path) -> tuple[dict[str, Any] | None, str]:
    """What the receiver of a database says of itself; None where none answers, and then why."""
    from receiver.control import ControlClient, ControlError

    try:
        client = ControlClient.connect(path, 2.0)
        try:
            return client.request("status"), ""
        finally:
            client.close()
    except ControlError as error:
        return None, str(error)


def _taken(port: int) -> bool:
    """Whether somebody listens on a loopback port of this machine."""
    import socket

    for host in ("127.0.0.1", "::1"):
        try:
            with socket.create_connection((host, port), 0.5):
                return True
        except OSError:
            continue
    return False


def unheard(host: Host, node: str, endpoint: str) -> str:
    """Why spans that are sent to an endpoint from a host would be lost now, as a sentence; "" when somebody takes them
    or it cannot be told. Sends one span of our own; takes seconds at most."""
    sent = [_send(host, node, address) for address in probing.addresses(endpoint)]
    if not sent or any(one.outcome in (Outcome.ACCEPTED, Outcome.UNSENT) for one in sent):
        return ""
    where = endpoint or endpoints.UNSET
    return f"Nobody takes spans at {where} of {node} now: they are dropped until a receiver listens there."


def _send(host: Host, node: str, address: str) -> Probe:
    if isinstance(host, LocalHost):
        return replace(probing.from_here(address), node=node)
    return probing.from_host(host, node, address)


def examine(
    path: Path,
    hosts: Sequence[Host],
    seconds: float = 30.0,
    nodes: Sequence[Node] | None = None,
    unreached: str = "",
) -> list[Step]:
    """Look at everything and say why nothing arrives. For a worker thread: when `seconds` have gone, what is left is
    said to be not looked at. Changes nothing; sends a few spans of our own.

    Args:
        path: the database of the receiver here.
        hosts: the control-plane nodes; () when there is none to be reached.
        nodes: what is known of them already; None reads them.
        unreached: why there are no hosts, where they were named and cannot be reached.
    """
    until = time.monotonic() + seconds
    receiver = receiver_findings(path)
    findings: list[NodeFindings] = []
    wanted: dict[tuple[str, str], Host] = {}  # by node and address
    for node in survey(hosts, seconds / 2) if nodes is None else nodes:
        if time.monotonic() >= until:
            findings.append(NodeFindings(node.name, False, problem="there was no time left"))
            continue
        found = findings_of(node, isinstance(node.host, LocalHost))
        findings.append(found)
        if node.host.alive and node.facts is not None:
            for state in found.states:
                if state.part in SERVICES and state.mode not in (Mode.UNKNOWN, Mode.BROKEN):
                    wanted.update({(found.name, one): node.host for one in probing.addresses(state.endpoint)})
    after = _last_chunk(path)
    probes: list[Probe] = []
    for (name, address), host in list(wanted.items())[:_MOST_ADDRESSES]:
        if time.monotonic() >= until:
            break
        probes.append(_send(host, name, address))
    if not wanted and receiver.status is not None:
        probes = [probing.from_here(address) for address in _dialable(receiver.status)]
    if receiver.status is not None:
        probes = list(probing.seen(path, after, probes))
    return judge(receiver, findings, probes, unreached)


def _last_chunk(path: Path) -> int:
    from receiver.store.database import Database, StoreError

    try:
        database = Database.read(path)
    except (StoreError, OSError):
        return 0
    try:
        return database.last_id()
    except StoreError:
        return 0
    finally:
        database.close()


def _dialable(status: Mapping[str, Any]) -> list[str]:
    """The addresses that the receiver's plain listeners are reached at from this machine. Of sockets only those that
    nobody else could have put there: what a receiver of another user's says may be made up."""
    listeners = [one for one in status.get("listeners") or () if isinstance(one, Mapping)]
    plain = [str(one.get("address")) for one in listeners if not one.get("error") and not one.get("tls")]
    ours = [one for one in plain if not one.startswith("unix:") or _ours(one)]
    return [one for one in map(endpoints.dialable, ours[:_MOST_ADDRESSES]) if one]


def _ours(address: str) -> bool:
    from receiver.store.ownership import standing

    try:
        here = standing(Path(address.removeprefix("unix:")))
    except (OSError, ValueError):
        return False
    return here.ours and here.found is not None and here.found.st_uid == os.geteuid()
