"""The strip of phases: as wide as it says, nothing missing that has room, and what is shown sums to the duration."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.traces.model import Component
from receiver.traces.phases import GROUPS, PHASES, HookTime, Phase, Phases, phases_of
from tests.tui.traces_for_tests import slow_pod
from tui.glyphs import ASCII, UNICODE, Glyphs
from tui.terminal_text import duration, width_of
from tui.theming import FALLBACK, palette
from tui.widgets.phasestrip import Group, groups_of, phase_parts

PALETTE = palette({**FALLBACK, "foreground": "#ffffff", "background": "#000000", "primary": "#00ffff"})


def text(groups: list[Group], width: int, glyphs: Glyphs = UNICODE) -> str:
    return "".join(part for part, _ in phase_parts(groups, width, PALETTE, glyphs))


def slow() -> list[Group]:
    phases = phases_of(slow_pod().trace())
    assert phases is not None
    return groups_of(phases, "apiserver", Component.APISERVER)


def test_the_largest_first_and_webhooks_told_apart() -> None:
    assert text(slow(), 150) == (
        " admission 2.52 s █████████████████████████████████████▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓"
        "  etcd 12.1 ms  apiserver 1.85 ms  filters 0.28 ms  encoding 0.26 ms"
    )
    assert text(slow(), 150, ASCII).isascii()


def test_what_has_no_room_is_summed() -> None:
    narrow = text(slow(), 80)
    assert narrow.startswith(" admission 2.52 s ███")
    assert narrow.endswith("  etcd 12.1 ms  apiserver 1.85 ms  rest 0.54 ms")
    assert text(slow(), 34).endswith("  rest 14.5 ms")
    assert text(slow(), 20).strip() == "admission 2.52 s"
    assert text(slow(), 5) == ""


def test_parts_of_a_bar_are_as_long_as_their_time_and_in_the_order_of_the_calls() -> None:
    ns = [0] * PHASES
    ns[Phase.MUTATING], ns[Phase.VALIDATING] = 300, 100
    hooks = (HookTime("a", Phase.VALIDATING, "a", 100), HookTime("b", Phase.MUTATING, "b", 300))
    groups = groups_of(Phases(400, tuple(ns), hooks), "apiserver", Component.APISERVER)
    assert text(groups, 31) == " admission 400 ns ▓▓▓█████████"


def test_what_went_by_before_the_request_is_told_when_it_counts() -> None:
    before = "".join(part for part, _ in phase_parts(slow(), 150, PALETTE, UNICODE, 930_000_000))
    assert before.endswith("  + authentication before 930 ms")
    assert width_of(before) <= 149
    little = "".join(part for part, _ in phase_parts(slow(), 150, PALETTE, UNICODE, 200_000))
    assert "authentication" not in little


TIMES = st.lists(st.integers(0, 10) | st.integers(0, 1 << 62), min_size=PHASES, max_size=PHASES)


@given(TIMES, st.integers(1, 200), st.sampled_from([UNICODE, ASCII]))
def test_never_wider_than_there_is_room_and_nothing_missing(times: list[int], width: int, glyphs: Glyphs) -> None:
    ns = tuple(times)
    hooks = tuple(
        HookTime(f"{phase}", phase, "x", ns[phase])
        for phase in (Phase.VALIDATING, Phase.MUTATING, Phase.WEBHOOK, Phase.CONVERSION)
        if ns[phase]
    )
    groups = groups_of(Phases(sum(ns), ns, hooks), "other", Component.OTHER)
    assert sum(group.ns for group in groups) == sum(ns)
    assert all(sum(part for _, part in group.parts) == group.ns for group in groups)
    parts = phase_parts(groups, width, PALETTE, glyphs)
    line = "".join(part for part, _ in parts)
    assert width_of(line) <= max(0, width - 1) or not parts
    shown = [group for group in groups if f" {group.name} {duration(group.ns)}" in line]
    if len(line) > 40:
        assert shown == groups[: len(shown)], "the largest ones"
        rest = sum(group.ns for group in groups[len(shown) :])
        assert (f" rest {duration(rest)}" in line) == (rest > 0)


@pytest.mark.parametrize("width", [60, 80, 120, 150, 220])
def test_every_group_has_its_colour_and_texture(width: int) -> None:
    for members in GROUPS.values():
        ns = [0] * PHASES
        for phase in members:
            ns[phase] = 1_000_000
        for glyphs in (UNICODE, ASCII):
            groups = groups_of(Phases(sum(ns), tuple(ns)), "apiserver", Component.APISERVER)
            assert len(groups) == 1
            assert width - 3 <= width_of(text(groups, width, glyphs)) <= width - 1
