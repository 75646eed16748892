"""The memory of a server over time: where it begins, where it ends, how fast it grows."""

from __future__ import annotations

import time
from typing import Any, Protocol

import numpy as np

EVERY = 0.5  # seconds
SETTLED = 0.2  # of the samples: a server that has not seen every size yet still grows
NEEDLE = 0.1  # of the settled samples at either end: their medians are compared
KEPT_SAMPLES = 200  # in the evidence


class Resident(Protocol):
    """What has memory."""

    def resident_bytes(self) -> int:
        """How much, now."""
        ...


class Memory:
    """Samples of the memory of a process."""

    def __init__(self, server: Resident) -> None:
        self._server = server
        self._samples: list[tuple[float, int]] = []

    def watch(self) -> None:
        """Take a sample when the last one is old enough."""
        now = time.monotonic()
        if not self._samples or now - self._samples[-1][0] >= EVERY:
            self._samples.append((now, self._server.resident_bytes()))

    def mark(self) -> None:
        """Begin anew."""
        self._samples.clear()

    def since_mark(self) -> dict[str, Any]:
        """Growth since ``mark``: first, last, percent, slope, samples."""
        self._samples.append((time.monotonic(), self._server.resident_bytes()))
        return growth(self._samples)


def growth(samples: list[tuple[float, int]]) -> dict[str, Any]:
    """``samples``: seconds and bytes. The slope is that of the straight line through those after the first fifth."""
    settled = samples[int(len(samples) * SETTLED) :]
    seconds, used = np.array([one[0] for one in settled]), np.array([one[1] for one in settled]) / 2**20
    ends = max(1, int(len(settled) * NEEDLE))
    first, last = float(np.median(used[:ends])), float(np.median(used[-ends:]))
    slope = float(np.polyfit(seconds - seconds[0], used, 1)[0]) if len(settled) > 1 else 0.0
    step = max(1, len(samples) // KEPT_SAMPLES)
    start = samples[0][0]
    return {
        "first_mib": first,
        "last_mib": last,
        "growth_percent": 100 * (last / first - 1),
        "mib_per_minute": slope * 60,
        "samples": [[round(at - start, 1), size] for at, size in samples[::step]],
    }
