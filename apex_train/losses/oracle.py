"""What a close look is worth: the router learns, per tile, how much of the loss went away by looking.

Both losses come from real forward passes of the same heads on the same image, once with every tile gated off and once with
the chosen tiles on; the loss of a tile is the sum over the anchors whose centre lies in it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GAIN_LIMIT = 4.0
MARGIN = 0.5


def tile_gains(off_BA: Tensor, on_BA: Tensor, centres_A2: Tensor, ids_BK: Tensor, tile: int, cols: int, count: int) -> Tensor:
    """Loss removed in each chosen tile [B,K], detached and cut to +-GAIN_LIMIT. ``off`` and ``on`` are losses per anchor
    [B,A]."""
    place = (centres_A2[:, 1] // tile * cols + centres_A2[:, 0] // tile).long()
    removed = (off_BA - on_BA).detach()
    gain_BN = removed.new_zeros(len(removed), count).index_add_(1, place, removed)
    return torch.gather(gain_BN, 1, ids_BK).clamp(-GAIN_LIMIT, GAIN_LIMIT)


def oracle_loss(utilities_BN: Tensor, ids_BK: Tensor, gains_BK: Tensor) -> Tensor:
    """Regression of the utility to the gain, plus ranking of all pairs of tiles with a margin that a constant cannot satisfy."""
    utility_BK = torch.gather(utilities_BN, 1, ids_BK)
    regression = F.smooth_l1_loss(utility_BK, gains_BK)
    order_BKK = torch.sign(gains_BK[:, :, None] - gains_BK[:, None, :])
    ahead_BKK = utility_BK[:, :, None] - utility_BK[:, None, :]
    ranking = F.relu(MARGIN - order_BKK * ahead_BKK) * (order_BKK != 0)
    return regression + ranking.mean()
