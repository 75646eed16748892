"""Which state of this project's code is running, where it runs from a git checkout."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import apex_runtime

_ROOT = Path(apex_runtime.__file__).resolve().parents[1]
_SECONDS = 20


def code_facts() -> dict[str, Any]:
    """``version``, ``commit`` and ``dirty`` (whether tracked files differ from it); what is not known is None."""
    commit = _git("rev-parse", "HEAD") if _git("ls-files", "--error-unmatch", "--", "apex_runtime/__init__.py") else None
    changes = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    try:
        number = version("apex-x")
    except PackageNotFoundError:
        number = None
    return {"version": number, "commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(*words: str) -> str | None:
    try:
        run = subprocess.run(["git", "-C", str(_ROOT), *words], capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() if run.returncode == 0 else None
