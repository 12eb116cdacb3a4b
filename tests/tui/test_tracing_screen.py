"""What is traced on demand from the screens, by keys: a real proxy and receiver, and an API server that follows the
rules of the releases and exports real OTLP."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.traces.model import Request
from receiver.traces.semantics import LONG_SUBRESOURCES
from tests.conftest import REPOSITORY, StartReceiver
from tests.doubles.tracing_api import ADMIN, INSTANCE, PLAIN, TracingApi
from tests.tui.driver import Driven
from tests.tui.still_feed import StillFeed
from tests.tui.test_tracing import CLIENT
from tui.app import TraceApp
from tui.clusters.force.asking import NotAsked, again, checked, elsewhere
from tui.clusters.force.child import Child, refusal, words
from tui.clusters.force.groups import recall
from tui.config import Settings
from tui.feed import Feed
from tui.glyphs import UNICODE
from tui.screens.choice import ChoiceScreen
from tui.traced_runs import Run, Stage

Screens = Callable[..., AbstractAsyncContextManager["Traced"]]


class Traced(Driven):
    """An app under test beside the API server that it asks."""

    api: TracingApi

    async def enter(self, line: str) -> None:
        """A command, as people write it."""
        await self.press("colon")
        self.app.screen.prompt.line.value = line  # type: ignore[attr-defined]
        await self.press("enter")

    @property
    def run(self) -> Run:
        found = self.app.traced.runs.run
        assert found is not None
        return found

    async def ended(self) -> Run:
        await self.until(lambda: self.app.traced.runs.run is not None and self.run.stage is Stage.ENDED)
        await self.settle()
        return self.run

    async def listed_are(self, number: int) -> None:
        await self.until(lambda: len(self.feed.snapshot.selection.slots) == number)
        await self.settle()

    def asked(self) -> list[str]:
        """Targets of the requests that went through the proxy."""
        return [target for _, target, headers, _ in self.api.requests if "traceparent" in headers]


@pytest.fixture
def screens(tmp_path: Path, receiver: StartReceiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Screens]:
    started: list[TracingApi] = []
    (tmp_path / "run").mkdir(mode=0o700)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    (tmp_path / "client.py").write_text(CLIENT)

    @asynccontextmanager
    async def start(
        token: str = ADMIN,
        *,
        size: tuple[int, int] = (150, 40),
        seconds: float = 10.0,
        settings: Any = None,
        **api: Any,
    ) -> AsyncIterator[Traced]:
        live = receiver()
        double = TracingApi(tmp_path / "api", **{"endpoint": live.address, **api})
        double.start()
        started.append(double)
        monkeypatch.setenv("KUBECONFIG", str(double.kubeconfig(token)))
        feed = Feed(live.db)
        app = TraceApp(feed, settings or Settings(utc=True), title="lab", glyphs=UNICODE)
        app.traced.runs._seconds = seconds
        async with app.run_test(size=size, notifications=True) as pilot:
            driven = Traced(app, pilot, cast(StillFeed, feed))
            driven.api = double
            await driven.until(lambda: feed.snapshot.loading is None)
            await driven.settle()
            try:
                yield driven
            finally:
                app.traced.runs.close()
        assert list((tmp_path / "run").iterdir()) == [], "the kubeconfig and the sockets of a run are gone"

    yield start
    for api in started:
        api.stop()


def client(tmp_path: Path, *asks: str) -> str:
    return " ".join([sys.executable, str(tmp_path / "client.py"), *asks])


def point_to(server: str) -> None:
    """Turns the kubeconfig to another API server."""
    config = Path(os.environ["KUBECONFIG"])
    document = json.loads(config.read_text())
    document["clusters"][0]["cluster"]["server"] = server
    config.write_text(json.dumps(document))


# --- by keys ---------------------------------------------------------------------------------------------
async def test_a_get_and_the_same_again_by_a_key(screens: Screens) -> None:
    async with screens(settings=Settings(utc=True, read_only=True), instances=(INSTANCE,)) as d:
        await d.enter("trace get /api/v1/nodes?limit=500")
        run = await d.ended()
        assert (run.code, run.context, run.problem, run.reasons) == (200, "lab", "", ())
        assert d.toasts[0].startswith("Tracing get /api/v1/nodes with the current context")
        await d.listed_are(1)
        assert "get /api/v1/nodes (lab)  all arrived" in d.title
        assert d.toasts[-1].startswith("get /api/v1/nodes: 1 request, 1 traced,")
        assert "Nothing remarkable" in d.toasts[-1]
        assert d.rows[0].request is not None
        assert d.rows[0].request.user_agent.startswith("trace-get"), "not hidden as a request of our own"

        await d.press("r")
        await d.until(lambda: d.run.number == 2)
        await d.ended()
        assert d.asked() == ["/api/v1/nodes?limit=500"] * 2, "the very request, its query too"
        await d.listed_are(1)
        await d.press("enter")
        assert d.place == "trace"
        await d.press("r")
        await d.until(lambda: d.run.number == 3)
        await d.ended()
        assert d.place == "requests", "its group is what is seen"

        await d.press("escape")
        await d.listed_are(3)
        d.api.instances = ("apiserver-of-another-cluster",)
        await d.press("r")
        await d.until(lambda: d.run.number == 4)
        assert f"was served by {INSTANCE}" in (await d.ended()).problem
        assert len(d.asked()) == 3
        await d.enter("trace get /api/v1/nodes")
        await d.until(lambda: d.run.number == 5)
        await d.ended()
        await d.press("o")
        assert d.place == "traced"
        assert "answered with 200" in d.screen
        assert "list nodes" in d.screen


async def test_a_command_runs_without_a_terminal_and_says_what_it_said(screens: Screens, tmp_path: Path) -> None:
    async with screens() as d:
        await d.enter(f"trace {client(tmp_path, 'GET:/api/v1/pods', 'GET:/api/v1/pods/missing', 'GET:/api/v1/nodes')}")
        await d.until(lambda: d.place == "traced")
        run = await d.ended()
        assert run.code == 0
        assert run.output is not None
        assert run.output.lines == ("200", "404", "200")
        assert "Output" in d.screen
        assert "3 requests, 3 traced" in d.screen
        assert "404" in next(line for line in d.lines if "missing" in line and "get pods" in line)
        await d.press("escape")
        await d.listed_are(3)
        assert "all arrived" in d.title
        (group,) = recall(cast(Path, d.feed.path))
        assert group.traces == tuple(told.found.trace_id for told in run.requests)

        await d.press("escape")
        await d.enter("commands")
        await d.until(lambda: isinstance(d.app.screen, ChoiceScreen))
        await d.press("1")
        await d.until(lambda: f"{group.words}, " in d.title)
        assert d.count == 3


async def test_whoever_went_on_is_not_called_back_and_a_filter_is_kept(screens: Screens, tmp_path: Path) -> None:
    async with screens(seconds=600.0, delay=0.2, per_million=1_000_000) as d:
        d.app.requests.set_filter("verb=create")
        d.app.freeze(True)
        await d.enter("trace get /api/v1/nodes")
        await d.ended()
        await d.listed_are(1)
        assert "verb=create" not in d.title, "all of the group is seen"
        await d.press("escape")
        assert "verb=create" in d.title, "and then what was filtered before"
        assert d.count == 0

        go_on = tmp_path / "go on"
        await d.enter(f"trace sh -c 'until test -e \"{go_on}\"; do :; done; {client(tmp_path, 'GET:/api/v1/pods')}'")
        await d.press("question_mark")
        go_on.touch()
        await d.ended()
        assert d.place == "help"
        assert "sh: 1 request, 1 traced" in d.toasts[-1]
        assert "(lab)" not in d.title


async def test_an_interrupt_ends_the_command_and_tells_its_requests(screens: Screens, tmp_path: Path) -> None:
    script = tmp_path / "endless.sh"
    script.write_text(f"{client(tmp_path, 'GET:/api/v1/nodes')}\ntest -t 0 || echo no terminal\nexec sleep 600\n")
    async with screens() as d:
        await d.enter(f"trace sh {script}")
        await d.until(lambda: d.run.total == 1)
        await d.until(lambda: "running, 1 request (x stops it)" in d.title)
        await d.enter("trace get /api/v1/nodes")
        assert d.toasts[-1] == "sh is still running: x in Requests stops it."
        await d.press("x")
        run = await d.ended()
        assert run.code == 130
        assert run.output is not None
        assert run.output.lines == ("200", "no terminal")
        assert run.summary.startswith("sh: 1 request, 1 traced")


async def test_a_get_that_is_not_answered_is_stopped(screens: Screens) -> None:
    async with screens(seconds=0.1) as d:
        await d.enter("trace get /api/v1/pods/slow")
        await d.until(lambda: bool(d.asked()))
        await d.press("x")
        run = await d.ended()
        d.api.slow.set()
        assert run.answer is not None
        assert (run.answer.code, run.answer.message) == (0, "The answer did not come to its end (it was stopped).")
        assert run.reasons == ("It did not come through: The command went away before the answer had ended.",)


async def test_who_does_not_answer_is_not_waited_for(screens: Screens) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
        async with screens() as d:
            point_to(f"https://127.0.0.1:{silent.getsockname()[1]}")
            await d.enter("trace kubectl get pods")
            await d.until(lambda: bool(d.run.context))
            assert d.run.stage is Stage.PREPARING
            await d.press("x")
            assert d.run.stage is Stage.ENDED
            assert d.run.problem == "kubectl get pods was stopped before it was begun."
            point_to(d.api.url)
            await d.enter("trace get /api/v1/nodes")
            assert (await d.ended()).code == 200, "the next need not wait for it either"


async def test_it_waits_for_what_comes_late_and_stops_when_told(screens: Screens) -> None:
    async with screens(seconds=600.0, delay=3600.0) as d:
        await d.enter("trace get /api/v1/nodes")
        await d.until(lambda: d.run.stage is Stage.WAITING)
        await d.settle()
        assert "0 of 1 arrived, waiting for spans" in d.title
        assert "No trace of it has come yet" in d.screen
        await d.press("x")
        run = await d.ended()
        assert run.reasons
        assert "No span of this API server came" in run.reasons[0]
        assert "0 of 1 arrived (o says why)" in d.title
        await d.press("escape")
        assert "(lab)" not in d.title


@pytest.mark.parametrize(
    ("token", "options", "words"),
    [
        (PLAIN, {"seconds": 0.1}, "so the API server does not take its trace: use /etc/kubernetes/super-admin.conf"),
        (ADMIN, {"version": "v1.32.4", "seconds": 0.1}, "none before 1.33 takes a caller's trace"),
        (ADMIN, {"configured": False, "etcd_traced": False, "seconds": 0.1}, "arm it once (one restart)"),
        (PLAIN, {"per_million": 1_000_000}, "depends on the rate"),
        (ADMIN, {"etcd_traced": False}, "sampling arm --component etcd"),
        (ADMIN, {"answers": {"/version": 503}}, "503"),
        ("a token of nobody", {}, "lab does not know us"),
    ],
)
async def test_what_stands_in_the_way_is_said_with_the_way_out(
    screens: Screens, token: str, options: dict[str, Any], words: str
) -> None:
    async with screens(token, **options) as d:
        await d.enter("trace get /api/v1/nodes")
        await d.ended()
        assert any(words in one for one in d.toasts), d.toasts
        for secret in (ADMIN, PLAIN, token):
            assert secret not in d.screen


async def test_what_a_row_may_not_be_repeated(screens: Screens, tmp_path: Path) -> None:
    async with screens(per_million=1_000_000) as d:
        asks = ("POST:/api/v1/namespaces/shop/pods", "GET:/api/v1/namespaces/shop/pods/cart/log")
        await d.enter(f"trace {client(tmp_path, *asks)}")
        await d.ended()
        await d.press("escape")
        await d.listed_are(2)
        before, said = len(d.asked()), []
        for _ in d.rows:
            await d.press("r")
            said.append(d.toasts[-1])
            await d.press("down")
        assert said == [
            "Only a get or list is repeated, not this get: a log may not end, and says nothing more about the API"
            " server the second time.",
            "Only a get or list is repeated: this create may change something.",
        ]
        assert len(d.asked()) == before
        assert d.run.number == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("trace", "Write get /api/v1/nodes"),
        ("trace get nodes", "get takes a path"),
        ("trace get /api/v1/pods?watch=1", "a watch lasts as long as its client likes"),
        ("trace kubectl delete pod x", "--read-only lets only kubectl's reading sub-commands through"),
        ("trace kubectl -n get delete pod x", "--read-only lets only"),
        ("trace vi x", "wants a terminal"),
        ("trace kubectl get pods | wc", "needs a shell"),
        ("trace echo 'x", "close the quote"),
        ("commands", "None was traced here"),
    ],
)
async def test_what_is_refused_in_one_sentence(screens: Screens, line: str, words: str) -> None:
    async with screens(settings=Settings(read_only=True)) as d:
        await d.enter(line)
        await d.until(lambda: bool(d.toasts))
        assert words in d.toasts[-1]
        assert d.app.traced.runs.run is None


async def test_a_recording_has_nobody_to_ask() -> None:
    feed = StillFeed()
    app = TraceApp(feed, Settings(utc=True), glyphs=UNICODE, no_tracing="A recording has nobody to ask.")
    async with app.run_test(size=(120, 30), notifications=True) as pilot:
        d = Driven(app, pilot, feed)
        await d.until(lambda: feed.snapshot.loading is None)
        await d.settle()
        await d.press("r")
        assert d.toasts[-1] == "A recording has nobody to ask."
        await d.command("trace get /api/v1/nodes")
        assert d.toasts[-1] == "A recording has nobody to ask."
        # paths that were read here are offered all the same, for who writes a command elsewhere
        app.traced.look_ahead()
        await d.until(lambda: bool(app.commands.complete("trace get /")))
        offered = app.commands.complete("trace get /api/")
        assert all(one.startswith("trace get /api/") for one in offered)
        told = app.commands.describe("trace get /")
        assert offered[0].rpartition(" ")[2] in told
        await d.press("question_mark")
        assert "requests.repeat" in d.screen


# --- what is asked again -----------------------------------------------------------------------------------
def request(verb: str = "list", path: str = "/api/v1/pods", subresource: str = "") -> Request:
    return Request(verb, "", "v1", "pods", subresource, "", "", "kubectl", 200, "", path)


@pytest.mark.parametrize(
    ("attributes", "target", "remark"),
    [
        ({"http.method": "GET", "http.target": "/api/v1/pods?limit=5"}, "/api/v1/pods?limit=5", ""),
        (
            {"http.request.method": "GET", "url.path": "/api/v1/pods", "url.query": "limit=5"},
            "/api/v1/pods?limit=5",
            "",
        ),
        ({"http.request.method": "GET", "url.path": "/api/v1/pods"}, "/api/v1/pods", "does not tell the query"),
        ({"http.request.method": "GET", "url.path": "/a b/%"}, "/a%20b/%25", "does not tell the query"),
        ({"http.request.method": "GET"}, "/api/v1/pods", "does not tell the query"),
        ({"http.target": "https://x/api/v1/pods?a=b"}, "/api/v1/pods?a=b", ""),
        ({"http.target": "/api/v1/pods?limit=5&continue=abc"}, "/api/v1/pods?limit=5&continue=abc", "forgotten"),
    ],
)
def test_the_url_comes_from_the_span(attributes: dict[str, Any], target: str, remark: str) -> None:
    ask = again("GET /api/v1/pods", attributes, request())
    assert ask.target == target
    assert remark in ask.remark
    assert bool(remark) is bool(ask.remark)


@pytest.mark.parametrize(
    "attributes",
    [
        {"http.request.method": "HEAD", "http.target": "/api/v1/pods"},
        {"http.target": "/api/v1/pods?watch=1"},
        {"http.target": "/api/v1/watch/pods"},
        {"http.target": "/api/v1/pods\r\nHost: x"},
        {"http.target": "/api/v1/../v1/pods"},
        {"http.target": "/apis/x.io/v1/things/a/console"},
        {"http.target": "/" + "a" * 20_000},
    ],
)
def test_what_is_not_a_get_of_an_object_or_list_is_not_repeated(attributes: dict[str, Any]) -> None:
    with pytest.raises(NotAsked) as said:
        again("GET", attributes, request())
    assert "\n" not in str(said.value)


@given(
    st.sampled_from(LONG_SUBRESOURCES),
    st.sampled_from(("", "?watch=false", "?follow=false", "/", "/deeper/path")),
    st.sampled_from(("pods", "services", "nodes")),
    st.booleans(),
)
def test_no_spelling_opens_a_connection(subresource: str, more: str, resource: str, encoded: bool) -> None:
    name = "".join(f"%{ord(character):02x}" for character in subresource) if encoded else subresource
    for target in (f"/api/v1/namespaces/shop/{resource}/cart/{name}{more}", f"/api/v1/{resource}/cart//{name}{more}"):
        with pytest.raises(NotAsked):
            checked(target)


def test_a_row_of_another_cluster_is_known_by_its_api_server() -> None:
    assert elsewhere("apiserver-b", frozenset(("apiserver-a",)), "lab").startswith("This request was served by")
    assert not elsewhere("apiserver-a", frozenset(("apiserver-a",)), "lab")
    assert not elsewhere("apiserver-b", frozenset(), "lab"), "nothing is known of it"
    assert not elsewhere("host-7", frozenset(("apiserver-a",)), "lab"), "no API server names itself so"


# --- commands ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "refused", "read_only_too"),
    [
        ("kubectl get pods -A", False, False),
        ("kubectl rollout status deploy/x", False, False),
        ("kubectl apply -f x", False, True),
        ("/tmp/kubectl get pods", False, True),
        ("rm -rf x", False, True),
        ("kubectl exec -it x -- sh", True, True),
        ("kubectl exec x -- ls -it", False, True),
        ("kubectl edit pod x", True, True),
        ("bash", True, True),
        ("bash -c true", False, True),
    ],
)
def test_which_commands_are_run(text: str, refused: bool, read_only_too: bool) -> None:
    assert bool(refusal(words(text))) is refused
    assert bool(refusal(words(text), read_only=True)) is read_only_too


def test_output_is_bounded_and_printable() -> None:
    script = (
        r"import sys; w = sys.stdout.buffer.write; w(b'\x1b[31mred\x1b[0m\tx\x07\n10%\r100%\n' + b'a' * 50 + b'\n');"
        r"[w(b'%07d\n' % n) for n in range(300_000)]; w(b'the end')"
    )
    child = Child([sys.executable, "-c", script], dict(os.environ))
    assert child.wait(60.0) == 0
    output = child.output()
    assert output.lines[:2] == ("red     x?", "100%")
    assert output.lines[-1] == "the end"
    assert output.left_out > 1 << 20
    assert len(output.lines) <= 2_001
    assert sum(map(len, output.lines)) < 300 << 10
