"""Every key the program knows, by a stable id (`area.action`), and what a configured keymap may change.

Screens and widgets take their Textual bindings from here, so that help, footer and the command line can say
the same thing about each. The keys are k9s's where the meaning is the same.
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from textual.binding import Binding, BindingType
from textual.keys import KEY_NAME_REPLACEMENTS, Keys


@dataclass(frozen=True)
class Key:
    """One thing that a key does."""

    id: str
    """`area.action`; what a keymap in the configuration names."""
    keys: str
    """The default keys in Textual's spelling, comma separated."""
    action: str
    """The Textual action."""
    says: str
    """What it does, in a few words, for the help."""
    short: str = ""
    """One word for the footer line; "" keeps it out of there."""


KEYS: tuple[Key, ...] = (
    # everywhere
    Key("app.command", "colon", "app.command", "command line: every action by name", "command"),
    Key("app.help", "question_mark", "app.help", "this help", "help"),
    Key("app.next", "tab", "app.next_view", "next view", "next view"),
    Key("app.backward", "left_square_bracket", "app.backward", "the view before, as in a browser"),
    Key("app.forward", "right_square_bracket", "app.forward", "forward again"),
    Key("app.escape", "escape", "app.escape", "back; in Requests: to the filter before, then to all", "back"),
    Key("app.back", "q,backspace", "app.back", "back, and out of the program on the first screen", "quit"),
    Key("app.quit", "ctrl+c,ctrl+q", "app.quit", "quit from anywhere"),
    # any list of lines
    Key("list.up", "up,k", "move(-1)", "up"),
    Key("list.down", "down,j", "move(1)", "down"),
    Key("list.page-up", "pageup,ctrl+b", "page(-1)", "a page up"),
    Key("list.page-down", "pagedown,ctrl+f", "page(1)", "a page down"),
    Key("list.top", "home,g", "edge(-1)", "to the top, and follow what is newest"),
    Key("list.bottom", "end,G", "edge(1)", "to the bottom"),
    # Requests
    Key("requests.open", "enter", "open", "open the trace", "open"),
    Key("requests.filter", "slash", "filter", "filter: words and field=value", "filter"),
    Key("requests.freeze", "space", "freeze", "freeze the list, or let it run again", "freeze"),
    Key("requests.errors", "ctrl+z", "errors", "only what failed, or all again", "errors"),
    Key("requests.noise", "h", "noise", "hide or show leases, probes and the like", "noise"),
    Key("requests.detail", "d", "detail", "open the trace with its detail pane", "detail"),
    Key("requests.raw", "y", "raw", "the trace as OTLP JSON", "raw"),
    Key("requests.copy", "c", "copy", "copy the trace id", "copy"),
    Key("requests.pivot", "p", "pivot", "others with the same object, namespace, client, ...", "pivot"),
    Key("requests.mark", "m", "mark", "mark this request to compare others with it, or take the mark off"),
    Key("requests.compare", "equals_sign", "compare", "compare with the marked one, or with what is usual", "compare"),
    Key("requests.picture", "t", "picture", "latency over time: show it, choose a range of it, hide it", "picture"),
    Key("requests.repeat", "r", "repeat", "make this get or list again, traced; nothing that may change something"),
    Key("requests.outcome", "o", "outcome", "what was traced on demand: its requests, what is missing, its output"),
    Key("requests.stop", "x", "stop", "interrupt what is being traced, or end the wait for its spans"),
    Key("requests.window-1", "1", "window(1)", "the last minute"),
    Key("requests.window-2", "2", "window(2)", "the last 5 minutes"),
    Key("requests.window-3", "3", "window(3)", "the last 15 minutes"),
    Key("requests.window-4", "4", "window(4)", "the last 30 minutes"),
    Key("requests.window-5", "5", "window(5)", "the last hour"),
    Key("requests.window-6", "6", "window(6)", "everything"),
    Key("requests.sort-start", "T", "sort('start')", "sort by time"),
    Key("requests.sort-duration", "D", "sort('duration')", "sort by duration"),
    Key("requests.sort-code", "O", "sort('code')", "sort by status code"),
    Key("requests.sort-errors", "E", "sort('errors')", "sort by failed spans"),
    Key("requests.sort-spans", "S", "sort('spans')", "sort by number of spans"),
    Key("requests.sort-verb", "V", "sort('verb')", "sort by verb"),
    Key("requests.sort-resource", "R", "sort('resource')", "sort by resource"),
    Key("requests.sort-namespace", "N", "sort('namespace')", "sort by namespace and name"),
    Key("requests.sort-client", "C", "sort('client')", "sort by client"),
    Key("requests.sort-where", "W", "sort('where')", "sort by where the time went"),
    # Trace
    Key("trace.fold", "enter", "fold", "fold or unfold this span", "fold"),
    Key("trace.close", "left", "close", "fold this span, or go to its parent"),
    Key("trace.open", "right", "open", "unfold this span, or go to its first child"),
    Key("trace.unfold-level", "o", "fold_level(1)", "unfold one level more"),
    Key("trace.fold-level", "O", "fold_level(-1)", "fold the deepest level shown"),
    Key("trace.unfold-all", "U", "fold_all(False)", "unfold all"),
    Key("trace.fold-all", "F", "fold_all(True)", "fold all"),
    Key("trace.detail", "d", "detail", "show or hide the detail of the span", "detail"),
    Key("trace.detail-down", "J,shift+down", "scroll_detail(1)", "the detail further down"),
    Key("trace.detail-up", "K,shift+up", "scroll_detail(-1)", "the detail further up"),
    Key("trace.raw", "y", "raw(False)", "the span as OTLP JSON", "raw"),
    Key("trace.raw-trace", "Y", "raw(True)", "the whole trace as OTLP JSON"),
    Key("trace.zoom-in", "plus", "zoom(1)", "zoom the time axis in", "zoom"),
    Key("trace.zoom-out", "minus", "zoom(-1)", "zoom out"),
    Key("trace.zoom-span", "z", "zoom_span", "this span from edge to edge"),
    Key("trace.zoom-reset", "0", "zoom_reset", "the whole trace"),
    Key("trace.pan-left", "comma,shift+left", "pan(-1)", "earlier"),
    Key("trace.pan-right", "full_stop,shift+right", "pan(1)", "later"),
    Key("trace.path-next", "greater_than_sign", "path(1)", "the next step of the critical path", "path"),
    Key("trace.path-previous", "less_than_sign", "path(-1)", "the step of the critical path before"),
    Key("trace.align", "a", "align", "server sides within their calls where clocks differ, or times as sent", "align"),
    Key("trace.next-error", "e", "failure(1)", "the next failed span"),
    Key("trace.previous-error", "E", "failure(-1)", "the failed span before"),
    Key("trace.next-match", "n", "match(1)", "the next span that the filter of the list is about", "match"),
    Key("trace.previous-match", "N", "match(-1)", "the one before"),
    Key("trace.link", "l", "link", "to a linked trace, whichever of the two links", "link"),
    Key("trace.pivot", "p", "pivot", "other traces with the same object, namespace, client, ...", "pivot"),
    Key("trace.mark", "m", "mark", "mark this trace to compare others with it, or take the mark off"),
    Key("trace.compare", "equals_sign", "compare", "compare with the marked one, or with what is usual", "compare"),
    Key("trace.repeat", "r", "repeat", "make this get or list again, traced"),
    Key("trace.explain", "x", "explain", "explain this span in two lines, on or off", "explain"),
    Key("trace.copy", "c", "copy", "copy something of this span", "copy"),
    Key("trace.copy-trace", "C", "copy_trace", "copy the trace id"),
    Key("trace.freeze", "space", "freeze", "freeze the open trace, or let it grow again", "freeze"),
    # Hot spots
    Key("hotspots.open", "enter", "open", "the traces behind this row", "traces"),
    Key("hotspots.next", "right,l", "turn(1)", "the next table", "next table"),
    Key("hotspots.previous", "left,H", "turn(-1)", "the table before"),
    Key("hotspots.filter", "slash", "filter", "filter: words and field=value", "filter"),
    Key("hotspots.freeze", "space", "freeze", "freeze the numbers, or let them run again", "freeze"),
    Key("hotspots.errors", "ctrl+z", "errors", "only what failed, or all again", "errors"),
    Key("hotspots.noise", "h", "noise", "hide or show leases, probes and the like", "noise"),
    Key("hotspots.copy", "c", "copy", "copy the filter of this row", "copy"),
    Key("hotspots.window-1", "1", "window(1)", "the last minute"),
    Key("hotspots.window-2", "2", "window(2)", "the last 5 minutes"),
    Key("hotspots.window-3", "3", "window(3)", "the last 15 minutes"),
    Key("hotspots.window-4", "4", "window(4)", "the last 30 minutes"),
    Key("hotspots.window-5", "5", "window(5)", "the last hour"),
    Key("hotspots.window-6", "6", "window(6)", "everything"),
    Key("hotspots.sort-count", "C", "sort('count')", "sort by how many"),
    Key("hotspots.sort-errors", "E", "sort('errors')", "sort by what failed"),
    Key("hotspots.sort-median", "D", "sort('median')", "sort by the median"),
    Key("hotspots.sort-p95", "P", "sort('p95')", "sort by p95"),
    Key("hotspots.sort-p99", "Q", "sort('p99')", "sort by p99"),
    Key("hotspots.sort-max", "M", "sort('max')", "sort by the slowest"),
    Key("hotspots.sort-total", "T", "sort('total')", "sort by time in total"),
    Key("hotspots.sort-taken", "K", "sort('taken')", "webhooks: sort by time taken from requests"),
    Key("hotspots.sort-name", "N", "sort('name')", "sort by name"),
    # latency over time, above the list
    Key("picture.left", "left", "move(-1)", "earlier"),
    Key("picture.right", "right", "move(1)", "later"),
    Key("picture.page-left", "pageup,ctrl+left", "move(-10)", "much earlier"),
    Key("picture.page-right", "pagedown,ctrl+right", "move(10)", "much later"),
    Key("picture.narrow", "shift+left,H,less_than_sign", "widen(-1)", "the range reaches further back"),
    Key("picture.widen", "shift+right,L,greater_than_sign", "widen(1)", "the range reaches further on"),
    Key("picture.take", "enter", "take", "show just this range", "take"),
    Key("picture.leave", "escape,down,j", "leave", "back to the list", "list"),
    # Compare
    Key("compare.open", "enter", "open", "open the trace in question", "open"),
    Key("compare.other", "o", "other", "open the one it is compared with", "open the other"),
    # Receiver
    Key("receiver.recipe", "t", "recipe", "show or hide how to turn tracing on", "turn on"),
    Key("receiver.copy", "c", "copy", "copy what to paste to turn tracing on", "copy"),
    Key("receiver.look", "r", "look", "look again why nothing arrives", "look"),
    # Clusters
    Key("clusters.node", "enter", "node", "everything that was found on the node", "node"),
    Key("clusters.arm", "a", "arm", "arm tracing: rate 0, only forced requests; asks first", "arm"),
    Key("clusters.set", "s", "set_rate", "set the sampling rate; asks first", "set rate"),
    Key("clusters.off", "o", "off", "turn tracing off; asks first", "off"),
    Key("clusters.revert", "v", "revert", "put back what was there before us; asks first", "revert"),
    Key("clusters.diff", "D", "diff", "what we changed on the node", "diff"),
    Key("clusters.finish", "f", "finish", "finish a change that was interrupted; asks first", "finish"),
    Key("clusters.undo", "u", "undo", "put back what was before such a change; asks first", "put back"),
    Key("clusters.remove", "x", "remove", "take away pods of ours that were left; asks first", "take away pods"),
    Key("clusters.read", "r", "read", "look at the nodes again", "read"),
    # the question before a change
    Key("change.take", "enter", "take", "take the marked button", "take"),
    Key("change.next", "tab,right", "turn(1)", "the other button", "other button"),
    Key("change.previous", "shift+tab,left", "turn(-1)", "the button before"),
    Key("change.cancel", "escape,q", "cancel", "change nothing", "cancel"),
    # a choice of a few things
    Key("choice.pick", "enter", "pick", "take this one", "take"),
    Key("choice.cancel", "escape,q", "cancel", "none of them", "back"),
    # Raw
    Key("raw.left", "left", "pan(-1)", "the text further left"),
    Key("raw.right", "right", "pan(1)", "the text further right"),
    Key("raw.copy", "c", "copy", "copy the JSON", "copy"),
)
"""All of them; the order within an area is the order in the footer and in the help."""

