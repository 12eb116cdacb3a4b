"""`file:///DIR`: a directory that stands for a host's file system, to prepare or check files where no cluster is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from tui.clusters.model import Done, ReachError
from tui.clusters.reach.local import run_here
from tui.clusters.reach.wire import plain


class FolderHost:
    """A directory with `etc/kubernetes/...` below it. Scripts run as whoever we are: the files are the operator's."""

    alive = False

    def __init__(self, url: str) -> None:
        """From `file:///DIR`.

        Raises:
            ReachError: it is not such a URL, the directory is not there, or it is this machine's own root.
        """
        try:
            parts = urlsplit(url)
        except ValueError:  # brackets around what is no address
            parts = urlsplit("")
        path = unquote(parts.path)
        wrong_host = parts.netloc not in ("", "localhost")
        wrong_path = not path.startswith("/") or "\0" in path or "\n" in path or not url.isprintable()
        if parts.scheme != "file" or wrong_host or wrong_path:
            raise ReachError(f"{plain(url)!r} does not name a directory: write file:///DIR with its whole path.")
        root = os.path.realpath(path)
        if root == "/":
            raise ReachError(f"{url} is this machine itself: leave --host out to reach it as what it is.")
        if not os.path.isdir(root):
            raise ReachError(f"The directory {path} of {url} is not there: make it, or name another.")
        self.name = url
        self._root = root

    @property
    def root(self) -> str:
        """The directory, links resolved."""
        return self._root

    def run(
        self,
        script: str,
        arguments: Sequence[str] = (),
        *,
        stdin: bytes = b"",
        timeout: float = 30.0,
        most: int = 8 << 20,
    ) -> Done:
        """Run a script with `ROOT` set to the directory, as `Host.run` says.

        Raises:
            ReachError: the directory is gone, or it took longer than `timeout` seconds.
        """
        if not os.path.isdir(self._root):
            raise ReachError(f"The directory {self._root} is no longer there: make it, or name another.")
        return run_here(self.name, (), self._root, script, arguments, stdin=stdin, timeout=timeout, most=most)

    def close(self) -> None:
        """Nothing was opened."""
