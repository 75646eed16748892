"""How long something took."""

from __future__ import annotations

import time


def milliseconds_since(started: float) -> float:
    """Since ``time.perf_counter`` said ``started``."""
    return (time.perf_counter() - started) * 1000
