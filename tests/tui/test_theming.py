"""Themes: what is wrong in a file is said with its name, key and reason; what is registered can be applied."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.style import Style
from textual.theme import BUILTIN_THEMES

from receiver.traces.model import Component
from tests.tui.still_feed import StillFeed
from tui.app import TraceApp
from tui.config import Settings
from tui.theming import (
    FALLBACK,
    MAX_FILE,
    REQUIRED,
    ThemeError,
    built_in,
    check_theme,
    load_themes,
    palette,
)

DARK: dict[str, Any] = yaml.safe_load((built_in() / "dark.yaml").read_text("utf-8"))


def changed(**keys: Any) -> dict[str, Any]:
    content = copy.deepcopy(DARK)
    variables = keys.pop("variables", {})
    content.update(keys)
    content["variables"].update(variables)
    return {key: value for key, value in content.items() if value is not ...}


def test_the_built_in_themes_are_right() -> None:
    themes, problems = load_themes([built_in()])
    assert problems == []
    assert {"dark", "light", "sixteen"} <= set(themes)
    assert not themes["light"].dark
    assert themes["sixteen"].ansi
    for theme in themes.values():
        assert set(REQUIRED) <= set(theme.variables)


def test_the_sixteen_colours_are_the_terminals_own() -> None:
    themes, _ = load_themes([built_in()])
    variables = themes["sixteen"].variables
    assert all(variables[name].startswith("ansi_") for name in REQUIRED)


@pytest.mark.parametrize(
    ("content", "key", "reason"),
    [
        (changed(primary="#12"), "primary", "is not a colour"),
        (changed(primary=...), "primary", "is missing"),
        (changed(primary=123456), "primary", "write it in quotes"),
        (changed(colour="red"), "colour", "is not a key of a theme"),
        (changed(name="Dark One"), "name", "small letters"),
        (changed(name=...), "name", "must be there"),
        (changed(dark="yes"), "dark", "true or false"),
        (changed(text_alpha=7), "text_alpha", "from 0 to 1"),
        (changed(variables={"state-error": "rot"}), "variables.state-error", "is not a colour"),
        (changed(variables={"state-error": None}), "variables.state-error", "is not a colour"),
        (changed(variables={"link-style-hover": "red"}), "variables.link-style-hover", "text style"),
        (changed(variables={"A b": "red"}), "variables.A b", "is not a name"),
        ({**DARK, "variables": {}}, "variables.component-apiserver", "is missing"),
        ({**DARK, "variables": ["red"]}, "variables", "must be a map"),
        (["dark"], "", "is not a map"),
    ],
)
def test_what_is_wrong_names_the_key_and_the_reason(content: object, key: str, reason: str) -> None:
    with pytest.raises(ThemeError) as raised:
        check_theme(content)
    assert raised.value.key == key
    assert reason in str(raised.value)


def test_a_broken_file_is_reported_and_the_others_are_used(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(yaml.safe_dump(changed(name="mine")))
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(changed(error="#zzz")))
    (tmp_path / "torn.yaml").write_text("name: [")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    (tmp_path / "huge.yaml").write_text("#" * (MAX_FILE + 1))
    themes, problems = load_themes([built_in(), tmp_path, tmp_path / "not-there"])
    assert "mine" in themes
    said = [str(problem) for problem in problems]
    assert "Theme file bad.yaml, key error: '#zzz' is not a colour" in said[0].replace("; write", " write")
    assert len(said) == 4
    assert all(sentence.endswith("it is left out.") for sentence in said)


JUNK = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.lists(st.text(max_size=3))


@given(
    st.dictionaries(st.sampled_from([*DARK, "boost", "ansi", "luminosity_spread"]) | st.text(max_size=8), JUNK),
    st.dictionaries(st.sampled_from(REQUIRED) | st.text(max_size=8), JUNK | st.sampled_from(["#fff", "red"])),
)
def test_any_content_is_a_theme_or_a_reason(top: dict[str, Any], variables: dict[str, Any]) -> None:
    content = {**copy.deepcopy(DARK), **top}
    if isinstance(content.get("variables"), dict):
        content["variables"].update(variables)
    try:
        theme = check_theme(content)
    except ThemeError:
        return
    palette({**FALLBACK, **theme.to_color_system().generate(), **theme.variables}, ansi=theme.ansi)


def test_without_colours_there_is_none_and_the_cursor_is_still_seen() -> None:
    plain = palette({}, colours=False)
    styles = [plain.base, plain.dim, plain.error, plain.rule, plain.cursor, *plain.component.values()]
    assert all(style.color is None and style.bgcolor is None for style in styles)
    assert plain.cursor.reverse
    assert plain.on_cursor(plain.error).reverse


def test_on_the_cursor_line_plain_text_takes_its_colour_and_marks_keep_theirs() -> None:
    theme = check_theme(DARK)
    made = palette({**FALLBACK, **theme.to_color_system().generate(), **theme.variables})
    assert made.on_cursor(made.dim) == made.cursor
    assert made.on_cursor(made.error).color == made.error.color
    assert made.on_cursor(made.error).bgcolor == made.cursor.bgcolor
    few = palette({**FALLBACK, **theme.to_color_system().generate(), **theme.variables}, ansi=True)
    assert few.on_cursor(few.component[Component.ETCD]).color == few.cursor.color
    assert isinstance(few.base, Style)


async def test_a_theme_that_sets_every_colour_can_be_applied() -> None:
    """Textual checks nothing when a theme is registered and ends the app when it is applied."""
    generated = BUILTIN_THEMES["textual-dark"].to_color_system().generate()
    every = {name: "#336699" for name in generated if "-style" not in name}
    theme = check_theme(changed(name="every", variables=every))
    ansi = check_theme(changed(name="own-ansi", ansi=True))
    app = TraceApp(StillFeed())
    app.register_theme(theme)
    app.register_theme(ansi)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        for name in ("every", "own-ansi", *app.theme_names):
            app.run_command(f"theme {name}")
            await pilot.pause()
            assert app.theme == name
        app.run_command("theme nothing")
        await pilot.pause()
        assert app.theme == app.theme_names[-1]


async def test_broken_themes_and_settings_are_toasts_and_the_app_goes_on(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(changed(error="#zzz")))
    settings = Settings(theme="none-such", keymap={"requests.fliter": "f"})
    app = TraceApp(StillFeed(), settings, theme_directories=[tmp_path], problems=["Settings file x is odd."])
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await pilot.pause()
        said = [note.message for note in app._notifications]
        assert any("Settings file x is odd." in message for message in said)
        assert any("bad.yaml, key error" in message for message in said)
        assert any("no theme 'none-such'" in message for message in said)
        assert any("'requests.fliter'" in message for message in said)
        assert app.theme in app.theme_names
