"""The client of the control socket: whom it asks, and what a hostile answer can do to those who asked."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver import answers
from receiver.__main__ import Options, _attend
from receiver.control import ControlClient, ControlError, control_path
from receiver.plain_text import one_line
from receiver.store.database import Database
from receiver.store.retention import Policy
from tests.somebody_else import DATABASE, UID, directory_of, forked, listing, needs_root, python, receiving, start
from tui.clusters import doctor
from tui.headless import _receiver
from tui.receiver_process import Plan, ReceiverLink

STATUS: dict[str, Any] = {
    "ok": True, "pid": 7, "version": "1", "started": 1, "db": "/x/spans.db", "child": False,
    "listeners": [{"name": "local", "address": "127.0.0.1:4317", "tls": False, "error": None}],
    "accepted": 1, "rejected": 0, "refused": 0, "malformed": 0, "broken_off": 0, "requests": 1, "bytes_in": 10,
    "evicted_spans": 0, "evicted_traces": 0, "live_bytes": 10, "cap_bytes": 100, "disk_full": False,
    "message": "", "notice": "", "attached": 1,
    "senders": [{"peer": "p", "service": "s", "instance": "i", "source": "x", "agent": "a", "spans": 1, "last": 1}],
}  # fmt: skip

Says = Callable[[bytes], bytes]


@contextmanager
def answering(path: Path, says: Says) -> Iterator[None]:
    """Somebody who listens on a socket and answers each line with what `says` makes of it."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(16)

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
            for line in lines:
                connection.sendall(says(line))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(10)
        path.unlink()


# --- whom it asks ---------------------------------------------------------------------------------
@needs_root
def test_the_owners_receiver_answers_root() -> None:
    with directory_of(UID) as theirs:
        db = theirs / "spans.db"
        with receiving(db) as address:
            before = listing(theirs, DATABASE)
            client = ControlClient.connect(db)
            assert client.request("status")["listeners"][0]["address"] == address
            client.close()
            assert listing(theirs, DATABASE) == before


@needs_root
def test_with_a_path_that_is_too_long_for_a_socket_too() -> None:
    with directory_of(UID) as theirs:
        long = theirs / ("d" * 90)
        long.mkdir()
        os.chown(long, UID, UID)
        db = long / "spans.db"
        with receiving(db) as address:
            path = control_path(db)
            assert path.parent.name == f"k8s-trace-tui-{UID}"
            assert path.exists()
            client = ControlClient.connect(db)
            assert client.request("status")["listeners"][0]["address"] == address
            client.close()
        path.parent.rmdir()


