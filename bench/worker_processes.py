"""The workers of a job of Ray that was started as a process: found among its children, and killed."""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

NAME = b"ray::MapWorker"


def workers_of(pid: int) -> list[int]:
    """The processes below ``pid`` in which Ray Data has an actor."""
    children: dict[int, list[int]] = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            children[_parent(path)].append(int(path.name))
    found, waiting = [], [pid]
    while waiting:
        below = children[waiting.pop()]
        waiting += below
        found += [child for child in below if _name(child).startswith(NAME)]
    return sorted(found)


def kill_worker(pid: int) -> int | None:
    """SIGKILL one of them; its process id, or None where there is none."""
    for worker in workers_of(pid):
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
            return worker
    return None


def _parent(process: Path) -> int:
    stat = (process / "stat").read_text(encoding="utf-8", errors="replace")
    return int(stat.rpartition(")")[2].split()[1])


def _name(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
