"""Kernels that TensorRT for RTX compiled on this GPU, kept for the next process: it compiles at the first run, not before."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from apex_runtime.backends.sealed_file import NotUsable, read_sealed, write_sealed
from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.cache_folder import cache_folder

_LOG = logging.getLogger(__name__)


class RuntimeCache:
    """The cache of one plan on one GPU. It only ever saves time: whatever is wrong with its file becomes a warning."""

    def __init__(self, config: Any, plan: Path, purpose: str) -> None:
        """Create it in a runtime configuration, filled from the file if there is one. ``purpose``: flavour, version and GPU."""
        self._purpose = purpose
        self._path = cache_folder() / "runtime" / f"{purpose}-{sha256_of(plan)[:16]}.cache"
        self._cache = config.create_runtime_cache()
        self._kept = self._read()
        if self._kept and not self._cache.deserialize(self._kept):
            # Also after an update of the driver.
            _LOG.warning("%s does not fit this GPU and driver any more; kernels are compiled anew.", self._path)
        config.set_runtime_cache(self._cache)

    def keep(self) -> None:
        """Write the file, if there is anything new."""
        data = bytes(self._cache.serialize())
        if data == self._kept:
            return
        try:
            write_sealed(self._path, self._purpose, data)
        except OSError as error:
            _LOG.warning("%s cannot be written (%s); the next start compiles again.", self._path, error.strerror)

    def _read(self) -> bytes:
        try:
            return read_sealed(self._path, self._purpose)
        except NotUsable as problem:
            _LOG.warning("%s; kernels are compiled anew.", problem)
            return b""
