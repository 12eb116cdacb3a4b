"""How large a database may be at any moment, its log included.

A page that is written is in the log first, and in the file when the log is folded in: for a while it takes its room
twice. So file and log together stay within the cap and LOG_ROOM, because

- nothing goes into the file that would make it larger than the cap: what is there must go first,
- a transaction is small, or waits until the log is empty,
- the log is folded in and begun anew after CHECKPOINT bytes, about as often as SQLite would (each time flushes the
  disk, which belongs to etcd).

A reader keeps the log from beginning anew. Then whoever writes is refused until the reader is done.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from receiver.store.wal import FRAME_HEADER, HEADER, shared_bytes

LOG_ROOM: Final = 16 << 20
"""Bytes that the log and its shared memory may take beyond the cap."""
CHECKPOINT: Final = 8 << 20
"""Bytes of the log after which it is folded in."""
GROUP_BYTES: Final = 4 << 20
"""Bytes of a transaction, about, unless it is a single span."""
KEPT_LOG: Final = CHECKPOINT + GROUP_BYTES
"""Bytes that the log's file keeps when it begins anew: to write over it is cheaper than to grow it."""
_RESERVE: Final = 512 << 10
_OVERHEAD: Final = 64  # bytes of a row beside its blobs, about
_FEW: Final = 8  # pages that any transaction may change: roots, a trunk of the free pages, pointers


def file_limit(cap: int) -> int:
    """Bytes that the file itself may have: the cap, less what a log of one request of 16 MiB has around it."""
    return cap - min(_RESERVE, cap // 64)


def full_at(cap: int) -> int:
    """Bytes in use at which retention begins, so that senders need not wait for it."""
    return file_limit(cap) - cap // 32


def piece_bytes(cap: int | None) -> int:
    """Bytes of a chunk, about, above which it is taken apart."""
    return GROUP_BYTES if cap is None else min(GROUP_BYTES, cap // 8)


def largest(cap: int) -> int:
    """Bytes of a chunk that cannot be taken apart and is still stored."""
    return cap // 2


def pages_of(sizes: Iterable[int], page: int) -> int:
    """Pages that rows of so many bytes take at most, with what else they change."""
    number, leaves = 0, 0
    for size in sizes:
        number += 1
        leaves += min(size + _OVERHEAD, page)
        if size + _OVERHEAD > page // 2:
            number += (size + _OVERHEAD) // (page - 4) + 1
    rows = number + 2 * leaves // page
    return rows + rows // 800 + _FEW


def lacks_file(file: int, free: int, pages: int, page: int, cap: int) -> bool:
    """Whether the file would become larger than it may.

    Args:
        file: its bytes, free pages included.
        free: pages of it that nothing is in.
        pages: what is to be written.
    """
    grows = max(0, pages - free)
    return grows > 0 and file + grows * page > file_limit(cap)


def lacks_log(file: int, free: int, pages: int, page: int, cap: int, log: int, used: int) -> bool:
    """Whether file and log together would become larger than they may.

    Args:
        file, free, pages, page, cap: as in `lacks_file`.
        log: bytes of the log's file.
        used: of it, which cannot be written over.
    """
    grown = file + max(0, pages - free) * page
    after = max(log, HEADER + used + pages * (FRAME_HEADER + page))
    shared = shared_bytes(after // (FRAME_HEADER + page))
    return grown + after + shared > max(cap, grown) + LOG_ROOM
