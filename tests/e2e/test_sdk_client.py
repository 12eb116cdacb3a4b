"""The OpenTelemetry SDK as a sender: what an instrumented webhook exports comes back unchanged from `show --json`.

Plain, over TLS (with and without a client certificate), compressed, and over a unix socket.
"""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from receiver.control import ControlClient
from tests.conftest import StartReceiver
from tests.doubles.certificates import Authority
from tests.live_receiver import LiveReceiver

ELSEWHERE = SpanContext(
    0xAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA1, 0xBBBBBBBBBBBBBBB1, is_remote=True, trace_flags=TraceFlags(1)
)

ATTRIBUTES: dict[str, Any] = {
    "text": "plain, ünïcödé 中文 and a \ttab",
    "empty": "",
    "true": True,
    "false": False,
    "zero": 0,
    "large": 2**63 - 1,
    "negative": -(2**63),
    "real": 0.1,
    "texts": ["a", "b"],
    "numbers": [1, -2, 3],
    "reals": [0.5, 2.0],
    "flags": [True, False],
    "nothing": [],
    "bytes": b"\x00\xff\x10raw",
}
SHOWN = {**ATTRIBUTES, "bytes": base64.b64encode(b"\x00\xff\x10raw").decode()}


def export(make_exporter: Callable[[], OTLPSpanExporter], service: str = "label-injector") -> str:
    """One trace of three spans through the SDK's own batch processor; returns its id."""
    exporter = make_exporter()
    provider = TracerProvider(
        resource=Resource({"service.name": service, "service.instance.id": "pod-1", "k8s.pod.name": "injector-0"})
    )
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=100))
    tracer = provider.get_tracer("injector", "1.2.0", attributes={"scope.attribute": 1})
    with tracer.start_as_current_span(
        "POST /mutate",
        kind=SpanKind.SERVER,
        attributes=ATTRIBUTES,
        links=[Link(ELSEWHERE, {"why": "the caller"})],
    ) as root:
        root.add_event("noted", {"count": 3, "what": "an event"}, timestamp=time.time_ns())
        with tracer.start_as_current_span("decide", kind=SpanKind.INTERNAL) as inner:
            inner.set_status(Status(StatusCode.ERROR, "denied: no team label"))
            inner.record_exception(ValueError("no team label"))
        with tracer.start_as_current_span("HTTP GET", kind=SpanKind.CLIENT) as client:
            client.set_status(StatusCode.OK)
    assert provider.force_flush(20_000)
    provider.shutdown()
    return trace.format_trace_id(root.get_span_context().trace_id)


def check(live: LiveReceiver, trace_id: str) -> None:
    """Everything that the SDK was told comes back."""
    line = next(found for found in live.traces() if found["trace_id"] == trace_id)
    assert line["headline"] == "POST /mutate"
    assert line["services"] == ["label-injector"]
    assert (line["spans"], line["errors"], line["missing_parents"]) == (3, 1, 0)
    assert line["duration_ns"] > 0

    (shown,) = live.show(trace_id)
    (root,) = shown["roots"]
    assert (root["kind"], root["status"], root["parent_id"]) == ("server", "unset", None)
    assert root["attributes"] == SHOWN
    assert root["resource"]["k8s.pod.name"] == "injector-0"
    assert root["resource"]["service.instance.id"] == "pod-1"
    assert root["scope"] == {"name": "injector", "version": "1.2.0"}
    (event,) = root["events"]
    assert (event["name"], event["attributes"]) == ("noted", {"count": 3, "what": "an event"})
    assert root["start"] <= event["time"] <= root["start"] + root["duration_ns"]
    (link,) = root["links"]
    assert (link["trace_id"], link["span_id"]) == ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1", "bbbbbbbbbbbbbbb1")
    assert link["attributes"] == {"why": "the caller"}

    children = {child["name"]: child for child in root["children"]}
    assert set(children) == {"decide", "HTTP GET"}
    decide = children["decide"]
    assert (decide["status"], decide["status_message"]) == ("error", "denied: no team label")
    assert decide["events"][0]["name"] == "exception"
    assert decide["events"][0]["attributes"]["exception.message"] == "no team label"
    assert (children["HTTP GET"]["status"], children["HTTP GET"]["kind"]) == ("ok", "client")


def test_plain(receiver: StartReceiver) -> None:
    live = receiver()
    check(live, export(lambda: OTLPSpanExporter(endpoint=live.address, insecure=True)))


def test_gzip(receiver: StartReceiver) -> None:
    live = receiver()
    compression = grpc.Compression.Gzip
    check(live, export(lambda: OTLPSpanExporter(endpoint=live.address, insecure=True, compression=compression)))


