"""One span of our own, sent to the very address that a component would dial: does it arrive in our receiver?

To look who listens is not enough: a collector's hostPort takes port 4317 by DNAT and shows no listener, and a service
on [::1] gets what is sent to `localhost` where the resolver prefers IPv6.

From this machine it is sent by gRPC; on a host by the `curl` that is there: OTLP/gRPC is a POST over HTTP/2 without
TLS, with five bytes before the message and the status in a trailer.
"""

from __future__ import annotations

import base64
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Final

from receiver.store.database import Database, StoreError
from tui.clusters.endpoint import UNSET
from tui.clusters.model import Host, ReachError

SERVICE: Final = "k8s-trace-tui"
SPAN_NAME: Final = "doctor: does this arrive?"
_PATH: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_POLL_SECONDS: Final = 0.1
_CHUNKS: Final = 256

_NOBODY: Final = re.compile("onnection refused|o such file|annot assign requested address|etwork is unreachable")
"""How the system's words for it end up in gRPC's."""

_SCRIPT: Final = r"""
command -v curl >/dev/null 2>&1 || { echo "no curl"; exit 3; }
command -v base64 >/dev/null 2>&1 || { echo "no base64"; exit 3; }
curl --version 2>/dev/null | grep -q HTTP2 || { echo "no curl that speaks HTTP/2"; exit 3; }
url=$1 message=$2 socket=$3
set -- -q -sS --http2-prior-knowledge --noproxy '*' --connect-timeout 2 --max-time 4 -X POST
set -- "$@" -H 'content-type: application/grpc' -H 'te: trailers' --data-binary @- -D - -o /dev/null
[ -z "$socket" ] || set -- "$@" --unix-socket "$socket"
printf %s "$message" | base64 -d | curl "$@" "$url" 2>&1
echo "
curl $?"
"""


class Outcome(Enum):
    """What became of a span at the address it was sent to."""

    ACCEPTED = "accepted"
    REFUSED = "refused"  # nobody listens there
    SILENT = "silent"  # no answer: a firewall, or a server that hangs
    OTHER = "other"  # somebody answers who does not speak OTLP/gRPC
    UNSENT = "unsent"  # it could not be sent; `detail` says why


@dataclass(frozen=True, slots=True)
class Probe:
    """A span and what became of it. `node` is where it was sent from, "" for this machine; `arrived` whether it was
    seen in the database of our receiver, None before anybody looked."""

    node: str
    address: str
    trace_id: str
    outcome: Outcome
    detail: str = ""
    arrived: bool | None = None


def addresses(endpoint: str) -> tuple[str, ...]:
    """The addresses that an exporter may dial for an endpoint: both loopback ones for `localhost`, and the bare address
    of `dns:///...`. () where it is none that can be tried from outside of the component.
    """
    endpoint = endpoint.strip() or UNSET
    if endpoint.startswith("unix:///"):
        return (endpoint,)
    endpoint = endpoint.removeprefix("dns:///").removeprefix("passthrough:///")
    host, colon, port = endpoint.rpartition(":")
    if (
        not colon
        or not re.fullmatch(r"[0-9]{1,5}", port)
        or not re.fullmatch(r"[\w.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\]", host)
    ):
        return ()
    if host.lower().rstrip(".") == "localhost":
        return (f"127.0.0.1:{port}", f"[::1]:{port}")
    return (f"{host}:{port}",)


def loopback(address: str) -> bool:
    """Whether an address is this machine's own."""
    return address.startswith(("127.", "[::1]:", "localhost:", "unix:"))


