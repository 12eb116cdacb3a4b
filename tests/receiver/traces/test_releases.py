"""The tree of every release since 1.22: the right headline, duration, phases and verdict in each, in whatever order its
spans come."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from receiver.store.chunk import APISERVER, FACT, FLAG_REQUEST, SPAN, Chunk, Resource
from receiver.store.index import RANK_REQUEST, Index
from receiver.traces.phases import Phase, breakdown, phases_of
from receiver.traces.reader import load, summaries
from receiver.traces.timing import critical_path
from tests.receiver.traces import shapes
from tests.receiver.traces.scenes import verdict_of
from tests.receiver.traces.shapes import MS, T0, Recorder, index_of

PATH = "/api/v1/namespaces/{:namespace}/pods"


@dataclass(frozen=True)
class Expected:
    """`ms` is the headline's, `phases` in ms but OTHER, which is the rest; `before` what authentication took before."""

    record: Callable[[Recorder], None]
    headline: str
    ms: float
    phases: dict[str, float]
    verdict: str
    before: float = 0


_CREATE_1_26 = {
    "AUTHENTICATION": 0.4, "MUTATING": 8, "ETCD_SERVER": 2, "ETCD_GAP": 2, "STORAGE_ENCODING": 2,
    "ENCODING": 1,
}  # fmt: skip
_CREATE_1_33 = {"ETCD_SERVER": 2, "ETCD_GAP": 2, "STORAGE_ENCODING": 2, "ENCODING": 0.5}
_CREATE_1_34 = {
    "AUDIT": 1, "IMPERSONATION": 1, "QUEUE": 0.1, "AUTHORIZATION": 0.4, "VALIDATING": 8,
    "ETCD_SERVER": 1, "ETCD_GAP": 1, "STORAGE_ENCODING": 2, "ENCODING": 0.5,
}  # fmt: skip
_MUTATING = "Nothing remarkable: 20.0 ms, of which mutating webhook label-injector 8.00 ms (40 %) and "
_TIMED_OUT = (
    "Validating webhook name-policy did not answer within its timeout (8.00 ms); failurePolicy Ignore let the request "
    "through. etcd took 2.00 ms."
)
_EARLY = (
    "Nothing remarkable: 17.6 ms, of which the API server itself 11.1 ms (63 %) and etcd 2.00 ms (11 %). "
    "Kubernetes 1.33 ends its "
    "span early: the duration is that of the work below it, and its status code is not known."
)
_WATCH = "A watch, open for 60.0 s: it lasts as long as its client likes."

