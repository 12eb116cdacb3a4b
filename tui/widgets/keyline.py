"""The last line of every screen: the most useful keys, from the bindings that are live right now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from textual.binding import Binding

from tui.keys import BY_ID, KEYS, key_name
from tui.terminal_text import width_of
from tui.widgets.line import OneLine, Part

_PLACE = {key.id: place for place, key in enumerate(KEYS)}
_ALWAYS = ("app.help", "app.back", "app.escape")


@dataclass(frozen=True)
class Live:
    """One action and the keys that do it now."""

    id: str
    keys: tuple[str, ...]
    says: str
    short: str


def live_keys(bindings: Iterable[Binding]) -> list[Live]:
    """Bindings with an id of ours, one entry an action, in the order of `KEYS`."""
    keys: dict[str, list[str]] = {}
    for binding in bindings:
        if binding.id is not None and binding.id in BY_ID:
            keys.setdefault(binding.id, []).append(binding.key)
    return [
        Live(name, tuple(dict.fromkeys(keys[name])), BY_ID[name].says, BY_ID[name].short)
        for name in sorted(keys, key=lambda name: _PLACE[name])
    ]


class KeyLine(OneLine):
    """`⏎ open  / filter  : command  …  ? help  q quit`."""

    _live: tuple[Live, ...] = ()
    _words: Mapping[str, str] = {}
    _sentence: tuple[Part, ...] = ()

    def update(self, live: Iterable[Live], words: Mapping[str, str]) -> None:
        """Take up other keys.

        Args:
            live: what the keys do now.
            words: by id, another word than usual; "" leaves the key out.
        """
        self._live, self._words = tuple(live), words
        self._fit()

    def instead(self, parts: tuple[Part, ...]) -> None:
        """Something else than the keys, until it is called with none."""
        self._sentence = parts
        self._fit()

    def on_resize(self) -> None:
        """Textual's event: more or less of it fits."""
        self._fit()

    def _fit(self) -> None:
        if self._sentence:
            self.show([*self._sentence])
            return
        # The screen's own keys first, then those of everywhere; help and the way out are always there.
        own = [entry for entry in self._entries() if not entry[0].startswith("app.")]
        everywhere = [entry for entry in self._entries() if entry[0].startswith("app.") and entry[0] not in _ALWAYS]
        always = [entry for entry in self._entries() if entry[0] in _ALWAYS]
        wanted = [*own[:2], *everywhere, *own[2:]]
        width = self.size.width - 1
        used = sum(_cells(entry) for entry in always)
        chosen = []
        for entry in wanted:
            if used + _cells(entry) > width:
                break
            used += _cells(entry)
            chosen.append(entry)
        parts: list[Part] = [(" ", self.palette.base)]
        for _, key, word in [*chosen, *always]:
            parts += [(key, self.palette.key), (f" {word}  ", self.palette.dim)]
        self.show(parts)

    def _entries(self) -> list[tuple[str, str, str]]:
        unicode = not self.glyphs.ascii
        entries = []
        windows: list[str] = []
        sorts: list[str] = []
        for live in self._live:
            name = key_name(live.keys[0], unicode)
            if live.id.startswith("requests.window-"):
                windows.append(name)
            elif live.id.startswith("requests.sort-"):
                sorts.append(name)
            word = self._words.get(live.id, live.short)
            if word:
                entries.append((live.id, name, word))
        if windows:
            entries.append(
                ("requests.window", f"{windows[0]}-{windows[-1]}" if len(windows) > 1 else windows[0], "window")
            )
        if sorts:
            letters = all(len(key) == 1 and key.isupper() for key in sorts)
            entries.append(("requests.sort", f"{'⇧' if unicode else 'shift-'}letter" if letters else sorts[0], "sort"))
        return entries


def _cells(entry: tuple[str, str, str]) -> int:
    return width_of(entry[1]) + width_of(entry[2]) + 3
