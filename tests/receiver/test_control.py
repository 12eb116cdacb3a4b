"""The control socket when files, threads or places run out."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from receiver import control
from receiver.control import ControlClient, ControlError, ControlServer, control_path
from tests.eventually import eventually


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ControlServer]:
    found = ControlServer(control_path(tmp_path / "x.db"), lambda operation, arguments: {"said": operation})
    found.start()
    yield found
    found.stop()


def asks(tmp_path: Path) -> str:
    with closing(ControlClient.connect(tmp_path / "x.db")) as client:
        return str(client.request("say")["said"])


class Failing:
    """A listening socket whose `accept` fails some times."""

    def __init__(self, real: socket.socket, *errors: int) -> None:
        self.real, self.errors = real, list(errors)

    def accept(self) -> Any:
        if self.errors:
            raise OSError(self.errors.pop(0), "made up")
        return self.real.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def test_it_goes_on_after_errors(tmp_path: Path) -> None:
    found = ControlServer(control_path(tmp_path / "x.db"), lambda operation, arguments: {"said": operation})
    real = socket.socket(socket.AF_UNIX)
    real.bind(str(found.path))
    real.listen()
    failing: Any = Failing(real, errno.EMFILE, errno.ENFILE, errno.ECONNABORTED, errno.ENOMEM, errno.EPROTO)
    found._socket = failing
    thread = threading.Thread(target=found._accept, args=(failing,), daemon=True)
    thread.start()
    eventually(lambda: not failing.errors)
    assert asks(tmp_path) == "say"
    found.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_what_nobody_expected_sends_one_client_away_and_later_ones_are_served(
    server: ControlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [IndexError("a defect")]

    def meet(connection: socket.socket) -> None:
        if errors:
            raise errors.pop()
        real(connection)

    real = server._meet
    monkeypatch.setattr(server, "_meet", meet)
    with pytest.raises(ControlError):
        asks(tmp_path)
    assert not errors
    assert asks(tmp_path) == "say"


def test_without_a_file_left_clients_hear_so_and_later_ones_are_served(server: ControlServer, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as held:
        clients = [held.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(3)]
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 8, hard))
            with suppress(OSError):
                while True:
                    held.callback(os.close, os.dup(0))
            for client in clients:
                client.settimeout(20)
                client.connect(str(server.path))
                assert client.recv(1) == b""
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert asks(tmp_path) == "say"


def test_without_a_thread_left_a_client_is_sent_away_and_later_ones_are_served(
    server: ControlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ControlError):
            asks(tmp_path)
    assert asks(tmp_path) == "say"
    assert len(server._clients) <= 1


def test_clients_that_ask_nothing_do_not_keep_others_out(server: ControlServer, tmp_path: Path) -> None:
    with ExitStack() as held:
        attached = held.enter_context(closing(ControlClient.connect(tmp_path / "x.db")))
        attached.request("attach")
        holding = held.enter_context(closing(ControlClient.connect(tmp_path / "x.db")))
        holding.request("hold", traces=[f"{1:032x}"])
        for _ in range(3 * control._CLIENTS):
            mute = held.enter_context(socket.socket(socket.AF_UNIX))
            mute.settimeout(None)
            mute.connect(str(server.path))
        assert asks(tmp_path) == "say"
        assert attached.request("say")["said"] == holding.request("say")["said"] == "say"
        assert len(server._clients) <= control._CLIENTS
        assert (server.attached, server.holds()) == (1, {1})


def test_who_finds_the_queue_full_waits_for_a_place_in_it(tmp_path: Path) -> None:
    path = control_path(tmp_path / "x.db")
    with socket.socket(socket.AF_UNIX) as listener, ExitStack() as held:
        listener.bind(str(path))
        listener.listen(1)
        with suppress(BlockingIOError):
            while True:
                one = held.enter_context(socket.socket(socket.AF_UNIX))
                one.settimeout(0.5)
                one.connect(str(path))
        accepts = threading.Timer(0.3, lambda: [held.enter_context(listener.accept()[0]) for _ in range(3)])
        accepts.start()
        ControlClient.connect(tmp_path / "x.db", 20).close()
        accepts.join(20)


def test_a_client_that_never_asks_is_sent_away(
    server: ControlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_FIRST_LINE_SECONDS", 0.2)
    with closing(ControlClient.connect(tmp_path / "x.db")) as asked:
        asked.request("say")
        with socket.socket(socket.AF_UNIX) as mute:
            mute.settimeout(20)
            mute.connect(str(server.path))
            assert mute.recv(1) == b""
        assert asked.request("say")["said"] == "say", "who asked once may rest"
    eventually(lambda: not server._clients)
