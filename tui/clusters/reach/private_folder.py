"""Directories of ours alone for what must not stay behind, and taking away what programs that were killed left."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from receiver.store.ownership import sound


def private_folder(prefix: str, base: Path) -> Path:
    """A new directory `PREFIX-PID-xxxxxxxx` in `base`, mode 0700. Those of dead processes are removed first.

    Where others could put another one in its place, as in the TMPDIR of a user who became root, it is made in /tmp.

    Raises:
        OSError: it cannot be made.
    """
    if not sound(base):
        base = Path("/tmp")
        if not sound(base):
            raise OSError(errno.EPERM, "others may write there", str(base))
    sweep(prefix, base)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}-{os.getpid()}-", dir=base))


def sweep(prefix: str, base: Path) -> None:
    """Take away what programs of ours that were killed left in `base`."""
    for found in base.glob(f"{prefix}-*-*"):
        pid = found.name.removeprefix(f"{prefix}-").split("-")[0]
        with suppress(OSError):
            if not pid.isdigit() or found.lstat().st_uid != os.getuid() or found.is_symlink():
                continue
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                shutil.rmtree(found, ignore_errors=True)
            except OverflowError:
                continue
