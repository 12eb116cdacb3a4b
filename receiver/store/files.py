"""Recordings that are written: OTLP JSON Lines (.jsonl, .jsonl.gz), the Collector's file exporter's own format.

One ExportTraceServiceRequest a line.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import IO

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from receiver.store.database import StoreError
from receiver.store.otlp_json import as_json
from receiver.store.written_file import WrittenFile


class FileProblem(StoreError):
    """A recording cannot be opened or written; the text is one sentence for the operator."""


def write(path: Path | None, requests: Iterable[bytes]) -> int:
    """Write serialised requests to a file (gzip by its name), or to standard output.

    A file appears whole or not at all (`written_file`), and one that is there stays when there is no request: a filter
    that matches nothing is no reason to lose it. A terminal gets ASCII, so that no value of a span can do anything to
    it.

    Returns:
        Requests written.

    Raises:
        FileProblem: the file cannot be written (no space, no right); nothing is left behind.
    """
    if path is None:
        return _write_lines(sys.stdout.buffer, requests, sys.stdout.isatty())
    try:
        with WrittenFile(path) as file:
            count = _write_packed(file.raw, requests, path, file.raw.isatty())
            file.commit(anything=count > 0)
            return count
    except OSError as problem:
        raise _unwritable(path, problem) from problem


def _unwritable(path: Path, problem: OSError) -> FileProblem:
    return FileProblem(f"{path} cannot be written ({problem.strerror or problem}): name another with -o.")


def only(body: bytes, traces: Collection[bytes] | None) -> tuple[bytes, int]:
    """A serialised request without the spans of other traces (None: all stay), and how many are left."""
    request = ExportTraceServiceRequest.FromString(body)
    kept, changed = 0, False
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            if traces is not None:
                spans = [span for span in scope.spans if span.trace_id in traces]
                if len(spans) < len(scope.spans):
                    changed = True
                    del scope.spans[:]
                    scope.spans.extend(spans)
            kept += len(scope.spans)
    if not changed:
        return body, kept
    for resource in request.resource_spans:
        filled = [scope for scope in resource.scope_spans if scope.spans]
        del resource.scope_spans[:]
        resource.scope_spans.extend(filled)
    resources = [resource for resource in request.resource_spans if resource.scope_spans]
    del request.resource_spans[:]
    request.resource_spans.extend(resources)
    return request.SerializeToString(), kept


def _write_packed(raw: IO[bytes], requests: Iterable[bytes], path: Path, ascii_only: bool) -> int:
    if path.suffix != ".gz":
        return _write_lines(raw, requests, ascii_only)
    with gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed:
        return _write_lines(packed, requests, False)


def _write_lines(stream: IO[bytes] | gzip.GzipFile, requests: Iterable[bytes], ascii_only: bool) -> int:
    count = 0
    for body in requests:
        document = as_json(ExportTraceServiceRequest.FromString(body))
        text = json.dumps(document, ensure_ascii=ascii_only, separators=(",", ":"))
        if ascii_only:
            text = text.replace("\x7f", "\\u007f")
        stream.write(text.encode() + b"\n")
        count += 1
    return count
