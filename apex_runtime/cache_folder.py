"""Where this user's caches are: files that make the next run faster and that may be deleted at any time."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_NAME = "apex-x"


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/apex-x``, by default ``~/.cache/apex-x``; on Windows below ``%LOCALAPPDATA%``. It may not exist yet."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / _NAME
