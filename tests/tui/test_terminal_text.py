"""Nothing that a sender wrote can move the cursor, hide itself or shift a column."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tui import terminal_text as tt

NASTY = st.text(
    st.one_of(
        st.characters(),  # all planes, surrogates included
        st.sampled_from(
            "\x00\x07\x1b\x7f\x80\x9b\x9d\u200b\u200d\u200e\u200f\u202a\u202e\u2028\u2029\u2066\u2069\ufeff\ufe0f"
        ),
        st.sampled_from("a界한👩🏽🇩\u0301\u0489\u20e3\u0300\u3000\xa0\xad\U000e0041\U0001f468"),
    ),
    max_size=80,
)
FORBIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@pytest.fixture(autouse=True)
def _unicode_again() -> Iterator[None]:
    yield
    tt.use_ascii(False)


@given(NASTY)
def test_printable_holds_no_character_that_acts_or_hides(text: str) -> None:
    shown = tt.printable(text)
    assert not {c for c in shown if unicodedata.category(c) in FORBIDDEN}
    assert not {c for c in shown if unicodedata.category(c) == "Zs" and c != " "}
    assert not {c for c in shown if "\ufe00" <= c <= "\ufe0f"}
    shown.encode("utf-8")
    if shown:
        assert cell_len(shown[0]) > 0, "a leading mark would sit on its neighbour"


@given(NASTY, st.integers(-3, 60), st.booleans())
def test_fit_is_exactly_as_wide_as_asked(text: str, width: int, right: bool) -> None:
    assert cell_len(tt.fit(text, width, right)) == max(0, width)
    tt.use_ascii(True)
    plain = tt.fit(text, width, right)
    tt.use_ascii(False)
    assert plain.isascii()
    assert len(plain) == max(0, width)


@given(NASTY, st.integers(2, 40), st.integers(1, 6))
def test_wrapped_lines_are_safe_and_never_too_wide(text: str, width: int, most: int) -> None:
    lines, _ = tt.wrap(text, width, most)
    assert len(lines) <= most
    for line in lines:
        assert cell_len(line) <= width
        assert not {c for c in line if unicodedata.category(c) in FORBIDDEN}


def test_a_megabyte_is_cut_before_it_is_looked_at() -> None:
    lines, more = tt.wrap("\x1b" * 1_000_000, 60, 8)
    assert len(lines) == 8
    assert more
    assert len(tt.printable("x" * 1_000_000)) == tt.LIMIT + 1


def test_replacements_are_visible() -> None:
    assert tt.printable("a\x1b[31mb\n") == "a␛[31mb␊"
    assert tt.printable("user\u202egnp.exe") == "user�gnp.exe"
    assert tt.printable("\ud800") == "�"
    assert tt.printable("a" + "\u0301" * 200) == "a" + "\u0301" * tt.MAX_COMBINING
    tt.use_ascii(True)
    assert tt.printable("é\x1b界") == "???"
    assert tt.fit("configmaps", 6) == "confi~"


def test_long_texts_show_that_they_were_cut() -> None:
    assert tt.fit("configmaps", 6) == "confi…"
    assert tt.fit("界界界", 4) == "界… "
    assert tt.fit("ab", 4, right=True) == "  ab"


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ms"), (1, "1 ns"), (6_400, "0.006 ms"), (9_994, "0.010 ms"), (100_000, "0.10 ms"),
        (960_000, "0.96 ms"), (7_900_000, "7.90 ms"), (9_996_000, "10.0 ms"), (41_200_000, "41.2 ms"),
        (99_960_000, "100 ms"), (999_400_000, "999 ms"), (999_600_000, "1.00 s"), (2_530_000_000, "2.53 s"),
        (59_000_000_000, "59.0 s"), (999_600_000_000, "16.7 min"), (5_998_000_000_000, "1.67 h"),
        (86_400_000_000_000 * 30, "30.0 d"), ((1 << 63) - 1, "292 y"), (-41_200_000, "-41.2 ms"),
    ],
)  # fmt: skip
def test_durations(ns: int, text: str) -> None:
    assert tt.duration(ns) == text


@given(st.integers(0, (1 << 63) - 1))
def test_durations_keep_their_column(ns: int) -> None:
    assert len(tt.duration(ns)) <= 8


def test_offsets() -> None:
    assert tt.offset(1_513_900_000) == "+1,513.9 ms"
    assert tt.offset(20_000) == "+0.02 ms"
    assert tt.offset(-3_100_000) == "-3.1 ms"
    assert tt.offset(3_600_000_000_000) == "+3,600 s"


def test_times() -> None:
    at = 1_763_812_800_000_000_000 + 118_999_999
    assert tt.clock(at, utc=True) == "12:00:00.118"
    assert tt.date_and_clock(at, utc=True) == "2025-11-22 12:00:00.118"
    assert len(tt.clock(at)) == 12
    assert tt.clock(0) == "--:--:--.---"
    assert len(tt.clock((1 << 63) - 1)) == 12
    assert tt.date_and_clock(1 << 80, utc=True).startswith("2500-")


def test_counts_and_sizes() -> None:
    assert tt.count(6547) == "6,547"
    assert [tt.size(n) for n in (0, 812, 3_565_158, 38 << 20, 512 << 20, 1023 << 30)] == [
        "0 B", "812 B", "3.4 MiB", "38 MiB", "512 MiB", "1,023 GiB",
    ]  # fmt: skip
    assert tt.size(1 << 50) == "1,024 TiB"
