"""BCE and Dice of masks seen from further away: the same shape in coarser cells, where a few wrong ones no longer show but a
wrong shape does (deep supervision of scales, as in HED, Xie and Tu 2015, on one output).

A coarse cell's probability is the mean of those fine cells that lie in the region. Its logarithms are taken as log-sum-exp of
log-sigmoids, so that nothing is cut off and a confident mistake keeps its gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from apex_train.losses.masks import MaskPairs, soft_dice

SCALES = 2  # halvings: cells of 8 and 16 pixels
NOTHING = -1e30  # the logarithm of an empty sum; finite, so that it has a gradient of 0 and not of NaN


def mask_multiscale(pairs: MaskPairs) -> Tensor:
    """BCE + Dice per instance [X], the mean over SCALES. A coarse cell counts with the share of it that is in the region; cells
    that a coarse one would need beyond the map's edge are outside."""
    nothing = pairs.logits.new_full((), NOTHING)
    yes, no = (torch.where(pairs.inside > 0, F.logsigmoid(sign * pairs.logits), nothing) for sign in (1, -1))
    count, covered = pairs.inside, pairs.target * pairs.inside
    total = pairs.logits.new_zeros(len(pairs.logits))
    for scale in range(1, SCALES + 1):
        yes, no = (_blocks(item, NOTHING).logsumexp(-1) for item in (yes, no))
        count, covered = (_blocks(item, 0.0).sum(-1) for item in (count, covered))
        total = total + _compare(yes, no, covered, count, float(4**scale))
    return total / SCALES


def _compare(yes_Xhw: Tensor, no_Xhw: Tensor, covered_Xhw: Tensor, count_Xhw: Tensor, full: float) -> Tensor:
    """BCE + Dice [X] of one scale, from log sums of p and of 1 - p, sums of the truth, and cells counted, of ``full``."""
    weight, size = count_Xhw / full, count_Xhw.clamp(min=1)
    target, log_size = covered_Xhw / size, size.log()
    loss = -(target * (yes_Xhw - log_size) + (1 - target) * (no_Xhw - log_size))
    counted = torch.where(count_Xhw > 0, loss, torch.zeros_like(loss)) * weight
    bce = counted.sum((1, 2)) / weight.sum((1, 2)).clamp(min=1e-6)
    return bce + soft_dice((yes_Xhw - log_size).exp(), target, weight)


def _blocks(map_Xhw: Tensor, beyond: float) -> Tensor:
    """The 2x2 blocks [X,ceil(h/2),ceil(w/2),4], filled up with ``beyond`` at an odd edge."""
    height, width = map_Xhw.shape[1:]
    even = F.pad(map_Xhw, (0, width % 2, 0, height % 2), value=beyond)
    return even.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).permute(0, 1, 3, 2, 4).flatten(3)
