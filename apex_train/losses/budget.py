"""What the router means to spend, against what the run wants spent: an expected cost, and the price that holds it there.

p = sigmoid(U) is read as "worth its cost". The expected cost of an image is E[C] = sum p C_h + (1 - p) C_c over its tiles, with
C_h the cost of a tile that is looked at and C_c of one that is not; the excess e = (E[C] - B) / B over the wanted cost B is
multiplied by a price mu that rises while too much is meant to be spent (dual ascent on the constraint E[C] <= B).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class TileCost:
    """GFLOPs of a tile that is looked at, and of one that is not."""

    looked: float
    passed: float = 0.0


def expected_cost(utilities_BN: Tensor, cost: TileCost) -> Tensor:
    """E[C] of each image, GFLOPs [B]."""
    share_BN = torch.sigmoid(utilities_BN)
    return (share_BN * cost.looked + (1 - share_BN) * cost.passed).sum(1)


def excess_cost(utilities_BN: Tensor, cost: TileCost, share: float) -> Tensor:
    """e, the mean over images of (E[C] - B) / B, where B is the cost of looking at ``share`` of the tiles. 0 is as wanted."""
    wanted = utilities_BN.shape[1] * (share * cost.looked + (1 - share) * cost.passed)
    return (expected_cost(utilities_BN, cost) / wanted - 1).mean()


@dataclass(frozen=True)
class BudgetPrice:
    """The price of an excess over the cost of looking at ``share`` of the tiles, as it stands in one step."""

    mu: float
    share: float
    cost: TileCost


class DualVariable:
    """The price mu >= 0: follows a running mean of the excess, rests within the deadband, fades, and never passes ``limit``."""

    RATE, MEMORY, DEADBAND, FADING, LIMIT = 0.02, 0.9, 0.02, 1e-3, 10.0

    def __init__(self) -> None:
        self.mu, self.mean = 0.0, 0.0

    def update(self, excess: float) -> None:
        """One step's excess."""
        self.mean = self.MEMORY * self.mean + (1 - self.MEMORY) * excess
        step = self.RATE * self.mean if abs(self.mean) > self.DEADBAND else 0.0
        self.mu = min(self.LIMIT, max(0.0, (1 - self.FADING) * self.mu + step))

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"mu": self.mu, "mean": self.mean}

    def restore(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.mu, self.mean = float(state["mu"]), float(state["mean"])
