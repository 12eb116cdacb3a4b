"""etcd as a static pod: its tracing is a handful of flags, named by version."""

from __future__ import annotations

import re
from typing import Final

from tui.clusters import apiserver_pod, pods, tracing_file, versions
from tui.clusters.endpoint import UNSET, chosen, warnings_of
from tui.clusters.manifest import Flag, Pod
from tui.clusters.model import Mode, NodeFacts, Part, Plan, PlanRefused, State, Trigger, Wish
from tui.clusters.pods import Author
from tui.clusters.rates import MILLION
from tui.clusters.versions import EtcdRules, Version

_TRUE: Final = frozenset({"1", "t", "true"})
_FALSE: Final = frozenset({"0", "f", "false"})


def state(facts: NodeFacts, flavour: str) -> State | None:
    """What the etcd of this node does; None where none runs as a static pod."""
    try:
        pod = pods.only_pod(facts, Part.ETCD)
        if pod is None:
            return None
        return pods.as_it_runs(facts, pod, _state(facts, pod, flavour))
    except PlanRefused as refused:
        return State(pods.node_name(facts), Part.ETCD, Mode.UNKNOWN, note=str(refused), flavour=flavour)


def _state(facts: NodeFacts, pod: Pod, flavour: str) -> State:
    version = versions.of_image(pod.image)

    def made(mode: Mode, rate: int | None = None, endpoint: str = "", instance: str = "", note: str = "") -> State:
        return State(
            pods.node_name(facts),
            Part.ETCD,
            mode,
            version.text.lstrip("v") if version else "",
            rate,
            endpoint,
            instance=instance,
            note=note,
            flavour=flavour,
            last_change=pods.last_change(facts, Part.ETCD),
        )

    if pod.value("config-file"):
        return made(Mode.UNKNOWN, note=str(_by_file(pod)))
    named = [flag for flag in pod.flags() if "distributed-tracing" in flag.name]
    if version is None:
        return made(Mode.UNKNOWN if named else Mode.OFF, note=str(_no_version(pod)) if named else "")
    rules = versions.etcd(version)
    if rules is None:
        return made(Mode.BROKEN if named else Mode.OFF, note=f"etcd {version} knows no tracing." if named else "")
    unknown = [flag for flag in named if flag.name not in rules.names]
    if unknown:
        return made(Mode.BROKEN, note=str(_unknown_flag(pod, version, unknown[0])))
    enable = _flag(pod, rules, rules.enable)
    known = {name: _value(pod, rules, name) for name in (rules.address, rules.instance)}
    if enable is None:
        env = _environment(pod)
        return made(Mode.UNKNOWN, note=str(env)) if env else made(Mode.OFF)
    if enable.form == "=" and enable.value.lower() in _FALSE:
        return made(Mode.OFF)
    if enable.form == "=" and enable.value.lower() not in _TRUE:
        line = pod.refusal(enable.path, f"--{enable.name} is neither true nor false, so etcd does not start.")
        return made(Mode.BROKEN, note=str(line))
    endpoint = known[rules.address] or UNSET
    if rules.everything:
        why = f"etcd {version} records every request while tracing is on; from 3.5.5 on it does not."
        return made(Mode.SAMPLING, MILLION, endpoint, known[rules.instance], why)
    rate = _value(pod, rules, rules.rate) if rules.rate else ""
    if rate and not (re.fullmatch(r"\d{1,9}", rate) and int(rate) <= MILLION):
        return made(Mode.BROKEN, note=f"{pod.path}: etcd does not start with the sampling rate {rate[:40]!r}.")
    per_million = int(rate or 0)
    return made(Mode.SAMPLING if per_million else Mode.ARMED, per_million, endpoint, known[rules.instance])


