"""``apex-rt`` as the separate process that its user starts, and the memory that it holds meanwhile."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

EVERY = 0.05  # seconds between two looks at a process


def start(words: Sequence[object], said: Path) -> subprocess.Popen[bytes]:
    """Run ``apex-rt`` with these words; what it says goes to the file ``said``."""
    with said.open("ab") as stream:
        command = [sys.executable, "-m", "apex_runtime.cli.main", *map(str, words)]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)


def finish(words: Sequence[object], said: Path) -> int:
    """Run it to its end; its exit code."""
    return start(words, said).wait()


def held_bytes(process: subprocess.Popen[bytes], field: str = "VmRSS") -> int | None:
    """What it has resident now, or (VmHWM) has had at most; None where it has ended or the system does not tell.

    The kernel's own account of the child at its end is no help: the peak of a child begins with that of its parent.
    """
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def looks_at(process: subprocess.Popen[bytes], field: str = "VmRSS", every: float = EVERY) -> Iterator[int]:
    """``held_bytes`` again and again until it ends."""
    while process.poll() is None:
        held = held_bytes(process, field)
        if held is not None:
            yield held
        time.sleep(every)