def test_unix_socket(receiver: StartReceiver, tmp_path: Path) -> None:
    live = receiver(listen=[f"ssh-cp-2=unix:{tmp_path / 'otlp.sock'}"])
    assert live.address == f"unix:{tmp_path / 'otlp.sock'}"
    trace_id = export(lambda: OTLPSpanExporter(endpoint=live.address, insecure=True))
    check(live, trace_id)
    assert live.traces()[0]["source"] == "ssh-cp-2"


def test_two_listeners_tell_their_spans_apart(receiver: StartReceiver) -> None:
    live = receiver(listen=["one=127.0.0.1:0", "two=127.0.0.1:0"])
    ids = {
        name: export(lambda address=address: OTLPSpanExporter(endpoint=address, insecure=True))  # type: ignore[misc]
        for name, address in live.addresses.items()
    }
    assert {line["trace_id"]: line["source"] for line in live.traces()} == {
        ids["one"]: "one",
        ids["two"]: "two",
    }


# --- TLS -----------------------------------------------------------------------------------------
def tls_arguments(server: Any, *more: str) -> list[str]:
    return ["--tls-cert", str(server.certificate), "--tls-key", str(server.key), *more]


def test_tls(receiver: StartReceiver, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    live = receiver(arguments=tls_arguments(authority.issue("server")))
    trusting = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
    check(live, export(lambda: OTLPSpanExporter(endpoint=live.address, credentials=trusting)))


def test_tls_with_gzip(receiver: StartReceiver, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    live = receiver(arguments=tls_arguments(authority.issue("server")))
    trusting = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
    check(
        live,
        export(
            lambda: OTLPSpanExporter(endpoint=live.address, credentials=trusting, compression=grpc.Compression.Gzip)
        ),
    )


def test_tls_asks_for_a_client_certificate(receiver: StartReceiver, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    known = authority.issue("client")
    live = receiver(arguments=tls_arguments(authority.issue("server"), "--tls-client-ca", str(authority.certificate)))
    trusted = authority.certificate.read_bytes()
    with_own = grpc.ssl_channel_credentials(trusted, known.key.read_bytes(), known.certificate.read_bytes())
    check(live, export(lambda: OTLPSpanExporter(endpoint=live.address, credentials=with_own)))
    with contextlib.closing(ControlClient.connect(live.db)) as client:
        (share,) = client.request("status")["shares"]
    assert share["sender"].startswith("certificate ")
    assert "client" in share["sender"], "the certificate's subject, not the user of this machine"
    assert share["spans"] == 3
    assert not accepts(live, grpc.ssl_channel_credentials(trusted)), "nobody without a certificate"
    stranger = Authority(tmp_path, "another authority").issue("stranger")
    unknown = grpc.ssl_channel_credentials(trusted, stranger.key.read_bytes(), stranger.certificate.read_bytes())
    assert not accepts(live, unknown), "nobody with another authority's"
    assert len(live.traces()) == 1


def test_tls_refuses_plaintext_and_is_refused_by_the_distrustful(receiver: StartReceiver, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    live = receiver(arguments=tls_arguments(authority.issue("server")))
    other = Authority(tmp_path, "another authority")
    assert not accepts(live, None), "plaintext"
    assert not accepts(live, grpc.ssl_channel_credentials(other.certificate.read_bytes())), "not our authority"
    assert live.traces() == []


def accepts(live: LiveReceiver, credentials: grpc.ChannelCredentials | None) -> bool:
    """Whether an export with these credentials (None: plaintext) succeeds."""
    provider = TracerProvider(resource=Resource({"service.name": "stranger"}))
    with provider.get_tracer("stranger").start_as_current_span("alone") as span:
        pass
    if credentials is None:
        exporter = OTLPSpanExporter(endpoint=live.address, insecure=True, timeout=2)
    else:
        exporter = OTLPSpanExporter(endpoint=live.address, credentials=credentials, timeout=2)
    try:
        return exporter.export([span]) is SpanExportResult.SUCCESS  # type: ignore[list-item]
    finally:
        exporter.shutdown()


def test_a_busy_sender_loses_nothing(receiver: StartReceiver) -> None:
    """Many traces through one SDK, in its own batches."""
    live = receiver()
    provider = TracerProvider(resource=Resource({"service.name": "busy"}))
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=live.address, insecure=True), max_queue_size=20_000)
    )
    tracer = provider.get_tracer("busy")
    for number in range(300):
        with tracer.start_as_current_span(f"work {number}"):
            for _ in range(9):
                with tracer.start_as_current_span("step"):
                    pass
    assert provider.force_flush(30_000)
    provider.shutdown()
    traces = live.traces()
    assert len(traces) == 300
    assert {line["spans"] for line in traces} == {10}


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC would ask a proxy of the environment for the way to loopback."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "grpc_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
