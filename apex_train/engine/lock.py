"""One run at a time writes into a folder: two would replace each other's checkpoints without a word."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from apex_runtime.errors import UsageError


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold the folder against other runs; it is made when it is missing, and removed again when nothing was written into it.

    The lock is on the folder itself, and the system lets go of it when the process ends, however it ends. Where there are no such
    locks nothing is held. Raises UsageError when another run is writing there, OSError.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(folder):
            yield
    finally:
        if made:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            remedy = "Choose another --output, or wait for its end."
            raise UsageError(f"{folder}: another run is writing into this folder.", remedy, path=folder) from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)
