"""The Lovász hinge: the Jaccard loss of an instance's mask, made convex in its logits (Berman et al. 2018).

With y = 1 on the object and -1 beside it, every cell has the error m = 1 - logit * y. The set function is the Jaccard loss of a
mask that is wrong exactly in the set; its Lovász extension at relu(m) is a sum over the cells sorted by error, in which each
counts with what its entry adds to the Jaccard loss. Of a mask with logits +-1 it is 2 (1 - IoU). Exact: all cells of the region
are sorted, none is sampled.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from apex_train.losses.masks import MaskPairs


def mask_lovasz(pairs: MaskPairs) -> Tensor:
    """Lovász hinge per instance [X] within its region; cells are of the object when more than half of them is covered."""
    instance_N, cell_N = torch.nonzero(pairs.inside.flatten(1) > 0, as_tuple=True)
    truth_N = pairs.truth.flatten(1)[instance_N, cell_N]
    logit_N = pairs.logits.flatten(1)[instance_N, cell_N]
    error_N = 1 - logit_N * torch.where(truth_N, 1.0, -1.0)
    order_N = _sorted_within(instance_N, error_N.detach())
    step_N = jaccard_steps(instance_N, truth_N[order_N].long(), len(pairs.logits))
    return error_N.new_zeros(len(pairs.logits)).index_add(0, instance_N, F.relu(error_N[order_N]) * step_N)


def _sorted_within(group_N: Tensor, value_N: Tensor) -> Tensor:
    """Places [N] that sort values downwards within each group; the groups are ascending already and stay where they are."""
    falling_N = value_N.argsort(descending=True, stable=True)
    return falling_N[group_N[falling_N].argsort(stable=True)]


def jaccard_steps(group_N: Tensor, truth_N: Tensor, groups: int) -> Tensor:
    """What each cell adds to the Jaccard loss of its group when the cells before it, group by group, are wrong already: [N].

    ``truth_N`` is 1 on the object, else 0. In closed form, for differences of quotients cancel: a missed cell leaves the union
    as it was and takes 1 / union off the IoU; a false one widens it by one cell. Without an object any cell makes the loss 1.
    """
    place_N = torch.arange(1, len(group_N) + 1, device=group_N.device)
    size_X = torch.bincount(group_N, minlength=groups)
    missed_N = truth_N.cumsum(0)
    total_X = torch.zeros_like(size_X).index_add_(0, group_N, truth_N)
    place_N = place_N - (size_X.cumsum(0) - size_X)[group_N]
    missed_N = missed_N - (total_X.cumsum(0) - total_X)[group_N]
    union_N = total_X[group_N] + place_N - missed_N
    left_N = total_X[group_N] - missed_N
    false_N = left_N.float() / (union_N * (union_N - 1)).clamp(min=1)
    step_N = torch.where(truth_N > 0, 1 / union_N.float(), false_N)
    return torch.where((total_X[group_N] == 0) & (place_N == 1), torch.ones_like(step_N), step_N)
