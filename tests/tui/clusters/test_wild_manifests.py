"""Manifests as people write them: a right plan, or a refusal that names the line, and never another byte."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tui.clusters.nodes import APISERVER, ETCD, after, etcd, node
from tests.tui.clusters.nodes import apiserver as kubeadm_apiserver
from tui.clusters import flavours
from tui.clusters.manifest import Pod, pods_running
from tui.clusters.model import Container, Mode, NodeFacts, Part, Plan, PlanRefused, State, Trigger, Wish
from tui.clusters.pods import ADDED, CHECKSUM, DIRECTORY, FILE, OURS
from tui.clusters.yaml_text import YamlText

ARM = Wish(Part.APISERVER, 0)
OFF = Wish(Part.APISERVER, None)
FLAG = f"--tracing-config-file={FILE}"

FLOW = """\
apiVersion: v1
kind: Pod
metadata: {name: kube-apiserver, namespace: kube-system, annotations: {}}
spec:
    containers:
      - name: kube-apiserver
        image: "registry.k8s.io/kube-apiserver:v1.34.2"
        command: ["kube-apiserver", '--secure-port=6443',]  # one line
        volumeMounts: [ {name: pki, mountPath: /etc/kubernetes/pki} ]
    volumes: [ {name: pki, hostPath: {path: /etc/kubernetes/pki}} ]
"""
ARGS = """\
# written by hand
apiVersion: v1
kind: Pod
metadata:
  name: kube-apiserver
spec:
  containers:
  - image: example.org:5000/mirror/kube-apiserver:v1.31.4_vendor.2@sha256:0123
    name: proxy-less
    command:
    - /go-runner
    - --log-file=/var/log/kube-apiserver.log
    - /usr/local/bin/kube-apiserver
    args:
    -   --secure-port
    -   "6443"   # as two words
    -   '--v=2'
    # the end
"""
SIDECAR = """\
apiVersion: v1
kind: Pod
metadata:
  name: kube-apiserver
  annotations:
    a: b # c
spec:
  hostNetwork: true
  containers:
    - name: kms
      image: example.org/kms:v1
      args:
        - --listen=/run/kms.sock
    - name: kube-apiserver
      image: registry.k8s.io/kube-apiserver:v1.33.0
      command:
        - kube-apiserver
        - >-
          --service-account-issuer=https://example.org
      volumeMounts:
        - name: pki
          mountPath: /etc/kubernetes/pki
  volumes:
    - name: pki
      hostPath: {path: /etc/kubernetes/pki}"""
JSON = json.dumps(yaml.safe_load(SIDECAR), indent=1)
ALIASES = """\
apiVersion: v1
kind: Pod
metadata:
  name: &n kube-apiserver
spec:
  containers:
  - image: registry.k8s.io/kube-apiserver:v1.34.2
    name: *n
    command:
    - *n
    - &last --v=2
    - *last
    volumeMounts: &m
    - {mountPath: /etc/kubernetes/pki, name: pki}
  - {name: other, image: x, volumeMounts: *m}
  volumes:
  - {name: pki, hostPath: {path: /etc/kubernetes/pki}}
