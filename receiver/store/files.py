"""Recordings: OTLP JSON Lines in and out (.jsonl, .jsonl.gz), the Collector's file exporter's own format.

One ExportTraceServiceRequest a line. Reading goes line by line, so the size of a file does not matter; what a line
and a file may unpack to is bounded, because a file is data from somebody else.
"""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from receiver.store.database import StoreError
from receiver.store.otlp_json import Unreadable, as_json, read_request
from receiver.store.written_file import WrittenFile

MAX_LINE: Final = 128 << 20
"""Longer lines are skipped; the largest request that a receiver takes is 16 MiB, of which JSON makes six bytes a
character at worst (`\\u0001`)."""
_RATIO: Final = 200
_RATIO_FROM: Final = 256 << 20
"""A gzip file that unpacks to more than this and to more than `_RATIO` times its size is a bomb: real recordings
shrink 10 times, zeros 1,030 times."""
_GZIP_MAGIC: Final = b"\x1f\x8b"


class FileProblem(StoreError):
    """A recording cannot be opened or written; the text is one sentence for the operator."""


def read(
    path: Path,
    bad: Callable[[str], None],
    max_line: int = MAX_LINE,
    left_out: Callable[[int, str], None] | None = None,
) -> Iterator[bytes]:
    """The serialised requests of a recording, in its order.

    A line that is not a request is reported to `bad` as one sentence with file and line number, and the rest is read.
    `left_out` takes how many spans of a line cannot be read, and the sentence; without it the line is bad.
    A request may still be one that `decode` refuses: this is the format, not what it says.

    Raises:
        FileProblem: the file cannot be opened or read.
    """
    number = 0

    def without(count: int, problem: str) -> None:
        if left_out is not None:
            spans = "1 span was" if count == 1 else f"{count:,} spans were"
            left_out(count, f"{path}, line {number}: {problem}; {spans} left out.")

    some = None if left_out is None else without
    for number, line in _lines(path, bad, max_line):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            yield read_request(json.loads(line), some).SerializeToString()
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
            counted = _Counted(raw)
            stream: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=counted) if packed else raw
            number, unpacked, whole = 1, 0, True
            while line := stream.readline(max_line):
                unpacked += len(line)
                if packed and unpacked > _RATIO_FROM and unpacked > _RATIO * counted.bytes:
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


class _Counted:
    """Counts what is read, because a pipe cannot tell where it is."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self.bytes = 0

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read(size)
        self.bytes += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._raw.seek(offset, whence)


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