def plan(facts: NodeFacts, wish: Wish, author: Author) -> Plan:
    """What to change in etcd's manifest for the wish; `author` would undo it.

    Raises:
        PlanRefused: it cannot be done, or not safely, or this version cannot do it.
    """
    before = pods.only_pod(facts, Part.ETCD)
    if before is None:
        raise PlanRefused(f"{facts.host}: no etcd runs there as a static pod, so there is nothing to change.")
    pods.check_replaceable(facts, before)
    before.check_mounts()
    if before.value("config-file"):
        raise _by_file(before)
    environment = _environment(before)
    if environment:
        raise environment
    version = versions.of_image(before.image)
    if version is None:
        raise _no_version(before)
    rules = versions.etcd(version)
    if rules is None:
        raise PlanRefused(f"{facts.host}: etcd {version} knows no tracing; it came with 3.5.")
    unknown = [flag for flag in before.flags() if "distributed-tracing" in flag.name and flag.name not in rules.names]
    if unknown and wish.per_million is not None:
        raise _unknown_flag(before, version, unknown[0])
    if wish.per_million is None:
        # it does not start with these, so whoever wrote them loses nothing by their going
        known = before
        for flag in unknown:
            known = known.without_flag(flag.name)
        after = _off(known, rules)
    else:
        after = _on(facts, before, rules, version, wish)
    warnings: list[str] = []
    if wish.per_million and wish.per_million > 0:
        warnings.append(
            "Requests that the API server does not sample are sampled by etcd's own rate then, as traces without their "
            "request; at rate 0 etcd follows the API server."
        )
    same = after.yaml.content == before.yaml.content
    changes = () if same else (pods.changed(facts.files[before.path], after.yaml.content),)
    endpoint = "" if wish.per_million is None else _value(after, rules, rules.address) or UNSET
    warnings += warnings_of(endpoint) if endpoint else ()
    questions: tuple[str, ...] = ()
    mends = pods.does_not_start(facts, before, _state(facts, before, "")) if changes else ""
    if changes:
        recent, questions = pods.recent_changes(facts)
        if mends:
            warnings.insert(0, mends)
        warnings += (*pods.check_controllers(facts, Part.ETCD, mends=bool(mends)), *recent)
        warnings.append("Change etcd only while all its members are healthy, and one member at a time.")
    adds = bool(changes) and wish.per_million is not None
    if adds and author.writes:
        warnings.append(author.undoes("this"))
    price = (
        f"65 to 70 s without writes and quorum reads where the etcd of {pods.node_name(facts)} is the only member, "
        "else only this member is away; controller-manager and scheduler may restart, and several changes in a row "
        "push them into minutes of back-off."
    )
    return Plan(
        pods.node_name(facts),
        Part.ETCD,
        changes,
        Trigger.MANIFEST if changes else Trigger.NOTHING,
        pods.unified(changes),
        price if changes else "Nothing changes.",
        tuple(warnings),
        questions,
        snippet(rules, version, wish, _value(after, rules, rules.address)) if author.configured and adds else "",
        wish,
        before.path,
        before.container_name,
        _health(facts, before) if changes else (),
        before.grace_seconds,
        endpoint,
        bool(mends),
    )


def _on(facts: NodeFacts, pod: Pod, rules: EtcdRules, version: Version, wish: Wish) -> Pod:
    rate = wish.per_million or 0
    if rules.everything and rate != MILLION:
        raise PlanRefused(
            f"{facts.host}: etcd {version} has no sampling and would record every request; "
            "upgrade it to 3.5.5 or later, or ask for all."
        )
    if not rules.everything and not rules.rate and rate:
        raise PlanRefused(
            f"{facts.host}: etcd {version} has no sampling rate (it came with 3.5.11) and follows the API server only; "
            "arm it (rate 0), or upgrade it."
        )
    address = _address(pod, rules, wish)
    instance = pod.value("name") or facts.hostname
    added: list[str] = []
    after = pod
    enable = _flag(pod, rules, rules.enable)
    if enable is None:
        after, added = after.with_flag(rules.enable, "true"), [*added, rules.enable]
    elif enable.form == "=" and enable.value.lower() not in _TRUE:
        after = after.with_flag(enable.name, "true")
    wanted = {rules.address: address, rules.instance: "" if _flag(pod, rules, rules.instance) else instance}
    if rules.rate:
        known = _flag(pod, rules, rules.rate)
        wanted[rules.rate] = str(rate) if known is not None or rate else ""
    for name, value in wanted.items():
        if not value:
            continue
        known = _flag(after, rules, name)
        if known is None:
            added.append(name)
        if known is None or known.value != value:
            after = after.with_flag(known.name if known else name, value)
    if added:
        after = pods.noted(pods.noted(after, added))  # the first may fill `annotations`
    return after


def _off(pod: Pod, rules: EtcdRules) -> Pod:
    enable = _flag(pod, rules, rules.enable)
    if enable is None or (enable.form == "=" and enable.value.lower() in _FALSE):
        return pod
    after, added = pods.remembered(pod)
    if enable.name not in added:
        # The operator's own flag stays where it is, and says no.
        after = after.with_flag(enable.name, "false")
    for name in reversed(added):
        if name in rules.names:
            after = after.without_flag(name)
    return after.without_annotation(pods.ADDED)