def message(trace_id: str, now: int) -> bytes:
    """An export request with one span, of now (ns since the epoch)."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    for key, value in (("service.name", SERVICE), ("service.instance.id", "doctor")):
        attribute = group.resource.attributes.add()
        attribute.key, attribute.value.string_value = key, value
    span = group.scope_spans.add().spans.add()
    span.trace_id, span.span_id = bytes.fromhex(trace_id), secrets.token_bytes(8)
    span.name, span.start_time_unix_nano, span.end_time_unix_nano = SPAN_NAME, now, now + 1000
    return request.SerializeToString()


def from_here(address: str, timeout: float = 4.0) -> Probe:
    """Send a span from this machine; at most `timeout` seconds."""
    import grpc

    trace_id = secrets.token_hex(16)
    options = (
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.primary_user_agent", f"{SERVICE}-doctor"),
    )
    with grpc.insecure_channel(address, options=options) as channel:
        call = channel.unary_unary(_PATH, bytes, bytes)
        try:
            call(message(trace_id, time.time_ns()), timeout=timeout)
        except grpc.RpcError as error:
            code, detail = error.code(), str(error.details() or "")
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                return Probe("", address, trace_id, Outcome.SILENT)
            if code is grpc.StatusCode.UNAVAILABLE and _NOBODY.search(detail):
                return Probe("", address, trace_id, Outcome.REFUSED)
            return Probe("", address, trace_id, Outcome.OTHER, f"{code.name}: {detail[-160:]}")
    return Probe("", address, trace_id, Outcome.ACCEPTED)


def from_host(host: Host, node: str, address: str, timeout: float = 10.0) -> Probe:
    """Send a span from a host, by its own curl; at most `timeout` seconds."""
    trace_id = secrets.token_hex(16)
    body = message(trace_id, time.time_ns())
    framed = b"\0" + len(body).to_bytes(4, "big") + body  # uncompressed, its length (gRPC over HTTP/2)
    socket = address.removeprefix("unix://") if address.startswith("unix://") else ""
    url = f"http://{'localhost' if socket else address}{_PATH}"
    try:
        done = host.run(_SCRIPT, (url, base64.b64encode(framed).decode(), socket), timeout=timeout, most=64 << 10)
    except ReachError as problem:
        return Probe(node, address, trace_id, Outcome.UNSENT, str(problem))
    said = done.out.decode("utf-8", "replace")
    if done.code == 3:
        return Probe(node, address, trace_id, Outcome.UNSENT, f"there is {said.strip()[:80]} on {host.name}")
    outcome, detail = _told(said)
    return Probe(node, address, trace_id, outcome, detail)


def _told(said: str) -> tuple[Outcome, str]:
    """What curl's headers, trailers and exit code mean (curl(1), EXIT CODES)."""
    code = re.search(r"^curl (\d+)\s*$", said, re.M)
    status = re.findall(r"^grpc-status:\s*(\d+)", said, re.M | re.I)
    if status:  # a trailer, so it is there whatever curl thinks of the end of the stream
        return (Outcome.ACCEPTED, "") if status[-1] == "0" else (Outcome.OTHER, f"gRPC status {status[-1]}")
    if code is None:
        return Outcome.UNSENT, "the answer was cut off"
    number = int(code[1])
    if number == 7:
        return Outcome.REFUSED, ""
    if number == 28:
        return Outcome.SILENT, ""
    if number == 6:
        return Outcome.REFUSED, "its name is not known there"
    http = re.search(r"^HTTP/\S+ (\d{3})", said, re.M)
    return Outcome.OTHER, f"HTTP {http[1]}" if http else f"curl ended with {number}"


def seen(path: Path, after: int, probes: Sequence[Probe], seconds: float = 3.0) -> tuple[Probe, ...]:
    """The same probes, knowing whether they arrived in a database: only chunks with an id above `after` are looked at,
    for at most `seconds`. What was never accepted did not arrive. Where the database cannot be read, nobody knows."""
    wanted = {probe.trace_id for probe in probes if probe.outcome is Outcome.ACCEPTED}
    try:
        found = _found(path, after, wanted, seconds) if wanted else set()
    except StoreError:
        return tuple(probes)
    return tuple(replace(probe, arrived=probe.trace_id in found) for probe in probes)


def _found(path: Path, after: int, wanted: set[str], seconds: float) -> set[str]:
    found: set[str] = set()
    until = time.monotonic() + seconds
    database = Database.read(path)
    try:
        while not wanted <= found:
            chunks = database.read_after(after, _CHUNKS)
            for chunk in chunks:
                after = chunk.id
                # Ours is alone in its request; what retention merged is older than our question.
                halves = zip(chunk.spans["trace_hi"][:4].tolist(), chunk.spans["trace_lo"][:4].tolist(), strict=True)
                found.update(f"{hi:016x}{lo:016x}" for hi, lo in halves)
            if time.monotonic() >= until:
                break
            if not chunks:
                time.sleep(_POLL_SECONDS)
    finally:
        database.close()
    return found
