"""What stands in the way of a forced trace, asked of a real HTTPS server that follows the releases' rules."""

from __future__ import annotations

import dataclasses

import pytest

from tests.doubles.tracing_api import ADMIN, MONITOR, PLAIN, TracingApi
from tests.tui.clusters.force.conftest import MakeApi
from tui.clusters.doctor import Mark, ReceiverFindings
from tui.clusters.force.preconditions import Caller, Preconditions, Privilege, _of_states, find, judge
from tui.clusters.model import Mode, Part, State
from tui.clusters.reach.api import Api


def found_of(double: TracingApi, token: str) -> Preconditions:
    api = Api("lab", double.kubeconfig(token))
    try:
        return find(api)
    finally:
        api.close()


@pytest.mark.parametrize(
    ("version", "token", "privilege"),
    [
        ("v1.36.2", ADMIN, Privilege.FORCED),
        ("v1.33.0+k3s1", MONITOR, Privilege.FORCED),
        ("v1.36.2", PLAIN, Privilege.TAGGED),
        ("v1.32.9", ADMIN, Privilege.TAGGED),
        ("v1.27.1", ADMIN, Privilege.TAGGED),
        ("v1.25.0", ADMIN, Privilege.TAGGED),
    ],
)
def test_release_and_caller_decide(api_double: MakeApi, version: str, token: str, privilege: Privilege) -> None:
    found = found_of(api_double(version=version), token)
    assert found.privilege is privilege
    assert found.version == version
    assert (found.caller is None) == version.startswith("v1.25"), "no release before 1.26 tells who we are"
    assert found.configured is True
    assert found.etcd_traced is True


def test_each_obstacle_is_a_step_with_the_way_out(api_double: MakeApi) -> None:
    double = api_double(configured=False, etcd_traced=False)
    steps = judge(found_of(double, PLAIN))
    bad = [f"{step.text} -> {step.way_out}" for step in steps if step.mark is Mark.BAD]
    assert len(bad) == 2
    assert "alice is in neither system:masters nor system:monitoring" in bad[0]
    assert "super-admin.conf" in bad[0], "kubeadm's own admin is not in system:masters since 1.29"
    assert "--issue-identity" in bad[0]
    assert "nothing is traced" in bad[1]
    assert "sampling arm" in bad[1]
    assert any("etcd is not traced" in step.text for step in steps)
    assert not any(step.mark is Mark.BAD for step in judge(found_of(api_double(), ADMIN)))


def test_one_api_server_of_several_that_is_not_armed_is_named() -> None:
    states = [State(node, Part.APISERVER, mode) for node, mode in (("cp1", Mode.ARMED), ("cp2", Mode.OFF))]
    known = Preconditions("lab", "v1.36.0", Caller("a", ("system:masters",)), **_of_states(states))
    assert known.configured is True
    assert "the API servers of cp2 have no --tracing-config-file" in judge(known)[2].text


def test_a_server_that_does_not_know_us_says_so(api_double: MakeApi) -> None:
    double = api_double()
    refused = found_of(double, "nobody's token")
    assert refused.privilege is Privilege.UNKNOWN
    first = judge(refused)[0]
    assert first.mark is Mark.BAD
    assert "does not know us" in first.text
    assert "nobody's token" not in str(judge(refused))


def test_a_service_account_is_not_sent_for_a_certificate() -> None:
    caller = Caller("system:serviceaccount:ops:robot", ("system:serviceaccounts", "system:authenticated"))
    step = judge(Preconditions("lab", "v1.36.0", caller))[1]
    assert "service account cannot" in step.way_out


@pytest.mark.parametrize(
    ("endpoint", "here", "mark"),
    [
        ("localhost:4317", True, Mark.GOOD),
        ("localhost:4318", True, Mark.BAD),
        ("localhost:4317", False, Mark.UNKNOWN),
        ("10.0.0.7:4317", False, Mark.GOOD),
    ],
)
def test_whether_the_endpoint_is_this_receivers(endpoint: str, here: bool, mark: Mark) -> None:
    listening = ReceiverFindings({"listeners": [{"name": "a", "address": "127.0.0.1:4317", "error": ""}]})
    found = Preconditions("lab", "v1.36.0", Caller("a", ("system:masters",)), configured=True, endpoints=(endpoint,))
    step = judge(found, listening, here=here)[3]
    assert step.mark is mark
    if mark is Mark.UNKNOWN:
        assert "ssh -R" in step.way_out
    gone = judge(dataclasses.replace(found), ReceiverFindings(None), here=here)[3]
    assert gone.mark is Mark.BAD
