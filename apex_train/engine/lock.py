"""One run at a time writes into a folder: two would replace each other's checkpoints without a word."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from apex_runtime.errors import UsageError


@contextlib.contextmanager
def sole_writer(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold the folder against other runs; it is made when it is missing, and removed again when nothing was written into it.

    The lock is on the folder itself, and the system lets go of it when the process has ended, however it ended, and those that
    load its data, which notice a killed one after seconds: ``patience`` seconds are waited for that. Where there are no such
    locks nothing is held. Raises UsageError when another run is writing there, OSError.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(folder, patience):
            yield
    finally:
        if made:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


@contextlib.contextmanager
def _locked(folder: Path, patience: float) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        end = time.monotonic() + patience
        while not _taken(lambda: fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)):
            if time.monotonic() >= end:
                remedy = "Choose another --output, or wait for its end."
                raise UsageError(f"{folder}: another run is writing into this folder.", remedy, path=folder)
            time.sleep(0.2)
        yield
    finally:
        os.close(descriptor)


def _taken(lock: Callable[[], None]) -> bool:
    """False while another process holds it."""
    try:
        lock()
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True
