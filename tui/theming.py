"""Themes from YAML files, checked before Textual sees them, and the styles that our own widgets draw with.

Textual takes any text for a colour and ends the app when it is applied; so a file that is not right is left out and
reported: its name, the key, the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final, Protocol

from rich.color import Color as RichColor
from rich.style import Style
from textual.color import Color, ColorParseError
from textual.theme import BUILTIN_THEMES, Theme

from receiver.traces.model import Component
from tui.contrast import derived

DEFAULT: Final = "dark"
"""The theme that is used where none is named."""
PLAIN: Final = "sixteen"
"""The theme for terminals with 16 colours."""
PLAIN_LIGHT: Final = "sixteen-light"
"""The same for those with a light ground; nobody can ask a terminal with 16 colours which it has."""
MAX_FILE: Final = 64 << 10

COMPONENT_VARIABLES: Final = tuple(f"component-{component.value}" for component in Component)
REQUIRED: Final = (
    *COMPONENT_VARIABLES,
    "state-error",
    "state-warning",
    "state-ok",
    "state-dim",
    "cursor-background",
    "cursor-foreground",
    "rule",
)
"""Variables that every theme sets; CSS and palettes rely on them."""

_COLOURS: Final = (
    "primary",
    "secondary",
    "warning",
    "error",
    "success",
    "accent",
    "foreground",
    "background",
    "surface",
    "panel",
    "boost",
)
_NUMBERS: Final = ("luminosity_spread", "text_alpha")
_SWITCHES: Final = ("dark", "ansi")
_KNOWN: Final = frozenset({"name", "variables", *_COLOURS, *_NUMBERS, *_SWITCHES})
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


@dataclass(frozen=True)
class Problem:
    """Why a theme file is not used. `key` is "" when it is the file as a whole."""

    file: str
    key: str
    reason: str

    def __str__(self) -> str:
        where = f", key {self.key}" if self.key else ""
        return f"Theme file {self.file}{where}: {self.reason}; it is left out."


class ThemeError(Exception):
    """A theme cannot be used; says which key ("" for the whole) and why."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key, self.reason = key, reason


def built_in() -> Path:
    """The directory of the themes that come with the program."""
    return Path(str(resources.files("themes")))


def load_themes(directories: Iterable[Path]) -> tuple[dict[str, Theme], list[Problem]]:
    """Every `*.yaml` of the directories; of two themes with one name the later wins.

    A directory that is not there holds none. Nothing here raises for what is in a file.
    """
    themes: dict[str, Theme] = {}
    problems: list[Problem] = []
    for directory in directories:
        if not directory.is_dir():
            continue
        for file in sorted(directory.glob("*.yaml"), key=lambda file: file.stem):
            try:
                theme = read_theme(file)
            except ThemeError as bad:
                problems.append(Problem(file.name, bad.key, bad.reason))
            else:
                themes[theme.name] = theme
    return themes, problems


