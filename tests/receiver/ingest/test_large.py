"""The process that decodes large requests: its answers, and what is said of its end."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from receiver.ingest.decode import decode
from receiver.ingest.demo import activity, export_request
from receiver.ingest.large import Gone, LargeRequests
from tests.eventually import eventually


@pytest.fixture
def large() -> Iterator[LargeRequests]:
    requests = LargeRequests()
    yield requests
    requests.close()


@pytest.fixture(scope="module")
def body() -> bytes:
    finished = [span for _, (_, spans) in zip(range(40), activity(3, 50.0), strict=False) for span in spans]
    return export_request(finished).SerializeToString()


def ask(large: LargeRequests, body: bytes) -> object:
    return large.decode(body, source="local", peer="127.0.0.1:1", received=7, sender="uid 0")


def test_it_answers_as_the_receiver_itself_would(large: LargeRequests, body: bytes) -> None:
    there = large.decode(body, source="local", peer="127.0.0.1:1", received=7, sender="uid 0")
    here = decode(body, source="local", peer="127.0.0.1:1", received=7, sender="uid 0")
    assert there.chunk is not None
    assert here.chunk is not None
    assert there.chunk.spans.tobytes() == here.chunk.spans.tobytes()
    assert there.chunk.facts.tobytes() == here.chunk.facts.tobytes()
    assert (there.chunk.strings, there.chunk.resources) == (here.chunk.strings, here.chunk.resources)
    assert (there.chunk.body, there.chunk.sender) == (here.chunk.body, "uid 0")


def test_a_request_that_ends_it_is_told_of_and_the_next_is_decoded(
    large: LargeRequests, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    ask(large, body)
    assert large.pid is not None
    os.kill(large.pid, signal.SIGKILL)
    with pytest.raises(Gone):
        ask(large, body)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert ask(large, body)


def test_the_end_of_the_receiver_is_no_fault_of_a_request(
    large: LargeRequests, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    ask(large, body)
    assert large.pid is not None
    os.kill(large.pid, signal.SIGSTOP)  # it is in the middle of a request when the receiver ends
    outcome: list[str] = []

    def decode_one() -> None:
        try:
            ask(large, body)
        except Gone:
            outcome.append("gone")

    thread = threading.Thread(target=decode_one)
    thread.start()
    eventually(large._lock.locked)
    large.close()
    thread.join(10)
    assert outcome == ["gone"]
    assert not caplog.records
