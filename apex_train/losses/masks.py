"""Masks of matched instances, prototypes combined by an instance's coefficients, and the two losses that every recipe has.

Shapes: X compared instances, h and w cells of the prototypes' grid (stride 4). All mask losses look at the same region of an
instance, its box or that with a margin, and give one value per instance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from apex_train.config import MaskRegion
from apex_train.losses.assignment import Assignment
from apex_train.model.config import MASK_STRIDE

MARGIN = 1.25  # the wide region is this much larger than the box, for where a predicted box is too large, more is shown
DRAWN = 0.5  # a cell belongs to the truth, where that must be yes or no, when more than this share of it is covered


@dataclass(frozen=True, eq=False)
class MaskPairs:
    """Instances beside their truth, float32 [X,h,w]: logits, covered share of each cell in [0,1], and 1 inside the region."""

    logits: Tensor
    target: Tensor
    inside: Tensor

    @property
    def truth(self) -> Tensor:
        """bool [X,h,w]: cells of the region that belong to the object."""
        return (self.target > DRAWN) & (self.inside > 0)


def choose_instances(assignment: Assignment, has_mask_BG: Tensor, per_object: int) -> tuple[Tensor, Tensor, Tensor]:
    """The anchors whose masks are compared: the best ``per_object`` per object on average. Returns (image, anchor, object)
    [X]."""
    object_BA = assignment.object_BA
    drawn_BA = torch.gather(has_mask_BG, 1, object_BA.clamp(min=0)) & assignment.positive_BA
    limit = int(per_object * has_mask_BG.sum(1).max().item())
    if limit == 0:
        empty = object_BA.new_zeros(0)
        return empty, empty, empty
    ranked = torch.where(drawn_BA, assignment.quality_BA + 1, torch.zeros_like(assignment.quality_BA))
    values, anchors = ranked.topk(min(limit, ranked.shape[1]), dim=1)
    quota_B1 = per_object * has_mask_BG.sum(1, keepdim=True)
    place = torch.arange(values.shape[1], device=values.device)
    image, column = torch.nonzero((values > 0) & (place < quota_B1), as_tuple=True)
    anchor = anchors[image, column]
    return image, anchor, object_BA[image, anchor]


def compare(
    coefficients_XP: Tensor,
    prototypes_BPhw: Tensor,
    image_X: Tensor,
    target_Xhw: Tensor,
    boxes_X4: Tensor,
    region: MaskRegion = "box",
) -> MaskPairs:
    """The masks that the coefficients draw, beside ``target_Xhw``; boxes in pixels. ``image_X`` is ascending, as
    ``choose_instances`` gives it."""
    batch, height, width = len(prototypes_BPhw), *prototypes_BPhw.shape[2:]
    counts = torch.bincount(image_X, minlength=batch).tolist()  # one wait for a GPU, not one per image
    pairs = zip(coefficients_XP.float().split(counts), prototypes_BPhw.float().flatten(2), strict=True)
    logits = torch.cat([coefficients @ prototypes for coefficients, prototypes in pairs]).unflatten(1, (height, width))
    return MaskPairs(logits, target_Xhw, _inside(boxes_X4 / MASK_STRIDE, height, width, region))


def mask_bce(pairs: MaskPairs) -> Tensor:
    """Binary cross entropy per instance [X], the mean over its region."""
    loss = F.binary_cross_entropy_with_logits(pairs.logits, pairs.target, reduction="none") * pairs.inside
    return loss.sum((1, 2)) / pairs.inside.sum((1, 2)).clamp(min=1)


def mask_dice(pairs: MaskPairs) -> Tensor:
    """Soft Dice with squares per instance [X] (V-Net, Milletari et al. 2016), one cell of smoothing."""
    return soft_dice(pairs.logits.sigmoid(), pairs.target, pairs.inside)


def soft_dice(probability_Xhw: Tensor, target_Xhw: Tensor, weight_Xhw: Tensor) -> Tensor:
    """1 - (2 sum wpt + 1) / (sum wp^2 + sum wt^2 + 1), [X]; for weights of 0 and 1, and with partly counted cells."""
    common = (probability_Xhw * target_Xhw * weight_Xhw).sum((1, 2))
    sizes = [(item.square() * weight_Xhw).sum((1, 2)) for item in (probability_Xhw, target_Xhw)]
    return 1 - (2 * common + 1) / (sizes[0] + sizes[1] + 1)


def _inside(boxes_X4: Tensor, height: int, width: int, region: MaskRegion) -> Tensor:
    """float [X,h,w]: ``box``, cells that the box touches; ``wide``, whose centre lies in the box grown by MARGIN and one cell."""
    middle = (boxes_X4[:, :2] + boxes_X4[:, 2:]) / 2
    half = (boxes_X4[:, 2:] - boxes_X4[:, :2]) / 2
    reach = half + 0.5 if region == "box" else half * MARGIN + 1
    x = torch.arange(width, device=boxes_X4.device) + 0.5
    y = torch.arange(height, device=boxes_X4.device) + 0.5
    in_x = (x - middle[:, :1]).abs() < reach[:, :1]
    in_y = (y - middle[:, 1:]).abs() < reach[:, 1:]
    return (in_y[:, :, None] & in_x[:, None, :]).float()
