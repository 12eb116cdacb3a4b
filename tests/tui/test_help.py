"""Help: every key with its id, whole, at any width; the screen in front first."""

from __future__ import annotations

import pytest

from tests.tui.driver import Driven, Open
from tui.glyphs import ASCII
from tui.keys import IDS
from tui.screens.help import Lines
from tui.terminal_text import width_of
from tui.widgets.table import Sheet


def texts(d: Driven) -> list[str]:
    """All lines of the help, also those below the screen."""
    source = d.app.screen.query_one(Sheet).source
    assert isinstance(source, Lines)
    return ["".join(text for text, _ in line) for line in source.lines(range(len(source)), d.app.size.width)]


@pytest.mark.parametrize("size", [(40, 10), (60, 15), (80, 24), (99, 24), (150, 40)])
@pytest.mark.parametrize(
    ("keys", "first"),
    [
        ([], "Requests"),
        (["enter"], "Trace"),
        (["tab"], "Hot spots"),
        (["tab", "tab"], "Clusters"),
        (["tab"] * 3, "Receiver"),
    ],
)
async def test_every_key_is_there_with_its_id_whole(
    drive: Open,
    size: tuple[int, int],
    keys: list[str],
    first: str,
) -> None:
    async with drive(size) as d:
        await d.press(*keys)
        bindings = (active.binding for active in d.app.live_bindings())
        live = {binding.id: binding.description for binding in bindings if binding.id in IDS}
        await d.press("question_mark")
        lines = texts(d)
        assert all(width_of(line) <= size[0] for line in lines)
        assert lines[0].strip() == first, "the screen in front comes first"
        titles = [line.strip() for line in lines if line[1:2].isupper()]
        assert titles[-3:] == ["Everywhere", "Commands", "Noise"]
        words = " ".join(" ".join(lines).split())
        ids = words.split()
        assert live
        for name, says in live.items():
            assert name in ids, "an id that is cut cannot be written into a keymap"
            if size[0] >= 60:
                assert all(word in ids for word in says.split()), (name, says)
        for command in d.app.commands.listed:
            assert command.argument.split() == [word for word in command.argument.split() if word in ids]


async def test_it_follows_the_width_of_the_terminal(drive: Open) -> None:
    async with drive((150, 40)) as d:
        await d.press("question_mark")
        wide = len(texts(d))
        await d.pilot.resize_terminal(60, 15)
        await d.settle()
        assert len(texts(d)) > wide
        assert all(width_of(line) <= 60 for line in texts(d))


async def test_in_ascii(drive: Open) -> None:
    async with drive((80, 24), glyphs=ASCII) as d:
        await d.press("question_mark")
        assert all(line.isascii() for line in texts(d))
