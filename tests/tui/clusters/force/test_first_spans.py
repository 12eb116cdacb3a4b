"""The first spans to a name: lost by an exporter whose DNS does not answer, and what `trace` does about it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import StartReceiver
from tests.doubles.tracing_api import ADMIN, PLAIN
from tests.tui.clusters.force.conftest import MakeApi
from tests.tui.clusters.force.test_collected import asked, collected, known_of
from tui.clusters.force.collected import How, last_chunk
from tui.clusters.force.credentials import Upstream
from tui.clusters.force.first_spans import may_be_lost, wait_for_first
from tui.clusters.force.preconditions import Preconditions

NAMED = ("localhost:4317",)


def test_a_request_of_ours_is_lost_in_place_of_the_commands(api_double: MakeApi, receiver: StartReceiver) -> None:
    live = receiver()
    double = api_double(endpoint=live.address, lost=1)
    known = replace(known_of(double, ADMIN), endpoints=NAMED)
    said: list[str] = []
    upstream = Upstream("lab", str(double.kubeconfig(ADMIN)))
    assert wait_for_first(live.db, known, upstream, said.append, again=0.5)
    assert "localhost:4317" in said[0]
    assert "--endpoint 127.0.0.1:4317" in said[0]
    ours = [headers["user-agent"] for _, _, headers, _ in double.requests if "traceparent" in headers]
    assert len(ours) > 1
    assert all(one.startswith("k8s-trace-tui") for one in ours), "the list takes them for noise"
    since = last_chunk(live.db)
    (found,) = collected(live.db, since, asked(double, ADMIN, ("GET", "/api/v1/nodes")), known, 10.0)
    assert found.how is How.FORCED
    said.clear()
    assert wait_for_first(live.db, known, upstream, said.append), "it has sent: nothing more is asked"
    assert said == []


def test_without_it_the_request_is_lost(api_double: MakeApi, receiver: StartReceiver) -> None:
    """That the double loses what a real exporter does."""
    live = receiver()
    double = api_double(endpoint=live.address, lost=1)
    seen = asked(double, ADMIN, ("GET", "/api/v1/nodes"))
    (found,) = collected(live.db, 0, seen, known_of(double, ADMIN), 1.0)
    assert found.how is How.MISSING


def test_etcd_is_waited_for_where_it_has_a_name_to_ask_for(api_double: MakeApi, receiver: StartReceiver) -> None:
    live = receiver()
    double = api_double(endpoint=live.address, lost=1)
    known = replace(known_of(double, ADMIN), etcd_endpoints=NAMED)
    assert wait_for_first(live.db, known, Upstream("lab", str(double.kubeconfig(ADMIN))), print, again=0.5)
    seen = asked(double, ADMIN, ("GET", "/api/v1/nodes"))
    (found,) = collected(live.db, last_chunk(live.db), seen, known, 10.0)
    assert (found.how, found.lacking) == (How.FORCED, "")


def test_when_nothing_comes_at_all_it_says_so_and_ends(api_double: MakeApi, receiver: StartReceiver) -> None:
    live = receiver()
    double = api_double()  # exports nothing
    known = replace(known_of(double, ADMIN), endpoints=NAMED)
    said: list[str] = []
    upstream = Upstream("lab", str(double.kubeconfig(ADMIN)))
    assert not wait_for_first(live.db, known, upstream, said.append, seconds=0.5)
    assert "does not get here: see k8s-trace-tui doctor" in said[-1]
    said.clear()
    assert not wait_for_first(live.db, known, upstream, said.append, stopped=lambda: True)
    assert len(said) == 1, "nobody waits any more"


@pytest.mark.parametrize(
    ("token", "endpoints", "may"),
    [(ADMIN, NAMED, True), (ADMIN, ("127.0.0.1:4317",), False), (ADMIN, (), False), (PLAIN, NAMED, False)],
)
def test_it_is_for_names_and_for_who_may_bring_a_trace(
    api_double: MakeApi, receiver: StartReceiver, token: str, endpoints: tuple[str, ...], may: bool
) -> None:
    known = replace(known_of(api_double(), token), endpoints=endpoints)
    assert bool(may_be_lost(receiver().db, known)) is may


def test_a_span_from_before_the_start_does_not_count(api_double: MakeApi, receiver: StartReceiver) -> None:
    live = receiver()
    double = api_double(endpoint=live.address, etcd_traced=False)
    known = replace(known_of(double, ADMIN), endpoints=NAMED)
    collected(live.db, 0, asked(double, ADMIN, ("GET", "/api/v1/nodes")), known, 10.0)
    assert may_be_lost(live.db, known) == ""
    assert may_be_lost(live.db, replace(known, started=time.time_ns())) == NAMED[0]


def test_a_database_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert may_be_lost(tmp_path / "none.db", Preconditions("lab", endpoints=NAMED)) == ""
