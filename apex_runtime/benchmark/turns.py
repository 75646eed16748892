"""Subjects timed against each other: in turn within every round, so that a change in the machine's speed hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

Subject = Callable[[], object]
Clock = Callable[[], float]  # seconds


def measure(
    subjects: Mapping[str, Subject],
    rounds: int,
    warmup: int,
    before_turn: Callable[[], object] = lambda: None,
    clock: Clock = time.perf_counter,
) -> dict[str, list[float]]:
    """Milliseconds per subject and round; every round runs all subjects in turn. ``before_turn`` may raise to end it.

    A turn is two calls, the second is timed: the first brings the subject's weights back into the caches and lets the threads of
    the subject before it, which spin for a while on few cores, go to rest.
    """
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    for index in range(warmup + rounds):
        for name, run in subjects.items():
            before_turn()
            run()
            start = clock()
            run()
            if index >= warmup:
                samples[name].append((clock() - start) * 1e3)
    return samples


def ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """Median over rounds of a / b, paired: both were measured within the same round."""
    return float(np.median(np.array(a) / np.array(b)))
