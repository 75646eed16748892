"""What a close look is worth: the router learns, per tile, how much of the loss goes away by looking there.

A label is the loss without the tile minus the loss with it, from real forward passes (``engine/oracle.py``). Labels span orders
of magnitude: an empty tile changes the loss by thousandths, a full one by several units, and both must be told from their
neighbours. So the utility is the gain on a scale that is linear around zero and logarithmic beyond.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

UNIT = 0.05  # of the loss; gains below are told apart in proportion, gains above by their ratio
MARGIN = 0.5


@dataclass(frozen=True, eq=False)
class OracleLabels:
    """Of some images of a batch, ``rows`` int64 [R], the gains float32 [R,M] of the tiles ``ids`` int64 [R,M].

    ``share``: how much of all that was labelled in the effective batch this is.
    """

    rows: Tensor
    ids: Tensor
    gains: Tensor
    share: float


def utility_of(gain: Tensor) -> Tensor:
    """The utility that says a gain: asinh(gain / UNIT). 0 for nothing, 3.7 for one unit of the loss, below 8 for 74."""
    return torch.asinh(gain / UNIT)


def oracle_loss(utilities_RM: Tensor, gains_RM: Tensor) -> Tensor:
    """Regression of the utilities to those of the gains, plus ranking of all pairs of an image's tiles.

    A pair must be apart by MARGIN, or by as much as its gains are if that is less: what hardly differs need not be told apart.
    """
    wanted_RM = utility_of(gains_RM)
    regression = F.smooth_l1_loss(utilities_RM, wanted_RM)
    apart_RMM = wanted_RM[:, :, None] - wanted_RM[:, None, :]
    ahead_RMM = (utilities_RM[:, :, None] - utilities_RM[:, None, :]) * torch.sign(apart_RMM)
    ranking = F.relu(apart_RMM.abs().clamp(max=MARGIN) - ahead_RMM)
    return regression + ranking.mean()
