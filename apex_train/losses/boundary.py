"""The boundary term: how far the predicted contour lies from the true one (boundary loss, Kervadec et al. 2019).

Kervadec's integral of phi * p, phi the signed distance to the true contour, less its least value (that of the truth) is

    L = sum_in w |p - t| / sum_band w,    w = min(d, LIMIT) - 1/2

d is the distance, in cells, from a cell's centre to the nearest centre on the other side of the contour, and the band holds the
cells with d < LIMIT on both sides. Every wrong cell counts, wherever it lies, with its distance from the true contour: unlike
measures that look at a band around the truth only, it sees what is predicted far away, and a hole deep inside. Dividing by the
band makes a contour displaced by k cells cost about (k / LIMIT)^2 / 2 for objects of any size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apex_train.losses.masks import MaskPairs

LIMIT = 4  # cells: 16 pixels; beyond it a wrong cell costs no more


def mask_boundary(pairs: MaskPairs) -> Tensor:
    """Boundary loss per instance [X] within its region. Where no cell is of the object: the mean of what is predicted."""
    weight, band = contour_weights(pairs.target, pairs.truth)
    weight, band = weight * pairs.inside, band * pairs.inside
    wrong = (weight * (pairs.logits.sigmoid() - pairs.target).abs()).sum((1, 2))
    scale = (weight * band).sum((1, 2))
    return wrong / torch.where(scale > 0, scale, weight.sum((1, 2)).clamp(min=1))


@torch.no_grad()
def contour_weights(target_Xhw: Tensor, truth_Xhw: Tensor) -> tuple[Tensor, Tensor]:
    """(weight, 1 in the band) of every cell, [X,h,w] each in the type of ``target_Xhw``."""
    to_object, to_rest = squared_distance(truth_Xhw), squared_distance(~truth_Xhw)
    squared = torch.maximum(to_object, to_rest)  # of the two, the one to its own side is 0
    return squared.to(target_Xhw.dtype).sqrt() - 0.5, (squared < LIMIT**2).to(target_Xhw.dtype)


def squared_distance(source_Xhw: Tensor) -> Tensor:
    """Squared Euclidean distance to the nearest true cell, at most LIMIT^2: uint8 [X,h,w], exact, one axis after the other
    (Felzenszwalb and Huttenlocher 2012)."""
    distance = (~source_Xhw).to(torch.uint8) * LIMIT**2
    for axis in (2, 1):
        before, count = distance, distance.shape[axis]
        distance = before.clone()
        for step in range(1, min(LIMIT, count)):
            near, far = (before.narrow(axis, start, count - step) + step**2 for start in (0, step))
            for start, other in ((step, near), (0, far)):
                view = distance.narrow(axis, start, count - step)
                torch.minimum(view, other, out=view)
    return distance
