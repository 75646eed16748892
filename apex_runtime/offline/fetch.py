"""Objects of a store, read by fsspec: into a file, at most so large, tried again when the network fails."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from apex_runtime.errors import ImageError, MissingPackageError, UsageError

MAX_BYTES = 2 << 30  # of one image; what is in it is checked by its header, as that of any file
_PIECE = 4 << 20
_TRIES = 3
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, ImportError, ValueError)  # trying again does not help
_REMEDY = "Check the URL, and that every worker may read it."


def is_full_disk(error: BaseException) -> bool:
    """Whether this machine has no room left for files."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def fsspec_module() -> ModuleType:
    """fsspec. Raises MissingPackageError that names the extra."""
    try:
        import fsspec
    except ImportError as error:
        raise MissingPackageError(
            f"URLs are read by fsspec ({error}).", 'Install the extra ray: pip install ".[ray]".'
        ) from error
    return fsspec


def file_system(url: str) -> tuple[object, str]:
    """The file system of a URL and the path in it. Raises UsageError, MissingPackageError."""
    fsspec = fsspec_module()
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingPackageError(f"{url}: {error}.", "Install that package here and on every worker.", path=url) from error
    except Exception as error:  # each store has errors of its own
        raise UsageError(f"{url}: cannot be opened ({error}).", _REMEDY, path=url) from error
    return system, path


def fetch(url: str, target: Path) -> None:
    """Copy an object to a file. Raises ImageError, and OSError when the disk of this machine is full."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, _TRIES + 1):
        try:
            with fsspec_module().open(url, "rb") as source, target.open("wb") as stream:
                _copy(source, stream, url)
            return
        except ImageError:
            raise
        except Exception as error:  # each store has errors of its own
            if is_full_disk(error):
                raise
            if attempt == _TRIES or isinstance(error, _FINAL):
                cause = str(error).strip() or type(error).__name__
                raise ImageError(f"{url}: cannot be read ({cause}).", _REMEDY, path=url) from error
            time.sleep(0.2 * 4**attempt)


def _copy(source: BinaryIO, target: BinaryIO, url: str) -> None:
    copied = 0
    while piece := source.read(_PIECE):
        copied += len(piece)
        if copied > MAX_BYTES:
            cause = f"{url}: larger than {MAX_BYTES >> 30} GB."
            raise ImageError(cause, "Cut it into smaller images.", path=url)
        target.write(piece)
