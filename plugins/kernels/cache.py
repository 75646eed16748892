"""Where this user's caches are, and how what was compiled gets there: in one step, under a name that says what it is made of."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from apex_plugins.kernels.reasons import KernelError, KernelReason

CACHE_VARIABLE = "APEX_CACHE_DIR"
SOURCES = Path(__file__).resolve().parents[1]  # the folder of the ops


def cache_folder() -> Path:
    """``APEX_CACHE_DIR``, else the platform's cache folder of the user (XDG_CACHE_HOME on Linux). It may not exist yet."""
    override = os.environ.get(CACHE_VARIABLE)
    if override:
        return Path(override)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "apex-x"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "apex-x"
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "apex-x"


def kernel_path(op: str, ending: str, sources: Iterable[str], made_by: Iterable[str]) -> Path:
    """Where the product of the files of an op that match ``sources`` is kept; ``made_by``: compiler version and flags."""
    digest = hashlib.sha256("\0".join(made_by).encode())
    folders = SOURCES / op, SOURCES / "kernels"
    for path in sorted({path for folder in folders for pattern in sources for path in folder.glob(pattern)}):
        digest.update(f"\0{path.relative_to(SOURCES).as_posix()}\0".encode() + path.read_bytes())
    return cache_folder() / "kernels" / f"{op}-{digest.hexdigest()[:24]}{ending}"


@contextmanager
def workplace(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` for what is not finished; gone afterwards. Raises KernelError when it cannot be made."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".part-", dir=target.parent)
    except OSError as error:
        raise KernelError(KernelReason.CACHE_NOT_WRITABLE, f"{target.parent} cannot be written ({error.strerror})") from error
    with folder:
        yield Path(folder.name)