IDS: frozenset[str] = frozenset(key.id for key in KEYS)
BY_ID: Mapping[str, Key] = {key.id: key for key in KEYS}


def bindings(area: str) -> list[BindingType]:
    """The Textual bindings of an area such as "requests", for a class's BINDINGS."""
    return [
        Binding(key.keys, key.action, key.says, show=bool(key.short), id=key.id) for key in KEYS if _area(key) == area
    ]


def quit_binding() -> Binding:
    """Out, for a screen in front of all others: Textual looks for no binding of the app's there, and has its own Ctrl-C
    for screens and input lines."""
    key = BY_ID["app.quit"]
    return Binding(key.keys, key.action, key.says, show=False, priority=True, id=key.id)


_MODIFIERS = frozenset({"ctrl", "shift", "alt", "super", "hyper", "meta"})
_SYMBOLS = frozenset(
    KEY_NAME_REPLACEMENTS.get(name, name)
    for name in (unicodedata.name(char).lower().replace("-", "_").replace(" ", "_") for char in string.punctuation)
)
_NAMED = frozenset(key.value for key in Keys if not key.value.startswith("<")) | _SYMBOLS


def _known(key: str) -> bool:
    """Whether a terminal could ever send this key, so that a misspelt name is said and not silently dead."""
    if len(key) == 1:
        return key.isprintable()
    *modifiers, last = key.split("+")
    if any(modifier not in _MODIFIERS for modifier in modifiers):
        return False
    return len(last) == 1 or last in _NAMED or key in _NAMED


