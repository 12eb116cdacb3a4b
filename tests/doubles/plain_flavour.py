"""A flavour for tests of what stands around flavours: one manifest whose text has the usual lines."""

from __future__ import annotations

import difflib
import re

from tui.clusters import rates
from tui.clusters.model import FileChange, HostFile, Mode, NodeFacts, Part, Plan, PlanRefused, State, Trigger, Wish

MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml"
TRACING = "/etc/kubernetes/k8s-trace-tui/apiserver.yaml"
FLAG = f"    - --tracing-config-file={TRACING}\n"
ADDED = (  # after which line
    ("    - kube-apiserver\n", FLAG),
    (
        "    volumeMounts:\n",
        "    - mountPath: /etc/kubernetes/k8s-trace-tui\n      name: tracing\n      readOnly: true\n",
    ),
    (
        "  volumes:\n",
        "  - hostPath:\n      path: /etc/kubernetes/k8s-trace-tui\n      type: DirectoryOrCreate\n    name: tracing\n",
    ),
)


class PlainFlavour:
    """Knows the API server only."""

    name = "plain"
    rank = 1

    def recognises(self, facts: NodeFacts) -> bool:
        file = facts.files.get(MANIFEST)
        return file is not None and file.content is not None

    def more_paths(self, facts: NodeFacts) -> tuple[str, ...]:
        return (TRACING,)

    def states(self, facts: NodeFacts) -> tuple[State, ...]:
        manifest, tracing = self._texts(facts)
        rate = re.search(r"samplingRatePerMillion: (\d+)", tracing)
        endpoint = re.search(r"endpoint: (\S+)", tracing)
        last = [f"{one.who}: {one.what}" for one in facts.rollouts if one.ended]
        if FLAG not in manifest or rate is None or endpoint is None:
            return (State(facts.hostname, Part.APISERVER, Mode.OFF, last_change="".join(last[-1:])),)
        number = int(rate[1])
        mode = Mode.SAMPLING if number else Mode.ARMED
        return (
            State(facts.hostname, Part.APISERVER, mode, "v1.34.2", number, endpoint[1], last_change="".join(last[-1:])),
        )

    def plan(self, facts: NodeFacts, wish: Wish) -> Plan:
        manifest, tracing = self._texts(facts)
        if "    name: kube-apiserver\n" not in manifest:
            raise PlanRefused(f"{facts.hostname}: {MANIFEST} has no container kube-apiserver.")
        without = with_ = manifest
        for line, added in ADDED:
            without = without.replace(added, "")
            with_ = with_ if added in with_ else with_.replace(line, line + added)
        changes = []
        if wish.per_million is not None:
            kept = re.search(r"endpoint: (\S+)", tracing)
            endpoint = wish.endpoint or (kept[1] if kept else "localhost:4317")
            text = (
                "apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\n"
                f"endpoint: {endpoint}\nsamplingRatePerMillion: {wish.per_million}\n"
            )
            changes.append(self._change(facts, TRACING, text))
            changes.append(self._change(facts, MANIFEST, with_))
        else:
            changes.append(self._change(facts, MANIFEST, without))
        changes = [change for change in changes if change.before != change.after]
        restarts = any(change.path == MANIFEST for change in changes)
        port = re.search(r"--secure-port=(\d+)", manifest)
        return Plan(
            node=facts.hostname,
            part=Part.APISERVER,
            changes=tuple(changes),
            trigger=Trigger.MANIFEST if restarts else Trigger.STOP if changes else Trigger.NOTHING,
            diff="".join(map(self._diff, changes)),
            price="The API server of this node is away for about 40 s.",
            warnings=(),
            wish=Wish(wish.part, wish.per_million, wish.endpoint, wish.name or rates.text(wish.per_million or 0)),
            manifest=MANIFEST,
            container="kube-apiserver",
            health=tuple(f"http://127.0.0.1:{port[1]}/{path}" for path in ("livez", "readyz")) if port else (),
            grace_seconds=10,
        )

    def _texts(self, facts: NodeFacts) -> tuple[str, str]:
        found = [facts.files.get(path, HostFile(path)).content or b"" for path in (MANIFEST, TRACING)]
        return found[0].decode(), found[1].decode()

    def _change(self, facts: NodeFacts, path: str, text: str) -> FileChange:
        old, like = facts.files.get(path, HostFile(path)), facts.files[MANIFEST]
        return FileChange(path, old.content, text.encode(), 0o600, like.uid, like.gid)

    def _diff(self, change: FileChange) -> str:
        old, new = ((one or b"").decode().splitlines(keepends=True) for one in (change.before, change.after))
        return "".join(difflib.unified_diff(old, new, change.path, change.path))
