"""What a real API server does is read right: each request of a workload against a key that was written by hand, and
every request at all against the API server's own audit log."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

import pytest

from tests.live_receiver import LiveReceiver
from tests.real.client import Answer
from tests.real.https_server import serving
from tests.real.plain import ADMIN, Plain
from tests.real.workload import AGGREGATED, STEPS, UNSERVED, USUAL, WORKLOAD, Key, Scenery, Step

NOTABLE_NS = 100_000_000
"""From here on parts of a request are told as causes, which on a busy machine any of them can be."""


@dataclass(frozen=True)
class Read:
    """What was made of the workload.

    Attributes:
        answers: by step, as the client got them.
        traces: `traces --json`, by step.
        shown: `show --json`, by step.
        audited: the audit log, by audit id.
        by_audit_id: `traces --json` of every request there was.
    """

    answers: dict[str, Answer]
    traces: dict[str, dict[str, Any]]
    shown: dict[str, dict[str, Any]]
    audited: dict[str, dict[str, Any]]
    by_audit_id: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def read(plain: Plain, collector: LiveReceiver) -> Read:
    """The workload, made once against the release of `plain`, and read when all of it is there."""
    answers: dict[str, Answer] = {}
    with serving([f"{group.partition('.')[0]}.default.svc" for group in (AGGREGATED, UNSERVED)]) as server:
        scenery = Scenery(plain, server)
        scenery.lay()
        for step in WORKLOAD:
            scenery.before(step.what)
            with scenery.meanwhile(step.during) as others:
                answers[step.what] = step.make(plain)
            if step.during is not None:
                answers[step.during.what] = others[0]
    codes = {step.what: (answers[step.what].code, answers[step.what].body[:300]) for step in STEPS}
    assert {what: code for what, (code, _) in codes.items()} == {step.what: step.key.code for step in STEPS}, codes
    began = time.monotonic()
    wanted = {answer.audit_id: what for what, answer in answers.items()}
    assert "" not in wanted
    assert len(wanted) == len(STEPS)
    of_etcd = {step.what for step in STEPS if step.key.etcd}

    def by_audit_id(traces: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {one["request"]["audit_id"]: one for one in traces if one["request"] and one["request"]["audit_id"]}

    def whole(traces: list[dict[str, Any]]) -> bool:
        there = {wanted[one]: trace for one, trace in by_audit_id(traces).items() if one in wanted}
        paired = all(there[step.what]["paired_with"] for step in STEPS if step.user != ADMIN and step.what in there)
        settled = all(one["settled"] for one in there.values())
        return (
            len(there) == len(STEPS)
            and paired
            and settled
            and all("etcd" in there[what]["services"] for what in of_etcd)
        )

    every = by_audit_id(collector.wait_for(whole, timeout=60.0))
    traces = {what: every[one] for one, what in wanted.items()}
    shown = collector.show(*(traces[step.what]["trace_id"] for step in STEPS))
    print(f"real: {len(STEPS)} requests of {plain.release} traced after {time.monotonic() - began:.1f} s")
    told = {step.what: one for step, one in zip(STEPS, shown, strict=True)}
    return Read(answers, traces, told, plain.audited(), every)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.what)
def test_a_request_is_read_as_it_was_made(step: Step, read: Read, plain_release: str) -> None:
    trace, shown, key = read.traces[step.what], read.shown[step.what], step.key
    request = trace["request"]
    assert named(request) == {
        "verb": key.verb,
        "group": key.group,
        "resource": key.resource,
        "subresource": key.subresource,
        "namespace": key.namespace,
        "name": key.name,
    }
    assert request["code"] == key.code
    assert request["user_agent"] == step.agent
    assert request["path"] == step.path.partition("?")[0]
    created = trace["created"] or ""
    assert created.startswith(key.created) if key.created.endswith("-") else created == key.created
    if created and key.code == 201:
        assert created == read.answers[step.what].json()["metadata"]["name"]
    # until 1.35 a watch does not send its `List`
    unsent = int(key.verb == "watch" and plain_release in ("1.34", "1.35"))
    assert trace["missing_parents"] == unsent
    assert len(shown["roots"]) == 1 + unsent
    assert bool(trace["paired_with"]) is (step.user != ADMIN)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.what)
def test_its_time_is_put_where_it_was_spent(step: Step, read: Read) -> None:
    trace, key = read.traces[step.what], step.key
    phases = trace["phases"]
    assert sum(phases.values()) == trace["duration_ns"]
    assert {phase: phases[phase] >= seconds * 1e9 for phase, seconds in key.takes.items()} == dict.fromkeys(
        key.takes, True
    )
    if key.etcd is not None:
        assert ("etcd" in trace["services"]) is key.etcd
        assert (phases["etcd"] > 0) is key.etcd
    hooked = step.what.startswith("hook-") or step.what == "holding"
    assert (phases["admission"] > 0) is hooked
    reached = key.group == AGGREGATED
    assert (phases["aggregation"] > 0) is reached


@pytest.mark.parametrize("step", [step for step in STEPS if step.key.etcd], ids=lambda step: step.what)
def test_etcds_side_of_a_call_is_below_the_api_servers(step: Step, read: Read) -> None:
    calls = {
        one["span_id"]: one
        for one in spans_of(read.shown[step.what]["roots"])
        if one["component"] == "apiserver" and one["name"].startswith("etcdserverpb.")
    }
    answers = [one for one in spans_of(read.shown[step.what]["roots"]) if one["component"] == "etcd"]
    assert {one["kind"] for one in calls.values()} == {"client"}
    assert sorted(one["parent_id"] for one in answers) == sorted(calls)
    assert all(one["kind"] == "server" and one["name"] == calls[one["parent_id"]]["name"] for one in answers)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.what)
def test_the_verdict_is_the_one_that_somebody_who_knows_would_give(step: Step, read: Read) -> None:
    shown, key = read.shown[step.what], step.key
    told = masked(shown["verdict"])
    if key.verdict == USUAL:
        if max(root["duration_ns"] for root in shown["roots"]) < NOTABLE_NS:
            assert re.fullmatch(usual(key), told), told
    else:
        assert re.search(key.verdict, told), told


def test_every_request_is_read_as_the_api_server_audited_it(read: Read) -> None:
    """Also those of its own and of the tests: verb, group, resource, subresource, namespace, name, agent and code."""
    compared = 0
    for one, event in read.audited.items():
        trace = read.by_audit_id.get(one)
        if trace is None:
            continue  # ended a moment ago, or made by the API server to a handler of its own, which is not traced
        request, what = trace["request"], event.get("objectRef", {})
        name, audited_name = request["name"] or "", what.get("name", "")
        if request["verb"] == "create" and not name:
            # its path has no name: the audit log takes it from the body, we from what was stored
            name = trace["created"] or ""
            audited_name = audited_name if name and audited_name else name
        assert {**named(request), "name": name, "code": request["code"], "agent": request["user_agent"]} == {
            "verb": event["verb"],
            "group": what.get("apiGroup", ""),
            "resource": what.get("resource", ""),
            "subresource": what.get("subresource", ""),
            "namespace": what.get("namespace", ""),
            "name": audited_name,
            "code": event["responseStatus"]["code"],
            "agent": event["userAgent"],
        }, event
        compared += 1
    assert compared > 2 * len(STEPS)


def named(request: dict[str, Any]) -> dict[str, str]:
    """Verb and names of a request; what it has not is ""."""
    fields = ("verb", "group", "resource", "subresource", "namespace", "name")
    return {field: request[field] or "" for field in fields}


def usual(key: Key) -> str:
    """The pattern of a verdict on a request of which there is nothing to tell."""
    if key.code >= 400:
        return rf"Nothing remarkable: answered with {key.code}( \(.*\))? after T\."
    return USUAL


def masked(text: str) -> str:
    """A verdict, its times as T and its shares as P."""
    text = re.sub(r"\b\d[\d.,]* ?(?:ns|µs|ms|s|min|h)\b", "T", text)
    return re.sub(r"\b\d+(?:\.\d+)? %", "P", text)


def spans_of(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every span of these trees."""
    return [span for node in nodes for span in (node, *spans_of(node["children"]))]
