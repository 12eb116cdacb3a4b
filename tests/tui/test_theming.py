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
from textual.color import Color
from textual.theme import BUILTIN_THEMES

from receiver.traces.model import Component
from tests.tui.still_feed import StillFeed
from tui.app import TraceApp
from tui.config import Settings
from tui.contrast import READABLE, SEEN, contrast, legible
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
    assert {"dark", "light", "sixteen", "sixteen-light"} <= set(themes)
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


# --- what is seen on what -----------------------------------------------------------------------------
TOLD = [name for name in REQUIRED if name.startswith(("component-", "state-"))]
NAMES = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"]
PALETTES = {  # the sixteen colours, bright ones last, and a dark ground that goes with them
    "xterm": (
        "000000 cd0000 00cd00 cdcd00 0000ee cd00cd 00cdcd e5e5e5"
        " 7f7f7f ff0000 00ff00 ffff00 5c5cff ff00ff 00ffff ffffff",
        "000000",
    ),
    "Linux console": (
        "000000 aa0000 00aa00 aa5500 0000aa aa00aa 00aaaa aaaaaa"
        " 555555 ff5555 55ff55 ffff55 5555ff ff55ff 55ffff ffffff",
        "000000",
    ),
    "Windows Terminal": (
        "0c0c0c c50f1f 13a10e c19c00 0037da 881798 3a96dd cccccc"
        " 767676 e74856 16c60c f9f1a5 3b78ff b4009e 61d6d6 f2f2f2",
        "0c0c0c",
    ),
    "Tango": (
        "2e3436 cc0000 4e9a06 c4a000 3465a4 75507b 06989a d3d7cf"
        " 555753 ef2929 8ae234 fce94f 729fcf ad7fa8 34e2e2 eeeeec",
        "300a24",
    ),
    "macOS": (
        "000000 c23621 25bc24 adad27 492ee1 d338d3 33bbc8 cbcccd"
        " 818383 fc391f 31e722 eaec23 5833ff f935f8 14f0f0 e9ebeb",
        "000000",
    ),
}


def test_the_ratio_is_that_of_wcag() -> None:
    black, white, grey = Color.parse("#000000"), Color.parse("#ffffff"), Color.parse("#767676")
    assert contrast(black, white) == contrast(white, black) == pytest.approx(21)
    assert contrast(grey, white) == pytest.approx(4.54, abs=0.01)  # the usual example of a grey that just passes AA
    assert contrast(white, white) == 1


@given(*[st.tuples(*[st.integers(0, 255)] * 3)] * 2)
def test_a_colour_is_made_legible_on_any_ground(colour: tuple[int, int, int], ground: tuple[int, int, int]) -> None:
    below = Color(*ground)
    made = legible(Color(*colour), (below, READABLE))
    assert contrast(made, below) >= READABLE
    if contrast(Color(*colour), below) >= READABLE:
        assert made == Color(*colour), "what is seen stays as it is"


def test_every_theme_that_is_offered_is_seen_on_its_ground_and_on_its_cursor_line() -> None:
    app = TraceApp(StillFeed())
    looked_at = 0
    for name in app.theme_names:
        app.theme = name
        if app.current_theme.ansi:
            continue
        variables = {key: Color.parse(value) for key, value in app.get_css_variables().items() if key in EVERYWHERE}
        ground, cursor = variables["background"], variables["cursor-background"]
        for told in TOLD:
            assert contrast(variables[told], ground) >= SEEN, (name, told)
            if told != "state-dim":  # takes the cursor's colour there
                assert contrast(variables[told], cursor) >= SEEN, (name, told, "on the cursor line")
        assert contrast(variables.get("key", variables["primary"]), ground) >= SEEN, name
        assert contrast(variables["foreground"], ground) >= READABLE - 0.1, name
        assert contrast(variables["cursor-foreground"], cursor) >= READABLE, name
        assert contrast(cursor, ground) >= 1.35, (name, "the cursor line itself")
        looked_at += 1
    assert looked_at >= 20


EVERYWHERE = {*REQUIRED, "background", "foreground", "primary", "key"}


@pytest.mark.parametrize("terminal", PALETTES)
@pytest.mark.parametrize("name", ["sixteen", "sixteen-light", "ansi-dark", "ansi-light"])
def test_sixteen_colours_are_seen_in_the_usual_terminals(name: str, terminal: str) -> None:
    colours, dark = PALETTES[terminal]
    app = TraceApp(StillFeed())
    app.theme = name
    theme = app.current_theme
    names = [f"ansi_{bright}{one}" for bright in ("", "bright_") for one in NAMES]
    known = {one: Color.parse(f"#{colour}") for one, colour in zip(names, colours.split(), strict=True)}
    ground = Color.parse(f"#{dark}" if theme.dark else "#ffffff")
    known["ansi_default"] = known["ansi_white" if theme.dark else "ansi_black"]
    for told in TOLD:
        assert contrast(known[theme.variables[told]], ground) >= SEEN, (told, theme.variables[told])
    assert contrast(known[theme.primary], ground) >= SEEN
    cursor = known[theme.variables["cursor-background"]]
    assert contrast(known[theme.variables["cursor-foreground"]], cursor) >= SEEN
    assert contrast(cursor, ground) >= SEEN


async def test_broken_themes_and_settings_are_toasts_and_the_app_goes_on(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(changed(error="#zzz")))
    settings = Settings(theme="none-such", keymap={"requests.fliter": "f"})
    app = TraceApp(StillFeed(), settings, theme_directories=[tmp_path], problems=["Settings file x is odd."])
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await pilot.pause()
        said: list[str] = []
        while (toast := app.toasts.current) is not None:  # one after the other
            said.append(toast.text)
            app._tick()
            await pilot.pause()
            assert toast.text[:60] in "\n".join(strip.text for strip in app.screen._compositor.render_strips())
            app.toasts.dismiss()
        assert "Settings file x is odd." in said[0]
        assert len(said) == 4
        assert any("bad.yaml, key error" in message for message in said)
        assert any("no theme 'none-such'" in message for message in said)
        assert any("'requests.fliter'" in message for message in said)
        assert app.theme in app.theme_names