"""


def state(facts: NodeFacts, part: Part = Part.APISERVER) -> State:
    return next(one for one in flavours.states(facts) if one.part is part)


def content(facts: NodeFacts, path: str = APISERVER) -> bytes:
    found = facts.files[path].content
    assert found is not None
    return found


def pod_of(text: bytes, program: str = "kube-apiserver") -> Pod:
    return next(pods_running(YamlText(APISERVER, text), program))


def read_by_libyaml(text: str | bytes) -> Any:
    """As a reader that is not the one of the code under test sees it: Go's is made after libyaml, and kubelet has it
    read the first document only."""
    return next(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def expected(text: str, tracing: bytes) -> Any:
    """What an armed manifest says: what it said before, our flag, mount, volume and annotation, and nothing else. Keys
    that had no value before are written down in one more annotation."""
    pod = read_by_libyaml(text)
    (container,) = pod["spec"]["containers"]
    empty = []

    def put(holder: Any, key: str, value: Any) -> None:
        if key in holder and holder[key] is None:
            empty.append(f"empty:{key}")
        now = holder.get(key)
        holder[key] = {**(now or {}), **value} if isinstance(value, dict) else [*(now or []), *value]

    put(container, "args" if container.get("args") else "command", [FLAG])
    put(container, "volumeMounts", [{"mountPath": DIRECTORY, "name": OURS, "readOnly": True}])
    put(pod["spec"], "volumes", [{"hostPath": {"path": DIRECTORY, "type": "DirectoryOrCreate"}, "name": OURS}])
    put(pod["metadata"], "annotations", {CHECKSUM: hashlib.sha256(tracing).hexdigest()})
    put(pod["metadata"], "annotations", {ADDED: " ".join(sorted(empty))} if empty else {})
    return pod


def only_added(before: str, now: str) -> bool:
    """Whether `now` is `before` with characters put in."""
    rest = iter(now)
    return all(character in rest for character in before)


@pytest.mark.parametrize("text", [FLOW, ARGS, SIDECAR, JSON], ids=["flow", "args", "sidecar", "json"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_ways_of_writing_are_kept(text: str, newline: str, mark: str) -> None:
    text = mark + text.replace("\n", newline)
    facts = node(apiserver=text)
    plan = flavours.plan(facts, ARM)
    armed = after(facts, plan)
    now = content(armed).decode()
    assert only_added(text, now)
    assert len(re.findall(r"(?<!\r)\n", now)) == (0 if newline == "\r\n" else now.count("\n"))
    for line in now.splitlines():
        assert not line.endswith(" ") or line in text.splitlines()
    assert state(armed).mode is Mode.ARMED
    pod = pod_of(content(armed))
    assert [text for _, text in pod.words()][-1] == FLAG
    assert pod.host_path(FILE) == FILE
    assert content(after(armed, flavours.plan(armed, OFF))).decode() == text


@pytest.mark.parametrize(
    ("manifest", "old", "new", "says"),
    [
        (ALIASES, "", "", r"line 13: .*`\*m`"),
        (
            FLOW,
            "'--secure-port=6443',",
            "'--tracing_config_file=/x', '--tracing-config-file=/y'",
            "line 8: .*second time",
        ),
        (FLOW, "containers:", "containers: &c", ""),
        (
            ARGS,
            "    - /usr/local/bin/kube-apiserver\n",
            "    - /start.sh\n",
            r"line 11: .* does not name kube-apiserver",
        ),
        (ARGS, '"6443"', "6443", "line 16: .*no string"),
        (ARGS, "    args:\n", "    args:\n    - |\n      --x\n    - --\n", "lone --"),
        (ARGS, "'--v=2'", "--tracing-config-file=$(FILE)", "line 17: .*variable"),
        (ARGS, "'--v=2'", "--tracing-config-file", "line 17: .*no value"),
        (ARGS, "'--v=2'", "--tracing-config-file=etc/x.yaml", "line 17: .*no mount"),
        (ARGS, "  name: kube-apiserver\n", "  name: kube-apiserver\n  name: x\n", "line 6: .*second time"),
        (ARGS, "spec:\n", "spec: &s\n  x: *s\n", "nested deeper"),
        (ARGS, "  - image", "\t- image", "line 8: .*no YAML"),
        (ARGS, "# written by hand\n", "---\n---\n", "line 3: the first document is empty"),
        (ARGS, "# written by hand", "--- # only mark", ""),
        (ARGS, "    # the end\n", "---\n# nothing\n---\n", ""),
        (ARGS, "    name: proxy-less\n", "    <<: {name: kube-apiserver}\n", "line 8: .*<<"),
        (SIDECAR, "    - name: kms\n", "    - name: kube-apiserver\n", "a second container"),
        (
            SIDECAR,
            "      hostPath: {path: /etc/kubernetes/pki}",
            "      hostPath: {path: /p}\n    - {name: pki}",
            "line 26: a second volume",
        ),
        (SIDECAR, "        - >-\n", "        - --tracing-config-file=/run/t/x.yaml\n        - >-\n", "under no mount"),
        (
            SIDECAR,
            "{path: /etc/kubernetes/pki}",
            "{path: /e}\n    - {name: k8s-trace-tui, emptyDir: {}}",
            "line 26: .*k8s-trace-tui already",
        ),
        (
            SIDECAR,
            "mountPath: /etc/kubernetes/pki",
            "mountPath: /etc/kubernetes/k8s-trace-tui/",
            "line 21: .*from elsewhere",
        ),
        (SIDECAR, "v1.33.0", "latest", "line 15: .*names no version"),
        (SIDECAR, "v1.33.0", "v1.37.1", ""),
        (SIDECAR, "        - >-\n", "        - --feature-gates=A=true,APIServerTracing=true\n        - >-\n", ""),
    ],
)
def test_what_is_odd_is_planned_right_or_refused_with_its_line(manifest: str, old: str, new: str, says: str) -> None:
    assert old in manifest
    text = manifest.replace(old, new, 1)
    facts = node(apiserver=text)
    if not says:
        armed = after(facts, flavours.plan(facts, ARM))
        assert state(armed).mode is Mode.ARMED
        assert only_added(text, content(armed).decode())
        return
    with pytest.raises(PlanRefused, match=says) as refused:
        flavours.plan(facts, ARM)
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith(".")
    assert flavours.states(facts)


@pytest.mark.parametrize(
    ("version", "gates", "says"),
    [
        ("v1.26.3", "", "+    - --feature-gates=APIServerTracing=true"),
        ("v1.24.9", "A=true", "+    - --feature-gates=A=true,APIServerTracing=true"),
        ("v1.26.3", "APIServerTracing=true", ""),
        ("v1.26.3", "AllAlpha=true", ""),
        ("v1.26.3", "APIServerTracing=false", "!APIServerTracing=true"),
        ("v1.29.3", "APIServerTracing=false", "!switched off"),
        ("v1.29.3", "AllBeta=false", "!switched off"),
        ("v1.29.3", "AllBeta=false,APIServerTracing=true", ""),
        ("v1.35.0", "APIServerTracing=false", "!locked to true"),
        ("v1.35.0", "kube:APIServerTracing=true", "?gone in 1.37"),
        ("v1.37.0", "APIServerTracing=true", "!which is gone"),
        ("v1.37.0", "AllBeta=false", ""),
    ],
)
def test_feature_gates_as_each_release_takes_them(version: str, gates: str, says: str) -> None:
    facts = node(apiserver=kubeadm_apiserver(version, f"    - --feature-gates={gates}\n" if gates else ""))
    if says.startswith("!"):
        with pytest.raises(PlanRefused, match=f"{version}.*{says[1:]}"):
            flavours.plan(facts, ARM)
        return
    plan = flavours.plan(facts, ARM)
    assert ("gone in 1.37" in " ".join(plan.warnings)) == says.startswith("?")
    assert (says[1:] if says.startswith("?") else says).lstrip("?") in plan.diff + " ".join(plan.warnings)
    assert ("+    - --feature-gates" in plan.diff) == says.startswith("+")
    armed = after(facts, plan)
    assert content(after(armed, flavours.plan(armed, OFF))) == content(facts)


def test_a_file_is_found_where_the_volumes_say_it_lies() -> None:
    text = SIDECAR.replace(
        "        - >-\n", "        - --tracing-config-file\n        - /cfg/deep/t.yaml\n        - >-\n"
    )
    text = text.replace("mountPath: /etc/kubernetes/pki", "mountPath: /cfg/deep\n          subPath: sub")
    facts = node(apiserver=text)
    assert flavours.more_paths(facts) == ("/etc/kubernetes/pki/sub/t.yaml",)
    assert state(facts).mode is Mode.UNKNOWN, "it was not looked at"
    facts = node(apiserver=text, **{"/etc/kubernetes/pki/sub/t.yaml": ""})
    assert state(facts).mode is Mode.BROKEN
    mended = after(facts, flavours.plan(facts, ARM))
    assert state(mended).mode is Mode.ARMED
    assert content(mended) == text.encode(), "an empty file is made anew, and no more"
    off = flavours.plan(mended, OFF)
    assert [change.path for change in off.changes] == [APISERVER], "the operator's file stays"
    assert "tracing-config-file" not in content(after(mended, off)).decode()
    assert "/cfg/deep/t.yaml" not in content(after(mended, off)).decode()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a: 1\nb: [x, 'y/z']\n", '# note\nb:\n- "x"\n- y/z\na:   1\n', True),
        ("a: |\n  x\n  y\n", 'a: "x\\ny\\n"\r\n', True),
        ("a: &x b\nc: *x\n", "a: b\nc: b\n", True),
        ("a: {b: c}\n", "a: {b: d}\n", False),
        ("a: [b, c]\n", "a: [c, b]\n", False),
        ("a: 1\n", "a: '1'\n", False),
        # other readers take these for numbers, booleans or nothing
        ("a: yes\n", "a: 'yes'\n", False),
        ("a: y\n", 'a: "y"\n', False),
        ("a: 1:30\n", "a: '1:30'\n", False),
        ("a: 010\n", "a: 8\n", False),
        ("a:\n", "a: ''\n", False),
        ("on: a\n", "'on': a\n", False),
        ("a: &x {b: c}\nd: {<<: *x}\n", "a: &x {b: c}\nd: {<<: *x} #\n", False),
    ],
)
def test_the_same_for_every_reader_or_not(one: str, other: str, same: bool) -> None:
    first, second = YamlText("/m", one.encode()), YamlText("/m", other.encode())
    assert first.says_the_same(second) is same
    assert second.says_the_same(first) is same
    assert first.says_the_same(first) is ("<<" not in one)


def test_every_bump_is_a_difference_that_the_kubelet_parses() -> None:
    """After a stop by CRI the annotation is that of the file before; going back to it must still restart the pod."""
    facts = after(found := node(apiserver=kubeadm_apiserver()), flavours.plan(found, ARM))
    running = Container("a", "kube-apiserver", True, 0, 0, "2020-01-01T00:00:00.123456789Z", "", "uid")
    facts = replace(facts, containers=(running,))
    one = flavours.plan(facts, Wish(Part.APISERVER, 10_000))
    assert one.trigger is Trigger.STOP
    facts = after(facts, one)
    ended = replace(running, id="b", running=False, finished="2026-11-18T20:25:00Z", attempt=0)
    facts = replace(facts, containers=(replace(running, attempt=1), ended), now=1_795_033_600)
    back = flavours.plan(facts, ARM)
    assert back.trigger is Trigger.MANIFEST
    assert [change.path for change in back.changes] == [FILE, APISERVER]
    assert back.changes[1].before != back.changes[1].after


@pytest.mark.parametrize(
    ("version", "rate", "says"),
    [
        ("3.4.30-0", 0, "knows no tracing"),
        ("3.5.4-0", 0, "record every request"),
        ("3.5.10-0", 10_000, "no sampling rate"),
        ("3.5.10-0", 0, ""),
        ("3.5.11-0", 10_000, ""),
        ("3.6.5-0", 0, ""),
        ("v3.7.0", 1_000_000, ""),
        ("latest", 0, "names no version"),
    ],
)
def test_what_an_etcd_cannot_do_is_refused_with_its_version(version: str, rate: int, says: str) -> None:
    facts = node(apiserver=kubeadm_apiserver(), etcd=etcd(version))
    if says:
        with pytest.raises(PlanRefused, match=says) as refused:
            flavours.plan(facts, Wish(Part.ETCD, rate))
        assert version.partition("-")[0] in str(refused.value)
        return
    armed = after(facts, flavours.plan(facts, Wish(Part.ETCD, rate)))
    found = state(armed, Part.ETCD)
    assert (found.per_million, found.instance) == (rate, "cp-1")
    assert content(after(armed, flavours.plan(armed, Wish(Part.ETCD, None))), ETCD) == content(facts, ETCD)


def test_the_operators_own_flags_of_etcd_stay() -> None:
    own = "    - --experimental-enable-distributed-tracing\n    - --distributed-tracing-instance-id=mine\n"
    text = etcd().replace("    - --name=cp-1\n", own + "    - --name=cp-1\n")
    facts = node(apiserver=kubeadm_apiserver(), etcd=text)
    assert state(facts, Part.ETCD).mode is Mode.ARMED, "3.6 takes the old names too"
    assert flavours.plan(facts, Wish(Part.ETCD, 0)).empty
    off = after(facts, flavours.plan(facts, Wish(Part.ETCD, None)))
    assert content(off, ETCD).decode() == text.replace("-tracing\n", "-tracing=false\n")
    assert state(off, Part.ETCD).mode is Mode.OFF
    newer = node(apiserver=kubeadm_apiserver(), etcd=text.replace("3.6.5-0", "3.7.0-0"))
    assert state(newer, Part.ETCD).mode is Mode.BROKEN
    with pytest.raises(PlanRefused, match=r"line 14: etcd 3\.7\.0.* does not start"):
        flavours.plan(newer, Wish(Part.ETCD, 0))


# --- generated --------------------------------------------------------------------------------------
COMMENTS = st.sampled_from(["", "", "", "  # a comment", " # - --tracing-config-file=/not/this"])
FLAGS = st.lists(
    st.sampled_from(
        ["--v=2", "--secure-port=6443", "--allow-privileged=true", "--a={b: c}", "--long=" + "x" * 120, "--e=a,b#c"]
    ),
    max_size=6,
    unique=True,
)  # fmt: skip


@st.composite
def manifests(draw: st.DrawFn) -> str:
    """A manifest of an API server in one of the many ways to write it down."""
    quote = draw(st.sampled_from(["{}", "'{}'", '"{}"']))
    listed = " " * draw(st.sampled_from([0, 2, 4]))
    deep = " " * draw(st.sampled_from([2, 4]))
    dash = "-" + " " * draw(st.integers(1, 4))
    pad = " " * len(dash)
    flags = ["kube-apiserver", *draw(FLAGS)]
    words = [quote.format(flag) if flag != "kube-apiserver" and (" " not in flag or quote != "{}") else f"'{flag}'"
             for flag in flags]  # fmt: skip
    item = deep + listed + pad
    lines = ["apiVersion: v1", "kind: Pod", "metadata:" + draw(COMMENTS)]
    lines += [f"{deep}name: kube-apiserver", f"{deep}namespace: kube-system"]
    annotations = draw(st.sampled_from(["", "{}", "block", "empty"]))
    if annotations:
        lines.append(f"{deep}annotations:" + (" {}" if annotations == "{}" else draw(COMMENTS)))
    if annotations == "block":
        lines += [f"{deep}{deep}example.org/a: 'b'" + draw(COMMENTS)]
    lines += ["spec:", f"{deep}containers:"]
    body = [
        f"image: registry.k8s.io/kube-apiserver:{draw(st.sampled_from(['v1.27.3', 'v1.32.1', 'v1.34.2', 'v1.36.2']))}"
    ]
    key = draw(st.sampled_from(["command", "args"]))
    if draw(st.booleans()):
        body += [f"{key}:" + draw(COMMENTS), *(f"{listed}- {word}{draw(COMMENTS)}" for word in words)]
    else:
        body += [f"{key}: [{', '.join(repr(word.strip(chr(39) + chr(34))) for word in words)}]" + draw(COMMENTS)]
    if draw(st.booleans()):
        mounts = [f"{listed}- name: pki", f"{listed}  mountPath: /etc/kubernetes/pki{draw(COMMENTS)}"]
        body += draw(
            st.sampled_from(
                [["volumeMounts:", *mounts], ["volumeMounts: [{name: pki, mountPath: /p}]"], ["volumeMounts:"]]
            )
        )
    if draw(st.booleans()):
        body = [*body[1:], body[0], "name: kube-apiserver"]
    else:
        body = ["name: kube-apiserver", *body]
    if draw(st.booleans()):
        body.insert(0, "env: []")
    lines += [deep + listed + dash + body[0], *(item + line for line in body[1:])]
    volumes = [
        f"{deep}volumes:",
        f"{deep}{listed}- name: pki",
        f"{deep}{listed}  hostPath: {{path: /etc/kubernetes/pki}}",
    ]
    host = [f"{deep}hostNetwork: true" + draw(COMMENTS)]
    lines += host + volumes if draw(st.booleans()) else volumes + host
    lines += draw(st.sampled_from([[], ["# the end"], ["status: {}"], ["", ""]]))
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    return newline.join(lines) + draw(st.sampled_from(["", newline]))


WISHES = st.builds(
    Wish,
    st.just(Part.APISERVER),
    st.integers(0, 1_000_000),
    st.sampled_from(["", "localhost:4317", "10.0.0.5:4317", "[::1]:4317", "otel.example.org:4317"]),
)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(manifests(), WISHES, WISHES)
def test_any_manifest_is_as_wished_and_comes_back_byte_for_byte(text: str, first: Wish, second: Wish) -> None:
    start = node(apiserver=text)
    facts = start
    armed_once: NodeFacts | None = None
    for wish in (first, second):
        plan = flavours.plan(facts, wish)
        facts = after(facts, plan)
        armed_once = armed_once or facts
        found = state(facts)
        assert (found.per_million, found.mode is Mode.ARMED) == (wish.per_million, wish.per_million == 0)
        assert found.endpoint == (wish.endpoint or first.endpoint or "127.0.0.1:4317")
        assert only_added(text, content(facts).decode())
        assert applied(plan)
        assert read_by_libyaml(content(facts)) == expected(text, content(armed_once, FILE))
        assert flavours.plan(facts, replace(wish, endpoint="")).empty
    off = after(facts, flavours.plan(facts, OFF))
    assert content(off).decode() == text
    assert off.files[FILE].content is None
    assert flavours.plan(off, OFF).empty


def applied(plan: Plan) -> bool:
    """Whether the diff tells all lines that were added."""
    for change in plan.changes:
        added = set((change.after or b"").decode().splitlines()) - set((change.before or b"").decode().splitlines())
        if not all(f"+{line}" in plan.diff for line in added):
            return False
    return True


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(manifests(), st.sampled_from(["---\n", "---\n---\n# nothing\n", "...\n"]))
def test_documents_without_content_behind_the_pod_are_left_alone(text: str, behind: str) -> None:
    text = text if text.endswith("\n") else text + "\n"
    start = node(apiserver=text + behind)
    armed = after(start, flavours.plan(start, ARM))
    assert content(armed).decode().endswith(behind)
    assert read_by_libyaml(content(armed)) == expected(text, content(armed, FILE))
    assert content(after(armed, flavours.plan(armed, OFF))) == content(start)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(manifests(), st.data())
def test_broken_manifests_are_refused_and_never_half_edited(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    odd = data.draw(
        st.sampled_from(["\t", "\n", "*", "&x ", ": ", "- ", "'", '"', "{", "]", "\x00", "|\n", "---\n", "#"])
    )
    facts = node(apiserver=text[:at] + odd + text[at:])
    flavours.states(facts)
    try:
        plan = flavours.plan(facts, ARM)
    except PlanRefused as refused:
        sentence = str(refused)
    else:
        sentence = ""
        armed = after(facts, plan)
        assert only_added(text, content(armed).decode())
        assert read_by_libyaml(content(armed)) == expected(content(facts).decode(), content(armed, FILE))
        assert content(after(armed, flavours.plan(armed, OFF))) == content(facts)
    assert "\n" not in sentence
