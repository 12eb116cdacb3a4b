"""The order of a parallel run names tests that are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scheduling import APART, LONG, TOGETHER, place, unit

HOUSE = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", sorted({*LONG, *APART, *TOGETHER}))
def test_what_is_named_is_there(name: str) -> None:
    file, _, function = name.partition("::")
    path = HOUSE / file
    if path.is_file():
        text = path.read_text()
        assert not function or f"def {function}(" in text
        fixture = TOGETHER.get(name, "").partition(",")[0]
        assert f"{fixture}: " in text, "no test asks for that fixture"
    else:
        assert path.is_dir() or list(path.parent.glob(f"{path.name}*.py")), "neither a file nor the beginning of one"


def test_what_is_long_comes_first_and_a_file_stays_whole() -> None:
    types, plain = "tests/test_house.py::test_strict_types", "tests/tui/test_keys.py::test_x[1]"
    assert place(types) == 0
    assert place("tests/receiver/traces/test_path.py::test_x") < place("tests/receiver/traces/test_tree.py::test_x")
    assert place(plain) > max(map(place, LONG))
    assert unit(plain) == "tests/tui/test_keys.py"
    assert unit(types) == types
    assert {unit(name) for name in TOGETHER} == set(TOGETHER.values())
    assert unit("tests/e2e/test_recordings.py::test_same_trees_whatever_the_order[torn]") == "mixed"
