"""A figure of noisy samples, and between which values it lies.

The median: half of the turns may be disturbed, in either direction, before it moves far. Its interval is that of its
ranks, which assumes nothing about how times are spread, but that rounds do not depend on each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_DEVIATIONS = 1.96  # 95 % of one look; a measurement that goes on until it is decided looks more than once


@dataclass(frozen=True)
class Estimate:
    """A median with its interval."""

    value: float
    low: float
    high: float
    samples: int

    @property
    def spread(self) -> float:
        """Half of the interval's width in logarithms: 0.02 is about 2 %."""
        return math.log(self.high / self.low) / 2


def estimate(samples: Sequence[float]) -> Estimate:
    """Of at least one positive number; with few of them the interval is that of all."""
    ordered = np.sort(np.asarray(samples, float))
    count = len(ordered)
    reach = _DEVIATIONS * math.sqrt(count) / 2
    first = max(0, math.floor(count / 2 - reach) - 1)
    last = min(count - 1, math.ceil(count / 2 + reach))
    return Estimate(float(np.median(ordered)), float(ordered[first]), float(ordered[last]), count)


def decided(now: Estimate, baseline_spread: float, limit: float) -> bool:
    """Whether the value lies clearly on one side of ``limit``, which is as unsure as the baseline it comes from."""
    return abs(math.log(now.value / limit)) > math.hypot(now.spread, baseline_spread)
