"""Whether the requests of a context can be forced to be traced, and what stands in the way.

Four things decide (docs/facts.md 2.2, 2.4): the API server's release, who the caller is to it, whether
tracing is configured, and whether what it exports gets to the receiver here. `find` asks the API for them, a handful of
small requests; `judge` says in steps what they mean. Nothing is changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from receiver.plain_text import shell_word
from tui.clusters.doctor import Mark, ReceiverFindings, Step
from tui.clusters.endpoint import UNSET
from tui.clusters.model import ClusterError, Mode, Part, State
from tui.clusters.probe import addresses, loopback
from tui.clusters.reach.wire import plain

if TYPE_CHECKING:
    from tui.clusters.reach.api import Api

TRUSTED: Final = frozenset(("system:masters", "system:monitoring"))
"""Groups whose members may bring a trace of their own, by the authenticated user, before any impersonation."""
FIRST_MINOR: Final = 33
"""The first release, 1.33, that takes a caller's trace from anybody."""
SUPER_ADMIN_MINOR: Final = 29
"""From this release on kubeadm's admin.conf is not in system:masters; super-admin.conf is."""
_REVIEWS: Final = ("v1", "v1beta1", "v1alpha1")  # since 1.28, 1.27 and 1.26
_MOST_GROUPS: Final = 256
_PLAIN: Final = ("the ", "who ", "whether ", "no ", "spans ", "tracing ")
_ISSUE: Final = "k8s-trace-tui trace --issue-identity"


class Privilege(Enum):
    """What becomes of a request that brings a trace; the value is its word in JSON."""

    FORCED = "forced"  # traced whole, whatever the rate
    TAGGED = "tagged"  # sampled by the rate alone, and found by its audit id or the link to us
    UNKNOWN = "unknown"  # who we are, or what answers, is not known


@dataclass(frozen=True, slots=True)
class Caller:
    """Who the API server takes us for. Names are the server's: to be made printable by whoever shows them."""

    name: str
    groups: tuple[str, ...]

    @property
    def trusted(self) -> bool:
        """Whether it may bring a trace."""
        return not TRUSTED.isdisjoint(self.groups)


@dataclass(frozen=True, slots=True)
class Preconditions:
    """What is known before a request is sent.

    `version` is "" and `caller` None where they are not known, then `problem` may say why. `configured` is whether any
    API server has a tracing configuration, `unarmed` are the nodes of those that have none, `etcd_traced` is whether
    all of etcd traces: None unknown, and all as far as the API shows it (mirror pods) or the files of nodes that were
    read. `per_million` is the lowest rate. `instances` are the `service.instance.id` of the API servers. Only on this
    machine is it known where the two send (`endpoints`, `etcd_endpoints`) and when the API server `started` (ns since
    the epoch, 0 unknown).
    """

    context: str
    version: str = ""
    caller: Caller | None = None
    problem: str = ""
    configured: bool | None = None
    unarmed: tuple[str, ...] = ()
    etcd_traced: bool | None = None
    per_million: int | None = None
    endpoints: tuple[str, ...] = ()
    instances: frozenset[str] = frozenset()
    etcd_endpoints: tuple[str, ...] = ()
    started: int = 0

    @property
    def minor(self) -> int | None:
        """36 of `v1.36.2`, `v1.36.2+k3s1`, `v1.36.2-gke.1`; None where it is not known."""
        found = re.match(r"v?1\.(\d{1,3})(?:\D|$)", self.version)
        return int(found[1]) if found else None

    @property
    def honours(self) -> bool | None:
        """Whether that release takes a trace from a privileged caller."""
        return None if self.minor is None else self.minor >= FIRST_MINOR

    @property
    def privilege(self) -> Privilege:
        """What a request can expect, as far as release and caller tell."""
        if self.honours is False or (self.caller is not None and not self.caller.trusted):
            return Privilege.TAGGED
        if self.honours is None or self.caller is None:
            return Privilege.UNKNOWN
        return Privilege.FORCED


# --- asking -----------------------------------------------------------------------------------------
def find(api: Api, states: Sequence[State] = (), started: int = 0) -> Preconditions:
    """Ask the API of a context. What it does not answer stays unknown; a server that cannot be reached or does not know
    us is `problem`.

    Args:
        api: of the context.
        states: of nodes of that cluster whose files were read, if any: they know rate and endpoint.
        started: when its API server did, in ns since the epoch, 0 unknown.
    """
    try:
        version = plain(api.version(), 64)
    except ClusterError as error:
        return Preconditions(api.context, problem=str(error), started=started, **_of_states(states))
    caller, problem = None, ""
    try:
        caller = who(api)
    except ClusterError as error:
        problem = str(error)
    known = _of_states(states)
    if known.get("configured") is None:
        known.update(_of_mirrors(api, known))
    return Preconditions(api.context, version, caller, problem, instances=_instances(api), started=started, **known)


