"""Where this user's caches are: files that make the next run faster and that may be deleted at any time."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CACHE_VARIABLE = "APEX_CACHE_DIR"


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