RELEASES = {
    "1.22-1.25": Expected(
        shapes.release_1_22, "KubernetesAPI", 20, {"WEBHOOK": 8, "ETCD_SERVER": 3, "ETCD_GAP": 2},
        "Nothing remarkable: 20.0 ms, of which webhook 8.00 ms (40 %) and etcd 3.00 ms (15 %).",
    ),
    "1.26-1.30": Expected(
        shapes.release_1_26, "KubernetesAPI", 20, _CREATE_1_26, f"{_MUTATING}etcd 2.00 ms (10 %).",
    ),
    "1.32": Expected(
        partial(shapes.release_1_26, serialize_inside=True), f"POST {PATH}", 20, _CREATE_1_26,
        f"{_MUTATING}etcd 2.00 ms (10 %).",
    ),
    "1.33": Expected(shapes.release_1_33, f"POST {PATH}", 17.6, _CREATE_1_33, _EARLY),
    "1.33 privileged": Expected(
        partial(shapes.release_1_33, privileged=True), f"POST {PATH}", 17.6, _CREATE_1_33, _EARLY, before=0.4
    ),
    "1.34-1.37": Expected(
        partial(shapes.release_1_34, privileged=False), f"POST {PATH}", 20, _CREATE_1_34, _TIMED_OUT
    ),
    "1.34-1.37 privileged": Expected(
        partial(shapes.release_1_34, privileged=True), f"POST {PATH}", 20, _CREATE_1_34, _TIMED_OUT, before=0.2
    ),
    "1.37 with etcd 3.7": Expected(
        partial(shapes.release_1_34, privileged=True, etcd_3_7=True), f"POST {PATH}", 20, _CREATE_1_34, _TIMED_OUT,
        before=0.2,
    ),
    "1.26 watch": Expected(shapes.watch_1_26, "KubernetesAPI", 60_000, {"AUTHENTICATION": 0.4}, _WATCH),
    "1.34 watch": Expected(
        shapes.watch_1_34, f"GET {PATH}", 60_000, {"AUDIT": 1, "IMPERSONATION": 1, "QUEUE": 0.1}, _WATCH
    ),
    "1.36 watch that is open": Expected(
        shapes.watch_1_36, "WatchList", 3, {"CACHE": 0.2},
        "Part of a request whose own span is not here: WatchList of pods in default took 3.00 ms. A watch sends that "
        "when it closes.",
    ),
    "1.26 unauthenticated": Expected(
        shapes.unauthenticated_1_26, "KubernetesAPI", 1, {"AUTHENTICATION": 0.8},
        "Authentication refused the request with 401: its credentials are missing, unknown or expired.",
    ),
    "1.33 unauthenticated": Expected(
        shapes.unauthenticated_1_33, "authentication", 1, {},
        "The authentication of a request that has a trace of its own, or that was refused with 401; since 1.34 its "
        "1.00 ms are those of the whole request.",
    ),
    "1.33 forced": Expected(
        shapes.forced, "GET /api/v1/nodes", 5, {"AUDIT": 4},
        "Nothing remarkable: 5.00 ms, of which the API server itself 5.00 ms (100 %). Its parent span is not here: "
        "most likely the caller's, who forced this trace by a traceparent.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("release", RELEASES)
def test_a_release(release: str) -> None:
    expected = RELEASES[release]
    rec = Recorder()
    expected.record(rec)
    order = list(range(len(rec.spans)))
    for seed in range(6):
        index = rec.index(order)
        slot = index.slot_of(rec.trace_id())
        assert slot is not None
        (row,) = summaries(index, [slot], T0, live=False)
        trace = load(index, rec.trace_id(), T0, live=False)
        assert trace is not None
        assert trace.headline is not None
        assert row.headline == trace.headline.span.name == expected.headline
        path = critical_path(trace)
        assert path is not None
        assert path.end - path.start == round(expected.ms * MS)
        phases = phases_of(trace, path)
        assert phases is not None
        assert breakdown(index, [slot]).ns[0].tolist() == list(phases.ns)
        known = {phase.name: phases.ns[phase] / MS for phase in Phase if phases.ns[phase]}
        assert sum(known.values()) == pytest.approx(expected.ms)
        known.pop("OTHER", 0)
        assert known == pytest.approx(expected.phases)
        assert verdict_of(rec, order=order).text == expected.verdict
        random.Random(seed).shuffle(order)


@pytest.mark.parametrize("release", [name for name, expected in RELEASES.items() if expected.before])
def test_what_authentication_took_before_a_privileged_request(release: str) -> None:
    """Slow there, it is told; its span is the parent, so nothing has to be paired."""
    rec = Recorder()
    RELEASES[release].record(rec)
    top = next(span for *_, span in rec.spans if span.name == "authentication")
    top.start_time_unix_nano -= 2_000 * MS
    assert f"Authentication took {2 + RELEASES[release].before / 1000:.2f} s, before the request itself began" in (
        verdict_of(rec).text
    )


def old_exporter(body: bytes) -> bytes:
    """The same spans as kubernetes 1.22 to 1.25 and etcd up to 3.5.10 send them: OTLP 0.9, whose
    `instrumentation_library_spans` has the number that `scope_spans` has now (docs/facts.md 9)."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="otlp09.proto", package="otlp09", syntax="proto3")
    for message, fields in {
        "Library": [("name", 1, kinds.TYPE_STRING, ""), ("version", 2, kinds.TYPE_STRING, "")],
        "LibrarySpans": [("instrumentation_library", 1, kinds.TYPE_MESSAGE, "Library"),
                         ("spans", 2, kinds.TYPE_BYTES, "*")],
        "ResourceSpans": [("resource", 1, kinds.TYPE_BYTES, ""),
                          ("instrumentation_library_spans", 2, kinds.TYPE_MESSAGE, "*LibrarySpans")],
        "Request": [("resource_spans", 1, kinds.TYPE_MESSAGE, "*ResourceSpans")],
    }.items():  # fmt: skip
        made = file.message_type.add(name=message)
        for name, number, kind, of in fields:
            label = kinds.LABEL_REPEATED if of.startswith("*") else kinds.LABEL_OPTIONAL
            field = made.field.add(name=name, number=number, type=kind, label=label)
            if kind == kinds.TYPE_MESSAGE:
                field.type_name = f".otlp09.{of.lstrip('*')}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    old = message_factory.GetMessageClass(pool.FindMessageTypeByName("otlp09.Request"))()
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        group = old.resource_spans.add(resource=resource.resource.SerializeToString())
        for scope in resource.scope_spans:
            group.instrumentation_library_spans.add(
                instrumentation_library={"name": scope.scope.name, "version": scope.scope.version},
                spans=[span.SerializeToString() for span in scope.spans],
            )
    encoded: bytes = old.SerializeToString()
    return encoded


def test_what_old_exporters_send_is_read_like_the_rest() -> None:
    shapes.release_1_22(rec := Recorder())
    index = index_of(old_exporter(body) for body in rec.requests())
    trace = load(index, rec.trace_id(), T0, live=False)
    assert trace is not None
    assert trace.spans == len(rec.spans)
    assert trace.headline is not None
    assert trace.headline.span.name == "KubernetesAPI"
    phases = phases_of(trace)
    assert phases is not None
    assert phases.ns[Phase.ETCD_SERVER] == 3 * MS


# --- any trace ------------------------------------------------------------------------------------
NAMES = ("", "authentication", "GET", "Get", "audit")


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 12), st.integers(0, 30), st.integers(0, 40), st.integers(1, 4)),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 4),
)
@settings(deadline=None, max_examples=400)
def test_the_headline_is_a_request_wherever_there_is_one(
    drawn: list[tuple[int, int, int, int, int]], chunks: int
) -> None:
    """Whatever the parents say (circles, too), in whatever order and number of exports the spans come: the headline of
    the list and of the tree is a request and never `authentication`, where the trace holds a request; without circles
    both are the same one."""
    in_order = all(parent <= at for at, (_, parent, *_) in enumerate(drawn))
    rows = np.zeros(len(drawn), SPAN)
    for at, (number, parent, start, end, name) in enumerate(drawn):
        request = NAMES[name] == "GET"
        rows[at] = (
            0, number + 1, at + 1, parent, T0 + start if start else 0, T0 + end, name, 0, 2 if request else 1,
            APISERVER | (FLAG_REQUEST if request else 0),
        )  # fmt: skip
    index = Index()
    index.extend(
        Chunk(n + 1, "s", "", T0, list(NAMES), [Resource("apiserver", "a")], part, np.zeros(0, FACT), b"")
        for n, part in enumerate(np.array_split(rows, chunks))
        if len(part)
    )
    for slot in range(index.traces):
        trace = load(index, index.trace_id(slot), T0, live=False)
        assert trace is not None
        assert trace.headline is not None
        (row,) = summaries(index, [slot], T0, live=False)
        if any(number + 1 == int(index.id_lo[slot]) and NAMES[name] == "GET" for number, *_, name in drawn):
            assert index.head_rank[slot] == RANK_REQUEST
            assert row.headline == trace.headline.span.name == "GET"
            if in_order:
                assert f"{int(index.span[index.head_row[slot]]):016x}" == trace.headline.span.span_id