def who(api: Api) -> Caller | None:
    """Who we are, by SelfSubjectReview; None where the API server does not serve it (before 1.26, or turned off).

    Raises:
        ReachError: it cannot be reached, or refuses to say.
    """
    from tui.clusters.reach.api import Refused

    for version in _REVIEWS:
        body = {"apiVersion": f"authentication.k8s.io/{version}", "kind": "SelfSubjectReview"}
        try:
            answer = api.ask("POST", f"/apis/authentication.k8s.io/{version}/selfsubjectreviews", body)
        except Refused as refused:
            if refused.status == 404:
                continue
            raise
        return _caller(answer)
    return None


def _caller(answer: Any) -> Caller | None:
    try:
        info = answer["status"]["userInfo"]
        name, groups = info["username"], info.get("groups") or []
    except (TypeError, KeyError):
        return None
    if not isinstance(name, str) or not name or not isinstance(groups, list):
        return None
    return Caller(name[:512], tuple(one[:512] for one in groups[:_MOST_GROUPS] if isinstance(one, str)))


def _of_states(states: Sequence[State]) -> dict[str, Any]:
    servers = [one for one in states if one.part is Part.APISERVER and one.mode is not Mode.UNKNOWN]
    members = [one for one in states if one.part is Part.ETCD and one.mode is not Mode.UNKNOWN]
    known: dict[str, Any] = {}
    if servers:
        on = [one for one in servers if one.mode in (Mode.ARMED, Mode.SAMPLING)]
        rates = {one.per_million or 0 for one in on}
        known["configured"] = bool(on)
        known["unarmed"] = tuple(one.node for one in servers if one not in on)
        known["per_million"] = min(rates) if rates else None
        known["endpoints"] = tuple(dict.fromkeys(one.endpoint or UNSET for one in on))
    if members:
        tracing = [one for one in members if one.mode in (Mode.ARMED, Mode.SAMPLING)]
        known["etcd_traced"] = len(tracing) == len(members)
        known["etcd_endpoints"] = tuple(dict.fromkeys(one.endpoint or UNSET for one in tracing))
    return known


def _of_mirrors(api: Api, known: Mapping[str, Any]) -> dict[str, Any]:
    """What the flags of static pods tell; {} where no pods can be seen, as where a provider runs the control plane."""
    try:
        pods = api.mirror_pods()
    except ClusterError:
        return {}
    servers = [pod for pod in pods if pod.component == "kube-apiserver"]
    members = [pod for pod in pods if pod.component == "etcd"]
    found: dict[str, Any] = {}
    if servers:
        found["unarmed"] = tuple(pod.node for pod in servers if not pod.flag("tracing-config-file"))
        found["configured"] = len(found["unarmed"]) < len(servers)
    if members and known.get("etcd_traced") is None:
        names = ("enable-distributed-tracing", "experimental-enable-distributed-tracing")
        found["etcd_traced"] = all(any(pod.flag(name) in ("", "true") for name in names) for pod in members)
    return found


def _instances(api: Api) -> frozenset[str]:
    try:
        return frozenset(list(api.identities())[:64])
    except ClusterError:
        return frozenset()


# --- what it means ------------------------------------------------------------------------------------
def judge(found: Preconditions, receiver: ReceiverFindings | None = None, *, here: bool = False) -> tuple[Step, ...]:
    """The steps in the order of a request's walk. `here`: the API server runs on this machine, so that its loopback is
    the receiver's."""
    steps = [_release(found), _identity(found), _configuration(found), _way(found, receiver, here), _etcd(found)]
    if found.problem and found.version == "":
        return (Step(Mark.BAD, found.problem), *(one for one in steps[2:] if one.mark is not Mark.UNKNOWN))
    return tuple(steps)


def _release(found: Preconditions) -> Step:
    if found.honours is None:
        return Step(
            Mark.UNKNOWN, f"the release of the API server is not known ({plain(found.version, 40) or 'no answer'})"
        )
    if found.honours:
        return Step(Mark.GOOD, f"the API server is {found.version}: it takes a trace from whom it trusts")
    return Step(
        Mark.BAD,
        f"the API server is {found.version}, and none before 1.{FIRST_MINOR} takes a caller's trace, so its own"
        " rate decides what is traced",
        "raise the rate for a while with k8s-trace-tui sampling set 100%, and back to 0 afterwards",
    )


