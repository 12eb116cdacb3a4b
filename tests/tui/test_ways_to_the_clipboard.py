"""Every way to the clipboard, with a span that holds what a shell or a terminal would act on in all of its values."""

from __future__ import annotations

import json

import pytest
from textual.app import App

from receiver.store.database import Database
from tests.receiver.traces.shapes import AUDIT, HTTP, PODS, SERVER, Recorder
from tests.tui.driver import Driven, Open
from tests.tui.still_feed import StillFeed, chunks_of
from tests.tui.test_receiver_screen import SILENT, live

EVIL = "x\nreboot\r\x1b[201~\x07\x9b2J\u2028\u202e\U000e0041\u200b\x7f; $(reboot)"


def hostile() -> StillFeed:
    recorder = Recorder()
    url = {
        "http.target": f"{PODS}/web%0Areboot%1B", "http.method": "GET", "http.user_agent": EVIL,
        "http.status_code": 200, "audit-id": f"{AUDIT}{EVIL}", EVIL: EVIL,
    }  # fmt: skip
    top = recorder.span(f"GET {EVIL}", SERVER, scope=HTTP, ms=900, values=url)
    verb = {"verb": "GET", "name": EVIL, "namespace": EVIL, "resource": "pods", "api-version": "v1", "audit-id": EVIL}
    recorder.span("Get", parent=top, at=1, ms=880, values=verb)
    recorder.span(EVIL, trace="lone", service=EVIL, values={EVIL: EVIL}, status=2, message=EVIL)
    database = Database.memory()
    database.append(chunks_of(recorder.requests()))
    return StillFeed(database)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What goes out to the terminal."""
    found: list[str] = []
    monkeypatch.setattr(App, "copy_to_clipboard", lambda self, text: found.append(text))
    return found


def one_line_each(sent: list[str], at_least: int) -> None:
    assert len(sent) >= at_least
    for text in sent:
        assert text
        assert text.isprintable(), repr(text)
        assert "\n" not in text
    assert any(r"\nreboot\r\x1b[201~\x07\x9b2J\u2028\u202e" in text for text in sent), "said, not left out"


async def test_of_a_row(drive: Open, sent: list[str]) -> None:
    async with drive(feed=hostile()) as d:
        for _ in range(2):
            await d.press("c", "j")
            for what in ("id", "name", "audit", "client", "line"):
                await d.command(f"copy {what}")
        one_line_each(sent, 8)


async def test_of_a_span_and_its_json(drive: Open, sent: list[str]) -> None:
    async with drive(feed=hostile()) as d:
        for _ in range(2):
            await d.press("enter")
            await d.until(lambda: d.place == "trace" and d.app.screen.waterfall.node is not None)  # type: ignore[attr-defined]
            for letter in "sitnva":
                before = len(sent)
                await d.press("c", letter)
                await d.until(lambda before=before: len(sent) > before)  # type: ignore[misc]
            for key in ("y", "Y"):
                before = len(sent)
                await d.press(key)
                await d.until(lambda: d.place == "raw" and bool(d.app.screen._text.spans))  # type: ignore[attr-defined]
                await d.press("c")
                assert len(sent) == before + 1
                groups = json.loads(sent[-1])["resourceSpans"]
                names = [span["name"] for group in groups for span in group["scopeSpans"][0]["spans"]]
                assert any(name.endswith(EVIL) for name in names), "all of it, as JSON escapes it"
                await d.press("escape")
            await d.press("escape", "j")
        one_line_each(sent, 16)


async def test_attributes_one_a_line_are_said_to_be_several(drive: Open, sent: list[str]) -> None:
    async with drive(feed=hostile()) as d:
        await d.press("enter")
        await d.until(lambda: d.place == "trace" and d.app.screen.waterfall.node is not None)  # type: ignore[attr-defined]
        await d.press("c", "l")
        await d.until(lambda: bool(sent))
        lines = sent[0].split("\n")
        assert f"{len(lines)} lines" in d.toasts[-1] or lines[1:] == []
        for line in lines:
            assert line.isprintable()
            assert "=" in line


async def test_of_hot_spots(drive: Open, sent: list[str]) -> None:
    async with drive(feed=hostile()) as d:
        await d.command("hotspots")
        await d.until(lambda: bool(d.app.screen.chosen()))  # type: ignore[attr-defined]
        for keys in (("c",), ("right", "right"), ("c",), ("right",), ("c",)):  # requests, clients, objects
            await d.press(*keys)
            await d.until(lambda: bool(d.app.screen.chosen()))  # type: ignore[attr-defined]
        assert len(sent) == 3
        assert all(text.isprintable() for text in sent)


async def test_the_recipe_is_lines_of_ours_whatever_the_receiver_calls_its_address(
    drive: Open,
    sent: list[str],
) -> None:
    address = {"name": "x", "address": "10.0.0.5\nreboot\x1b[201~:4317", "tls": False, "error": None}
    async with drive(feed=live({**SILENT, "listeners": [address]})) as d:
        await d.press("tab", "tab", "tab")
        assert d.place == "receiver"
        await d.press("c")
        lines = sent[-1].split("\n")
        assert r"endpoint: 10.0.0.5\nreboot\x1b[201~:4317" in lines
        assert all(line.isprintable() for line in lines)
        assert f"{len(lines)} lines" in d.toasts[-1]


async def test_by_textuals_own_keys(drive: Open, sent: list[str]) -> None:
    async with drive(feed=hostile()) as d:
        await d.press("slash")
        d.app.requests.prompt.line.value = EVIL
        await select_and_cut(d)
        d.app.copy_to_clipboard(EVIL)
        one_line_each(sent, 2)


async def select_and_cut(d: Driven) -> None:
    line = d.app.requests.prompt.line
    line.action_home()
    line.action_end(select=True)
    line.action_cut()