def _flag(pod: Pod, rules: EtcdRules, name: str) -> Flag | None:
    """A flag under any of the names that this version takes for it."""
    stem = name.removeprefix("experimental-")
    found = [flag for prefix in rules.prefixes if (flag := pod.flag(f"{prefix}{stem}"))]
    if len(found) > 1:
        raise pod.refusal(found[1].path, f"--{found[0].name} and --{found[1].name} are the same; leave one of them.")
    if found and found[0].form == "next" and stem.startswith("enable"):
        raise pod.refusal(found[0].path, f"--{found[0].name} takes its value after `=` only; join the two items.")
    return found[0] if found else None


def _value(pod: Pod, rules: EtcdRules, name: str) -> str:
    flag = _flag(pod, rules, name)
    return flag.value if flag else ""


def _environment(pod: Pod) -> PlanRefused | None:
    """etcd takes every flag from ETCD_<FLAG> too."""
    for name, (path, _) in pod.environment().items():
        if name.startswith("ETCD_") and "DISTRIBUTED_TRACING" in name:
            why = f"the environment variable {name[:80]} sets tracing too; make flags of such variables first."
            return pod.refusal(path, why)
    return None


def _address(pod: Pod, rules: EtcdRules, wish: Wish) -> str:
    """What the flag of the address shall say; "" where it stays as it is, or stays away: with tracing on and no such
    flag etcd sends to its own default, and that is configured too."""
    if wish.endpoint:
        return _wished_address(wish.endpoint)
    enable, now = _flag(pod, rules, rules.enable), _value(pod, rules, rules.address)
    on = enable is not None and (enable.form != "=" or enable.value.lower() in _TRUE)
    address = chosen("", now or (UNSET if on else ""), wish.otherwise)
    return "" if on or now else _wished_address(address)


def _wished_address(endpoint: str) -> str:
    tracing_file.check_wished(endpoint)
    if endpoint.startswith(("unix", "dns:")):
        raise PlanRefused(f"etcd takes host:port as the endpoint, not {endpoint[:120]!r}.")
    return endpoint


def _by_file(pod: Pod) -> PlanRefused:
    flag = next(flag for flag in pod.flags() if flag.name == "config-file")
    return pod.refusal(
        flag.path,
        f"etcd reads its settings from {flag.value[:120]} and ignores flags then; change tracing in that file.",
    )


def _no_version(pod: Pod) -> PlanRefused:
    return pod.refusal(
        (*pod.at, "image"),
        f"the image {pod.image[:120]!r} names no version, and the names of etcd's flags depend on it; "
        "give it a version tag.",
    )


def _unknown_flag(pod: Pod, version: Version, flag: Flag) -> PlanRefused:
    return pod.refusal(
        flag.path,
        f"etcd {version} does not start with --{flag.name[:80]}, which it does not know: "
        "`sampling off --component etcd` takes it away.",
    )


def _health(facts: NodeFacts, pod: Pod) -> tuple[str, ...]:
    """etcd's own answer on its metrics port, then the API server's, through which etcd is read."""
    listed = pod.value("listen-metrics-urls").split(",")[0].strip().rstrip("/")
    # /readyz came with 3.5.11, /health is in all of them.
    own = (f"{listed}/health",) if re.fullmatch(r"http://[A-Za-z0-9.:\[\]-]{1,253}", listed) else ()
    server = pods.only_pod(facts, Part.APISERVER)
    if server is None:
        raise PlanRefused(
            f"{facts.host}: no API server runs there that could be asked whether etcd is well; change it by hand."
        )
    return own + apiserver_pod.health(server)


def snippet(rules: EtcdRules, version: Version, wish: Wish, address: str) -> str:
    """What makes it last beyond `kubeadm upgrade`. kubeadm gives all members the same flags, so the name of the
    instance is left out."""
    # etcd tells nothing about kubeadm; 3.5.15 came with Kubernetes 1.31, whose kubeadm has v1beta4.
    modern = version.at_least(3, 5, 15)
    pairs = [(rules.enable, "true")]
    if address:
        pairs.append((rules.address, address))
    if wish.per_million and rules.rate:
        pairs.append((rules.rate, str(wish.per_million)))
    return "\n".join(
        [
            f"apiVersion: kubeadm.k8s.io/{'v1beta4' if modern else 'v1beta3'}",
            "kind: ClusterConfiguration",
            "etcd:",
            "  local:",
            "    extraArgs:",
            *(f'      - {{name: {n}, value: "{v}"}}' if modern else f'      {n}: "{v}"' for n, v in pairs),
            "",
        ]
    )