def _identity(found: Preconditions) -> Step:
    caller = found.caller
    if caller is None:
        why = f" ({found.problem.rstrip('.')})" if found.problem else ""
        return Step(Mark.UNKNOWN, f"who {found.context or 'the context'} is to the API server is not known{why}")
    name = plain(caller.name, 80)
    if caller.trusted:
        groups = " and ".join(sorted(TRUSTED.intersection(caller.groups)))
        return Step(Mark.GOOD, f"the user {name} is in {groups}")
    mark = Mark.BAD if found.honours is not False else Mark.UNKNOWN
    text = (
        f"the user {name} is in neither system:masters nor system:monitoring, so the API server does not take its trace"
    )
    return Step(mark, text, _privileged_way(found, caller) if found.honours is not False else "")


def _privileged_way(found: Preconditions, caller: Caller) -> str:
    if caller.name.startswith("system:serviceaccount:"):
        return (
            f"a service account cannot be in them, so use a person's context, and get an identity there with {_ISSUE}"
        )
    kubeadm = "kubeadm:cluster-admins" in caller.groups
    if kubeadm and (found.minor or FIRST_MINOR) >= SUPER_ADMIN_MINOR:
        return f"use /etc/kubernetes/super-admin.conf of a control-plane node, or, with fewer rights, {_ISSUE}"
    return f"get an identity that may do what you may and this with {_ISSUE}"


def _configuration(found: Preconditions) -> Step:
    if found.configured is None:
        return Step(Mark.UNKNOWN, "whether tracing is configured cannot be seen through the API")
    if not found.configured:
        return Step(
            Mark.BAD,
            "kube-apiserver has no --tracing-config-file, so nothing is traced",
            "arm it once (one restart) with k8s-trace-tui sampling arm",
        )
    if found.unarmed:
        nodes = plain(", ".join(found.unarmed[:4]), 120)
        return Step(
            Mark.BAD,
            f"the API servers of {nodes} have no --tracing-config-file, so what they serve is not traced",
            "arm them, too (one restart each) with k8s-trace-tui sampling arm",
        )
    if found.per_million is None:
        return Step(Mark.GOOD, "tracing is configured")
    rate = f"{found.per_million / 10_000:g} %" if found.per_million else "rate 0"
    return Step(Mark.GOOD, f"tracing is configured: {rate}")


def _way(found: Preconditions, receiver: ReceiverFindings | None, here: bool) -> Step:
    """From the exporter's endpoint to the receiver."""
    if receiver is not None and receiver.arriving:
        ours = [one for one in receiver.arriving if one.instance in found.instances and one.service == "apiserver"]
        if ours:
            return Step(Mark.GOOD, "spans of this API server arrive here")
    if receiver is not None and receiver.status is None:
        return Step(Mark.BAD, "no receiver is running here", "start one with k8s-trace-tui receive")
    if not found.endpoints:
        return Step(Mark.UNKNOWN, "whether its spans get to this receiver shows when they come")
    ports = _ports(receiver)
    for endpoint in found.endpoints:
        wanted = addresses(endpoint)
        local = bool(wanted) and all(map(loopback, wanted))
        if local and here and ports and not any(one.rpartition(":")[2] in ports for one in wanted):
            return Step(
                Mark.BAD,
                f"the API server sends to {plain(endpoint)}, and the receiver does not listen there",
                f"receive there with --listen {shell_word(wanted[0])}",
            )
        if local and not here:
            port = wanted[0].rpartition(":")[2]
            return Step(
                Mark.UNKNOWN,
                f"the API server sends to {plain(endpoint)} of its own node",
                f"bring that here with ssh -R {shell_word(f'127.0.0.1:{port}:127.0.0.1:{port}')} NODE",
            )
    return Step(Mark.GOOD, f"the API server sends to {plain(found.endpoints[0])}")


def _ports(receiver: ReceiverFindings | None) -> set[str]:
    status = receiver.status if receiver is not None else None
    listeners = [one for one in (status or {}).get("listeners") or () if isinstance(one, Mapping)]
    return {str(one.get("address")).rpartition(":")[2] for one in listeners if not one.get("error")}


def _etcd(found: Preconditions) -> Step:
    if found.etcd_traced is None:
        return Step(Mark.UNKNOWN, "whether etcd is traced cannot be seen through the API")
    if found.etcd_traced:
        return Step(Mark.GOOD, "etcd is traced")
    return Step(
        Mark.UNKNOWN,
        "etcd is not traced, so of a call to it only the API server's side is seen",
        "arm it, too, with k8s-trace-tui sampling arm --component etcd",
    )


def sentence(step: Step, more: str = "") -> str:
    """A step as a sentence, with more about the case at hand before the way out. A name at its start stays as it is."""
    text = f"{step.text}{more}{': ' if step.way_out else ''}{step.way_out}"
    text += "" if text.endswith((".", "?")) else "."
    return f"{text[:1].upper()}{text[1:]}" if text.startswith(_PLAIN) else text
