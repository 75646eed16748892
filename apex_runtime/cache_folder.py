"""Where this user's caches are: files that make the next run faster and that may be deleted at any time."""

from __future__ import annotations

from apex_plugins.kernels.cache import CACHE_VARIABLE, cache_folder

__all__ = ["CACHE_VARIABLE", "cache_folder"]
