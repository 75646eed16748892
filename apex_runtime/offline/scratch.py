"""A folder for what a worker writes meanwhile; those of workers that were killed are removed by the next one on that machine."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

_PREFIX = "apex-x-worker-"
_YOUNG = 60.0  # seconds: its owner may not have locked it yet


class Scratch:
    """A new folder that only this user can read, locked as long as this process lives. Raises OSError."""

    def __init__(self) -> None:
        remove_abandoned(Path(tempfile.gettempdir()))
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = _locked(self.folder)


def remove_abandoned(parent: Path) -> None:
    """Remove folders of this user below ``parent`` whose owner has ended."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # gone meanwhile, or of another user
            facts = folder.lstat()
            if facts.st_uid != os.getuid() or time.time() - facts.st_mtime < _YOUNG:
                continue
            lock = _locked(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _locked(folder: Path) -> int | None:
    """The descriptor that holds the lock of a folder; None when somebody else has it. The kernel frees it with the process."""
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
