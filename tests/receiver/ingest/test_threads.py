"""The threads of requests: none too many, none lost, and no error where the system has no more."""

from __future__ import annotations

import threading

import pytest

from receiver.ingest.threads import Threads


def test_as_many_as_are_needed_and_no_more() -> None:
    threads = Threads(8, "test")
    gate, running = threading.Event(), threading.Semaphore(0)

    def work(number: int) -> int:
        running.release()
        gate.wait(20)
        return number

    futures = [threads.submit(work, number) for number in range(20)]
    for _ in range(8):
        assert running.acquire(timeout=20)
    assert threads.count == 8
    assert not running.acquire(timeout=0.05)
    gate.set()
    assert [future.result(20) for future in futures] == list(range(20))
    for _ in range(100):
        assert threads.submit(work, 1).result(20) == 1
    assert threads.count == 8
    threads.shutdown()


def test_they_end_when_they_are_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receiver.ingest.threads._IDLE_SECONDS", 0.05)
    threads = Threads(8, "test")
    gate = threading.Event()
    futures = [threads.submit(gate.wait, 20) for _ in range(8)]
    gate.set()
    for future in futures:
        future.result(20)
    tick = threading.Event()
    for _ in range(400):
        if threads.count == 4:
            break
        tick.wait(0.05)
    assert threads.count == 4
    assert threads.submit(int, "5").result(20) == 5
    threads.shutdown()


def test_a_system_without_more_threads_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads(50, "test")
    before = threads.count

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    gate = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        futures = [threads.submit(gate.wait, 20) for _ in range(30)]
        assert threads.count == before
    gate.set()
    assert all(future.result(20) for future in futures)
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 // 0).result(20)
    threads.shutdown()
