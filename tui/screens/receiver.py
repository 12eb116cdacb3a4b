"""The Receiver screen: what listens, who sends, what is kept; and while nothing comes, why not and what to do."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from rich.style import Style
from textual.widget import Widget

from tui.cluster_feed import ClusterFeed, Examination
from tui.clusters.endpoint import on_this_machine
from tui.clusters.probe import SERVICE as OURSELVES
from tui.evictions import whose
from tui.feed import Snapshot, sender_key
from tui.keys import bindings
from tui.screens.doctor_lines import doctor_lines, needs_recipe
from tui.screens.frame import FrameScreen
from tui.screens.help import Lines
from tui.sender_limits import limited, taken
from tui.terminal_text import clock, count, counted, duration, fit, printable, size, width_of
from tui.widgets.line import Part
from tui.widgets.status import wrap_words
from tui.widgets.table import Sheet, VirtualTable

QUIET_NS: Final = 60_000_000_000
"""After this long without a span the doctor looks why."""
AGAIN_SECONDS: Final = 30.0
"""Until it looks again, while the screen is open and nothing arrives."""
_SECOND: Final = 1_000_000_000
_MOST_RESTARTS: Final = 3

Line = list[Part]

_BROKEN_OFF: Final = "{} exports: over 16 MiB, too slow, or given up by the sender"


# --- the recipe ------------------------------------------------------------------------------------
def recipe(endpoint: str) -> list[tuple[str, str]]:
    """How to turn tracing on, as (kind, text) lines; kind is "text", "paste", "file" or "warn".

    Facts: kubernetes 1.27 to 1.37 accept v1beta1 and 1.34 on v1; the flag needs the file mounted (kubernetes issue
    116758); kubelet starts every file in the manifests directory; etcd 3.6 dropped `experimental-` from its flags.
    """
    return [
        ("text", "kubeadm, on every control-plane node, one after the other: its API server is away for about 40 s."),
        ("file", "1  /etc/kubernetes/tracing/config.yaml"),
        ("text", "Make it first."),
        ("paste", "apiVersion: apiserver.config.k8s.io/v1beta1  # v1 from Kubernetes 1.34 on"),
        ("paste", "kind: TracingConfiguration"),
        ("paste", f"endpoint: {endpoint}"),
        ("paste", "samplingRatePerMillion: 10000  # 1 %; 1000000 is every request"),
        ("file", "2  /etc/kubernetes/manifests/kube-apiserver.yaml"),
        ("text", "Edit a copy in another directory, then mv it here."),
        ("warn", "No backup in the manifests directory: kubelet runs every file there, whatever its name ends with."),
        ("paste", "# spec.containers[0].command"),
        ("paste", "- --tracing-config-file=/etc/kubernetes/tracing/config.yaml"),
        ("paste", "# spec.containers[0].volumeMounts; without it the server does not start"),
        ("paste", "- {name: tracing, mountPath: /etc/kubernetes/tracing, readOnly: true}"),
        ("paste", "# spec.volumes"),
        ("paste", "- name: tracing"),
        ("paste", "  hostPath: {path: /etc/kubernetes/tracing, type: Directory}"),
        ("file", "3  /etc/kubernetes/manifests/etcd.yaml"),
        ("text", "For what happens inside etcd; edited in the same way."),
        ("paste", "# spec.containers[0].command"),
        ("paste", "- --enable-distributed-tracing=true  # etcd 3.6 and later"),
        ("paste", f"- --distributed-tracing-address={endpoint}"),
        ("paste", "- --distributed-tracing-instance-id=NODE  # this node's name"),
        ("text", "etcd 3.5: the same three, as in --experimental-enable-distributed-tracing=true."),
        ("text", "Before 3.5.5 it traces every request, whatever the API server samples."),
        ("file", "Elsewhere"),
        ("text", "Kubernetes 1.22 to 1.26: apiVersion ending in v1alpha1, and --feature-gates=APIServerTracing=true."),
        ("text", "k3s, RKE2: kube-apiserver-arg: [tracing-config-file=PATH] in their config.yaml, then restart."),
        ("text", "Not on the node? ssh -R 127.0.0.1:4317:127.0.0.1:4317 NODE brings its spans here."),
    ]  # fmt: skip


def recipe_lines(endpoint: str) -> list[str]:
    """The recipe for the clipboard, line by line: what is not to be pasted is a comment."""
    return [text if kind == "paste" else f"# {text}" for kind, text in recipe(endpoint)]


# --- the screen ------------------------------------------------------------------------------------
class ReceiverScreen(FrameScreen):
    """What the receiver process says of itself, once a second."""

    PLACE = "receiver"
    BINDINGS = bindings("receiver")

    def __init__(self) -> None:
        super().__init__()
        self._status: dict[str, Any] | None = None
        self._recipe: bool | None = None
        self._looked = False
        """The operator asked why, whether or not something arrives."""
        self._alone_since = 0
        """When there was first no receiver, ns since the epoch."""
        self._made: object = None
        self._version = 0

    def body(self) -> Iterable[Widget]:
        """Lines to scroll through."""
        yield Sheet()

    def on_mount(self) -> None:
        """Textual's event."""
        super().on_mount()
        self.query_one(Sheet).focus()

    def words(self) -> dict[str, str]:
        """A recording needs no recipe."""
        none = {} if self.feed.live else {"receiver.recipe": "", "receiver.copy": ""}
        unlooked = {} if self._may_look else {"receiver.look": ""}
        return {**super().words(), **none, **unlooked}

    @property
    def clusters(self) -> ClusterFeed:
        """Where the doctor looks at control planes."""
        return self.trace_app.clusters

    @property
    def _may_look(self) -> bool:
        return self.feed.live and self.clusters.here

    def repaint(self) -> None:
        """Other colours, another time zone."""
        self._made = None
        self._version += 1
        self.query_one(Sheet).repaint()

    def quiet(self, snapshot: Snapshot) -> int:
        """Nanoseconds since a span came that is not the doctor's, or since there is a receiver to send to."""
        status = snapshot.status
        if status is not None:
            sent = (_number(one, "last") for one in _list(status, "senders") if one.get("service") != OURSELVES)
            since = max(_number(status, "started"), *sent, 0)
        else:
            since = max(snapshot.last_arrival, self._alone_since)
        return max(0, self.feed.now() - since) if since else 0

    def update(self, snapshot: Snapshot) -> None:
        """Once a second there is something new to say."""
        status = snapshot.status
        self._status = status
        if status is not None:
            self._alone_since = 0
        elif not self._alone_since:
            self._alone_since = self.feed.now()
        quiet = self.quiet(snapshot)
        self._look_by_itself(quiet)
        found = self.clusters.snapshot.generation
        made = (id(status), snapshot.spans, snapshot.traces, self._recipe, self.size, self.feed.now() // _SECOND, found)
        if made == self._made:
            return
        self._made = made
        self._title(snapshot)
        lines = self._lines(snapshot, quiet)
        table = self.query_one(Sheet)
        table.source = Lines(lines, self._version)
        table.sync()
        self._hint()

    def _look_by_itself(self, quiet: int) -> None:
        """While nothing arrives; never while somebody waits for a change of a node."""
        if quiet < QUIET_NS or not self._may_look:
            return
        last = self.clusters.snapshot.examination
        if last is None or time.monotonic() - last.ended >= AGAIN_SECONDS:
            self.clusters.examine()

    def on_virtual_table_moved(self, event: VirtualTable.Moved) -> None:
        """The list's message."""
        event.stop()
        self._hint()

    def _hint(self) -> None:
        path = self.feed.path
        left: list[Part] = [(f" {printable(str(path))}", self.palette.dim)] if path is not None else []
        self.hint_parts(left, self.more_lines(self.query_one(Sheet).below))

    def _title(self, snapshot: Snapshot) -> None:
        p, status = self.palette, snapshot.status
        left: list[Part] = [("Receiver", p.title)]
        right: list[Part] = []
        if not self.feed.live:
            left.append(("  a recording: nothing is received", p.dim))
        elif status is None:
            left.append((f"  {self.glyphs.suspicious} not running", p.warning))
        else:
            listening = [one for one in _list(status, "listeners") if not one.get("error")]
            names = [printable(f"{one.get('address')}", 60) for one in listening] or ["nowhere"]
            lost = _number(status, "rejected") + _number(status, "malformed")
            right = [
                (f"received {count(_number(status, 'accepted'))}", p.base),
                (
                    f"   refused {count(_number(status, 'refused'))}",
                    p.warning if _number(status, "refused") else p.base,
                ),
                (f"   lost {count(lost)}", p.error if lost else p.base),
            ]
            left += self._listening(names, sum(width_of(text) for text, _ in right))
        self.title_parts(left, right)

    def _listening(self, names: Sequence[str], taken: int) -> list[Part]:
        """As many addresses as have room beside what was received; they are all in the table below."""
        room = self.size.width - taken - len("─ Receiver    ─  ") - 1
        for shown in range(len(names), 0, -1):
            more = f" and {len(names) - shown} more" if shown < len(names) else ""
            text = f"  listening {', '.join(names[:shown])}{more}"
            if width_of(text) <= room:
                return [(text, self.palette.base)]
        return []

    # -- lines ------------------------------------------------------------------------------------------
    def _lines(self, snapshot: Snapshot, quiet: int) -> list[Line]:
        p, status = self.palette, snapshot.status
        lines: list[Line] = []
        examined = self._may_look and (quiet >= QUIET_NS or self._looked)
        if examined:
            lines += self._doctor_lines(quiet)
        helps = self.feed.live and self._shows_recipe(quiet)
        if helps:
            lines += self._recipe_lines(snapshot, 0 if examined else quiet)
        if status is not None:
            lines += self._listeners(status)
            lines += self._senders(status)
            lines += self._held_back(status)
            lines += self._totals(status, snapshot)
        else:
            lines += self._contents(snapshot)
            lines += [
                [],
                [(f" kept       {counted(snapshot.traces, 'trace')}, {counted(snapshot.spans, 'span')}", p.base)],
            ]
        lines += self._notes(status)
        if self.feed.live and not helps:  # what can be done, where there is nothing better to say
            key = self.trace_app.key_of("receiver.recipe")
            lines += [[], [(f" {key}", p.key), (" shows how to turn tracing on in a cluster", p.dim)]]
        return lines

    def _shows_recipe(self, quiet: int) -> bool:
        """As the operator chose, else while nothing arrives and the doctor found nothing that says more."""
        if self._recipe is not None or quiet < QUIET_NS or not self._may_look:
            return quiet >= QUIET_NS if self._recipe is None else self._recipe
        found = self.clusters.snapshot.examination
        return found is not None and needs_recipe(found.steps)

    def _doctor_lines(self, quiet: int) -> list[Line]:
        """Why nothing arrives, as far as it was looked at."""
        p, found, width = self.palette, self.clusters.snapshot, self.size.width
        last = found.examination
        said = f" Nothing has arrived for {_ago(quiet)}." if quiet >= QUIET_NS else ""
        lines: list[Line] = [[(said, p.warning), *self._when_looked(last, width - width_of(said) - 1)]]
        if last is None:
            return [*lines, []]
        if last.problem:
            wrapped = wrap_words(printable(f"{self.glyphs.failed} {last.problem}", 400), max(20, width - 4), 6)
            lines += [[(f"  {part}", p.error)] for part in wrapped]
        return [*lines, *doctor_lines(last.steps, width, p, self.glyphs, self._key_for), []]

    def _when_looked(self, last: Examination | None, room: int) -> list[Part]:
        """What the doctor does or when it did, in as many words as there is room for."""
        run = self.clusters.rolling
        if run is not None:
            ways = [f"{run.at_work} is being changed: nobody looks meanwhile.", "A node is being changed."]
        elif self.clusters.snapshot.examining and last is None:
            ways = ["Looking from here towards the API server …", "Looking why …"]
        elif last is None:
            ways = [""]
        else:
            key, at = self.trace_app.key_of("receiver.look"), clock(last.at, self.trace_app.utc)[:8]
            seen = f"Looked from here towards the API server at {at}"
            ways = [f"{seen}; {key} looks again:", f"Looked at {at}; {key} again:", f"Looked at {at}:", ""]
        for way in ways:
            text = f" {printable(way.replace('…', '...') if self.glyphs.ascii else way, 200)}"
            if width_of(text) <= room:
                return [(text, self.palette.dim)]
        return []

    def _key_for(self, action: str) -> str:
        """How the Clusters screen is told to do something, "" where it may not."""
        if self.clusters.read_only:
            return ""
        return f":clusters, then {self.trace_app.key_of(f'clusters.{action}')}"

    def _recipe_lines(self, snapshot: Snapshot, quiet: int) -> list[Line]:
        p = self.palette
        styles = {"text": p.dim, "paste": p.base, "file": p.title, "warn": p.warning}
        if quiet >= QUIET_NS:
            said = f" Nothing has arrived for {_ago(quiet)}. To turn tracing on by hand:"
        else:
            said = " To turn tracing on by hand:"
        lines: list[Line] = [[(said, p.warning if quiet >= QUIET_NS else p.title)]]
        for kind, text in recipe(on_this_machine(snapshot.status)):
            if kind == "paste":
                lines.append([(f"      {printable(text)}", styles[kind])])
                continue
            mark = f"{self.glyphs.suspicious} " if kind == "warn" else ""
            indent = 1 if kind == "file" else 4
            wrapped = wrap_words(printable(mark + text), max(20, self.size.width - indent - 1), 6)
            lines += [[(" " * indent + part.strip(), styles[kind])] for part in wrapped]
        lines.append([(f" {self.trace_app.key_of('receiver.copy')}", p.key), (" copies all of it", p.dim)])
        return [*lines, []]

    def _listeners(self, status: dict[str, Any]) -> list[Line]:
        p, every = self.palette, _list(status, "listeners")
        widest = max((width_of(printable(str(one.get("address", "")), 40)) for one in every), default=0)
        room = min(max(len("ADDRESS"), widest), max(20, min(34, self.size.width - 32)))  # beside it: "plain text"
        lines: list[Line] = [[(f" {fit('LISTENER', 16)}  ADDRESS", p.header)]]
        for listener in every:
            name, address = fit(str(listener.get("name", "")), 16), str(listener.get("address", ""))
            error = listener.get("error")
            line: Line = [(f" {name}  ", p.base), (fit(address, room), p.base)]
            lines.append(line)
            if error:
                problem = f"{self.glyphs.failed} {printable(str(error), 300)}"
                first, *rest = wrap_words(problem, max(20, self.size.width - room - 22), 6)
                line.append((f"  {first}", p.error))
                lines += [[(" " * (room + 21) + part, p.error)] for part in rest]
            else:
                line.append(("  TLS" if listener.get("tls") else "  plain text", p.dim))
        if len(lines) == 1:
            lines.append([(f" {self.glyphs.suspicious} none", p.warning)])
        return lines

    def _senders(self, status: dict[str, Any]) -> list[Line]:
        p, wide = self.palette, self.size.width >= 120
        narrow = self.size.width < 72
        every = _list(status, "senders")
        others = (one for one in every if one.get("service") != OURSELVES)  # each look of the doctor's is a new one
        senders = sorted(others, key=lambda one: (str(one.get("service")), sender_key(one)))
        peer = 22 if wide else 16
        service = 18 if wide else 14
        head = f" {fit('SENDER', peer)}  {fit('SERVICE', service)}"
        if not narrow:
            head += f"  {fit('SPANS', 11, True)}  {fit('SPANS/S', 7, True)}"
        head += f"  {fit('LAST', 9, True)}"
        if wide:
            head += f"  {fit('SOURCE', 12)}  {fit('INSTANCE', 24)}  EXPORTER"
        lines: list[Line] = [[], [(head, p.header)]]
        rates = self.feed.snapshot.sender_rates
        for sender in senders:
            key = sender_key(sender)
            last = _number(sender, "last")
            age = max(0, self.feed.now() - last)
            line: Line = [
                (f" {fit(str(sender.get('peer', '')), peer)}  ", p.base),
                (fit(str(sender.get("service", "")) or "(no service.name)", service), p.base),
            ]
            if not narrow:
                line.append((f"  {fit(count(_number(sender, 'spans')), 11, True)}", p.base))
                line.append((f"  {fit(f'{rates.get(key, 0.0):,.1f}', 7, True)}", p.base if rates.get(key) else p.dim))
            line.append((f"  {fit(_ago(age) if last else '', 9, True)}", p.dim if age < QUIET_NS else p.warning))
            if wide:
                line.append((f"  {fit(str(sender.get('source', '')), 12)}", p.dim))
                line.append((f"  {fit(str(sender.get('instance', '')), 24)}", p.dim))
                line.append((f"  {printable(str(sender.get('agent', '')), 80)}", p.dim))
            lines.append(line)
        if not senders:
            lines.append([(" nobody but the doctor yet" if every else " nobody yet", p.dim)])
        return lines

    def _held_back(self, status: dict[str, Any]) -> list[Line]:
        """Who takes more than its share, and how much everybody takes; nothing while nobody does."""
        sentence, p = limited(status), self.palette
        if not sentence:
            return []
        said = wrap_words(f"{self.glyphs.suspicious} {sentence}", max(20, self.size.width - 2), 6)
        lines: list[Line] = [[], *([(f" {part}", p.warning)] for part in said)]
        for one in taken(status):
            lines += [[(f"   {part}", p.dim)] for part in wrap_words(one.words, max(20, self.size.width - 4), 3)]
        return lines

    def _totals(self, status: dict[str, Any], snapshot: Snapshot) -> list[Line]:
        p = self.palette

        def n(key: str) -> str:
            return count(_number(status, key))

        def row(name: str, text: str, bad: bool = False) -> list[Line]:
            mark = f"{self.glyphs.suspicious} " if bad else ""
            return self._named(name, f"{mark}{text}", p.warning if bad else p.base)

        cap, lost = _number(status, "cap_bytes"), _number(status, "rejected") + _number(status, "malformed")
        used = size(_number(status, "live_bytes")) + (f" of {size(cap)}" if cap else "")
        kept = f"{counted(snapshot.traces, 'trace')}, {counted(snapshot.spans, 'span')}, {used}"
        since = clock(_number(status, "started"), self.trace_app.utc)[:8]
        evicted = f"{n('evicted_spans')} spans of {n('evicted_traces')} traces; the oldest go first"
        return [
            [],
            *row("received", f"{n('accepted')} spans in {n('requests')} exports, {size(_number(status, 'bytes_in'))}"),
            *row("rate", f"{snapshot.spans_per_s:,.0f} spans/s, {snapshot.requests_per_s:,.1f} requests/s"),
            *row("refused", f"{n('refused')} exports; senders try those again", _number(status, "refused") > 0),
            *row("lost", f"{n('rejected')} spans rejected, {n('malformed')} exports that were not OTLP", lost > 0),
            *(row("broken off", _BROKEN_OFF.format(n("broken_off")), True) if _number(status, "broken_off") else []),
            *row("kept", kept, bool(status.get("disk_full"))),
            *row("evicted", evicted),
            *(row("", f"of {told}") if (told := whose(status)) else []),
            *row("process", f"{status.get('pid', '?')} since {since}, {n('attached')} attached"),
        ]

    def _notes(self, status: dict[str, Any] | None) -> list[Line]:
        """What happened and is over, the newest first; and what was wrong in the configuration."""
        p, utc = self.palette, self.trace_app.utc
        found: list[tuple[str, str]] = []
        restarts = (status or {}).get("restarts") or []
        for when, why in [*reversed(restarts)][:_MOST_RESTARTS]:
            found.append(("restarted", f"at {clock(when, utc)[:8]} after {printable(str(why), 60)}"))
        if len(restarts) > _MOST_RESTARTS:
            found.append(("", f"and {count(len(restarts) - _MOST_RESTARTS)} before"))
        found += [("note", printable(problem, 400)) for problem in self.trace_app.problems]
        lines: list[Line] = [[]] if found else []
        for name, text in found:
            lines += self._named(name, text, p.warning if name == "note" else p.base)
        return lines

    def _named(self, name: str, text: str, style: Style) -> list[Line]:
        """A line of `name` and what is said of it, and further ones where that needs them."""
        wrapped = wrap_words(text, max(20, self.size.width - 14), 6)
        return [
            [(f" {fit('' if at else name, 10)} ", self.palette.dim), (part.strip(), style)]
            for at, part in enumerate(wrapped)
        ]

    def _contents(self, snapshot: Snapshot) -> list[Line]:
        """Of a recording: who is in it."""
        p, index = self.palette, snapshot.index
        lines: list[Line] = [[(f" {fit('SERVICE', 24)}  {fit('INSTANCE', 36)}  {fit('SPANS', 11, True)}", p.header)]]
        counts = np.bincount(index.resource, minlength=len(index.resources)).tolist()
        pairs = sorted(zip(counts, index.resources, strict=False), key=lambda pair: -pair[0])[:200]
        for spans, resource in pairs:
            service = fit(resource.service or "(no service.name)", 24)
            lines.append(
                [
                    (f" {service}  ", p.base),
                    (fit(resource.instance, 36), p.dim),
                    (f"  {fit(count(spans), 11, True)}", p.base),
                ]
            )
        return lines

    # -- keys -------------------------------------------------------------------------------------------
    def action_copy(self) -> None:
        """What to paste."""
        self.trace_app.copy_lines(recipe_lines(on_this_machine(self._status)), "recipe")

    def action_recipe(self) -> None:
        """Show it, or hide it."""
        self._recipe = not self._shows_recipe(self.quiet(self.feed.snapshot))
        self._made = None
        self.tick()

    def action_look(self) -> None:
        """Have the doctor look now."""
        if not self._may_look:
            return
        if self.clusters.rolling is not None:
            self.trace_app.say("A node is being changed: look when that has ended.", wrong=True)
            return
        self._looked = True
        self.clusters.examine()
        self._made = None
        self.tick()


def _list(status: dict[str, Any] | None, key: str) -> Sequence[dict[str, Any]]:
    found = (status or {}).get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _number(status: dict[str, Any], key: str) -> int:
    value = status.get(key)
    return value if isinstance(value, int) else 0


def _ago(ns: int) -> str:
    """A time span in one coarse unit: `12 s`, `2 min`."""
    seconds = ns // _SECOND
    if seconds < 120:
        return f"{seconds} s"
    return duration(seconds // 60 * 60 * _SECOND) if seconds >= 7200 else f"{seconds // 60} min"
