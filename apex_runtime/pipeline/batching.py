"""``--batch``: how many images go through the graph together."""

from __future__ import annotations

from apex_runtime.errors import UsageError

MAX_BATCH = 256
_AUTO = {"ort-cpu": 1, "torch": 4}  # on a CPU one image keeps a thread busy, and lanes the others (bench/LOG.md)
_AUTO_ELSEWHERE = 8


def parse_batch(text: str, backend: str) -> int:
    """``auto`` or a number, for a backend that executes. Raises UsageError."""
    asked = text.strip().lower()
    if asked == "auto":
        return _AUTO.get(backend, _AUTO_ELSEWHERE)
    if not asked.isdecimal() or not 1 <= int(asked) <= MAX_BATCH:
        raise UsageError(f"--batch {text}: neither auto nor a number from 1 to {MAX_BATCH}.", "auto is the default.")
    return int(asked)
