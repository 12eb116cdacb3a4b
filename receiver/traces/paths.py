"""Which paths were read by get and list, the most frequent first: what may be asked again."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from receiver.store.index import Index

Array = npt.NDArray[Any]

_READ: Final = ("get", "list")


def read_paths(index: Index, most: int) -> list[tuple[str, int]]:
    """(path without the query, how many requests read it), at most so many. For a worker thread."""
    with index.lock:
        facts: Array = index.server_fact
        facts = facts[facts >= 0]
        verbs: Array = index.fact("verb")[facts]
        details: Array = index.fact("detail")[facts]
        subresources: Array = index.fact("subresource")[facts]
        read = [verb for verb in np.unique(verbs).tolist() if index.names[verb] in _READ]
        chosen: Array = details[np.isin(verbs, read) & (subresources == 0) & (details > 0)]
        paths, counts = np.unique(chosen, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:most]
        found = [(index.names[path], n) for path, n in zip(paths[order].tolist(), counts[order].tolist(), strict=True)]
    return [(path, n) for path, n in found if path.startswith("/") and path.isascii() and path.isprintable()]
