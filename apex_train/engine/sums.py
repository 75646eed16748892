"""Means over the steps of an epoch, as sums that a checkpoint in the middle of it can carry."""

from __future__ import annotations

import math
from typing import Any


class Sums:
    """Adds up the figures of steps; a step with a total that is not finite is left out."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Start the next epoch."""
        self._totals: dict[str, float] = {}
        self._count = 0

    def add(self, terms: dict[str, float]) -> None:
        """One step."""
        if not math.isfinite(terms["total"]):
            return
        self._count += 1
        for key, value in terms.items():
            self._totals[key] = self._totals.get(key, 0.0) + value

    def means(self) -> dict[str, float]:
        """Mean per figure; empty without a finite step."""
        return {key: round(value / self._count, 6) for key, value in self._totals.items()}

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"totals": dict(self._totals), "count": self._count}

    def restore(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._totals, self._count = dict(state["totals"]), int(state["count"])
