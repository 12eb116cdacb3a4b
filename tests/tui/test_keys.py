"""Keys by id, and what a configured keymap may do to them."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from textual.binding import Binding

from tui.keys import BY_ID, IDS, KEYS, bindings, check_keymap, key_name, taken_twice


def test_every_binding_has_an_id_of_its_own_and_says_what_it_does() -> None:
    assert len(IDS) == len(KEYS) == len(BY_ID)
    for key in KEYS:
        area, _, action = key.id.partition(".")
        assert area
        assert action
        assert key.says


def test_defaults_are_keys_that_terminals_send_and_do_not_clash() -> None:
    good, problems = check_keymap({key.id: key.keys for key in KEYS})
    assert problems == []
    assert set(good) == IDS
    assert taken_twice(good) == []


def test_no_default_is_a_key_that_plain_terminals_cannot_tell_from_another() -> None:
    same = {"ctrl+m", "ctrl+i", "ctrl+h", "ctrl+j", "ctrl+left_square_bracket"}
    assert not [key.id for key in KEYS if same & set(key.keys.split(","))]


def test_nothing_destructive_sits_on_a_single_key() -> None:
    assert not [key.id for key in KEYS if any(word in key.says for word in ("delete", "remove", "stop"))]


def test_bindings_are_textual_bindings_of_one_area() -> None:
    made = bindings("requests")
    assert made
    assert all(isinstance(one, Binding) and (one.id or "").startswith("requests.") for one in made)


def test_an_unknown_id_is_said_and_the_nearest_one_named() -> None:
    good, problems = check_keymap({"list.freeze": "F"})
    assert good == {}
    assert "there is no binding 'list.freeze'" in problems[0]
    assert re.search(r"did you mean \w+\.freeze", problems[0])


def test_a_key_that_no_terminal_sends_is_said() -> None:
    good, problems = check_keymap({"app.help": "f1,foo"})
    assert good == {}
    assert "'foo'" in problems[0]
    assert "question_mark stays" in problems[0]


def test_single_characters_names_and_modifiers_are_taken() -> None:
    wanted = {"app.help": "f1,?", "requests.filter": "ctrl+f", "list.top": "alt+up,home", "app.command": "comma"}
    good, problems = check_keymap(wanted)
    assert problems == []
    assert good == wanted


def test_a_key_that_means_two_things_is_said() -> None:
    assert "h is both requests.noise and app.help" in taken_twice({"app.help": "h"})[0]
    assert taken_twice({"app.help": "f1"}) == []


@given(st.dictionaries(st.text(max_size=20) | st.sampled_from(sorted(IDS)), st.text(max_size=20)))
def test_any_keymap_is_checked_without_an_error(keymap: dict[str, str]) -> None:
    good, problems = check_keymap(keymap)
    assert len(good) + len(problems) == len(keymap)
    assert set(good) <= IDS
    taken_twice(good)


def test_keys_are_written_as_people_know_them() -> None:
    assert [key_name(key, True) for key in ("enter", "ctrl+z", "shift+left", "T", "slash")] == [
        "⏎",
        "^Z",
        "⇧←",
        "T",
        "/",
    ]
    assert all(key_name(one, False).isascii() for key in KEYS for one in key.keys.split(","))