def check_keymap(keymap: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The part of a configured keymap that can be used, and a sentence for each entry that can not."""
    good: dict[str, str] = {}
    problems: list[str] = []
    for name, keys in keymap.items():
        if name not in IDS:
            near = [known for known in IDS if known.partition(".")[2] == name.partition(".")[2]]
            hint = f"did you mean {sorted(near)[0]}?" if near else "press ? to see the ids that exist"
            problems.append(f"keymap: there is no binding {name!r}; {hint}")
            continue
        wanted = [key.strip() for key in keys.split(",") if key.strip()] if keys.strip() != "," else [","]
        wrong = [key for key in wanted if not _known(key)]
        if wrong or not wanted:
            what = ", ".join(repr(key) for key in wrong) or "nothing"
            problems.append(f"keymap: {name} is {what}, which no terminal sends; {BY_ID[name].keys} stays")
            continue
        good[name] = ",".join(wanted)
    return good, problems


def taken_twice(keymap: Mapping[str, str]) -> list[str]:
    """A sentence for each key that a keymap gives to two actions of one screen: the nearer wins, the other is dead."""
    problems: list[str] = []
    for area in (
        "requests",
        "trace",
        "hotspots",
        "picture",
        "compare",
        "receiver",
        "clusters",
        "change",
        "choice",
        "raw",
    ):
        seen: dict[str, str] = {}
        nearest_first: tuple[str, ...] = ("list", area, "app")
        if area in ("choice", "change"):  # in front of all
            nearest_first = ("list", area)
        elif area == "picture":  # beside the list: what it takes is for it alone
            nearest_first = (area,)
        for key in (key for near in nearest_first for key in KEYS if _area(key) == near):
            for one in keymap.get(key.id, key.keys).split(","):
                first = seen.setdefault(KEY_NAME_REPLACEMENTS.get(one, one), key.id)
                if first != key.id and (key.id in keymap or first in keymap):
                    problems.append(f"keymap: {one} is both {first} and {key.id}; {first} has it, give the other a key")
    return list(dict.fromkeys(problems))


def _area(key: Key) -> str:
    return key.id.partition(".")[0]


_WORDS = {
    "enter": ("⏎", "enter"),
    "tab": ("⇥", "tab"),
    "space": ("␣", "space"),
    "escape": ("esc", "esc"),
    "backspace": ("⌫", "bksp"),
    "up": ("↑", "up"),
    "down": ("↓", "down"),
    "left": ("←", "left"),
    "right": ("→", "right"),
    "pageup": ("pgup", "pgup"),
    "pagedown": ("pgdn", "pgdn"),
    "colon": (":", ":"),
    "slash": ("/", "/"),
    "comma": (",", ","),
    "full_stop": (".", "."),
    "question_mark": ("?", "?"),
    "plus": ("+", "+"),
    "minus": ("-", "-"),
    "equals_sign": ("=", "="),
    "less_than_sign": ("<", "<"),
    "greater_than_sign": (">", ">"),
    "left_square_bracket": ("[", "["),
    "right_square_bracket": ("]", "]"),
}


def key_name(key: str, unicode: bool) -> str:
    """A key as the footer and the help write it: `⏎`, `^Z`, `⇧→`; in ASCII where the terminal has no better."""
    *modifiers, last = key.split("+") if len(key) > 1 else [key]
    words = _WORDS.get(last)
    name = words[0 if unicode else 1] if words else last
    for modifier in reversed(modifiers):
        if modifier == "ctrl":
            name = f"^{name.upper()}" if len(name) == 1 else f"^{name}"
        elif modifier == "shift":
            name = f"{'⇧' if unicode else 'shift-'}{name}"
        else:
            name = f"{modifier}-{name}"
    return name
