"""How long a call takes by itself: the clock on the wall without the time in which its thread waited for a core.

A thread that sleeps or waits for a lock, a file or a device is still on its own time: a call that begins to wait has
become slower. Linux tells the rest per thread (``schedstat``). Elsewhere the clock on the wall is all there is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ClockName = Literal["own", "wall"]
_STAT = Path("/proc/thread-self/schedstat")  # nanoseconds on a core, nanoseconds ready without one, turns


@dataclass(frozen=True)
class Turn:
    """Milliseconds of one call, by both clocks; ``own`` is ``wall`` where nothing else is known."""

    wall: float
    own: float


def clock_name() -> ClockName:
    """Which clock ``own`` is here."""
    return "wall" if waited_nanoseconds() is None else "own"


def time_turn(call: Callable[[], object]) -> Turn:
    """Call once. What the call raises is not caught."""
    before, started = waited_nanoseconds(), time.perf_counter_ns()
    call()
    wall, after = time.perf_counter_ns() - started, waited_nanoseconds()
    lost = 0 if before is None or after is None else after - before
    # The two clocks are read one after the other, so that all of a very short call may seem lost.
    return Turn(wall / 1e6, max(wall - lost, 1) / 1e6)


def waited_nanoseconds() -> int | None:
    """Nanoseconds that this thread was ready to run and did not."""
    try:
        return int(_STAT.read_bytes().split()[1])
    except (OSError, ValueError, IndexError):
        return None
