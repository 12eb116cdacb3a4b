"""Settings from one YAML file. What is wrong in it is said and left out; it never keeps the program from starting."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from platformdirs import user_config_path

from receiver.store import ownership

NAME: Final = "k8s-trace-tui"
MAX_FILE: Final = 256 << 10
_WORDS: Final[Mapping[object, str]] = {
    "theme": "the name of a theme",
    "db": "a path",
    "context": "the name of a context",
}
_LISTS: Final[Mapping[object, str]] = {
    "listeners": "[NAME=]ADDRESS",
    "hosts": "ssh://USER@HOST or file:///DIR",
    "protected": "names of contexts",
}

_FILTER_NAME: Final = re.compile(r"[^\W\d][\w-]{0,39}")


@dataclass(frozen=True)
class Settings:
    """What the file, and after it the command line, may set."""

    theme: str = ""
    """Name of a theme; "" takes the one that suits the terminal."""
    listeners: tuple[str, ...] = ()
    """`[NAME=]ADDRESS`, as with --listen; none: the default ones."""
    keymap: Mapping[str, str] = field(default_factory=dict)
    """Binding id to keys, comma separated."""
    mouse: bool = False
    """Off, so that the terminal's own selection works."""
    utc: bool = False
    """Times in UTC instead of the local zone."""
    db: Path | None = None
    """The database, as with --db."""
    hosts: tuple[str, ...] = ()
    """`ssh://USER@HOST` or `file:///DIR`, as with --host."""
    context: str = ""
    """A context of the kubeconfig, as with --context."""
    protected: tuple[str, ...] = ()
    """Contexts whose name must be typed before anything is changed there."""
    filters: Mapping[str, str] = field(default_factory=dict)
    """Name to filter: each is understood by `receiver.traces.query.Query.parse`."""
    read_only: bool = False
    """Nothing may be changed; only the command line sets it."""
    file: Path | None = None
    """Where these settings were read, None when there was no file."""


def config_directory() -> Path:
    """Where config.yaml and a directory of own themes are looked for."""
    return user_config_path(NAME)


def default_file() -> Path:
    """The file that is read when --config names no other."""
    return config_directory() / "config.yaml"


def theme_directory() -> Path:
    """The operator's own themes: one YAML file each."""
    return config_directory() / "themes"


_WAY_OUT: Final = "or run this with a home of its own (sudo -H)"


def own_themes() -> tuple[list[Path], list[str]]:
    """The operator's own directory of themes, [] where it is not believed, and why, as a sentence."""
    directory = theme_directory()
    if why := _not_believed(directory):
        return [], [f"The themes in {directory} are not used, because {why}: take that from them, {_WAY_OUT}."]
    return [directory], []


def _not_believed(path: Path) -> str:
    """Why a file is not read from where we look by ourselves, "" where it may be. Under sudo, or after `su`, the home
    may be somebody else's, who must not decide what we do."""
    try:
        return ownership.why_not_believed(path)
    except OSError as error:
        return "" if isinstance(error, (FileNotFoundError, PermissionError)) else f"of an error ({error.strerror})"


def load_settings(path: Path | None = None) -> tuple[Settings, list[str]]:
    """Settings of a file, and one sentence for everything in it that is not used.

    Args:
        path: the file; None reads the default one, which may well not be there. That is used where only we and root
            can change it.
    """
    file = path or default_file()
    if path is None and not os.path.exists(file):  # also when its directory is somebody else's, as after `su`
        return Settings(), []
    if path is None and (why := _not_believed(file)):
        return Settings(), [
            f"Settings file {file} is not used, because {why}: name it with --config if you trust it, {_WAY_OUT}."
        ]
    try:
        content = _read(file)
    except _Unreadable as problem:
        return Settings(), [f"Settings file {file} {problem}: the defaults are used."]
    if content is None:
        return Settings(file=file), []
    if not isinstance(content, Mapping):
        return Settings(), [f"Settings file {file} is not a map of keys: the defaults are used."]
    return _check(file, content)


class _Unreadable(Exception):
    pass


def _read(file: Path) -> object:
    import yaml  # costs 45 ms: only when there is a file to read

    try:
        if file.stat().st_size > MAX_FILE:
            raise _Unreadable(f"is larger than {MAX_FILE >> 10} KiB")
        text = file.read_text("utf-8")
        content: object = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise _Unreadable(f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise _Unreadable("is not UTF-8") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise _Unreadable(f"is not YAML{where} ({getattr(error, 'problem', None) or type(error).__name__})") from error
    return content


def _check(file: Path, content: Mapping[object, object]) -> tuple[Settings, list[str]]:
    problems: list[str] = []
    good: dict[str, object] = {}

    def wrong(key: object, reason: str) -> None:
        problems.append(f"Settings file {file}, key {_short(key)}: {reason}; it is left out.")

    for key, value in content.items():
        if key in _WORDS:
            if not isinstance(value, str) or not value or "\0" in value:
                wrong(key, f"must be {_WORDS[key]}")
            else:
                good[str(key)] = Path(value).expanduser() if key == "db" else value
        elif key in ("mouse", "utc"):
            if not isinstance(value, bool):
                wrong(key, "must be true or false")
            else:
                good[str(key)] = value
        elif key in _LISTS:
            if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
                wrong(key, f"must be a list of {_LISTS[key]}")
            else:
                good[str(key)] = tuple(value)
        elif key == "keymap":
            good["keymap"] = keymap = {}
            for name, keys in (value if isinstance(value, Mapping) else {"": None}).items():
                if name == "" or not isinstance(value, Mapping):
                    wrong(key, "must be a map of binding ids and keys")
                elif not isinstance(name, str) or not isinstance(keys, (str, int)) or isinstance(keys, bool):
                    wrong(f"keymap.{_short(name)}", "must be keys in quotes, comma separated")
                else:
                    keymap[name] = str(keys)  # YAML reads a lone digit as a number
        elif key == "filters":
            good["filters"] = filters = {}
            for name, text in (value if isinstance(value, Mapping) else {"": None}).items():
                if not isinstance(value, Mapping):
                    wrong(key, "must be a map of names and filters")
                elif not isinstance(name, str) or not _FILTER_NAME.fullmatch(name):
                    wrong(f"filters.{_short(name)}", "a name is made of letters, digits, - and _")
                elif not isinstance(text, (str, int)) or isinstance(text, bool):
                    wrong(f"filters.{name}", "must be a filter in quotes")
                elif problem := _not_a_filter(str(text)):
                    wrong(f"filters.{name}", f"is no filter: {problem.rstrip('.')}")
                else:
                    filters[name] = str(text)  # YAML reads a lone 500 as a number
        else:
            known = "theme, listeners, keymap, mouse, utc, db, hosts, context, protected and filters"
            wrong(key, f"is not a setting ({known} are)")
    return Settings(file=file, **good), problems  # type: ignore[arg-type]


def _not_a_filter(text: str) -> str:
    """What is wrong with a filter, and in which character; "" when nothing is."""
    from receiver.traces.query import Query, QueryError  # with numpy: only when there is a filter to check

    try:
        Query.parse(text)
    except QueryError as error:
        return f"{''.join(c if c.isprintable() else '?' for c in str(error))[:200]} (character {error.at[0] + 1})"
    return ""


def _short(key: object) -> str:
    return "".join(character if character.isprintable() else "?" for character in str(key)[:60])
