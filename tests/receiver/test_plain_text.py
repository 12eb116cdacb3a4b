"""Text from outside as one line that is only text."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.ingest.recordings import check
from receiver.plain_text import MAX_COMBINING, few_marks, one_line, shell_operand, shell_word
from receiver.store.database import StoreError
from tui.clusters.doctor import _listen_there
from tui.clusters.reach.ssh import why_no_connection


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("unix:/run/x.sock", "unix:/run/x.sock"),
        ("naïve ソケット", "naïve ソケット"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b]0;x\x07\x9b2J\x7f\0", r"\x1b]0;x\x07\x9b2J\x7f\x00"),
        ("\u2028\u2029\u202e\u2066\u200b\u00ad\ufeff", r"\u2028\u2029\u202e\u2066\u200b\xad\ufeff"),
        ("a\u00a0b\u3000", r"a\xa0b\u3000"),
        ("\U000e0072\U000e0100\ufe0f\u034f\u3164", r"\U000e0072\U000e0100\ufe0f\u034f\u3164"),
        ("\udcff\ue000\U0010ffff", r"\udcff\ue000\U0010ffff"),
        ("e\u0301", "e\u0301"),
        ("\u0301e" + "\u0301" * 5, r"\u0301e" + "\u0301" * 3 + r"\u0301\u0301"),
    ],
)
def test_what_cannot_be_seen_is_escaped(text: str, line: str) -> None:
    assert one_line(text) == line


@given(st.text())
def test_a_line_is_printable_and_escaped_only_once(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    assert one_line(line) == line
    line.encode()
    assert few_marks(line) == line


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_shell_takes_it_for_one_word(text: str) -> None:
    assert shlex.split(shell_word(text)) == [one_line(text)]


def test_a_shell_runs_nothing_of_it() -> None:
    hostile = ["x; echo ran", "$(echo ran)", "`echo ran`", "a'b\"c", "*", "~", "a\necho ran", "!!", "-rf", ""]
    line = " ".join(["printf '%s|'", *map(shell_word, hostile)])
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout == "".join(f"{one_line(text)}|" for text in hostile)


def test_a_name_is_no_option() -> None:
    assert shell_operand("root@cp1") == "root@cp1"
    assert shell_operand("-oProxyCommand=reboot now") == "-- '-oProxyCommand=reboot now'"


def test_commands_that_are_said_hold_names_from_outside_as_words() -> None:
    hostile = "cp1; reboot\n"
    for said in (_listen_there(hostile), str(why_no_connection("cp1", hostile, "host key verification failed"))):
        assert r"'cp1; reboot\n'" in said
    assert " -- '-oProxyCommand=x y'" in _listen_there("-oProxyCommand=x y")
    assert "`ssh -- -v`" in str(why_no_connection("cp1", "-v", "no reason"))


@pytest.mark.parametrize("name", ["a b.db", "a;reboot.db"])
def test_a_file_that_is_named_is_one_word(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"SQLite format 3\0")
    with pytest.raises(StoreError) as said:
        check(path)
    assert str(said.value).endswith(f"open it with --db {shlex.quote(str(path))}.")


def test_marks_are_bounded() -> None:
    assert few_marks("plain") == "plain"
    assert few_marks("a" + "\u0301" * 9 + "b\u0301") == "a" + "\u0301" * MAX_COMBINING + "b\u0301"
