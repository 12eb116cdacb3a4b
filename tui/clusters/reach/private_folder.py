"""Directories of ours alone for what must not stay behind, and taking away what programs that were killed left."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path


def private_folder(prefix: str, base: Path) -> Path:
    """A new directory `PREFIX-PID-xxxxxxxx` in `base`, mode 0700. Those of dead processes are removed first.

    Raises:
        OSError: it cannot be made.
    """
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
