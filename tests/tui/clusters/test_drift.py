"""Where nodes differ about tracing."""

from __future__ import annotations

from tui.clusters.drift import differing
from tui.clusters.model import Mode, Part, State


def state(node: str, mode: Mode, rate: int | None = None, endpoint: str = "", version: str = "v1.34.2") -> State:
    return State(node, Part.APISERVER, mode, version, rate, endpoint)


def test_rate_endpoint_and_version_are_told_with_what_is_usual() -> None:
    usual = [state(f"cp-{at}", Mode.SAMPLING, 10_000, "localhost:4317") for at in (1, 2)]
    odd = state("cp-3", Mode.SAMPLING, 100, "10.0.0.5:4317", "v1.33.1")
    assert differing([*usual, odd]) == {
        ("cp-3", Part.APISERVER): "differs from cp-1, cp-2 "
        "(there: sampling 1 %, sends to localhost:4317, version v1.34.2)"
    }
    assert differing(usual) == {}
    other_part = State("cp-3", Part.ETCD, Mode.OFF, "3.6.5")
    assert differing([*usual, other_part]) == {}, "etcd is compared with etcd"


def test_each_aspect_has_its_own_majority_and_what_is_unknown_differs_from_nothing() -> None:
    states = [
        state("cp-1", Mode.OFF, version="v1.33.1"),
        state("cp-2", Mode.ARMED, 0, "localhost:4317"),
        state("cp-3", Mode.UNKNOWN, version=""),
        state("cp-4", Mode.OFF),
    ]
    found = differing(states)
    assert found["cp-1", Part.APISERVER] == "differs from cp-2, cp-4 (there: version v1.34.2)"
    assert found["cp-2", Part.APISERVER] == "differs from cp-1, cp-4 (there: off)"
    assert set(found) == {("cp-1", Part.APISERVER), ("cp-2", Part.APISERVER)}
