"""Links whose ids are none.

OTLP 1.5 knows ids of 16 and 8 bytes, or none at all. A span with a link to something else is a span all the same: the
link goes, and is counted as the sender's SDK counts those that it drops itself. So what is stored is what this program
and a Collector read back.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from receiver.store.request import BytesRequest

_TRACE: Final = (0, 16)
_SPAN: Final = (0, 8)
_MOST: Final = (1 << 32) - 1


def drop_bad_links(span: Span) -> int:
    """Take away a span's links with ids of a wrong length; how many there were."""
    for link in span.links:
        if not _is_good(link):
            break
    else:
        return 0
    good = [link for link in span.links if _is_good(link)]
    dropped = len(span.links) - len(good)
    copies = [Span.Link.FromString(link.SerializeToString()) for link in good]
    del span.links[:]
    span.links.extend(copies)
    span.dropped_links_count = min(_MOST, span.dropped_links_count + dropped)
    return dropped


def without_bad_links(body: bytes, rows: Collection[int]) -> bytes:
    """A serialised request whose spans in these rows (in document order) have lost their bad links; no other byte of
    what was sent is touched.

    Raises:
        google.protobuf.message.DecodeError: it is not a request.
    """
    request = BytesRequest.FromString(body)
    waiting = sorted(rows, reverse=True)
    first = 0
    for resource in request.resources:
        for scope in resource.scopes:
            count = len(scope.spans)
            while waiting and waiting[-1] < first + count:
                at = waiting.pop() - first
                span = Span.FromString(scope.spans[at])
                drop_bad_links(span)
                scope.spans[at] = span.SerializeToString()
            first += count
    mended: bytes = request.SerializeToString()
    return mended


def _is_good(link: Span.Link) -> bool:
    return len(link.trace_id) in _TRACE and len(link.span_id) in _SPAN
