"""An API server for tests, as far as its start, its health and its tracing go.

It opens its port, reads its tracing file with the real rules and error lines, and ends with code 1 on a bad one, so
that the port was open for a moment. On the way up it answers 403, then 500, then 200. Told to end, it closes its port
and then hangs on its watches until it is killed (137), unless `faults/graceful` is there. It exports real OTLP to its
endpoint, at its rate, from its own requests.

It serves HTTPS with the certificate of its flags. Whoever comes without a certificate of its client authority is
anonymous: let in to its health and version, or, with --anonymous-auth=false, turned away everywhere with 401.

It is a fork of its kubelet, because it is started often. Environment: POCKET_MOUNTS (mount path to directory here),
POCKET_HOME, POCKET_PACE, HOSTNAME_OF_NODE. A file `faults/NAME` with the text of a rate, or `any`, spoils a server
of that rate: `crash` (ends, for no reason that names tracing), `crash_first` (the same, before it looks at tracing),
`unready` (readyz never 200), `flap` (every other readyz is 500), `frozen` (etcd: reads hang), `deaf` (lives, but never
listens), `slow` (it takes ten times as long to be ready; its livez is 403 when it is asked first, however late, and 500
then). With a number of times as its text: `busy` (the port is taken), `hiccup` (it ends at once).
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import ssl
import sys
import threading
import time
from pathlib import Path

HOME = Path(os.environ["POCKET_HOME"])
PACE = float(os.environ["POCKET_PACE"])
FLAGS = dict(argument.removeprefix("--").partition("=")[::2] for argument in sys.argv[1:])
BOOT = time.monotonic()


def command_failed(why: str) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000000000Z", time.gmtime())
    print(f'{now} stderr F E{time.strftime("%m%d %H:%M:%S")}.000000       1 run.go:72] "command failed" err="{why}"')
    sys.stdout.flush()
    os._exit(1)


def in_container(path: str) -> Path | None:
    """Where a path of the container is here, by its mounts; None where nothing is mounted."""
    mounts: dict[str, str] = json.loads(os.environ["POCKET_MOUNTS"])
    for mount in sorted(mounts, key=len, reverse=True):
        if path == mount or path.startswith(mount.rstrip("/") + "/"):
            return Path(mounts[mount] + path[len(mount.rstrip("/")) :])
    return None


def tracing() -> tuple[int, str] | None:
    """Rate per million and endpoint; ends the process as the real one does when the file is bad."""
    path = FLAGS.get("tracing-config-file")
    if path is None:
        return None
    place = in_container(path)
    import yaml

    read = "failed to read tracing config: "
    if place is None or not place.is_file():
        command_failed(
            f'{read}unable to read tracing configuration from \\"{path}\\": open {path}: no such file or directory'
        )
    assert place is not None
    decode = f"{read}unable to decode tracing configuration data: "
    try:
        file = yaml.safe_load(place.read_bytes())
        version, kind = file["apiVersion"], file["kind"]
    except (yaml.YAMLError, TypeError, KeyError):
        command_failed(f"{decode}Object 'Kind' is missing")
    group = "apiserver.config.k8s.io"
    if kind != "TracingConfiguration" or version not in (f"{group}/v1", f"{group}/v1beta1", f"{group}/v1alpha1"):
        command_failed(f'{decode}no kind \\"{kind}\\" is registered for version \\"{version}\\" in scheme')
    for name in file:
        if name not in ("apiVersion", "kind", "endpoint", "samplingRatePerMillion"):
            command_failed(f'{decode}strict decoding error: unknown field \\"{name}\\"')
    validate = "failed to validate tracing configuration: "
    rate = file.get("samplingRatePerMillion") or 0
    if rate < 0 or rate > 1_000_000:
        command_failed(
            f"{validate}samplingRatePerMillion: Invalid value: {rate}: "
            "sampling rate per million must be less than or equal to one million"
        )
    endpoint = str(file.get("endpoint", "localhost:4317"))
    scheme = endpoint.partition("://")[0] if "//" in endpoint else "dns"
    if scheme not in ("dns", "unix", "unix-abstract"):
        command_failed(
            f'{validate}endpoint: Invalid value: \\"{endpoint}\\": unsupported scheme: {scheme}.  '
            "Options are none, dns, unix, or unix-abstract."
        )
    return rate, endpoint


CONFIGURED: tuple[int, str] | None = None
SPANS: list[tuple[str, int, int]] = []
FLAPS = 0
SLOW = [403, 500]


def spoiled(name: str) -> bool:
    try:
        whom = (HOME / "faults" / name).read_text().strip()
    except OSError:
        return False
    return whom == "any" or (CONFIGURED is not None and whom == str(CONFIGURED[0]))


def etcd_answers() -> bool:
    """Asked for a linearizable read, as its health is."""
    scheme, _, address = FLAGS["etcd-servers"].partition("://")
    host, _, port = address.partition(":")
    try:
        with socket.create_connection((host, int(port)), 2) as plain:
            connection = plain
            if scheme == "https":
                context = ssl.create_default_context(cafile=FLAGS["etcd-cafile"])
                context.load_cert_chain(FLAGS["etcd-certfile"], FLAGS["etcd-keyfile"])
                connection = context.wrap_socket(plain, server_hostname=host)
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\r\n")
            connection.settimeout(2)
            return b" 200 " in connection.recv(64)
    except OSError:
        return False


def status(path: str, known: bool) -> int:
    global FLAPS
    age = (time.monotonic() - BOOT) / PACE / (10 if spoiled("slow") else 1)
    if not known and FLAGS.get("anonymous-auth") == "false":
        return 401
    if not known and path.startswith("/api"):
        return 403
    if path.startswith("/api/") and spoiled("frozen"):
        time.sleep(10)
    if path.startswith(("/api/", "/livez")) and "etcd-servers" in FLAGS and not etcd_answers():
        return 500
    if SLOW and path.startswith("/livez") and spoiled("slow"):
        return SLOW.pop(0)
    if age < 1.5:
        return 403
    if age < 2.7:
        return 500
    if path.startswith("/readyz"):
        if spoiled("unready"):
            return 500
        if spoiled("flap"):
            FLAPS += 1
            return 500 if FLAPS % 2 else 200
    return 200


def serve(connection: socket.socket, context: ssl.SSLContext | None) -> None:
    with connection:
        connection.settimeout(5)
        try:
            known = True
            if context is not None:
                connection = wrapped = context.wrap_socket(connection, server_side=True)
                known = bool(wrapped.getpeercert())
            request = connection.recv(16384).decode("latin-1")
            path = request.split(" ", 2)[1] if request.count(" ") > 1 else "/"
            begin = time.time_ns()
            code = status(path, known)
            body = b'{"major":"1","minor":"36","gitVersion":"v1.36.2"}' if path == "/version" else b"{}"
            if CONFIGURED is not None and random.random() * 1_000_000 < CONFIGURED[0]:
                SPANS.append((f"GET {path.partition('?')[0]}", begin, time.time_ns()))
            head = f"HTTP/1.1 {code} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode() + body)
        except OSError:
            pass
        finally:
            connection.close()


def export(endpoint: str) -> None:
    """Every five seconds, as the batch processor does; what cannot be sent is dropped."""
    while not SPANS:  # most servers of a test never have one, and what sends it takes half a second to load
        time.sleep(5 * PACE)
    import grpc
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

    stub = TraceServiceStub(grpc.insecure_channel(endpoint))  # type: ignore[no-untyped-call]
    instance = f"apiserver-{os.environ['HOSTNAME_OF_NODE']}"
    while True:
        time.sleep(5 * PACE)
        batch, SPANS[:] = SPANS[:512], []
        if not batch:
            continue
        message = ExportTraceServiceRequest()
        resource = message.resource_spans.add()
        for key, value in (("service.name", "apiserver"), ("service.instance.id", instance)):
            attribute = resource.resource.attributes.add()
            attribute.key, attribute.value.string_value = key, value
        scope = resource.scope_spans.add()
        scope.scope.name = "k8s.io/kubernetes/cmd/kube-apiserver"
        for name, begin, end in batch:
            span = scope.spans.add()
            span.trace_id, span.span_id = os.urandom(16), os.urandom(8)
            span.name, span.kind = name, 2
            span.start_time_unix_nano, span.end_time_unix_nano = begin, end
        try:
            stub.Export(message, timeout=10)
        except grpc.RpcError:
            continue


def left(name: str) -> bool:
    """Whether a fault that comes so many times comes now."""
    try:
        count = int((HOME / "faults" / name).read_text())
    except (OSError, ValueError):
        return False
    if count > 0:
        (HOME / "faults" / name).write_text(str(count - 1))
    return count > 0


def tls() -> ssl.SSLContext | None:
    if "tls-cert-file" not in FLAGS:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate, key = in_container(FLAGS["tls-cert-file"]), in_container(FLAGS["tls-private-key-file"])
    authority = in_container(FLAGS["client-ca-file"])
    if certificate is None or authority is None:
        command_failed(f"open {FLAGS['tls-cert-file']}: no such file or directory")
    assert certificate is not None
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(authority)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def main() -> None:
    global CONFIGURED, BOOT
    port = int(FLAGS["secure-port"])
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if left("busy"):
            raise OSError("bind: address already in use")
        listener.bind(("127.0.0.1", port))
    except OSError:
        command_failed(f"failed to create listener: failed to listen on 127.0.0.1:{port}: bind: address already in use")
    context = tls()
    listener.listen(64)
    (HOME / "port").write_text(str(port))
    time.sleep(0.2 * PACE)
    no_plugin = "failed to initialize admission: no such plugin"
    if spoiled("crash_first"):
        command_failed(no_plugin)
    CONFIGURED = tracing()
    if spoiled("crash"):
        command_failed(no_plugin)
    if CONFIGURED is not None and left("hiccup"):
        command_failed("etcd client: context deadline exceeded")
    if spoiled("deaf"):
        listener.close()

    def end(*_: object) -> None:
        listener.close()
        if (HOME / "faults/graceful").exists():
            os._exit(0)

    signal.signal(signal.SIGTERM, end)
    if CONFIGURED is not None and CONFIGURED[0] > 0:
        threading.Thread(target=export, args=(CONFIGURED[1],), daemon=True).start()
    BOOT = time.monotonic()
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            if listener.fileno() < 0:
                break
            continue
        # who only looks whether somebody listens has gone again
        try:
            if connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"":
                connection.close()
                continue
        except BlockingIOError:
            pass
        except OSError:
            connection.close()
            continue
        threading.Thread(target=serve, args=(connection, context), daemon=True).start()
    while True:  # watches that nobody closes
        time.sleep(1)
