"""Which code ran: the commit of the checkout that a package lies in, and whether it was changed since; and by which command."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_SECONDS = 20


def code_state(package: Path, rooms: Iterable[str]) -> dict[str, Any]:
    """``commit`` and ``dirty`` (whether ``rooms`` of the checkout differ from it) of the package folder ``package``.

    Both None unless that folder is one of a git checkout: installed into an environment inside of another repository, that one's
    commit says nothing of this code.
    """
    root = package.resolve().parent
    known = git(root, "ls-files", "--error-unmatch", "--", f"{package.name}/__init__.py")
    commit = git(root, "rev-parse", "HEAD") if known else None
    changes = git(root, "status", "--porcelain", "--untracked-files=no", "--", *rooms) if commit else None
    return {"commit": commit or None, "dirty": None if changes is None else bool(changes)}


def git(root: Path, *words: str) -> str | None:
    """What git says in a folder; None when it fails or is not there."""
    try:
        run = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() if run.returncode == 0 else None


def command_line(program: str, words: Sequence[str]) -> str:
    """A command as another machine may read it, quoted for a shell: of an absolute path, also after ``NAME=``, the last part."""
    return shlex.join([program, *map(_without_machine, words)])


def _without_machine(word: str) -> str:
    if Path(word).is_absolute():
        return Path(word).name
    name, equals, value = word.rpartition("=")
    return name + equals + (Path(value).name if Path(value).is_absolute() else value)
