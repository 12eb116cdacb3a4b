"""`python -m tests.pictures`: the pictures in docs/, exported by the program itself from demo input."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
import time
from pathlib import Path

from receiver.ingest.recordings import take
from receiver.store.database import Database
from tests.demo_recording import write_demo
from tui.app import TraceApp
from tui.config import Settings
from tui.feed import Feed
from tui.glyphs import UNICODE

DOCS = Path(__file__).resolve().parent.parent / "docs"
SIZE = (150, 40)


def main() -> None:
    """Writes docs/*.svg."""
    os.environ.update(TERM="xterm-256color", COLORTERM="truecolor", TZ="UTC")
    os.environ.pop("NO_COLOR", None)
    time.tzset()
    database = Database.memory()
    with tempfile.TemporaryDirectory() as folder:
        write_demo(Path(folder) / "demo.jsonl", seconds=40)
        take(Path(folder) / "demo.jsonl", database, print, arrived_now=False)
    asyncio.run(photograph(database))


async def photograph(database: Database) -> None:
    """The list with what went wrong, and the trace of a webhook that timed out."""
    app = TraceApp(Feed(database, live=False), Settings(), title="cp-1", glyphs=UNICODE)
    async with app.run_test(size=SIZE) as pilot:
        while app.feed.snapshot.loading is not None:
            await pilot.pause(0.1)
        app.run_command("sort duration")
        app.run_command("filter verb=create")
        await pilot.pause(1.0)
        save(app, "requests")
        app.run_command("filter slow-one")
        await pilot.pause(1.0)
        if not app.requests.visible_ids():
            app.run_command("filter create pods label-injector")
            await pilot.pause(1.0)
        await pilot.press("enter")
        await pilot.pause(1.0)
        await pilot.press("down", "down", "down")
        await pilot.pause(0.5)
        save(app, "trace")


def save(app: TraceApp, name: str) -> None:
    """The screen as SVG, without the fonts that Rich would have a reader fetch from elsewhere."""
    text = app.export_screenshot(title="k8s-trace-tui")
    text = re.sub(r"@font-face \{.*?\}\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: Fira Code", "font-family: ui-monospace, Menlo, Consolas, DejaVu Sans Mono", text)
    text = re.sub(r"terminal-\d+", "terminal", text)
    DOCS.mkdir(exist_ok=True)
    (DOCS / f"{name}.svg").write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")


if __name__ == "__main__":
    main()
