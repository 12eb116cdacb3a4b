"""Who takes how much of the receiver: on the Receiver screen and in `info`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from receiver.ingest.accounts import MOST, Accounts
from receiver.ingest.accounts import limited as sentence
from tests.conftest import StartReceiver
from tests.tui.driver import Open
from tests.tui.test_receiver_screen import STATUS, live
from tui.sender_limits import limited, taken


def accounts() -> list[dict[str, Any]]:
    found = Accounts()
    for _ in range(37):
        found.refused("uid 1001", within_share=False)
    found.refused("uid 0", within_share=True)
    found.ended("uid 1001", 1_500)
    found.arrived("uid 0", 3 << 20)
    return found.to_json({"uid 1001": 200, "uid 0": 56}, {"uid 1001": 8})


def test_the_sentence_says_who_starves_whom() -> None:
    said = sentence(accounts())
    assert said == (
        "uid 1001 takes more than its share: it holds 200 of 256 connections, had 37 of its requests refused or cut off"
        " in the last minute and lost 1,500 connections. 1 request of uid 0 found no room meanwhile."
    )
    assert sentence(Accounts().to_json({}, {})) == ""
    quiet = Accounts()
    quiet.arrived("uid 0", 1)
    assert sentence(quiet.to_json({"uid 0": 1}, {})) == ""


def test_who_is_held_back_at_the_door_is_named() -> None:
    found = Accounts()
    for _ in range(1_200):
        found.held_back("uid 1001")
    found.turned_away("uid 1001")
    found.arrived("uid 0", 1)
    shares = found.to_json({"uid 1001": 3, "uid 0": 1}, {})
    assert sentence(shares) == (
        "uid 1001 takes more than its share: it holds 3 of 4 connections, was held back 1,200 times in the last minute"
        " and was turned away once."
    )
    one, other = taken({"shares": shares})
    assert one.words == ("uid 1001: 3 connections, 0 requests, 0 B, held back 1,200 times, 1 connection turned away")
    assert "held" not in other.words


def test_accounts_are_bounded() -> None:
    found = Accounts()
    for number in range(5 * MOST):
        found.arrived(f"address 10.0.{number // 256}.{number % 256}", 1)
    assert len(found.to_json({}, {})) == MOST


def test_what_is_told_is_taken_for_text_and_numbers_only() -> None:
    hostile = {"sender": "certificate CN=\x1b]0;evil\x07" + "x" * 5_000, "connections": "many", "bytes": None}
    (one,) = taken({"shares": [hostile, "none"]})
    assert one.words.isprintable()
    assert len(one.sender) <= 81
    assert (one.connections, one.received) == (0, 0)
    assert len(taken({"shares": [hostile] * 100})) == 8
    assert taken(None) == taken({}) == taken({"shares": 5}) == []
    assert limited({"limited": "a\x1b[2J\nb"}).isprintable()
    assert limited({}) == limited(None) == ""


async def test_the_screen_says_it_only_while_somebody_is_held_back(drive: Open) -> None:
    shares = accounts()
    async with drive(feed=live({**STATUS, "shares": shares, "limited": sentence(shares)})) as d:
        await d.press("tab", "tab", "tab")
        said = " ".join(d.screen.split())
        assert "uid 1001 takes more than its share: it holds 200 of 256 connections" in said
        assert "uid 1001: 200 connections, 0 requests, 0 B, 8 waiting, 37 refused, 1,500 connections ended" in said
        assert "uid 0: 56 connections, 1 request, 3.0 MiB, 1 crowded out" in said
    async with drive(feed=live({**STATUS, "shares": shares, "limited": ""})) as d:
        await d.press("tab", "tab", "tab")
        assert "uid 1001" not in d.screen


def test_info_tells_of_each_sender(receiver: StartReceiver, tmp_path: Path) -> None:
    import grpc

    from tests.receiver.test_process import METHOD, request

    started = receiver()
    with grpc.insecure_channel(started.address) as channel:
        channel.unary_unary(METHOD)(request(1), timeout=10)
    told = started.command("info")
    assert " 1 request, " in told
    assert "uid " in told
