"""The thread that writes lives on after what nobody expected: without it no sender would ever hear anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from receiver.store.chunk import Chunk
from receiver.store.database import Database, DatabaseMoved
from receiver.store.writer import Full, Writer
from tests.eventually import eventually
from tests.receiver.store.test_index import Plain, chunk


def made(number: int) -> Chunk:
    return chunk(0, [Plain(number, 1, 0, 5, 9, request=True)])


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Writer]:
    monkeypatch.setattr("receiver.store.writer._PROBE_SECONDS", 0.01)
    found = Writer(Database.memory())
    found.start()
    yield found
    found.stop()


def failing_once(real: Callable[..., Any], error: Exception) -> tuple[Callable[..., Any], list[Exception]]:
    errors = [error]

    def instead(*arguments: Any, **keywords: Any) -> Any:
        if errors:
            raise errors.pop()
        return real(*arguments, **keywords)

    return instead, errors


def test_a_look_that_fails_while_nothing_arrives_does_not_end_it(
    writer: Writer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    instead, errors = failing_once(writer._database.lost, IndexError("a defect"))
    monkeypatch.setattr(writer._database, "lost", instead)
    eventually(lambda: not errors)
    assert writer.submit(made(1)).wait(20)
    eventually(lambda: "a defect" in caplog.text)


def test_what_fails_around_a_commit_is_said_to_its_senders_and_does_not_end_it(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(chunks: Sequence[Chunk]) -> list[int]:
        raise DatabaseMoved("It is gone.")

    monkeypatch.setattr("receiver.store.writer._PROBE_SECONDS", 60.0)
    real = writer._database.append
    monkeypatch.setattr(writer._database, "append", moved)
    monkeypatch.setattr(writer, "_gone", failing_once(lambda: False, IndexError("a defect"))[0])
    with pytest.raises(Full, match="a defect in this program"):
        writer.submit(made(1)).wait(20)
    monkeypatch.setattr(writer._database, "append", real)
    assert writer.submit(made(2)).wait(20)
    assert writer.problem == ""