@needs_root
@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_a_socket_of_somebody_else_is_not_asked(whose: str) -> None:
    """Root's database with another user's socket, and another user's with one of a third."""
    owner = 0 if whose == "ours" else UID
    with directory_of(owner, 0o1777) as folder:
        db = folder / "spans.db"
        Database.create(folder.parent / "spans.db").close()
        os.rename(folder.parent / "spans.db", db)
        os.chown(db, owner, owner)
        asked: list[bytes] = []
        program = (
            "import socket, sys\n"
            "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(5); print('up', flush=True)\n"
            "c, _ = s.accept(); print(len(c.recv(100)), flush=True)\n"
        )
        socket_path = folder / "spans.db.sock"
        with start(*python(program, str(socket_path)), uid=UID + 1, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            os.chmod(socket_path, 0o777)
            with pytest.raises(ControlError, match=r"is not a socket of .* nobody is asked"):
                ControlClient.connect(db)
            # One that looks like the owner's and is not: only the other end tells.
            os.chown(socket_path, owner, owner)
            with pytest.raises(ControlError, match=r"Who listens on .* and is not asked"):
                ControlClient.connect(db)
            assert process.stdout.readline() in ("0\n", ""), "it was asked"
            process.kill()
        assert not asked


@needs_root
@pytest.mark.parametrize("kind", ["link", "file", "directory"])
def test_nor_what_is_no_socket(tmp_path: Path, kind: str) -> None:
    with directory_of(UID) as theirs, answering(tmp_path / "roots.sock", lambda _: b'{"ok": true}\n'):
        db = theirs / "spans.db"
        planted = theirs / "spans.db.sock"
        if kind == "link":
            planted.symlink_to(tmp_path / "roots.sock")
        elif kind == "file":
            planted.write_bytes(b"")
        else:
            planted.mkdir()
        os.chown(planted, UID, UID, follow_symlinks=False)
        with pytest.raises(ControlError, match="is not a socket of"):
            ControlClient.connect(db)


@needs_root
def test_a_directory_in_tmp_that_somebody_else_made_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket of a long path is in a directory whose name everybody knows."""
    with directory_of(0, 0o1777) as shared, directory_of(0) as ours:
        monkeypatch.setattr(tempfile, "tempdir", str(shared))
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        db = ours / ("d" * 90) / "spans.db"
        Database.create(db).close()
        path = control_path(db)
        assert path.parent == shared / "k8s-trace-tui-0"
        path.parent.mkdir()
        with answering(path, lambda _: b'{"ok": true}\n'):
            for one, mode in ((path.parent, 0o777), (path, 0o777)):
                os.chown(one, UID, UID)
                one.chmod(mode)
            with pytest.raises(ControlError, match="nobody is asked"):
                ControlClient.connect(db)


@needs_root
def test_another_user_is_refused_in_a_sentence() -> None:
    with directory_of(UID) as theirs:
        db = theirs / "spans.db"
        with receiving(db):

            def ask() -> str:
                try:
                    ControlClient.connect(db)
                except ControlError as problem:
                    return str(problem)
                return "it answered"

            assert forked(UID + 1, ask) == f"The receiver of {db} belongs to another user: ask as that user, or root."
            assert forked(UID, ask) == "it answered"


# --- what it takes for an answer --------------------------------------------------------------------
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def hostile(draw: st.DrawFn) -> Any:
    """A status with something else in one to three places."""
    said = json.loads(json.dumps(STATUS))
    for _ in range(draw(st.integers(1, 3))):
        where = draw(st.sampled_from(["", "listeners", "senders"]))
        inside = said if not where or not isinstance(said.get(where), list) or not said[where] else said[where][0]
        if not isinstance(inside, dict):
            continue
        inside[draw(st.sampled_from(sorted(inside)) | st.text(max_size=5))] = draw(JSON)
    return said


@given(hostile() | JSON, st.sampled_from(["status", "listen", "attach", "hold", "stop", "unlisten"]))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_answer_is_checked_or_none(said: Any, operation: str) -> None:
    try:
        answer = answers.read(operation, json.dumps(said).encode())
    except answers.NoAnswer:
        return
    if not answer["ok"]:
        assert isinstance(answer.get("error", ""), str)
        return
    _is_harmless(answer)
    if operation == "status":
        assert all(type(answer[key]) is int for key in ("pid", "cap_bytes"))
        for one in answer["listeners"]:
            assert (type(one["name"]), type(one["address"]), type(one["tls"])) == (str, str, bool)
        assert all(type(one.get("spans", 0)) is int for one in answer["senders"])


def _is_harmless(value: Any) -> None:
    if isinstance(value, str):
        assert value.isprintable()
        value.encode()
    elif isinstance(value, dict):
        for key, inside in value.items():
            _is_harmless(key)
            _is_harmless(inside)
    elif isinstance(value, list):
        for inside in value:
            _is_harmless(inside)
    elif value is not None:
        assert abs(value) < 1 << 63


def test_what_a_receiver_says_is_taken_as_it_is() -> None:
    assert answers.read("status", json.dumps(STATUS).encode()) == STATUS


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"ok": true, "a": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"ok": true, "a": [' + b"[],\n" * 100,
        b'{"ok": true, "a": [' + b"[]," * 500_000 + b"1]}",
        b'{"ok": true, "a": ' + b"9" * 100_000 + b"}",
        b'{"ok": true, "a": 1e999}',
        b'{"ok": true, "a": NaN}',
        b"\xff\xfe",
        b"null",
        b"",
    ],
)
def test_what_is_too_much_is_no_answer(line: bytes) -> None:
    with pytest.raises(answers.NoAnswer):
        answers.read("attach", line)


def test_a_text_is_one_line_that_does_nothing_to_a_terminal() -> None:
    said = {**STATUS, "message": "\x1b]52;c;eA==\x07\r\nk8s-trace-tui: all is well\u202e\ud800"}
    told = answers.read("status", json.dumps(said).encode())["message"]
    assert told == r"\x1b]52;c;eA==\x07\r\nk8s-trace-tui: all is well\u202e\ud800"
    hidden = "e" + "\u0301" * 40 + "\u3164\ufe0f\U000e0041"  # what `str.isprintable` lets through
    told = answers.read("status", json.dumps({**STATUS, "message": hidden}).encode())["message"]
    assert told == one_line(hidden)
    assert "\u3164" not in told


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "spans.db"
    Database.create(path).close()
    return path


def test_an_answer_that_never_ends_ends(db: Path) -> None:
    """A byte now and then would go on for ever: the time holds for the whole answer."""
    goes_on = threading.Event()

    def drip(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            for _ in range(600):
                connection.sendall(b" ")
                if goes_on.wait(0.05):
                    return

    server = socket.socket(socket.AF_UNIX)
    server.bind(str(control_path(db)))
    server.listen()
    thread = threading.Thread(target=lambda: drip(server.accept()[0]), daemon=True)
    thread.start()
    client = ControlClient.connect(db, 0.3)
    with pytest.raises(ControlError, match="does not answer"):
        client.request("status")
    assert thread.is_alive(), "it waited for the end"
    with pytest.raises(ControlError, match="went away"):  # what comes late is no answer to the next question
        client.request("status")
    goes_on.set()
    client.close()
    server.close()


def test_an_answer_that_is_too_long_is_not_held(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MOST_BYTES", 1 << 20)
    with answering(control_path(db), lambda _: b"x" * (4 << 20)):
        client = ControlClient.connect(db)
        with pytest.raises(ControlError, match="it is too long"):
            client.request("status")
        assert len(client._rest) < 2 << 20
        client.close()


# --- and what those who asked make of it ------------------------------------------------------------
@given(hostile() | JSON)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_nobody_who_asks_is_brought_down(said: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="k8s-trace-tui-test-") as folder:
        db = Path(folder) / "spans.db"
        Database.create(db).close()
        reply = json.dumps(said).encode() + b"\n"
        with answering(control_path(db), lambda _: reply):
            assert "\n" not in _receiver(db)  # `info`
            findings = doctor.receiver_findings(db)
            for step in doctor.judge(findings, (), ()):
                assert (step.text + step.way_out).isprintable()
            if findings.status is not None:
                doctor._dialable(findings.status)
            link = ReceiverLink(Plan(db, ("127.0.0.1:0",), starts=False))
            for _ in range(2):
                status = link.status()
                assert status is None or isinstance(status["pid"], int)
            assert link.problem.isprintable()
            link.close()
            _stand_behind(db)


def _stand_behind(db: Path) -> None:
    """`receive` beside a running receiver."""
    stop = threading.Event()
    stop.set()
    options = Options((("x", "127.0.0.1:0"),), False, False, None, None, None, Policy())
    client = ControlClient.connect(db)
    with contextlib.suppress(ControlError), contextlib.closing(client):
        _attend(client, options, stop)


def test_a_screen_that_may_not_start_a_receiver_says_who_may(db: Path) -> None:
    started: list[Plan] = []
    link = ReceiverLink(Plan(db, starts=False), spawn=lambda plan: started.append(plan))  # type: ignore[arg-type, return-value]
    assert link.status() is None
    assert link.problem.startswith("No receiver is running")
    assert not started
