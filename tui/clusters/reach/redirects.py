"""Answers that want to send us elsewhere. None is followed: credentials are for the server that is named, alone."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from tui.clusters.reach.wire import plain

CODES: Final = frozenset(range(300, 400))
"""All of them: a client may follow any that has a `Location` (curl does)."""
_STAYS: Final = re.compile(r"(?:/(?![/\\])|\?|[^/\\?#:\x00-\x20\x7f]+(?:[/?#]|$))[^\x00-\x20\x7f]*")


def stays(location: str) -> bool:
    """Whether a `Location` is a path at the server that said it, whoever reads it: nothing of another host or scheme,
    and nothing that a lenient reader takes for that."""
    return _STAYS.fullmatch(location) is not None


def place_of(location: str) -> str:
    """Where a `Location` leads, for a sentence: scheme, host and port of it, and nothing that could be a secret."""
    if stays(location):
        return "another path of its own"
    try:
        address = urlsplit(location)
        host, port = address.hostname or "", address.port
    except ValueError:
        host, port = "", None
    if not host:
        return "no proper URL"
    scheme = f"{plain(address.scheme, 16)}://" if address.scheme else ""
    return f"{scheme}{plain(host, 120)}" + (f":{port}" if port else "")


def not_followed(context: str, code: int, location: str) -> str:
    """The sentence: who wanted to send us where, and the way out."""
    return (
        f"What answers as the API server of {plain(context)} sends us on to {place_of(location)} ({code}), and"
        " credentials go to no other place than the kubeconfig names: correct the server of that context, or log in"
        " at what stands before it."
    )


def not_passed_on(context: str, code: int, location: str) -> str:
    """The sentence for a command whose server wants it to go elsewhere."""
    return (
        f"The API server of {plain(context)} sends the command on to {place_of(location)} ({code}), where the token of"
        " this proxy must not go: run it without `trace`, or with a context for that address."
    )
