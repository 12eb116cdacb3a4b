"""Whose spans a receiver has evicted, in words."""

from __future__ import annotations

from typing import Any, Final

from tui.terminal_text import count, counted, printable

_MOST: Final = 3


def whose(status: dict[str, Any]) -> str:
    """Who lost most, and how much: `uid 0 at local 1,200 spans, ...`; "" where nobody lost anything, or the receiver
    is of before it counted that."""
    found = status.get("evicted_by")
    entries = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    said = [_entry(one) for one in entries[:_MOST]]
    if len(entries) > _MOST:
        spans = sum(_spans(one) for one in entries[_MOST:])
        said.append(f"{count(len(entries) - _MOST)} others {counted(spans, 'span')}")
    return ", ".join(said)


def _entry(entry: dict[str, Any]) -> str:
    sender, source = str(entry.get("sender") or ""), str(entry.get("source") or "")
    name = printable(sender, 60) or "others"
    if source:
        name = f"{printable(sender, 60)} at {printable(source, 30)}" if sender else printable(source, 60)
    return f"{name} {counted(_spans(entry), 'span')}"


def _spans(entry: dict[str, Any]) -> int:
    spans = entry.get("spans")
    return spans if isinstance(spans, int) else 0
