"""Settings: everything wrong in the file is a sentence, nothing in it is fatal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.somebody_else import UID, directory_of, needs_root
from tui.config import MAX_FILE, Settings, default_file, load_settings, own_themes, theme_directory


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    return file


def test_everything_that_can_be_set(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "theme: light\nlisteners: [lab=127.0.0.1:4317, 'unix:/run/x.sock']\n"
        "keymap: {app.help: 'f1,?', requests.window-1: 7}\n"
        "mouse: true\nutc: true\ndb: /var/tmp/spans.db\n"
        "hosts: ['ssh://root@cp-1']\ncontext: lab\nprotected: [live]\n",
    )
    found, problems = load_settings(file)
    assert problems == []
    assert found == Settings(
        theme="light",
        listeners=("lab=127.0.0.1:4317", "unix:/run/x.sock"),
        keymap={"app.help": "f1,?", "requests.window-1": "7"},
        mouse=True,
        utc=True,
        db=Path("/var/tmp/spans.db"),
        hosts=("ssh://root@cp-1",),
        context="lab",
        protected=("live",),
        file=file,
    )


def test_no_default_file_is_no_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert load_settings() == (Settings(), [])


@pytest.mark.parametrize("open_to_others", ["the file", "its directory"])
def test_a_file_that_others_may_write_is_used_only_where_it_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, open_to_others: str
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    theme_directory().mkdir(parents=True)
    file = default_file()
    file.write_text("context: lab\n")
    assert load_settings() == (Settings(context="lab", file=file), [])
    assert own_themes() == ([theme_directory()], [])
    (file if open_to_others == "the file" else file.parent).chmod(0o777)
    found, (said,) = load_settings()
    assert found == Settings()
    assert str(file) in said
    assert "others may write" in said
    assert "--config" in said
    assert load_settings(file)[0].context == "lab"
    theme_directory().chmod(0o777)
    none, (said,) = own_themes()
    assert none == []
    assert "others may write" in said


@needs_root
@pytest.mark.parametrize("home", [True, False])
def test_root_does_not_do_what_is_set_in_somebody_elses_home(monkeypatch: pytest.MonkeyPatch, home: bool) -> None:
    """sudo without -H, su -m"""
    with directory_of(UID) as theirs:
        monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
        monkeypatch.setenv(*(("HOME", str(theirs)) if home else ("XDG_CONFIG_HOME", str(theirs))))
        file = default_file()
        assert file.is_relative_to(theirs)
        theme_directory().mkdir(parents=True)
        file.write_text("hosts: ['ssh://root@elsewhere']\n")  # root's by itself, in a directory of that user's
        found, (said,) = load_settings()
        assert found == Settings()
        assert f"the directory {theirs} belongs to somebody else (user {UID})" in said
        assert "sudo -H" in said
        none, (said,) = own_themes()
        assert none == []
        assert "somebody else" in said


def test_an_empty_file_is_no_problem(tmp_path: Path) -> None:
    file = written(tmp_path, "# nothing yet\n")
    assert load_settings(file) == (Settings(file=file), [])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("theme: [", "is not YAML in line"),
        ("- a\n- b\n", "is not a map of keys"),
        ("colour: red\n", "key colour: is not a setting"),
        ("mouse: maybe\n", "key mouse: must be true or false"),
        ("listeners: 4317\n", "key listeners: must be a list"),
        ("hosts: ssh://cp-1\n", "key hosts: must be a list of ssh://USER@HOST"),
        ("context: 5\n", "key context: must be the name of a context"),
        ("protected: [1]\n", "key protected: must be a list of names of contexts"),
        ("keymap: [a]\n", "key keymap: must be a map"),
        ("keymap: {app.help: [f1]}\n", "key keymap.app.help: must be keys in quotes"),
        ("theme: 7\n", "key theme: must be the name of a theme"),
        ("db: ''\n", "key db: must be a path"),
        ("x: &a [*a]\n", "key x: is not a setting"),
        ("filters: [a]\n", "key filters: must be a map of names and filters"),
        ("filters: {a b: pods}\n", "key filters.a b: a name is made of letters"),
        ("filters: {slow: [1s]}\n", "key filters.slow: must be a filter in quotes"),
        ("filters: {slow: 'x duration>5'}\n", "(character 12)"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    found, problems = load_settings(written(tmp_path, text))
    assert len(problems) == 1
    assert says in problems[0]
    assert "config.yaml" in problems[0]
    assert found.theme == ""


def test_filters_have_names(tmp_path: Path) -> None:
    text = "filters:\n  slow: duration>1s\n  failed: code>=500 !verb=watch\n  bad: verb>3\n  five: 500\n"
    found, problems = load_settings(written(tmp_path, text))
    assert found.filters == {"slow": "duration>1s", "failed": "code>=500 !verb=watch", "five": "500"}
    assert len(problems) == 1


def test_the_rest_of_a_file_with_a_mistake_counts(tmp_path: Path) -> None:
    found, problems = load_settings(written(tmp_path, "colour: red\nutc: true\n"))
    assert found.utc
    assert len(problems) == 1


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = load_settings(tmp_path / "not-there.yaml")
    assert "cannot be read" in missing[1][0]
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8" in load_settings(binary)[1][0]
    huge = tmp_path / "huge.yaml"
    huge.write_text("#" * (MAX_FILE + 1))
    assert "is larger than" in load_settings(huge)[1][0]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
KEYS = (
    st.sampled_from(["theme", "filters", "listeners", "keymap", "mouse", "utc", "db"])
    | st.text(max_size=8)
    | st.integers()
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_yaml_gives_settings(tmp_path: Path, content: dict[Any, Any]) -> None:
    found, problems = load_settings(written(tmp_path, yaml.safe_dump(content)))
    assert isinstance(found, Settings)
    assert all("\n" not in problem for problem in problems)
