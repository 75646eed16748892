"""Which tiles a line of the frontier looks at: the engine's own, random ones, or those that the truth would choose.

Two truths: ``oracle`` orders tiles by what
the training loss loses by looking at them, ``coverage`` by the ground truth boxes in them. Padding is never chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from apex_runtime.frontier.choices import Line
from apex_runtime.routing.budget import Budget
from apex_train.engine.tile_truth import TileTruth

Ranking = Literal["background", "alone", "greedy"]
REFRESHED = 8  # gains that the greedy choice measures anew at a time


class Oracle:
    """What the loss would choose. ``ranking`` says over which background the worth of a tile is measured:

    ``background``: the router's own choice at that budget, anew for every budget;
    ``alone``: no other tile, once for all budgets;
    ``greedy``: tile by tile the one that the loss loses most by, over those chosen before. Lazy (Minoux 1978): a gain is measured
    anew only while its last value could still win, which is exact when gains shrink as tiles are added.
    """

    def __init__(self, truth: TileTruth, content_N: np.ndarray, ranking: Ranking) -> None:
        self.truth, self.ranking = truth, ranking
        self.shown: list[int] = np.flatnonzero(content_N).tolist()
        self._chosen: list[int] = []
        self._gains: dict[int, float] = {}

    def choose(self, tiles: int) -> list[int]:
        """The ids of ``tiles`` tiles."""
        if self.ranking == "greedy":
            return self._greedy(tiles)
        background = self.truth.router_choice(tiles) if self.ranking == "background" else []
        if self.ranking == "background" or not self._gains:
            gains_N = self.truth.gains(background, self.shown)
            self._gains = {tile: float(gains_N[tile]) for tile in self.shown}
        return self._best(tiles)

    def _best(self, count: int) -> list[int]:
        return sorted(self._gains, key=lambda tile: (-self._gains[tile], tile))[:count]

    def _greedy(self, tiles: int) -> list[int]:
        if not self._gains and not self._chosen:
            self._measure(self.shown)
        fresh = set(self.shown) if not self._chosen else set()
        while len(self._chosen) < tiles:
            while (best := self._best(1)[0]) not in fresh:
                stale = [tile for tile in self._best(len(self._gains)) if tile not in fresh][:REFRESHED]
                self._measure(stale)
                fresh.update(stale)
            self._chosen.append(best)
            del self._gains[best]
            fresh = set()
        return self._chosen[:tiles]

    def _measure(self, tiles: Sequence[int]) -> None:
        gains_N = self.truth.gains(self._chosen, tiles)
        self._gains |= {tile: float(gains_N[tile]) for tile in tiles}


def planned(budgets: Sequence[Budget], seeds: int) -> list[Line]:
    """The lines that are forced upon the engine, budget by budget."""
    kinds = [*(("random", seed) for seed in range(seeds)), ("oracle", None), ("coverage", None)]
    return [Line(kind, budget.asked, seed) for budget in budgets for kind, seed in kinds]
