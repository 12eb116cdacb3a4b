"""Recordings: OTLP JSON Lines in and out (.jsonl, .jsonl.gz), the Collector's file exporter's own format.

One ExportTraceServiceRequest a line. Reading goes line by line, so the size of a file does not matter; what a line
and a file may unpack to is bounded, because a file is data from somebody else.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from receiver.store.database import StoreError
from receiver.store.otlp_json import Unreadable, as_json, read_request

MAX_LINE: Final = 64 << 20
"""Longer lines are skipped; the largest request that a receiver takes is 16 MiB, twice that as JSON."""
_RATIO: Final = 200
_RATIO_FROM: Final = 256 << 20
"""A gzip file that unpacks to more than this and to more than `_RATIO` times its size is a bomb: real recordings
shrink 10 times, zeros 1,030 times."""
_GZIP_MAGIC: Final = b"\x1f\x8b"


class FileProblem(StoreError):
    """A recording cannot be opened or written; the text is one sentence for the operator."""


def read(path: Path, bad: Callable[[str], None], max_line: int = MAX_LINE) -> Iterator[bytes]:
    """The serialised requests of a recording, in its order.

    A line that is not a request is reported to `bad` as one sentence with file and line number, and the rest is read.
    A request may still be one that `decode` refuses: this is the format, not what it says.

    Raises:
        FileProblem: the file cannot be opened or read.
    """
    for number, line in _lines(path, bad, max_line):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            yield read_request(json.loads(line)).SerializeToString()
        except Unreadable as problem:
            bad(f"{path}, line {number}: {problem}; skipped.")
        except RecursionError:
            bad(f"{path}, line {number}: is nested too deeply; skipped.")
        except ValueError:  # JSONDecodeError and UnicodeDecodeError are
            bad(f"{path}, line {number}: is not JSON; skipped.")


def _lines(path: Path, bad: Callable[[str], None], max_line: int) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with path.open("rb") as raw:
            packed = raw.peek(2)[:2] == _GZIP_MAGIC
            stream: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=raw) if packed else raw
            number, unpacked, whole = 1, 0, True
            while line := stream.readline(max_line):
                unpacked += len(line)
                if packed and unpacked > _RATIO_FROM and unpacked > _RATIO * raw.tell():
                    bad(f"{path}, line {number}: unpacks to more than {_RATIO} times its size; the rest is not read.")
                    return
                ends = line.endswith(b"\n")
                if whole and (ends or len(line) < max_line):
                    yield number, line
                elif whole:
                    bad(f"{path}, line {number}: is longer than {max_line:,} bytes; skipped.")
                whole = ends  # the pieces of an overlong line are dropped until its end
                number += ends
    except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
        bad(f"{path}, line {number}: the gzip data is cut off or damaged ({problem}); the rest is not read.")
    except OSError as problem:
        raise FileProblem(f"{path} cannot be read ({problem.strerror or problem}): name another file.") from problem


def write(path: Path | None, requests: Iterable[bytes]) -> int:
    """Write serialised requests to a file (gzip by its name), or to standard output.

    A file appears whole or not at all, for the owner's eyes only (0600): it holds names of secrets.

    Returns:
        Requests written.

    Raises:
        FileProblem: the file cannot be written (no space, no right); nothing is left behind.
    """
    if path is None:
        return _write_lines(sys.stdout.buffer, requests)
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)  # made 0600
    except OSError as problem:
        raise FileProblem(f"{path} cannot be written ({problem.strerror}): name another with -o.") from problem
    try:
        with os.fdopen(descriptor, "wb") as raw:
            if path.suffix == ".gz":
                with gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed:
                    count = _write_lines(packed, requests)
            else:
                count = _write_lines(raw, requests)
        os.replace(temporary, path)
        return count
    except OSError as problem:
        raise FileProblem(f"{path} cannot be written ({problem.strerror}): name another with -o.") from problem
    finally:
        with suppress(OSError):  # gone when all went well
            os.unlink(temporary)


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


def _write_lines(stream: IO[bytes] | gzip.GzipFile, requests: Iterable[bytes]) -> int:
    count = 0
    for body in requests:
        document = as_json(ExportTraceServiceRequest.FromString(body))
        stream.write(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        count += 1
    return count
