"""The command line behind `:`: every action by name, with completion.

Beside the commands below, every action that has a key on the screen is a command by the last part of its id
(`requests.sort-code` is `:sort-code`), so nothing can be done by a key alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from receiver.traces.query import FIELDS, NOISE
from tui.keys import BY_ID

if TYPE_CHECKING:
    from textual.binding import ActiveBinding

    from tui.app import TraceApp

WINDOWS: Final[dict[str, int | None]] = {
    "1m": 60,
    "5m": 5 * 60,
    "15m": 15 * 60,
    "30m": 30 * 60,
    "1h": 60 * 60,
    "all": None,
}
"""Time windows in seconds, in the order of the keys 1 to 6."""

SORTS: Final[dict[str, tuple[str, str]]] = {
    "start": ("newest first", "oldest first"),
    "duration": ("slowest first, watches last", "fastest first, watches last"),
    "code": ("highest code first", "lowest code first"),
    "errors": ("most failed spans first", "fewest failed spans first"),
    "spans": ("most spans first", "fewest spans first"),
    "verb": ("by verb", "by verb, backwards"),
    "resource": ("by resource", "by resource, backwards"),
    "namespace": ("by namespace and name", "by namespace and name, backwards"),
    "client": ("by client", "by client, backwards"),
    "where": ("by where it went", "by where it went, backwards"),
}
"""Orders of the list, and what the title says of each and of its reverse."""

SWITCH: Final = ("on", "off")
COPIES: Final = ("id", "line", "name", "audit", "client")
HEX: Final = re.compile("[0-9a-f]{1,32}")
"""A trace id, or the start of one."""
_WHERE: Final = "[everywhere] [ENDPOINT]"
_TABLES: Final = ("requests", "webhooks", "clients", "objects", "retries", "etcd", "lists")
_RATES: Final = ("0.1%", "1%", "10%", "all", "0")
_NOISE: Final = ", ".join(kind.name for kind in NOISE)


class CommandError(Exception):
    """What was typed cannot be done; the text says why and what can."""


@dataclass(frozen=True)
class Command:
    """One command."""

    name: str
    aliases: tuple[str, ...]
    argument: str
    """What may follow, for the hint."""
    says: str
    run: Callable[[str], None]
    offers: Callable[[Sequence[str], str], Iterable[str]] = lambda before, begun: ()
    """What the argument may be, for completion, from the words before and what is written of the last one."""
    tells: Callable[[str], str] = lambda argument: ""
    """More than the hint while the argument is written; "" for nothing."""


class Commands:
    """The commands of one app."""

    def __init__(self, app: TraceApp) -> None:
        self._app = app
        requests = app.requests
        self._all: list[Command] = [
            Command("requests", ("req", "traces"), "", "the list of requests", _bare(lambda: app.go("requests"))),
            Command(
                "hotspots",
                ("hot",),
                "[TABLE]",
                "what takes the time",
                app.hot_spots,
                _one_of(_TABLES),
            ),
            Command("clusters", ("cl", "nodes"), "", "how control planes trace", _bare(lambda: app.go("clusters"))),
            Command("arm", (), _WHERE, "rate 0: only forced requests", app.arm, _places),
            Command("sampling", ("rate",), f"RATE {_WHERE}", "1%, 1/1000, 0, all", app.sample, _rates),
            Command("off", (), "[everywhere]", "turn tracing off", app.turn_off, _places),
            Command("revert", (), "[everywhere]", "what was there before us", app.put_back, _places),
            Command("receiver", ("rx",), "", "who sends, what is kept", _bare(lambda: app.go("receiver"))),
            Command("doctor", ("why",), "", "why nothing arrives", _bare(app.look_why)),
            Command("open", (), "TRACE", "a trace by its id, or the start of it", app.open_by_prefix, self._ids),
            Command(
                "trace",
                (),
                "get PATH | COMMAND",
                "a request or a command, traced at rate 0, too",
                lambda argument: app.traced.trace(argument),
                lambda before, begun: app.traced.offers(before, begun),
                lambda argument: app.traced.tells(argument),
            ),
            Command("stop", (), "", "interrupt what is being traced", _bare(lambda: app.traced.stop())),
            Command("outcome", (), "", "what became of it, and its output", _bare(lambda: app.traced.outcome())),
            Command(
                "commands",
                (),
                "[WORDS]",
                "the requests of an earlier traced command",
                lambda argument: app.traced.recall(argument),
                lambda before, begun: app.traced.remembered(before, begun),
            ),
            Command("filter", (), "WORDS FIELD=VALUE", "only these; alone: all", requests.set_filter, _fields),
            Command("errors", (), "[on|off]", "only what failed", _switched(requests.set_errors), _one_of(SWITCH)),
            Command("noise", (), "[on|off]", f"show {_NOISE}", _switched(requests.set_noise), _one_of(SWITCH)),
            Command("window", ("last",), "|".join(WINDOWS), "what came lately", requests.set_window, _one_of(WINDOWS)),
            Command("sort", (), "FIELD [reverse]", "order of the list", requests.set_sort, _orders),
            Command("freeze", (), "[on|off]", "keep the list as it is", _switched(app.freeze), _one_of(SWITCH)),
            Command("follow", ("newest",), "", "to the newest, and stay there", _bare(requests.follow)),
            Command("copy", (), "|".join(COPIES), "copy from the chosen row", requests.copy, _one_of(COPIES)),
            Command("theme", (), "NAME", "other colours", app.set_theme, self._themes),
            Command(
                "utc", (), "[on|off]", "times in UTC or in the local zone", _switched(app.set_utc), _one_of(SWITCH)
            ),
            Command("help", ("h", "?", "keys"), "", "all keys and commands", _bare(app.action_help)),
            Command("back", (), "", "the view before", _bare(app.action_backward)),
            Command("forward", (), "", "forward again", _bare(app.action_forward)),
            Command("quit", ("q", "q!", "exit"), "", "leave", _bare(app.leave)),
        ]
        self._by_name = {name: command for command in self._all for name in (command.name, *command.aliases)}

    @property
    def listed(self) -> Sequence[Command]:
        """All commands, for the help."""
        return self._all

    def run(self, text: str) -> None:
        """Do what a line says.

        Raises:
            CommandError: it says nothing that can be done.
        """
        name, _, argument = text.strip().lstrip(":").partition(" ")
        if not name:
            return
        command, action = self._by_name.get(name.lower()), self._actions().get(name.lower())
        if action is not None and (command is None or (not argument and self._is_nearer(action))):
            self._app.run_binding(action)
            return
        if command is not None:
            command.run(argument.strip())
            return
        named = self._app.settings.filters.get(name)
        if named is not None:
            self._app.requests.set_filter(f"{named} {argument}".strip())
            return
        near = [other for other in self._names() if other.startswith(name.lower()[:2])]
        hint = f"did you mean {', '.join(near[:3])}?" if near else "? lists what there is"
        raise CommandError(f"There is no command {name[:40]!r}: {hint}")

    def describe(self, text: str) -> str:
        """One line about what is being written."""
        name, space, argument = text.lstrip().partition(" ")
        if not name:
            return "  ".join(self._names()[:24])
        command = self._by_name.get(name.lower())
        if command is not None:
            told = command.tells(argument) if space else ""
            return told or f"{command.name} {command.argument}".rstrip() + f": {command.says}"
        if space:
            action = self._actions().get(name.lower())
            return BY_ID[action.binding.id or ""].says if action else f"no command {name[:40]!r}"
        names = [other for other in self._names() if other.startswith(name.lower())]
        if len(names) == 1 and (action := self._actions().get(names[0])) and names[0] not in self._by_name:
            return f"{names[0]}: {BY_ID[action.binding.id or ''].says}"
        return "  ".join(names) if names else f"no command {name[:40]!r}"

    def complete(self, text: str) -> list[str]:
        """Whole lines that `text` may become, best first; at most 50. Behind the whole name of a command comes what it
        takes."""
        lead = text[: len(text) - len(text.lstrip())]
        name, space, argument = text.lstrip().partition(" ")
        command = self._by_name.get(name.lower())
        names = [] if space else [lead + other for other in self._names() if other.startswith(name.lower())]
        if command is None or (not space and names[1:]):
            return names[:50]
        before, gap, last = argument.rpartition(" ")
        head = f"{lead}{name} {before}{gap}"
        offers = command.offers(before.split(), last.lower())
        return [*names, *(head + offer for offer in offers if offer.startswith(last.lower()))][:50]

    def _names(self) -> list[str]:
        names = [command.name for command in self._all]
        names += [name for name in self._actions() if name not in self._by_name]
        return names + [name for name in self._app.settings.filters if name not in names]

    def _actions(self) -> dict[str, ActiveBinding]:
        """What has a key on the screen that the prompt was opened on, by the last part of its id."""
        return {
            id.partition(".")[2]: active
            for active in self._app.live_bindings()
            if (id := active.binding.id) in BY_ID and id is not None
        }

    @staticmethod
    def _is_nearer(action: ActiveBinding) -> bool:
        """Whether it is of a screen on top of the list: there `:copy` means what `c` means."""
        area, _, name = (action.binding.id or "").partition(".")
        return area not in ("requests", "list", "app") and name != "filter"  # of which there is but one, the list's

    def _ids(self, before: Sequence[str], begun: str) -> Iterable[str]:
        """Those on the screen first, then any."""
        here = [] if before else self._app.requests.visible_ids()
        if not before and HEX.fullmatch(begun):
            here += self._app.feed.starting_with(begun, 50)[0]
        return dict.fromkeys(here)

    def _themes(self, before: Sequence[str], begun: str) -> Iterable[str]:
        return () if before else self._app.theme_names


def _fields(before: Sequence[str], begun: str) -> Iterable[str]:
    return [f"{field}=" for field in FIELDS]


def _orders(before: Sequence[str], begun: str) -> Iterable[str]:
    return SORTS if not before else ("reverse",) if before[-1] in SORTS else ()


def _places(before: Sequence[str], begun: str) -> Iterable[str]:
    return () if before else ("everywhere",)


def _rates(before: Sequence[str], begun: str) -> Iterable[str]:
    return _RATES if not before else ("everywhere",) if len(before) == 1 else ()


def _one_of(words: Iterable[str]) -> Callable[[Sequence[str], str], Iterable[str]]:
    return lambda before, begun: () if before else words


def _bare(run: Callable[[], object]) -> Callable[[str], None]:
    """A command without an argument."""

    def command(argument: str) -> None:
        if argument:
            raise CommandError("That command takes nothing after it.")
        run()

    return command


def _switched(run: Callable[[bool | None], None]) -> Callable[[str], None]:
    """A command whose argument is on, off or nothing."""
    return lambda argument: run(_switch(argument))


def _switch(argument: str) -> bool | None:
    """on, off, or nothing: the other one.

    Raises:
        CommandError: something else.
    """
    if not argument:
        return None
    if argument.lower() not in SWITCH:
        raise CommandError(f"It can be on or off, not {argument[:40]!r}.")
    return argument.lower() == "on"
