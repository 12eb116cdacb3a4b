"""What goes wrong with files; the text of each is one sentence for the operator."""

from __future__ import annotations


class StoreError(Exception):
    """Something is wrong with a file; the text is one sentence for the operator."""


class NotOurs(StoreError):
    """A file or a directory is another user's, or others may put something else in its place."""
