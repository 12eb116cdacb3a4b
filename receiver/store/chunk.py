"""A chunk: what one export request becomes on disk and in memory.

A chunk is self-contained: the packed index refers to the chunk's own string list, so a chunk can be
deleted without leaving orphaned names behind, and a reader interns what it wants to keep.

Sizes (measured on the recordings): 56 bytes of index a span, 64 bytes of facts for about every third
span, and the request itself under zstd level 1.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

NANOSECOND_MAX: Final = (1 << 63) - 1
"""Times are stored as unsigned 64-bit nanoseconds, clamped to this so that signed arithmetic is safe."""

MAX_STRING: Final = 256
"""Strings in the index are cut to this many characters; the body keeps them whole."""

# --- one row a span ------------------------------------------------------------------------------
SPAN: Final = np.dtype(
    [
        ("trace_hi", "<u8"),  # trace id, big-endian halves
        ("trace_lo", "<u8"),
        ("span", "<u8"),  # span id, big-endian
        ("parent", "<u8"),  # 0: none
        ("start", "<u8"),  # ns since the epoch, as sent, clamped to NANOSECOND_MAX
        ("end", "<u8"),
        ("name", "<u4"),  # index into the chunk's strings
        ("resource", "<u2"),  # index into the chunk's resources
        ("kind_status", "u1"),  # kind in the low nibble, status code in the high one
        ("flags", "u1"),  # component in the low nibble, REQUEST and FACTS bits above
    ]
)
assert SPAN.itemsize == 56

# component of a span, as the sender's resource and scope tell it (docs/facts.md 7.4)
OTHER, APISERVER, ETCD, KUBELET, RUNTIME = range(5)
COMPONENT_NAMES: Final = ("other", "apiserver", "etcd", "kubelet", "runtime")
COMPONENT_MASK: Final = 0x0F
FLAG_REQUEST: Final = 0x10
"""An apiserver SERVER span: a candidate for the headline of its trace."""
FLAG_FACTS: Final = 0x20
"""The span has a row in the chunk's facts."""

# --- one row a span that says something about a request ------------------------------------------
FACT: Final = np.dtype(
    [
        ("row", "<u4"),  # index into the chunk's spans
        ("role", "u1"),  # ROLE_*
        ("flags", "u1"),  # AUDIT_UUID
        ("code", "<u2"),  # HTTP status, 0: unknown
        ("verb", "<u4"),  # all of these: index into the chunk's strings, 0 is the empty string
        ("group", "<u4"),
        ("version", "<u4"),
        ("resource", "<u4"),
        ("subresource", "<u4"),
        ("namespace", "<u4"),
        ("name", "<u4"),
        ("agent", "<u4"),
        ("detail", "<u4"),  # role SERVER: the path; WEBHOOK: the configuration; CALL: the status message
        ("audit", "V16"),  # 16 bytes of a UUID, or its string index in the first four; LINK: the linked trace's id
        ("spare", "<u4"),
    ]
)
assert FACT.itemsize == 64
ROLE_SERVER: Final = 1  # the apiserver's SERVER span: verb and names from method, path and query
ROLE_VERB: Final = 2  # `Get`, `List`, `Create`, ...: verb and names from its attributes
# `Call ... webhook`: verb = operation, resource = kind of hook, name = webhook, detail = configuration
ROLE_WEBHOOK: Final = 3
ROLE_CALL: Final = 4  # an apiserver's HTTP client span: verb = method, name = host, detail = status message
ROLE_STORED: Final = 5  # `Create etcd3`: name = of the object made, which the URL of a create does not tell
# Any span: it has a link to the trace `audit` (with AUDIT_UUID). To which span of it, the body says. Readers that do
# not know the role pass over it, and in files written before there was one these rows are absent: no other format.
ROLE_LINK: Final = 6
MAX_LINKS: Final = 16
"""Linked traces of one span that the index knows; the body has all of its links. Kubernetes makes one at most."""
AUDIT_UUID: Final = 0x01
FACT_STRINGS: Final = ("verb", "group", "version", "resource", "subresource", "namespace", "name", "agent", "detail")
_FACT_NAMES: Final = slice(2, 2 + len(FACT_STRINGS))
"""Where they stand in a row of 32-bit numbers."""
assert FACT.fields is not None
assert [FACT.fields[name][1] for name in FACT_STRINGS] == [4 * at for at in range(_FACT_NAMES.start, _FACT_NAMES.stop)]


@dataclass(frozen=True, slots=True)
class Resource:
    """What sent a span: `service.name` and `service.instance.id` ("" where absent)."""

    service: str
    instance: str


@dataclass(slots=True)
class Chunk:
    """One export request (or several merged ones) of one source.

    `received` is ns since the epoch by this machine's clock. `strings[0]` is always "". `body` is a
    zstd frame of the serialised ExportTraceServiceRequest; row i of `spans` is the i-th span in it,
    in document order.
    """

    id: int  # 0 until the database gave one; ascending in arrival order
    source: str  # the listener's name
    peer: str  # the sender's address as gRPC saw it; "" for a recording's
    received: int
    strings: list[str]
    resources: list[Resource]
    spans: npt.NDArray[Any]
    facts: npt.NDArray[Any]
    body: bytes
    sender: str = ""
    """Who sent it, whatever its connection: `certificate CN=x`, `uid 0`, `address 10.0.0.1`; "" for a recording's and
    in files of before this was kept."""

    def names_blob(self) -> bytes:
        """Strings and resources as stored: JSON, UTF-8."""
        pairs = [[r.service, r.instance] for r in self.resources]
        return json.dumps([self.strings, pairs], ensure_ascii=True, separators=(",", ":")).encode()


def unpack(
    chunk_id: int, source: str, peer: str, received: int, names: bytes, spans: bytes, facts: bytes, body: bytes = b""
) -> Chunk:
    """A chunk from its stored columns.

    Raises:
        ValueError: the blobs are not what `Chunk` writes (a damaged or foreign file).
    """
    # SQLite keeps what was put in, whatever the column is declared as.
    if type(chunk_id) is not int:
        raise ValueError("chunk has an id that is no number")
    if type(received) is not int or not 0 <= received <= NANOSECOND_MAX:
        raise ValueError("chunk was received at no time")
    if type(source) is not str or type(peer) is not str or not type(names) is type(spans) is type(facts) is bytes:
        raise ValueError("chunk has columns of another type")
    try:
        strings, resources = json.loads(names)
    except RecursionError:
        raise ValueError("chunk has no string list") from None
    if type(strings) is not list or not strings or strings[0] != "" or set(map(type, strings)) != {str}:
        raise ValueError("chunk has no string list")
    for pair in resources if type(resources) is list else (None,):
        if type(pair) is not list or list(map(type, pair)) != [str, str]:
            raise ValueError("chunk has no list of resources")
    rows = np.frombuffer(spans, SPAN)
    fact_rows = np.frombuffer(facts, FACT)
    if len(rows) and (int(rows["name"].max()) >= len(strings) or int(rows["resource"].max()) >= len(resources)):
        raise ValueError("chunk refers to names that it does not hold")
    if len(fact_rows):
        if int(fact_rows["row"].max()) >= len(rows):
            raise ValueError("chunk has facts about spans that it does not hold")
        numbers = np.frombuffer(facts, "<u4").reshape(len(fact_rows), -1)
        if int(numbers[:, _FACT_NAMES].max()) >= len(strings):
            raise ValueError("chunk has facts in words that it does not hold")
    return Chunk(chunk_id, source, peer, received, strings, [Resource(*r) for r in resources], rows, fact_rows, body)
