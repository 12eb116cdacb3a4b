"""Plans for static pods: what they change, what they leave alone, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest
import yaml

from tests.tui.clusters.nodes import APISERVER, ETCD, NOW, after, apiserver, etcd, facts_with, node
from tui.clusters import flavours
from tui.clusters.model import (
    Container,
    HostFile,
    Mode,
    NodeFacts,
    NotYet,
    Part,
    PlanRefused,
    RolloutFacts,
    Trigger,
    Wish,
)
from tui.clusters.pods import CHECKSUM as ANNOTATION
from tui.clusters.pods import FILE as TRACING_FILE

ARM = Wish(Part.APISERVER, 0)
OFF = Wish(Part.APISERVER, None)


def state(facts: NodeFacts, part: Part = Part.APISERVER) -> tuple[Mode, int | None, str]:
    found = next(one for one in flavours.states(facts) if one.part is part)
    return found.mode, found.per_million, found.endpoint


def armed() -> NodeFacts:
    facts = node(apiserver=apiserver(), etcd=etcd())
    return after(facts, flavours.plan(facts, ARM))


def test_from_off_to_armed_to_a_rate_and_back_to_the_same_bytes() -> None:
    facts = node(apiserver=apiserver(), etcd=etcd())
    assert state(facts) == (Mode.OFF, None, "")
    plan = flavours.plan(facts, ARM)
    assert [change.path for change in plan.changes] == [TRACING_FILE, APISERVER]
    assert plan.trigger is Trigger.MANIFEST
    assert plan.health == ("https://192.0.2.10:6443/livez", "https://192.0.2.10:6443/readyz")
    assert "+    - --tracing-config-file=/etc/kubernetes/k8s-trace-tui/apiserver.yaml" in plan.diff
    assert "35 to 50 s" in plan.price
    assert "kubeadm upgrade" in " ".join(plan.warnings)
    assert "v1beta4" in plan.snippet
    assert yaml.safe_load(plan.snippet)["kind"] == "ClusterConfiguration"
    one = after(facts, plan)
    assert state(one) == (Mode.ARMED, 0, "127.0.0.1:4317")
    raised = flavours.plan(one, Wish(Part.APISERVER, 10_000))
    assert [change.path for change in raised.changes] == [TRACING_FILE]
    assert raised.trigger is Trigger.STOP
    assert raised.manifest == APISERVER
    two = after(one, raised)
    assert state(two) == (Mode.SAMPLING, 10_000, "127.0.0.1:4317")
    assert flavours.plan(two, Wish(Part.APISERVER, 10_000)).empty
    three = after(two, flavours.plan(two, OFF))
    assert three.files[APISERVER].content == facts.files[APISERVER].content
    assert three.files[TRACING_FILE].content is None


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("version", ["v1.27.16", "v1.31.0", "v1.36.2"])
def test_every_other_line_stays(version: str, newline: str) -> None:
    text = apiserver(version).replace("\n", newline)
    facts = node(apiserver=text)
    plan = flavours.plan(facts, ARM)
    written = after(facts, plan).files[APISERVER].content
    assert written is not None
    lines, before = written.decode().splitlines(keepends=True), text.splitlines(keepends=True)
    rest = iter(lines)
    assert all(line in rest for line in before), "the old lines, in their order"
    assert all(line.endswith(newline) for line in lines)
    pod = yaml.safe_load(written)
    assert len(pod["metadata"]["annotations"][ANNOTATION]) == 64
    assert state(after(facts, plan))[0] is Mode.ARMED


def test_a_tracing_file_of_the_operators_own_is_edited_where_it_lies() -> None:
    own = "# ours\napiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\nendpoint: otel:4317 # keep\n"
    manifest = apiserver(extra="    - --tracing-config-file=/etc/kubernetes/pki/tracing.yaml\n")
    facts = node(apiserver=manifest, **{"/etc/kubernetes/pki/tracing.yaml": own})
    assert state(facts) == (Mode.ARMED, 0, "otel:4317")
    plan = flavours.plan(facts, Wish(Part.APISERVER, 1_000_000))
    (change,) = plan.changes
    assert change.path == "/etc/kubernetes/pki/tracing.yaml"
    assert change.after is not None
    assert change.after.startswith(own.encode())
    assert state(after(facts, plan)) == (Mode.SAMPLING, 1_000_000, "otel:4317")
    off = flavours.plan(after(facts, plan), OFF)
    assert [one.path for one in off.changes] == [APISERVER], "the operator's file is left"


def test_after_recent_restarts_the_manifest_is_changed_instead() -> None:
    again = Container("x", "kube-apiserver", True, 2, 0, "2026-11-18T11:46:00Z", "", "uid")
    facts = replace(armed(), containers=(again,), now=NOW)
    seconds = NOW - 120
    started = __import__("datetime").datetime.fromtimestamp(seconds, __import__("datetime").timezone.utc)
    facts = replace(facts, containers=(replace(again, started=started.strftime("%Y-%m-%dT%H:%M:%S.0Z")),))
    plan = flavours.plan(facts, Wish(Part.APISERVER, 10_000))
    assert plan.trigger is Trigger.MANIFEST
    assert [change.path for change in plan.changes] == [TRACING_FILE, APISERVER]


@pytest.mark.parametrize(
    ("version", "enable"),
    [("3.5.21-0", "experimental-enable-distributed-tracing"), ("3.6.5-0", "enable-distributed-tracing")],
)
def test_etcd_is_armed_by_the_flags_of_its_version(version: str, enable: str) -> None:
    facts = node(apiserver=apiserver(), etcd=etcd(version))
    plan = flavours.plan(facts, Wish(Part.ETCD, 0))
    assert f"+    - --{enable}=true" in plan.diff
    assert "instance-id=cp-1" in plan.diff
    assert "65 to 70 s" in plan.price
    assert plan.health[0] == "http://127.0.0.1:2381/health"
    assert plan.health[-1].endswith(":6443/readyz"), "the read of etcd goes there"
    done = after(facts, plan)
    assert state(done, Part.ETCD) == (Mode.ARMED, 0, "127.0.0.1:4317")
    back = after(done, flavours.plan(done, Wish(Part.ETCD, None)))
    assert back.files[ETCD].content == facts.files[ETCD].content


def test_an_etcd_that_traces_every_request_is_refused() -> None:
    facts = node(apiserver=apiserver(), etcd=etcd("3.5.3-0"))
    with pytest.raises(PlanRefused, match=r"3\.5\.3"):
        flavours.plan(facts, Wish(Part.ETCD, 0))


OLD = "- kube-apiserver\n"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("  - command:\n    - kube-apiserver\n", "  - command: [kube-apiserver]\n    args:\n", ""),
        ("    volumeMounts:\n", "    volumeMounts: [{mountPath: /a, name: ca-certs}]\n    x:\n", ""),
        (
            "    - --secure-port=6443\n",
            "    - --secure-port=6443\n    - &a --v=2\n    - *a\n",
            "",
        ),
        (OLD, "- sh\n    - -c\n    - exec kube-apiserver --secure-port=6443\n", "line 17: .* by a shell"),
        ("  containers:\n", "  containers:\n\t", "line 14|not YAML"),
        ("status: {}\n", "---\napiVersion: v1\nkind: Pod\n", "line 50: a second document"),
        (
            "    - --secure-port=6443\n",
            "    - --secure-port=6443\n    - --tracing-config-file=/opt/tracing.yaml\n",
            "under no mount",
        ),
        (
            "    - --secure-port=6443\n",
            "    - --secure-port=6443\n    - --feature-gates=APIServerTracing=false\n",
            "APIServerTracing",
        ),
        ("kube-apiserver:v1.34.2", "kube-apiserver@sha256:" + "a" * 64, "version"),
        ("kube-apiserver:v1.34.2", "kube-apiserver:v1.37.0", ""),
        ("kube-apiserver:v1.34.2", "kube-apiserver:v1.24.1", ""),
        ("kube-apiserver:v1.34.2", "kube-apiserver:v1.21.14", r"1\.21\.14 knows no tracing"),
        ("      name: ca-certs\n", "      name: k8s-trace-tui\n", "line 32: there is no volume"),
    ],
)
def test_what_is_not_safe_is_refused_in_one_sentence(old: str, new: str, says: str) -> None:
    text = apiserver()
    assert old in text
    facts = node(apiserver=text.replace(old, new, 1))
    if not says:
        assert flavours.plan(facts, ARM).changes
        return
    with pytest.raises(PlanRefused, match=says) as refused:
        flavours.plan(facts, ARM)
    assert "\n" not in str(refused.value)


def test_a_copy_beside_it_is_refused() -> None:
    text = apiserver()
    copy = APISERVER + ".bak"
    facts = facts_with({APISERVER: HostFile(APISERVER, text.encode()), copy: HostFile(copy, text.encode())})
    with pytest.raises(PlanRefused, match=r"kube-apiserver\.yaml\.bak"):
        flavours.plan(facts, ARM)
    hidden = APISERVER.replace("/kube", "/.kube")
    facts = facts_with({APISERVER: HostFile(APISERVER, text.encode()), hidden: HostFile(hidden, text.encode())})
    assert flavours.plan(facts, ARM).changes, "the kubelet looks at no file that begins with a dot"


@pytest.mark.parametrize(
    ("told", "seconds"),
    [({"kube-scheduler": (30, 40)}, "about 40"), ({"kube-scheduler": (10, 80)}, "10 to 80"), ({}, "1 to 300")],
)
def test_a_plan_is_refused_while_a_controller_is_in_back_off(told: dict[str, tuple[int, int]], seconds: str) -> None:
    down = Container("x", "kube-scheduler", False, 5, 1, "2026-11-18T11:46:00Z", "2026-11-18T11:46:01Z", "uid")
    facts = replace(node(apiserver=apiserver()), containers=(down,), back_off=told)
    with pytest.raises(NotYet, match=rf"kube-scheduler is in back-off.* try again in {seconds} s") as refusal:
        flavours.plan(facts, ARM)
    assert refusal.value.seconds == int(seconds.split()[-1]), "whoever waits waits for the longest"


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (None, Mode.BROKEN, "no such file"),
        (b"", Mode.BROKEN, ""),
        (b"apiVersion: apiserver.config.k8s.io/v2\nkind: TracingConfiguration\n", Mode.BROKEN, "v2"),
        (b"apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\nbogus: 1\n", Mode.BROKEN, "bogus"),
        (b"apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\n", Mode.ARMED, ""),
    ],
)
def test_a_tracing_file_that_would_keep_it_from_starting_is_said(content: bytes | None, mode: Mode, says: str) -> None:
    facts = armed()
    files = {**facts.files, TRACING_FILE: HostFile(TRACING_FILE, content)}
    found = next(one for one in flavours.states(replace(facts, files=files)) if one.part is Part.APISERVER)
    assert found.mode is mode
    assert says in found.note


@pytest.mark.parametrize(
    ("started", "trigger"),
    [
        ("2026-11-18T11:50:00.123456789Z", Trigger.MANIFEST),
        ("2026-11-18T03:50:00.123-08:00", Trigger.MANIFEST),
        ("2026-11-18T11:40:00Z", Trigger.STOP),
        ("2026-11-18T17:10:00.5+05:30", Trigger.STOP),
    ],
)
def test_a_time_is_read_with_its_offset(started: str, trigger: Trigger) -> None:
    """A container that was restarted within ten minutes is not stopped by CRI: kubelet would let it wait."""
    now = int(datetime(2026, 11, 18, 11, 55, tzinfo=timezone.utc).timestamp())
    runs = Container("x", "kube-apiserver", True, 1, 0, started, "", "uid")
    facts = replace(armed(), containers=(runs,), now=now)
    assert flavours.plan(facts, Wish(Part.APISERVER, 10_000)).trigger is trigger


def test_without_root_it_is_shown_and_not_changed() -> None:
    facts = replace(node(apiserver=apiserver()), root=False)
    assert "root" in flavours.states(facts)[0].read_only


def test_links_are_changed_where_they_lead_and_not_here() -> None:
    link = HostFile(APISERVER, apiserver().encode(), target="/srv/config/kube-apiserver.yaml")
    with pytest.raises(PlanRefused, match=r"symbolic link to /srv/config/kube-apiserver\.yaml"):
        flavours.plan(facts_with({APISERVER: link}), ARM)
    facts = armed()
    tracing = replace(facts.files[TRACING_FILE], target="../managed/tracing.yaml")
    facts = replace(facts, files={**facts.files, TRACING_FILE: tracing})
    with pytest.raises(PlanRefused, match=r"symbolic link to /etc/kubernetes/managed/tracing\.yaml"):
        flavours.plan(facts, Wish(Part.APISERVER, 10_000))


@pytest.mark.parametrize(
    ("there", "edit", "goes", "told"),
    [
        (None, (b"", b""), True, False),
        (None, (b"127.0.0.1:4317", b"'[::1]:4317'"), True, False),
        (None, (b"\nkind", b"\n# ask Jo first\nkind"), False, True),
        (None, (b"# Written", b"# Once written"), False, False),
        (b"", (b"", b""), False, False),
    ],
)
def test_off_takes_away_the_file_that_was_made_for_a_flag_and_nobody_elses_words(
    there: bytes | None, edit: tuple[bytes, bytes], goes: bool, told: bool
) -> None:
    """`there`: what lay where the flag looks; `edit`: what somebody did to it after us."""
    path = "/etc/kubernetes/pki/tracing.yaml"
    facts = node(apiserver=apiserver(extra=f"    - --tracing-config-file={path}\n"))
    facts = replace(facts, files={**facts.files, path: HostFile(path, there)})
    facts = after(facts, flavours.plan(facts, ARM))
    facts = after(facts, flavours.plan(facts, Wish(Part.APISERVER, 10_000)))
    content = facts.files[path].content
    assert content is not None
    assert (b"`k8s-trace-tui sampling off` takes it away" in content) is (there is None)
    facts = replace(facts, files={**facts.files, path: HostFile(path, content.replace(*edit))})
    plan = flavours.plan(facts, OFF)
    removed = [change.path for change in plan.changes if change.after is None]
    assert removed == ([path] if goes else [])
    assert any(path in one and "`sampling revert`" in one for one in plan.warnings) is told
    assert state(after(facts, plan))[0] is Mode.OFF


def test_a_missing_file_of_a_flag_that_is_there_is_made_where_the_mount_says() -> None:
    path = "/etc/kubernetes/pki/tracing.yaml"  # mounted read-only: it is written on the node, not in the container
    text = apiserver(extra=f"    - --tracing-config-file={path}\n")
    facts = facts_with({APISERVER: HostFile(APISERVER, text.encode()), path: HostFile(path)})
    assert flavours.more_paths(replace(facts, files={APISERVER: facts.files[APISERVER]})) == (path,)
    assert state(facts)[0] is Mode.BROKEN
    crashing = Container("x", "kube-apiserver", False, 4, 1, "2026-11-18T11:46:00Z", "2026-11-18T11:46:01Z", "uid")
    facts = replace(facts, containers=(crashing,))
    plan = flavours.plan(facts, ARM)
    assert plan.trigger is Trigger.MANIFEST, "its back-off ends with another pod only"
    assert [(change.path, change.before is None) for change in plan.changes] == [(path, True), (APISERVER, False)]
    assert state(after(facts, plan)) == (Mode.ARMED, 0, "127.0.0.1:4317")
    assert "volumes" not in plan.diff


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        ("dns://10.0.0.5:4317", "sends nothing"),
        ("http://10.0.0.5:4318", "unsupported scheme"),
        ("unix:/run/otel.sock", "lacks slashes"),
        ("unix:///run/otel.sock", "under no mount"),
        ("otel", "no port"),
        ("10.0.0.5:4317 ", "would not start"),
    ],
)
def test_endpoints_that_lead_nowhere_are_refused(endpoint: str, says: str) -> None:
    with pytest.raises(PlanRefused, match=says):
        flavours.plan(node(apiserver=apiserver(), etcd=etcd()), Wish(Part.APISERVER, 0, endpoint))


def test_an_endpoint_of_before_that_not_every_server_takes_is_not_kept() -> None:
    facts = armed()
    content = facts.files[TRACING_FILE].content
    assert content is not None
    bad = HostFile(TRACING_FILE, content.replace(b"127.0.0.1:4317", b"unix:/run/otel.sock"))
    facts = replace(facts, files={**facts.files, TRACING_FILE: bad})
    with pytest.raises(PlanRefused, match="write unix:///path"):
        flavours.plan(facts, Wish(Part.APISERVER, 10_000))
    assert flavours.plan(facts, Wish(Part.APISERVER, 10_000, "127.0.0.1:4317")).changes


@pytest.mark.parametrize(("ago", "warns", "asks"), [((), 0, 0), ((60,), 1, 0), ((60, 300), 0, 1), ((700, 9000), 0, 0)])
@pytest.mark.parametrize("part", [Part.APISERVER, Part.ETCD])
def test_several_changes_in_a_row_are_asked_about(part: Part, ago: tuple[int, ...], warns: int, asks: int) -> None:
    done = tuple(RolloutFacts(str(at), "apiserver", "alice", NOW - at, "arm", "end", "done", alive=False) for at in ago)
    facts = replace(node(apiserver=apiserver(), etcd=etcd()), rollouts=done)
    assert "ten minutes" not in str(flavours.plan(facts, Wish(part, 0))), "in a directory nothing restarts"
    plan = flavours.plan(replace(facts, containers=()), Wish(part, 0))
    assert sum("in the last ten minutes" in warning for warning in plan.warnings) == warns
    assert sum("in the last ten minutes" in question for question in plan.questions) == asks
    assert "controller-manager and scheduler may restart" in plan.price
    assert "minutes of back-off" in plan.price
    assert "the only" in plan.price, "and what it is where there are others"


@pytest.mark.parametrize(
    ("ago", "ended", "price"),
    [
        ((), "", "About 5 s"),
        ((60,), "done", "About 5 s"),
        ((60,), "rolled back", "5 to 20 s"),
        ((60, 300), "done", "5 to 20 s"),
        ((700, 800), "rolled back", "About 5 s"),
    ],
)
def test_a_stop_of_a_pod_that_was_here_before_may_take_longer(ago: tuple[int, ...], ended: str, price: str) -> None:
    """kubelet keeps a back-off by the pod's hash; after a rollback the pod is the old one with a new container."""
    facts = armed()
    started = datetime.fromtimestamp(NOW - 50, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    now = Container("x", "kube-apiserver", True, 0, 0, started, "", "uid")
    changes = tuple(RolloutFacts(f"r{at}", "apiserver", "alice", NOW - at, "arm", "done", ended, False) for at in ago)
    plan = flavours.plan(replace(facts, containers=(now,), rollouts=changes), Wish(Part.APISERVER, 10_000))
    assert plan.trigger is Trigger.STOP
    assert plan.price.startswith(price)
