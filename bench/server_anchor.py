"""How fast the machine is beside a load: one fixed computation, timed once a second on the core of the client.

A slow anchor shows that the machine did less in that second. A fast one shows nothing of the core of the server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import numpy as np

EVERY = 1.0  # seconds; the first after half of it, so that each falls into the middle of a second of the plan
SIDE = 256
T = TypeVar("T")
Sample = tuple[float, float]  # seconds since the load began, milliseconds that the computation took


def fixed_work() -> Callable[[], object]:
    """A product of float32 matrices, a few milliseconds in one thread.

    Not of BLAS: that brings threads of its own, which would run on the core of the server too.
    """
    matrix = np.random.default_rng(0).standard_normal((SIDE, SIDE), dtype=np.float32)
    return lambda: np.einsum("ij,kj->ik", matrix, matrix, optimize=False)


async def anchored(load: Awaitable[T], every: float = EVERY) -> tuple[T, list[Sample]]:
    """What ``load`` returns, and the samples that were taken in the event loop until then."""
    samples: list[Sample] = []
    work = fixed_work()
    work()  # the first one also finds its memory
    ticking = asyncio.create_task(_tick(work, samples, every))
    try:
        return await load, samples
    finally:
        ticking.cancel()


async def _tick(work: Callable[[], object], samples: list[Sample], every: float) -> None:
    started = time.perf_counter()
    while True:
        due = (len(samples) + 0.5) * every
        await asyncio.sleep(max(0.0, due - (time.perf_counter() - started)))
        before = time.perf_counter()
        work()
        samples.append((before - started, (time.perf_counter() - before) * 1000))


def in_second(samples: Sequence[Sample], second: int) -> float:
    """Milliseconds of the anchor in a second of the load; nan where it was not timed."""
    found = [taken for at, taken in samples if int(at) == second]
    return float(np.median(found)) if found else float("nan")
