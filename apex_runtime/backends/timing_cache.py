"""How long each kernel took when TensorRT tried it, kept for the next build: the same tactics at a fraction of the time.

TensorRT for RTX has none: it times nothing while building, its timing cache does nothing since 1.2. It compiles kernels at the
first run on the GPU, which ``RuntimeCache`` keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from apex_runtime.backends.sealed_file import NotUsable, read_sealed, write_sealed
from apex_runtime.cache_folder import cache_folder

Note = Callable[[str], None]


class TimingCache:
    """A file for one flavour, version and compute capability. It only saves time: whatever is wrong with it becomes a note."""

    def __init__(self, flavour: str, version: str, compute_capability: int, path: Path | None, note: Note) -> None:
        """``path``: None for a file of this user's cache folder."""
        self._purpose = f"{flavour}-{version}-sm{compute_capability}"
        self._path = path or cache_folder() / "timing" / f"{self._purpose}.cache"
        self._note = note

    def attach(self, config: Any) -> None:
        """Give a builder's configuration what was kept, or an empty cache."""
        cache = config.create_timing_cache(self._read())
        if not config.set_timing_cache(cache, False):  # False: of this very GPU and version
            self._note(f"timing cache: {self._path} is refused by TensorRT; it is written anew.")
            config.set_timing_cache(config.create_timing_cache(b""), False)

    def keep(self, config: Any) -> None:
        """Write what a build left in the configuration."""
        cache = config.get_timing_cache()
        if cache is None:
            return
        try:
            write_sealed(self._path, self._purpose, bytes(cache.serialize()))
        except OSError as error:
            self._note(f"timing cache: {self._path} cannot be written ({error.strerror}); the next build takes as long as this.")

    def _read(self) -> bytes:
        try:
            return read_sealed(self._path, self._purpose)
        except NotUsable as problem:
            self._note(f"timing cache: {problem}; it is ignored and written anew.")
            return b""
