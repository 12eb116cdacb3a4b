"""Bars of shares are full, exact to a cell, and hide nothing that is notable."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from receiver.traces.phases import PHASES, Phase, Phases
from tui.glyphs import ASCII, UNICODE
from tui.shares import NOTABLE_NS, NOTABLE_PART, SHARES, cells, present, shares_of

TIMES = st.integers(0, 1 << 62) | st.integers(0, 40) | st.integers(0, 3_000_000_000)
PARTS = st.lists(TIMES, min_size=len(SHARES), max_size=len(SHARES))
SECOND = 1_000_000_000


@given(PARTS, st.integers(1, 40))
def test_cells_sum_to_the_width_for_any_phases(parts: list[int], width: int) -> None:
    got = cells(parts, width)
    total = sum(parts)
    if not total:
        assert got == [0] * len(parts)
        return
    assert sum(got) == width
    assert min(got) >= 0
    notable = [at for at, part in enumerate(parts) if part >= NOTABLE_NS or (part and part * NOTABLE_PART >= total)]
    for at, part in enumerate(parts):
        assert part or not got[at]
        if at in notable and len(notable) <= width:
            assert got[at] >= 1
        assert got[at] <= max(1, -(-part * width // total))
    shown = sorted((part for at, part in enumerate(parts) if at in notable and got[at]), reverse=True)
    assert shown == sorted((parts[at] for at in notable), reverse=True)[: len(shown)]  # of too many the largest


@given(PARTS, st.integers(1, 40))
def test_without_small_notable_parts_each_is_exact_to_a_cell(parts: list[int], width: int) -> None:
    total = sum(parts)
    if any(part and part * width < total for part in parts) or not total:
        return
    for part, count in zip(parts, cells(parts, width), strict=True):
        assert abs(count - part * width / total) < 1 + 1e-6


@given(st.lists(st.integers(0, 1 << 62), min_size=PHASES, max_size=PHASES))
def test_every_phase_is_in_the_bar(ns: list[int]) -> None:
    assert sum(shares_of(Phases(sum(ns), tuple(ns)))) == sum(ns)


def test_a_stall_with_a_little_of_everything_else() -> None:
    ns = [0] * PHASES
    ns[Phase.ETCD_GAP] = 26 * SECOND // 10
    ns[Phase.OTHER] = ns[Phase.DECODING] = SECOND // 100
    assert dict(
        zip([share.name for share in SHARES], cells(shares_of(Phases(sum(ns), tuple(ns))), 8), strict=True)
    ) == {share.name: 8 if share.name == "etcd" else 0 for share in SHARES}
    ns[Phase.QUEUE] = NOTABLE_NS
    bar = cells(shares_of(Phases(sum(ns), tuple(ns))), 8)
    assert [(share.name, count) for share, count in zip(SHARES, bar, strict=True) if count] == [
        ("etcd", 7), ("filters", 1),
    ]  # fmt: skip
    assert [share.name for share in present([bar, [0] * len(SHARES)])] == ["etcd", "filters"]


def test_every_share_has_a_glyph_of_its_own() -> None:
    for glyphs in (UNICODE, ASCII):
        assert list(glyphs.share) == [share.name for share in SHARES]
        assert len(set(glyphs.share.values())) == len(SHARES)
