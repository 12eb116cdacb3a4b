"""Where spans are sent: one rule, and what plans, commands and screens make of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.tui.clusters.nodes import after, apiserver, etcd, node
from tui.clusters import flavours
from tui.clusters.endpoint import chosen, name_of, needs_dns, on_this_machine
from tui.clusters.model import HostFile, Part, Plan, Wish
from tui.clusters.pods import FILE


def test_what_is_named_goes_before_what_is_there() -> None:
    assert chosen("10.0.0.5:4317", "localhost:4317", "127.0.0.1:5000") == "10.0.0.5:4317"
    assert chosen("", "localhost:4317", "127.0.0.1:5000") == "localhost:4317"
    assert chosen("", "", "127.0.0.1:5000") == "127.0.0.1:5000"
    assert chosen("", "") == "127.0.0.1:4317"


def listener(address: str, **more: Any) -> dict[str, Any]:
    return {"address": address, "name": "local", "tls": False, "error": None, **more}


@pytest.mark.parametrize(
    ("listeners", "given", "endpoint"),
    [
        (None, (), "127.0.0.1:4317"),
        (None, ("127.0.0.1:45319",), "127.0.0.1:45319"),
        (None, ("cp1=0.0.0.0:45319",), "127.0.0.1:45319"),
        (None, ("unix:/run/a=b.sock", "[::]:4318"), "[::1]:4318"),
        (None, ("127.0.0.1:0",), "127.0.0.1:4317"),
        ([], (), "127.0.0.1:4317"),
        ([listener("unix:/run/x.sock"), listener("10.0.0.5:4318")], (), "10.0.0.5:4318"),
        ([listener("0.0.0.0:4317")], (), "127.0.0.1:4317"),
        ([listener("127.0.0.1:4317", error="taken"), listener("[::1]:4317")], (), "[::1]:4317"),
        ([listener("10.0.0.5:4317", tls=True)], (), "127.0.0.1:4317"),
        ([listener("127.0.0.1:4317"), listener("127.0.0.1:45319")], ("127.0.0.1:45319",), "127.0.0.1:45319"),
        ([listener("127.0.0.1:4317")], ("127.0.0.1:45319",), "127.0.0.1:4317"),
        ("nonsense", (), "127.0.0.1:4317"),
        ([7, {"address": 7}], (), "127.0.0.1:4317"),
    ],
)
def test_on_this_machine_it_is_where_the_receiver_listens(
    listeners: Any, given: tuple[str, ...], endpoint: str
) -> None:
    assert on_this_machine(None if listeners is None else {"listeners": listeners}, given) == endpoint


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        ("localhost:4317", "localhost"),
        ("otel.example.org:4317", "otel.example.org"),
        ("dns:///otel:4317", "otel"),
        ("dns://10.0.0.1/otel:4317", "otel"),
        ("otel", "otel"),
        ("127.0.0.1:4317", ""),
        ("dns:///127.0.0.1:4317", ""),
        ("[::1]:4317", ""),
        ("[fe80::1%eth0]:4317", ""),
        ("unix:///run/x.sock", ""),
        ("passthrough:///localhost:4317", ""),
        ("", ""),
    ],
)
def test_a_name_is_asked_for_and_an_address_is_not(endpoint: str, name: str) -> None:
    assert name_of(endpoint) == name
    assert bool(needs_dns(endpoint)[0]) is bool(name)


def sends_to(plan: Plan) -> str:
    """What the plan's files say, as the next reading finds it."""
    facts = node(apiserver=apiserver(), etcd=etcd())
    found = {state.part: state for state in flavours.states(after(facts, plan))}
    return found[plan.part].endpoint


@pytest.mark.parametrize("part", [Part.APISERVER, Part.ETCD])
@pytest.mark.parametrize(
    ("wish", "endpoint"),
    [
        ({}, "127.0.0.1:4317"),
        ({"otherwise": "127.0.0.1:45319"}, "127.0.0.1:45319"),
        ({"otherwise": "127.0.0.1:45319", "endpoint": "10.0.0.5:4317"}, "10.0.0.5:4317"),
    ],
)
def test_a_plan_writes_it_for_both_components(part: Part, wish: dict[str, str], endpoint: str) -> None:
    plan = flavours.plan(node(apiserver=apiserver(), etcd=etcd()), Wish(part, 0, **wish))
    assert plan.endpoint == sends_to(plan) == endpoint
    assert not [one for one in plan.warnings if "DNS" in one]


@pytest.mark.parametrize("part", [Part.APISERVER, Part.ETCD])
def test_what_is_configured_is_kept_and_told_where_it_needs_dns(part: Part) -> None:
    facts = node(apiserver=apiserver(), etcd=etcd("3.6.5-0"))
    facts = after(facts, flavours.plan(facts, Wish(part, 0, "localhost:4317")))
    plan = flavours.plan(facts, Wish(part, 10_000, otherwise="127.0.0.1:45319"))
    assert plan.endpoint == "localhost:4317"
    (said,) = [one for one in plan.warnings if "DNS" in one]
    assert "first spans after every start are lost: --endpoint 127.0.0.1:4317" in said


def test_an_etcd_that_traces_without_an_address_keeps_its_own() -> None:
    text = etcd("3.6.5-0").replace("    - --name", "    - --enable-distributed-tracing=true\n    - --name", 1)
    assert "distributed" in text
    plan = flavours.plan(node(apiserver=apiserver(), etcd=text), Wish(Part.ETCD, 10_000, otherwise="127.0.0.1:45319"))
    assert plan.endpoint == "localhost:4317"
    assert "address" not in plan.diff


def test_a_broken_file_of_ours_is_made_anew_with_its_endpoint() -> None:
    facts = node(apiserver=apiserver())
    facts = after(facts, flavours.plan(facts, Wish(Part.APISERVER, 0, "10.0.0.5:4317")))
    content = facts.files[FILE].content or b""
    wish = Wish(Part.APISERVER, 0, otherwise="127.0.0.1:45319")
    for broken, endpoint in ((content + b"bogus: 1\n", "10.0.0.5:4317"), (b"endpoint: [\n", "127.0.0.1:45319")):
        there = replace(facts, files={**facts.files, FILE: HostFile(FILE, broken)})
        assert flavours.plan(there, wish).endpoint == endpoint