def read_theme(file: Path) -> Theme:
    """One theme file.

    Raises:
        ThemeError: it is not a theme; says which key and why.
    """
    import yaml  # costs 45 ms: only when there is a file to read

    try:
        if file.stat().st_size > MAX_FILE:
            raise ThemeError("", f"larger than {MAX_FILE >> 10} KiB")
        content = yaml.load(file.read_text("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise ThemeError("", f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ThemeError("", "is not UTF-8") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise ThemeError(
            "", f"is not YAML{where} ({getattr(error, 'problem', None) or type(error).__name__})"
        ) from error
    return check_theme(content)


def check_theme(content: object) -> Theme:
    """A theme from parsed YAML.

    Raises:
        ThemeError: says which key and why.
    """
    if not isinstance(content, Mapping):
        raise ThemeError("", "is not a map of keys")
    for key in content:
        if key not in _KNOWN:
            raise ThemeError(_plain(key), "is not a key of a theme")
    name = content.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ThemeError("name", "must be there: small letters, digits and dashes")
    values: dict[str, Any] = {}
    for key in _COLOURS:
        if key in content:
            values[key] = _colour(key, content[key])
        elif key in ("primary", "foreground", "background"):
            raise ThemeError(key, "is missing")
    for key in _SWITCHES:
        if key in content:
            if not isinstance(content[key], bool):
                raise ThemeError(key, "must be true or false")
            values[key] = content[key]
    for key in _NUMBERS:
        if key in content:
            number = content[key]
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number <= 1:
                raise ThemeError(key, "must be a number from 0 to 1")
            values[key] = float(number)
    variables = content.get("variables", {})
    if not isinstance(variables, Mapping):
        raise ThemeError("variables", "must be a map of names and colours")
    checked: dict[str, str] = {}
    for key, value in variables.items():
        if not isinstance(key, str) or not _NAME.fullmatch(key):
            raise ThemeError(f"variables.{_plain(key)}", "is not a name of small letters, digits and dashes")
        if "-style" in key:
            raise ThemeError(f"variables.{key}", "is a text style, which a theme of ours cannot set")
        checked[key] = _colour(f"variables.{key}", value)
    for key in REQUIRED:
        if key not in checked:
            raise ThemeError(f"variables.{key}", "is missing")
    if values.get("ansi"):
        # Textual's own style sheets name some variables that it makes up for colours, but not for these themes.
        like = "ansi-dark" if values.get("dark", True) else "ansi-light"
        checked = {**BUILTIN_THEMES[like].variables, **checked}
    theme = Theme(name=name, variables=checked, **values)
    try:
        theme.to_color_system().generate()
    except (ColorParseError, ValueError) as error:
        raise ThemeError("", f"its colours cannot be used ({_short(error)})") from error
    return theme


def _colour(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise ThemeError(key, f"{_short(value)} is not a colour; write it in quotes, as '#4ec9a8'")
    try:
        Color.parse(value)
    except ColorParseError:
        raise ThemeError(key, f"{_short(value)} is not a colour; write '#4ec9a8' or 'ansi_green'") from None
    return value


def _plain(value: object) -> str:
    return "".join(character if character.isprintable() else "?" for character in str(value)[:40])


def _short(value: object) -> str:
    return repr(_plain(value)) if isinstance(value, str) else _plain(value)


# --- what widgets draw with --------------------------------------------------------------------------
@dataclass(frozen=True)
class Palette:
    """Rich styles of one theme. Each sets its background too, because our widgets bypass Textual's own painting.

    Colour never says anything alone: with `colours` False there is none, and bold, dim and reverse remain.
    """

    base: Style
    dim: Style
    title: Style
    """Names of sections and what is most important on a line."""
    rule: Style
    key: Style
    """Keys in the footer and in help."""
    header: Style
    error: Style
    warning: Style
    ok: Style
    cursor: Style
    component: Mapping[Component, Style]
    colours: bool = True
    ansi: bool = False
    """Few colours: on the cursor line everything takes the cursor's foreground, so that it can be read."""
    _on_cursor: dict[Style, Style] = field(default_factory=dict, repr=False, compare=False)

    def on_cursor(self, style: Style) -> Style:
        """A style as it looks on the cursor line."""
        found = self._on_cursor.get(style)
        if found is None:
            plain = style == self.base or style == self.dim or self.ansi or not self.colours
            found = self.cursor if plain else style + Style(bgcolor=self.cursor.bgcolor)
            if style.bold and plain:
                found = found + Style(bold=True)
            self._on_cursor[style] = found
        return found


def palette(variables: Mapping[str, str], *, ansi: bool = False, colours: bool = True) -> Palette:
    """The styles of a theme.

    Args:
        variables: of the theme, Textual's own (`foreground`, `background`, `primary`) and REQUIRED ones.
        ansi: the theme uses the terminal's own 16 colours.
        colours: False for NO_COLOR.
    """
    if not colours:
        base, bold, dim = Style(), Style(bold=True), Style(dim=True)
        return Palette(
            base=base,
            dim=dim,
            title=bold,
            rule=dim,
            key=bold,
            header=bold,
            error=bold,
            warning=bold,
            ok=base,
            cursor=Style(reverse=True),
            component=dict.fromkeys(Component, base),
            colours=False,
        )

    def rich(name: str, other: str = "foreground") -> RichColor:
        return Color.parse(variables.get(name) or variables[other]).rich_color

    background = rich("background")

    def on_background(name: str, bold: bool | None = None, dim: bool | None = None) -> Style:
        return Style(color=rich(name), bgcolor=background, bold=bold, dim=dim)

    return Palette(
        base=on_background("foreground"),
        dim=on_background("state-dim", dim=ansi or None),  # the one way to be dim on light and dark terminals
        title=on_background("foreground", bold=True),
        rule=on_background("rule"),
        key=Style(color=rich("key", "primary"), bgcolor=background, bold=True),
        header=on_background("state-dim", bold=True, dim=ansi or None),
        error=on_background("state-error", bold=True),
        warning=on_background("state-warning"),
        ok=on_background("state-ok"),
        cursor=Style(color=rich("cursor-foreground"), bgcolor=rich("cursor-background")),
        component={component: on_background(f"component-{component.value}") for component in Component},
        ansi=ansi,
    )


class Painted(Protocol):
    """An app that knows its palette."""

    @property
    def palette(self) -> Palette: ...


FALLBACK: Final[Mapping[str, str]] = {
    "component-apiserver": "#6cb2f0",
    "component-etcd": "#4ec9a8",
    "component-webhook": "#d7a0f2",
    "component-kubelet": "#a8c06a",
    "component-runtime": "#e0a070",
    "component-other": "#a3acb8",
    "state-error": "#f2616a",
    "state-warning": "#e5b84b",
    "state-ok": "#7bc67b",
    "state-dim": "#7f8996",
    "cursor-background": "#24405e",
    "cursor-foreground": "#ffffff",
    "rule": "#39424d",
}
"""For any theme that knows nothing of our variables, so that a CSS variable is never undefined; and the hues that a
dark theme of Textual's own is given."""

LIGHT_HUES: Final[Mapping[str, str]] = {
    "component-apiserver": "#1f5fa8",
    "component-etcd": "#0b7261",
    "component-webhook": "#8a3fb0",
    "component-kubelet": "#5a6b12",
    "component-runtime": "#a1501a",
    "component-other": "#5b6472",
}
"""Those that a light one is given."""


def adopted(theme: Theme) -> dict[str, str]:
    """Our variables for a theme of Textual's own that uses true colours."""
    return derived(theme.to_color_system().generate(), FALLBACK if theme.dark else {**FALLBACK, **LIGHT_HUES})
