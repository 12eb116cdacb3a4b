"""The marks and bar pieces of the screens, in the sets that terminals can show.

What colour says, a mark says too. Every glyph is exactly one cell wide. UNICODE needs a UTF-8 terminal with box
drawing and block elements; ASCII works everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from receiver.traces.model import Component


@dataclass(frozen=True, slots=True)
class Glyphs:
    """One set of glyphs."""

    name: str
    ascii: bool
    suspicious: str
    failed: str
    outlives_tail: str  # the part of a bar after its parent's end
    outlives: str  # ends that tail
    gap: str  # between the two sides of one call
    unseen: str  # parent not seen (yet)
    odd: str  # any other oddity
    path: str  # on the critical path
    marked: str  # to be compared with
    moved: str  # shown at another time than was sent: clocks differ
    open: str  # a node with its children shown
    folded: str  # a node with its children hidden
    before: str  # the bar is left of the window
    after: str  # the bar is right of the window
    event: str  # an event's place on a bar
    event_on_line: str  # and on one that is a thin line
    rule: str  # section lines
    ellipsis: str
    separator: str  # between short facts on one line
    cursor: str  # beside the chosen line, where colours are few
    dot: str  # "receiving" in the status line
    up: str  # sorted ascending
    down: str  # sorted descending
    none: str  # no value
    line_start: str  # a span that mostly waits for its children is a thin line
    line: str
    line_end: str
    line_own: str  # the parts of such a line that are the span's own time
    eighths: str  # nine glyphs, from empty to full; ASCII has no partial ones
    validating: str  # the texture of a validating webhook's bar; a mutating one has its component's
    fill: Mapping[Component, str]  # the texture of a component's bar
    share: Mapping[str, str]  # the texture of a part of a bar of shares, by `shares.SHARES`


UNICODE: Final = Glyphs(
    name="unicode",
    ascii=False,
    suspicious="!",
    failed="✗",
    outlives_tail="▒",
    outlives="›",
    gap="⇄",
    unseen="?",
    odd="≠",
    path="┃",
    marked="◆",
    moved="≈",
    open="▾",
    folded="▸",
    before="‹",
    after="›",
    event="╵",
    event_on_line="┴",
    rule="─",
    ellipsis="…",
    separator="·",
    cursor="▌",
    dot="●",
    up="↑",
    down="↓",
    none="–",
    line_start="├",
    line="─",
    line_end="┤",
    line_own="━",
    eighths=" ▏▎▍▌▋▊▉█",
    validating="▓",
    fill={
        Component.APISERVER: "█",
        Component.ETCD: "░",
        Component.WEBHOOK: "█",
        Component.KUBELET: "█",
        Component.RUNTIME: "█",
        Component.OTHER: "█",
    },
    share={
        "mutating": "█",
        "validating": "▓",
        "webhook": "▚",
        "conversion": "▒",
        "etcd": "░",
        "encryption": "▞",
        "aggregated": "▙",
        "cache": "·",
        "encoding": "═",
        "decoding": "━",
        "filters": "┄",
        "apiserver": "─",
    },
)

ASCII: Final = Glyphs(
    name="ascii",
    ascii=True,
    suspicious="!",
    failed="x",
    outlives_tail="%",
    outlives=">",
    gap="~",
    unseen="?",
    odd="*",
    path="#",
    marked="*",
    moved="@",
    open="-",
    folded="+",
    before="<",
    after=">",
    event="'",
    event_on_line="+",
    rule="-",
    ellipsis="~",
    separator="|",
    cursor=">",
    dot="*",
    up="^",
    down="v",
    none="-",
    line_start="|",
    line="-",
    line_end="|",
    line_own="=",
    eighths="        #",
    validating="%",
    fill={
        Component.APISERVER: "-",
        Component.ETCD: ":",
        Component.WEBHOOK: "#",
        Component.KUBELET: "=",
        Component.RUNTIME: "+",
        Component.OTHER: "o",
    },
    share={
        "mutating": "#",
        "validating": "%",
        "webhook": "W",
        "conversion": "&",
        "etcd": ":",
        "encryption": "$",
        "aggregated": "@",
        "cache": ".",
        "encoding": "=",
        "decoding": "~",
        "filters": "+",
        "apiserver": "-",
    },
)


def choose(env: Mapping[str, str], encoding: str | None) -> Glyphs:
    """The set for this terminal.

    Args:
        env: the environment; TERM=linux and the hardware terminals lack most of UNICODE, a locale that is not UTF-8
            lacks all of it.
        encoding: of the stream that Textual draws on (`sys.__stderr__.encoding`); anything but UTF-8 would turn
            each glyph into an escaped number and break the layout.
    """
    name = (encoding or "").lower().replace("-", "").replace("_", "")
    if name != "utf8":
        return ASCII
    if _other_than_utf8(env):
        return ASCII
    term = env.get("TERM", "")
    if term in ("linux", "dumb", "console", "ansi") or term.startswith("vt"):
        return ASCII
    return UNICODE


def _other_than_utf8(env: Mapping[str, str]) -> bool:
    """Whether the operator's locale says something else. Python itself does not: it turns C into UTF-8 for its own
    streams (PEP 538 and 540), and then LC_CTYPE is C.UTF-8 though LANG is C. No locale at all says nothing."""
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        locale = env.get(name, "")
        if locale and not (name == "LC_CTYPE" and locale == "C.UTF-8" and env.get("LANG")):
            codeset = locale.partition(".")[2].partition("@")[0].lower().replace("-", "")
            return locale in ("C", "POSIX") or codeset not in ("", "utf8")
    return False
